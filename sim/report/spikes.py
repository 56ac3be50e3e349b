"""Cost spikes on the terminal."""

from __future__ import annotations

from rich.table import Table

from sim.report.cells import cell, new_table
from sim.results.records import RunResult
from sim.results.spikes import HISTORY_DAYS, LEAST_Z
from sim.units import usd

MOST_LISTED = 8
_COLUMNS = ("day", "service", "segment", "cost_nano_usd", "median_nano_usd", "score", "cause", "cause_nano_usd")


def spikes_table(result: RunResult) -> Table | None:
    """Return the days on which a segment cost much more than it used to, the dearest against its median first; None without any."""
    table = result.table("spikes")
    rows = list(zip(*(table[name].tolist() for name in _COLUMNS), strict=True))
    if not rows:
        return None
    rows.sort(key=lambda row: row[4] - row[3])
    shown = new_table("COST SPIKES in USD, by segment and day of the account", "segment, day", "cost", "median", "z", "seen")
    shown.columns[-1].header = "mostly"
    for day, service, segment, cost_nano, median_nano, z, cause, cause_nano in rows[:MOST_LISTED]:
        score = f"{z:,.1f}" if z < 1_000 else "> 1,000"
        amounts = (usd(cost_nano), usd(round(median_nano)), score, f"{cause} {usd(cause_nano)}")
        shown.add_row(cell(f"{service}/{segment} {day}"), *amounts)
    more = len(rows) - MOST_LISTED
    others = f"{more:,} more; " if more > 0 else ""
    shown.caption = f"{others}against days of its kind of the {HISTORY_DAYS} before: modified z-score above {LEAST_Z}"
    return shown
