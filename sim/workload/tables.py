"""Quantile tables: a random integer picks a cell of equal probability, and the cell holds the quantile.

Tables make draws fast and free of `exp` and `log`, whose last bits differ between CPUs. 16,384 cells cover the whole distribution,
as many again the last 1/64 of it, and again the last 1/4096, so the finest cell has a probability of 2^-26. Twenty-six bits pick
a cell.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sim.workload.base import FloatArray, IntArray

CELL_BITS = 14
TAIL_BITS = 6
LEVELS = 3
CELLS = 1 << CELL_BITS
INDEX_BITS = CELL_BITS + (LEVELS - 1) * TAIL_BITS

_FIRST_TAIL_CELL = CELLS - (CELLS >> TAIL_BITS)
_SECOND_TAIL = (1 << INDEX_BITS) - (1 << CELL_BITS)
_LAGUERRE_NODES, _LAGUERRE_WEIGHTS = np.polynomial.laguerre.laggauss(48)


def cell_index(bits: IntArray) -> npt.NDArray[np.intp]:
    """Return the table cell that random integers of `INDEX_BITS` bits fall into.

    Parameters
    ----------
    bits : int64, shape (n,), uniform on [0, 2^26).

    Examples
    --------
    >>> cell_index(np.array([0, 2**25, 2**26 - 1])).tolist()
    [0, 8192, 49151]
    """
    index = bits >> (INDEX_BITS - CELL_BITS)
    tail = np.flatnonzero(index >= _FIRST_TAIL_CELL)
    refined = bits[tail]
    index[tail] = np.where(
        refined >= _SECOND_TAIL,
        2 * CELLS + (refined & (CELLS - 1)),
        CELLS + ((refined >> TAIL_BITS) & (CELLS - 1)),
    )
    return index


def cell_probabilities() -> FloatArray:
    """Return the probability of each cell; those that a finer level replaces have none. Shape (LEVELS * CELLS,)."""
    chances = np.repeat(2.0 ** -(CELL_BITS + TAIL_BITS * np.arange(LEVELS)), CELLS).reshape(LEVELS, CELLS)
    chances[:-1, _FIRST_TAIL_CELL:] = 0.0
    return chances.ravel()


def survival_at(position: float) -> FloatArray:
    """Return, for every cell, the probability of lying above a point of it: `position` 0 is its lower edge, 1 its upper.

    Survival and not its complement, because the tail needs the digits.
    """
    left = 1.0 - (np.arange(CELLS) + position) / CELLS
    return np.concatenate([left * 2.0 ** -(TAIL_BITS * level) for level in range(LEVELS)])


def cell_edges(quantile: Callable[[FloatArray], FloatArray]) -> tuple[FloatArray, FloatArray]:
    """Return the lower and upper quantile of every cell of a distribution on [0, inf).

    The distribution is taken as linear inside a cell. The upper edge of the last cell is chosen such that the cell's mean is that
    of the distribution (Gauss-Laguerre quadrature over the logarithm of the survival probability).

    Parameters
    ----------
    quantile : inverse survival function, survival probability -> value.
    """
    lower = quantile(survival_at(0.0))
    last_chance = 2.0**-INDEX_BITS
    tail_mean = float(np.sum(_LAGUERRE_WEIGHTS * quantile(last_chance * np.exp(-_LAGUERRE_NODES))))
    upper = quantile(np.maximum(survival_at(1.0), last_chance))
    upper[-1] = max(2.0 * tail_mean - lower[-1], lower[-1])
    return lower, upper
