"""Energy and carbon worked by hand: two hours of different price and intensity, one lease, two streams."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from billing_kit import Lists, busy_slice, charge, lease, make_ledger, own_price, pool_billing

from sim.billing.energy import Electricity
from sim.catalog.grid_reader import HourlyFile, read_grid_series
from sim.domain.grid_series import HOURS_OF_YEAR, GridSeries, hour_of_year, place_in_year
from sim.errors import Problems
from sim.units import NS_PER_HOUR, NS_PER_MINUTE

# The small run's start: 22:00 UTC on 31 January 2026.
FIRST, SECOND = datetime(2026, 1, 31, 22, tzinfo=UTC), datetime(2026, 1, 31, 23, tzinfo=UTC)


def by_hour(*values: int, offset_s: int = 0) -> GridSeries:
    """A series of 22:00, 23:00, 00:00, ...; nothing is known of other hours."""
    found: list[int | None] = [None] * HOURS_OF_YEAR
    found[hour_of_year(FIRST) : hour_of_year(FIRST) + len(values)] = values
    return GridSeries(tuple(found), "made up", "assumed", offset_s)


def two_hours(
    price: GridSeries, carbon: GridSeries, *, billed: bool = True, timezone: str = "UTC", cuts: Iterable[int] = ()
) -> Lists:
    """One machine of one accelerator for two hours: busy for a half of the first, by two streams, and idle after."""
    pool = replace(
        pool_billing(own_price("3.60"), accelerators=1, electricity_billed=billed),
        electricity=Electricity(1.25, price, carbon, "home"),
    )
    sink = Lists()
    ledger = make_ledger(sink, pool, timezone=timezone)
    rented = lease(0, 0, 2 * NS_PER_HOUR, "end", 1)
    inside = sorted({*ledger.cuts(), *cuts})
    edges_s = [0, *(t_ns // 10**9 for t_ns in inside if t_ns < 2 * NS_PER_HOUR), 7200]
    slices = []
    for start_s, end_s in pairwise(edges_s):
        busy_s = max(0, min(end_s, 1800) - start_s)
        share = busy_s / 1800
        slices.append(busy_slice(0, 0, "llama", start_s, end_s, busy_s=busy_s, energy_j=900_000.0 * share,
                                 shares_ns={0: 1200e9 * share, 1: 600e9 * share} if busy_s else {}))  # fmt: skip
    charge(ledger, rented, slices, tuple(cuts))
    return sink


def sums(sink: Lists, column: str, *keys: str) -> dict[Any, int]:
    """Sums of a column of the energy table."""
    found: dict[Any, int] = {}
    for row in sink.tables["energy"]:
        key = row[keys[0]] if len(keys) == 1 else tuple(row[name] for name in keys)
        found[key] = found.get(key, 0) + row[column]
    return found


def test_a_price_by_the_quarter_hour() -> None:
    quarters: list[int | None] = [None] * (4 * HOURS_OF_YEAR)
    first = place_in_year(FIRST, timedelta(minutes=15))
    quarters[first : first + 8] = [100_000_000, 200_000_000, 0, -100_000_000, *[120_000_000] * 4]
    sink = two_hours(GridSeries(tuple(quarters), "made up", "assumed"), by_hour(400 * 10**9, 400 * 10**9))
    # Busy quarters: steps 0.45 MJ and host 200 W x 900 s = 0.18 MJ: 0.175 kWh, at the meter 0.21875 each. Idle ones: 100 W x 900 s
    # = 0.09 MJ and the host: 0.075 kWh, at the meter 0.09375 each. The second hour is one price, 0.375 kWh as above.
    # 0.21875 x 0.10 + 0.21875 x 0.20 + 0.09375 x 0 - 0.09375 x 0.10 + 0.375 x 0.12 = 0.10125 USD.
    assert sums(sink, "electricity_nano_usd", "usd_per_kwh") == {
        "0.1": 21_875_000, "0.2": 43_750_000, "0": 0, "-0.1": -9_375_000, "0.12": 45_000_000,
    }  # fmt: skip
    [rented] = sink.tables["leases"]
    assert (rented["energy_kwh"], rented["electricity_nano_usd"], rented["kgco2"]) == (1.0, 101_250_000, 0.4)


def test_two_hours_of_different_price_and_intensity() -> None:
    sink = two_hours(by_hour(80_000_000, 120_000_000), by_hour(300 * 10**9, 500 * 10**9))
    # First hour: steps 0.9 MJ, idle 100 W x 1,800 s = 0.18 MJ, host 200 W x 3,600 s = 0.72 MJ: 1.8 MJ, 0.5 kWh, at the meter 0.625.
    # Second hour: idle 0.36 MJ and host 0.72 MJ: 1.08 MJ, 0.3 kWh, at the meter 0.375.
    hours = {"2026-01-31T22:00+00:00": 625_000_000, "2026-01-31T23:00+00:00": 375_000_000}
    assert sums(sink, "nano_kwh", "local_hour") == hours
    # 0.625 x 0.08 = 0.05 USD and 0.375 x 0.12 = 0.045 USD; 0.625 x 300 = 187.5 g and 0.375 x 500 = 187.5 g
    assert sums(sink, "electricity_nano_usd", "usd_per_kwh") == {"0.08": 50_000_000, "0.12": 45_000_000}
    assert sums(sink, "carbon_ug", "gco2_per_kwh") == {300.0: 187_500_000, 500.0: 187_500_000}
    # Busy in the first hour: 0.9 MJ and the host of 1,800 s, 0.36 MJ: 1.26 MJ, 0.4375 kWh; two thirds are the free stream's.
    # Idle: 0.18 + 0.36 = 0.54 MJ, 0.1875 kWh, paid in the same parts; in the second hour by the busy time so far.
    busy_free, busy_paid = 291_666_667, 145_833_333
    assert sums(sink, "nano_kwh", "use", "segment") == {
        ("busy", "free"): busy_free, ("busy", "paid"): busy_paid, ("idle", "free"): 375_000_000, ("idle", "paid"): 187_500_000,
    }  # fmt: skip
    [rented] = sink.tables["leases"]
    assert (rented["energy_kwh"], rented["electricity_nano_usd"], rented["kgco2"]) == (1.0, 95_000_000, 0.375)
    energy = [row for row in sink.tables["ledger"] if row["category"] == "energy"]
    assert [(row["unit_price"], row["amount_nano_usd"], row["tariff"]) for row in energy] == [
        ("0.08 per kWh", 50_000_000, "metered_energy_hourly"), ("0.12 per kWh", 45_000_000, "metered_energy_hourly"),
    ]  # fmt: skip
    assert {row["grid"] for row in sink.tables["energy"]} == {"home"}


def test_an_hour_with_a_price_below_nothing_pays_back() -> None:
    sink = two_hours(by_hour(80_000_000, -40_000_000), GridSeries.constant(0, "none", "assumed"))
    # 0.375 kWh x -0.04 USD = -0.015 USD, by 2 to 1 among the streams
    assert [row["amount_nano_usd"] for row in sink.tables["ledger"] if row["category"] == "energy"] == [50_000_000, -15_000_000]
    last = [row["row"] for row in sink.tables["ledger"]][-1]
    assert sink.parts(last) == {("idle", "llama", 0): -10_000_000, ("idle", "llama", 1): -5_000_000}
    assert sink.tables["leases"][0]["electricity_nano_usd"] == 35_000_000


def test_hours_of_the_grid_that_are_not_those_of_the_account_cut_its_hours() -> None:
    # In Kolkata (+05:30) the account's hours begin at half past; the price changes at 23:00 UTC, 04:30 there.
    sink = two_hours(by_hour(80_000_000, 120_000_000), by_hour(300 * 10**9, 300 * 10**9), timezone="Asia/Kolkata")
    energy = [row for row in sink.tables["ledger"] if row["category"] == "energy"]
    assert [(row["local_hour"], row["unit_price"], row["end_ns"] // NS_PER_MINUTE) for row in energy] == [
        ("2026-02-01T03:00+05:30", "0.08 per kWh", 30), ("2026-02-01T04:00+05:30", "0.08 per kWh", 60),
        ("2026-02-01T04:00+05:30", "0.12 per kWh", 90), ("2026-02-01T05:00+05:30", "0.12 per kWh", 120),
    ]  # fmt: skip
    assert sum(row["amount_nano_usd"] for row in energy) == 95_000_000


def test_what_is_not_billed_is_metered_all_the_same() -> None:
    billed, not_billed = (two_hours(by_hour(1, 2), by_hour(3, 4), billed=billed) for billed in (True, False))
    assert not_billed.tables["energy"] == billed.tables["energy"]
    assert {row["category"] for row in not_billed.tables["ledger"]} == {"compute"}


def test_a_constant_file_is_the_constant_setting(tmp_path: Path) -> None:
    """To the byte: every table, with the same source."""
    path = tmp_path / "flat.csv"
    path.write_text("time,usd_per_kwh,gco2_per_kwh\n2026-01-31T22:00Z,0.08,300\n2026-01-31T23:00Z,0.080,300.0\n", "utf-8")
    problems = Problems()
    read = [
        read_grid_series(HourlyFile(str(path), source="made up"), kind, "energy", problems, FIRST, 2 * NS_PER_HOUR)
        for kind in ("price", "carbon")
    ]
    assert not problems.found
    constant = GridSeries.constant(80_000_000, "made up", "assumed"), GridSeries.constant(300 * 10**9, "made up", "assumed")
    assert two_hours(*filter(None, read)).tables == two_hours(*constant).tables


@pytest.mark.parametrize("factor", [2, 10])
def test_carbon_is_linear_in_intensity_and_leaves_the_rest_alone(factor: int) -> None:
    price = by_hour(80_000_000, 120_000_000)
    one, more = (two_hours(price, by_hour(300 * f * 10**9, 500 * f * 10**9)) for f in (1, factor))
    assert more.tables["leases"][0]["kgco2"] == factor * one.tables["leases"][0]["kgco2"]
    assert more.tables["ledger"] == one.tables["ledger"]
    parts = zip(one.tables["energy"], more.tables["energy"], strict=True)
    assert all(abs(b["carbon_ug"] - factor * a["carbon_ug"]) <= factor and b["nano_kwh"] == a["nano_kwh"] for a, b in parts)


def test_finer_cuts_leave_the_sums_alone() -> None:
    price, carbon = by_hour(80_000_000, 120_000_000), by_hour(300 * 10**9, 500 * 10**9)
    coarse, fine = two_hours(price, carbon), two_hours(price, carbon, cuts=[n * 10 * NS_PER_MINUTE for n in range(1, 12)])
    for column in ("nano_kwh", "electricity_nano_usd", "carbon_ug"):
        # a part is cut into more parts, each rounded for itself
        for key, amount in sums(coarse, column, "use", "segment").items():
            assert sums(fine, column, "use", "segment")[key] == pytest.approx(amount, abs=12)
        assert sums(fine, column, "local_hour") == sums(coarse, column, "local_hour")
