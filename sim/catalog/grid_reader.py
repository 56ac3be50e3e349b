"""Prices of electricity and carbon intensities of grids by the hour or finer, read from CSV (.csv, .csv.gz).

What a column holds is told by its name, with its unit:

| column | what | unit |
|---|---|---|
| `usd_per_kwh`, `usd_per_mwh`, `Price (USD/kWh)`, `Price (USD/MWh)` | price | US dollars |
| `gco2_per_kwh`, `avg_CI` (files made from EIA data) | carbon intensity | g CO2 per kWh |
| `Carbon Intensity gCO2eq/kWh (direct)`, `... (LCA)` (Electricity Maps) | carbon intensity | g CO2-eq per kWh |

Times are in `time`, `timestamp`, `datetime` or `Datetime (UTC)`, in ISO 8601, in order, one row an hour or one every 30, 15 or 5
minutes: the commonest of these distances between rows. Everything else in a file is left alone.
"""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

from sim.domain.grid_series import HOURS_OF_YEAR, STEPS_MIN, GridSeries, place_in_year
from sim.errors import Problems

PRICE, CARBON = "price", "carbon"
NEVER, HOUR_OF_YEAR, MONTH_HOUR = "never", "hour_of_year", "month_hour"
REPEATS = (HOUR_OF_YEAR, MONTH_HOUR, NEVER)
TIME_COLUMNS = ("time", "timestamp", "datetime", "datetime (utc)")
MOST_USD_PER_KWH, MOST_GCO2_PER_KWH = 100, 10_000
SHOWN_BAD_ROWS = 20
_NANO = 1_000_000_000
_HOUR = timedelta(hours=1)
_STEPS = tuple(timedelta(minutes=minutes) for minutes in STEPS_MIN)
# Name of a column, in lower case and with a plain 2 -> units of it in 1 USD/kWh or 1 g/kWh.
_UNITS: Mapping[str, Mapping[re.Pattern[str], int]] = {
    PRICE: {re.compile(r"usd_per_kwh|.*\(usd/kwh\)"): 1, re.compile(r"usd_per_mwh|.*\(usd/mwh\)"): 1_000},
    CARBON: {re.compile(r"gco2_per_kwh|avg_ci|.*gco2(eq)?/kwh.*"): 1},
}
_EXAMPLES = {
    PRICE: "usd_per_kwh, usd_per_mwh, Price (USD/kWh) or Price (USD/MWh)",
    CARBON: "gco2_per_kwh, avg_CI or Carbon Intensity gCO2eq/kWh",
}


@dataclass
class HourlyFile:
    """A file with a price or a carbon intensity for every hour or finer, and how its clock and calendar are meant; no path is none.

    Parameters
    ----------
    path : of a .csv or .csv.gz file. column : name, or the last words of it in brackets ("direct", "LCA"); "" for the only one of
        its kind.
    time_column : "" for the first of `TIME_COLUMNS`. timezone : zone of the clock in that column, whatever offset it says; "" for
        the offset it says, and UTC where it says none. shift_h : hours added to every time.
    max_gap_h : so many missing hours in a row take the value before them.
    repeat : for times that the file does not have: "hour_of_year" (its hour of the same date), "month_hour" (for all times, the
        mean of its month and time of the day) or "never".
    source, confidence : of the numbers, for ledger and report; no source is the path.
    """

    path: str = ""
    column: str = ""
    time_column: str = ""
    timezone: str = ""
    shift_h: float = 0.0
    max_gap_h: int = 0
    repeat: str = HOUR_OF_YEAR
    source: str = ""
    confidence: str = "assumed"


def read_grid_series(
    asked: HourlyFile, kind: str, at: str, problems: Problems, start: datetime, horizon_ns: int
) -> GridSeries | None:
    """Return a column of a file as a series that has a value for every hour of a run; None where there is a problem.

    Parameters
    ----------
    kind : "price" or "carbon". at : dotted path of the setting, the start of the problems' paths.
    problems : everything that is wrong with the file is added here, with line numbers.
    start, horizon_ns : of the run.

    Notes
    -----
    A price is rounded to a nano-dollar per kWh, half to even. Hours of the year are those of UTC; 29 February is the 28th where the
    file has none. Numbers of other hours than those of the run are assumed, whatever they were in their own year.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w+", suffix=".csv") as file:
    ...     _ = file.write("time,usd_per_kwh\\n2026-01-05T00:00Z,0.08\\n2026-01-05T01:00Z,-0.01\\n"), file.flush()
    ...     start, two_hours_ns = datetime(2026, 1, 5, tzinfo=UTC), 7_200 * 10**9
    ...     series = read_grid_series(HourlyFile(file.name), "price", "energy.price", Problems(), start, two_hours_ns)
    >>> series.known, series.negative_hours
    ([80000000, -10000000], 1)
    """
    before = len(problems)
    found = _rows(asked, kind, at, problems)
    if found is None:
        return None
    repeat = asked.repeat
    first, last, per_hour = found.hours[0], found.hours[-1] + found.step, _HOUR // found.step
    end = start + timedelta(microseconds=-(-horizon_ns // 1_000))
    of_the_run = repeat != MONTH_HOUR and first <= start and end <= last
    values = _by_month_and_hour(found) if repeat == MONTH_HOUR else _by_hour_of_year(found)
    series = GridSeries(
        values,
        asked.source or asked.path,
        asked.confidence if of_the_run else "assumed",
        found.offset_s,
        asked.path,
        "" if of_the_run else repeat,
        _in_hours(found.filled, per_hour),
        _in_hours(sum(value < 0 for value in found.values), per_hour),
    )
    missing = start if repeat == NEVER and not of_the_run else series.missing(start, horizon_ns)
    if missing is not None:
        span = f"the file runs from {_text(first)} to {_text(last)}, the run from {_text(start)} to {_text(end)}"
        hint = "a file that covers the run" if repeat == NEVER else "a file with these hours of a year, or repeat: month_hour"
        problems.add(f"{at}.path", asked.path, f"has no value for {_text(missing)}: {span}", hint)
    if len(problems) > before:
        return None
    # One that never changes is a constant, whatever it was written as.
    return replace(series, values=(series.known[0],), offset_s=0) if len(set(series.known)) == 1 else series


def _in_hours(count: int, per_hour: int) -> float:
    """So many values as hours, a whole number where it is one."""
    return count / per_hour if count % per_hour else count // per_hour


@dataclass(frozen=True)
class _Rows:
    """The times of a file, `step` apart, and their values in 1e-9 of the unit, without gaps."""

    hours: tuple[datetime, ...]
    values: tuple[int, ...]
    step: timedelta
    offset_s: int
    filled: int


def _by_hour_of_year(rows: _Rows) -> tuple[int | None, ...]:
    per_day = timedelta(days=1) // rows.step
    values: list[int | None] = [None] * (HOURS_OF_YEAR // 24 * per_day)
    for hour, value in zip(rows.hours, rows.values, strict=True):
        values[_place(hour, rows)] = value
    leap = place_in_year(datetime(2024, 2, 29, tzinfo=UTC), rows.step)
    for number in range(leap, leap + per_day):
        values[number] = values[number - per_day] if values[number] is None else values[number]
    return tuple(values)


def _by_month_and_hour(rows: _Rows) -> tuple[int | None, ...]:
    """The mean over all days of a month, for each time of the day."""
    per_day = timedelta(days=1) // rows.step
    found: dict[tuple[int, int], list[int]] = {}
    for hour, value in zip(rows.hours, rows.values, strict=True):
        found.setdefault((hour.month, _place(hour, rows) % per_day), []).append(value)
    means = {key: round(Decimal(sum(values)) / len(values)) for key, values in found.items()}
    leap_year = datetime(2024, 1, 1, tzinfo=UTC)
    months = ((leap_year + number * rows.step).month for number in range(HOURS_OF_YEAR // 24 * per_day))
    return tuple(means.get((month, number % per_day)) for number, month in enumerate(months))


def _place(moment: datetime, rows: _Rows) -> int:
    """The place of a time in the year, which begins as far past the hour as the file's values do."""
    return place_in_year(moment - timedelta(seconds=rows.offset_s), rows.step)


def _rows(asked: HourlyFile, kind: str, at: str, problems: Problems) -> _Rows | None:
    try:
        stat = Path(asked.path).stat()
        header, lines = _read(asked.path, stat.st_mtime_ns, stat.st_size)
    except (OSError, EOFError, UnicodeDecodeError, ValueError, csv.Error, zlib.error) as error:
        problems.add(
            f"{at}.path", asked.path, f"cannot be read: {getattr(error, 'strerror', None) or error}", "a CSV file, .csv or .csv.gz"
        )
        return None
    column, per_unit = _value_column(header, asked, kind, at, problems)
    time_column = _time_column(header, asked, at, problems)
    if column is None or time_column is None:
        return None
    step = _step(lines, time_column, len(header))
    if step is None:
        most = ", ".join(map(str, STEPS_MIN[:-1]))
        problems.add(
            f"{at}.path",
            asked.path,
            f"has rows at distances that are not read, the first in line {lines[1][0]}",
            f"{most} or {STEPS_MIN[-1]} minutes between rows",
        )
        return None
    clock, hours = _Clock(asked), _Hours(header[column], asked.max_gap_h, step)
    for number, cells in lines:
        if len(cells) != len(header):
            hours.bad.append(f"line {number}: {len(cells)} columns, not {len(header)}")
            continue
        text = cells[column].strip()
        try:
            hour = clock.utc(cells[time_column].strip(), hours.latest)
            hours.move_to(hour, number)
        except ValueError as error:
            hours.bad.append(f"line {number}: {error}")
            continue
        try:
            hours.add(hour, _nano(text, header[column], kind, per_unit) if text else None, number)
        except ValueError as error:
            hours.bad.append(f"line {number}: {error}")
            hours.hold(hour)
    found = hours.rows()
    if hours.bad:
        more = f"; and {len(hours.bad) - SHOWN_BAD_ROWS} more" if len(hours.bad) > SHOWN_BAD_ROWS else ""
        shown = "; ".join(hours.bad[:SHOWN_BAD_ROWS])
        problems.add(f"{at}.path", asked.path, f"has rows that make no sense: {shown}{more}")
        return None
    problems.check(found is not None, f"{at}.path", asked.path, "has no row", "at least one hour")
    return found


def _step(lines: Sequence[tuple[int, list[str]]], time_column: int, columns: int) -> timedelta | None:
    """Return the commonest distance between rows that is read, an hour where there is none; None where all are others below it."""
    times = []
    for _, cells in lines:
        try:
            times.append(datetime.fromisoformat(cells[time_column].strip()).replace(tzinfo=None) if len(cells) == columns else None)
        except ValueError:
            times.append(None)
    distances = Counter(later - time for time, later in pairwise(times) if time is not None and later is not None)
    known = [step for step, _ in distances.most_common() if step in _STEPS]
    if known:
        return known[0]
    return None if any(timedelta(0) < distance < _HOUR for distance in distances) else _HOUR


class _Hours:
    """The hours of a file (or their parts) as they come, every one with a value; what is wrong with them is in `bad`."""

    def __init__(self, column: str, max_gap_h: int, step: timedelta) -> None:
        self._column, self._max_gap_h, self._step = column, max_gap_h, step
        hourly, minutes = step == _HOUR, step // timedelta(minutes=1)
        self._unit, self._rule = ("hours", "by the hour") if hourly else (f"times {minutes} minutes", f"by {minutes} minutes")
        self._hours: list[datetime] = []
        self._values: list[int] = []
        self._gap = self._filled = self._line = 0
        self.bad: list[str] = []

    @property
    def latest(self) -> datetime | None:
        """The last hour so far."""
        return self._hours[-1] if self._hours else None

    def move_to(self, hour: datetime, line: int) -> None:
        """Fill the hours between the last one and the hour of a line.

        Raises
        ------
        ValueError : it is no whole number of hours, or of their parts, later.
        """
        if self._hours:
            missing, rest = divmod(hour - self._hours[-1], self._step)
            if rest:
                raise ValueError(
                    f"{_text(hour)} is no whole number of {self._unit} after line {self._line}, and the file is {self._rule}"
                )
            if missing > 1:
                self._miss(missing - 1, f"line {line}: {missing - 1} {self._unit} are missing before it")
        self._line = line

    def add(self, hour: datetime, value: int | None, line: int) -> None:
        """Add the value of the next hour; None where the cell is empty."""
        if value is not None:
            self._hours.append(hour)
            self._values.append(value)
            self._gap = 0
        elif self._hours:
            self._miss(1, f"line {line}: {self._column} is empty")
        else:
            self.bad.append(f"line {line}: {self._column} is empty, and there is no value before it")

    def hold(self, hour: datetime) -> None:
        """Go on after an hour whose value was refused, so that the next one is not refused for it."""
        self._hours.append(hour)
        self._values.append(self._values[-1] if self._values else 0)

    def _miss(self, count: int, what: str) -> None:
        self._gap += count
        if self._gap * self._step > self._max_gap_h * _HOUR:
            self.bad.append(f"{what} ({self._gap} in a row, max_gap_h is {self._max_gap_h})")
        for _ in range(count):
            self.hold(self._hours[-1] + self._step)
        self._filled += count

    def rows(self) -> _Rows | None:
        """Return what has come; None where that is nothing."""
        if len(self._hours) * self._step > HOURS_OF_YEAR * _HOUR:
            self.bad.append(f"{len(self._hours)} {self._unit} are more than a year: leave the others out")
        if not self._hours:
            return None
        first = self._hours[0]
        offset = timedelta(minutes=first.minute, seconds=first.second) % self._step
        return _Rows(tuple(self._hours), tuple(self._values), self._step, offset.seconds, self._filled)


@lru_cache(maxsize=8)
def _read(path: str, changed_ns: int, size: int) -> tuple[tuple[str, ...], tuple[tuple[int, list[str]], ...]]:
    """Return the header and the lines with their numbers; a file that has changed is read again."""
    opened: Callable[..., object] = gzip.open if path.endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as file:  # type: ignore[attr-defined]
        reader = csv.reader(file, strict=True)
        header = tuple(name.strip() for name in next(reader, []))
        return header, tuple((reader.line_num, cells) for cells in reader if cells)


def _plain(name: str) -> str:
    return name.replace("\N{SUBSCRIPT TWO}", "2").lower()


def _value_column(header: Sequence[str], asked: HourlyFile, kind: str, at: str, problems: Problems) -> tuple[int | None, int]:
    """Return the position of the wanted column, and how many of its units make one of the series'."""
    units = {
        number: per_unit
        for number, name in enumerate(header)
        for pattern, per_unit in _UNITS[kind].items()
        if pattern.fullmatch(_plain(name))
    }
    wanted = _plain(asked.column)
    if wanted:
        exact = [number for number, name in enumerate(header) if _plain(name) == wanted]
        named = exact or [number for number, name in enumerate(header) if _plain(name).endswith(f"({wanted})")]
        if not problems.check(
            bool(named), f"{at}.column", asked.column, f"{asked.path} has no such column", choices=header or ["none"]
        ):
            return None, 1
        chosen = named[0]
        known = problems.check(chosen in units, f"{at}.column", header[chosen], f"is no {kind} in a known unit", _EXAMPLES[kind])
        return (chosen if known else None), units.get(chosen, 1)
    if len(units) == 1:
        return next(iter(units.items()))
    if units:
        problems.add(
            f"{at}.column", "", f"{asked.path} has several columns of {kind}: choose one", choices=[header[n] for n in units]
        )
    else:
        names = ", ".join(header) or "none"
        problems.add(f"{at}.path", asked.path, f"has no column of {kind} in a known unit: {names}", _EXAMPLES[kind])
    return None, 1


def _time_column(header: Sequence[str], asked: HourlyFile, at: str, problems: Problems) -> int | None:
    lower = [name.lower() for name in header]
    wanted = [asked.time_column.lower()] if asked.time_column else list(TIME_COLUMNS)
    found = next((lower.index(name) for name in wanted if name in lower), None)
    if found is None:
        problems.add(f"{at}.time_column", asked.time_column, f"{asked.path} has no such column", choices=header or ["none"])
    return found


class _Clock:
    """Reads the times of a file."""

    def __init__(self, asked: HourlyFile) -> None:
        self._zone = ZoneInfo(asked.timezone) if asked.timezone else None
        self._shift = timedelta(seconds=round(asked.shift_h * 3_600))

    def utc(self, text: str, latest: datetime | None) -> datetime:
        """Return a time in UTC.

        Where the clocks go back an hour comes twice, and the second time is known by the hour before it.

        Raises
        ------
        ValueError : no time, one that the clocks skip, or one that is not after `latest`.
        """
        try:
            said = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(f"time = {text!r} is not a date and time in ISO 8601") from None
        if self._zone is None:
            moment = said.replace(tzinfo=UTC) if said.tzinfo is None else said.astimezone(UTC)
        else:
            clock = said.replace(tzinfo=None)
            moment = clock.replace(tzinfo=self._zone).astimezone(UTC)
            if moment.astimezone(self._zone).replace(tzinfo=None) != clock:
                raise ValueError(f"time = {text!r}: the clocks of {self._zone.key} skip it")
            if latest is not None and moment + self._shift <= latest:
                moment = clock.replace(tzinfo=self._zone, fold=1).astimezone(UTC)
        moment += self._shift
        if moment.microsecond:
            raise ValueError(f"time = {text!r} is finer than a second")
        if latest is not None and moment <= latest:
            raise ValueError(f"{_text(moment)} is not after the hour before it, {_text(latest)}")
        return moment


def _nano(text: str, column: str, kind: str, per_unit: int) -> int:
    """Return a number in 1e-9 of USD per kWh or of grams per kWh, half to even."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{column} = {text!r} is not a number") from None
    most = MOST_USD_PER_KWH if kind == PRICE else MOST_GCO2_PER_KWH
    least = -most if kind == PRICE else 0
    if not number.is_finite() or not least * per_unit <= number <= most * per_unit:
        raise ValueError(f"{column} = {text!r} is not between {least * per_unit:,} and {most * per_unit:,}")
    return int((number * _NANO / per_unit).to_integral_value(ROUND_HALF_EVEN))


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%MZ")
