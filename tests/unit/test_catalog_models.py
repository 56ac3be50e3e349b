"""Models of the catalog: their architectures make what was published of them, and the counts are worked by hand once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sim.catalog.loader import load_catalog
from sim.domain.hardware import Provenance
from sim.domain.models import Model
from sim.errors import InputError

MODELS = load_catalog().models
ANY = Provenance("an example", "2026-01-01", "assumed")


@pytest.mark.parametrize("name", MODELS)
def test_published_parameter_totals_follow_from_the_architectures(name: str) -> None:
    # 0.5 % leaves room for biases, sinks and rounded totals; one layer more or less is at least 0.7 % of every model.
    model = MODELS[name]
    assert model.counted_parameters == pytest.approx(model.parameters, rel=5e-3)


@pytest.mark.parametrize("name", ["llama-2-70b", "llama-3.1-8b", "llama-3.1-405b", "mixtral-8x7b"])
def test_totals_of_models_without_biases_are_exact(name: str) -> None:
    assert MODELS[name].counted_parameters == MODELS[name].parameters


def test_a_mixture_of_experts_by_hand() -> None:
    tiny = Model(
        "tiny",
        3,
        8,
        2,
        1,
        4,
        16,
        True,
        10,
        False,
        64,
        0,
        ANY,
        experts=4,
        active_experts=2,
        shared_experts=1,
        expert_ffn=5,
        dense_layers=1,
    )
    attention = 8 * 2 * 4 + 2 * (8 * 1 * 4) + 2 * 4 * 8
    expert, plain, router = 3 * 8 * 5, 3 * 8 * 16, 8 * 4
    assert (tiny.moe_layers, tiny.attention_parameters, tiny.expert_parameters) == (2, attention, expert)
    assert tiny.linear_parameters == 3 * attention + plain + 2 * (router + 5 * expert)
    assert tiny.active_linear_parameters == 3 * attention + plain + 2 * (router + 3 * expert)
    assert tiny.counted_parameters == tiny.linear_parameters + 2 * 10 * 8 + 7 * 8
    assert tiny.kv_elements_per_token == 2 * 3 * 1 * 4


def test_latent_attention_by_hand() -> None:
    dense = Model("tiny", 5, 8, 2, 1, 4, 16, True, 10, False, 64, 0, ANY)
    tiny = replace(dense, query_latent=6, kv_latent=7, rope_head_dim=2, value_head_dim=3)
    assert tiny.attention_parameters == 8 * 6 + 6 * 2 * (4 + 2) + 8 * (7 + 2) + 7 * 2 * (4 + 3) + 2 * 3 * 8
    assert tiny.kv_elements_per_token == 5 * (7 + 2)
    plain_queries = replace(tiny, query_latent=0)
    assert plain_queries.attention_parameters - tiny.attention_parameters == 8 * 2 * (4 + 2) - (8 * 6 + 6 * 2 * (4 + 2))


def test_linear_attention_is_a_window_of_as_many_bytes() -> None:
    # config.json: 16 key and 64 value heads of 128; every fourth layer has full attention, 32 gated heads and 2 x 2 of 256.
    model = MODELS["qwen3.5-397b-a17b"]
    hidden, full_layers, linear_layers = 4096, 15, 45
    assert model.window_layers == linear_layers == model.layers - full_layers
    assert model.window_tokens * 2 * model.kv_heads * model.head_dim == 64 * 128 * 128
    keys, values = 16 * 128, 64 * 128
    linear = hidden * (2 * keys + values) + hidden * values + 2 * hidden * 64 + values * hidden
    full = hidden * (2 * 32 + 2 * 2) * 256 + 32 * 256 * hidden
    assert model.layers * model.attention_parameters == linear_layers * linear + full_layers * full


def test_a_dense_model_is_the_case_of_one_active_set() -> None:
    for name in ("llama-3.1-8b", "gpt-j-6b", "qwen3-0.6b"):
        model = MODELS[name]
        assert model.active_linear_parameters == model.linear_parameters
        assert (model.moe_layers, model.expert_parameters) == (0, 0)


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        # Published parameters a token passes, rounded; some publishers count the embedding beside the output head.
        ("mixtral-8x7b", 12.9),
        ("mixtral-8x22b", 39.0),
        ("deepseek-v3", 37.0),
        ("qwen3-235b-a22b", 22.0),
        ("qwen3-30b-a3b", 3.3),
        ("gpt-oss-120b", 5.1),
        ("gpt-oss-20b", 3.6),
        ("llama-4-scout", 17.0),
        ("llama-4-maverick", 17.0),
        ("glm-5", 40.0),
        ("minimax-m2.5", 10.0),
        ("qwen3.5-397b-a17b", 17.0),
    ],
)
def test_active_parameters_are_the_published_ones(name: str, billions: float) -> None:
    model = MODELS[name]
    low = (model.active_linear_parameters + model.head_parameters) / 1e9
    high = low + model.head_parameters / 1e9
    assert 0.95 * low <= billions <= 1.03 * high


@pytest.mark.parametrize(
    ("name", "kilobytes"),
    [
        ("llama-3.1-8b", 131.072),
        ("llama-2-70b", 327.68),
        ("bloom-176b", 4014.08),
        ("qwen3-32b", 262.144),
        ("deepseek-v3", 70.272),
        ("glm-5", 89.856),
    ],
)
def test_bytes_of_cache_per_token_are_the_published_ones(name: str, kilobytes: float) -> None:
    assert 2 * MODELS[name].kv_elements_per_token / 1e3 == pytest.approx(kilobytes)


def test_windows_are_on_the_layers_that_were_published() -> None:
    shares = {name: (model.window_tokens, model.window_layers) for name, model in MODELS.items() if model.window_layers}
    assert shares["gpt-oss-120b"] == (128, 18)
    assert shares["gemma-3-27b"] == (1024, 52)
    assert shares["gemma-2-9b"] == (4096, 21)
    assert "mistral-7b" not in shares


@pytest.mark.parametrize(
    ("name", "change", "field", "message"),
    [
        ("llama-3.1-8b", "layers: 33", "parameters", "is not what the architecture makes"),
        ("llama-3.1-8b", "active_experts: 2", "active_experts", "a model without experts"),
        ("llama-3.1-8b", "ffn: 0", "ffn", "layers without experts need a width"),
        ("llama-3.1-8b", "rope_head_dim: 64", "rope_head_dim", "only with latent attention"),
        ("llama-3.1-8b", "window_tokens: 64", "window_tokens", "goes with window_layers"),
        ("gemma-3-12b", "window_layers: 49", "window_layers", "more than there are"),
        ("mixtral-8x7b", "active_experts: 9", "active_experts", "out of range"),
        ("mixtral-8x7b", "expert_ffn: 0", "expert_ffn", "experts without a width"),
        ("mixtral-8x7b", "dense_layers: 32", "dense_layers", "no layer has experts"),
        ("deepseek-v3", "kv_heads: 128", "kv_heads", "latent attention has one cache for all heads"),
        ("deepseek-v3", "value_head_dim: 0", "value_head_dim", "latent attention needs it"),
    ],
)
def test_an_architecture_that_contradicts_itself_is_refused(
    tmp_path: Path, name: str, change: str, field: str, message: str
) -> None:
    file = tmp_path / "mine.yaml"
    sourced = "source: a model card of ours\n    date: 2026-11-01\n    confidence: published\n"
    file.write_text(f"models:\n  {name}:\n    {change}\n    {sourced}", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_catalog(file)
    found = {problem.path: problem.message for problem in caught.value.problems}
    assert found[f"models.{name}.{field}"].startswith(message)
