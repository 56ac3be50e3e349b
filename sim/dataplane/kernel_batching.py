"""Continuous batching in the compiled engine: service queues, preemption, admission, the start and the end of a step."""

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
from sim.dataplane.kernel_layout import (
    ACCEPTS_AT,
    FAR,
    LEVELS,
    NONE,
    NOW_NS,
    Q_ADMISSION,
    Q_ADMITTED_NS,
    Q_CACHED,
    Q_CHUNK,
    Q_DEADLINE_NS,
    Q_DECODE_SHARE_NS,
    Q_DISPATCHED_NS,
    Q_FINISH,
    Q_FIRST_NS,
    Q_GENERATED,
    Q_INDEX,
    Q_LEVEL,
    Q_NEED,
    Q_NEXT,
    Q_NUMBER,
    Q_OUTPUT,
    Q_PREEMPTIONS,
    Q_PREFILL_SHARE_NS,
    Q_PREFILLED,
    Q_PROMPT,
    Q_REPLICA,
    Q_RESERVED,
    Q_STARTED,
    Q_STREAM,
    Q_WAITED,
    QUEUE_CHANGED,
    QUEUED,
    QUEUES,
    QUEUES_AT,
    R_ACCEPTING,
    R_ADMISSIONS,
    R_CHUNK_COUNT,
    R_CHUNKS,
    R_CONTEXT,
    R_DECODE_SHARE_NS,
    R_DECODED,
    R_DECODING,
    R_FRACTION_FX,
    R_GROWTH_FX,
    R_IDLE_SINCE,
    R_INDEX,
    R_LEFT,
    R_LISTS,
    R_LOST_NS,
    R_N_OUT,
    R_NUMBER,
    R_OUTPUT_TOKENS,
    R_OUTSTANDING,
    R_PARTIAL,
    R_PREFILL_TOKENS,
    R_RESERVED,
    R_RUNNING,
    R_S_TWICE,
    R_SPEC,
    R_START_NS,
    R_STEP_FX,
    R_TIMER_NS,
    R_TOKENS,
    R_USED,
    R_WAKE_NS,
    R_WATCH_IDLE,
    REPLICA_WIDTH,
    REPLICAS_AT,
    REPLICAS_USED,
    S_BUDGET,
    S_KV,
    S_LONGEST,
    S_MOST,
    S_SEATS,
    S_SLOPE_FX,
    S_WATERMARK,
    SLOT_BITS,
    SLOT_MASK,
    SPEC_WIDTH,
    SPECS_AT,
    STALE_NS,
    STREAM_WIDTH,
    STREAMS,
    STREAMS_AT,
    T_COUNTERS,
    TIMER_NS,
    U_LENGTH,
    U_LISTS,
    U_WATCH_ABOVE,
    WATCH_ABOVE,
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
    append,
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
from sim.dataplane.kernel_steps import (
    account_steps,
    run_fx,
    step_fx,
    steps_within,
    wake_after,
)
from sim.dataplane.layout import (
    ABANDONED,
    COMPLETED,
    FRAGMENT_TOKENS,
    LOST_PREFILL_TOKENS,
    NEVER_NS,
    OUTPUT_TOKENS,
    PREEMPTED,
    PREFILL_TOKENS,
    WAITED_FOR_KV,
)

# Service queues.


@compiled(types.boolean(INTS, INT))
def expired(m: IntArray, q: int) -> bool:
    """Whether a request has waited too long for its first admission."""
    return m[q + Q_STARTED] == 0 and m[NOW_NS] > m[q + Q_DEADLINE_NS]


@compiled(types.void(INTS, INT))
def abandon(m: IntArray, q: int) -> None:
    """A waiting request leaves."""
    change_queued(m, m[STREAMS_AT] + m[q + Q_STREAM] * STREAM_WIDTH, -1)
    leave(m, q, ABANDONED)


@compiled(INT(INTS, INT))
def queue_at(m: IntArray, number: int) -> int:
    """Address of a service queue."""
    return m[QUEUES_AT] + number * (U_LISTS + 2 * m[LEVELS])


@compiled(types.void(INTS, INT))
def expire_heads(m: IntArray, u: int) -> None:
    """Requests at the heads of a service queue that have waited too long leave."""
    for level in range(m[LEVELS]):
        line = u + U_LISTS + 2 * level
        while m[line] != NONE and expired(m, slot_at(m, m[line])):
            q = slot_at(m, m[line])
            unlink(m, line, NONE, q)
            m[u + U_LENGTH] -= 1
            m[QUEUED] -= 1
            m[QUEUE_CHANGED] = 1
            abandon(m, q)


@compiled(types.void(INTS, INT, INT))
def check_above(m: IntArray, u: int, number: int) -> None:
    """Fire the watch of a queue that is too long."""
    if m[u + U_WATCH_ABOVE] != NONE and m[u + U_LENGTH] > m[u + U_WATCH_ABOVE]:
        m[u + U_WATCH_ABOVE] = NONE
        m[WATCHES] -= 1
        hit(m, WATCH_ABOVE, number)


@compiled(types.boolean(INTS, INT, INT))
def fits(m: IntArray, r: int, q: int) -> bool:
    """Whether a replica accepts the stream of a request and could ever hold it."""
    spec = m[r + R_SPEC]
    return (
        m[m[ACCEPTS_AT] + spec * m[STREAMS] + m[q + Q_STREAM]] != 0
        and m[q + Q_PROMPT] + m[q + Q_OUTPUT] <= m[m[SPECS_AT] + spec * SPEC_WIDTH + S_LONGEST]
    )


@compiled(types.boolean(INTS, INT))
def has_room(m: IntArray, r: int) -> bool:
    """Whether another request may come to a replica."""
    return m[r + R_ACCEPTING] == 1 and m[r + R_OUTSTANDING] < m[m[SPECS_AT] + m[r + R_SPEC] * SPEC_WIDTH + S_MOST]


@compiled(types.void(INTS, INT, INT))
def enqueue(m: IntArray, r: int, q: int) -> None:
    """Put a request into a replica's waiting list."""
    append(m, r + R_LISTS + 2 * m[q + Q_LEVEL], q)
    m[r + R_OUTSTANDING] += 1
    m[q + Q_RESERVED] = m[q + Q_PROMPT] + m[q + Q_GENERATED]
    m[r + R_RESERVED] += m[q + Q_RESERVED]
    m[q + Q_REPLICA] = m[r + R_NUMBER]
    m[q + Q_INDEX] = m[r + R_INDEX]
    m[q + Q_DISPATCHED_NS] = m[NOW_NS]


@compiled(types.void(INTS, INT, INT))
def forget(m: IntArray, r: int, q: int) -> None:
    """Take a request off a replica's account."""
    m[r + R_OUTSTANDING] -= 1
    m[r + R_RESERVED] -= m[q + Q_RESERVED]


@compiled(types.void(INTS, INT, INT))
def pull(m: IntArray, r: int, most: int) -> None:
    """Take requests from the service queues while there is room: highest level first, then the oldest head that fits here."""
    while most > 0 and m[QUEUED] > 0 and has_room(m, r):
        for number in range(m[QUEUES]):
            expire_heads(m, queue_at(m, number))
        found, found_before, found_queue = NONE, NONE, NONE
        for level in range(m[LEVELS]):
            for number in range(m[QUEUES]):
                before, slot = NONE, m[queue_at(m, number) + U_LISTS + 2 * level]
                while slot != NONE:
                    q = slot_at(m, slot)
                    if fits(m, r, q) and not expired(m, q):
                        if found == NONE or m[q + Q_NUMBER] < m[slot_at(m, found) + Q_NUMBER]:
                            found, found_before, found_queue = slot, before, number
                        break
                    before, slot = slot, m[q + Q_NEXT]
            if found != NONE:
                break
        if found == NONE:
            return
        q, u = slot_at(m, found), queue_at(m, found_queue)
        unlink(m, u + U_LISTS + 2 * m[q + Q_LEVEL], found_before, q)
        m[u + U_LENGTH] -= 1
        m[QUEUED] -= 1
        m[QUEUE_CHANGED] = 1
        enqueue(m, r, q)
        most -= 1


# A step.


@compiled(types.void(INTS, FLOATS, INT, INT))
def leave_batch(m: IntArray, f: FloatArray, r: int, q: int) -> None:
    """Count out what a decoding request has generated and free its place."""
    m[q + Q_GENERATED] = m[q + Q_OUTPUT] - (m[q + Q_FINISH] - m[r + R_DECODED])
    f[q + Q_DECODE_SHARE_NS] += f[r + R_DECODE_SHARE_NS]
    m[r + R_CONTEXT] -= m[q + Q_PROMPT] + m[q + Q_GENERATED]
    m[r + R_LISTS + 2 * m[LEVELS] + m[q + Q_STREAM]] -= 1


@compiled(types.void(INTS, FLOATS, INT))
def preempt(m: IntArray, f: FloatArray, r: int) -> None:
    """Throw out the lowest priority's latest admitted request: its cache is recomputed later, its tokens stay."""
    heap, size = heap_of(m, r), m[r + R_DECODING]
    victim, place = m[r + R_PARTIAL], NONE
    for at in range(size):
        slot = m[heap + at] & SLOT_MASK
        if victim == NONE:
            victim, place = slot, at
            continue
        q, best = slot_at(m, slot), slot_at(m, victim)
        if m[q + Q_LEVEL] > m[best + Q_LEVEL] or (
            m[q + Q_LEVEL] == m[best + Q_LEVEL] and m[q + Q_ADMISSION] > m[best + Q_ADMISSION]
        ):
            victim, place = slot, at
    q = slot_at(m, victim)
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
    line = r + R_LISTS + 2 * m[q + Q_LEVEL]
    if m[LEVELS] == 1:
        prepend(m, line, q)
    else:
        insert(m, line, q)


@compiled(INT(INTS, INT))
def first_waiting(m: IntArray, r: int) -> int:
    """Slot of the request that is next in line at a replica, or NONE."""
    for level in range(m[LEVELS]):
        slot = m[r + R_LISTS + 2 * level]
        if slot != NONE:
            return slot
    return NONE


@compiled(INT(INTS, INT, INT))
def admit(m: IntArray, r: int, running: int) -> int:
    """Admit the next in line if its whole prompt fits and return its address; the expired leave and make room for a pull."""
    s = m[SPECS_AT] + m[r + R_SPEC] * SPEC_WIDTH
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
        tokens = m[q + Q_PROMPT] + m[q + Q_GENERATED]
        if m[r + R_USED] + tokens + FRAGMENT_TOKENS > m[s + S_KV] - (m[s + S_WATERMARK] if running else 0):
            m[q + Q_WAITED] |= WAITED_FOR_KV
            return NONE
        unlink(m, line, NONE, q)
        change_queued(m, m[STREAMS_AT] + m[q + Q_STREAM] * STREAM_WIDTH, -1)
        if m[q + Q_STARTED]:
            m[q + Q_CACHED] = 0
        m[q + Q_STARTED] = 1
        m[q + Q_PREFILLED] = 0
        m[q + Q_NEED] = tokens - m[q + Q_CACHED]
        m[q + Q_ADMISSION] = m[r + R_ADMISSIONS]
        m[q + Q_ADMITTED_NS] = m[NOW_NS]
        m[r + R_ADMISSIONS] += 1
        m[r + R_RUNNING] += 1
        m[r + R_USED] += tokens + FRAGMENT_TOKENS
        m[r + R_RESERVED] += tokens - m[q + Q_RESERVED]
        m[q + Q_RESERVED] = tokens
        return q


@compiled(types.void(INTS))
def find_timer(m: IntArray) -> None:
    """Note the earliest idle timer."""
    least = NEVER_NS
    for index in range(m[REPLICAS_USED]):
        r = m[REPLICAS_AT] + index * m[REPLICA_WIDTH]
        if m[r + R_NUMBER] != NONE:
            least = min(least, m[r + R_TIMER_NS])
    m[TIMER_NS] = least


@compiled(types.void(INTS, INT))
def set_timer(m: IntArray, r: int) -> None:
    """Set the timer of an idle watch."""
    if m[r + R_WATCH_IDLE] != NONE:
        since_ns, level_ns = m[r + R_IDLE_SINCE], m[r + R_WATCH_IDLE]
        m[r + R_TIMER_NS] = max(since_ns + level_ns, m[NOW_NS])
        m[STALE_NS] = max(m[STALE_NS], m[r + R_TIMER_NS])
        find_timer(m)


@compiled(types.void(INTS, INT))
def become_idle(m: IntArray, r: int) -> None:
    """Nothing to do: no step, no fraction left over."""
    m[r + R_LEFT] = 0
    m[r + R_WAKE_NS] = NEVER_NS
    m[r + R_FRACTION_FX] = 0
    m[r + R_IDLE_SINCE] = m[NOW_NS]
    set_timer(m, r)


@compiled(types.void(INTS, FLOATS, INT))
def start_step(m: IntArray, f: FloatArray, r: int) -> None:
    """Preempt if decode growth would not fit, continue the partial prefill, admit; then run to the next boundary that matters."""
    s = m[SPECS_AT] + m[r + R_SPEC] * SPEC_WIDTH
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
            if preempted or budget <= 0 or decoding + chunks >= seats:
                break
            q = admit(m, r, decoding + chunks)
            if q == NONE:
                break
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
        become_idle(m, r)
        return
    if m[r + R_TIMER_NS] != NEVER_NS:
        m[r + R_TIMER_NS] = NEVER_NS
        find_timer(m)
    m[r + R_TOKENS] = tokens
    m[r + R_N_OUT] = decoding + completing
    m[r + R_S_TWICE] = s_twice
    m[r + R_STEP_FX] = step_fx(m, f, s, tokens, decoding + completing, s_twice, m[r + R_CONTEXT])
    m[r + R_START_NS] = m[NOW_NS]
    steps, growth, waiting = 1, 0, NONE
    if chunks == 0:
        growth = m[s + S_SLOPE_FX] * decoding
        waiting = first_waiting(m, r)
        if not (preempted and waiting != NONE):
            steps = min((m[heap_of(m, r)] >> SLOT_BITS) - m[r + R_DECODED], (kv - m[r + R_USED]) // decoding)
    m[r + R_GROWTH_FX] = growth
    if m[r + R_STEP_FX] * float(steps) + growth * (0.5 * steps) * (steps - 1) > LONGEST_RUN:
        steps = max(steps_within(m, r, LONGEST_RUN_FX), 1) if m[r + R_STEP_FX] < LONGEST_RUN_FX // 4 else 1
    m[r + R_LEFT] = steps
    m[r + R_WAKE_NS] = m[r + R_START_NS] + (run_fx(m, r, steps) >> FRACTION_BITS)
    if steps > 1 and waiting != NONE and decoding < seats:
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
        m[r + R_USED] -= m[q + Q_PROMPT] + generated - 1 + FRAGMENT_TOKENS
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


@compiled(types.void(INTS))
def ring_timer(m: IntArray) -> None:
    """The earliest idle timer is due: its watch fires."""
    for index in range(m[REPLICAS_USED]):
        r = m[REPLICAS_AT] + index * m[REPLICA_WIDTH]
        if m[r + R_NUMBER] != NONE and m[r + R_TIMER_NS] == m[NOW_NS]:
            m[r + R_TIMER_NS] = NEVER_NS
            m[r + R_WATCH_IDLE] = NONE
            m[WATCHES] -= 1
            hit(m, WATCH_IDLE, m[r + R_NUMBER])
            break
    find_timer(m)
