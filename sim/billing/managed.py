"""Tariffs of managed offers: the price of a machine with something around it, and the rule of its time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal

from sim.billing.machine_rules import MachineRule
from sim.billing.rates import Rate
from sim.domain.hardware import InstanceType
from sim.domain.managed import ManagedOffer
from sim.units import NANO_PER_USD, NS_PER_S, divide_half_even, nano_usd

# From the surest to the least sure.
_CONFIDENCES = ("published", "fitted", "assumed")


def managed_rule(offer: ManagedOffer) -> MachineRule:
    """Return how an offer turns a life into billed time.

    Examples
    --------
    Vertex AI bills steps of 30 s, so 61 s are 90.

    >>> from sim.catalog.loader import load_catalog
    >>> managed_rule(load_catalog().managed_offers["vertex"]).billed_ns(61 * NS_PER_S) // NS_PER_S
    90
    """
    source = f"{offer.provenance.source}, {offer.provenance.date}"
    granularity_ns, minimum_ns = round(offer.granularity_s * NS_PER_S), round(offer.minimum_s * NS_PER_S)
    return MachineRule(offer.name, granularity_ns, minimum_ns, source, offer.provenance.confidence)


def managed_rates(offer: ManagedOffer, instance: InstanceType, listed: Iterable[Rate]) -> tuple[Rate, ...]:
    """Return the prices of a machine in an offer, oldest first; none where the offer does not rent such machines.

    A factor is over the on-demand price of the machine, half to even to the nano-dollar; a price by accelerator is times theirs.

    Parameters
    ----------
    listed : on-demand prices of the machine, oldest first; only a factor needs them.
    """
    source = f"{offer.provenance.source}, {offer.provenance.date}"
    if not offer.rents(instance):
        return ()
    if offer.usd_per_accelerator_hour:
        nano = instance.accelerators * nano_usd(offer.usd_per_accelerator_hour[instance.accelerator])
        return (Rate(0, nano, _usd(nano), source, offer.provenance.confidence),)
    factor = next(rule.factor for rule in offer.factors if rule.covers(instance.name))
    above, below = Decimal(str(factor)).as_integer_ratio()
    made = []
    for rate in listed:
        nano = divide_half_even(rate.nano_usd_per_hour * above, below)
        worst = max(rate.confidence, offer.provenance.confidence, key=_CONFIDENCES.index)
        made.append(
            replace(
                rate,
                nano_usd_per_hour=nano,
                usd_per_hour=_usd(nano),
                source=f"{rate.source}; x {factor:g}: {source}",
                confidence=worst,
            )
        )
    return tuple(made)


def _usd(nano: int) -> str:
    return f"{(Decimal(nano) / NANO_PER_USD).normalize():f}"
