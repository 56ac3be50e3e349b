"""The step model from catalog rows: one case worked by hand, the formula as it is written, and laws of any step."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.catalog.loader import load_catalog
from sim.domain.hardware import Accelerator, Engine, StepFit
from sim.domain.models import Model
from sim.errors import InputError, Problems
from sim.perf.roofline import check_parallel, step_model
from sim.perf.steptime import ONE_NS_FX, StepModel

CATALOG = load_catalog()


def parts(model: str, accelerator: str, weight_dtype: str, engine: str = "vllm-2026") -> tuple[Model, Accelerator, StepFit, Engine]:
    rows = CATALOG.engines[engine]
    fit = CATALOG.fits[f"{accelerator}/{rows.kernels}/{weight_dtype}"]
    return CATALOG.models[model], CATALOG.accelerators[accelerator], fit, rows


def built(
    model: str,
    accelerator: str,
    weight_dtype: str = "bf16",
    tensor_parallel: int = 1,
    kv_dtype: str = "bf16",
    engine: str = "vllm-2026",
) -> StepModel:
    settings = {"weight_dtype": weight_dtype, "kv_dtype": kv_dtype, "tensor_parallel": tensor_parallel}
    return step_model(*parts(model, accelerator, weight_dtype, engine), **settings)  # type: ignore[arg-type]


def seconds(step: StepModel, n: int, n_out: int, s_twice: int, context: int) -> float:
    return step.step_fx(n, n_out, s_twice, context, n_out if context else 0) / ONE_NS_FX / 1e9


def test_one_decoding_sequence_of_llama_8b_on_h100_worked_by_hand() -> None:
    # weights: (2 x 6,979,321,856 + 2 x 525,336,576) B / (0.9143 x 3.35e12 B/s) = 15,009,316,864 / 3.062905e12 = 4.900353 ms
    # compute: 13,958,643,712 FLOPs / (0.8284 x 989e12 FLOP/s = 8.192876e14) = 0.017037 ms, half of it not hidden: 0.008519 ms
    # head: 1,050,673,152 FLOPs over that: 0.001282 ms
    # KV read: 131,072 B x 512 / (0.9239 x 3.35e12 = 3.095065e12) = 0.021683 ms; element-wise: 5,242,880 B over that: 0.001694 ms
    # layers: 32 x 45.46 us = 1.454720 ms; engine: 1 ms + 40 us
    by_hand_ms = 4.900353 + 0.008519 + 0.001282 + 0.021683 + 0.001694 + 1.454720 + 1.04
    assert 1e3 * seconds(built("llama-3.1-8b", "h100-sxm"), 1, 1, 0, 512) == pytest.approx(by_hand_ms, rel=1e-6)


def test_tensor_parallel_prefill_of_llama_70b_on_a100_worked_by_hand() -> None:
    # Llama-2-70B, TP 2, a chunk of 512 with 100 tokens cached and 3 decoding sequences of 400 tokens: n = 515, n_out = 4.
    # Linear parameters: 80 x (8192 x (64 + 16) x 128 + 64 x 128 x 8192 + 3 x 8192 x 28672) = 68,451,041,280.
    # Head: 32,000 x 8192 = 262,144,000.
    compute_s = (2 * 68_451_041_280 * 515 + 2 * 262_144_000 * 4) / (2 * 0.8668 * 312e12)
    read_s = (2 * 68_451_041_280 + 2 * 262_144_000) / (2 * 0.7798 * 2.039e12)
    assert compute_s > read_s
    chunk = 512 * (100 + 256)  # S
    attention_s = 4 * 80 * 64 * 128 * chunk / (2 * 0.5787 * 312e12)
    memory_s = (2 * 80 * 4 * 128 * 2 * 1200 + 40 * 80 * 8192 * 515) / (0.7786 * 2.039e12)
    allreduce_s = 2 * 80 * 2.908e-6 + 8 * 80 * 8192 * 515 * 1 / (2 * 0.596 * 300e9)
    kernels_s = compute_s + 0.5 * read_s + attention_s + memory_s + 80 * 63.1e-6 + allreduce_s
    step = built("llama-2-70b", "a100-sxm-80", tensor_parallel=2)
    assert seconds(step, 515, 4, 2 * chunk, 1200) == pytest.approx(kernels_s + 1e-3 + 4 * 40e-6, rel=1e-9)
    old = built("llama-2-70b", "a100-sxm-80", tensor_parallel=2, engine="eager-2023-a100")
    assert seconds(old, 515, 4, 2 * chunk, 1200) == pytest.approx(0.45 * kernels_s + 35e-3 + 4 * 340e-6, rel=1e-9)


def test_fp8_changes_weights_and_arithmetic_but_neither_the_head_nor_attention() -> None:
    model, h100, fit, _ = parts("llama-3.1-8b", "h100-sxm", "fp8")
    step = built("llama-3.1-8b", "h100-sxm", "fp8", kv_dtype="fp8")
    fixed_s = 32 * fit.layer_s + 1e-3 + 0.5 * (6_979_321_856 + 2 * 525_336_576) / (0.8996 * 3.35e12)
    token_s = 2 * 6_979_321_856 / (0.5334 * 1979e12) + 40 * 32 * 4096 / (0.917 * 3.35e12)
    assert seconds(step, 8_192, 0, 0, 0) == pytest.approx(fixed_s + 8_192 * token_s, rel=1e-9)
    assert step.attention_fx / ONE_NS_FX * 2e-9 == pytest.approx(4 * 32 * 4096 / (0.7303 * 989e12), rel=1e-6)
    assert step.contexts[0][0].slope_fx / ONE_NS_FX * 1e-9 == pytest.approx(65_536 / (0.917 * 3.35e12), rel=1e-6)
    assert (model.linear_parameters, h100.dense_tflops["fp8"], fit.validity) == (6_979_321_856, 1979.0, step.validity)


def test_pcie_shares_its_link_from_four_cards_on() -> None:
    steps = {degree: built("llama-3.1-8b", "l40s", tensor_parallel=degree) for degree in (1, 2, 4)}
    compute_s = {degree: 2 * 6_979_321_856 / (degree * 0.7709 * 362e12) for degree in steps}
    link_s = {degree: step.token_fx / ONE_NS_FX * 1e-9 - compute_s[degree] for degree, step in steps.items()}
    assert link_s[2] - link_s[1] == pytest.approx(8 * 32 * 4096 * (1 / 2) / (0.3831 * 32e9), rel=1e-6)
    assert link_s[4] - link_s[1] == pytest.approx(8 * 32 * 4096 * (3 / 4) / (0.3831 * 0.33 * 32e9), rel=1e-6)


LOADS = st.tuples(st.integers(1, 16_384), st.integers(0, 512), st.integers(0, 10**9), st.integers(0, 10**7))
NAMES = st.sampled_from(
    [("llama-3.1-8b", "h100-sxm", "fp8"), ("llama-2-70b", "a100-sxm-80", "bf16"), ("qwen3-8b", "b200-sxm", "nvfp4")]
)


@given(NAMES, st.sampled_from([1, 2, 4, 8]), LOADS, LOADS)
def test_more_work_is_never_faster_and_never_takes_less_energy(
    names: tuple[str, str, str], degree: int, load: tuple[int, int, int, int], more: tuple[int, int, int, int]
) -> None:
    step = built(*names, tensor_parallel=degree)
    bigger = tuple(a + b for a, b in zip(load, more, strict=True))
    before, after = step.step_fx(*load, load[0]), step.step_fx(*bigger, bigger[0])
    assert after >= before
    assert step.step_j(after, *bigger, bigger[0]) >= step.step_j(before, *load, load[0])


@pytest.mark.parametrize("name", ["llama-3.1-8b", "llama-3.1-70b", "qwen3-32b"])
@pytest.mark.parametrize("accelerator", ["a100-sxm-80", "h100-sxm"])
def test_more_accelerators_never_slow_pure_compute_and_always_cost_latency(name: str, accelerator: str) -> None:
    steps = [built(name, accelerator, tensor_parallel=degree) for degree in (1, 2, 4, 8)]
    for one, two in pairwise(steps):
        assert two.attention_fx == pytest.approx(one.attention_fx / 2, abs=1)
        assert two.contexts[0][0].slope_fx <= one.contexts[0][0].slope_fx
        assert two.tokens_fx[1] < one.tokens_fx[1]


@given(LOADS)
def test_time_is_affine_in_the_context(load: tuple[int, int, int, int]) -> None:
    step = built("llama-3.1-8b", "h100-sxm")
    n, n_out, s_twice, context = load
    constant, slope, _ = step.piece(n, n_out, s_twice, context, n)
    assert step.step_fx(n, n_out, s_twice, context, n) == constant + slope * context


@pytest.mark.parametrize(
    ("model", "accelerator", "change", "path", "allowed"),
    [
        ("llama-3.1-8b", "a100-sxm-80", {"weight_dtype": "fp8"}, "weight_dtype", "fp32, bf16, w8a8, int8_wo, int4_wo"),
        ("llama-3.1-8b", "h100-sxm", {"weight_dtype": "fp16"}, "weight_dtype", "fp32, bf16, fp8, w8a8, int8_wo, int4_wo, nvfp4"),
        ("llama-3.1-8b", "h100-sxm", {"kv_dtype": "int8"}, "kv_dtype", "bf16, fp8"),
        ("llama-3.1-8b", "h100-sxm", {"tensor_parallel": 3}, "tensor_parallel", "1, 2, 4, 8"),
        ("llama-2-13b", "h100-sxm", {"tensor_parallel": 16}, "tensor_parallel", "1, 2, 4, 8"),
        ("llama-3.1-8b", "l40s", {"tensor_parallel": 8}, "tensor_parallel", "1, 2, 4"),
    ],
)
def test_what_cannot_run_is_reported_with_what_can(
    model: str, accelerator: str, change: dict[str, object], path: str, allowed: str
) -> None:
    settings = {"weight_dtype": "bf16", "kv_dtype": "bf16", "tensor_parallel": 1} | change
    problems = Problems()
    check_parallel(CATALOG.models[model], CATALOG.accelerators[accelerator], **settings, path="deployments.chat", problems=problems)
    (problem,) = problems.found
    assert (problem.path, problem.allowed) == (f"deployments.chat.{path}", allowed)
    fit = CATALOG.fits["h100-sxm/vllm/bf16"]
    with pytest.raises(InputError):
        step_model(CATALOG.models[model], CATALOG.accelerators[accelerator], fit, CATALOG.engines["vllm-2026"], **settings)
