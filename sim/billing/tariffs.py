"""How a lease is priced: dated prices and the rule that turns its life into billed time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from sim.domain.hardware import InstanceType, Price
from sim.errors import InputError, Problem
from sim.scenario import Pool
from sim.units import NS_PER_S, nano_usd

# Source: Amazon EC2 on-demand pricing page and the instance life-cycle page (Linux: billed by the second with a minimum of 60
# seconds each time an instance starts; nothing in `pending`, everything from `running`). Read 2026-11-23; published.
EC2_GRANULARITY_NS = NS_PER_S
EC2_MINIMUM_NS = 60 * NS_PER_S


@dataclass(frozen=True)
class Rate:
    """A price per hour in force from a time of the run on.

    Parameters
    ----------
    from_ns : since the scenario start; negative when it was in force before.
    nano_usd_per_hour : the price in nano-dollars. usd_per_hour : as it was written.
    source, confidence : where it comes from.
    """

    from_ns: int
    nano_usd_per_hour: int
    usd_per_hour: str
    source: str
    confidence: str


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
        """Return the time billed for a lease that lived this long."""


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
        if not self.rates:
            raise ValueError("a tariff needs at least one price")
        if any(later.from_ns <= earlier.from_ns for earlier, later in zip(self.rates, self.rates[1:], strict=False)):
            raise ValueError(f"prices must be in order of their dates: {[rate.from_ns for rate in self.rates]}")

    @property
    def name(self) -> str:
        """Name of the rule."""
        return "on_demand_per_second"

    def rate(self, t_ns: int) -> Rate:
        """Return the price in force at a time."""
        return self.rates[max(bisect_right(self.rates, t_ns, key=lambda rate: rate.from_ns) - 1, 0)]

    def changes_ns(self) -> list[int]:
        """Return the times after the scenario start at which the price changes, in order."""
        return [rate.from_ns for rate in self.rates[1:] if rate.from_ns > 0]

    def billed_ns(self, life_ns: int) -> int:
        """Return the life rounded up to the second, at least the minimum."""
        return max(-(-life_ns // EC2_GRANULARITY_NS) * EC2_GRANULARITY_NS, EC2_MINIMUM_NS)


_RULES = {"on_demand": OnDemandPerSecond}


def dated_rates(prices: Iterable[Price], start: datetime) -> tuple[Rate, ...]:
    """Return a dated price list as rates of a run.

    Parameters
    ----------
    prices : oldest first; a price holds from 00:00 UTC of its date.
    start : scenario start.

    Examples
    --------
    >>> from sim.domain.hardware import Provenance
    >>> price = Price("6.88", "2026-01-06", Provenance("price list", "2026-07-20", "published"))
    >>> dated_rates([price], datetime(2026, 1, 5, tzinfo=UTC))[0].from_ns == 86_400 * NS_PER_S
    True
    """
    return tuple(
        Rate(
            from_ns=(datetime.fromisoformat(price.valid_from).replace(tzinfo=UTC) - start) // timedelta(microseconds=1) * 1_000,
            nano_usd_per_hour=nano_usd(price.usd_per_hour),
            usd_per_hour=price.usd_per_hour,
            source=f"{price.provenance.source}, {price.provenance.date}",
            confidence=price.provenance.confidence,
        )
        for price in prices
    )


def pool_tariff(name: str, pool: Pool, instance: InstanceType, start: datetime) -> Tariff:
    """Return the tariff of a pool: its own price if it has one, else the catalog's for its region.

    Parameters
    ----------
    name : the pool's name, for errors. start : scenario start.

    Raises
    ------
    InputError : no price for the region, or no rule for the purchase option.
    """
    if pool.purchase not in _RULES:
        raise InputError([Problem(f"pools.{name}.purchase", pool.purchase, "has no billing rule", ", ".join(sorted(_RULES)))])
    if pool.price_usd_per_hour is not None:
        own = Rate(0, nano_usd(pool.price_usd_per_hour), pool.price_usd_per_hour, "scenario", "assumed")
        return _RULES[pool.purchase]((own,))
    if not instance.on_demand.get(pool.region):
        regions = ", ".join(sorted(instance.on_demand)) or "none"
        message = f"the catalog has no on-demand price of {instance.name} in this region; set price_usd_per_hour or choose another"
        raise InputError([Problem(f"pools.{name}.region", pool.region, message, regions)])
    return _RULES[pool.purchase](dated_rates(instance.on_demand[pool.region], start))
