"""Speed-ups that were measured, within a stated band: optimizations have no speed-up of their own, it follows from the step model.

Kernel speed-ups are those of kernel-composed step times at a context of 1,024 tokens (research note on hardware, section 7,
2026-11-23), without an engine's constant. What was measured on whole servers is compared with the capacity sheet.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from sim.catalog.loader import load_catalog
from sim.errors import Problems
from sim.perf.capacity import CapacitySheet, capacity_sheet, decode_step_s, prefill_s
from sim.perf.optimize import OPTIMIZATIONS, Choices, optimization
from sim.perf.serving import SPARSE_SPEED, Host, Serving, serving_memory, serving_step
from sim.perf.speculation import Speculation

CATALOG = load_catalog()
DECODE_BAND, PREFILL_BAND = 0.10, 0.15


def _host(accelerator: str, engine_name: str, tensor_parallel: int = 1, *, bare: bool = True) -> Host:
    engine = CATALOG.engines[engine_name]
    if bare:
        engine = replace(engine, kernel_scale=1.0, step_s=0.0, sequence_s=0.0)
    return Host(
        CATALOG.accelerators[accelerator],
        engine,
        lambda weight_dtype: CATALOG.fits[f"{accelerator}/{engine.kernels}/{weight_dtype}"],
        tensor_parallel=tensor_parallel,
        max_num_seqs=512,
    )


def _served(model: str, weight_dtype: str = "bf16", kv_dtype: str = "bf16") -> Serving:
    return Serving(CATALOG.models[model], weight_dtype, kv_dtype)


def _applied(name: str, served: Serving, host: Host, choices: Choices | None = None) -> Serving:
    found = optimization(name, choices or Choices(), "try", Problems())
    assert found is not None
    assert found.refused(served, host.accelerator) == ""
    return found.apply(served)


def _decode_gain(before: Serving, after: Serving, host: Host, batch: int, context: int = 1_024) -> float:
    slow, fast = (decode_step_s(serving_step(each, host), batch, context) for each in (before, after))
    return slow / fast


def _prefill_gain(before: Serving, after: Serving, host: Host, tokens: int) -> float:
    slow, fast = (prefill_s(serving_step(each, host), tokens, 1 << 20) for each in (before, after))
    return slow / fast


@pytest.mark.parametrize(
    ("accelerator", "engine", "model", "degree", "name", "batch", "measured"),
    [
        ("h100-sxm", "vllm-2026", "llama-3.1-8b", 1, "fp8", 1, 1.41),
        ("h100-sxm", "vllm-2026", "llama-3.1-8b", 1, "fp8", 64, 1.28),
        ("h100-sxm", "vllm-2026", "llama-3.1-8b", 1, "fp8", 256, 1.10),
        ("h100-sxm", "trtllm-1", "llama-3.1-70b", 4, "fp8", 1, 1.23),
        ("h100-sxm", "trtllm-1", "llama-3.1-70b", 4, "fp8", 256, 1.07),
        ("a100-sxm-80", "trtllm-1", "llama-3.1-8b", 1, "int8_wo", 1, 1.45),
        ("a100-sxm-80", "trtllm-1", "llama-3.1-8b", 1, "int8_wo", 64, 1.19),
        ("a100-sxm-80", "trtllm-1", "llama-3.1-8b", 1, "int8_wo", 256, 1.04),
        ("a100-sxm-80", "trtllm-1", "llama-3.1-8b", 1, "int4_wo", 1, 1.86),
        ("a100-sxm-80", "trtllm-1", "llama-3.1-8b", 1, "int4_wo", 8, 1.63),
        ("a100-sxm-80", "trtllm-1", "llama-3.1-70b", 4, "int4_wo", 8, 1.75),
        ("a100-sxm-80", "trtllm-1", "llama-3.1-8b", 1, "int4_wo", 64, 1.10),
        ("a100-sxm-80", "trtllm-1", "llama-3.1-70b", 4, "int4_wo", 64, 1.16),
        ("a100-sxm-80", "trtllm-1", "llama-3.1-8b", 1, "int4_wo", 256, 1.00),
        ("a100-sxm-80", "trtllm-1", "llama-3.1-8b", 1, "w8a8", 1, 1.61),
        ("a100-sxm-80", "trtllm-1", "llama-3.1-8b", 1, "w8a8", 256, 1.21),
        ("b200-sxm", "vllm-2026-b200", "llama-3.1-70b", 2, "nvfp4", 1, 1.64),
        ("b200-sxm", "vllm-2026-b200", "llama-3.1-70b", 2, "nvfp4", 256, 1.32),
    ],
)
def test_decode_of_quantized_weights(accelerator, engine, model, degree, name, batch, measured):
    host, before = _host(accelerator, engine, degree), _served(model)
    gain = _decode_gain(before, _applied(name, before, host), host, batch)
    assert gain == pytest.approx(measured, rel=DECODE_BAND)


@pytest.mark.parametrize(
    ("accelerator", "engine", "model", "degree", "name", "tokens", "measured"),
    [
        ("h100-sxm", "vllm-2026", "llama-3.1-8b", 1, "fp8", 512, 1.27),
        ("h100-sxm", "vllm-2026", "llama-3.1-8b", 1, "fp8", 8_192, 1.38),
        ("a100-sxm-80", "trtllm-1", "llama-3.1-8b", 1, "int8_wo", 2_048, 1.00),
        ("a100-sxm-80", "trtllm-1", "llama-3.1-8b", 1, "int4_wo", 2_048, 0.95),
        ("a100-sxm-80", "trtllm-1", "llama-3.1-8b", 1, "int4_wo", 8_192, 0.98),
        ("a100-sxm-80", "trtllm-1", "llama-3.1-8b", 1, "w8a8", 2_048, 1.61),
        ("a100-sxm-80", "trtllm-1", "llama-3.1-8b", 1, "w8a8", 16_384, 1.44),
        ("b200-sxm", "vllm-2026-b200", "llama-3.1-70b", 2, "nvfp4", 512, 1.44),
        ("b200-sxm", "vllm-2026-b200", "llama-3.1-70b", 2, "nvfp4", 8_192, 2.00),
    ],
)
def test_prefill_of_quantized_weights(accelerator, engine, model, degree, name, tokens, measured):
    """Half the bits are never twice the speed, and weights alone in fewer bits are no faster at all."""
    host, before = _host(accelerator, engine, degree), _served(model)
    gain = _prefill_gain(before, _applied(name, before, host), host, tokens)
    assert gain == pytest.approx(measured, rel=PREFILL_BAND)
    assert gain < (1.03 if name.endswith("_wo") else 2.0 if name != "nvfp4" else 4.0)


def _sheet(served: Serving, host: Host, prompt: int, output: int, tpot_s: float | None) -> CapacitySheet:
    return capacity_sheet(
        serving_step(served, host),
        serving_memory(served, host),
        prompt_tokens=prompt,
        output_tokens=output,
        max_num_seqs=host.max_num_seqs,
        max_num_batched_tokens=host.max_num_batched_tokens,
        tpot_target_s=tpot_s,
    )


def test_an_fp8_cache_where_the_cache_is_what_limits():
    """TensorRT-LLM, Llama 70B: throughput x 1.56 at equal time between tokens. Two H100, fp8 weights, 2,048 tokens in and out."""
    host, before = _host("h100-sxm", "trtllm-1", 2, bare=False), _served("llama-3.1-70b", "fp8")
    after = _applied("kv_fp8", before, host)
    slow, fast = (_sheet(each, host, 2_048, 2_048, 0.05) for each in (before, after))
    assert slow.bound == "kv"
    assert fast.output_tokens_per_s / slow.output_tokens_per_s == pytest.approx(1.56, rel=0.15)


def test_two_of_four_weights():
    """1.27 end to end, 1.22 of fp8 products (HPC-AI); latency 1.25 or 1.8, two versions of a page (Neural Magic); 8B models."""
    host, before = _host("h100-sxm", "vllm-2026"), _served("llama-3.1-8b")
    found = OPTIMIZATIONS["sparsity_2_4"](Choices())
    after = found.apply(before)
    assert 1.25 <= _decode_gain(before, after, host, 1) <= 1.8
    assert _decode_gain(before, after, host, 64) == pytest.approx(1.27, rel=0.10)
    # A prompt is compute: between the products' 1.2 and 1.6, less what is no product.
    worst, best = (_prefill_gain(before, extreme(after), host, 4_096) for extreme in (found.worst, found.best))
    assert SPARSE_SPEED[0] * 0.9 < worst < 1.27 < best < SPARSE_SPEED[2]


def test_speculation_is_best_alone_and_a_loss_in_large_batches():
    """Case notes: 4.1 at one sequence, 0.94 to 1.2 at large batches. 70B over four H100, eight n-gram proposals, 0.8 kept."""
    host, before = _host("h100-sxm", "vllm-2026", 4, bare=False), _served("llama-3.1-70b")
    best = replace(before, speculation=Speculation(None, 8, 0.8))
    assert _decode_gain(before, best, host, 1, 500) == pytest.approx(4.1, rel=0.10)
    usual = replace(before, speculation=Speculation(CATALOG.models["llama-3.2-1b"], 4, 0.8))
    gains = [_decode_gain(before, usual, host, batch, 500) for batch in (1, 4, 16, 64, 128, 256)]
    assert gains == sorted(gains, reverse=True)
    assert 2.0 < gains[0] < 4.1
    assert 0.8 <= gains[-1] <= 1.25


def test_attention_that_is_not_fused():
    """The paper's 2 to 4 times of attention alone: long prompts suffer, short ones hardly, decoding not at all."""
    host, before = replace(_host("h100-sxm", "vllm-2026"), max_model_len=8_192), _served("llama-3.1-8b")
    after = _applied("no_flash_attention", before, host)
    assert _decode_gain(before, after, host, 64) == 1.0
    losses = [1 / _prefill_gain(before, after, host, tokens) for tokens in (512, 4_096, 32_768)]
    assert losses == sorted(losses)
    assert losses[0] < 1.1
    assert 1.3 < losses[-1] < 4.0
