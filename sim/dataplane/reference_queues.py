"""The reference engine, first part: requests arrive, are routed or wait in a service queue, and leave."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np
import simpy

from sim.dataplane import layout
from sim.dataplane.accounting import Accounts
from sim.dataplane.backlogs import Backlog
from sim.dataplane.engine import DataPlane, Hit, PlaneConfig, ReplicaTotals, Watch, checked_rows
from sim.dataplane.routing import choose
from sim.dataplane.state import At, Replica, Request
from sim.domain.traffic import BLOCK_DTYPES, NO_DEADLINE, ClosedClients, RequestBlock
from sim.rng import mix64

_COUNTER_OF = {
    layout.FAILED: layout.N_FAILED,
    layout.ABANDONED: layout.N_ABANDONED,
    layout.REJECTED_FULL: layout.N_REJECTED_FULL,
    layout.REJECTED_TOO_LONG: layout.N_REJECTED_TOO_LONG,
    layout.REJECTED_THROTTLED: layout.N_REJECTED_THROTTLED,
}


class Queues(DataPlane):
    """Everything but what happens on a replica."""

    def __init__(self, config: PlaneConfig, arrivals: Iterable[RequestBlock], clients: ClosedClients | None = None) -> None:
        self.config, self.accounts = config, Accounts(config)
        self.env = simpy.Environment(initial_time=config.start_ns)
        self._now_ns = config.start_ns
        self.replicas: list[Replica | None] = []  # by index; None is a free index
        self.by_number: dict[int, Replica] = {}
        self.retired: list[ReplicaTotals] = []
        self.levels = {priority: level for level, priority in enumerate(config.levels)}
        self.queues: list[list[deque[Request]]] = [[deque() for _ in self.levels] for _ in config.max_queue]
        self.backlogs = [Backlog(stream, self.levels[config.streams[stream].priority]) for stream in config.backlogs]
        self.offered = False  # a backlog that was empty has something
        self.longest = [config.longest(stream) for stream in range(len(config.streams))]
        self.admitted = [layout.ALL_ADMITTED] * len(config.streams)
        self.routes = [config.everywhere(stream) for stream in range(len(config.streams))]
        self.requests = self.replicas_added = 0
        self.last_pick = -1  # round robin; survives removals
        self.hits: deque[Hit] = deque()
        self.watches: dict[tuple[Watch, int], int] = {}
        self.draining = 0
        self.arrivals = self._rows(checked_rows(config, arrivals))
        self._schedule_open()
        self.clients = clients
        self.done_ns = np.full((config.known_clients(clients.clients if clients else 0), len(config.streams)), -1, np.int64)
        self.client_rows: list[Iterator[tuple[int, ...]]] = []
        for client in range(clients.clients if clients else 0):
            self.client_rows.append(self._client_rows(client))
            self._schedule_closed(client, config.start_ns)

    @abstractmethod
    def _start_step(self, replica: Replica) -> None:
        """Let a replica that runs nothing begin with what it has."""

    # Arrivals

    @staticmethod
    def _rows(blocks: Iterable[RequestBlock]) -> Iterator[tuple[int, ...]]:
        for block in blocks:
            yield from zip(*(getattr(block, name).tolist() for name in BLOCK_DTYPES), strict=True)

    def _client_rows(self, client: int) -> Iterator[tuple[int, ...]]:
        assert self.clients is not None
        number = 0
        while len(block := self.clients.rows(client, number)):
            yield from self._rows(checked_rows(self.config, [block]))
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
        request = self._new(row, closed)
        t_ns, stream = self._now_ns, request.stream
        rules = self.config.streams[stream]
        if request.prompt_tokens + request.output_tokens > self.longest[stream]:
            self._leave(request, layout.REJECTED_TOO_LONG)
            return
        if mix64(request.tag, 0, layout.THROTTLE) >> (64 - layout.ADMITTED_BITS) >= self.admitted[stream]:
            self._leave(request, layout.REJECTED_THROTTLED)
            return
        self.accounts.change_queued(t_ns, stream, +1)
        if self._dispatch(request, is_new=True):
            return
        if not any(replica and replica.accepting and self._may_go(request, replica) for replica in self.replicas):
            self._fire(Watch.ARRIVAL_WITHOUT_CAPACITY, rules.queue)
        self._expire_heads(rules.queue)
        if self._queue_length(rules.queue) >= self.config.max_queue[rules.queue]:
            self.accounts.change_queued(t_ns, stream, -1)
            self._leave(request, layout.REJECTED_FULL)
            return
        request.waited |= layout.WAITED_FOR_ROOM
        self.queues[rules.queue][request.level].append(request)
        self._check_queue_above(rules.queue)

    def _new(self, row: tuple[int, ...], closed: bool) -> Request:
        t_ns, stream = self._now_ns, row[3]
        rules = self.config.streams[stream]
        deadline_ns = row[9] if row[9] != NO_DEADLINE else min(t_ns + rules.queue_timeout_ns, layout.NEVER_NS)
        request = Request(self.requests, t_ns, row, closed, deadline_ns, rules, self.levels[rules.priority])
        self.requests += 1
        self.accounts.counters[stream][layout.ARRIVED] += 1
        self.accounts.change_in_flight(t_ns, stream, +1)
        return request

    # Routing and the service queues

    def _dispatch(self, request: Request, is_new: bool = False) -> bool:
        """Give a request to the router's choice; False if no replica that could hold it has room."""
        stream = request.stream
        candidates = [replica for replica in self.replicas if replica and replica.has_room() and self._takes(replica, request)]
        if not candidates:
            return False
        replica = choose(self.config.router, request, candidates, self.last_pick)
        self.last_pick = replica.index
        if is_new and replica.batcher_is_full(request.level, self.config.streams[stream].batcher_queue):
            self.accounts.change_queued(self._now_ns, stream, -1)
            self._leave(request, layout.REJECTED_FULL)
            return True
        self._enqueue(replica, request)
        if replica.step_end is None:
            self._start_step(replica)
        return True

    def _may_go(self, request: Request, replica: Replica) -> bool:
        """Whether a request is sent to replicas of this spec."""
        return replica.spec.accepts(request.stream) and self.routes[request.stream].allows(replica.totals.spec, request.tokens)

    def _takes(self, replica: Replica, request: Request) -> bool:
        """Whether a request is sent to replicas of this spec and could ever run there."""
        return self._may_go(request, replica) and request.tokens <= replica.spec.longest

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
        return self._is_late(request) and not request.late_waits

    def _is_late(self, request: Request) -> bool:
        return not request.started and self._now_ns > request.deadline_ns

    def _abandon(self, request: Request) -> None:
        self.accounts.change_queued(self._now_ns, request.stream, -1)
        self._leave(request, layout.ABANDONED)

    def _drop(self, replica: Replica, request: Request) -> None:
        """A request that waited too long leaves its replica, which makes room for a pull."""
        self._forget(replica, request)
        self._abandon(request)
        self._pull(replica, most=1)

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
                    if self._takes(replica, request) and not self._expired(request):
                        if best is None or request < best[0]:
                            best = (request, queue[level])
                        break
            if best is not None:
                best[1].remove(best[0])
                return best[0]
        return None

    # Leaving

    def _forget(self, replica: Replica, request: Request) -> None:
        if request.backlog:
            replica.backlog -= 1
        else:
            replica.outstanding -= 1
        replica.reserved -= request.reserved

    def _leave(self, request: Request, outcome: int) -> None:
        """A request leaves the system; a closed-loop client thinks and sends its next one."""
        t_ns, stream, counters = self._now_ns, request.stream, self.accounts.counters[request.stream]
        net_ns, good = 0, outcome in (layout.UNFINISHED, layout.REJECTED_TOO_LONG, layout.REJECTED_THROTTLED)
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
        if self._has_nothing(stream):
            self._fire(Watch.BACKLOG_EMPTY, stream)
        if outcome == layout.COMPLETED and 0 <= request.client < len(self.done_ns):
            self.done_ns[request.client, stream] = t_ns
        if request.closed:
            pause_ns = layout.REJECTED_CLIENT_PAUSE_NS if outcome in layout.REJECTIONS else 0
            self._schedule_closed(request.client, t_ns + pause_ns)

    def _has_nothing(self, stream: int) -> bool:
        """Whether nothing of a stream is in the system or left in its backlog."""
        return not self.accounts.in_flight[stream] and all(log.is_empty for log in self.backlogs if log.stream == stream)

    # Watches

    def _fire(self, reason: Watch, subject: int) -> None:
        if self.watches.pop((reason, subject), None) is not None:
            self.hits.append(Hit(self._now_ns, reason, subject))

    def _check_queue_above(self, queue: int) -> None:
        level = self.watches.get((Watch.QUEUE_ABOVE, queue))
        if level is not None and self._queue_length(queue) > level:
            self._fire(Watch.QUEUE_ABOVE, queue)
