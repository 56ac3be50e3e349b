"""Waiting in the compiled engine: a request arrives, waits in a queue or at a replica, expires, is pulled, enters a batch."""

# mypy: disable-error-code="no-any-return"
# An element of an array has type Any for mypy.

from __future__ import annotations

import numpy as np
from numba import types

from sim.dataplane.engine import IntArray
from sim.dataplane.kernel_accounts import change_in_flight, change_queued, hit, leave
from sim.dataplane.kernel_layout import (
    ABOVE_AT,
    FREE_SLOT,
    FROM_BACKLOG,
    LEVELS,
    NONE,
    NOW_NS,
    Q_ADMISSION,
    Q_ADMITTED_NS,
    Q_ARRIVAL_NS,
    Q_ATTEMPT,
    Q_CACHED,
    Q_DEADLINE_NS,
    Q_DECODE_SHARE_NS,
    Q_DISPATCHED_NS,
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
    Q_SESSION,
    Q_SOURCE,
    Q_STARTED,
    Q_STREAM,
    Q_TAG,
    Q_TURN,
    Q_WAITED,
    QUEUE_CHANGED,
    QUEUED,
    QUEUES,
    QUEUES_AT,
    R_ACCEPTING,
    R_ADMISSIONS,
    R_BACKLOG,
    R_INDEX,
    R_LISTS,
    R_NUMBER,
    R_OUTSTANDING,
    R_RESERVED,
    R_RUNNING,
    R_SPEC,
    R_USED,
    REQUESTS,
    S_BATCHER,
    S_LONGEST,
    S_MOST,
    SPEC_WIDTH,
    SPECS_AT,
    STREAM_WIDTH,
    STREAMS,
    STREAMS_AT,
    T_ADMITTED,
    T_COUNTERS,
    T_LATE_WAITS,
    T_LEVEL,
    T_TIMEOUT_NS,
    U_LENGTH,
    U_LISTS,
    U_WATCH_ABOVE,
    WATCH_ABOVE,
    WATCHES,
)
from sim.dataplane.kernel_parts import INT, INTS, append, compiled, mix, slot_at, unlink
from sim.dataplane.layout import ABANDONED, ADMITTED_BITS, ALL_ADMITTED, ARRIVED, FRAGMENT_TOKENS, NEVER_NS, THROTTLE


@compiled(INT(INTS, INT, INT, INT, INT, INT, INT, INT, INT, INT))
def arrive(
    m: IntArray,
    prompt: int,
    output: int,
    stream: int,
    session: int,
    turn: int,
    prefix: int,
    prefix_tokens: int,
    deadline_ns: int,
    tag: int,
) -> int:
    """A request comes into the system; returns its address."""
    q, now_ns = slot_at(m, m[FREE_SLOT]), m[NOW_NS]
    m[FREE_SLOT] = m[q + Q_NEXT]
    t = m[STREAMS_AT] + stream * STREAM_WIDTH
    if deadline_ns == 0:
        timeout_ns = m[t + T_TIMEOUT_NS]
        deadline_ns = now_ns + timeout_ns if timeout_ns < NEVER_NS - now_ns else NEVER_NS
    m[q + Q_NUMBER] = m[REQUESTS]
    m[REQUESTS] += 1
    m[q + Q_ARRIVAL_NS] = now_ns
    m[q + Q_DEADLINE_NS] = deadline_ns
    m[q + Q_STREAM] = stream
    m[q + Q_LEVEL] = m[t + T_LEVEL]
    m[q + Q_PROMPT] = prompt
    m[q + Q_OUTPUT] = output
    m[q + Q_CACHED] = min(prefix_tokens, prompt - 1) if prefix == 0 else 0
    m[q + Q_STARTED] = 0
    m[q + Q_GENERATED] = 0
    m[q + Q_PREFILLED] = 0
    m[q + Q_FIRST_NS] = -1
    m[q + Q_REPLICA] = NONE
    m[q + Q_ATTEMPT] = 1
    m[q + Q_PREEMPTIONS] = 0
    m[q + Q_SESSION] = session
    m[q + Q_TURN] = turn
    m[q + Q_TAG] = tag
    m[q + Q_PREFILL_SHARE_NS] = 0
    m[q + Q_DECODE_SHARE_NS] = 0
    m[q + Q_DISPATCHED_NS] = -1
    m[q + Q_ADMITTED_NS] = -1
    m[q + Q_WAITED] = 0
    m[t + T_COUNTERS + ARRIVED] += 1
    change_in_flight(m, t, 1)
    return q


@compiled(types.boolean(INTS, INT))
def is_late(m: IntArray, q: int) -> bool:
    """Whether a request is past its deadline for the first admission."""
    return m[q + Q_STARTED] == 0 and m[NOW_NS] > m[q + Q_DEADLINE_NS]


@compiled(types.boolean(INTS, INT))
def expired(m: IntArray, q: int) -> bool:
    """Whether a request has waited too long for its first admission and leaves for that."""
    return is_late(m, q) and m[m[STREAMS_AT] + m[q + Q_STREAM] * STREAM_WIDTH + T_LATE_WAITS] == 0


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


@compiled(types.boolean(INTS, INT))
def throttled(m: IntArray, q: int) -> bool:
    """Whether an arrival is not among those that are admitted of its stream."""
    admitted = m[m[STREAMS_AT] + m[q + Q_STREAM] * STREAM_WIDTH + T_ADMITTED]
    return admitted < ALL_ADMITTED and int(mix(m[q + Q_TAG], 0, THROTTLE) >> np.uint64(64 - ADMITTED_BITS)) >= admitted


@compiled(types.boolean(INTS, INT, INT))
def may_go(m: IntArray, r: int, q: int) -> bool:
    """Whether a request is sent to replicas of this spec."""
    return m[m[ABOVE_AT] + m[r + R_SPEC] * m[STREAMS] + m[q + Q_STREAM]] < m[q + Q_PROMPT] + m[q + Q_OUTPUT]


@compiled(types.boolean(INTS, INT, INT))
def fits(m: IntArray, r: int, q: int) -> bool:
    """Whether a request is sent to replicas of this spec and could ever run there."""
    return may_go(m, r, q) and m[q + Q_PROMPT] + m[q + Q_OUTPUT] <= m[m[SPECS_AT] + m[r + R_SPEC] * SPEC_WIDTH + S_LONGEST]


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
    if m[q + Q_SOURCE] == FROM_BACKLOG:
        m[r + R_BACKLOG] -= 1
    else:
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


@compiled(INT(INTS, INT))
def first_waiting(m: IntArray, r: int) -> int:
    """Slot of the request that is next in line at a replica, or NONE."""
    for level in range(m[LEVELS]):
        slot = m[r + R_LISTS + 2 * level]
        if slot != NONE:
            return slot
    return NONE


@compiled(INT(INTS, INT, INT))
def used_by(m: IntArray, r: int, tokens: int) -> int:
    """KV tokens that a request of so many tokens takes, with half a block of fragmentation; a batcher has no such cache."""
    return 0 if m[m[SPECS_AT] + m[r + R_SPEC] * SPEC_WIDTH + S_BATCHER] else tokens + FRAGMENT_TOKENS


@compiled(types.void(INTS, INT, INT))
def enter_batch(m: IntArray, r: int, q: int) -> None:
    """Count a request into a replica's batch; its whole prompt is reserved."""
    change_queued(m, m[STREAMS_AT] + m[q + Q_STREAM] * STREAM_WIDTH, -1)
    tokens = m[q + Q_PROMPT] + m[q + Q_GENERATED]
    if m[q + Q_STARTED]:
        m[q + Q_CACHED] = 0
    m[q + Q_STARTED] = 1
    m[q + Q_PREFILLED] = 0
    m[q + Q_NEED] = tokens - m[q + Q_CACHED]
    m[q + Q_ADMISSION] = m[r + R_ADMISSIONS]
    m[q + Q_ADMITTED_NS] = m[NOW_NS]
    m[r + R_ADMISSIONS] += 1
    m[r + R_RUNNING] += 1
    m[r + R_USED] += used_by(m, r, tokens)
    m[r + R_RESERVED] += tokens - m[q + Q_RESERVED]
    m[q + Q_RESERVED] = tokens
