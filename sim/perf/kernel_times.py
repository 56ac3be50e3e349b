"""Time of the kernels of an engine step: a roofline for each matrix product, attention, element-wise traffic, all-reduces.

Every function is in seconds on one of the accelerators that share a step, and takes arrays. What an engine adds (scheduler,
sampling, pipeline stages) is in `sim.perf.roofline`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log2

import numpy as np
from numpy.typing import NDArray

from sim.domain.hardware import Accelerator, StepFit
from sim.domain.models import Model
from sim.perf.work import HEAD_BYTES, Floats, touched_experts

# Matrix products are computed in tiles of this many tokens; a step with fewer fills a part of one (usual size of a tile on tensor
# cores, from memory; 64 and 256 fit the kernel tables as well).
TILE_TOKENS = 128
# Share of its peak that the output head reaches, a product in 16 bits with a very wide output (assumed: no table has it alone, and
# fits with another value between 0.6 and 0.9 are as good).
ETA_HEAD = 0.75
# Norms, residuals and rotary embedding of a layer, unfused: about 16 reads or writes of the hidden state in 16 bits. Fitted values
# scatter around it, and trade off with the bytes of the other activations.
HIDDEN_BYTES = 32


@dataclass(frozen=True)
class Matrix:
    """One weight matrix as it lies on one accelerator: `rows` numbers in, `columns` out, in `layers` layers."""

    rows: float
    columns: float
    layers: int


def matrices(model: Model, tensor_parallel: int) -> list[Matrix]:
    """Return the matrices of a model's layers on one accelerator, routed experts and head left out.

    Projections into heads and into the feed-forward network are split by columns, those back by rows. A KV head is on one
    accelerator at least. The projections of latent attention down to its latents are not split.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> [(m.rows, m.columns) for m in matrices(load_catalog().models["llama-3.1-8b"], 1)]
    [(4096, 6144.0), (4096.0, 4096), (4096, 28672.0), (14336.0, 4096)]
    """
    t, hidden, heads = tensor_parallel, model.hidden, model.heads
    if model.kv_latent:
        query_width = heads * (model.head_dim + model.rope_head_dim) / t
        found = [
            Matrix(hidden, model.kv_latent + model.rope_head_dim, model.layers),
            Matrix(model.kv_latent, heads * (model.head_dim + model.value_head_dim) / t, model.layers),
            Matrix(heads * model.value_head_dim / t, hidden, model.layers),
        ]
        if model.query_latent:
            found += [Matrix(hidden, model.query_latent, model.layers), Matrix(model.query_latent, query_width, model.layers)]
        else:
            found.append(Matrix(hidden, query_width, model.layers))
    else:
        width = heads / t + 2 * max(model.kv_heads / t, 1.0)
        found = [
            Matrix(hidden, width * model.head_dim, model.layers),
            Matrix(heads * model.head_dim / t, hidden, model.layers),
        ]
    if model.other_attention_parameters:
        found.append(Matrix(hidden, model.other_attention_parameters / hidden / t, model.layers))
    gates = 2 if model.gated else 1
    for ffn, layers in (
        (model.ffn, model.layers - model.moe_layers),
        (model.shared_experts * model.expert_ffn, model.moe_layers),
    ):
        if ffn and layers:
            found += [Matrix(hidden, gates * ffn / t, layers), Matrix(ffn / t, hidden, layers)]
    return found


@dataclass(frozen=True)
class KernelTimes:
    """Times of the kernels of one (model, accelerator, fit, weight type, tensor-parallel degree).

    Parameters
    ----------
    weight_bytes : of a weight, of the routed experts only where `plain_weight_bytes` (of the others) differs. kv_bytes : of a
        number in the cache. flops_per_s, plain_flops_per_s : peak of the experts' arithmetic, and of the other layers'.
    weight_share : of the bytes of linear layers that are read (sparse weights). linear_speed : of matrix products, 1 is dense.

    Source: a roofline (Williams and others, 2009) with an efficiency for each resource; forms and values chosen on kernel-composed
    step times, leaving models and accelerators out (`experiments/fit_hardware`, 2026-11-23).
    """

    model: Model
    accelerator: Accelerator
    fit: StepFit
    tensor_parallel: int
    weight_bytes: float
    plain_weight_bytes: float
    kv_bytes: float
    flops_per_s: float
    plain_flops_per_s: float
    weight_share: float = 1.0
    linear_speed: float = 1.0

    @property
    def _bytes_per_s(self) -> float:
        return self.accelerator.bandwidth_gb_per_s * 1e9

    @property
    def _number_bytes(self) -> float:
        """Bytes of a number between kernels and in the head: 16 bits, or 32 in a model that is all in 32."""
        return max(float(HEAD_BYTES), self.plain_weight_bytes)

    @property
    def _number_flops_per_s(self) -> float:
        """Peak of products of such numbers: attention and head."""
        whole = self.accelerator.dense_tflops["bf16"] * 1e12
        return self.plain_flops_per_s if self.plain_weight_bytes > HEAD_BYTES else whole

    def _product_s(self, compute_s: Floats, read_s: Floats | float) -> Floats:
        """Return the time of a product that computes and reads: the longer of the two, and a share of the shorter."""
        time: Floats = np.maximum(compute_s, read_s) + self.fit.overlap * np.minimum(compute_s, read_s)
        return time

    def linear_s(self, tokens: Floats) -> Floats:
        """Return the time of all matrix products but experts and head.

        A product of n tokens with K x N weights computes 2 K (n N + min(n, 128) X) operations: the last wave of tiles is not full,
        and costs as much as X columns more.
        """
        fit = self.fit
        flops_per_s = fit.eta_compute * self.linear_speed * self.plain_flops_per_s
        bytes_per_s = fit.eta_weights * self._bytes_per_s
        wave = np.minimum(tokens, TILE_TOKENS) * fit.wave_columns
        total = np.zeros_like(tokens)
        for matrix in matrices(self.model, self.tensor_parallel):
            compute_s = 2.0 * matrix.rows * (tokens * matrix.columns + wave) / flops_per_s
            read_s = matrix.rows * matrix.columns * self.plain_weight_bytes * self.weight_share / bytes_per_s
            total = total + matrix.layers * self._product_s(compute_s, read_s)
        return total

    def experts_s(self, tokens: Floats) -> Floats:
        """Return the time of the routed experts: their products, and to route, permute and combine the tokens.

        A = E (1 - (1 - k/E)^(u n)) experts are read; u below 1 says that tokens like the same experts. Each costs as much as
        `expert_rows` token more, because its last tile is not full.
        """
        model, fit = self.model, self.fit
        if not model.experts:
            return np.zeros_like(tokens)
        parameters = model.expert_parameters / self.tensor_parallel
        touched = touched_experts(model, tokens * fit.expert_spread)
        rows = tokens * model.active_experts + touched * fit.expert_rows
        compute_s = 2.0 * rows * parameters / (fit.eta_expert_compute * self.linear_speed * self.flops_per_s)
        read_s = touched * parameters * self.weight_bytes * self.weight_share / (fit.eta_expert_weights * self._bytes_per_s)
        moved = tokens * model.active_experts * model.hidden * fit.routing_bytes / self._bytes_per_s
        time: Floats = model.moe_layers * (self._product_s(compute_s, read_s) + moved + fit.expert_layer_s)
        return time

    def elementwise_s(self, tokens: Floats) -> Floats:
        """Return the time of norms, activations, casts and residuals: `HIDDEN_BYTES` a unit of width that every accelerator moves,
        and `activation_bytes` for each number that the split matrices take or give."""
        model = self.model
        attention = self._attention_width + model.heads * (model.value_head_dim or model.head_dim)
        plain = (3 if model.gated else 2) * model.ffn
        shared = (3 if model.gated else 2) * model.shared_experts * model.expert_ffn
        split = model.layers * attention + (model.layers - model.moe_layers) * plain + model.moe_layers * shared
        moved = HIDDEN_BYTES * model.layers * model.hidden + self.fit.activation_bytes * split / self.tensor_parallel
        return tokens * moved * self._number_bytes / HEAD_BYTES / self._bytes_per_s

    @property
    def _attention_width(self) -> int:
        """Numbers that the projections into attention give for a token."""
        model = self.model
        if model.kv_latent:
            return model.heads * (2 * model.head_dim + model.rope_head_dim + model.value_head_dim) + model.kv_latent
        return (model.heads + 2 * model.kv_heads) * model.head_dim

    def allreduce_s(self, tokens: Floats) -> Floats:
        """Return the time of two all-reduces a layer: a latency, and 2 (t - 1)/t of the bytes over the link.

        Latency grows by a factor, and the share of the link's bandwidth falls by one, for each doubling beyond two accelerators.
        """
        t, fit, model = self.tensor_parallel, self.fit, self.model
        if t == 1:
            return np.zeros_like(tokens)
        doublings = log2(t) - 1.0
        latency_s = fit.allreduce_s * float(fit.allreduce_growth**doublings)
        share = min(fit.eta_link / float(fit.link_growth**doublings), max(fit.eta_link, 1.0))
        link = share * self.accelerator.link_gb_per_s * 1e9
        moved = 2.0 * self._number_bytes * model.hidden * tokens * (t - 1) / t
        return 2.0 * model.layers * (latency_s + moved / link)

    def windows_s(self, tokens: Floats) -> Floats:
        """Return the time of prefill attention in layers with a window: as if each token saw a whole window."""
        model = self.model
        pairs = model.window_layers * model.window_tokens * tokens
        return pairs * self._pair_flops / (self.fit.eta_attention * self._number_flops_per_s)

    def tokens_s(self, tokens: Floats) -> Floats:
        """Return the time of all that depends on the tokens of a step alone, whoever they belong to."""
        layers_s = self.model.layers * self.fit.layer_s
        products_s = self.linear_s(tokens) + self.experts_s(tokens) + self.windows_s(tokens)
        return products_s + self.elementwise_s(tokens) + self.allreduce_s(tokens) + layers_s

    @property
    def prompt_s(self) -> float:
        """Time that a step with tokens of a prompt takes longer than one of as many that decode, however many they are."""
        query_key_norm_s = self.fit.query_key_norm_s if self.model.query_key_norm else 0.0
        return self.model.layers * (self.fit.prefill_layer_s + query_key_norm_s)

    def sampled_s(self, sampled: Floats) -> Floats:
        """Return the time of the output head for so many sequences; none where nothing is sampled."""
        parameters = self.model.head_parameters / self.tensor_parallel
        compute_s = 2.0 * parameters * sampled / (ETA_HEAD * self._number_flops_per_s)
        read_s = self._number_bytes * parameters / (self.fit.eta_weights * self._bytes_per_s)
        return np.where(sampled > 0, self._product_s(compute_s, read_s), 0.0)

    @property
    def _pair_flops(self) -> float:
        """Operations of one layer's attention for a token of a prompt and one that it sees."""
        model = self.model
        width = 2 * model.head_dim
        if model.kv_latent:
            width = model.head_dim + model.rope_head_dim + model.value_head_dim
        return 2.0 * model.heads * width / self.tensor_parallel

    @property
    def attention_s(self) -> float:
        """Time of prefill attention per unit of S, in the layers that attend to everything."""
        layers = self.model.layers - self.model.window_layers
        return layers * self._pair_flops / (self.fit.eta_attention * self._number_flops_per_s)

    @property
    def cached_token_s(self) -> float:
        """Time of one layer's decode attention for a token in the cache: it is read, and multiplied with every head's query."""
        model, fit, t = self.model, self.fit, self.tensor_parallel
        if model.kv_latent:
            read = (model.kv_latent + model.rope_head_dim) * self.kv_bytes
            flops = 2.0 * model.heads * (2 * model.kv_latent + model.rope_head_dim) / t
        else:
            read = 2.0 * max(model.kv_heads / t, 1.0) * model.head_dim * self.kv_bytes
            flops = 4.0 * max(model.heads / t, 1.0) * model.head_dim
        return max(read / (fit.eta_kv * self._bytes_per_s), flops / (fit.eta_attention * self._number_flops_per_s))

    def context_s(self, decoding: Floats, mean_context: Floats) -> Floats:
        """Return the time of decode attention of B sequences with so many tokens in the cache on average."""
        model = self.model
        held = (model.layers - model.window_layers) * mean_context
        if model.window_layers:
            held = held + model.window_layers * np.minimum(mean_context, model.window_tokens)
        return decoding * held * self.cached_token_s

    def step_s(self, tokens: Floats, sampled: Floats, pairs: Floats, decoding: Floats, mean_context: Floats) -> Floats:
        """Return the time of steps of n tokens and n_out sampled sequences, S, B decoding sequences and their mean context."""
        prefill_s = self.prompt_s * (tokens > decoding)
        attention_s = self.attention_s * pairs + self.context_s(decoding, mean_context)
        return self.tokens_s(tokens) + self.sampled_s(sampled) + attention_s + prefill_s


def table_length(times: NDArray[np.float64]) -> int:
    """Return the length of the shortest start of a table after which it is a straight line, to a billionth of its last value.

    Parameters
    ----------
    times : at 0, 1, 2, ...

    Examples
    --------
    >>> table_length(np.array([5.0, 5.0, 6.0, 7.0, 8.0, 9.0]))
    2
    """
    ends = times[-1] - (len(times) - 1 - np.arange(len(times))) * (times[-1] - times[-2])
    bent = np.nonzero(np.abs(ends - times) > 1e-9 * np.abs(times[-1]))[0]
    return int(bent[-1]) + 2 if len(bent) else 1
