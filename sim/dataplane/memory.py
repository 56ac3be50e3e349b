"""The memory of the compiled engine: laid out, filled from a plane's config, and grown."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection
from functools import cache
from typing import Any

import numpy as np
from numba import carray, cfunc, njit  # type: ignore[attr-defined]
from numba.core.errors import NumbaError

from sim.dataplane import kernel_layout as k
from sim.dataplane.engine import FloatArray, IntArray, PlaneConfig
from sim.dataplane.kernel_parts import FLOAT, FLOATS
from sim.dataplane.layout import ALL_ADMITTED, NEVER_NS
from sim.perf.steptime import NOTHING, StepModel
from sim.policies.routers import FEATURES, POWER_OF_TWO, RANDOM, ROUND_ROBIN, LeastKv, Router

log = logging.getLogger(__name__)

FIRST_REPLICAS, FIRST_SLOTS, FIRST_SEATS, SPARE_RECORDS, SPARE_ROWS = 8, 256, 64, 4_096, 1_024
MECHANISMS = {ROUND_ROBIN: k.IN_TURN, RANDOM: k.BY_DRAW, POWER_OF_TWO: k.BY_TWO_DRAWS}


def mechanism(router: Router, score: Any) -> int:
    """How the kernel chooses for a router; `score` is its compiled score, if it has one."""
    if router.mechanism in MECHANISMS:
        return MECHANISMS[router.mechanism]
    if router.score is Router.score:
        return k.BY_OUTSTANDING
    if router.score is LeastKv.score:
        return k.BY_RESERVED
    return k.ASK if score is None else k.BY_SCORE


def compiled_score(router: Router) -> Any:
    """Compile the score of a user's router to a function with an address; None for a built-in one, or if it needs Python.

    The address is a word of the memory, so no router makes the kernel compile again.
    """
    if router.mechanism in MECHANISMS or router.score in (Router.score, LeastKv.score):
        return None
    return _compiled(router.score, len(router.params()))


@cache
def _compiled(score: Callable[..., float], params: int) -> Any:
    compiled, features = njit(score, boundscheck=True), len(FEATURES)

    def call(f: Any, p: Any) -> float:
        try:
            return float(compiled(carray(f, features), carray(p, params)))
        except Exception:
            return math.nan  # the kernel then lets Python compute it, which raises what there is to raise

    try:
        return cfunc(FLOAT(FLOATS, FLOATS))(call)
    except NumbaError:
        log.warning("%s cannot be compiled; Python is asked for every request", score.__qualname__)
        return None


class Memory:
    """One array of words `m`, the same as floats `f`, and where its regions lie (`kernel_layout.py`)."""

    def __init__(self, config: PlaneConfig, clients: int) -> None:
        self.config, self.clients = config, clients
        self.levels = {priority: level for level, priority in enumerate(config.levels)}
        self.replica_width = k.R_LISTS + 4 * len(self.levels) + 2 * len(config.streams)
        self.queue_width = k.U_LISTS + 2 * len(self.levels)
        # One step may take as many rows of a backlog as there are seats.
        self.backlog_need = max((spec.seats for spec in config.specs if spec.takes_backlogs), default=0) if config.backlogs else 0
        self.backlog_rows = self.backlog_need + SPARE_ROWS
        # All replicas take the same requests, as long as no stream is routed to some of them.
        self.uniform = len({(spec.streams, spec.longest) for spec in config.specs}) < 2
        self.score = compiled_score(config.router)
        self.params = config.router.params() if self.score is not None else ()
        self.replicas, self.slots = FIRST_REPLICAS, FIRST_SLOTS
        self.heap = min(FIRST_SEATS, max((spec.seats for spec in config.specs), default=1))
        self.m: IntArray
        self.f: FloatArray
        self.sizes: dict[int, int]
        self._allocate()
        self._fill()
        self._link(0)

    def _sizes(self) -> dict[int, int]:
        config = self.config
        specs, streams = len(config.specs), len(config.streams)
        leaves = _power_of_two(self.clients)
        return {
            k.SPECS_AT: specs * k.SPEC_WIDTH,
            k.ACCEPTS_AT: specs * streams,
            k.ABOVE_AT: specs * streams,
            k.TABLES_AT: sum(len(table) for table in self._tables().values()),
            k.STREAMS_AT: streams * k.STREAM_WIDTH,
            k.QUEUES_AT: len(config.max_queue) * self.queue_width,
            k.BACKLOGS_AT: len(config.backlogs) * self.backlog_width,
            k.HISTOGRAMS_AT: streams * k.HISTOGRAM_WIDTH,
            k.RING_AT: 2 * (config.ring_s + 1),
            k.HITS_AT: (2 * streams + 4 * len(config.max_queue) + 8) * k.HIT_WIDTH,
            k.SCORES_AT: len(FEATURES) + len(self.params),
            k.CLIENTS_AT: self.clients * k.CLIENT_WIDTH,
            k.CLIENT_TIMES_AT: 2 * leaves,
            k.PENDING_CLIENTS_AT: self.clients * k.PENDING_WIDTH,
            k.CLIENT_DONE_AT: config.known_clients(self.clients) * streams,
            k.REPLICAS_AT: self.replicas * self.replica_width,
            k.HEAPS_AT: self.replicas * self.heap,
            k.WAKES_AT: 2 * self.replicas,
            k.COUNTS_AT: 2 * self.replicas,
            k.TIMERS_AT: 2 * self.replicas,
            k.RECORDS_AT: self.records * k.RECORD_WIDTH if config.records else 0,
            k.SLOTS_AT: self.slots * k.SLOT_WIDTH,
        }

    @property
    def records(self) -> int:
        """How many records there is room for: at least one for each request in the system."""
        return self.slots + SPARE_RECORDS

    def _allocate(self) -> None:
        self.sizes = sizes = self._sizes()
        self.m = np.zeros(k.CONTROL_WORDS + sum(sizes.values()), np.int64)
        self.f = self.m.view(np.float64)
        at = k.CONTROL_WORDS
        for word, size in sizes.items():
            self.m[word] = at
            at += size
        self.m[k.REPLICA_CAPACITY], self.m[k.SLOT_CAPACITY] = self.replicas, self.slots
        self.m[k.HEAP_CAPACITY], self.m[k.RECORD_CAPACITY] = self.heap, self.records
        self.region(k.WAKES_AT)[:] = NEVER_NS
        self.region(k.COUNTS_AT)[:] = NEVER_NS
        self.region(k.TIMERS_AT)[:] = NEVER_NS
        self.rows()[:, k.R_NUMBER] = k.NONE
        self.rows()[:, [k.R_WAKE_NS, k.R_TIMER_NS]] = NEVER_NS

    def region(self, word: int) -> IntArray:
        """The words of a region."""
        at = int(self.m[word])
        return self.m[at : at + self.sizes[word]]

    @property
    def backlog_width(self) -> int:
        """Words of a backlog with its rows at hand."""
        return k.B_ROWS + self.backlog_rows * k.ROW_WIDTH

    def rows(self) -> IntArray:
        """The replicas as a table."""
        return self.region(k.REPLICAS_AT).reshape(self.replicas, self.replica_width)

    def _fill(self) -> None:
        m, config = self.m, self.config
        for word, value in {
            k.NOW_NS: config.start_ns,
            k.ROUTER: mechanism(config.router, self.score),
            k.SCORE: 0 if self.score is None else self.score.address,
            k.UNIFORM: self.uniform,
            k.LAST_PICK: -1,
            k.RECORD_ONE_IN: config.records,
            k.SPECS: len(config.specs),
            k.STREAMS: len(config.streams),
            k.QUEUES: len(config.max_queue),
            k.LEVELS: len(self.levels),
            k.CLIENTS: self.clients,
            k.KNOWN_CLIENTS: config.known_clients(self.clients),
            k.CLIENT_LEAVES: _power_of_two(self.clients),
            k.REPLICA_WIDTH: self.replica_width,
            k.FREE_SLOT: k.NONE,
            k.RING_S: config.ring_s,
            k.RING_LAST_NS: config.start_ns,
            k.UNDECIDED: k.NONE,
            k.CHOICE: k.UNKNOWN,
            k.STEPPED: k.FAR,
            k.BACKLOGS: len(config.backlogs),
            k.BACKLOG_WIDTH: self.backlog_width,
            k.BACKLOG_NEED: self.backlog_need,
            k.OFFERED: k.NONE,
        }.items():
            m[word] = value
        self.region(k.CLIENT_TIMES_AT)[:] = NEVER_NS
        self.region(k.CLIENT_DONE_AT)[:] = k.NONE
        self.f[m[k.SCORES_AT] + len(FEATURES) : m[k.SCORES_AT] + self.sizes[k.SCORES_AT]] = self.params
        self._fill_specs()
        self._fill_streams()
        queues = self.region(k.QUEUES_AT).reshape(-1, self.queue_width)
        queues[:] = k.NONE
        queues[:, k.U_MOST] = config.max_queue
        queues[:, [k.U_LENGTH, k.U_WATCH_NOBODY]] = 0
        backlogs = self.region(k.BACKLOGS_AT).reshape(-1, self.backlog_width)
        backlogs[:, k.B_STREAM] = config.backlogs
        backlogs[:, k.B_FINISHED] = 1
        backlogs[:, [k.B_LIST, k.B_LIST_END]] = k.NONE

    def _tables(self) -> dict[tuple[int, int], IntArray]:
        """Of every replica spec, by the word that names its place: tables of steps, and which sizes a batcher prefers."""
        tables: dict[tuple[int, int], IntArray] = {}
        for number, spec in enumerate(self.config.specs):
            step = self.config.steps[spec.kind]
            tables[number, k.S_TOKENS] = _entries(step.tokens_fx, step.tokens_j)
            tables[number, k.S_SAMPLED] = _entries(step.sampled_fx, step.sampled_j)
            tables[number, k.S_CONTEXTS] = _context_pieces(step)
            if spec.batcher is not None:
                sizes = spec.batcher.sizes(spec.token_budget)
                tables[number, k.S_PREFERRED] = np.array([int(size in sizes) for size in range(spec.token_budget + 1)])
        return tables

    def _fill_specs(self) -> None:
        places, place = {}, 0
        for key, table in self._tables().items():
            places[key] = place
            self.region(k.TABLES_AT)[place : place + len(table)] = table
            place += len(table)
        at = int(self.m[k.SPECS_AT])
        for number, spec in enumerate(self.config.specs):
            row, step = at + number * k.SPEC_WIDTH, self.config.steps[spec.kind]
            words = {
                k.S_SEATS: spec.seats,
                k.S_BUDGET: spec.token_budget,
                k.S_KV: spec.kv_tokens,
                k.S_WATERMARK: spec.watermark_tokens,
                k.S_MOST: spec.max_outstanding,
                k.S_LONGEST: spec.longest,
                k.S_NET_NS: spec.net_ns,
                k.S_TOKENS: places[number, k.S_TOKENS],
                k.S_LAST_TOKENS: len(step.tokens_fx) - 1,
                k.S_TOKEN_FX: step.token_fx,
                k.S_SAMPLED: places[number, k.S_SAMPLED],
                k.S_LAST_SAMPLED: len(step.sampled_fx) - 1,
                k.S_SEQUENCE_FX: step.sequence_fx,
                k.S_ATTENTION_FX: step.attention_fx,
                k.S_PROMPT_FX: step.prompt_fx,
                k.S_CONTEXTS: places[number, k.S_CONTEXTS],
                k.S_LAST_CONTEXTS: len(step.contexts),
                k.S_KNOTS: len(step.knots_tokens),
                k.S_BACKLOG_SEATS: spec.backlog_seats if spec.takes_backlogs else 0,
            }
            if spec.batcher is not None:
                words |= {
                    k.S_BATCHER: 1,
                    k.S_DELAY_NS: spec.batcher.max_delay_ns,
                    k.S_LARGEST: spec.batcher.sizes(spec.token_budget)[-1],
                    k.S_PREFERRED: places[number, k.S_PREFERRED],
                }
            for word, value in words.items():
                self.m[row + word] = value
            floats = {
                k.S_TOKEN_J: step.token_j,
                k.S_SEQUENCE_J: step.sequence_j,
                k.S_ATTENTION_J: step.attention_j,
                k.S_PROMPT_J: step.prompt_j,
                k.S_TDP_W: step.tdp_w,
                k.S_BASE_W: step.base_w,
                k.S_WEIGHT: spec.weight,
            }
            for word, constant in floats.items():
                self.f[row + word] = constant
        accepts = self.region(k.ACCEPTS_AT).reshape(len(self.config.specs), len(self.config.streams))
        for number, spec in enumerate(self.config.specs):
            accepts[number] = [spec.accepts(stream) for stream in range(len(self.config.streams))]

    def _fill_streams(self) -> None:
        streams = self.region(k.STREAMS_AT).reshape(-1, k.STREAM_WIDTH)
        for number, rules in enumerate(self.config.streams):
            row = streams[number]
            row[k.T_QUEUE], row[k.T_LEVEL] = rules.queue, self.levels[rules.priority]
            row[k.T_ATTEMPTS], row[k.T_TIMEOUT_NS] = rules.max_attempts, rules.queue_timeout_ns
            row[k.T_TTFT_NS], row[k.T_TPOT_NS], row[k.T_E2E_NS] = rules.ttft_ns, rules.tpot_ns, rules.e2e_ns
            row[k.T_LONGEST], row[k.T_ADMITTED] = self.config.longest(number), ALL_ADMITTED
            self.set_route(number, self.config.takers(number), 0)
            row[k.T_BACKLOG] = self.config.backlogs.index(number) if rules.backlog else k.NONE
            row[k.T_BATCHER_QUEUE], row[k.T_LATE_WAITS] = rules.batcher_queue, rules.late_waits
        streams[:, [k.T_QUEUED_SINCE, k.T_FLYING_SINCE]] = self.config.start_ns

    def set_route(self, stream: int, specs: Collection[int], longest: int) -> None:
        """Let requests of a stream go to some of the specs that accept it, and to the others only above so many tokens."""
        above = self.region(k.ABOVE_AT).reshape(len(self.config.specs), len(self.config.streams))
        above[:, stream] = k.FAR
        above[sorted(self.config.takers(stream)), stream] = longest
        above[sorted(specs), stream] = 0

    def _link(self, first: int) -> None:
        slots = self.region(k.SLOTS_AT).reshape(self.slots, k.SLOT_WIDTH)
        slots[first:, k.Q_NEXT] = np.arange(first + 1, self.slots + 1)
        slots[-1, k.Q_NEXT] = self.m[k.FREE_SLOT]
        self.m[k.FREE_SLOT] = first

    def grow(self, *, replicas: int = 1, slots: int = 1, heap: int = 1) -> None:
        """Multiply the room for replicas, requests, or sequences in a batch."""
        old, old_sizes, old_slots, old_heap = self.m, self.sizes, self.slots, self.heap
        self.replicas, self.slots, self.heap = self.replicas * replicas, self.slots * slots, self.heap * heap
        self._allocate()
        kept = (k.REPLICA_CAPACITY, k.SLOT_CAPACITY, k.HEAP_CAPACITY, k.RECORD_CAPACITY, *old_sizes)
        control = [word for word in range(k.CONTROL_WORDS) if word not in kept]
        self.m[control] = old[control]
        for word, size in old_sizes.items():
            was = old[old[word] : old[word] + size]
            if word == k.HEAPS_AT:
                self.region(word).reshape(self.replicas, self.heap)[: len(was) // old_heap, :old_heap] = was.reshape(-1, old_heap)
            elif word in (k.WAKES_AT, k.COUNTS_AT, k.TIMERS_AT):
                self._plant(word, was[size // 2 :])
            else:
                self.region(word)[:size] = was
        if slots > 1:
            self._link(old_slots)

    def _plant(self, word: int, leaves: IntArray) -> None:
        """Fill a tree of minima from its first leaves."""
        tree = self.region(word)
        tree[self.replicas : self.replicas + len(leaves)] = leaves
        for node in range(self.replicas - 1, 0, -1):
            tree[node] = min(tree[2 * node], tree[2 * node + 1])


def _entries(times_fx: tuple[int, ...], energies_j: tuple[float, ...]) -> IntArray:
    """A table of a step model as words: time and energy in turn."""
    table = np.empty((len(times_fx), k.ENTRY_WIDTH), dtype=np.int64)
    table[:, k.E_TIME_FX] = times_fx
    table[:, k.E_ENERGY_J] = np.array(energies_j, dtype=np.float64).view(np.int64)
    return table.ravel()


def _context_pieces(step: StepModel) -> IntArray:
    """The pieces of a step model's contexts as words, by number of sequences from 0 (nothing) on."""
    rows = ((NOTHING,) * len(step.knots_tokens), *step.contexts)
    table = np.empty((len(rows), len(step.knots_tokens), k.PIECE_WIDTH), dtype=np.int64)
    table[:, :, k.P_KNOT] = step.knots_tokens
    table[:, :, [k.P_OFFSET_FX, k.P_SLOPE_FX]] = [[(piece.offset_fx, piece.slope_fx) for piece in row] for row in rows]
    energies_j = np.array([[(piece.offset_j, piece.slope_j) for piece in row] for row in rows], dtype=np.float64)
    table[:, :, [k.P_OFFSET_J, k.P_SLOPE_J]] = energies_j.view(np.int64)
    return table.ravel()


def _power_of_two(least: int) -> int:
    return 1 << max(least - 1, 0).bit_length()
