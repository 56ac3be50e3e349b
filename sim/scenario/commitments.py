"""What an account has promised its providers, and what it owns: rows of `commitments:` and the block `owned:` of a pool."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal, DecimalException

from sim.catalog.loader import Catalog
from sim.domain.hardware import InstanceType
from sim.domain.pricing import COMMITTED_USE, COMPUTE_PLAN, INSTANCE_PLAN, RESERVED, TERMS, CommitmentDiscount, family_of
from sim.errors import Problems
from sim.registry import register
from sim.units import instant, nano_usd

MOST_MACHINES = 1_000_000
MOST_USD_PER_HOUR = 1_000_000
# Amazon EC2 Capacity Blocks, user guide, read 2026-11-23: at most 64 machines a block; 1 to 14 days, then weeks up to 182 days.
MOST_BLOCK_MACHINES = 64
BLOCK_DAYS = (*range(1, 15), *range(21, 183, 7))


def check_money(path: str, text: str, problems: Problems, *, zero: bool = False, most: int = MOST_USD_PER_HOUR) -> bool:
    """Check an amount of dollars in text; whether it is fine."""
    allowed = f"{'0' if zero else 'above 0'} to {most:,} USD, to the nano-dollar"
    try:
        amount = Decimal(text)
        fine = amount.is_finite() and (0 if zero else Decimal("1e-9")) <= amount <= most
        nano_usd(text)
    except (DecimalException, ValueError):
        problems.add(path, text, "is not an amount of money", allowed)
        return False
    return problems.check(fine, path, text, "is out of range", allowed)


@dataclass
class Commitment:
    """Base of all commitments.

    Parameters
    ----------
    begins, ends : calendar instants, ISO 8601; "" for before the run and after it.
    """

    begins: str = ""
    ends: str = ""

    def problems(self, path: str, catalog: Catalog, problems: Problems) -> None:
        """Add what is wrong with the row."""
        times = []
        for name in ("begins", "ends"):
            text = getattr(self, name)
            try:
                times += [instant(text)] if text else []
            except (ValueError, OverflowError):
                problems.add(f"{path}.{name}", text, "is not a calendar instant", "ISO 8601, for instance 2026-09-15T06:00:00Z")
        if len(times) == 2:
            problems.check(times[0] < times[1], f"{path}.ends", self.ends, "is not after begins", f"after {self.begins}")

    def span(self) -> tuple[datetime | None, datetime | None]:
        """Return the first instant and the end; None where it is before or after every run."""
        return (instant(self.begins) if self.begins else None, instant(self.ends) if self.ends else None)


@dataclass
class OfMachines(Commitment):
    """Base of commitments to a number of machines of a type.

    Parameters
    ----------
    instance : catalog name. region : where. count : machines.
    """

    instance: str = ""
    region: str = ""
    count: int = 1

    def problems(self, path: str, catalog: Catalog, problems: Problems) -> None:
        """Add what is wrong with the row."""
        super().problems(path, catalog, problems)
        row: InstanceType | None = catalog.get("instances", self.instance, f"{path}.instance", problems)
        in_range = 1 <= self.count <= MOST_MACHINES
        problems.check(in_range, f"{path}.count", self.count, "is out of range", f"1 to {MOST_MACHINES:,}")
        problems.check(bool(self.region), f"{path}.region", self.region, "names no region", "a region")
        if row is not None:
            clouds = self.clouds()
            problems.check(row.cloud in clouds, f"{path}.instance", self.instance, f"is not sold by {' or '.join(clouds)}")

    def clouds(self) -> tuple[str, ...]:
        """Return the clouds that sell this."""
        return ("aws",)


def _check_discount(
    path: str, offer: str, cloud: str, family: str, term: str, share: float | None, catalog: Catalog, problems: Problems
) -> None:
    """Check a discount of one's own, or that the catalog has one."""
    if not problems.check(term in TERMS, f"{path}.term", term, "is not a term", choices=TERMS):
        return
    if share is not None:
        problems.check(0 <= share < 1, f"{path}.discount", share, "is out of range", "0 to below 1")
    elif discount_row(catalog, offer, cloud, family, term) is None:
        message = f"the catalog knows no {offer} discount of {family or 'this family'} for {term}"
        problems.add(f"{path}.discount", None, message, "a share of the on-demand price, for instance 0.25")


def discount_row(catalog: Catalog, offer: str, cloud: str, family: str, term: str) -> CommitmentDiscount | None:
    """Return the catalog's discount of an offer for a family, or None."""
    found: Iterable[CommitmentDiscount] = catalog.commitment_discounts.values()
    return next(
        (row for row in found if row.cloud == cloud and offer in row.offers and family in row.families and row.term == term), None
    )


@register("commitment", "reserved_instances")
@dataclass
class ReservedInstances(OfMachines):
    """EC2 reserved instances: paid every hour, used or not.

    Parameters
    ----------
    zone : the reserved machines' zone; "" covers the whole region. term : "1y" or "3y", nothing up front.
    usd_per_hour : of one machine, as in one's own contract; None takes the on-demand price less the discount.
    discount : share of the on-demand price; None takes the catalog's.
    """

    zone: str = ""
    term: str = "1y"
    usd_per_hour: str | None = None
    discount: float | None = None

    def problems(self, path: str, catalog: Catalog, problems: Problems) -> None:
        """Add what is wrong with the row."""
        super().problems(path, catalog, problems)
        _check_rate(path, self, RESERVED, catalog, problems)


@register("commitment", "committed_use")
@dataclass
class CommittedUse(OfMachines):
    """Google committed use of machines of a type in a region: paid every hour, used or not.

    Parameters
    ----------
    term, usd_per_hour, discount : as of reserved instances.
    """

    term: str = "1y"
    usd_per_hour: str | None = None
    discount: float | None = None

    def clouds(self) -> tuple[str, ...]:
        """Return the cloud that sells this."""
        return ("gcp",)

    def problems(self, path: str, catalog: Catalog, problems: Problems) -> None:
        """Add what is wrong with the row."""
        super().problems(path, catalog, problems)
        _check_rate(path, self, COMMITTED_USE, catalog, problems)


def _check_rate(path: str, row: ReservedInstances | CommittedUse, offer: str, catalog: Catalog, problems: Problems) -> None:
    instance = catalog.instances.get(row.instance)
    if row.usd_per_hour is not None:
        check_money(f"{path}.usd_per_hour", row.usd_per_hour, problems)
        problems.check(row.discount is None, f"{path}.discount", row.discount, "is given beside usd_per_hour", "one of the two")
    elif instance is not None:
        _check_discount(path, offer, instance.cloud, family_of(row.instance), row.term, row.discount, catalog, problems)
        known = row.region in instance.on_demand
        message = f"{row.instance} has no on-demand price there, of which the discount is; give usd_per_hour"
        problems.check(known or not row.region, f"{path}.region", row.region, message, choices=instance.on_demand)


@dataclass
class SavingsPlan(Commitment):
    """Base of Savings Plans: dollars an hour, spent on use at the plan's rates or lost.

    Parameters
    ----------
    usd_per_hour : the commitment. term : "1y" or "3y". discount : share of the on-demand price; None takes the catalog's.
    rates_usd_per_hour : instance type -> the plan's own rate for a machine, in place of the discount.
    """

    usd_per_hour: str = ""
    term: str = "1y"
    discount: float | None = None
    rates_usd_per_hour: dict[str, str] = field(default_factory=dict)

    def problems(self, path: str, catalog: Catalog, problems: Problems) -> None:
        """Add what is wrong with the row."""
        super().problems(path, catalog, problems)
        check_money(f"{path}.usd_per_hour", self.usd_per_hour, problems)
        for name, text in self.rates_usd_per_hour.items():
            known = name in catalog.instances
            problems.check(known, f"{path}.rates_usd_per_hour.{name}", name, "no such instance type", choices=catalog.instances)
            check_money(f"{path}.rates_usd_per_hour.{name}", text, problems)


@register("commitment", "instance_savings_plan")
@dataclass
class InstanceSavingsPlan(SavingsPlan):
    """EC2 Instance Savings Plan: for one family in one region.

    Parameters
    ----------
    family : of instance types, for instance "p5". region : where.
    """

    family: str = ""
    region: str = ""

    def problems(self, path: str, catalog: Catalog, problems: Problems) -> None:
        """Add what is wrong with the row."""
        super().problems(path, catalog, problems)
        families = sorted({family_of(name) for name, row in catalog.instances.items() if row.cloud == "aws"})
        problems.check(self.family in families, f"{path}.family", self.family, "is not a family of EC2", choices=families)
        problems.check(bool(self.region), f"{path}.region", self.region, "names no region", "a region")
        if not self.rates_usd_per_hour:
            _check_discount(path, INSTANCE_PLAN, "aws", self.family, self.term, self.discount, catalog, problems)


@register("commitment", "compute_savings_plan")
@dataclass
class ComputeSavingsPlan(SavingsPlan):
    """Compute Savings Plan: for every family and region of EC2; where the catalog has no rate for a family, give `discount`."""

    def problems(self, path: str, catalog: Catalog, problems: Problems) -> None:
        """Add what is wrong with the row."""
        super().problems(path, catalog, problems)
        rows: Mapping[str, CommitmentDiscount] = catalog.commitment_discounts
        known = self.discount is not None or self.rates_usd_per_hour or any(COMPUTE_PLAN in row.offers for row in rows.values())
        message = "the catalog knows no compute_plan discount"
        problems.check(bool(known), f"{path}.discount", None, message, "a share of the on-demand price, or rates_usd_per_hour")
        if self.discount is not None:
            problems.check(0 <= self.discount < 1, f"{path}.discount", self.discount, "is out of range", "0 to below 1")


@register("commitment", "capacity_reservation")
@dataclass
class CapacityReservation(OfMachines):
    """EC2 on-demand capacity reservation: machines of a zone, at the on-demand rate whether used or not.

    Parameters
    ----------
    zone : where they are kept.
    """

    zone: str = ""

    def problems(self, path: str, catalog: Catalog, problems: Problems) -> None:
        """Add what is wrong with the row."""
        super().problems(path, catalog, problems)
        problems.check(bool(self.zone), f"{path}.zone", self.zone, "names no zone", "a zone")
        instance = catalog.instances.get(self.instance)
        if instance is not None and self.region:
            known = self.region in instance.on_demand
            message = f"{self.instance} has no on-demand price there"
            problems.check(known, f"{path}.region", self.region, message, choices=instance.on_demand)
