"""Cost spikes on the terminal."""

from __future__ import annotations

from rich.table import Table

from sim.report.cells import cell, new_table
from sim.results.records import RunResult
from sim.results.spikes import HISTORY_DAYS, LEAST_Z, spikes
from sim.units import usd

MOST_LISTED = 8


def spikes_table(result: RunResult) -> Table | None:
    """Return the days on which a segment cost much more than it used to; None where there are none."""
    found = spikes(result)
    if not found:
        return None
    table = new_table("COST SPIKES in USD, by segment and day of the account", "segment, day", "cost", "median", "z", "seen")
    table.columns[-1].header = "mostly"
    for spike in found[:MOST_LISTED]:
        score = f"{spike.z:,.1f}" if spike.z < 1_000 else "> 1,000"
        mostly = f"{spike.cause} {usd(spike.terms_nano[spike.cause])}"
        table.add_row(
            cell(f"{spike.service}/{spike.segment} {spike.day}"), usd(spike.cost_nano), usd(round(spike.median_nano)), score, mostly
        )
    more = len(found) - MOST_LISTED
    others = f"{more:,} more; " if more > 0 else ""
    table.caption = f"{others}against days of its kind of the {HISTORY_DAYS} before: modified z-score above {LEAST_Z}"
    return table
