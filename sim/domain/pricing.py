"""Discounts for promises and for use, as rows of the catalog."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from sim.domain.hardware import Provenance

TERMS = ("1y", "3y")
RESERVED, INSTANCE_PLAN, COMPUTE_PLAN, COMMITTED_USE = "reserved", "instance_plan", "compute_plan", "committed_use"
OFFERS = (RESERVED, INSTANCE_PLAN, COMPUTE_PLAN, COMMITTED_USE)


def family_of(instance: str) -> str:
    """Return the family of an instance type: what comes before the first "." or "-".

    Examples
    --------
    >>> [family_of(name) for name in ("p5.48xlarge", "g2-standard-4", "ct5lp-hightpu-4t")]
    ['p5', 'g2', 'ct5lp']
    """
    return re.split("[.-]", instance, maxsplit=1)[0]


@dataclass(frozen=True)
class CommitmentDiscount:
    """What a promise saves against the on-demand price.

    Parameters
    ----------
    cloud : whose. offers : "reserved", "instance_plan", "compute_plan" or "committed_use". families : of instance types.
    term : "1y" or "3y", nothing paid up front. share : saved, of the on-demand price.
    """

    name: str
    cloud: str
    offers: tuple[str, ...]
    families: tuple[str, ...]
    term: str
    share: float
    provenance: Provenance
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
