"""The reference data plane: the specification of serving replicas, one SimPy event per engine step, no tricks.

Read `layout.py` first (the order of events), then `reference_queues.py`: a request arrives, is routed or waits, leaves; then
`reference_steps.py`: a replica admits and runs steps; then this file, what control may do: add, submit, drain, kill, watch, look.
"""

from __future__ import annotations

from collections.abc import Iterable

from sim.dataplane import layout
from sim.dataplane.engine import Hit, IntArray, ReplicaTotals, View, Watch, backlog_rows, checked_share
from sim.dataplane.looking import look
from sim.dataplane.reference_steps import Steps
from sim.dataplane.state import Replica, Request
from sim.domain.traffic import RequestBlock
from sim.perf.steptime import ONE_NS_FX


class ReferencePlane(Steps):
    """The SimPy engine: short, slow, and right by definition."""

    # Time

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

    # What control may do

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

    def submit(self, t_ns: int, stream: int, blocks: Iterable[RequestBlock]) -> None:
        self._at(t_ns)
        backlog = next((backlog for backlog in self.backlogs if backlog.stream == stream), None)
        if backlog is None:
            raise ValueError(f"stream {stream} may have no backlog")
        was_empty = backlog.is_empty
        backlog.submit(self._rows(backlog_rows(self.config, stream, blocks)))
        self.offered |= was_empty and not backlog.is_empty
        self._offer()

    def drain_replica(self, t_ns: int, replica: int) -> None:
        self._at(t_ns)
        drained = self.by_number[replica]
        if not drained.accepting:
            return
        drained.accepting = False
        drained.totals.drain_ns = t_ns
        self.draining += 1
        leaving = sorted(drained.all_waiting())
        drained.timer = None
        for level in (*drained.waiting, *drained.late):
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
        staying = [request for request in sorted(leaving) if not request.started or self._retry(request)]
        for request in reversed(staying):
            if request.backlog:
                self._throw_back(request)
        self._redispatch([request for request in staying if not request.backlog])
        self._offer()

    def throttle(self, t_ns: int, stream: int, admitted: int) -> None:
        self._at(t_ns)
        self.admitted[stream] = checked_share(self.config, stream, admitted)

    def route(self, t_ns: int, stream: int, specs: Iterable[int]) -> None:
        self._at(t_ns)
        route = self.config.route(stream, specs)
        if route == self.routes[stream]:
            return
        self.routes[stream] = route
        for replica in [replica for replica in self.replicas if replica]:
            outstanding = replica.outstanding
            self._pull(replica)
            if replica.outstanding > outstanding and replica.step_end is None:
                self._start_step(replica)

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

    # Watches

    def watch(self, t_ns: int, reason: Watch, subject: int, level: int = 0) -> None:
        self._at(t_ns)
        self.watches[reason, subject] = level
        if reason is Watch.QUEUE_ABOVE:
            self._check_queue_above(subject)
        elif reason is Watch.BACKLOG_EMPTY and self._has_nothing(subject):
            self._fire(reason, subject)
        elif reason is Watch.IDLE_SINCE and self.by_number[subject].is_empty():
            self._check_idle(self.by_number[subject])

    # Looking

    def view(self, t_ns: int) -> View:
        self._at(t_ns)
        lengths = [self._queue_length(queue) for queue in range(len(self.queues))]
        return look(t_ns, self.accounts, lengths, self.backlogs, [replica for replica in self.replicas if replica])

    def histograms(self) -> IntArray:
        return self.accounts.histograms.copy()

    def client_done_ns(self) -> IntArray:
        return self.done_ns.copy()

    def take_retired(self) -> list[ReplicaTotals]:
        taken, self.retired = self.retired, []
        return taken

    def take_records(self) -> dict[str, IntArray]:
        return self.accounts.take_records()

    def close(self, t_ns: int) -> View:
        self._at(t_ns)
        left = [request for queue in self.queues for level in queue for request in level]
        left += [request for backlog in self.backlogs for request in backlog.thrown_back]
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
