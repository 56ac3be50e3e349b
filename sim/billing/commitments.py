"""The commitments of a scenario's account, and how an hour of its use is settled with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from fractions import Fraction

from sim.billing.committed_rates import PlanRates, Prices
from sim.billing.coverage import (
    MACHINE_UNIT,
    PURCHASE,
    Coverage,
    Place,
    Prepaid,
    Span,
    Unused,
    Use,
    cost_nano,
)
from sim.billing.kept_capacity import Reservation, unused_of
from sim.billing.machine_rules import OWNED as OWNED_RULE
from sim.billing.machine_rules import PREPAID
from sim.billing.rates import Rate, rate_at, since_ns
from sim.billing.reserved_machines import Machines
from sim.billing.savings_plans import Plan, Plans
from sim.billing.sustained import SustainedUseDiscounts
from sim.billing.tariffs import PREPAID_RATE, owned_rate
from sim.catalog.loader import Catalog
from sim.domain.pricing import (
    ALL_UPFRONT,
    COMMITTED_USE,
    COMPUTE_PLAN,
    FLEXIBLE_COMMITTED_USE,
    INSTANCE_PLAN,
    NO_UPFRONT,
    PARTIAL_UPFRONT,
    RESERVED,
    TERM_HOURS,
    family_of,
)
from sim.registry import choice_name
from sim.scenario.commitments import (
    AzureReservation,
    CapacityReservation,
    Commitment,
    ForATerm,
    InstanceSavingsPlan,
    OfMachines,
    Reserved,
    ReservedInstances,
    SavingsPlan,
)
from sim.scenario.owned import CAPACITY_BLOCK, OWNED, Block
from sim.scenario.resolve import Resolved, ResolvedPool
from sim.units import NS_PER_DAY, NS_PER_HOUR, NS_PER_S, instant, nano_usd

# How use that a commitment covers is shown.
_PURCHASES = {
    RESERVED: "reserved",
    COMMITTED_USE: "committed_use",
    FLEXIBLE_COMMITTED_USE: "flexible_committed_use",
    INSTANCE_PLAN: "savings_plan",
    COMPUTE_PLAN: "savings_plan",
}
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
        left = [unused for coverage in self.coverages for unused in coverage.cover(start_ns, end_ns, everything)]
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
    prices = Prices(resolved, start)
    for name, row in commitments.items():
        if isinstance(row, CapacityReservation):
            place = _place_of(row, catalog)
            listed = prices.listed(place)
            assert listed is not None
            span = _span(row, start)
            made.reservations.append(
                Reservation(name, place, row.zone, row.count, lambda t_ns, rates=listed: rate_at(rates, t_ns), span)
            )
    made.coverages += _coverages(commitments, prices, start)
    made.advances += _purchases(commitments, prices, start)
    return made


def _coverages(rows: Mapping[str, Commitment], prices: Prices, start: datetime) -> list[Coverage]:
    """Return coverages in the order in which they pay: reserved in a zone, in a region, plans for a family, plans for all."""
    zonal: list[Coverage] = []
    regional: list[Coverage] = []
    family: list[Plan] = []
    anything: list[Plan] = []
    for name, row in rows.items():
        span = _span(row, start)
        if isinstance(row, Reserved):
            in_zone = isinstance(row, ReservedInstances) and row.zone
            (zonal if in_zone else regional).append(_machines(name, row, prices, span))
        elif isinstance(row, SavingsPlan):
            (family if isinstance(row, InstanceSavingsPlan) else anything).append(_plan(name, row, prices, span))
    return [*zonal, *regional, *(Plans(tuple(plans)) for plans in (family, anything) if plans)]


def _machines(name: str, row: Reserved, prices: Prices, span: Span) -> Machines:
    place = _place_of(row, prices.catalog)
    contract = prices.contract(row, place)
    sizes = row.sizes(prices.catalog) if isinstance(row, ReservedInstances | AzureReservation) else {}
    zone = row.zone if isinstance(row, ReservedInstances) else ""
    prepaid = None
    if contract.upfront_nano:
        term_ns = TERM_HOURS[row.term] * NS_PER_HOUR
        prepaid = Prepaid(contract.upfront_nano * row.count, term_ns, span.begins_ns)
    return Machines(
        name, "", row.instance, row.region, zone, row.count, contract.rate, span, _PURCHASES[row.offer], choice_name(row),
        listed=prices.listed(place) or (), prepaid=prepaid, sizes=sizes, smallest_first=isinstance(row, ReservedInstances),
    )  # fmt: skip


def _plan(name: str, row: SavingsPlan, prices: Prices, span: Span) -> Plan:
    upfront = {NO_UPFRONT: Fraction(0), PARTIAL_UPFRONT: Fraction(str(row.upfront_share)), ALL_UPFRONT: Fraction(1)}[row.payment]
    return Plan(
        name, nano_usd(row.usd_per_hour), PlanRates(row, prices), span, choice_name(row), "scenario", "assumed",
        _PURCHASES[row.offer], upfront,
    )  # fmt: skip


def _purchases(rows: Mapping[str, Commitment], prices: Prices, start: datetime) -> list[tuple[int, Unused]]:
    """Return what is paid on the first day of commitments that begin in the run or after it; earlier ones were paid before it."""
    found = []
    for name, row in rows.items():
        span = _span(row, start)
        if span.begins_ns is None or span.begins_ns < 0 or not isinstance(row, ForATerm):
            continue
        if isinstance(row, Reserved):
            machines = _machines(name, row, prices, span)
            if machines.prepaid is not None:
                found.append((span.begins_ns, machines.purchase_of(machines.prepaid)))
        elif isinstance(row, SavingsPlan):
            plan = _plan(name, row, prices, span)
            if plan.upfront:
                found.append((span.begins_ns, plan.purchase_of(TERM_HOURS[row.term])))
    return found


def _place_of(row: OfMachines, catalog: Catalog) -> Place:
    cloud = catalog.instances[row.instance].cloud
    return Place("", cloud, row.instance, family_of(row.instance), row.region, ON_DEMAND)


def _place(row: ResolvedPool, resolved: Resolved) -> Place:
    deployments = tuple(sorted({name for name, pool in resolved.kinds if pool == row.name}))
    instance, config = row.instance, row.config
    return Place(
        row.name, instance.cloud, instance.name, family_of(instance.name), config.region, config.purchase, deployments,
        config.operating_system,
    )  # fmt: skip


def _span(row: Commitment, start: datetime) -> Span:
    begins, ends = row.span()
    return Span(None if begins is None else since_ns(start, begins), None if ends is None else since_ns(start, ends))


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
            machines = _block(name, place, count, pool.block, resolved.scenario.start_instant)
            assert machines.span.begins_ns is not None  # it is that of the block
            made.coverages.append(machines)
            made.advances.append((machines.span.begins_ns, _advance(machines, pool.block)))


def _block(name: str, place: Place, count: int, block: Block, start: datetime) -> Machines:
    """Return a block of capacity as machines that were paid up front for its time."""
    begins_ns, ends_ns = block_span_ns(block, start)
    amount_nano = cost_nano(_block_rate(block), count * (ends_ns - begins_ns))
    return Machines(
        name, name, place.instance, place.region, "", count, PREPAID_RATE, Span(begins_ns, ends_ns), CAPACITY_BLOCK, PREPAID.name,
        place.deployments, prepaid=Prepaid(amount_nano, ends_ns - begins_ns, begins_ns),
    )  # fmt: skip


def _block_rate(block: Block) -> Rate:
    return Rate(0, nano_usd(block.usd_per_hour), block.usd_per_hour, "scenario", "assumed")


def _advance(machines: Machines, block: Block) -> Unused:
    rate, prepaid = _block_rate(block), machines.prepaid
    assert prepaid is not None
    machine_ns = machines.count * prepaid.term_ns
    return Unused(
        machines.name, machines.pool, CAPACITY_BLOCK, PREPAID.name, Decimal(machine_ns) / NS_PER_S, MACHINE_UNIT,
        f"{rate.usd_per_hour} per hour", prepaid.amount_nano, 0, prepaid.amount_nano, rate.source, rate.confidence,
        machines.deployments, "compute", PURCHASE,
    )  # fmt: skip
