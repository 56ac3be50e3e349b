"""Capacity that is kept for an account: what of it stands empty is use, too, at the on-demand rate."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Protocol

from sim.billing.coverage import CAPACITY_RESERVATION, MACHINE_UNIT, Place, Span, Unused, Use
from sim.billing.rates import Rate
from sim.domain.pricing import LINUX
from sim.units import NS_PER_S


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
        return same and use.running and place.purchase == "on_demand" and place.operating_system == LINUX

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
