"""What a row of `cost_lines` says about itself, beyond the types of its fields."""

from __future__ import annotations

from decimal import Decimal

from sim.domain.cost_lines import LINES, UNITS, CostLine
from sim.errors import Problems
from sim.units import nano_usd

MOST_USD_PER_UNIT = 1_000_000


def check_cost_line(row: CostLine, path: str, problems: Problems) -> None:
    """Check the line, its unit, the order of dates and tiers, and that every price is an amount of dollars."""
    if problems.check(row.line in LINES, f"{path}.line", row.line, "is not a line of the bill", choices=LINES):
        problems.check(row.unit == UNITS[row.line], f"{path}.unit", row.unit, f"is not the unit of {row.line}", UNITS[row.line])
    dates = [price.valid_from for price in row.prices]
    problems.check(dates == sorted(set(dates)), f"{path}.prices", dates, "must be in order, one price a day")
    for number, price in enumerate(row.prices):
        above = [tier.above for tier in price.tiers]
        rising = above[0] == 0 and above == sorted(set(above))
        problems.check(
            rising, f"{path}.prices.{number}.tiers", above, "do not rise from 0", "the first above 0, each above the last"
        )
        for place, tier in enumerate(price.tiers):
            _check_price(tier.usd_per_unit, f"{path}.prices.{number}.tiers.{place}.usd_per_unit", problems)


def _check_price(text: str, path: str, problems: Problems) -> None:
    allowed = f"0 to {MOST_USD_PER_UNIT:,}, USD in quotes, to the nano-dollar"
    try:
        nano_usd(text)
        problems.check(0 <= Decimal(text) <= MOST_USD_PER_UNIT, path, text, "is out of range", allowed)
    except (ArithmeticError, ValueError):
        problems.add(path, text, "is not an amount of dollars", allowed)
