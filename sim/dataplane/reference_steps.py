"""The reference engine, second part: what a replica does. It admits, runs steps or batches, throws out, completes, rests.

Generated tokens are not counted up in every sequence: a sequence that joins a decode batch is given the value of the replica's
decode counter at which it will be finished, and the batch is a heap of those.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

import simpy

from sim.dataplane import layout
from sim.dataplane.batching import form_batch
from sim.dataplane.engine import Hit, Watch
from sim.dataplane.reference_queues import Queues
from sim.dataplane.state import At, Replica, Request
from sim.perf.steptime import FRACTION_BITS, ONE_NS_FX


class Steps(Queues):
    """Replicas of LLMs and batchers at work."""

    # A step

    def _start_step(self, replica: Replica) -> None:
        """Preempt if decode growth would not fit, continue the partial prefill, admit; then run what there is to do."""
        if replica.spec.batcher is not None:
            self._start_batch(replica)
            return
        spec, preempted = replica.spec, False
        asks, replica.asks = replica.asks, False
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
        while not preempted and budget > 0:
            request = self._admissible(replica, len(chunks))
            if request is None and asks:
                request = self._from_backlog(replica, len(chunks))
            if request is None:
                break
            made_way = decoding - len(replica.decoding)
            decoding, budget, asks = decoding - made_way, budget + made_way, asks and not made_way
            chunk = min(request.need_tokens - request.prefilled, budget)
            chunks.append((request, chunk))
            budget -= chunk
        self._run(replica, chunks)

    def _run(self, replica: Replica, chunks: list[tuple[Request, int]]) -> None:
        """Run a step of the decoding sequences and these prefill chunks; without either the replica is idle."""
        replica.chunks = chunks
        decoding = len(replica.decoding)
        if not decoding and not chunks:
            self._rest(replica)
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
        replica.step_fx = replica.step.step_fx(tokens, replica.n_out, s_twice, replica.context, decoding)
        replica.step_start_ns = self._now_ns
        end_fx = replica.fraction_fx + replica.step_fx
        replica.fraction_fx = end_fx & (ONE_NS_FX - 1)
        replica.step_end = At(
            self.env,
            self._now_ns + (end_fx >> FRACTION_BITS),
            layout.STEP_END + replica.index,
            lambda event: self._end_step(replica, event),
        )

    def _rest(self, replica: Replica) -> None:
        """Nothing is running: no step, no fraction left over; idle if nothing waits either."""
        replica.step_end = None
        replica.fraction_fx, replica.asks = 0, True
        if not replica.outstanding:
            replica.idle_since_ns = self._now_ns
            self._check_idle(replica)

    def _start_batch(self, replica: Replica) -> None:
        """Run the next batch of a batcher, or set its timer."""
        batch = form_batch(replica, self._now_ns, self._is_late, lambda request: self._drop(replica, request))
        replica.timer = None
        if replica.look_again_ns != layout.NEVER_NS:
            order = layout.TIMER + replica.index
            replica.timer = At(self.env, replica.look_again_ns, order, lambda event: self._end_delay(replica, event))
        for request in batch:
            request.cached_tokens = 0
            self._admit(replica, request)
        self._run(replica, [(request, request.need_tokens) for request in batch])

    def _end_delay(self, replica: Replica, event: simpy.Event) -> None:
        if replica.timer is event:
            self._now_ns = int(self.env.now)
            self._start_batch(replica)

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
            replica.used -= replica.used_by_tokens(request.prompt_tokens + request.generated)
            done.append(request)
        for request, chunk in replica.chunks:
            request.prefilled += chunk
            if request.prefilled == request.need_tokens and self._first_token(replica, request):
                done.append(request)
        replica.asks |= bool(done or replica.chunks)
        replica.chunks = []
        for request in sorted(done):
            replica.running -= 1
            self._forget(replica, request)
            self._leave(request, layout.COMPLETED)
        if replica.accepting:
            self._pull(replica)
        self._start_step(replica)
        self._check_drained(replica)
        self._offer()

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
            replica.used -= replica.used_by_tokens(request.prompt_tokens + request.generated - 1)
            return True
        replica.used += 1
        replica.context += request.prompt_tokens + request.generated
        request.finish_count = replica.decode_count + request.output_tokens - request.generated
        request.decode_share_ns -= replica.decode_share_ns
        replica.decoding_by_stream[request.stream] += 1
        heappush(replica.decoding, (request.finish_count, request.admission, request))
        return False

    # Admission

    def _admissible(self, replica: Replica, chunks: int) -> Request | None:
        """Admit and return the head of the waiting lists if it fits; expired heads leave and make room for a pull."""
        if len(replica.decoding) + chunks >= replica.spec.seats and not replica.backlog:
            return None
        while waiting := next((level for level in replica.waiting if level), None):
            request = waiting[0]
            if self._expired(request):
                waiting.popleft()
                self._drop(replica, request)
                continue
            if not self._make_room(replica, request, chunks):
                return None
            waiting.popleft()
            self._admit(replica, request)
            return request
        return None

    def _make_room(self, replica: Replica, request: Request, chunks: int) -> bool:
        """Whether the next in line gets a seat and room for its whole prompt.

        Decoding requests of backlogs make way for it, the latest admitted first, no more than needed, and none in vain.
        """
        spec, running, used = replica.spec, len(replica.decoding) + chunks, replica.used
        need = request.prompt_tokens + request.generated + layout.FRAGMENT_TOKENS
        if used + need > replica.room(running):
            request.waited |= layout.WAITED_FOR_KV
        elif running < spec.seats:
            return True
        can_go = [entry[2] for entry in replica.decoding if entry[2].backlog]
        going = []
        for victim in sorted(can_go, key=lambda other: -other.admission):
            going.append(victim)
            running -= 1
            used -= replica.used_by(victim)
            if running < spec.seats and used + need <= replica.room(running):
                for gone in going:
                    self._throw_out(replica, gone)
                return True
        return False

    def _from_backlog(self, replica: Replica, chunks: int) -> Request | None:
        """Admit and return the next of the first backlog that this replica serves, if nothing waits here and it fits."""
        spec, running = replica.spec, len(replica.decoding) + chunks
        if not replica.accepting or replica.backlog >= spec.backlog_seats or running >= spec.seats or any(replica.waiting):
            return None
        for backlog in self.backlogs:
            if spec.accepts(backlog.stream) and not backlog.is_empty:
                if replica.used + backlog.next_tokens + layout.FRAGMENT_TOKENS > replica.room(running):
                    return None
                if backlog.thrown_back:
                    request = backlog.thrown_back.popleft()
                else:
                    row = backlog.take_row()
                    request = self._new((*row[:3], backlog.stream, *row[4:]), closed=False)
                    request.backlog = True
                    self.accounts.change_queued(self._now_ns, request.stream, +1)
                request.replica, request.dispatched_ns, request.reserved = replica.number, self._now_ns, 0
                replica.backlog += 1
                self._admit(replica, request)
                return request
        return None

    def _admit(self, replica: Replica, request: Request) -> None:
        """Count a request into the batch; its whole prompt is reserved."""
        self.accounts.change_queued(self._now_ns, request.stream, -1)
        tokens = request.prompt_tokens + request.generated
        if request.started:
            request.cached_tokens = 0
        request.started = True
        request.prefilled, request.need_tokens = 0, tokens - request.cached_tokens
        request.admission, request.admitted_ns = replica.admissions, self._now_ns
        replica.admissions += 1
        replica.running += 1
        replica.used += replica.used_by_tokens(tokens)
        replica.reserved += tokens - request.reserved
        request.reserved = tokens

    # Making way

    def _preempt(self, replica: Replica) -> None:
        """Throw out a request of a backlog, else one of the lowest priority; of these the latest admitted."""
        running = [entry[2] for entry in replica.decoding]
        if replica.partial is not None:
            running.append(replica.partial)
        self._throw_out(replica, max(running, key=lambda request: (request.backlog, request.level, request.admission)))

    def _throw_out(self, replica: Replica, victim: Request) -> None:
        """Stop a running request: its cache is recomputed later, its tokens stay."""
        self._stop_running(replica, victim)
        replica.running -= 1
        victim.preemptions += 1
        counters = self.accounts.counters[victim.stream]
        counters[layout.PREEMPTED] += 1
        counters[layout.LOST_PREFILL_TOKENS] += victim.prefilled
        replica.charge_lost(victim, victim.prefill_share_ns)
        victim.prefill_share_ns, victim.prefilled = 0.0, 0
        self.accounts.change_queued(self._now_ns, victim.stream, +1)
        if victim.backlog:
            self._forget(replica, victim)
            victim.decode_share_ns = 0.0  # stays charged to its stream on the replica where it was earned
            self._throw_back(victim)
            return
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
        replica.used -= replica.used_by_tokens(request.prompt_tokens + request.generated)

    def _throw_back(self, request: Request) -> None:
        """Put a request at the front of its backlog."""
        backlog = next(backlog for backlog in self.backlogs if backlog.stream == request.stream)
        self.offered |= backlog.is_empty
        backlog.thrown_back.appendleft(request)

    def _offer(self) -> None:
        """A backlog that was empty has something: idle replicas take it at once, by index, others at their next step."""
        if self.offered:
            self.offered = False
            for replica in [replica for replica in self.replicas if replica and replica.accepting and replica.spec.takes_backlogs]:
                replica.asks = True
                if replica.is_empty() and any(not log.is_empty and replica.spec.accepts(log.stream) for log in self.backlogs):
                    self._start_step(replica)

    # Rest and the end

    def _check_drained(self, replica: Replica) -> None:
        if not replica.accepting and replica.is_empty():
            self.draining -= 1
            self._retire(replica)
            self.hits.append(Hit(self._now_ns, Watch.DRAINED, replica.number))

    def _retire(self, replica: Replica) -> None:
        replica.step_end = replica.timer = None
        replica.totals.removed_ns = self._now_ns
        self.replicas[replica.index] = None
        del self.by_number[replica.number]
        self.watches.pop((Watch.IDLE_SINCE, replica.number), None)
        self.retired.append(replica.totals)

    def _check_idle(self, replica: Replica) -> None:
        """Set the timer of an idle watch; it does nothing if the replica has worked or the watch was set anew in between."""
        key, since_ns = (Watch.IDLE_SINCE, replica.number), replica.idle_since_ns
        level = self.watches.get(key)
        if level is None:
            return

        def ring(_: simpy.Event) -> None:
            self._now_ns = int(self.env.now)
            if replica.is_empty() and replica.idle_since_ns == since_ns and self.watches.get(key) == level:
                self._fire(Watch.IDLE_SINCE, replica.number)

        At(self.env, max(since_ns + level, self._now_ns), layout.TIMER + replica.index, ring)
