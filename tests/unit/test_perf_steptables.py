"""The tables of a step model: what they say, what they say beyond their ends, and what they refuse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.perf.steptime import FRACTION_BITS, NO_LIMIT, ONE_NS_FX, Context, StepModel, closed_form

NS = ONE_NS_FX


def model(**changes: object) -> StepModel:
    """Tokens 100, 110, 130 ns, then 5 ns each; sequences 0, 7 ns, then 2 ns each; a knot at a mean context of 10 tokens."""
    tables: dict[str, object] = {
        "tokens_fx": (0, 100 * NS, 110 * NS, 130 * NS),
        "token_fx": 5 * NS,
        "sampled_fx": (0, 7 * NS),
        "sequence_fx": 2 * NS,
        "attention_fx": 3 * NS,
        "knots_tokens": (0, 10),
        "contexts": (
            (Context(0, NS, 0.0, 0.5), Context(10 * NS, 0, 5.0, 0.0)),
            (Context(NS, 2 * NS, 0.0, 0.0), Context(41 * NS, 0, 0.0, 0.0)),
        ),
        "tokens_j": (0.0, 1.0, 2.0, 4.0),
        "token_j": 0.5,
        "sampled_j": (0.0, 0.25),
        "sequence_j": 0.125,
        "attention_j": 8.0,
        "tdp_w": 1e12,
    }
    return StepModel(**{**tables, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("load", "expected_ns"),
    [
        ((1, 0, 0, 0, 0), 100),
        ((3, 1, 0, 0, 0), 130 + 7),
        ((5, 4, 0, 0, 0), 130 + 2 * 5 + 7 + 3 * 2),
        ((2, 0, 4, 0, 0), 110 + 4 * 3),
        ((1, 1, 0, 9, 1), 100 + 7 + 9),
        ((1, 1, 0, 10, 1), 100 + 7 + 10),
        ((1, 1, 0, 99, 1), 100 + 7 + 10),
        ((2, 2, 0, 19, 2), 110 + 9 + 1 + 2 * 19),
        ((2, 2, 0, 20, 2), 110 + 9 + 41),
        ((3, 3, 0, 29, 3), 130 + 11 + 1 + 2 * 29),
    ],
)
def test_times_worked_by_hand(load: tuple[int, ...], expected_ns: int) -> None:
    assert model().step_fx(*load) == expected_ns << FRACTION_BITS


def test_energies_worked_by_hand() -> None:
    step = model()
    assert step.step_j(NS, 5, 3, 4, 6, 1) == pytest.approx(4.0 + 2 * 0.5 + 0.25 + 2 * 0.125 + 8.0 * 2 + 6 * 0.5)
    assert step.step_j(NS, 1, 1, 0, 30, 1) == pytest.approx(1.0 + 0.25 + 5.0)
    assert model(tdp_w=2.0, base_w=1.0).step_j(10**9 * NS, 1, 0, 0, 0) == pytest.approx(2.0)
    assert model(tdp_w=2.0, base_w=0.5).step_j(10**9 * NS, 1, 0, 0, 0) == pytest.approx(1.5)


@given(st.integers(1, 4), st.integers(0, 200))
def test_a_piece_holds_for_as_many_steps_as_it_says_and_no_more(decoding: int, context: int) -> None:
    step = model()
    piece, steps = step.context_piece(decoding, context)
    if steps == NO_LIMIT:
        assert context >= 10 * decoding
        return
    assert step.context_piece(decoding, context + (steps - 1) * decoding)[0] == piece
    assert step.context_piece(decoding, context + steps * decoding)[0] != piece


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tokens_j": (0.0,)}, "of one length"),
        ({"sampled_j": (0.0,)}, "of one length"),
        ({"knots_tokens": (1, 10)}, "start at 0"),
        ({"knots_tokens": (0, 0)}, "ascend"),
        ({"contexts": ((Context(),),)}, "one piece for each of the 2 knots"),
        ({"contexts": ()}, "one piece for each"),
        ({"token_fx": -1}, "cannot fall"),
        ({"contexts": ((Context(0, -1), Context()),)}, "cannot fall"),
    ],
)
def test_tables_that_make_no_sense_are_refused(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        model(**changes)


def test_context_needs_a_sequence() -> None:
    with pytest.raises(ValueError, match="without a sequence"):
        model().step_fx(1, 1, 0, 5)


@given(st.lists(st.integers(1, 1_000), min_size=1, max_size=6), st.integers(0, 50), st.integers(-300, 300), st.integers(0, 9))
def test_no_step_is_shorter_than_the_least(times: list[int], token: int, offset: int, slope: int) -> None:
    tables = {"tokens_fx": (0, *times), "tokens_j": (0.0,) * (len(times) + 1), "token_fx": token, "sampled_fx": (0, 3)}
    rows = ((Context(offset, slope), Context(slope, 0)), (Context(), Context(offset, slope)))
    step = StepModel(**tables, sampled_j=(0.0, 0.0), knots_tokens=(0, 4), contexts=rows)  # type: ignore[arg-type]
    loads = [(n, out, 0, context * decoding, decoding) for n in range(1, 12) for out in (0, 1, 5) for decoding in range(n + 1)
             for context in (0, 3, 4, 9)]  # fmt: skip
    shortest = min(step.step_fx(n, out, s, context, decoding) for n, out, s, context, decoding in loads)
    assert step.least_fx == shortest


@given(st.floats(0, 100), st.floats(0, 5_000), st.sampled_from([0.0, 0.4, 1.0]), st.integers(1, 2_000))
def test_the_closed_form_is_its_formula(linear_ns: float, weights_ns: float, overlap: float, n: int) -> None:
    step = closed_form(linear_ns=linear_ns, weights_ns=weights_ns, overlap=overlap, fixed_ns=50.0, token_ns=2.0, sequence_ns=3.0)
    by_hand_ns = max(linear_ns * n, weights_ns) + overlap * min(linear_ns * n, weights_ns) + 50.0 + 2.0 * n + 3.0
    assert len(step.tokens_fx) <= 2**16 + 1
    if weights_ns <= 2**16 * linear_ns or linear_ns == 0.0:
        # Half a unit in the table, and another for each token beyond it.
        assert step.step_fx(n, 1, 0, 0) / ONE_NS_FX == pytest.approx(by_hand_ns, abs=(n + 2) / ONE_NS_FX, rel=1e-12)
