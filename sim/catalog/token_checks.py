"""What a row of `token_prices` says about itself, beyond the types of its fields."""

from __future__ import annotations

from decimal import DecimalException
from itertools import pairwise

from sim.domain.token_prices import TokenPrice
from sim.errors import Problems
from sim.units import nano_usd

MOST_USD_PER_MTOK = 100_000


def check_token_price(row: TokenPrice, path: str, problems: Problems) -> None:
    """Check that tiers rise from 0 and that every price is an amount of dollars."""
    above = [tier.above_tokens for tier in row.tiers]
    rising = above[0] == 0 and all(later > earlier for earlier, later in pairwise(above))
    problems.check(rising, f"{path}.tiers", above, "do not rise from 0", "the first above 0 tokens, each above the last")
    problems.check(0 <= row.batch_factor <= 1, f"{path}.batch_factor", row.batch_factor, "is out of range", "0 for none, to 1")
    allowed = f"0 to {MOST_USD_PER_MTOK:,}, USD in quotes, to the nano-dollar"
    for number, tier in enumerate(row.tiers):
        for name in ("input", "output", "cached", "write"):
            text = getattr(tier, f"{name}_usd_per_mtok")
            where = f"{path}.tiers.{number}.{name}_usd_per_mtok"
            if text == "" and name in ("cached", "write"):
                continue
            try:
                problems.check(0 <= nano_usd(text) <= nano_usd(MOST_USD_PER_MTOK), where, text, "is out of range", allowed)
            except (DecimalException, ValueError):
                problems.add(where, text, "is not an amount of dollars", allowed)
