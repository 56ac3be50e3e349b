"""How sure a mean is: intervals over replications, differences under common random numbers, batch means of one long run.

Replications are independent and equally distributed, so the mean of n of them has a Student t interval (exact where a replication's
value is normal). The bootstrap interval asks for no normality: bias-corrected and accelerated (Efron 1987), at levels widened for
few values (Hesterberg 2015, section 4.2: with n values a plain bootstrap is too narrow by sqrt((n-1)/n) and by normal for t).
One value has no interval, and none is ever made up for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri, stdtrit  # scipy.stats has them too, and takes a second to import

from sim.rng import StreamKey

CONFIDENCE = 0.95
RESAMPLES = 4_000
BATCHES = 20
# Resamples drawn at once: bounds the memory to this many copies of the values.
_AT_ONCE = 250
_ROUNDING = 1e-9

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A confidence interval: of many intervals made this way, the share `confidence` covers the true mean."""

    low: float
    high: float
    confidence: float = CONFIDENCE

    @property
    def half_width(self) -> float:
        """Half of its width."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Estimate:
    """What replications say about one metric.

    Parameters
    ----------
    mean : of the values. standard_deviation : of one replication, None for a single value. n : how many values.
    student, bootstrap : intervals of the mean; None where there are too few values for one.
    """

    mean: float
    standard_deviation: float | None
    n: int
    student: Interval | None
    bootstrap: Interval | None


@dataclass(frozen=True)
class PairedDifference:
    """The mean difference of two scenarios, replication by replication.

    Parameters
    ----------
    estimate : of the differences (mine minus others). replications : the pairs, by number.
    correlation : of the two sides over replications; None where one side does not vary or there are fewer than two pairs.
    variance_ratio : variance of a difference of independent replications over that of the pairs, what common random numbers are
        worth: 4 means that independent runs would need 4 times as many replications. None where the pairs do not vary.
    """

    estimate: Estimate
    replications: tuple[int, ...]
    correlation: float | None
    variance_ratio: float | None


@dataclass(frozen=True)
class BatchMeans:
    """The mean of one long run from its batches.

    Parameters
    ----------
    mean : of the values used. interval : Student's over batch means; None where the batches are still correlated.
    batches : how many. correlation : of neighbouring batch means. used : values in the batches, the remainder at the end left out.
    """

    mean: float
    interval: Interval | None
    batches: int
    correlation: float
    used: int


def estimate(values: Sequence[float], key: StreamKey, confidence: float = CONFIDENCE) -> Estimate:
    """Return mean, standard deviation and both intervals of values of independent replications.

    Parameters
    ----------
    values : one a replication, at least one. key : names the random stream of the bootstrap.

    Examples
    --------
    >>> found = estimate([10.0, 12.0, 11.0, 13.0], StreamKey(1, 0, "bootstrap", "doctest"))
    >>> found.mean, found.n, round(found.student.half_width, 3), found.bootstrap
    (11.5, 4, 2.054, None)
    """
    return Estimate(
        mean=_mean(values),
        standard_deviation=_deviation(values) if len(values) > 1 else None,
        n=len(values),
        student=student_interval(values, confidence),
        bootstrap=bootstrap_interval(values, key, confidence),
    )


def student_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval | None:
    """Return the Student t interval of the mean of independent values; None below two (Law 2015, section 4.5).

    Examples
    --------
    >>> student_interval([1.0]) is None
    True
    """
    count = len(values)
    if count < 2:
        return None
    half = _student_quantile(count - 1, confidence) * _deviation(values) / math.sqrt(count)
    return Interval(_mean(values) - half, _mean(values) + half, confidence)


def fewest_for_bootstrap(confidence: float = CONFIDENCE) -> int:
    """Return the number of values below which no bootstrap interval can keep its word.

    No resample leaves the range of the values, and the range of n values misses the middle of their distribution with
    probability 2^(1-n).

    Examples
    --------
    >>> fewest_for_bootstrap(0.95)
    6
    """
    return math.ceil(1 - math.log2(1 - confidence))


def bootstrap_interval(
    values: Sequence[float], key: StreamKey, confidence: float = CONFIDENCE, resamples: int = RESAMPLES
) -> Interval | None:
    """Return the BCa bootstrap interval of the mean, its levels widened for few values; None below `fewest_for_bootstrap`.

    Parameters
    ----------
    values : one a replication. key : names the random stream of the resamples; the same key, the same interval.

    Returns
    -------
    an interval of width 0 for values that are all equal.

    Examples
    --------
    >>> key = StreamKey(1, 0, "bootstrap", "doctest")
    >>> found = bootstrap_interval([3.0, 4.0, 5.0, 4.5, 3.5, 4.2, 9.0, 3.8], key)
    >>> found.low < 4.625 < found.high
    True
    """
    count = len(values)
    if count < fewest_for_bootstrap(confidence):
        return None
    mean = _mean(values)
    away = np.asarray(values, np.float64) - mean
    scale = float(np.abs(away).max())
    if not scale:
        return Interval(mean, mean, confidence)
    away /= scale
    generator = key.generator()
    means = np.concatenate(
        [
            away[generator.integers(0, count, (min(_AT_ONCE, resamples - done), count))].mean(axis=1)
            for done in range(0, resamples, _AT_ONCE)
        ]
    )
    # A resample of the mean itself counts half; what is nearer than rounding is the mean.
    below = (np.count_nonzero(means < -_ROUNDING) + np.count_nonzero(np.abs(means) <= _ROUNDING) / 2) / resamples
    bias = float(ndtri(below))
    # The jackknife acceleration of a mean is the skewness of its values over 6 sqrt(n).
    acceleration = float((away**3).sum() / (6 * (away**2).sum() ** 1.5))
    wide = math.sqrt(count / (count - 1)) * _student_quantile(count - 1, confidence)
    # Beyond the pole of the formula, at confidences above 0.99999, the level is 1: the range of the resamples.
    levels = [ndtr(bias + (bias + z) / max(1 - acceleration * (bias + z), 1e-9)) for z in (-wide, wide)]
    low, high = np.quantile(means, levels).tolist()
    return Interval(mean + scale * low, mean + scale * high, confidence)


def paired_difference(
    mine: Mapping[int, float], others: Mapping[int, float], key: StreamKey, confidence: float = CONFIDENCE
) -> PairedDifference | None:
    """Compare two scenarios over the replications they have in common; None where there are none (Law 2015, section 11.2).

    Replications of equal number and seed have the same arrivals, so that most of the noise is in both and falls out.

    Parameters
    ----------
    mine, others : replication -> value. key : names the random stream of the bootstrap.

    Examples
    --------
    >>> key = StreamKey(1, 0, "bootstrap", "doctest")
    >>> found = paired_difference({0: 11.0, 1: 21.5, 2: 32.0}, {0: 10.0, 1: 20.0, 2: 31.0}, key)
    >>> round(found.estimate.mean, 3), found.variance_ratio > 1_000
    (1.167, True)
    """
    common = tuple(sorted(mine.keys() & others.keys()))
    if not common:
        return None
    left, right = ([side[number] for number in common] for side in (mine, others))
    differences = [a - b for a, b in zip(left, right, strict=True)]
    found = estimate(differences, key, confidence)
    if len(common) < 2:
        return PairedDifference(found, common, None, None)
    deviations = [_deviation(side) for side in (left, right)]
    spread = _deviation(differences)
    return PairedDifference(
        estimate=found,
        replications=common,
        correlation=_correlation(left, right) if min(deviations) > 0 else None,
        # Differences that vary by no more than the last bits of both sides do not vary.
        variance_ratio=math.fsum(deviation**2 for deviation in deviations) / spread**2
        if spread > _ROUNDING * max(deviations)
        else None,
    )


def batch_means(values: Sequence[float], batches: int = BATCHES, confidence: float = CONFIDENCE) -> BatchMeans:
    """Return the mean of one long stationary run with the interval of its batch means (Law 2015, section 9.5.3).

    Neighbouring values of one run are correlated; means of long batches are nearly not. Where they still are, by the test of
    von Neumann at 5 %, there is no interval: the run is too short for one.

    Parameters
    ----------
    values : in order of time, of a process without warm-up, trend or daily cycle. batches : at least 10.

    Raises
    ------
    ValueError : fewer than 10 batches, or fewer values than batches.

    Examples
    --------
    >>> generator = StreamKey(1, 0, "doctest", "batches").generator()
    >>> found = batch_means(generator.exponential(1.0, 10_000).tolist())
    >>> found.interval.low < 1.0 < found.interval.high
    True
    """
    if batches < 10 or len(values) < batches:
        raise ValueError(f"{len(values)} values make no {batches} batches: at least 10, of one value or more")
    length = len(values) // batches
    means = np.asarray(values[: length * batches], np.float64).reshape(batches, length).mean(axis=1).tolist()
    correlation = _correlation(means[:-1], means[1:]) if _deviation(means[:-1]) and _deviation(means[1:]) else 0.0
    interval = student_interval(means, confidence) if _look_independent(means) else None
    return BatchMeans(_mean(means), interval, batches, correlation, length * batches)


def _look_independent(means: Sequence[float]) -> bool:
    """Whether the mean square of successive differences is not too small for independent values (von Neumann 1941)."""
    variance = _deviation(means) ** 2
    if not variance:
        return True
    count = len(means)
    ratio = math.fsum((b - a) ** 2 for a, b in pairwise(means)) / (2 * (count - 1) * variance)
    return (1 - ratio) * math.sqrt((count**2 - 1) / (count - 2)) < float(ndtri(0.95))


def _student_quantile(freedom: int, confidence: float) -> float:
    """How many standard errors a two-sided Student interval reaches."""
    return float(stdtrit(freedom, 0.5 + confidence / 2))


def _mean(values: Sequence[float]) -> float:
    """The exactly rounded mean; equal values are their own mean to the last bit."""
    return values[0] if min(values) == max(values) else math.fsum(values) / len(values)


def _deviation(values: Sequence[float]) -> float:
    """The standard deviation of at least two values, with n - 1."""
    mean = _mean(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def _correlation(left: Sequence[float], right: Sequence[float]) -> float:
    means = _mean(left), _mean(right)
    products = math.fsum((a - means[0]) * (b - means[1]) for a, b in zip(left, right, strict=True))
    return products / (len(left) - 1) / (_deviation(left) * _deviation(right))
