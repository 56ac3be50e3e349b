"""Spot machines: notices, losses, stand-ins on demand, and what they cost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from control_kit import FIXED, poisson, scenario, tables_of

from sim.billing.rates import Rate
from sim.billing.tariffs import MachineTariff
from sim.control.price_limits import Closing, closings
from sim.control.zones import ZoneMarket
from sim.policies.autoscalers.static import Static
from sim.policies.placement import BasePlusPercentage, Placement, SpotWithOnDemandFallback
from sim.scenario import Deployment, Pool, Scenario, Service, Spot
from sim.units import NS_PER_MINUTE, NS_PER_S


def spot_scenario(placement: Placement, **changes: Any) -> Scenario:
    """One on-demand machine's worth of chat, most of it on spot."""
    parts: dict[str, Any] = {
        "services": {"chat": Service(workload=poisson(10.0), deployments=["llama"])},
        "deployments": {"llama": Deployment(pools=["spot", "base"], placement=placement, autoscaler=Static(replicas=3))},
        "pools": {
            "spot": Pool(purchase="spot", cold_start=FIXED, zones=["us-east-1a", "us-east-1b"], spot=Spot(market="advisor-0-5")),
            "base": Pool(cold_start=FIXED),
        },
    }
    return scenario(**{**parts, **changes})


@pytest.fixture
def zones_close(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every spot zone loses its capacity after 20 minutes, with all machines, and has it back after 40."""

    def changes(self: ZoneMarket) -> Iterator[tuple[int, bool]]:
        yield 1_200 * NS_PER_S, False
        yield 2_400 * NS_PER_S, True

    monkeypatch.setattr(ZoneMarket, "changes", changes)
    monkeypatch.setattr(ZoneMarket, "losses", lambda self, time_ns, nodes: sorted(nodes))
    monkeypatch.setattr(ZoneMarket, "life_ns", lambda self, node: None)


@pytest.mark.usefixtures("zones_close")
def test_a_loss_gives_notice_for_two_minutes_and_then_takes_the_machine(tmp_path: Path) -> None:
    tables = tables_of(spot_scenario(BasePlusPercentage(base=1)), tmp_path / "run")
    nodes, replicas = tables["nodes"], tables["replicas"]
    lost = [index for index, cause in enumerate(nodes["cause"]) if cause == "interrupted"]
    assert [nodes["pool"][index] for index in lost] == ["spot", "spot"]
    assert {nodes["gone_ns"][index] for index in lost} == {(1_200 + 120) * NS_PER_S}
    assert {replicas["drain_ns"][index] for index in lost} == {1_200 * NS_PER_S}
    # Interrupted by the provider in the first hour: free, but the lease and its rows are there.
    amounts = dict(zip(tables["leases"]["lease"], tables["leases"]["amount_nano_usd"], strict=True))
    assert [amounts[nodes["lease"][index]] for index in lost] == [0, 0]


@pytest.mark.usefixtures("zones_close")
def test_running_requests_finish_within_the_notice(tmp_path: Path) -> None:
    made = spot_scenario(BasePlusPercentage(base=1), records="all")
    tables = tables_of(made, tmp_path / "run")
    # A request of 20 tokens takes less than a second: nothing is cut off, though 120 s later the machine is taken.
    assert sum(tables["windows"]["retried"]) == 0
    assert sum(tables["windows"]["failed"]) == 0
    assert sum(tables["windows"]["completed"]) > 30_000


@pytest.mark.usefixtures("zones_close")
def test_without_notice_requests_are_cut_off_and_retried(tmp_path: Path) -> None:
    made = spot_scenario(BasePlusPercentage(base=1))
    made.services["chat"].workload = poisson(30.0)
    made.pools["spot"].spot.notice_s = 0.0
    tables = tables_of(made, tmp_path / "run")
    assert sum(tables["windows"]["retried"]) > 0
    assert [at for at in tables["nodes"]["gone_ns"] if at == 1_200 * NS_PER_S] == [1_200 * NS_PER_S] * 2


@pytest.mark.usefixtures("zones_close")
def test_idle_machines_are_lost_without_notice(tmp_path: Path) -> None:
    made = spot_scenario(BasePlusPercentage(base=1), services={"chat": Service(workload=poisson(0.001), deployments=["llama"])})
    made.pools["spot"].spot.notice_s = 0.0
    replicas = tables_of(made, tmp_path / "run")["replicas"]
    assert [at for at, why in zip(replicas["gone_ns"], replicas["cause"], strict=True) if why == "interrupted"] == [
        1_200 * NS_PER_S
    ] * 2


@pytest.mark.usefixtures("zones_close")
def test_on_demand_stands_in_while_spot_is_gone_and_leaves_when_it_is_back(tmp_path: Path) -> None:
    tables = tables_of(spot_scenario(SpotWithOnDemandFallback()), tmp_path / "run")
    nodes = tables["nodes"]
    stand_ins = [index for index, pool in enumerate(nodes["pool"]) if pool == "base" and nodes["requested_ns"][index] > 0]
    assert {nodes["requested_ns"][index] for index in stand_ins} == {1_200 * NS_PER_S}
    assert len(stand_ins) == 3
    assert {nodes["cause"][index] for index in stand_ins} == {"scaled_down"}
    # Capacity is back at 40 min. Spot is asked for again within 180 s of that, and is ready 150 s later.
    assert all(2_400 <= nodes["gone_ns"][index] / NS_PER_S <= 2_400 + 180 + 150 + 60 for index in stand_ins)
    spot_now = [cause for pool, cause in zip(nodes["pool"], nodes["cause"], strict=True) if pool == "spot"]
    assert spot_now.count("end") == 3


@pytest.mark.usefixtures("zones_close")
def test_a_mixed_group_waits_for_spot_and_buys_nothing_instead(tmp_path: Path) -> None:
    tables = tables_of(spot_scenario(BasePlusPercentage(base=1)), tmp_path / "run")
    assert tables["nodes"]["pool"].count("base") == 1
    assert "no_capacity" in tables["events"]["kind"]


def test_a_lone_machine_is_interrupted_at_its_own_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ZoneMarket, "life_ns", lambda self, node: 900 * NS_PER_S if node == 1 else None)
    tables = tables_of(spot_scenario(BasePlusPercentage(base=1)), tmp_path / "run")
    noticed = [at for at, kind in zip(tables["events"]["time_ns"], tables["events"]["kind"], strict=True) if kind == "spot_notice"]
    assert noticed == [780 * NS_PER_S]
    assert tables["nodes"]["gone_ns"][1] == 900 * NS_PER_S
    assert tables["nodes"]["cause"][1] == "interrupted"


def test_spot_is_never_dearer_than_on_demand(tmp_path: Path) -> None:
    spot = tables_of(spot_scenario(BasePlusPercentage(base=0)), tmp_path / "spot")
    base = tables_of(spot_scenario(BasePlusPercentage(base=3)), tmp_path / "base")
    assert 0 < sum(spot["leases"]["amount_nano_usd"]) < sum(base["leases"]["amount_nano_usd"])


MINUTE = NS_PER_MINUTE


def path_of(*prices: tuple[int, str]) -> tuple[Rate, ...]:
    """A price path of (minute, USD an hour)."""
    return tuple(Rate(minute * MINUTE, round(float(usd) * 10**9), usd, "a path", "fitted") for minute, usd in prices)


def test_a_price_above_the_maximum_takes_machines_back_at_the_crossing(tmp_path: Path, monkeypatch: Any) -> None:
    # The price is 2.00, 3.00 from minute 20 on, 1.00 from minute 40 on. At most 2.50: notice at minute 18, lost at minute 20, in
    # the first hour and so free; none to be had until minute 40.
    monkeypatch.setattr("sim.billing.tariffs.price_path", lambda *_: path_of((0, "2.0"), (20, "3.0"), (40, "1.0")))
    monkeypatch.setattr(ZoneMarket, "changes", lambda self: iter(()))
    monkeypatch.setattr(ZoneMarket, "life_ns", lambda self, node: None)
    made = spot_scenario(SpotWithOnDemandFallback())
    made.pools["spot"].spot.max_price_usd_per_hour = "2.50"
    tables = tables_of(made, tmp_path / "run")
    nodes, events = tables["nodes"], tables["events"]
    ended = {
        (nodes["cause"][index], nodes["gone_ns"][index] // MINUTE)
        for index, pool in enumerate(nodes["pool"])
        if pool == "spot" and nodes["requested_ns"][index] < 20 * MINUTE
    }
    assert ended == {("interrupted", 20)}
    later = [at for at, pool in zip(nodes["running_ns"], nodes["pool"], strict=True) if pool == "spot" and at >= 20 * MINUTE]
    assert later
    assert min(later) >= 40 * MINUTE
    kinds = list(zip(events["kind"], events["time_ns"], strict=True))
    # one for each of the two zones
    assert [at // MINUTE for kind, at in kinds if kind == "price_above_maximum"] == [18, 18]
    assert [at // MINUTE for kind, at in kinds if kind == "price_below_maximum"] == [40, 40]
    # No second is charged above the maximum, and the first machines cost nothing.
    rows = tables["ledger"]
    assert {price for price, option in zip(rows["unit_price"], rows["purchase"], strict=True) if option == "spot"} == {
        "0 per hour (interrupted early)",
        "1.0 per hour",
    }


def test_times_above_a_maximum_price() -> None:
    def found(most: str, *prices: tuple[int, str]) -> list[Closing]:
        return closings(MachineTariff(path_of(*prices)), round(float(most) * 10**9), 2 * MINUTE)

    assert found("2", (0, "2"), (10, "1")) == []
    # From the start on; and without an end.
    assert found("1", (0, "2"), (10, "1"), (30, "3")) == [
        Closing(0, 0, 10 * MINUTE), Closing(28 * MINUTE, 30 * MINUTE, None),
    ]  # fmt: skip
    # Below it for a minute, less than a notice: nobody could have had a machine for longer than that.
    assert found("1", (0, "1"), (10, "2"), (20, "1"), (21, "2"), (30, "1")) == [Closing(8 * MINUTE, 10 * MINUTE, 30 * MINUTE)]
