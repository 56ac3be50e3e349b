"""Capacity blocks: machines that can be had from a block's begin on, and are taken back before its end."""

from __future__ import annotations

from collections.abc import Generator

import simpy

from sim.billing.commitments import block_span_ns
from sim.control.provisioner import Provisioner
from sim.scenario.owned import CAPACITY_BLOCK
from sim.units import NS_PER_MINUTE

Process = Generator[simpy.Event, None, None]
# Amazon EC2 user guide, Capacity Blocks: machines are terminated from 30 minutes before the end on. Read 2026-11-23.
TAKEN_BACK_NS = 30 * NS_PER_MINUTE


class CapacityBlocks:
    """The capacity blocks of all pools that have one: a pool is closed but for the time of its block."""

    def __init__(self, env: simpy.Environment, provisioner: Provisioner) -> None:
        self.env, self.provisioner = env, provisioner
        self.machines = provisioner.machines

    def start(self) -> None:
        """Let the blocks begin and end in their time."""
        scenario = self.provisioner.world.resolved.scenario
        for name, pool in scenario.pools.items():
            if pool.purchase == CAPACITY_BLOCK:
                begins_ns, ends_ns = block_span_ns(pool.block, scenario.start_instant)
                if begins_ns > 0:
                    self._close(name)
                self.env.process(self._run(name, begins_ns, ends_ns))

    def _close(self, pool: str) -> None:
        for zone in self.provisioner.world.resolved.scenario.pools[pool].zones:
            self.machines.close(pool, zone, self)

    def _run(self, pool: str, begins_ns: int, ends_ns: int) -> Process:
        if begins_ns > 0:
            yield self.env.timeout(begins_ns)
            for zone in self.provisioner.world.resolved.scenario.pools[pool].zones:
                self.machines.reopen(pool, zone, self)
            self.machines.event("block_begun", f"pool {pool}", "")
            self.machines.on_capacity()
        yield self.env.timeout(ends_ns - TAKEN_BACK_NS - begins_ns)
        self._close(pool)
        self.machines.event("block_over", f"pool {pool}", "machines are taken back")
        for node in list(self.machines.of(pool)):
            if node.is_alive:
                self.provisioner.lose(node, "interrupted")
