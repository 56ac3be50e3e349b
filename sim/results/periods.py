"""Calendar months and weeks of a run, in the time zone of each service.

A period is the time between two calendar instants, so the month of a clock change is an hour shorter or longer, and the first and
the last period of a run are often only partly inside it. Windows and histograms are cut at these instants, so sums are exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cache
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from sim.units import NS_PER_DAY, NS_PER_US, duration_ns, instant

UNITS = ("month", "week")
# So many days after the first day of a period lies the next one.
_INTO_THE_NEXT = {"month": 32, "week": 7, "day": 1}
# From this length on a run is worth reading by month: the shortest month.
LONG_RUN_NS = 28 * NS_PER_DAY


@dataclass(frozen=True)
class Period:
    """A calendar month, week or day, as far as it lies in the run.

    Parameters
    ----------
    label : "2026-03", "2026-W10" (ISO 8601 weeks, from Monday) or "2026-03-02".
    start_ns, end_ns : since the scenario start, inside the run.
    partial : whether a part of it lies outside the run.
    """

    label: str
    start_ns: int
    end_ns: int
    partial: bool


@cache
def periods(start: datetime, horizon_ns: int, zone: str, unit: str) -> tuple[Period, ...]:
    """Return the months or weeks of a run in order.

    Parameters
    ----------
    start : calendar instant of time 0. horizon_ns : length of the run in nanoseconds. zone : IANA name.
    unit : "month", "week" or "day".

    Examples
    --------
    >>> found = periods(instant("2026-01-31T22:00:00Z"), 31 * NS_PER_DAY, "UTC", "month")
    >>> [(period.label, period.partial) for period in found]
    [('2026-01', True), ('2026-02', False), ('2026-03', True)]
    """
    local = ZoneInfo(zone)
    first = _first_day(start.astimezone(local).date(), unit)
    edges, labels = [_midnight_ns(first, local, start)], []
    while edges[-1] < horizon_ns:
        labels.append(_label(first, unit))
        first = _first_day(first + timedelta(days=_INTO_THE_NEXT[unit]), unit)
        edges.append(_midnight_ns(first, local, start))
    return tuple(
        Period(label, max(begin_ns, 0), min(end_ns, horizon_ns), begin_ns < 0 or end_ns > horizon_ns)
        for label, (begin_ns, end_ns) in zip(labels, pairwise(edges), strict=True)
    )


@dataclass(frozen=True)
class CalendarMonth:
    """A whole calendar month; its start may lie before the run, its end after it."""

    label: str
    start_ns: int
    end_ns: int


def calendar_month(start: datetime, zone: str, t_ns: int) -> CalendarMonth:
    """Return the month in which a time lies.

    Parameters
    ----------
    start : calendar instant of time 0. zone : IANA name. t_ns : since then.

    Examples
    --------
    >>> month = calendar_month(instant("2026-10-01"), "Europe/Berlin", 0)
    >>> month.label, month.start_ns / NS_PER_DAY * 24, (month.end_ns - month.start_ns) / NS_PER_DAY * 24
    ('2026-10', -2.0, 745.0)
    """
    local = ZoneInfo(zone)
    first = _first_day((start + timedelta(microseconds=t_ns // NS_PER_US)).astimezone(local).date(), "month")
    coming = _first_day(first + timedelta(days=32), "month")
    return CalendarMonth(_label(first, "month"), _midnight_ns(first, local, start), _midnight_ns(coming, local, start))


def _first_day(day: date, unit: str) -> date:
    if unit == "day":
        return day
    return day.replace(day=1) if unit == "month" else day - timedelta(days=day.weekday())


def _label(day: date, unit: str) -> str:
    if unit == "day":
        return day.isoformat()
    return f"{day:%Y-%m}" if unit == "month" else f"{day:%G}-W{day:%V}"


def _midnight_ns(day: date, zone: ZoneInfo, start: datetime) -> int:
    """The first instant of a day in nanoseconds since the start; where the clock skips midnight, the instant of the change."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(start.tzinfo)
    return (midnight - start) // timedelta(microseconds=1) * NS_PER_US


@dataclass(frozen=True)
class Calendar:
    """The clock of a run and the time zone of each of its services.

    Parameters
    ----------
    start : calendar instant of time 0. horizon_ns : length of the run. account_zone : IANA name. zones : IANA name by service.
    """

    start: datetime
    horizon_ns: int
    account_zone: str
    zones: Mapping[str, str]

    @classmethod
    def of(cls, scenario: Mapping[str, Any]) -> Calendar:
        """Return the calendar of a scenario given as plain data, as in a manifest; a service without a zone has the account's."""
        account = str(scenario["account"]["timezone"])
        zones = {name: str(service["timezone"] or account) for name, service in scenario["services"].items()}
        return cls(instant(scenario["start"]), duration_ns(scenario["horizon"]), account, zones)

    def periods(self, service: str, unit: str) -> tuple[Period, ...]:
        """Return the periods of a service ("month" or "week")."""
        return periods(self.start, self.horizon_ns, self.zones[service], unit)

    def cuts(self, service: str) -> list[int]:
        """Return the starts of all its months and weeks inside the run, in nanoseconds, each once and in order."""
        starts = {period.start_ns for unit in UNITS for period in self.periods(service, unit)}
        return sorted(starts - {0})

    def local(self, service: str, time_ns: int) -> datetime:
        """Return a time since the start (ns) as an instant in the zone of a service."""
        return (self.start + timedelta(microseconds=time_ns // NS_PER_US)).astimezone(ZoneInfo(self.zones[service]))

    @property
    def is_long(self) -> bool:
        """Whether the run is worth reading by month."""
        return self.horizon_ns >= LONG_RUN_NS


def period_of(found: tuple[Period, ...], times_ns: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Return the number of the period in which windows lie.

    Parameters
    ----------
    found : periods of a run in order. times_ns : starts of windows, shape (windows,).

    Returns
    -------
    shape (windows,), indices into `found`.

    Examples
    --------
    >>> weeks = periods(instant("2026-01-05"), 14 * NS_PER_DAY, "UTC", "week")
    >>> period_of(weeks, [0, 6 * NS_PER_DAY, 7 * NS_PER_DAY]).tolist()
    [0, 0, 1]
    """
    starts = np.array([period.start_ns for period in found], np.int64)
    return np.asarray(np.searchsorted(starts, np.asarray(times_ns, np.int64), side="right") - 1, np.int64)
