"""Bills of token APIs worked by hand, with prices of the case or of the catalog."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.billing.token_tariff import token_charges
from sim.catalog.loader import load_catalog
from sim.domain.hardware import Provenance
from sim.domain.token_prices import TokenPrice, TokenTier
from sim.errors import InputError

USD = 10**9
# Input 2.00 and output 12.00 a million tokens, cached input 0.20, writes 2.50; above 200,000 prompt tokens 4.00, 18.00, 0.40, 5.00.
CASE = TokenPrice(
    "case",
    "a provider",
    (TokenTier(0, "2.00", "12.00", "0.20", "2.50"), TokenTier(200_000, "4.00", "18.00", "0.40", "5.00")),
    Provenance("a case", "2026-11-23", "assumed"),
    0.5,
)


def nano(price: TokenPrice, *tokens: int, batch: bool = False) -> int:
    return sum(charge.amount_nano for charge in token_charges(price, *tokens, batch=batch))


BILLS = [
    # (fresh, cached, written, output), dollars
    ((1_000_000, 0, 0, 0), 4.00),  # a prompt above the threshold: all of it at the second price
    ((100_000, 0, 0, 0), 0.20),
    ((0, 0, 0, 1_000_000), 12.00),  # output alone does not make a prompt long
    ((200_000, 0, 0, 0), 0.40),  # exactly the threshold: first tier
    ((200_001, 0, 0, 0), 0.800004),
    # Cached and written tokens are part of the prompt: 150,000 + 50,000 + 1 is above, so 150,000 x 4.00 + 50,000 x 0.40 + 1 x 5.00
    # + 1,000 x 18.00 a million = 0.60 + 0.02 + 0.000005 + 0.018.
    ((150_000, 50_000, 1, 1_000), 0.638005),
    # One less: 150,000 x 2.00 + 50,000 x 0.20 + 1,000 x 12.00 = 0.30 + 0.01 + 0.012.
    ((150_000, 50_000, 0, 1_000), 0.322),
    # 3,000 fresh, 5,000 cached, 2,000 written, 500 out: 0.006 + 0.001 + 0.005 + 0.006.
    ((3_000, 5_000, 2_000, 500), 0.018),
]


@pytest.mark.parametrize(("tokens", "usd"), BILLS)
def test_a_request(tokens: tuple[int, int, int, int], usd: float) -> None:
    assert nano(CASE, *tokens) == round(usd * USD)
    # A batch is half of everything.
    assert nano(CASE, *tokens, batch=True) == round(usd * USD / 2)


def test_many_requests_each_by_its_own_prompt() -> None:
    """Two prompts of 150,000 are not one of 300,000: 2 x 0.30; one of 250,000 is 1.00; 100 tokens out are 0.0012, or 0.0018."""
    charges = token_charges(CASE, [150_000, 150_000, 250_000], 0, 0, 100)
    assert [(charge.token_class, charge.above_tokens, charge.tokens, charge.amount_nano) for charge in charges] == [
        ("input", 0, 300_000, 600_000_000),
        ("output", 0, 200, 2_400_000),
        ("input", 200_000, 250_000, 1_000_000_000),
        ("output", 200_000, 100, 1_800_000),
    ]


CATALOG = [
    # (row, fresh, cached, written, output, dollars)
    ("gpt-6-sol", 1_000, 0, 0, 500, 0.007),  # 0.002 + 0.005
    ("claude-opus-5-5", 1_000, 9_000, 2_000, 1_000, 0.0358),  # 0.004 + 0.0018 + 0.010 + 0.020
    ("gpt-4o-mini", 10_000, 0, 0, 1_000, 0.0021),  # 0.0015 + 0.0006
    ("deepseek-v4-flash", 0, 1_000_000, 0, 0, 0.006),
    ("llama-3.3-70b-bedrock", 500_000, 500_000, 0, 1_000_000, 1.44),  # no price of cached input: that of input
    ("gemini-3.1-pro", 300_000, 0, 0, 10_000, 1.38),  # 300,000 x 4.00 + 10,000 x 18.00 a million
    ("text-embedding-3-small", 1_000_000, 0, 0, 0, 0.02),
]


@pytest.mark.parametrize(("name", "fresh", "cached", "written", "output", "usd"), CATALOG)
def test_a_request_at_the_price_of_the_catalog(name: str, fresh: int, cached: int, written: int, output: int, usd: float) -> None:
    assert nano(load_catalog().token_prices[name], fresh, cached, written, output) == round(usd * USD)


def test_amounts_are_rounded_once_and_half_to_even() -> None:
    """One token at 0.0005 USD a million is half a nano-dollar: 0; three are 1.5: 2; a million are 500,000."""
    tiny = TokenPrice("tiny", "a", (TokenTier(0, "0.0005", "0"),), CASE.provenance)
    assert [nano(tiny, count, 0, 0, 0) for count in (1, 3, 1_000_000)] == [0, 2, 500_000]
    assert nano(tiny, np.ones(1_000_000, np.int64), 0, 0, 0) == 500_000  # type: ignore[arg-type]


def test_what_makes_no_bill() -> None:
    with pytest.raises(ValueError, match="no price of a batch"):
        token_charges(load_catalog().token_prices["deepseek-v4-pro"], 1, 0, 0, 0, batch=True)
    with pytest.raises(ValueError, match="not negative"):
        token_charges(CASE, 1, -1, 0, 0)
    assert token_charges(CASE, 0, 0, 0, 0) == []


def test_prices_that_are_no_prices_are_refused_with_their_row(tmp_path: Path) -> None:
    overlay = tmp_path / "mine.yaml"
    about = "source: contract, date: 2026-11-23, confidence: assumed"
    tier = "{{above_tokens: {}, input_usd_per_mtok: '{}', output_usd_per_mtok: '{}'}}"
    tiers = ", ".join(tier.format(*row) for row in ((5, "-1", "1"), (5, "1 EUR", "")))
    overlay.write_text(f"token_prices:\n  mine: {{provider: me, batch_factor: 2, tiers: [{tiers}], {about}}}\n")
    with pytest.raises(InputError) as refused:
        load_catalog(overlay)
    assert [problem.path.removeprefix("token_prices.mine.") for problem in refused.value.problems] == [
        "tiers", "batch_factor", "tiers.0.input_usd_per_mtok", "tiers.1.input_usd_per_mtok", "tiers.1.output_usd_per_mtok",
    ]  # fmt: skip


TOKENS = st.lists(st.tuples(*[st.integers(0, 300_000)] * 4), min_size=1, max_size=8)


@given(requests=TOKENS)
def test_bills_add_up_and_are_linear_in_prices(requests: list[tuple[int, int, int, int]]) -> None:
    """All at once or one by one, to half a nano-dollar a charge; every token once; prices times ten make ten times the bill."""
    columns = [list(column) for column in zip(*requests, strict=True)]
    charges = token_charges(CASE, *columns)
    assert sum(charge.tokens for charge in charges) == sum(map(sum, requests))
    one_by_one = sum(nano(CASE, *tokens) for tokens in requests)
    total = sum(charge.amount_nano for charge in charges)
    assert abs(total - one_by_one) <= 4 * len(requests) + len(charges)
    tenfold = TokenPrice(
        "x", "a", (TokenTier(0, "20", "120", "2", "25"), TokenTier(200_000, "40", "180", "4", "50")), CASE.provenance
    )
    assert abs(sum(charge.amount_nano for charge in token_charges(tenfold, *columns)) - 10 * total) <= 5 * len(charges)
