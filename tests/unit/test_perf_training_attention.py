"""What FlashAttention is worth in training: activations that do not grow with the square of a sequence, and a higher MFU."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sim.catalog.loader import load_catalog
from sim.perf.training import TrainingJob, training_time, unfused_speed
from sim.perf.training_memory import TrainingSetup, layer_activation_bytes

CATALOG = load_catalog()
LLAMA_8B = CATALOG.models["llama-3.1-8b"]
FUSED = TrainingSetup(accelerators=64, sequence_tokens=8_192)


def test_the_share_of_attention_by_hand():
    """r = 32 x 32 x 128 x 8,192 / 8.03e9 = 0.1337, r / (1 + r) = 0.1179; 1 / (1 + 0.1179 x (1 / 0.35 - 1)) = 0.820."""
    found = unfused_speed(LLAMA_8B, 8_192)
    assert found.mid == pytest.approx(0.8203, abs=1e-4)
    assert (found.low, found.high) == pytest.approx((1 / (1 + 0.11794 * 3), 1 / (1 + 0.11794)), abs=1e-4)


def test_a_run_without_takes_as_much_longer_and_short_sequences_hardly():
    rows = CATALOG.training_efficiencies.values()
    h100, job = CATALOG.accelerators["h100-sxm"], TrainingJob(tokens=1e12, goodput=0.9)
    for tokens in (512, 8_192):
        setups = [replace(FUSED, sequence_tokens=tokens, recompute=recompute) for recompute in ("selective", "none")]
        fused, unfused = (training_time(LLAMA_8B, h100, setup, job, rows) for setup in setups)
        assert unfused.hours.mid == pytest.approx(fused.hours.mid / unfused_speed(LLAMA_8B, tokens).mid)
        assert unfused.mfu.mid < fused.mfu.mid
    assert unfused_speed(LLAMA_8B, 512).mid > 0.98


def test_activations_by_hand():
    """34 s b h with it, s b h (34 + 5 n_h s / h) without: 5 n_h s^2 more for each sequence and layer."""
    fused, unfused = (layer_activation_bytes(LLAMA_8B, replace(FUSED, recompute=recompute)) for recompute in ("selective", "none"))
    assert unfused - fused == pytest.approx(5 * 32 * 8_192**2)
