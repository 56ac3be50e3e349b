"""The compiled data plane: the contract of `engine.py` around the kernel, equal to the reference on every integer."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from sim.dataplane import kernel_doors as doors
from sim.dataplane import kernel_layout as k
from sim.dataplane import layout
from sim.dataplane.compiled_feed import Feeding, pieces
from sim.dataplane.compiled_view import CompiledView, ViewPlaces
from sim.dataplane.engine import Hit, IntArray, ReplicaTotals, View, Watch, backlog_rows, checked_share
from sim.domain.traffic import RequestBlock
from sim.perf.steptime import FRACTION_BITS, ONE_NS_FX
from sim.units import NS_PER_S, NS_PER_US


class CompiledPlane(Feeding):
    """The Numba engine: it jumps over decode steps in closed form."""

    # Of the last view; they hold as long as there are as many replicas.
    _places: ViewPlaces | None = None

    # Time

    @property
    def now_ns(self) -> int:
        return int(self.memory.m[k.NOW_NS])

    def peek_ns(self) -> int:
        memory = self.memory
        while memory.m[k.NEXT_ARRIVAL] == len(self._block[0]) and not memory.m[k.LAST_BLOCK]:
            self._next_block()
        self._feed_clients()
        m, row = memory.m, int(memory.m[k.NEXT_ARRIVAL])
        times = [m[m[k.WAKES_AT] + 1], m[m[k.TIMERS_AT] + 1]]
        if row < len(self._block[0]):
            times.append(self._block[0][row])
        if memory.clients:
            times.append(m[m[k.CLIENT_TIMES_AT] + 1])
        least = int(min(times))
        if least == layout.NEVER_NS and m[k.STALE_NS] > m[k.NOW_NS]:
            return int(m[k.STALE_NS])
        return least

    @property
    def may_stop(self) -> bool:
        return bool(self.hits or self.draining or self.memory.m[k.WATCHES])

    def advance(self, until_ns: int) -> Hit | None:
        if not self.hits and self._call(self._nothing, until_ns) == k.HIT:
            self._take_hits()
        return self.hits.popleft() if self.hits else None

    def _take_hits(self) -> None:
        m = self.memory.m
        hits = self.memory.region(k.HITS_AT)[: int(m[k.HITS]) * k.HIT_WIDTH].reshape(-1, k.HIT_WIDTH).tolist()
        m[k.HITS] = 0
        for time_ns, reason, subject in hits:
            if reason == Watch.DRAINED:
                self.draining -= 1
                self._retire(subject)
            self.hits.append(Hit(time_ns, Watch(reason), subject))

    # What control may do

    def _at(self, t_ns: int) -> None:
        if t_ns != self.now_ns:
            raise ValueError(f"control acts at {t_ns} ns, but the engine has been advanced to {self.now_ns} ns")
        self._keep_records()
        self._feed_backlogs()

    def _flush_offers(self) -> None:
        """Let replicas take what a backlog offers, and nothing else happen."""
        m = self.memory.m
        if m[k.OFFERED] != k.NONE:
            m[k.FLUSHING] = 1
            self._call(self._nothing, 0)
            self.memory.m[k.FLUSHING] = 0

    def _look_around(self) -> None:
        """After a control action: take hits, feed clients, and let the kernel see that queues may have changed."""
        self.memory.m[k.QUEUE_CHANGED] = 1
        self._take_hits()
        self._feed_clients()

    def add_replica(self, t_ns: int, spec: int) -> int:
        self._at(t_ns)
        memory = self.memory
        taken = memory.rows()[:, k.R_NUMBER] != k.NONE
        if taken.all():
            memory.grow(replicas=2)
            index = len(taken)
        else:
            index = int(np.argmin(taken))
        number = self.replicas_added
        self.replicas_added += 1
        self.index_of[number] = index
        m, row = memory.m, memory.rows()[index]
        row[:] = 0
        row[[k.R_PARTIAL, k.R_CHUNKS, k.R_DRAIN_NS, k.R_REMOVED_NS, k.R_WATCH_IDLE]] = k.NONE
        row[k.R_LISTS : k.R_LISTS + 2 * len(memory.levels)] = k.NONE
        row[-2 * len(memory.levels) :] = k.NONE
        row[[k.R_WAKE_NS, k.R_TIMER_NS]] = layout.NEVER_NS
        row[k.R_INDEX], row[k.R_NUMBER], row[k.R_SPEC], row[k.R_ACCEPTING] = index, number, spec, 1
        row[k.R_ASKS] = 1
        row[k.R_ADDED_NS] = row[k.R_IDLE_SINCE] = t_ns
        m[k.REPLICAS_USED] = max(int(m[k.REPLICAS_USED]), index + 1)
        r = self._row(index)
        doors.pull(m, r, k.FAR)
        doors.start_step(m, memory.f, r)
        doors.touch(m, r)
        self._look_around()
        return number

    def _heap(self, r: int) -> int:
        m = self.memory.m
        return int(m[k.HEAPS_AT] + m[r + k.R_INDEX] * m[k.HEAP_CAPACITY])

    def _queue(self, number: int) -> int:
        return int(self.memory.m[k.QUEUES_AT]) + number * self.memory.queue_width

    def _waiting(self, r: int) -> list[int]:
        """Addresses of the requests that wait at a replica."""
        found = []
        for line in self._lines(r):
            found += self._list(self.memory.m[line])
        return found

    def _lines(self, r: int) -> list[int]:
        """Addresses of the waiting lists of a replica."""
        levels = len(self.memory.levels)
        late = r + self.memory.replica_width - 2 * levels
        return [at + 2 * level for at in (r + k.R_LISTS, late) for level in range(levels)]

    def _list(self, slot: int) -> list[int]:
        m, found = self.memory.m, []
        while slot != k.NONE:
            found.append(self._request(slot))
            slot = m[found[-1] + k.Q_NEXT]
        return found

    def _running(self, r: int) -> tuple[list[int], list[int]]:
        """Addresses of the decoding requests of a replica, and of those with a chunk in the step in flight."""
        m, heap = self.memory.m, self._heap(r)
        entries = m[heap : heap + int(m[r + k.R_DECODING])] & k.SLOT_MASK
        return [self._request(slot) for slot in entries], self._list(m[r + k.R_CHUNKS])

    def _sorted(self, requests: list[int]) -> list[int]:
        return sorted(requests, key=lambda q: self.memory.m[q + k.Q_NUMBER])

    def _counters(self, q: int) -> int:
        m = self.memory.m
        return int(m[k.STREAMS_AT] + m[q + k.Q_STREAM] * k.STREAM_WIDTH + k.T_COUNTERS)

    def drain_replica(self, t_ns: int, replica: int) -> None:
        self._at(t_ns)
        memory = self.memory
        m, r = memory.m, self._row(self.index_of[replica])
        if not m[r + k.R_ACCEPTING]:
            return
        doors.settle(m, memory.f, r)
        m[r + k.R_ACCEPTING], m[r + k.R_DRAIN_NS] = 0, t_ns
        self.draining += 1
        leaving = self._sorted(self._waiting(r))
        for line in self._lines(r):
            m[line : line + 2] = k.NONE
        if not m[r + k.R_LEFT] and leaving:
            doors.set_timer(m, r, layout.NEVER_NS)
        for q in leaving:
            doors.forget(m, r, q)
            memory.f[q + k.Q_DECODE_SHARE_NS] = 0.0
        doors.touch(m, r)
        self._redispatch(leaving)
        m, r = memory.m, self._row(self.index_of[replica])
        if not m[r + k.R_LEFT] and not m[r + k.R_OUTSTANDING]:
            doors.hit(m, int(Watch.DRAINED), replica)
        self._look_around()

    def kill_replica(self, t_ns: int, *replicas: int) -> None:
        self._at(t_ns)
        m, leaving = self.memory.m, []
        for number, index in [(replica, self.index_of[replica]) for replica in replicas]:
            r = self._row(index)
            self.draining -= not m[r + k.R_ACCEPTING]
            leaving += self._lose_work(r)
            self._retire(number)
        staying = [q for q in self._sorted(leaving) if not m[q + k.Q_STARTED] or self._retry(q)]
        for q in reversed(staying):
            if m[q + k.Q_SOURCE] == k.FROM_BACKLOG:
                doors.throw_back(m, q)
        self._redispatch([q for q in staying if m[q + k.Q_SOURCE] != k.FROM_BACKLOG])
        self._flush_offers()
        self._look_around()

    def submit(self, t_ns: int, stream: int, blocks: Iterable[RequestBlock]) -> None:
        self._at(t_ns)
        if stream not in self.config.backlogs:
            raise ValueError(f"stream {stream} may have no backlog")
        m, number = self.memory.m, self.config.backlogs.index(stream)
        t = int(m[k.STREAMS_AT]) + stream * k.STREAM_WIDTH
        was_empty = not doors.has_backlog(m, t)
        self._submitted[number].append(
            piece for block in backlog_rows(self.config, stream, blocks) for piece in pieces(block, self.memory.backlog_rows // 2)
        )
        self._feed_backlogs()
        m = self.memory.m
        if was_empty and doors.has_backlog(m, int(m[k.STREAMS_AT]) + stream * k.STREAM_WIDTH):
            m[k.OFFERED] = 0 if m[k.REPLICAS_USED] else k.NONE
            self._flush_offers()
        self._look_around()

    def _stop_step(self, r: int, lost: bool) -> None:
        """Charge the elapsed part of a step in flight, to lost or to its streams."""
        m, f = self.memory.m, self.memory.f
        if not m[r + k.R_LEFT]:
            return
        doors.settle(m, f, r)
        elapsed_ns = int(m[k.NOW_NS] - m[r + k.R_START_NS])
        doors.account_busy(m, r, elapsed_ns)
        if lost:
            f[r + k.R_LOST_NS] += elapsed_ns
        else:
            doors.charge_shares(m, f, r, elapsed_ns)
        f[r + k.R_ENERGY_J] += doors.energy_j(m, f, r, 1) * elapsed_ns * ONE_NS_FX / int(m[r + k.R_STEP_FX])
        end_ns = int(m[r + k.R_START_NS]) + (int(doors.run_fx(m, r, 1)) >> FRACTION_BITS)
        m[k.STALE_NS] = max(int(m[k.STALE_NS]), end_ns)
        m[r + k.R_LEFT], m[r + k.R_WAKE_NS] = 0, layout.NEVER_NS
        doors.touch(m, r)

    def throttle(self, t_ns: int, stream: int, admitted: int) -> None:
        self._at(t_ns)
        m = self.memory.m
        m[m[k.STREAMS_AT] + stream * k.STREAM_WIDTH + k.T_ADMITTED] = checked_share(self.config, stream, admitted)

    def route(self, t_ns: int, stream: int, specs: Iterable[int]) -> None:
        self._at(t_ns)
        memory, route = self.memory, self.config.route(stream, specs)
        if route == self.routes[stream]:
            return
        self.routes[stream] = route
        memory.set_route(stream, route.specs, route.longest)
        unrouted = all(one == self.config.everywhere(number) for number, one in enumerate(self.routes))
        memory.m[k.UNIFORM] = memory.uniform and unrouted
        for index in range(int(memory.m[k.REPLICAS_USED])):
            doors.pull_again(memory.m, memory.f, self._row(index))
            self._feed_backlogs()
        self._look_around()

    def _lose_work(self, r: int) -> list[int]:
        """Charge to lost what a dying replica has done for the requests on it; return them all."""
        m, f = self.memory.m, self.memory.f
        self._stop_step(r, lost=True)
        decoding, chunks = self._running(r)
        for q in decoding:
            doors.leave_batch(m, f, r, q)
        for q in decoding + chunks:
            counters = self._counters(q)
            m[counters + layout.LOST_PREFILL_TOKENS] += m[q + k.Q_PREFILLED]
            doors.change_queued(m, counters - k.T_COUNTERS, 1)
        everything = [*self._waiting(r), *decoding, *chunks]
        shares = r + self._shares
        for q in everything:
            share_ns = f[q + k.Q_PREFILL_SHARE_NS] + f[q + k.Q_DECODE_SHARE_NS]
            f[shares + m[q + k.Q_STREAM]] -= share_ns
            f[r + k.R_LOST_NS] += share_ns
            f[q + k.Q_PREFILL_SHARE_NS] = f[q + k.Q_DECODE_SHARE_NS] = 0.0
            m[q + k.Q_PREFILLED] = 0
        return everything

    def _retry(self, q: int) -> bool:
        """Clear what a killed request had done and count the attempt; False if it was the last one and the request failed."""
        m, counters = self.memory.m, self._counters(q)
        m[counters + layout.LOST_OUTPUT_TOKENS] += m[q + k.Q_GENERATED]
        m[q + k.Q_GENERATED], m[q + k.Q_FIRST_NS] = 0, -1
        if m[q + k.Q_ATTEMPT] >= self.config.streams[m[q + k.Q_STREAM]].max_attempts:
            doors.change_queued(m, counters - k.T_COUNTERS, -1)
            doors.leave(m, q, layout.FAILED)
            return False
        m[q + k.Q_ATTEMPT] += 1
        m[counters + layout.RETRIED] += 1
        return True

    def _redispatch(self, leaving: list[int]) -> None:
        """Send requests through the router in id order; those that find no room go to the front of their queue, in that order."""
        memory = self.memory
        m = memory.m
        if not leaving:
            return
        for q in leaving:
            m[self._counters(q) + layout.REDISPATCHED] += 1
        slots = np.array([(q - m[k.SLOTS_AT]) // k.SLOT_WIDTH for q in leaving], np.int64)
        m[k.REDISPATCHING], m[k.NEXT_REDISPATCH] = len(slots), 0
        while self._call(slots, 0) != k.REACHED:
            self._take_hits()
        m = memory.m
        m[k.REDISPATCHING] = 0
        full = set()
        for slot in slots[::-1]:
            if slot != k.NONE:
                q = self._request(slot)
                number = int(m[self._counters(q) - k.T_COUNTERS + k.T_QUEUE])
                u = self._queue(number)
                m[q + k.Q_WAITED] |= layout.WAITED_FOR_ROOM
                doors.prepend(m, u + k.U_LISTS + 2 * m[q + k.Q_LEVEL], q)
                m[u + k.U_LENGTH] += 1
                m[k.QUEUED] += 1
                full.add(number)
        for number in sorted(full):
            doors.check_above(m, self._queue(number), number)

    @property
    def _shares(self) -> int:
        """Where the shares of streams begin in the row of a replica."""
        return k.R_LISTS + 2 * len(self.memory.levels) + len(self.config.streams)

    def _totals(self, row: IntArray, floats: np.ndarray[tuple[int], np.dtype[np.float64]]) -> ReplicaTotals:
        drain_ns, removed_ns = int(row[k.R_DRAIN_NS]), int(row[k.R_REMOVED_NS])
        return ReplicaTotals(
            replica=int(row[k.R_NUMBER]),
            spec=int(row[k.R_SPEC]),
            added_ns=int(row[k.R_ADDED_NS]),
            shares_ns=floats[self._shares : self._shares + len(self.config.streams)].tolist(),
            drain_ns=None if drain_ns == k.NONE else drain_ns,
            removed_ns=None if removed_ns == k.NONE else removed_ns,
            busy_ns=int(row[k.R_BUSY_NS]),
            draining_busy_ns=int(row[k.R_DRAINING_BUSY_NS]),
            lost_ns=float(floats[k.R_LOST_NS]),
            energy_j=float(floats[k.R_ENERGY_J]),
            steps=int(row[k.R_STEPS]),
            prefill_tokens=int(row[k.R_PREFILL_TOKENS]),
            output_tokens=int(row[k.R_OUTPUT_TOKENS]),
        )

    def _retire(self, replica: int) -> None:
        m = self.memory.m
        index = self.index_of.pop(replica)
        r, row = self._row(index), self.memory.rows()[index]
        row[k.R_REMOVED_NS] = m[k.NOW_NS]
        self.retired.append(self._totals(row, row.view(np.float64)))
        m[k.WATCHES] -= row[k.R_WATCH_IDLE] != k.NONE
        row[k.R_NUMBER], row[k.R_ACCEPTING], row[k.R_LEFT] = k.NONE, 0, 0
        row[k.R_WAKE_NS] = layout.NEVER_NS
        doors.touch(m, r)
        doors.set_timer(m, r, layout.NEVER_NS)

    def watch(self, t_ns: int, reason: Watch, subject: int, level: int = 0) -> None:
        self._at(t_ns)
        m = self.memory.m
        stream = int(m[k.STREAMS_AT]) + subject * k.STREAM_WIDTH
        if reason is Watch.DRAINED:
            return
        if reason is Watch.IDLE_SINCE:
            r = self._row(self.index_of[subject])
            word, value, unset = r + k.R_WATCH_IDLE, level, k.NONE
        elif reason is Watch.BACKLOG_EMPTY:
            word, value, unset = stream + k.T_WATCH_EMPTY, 1, 0
        elif reason is Watch.QUEUE_ABOVE:
            word, value, unset = self._queue(subject) + k.U_WATCH_ABOVE, level, k.NONE
        else:
            word, value, unset = self._queue(subject) + k.U_WATCH_NOBODY, 1, 0
        m[k.WATCHES] += m[word] == unset
        m[word] = value
        if reason is Watch.QUEUE_ABOVE:
            doors.check_above(m, self._queue(subject), subject)
        elif reason is Watch.BACKLOG_EMPTY and not m[stream + k.T_FLYING] and not doors.has_backlog(m, stream):
            m[word] = unset
            m[k.WATCHES] -= 1
            doors.hit(m, int(reason), subject)
        elif reason is Watch.IDLE_SINCE and not m[r + k.R_LEFT] and not m[r + k.R_OUTSTANDING]:
            doors.watch_idle(m, r)
        self._take_hits()

    # Looking

    def view(self, t_ns: int) -> View:
        if t_ns != self.now_ns:
            self._at(t_ns)
        count, places = len(self.index_of), self._places
        if places is None or places.replicas != count:
            places = self._places = ViewPlaces(count, len(self.config.streams), len(self.config.max_queue))
        ints, floats = places.arrays()
        doors.look(self.memory.m, self.memory.f, ints, floats, count)
        return CompiledView.of(t_ns, places, ints, floats, self._ring(t_ns))

    def _ring(self, t_ns: int) -> tuple[IntArray, IntArray]:
        if not self.config.ring_s:
            return self._nothing, self._nothing
        size, now_s = self.config.ring_s + 1, t_ns // NS_PER_S
        ring = self.memory.region(k.RING_AT)
        seconds = np.arange(now_s - self.config.ring_s, now_s) % size
        return ring[seconds], ring[size + seconds] // NS_PER_US

    def histograms(self) -> IntArray:
        return self.memory.region(k.HISTOGRAMS_AT).reshape(len(self.config.streams), len(layout.LATENCIES), -1).copy()

    def client_done_ns(self) -> IntArray:
        return self.memory.region(k.CLIENT_DONE_AT).reshape(-1, len(self.config.streams)).copy()

    def take_retired(self) -> list[ReplicaTotals]:
        taken, self.retired = self.retired, []
        return taken

    def take_records(self) -> dict[str, IntArray]:
        self._keep_records()
        flat = np.concatenate([self._nothing, *self._records]).reshape(-1, k.RECORD_WIDTH)
        self._records = []
        return {name: np.ascontiguousarray(flat[:, column]) for column, name in enumerate(layout.RECORD_COLUMNS)}

    def close(self, t_ns: int) -> View:
        self._at(t_ns)
        m, left = self.memory.m, []
        for number in range(len(self.config.max_queue)):
            for level in range(len(self.memory.levels)):
                left += self._list(m[self._queue(number) + k.U_LISTS + 2 * level])
        for backlog in self.memory.region(k.BACKLOGS_AT).reshape(-1, self.memory.backlog_width):
            left += self._list(backlog[k.B_LIST])
        for index in self.index_of.values():
            r = self._row(index)
            decoding, chunks = self._running(r)
            left += [*self._waiting(r), *decoding, *chunks]
            self._stop_step(r, lost=False)
        for q in self._sorted(left):
            doors.leave(m, q, layout.UNFINISHED)
        return self.view(t_ns)
