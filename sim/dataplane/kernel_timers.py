"""Timers in the compiled engine, one of a replica: for an idle watch, or for the delay of a batcher, which then is not idle."""

# mypy: disable-error-code="no-any-return"
# An element of an array has type Any for mypy.

from __future__ import annotations

from numba import types

from sim.dataplane.engine import IntArray
from sim.dataplane.kernel_layout import (
    NONE,
    NOW_NS,
    R_ASKS,
    R_FRACTION_FX,
    R_IDLE_SINCE,
    R_INDEX,
    R_LEFT,
    R_OUTSTANDING,
    R_TIMER_NS,
    R_WAKE_NS,
    R_WATCH_IDLE,
    REPLICA_CAPACITY,
    STALE_NS,
    TIMERS_AT,
)
from sim.dataplane.kernel_parts import INT, INTS, compiled, set_leaf
from sim.dataplane.layout import NEVER_NS


@compiled(types.void(INTS, INT, INT))
def set_timer(m: IntArray, r: int, at_ns: int) -> None:
    """Set the timer of a replica, or stop it with NEVER_NS."""
    m[r + R_TIMER_NS] = at_ns
    set_leaf(m, m[TIMERS_AT], m[REPLICA_CAPACITY], m[r + R_INDEX], at_ns)
    if at_ns != NEVER_NS:
        m[STALE_NS] = max(m[STALE_NS], at_ns)


@compiled(types.void(INTS, INT))
def stop_timer(m: IntArray, r: int) -> None:
    """Stop the timer of a replica, if it runs."""
    if m[r + R_TIMER_NS] != NEVER_NS:
        set_timer(m, r, NEVER_NS)


@compiled(types.void(INTS, INT))
def watch_idle(m: IntArray, r: int) -> None:
    """Set the timer of an idle watch."""
    if m[r + R_WATCH_IDLE] != NONE:
        set_timer(m, r, max(m[r + R_IDLE_SINCE] + m[r + R_WATCH_IDLE], m[NOW_NS]))


@compiled(types.void(INTS, INT))
def rest(m: IntArray, r: int) -> None:
    """Nothing is running: no step, no fraction left over; idle if nothing waits either."""
    m[r + R_LEFT] = 0
    m[r + R_WAKE_NS] = NEVER_NS
    m[r + R_FRACTION_FX] = 0
    m[r + R_ASKS] = 1
    if m[r + R_OUTSTANDING] == 0:
        m[r + R_IDLE_SINCE] = m[NOW_NS]
        watch_idle(m, r)
