"""Discounts for promises and for use, as rows of the catalog."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fractions import Fraction

from sim.domain.hardware import Provenance

TERMS = ("1y", "3y")
# Amazon EC2 user guide, reserved instances: a year is 31,536,000 s, three years 94,608,000 s. Read 2026-11-23.
TERM_HOURS = {"1y": 8_760, "3y": 26_280}
RESERVED, INSTANCE_PLAN, COMPUTE_PLAN = "reserved", "instance_plan", "compute_plan"
COMMITTED_USE, FLEXIBLE_COMMITTED_USE = "committed_use", "flexible_committed_use"
OFFERS = (RESERVED, INSTANCE_PLAN, COMPUTE_PLAN, COMMITTED_USE, FLEXIBLE_COMMITTED_USE)
NO_UPFRONT, PARTIAL_UPFRONT, ALL_UPFRONT = "no_upfront", "partial_upfront", "all_upfront"
PAYMENTS = (NO_UPFRONT, PARTIAL_UPFRONT, ALL_UPFRONT)
LINUX, RHEL, SUSE, WINDOWS = "linux", "rhel", "suse", "windows"
OPERATING_SYSTEMS = (LINUX, RHEL, SUSE, WINDOWS)
_BELOW_LARGE = {
    "nano": Fraction(1, 4), "micro": Fraction(1, 2), "small": Fraction(1), "medium": Fraction(2), "large": Fraction(4),
    "xlarge": Fraction(8),
}  # fmt: skip


def family_of(instance: str) -> str:
    """Return the family of an instance type: what comes before the first "." or "-".

    Examples
    --------
    >>> [family_of(name) for name in ("p5.48xlarge", "g2-standard-4", "ct5lp-hightpu-4t")]
    ['p5', 'g2', 'ct5lp']
    """
    return re.split("[.-]", instance, maxsplit=1)[0]


def normalization_factor(instance: str) -> Fraction | None:
    """Return the normalized units of an EC2 instance type by its size, or None for a size that has none.

    Notes
    -----
    Source: Amazon EC2 user guide, how reserved instances are applied: 0.25 for nano to 8 for xlarge, then 8 for each xlarge, up to
    112xlarge. Bare metal has none. Read 2026-11-23 in copies of the page.

    Examples
    --------
    >>> [str(normalization_factor(name)) for name in ("t2.nano", "m7i.large", "m7i.xlarge", "m7i.48xlarge", "m5.metal")]
    ['1/4', '4', '8', '384', 'None']
    """
    size = instance.partition(".")[2]
    if size in _BELOW_LARGE:
        return _BELOW_LARGE[size]
    match = re.fullmatch(r"([1-9][0-9]*)xlarge", size)
    return None if match is None else 8 * Fraction(match[1])


@dataclass(frozen=True)
class SizeFlexibility:
    """Whether reserved machines of a family cover its other sizes.

    Parameters
    ----------
    cloud : whose. families : of instance types, whose sizes have normalized units. ratios : instance type -> units, for clouds that
        publish a ratio for each type; only these cover each other. flexible : whether they do.
    """

    name: str
    cloud: str
    flexible: bool
    provenance: Provenance
    families: tuple[str, ...] = ()
    ratios: dict[str, float] = field(default_factory=dict)
    notes: str = field(default="")


@dataclass(frozen=True)
class CommitmentDiscount:
    """What a promise saves against the on-demand price.

    Parameters
    ----------
    cloud : whose. offers : "reserved", "instance_plan", "compute_plan", "committed_use" or "flexible_committed_use".
    families : of instance types. term : "1y" or "3y". share : saved, of the on-demand price, all payments together.
    payments : "no_upfront", "partial_upfront" or "all_upfront"; those that have this discount.
    """

    name: str
    cloud: str
    offers: tuple[str, ...]
    families: tuple[str, ...]
    term: str
    share: float
    provenance: Provenance
    payments: tuple[str, ...] = (NO_UPFRONT,)
    notes: str = field(default="")


@dataclass(frozen=True)
class SustainedUse:
    """Prices that fall with the part of a month a machine is used.

    Parameters
    ----------
    cloud : whose. families : of instance types. tiers : share of the price in each part of the month, the parts equally long.

    Examples
    --------
    >>> SustainedUse("n1", "gcp", ("n1",), (1.0, 0.8, 0.6, 0.4), Provenance("an example", "2026-01-01", "assumed")).full_month_share
    0.7
    """

    name: str
    cloud: str
    families: tuple[str, ...]
    tiers: tuple[float, ...]
    provenance: Provenance
    notes: str = field(default="")

    @property
    def full_month_share(self) -> float:
        """Share of the price that a machine used all month costs."""
        return round(sum(self.tiers) / len(self.tiers), 9)
