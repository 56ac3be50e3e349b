"""Speculative decoding as a step table: toy numbers worked by hand, and the laws of its gain."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.perf.speculation import Speculation, speculative_step, tokens_per_step
from sim.perf.steptime import ONE_NS_FX, Context, StepModel, closed_form

MODEL = closed_form(
    linear_ns=17_000.0,
    weights_ns=5_000_000.0,
    overlap=0.5,
    attention_ns=1e-3,
    token_ns=500.0,
    fixed_ns=1_500_000.0,
    sequence_ns=40_000.0,
    context_ns=42.0,
    base_w=350.0,
    tdp_w=700.0,
    weights_j=1.0,
    token_j=0.01,
    sequence_j=0.002,
    context_j=1e-5,
)
SMALL = closed_form(linear_ns=2_400.0, weights_ns=700_000.0, fixed_ns=700_000.0, context_ns=10.0, attention_ns=1e-4, token_j=0.001)


def _ns(step: StepModel, batch: int, context: int) -> float:
    return step.step_fx(batch, batch, 0, context, batch) / ONE_NS_FX


def _gain(batch: int, speculation: Speculation, draft: StepModel | None = SMALL, context: int = 1_000) -> float:
    step = speculative_step(MODEL, draft, speculation, seats=512, sequence_s=40e-6)
    return _ns(MODEL, batch, batch * context) / _ns(step, batch, batch * context)


def test_the_tokens_of_a_step_by_hand():
    """a = 0.7, k = 4: 1 + 0.7 + 0.49 + 0.343 + 0.2401 = 2.7731."""
    assert tokens_per_step(0.7, 4) == pytest.approx(2.7731)
    assert [tokens_per_step(chance, 3) for chance in (0.0, 1.0)] == [1.0, 4.0]


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_a_step_is_the_check_and_the_drafts_over_the_tokens_that_come_of_it(batch):
    """k = 2, a = 0.5: 1.75 tokens from one step of 3 B tokens and two of the draft, the second with B tokens of context more."""
    speculation = Speculation(None, tokens=2, acceptance=0.5)
    step = speculative_step(MODEL, SMALL, speculation, seats=8, sequence_s=40e-6)
    context = 700 * batch
    check = MODEL.step_fx(3 * batch, 3 * batch, 0, 0, 0) / ONE_NS_FX + 42.0 * context - (3 - 1.75) * batch * 40_000.0
    drafts = _ns(SMALL, batch, context) + _ns(SMALL, batch, context + batch)
    assert _ns(step, batch, context) == pytest.approx((check + drafts) / 1.75, rel=1e-9)


def test_energy_likewise():
    speculation = Speculation(None, tokens=2, acceptance=0.5)
    step = speculative_step(MODEL, SMALL, speculation, seats=8, sequence_s=0.0)
    load = (4, 4, 0, 2_800, 4)
    time_fx = step.step_fx(*load)
    above_j = step.step_j(time_fx, *load) - 350.0 * time_fx / ONE_NS_FX / 1e9
    check_j = 1.0 + 12 * 0.01 + 12 * 0.002 + 2_800 * 1e-5
    drafts_j = 2 * 4 * 0.001
    assert above_j == pytest.approx((check_j + drafts_j) / 1.75, rel=1e-9)


def test_a_prompt_costs_what_it_does_without_and_the_drafts_part():
    speculation = Speculation(None, tokens=4, acceptance=0.7)
    step = speculative_step(MODEL, SMALL, speculation, seats=64, sequence_s=40e-6)
    prompt = (4_000, 0, 4_000**2, 0, 0)
    both = MODEL.step_fx(*prompt) + SMALL.step_fx(*prompt)
    assert step.step_fx(*prompt) == pytest.approx(both, rel=1e-9)
    # Beside decoding sequences it adds what its tokens add to a step of both models, to within the weights that are read anyway.
    mixed = step.step_fx(4_008, 8, 4_000**2, 8_000, 8) - step.step_fx(8, 8, 0, 8_000, 8)
    alone = MODEL.step_fx(4_008, 8, 4_000**2, 8_000, 8) - MODEL.step_fx(8, 8, 0, 8_000, 8)
    assert mixed == pytest.approx(alone + SMALL.step_fx(4_008, 8, 4_000**2, 0, 0) - SMALL.step_fx(8, 8, 0, 0, 0), rel=1e-6)


def test_no_proposal_kept_is_a_loss_and_all_kept_for_nothing_is_almost_k_and_one():
    assert _gain(1, Speculation(None, 4, 0.0)) < 1
    free = closed_form(weights_ns=5e6)
    step = speculative_step(free, None, Speculation(None, 4, 1.0), seats=1, sequence_s=0.0)
    assert _ns(free, 1, 0) / _ns(step, 1, 0) == pytest.approx(5.0)


@given(st.integers(1, 8), st.floats(0, 1), st.floats(0, 1))
def test_more_kept_is_faster(tokens, one, other):
    low, high = sorted((one, other))
    slow, fast = (_gain(4, Speculation(None, tokens, chance)) for chance in (low, high))
    assert fast >= slow * (1 - 1e-9)


def test_the_gain_shrinks_as_batches_grow():
    """Checking is free while the weights are read, and costs its tokens where the step computes."""
    gains = [_gain(batch, Speculation(None, 4, 0.7), context=100) for batch in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)]
    assert all(later <= earlier for earlier, later in pairwise(gains))
    assert gains[0] > 1.3
    assert gains[-1] < 1.1


def test_no_step_can_come_out_below_a_nanosecond():
    """The offsets of contexts are negative; the engines are told the least a step can be."""
    for chance in (0.0, 0.7, 1.0):
        step = speculative_step(MODEL, SMALL, Speculation(None, 16, chance), seats=512, sequence_s=40e-6)
        assert step.least_fx > ONE_NS_FX
    # A head whose read is most of a step, shared by 17 proposals that are all kept.
    head = StepModel(
        tokens_fx=(0, 10 * ONE_NS_FX), sampled_fx=(0, 1_000 * ONE_NS_FX), sequence_fx=1, tokens_j=(0.0, 0.0), sampled_j=(0.0, 0.0)
    )
    assert speculative_step(head, None, Speculation(None, 16, 1.0), seats=8, sequence_s=0.0).least_fx > 0


def test_knots_of_both_models_hold():
    """A window of the model at 128 and one of the draft at 512: three stretches, each exact."""
    windowed = StepModel(
        tokens_fx=(0, 1_000_000 * ONE_NS_FX),
        token_fx=ONE_NS_FX,
        tokens_j=(0.0, 0.0),
        knots_tokens=(0, 128),
        contexts=((Context(0, 40 * ONE_NS_FX), Context(1_280 * ONE_NS_FX, 30 * ONE_NS_FX)),),
    )
    draft = StepModel(
        tokens_fx=(0, 100_000 * ONE_NS_FX),
        tokens_j=(0.0, 0.0),
        knots_tokens=(0, 512),
        contexts=((Context(0, 4 * ONE_NS_FX), Context(1_024 * ONE_NS_FX, 2 * ONE_NS_FX)),),
    )
    step = speculative_step(windowed, draft, Speculation(None, 1, 1.0), seats=4, sequence_s=0.0)
    assert step.knots_tokens == (0, 128, 512)
    for context in (100, 127, 128, 400, 512, 5_000):
        by_hand = (windowed.step_fx(2, 2, 0, 0, 0) + windowed.step_fx(1, 1, 0, context, 1) - windowed.step_fx(1, 1, 0, 0, 0)) + (
            draft.step_fx(1, 1, 0, context, 1)
        )
        assert step.step_fx(1, 1, 0, context, 1) == pytest.approx(by_hand / 2, rel=1e-9)
