"""Optimizations as transforms: pure, named, and bound by laws that no hardware breaks."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.catalog.loader import load_catalog
from sim.errors import Problems
from sim.perf import evidence
from sim.perf.evidence import QUANTIZED
from sim.perf.optimize import OPTIMIZATIONS, Choices, optimization, together
from sim.perf.roofline import WEIGHT_TYPES
from sim.perf.serving import Host, Serving, serving_bytes, serving_memory, serving_step

CATALOG = load_catalog()
LLAMA_8B, LLAMA_70B = CATALOG.models["llama-3.1-8b"], CATALOG.models["llama-3.1-70b"]
H100 = CATALOG.accelerators["h100-sxm"]
SERVED = Serving(LLAMA_8B, "bf16", "bf16")
CHOICES = Choices(draft=CATALOG.models["llama-3.2-1b"], student=CATALOG.models["llama-3.2-3b"])
HOST = Host(H100, CATALOG.engines["vllm-2026"], lambda weight_dtype: CATALOG.fits[f"h100-sxm/vllm/{weight_dtype}"])
# What makes files larger, and says so: wider types, and a draft beside the model.
LARGER = {"fp32", "speculative"}


def test_every_weight_type_is_an_optimization_with_a_published_or_assumed_accuracy():
    assert set(WEIGHT_TYPES) == set(QUANTIZED)
    assert set(WEIGHT_TYPES) <= set(OPTIMIZATIONS)
    for name, make in OPTIMIZATIONS.items():
        made = make(CHOICES)
        assert made.name == name
        assert made.accuracy.low <= made.accuracy.high <= 0
        for provenance in (made.accuracy.provenance, made.one_off(SERVED).provenance):
            assert provenance.source
            assert provenance.date == "2026-11-23"
            assert provenance.confidence in ("published", "assumed")


@pytest.mark.parametrize("name", sorted(OPTIMIZATIONS))
def test_applying_one_changes_nothing_it_was_given_and_twice_is_once(name):
    made = OPTIMIZATIONS[name](CHOICES)
    before = replace(SERVED)
    after = made.apply(SERVED)
    assert before == SERVED
    assert made.apply(after) == after
    assert made.refused(after, H100) or name == "distillation"


@pytest.mark.parametrize("name", sorted(set(OPTIMIZATIONS) - LARGER))
def test_no_optimization_makes_files_or_memory_larger_unless_it_says_so(name):
    after = OPTIMIZATIONS[name](CHOICES).apply(SERVED)
    assert serving_bytes(after) <= serving_bytes(SERVED)
    if name not in ("mxfp4", "no_flash_attention"):  # experts, and attention scores
        assert serving_memory(after, HOST).tokens >= serving_memory(SERVED, HOST).tokens


@given(st.floats(0, 0.95), st.sampled_from(["bf16", "fp8"]))
def test_pruning_without_a_pattern_leaves_every_step_to_the_bit(sparsity, weight_dtype):
    before = replace(SERVED, weight_dtype=weight_dtype)
    after = OPTIMIZATIONS["pruning"](Choices(sparsity=sparsity)).apply(before)
    assert serving_step(after, HOST) == serving_step(before, HOST)
    assert serving_memory(after, HOST) == serving_memory(before, HOST)


def test_several_are_applied_one_after_the_other_and_their_costs_add():
    both = together(OPTIMIZATIONS["int4_wo"](CHOICES), OPTIMIZATIONS["pruning"](CHOICES))
    after = both.apply(SERVED)
    assert (after.weight_dtype, after.pruning is not None) == ("int4_wo", True)
    parts = [OPTIMIZATIONS[name](CHOICES).one_off(SERVED) for name in ("int4_wo", "pruning")]
    assert both.one_off(SERVED).gpu_hours == sum(part.gpu_hours for part in parts)
    assert both.one_off(SERVED).training_flops == parts[1].training_flops
    assert (both.accuracy.low, both.accuracy.high) == (-4.6, -1.0)


def test_what_excludes_what():
    def reason(name: str, served: Serving, accelerator: str = "h100-sxm") -> str:
        found = optimization(name, CHOICES, "try", Problems())
        assert found is not None
        return found.refused(served, CATALOG.accelerators[accelerator])

    assert reason("sparsity_2_4+pruning", SERVED) == "the weights have the 2:4 pattern"
    assert reason("pruning+sparsity_2_4", SERVED) == "the weights are pruned without a pattern"
    assert reason("sparsity_2_4+nvfp4", SERVED, "b200-sxm") == "no kernels for 2:4 sparse nvfp4 weights"
    assert reason("fp8", SERVED, "a100-sxm-80") == "a100-sxm-80 has no fp8 arithmetic"
    assert reason("kv_fp8", SERVED, "a100-sxm-80").startswith("a100-sxm-80 has no fp8")
    assert reason("sparsity_2_4", SERVED, "t4") == "t4 does not multiply 2:4 sparse weights"
    assert reason("mxfp4", SERVED) == "llama-3.1-8b has no experts"
    assert reason("flash_attention", SERVED) == "attention is fused"
    assert reason("fp32", SERVED, "t4") == "t4 has no tf32 arithmetic"
    assert reason("speculative", replace(SERVED, model=CATALOG.models["qwen3-8b"])).startswith(
        "llama-3.2-1b has another vocabulary"
    )
    assert reason("distillation", replace(SERVED, model=CATALOG.models["llama-3.2-1b"])).endswith(
        "is not smaller than llama-3.2-1b"
    )


def test_one_off_costs_by_hand():
    """GPTQ: 4 h x 70.55 / 175. Distillation of 3B by 8B: (6 x 3.213 + 2 x 8.030) x 1e9 x 94e9. Recovery: 8 x 8.03e9 x 13e9."""
    large = replace(SERVED, model=LLAMA_70B)
    assert OPTIMIZATIONS["int4_wo"](CHOICES).one_off(large).gpu_hours == pytest.approx(4 * 70.553706496 / 175)
    taught = OPTIMIZATIONS["distillation"](CHOICES).one_off(SERVED)
    assert taught.training_flops == pytest.approx((6 * 3.212749824e9 + 2 * 8.030261248e9) * 94e9)
    assert taught.trained is CHOICES.student
    recovered = OPTIMIZATIONS["sparsity_2_4"](CHOICES).one_off(SERVED)
    assert recovered.training_flops == pytest.approx(8 * 8.030261248e9 * evidence.RECOVERY_TOKENS)
    assert recovered.gpu_hours == pytest.approx(4.5 * 8.030261248 / 175)
    assert OPTIMIZATIONS["fp8"](CHOICES).one_off(SERVED).gpu_hours == 0


def test_unknown_names_are_problems_with_the_nearest_one():
    problems = Problems()
    assert optimization("fp8+kv_fp", CHOICES, "try", problems) is None
    assert [(problem.value, problem.nearest) for problem in problems.found] == [("kv_fp", "kv_fp8")]


def test_what_is_assumed_at_its_worst_and_best_lies_around_the_usual():
    for name in ("sparsity_2_4", "no_flash_attention", "speculative"):
        made = OPTIMIZATIONS[name](CHOICES)
        host = replace(HOST, max_model_len=8_192)
        times = [
            serving_step(change(made.apply(SERVED)), host).step_fx(2_056, 8, 2_048**2, 8_000, 8)
            for change in (made.best, lambda served: served, made.worst)
        ]
        assert times == sorted(times), name
        assert times[0] < times[-1], name
