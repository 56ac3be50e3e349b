"""What an account has promised its providers, and what it owns: rows of `commitments:` and the block `owned:` of a pool."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal, DecimalException

from sim.catalog.loader import Catalog
from sim.domain.hardware import InstanceType
from sim.domain.pricing import (
    ALL_UPFRONT,
    COMMITTED_USE,
    COMPUTE_PLAN,
    FLEXIBLE_COMMITTED_USE,
    INSTANCE_PLAN,
    NO_UPFRONT,
    PARTIAL_UPFRONT,
    PAYMENTS,
    RESERVED,
    TERM_HOURS,
    TERMS,
    CommitmentDiscount,
    family_of,
    normalization_factor,
)
from sim.errors import Problems
from sim.registry import register
from sim.units import instant, nano_usd

MOST_MACHINES = 1_000_000
MOST_USD_PER_HOUR = 1_000_000
MOST_UPFRONT_USD = 10_000_000_000
MOST_RATIO, RATIO_PARTS = 10_000, 10_000
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


def discount_row(
    catalog: Catalog, offer: str, cloud: str, family: str, term: str, payment: str = NO_UPFRONT
) -> CommitmentDiscount | None:
    """Return the catalog's discount of an offer for a family, or None."""
    found: Iterable[CommitmentDiscount] = catalog.commitment_discounts.values()
    return next(
        (
            row
            for row in found
            if row.cloud == cloud
            and offer in row.offers
            and family in row.families
            and row.term == term
            and payment in row.payments
        ),
        None,
    )


@dataclass
class ForATerm(Commitment):
    """Base of commitments for one year or three, with what is paid up front.

    Parameters
    ----------
    term : "1y" or "3y"; a commitment that begins and has no `ends` ends after it. payment : "no_upfront", by the hour;
        "partial_upfront", a part on the first day; or "all_upfront".
    discount : share of the on-demand price, of all payments together; None takes the catalog's for this payment.
    """

    term: str = "1y"
    payment: str = NO_UPFRONT
    discount: float | None = None

    def payments(self) -> tuple[str, ...]:
        """Return the payment options of the provider."""
        return PAYMENTS

    def problems(self, path: str, catalog: Catalog, problems: Problems) -> None:
        """Add what is wrong with the row."""
        super().problems(path, catalog, problems)
        problems.check(self.term in TERMS, f"{path}.term", self.term, "is not a term", choices=TERMS)
        options = self.payments()
        problems.check(self.payment in options, f"{path}.payment", self.payment, "is not a payment option", choices=options)
        if self.discount is not None:
            problems.check(0 <= self.discount < 1, f"{path}.discount", self.discount, "is out of range", "0 to below 1")

    def span(self) -> tuple[datetime | None, datetime | None]:
        """Return the first instant and the end; None where it is before or after every run."""
        begins, ends = super().span()
        return begins, begins + timedelta(hours=TERM_HOURS[self.term]) if begins is not None and ends is None else ends

    def check_discount(self, path: str, offer: str, cloud: str, family: str, catalog: Catalog, problems: Problems) -> None:
        """Check that the catalog has a discount where the row has none of its own."""
        known = self.term in TERMS and self.payment in self.payments()
        if known and self.discount is None and discount_row(catalog, offer, cloud, family, self.term, self.payment) is None:
            message = f"the catalog knows no {offer} discount of {family or 'this family'} for {self.term}, {self.payment}"
            problems.add(f"{path}.discount", None, message, "a share of the on-demand price, for instance 0.25")


@dataclass
class Reserved(ForATerm, OfMachines):
    """Base of machines that are paid for every hour of a term, used or not.

    Parameters
    ----------
    usd_per_hour : of one machine by the hour, as in one's own contract; None takes the on-demand price less the discount.
    upfront_usd : of one machine on the first day, as in one's own contract; goes with `payment`.
    """

    usd_per_hour: str | None = None
    upfront_usd: str | None = None

    offer = RESERVED

    def problems(self, path: str, catalog: Catalog, problems: Problems) -> None:
        """Add what is wrong with the row."""
        super().problems(path, catalog, problems)
        self._check_prices(path, problems)
        instance = catalog.instances.get(self.instance)
        if self.usd_per_hour is None and self.upfront_usd is None and instance is not None:
            self.check_discount(path, self.offer, instance.cloud, family_of(self.instance), catalog, problems)
            known = self.region in instance.on_demand
            message = f"{self.instance} has no on-demand price there, of which the discount is; give usd_per_hour"
            problems.check(known or not self.region, f"{path}.region", self.region, message, choices=instance.on_demand)

    def _check_prices(self, path: str, problems: Problems) -> None:
        """Check prices of one's own: by the hour, up front, or both, as the payment option says."""
        hourly, upfront = self.usd_per_hour, self.upfront_usd
        if hourly is not None:
            check_money(f"{path}.usd_per_hour", hourly, problems)
        if upfront is not None:
            check_money(f"{path}.upfront_usd", upfront, problems, most=MOST_UPFRONT_USD)
        if hourly is None and upfront is None:
            return
        problems.check(self.discount is None, f"{path}.discount", self.discount, "is given beside a price", "one of the two")
        for name, text, options in (
            ("usd_per_hour", hourly, (NO_UPFRONT, PARTIAL_UPFRONT)),
            ("upfront_usd", upfront, (PARTIAL_UPFRONT, ALL_UPFRONT)),
        ):
            if self.payment in self.payments() and (text is not None) != (self.payment in options):
                wanted = "none" if self.payment not in options else "USD of one machine"
                problems.add(f"{path}.{name}", text, f"does not go with payment {self.payment}", wanted)


@register("commitment", "reserved_instances")
@dataclass
class ReservedInstances(Reserved):
    """EC2 reserved instances: paid every hour, used or not.

    Parameters
    ----------
    zone : the reserved machines' zone; "" covers the whole region. size_flexible : whether a regional one covers other sizes of its
        family; None asks the catalog.
    """

    zone: str = ""
    size_flexible: bool | None = None

    def problems(self, path: str, catalog: Catalog, problems: Problems) -> None:
        """Add what is wrong with the row."""
        super().problems(path, catalog, problems)
        if self.size_flexible:
            problems.check(not self.zone, f"{path}.size_flexible", True, "a reservation in a zone covers its own size", "false")
            sized = not self.instance or normalization_factor(self.instance) is not None
            problems.check(sized, f"{path}.size_flexible", True, f"{self.instance} has no normalized units", "false")

    def sizes(self, catalog: Catalog) -> dict[str, int]:
        """Return the units of the types that it covers, in quarters; none where it covers its own type alone."""
        family = family_of(self.instance)
        rows = [row for row in catalog.size_flexibilities.values() if row.cloud == "aws" and family in row.families]
        flexible = any(row.flexible for row in rows) if self.size_flexible is None else self.size_flexible
        if self.zone or not flexible:
            return {}
        units = {name: normalization_factor(name) for name, row in catalog.instances.items() if row.cloud == "aws"}
        return {name: int(4 * factor) for name, factor in units.items() if factor is not None and family_of(name) == family}


@register("commitment", "azure_reservation")
@dataclass
class AzureReservation(Reserved):
    """Azure reserved machines of a region: paid every hour, used or not; "no_upfront" is by the month.

    Parameters
    ----------
    size_ratios : instance type -> ratio of the types that it covers; none asks the catalog for the group of the type.
    """

    size_ratios: dict[str, float] = field(default_factory=dict)

    def clouds(self) -> tuple[str, ...]:
        """Return the cloud that sells this."""
        return ("azure",)

    def payments(self) -> tuple[str, ...]:
        """Return the payment options of the provider, whose total is the same."""
        return (NO_UPFRONT, ALL_UPFRONT)

    def problems(self, path: str, catalog: Catalog, problems: Problems) -> None:
        """Add what is wrong with the row."""
        super().problems(path, catalog, problems)
        for name, ratio in self.size_ratios.items():
            known = name in catalog.instances
            problems.check(known, f"{path}.size_ratios.{name}", name, "no such instance type", choices=catalog.instances)
            fine = 0 < ratio <= MOST_RATIO and abs(ratio * RATIO_PARTS - round(ratio * RATIO_PARTS)) < 1e-6
            problems.check(fine, f"{path}.size_ratios.{name}", ratio, "is not a ratio", f"above 0 to {MOST_RATIO:,}, in 1/10,000")
        own = not self.size_ratios or self.instance in self.size_ratios
        problems.check(own, f"{path}.size_ratios", list(self.size_ratios), "does not have the type itself", self.instance)

    def sizes(self, catalog: Catalog) -> dict[str, int]:
        """Return the units of the types that it covers, in 1/10,000 of a ratio; none where it covers its own type alone."""
        rows = (row for row in catalog.size_flexibilities.values() if row.cloud == "azure" and row.flexible)
        group = self.size_ratios or next((row.ratios for row in rows if self.instance in row.ratios), {})
        return {name: round(ratio * RATIO_PARTS) for name, ratio in group.items()}


@register("commitment", "committed_use")
@dataclass
class CommittedUse(Reserved):
    """Google committed use of machines of a type in a region: paid every hour, used or not; nothing is paid up front."""

    offer = COMMITTED_USE

    def clouds(self) -> tuple[str, ...]:
        """Return the cloud that sells this."""
        return ("gcp",)

    def payments(self) -> tuple[str, ...]:
        """Return the payment options of the provider."""
        return (NO_UPFRONT,)


@dataclass
class SavingsPlan(ForATerm):
    """Base of plans: dollars an hour, spent on use at the plan's rates or lost.

    Parameters
    ----------
    usd_per_hour : the commitment. upfront_share : of all of it, paid on the first day where `payment` is "partial_upfront".
    rates_usd_per_hour : instance type -> the plan's own rate for a machine, in place of the discount.

    Notes
    -----
    A partial payment is 50 to 99 % of the plan: AWS Savings Plans API reference, CreateSavingsPlan. Read 2026-11-23.
    """

    usd_per_hour: str = ""
    upfront_share: float = 0.5
    rates_usd_per_hour: dict[str, str] = field(default_factory=dict)

    offer = COMPUTE_PLAN
    cloud = "aws"

    def problems(self, path: str, catalog: Catalog, problems: Problems) -> None:
        """Add what is wrong with the row."""
        super().problems(path, catalog, problems)
        check_money(f"{path}.usd_per_hour", self.usd_per_hour, problems)
        in_range = 0.5 <= self.upfront_share <= 0.99
        problems.check(in_range, f"{path}.upfront_share", self.upfront_share, "is out of range", "0.5 to 0.99")
        for name, text in self.rates_usd_per_hour.items():
            known = name in catalog.instances
            problems.check(known, f"{path}.rates_usd_per_hour.{name}", name, "no such instance type", choices=catalog.instances)
            check_money(f"{path}.rates_usd_per_hour.{name}", text, problems)
        self.check_rates(path, catalog, problems)

    def check_rates(self, path: str, catalog: Catalog, problems: Problems) -> None:
        """Check that the plan has a rate for something."""
        rows: Iterable[CommitmentDiscount] = catalog.commitment_discounts.values()
        known = self.payment not in self.payments() or any(
            self.offer in row.offers and self.payment in row.payments for row in rows
        )
        if self.discount is None and not self.rates_usd_per_hour and not known:
            message = f"the catalog knows no {self.offer} discount"
            problems.add(f"{path}.discount", None, message, "a share of the on-demand price, or rates_usd_per_hour")


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

    offer = INSTANCE_PLAN

    def check_rates(self, path: str, catalog: Catalog, problems: Problems) -> None:
        """Check what the plan is for, and that it has a rate for it."""
        families = sorted({family_of(name) for name, row in catalog.instances.items() if row.cloud == "aws"})
        problems.check(self.family in families, f"{path}.family", self.family, "is not a family of EC2", choices=families)
        problems.check(bool(self.region), f"{path}.region", self.region, "names no region", "a region")
        if not self.rates_usd_per_hour:
            self.check_discount(path, INSTANCE_PLAN, "aws", self.family, catalog, problems)


@register("commitment", "compute_savings_plan")
@dataclass
class ComputeSavingsPlan(SavingsPlan):
    """Compute Savings Plan: for every family and region of EC2; where the catalog has no rate for a family, give `discount`."""


@register("commitment", "azure_savings_plan")
@dataclass
class AzureSavingsPlan(SavingsPlan):
    """Azure savings plan for compute: for every machine of Azure; give `discount` or rates. "no_upfront" is by the month."""

    cloud = "azure"

    def payments(self) -> tuple[str, ...]:
        """Return the payment options of the provider, whose total is the same."""
        return (NO_UPFRONT, ALL_UPFRONT)


@register("commitment", "flexible_committed_use")
@dataclass
class FlexibleCommittedUse(SavingsPlan):
    """Google flexible committed use: dollars an hour for machines of every region; nothing is paid up front.

    Where the catalog has no rate for a family, give `discount`.
    """

    offer = FLEXIBLE_COMMITTED_USE
    cloud = "gcp"

    def payments(self) -> tuple[str, ...]:
        """Return the payment options of the provider."""
        return (NO_UPFRONT,)


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
