"""The compiled engine: what happens to requests and replicas between two control actions, rule for rule as in `reference.py`.

A replica wakes only at boundaries at which something could happen: a completion, the end of a prefill chunk, no room for the next
tokens, a chance for a waiting request. The pure-decode steps in between are accounted in closed form, by whoever looks first.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import types

from sim.dataplane.engine import FloatArray, IntArray
from sim.dataplane.kernel_accounts import (
    change_queued,
    hit,
    leave,
)
from sim.dataplane.kernel_batching import (
    end_step,
    ring_timer,
)
from sim.dataplane.kernel_doors import words
from sim.dataplane.kernel_layout import (
    BACKLOG_LOW,
    BACKLOG_NEED,
    BACKLOGS,
    C_NEXT,
    C_ROWS,
    CHOICE,
    CLIENT_LEAVES,
    CLIENT_TIMES_AT,
    CLIENT_WIDTH,
    CLIENTS,
    CLIENTS_AT,
    FAR,
    FLUSHING,
    FREE_SLOT,
    FROM_CLIENT,
    FROM_OUTSIDE,
    HEAP_CAPACITY,
    HIT,
    HITS,
    IN_FLIGHT,
    LAST_BLOCK,
    NEEDS_ARRIVALS,
    NEEDS_BACKLOG,
    NEEDS_CHOICE,
    NEEDS_HEAP,
    NEEDS_RECORDS,
    NEEDS_ROWS,
    NEEDS_SLOTS,
    NEXT_ARRIVAL,
    NEXT_REDISPATCH,
    NONE,
    NOW_NS,
    OFFERED,
    PENDING_CLIENTS,
    Q_CLIENT,
    Q_OUTPUT,
    Q_PROMPT,
    Q_SOURCE,
    Q_STREAM,
    QUEUE_CHANGED,
    QUEUED,
    R_ACCEPTING,
    R_CHUNK_COUNT,
    R_DECODING,
    R_LEFT,
    R_NUMBER,
    R_OUTSTANDING,
    REACHED,
    RECORD_CAPACITY,
    RECORDS,
    REDISPATCHING,
    REPLICA_CAPACITY,
    REPLICA_WIDTH,
    REPLICAS_AT,
    ROW_DEADLINE_NS,
    ROW_OUTPUT,
    ROW_PREFIX,
    ROW_PREFIX_TOKENS,
    ROW_PROMPT,
    ROW_SESSION,
    ROW_STREAM,
    ROW_TAG,
    ROW_TURN,
    ROW_WIDTH,
    SLOT_CAPACITY,
    STEPPED,
    STREAM_WIDTH,
    STREAMS_AT,
    T_LONGEST,
    TIMERS_AT,
    UNDECIDED,
    UNIFORM,
    UNKNOWN,
    WAKES_AT,
    WATCH_DRAINED,
)
from sim.dataplane.kernel_parts import (
    FLOAT_ARRAY,
    INT,
    INT_ARRAY,
    compiled,
    least_leaf,
    set_leaf,
    slot_at,
    slot_of,
)
from sim.dataplane.kernel_queues import arrive, throttled
from sim.dataplane.kernel_routing import (
    choose,
    give,
    offer_to_next,
    touch,
    wait,
    watch_all_heads,
    watch_heads,
)
from sim.dataplane.layout import (
    NEVER_NS,
    REJECTED_THROTTLED,
    REJECTED_TOO_LONG,
)

ShortArray = npt.NDArray[np.int32]
ROWS = (INT_ARRAY, *[types.Array(types.int32, 1, "C")] * 8, INT_ARRAY, INT_ARRAY)


@compiled(INT(INT_ARRAY, FLOAT_ARRAY, INT_ARRAY, INT, *ROWS))
def advance(
    memory: IntArray,
    floats: FloatArray,
    redispatched: IntArray,
    until_ns: int,
    arrival_ns: IntArray,
    prompt_tokens: ShortArray,
    output_tokens: ShortArray,
    stream: ShortArray,
    client: ShortArray,
    session: ShortArray,
    turn: ShortArray,
    prefix: ShortArray,
    prefix_tokens: ShortArray,
    deadline_ns: IntArray,
    tag: IntArray,
) -> int:
    """Process redispatches, then everything up to and including `until_ns`; returns why it stopped, before anything is lost.

    Parameters
    ----------
    redispatched : slots to send through the router, `REDISPATCHING` of them; those that found room are replaced by NONE.
    arrival_ns to tag : the columns of a block of arrivals, read from row `NEXT_ARRIVAL` on.
    """
    m, f = words(memory), words(floats)
    wakes, timers, leaves, clients, arrivals = m[WAKES_AT], m[TIMERS_AT], m[REPLICA_CAPACITY], m[CLIENTS], len(arrival_ns)
    while True:
        if m[BACKLOGS]:
            if m[BACKLOG_LOW]:
                return NEEDS_BACKLOG
            if m[SLOT_CAPACITY] - m[IN_FLIGHT] <= m[BACKLOG_NEED]:
                return NEEDS_SLOTS
            if m[OFFERED] != NONE and m[REDISPATCHING] == 0:
                offer_to_next(m, f)
                continue
            if m[FLUSHING]:
                return REACHED
        if m[UNIFORM] == 0 and m[QUEUE_CHANGED]:
            watch_all_heads(m)
        if m[HITS]:
            return HIT
        if m[PENDING_CLIENTS]:
            return NEEDS_ROWS
        if m[RECORDS] + m[IN_FLIGHT] + 1 > m[RECORD_CAPACITY]:
            return NEEDS_RECORDS
        slot, place = m[UNDECIDED], NONE
        if m[REDISPATCHING]:
            if m[NEXT_REDISPATCH] == m[REDISPATCHING]:
                return REACHED
            place = m[NEXT_REDISPATCH]
            slot = redispatched[place]
        elif slot == NONE:
            row = m[NEXT_ARRIVAL]
            if row == arrivals and not m[LAST_BLOCK]:
                return NEEDS_ARRIVALS
            wake_ns = m[wakes + 1]
            open_ns = arrival_ns[row] if row < arrivals else NEVER_NS
            closed_ns = m[m[CLIENT_TIMES_AT] + 1] if clients else NEVER_NS
            now_ns = min(wake_ns, open_ns, closed_ns, m[timers + 1])
            if now_ns > until_ns:
                m[NOW_NS], m[STEPPED] = until_ns, FAR
                return REACHED
            if now_ns == wake_ns:
                index = least_leaf(m, wakes, leaves)
                r = m[REPLICAS_AT] + index * m[REPLICA_WIDTH]
                if m[r + R_DECODING] + m[r + R_CHUNK_COUNT] > m[HEAP_CAPACITY]:
                    return NEEDS_HEAP
                m[NOW_NS], m[STEPPED] = now_ns, index
                end_step(m, f, r)
                if m[R_ACCEPTING + r] == 0 and m[r + R_LEFT] == 0 and m[r + R_OUTSTANDING] == 0:
                    hit(m, WATCH_DRAINED, m[r + R_NUMBER])
                elif m[UNIFORM] == 0 and m[QUEUED] > 0:
                    watch_heads(m, r)
                touch(m, r)
                continue
            if now_ns == open_ns:
                if m[FREE_SLOT] == NONE:
                    return NEEDS_SLOTS
                m[NOW_NS], m[STEPPED] = now_ns, FAR
                q = arrive(
                    m, prompt_tokens[row], output_tokens[row], stream[row], session[row], turn[row],
                    prefix[row], prefix_tokens[row], deadline_ns[row], tag[row],
                )  # fmt: skip
                m[q + Q_CLIENT] = client[row]
                m[q + Q_SOURCE] = FROM_OUTSIDE
                m[NEXT_ARRIVAL] = row + 1
            elif now_ns == closed_ns:
                if m[FREE_SLOT] == NONE:
                    return NEEDS_SLOTS
                m[NOW_NS], m[STEPPED] = now_ns, FAR
                number = least_leaf(m, m[CLIENT_TIMES_AT], m[CLIENT_LEAVES])
                set_leaf(m, m[CLIENT_TIMES_AT], m[CLIENT_LEAVES], number, NEVER_NS)
                c = m[CLIENTS_AT] + number * CLIENT_WIDTH
                w = c + C_ROWS + m[c + C_NEXT] * ROW_WIDTH
                m[c + C_NEXT] += 1
                q = arrive(
                    m, m[w + ROW_PROMPT], m[w + ROW_OUTPUT], m[w + ROW_STREAM], m[w + ROW_SESSION], m[w + ROW_TURN],
                    m[w + ROW_PREFIX], m[w + ROW_PREFIX_TOKENS], m[w + ROW_DEADLINE_NS], m[w + ROW_TAG],
                )  # fmt: skip
                m[q + Q_CLIENT] = number
                m[q + Q_SOURCE] = FROM_CLIENT
            else:
                m[NOW_NS], m[STEPPED] = now_ns, FAR
                index = least_leaf(m, timers, leaves)
                ring_timer(m, f, index)
                touch(m, m[REPLICAS_AT] + index * m[REPLICA_WIDTH])
                continue
            t = m[STREAMS_AT] + m[q + Q_STREAM] * STREAM_WIDTH
            if m[q + Q_PROMPT] + m[q + Q_OUTPUT] > m[t + T_LONGEST]:
                leave(m, q, REJECTED_TOO_LONG)
                continue
            if throttled(m, q):
                leave(m, q, REJECTED_THROTTLED)
                continue
            change_queued(m, t, 1)
            slot = slot_of(m, q)
        q = slot_at(m, slot)
        index = choose(m, f, q)
        if index == UNKNOWN:
            m[UNDECIDED] = slot
            return NEEDS_CHOICE
        m[UNDECIDED] = NONE
        m[CHOICE] = UNKNOWN
        if index != NONE:
            give(m, f, index, q, place == NONE)
        if place != NONE:
            m[NEXT_REDISPATCH] += 1
            if index != NONE:
                redispatched[place] = NONE
        elif index == NONE:
            wait(m, q)
