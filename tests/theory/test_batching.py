"""Many seats: a decode batch is an infinite-server queue when steps cost nothing more, and shares its processor when they do."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chisquare, kstest, poisson

from sim.dataplane.engine import DataPlane
from sim.domain.traffic import RequestBlock
from sim.perf.queueing import decode_batch, m_g_1_ps_response_s, m_g_inf
from sim.perf.steptime import closed_form
from sim.units import NS_PER_S, NS_PER_US
from tests.engine_kit import LATTICE, MS, config, finish, spec
from tests.theory.queue_kit import AFTER_ALL_NS, CONFIDENCE, agrees, check_little, generator_of, run, watch_plane

NO_LIMIT = {"token_budget": 1 << 30, "kv_tokens": 1 << 40}


def token_block(name: str, arrival_per_s: float, tokens: np.ndarray, generator: np.random.Generator) -> RequestBlock:
    """Return Poisson arrivals with prompts of one token and the given numbers of output tokens."""
    arrival_ns = np.cumsum(generator.exponential(NS_PER_S / arrival_per_s, len(tokens))).astype(np.int64)
    return RequestBlock.of(arrival_ns=arrival_ns, prompt_tokens=np.ones(len(tokens)), output_tokens=tokens)


def test_steps_of_fixed_length_serve_like_infinitely_many_servers(engine: type[DataPlane]) -> None:
    """A busy replica steps on a lattice: a request waits a uniform part of a step, then its tokens take a step each.

    Half a step after a boundary the number present is Poisson with mean rate x (mean tokens + 1/2) steps, whatever the
    distribution of the tokens; looks further apart than the longest request are independent. Exact while the replica is never
    idle, which the run must show (its probability at a boundary is exp(-20)).
    """
    short, long, arrival_per_ms, looks = 2, 38, 1.0, 1_200
    generator = generator_of("infinite servers")
    count = int(arrival_per_ms * (long + 2) * (looks + 5))
    block = token_block("infinite servers", arrival_per_ms * 1_000, np.where(generator.random(count) < 0.5, short, long), generator)
    plane = engine(config(LATTICE, [spec(seats=1 << 20, **NO_LIMIT)]), [block])
    plane.add_replica(0, 0)
    first_ns = int(block.arrival_ns[0])
    looks_ns = first_ns + MS // 2 + (long + 2) * MS * np.arange(2, looks + 2, dtype=np.int64)
    views = watch_plane(plane, looks_ns)
    assert views[-1].busy_ns[0] == looks_ns[-1] - first_ns
    present = np.array([int(view.in_flight[0]) for view in views])
    last, records = finish(plane, AFTER_ALL_NS)
    check_little(last, records, None)

    law = poisson(m_g_inf(arrival_per_ms, (short + long) / 2 + 0.5).in_system)
    edges = np.unique(law.ppf(np.linspace(0, 1, 16)[1:-1]))
    observed = np.bincount(np.searchsorted(edges, present), minlength=len(edges) + 1)
    expected = np.diff(law.cdf(edges), prepend=0.0, append=1.0) * looks
    assert chisquare(observed, expected).pvalue > 1 - CONFIDENCE
    assert abs(present.mean() - law.mean()) < 4 * law.std() / np.sqrt(looks)

    waited = (records["leave_ns"] - records["arrival_ns"]) / MS - records["output_tokens"]
    steady = (records["arrival_ns"] > looks_ns[0]) & (records["arrival_ns"] < looks_ns[-1])
    assert kstest(waited[steady], "uniform").pvalue > 1 - CONFIDENCE


@pytest.mark.parametrize(
    ("fixed_us", "sequence_us", "seats", "arrival_per_s"),
    [(0.0, 100.0, 1 << 20, 1_200.0), (300.0, 50.0, 1 << 20, 1_600.0), (200.0, 0.0, 4, 2_000.0)],
    ids=["shared processor", "fixed and shared", "four seats"],
)
def test_a_decode_batch_is_its_markov_chain(
    engine: type[DataPlane], fixed_us: float, sequence_us: float, seats: int, arrival_per_s: float
) -> None:
    mean_tokens, count = 5.0, 40_000
    generator = generator_of("decode batch")
    block = token_block("decode batch", arrival_per_s, generator.geometric(1 / mean_tokens, count), generator)
    step = closed_form(fixed_ns=fixed_us * NS_PER_US, token_ns=sequence_us * NS_PER_US)
    ran = run(engine, config(step, [spec(seats=seats, **NO_LIMIT)]), block, step_by_step=True)
    theory = decode_batch(arrival_per_s, mean_tokens, fixed_us * 1e-6, sequence_us * 1e-6, seats)
    arrived, _ = np.histogram(ran.arrival_s, ran.looks_s)
    tokens, _ = np.histogram(ran.arrival_s, ran.looks_s, weights=ran.records["output_tokens"])
    span_s = np.diff(ran.looks_s)
    controls = [arrived - arrival_per_s * span_s, tokens - arrival_per_s * mean_tokens * span_s]
    agrees(ran.in_system, theory.in_system, controls, within=0.05)
    agrees(ran.queued, theory.queued, controls, within=0.08)
    agrees(ran.utilisation, theory.utilisation, controls, within=0.01)


@pytest.mark.parametrize("load", [0.3, 0.8])
def test_with_many_tokens_the_decode_batch_is_processor_sharing(load: float) -> None:
    """The exact chain, which the engine follows, tends to M/G/1-PS; its distance from it falls with the square of the tokens."""
    size_s = 1.0
    shared_s = m_g_1_ps_response_s(size_s, load / size_s, size_s)
    apart = [abs(decode_batch(load / size_s, tokens, 0.0, size_s / tokens).response_s / shared_s - 1) for tokens in (10, 20, 40)]
    assert apart[0] < 0.005
    assert apart[1] == pytest.approx(apart[0] / 4, rel=0.15)
    assert apart[2] == pytest.approx(apart[1] / 4, rel=0.15)
