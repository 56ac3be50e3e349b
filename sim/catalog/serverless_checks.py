"""What a row of `serverless_prices` says about itself, beyond the types of its fields."""

from __future__ import annotations

from decimal import DecimalException

from sim.domain.serverless import ServerlessPrice
from sim.errors import Problems
from sim.units import nano_usd


def check_serverless_price(row: ServerlessPrice, path: str, problems: Problems) -> None:
    """Check that sizes and steps are above 0 and that every price is an amount of dollars."""
    problems.check(min(row.memory_gb) > 0, f"{path}.memory_gb", list(row.memory_gb), "has a size of nothing", "whole GB above 0")
    problems.check(row.granularity_ms > 0, f"{path}.granularity_ms", row.granularity_ms, "is no step", "above 0")
    for name in ("usd_per_gb_s", "usd_per_gb", "provisioned_usd_per_gb_s"):
        text = getattr(row, name)
        try:
            problems.check(nano_usd(text) >= 0, f"{path}.{name}", text, "is out of range", "0 or more USD, to the nano-dollar")
        except (DecimalException, ValueError):
            problems.add(f"{path}.{name}", text, "is not an amount of dollars", 'USD in quotes, for instance "0.00002"')
