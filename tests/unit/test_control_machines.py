"""Machines and placement: gangs, warm pools, shared links, grace periods, times without capacity, pools in order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import simpy
from control_kit import FIXED, poisson, scenario, schedule, tables_of

from sim.control.links import SharedLink
from sim.policies.autoscalers.schedule import Schedule, ScheduleStep
from sim.policies.autoscalers.static import Static
from sim.policies.placement import BasePlusPercentage, InOrder, OnDemandOnly, PoolView, SpotWithOnDemandFallback
from sim.policies.routers import RoundRobin
from sim.scenario import ColdStart, Deployment, Failure, Pool, Service, StageTime
from sim.units import NS_PER_S

GB = 1e9


def large_model(replicas: int = 1, **changes: Any) -> dict[str, Deployment]:
    """Llama-3.1-70B in two stages of eight accelerators: two machines a replica."""
    settings: dict[str, Any] = {
        "model": "llama-3.1-70b", "tensor_parallel": 8, "pipeline_parallel": 2, "pools": ["gpu"],
        "autoscaler": Static(replicas=replicas),
    }  # fmt: skip
    return {"llama": Deployment(**{**settings, **changes})}


def test_a_replica_of_two_stages_lives_on_two_machines_and_both_are_paid(tmp_path: Path) -> None:
    made = scenario(deployments=large_model(), pools={"gpu": Pool(instance="p5.48xlarge", cold_start=FIXED)})
    tables = tables_of(made, tmp_path / "run")
    assert tables["replicas"]["gang"] == ["0,1"]
    assert tables["replicas"]["accelerators"] == [16]
    assert tables["leases"]["amount_nano_usd"] == [55_040_000_000] * 2
    # The replica's time counts once, its energy is divided, and each machine's hour is split by the same shares.
    assert sum(tables["windows"]["busy_s"]) == pytest.approx(tables["replicas"]["busy_s"][0], rel=1e-9)
    assert sum(tables["usage"]["energy_j"]) == pytest.approx(tables["replicas"]["energy_j"][0], rel=1e-9)


def test_a_gang_dies_with_any_of_its_machines_and_gives_the_others_back(tmp_path: Path) -> None:
    made = scenario(
        deployments=large_model(), pools={"gpu": Pool(instance="p5.48xlarge", cold_start=FIXED)}, failures=[Failure("20m", "gpu")]
    )
    tables = tables_of(made, tmp_path / "run")
    assert tables["replicas"]["cause"] == ["crashed", "end"]
    assert tables["nodes"]["cause"] == ["crashed", "scaled_down", "end", "end"]
    assert tables["replicas"]["requested_ns"][1] == 1_200 * NS_PER_S


def test_a_warm_machine_saves_the_wait_for_a_machine_and_its_image(tmp_path: Path) -> None:
    made = scenario(deployments=schedule(1, ("10m", 2)), pools={"gpu": Pool(cold_start=FIXED, warm_nodes=1)})
    tables = tables_of(made, tmp_path / "run")
    # Loading and warming are left: 90 s instead of 150 s.
    assert tables["replicas"]["ready_ns"][1] == (600 + 90) * NS_PER_S
    assert tables["replicas"]["node"] == [0, 1]
    # A new one is asked for at once, and the warm ones are paid for from the start.
    assert tables["nodes"]["requested_ns"] == [0, 0, 600 * NS_PER_S]
    assert sum(tables["leases"]["amount_nano_usd"]) == sum(tables["ledger"]["amount_nano_usd"])
    parts = tables["attribution"]
    unheld = [amount for amount, name in zip(parts["amount_nano_usd"], parts["deployment"], strict=True) if name == ""]
    # Machine 1 stands by for 600 s, machine 2 from RUNNING (610 s) to the end: 2,990 s.
    assert sum(unheld) == pytest.approx(6_880_000_000 * (600 + 2_990) / 3_600, abs=10)


def test_a_machine_that_is_emptied_stays_when_the_pool_lacks_a_warm_one(tmp_path: Path) -> None:
    pool = Pool(cold_start=FIXED, warm_nodes=1, quota_nodes=2)
    tables = tables_of(scenario(deployments=schedule(2, ("30m", 1)), pools={"gpu": pool}), tmp_path / "run")
    assert tables["replicas"]["cause"] == ["end", "scaled_down"]
    assert tables["nodes"]["cause"] == ["end", "end"]


def test_two_machines_that_pull_at_once_share_the_registry(tmp_path: Path) -> None:
    # 12 GB in 30 s are 0.4 GB/s each; the registry gives 0.4 GB/s to both together, so each pull takes 60 s.
    stages = ColdStart(**{**vars(FIXED), "registry_gb_per_s": 0.4})
    tables = tables_of(scenario(deployments=schedule(1, ("10m", 3)), pools={"gpu": Pool(cold_start=stages)}), tmp_path / "run")
    nodes = tables["nodes"]
    pulls = [(pulled - booted) / NS_PER_S for pulled, booted in zip(nodes["pulled_ns"], nodes["booted_ns"], strict=True)]
    assert pulls == pytest.approx([0, 60, 60], abs=1e-6)


def test_a_shared_link_is_fair_and_work_conserving() -> None:
    env = simpy.Environment(initial_time=0)
    link = SharedLink(env, 10 * GB)
    ends: dict[str, float] = {}

    def send(name: str, at_s: float, gigabytes: float, alone_s: float) -> Any:
        yield env.timeout(round(at_s * NS_PER_S))
        yield link.transfer(gigabytes * GB, round(alone_s * NS_PER_S))
        ends[name] = env.now / NS_PER_S

    # a alone could do 8 GB/s, b 8 GB/s, c 2 GB/s. From 0 s a has 8; from 1 s a and b have 5 each; from 2 s a 4, b 4, c 2.
    for job in (("a", 0, 17, 17 / 8), ("b", 1, 13, 13 / 8), ("c", 2, 10, 5)):
        env.process(send(*job))
    env.run()
    # a: 8 + 5 + 4 = 17 GB at 3 s. Then b may have 8 of 10 beside c: 13 - 5 - 4 = 4 GB more, at 3.5 s. c never got less than its 2.
    assert ends == pytest.approx({"a": 3.0, "b": 3.5, "c": 7.0}, abs=1e-8)


def test_a_draining_replica_is_killed_when_its_grace_is_over(tmp_path: Path) -> None:
    deployment = Deployment(pools=["gpu"], drain_grace_s=0.05, autoscaler=Schedule(replicas=2, steps=[ScheduleStep("30m", 1)]))
    made = scenario(
        deployments={"llama": deployment}, services={"chat": Service(workload=poisson(20.0), deployments=["llama"])}, records="all"
    )
    tables = tables_of(made, tmp_path / "run")
    assert tables["replicas"]["cause"] == ["end", "grace_over"]
    assert tables["replicas"]["gone_ns"][1] == 1_800 * NS_PER_S + 50_000_000
    assert sum(tables["windows"]["retried"]) > 0


def test_an_idle_replica_needs_no_grace(tmp_path: Path) -> None:
    # It drains at the very instant at which its grace is over: it is gone as any other that is drained.
    deployment = Deployment(pools=["gpu"], drain_grace_s=0.0, autoscaler=Schedule(replicas=2, steps=[ScheduleStep("30m", 1)]))
    service = Service(workload=poisson(0.001), deployments=["llama"])
    tables = tables_of(scenario(deployments={"llama": deployment}, services={"chat": service}), tmp_path / "run")
    assert tables["replicas"]["cause"] == ["end", "scaled_down"]
    assert tables["nodes"]["gone_ns"] == [3_600 * NS_PER_S, 1_800 * NS_PER_S]


def test_a_replica_that_drains_when_time_is_cut_keeps_its_totals(tmp_path: Path) -> None:
    # Ordered to go at the end of a window, after a look at the end of the one before, and idle then.
    service = Service(workload=poisson(0.05), deployments=["llama"], router=RoundRobin())
    made = scenario(deployments=schedule(2, ("30m", 1)), services={"chat": service}, window="10min")
    replicas = tables_of(made, tmp_path / "run")["replicas"]
    assert replicas["gone_ns"] == [3_600 * NS_PER_S, 1_800 * NS_PER_S]
    # Half of the ninety requests of 20 tokens that come in half an hour.
    assert 500 < replicas["output_tokens"][1] < 1_400
    assert replicas["steps"][1] > 0
    assert replicas["busy_s"][1] > 0
    assert replicas["energy_j"][1] > 0


def test_a_zone_stays_closed_until_its_last_outage_is_over(tmp_path: Path) -> None:
    # Out of capacity from 9 m to 20 m and from 15 m to 30 m; asked at 10 m and every 180 s, so had at 31 m.
    outages = [Failure(at, "gpu", kind="no_capacity", lasts=lasts) for at, lasts in (("9m", "11m"), ("15m", "15m"))]
    made = scenario(deployments=schedule(1, ("10m", 2)), pools={"gpu": Pool(cold_start=FIXED)}, failures=outages)
    tables = tables_of(made, tmp_path / "run")
    assert tables["replicas"]["requested_ns"][1] == (600 + 7 * 180) * NS_PER_S
    events = zip(tables["events"]["time_ns"], tables["events"]["kind"], strict=True)
    assert [at for at, kind in events if kind == "capacity_back"] == [1_800 * NS_PER_S]


def test_without_capacity_the_wish_is_repeated_until_there_is_some(tmp_path: Path) -> None:
    # Asked at 10 m, nothing until 20 m: tried every 180 s, so had at 10 m + 4 x 180 s = 22 m.
    made = scenario(
        deployments=schedule(1, ("10m", 2)), pools={"gpu": Pool(cold_start=FIXED)},
        failures=[Failure("9m", "gpu", kind="no_capacity", lasts="11m")],
    )  # fmt: skip
    tables = tables_of(made, tmp_path / "run")
    asked = [
        at
        for at, kind in zip(tables["events"]["time_ns"], tables["events"]["kind"], strict=True)
        if kind == "insufficient_capacity"
    ]
    assert asked == [(600 + 180 * tries) * NS_PER_S for tries in range(4)]
    assert tables["replicas"]["requested_ns"][1] == (600 + 4 * 180) * NS_PER_S


def test_a_zone_without_capacity_leaves_the_others(tmp_path: Path) -> None:
    made = scenario(
        deployments=schedule(1, ("10m", 3)), pools={"gpu": Pool(cold_start=FIXED, zones=["a", "b"])},
        failures=[Failure("9m", "gpu", kind="no_capacity", zone="a", lasts="1h")],
    )  # fmt: skip
    tables = tables_of(made, tmp_path / "run")
    assert tables["nodes"]["zone"] == ["a", "b", "b"]


def test_the_next_pool_takes_what_the_first_cannot(tmp_path: Path) -> None:
    made = scenario(
        deployments={"llama": Deployment(pools=["small", "large"], autoscaler=Static(replicas=3))},
        pools={"small": Pool(cold_start=FIXED, quota_nodes=1), "large": Pool(cold_start=FIXED, instance="p5.48xlarge")},
    )
    tables = tables_of(made, tmp_path / "run")
    assert tables["nodes"]["pool"] == ["small", "large"]
    assert tables["replicas"]["node"] == [0, 1, 1]


SPOT, BASE = PoolView("spot", "spot", 0, 0), PoolView("base", "on_demand", 0, 0)


@pytest.mark.parametrize(
    ("placement", "wanted", "pools", "split"),
    [
        (InOrder(), 4, [PoolView("a", "on_demand", 1, 0, room=1), BASE], [2, 2]),
        (InOrder(), 4, [PoolView("a", "on_demand", 1, 0, room=0)], [4]),
        (OnDemandOnly(), 4, [SPOT, BASE], [0, 4]),
        (BasePlusPercentage(base=2, on_demand_percentage=0), 1, [BASE, SPOT], [1, 0]),
        (BasePlusPercentage(base=2, on_demand_percentage=0), 7, [BASE, SPOT], [2, 5]),
        (BasePlusPercentage(base=0, on_demand_percentage=50), 5, [BASE, SPOT], [3, 2]),
        (BasePlusPercentage(base=1, on_demand_percentage=100), 5, [BASE, SPOT], [5, 0]),
        (SpotWithOnDemandFallback(), 3, [SPOT, BASE], [3, 3]),
        (SpotWithOnDemandFallback(), 3, [PoolView("spot", "spot", ready=2, booting=1), BASE], [3, 1]),
        (SpotWithOnDemandFallback(), 3, [PoolView("spot", "spot", ready=3, booting=0), BASE], [3, 0]),
        (SpotWithOnDemandFallback(base=1), 3, [PoolView("spot", "spot", ready=2, booting=0), BASE], [2, 1]),
        (SpotWithOnDemandFallback(overprovision=1), 3, [PoolView("spot", "spot", ready=4, booting=0), BASE], [4, 0]),
        (SpotWithOnDemandFallback(base=2), 0, [SPOT, BASE], [0, 0]),
    ],
)
def test_placements_split_what_is_wanted(placement: Any, wanted: int, pools: list[PoolView], split: list[int]) -> None:
    assert placement.split(wanted, pools) == split


def test_zero_times_are_zero(tmp_path: Path) -> None:
    nothing = StageTime(0.0, 0.0)
    at_once = ColdStart(pending=nothing, booting=nothing, pulling=nothing, loading=nothing, warming=nothing)
    tables = tables_of(scenario(deployments=schedule(1, ("10m", 2)), pools={"gpu": Pool(cold_start=at_once)}), tmp_path / "run")
    assert tables["replicas"]["ready_ns"] == [0, 600 * NS_PER_S]
