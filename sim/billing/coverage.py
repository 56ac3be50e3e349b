"""What commitments pay of an hour's use: the waterfall from reserved machines to on demand.

One hour of the account is settled at a time, over all leases; nothing is carried from one hour to the next. Use is covered in this
order, each in the order of the leases unless said otherwise:

1. capacity reservations: what of them stands empty is use, too, at the on-demand rate;
2. reserved machines: of a zone before those of a region; they cover machine time of the hour, whether at once or one after
   another, and where they are flexible in size the smallest size first;
3. Savings Plans for a family, then those for all, those of one kind together: use with the highest saving in per cent first, ties
   to the lowest plan rate;
4. sustained-use tiers of what is left; 5. the on-demand price.

What a commitment has left at the end of the hour is lost. A part of an hour (of the run, or of the commitment's time) has that part
of the commitment.

Two amounts go with every charge. What is on the invoice, in cash, is the truth of the ledger; the effective amount has the charge's
share of what was paid up front beside it, and is 0 for that payment itself. Over a whole term the two have the same sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Protocol

from sim.billing.rates import Rate
from sim.domain.pricing import LINUX
from sim.units import NS_PER_HOUR, divide_half_even

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
    operating_system : of its machines.
    """

    pool: str
    cloud: str
    instance: str
    family: str
    region: str
    purchase: str
    deployments: tuple[str, ...] = ()
    operating_system: str = LINUX


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
        # Machines that are paid as a whole have no price by the hour.
        listed_nano = cost_nano(self.rate, length_ns) if self.rate.nano_usd_per_hour else effective_nano
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


@dataclass(frozen=True)
class Prepaid:
    """What was paid up front, spread evenly over the time it is for.

    Parameters
    ----------
    amount_nano : of the whole commitment. term_ns : what time it is for. begins_ns : of that time; None is long before the run.

    Examples
    --------
    >>> paid = Prepaid(100, 3, 0)
    >>> [paid.share_nano(t_ns, t_ns + 1) for t_ns in (-1, 0, 1, 2, 3)]
    [0, 33, 34, 33, 0]
    """

    amount_nano: int
    term_ns: int
    begins_ns: int | None = None

    def share_nano(self, start_ns: int, end_ns: int) -> int:
        """Return the share of [start_ns, end_ns); a difference of rounded sums, so that the shares of the term are the amount."""
        return self._until(end_ns) - self._until(start_ns)

    def _until(self, t_ns: int) -> int:
        elapsed_ns = t_ns if self.begins_ns is None else min(max(t_ns - self.begins_ns, 0), self.term_ns)
        return divide_half_even(self.amount_nano * elapsed_ns, self.term_ns)


class Coverage(Protocol):
    """Commitments that pay for use of an hour."""

    def cover(self, start_ns: int, end_ns: int, uses: Sequence[Use]) -> list[Unused]:
        """Pay for what they cover of the use in the hour [start_ns, end_ns), and return what they have left, if they have any."""
