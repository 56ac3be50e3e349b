"""Speed of the data planes on the chat benchmarks, without a control plane, beside the time it takes to draw the requests."""

from __future__ import annotations

import importlib.metadata
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

from sim import load_scenario
from sim.control.world import World, build_world
from sim.scenario.resolve import resolve

LOOKS = 2_000
# Simulated seconds for a fleet of this scenario and engine, relative to the horizon asked for: each repetition takes about as long.
SHARE_OF_HORIZON = {"bench_chat8": 1.0, "bench_chat64": 0.25, "bench_chat512": 0.05}
REFERENCE_SHARE = 0.05


@dataclass(frozen=True)
class Timed:
    """One repetition, in seconds of wall time."""

    generate_s: float
    advance_s: float
    look_s: float
    idle_advance_s: float
    steps: int
    completed: int

    @property
    def requests_per_s(self) -> float:
        """Completed requests per second of engine time."""
        return self.completed / self.advance_s


def fleet(scenario: str, engine: str, horizon_s: float) -> World:
    """Return the world of a scenario with the replicas that it starts with."""
    world = build_world(resolve(load_scenario(scenario, [f"horizon={horizon_s:.3f}s", f"engine={engine}"])))
    (plane,) = world.planes
    for deployment, config in world.resolved.scenario.deployments.items():
        for _ in range(config.autoscaler.initial_replicas()):
            plane.engine.add_replica(0, plane.specs[deployment, config.pools[0]])
    return world


def measure(scenario: str, horizon_s: float, engine: str) -> Timed:
    """Run the fleet of a scenario once and time its parts."""
    world = fleet(scenario, engine, horizon_s)
    plane, end_ns = world.planes[0].engine, world.resolved.scenario.horizon_ns
    drawn_s, began = world.generate_s, time.perf_counter()
    while plane.advance(end_ns) is not None:
        pass
    advance_s = time.perf_counter() - began - (world.generate_s - drawn_s)
    began = time.perf_counter()
    for _ in range(LOOKS):
        view = plane.view(end_ns)
    look_s = (time.perf_counter() - began) / LOOKS
    began = time.perf_counter()
    for _ in range(LOOKS):
        plane.advance(end_ns)
    idle_advance_s = (time.perf_counter() - began) / LOOKS
    completed = int(view.count("completed").sum())
    return Timed(world.generate_s, advance_s, look_s, idle_advance_s, int(view.steps.sum()), completed)


def _summary(runs: list[Timed], scenario: str, horizon_s: float) -> dict[str, object]:
    speeds = [run.requests_per_s for run in runs]
    return {
        "scenario": scenario,
        "simulated_s": horizon_s,
        "repetitions": len(runs),
        "steps": runs[0].steps,
        "completed": runs[0].completed,
        "requests_per_s": {"median": statistics.median(speeds), "min": min(speeds), "max": max(speeds)},
        "steps_per_s": statistics.median(run.steps / run.advance_s for run in runs),
        "ns_per_request": statistics.median(1e9 / speed for speed in speeds),
        "advance_over_generate": statistics.median(run.advance_s / run.generate_s for run in runs),
        "look_us": statistics.median(run.look_s * 1e6 for run in runs),
        "advance_with_nothing_to_do_us": statistics.median(run.idle_advance_s * 1e6 for run in runs),
    }


def engine_speed(horizon_s: float, repetitions: int) -> dict[str, object]:
    """Return medians of the compiled engine on three sizes of fleet, and of the reference on the smallest, in alternation.

    Parameters
    ----------
    horizon_s : simulated time of `bench_chat8` on the compiled engine; larger fleets and the reference get a share of it.
    """
    measure("bench_chat8", 1.0, "compiled")  # loads the kernel
    runs: dict[str, list[Timed]] = {scenario: [] for scenario in SHARE_OF_HORIZON}
    reference: list[Timed] = []
    for _ in range(repetitions):
        for scenario, share in SHARE_OF_HORIZON.items():
            runs[scenario].append(measure(scenario, horizon_s * share, "compiled"))
        reference.append(measure("bench_chat8", horizon_s * REFERENCE_SHARE, "reference"))
    ratios = [fast.requests_per_s / slow.requests_per_s for fast, slow in zip(runs["bench_chat8"], reference, strict=True)]
    return {
        "compiled": [_summary(runs[scenario], scenario, horizon_s * share) for scenario, share in SHARE_OF_HORIZON.items()],
        "reference": _summary(reference, "bench_chat8", horizon_s * REFERENCE_SHARE),
        "compiled_over_reference": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
    }


def start_up() -> dict[str, float | str]:
    """Return how long importing the compiled engine takes in a new process, without and with a cache of its code."""
    code = "import sim.dataplane.compiled"
    with tempfile.TemporaryDirectory() as folder:
        times = []
        for _ in range(2):
            began = time.perf_counter()
            environment = {**os.environ, "XDG_CACHE_HOME": folder}
            subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)
            times.append(time.perf_counter() - began)
    return {"compile_s": times[0], "cached_s": times[1], "numba": importlib.metadata.version("numba")}
