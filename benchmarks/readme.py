"""Writes the output of `make run` and the tables of the kept benchmarks into the pages (`make readme`)."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, date, datetime

from benchmarks.pages import BLOCKS, README, ROOT, keep, kept, with_block

BLOCK = "output of `make run`"


def with_output(text: str, output: str, day: date) -> str:
    """Return the README with what `make run` printed.

    Parameters
    ----------
    text : the README. output : what the run printed. day : when.
    """
    shown = "\n".join(line.rstrip() for line in output.strip("\n").splitlines())
    return with_block(text, BLOCK, f"On {day.isoformat()} it printed:\n\n```text\n{shown}\n```")


def main() -> None:
    """Run the default scenario and rewrite the pages."""
    done = subprocess.run([sys.executable, "-m", "sim.app.cli", "run"], cwd=ROOT, capture_output=True, text=True, check=True)
    README.write_text(with_output(README.read_text("utf-8"), done.stdout, datetime.now(UTC).date()), "utf-8")
    for name in BLOCKS:
        keep(name, kept(name))


if __name__ == "__main__":
    main()
