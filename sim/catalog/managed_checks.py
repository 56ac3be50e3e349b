"""What a row of `managed_offers` says about itself, beyond the types of its fields."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import DecimalException

from sim.domain.managed import ManagedOffer
from sim.errors import Problems
from sim.units import nano_usd


def check_managed_offer(row: ManagedOffer, accelerators: Iterable[str], path: str, problems: Problems) -> None:
    """Check that there is one kind of price, that prices are dollars and that accelerators are known."""
    kinds = bool(row.factors) + bool(row.usd_per_accelerator_hour)
    problems.check(kinds == 1, path, row.name, "needs factors or usd_per_accelerator_hour", "one of the two")
    problems.check(row.granularity_s > 0, f"{path}.granularity_s", row.granularity_s, "is no step", "above 0")
    for number, rule in enumerate(row.factors):
        problems.check(rule.factor > 0, f"{path}.factors.{number}.factor", rule.factor, "is no factor", "above 0")
    known = tuple(accelerators)
    for name, text in row.usd_per_accelerator_hour.items():
        where = f"{path}.usd_per_accelerator_hour.{name}"
        problems.check(name in known, where, name, "no such row in accelerators", choices=known)
        try:
            problems.check(nano_usd(text) > 0, where, text, "is out of range", "above 0 USD, in quotes, to the nano-dollar")
        except (DecimalException, ValueError):
            problems.add(where, text, "is not an amount of dollars", 'USD in quotes, for instance "3.95"')
