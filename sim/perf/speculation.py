"""Speculative decoding: a draft proposes k tokens, the model checks them all in one step and keeps those it would have said.

With a the chance that a proposal is kept when those before it were, a step yields 1 + a + ... + a^k tokens of each sequence, the
last of which is the model's own. It costs a step of B (k + 1) tokens and k steps of the draft.

Engines make one token of each sequence a step. So the table of a speculating replica says how long one token takes: the time of
checking and proposing, over the tokens that come of it. That is exact for the mean of pure decoding; prompts among it cost what
they would without (`speculative_step`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sim.domain.models import Model
from sim.perf.steptime import LONGEST_TABLE, ONE_NS_FX, Context, StepModel

# Chance that a proposal is kept: low, usual, high (research note on hardware, section 7, read 2026-11-23, assumed).
ACCEPTANCE = (0.6, 0.7, 0.8)


@dataclass(frozen=True)
class Speculation:
    """Who proposes, how many tokens, and the chance that one is kept.

    Parameters
    ----------
    draft : the small model; None looks proposals up in the prompt (n-grams), which costs nothing. tokens : k, proposals a step.
    acceptance : a, the chance that a proposal is kept when those before it were.
    """

    draft: Model | None
    tokens: int = 4
    acceptance: float = ACCEPTANCE[1]

    @property
    def tokens_per_step(self) -> float:
        """Tokens that a step yields for each sequence."""
        return tokens_per_step(self.acceptance, self.tokens)


def tokens_per_step(acceptance: float, tokens: int) -> float:
    """Return the mean tokens of a step: (1 - a^(k + 1)) / (1 - a).

    Parameters
    ----------
    acceptance : a, from 0 to 1. tokens : k, proposals a step.

    Source: Leviathan and others, arXiv 2211.17192, equation 1 (from memory); it assumes that proposals are kept independently.

    Examples
    --------
    >>> tokens_per_step(0.5, 2), tokens_per_step(0.0, 4), tokens_per_step(1.0, 4)
    (1.75, 1.0, 5.0)
    """
    if acceptance >= 1.0:
        return tokens + 1.0
    return float((1.0 - acceptance ** (tokens + 1)) / (1.0 - acceptance))


def speculative_step(
    target: StepModel, draft: StepModel | None, speculation: Speculation, *, seats: int, sequence_s: float
) -> StepModel:
    """Return the step model of a replica that speculates, one token of each sequence a step.

    With E tokens a step of checking, B sequences and their context C::

        T(B, C) = [T_model(n = B (k + 1), n_out = B (k + 1), C) + sum over i < k of T_draft(n = B, n_out = B, C + i B)] / E

    in which the engine's time is that of the B E tokens that are kept, not of the B (k + 1) that are checked. What this is more or
    less than a step of the model alone stands in the contexts' offsets, which may be below 0. Prompts are prefilled by both models.

    Parameters
    ----------
    target, draft : of the model and of its draft, None for proposals that cost nothing. seats : most sequences.
    sequence_s : the engine's time for a sampled token (sampling, text, streaming), which is in `target`.

    Examples
    --------
    >>> from sim.perf.steptime import ONE_NS_FX, closed_form
    >>> model, small = closed_form(fixed_ns=10_000.0, token_ns=100.0), closed_form(fixed_ns=1_000.0)
    >>> half = Speculation(None, tokens=2, acceptance=0.5)  # 1.75 tokens a step
    >>> step = speculative_step(model, small, half, seats=8, sequence_s=0.0)
    >>> step.step_fx(4, 4, 0, 4_000, 4) / ONE_NS_FX  # (10,000 + 4 x 3 x 100 + 2 x 1,000) / 1.75
    7542.857142448425
    """
    one_over = 1.0 / speculation.tokens_per_step
    drafting = StepModel() if draft is None else draft
    tokens_fx, tokens_j, token_fx, token_j = _both_process(target, drafting)
    # Shares of what the model alone samples (its head is read once for all proposals): with the whole of it, the least that a table
    # promises could fall below 0 (`StepModel.least_fx`). A prompt that is completed beside others samples a little too cheaply.
    sampled_fx = tuple(round(time * one_over) for time in target.sampled_fx)
    step = StepModel(
        tokens_fx=tokens_fx,
        token_fx=token_fx,
        sampled_fx=sampled_fx,
        sequence_fx=round(target.sequence_fx * one_over),
        attention_fx=target.attention_fx + drafting.attention_fx,
        prompt_fx=target.prompt_fx + drafting.prompt_fx,
        tokens_j=tokens_j,
        token_j=token_j,
        sampled_j=tuple(energy * one_over for energy in target.sampled_j),
        sequence_j=target.sequence_j * one_over,
        attention_j=target.attention_j + drafting.attention_j,
        prompt_j=target.prompt_j + drafting.prompt_j,
        tdp_w=target.tdp_w,
        base_w=target.base_w,
        validity="assumed",
    )
    knots = tuple(sorted({*target.knots_tokens, *drafting.knots_tokens}))
    rows = tuple(
        tuple(_context(step, target, drafting, speculation, decoding, knot, sequence_s) for knot in knots)
        for decoding in range(1, min(seats, LONGEST_TABLE) + 1)
    )
    return replace(step, knots_tokens=knots, contexts=rows)


def _both_process(target: StepModel, draft: StepModel) -> tuple[tuple[int, ...], tuple[float, ...], int, float]:
    """Return the tables of tokens of two models that both process every token of a prompt, and how they go on."""
    last = max(len(target.tokens_fx), len(draft.tokens_fx))
    times = tuple(target.tokens_time_fx(n) + draft.tokens_time_fx(n) for n in range(last))
    energies = tuple(target.tokens_energy_j(n) + draft.tokens_energy_j(n) for n in range(last))
    return times, energies, target.token_fx + draft.token_fx, target.token_j + draft.token_j


def _decode_fx(step: StepModel, sequences: int) -> int:
    """Return the fixed-point time of so many tokens that decode, each of its own sequence, without contexts."""
    return step.tokens_time_fx(sequences) + step.sampled_time_fx(sequences)


def _decode_j(step: StepModel, sequences: int) -> float:
    return step.tokens_energy_j(sequences) + step.sampled_energy_j(sequences)


def _context(
    step: StepModel, target: StepModel, draft: StepModel, speculation: Speculation, decoding: int, knot: int, sequence_s: float
) -> Context:
    """Return what B sequences with a mean context from `knot` on add to the step without contexts."""
    proposals, one_over = speculation.tokens, 1.0 / speculation.tokens_per_step
    checked = decoding * (proposals + 1)
    longer = decoding * proposals * (proposals - 1) // 2  # the sum over the draft's steps of what the context has grown by
    own, _ = target.context_piece(decoding, knot * decoding)
    small, _ = draft.context_piece(decoding, knot * decoding)
    dropped = decoding * (proposals + 1 - speculation.tokens_per_step)
    check_fx = _decode_fx(target, checked) + own.offset_fx - round(dropped * sequence_s * 1e9 * ONE_NS_FX)
    draft_fx = _decode_fx(draft, decoding) + small.offset_fx
    alone_fx = _decode_fx(step, decoding)
    check_j = _decode_j(target, checked) + own.offset_j
    draft_j = _decode_j(draft, decoding) + small.offset_j
    alone_j = _decode_j(step, decoding)
    return Context(
        offset_fx=round((check_fx + proposals * draft_fx + small.slope_fx * longer) * one_over) - alone_fx,
        slope_fx=round((own.slope_fx + proposals * small.slope_fx) * one_over),
        offset_j=(check_j + proposals * draft_j + small.slope_j * longer) * one_over - alone_j,
        slope_j=(own.slope_j + proposals * small.slope_j) * one_over,
    )
