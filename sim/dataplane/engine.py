"""The contract of a data plane: what the control loop may ask of an engine, and what it gets back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from sim.dataplane.layout import ALL_ADMITTED, COUNTERS, FRAGMENT_TOKENS, NEVER_NS
from sim.domain.traffic import ClosedClients, RequestBlock
from sim.perf.steptime import ONE_NS_FX, StepModel
from sim.policies.routers import LeastOutstanding, Router

UNLIMITED = 1 << 40
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Batcher:
    """How a replica of a model that is not an LLM forms its batches, as the dynamic batcher of the Triton inference server does.

    A request counts by its size, the column `prompt_tokens`; its `output_tokens` must be 1. A batch is formed when the replica is
    free: requests are taken by (priority, order of coming) while their sizes fit into `ReplicaSpec.token_budget`, none is split or
    overtaken. The largest preferred size that is met is sent, unless the oldest has waited too long; all is sent when the next
    request would pass the largest preferred size, when the oldest has waited `max_delay_ns`, or at once if that is 0; otherwise the
    replica waits for an arrival or for the end of the delay.

    Parameters
    ----------
    preferred : sizes of batches to send at once; none means `token_budget`.
    max_delay_ns : how long the oldest request may wait for others; 0 for not at all.

    Source: research note on policies, section 9 with its correction in section 0 (Triton core, dynamic_batch_scheduler.cc).
    """

    preferred: tuple[int, ...] = ()
    max_delay_ns: int = 0

    def sizes(self, most: int) -> tuple[int, ...]:
        """The preferred sizes, ascending; `most` is the largest batch."""
        return tuple(sorted(self.preferred)) or (most,)


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
    batcher : set for a replica that serves a model which is not an LLM; `token_budget` is then the size of its largest batch, and
        seats and cache do not bind.
    backlog_seats : most requests of backlogs in its batch; 0 for a replica that takes none. A batcher takes none.
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
    batcher: Batcher | None = None
    backlog_seats: int = UNLIMITED

    @property
    def takes_backlogs(self) -> bool:
        """Whether its batch may have requests of backlogs."""
        return self.batcher is None and self.backlog_seats > 0

    def accepts(self, stream: int) -> bool:
        """Whether requests of a stream may come here."""
        return not self.streams or stream in self.streams

    @property
    def longest(self) -> int:
        """Most prompt and output tokens of a request that could ever finish here."""
        if self.batcher is not None:
            return self.token_budget + 1
        return min(self.kv_tokens - FRAGMENT_TOKENS, self.max_model_len)


@dataclass(frozen=True)
class StreamRules:
    """How one stream is treated.

    Parameters
    ----------
    queue : which service queue its requests wait in. priority : higher first.
    max_attempts : attempts before a killed request fails. queue_timeout_ns : from the arrival; binds requests never admitted.
    ttft_ns, tpot_ns, e2e_ns : targets of the SLO counters.
    backlog : requests may be submitted as a backlog (`DataPlane.submit`).
    batcher_queue : in a batcher, a new request is turned away if as many of its priority wait on the replica.
    late_waits : in a batcher, a request past its timeout goes behind the others of its priority, instead of leaving; elsewhere it
        just waits.
    """

    queue: int = 0
    priority: int = 0
    max_attempts: int = 3
    queue_timeout_ns: int = NEVER_NS
    ttft_ns: int = NEVER_NS
    tpot_ns: int = NEVER_NS
    e2e_ns: int = NEVER_NS
    backlog: bool = False
    batcher_queue: int = UNLIMITED
    late_waits: bool = False


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
    users : open arrivals have clients up to this number; 0 where nobody is known.
    """

    steps: tuple[StepModel, ...]
    specs: tuple[ReplicaSpec, ...]
    streams: tuple[StreamRules, ...]
    max_queue: tuple[int, ...] = (UNLIMITED,)
    router: Router = field(default_factory=LeastOutstanding)
    records: int = 0
    ring_s: int = 0
    start_ns: int = 0
    users: int = 0

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
            if self.steps[spec.kind].least_fx < ONE_NS_FX:
                raise ValueError(f"step model {spec.kind}: a step of one token takes less than 1 ns")
            batcher = spec.batcher
            if batcher and not (batcher.max_delay_ns >= 0 and all(1 <= size <= spec.token_budget for size in batcher.preferred)):
                raise ValueError(f"{batcher}: preferred sizes are 1 to {spec.token_budget}, a delay is at least 0")
        for number in range(len(self.streams)):
            if len({spec.batcher is None for spec in self.specs if spec.accepts(number)}) > 1:
                raise ValueError(f"stream {number}: one and the same stream cannot go to LLM replicas and to batchers")
        if len(self.max_queue) <= max(rule.queue for rule in self.streams):
            raise ValueError("max_queue needs one entry for each service queue")

    def known_clients(self, closed: int) -> int:
        """Return how many rows `client_done_ns` has; closed-loop clients are numbered from 0, users from 1."""
        return max(closed, self.users + 1 if self.users else 0)

    def longest(self, stream: int) -> int:
        """Most prompt + output tokens a request of a stream may have before it is `too_long` everywhere."""
        return max((spec.longest for spec in self.specs if spec.accepts(stream)), default=0)

    def takers(self, stream: int) -> frozenset[int]:
        """Numbers of the specs that accept a stream."""
        return frozenset(number for number, spec in enumerate(self.specs) if spec.accepts(stream))

    def everywhere(self, stream: int) -> Route:
        """The route of a stream to all the specs that accept it, which every stream has at first."""
        return Route(self.takers(stream), self.longest(stream))

    def route(self, stream: int, specs: Iterable[int]) -> Route:
        """The route of a stream to some of the specs that accept it.

        Raises
        ------
        ValueError : no such stream; no spec at all; a spec that does not accept the stream.
        """
        wanted = frozenset(specs)
        if not 0 <= stream < len(self.streams):
            raise ValueError(f"there is no stream {stream}")
        takers = self.takers(stream)
        if not wanted or not wanted <= takers:
            raise ValueError(f"stream {stream} cannot be routed to the specs {sorted(wanted)}: it goes to {sorted(takers)}")
        return Route(wanted, max(self.specs[number].longest for number in wanted))

    def goes_to_batchers(self, stream: int) -> bool:
        """Whether the replicas that accept a stream are batchers."""
        return any(spec.batcher is not None and spec.accepts(stream) for spec in self.specs)

    def longest_in_backlog(self, stream: int) -> int:
        """Most prompt + output tokens of a row of a backlog, that every replica which takes the stream holds; 0 if none does."""
        takers = [spec for spec in self.specs if spec.accepts(stream) and spec.takes_backlogs]
        return min((spec.longest for spec in takers), default=0)

    @property
    def backlogs(self) -> tuple[int, ...]:
        """Streams that may have a backlog, in the order in which replicas serve them: highest priority first, then by number."""
        numbers = (number for number, rules in enumerate(self.streams) if rules.backlog)
        return tuple(sorted(numbers, key=lambda number: (-self.streams[number].priority, number)))

    @property
    def levels(self) -> tuple[int, ...]:
        """The distinct priorities, highest first."""
        return tuple(sorted({rule.priority for rule in self.streams}, reverse=True))


@dataclass(frozen=True)
class Route:
    """To which specs the requests of a stream go.

    Parameters
    ----------
    specs : their numbers. longest : most prompt and output tokens that one of them could hold; a request that is longer goes to any
        spec that accepts its stream, or it would wait for ever.
    """

    specs: frozenset[int]
    longest: int

    def allows(self, spec: int, tokens: int) -> bool:
        """Whether a request of so many tokens is sent to replicas of a spec that accepts its stream."""
        return spec in self.specs or tokens > self.longest


class Watch(IntEnum):
    """Why an engine may stop before `until`. DRAINED is always on, the others fire once and must be set again."""

    DRAINED = 0  # subject: replica id
    ARRIVAL_WITHOUT_CAPACITY = 1  # subject: service queue; an arrival finds no replica that it could go to
    QUEUE_ABOVE = 2  # subject: service queue, level: n; its length is above n
    BACKLOG_EMPTY = 3  # subject: stream; its last request left, and nothing is left in its backlog
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
    queued, in_flight : int64, (streams,): requests waiting (service queue, replicas, thrown back) and in the system, now.
    thrown_back : int64, (streams,): requests that were thrown back to their backlog and wait there, now.
    queued_us, in_flight_us : int64, (streams,): their integrals over time in request-microseconds.
    service_queue : int64, (queues,): length of each service queue, expired requests included.
    replica, spec, accepting, waiting, running, outstanding, reserved_tokens, kv_used_tokens : int64, (replicas,), by index.
    from_backlog : int64, (replicas,): those of `running` that come from a backlog; `outstanding` does not count them.
    busy_ns : int64, (replicas,). lost_ns, energy_j : float64, (replicas,). shares_ns : float64, (replicas, streams).
    steps, prefill_tokens, output_tokens, draining_busy_ns : int64, (replicas,).
    ring_arrivals, ring_in_flight_us : int64, (ring_s,): sums per second, the newest complete second last.
    """

    time_ns: int
    counters: IntArray
    queued: IntArray
    in_flight: IntArray
    thrown_back: IntArray
    queued_us: IntArray
    in_flight_us: IntArray
    service_queue: IntArray
    replica: IntArray
    spec: IntArray
    accepting: IntArray
    waiting: IntArray
    running: IntArray
    outstanding: IntArray
    from_backlog: IntArray
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
    def submit(self, t_ns: int, stream: int, blocks: Iterable[RequestBlock]) -> None:
        """Add rows to the backlog of a stream; replicas take them, in order, when nothing else wants their room.

        A row arrives when a replica takes it into its batch: `arrival_ns`, `stream` and `deadline_ns` of the block are not read.
        Blocks are drawn as they are needed. A request of a backlog makes way for any other: it is thrown back to the front of its
        backlog when the next in line at its replica lacks a seat or cache, and is the first victim when the cache is full.

        Raises
        ------
        ValueError : the stream may have no backlog; or, when a row is drawn, a replica that takes the stream could never hold it.
        """

    @abstractmethod
    def drain_replica(self, t_ns: int, replica: int) -> None:
        """Stop admitting; waiting requests are redispatched, running ones finish. Draining twice changes nothing."""

    @abstractmethod
    def kill_replica(self, t_ns: int, *replicas: int) -> None:
        """Remove replicas together, at once; started requests lose their work and retry or fail, the others are redispatched."""

    @abstractmethod
    def throttle(self, t_ns: int, stream: int, admitted: int) -> None:
        """From now on admit `admitted` of 2^20 new arrivals of a stream; all of them with `layout.ALL_ADMITTED`.

        One is admitted if `mix64(tag, 0, THROTTLE) >> 44 < admitted`: a draw of its own random word, so that a larger share admits
        those of a smaller one and some more. The others leave at once as `throttled`. Whatever is in the system stays, and is never
        throttled when it is dispatched again; neither are the rows of a backlog.

        Raises
        ------
        ValueError : no such stream; a share out of range.
        """

    @abstractmethod
    def route(self, t_ns: int, stream: int, specs: Iterable[int]) -> None:
        """From now on dispatch, redispatch and pull requests of a stream only to replicas of these specs; all of them undo it.

        A request too long for all of these specs goes to any that accepts the stream. Requests that wait or run on a replica stay
        there, and those of a backlog are not routed. If it is another route than before, all replicas pull, by index: what waits in
        a service queue may now go to some of them.

        Raises
        ------
        ValueError : no such stream; no spec at all; a spec that does not accept the stream.
        """

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
    def client_done_ns(self) -> IntArray:
        """Return when each client last completed a request, int64, shape (clients, streams), by `client`; -1 for never.

        There is a row for every closed-loop client and every user (`PlaneConfig.known_clients`).
        """

    @abstractmethod
    def take_retired(self) -> list[ReplicaTotals]:
        """Return, once, the accounts of the replicas removed since the last call, in order of removal."""

    @abstractmethod
    def take_records(self) -> dict[str, IntArray]:
        """Return, once, the records written since the last call, by `layout.RECORD_COLUMNS`, in order of leaving."""

    @abstractmethod
    def close(self, t_ns: int) -> View:
        """End at `t_ns`: charge the elapsed part of steps in flight to their streams, record the unfinished, look."""


def backlog_rows(config: PlaneConfig, stream: int, blocks: Iterable[RequestBlock]) -> Iterator[RequestBlock]:
    """Yield the blocks of a backlog, checked.

    Raises
    ------
    ValueError : a row that some replica which takes the stream could never hold.
    """
    longest = config.longest_in_backlog(stream)
    for block in blocks:
        tokens = block.prompt_tokens + block.output_tokens
        if len(block) and tokens.max() > longest:
            raise ValueError(
                f"backlog of stream {stream}: a request of {tokens.max()} tokens, where at most {longest} fit everywhere"
            )
        yield block


def checked_rows(config: PlaneConfig, blocks: Iterable[RequestBlock]) -> Iterator[RequestBlock]:
    """Yield blocks of arrivals, checked.

    Raises
    ------
    ValueError : a request to a batcher whose `output_tokens` is not 1.
    """
    batched = [number for number in range(len(config.streams)) if config.goes_to_batchers(number)]
    for block in blocks:
        if batched and (block.output_tokens[np.isin(block.stream, batched)] != 1).any():
            raise ValueError("a request to a batcher has output_tokens = 1: its answer comes in one piece")
        yield block


def checked_share(config: PlaneConfig, stream: int, admitted: int) -> int:
    """Return the admitted share of a throttle.

    Raises
    ------
    ValueError : no such stream; a share out of range.
    """
    if not 0 <= stream < len(config.streams):
        raise ValueError(f"there is no stream {stream}")
    if not 0 <= admitted <= ALL_ADMITTED:
        raise ValueError(f"admitted = {admitted}: must be 0 to {ALL_ADMITTED}")
    return admitted
