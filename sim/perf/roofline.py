"""Tables of a step from model, accelerator, fitted efficiencies and engine: the time of kernels, and an engine layer over it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sim.domain.hardware import WEIGHT_TYPES as WEIGHT_TYPES
from sim.domain.hardware import Accelerator, Engine, StepFit
from sim.domain.models import Model
from sim.errors import Problems
from sim.perf.kernel_times import KernelTimes, table_length
from sim.perf.power import KernelSeconds, StepEnergies, step_energies
from sim.perf.steptime import Context, StepModel, fx
from sim.perf.work import Floats, step_work

# Handing activations from one pipeline stage to the next: 100 Gbit/s of network per accelerator and 30 us. Source: AWS p4d has
# 400 Gbit/s for 8 accelerators, p5 3,200; general knowledge, 2026-11-23, assumed.
STAGE_LINK_BYTES_PER_NS = 12.5
STAGE_LINK_NS = 30_000.0

# Types of expert weights alone; everything else of such a model stays in bf16 (gpt-oss model card, from memory).
EXPERTS_ONLY = frozenset({"mxfp4"})
KV_BYTES = {"bf16": 2, "fp8": 1}
# Steps of up to so many tokens are computed one by one; beyond, a table goes on as it ends. Experts are all in use long before.
MOST_TOKENS = 1 << 14
MOST_SEQUENCES = 1 << 11
EFFICIENCIES = ("eta_compute", "eta_weights", "eta_attention", "eta_kv", "eta_expert_compute", "eta_expert_weights")


def check_parallel(
    model: Model,
    accelerator: Accelerator,
    *,
    weight_dtype: str,
    kv_dtype: str,
    tensor_parallel: int,
    path: str,
    problems: Problems,
) -> None:
    """Record what keeps a model from running on accelerators in these types and at this tensor-parallel degree.

    Parameters
    ----------
    path : dotted path of the deployment, the start of the problems' paths.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> catalog, problems = load_catalog(), Problems()
    >>> a100, model = catalog.accelerators["a100-sxm-80"], catalog.models["llama-3.1-8b"]
    >>> settings = {"weight_dtype": "fp8", "kv_dtype": "bf16", "tensor_parallel": 3}
    >>> check_parallel(model, a100, **settings, path="deployments.chat", problems=problems)
    >>> [problem.path for problem in problems.found]
    ['deployments.chat.weight_dtype', 'deployments.chat.tensor_parallel']
    """
    if problems.check(
        weight_dtype in WEIGHT_TYPES, f"{path}.weight_dtype", weight_dtype, "not a weight type", choices=WEIGHT_TYPES
    ):
        has = [name for name, (_, arithmetic) in WEIGHT_TYPES.items() if arithmetic in accelerator.dense_tflops]
        message = f"{accelerator.name} has no such arithmetic"
        if not model.experts:
            has = [name for name in has if name not in EXPERTS_ONLY]
            message = f"{model.name} has no experts" if weight_dtype in EXPERTS_ONLY else message
        problems.check(weight_dtype in has, f"{path}.weight_dtype", weight_dtype, message, ", ".join(has))
    problems.check(kv_dtype in KV_BYTES, f"{path}.kv_dtype", kv_dtype, "not a type of the KV cache", choices=KV_BYTES)
    splits = [degree for degree in accelerator.degrees if model.heads % degree == 0]
    message = f"cannot split {model.name} over {accelerator.link} like this"
    allowed = ", ".join(str(degree) for degree in splits)
    problems.check(tensor_parallel in splits, f"{path}.tensor_parallel", tensor_parallel, message, allowed)


def kernel_times(
    model: Model,
    accelerator: Accelerator,
    fit: StepFit,
    *,
    weight_dtype: str,
    kv_dtype: str,
    tensor_parallel: int,
    weight_share: float = 1.0,
    linear_speed: float = 1.0,
) -> KernelTimes:
    """Return the times of a step's kernels alone, as functions of what is in the step.

    Parameters
    ----------
    fit : row of the accelerator, the engine's kernels and the weight type. weight_dtype : key of `WEIGHT_TYPES`.
    kv_dtype : "bf16" or "fp8". tensor_parallel : accelerators of a stage.
    weight_share : of the bytes of linear layers that are read (sparse weights). linear_speed : of matrix products, 1 is dense.

    Raises
    ------
    InputError : the accelerator lacks the arithmetic, or the model cannot be split like this.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> catalog = load_catalog()
    >>> llama, h100 = catalog.models["llama-3.1-8b"], catalog.accelerators["h100-sxm"]
    >>> kinds = {"weight_dtype": "bf16", "kv_dtype": "bf16", "tensor_parallel": 1}
    >>> kernels = kernel_times(llama, h100, catalog.fits["h100-sxm/vllm/bf16"], **kinds)
    >>> bool(kernels.tokens_s(np.array([1.0]))[0] > 2 * 6.979e9 / 3.35e12)  # the weights are read once
    True
    """
    problems = Problems()
    settings = {"weight_dtype": weight_dtype, "kv_dtype": kv_dtype, "tensor_parallel": tensor_parallel}
    check_parallel(model, accelerator, **settings, path=model.name, problems=problems)  # type: ignore[arg-type]
    problems.raise_if_any()
    weight_bytes, arithmetic = WEIGHT_TYPES[weight_dtype]
    plain_bytes, plain_arithmetic = WEIGHT_TYPES["bf16" if weight_dtype in EXPERTS_ONLY else weight_dtype]
    return KernelTimes(
        model=model,
        accelerator=accelerator,
        fit=fit,
        tensor_parallel=tensor_parallel,
        weight_bytes=weight_bytes,
        plain_weight_bytes=plain_bytes,
        kv_bytes=KV_BYTES[kv_dtype],
        flops_per_s=accelerator.dense_tflops[arithmetic] * 1e12,
        plain_flops_per_s=accelerator.dense_tflops[plain_arithmetic] * 1e12,
        weight_share=weight_share,
        linear_speed=linear_speed,
    )


def within_peaks(fit: StepFit, kernel_scale: float) -> StepFit:
    """Return efficiencies with which times stay possible when an engine's factor is on them.

    Engines whose kernels overlap take less than the sum of their times, but no kernel beats the datasheet: with a factor below 1,
    an efficiency above it would be one above 1.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> within_peaks(load_catalog().fits["b200-sxm/trtllm/bf16"], kernel_scale=0.5).eta_kv
    0.5
    """
    if kernel_scale >= 1.0:
        return fit
    return replace(fit, **{name: min(getattr(fit, name), kernel_scale) for name in EFFICIENCIES})


def step_model(
    model: Model,
    accelerator: Accelerator,
    fit: StepFit,
    engine: Engine,
    *,
    weight_dtype: str,
    kv_dtype: str,
    tensor_parallel: int,
    pipeline_parallel: int = 1,
    weight_share: float = 1.0,
    linear_speed: float = 1.0,
) -> StepModel:
    """Return the tables of a step of one replica: the kernels' time times s, and the engine's o_0 + o_s n_out.

    With the efficiencies eta of the fit, peaks F and BW of the datasheet, t accelerators and max* (a, b) = max + overlap min::

        tokens[n]     = max(s [sum over matrices of max*(2 K (n N + min(n, 128) X) / (eta_c F), K N w / (eta_w BW))
                               + experts, element-wise traffic, two all-reduces a layer, L layer_s], L launch)
                        + o_t n + o_0 + L_e o_e + L_l o_l
        sampled[m]    = s max*(2 V h m / (t eta F_bf16), 2 V h / (t eta_w BW)) + o_s m
        attention     = s 4 L n_h d / (t eta_a F_bf16) per unit of S
        context(B, C) = s bytes of KV in C / (eta_kv BW)
        prompt        = s L (prefill_layer_s, and query_key_norm_s where the model has such a norm)

    All terms are in `KernelTimes`; o_e and o_l are the engine's, for layers with experts and with latent attention. Layers with a
    window have a knot there, and cost a prompt a whole window for each token. The band is that of the kernels or of the engine,
    whichever is wider.

    Energy is that of the work of `sim.perf.work`, by the power model of the accelerator (`step_energies`).

    Parameters
    ----------
    fit : row of the accelerator, the engine's kernels and the weight type. weight_dtype : key of `WEIGHT_TYPES`.
    kv_dtype : "bf16" or "fp8". tensor_parallel : accelerators of a stage. pipeline_parallel : stages; a step passes them one after
        the other, with a hand-over between two, and no two batches overlap: memory grows, speed does not (a lower bound).
    weight_share : of the bytes of linear layers that are read (sparse weights). linear_speed : of matrix products, 1 is dense.

    Raises
    ------
    InputError : the accelerator lacks the arithmetic, or the model cannot be split like this.

    Source: forms and efficiencies fitted to kernel-composed step times (`experiments/fit_hardware`, 2026-11-23).

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> from sim.perf.steptime import ONE_NS_FX
    >>> catalog = load_catalog()
    >>> step = step_model(
    ...     catalog.models["llama-3.1-8b"],
    ...     catalog.accelerators["h100-sxm"],
    ...     catalog.fits["h100-sxm/vllm/bf16"],
    ...     catalog.engines["bare"],
    ...     weight_dtype="bf16",
    ...     kv_dtype="bf16",
    ...     tensor_parallel=1,
    ... )
    >>> round(step.step_fx(n=1, n_out=1, s_twice=0, context=512, decoding=1) / ONE_NS_FX / 1e6, 1)  # ms
    6.4
    """
    kinds = {"weight_dtype": weight_dtype, "kv_dtype": kv_dtype, "tensor_parallel": tensor_parallel}
    shares = {"weight_share": weight_share, "linear_speed": linear_speed}
    possible = within_peaks(fit, engine.kernel_scale)
    kernels = kernel_times(model, accelerator, possible, **kinds, **shares)  # type: ignore[arg-type]
    scale_ns, hand_overs = engine.kernel_scale * 1e9, pipeline_parallel - 1
    tokens, sampled = np.arange(MOST_TOKENS + 1.0), np.arange(MOST_SEQUENCES + 1.0)
    hand_over_ns = hand_overs * (STAGE_LINK_NS + 2 * model.hidden / STAGE_LINK_BYTES_PER_NS * tokens)
    prompt_ns = scale_ns * kernels.prompt_s
    kernels_ns = np.maximum(scale_ns * kernels.tokens_s(tokens), 1e9 * engine.launch_layer_s * model.layers)
    latent_layers = model.layers if model.kv_latent else 0
    engine_s = engine.step_s + engine.expert_layer_s * model.moe_layers + engine.latent_layer_s * latent_layers
    tokens_ns = kernels_ns + hand_over_ns + 1e9 * (engine_s + engine.token_s * tokens)
    sampled_ns = scale_ns * kernels.sampled_s(sampled) + engine.sequence_s * 1e9 * sampled
    tokens_fx, token_fx = _table(tokens_ns)
    sampled_fx, sequence_fx = _table(sampled_ns)
    energies = _energies(kernels, weight_dtype, engine.kernel_scale, max(len(tokens_fx), 2), max(len(sampled_fx), 2))
    idle_w = tensor_parallel * hand_overs * accelerator.idle_w
    kernel_w = tensor_parallel * accelerator.power.kernel * accelerator.tdp_w
    # Layers with a window read no more than it: above the knot the slope is that of the others, what they read is in the offset.
    window = model.window_tokens if model.window_layers else 0
    token_ns = scale_ns * kernels.cached_token_s
    held_ns = window * model.window_layers * token_ns
    whole = (fx(model.layers * token_ns), energies.context_j + energies.window_j)
    rest = (fx((model.layers - model.window_layers) * token_ns), energies.context_j)
    contexts: list[tuple[Context, ...]] = [(Context(0, whole[0], 0.0, whole[1]),)]
    if window:
        held = [(fx(decoding * held_ns), decoding * window * energies.window_j) for decoding in range(1, MOST_SEQUENCES + 1)]
        contexts = [(*contexts[0], Context(held_fx, rest[0], held_j, rest[1])) for held_fx, held_j in held]
    return StepModel(
        tokens_fx=tokens_fx,
        token_fx=token_fx,
        sampled_fx=sampled_fx,
        sequence_fx=sequence_fx,
        attention_fx=fx(scale_ns * kernels.attention_s / 2),
        prompt_fx=fx(prompt_ns),
        knots_tokens=(0, window) if window else (0,),
        contexts=tuple(contexts),
        tokens_j=tuple(energies.tokens_j[: len(tokens_fx)].tolist()),
        token_j=_last_step(energies.tokens_j),
        sampled_j=tuple(energies.sampled_j[: len(sampled_fx)].tolist()),
        sequence_j=_last_step(energies.sampled_j),
        attention_j=energies.attention_j,
        prompt_j=kernel_w * prompt_ns * 1e-9,
        tdp_w=energies.tdp_w + idle_w,
        base_w=energies.base_w + idle_w,
        validity=fit.validity,
        band=max(fit.expert_band if model.experts else fit.band, engine.step_error),
    )


def _table(times_ns: Floats) -> tuple[tuple[int, ...], int]:
    """Return a table of times in fixed point, cut where it becomes a line, and the slope with which it goes on."""
    kept = times_ns[: table_length(times_ns)]
    return tuple(fx(time_ns) for time_ns in kept.tolist()), fx(_last_step(times_ns))


def _last_step(values: Floats) -> float:
    return float(values[-1] - values[-2]) if len(values) > 1 else 0.0


def _energies(kernels: KernelTimes, weight_dtype: str, scale: float, tokens: int, sampled: int) -> StepEnergies:
    """Return the energies of steps of up to so many tokens and sequences, of kernels slowed by a factor."""
    n, n_out, model = np.arange(float(tokens)), np.arange(float(sampled)), kernels.model
    work = step_work(
        model,
        weight_bytes=kernels.weight_bytes * kernels.weight_share,
        plain_weight_bytes=kernels.plain_weight_bytes * kernels.weight_share,
        arithmetic=WEIGHT_TYPES[weight_dtype][1],
        kv_bytes=kernels.kv_bytes,
        tensor_parallel=kernels.tensor_parallel,
        tokens=n,
        sampled=n_out,
        weight_dtype=weight_dtype,
    )
    seconds = KernelSeconds(
        tokens_s=scale * kernels.tokens_s(n),
        sampled_s=scale * kernels.sampled_s(n_out),
        attention_s=scale * kernels.attention_s,
        context_s=scale * (model.layers - model.window_layers) * kernels.cached_token_s,
        window_s=scale * model.window_layers * kernels.cached_token_s,
    )
    return step_energies(kernels.accelerator, work, accelerators=kernels.tensor_parallel, kernels=seconds)
