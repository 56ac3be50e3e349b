"""Spot prices: the moves are those of the row, bounds hold, and paths are keyed."""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.billing.rates import Rate, rate_at
from sim.billing.spot_prices import SpotPlace, daily_log_ratios, price_path
from sim.billing.tariffs import MachineTariff, pool_tariffs
from sim.catalog.loader import load_catalog
from sim.domain.spot import SpotPrice
from sim.errors import InputError
from sim.scenario import Pool, Scenario
from sim.scenario.model import Spot
from sim.scenario.resolve import resolve
from sim.units import NS_PER_DAY, NS_PER_HOUR, nano_usd

ROWS = load_catalog().spot_prices
FITTED = [name for name, row in ROWS.items() if row.provenance.confidence == "fitted"]
LISTED = (Rate(0, 32_770_000_000, "32.77", "price list", "published"),)
ERRORS = 4.0
DAYS = 20_000


def place(zone: str = "us-east-1a", region: str = "us-east-1", instance: str = "p4d.24xlarge", seed: int = 1) -> SpotPlace:
    """Where a path is."""
    return SpotPlace(instance, region, zone, seed)


def far_from_bounds(row: SpotPrice) -> SpotPrice:
    """The row with bounds that a path never meets."""
    return replace(row, ratio_floor=1e-300, ratio_low=1e-150, ratio_median=1e-150, ratio_high=1e-150)


def autocorrelation(row: SpotPrice, lag: int) -> float:
    """Of daily returns: only the drift persists."""
    return row.drift_share * row.drift_ar1**lag


@pytest.mark.parametrize("name", FITTED)
def test_daily_returns_have_the_variance_and_the_memory_of_the_row(name: str) -> None:
    row = far_from_bounds(ROWS[name])
    returns = np.diff(daily_log_ratios(row, place(), DAYS))
    # Bartlett: variance of sample moments of a Gaussian process with these autocorrelations
    memory = 1 + 2 * sum(autocorrelation(row, lag) ** 2 for lag in range(1, 200))
    assert abs(np.mean(returns**2) / row.daily_sd**2 - 1) < ERRORS * math.sqrt(2 * memory / DAYS)
    lagged = float(np.mean(returns[1:] * returns[:-1])) / row.daily_sd**2
    assert abs(lagged - autocorrelation(row, 1)) < ERRORS * math.sqrt(2 * memory / DAYS)
    # variance of a month's move over 30 times that of a day's
    moves = returns[: DAYS // 30 * 30].reshape(-1, 30).sum(axis=1)
    ratio = 1 + 2 * sum((1 - lag / 30) * autocorrelation(row, lag) for lag in range(1, 30))
    found = float(np.mean(moves**2)) / (30 * row.daily_sd**2)
    assert abs(found / ratio - 1) < ERRORS * math.sqrt(2 * 1.5 / len(moves))


@pytest.mark.parametrize("name", ["g5.xlarge", "p5.48xlarge"])
def test_zones_share_a_part_of_their_moves(name: str) -> None:
    row = far_from_bounds(ROWS[name])
    one, same, other = (
        np.diff(daily_log_ratios(row, where, DAYS)) for where in (place(), place("us-east-1b"), place("us-west-2a", "us-west-2"))
    )
    memory = 1 + 2 * sum(autocorrelation(row, lag) ** 2 for lag in range(1, 200))
    for found, expected in ((same, row.region_correlation), (other, row.world_correlation)):
        assert abs(np.mean(one * found) / row.daily_sd**2 - expected) < ERRORS * math.sqrt((1 + expected**2) * memory / DAYS)


def test_zones_start_at_the_levels_of_the_row() -> None:
    row = ROWS["g5.12xlarge"]
    starts = np.exp([daily_log_ratios(row, place(f"zone {number}"), 0)[0] for number in range(2_000)])
    for bound, share in ((row.ratio_low, 0.05), (row.ratio_median, 0.5), (row.ratio_high, 0.95)):
        assert abs((starts < bound).mean() - share) < ERRORS * math.sqrt(share * (1 - share) / 2_000)


def test_prices_change_as_often_as_the_row_says() -> None:
    row, days = ROWS["p4d.24xlarge"], 3_000
    path = price_path(replace(row, ratio_low=0.4, ratio_median=0.4, ratio_high=0.4), place(), days * NS_PER_DAY, LISTED)
    gap_h = days * 24 / (len(path) - 1)
    # 24 / 13.2 = 1.82 a day: 2 with probability 0.82, else 1; a step below half a tick of 0.0001 USD is no change
    p = 24 / row.change_gap_h - 1
    error = math.sqrt(p * (1 - p) / days) / (1 + p)
    assert abs(gap_h / row.change_gap_h - 1) < ERRORS * error + 0.005


def test_a_day_ends_at_the_daily_level() -> None:
    row = ROWS["p4d.24xlarge"]
    path = price_path(row, place(), 30 * NS_PER_DAY, LISTED)
    levels = daily_log_ratios(row, place(), 30)
    for day in range(1, 30):
        price = float(rate_at(path, day * NS_PER_DAY).usd_per_hour)
        assert price == pytest.approx(math.exp(levels[day]) * 32.77, abs=0.6e-4)


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(sorted(ROWS)),
    seed=st.integers(0, 10**6),
    days=st.integers(1, 400),
    usd=st.sampled_from(["0.526", "21.957642", "98.32"]),
    cut_day=st.integers(0, 300),
)
def test_prices_stay_between_the_bounds_and_have_four_decimals(name: str, seed: int, days: int, usd: str, cut_day: int) -> None:
    row, cheaper = ROWS[name], str(Decimal(usd) / 2)
    listed = (
        Rate(-5, nano_usd(usd), usd, "price list", "published"),
        Rate(cut_day * NS_PER_DAY + 1, nano_usd(cheaper), cheaper, "price list", "published"),
    )
    path = price_path(row, place(seed=seed), days * NS_PER_DAY, listed)
    times = [rate.from_ns for rate in path]
    assert times[0] == 0
    assert times == sorted(set(times))
    assert times[-1] < days * NS_PER_DAY
    for rate in path:
        on_demand = Decimal(rate_at(listed, rate.from_ns).usd_per_hour)
        price = Decimal(rate.usd_per_hour)
        assert price * 10_000 == int(price * 10_000)
        assert on_demand * Decimal(str(row.ratio_floor)) - Decimal("0.0001") <= price <= on_demand
        assert rate.nano_usd_per_hour == nano_usd(rate.usd_per_hour)
    if 0 < cut_day < days:
        after = rate_at(path, cut_day * NS_PER_DAY + 1)
        assert Decimal(after.usd_per_hour) <= Decimal(cheaper)


def test_a_price_at_the_ceiling_is_rounded_down() -> None:
    # eu-central-1 lists p4d.24xlarge at 27.43298: to four decimals below it, 27.4329
    flat = replace(ROWS["a3-highgpu-8g"], ratio_floor=0.5, ratio_low=1.0, ratio_median=1.0, ratio_high=1.0)
    listed = (Rate(0, nano_usd("27.43298"), "27.43298", "price list", "published"),)
    assert [rate.usd_per_hour for rate in price_path(flat, place(), 90 * NS_PER_DAY, listed)] == ["27.4329"]


def test_bounds_are_met_and_left_again() -> None:
    # half-way between the bounds at the start, so that neither is favoured
    row = replace(ROWS["p4d.24xlarge"], ratio_low=0.20, ratio_median=0.316, ratio_high=0.50)
    levels = np.concatenate([daily_log_ratios(row, place(seed=seed), 3_000) for seed in range(5)])
    assert levels.min() >= math.log(0.10) - 1e-12
    assert levels.max() <= 1e-12
    near_floor, near_ceiling = (levels < math.log(0.105)).mean(), (levels > math.log(0.95)).mean()
    # a reflected walk ends up uniform between its bounds: bands of this width hold about 2 % each
    assert 0.005 < near_floor < 0.08
    assert 0.005 < near_ceiling < 0.08


def test_paths_are_keyed_and_a_shorter_run_has_the_same_prices() -> None:
    row = ROWS["p4d.24xlarge"]
    long, short = (price_path(row, place(), days * NS_PER_DAY, LISTED) for days in (90, 7))
    assert long[: len(short)] == short
    assert price_path(row, place(), 7 * NS_PER_DAY, LISTED) == short
    others = [
        place("us-east-1b"),
        place(region="us-east-2"),
        place(seed=2),
        place(instance="p4de.24xlarge"),
        replace(place(), replication=1),
    ]
    assert all(price_path(row, other, 7 * NS_PER_DAY, LISTED) != short for other in others)


def test_a_spot_pool_has_a_path_in_every_zone() -> None:
    pool = Pool(instance="p5.4xlarge", purchase="spot", zones=["us-east-1a", "us-east-1b"])
    tariffs = pool_tariffs("gpu", resolve(Scenario(horizon="30d", pools={"gpu": pool})))
    one, other = (tariffs[zone] for zone in pool.zones)
    assert isinstance(one, MachineTariff)
    assert (one.name, one.certain_ns(NS_PER_HOUR - 1), one.certain_ns(NS_PER_HOUR)) == ("ec2_spot", 0, NS_PER_HOUR)
    assert one.changes_ns() != other.changes_ns()
    assert len(one.changes_ns()) == pytest.approx(30 * 24 / 7.86, rel=0.25)
    assert all(one.rate(at).nano_usd_per_hour <= 6_880_000_000 for at in (0, *one.changes_ns()))
    assert one.rate(0).confidence == "published"
    assert "moves of p5.48xlarge" in one.rate(0).source


def test_a_price_of_ones_own_does_not_move() -> None:
    pool = Pool(purchase="spot", price_usd_per_hour="2.10", zones=["a", "b"])
    for tariff in pool_tariffs("gpu", resolve(Scenario(horizon="30d", pools={"gpu": pool}))).values():
        assert tariff.changes_ns() == []
        assert (tariff.rate(0).usd_per_hour, tariff.name) == ("2.10", "ec2_spot")


@pytest.mark.parametrize(
    ("pool", "path"),
    [
        (Pool(purchase="spot", spot=Spot(price="p6.nothing")), "pools.gpu.spot.price"),
        (Pool(instance="gpu_1x_h100_pcie", purchase="spot", region="all"), "pools.gpu.purchase"),
    ],
)
def test_a_spot_pool_without_prices_is_refused(pool: Pool, path: str) -> None:
    with pytest.raises(InputError) as caught:
        pool_tariffs("gpu", resolve(Scenario(pools={"gpu": pool})))
    assert [problem.path for problem in caught.value.problems] == [path]
