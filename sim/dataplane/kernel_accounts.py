"""The counting side of the compiled engine: stream counters, integrals, histograms, records, the ring of seconds, leaving."""

# mypy: disable-error-code="no-any-return"
# An element of an array has type Any for mypy.

from __future__ import annotations

import numpy as np
from numba import types

from sim.bins import BINS
from sim.dataplane.engine import IntArray
from sim.dataplane.kernel_layout import (
    B_COUNT,
    B_LIST,
    B_NEXT,
    BACKLOG_WIDTH,
    BACKLOGS_AT,
    C_COUNT,
    C_NEXT,
    C_ROWS,
    CLIENT_DONE_AT,
    CLIENT_LEAVES,
    CLIENT_TIMES_AT,
    CLIENT_WIDTH,
    CLIENTS_AT,
    FREE_SLOT,
    FROM_CLIENT,
    HISTOGRAM_WIDTH,
    HISTOGRAMS_AT,
    HIT_WIDTH,
    HITS,
    HITS_AT,
    IN_FLIGHT,
    KNOWN_CLIENTS,
    NONE,
    NOW_NS,
    PENDING_CLIENTS,
    PENDING_CLIENTS_AT,
    PENDING_WIDTH,
    Q_ADMITTED_NS,
    Q_ARRIVAL_NS,
    Q_ATTEMPT,
    Q_CLIENT,
    Q_DISPATCHED_NS,
    Q_FIRST_NS,
    Q_INDEX,
    Q_NEXT,
    Q_NUMBER,
    Q_OUTPUT,
    Q_PREEMPTIONS,
    Q_PREFILLED,
    Q_PROMPT,
    Q_REPLICA,
    Q_SESSION,
    Q_SOURCE,
    Q_STREAM,
    Q_TAG,
    Q_TURN,
    Q_WAITED,
    R_SPEC,
    RECORD_ONE_IN,
    RECORD_WIDTH,
    RECORDS,
    RECORDS_AT,
    REPLICA_WIDTH,
    REPLICAS_AT,
    RING_AT,
    RING_LAST_NS,
    RING_S,
    ROW_PAUSE_NS,
    ROW_WIDTH,
    S_NET_NS,
    SPEC_WIDTH,
    SPECS_AT,
    STREAM_WIDTH,
    STREAMS,
    STREAMS_AT,
    T_BACKLOG,
    T_COUNTERS,
    T_E2E_NS,
    T_FLYING,
    T_FLYING_NS,
    T_FLYING_SINCE,
    T_FLYING_US,
    T_QUEUED,
    T_QUEUED_NS,
    T_QUEUED_SINCE,
    T_QUEUED_US,
    T_TPOT_NS,
    T_TTFT_NS,
    T_WATCH_EMPTY,
    WATCH_EMPTY,
    WATCHES,
)
from sim.dataplane.kernel_parts import (
    FULL_NS,
    INT,
    INTS,
    NS_PER_S,
    NS_PER_US,
    bin_at,
    compiled,
    mix,
    set_leaf,
    slot_of,
)
from sim.dataplane.layout import (
    ABANDONED,
    COMPLETED,
    COMPLETED_OUTPUT_TOKENS,
    COMPLETED_PROMPT_TOKENS,
    E2E,
    E2E_US,
    FAILED,
    GOOD_ALL,
    GOOD_E2E,
    GOOD_TPOT,
    GOOD_TTFT,
    MISSED_KV_FULL,
    MISSED_PREEMPTED,
    MISSED_QUEUED,
    MISSED_RETRIED,
    MISSED_SLOW,
    N_ABANDONED,
    N_COMPLETED,
    N_FAILED,
    N_REJECTED_FULL,
    N_REJECTED_THROTTLED,
    N_REJECTED_TOO_LONG,
    RECORD_SAMPLE,
    REJECTED_CLIENT_PAUSE_NS,
    REJECTED_FULL,
    REJECTED_THROTTLED,
    REJECTED_TOO_LONG,
    REJECTIONS,
    TPOT,
    TPOT_COUNT,
    TPOT_NS,
    TTFT,
    TTFT_US,
    UNFINISHED,
    USEFUL_PREFILL_TOKENS,
    WAITED_FOR_KV,
)

# Accounts by stream.


@compiled(types.void(INTS, INT, INT, INT))
def settle_ring(m: IntArray, t_ns: int, in_flight: int, arrivals: int) -> None:
    """Bring the ring of seconds up to a time: word 0 to `RING_S` arrivals, then as many in-flight request-nanoseconds."""
    size = m[RING_S] + 1
    ring, now_s = m[RING_AT], t_ns // NS_PER_S
    for second in range(max(m[RING_LAST_NS] // NS_PER_S + 1, now_s - m[RING_S]), now_s + 1):
        m[ring + second % size] = 0
        m[ring + size + second % size] = 0
    at = max(m[RING_LAST_NS], (now_s - m[RING_S]) * NS_PER_S)
    while at < t_ns:
        second = at // NS_PER_S
        until = min(t_ns, (second + 1) * NS_PER_S)
        m[ring + size + second % size] += in_flight * (until - at)
        at = until
    m[ring + now_s % size] += arrivals
    m[RING_LAST_NS] = t_ns


@compiled(types.void(INTS, INT, INT))
def change_queued(m: IntArray, t: int, by: int) -> None:
    """Add to the number of waiting requests of a stream."""
    now_ns = m[NOW_NS]
    total_ns = m[t + T_QUEUED_NS] + m[t + T_QUEUED] * (now_ns - m[t + T_QUEUED_SINCE])
    if total_ns > FULL_NS:
        m[t + T_QUEUED_US] += total_ns // NS_PER_US
        total_ns %= NS_PER_US
    m[t + T_QUEUED_NS] = total_ns
    m[t + T_QUEUED_SINCE] = now_ns
    m[t + T_QUEUED] += by


@compiled(types.void(INTS, INT, INT))
def change_in_flight(m: IntArray, t: int, by: int) -> None:
    """Add to the number of requests of a stream in the system."""
    now_ns = m[NOW_NS]
    if m[RING_S]:
        settle_ring(m, now_ns, m[IN_FLIGHT], max(by, 0))
    total_ns = m[t + T_FLYING_NS] + m[t + T_FLYING] * (now_ns - m[t + T_FLYING_SINCE])
    if total_ns > FULL_NS:
        m[t + T_FLYING_US] += total_ns // NS_PER_US
        total_ns %= NS_PER_US
    m[t + T_FLYING_NS] = total_ns
    m[t + T_FLYING_SINCE] = now_ns
    m[t + T_FLYING] += by
    m[IN_FLIGHT] += by


@compiled(types.void(INTS, INT, INT))
def hit(m: IntArray, reason: int, subject: int) -> None:
    """Note a watch that fired."""
    at = m[HITS_AT] + m[HITS] * HIT_WIDTH
    m[at] = m[NOW_NS]
    m[at + 1] = reason
    m[at + 2] = subject
    m[HITS] += 1


@compiled(types.void(INTS, INT, INT, INT))
def schedule_client(m: IntArray, client: int, from_ns: int, leaves: int) -> None:
    """A client sends its next row after its pause; without a row at hand it waits for Python."""
    c = m[CLIENTS_AT] + client * CLIENT_WIDTH
    if m[c + C_NEXT] < m[c + C_COUNT]:
        pause_ns = m[c + C_ROWS + m[c + C_NEXT] * ROW_WIDTH + ROW_PAUSE_NS]
        set_leaf(m, m[CLIENT_TIMES_AT], leaves, client, from_ns + pause_ns)
    else:
        at = m[PENDING_CLIENTS_AT] + m[PENDING_CLIENTS] * PENDING_WIDTH
        m[at] = client
        m[at + 1] = from_ns
        m[PENDING_CLIENTS] += 1


@compiled(types.boolean(INTS, INT, INT, INT, INT))
def count_completed(m: IntArray, q: int, t: int, ttft_ns: int, e2e_ns: int) -> bool:
    """Count a completion: sums, histograms and SLO counters; True if it is inside all targets."""
    output, counters = m[q + Q_OUTPUT], t + T_COUNTERS
    histogram = m[HISTOGRAMS_AT] + m[q + Q_STREAM] * HISTOGRAM_WIDTH
    m[counters + N_COMPLETED] += 1
    m[counters + COMPLETED_PROMPT_TOKENS] += m[q + Q_PROMPT]
    m[counters + COMPLETED_OUTPUT_TOKENS] += output
    m[counters + USEFUL_PREFILL_TOKENS] += m[q + Q_PREFILLED]
    m[counters + TTFT_US] += ttft_ns // NS_PER_US
    m[counters + E2E_US] += e2e_ns // NS_PER_US
    m[histogram + TTFT * BINS + bin_at(ttft_ns)] += 1
    m[histogram + E2E * BINS + bin_at(e2e_ns)] += 1
    good_ttft = ttft_ns <= m[t + T_TTFT_NS]
    good_tpot = True
    good_e2e = e2e_ns <= m[t + T_E2E_NS]
    if output > 1:
        tpot_ns = (e2e_ns - ttft_ns) // (output - 1)
        m[counters + TPOT_NS] += tpot_ns
        m[counters + TPOT_COUNT] += 1
        m[histogram + TPOT * BINS + bin_at(tpot_ns)] += 1
        good_tpot = tpot_ns <= m[t + T_TPOT_NS]
    m[counters + GOOD_TTFT] += good_ttft
    m[counters + GOOD_TPOT] += good_tpot
    m[counters + GOOD_E2E] += good_e2e
    good = good_ttft and good_tpot and good_e2e
    m[counters + GOOD_ALL] += good
    return good


@compiled(types.void(INTS, INT, INT, INT))
def count_missed(m: IntArray, q: int, t: int, outcome: int) -> None:
    """Count why a request was not good."""
    if m[q + Q_ATTEMPT] > 1 or outcome == FAILED:
        cause = MISSED_RETRIED
    elif m[q + Q_PREEMPTIONS]:
        cause = MISSED_PREEMPTED
    elif m[q + Q_WAITED] & WAITED_FOR_KV:
        cause = MISSED_KV_FULL
    elif m[q + Q_WAITED] or outcome == REJECTED_FULL:
        cause = MISSED_QUEUED
    else:
        cause = MISSED_SLOW
    m[t + T_COUNTERS + cause] += 1


@compiled(types.void(INTS, INT, INT, INT))
def record(m: IntArray, q: int, net_ns: int, outcome: int) -> None:
    """Write a request's record if it is among those recorded."""
    one_in = m[RECORD_ONE_IN]
    if one_in == 0 or (one_in > 1 and mix(m[q + Q_TAG], 0, RECORD_SAMPLE) % np.uint64(one_in) != 0):
        return
    at = m[RECORDS_AT] + m[RECORDS] * RECORD_WIDTH
    m[at] = m[q + Q_NUMBER]
    m[at + 1] = m[q + Q_STREAM]
    m[at + 2] = m[q + Q_CLIENT]
    m[at + 3] = m[q + Q_SESSION]
    m[at + 4] = m[q + Q_TURN]
    m[at + 5] = m[q + Q_ARRIVAL_NS]
    m[at + 6] = m[q + Q_FIRST_NS]
    m[at + 7] = m[NOW_NS]
    m[at + 8] = net_ns
    m[at + 9] = m[q + Q_PROMPT]
    m[at + 10] = m[q + Q_OUTPUT]
    m[at + 11] = m[q + Q_ATTEMPT]
    m[at + 12] = m[q + Q_PREEMPTIONS]
    m[at + 13] = m[q + Q_REPLICA]
    m[at + 14] = outcome
    m[at + 15] = m[q + Q_DISPATCHED_NS]
    m[at + 16] = m[q + Q_ADMITTED_NS]
    m[RECORDS] += 1


@compiled(types.boolean(INTS, INT))
def is_empty(m: IntArray, b: int) -> bool:
    """Whether nothing is left in a backlog; its rows at hand run out before an event only if there are no more."""
    return m[b + B_LIST] == NONE and m[b + B_NEXT] == m[b + B_COUNT]


@compiled(types.boolean(INTS, INT))
def has_backlog(m: IntArray, t: int) -> bool:
    """Whether something is left in the backlog of a stream."""
    if m[t + T_BACKLOG] == NONE:
        return False
    return not is_empty(m, m[BACKLOGS_AT] + m[t + T_BACKLOG] * m[BACKLOG_WIDTH])


@compiled(types.void(INTS, INT, INT))
def leave(m: IntArray, q: int, outcome: int) -> None:
    """A request leaves the system; a closed-loop client thinks and sends its next one."""
    now_ns, stream = m[NOW_NS], m[q + Q_STREAM]
    t = m[STREAMS_AT] + stream * STREAM_WIDTH
    net_ns, good = 0, outcome in (UNFINISHED, REJECTED_TOO_LONG, REJECTED_THROTTLED)
    if outcome == COMPLETED:
        net_ns = m[m[SPECS_AT] + m[m[REPLICAS_AT] + m[q + Q_INDEX] * m[REPLICA_WIDTH] + R_SPEC] * SPEC_WIDTH + S_NET_NS]
        arrival_ns = m[q + Q_ARRIVAL_NS]
        good = count_completed(m, q, t, m[q + Q_FIRST_NS] - arrival_ns + net_ns, now_ns - arrival_ns + net_ns)
    elif outcome == FAILED:
        m[t + T_COUNTERS + N_FAILED] += 1
    elif outcome == ABANDONED:
        m[t + T_COUNTERS + N_ABANDONED] += 1
    elif outcome == REJECTED_FULL:
        m[t + T_COUNTERS + N_REJECTED_FULL] += 1
    elif outcome == REJECTED_TOO_LONG:
        m[t + T_COUNTERS + N_REJECTED_TOO_LONG] += 1
    elif outcome == REJECTED_THROTTLED:
        m[t + T_COUNTERS + N_REJECTED_THROTTLED] += 1
    if not good:
        count_missed(m, q, t, outcome)
    record(m, q, net_ns, outcome)
    if outcome == UNFINISHED:
        return
    change_in_flight(m, t, -1)
    if m[t + T_FLYING] == 0 and m[t + T_WATCH_EMPTY] and not has_backlog(m, t):
        m[t + T_WATCH_EMPTY] = 0
        m[WATCHES] -= 1
        hit(m, WATCH_EMPTY, stream)
    if outcome == COMPLETED and 0 <= m[q + Q_CLIENT] < m[KNOWN_CLIENTS]:
        m[m[CLIENT_DONE_AT] + m[q + Q_CLIENT] * m[STREAMS] + stream] = now_ns
    if m[q + Q_SOURCE] == FROM_CLIENT:
        pause_ns = REJECTED_CLIENT_PAUSE_NS if outcome in REJECTIONS else 0
        schedule_client(m, m[q + Q_CLIENT], now_ns + pause_ns, m[CLIENT_LEAVES])
    m[q + Q_NEXT] = m[FREE_SLOT]
    m[FREE_SLOT] = slot_of(m, q)
