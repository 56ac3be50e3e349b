"""Whole runs of the scenarios that span months: wall time and its parts, and how memory grows with the horizon."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SCENARIOS = ("quickstart", "quarter", "year_small")
# The scenario whose memory is compared between a day and its full horizon.
GROWING, SHORT = "quarter", "1d"


def _children_s() -> float:
    """Return the processor time of all processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(scenario: str, *settings: str) -> dict[str, Any]:
    """Run a scenario in a process of its own and return what it took, with wall and processor time of the process."""
    with tempfile.TemporaryDirectory() as folder:
        words = [f"scenario={scenario}", *settings, f"out={folder}/run"]
        began, cpu_before_s = time.perf_counter(), _children_s()
        subprocess.run([sys.executable, "-m", "sim.app.cli", "run", *words], check=True, capture_output=True)
        process_s, cpu_s = time.perf_counter() - began, _children_s() - cpu_before_s
        summary = json.loads((Path(folder) / "run" / "summary.json").read_text("utf-8"))
    engine = summary["engine"]
    return {
        "command": " ".join(["billcast", "run", f"scenario={scenario}", *settings]),
        "requests": summary["requests"]["arrived"],
        "bill_usd": summary["bill"]["total_usd"],
        "process_s": process_s,
        "cpu_s": cpu_s,
        **{name: engine[name] for name in ("generate_s", "advance_s", "control_s", "requests_per_s", "steps", "peak_rss_mb")},
    }


def months() -> dict[str, Any]:
    """Return the figures of every long scenario, and the peak memory of one of them after a day and at its end.

    The first run fills the caches of compiled code, so that none of the measured ones compiles.
    """
    run(GROWING, "horizon=10min")
    runs = {scenario: run(scenario) for scenario in SCENARIOS}
    day = run(GROWING, f"horizon={SHORT}")
    full = runs[GROWING]["peak_rss_mb"]
    return {
        "runs": runs,
        "memory": {
            "scenario": GROWING,
            "short": SHORT,
            "short_peak_rss_mb": day["peak_rss_mb"],
            "full_peak_rss_mb": full,
            "grown_mb": full - day["peak_rss_mb"],
        },
    }
