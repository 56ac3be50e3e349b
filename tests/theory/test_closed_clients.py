"""Clients who wait for their answer and think: the finite-population queue."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from sim.dataplane.engine import DataPlane
from sim.domain.traffic import RequestBlock
from sim.perf.queueing import finite_population
from sim.units import NS_PER_S
from tests.theory.queue_kit import SERVICE_S, agrees, exponential, generator_of, run, servers_config, tokens_of

THINK_S = 0.3


@dataclass(frozen=True)
class Thinkers:
    """Closed-loop clients with exponential thinking times; each sends `requests` in all."""

    clients: int
    requests: int

    def rows(self, client: int, block: int) -> RequestBlock:
        generator = generator_of(f"thinker {client}")
        count = self.requests if block == 0 else 0
        return RequestBlock.of(
            arrival_ns=np.rint(generator.exponential(THINK_S * NS_PER_S, count)),
            prompt_tokens=tokens_of(exponential(generator, count)),
            output_tokens=np.ones(count),
        )


@pytest.mark.parametrize("servers", [1, 2])
def test_clients_who_think_are_machines_to_repair(engine: type[DataPlane], servers: int) -> None:
    """Numbers, waits, and the arrival theorem: a client finds what the others alone would make (Sevcik and Mitrani 1981)."""
    clients, each = 6, 10_000
    theory = finite_population(clients, THINK_S, SERVICE_S, servers)
    cycle_s = THINK_S + theory.response_s
    ran = run(engine, servers_config(central=True), Thinkers(clients, each), replicas=servers, end_s=0.95 * each * cycle_s)
    controls = [ran.batches(ran.service_s) - SERVICE_S]
    agrees(ran.utilisation, theory.utilisation, within=0.02)
    agrees(ran.in_system, theory.in_system, within=0.04)
    agrees(ran.batches(ran.wait_s), theory.wait_s, controls, within=0.05)
    agrees(np.histogram(ran.arrival_s, ran.looks_s)[0] / np.diff(ran.looks_s), clients / cycle_s, within=0.02)
    agrees(ran.batches(ran.found), finite_population(clients - 1, THINK_S, SERVICE_S, servers).in_system, controls, within=0.04)
