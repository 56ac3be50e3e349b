"""Power limits: hand-worked clocks, bounds, directions, and a capped pool in both engines."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from control_kit import FIXED, poisson
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import simulate
from sim.app.show_catalog import numbers
from sim.catalog.loader import load_catalog
from sim.domain.hardware import Accelerator
from sim.errors import InputError
from sim.perf.power_cap import CLOCKED_BYTES, FLOOR, capped_step_model
from sim.perf.roofline import step_model
from sim.perf.steptime import ONE_NS_FX, Context, StepModel, closed_form
from sim.policies.autoscalers.static import Static
from sim.results.invariants import check_run
from sim.scenario import Deployment, Pool, Scenario, Service
from sim.scenario.check import check
from sim.scenario.resolve import resolve
from sim.workload.specs import TokenLengths

CATALOG = load_catalog()
H100 = CATALOG.accelerators["h100-sxm"]
CAPS = (700.0, 650.0, 600.0, 500.0, 450.0, 400.0, 300.0, 200.0)
IDLE_W, LIMIT_W, MS = 128.0, 700.0, 1e6


def computing(accelerator: Accelerator) -> StepModel:
    """One token is a millisecond of operations that draw 500 W above 128 W."""
    clock = accelerator.dense_tflops["bf16"] / H100.dense_tflops["bf16"]
    spent = accelerator.power.flop_pj["bf16"] / H100.power.flop_pj["bf16"]
    return closed_form(token_ns=MS / clock, token_j=0.5 * spent, base_w=IDLE_W, tdp_w=LIMIT_W)


def reading(accelerator: Accelerator) -> StepModel:
    """One token is a millisecond of reading that draws 400 W above 128 W, whatever the clock."""
    return closed_form(token_ns=MS, token_j=0.4, base_w=IDLE_W, tdp_w=LIMIT_W, attention_ns=1e-3 * accelerator.dense_tflops["bf16"])


def serving(accelerator: Accelerator) -> StepModel:
    """Llama-3.1-8B under vLLM."""
    fit, engine = CATALOG.fits[f"{accelerator.name}/vllm/bf16"], CATALOG.engines["vllm-2026"]
    kinds = {"weight_dtype": "bf16", "kv_dtype": "bf16", "tensor_parallel": 1}
    return step_model(CATALOG.models["llama-3.1-8b"], accelerator, fit, engine, **kinds)  # type: ignore[arg-type]


SERVING = {cap_w: capped_step_model(serving, H100, cap_w) for cap_w in CAPS}


def milliseconds(step: StepModel, tokens: int = 1) -> float:
    """Time of a step of tokens alone."""
    return step.step_fx(tokens, 0, 0, 0) / ONE_NS_FX / MS


def watts(step: StepModel, load: tuple[int, int, int, int, int]) -> float:
    """Power of a step as long as the model has it."""
    step_fx = step.step_fx(*load)
    return step.step_j(step_fx, *load) / (step_fx / ONE_NS_FX / 1e9)


@pytest.mark.parametrize(
    ("cap_w", "slower"),
    [
        (628.0, 1.0),  # as much as it draws
        (400.0, (500 / (400 - 128)) ** (1 / 3)),  # the cube of the clock: 272 of 500 W
        (320.0, (500 / (320 - 128)) ** (1 / 3)),
        (200.0, 500 * FLOOR**2 / (200 - 128)),  # on the floor: 245 W at the full clock and in proportion to it
        (140.0, 500 * FLOOR**2 / (140 - 128)),
    ],
)
def test_operations_slow_down_with_the_cube_of_the_clock_and_then_with_the_clock(cap_w: float, slower: float) -> None:
    step = capped_step_model(computing, H100, cap_w)
    assert milliseconds(step) == pytest.approx(slower, rel=1e-6)
    assert watts(step, (1, 0, 0, 0, 0)) == pytest.approx(min(cap_w, 628.0), rel=1e-6)


def test_reading_keeps_its_pace_until_the_lowest_voltage() -> None:
    """Half of 400 W is in the clocked part: at the floor 200 + 200 x 0.49 W are left, 298 W above 128 W."""
    assert CLOCKED_BYTES == 0.5
    floor_w = 200 + 200 * FLOOR**2

    def alone(accelerator: Accelerator) -> StepModel:
        return reading(accelerator)

    for cap_w, slower in ((700.0, 1.0), (500.0, 1.0), (IDLE_W + floor_w + 1, 1.0), (300.0, floor_w / (300 - IDLE_W))):
        assert milliseconds(capped_step_model(alone, H100, cap_w)) == pytest.approx(slower, rel=1e-6)


def test_times_that_know_no_clock_follow_it() -> None:
    """A measured table says nothing of what follows the clock: all. 200 W stay, 200 fall: (200 + 200 f^2) f = 272 at 400 W."""
    measured = closed_form(token_ns=MS, token_j=0.4, base_w=IDLE_W, tdp_w=LIMIT_W)
    capped = capped_step_model(lambda _: measured, H100, 400.0)
    (share,) = (root.real for root in np.roots([200, 0, 200, -272]) if abs(root.imag) < 1e-9)
    assert milliseconds(capped) == pytest.approx(1 / share, rel=1e-6)
    assert watts(capped, (1, 0, 0, 0, 0)) == pytest.approx(400.0, rel=1e-6)


def test_a_cap_at_the_limit_changes_nothing() -> None:
    assert capped_step_model(serving, H100, H100.tdp_w) == serving(H100)


LOADS = st.tuples(
    st.integers(1, 256), st.integers(0, 4096), st.integers(0, 8192).map(lambda chunk: 0 if chunk < 16 else chunk)
).map(lambda drawn: (drawn[0] + drawn[2], drawn[0], drawn[2] ** 2, drawn[0] * drawn[1], drawn[0]))


@settings(deadline=None)
@given(LOADS)
def test_lower_caps_never_speed_up_and_never_draw_more(load: tuple[int, int, int, int, int]) -> None:
    steps = [SERVING[cap_w] for cap_w in CAPS]
    for cap_w, (higher, lower) in zip(CAPS[1:], pairwise(steps), strict=True):
        assert lower.step_fx(*load) >= higher.step_fx(*load) - 2 * load[0]  # rounding of slopes
        assert watts(lower, load) <= min(cap_w * (1 + 1e-9), watts(higher, load) * (1 + 1e-6))


@settings(deadline=None)
@given(LOADS)
def test_energy_of_a_step_never_grows_before_the_voltage_stops_falling(load: tuple[int, int, int, int, int]) -> None:
    """Down to 500 W of 700 every part of this model is above the floor, where joules fall faster than time grows."""
    joules = [SERVING[cap_w].step_j(SERVING[cap_w].step_fx(*load), *load) for cap_w in CAPS if cap_w >= 500]
    assert all(lower <= higher * (1 + 1e-3) for higher, lower in pairwise(joules))


def test_caps_below_what_experts_draw_besides_slow_down_too() -> None:
    """A B200 with experts draws 170 W idle and 96 W besides: limits of 200 and 240 W are below both together."""
    chip, engine = CATALOG.accelerators["b200-sxm"], CATALOG.engines["bare"]
    kinds = {"weight_dtype": "bf16", "kv_dtype": "bf16", "tensor_parallel": 1}

    def experts(accelerator: Accelerator) -> StepModel:
        fit = CATALOG.fits["b200-sxm/vllm/bf16"]
        return step_model(CATALOG.models["qwen3-30b-a3b"], accelerator, fit, engine, **kinds)  # type: ignore[arg-type]

    steps = [capped_step_model(experts, chip, cap_w) for cap_w in (999.9, 600.0, 300.0, 240.0, 200.0)]
    for load in ((1, 1, 0, 1000, 1), (64, 64, 0, 64_000, 64), (2048, 1, 2048**2, 0, 0)):
        times = [step.step_fx(*load) for step in (experts(chip), *steps)]
        assert times == sorted(times)
        assert times[1] == pytest.approx(times[0], rel=1e-2)
        assert watts(steps[-1], load) <= 200.0 * 1.0001


def test_pieces_of_the_context_meet_at_their_knots() -> None:
    def windowed(accelerator: Accelerator) -> StepModel:
        fit, engine = CATALOG.fits["h100-sxm/vllm/bf16"], CATALOG.engines["vllm-2026"]
        kinds = {"weight_dtype": "bf16", "kv_dtype": "bf16", "tensor_parallel": 1}
        return step_model(CATALOG.models["gemma-3-12b"], accelerator, fit, engine, **kinds)  # type: ignore[arg-type]

    step = capped_step_model(windowed, H100, 250.0)
    knot = step.knots_tokens[1]
    for decoding in (1, 7, 64):
        before, after = (
            step.step_fx(decoding, 0, 0, knot * decoding - 1, decoding),
            step.step_fx(decoding, 0, 0, knot * decoding, decoding),
        )
        assert 0 <= after - before <= 2 * step.contexts[0][0].slope_fx


def test_a_jump_of_a_measured_table_stays() -> None:
    """From 100 tokens on a step takes 5 us more and a token less; at 600 of 700 W slopes change, the jump does not."""
    us = 1000 * ONE_NS_FX
    before, after = Context(0, 2 * us, 0.0, 1.5e-3), Context(100 * us + 5 * us, us, 0.0752, 7e-4)
    measured = replace(closed_form(base_w=IDLE_W, tdp_w=LIMIT_W), knots_tokens=(0, 100), contexts=((before, after),))
    capped = capped_step_model(lambda _: measured, H100, 600.0)
    (low, high), jumps = capped.contexts[0], []
    for first, second in ((before, after), (low, high)):
        jumps.append(second.offset_fx - first.offset_fx - (first.slope_fx - second.slope_fx) * 100)
    assert low.slope_fx > before.slope_fx
    assert jumps == [5 * us, 5 * us]
    assert high.offset_j - low.offset_j - (low.slope_j - high.slope_j) * 100 == pytest.approx(0.0752 - 8e-4 * 100)


def test_the_law_is_near_what_a_home_server_measured() -> None:
    """Prefill of six RTX 3090 under limits of 350 to 200 W: 9,893, 9,326, 8,436 and 5,941 tokens/s (llmgarage.ai, February 2026).

    Idle power and memory take 110 W of each (assumed); below 200 W the measured speed falls faster than the law says.
    """
    measured = {300.0: 9326 / 9893, 250.0: 8436 / 9893, 200.0: 5941 / 9893}
    chip = replace(H100, tdp_w=350.0)

    def prefill(accelerator: Accelerator) -> StepModel:
        return replace(computing(accelerator), base_w=110.0, tdp_w=350.0)

    for cap_w, speed in measured.items():
        made = 1 / milliseconds(capped_step_model(prefill, chip, cap_w))
        assert made == pytest.approx(speed, rel=0.25 if cap_w == 200.0 else 0.03)


def test_a_capped_h200_keeps_the_share_that_mlperf_measured() -> None:
    """MLPerf v4.1, Llama-2-70B offline on eight H200: 25.3 of 31.3 thousand tokens/s when capped (MaxQ); the cap is unknown."""

    def llama(accelerator: Accelerator) -> StepModel:
        fit, engine = CATALOG.fits["h200-sxm/vllm/fp8"], CATALOG.engines["vllm-2026"]
        kinds = {"weight_dtype": "fp8", "kv_dtype": "fp8", "tensor_parallel": 1}
        return step_model(CATALOG.models["llama-2-70b"], accelerator, fit, engine, **kinds)  # type: ignore[arg-type]

    h200, load = CATALOG.accelerators["h200-sxm"], (1280, 1024, 256 * 294, 1024 * 440, 1024)  # prompts of 294, answers of 294
    times = {cap_w: capped_step_model(llama, h200, cap_w).step_fx(*load) for cap_w in (700.0, 450.0, 350.0)}
    assert times[700.0] / times[450.0] > 0.81 > times[700.0] / times[350.0]


def capped(cap_w: float | None, engine: str = "compiled", instance: str = "p5.4xlarge") -> Scenario:
    """Ten minutes of chat on one machine."""
    lengths = {"prompt": TokenLengths(family="fixed", mean=900), "output": TokenLengths(family="fixed", mean=200)}
    workload = replace(poisson(6.0), **lengths)
    return Scenario(
        horizon="10min",
        engine=engine,
        services={"chat": Service(workload=workload, deployments=["llm"])},
        deployments={"llm": Deployment(pools=["gpu"], autoscaler=Static(1))},
        pools={"gpu": Pool(instance=instance, power_cap_w=cap_w, cold_start=FIXED)},
    )


@pytest.mark.parametrize("engine", ["compiled", "reference"])
def test_a_capped_pool_takes_longer_and_draws_less(engine: str, tmp_path: Path) -> None:
    """Fewer watts while it steps, fewer joules a token, more time a token: at each cap more than at the one before."""
    tpot_s, joules, busy_w = [], [], []
    for cap_w in (None, 500.0, 350.0):
        result = simulate(capped(cap_w, engine), out=tmp_path / f"{cap_w}")
        check_run(result)
        replicas = result.table("replicas")
        tpot_s.append(result.summary["latency"]["chat"]["tpot_s"]["mean"])
        joules.append(float(replicas["energy_j"].sum()))
        busy_w.append(joules[-1] / float(replicas["busy_s"].sum()))
        assert cap_w is None or busy_w[-1] <= cap_w
    assert tpot_s[0] < tpot_s[1] < tpot_s[2]
    assert joules[0] > joules[1] > joules[2]
    assert busy_w[0] > busy_w[1] > busy_w[2]


@pytest.mark.parametrize(("cap_w", "fine"), [(700.0, True), (200.0, True), (199.0, False), (701.0, False), (0.0, False)])
def test_a_cap_is_one_that_the_board_takes(cap_w: float, fine: bool) -> None:
    if fine:
        check(capped(cap_w))
        return
    with pytest.raises(InputError) as caught:
        check(capped(cap_w))
    (problem,) = caught.value.problems
    assert (problem.path, problem.value, problem.allowed) == ("pools.gpu.power_cap_w", cap_w, "200 to 700")


def test_a_cap_is_shown_with_its_source() -> None:
    shown = {(number.about, number.name): number for number in numbers(resolve(capped(450.0)))}
    assert shown["pool gpu", "h100-sxm power cap"].value == 450.0
    assert shown["pool gpu", "h100-sxm power of a step, off by at most"].value == 100 * H100.power.band
    assert not any("power cap" in name for _, name in {(n.about, n.name) for n in numbers(resolve(capped(None)))})
