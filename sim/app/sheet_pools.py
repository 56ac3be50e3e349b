"""The pools of the capacity sheet: what their machines cost, how spot loses them, and how many replicas placement puts there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sim.billing.rates import rate_at
from sim.billing.tariffs import on_demand_rates, owned_rate
from sim.domain.spot import SpotMarket
from sim.errors import InputError, Problem
from sim.policies.placement import SPOT, Placement, PoolView
from sim.scenario import Pool
from sim.scenario.owned import CAPACITY_BLOCK, OWNED
from sim.scenario.resolve import Resolved, ResolvedPool
from sim.units import NANO_PER_USD

# Placements that look at what is ready settle after a few rounds, or never.
_ROUNDS = 8


@dataclass(frozen=True)
class PoolReport:
    """Machines of one type and purchase option.

    Parameters
    ----------
    accelerators : of one machine, of type `accelerator`. usd_per_hour : of one machine. basis : what that price is.
    losses : how spot loses its machines, in words; "" on demand.
    """

    name: str
    instance: str
    accelerator: str
    accelerators: int
    purchase: str
    zones: int
    quota_nodes: int | None
    warm_nodes: int
    usd_per_hour: float
    basis: str
    losses: str


def pool_report(name: str, resolved: Resolved) -> PoolReport:
    """Describe a pool; spot is priced at the median of its ratio to the on-demand price at the start.

    Raises
    ------
    InputError : the catalog has no price for the region.
    """
    row = resolved.pools[name]
    pool = row.config
    usd_per_hour, basis = _price(row, resolved)
    losses = _losses(resolved.catalog.spot_markets[pool.spot.market]) if pool.purchase == SPOT else ""
    return PoolReport(
        name,
        row.instance.name,
        row.accelerator.name,
        row.instance.accelerators,
        pool.purchase,
        len(pool.zones),
        pool.quota_nodes,
        pool.warm_nodes,
        usd_per_hour,
        basis,
        losses,
    )


def _price(row: ResolvedPool, resolved: Resolved) -> tuple[float, str]:
    pool = row.config
    if pool.purchase == OWNED:
        return owned_rate(row).nano_usd_per_hour / NANO_PER_USD, "own machines, used or not"
    if pool.purchase == CAPACITY_BLOCK:
        return float(pool.block.usd_per_hour), "capacity block, paid in advance"
    if pool.price_usd_per_hour is not None:
        return float(pool.price_usd_per_hour), "own price"
    rates = on_demand_rates(row.name, pool, row.instance, resolved.scenario.start_instant)
    listed = rate_at(rates, 0)
    usd_per_hour = listed.nano_usd_per_hour / NANO_PER_USD
    if pool.purchase != SPOT:
        return usd_per_hour, f"on demand, {listed.confidence}"
    wanted, known = pool.spot.price or row.instance.name, resolved.catalog.spot_prices
    if wanted not in known:
        message = "the catalog has no such spot price; name another row or set price_usd_per_hour"
        raise InputError([Problem(f"pools.{row.name}.spot.price", wanted, message, ", ".join(known))])
    prices = known[wanted]
    return usd_per_hour * prices.ratio_median, f"spot at its median, {prices.ratio_median:g} of on demand"


def _losses(market: SpotMarket) -> str:
    """Say how machines are lost, and what that was measured on.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> _losses(load_catalog().spot_markets["advisor-5-10"])
    'advisor-5-10: 7.5 % of machines lost a month (all types in the band, 2025)'
    """
    where = f"({market.gpu}, {market.years})"
    if market.has_outages:
        return f"{market.name}: capacity {market.availability:.0%} of the time {where}".replace("%", " %")
    return f"{market.name}: {100 * market.monthly_interruption:g} % of machines lost a month {where}"


def replicas_by_pool(placement: Placement, wanted: int, pools: Mapping[str, tuple[Pool, float]]) -> dict[str, int]:
    """Return how many replicas a placement has in each pool when everything it asked for is ready.

    Parameters
    ----------
    pools : name -> the pool, and the machines one replica takes there.

    Examples
    --------
    >>> from sim.policies.placement import SpotWithOnDemandFallback
    >>> pools = {"base": (Pool(), 1.0), "spot": (Pool(purchase="spot", quota_nodes=2), 1.0)}
    >>> replicas_by_pool(SpotWithOnDemandFallback(), 4, pools)
    {'base': 2, 'spot': 2}
    """
    most = {name: None if pool.quota_nodes is None else int(pool.quota_nodes / nodes) for name, (pool, nodes) in pools.items()}
    ready = dict.fromkeys(pools, 0)
    for _ in range(_ROUNDS):
        room = {name: None if quota is None else quota - ready[name] for name, quota in most.items()}
        views = [PoolView(name, pool.purchase, ready[name], 0, room[name]) for name, (pool, _) in pools.items()]
        asked = dict(zip(pools, placement.split(wanted, views), strict=True))
        there = {name: _at_most(count, most[name]) for name, count in asked.items()}
        if there == ready:
            break
        ready = there
    return ready


def _at_most(count: int, most: int | None) -> int:
    return count if most is None else min(count, most)
