"""Prices of one's own, and prices that cannot be: refused with their row, all of them at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from commitment_kit import bill, lines, rented

from sim.catalog.loader import load_catalog
from sim.errors import InputError, Problems
from sim.scenario import Pool, Scenario, Spot
from sim.scenario.check_purchases import check_purchases
from sim.scenario.commitments import (
    AzureReservation,
    CapacityReservation,
    CommittedUse,
    ComputeSavingsPlan,
    InstanceSavingsPlan,
    ReservedInstances,
)
from sim.scenario.owned import Block, Owned
from sim.scenario.plain import scenario_from_plain

THREE_LINES = """instances:
  p5.48xlarge: {on_demand: {us-east-1: "41.00"},
    source: our contract, date: 2026-11-01, confidence: published}
"""


def overlay(folder: Path, text: str) -> str:
    """A file with an overlay of the catalog."""
    path = folder / "prices.yaml"
    path.write_text(text, "utf-8")
    return str(path)


def test_three_lines_set_ones_own_price(tmp_path: Path) -> None:
    pools = {"gpu": Pool(instance="p5.48xlarge")}
    leases = [rented(0, "gpu", 0, 3600, instance="p5.48xlarge")]
    sink = bill(pools, {}, leases, hours=1, catalog=overlay(tmp_path, THREE_LINES))
    assert lines(sink, "unit_price", "source", "confidence") == {
        ("41.00 per hour", "our contract, 2026-11-01", "published"): 41_000_000_000
    }
    # Other regions and other types keep what the catalog says.
    assert load_catalog(overlay(tmp_path, THREE_LINES)).instances["p5.4xlarge"] == load_catalog().instances["p5.4xlarge"]


def test_prices_that_cannot_be_are_refused_with_their_rows_all_at_once(tmp_path: Path) -> None:
    row = "valid_from: 2026-01-01, source: a, date: 2026-01-01, confidence: published"
    about = "source: a, date: 2026-01-01, confidence: published"
    text = f"""instances:
  p5.4xlarge: {{on_demand: {{us-east-1: "6.88 EUR"}}, {about}}}
  p5.48xlarge: {{on_demand: {{us-east-1: [{{eur_per_hour: "50.00", {row}}}]}}, {about}}}
  g5.xlarge: {{on_demand: {{us-east-1: "-1.00"}}, {about}}}
  g6.xlarge: {{on_demand: {{us-east-1: "0"}}, {about}}}
  g6e.xlarge: {{on_demand: {{us-east-1: [{{{row}}}]}}, {about}}}
  g5.2xlarge: {{on_demand: {{us-east-1: "nan"}}, {about}}}
  g5.12xlarge: {{on_demand: {{us-east-1: [{{usd_per_hour: "5.00", currency: EUR, {row}}}]}}, {about}}}
"""
    with pytest.raises(InputError) as caught:
        load_catalog(overlay(tmp_path, text))
    found = {(problem.path, str(problem.value)) for problem in caught.value.problems}
    assert found == {
        ("instances.p5.4xlarge.on_demand.us-east-1.0.usd_per_hour", "6.88 EUR"),
        ("instances.p5.48xlarge.on_demand.us-east-1.0", "eur_per_hour"),
        ("instances.p5.48xlarge.on_demand.us-east-1.0.usd_per_hour", "None"),
        ("instances.g5.xlarge.on_demand.us-east-1.0.usd_per_hour", "-1.00"),
        ("instances.g6.xlarge.on_demand.us-east-1.0.usd_per_hour", "0"),
        ("instances.g6e.xlarge.on_demand.us-east-1.0.usd_per_hour", "None"),
        ("instances.g5.2xlarge.on_demand.us-east-1.0.usd_per_hour", "nan"),
        ("instances.g5.12xlarge.on_demand.us-east-1.0", "currency"),
    }


def paths(scenario: Scenario) -> list[str]:
    """Where the check of purchases finds something wrong."""
    problems = Problems()
    check_purchases(scenario, load_catalog(), problems)
    return [problem.path for problem in problems.found]


def test_amounts_of_a_scenario_in_another_currency_are_refused() -> None:
    problems = Problems()
    plain = {
        "pools": {"a": {"price_usd_per_hour": "5 EUR/h"}, "b": {"price_usd_per_hour": "5 USD/h"}},
        "commitments": {"plan": {"choice": "compute_savings_plan", "usd_per_hour": "3 EUR/h"}},
    }
    scenario_from_plain(plain, problems)
    assert [problem.path for problem in problems.found] == ["pools.a.price_usd_per_hour", "commitments.plan.usd_per_hour"]
    assert all("EUR" in problem.message for problem in problems.found)


def test_commitments_that_cannot_be_are_refused_all_at_once() -> None:
    commitments = {
        "negative": ReservedInstances(instance="p5.4xlarge", region="us-east-1", usd_per_hour="-1"),
        "zero": InstanceSavingsPlan(family="p5", region="us-east-1", usd_per_hour="0"),
        "missing": InstanceSavingsPlan(family="p9", region="us-east-1"),
        "unknown": ComputeSavingsPlan(usd_per_hour="1"),
        "twice": ReservedInstances(instance="p5.4xlarge", region="us-east-1", usd_per_hour="1", discount=0.1),
        "moon": CapacityReservation(instance="p5.4xlarge", region="moon", zone="sea"),
        "other": CommittedUse(instance="p5.4xlarge", region="us-east-1", usd_per_hour="1"),
        "term": ReservedInstances(instance="p5.4xlarge", region="us-east-1", term="2y", count=0),
        "times": ReservedInstances(instance="p5.4xlarge", region="us-east-1", begins="2026-02-01", ends="2026-01-01"),
        "fine": ReservedInstances(instance="p5.4xlarge", region="us-east-1"),
    }
    assert paths(Scenario(commitments=dict(commitments))) == [
        "commitments.negative.usd_per_hour",
        "commitments.zero.usd_per_hour",
        "commitments.missing.usd_per_hour",
        "commitments.missing.family",
        "commitments.missing.discount",
        "commitments.unknown.discount",
        "commitments.twice.discount",
        "commitments.moon.region",
        "commitments.other.instance",
        "commitments.term.count",
        "commitments.term.term",
        "commitments.times.ends",
    ]


def test_machines_of_ones_own_and_blocks_that_cannot_be_are_refused() -> None:
    pools = {
        "free": Pool(purchase="owned"),
        "both": Pool(purchase="owned", quota_nodes=1, owned=Owned("1", 0, 0, 36, 0, "200", 1.0), electricity_billed=True),
        "dear": Pool(purchase="owned", quota_nodes=1, owned=Owned("1"), price_usd_per_hour="1"),
        "lost": Pool(owned=Owned("1")),
        "block": Pool(purchase="capacity_block", block=Block("2025-01-01", 15, "0"), quota_nodes=65),
    }
    assert paths(Scenario(start="2026-01-05T00:00:00Z", pools=pools)) == [
        "pools.free.quota_nodes",
        "pools.free.owned.capex_usd",
        "pools.both.electricity_billed",
        "pools.dear.price_usd_per_hour",
        "pools.lost.owned",
        "pools.block.block.usd_per_hour",
        "pools.block.block.days",
        "pools.block.quota_nodes",
        "pools.block.block.begins",
    ]


def test_operating_systems_that_have_no_price_or_no_rule_are_refused() -> None:
    pools = {
        "odd": Pool(operating_system="plan9"),
        "free": Pool(operating_system="suse"),
        "own": Pool(purchase="owned", quota_nodes=1, owned=Owned("1"), operating_system="suse"),
        "google": Pool(
            instance="g2-standard-4", region="us-central1", zones=["us-central1-a"], price_usd_per_hour="1", operating_system="rhel"
        ),
        "fine": Pool(operating_system="suse", price_usd_per_hour="7", purchase="spot"),
    }
    assert paths(Scenario(start="2026-01-05T00:00:00Z", pools=pools)) == [
        "pools.odd.operating_system",
        "pools.free.price_usd_per_hour",
        "pools.own.operating_system",
        "pools.google.operating_system",
    ]


def test_maximum_prices_of_spot_machines() -> None:
    pools = {
        "negative": Pool(purchase="spot", spot=Spot(max_price_usd_per_hour="-1")),
        "google": Pool(
            purchase="spot", instance="g2-standard-4", region="us-central1", zones=["us-central1-a"], price_usd_per_hour="1",
            spot=Spot(max_price_usd_per_hour="2"),
        ),
        "low": Pool(purchase="spot", price_usd_per_hour="3", spot=Spot(max_price_usd_per_hour="2.50")),
        "fine": Pool(purchase="spot", spot=Spot(max_price_usd_per_hour="2.50")),
    }  # fmt: skip
    assert paths(Scenario(start="2026-01-05T00:00:00Z", pools=pools)) == [
        "pools.negative.spot.max_price_usd_per_hour",
        "pools.google.spot.max_price_usd_per_hour",
        "pools.low.spot.max_price_usd_per_hour",
    ]


def test_payments_and_sizes_that_cannot_be_are_refused_all_at_once() -> None:
    p5, m7i = {"instance": "p5.4xlarge", "region": "us-east-1"}, {"instance": "m7i.2xlarge", "region": "us-east-1"}
    azure = {"instance": "NC24ads_A100_v4", "region": "eastus"}
    commitments = {
        "word": ReservedInstances(**p5, payment="later", usd_per_hour="1"),  # type: ignore[arg-type]
        "hourly": ReservedInstances(**p5, payment="all_upfront", usd_per_hour="1"),  # type: ignore[arg-type]
        "half": ReservedInstances(**p5, payment="partial_upfront", upfront_usd="100"),  # type: ignore[arg-type]
        "none": ReservedInstances(**p5, upfront_usd="100"),  # type: ignore[arg-type]
        "money": ReservedInstances(**p5, payment="all_upfront", upfront_usd="-1"),  # type: ignore[arg-type]
        "unknown": ReservedInstances(**m7i, payment="partial_upfront"),  # type: ignore[arg-type]
        "zonal": ReservedInstances(**m7i, zone="us-east-1a", size_flexible=True),  # type: ignore[arg-type]
        "google": CommittedUse(instance="ct5lp-hightpu-4t", region="us-central1", payment="all_upfront"),
        "azure": AzureReservation(**azure, payment="partial_upfront", usd_per_hour="1"),  # type: ignore[arg-type]
        "ratios": AzureReservation(**azure, size_ratios={"NC40ads_H100_v5": 1.0}, usd_per_hour="1"),  # type: ignore[arg-type]
        "little": ComputeSavingsPlan(usd_per_hour="1", discount=0.1, payment="partial_upfront", upfront_share=0.4),
        "fine": ReservedInstances(**p5, payment="partial_upfront", upfront_usd="100", usd_per_hour="1"),  # type: ignore[arg-type]
    }
    assert paths(Scenario(commitments=dict(commitments))) == [
        "commitments.word.payment",
        "commitments.hourly.usd_per_hour",
        "commitments.hourly.upfront_usd",
        "commitments.half.usd_per_hour",
        "commitments.none.usd_per_hour",
        "commitments.none.upfront_usd",
        "commitments.money.upfront_usd",
        "commitments.unknown.discount",
        "commitments.zonal.size_flexible",
        "commitments.google.payment",
        "commitments.azure.payment",
        "commitments.ratios.size_ratios",
        "commitments.little.upfront_share",
    ]


def test_payments_and_ratios_of_a_catalog_that_cannot_be_are_refused(tmp_path: Path) -> None:
    rows = """commitment_discounts:
  mine:
    {cloud: aws, offers: [reserved], families: [p5], term: 1y, share: 0.3, payments: [later],
     source: a, date: 2026-01-01, confidence: assumed}
size_flexibilities:
  group: {cloud: azure, flexible: true, ratios: {NC24ads_A100_v4: 0}, source: a, date: 2026-01-01, confidence: assumed}
"""
    with pytest.raises(InputError) as refused:
        load_catalog(overlay(tmp_path, rows))
    found = [problem.path for problem in refused.value.problems]
    assert [path.rsplit(".", 2)[-1] for path in found] == ["payments", "NC24ads_A100_v4"]
