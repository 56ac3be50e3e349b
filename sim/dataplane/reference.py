"""The reference data plane: the specification of an LLM serving replica, one SimPy event per engine step, no tricks.

Read `layout.py` first (the order of events), then this file from top to bottom: a request arrives, is routed or waits,
a replica runs steps, requests leave; then what control may do: add, drain, kill, watch, look.
The one economy is that generated tokens are not counted up in every sequence: a sequence that joins a decode batch is given the
value of the replica's decode counter at which it will be finished, and the batch is a heap of those.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heappush

import simpy

from sim.dataplane import layout
from sim.dataplane.accounting import Accounts
from sim.dataplane.engine import DataPlane, Hit, IntArray, PlaneConfig, ReplicaTotals, View, Watch
from sim.dataplane.looking import look
from sim.dataplane.routing import choose
from sim.dataplane.state import At, Replica, Request
from sim.domain.traffic import BLOCK_DTYPES, NO_DEADLINE, ClosedClients, RequestBlock
from sim.perf.steptime import FRACTION_BITS, ONE_NS_FX

_COUNTER_OF = {
    layout.FAILED: layout.N_FAILED,
    layout.ABANDONED: layout.N_ABANDONED,
    layout.REJECTED_FULL: layout.N_REJECTED_FULL,
    layout.REJECTED_TOO_LONG: layout.N_REJECTED_TOO_LONG,
}


class ReferencePlane(DataPlane):
    """The SimPy engine: short, slow, and right by definition."""

    def __init__(self, config: PlaneConfig, arrivals: Iterable[RequestBlock], clients: ClosedClients | None = None) -> None:
        self.config, self.accounts = config, Accounts(config)
        self.env = simpy.Environment(initial_time=config.start_ns)
        self._now_ns = config.start_ns
        self.replicas: list[Replica | None] = []  # by index; None is a free index
        self.by_number: dict[int, Replica] = {}
        self.retired: list[ReplicaTotals] = []
        self.levels = {priority: level for level, priority in enumerate(config.levels)}
        self.queues: list[list[deque[Request]]] = [[deque() for _ in self.levels] for _ in config.max_queue]
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
            At(self.env, row[0], layout.OPEN_ARRIVAL, lambda _: self._open_arrival(row))

    def _open_arrival(self, row: tuple[int, ...]) -> None:
        self._now_ns = int(self.env.now)
        self._arrive(row, closed=False)
        self._schedule_open()

    def _schedule_closed(self, client: int, from_ns: int) -> None:
        row = next(self.client_rows[client], None)
        if row is not None:
            At(self.env, from_ns + row[0], layout.CLOSED_ARRIVAL + client, lambda _: self._closed_arrival(client, row))

    def _closed_arrival(self, client: int, row: tuple[int, ...]) -> None:
        self._now_ns = int(self.env.now)
        self._arrive((*row[:4], client, *row[5:]), closed=True)

    def _arrive(self, row: tuple[int, ...], closed: bool) -> None:
        t_ns, stream = self._now_ns, row[3]
        rules = self.config.streams[stream]
        deadline_ns = row[9] if row[9] != NO_DEADLINE else min(t_ns + rules.queue_timeout_ns, layout.NEVER_NS)
        request = Request(self.requests, t_ns, row, closed, deadline_ns, self.levels[rules.priority])
        self.requests += 1
        self.accounts.counters[stream][layout.ARRIVED] += 1
        self.accounts.change_in_flight(t_ns, stream, +1)
        if request.prompt_tokens + request.output_tokens > self.longest[stream]:
            self._leave(request, layout.REJECTED_TOO_LONG)
            return
        self.accounts.change_queued(t_ns, stream, +1)
        if self._dispatch(request):
            return
        if not any(replica and replica.accepting and replica.spec.accepts(stream) for replica in self.replicas):
            self._fire(Watch.ARRIVAL_WITHOUT_CAPACITY, rules.queue)
        self._expire_heads(rules.queue)
        if self._queue_length(rules.queue) >= self.config.max_queue[rules.queue]:
            self.accounts.change_queued(t_ns, stream, -1)
            self._leave(request, layout.REJECTED_FULL)
            return
        request.waited |= layout.WAITED_FOR_ROOM
        self.queues[rules.queue][request.level].append(request)
        self._check_queue_above(rules.queue)

    # Routing and the service queues

    def _dispatch(self, request: Request) -> bool:
        """Give a request to the router's choice; False if no replica that could hold it has room."""
        stream, tokens = request.stream, request.tokens
        candidates = [
            replica
            for replica in self.replicas
            if replica and replica.has_room() and replica.spec.accepts(stream) and replica.spec.holds(tokens)
        ]
        if not candidates:
            return False
        replica = choose(self.config.router, request, candidates, self.last_pick)
        self.last_pick = replica.index
        self._enqueue(replica, request)
        if replica.step_end is None:
            self._start_step(replica)
        return True

    def _enqueue(self, replica: Replica, request: Request) -> None:
        replica.waiting[request.level].append(request)
        replica.outstanding += 1
        request.reserved = request.prompt_tokens + request.generated
        replica.reserved += request.reserved
        request.replica, request.dispatched_ns = replica.number, self._now_ns

    def _queue_length(self, queue: int) -> int:
        return sum(len(level) for level in self.queues[queue])

    def _expire_heads(self, queue: int) -> None:
        for level in self.queues[queue]:
            while level and self._expired(level[0]):
                self._abandon(level.popleft())

    def _expired(self, request: Request) -> bool:
        return not request.started and self._now_ns > request.deadline_ns

    def _abandon(self, request: Request) -> None:
        self.accounts.change_queued(self._now_ns, request.stream, -1)
        self._leave(request, layout.ABANDONED)

    def _pull(self, replica: Replica, most: int = layout.NEVER_NS) -> None:
        """Take requests from the service queues while there is room: highest level first, then the oldest head that fits here."""
        while most > 0 and replica.has_room() and any(level for queue in self.queues for level in queue):
            request = self._next_for(replica)
            if request is None:
                return
            self._enqueue(replica, request)
            most -= 1

    def _next_for(self, replica: Replica) -> Request | None:
        for number in range(len(self.queues)):
            self._expire_heads(number)
        for level in range(len(self.levels)):
            best: tuple[Request, deque[Request]] | None = None
            for queue in self.queues:
                for request in queue[level]:
                    if replica.spec.accepts(request.stream) and replica.spec.holds(request.tokens) and not self._expired(request):
                        if best is None or request < best[0]:
                            best = (request, queue[level])
                        break
            if best is not None:
                best[1].remove(best[0])
                return best[0]
        return None

    # A step

    def _start_step(self, replica: Replica) -> None:
        """Preempt if decode growth would not fit, continue the partial prefill, admit; then run what there is to do."""
        spec, preempted = replica.spec, False
        while replica.used + len(replica.decoding) > spec.kv_tokens:
            self._preempt(replica)
            preempted = True
        decoding = len(replica.decoding)
        budget = spec.token_budget - decoding
        chunks: list[tuple[Request, int]] = []
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
        replica.step_end = At(
            self.env,
            self._now_ns + (end_fx >> FRACTION_BITS),
            layout.STEP_END + replica.index,
            lambda event: self._end_step(replica, event),
        )

    def _admissible(self, replica: Replica, running: int) -> Request | None:
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
            if replica.used + tokens + layout.FRAGMENT_TOKENS > spec.kv_tokens - (spec.watermark_tokens if running else 0):
                request.waited |= layout.WAITED_FOR_KV
                return None
            waiting.popleft()
            self.accounts.change_queued(self._now_ns, request.stream, -1)
            if request.started:
                request.cached_tokens = 0
            request.started = True
            request.prefilled, request.need_tokens = 0, tokens - request.cached_tokens
            request.admission, request.admitted_ns = replica.admissions, self._now_ns
            replica.admissions += 1
            replica.running += 1
            replica.used += tokens + layout.FRAGMENT_TOKENS
            replica.reserved += tokens - request.reserved
            request.reserved = tokens
            return request
        return None

    def _preempt(self, replica: Replica) -> None:
        """Throw out the lowest priority's latest admitted request: its cache is recomputed later, its tokens stay."""
        running = [entry[2] for entry in replica.decoding]
        if replica.partial is not None:
            running.append(replica.partial)
        victim = max(running, key=lambda request: (request.level, request.admission))
        self._stop_running(replica, victim)
        replica.running -= 1
        victim.preemptions += 1
        counters = self.accounts.counters[victim.stream]
        counters[layout.PREEMPTED] += 1
        counters[layout.LOST_PREFILL_TOKENS] += victim.prefilled
        replica.charge_lost(victim, victim.prefill_share_ns)
        victim.prefill_share_ns, victim.prefilled = 0.0, 0
        self.accounts.change_queued(self._now_ns, victim.stream, +1)
        waiting = replica.waiting[victim.level]
        if len(self.levels) == 1:
            waiting.appendleft(victim)
        else:
            place = next((i for i, request in enumerate(waiting) if request.number > victim.number), len(waiting))
            waiting.insert(place, victim)

    def _stop_running(self, replica: Replica, request: Request) -> None:
        """Take a running request out of the batch; its generated tokens are counted out."""
        if request is replica.partial:
            replica.partial = None
        else:
            replica.decoding = [entry for entry in replica.decoding if entry[2] is not request]
            heapify(replica.decoding)
            replica.leave_batch(request)
        replica.used -= request.prompt_tokens + request.generated + layout.FRAGMENT_TOKENS

    def _end_step(self, replica: Replica, event: simpy.Event) -> None:
        if replica.step_end is not event:
            return  # the replica was killed while this step ran
        self._now_ns = int(self.env.now)
        self._account_step(replica)
        replica.step_end = None
        decoding = len(replica.decoding)
        replica.decode_count += 1
        replica.used += decoding
        replica.context += decoding
        done = []
        while replica.decoding and replica.decoding[0][0] == replica.decode_count:
            request = heappop(replica.decoding)[2]
            replica.leave_batch(request)
            replica.used -= request.prompt_tokens + request.generated + layout.FRAGMENT_TOKENS
            done.append(request)
        for request, chunk in replica.chunks:
            request.prefilled += chunk
            if request.prefilled == request.need_tokens and self._first_token(replica, request):
                done.append(request)
        replica.chunks = []
        for request in sorted(done):
            replica.running -= 1
            self._forget(replica, request)
            self._leave(request, layout.COMPLETED)
        if replica.accepting:
            self._pull(replica)
        self._start_step(replica)
        self._check_drained(replica)

    def _account_step(self, replica: Replica) -> None:
        """Charge the time, energy and tokens of a step that ends now."""
        totals, counters = replica.totals, self.accounts.counters
        elapsed_ns = self._now_ns - replica.step_start_ns
        replica.account_busy(elapsed_ns)
        replica.charge_shares(elapsed_ns)
        totals.energy_j += replica.step_energy_j()
        totals.steps += 1
        totals.output_tokens += len(replica.decoding)
        for stream, count in enumerate(replica.decoding_by_stream):
            counters[stream][layout.OUTPUT_TOKENS] += count
        for request, chunk in replica.chunks:
            totals.prefill_tokens += chunk
            counters[request.stream][layout.PREFILL_TOKENS] += chunk

    def _first_token(self, replica: Replica, request: Request) -> bool:
        """The end of a prefill emits the next token; True if it was the last one."""
        request.generated += 1
        self.accounts.counters[request.stream][layout.OUTPUT_TOKENS] += 1
        replica.totals.output_tokens += 1
        if request.first_token_ns < 0:
            request.first_token_ns = self._now_ns
        if request.generated == request.output_tokens:
            replica.used -= request.prompt_tokens + request.generated - 1 + layout.FRAGMENT_TOKENS
            return True
        replica.used += 1
        replica.context += request.prompt_tokens + request.generated
        request.finish_count = replica.decode_count + request.output_tokens - request.generated
        request.decode_share_ns -= replica.decode_share_ns
        replica.decoding_by_stream[request.stream] += 1
        heappush(replica.decoding, (request.finish_count, request.admission, request))
        return False

    # Leaving

    def _forget(self, replica: Replica, request: Request) -> None:
        replica.outstanding -= 1
        replica.reserved -= request.reserved

    def _leave(self, request: Request, outcome: int) -> None:
        """A request leaves the system; a closed-loop client thinks and sends its next one."""
        t_ns, stream, counters = self._now_ns, request.stream, self.accounts.counters[request.stream]
        net_ns, good = 0, outcome in (layout.UNFINISHED, layout.REJECTED_TOO_LONG)
        if outcome == layout.COMPLETED:
            net_ns = self.by_number[request.replica].spec.net_ns
            ttft_ns, e2e_ns = request.first_token_ns - request.arrival_ns + net_ns, t_ns - request.arrival_ns + net_ns
            good = self.accounts.completed(stream, request.prompt_tokens, request.output_tokens, ttft_ns, e2e_ns)
            counters[layout.USEFUL_PREFILL_TOKENS] += request.prefilled
        elif outcome != layout.UNFINISHED:
            counters[_COUNTER_OF[outcome]] += 1
        if not good:
            self.accounts.missed(stream, outcome, request.attempt, request.preemptions, request.waited)
        if self.accounts.wants_record(request.tag):
            self.accounts.records.append((
                request.number, stream, request.client, request.session, request.turn, request.arrival_ns, request.first_token_ns,
                t_ns, net_ns, request.prompt_tokens, request.output_tokens, request.attempt, request.preemptions,
                request.replica, outcome, request.dispatched_ns, request.admitted_ns,
            ))  # fmt: skip
        if outcome == layout.UNFINISHED:
            return
        self.accounts.change_in_flight(t_ns, stream, -1)
        if not self.accounts.in_flight[stream]:
            self._fire(Watch.BACKLOG_EMPTY, stream)
        if request.closed:
            rejected = outcome in (layout.REJECTED_FULL, layout.REJECTED_TOO_LONG)
            self._schedule_closed(request.client, t_ns + (layout.REJECTED_CLIENT_PAUSE_NS if rejected else 0))

    # What control may do

    @property
    def now_ns(self) -> int:
        return self._now_ns

    def peek_ns(self) -> int:
        at = self.env.peek()
        return layout.NEVER_NS if at == float("inf") else int(at)

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
        made = self.config.specs[spec]
        totals = ReplicaTotals(self.replicas_added, spec, t_ns, [0.0] * len(self.config.streams))
        self.replicas_added += 1
        replica = Replica(index, totals, made, self.config.steps[made.kind], len(self.levels))
        self.replicas[index] = self.by_number[replica.number] = replica
        self._pull(replica)
        self._start_step(replica)
        return replica.number

    def drain_replica(self, t_ns: int, replica: int) -> None:
        self._at(t_ns)
        drained = self.by_number[replica]
        if not drained.accepting:
            return
        drained.accepting = False
        drained.totals.drain_ns = t_ns
        self.draining += 1
        leaving = sorted(drained.all_waiting())
        for level in drained.waiting:
            level.clear()
        for request in leaving:
            self._forget(drained, request)
            request.decode_share_ns = 0.0  # stays charged to its stream on the replica where it was earned
        self._redispatch(leaving)
        self._check_drained(drained)

    def kill_replica(self, t_ns: int, *replicas: int) -> None:
        self._at(t_ns)
        leaving: list[Request] = []
        for killed in [self.by_number[replica] for replica in replicas]:
            self.draining -= not killed.accepting
            leaving += self._lose_work(killed)
            self._retire(killed)
        self._redispatch([request for request in sorted(leaving) if not request.started or self._retry(request)])

    def _lose_work(self, killed: Replica) -> list[Request]:
        """Charge to lost what a dying replica has done for the requests on it, the step in flight included; return them all."""
        if killed.step_end is not None:
            elapsed_ns = self._now_ns - killed.step_start_ns
            killed.account_busy(elapsed_ns)
            killed.totals.lost_ns += elapsed_ns
            killed.totals.energy_j += killed.step_energy_j() * elapsed_ns * ONE_NS_FX / killed.step_fx
        for _, _, request in killed.decoding:
            killed.leave_batch(request)
        running = killed.all_running()
        for request in running:
            self.accounts.counters[request.stream][layout.LOST_PREFILL_TOKENS] += request.prefilled
            self.accounts.change_queued(self._now_ns, request.stream, +1)
        everything = [*killed.all_waiting(), *running]
        for request in everything:
            killed.charge_lost(request, request.prefill_share_ns + request.decode_share_ns)
            request.prefill_share_ns, request.decode_share_ns, request.prefilled = 0.0, 0.0, 0
        return everything

    def _at(self, t_ns: int) -> None:
        if t_ns != self._now_ns:
            raise ValueError(f"control acts at {t_ns} ns, but the engine has been advanced to {self._now_ns} ns")

    def _redispatch(self, leaving: list[Request]) -> None:
        """Send requests through the router in id order; those that find no room go to the front of their queue, in that order."""
        back: list[Request] = []
        full: set[int] = set()
        for request in leaving:
            self.accounts.counters[request.stream][layout.REDISPATCHED] += 1
            queue = self.config.streams[request.stream].queue
            if not self._dispatch(request):
                full.add(queue)
                back.append(request)
        for request in reversed(back):
            request.waited |= layout.WAITED_FOR_ROOM
            self.queues[self.config.streams[request.stream].queue][request.level].appendleft(request)
        for queue in sorted(full):
            self._check_queue_above(queue)

    def _retry(self, request: Request) -> bool:
        """Clear what a killed request had done and count the attempt; False if it was the last one and the request failed."""
        counters = self.accounts.counters[request.stream]
        counters[layout.LOST_OUTPUT_TOKENS] += request.generated
        request.generated, request.first_token_ns = 0, -1
        if request.attempt >= self.config.streams[request.stream].max_attempts:
            self.accounts.change_queued(self._now_ns, request.stream, -1)
            self._leave(request, layout.FAILED)
            return False
        request.attempt += 1
        counters[layout.RETRIED] += 1
        return True

    def _check_drained(self, replica: Replica) -> None:
        if not replica.accepting and replica.is_empty():
            self.draining -= 1
            self._retire(replica)
            self.hits.append(Hit(self._now_ns, Watch.DRAINED, replica.number))

    def _retire(self, replica: Replica) -> None:
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

    def _check_idle(self, replica: Replica) -> None:
        """Set the timer of an idle watch; it does nothing if the replica has worked or the watch was set anew in between."""
        key, since_ns = (Watch.IDLE_SINCE, replica.number), replica.idle_since_ns
        level = self.watches.get(key)
        if level is None:
            return

        def ring(_: simpy.Event) -> None:
            self._now_ns = int(self.env.now)
            if replica.step_end is None and replica.idle_since_ns == since_ns and self.watches.get(key) == level:
                self._fire(Watch.IDLE_SINCE, replica.number)

        At(self.env, max(since_ns + level, self._now_ns), layout.TIMER + replica.index, ring)

    # Looking

    def view(self, t_ns: int) -> View:
        self._at(t_ns)
        lengths = [self._queue_length(queue) for queue in range(len(self.queues))]
        return look(t_ns, self.accounts, lengths, [replica for replica in self.replicas if replica])

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
            left += [*replica.all_waiting(), *replica.all_running()]
            if replica.step_end is not None:
                elapsed_ns = t_ns - replica.step_start_ns
                replica.account_busy(elapsed_ns)
                replica.charge_shares(elapsed_ns)
                replica.totals.energy_j += replica.step_energy_j() * elapsed_ns * ONE_NS_FX / replica.step_fx
                replica.step_end = None
        for request in sorted(left):
            self._leave(request, layout.UNFINISHED)
        return self.view(t_ns)
