"""Speed of the reference data plane on `bench_chat8`: engine steps per second, beside the time it takes to draw the requests."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

from sim import load_scenario
from sim.control.world import World, build_world
from sim.scenario.resolve import resolve

LOOKS = 2_000


@dataclass(frozen=True)
class Timed:
    """One repetition, in seconds of wall time."""

    generate_s: float
    advance_s: float
    look_s: float
    idle_advance_s: float
    steps: int
    completed: int


def _world(horizon: str) -> World:
    world = build_world(resolve(load_scenario("bench_chat8", [f"horizon={horizon}"])))
    (plane,) = world.planes
    scenario = world.resolved.scenario
    for deployment, config in scenario.deployments.items():
        for _ in range(config.autoscaler.initial_replicas()):
            plane.engine.add_replica(0, plane.specs[deployment, config.pools[0]])
    return world


def measure(horizon: str) -> Timed:
    """Run the fleet of `bench_chat8` once, without a control plane, and time its parts."""
    world = _world(horizon)
    engine, end_ns = world.planes[0].engine, world.resolved.scenario.horizon_ns
    began = time.perf_counter()
    while engine.advance(end_ns) is not None:
        pass
    advance_s = time.perf_counter() - began - world.generate_s
    began = time.perf_counter()
    for _ in range(LOOKS):
        view = engine.view(end_ns)
    look_s = (time.perf_counter() - began) / LOOKS
    began = time.perf_counter()
    for _ in range(LOOKS):
        engine.advance(end_ns)
    idle_advance_s = (time.perf_counter() - began) / LOOKS
    completed = int(view.count("completed").sum())
    return Timed(world.generate_s, advance_s, look_s, idle_advance_s, int(view.steps.sum()), completed)


def reference_speed(horizon: str, repetitions: int) -> dict[str, object]:
    """Return medians over repetitions of the same run, with the ratio of engine time to drawing time in each."""
    runs = [measure(horizon) for _ in range(repetitions)]
    steps_per_s = [run.steps / run.advance_s for run in runs]
    return {
        "scenario": f"bench_chat8, {horizon}",
        "repetitions": repetitions,
        "steps": runs[0].steps,
        "completed": runs[0].completed,
        "steps_per_s": {"median": statistics.median(steps_per_s), "min": min(steps_per_s), "max": max(steps_per_s)},
        "requests_per_s": statistics.median(run.completed / (run.advance_s + run.generate_s) for run in runs),
        "advance_over_generate": statistics.median(run.advance_s / run.generate_s for run in runs),
        "look_us": statistics.median(run.look_s * 1e6 for run in runs),
        "advance_with_nothing_to_do_us": statistics.median(run.idle_advance_s * 1e6 for run in runs),
    }
