"""Renewal arrivals by time rescaling: gaps of mean 1 are laid along the integral of the rate.

Work (the integral of the rate) is counted in integers of 2^-32 mean gaps, relative to the chunk of rate being walked: integer
sums associate, so where blocks are cut cannot be seen in the times. Times are int64 nanoseconds; only distances inside a cell
become floats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from math import gamma, log, log1p, sqrt

import numpy as np
from scipy import special

from sim.domain.traffic import BLOCK_REQUESTS
from sim.errors import InputError, Problem
from sim.rng import StreamKey
from sim.units import NS_PER_S
from sim.workload.base import FloatArray, IntArray, WordArray, random_words
from sim.workload.rates import RateChunk
from sim.workload.tables import INDEX_BITS, cell_edges, cell_index, cell_probabilities

FAMILIES = ("gamma", "weibull", "lognormal", "exponential", "deterministic")

# The families' tables hold their coefficient of variation within 1 % up to here (tested); burstier traffic needs a client pool.
MAX_CV = 8.0

WORK_BITS = 32
_ONE_GAP = 1 << WORK_BITS
_FRACTION_BITS = 32 - INDEX_BITS
_MOST_WORK = float(1 << 62)


@dataclass(frozen=True)
class GapTable:
    """Gaps of a renewal process with mean 1, in units of 2^-32, linear inside cells of equal probability.

    Parameters
    ----------
    lower, width : int64, shape (LEVELS * CELLS,), the cells' lower edges and widths.
    """

    lower: IntArray
    width: IntArray

    def draw(self, words: WordArray) -> IntArray:
        """Return two gaps for every 64-bit random word."""
        bits = words.view(np.uint32).astype(np.int64)
        fraction = 2 * (bits & ((1 << _FRACTION_BITS) - 1)) + 1
        index = cell_index(bits >> _FRACTION_BITS)
        gaps: IntArray = self.lower[index] + ((self.width[index] * fraction) >> (_FRACTION_BITS + 1))
        return gaps

    def first(self, key: StreamKey) -> int:
        """Return the time to the first arrival of a process that has been going on for ever.

        A moment taken at random falls into a gap with a probability proportional to its length, and anywhere in it (Cox, Renewal
        Theory, 1962, section 5.2). Without it a bursty process would start with a burst.
        """
        middle = self.lower + self.width / 2
        weights = np.cumsum(cell_probabilities() * middle)
        cell_draw, place_draw = key.generator().random(2)
        cell = int(np.searchsorted(weights, cell_draw * weights[-1], side="right"))
        return int(middle[min(cell, len(middle) - 1)] * place_draw)


@lru_cache(maxsize=16)
def gap_table(family: str, cv: float) -> GapTable:
    """Return the table of a family of gaps with mean 1 and a coefficient of variation.

    Parameters
    ----------
    family : one of `FAMILIES`. cv : standard deviation over mean; ignored by "exponential" (1) and "deterministic" (0).

    Raises
    ------
    ValueError : unknown family, or a cv outside (0, `MAX_CV`].
    """
    if family not in FAMILIES:
        raise ValueError(f"family = {family!r}: must be one of {', '.join(FAMILIES)}")
    if family == "deterministic":
        lower, upper = cell_edges(np.ones_like)
    elif family == "exponential":
        lower, upper = cell_edges(lambda survival: -np.log(survival))
    elif 0 < cv <= MAX_CV:
        lower, upper = cell_edges(_quantile(family, cv))
    else:
        raise ValueError(f"cv = {cv}: must be in (0, {MAX_CV:g}]")
    mean = float(np.sum(cell_probabilities() * (lower + upper) / 2))
    knots, ends = (np.rint(edge / mean * _ONE_GAP).astype(np.int64) for edge in (lower, upper))
    return GapTable(knots, ends - knots)


def _quantile(family: str, cv: float) -> Callable[[FloatArray], FloatArray]:
    if family == "gamma":
        shape = cv**-2
        return lambda survival: special.gammainccinv(shape, survival) / shape
    if family == "weibull":
        inverse_shape = _weibull_inverse_shape(cv)
        return lambda survival: (-np.log(survival)) ** inverse_shape / gamma(1 + inverse_shape)
    sigma = sqrt(log1p(cv * cv))
    return lambda survival: np.exp(-sigma * special.ndtri(survival) - sigma * sigma / 2)


def _weibull_inverse_shape(cv: float) -> float:
    """Solve Gamma(1 + 2x) / Gamma(1 + x)^2 = 1 + cv^2 by bisection; the left side grows with x."""
    low, high, target = 1e-3, 20.0, log(1 + cv * cv)
    for _ in range(80):
        middle = (low + high) / 2
        excess = float(special.gammaln(1 + 2 * middle) - 2 * special.gammaln(1 + middle))
        low, high = (middle, high) if excess < target else (low, middle)
    return (low + high) / 2


def arrival_blocks(table: GapTable, chunks: Iterator[RateChunk], key: StreamKey) -> Iterator[IntArray]:
    """Yield times of arrival in blocks of `BLOCK_REQUESTS` (the last is shorter), int64 nanoseconds since the scenario start.

    Parameters
    ----------
    table : gaps. chunks : the rate up to the horizon. key : random streams of the service.

    Examples
    --------
    >>> from datetime import datetime, UTC
    >>> from sim.workload.rates import RateModel
    >>> chunks = RateModel(base_per_s=10.0).chunks(StreamKey(1, 0, "", "chat"), datetime(2026, 1, 5, tzinfo=UTC), 3_600 * NS_PER_S)
    >>> times_ns = next(arrival_blocks(gap_table("exponential", 1.0), chunks, StreamKey(1, 0, "", "chat")))
    >>> 35_300 < len(times_ns) < 36_700
    True
    """
    return rescaled(_gap_blocks(table, key), chunks)


def _gap_blocks(table: GapTable, key: StreamKey) -> Iterator[IntArray]:
    stream = key.about("workload/gaps")
    for block in count():
        gaps = table.draw(random_words(stream, block, BLOCK_REQUESTS // 2))
        if block == 0:
            gaps[0] = table.first(key.about("workload/first-gap"))
        yield gaps


def rescaled(gap_blocks: Iterator[IntArray], chunks: Iterator[RateChunk]) -> Iterator[IntArray]:
    """Yield the times at which the integral of the rate reaches the running sum of the gaps, block by block.

    Parameters
    ----------
    gap_blocks : int64 gaps in units of 2^-32. chunks : the rate; the times end with it.
    """
    walk = _Walk(chunks)
    for gaps in gap_blocks:
        work = np.cumsum(gaps)
        work += walk.passed
        times_ns, filled = np.empty(len(work), np.int64), 0
        while filled < len(work) and not walk.ended:
            within = int(np.searchsorted(work[filled:], walk.before + walk.total))
            times_ns[filled : filled + within] = walk.times(work[filled : filled + within] - walk.before)
            filled += within
            if filled < len(work):
                walk.step()
        if filled:
            yield times_ns[:filled]
        if walk.ended:
            return
        walk.passed, walk.before = int(work[-1]) - walk.before, 0


class _Walk:
    """A position in the rate: the chunk, and the work that lies before it and behind the last arrival."""

    def __init__(self, chunks: Iterator[RateChunk]) -> None:
        self._chunks = chunks
        self.ended = False
        self.passed = 0  # work between the start of the chunk and the last arrival of the block before
        self.before = 0  # work of this block's scale that lies before the chunk
        self.total = 0
        self.step()

    def step(self) -> None:
        """Go to the next chunk."""
        self.before += self.total
        chunk = next(self._chunks, None)
        if chunk is None:
            self.ended, self.total = True, 0
            return
        self._edges_ns = chunk.edges_ns
        self._lengths_ns = np.diff(chunk.edges_ns).astype(np.float64)
        exact_work = chunk.rate_per_s * self._lengths_ns * (_ONE_GAP / NS_PER_S)
        if not exact_work.sum() < _MOST_WORK:
            peak_per_s = float(chunk.rate_per_s.max())
            raise InputError(
                [Problem("rate_per_s", peak_per_s, "growth, events and noise lift the rate above what can be counted")]
            )
        cell_work = np.rint(exact_work).astype(np.int64)
        self._work = np.concatenate([np.zeros(1, np.int64), np.cumsum(cell_work)])
        self._ns_per_work = self._lengths_ns / np.maximum(cell_work, 1)
        self.total = int(self._work[-1])

    def times(self, work: IntArray) -> IntArray:
        """Return the times at which the chunk's integral exceeds sorted amounts of work below its total."""
        cell = np.repeat(np.arange(len(self._lengths_ns)), np.diff(np.searchsorted(work, self._work)))
        within_ns = np.minimum((work - self._work[cell]) * self._ns_per_work[cell], self._lengths_ns[cell] - 1)
        times_ns: IntArray = self._edges_ns[cell] + within_ns.astype(np.int64)
        return times_ns
