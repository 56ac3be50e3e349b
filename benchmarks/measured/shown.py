"""Errors of the tables as text for a terminal and as Markdown for a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def text(result: dict[str, Any]) -> str:
    """Return the errors as lines for a terminal."""
    head = ("gpu", "engine", "dtype", "phase", "rows", "mean", "median", "p95", "bias", "coverage")
    parts: list[str] = []
    groups = dict.fromkeys((row["table"], row["quantity"]) for row in result["strata"])
    for table, quantity in groups:
        rows = [row for row in result["strata"] if (row["table"], row["quantity"]) == (table, quantity)]
        pooled = [row for row in result["pooled"] if (row["table"], row["quantity"]) == (table, quantity)]
        lines = [_cells(row) for row in rows] + [["all", row["engine"], "", "", *_numbers(row)] for row in pooled]
        parts.append(f"{table}: {quantity}\n" + _aligned([list(head), *lines]))
    lines = [[table, str(count), reason] for table, reasons in result["not_covered"].items() for reason, count in reasons.items()]
    if lines:
        parts.append("not covered\n" + _aligned([["table", "rows", "reason"], *lines]))
    if result["missing"]:
        parts.append("no such file: " + ", ".join(result["missing"]))
    parts.append(
        "errors in percent; bias is the median of the signed error, positive where predictions are too high; coverage is the share"
    )
    return "\n\n".join(parts) + "\nof measured values inside the band printed for their row\n"


def _cells(row: dict[str, Any]) -> list[str]:
    return [row["gpu"], row["engine"], row["dtype"], row["phase"], *_numbers(row)]


def _numbers(row: dict[str, Any]) -> list[str]:
    return [
        str(row["rows"]),
        *(f"{row[name]:.1f}" for name in ("mean", "median", "p95")),
        f"{row['bias']:+.1f}",
        "-" if row["coverage"] is None else f"{row['coverage']:.0f}",
    ]


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def markdown(result: dict[str, Any], tables: Sequence[str]) -> str:
    """Return the errors of some tables as one Markdown table, the pooled ones last."""
    head = ["what", "GPU", "engine", "weights", "", "rows", "mean", "median", "p95", "bias", "in band"]
    own = [row for row in result["strata"] if row["table"] in tables]
    pooled = [row for row in result["pooled"] if row["table"] in tables]
    rows = [[row["quantity"], *_cells(row)] for row in own]
    rows += [[f"**{row['quantity']}**", "all", row["engine"], "", "", *_numbers(row)] for row in pooled]
    return _markdown(head, rows)


def not_covered(result: dict[str, Any]) -> str:
    """Return the counts of rows that are not compared as a Markdown table."""
    counts = [(table, reason, rows) for table, reasons in result["not_covered"].items() for reason, rows in reasons.items()]
    return _markdown(["table", "rows", "reason"], ([table, str(rows), reason] for table, reason, rows in counts))


def engine_layer(result: dict[str, dict[str, Any]]) -> str:
    """Return constants, errors and bands of the fitted engine layers as a Markdown table."""
    head = ["engine", "rows", "models", "s", "o_0 ms", "o_s us", "o_e us", "o_l us"]
    head += ["front end ms", "median, bias", "left out", "TPOT", "TTFT"]
    rows = []
    for engine, row in result.items():
        own, left = row["tpot"], row["tpot_left_out"]
        constants = (1e3 * row["step_s"], 1e6 * row["sequence_s"], 1e6 * row["expert_layer_s"], 1e6 * row["latent_layer_s"])
        rows.append([
            f"`{engine}`", str(row["rows"]), str(row["models"]), f"{row['kernel_scale']:.2f}", f"{constants[0]:.2f}",
            *(f"{value:.0f}" for value in constants[1:]), f"{1e3 * row['front_end_s']:.0f}",
            f"{own['median']:.1f}, {own['bias']:+.1f}",
            f"{left['median']:.1f}, {left['bias']:+.1f}" if left["rows"] else "one model",
            _band(row["tpot_band"]), _band(row["ttft_band"]),
        ])  # fmt: skip
    return _markdown(head, rows)


def _band(band: Sequence[float]) -> str:
    return f"-{100 * band[0]:.0f} to +{100 * band[1]:.0f} %" if band else "none"


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])
