"""Training time: hours of model cards within the stated bounds, goodput against its own minimum and a published run, laws."""

from __future__ import annotations

from dataclasses import replace
from math import exp
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.catalog.loader import load_catalog
from sim.domain.training import Range
from sim.errors import Problems
from sim.perf.goodput import CHIP_MTBF_H, Reliability, best_interval_s, goodput, goodput_share
from sim.perf.training import (
    TrainingJob,
    TrainingTime,
    active_parameters,
    check_job,
    checkpoint_bytes,
    efficiency_for,
    peak_flops_per_s,
    training_bill,
    training_flops,
    training_time,
)
from sim.perf.training_memory import TrainingSetup

CATALOG = load_catalog()
ROWS = tuple(CATALOG.training_efficiencies.values())

# (model, accelerator, tokens, accelerator-hours), the table of the research note on hardware, section 5: model cards.
CARDS = [
    ("llama-2-7b", "a100-sxm-80", 2e12, 184_320),
    ("llama-2-13b", "a100-sxm-80", 2e12, 368_640),
    ("llama-2-70b", "a100-sxm-80", 2e12, 1_720_320),
    ("llama-65b", "a100-sxm-80", 1.4e12, 1_022_362),
    ("llama-3-8b", "h100-sxm", 15e12, 1_300_000),
    ("llama-3-70b", "h100-sxm", 15e12, 6_400_000),
    ("llama-3.1-8b", "h100-sxm", 15e12, 1_460_000),
    ("llama-3.1-70b", "h100-sxm", 15e12, 7_000_000),
    ("llama-3.1-405b", "h100-sxm", 15.6e12, 30_840_000),
    ("llama-3.2-1b", "h100-sxm", 9e12, 370_000),
    ("llama-3.2-3b", "h100-sxm", 9e12, 460_000),
    ("llama-4-scout", "h100-sxm", 40e12, 5_000_000),
    ("llama-4-maverick", "h100-sxm", 22e12, 2_380_000),
    ("deepseek-v3", "h100-sxm", 14.8e12, 2_664_000),
]
# Rows of other makers, BLOOM, Falcon-180B and MPT-7B (2026-11-23, from memory): a model of that size, parameters, tokens, hours.
OTHERS = [("llama-2-70b", 176e9, 366e9, 1_082_990), ("llama-2-70b", 180e9, 3.5e12, 7_000_000), ("llama-2-7b", 6.7e9, 1e12, 100_320)]


def estimate(
    model: str, accelerator: str, tokens: float, *, recipe: str = "bf16", accelerators: int = 2048, tensor_parallel: int = 1
) -> TrainingTime:
    setup = TrainingSetup(accelerators=accelerators, recipe=recipe, tensor_parallel=tensor_parallel)
    return training_time(CATALOG.models[model], CATALOG.accelerators[accelerator], setup, TrainingJob(tokens), ROWS)


@pytest.mark.parametrize(("model", "accelerator", "tokens", "hours"), CARDS)
def test_hours_of_model_cards_lie_within_the_bounds(model: str, accelerator: str, tokens: float, hours: float) -> None:
    found = estimate(model, accelerator, tokens).all_in_accelerator_hours
    assert found.low <= hours <= found.high


def test_the_middle_of_the_bounds_is_near_the_cards() -> None:
    """The median miss of the middle, over all rows; the wide bounds of small models are what single rows need."""
    misses = [abs(estimate(model, card, tokens).all_in_accelerator_hours.mid / hours - 1) for model, card, tokens, hours in CARDS]
    assert median(misses) <= 0.10
    assert max(misses) <= 0.5  # Llama-3.2-1B, whose card counts the distillation


@pytest.mark.parametrize(
    ("model", "accelerator", "tokens", "hours"), [row for row in CARDS if row[1].startswith("a100") or row[0] == "llama-3.1-405b"]
)
def test_where_a_card_is_mostly_the_main_run_the_run_alone_explains_it(
    model: str, accelerator: str, tokens: float, hours: float
) -> None:
    """MFU while stepping and the goodput formula, no all-in share: within 16 % of the card."""
    accelerators = 16_384 if model == "llama-3.1-405b" else 2048
    found = estimate(model, accelerator, tokens, accelerators=accelerators, tensor_parallel=8).accelerator_hours
    assert found.mid == pytest.approx(hours, rel=0.16)
    assert found.low <= hours <= found.high


def test_the_run_alone_is_far_below_the_card_of_a_small_model() -> None:
    """Llama-3.1-8B: 14 % of the peak over all hours of the card, 30 % while a run steps."""
    found = estimate("llama-3.1-8b", "h100-sxm", 15e12)
    assert 1_460_000 / found.accelerator_hours.mid > 1.8
    assert found.all_in_accelerator_hours.mid / found.accelerator_hours.mid > 1.5


@pytest.mark.parametrize(("like", "parameters", "tokens", "hours"), OTHERS)
def test_runs_of_other_makers_lie_within_the_bounds(like: str, parameters: float, tokens: float, hours: float) -> None:
    row = efficiency_for("a100-sxm-80", "bf16", CATALOG.models[like], ROWS)
    per_hour = 312e12 * 3600
    flops = training_flops(parameters, tokens)
    assert flops / (per_hour * row.all_in.high) <= hours <= flops / (per_hour * row.all_in.low)


def test_deepseek_v3_in_fp8_against_the_fp8_peak() -> None:
    found = estimate("deepseek-v3", "h100-sxm", 14.8e12, recipe="fp8")
    assert found.efficiency.name == "h100/fp8/experts"
    assert found.all_in_accelerator_hours.mid == pytest.approx(2_664_000, rel=0.06)
    assert active_parameters(CATALOG.models["deepseek-v3"]) / 1e9 == pytest.approx(37, rel=0.02)


@pytest.mark.parametrize(
    ("recompute", "lora", "each"),
    [("selective", False, 6), ("full", False, 8), ("none", False, 6), ("selective", True, 4), ("full", True, 6)],
)
def test_operations_of_a_parameter_and_a_token(recompute: str, lora: bool, each: int) -> None:
    assert training_flops(1e9, 1e12, recompute=recompute, lora=lora) == each * 1e21


def test_a_run_worked_by_hand() -> None:
    """6 x 8.03e9 x 1e12 = 4.818e22; on 64 H100 at 40 % of 989 TFLOP/s and 90 % goodput 2.279e16 a second: 587.3 hours."""
    setup, job = TrainingSetup(accelerators=64), TrainingJob(1e12, mfu=0.4, goodput=0.9)
    found = training_time(CATALOG.models["llama-3.1-8b"], CATALOG.accelerators["h100-sxm"], setup, job, ROWS)
    assert found.hours.mid == pytest.approx(6 * 8_030_261_248 * 1e12 / (64 * 989e12 * 0.4 * 0.9) / 3600)
    assert found.hours.mid == pytest.approx(587.3, abs=0.1)
    assert found.hours.low == found.hours.high == found.hours.mid
    assert found.validity == "set"


def test_the_batch_limits_how_many_accelerators_have_work() -> None:
    job = TrainingJob(1e12, global_batch_tokens=4096 * 64)
    hours = {}
    for count in (32, 64, 128):
        setup = TrainingSetup(accelerators=count, sequence_tokens=4096)
        found = training_time(
            CATALOG.models["llama-3.1-8b"], CATALOG.accelerators["h100-sxm"], setup, replace(job, goodput=1.0), ROWS
        )
        hours[count] = found.hours.mid
        assert found.working == min(count, 64)
    assert hours[32] == pytest.approx(2 * hours[64])
    assert hours[128] == hours[64]


@given(
    st.sampled_from(["llama-3.1-8b", "mixtral-8x7b", "llama-3.1-405b"]),
    st.sampled_from(["h100-sxm", "a100-sxm-80", "tpu-v5p", "l4"]),
    st.floats(1e9, 1e13),
    st.sampled_from([8, 64, 512]),
)
def test_laws(model: str, accelerator: str, tokens: float, accelerators: int) -> None:
    named, card = CATALOG.models[model], CATALOG.accelerators[accelerator]
    setup, job = TrainingSetup(accelerators=accelerators), TrainingJob(tokens, global_batch_tokens=1e9, goodput=0.9)
    here = training_time(named, card, setup, job, ROWS)
    assert here.hours.low < here.hours.mid < here.hours.high
    assert here.accelerator_hours.mid == pytest.approx(accelerators * here.hours.mid)
    twice = training_time(named, card, setup, replace(job, tokens=2 * tokens), ROWS)
    assert twice.hours.mid == pytest.approx(2 * here.hours.mid)
    wider = training_time(named, card, replace(setup, accelerators=2 * accelerators), job, ROWS)
    assert wider.hours.mid == pytest.approx(here.hours.mid / 2)
    faster = replace(card, dense_tflops={name: 2 * peak for name, peak in card.dense_tflops.items()})
    assert training_time(named, faster, setup, job, ROWS).hours.mid == pytest.approx(here.hours.mid / 2)
    full = training_time(named, card, replace(setup, recompute="full"), job, ROWS)
    assert full.hours.mid == pytest.approx(here.hours.mid * 8 / 6)


def test_goodput_of_llama_3_405b() -> None:
    """466 interruptions in 54 days on 16,384 GPUs are one in 2.78 hours; the paper states more than 90 % effective time."""
    assert round(CHIP_MTBF_H) == 45_566
    model = CATALOG.models["llama-3.1-405b"]
    states = checkpoint_bytes(model, TrainingSetup(accelerators=16_384))
    assert states == pytest.approx(14 * 405.9e9, rel=1e-3)
    found = goodput(16_384, states, Reliability())
    assert found.mtbf_s / 3600 == pytest.approx(54 * 24 / 466)
    assert found.write_s == pytest.approx(14 * 405.9e9 / 2e12, rel=1e-3)
    assert 0.90 < found.share.mid < 0.93
    assert found.share.low < found.share.mid < found.share.high


@given(st.floats(1.0, 600.0), st.floats(3600.0, 1e7), st.floats(0.0, 1800.0))
def test_the_best_interval_is_at_a_minimum(write_s: float, mtbf_s: float, restart_s: float) -> None:
    """Daly's closed form loses at most half a per mille of what a fine search over intervals finds."""
    best = goodput_share(best_interval_s(write_s, mtbf_s), write_s, mtbf_s, restart_s)
    tried = [best_interval_s(write_s, mtbf_s) * exp(step / 50) for step in range(-150, 151)]
    assert max(goodput_share(interval_s, write_s, mtbf_s, restart_s) for interval_s in tried) <= best * 1.0005


@given(st.floats(60.0, 7200.0), st.floats(0.0, 120.0), st.floats(1e4, 1e8), st.floats(0.0, 1800.0))
def test_goodput_falls_with_failures_writes_and_restarts(
    interval_s: float, write_s: float, mtbf_s: float, restart_s: float
) -> None:
    here = goodput_share(interval_s, write_s, mtbf_s, restart_s)
    assert 0 < here <= 1
    assert goodput_share(interval_s, write_s + 1, mtbf_s, restart_s) < here
    assert goodput_share(interval_s, write_s, mtbf_s / 2, restart_s) < here
    assert goodput_share(interval_s, write_s, mtbf_s, restart_s + 1) < here
    assert here <= interval_s / (interval_s + write_s)


def test_goodput_without_failures_is_what_checkpoints_leave_and_of_a_hopeless_job_nothing() -> None:
    assert goodput_share(900.0, 100.0, float("inf"), 600.0) == 0.9
    assert goodput_share(900.0, 100.0, 1e15, 600.0) == pytest.approx(0.9)
    assert goodput_share(1e6, 100.0, 1.0, 600.0) == 0.0


def test_first_order_loss_is_half_an_interval_and_a_restart_a_failure() -> None:
    """For a long time between failures: w / tau + (tau / 2 + R) / M, here 1 % + 0.6 % of time."""
    share = goodput_share(1000.0, 10.0, 1e5, 100.0)
    assert 1 / share - 1 == pytest.approx(0.01 + (500 + 100) / 1e5, rel=0.02)


def test_bill_energy_and_carbon_worked_by_hand() -> None:
    instance, grid = CATALOG.instances["p5.48xlarge"], CATALOG.grids["us-east-1"]
    h100 = CATALOG.accelerators["h100-sxm"]
    hours = Range(800.0, 1000.0, 1250.0)
    found = training_bill(hours, 12, Range(0.4, 0.4, 0.4), h100, instance, 55.04, grid)
    assert found.usd.mid == pytest.approx(1000 / 12 * 2 * 55.04)  # twelve accelerators rent two machines of eight
    watts = 700 + 0.38 * 700  # at its limit, and its share of the server
    assert found.kwh.mid == pytest.approx(1000 * watts / 1000 * grid.pue)
    assert found.kgco2.mid == pytest.approx(found.kwh.mid * 0.322)
    assert found.kwh.low < found.kwh.mid < found.kwh.high


def test_power_of_a_node_that_trains() -> None:
    """Measured on 8 H100: 7.75 kW at work and 8.4 kW at most (arXiv 2506.14551, 2412.08602)."""
    found = estimate("llama-3.1-70b", "h100-sxm", 1e12)
    bill = training_bill(
        found.accelerator_hours,
        2048,
        found.mfu,
        CATALOG.accelerators["h100-sxm"],
        CATALOG.instances["p5.48xlarge"],
        55.04,
        CATALOG.grids["us-east-1"],
    )
    assert 8 * bill.node_w.mid == pytest.approx(7750, rel=0.02)
    assert 8 * bill.node_w.low < 7750 < 8 * bill.node_w.high


def test_largest_jobs_and_other_problems_are_found_at_once() -> None:
    problems = Problems()
    v5p = CATALOG.accelerators["tpu-v5p"]
    job = TrainingJob(0.0, global_batch_tokens=100, mfu=1.5, reliability=Reliability(chip_mtbf_h=0.0))
    check_job(v5p, TrainingSetup(accelerators=8192, recipe="fp32", tensor_parallel=2), job, problems)
    found = {problem.path: problem for problem in problems.found}
    assert set(found) == {"accelerators", "tensor_parallel", "tokens", "global_batch_tokens", "mfu", "chip_mtbf_h", "recipe"}
    assert found["recipe"].allowed == "bf16, bf16_fp32_gradients, fp8"
    assert found["accelerators"].allowed == "at most 6144"
    problems = Problems()
    check_job(v5p, TrainingSetup(accelerators=6144), TrainingJob(1e12), problems)
    check_job(CATALOG.accelerators["a100-sxm-80"], TrainingSetup(recipe="fp8"), TrainingJob(1e12), problems)
    assert [(problem.path, problem.allowed) for problem in problems.found] == [("recipe", "bf16, bf16_fp32_gradients, fp32")]


def test_rows_say_how_an_accelerator_comes_by_them() -> None:
    llama = CATALOG.models["llama-3.1-8b"]
    for accelerator, validity in (
        ("h100-sxm", "fitted"),
        ("h200-sxm", "transferred"),
        ("l4", "assumed"),
        ("tpu-v5p", "transferred"),
    ):
        assert efficiency_for(accelerator, "bf16", llama, ROWS).validity(accelerator) == validity
    assert efficiency_for("l4", "fp8", llama, ROWS).name == "any/fp8"
    assert peak_flops_per_s(CATALOG.accelerators["h100-sxm"], "fp8") == 1979e12


def test_no_row_hides_another() -> None:
    """Every row with accelerators is the answer for some model size on the first of them."""
    for row in ROWS:
        names = (*row.accelerators, *row.transferred_to)
        if not names:
            continue
        base = CATALOG.models["mixtral-8x7b" if row.experts else "llama-3.1-8b"]
        sizes = [replace(base, layers=layers) for layers in (1, 4, 32, 200, 2000)]
        assert any(efficiency_for(names[0], row.arithmetic, model, ROWS) is row for model in sizes), row.name
