"""The commitments of a scenario's account, and how an hour of its use is settled with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal

from sim.billing.coverage import (
    MACHINE_UNIT,
    PURCHASE,
    Coverage,
    Machines,
    Place,
    Plan,
    Reservation,
    Span,
    Unused,
    Use,
    cost_nano,
    unused_of,
)
from sim.billing.machine_rules import OWNED as OWNED_RULE
from sim.billing.machine_rules import PREPAID
from sim.billing.rates import Rate, dated_rates, rate_at
from sim.billing.sustained import SustainedUseDiscounts
from sim.billing.tariffs import PREPAID_RATE, owned_rate
from sim.catalog.loader import Catalog
from sim.domain.pricing import COMMITTED_USE, COMPUTE_PLAN, INSTANCE_PLAN, RESERVED, family_of
from sim.registry import choice_name
from sim.scenario.commitments import (
    CapacityReservation,
    Commitment,
    CommittedUse,
    ComputeSavingsPlan,
    InstanceSavingsPlan,
    ReservedInstances,
    SavingsPlan,
    discount_row,
)
from sim.scenario.owned import CAPACITY_BLOCK, OWNED, Block
from sim.scenario.resolve import Resolved, ResolvedPool
from sim.units import NS_PER_DAY, NS_PER_S, instant, nano_usd

_NANO = Decimal("1e-9")
# From the surest to the least sure.
_CONFIDENCES = ("published", "fitted", "assumed")
ON_DEMAND = "on_demand"


@dataclass
class Settlement:
    """Pays for the use of one hour after the other; nothing but sustained use is carried over.

    Parameters
    ----------
    places : pools whose use is settled by the hour, by name. reservations : of capacity. coverages : in the order of paying.
    advances : (time, charge) of what is paid as a whole.
    """

    places: dict[str, Place]
    reservations: list[Reservation]
    coverages: list[Coverage]
    sustained: SustainedUseDiscounts
    advances: list[tuple[int, Unused]] = field(default_factory=list)

    def settle(self, start_ns: int, end_ns: int, month: str, month_ns: int, uses: Sequence[Use]) -> list[Unused]:
        """Pay for all use of the hour [start_ns, end_ns), and return the charges of the hour that belong to no machine.

        Parameters
        ----------
        month : of the hour, YYYY-MM. month_ns : its length. uses : in the order of the leases; they get their pieces.
        """
        empty: list[Use] = []
        for number, kept in enumerate(self.reservations):
            earlier = [other for other in self.reservations[:number] if other.place == kept.place and other.zone == kept.zone]
            empty += kept.empty(start_ns, end_ns, uses, earlier)
        everything = [*uses, *empty]
        left = [unused for coverage in self.coverages if (unused := coverage.cover(start_ns, end_ns, everything)) is not None]
        self.sustained.cover(month, month_ns, uses)
        for use in everything:
            use.pay_rest()
        paid = [charge for at_ns, charge in self.advances if start_ns <= at_ns < end_ns]
        return [*paid, *unused_of(empty), *left]


def settlement_of(resolved: Resolved) -> Settlement | None:
    """Return how the use of a scenario's machines is settled by the hour, or None where every row stands for itself.

    Notes
    -----
    A committed rate is fixed: the on-demand price when the commitment begins, or at the start of the run, less its discount.
    """
    start, catalog = resolved.scenario.start_instant, resolved.catalog
    sustained = {family: row for row in catalog.sustained_uses.values() for family in row.families}
    places = {name: _place(row, resolved) for name, row in resolved.pools.items()}
    commitments = resolved.scenario.commitments
    settled = {
        name: place
        for name, place in places.items()
        if place.purchase in (OWNED, CAPACITY_BLOCK)
        or (place.purchase == ON_DEMAND and (commitments or (place.cloud == "gcp" and place.family in sustained)))
    }
    if not settled and not commitments:
        return None
    made = Settlement(settled, [], [], SustainedUseDiscounts(sustained))
    _add_own_machines(made, resolved)
    prices = _Prices(resolved, start)
    for name, row in commitments.items():
        if isinstance(row, CapacityReservation):
            place = Place("", "aws", row.instance, family_of(row.instance), row.region, ON_DEMAND)
            listed = prices.listed(place)
            assert listed is not None
            span = _span(row, start)
            made.reservations.append(
                Reservation(name, place, row.zone, row.count, lambda t_ns, rates=listed: rate_at(rates, t_ns), span)
            )
    made.coverages += _in_order([(row, _coverage(name, row, prices, start)) for name, row in commitments.items()])
    return made


def _in_order(coverages: list[tuple[Commitment, Coverage | None]]) -> list[Coverage]:
    """Return coverages in the order in which they pay: reserved in a zone, in a region, plans for a family, plans for all."""

    def rank(row: Commitment) -> int:
        if isinstance(row, InstanceSavingsPlan | ComputeSavingsPlan):
            return 2 if isinstance(row, InstanceSavingsPlan) else 3
        return 0 if isinstance(row, ReservedInstances) and row.zone else 1

    ordered = sorted(coverages, key=lambda pair: rank(pair[0]))
    return [coverage for _, coverage in ordered if coverage is not None]


def _coverage(name: str, row: Commitment, prices: _Prices, start: datetime) -> Coverage | None:
    span = _span(row, start)
    if isinstance(row, ReservedInstances | CommittedUse):
        zone = row.zone if isinstance(row, ReservedInstances) else ""
        offer = RESERVED if isinstance(row, ReservedInstances) else COMMITTED_USE
        rate = prices.committed(row, offer, _place_of(row))
        assert rate is not None
        purchase = "reserved" if offer == RESERVED else "committed_use"
        listed = prices.listed(_place_of(row)) or ()
        return Machines(name, "", row.instance, row.region, zone, row.count, rate, span, purchase, choice_name(row), listed=listed)
    if isinstance(row, SavingsPlan):
        offer = INSTANCE_PLAN if isinstance(row, InstanceSavingsPlan) else COMPUTE_PLAN
        rates = _PlanRates(row, offer, prices)
        committed_nano = nano_usd(row.usd_per_hour)
        return Plan(name, committed_nano, rates, span, choice_name(row), "scenario", "assumed")
    return None


def _place_of(row: ReservedInstances | CommittedUse) -> Place:
    cloud = "aws" if isinstance(row, ReservedInstances) else "gcp"
    return Place("", cloud, row.instance, family_of(row.instance), row.region, ON_DEMAND)


def _place(row: ResolvedPool, resolved: Resolved) -> Place:
    deployments = tuple(sorted({name for name, pool in resolved.kinds if pool == row.name}))
    instance, config = row.instance, row.config
    return Place(row.name, instance.cloud, instance.name, family_of(instance.name), config.region, config.purchase, deployments)


def _span(row: Commitment, start: datetime) -> Span:
    begins, ends = row.span()
    return Span(None if begins is None else since_ns(start, begins), None if ends is None else since_ns(start, ends))


def since_ns(start: datetime, moment: datetime) -> int:
    """Return the time of a calendar instant in nanoseconds since the start; negative before it."""
    return (moment - start) // timedelta(microseconds=1) * 1_000


def block_span_ns(block: Block, start: datetime) -> tuple[int, int]:
    """Return the begin and the end of a capacity block in nanoseconds since the start."""
    begins_ns = since_ns(start, instant(block.begins))
    return begins_ns, begins_ns + block.days * NS_PER_DAY


def _add_own_machines(made: Settlement, resolved: Resolved) -> None:
    """Add the fixed fleets: one's own machines, and blocks of capacity that are paid in advance."""
    for name, place in made.places.items():
        pool = resolved.pools[name].config
        count = pool.quota_nodes or 0
        if place.purchase == OWNED:
            rate = owned_rate(resolved.pools[name])
            made.coverages.append(
                Machines(
                    name, name, place.instance, place.region, "", count, rate, Span(), OWNED, OWNED_RULE.name, place.deployments
                )
            )
        elif place.purchase == CAPACITY_BLOCK:
            begins_ns, ends_ns = block_span_ns(pool.block, resolved.scenario.start_instant)
            span = Span(begins_ns, ends_ns)
            made.coverages.append(
                Machines(name, name, place.instance, place.region, "", count, PREPAID_RATE, span, CAPACITY_BLOCK, PREPAID.name)
            )
            made.advances.append((begins_ns, _advance(name, place, count, pool.block)))


def _advance(name: str, place: Place, count: int, block: Block) -> Unused:
    rate = Rate(0, nano_usd(block.usd_per_hour), block.usd_per_hour, "scenario", "assumed")
    machine_ns = count * block.days * NS_PER_DAY
    amount_nano = cost_nano(rate, machine_ns)
    return Unused(
        name, name, CAPACITY_BLOCK, PREPAID.name, Decimal(machine_ns) / NS_PER_S, MACHINE_UNIT, f"{rate.usd_per_hour} per hour",
        amount_nano, amount_nano, amount_nano, rate.source, rate.confidence, place.deployments, "compute", PURCHASE,
    )  # fmt: skip


@dataclass
class _Prices:
    """On-demand prices, and the committed rates that are made of them."""

    resolved: Resolved
    start: datetime

    @property
    def catalog(self) -> Catalog:
        """The catalog of the run."""
        return self.resolved.catalog

    def listed(self, place: Place) -> tuple[Rate, ...] | None:
        """Return the on-demand prices of machines, oldest first: a pool's own price, else the catalog's; None without one."""
        row = self.resolved.pools.get(place.pool)
        own = None if row is None else row.config.price_usd_per_hour
        if own is not None:
            return (Rate(0, nano_usd(own), own, "scenario", "assumed"),)
        prices = self.catalog.instances[place.instance].on_demand.get(place.region)
        return None if prices is None else dated_rates(prices, self.start)

    def committed(self, row: ReservedInstances | CommittedUse | SavingsPlan, offer: str, place: Place) -> Rate | None:
        """Return the rate of a commitment for machines, or None where it has none for them."""
        own = row.rates_usd_per_hour.get(place.instance) if isinstance(row, SavingsPlan) else row.usd_per_hour
        if own is not None:
            return Rate(0, nano_usd(own), own, "scenario", "assumed")
        listed = self.listed(place)
        if listed is None or (isinstance(row, SavingsPlan) and row.rates_usd_per_hour and row.discount is None):
            return None
        begins, _ = row.span()
        base = rate_at(listed, max(0, 0 if begins is None else since_ns(self.start, begins)))
        if row.discount is not None:
            share, source, confidence = row.discount, "of the scenario", "assumed"
        else:
            found = discount_row(self.catalog, offer, place.cloud, place.family, row.term)
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


class _PlanRates:
    """The rates of a Savings Plan by place."""

    def __init__(self, row: SavingsPlan, offer: str, prices: _Prices) -> None:
        self.row, self.offer, self.prices = row, offer, prices
        self._known: dict[Place, Rate | None] = {}

    def __call__(self, place: Place) -> Rate | None:
        if place not in self._known:
            self._known[place] = self._rate(place)
        return self._known[place]

    def _rate(self, place: Place) -> Rate | None:
        row = self.row
        if place.cloud != "aws":
            return None
        if isinstance(row, InstanceSavingsPlan) and (place.family, place.region) != (row.family, row.region):
            return None
        return self.prices.committed(row, self.offer, place)
