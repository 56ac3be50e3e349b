"""The capacity sheet of fleets with several accelerators, pools and purchase options, worked by hand."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from sim import load_scenario
from sim.app.sheet import CapacityReport, capacity_report
from sim.app.sheet_view import show_report
from sim.catalog.loader import load_catalog
from sim.scenario.check import check

SPOT_SHARE = load_catalog().spot_prices["p5.4xlarge"].ratio_median


def _report(*overrides: str, name: str = "quickstart") -> CapacityReport:
    return capacity_report(check(load_scenario(name, overrides)))


def _shown(report: CapacityReport) -> str:
    console = Console(file=io.StringIO(), width=80)
    show_report(report, console)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(len(line) <= 80 for line in text.splitlines())
    return text


def test_spot_is_priced_at_its_median_and_says_so():
    report = _report()
    on_demand, spot = report.pools
    assert on_demand.usd_per_hour == pytest.approx(6.88)
    assert spot.usd_per_hour == pytest.approx(6.88 * SPOT_SHARE)
    assert spot.basis == f"spot at its median, {SPOT_SHARE:g} of on demand"
    assert spot.losses.startswith("advisor-5-10: 7.5 % of machines lost a month")
    assert [kind.usd_per_hour for kind in report.kinds] == pytest.approx([6.88, 6.88 * SPOT_SHARE])


def test_ones_own_price_is_the_price():
    report = _report("price_usd_per_hour=2.10 USD/h", name="peer_w3")
    assert (report.pools[0].usd_per_hour, report.pools[0].basis) == (2.1, "own price")
    assert report.kinds[0].usd_per_hour == pytest.approx(2.1 / 4)


def test_a_replica_over_pipeline_stages_pays_for_all_of_its_accelerators():
    """Two stages of two of the eight accelerators of a machine: two replicas share it."""
    [kind] = _report("pipeline_parallel=2", name="peer_w3").kinds
    assert (kind.accelerators, kind.nodes) == (4, 0.5)
    assert kind.usd_per_hour == pytest.approx(27.44705 / 2)


def test_a_gang_pays_for_whole_machines():
    """Four stages of eight accelerators are 32, on four machines of eight."""
    report = _report("tensor_parallel=8", "pipeline_parallel=4", name="peer_w3")
    [kind] = report.kinds
    assert (kind.accelerators, kind.nodes) == (32, 4)
    assert kind.usd_per_hour == pytest.approx(27.44705 * 4)
    assert "a gang of 4 machines" in _shown(report)


def test_placement_puts_a_base_on_demand_and_the_rest_on_spot():
    [deployment] = _report().deployments
    assert deployment.placement == "base_plus_percentage"
    assert deployment.first == {"h100": 1, "h100_spot": 1}
    assert deployment.most == {"h100": 1, "h100_spot": 5}
    assert deployment.most_usd_per_hour == pytest.approx(6.88 * (1 + 5 * SPOT_SHARE))


def test_replicas_that_fit_no_quota_are_warned_about():
    """The quotas together would do, but one spot machine is not five, and nothing falls back."""
    report = _report("pools.h100.quota_nodes=6", "pools.h100_spot.quota_nodes=1")
    assert any("of the 6 replicas its autoscaler can want, base_plus_percentage places 2" in text for text in report.warnings)


def test_the_most_of_the_autoscaler_stands_against_the_peak():
    settings = ("autoscaler=hpa", "min_replicas=1", "max_replicas=2", "quota_nodes=8")
    hot = [f"pools.{pool}.quota_nodes=8" for pool in ("h100", "h100_spot")]
    report = _report(*settings[:3], *hot, "rate_per_s=40")
    [fleet] = report.fleets
    assert (fleet.least_replicas, fleet.most_replicas) == (1, 2)
    assert report.warnings[0].startswith("overload")
    assert _report(*settings[:2], "max_replicas=4", *hot, "rate_per_s=40").warnings == []


def test_a_warm_machine_only_loads_and_warms_up():
    report = _report("pools.h100.warm_nodes=1")
    kind = report.kinds[0]
    assert kind.warm_start_s[0] < kind.cold_start_s[0] / 2
    assert "on a warm" in _shown(report)


def test_every_pool_has_its_cold_start():
    report = _report("pools.h100_spot.cold_start.storage=nvme")
    slow, fast = (kind.stages_s["loading"][0] for kind in report.kinds)
    assert fast < slow
    assert "h100_spot" in _shown(report)
