"""The bill of a token API: tokens by class, tiers by the length of the prompt, and the batch price."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import numpy.typing as npt

from sim.domain.token_prices import TOKEN_CLASSES, TokenPrice
from sim.units import divide_half_even, nano_usd

TOKENS_PER_MTOK = 1_000_000


@dataclass(frozen=True)
class TokenCharge:
    """Tokens of one class in one tier.

    Parameters
    ----------
    token_class : "input", "cached_input", "cache_write" or "output". above_tokens : of the tier.
    usd_per_mtok : the price as it is written, before a batch's factor. factor : 1, or that of a batch.
    """

    token_class: str
    above_tokens: int
    tokens: int
    usd_per_mtok: str
    factor: float
    amount_nano: int


def token_charges(
    price: TokenPrice,
    fresh: npt.ArrayLike,
    cached: npt.ArrayLike,
    written: npt.ArrayLike,
    output: npt.ArrayLike,
    *,
    batch: bool = False,
) -> list[TokenCharge]:
    """Return what requests cost, a charge for each tier and class of tokens that there are.

    Every token of a request has the price of the tier of its prompt, which is all of its input; a tier begins strictly above its
    threshold. A charge is rounded once, half to even to the nano-dollar.

    Parameters
    ----------
    fresh, cached, written : prompt tokens of each request that were neither, that were found in the cache, and that were written to
        it; shape (requests,) or scalars. output : generated tokens, also of requests that failed or were given up.
    batch : at the price of a batch.

    Raises
    ------
    ValueError : negative tokens, or a batch where there is no price for it.

    Notes
    -----
    Source: price tables of providers as kept by litellm and genai-prices (`sim/catalog/token_prices.yaml`), whose tiers price all
    tokens of a request.

    Examples
    --------
    200,000 prompt tokens are in the first tier, one more is in the second: 0.40 USD, then 0.80.

    >>> from sim.catalog.loader import load_catalog
    >>> gemini = load_catalog().token_prices["gemini-3.1-pro"]
    >>> [token_charges(gemini, prompt, 0, 0, 0)[0].amount_nano for prompt in (200_000, 200_001)]
    [400000000, 800004000]
    """
    if batch and not price.batch_factor:
        raise ValueError(f"{price.name} has no price of a batch")
    tokens = np.stack(
        np.broadcast_arrays(*(np.atleast_1d(np.asarray(each, np.int64)) for each in (fresh, cached, written, output)))
    )
    if tokens.size and tokens.min() < 0:
        raise ValueError("tokens are not negative")
    prompts = tokens[:-1].sum(axis=0)
    tier_of = np.searchsorted([tier.above_tokens for tier in price.tiers[1:]], prompts, side="left")
    factor = price.batch_factor if batch else 1.0
    above, below = Decimal(str(factor)).as_integer_ratio()
    charges = []
    for number, tier in enumerate(price.tiers):
        for token_class, counts in zip(TOKEN_CLASSES, tokens, strict=True):
            count, usd = int(counts[tier_of == number].sum()), tier.usd_per_mtok(token_class)
            if count:
                amount = divide_half_even(nano_usd(usd) * count * above, TOKENS_PER_MTOK * below)
                charges.append(TokenCharge(token_class, tier.above_tokens, count, usd, factor, amount))
    return charges
