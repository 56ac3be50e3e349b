"""Language models as the numbers that decide their cost."""

from __future__ import annotations

from dataclasses import dataclass

from sim.domain.hardware import Provenance


@dataclass(frozen=True)
class Model:
    """A dense decoder-only transformer.

    Parameters
    ----------
    layers, hidden, heads, kv_heads, head_dim, ffn, vocabulary : architecture. gated : three FFN matrices instead of two.
    max_model_len : longest context in tokens. parameters : total, as published.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    gated: bool
    vocabulary: int
    tied_embeddings: bool
    max_model_len: int
    parameters: float
    provenance: Provenance

    @property
    def linear_parameters(self) -> int:
        """Parameters of the linear layers of all blocks: L (h (n_h + 2 n_kv) d + n_h d h + g h f)."""
        attention = self.hidden * (self.heads + 2 * self.kv_heads) * self.head_dim + self.heads * self.head_dim * self.hidden
        return self.layers * (attention + (3 if self.gated else 2) * self.hidden * self.ffn)

    @property
    def head_parameters(self) -> int:
        """Parameters of the output head: V h (the embedding table has as many)."""
        return self.vocabulary * self.hidden
