"""Thirty days of random kills, drains, interruptions and closed zones: nothing lost silently, every second accounted for."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from control_kit import poisson, scenario, tables_of

from sim.policies.autoscalers.schedule import Schedule, ScheduleStep
from sim.policies.placement import SpotWithOnDemandFallback
from sim.scenario import Deployment, Failure, Pool, Scenario, Service, Spot
from sim.units import NS_PER_DAY

DAYS = 30


def stormy(seed: int) -> Scenario:
    """Two services on eight-GPU machines and spot machines, with random scale steps, crashes and times without capacity."""
    draw = random.Random(seed)
    minutes = draw.sample(range(10, DAYS * 24 * 60), 160)
    steps = [ScheduleStep(f"{at}m", draw.randint(0, 5)) for at in minutes[:100]]
    steps.sort(key=lambda step: int(step.at[:-1]))
    failures = [Failure(f"{at}m", draw.choice(["base", "spot"]), nodes=draw.randint(1, 2)) for at in minutes[100:140]]
    failures += [
        Failure(f"{at}m", draw.choice(["base", "spot"]), kind="no_capacity", lasts=f"{draw.randint(5, 600)}m")
        for at in minutes[140:]
    ]
    return scenario(
        horizon=f"{DAYS}d",
        window="1d",
        records="all",
        seed=seed,
        failures=failures,
        services={
            "chat": Service(workload=poisson(0.004), deployments=["llama"], queue_timeout_s=600.0, max_attempts=2),
            "code": Service(workload=poisson(0.002), deployments=["other"], max_queue=3),
        },
        deployments={
            "llama": Deployment(
                pools=["spot", "base"], placement=SpotWithOnDemandFallback(), autoscaler=Schedule(replicas=2, steps=steps),
                drain_grace_s=0.5,
            ),
            "other": Deployment(pools=["base"], autoscaler=Schedule(replicas=1, steps=[ScheduleStep("9d", 3)])),
        },
        pools={
            "base": Pool(instance="p5.48xlarge", quota_nodes=3, zones=["us-east-1a", "us-east-1b"]),
            "spot": Pool(
                purchase="spot", zones=["us-east-1a", "us-east-1b", "us-east-1c"], spot=Spot(market="aws-v100-tight"), warm_nodes=1
            ),
        },
    )  # fmt: skip


@pytest.mark.parametrize("seed", [1, 2])
def test_thirty_stormy_days_lose_nothing_silently(tmp_path: Path, seed: int) -> None:
    tables = tables_of(stormy(seed), tmp_path / "run")  # checks the conservation laws of requests, machine time and money
    windows, requests, leases = tables["windows"], tables["requests"], tables["leases"]
    # Every arrival has a record with an outcome.
    assert sum(windows["arrived"]) == len(requests["request"]) > 10_000
    for outcome in ("completed", "failed", "abandoned"):
        assert sum(windows[outcome]) == requests["outcome"].count(outcome)
    # The storm was one: kills, interruptions, closed zones, drains and retries all happened.
    causes = set(tables["replicas"]["cause"])
    assert {"scaled_down", "crashed", "interrupted"} <= causes
    assert {"insufficient_capacity", "spot_notice", "capacity_gone", "capacity_back"} <= set(tables["events"]["kind"])
    # Every second of every lease is accounted for: by a replica's booting, ready or draining time, or as time no replica held.
    usage = tables["usage"]
    held: dict[int, int] = {}
    for lease, accelerators, booting, ready, draining, start, end in zip(
        usage["lease"], usage["accelerators"], usage["booting_ns"], usage["ready_ns"], usage["draining_ns"], usage["start_ns"],
        usage["end_ns"], strict=True,
    ):  # fmt: skip
        assert booting + ready + draining == end - start
        held[lease] = held.get(lease, 0) + accelerators * (end - start)
    for lease, accelerators, start, end in zip(
        leases["lease"], leases["accelerators"], leases["start_ns"], leases["end_ns"], strict=True
    ):
        assert 0 <= held.get(lease, 0) <= accelerators * (end - start) <= 8 * DAYS * NS_PER_DAY
    assert (
        sum(leases["amount_nano_usd"]) == sum(tables["ledger"]["amount_nano_usd"]) == sum(tables["attribution"]["amount_nano_usd"])
    )
