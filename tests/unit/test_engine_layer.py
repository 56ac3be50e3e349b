"""The fits of the engine layer: planted constants are found again, bands hold what they say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("experiments.fit_hardware.engine_layer", reason="not a checkout")

from benchmarks.measured.replicas import built, replica_of
from experiments.fit_hardware import eager_layer, engine_layer
from sim.perf.steptime import ONE_NS_FX

PLANTED = np.array([0.95, 1.2e-3, 40e-6, 30e-6, 80e-6])


def factors() -> np.ndarray:
    """Kernels of 3 to 40 ms, batches of 1 to 256; models without experts, with 62 layers of them, with latent attention too."""
    draws = np.random.default_rng(1)
    rows = 300
    kinds = draws.integers(0, 3, rows)
    batch = np.exp2(draws.integers(0, 9, rows))
    return np.stack([draws.uniform(3e-3, 40e-3, rows), np.ones(rows), batch, 62.0 * (kinds > 0), 61.0 * (kinds > 1)], axis=1)


def test_planted_constants_are_found_in_spite_of_rows_that_are_far_off() -> None:
    parts = factors()
    truth = parts @ PLANTED
    truth[::12] *= 2.5  # runs of another kind
    found = engine_layer.solve(parts, truth, np.ones(len(truth)), engine_layer.EXPECTED, engine_layer.EXPECTED_WITHIN)
    np.testing.assert_allclose(found, PLANTED, rtol=0.12)


def test_what_the_rows_cannot_tell_is_as_expected() -> None:
    """All rows of one model of 60 layers with experts: steps and layers cannot be told apart, and the step is as expected."""
    parts = factors()
    parts[:, 3], parts[:, 4] = 60.0, 0.0
    truth = parts @ np.array([1.0, 1.0e-3, 30e-6, 30e-6, 0.0])
    expected, within = np.array([1.0, 1.0e-3, 30e-6, 0.0, 0.0]), np.array([0.05, 1e-6, 1.0, 500e-6, 500e-6])
    found = engine_layer.solve(parts, truth, np.ones(len(truth)), expected, within)
    assert found[1] == pytest.approx(1.0e-3, rel=0.01)
    assert found[3] == pytest.approx(30e-6, rel=0.05)


def test_a_band_holds_nine_of_ten_rows_and_of_groups() -> None:
    ratio = np.random.default_rng(2).normal(0.0, 0.1, 2_000)
    low, high = engine_layer.band(ratio, np.array(["one"] * 2_000))
    assert np.mean((ratio >= -low) & (ratio <= high)) == pytest.approx(0.9, abs=0.02)
    few = np.concatenate([ratio, np.full(20, 0.8)])
    assert engine_layer.band(few, np.array(["one"] * 2_000 + ["other"] * 20))[1] == pytest.approx(0.8)
    assert engine_layer.band(np.array([np.nan]), np.array(["one"])) == []
    assert engine_layer.wider([0.1, 0.2], [0.3, 0.1]) == [0.3, 0.2]
    assert engine_layer.wider([], [0.3, 0.1]) == [0.3, 0.1]


def test_the_constants_are_those_of_a_step() -> None:
    """DeepSeek-V3: 58 of 61 layers have experts, all have latent attention; 4 sequences, a step and 4 o_s."""
    replica = replica_of("deepseek-ai/DeepSeek-V3", "h200_sxm", "sglang", "fp8", 8)
    none = engine_layer.under(replica, (1.0, 0.0, 0.0, 0.0, 0.0))
    all_of_them = engine_layer.under(replica, (1.0, 1e-3, 10e-6, 20e-6, 30e-6))
    assert (replica.model.moe_layers, replica.model.layers) == (58, 61)
    load = (4, 4, 0, 4_000, 4)
    added_ns = (all_of_them.step.step_fx(*load) - none.step.step_fx(*load)) / ONE_NS_FX
    assert added_ns == pytest.approx(1e6 + 4 * 10e3 + 58 * 20e3 + 61 * 30e3, abs=4)


def test_launches_hide_behind_kernels_and_tokens_add_up() -> None:
    """Llama-2-70B on one step of 4 tokens takes its kernels, or 80 layers of launches, whichever is longer."""
    replica = replica_of("llama2-70b", "a100-80gb", "vllm", "bf16", 8, bare=True)

    def milliseconds(tokens: int, **layer: float) -> float:
        engine = replace(replica.engine, **layer)
        made = built(replica.model, replica.accelerator, replica.fit, engine, "bf16", "bf16", 8)
        return made.step.step_fx(tokens, 0, 0, 0, 0) / ONE_NS_FX / 1e6

    kernels = milliseconds(4)
    assert kernels > 10
    assert milliseconds(4, launch_layer_s=1e-6) == pytest.approx(kernels, abs=1e-6)
    longer = [milliseconds(4, launch_layer_s=launch_s) for launch_s in (1e-3, 2e-3)]
    assert longer[1] - longer[0] == pytest.approx(80.0, rel=1e-6)
    assert milliseconds(4, token_s=1e-3) == pytest.approx(kernels + 4.0, abs=1e-6)


def test_planted_constants_of_an_eager_stack() -> None:
    draws = np.random.default_rng(3)
    batch, prompt = np.exp2(draws.integers(0, 6, 80)), np.exp2(draws.integers(7, 13, 80))
    token = np.where(draws.random(80) < 0.5, 45e-3, 15e-3)
    rows = np.stack([np.full(80, 80.0), batch, batch * prompt, 60e-6 * batch * prompt + token, token, np.zeros(80)], axis=1)
    planted = np.array([6e-3, 250e-6, 40e-6, 400e-6])
    np.testing.assert_allclose(eager_layer.solve(rows, eager_layer.said(rows, planted)), planted, rtol=1e-3)
