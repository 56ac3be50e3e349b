"""Files with a price or an intensity by the hour: what is read, how it is laid over the run, and what is refused with its lines."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sim.catalog.grid_reader import HourlyFile, read_grid_series
from sim.domain.grid_series import HOURS_OF_YEAR, GridSeries, hour_of_year
from sim.errors import InputError, Problems
from sim.scenario import Energy, Pool, RegionEnergy, Scenario
from sim.scenario.check import check
from sim.units import NS_PER_DAY, NS_PER_HOUR

START = datetime(2026, 1, 5, tzinfo=UTC)
NANO = 10**9


def written(folder: Path, *lines: str, name: str = "grid.csv") -> str:
    """A file of lines."""
    path = folder / name
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return str(path)


def read(path: str, kind: str = "price", *, start: datetime = START, hours: int = 2, **settings: Any) -> GridSeries:
    """A series that is fine."""
    problems = Problems()
    series = read_grid_series(HourlyFile(path, **settings), kind, "energy.price", problems, start, hours * NS_PER_HOUR)
    problems.raise_if_any()
    assert series is not None
    return series


def refused(path: str, kind: str = "price", **settings: Any) -> list[str]:
    """What is wrong with a file."""
    with pytest.raises(InputError) as caught:
        read(path, kind, **settings)
    return [str(problem) for problem in caught.value.problems]


def hours_of(year: int, value: int = 100) -> list[str]:
    """Every hour of a year; the value is that plus the hour of the day."""
    first, end = datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)
    hours = (first + timedelta(hours=n) for n in range((end - first) // timedelta(hours=1)))
    return ["time,gco2_per_kwh", *(f"{hour.isoformat()},{value + hour.hour + 24 * (hour.day == 1)}" for hour in hours)]


@pytest.mark.parametrize(
    ("kind", "header", "row", "settings", "expected"),
    [
        ("price", "time,usd_per_kwh,gco2_per_kwh", "2026-01-05T{0}:00Z,0.08,300", {}, 80_000_000),
        ("carbon", "time,usd_per_kwh,gco2_per_kwh", "2026-01-05T{0}:00Z,0.08,300", {}, 300 * NANO),
        ("carbon", "timestamp,WND,avg_CI", "2026-01-05 {0}:00:00+00:00,17,322.5", {}, 322_500_000_000),
        ("price", "Datetime (UTC),Datetime (Local),Price (USD/MWh)",
         "2026-01-05 {0}:00:00+00:00,2026-01-04 16:00:00-08:00,-3.3622368", {}, -3_362_237),
        ("carbon", "Datetime (UTC),Zone,Carbon Intensity gCO₂eq/kWh (direct),Carbon Intensity gCO₂eq/kWh (LCA)",
         "2026-01-05 {0}:00:00,DE,140.5,185.8", {"column": "direct"}, 140_500_000_000),
        ("carbon", "Datetime (UTC),Zone,Carbon Intensity gCO₂eq/kWh (direct),Carbon Intensity gCO₂eq/kWh (LCA)",
         "2026-01-05 {0}:00:00,DE,140.5,185.8", {"column": "carbon intensity gCO2eq/kWh (LCA)"}, 185_800_000_000),
    ],
)  # fmt: skip
@pytest.mark.parametrize("packed", [False, True])
def test_each_format_is_read(
    tmp_path: Path, kind: str, header: str, row: str, settings: dict[str, str], expected: int, packed: bool
) -> None:
    path = written(tmp_path, header, row.format("00"), row.format("01"))
    if packed:
        (tmp_path / "grid.csv.gz").write_bytes(gzip.compress(Path(path).read_bytes()))
        path += ".gz"
    series = read(path, kind, **settings)
    assert series.values == (expected,)
    assert (series.path, series.repeated, series.source) == (path, "", path)
    assert series.negative_hours == 2 * (expected < 0)


def test_a_shift_moves_every_hour(tmp_path: Path) -> None:
    path = written(tmp_path, "time,usd_per_kwh", "2026-01-05T08:00Z,0.01", "2026-01-05T09:00Z,0.02")
    series = read(path, shift_h=-8.0)
    assert [series.at(START + timedelta(hours=n)) for n in (0, 1)] == [10_000_000, 20_000_000]
    assert list(series.changes(START, 2 * NS_PER_HOUR)) == [NS_PER_HOUR]
    # half an hour past the hour: the run's first half hour is not in the file
    [problem] = refused(path, shift_h=-7.5, repeat="never")
    assert "the file runs from 2026-01-05T00:30Z to 2026-01-05T02:30Z" in problem
    late = read(path, shift_h=-7.5, start=START + timedelta(minutes=30))
    assert late.offset_s == 1800
    assert list(late.changes(START + timedelta(minutes=30), 2 * NS_PER_HOUR)) == [NS_PER_HOUR]


def test_offsets_in_the_file_and_zones_of_its_clock_name_the_same_hours(tmp_path: Path) -> None:
    with_offset = written(tmp_path, "t,usd_per_kwh", "2026-01-05 01:00:00+01:00,1", "2026-01-05 02:00:00+01:00,2", name="a.csv")
    clock = written(tmp_path, "t,usd_per_kwh", "2026-01-05 01:00:00,1", "2026-01-05 02:00:00,2", name="b.csv")
    in_berlin = read(clock, time_column="t", timezone="Europe/Berlin")
    assert read(with_offset, time_column="T").values == in_berlin.values
    # a zone of the clock wins over the offset that the file claims
    assert read(with_offset, time_column="t", timezone="UTC", start=START + timedelta(hours=1)).known == [NANO, 2 * NANO]


def test_the_hour_that_comes_twice_is_two_and_one_that_never_comes_is_refused(tmp_path: Path) -> None:
    # Berlin, 25 October 2026: 02:00 comes at 00:00 UTC and again at 01:00 UTC.
    path = written(tmp_path, "time,usd_per_kwh", *(f"2026-10-25T{hour}:00,{n}" for n, hour in enumerate(("01", "02", "02", "03"))))
    start = datetime(2026, 10, 24, 23, tzinfo=UTC)
    series = read(path, timezone="Europe/Berlin", start=start, hours=4)
    assert [series.at(start + timedelta(hours=n)) for n in range(4)] == [0, NANO, 2 * NANO, 3 * NANO]
    # 29 March 2026: 02:00 is skipped.
    spring = written(tmp_path, "time,usd_per_kwh", "2026-03-29T01:00,1", "2026-03-29T02:00,2", "2026-03-29T03:00,3")
    [problem] = refused(spring, timezone="Europe/Berlin")
    assert "line 3: time = '2026-03-29T02:00': the clocks of Europe/Berlin skip it" in problem
    assert "line 4" not in problem


def test_a_year_is_laid_over_another_one_by_the_hour(tmp_path: Path) -> None:
    path = written(tmp_path, *hours_of(2023))
    leap = datetime(2028, 2, 28, tzinfo=UTC)
    series = read(path, "carbon", start=leap, hours=72, confidence="published")
    # 29 February is the 28th, 1 March has 24 more
    assert [series.at(leap + timedelta(hours=n)) // NANO for n in (5, 24 + 5, 48 + 5)] == [105, 105, 129]
    assert (series.repeated, series.confidence) == ("hour_of_year", "assumed")
    own_year = read(path, "carbon", start=datetime(2023, 2, 28, tzinfo=UTC), confidence="published")
    assert (own_year.repeated, own_year.confidence) == ("", "published")
    assert len(series.values) == HOURS_OF_YEAR


def rows_every(minutes: int, count: int, start: datetime = START) -> list[str]:
    """Rows of 0.01, 0.02, ... USD per kWh, so many minutes apart."""
    return [f"{(start + timedelta(minutes=minutes * n)).isoformat()},{n + 1}e-2" for n in range(count)]


@pytest.mark.parametrize("minutes", [5, 15, 30])
def test_values_finer_than_an_hour_hold_as_long_as_they_say(tmp_path: Path, minutes: int) -> None:
    per_hour = 60 // minutes
    path = written(tmp_path, "time,usd_per_kwh", *rows_every(minutes, 2 * per_hour))
    series = read(path)
    assert (series.step, len(series.values)) == (timedelta(minutes=minutes), HOURS_OF_YEAR * per_hour)
    for second in (0, 1, 60 * minutes - 1, 60 * minutes, 3_599, 3_600, 7_199):
        assert series.at(START + timedelta(seconds=second)) == (second // (60 * minutes) + 1) * 10_000_000
    assert list(series.changes(START, 2 * NS_PER_HOUR)) == [n * minutes * 60 * NANO for n in range(1, 2 * per_hour)]
    [problem] = refused(path, hours=3)
    assert "has no value for 2026-01-05T02:00Z" in problem
    # a file whose clock is two minutes late
    late = read(path, shift_h=2 / 60, start=START + timedelta(minutes=2))
    assert (late.offset_s, late.at(START + timedelta(minutes=minutes + 1, seconds=59))) == (120, 10_000_000)
    assert late.at(START + timedelta(minutes=minutes + 2)) == 20_000_000


def test_quarter_hours_when_the_clocks_change(tmp_path: Path) -> None:
    """Berlin, 25 October 2026: 02:00 to 02:45 come twice; on 29 March they never come."""
    hour = [f"2026-10-25T02:{minute:02},{{}}" for minute in (0, 15, 30, 45)]
    rows = [row.format(n) for n, row in enumerate([*hour, *hour], 1)]
    start = datetime(2026, 10, 25, tzinfo=UTC)
    series = read(written(tmp_path, "time,usd_per_kwh", *rows), timezone="Europe/Berlin", start=start)
    assert [series.at(start + timedelta(minutes=15 * n)) // NANO for n in range(8)] == list(range(1, 9))
    spring = ["2026-03-29T01:30,1", "2026-03-29T01:45,2", "2026-03-29T02:00,3", "2026-03-29T03:00,3", "2026-03-29T03:15,4"]
    [problem] = refused(written(tmp_path, "time,usd_per_kwh", *spring, name="spring.csv"), timezone="Europe/Berlin")
    assert "spring.csv" in problem
    assert "line 4: time = '2026-03-29T02:00': the clocks of Europe/Berlin skip it" in problem
    assert "line 5" not in problem


def test_gaps_and_wrong_rows_of_quarter_hours(tmp_path: Path) -> None:
    rows = rows_every(15, 9)
    path = written(tmp_path, "time,usd_per_kwh", *rows[:2], *rows[6:])
    [problem] = refused(path)
    assert "line 4: 4 times 15 minutes are missing before it (4 in a row, max_gap_h is 0)" in problem
    series = read(path, max_gap_h=1)
    assert (series.filled_hours, series.at(START + timedelta(minutes=89))) == (1, 20_000_000)
    odd = written(
        tmp_path, "time,usd_per_kwh", *rows[:3], "2026-01-05T00:40Z,0.1", "2026-01-05T00:45Z,x", *rows[4:], name="odd.csv"
    )
    [problem] = refused(odd)
    assert "line 5: 2026-01-05T00:40Z is no whole number of times 15 minutes after line 4, and the file is by 15 minutes" in problem
    assert "line 6: usd_per_kwh = 'x' is not a number" in problem
    assert "line 7" not in problem


def test_a_year_in_which_hours_became_quarters(tmp_path: Path) -> None:
    """As in Europe's day-ahead market on 1 October 2025: an hour's row holds for its four quarters where gaps may be filled."""
    rows = [*rows_every(60, 2), *rows_every(15, 8, START + timedelta(hours=2))]
    path = written(tmp_path, "time,usd_per_kwh", *rows)
    assert "line 3: 3 times 15 minutes are missing before it" in refused(path, hours=4)[0]
    series = read(path, hours=4, max_gap_h=1)
    assert [series.at(START + timedelta(minutes=m)) // 10_000_000 for m in (0, 59, 60, 119, 120, 135, 239)] == [1, 1, 2, 2, 1, 2, 8]


def test_rows_at_other_distances_are_refused(tmp_path: Path) -> None:
    [problem] = refused(written(tmp_path, "time,usd_per_kwh", *rows_every(10, 6)))
    assert "has rows at distances that are not read, the first in line 3" in problem
    assert "5, 15, 30 or 60 minutes between rows" in problem


def test_a_year_of_quarter_hours_laid_over_another_one(tmp_path: Path) -> None:
    year = datetime(2023, 1, 1, tzinfo=UTC)
    rows = (f"{(year + timedelta(minutes=15 * n)).isoformat()},{n % 96}" for n in range(365 * 96))
    path = written(tmp_path, "time,gco2_per_kwh", *rows)
    leap = datetime(2028, 2, 29, tzinfo=UTC)
    for repeat in ("hour_of_year", "month_hour"):
        series = read(path, "carbon", start=leap, hours=48, repeat=repeat)
        assert [series.at(leap + timedelta(minutes=15 * n)) // NANO for n in (0, 1, 95, 96, 97)] == [0, 1, 95, 0, 1]
        assert series.repeated == repeat


def test_a_mean_of_the_month_by_the_hour(tmp_path: Path) -> None:
    path = written(tmp_path, *hours_of(2023))
    series = read(path, "carbon", repeat="month_hour", start=datetime(2023, 2, 1, tzinfo=UTC))
    # February has 28 days, one of them 24 higher
    assert series.at(datetime(2026, 2, 17, 5, tzinfo=UTC)) == round(NANO * (105 + 24 / 28))
    assert (series.repeated, series.confidence) == ("month_hour", "assumed")


def test_a_file_shorter_than_the_run_is_refused_unless_it_repeats(tmp_path: Path) -> None:
    path = written(tmp_path, "time,usd_per_kwh", "2026-01-05T00:00Z,0.01", "2026-01-05T01:00Z,0.02")
    [problem] = refused(path, hours=3)
    assert "has no value for 2026-01-05T02:00Z: the file runs from 2026-01-05T00:00Z to 2026-01-05T02:00Z" in problem
    assert "allowed: a file with these hours of a year, or repeat: month_hour" in problem
    [problem] = refused(written(tmp_path, *hours_of(2023), name="y.csv"), "carbon", repeat="never")
    assert "has no value for 2026-01-05T00:00Z" in problem
    assert read(path, hours=2, repeat="never").repeated == ""


def test_gaps_hold_the_value_before_them_as_far_as_allowed(tmp_path: Path) -> None:
    path = written(tmp_path, "time,usd_per_kwh", "2026-01-05T00:00Z,1", "2026-01-05T01:00Z,", "2026-01-05T04:00Z,4")
    series = read(path, hours=5, max_gap_h=3)
    assert [series.at(START + timedelta(hours=n)) // NANO for n in range(5)] == [1, 1, 1, 1, 4]
    assert series.filled_hours == 3
    [problem] = refused(path, max_gap_h=2)
    assert "line 4: 2 hours are missing before it (3 in a row, max_gap_h is 2)" in problem
    assert "line 3" not in problem
    [problem] = refused(path)
    assert "line 3: usd_per_kwh is empty (1 in a row, max_gap_h is 0)" in problem


def test_every_line_that_makes_no_sense_is_named_at_once(tmp_path: Path) -> None:
    path = written(
        tmp_path, "time,usd_per_kwh", "2026-01-05T00:00Z,0.08", "2026-01-05T01:00Z,nan", "2026-01-05T02:00Z,cheap",
        "2026-01-05T02:00Z,0.09", "yesterday,0.08", "2026-01-05T03:30Z,0.08", "2026-01-05T03:00Z,0.08,", "2026-01-05T03:00Z,1e9",
        "2026-01-05T04:00Z,0.08",
    )  # fmt: skip
    [problem] = refused(path)
    for part in (
        "line 3: usd_per_kwh = 'nan' is not between -100 and 100",
        "line 4: usd_per_kwh = 'cheap' is not a number",
        "line 5: 2026-01-05T02:00Z is not after the hour before it, 2026-01-05T02:00Z",
        "line 6: time = 'yesterday' is not a date and time in ISO 8601",
        "line 7: 2026-01-05T03:30Z is no whole number of hours after line 4",
        "line 8: 3 columns, not 2",
        "line 9: usd_per_kwh = '1e9' is not between -100 and 100",
    ):
        assert part in problem
    assert "line 2" not in problem
    assert "line 10" not in problem


def test_other_currencies_and_units_are_refused(tmp_path: Path) -> None:
    [problem] = refused(written(tmp_path, "time,Price (EUR/MWh)", "2026-01-05T00:00Z,80"))
    assert "has no column of price in a known unit: time, Price (EUR/MWh)" in problem
    [problem] = refused(written(tmp_path, "time,Price (EUR/MWh)", "2026-01-05T00:00Z,80"), column="Price (EUR/MWh)")
    assert "is no price in a known unit" in problem
    [problem] = refused(written(tmp_path, "time,gco2_per_kwh", "2026-01-05T00:00Z,-1"), "carbon")
    assert "gco2_per_kwh = '-1' is not between 0 and 10,000" in problem


def test_a_choice_of_columns_must_be_made(tmp_path: Path) -> None:
    both = "Carbon Intensity gCO2eq/kWh (direct),Carbon Intensity gCO2eq/kWh (LCA)"
    path = written(tmp_path, f"when,{both}", "2026-01-05T00:00Z,1,2")
    column, time_column = refused(path, "carbon")
    assert "has several columns of carbon: choose one" in column
    assert "energy.price.time_column = ''" in time_column
    [problem] = refused(path, "carbon", column="lca", time_column="wen")
    assert problem.endswith("did you mean 'when'?")


@pytest.mark.parametrize("name", ["none.csv", "plain.csv.gz", "empty.csv"])
def test_what_cannot_be_read_is_said(tmp_path: Path, name: str) -> None:
    if not name.startswith("none"):
        (tmp_path / name).write_text("" if name.startswith("empty") else "no gzip", "utf-8")
    assert all("energy.price." in problem for problem in refused(str(tmp_path / name)))


def test_hours_of_the_year_are_places_in_a_leap_year() -> None:
    first = datetime(2024, 1, 1, tzinfo=UTC)
    assert [hour_of_year(first + timedelta(hours=n)) for n in range(HOURS_OF_YEAR)] == list(range(HOURS_OF_YEAR))
    assert hour_of_year(datetime(2023, 12, 31, 23, tzinfo=UTC)) == HOURS_OF_YEAR - 1


def test_changes_are_where_the_value_changes(tmp_path: Path) -> None:
    series = read(written(tmp_path, *hours_of(2026)), "carbon", hours=48)
    changes = list(series.changes(START, 2 * NS_PER_DAY))
    assert changes == [n * NS_PER_HOUR for n in range(1, 48)]
    # an hour like the one before it cuts nothing
    path = written(tmp_path, "time,usd_per_kwh", *(f"2026-01-05T0{n}:00Z,{value}" for n, value in enumerate((1, 1, 2, 2, 1))))
    assert list(read(path, hours=5).changes(START, 5 * NS_PER_HOUR)) == [2 * NS_PER_HOUR, 4 * NS_PER_HOUR]


def problems_of(energy: Energy, **pool: Any) -> dict[str, str]:
    """Problems of a scenario with one pool, by path, as far as they are of its electricity."""
    with pytest.raises(InputError) as caught:
        check(Scenario(pools={"h100": Pool(**pool)}, energy=energy, horizon="2h"))
    paths = ("energy", "pools.h100.grid", "pools.h100.region")
    return {problem.path: str(problem) for problem in caught.value.problems if problem.path.startswith(paths)}


def test_all_problems_of_settings_and_files_come_at_once(tmp_path: Path) -> None:
    bad = written(tmp_path, "time,usd_per_kwh", "2026-01-05T00:00Z,x")
    found = problems_of(
        Energy(
            pue=0.5,
            usd_per_kwh=0.08,
            price=HourlyFile(bad),
            carbon=HourlyFile(column="avg_CI"),
            intensity="mean",
            regions={
                "us-east-1": RegionEnergy(carbon=HourlyFile(str(tmp_path / "none.csv"))),
                "us-west-9": RegionEnergy(price=HourlyFile(bad, timezone="Mars", shift_h=99, max_gap_h=-1, repeat="yearly")),
            },
        )
    )
    assert list(found) == [
        "energy.regions.us-east-1.carbon.path", "energy.regions.us-west-9.price.timezone", "energy.regions.us-west-9.price.shift_h",
        "energy.regions.us-west-9.price.max_gap_h", "energy.regions.us-west-9.price.repeat", "energy.pue", "energy.intensity",
        "energy.price.path", "energy.carbon.path", "energy.regions.us-west-9",
    ]  # fmt: skip
    assert "line 2: usd_per_kwh = 'x'" in found["energy.price.path"] or "cannot both be set" in found["energy.price.path"]


def test_a_grid_of_ones_own_must_be_complete() -> None:
    found = problems_of(Energy(regions={"home": RegionEnergy(pue=1.1)}), grid="home")
    assert list(found) == ["energy.regions.home.usd_per_kwh", "energy.regions.home.gco2_per_kwh"]
    assert problems_of(Energy(), grid="us-east-11")["pools.h100.grid"].endswith("did you mean 'us-east-1'?")
    complete = Energy(usd_per_kwh=0.1, regions={"home": RegionEnergy(pue=1.1, gco2_per_kwh=50.0)})
    assert problems_of(complete, grid="home") == {}
