"""Parts of the compiled engine: integer functions shared with the reference, trees, heaps and lists.

`m` is the memory of `kernel_layout.py`, `f` the same words as floats; `r` and `q` are addresses of replica and request rows.
"""

# mypy: disable-error-code="no-any-return"
# An element of an array has type Any for mypy.

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from sim.bins import BINS, MANTISSA_BITS
from sim.dataplane.engine import IntArray
from sim.dataplane.kernel_cache import cached_here
from sim.dataplane.kernel_layout import (
    HEAP_CAPACITY,
    HEAPS_AT,
    NONE,
    Q_NEXT,
    Q_NUMBER,
    R_INDEX,
    SLOT_WIDTH,
    SLOTS_AT,
)

INT, FLOAT = types.int64, types.float64
# Functions pass the memory on as bare pointers: arrays are counted references, and counting them costs more than most of the work.
pointer_to: Any = types.CPointer
INTS, FLOATS = pointer_to(INT), pointer_to(FLOAT)
INT_ARRAY, FLOAT_ARRAY = INT[::1], FLOAT[::1]

FRACTION_BITS = 20
FRACTION_MASK = (1 << FRACTION_BITS) - 1
ONE_NS_FX = 1 << FRACTION_BITS
SECONDS_PER_FX = 1e-9 / ONE_NS_FX
# A run of steps is cut at 2^41 ns, so that its fixed-point time stays far below 2^63.
LONGEST_RUN_FX = 1 << 61
LONGEST_RUN = float(1 << 60)
NS_PER_US = 1_000
NS_PER_S = 1_000_000_000
# An integral over time moves to its microseconds before it could overflow.
FULL_NS = 1 << 61

EXPONENT_SHIFT = 52 - MANTISSA_BITS
FIRST_BIN = 1023 << MANTISSA_BITS


Function = TypeVar("Function", bound=Callable[..., object])


def compiled(signature: object) -> Callable[[Function], Function]:
    """Return the decorator of every compiled function: one explicit signature, cached, no lock, C arithmetic."""

    def decorate(function: Function) -> Function:
        with cached_here():
            return cast(Function, njit(signature, cache=True, nogil=True, error_model="numpy", fastmath=False)(function))

    return decorate


@intrinsic
def _score_at(_: Any, address: Any, f: Any, features: Any, params: Any) -> Any:
    """Call the compiled score of a router through its address, for the compiler."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        where, words, first_feature, first_param = values
        kind = ir.FunctionType(ir.DoubleType(), [words.type, words.type])
        function = builder.inttoptr(where, kind.as_pointer())
        return builder.call(function, [builder.gep(words, [first_feature]), builder.gep(words, [first_param])])

    return FLOAT(INT, FLOATS, INT, INT), generate


# The score of a router: its address, the words as floats, where its features begin and where its parameters do.
score_at: Any = _score_at


@compiled(types.uint64(INT, INT, INT))
def mix(tag: int, attempt: int, purpose: int) -> np.uint64:
    """`sim.rng.mix64` in machine words."""
    word = (
        np.uint64(tag)
        + np.uint64(0x9E3779B97F4A7C15) * np.uint64(2 * attempt + 1)
        + np.uint64(0xD1B54A32D192ED03) * np.uint64(purpose + 1)
    )
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


@compiled(INT(INT))
def bin_at(value_ns: int) -> int:
    """`sim.bins.bin_of` in machine words."""
    if value_ns < 1:
        return 0
    index = int(np.float64(value_ns).view(np.int64) >> EXPONENT_SHIFT) - FIRST_BIN
    return min(index, BINS - 1)


# Trees: a complete binary tree of minima in heap order; the leftmost of equal leaves wins.


@compiled(types.void(INTS, INT, INT, INT, INT))
def set_leaf(m: IntArray, tree: int, leaves: int, index: int, value: int) -> None:
    """Set one leaf and the minima above it."""
    node = leaves + index
    m[tree + node] = value
    while node > 1:
        node >>= 1
        least = min(m[tree + 2 * node], m[tree + 2 * node + 1])
        if m[tree + node] == least:
            break
        m[tree + node] = least


@compiled(INT(INTS, INT, INT))
def least_leaf(m: IntArray, tree: int, leaves: int) -> int:
    """Index of the leftmost least leaf."""
    node, least = 1, m[tree + 1]
    while node < leaves:
        node = 2 * node + (m[tree + 2 * node] != least)
    return node - leaves


# The heap of a replica's decoding sequences.


@compiled(types.void(INTS, INT, INT, INT))
def push(m: IntArray, heap: int, size: int, entry: int) -> None:
    """Add an entry to a heap of `size`."""
    at = size
    while at > 0:
        parent = (at - 1) >> 1
        above = m[heap + parent]
        if above <= entry:
            break
        m[heap + at] = above
        at = parent
    m[heap + at] = entry


@compiled(types.void(INTS, INT, INT, INT))
def sink(m: IntArray, heap: int, size: int, at: int) -> None:
    """Put the entry at a place of a heap of `size` where it belongs, above or below."""
    entry = m[heap + at]
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and m[heap + child + 1] < m[heap + child]:
            child += 1
        if m[heap + child] >= entry:
            break
        m[heap + at] = m[heap + child]
        at = child
    push(m, heap, at, entry)


@compiled(INT(INTS, INT))
def heap_of(m: IntArray, r: int) -> int:
    """Address of a replica's heap."""
    return m[HEAPS_AT] + m[r + R_INDEX] * m[HEAP_CAPACITY]


@compiled(INT(INTS, INT))
def slot_at(m: IntArray, slot: int) -> int:
    """Address of a request."""
    return m[SLOTS_AT] + slot * SLOT_WIDTH


@compiled(INT(INTS, INT))
def slot_of(m: IntArray, q: int) -> int:
    """Slot of a request."""
    return (q - m[SLOTS_AT]) // SLOT_WIDTH


# Lists of requests: two words (first, last), linked through Q_NEXT.


@compiled(types.void(INTS, INT, INT))
def append(m: IntArray, line: int, q: int) -> None:
    """Put a request at the end of a list."""
    slot = slot_of(m, q)
    m[q + Q_NEXT] = NONE
    if m[line] == NONE:
        m[line] = slot
    else:
        m[slot_at(m, m[line + 1]) + Q_NEXT] = slot
    m[line + 1] = slot


@compiled(types.void(INTS, INT, INT))
def prepend(m: IntArray, line: int, q: int) -> None:
    """Put a request at the front of a list."""
    slot = slot_of(m, q)
    m[q + Q_NEXT] = m[line]
    if m[line] == NONE:
        m[line + 1] = slot
    m[line] = slot


@compiled(types.void(INTS, INT, INT))
def insert(m: IntArray, line: int, q: int) -> None:
    """Put a request before the first one with a higher number."""
    before, slot = NONE, m[line]
    while slot != NONE and m[slot_at(m, slot) + Q_NUMBER] < m[q + Q_NUMBER]:
        before, slot = slot, m[slot_at(m, slot) + Q_NEXT]
    if before == NONE:
        prepend(m, line, q)
    elif slot == NONE:
        append(m, line, q)
    else:
        m[q + Q_NEXT] = slot
        m[slot_at(m, before) + Q_NEXT] = slot_of(m, q)


@compiled(types.void(INTS, INT, INT, INT))
def unlink(m: IntArray, line: int, before: int, q: int) -> None:
    """Take a request out of a list; `before` is the slot of the one before it, or NONE."""
    after = m[q + Q_NEXT]
    if before == NONE:
        m[line] = after
    else:
        m[slot_at(m, before) + Q_NEXT] = after
    if after == NONE:
        m[line + 1] = before
