"""Step times in the kernel, and the account of a run of steps in closed form; float operations in the reference's order."""

# mypy: disable-error-code="no-any-return"
# An element of an array has type Any for mypy.

from __future__ import annotations

import numpy as np
from numba import types

from sim.dataplane.engine import FloatArray, IntArray
from sim.dataplane.kernel_accounts import (
    settle_ring,
)
from sim.dataplane.kernel_layout import (
    E_ENERGY_J,
    ENTRY_WIDTH,
    FAR,
    IN_FLIGHT,
    LEVELS,
    NONE,
    NOW_NS,
    P_KNOT,
    P_OFFSET_FX,
    P_OFFSET_J,
    P_SLOPE_FX,
    P_SLOPE_J,
    PIECE_WIDTH,
    Q_CHUNK,
    Q_NEXT,
    Q_PREFILL_SHARE_NS,
    Q_STREAM,
    R_BUSY_NS,
    R_CHUNK_COUNT,
    R_CHUNKS,
    R_CONTEXT,
    R_DECODE_SHARE_NS,
    R_DECODED,
    R_DECODING,
    R_DRAIN_NS,
    R_DRAINING_BUSY_NS,
    R_ENERGY_J,
    R_FRACTION_FX,
    R_GROWTH_FX,
    R_INDEX,
    R_LEFT,
    R_LISTS,
    R_N_OUT,
    R_OUTPUT_TOKENS,
    R_PIECE,
    R_S_TWICE,
    R_SPEC,
    R_START_NS,
    R_STEP_FX,
    R_STEPS,
    R_TOKENS,
    R_USED,
    R_WAKE_NS,
    REPLICA_WIDTH,
    REPLICAS_AT,
    REPLICAS_USED,
    RING_S,
    S_ATTENTION_FX,
    S_ATTENTION_J,
    S_BASE_W,
    S_CONTEXTS,
    S_KNOTS,
    S_LAST_CONTEXTS,
    S_LAST_SAMPLED,
    S_LAST_TOKENS,
    S_PROMPT_FX,
    S_PROMPT_J,
    S_SAMPLED,
    S_SEQUENCE_FX,
    S_SEQUENCE_J,
    S_TDP_W,
    S_TOKEN_FX,
    S_TOKEN_J,
    S_TOKENS,
    SPEC_WIDTH,
    SPECS_AT,
    STEPPED,
    STREAM_WIDTH,
    STREAMS,
    STREAMS_AT,
    T_COUNTERS,
    TABLES_AT,
)
from sim.dataplane.kernel_parts import (
    FLOAT,
    FLOATS,
    FRACTION_BITS,
    FRACTION_MASK,
    INT,
    INTS,
    SECONDS_PER_FX,
    compiled,
    slot_at,
)
from sim.dataplane.layout import (
    OUTPUT_TOKENS,
)

# Steps.


@compiled(INT(INTS, INT, INT, INT))
def piece_at(m: IntArray, s: int, decoding: int, context: int) -> int:
    """`StepModel.context_piece`: place in the tables of the piece that holds; `s` is the address of the spec."""
    tables, knots = m[TABLES_AT], m[s + S_KNOTS]
    place = m[s + S_CONTEXTS] + min(decoding, m[s + S_LAST_CONTEXTS]) * knots * PIECE_WIDTH
    last = place + (knots - 1) * PIECE_WIDTH
    while place < last and context >= m[tables + place + PIECE_WIDTH + P_KNOT] * decoding:
        place += PIECE_WIDTH
    return place


@compiled(INT(INTS, INT, INT, INT))
def steps_to_knot(m: IntArray, r: int, decoding: int, context: int) -> int:
    """How many steps of a replica's batch its piece holds for; `StepModel.context_piece`."""
    s, place = m[SPECS_AT] + m[r + R_SPEC] * SPEC_WIDTH, m[r + R_PIECE]
    end = m[s + S_CONTEXTS] + (min(decoding, m[s + S_LAST_CONTEXTS]) + 1) * m[s + S_KNOTS] * PIECE_WIDTH
    if place + PIECE_WIDTH == end:
        return FAR
    return (m[m[TABLES_AT] + place + PIECE_WIDTH + P_KNOT] * decoding - context + decoding - 1) // decoding


@compiled(INT(INTS, INT, INT, INT, INT, INT))
def constant_fx(m: IntArray, s: int, n: int, n_out: int, s_twice: int, decoding: int) -> int:
    """Fixed-point time of a step without its decode contexts; `s` is the address of the spec."""
    tables, more, more_out = m[TABLES_AT], n - m[s + S_LAST_TOKENS], n_out - m[s + S_LAST_SAMPLED]
    total = m[tables + m[s + S_TOKENS] + min(n, m[s + S_LAST_TOKENS]) * ENTRY_WIDTH]
    total += m[tables + m[s + S_SAMPLED] + min(n_out, m[s + S_LAST_SAMPLED]) * ENTRY_WIDTH]
    total += max(more, 0) * m[s + S_TOKEN_FX] + max(more_out, 0) * m[s + S_SEQUENCE_FX] + m[s + S_ATTENTION_FX] * s_twice
    return total + m[s + S_PROMPT_FX] * (n > decoding)


@compiled(FLOAT(INTS, FLOATS, INT, INT))
def energy_j(m: IntArray, f: FloatArray, r: int, steps: int) -> float:
    """Energy of the next steps of a batch: `StepModel.step_j` of each; both sides of the power limit are linear in the step."""
    s = m[SPECS_AT] + m[r + R_SPEC] * SPEC_WIDTH
    seconds = m[r + R_STEP_FX] * SECONDS_PER_FX
    tables, n, n_out = m[TABLES_AT], m[r + R_TOKENS], m[r + R_N_OUT]
    piece = tables + m[r + R_PIECE]
    used = (
        f[s + S_BASE_W] * seconds
        + f[tables + m[s + S_TOKENS] + min(n, m[s + S_LAST_TOKENS]) * ENTRY_WIDTH + E_ENERGY_J]
        + f[s + S_TOKEN_J] * max(n - m[s + S_LAST_TOKENS], 0)
        + f[tables + m[s + S_SAMPLED] + min(n_out, m[s + S_LAST_SAMPLED]) * ENTRY_WIDTH + E_ENERGY_J]
        + f[s + S_SEQUENCE_J] * max(n_out - m[s + S_LAST_SAMPLED], 0)
        + f[s + S_PROMPT_J] * (n > m[r + R_DECODING])
        + f[s + S_ATTENTION_J] * (0.5 * m[r + R_S_TWICE])
        + f[piece + P_OFFSET_J]
        + f[piece + P_SLOPE_J] * m[r + R_CONTEXT]
    )
    limit = f[s + S_TDP_W] * seconds
    if steps == 1:
        return min(used, limit)
    growth_s = m[r + R_GROWTH_FX] * SECONDS_PER_FX
    more_used = f[s + S_BASE_W] * growth_s + f[piece + P_SLOPE_J] * m[r + R_DECODING]
    more_limit = f[s + S_TDP_W] * growth_s
    over, more_over = used - limit, more_used - more_limit
    last_over = over + (steps - 1) * more_over
    pairs = 0.5 * steps * (steps - 1)
    all_used, all_limit = steps * used + pairs * more_used, steps * limit + pairs * more_limit
    if over < 0.0 and last_over < 0.0:
        return all_used
    if over >= 0.0 and last_over >= 0.0:
        return all_limit
    # The sign changes once: so many steps on the first side.
    first = min(max(int(-over / more_over) + 1, 1), steps - 1)
    pairs = 0.5 * first * (first - 1)
    first_used, first_limit = first * used + pairs * more_used, first * limit + pairs * more_limit
    return first_used + all_limit - first_limit if over < 0.0 else first_limit + all_used - first_used


@compiled(types.void(INTS, FLOATS, INT, INT))
def charge_shares(m: IntArray, f: FloatArray, r: int, elapsed_ns: int) -> None:
    """Charge time to streams: the marginal time of prefill to its owners by chunk, the rest equally to the decoding."""
    decoding, decode_ns, streams = m[r + R_DECODING], float(elapsed_ns), m[STREAMS]
    by_stream = r + R_LISTS + 2 * m[LEVELS]
    shares = by_stream + streams
    if m[r + R_CHUNK_COUNT]:
        s = m[SPECS_AT] + m[r + R_SPEC] * SPEC_WIDTH
        alone_fx = 0
        if decoding:
            piece = m[TABLES_AT] + m[r + R_PIECE]
            alone_fx = (
                constant_fx(m, s, decoding, decoding, 0, decoding)
                + m[piece + P_OFFSET_FX]
                + m[piece + P_SLOPE_FX] * m[r + R_CONTEXT]
            )
        prefill_ns = elapsed_ns * (1.0 - alone_fx / m[r + R_STEP_FX])
        decode_ns -= prefill_ns
        prefill, slot = m[r + R_TOKENS] - decoding, m[r + R_CHUNKS]
        while slot != NONE:
            q = slot_at(m, slot)
            share_ns = prefill_ns * m[q + Q_CHUNK] / prefill
            f[shares + m[q + Q_STREAM]] += share_ns
            f[q + Q_PREFILL_SHARE_NS] += share_ns
            slot = m[q + Q_NEXT]
    if decoding:
        share_ns = decode_ns / decoding
        f[r + R_DECODE_SHARE_NS] += share_ns
        for stream in range(streams):
            f[shares + stream] += share_ns * m[by_stream + stream]


@compiled(types.void(INTS, INT, INT))
def account_busy(m: IntArray, r: int, elapsed_ns: int) -> None:
    """Count time stepping since the start of the step, split at the drain order."""
    m[r + R_BUSY_NS] += elapsed_ns
    if m[r + R_DRAIN_NS] != NONE:
        start_ns = m[r + R_START_NS]
        m[r + R_DRAINING_BUSY_NS] += min(elapsed_ns, start_ns + elapsed_ns - m[r + R_DRAIN_NS])


@compiled(INT(INTS, INT, INT))
def run_fx(m: IntArray, r: int, steps: int) -> int:
    """Fixed-point time from the start of a replica's step, its fraction included, to the end of so many steps."""
    return m[r + R_FRACTION_FX] + steps * m[r + R_STEP_FX] + m[r + R_GROWTH_FX] * (steps * (steps - 1) // 2)


@compiled(INT(INTS, INT, INT))
def steps_within(m: IntArray, r: int, below_fx: int) -> int:
    """How many steps of a replica's batch end with `run_fx` below a bound; exact, from a float guess."""
    step, growth = float(m[r + R_STEP_FX]), float(m[r + R_GROWTH_FX])
    room = float(below_fx - m[r + R_FRACTION_FX])
    if room <= 0.0:
        return 0
    first = step - 0.5 * growth
    steps = int(2.0 * room / (first + np.sqrt(first * first + 2.0 * growth * room)))
    while steps > 0 and run_fx(m, r, steps) >= below_fx:
        steps -= 1
    while run_fx(m, r, steps + 1) < below_fx:
        steps += 1
    return steps


@compiled(types.void(INTS, FLOATS, INT, INT))
def account_steps(m: IntArray, f: FloatArray, r: int, steps: int) -> None:
    """Charge the time, energy and tokens of the next steps of a replica, and let its batch grow by them."""
    decoding, end_fx = m[r + R_DECODING], run_fx(m, r, steps)
    elapsed_ns = end_fx >> FRACTION_BITS
    account_busy(m, r, elapsed_ns)
    charge_shares(m, f, r, elapsed_ns)
    f[r + R_ENERGY_J] += energy_j(m, f, r, steps)
    tokens = steps * decoding
    m[r + R_STEPS] += steps
    m[r + R_OUTPUT_TOKENS] += tokens
    by_stream = r + R_LISTS + 2 * m[LEVELS]
    for stream in range(m[STREAMS]):
        m[m[STREAMS_AT] + stream * STREAM_WIDTH + T_COUNTERS + OUTPUT_TOKENS] += steps * m[by_stream + stream]
    m[r + R_START_NS] += elapsed_ns
    m[r + R_FRACTION_FX] = end_fx & FRACTION_MASK
    m[r + R_STEP_FX] += steps * m[r + R_GROWTH_FX]
    m[r + R_LEFT] -= steps
    m[r + R_DECODED] += steps
    m[r + R_USED] += tokens
    m[r + R_CONTEXT] += tokens


@compiled(INT(INTS, INT))
def passed_ns(m: IntArray, r: int) -> int:
    """Time up to which, inclusive, a replica has passed its boundaries: now, or just before if its turn is to come."""
    return m[NOW_NS] - (m[r + R_INDEX] > m[STEPPED])


@compiled(types.void(INTS, FLOATS, INT))
def settle(m: IntArray, f: FloatArray, r: int) -> None:
    """Apply the steps of a run that have ended by now, but not the one at which the replica wakes."""
    if m[r + R_LEFT] > 1 and m[r + R_START_NS] < passed_ns(m, r):
        elapsed_ns = passed_ns(m, r) - m[r + R_START_NS]
        steps = min(steps_within(m, r, (elapsed_ns + 1) << FRACTION_BITS), m[r + R_LEFT] - 1)
        if steps > 0:
            account_steps(m, f, r, steps)


@compiled(types.void(INTS, FLOATS))
def settle_all(m: IntArray, f: FloatArray) -> None:
    """Apply what has happened by now on every replica."""
    for index in range(m[REPLICAS_USED]):
        settle(m, f, m[REPLICAS_AT] + index * m[REPLICA_WIDTH])
    if m[RING_S]:
        settle_ring(m, m[NOW_NS], m[IN_FLIGHT], 0)


@compiled(types.void(INTS, INT, INT))
def wake_within(m: IntArray, r: int, steps: int) -> None:
    """Let a replica wake after so many steps of its run, if that is sooner."""
    if steps < m[r + R_LEFT]:
        m[r + R_LEFT] = steps
        m[r + R_WAKE_NS] = m[r + R_START_NS] + (run_fx(m, r, steps) >> FRACTION_BITS)


@compiled(types.void(INTS, INT, INT))
def wake_after(m: IntArray, r: int, t_ns: int) -> None:
    """Let a replica wake at its first boundary strictly after a time, if that is sooner."""
    if m[r + R_LEFT] > 1 and t_ns < m[r + R_WAKE_NS]:
        elapsed_ns = t_ns - m[r + R_START_NS]
        wake_within(m, r, 1 + (steps_within(m, r, (elapsed_ns + 1) << FRACTION_BITS) if elapsed_ns > 0 else 0))
