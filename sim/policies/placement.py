"""Placement: how many replicas of a deployment belong in each of its pools. A placement is one class with a `split`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sim.errors import Problems
from sim.registry import register

SPOT = "spot"


@dataclass(frozen=True)
class PoolView:
    """A pool as a placement sees it, with the replicas that one deployment has there.

    Parameters
    ----------
    purchase : "on_demand" or "spot". ready, booting : its replicas by state; draining ones do not count.
    room : how many more could be asked for now, by quota and capacity; None for no bound.
    """

    name: str
    purchase: str
    ready: int
    booting: int
    room: int | None = None

    @property
    def alive(self) -> int:
        """Replicas ready or on their way."""
        return self.ready + self.booting

    @property
    def most(self) -> float:
        """The most replicas it could have now."""
        return math.inf if self.room is None else self.alive + self.room


def fill(wanted: int, pools: Sequence[PoolView]) -> list[int]:
    """Fill pools in order, each as far as quota and capacity allow; what fits nowhere is asked of the last one.

    Examples
    --------
    >>> pools = [PoolView("a", "on_demand", ready=2, booting=0, room=1), PoolView("b", "on_demand", ready=0, booting=0)]
    >>> fill(5, pools)
    [3, 2]
    """
    split = []
    for pool in pools:
        here = int(min(wanted, pool.most))
        split.append(here)
        wanted -= here
    if split:
        split[-1] += wanted
    return split


def _by_purchase(pools: Sequence[PoolView], on_demand: int, spot: int) -> list[int]:
    """Fill the on-demand pools and the spot pools, each group in order."""
    groups = {True: [pool for pool in pools if pool.purchase == SPOT], False: [pool for pool in pools if pool.purchase != SPOT]}
    wanted = {
        **{pool.name: n for pool, n in zip(groups[False], fill(on_demand, groups[False]), strict=True)},
        **{pool.name: n for pool, n in zip(groups[True], fill(spot, groups[True]), strict=True)},
    }
    return [wanted[pool.name] for pool in pools]


class Placement:
    """Base of all placements."""

    def split(self, wanted: int, pools: Sequence[PoolView]) -> list[int]:
        """Return how many replicas belong in each pool, in the order of `pools`.

        Parameters
        ----------
        wanted : replicas the autoscaler wants.
        """
        raise NotImplementedError

    def problems(self, path: str, purchases: Sequence[str], problems: Problems) -> None:
        """Add what is wrong with the configuration, for pools with these purchase options."""


@register("placement", "in_order")
class InOrder(Placement):
    """The first pool as long as it has room, then the next.

    Examples
    --------
    >>> InOrder().split(3, [PoolView("spot", "spot", 1, 0, room=0), PoolView("base", "on_demand", 0, 0)])
    [1, 2]
    """

    def split(self, wanted: int, pools: Sequence[PoolView]) -> list[int]:
        """Fill the pools in order."""
        return fill(wanted, pools)


@register("placement", "on_demand_only")
class OnDemandOnly(Placement):
    """On-demand pools only, whatever spot pools there are."""

    def split(self, wanted: int, pools: Sequence[PoolView]) -> list[int]:
        """Fill the on-demand pools in order."""
        return _by_purchase(pools, wanted, 0)

    def problems(self, path: str, purchases: Sequence[str], problems: Problems) -> None:
        """An on-demand pool is needed."""
        problems.check(any(p != SPOT for p in purchases), path, "on_demand_only", "there is no on-demand pool", "an on-demand pool")


@register("placement", "base_plus_percentage")
class BasePlusPercentage(Placement):
    """An on-demand base, and a percentage of everything above it on demand, the rest on spot; what spot cannot give stays missing.

    The rule of EC2 Auto Scaling groups with mixed instances (OnDemandBaseCapacity, OnDemandPercentageAboveBaseCapacity); the
    percentage is rounded up to whole machines in favour of on-demand (assumed).

    Parameters
    ----------
    base : on-demand replicas first. on_demand_percentage : of the replicas above the base, 0 to 100.

    Examples
    --------
    >>> pools = [PoolView("base", "on_demand", 0, 0), PoolView("spot", "spot", 0, 0)]
    >>> BasePlusPercentage(base=2, on_demand_percentage=25.0).split(9, pools)
    [4, 5]
    """

    base: int = 1
    on_demand_percentage: float = 0.0

    def split(self, wanted: int, pools: Sequence[PoolView]) -> list[int]:
        """Split above the base by percentage."""
        above = max(wanted - self.base, 0)
        on_demand = min(self.base, wanted) + math.ceil(above * self.on_demand_percentage / 100)
        return _by_purchase(pools, on_demand, wanted - on_demand)

    def problems(self, path: str, purchases: Sequence[str], problems: Problems) -> None:
        """Check the numbers and that both kinds of pool are there."""
        share = self.on_demand_percentage
        problems.check(self.base >= 0, f"{path}.base", self.base, "must not be negative", ">= 0")
        problems.check(0 <= share <= 100, f"{path}.on_demand_percentage", share, "is not a percentage", "0 to 100")
        _both_purchases(path, purchases, "base_plus_percentage", problems)


@register("placement", "spot_with_on_demand_fallback")
class SpotWithOnDemandFallback(Placement):
    """Spot above an on-demand base; while spot replicas are missing or booting, on-demand ones stand in for them.

    The dynamic fallback of SkyServe: on-demand = base + max(0, spot wanted - spot READY), at most what is wanted. Every scale-up
    therefore starts on-demand machines too, and gives them back when spot is ready.

    Parameters
    ----------
    base : on-demand replicas always there. overprovision : spot replicas beyond what is wanted.

    Examples
    --------
    >>> fallback = SpotWithOnDemandFallback(base=1)
    >>> fallback.split(4, [PoolView("spot", "spot", ready=1, booting=2), PoolView("od", "on_demand", ready=1, booting=0)])
    [3, 3]
    """

    base: int = 0
    overprovision: int = 0

    def split(self, wanted: int, pools: Sequence[PoolView]) -> list[int]:
        """Ask for spot, and on demand for what spot does not serve yet."""
        base = min(self.base, wanted)
        spot = wanted + self.overprovision - base if wanted else 0
        ready = sum(pool.ready for pool in pools if pool.purchase == SPOT)
        on_demand = min(base + max(0, spot - ready), wanted)
        return _by_purchase(pools, on_demand, spot)

    def problems(self, path: str, purchases: Sequence[str], problems: Problems) -> None:
        """Check the numbers and that both kinds of pool are there."""
        problems.check(self.base >= 0, f"{path}.base", self.base, "must not be negative", ">= 0")
        over = self.overprovision
        problems.check(over >= 0, f"{path}.overprovision", over, "must not be negative", ">= 0")
        _both_purchases(path, purchases, "spot_with_on_demand_fallback", problems)


def _both_purchases(path: str, purchases: Sequence[str], name: str, problems: Problems) -> None:
    spot = [purchase == SPOT for purchase in purchases]
    problems.check(any(spot) and not all(spot), path, name, "needs a spot pool and an on-demand pool", "pools of both kinds")
