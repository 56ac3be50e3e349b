"""`make bench`, `make months`, `make accuracy`: run benchmarks, print them and write them as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.pages import keep


def speed(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure the engines alone."""
    from benchmarks.accounts import account_costs
    from benchmarks.engine_speed import engine_speed, start_up
    from benchmarks.threads import thread_speed
    from sim.units import NS_PER_S, duration_ns

    horizon_s, repetitions = duration_ns(arguments.horizon) / NS_PER_S, arguments.repetitions
    return {
        "start_up": start_up(),
        "engine_speed": engine_speed(horizon_s, repetitions),
        "threads": thread_speed(horizon_s, repetitions),
        "account_costs": account_costs(horizon_s, repetitions),
    }


def months(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure the scenarios that span months."""
    from benchmarks.months import months as measured

    return {"months": measured()}


def control(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure the control plane."""
    from benchmarks.control_cost import control_cost

    return {"control": control_cost(arguments.repetitions)}


def accuracy(arguments: argparse.Namespace) -> dict[str, Any]:
    """Compare measured tables with what the models say; every row goes to `outputs/accuracy/rows.csv`."""
    from benchmarks.measured import report, shown

    try:
        folder = report.tables_folder(arguments.data)
    except report.NoTablesError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from error
    rows = Path("outputs") / "accuracy" / "rows.csv"
    result = report.accuracy(folder, arguments.rows, rows)
    print(shown.text(result))
    print(f"every row with prediction and band: {rows}")
    return {"accuracy": result}


BENCHMARKS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "speed": speed,
    "control": control,
    "months": months,
    "accuracy": accuracy,
}
PRINTED = ("accuracy",)  # by themselves, in words


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def main(words: Sequence[str] | None = None) -> None:
    """Run a benchmark and write `outputs/bench/<name>-<time>.json`.

    Parameters
    ----------
    words : of the command line; None for those of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument(
        "benchmark", choices=list(BENCHMARKS), help="engines alone, control plane, runs that span months, or measured tables"
    )
    parser.add_argument("--horizon", default="1h", help="speed: simulated time of bench_chat8 in each repetition (default 1h)")
    parser.add_argument("--repetitions", type=int, default=5, help="speed, control: repetitions; medians are reported (default 5)")
    parser.add_argument("--keep", action="store_true", help="keep the result in benchmarks/kept and in the tables of the pages")
    parser.add_argument("--out", type=Path, help="JSON file to write (default outputs/bench/<name>-<time>.json)")
    data = Path(os.environ.get("BILLCAST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    parser.add_argument(
        "--data", type=Path, default=data, help="accuracy: folder with perf/*.csv (default BILLCAST_DATA or ../shared/data)"
    )
    parser.add_argument("--rows", type=int, help="accuracy: compare at most so many rows of each table, evenly spread")
    arguments = parser.parse_args(words)
    now = datetime.now(UTC)
    measured = BENCHMARKS[arguments.benchmark](arguments)
    from sim.studies.provenance import provenance  # not before: what runs are started from has to be small

    result = {"date": now.date().isoformat(), "cores": os.cpu_count(), "cpu": _cpu(), **provenance(), **measured}
    target = arguments.out or Path("outputs") / "bench" / f"{arguments.benchmark}-{now.strftime('%Y%m%dT%H%M%SZ')}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    if arguments.benchmark not in PRINTED:
        print(json.dumps(measured, indent=2))
    print(f"written to {target}")
    if arguments.keep:
        keep(arguments.benchmark, result)


if __name__ == "__main__":
    main()
