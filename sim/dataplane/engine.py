"""The contract of a data plane: what the control loop may ask of an engine, and what it gets back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from sim.dataplane.layout import COUNTERS, FRAGMENT_TOKENS, NEVER_NS
from sim.domain.traffic import ClosedClients, RequestBlock
from sim.perf.steptime import ONE_NS_FX, StepModel
from sim.policies.routers import LeastOutstanding, Router

UNLIMITED = 1 << 40
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ReplicaSpec:
    """What a replica is made of.

    Parameters
    ----------
    kind : row of the plane's step models.
    seats : most sequences in a step (`max_num_seqs`). token_budget : most tokens in a step (`max_num_batched_tokens`).
    kv_tokens : KV capacity. watermark_tokens : left free at an admission while something runs, at least 1.
    max_model_len : longest prompt + output. max_outstanding : most requests waiting and running; `UNLIMITED` is early
        binding, `seats` or less is a central queue.
    streams : numbers of the streams it accepts; empty for all.
    net_ns : front-end and network time added to TTFT and E2E. weight : free for routers.
    role : only "both" (prefill and decode).
    """

    kind: int
    seats: int
    token_budget: int
    kv_tokens: int
    watermark_tokens: int = 1
    max_model_len: int = UNLIMITED
    max_outstanding: int = UNLIMITED
    streams: frozenset[int] = frozenset()
    net_ns: int = 0
    weight: float = 1.0
    role: str = "both"

    def accepts(self, stream: int) -> bool:
        """Whether requests of a stream may come here."""
        return not self.streams or stream in self.streams

    def holds(self, tokens: int) -> bool:
        """Whether a request of this many prompt and output tokens could ever finish here."""
        return tokens + FRAGMENT_TOKENS <= self.kv_tokens and tokens <= self.max_model_len


@dataclass(frozen=True)
class StreamRules:
    """How one stream is treated.

    Parameters
    ----------
    queue : which service queue its requests wait in. priority : higher first.
    max_attempts : attempts before a killed request fails. queue_timeout_ns : from the arrival; binds requests never admitted.
    ttft_ns, tpot_ns, e2e_ns : targets of the SLO counters.
    """

    queue: int = 0
    priority: int = 0
    max_attempts: int = 3
    queue_timeout_ns: int = NEVER_NS
    ttft_ns: int = NEVER_NS
    tpot_ns: int = NEVER_NS
    e2e_ns: int = NEVER_NS


@dataclass(frozen=True)
class PlaneConfig:
    """Everything an engine is told before it starts.

    Parameters
    ----------
    steps : step models, by kind. specs : every replica spec that may be added. streams : rules by stream number.
    max_queue : bound of each service queue for new arrivals, by queue number.
    records : 0 none, 1 all, k one request in k by its own random word.
    ring_s : length of the ring of one-second sums; 0 for none.
    start_ns : time at which the engine starts.
    """

    steps: tuple[StepModel, ...]
    specs: tuple[ReplicaSpec, ...]
    streams: tuple[StreamRules, ...]
    max_queue: tuple[int, ...] = (UNLIMITED,)
    router: Router = field(default_factory=LeastOutstanding)
    records: int = 0
    ring_s: int = 0
    start_ns: int = 0

    def __post_init__(self) -> None:
        for spec in self.specs:
            if spec.role != "both":
                raise ValueError(f"role = {spec.role!r}: only 'both' is simulated")
            if spec.seats < 1 or spec.token_budget < spec.seats:
                raise ValueError(f"token_budget = {spec.token_budget}: must be at least seats = {spec.seats}, and seats at least 1")
            if spec.watermark_tokens < 1:
                raise ValueError(
                    f"watermark_tokens = {spec.watermark_tokens}: must be at least 1, or a victim could come straight back"
                )
            if spec.max_outstanding < 1 or not 0 <= spec.kind < len(self.steps):
                raise ValueError(f"max_outstanding = {spec.max_outstanding} must be at least 1 and kind = {spec.kind} a step model")
            if self.steps[spec.kind].step_fx(1, 0, 0, 0) < ONE_NS_FX:
                raise ValueError(f"step model {spec.kind}: a step of one token takes less than 1 ns")
        if len(self.max_queue) <= max(rule.queue for rule in self.streams):
            raise ValueError("max_queue needs one entry for each service queue")

    def longest(self, stream: int) -> int:
        """Most prompt + output tokens a request of a stream may have before it is `too_long` everywhere."""
        return max(
            (min(spec.kv_tokens - FRAGMENT_TOKENS, spec.max_model_len) for spec in self.specs if spec.accepts(stream)), default=0
        )

    @property
    def levels(self) -> tuple[int, ...]:
        """The distinct priorities, highest first."""
        return tuple(sorted({rule.priority for rule in self.streams}, reverse=True))


class Watch(IntEnum):
    """Why an engine may stop before `until`. DRAINED is always on, the others fire once and must be set again."""

    DRAINED = 0  # subject: replica id
    ARRIVAL_WITHOUT_CAPACITY = 1  # subject: service queue; an arrival finds no replica that accepts its stream
    QUEUE_ABOVE = 2  # subject: service queue, level: n; its length is above n
    BACKLOG_EMPTY = 3  # subject: stream; its last request in the system left
    IDLE_SINCE = 4  # subject: replica id, level: d; idle for d nanoseconds


@dataclass(frozen=True)
class Hit:
    """A watch that fired, at its own time."""

    time_ns: int
    reason: Watch
    subject: int


@dataclass
class ReplicaTotals:
    """Cumulative account of one replica; shares and lost add up to busy.

    Parameters
    ----------
    added_ns, drain_ns, removed_ns : when it joined, was told to drain, and left (None: not yet).
    busy_ns : time stepping, to the instant. draining_busy_ns : its part after the drain order.
    shares_ns : busy time by stream, accrued at step ends. lost_ns : busy time whose work was thrown away.
    """

    replica: int
    spec: int
    added_ns: int
    shares_ns: list[float]
    drain_ns: int | None = None
    removed_ns: int | None = None
    busy_ns: int = 0
    draining_busy_ns: int = 0
    lost_ns: float = 0.0
    energy_j: float = 0.0
    steps: int = 0
    prefill_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True)
class View:
    """A look at a data plane; cumulative from the start, looking changes nothing.

    Parameters
    ----------
    time_ns : the time of the look.
    counters : int64, shape (streams, len(COUNTERS)), named by `layout.COUNTERS`.
    queued, in_flight : int64, (streams,): requests waiting (service queue and replicas) and in the system, now.
    queued_us, in_flight_us : int64, (streams,): their integrals over time in request-microseconds.
    service_queue : int64, (queues,): length of each service queue, expired requests included.
    replica, spec, accepting, waiting, running, outstanding, reserved_tokens, kv_used_tokens : int64, (replicas,), by index.
    busy_ns : int64, (replicas,). lost_ns, energy_j : float64, (replicas,). shares_ns : float64, (replicas, streams).
    steps, prefill_tokens, output_tokens, draining_busy_ns : int64, (replicas,).
    ring_arrivals, ring_in_flight_us : int64, (ring_s,): sums per second, the newest complete second last.
    """

    time_ns: int
    counters: IntArray
    queued: IntArray
    in_flight: IntArray
    queued_us: IntArray
    in_flight_us: IntArray
    service_queue: IntArray
    replica: IntArray
    spec: IntArray
    accepting: IntArray
    waiting: IntArray
    running: IntArray
    outstanding: IntArray
    reserved_tokens: IntArray
    kv_used_tokens: IntArray
    busy_ns: IntArray
    draining_busy_ns: IntArray
    steps: IntArray
    prefill_tokens: IntArray
    output_tokens: IntArray
    lost_ns: FloatArray
    energy_j: FloatArray
    shares_ns: FloatArray
    ring_arrivals: IntArray
    ring_in_flight_us: IntArray

    def count(self, name: str) -> IntArray:
        """Return one counter of all streams by its name in `layout.COUNTERS`."""
        column: IntArray = self.counters[:, COUNTERS.index(name)]
        return column


class DataPlane(ABC):
    """An engine: requests in, facts out. It is advanced from outside and calls nobody."""

    @abstractmethod
    def __init__(self, config: PlaneConfig, arrivals: Iterable[RequestBlock], clients: ClosedClients | None = None) -> None: ...

    @property
    @abstractmethod
    def now_ns(self) -> int:
        """Time up to which everything has happened."""

    @abstractmethod
    def peek_ns(self) -> int:
        """Time of the next internal event, `NEVER_NS` if there is none."""

    @property
    @abstractmethod
    def may_stop(self) -> bool:
        """Whether a watch is armed or a replica drains, so that `advance` could return a hit."""

    @abstractmethod
    def advance(self, until_ns: int) -> Hit | None:
        """Process everything up to and including `until_ns`; return early at the time of a watch that fires."""

    @abstractmethod
    def add_replica(self, t_ns: int, spec: int) -> int:
        """Add a replica of `config.specs[spec]` and return its id; it pulls from the service queues at once."""

    @abstractmethod
    def drain_replica(self, t_ns: int, replica: int) -> None:
        """Stop admitting; waiting requests are redispatched, running ones finish. Draining twice changes nothing."""

    @abstractmethod
    def kill_replica(self, t_ns: int, *replicas: int) -> None:
        """Remove replicas together, at once; started requests lose their work and retry or fail, the others are redispatched."""

    @abstractmethod
    def watch(self, t_ns: int, reason: Watch, subject: int, level: int = 0) -> None:
        """Arm a watch; one that holds already fires at the next `advance`."""

    @abstractmethod
    def view(self, t_ns: int) -> View:
        """Look at the state as of `t_ns`, up to which the engine has been advanced."""

    @abstractmethod
    def histograms(self) -> IntArray:
        """Return cumulative latency counts, int64, shape (streams, 3, BINS), by `layout.LATENCIES`."""

    @abstractmethod
    def take_retired(self) -> list[ReplicaTotals]:
        """Return, once, the accounts of the replicas removed since the last call, in order of removal."""

    @abstractmethod
    def take_records(self) -> dict[str, IntArray]:
        """Return, once, the records written since the last call, by `layout.RECORD_COLUMNS`, in order of leaving."""

    @abstractmethod
    def close(self, t_ns: int) -> View:
        """End at `t_ns`: charge the elapsed part of steps in flight to their streams, record the unfinished, look."""
