"""Prices of token APIs, in US dollars per million tokens."""

from __future__ import annotations

from dataclasses import dataclass

from sim.domain.hardware import Provenance

FRESH, CACHED, WRITTEN, OUTPUT = "input", "cached_input", "cache_write", "output"
TOKEN_CLASSES = (FRESH, CACHED, WRITTEN, OUTPUT)


@dataclass(frozen=True)
class TokenTier:
    """Prices of all tokens of a request whose prompt is longer than `above_tokens`.

    Parameters
    ----------
    input_usd_per_mtok, output_usd_per_mtok : per million tokens, a decimal in text.
    cached_usd_per_mtok : of prompt tokens found in the cache; "" for the price of input.
    write_usd_per_mtok : of prompt tokens written to it; "" for the price of input.
    """

    above_tokens: int
    input_usd_per_mtok: str
    output_usd_per_mtok: str
    cached_usd_per_mtok: str = ""
    write_usd_per_mtok: str = ""

    def usd_per_mtok(self, token_class: str) -> str:
        """Return the price of a class of tokens."""
        if token_class == OUTPUT:
            return self.output_usd_per_mtok
        own = {CACHED: self.cached_usd_per_mtok, WRITTEN: self.write_usd_per_mtok}.get(token_class, "")
        return own or self.input_usd_per_mtok


@dataclass(frozen=True)
class TokenPrice:
    """What a token API charges for a model.

    Parameters
    ----------
    provider : who sells it. tiers : the first above 0 tokens, rising.
    batch_factor : over all prices in a batch; 0 where there is none.
    """

    name: str
    provider: str
    tiers: tuple[TokenTier, ...]
    provenance: Provenance
    batch_factor: float = 0.0
    notes: str = ""
