"""How a lease is priced: the price in force at each time, and the rule that turns its life into billed time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Protocol

from sim.billing.machine_rules import EC2_ON_DEMAND, OTHER_ON_DEMAND, PREPAID, SPOT_RULES, MachineRule, offer_of, on_demand_rule
from sim.billing.machine_rules import OWNED as OWNED_RULE
from sim.billing.rates import Rate, dated_rates, rate_at
from sim.billing.spot_prices import SpotPlace, price_path
from sim.domain.hardware import InstanceType
from sim.domain.spot import SpotPrice
from sim.errors import InputError, Problem
from sim.scenario import Pool
from sim.scenario.model import PURCHASE_OPTIONS
from sim.scenario.owned import CAPACITY_BLOCK, OWNED
from sim.scenario.resolve import Resolved, ResolvedPool
from sim.units import nano_usd

# The end cause of a lease that its provider took back.
INTERRUPTED = "interrupted"
# Of machines whose price was paid in advance.
PREPAID_RATE = Rate(0, 0, "0", "paid in advance", "assumed")


def _check_order(rates: tuple[Rate, ...]) -> None:
    if not rates:
        raise ValueError("a tariff needs at least one price")
    if any(later.from_ns <= earlier.from_ns for earlier, later in pairwise(rates)):
        raise ValueError(f"prices must be in order of their dates: {[rate.from_ns for rate in rates]}")


class Tariff(Protocol):
    """What a lease costs: a price at every time, and the time that is billed."""

    @property
    def name(self) -> str:
        """Name of the rule, written on every ledger row it makes."""

    def rate(self, t_ns: int) -> Rate:
        """Return the price in force at a time."""

    def changes_ns(self) -> list[int]:
        """Return the times after the scenario start at which the price changes, in order."""

    def billed_ns(self, life_ns: int) -> int:
        """Return the time billed for a lease that lived this long, where it is charged."""

    def certain_ns(self, age_ns: int) -> int:
        """Return how much of a lease is charged where its provider interrupts it at this age; what follows costs nothing."""


@dataclass(frozen=True)
class MachineTariff:
    """A price at every time and the rule of a cloud: on demand, spot, one's own machines.

    Parameters
    ----------
    rates : prices, oldest first, at least one. Before its date the oldest price holds, so that a run may start earlier than
        the price list. rule : what is billed of a life.

    Notes
    -----
    Sources: see the rules. Only the end cause "interrupted" can make a lease free: one that the user ends, that crashes or that is
    still there at the end of the run is charged from its first second.

    Examples
    --------
    >>> tariff = MachineTariff((Rate(0, 2_000_000_000, "2", "price path", "fitted"),), SPOT_RULES["aws"])
    >>> tariff.name, tariff.certain_ns(3_599_000_000_000), tariff.billed_ns(59_000_000_000) // 10**9
    ('ec2_spot', 0, 60)
    """

    rates: tuple[Rate, ...]
    rule: MachineRule = EC2_ON_DEMAND

    def __post_init__(self) -> None:
        _check_order(self.rates)

    @property
    def name(self) -> str:
        """Name of the rule."""
        return self.rule.name

    def certain_ns(self, age_ns: int) -> int:
        """Return how much of a lease is charged where its provider interrupts it at this age."""
        return self.rule.certain_ns(age_ns)

    def rate(self, t_ns: int) -> Rate:
        """Return the price in force at a time."""
        return rate_at(self.rates, t_ns)

    def changes_ns(self) -> list[int]:
        """Return the times after the scenario start at which the price changes, in order."""
        return [rate.from_ns for rate in self.rates[1:] if rate.from_ns > 0]

    def billed_ns(self, life_ns: int) -> int:
        """Return the life rounded up as the rule says, at least its minimum."""
        return self.rule.billed_ns(life_ns)


def on_demand_rates(name: str, pool: Pool, instance: InstanceType, start: datetime) -> tuple[Rate, ...]:
    """Return the catalog's on-demand prices of a pool's machines in its region.

    Parameters
    ----------
    name : the pool's name, for errors. start : scenario start.

    Raises
    ------
    InputError : no price for the region.
    """
    if not instance.on_demand.get(pool.region):
        regions = ", ".join(sorted(instance.on_demand)) or "none"
        message = f"the catalog has no on-demand price of {instance.name} in this region; set price_usd_per_hour or choose another"
        raise InputError([Problem(f"pools.{name}.region", pool.region, message, regions)])
    return dated_rates(instance.on_demand[pool.region], start)


def paid_from_boot(row: ResolvedPool) -> bool:
    """Whether machines of a pool are paid from the end of booting (Cloud TPU: while READY) and not from RUNNING."""
    if row.config.purchase in (OWNED, CAPACITY_BLOCK):
        return False
    offer = offer_of(row.instance, row.config.operating_system)
    rule = SPOT_RULES.get(offer, OTHER_ON_DEMAND) if row.is_spot else on_demand_rule(offer)
    return rule.from_boot


def pays_electricity(pool: Pool) -> bool:
    """Whether electricity of a pool is always a line of the bill: of one's own machines, unless colocation contains it."""
    return pool.purchase == OWNED and not pool.owned.in_colocation


def owned_rate(row: ResolvedPool) -> Rate:
    """Return what one machine of a pool of one's own costs an hour, used or not."""
    usd = row.config.owned.usd_per_hour()
    return Rate(
        0, nano_usd(usd), f"{usd.normalize():f}", "scenario: capex, maintenance, colocation and staff by the hour", "assumed"
    )


def pool_tariffs(name: str, resolved: Resolved) -> dict[str, Tariff]:
    """Return the tariff of a pool in each of its zones.

    On demand every zone has the same one. Spot zones have a price path each, or the pool's own price, which never changes.

    Raises
    ------
    InputError : no price for the region or the instance type, or no rule for the purchase option.
    """
    scenario, row = resolved.scenario, resolved.pools[name]
    pool, instance = row.config, row.instance
    own = pool.price_usd_per_hour
    own_rates = () if own is None else (Rate(0, nano_usd(own), own, "scenario", "assumed"),)
    if pool.purchase == "on_demand":
        listed = own_rates or on_demand_rates(name, pool, instance, scenario.start_instant)
        tariff = MachineTariff(listed, on_demand_rule(offer_of(instance, pool.operating_system)))
        return dict.fromkeys(pool.zones, tariff)
    if pool.purchase == OWNED:
        return dict.fromkeys(pool.zones, MachineTariff((owned_rate(row),), OWNED_RULE))
    if pool.purchase == CAPACITY_BLOCK:
        return dict.fromkeys(pool.zones, MachineTariff((PREPAID_RATE,), PREPAID))
    if pool.purchase != "spot":
        raise InputError([Problem(f"pools.{name}.purchase", pool.purchase, "has no billing rule", ", ".join(PURCHASE_OPTIONS))])
    offer = offer_of(instance, pool.operating_system)
    if offer not in SPOT_RULES:
        allowed = ", ".join(sorted(SPOT_RULES))
        raise InputError([Problem(f"pools.{name}.purchase", pool.purchase, f"{instance.cloud} has no spot machines", allowed)])
    rule = SPOT_RULES[offer]
    if own_rates:
        return dict.fromkeys(pool.zones, MachineTariff(own_rates, rule))
    prices = _spot_price(name, pool, instance, resolved)
    listed = on_demand_rates(name, pool, instance, scenario.start_instant)
    return {
        zone: MachineTariff(
            price_path(
                prices,
                SpotPlace(instance.name, pool.region, zone, scenario.seed, scenario.replication),
                scenario.horizon_ns,
                listed,
            ),
            rule,
        )
        for zone in pool.zones
    }


def _spot_price(name: str, pool: Pool, instance: InstanceType, resolved: Resolved) -> SpotPrice:
    rows = resolved.catalog.spot_prices
    wanted = pool.spot.price or instance.name
    if wanted not in rows:
        message = "the catalog has no such spot price; name another row or set price_usd_per_hour"
        raise InputError([Problem(f"pools.{name}.spot.price", wanted, message, ", ".join(rows))])
    return rows[wanted]
