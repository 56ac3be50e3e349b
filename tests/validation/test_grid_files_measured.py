"""Every file of measured prices and intensities is read: how many hours, how far, and what is known to be odd about it."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sim.catalog.grid_reader import HourlyFile, read_grid_series
from sim.domain.grid_series import GridSeries
from sim.errors import Problems
from sim.units import NS_PER_DAY

pytestmark = pytest.mark.validation

DATA = Path(os.environ.get("BILLCAST_DATA", Path(__file__).resolve().parents[2] / ".." / "shared" / "data")) / "grid"
START = datetime(2026, 1, 1, tzinfo=UTC)
# file -> kind, column, lowest and highest value per kWh, hours below 0, hours filled
FILES = {
    "eia_CA_NG_and_avgCI_2022": ("carbon", "", 74.1, 449.0, 0, 3),
    "eia_TX_NG_and_avgCI_2022": ("carbon", "", 110.7, 516.7, 0, 0),
    "eia_VA_NG_and_avgCI_2022": ("carbon", "", 42.7, 449.2, 0, 23),
    "US-CAL-CISO_2023_hourly_electricitymaps": ("carbon", "direct", 54.5, 331.7, 0, 0),
    "DE-LU_2023_hourly_electricitymaps": ("carbon", "LCA", 126.9, 725.5, 0, 0),
    "US-CAL-CISO_electricity_prices_2022": ("price", "", -0.0045, 1.201, 36, 0),
    "US-CAL-CISO_electricity_prices_2023": ("price", "", -0.019, 1.0455, 149, 0),
    "US-MIDA-PJM_electricity_prices_2022": ("price", "", -0.0167, 4.04, 4, 0),
    "US-MIDA-PJM_electricity_prices_2023": ("price", "", -0.0033, 0.4599, 2, 0),
    "US-TEX-ERCO_electricity_prices_2022": ("price", "", 0.0016, 2.4567, 0, 0),
    "US-TEX-ERCO_electricity_prices_2023": ("price", "", 0.0008, 4.1115, 0, 0),
    "DE-LU_electricity_prices_2023": ("price", "", -0.4844, 0.5239, 291, 0),
}


def read(name: str, kind: str, problems: Problems, **settings: object) -> GridSeries | None:
    """A file laid over 2026."""
    path = DATA / f"{name}.csv.gz"
    if not path.exists():
        pytest.skip(f"no {path.name} in BILLCAST_DATA ({DATA.parent})")
    file = HourlyFile(str(path), **settings)  # type: ignore[arg-type]
    return read_grid_series(file, kind, "energy", problems, START, 365 * NS_PER_DAY)


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_a_year(name: str) -> None:
    kind, column, least, most, negative, filled = FILES[name]
    problems = Problems()
    series = read(name, kind, problems, column=column, max_gap_h=23)
    problems.raise_if_any()
    assert series is not None
    known = [value / 1e9 for value in series.known]
    # 29 February is the 28th
    assert len(known) == 8_784
    assert (min(known), max(known)) == pytest.approx((least, most), abs=0.06 if kind == "carbon" else 5e-5)
    assert (series.negative_hours, series.filled_hours, series.repeated) == (negative, filled, "hour_of_year")


def test_missing_intensities_are_refused_with_their_lines() -> None:
    problems = Problems()
    assert read("eia_VA_NG_and_avgCI_2022", "carbon", problems) is None
    assert "line 1713: avg_CI is empty (1 in a row, max_gap_h is 0)" in str(problems.found[0])


def evening_peak_h(name: str, **settings: object) -> int:
    """The hour of UTC with the highest mean price."""
    problems = Problems()
    series = read(name, "price", problems, repeat="month_hour", **settings)
    problems.raise_if_any()
    assert series is not None
    day = [sum(series.at(START + timedelta(days=30 * month, hours=hour)) for month in range(12)) for hour in range(24)]
    return day.index(max(day))


def test_the_peak_of_a_shifted_file_is_in_the_evening_again() -> None:
    # The UTC column of the Californian file is late by its zone's offset: prices peak at 2 or 3 h UTC, 18 to 19 h in winter there.
    shown = evening_peak_h("US-CAL-CISO_electricity_prices_2023")
    assert shown in (9, 10, 11)
    assert evening_peak_h("US-CAL-CISO_electricity_prices_2023", shift_h=-8.0) == (shown - 8) % 24
    assert evening_peak_h("DE-LU_electricity_prices_2023") in (16, 17, 18, 19)
