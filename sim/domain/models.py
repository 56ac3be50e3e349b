"""Language models as the numbers that decide their cost."""

from __future__ import annotations

from dataclasses import dataclass, field

from sim.domain.hardware import Provenance


@dataclass(frozen=True)
class Model:
    """A decoder-only transformer: dense, or with a mixture of experts, latent attention or sliding windows.

    The defaults of the optional fields describe a dense model whose layers all attend to the whole context.

    Parameters
    ----------
    layers, hidden, heads, kv_heads, head_dim, vocabulary : architecture.
    ffn : width of the plain feed-forward network, in every layer of a dense model and in the `dense_layers` of another.
    gated : three matrices in each feed-forward network and expert instead of two.
    max_model_len : longest context in tokens. parameters : total of the language model, as published.
    experts : routed experts of a layer with experts; 0 is a dense model. active_experts : of them, chosen for each token.
    shared_experts : experts of the same width that every token passes. expert_ffn : width of one expert.
    dense_layers : layers without experts.
    kv_latent : width of the compressed keys and values of latent attention; 0 is ordinary attention. With it, `kv_heads` is 1 (each
        accelerator of a replica holds the whole cache) and `head_dim` is the part of a query that carries no position.
    query_latent : width of the compressed queries; 0 where queries are not compressed.
    rope_head_dim : part of a query and of the shared key that carries the position. value_head_dim : of a head's values.
    window_layers : layers that attend to the last `window_tokens` only. Layers of linear attention, whose state has a fixed size,
        are counted as windows of as many bytes.
    other_attention_parameters : in the attention of a layer beside its projections, on average: output gates, linear attention.
    query_key_norm : queries and keys are normalised in each layer (Qwen3, Gemma 3): small kernels of their own in a prefill.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> model = load_catalog().models["mixtral-8x7b"]
    >>> model.moe_layers, model.expert_parameters
    (32, 176160768)
    >>> round(model.counted_parameters / 1e9, 1), round(model.active_linear_parameters / 1e9, 1)
    (46.7, 12.6)
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
    experts: int = 0
    active_experts: int = 0
    shared_experts: int = 0
    expert_ffn: int = 0
    dense_layers: int = 0
    query_latent: int = 0
    kv_latent: int = 0
    rope_head_dim: int = 0
    value_head_dim: int = 0
    window_tokens: int = 0
    window_layers: int = 0
    other_attention_parameters: int = 0
    query_key_norm: bool = False
    notes: str = field(default="")

    @property
    def moe_layers(self) -> int:
        """Layers with experts; 0 for a dense model."""
        return self.layers - self.dense_layers if self.experts else 0

    @property
    def attention_parameters(self) -> int:
        """Parameters of the projections of one layer's attention: h (n_h + 2 n_kv) d + n_h d h, or those of latent attention.

        Latent attention: queries through a latent of q (h q + q n_h (d + r); h n_h (d + r) where q is 0), keys and values
        through one of c (h (c + r) + c n_h (d + v)), output n_h v h. Both have the `other_attention_parameters` on top.

        Source: DeepSeek-V2, arXiv 2405.04434, section 2.1 (from memory).
        """
        if self.kv_latent == 0:
            inward = self.hidden * (self.heads + 2 * self.kv_heads) * self.head_dim
            return inward + self.heads * self.head_dim * self.hidden + self.other_attention_parameters
        query_width = self.heads * (self.head_dim + self.rope_head_dim)
        queries = self.query_latent * (self.hidden + query_width) if self.query_latent else self.hidden * query_width
        down = self.hidden * (self.kv_latent + self.rope_head_dim)
        up = self.kv_latent * self.heads * (self.head_dim + self.value_head_dim)
        return queries + down + up + self.heads * self.value_head_dim * self.hidden + self.other_attention_parameters

    @property
    def expert_parameters(self) -> int:
        """Parameters of one expert of one layer: g h f_e."""
        return self._matrices * self.hidden * self.expert_ffn

    @property
    def linear_parameters(self) -> int:
        """Parameters of the linear layers of all blocks, every expert counted: what is in memory.

        A layer has its attention, and a plain feed-forward network (g h f) or a router (h E) with E routed and the shared experts.
        """
        return self._linear_parameters(self.experts)

    @property
    def active_linear_parameters(self) -> int:
        """Parameters of the linear layers that one token passes: as `linear_parameters` with the active experts alone."""
        return self._linear_parameters(self.active_experts)

    @property
    def head_parameters(self) -> int:
        """Parameters of the output head: V h (the embedding table has as many)."""
        return self.vocabulary * self.hidden

    @property
    def counted_parameters(self) -> int:
        """Parameters that follow from the architecture: linear layers, embedding, head, and the norms (2 L + 1 vectors)."""
        tables = 1 if self.tied_embeddings else 2
        return self.linear_parameters + tables * self.head_parameters + (2 * self.layers + 1) * self.hidden

    @property
    def kv_elements_per_token(self) -> int:
        """Numbers that the cache keeps for a token when every layer keeps it: 2 L n_kv d, or L (c + r) with latent attention.

        Layers with a window forget: a sequence longer than the window has fewer.
        """
        if self.kv_latent:
            return self.layers * (self.kv_latent + self.rope_head_dim)
        return 2 * self.layers * self.kv_heads * self.head_dim

    @property
    def _matrices(self) -> int:
        return 3 if self.gated else 2

    def _linear_parameters(self, routed_experts: int) -> int:
        plain = (self.layers - self.moe_layers) * self._matrices * self.hidden * self.ffn
        router = self.hidden * self.experts
        mixture = self.moe_layers * (router + (routed_experts + self.shared_experts) * self.expert_parameters)
        return self.layers * self.attention_parameters + plain + mixture
