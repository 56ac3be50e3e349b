"""Charges that belong to no machine, booked by the hour: prices by date, tiers by calendar month of the account.

A quantity is exact until its row is written. Where an hour crosses a step of the tiers, each side is a row of its own. The price of
an hour is the one in force at its start.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Protocol
from zoneinfo import ZoneInfo

from sim.domain.cost_lines import CATEGORY, CostLine, CostPrice, CostTier
from sim.units import divide_half_even, nano_usd

# What the ledger keeps of a quantity: nine decimals.
_PER_UNIT = 10**9


class Accounts(Protocol):
    """What takes charges of the account: `sim.billing.ledger.Ledger`."""

    def charge_account(
        self,
        category: str,
        start_ns: int,
        end_ns: int,
        *,
        quantity: Decimal,
        unit: str,
        unit_price: str,
        amount_nano: int,
        tariff: str,
        source: str,
        confidence: str,
        weights: Mapping[tuple[str, int], float] | None = None,
        deployments: Iterable[str] = (),
    ) -> int:
        """Book a charge that belongs to no lease."""


@dataclass(frozen=True)
class Month:
    """A calendar month of the account.

    Parameters
    ----------
    name : YYYY-MM. length_ns : its length, one hour off in a month whose clocks change.
    """

    name: str
    length_ns: int


def month_at(start: datetime, zone: ZoneInfo, t_ns: int) -> Month:
    """Return the month of a time of the run.

    Examples
    --------
    >>> month_at(datetime(2026, 2, 27, tzinfo=UTC), ZoneInfo("UTC"), 2 * 86_400 * 10**9)
    Month(name='2026-03', length_ns=2678400000000000)
    """
    local = (start + timedelta(microseconds=t_ns // 1_000)).astimezone(zone)
    first = local.replace(day=1, hour=0, minute=0, second=0, microsecond=0, fold=0)
    coming = (first + timedelta(days=32)).replace(day=1)
    microseconds = (coming.astimezone(UTC) - first.astimezone(UTC)) // timedelta(microseconds=1)
    return Month(f"{first:%Y-%m}", microseconds * 1_000)


def price_at(line: CostLine, moment: datetime) -> CostPrice:
    """Return the price in force at an instant; before the date of the oldest one that one holds."""
    found = line.prices[0]
    for price in line.prices[1:]:
        if datetime.fromisoformat(price.valid_from).replace(tzinfo=UTC) <= moment:
            found = price
    return found


def split_by_tier(tiers: Iterable[CostTier], used: Fraction, more: Fraction) -> list[tuple[CostTier, Fraction]]:
    """Return which part of `more` falls into each tier when `used` was used before it in the month.

    Examples
    --------
    >>> tiers = (CostTier(0.0, "0"), CostTier(100.0, "0.09"))
    >>> [(tier.usd_per_unit, str(part)) for tier, part in split_by_tier(tiers, Fraction(95), Fraction(8))]
    [('0', '5'), ('0.09', '3')]
    """
    found = []
    rows = list(tiers)
    for number, tier in enumerate(rows):
        low = max(Fraction(tier.above), used)
        high = used + more
        if number + 1 < len(rows):
            high = min(high, Fraction(rows[number + 1].above))
        if high > low:
            found.append((tier, high - low))
    return found


@dataclass
class OtherLines:
    """Books quantities of lines at the prices of the catalog.

    Parameters
    ----------
    ledger : takes the charges. start : scenario start. zone : of the account. prices : by line, a row of the catalog.
    """

    ledger: Accounts
    start: datetime
    zone: ZoneInfo
    prices: Mapping[str, CostLine]
    _used: dict[str, Fraction] = field(default_factory=dict)
    _month: str = ""

    def month(self, t_ns: int) -> Month:
        """Return the calendar month of a time, and begin to count anew where it is another one."""
        found = month_at(self.start, self.zone, t_ns)
        if found.name != self._month:
            self._month, self._used = found.name, {}
        return found

    def book(
        self,
        line: str,
        start_ns: int,
        end_ns: int,
        quantity: Fraction,
        weights: Mapping[tuple[str, int], float],
        deployments: Iterable[str] = (),
    ) -> None:
        """Book what a line used in [start_ns, end_ns), inside one hour of the account; nothing where it used nothing.

        Parameters
        ----------
        quantity : in the unit of the line. weights, deployments : who pays; see `sim.billing.ledger.Ledger.charge_account`.
        """
        if quantity <= 0:
            return
        self.month(start_ns)
        row, used = self.prices[line], self._used.get(line, Fraction(0))
        self._used[line] = used + quantity
        price = price_at(row, self.start + timedelta(microseconds=start_ns // 1_000))
        for tier, part in split_by_tier(price.tiers, used, quantity):
            self.ledger.charge_account(
                CATEGORY[line],
                start_ns,
                end_ns,
                quantity=decimal_of(part),
                unit=row.unit,
                unit_price=f"{tier.usd_per_unit} per {row.unit}",
                amount_nano=amount_nano(part, tier.usd_per_unit),
                tariff=row.name,
                source=f"{price.provenance.source}, {price.provenance.date}",
                confidence=price.provenance.confidence,
                weights=weights,
                deployments=tuple(deployments),
            )


def decimal_of(quantity: Fraction) -> Decimal:
    """Return a quantity as the ledger keeps it, with nine decimals, half to even.

    Examples
    --------
    >>> decimal_of(Fraction(1, 744))
    Decimal('0.001344086')
    """
    return Decimal(divide_half_even(quantity.numerator * _PER_UNIT, quantity.denominator)).scaleb(-9)


def amount_nano(quantity: Fraction, usd_per_unit: str) -> int:
    """Return the price of a quantity in nano-dollars, half to even.

    Examples
    --------
    >>> amount_nano(Fraction(1, 3), "0.09"), amount_nano(Fraction(5, 2), "0.000000001")
    (30000000, 2)
    """
    return divide_half_even(nano_usd(usd_per_unit) * quantity.numerator, quantity.denominator)
