"""Dated failures: the scenario's crashes, as SimPy processes."""

from __future__ import annotations

from collections.abc import Generator

import simpy

from sim.control.nodes import NOT_REACHED
from sim.control.provisioner import Provisioner
from sim.scenario.model import Failure
from sim.units import duration_ns


def crashes(env: simpy.Environment, failure: Failure, provisioner: Provisioner) -> Generator[simpy.Event, None, None]:
    """Crash `failure.nodes` running nodes of its pool at its time, the oldest first; fewer if there are fewer."""
    yield env.timeout(duration_ns(failure.at))
    running = [node for node in provisioner.nodes.values() if node.pool == failure.pool and node.running_ns != NOT_REACHED]
    running.sort(key=lambda node: (node.running_ns, node.number))
    for node in running[: failure.nodes]:
        provisioner.crash(node)
    if len(running) < failure.nodes:
        provisioner.event("crash_without_node", failure.pool, f"{failure.nodes} to crash, {len(running)} running")
