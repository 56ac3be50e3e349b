"""Days on which a segment cost much more than it used to, and what most of the difference is.

A whole day of the account is compared with the days of its kind (Monday to Friday, or Saturday and Sunday) among the 28 before it.
With their median and the median absolute deviation from it (MAD), its modified z-score is

    z = 0.6745 (cost - median) / MAD,

and where the MAD is 0 because most days are alike, z = (cost - median) / (1.253314 x mean absolute deviation). It is a spike where
z is above 3.5 and the cost at least a tenth above the median: on a steady bill any cent has a high score.

Source: Iglewicz and Hoaglin, How to Detect and Handle Outliers (1993), for the score and the bound of 3.5; the score for a MAD of 0
is that of IBM Cognos (from memory). The tenth, the 28 days and the five that are needed are assumed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from math import inf, isfinite
from statistics import fmean, median
from typing import Any

from sim.results.periods import Calendar, Period, periods
from sim.results.records import RunResult
from sim.results.spool import quoted
from sim.results.why import CostFacts, decompose, facts_of
from sim.units import NANO_PER_USD

HISTORY_DAYS = 28
LEAST_DAYS = 5
LEAST_Z = 3.5
LEAST_RISE = 0.1
_NORMAL_MAD, _NORMAL_MEAN = 0.6745, 1.253314
_FRIDAY = 4


@dataclass(frozen=True)
class Spike:
    """A day of one segment that was much dearer than its history.

    Parameters
    ----------
    day : YYYY-MM-DD in the account zone. cost_nano, median_nano : of the day, and of its history. z : the modified z-score.
    against : the day of the history that it is compared with: the one that cost the median, or next to it below.
    terms_nano : cause -> part of the difference to that day; they add up to it.
    """

    service: str
    segment: str
    day: str
    cost_nano: int
    median_nano: float
    z: float
    against: str
    terms_nano: dict[str, int]

    @property
    def cause(self) -> str:
        """The largest part of the difference."""
        return max(self.terms_nano, key=lambda name: self.terms_nano[name])


def modified_z(cost: float, history: list[int]) -> float:
    """Return the modified z-score of a cost against others.

    Examples
    --------
    >>> round(modified_z(20, [9, 10, 10, 11, 12]), 4), modified_z(5, [5, 5]), modified_z(6, [5, 5])
    (6.745, 0.0, inf)
    >>> round(modified_z(20, [10, 10, 10, 10, 15]), 3)
    7.979
    """
    middle = median(history)
    distances = [abs(each - middle) for each in history]
    scale = median(distances) / _NORMAL_MAD or _NORMAL_MEAN * fmean(distances)
    if scale:
        return (cost - middle) / scale
    return 0.0 if cost == middle else inf if cost > middle else -inf


def spikes(result: RunResult) -> list[Spike]:
    """Return the spikes of a run by segment and day; the dearest against its median first."""
    calendar = Calendar.of(result.manifest["scenario"])
    days = [day for day in periods(calendar.start, calendar.horizon_ns, calendar.account_zone, "day") if not day.partial]
    found = []
    for (service, segment), by_day in _costs(result).items():
        costs = [by_day.get(day.label, 0) for day in days]
        for number, day in enumerate(days):
            past = [earlier for earlier in range(max(number - HISTORY_DAYS, 0), number) if _alike(days[earlier], day)]
            if len(past) < LEAST_DAYS:
                continue
            history = [costs[earlier] for earlier in past]
            middle, z = median(history), modified_z(costs[number], history)
            if z > LEAST_Z and costs[number] >= (1 + LEAST_RISE) * middle:
                typical = days[sorted(past, key=lambda earlier: (costs[earlier], earlier))[(len(past) - 1) // 2]]
                before, after = (_facts(result, service, segment, each) for each in (typical, day))
                terms_nano = decompose(before, after).terms_nano
                found.append(Spike(service, segment, day.label, costs[number], middle, z, typical.label, terms_nano))
    return sorted(found, key=lambda spike: spike.median_nano - spike.cost_nano)


def spike_rows(found: Iterable[Spike]) -> Iterator[dict[str, object]]:
    """Yield the rows of the table `spikes`."""
    for spike in found:
        yield {
            "day": spike.day,
            "service": spike.service,
            "segment": spike.segment,
            "cost_nano_usd": spike.cost_nano,
            "median_nano_usd": float(spike.median_nano),
            "score": spike.z,
            "against": spike.against,
            "cause": spike.cause,
            "cause_nano_usd": spike.terms_nano[spike.cause],
        }


def spikes_in_summary(result: RunResult) -> list[dict[str, Any]]:
    """Return what `summary.json` says of spikes: the table `spikes` in dollars, by day, service and segment.

    Returns
    -------
    one a spike. score : the modified z-score; None where it is infinite, because the days before all cost the same.
    """
    table = result.table("spikes")
    names = ("day", "service", "segment", "against", "cause")
    return [
        {
            **{name: row[name] for name in names[:3]},
            "cost_usd": row["cost_nano_usd"] / NANO_PER_USD,
            "median_usd": row["median_nano_usd"] / NANO_PER_USD,
            "score": row["score"] if isfinite(row["score"]) else None,
            **{name: row[name] for name in names[3:]},
            "cause_usd": row["cause_nano_usd"] / NANO_PER_USD,
        }
        for row in (dict(zip(table, values, strict=True)) for values in zip(*(one.tolist() for one in table.values()), strict=True))
    ]


def _alike(one: Period, other: Period) -> bool:
    return (date.fromisoformat(one.label).weekday() > _FRIDAY) == (date.fromisoformat(other.label).weekday() > _FRIDAY)


def _costs(result: RunResult) -> dict[tuple[str, str], dict[str, int]]:
    rows = result.sql("""
        SELECT service, segment, local_hour[:10] AS day, sum(attribution.amount_nano_usd) AS amount
        FROM attribution JOIN ledger USING (row) WHERE service <> '' GROUP BY ALL ORDER BY ALL
    """)
    found: dict[tuple[str, str], dict[str, int]] = {}
    for service, segment, day, amount in zip(*(column.tolist() for column in rows.values()), strict=True):
        found.setdefault((service, segment), {})[day] = amount
    return found


def _facts(result: RunResult, service: str, segment: str, day: Period) -> CostFacts:
    """Return what a segment paid on a day, and for what; the requests of a window are of the day in which it begins."""
    mine = f"service = {quoted(service)} AND segment = {quoted(segment)}"
    windows = f"{mine} AND start_ns >= {day.start_ns} AND start_ns < {day.end_ns}"
    return facts_of(result, windows, f"{mine} AND local_hour[:10] = {quoted(day.label)}").get(service, CostFacts())
