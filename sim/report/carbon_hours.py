"""When a fleet draws its energy and when the grid is clean: kWh, intensity and carbon of a million tokens by hour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from zoneinfo import ZoneInfo

from rich.table import Table

from sim.report.cells import new_table, significant
from sim.results.energy import NANO_PER_KWH, UG_PER_G, UG_PER_KG
from sim.results.periods import Calendar
from sim.results.records import RunResult
from sim.results.spool import quoted
from sim.units import NS_PER_DAY, NS_PER_US

_HOUR = timedelta(hours=1)
_MICROSECOND = timedelta(microseconds=1)
# From this length on the hours of all days are put together.
FOLDED_FROM_NS = 2 * NS_PER_DAY
_HOURS_A_DAY = 24
_CLEAN_SHARE = 4  # the cleanest hours are one in four
_ALIKE = 1e-6  # carbon is kept in whole micrograms, so equal intensities can differ by rounding
TOKENS = 1_000_000


@dataclass(frozen=True)
class CarbonHour:
    """One hour of the day, over all days of a run, or one hour of a short run.

    Parameters
    ----------
    label : "09:00", or calendar hour with offset. length_h : how much of the run lies in it, in hours.
    nano_kwh, carbon_ug : of all machines. token_carbon_ug : without services that have no tokens.
    tokens : prompt and output tokens of requests that completed in it; None where windows do not say.
    """

    label: str
    length_h: float
    nano_kwh: int
    carbon_ug: int
    token_carbon_ug: int
    tokens: int | None

    @property
    def kwh(self) -> float:
        """Energy at the meter."""
        return self.nano_kwh / NANO_PER_KWH

    @property
    def g_per_kwh(self) -> float | None:
        """Mean intensity of what was drawn; None where nothing was."""
        return self.carbon_ug / UG_PER_G / self.kwh if self.nano_kwh else None

    @property
    def g_per_1m_tokens(self) -> float | None:
        """Carbon of a million tokens, prompt and output; None without tokens."""
        return self.token_carbon_ug / UG_PER_G * TOKENS / self.tokens if self.tokens else None


@dataclass(frozen=True)
class CarbonHours:
    """Energy and carbon of a run by hour.

    Parameters
    ----------
    folded : whether hours are those of the day, all days together. zone : IANA name of the account's clock.
    hours : in order, none left out. varies : whether the intensity in force was not the same all the time.
    """

    folded: bool
    zone: str
    hours: tuple[CarbonHour, ...]
    varies: bool

    @property
    def total(self) -> CarbonHour:
        """All hours together."""
        counts = [hour.tokens for hour in self.hours if hour.tokens is not None]
        return CarbonHour(
            "all",
            sum(hour.length_h for hour in self.hours),
            sum(hour.nano_kwh for hour in self.hours),
            sum(hour.carbon_ug for hour in self.hours),
            sum(hour.token_carbon_ug for hour in self.hours),
            sum(counts) if len(counts) == len(self.hours) else None,
        )

    @property
    def even_g_per_kwh(self) -> float | None:
        """What a kWh would emit if as much were drawn in every hour; None where nothing was drawn."""
        known = [(hour.length_h, hour.g_per_kwh) for hour in self.hours if hour.g_per_kwh is not None]
        length_h = sum(length for length, _ in known)
        return sum(length * grams for length, grams in known) / length_h if length_h else None

    def cleanest(self) -> tuple[int, ...]:
        """Return the places of the hours with the least intensity, one in four and those equal to the last of them.

        Empty where all hours are alike.
        """
        known = sorted((hour.g_per_kwh, place) for place, hour in enumerate(self.hours) if hour.g_per_kwh is not None)
        if not self.varies or not known or known[-1][0] - known[0][0] <= _ALIKE * known[-1][0]:
            return ()
        limit = known[max(len(known) // _CLEAN_SHARE, 1) - 1][0]
        return tuple(sorted(place for grams, place in known if grams <= limit))

    def spans(self, places: Sequence[int]) -> list[tuple[int, int]]:
        """Return runs of neighbouring hours as first place and place after the last.

        Examples
        --------
        >>> CarbonHours(True, "UTC", (), False).spans([0, 1, 5])
        [(0, 2), (5, 6)]
        """
        runs = [[place for _, place in run] for _, run in groupby(enumerate(places), lambda pair: pair[1] - pair[0])]
        return [(run[0], run[-1] + 1) for run in runs]


def carbon_hours(result: RunResult) -> CarbonHours:
    """Return energy and carbon by hour of the day in the account's zone, or by hour of the run where that is under two days.

    Parameters
    ----------
    result : a finished run. Its tables `energy` and `windows` are read; sums over the hours are those of `summary.json`.

    Notes
    -----
    Tokens are counted in the hour in which their request completes. They are known by hour where every window lies in one hour.
    """
    calendar = Calendar.of(result.manifest["scenario"])
    folded = calendar.horizon_ns >= FOLDED_FROM_NS
    lengths = _lengths_h(calendar, folded)
    drawn, intensities = _drawn(result, folded)
    tokens = _tokens(result, calendar, folded)
    hours = []
    for key, length_h in lengths.items():
        sums = drawn.get(key, (0, 0, 0))
        hours.append(CarbonHour(_label(key, folded), length_h, *sums, None if tokens is None else tokens.get(key, 0)))
    return CarbonHours(folded, calendar.account_zone, tuple(hours), intensities > 1)


def _label(key: str, folded: bool) -> str:
    return f"{key}:00" if folded else key.replace("T", " ")


def _hour_of(moment: datetime, zone: ZoneInfo) -> datetime:
    """The start of the calendar hour in which an instant lies."""
    return moment.astimezone(zone).replace(minute=0, second=0, microsecond=0)


def _key(hour: datetime, folded: bool) -> str:
    """The calendar hour as the tables write it, or its number on the clock."""
    return f"{hour:%H}" if folded else hour.isoformat(timespec="minutes")


def _lengths_h(calendar: Calendar, folded: bool) -> dict[str, float]:
    """How much of the run lies in each hour, in order."""
    zone = ZoneInfo(calendar.account_zone)
    end = calendar.start + calendar.horizon_ns // NS_PER_US * _MICROSECOND
    lengths = {f"{hour:02}": 0.0 for hour in range(_HOURS_A_DAY)} if folded else {}
    at = calendar.start
    while at < end:
        hour = _hour_of(at, zone)
        coming = min(hour.astimezone(UTC) + _HOUR, end)
        key = _key(hour, folded)
        lengths[key] = lengths.get(key, 0.0) + (coming - at) / _HOUR
        at = coming
    return lengths


def _drawn(result: RunResult, folded: bool) -> tuple[dict[str, tuple[int, int, int]], int]:
    """Energy, carbon, and carbon of services with tokens by hour; and how many intensities there were."""
    in_items = [name for name, found in result.summary["services"].items() if "items" in found]
    with_tokens = " AND ".join(["true", *(f"service <> {quoted(name)}" for name in in_items)])
    columns = result.sql(f"""
        SELECT {"substr(local_hour, 12, 2)" if folded else "local_hour"} AS hour, sum(nano_kwh) AS nano_kwh,
            sum(carbon_ug) AS carbon_ug, coalesce(sum(carbon_ug) FILTER (stream < 0 OR ({with_tokens})), 0) AS token_carbon_ug
        FROM energy GROUP BY ALL ORDER BY ALL
    """)
    kinds = result.sql("SELECT count(DISTINCT gco2_per_kwh) AS kinds FROM energy WHERE nano_kwh <> 0")["kinds"]
    drawn = {str(hour): (int(kwh), int(all_ug), int(ug)) for hour, kwh, all_ug, ug in zip(*columns.values(), strict=True)}
    return drawn, int(kinds[0])


def _tokens(result: RunResult, calendar: Calendar, folded: bool) -> Mapping[str, int] | None:
    """Tokens by hour; None where a window with tokens lies in two hours."""
    zone = ZoneInfo(calendar.account_zone)
    columns = result.sql("""
        SELECT start_ns, end_ns, sum(prompt_tokens + output_tokens) AS tokens FROM windows GROUP BY ALL
        HAVING tokens > 0 ORDER BY ALL
    """)
    found: dict[str, int] = {}
    for start_ns, end_ns, tokens in zip(*(column.tolist() for column in columns.values()), strict=True):
        hour = _hour_of(calendar.start + start_ns // NS_PER_US * _MICROSECOND, zone)
        if calendar.start + -(-end_ns // NS_PER_US) * _MICROSECOND > hour.astimezone(UTC) + _HOUR:
            return None
        key = _key(hour, folded)
        found[key] = found.get(key, 0) + int(tokens)
    return found


def cleanest_sentence(found: CarbonHours) -> str:
    """Return which hours are the cleanest, and how much of the energy is drawn in them."""
    places, total = found.cleanest(), found.total
    if not places:
        return f"No hour is cleaner than another: {significant(total.g_per_kwh)} g/kWh."
    chosen = [found.hours[place] for place in places]
    grams = sorted(hour.g_per_kwh for hour in chosen if hour.g_per_kwh is not None)
    drawn, length_h = sum(hour.nano_kwh for hour in chosen), sum(hour.length_h for hour in chosen)
    return (
        f"Cleanest: {spans_text(found, places)}, {significant(grams[0])} to {significant(grams[-1])} g/kWh; "
        f"{drawn / total.nano_kwh:.1%} of the energy is drawn in these {length_h / total.length_h:.1%} of the time."
    )


def spans_text(found: CarbonHours, places: Sequence[int]) -> str:
    """Return hours as words, neighbours together: "09:00 to 15:00"."""
    after = {place: hour.label for place, hour in enumerate(found.hours)}
    after[len(found.hours)] = "24:00" if found.folded else "the end"
    return ", ".join(f"{after[first]} to {after[last]}" for first, last in found.spans(places))


def carbon_hours_table(found: CarbonHours) -> Table | None:
    """Return the hours as a table with their sum; None where no energy was drawn."""
    if not found.total.nano_kwh:
        return None
    what = "hour of the day" if found.folded else "hour"
    table = new_table("ENERGY AND CARBON BY HOUR", what, "kWh", "g/kWh", "kg CO2", "1M tokens", "g CO2/1M")
    for hour in found.hours:
        table.add_row(hour.label, *_numbers(hour))
    table.add_row("all", *_numbers(found.total), style="bold")
    notes = [f"clock of {found.zone}; tokens in the hour in which their request completes"]
    if found.total.tokens is None:
        notes.append("- : reporting windows that lie in two hours do not say how many tokens each hour had")
    table.caption = "; ".join(notes)
    return table


def _numbers(hour: CarbonHour) -> tuple[str, ...]:
    millions = None if hour.tokens is None else hour.tokens / TOKENS
    numbers = (hour.kwh, hour.g_per_kwh, hour.carbon_ug / UG_PER_KG, millions, hour.g_per_1m_tokens)
    return tuple(significant(number) for number in numbers)
