"""What commitments pay of an hour's use: the waterfall from reserved machines to on demand.

One hour of the account is settled at a time, over all leases; nothing is carried from one hour to the next. Use is covered in this
order, each in the order of the leases unless said otherwise:

1. capacity reservations: what of them stands empty is use, too, at the on-demand rate;
2. reserved machines: of a zone before those of a region; they cover machine time of the hour, whether at once or one after another;
3. Savings Plans for a family, then those for all: use with the highest saving in per cent first, ties to the lowest plan rate;
4. sustained-use tiers of what is left; 5. the on-demand price.

What a commitment has left at the end of the hour is lost. A part of an hour (of the run, or of the commitment's time) has that part
of the commitment.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Protocol

from sim.billing.rates import Rate, rate_at
from sim.units import NANO_PER_USD, NS_PER_HOUR, NS_PER_S, divide_half_even

MACHINE_UNIT = "instance-second"
# What a charge is for: use of an hour, or something bought in advance.
USAGE, PURCHASE = "usage", "purchase"
CAPACITY_RESERVATION = "capacity_reservation"


@dataclass(frozen=True)
class Place:
    """What decides which commitments may cover the machines of a pool.

    Parameters
    ----------
    pool, cloud, instance, family, region : names. purchase : option of the pool. deployments : that may use it.
    """

    pool: str
    cloud: str
    instance: str
    family: str
    region: str
    purchase: str
    deployments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Piece:
    """A part of an item of use at one price.

    Parameters
    ----------
    length_ns : machine time. amount_nano : its price on the invoice. effective_nano : with its share of what was paid
        up front. list_nano : its on-demand price. rate : per hour. purchase, tariff : option and rule, for the ledger.
    commitment : name of the one that paid; "" for none.
    """

    length_ns: int
    amount_nano: int
    effective_nano: int
    list_nano: int
    rate: Rate
    purchase: str
    tariff: str
    commitment: str = ""


@dataclass
class Use:
    """Machine time of one machine in one hour at one on-demand price.

    Parameters
    ----------
    start_ns, end_ns : when. rate : on-demand price. tariff : rule that measured it. running : whether a machine ran then (and it is
        no time charged beyond its end). reservation : of capacity, which stood empty then; "" for a machine.
    """

    place: Place
    zone: str
    start_ns: int
    end_ns: int
    rate: Rate
    tariff: str
    running: bool = True
    reservation: str = ""
    pieces: list[Piece] = field(default_factory=list)
    covered_ns: int = 0

    @property
    def left_ns(self) -> int:
        """Machine time that nothing has paid for yet."""
        return self.end_ns - self.start_ns - self.covered_ns

    def pay(
        self,
        length_ns: int,
        amount_nano: int,
        rate: Rate,
        purchase: str,
        tariff: str,
        commitment: str = "",
        effective_nano: int | None = None,
    ) -> None:
        """Pay for some of what is left.

        Parameters
        ----------
        effective_nano : with its share of what was paid up front; None where nothing was.
        """
        self.covered_ns += length_ns
        effective_nano = amount_nano if effective_nano is None else effective_nano
        listed_nano = cost_nano(self.rate, length_ns)
        self.pieces.append(Piece(length_ns, amount_nano, effective_nano, listed_nano, rate, purchase, tariff, commitment))

    def pay_rest(self) -> None:
        """Pay for what is left at the on-demand price."""
        if self.left_ns or not self.pieces:
            left_ns = self.left_ns
            self.pay(left_ns, cost_nano(self.rate, left_ns), self.rate, self.place.purchase, self.tariff, self.reservation)


@dataclass(frozen=True)
class Unused:
    """A charge of an hour that belongs to no machine: what a commitment has left, or what is paid in advance.

    Parameters
    ----------
    name : of the commitment, or of the pool that has machines of its own. pool : "" for none.
    quantity, unit, unit_price : how much, as the ledger shows it. amount_nano : its price on the invoice. effective_nano : with its
        share of what was paid up front. list_nano : its on-demand price.
    deployments : that pay for it; none leaves it to the account.
    """

    name: str
    pool: str
    purchase: str
    tariff: str
    quantity: Decimal
    unit: str
    unit_price: str
    amount_nano: int
    effective_nano: int
    list_nano: int
    source: str
    confidence: str
    deployments: tuple[str, ...] = ()
    category: str = "commitment_waste"
    charge: str = USAGE

    @property
    def commitment(self) -> str:
        """Name of the commitment, "" where it is the machines of a pool."""
        return "" if self.pool else self.name


def cost_nano(rate: Rate, length_ns: int) -> int:
    """Return the price of machine time in nano-dollars, half to even."""
    return divide_half_even(rate.nano_usd_per_hour * length_ns, NS_PER_HOUR)


@dataclass(frozen=True)
class Span:
    """When a commitment holds, in nanoseconds since the start of the run; None is before or after it."""

    begins_ns: int | None = None
    ends_ns: int | None = None

    def within_ns(self, start_ns: int, end_ns: int) -> int:
        """Return how much of [start_ns, end_ns) lies in it.

        Examples
        --------
        >>> Span(10, None).within_ns(5, 12), Span().within_ns(5, 12), Span(20, 30).within_ns(5, 12)
        (2, 7, 0)
        """
        first = start_ns if self.begins_ns is None else max(start_ns, self.begins_ns)
        last = end_ns if self.ends_ns is None else min(end_ns, self.ends_ns)
        return max(last - first, 0)


class Coverage(Protocol):
    """A commitment that pays for use of an hour."""

    def cover(self, start_ns: int, end_ns: int, uses: Sequence[Use]) -> Unused | None:
        """Pay for what it covers of the use in the hour [start_ns, end_ns), and return what it has left, if it has any."""


@dataclass(frozen=True)
class Machines:
    """Machines that are paid for every hour: reserved, committed or one's own.

    The charge of an hour is `count` machines at `rate`, whatever runs; covered use and what is unused add up to it exactly.

    Parameters
    ----------
    name : of the commitment. pool : covers only this pool; "" covers every pool of `instance` in `region`.
    zone : covers only this zone; "" covers all. count : machines. rate : of one, per hour.
    purchase, tariff : how covered use is shown. deployments : that pay for what is unused; none leaves it to the account.
    listed : on-demand prices of one, oldest first; none where they are not known.
    """

    name: str
    pool: str
    instance: str
    region: str
    zone: str
    count: int
    rate: Rate
    span: Span
    purchase: str
    tariff: str
    deployments: tuple[str, ...] = ()
    listed: tuple[Rate, ...] = ()

    @property
    def commitment(self) -> str:
        """Name of the commitment, "" where it is the machines of a pool."""
        return "" if self.pool else self.name

    def covers(self, use: Use) -> bool:
        """Whether it may pay for this use."""
        place = use.place
        if self.pool:
            return place.pool == self.pool
        same = place.purchase == "on_demand" and place.instance == self.instance and place.region == self.region
        return same and self.zone in ("", use.zone)

    def cover(self, start_ns: int, end_ns: int, uses: Sequence[Use]) -> Unused | None:
        """Pay for what it covers of the use in the hour [start_ns, end_ns), and return what it has left, if it has any."""
        paid_ns = self.count * self.span.within_ns(start_ns, end_ns)
        done_ns = booked_nano = 0
        for use in uses:
            length_ns = min(use.left_ns, paid_ns - done_ns)
            if length_ns > 0 and self.covers(use):
                done_ns += length_ns
                # The difference of rounded sums, so that the rows of an hour never add up to more than its charge.
                amount_nano = cost_nano(self.rate, done_ns) - booked_nano
                booked_nano += amount_nano
                use.pay(length_ns, amount_nano, self.rate, self.purchase, self.tariff, self.commitment)
        left_ns = paid_ns - done_ns
        if left_ns == 0 or self.rate.nano_usd_per_hour == 0:
            return None
        amount_nano = cost_nano(self.rate, paid_ns) - booked_nano
        # What is left of an hour is at no time of it, so it has the list price of the hour's start.
        list_nano = cost_nano(rate_at(self.listed, start_ns), left_ns) if self.listed else amount_nano
        return Unused(
            self.name, self.pool, self.purchase, self.tariff, Decimal(left_ns) / NS_PER_S, MACHINE_UNIT,
            f"{self.rate.usd_per_hour} per hour", amount_nano, amount_nano, list_nano, self.rate.source, self.rate.confidence,
            self.deployments,
        )  # fmt: skip


class PlanRates(Protocol):
    """What a Savings Plan charges for a machine."""

    def __call__(self, place: Place) -> Rate | None:
        """Return the plan's rate for machines of a place, or None where it does not cover them."""


@dataclass(frozen=True)
class Plan:
    """Dollars an hour that are spent on use at the plan's rates, or lost.

    Parameters
    ----------
    nano_usd_per_hour : the commitment. rates : of the plan; None where it does not cover a place.
    """

    name: str
    nano_usd_per_hour: int
    rates: PlanRates
    span: Span
    tariff: str
    source: str
    confidence: str

    def cover(self, start_ns: int, end_ns: int, uses: Sequence[Use]) -> Unused | None:
        """Pay for what it covers of the use in the hour [start_ns, end_ns), and return what it has left, if it has any."""
        left_nano = divide_half_even(self.nano_usd_per_hour * self.span.within_ns(start_ns, end_ns), NS_PER_HOUR)
        for use, rate in self._in_order(uses):
            length_ns, amount_nano = use.left_ns, cost_nano(rate, use.left_ns)
            if amount_nano > left_nano:
                length_ns = left_nano * NS_PER_HOUR // rate.nano_usd_per_hour
                amount_nano = cost_nano(rate, length_ns)
            if length_ns:
                left_nano -= amount_nano
                use.pay(length_ns, amount_nano, rate, "savings_plan", self.tariff, self.name)
        if left_nano == 0:
            return None
        return Unused(
            self.name, "", "savings_plan", self.tariff, Decimal(left_nano) / NANO_PER_USD, "USD committed", "1 per USD committed",
            left_nano, left_nano, left_nano, self.source, self.confidence,
        )  # fmt: skip

    def _in_order(self, uses: Sequence[Use]) -> list[tuple[Use, Rate]]:
        """Return the use it may pay for: the highest saving in per cent first, then the lowest rate, then by lease."""
        found: list[tuple[Fraction, int, int, Use, Rate]] = []
        for number, use in enumerate(uses):
            rate = self.rates(use.place) if use.left_ns and use.place.purchase == "on_demand" else None
            listed_nano = use.rate.nano_usd_per_hour
            # A rate above the price of the day is never chosen: the use is cheaper on demand.
            if rate is not None and 0 < rate.nano_usd_per_hour < listed_nano:
                share = Fraction(rate.nano_usd_per_hour, listed_nano)
                found.append((share, rate.nano_usd_per_hour, number, use, rate))
        return [(use, rate) for _, _, _, use, rate in sorted(found, key=lambda item: item[:3])]


@dataclass(frozen=True)
class Reservation:
    """On-demand capacity that is kept in a zone: what stands empty is charged as if it ran.

    Parameters
    ----------
    place : whose `instance` and `region` are kept. rates : on-demand prices, oldest first; see `sim.billing.rates.rate_at`.
    """

    name: str
    place: Place
    zone: str
    count: int
    rate_at: RateAt
    span: Span

    def kept_at(self, t_ns: int) -> int:
        """Return how many machines are kept at a time."""
        return self.count if self.span.within_ns(t_ns, t_ns + 1) else 0

    def keeps(self, use: Use) -> bool:
        """Whether a running machine takes one of the places that are kept."""
        place = use.place
        same = (place.instance, place.region, use.zone) == (self.place.instance, self.place.region, self.zone)
        return same and use.running and place.purchase == "on_demand"

    def empty(self, start_ns: int, end_ns: int, uses: Sequence[Use], earlier: Sequence[Reservation]) -> list[Use]:
        """Return the empty machine time of [start_ns, end_ns) as use, by pieces of time in which as many stand empty.

        Parameters
        ----------
        earlier : reservations of the same machines, which running ones fill first.
        """
        there = [use for use in uses if self.keeps(use)]
        times = [time_ns for use in there for time_ns in (use.start_ns, use.end_ns)]
        times += [
            time_ns for each in (self, *earlier) for time_ns in (each.span.begins_ns, each.span.ends_ns) if time_ns is not None
        ]
        found = []
        for begin_ns, finish_ns in pairwise(sorted({start_ns, end_ns, *(t_ns for t_ns in times if start_ns < t_ns < end_ns)})):
            running = sum(use.start_ns <= begin_ns and use.end_ns >= finish_ns for use in there)
            filled = max(running - sum(each.kept_at(begin_ns) for each in earlier), 0)
            found += [
                Use(self.place, self.zone, begin_ns, finish_ns, self.rate_at(begin_ns), CAPACITY_RESERVATION, reservation=self.name)
                for _ in range(self.kept_at(begin_ns) - filled)
            ]
        return found


class RateAt(Protocol):
    """An on-demand price at a time."""

    def __call__(self, t_ns: int) -> Rate:
        """Return the price in force."""


def unused_of(uses: Iterable[Use]) -> list[Unused]:
    """Return the charges of empty reserved capacity, one for each price and commitment that paid."""
    sums: dict[tuple[str, str, str, Rate], list[int]] = {}
    for use in uses:
        for piece in use.pieces:
            purchase = CAPACITY_RESERVATION if piece.tariff == CAPACITY_RESERVATION else piece.purchase
            entry = sums.setdefault((piece.commitment, purchase, piece.tariff, piece.rate), [0, 0, 0, 0])
            for number, value in enumerate((piece.length_ns, piece.amount_nano, piece.effective_nano, piece.list_nano)):
                entry[number] += value
    return [
        Unused(
            name, "", purchase, tariff, Decimal(length_ns) / NS_PER_S, MACHINE_UNIT, f"{rate.usd_per_hour} per hour", amount_nano,
            effective_nano, list_nano, rate.source, rate.confidence,
        )
        for (name, purchase, tariff, rate), (length_ns, amount_nano, effective_nano, list_nano) in sums.items()
    ]  # fmt: skip
