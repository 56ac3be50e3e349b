"""Memory of a training job on one accelerator: weights, gradients, optimizer, activations, and what is left of the budget."""

from __future__ import annotations

from dataclasses import dataclass

from sim.domain.hardware import Accelerator
from sim.domain.models import Model
from sim.errors import Problems
from sim.perf.memory import NCCL_BYTES, RUNTIME_BYTES
from sim.units import BYTES_PER_GIB

RECOMPUTE = ("none", "selective", "full")
ZERO_STAGES = (0, 1, 2, 3)
MOST_ACCELERATORS = 1_000_000
MOST_SEQUENCE_TOKENS = 10_000_000
# Share of the memory that the allocator can hand out before fragments are in the way (from memory, 2026-11-23, assumed).
MEMORY_SHARE = 0.95
# Bytes of softmax input, mask and output for each pair of tokens of a head that unfused attention keeps
# (Korthikanti et al. 2022, arXiv 2205.05198, equation 1).
SCORE_BYTES = 5
# Bytes a logit on the stage with the head: fp32 logits, which the loss overwrites with their gradients (the same, section 4.3).
LOGIT_BYTES = 4
# ZeRO-3 keeps the layer at work and the next one whole.
GATHERED_LAYERS = 2


@dataclass(frozen=True)
class Recipe:
    """Bytes that each trained parameter takes, and those of an activation's element.

    Parameters
    ----------
    weights, gradients, optimizer : bytes a parameter. activation : bytes an element. arithmetic : type of the matrix products.
    """

    weights: float
    gradients: float
    optimizer: float
    activation: float
    arithmetic: str


# Adam: two moments in fp32, and fp32 master weights where the weights themselves are in 16 bits. Source: ZeRO, arXiv 1910.02054,
# section 3.1 (16 bytes); research note on hardware, section 4. fp8 keeps bf16 weights, and copies of them in fp8 in two layouts for
# the matrix products of a step (Transformer Engine, from memory, assumed).
RECIPES = {
    "bf16": Recipe(2, 2, 12, 2, "bf16"),
    "bf16_fp32_gradients": Recipe(2, 4, 12, 2, "bf16"),
    "fp8": Recipe(4, 2, 12, 2, "fp8"),
    "fp32": Recipe(4, 4, 8, 4, "tf32"),
}


@dataclass(frozen=True)
class TrainingSetup:
    """How a model is trained: on how many accelerators, split how, in which types.

    Parameters
    ----------
    accelerators : all of them; data parallel over accelerators / (tensor_parallel x pipeline_parallel).
    tensor_parallel, pipeline_parallel : splits of layers and of their number. expert_parallel : splits the experts over
        data-parallel ranks.
    zero : 0 copies everything to every data-parallel rank, 1 splits the optimizer, 2 the gradients too, 3 the weights too.
    recipe : key of `RECIPES`.
    recompute : "none" (unfused attention, everything kept), "selective" (FlashAttention, or attention computed again), "full" (only
        the input of a layer kept).
    sequence_parallel : splits what tensor parallelism leaves whole.
    micro_batch : sequences of `sequence_tokens` that a rank works on at once.
    lora_rank : 0 to train all weights, else the rank of the adapters of every linear layer, and the weights stay as they are.

    Examples
    --------
    >>> TrainingSetup(accelerators=64, tensor_parallel=8, pipeline_parallel=2).data_parallel
    4
    """

    accelerators: int = 8
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    expert_parallel: int = 1
    zero: int = 1
    recipe: str = "bf16"
    recompute: str = "selective"
    sequence_parallel: bool = False
    micro_batch: int = 1
    sequence_tokens: int = 4096
    lora_rank: int = 0

    @property
    def data_parallel(self) -> int:
        """Ranks that work on different sequences."""
        return self.accelerators // (self.tensor_parallel * self.pipeline_parallel)


@dataclass(frozen=True)
class TrainingMemory:
    """Where the memory of one accelerator goes, in bytes.

    Parameters
    ----------
    weight_bytes, gradient_bytes, optimizer_bytes : states of the model. gathered_bytes : layers that ZeRO-3 puts together.
    activation_bytes : kept for the backward pass, or computed again, on the fullest stage, logits with them.
    reserve_bytes : runtime and communication buffers. budget_bytes : what can be handed out.
    """

    weight_bytes: float
    gradient_bytes: float
    optimizer_bytes: float
    gathered_bytes: float
    activation_bytes: float
    reserve_bytes: float
    budget_bytes: float

    @property
    def total_bytes(self) -> float:
        """All of it together."""
        states = self.weight_bytes + self.gradient_bytes + self.optimizer_bytes + self.gathered_bytes
        return states + self.activation_bytes + self.reserve_bytes

    @property
    def fits(self) -> bool:
        """Whether it is within the budget."""
        return self.total_bytes <= self.budget_bytes


def state_bytes(parameters: float, *, recipe: str, zero: int, data_parallel: int) -> tuple[float, float, float]:
    """Return the bytes of weights, gradients and optimizer on one data-parallel rank.

    Parameters
    ----------
    parameters : trained ones of the rank's part of the model. recipe : key of `RECIPES`. zero : stage, 0 to 3.

    Source: ZeRO, arXiv 1910.02054, figure 1: 7.5 B parameters on 64 ranks take 120, 31.4, 16.6 and 1.9 GB.

    Examples
    --------
    >>> [round(sum(state_bytes(7.5e9, recipe="bf16", zero=zero, data_parallel=64)) / 1e9, 1) for zero in (0, 1, 2, 3)]
    [120.0, 31.4, 16.6, 1.9]
    """
    each = RECIPES[recipe]
    weights, gradients, optimizer = (
        parameters * size / (data_parallel if zero >= stage else 1)
        for size, stage in ((each.weights, 3), (each.gradients, 2), (each.optimizer, 1))
    )
    return weights, gradients, optimizer


def adapter_parameters(model: Model, rank: int) -> float:
    """Return the parameters of low-rank adapters on every linear layer: rank (inputs + outputs) each; experts have their own.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> adapter_parameters(load_catalog().models["llama-3.1-8b"], rank=16)
    41943040.0
    """
    hidden, attention = model.hidden, _attention_inputs_and_outputs(model)
    matrices = 3 if model.gated else 2
    plain = (model.layers - model.moe_layers) * matrices * (hidden + model.ffn)
    experts = model.moe_layers * (model.experts + model.shared_experts) * matrices * (hidden + model.expert_ffn)
    return float(rank * (model.layers * attention + plain + experts))


def _attention_inputs_and_outputs(model: Model) -> int:
    """Return the sum of inputs and outputs of the projections of one layer's attention."""
    hidden = model.hidden
    if model.kv_latent == 0:
        queries, keys = model.heads * model.head_dim, model.kv_heads * model.head_dim
        return 2 * (hidden + queries) + 2 * (hidden + keys)
    query_width = model.heads * (model.head_dim + model.rope_head_dim)
    entry = model.query_latent or hidden
    queries = entry + query_width + (hidden + model.query_latent if model.query_latent else 0)
    keys = hidden + model.kv_latent + model.rope_head_dim
    up = model.kv_latent + model.heads * (model.head_dim + model.value_head_dim)
    return queries + keys + up + model.heads * model.value_head_dim + hidden


def layer_activation_bytes(model: Model, setup: TrainingSetup) -> float:
    """Return the bytes that one layer keeps for the backward pass of one micro-batch, on one accelerator.

    Counted for each token, in elements: inputs of attention and of the feed-forward network and of the two norms 4 h (and 1 h of
    dropout masks where the network is ungated, as in GPT), queries, keys, values and the attention's output, and 3 f of the gated
    network (gate, up and their product; 2 f ungated). With 2 bytes an element that is 34 h for GPT, the s b h 34 of the source, and
    34 h for Llama-3.1-8B too. Unfused attention adds 5 n_h s. Tensor parallelism splits all but the first group, sequence
    parallelism that one too. A mixture of experts has k + shared experts in place of f, and its input once for each routed copy.

    Source: Korthikanti et al. 2022, arXiv 2205.05198, section 4, with the widths of newer layers counted in the same way.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> llama = load_catalog().models["llama-3.1-8b"]
    >>> layer_activation_bytes(llama, TrainingSetup(sequence_tokens=4096)) / (4096 * 4096)
    34.0
    """
    tokens = setup.sequence_tokens * setup.micro_batch
    size = RECIPES[setup.recipe].activation
    if setup.recompute == "full":
        return _per_rank(tokens * model.hidden * size, 0.0, setup)
    whole, split = _kept_elements(model)
    scores = SCORE_BYTES * model.heads * setup.sequence_tokens * size / 2 if setup.recompute == "none" else 0.0
    return _per_rank(tokens * whole * size, tokens * (split * size + scores), setup)


def _per_rank(whole: float, split: float, setup: TrainingSetup) -> float:
    degree = setup.tensor_parallel
    return whole / (degree if setup.sequence_parallel else 1) + split / degree


def _kept_elements(model: Model) -> tuple[float, float]:
    """Return the elements kept for a token of a layer, mean over layers: whole on every tensor-parallel rank, and split."""
    hidden = model.hidden
    whole = (4.0 if model.gated else 5.0) * hidden
    if model.kv_latent:
        wide = model.heads * (model.head_dim + model.rope_head_dim)
        attention = 2 * wide + 2 * model.heads * model.value_head_dim
        whole += model.query_latent + model.kv_latent + model.rope_head_dim
    else:
        attention = 2 * model.heads * model.head_dim + 2 * model.kv_heads * model.head_dim
    kept = 3 if model.gated else 2
    used = model.active_experts + model.shared_experts
    sparse = model.moe_layers / model.layers
    network = (1 - sparse) * kept * model.ffn + sparse * (kept * used * model.expert_ffn + model.active_experts * hidden)
    return whole, attention + network


def activation_bytes(model: Model, setup: TrainingSetup) -> float:
    """Return the bytes of activations on the fullest pipeline stage.

    The first stage has as many micro-batches in flight as there are stages (one forward, one backward), so L layers' worth whatever
    their number; the last has one, and the logits. Full recompute adds one layer at work.
    """
    stages, layers = setup.pipeline_parallel, model.layers / setup.pipeline_parallel
    layer = layer_activation_bytes(model, setup)
    at_work = 0.0
    if setup.recompute == "full":
        at_work = layer_activation_bytes(model, TrainingSetup(**{**setup.__dict__, "recompute": "selective"}))
    tokens = setup.sequence_tokens * setup.micro_batch
    logits = LOGIT_BYTES * tokens * model.vocabulary / setup.tensor_parallel
    return at_work + max(layer * layers * stages, layer * layers + logits)


def training_memory(model: Model, accelerator: Accelerator, setup: TrainingSetup) -> TrainingMemory:
    """Return what training takes of one accelerator, item by item.

    Source: research note on hardware, section 4; ZeRO (arXiv 1910.02054); Korthikanti et al. 2022 (arXiv 2205.05198).

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> catalog = load_catalog()
    >>> llama, h100 = catalog.models["llama-3.1-8b"], catalog.accelerators["h100-sxm"]
    >>> training_memory(llama, h100, TrainingSetup(accelerators=1)).fits  # 16 bytes x 8 B parameters
    False
    >>> training_memory(llama, h100, TrainingSetup(accelerators=8, zero=2)).fits
    True
    """
    experts = model.moe_layers * model.experts * model.expert_parameters
    part = setup.tensor_parallel * setup.pipeline_parallel
    shared, own = (model.counted_parameters - experts) / part, experts / (part * setup.expert_parallel)
    ranks = setup.data_parallel
    if setup.lora_rank:
        trained = adapter_parameters(model, setup.lora_rank) / part
        weights, gradients, optimizer = state_bytes(trained, recipe=setup.recipe, zero=setup.zero, data_parallel=ranks)
        frozen = RECIPES[setup.recipe].weights * (shared + own)
        weights += frozen / ranks if setup.zero == 3 else frozen
    else:
        states = zip(
            state_bytes(shared, recipe=setup.recipe, zero=setup.zero, data_parallel=ranks),
            state_bytes(own, recipe=setup.recipe, zero=setup.zero, data_parallel=ranks // setup.expert_parallel),
            strict=True,
        )
        weights, gradients, optimizer = (sum(pair) for pair in states)
    layer = (shared + own) * setup.pipeline_parallel / model.layers
    gathered = GATHERED_LAYERS * layer * RECIPES[setup.recipe].weights if setup.zero == 3 and ranks > 1 else 0.0
    return TrainingMemory(
        weight_bytes=weights,
        gradient_bytes=gradients,
        optimizer_bytes=optimizer,
        gathered_bytes=gathered,
        activation_bytes=activation_bytes(model, setup),
        reserve_bytes=RUNTIME_BYTES + (NCCL_BYTES if setup.accelerators > 1 else 0.0),
        budget_bytes=MEMORY_SHARE * accelerator.usable_gib * BYTES_PER_GIB,
    )


def check_setup(model: Model, setup: TrainingSetup, problems: Problems) -> None:
    """Record what in a training setup cannot be, by the names of its fields.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> problems = Problems()
    >>> setup = TrainingSetup(accelerators=12, tensor_parallel=8, zero=4, recompute="slective")
    >>> check_setup(load_catalog().models["llama-3.1-8b"], setup, problems)
    >>> [(problem.path, problem.nearest) for problem in problems.found]
    [('zero', ''), ('recompute', 'selective'), ('accelerators', '')]
    """
    sound = {
        name: problems.check(1 <= getattr(setup, name) <= most, name, getattr(setup, name), "is out of range", f"1 to {most}")
        for name, most in (
            ("accelerators", MOST_ACCELERATORS),
            ("tensor_parallel", model.heads),
            ("pipeline_parallel", model.layers),
            ("expert_parallel", max(model.experts, 1)),
            ("micro_batch", MOST_SEQUENCE_TOKENS),
            ("sequence_tokens", MOST_SEQUENCE_TOKENS),
        )
    }
    rank = setup.lora_rank
    problems.check(0 <= rank <= model.hidden, "lora_rank", rank, "is out of range", f"0 to {model.hidden}; 0 trains all weights")
    stages = ", ".join(str(stage) for stage in ZERO_STAGES)
    problems.check(setup.zero in ZERO_STAGES, "zero", setup.zero, "is not a stage of ZeRO", stages)
    problems.check(setup.recipe in RECIPES, "recipe", setup.recipe, "is not a training recipe", choices=RECIPES)
    problems.check(setup.recompute in RECOMPUTE, "recompute", setup.recompute, "is not a kind of recompute", choices=RECOMPUTE)
    degree = setup.tensor_parallel
    if sound["tensor_parallel"]:
        splits = ", ".join(str(each) for each in range(1, model.heads + 1) if model.heads % each == 0)
        message = f"does not divide the heads of {model.name}"
        problems.check(model.heads % degree == 0, "tensor_parallel", degree, message, splits)
    if not (sound["accelerators"] and sound["tensor_parallel"] and sound["pipeline_parallel"]):
        return
    part = degree * setup.pipeline_parallel
    message = "must be a multiple of tensor_parallel x pipeline_parallel"
    whole = problems.check(setup.accelerators % part == 0, "accelerators", setup.accelerators, message, f"a multiple of {part}")
    if whole and sound["expert_parallel"]:
        even = setup.data_parallel % setup.expert_parallel == 0 and (model.experts or 1) % setup.expert_parallel == 0
        message = "must divide the experts and the data-parallel ranks"
        allowed = f"a divisor of {max(model.experts, 1)} and of {setup.data_parallel}"
        problems.check(even, "expert_parallel", setup.expert_parallel, message, allowed)
