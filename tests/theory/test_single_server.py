"""One seat is one server: M/M/1, M/D/1, M/G/1, priorities, and deadlines."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from sim.dataplane.engine import DataPlane, StreamRules
from sim.dataplane.layout import ABANDONED, COMPLETED
from sim.perf.queueing import m_g_1, m_g_1_priority_waits, m_m_1_deadline, m_m_c, m_m_c_wait_tail
from sim.units import NS_PER_S
from tests.theory.queue_kit import (
    CONFIDENCE,
    SERVICE_S,
    Draw,
    Run,
    agrees,
    batch_means,
    deterministic,
    erlang_4,
    exponential,
    hyperexponential,
    lognormal,
    poisson_block,
    run,
    servers_config,
    tokens_of,
)

REQUESTS = 120_000


@cache
def single(engine: type[DataPlane], service: Draw, load: float) -> Run:
    return run(engine, servers_config(), poisson_block(f"single {service.__name__}", load / SERVICE_S, REQUESTS, service))


@pytest.mark.parametrize(
    ("service", "scv", "load"),
    [
        (exponential, 1.0, 0.5),
        (deterministic, 0.0, 0.6),
        (erlang_4, 0.25, 0.6),
        (lognormal, 1.0, 0.5),
        (hyperexponential, 2.0, 0.45),
    ],
)
def test_means_are_those_of_pollaczek_and_khinchine(engine: type[DataPlane], service: Draw, scv: float, load: float) -> None:
    rate = load / SERVICE_S
    ran, theory = single(engine, service, load), m_g_1(rate, SERVICE_S, scv)
    agrees(ran.utilisation, theory.utilisation, ran.time_controls(rate, scv), within=0.002 if scv else 0.02)
    agrees(ran.batches(ran.wait_s), theory.wait_s, ran.request_controls(rate, scv), within=0.06)
    agrees(ran.in_system, theory.in_system, ran.time_controls(rate, scv), within=0.03)
    agrees(ran.queued, theory.queued, ran.time_controls(rate, scv), within=0.06)


def test_wait_of_m_m_1_has_the_exponential_tail(engine: type[DataPlane]) -> None:
    """Tail probabilities at fixed times, Bonferroni over them: sharper than Kolmogorov-Smirnov on waits thinned to independence."""
    rate = 0.5 / SERVICE_S
    ran = single(engine, exponential, 0.5)
    times_s = (0.0, 0.05, 0.1, 0.2, 0.4, 0.6)
    for t_s in times_s:
        tail = m_m_c_wait_tail(t_s, rate, SERVICE_S)
        above = ran.batches((ran.wait_s > t_s).astype(float))
        agrees(above, tail, ran.request_controls(rate), confidence=1 - (1 - CONFIDENCE) / len(times_s), within=0.012, scale=1.0)


def test_poisson_arrivals_see_time_averages(engine: type[DataPlane]) -> None:
    """Wolff 1982: what arrivals find is what a clock finds; the difference of the two has a narrow interval around 0."""
    ran, theory = single(engine, exponential, 0.5), m_m_c(0.5 / SERVICE_S, SERVICE_S)
    arrived, _ = np.histogram(ran.arrival_s, ran.looks_s)
    found, _ = np.histogram(ran.arrival_s, ran.looks_s, weights=ran.found)
    agrees(found / arrived - ran.in_system, 0.0, scale=theory.in_system, within=0.03)
    agrees(ran.batches((ran.found == 0).astype(float)), 1 - theory.utilisation, ran.request_controls(0.5 / SERVICE_S), within=0.02)


def test_two_priorities_wait_as_cobham_says(engine: type[DataPlane]) -> None:
    """Stream 1 goes first; its services are short and fixed, those of stream 0 long and exponential."""
    rate, first_share = 6.0, 0.5
    block = poisson_block("priorities", rate, REQUESTS)
    first = (block.tag % 10 < 10 * first_share).astype(np.int64)
    block = block.with_columns(stream=first, prompt_tokens=np.where(first, tokens_of(np.full(REQUESTS, 0.5)), block.prompt_tokens))
    ran = run(engine, servers_config(streams=(StreamRules(priority=0), StreamRules(priority=5))), block)
    rates = (rate * first_share, rate * (1 - first_share))
    waits_s = m_g_1_priority_waits(rates, (SERVICE_S / 2, SERVICE_S), (0.0, 1.0))
    is_first = ran.records["stream"] == 1
    controls = [
        ran.batches(np.diff(ran.arrival_s, prepend=0.0)) - 1 / rate,
        ran.batches(is_first.astype(float)) - first_share,
        ran.batches(np.where(is_first, 0.0, ran.service_s - SERVICE_S)),
    ]
    for wait_s, mine in zip(waits_s, (is_first, ~is_first), strict=True):
        agrees(batch_means(ran.steady(ran.wait_s)[ran.steady(mine)]), wait_s, controls, within=0.07)


@pytest.mark.parametrize(("load", "central"), [(0.7, False), (1.3, True)], ids=["replica queue", "overloaded service queue"])
def test_deadlines_give_m_m_1_with_abandonment(engine: type[DataPlane], load: float, central: bool) -> None:
    """Exact because the deadline binds until service starts, also in overload; expired requests take no service."""
    rate, deadline_s = load / SERVICE_S, 2 * SERVICE_S
    config = servers_config(central, streams=(StreamRules(queue_timeout_ns=int(deadline_s * NS_PER_S)),))
    ran = run(engine, config, poisson_block("deadlines", rate, 60_000))
    theory = m_m_1_deadline(rate, SERVICE_S, deadline_s)
    outcome = ran.records["outcome"]
    assert set(np.unique(outcome)) == {COMPLETED, ABANDONED}
    served = outcome == COMPLETED
    assert ran.wait_s[served].max() <= deadline_s < ran.wait_s[~served].min()
    controls = ran.request_controls(rate)
    agrees(ran.batches((~served).astype(float)), theory.refused, controls, within=0.05)
    agrees(ran.batches(np.where(served, ran.wait_s - theory.wait_s, 0.0)), 0.0, controls, scale=theory.wait_s, within=0.02)
    agrees(ran.utilisation, theory.utilisation, ran.time_controls(rate), within=0.02)
