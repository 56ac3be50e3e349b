"""The reference data plane: the specification of an LLM serving replica, one SimPy event per engine step, no tricks.

Read `layout.py` first (the order of events), then this file from top to bottom: a request arrives, is routed or waits,
a replica runs steps, requests leave; then what control may do: add, drain, kill, watch, look.
The one economy is that generated tokens are not counted up in every sequence: a sequence that joins a decode batch is given the
value of the replica's decode counter at which it will be finished, and the batch is a heap of those.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from heapq import heapify, heappop, heappush

import numpy as np
import simpy

from sim.dataplane.accounting import Accounts
from sim.dataplane.engine import DataPlane, Hit, IntArray, PlaneConfig, ReplicaSpec, ReplicaTotals, View, Watch
from sim.dataplane.layout import (
    ABANDONED,
    ARRIVED,
    CLOSED_ARRIVAL,
    COMPLETED,
    FAILED,
    FRAGMENT_TOKENS,
    LOST_OUTPUT_TOKENS,
    LOST_PREFILL_TOKENS,
    N_ABANDONED,
    N_FAILED,
    N_REJECTED_FULL,
    N_REJECTED_TOO_LONG,
    NEVER_NS,
    OPEN_ARRIVAL,
    OUTPUT_TOKENS,
    PREEMPTED,
    PREFILL_TOKENS,
    REDISPATCHED,
    REJECTED_CLIENT_PAUSE_NS,
    REJECTED_FULL,
    REJECTED_TOO_LONG,
    RETRIED,
    ROUTER_FIRST_DRAW,
    ROUTER_SECOND_DRAW,
    STEP_END,
    TIMER,
    UNFINISHED,
    USEFUL_PREFILL_TOKENS,
)
from sim.domain.traffic import BLOCK_DTYPES, NO_DEADLINE, ClosedClients, RequestBlock
from sim.perf.steptime import FRACTION_BITS, ONE_NS_FX, StepModel
from sim.policies.routers import POWER_OF_TWO, RANDOM, ROUND_ROBIN
from sim.rng import mix64

_COUNTER_OF = {
    FAILED: N_FAILED,
    ABANDONED: N_ABANDONED,
    REJECTED_FULL: N_REJECTED_FULL,
    REJECTED_TOO_LONG: N_REJECTED_TOO_LONG,
}


class _At(simpy.Event):
    """An event at an absolute time whose priority is its place in the order of `layout.py`."""

    def __init__(self, env: simpy.Environment, at_ns: int, order: int, act: Callable[[simpy.Event], None]) -> None:
        self.env, self.callbacks, self._ok, self._value = env, [act], True, None
        env.schedule(self, order, at_ns - env.now)  # type: ignore[arg-type]  # any integer orders; SimPy's own are 0 and 1


class _Request:
    """A request in the system. `need_tokens` is what its prefill must compute: the prompt, and tokens generated before a preemption."""

    __slots__ = (
        "admission", "arrival_ns", "attempt", "block_row", "cached_tokens", "client", "closed", "deadline_ns", "decode_share_before_ns",
        "finish_count", "first_token_ns", "generated", "level", "need_tokens", "number", "output_tokens", "preemptions",
        "prefill_share_ns", "prefilled", "prompt_tokens", "replica", "reserved", "session", "started", "stream", "tag", "turn",
    )  # fmt: skip

    def __init__(self, number: int, arrival_ns: int, row: tuple[int, ...], closed: bool, deadline_ns: int, level: int) -> None:
        self.number, self.arrival_ns, self.closed, self.deadline_ns, self.level = number, arrival_ns, closed, deadline_ns, level
        _, self.prompt_tokens, self.output_tokens, self.stream, self.client, self.session, self.turn, prefix, cached, _, self.tag = row
        self.cached_tokens = min(cached, self.prompt_tokens - 1) if prefix == 0 else 0
        self.attempt, self.preemptions, self.started = 1, 0, False
        self.generated, self.prefilled, self.need_tokens = 0, 0, 0
        self.first_token_ns, self.replica, self.reserved, self.admission, self.finish_count = -1, -1, 0, 0, 0
        self.prefill_share_ns, self.decode_share_before_ns = 0.0, 0.0

    def __lt__(self, other: _Request) -> bool:
        return self.number < other.number


class _Replica:
    """One engine instance: waiting lists by priority level, at most one partial prefill, a batch of decoding sequences."""

    def __init__(self, index: int, number: int, spec_number: int, spec: ReplicaSpec, step: StepModel, levels: int, streams: int, t_ns: int) -> None:
        self.index, self.number, self.spec, self.step, self.accepting = index, number, spec, step, True
        self.waiting: list[deque[_Request]] = [deque() for _ in range(levels)]
        self.partial: _Request | None = None
        self.decoding: list[tuple[int, int, _Request]] = []  # heap of (finish count, admission, request)
        self.decoding_by_stream = [0] * streams
        self.chunks: list[tuple[_Request, int]] = []  # prefill chunks of the step in flight
        self.decode_count = 0  # decode steps so far; a sequence is finished when it reaches its finish_count
        self.outstanding = self.reserved = self.used = self.context = self.admissions = 0
        self.step_end: _At | None = None
        self.step_start_ns = self.step_fx = self.fraction_fx = self.s_twice = self.n_out = 0
        self.idle_since_ns = t_ns
        self.decode_share_ns = 0.0  # cumulative time share of one decoding sequence
        self.totals = ReplicaTotals(number, spec_number, t_ns, [0.0] * streams)

    def has_room(self) -> bool:
        return self.accepting and self.outstanding < self.spec.max_outstanding

    def running(self) -> int:
        return len(self.decoding) + (self.partial is not None)

    def is_empty(self) -> bool:
        return self.step_end is None and not any(self.waiting)

    def features(self) -> tuple[float, ...]:
        started = self.running() + sum(1 for request, _ in self.chunks if request is not self.partial)
        spec = self.spec
        return (self.outstanding, self.outstanding - started, started, self.reserved, spec.kv_tokens, spec.seats, spec.weight)


class ReferencePlane(DataPlane):
    """The SimPy engine: short, slow, and right by definition."""

    def __init__(self, config: PlaneConfig, arrivals: Iterable[RequestBlock], clients: ClosedClients | None = None) -> None:
        self.config, self.accounts = config, Accounts(config)
        self.env = simpy.Environment(initial_time=config.start_ns)
        self._now_ns = config.start_ns
        self.replicas: list[_Replica | None] = []  # by index; None is a free index
        self.by_number: dict[int, _Replica] = {}
        self.retired: list[ReplicaTotals] = []
        self.levels = {priority: level for level, priority in enumerate(config.levels)}
        self.queues: list[list[deque[_Request]]] = [[deque() for _ in self.levels] for _ in config.max_queue]
        self.longest = [config.longest(stream) for stream in range(len(config.streams))]
        self.requests = self.replicas_added = 0
        self.last_pick = -1  # round robin; survives removals
        self.hits: deque[Hit] = deque()
        self.watches: dict[tuple[Watch, int], int] = {}
        self.draining = 0
        self.arrivals = self._rows(arrivals)
        self._schedule_open()
        self.clients = clients
        self.client_rows: list[Iterator[tuple[int, ...]]] = []
        for client in range(clients.clients if clients else 0):
            self.client_rows.append(self._client_rows(client))
            self._schedule_closed(client, config.start_ns)

    # Arrivals

    @staticmethod
    def _rows(blocks: Iterable[RequestBlock]) -> Iterator[tuple[int, ...]]:
        for block in blocks:
            yield from zip(*(getattr(block, name).tolist() for name in BLOCK_DTYPES), strict=True)

    def _client_rows(self, client: int) -> Iterator[tuple[int, ...]]:
        assert self.clients is not None
        number = 0
        while len(block := self.clients.rows(client, number)):
            yield from self._rows([block])
            number += 1

    def _schedule_open(self) -> None:
        row = next(self.arrivals, None)
        if row is not None:
            _At(self.env, row[0], OPEN_ARRIVAL, lambda _: self._open_arrival(row))

    def _open_arrival(self, row: tuple[int, ...]) -> None:
        self._now_ns = self.env.now  # type: ignore[assignment]
        self._arrive(row, closed=False)
        self._schedule_open()

    def _schedule_closed(self, client: int, from_ns: int) -> None:
        row = next(self.client_rows[client], None)
        if row is not None:
            _At(self.env, from_ns + row[0], CLOSED_ARRIVAL + client, lambda _: self._closed_arrival(client, row))

    def _closed_arrival(self, client: int, row: tuple[int, ...]) -> None:
        self._now_ns = self.env.now  # type: ignore[assignment]
        self._arrive((*row[:4], client, *row[5:]), closed=True)

    def _arrive(self, row: tuple[int, ...], closed: bool) -> None:
        t_ns, stream = self._now_ns, row[3]
        rules = self.config.streams[stream]
        deadline_ns = row[9] if row[9] != NO_DEADLINE else min(t_ns + rules.queue_timeout_ns, NEVER_NS)
        request = _Request(self.requests, t_ns, row, closed, deadline_ns, self.levels[rules.priority])
        self.requests += 1
        self.accounts.counters[stream][ARRIVED] += 1
        self.accounts.change_in_flight(t_ns, stream, +1)
        if request.prompt_tokens + request.output_tokens > self.longest[stream]:
            self._leave(request, REJECTED_TOO_LONG)
            return
        self.accounts.change_queued(t_ns, stream, +1)
        if self._dispatch(request):
            return
        if not any(replica and replica.accepting and replica.spec.accepts(stream) for replica in self.replicas):
            self._fire(Watch.ARRIVAL_WITHOUT_CAPACITY, rules.queue)
        self._expire_heads(rules.queue)
        if self._queue_length(rules.queue) >= self.config.max_queue[rules.queue]:
            self.accounts.change_queued(t_ns, stream, -1)
            self._leave(request, REJECTED_FULL)
            return
        self.queues[rules.queue][request.level].append(request)
        self._check_queue_above(rules.queue)

    # Routing and the service queues

    def _dispatch(self, request: _Request) -> bool:
        """Give a request to the router's choice; False if no replica that could hold it has room."""
        tokens = request.prompt_tokens + request.output_tokens
        candidates = [
            replica
            for replica in self.replicas
            if replica and replica.has_room() and replica.spec.accepts(request.stream) and replica.spec.holds(tokens)
        ]
        if not candidates:
            return False
        replica = self._choose(request, candidates)
        self._enqueue(replica, request)
        if replica.step_end is None:
            self._start_step(replica)
        return True

    def _choose(self, request: _Request, candidates: list[_Replica]) -> _Replica:
        router = self.config.router
        if router.mechanism == ROUND_ROBIN:
            chosen = next((replica for replica in candidates if replica.index > self.last_pick), candidates[0])
            self.last_pick = chosen.index
            return chosen
        if router.mechanism == RANDOM:
            return candidates[mix64(request.tag, request.attempt, ROUTER_FIRST_DRAW) % len(candidates)]
        if router.mechanism == POWER_OF_TWO:
            if len(candidates) == 1:
                return candidates[0]
            first = mix64(request.tag, request.attempt, ROUTER_FIRST_DRAW) % len(candidates)
            second = mix64(request.tag, request.attempt, ROUTER_SECOND_DRAW) % (len(candidates) - 1)
            second += second >= first
            return min(candidates[first], candidates[second], key=lambda replica: (replica.outstanding, replica.index))
        params = router.params()
        return min(candidates, key=lambda replica: (round(router.score(replica.features(), params), 9), replica.index))

    def _enqueue(self, replica: _Replica, request: _Request) -> None:
        replica.waiting[request.level].append(request)
        replica.outstanding += 1
        request.reserved = request.prompt_tokens + request.generated
        replica.reserved += request.reserved
        request.replica = replica.number

    def _queue_length(self, queue: int) -> int:
        return sum(len(level) for level in self.queues[queue])

    def _expire_heads(self, queue: int) -> None:
        for level in self.queues[queue]:
            while level and self._expired(level[0]):
                self._abandon(level.popleft())

    def _expired(self, request: _Request) -> bool:
        return not request.started and self._now_ns > request.deadline_ns

    def _abandon(self, request: _Request) -> None:
        self.accounts.change_queued(self._now_ns, request.stream, -1)
        self._leave(request, ABANDONED)

    def _pull(self, replica: _Replica, most: int = NEVER_NS) -> None:
        """Take requests from the service queues while there is room: highest level first, then the oldest head that fits here."""
        while most > 0 and replica.has_room() and any(level for queue in self.queues for level in queue):
            request = self._next_for(replica)
            if request is None:
                return
            self._enqueue(replica, request)
            most -= 1

    def _next_for(self, replica: _Replica) -> _Request | None:
        for queue in range(len(self.queues)):
            self._expire_heads(queue)
        for level in range(len(self.levels)):
            best: tuple[_Request, deque[_Request]] | None = None
            for queue in self.queues:
                for request in queue[level]:
                    tokens = request.prompt_tokens + request.output_tokens
                    if replica.spec.accepts(request.stream) and replica.spec.holds(tokens) and not self._expired(request):
                        if best is None or request < best[0]:
                            best = (request, queue[level])
                        break
            if best is not None:
                best[1].remove(best[0])
                return best[0]
        return None

    # A step

    def _start_step(self, replica: _Replica) -> None:
        """Preempt if decode growth would not fit, then continue the partial prefill, then admit; start the step if there is work."""
        spec, preempted = replica.spec, False
        while replica.used + len(replica.decoding) > spec.kv_tokens:
            self._preempt(replica)
            preempted = True
        decoding = len(replica.decoding)
        budget = spec.token_budget - decoding
        chunks: list[tuple[_Request, int]] = []
        if replica.partial is not None:
            chunk = min(replica.partial.need_tokens - replica.partial.prefilled, budget)
            chunks.append((replica.partial, chunk))
            budget -= chunk
        while not preempted and budget > 0 and decoding + len(chunks) < spec.seats:
            request = self._admissible(replica, running=decoding + len(chunks))
            if request is None:
                break
            chunk = min(request.need_tokens - request.prefilled, budget)
            chunks.append((request, chunk))
            budget -= chunk
        replica.chunks = chunks
        if not decoding and not chunks:
            replica.step_end = None
            replica.fraction_fx, replica.idle_since_ns = 0, self._now_ns
            self._check_idle(replica)
            return
        tokens, s_twice, completing = decoding, 0, 0
        replica.partial = None
        for request, chunk in chunks:
            before = request.prefilled + request.cached_tokens
            tokens += chunk
            s_twice += chunk * (2 * before + chunk)
            if request.prefilled + chunk == request.need_tokens:
                completing += 1
            else:
                replica.partial = request
        replica.s_twice, replica.n_out = s_twice, decoding + completing
        replica.step_fx = replica.step.step_fx(tokens, replica.n_out, s_twice, replica.context)
        replica.step_start_ns = self._now_ns
        end_fx = replica.fraction_fx + replica.step_fx
        replica.fraction_fx = end_fx & (ONE_NS_FX - 1)
        replica.step_end = _At(
            self.env, self._now_ns + (end_fx >> FRACTION_BITS), STEP_END + replica.index, lambda event: self._end_step(replica, event)
        )

    def _admissible(self, replica: _Replica, running: int) -> _Request | None:
        """Admit and return the head of the waiting lists if its whole prompt fits; expired heads leave and make room for a pull."""
        spec = replica.spec
        while waiting := next((level for level in replica.waiting if level), None):
            request = waiting[0]
            if self._expired(request):
                waiting.popleft()
                self._forget(replica, request)
                self._abandon(request)
                self._pull(replica, most=1)
                continue
            tokens = request.prompt_tokens + request.generated
            if replica.used + tokens + FRAGMENT_TOKENS > spec.kv_tokens - (spec.watermark_tokens if running else 0):
                return None
            waiting.popleft()
            self.accounts.change_queued(self._now_ns, request.stream, -1)
            if request.started:
                request.cached_tokens = 0
            request.started = True
            request.prefilled, request.need_tokens = 0, tokens - request.cached_tokens
            request.admission = replica.admissions
            replica.admissions += 1
            replica.used += tokens + FRAGMENT_TOKENS
            replica.reserved += tokens - request.reserved
            request.reserved = tokens
            return request
        return None

    def _preempt(self, replica: _Replica) -> None:
        """Throw out the lowest priority's latest admitted request: its cache is recomputed later, its tokens stay."""
        running = [entry[2] for entry in replica.decoding]
        if replica.partial is not None:
            running.append(replica.partial)
        victim = max(running, key=lambda request: (request.level, request.admission))
        self._stop_running(replica, victim)
        victim.preemptions += 1
        counters = self.accounts.counters[victim.stream]
        counters[PREEMPTED] += 1
        counters[LOST_PREFILL_TOKENS] += victim.prefilled
        self._charge_lost(replica, victim.stream, victim.prefill_share_ns)
        victim.prefill_share_ns, victim.prefilled = 0.0, 0
        self.accounts.change_queued(self._now_ns, victim.stream, +1)
        waiting = replica.waiting[victim.level]
        if len(self.levels) == 1:
            waiting.appendleft(victim)
        else:
            place = next((i for i, request in enumerate(waiting) if request.number > victim.number), len(waiting))
            waiting.insert(place, victim)

    def _stop_running(self, replica: _Replica, request: _Request) -> None:
        """Take a running request out of the batch; its generated tokens are counted out."""
        if request is replica.partial:
            replica.partial = None
        else:
            replica.decoding = [entry for entry in replica.decoding if entry[2] is not request]
            heapify(replica.decoding)
            self._leave_batch(replica, request)
        replica.used -= request.prompt_tokens + request.generated + FRAGMENT_TOKENS

    def _leave_batch(self, replica: _Replica, request: _Request) -> None:
        request.generated = request.output_tokens - (request.finish_count - replica.decode_count)
        request.decode_share_before_ns += replica.decode_share_ns
        replica.context -= request.prompt_tokens + request.generated
        replica.decoding_by_stream[request.stream] -= 1

    @staticmethod
    def _charge_lost(replica: _Replica, stream: int, share_ns: float) -> None:
        replica.totals.shares_ns[stream] -= share_ns
        replica.totals.lost_ns += share_ns

    def _end_step(self, replica: _Replica, event: simpy.Event) -> None:
        if replica.step_end is not event:
            return  # the replica was killed while this step ran
        self._now_ns = self.env.now  # type: ignore[assignment]
        self._account_step(replica, self._now_ns - replica.step_start_ns, 1.0)
        replica.step_end = None
        decoding = len(replica.decoding)
        replica.decode_count += 1
        replica.used += decoding
        replica.context += decoding
        done = []
        while replica.decoding and replica.decoding[0][0] == replica.decode_count:
            request = heappop(replica.decoding)[2]
            self._leave_batch(replica, request)
            replica.used -= request.prompt_tokens + request.generated + FRAGMENT_TOKENS
            done.append(request)
        for request, chunk in replica.chunks:
            request.prefilled += chunk
            if request.prefilled == request.need_tokens and self._first_token(replica, request):
                done.append(request)
        replica.chunks = []
        for request in sorted(done):
            self._forget(replica, request)
            self._leave(request, COMPLETED)
        if replica.accepting:
            self._pull(replica)
        self._start_step(replica)
        self._check_drained(replica)

    def _first_token(self, replica: _Replica, request: _Request) -> bool:
        """The end of a prefill emits the next token; True if it was the last one."""
        request.generated += 1
        self.accounts.counters[request.stream][OUTPUT_TOKENS] += 1
        replica.totals.output_tokens += 1
        if request.first_token_ns < 0:
            request.first_token_ns = self._now_ns
        if request.generated == request.output_tokens:
            replica.used -= request.prompt_tokens + request.generated - 1 + FRAGMENT_TOKENS
            return True
        replica.used += 1
        replica.context += request.prompt_tokens + request.generated
        request.finish_count = replica.decode_count + request.output_tokens - request.generated
        request.decode_share_before_ns -= replica.decode_share_ns
        replica.decoding_by_stream[request.stream] += 1
        heappush(replica.decoding, (request.finish_count, request.admission, request))
        return False

    def _account_step(self, replica: _Replica, elapsed_ns: int, tokens: float) -> None:
        """Charge the time and energy of a step: the marginal time of prefill to its owners, the rest equally to the decoding.

        `tokens` is 1 at a step's end; at the end of the run it is 0: a step cut off there has taken its time and made no tokens.
        """
        totals, decoding, chunks = replica.totals, len(replica.decoding), replica.chunks
        self._account_busy(replica, elapsed_ns)
        prefill = sum(chunk for _, chunk in chunks)
        part = 1.0 if tokens else elapsed_ns * ONE_NS_FX / replica.step_fx
        step_fx, context = replica.step_fx, replica.context
        totals.energy_j += part * replica.step.step_j(step_fx, decoding + prefill, replica.n_out, replica.s_twice, context)
        decode_ns = float(elapsed_ns)
        if chunks:
            fraction = 1.0 - replica.step.step_fx(decoding, decoding, 0, context) / step_fx if decoding else 1.0
            prefill_ns = elapsed_ns * fraction
            decode_ns -= prefill_ns
            for request, chunk in chunks:
                share_ns = prefill_ns * chunk / prefill
                totals.shares_ns[request.stream] += share_ns
                request.prefill_share_ns += share_ns
                if tokens:
                    self.accounts.counters[request.stream][PREFILL_TOKENS] += chunk
        if decoding:
            share_ns = decode_ns / decoding
            replica.decode_share_ns += share_ns
            for stream, count in enumerate(replica.decoding_by_stream):
                if count:
                    totals.shares_ns[stream] += share_ns * count
                    if tokens:
                        self.accounts.counters[stream][OUTPUT_TOKENS] += count
        if tokens:
            totals.steps += 1
            totals.prefill_tokens += prefill
            totals.output_tokens += decoding

    @staticmethod
    def _account_busy(replica: _Replica, elapsed_ns: int) -> None:
        totals = replica.totals
        totals.busy_ns += elapsed_ns
        if totals.drain_ns is not None:
            totals.draining_busy_ns += min(elapsed_ns, replica.step_start_ns + elapsed_ns - totals.drain_ns)

    # Leaving

    def _forget(self, replica: _Replica, request: _Request) -> None:
        replica.outstanding -= 1
        replica.reserved -= request.reserved

    def _leave(self, request: _Request, outcome: int) -> None:
        """A request leaves the system; a closed-loop client thinks and sends its next one."""
        t_ns, stream, counters = self._now_ns, request.stream, self.accounts.counters[request.stream]
        net_ns = 0
        if outcome == COMPLETED:
            net_ns = self.by_number[request.replica].spec.net_ns
            ttft_ns, e2e_ns = request.first_token_ns - request.arrival_ns + net_ns, t_ns - request.arrival_ns + net_ns
            self.accounts.completed(stream, request.prompt_tokens, request.output_tokens, ttft_ns, e2e_ns)
            counters[USEFUL_PREFILL_TOKENS] += request.prefilled
        elif outcome != UNFINISHED:
            counters[_COUNTER_OF[outcome]] += 1
        if self.accounts.wants_record(request.tag):
            self.accounts.records.append((
                request.number, stream, request.client, request.session, request.turn, request.arrival_ns, request.first_token_ns,
                t_ns, net_ns, request.prompt_tokens, request.output_tokens, request.attempt, request.preemptions,
                request.replica, outcome,
            ))  # fmt: skip
        if outcome == UNFINISHED:
            return
        self.accounts.change_in_flight(t_ns, stream, -1)
        if not self.accounts.in_flight[stream]:
            self._fire(Watch.BACKLOG_EMPTY, stream)
        if request.closed:
            rejected = outcome in (REJECTED_FULL, REJECTED_TOO_LONG)
            self._schedule_closed(request.client, t_ns + (REJECTED_CLIENT_PAUSE_NS if rejected else 0))

    # What control may do

    @property
    def now_ns(self) -> int:
        return self._now_ns

    def peek_ns(self) -> int:
        at = self.env.peek()
        return NEVER_NS if at == float("inf") else int(at)

    @property
    def may_stop(self) -> bool:
        return bool(self.hits or self.watches or self.draining)

    def advance(self, until_ns: int) -> Hit | None:
        env = self.env
        while not self.hits and env.peek() <= until_ns:
            env.step()
        if self.hits:
            return self.hits.popleft()
        self._now_ns = until_ns
        return None

    def add_replica(self, t_ns: int, spec: int) -> int:
        self._at(t_ns)
        index = next((i for i, replica in enumerate(self.replicas) if replica is None), len(self.replicas))
        if index == len(self.replicas):
            self.replicas.append(None)
        number, made = self.replicas_added, self.config.specs[spec]
        self.replicas_added += 1
        replica = _Replica(
            index, number, spec, made, self.config.steps[made.kind], len(self.levels), len(self.config.streams), t_ns
        )
        self.replicas[index] = self.by_number[number] = replica
        self._pull(replica)
        self._start_step(replica)
        return number

    def drain_replica(self, t_ns: int, replica: int) -> None:
        self._at(t_ns)
        drained = self.by_number[replica]
        if not drained.accepting:
            return
        drained.accepting = False
        drained.totals.drain_ns = t_ns
        self.draining += 1
        self._redispatch(drained)
        self._check_drained(drained)

    def kill_replica(self, t_ns: int, replica: int) -> None:
        self._at(t_ns)
        killed = self.by_number[replica]
        self.draining -= not killed.accepting
        killed.accepting = False
        if killed.step_end is not None:
            elapsed_ns = t_ns - killed.step_start_ns
            self._account_busy(killed, elapsed_ns)
            killed.totals.lost_ns += elapsed_ns
            prefill = sum(chunk for _, chunk in killed.chunks)
            tokens = len(killed.decoding) + prefill
            energy_j = killed.step.step_j(killed.step_fx, tokens, killed.n_out, killed.s_twice, killed.context)
            killed.totals.energy_j += energy_j * elapsed_ns * ONE_NS_FX / killed.step_fx
        running = [entry[2] for entry in killed.decoding]
        for request in running:
            self._leave_batch(killed, request)
        for request in running + [request for request, _ in killed.chunks]:
            self.accounts.counters[request.stream][LOST_PREFILL_TOKENS] += request.prefilled
            self.accounts.change_queued(t_ns, request.stream, +1)
            killed.waiting[request.level].append(request)
        for request in (request for level in killed.waiting for request in level):
            self._charge_lost(killed, request.stream, request.prefill_share_ns + request.decode_share_before_ns)
            request.prefill_share_ns, request.decode_share_before_ns, request.prefilled = 0.0, 0.0, 0
        self._retire(killed)
        self._redispatch(killed, killed=True)

    def _at(self, t_ns: int) -> None:
        if t_ns != self._now_ns:
            raise ValueError(f"control acts at {t_ns} ns, but the engine has been advanced to {self._now_ns} ns")

    def _redispatch(self, replica: _Replica, killed: bool = False) -> None:
        """Send a replica's waiting requests through the router in id order; from the first without room to the front of the queue."""
        leaving = sorted(request for level in replica.waiting for request in level)
        for level in replica.waiting:
            level.clear()
        back: list[_Request] = []
        full: set[int] = set()
        for request in leaving:
            self._forget(replica, request)
            if killed and request.started:
                if not self._retry(request):
                    continue
            else:
                self.accounts.counters[request.stream][REDISPATCHED] += 1
                request.decode_share_before_ns = 0.0  # stays charged to its stream on the replica where it was earned
            queue = self.config.streams[request.stream].queue
            if queue in full or not self._dispatch(request):
                full.add(queue)
                back.append(request)
        for request in reversed(back):
            self.queues[self.config.streams[request.stream].queue][request.level].appendleft(request)
        for queue in sorted(full):
            self._check_queue_above(queue)

    def _retry(self, request: _Request) -> bool:
        """Clear what a killed request had done and count the attempt; False if it was the last one and the request failed."""
        counters = self.accounts.counters[request.stream]
        counters[LOST_OUTPUT_TOKENS] += request.generated
        request.generated, request.first_token_ns = 0, -1
        if request.attempt >= self.config.streams[request.stream].max_attempts:
            self.accounts.change_queued(self._now_ns, request.stream, -1)
            self._leave(request, FAILED)
            return False
        request.attempt += 1
        counters[RETRIED] += 1
        return True

    def _check_drained(self, replica: _Replica) -> None:
        if not replica.accepting and replica.is_empty():
            self.draining -= 1
            self._retire(replica)
            self.hits.append(Hit(self._now_ns, Watch.DRAINED, replica.number))

    def _retire(self, replica: _Replica) -> None:
        replica.step_end = None
        replica.totals.removed_ns = self._now_ns
        self.replicas[replica.index] = None
        del self.by_number[replica.number]
        self.watches.pop((Watch.IDLE_SINCE, replica.number), None)
        self.retired.append(replica.totals)

    # Watches

    def watch(self, t_ns: int, reason: Watch, subject: int, level: int = 0) -> None:
        self._at(t_ns)
        self.watches[reason, subject] = level
        if reason is Watch.QUEUE_ABOVE:
            self._check_queue_above(subject)
        elif reason is Watch.BACKLOG_EMPTY and not self.accounts.in_flight[subject]:
            self._fire(reason, subject)
        elif reason is Watch.IDLE_SINCE and self.by_number[subject].step_end is None:
            self._check_idle(self.by_number[subject])

    def _fire(self, reason: Watch, subject: int) -> None:
        if self.watches.pop((reason, subject), None) is not None:
            self.hits.append(Hit(self._now_ns, reason, subject))

    def _check_queue_above(self, queue: int) -> None:
        level = self.watches.get((Watch.QUEUE_ABOVE, queue))
        if level is not None and self._queue_length(queue) > level:
            self._fire(Watch.QUEUE_ABOVE, queue)

    def _check_idle(self, replica: _Replica) -> None:
        """Set the timer of an idle watch; it does nothing if the replica has worked in between."""
        level = self.watches.get((Watch.IDLE_SINCE, replica.number))
        if level is None:
            return
        since_ns = replica.idle_since_ns

        def ring(_: simpy.Event) -> None:
            self._now_ns = self.env.now  # type: ignore[assignment]
            if replica.step_end is None and replica.idle_since_ns == since_ns:
                self._fire(Watch.IDLE_SINCE, replica.number)

        _At(self.env, max(since_ns + level, self._now_ns), TIMER + replica.index, ring)

    # Looking

    def view(self, t_ns: int) -> View:
        self._at(t_ns)
        accounts, here = self.accounts, [replica for replica in self.replicas if replica]
        ring_arrivals, ring_in_flight_us = accounts.ring.read(t_ns, sum(accounts.in_flight))

        def ints(values: Iterable[int]) -> IntArray:
            return np.fromiter(values, np.int64)

        def in_step_ns(replica: _Replica, since_ns: int) -> int:
            return t_ns - max(since_ns, replica.step_start_ns) if replica.step_end is not None else 0

        streams = len(self.config.streams)
        return View(
            time_ns=t_ns,
            counters=np.array(accounts.counters, np.int64),
            queued=ints(accounts.queued),
            in_flight=ints(accounts.in_flight),
            queued_us=accounts.queued_us(t_ns),
            in_flight_us=accounts.in_flight_us(t_ns),
            service_queue=ints(self._queue_length(queue) for queue in range(len(self.queues))),
            replica=ints(replica.number for replica in here),
            spec=ints(replica.totals.spec for replica in here),
            accepting=ints(replica.accepting for replica in here),
            waiting=ints(sum(len(level) for level in replica.waiting) for replica in here),
            running=ints(replica.outstanding - sum(len(level) for level in replica.waiting) for replica in here),
            outstanding=ints(replica.outstanding for replica in here),
            reserved_tokens=ints(replica.reserved for replica in here),
            kv_used_tokens=ints(replica.used for replica in here),
            busy_ns=ints(replica.totals.busy_ns + in_step_ns(replica, 0) for replica in here),
            draining_busy_ns=ints(
                replica.totals.draining_busy_ns
                + (in_step_ns(replica, replica.totals.drain_ns) if replica.totals.drain_ns is not None else 0)
                for replica in here
            ),
            steps=ints(replica.totals.steps for replica in here),
            prefill_tokens=ints(replica.totals.prefill_tokens for replica in here),
            output_tokens=ints(replica.totals.output_tokens for replica in here),
            lost_ns=np.array([replica.totals.lost_ns for replica in here], np.float64),
            energy_j=np.array([replica.totals.energy_j for replica in here], np.float64),
            shares_ns=np.array([replica.totals.shares_ns for replica in here], np.float64).reshape(-1, streams),
            ring_arrivals=ring_arrivals,
            ring_in_flight_us=ring_in_flight_us,
        )

    def histograms(self) -> IntArray:
        return self.accounts.histograms.copy()

    def take_retired(self) -> list[ReplicaTotals]:
        taken, self.retired = self.retired, []
        return taken

    def take_records(self) -> dict[str, IntArray]:
        return self.accounts.take_records()

    def close(self, t_ns: int) -> View:
        self._at(t_ns)
        left = [request for queue in self.queues for level in queue for request in level]
        for replica in self.by_number.values():
            left += [request for level in replica.waiting for request in level]
            left += [entry[2] for entry in replica.decoding]
            left += [request for request, _ in replica.chunks]
        for request in sorted(left):
            self._leave(request, UNFINISHED)
        for replica in self.by_number.values():
            if replica.step_end is not None:
                self._account_step(replica, t_ns - replica.step_start_ns, 0.0)
                replica.step_end = None
        return self.view(t_ns)
