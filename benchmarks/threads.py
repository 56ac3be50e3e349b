"""Two data planes in two threads: the kernel gives up Python's lock, so that planes can share the cores of a machine."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable, Sequence

from benchmarks.engine_speed import fleet
from sim.dataplane.compiled import CompiledPlane
from sim.domain.traffic import RequestBlock
from sim.rng import StreamKey
from sim.workload.stream import merge

PLANES = 2


def _drawn(scenario: str, horizon_s: float) -> list[RequestBlock]:
    """Return the requests of a fleet, drawn beforehand: drawing needs Python's lock."""
    resolved = fleet(scenario, "compiled", horizon_s).resolved.scenario
    (name, service), *_ = resolved.services.items()
    key = StreamKey(resolved.seed, resolved.replication, "workload", name)
    source = service.workload.open(key, resolved.start_instant, resolved.horizon_ns)
    return list(merge([(0, source)], [key]))


def _job(scenario: str, horizon_s: float, blocks: Sequence[RequestBlock]) -> Callable[[], None]:
    """Return a function that runs a fleet of its own through the requests."""
    world = fleet(scenario, "compiled", horizon_s)
    made, end_ns = world.planes[0], world.resolved.scenario.horizon_ns
    plane = CompiledPlane(made.engine_config, blocks)
    for deployment, config in world.resolved.scenario.deployments.items():
        for _ in range(config.autoscaler.initial_replicas()):
            plane.add_replica(0, made.specs[deployment, config.pools[0]])

    def work() -> None:
        while plane.advance(end_ns) is not None:
            pass

    return work


def _timed(work: Callable[[], None], times: list[tuple[float, float]]) -> None:
    """Note the wall and the processor time of this thread, in seconds."""
    wall_s, cpu_s = time.perf_counter(), time.thread_time()
    work()
    times.append((time.perf_counter() - wall_s, time.thread_time() - cpu_s))


def thread_speed(horizon_s: float, repetitions: int) -> dict[str, object]:
    """Return how much faster two fleets are simulated by two threads than one after the other by one.

    On a machine with other work the wall time of two threads depends on that; their processor time, over that of a thread alone,
    does not, and is 1 where they do not hinder each other.

    Parameters
    ----------
    horizon_s : simulated time of `bench_chat8` for each plane and repetition.
    """
    scenario = "bench_chat8"
    blocks = _drawn(scenario, horizon_s)
    faster, cpu = [], []
    for _ in range(repetitions):
        alone: list[tuple[float, float]] = []
        for _ in range(PLANES):
            _timed(_job(scenario, horizon_s, blocks), alone)
        beside: list[tuple[float, float]] = []
        jobs = [_job(scenario, horizon_s, blocks) for _ in range(PLANES)]
        threads = [threading.Thread(target=_timed, args=(job, beside)) for job in jobs]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wall_s = time.perf_counter() - began
        faster.append(sum(wall for wall, _ in alone) / wall_s)
        cpu.append(sum(used for _, used in beside) / sum(used for _, used in alone))
    return {
        "scenario": scenario,
        "planes": PLANES,
        "cores": os.cpu_count(),
        "requests": sum(map(len, blocks)),
        "faster": {"median": statistics.median(faster), "min": min(faster), "max": max(faster)},
        "cpu_over_alone": statistics.median(cpu),
    }
