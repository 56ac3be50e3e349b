"""Small scenarios for tests of the control plane: a cold start of exactly 150 s, of which 140 s are paid for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sim.control.loop import run
from sim.control.world import build_world
from sim.policies.autoscalers.schedule import Schedule, ScheduleStep
from sim.policies.autoscalers.static import Static
from sim.results.invariants import check_run
from sim.results.records import RunWriter
from sim.scenario import ColdStart, Deployment, Pool, Scenario, Service, Slo, StageTime
from sim.scenario.resolve import resolve
from sim.schema import TABLES
from sim.workload.specs import TokenLengths
from sim.workload.synthetic import Poisson

FIXED = ColdStart(
    pending=StageTime(10.0, 10.0),
    booting=StageTime(20.0, 20.0),
    pulling=StageTime(30.0, 30.0),
    loading=StageTime(40.0, 40.0),
    warming=StageTime(50.0, 50.0),
)


def poisson(rate_per_s: float = 1.0) -> Poisson:
    """Poisson arrivals of short requests."""
    lengths = TokenLengths(family="fixed", mean=100)
    return Poisson(rate_per_s=rate_per_s, prompt=lengths, output=TokenLengths(family="fixed", mean=20))


def scenario(**changes: Any) -> Scenario:
    """One chat service on single-GPU machines whose cold start takes exactly 150 s, 140 s of it paid for."""
    parts: dict[str, Any] = {
        "horizon": "1h",
        "services": {"chat": Service(workload=poisson(), deployments=["llama"], slo=Slo(ttft_s=1.0))},
        "deployments": {"llama": Deployment(pools=["gpu"], autoscaler=Static(replicas=1))},
        "pools": {"gpu": Pool(cold_start=FIXED)},
    }
    return Scenario(**{**parts, **changes})


def tables_of(made: Scenario, folder: Path, probes: Any = ()) -> dict[str, dict[str, Any]]:
    """Run a scenario and return its tables, as lists."""
    with RunWriter(folder) as writer:
        run(build_world(resolve(made)), writer.spool, probes=probes)
        merged = writer.merge()
        check_run(merged)
        return {name: {column: values.tolist() for column, values in merged.table(name).items()} for name in TABLES}


def schedule(start: int, *steps: tuple[str, int]) -> dict[str, Deployment]:
    """A deployment with dated numbers of replicas."""
    autoscaler = Schedule(replicas=start, steps=[ScheduleStep(at, replicas) for at, replicas in steps])
    return {"llama": Deployment(pools=["gpu"], autoscaler=autoscaler)}
