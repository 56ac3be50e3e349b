"""Renewal arrivals: gap laws, rescaling, and times that stay exact far from zero."""

from datetime import UTC, datetime
from math import exp, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sim.domain.traffic import BLOCK_REQUESTS
from sim.errors import InputError
from sim.rng import StreamKey
from sim.units import NS_PER_DAY, NS_PER_HOUR, NS_PER_S
from sim.workload.arrivals import WORK_BITS, GapTable, arrival_blocks, gap_table, rescaled
from sim.workload.base import random_words
from sim.workload.rates import RateChunk, RateModel
from sim.workload.tables import cell_probabilities

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
KEY = StreamKey(7, 0, "", "chat")


def gaps_of(family, cv, blocks):
    table = gap_table(family, cv)
    words = [random_words(KEY.about("workload/gaps"), block, BLOCK_REQUESTS // 2) for block in range(blocks)]
    return np.concatenate([table.draw(block) for block in words]) / 2**WORK_BITS


@pytest.mark.parametrize(
    ("family", "cv"),
    [("gamma", 0.3), ("gamma", 1.05), ("gamma", 6.0), ("weibull", 0.5), ("weibull", 2.2), ("lognormal", 1.5), ("lognormal", 8.0)],
)
def test_a_table_has_mean_one_and_the_asked_variation(family, cv):
    table = gap_table(family, cv)
    chance, low, width = cell_probabilities(), table.lower / 2**WORK_BITS, table.width / 2**WORK_BITS
    mean = np.sum(chance * (low + width / 2))
    square = np.sum(chance * (low * low + low * width + width * width / 3))
    assert mean == pytest.approx(1.0, abs=1e-9)
    assert sqrt(square - mean * mean) == pytest.approx(cv, rel=0.01)


@pytest.mark.parametrize(
    ("family", "cv", "law"),
    [
        ("gamma", 1.05, stats.gamma(1.05**-2, scale=1.05**2)),
        ("exponential", 1.0, stats.expon()),
        ("weibull", 0.5, stats.weibull_min(2.1013491, scale=1 / 0.8856899)),
        ("lognormal", 1.5, stats.lognorm(sqrt(np.log(1 + 1.5**2)), scale=exp(-np.log(1 + 1.5**2) / 2))),
    ],
)
def test_drawn_gaps_follow_their_law(family, cv, law):
    assert (law.mean(), law.std()) == pytest.approx((1.0, cv), rel=1e-6)
    gaps = gaps_of(family, cv, blocks=8)
    # Kolmogorov's critical value at 0.001.
    assert stats.kstest(gaps, law.cdf).statistic < 1.949 / sqrt(len(gaps))
    error = law.std() / sqrt(len(gaps))
    assert abs(gaps.mean() - 1) < 4 * error
    for chance in (0.9, 0.99, 0.999):
        above = np.mean(gaps > law.ppf(chance))
        assert abs(above - (1 - chance)) < 4 * sqrt(chance * (1 - chance) / len(gaps))


def test_deterministic_gaps_are_equal_to_the_nanosecond():
    chunks = RateModel(4.0).planned(MONDAY, NS_PER_HOUR)
    times_ns = np.concatenate(list(arrival_blocks(gap_table("deterministic", 0.0), chunks, KEY)))
    assert len(times_ns) == 4 * 3600
    assert 0 <= times_ns[0] < NS_PER_S // 4
    assert np.abs(np.diff(times_ns) - NS_PER_S // 4).max() <= 1


def test_poisson_arrivals_have_exponential_gaps_and_poisson_counts():
    chunks = RateModel(20.0).planned(MONDAY, 10 * NS_PER_HOUR)
    times_ns = np.concatenate(list(arrival_blocks(gap_table("exponential", 1.0), chunks, KEY)))
    assert stats.kstest(np.diff(times_ns) / NS_PER_S, stats.expon(scale=1 / 20).cdf).statistic < 1.949 / sqrt(len(times_ns))
    counts = np.bincount(times_ns // NS_PER_S, minlength=36_000)
    dispersion = counts.var(ddof=1) / counts.mean()
    assert abs(dispersion - 1) < 4 * sqrt(2 / len(counts))
    assert abs(counts.mean() - 20) < 4 * sqrt(20 / len(counts))


def test_a_bursty_process_does_not_start_with_a_burst():
    table, starts = gap_table("gamma", 3.0), 4_000
    firsts = np.array([table.first(StreamKey(seed, 0, "workload/first-gap", "chat")) for seed in range(starts)]) / 2**WORK_BITS
    # Mean residual life of a stationary renewal process: (1 + cv^2) / 2; its second moment is E[X^3] / 3.
    third = stats.gamma(1 / 9, scale=9).moment(3)
    assert abs(firsts.mean() - 5.0) < 4 * sqrt((third / 3 - 25) / starts)


def test_arrivals_keep_their_mean_rate_under_a_varying_rate():
    hours, rate = 24 * 28, 3.0
    model = RateModel(rate, weights=1 + 0.8 * np.sin(np.arange(168) / 168 * 14 * np.pi))
    blocks = list(arrival_blocks(gap_table("gamma", 1.5), model.planned(MONDAY, hours * NS_PER_HOUR), KEY))
    count = sum(map(len, blocks))
    assert abs(count - rate * hours * 3600) < 4 * 1.5 * sqrt(rate * hours * 3600)
    times_ns = np.concatenate(blocks)
    assert np.all(np.diff(times_ns) >= 0)
    by_hour = np.bincount(times_ns // NS_PER_HOUR % 168, minlength=168)
    expected = rate * 4 * 3600 * np.asarray(model.weights)
    assert np.all(np.abs(by_hour - expected) < 5 * 1.5 * np.sqrt(expected))


def chunk(offset_ns, rates, cell_ns=NS_PER_S):
    edges_ns = offset_ns + np.arange(len(rates) + 1, dtype=np.int64) * cell_ns
    return RateChunk(edges_ns, np.asarray(rates, dtype=np.float64))


def test_rescaling_by_hand():
    # Rates 2, 0, 1 a second: the integral is 2t, stays 2, then grows by 1, so gaps of 1, 0.5, 1 and 0.25 arrive at 0.5, 0.75,
    # 2.5 and 2.75 s.
    gaps = np.array([1.0, 0.5, 1.0, 0.25, 1.0]) * 2**WORK_BITS
    blocks = list(rescaled(iter([gaps.astype(np.int64)]), iter([chunk(0, [2, 0]), chunk(2 * NS_PER_S, [1])])))
    assert np.concatenate(blocks).tolist() == [500_000_000, 750_000_000, 2_500_000_000, 2_750_000_000]


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 2 << WORK_BITS), min_size=1, max_size=60),
    st.lists(st.lists(st.floats(0, 5), min_size=1, max_size=6), min_size=1, max_size=6),
    st.data(),
)
def test_where_blocks_are_cut_cannot_be_seen(gaps, rates, data):
    array = np.asarray(gaps, dtype=np.int64)
    cuts = sorted(data.draw(st.sets(st.integers(1, max(len(gaps) - 1, 1)), max_size=5)))
    starts = np.cumsum([0] + [len(each) for each in rates])

    def chunks(offset_ns):
        return iter([chunk(offset_ns + int(first) * NS_PER_S, each) for first, each in zip(starts, rates, strict=False)])

    def times(pieces, offset_ns=0):
        blocks = list(rescaled(iter(pieces), chunks(offset_ns)))
        return np.concatenate([*blocks, np.zeros(0, np.int64)])

    whole = times([array])
    np.testing.assert_array_equal(times([piece for piece in np.split(array, cuts) if len(piece)]), whole)
    # 400 days are more nanoseconds than a float can count.
    np.testing.assert_array_equal(times([array], 400 * NS_PER_DAY + 1) - (400 * NS_PER_DAY + 1), whole)


def test_blocks_are_full_but_the_last():
    sizes = [
        len(block) for block in arrival_blocks(gap_table("exponential", 1.0), RateModel(100.0).planned(MONDAY, NS_PER_HOUR), KEY)
    ]
    assert len(sizes) == 6
    assert set(sizes[:-1]) == {BLOCK_REQUESTS}


def test_every_arrival_is_before_the_horizon():
    horizon_ns = 1_234_567_891
    blocks = list(arrival_blocks(gap_table("exponential", 1.0), RateModel(10_000.0).planned(MONDAY, horizon_ns), KEY))
    assert max(int(block[-1]) for block in blocks) < horizon_ns
    assert abs(sum(map(len, blocks)) - 12_345) < 4 * sqrt(12_345)


def test_a_rate_beyond_counting_is_refused():
    chunks = RateModel(1e9).planned(MONDAY, NS_PER_DAY)
    with pytest.raises(InputError, match="above what can be counted"):
        next(arrival_blocks(gap_table("exponential", 1.0), chunks, KEY))


@pytest.mark.parametrize(("family", "cv"), [("pareto", 1.0), ("gamma", 0.0), ("gamma", 9.0), ("weibull", float("nan"))])
def test_a_law_that_cannot_be_tabulated_is_refused(family, cv):
    with pytest.raises(ValueError, match="must be"):
        gap_table(family, cv)


def test_the_same_table_is_not_built_twice():
    assert gap_table("gamma", 1.05) is gap_table("gamma", 1.05)
    assert isinstance(gap_table("gamma", 1.05), GapTable)
