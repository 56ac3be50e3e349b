"""Work of an engine step on one accelerator: operations and bytes by what they grow with, whatever time and energy they take."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sim.domain.models import Model

Floats = NDArray[np.float64]

# Bytes per token, layer and unit of width that norms, rotary embedding and other element-wise kernels move (research note on
# hardware, section 2, 2026-11-23: fitted on kernel-composed step times).
ELEMENTWISE_BYTES = 40
# The output head is kept in 16 bits whatever the layers are in.
HEAD_BYTES = 2


def _nothing() -> Floats:
    return np.zeros(1)


@dataclass(frozen=True)
class StepWork:
    """What one accelerator of a replica does in a step, by what it grows with; operations in FLOPs, data in bytes.

    Parameters
    ----------
    arithmetic : type in which the linear layers run, key of `Accelerator.dense_tflops`.
    tokens_flops, tokens_bytes : of the linear layers and all else that depends on the tokens of the step alone (weights read,
        element-wise traffic), by number of tokens: index n. Routed experts have fields of their own.
    sampled_flops, sampled_bytes : of the output head, by number of sampled sequences: index n_out.
    attention_flops : per unit of S (prefill). context_flops, context_bytes : per unit of C (decode), over the layers that attend to
        everything.
    window_flops, window_bytes : per unit of C as well, of layers with a window, as far as it reaches.
    expert_flops, expert_bytes : of routed experts, by number of tokens: index n, or one zero.
    weight_dtype : type of the experts' weights, as the catalog names it.
    """

    arithmetic: str
    tokens_flops: Floats
    tokens_bytes: Floats
    sampled_flops: Floats
    sampled_bytes: Floats
    attention_flops: float
    context_flops: float
    context_bytes: float
    window_flops: float = 0.0
    window_bytes: float = 0.0
    expert_flops: Floats = field(default_factory=_nothing)
    expert_bytes: Floats = field(default_factory=_nothing)
    weight_dtype: str = ""


def touched_experts(model: Model, tokens: Floats) -> Floats:
    """Return how many routed experts of a layer are read for so many tokens: E (1 - (1 - k/E)^n), as if each chose at random.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> touched_experts(load_catalog().models["mixtral-8x7b"], np.array([0.0, 1.0, 64.0])).round(3).tolist()
    [0.0, 2.0, 8.0]
    """
    share = model.active_experts / model.experts
    touched: Floats = model.experts * (1.0 - (1.0 - share) ** tokens)
    return touched


def step_work(
    model: Model,
    *,
    weight_bytes: float,
    arithmetic: str,
    kv_bytes: float,
    tensor_parallel: int,
    tokens: Floats,
    sampled: Floats,
    weight_dtype: str = "",
    plain_weight_bytes: float | None = None,
) -> StepWork:
    """Return the work of steps of so many tokens and sampled sequences, for one of the accelerators that share it evenly.

    Parameters
    ----------
    weight_bytes : of a weight. plain_weight_bytes : of one outside the routed experts, where it differs. kv_bytes : of a number in
        the cache. tokens, sampled : numbers of tokens and of sequences to count the work of, any shape.

    Returns
    -------
    Work whose tables have the shapes of `tokens` and `sampled`. One read of the head is part of `tokens_bytes`, as of the weights.

    Source: operations and bytes of a transformer's matrices, 2 FLOPs a weight and token. Latent attention in decode works on the
    compressed cache (arXiv 2405.04434, section 2.1, from memory): 2 c + r numbers a head and cached token, against d + r + v in
    prefill. A chunk of a prompt is counted as if layers with a window attended to everything.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> model = load_catalog().models["llama-3.1-8b"]
    >>> one = np.ones(1)
    >>> kind = {"weight_bytes": 2.0, "arithmetic": "bf16", "kv_bytes": 2.0, "tensor_parallel": 1}
    >>> work = step_work(model, **kind, tokens=one, sampled=one)
    >>> round(work.tokens_flops.item() / 1e9, 1), round(work.tokens_bytes.item() / 1e9, 1), work.context_bytes
    (14.0, 15.0, 131072.0)
    """
    t, layers, windowed = tensor_parallel, model.layers, model.window_layers
    routed = model.moe_layers * model.expert_parameters
    # A token passes the plain layers, and its active ones of the routed experts; an expert is read when any token chose it.
    plain = model.active_linear_parameters - model.active_experts * routed
    plain_bytes = weight_bytes if plain_weight_bytes is None else plain_weight_bytes
    read_bytes = plain * plain_bytes + model.head_parameters * HEAD_BYTES
    if model.kv_latent:
        prefill_width = model.head_dim + model.rope_head_dim + model.value_head_dim
        decode_width = 2 * model.kv_latent + model.rope_head_dim
        layer_bytes = (model.kv_latent + model.rope_head_dim) * kv_bytes
    else:
        prefill_width = decode_width = 2 * model.head_dim
        layer_bytes = 2 * max(model.kv_heads / t, 1.0) * model.head_dim * kv_bytes
    layer_flops = 2.0 * model.heads * decode_width / t
    experts_flops, experts_bytes = _nothing(), _nothing()
    if model.experts:
        experts_flops = 2.0 * model.active_experts * routed * tokens / t
        experts_bytes = touched_experts(model, tokens) * routed * weight_bytes / t
    return StepWork(
        arithmetic=arithmetic,
        tokens_flops=2.0 * plain * tokens / t,
        tokens_bytes=read_bytes / t + ELEMENTWISE_BYTES * layers * model.hidden * tokens,
        sampled_flops=2.0 * model.head_parameters * sampled / t,
        sampled_bytes=np.zeros_like(sampled),
        attention_flops=2.0 * layers * model.heads * prefill_width / t,
        context_flops=(layers - windowed) * layer_flops,
        context_bytes=(layers - windowed) * layer_bytes,
        window_flops=windowed * layer_flops,
        window_bytes=windowed * layer_bytes,
        expert_flops=experts_flops,
        expert_bytes=experts_bytes,
        weight_dtype=weight_dtype,
    )
