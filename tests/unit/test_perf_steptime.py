"""The step model from catalog rows: one case worked by hand, the formula as it is written, and laws of any step."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sim.catalog.loader import load_catalog
from sim.domain.hardware import Accelerator, Engine, Provenance, StepFit
from sim.domain.models import Model
from sim.errors import InputError, Problems
from sim.perf.kernel_times import matrices
from sim.perf.roofline import check_parallel, kernel_times, step_model
from sim.perf.steptime import ONE_NS_FX, StepModel

CATALOG = load_catalog()
# An engine with round numbers of its own, so that refits of the catalog's engines change nothing here.
ENGINE = Engine("tests", "vllm", 1.0, 1e-3, 40e-6, 0.0, 16, 0.9, Provenance("these tests", "2026-11-23", "assumed"))


def parts(model: str, accelerator: str, weight_dtype: str) -> tuple[Model, Accelerator, StepFit, Engine]:
    fit = CATALOG.fits[f"{accelerator}/{ENGINE.kernels}/{weight_dtype}"]
    return CATALOG.models[model], CATALOG.accelerators[accelerator], fit, ENGINE


def built(
    model: str,
    accelerator: str,
    weight_dtype: str = "bf16",
    tensor_parallel: int = 1,
    kv_dtype: str = "bf16",
) -> StepModel:
    settings = {"weight_dtype": weight_dtype, "kv_dtype": kv_dtype, "tensor_parallel": tensor_parallel}
    return step_model(*parts(model, accelerator, weight_dtype), **settings)  # type: ignore[arg-type]


def seconds(step: StepModel, n: int, n_out: int, s_twice: int, context: int) -> float:
    return step.step_fx(n, n_out, s_twice, context, n_out if context else 0) / ONE_NS_FX / 1e9


def product_s(
    tokens: int, rows: int, columns: float, *, eta_c: float, flops: float, eta_w: float, wave: float, size: float
) -> float:
    """One matrix product on an H100, written out: the longer of computing and reading, and 15 % of the shorter."""
    compute_s = 2 * rows * (tokens * columns + min(tokens, 128) * wave) / (eta_c * flops)
    read_s = rows * columns * size / (eta_w * 3.35e12)
    return max(compute_s, read_s) + 0.15 * min(compute_s, read_s)


# The four matrices of a layer of Llama-3.1-8B: rows and columns.
LLAMA_8B = ((4096, 6144), (4096, 4096), (4096, 28_672), (14_336, 4096))


def test_one_decoding_sequence_of_llama_8b_on_h100_worked_by_hand() -> None:
    # Weights of the layers: 2 B x 6,979,321,856 / (0.87 x 3.35e12 B/s = 2.9145e12) = 4.789379 ms
    # Compute, a token and a last wave of 1,990 columns: 2 x [4096 x (8,134 + 6,086 + 30,662) + 14,336 x 6,086]
    #   = 2 x 271,085,568 a layer, x 32 / (0.9197 x 989e12 FLOP/s = 9.095833e14) = 0.019074 ms, 15 % not hidden: 0.002861 ms
    # Head: 2 B x 525,336,576 / 2.9145e12 = 0.360499 ms, and 15 % of 1,050,673,152 / (0.75 x 989e12) = 0.001416 ms: 0.000212 ms
    # KV read: 131,072 B x 512 / (0.9273 x 3.35e12 = 3.106455e12) = 0.021603 ms
    # Between kernels: 32 x (32 B x 4096 + 5.079 B x (6144 + 4096 + 3 x 14,336)) / 3.35e12 B/s = 0.003835 ms
    # Layers: 32 x 37.66 us = 1.205120 ms; engine: 1 ms + 40 us
    by_hand_ms = 4.789379 + 0.002861 + 0.360499 + 0.000212 + 0.021603 + 0.003835 + 1.205120 + 1.04
    assert 1e3 * seconds(built("llama-3.1-8b", "h100-sxm"), 1, 1, 0, 512) == pytest.approx(by_hand_ms, rel=1e-6)


def test_a_long_prompt_of_llama_8b_in_fp8_worked_by_hand() -> None:
    # 8,192 tokens at once: S = 8192^2 / 2; the head and attention stay in bf16, the cache is written for nothing here.
    layer_s = sum(product_s(8192, *size, eta_c=0.8263, flops=1979e12, eta_w=0.8285, wave=7411, size=1.0) for size in LLAMA_8B)
    head_s = 525_336_576 * 2 / (0.8285 * 3.35e12) + 0.15 * 2 * 525_336_576 / (0.75 * 989e12)
    attention_s = 4 * 32 * 4096 * (8192**2 / 2) / (0.6904 * 989e12)
    between_s = 8192 * 32 * (32 * 4096 + 10.18 * (6144 + 4096 + 3 * 14_336)) / 3.35e12
    by_hand_s = 32 * layer_s + head_s + attention_s + between_s + 32 * (46.64e-6 + 7.406e-6) + 1e-3 + 40e-6
    step = built("llama-3.1-8b", "h100-sxm", "fp8", kv_dtype="fp8")
    assert seconds(step, 8192, 1, 8192**2, 0) == pytest.approx(by_hand_s, rel=1e-6)
    assert step.contexts[0][0].slope_fx / ONE_NS_FX * 1e-9 == pytest.approx(65_536 / (0.9273 * 3.35e12), rel=1e-5)
    assert step.validity == "fitted"


def test_tensor_parallel_adds_two_all_reduces_a_layer() -> None:
    # Llama-2-70B, whose layers halve: 2 x 80 all-reduces of 2 B x 8192 a token, half of them over 0.5216 x 300 GB/s, twice.
    step, fit = built("llama-2-70b", "a100-sxm-80", tensor_parallel=2), CATALOG.fits["a100-sxm-80/vllm/bf16"]
    alone = replace(fit, allreduce_s=0.0, eta_link=math.inf)
    settings = {"weight_dtype": "bf16", "kv_dtype": "bf16", "tensor_parallel": 2}
    silent = step_model(*parts("llama-2-70b", "a100-sxm-80", "bf16")[:2], alone, ENGINE, **settings)  # type: ignore[arg-type]
    for tokens in (1, 515):
        sent_s = 160 * (3.42e-6 + 2 * 2 * 8192 * tokens / 2 / (0.5216 * 300e9))
        assert seconds(step, tokens, 0, 0, 0) - seconds(silent, tokens, 0, 0, 0) == pytest.approx(sent_s, rel=1e-5)


def test_an_engine_scales_kernels_and_adds_its_own_time() -> None:
    late = replace(ENGINE, kernel_scale=1.5, step_s=3e-3, sequence_s=5e-6)
    bare = replace(late, kernel_scale=1.0, step_s=0.0, sequence_s=0.0)
    settings = {"weight_dtype": "bf16", "kv_dtype": "bf16", "tensor_parallel": 1}
    rows = parts("llama-3.1-8b", "h100-sxm", "bf16")[:3]
    slow, kernels = (seconds(step_model(*rows, engine, **settings), 515, 4, 10**4, 1200) for engine in (late, bare))  # type: ignore[arg-type]
    assert slow == pytest.approx(1.5 * kernels + 3e-3 + 4 * 5e-6, rel=1e-8)


@pytest.mark.parametrize("accelerator", ["a100-sxm-80", "h100-sxm", "b200-sxm"])
@pytest.mark.parametrize("engine", sorted(CATALOG.engines))
def test_no_engine_is_faster_than_the_datasheet(engine: str, accelerator: str) -> None:
    llama, chip, row = CATALOG.models["llama-3.1-8b"], CATALOG.accelerators[accelerator], CATALOG.engines[engine]
    fit = CATALOG.fits[f"{accelerator}/{row.kernels}/bf16"]
    step = step_model(llama, chip, fit, row, weight_dtype="bf16", kv_dtype="bf16", tensor_parallel=1)
    context = 128 * 32_768
    read_s = (2 * llama.active_linear_parameters + 2 * llama.head_parameters + 131_072 * context) / (chip.bandwidth_gb_per_s * 1e9)
    assert seconds(step, 128, 128, 0, context) >= read_s
    compute_s = 2 * llama.active_linear_parameters * 16_384 / (chip.dense_tflops["bf16"] * 1e12)
    assert seconds(step, 16_384, 1, 0, 0) >= compute_s


def test_pcie_gets_slower_from_two_cards_to_four() -> None:
    steps = {degree: built("llama-3.1-8b", "l40s", tensor_parallel=degree) for degree in (1, 2, 4)}
    kernels = {degree: kernel_times(*parts("llama-3.1-8b", "l40s", "bf16")[:3], weight_dtype="bf16", kv_dtype="bf16",
                                    tensor_parallel=degree) for degree in steps}  # fmt: skip
    sent_s = {degree: float(np.diff(kernels[degree].allreduce_s(np.array([0.0, 1.0])))[0]) for degree in steps}
    assert sent_s[1] == 0.0
    assert sent_s[2] == pytest.approx(2 * 32 * 2 * 2 * 4096 * (1 / 2) / (0.5555 * 32e9), rel=1e-6)
    assert sent_s[4] == pytest.approx(2 * 32 * 2 * 2 * 4096 * (3 / 4) / (0.5555 / 4.723 * 32e9), rel=1e-6)


def test_in_32_bits_everything_is_twice_as_large_and_computed_in_tf32() -> None:
    model, h100, fit, _ = parts("llama-3.1-8b", "h100-sxm", "fp32")
    plain = CATALOG.fits["h100-sxm/vllm/bf16"]
    assert (fit.eta_compute, fit.eta_kv, fit.layer_s) == (plain.eta_compute, plain.eta_kv, plain.layer_s)
    kinds = {"kv_dtype": "bf16", "tensor_parallel": 2}
    whole = kernel_times(model, h100, fit, weight_dtype="fp32", **kinds)  # type: ignore[arg-type]
    half = kernel_times(model, h100, plain, weight_dtype="bf16", **kinds)  # type: ignore[arg-type]
    one, many = np.array([1.0]), np.array([8192.0])
    assert whole.elementwise_s(many) == pytest.approx(2 * half.elementwise_s(many))
    assert np.diff(whole.allreduce_s(np.array([0.0, 1.0]))) == pytest.approx(2 * np.diff(half.allreduce_s(np.array([0.0, 1.0]))))
    assert whole.sampled_s(one) == pytest.approx(2 * half.sampled_s(one), rel=1e-3)
    assert whole.linear_s(many) == pytest.approx(half.linear_s(many) * 989 / 494.7, rel=1e-2)
    assert whole.attention_s == pytest.approx(half.attention_s * 989 / 494.7)


def test_experts_are_read_as_tokens_choose_them() -> None:
    # Mixtral: 8 experts of 3 x 4096 x 14,336 a layer. One token reads two of them, a thousand all eight; reading hides computing.
    model, h100, fit, _ = parts("mixtral-8x7b", "h100-sxm", "bf16")
    plain = replace(fit, overlap=0.0, expert_layer_s=0.0, routing_bytes=0.0, expert_rows=0.0, expert_spread=1.0)
    kernels = kernel_times(model, h100, plain, weight_dtype="bf16", kv_dtype="bf16", tensor_parallel=2)
    one, many = kernels.experts_s(np.array([1.0, 20.0]))
    read_s = 32 * 3 * 4096 * 14_336 * 2 / 2 / (fit.eta_expert_weights * 3.35e12)
    assert one == pytest.approx(2 * read_s, rel=1e-9)
    assert many == pytest.approx(8 * (1 - 0.75**20) * read_s, rel=1e-9)
    # At 8,192 tokens each passes two experts: 2 x 2 FLOPs a weight.
    (long,) = kernels.experts_s(np.array([8192.0]))
    flops_s = 32 * 2 * 2 * 8192 * 3 * 4096 * 14_336 / 2 / (fit.eta_expert_compute * 989e12)
    assert long == pytest.approx(flops_s, rel=1e-9)


def test_a_window_is_read_no_further() -> None:
    # gpt-oss: 18 of 36 layers see the last 128 tokens, with 8 KV heads of 64 in bf16.
    step = built("gpt-oss-120b", "h100-sxm", "mxfp4")
    token_s = 2 * 8 * 64 * 2 / (0.9273 * 3.35e12)
    at = {mean: seconds(step, 4, 4, 0, 4 * mean) for mean in (64, 128, 1000, 2000)}
    assert at[128] - at[64] == pytest.approx(4 * 64 * 36 * token_s, rel=1e-4)
    assert at[2000] - at[1000] == pytest.approx(4 * 1000 * 18 * token_s, rel=1e-4)
    assert at[1000] - at[128] == pytest.approx(4 * 872 * 18 * token_s, rel=1e-4)


@pytest.mark.parametrize("model", ["gpt-oss-120b", "gemma-3-27b", "qwen3-30b-a3b", "deepseek-v3"])
def test_tables_are_the_kernel_times(model: str) -> None:
    """What is simulated is what was fitted, for windows, experts and latent attention too."""
    model_row, h100, fit, engine = parts(model, "h100-sxm", "bf16")
    bare = replace(engine, step_s=0.0, sequence_s=0.0)
    kinds = {"weight_dtype": "bf16", "kv_dtype": "bf16", "tensor_parallel": 8}
    step = step_model(model_row, h100, fit, bare, **kinds)  # type: ignore[arg-type]
    kernels = kernel_times(model_row, h100, fit, **kinds)  # type: ignore[arg-type]
    for n, n_out, pairs, decoding, mean in (
        (1, 1, 0, 1, 100),
        (64, 64, 0, 64, 5000),
        (520, 9, 131_072, 8, 1100),
        (9000, 1, 4 * 10**7, 0, 0),
    ):
        fitted = kernels.step_s(*(np.array([float(value)]) for value in (n, n_out, pairs, decoding, mean)))
        simulated = step.step_fx(n, n_out, 2 * pairs, decoding * mean, decoding) / ONE_NS_FX / 1e9
        assert simulated == pytest.approx(float(fitted[0]), rel=1e-6)


def test_a_key_value_head_is_on_one_accelerator_at_least() -> None:
    # Qwen3-30B-A3B has four: eight accelerators hold, read and project each twice.
    model, h100, fit, _ = parts("qwen3-30b-a3b", "h100-sxm", "bf16")
    at = {
        degree: kernel_times(model, h100, fit, weight_dtype="bf16", kv_dtype="bf16", tensor_parallel=degree) for degree in (2, 4, 8)
    }
    assert at[4].cached_token_s == at[8].cached_token_s == pytest.approx(at[2].cached_token_s / 2)
    widths = {degree: matrices(model, degree)[0].columns for degree in at}
    assert widths == {2: (16 + 2 * 2) * 128, 4: (8 + 2) * 128, 8: (4 + 2) * 128}


def test_latent_attention_keeps_one_vector_for_all_heads() -> None:
    # DeepSeek-V3: 512 + 64 numbers a token and layer, whole on each accelerator; 128 heads work on them in 8 parts.
    model, h100, fit, _ = parts("deepseek-v3", "h100-sxm", "fp8")
    for degree in (1, 8):
        kernels = kernel_times(model, h100, fit, weight_dtype="fp8", kv_dtype="bf16", tensor_parallel=degree)
        read_s = 576 * 2 / (0.9273 * 3.35e12)
        work_s = 2 * 128 / degree * (2 * 512 + 64) / (0.6904 * 989e12)
        assert kernels.cached_token_s == pytest.approx(max(read_s, work_s), rel=1e-9)


def test_a_step_with_a_prompt_has_its_launches_once() -> None:
    kinds = {"weight_dtype": "bf16", "kv_dtype": "bf16", "tensor_parallel": 1}
    qwen = kernel_times(*parts("qwen3-8b", "h100-sxm", "bf16")[:3], **kinds)  # type: ignore[arg-type]
    one, some = np.array([64.0]), np.array([40.0])
    nothing = np.zeros(1)
    decode_s, mixed_s, prompt_s = (qwen.step_s(one, one, nothing, decoding, nothing) for decoding in (one, some, nothing))
    launches_s = 36 * (7.406e-6 + 22.65e-6)
    assert prompt_s - decode_s == pytest.approx(launches_s, rel=1e-6)
    assert mixed_s == pytest.approx(prompt_s, rel=1e-12)
    step = built("qwen3-8b", "h100-sxm")
    decoding_s = float(decode_s[0]) + 64 * qwen.cached_token_s * 36 + ENGINE.step_s + 64 * ENGINE.sequence_s
    assert seconds(step, 64, 64, 0, 64) == pytest.approx(decoding_s, rel=1e-5)
    assert step.prompt_fx / ONE_NS_FX / 1e9 == pytest.approx(launches_s, rel=1e-6)


@pytest.mark.parametrize("tensor_parallel", [1, 8])
@pytest.mark.parametrize("model", ["llama-3.1-8b", "qwen3-8b", "gpt-oss-120b"])
def test_sequences_that_decode_beside_a_prompt_do_not_make_its_step_shorter(model: str, tensor_parallel: int) -> None:
    step = built(model, "h100-sxm", tensor_parallel=tensor_parallel)
    alone = step.step_fx(512, 1, 512**2, 0, 0)
    beside = [step.step_fx(512 + decoding, 1 + decoding, 512**2, 100 * decoding, decoding) for decoding in (1, 8, 64, 256)]
    assert [alone, *beside] == sorted([alone, *beside])


KERNEL_NAMES = st.sampled_from(sorted(CATALOG.fits))
ALL_MODELS = st.sampled_from(
    ["llama-3.1-8b", "llama-3.1-405b", "qwen3-32b", "qwen3-30b-a3b", "gpt-oss-120b", "deepseek-v3", "gemma-3-27b"]
)


@given(KERNEL_NAMES, ALL_MODELS, st.floats(1, 20_000), st.floats(0, 512), st.floats(1, 30_000))
def test_faster_hardware_is_never_slower_and_helps_no_more_than_itself(
    name: str, model: str, tokens: float, decoding: float, context: float
) -> None:
    """Doubled peaks, bandwidth or link: no step takes longer, and all of them doubled together halve at most what is no latency."""
    assume(CATALOG.models[model].experts or not name.endswith("/mxfp4"))
    accelerator = CATALOG.accelerators[name.split("/")[0]]
    twice = {kind: 2 * peak for kind, peak in accelerator.dense_tflops.items()}
    faster = {
        "compute": replace(accelerator, dense_tflops=twice),
        "memory": replace(accelerator, bandwidth_gb_per_s=2 * accelerator.bandwidth_gb_per_s),
        "link": replace(accelerator, link_gb_per_s=2 * accelerator.link_gb_per_s),
    }
    decoding = min(decoding, tokens)
    step = [np.array([value]) for value in (tokens, max(decoding, 1.0), 1e6, decoding, context)]

    def time_s(card: Accelerator) -> float:
        kinds = {
            "weight_dtype": name.split("/")[2],
            "kv_dtype": "bf16",
            "tensor_parallel": accelerator.degrees[-1] if CATALOG.models[model].heads % accelerator.degrees[-1] == 0 else 1,
        }
        return float(kernel_times(CATALOG.models[model], card, CATALOG.fits[name], **kinds).step_s(*step)[0])  # type: ignore[arg-type]

    before = time_s(accelerator)
    after = {kind: time_s(card) for kind, card in faster.items()}
    assert all(0 < seconds <= before * (1 + 1e-12) for seconds in after.values())
    assert min(after.values()) >= before / 2 * (1 - 1e-12)
    if tokens > 4_000:
        assert after["compute"] < before
    assert after["memory"] < before


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
        ("llama-3.1-8b", "a100-sxm-80", {"weight_dtype": "mxfp4"}, "weight_dtype", "fp32, bf16, w8a8, int8_wo, int4_wo"),
        (
            "llama-3.1-8b",
            "h100-sxm",
            {"weight_dtype": "fp16"},
            "weight_dtype",
            "fp32, bf16, fp8, w8a8, int8_wo, int4_wo, nvfp4, mxfp4",
        ),
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
        step_model(CATALOG.models[model], CATALOG.accelerators[accelerator], fit, ENGINE, **settings)
