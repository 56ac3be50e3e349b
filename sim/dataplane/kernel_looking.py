"""A look at the compiled engine: the columns of a view in two arrays, in the order of `engine.View`."""

# mypy: disable-error-code="no-any-return"
# An element of an array has type Any for mypy.

from __future__ import annotations

from numba import types

from sim.dataplane.engine import FloatArray, IntArray
from sim.dataplane.kernel_layout import (
    B_THROWN_BACK,
    BACKLOG_WIDTH,
    BACKLOGS_AT,
    LEVELS,
    NONE,
    NOW_NS,
    QUEUES,
    R_ACCEPTING,
    R_BACKLOG,
    R_BUSY_NS,
    R_DRAIN_NS,
    R_DRAINING_BUSY_NS,
    R_ENERGY_J,
    R_LEFT,
    R_LISTS,
    R_LOST_NS,
    R_NUMBER,
    R_OUTPUT_TOKENS,
    R_OUTSTANDING,
    R_PREFILL_TOKENS,
    R_RESERVED,
    R_RUNNING,
    R_SPEC,
    R_START_NS,
    R_STEPS,
    R_USED,
    REPLICA_WIDTH,
    REPLICAS_AT,
    REPLICAS_USED,
    STREAM_WIDTH,
    STREAMS,
    STREAMS_AT,
    T_BACKLOG,
    T_COUNTERS,
    T_FLYING,
    T_FLYING_NS,
    T_FLYING_SINCE,
    T_FLYING_US,
    T_QUEUED,
    T_QUEUED_NS,
    T_QUEUED_SINCE,
    T_QUEUED_US,
    U_LENGTH,
)
from sim.dataplane.kernel_parts import FLOATS, INT, INTS, NS_PER_US, compiled
from sim.dataplane.kernel_queues import queue_at
from sim.dataplane.kernel_steps import settle_all
from sim.dataplane.layout import COUNTERS

COUNTER_COUNT = len(COUNTERS)
# Integer columns of a view by stream (besides the counters) and by replica; float columns by replica (besides the shares).
STREAM_COLUMNS, REPLICA_COLUMNS, FLOAT_COLUMNS = 5, 14, 2


@compiled(types.void(INTS, INTS, INT))
def look_at_replicas(m: IntArray, out: IntArray, count: int) -> None:
    """Fill the integer columns of `count` living replicas, in order of index."""
    now_ns, row = m[NOW_NS], 0
    for index in range(m[REPLICAS_USED]):
        r = m[REPLICAS_AT] + index * m[REPLICA_WIDTH]
        if m[r + R_NUMBER] == NONE:
            continue
        busy_ns, draining_ns = m[r + R_BUSY_NS], m[r + R_DRAINING_BUSY_NS]
        if m[r + R_LEFT] > 0:
            busy_ns += now_ns - m[r + R_START_NS]
            if m[r + R_DRAIN_NS] != NONE:
                draining_ns += now_ns - max(m[r + R_DRAIN_NS], m[r + R_START_NS])
        out[row] = m[r + R_NUMBER]
        out[count + row] = m[r + R_SPEC]
        out[2 * count + row] = m[r + R_ACCEPTING]
        out[3 * count + row] = m[r + R_OUTSTANDING] + m[r + R_BACKLOG] - m[r + R_RUNNING]
        out[4 * count + row] = m[r + R_RUNNING]
        out[5 * count + row] = m[r + R_OUTSTANDING]
        out[6 * count + row] = m[r + R_BACKLOG]
        out[7 * count + row] = m[r + R_RESERVED]
        out[8 * count + row] = m[r + R_USED]
        out[9 * count + row] = busy_ns
        out[10 * count + row] = draining_ns
        out[11 * count + row] = m[r + R_STEPS]
        out[12 * count + row] = m[r + R_PREFILL_TOKENS]
        out[13 * count + row] = m[r + R_OUTPUT_TOKENS]
        row += 1


@compiled(types.void(INTS, FLOATS, FLOATS, INT))
def look_at_floats(m: IntArray, f: FloatArray, out: FloatArray, count: int) -> None:
    """Fill the lost time and energy of `count` living replicas, then their shares by stream."""
    streams, row = m[STREAMS], 0
    for index in range(m[REPLICAS_USED]):
        r = m[REPLICAS_AT] + index * m[REPLICA_WIDTH]
        if m[r + R_NUMBER] == NONE:
            continue
        out[row] = f[r + R_LOST_NS]
        out[count + row] = f[r + R_ENERGY_J]
        shares = r + R_LISTS + 2 * m[LEVELS] + streams
        for stream in range(streams):
            out[FLOAT_COLUMNS * count + row * streams + stream] = f[shares + stream]
        row += 1


@compiled(types.void(INTS, INTS, INT))
def look_at_streams(m: IntArray, out: IntArray, at: int) -> None:
    """Fill waiting and in-flight requests by stream, their integrals, the counters, and the lengths of the service queues."""
    now_ns, streams = m[NOW_NS], m[STREAMS]
    counters = at + STREAM_COLUMNS * streams
    for stream in range(streams):
        t = m[STREAMS_AT] + stream * STREAM_WIDTH
        queued_ns = m[t + T_QUEUED_NS] + m[t + T_QUEUED] * (now_ns - m[t + T_QUEUED_SINCE])
        flying_ns = m[t + T_FLYING_NS] + m[t + T_FLYING] * (now_ns - m[t + T_FLYING_SINCE])
        out[at + stream] = m[t + T_QUEUED]
        out[at + streams + stream] = m[t + T_FLYING]
        out[at + 2 * streams + stream] = 0
        if m[t + T_BACKLOG] != NONE:
            out[at + 2 * streams + stream] = m[m[BACKLOGS_AT] + m[t + T_BACKLOG] * m[BACKLOG_WIDTH] + B_THROWN_BACK]
        out[at + 3 * streams + stream] = m[t + T_QUEUED_US] + queued_ns // NS_PER_US
        out[at + 4 * streams + stream] = m[t + T_FLYING_US] + flying_ns // NS_PER_US
        for counter in range(COUNTER_COUNT):
            out[counters + stream * COUNTER_COUNT + counter] = m[t + T_COUNTERS + counter]
    lengths = counters + COUNTER_COUNT * streams
    for number in range(m[QUEUES]):
        out[lengths + number] = m[queue_at(m, number) + U_LENGTH]


@compiled(types.void(INTS, FLOATS, INTS, FLOATS, INT))
def look(m: IntArray, f: FloatArray, ints: IntArray, floats: FloatArray, count: int) -> None:
    """Apply what has happened by now, then fill the columns of a view of `count` living replicas, the streams and the queues."""
    settle_all(m, f)
    look_at_replicas(m, ints, count)
    look_at_streams(m, ints, REPLICA_COLUMNS * count)
    look_at_floats(m, f, floats, count)
