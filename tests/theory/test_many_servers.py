"""Several replicas of one seat: a shared queue is M/M/c, early binding is as good as its router."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.linalg import spsolve

from sim.dataplane.engine import DataPlane
from sim.dataplane.layout import COMPLETED, REJECTED_FULL
from sim.perf.queueing import erlang_b, erlang_c, erlang_m_1, m_m_c, m_m_c_k, m_m_c_wait_tail
from sim.policies.routers import LeastOutstanding, PowerOfTwo, Random, RoundRobin, Router
from tests.theory.queue_kit import (
    CONFIDENCE,
    SERVICE_S,
    Draw,
    Run,
    agrees,
    deterministic,
    hyperexponential,
    poisson_block,
    run,
    servers_config,
)

SERVERS, LOAD = 3, 0.6


@cache
def central(engine: type[DataPlane]) -> Run:
    rate = LOAD * SERVERS / SERVICE_S
    return run(engine, servers_config(central=True), poisson_block("central queue", rate, 120_000), replicas=SERVERS)


def test_a_shared_queue_is_m_m_c(engine: type[DataPlane]) -> None:
    rate = LOAD * SERVERS / SERVICE_S
    ran, theory = central(engine), m_m_c(rate, SERVICE_S, SERVERS)
    agrees(ran.utilisation, theory.utilisation, ran.time_controls(rate), within=0.002)
    agrees(ran.batches(ran.wait_s), theory.wait_s, ran.request_controls(rate), within=0.1)
    agrees(ran.in_system, theory.in_system, ran.time_controls(rate), within=0.02)


def test_waits_of_m_m_c_are_those_of_erlang_c(engine: type[DataPlane]) -> None:
    """The probability of waiting and the tail of the wait at fixed times, Bonferroni over them."""
    rate = LOAD * SERVERS / SERVICE_S
    ran = central(engine)
    times_s = (0.0, 0.02, 0.05, 0.1, 0.2)
    assert m_m_c_wait_tail(0.0, rate, SERVICE_S, SERVERS) == erlang_c(SERVERS, rate * SERVICE_S)
    for t_s in times_s:
        above = ran.batches((ran.wait_s > t_s).astype(float))
        tail = m_m_c_wait_tail(t_s, rate, SERVICE_S, SERVERS)
        agrees(above, tail, ran.request_controls(rate), confidence=1 - (1 - CONFIDENCE) / len(times_s), within=0.015, scale=1.0)


@pytest.mark.parametrize(("servers", "places", "load"), [(1, 5, 0.9), (3, 7, 1.2)])
def test_a_bounded_queue_is_m_m_c_k(engine: type[DataPlane], servers: int, places: int, load: float) -> None:
    rate = load * servers / SERVICE_S
    block = poisson_block("bounded queue", rate, 60_000)
    ran = run(engine, servers_config(central=True, max_queue=(places - servers,)), block, replicas=servers)
    theory = m_m_c_k(rate, SERVICE_S, servers, places)
    refused = ran.records["outcome"] == REJECTED_FULL
    assert (refused == (ran.found == places)).all()
    agrees(ran.batches(refused.astype(float)), theory.refused, ran.request_controls(rate), within=0.05)
    waited_s = np.where(refused, 0.0, ran.wait_s - theory.wait_s)
    agrees(ran.batches(waited_s), 0.0, ran.request_controls(rate), scale=theory.wait_s, within=0.03)
    agrees(ran.in_system, theory.in_system, ran.time_controls(rate), within=0.02)
    agrees(ran.utilisation, theory.utilisation, ran.time_controls(rate), within=0.01)


@pytest.mark.parametrize("service", [deterministic, hyperexponential])
def test_loss_without_a_queue_is_erlang_b_for_any_service(engine: type[DataPlane], service: Draw) -> None:
    """M/G/c/c is insensitive to the service distribution (Sevastyanov 1957)."""
    rate, servers = 0.7 * 5 / SERVICE_S, 5
    ran = run(engine, servers_config(central=True, max_queue=(0,)), poisson_block("loss", rate, 60_000, service), replicas=servers)
    refused = ran.records["outcome"] != COMPLETED
    controls = ran.request_controls(rate, scv=0.0 if service is deterministic else 2.0)
    agrees(ran.batches(refused.astype(float)), erlang_b(servers, rate * SERVICE_S), controls, within=0.05)
    assert (ran.wait_s[~refused] == 0).all()


def shortest_of_two_in_system(load: float, longest: int = 60) -> float:
    """Return the mean number in two M/M/1 queues of which an arrival joins the shorter, from the truncated chain.

    Exact but for the weight beyond `longest`, below load^(2 longest) (Haight 1958 poses it, Flatto and McKean 1977 solve it).
    """
    rows, columns, rates = [], [], []

    def move(a: int, b: int, to_a: int, to_b: int, rate: float) -> None:
        rows.append(to_a * longest + to_b)
        columns.append(a * longest + b)
        rates.append(rate)
        rows.append(a * longest + b)
        columns.append(a * longest + b)
        rates.append(-rate)

    for a in range(longest):
        for b in range(longest):
            if min(a, b) + 1 < longest:
                to = (a + 1, b) if a <= b else (a, b + 1)
                move(a, b, *to, 2 * load)
            if a:
                move(a, b, a - 1, b, 1.0)
            if b:
                move(a, b, a, b - 1, 1.0)
    states = longest * longest
    balance = coo_array((rates, (rows, columns)), shape=(states, states)).tolil()
    balance[0, :] = 1.0
    share = spsolve(balance.tocsc(), np.eye(1, states).ravel())
    number = np.add.outer(np.arange(longest), np.arange(longest)).ravel()
    return float(share @ number)


@pytest.mark.parametrize("router", [LeastOutstanding(), PowerOfTwo()], ids=lambda router: type(router).__name__)
def test_early_binding_to_the_shorter_of_two(engine: type[DataPlane], router: Router) -> None:
    """With two replicas power of two choices is join the shortest queue; both lie between a shared queue and random routing."""
    load, rate = 0.6, 2 * 0.6 / SERVICE_S
    ran = run(engine, servers_config(router=router), poisson_block("shorter of two", rate, 80_000), replicas=2)
    expected = shortest_of_two_in_system(load)
    assert m_m_c(rate, SERVICE_S, 2).in_system < expected < 2 * erlang_m_1(rate / 2, SERVICE_S, 2).in_system
    agrees(ran.in_system, expected, ran.time_controls(rate), within=0.035)
    agrees(ran.utilisation, load, ran.time_controls(rate), within=0.002)


def test_random_routing_makes_independent_m_m_1(engine: type[DataPlane]) -> None:
    load, replicas = 0.5, 3
    rate = load * replicas / SERVICE_S
    ran = run(engine, servers_config(router=Random()), poisson_block("random", rate, 120_000), replicas=replicas)
    theory = m_m_c(rate / replicas, SERVICE_S)
    agrees(ran.batches(ran.wait_s), theory.wait_s, ran.request_controls(rate), within=0.05)
    agrees(ran.in_system, replicas * theory.in_system, ran.time_controls(rate), within=0.04)
    for replica in range(replicas):
        agrees(ran.batches((ran.records["replica"] == replica).astype(float)), 1 / replicas, within=0.02)


def test_round_robin_makes_erlang_arrivals(engine: type[DataPlane]) -> None:
    load, replicas = 0.6, 3
    rate = load * replicas / SERVICE_S
    ran = run(engine, servers_config(router=RoundRobin()), poisson_block("round robin", rate, 120_000), replicas=replicas)
    theory = erlang_m_1(rate / replicas, SERVICE_S, phases=replicas)
    assert (ran.records["replica"] == np.arange(120_000) % replicas).all()
    agrees(ran.batches(ran.wait_s), theory.wait_s, ran.request_controls(rate), within=0.05)
    agrees(ran.in_system, replicas * theory.in_system, ran.time_controls(rate), within=0.04)
