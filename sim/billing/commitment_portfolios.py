"""Sets of commitments that one account could buy, what each saves, and what it costs to have guessed the traffic wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from sim.billing.commitment_choice import HourlyUse, Offer, Outcome, best_promise, cover_all
from sim.billing.commitment_mix import best_mix

MACHINES, INSTANCE_PLANS, COMPUTE_PLAN, MIX = "machines", "instance plans", "compute plan", "machines and compute plan"


@dataclass(frozen=True)
class Offers:
    """All that can be had for some use.

    Parameters
    ----------
    machines : one for each kind. instance_plans : one for each family and region. compute_plan : None where nothing is known of it.
    """

    machines: tuple[Offer, ...]
    instance_plans: tuple[Offer, ...] = ()
    compute_plan: Offer | None = None

    @property
    def portfolios(self) -> tuple[str, ...]:
        """Names of the sets that can be bought."""
        there = ((MACHINES, self.machines), (INSTANCE_PLANS, self.instance_plans), (COMPUTE_PLAN, self.compute_plan))
        names = [name for name, offers in there if offers]
        return (*names, MIX) if self.machines and self.compute_plan is not None else tuple(names)


@dataclass(frozen=True)
class Regret:
    """What levels chosen for one traffic cost under another.

    Parameters
    ----------
    factor : machine time of every hour, against that of the run. saved_nano : what the chosen levels save then; below 0 they cost
        more than they replace. best_nano : what levels chosen for that traffic would save. In nano-dollars over the run's hours.
    """

    factor: Fraction
    saved_nano: int
    best_nano: int

    @property
    def regret_nano(self) -> int:
        """What is lost by having chosen before the traffic was known."""
        return self.best_nano - self.saved_nano


@dataclass(frozen=True)
class Portfolio:
    """A set of commitments at its best levels.

    Parameters
    ----------
    outcomes : of those above level 0, in the order in which they pay. bound_nano : no levels save more, in nano-dollars.
    regrets : one for each traffic asked for.
    """

    name: str
    outcomes: tuple[Outcome, ...]
    bound_nano: int
    regrets: tuple[Regret, ...]

    @property
    def saved_nano(self) -> int:
        """What the bill is smaller by."""
        return sum(outcome.saved_nano for outcome in self.outcomes)

    @property
    def committed_nano(self) -> int:
        """What is paid for the commitments, used or not."""
        return sum(outcome.committed_nano for outcome in self.outcomes)

    @property
    def nano_per_hour(self) -> int:
        """The same for one hour."""
        return sum(outcome.promise.nano_per_hour for outcome in self.outcomes)

    @property
    def used_nano(self) -> int:
        """What of that is spent on use."""
        return sum(outcome.used_nano for outcome in self.outcomes)

    @property
    def replaced_nano(self) -> int:
        """On-demand price of what is covered."""
        return sum(outcome.replaced_nano for outcome in self.outcomes)

    @property
    def assumed_nano(self) -> int:
        """What of the commitments rests on assumed discounts."""
        return sum(each.committed_nano for each in self.outcomes if each.promise.offer.confidence == "assumed")


def best_portfolios(use: HourlyUse, offers: Offers, factors: Sequence[Fraction] = ()) -> list[Portfolio]:
    """Return every set of commitments at the levels that make the bill of some use the smallest, the one that saves most first.

    Machines, and plans for a family in a region, are exact: no kind of use is in two of them. So is the plan for all. Machines and
    plan together are as `best_mix` says.

    Parameters
    ----------
    factors : other traffic, against that of the run, for the regret.
    """
    scaled = {factor: use.scaled(factor) for factor in factors}
    found = []
    for name in offers.portfolios:
        outcomes, bound_nano = _best(use, offers, name)
        promises = [outcome.promise for outcome in outcomes]
        regrets = []
        for factor, other in scaled.items():
            saved_nano = sum(outcome.saved_nano for outcome in cover_all(other, promises))
            best_nano = sum(outcome.saved_nano for outcome in _best(other, offers, name)[0])
            regrets.append(Regret(factor, saved_nano, best_nano))
        bought = tuple(outcome for outcome in outcomes if outcome.promise.level)
        found.append(Portfolio(name, bought, bound_nano, tuple(regrets)))
    return sorted(found, key=lambda portfolio: -portfolio.saved_nano)


def _best(use: HourlyUse, offers: Offers, name: str) -> tuple[Sequence[Outcome], int]:
    """Return the outcomes of a set at its best levels, and the most that it could save."""
    if name == MIX:
        assert offers.compute_plan is not None  # the set has a name
        mix = best_mix(use, offers.machines, offers.compute_plan)
        return mix.outcomes, mix.bound_nano
    chosen = {MACHINES: offers.machines, INSTANCE_PLANS: offers.instance_plans, COMPUTE_PLAN: (offers.compute_plan,)}[name]
    outcomes = cover_all(use, [best_promise(use, offer) for offer in chosen if offer is not None])
    return outcomes, sum(outcome.saved_nano for outcome in outcomes)
