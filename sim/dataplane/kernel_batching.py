"""Continuous batching in the compiled engine: preemption, admission, the start and the end of a step."""

# mypy: disable-error-code="no-any-return"
# An element of an array has type Any for mypy.

from __future__ import annotations

from numba import types

from sim.dataplane.engine import FloatArray, IntArray
from sim.dataplane.kernel_accounts import (
    change_queued,
    hit,
    leave,
)
from sim.dataplane.kernel_backlogs import from_backlog, throw_back
from sim.dataplane.kernel_batcher import start_batch
from sim.dataplane.kernel_layout import (
    BACKLOGS,
    FAR,
    FROM_BACKLOG,
    LEVELS,
    NONE,
    NOW_NS,
    P_OFFSET_FX,
    P_SLOPE_FX,
    Q_ADMISSION,
    Q_CACHED,
    Q_CHUNK,
    Q_DEADLINE_NS,
    Q_DECODE_SHARE_NS,
    Q_FINISH,
    Q_FIRST_NS,
    Q_GENERATED,
    Q_LEVEL,
    Q_NEED,
    Q_NEXT,
    Q_NUMBER,
    Q_OUTPUT,
    Q_PREEMPTIONS,
    Q_PREFILL_SHARE_NS,
    Q_PREFILLED,
    Q_PROMPT,
    Q_SOURCE,
    Q_STARTED,
    Q_STREAM,
    Q_WAITED,
    R_ASKS,
    R_BACKLOG,
    R_CHUNK_COUNT,
    R_CHUNKS,
    R_CONTEXT,
    R_DECODE_SHARE_NS,
    R_DECODED,
    R_DECODING,
    R_GROWTH_FX,
    R_LEFT,
    R_LISTS,
    R_LOST_NS,
    R_N_OUT,
    R_NUMBER,
    R_OUTPUT_TOKENS,
    R_OUTSTANDING,
    R_PARTIAL,
    R_PIECE,
    R_PREFILL_TOKENS,
    R_RUNNING,
    R_S_TWICE,
    R_SPEC,
    R_START_NS,
    R_STEP_FX,
    R_TOKENS,
    R_USED,
    R_WAKE_NS,
    R_WATCH_IDLE,
    REPLICA_WIDTH,
    REPLICAS_AT,
    S_BATCHER,
    S_BUDGET,
    S_KNOTS,
    S_KV,
    S_SEATS,
    S_WATERMARK,
    SLOT_BITS,
    SLOT_MASK,
    SPEC_WIDTH,
    SPECS_AT,
    STREAM_WIDTH,
    STREAMS,
    STREAMS_AT,
    T_COUNTERS,
    TABLES_AT,
    WATCH_IDLE,
    WATCHES,
)
from sim.dataplane.kernel_parts import (
    FLOATS,
    FRACTION_BITS,
    INT,
    INTS,
    LONGEST_RUN,
    LONGEST_RUN_FX,
    compiled,
    heap_of,
    insert,
    prepend,
    push,
    sink,
    slot_at,
    slot_of,
    unlink,
)
from sim.dataplane.kernel_queues import abandon, enter_batch, expired, first_waiting, forget, pull, used_by
from sim.dataplane.kernel_steps import (
    account_steps,
    constant_fx,
    piece_at,
    run_fx,
    steps_to_knot,
    steps_within,
    wake_after,
)
from sim.dataplane.kernel_timers import rest, set_timer, stop_timer
from sim.dataplane.layout import (
    COMPLETED,
    FRAGMENT_TOKENS,
    LOST_PREFILL_TOKENS,
    NEVER_NS,
    OUTPUT_TOKENS,
    PREEMPTED,
    PREFILL_TOKENS,
    WAITED_FOR_KV,
)

# A step.


@compiled(types.void(INTS, FLOATS, INT, INT))
def leave_batch(m: IntArray, f: FloatArray, r: int, q: int) -> None:
    """Count out what a decoding request has generated and free its place."""
    m[q + Q_GENERATED] = m[q + Q_OUTPUT] - (m[q + Q_FINISH] - m[r + R_DECODED])
    f[q + Q_DECODE_SHARE_NS] += f[r + R_DECODE_SHARE_NS]
    m[r + R_CONTEXT] -= m[q + Q_PROMPT] + m[q + Q_GENERATED]
    m[r + R_LISTS + 2 * m[LEVELS] + m[q + Q_STREAM]] -= 1


@compiled(types.void(INTS, FLOATS, INT, INT, INT))
def throw_out(m: IntArray, f: FloatArray, r: int, q: int, place: int) -> None:
    """Stop a running request, at a place of the heap or the partial prefill: its cache is recomputed later, its tokens stay."""
    heap, size = heap_of(m, r), m[r + R_DECODING]
    if place == NONE:
        m[r + R_PARTIAL] = NONE
    else:
        m[r + R_DECODING] = size - 1
        if place < size - 1:
            m[heap + place] = m[heap + size - 1]
            sink(m, heap, size - 1, place)
        leave_batch(m, f, r, q)
    m[r + R_USED] -= m[q + Q_PROMPT] + m[q + Q_GENERATED] + FRAGMENT_TOKENS
    m[r + R_RUNNING] -= 1
    m[q + Q_PREEMPTIONS] += 1
    stream = m[q + Q_STREAM]
    t = m[STREAMS_AT] + stream * STREAM_WIDTH
    m[t + T_COUNTERS + PREEMPTED] += 1
    m[t + T_COUNTERS + LOST_PREFILL_TOKENS] += m[q + Q_PREFILLED]
    f[r + R_LISTS + 2 * m[LEVELS] + m[STREAMS] + stream] -= f[q + Q_PREFILL_SHARE_NS]
    f[r + R_LOST_NS] += f[q + Q_PREFILL_SHARE_NS]
    f[q + Q_PREFILL_SHARE_NS] = 0.0
    m[q + Q_PREFILLED] = 0
    change_queued(m, t, 1)
    if m[q + Q_SOURCE] == FROM_BACKLOG:
        forget(m, r, q)
        f[q + Q_DECODE_SHARE_NS] = 0.0
        throw_back(m, q)
        return
    line = r + R_LISTS + 2 * m[q + Q_LEVEL]
    if m[LEVELS] == 1:
        prepend(m, line, q)
    else:
        insert(m, line, q)


@compiled(types.void(INTS, FLOATS, INT))
def preempt(m: IntArray, f: FloatArray, r: int) -> None:
    """Throw out a request of a backlog, else one of the lowest priority; of these the latest admitted."""
    heap, size = heap_of(m, r), m[r + R_DECODING]
    victim, place = m[r + R_PARTIAL], NONE
    for at in range(size):
        slot = m[heap + at] & SLOT_MASK
        if victim == NONE:
            victim, place = slot, at
            continue
        q, best = slot_at(m, slot), slot_at(m, victim)
        order, best_order = m[q + Q_SOURCE] == FROM_BACKLOG, m[best + Q_SOURCE] == FROM_BACKLOG
        if order == best_order:
            order, best_order = m[q + Q_LEVEL] > m[best + Q_LEVEL], m[q + Q_LEVEL] < m[best + Q_LEVEL]
            if order == best_order:
                order = m[q + Q_ADMISSION] > m[best + Q_ADMISSION]
        if order:
            victim, place = slot, at
    throw_out(m, f, r, slot_at(m, victim), place)


@compiled(INT(INTS, INT, INT))
def next_to_go(m: IntArray, r: int, before: int) -> int:
    """Place in the heap of the latest admitted request of a backlog that was admitted before another, or NONE."""
    heap, found, latest = heap_of(m, r), NONE, NONE
    for at in range(m[r + R_DECODING]):
        q = slot_at(m, m[heap + at] & SLOT_MASK)
        if m[q + Q_SOURCE] == FROM_BACKLOG and latest < m[q + Q_ADMISSION] < before:
            found, latest = at, m[q + Q_ADMISSION]
    return found


@compiled(types.boolean(INTS, FLOATS, INT, INT, INT))
def make_room(m: IntArray, f: FloatArray, r: int, q: int, chunks: int) -> bool:
    """Whether the next in line gets a seat and room for its whole prompt.

    Decoding requests of backlogs make way for it, the latest admitted first, no more than needed, and none in vain.
    """
    s = m[SPECS_AT] + m[r + R_SPEC] * SPEC_WIDTH
    running, used, heap = m[r + R_DECODING] + chunks, m[r + R_USED], heap_of(m, r)
    need = m[q + Q_PROMPT] + m[q + Q_GENERATED] + FRAGMENT_TOKENS
    if used + need > m[s + S_KV] - (m[s + S_WATERMARK] if running else 0):
        m[q + Q_WAITED] |= WAITED_FOR_KV
    elif running < m[s + S_SEATS]:
        return True
    going, last = 0, FAR
    while True:
        place = next_to_go(m, r, last) if m[r + R_BACKLOG] else NONE
        if place == NONE:
            return False
        victim = slot_at(m, m[heap + place] & SLOT_MASK)
        last = m[victim + Q_ADMISSION]
        going += 1
        running -= 1
        generated = m[victim + Q_OUTPUT] - (m[victim + Q_FINISH] - m[r + R_DECODED])
        used -= m[victim + Q_PROMPT] + generated + FRAGMENT_TOKENS
        if running < m[s + S_SEATS] and used + need <= m[s + S_KV] - (m[s + S_WATERMARK] if running else 0):
            break
    for _ in range(going):
        place = next_to_go(m, r, FAR)
        throw_out(m, f, r, slot_at(m, m[heap + place] & SLOT_MASK), place)
    return True


@compiled(INT(INTS, FLOATS, INT, INT))
def admit(m: IntArray, f: FloatArray, r: int, chunks: int) -> int:
    """Admit the next in line if it fits and return its address; the expired leave and make room for a pull."""
    if m[r + R_DECODING] + chunks >= m[m[SPECS_AT] + m[r + R_SPEC] * SPEC_WIDTH + S_SEATS] and m[r + R_BACKLOG] == 0:
        return NONE
    while True:
        slot = first_waiting(m, r)
        if slot == NONE:
            return NONE
        q = slot_at(m, slot)
        line = r + R_LISTS + 2 * m[q + Q_LEVEL]
        if expired(m, q):
            unlink(m, line, NONE, q)
            forget(m, r, q)
            abandon(m, q)
            pull(m, r, 1)
            continue
        if not make_room(m, f, r, q, chunks):
            return NONE
        unlink(m, line, NONE, q)
        enter_batch(m, r, q)
        return q


@compiled(types.void(INTS, FLOATS, INT))
def start_step(m: IntArray, f: FloatArray, r: int) -> None:
    """Preempt if decode growth would not fit, continue the partial prefill, admit; then run to the next boundary that matters."""
    s = m[SPECS_AT] + m[r + R_SPEC] * SPEC_WIDTH
    if m[s + S_BATCHER]:
        start_batch(m, f, r)
        return
    asks = m[r + R_ASKS] == 1 and m[BACKLOGS] > 0
    m[r + R_ASKS] = 0
    kv, seats, preempted = m[s + S_KV], m[s + S_SEATS], False
    while m[r + R_USED] + m[r + R_DECODING] > kv:
        preempt(m, f, r)
        preempted = True
    decoding = m[r + R_DECODING]
    budget = m[s + S_BUDGET] - decoding
    tokens, chunks, completing, s_twice = decoding, 0, 0, 0
    first, last, partial = NONE, NONE, m[r + R_PARTIAL]
    q = slot_at(m, partial) if partial != NONE else NONE
    partial = NONE
    while True:
        if q == NONE:
            if preempted or budget <= 0:
                break
            q = admit(m, f, r, chunks)
            if q == NONE and asks:
                q = from_backlog(m, r, decoding + chunks)
            if q == NONE:
                break
            if m[r + R_DECODING] < decoding:
                budget += decoding - m[r + R_DECODING]
                tokens -= decoding - m[r + R_DECODING]
                decoding = m[r + R_DECODING]
                asks = False
        slot, prefilled = slot_of(m, q), m[q + Q_PREFILLED]
        chunk = min(m[q + Q_NEED] - prefilled, budget)
        budget -= chunk
        tokens += chunk
        chunks += 1
        s_twice += chunk * (2 * (prefilled + m[q + Q_CACHED]) + chunk)
        if prefilled + chunk == m[q + Q_NEED]:
            completing += 1
        else:
            partial = slot
        m[q + Q_CHUNK] = chunk
        m[q + Q_NEXT] = NONE
        if first == NONE:
            first = slot
        else:
            m[slot_at(m, last) + Q_NEXT] = slot
        last = slot
        q = NONE
    m[r + R_CHUNKS] = first
    m[r + R_CHUNK_COUNT] = chunks
    m[r + R_PARTIAL] = partial
    if tokens == 0:
        rest(m, r)
        return
    stop_timer(m, r)
    m[r + R_TOKENS] = tokens
    m[r + R_N_OUT] = decoding + completing
    m[r + R_S_TWICE] = s_twice
    m[r + R_PIECE] = piece_at(m, s, decoding, m[r + R_CONTEXT])
    piece = m[TABLES_AT] + m[r + R_PIECE]
    constant = constant_fx(m, s, tokens, decoding + completing, s_twice, decoding) + m[piece + P_OFFSET_FX]
    m[r + R_STEP_FX] = constant + m[piece + P_SLOPE_FX] * m[r + R_CONTEXT]
    m[r + R_START_NS] = m[NOW_NS]
    steps, growth, waiting = 1, 0, NONE
    if chunks == 0:
        growth = m[piece + P_SLOPE_FX] * decoding
        waiting = first_waiting(m, r)
        if not (preempted and waiting != NONE):
            steps = min((m[heap_of(m, r)] >> SLOT_BITS) - m[r + R_DECODED], (kv - m[r + R_USED]) // decoding)
            if m[s + S_KNOTS] > 1:
                steps = min(steps, steps_to_knot(m, r, decoding, m[r + R_CONTEXT]))
    m[r + R_GROWTH_FX] = growth
    if m[r + R_STEP_FX] * float(steps) + growth * (0.5 * steps) * (steps - 1) > LONGEST_RUN:
        steps = max(steps_within(m, r, LONGEST_RUN_FX), 1) if m[r + R_STEP_FX] < LONGEST_RUN_FX // 4 else 1
    m[r + R_LEFT] = steps
    m[r + R_WAKE_NS] = m[r + R_START_NS] + (run_fx(m, r, steps) >> FRACTION_BITS)
    if steps > 1 and waiting != NONE and (decoding < seats or m[r + R_BACKLOG] > 0):
        # The next in line is blocked by KV: it may expire, and is noticed at the first boundary after that.
        q = slot_at(m, waiting)
        if m[q + Q_STARTED] == 0:
            wake_after(m, r, m[q + Q_DEADLINE_NS])


@compiled(INT(INTS, INT, INT))
def insert_done(m: IntArray, first: int, q: int) -> int:
    """Put a completed request into a list in order of number; returns the first slot."""
    before, slot = NONE, first
    while slot != NONE and m[slot_at(m, slot) + Q_NUMBER] < m[q + Q_NUMBER]:
        before, slot = slot, m[slot_at(m, slot) + Q_NEXT]
    m[q + Q_NEXT] = slot
    if before == NONE:
        return slot_of(m, q)
    m[slot_at(m, before) + Q_NEXT] = slot_of(m, q)
    return first


@compiled(types.boolean(INTS, FLOATS, INT, INT))
def first_token(m: IntArray, f: FloatArray, r: int, q: int) -> bool:
    """The end of a prefill emits the next token; True if it was the last one."""
    m[q + Q_GENERATED] += 1
    stream, generated = m[q + Q_STREAM], m[q + Q_GENERATED]
    m[m[STREAMS_AT] + stream * STREAM_WIDTH + T_COUNTERS + OUTPUT_TOKENS] += 1
    m[r + R_OUTPUT_TOKENS] += 1
    if m[q + Q_FIRST_NS] < 0:
        m[q + Q_FIRST_NS] = m[NOW_NS]
    if generated == m[q + Q_OUTPUT]:
        m[r + R_USED] -= used_by(m, r, m[q + Q_PROMPT] + generated - 1)
        return True
    m[r + R_USED] += 1
    m[r + R_CONTEXT] += m[q + Q_PROMPT] + generated
    m[q + Q_FINISH] = m[r + R_DECODED] + m[q + Q_OUTPUT] - generated
    f[q + Q_DECODE_SHARE_NS] -= f[r + R_DECODE_SHARE_NS]
    m[r + R_LISTS + 2 * m[LEVELS] + stream] += 1
    push(m, heap_of(m, r), m[r + R_DECODING], (m[q + Q_FINISH] << SLOT_BITS) | slot_of(m, q))
    m[r + R_DECODING] += 1
    return False


@compiled(types.void(INTS, FLOATS, INT))
def end_step(m: IntArray, f: FloatArray, r: int) -> None:
    """The boundary at which a replica wakes: requests get tokens and leave, others are pulled and admitted."""
    account_steps(m, f, r, m[r + R_LEFT])
    heap, done = heap_of(m, r), NONE
    while m[r + R_DECODING] > 0 and m[heap] >> SLOT_BITS == m[r + R_DECODED]:
        q, size = slot_at(m, m[heap] & SLOT_MASK), m[r + R_DECODING] - 1
        m[r + R_DECODING] = size
        if size > 0:
            m[heap] = m[heap + size]
            sink(m, heap, size, 0)
        leave_batch(m, f, r, q)
        m[r + R_USED] -= m[q + Q_PROMPT] + m[q + Q_GENERATED] + FRAGMENT_TOKENS
        done = insert_done(m, done, q)
    slot = m[r + R_CHUNKS]
    while slot != NONE:
        q = slot_at(m, slot)
        slot = m[q + Q_NEXT]
        m[r + R_PREFILL_TOKENS] += m[q + Q_CHUNK]
        m[m[STREAMS_AT] + m[q + Q_STREAM] * STREAM_WIDTH + T_COUNTERS + PREFILL_TOKENS] += m[q + Q_CHUNK]
        m[q + Q_PREFILLED] += m[q + Q_CHUNK]
        if m[q + Q_PREFILLED] == m[q + Q_NEED] and first_token(m, f, r, q):
            done = insert_done(m, done, q)
    if done != NONE or m[r + R_CHUNK_COUNT] > 0:
        m[r + R_ASKS] = 1
    m[r + R_CHUNKS] = NONE
    m[r + R_CHUNK_COUNT] = 0
    while done != NONE:
        q = slot_at(m, done)
        done = m[q + Q_NEXT]
        m[r + R_RUNNING] -= 1
        forget(m, r, q)
        leave(m, q, COMPLETED)
    pull(m, r, FAR)
    start_step(m, f, r)


@compiled(types.void(INTS, FLOATS, INT))
def ring_timer(m: IntArray, f: FloatArray, index: int) -> None:
    """The timer of a replica is due: the delay of a batcher is over, or an idle watch fires."""
    r = m[REPLICAS_AT] + index * m[REPLICA_WIDTH]
    set_timer(m, r, NEVER_NS)
    if m[r + R_OUTSTANDING] > 0:
        start_batch(m, f, r)
        return
    m[r + R_WATCH_IDLE] = NONE
    m[WATCHES] -= 1
    hit(m, WATCH_IDLE, m[r + R_NUMBER])
