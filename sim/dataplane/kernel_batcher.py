"""The dynamic batcher in the compiled engine: `batching.form_batch` of the reference, rule for rule."""

# mypy: disable-error-code="no-any-return"
# An element of an array has type Any for mypy.

from __future__ import annotations

from numba import types

from sim.dataplane.engine import FloatArray, IntArray
from sim.dataplane.kernel_layout import (
    LEVELS,
    NONE,
    NOW_NS,
    Q_CACHED,
    Q_CHUNK,
    Q_DISPATCHED_NS,
    Q_LEVEL,
    Q_NEED,
    Q_NEXT,
    Q_PROMPT,
    Q_STREAM,
    R_CHUNK_COUNT,
    R_CHUNKS,
    R_GROWTH_FX,
    R_LEFT,
    R_LISTS,
    R_N_OUT,
    R_OUTSTANDING,
    R_PIECE,
    R_S_TWICE,
    R_SPEC,
    R_START_NS,
    R_STEP_FX,
    R_TIMER_NS,
    R_TOKENS,
    R_WAKE_NS,
    S_BATCHER,
    S_BUDGET,
    S_DELAY_NS,
    S_LARGEST,
    S_PREFERRED,
    SPEC_WIDTH,
    SPECS_AT,
    STREAM_WIDTH,
    STREAMS,
    STREAMS_AT,
    T_BATCHER_QUEUE,
    T_LATE_WAITS,
    TABLES_AT,
)
from sim.dataplane.kernel_parts import FLOATS, FRACTION_BITS, INT, INTS, append, compiled, slot_at, unlink
from sim.dataplane.kernel_queues import abandon, enter_batch, forget, is_late, pull
from sim.dataplane.kernel_steps import constant_fx, piece_at, run_fx
from sim.dataplane.kernel_timers import rest, set_timer, stop_timer
from sim.dataplane.layout import NEVER_NS


@compiled(INT(INTS, INT, INT))
def line_at(m: IntArray, r: int, number: int) -> int:
    """Address of a waiting list of a batcher, in the order of serving: of each level first those in time, then the late."""
    level = number // 2
    if number % 2 == 0:
        return r + R_LISTS + 2 * level
    return r + R_LISTS + 2 * m[LEVELS] + 2 * m[STREAMS] + 2 * level


@compiled(types.boolean(INTS, INT, INT))
def batcher_is_full(m: IntArray, r: int, q: int) -> bool:
    """Whether as many requests of its level wait at a batcher as the stream of a new one allows."""
    if m[m[SPECS_AT] + m[r + R_SPEC] * SPEC_WIDTH + S_BATCHER] == 0:
        return False
    room = m[m[STREAMS_AT] + m[q + Q_STREAM] * STREAM_WIDTH + T_BATCHER_QUEUE]
    for number in range(2 * m[q + Q_LEVEL], 2 * m[q + Q_LEVEL] + 2):
        slot = m[line_at(m, r, number)]
        while slot != NONE and room > 0:
            room -= 1
            slot = m[slot_at(m, slot) + Q_NEXT]
    return room <= 0


@compiled(types.void(INTS, INT, INT, INT, INT))
def put_late(m: IntArray, r: int, number: int, before: int, q: int) -> None:
    """A late request leaves its waiting list: for the list behind it, or for good, which makes room for a pull."""
    unlink(m, line_at(m, r, number), before, q)
    if m[m[STREAMS_AT] + m[q + Q_STREAM] * STREAM_WIDTH + T_LATE_WAITS]:
        append(m, line_at(m, r, number + 1), q)
    else:
        forget(m, r, q)
        abandon(m, q)
        pull(m, r, 1)


@compiled(INT(INTS, INT))
def form_batch(m: IntArray, r: int) -> int:
    """How many of the requests in line a free replica runs now; sets its timer if it is better to wait."""
    s = m[SPECS_AT] + m[r + R_SPEC] * SPEC_WIDTH
    most, largest, preferred = m[s + S_BUDGET], m[s + S_LARGEST], m[TABLES_AT] + m[s + S_PREFERRED]
    count, size, best, oldest_ns, full = 0, 0, 0, NEVER_NS, False
    for number in range(2 * m[LEVELS]):
        before, slot = NONE, m[line_at(m, r, number)]
        while slot != NONE:
            q = slot_at(m, slot)
            if number % 2 == 0 and is_late(m, q):
                put_late(m, r, number, before, q)
                slot = m[line_at(m, r, number)] if before == NONE else m[slot_at(m, before) + Q_NEXT]
                continue
            items = m[q + Q_PROMPT]
            if count > 0 and best == 0 and size + items > largest:
                best = count
            if size + items > most:
                full = True
                break
            count += 1
            size += items
            oldest_ns = min(oldest_ns, m[q + Q_DISPATCHED_NS])
            if m[preferred + size]:
                best = count
            before, slot = slot, m[q + Q_NEXT]
        if full:
            break
    if count == 0:
        return 0
    due_ns = oldest_ns + m[s + S_DELAY_NS]
    if best > 0 and (m[NOW_NS] < due_ns or m[s + S_DELAY_NS] == 0):
        return best
    if full or size >= largest or m[NOW_NS] >= due_ns:
        return count
    set_timer(m, r, due_ns)
    return 0


@compiled(types.void(INTS, FLOATS, INT))
def start_batch(m: IntArray, f: FloatArray, r: int) -> None:
    """Run the next batch of a batcher, or set its timer."""
    stop_timer(m, r)
    left = form_batch(m, r)
    while left == 0 and m[r + R_OUTSTANDING] > 0 and m[r + R_TIMER_NS] == NEVER_NS:
        left = form_batch(m, r)
    first, last, tokens, chunks, s_twice = NONE, NONE, 0, 0, 0
    for number in range(2 * m[LEVELS]):
        line = line_at(m, r, number)
        while left > 0 and m[line] != NONE:
            slot = m[line]
            q = slot_at(m, slot)
            unlink(m, line, NONE, q)
            m[q + Q_CACHED] = 0
            enter_batch(m, r, q)
            chunk = m[q + Q_NEED]
            m[q + Q_CHUNK] = chunk
            m[q + Q_NEXT] = NONE
            if first == NONE:
                first = slot
            else:
                m[slot_at(m, last) + Q_NEXT] = slot
            last = slot
            tokens += chunk
            chunks += 1
            s_twice += chunk * chunk
            left -= 1
    m[r + R_CHUNKS] = first
    m[r + R_CHUNK_COUNT] = chunks
    if chunks == 0:
        rest(m, r)
        return
    s = m[SPECS_AT] + m[r + R_SPEC] * SPEC_WIDTH
    m[r + R_TOKENS] = tokens
    m[r + R_N_OUT] = chunks
    m[r + R_S_TWICE] = s_twice
    m[r + R_PIECE] = piece_at(m, s, 0, 0)
    m[r + R_STEP_FX] = constant_fx(m, s, tokens, chunks, s_twice, 0)
    m[r + R_GROWTH_FX] = 0
    m[r + R_START_NS] = m[NOW_NS]
    m[r + R_LEFT] = 1
    m[r + R_WAKE_NS] = m[NOW_NS] + (run_fx(m, r, 1) >> FRACTION_BITS)
