"""Burn rates: how fast an error budget was spent, and which of the usual alerts would have fired.

A burn rate of 1 spends exactly the budget; 14.4 for an hour spends 2 % of the budget of 30 days. The three alerts, each on a long
window that says it matters and a short one that says it still goes on, are the multi-window, multi-burn-rate alerts of the Google
SRE workbook, "Alerting on SLOs".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sim.results.records import RunResult
from sim.results.slo import TARGETS
from sim.results.windows import Ints, windows_by_service
from sim.units import NS_PER_DAY, NS_PER_HOUR, NS_PER_MINUTE


@dataclass(frozen=True)
class AlertRule:
    """An alert on a burn rate.

    Parameters
    ----------
    severity : "page" or "ticket". factor : it fires while the burn rate of both windows is above. long_ns, short_ns : the windows.
    """

    severity: str
    factor: float
    long_ns: int
    short_ns: int


ALERT_RULES = (
    AlertRule("page", 14.4, NS_PER_HOUR, 5 * NS_PER_MINUTE),
    AlertRule("page", 6.0, 6 * NS_PER_HOUR, 30 * NS_PER_MINUTE),
    AlertRule("ticket", 1.0, 3 * NS_PER_DAY, 6 * NS_PER_HOUR),
)

# Whether a run can say if an alert fired.
JUDGED, LONG_WINDOW_ALONE, WINDOWS_TOO_LONG, RUN_TOO_SHORT = "judged", "long window alone", "windows too long", "run too short"


@dataclass(frozen=True)
class Burn:
    """What one alert on one target of one service saw in a run.

    Parameters
    ----------
    can_fire : whether all requests being bad would be enough.
    state : "judged"; "long window alone" (reporting windows are longer than the short window, so only the long one was looked at);
        "windows too long" (for the long one, too); "run too short" (no long window fits into the measured time).
    worst, worst_end_ns : highest burn rate over a long window and the end of that window; None where there was none.
    firing_ns : shape (alerts, 2), from when it fired until it did not any more (or the end of the run).
    """

    service: str
    target: str
    goal: float
    rule: AlertRule
    can_fire: bool
    state: str
    worst: float | None
    worst_end_ns: int | None
    firing_ns: Ints


def burns(result: RunResult) -> list[Burn]:
    """Return what each alert on each target saw, over the measured time, looking at the end of every reporting window.

    A goal of 100 % has no budget, and so no burn rate. A window without requests burns nothing.
    """
    windows = windows_by_service(result, ["total", *(f"good_{target}" for target in TARGETS)])
    found = []
    for service, slo in result.summary["slo"].items():
        for target in TARGETS:
            if target in slo and slo[target]["goal"] < 1 and service in windows:
                mine = windows[service].after_warmup()
                total = mine.columns["total"]
                bad = total - mine.columns[f"good_{target}"]
                goal = slo[target]["goal"]
                found += [_burn(service, target, goal, rule, mine.edges_ns, bad, total) for rule in ALERT_RULES]
    return found


def _burn(service: str, target: str, goal: float, rule: AlertRule, edges_ns: Ints, bad: Ints, total: Ints) -> Burn:
    longest_ns = int(np.diff(edges_ns).max(initial=0))
    can_fire = 1 / (1 - goal) > rule.factor
    nothing = np.zeros((0, 2), np.int64)
    if longest_ns > rule.long_ns:
        return Burn(service, target, goal, rule, can_fire, WINDOWS_TOO_LONG, None, None, nothing)
    ends, long_rate = burn_rates(edges_ns, bad, total, goal, rule.long_ns)
    if not len(ends):
        return Burn(service, target, goal, rule, can_fire, RUN_TOO_SHORT, None, None, nothing)
    fires = long_rate > rule.factor
    state = JUDGED if longest_ns <= rule.short_ns else LONG_WINDOW_ALONE
    if state == JUDGED:
        _, short_rate = burn_rates(edges_ns, bad, total, goal, rule.short_ns)
        fires &= short_rate[-len(fires) :] > rule.factor
    worst = int(np.argmax(long_rate))
    return Burn(service, target, goal, rule, can_fire, state, float(long_rate[worst]), int(ends[worst]), _stretches(ends, fires))


def burn_rates(
    edges_ns: Ints, bad: Ints, total: Ints, goal: float, length_ns: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return the burn rate over each stretch of a length that ends with a window: share of bad requests over the allowed share.

    Parameters
    ----------
    edges_ns : of the windows, shape (windows + 1,). bad, total : requests that left, shape (windows,). goal : below 1.
    length_ns : of a stretch; where windows do not divide it, the whole windows inside it count.

    Returns
    -------
    ends in nanoseconds and burn rates, shape (stretches,): those that lie wholly in the time of the windows.

    Examples
    --------
    >>> edges = np.arange(5) * NS_PER_HOUR
    >>> ends, rates = burn_rates(edges, np.array([0, 0, 1, 3]), np.full(4, 100), 0.99, 2 * NS_PER_HOUR)
    >>> (ends // NS_PER_HOUR).tolist(), rates.round(6).tolist()
    ([2, 3, 4], [0.0, 0.5, 2.0])
    """
    first = np.searchsorted(edges_ns, edges_ns - length_ns, side="left")
    last = np.flatnonzero((edges_ns - length_ns >= edges_ns[:1]) & (first < np.arange(len(edges_ns))))
    bad_so_far, total_so_far = (np.append(0, np.cumsum(counts)) for counts in (bad, total))
    left = total_so_far[last] - total_so_far[first[last]]
    share = (bad_so_far[last] - bad_so_far[first[last]]) / np.maximum(left, 1)
    return edges_ns[last], share / (1 - goal)


def _stretches(ends_ns: Ints, fires: npt.NDArray[np.bool_]) -> Ints:
    """From each look at which an alert fires first to the look at which it is over; one that fires at the end lasts until it."""
    change = np.diff(np.concatenate([[0], fires.astype(np.int8), [0]]))
    begins, overs = np.flatnonzero(change == 1), np.flatnonzero(change == -1)
    return np.stack([ends_ns[begins], ends_ns[np.minimum(overs, len(ends_ns) - 1)]], axis=1)
