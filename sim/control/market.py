"""The spot market at work: zones that run out of capacity, machines that are taken back after a notice, prices that rank zones."""

from __future__ import annotations

from collections.abc import Generator, Mapping

import simpy

from sim.billing.tariffs import Tariff
from sim.control.nodes import NOT_REACHED, Node
from sim.control.price_limits import PriceLimit
from sim.control.provisioner import Provisioner
from sim.control.zones import ZoneMarket
from sim.policies.placement import SPOT
from sim.units import NS_PER_S, nano_usd

Process = Generator[simpy.Event, None, None]


class SpotMarkets:
    """The markets of all spot pools of a run.

    Parameters
    ----------
    tariffs : pool -> zone -> tariff, whose prices rank the zones of a spot pool.
    """

    def __init__(self, env: simpy.Environment, provisioner: Provisioner, tariffs: Mapping[str, Mapping[str, Tariff]]) -> None:
        self.env, self.provisioner, self.tariffs = env, provisioner, tariffs
        self.machines = provisioner.machines
        resolved = provisioner.world.resolved
        scenario, catalog = resolved.scenario, resolved.catalog
        self.zones: dict[tuple[str, str], ZoneMarket] = {}
        self.notice_ns: dict[str, int] = {}
        for name, pool in resolved.pools.items():
            if pool.config.purchase != SPOT:
                continue
            market, own_s = catalog.spot_markets[pool.config.spot.market], pool.config.spot.notice_s
            notice_s = catalog.spot_notices[pool.instance.cloud].notice_s if own_s is None else own_s
            self.notice_ns[name] = round(notice_s * NS_PER_S)
            for zone in pool.config.zones:
                self.zones[name, zone] = ZoneMarket(
                    market, pool.config.region, zone, pool.instance.name, scenario.seed, scenario.replication
                )

    def start(self) -> None:
        """Let the markets begin: closed zones are closed from the start."""
        if not self.zones:
            return
        self.machines.on_running.append(self._on_running)
        self.machines.price_of = self._price
        for (pool, zone), market in self.zones.items():
            if not market.starts_up:
                self.machines.close(pool, zone, self)
            self.env.process(self._watch_zone(pool, zone, market))
            most_usd = self.provisioner.world.resolved.scenario.pools[pool].spot.max_price_usd_per_hour
            if most_usd is not None:
                tariff, notice_ns = self.tariffs[pool][zone], self.notice_ns[pool]
                PriceLimit(self.env, self.provisioner, (pool, zone), tariff, nano_usd(most_usd), notice_ns).start()

    def _price(self, pool: str, zone: str) -> int:
        return self.tariffs[pool][zone].rate(int(self.env.now)).nano_usd_per_hour if pool in self.notice_ns else 0

    def _watch_zone(self, pool: str, zone: str, market: ZoneMarket) -> Process:
        for at_ns, has_capacity in market.changes():
            yield self.env.timeout(at_ns - int(self.env.now))
            if has_capacity:
                if self.machines.reopen(pool, zone, self):
                    self.machines.event("capacity_back", f"pool {pool}", zone)
                continue
            self.machines.close(pool, zone, self)
            self.machines.event("capacity_gone", f"pool {pool}", zone)
            here = {
                node.number: node
                for node in self.machines.of(pool)
                if node.zone == zone and node.running_ns != NOT_REACHED and node.notice_ns == NOT_REACHED
            }
            for number in market.losses(at_ns, list(here)):
                self.env.process(self._take_back(here[number]))

    def _on_running(self, node: Node) -> None:
        """Some machines are interrupted for themselves alone, whatever happens to their zone."""
        market = self.zones.get((node.pool, node.zone))
        life_ns = None if market is None else market.life_ns(node.number)
        if life_ns is not None:
            self.env.process(self._end_life(node, life_ns))

    def _end_life(self, node: Node, life_ns: int) -> Process:
        yield self.env.timeout(max(life_ns - self.notice_ns[node.pool], 0))
        if node.is_alive and node.notice_ns == NOT_REACHED:
            yield from self._take_back(node)

    def _take_back(self, node: Node) -> Process:
        """Give notice, and take the machine when the notice is over."""
        self.provisioner.notice(node)
        yield self.env.timeout(self.notice_ns[node.pool])
        if node.is_alive:
            self.provisioner.lose(node, "interrupted")
