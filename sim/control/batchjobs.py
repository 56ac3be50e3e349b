"""Batch jobs as SimPy processes: submitted at their time, worked off one after another, written down when they are done.

A service has one backlog. A job whose time comes while an earlier one of its service is not done waits for it, so that what the
stream of the service does between two moments belongs to one job. Replicas take rows of a backlog whenever nothing else wants the
room (`DataPlane.submit`); this file only hands them over and looks.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

import numpy as np
import simpy

from sim.control.nodes import NOT_REACHED
from sim.control.sink import TableSink
from sim.control.world import Plane, World
from sim.dataplane.engine import Hit, View, Watch
from sim.dataplane.layout import COUNTERS
from sim.domain.traffic import BatchJob, RequestBlock, Stream
from sim.perf.steptime import FRACTION_BITS
from sim.units import NS_PER_MINUTE, NS_PER_MS, NS_PER_S

# Whether a replica has taken something is looked up after so long, then after twice as long each time, until one has.
FIRST_LOOK_NS, LONGEST_LOOK_NS = NS_PER_MS, NS_PER_MINUTE
# A job that cannot be done for longer than this is left alone for so long.
SHORTEST_SLEEP_NS = NS_PER_S
Process = Generator[simpy.Event, None, None]
_COUNTED = ("arrived", "completed", "failed", "preempted", "retried", "completed_prompt_tokens", "completed_output_tokens")


@dataclass
class _Work:
    """A job under way.

    Parameters
    ----------
    begun_ns : when it was handed over. before : counters of its stream at that time.
    taken_ns : when a row was seen to be taken. rejected : rows that were left out, because they would not fit everywhere.
    """

    job: BatchJob
    begun_ns: int
    before: dict[str, int]
    taken_ns: int = NOT_REACHED
    rejected: int = 0


class Backlog:
    """The backlog of one service and its jobs.

    Parameters
    ----------
    local : number of its stream in the plane. jobs : in order of time. book : lets the meter book everything up to now.
    tell : writes a row of `events` (kind, subject, detail).
    """

    def __init__(
        self,
        env: simpy.Environment,
        world: World,
        plane: Plane,
        local: int,
        jobs: tuple[BatchJob, ...],
        sink: TableSink,
        book: Callable[[int], None],
        tell: Callable[[str, str, str], None],
    ) -> None:
        self.env, self.world, self.plane, self.local, self.jobs, self.sink = env, world, plane, local, jobs, sink
        self._book, self._tell = book, tell
        self._longest = plane.engine_config.longest_in_backlog(local)
        scenario, config = world.resolved.scenario, plane.engine_config
        takers = {
            place: config.specs[number]
            for place, number in plane.specs.items()
            if config.specs[number].accepts(local) and config.specs[number].takes_backlogs
        }
        most = {name: scenario.deployments[name].autoscaler.most_replicas() for name, _ in takers}
        seats = {name: min(spec.seats, spec.backlog_seats) for (name, _), spec in takers.items()}
        self._most_seats = sum(most[name] * seats[name] for name in most)
        step_ns = [config.steps[spec.kind].least_fx >> FRACTION_BITS for spec in takers.values()]
        self._fastest_step_ns = min(step_ns, default=0)
        self._emptied = env.event()
        self._working: _Work | None = None
        self._done = 0

    @property
    def stream(self) -> Stream:
        """The scenario's stream."""
        return self.plane.streams[self.local]

    def run(self) -> Process:
        """Hand over one job after another."""
        for job in self.jobs:
            yield self.env.timeout(max(job.submit_ns - self._now_ns, 0))
            work = self._begin(job)
            if work.taken_ns == NOT_REACHED:
                self.env.process(self._see_the_first(work))
            while (busy_ns := self._surely_busy_ns(work)) > SHORTEST_SLEEP_NS:
                yield self.env.timeout(busy_ns)
            self.plane.engine.watch(self._now_ns, Watch.BACKLOG_EMPTY, self.local)
            yield self._emptied
            self._emptied = self.env.event()
            self._book(self._now_ns)
            self._finish(work, self._look(self.plane.engine.view(self._now_ns)), self._now_ns)
            self._working = None
            self._done += 1

    def emptied(self) -> None:
        """The last request of the job has left."""
        self._emptied.succeed()

    def end_of_run(self, at_ns: int, view: View) -> None:
        """Write the job that is not done, and those that wait for it."""
        if self._working is not None:
            self._finish(self._working, self._look(view), NOT_REACHED)
        waiting = self.jobs[self._done + (self._working is not None) :]
        for job in waiting:
            if job.submit_ns <= at_ns:
                self._finish(_Work(job, NOT_REACHED, dict.fromkeys(_COUNTED, 0)), dict.fromkeys(_COUNTED, 0), NOT_REACHED)

    @property
    def _now_ns(self) -> int:
        return int(self.env.now)

    def _look(self, view: View) -> dict[str, int]:
        return {name: int(view.counters[self.local, COUNTERS.index(name)]) for name in _COUNTED}

    def _begin(self, job: BatchJob) -> _Work:
        now_ns, engine = self._now_ns, self.plane.engine
        self._book(now_ns)
        work = self._working = _Work(job, now_ns, self._look(engine.view(now_ns)))
        self._tell("job_submitted", self._name(job), f"{job.requests} requests")
        engine.submit(now_ns, self.local, self.world.timed(self._that_fit(work)))
        self._note_taken(work)
        return work

    def _surely_busy_ns(self, work: _Work) -> int:
        """Return for how long a job cannot be done: as many steps as its rows need at least, if all seats there can be took them.

        Data planes that might stop move in step, event by event; so the watch is set only towards the end of a job.
        """
        if work.job.most_tokens > self._longest:
            return 0  # nobody knows how many of the rows to come are left out
        taken = self._look(self.plane.engine.view(self._now_ns))["arrived"] - work.before["arrived"]
        steps = (work.job.requests - taken) // max(self._most_seats, 1) - 1
        return max(steps, 0) * self._fastest_step_ns

    def _that_fit(self, work: _Work) -> Iterator[RequestBlock]:
        """Draw the rows of a job, without those that some replica could never hold."""
        for block in work.job.blocks():
            fits = block.prompt_tokens.astype(np.int64) + block.output_tokens <= self._longest
            work.rejected += int(np.count_nonzero(~fits))
            if fits.any():
                yield block.take(np.flatnonzero(fits))

    def _see_the_first(self, work: _Work) -> Process:
        look_ns = FIRST_LOOK_NS
        while work.taken_ns == NOT_REACHED and self._working is work:
            yield self.env.timeout(look_ns)
            look_ns = min(2 * look_ns, LONGEST_LOOK_NS)
            if self._working is work:
                self._note_taken(work)

    def _note_taken(self, work: _Work) -> None:
        if self._look(self.plane.engine.view(self._now_ns))["arrived"] > work.before["arrived"]:
            work.taken_ns = self._now_ns

    def _name(self, job: BatchJob) -> str:
        return f"{self.stream.service} job {job.number}"

    def _finish(self, work: _Work, now: dict[str, int], finished_ns: int) -> None:
        job, stream = work.job, self.stream
        found = {name: now[name] - work.before[name] for name in _COUNTED}
        if finished_ns != NOT_REACHED:
            self._tell("job_finished", self._name(job), f"{found['completed']} completed")
            if found["arrived"] and work.taken_ns == NOT_REACHED:
                work.taken_ns = finished_ns
        self.sink.append("jobs", {
            "job": job.number, "stream": stream.number, "service": stream.service, "requests": job.requests,
            "submitted_ns": job.submit_ns, "begun_ns": work.begun_ns, "first_taken_ns": work.taken_ns, "finished_ns": finished_ns,
            "due_ns": NOT_REACHED if job.due_ns is None else job.due_ns, "verdict": self._verdict(job, finished_ns),
            "rejected": work.rejected, "taken": found["arrived"], "completed": found["completed"], "failed": found["failed"],
            "preempted": found["preempted"], "retried": found["retried"], "prompt_tokens": found["completed_prompt_tokens"],
            "output_tokens": found["completed_output_tokens"], "cost_nano_usd": 0,
        })  # fmt: skip

    def _verdict(self, job: BatchJob, finished_ns: int) -> str:
        """Whether a job was done in time; one that is not done is late once its time is over."""
        if finished_ns == NOT_REACHED:
            return "late" if job.due_ns is not None and job.due_ns <= self.world.resolved.scenario.horizon_ns else "open"
        if job.due_ns is None:
            return "done"
        return "in time" if finished_ns <= job.due_ns else "late"


class BatchJobs:
    """The batch jobs of a run.

    Parameters
    ----------
    sink : takes rows of `jobs`. book, tell : as of a `Backlog`.
    """

    def __init__(
        self,
        env: simpy.Environment,
        world: World,
        sink: TableSink,
        book: Callable[[int], None],
        tell: Callable[[str, str, str], None],
    ) -> None:
        self._env = env
        self._backlogs: dict[tuple[int, int], Backlog] = {}
        for plane in world.planes:
            for local in plane.engine_config.backlogs:
                jobs = world.sources[plane.streams[local].service].jobs
                self._backlogs[plane.number, local] = Backlog(env, world, plane, local, jobs, sink, book, tell)

    def start(self) -> None:
        """Begin to wait for the first jobs."""
        for backlog in self._backlogs.values():
            self._env.process(backlog.run())

    def on_hit(self, plane: int, hit: Hit) -> None:
        """Act on a watch of an engine: a backlog is empty."""
        if hit.reason is Watch.BACKLOG_EMPTY:
            self._backlogs[plane, hit.subject].emptied()

    def end_of_run(self, at_ns: int, views: list[View]) -> None:
        """Write the jobs that are not done."""
        for (plane, _), backlog in self._backlogs.items():
            backlog.end_of_run(at_ns, views[plane])
