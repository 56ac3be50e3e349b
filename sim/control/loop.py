"""The loop: the only caller of engines. It lets the data run to the next control event, and then control act.

At equal times data goes first. An engine that stops early at a watch is turned into a control event at that very time. Engines that
could stop are moved in step with one another, so that no engine has passed a time at which another one wakes control.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import simpy

from sim.billing.books import ledger_of, pool_billing
from sim.billing.ledger import Ledger, PoolBilling
from sim.control.batchjobs import BatchJobs
from sim.control.blocks import CapacityBlocks
from sim.control.budgets import Budgets, spend_book
from sim.control.controllers import Controller
from sim.control.failures import fail
from sim.control.market import SpotMarkets
from sim.control.meter import Meter
from sim.control.provisioner import Provisioner
from sim.control.sink import TableSink
from sim.control.world import NEVER_NS, Plane, World
from sim.dataplane.engine import Hit
from sim.units import NS_PER_MINUTE

# Progress is shown, Ctrl-C noticed and records taken at least this often in simulated time; cutting an advance changes nothing.
BREATH_NS = 10 * NS_PER_MINUTE


@dataclass(frozen=True)
class Progress:
    """How far a run has come.

    Parameters
    ----------
    simulated_ns, horizon_ns : of simulated time. wall_s : since the start of the loop.
    """

    simulated_ns: int
    horizon_ns: int
    wall_s: float


@dataclass(frozen=True)
class Timing:
    """Where the wall time of a run went, in seconds."""

    wall_s: float
    generate_s: float
    advance_s: float
    control_s: float
    steps: int


Probe = Callable[[simpy.Environment, World], Generator[simpy.Event, None, None]]


def run(world: World, sink: TableSink, progress: Callable[[Progress], None] | None = None, probes: Sequence[Probe] = ()) -> Timing:
    """Run a world to its horizon and write its tables.

    Parameters
    ----------
    sink : takes the rows of all tables. progress : called now and then. probes : extra processes that only look (for tests).
    """
    loop = begin(world, sink, probes)
    loop.advance_to(loop.end_ns, progress)
    return loop.finish()


def begin(world: World, sink: TableSink, probes: Sequence[Probe] = ()) -> Loop:
    """Set up the control plane of a world at time 0, and return the loop that moves it; see `run`."""
    scenario = world.resolved.scenario
    env = simpy.Environment(initial_time=0)
    provisioner = Provisioner(env, world, sink)
    billing = {name: pool_billing(world.resolved, pool) for name, pool in world.resolved.pools.items()}
    book = spend_book(world, sink) if scenario.budgets else None
    meter = Meter(world, provisioner, _ledger(world, billing, sink if book is None else book), sink)
    CapacityBlocks(env, provisioner).start()
    SpotMarkets(env, provisioner, {name: pool.tariffs for name, pool in billing.items()}).start()
    for name, deployment in scenario.deployments.items():
        if name in world.plane_of:
            provisioner.start(name, deployment.autoscaler.initial_replicas())
    for name, deployment in scenario.deployments.items():
        if name in world.plane_of:
            Controller(env, world, provisioner, sink, name, deployment.autoscaler).start()
    for failure in scenario.failures:
        env.process(fail(env, failure, provisioner))
    jobs = BatchJobs(env, world, sink, meter.book_now, provisioner.machines.event)
    jobs.start()
    world.taps.start(world.streams, meter.window_ends_ns())
    env.process(meter.run(env))
    if book is not None:
        env.process(Budgets(env, world, provisioner, sink, book).run())
    for probe in probes:
        env.process(probe(env, world))
    return Loop(world, env, provisioner, meter, jobs)


class Loop:
    """A run under way: moved to one time after another, and finished at the horizon, or given up before."""

    def __init__(self, world: World, env: simpy.Environment, provisioner: Provisioner, meter: Meter, jobs: BatchJobs) -> None:
        self.world, self.env, self.provisioner, self.meter, self.jobs = world, env, provisioner, meter, jobs
        self.end_ns = world.resolved.scenario.horizon_ns
        self.now_ns = 0
        self.began_s = time.perf_counter()
        self.advance_s = self.control_s = 0.0

    def advance_to(self, until_ns: int, progress: Callable[[Progress], None] | None = None) -> None:
        """Let everything happen up to and including a time; stopping on the way changes nothing.

        Parameters
        ----------
        until_ns : at most the horizon. progress : called now and then.
        """
        now_ns, acted = self.now_ns, True
        while now_ns < until_ns or acted:
            mark = time.perf_counter()
            now_ns = self._advance(now_ns, min(self._next_control_ns(), until_ns, (now_ns // BREATH_NS + 1) * BREATH_NS))
            if now_ns % BREATH_NS == 0:
                self.meter.take_records()
            self.advance_s += time.perf_counter() - mark
            mark = time.perf_counter()
            acted = False
            while self.env.peek() <= now_ns:
                self.env.step()
                acted = True
            self.control_s += time.perf_counter() - mark
            if progress is not None:
                progress(Progress(now_ns, self.end_ns, time.perf_counter() - self.began_s))
        self.now_ns = now_ns

    def give_up(self) -> None:
        """End a run before its horizon: only the records of the requests that are still in the system are handed over."""
        for plane in self.world.planes:
            plane.engine.close(self.now_ns)
        self.meter.take_records()

    def finish(self) -> Timing:
        """End a run at its horizon: book the rest and close what is open."""
        mark = time.perf_counter()
        views = [plane.engine.close(self.end_ns) for plane in self.world.planes]
        self.jobs.end_of_run(self.end_ns, views)
        self.meter.finish(self.end_ns, views)
        self.control_s += time.perf_counter() - mark
        generate_s = self.world.generate_s
        return Timing(
            wall_s=time.perf_counter() - self.began_s,
            generate_s=generate_s,
            advance_s=max(self.advance_s - generate_s, 0.0),
            control_s=self.control_s,
            steps=self.meter.steps,
        )

    def _next_control_ns(self) -> int:
        at = self.env.peek()
        return NEVER_NS if at == float("inf") else int(at)

    def _advance(self, now_ns: int, until_ns: int) -> int:
        """Move all engines from `now_ns` to `until_ns`, or to the first time at which one of them stops; returns that time."""
        # What control did may let a watch fire at once. A single engine stops there on its way; of several none may pass it.
        if (len(self.world.planes) > 1 or now_ns >= until_ns) and self._advance_all(now_ns):
            return now_ns
        while now_ns < until_ns:
            armed = [plane for plane in self.world.planes if plane.engine.may_stop]
            now_ns = until_ns if len(armed) < 2 else min([until_ns, *(plane.engine.peek_ns() for plane in armed)])
            for plane in armed:
                hit = plane.engine.advance(now_ns)
                if hit is not None:
                    self._wake_control(plane, hit)
                    now_ns = hit.time_ns
            self._advance_all(now_ns)
            if self.env.peek() <= now_ns:
                break
        return now_ns

    def _advance_all(self, at_ns: int) -> bool:
        """Move every engine to `at_ns`, waking control for every watch that fires by then; whether any did."""
        woke = False
        for plane in self.world.planes:
            while (hit := plane.engine.advance(at_ns)) is not None:
                self._wake_control(plane, hit)
                woke = True
        return woke

    def _wake_control(self, plane: Plane, hit: Hit) -> None:
        event = self.env.timeout(hit.time_ns - int(self.env.now))
        event.callbacks += [
            lambda _: self.provisioner.on_hit(plane.number, hit),
            lambda _: self.jobs.on_hit(plane.number, hit),
        ]


def _ledger(world: World, pools: dict[str, PoolBilling], sink: TableSink) -> Ledger:
    streams_of = {
        name: [plane.streams[local].number for local in sorted(plane.streams_of[name])]
        for plane in world.planes
        for name in plane.streams_of
    }
    return ledger_of(world.resolved, pools, world.streams, streams_of, sink)
