"""Dated failures: the scenario's crashes and times without capacity, as SimPy processes."""

from __future__ import annotations

from collections.abc import Generator

import simpy

from sim.control.nodes import NOT_REACHED
from sim.control.provisioner import Provisioner
from sim.scenario.model import Failure
from sim.units import duration_ns


def fail(env: simpy.Environment, failure: Failure, provisioner: Provisioner) -> Generator[simpy.Event, None, None]:
    """Let a failure happen at its time, if that is before the end of the run."""
    yield env.timeout(duration_ns(failure.at))
    if failure.kind == "crash":
        _crash(failure, provisioner)
        return
    machines = provisioner.machines
    zones = [failure.zone] if failure.zone else provisioner.scenario.pools[failure.pool].zones
    cause = object()
    for zone in zones:
        machines.close(failure.pool, zone, cause)
    machines.event("capacity_gone", f"pool {failure.pool}", ", ".join(zones))
    yield env.timeout(duration_ns(failure.lasts))
    back = [zone for zone in zones if machines.reopen(failure.pool, zone, cause)]
    if back:
        machines.event("capacity_back", f"pool {failure.pool}", ", ".join(back))


def _crash(failure: Failure, provisioner: Provisioner) -> None:
    """Crash `failure.nodes` running nodes, the oldest first; fewer if there are fewer."""
    running = [
        node for node in provisioner.machines.of(failure.pool) if node.running_ns != NOT_REACHED and failure.zone in ("", node.zone)
    ]
    running.sort(key=lambda node: (node.running_ns, node.number))
    for node in running[: failure.nodes]:
        provisioner.lose(node, "crashed")
    if len(running) < failure.nodes:
        provisioner.machines.event("crash_without_node", failure.pool, f"{failure.nodes} to crash, {len(running)} running")
