"""Memory of a replica: what the weights, the activations and the engine take, and the tokens of KV cache that are left."""

from __future__ import annotations

from dataclasses import dataclass

from sim.domain.hardware import Accelerator, Engine
from sim.domain.models import Model
from sim.perf.roofline import KV_BYTES, PCIE_LINK_SHARE, TENSOR_PARALLEL, WEIGHT_TYPES
from sim.units import BYTES_PER_GIB

# CUDA context, libraries and graph pools outside the tensor allocator (research note on hardware, read 2026-11-23, assumed).
RUNTIME_BYTES = 0.6e9
# NCCL buffers with more than one accelerator: middle of 0.34 to 0.39 GB (aiconfigurator 0.12.0, read 2026-11-23, published).
NCCL_BYTES = 0.365e9
# Live bytes of each logit in a sampler with top-p: bf16 logits 2, fp32 copy 4, sorted copy 4, sort index 8 (int64), softmax 4.
SAMPLER_BYTES_PER_LOGIT = 22
ACTIVATION_BYTES = 2


@dataclass(frozen=True)
class KvCapacity:
    """How one accelerator of a replica spends its memory, and the KV tokens of the whole replica.

    Parameters
    ----------
    tokens, blocks : capacity of the KV cache; 0 when the model does not fit.
    memory_bytes : what the driver exposes. budget_bytes : the engine's share of it.
    weight_bytes, activation_bytes, reserve_bytes : taken before the cache. kv_bytes : left for it; negative when it does not fit.
    kv_bytes_per_token : on one accelerator.
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
    """Return the bytes of weights on one of `tensor_parallel` accelerators.

    Linear layers are in `weight_dtype`, the embedding and the head (one table when tied) in bf16, both split over the accelerators;
    the norms, 2 L + 1 vectors in bf16, are on each. Scales of fp8 and int8 weights are left out (below 0.1 %).

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> model = load_catalog().models["llama-3.1-8b"]
    >>> int(weight_bytes(model, "bf16")) == 2 * 8_030_261_248
    True
    """
    tables = 1 if model.tied_embeddings else 2
    split = model.linear_parameters * WEIGHT_TYPES[weight_dtype][0] + 2 * tables * model.head_parameters
    return split / tensor_parallel + 2 * (2 * model.layers + 1) * model.hidden


def kv_bytes_per_token(model: Model, *, kv_dtype: str, tensor_parallel: int = 1) -> float:
    """Return the bytes of KV cache of one token on one accelerator: 2 L max(n_kv / t, 1) d b.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> kv_bytes_per_token(load_catalog().models["llama-3.1-8b"], kv_dtype="bf16")
    131072.0
    """
    heads = max(model.kv_heads / tensor_parallel, 1.0)
    return 2 * model.layers * heads * model.head_dim * KV_BYTES[kv_dtype]


def activation_bytes(model: Model, *, tensor_parallel: int, max_num_batched_tokens: int, max_num_seqs: int) -> float:
    """Return the peak of temporary tensors in a step of `max_num_batched_tokens` that samples `max_num_seqs` sequences.

    The residual stream and its normed copy (2 n h) live through the step. On top comes the largest of: the MLP (gate and up
    projections and their product, 3 n f / t), attention (queries, keys, values and output, (2 n_h + 2 n_kv) n d / t) and the
    sampler, whose tensors are seats x vocabulary on each accelerator: 22 bytes a logit (see `SAMPLER_BYTES_PER_LOGIT`).

    Source: derived from the tensors alive in vLLM's memory profiling run (dummy forward of the token budget, dummy sampler of all
    seats), 2026-11-23, assumed: allocator fragmentation and fused kernels are left out.
    """
    n = max_num_batched_tokens
    residual = 2 * n * model.hidden * ACTIVATION_BYTES
    matrices = 3 if model.gated else 2
    mlp = matrices * n * model.ffn / tensor_parallel * ACTIVATION_BYTES
    attention = (2 * model.heads + 2 * model.kv_heads) * n * model.head_dim / tensor_parallel * ACTIVATION_BYTES
    sampler = min(max_num_seqs, n) * model.vocabulary * SAMPLER_BYTES_PER_LOGIT
    return residual + max(mlp, attention, sampler)


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
) -> KvCapacity:
    """Return the KV capacity of a replica: memory x utilization - weights - activations - reserve, in whole blocks.

    Parameters
    ----------
    weight_dtype, kv_dtype : types of weights and cache. tensor_parallel : accelerators of a stage.
    pipeline_parallel : stages; each holds its part of the layers and of their cache (embedding and head split evenly too).
    max_num_batched_tokens, max_num_seqs : token budget and seats of a step.

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
    settings = _Settings(kv_dtype, max_num_batched_tokens, max_num_seqs, pipeline_parallel)
    capacity = _capacity(model, accelerator, engine, settings, weight_dtype, tensor_parallel)
    if capacity.fits:
        return capacity
    remedies = tuple(_remedies(model, accelerator, engine, settings, weight_dtype, tensor_parallel, capacity))
    return KvCapacity(**{**capacity.__dict__, "remedies": remedies})


@dataclass(frozen=True)
class _Settings:
    kv_dtype: str
    max_num_batched_tokens: int
    max_num_seqs: int
    pipeline_parallel: int


def _capacity(
    model: Model, accelerator: Accelerator, engine: Engine, settings: _Settings, weight_dtype: str, tensor_parallel: int
) -> KvCapacity:
    memory = accelerator.usable_gib * BYTES_PER_GIB
    stages = settings.pipeline_parallel
    weights = weight_bytes(model, weight_dtype, tensor_parallel) / stages
    activations = activation_bytes(
        model,
        tensor_parallel=tensor_parallel,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        max_num_seqs=settings.max_num_seqs,
    )
    reserve = RUNTIME_BYTES + (NCCL_BYTES if tensor_parallel * stages > 1 else 0.0)
    per_token = kv_bytes_per_token(model, kv_dtype=settings.kv_dtype, tensor_parallel=tensor_parallel) / stages
    budget = memory * engine.memory_utilization
    left = budget - weights - activations - reserve
    blocks = max(int(left // (per_token * engine.block_tokens)), 0)
    return KvCapacity(blocks * engine.block_tokens, blocks, memory, budget, weights, activations, reserve, left, per_token)


def _remedies(
    model: Model,
    accelerator: Accelerator,
    engine: Engine,
    settings: _Settings,
    weight_dtype: str,
    tensor_parallel: int,
    capacity: KvCapacity,
) -> list[str]:
    """List the changes of one setting that would leave room for a cache, the smallest change first."""
    found = []
    lighter = [name for name, (size, arithmetic) in WEIGHT_TYPES.items() if size < WEIGHT_TYPES[weight_dtype][0]]
    for name in lighter:
        able = WEIGHT_TYPES[name][1] in accelerator.dense_tflops
        if able and _capacity(model, accelerator, engine, settings, name, tensor_parallel).fits:
            found.append(f"weight_dtype={name}")
    degrees = PCIE_LINK_SHARE if accelerator.link == "pcie" else TENSOR_PARALLEL
    for degree in degrees:
        splits = degree > tensor_parallel and model.heads % degree == 0
        if splits and _capacity(model, accelerator, engine, settings, weight_dtype, degree).fits:
            found.append(f"tensor_parallel={degree}")
            break
    taken = capacity.weight_bytes + capacity.activation_bytes + capacity.reserve_bytes
    block = capacity.kv_bytes_per_token * engine.block_tokens
    least_gib = (taken + block) / engine.memory_utilization / BYTES_PER_GIB
    found.append(f"an accelerator that exposes at least {least_gib:.1f} GiB ({accelerator.name}: {accelerator.usable_gib:g})")
    return found
