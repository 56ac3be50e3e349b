"""Memory of a training job: examples of the papers worked by hand, laws, and remedies that do what they promise."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.catalog.loader import load_catalog
from sim.domain.models import Model
from sim.errors import Problems
from sim.perf.training_memory import (
    RECIPES,
    TrainingSetup,
    activation_bytes,
    adapter_parameters,
    check_setup,
    layer_activation_bytes,
    state_bytes,
    training_memory,
)
from sim.perf.training_remedies import training_remedies

CATALOG = load_catalog()
LLAMA = CATALOG.models["llama-3.1-8b"]
H100 = CATALOG.accelerators["h100-sxm"]
# GPT-3 175B: 96 layers of 12,288 with 96 heads and a network of 4 h, ungated.
GPT_3 = replace(
    LLAMA,
    name="gpt-3",
    layers=96,
    hidden=12_288,
    heads=96,
    kv_heads=96,
    head_dim=128,
    ffn=4 * 12_288,
    gated=False,
    vocabulary=51_200,
    tied_embeddings=True,
)


@pytest.mark.parametrize(
    ("parameters", "ranks", "gigabytes"),
    [
        (7.5e9, 64, (120.0, 31.4, 16.6, 1.88)),  # figure 1 of the ZeRO paper
        (7.5e9, 1024, (120.0, 30.1, 15.1, 0.12)),  # table 1 of the same
        (128e9, 64, (2048.0, 536.0, 284.0, 32.0)),
        (1e12, 1024, (16_000.0, 4011.0, 2013.0, 15.6)),
    ],
)
def test_states_of_the_zero_paper(parameters: float, ranks: int, gigabytes: tuple[float, ...]) -> None:
    for zero, expected in enumerate(gigabytes):
        found = sum(state_bytes(parameters, recipe="bf16", zero=zero, data_parallel=ranks)) / 1e9
        assert found == pytest.approx(expected, rel=4e-3, abs=0.05)


@pytest.mark.parametrize(("recipe", "each"), [("bf16", 16), ("bf16_fp32_gradients", 18), ("fp32", 16), ("fp8", 18)])
def test_bytes_of_a_parameter(recipe: str, each: int) -> None:
    assert sum(state_bytes(1.0, recipe=recipe, zero=0, data_parallel=8)) == each


@pytest.mark.parametrize(
    ("recompute", "degree", "sequence_parallel", "each"),
    [
        # sbh (34 + 5 a s / h): 5 x 96 x 2,048 / 12,288 = 80
        ("none", 1, False, 34 + 80),
        ("none", 8, False, 10 + (24 + 80) / 8),
        ("none", 8, True, (34 + 80) / 8),
        ("selective", 1, False, 34),
        ("selective", 8, False, 10 + 24 / 8),
        ("selective", 8, True, 34 / 8),
        ("full", 1, False, 2),
        ("full", 8, True, 2 / 8),
    ],
)
def test_activations_of_a_layer_are_those_of_table_2(recompute: str, degree: int, sequence_parallel: bool, each: float) -> None:
    """Korthikanti et al. 2022, table 2, for GPT-3 at 2,048 tokens."""
    setup = TrainingSetup(
        accelerators=8, tensor_parallel=degree, sequence_parallel=sequence_parallel, recompute=recompute, sequence_tokens=2048
    )
    assert layer_activation_bytes(GPT_3, setup) / (2048 * 12_288) == pytest.approx(each)


def test_gpt_3_keeps_as_much_as_its_paper_says_scores_take() -> None:
    """The same paper, section 4.1: attention scores of GPT-3 are 80 against 34 for all else, so 70 % of what is kept."""
    none, selective = (
        layer_activation_bytes(GPT_3, TrainingSetup(recompute=kind, sequence_tokens=2048)) for kind in ("none", "selective")
    )
    assert (none - selective) / none == pytest.approx(80 / 114)


@pytest.mark.parametrize(("model", "each"), [("llama-3.1-8b", 34.0), ("llama-2-7b", 8 + 8 + 6 * 11_008 / 4096)])
def test_newer_layers_are_counted_in_the_same_way(model: str, each: float) -> None:
    """4 + 4 h of inputs, 4 h of queries and output, 4 h n_kv / n_h of keys and values, 6 f, all for 2 bytes an element."""
    named = CATALOG.models[model]
    assert layer_activation_bytes(named, TrainingSetup(sequence_tokens=4096)) / (4096 * named.hidden) == pytest.approx(each)


def test_a_mixture_keeps_what_its_active_experts_make() -> None:
    mixtral = CATALOG.models["mixtral-8x7b"]
    # 4 h + q and output 2 h + k and v h / 2 + 2 experts x (3 f + h), 2 bytes each
    elements = 4 * 4096 + 2 * 4096 + 2 * 1024 + 2 * (3 * 14_336 + 4096)
    assert layer_activation_bytes(mixtral, TrainingSetup(sequence_tokens=1)) == 2 * elements


def test_activations_of_the_fullest_stage() -> None:
    one, four = (TrainingSetup(accelerators=4, pipeline_parallel=stages, sequence_tokens=4096) for stages in (1, 4))
    layer = 34 * 4096 * 4096
    logits = 4 * 4096 * 128_256
    assert activation_bytes(LLAMA, one) == 32 * layer + logits
    assert (
        activation_bytes(LLAMA, four) == 32 * layer
    )  # four micro-batches of eight layers on the first; 8 layers + logits on the last
    full = replace(one, recompute="full")
    assert activation_bytes(LLAMA, full) == layer + 32 * 2 * 4096 * 4096 + logits  # one layer is computed again at a time


def test_memory_of_llama_8b_on_eight_h100_by_hand() -> None:
    setup = TrainingSetup(accelerators=8, zero=1, sequence_tokens=4096)
    found = training_memory(LLAMA, H100, setup)
    parameters = 8_030_261_248
    assert found.weight_bytes == found.gradient_bytes == 2 * parameters
    assert found.optimizer_bytes == 12 * parameters / 8
    assert found.activation_bytes == 32 * 34 * 4096 * 4096 + 4 * 4096 * 128_256
    assert found.total_bytes == pytest.approx(16.06e9 * 2 + 12.05e9 + 20.35e9 + 0.741e9, rel=1e-3)
    assert found.fits
    sharded = training_memory(LLAMA, H100, replace(setup, zero=3))
    assert sharded.gathered_bytes == pytest.approx(2 * 2 * parameters / 32)  # two layers, whole, of 32
    assert sharded.weight_bytes == 2 * parameters / 8


def test_experts_are_split_over_data_parallel_ranks() -> None:
    mixtral = CATALOG.models["mixtral-8x7b"]
    experts = 32 * 8 * mixtral.expert_parameters
    others = mixtral.counted_parameters - experts
    found = training_memory(mixtral, H100, TrainingSetup(accelerators=64, zero=1, expert_parallel=8))
    assert found.weight_bytes == pytest.approx(2 * (others + experts / 8))
    assert found.optimizer_bytes == pytest.approx(
        12 * (others / 64 + experts / 8 / 8)
    )  # the other 8 ranks share an expert's optimizer


def test_adapters_are_small_and_leave_the_weights_alone() -> None:
    """Rank 16 on all linear layers of Llama-3.1-8B: 41,943,040 parameters, as PEFT prints (from memory)."""
    assert adapter_parameters(LLAMA, 16) == 41_943_040
    found = training_memory(LLAMA, H100, TrainingSetup(accelerators=1, zero=0, lora_rank=16))
    assert found.weight_bytes == 2 * (8_030_261_248 + 41_943_040)
    assert found.optimizer_bytes == 12 * 41_943_040
    assert found.fits
    frozen, split = (training_memory(LLAMA, H100, TrainingSetup(accelerators=8, zero=zero, lora_rank=16)) for zero in (2, 3))
    assert frozen.weight_bytes == found.weight_bytes  # ZeRO splits what is trained, and only its third stage the frozen weights
    assert split.weight_bytes == found.weight_bytes / 8


def test_adapters_of_latent_attention_follow_its_projections() -> None:
    deepseek = CATALOG.models["deepseek-v3"]
    hidden, heads = 7168, 128
    attention = (hidden + 1536) + (1536 + heads * 192) + (hidden + 576) + (512 + heads * 256) + (heads * 128 + hidden)
    plain, mixture = 3 * 3 * (hidden + 18_432), 58 * 257 * 3 * (hidden + 2048)
    assert adapter_parameters(deepseek, 1) == 61 * attention + plain + mixture


def test_every_problem_of_a_setup_is_found_at_once() -> None:
    problems = Problems()
    setup = TrainingSetup(accelerators=0, zero=5, recipe="bf61", recompute="ful", lora_rank=-1)
    check_setup(LLAMA, setup, problems)
    assert {problem.path for problem in problems.found} == {"accelerators", "zero", "recipe", "recompute", "lora_rank"}
    assert {problem.nearest for problem in problems.found} >= {"bf16", "full"}
    problems = Problems()
    check_setup(LLAMA, TrainingSetup(accelerators=9, tensor_parallel=3, expert_parallel=2), problems)
    assert {problem.path for problem in problems.found} == {"tensor_parallel", "expert_parallel"}


MODELS = st.sampled_from(["llama-3.1-8b", "llama-3.1-70b", "mixtral-8x7b", "deepseek-v3", "gpt-oss-20b"])
SETUPS = st.builds(
    TrainingSetup,
    accelerators=st.sampled_from([8, 64, 512]),
    tensor_parallel=st.sampled_from([1, 2, 4, 8]),
    zero=st.integers(0, 3),
    recipe=st.sampled_from(sorted(RECIPES)),
    recompute=st.sampled_from(["none", "selective", "full"]),
    sequence_parallel=st.booleans(),
    micro_batch=st.integers(1, 4),
    sequence_tokens=st.sampled_from([1024, 4096]),
)


def total(model: Model, setup: TrainingSetup) -> float:
    return training_memory(model, H100, setup).total_bytes


@given(MODELS, SETUPS)
def test_laws(name: str, setup: TrainingSetup) -> None:
    model = CATALOG.models[name]
    here = training_memory(model, H100, setup)
    assert total(model, replace(setup, micro_batch=2 * setup.micro_batch)) > here.total_bytes
    assert activation_bytes(model, replace(setup, micro_batch=2 * setup.micro_batch)) == pytest.approx(2 * here.activation_bytes)
    assert total(model, replace(setup, sequence_parallel=True)) <= here.total_bytes
    if setup.recompute == "none":
        assert total(model, replace(setup, recompute="selective")) < here.total_bytes
    states = here.weight_bytes + here.gradient_bytes + here.optimizer_bytes
    if setup.zero > 0 and setup.data_parallel > 1:
        more = training_memory(model, H100, replace(setup, accelerators=2 * setup.accelerators))
        assert more.optimizer_bytes == pytest.approx(here.optimizer_bytes / 2)
    if setup.zero < 3:
        next_stage = training_memory(model, H100, replace(setup, zero=setup.zero + 1))
        assert next_stage.weight_bytes + next_stage.gradient_bytes + next_stage.optimizer_bytes <= states
    if setup.tensor_parallel < 8:
        split = training_memory(model, H100, replace(setup, tensor_parallel=2 * setup.tensor_parallel, zero=0))
        whole = training_memory(model, H100, replace(setup, zero=0))
        assert split.optimizer_bytes == pytest.approx(whole.optimizer_bytes / 2)


@given(MODELS, st.sampled_from(["h100-sxm", "a100-sxm-40", "l4", "tpu-v5e"]), SETUPS)
def test_remedies_of_a_job_work(name: str, accelerator: str, setup: TrainingSetup) -> None:
    model, card = CATALOG.models[name], CATALOG.accelerators[accelerator]
    if training_memory(model, card, setup).fits:
        return
    for text in training_remedies(model, card, setup, CATALOG):
        larger = re.match(r"a larger accelerator: ([a-z0-9-]+) ", text)
        if larger:
            assert training_memory(model, CATALOG.accelerators[larger.group(1)], setup).fits
            continue
        changes: dict[str, object] = {}
        for change in text.split(" "):
            key, value = change.split("=")
            changes[key] = value if key == "recompute" else value == "true" if key == "sequence_parallel" else int(value)
        changed = replace(setup, **changes)  # type: ignore[arg-type]
        problems = Problems()
        check_setup(model, changed, problems)
        assert not problems.found, text
        assert training_memory(model, card, changed).fits, text
        for key in changes if len(changes) > 1 else ():  # nothing in it is needless
            fewer = replace(setup, **{other: value for other, value in changes.items() if other != key})  # type: ignore[arg-type]
            check_setup(model, fewer, Problems())
            possible = fewer.accelerators % (fewer.tensor_parallel * fewer.pipeline_parallel) == 0
            assert not (possible and fewer.data_parallel and training_memory(model, card, fewer).fits), (text, key)
