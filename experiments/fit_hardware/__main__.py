"""Command of the fits: `python -m experiments.fit_hardware`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from sim.catalog.loader import load_catalog

from .kernels import as_yaml, fitted_rows, summary

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    """Fit the kernels, print the errors of models left out, and write the rows."""
    parser = argparse.ArgumentParser(prog="python -m experiments.fit_hardware", description=__doc__)
    data = Path(os.environ.get("BILLCAST_DATA", ROOT / ".." / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=data, help="folder with perf/ (default: BILLCAST_DATA)")
    parser.add_argument("--out", type=Path, default=ROOT / "sim" / "catalog" / "fits.yaml", help="file to write")
    given = parser.parse_args()
    rows, out = fitted_rows(load_catalog(), given.data / "perf")
    for kernels, types in out.items():
        for dtype, error in types.items():
            phases = "; ".join(f"{phase} {summary(error.of(phase))}" for phase in ("decode", "prefill", "mixed"))
            print(f"{kernels}/{dtype}: {summary(error.error)}; {phases}")
    given.out.write_text(as_yaml(rows), encoding="utf-8")
    print(f"{len(rows)} rows in {given.out}")


if __name__ == "__main__":
    main()
