"""Memory of a replica: what the weights, the activations and the engine take, and the tokens of KV cache that are left."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from sim.catalog.loader import Catalog
from sim.domain.hardware import Accelerator, Engine
from sim.domain.models import Model
from sim.perf.remedies import ServingSetup, serving_remedies
from sim.perf.roofline import EXPERTS_ONLY, KV_BYTES, WEIGHT_TYPES
from sim.units import BYTES_PER_GIB

# What libraries and graphs take outside the tensor allocator: 0.35 GiB printed by vLLM on an RTX 3090 (its issue 10517, read
# 2026-11-23, published). An H100 printed 1.79 GiB in the same month (pull request 10511): other boards may take more.
RUNTIME_BYTES = 0.376e9
# NCCL buffers with more than one accelerator: middle of 0.34 to 0.39 GB (aiconfigurator 0.12.0, read 2026-11-23, published).
NCCL_BYTES = 0.365e9
# Live bytes of each logit in a sampler with top-p. Counted: bf16 logits 2, fp32 copy 4, sorted copy 4, sort index 8 (int64), and as
# much for these two while they are sorted: 30. Four published logs of vLLM imply 29 (2,588 blocks on an RTX 4090), 35 (pull request
# 10511) and 36 to 38 (issues 23278 and 27508); fitted between them, read 2026-11-23.
SAMPLER_BYTES_PER_LOGIT = 32
ACTIVATION_BYTES = 2
# Rows of the hidden size that live through a step: the residual stream, its normed copy and the output that is added to it. With it
# a token of Llama-3.1-8B takes 110.6 kB; 109.8 lie between vLLM's peaks at 20,000 and 29,000 tokens (issue 10517, published).
HIDDEN_ROWS = 3
# Kernels for experts in 4 bits want the width of an expert's part in whole multiples of this (vLLM issue 33155: 64.4 GiB for the
# 60.7 GiB of gpt-oss-120b, as with 2,880 padded to 3,072; read 2026-11-23, published).
EXPERT_WIDTH_MULTIPLE = 256
# Length of a sequence for which layers with a window are counted. Short, so that the cache is rather counted too small: windows up
# to this length are counted whole, and chat requests of the traces here are longer (2026-11-23, our choice).
REFERENCE_TOKENS = 1024


@dataclass(frozen=True)
class KvCapacity:
    """How one accelerator of a replica spends its memory, and the KV tokens of the whole replica.

    Parameters
    ----------
    tokens, blocks : capacity of the KV cache; 0 when the model does not fit.
    memory_bytes : what the driver exposes. budget_bytes : the engine's share of it.
    weight_bytes, activation_bytes, reserve_bytes : taken before the cache. kv_bytes : left for it; negative when it does not fit.
    kv_bytes_per_token : on one accelerator, mean over a sequence of the reference length.
    remedies : what would make it fit, empty when it does.
    """

    tokens: int
    blocks: int
    memory_bytes: float
    budget_bytes: float
    weight_bytes: float
    activation_bytes: float
    reserve_bytes: float
    kv_bytes: float
    kv_bytes_per_token: float
    remedies: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether at least one block of KV cache is left."""
        return self.blocks > 0


def weight_bytes(model: Model, weight_dtype: str, tensor_parallel: int = 1) -> float:
    """Return the bytes of weights on one of `tensor_parallel` accelerators, all experts of a mixture among them.

    Linear layers are in `weight_dtype` (where that is a type of experts alone, such as mxfp4, the others are in bf16), the
    embedding and the head (one table when tied) in bf16 or more, all split over the accelerators; the norms, 2 L + 1 vectors, are
    on each. Scales of fp8 and int8 weights are left out (below 0.1 %).

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> models = load_catalog().models
    >>> int(weight_bytes(models["llama-3.1-8b"], "bf16")) == 2 * 8_030_261_248
    True
    >>> round(weight_bytes(models["mixtral-8x7b"], "bf16", tensor_parallel=2) / 1e9, 1)  # 46.7 B parameters, not the active 12.9 B
    46.7
    """
    tables = 1 if model.tied_embeddings else 2
    rest = max(WEIGHT_TYPES[weight_dtype][0], WEIGHT_TYPES["bf16"][0])
    split = linear_bytes(model, weight_dtype) + rest * tables * model.head_parameters
    return split / tensor_parallel + rest * (2 * model.layers + 1) * model.hidden


def linear_bytes(model: Model, weight_dtype: str) -> float:
    """Return the bytes of the linear layers of all blocks, every expert counted: all but embedding, head and norms.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> linear_bytes(load_catalog().models["llama-3.1-8b"], "int4_wo")
    3489660928.0
    """
    size = WEIGHT_TYPES[weight_dtype][0]
    if weight_dtype not in EXPERTS_ONLY:
        return model.linear_parameters * size
    experts = model.moe_layers * model.experts * model.expert_parameters
    return experts * size + (model.linear_parameters - experts) * WEIGHT_TYPES["bf16"][0]


def expert_padding_bytes(model: Model, weight_dtype: str, tensor_parallel: int = 1) -> float:
    """Return the bytes on one accelerator by which kernels for experts in 4 bits pad them; they are in memory, not in the files.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> model = load_catalog().models["gpt-oss-120b"]  # an expert is 2,880 wide
    >>> [round(expert_padding_bytes(model, "mxfp4", tensor_parallel=degree) / 1e9, 1) for degree in (1, 8)]
    [4.1, 3.2]
    """
    if weight_dtype not in EXPERTS_ONLY or not model.experts:
        return 0.0
    part = model.expert_ffn / tensor_parallel
    padded = ceil(part / EXPERT_WIDTH_MULTIPLE) * EXPERT_WIDTH_MULTIPLE
    experts = model.moe_layers * model.experts * model.expert_parameters * WEIGHT_TYPES[weight_dtype][0] / tensor_parallel
    return experts * (padded / part - 1)


def kv_bytes_per_token(model: Model, *, kv_dtype: str, tensor_parallel: int = 1, context_tokens: int | None = None) -> float:
    """Return the bytes of KV cache of one token on one accelerator, mean over a sequence of `context_tokens`.

    A layer of full attention keeps 2 max(n_kv / t, 1) d numbers for each token, one of latent attention c + r on every accelerator.
    A layer with a window of W keeps the last W tokens: min(1, W / s) of the tokens of a sequence of s. So the mean falls with s, a
    cache counted at s holds sequences of that length exactly, longer ones take less of it than is counted and shorter ones more.

    Parameters
    ----------
    context_tokens : length s; None counts every layer whole, as for a sequence within the window.

    Source: research note on hardware, section 4 (2026-11-23).

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> models = load_catalog().models
    >>> kv_bytes_per_token(models["llama-3.1-8b"], kv_dtype="bf16")
    131072.0
    >>> kv_bytes_per_token(models["deepseek-v3"], kv_dtype="bf16", tensor_parallel=8)  # 61 layers x 576 x 2 bytes
    70272.0
    >>> oss = models["gpt-oss-20b"]  # 128 tokens on every other of 24 layers
    >>> [kv_bytes_per_token(oss, kv_dtype="bf16", context_tokens=length) for length in (128, 1024, 131_072)]
    [49152.0, 27648.0, 24600.0]
    """
    # A latent counts as one head.
    layer = model.kv_elements_per_token / model.layers * max(model.kv_heads / tensor_parallel, 1.0) / model.kv_heads
    whole = 1.0
    if model.window_layers and context_tokens is not None:
        whole = min(1.0, model.window_tokens / context_tokens)
    layers = model.layers - model.window_layers * (1.0 - whole)
    return float(layers * layer * KV_BYTES[kv_dtype])


def activation_bytes(model: Model, *, tensor_parallel: int, max_num_batched_tokens: int, max_num_seqs: int) -> float:
    """Return the peak of temporary tensors in a step of `max_num_batched_tokens` that samples `max_num_seqs` sequences.

    The residual stream, its normed copy and the output of a layer (3 n h) live through the step. On top comes the largest of: the
    MLP (gate and up projections and their product, 3 n f / t), the experts (for each of n k routed copies the larger of 2 f_e / t
    and h, and f_e / t), attention (queries, keys, values and output, (2 n_h + 2 n_kv) n d / t; the latents whole where it has them)
    and the sampler, whose tensors are seats x vocabulary on each accelerator: 32 bytes a logit (see `SAMPLER_BYTES_PER_LOGIT`).

    Source: derived from the tensors alive in vLLM's memory profiling run (dummy forward of the token budget, dummy sampler of all
    seats; two shared buffers of its fused experts), 2026-11-23, assumed: allocator fragmentation and fused kernels are left out.
    """
    n, t = max_num_batched_tokens, tensor_parallel
    residual = HIDDEN_ROWS * n * model.hidden
    matrices = 3 if model.gated else 2
    mlp = matrices * n * model.ffn / t if model.moe_layers < model.layers else 0.0
    routed = n * model.active_experts
    wide = max((matrices - 1) * model.expert_ffn / t, model.hidden)
    experts = routed * (wide + model.expert_ffn / t) if model.moe_layers else 0.0
    sampler = min(max_num_seqs, n) * model.vocabulary * SAMPLER_BYTES_PER_LOGIT
    largest = max(mlp, experts, n * _attention_elements(model, t))
    return residual * ACTIVATION_BYTES + max(largest * ACTIVATION_BYTES, sampler)


def _attention_elements(model: Model, tensor_parallel: int) -> float:
    """Return the elements of queries, keys, values and output of a token on one accelerator."""
    if model.kv_latent == 0:
        return (2 * model.heads + 2 * model.kv_heads) * model.head_dim / tensor_parallel
    latents = model.query_latent + model.kv_latent + model.rope_head_dim
    split = model.heads * (2 * (model.head_dim + model.rope_head_dim) + 2 * model.value_head_dim)
    return latents + split / tensor_parallel


def kv_capacity(
    model: Model,
    accelerator: Accelerator,
    engine: Engine,
    *,
    weight_dtype: str,
    kv_dtype: str,
    tensor_parallel: int,
    max_num_batched_tokens: int,
    max_num_seqs: int,
    pipeline_parallel: int = 1,
    kv_reference_tokens: int = REFERENCE_TOKENS,
    catalog: Catalog | None = None,
    most_tensor_parallel: int | None = None,
) -> KvCapacity:
    """Return the KV capacity of a replica: memory x utilization - weights - activations - reserve, in whole blocks.

    Parameters
    ----------
    weight_dtype, kv_dtype : types of weights and cache. tensor_parallel : accelerators of a stage.
    pipeline_parallel : stages; each holds its part of the layers and of their cache (embedding and head split evenly too).
    max_num_batched_tokens, max_num_seqs : token budget and seats of a step.
    kv_reference_tokens : length of the sequences for which layers with a window are counted; no matter for models without.
    catalog, most_tensor_parallel : for the remedies, see `sim.perf.remedies.serving_remedies`.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> catalog = load_catalog()
    >>> settings = {"weight_dtype": "bf16", "kv_dtype": "bf16", "max_num_batched_tokens": 2048, "max_num_seqs": 256}
    >>> llama = catalog.models["llama-2-70b"]
    >>> a100, vllm = catalog.accelerators["a100-sxm-80"], catalog.engines["vllm-2026"]
    >>> kv_capacity(llama, a100, vllm, tensor_parallel=1, **settings).remedies[0]
    'weight_dtype=w8a8'
    >>> kv_capacity(llama, a100, vllm, tensor_parallel=2, **settings).fits
    True
    """
    given = ServingSetup(
        accelerator,
        weight_dtype,
        kv_dtype,
        tensor_parallel,
        pipeline_parallel,
        max_num_batched_tokens,
        max_num_seqs,
        kv_reference_tokens,
    )
    capacity = _capacity(model, engine, given)
    if capacity.fits:
        return capacity
    taken = capacity.weight_bytes + capacity.activation_bytes + capacity.reserve_bytes
    block = capacity.kv_bytes_per_token * engine.block_tokens
    least_gib = (taken + block) / engine.memory_utilization / BYTES_PER_GIB
    remedies = serving_remedies(
        model, engine, given, lambda setup: _capacity(model, engine, setup).fits, least_gib, catalog, most_tensor_parallel
    )
    return replace(capacity, remedies=remedies)


def _capacity(model: Model, engine: Engine, setup: ServingSetup) -> KvCapacity:
    memory = setup.accelerator.usable_gib * BYTES_PER_GIB
    stages, degree = setup.pipeline_parallel, setup.tensor_parallel
    weights = (weight_bytes(model, setup.weight_dtype, degree) + expert_padding_bytes(model, setup.weight_dtype, degree)) / stages
    activations = activation_bytes(
        model,
        tensor_parallel=degree,
        max_num_batched_tokens=setup.max_num_batched_tokens,
        max_num_seqs=setup.max_num_seqs,
    )
    reserve = RUNTIME_BYTES + (NCCL_BYTES if degree * stages > 1 else 0.0)
    whole = kv_bytes_per_token(model, kv_dtype=setup.kv_dtype, tensor_parallel=degree, context_tokens=setup.kv_reference_tokens)
    per_token = whole / stages
    budget = memory * engine.memory_utilization
    left = budget - weights - activations - reserve
    blocks = max(int(left // (per_token * engine.block_tokens)), 0)
    return KvCapacity(blocks * engine.block_tokens, blocks, memory, budget, weights, activations, reserve, left, per_token)
