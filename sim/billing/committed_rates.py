"""What commitments cost: the rates that were agreed, and what of them is paid up front."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal

from sim.billing.coverage import Place
from sim.billing.rates import Rate, dated_rates, rate_at, since_ns
from sim.catalog.loader import Catalog
from sim.domain.pricing import ALL_UPFRONT, NO_UPFRONT, TERM_HOURS
from sim.scenario.commitments import InstanceSavingsPlan, Reserved, SavingsPlan, discount_row
from sim.scenario.resolve import Resolved, ResolvedPool
from sim.units import NANO_PER_USD, nano_usd

_NANO = Decimal("1e-9")
# From the surest to the least sure.
_CONFIDENCES = ("published", "fitted", "assumed")


@dataclass(frozen=True)
class Contract:
    """What one reserved machine costs.

    Parameters
    ----------
    rate : by the hour. upfront_nano : on the first day, for the whole term.
    """

    rate: Rate
    upfront_nano: int = 0


@dataclass
class Prices:
    """On-demand prices, and the committed rates that are made of them."""

    resolved: Resolved
    start: datetime

    @property
    def catalog(self) -> Catalog:
        """The catalog of the run."""
        return self.resolved.catalog

    def listed(self, place: Place) -> tuple[Rate, ...] | None:
        """Return the on-demand prices of machines, oldest first: a pool's own price, else the catalog's; None without one.

        A commitment belongs to no pool: its price is that of the on-demand pools of its type and region, where they have the same.
        """
        prices_of_pools = {row.config.price_usd_per_hour for row in self.resolved.pools.values() if _is_of(row, place)}
        own = prices_of_pools.pop() if len(prices_of_pools) == 1 else None
        if own is not None:
            return (_own_rate(own),)
        prices = self.catalog.instances[place.instance].on_demand.get(place.region)
        return None if prices is None else dated_rates(prices, self.start)

    def contract(self, row: Reserved, place: Place) -> Contract:
        """Return what a reserved machine costs: prices of one's own, else the on-demand price less the discount.

        A partial payment that follows from a discount is half of everything; the hourly rate is rounded down to the nano-dollar,
        and what is paid up front is the rest.
        """
        own_upfront = 0 if row.upfront_usd is None else nano_usd(row.upfront_usd)
        if row.usd_per_hour is not None:
            return Contract(_own_rate(row.usd_per_hour), own_upfront)
        if own_upfront:
            return Contract(replace(_own_rate("0"), source="scenario, all paid up front"), own_upfront)
        effective = self.discounted(row, place)
        assert effective is not None  # the scenario was checked
        if row.payment == NO_UPFRONT:
            return Contract(effective)
        hourly_nano = 0 if row.payment == ALL_UPFRONT else effective.nano_usd_per_hour // 2
        text = f"{(Decimal(hourly_nano) / NANO_PER_USD).normalize():f}"
        source = f"{effective.source}; {effective.usd_per_hour} per hour with what was paid up front"
        rate = Rate(0, hourly_nano, text, source, effective.confidence)
        return Contract(rate, (effective.nano_usd_per_hour - hourly_nano) * TERM_HOURS[row.term])

    def discounted(self, row: Reserved | SavingsPlan, place: Place) -> Rate | None:
        """Return the on-demand price when a commitment begins, or at the start of the run, less its discount; None without one."""
        listed = self.listed(place)
        if listed is None:
            return None
        begins, _ = row.span()
        base = rate_at(listed, max(0, 0 if begins is None else since_ns(self.start, begins)))
        if row.discount is not None:
            share, source, confidence = row.discount, "of the scenario", "assumed"
        else:
            found = discount_row(self.catalog, row.offer, place.cloud, place.family, row.term, row.payment)
            if found is None:
                return None
            share, source, confidence = (
                found.share,
                f"{found.provenance.source}, {found.provenance.date}",
                found.provenance.confidence,
            )
        usd = (Decimal(base.usd_per_hour) * (1 - Decimal(str(share)))).quantize(_NANO, ROUND_HALF_EVEN)
        worst = max(base.confidence, confidence, key=_CONFIDENCES.index)
        return Rate(0, nano_usd(usd), f"{usd.normalize():f}", f"{base.source}; less {share:.2%}: {source}", worst)


def _is_of(row: ResolvedPool, place: Place) -> bool:
    """Whether a pool is that of a place; of a place without a pool, whether it buys such Linux machines there on demand."""
    if place.pool:
        return row.name == place.pool
    bought = row.instance.name, row.config.region, row.config.purchase, row.config.operating_system
    return bought == (place.instance, place.region, "on_demand", place.operating_system)


class PlanRates:
    """The rates of a plan by place, all payments together."""

    def __init__(self, row: SavingsPlan, prices: Prices) -> None:
        self.row, self.prices = row, prices
        self._known: dict[Place, Rate | None] = {}

    def __call__(self, place: Place) -> Rate | None:
        if place not in self._known:
            self._known[place] = self._rate(place)
        return self._known[place]

    def _rate(self, place: Place) -> Rate | None:
        row = self.row
        if place.cloud != row.cloud:
            return None
        if isinstance(row, InstanceSavingsPlan) and (place.family, place.region) != (row.family, row.region):
            return None
        own = row.rates_usd_per_hour.get(place.instance)
        if own is not None:
            return _own_rate(own)
        if row.rates_usd_per_hour and row.discount is None:
            return None
        return self.prices.discounted(row, place)


def _own_rate(usd_per_hour: str) -> Rate:
    return Rate(0, nano_usd(usd_per_hour), usd_per_hour, "scenario", "assumed")
