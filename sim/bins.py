"""The integer histogram layout of latencies: the same bins in every engine and on every platform.

A value in nanoseconds falls into the bin named by the exponent and the six leading mantissa bits of its float64 pattern.
Bins are at most 1/64 wide relative to their lower edge, so a bin's midpoint is within 0.8 % of every value in it. No logarithm
is taken anywhere, hence no platform can differ.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

MANTISSA_BITS = 6
OCTAVES = 45  # 2^45 ns is 9.8 hours; longer values share the last bin
BINS = OCTAVES << MANTISSA_BITS
_SHIFT = 52 - MANTISSA_BITS
_BIAS = 1023 << MANTISSA_BITS

_pack = struct.Struct("<d").pack
_unpack = struct.Struct("<q").unpack


def bin_of(value_ns: int) -> int:
    """Return the bin of a latency in nanoseconds; values below 1 ns are in bin 0.

    Examples
    --------
    >>> bin_of(1), bin_of(2), bin_of(0)
    (0, 64, 0)
    """
    if value_ns < 1:
        return 0
    bits: int = _unpack(_pack(value_ns))[0]
    index = (bits >> _SHIFT) - _BIAS
    return index if index < BINS else BINS - 1


def bins_of(values_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the bins of an array of latencies in nanoseconds (`bin_of` for arrays)."""
    bits = np.maximum(values_ns, 1).astype(np.float64).view(np.int64)
    bins: npt.NDArray[np.int64] = np.minimum((bits >> _SHIFT) - _BIAS, BINS - 1)
    return bins


def edges_ns() -> npt.NDArray[np.float64]:
    """Return the `BINS + 1` edges of the bins in nanoseconds; bin i covers [edges[i], edges[i + 1])."""
    index = np.arange(BINS + 1, dtype=np.int64)
    edges: npt.NDArray[np.float64] = ((index + _BIAS) << _SHIFT).view(np.float64)
    return edges


def quantile_ns(counts: npt.NDArray[np.int64], q: float) -> float:
    """Return the q-quantile of a histogram, interpolated linearly inside its bin; NaN when it is empty.

    Parameters
    ----------
    counts : shape (BINS,), completions per bin.
    q : in [0, 1].

    Examples
    --------
    >>> counts = np.zeros(BINS, dtype=np.int64); counts[bin_of(1_000_000)] = 10
    >>> abs(quantile_ns(counts, 0.5) / 1_000_000 - 1) < 0.016
    True
    """
    total = int(counts.sum())
    if total == 0:
        return float("nan")
    rank = q * total
    cumulative = np.cumsum(counts)
    index = min(int(np.searchsorted(cumulative, rank, side="left")), BINS - 1)
    while counts[index] == 0:
        index += 1
    below = int(cumulative[index]) - int(counts[index])
    edges = edges_ns()
    inside = min(max((rank - below) / int(counts[index]), 0.0), 1.0)
    return float(edges[index] + inside * (edges[index + 1] - edges[index]))
