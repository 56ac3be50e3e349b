"""Routing in the compiled engine: who gets an arrival, and what it wakes."""

# mypy: disable-error-code="no-any-return"
# An element of an array has type Any for mypy.

from __future__ import annotations

import numpy as np
from numba import types

from sim.dataplane.engine import FloatArray, IntArray
from sim.dataplane.kernel_accounts import (
    change_queued,
    hit,
    leave,
)
from sim.dataplane.kernel_backlogs import next_backlog
from sim.dataplane.kernel_batcher import batcher_is_full
from sim.dataplane.kernel_batching import (
    start_step,
)
from sim.dataplane.kernel_layout import (
    ASK,
    BY_DRAW,
    BY_OUTSTANDING,
    BY_RESERVED,
    BY_SCORE,
    BY_TWO_DRAWS,
    CHOICE,
    COUNTS_AT,
    FAR,
    IN_TURN,
    LAST_PICK,
    LEVELS,
    NONE,
    OFFERED,
    Q_ATTEMPT,
    Q_DEADLINE_NS,
    Q_LEVEL,
    Q_STARTED,
    Q_STREAM,
    Q_TAG,
    Q_WAITED,
    QUEUE_CHANGED,
    QUEUED,
    QUEUES,
    R_ACCEPTING,
    R_ASKS,
    R_BACKLOG,
    R_DECODING,
    R_INDEX,
    R_LEFT,
    R_OUTSTANDING,
    R_RESERVED,
    R_RUNNING,
    R_SPEC,
    R_WAKE_NS,
    REPLICA_CAPACITY,
    REPLICA_WIDTH,
    REPLICAS_AT,
    REPLICAS_USED,
    ROUTER,
    S_BACKLOG_SEATS,
    S_KV,
    S_SEATS,
    S_WEIGHT,
    SCORE,
    SCORES_AT,
    SPEC_WIDTH,
    SPECS_AT,
    STREAM_WIDTH,
    STREAMS_AT,
    T_QUEUE,
    U_LENGTH,
    U_LISTS,
    U_MOST,
    U_WATCH_NOBODY,
    UNIFORM,
    WAKES_AT,
    WATCH_NOBODY,
    WATCHES,
)
from sim.dataplane.kernel_parts import (
    FLOATS,
    INT,
    INTS,
    append,
    compiled,
    least_leaf,
    mix,
    score_at,
    set_leaf,
    slot_at,
    slot_of,
)
from sim.dataplane.kernel_queues import check_above, enqueue, expire_heads, first_waiting, fits, has_room, may_go, pull, queue_at
from sim.dataplane.kernel_steps import (
    passed_ns,
    wake_after,
)
from sim.dataplane.layout import (
    NEVER_NS,
    REJECTED_FULL,
    ROUTER_FIRST_DRAW,
    ROUTER_SECOND_DRAW,
    WAITED_FOR_ROOM,
)
from sim.policies.routers import FEATURES, KV_TOKENS, OUTSTANDING, RESERVED_TOKENS, RUNNING, SCORES_PER_UNIT, SEATS, WAITING, WEIGHT

SCORE_FEATURES = len(FEATURES)

# Routing.


@compiled(types.boolean(INTS, INT, INT))
def is_candidate(m: IntArray, r: int, q: int) -> bool:
    """Whether a replica may get a request now."""
    return has_room(m, r) and (m[UNIFORM] == 1 or fits(m, r, q))


@compiled(INT(INTS, INT, INT))
def nth_candidate(m: IntArray, q: int, n: int) -> int:
    """Index of the n-th candidate."""
    for index in range(m[REPLICAS_USED]):
        if is_candidate(m, m[REPLICAS_AT] + index * m[REPLICA_WIDTH], q):
            if n == 0:
                return index
            n -= 1
    return NONE


@compiled(INT(INTS, FLOATS, INT))
def choose_by_score(m: IntArray, f: FloatArray, q: int) -> int:
    """Index of the candidate with the least score of a router of the user's; NONE without a candidate.

    UNKNOWN if a score is no number: Python computes it again, and says what is wrong with it or chooses.
    """
    at, best, least = m[SCORES_AT], NONE, 0.0
    for index in range(m[REPLICAS_USED]):
        r = m[REPLICAS_AT] + index * m[REPLICA_WIDTH]
        if is_candidate(m, r, q):
            s, load = m[SPECS_AT] + m[r + R_SPEC] * SPEC_WIDTH, m[r + R_OUTSTANDING] + m[r + R_BACKLOG]
            f[at + OUTSTANDING] = load
            f[at + WAITING] = load - m[r + R_RUNNING]
            f[at + RUNNING] = m[r + R_RUNNING]
            f[at + RESERVED_TOKENS] = m[r + R_RESERVED]
            f[at + KV_TOKENS] = m[s + S_KV]
            f[at + SEATS] = m[s + S_SEATS]
            f[at + WEIGHT] = f[s + S_WEIGHT]
            score = np.rint(score_at(m[SCORE], f, at, at + SCORE_FEATURES) * SCORES_PER_UNIT)
            if np.isnan(score):
                return m[CHOICE]
            if best == NONE or score < least:
                best, least = index, score
    return best


@compiled(INT(INTS, FLOATS, INT))
def choose(m: IntArray, f: FloatArray, q: int) -> int:
    """Index of the router's choice; NONE without a candidate, UNKNOWN if Python must be asked."""
    router, width, replicas = m[ROUTER], m[REPLICA_WIDTH], m[REPLICAS_AT]
    if router == BY_OUTSTANDING and m[UNIFORM]:
        if m[m[COUNTS_AT] + 1] == NEVER_NS:
            return NONE
        return least_leaf(m, m[COUNTS_AT], m[REPLICA_CAPACITY])
    if router == BY_SCORE:
        return choose_by_score(m, f, q)
    count, best, first, after = 0, NONE, NONE, NONE
    least = FAR
    for index in range(m[REPLICAS_USED]):
        r = replicas + index * width
        if is_candidate(m, r, q):
            count += 1
            if first == NONE:
                first = index
            if after == NONE and index > m[LAST_PICK]:
                after = index
            load = m[r + R_RESERVED] if router == BY_RESERVED else m[r + R_OUTSTANDING] + m[r + R_BACKLOG]
            if load < least:
                best, least = index, load
    if count == 0:
        return NONE
    if router in (BY_OUTSTANDING, BY_RESERVED):
        return best
    if router == IN_TURN:
        return first if after == NONE else after
    if router == ASK:
        return m[CHOICE]
    if router == BY_TWO_DRAWS and count == 1:
        return first
    one = int(mix(m[q + Q_TAG], m[q + Q_ATTEMPT], ROUTER_FIRST_DRAW) % np.uint64(count))
    if router == BY_DRAW:
        return nth_candidate(m, q, one)
    two = int(mix(m[q + Q_TAG], m[q + Q_ATTEMPT], ROUTER_SECOND_DRAW) % np.uint64(count - 1))
    two += two >= one
    low, high = nth_candidate(m, q, min(one, two)), nth_candidate(m, q, max(one, two))
    a, b = replicas + low * width, replicas + high * width
    more = m[a + R_OUTSTANDING] + m[a + R_BACKLOG] > m[b + R_OUTSTANDING] + m[b + R_BACKLOG]
    return high if more else low


@compiled(types.void(INTS, INT))
def touch(m: IntArray, r: int) -> None:
    """Bring the trees over replicas up to date after a change of one."""
    index = m[r + R_INDEX]
    set_leaf(m, m[WAKES_AT], m[REPLICA_CAPACITY], index, m[r + R_WAKE_NS])
    if m[ROUTER] == BY_OUTSTANDING and m[UNIFORM]:
        set_leaf(
            m, m[COUNTS_AT], m[REPLICA_CAPACITY], index, m[r + R_OUTSTANDING] + m[r + R_BACKLOG] if has_room(m, r) else NEVER_NS
        )


@compiled(types.void(INTS, INT))
def watch_heads(m: IntArray, r: int) -> None:
    """Let a replica with room wake when a head of a service queue, which it cannot take, may expire: it would notice."""
    if not has_room(m, r):
        return
    for number in range(m[QUEUES]):
        for level in range(m[LEVELS]):
            slot = m[queue_at(m, number) + U_LISTS + 2 * level]
            if slot != NONE and m[slot_at(m, slot) + Q_STARTED] == 0:
                wake_after(m, r, max(m[slot_at(m, slot) + Q_DEADLINE_NS], passed_ns(m, r)))


@compiled(types.void(INTS))
def watch_all_heads(m: IntArray) -> None:
    """Let every replica look after the heads of the service queues."""
    m[QUEUE_CHANGED] = 0
    for index in range(m[REPLICAS_USED]):
        r = m[REPLICAS_AT] + index * m[REPLICA_WIDTH]
        if m[r + R_LEFT] > 1:
            watch_heads(m, r)
            touch(m, r)


@compiled(types.void(INTS, FLOATS, INT, INT, types.boolean))
def give(m: IntArray, f: FloatArray, index: int, q: int, is_new: bool) -> None:
    """Put a request on a replica, which starts a step, or ends its run at the next boundary if it could admit the request there."""
    r = m[REPLICAS_AT] + index * m[REPLICA_WIDTH]
    m[LAST_PICK] = index
    if is_new and batcher_is_full(m, r, q):
        change_queued(m, m[STREAMS_AT] + m[q + Q_STREAM] * STREAM_WIDTH, -1)
        leave(m, q, REJECTED_FULL)
        return
    enqueue(m, r, q)
    if m[r + R_LEFT] == 0:
        start_step(m, f, r)
    elif first_waiting(m, r) == slot_of(m, q):
        seats = m[m[SPECS_AT] + m[r + R_SPEC] * SPEC_WIDTH + S_SEATS]
        if m[r + R_DECODING] < seats or m[r + R_BACKLOG] > 0:
            wake_after(m, r, passed_ns(m, r))
    if m[UNIFORM] == 0 and m[QUEUED] > 0:
        watch_heads(m, r)
    touch(m, r)


@compiled(types.void(INTS, INT))
def wait(m: IntArray, q: int) -> None:
    """An arrival that finds no room waits in its service queue, or is turned away."""
    t = m[STREAMS_AT] + m[q + Q_STREAM] * STREAM_WIDTH
    number = m[t + T_QUEUE]
    u = queue_at(m, number)
    if m[u + U_WATCH_NOBODY]:
        nobody = True
        for index in range(m[REPLICAS_USED]):
            r = m[REPLICAS_AT] + index * m[REPLICA_WIDTH]
            if m[r + R_ACCEPTING] == 1 and may_go(m, r, q):
                nobody = False
        if nobody:
            m[u + U_WATCH_NOBODY] = 0
            m[WATCHES] -= 1
            hit(m, WATCH_NOBODY, number)
    expire_heads(m, u)
    if m[u + U_LENGTH] >= m[u + U_MOST]:
        change_queued(m, t, -1)
        leave(m, q, REJECTED_FULL)
        return
    m[q + Q_WAITED] |= WAITED_FOR_ROOM
    append(m, u + U_LISTS + 2 * m[q + Q_LEVEL], q)
    m[u + U_LENGTH] += 1
    m[QUEUED] += 1
    m[QUEUE_CHANGED] = 1
    check_above(m, u, number)


@compiled(types.void(INTS, FLOATS, INT))
def pull_again(m: IntArray, f: FloatArray, r: int) -> None:
    """A route has changed: a replica takes what it may have now, and starts a step or ends its run at the next boundary."""
    outstanding = m[r + R_OUTSTANDING]
    pull(m, r, FAR)
    if m[r + R_OUTSTANDING] > outstanding:
        if m[r + R_LEFT] == 0:
            start_step(m, f, r)
        else:
            wake_after(m, r, passed_ns(m, r))
    touch(m, r)


@compiled(types.void(INTS, FLOATS))
def offer_to_next(m: IntArray, f: FloatArray) -> None:
    """A backlog that was empty has something: the next replica takes it at once if it is idle, or looks at its next step."""
    index = m[OFFERED]
    m[OFFERED] = index + 1 if index + 1 < m[REPLICAS_USED] else NONE
    r = m[REPLICAS_AT] + index * m[REPLICA_WIDTH]
    if m[r + R_ACCEPTING] == 0 or m[m[SPECS_AT] + m[r + R_SPEC] * SPEC_WIDTH + S_BACKLOG_SEATS] == 0:
        return
    m[r + R_ASKS] = 1
    if m[r + R_LEFT] > 0:
        wake_after(m, r, passed_ns(m, r))
    elif next_backlog(m, m[r + R_SPEC]) != NONE:
        start_step(m, f, r)
    touch(m, r)
