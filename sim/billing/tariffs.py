"""How a lease is priced: the price in force at each time, and the rule that turns its life into billed time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Protocol

from sim.billing.rates import Rate, dated_rates, rate_at
from sim.billing.spot_prices import SpotPlace, price_path
from sim.domain.hardware import InstanceType
from sim.domain.spot import SpotPrice
from sim.errors import InputError, Problem
from sim.scenario import Pool
from sim.scenario.resolve import Resolved
from sim.units import NS_PER_HOUR, NS_PER_MINUTE, NS_PER_S, nano_usd

# Source: Amazon EC2 on-demand pricing page and the instance life-cycle page (Linux: billed by the second with a minimum of 60
# seconds each time an instance starts; nothing in `pending`, everything from `running`). Read 2026-11-23; published. Spot has the
# same granularity and minimum.
GRANULARITY_NS = NS_PER_S
MINIMUM_NS = 60 * NS_PER_S
# The end cause of a lease that its provider took back.
INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class SpotRule:
    """What a cloud charges for spot machines beside the price in force.

    Parameters
    ----------
    name : of the rule, for ledger rows. free_before_ns : a lease that the cloud interrupts before this age costs nothing.
    """

    name: str
    free_before_ns: int


# Source: Amazon EC2 user guide, "Billing for interrupted Spot Instances" (Linux: interrupted by EC2 in the first hour is free,
# after that the seconds used; stopped by the user, the seconds used always), read 2026-11-23, published. Google Compute Engine spot
# VM page: free if preempted in the first minute, read 2026-11-23, published. Azure: no such rule known, assumed.
SPOT_RULES: Mapping[str, SpotRule] = {
    "aws": SpotRule("ec2_spot", NS_PER_HOUR),
    "gcp": SpotRule("gcp_spot", NS_PER_MINUTE),
    "azure": SpotRule("azure_spot", 0),
}


def seconds_billed_ns(life_ns: int) -> int:
    """Return a life rounded up to the second, at least 60 seconds.

    Examples
    --------
    >>> [seconds_billed_ns(life_ns) // NS_PER_S for life_ns in (59_200_000_000, 61_500_000_000, 90_000_000_000)]
    [60, 62, 90]
    """
    return max(-(-life_ns // GRANULARITY_NS) * GRANULARITY_NS, MINIMUM_NS)


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

    @property
    def free_before_ns(self) -> int:
        """Age before which a lease that its provider interrupts costs nothing; 0 where there is no such age."""


@dataclass(frozen=True)
class OnDemandPerSecond:
    """The EC2 on-demand rule for Linux: by the second from RUNNING, at least 60 s per start.

    Parameters
    ----------
    rates : prices, oldest first, at least one. Before its date the oldest price holds, so that a run may start earlier than
        the price list.

    Notes
    -----
    Source: Amazon EC2 on-demand pricing page, read 2026-11-23, published. The life of a lease is rounded up to the second once,
    at its end.

    Examples
    --------
    >>> tariff = OnDemandPerSecond((Rate(0, 6_880_000_000, "6.88", "price list", "published"),))
    >>> [tariff.billed_ns(life_ns) // NS_PER_S for life_ns in (59_200_000_000, 61_500_000_000, 90_000_000_000)]
    [60, 62, 90]
    """

    rates: tuple[Rate, ...]

    def __post_init__(self) -> None:
        _check_order(self.rates)

    @property
    def name(self) -> str:
        """Name of the rule."""
        return "on_demand_per_second"

    @property
    def free_before_ns(self) -> int:
        """An interrupted on-demand lease is charged from its first second."""
        return 0

    def rate(self, t_ns: int) -> Rate:
        """Return the price in force at a time."""
        return rate_at(self.rates, t_ns)

    def changes_ns(self) -> list[int]:
        """Return the times after the scenario start at which the price changes, in order."""
        return [rate.from_ns for rate in self.rates[1:] if rate.from_ns > 0]

    def billed_ns(self, life_ns: int) -> int:
        """Return the life rounded up to the second, at least the minimum."""
        return seconds_billed_ns(life_ns)


@dataclass(frozen=True)
class SpotPerSecond:
    """The price in force in the zone at every second, at least 60 s; nothing for a lease that the cloud interrupts early.

    Parameters
    ----------
    rule : of the cloud. rates : prices of the zone, oldest first, at least one.

    Notes
    -----
    Sources: see `SPOT_RULES`. Only the end cause "interrupted" can make a lease free: one that the user ends, that crashes or that
    is still there at the end of the run is charged from its first second.

    Examples
    --------
    >>> tariff = SpotPerSecond(SPOT_RULES["aws"], (Rate(0, 2_000_000_000, "2", "price path", "fitted"),))
    >>> tariff.name, tariff.free_before_ns // NS_PER_S, tariff.billed_ns(59_000_000_000) // NS_PER_S
    ('ec2_spot', 3600, 60)
    """

    rule: SpotRule
    rates: tuple[Rate, ...]

    def __post_init__(self) -> None:
        _check_order(self.rates)

    @property
    def name(self) -> str:
        """Name of the rule."""
        return self.rule.name

    @property
    def free_before_ns(self) -> int:
        """Age before which an interruption is free."""
        return self.rule.free_before_ns

    def rate(self, t_ns: int) -> Rate:
        """Return the price in force at a time."""
        return rate_at(self.rates, t_ns)

    def changes_ns(self) -> list[int]:
        """Return the times after the scenario start at which the price changes, in order."""
        return [rate.from_ns for rate in self.rates[1:] if rate.from_ns > 0]

    def billed_ns(self, life_ns: int) -> int:
        """Return the life rounded up to the second, at least the minimum."""
        return seconds_billed_ns(life_ns)


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
        tariff = OnDemandPerSecond(own_rates or on_demand_rates(name, pool, instance, scenario.start_instant))
        return dict.fromkeys(pool.zones, tariff)
    if pool.purchase != "spot":
        raise InputError([Problem(f"pools.{name}.purchase", pool.purchase, "has no billing rule", "on_demand, spot")])
    if instance.cloud not in SPOT_RULES:
        allowed = ", ".join(sorted(SPOT_RULES))
        raise InputError([Problem(f"pools.{name}.purchase", pool.purchase, f"{instance.cloud} has no spot machines", allowed)])
    rule = SPOT_RULES[instance.cloud]
    if own_rates:
        return dict.fromkeys(pool.zones, SpotPerSecond(rule, own_rates))
    prices = _spot_price(name, pool, instance, resolved)
    listed = on_demand_rates(name, pool, instance, scenario.start_instant)
    return {
        zone: SpotPerSecond(
            rule,
            price_path(
                prices,
                SpotPlace(instance.name, pool.region, zone, scenario.seed, scenario.replication),
                scenario.horizon_ns,
                listed,
            ),
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
