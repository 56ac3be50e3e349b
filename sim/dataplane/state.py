"""The moving parts of the reference engine: an event at its place in the order, a request, a replica."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import simpy

from sim.dataplane.engine import ReplicaSpec, ReplicaTotals, StreamRules
from sim.dataplane.layout import FRAGMENT_TOKENS, NEVER_NS
from sim.perf.steptime import StepModel


class At(simpy.Event):
    """An event at an absolute time whose priority is its place in the order of `layout.py`."""

    def __init__(self, env: simpy.Environment, at_ns: int, order: int, act: Callable[[simpy.Event], None]) -> None:
        self.env, self.callbacks, self._ok, self._value = env, [act], True, None
        env.schedule(self, order, at_ns - env.now)  # type: ignore[arg-type]  # any integer orders; SimPy's own are 0 and 1


class Request:
    """A request in the system.

    `need_tokens` is what its prefill must compute (the prompt, and tokens generated before a preemption), `prefilled` how much of
    it is done since the last admission. `started` means admitted anywhere, ever. `level` is its priority, 0 for the highest.
    `backlog` means it came from a backlog; `late_waits` that its deadline does not make it leave.
    `waited` says what has kept it waiting, in the bits of `layout.WAITED_FOR_...`.
    """

    __slots__ = (
        "admission",
        "admitted_ns",
        "arrival_ns",
        "attempt",
        "backlog",
        "cached_tokens",
        "client",
        "closed",
        "deadline_ns",
        "decode_share_ns",
        "dispatched_ns",
        "finish_count",
        "first_token_ns",
        "generated",
        "late_waits",
        "level",
        "need_tokens",
        "number",
        "output_tokens",
        "preemptions",
        "prefill_share_ns",
        "prefilled",
        "prompt_tokens",
        "replica",
        "reserved",
        "session",
        "started",
        "stream",
        "tag",
        "turn",
        "waited",
    )

    def __init__(
        self, number: int, arrival_ns: int, row: tuple[int, ...], closed: bool, deadline_ns: int, rules: StreamRules, level: int
    ) -> None:
        _, prompt_tokens, output_tokens, stream, client, session, turn, prefix, prefix_tokens, _, tag = row
        self.number, self.arrival_ns, self.closed, self.deadline_ns, self.level = number, arrival_ns, closed, deadline_ns, level
        self.prompt_tokens, self.output_tokens, self.stream, self.tag = prompt_tokens, output_tokens, stream, tag
        self.client, self.session, self.turn = client, session, turn
        self.backlog, self.late_waits = False, rules.late_waits
        self.cached_tokens = min(prefix_tokens, prompt_tokens - 1) if prefix == 0 else 0
        self.attempt, self.preemptions, self.started, self.waited = 1, 0, False, 0
        self.dispatched_ns = self.admitted_ns = -1
        self.generated, self.prefilled, self.need_tokens = 0, 0, 0
        self.first_token_ns, self.replica, self.reserved, self.admission, self.finish_count = -1, -1, 0, 0, 0
        self.prefill_share_ns, self.decode_share_ns = 0.0, 0.0

    def __lt__(self, other: Request) -> bool:
        return self.number < other.number

    @property
    def tokens(self) -> int:
        """Prompt and output tokens: what it needs room for in the end."""
        return self.prompt_tokens + self.output_tokens


class Replica:
    """One engine instance: waiting lists by level, at most one partial prefill, a batch of decoding sequences.

    `used` is the KV in use, `context` the sum of decode contexts. `decode_count` counts decode steps; a sequence is finished when
    it reaches the sequence's `finish_count`. `decode_share_ns` is the cumulative time share of one decoding sequence.
    `outstanding` counts routed requests, `backlog` those in its batch that come from a backlog. `asks` means that it looks into
    the backlogs at its next step: something has left, or there is something new. A batcher has late requests and a timer, too.
    """

    def __init__(self, index: int, totals: ReplicaTotals, spec: ReplicaSpec, step: StepModel, levels: int) -> None:
        self.index, self.number, self.spec, self.step, self.totals = index, totals.replica, spec, step, totals
        self.accepting = True
        self.waiting: list[deque[Request]] = [deque() for _ in range(levels)]
        self.late: list[deque[Request]] = [deque() for _ in range(levels)]
        self.look_again_ns = NEVER_NS
        self.timer: At | None = None
        self.asks = True
        self.partial: Request | None = None
        self.decoding: list[tuple[int, int, Request]] = []  # heap of (finish count, admission, request)
        self.decoding_by_stream = [0] * len(totals.shares_ns)
        self.chunks: list[tuple[Request, int]] = []  # prefill chunks of the step in flight
        self.outstanding = self.backlog = self.running = self.reserved = self.used = self.context = 0
        self.admissions = self.decode_count = 0
        self.step_end: At | None = None
        self.step_start_ns = self.step_fx = self.fraction_fx = self.s_twice = self.n_out = 0
        self.idle_since_ns = totals.added_ns
        self.decode_share_ns = 0.0

    def has_room(self) -> bool:
        """Whether another request may come here."""
        return self.accepting and self.outstanding < self.spec.max_outstanding

    @property
    def load(self) -> int:
        """Requests waiting and running here, those of backlogs included: what routers balance."""
        return self.outstanding + self.backlog

    def batcher_is_full(self, level: int, most: int) -> bool:
        """Whether as many requests of a level wait here as a batcher allows."""
        return self.spec.batcher is not None and len(self.waiting[level]) + len(self.late[level]) >= most

    def room(self, running: int) -> int:
        """KV tokens that may be in use after an admission beside so many running requests."""
        return self.spec.kv_tokens - (self.spec.watermark_tokens if running else 0)

    def used_by_tokens(self, tokens: int) -> int:
        """KV tokens that a request of so many tokens takes, with half a block of fragmentation; a batcher has no such cache."""
        return tokens + FRAGMENT_TOKENS if self.spec.batcher is None else 0

    def used_by(self, decoding: Request) -> int:
        """KV tokens that a decoding request takes now."""
        generated = decoding.output_tokens - (decoding.finish_count - self.decode_count)
        return self.used_by_tokens(decoding.prompt_tokens + generated)

    def is_empty(self) -> bool:
        """Whether it has nothing to do."""
        return self.step_end is None and not self.outstanding

    def all_waiting(self) -> Iterator[Request]:
        """The waiting requests, level by level."""
        for level in (*self.waiting, *self.late):
            yield from level

    def all_running(self) -> list[Request]:
        """The decoding requests, then those with a prefill chunk in the step in flight."""
        return [entry[2] for entry in self.decoding] + [request for request, _ in self.chunks]

    def features(self) -> tuple[float, ...]:
        """What a router may look at, in the order of `policies.routers.FEATURES`."""
        spec, waiting = self.spec, self.outstanding + self.backlog - self.running
        return (self.load, waiting, self.running, self.reserved, spec.kv_tokens, spec.seats, spec.weight)

    def account_busy(self, elapsed_ns: int) -> None:
        """Count time stepping since the start of the step, split at the drain order."""
        totals = self.totals
        totals.busy_ns += elapsed_ns
        if totals.drain_ns is not None:
            totals.draining_busy_ns += min(elapsed_ns, self.step_start_ns + elapsed_ns - totals.drain_ns)

    def step_energy_j(self) -> float:
        """Energy of the step in flight."""
        tokens = len(self.decoding) + sum(chunk for _, chunk in self.chunks)
        return self.step.step_j(self.step_fx, tokens, self.n_out, self.s_twice, self.context, len(self.decoding))

    def charge_shares(self, elapsed_ns: int) -> None:
        """Charge time to streams: the marginal time of prefill to its owners by chunk, the rest equally to the decoding.

        The marginal time is taken against the same step without its chunks; where nothing decodes it is all of it.
        """
        shares_ns, decoding, decode_ns = self.totals.shares_ns, len(self.decoding), float(elapsed_ns)
        if self.chunks:
            prefill = sum(chunk for _, chunk in self.chunks)
            alone_fx = self.step.step_fx(decoding, decoding, 0, self.context, decoding) if decoding else 0
            prefill_ns = elapsed_ns * (1.0 - alone_fx / self.step_fx)
            decode_ns -= prefill_ns
            for request, chunk in self.chunks:
                share_ns = prefill_ns * chunk / prefill
                shares_ns[request.stream] += share_ns
                request.prefill_share_ns += share_ns
        if decoding:
            share_ns = decode_ns / decoding
            self.decode_share_ns += share_ns
            for stream, count in enumerate(self.decoding_by_stream):
                shares_ns[stream] += share_ns * count

    def charge_lost(self, request: Request, share_ns: float) -> None:
        """Move time from a request's stream to lost."""
        self.totals.shares_ns[request.stream] -= share_ns
        self.totals.lost_ns += share_ns

    def leave_batch(self, request: Request) -> None:
        """Count out what a decoding request has generated and free its place."""
        request.generated = request.output_tokens - (request.finish_count - self.decode_count)
        request.decode_share_ns += self.decode_share_ns
        self.context -= request.prompt_tokens + request.generated
        self.decoding_by_stream[request.stream] -= 1
