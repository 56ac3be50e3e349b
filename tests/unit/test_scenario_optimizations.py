"""Optimizations of a deployment: what is wrong with them, what they resolve to, and that both engines simulate them alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from control_kit import poisson, scenario, tables_of

from sim import load_scenario, simulate
from sim.domain.traffic import RequestBlock
from sim.errors import InputError, Problems
from sim.perf.compression import Pruning as PrunedFiles
from sim.perf.compression import artifact_bytes
from sim.scenario import Deployment, Optimizations, Pruning, Scenario, Service, Speculative
from sim.scenario.check import check
from sim.scenario.plain import scenario_from_plain
from sim.scenario.resolve import ReplicaKind, resolve
from sim.workload.base import OpenedSource
from sim.workload.prefix import CachedPrompts
from sim.workload.specs import TokenLengths
from sim.workload.synthetic import Poisson

WHERE = "deployments.llama.optimizations"


def _with(optimizations: Optimizations, **changes: object) -> Scenario:
    deployment = replace(scenario().deployments["llama"], optimizations=optimizations, **changes)  # type: ignore[arg-type]
    return scenario(deployments={"llama": deployment})


def _kind(optimizations: Optimizations, **changes: object) -> ReplicaKind:
    return resolve(check(_with(optimizations, **changes))).kinds["llama", "gpu"]


def _problems(made: Scenario) -> dict[str, str]:
    with pytest.raises(InputError) as caught:
        check(made)
    return {problem.path: f"{problem.message} {problem.nearest}" for problem in caught.value.problems}


def test_a_file_sets_every_field_and_a_manifest_reads_back(tmp_path):
    (tmp_path / "scenario").mkdir()
    (tmp_path / "scenario" / "mine.yaml").write_text(
        "# @package _global_\n"
        "defaults: [bench_chat8, _self_]\n"
        "deployments:\n"
        "  llama_8b:\n"
        "    optimizations:\n"
        "      pruning: {sparsity: 70%, entropy_coded: false}\n"
        "      speculative: {draft: llama-3.2-1b, tokens: 3, acceptance: 0.6}\n"
        "      flash_attention: false\n"
        "      prefix_cache_hit: 0.25\n"
    )
    made = load_scenario("mine", ["sparsity_2_4=true"], tmp_path)
    found = made.deployments["llama_8b"].optimizations
    assert found == Optimizations(Pruning(0.7, False), True, Speculative("llama-3.2-1b", 3, 0.6), False, 0.25)
    assert scenario_from_plain(made.to_dict(), Problems()) == made


def test_every_problem_at_once_with_the_nearest_name():
    wrong = Optimizations(
        pruning=Pruning(sparsity=1.5),
        sparsity_2_4=True,
        speculative=Speculative(draft="lama-3.2-1b", tokens=40, acceptance=-0.1),
        prefix_cache_hit=2.0,
    )
    found = _problems(_with(wrong))
    assert set(found) == {
        f"{WHERE}.{name}"
        for name in (
            "pruning.sparsity",
            "sparsity_2_4",
            "speculative.draft",
            "speculative.tokens",
            "speculative.acceptance",
            "prefix_cache_hit",
        )
    }
    assert found[f"{WHERE}.speculative.draft"].endswith("llama-3.2-1b")


@pytest.mark.parametrize(
    ("optimizations", "changes", "path", "message"),
    [
        (Optimizations(speculative=Speculative("qwen3-0.6b")), {}, "speculative.draft", "another vocabulary"),
        (Optimizations(speculative=Speculative("llama-3.1-70b")), {}, "speculative.draft", "is not smaller"),
        (Optimizations(sparsity_2_4=True), {"weight_dtype": "int8_wo"}, "sparsity_2_4", "no kernels for 2:4 sparse int8_wo"),
        (Optimizations(speculative=Speculative("llama-3.2-1b")), {"pipeline_parallel": 20}, "speculative.draft", "20 stages"),
    ],
)
def test_what_cannot_be_had(optimizations, changes, path, message):
    assert message in _problems(_with(optimizations, **changes))[f"{WHERE}.{path}"]


def test_what_does_not_fit_says_which_optimization_takes_the_room():
    """Scores of 8,192 tokens against 131,072: 4 x 32 x 8,192 x 131,072 bytes = 137 GB."""
    with pytest.raises(InputError, match=r"optimizations.flash_attention=true, or a smaller max_model_len"):
        check(_with(Optimizations(flash_attention=False)))
    kind = _kind(Optimizations(flash_attention=False), max_model_len=8_192)
    plain = _kind(Optimizations())
    assert kind.memory is not None
    assert plain.memory is not None
    assert kind.memory.activation_bytes - plain.memory.activation_bytes == 4 * 32 * 8_192 * 8_192
    assert kind.kv_tokens < plain.kv_tokens


def test_a_batcher_has_none():
    found = load_scenario("vision_batcher", ["optimizations.sparsity_2_4=true"])
    with pytest.raises(InputError, match="this deployment has a batcher"):
        check(found)


def test_deployments_of_a_service_find_the_same_share_of_its_prompts():
    some, others = Deployment(pools=["gpu"]), Deployment(pools=["gpu"], optimizations=Optimizations(prefix_cache_hit=0.5))
    service = Service(workload=poisson(), deployments=["some", "others"])
    found = _problems(scenario(services={"chat": service}, deployments={"some": some, "others": others}))
    assert list(found) == ["deployments.others.optimizations.prefix_cache_hit"]


def test_pruning_changes_the_files_and_neither_a_step_nor_the_cache():
    plain, pruned = _kind(Optimizations()), _kind(Optimizations(pruning=Pruning(0.6)))
    assert pruned.step == plain.step
    assert pruned.kv_tokens == plain.kv_tokens
    assert plain.model is not None
    assert pruned.weight_bytes == artifact_bytes(plain.model, "bf16", pruning=PrunedFiles(0.6))
    assert pruned.weight_bytes < 0.4 * plain.weight_bytes


def test_a_draft_takes_room_for_its_weights_and_for_its_cache():
    """Llama-3.2-1B in bf16: 2.47 GB; 2 x 16 x 8 x 64 x 2 = 32,768 bytes a token beside the 131,072 of the model."""
    plain, drafted = _kind(Optimizations()), _kind(Optimizations(speculative=Speculative("llama-3.2-1b")))
    assert plain.memory is not None
    assert drafted.memory is not None
    assert drafted.memory.weight_bytes - plain.memory.weight_bytes == pytest.approx(2.4716e9, rel=1e-3)
    assert drafted.memory.kv_bytes_per_token == 131_072 + 32_768
    assert drafted.weight_bytes - plain.weight_bytes == pytest.approx(2.4716e9, rel=1e-3)
    in_prompt = _kind(Optimizations(speculative=Speculative("ngram")))
    assert (in_prompt.kv_tokens, in_prompt.weight_bytes) == (plain.kv_tokens, plain.weight_bytes)


def test_sparse_weights_leave_more_for_the_cache():
    plain, sparse = _kind(Optimizations()), _kind(Optimizations(sparsity_2_4=True))
    assert plain.memory is not None
    assert plain.model is not None
    assert sparse.memory is not None
    saved = plain.memory.weight_bytes - sparse.memory.weight_bytes
    assert saved == pytest.approx(plain.model.linear_parameters * 2 * 0.4375)
    assert sparse.kv_tokens - plain.kv_tokens == pytest.approx(saved / 131_072, abs=32)
    assert sparse.step.validity == "assumed"


def test_hits_reach_open_and_closed_requests_and_jobs_and_keep_what_is_longer():
    block = RequestBlock.of(
        arrival_ns=[0, 1, 2], prompt_tokens=[100, 7, 50], output_tokens=[1, 1, 1], prefix=[0, 0, 3], prefix_tokens=[60, 0, 10]
    )

    class Clients:
        clients = 2

        def rows(self, client: int, block_number: int) -> RequestBlock:
            return block

    source = CachedPrompts(OpenedSource(lambda: iter([block]), closed=Clients()), 0.5)
    assert [found.prefix_tokens.tolist() for found in source.blocks()] == [[60, 3, 10]]
    assert source.closed is not None
    assert source.closed.clients == 2
    assert source.closed.rows(0, 0).prefix_tokens.tolist() == [60, 3, 10]
    assert np.array_equal(next(iter(source.blocks())).prompt_tokens, block.prompt_tokens)


@pytest.mark.parametrize(
    "optimizations",
    [
        Optimizations(speculative=Speculative("llama-3.2-1b"), prefix_cache_hit=0.4),
        Optimizations(sparsity_2_4=True, speculative=Speculative("ngram", tokens=3, acceptance=0.6)),
    ],
    ids=["drafts and hits", "sparse and n-grams"],
)
def test_both_engines_simulate_them_alike(optimizations, tmp_path):
    lengths = {"prompt": TokenLengths(family="geometric", mean=900), "output": TokenLengths(family="geometric", mean=120)}
    service = Service(workload=Poisson(rate_per_s=12.0, **lengths), deployments=["llama"])
    made = replace(_with(optimizations), services={"chat": service}, horizon="3m")
    found = {}
    for engine in ("reference", "compiled"):
        tables = tables_of(check(replace(made, engine=engine)), tmp_path / engine)
        found[engine] = tables["windows"]
    reference, compiled = found["reference"], found["compiled"]
    assert sum(reference["completed"]) > 1_500
    for column, values in reference.items():
        if all(isinstance(value, int) for value in values):
            assert compiled[column] == values, column
        elif all(isinstance(value, float) for value in values):
            assert compiled[column] == pytest.approx(values, rel=1e-9, nan_ok=True), column


def test_a_hit_shortens_the_first_token_and_speculation_the_others(tmp_path):
    def means(name: str, optimizations: Optimizations) -> tuple[float, float]:
        prompts = Poisson(rate_per_s=0.2, prompt=TokenLengths(family="fixed", mean=4_000))
        made = replace(_with(optimizations), services={"chat": Service(workload=prompts, deployments=["llama"])}, horizon="10m")
        latency = simulate(made, out=tmp_path / name).summary["latency"]["chat"]
        return latency["ttft_s"]["mean"], latency["tpot_s"]["mean"]

    plain = means("plain", Optimizations())
    cached = means("cached", Optimizations(prefix_cache_hit=0.9))
    guessed = means("guessed", Optimizations(speculative=Speculative("ngram", tokens=4, acceptance=0.8)))
    assert cached[0] < 0.6 * plain[0]
    assert cached[1] == pytest.approx(plain[1], rel=0.05)
    assert guessed[1] < 0.5 * plain[1]
