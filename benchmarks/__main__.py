"""`make bench`: run every benchmark, print it and write it as JSON."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.engine_speed import engine_speed, start_up
from sim.studies.provenance import provenance
from sim.units import NS_PER_S, duration_ns


def main() -> None:
    """Run the benchmarks and write `outputs/bench/<time>.json`."""
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--horizon", default="1h", help="simulated time of bench_chat8 in each repetition (default 1h)")
    parser.add_argument("--repetitions", type=int, default=5, help="repetitions; medians are reported (default 5)")
    parser.add_argument("--out", type=Path, help="JSON file to write (default outputs/bench/<time>.json)")
    arguments = parser.parse_args()
    now = datetime.now(UTC)
    result = {
        "date": now.date().isoformat(),
        **provenance(),
        "start_up": start_up(),
        "engine_speed": engine_speed(duration_ns(arguments.horizon) / NS_PER_S, arguments.repetitions),
    }
    target = arguments.out or Path("outputs") / "bench" / f"{now.strftime('%Y%m%dT%H%M%SZ')}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    print(json.dumps({name: result[name] for name in ("start_up", "engine_speed")}, indent=2))
    print(f"written to {target}")


if __name__ == "__main__":
    main()
