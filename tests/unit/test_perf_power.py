"""Power and energy of steps: hand-worked joules, bounds and directions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.catalog.loader import load_catalog
from sim.domain.hardware import Accelerator, PowerFit, Provenance
from sim.perf.power import KernelSeconds, node_idle_w, replica_idle_w, step_energies, stepping_power_w
from sim.perf.roofline import step_model
from sim.perf.steptime import ONE_NS_FX, StepModel
from sim.perf.work import StepWork, step_work, touched_experts

CATALOG = load_catalog()
ROUND = PowerFit(
    name="round",
    kernel=0.1,
    byte_pj=100.0,
    context_byte_pj=200.0,
    flop_pj={"bf16": 1.0, "fp8": 0.5},
    expert_kernel=0.05,
    expert_flop_factor=3.0,
    expert_byte_factor={"fp8": 2.0},
    band=0.1,
    expert_band=0.4,
    provenance=Provenance("round numbers", "2026-11-23", "assumed"),
)
CHIP = replace(CATALOG.accelerators["h100-sxm"], tdp_w=1000.0, idle_w=200.0, power=ROUND)
NOTHING = np.zeros(1)
USES = st.floats(0.0, 1.0)


def built(model: str, accelerator: str | Accelerator, dtype: str = "bf16", tensor_parallel: int = 1) -> StepModel:
    """The step model of vLLM's kernels and engine."""
    chip = CATALOG.accelerators[accelerator] if isinstance(accelerator, str) else accelerator
    fit, engine = CATALOG.fits[f"{chip.name}/vllm/{dtype}"], CATALOG.engines["vllm-2026"]
    kinds = {"weight_dtype": dtype, "kv_dtype": "bf16", "tensor_parallel": tensor_parallel}
    return step_model(CATALOG.models[model], chip, fit, engine, **kinds)  # type: ignore[arg-type]


def power_w(step: StepModel, load: tuple[int, int, int, int, int]) -> float:
    """Power of a step as long as the model has it."""
    step_fx = step.step_fx(*load)
    return step.step_j(step_fx, *load) / (step_fx / ONE_NS_FX / 1e9)


def test_joules_of_bytes_and_operations() -> None:
    """100 pJ a byte: a gigabyte is 0.1 J. 1 pJ a FLOP: a TFLOP is 1 J. 200 pJ a byte of the cache: a gigabyte is 0.2 J."""
    work = StepWork("bf16", np.array([2e12]), np.array([3e9]), np.array([1e12]), np.array([1e9]), 4e9, 5e9, 6e6)
    energies = step_energies(CHIP, work, accelerators=1, kernels=KernelSeconds(NOTHING, NOTHING, 0.0, 0.0))
    assert energies.tokens_j[0] == pytest.approx(2.0 + 0.3)
    assert energies.sampled_j[0] == pytest.approx(1.0 + 0.1)
    assert energies.attention_j == pytest.approx(4e9 * 1e-12)
    assert energies.context_j == pytest.approx(5e9 * 1e-12 + 6e6 * 200e-12)
    assert (energies.base_w, energies.tdp_w) == (200.0, 1000.0)


def test_kernels_draw_a_tenth_of_the_limit_for_as_long_as_they_run() -> None:
    none = StepWork("bf16", NOTHING, NOTHING, NOTHING, NOTHING, 0.0, 0.0, 0.0)
    kernels = KernelSeconds(np.array([0.02]), np.array([0.001]), 1e-9, 1e-8, 1e-7)
    paused = step_energies(CHIP, none, accelerators=4, kernels=kernels)
    assert paused.tokens_j[0] == pytest.approx(4 * 100.0 * 0.02)
    assert paused.sampled_j[0] == pytest.approx(4 * 100.0 * 0.001)
    assert (paused.attention_j, paused.context_j, paused.window_j) == pytest.approx((4e-7, 4e-6, 4e-5))
    assert paused.base_w == 4 * 200.0
    busy = step_energies(CHIP, none, accelerators=4)
    assert (busy.base_w, busy.tdp_w, busy.tokens_j[0]) == (4 * 300.0, 4000.0, 0.0)


def test_experts_cost_multiples_and_types_their_own_energy() -> None:
    """In fp8: 1 TFLOP 0.5 J; an expert's 1.5 J; a gigabyte 0.1 J, an expert's 0.2 J. In a type without a factor, 0.1 J."""
    work = StepWork("fp8", np.array([1e12]), np.array([1e9]), NOTHING, NOTHING, 0.0, 0.0, 0.0)
    experts = replace(work, expert_flops=np.array([1e12]), expert_bytes=np.array([1e9]), weight_dtype="fp8")
    idle = KernelSeconds(NOTHING, NOTHING, 0.0, 0.0)
    dense, routed = (step_energies(CHIP, some, accelerators=1, kernels=idle) for some in (work, experts))
    assert (dense.tokens_j[0], routed.tokens_j[0]) == pytest.approx((0.6, 0.6 + 1.5 + 0.2))
    assert (dense.base_w, routed.base_w) == (200.0, 250.0)  # and a twentieth of the limit for the whole step
    other = step_energies(CHIP, replace(experts, weight_dtype="int4_wo"), accelerators=1, kernels=idle)
    assert other.tokens_j[0] == pytest.approx(0.6 + 1.5 + 0.1)


def test_power_of_uses_adds_up_and_stops_at_the_limit() -> None:
    """Half of 3,350 GB/s at 100 pJ is 167.5 W, a tenth of 989 TFLOP/s at 1 pJ 98.9 W, above 200 W idle and 100 W of kernels."""
    assert stepping_power_w(CHIP, 0.5, 0.1) == pytest.approx(200 + 100 + 167.5 + 98.9)
    assert stepping_power_w(CHIP, 0.5, 0.1, "fp8") == pytest.approx(200 + 100 + 167.5 + 0.5 * 197.9)
    assert stepping_power_w(CHIP, 1.0, 1.0) == 1000.0


@given(st.sampled_from(sorted(CATALOG.accelerators)), USES, USES, USES)
def test_power_lies_between_idle_and_limit_and_never_falls_with_use(name: str, memory: float, compute: float, more: float) -> None:
    chip = CATALOG.accelerators[name]
    before = stepping_power_w(chip, memory, compute)
    assert chip.idle_w <= before <= chip.tdp_w
    assert stepping_power_w(chip, min(1.0, memory + more), compute) >= before
    assert stepping_power_w(chip, memory, min(1.0, compute + more)) >= before


@given(
    st.sampled_from(["llama-3.1-8b", "llama-3.1-70b", "qwen3-8b"]),
    st.sampled_from(["a100-sxm-80", "h100-sxm", "h200-sxm", "b200-sxm"]),
    st.sampled_from([1, 2, 4, 8]),
    st.integers(1, 256),
    st.integers(0, 4096),
    st.integers(0, 4096),
)
def test_power_of_a_replica_lies_between_idle_and_limit(
    model: str, accelerator: str, degree: int, decodes: int, context: int, chunk: int
) -> None:
    step, chip = built(model, accelerator, tensor_parallel=degree), CATALOG.accelerators[accelerator]
    drawn = power_w(step, (decodes + chunk, decodes, chunk**2, decodes * context, decodes))
    assert degree * chip.idle_w < drawn <= degree * chip.tdp_w * (1 + 1e-12)


def test_a_long_prefill_is_at_the_limit() -> None:
    assert power_w(built("llama-3.1-8b", "h100-sxm"), (8192, 1, 8192**2, 0, 0)) == pytest.approx(700.0, rel=1e-12)


def test_a_slow_step_draws_little_more_than_idle_power() -> None:
    """One token of 8B in bf16 on an H100: reading 15 GB and its kernels take 2 to 3 J; over ten seconds that is below a watt."""
    step = built("llama-3.1-8b", "h100-sxm")
    load, idle_w = (1, 1, 0, 512, 1), CATALOG.accelerators["h100-sxm"].idle_w
    joules = step.step_j(10_000_000_000 * ONE_NS_FX, *load) - 10 * idle_w
    assert 1.5 < joules < 3.5


def test_idle_power_of_replicas_and_nodes() -> None:
    """Two H100 with a model loaded were measured at 123 and 133 W; the host of one in eight of a machine takes 50 W."""
    h100, node = CATALOG.accelerators["h100-sxm"], CATALOG.instances["p5.4xlarge"]
    assert (replica_idle_w(h100, 4), node_idle_w(node, h100)) == (4 * 128.0, 128.0 + 50.0)


def work_of(model: str, **changes: Any) -> StepWork:
    """Work of one token, bf16 on one accelerator unless it says otherwise."""
    one = np.ones(1)
    kinds = {
        "weight_bytes": 2.0,
        "arithmetic": "bf16",
        "kv_bytes": 2.0,
        "tensor_parallel": 1,
        "tokens": one,
        "sampled": one,
    } | changes
    return step_work(CATALOG.models[model], **kinds)


def test_work_of_a_dense_model_by_hand() -> None:
    """Llama-3.1-8B: 32 layers of 218,103,808 weights, head 128,256 x 4,096; 8 KV heads of 128; 32 heads of 128."""
    work = work_of("llama-3.1-8b")
    linear, head = 32 * 218_103_808, 128_256 * 4_096
    assert work.tokens_flops[0] == 2 * linear
    assert work.tokens_bytes[0] == 2 * linear + 2 * head + 40 * 32 * 4096
    assert work.sampled_flops[0] == 2 * head
    assert (work.attention_flops, work.context_flops) == (4 * 32 * 32 * 128, 4 * 32 * 32 * 128)
    assert work.context_bytes == 2 * 32 * 8 * 128 * 2
    split = work_of("llama-3.1-8b", tensor_parallel=16)  # half a KV head is a whole one
    assert split.context_bytes == 2 * 32 * 1 * 128 * 2
    assert split.tokens_flops[0] == work.tokens_flops[0] / 16


def test_work_of_experts_and_windows_by_hand() -> None:
    """gpt-oss-20b: 24 layers, 4 of 32 experts of 3 x 2,880 x 2,880 weights; half of the layers see 128 tokens."""
    work = work_of("gpt-oss-20b", weight_bytes=0.53125, plain_weight_bytes=2.0)
    expert = 3 * 2880 * 2880
    assert work.expert_flops[0] == 2 * 4 * 24 * expert
    assert work.expert_bytes[0] == pytest.approx(4 * 24 * expert * 0.53125)
    attention = 2880 * (64 + 2 * 8) * 64 + 64 * 64 * 2880
    plain = 24 * (attention + 2880 * 32)  # and the router
    assert work.tokens_flops[0] == 2 * plain
    assert work.context_bytes == work.window_bytes == 2 * 12 * 8 * 64 * 2


def test_experts_are_all_read_in_the_end() -> None:
    model = CATALOG.models["gpt-oss-20b"]
    touched = touched_experts(model, np.array([0.0, 1.0, 2.0, 1000.0]))
    assert touched == pytest.approx([0.0, 4.0, 8.0 - 0.5, 32.0])
