"""Table and figures of experiment 01 from the sweep's `results.parquet`.

Usage: `python experiments/01_cold_start_and_spot/figures.py SWEEP_FOLDER [TARGET_FOLDER]`; writes `results.csv`, `cost_and_slo.svg`
and `booting_and_latency.svg` into the target (default: beside this file), and prints the table.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import duckdb
from matplotlib import rc_context
from matplotlib.figure import Figure

HERE = Path(__file__).resolve().parent
# Okabe and Ito's colours, which colour-blind readers can tell apart; markers tell them apart in grey.
COLOURS = {0: "#0072B2", 50: "#E69F00", 100: "#D55E00"}
MARKERS = {"slow": "o", "fast": "^"}


def rows_of(results: Path) -> list[dict[str, Any]]:
    """Return the sweep's jobs, in order of spot share, cold start and target; a use that no job paid for has no column."""
    answer = duckdb.execute("SELECT * FROM read_parquet(?)", [str(results)])
    names = [column[0] for column in answer.description or []]
    jobs = [dict(zip(names, row, strict=True)) for row in answer.fetchall()]
    return sorted((_row(job) for job in jobs), key=lambda row: (row["spot_percent"], row["cold_start"], row["hpa_target"]))


def _row(job: dict[str, Any]) -> dict[str, Any]:
    return {
        "spot_percent": 100 - job["placement.on_demand_percentage"],
        "cold_start": job["scenario"].removesuffix("_boots"),
        "hpa_target": job["deployments.llama_8b.autoscaler.metrics.0.target"],
        "bill_usd": job["bill.total_usd"],
        "usd_per_1m_tokens": job["bill.usd_per_1m_tokens"],
        "booting_percent": 100 * (job.get("bill.by_use.booting") or 0.0) / job["bill.total_usd"],
        "attained_percent": 100 * job["slo.chat.all.attainment"],
        "ttft_p99_ms": 1000 * job["latency.chat.ttft_s.p99"],
        "tpot_p99_ms": 1000 * job["latency.chat.tpot_s.p99"],
        "arrived": job["requests.arrived"],
        "abandoned": job["requests.abandoned"],
        "retried": job["requests.retried"],
    }


def cost_and_slo(rows: list[dict[str, Any]]) -> Figure:
    """Draw what each fleet costs against the share of requests within all targets."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for row in rows:
        filled = row["hpa_target"] == min(other["hpa_target"] for other in rows)
        colour = COLOURS[row["spot_percent"]]
        axes.plot(
            row["bill_usd"], row["attained_percent"], MARKERS[row["cold_start"]], markersize=10, markeredgecolor=colour,
            markerfacecolor=colour if filled else "white", markeredgewidth=2,
            label=f"{row['spot_percent']} % spot, {row['cold_start']} boot, target {row['hpa_target']}",
        )  # fmt: skip
    axes.set(xlabel="bill for 14 days, USD", ylabel="requests within all targets, %", title="What a fleet costs and what it keeps")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def booting_and_latency(rows: list[dict[str, Any]]) -> Figure:
    """Draw the share of the bill that pays for booting, and the p99 of TTFT, for every fleet."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    names = [f"{row['spot_percent']} % spot, {row['cold_start']}, target {row['hpa_target']}" for row in rows]
    colours = [COLOURS[row["spot_percent"]] for row in rows]
    hatches = ["//" if row["cold_start"] == "slow" else "" for row in rows]
    left.barh(names, [row["booting_percent"] for row in rows], color=colours, hatch=hatches, edgecolor="black")
    right.barh(names, [row["ttft_p99_ms"] for row in rows], color=colours, hatch=hatches, edgecolor="black")
    left.set(xlabel="share of the bill spent on booting, %", title="Paying for boots")
    right.set(xlabel="p99 of the time to first token, ms", title="Waiting for them")
    left.invert_yaxis()
    return figure


def main(sweep: Path, target: Path = HERE) -> None:
    """Write table and figures."""
    rows = rows_of(sweep / "results.parquet")
    lines = [",".join(rows[0])] + [
        ",".join(f"{value:.4f}" if isinstance(value, float) else str(value) for value in row.values()) for row in rows
    ]
    (target / "results.csv").write_text("\n".join(lines) + "\n", "utf-8")
    print("\n".join(lines))
    with rc_context({"svg.hashsalt": "billcast"}):
        cost_and_slo(rows).savefig(target / "cost_and_slo.svg", metadata={"Date": None})
        booting_and_latency(rows).savefig(target / "booting_and_latency.svg", metadata={"Date": None})


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
