"""What the control plane costs: a look with its scrape and its view, in a loop and inside a run, and an hour of a lease."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import simpy

from sim import load_scenario
from sim.control.controllers import Controller
from sim.control.loop import run
from sim.control.provisioner import Provisioner
from sim.control.world import build_world
from sim.results.records import RunWriter
from sim.scenario.check import check
from sim.scenario.resolve import resolve
from sim.units import NS_PER_S

FLEETS = (8, 64, 512)
CALLS = 400
SYNC_S = 15


class _Nowhere:
    """A sink that keeps nothing."""

    def append(self, table: str, row: Mapping[str, object]) -> None:
        """Forget a row."""


def _us_per_call(act: Callable[[], object], repetitions: int) -> float:
    """Return the median over repetitions of the mean processor time of a call."""
    means = []
    for _ in range(repetitions):
        began = time.process_time()
        for _ in range(CALLS):
            act()
        means.append((time.process_time() - began) / CALLS * 1e6)
    return statistics.median(means)


class _Looks:
    """A busy fleet and its controller, an HPA on requests per replica averaged over a minute; time stands still at a look."""

    def __init__(self, replicas: int) -> None:
        bounds = [f"autoscaler.min_replicas={replicas}", f"autoscaler.max_replicas={2 * replicas}"]
        scenario = check(load_scenario(f"bench_chat{replicas}", ["engine=compiled", "autoscaler=hpa_outstanding", *bounds]))
        world, sink = build_world(resolve(scenario)), _Nowhere()
        environment = simpy.Environment()
        provisioner = Provisioner(environment, world, sink)
        ((deployment, config),) = scenario.deployments.items()
        provisioner.start(deployment, replicas)
        while environment.peek() <= 0:
            environment.step()
        (plane,) = world.planes
        self.engine, self.now_ns = plane.engine, 0
        self.controller = Controller(environment, world, provisioner, sink, deployment, config.autoscaler)
        # Scrapes a second apart fill the window of a minute; the load of the first minute is enough to have something to see.
        for _ in range(60):
            self.now_ns += NS_PER_S
            self.engine.advance(self.now_ns)
            environment.run(until=self.now_ns)
            self.scrape()
        self.look()

    def view(self) -> None:
        self.engine.view(self.now_ns)

    def scrape(self) -> None:
        self.controller.feed.scrape(self.now_ns)

    def look(self) -> None:
        view = self.controller.view()
        self.controller.policy.decide(view)
        self.controller.policy.next_look_ns(view)

    def scrape_and_look(self) -> None:
        self.scrape()
        self.look()


def look_cost(replicas: int, repetitions: int) -> dict[str, float]:
    """Return microseconds of a look at a fleet, called again and again, so with everything in the caches of the processor.

    Returns
    -------
    `look_us` is a scrape of every replica and a look at what was scraped; `engine_view_us` is the engine's part of the scrape.
    """
    looks = _Looks(replicas)
    return {
        "replicas": replicas,
        "engine_view_us": _us_per_call(looks.view, repetitions),
        "scrape_us": _us_per_call(looks.scrape, repetitions),
        "look_us": _us_per_call(looks.scrape_and_look, repetitions),
    }


def _run(scenario: str, *settings: str) -> tuple[float, float]:
    """Return the processor time of control and of the engine in a run: their wall time, by the processor's share of the whole."""
    with tempfile.TemporaryDirectory() as folder, RunWriter(Path(folder) / "run") as writer:
        world = build_world(resolve(check(load_scenario(scenario, ["engine=compiled", *settings]))))
        began, began_cpu = time.perf_counter(), time.process_time()
        timing = run(world, writer.spool)
        on_cpu = (time.process_time() - began_cpu) / (time.perf_counter() - began)
        writer.merge()
    return timing.control_s * on_cpu, timing.advance_s * on_cpu


def run_cost(hours: int, repetitions: int) -> dict[str, float]:
    """Return what control costs in a run of 50 requests a second under an HPA that looks every 15 s.

    Parameters
    ----------
    hours : of simulated time.
    """
    settings = (f"horizon={hours}h", "autoscaler=hpa_slow_down", "services.chat.workload.rate_per_s=50")
    runs = [_run("quickstart", *settings) for _ in range(repetitions)]
    looks = hours * 3_600 // SYNC_S
    control_s = statistics.median(control_s for control_s, _ in runs)
    return {
        "simulated_hours": hours,
        "looks": looks,
        "control_us_per_look": control_s / looks * 1e6,
        "control_s_per_90_days": control_s * 90 * 24 / hours,
        "control_over_engine": statistics.median(control_s / engine_s for control_s, engine_s in runs),
    }


def lease_hour_cost(hours: int, repetitions: int) -> dict[str, float]:
    """Return what an hour of a lease costs: usage, attribution, ledger and windows of 64 machines with little to do.

    Parameters
    ----------
    hours : of simulated time.
    """
    runs = [_run("bench_chat64", f"horizon={hours}h", "services.chat.workload.rate_per_s=2") for _ in range(repetitions)]
    control_s = statistics.median(control_s for control_s, _ in runs)
    return {"simulated_hours": hours, "machines": 64, "us_per_lease_hour": control_s / (64 * hours) * 1e6}


def control_cost(repetitions: int) -> dict[str, object]:
    """Return all figures of the control plane, medians over repetitions."""
    return {
        "looks": [look_cost(replicas, repetitions) for replicas in FLEETS],
        "run": run_cost(24, repetitions),
        "lease_hours": lease_hour_cost(100, repetitions),
    }
