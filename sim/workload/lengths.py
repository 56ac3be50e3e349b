"""Token counts of a request: exact distributions of whole numbers, drawn through quantile tables.

A continuous law is rounded to the nearest token, never below 1, and what lies above its cap sits at the cap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi, sin, sqrt

import numpy as np
import numpy.typing as npt
from scipy import special

from sim.domain.presets import LengthMixture
from sim.workload.base import FloatArray, WordArray
from sim.workload.tables import INDEX_BITS, cell_index, survival_at

MAX_TOKENS = 4_194_304
# What a 64-bit word has left after two lengths.
SEGMENT_BITS = 64 - 2 * INDEX_BITS

_Z_BITS = 24  # fixed point of normal deviates
_Z_RANGE = 8
_Z_CELL_BITS = 12  # deviates are looked up in cells of 2^-12
_Z_CELLS = 2 * _Z_RANGE << _Z_CELL_BITS
_COEFFICIENT_BITS = 20


@dataclass(frozen=True)
class TokenDistribution:
    """A distribution over 1, 2, ..., n tokens.

    Parameters
    ----------
    survival : float64, shape (n + 1,): P(tokens > k) for k = 0..n; 1 at 0, 0 at n, not increasing.
    """

    survival: FloatArray

    @property
    def mean(self) -> float:
        """Mean number of tokens: the sum of the survival function."""
        return float(self.survival.sum())

    @property
    def largest(self) -> int:
        """The largest count there can be."""
        return len(self.survival) - 1

    def quantile(self, above: npt.ArrayLike) -> npt.NDArray[np.int32]:
        """Return the smallest count that is exceeded with at most the given probability.

        Examples
        --------
        >>> geometric(mean=2.0, cap=100).quantile([0.5, 0.25, 0.001]).tolist()
        [1, 2, 10]
        """
        counts = len(self.survival) - np.searchsorted(self.survival[::-1], above, side="right")
        return np.asarray(np.maximum(counts, 1), dtype=np.int32)


def lognormal_mixture(mixture: LengthMixture) -> TokenDistribution:
    """Return the rounded, capped mixture of log-normals.

    Examples
    --------
    >>> one = lognormal_mixture(LengthMixture(weights=(1.0,), mu=(5.0,), sigma=(0.5,), cap_tokens=10_000))
    >>> bool(abs(one.mean / np.exp(5.0 + 0.5**2 / 2) - 1) < 1e-4)
    True
    """
    shares = np.asarray(mixture.weights) / np.sum(mixture.weights)
    log_edge = np.log(np.arange(mixture.cap_tokens) + 0.5)
    survival = sum(
        share * special.ndtr((mu - log_edge) / sigma) for share, mu, sigma in zip(shares, mixture.mu, mixture.sigma, strict=True)
    )
    return _from_edges(np.asarray(survival, dtype=np.float64))


def fixed(tokens: int) -> TokenDistribution:
    """Return the distribution that is always `tokens`."""
    return TokenDistribution(np.concatenate([np.ones(tokens), np.zeros(1)]))


def geometric(mean: float, cap: int = MAX_TOKENS) -> TokenDistribution:
    """Return the geometric distribution on 1, 2, ...: the memoryless one, for comparison with queueing theory.

    P(tokens > k) = (1 - 1/mean)^k.
    """
    survival = (1.0 - 1.0 / mean) ** np.arange(cap)
    return _from_edges(np.asarray(survival[: int(np.searchsorted(-survival, -1e-15)) + 1], dtype=np.float64))


def empirical(probabilities: Sequence[float], tokens: Sequence[float]) -> TokenDistribution:
    """Return the distribution with given quantiles, linear between them.

    Parameters
    ----------
    probabilities : increasing from 0 to 1. tokens : the quantiles, not decreasing; a repeated value is an atom.

    Examples
    --------
    >>> empirical([0, 0.5, 1], [10, 10, 30]).quantile([0.9, 0.6]).tolist()
    [10, 10]
    """
    edges = np.arange(int(np.ceil(tokens[-1]))) + 0.5
    return _from_edges(1.0 - np.interp(edges, tokens, probabilities, left=0.0, right=1.0))


def _from_edges(survival: FloatArray) -> TokenDistribution:
    """Make a distribution of P(X > k + 1/2), k = 0..cap-1: whatever is left above sits at the cap."""
    survival[0] = 1.0
    return TokenDistribution(np.concatenate([survival, np.zeros(1)]))


def normal_correlation(spearman: float) -> float:
    """Return the correlation of the Gaussian copula with a given rank correlation: 2 sin(pi r / 6).

    Source: Kruskal, J. Am. Stat. Assoc. 53, 814 (1958).

    Examples
    --------
    >>> round(normal_correlation(0.07275), 4)
    0.0762
    """
    return 2.0 * sin(pi * spearman / 6.0)


class RequestLengths:
    """Draws prompt and output tokens of requests, dependent through a Gaussian copula, from one random word each.

    Parameters
    ----------
    prompt, output : distributions of the two. spearman : rank correlation between them, in [-1, 1].

    Examples
    --------
    >>> lengths = RequestLengths(fixed(512), fixed(128), spearman=0.0)
    >>> [column.tolist() for column in lengths.draw(np.array([0, 2**64 - 1], dtype=np.uint64))]
    [[512, 512], [128, 128]]
    """

    def __init__(self, prompt: TokenDistribution, output: TokenDistribution, spearman: float) -> None:
        self.prompt, self.output = prompt, output
        rho = normal_correlation(spearman)
        self._from_prompt = round(rho * 2**_COEFFICIENT_BITS)
        self._own = round(sqrt(1.0 - rho * rho) * 2**_COEFFICIENT_BITS)
        middles = survival_at(0.5)
        self._prompt_table = prompt.quantile(middles)
        # 28 bits with the sign; half the size is half the cache.
        self._normal_table = np.rint(-special.ndtri(middles) * 2**_Z_BITS).astype(np.int32)
        z_middles = (np.arange(_Z_CELLS) + 0.5) / 2**_Z_CELL_BITS - _Z_RANGE
        self._output_table = output.quantile(special.ndtr(-z_middles))

    def draw(self, words: WordArray) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Return prompt and output tokens, int32, one of each for every 64-bit word; the words' lowest bits are not used.

        Parameters
        ----------
        words : uint64, shape (n,).
        """
        first = cell_index((words >> np.uint64(64 - INDEX_BITS)).view(np.int64))
        second = (words >> np.uint64(SEGMENT_BITS)).view(np.int64)
        second &= (1 << INDEX_BITS) - 1
        deviate = np.multiply(self._normal_table.take(cell_index(second)), self._own, dtype=np.int64)
        deviate += np.multiply(self._normal_table.take(first), self._from_prompt, dtype=np.int64)
        deviate >>= _COEFFICIENT_BITS + _Z_BITS - _Z_CELL_BITS
        deviate += _Z_RANGE << _Z_CELL_BITS
        return self._prompt_table.take(first), self._output_table.take(deviate)


class SegmentShares:
    """Gives every request a segment by the lowest bits of its random word.

    Parameters
    ----------
    shares : positive weights of the segments; they are met to 1 in 4,096.
    """

    def __init__(self, shares: Sequence[float]) -> None:
        edges = np.rint(np.cumsum(shares) / np.sum(shares) * 2**SEGMENT_BITS)
        self._table = np.searchsorted(edges, np.arange(2**SEGMENT_BITS), side="right").astype(np.int32)

    def draw(self, words: WordArray) -> npt.NDArray[np.int32]:
        """Return the segment numbers, int32, one for every word."""
        segments: npt.NDArray[np.int32] = self._table[(words & np.uint64(2**SEGMENT_BITS - 1)).astype(np.intp)]
        return segments
