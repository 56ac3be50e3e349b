"""The control plane: cold starts, packing, drains, crashes, quotas, and the law that looking changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import simpy
from control_kit import FIXED, poisson, scenario, schedule, tables_of

from sim.control.nodes import stage_ns
from sim.control.world import World
from sim.policies.autoscalers.schedule import Schedule, ScheduleStep
from sim.policies.autoscalers.static import Static
from sim.rng import StreamKey
from sim.scenario import Deployment, Failure, Pool, Service
from sim.units import NS_PER_HOUR, NS_PER_S


def charges(tables: dict[str, dict[str, Any]]) -> list[tuple[Any, ...]]:
    """The ledger's rows without their numbers, in order."""
    columns = [values for name, values in tables["ledger"].items() if name != "row"]
    return sorted(zip(*columns, strict=True))


def test_a_cold_start_goes_through_every_stage_and_is_billed_from_running(tmp_path: Path) -> None:
    tables = tables_of(scenario(deployments=schedule(1, ("10m", 2))), tmp_path / "run")
    nodes, replicas, leases = tables["nodes"], tables["replicas"], tables["leases"]
    asked = 600 * NS_PER_S
    assert [nodes[name][1] - asked for name in ("requested_ns", "running_ns", "booted_ns", "pulled_ns")] == [
        0, 10 * NS_PER_S, 30 * NS_PER_S, 60 * NS_PER_S
    ]  # fmt: skip
    assert replicas["loaded_ns"][1] - asked == 100 * NS_PER_S
    assert replicas["ready_ns"][1] - asked == 150 * NS_PER_S
    assert leases["start_ns"] == [0, asked + 10 * NS_PER_S]
    # p5.4xlarge costs 6.88 USD an hour: one hour, and from 610 s to the end.
    assert leases["amount_nano_usd"] == [6_880_000_000, round(6_880_000_000 * (3_600 - 610) / 3_600)]
    booting = [b for b, n in zip(tables["usage"]["booting_ns"], tables["usage"]["replica"], strict=True) if n == 1]
    assert sum(booting) == 140 * NS_PER_S


def test_a_scale_down_drains_and_ends_the_lease_when_the_last_request_is_done(tmp_path: Path) -> None:
    tables = tables_of(scenario(deployments=schedule(2, ("30m", 1))), tmp_path / "run")
    replicas, leases = tables["replicas"], tables["leases"]
    assert replicas["drain_ns"] == [-1, 1_800 * NS_PER_S]
    assert replicas["cause"] == ["end", "scaled_down"]
    assert 0 <= replicas["gone_ns"][1] - 1_800 * NS_PER_S < 10 * NS_PER_S
    assert leases["end_ns"][1] == replicas["gone_ns"][1]
    assert tables["decisions"] == {
        "time_ns": [1_800 * NS_PER_S], "deployment": ["llama"], "policy": ["schedule"], "before": [2], "after": [1],
        "reason": ["schedule: from 30m"],
    }  # fmt: skip


def test_a_replica_that_still_boots_is_given_up_first(tmp_path: Path) -> None:
    tables = tables_of(scenario(deployments=schedule(1, ("10m", 2), ("11m", 1))), tmp_path / "run")
    assert tables["replicas"]["ready_ns"] == [0, -1]
    assert tables["replicas"]["gone_ns"][1] == 660 * NS_PER_S
    # RUNNING at 610 s, given back at 660 s: 50 s, billed as the minimum of 60 s.
    assert tables["leases"]["billed_ns"][1] == 60 * NS_PER_S
    assert tables["leases"]["amount_nano_usd"][1] == round(6_880_000_000 * 60 / 3_600)


def test_a_node_given_up_before_it_runs_costs_nothing(tmp_path: Path) -> None:
    tables = tables_of(scenario(deployments=schedule(1, ("10m", 2), ("605s", 1))), tmp_path / "run")
    assert tables["nodes"]["lease"] == [0, -1]
    assert tables["nodes"]["running_ns"][1] == -1
    assert len(tables["leases"]["lease"]) == 1


def test_a_crash_kills_its_requests_and_the_node_is_replaced(tmp_path: Path) -> None:
    made = scenario(
        services={"chat": Service(workload=poisson(20.0), deployments=["llama"])},
        failures=[Failure("20m", "gpu")],
        records="all",
    )
    tables = tables_of(made, tmp_path / "run")
    assert tables["replicas"]["cause"] == ["crashed", "end"]
    assert tables["leases"]["cause"] == ["crashed", "end"]
    assert tables["replicas"]["requested_ns"][1] == 1_200 * NS_PER_S
    assert tables["replicas"]["ready_ns"][1] == 1_350 * NS_PER_S
    assert tables["replicas"]["lost_s"][0] > 0
    assert sum(tables["windows"]["retried"]) > 0
    assert sum(tables["windows"]["failed"]) == 0
    retried = [attempts for attempts in tables["requests"]["attempts"] if attempts == 2]
    assert len(retried) == sum(tables["windows"]["retried"])


def test_eight_replicas_share_a_machine_and_it_goes_with_the_last(tmp_path: Path) -> None:
    made = scenario(pools={"gpu": Pool(instance="p5.48xlarge", cold_start=FIXED)}, deployments=schedule(9, ("30m", 8)))
    tables = tables_of(made, tmp_path / "run")
    assert tables["replicas"]["node"] == [0] * 8 + [1]
    assert tables["nodes"]["cause"] == ["end", "scaled_down"]


def test_replicas_of_one_machine_die_together(tmp_path: Path) -> None:
    made = scenario(
        horizon="6m",
        services={"chat": Service(workload=poisson(50.0), deployments=["llama"], max_attempts=2)},
        pools={"gpu": Pool(instance="p5.48xlarge", cold_start=FIXED)},
        deployments={"llama": Deployment(pools=["gpu"], autoscaler=Static(replicas=8))},
        failures=[Failure("5m", "gpu")],
    )
    tables = tables_of(made, tmp_path / "run")
    # A request is never handed to a sibling that dies in the same crash: every one has a second attempt left.
    assert sum(tables["windows"]["failed"]) == 0
    assert sum(tables["windows"]["retried"]) > 0


def test_a_quota_holds_and_the_wish_waits_for_a_free_place(tmp_path: Path) -> None:
    made = scenario(
        services={
            "chat": Service(workload=poisson(), deployments=["llama"]),
            "code": Service(workload=poisson(), deployments=["other"]),
        },
        deployments={
            **schedule(2, ("30m", 1)),
            "other": Deployment(pools=["gpu"], autoscaler=Schedule(replicas=0, steps=[ScheduleStep("5m", 1)])),
        },
        pools={"gpu": Pool(cold_start=FIXED, quota_nodes=2)},
    )
    tables = tables_of(made, tmp_path / "run")
    assert "no_capacity" in tables["events"]["kind"]
    other = tables["replicas"]["deployment"].index("other")
    assert tables["replicas"]["requested_ns"][other] == tables["replicas"]["gone_ns"][1]


def test_looking_at_any_period_changes_no_table(tmp_path: Path) -> None:
    # To the byte on the reference; the compiled engine adds floats in other groups when it is looked at (1e-9 is its law).
    made = scenario(
        engine="reference",
        services={
            "chat": Service(workload=poisson(5.0), deployments=["llama"]),
            "code": Service(workload=poisson(3.0), deployments=["other"]),
        },
        deployments={**schedule(3, ("20m", 1), ("40m", 2)), "other": Deployment(pools=["gpu"], autoscaler=Schedule(
            replicas=2, steps=[ScheduleStep("20m", 1)]))},
        failures=[Failure("25m", "gpu")],
        records="all",
    )  # fmt: skip

    def looks(period_ns: int) -> Any:
        def probe(env: simpy.Environment, world: World) -> Any:
            while True:
                yield env.timeout(period_ns)
                for plane in world.planes:
                    plane.engine.view(int(env.now))

        return probe

    alone = tables_of(made, tmp_path / "alone")
    for period_ns in (7_777_777_777, 999_999_937):
        assert tables_of(made, tmp_path / str(period_ns), [looks(period_ns)]) == alone


def test_finer_windows_change_no_money_and_no_counts(tmp_path: Path) -> None:
    made = scenario(deployments=schedule(2, ("30m", 1)), services={"chat": Service(workload=poisson(5.0), deployments=["llama"])})
    coarse = tables_of(made, tmp_path / "coarse")
    made.window = "7m"
    fine = tables_of(made, tmp_path / "fine")
    # Energy is a sum of floats, whose last bit is the order of its parts: a cut is one more part.
    energy_j = [tables["replicas"].pop("energy_j") for tables in (fine, coarse)]
    assert energy_j[0] == pytest.approx(energy_j[1], rel=1e-12)
    for name in ("leases", "replicas", "nodes", "events", "histograms"):
        assert fine[name] == coarse[name]
    assert charges(fine) == charges(coarse)  # rows are numbered in order of booking, and a finer cut books an ended lease sooner
    for name in ("arrived", "completed", "output_tokens", "good_all"):
        assert sum(fine["windows"][name]) == sum(coarse["windows"][name])
    assert (
        sum(fine["windows"]["cost_nano_usd"]) == sum(coarse["windows"]["cost_nano_usd"]) == sum(coarse["ledger"]["amount_nano_usd"])
    )


def test_drains_of_two_planes_at_once_end_at_their_own_times(tmp_path: Path) -> None:
    both = scenario(
        services={
            "chat": Service(workload=poisson(20.0), deployments=["llama"]),
            "code": Service(workload=poisson(10.0), deployments=["other"]),
        },
        deployments={
            **schedule(2, ("30m", 1)),
            "other": Deployment(pools=["gpu"], autoscaler=Schedule(replicas=2, steps=[ScheduleStep("30m", 1)])),
        },
    )
    together = tables_of(both, tmp_path / "both")
    for service, deployment in (("chat", "llama"), ("code", "other")):
        alone = scenario(services={service: both.services[service]}, deployments={deployment: both.deployments[deployment]})
        ends = tables_of(alone, tmp_path / service)["replicas"]["gone_ns"]
        mine = [
            gone for gone, name in zip(together["replicas"]["gone_ns"], together["replicas"]["deployment"], strict=True)
            if name == deployment
        ]  # fmt: skip
        assert mine == ends


def test_stage_times_have_the_stated_median_and_95th_percentile() -> None:
    draws = sorted(stage_ns(StreamKey(1, 0, "stage", f"node {number}"), 40.0, 100.0) for number in range(4_000))
    # The standard error of an empirical quantile of 4,000 log-normal draws here is 1.1 s at the median and 3.3 s at p95: 4 sigma.
    assert draws[2_000] / NS_PER_S == pytest.approx(40.0, abs=4.4)
    assert draws[3_800] / NS_PER_S == pytest.approx(100.0, abs=13.2)


def test_a_cold_fleet_serves_only_after_its_boot(tmp_path: Path) -> None:
    deployments = {"llama": Deployment(pools=["gpu"], autoscaler=Static(replicas=1), start="cold")}
    tables = tables_of(scenario(deployments=deployments, records="all"), tmp_path / "run")
    assert min(tables["requests"]["first_token_ns"]) > 150 * NS_PER_S
    assert tables["replicas"]["ready_ns"] == [150 * NS_PER_S]


def test_windows_are_cut_at_the_end_of_the_warm_up(tmp_path: Path) -> None:
    tables = tables_of(scenario(warmup="10m"), tmp_path / "run")
    assert tables["windows"]["end_ns"] == [600 * NS_PER_S, NS_PER_HOUR]
    assert tables["windows"]["measured"] == [False, True]
