"""Offers that rent a machine with something around it: a factor over its price, or a price of their own by accelerator."""

from __future__ import annotations

from dataclasses import dataclass, field

from sim.domain.hardware import InstanceType, Provenance
from sim.domain.pricing import family_of

ANY_CLOUD = "any"


@dataclass(frozen=True)
class PriceFactor:
    """A factor over the on-demand price of some instance types.

    Parameters
    ----------
    families : of instance types; none means all. sizes : what comes after the family's name ("xlarge"); none means all.
    factor : over the on-demand price.
    """

    factor: float
    families: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ()

    def covers(self, instance: str) -> bool:
        """Whether it holds for an instance type.

        Examples
        --------
        >>> rule = PriceFactor(1.4, ("g5",), ("xlarge",))
        >>> rule.covers("g5.xlarge"), rule.covers("g5.2xlarge"), PriceFactor(1.25).covers("g5.2xlarge")
        (True, False, True)
        """
        family = family_of(instance)
        return (not self.families or family in self.families) and (not self.sizes or instance[len(family) + 1 :] in self.sizes)


@dataclass(frozen=True)
class ManagedOffer:
    """How an offer bills the time of a machine.

    Parameters
    ----------
    cloud : whose machines; "any" where the offer has its own and is compared by accelerator.
    granularity_s : a life is rounded up to whole ones of it, once. minimum_s : at least this is billed.
    longest_h : a machine ends after this; 0 for no limit.
    factors : over the on-demand price, the first that covers a type holds. usd_per_accelerator_hour : accelerator -> price; one of
        the two.
    """

    cloud: str
    granularity_s: float
    name: str
    provenance: Provenance
    minimum_s: float = 0.0
    longest_h: float = 0.0
    factors: tuple[PriceFactor, ...] = ()
    usd_per_accelerator_hour: dict[str, str] = field(default_factory=dict)
    notes: str = ""

    def rents(self, instance: InstanceType) -> bool:
        """Whether the offer has machines like this one."""
        if self.usd_per_accelerator_hour:
            return instance.accelerator in self.usd_per_accelerator_hour and self.cloud in (ANY_CLOUD, instance.cloud)
        return instance.cloud == self.cloud and any(rule.covers(instance.name) for rule in self.factors)
