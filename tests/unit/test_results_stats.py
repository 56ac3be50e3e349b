"""Intervals: examples worked by hand, another implementation, and what must hold for any values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap, norm
from scipy.stats import t as student

from sim.results.stats import (
    batch_means,
    bootstrap_interval,
    estimate,
    fewest_for_bootstrap,
    paired_difference,
    student_interval,
)
from sim.rng import StreamKey

KEY = StreamKey(1, 0, "bootstrap", "test")
VALUES = st.lists(st.floats(-1e6, 1e6), min_size=6, max_size=12)


def test_student_by_hand() -> None:
    """Mean 11.5, sum of squares 5, s = sqrt(5 / 3), t(0.975, 3) = 3.1824: half-width 3.1824 x 1.29099 / 2 = 2.0543."""
    found = student_interval([10.0, 12.0, 11.0, 13.0])
    assert found is not None
    assert (found.low, found.high) == pytest.approx((11.5 - 2.0543, 11.5 + 2.0543), abs=1e-4)
    assert found.confidence == 0.95
    narrow = student_interval([10.0, 12.0, 11.0, 13.0], 0.90)
    assert narrow is not None
    assert narrow.half_width == pytest.approx(2.3534 * math.sqrt(5 / 3) / 2, abs=1e-4)


def test_one_value_has_no_interval() -> None:
    found = estimate([3.25], KEY)
    assert (found.mean, found.n) == (3.25, 1)
    assert (found.standard_deviation, found.student, found.bootstrap) == (None, None, None)
    assert student_interval([]) is None


def test_a_bootstrap_of_few_values_is_none() -> None:
    """The range of 5 values misses the middle of their distribution in 2 of 32 cases, that of 6 in 2 of 64."""
    assert fewest_for_bootstrap(0.95) == 6
    assert fewest_for_bootstrap(0.5) == 2
    values = [1.0, 2.0, 4.0, 3.0, 7.0, 5.0]
    assert bootstrap_interval(values[:5], KEY) is None
    assert bootstrap_interval(values, KEY) is not None


@pytest.mark.parametrize("value", [0.1, 145.68, -1 / 3])
def test_equal_values_have_an_interval_of_no_width(value: float) -> None:
    found = estimate([value] * 7, KEY)
    assert (found.mean, found.standard_deviation) == (value, 0.0)
    for interval in (found.student, found.bootstrap):
        assert interval is not None
        assert (interval.low, interval.high) == (value, value)


def test_the_bootstrap_is_the_bca_of_scipy_at_its_wider_level() -> None:
    """Skewed values, so that bias and acceleration count; the tolerance is three times the resampling noise, in standard errors."""
    values = StreamKey(2, 0, "test", "skewed").generator().exponential(1.0, 25)
    wide = math.sqrt(25 / 24) * student.ppf(0.975, 24)
    level = 2 * norm.cdf(wide) - 1
    theirs = bootstrap((values,), np.mean, confidence_level=level, n_resamples=400_000, method="BCa", batch=10_000, random_state=3)
    mine = bootstrap_interval(values.tolist(), KEY, resamples=400_000)
    assert mine is not None
    error = values.std(ddof=1) / 5
    expected = theirs.confidence_interval
    assert (mine.low, mine.high) == pytest.approx((expected.low, expected.high), abs=0.05 * error)
    plain = bootstrap((values,), np.mean, confidence_level=level, n_resamples=40_000, method="percentile", random_state=3)
    assert mine.high - plain.confidence_interval.high > 0.1 * error  # the correction is seen


def test_an_interval_depends_on_its_key_alone() -> None:
    values = [1.0, 2.0, 4.0, 3.0, 7.0, 5.0, 9.0]
    assert bootstrap_interval(values, KEY) == bootstrap_interval(values, KEY)
    assert bootstrap_interval(values, KEY) != bootstrap_interval(values, StreamKey(2, 0, "bootstrap", "test"))


@given(VALUES, st.floats(0.01, 100.0), st.floats(-1e3, 1e3))
def test_intervals_follow_a_change_of_unit(values: list[float], factor: float, shift: float) -> None:
    before, after = estimate(values, KEY), estimate([factor * value + shift for value in values], KEY)
    scale = 1e-7 * max(1.0, *(abs(factor * value) + abs(shift) for value in values))
    for one, other in ((before.student, after.student), (before.bootstrap, after.bootstrap)):
        assert one is not None
        assert other is not None
        if max(values) - min(values) > 1e-3:  # below, a rounded value can become equal to another
            assert other.low == pytest.approx(factor * one.low + shift, abs=scale, rel=1e-6)
            assert other.high == pytest.approx(factor * one.high + shift, abs=scale, rel=1e-6)


@given(VALUES)
def test_intervals_hold_the_mean_and_the_bootstrap_stays_in_the_range(values: list[float]) -> None:
    found = estimate(values, KEY)
    assert found.student is not None
    assert found.bootstrap is not None
    assert found.student.low <= found.mean <= found.student.high
    slack = 1e-9 * max(1.0, *map(abs, values))
    assert min(values) - slack <= found.bootstrap.low <= found.bootstrap.high <= max(values) + slack


def test_paired_differences_by_hand() -> None:
    """Differences 1, 1.5 and 1 of replications 0, 1 and 2: mean 7/6, s^2 = 1/12; the sides below."""
    mine, others = {0: 11.0, 1: 21.5, 2: 32.0, 7: 1.0}, {2: 31.0, 1: 20.0, 0: 10.0, 9: 5.0}
    found = paired_difference(mine, others, KEY)
    assert found is not None
    assert found.replications == (0, 1, 2)
    assert found.estimate.mean == pytest.approx(7 / 6)
    assert found.estimate.standard_deviation == pytest.approx(math.sqrt(1 / 12))
    # 11, 21.5, 32 have s^2 = 10.5^2; 10, 20, 31 have s^2 = (10.333^2 + 0.333^2 + 10.667^2) / 2 = 110.333.
    assert found.variance_ratio == pytest.approx((10.5**2 + 331 / 3) * 12)
    # The covariance is (10.5 x 10.333 + 0 + 10.5 x 10.667) / 2 = 110.25.
    assert found.correlation == pytest.approx(110.25 / (10.5 * math.sqrt(331 / 3)))
    assert found.estimate.student is not None
    assert found.estimate.student.half_width == pytest.approx(4.30265 * math.sqrt(1 / 12) / math.sqrt(3), rel=1e-5)


def test_pairs_that_are_few_or_do_not_vary() -> None:
    assert paired_difference({0: 1.0}, {1: 1.0}, KEY) is None
    one = paired_difference({0: 3.0}, {0: 1.0}, KEY)
    assert one is not None
    assert (one.estimate.mean, one.estimate.student, one.variance_ratio) == (2.0, None, None)
    shifted = paired_difference({k: 0.1 * k + 5 for k in range(4)}, {k: 0.1 * k for k in range(4)}, KEY)
    assert shifted is not None
    assert shifted.variance_ratio is None
    assert shifted.correlation == pytest.approx(1.0)
    constant = paired_difference({0: 2.0, 1: 2.0}, {0: 1.0, 1: 1.5}, KEY)
    assert constant is not None
    assert constant.correlation is None
    assert constant.variance_ratio == pytest.approx(1.0)


def test_batch_means_by_hand() -> None:
    """Ten batches of two whose means are 1, 3, 2, 4, 3, 5, 4, 6, 2, 0: mean 3, s^2 = 30 / 9; the 21st value is left out."""
    means = [1, 3, 2, 4, 3, 5, 4, 6, 2, 0]
    values = [value for mean in means for value in (mean - 0.5, mean + 0.5)]
    found = batch_means([*values, 99.0], batches=10)
    assert (found.mean, found.batches, found.used) == (3.0, 10, 20)
    assert found.interval is not None
    assert found.interval.half_width == pytest.approx(2.26216 * math.sqrt(30 / 9 / 10), rel=1e-5)


def test_batches_that_are_still_correlated_have_no_interval() -> None:
    walk = np.cumsum(StreamKey(1, 0, "test", "walk").generator().standard_normal(2_000))
    found = batch_means(walk.tolist())
    assert found.interval is None
    assert found.correlation > 0.5


@pytest.mark.parametrize(("values", "batches"), [(5, 10), (100, 9)])
def test_too_few_values_or_batches_are_refused(values: int, batches: int) -> None:
    with pytest.raises(ValueError, match="make no"):
        batch_means([1.0] * values, batches)
