"""Reserved machines and a Savings Plan together: the levels, and a bound that no levels can beat.

Reserved machines pay first, then the plan pays for the rest, the highest discount first. Filling an hour in that order is the best
use of what was committed (machine time under a reservation costs nothing more, and the rest is a knapsack of divisible things), so
the bill is the value of a linear programme that is convex in all levels together. With levels that need not be whole it is solved
to the end: that is the bound. Machines are whole, so their numbers are then rounded both ways, and the plan is chosen exactly for
each. The best of these is not proved to be the best of all; what it can fall short by is its distance from the bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil, floor

import numpy as np
from scipy import sparse
from scipy.optimize import linprog

from sim.billing.commitment_choice import HourlyUse, Kind, Offer, Outcome, Promise, Segment, best_promise, cover
from sim.units import NANO_PER_USD, NS_PER_HOUR

# Of so many kinds of machines both roundings are tried in all combinations; the others take the nearest number.
MOST_ROUNDED = 4


@dataclass(frozen=True)
class Mix:
    """Commitments that pay one after the other.

    Parameters
    ----------
    outcomes : of each, in the order in which they pay. bound_nano : no levels of these offers save more, in nano-dollars.
    """

    outcomes: tuple[Outcome, ...]
    bound_nano: int

    @property
    def saved_nano(self) -> int:
        """What they save together."""
        return sum(outcome.saved_nano for outcome in self.outcomes)


def best_mix(use: HourlyUse, machines: Sequence[Offer], plan: Offer) -> Mix:
    """Return levels of reserved machines and of a plan for the rest.

    Parameters
    ----------
    machines : offers of machines, no kind in two of them. plan : a Savings Plan.

    Raises
    ------
    RuntimeError : the linear programme could not be solved.

    Notes
    -----
    The plan is exact for the numbers of machines, and the whole is never worse than the best machines alone or the best plan alone.
    """
    levels, bound_nano = _divisible(use, machines, plan)
    ranked = sorted(range(len(machines)), key=lambda number: -levels[number] * machines[number].unit_nano)
    choices: list[tuple[int, ...]] = [()] * len(machines)
    for rank, number in enumerate(ranked):
        # The solver's own error would make 3 of 2.9999999.
        level = round(levels[number], 6)
        choices[number] = tuple(sorted({floor(level), ceil(level)})) if rank < MOST_ROUNDED else (round(level),)
    alone = tuple(best_promise(use, offer).level for offer in machines)
    found = []
    for counts in dict.fromkeys([*product(*choices), alone, (0,) * len(machines)]):
        outcomes, left = [], use
        for offer, count in zip(machines, counts, strict=True):
            outcome, left = cover(left, Promise(offer, count))
            outcomes.append(outcome)
        found.append([*outcomes, cover(left, best_promise(left, plan))[0]])
    best = max(found, key=lambda outcomes: sum(outcome.saved_nano for outcome in outcomes))
    # What the whole numbers save was found exactly; the bound is as exact as the solver.
    saved_nano = sum(outcome.saved_nano for outcome in best)
    return Mix(tuple(best), max(bound_nano, saved_nano))


def _divisible(use: HourlyUse, machines: Sequence[Offer], plan: Offer) -> tuple[list[float], int]:
    """Return the best numbers of machines where they can be divided, and what they save together with the best plan.

    Per hour and segment: machine-hours that a reservation covers, y, and that the plan covers, z; y + z at most the use, the y of
    an offer in units of it at most its machines, the z at the plan's rates at most the plan. Hours that are alike are one, as often
    as they come.
    """
    owners = {kind: number for number, offer in enumerate(machines) for kind in offer.rates_nano}
    hours = _alike(use, sorted({*owners, *plan.rates_nano}))
    if not hours:
        return [0.0] * len(machines), 0
    total_h = sum(use.lengths_ns) / NS_PER_HOUR
    gains = [-total_h * offer.unit_nano / NANO_PER_USD for offer in machines] + [-total_h]
    rows: list[tuple[int, int, float]] = []
    limits: list[float] = []
    uppers: list[float | None] = [None] * len(gains)

    def limit(entries: Sequence[tuple[int, float]], most: float) -> None:
        rows.extend((len(limits), column, factor) for column, factor in entries)
        limits.append(most)

    for (length_ns, segments), times in hours.items():
        length_h = length_ns / NS_PER_HOUR
        of_plan: list[tuple[int, float]] = [(len(machines), -length_h)]
        of_offer: dict[int, list[tuple[int, float]]] = {}
        for kind, segment in segments:
            used_h, price = segment.length_ns / NS_PER_HOUR, segment.price_nano / NANO_PER_USD
            own = []
            if kind in owners:
                offer = machines[owners[kind]]
                of_offer.setdefault(owners[kind], []).append((len(gains), offer.rates_nano[kind] / offer.unit_nano))
                own.append((len(gains), 1.0))
                gains.append(times * price)
            if kind in plan.rates_nano:
                of_plan.append((len(gains), plan.rates_nano[kind] / NANO_PER_USD))
                own.append((len(gains), 1.0))
                gains.append(times * price)
            uppers += [used_h] * len(own)
            if len(own) == 2:
                limit(own, used_h)
        for number, entries in of_offer.items():
            limit([(number, -length_h), *entries], 0.0)
        limit(of_plan, 0.0)
    row, column, factor = (np.array(values) for values in zip(*rows, strict=True))
    matrix = sparse.csr_array((factor, (row, column)), shape=(len(limits), len(gains)))
    solved = linprog(-np.array(gains), matrix, np.array(limits), bounds=[(0.0, upper) for upper in uppers], method="highs")
    if not solved.success:
        raise RuntimeError(f"the mix of commitments could not be solved: {solved.message}")
    return [float(level) for level in solved.x[: len(machines)]], round(-solved.fun * NANO_PER_USD)


_Hour = tuple[int, tuple[tuple[Kind, Segment], ...]]


def _alike(use: HourlyUse, kinds: Sequence[Kind]) -> dict[_Hour, int]:
    """Return the hours that have use of some kinds, and how often each comes."""
    found: dict[_Hour, int] = {}
    for number, length_ns in enumerate(use.lengths_ns):
        segments = tuple((kind, each) for kind in kinds for each in use.uses.get(kind, {}).get(number, ()) if each.length_ns)
        if segments:
            found[length_ns, segments] = found.get((length_ns, segments), 0) + 1
    return found
