"""Do intervals keep their word? Hundreds of small experiments on M/M/c, whose mean wait is known in closed form.

An experiment is eight replications with random streams of their own; a replication is the mean wait of the same 1,100 customers,
counted from the 301st on, when the start from empty is forgotten (20 relaxation times at this load). Of the 95 % intervals as many
cover the truth as 95 of 100 would, within the band that a binomial leaves in 999 of 1,000 cases.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy.stats import binom

from sim.dataplane.compiled import CompiledPlane
from sim.domain.traffic import RequestBlock
from sim.perf.queueing import m_m_c
from sim.results.stats import batch_means, estimate, paired_difference, student_interval
from sim.rng import StreamKey
from sim.units import NS_PER_S
from tests.engine_kit import finish
from tests.theory.queue_kit import AFTER_ALL_NS, SERVICE_S, TOKEN_NS, servers_config, tokens_of

pytestmark = pytest.mark.validation

EXPERIMENTS, REPLICATIONS = 400, 8
SERVERS, LOAD = 3, 0.6
ARRIVAL_PER_S = LOAD * SERVERS / SERVICE_S
WARM, MEASURED = 300, 1_100
CONFIDENCE = 0.95


def waits_s(seed: int, replication: int, servers: int = SERVERS, measured: int = MEASURED) -> np.ndarray:
    """The waits of the measured customers of one run; the arrivals are the same for any number of servers."""
    generator = StreamKey(seed, replication, "coverage", "M/M/c").generator()
    count = WARM + measured
    block = RequestBlock.of(
        arrival_ns=np.cumsum(generator.exponential(NS_PER_S / ARRIVAL_PER_S, count)).astype(np.int64),
        prompt_tokens=tokens_of(generator.exponential(1.0, count)),
        output_tokens=np.ones(count),
    )
    plane = CompiledPlane(servers_config(central=True), [block], None)
    for _ in range(servers):
        plane.add_replica(0, 0)
    _, records = finish(plane, AFTER_ALL_NS)
    waited_ns = records["leave_ns"] - records["arrival_ns"] - records["prompt_tokens"] * TOKEN_NS
    return waited_ns[WARM:] / NS_PER_S


@cache
def mean_waits(servers: int) -> list[dict[int, float]]:
    """Experiment -> replication -> mean wait."""
    return [{number: float(waits_s(seed, number, servers).mean()) for number in range(REPLICATIONS)} for seed in range(EXPERIMENTS)]


def truth(servers: int) -> float:
    """The mean wait in seconds (Erlang C)."""
    return m_m_c(ARRIVAL_PER_S, SERVICE_S, servers).wait_s


def key(seed: int) -> StreamKey:
    """The random stream of an experiment's bootstrap."""
    return StreamKey(seed, 0, "bootstrap", "coverage")


def in_band(covered: list[bool]) -> bool:
    """Whether so many of so many is what a coverage of 95 % does in 999 of 1,000 cases."""
    low, high = binom.interval(0.999, len(covered), CONFIDENCE)
    return bool(low <= sum(covered) <= high)


def test_means_of_replications_are_not_biased() -> None:
    """All 3,200 replications together: within four standard errors, and these are below 1 % of the wait."""
    means = np.array([value for experiment in mean_waits(SERVERS) for value in experiment.values()])
    error = means.std(ddof=1) / np.sqrt(len(means))
    assert error < 0.01 * truth(SERVERS)
    assert abs(means.mean() - truth(SERVERS)) < 4 * error


@pytest.mark.parametrize("method", ["student", "bootstrap"])
def test_intervals_of_replications_cover_the_truth(method: str) -> None:
    covered = []
    for seed, experiment in enumerate(mean_waits(SERVERS)):
        interval = getattr(estimate(list(experiment.values()), key(seed), CONFIDENCE), method)
        covered.append(interval.low <= truth(SERVERS) <= interval.high)
    assert in_band(covered), f"{sum(covered)} of {len(covered)}"


def test_an_interval_that_is_too_narrow_would_be_seen() -> None:
    """The normal quantile in place of Student's, as is often done, falls out of the band."""
    covered = []
    for experiment in mean_waits(SERVERS):
        values = np.array(list(experiment.values()))
        half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
        covered.append(bool(abs(values.mean() - truth(SERVERS)) <= half))
    assert not in_band(covered), f"{sum(covered)} of {len(covered)}"


def test_paired_differences_cover_the_truth_and_are_narrower() -> None:
    """One server more for the same customers."""
    expected = truth(SERVERS) - truth(SERVERS + 1)
    covered, ratios, narrower = [], [], []
    for seed, (three, four) in enumerate(zip(mean_waits(SERVERS), mean_waits(SERVERS + 1), strict=True)):
        paired = paired_difference(three, four, key(seed), CONFIDENCE)
        assert paired is not None
        assert paired.estimate.student is not None
        assert paired.variance_ratio is not None
        covered.append(paired.estimate.student.low <= expected <= paired.estimate.student.high)
        ratios.append(paired.variance_ratio)
        shuffled = {number: four[(number + 1) % REPLICATIONS] for number in four}
        apart = paired_difference(three, shuffled, key(seed), CONFIDENCE)
        assert apart is not None
        assert apart.estimate.student is not None
        narrower.append(paired.estimate.student.half_width < apart.estimate.student.half_width)
    assert in_band(covered), f"{sum(covered)} of {len(covered)}"
    assert np.median(ratios) > 1.3
    assert np.mean(narrower) > 0.8


def test_batch_means_of_one_long_run_cover_the_truth() -> None:
    """Batches of 3,000 customers, 170 s each: 250 relaxation times, so that few runs are found correlated (5 % by chance)."""
    covered = []
    for seed in range(EXPERIMENTS // 2):
        found = batch_means(waits_s(seed, 0, measured=60_000).tolist())
        if found.interval is not None:
            covered.append(found.interval.low <= truth(SERVERS) <= found.interval.high)
    assert len(covered) >= 0.9 * EXPERIMENTS // 2
    assert in_band(covered), f"{sum(covered)} of {len(covered)}"


def test_values_that_are_correlated_are_no_replications() -> None:
    """Why batches and replications at all: taking the customers of one run for independent covers far too rarely."""
    covered = []
    for seed in range(EXPERIMENTS // 4):
        interval = student_interval(waits_s(seed, 0).tolist(), CONFIDENCE)
        assert interval is not None
        covered.append(interval.low <= truth(SERVERS) <= interval.high)
    assert sum(covered) < 0.6 * len(covered)
