"""Dated prices of a machine."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sim.domain.hardware import Price
from sim.units import nano_usd


@dataclass(frozen=True)
class Rate:
    """A price per hour in force from a time of the run on.

    Parameters
    ----------
    from_ns : since the scenario start; negative when it was in force before.
    nano_usd_per_hour : the price in nano-dollars. usd_per_hour : as it was written.
    source, confidence : where it comes from.
    """

    from_ns: int
    nano_usd_per_hour: int
    usd_per_hour: str
    source: str
    confidence: str


def rate_at(rates: Sequence[Rate], t_ns: int) -> Rate:
    """Return the price in force at a time; before the date of the oldest price that one holds.

    Parameters
    ----------
    rates : oldest first, at least one.

    Examples
    --------
    >>> rates = [Rate(0, 2_000_000_000, "2", "list", "published"), Rate(10, 3_000_000_000, "3", "list", "published")]
    >>> [rate_at(rates, t_ns).usd_per_hour for t_ns in (-5, 9, 10)]
    ['2', '2', '3']
    """
    return rates[max(bisect_right(rates, t_ns, key=lambda rate: rate.from_ns) - 1, 0)]


def since_ns(start: datetime, moment: datetime) -> int:
    """Return the time of a calendar instant in nanoseconds since the start; negative before it."""
    return (moment - start) // timedelta(microseconds=1) * 1_000


def dated_rates(prices: Iterable[Price], start: datetime) -> tuple[Rate, ...]:
    """Return a dated price list as rates of a run.

    Parameters
    ----------
    prices : oldest first; a price holds from 00:00 UTC of its date.
    start : scenario start.

    Examples
    --------
    >>> from sim.domain.hardware import Provenance
    >>> price = Price("6.88", "2026-01-06", Provenance("price list", "2026-07-20", "published"))
    >>> dated_rates([price], datetime(2026, 1, 5, tzinfo=UTC))[0].from_ns == 86_400 * 10**9
    True
    """
    return tuple(
        Rate(
            from_ns=since_ns(start, datetime.fromisoformat(price.valid_from).replace(tzinfo=UTC)),
            nano_usd_per_hour=nano_usd(price.usd_per_hour),
            usd_per_hour=price.usd_per_hour,
            source=f"{price.provenance.source}, {price.provenance.date}",
            confidence=price.provenance.confidence,
        )
        for price in prices
    )
