"""Backlogs in the compiled engine: what is taken into a batch when nothing else wants its room, and what is thrown back."""

# mypy: disable-error-code="no-any-return"
# An element of an array has type Any for mypy.

from __future__ import annotations

from numba import types

from sim.dataplane.engine import IntArray
from sim.dataplane.kernel_accounts import change_queued, is_empty
from sim.dataplane.kernel_layout import (
    ACCEPTS_AT,
    B_COUNT,
    B_FINISHED,
    B_LIST,
    B_NEXT,
    B_ROWS,
    B_STREAM,
    B_THROWN_BACK,
    BACKLOG_LOW,
    BACKLOG_NEED,
    BACKLOG_WIDTH,
    BACKLOGS,
    BACKLOGS_AT,
    FROM_BACKLOG,
    NONE,
    NOW_NS,
    OFFERED,
    Q_CLIENT,
    Q_DISPATCHED_NS,
    Q_GENERATED,
    Q_INDEX,
    Q_PROMPT,
    Q_REPLICA,
    Q_RESERVED,
    Q_SOURCE,
    Q_STREAM,
    R_ACCEPTING,
    R_BACKLOG,
    R_INDEX,
    R_NUMBER,
    R_SPEC,
    R_USED,
    ROW_CLIENT,
    ROW_DEADLINE_NS,
    ROW_OUTPUT,
    ROW_PREFIX,
    ROW_PREFIX_TOKENS,
    ROW_PROMPT,
    ROW_SESSION,
    ROW_TAG,
    ROW_TURN,
    ROW_WIDTH,
    S_BACKLOG_SEATS,
    S_KV,
    S_SEATS,
    S_WATERMARK,
    SPEC_WIDTH,
    SPECS_AT,
    STREAM_WIDTH,
    STREAMS,
    STREAMS_AT,
    T_BACKLOG,
)
from sim.dataplane.kernel_parts import INT, INTS, compiled, prepend, slot_at, unlink
from sim.dataplane.kernel_queues import arrive, enter_batch, first_waiting
from sim.dataplane.layout import FRAGMENT_TOKENS


@compiled(types.void(INTS, INT))
def throw_back(m: IntArray, q: int) -> None:
    """Put a request at the front of its backlog."""
    number = m[m[STREAMS_AT] + m[q + Q_STREAM] * STREAM_WIDTH + T_BACKLOG]
    b = m[BACKLOGS_AT] + number * m[BACKLOG_WIDTH]
    if is_empty(m, b):
        m[OFFERED] = 0
    prepend(m, b + B_LIST, q)
    m[b + B_THROWN_BACK] += 1


@compiled(INT(INTS, INT))
def next_backlog(m: IntArray, spec: int) -> int:
    """Address of the first backlog that has something for a spec, or NONE."""
    for number in range(m[BACKLOGS]):
        b = m[BACKLOGS_AT] + number * m[BACKLOG_WIDTH]
        if m[m[ACCEPTS_AT] + spec * m[STREAMS] + m[b + B_STREAM]] and not is_empty(m, b):
            return b
    return NONE


@compiled(INT(INTS, INT, INT))
def from_backlog(m: IntArray, r: int, running: int) -> int:
    """Admit the next of the first backlog that a replica serves, if nothing waits there and it fits; its address, or NONE."""
    s = m[SPECS_AT] + m[r + R_SPEC] * SPEC_WIDTH
    full = m[r + R_BACKLOG] >= m[s + S_BACKLOG_SEATS] or running >= m[s + S_SEATS]
    if full or m[r + R_ACCEPTING] == 0 or first_waiting(m, r) != NONE:
        return NONE
    b = next_backlog(m, m[r + R_SPEC])
    if b == NONE:
        return NONE
    q, w = NONE, b + B_ROWS + m[b + B_NEXT] * ROW_WIDTH
    if m[b + B_LIST] != NONE:
        q = slot_at(m, m[b + B_LIST])
        tokens = m[q + Q_PROMPT] + m[q + Q_GENERATED]
    else:
        tokens = m[w + ROW_PROMPT]
    if m[r + R_USED] + tokens + FRAGMENT_TOKENS > m[s + S_KV] - (m[s + S_WATERMARK] if running else 0):
        return NONE
    if q != NONE:
        unlink(m, b + B_LIST, NONE, q)
        m[b + B_THROWN_BACK] -= 1
    else:
        q = arrive(
            m, m[w + ROW_PROMPT], m[w + ROW_OUTPUT], m[b + B_STREAM], m[w + ROW_SESSION], m[w + ROW_TURN],
            m[w + ROW_PREFIX], m[w + ROW_PREFIX_TOKENS], m[w + ROW_DEADLINE_NS], m[w + ROW_TAG],
        )  # fmt: skip
        m[q + Q_CLIENT] = m[w + ROW_CLIENT]
        m[q + Q_SOURCE] = FROM_BACKLOG
        m[b + B_NEXT] += 1
        if m[b + B_COUNT] - m[b + B_NEXT] < m[BACKLOG_NEED] and m[b + B_FINISHED] == 0:
            m[BACKLOG_LOW] = 1
        change_queued(m, m[STREAMS_AT] + m[q + Q_STREAM] * STREAM_WIDTH, 1)
    m[q + Q_REPLICA] = m[r + R_NUMBER]
    m[q + Q_INDEX] = m[r + R_INDEX]
    m[q + Q_DISPATCHED_NS] = m[NOW_NS]
    m[q + Q_RESERVED] = 0
    m[r + R_BACKLOG] += 1
    enter_batch(m, r, q)
    return q
