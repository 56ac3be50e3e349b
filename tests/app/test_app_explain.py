"""`billcast explain`: the table, its numbers against the capacity sheet, its JSON, and what it refuses."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from sim import load_scenario
from sim.app.cli import main
from sim.app.explain import STANDARD, Explanation, Wishes, break_even_tokens, explain
from sim.app.explain_view import WIDTH, show_explanations
from sim.app.sheet import capacity_report
from sim.errors import InputError
from sim.perf.optimize import OPTIMIZATIONS
from sim.scenario.check import check


def _explained(*overrides: str, name: str = "bench_chat8", wishes: Wishes | None = None) -> list[Explanation]:
    return explain(check(load_scenario(name, overrides)), wishes or Wishes())


def _text(found: list[Explanation], *, sources: bool = False) -> str:
    console = Console(file=io.StringIO(), width=WIDTH)
    show_explanations(found, sources, console)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(len(line) <= WIDTH for line in text.splitlines())
    return text


def test_as_it_is_agrees_with_the_capacity_sheet():
    made = check(load_scenario("bench_chat8", []))
    [kind], [table] = capacity_report(made).kinds, explain(made, Wishes(tried=("fp8",)))
    before = table.outcomes[0]
    assert kind.sheet is not None
    assert before.kv_tokens == kind.kv_tokens
    assert before.output_tokens_per_s == pytest.approx(kind.sheet.output_tokens_per_s)
    assert before.prefill_s == pytest.approx(kind.sheet.prefill_s)
    assert table.usd_per_hour == kind.usd_per_hour
    assert before.usd_per_1m_output == pytest.approx(kind.usd_per_hour / 3600 / kind.sheet.output_tokens_per_s * 1e6)
    assert before.joules_per_token == pytest.approx(kind.sheet.power_w / kind.sheet.output_tokens_per_s)
    assert before.loading_s == pytest.approx(kind.stages_s["loading"][0])


def test_a_row_is_what_the_scenario_with_that_optimization_is():
    """Each way to say it gives the same numbers: tried here, or set in the scenario."""
    settings = {
        "fp8": ["weight_dtype=fp8"],
        "fp8+kv_fp8": ["weight_dtype=fp8", "kv_dtype=fp8"],
        "sparsity_2_4": ["deployments.llama_8b.optimizations.sparsity_2_4=true"],
        "pruning": ["deployments.llama_8b.optimizations.pruning={sparsity: 0.6}"],
        "speculative": ["deployments.llama_8b.optimizations.speculative={draft: llama-3.2-1b, tokens: 4, acceptance: 0.7}"],
        "prefix_cache": ["deployments.llama_8b.optimizations.prefix_cache_hit=0.3"],
    }
    tried = {each.name: each for each in _explained(wishes=Wishes(tried=tuple(settings)))[0].outcomes}
    for name, overrides in settings.items():
        made = _explained(*overrides, wishes=Wishes(tried=("bf16",)))[0].outcomes[0]
        for field in ("file_bytes", "weight_bytes", "kv_tokens", "largest_batch", "batch", "output_tokens_per_s", "prefill_s"):
            assert getattr(tried[name], field) == getattr(made, field), (name, field)
        [kind] = capacity_report(check(load_scenario("bench_chat8", overrides))).kinds
        assert kind.sheet is not None
        assert kind.sheet.output_tokens_per_s == tried[name].output_tokens_per_s, name


def test_every_optimization_is_in_the_table_or_refused_with_a_reason():
    [table] = _explained()
    shown = {each.name for each in table.outcomes[1:]} | set(table.refused)
    assert shown == set(STANDARD) - {"bf16", "flash_attention"}  # which it is already
    assert {part for name in STANDARD for part in name.split("+")} == set(OPTIMIZATIONS)
    assert table.refused["nvfp4"] == "h100-sxm has no fp4 arithmetic"
    text = _text([table], sources=True)
    for name in shown:
        assert name in text
    assert "arXiv 2411.02355" in text
    assert "speculative: 4 tokens a step proposed by llama-3.2-1b, 70% kept" in text
    assert "distillation: llama-3.2-3b, taught by it" in text


def test_a_measured_cache_moves_with_what_the_memory_does():
    plain, measured = (_explained(*more, wishes=Wishes(tried=("kv_fp8",)))[0].outcomes for more in ([], ["kv_tokens=400000"]))
    assert measured[0].kv_tokens == 400_000
    assert measured[1].kv_tokens == round(400_000 * plain[1].kv_tokens / plain[0].kv_tokens)


def test_when_it_pays():
    """100 USD, and 0.10 USD saved a million tokens: after a billion."""
    assert break_even_tokens(100.0, 0.5, 0.4) == pytest.approx(1e9)
    assert break_even_tokens(0.0, 0.5, 0.4) == 0
    assert break_even_tokens(0.0, 0.5, 0.5) is None
    assert break_even_tokens(5.0, None, 0.5) is None
    [table] = _explained(wishes=Wishes(tried=("distillation",)))
    before, after = table.outcomes
    assert before.usd_per_1m_output is not None
    assert after.usd_per_1m_output is not None
    assert after.break_even_tokens is not None
    saved = (before.usd_per_1m_output - after.usd_per_1m_output) * after.break_even_tokens / 1e6
    assert saved == pytest.approx(after.one_off_usd)
    assert after.one_off_usd == pytest.approx(after.one_off_gpu_hours * table.usd_per_hour)


def test_a_target_that_nothing_keeps_has_no_price():
    [table] = _explained("tpot_s=0.001", wishes=Wishes(tried=("fp8",)))
    assert [each.usd_per_1m_output for each in table.outcomes] == [None, None]
    assert " - " in _text([table])


def test_scores_that_do_not_fit_say_up_to_which_context_they_would():
    [table] = _explained(wishes=Wishes(tried=("no_flash_attention",)))
    reason = table.refused["no_flash_attention"]
    longest = int(reason.rpartition(" ")[2].replace(",", ""))
    [fits] = _explained(f"max_model_len={longest}", wishes=Wishes(tried=("no_flash_attention",)))
    assert [each.name for each in fits.outcomes] != []
    [too_long] = _explained(f"max_model_len={longest + 1}", wishes=Wishes(tried=("no_flash_attention",)))
    assert "no_flash_attention" in too_long.refused


def test_a_model_on_several_accelerators_and_a_choice_of_ones_own():
    wishes = Wishes(tried=("speculative", "distillation"), draft="ngram", student="llama-3.1-8b")
    [table] = _explained("model=llama-3.1-70b", "tensor_parallel=4", "instance=p5.48xlarge", wishes=wishes)
    assert table.accelerators == 4
    assert [each.name for each in table.outcomes] == ["as it is", "speculative", "distillation"]
    assert table.outcomes[1].file_bytes == table.outcomes[0].file_bytes
    assert table.outcomes[2].file_bytes == pytest.approx(16.06e9, rel=1e-3)
    one_gpu_hour = table.usd_per_hour / 4
    assert table.outcomes[2].one_off_usd == pytest.approx(table.outcomes[2].one_off_gpu_hours * one_gpu_hour)


def test_a_batcher_has_nothing_to_explain():
    assert _explained(name="vision_batcher") == []
    assert "nothing to explain" in _text([])


def test_wrong_wishes_all_at_once():
    wishes = Wishes(tried=("fp9", "kv_fp8"), draft="lama-3.2-1b", student="nobody", proposals=0, acceptance=1.5, sparsity=2.0)
    with pytest.raises(InputError) as caught:
        _explained(wishes=wishes)
    found = {problem.path: problem.nearest for problem in caught.value.problems}
    assert set(found) == {"--try", "--draft", "--student", "--proposals", "--acceptance", "--sparsity"}
    assert (found["--try"], found["--draft"]) == ("fp8", "llama-3.2-1b")


def test_the_command_prints_the_table_and_the_same_as_json(capsys):
    words = ["explain", "scenario=bench_chat8", "--try", "fp8", "--try", "nvfp4"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "fp8" in shown
    assert "nvfp4: h100-sxm has no fp4 arithmetic" in shown
    assert main([*words, "--json"]) == 0
    [table] = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in table["outcomes"]] == ["as it is", "fp8"]
    assert table["outcomes"][1]["accuracy"]["provenance"]["confidence"] == "published"
    assert table["refused"] == {"nvfp4": "h100-sxm has no fp4 arithmetic"}


def test_the_command_refuses_what_is_wrong(capsys):
    assert main(["explain", "scenario=bench_chat8", "--try", "fp9"]) == 2
    assert "did you mean 'fp8'?" in capsys.readouterr().err
    assert main(["explain", "scenario=bench_chat8", "weight_dtype=fp9"]) == 2
    assert "weight_dtype" in capsys.readouterr().err
