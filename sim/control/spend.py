"""The spend of budgets as the ledger books it: sums by budget and hour, from rows on their way to the sink, in constant memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy.typing as npt

from sim.billing.ledger import hour_cuts
from sim.control.sink import TableSink
from sim.policies.budgets.base import HOURS_OF_WEEK, MOST_WEEKS, SpendView
from sim.results.periods import CalendarMonth, calendar_month
from sim.scenario.budgets import ACCOUNT, DEPLOYMENT, SEGMENT, SERVICE, Budget
from sim.units import NS_PER_HOUR, NS_PER_US, nano_usd


@dataclass(frozen=True)
class Hour:
    """A calendar hour of the account, as far as it lies in the run.

    Parameters
    ----------
    start_ns, end_ns : since the scenario start. of_week : 0 is Monday 0:00 to 1:00. of_day : 0 to 23. month : it lies in.
    """

    start_ns: int
    end_ns: int
    of_week: int
    of_day: int
    month: CalendarMonth


@dataclass(frozen=True)
class AccountClock:
    """Hours and months in the zone of the account; the month of a clock change has an hour more or less.

    Parameters
    ----------
    start : calendar instant of time 0. horizon_ns : length of the run. zone : IANA name.

    Examples
    --------
    >>> from sim.units import instant
    >>> clock = AccountClock(instant("2026-10-25T00:30:00Z"), 3 * NS_PER_HOUR, "Europe/Berlin")
    >>> [(hour.start_ns // 60_000_000_000, hour.of_day) for hour in clock.hours()]
    [(0, 2), (30, 2), (90, 3), (150, 4)]
    """

    start: datetime
    horizon_ns: int
    zone: str

    def local(self, t_ns: int) -> datetime:
        """Return a time as an instant in the zone."""
        return (self.start + timedelta(microseconds=t_ns // NS_PER_US)).astimezone(ZoneInfo(self.zone))

    def month(self, t_ns: int) -> CalendarMonth:
        """Return the month of a time."""
        return calendar_month(self.start, self.zone, t_ns)

    def hours(self) -> Iterator[Hour]:
        """Yield the hours of the run in order; the first and the last may lie in it only in part."""
        start_ns, month = 0, self.month(0)
        for end_ns in (*self._cuts(0, self.horizon_ns), self.horizon_ns):
            if start_ns >= month.end_ns:
                month = self.month(start_ns)
            local = self.local(start_ns)
            yield Hour(start_ns, end_ns, _of_week(local), local.hour, month)
            start_ns = end_ns

    def hours_left(self, hour: Hour) -> list[int]:
        """Return, by hour of the week, how many hours of its month there are from an hour on, itself among them."""
        left = [0] * HOURS_OF_WEEK
        for start_ns in (hour.start_ns, *self._cuts(hour.start_ns, hour.month.end_ns)):
            left[_of_week(self.local(start_ns))] += 1
        return left

    def _cuts(self, from_ns: int, to_ns: int) -> Iterator[int]:
        start = self.start + timedelta(microseconds=from_ns // NS_PER_US)
        return (from_ns + cut_ns for cut_ns in hour_cuts(start, to_ns - from_ns, self.zone))


def _of_week(local: datetime) -> int:
    return local.weekday() * 24 + local.hour


class Spend:
    """What one budget has spent: what is booked by hour and not known yet, the month to date, and the hours of the last weeks.

    Parameters
    ----------
    before_nano : spent in the first month before the run.
    """

    def __init__(self, clock: AccountClock, before_nano: int) -> None:
        self._clock, self._first_before_nano = clock, before_nano
        self._booked: dict[int, int] = {}
        self._history: list[deque[int]] = [deque(maxlen=MOST_WEEKS) for _ in range(HOURS_OF_WEEK)]
        self._hours_left: list[int] = []
        self.month: CalendarMonth | None = None
        self.known_to_ns = self.spent_nano = self._before_nano = 0

    def book(self, hour_ns: int, amount_nano: int) -> None:
        """Add an amount to an hour, given by a time in it."""
        self._booked[hour_ns] = self._booked.get(hour_ns, 0) + amount_nano

    def know(self, hour: Hour) -> None:
        """Take in the next hour, and what was booked late to the hours of its month before it."""
        if hour.month != self.month:
            self.spent_nano = self._before_nano = self._first_before_nano if self.month is None else 0
            self.month, self._hours_left = hour.month, self._clock.hours_left(hour)
        booked = {at_ns: amount for at_ns, amount in self._booked.items() if at_ns < hour.end_ns}
        for at_ns in booked:
            del self._booked[at_ns]
        amount_nano = sum(amount for at_ns, amount in booked.items() if at_ns >= hour.month.start_ns)
        self.spent_nano += amount_nano
        self._hours_left[hour.of_week] -= 1
        # The hour in which the run began was seen only in part.
        if hour.end_ns - hour.start_ns == NS_PER_HOUR:
            self._history[hour.of_week].append(amount_nano)
        self.known_to_ns = hour.end_ns

    def view(self) -> SpendView:
        """Return what a forecast may see; there must be a month."""
        assert self.month is not None
        return SpendView(
            self.month.start_ns,
            self.month.end_ns,
            self.known_to_ns,
            self.spent_nano,
            self._before_nano,
            tuple(self._hours_left),
            tuple(map(tuple, self._history)),
        )


class SpendBook:
    """A sink that passes every row on, and adds up the amounts of the ledger and of its attribution by budget and hour.

    Parameters
    ----------
    sink : takes the rows. budgets : by name.
    """

    def __init__(self, sink: TableSink, clock: AccountClock, budgets: Mapping[str, Budget]) -> None:
        self._sink, self._start = sink, clock.start
        self.spends = {name: Spend(clock, nano_usd(budget.spent_before_usd)) for name, budget in budgets.items()}
        self._paying = {
            scope: [(budget.of, self.spends[name]) for name, budget in budgets.items() if budget.scope == scope]
            for scope in (ACCOUNT, SERVICE, SEGMENT, DEPLOYMENT)
        }
        self._in_parts = any(self._paying[scope] for scope in (SERVICE, SEGMENT, DEPLOYMENT))
        self._hour_ns = lru_cache(maxsize=64)(self._parsed_hour_ns)
        self._row_hour_ns = 0

    def append(self, table: str, row: Mapping[str, object]) -> None:
        """Add a row, and count it; the parts of a row of the ledger come right after it."""
        self._sink.append(table, row)
        if table == "ledger":
            self._row_hour_ns = self._hour_ns(str(row["local_hour"]))
            self._pay(ACCOUNT, "", row)
        elif table == "attribution" and self._in_parts:
            self._pay(SERVICE, row["service"], row)
            self._pay(SEGMENT, f"{row['service']}/{row['segment']}", row)
            self._pay(DEPLOYMENT, row["deployment"], row)

    def extend(self, table: str, columns: Mapping[str, npt.ArrayLike]) -> None:
        """Add rows; the ledger writes its own one by one."""
        self._sink.extend(table, columns)

    def _pay(self, scope: str, of: object, row: Mapping[str, object]) -> None:
        for name, spend in self._paying[scope]:
            if name == of:
                spend.book(self._row_hour_ns, int(str(row["amount_nano_usd"])))

    def _parsed_hour_ns(self, local_hour: str) -> int:
        """Return a calendar hour as its beginning in the run; the one in which the run begins as 0."""
        return max((datetime.fromisoformat(local_hour) - self._start) // timedelta(microseconds=1) * NS_PER_US, 0)
