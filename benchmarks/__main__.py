"""`make bench`: run every benchmark, print it and write it as JSON."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.reference_speed import reference_speed
from sim.studies.provenance import provenance


def main() -> None:
    """Run the benchmarks and write `outputs/bench/<time>.json`."""
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--horizon", default="10min", help="simulated time of each repetition (default 10min)")
    parser.add_argument("--repetitions", type=int, default=5, help="repetitions; medians are reported (default 5)")
    parser.add_argument("--out", type=Path, help="JSON file to write (default outputs/bench/<time>.json)")
    arguments = parser.parse_args()
    now = datetime.now(UTC)
    result = {
        "date": now.date().isoformat(),
        **provenance(),
        "reference_speed": reference_speed(arguments.horizon, arguments.repetitions),
    }
    target = arguments.out or Path("outputs") / "bench" / f"{now.strftime('%Y%m%dT%H%M%SZ')}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    print(json.dumps(result["reference_speed"], indent=2))
    print(f"written to {target}")


if __name__ == "__main__":
    main()
