"""What of a saved run a commitment may cover, and what commitments can be had for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal, DecimalException
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from sim.billing.commitment_choice import (
    AZURE_MACHINES,
    COMMITTED_MACHINES,
    COMPUTE_SAVINGS_PLAN,
    INSTANCE_SAVINGS_PLAN,
    RESERVED_MACHINES,
    HourlyUse,
    Kind,
    Offer,
    Segment,
)
from sim.billing.commitment_portfolios import Offers
from sim.billing.commitments import ON_DEMAND
from sim.billing.coverage import MACHINE_UNIT
from sim.billing.ledger import hour_cuts
from sim.billing.rates import since_ns
from sim.catalog.loader import Catalog
from sim.domain.pricing import COMMITTED_USE, COMPUTE_PLAN, INSTANCE_PLAN, LINUX, RESERVED
from sim.errors import InputError, Problem, Problems
from sim.results.spool import quoted
from sim.scenario.commitments import AzureReservation, CommittedUse, ReservedInstances, discount_row
from sim.units import duration_ns, instant, nano_usd

if TYPE_CHECKING:
    from sim.results.records import RunResult

MOST_GROWTH = 100
# By cloud: the choice of a scenario, the offer of the catalog, and how it can be paid for.
_MACHINES_OF = {
    "aws": (RESERVED_MACHINES, RESERVED, ReservedInstances().payments()),
    "gcp": (COMMITTED_MACHINES, COMMITTED_USE, CommittedUse().payments()),
    "azure": (AZURE_MACHINES, RESERVED, AzureReservation().payments()),
}


@dataclass(frozen=True)
class Discount:
    """What an offer saves against the on-demand price: a share, and where it is from."""

    share: Fraction
    source: str
    confidence: str


def read_discounts(option: str, text: str | None, problems: Problems) -> dict[str, Discount]:
    """Read discounts of one's own: one share for all, or FAMILY=SHARE with commas; "" is the key of all.

    Examples
    --------
    >>> {family: float(found.share) for family, found in read_discounts("--reserved", "p5=30%,g5=0.4", Problems()).items()}
    {'p5': 0.3, 'g5': 0.4}
    """
    found = {}
    for word in text.split(",") if text is not None else []:
        family, _, share_text = word.strip().rpartition("=")
        share = _share(share_text)
        allowed = "0 to below 1, or below 100%; for all, or such as p5=30%,g5=0.4"
        if problems.check(share is not None and 0 <= share < 1, option, word, "is not a discount", allowed):
            assert share is not None  # checked
            found[family] = Discount(share, "given on the command line", "assumed")
    return found


def _share(text: str) -> Fraction | None:
    """Return a share as people write it, or None."""
    try:
        number = Decimal(text.strip().removesuffix("%"))
        return Fraction(number) / (100 if text.strip().endswith("%") else 1) if number.is_finite() else None
    except DecimalException:
        return None


def read_factors(option: str, text: str, problems: Problems) -> list[Fraction]:
    """Read changes of traffic as factors.

    Examples
    --------
    >>> [float(factor) for factor in read_factors("--traffic", "-30%,+30%", Problems())]
    [0.7, 1.3]
    """
    found = []
    for word in text.split(","):
        share = _share(word)
        if problems.check(
            share is not None and -1 <= share <= 100, option, word, "is not a change of traffic", "such as -30%,+30%"
        ):
            assert share is not None  # checked
            found.append(1 + share)
    return found


def eligible_use(result: RunResult, catalog: Catalog) -> HourlyUse:
    """Return the machine time that a run paid for on demand, by calendar hour of the account, with its minimum charges.

    Spot machines, own machines and capacity blocks are not eligible. Neither is use whose price depends on the rest of the month
    (sustained use), nor machines with a commercial operating system, which reserved machines do not cover. Where pools of one type
    and region have different prices in one hour, the one whose lease began first is first.

    Raises
    ------
    InputError : the run has commitments of its own; what is left on demand then depends on them.
    """
    scenario = result.manifest["scenario"]
    if scenario["commitments"]:
        names = ", ".join(scenario["commitments"])
        what = f"has commitments of its own ({names}), which pay before those to be chosen"
        raise InputError([Problem("DIR", str(result.folder), what, "a run of the same scenario without them")])
    start, horizon_ns = instant(scenario["start"]), duration_ns(scenario["horizon"])
    edges = [0, *hour_cuts(start, horizon_ns, scenario["account"]["timezone"]), horizon_ns]
    table = result.sql(f"""
        SELECT local_hour, ledger.pool AS pool, leases.instance AS instance, unit_price,
            sum(ledger.end_ns - ledger.start_ns) AS length_ns, min(ledger.row) AS first
        FROM ledger JOIN leases USING (lease)
        WHERE ledger.purchase = {quoted(ON_DEMAND)} AND unit = {quoted(MACHINE_UNIT)}
        GROUP BY ALL ORDER BY first
    """)
    sustained = {family for row in catalog.sustained_uses.values() for family in row.families}
    uses: dict[Kind, dict[int, list[Segment]]] = {}
    columns = (table[name].tolist() for name in ("local_hour", "pool", "instance", "unit_price", "length_ns"))
    for hour, pool, instance, price, length_ns in zip(*columns, strict=True):
        cloud = catalog.instances[instance].cloud if instance in catalog.instances else ""
        kind = Kind(cloud, scenario["pools"][pool]["region"], instance)
        if kind.family in sustained or not length_ns or scenario["pools"][pool]["operating_system"] != LINUX:
            continue
        number = max(int(np.searchsorted(edges, since_ns(start, instant(hour)), "right")) - 1, 0)
        segment = Segment(int(length_ns), nano_usd(price.removesuffix(" per hour")))
        uses.setdefault(kind, {}).setdefault(number, []).append(segment)
    lengths_ns = tuple(end_ns - start_ns for start_ns, end_ns in pairwise(edges))
    return HourlyUse(lengths_ns, {kind: {number: tuple(found) for number, found in uses[kind].items()} for kind in sorted(uses)})


@dataclass(frozen=True)
class OwnDiscounts:
    """Discounts of one's own contracts by family, "" for all: they go before those of the catalog."""

    reserved: Mapping[str, Discount]
    instance_plan: Mapping[str, Discount]
    compute_plan: Mapping[str, Discount]


def offers_for(use: HourlyUse, catalog: Catalog, term: str, payment: str, own: OwnDiscounts) -> tuple[Offers, list[Kind]]:
    """Return what can be had for some use, and the kinds for which nothing is known.

    A committed rate is the first on-demand price the run paid for the kind less the discount, to the nano-dollar. The discount is
    one's own, else the catalog's; a plan is for the kinds whose discount is known. Of a family with flexible sizes the smallest
    type of the run is bought, and covers the others.
    """
    machines: dict[tuple[str, ...], dict[Kind, tuple[int, Discount]]] = {}
    of_family: dict[tuple[str, str], dict[Kind, tuple[int, Discount]]] = {}
    of_all: dict[Kind, tuple[int, Discount]] = {}
    unknown: list[Kind] = []
    for kind in use.kinds:
        price_nano = use.first_price_nano(kind)
        name, offer, payments = _MACHINES_OF.get(kind.cloud, ("", "", ()))
        reserved = _discount(kind, offer, term, payment, own.reserved, catalog) if payment in payments else None
        if reserved is not None:
            group = (name, kind.region, kind.family if _sizes(kind, catalog) else kind.instance)
            machines.setdefault(group, {})[kind] = (price_nano, reserved)
        on_plans = kind.cloud == "aws"
        instance_plan = _discount(kind, INSTANCE_PLAN, term, payment, own.instance_plan, catalog) if on_plans else None
        if instance_plan is not None:
            of_family.setdefault((kind.region, kind.family), {})[kind] = (price_nano, instance_plan)
        compute_plan = _discount(kind, COMPUTE_PLAN, term, payment, own.compute_plan, catalog) if on_plans else None
        if compute_plan is not None:
            of_all[kind] = (price_nano, compute_plan)
        if reserved is None and instance_plan is None and compute_plan is None:
            unknown.append(kind)
    reservations = tuple(_machines(name, kinds, catalog) for (name, *_), kinds in machines.items())
    instance_plans = tuple(_offer(INSTANCE_SAVINGS_PLAN, kinds) for kinds in of_family.values())
    return Offers(reservations, instance_plans, _offer(COMPUTE_SAVINGS_PLAN, of_all) if of_all else None), unknown


def _sizes(kind: Kind, catalog: Catalog) -> dict[str, int]:
    """Return the units of the types that a reserved machine covers; none where that is its own type alone."""
    return ReservedInstances(instance=kind.instance, region=kind.region).sizes(catalog) if kind.cloud == "aws" else {}


def _machines(name: str, kinds: Mapping[Kind, tuple[int, Discount]], catalog: Catalog) -> Offer:
    """Return an offer of machines: of one kind, or of the smallest size of a family, which covers the others by their units."""
    units = _sizes(next(iter(kinds)), catalog)
    smallest = min(kinds, key=lambda kind: units.get(kind.instance, 0))
    alone = _offer(name, {smallest: kinds[smallest]})
    if len(kinds) == 1:
        return alone
    rates_nano = {
        kind: round(Fraction(alone.unit_nano * units[kind.instance], units[smallest.instance]))
        for kind in sorted(kinds, key=lambda kind: units[kind.instance])
    }
    return replace(alone, rates_nano=rates_nano)


def _discount(kind: Kind, offer: str, term: str, payment: str, own: Mapping[str, Discount], catalog: Catalog) -> Discount | None:
    mine = own.get(kind.family, own.get(""))
    row = discount_row(catalog, offer, kind.cloud, kind.family, term, payment) if mine is None else None
    if row is None:
        return mine
    return Discount(Fraction(str(row.share)), f"{row.provenance.source}, {row.provenance.date}", row.provenance.confidence)


def _offer(name: str, kinds: Mapping[Kind, tuple[int, Discount]]) -> Offer:
    rates_nano = {kind: round(price_nano * (1 - discount.share)) for kind, (price_nano, discount) in kinds.items()}
    discounts = [discount for _, discount in kinds.values()]
    sources = "; ".join(dict.fromkeys(f"{float(discount.share):.1%}: {discount.source}" for discount in discounts))
    assumed = any(discount.confidence == "assumed" for discount in discounts)
    return Offer(name, rates_nano, "assumed" if assumed else discounts[0].confidence, sources)
