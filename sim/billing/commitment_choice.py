"""Which commitment would have made the bill of some hours of use the smallest: exact, at a quantile of the use.

A commitment of level n costs n units every hour, used or not, and takes the place of use at the on-demand price. In an hour the
bill is a line that goes down while one more unit of commitment replaces dearer use and goes up once none is left, so the bill of
all hours is piecewise linear in the level and bends only where an hour's use ends. For n reserved machines at the rate r in H hours
of use u_h at the price p it is

    n r H + sum over h of max(u_h - n, 0) p,

which is least at the n for which the share of hours with u_h > n crosses r / p: a quantile of the use. A Savings Plan is the same
on the dollars that the use of each hour costs at the plan's rates, the highest discount first: of two dollars of plan the first
saves at least as much as the second, so its bill is convex and its minimum is a bend. All bends are looked at; nothing is searched.

Sums are integers of nano-dollar x nanosecond per hour, so that nothing is rounded before the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from sim.domain.pricing import family_of
from sim.units import NS_PER_HOUR

# A Savings Plan is bought in steps of 0.00001 USD an hour, 0.001 at least: AWS, API reference of Savings Plans (CreateSavingsPlan,
# `commitment`: from 0.001 to 1 million, five digits after the point), read 2026-11-23.
PLAN_STEP_NANO, PLAN_LEAST_STEPS = 10_000, 100
RESERVED_MACHINES, COMMITTED_MACHINES, AZURE_MACHINES = "reserved_instances", "committed_use", "azure_reservation"
INSTANCE_SAVINGS_PLAN, COMPUTE_SAVINGS_PLAN = "instance_savings_plan", "compute_savings_plan"
_OF_MACHINES = (RESERVED_MACHINES, COMMITTED_MACHINES, AZURE_MACHINES)


@dataclass(frozen=True, order=True)
class Kind:
    """Machines of one type in one region of a cloud: what a reserved machine covers."""

    cloud: str
    region: str
    instance: str

    @property
    def family(self) -> str:
        """The family of the type."""
        return family_of(self.instance)


@dataclass(frozen=True)
class Segment:
    """Machine time of one kind in one hour at one on-demand price.

    Parameters
    ----------
    length_ns : machine time, of all machines together. price_nano : on-demand price in nano-dollars per hour.
    """

    length_ns: int
    price_nano: int


@dataclass(frozen=True)
class HourlyUse:
    """What a commitment may cover in each hour of a run.

    Parameters
    ----------
    lengths_ns : of every hour, with those without use; the first and the last may be parts of an hour.
    uses : kind -> number of the hour -> segments, in the order in which reserved machines cover them.

    Examples
    --------
    >>> kind, hour = Kind("aws", "us-east-1", "p5.4xlarge"), NS_PER_HOUR
    >>> use = HourlyUse((hour, hour), {kind: {0: (Segment(3 * hour, 6_880_000_000),)}})
    >>> use.on_demand_nano() / 10**9, use.machines(kind)
    (20.64, (3.0, 0.0))
    """

    lengths_ns: tuple[int, ...]
    uses: Mapping[Kind, Mapping[int, tuple[Segment, ...]]]

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds that have use, in order."""
        return tuple(sorted(kind for kind, hours in self.uses.items() if hours))

    def on_demand_nano(self, kinds: Sequence[Kind] | None = None) -> int:
        """Return the price of the use on demand in nano-dollars, half to even; of all kinds where none are given."""
        chosen = self.uses if kinds is None else [kind for kind in kinds if kind in self.uses]
        segments = (each for kind in chosen for hour in self.uses[kind].values() for each in hour)
        return round(Fraction(sum(each.length_ns * each.price_nano for each in segments), NS_PER_HOUR))

    def first_price_nano(self, kind: Kind) -> int:
        """Return the first price the run paid for a kind, in nano-dollars per hour."""
        hours = self.uses[kind]
        return hours[min(hours)][0].price_nano

    def machines(self, kind: Kind) -> tuple[float, ...]:
        """Return the mean number of machines of a kind in each hour, shape (hours,)."""
        hours = self.uses.get(kind, {})
        return tuple(
            sum(each.length_ns for each in hours.get(number, ())) / length_ns for number, length_ns in enumerate(self.lengths_ns)
        )

    def scaled(self, factor: Fraction) -> HourlyUse:
        """Return the use with the machine time of every hour times a factor: the rule for more or less traffic.

        It takes machines as divisible and traffic as the only thing that asks for them. A fleet has a least size, whole machines
        and an autoscaler; only another run knows them.
        """
        return HourlyUse(
            self.lengths_ns,
            {
                kind: {
                    number: tuple(Segment(math.floor(each.length_ns * factor), each.price_nano) for each in hour)
                    for number, hour in hours.items()
                }
                for kind, hours in self.uses.items()
            },
        )


@dataclass(frozen=True)
class Offer:
    """A commitment that can be had, of no particular level.

    Parameters
    ----------
    name : one of the choices of `commitments:` in a scenario. rates_nano : kind -> committed price of a machine in nano-dollars per
        hour, all payments together; reserved machines have one kind, or the sizes of a family that they cover, whose rates are in
        proportion to their units, the size that is bought first. confidence, source : of the discount, the latter for people.
    """

    name: str
    rates_nano: Mapping[Kind, int]
    confidence: str
    source: str

    @property
    def of_machines(self) -> bool:
        """Whether its level is a number of machines and not dollars an hour."""
        return self.name in _OF_MACHINES

    @property
    def unit_nano(self) -> int:
        """Price of one unit of its level in nano-dollars per hour."""
        return next(iter(self.rates_nano.values())) if self.of_machines else PLAN_STEP_NANO

    @property
    def least(self) -> int:
        """The smallest level above 0 that can be bought."""
        return 1 if self.of_machines else PLAN_LEAST_STEPS

    def pieces(self, use: HourlyUse) -> Iterator[tuple[int, list[tuple[Kind, int, Segment]]]]:
        """Yield each hour with use that it may cover: its number, and (kind, number of the segment, segment) in order of covering.

        Reserved machines cover the smallest size first. A plan covers the highest saving in per cent first, ties by the lowest
        rate, and never use that is cheaper on demand.
        """
        hours = sorted({number for kind in self.rates_nano for number in use.uses.get(kind, {})})
        for number in hours:
            found = [
                (kind, place, segment)
                for kind in sorted(self.rates_nano, key=lambda kind: (self.rates_nano[kind] if self.of_machines else 0, kind))
                for place, segment in enumerate(use.uses.get(kind, {}).get(number, ()))
                if segment.length_ns and (self.of_machines or self.rates_nano[kind] < segment.price_nano)
            ]
            if not self.of_machines:
                found.sort(key=lambda item: (Fraction(self.rates_nano[item[0]], item[2].price_nano), self.rates_nano[item[0]]))
            yield number, found


@dataclass(frozen=True)
class Promise:
    """An offer at a level: machines, or steps of `PLAN_STEP_NANO` an hour."""

    offer: Offer
    level: int

    @property
    def nano_per_hour(self) -> int:
        """What it costs in an hour, used or not."""
        return self.level * self.offer.unit_nano


@dataclass(frozen=True)
class Outcome:
    """What a promise does to a bill.

    Parameters
    ----------
    committed_nano : what it costs over all hours. used_nano : what of that was spent on use.
    replaced_nano : on-demand price of what it covered. All in nano-dollars.
    """

    promise: Promise
    committed_nano: int
    used_nano: int
    replaced_nano: int

    @property
    def saved_nano(self) -> int:
        """What the bill is smaller by; negative where it is larger."""
        return self.replaced_nano - self.committed_nano

    @property
    def utilisation(self) -> float | None:
        """Share of the commitment that was used; None for none."""
        return self.used_nano / self.committed_nano if self.committed_nano else None

    @property
    def break_even(self) -> float | None:
        """Share of the term for which this use must go on for the promise to pay for itself; None where it replaced nothing."""
        return self.committed_nano / self.replaced_nano if self.replaced_nano else None


def cover(use: HourlyUse, promise: Promise) -> tuple[Outcome, HourlyUse]:
    """Return what a promise does to the bill of some use, and the use that is left for the next one.

    Examples
    --------
    >>> kind, hour = Kind("aws", "us-east-1", "p5.4xlarge"), NS_PER_HOUR
    >>> use = HourlyUse((hour, hour), {kind: {0: (Segment(3 * hour, 10_000_000_000),)}})
    >>> done, left = cover(use, Promise(Offer("reserved_instances", {kind: 6_000_000_000}, "assumed", "an example"), 2))
    >>> done.committed_nano / 10**9, done.replaced_nano / 10**9, done.utilisation, left.machines(kind)
    (24.0, 20.0, 0.5, (1.0, 0.0))
    """
    offer, used, replaced = promise.offer, 0, 0
    left = {kind: dict(hours) for kind, hours in use.uses.items()}
    for number, pieces in offer.pieces(use):
        free = promise.nano_per_hour * use.lengths_ns[number]
        for kind, place, segment in pieces:
            length_ns = min(segment.length_ns, free // offer.rates_nano[kind])
            free -= length_ns * offer.rates_nano[kind]
            used += length_ns * offer.rates_nano[kind]
            replaced += length_ns * segment.price_nano
            segments = list(left[kind][number])
            segments[place] = Segment(segment.length_ns - length_ns, segment.price_nano)
            left[kind][number] = tuple(segments)
    committed = promise.nano_per_hour * sum(use.lengths_ns)
    sums = (round(Fraction(total, NS_PER_HOUR)) for total in (committed, used, replaced))
    return Outcome(promise, *sums), HourlyUse(use.lengths_ns, left)


def cover_all(use: HourlyUse, promises: Sequence[Promise]) -> list[Outcome]:
    """Return what promises do to a bill, one after the other, in the order in which they pay."""
    outcomes = []
    for promise in promises:
        outcome, use = cover(use, promise)
        outcomes.append(outcome)
    return outcomes


def best_promise(use: HourlyUse, offer: Offer) -> Promise:
    """Return the level of an offer that makes the bill of some use the smallest, exactly; the lowest of several.

    Examples
    --------
    Three machines in 6 of 10 hours and one in the others, at 10 USD, reserved for 6: a second and a third machine are used in 60 %
    of the hours and cost 60 % of the price, so they save nothing.

    >>> kind, hour = Kind("aws", "us-east-1", "p5.4xlarge"), NS_PER_HOUR
    >>> used = {number: (Segment((3 if number < 6 else 1) * hour, 10_000_000_000),) for number in range(10)}
    >>> use = HourlyUse((hour,) * 10, {kind: used})
    >>> best_promise(use, Offer("reserved_instances", {kind: 6_000_000_000}, "assumed", "an example")).level
    1
    >>> best_promise(use, Offer("reserved_instances", {kind: 5_900_000_000}, "assumed", "an example")).level
    3
    """
    unit_nano = offer.unit_nano
    slope = Fraction(-unit_nano * sum(use.lengths_ns))
    bends: dict[Fraction, Fraction] = {}
    for number, pieces in offer.pieces(use):
        # Of one unit of level in this hour, in nano-dollar x nanosecond.
        unit = unit_nano * use.lengths_ns[number]
        level = Fraction(0)
        for kind, _, segment in pieces:
            gain = Fraction(unit * segment.price_nano, offer.rates_nano[kind])
            if level:
                bends[level] = bends.get(level, Fraction(0)) + gain
            else:
                slope += gain
            level += Fraction(segment.length_ns * offer.rates_nano[kind], unit)
            bends[level] = bends.get(level, Fraction(0)) - gain
    return Promise(offer, _highest(slope, bends, offer.least))


def _highest(slope: Fraction, bends: Mapping[Fraction, Fraction], least: int) -> int:
    """Return 0 or the whole level from `least` on at which a saving is largest that starts at 0 with a slope and bends at levels.

    Between two bends the saving is a line, so one of the whole levels beside a bend has the largest.
    """
    # At a whole level k the saving is slope k + sum of change (k - bend) over the bends up to k: those with ceil(bend) <= k.
    changes: dict[int, Fraction] = {}
    offsets: dict[int, Fraction] = {}
    wholes = {least}
    for bend, change in bends.items():
        above = math.ceil(bend)
        changes[above] = changes.get(above, Fraction(0)) + change
        offsets[above] = offsets.get(above, Fraction(0)) + change * bend
        wholes |= {above, math.floor(bend)}
    best_level, best_saving, offset = 0, Fraction(0), Fraction(0)
    for level in sorted(wholes):
        slope += changes.get(level, 0)
        offset += offsets.get(level, 0)
        saving = slope * level - offset
        if level >= least and saving > best_saving:
            best_level, best_saving = level, saving
    return best_level
