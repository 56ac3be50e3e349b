"""A number of an electricity grid over time: a price or a carbon intensity, constant or from a file of at most a year."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

# Hours of a leap year: every hour of every year has its place among them, and no more than these are kept.
HOURS_OF_YEAR = 8_784
# How far apart the values of a file may be: the quarter hours of European markets since October 2025, the five minutes of US ones.
STEPS_MIN = (5, 15, 30, 60)
_DAYS_BEFORE = (0, 31, 60, 91, 121, 152, 182, 213, 244, 274, 305, 335)
_HOUR = timedelta(hours=1)


def hour_of_year(moment: datetime) -> int:
    """Return the number of an hour of UTC in a leap year: the same for the same date and hour of every year.

    Examples
    --------
    >>> hour_of_year(datetime(2026, 1, 1, 5, tzinfo=UTC)), hour_of_year(datetime(2026, 3, 1, tzinfo=UTC)) // 24
    (5, 60)
    """
    return (_DAYS_BEFORE[moment.month - 1] + moment.day - 1) * 24 + moment.hour


@dataclass(frozen=True)
class GridSeries:
    """A price or an intensity, piecewise constant.

    Parameters
    ----------
    values : shape (1,), one number that always holds, or shape (8784 k,), k for each hour of a leap year in UTC, one every 60 / k
        minutes of `STEPS_MIN`; None where it is not known. In 1e-9 of its unit: nano-dollars per kWh, nanograms of CO2 per kWh.
    source, confidence : of the numbers. offset_s : how far past the full hour (or its part) a value begins, whole seconds below it.
    path : of the file, "" where there is none. repeated : how the file is laid over the calendar of the run, "" where it is of the
        very hours of the run. filled_hours : missing hours that hold the value before them. negative_hours : hours below 0.

    Examples
    --------
    >>> GridSeries.constant(80_000_000, "scenario", "assumed").at(datetime(2026, 1, 1, tzinfo=UTC))
    80000000
    """

    values: tuple[int | None, ...]
    source: str
    confidence: str
    offset_s: int = 0
    path: str = ""
    repeated: str = ""
    filled_hours: float = 0
    negative_hours: float = 0

    def __post_init__(self) -> None:
        lengths = (1, *(HOURS_OF_YEAR * 60 // minutes for minutes in STEPS_MIN))
        if len(self.values) not in lengths or not 0 <= self.offset_s < self.step.seconds:
            raise ValueError(f"a series has one of {lengths} values and begins within one: {len(self.values)}, {self.offset_s}")

    @classmethod
    def constant(cls, value: int, source: str, confidence: str) -> GridSeries:
        """Return a number that never changes."""
        return cls((value,), source, confidence)

    @property
    def is_constant(self) -> bool:
        """Whether one number always holds."""
        return len(self.values) == 1

    @property
    def step(self) -> timedelta:
        """How long each value holds; an hour where one number always does."""
        return _HOUR if self.is_constant else _HOUR * HOURS_OF_YEAR / len(self.values)

    @property
    def known(self) -> list[int]:
        """Every value that is known, in the order of the year."""
        return [value for value in self.values if value is not None]

    def at(self, moment: datetime) -> int:
        """Return the value in force at an instant.

        Raises
        ------
        LookupError : the file has no such hour.
        """
        value = self._value(self._begin(moment))
        if value is None:
            raise LookupError(f"{self.path} has no value at {moment.isoformat()}")
        return value

    def changes(self, start: datetime, horizon_ns: int) -> Iterator[int]:
        """Yield the times inside a run at which the value changes, in nanoseconds since its start; an equal value is no change.

        Parameters
        ----------
        start : calendar instant of time 0. horizon_ns : end of the run.
        """
        if self.is_constant:
            return
        hour = self._begin(start)
        value = self._value(hour)
        while True:
            hour += self.step
            t_ns = (hour - start) // timedelta(microseconds=1) * 1_000
            if t_ns >= horizon_ns:
                return
            now = self._value(hour)
            if now != value:
                yield t_ns
            value = now

    def missing(self, start: datetime, horizon_ns: int) -> datetime | None:
        """Return the first hour of a run for which there is no value, None where there is none."""
        if self.is_constant:
            return None
        hour, end = self._begin(start), start + timedelta(microseconds=-(-horizon_ns // 1_000))
        for _ in range(len(self.values) + 48 * 60 // min(STEPS_MIN)):
            if hour >= end:
                break
            if self._value(hour) is None:
                return hour
            hour += self.step
        return None

    def _begin(self, moment: datetime) -> datetime:
        """When the value in force at an instant began."""
        offset = timedelta(seconds=self.offset_s)
        shifted = moment.astimezone(UTC) - offset
        hour = shifted.replace(minute=0, second=0, microsecond=0)
        return hour + (shifted - hour) // self.step * self.step + offset

    def _value(self, begin: datetime) -> int | None:
        return self.values[0] if self.is_constant else self.values[place_in_year(begin, self.step)]


def place_in_year(begin: datetime, step: timedelta) -> int:
    """Return the number of a value in a leap year of values that hold for `step` each.

    Examples
    --------
    >>> place_in_year(datetime(2026, 1, 1, 5, 45, tzinfo=UTC), timedelta(minutes=15))
    23
    """
    return hour_of_year(begin) * (_HOUR // step) + timedelta(minutes=begin.minute, seconds=begin.second) // step
