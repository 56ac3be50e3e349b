"""The capacity sheet: closed forms against worked cases, laws, and a replica stepped one step at a time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.catalog.loader import load_catalog
from sim.perf.capacity import capacity_sheet, decode_step_s, largest_batch, mixed_step_s, prefill_s, requests_per_s
from sim.perf.memory import kv_capacity
from sim.perf.roofline import step_model
from sim.perf.steptime import ONE_NS_FX, StepModel, closed_form

CATALOG = load_catalog()
H100_8B = step_model(
    CATALOG.models["llama-3.1-8b"],
    CATALOG.accelerators["h100-sxm"],
    CATALOG.fits["h100-sxm/vllm/bf16"],
    CATALOG.engines["vllm-2026"],
    weight_dtype="bf16",
    kv_dtype="bf16",
    tensor_parallel=1,
)
WHOLE = {"max_num_seqs": 256, "max_num_batched_tokens": 8192}


def test_tpot_of_a_decode_batch_worked_by_hand() -> None:
    # 2 ms a step, 10 us a token, 20 us a sequence, 5 ns a token of context: 2 + 8 x 0.03 + 8 x 1000 x 5e-6 = 2.28 ms
    step = closed_form(fixed_ns=2e6, token_ns=1e4, sequence_ns=2e4, context_ns=5.0)
    assert decode_step_s(step, 8, 1000) == pytest.approx(2.28e-3, rel=1e-9)


def test_prefill_in_chunks_worked_by_hand() -> None:
    # chunks 400, 400, 200 at 1 ms + 10 us a token, 4 ns per unit of S = p (c + p / 2), 1 ms for the sampled token
    step = closed_form(fixed_ns=1e6, token_ns=1e4, attention_ns=4.0, sequence_ns=1e6)
    s_units = 400 * 200 + 400 * 600 + 200 * 900
    assert s_units == 1000 * 500  # chunks lose nothing of the triangle
    assert prefill_s(step, 1000, 400) == pytest.approx(3e-3 + 1000 * 1e-5 + s_units * 4e-9 + 1e-3, rel=1e-9)
    assert prefill_s(step, 1000, 1000) == pytest.approx(prefill_s(step, 1000, 400) - 2e-3, rel=1e-9)


def test_throughput_worked_by_hand() -> None:
    # 64 seats, 512 in, 128 out: half of the steps carry a prompt: 64 or 576 tokens at 50 us, 64 x 576 of context at 10 ns, 4 ms
    step = closed_form(fixed_ns=4e6, token_ns=5e4, context_ns=10.0)
    step_s = 4e-3 + (64 + 576) / 2 * 5e-5 + 64 * 576 * 1e-8
    assert mixed_step_s(step, 64, 512, 128, 8192) == pytest.approx(step_s, rel=1e-9)
    assert requests_per_s(step, 64, 512, 128, 8192) == pytest.approx(64 / (128 * step_s), rel=1e-9)
    # where compute hides behind the weights until n = 100, a prompt step costs 576 units and a decode step 100, not twice the mean
    roof = closed_form(linear_ns=1e4, weights_ns=1e6)
    assert mixed_step_s(roof, 64, 512, 128, 8192) == pytest.approx((5.76e-3 + 1e-3) / 2, rel=1e-9)
    # in chunks of 256 every step has one
    assert mixed_step_s(roof, 64, 512, 128, 256) == pytest.approx(3.2e-3, rel=1e-9)


def test_cached_tokens_worked_by_hand() -> None:
    """Half of 1,000 tokens cached: 500 are processed, each seeing those before it: S = 500 x (500 + 250) = 375,000."""
    step = closed_form(fixed_ns=1e6, token_ns=1e4, attention_ns=4.0)
    assert prefill_s(step, 1000, 8192, cached_tokens=500) == pytest.approx(1e-3 + 500 * 1e-5 + 375_000 * 4e-9, rel=1e-9)
    assert prefill_s(step, 1000, 8192, cached_tokens=1000) == prefill_s(step, 1000, 8192, cached_tokens=999)
    # 10 sequences, 100 out: a tenth of the steps carries a prompt, of which 500 tokens are processed
    mean = 1e-3 + (10 + 0.1 * 500) * 1e-5 + 0.1 * 375_000 * 4e-9
    assert mixed_step_s(step, 10, 1000, 100, 8192, cached_share=0.5) == pytest.approx(mean, rel=1e-9)
    # the budget of a step holds 1 + 500 / 100 tokens for each sequence
    sheet = capacity_sheet(
        step, 10**6, prompt_tokens=1000, output_tokens=100, max_num_seqs=256, max_num_batched_tokens=600, cached_share=0.5
    )
    assert (sheet.batch, sheet.bound) == (100, "budget")


def stepped_requests_per_s(step: StepModel, seats: int, prompt: int, output: int) -> float:
    """Serve requests of one size for many steps, each seat refilled at once, seats out of phase; no budget, no KV limit."""
    generated = [output * seat // seats for seat in range(seats)]
    elapsed_fx, finished, steps = 0, 0, 20 * output
    for _ in range(steps):
        decoding = [tokens for tokens in generated if tokens > 0]
        prefills = seats - len(decoding)
        context = sum(prompt + tokens for tokens in decoding)
        elapsed_fx += step.step_fx(len(decoding) + prefills * prompt, seats, prefills * prompt**2, context, len(decoding))
        generated = [tokens + 1 for tokens in generated]
        finished += sum(tokens == output for tokens in generated)
        generated = [0 if tokens == output else tokens for tokens in generated]
    return finished / (elapsed_fx / ONE_NS_FX / 1e9)


@pytest.mark.parametrize(("seats", "prompt", "output"), [(64, 512, 128), (128, 1155, 211), (16, 100, 400)])
def test_throughput_agrees_with_a_replica_stepped_one_step_at_a_time(seats: int, prompt: int, output: int) -> None:
    # The closed form lets a seat decode while its prompt is prefilled, 1/o of its time.
    closed_form = requests_per_s(H100_8B, seats, prompt, output, 8192)
    assert closed_form == pytest.approx(stepped_requests_per_s(H100_8B, seats, prompt, output), rel=0.02)


def test_what_bounds_the_batch() -> None:
    sizes = {"prompt_tokens": 1000.0, "output_tokens": 200.0}
    kv = kv_capacity(
        CATALOG.models["llama-3.1-8b"],
        CATALOG.accelerators["h100-sxm"],
        CATALOG.engines["vllm-2026"],
        weight_dtype="bf16",
        kv_dtype="bf16",
        tensor_parallel=1,
        **WHOLE,
    )
    seats = capacity_sheet(H100_8B, kv, **sizes, **WHOLE)
    assert (seats.batch, seats.bound, seats.kv_tokens) == (256, "seats", kv.tokens)
    by_kv = capacity_sheet(H100_8B, 110_800, **sizes, **WHOLE)
    assert (by_kv.batch, by_kv.bound) == (100, "kv")  # 110,800 / (1000 + 100 + 8)
    budget = capacity_sheet(H100_8B, kv, **sizes, max_num_seqs=256, max_num_batched_tokens=600)
    assert (budget.batch, budget.bound, budget.largest_batch) == (100, "budget", 256)  # 600 / (1 + 1000/200)
    target = capacity_sheet(H100_8B, kv, **sizes, **WHOLE, tpot_target_s=0.02)
    assert target.bound == "tpot"
    assert target.tpot_s <= 0.02 < mixed_step_s(H100_8B, target.batch + 1, 1000, 200, 8192)
    hopeless = capacity_sheet(H100_8B, kv, **sizes, **WHOLE, tpot_target_s=0.001)
    assert (hopeless.batch, hopeless.requests_per_s, hopeless.bound) == (0, 0.0, "tpot")
    assert hopeless.tpot_s > 0.001


@given(st.integers(1, 8000), st.integers(1, 2000), st.integers(20_000, 500_000))
def test_little_and_the_power_limit_hold(prompt: int, output: int, kv_tokens: int) -> None:
    sheet = capacity_sheet(H100_8B, kv_tokens, prompt_tokens=prompt, output_tokens=output, **WHOLE)
    assert sheet.requests_per_s * output * sheet.tpot_s == pytest.approx(sheet.batch)  # in system = rate x time in system
    assert sheet.output_tokens_per_s == pytest.approx(sheet.requests_per_s * output)
    assert CATALOG.accelerators["h100-sxm"].idle_w < sheet.power_w <= 700 * (1 + 1e-12)
    assert sheet.batch <= sheet.largest_batch <= 256
    assert sheet.largest_batch * (prompt + output / 2 + 8) <= kv_tokens


@given(st.integers(1, 255), st.integers(1, 4000), st.integers(1, 1000))
def test_a_larger_batch_is_slower_but_serves_more(batch: int, prompt: int, output: int) -> None:
    assert mixed_step_s(H100_8B, batch + 1, prompt, output, 8192) >= mixed_step_s(H100_8B, batch, prompt, output, 8192)
    served = [requests_per_s(H100_8B, size, prompt, output, 8192) for size in (batch, batch + 1)]
    assert served[1] >= served[0] * (1 - 1e-3)  # whole tokens in a step make the rate jump a little


def test_requests_that_cannot_be_served_are_refused() -> None:
    assert largest_batch(1000, 1000, 10, 256) == 0
    with pytest.raises(ValueError, match="1000 KV tokens cannot hold a request of 1000 \\+ 10 tokens"):
        capacity_sheet(H100_8B, 1000, prompt_tokens=1000, output_tokens=10, **WHOLE)
    with pytest.raises(ValueError, match="at least 1 token"):
        capacity_sheet(H100_8B, 100_000, prompt_tokens=0.5, output_tokens=10, **WHOLE)
