"""`python benchmarks/accuracy.py` is `python -m benchmarks accuracy`: measured tables beside what the models say."""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    """Compare every table of the data folder; options as those of `python -m benchmarks accuracy`."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from benchmarks.__main__ import main as run

    run(["accuracy", *sys.argv[1:]])


if __name__ == "__main__":
    main()
