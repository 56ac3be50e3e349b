"""Constants of a step from model, accelerator, fitted efficiencies and engine: a roofline, costs per layer, an engine layer."""

from __future__ import annotations

import numpy as np

from sim.domain.hardware import Accelerator, Engine, StepFit
from sim.domain.models import Model
from sim.errors import Problems
from sim.perf.power import StepWork, step_energies
from sim.perf.steptime import StepModel, closed_form

# Handing activations from one pipeline stage to the next: 100 Gbit/s of network per accelerator and 30 us. Source: AWS p4d has
# 400 Gbit/s for 8 accelerators, p5 3,200; general knowledge, 2026-11-23, assumed.
STAGE_LINK_BYTES_PER_NS = 12.5
STAGE_LINK_NS = 30_000.0

# Bytes per weight, and the arithmetic in which the linear layers run; nvfp4 is 4 bits and one fp8 scale for 16 weights.
WEIGHT_TYPES: dict[str, tuple[float, str]] = {
    "fp32": (4.0, "tf32"),
    "bf16": (2.0, "bf16"),
    "fp8": (1.0, "fp8"),
    "w8a8": (1.0, "int8"),
    "int8_wo": (1.0, "bf16"),
    "int4_wo": (0.5, "bf16"),
    "nvfp4": (0.5625, "fp4"),
}
KV_BYTES = {"bf16": 2, "fp8": 1}
# Share of the link's bandwidth that an all-reduce gets over PCIe; 8 cards are not modelled
# (research note on hardware, read 2026-11-23, fitted on L40S).
PCIE_LINK_SHARE = {1: 1.0, 2: 1.0, 4: 0.33}
ELEMENTWISE_BYTES = 40


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
        problems.check(weight_dtype in has, f"{path}.weight_dtype", weight_dtype, message, ", ".join(has))
    problems.check(kv_dtype in KV_BYTES, f"{path}.kv_dtype", kv_dtype, "not a type of the KV cache", choices=KV_BYTES)
    splits = [degree for degree in accelerator.degrees if model.heads % degree == 0]
    message = f"cannot split {model.name} over {accelerator.link} like this"
    allowed = ", ".join(str(degree) for degree in splits)
    problems.check(tensor_parallel in splits, f"{path}.tensor_parallel", tensor_parallel, message, allowed)


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
) -> StepModel:
    """Return the constants of a step of one replica: a roofline with fitted efficiencies, a per-layer cost and an engine layer.

    With N the linear parameters, H = V h those of the head, w bytes a weight, t the tensor-parallel degree, peaks F and BW from the
    datasheet and eta, tau, alpha, kappa of the fit::

        T_c = (2 N n + 2 H n_out) / (t eta_c F)           T_w = (N w + 2 H) / (t eta_w BW)
        T = s [max(T_c, T_w) + kappa min(T_c, T_w) + 4 L n_h d S / (t eta_a F_bf16)
               + (2 L max(n_kv/t, 1) d b_kv C + 40 L h n) / (eta_kv BW) + L tau
               + (t > 1) (2 L alpha + 8 L h n (t - 1) / (t eta_l B_link))] + o_0 + o_s n_out

    Energy per step of the replica's t accelerators is t TDP T min(1, base + memory u_m + compute u_c) with u_m = bytes / (BW T) and
    u_c = FLOPs / (F T), on one accelerator and against datasheet peaks. Bytes are those of the formula above (weights, KV,
    element-wise traffic). FLOPs are 2 N n + 2 H n_out in the weights' arithmetic and 4 L n_h d (S + C) in bf16: the attention of a
    decoding token costs as many operations per cached token as that of a prefill.

    Parameters
    ----------
    fit : row of the accelerator, the engine's kernels and the weight type. weight_dtype : key of `WEIGHT_TYPES`.
    kv_dtype : "bf16" or "fp8". tensor_parallel : accelerators of a stage. pipeline_parallel : stages; a step passes them one after
        the other, with a hand-over between two, and no two batches overlap: memory grows, speed does not (a lower bound).

    Raises
    ------
    InputError : the accelerator lacks the arithmetic, or the model cannot be split like this.

    Source: research note on hardware, sections 2 and 6 (2026-11-23); form and kappa chosen on kernel-composed step times, power
    fitted to the ML.ENERGY leaderboard.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> from sim.perf.steptime import ONE_NS_FX
    >>> catalog = load_catalog()
    >>> step = step_model(
    ...     catalog.models["llama-3.1-8b"],
    ...     catalog.accelerators["h100-sxm"],
    ...     catalog.fits["h100-sxm/vllm/bf16"],
    ...     catalog.engines["vllm-2026"],
    ...     weight_dtype="bf16",
    ...     kv_dtype="bf16",
    ...     tensor_parallel=1,
    ... )
    >>> round(step.step_fx(n=1, n_out=1, s_twice=0, context=512, decoding=1) / ONE_NS_FX / 1e6, 2)  # ms
    7.43
    """
    problems = Problems()
    settings = {"weight_dtype": weight_dtype, "kv_dtype": kv_dtype, "tensor_parallel": tensor_parallel}
    check_parallel(model, accelerator, **settings, path=model.name, problems=problems)  # type: ignore[arg-type]
    problems.raise_if_any()

    weight_bytes, arithmetic = WEIGHT_TYPES[weight_dtype]
    t, layers, hidden = tensor_parallel, model.layers, model.hidden
    flops_per_s = accelerator.dense_tflops[arithmetic] * 1e12
    attention_flops_per_s = accelerator.dense_tflops["bf16"] * 1e12
    bytes_per_s = accelerator.bandwidth_gb_per_s * 1e9
    # On one accelerator: operations per token, per sampled sequence and per unit of S or C; bytes per step, token and unit of C.
    token_flops, head_flops = 2 * model.linear_parameters / t, 2 * model.head_parameters / t
    attention_flops = 4 * layers * model.heads * model.head_dim / t
    read_bytes = (model.linear_parameters * weight_bytes + 2 * model.head_parameters) / t
    token_bytes = ELEMENTWISE_BYTES * layers * hidden
    context_bytes = 2 * layers * max(model.kv_heads / t, 1) * model.head_dim * KV_BYTES[kv_dtype]
    allreduce_s, link_s = 0.0, 0.0
    if t > 1:
        share = PCIE_LINK_SHARE[t] if accelerator.link == "pcie" else 1.0
        allreduce_s = 2 * layers * fit.allreduce_s
        link_s = 8 * layers * hidden * (t - 1) / (t * fit.eta_link * share * accelerator.link_gb_per_s * 1e9)
    hand_overs = pipeline_parallel - 1
    hand_over_ns = hand_overs * 2 * hidden / STAGE_LINK_BYTES_PER_NS
    kernel_ns = engine.kernel_scale * 1e9
    few = np.arange(2.0)  # the energies are affine in tokens and sampled sequences: two points say it all
    work = StepWork(
        arithmetic=arithmetic,
        tokens_flops=token_flops * few,
        tokens_bytes=read_bytes + token_bytes * few,
        sampled_flops=head_flops * few,
        sampled_bytes=np.zeros(2),
        attention_flops=attention_flops,
        context_flops=attention_flops,
        context_bytes=context_bytes,
    )
    energies = step_energies(accelerator, work, accelerators=t)
    weights_j, after_j = map(float, energies.tokens_j)
    head_ns = kernel_ns * head_flops / (fit.eta_compute * flops_per_s)
    return closed_form(
        linear_ns=kernel_ns * token_flops / (fit.eta_compute * flops_per_s),
        weights_ns=kernel_ns * read_bytes / (fit.eta_weights * bytes_per_s),
        overlap=fit.overlap,
        attention_ns=kernel_ns * attention_flops / (fit.eta_attention * attention_flops_per_s),
        token_ns=kernel_ns * (token_bytes / (fit.eta_kv * bytes_per_s) + link_s) + hand_over_ns,
        fixed_ns=kernel_ns * (layers * fit.layer_s + allreduce_s) + hand_overs * STAGE_LINK_NS + engine.step_s * 1e9,
        sequence_ns=head_ns + engine.sequence_s * 1e9,
        context_ns=kernel_ns * context_bytes / (fit.eta_kv * bytes_per_s),
        tdp_w=energies.tdp_w + t * hand_overs * accelerator.idle_w,
        base_w=energies.base_w + t * hand_overs * accelerator.idle_w,
        weights_j=weights_j,
        token_j=after_j - weights_j,
        sequence_j=float(energies.sampled_j[1] - energies.sampled_j[0]),
        attention_j=energies.attention_j,
        context_j=energies.context_j,
        validity=fit.validity,
    )
