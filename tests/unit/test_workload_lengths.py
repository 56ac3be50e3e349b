"""Token counts: tables against exact distributions, dependence, segments."""

from math import log, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sim.domain.presets import LengthMixture
from sim.rng import StreamKey
from sim.workload.base import random_words
from sim.workload.lengths import (
    RequestLengths,
    SegmentShares,
    empirical,
    fixed,
    geometric,
    lognormal_mixture,
    normal_correlation,
)
from sim.workload.presets import preset

CHAT = preset("chat-azure-2023")
WORDS = np.concatenate([random_words(StreamKey(3, 0, "doc", "chat"), block, 65_536) for block in range(32)])


def mixture_survival(mixture, tokens):
    parts = zip(mixture.weights, mixture.mu, mixture.sigma, strict=True)
    return sum(w * stats.norm.sf((log(tokens + 0.5) - mu) / sd) for w, mu, sd in parts) / sum(mixture.weights)


@pytest.fixture(scope="module")
def drawn():
    return RequestLengths(lognormal_mixture(CHAT.prompt), lognormal_mixture(CHAT.output), CHAT.spearman).draw(WORDS)


@pytest.mark.parametrize(("column", "mixture"), [(0, CHAT.prompt), (1, CHAT.output)])
def test_drawn_lengths_follow_the_mixture_to_the_tail(drawn, column, mixture):
    tokens, count = drawn[column], len(WORDS)
    distribution = lognormal_mixture(mixture)
    deviation = tokens.std()
    assert abs(tokens.mean() - distribution.mean) < 4 * deviation / sqrt(count)
    for chance in (0.05, 0.5, 0.9, 0.99, 0.999, 0.9999):
        edge = int(distribution.quantile(1 - chance))
        if edge < mixture.cap_tokens:
            expected = mixture_survival(mixture, edge)
            assert abs(np.mean(tokens > edge) - expected) < 4 * sqrt(expected * (1 - expected) / count) + 2**-14 * (
                chance < 63 / 64
            )
    capped = mixture_survival(mixture, mixture.cap_tokens - 1)
    assert abs(np.mean(tokens == mixture.cap_tokens) - capped) < 4 * sqrt(capped / count) + 2**-20
    assert tokens.min() >= 1
    assert tokens.max() == mixture.cap_tokens


@pytest.mark.parametrize("mixture", [CHAT.prompt, CHAT.output])
def test_the_prompt_table_itself_is_right_to_a_thousandth(mixture):
    """All words of equal spacing, so the table's own mean and quantiles, without sampling noise."""
    every = (np.arange(1 << 22, dtype=np.uint64) << np.uint64(42)) + np.uint64(1 << 41)
    distribution = lognormal_mixture(mixture)
    tokens, _ = RequestLengths(distribution, fixed(1), 0.0).draw(every)
    assert tokens.mean() == pytest.approx(distribution.mean, rel=1e-3)
    for chance in (0.5, 0.9, 0.99, 0.999):
        assert np.quantile(tokens, chance) == pytest.approx(float(distribution.quantile(1 - chance)), rel=3e-3)


def test_the_mean_is_that_of_the_capped_law():
    mixture = LengthMixture((1.0,), (6.0,), (1.2,), 5_000)
    values = np.arange(1, 5_001)
    chances = -np.diff([1.0, *(mixture_survival(mixture, k) for k in values[:-1]), 0.0])
    assert lognormal_mixture(mixture).mean == pytest.approx(float(np.sum(values * chances)), rel=1e-9)


@pytest.mark.parametrize("spearman", [-0.517, 0.0, 0.07275, 0.6])
def test_prompt_and_output_have_the_asked_rank_correlation(spearman):
    lengths = RequestLengths(lognormal_mixture(CHAT.prompt), lognormal_mixture(CHAT.output), spearman)
    prompt, output = lengths.draw(WORDS[:500_000])
    measured = stats.spearmanr(prompt, output).statistic
    assert abs(measured - spearman) < 4 / sqrt(500_000) + 0.004  # ties of whole tokens cost a little
    assert output.mean() == pytest.approx(lengths.output.mean, rel=4 * output.std() / lengths.output.mean / sqrt(500_000))


def test_normal_correlation_is_kruskals():
    assert normal_correlation(1.0) == pytest.approx(1.0)
    assert normal_correlation(-0.5) == pytest.approx(-2 * np.sin(np.pi / 12))


def test_geometric_lengths_are_memoryless():
    distribution = geometric(mean=50.0)
    assert distribution.mean == pytest.approx(50.0, rel=1e-9)
    tokens, _ = RequestLengths(distribution, fixed(1), 0.0).draw(WORDS)
    survival = (1 - 1 / 50) ** 100
    assert abs(np.mean(tokens > 100) - survival) < 4 * sqrt(survival / len(WORDS)) + 2**-14
    assert geometric(mean=1.0).mean == 1.0


def test_empirical_lengths_are_linear_between_quantiles_and_keep_atoms():
    tokens, _ = RequestLengths(empirical([0, 0.2, 0.3, 1], [1, 100, 100, 300]), fixed(1), 0.0).draw(WORDS)
    below_atom = 0.2 * (99.5 - 1) / 99
    above = 0.7 * (300 - 200.5) / 200
    assert abs(np.mean(tokens < 100) - below_atom) < 4 * sqrt(0.16 / len(WORDS)) + 2**-14
    assert abs(np.mean(tokens > 200) - above) < 4 * sqrt(0.25 / len(WORDS)) + 2**-14
    assert abs(np.mean(tokens == 100) - (0.1 + 0.2 * 0.5 / 99 + 0.7 * 0.5 / 200)) < 4 * sqrt(0.1 / len(WORDS)) + 2**-14


@given(st.integers(1, 5_000), st.integers(1, 5_000))
def test_fixed_lengths_are_fixed(prompt, output):
    columns = RequestLengths(fixed(prompt), fixed(output), 0.3).draw(WORDS[:50])
    assert set(columns[0].tolist()) == {prompt}
    assert set(columns[1].tolist()) == {output}


def test_segments_get_their_shares_and_do_not_depend_on_lengths():
    segments = SegmentShares([0.7, 0.1, 0.2]).draw(WORDS)
    shares = np.bincount(segments) / len(WORDS)
    np.testing.assert_allclose(shares, [0.7, 0.1, 0.2], atol=4 * sqrt(0.21 / len(WORDS)) + 1 / 8192)
    prompt, _ = RequestLengths(lognormal_mixture(CHAT.prompt), fixed(1), 0.0).draw(WORDS)
    first, second = prompt[segments == 0], prompt[segments == 2]
    assert abs(first.mean() - second.mean()) < 4 * prompt.std() * sqrt(1 / len(first) + 1 / len(second))


def test_segments_share_the_words_exactly():
    every = np.arange(4_096, dtype=np.uint64)
    assert np.bincount(SegmentShares([1, 1, 2]).draw(every)).tolist() == [1_024, 1_024, 2_048]
