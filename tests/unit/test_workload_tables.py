"""Quantile tables against the laws they hold, to p99.99 and beyond: computed from the tables themselves, without sampling."""

from __future__ import annotations

from collections.abc import Callable
from math import gamma, log1p, sqrt

import numpy as np
import pytest
from scipy import stats

from sim.domain.presets import LengthMixture
from sim.workload.arrivals import gap_table
from sim.workload.lengths import RequestLengths, TokenDistribution, fixed, lognormal_mixture, normal_correlation
from sim.workload.presets import preset
from sim.workload.tables import CELL_BITS, INDEX_BITS, LEVELS, TAIL_BITS, cell_index, cell_probabilities

CHANCES = (0.5, 0.25, 0.1, 0.05, 0.01, 1e-3, 1e-4, 1e-5)
CHAT = preset("chat-azure-2023")
MIXTURES = {"prompt": CHAT.prompt, "output": CHAT.output, "wide": LengthMixture((1.0,), (6.0,), (1.5,), 1_000_000)}


def cell_chance(chance: float) -> float:
    """The probability of one cell where this much of the distribution lies above."""
    level = sum(chance <= 2.0 ** -(TAIL_BITS * deeper) for deeper in range(1, LEVELS))
    return 2.0 ** -(CELL_BITS + TAIL_BITS * level)


def quantile(values: np.ndarray, chances: np.ndarray, above: float) -> float:
    """The smallest value that is exceeded with at most the given probability."""
    order = np.argsort(values, kind="stable")
    survival = 1.0 - np.cumsum(chances[order])
    return float(values[order][np.argmax(survival <= above + 1e-12)])


def test_every_cell_is_drawn_as_often_as_it_should() -> None:
    # The first, the last and one number in between of every cell, in order: a cell has all the numbers from its first to its last.
    counts = (cell_probabilities() * 2**INDEX_BITS).astype(np.int64)
    used = np.flatnonzero(counts)
    lasts = np.cumsum(counts[used]) - 1
    firsts = lasts - counts[used] + 1
    assert lasts[-1] == 2**INDEX_BITS - 1
    for bits in (firsts, (firsts + lasts) // 2, lasts):
        assert (cell_index(bits) == used).all()


@pytest.mark.parametrize("name", MIXTURES)
def test_prompt_tables_hold_every_quantile_to_one_cell(name: str) -> None:
    mixture = MIXTURES[name]
    law = lognormal_mixture(mixture)
    lengths = RequestLengths(law, fixed(1), 0.0)
    bits = np.arange(1 << 14, dtype=np.uint64) << np.uint64(50)
    assert lengths.draw(bits)[0].tolist()[:: 1 << 12] == lengths._prompt_table[: 1 << 14 : 1 << 12].tolist()
    chances, table = cell_probabilities(), lengths._prompt_table
    assert float(chances @ table) == pytest.approx(law.mean, rel=1e-3)
    for above in CHANCES:
        exact = int(law.quantile(above))
        if exact == mixture.cap_tokens:
            continue
        assert abs(chances[table > exact].sum() - law.survival[exact]) <= cell_chance(above)
        assert quantile(table, chances, above) == pytest.approx(exact, rel=1e-3, abs=1)


def output_survival(lengths: RequestLengths, tokens: int) -> float:
    """P(output > tokens) of the tables, over all pairs of cells: for each first cell, how many second cells are beyond."""
    least = int(np.searchsorted(lengths._output_table, tokens, side="right"))  # a cell of deviates from here on has more tokens
    threshold = (least - (8 << 12)) << (20 + 24 - 12)
    normal, chances = lengths._normal_table.astype(np.int64), cell_probabilities()
    order = np.argsort(normal, kind="stable")
    beyond = np.concatenate([np.cumsum(chances[order][::-1])[::-1], [0.0]])
    needed = -((normal * lengths._from_prompt - threshold) // lengths._own)  # ceil((threshold - from first) / own)
    return float(chances @ beyond[np.searchsorted(normal[order], needed, side="left")])


@pytest.mark.parametrize("spearman", [0.0, 0.07275, -0.517, 0.9])
@pytest.mark.parametrize("name", MIXTURES)
def test_output_tables_hold_every_quantile_whatever_the_dependence(name: str, spearman: float) -> None:
    law: TokenDistribution = lognormal_mixture(MIXTURES[name])
    lengths = RequestLengths(lognormal_mixture(CHAT.prompt), law, spearman)
    for above in CHANCES if spearman >= 0 else CHANCES[:-1]:
        exact = int(law.quantile(above))
        if exact == MIXTURES[name].cap_tokens:
            continue
        # A negative dependence brings in the lower tail of the prompts' deviates, which is not refined: held to p99.99.
        if spearman >= 0:
            assert output_survival(lengths, exact) == pytest.approx(law.survival[exact], rel=1e-3, abs=cell_chance(above))
        # The tables' own quantile is within 0.2 % and a token of the law's.
        assert output_survival(lengths, int(exact * 1.002) + 1) <= above
        assert output_survival(lengths, int(exact * 0.998) - 2) > above


def test_the_survival_of_outputs_is_what_is_drawn() -> None:
    lengths = RequestLengths(lognormal_mixture(CHAT.prompt), lognormal_mixture(CHAT.output), 0.6)
    words = np.random.default_rng(5).integers(0, 1 << 63, 1 << 20, dtype=np.uint64) << np.uint64(1)
    output = lengths.draw(words)[1]
    for tokens in (50, 200, 500, 900):
        expected = output_survival(lengths, tokens)
        assert abs(np.mean(output > tokens) - expected) < 4 * sqrt(expected * (1 - expected) / len(words))
    assert normal_correlation(0.6) > 0.6


LAWS: dict[tuple[str, float], Callable[[float], float]] = {
    ("exponential", 1.0): lambda above: float(-np.log(above)),
    ("gamma", 0.3): lambda above: float(stats.gamma.isf(above, 0.3**-2, scale=0.3**2)),
    ("gamma", 2.0): lambda above: float(stats.gamma.isf(above, 0.25, scale=4.0)),
    ("gamma", 5.0): lambda above: float(stats.gamma.isf(above, 0.04, scale=25.0)),
    ("lognormal", 1.5): lambda above: float(stats.lognorm.isf(above, sqrt(log1p(2.25)), scale=3.25**-0.5)),
    # A Weibull law of shape 1/2 has mean 2 and variance 20 at scale 1, so a cv of sqrt(5).
    ("weibull", sqrt(5.0)): lambda above: float(stats.weibull_min.isf(above, 0.5, scale=1 / gamma(3.0))),
}


@pytest.mark.parametrize(("family", "cv"), LAWS)
def test_gap_tables_hold_every_quantile_to_their_tail(family: str, cv: float) -> None:
    table, chances = gap_table(family, cv), cell_probabilities()
    lower, width = table.lower / 2**32, table.width / 2**32
    assert float(chances @ (lower + width / 2)) == pytest.approx(1.0, rel=1e-6)
    used = np.flatnonzero(chances)
    ends = np.cumsum(chances[used])
    for above in CHANCES:
        place = int(np.searchsorted(ends, 1 - above, side="right"))
        cell = used[place]
        inside = (1 - above - (ends[place] - chances[cell])) / chances[cell]
        found = lower[cell] + inside * width[cell]
        assert found == pytest.approx(LAWS[family, cv](above), rel=2e-3), above
