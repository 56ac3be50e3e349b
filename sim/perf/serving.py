"""A model as it is served: types, sparsity, attention, speculation and prefix cache, and what they come to on accelerators.

`Serving` is what optimizations transform (`sim.perf.optimize`); `Host` is where it runs. Step model, memory and artifact of a
deployment are computed here and nowhere else, so that `explain`, `validate` and a run cannot differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from sim.catalog.loader import Catalog
from sim.domain.hardware import Accelerator, Engine, StepFit
from sim.domain.models import Model
from sim.perf.compression import Pruning, artifact_bytes, share_2_4
from sim.perf.memory import REFERENCE_TOKENS, KvCapacity, kv_bytes_per_token, kv_capacity, weight_bytes
from sim.perf.roofline import WEIGHT_TYPES, step_model
from sim.perf.speculation import Speculation, speculative_step
from sim.perf.steptime import StepModel

# Attention that is not fused reaches 0.25 to 0.5 of the speed of one that is: FlashAttention's 2 to 4x (research note on hardware,
# section 7, read 2026-11-23, assumed); the middle is geometric.
UNFUSED_SPEED = (0.25, 0.35, 0.5)
# Speed of 2:4 sparse matrix products: 1.2 to 1.6 of the dense ones, not 2 (research note on hardware, section 7, assumed).
SPARSE_SPEED = (1.2, 1.4, 1.6)
# Share by which step times are off where they rest on assumptions (research note on hardware, section 2.2).
ASSUMED_BAND = 0.25
# Scores of unfused attention in bf16, before and after the softmax.
SCORE_BYTES = 4


@dataclass(frozen=True)
class Serving:
    """What is served, independent of the accelerators.

    Parameters
    ----------
    weight_dtype, kv_dtype : types of weights and cache. pruning : of the files, None for dense ones.
    sparse_2_4 : whether the linear layers have the 2:4 pattern. sparse_speed : of their matrix products, 1 is dense.
    speculation : draft model, proposals and acceptance; None for one token a step.
    flash_attention : whether attention is fused. unfused_speed : of attention that is not, as a share of one that is.
    prefix_cache_hit : share of each prompt that is found in the prefix cache.
    """

    model: Model
    weight_dtype: str
    kv_dtype: str
    pruning: Pruning | None = None
    sparse_2_4: bool = False
    sparse_speed: float = SPARSE_SPEED[1]
    speculation: Speculation | None = None
    flash_attention: bool = True
    unfused_speed: float = UNFUSED_SPEED[1]
    prefix_cache_hit: float = 0.0


@dataclass(frozen=True)
class Host:
    """Where a replica runs, and with which settings of the engine.

    Parameters
    ----------
    fit_of : weight type -> fitted efficiencies of the engine's kernels on the accelerator.
    tensor_parallel, pipeline_parallel : accelerators of a stage, and stages. max_num_seqs, max_num_batched_tokens : of a step.
    max_model_len : longest prompt and output; None for the model's. kv_reference_tokens : see `sim.perf.memory.kv_capacity`.
    catalog, most_tensor_parallel : for what would make it fit, see `sim.perf.remedies.serving_remedies`.
    """

    accelerator: Accelerator
    engine: Engine
    fit_of: Callable[[str], StepFit]
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    max_model_len: int | None = None
    kv_reference_tokens: int = REFERENCE_TOKENS
    catalog: Catalog | None = None
    most_tensor_parallel: int | None = None


def serving_fit(serving: Serving, host: Host) -> StepFit:
    """Return the efficiencies of the serving's kernels: slower where attention is not fused."""
    fit = host.fit_of(serving.weight_dtype)
    if serving.flash_attention:
        return fit
    return replace(fit, eta_attention=fit.eta_attention * serving.unfused_speed)


def serving_step(serving: Serving, host: Host) -> StepModel:
    """Return the step model of a replica.

    Unstructured pruning and the prefix cache are not in it: zeros are multiplied like other numbers, and cached tokens are not
    among those of a step.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> catalog = load_catalog()
    >>> host = Host(
    ...     catalog.accelerators["h100-sxm"],
    ...     catalog.engines["vllm-2026"],
    ...     lambda weight_dtype: catalog.fits[f"h100-sxm/vllm/{weight_dtype}"],
    ... )
    >>> dense = Serving(catalog.models["llama-3.1-8b"], "bf16", "bf16")
    >>> serving_step(replace(dense, pruning=Pruning(0.6)), host) == serving_step(dense, host)
    True
    """
    step = _plain_step(serving.model, serving, host, host.engine)
    speculation = serving.speculation
    if speculation is None:
        return step
    draft = None
    if speculation.draft is not None:
        # The scheduler and the streaming of answers run once for all tokens of a step, so that a draft step is kernels alone.
        kernels = replace(host.engine, step_s=0.0, sequence_s=0.0)
        draft = _plain_step(speculation.draft, replace(serving, sparse_2_4=False), host, kernels)
    made = speculative_step(step, draft, speculation, seats=host.max_num_seqs, sequence_s=host.engine.sequence_s)
    return replace(made, band=max(step.band, ASSUMED_BAND))


def _plain_step(model: Model, serving: Serving, host: Host, engine: Engine) -> StepModel:
    """Return the step model without speculation."""
    sparse = {}
    if serving.sparse_2_4:
        sparse = {"weight_share": share_2_4(serving.weight_dtype), "linear_speed": serving.sparse_speed}
    step = step_model(
        model,
        host.accelerator,
        serving_fit(serving, host),
        engine,
        weight_dtype=serving.weight_dtype,
        kv_dtype=serving.kv_dtype,
        tensor_parallel=host.tensor_parallel,
        pipeline_parallel=host.pipeline_parallel,
        **sparse,
    )
    certain = not serving.sparse_2_4 and serving.flash_attention
    return step if certain else replace(step, validity="assumed", band=max(step.band, ASSUMED_BAND))


def serving_memory(serving: Serving, host: Host) -> KvCapacity:
    """Return the KV capacity of a replica: that of the dense model, less or more what sparsity, drafts and scores take.

    2:4 sparse weights free memory. A draft model takes its weights, and its own cache beside each token's. Attention that is not
    fused holds the scores of a whole chunk against the longest context: 4 n_h n s / t bytes for one layer.
    """
    capacity = kv_capacity(
        serving.model,
        host.accelerator,
        host.engine,
        weight_dtype=serving.weight_dtype,
        kv_dtype=serving.kv_dtype,
        tensor_parallel=host.tensor_parallel,
        pipeline_parallel=host.pipeline_parallel,
        max_num_batched_tokens=host.max_num_batched_tokens,
        max_num_seqs=host.max_num_seqs,
        kv_reference_tokens=host.kv_reference_tokens,
        catalog=host.catalog,
        most_tensor_parallel=host.most_tensor_parallel,
    )
    weights = capacity.weight_bytes + _more_weights(serving, host)
    activations = capacity.activation_bytes + score_bytes(serving, host)
    per_token = capacity.kv_bytes_per_token + _draft_kv_bytes(serving, host)
    if (weights, activations, per_token) == (capacity.weight_bytes, capacity.activation_bytes, capacity.kv_bytes_per_token):
        return capacity
    left = capacity.budget_bytes - weights - activations - capacity.reserve_bytes
    blocks = max(int(left // (per_token * host.engine.block_tokens)), 0)
    return replace(
        capacity,
        tokens=blocks * host.engine.block_tokens,
        blocks=blocks,
        weight_bytes=weights,
        activation_bytes=activations,
        kv_bytes=left,
        kv_bytes_per_token=per_token,
        remedies=() if blocks else (*_undo(serving), *capacity.remedies),
    )


def _more_weights(serving: Serving, host: Host) -> float:
    """Return the bytes of weights on an accelerator beyond those of the dense model."""
    accelerators = host.tensor_parallel * host.pipeline_parallel
    more = 0.0
    if serving.sparse_2_4:
        linear = serving.model.linear_parameters * WEIGHT_TYPES[serving.weight_dtype][0]
        more -= linear * (1.0 - share_2_4(serving.weight_dtype)) / accelerators
    draft = None if serving.speculation is None else serving.speculation.draft
    if draft is not None:
        more += weight_bytes(draft, serving.weight_dtype, host.tensor_parallel) / host.pipeline_parallel
    return more


def _draft_kv_bytes(serving: Serving, host: Host) -> float:
    draft = None if serving.speculation is None else serving.speculation.draft
    if draft is None:
        return 0.0
    settings = {"tensor_parallel": host.tensor_parallel, "context_tokens": host.kv_reference_tokens}
    return kv_bytes_per_token(draft, kv_dtype=serving.kv_dtype, **settings) / host.pipeline_parallel


def score_bytes(serving: Serving, host: Host) -> float:
    """Return the bytes of attention scores on an accelerator, 0 where attention is fused and never writes them."""
    if serving.flash_attention:
        return 0.0
    longest = host.max_model_len or serving.model.max_model_len
    chunk = min(host.max_num_batched_tokens, longest)
    return SCORE_BYTES * serving.model.heads * chunk * longest / host.tensor_parallel


def _undo(serving: Serving) -> tuple[str, ...]:
    """List the settings that take memory and could be left out."""
    found = []
    if not serving.flash_attention:
        found.append("optimizations.flash_attention=true, or a smaller max_model_len")
    if serving.speculation is not None and serving.speculation.draft is not None:
        found.append("no or a smaller optimizations.speculative.draft")
    return tuple(found)


def serving_bytes(serving: Serving) -> float:
    """Return the bytes of the files a replica loads: those of the model, and of its draft."""
    total = artifact_bytes(serving.model, serving.weight_dtype, pruning=serving.pruning, sparse_2_4=serving.sparse_2_4)
    draft = None if serving.speculation is None else serving.speculation.draft
    return total if draft is None else total + weight_bytes(draft, serving.weight_dtype)
