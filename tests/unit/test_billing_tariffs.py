"""Prices: dates, regions, one's own."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from billing_kit import own_price, price_list

from sim.billing.energy import Electricity, MachinePower
from sim.billing.rates import Rate
from sim.billing.tariffs import MachineTariff, pool_tariffs
from sim.domain.hardware import InstanceType, Price, Provenance
from sim.errors import InputError
from sim.scenario import Pool, Scenario
from sim.scenario.resolve import resolve
from sim.units import NS_PER_DAY

START = datetime(2026, 5, 31, tzinfo=UTC)
LIST = Provenance("price list", "2026-07-20", "published")
P5 = InstanceType("p5.4xlarge", "aws", "h100-sxm", 1, 16, 256.0, 700.0, {"us-east-1": (Price("6.88", "2026-01-01", LIST),)}, LIST)


def rate_at_start(pool: Pool) -> Rate:
    """Price of a pool "gpu" of the machines above at the start of a run."""
    resolved = resolve(Scenario(start=START.isoformat(), pools={"gpu": Pool()}))
    row = replace(resolved.pools["gpu"], config=pool, instance=P5)
    tariffs = pool_tariffs("gpu", replace(resolved, pools={"gpu": row}))
    assert list(tariffs) == pool.zones
    return tariffs[pool.zones[0]].rate(0)


def test_the_price_in_force_is_the_latest_that_began() -> None:
    tariff = price_list(START, ("2025-01-01", "98.32"), ("2026-06-01", "55.04"))
    assert tariff.changes_ns() == [NS_PER_DAY]
    assert [tariff.rate(t_ns).usd_per_hour for t_ns in (0, NS_PER_DAY - 1, NS_PER_DAY)] == ["98.32", "98.32", "55.04"]


def test_before_the_first_date_the_oldest_price_holds() -> None:
    tariff = price_list(START, ("2026-06-02", "55.04"), ("2026-06-03", "50.00"))
    assert tariff.rate(0).usd_per_hour == "55.04"
    assert tariff.changes_ns() == [3 * NS_PER_DAY]


def test_a_pool_takes_the_price_of_its_region() -> None:
    rate = rate_at_start(Pool())
    assert (rate.nano_usd_per_hour, rate.source, rate.confidence) == (6_880_000_000, "price list, 2026-07-20", "published")


def test_its_own_price_is_an_assumption() -> None:
    rate = rate_at_start(Pool(price_usd_per_hour="2.5", region="moon"))
    assert (rate.nano_usd_per_hour, rate.source, rate.confidence) == (2_500_000_000, "scenario", "assumed")


@pytest.mark.parametrize(
    ("pool", "path"), [(Pool(region="moon"), "pools.gpu.region"), (Pool(purchase="gift"), "pools.gpu.purchase")]
)
def test_a_pool_without_a_price_or_a_rule_is_refused(pool: Pool, path: str) -> None:
    with pytest.raises(InputError) as caught:
        rate_at_start(pool)
    assert [problem.path for problem in caught.value.problems] == [path]


def test_price_lists_must_be_in_order() -> None:
    with pytest.raises(ValueError, match="at least one price"):
        MachineTariff(())
    with pytest.raises(ValueError, match="order of their dates"):
        MachineTariff(own_price("1").rates * 2)


@pytest.mark.parametrize("change", [{"pue": 0.9}, {"gco2_per_kwh": -1.0}, {"pue": float("nan")}])
def test_impossible_electricity_is_refused(change: dict[str, object]) -> None:
    columns: dict[str, object] = {
        "pue": 1.2,
        "usd_per_kwh": "0.08",
        "gco2_per_kwh": 322.0,
        "source": "grid",
        "confidence": "assumed",
    }
    with pytest.raises(ValueError, match="PUE"):
        Electricity.steady(**{**columns, **change})  # type: ignore[arg-type]


def test_a_machine_needs_an_accelerator() -> None:
    with pytest.raises(ValueError, match="accelerator"):
        MachinePower(0, 100.0, 100.0)
