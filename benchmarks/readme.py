"""Writes the output of `make run` into README.md, between its two markers (`make readme`)."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BEGIN = "<!-- output of `make run`: begin (regenerate with `make readme`) -->\n"
END = "<!-- output of `make run`: end -->\n"


def with_output(text: str, output: str, day: date) -> str:
    """Return the README with the block between its markers replaced.

    Parameters
    ----------
    text : the README. output : what the run printed. day : when.
    """
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    shown = "\n".join(line.rstrip() for line in output.strip("\n").splitlines())
    return f"{before}{BEGIN}\nOn {day.isoformat()} it printed:\n\n```text\n{shown}\n```\n\n{END}{after}"


def main() -> None:
    """Run the default scenario and rewrite README.md."""
    done = subprocess.run([sys.executable, "-m", "sim.app.cli", "run"], cwd=ROOT, capture_output=True, text=True, check=True)
    readme = ROOT / "README.md"
    day = datetime.now(UTC).date()
    readme.write_text(with_output(readme.read_text("utf-8"), done.stdout, day), "utf-8")


if __name__ == "__main__":
    main()
