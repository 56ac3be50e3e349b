"""The meter: reads the data planes at every cut of time and writes down who used what.

Time is cut at the hours of the account, at the ends of reporting windows, where a month or a week of a service begins, at the end
of the warm-up and at the end of the run. A cut lies after everything that happens at its instant, so a window is (start, end].
Looking changes nothing: cutting finer changes no other row.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from heapq import merge
from typing import Any

import numpy as np
import numpy.typing as npt
import simpy

from sim.billing.ledger import Ledger
from sim.bins import BINS, edges_ns, quantile_ns
from sim.control.active_users import ActiveUsers
from sim.control.nodes import NOT_REACHED, Node, ReplicaLife
from sim.control.other_costs import OtherCosts
from sim.control.provisioner import Provisioner
from sim.control.sink import TableSink
from sim.control.world import World
from sim.dataplane.engine import ReplicaTotals, View
from sim.dataplane.layout import COUNTERS, LATENCIES, OUTCOMES
from sim.domain.traffic import Stream
from sim.domain.usage import Lease, UsageSlice
from sim.results.periods import Calendar
from sim.scenario.model import Scenario
from sim.units import NS_PER_S, duration_ns

IntArray = npt.NDArray[np.int64]

_REJECTED = ("rejected_full", "rejected_too_long", "rejected_throttled")
_LEFT = ("completed", "failed", "abandoned", *_REJECTED)
_SUMMED = (
    "arrived",
    "completed",
    "failed",
    "abandoned",
    "retried",
    "preempted",
    "good_ttft",
    "good_tpot",
    "good_e2e",
    "good_all",
    "missed_retried",
    "missed_preempted",
    "missed_kv_full",
    "missed_queued",
    "missed_slow",
)


def cut_times(scenario: Scenario, ledger_cuts: Iterable[int]) -> Iterator[int]:
    """Yield every cut strictly between the start and the end of a run, in order, each once.

    Parameters
    ----------
    ledger_cuts : hours of the account zone and changes of prices, in order.
    """
    horizon_ns, window_ns, warmup_ns = scenario.horizon_ns, duration_ns(scenario.window), duration_ns(scenario.warmup)
    windows = range(window_ns, horizon_ns, window_ns)
    calendar = Calendar.of(scenario.to_dict())
    last = 0
    for at in merge(windows, ledger_cuts, [warmup_ns], *(calendar.cuts(service) for service in scenario.services)):
        if last < at < horizon_ns:
            yield at
            last = at


@dataclass
class _Mark:
    """Cumulative numbers of a replica at the last cut."""

    busy_ns: int = 0
    draining_busy_ns: int = 0
    lost_ns: float = 0.0
    energy_j: float = 0.0
    shares_ns: list[float] = field(default_factory=list)
    steps: int = 0
    prefill_tokens: int = 0
    output_tokens: int = 0


def _marks(view: View) -> dict[int, _Mark]:
    rows = zip(
        view.replica.tolist(),
        view.busy_ns.tolist(),
        view.draining_busy_ns.tolist(),
        view.lost_ns.tolist(),
        view.energy_j.tolist(),
        view.shares_ns.tolist(),
        view.steps.tolist(),
        view.prefill_tokens.tolist(),
        view.output_tokens.tolist(),
        strict=True,
    )
    return {row[0]: _Mark(*row[1:]) for row in rows}


def _mark_of(totals: ReplicaTotals) -> _Mark:
    return _Mark(
        totals.busy_ns,
        totals.draining_busy_ns,
        totals.lost_ns,
        totals.energy_j,
        totals.shares_ns,
        totals.steps,
        totals.prefill_tokens,
        totals.output_tokens,
    )


class _WindowSums:
    """What accrues over a reporting window, by scenario stream, and the cumulative engine numbers at its start."""

    def __init__(self, streams: int) -> None:
        self.start_ns = 0
        self.busy_ns = np.zeros(streams)
        self.energy_j = np.zeros(streams)
        self.ready_ns = np.zeros(streams)
        self.counters = np.zeros((streams, len(COUNTERS)), np.int64)
        self.queued_us = np.zeros(streams, np.int64)
        self.in_flight_us = np.zeros(streams, np.int64)
        self.in_flight = np.zeros(streams, np.int64)
        self.histograms = np.zeros((streams, len(LATENCIES), BINS), np.int64)


class Meter:
    """Cuts time into usage slices, windows and ledger hours.

    Parameters
    ----------
    ledger : books every lease's time. sink : takes table rows.
    """

    def __init__(self, world: World, provisioner: Provisioner, ledger: Ledger, sink: TableSink) -> None:
        self.world, self.provisioner, self.ledger, self.sink = world, provisioner, ledger, sink
        scenario = world.resolved.scenario
        self.window_ns, self.warmup_ns = duration_ns(scenario.window), duration_ns(scenario.warmup)
        self.last_ns = 0
        self.marks: dict[int, _Mark] = {}
        calendar = Calendar.of(scenario.to_dict())
        self.calendar_cuts = {service: frozenset(calendar.cuts(service)) for service in scenario.services}
        self.window_ends = frozenset({self.warmup_ns, scenario.horizon_ns}).union(*self.calendar_cuts.values())
        self.window = _WindowSums(len(world.streams))
        # By stream: the cumulative histograms at the start of the piece of calendar, and that start.
        self.piece_histograms = self.window.histograms.copy()
        self.piece_start_ns = [0] * len(world.streams)
        self.in_items = [world.resolved.scenario.in_items(stream.service) for stream in world.streams]
        self.edges_ns = edges_ns()
        self.steps = 0
        self.active_users = ActiveUsers(world, sink)
        self.other_costs = OtherCosts(world, ledger) if scenario.other_costs.is_on else None

    def window_ends_ns(self) -> IntArray:
        """Return the ends of all windows, int64, increasing."""
        horizon_ns = self.world.resolved.scenario.horizon_ns
        ends_ns = self.window_ends.union(range(self.window_ns, horizon_ns, self.window_ns))
        return np.array(sorted(end_ns for end_ns in ends_ns if 0 < end_ns <= horizon_ns), np.int64)

    def run(self, env: simpy.Environment) -> Generator[simpy.Event, None, None]:
        """The meter as a SimPy process: one look at every cut."""
        for at_ns in cut_times(self.world.resolved.scenario, self.ledger.cuts()):
            yield env.timeout(at_ns - int(env.now))
            self.cut(at_ns, [plane.engine.view(at_ns) for plane in self.world.planes])

    def cut(self, at_ns: int, views: list[View]) -> None:
        """Book everything since the last cut."""
        self.take_records()
        self._book_until(at_ns, views)
        self.active_users.look(at_ns)
        if at_ns % self.window_ns == 0 or at_ns in self.window_ends:
            self._close_window(at_ns, views)
            self.world.taps.write(self.sink, at_ns, last=at_ns == self.world.resolved.scenario.horizon_ns)

    def book_now(self, at_ns: int) -> None:
        """Book everything since the last cut, so that what comes can be told from what was: a batch job begins or ends."""
        self._book_until(at_ns, [plane.engine.view(at_ns) for plane in self.world.planes])

    def _book_until(self, at_ns: int, views: list[View]) -> None:
        slices = self._slices(at_ns, views)
        self._accrue(slices)
        machines = self.provisioner.machines
        nodes = [*machines.alive.values(), *machines.ended]
        self._book(at_ns, slices)
        if self.other_costs is not None:
            self.other_costs.use(self.last_ns, at_ns, slices, nodes, views)
        self.last_ns = at_ns

    # Slices of use

    def _slices(self, at_ns: int, views: list[View]) -> list[tuple[ReplicaLife, UsageSlice]]:
        marks: dict[int, _Mark] = {}
        for plane, view in zip(self.world.planes, views, strict=True):
            numbers = self.provisioner.by_plane_number
            found = _marks(view) | {totals.replica: _mark_of(totals) for totals in plane.engine.take_retired()}
            marks.update({numbers[plane.number, number].number: mark for number, mark in found.items()})
        ended, self.provisioner.ended = self.provisioner.ended, []
        slices = []
        for replica in [*self.provisioner.replicas.values(), *ended]:
            # One that drained at the very instant of the last cut has told its totals already, and ended after it.
            mark = marks.get(replica.number) or self.marks.get(replica.number) or _Mark(shares_ns=[])
            for node, accelerators in replica.gang:
                piece = self._slice(replica, node, accelerators, at_ns, mark)
                if piece is not None:
                    slices.append((replica, piece))
            self.marks[replica.number] = mark
        for replica in sorted(ended, key=lambda replica: replica.number):
            self._write_replica(replica, self.marks.pop(replica.number))
            self.provisioner.by_plane_number.pop((replica.plane, replica.plane_number), None)
        return sorted(slices, key=lambda pair: (pair[1].lease, pair[0].number))

    def _slice(self, replica: ReplicaLife, node: Node, accelerators: int, at_ns: int, mark: _Mark) -> UsageSlice | None:
        """What a replica did on one of its nodes since the last cut; its energy is divided by accelerators."""
        lease = node.lease
        if lease is None:
            return None
        start_ns = max(self.last_ns, lease.start_ns, replica.requested_ns)
        end_ns = at_ns if replica.gone_ns == NOT_REACHED else replica.gone_ns
        if end_ns <= start_ns:
            return None
        ready_ns = end_ns if replica.ready_ns == NOT_REACHED else min(max(replica.ready_ns, start_ns), end_ns)
        drain_ns = end_ns if replica.drain_ns == NOT_REACHED else min(max(replica.drain_ns, start_ns), end_ns)
        before = self.marks.get(replica.number) or _Mark()
        before_ns = before.shares_ns or [0.0] * len(mark.shares_ns)
        streams = self.world.planes[replica.plane].streams
        shares_ns = {
            streams[local].number: now - then
            for local, (now, then) in enumerate(zip(mark.shares_ns, before_ns, strict=True))
            if now != then
        }
        return UsageSlice(
            lease=lease.lease,
            replica=replica.number,
            deployment=replica.deployment,
            accelerators=accelerators,
            start_ns=start_ns,
            end_ns=end_ns,
            booting_ns=ready_ns - start_ns,
            ready_ns=max(drain_ns - ready_ns, 0),
            draining_ns=end_ns - max(drain_ns, ready_ns),
            busy_ns=mark.busy_ns - before.busy_ns,
            draining_busy_ns=mark.draining_busy_ns - before.draining_busy_ns,
            lost_ns=mark.lost_ns - before.lost_ns,
            shares_ns=shares_ns,
            energy_j=(mark.energy_j - before.energy_j) * accelerators / replica.accelerators,
        )

    def _accrue(self, slices: list[tuple[ReplicaLife, UsageSlice]]) -> None:
        for replica, piece in slices:
            plane = self.world.planes[replica.plane]
            part = piece.accelerators / replica.accelerators
            for local in plane.streams_of[replica.deployment]:
                self.window.ready_ns[plane.streams[local].number] += piece.ready_ns * part
            shares_ns = sum(piece.shares_ns.values())
            for stream, share_ns in piece.shares_ns.items():
                self.window.busy_ns[stream] += share_ns * part
                if shares_ns:
                    self.window.energy_j[stream] += piece.energy_j * share_ns / shares_ns
            self.sink.append("usage", {
                "lease": piece.lease, "replica": piece.replica, "deployment": piece.deployment, "accelerators": piece.accelerators,
                "start_ns": piece.start_ns, "end_ns": piece.end_ns, "booting_ns": piece.booting_ns, "ready_ns": piece.ready_ns,
                "draining_ns": piece.draining_ns, "busy_ns": piece.busy_ns, "draining_busy_ns": piece.draining_busy_ns,
                "lost_ns": piece.lost_ns, "energy_j": piece.energy_j,
            })  # fmt: skip

    # Money

    def _book(self, at_ns: int, slices: list[tuple[ReplicaLife, UsageSlice]]) -> None:
        machines = self.provisioner.machines
        ended, machines.ended = machines.ended, []
        by_lease: dict[int, list[UsageSlice]] = {}
        for _, piece in slices:
            by_lease.setdefault(piece.lease, []).append(piece)
        leases: list[Lease] = [node.lease for node in [*machines.alive.values(), *ended] if node.lease is not None]
        for lease in sorted(leases, key=lambda lease: lease.lease):
            start_ns = max(self.last_ns, lease.start_ns)
            end_ns = at_ns if lease.end_ns is None else min(at_ns, lease.end_ns)
            if end_ns > start_ns:
                self.ledger.record(lease, start_ns, end_ns, by_lease.get(lease.lease, []))
            if lease.end_ns is not None:
                self.ledger.close_lease(lease)
        self.ledger.close_hours(at_ns)
        for node in sorted(ended, key=lambda node: node.number):
            self._write_node(node)

    # Windows

    def _close_window(self, at_ns: int, views: list[View]) -> None:
        window, fresh = self.window, _WindowSums(len(self.world.streams))
        fresh.start_ns = at_ns
        for plane, view in zip(self.world.planes, views, strict=True):
            numbers = [stream.number for stream in plane.streams]
            fresh.counters[numbers] = view.counters
            fresh.queued_us[numbers], fresh.in_flight_us[numbers] = view.queued_us, view.in_flight_us
            fresh.in_flight[numbers] = view.in_flight
            fresh.histograms[numbers] = plane.engine.histograms()
        for stream in self.world.streams:
            self._write_window(at_ns, stream.number, window, fresh)
            if at_ns in self.calendar_cuts[stream.service] or at_ns in (self.warmup_ns, self.world.resolved.scenario.horizon_ns):
                self._close_piece(at_ns, stream, fresh.histograms[stream.number])
        self.window = fresh

    def _close_piece(self, at_ns: int, stream: Stream, histograms: IntArray) -> None:
        """Write the histograms of a stream since its last month or week began; nothing where that is the warm-up."""
        start_ns, counts = self.piece_start_ns[stream.number], histograms - self.piece_histograms[stream.number]
        self.piece_start_ns[stream.number], self.piece_histograms[stream.number] = at_ns, histograms
        if at_ns <= self.warmup_ns:
            return
        for index, latency in enumerate(LATENCIES):
            for number in np.flatnonzero(counts[index]).tolist():
                self.sink.append("histograms", {
                    "start_ns": start_ns, "end_ns": at_ns, "stream": stream.number, "service": stream.service,
                    "segment": stream.segment, "latency": latency, "bin": number, "low_ns": float(self.edges_ns[number]),
                    "high_ns": float(self.edges_ns[number + 1]), "count": int(counts[index, number]),
                })  # fmt: skip

    def _write_window(self, at_ns: int, number: int, before: _WindowSums, now: _WindowSums) -> None:
        stream = self.world.streams[number]
        change = dict(zip(COUNTERS, (now.counters[number] - before.counters[number]).tolist(), strict=True))
        length_ns = at_ns - before.start_ns
        row: dict[str, object] = {
            "start_ns": before.start_ns,
            "end_ns": at_ns,
            "measured": before.start_ns >= self.warmup_ns,
            "stream": number,
            "service": stream.service,
            "segment": stream.segment,
            **{name: change[name] for name in _SUMMED},
            "rejected": sum(change[name] for name in _REJECTED),
            "throttled": change["rejected_throttled"],
            "prompt_tokens": 0 if self.in_items[number] else change["completed_prompt_tokens"],
            "output_tokens": 0 if self.in_items[number] else change["completed_output_tokens"],
            "items": change["completed_prompt_tokens"] if self.in_items[number] else 0,
            "total": sum(change[name] for name in _LEFT),
            "tpot_count": change["tpot_count"],
            "in_flight_end": int(now.in_flight[number]),
            "queued_mean": float(now.queued_us[number] - before.queued_us[number]) * 1e3 / length_ns,
            "in_flight_mean": float(now.in_flight_us[number] - before.in_flight_us[number]) * 1e3 / length_ns,
            "replicas_mean": before.ready_ns[number] / length_ns,
            "busy_s": before.busy_ns[number] / NS_PER_S,
            "energy_j": before.energy_j[number],
            "cost_nano_usd": 0,
        }
        sums_s = {"ttft": change["ttft_us"] / 1e6, "tpot": change["tpot_ns"] / 1e9, "e2e": change["e2e_us"] / 1e6}
        for index, latency in enumerate(LATENCIES):
            counts = now.histograms[number, index] - before.histograms[number, index]
            n = int(counts.sum())
            row[f"{latency}_mean_s"] = sums_s[latency] / n if n else None
            for name, q in (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)):
                row[f"{latency}_{name}_s"] = quantile_ns(counts, q) / NS_PER_S if n else None
        self.sink.append("windows", row)

    # The end

    def finish(self, at_ns: int, views: list[View]) -> None:
        """Book the rest and close everything that is still open."""
        self.provisioner.end_of_run(at_ns)
        self.cut(at_ns, views)

    def _write_node(self, node: Node) -> None:
        pool = self.world.resolved.pools[node.pool]
        self.sink.append("nodes", {
            "node": node.number, "lease": -1 if node.lease is None else node.lease.lease, "pool": node.pool,
            "instance": pool.instance.name, "purchase": pool.config.purchase, "zone": node.zone, "requested_ns": node.requested_ns,
            "running_ns": node.running_ns, "booted_ns": node.booted_ns, "pulled_ns": node.pulled_ns, "gone_ns": node.gone_ns,
            "cause": node.cause,
        })  # fmt: skip

    def _write_replica(self, replica: ReplicaLife, mark: _Mark) -> None:
        self.steps += mark.steps
        self.sink.append("replicas", {
            "replica": replica.number, "deployment": replica.deployment, "node": replica.gang[0][0].number,
            "gang": ",".join(str(node.number) for node, _ in replica.gang), "accelerators": replica.accelerators,
            "requested_ns": replica.requested_ns, "loaded_ns": replica.loaded_ns, "ready_ns": replica.ready_ns,
            "drain_ns": replica.drain_ns, "gone_ns": replica.gone_ns, "cause": replica.cause,
            "busy_s": mark.busy_ns / NS_PER_S, "lost_s": mark.lost_ns / NS_PER_S, "steps": mark.steps,
            "prefill_tokens": mark.prefill_tokens, "output_tokens": mark.output_tokens, "energy_j": mark.energy_j,
        })  # fmt: skip

    def take_records(self) -> None:
        """Hand the records of the requests that have left to the taps, and where they are asked for to their table."""
        for plane in self.world.planes:
            records: dict[str, npt.NDArray[Any]] = dict(plane.engine.take_records())
            if len(records["request"]):
                records["stream"] = np.array([stream.number for stream in plane.streams])[records["stream"]]
                records["replica"] = self._replica_numbers(plane.number, records["replica"])
                self.world.taps.outcomes(records)
                if self.world.resolved.scenario.records_every:
                    self._write_requests(plane.number, records)

    def _replica_numbers(self, plane: int, local: IntArray) -> IntArray:
        """The run's numbers of replicas known to a plane by its own."""
        living = self.provisioner.by_plane_number
        # By the number in the plane, one up: the first entry is for requests that never had a replica.
        numbers = np.full(int(local.max()) + 2, NOT_REACHED)
        for number in np.flatnonzero(np.bincount(local + 1)).tolist():
            replica = living.get((plane, number - 1))
            numbers[number] = NOT_REACHED if replica is None else replica.number
        return numbers[local + 1]

    def _write_requests(self, plane: int, records: dict[str, npt.NDArray[Any]]) -> None:
        streams = self.world.streams
        self.sink.extend("requests", {
            **records,
            "plane": np.full(len(records["request"]), plane),
            "service": np.array([stream.service for stream in streams], object)[records["stream"]],
            "segment": np.array([stream.segment for stream in streams], object)[records["stream"]],
            "outcome": np.array(OUTCOMES, object)[records["outcome"]],
        })  # fmt: skip
