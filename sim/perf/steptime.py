"""Step time and step energy of one replica: tables and one sum, shared by every engine.

Per engine step: n tokens processed (prefill chunks plus one per decoding sequence), n_out sequences sampled, B of them decoding,
S = sum over prefill chunks of p (c + p/2) with c tokens already in the cache, C = sum of decode contexts::

    T = tokens[n] + sampled[n_out] + attention 2S + context(B, C) + (prompt, if n > B)

`tokens` and `sampled` are tables, affine beyond their ends, so that any dependence on the size of a step costs an engine one load.
`context` is affine in C between knots of the mean context C / B, with constants of its own for every B. A step in which not all
tokens decode has the launches of prefill, `prompt`, once.

Times are integers in fixed point (2^-20 ns), so that sums associate and no two engines can differ.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from math import ceil
from typing import NamedTuple

FRACTION_BITS = 20
ONE_NS_FX = 1 << FRACTION_BITS
NO_LIMIT = 1 << 62
# The roofline's corner lies at some hundred tokens; a table longer than this is cut, and goes on as it ends.
LONGEST_TABLE = 1 << 16


class Context(NamedTuple):
    """What the contexts C of B decoding sequences add to a step, from one knot to the next: offset + slope C.

    Parameters
    ----------
    offset_fx, slope_fx : fixed-point time, and time per token of C. offset_j, slope_j : joules, and joules per token of C.
    """

    offset_fx: int = 0
    slope_fx: int = 0
    offset_j: float = 0.0
    slope_j: float = 0.0


NOTHING = Context()


@dataclass(frozen=True)
class StepModel:
    """Time and energy of a step of one (model, accelerator, engine, arithmetic type, tensor-parallel degree).

    Parameters
    ----------
    tokens_fx : fixed-point time at index n; from its end on, `token_fx` for each token more.
    sampled_fx : fixed-point time at index n_out; from its end on, `sequence_fx` for each sequence more.
    attention_fx : fixed-point time per unit of 2 S. prompt_fx : fixed-point time of a step with tokens of a prompt, once.
    knots_tokens : mean contexts at which the constants of `contexts` change, ascending, the first 0.
    contexts : at index B - 1, the constants from each knot on; the last entry holds for more sequences too.
    tokens_j, token_j, sampled_j, sequence_j, prompt_j : energy above `base_w`, as the times. attention_j : per unit of S.
    tdp_w : power limit of the whole replica. base_w : power of an engine that steps, before everything else.
    validity : "fitted", "transferred" or "assumed", of the parameters behind the constants.
    band : share by which a time may be off, either way, in 90 of 100 steps; 0 where it is not known.

    Raises
    ------
    ValueError : tables of time and energy that differ in length, knots that do not start at 0 and ascend, or a time that falls
        where a table goes on, with attention or with context.

    Examples
    --------
    >>> model = StepModel(tokens_fx=(0, 1_000 << 20), token_fx=10 << 20, tokens_j=(0.0, 0.0))
    >>> model.step_fx(n=5, n_out=1, s_twice=0, context=0) >> FRACTION_BITS
    1040
    """

    tokens_fx: tuple[int, ...] = field(default=(0,), repr=False)
    token_fx: int = 0
    sampled_fx: tuple[int, ...] = field(default=(0,), repr=False)
    sequence_fx: int = 0
    attention_fx: int = 0
    prompt_fx: int = 0
    knots_tokens: tuple[int, ...] = (0,)
    contexts: tuple[tuple[Context, ...], ...] = field(default=((NOTHING,),), repr=False)
    tokens_j: tuple[float, ...] = field(default=(0.0,), repr=False)
    token_j: float = 0.0
    sampled_j: tuple[float, ...] = field(default=(0.0,), repr=False)
    sequence_j: float = 0.0
    attention_j: float = 0.0
    prompt_j: float = 0.0
    tdp_w: float = 0.0
    base_w: float = 0.0
    validity: str = "assumed"
    band: float = 0.0

    def __post_init__(self) -> None:
        if len(self.tokens_fx) != len(self.tokens_j) or len(self.sampled_fx) != len(self.sampled_j):
            raise ValueError("tables of time and of energy are of one length")
        knots = self.knots_tokens
        if knots[0] != 0 or list(knots) != sorted(set(knots)):
            raise ValueError(f"knots {knots} must start at 0 and ascend")
        if not self.contexts or any(len(pieces) != len(knots) for pieces in self.contexts):
            raise ValueError(f"each number of sequences needs one piece for each of the {len(knots)} knots")
        slopes = [
            self.token_fx,
            self.sequence_fx,
            self.attention_fx,
            self.prompt_fx,
            *(piece.slope_fx for row in self.contexts for piece in row),
        ]
        if min(slopes) < 0:
            raise ValueError(f"a time cannot fall as a step grows: slope {min(slopes)}")

    @cached_property
    def least_fx(self) -> int:
        """Shortest fixed-point time of a step of at least one token."""
        times = [self.tokens_fx[0] + self.token_fx] if len(self.tokens_fx) == 1 else list(self.tokens_fx[1:])
        for at in range(len(times) - 2, -1, -1):
            times[at] = min(times[at], times[at + 1])
        least = times[0]
        for decoding, row in enumerate(self.contexts, start=1):
            tokens = times[decoding - 1] if decoding <= len(times) else times[-1] + (decoding - len(times)) * self.token_fx
            for knot, piece in zip(self.knots_tokens, row, strict=True):
                least = min(least, tokens + piece.offset_fx + piece.slope_fx * knot * decoding)
        return least + min(self.sampled_fx)

    def context_piece(self, decoding: int, context: int) -> tuple[Context, int]:
        """Return the constants that hold for so many sequences with so long contexts in all, and for how many steps.

        Parameters
        ----------
        decoding, context : B and C. Each step adds B to C.

        Returns
        -------
        the piece, and the number of steps until C / B reaches the next knot (`NO_LIMIT` from the last knot on).

        Raises
        ------
        ValueError : a context without decoding sequences.
        """
        if decoding == 0:
            if context:
                raise ValueError(f"{context} tokens of context without a sequence that decodes")
            return NOTHING, NO_LIMIT
        knots, pieces = self.knots_tokens, self.contexts[min(decoding, len(self.contexts)) - 1]
        at = 0
        while at + 1 < len(knots) and context >= knots[at + 1] * decoding:
            at += 1
        if at + 1 == len(knots):
            return pieces[at], NO_LIMIT
        return pieces[at], (knots[at + 1] * decoding - context + decoding - 1) // decoding

    def piece(self, n: int, n_out: int, s_twice: int, context: int, decoding: int) -> tuple[int, int, int]:
        """Return (A, slope_fx, k_max): T_fx = A + slope_fx C holds for the next k_max steps of the same batch.

        Parameters
        ----------
        n, n_out : tokens processed and sequences sampled in the step.
        s_twice : 2 S, an integer: sum over chunks of p (2 c + p). context, decoding : C and B.
        """
        piece, steps = self.context_piece(decoding, context)
        constant = self.tokens_time_fx(n) + self.sampled_time_fx(n_out) + self.attention_fx * s_twice + piece.offset_fx
        return constant + (self.prompt_fx if n > decoding else 0), piece.slope_fx, steps

    def step_fx(self, n: int, n_out: int, s_twice: int, context: int, decoding: int = 0) -> int:
        """Return the fixed-point time of one step.

        Parameters
        ----------
        n, n_out, s_twice : as in `piece`. context, decoding : C and B; without decoding sequences there is no context.
        """
        constant, slope, _ = self.piece(n, n_out, s_twice, context, decoding)
        return constant + slope * context

    def tokens_time_fx(self, n: int) -> int:
        """Return the fixed-point time of n tokens, whoever they belong to, without attention and contexts."""
        last = len(self.tokens_fx) - 1
        return self.tokens_fx[n] if n <= last else self.tokens_fx[last] + (n - last) * self.token_fx

    def sampled_time_fx(self, n_out: int) -> int:
        """Return the fixed-point time of sampling n_out sequences."""
        last = len(self.sampled_fx) - 1
        return self.sampled_fx[n_out] if n_out <= last else self.sampled_fx[last] + (n_out - last) * self.sequence_fx

    def tokens_energy_j(self, n: int) -> float:
        """Return the energy of n tokens above the base power, without attention and contexts."""
        last = len(self.tokens_j) - 1
        return self.tokens_j[n] if n <= last else self.tokens_j[last] + (n - last) * self.token_j

    def sampled_energy_j(self, n_out: int) -> float:
        """Return the energy of sampling n_out sequences above the base power."""
        last = len(self.sampled_j) - 1
        return self.sampled_j[n_out] if n_out <= last else self.sampled_j[last] + (n_out - last) * self.sequence_j

    def step_j(self, step_fx: int, n: int, n_out: int, s_twice: int, context: int, decoding: int = 0) -> float:
        """Return the energy of one step of so long in joules, clipped at the power limit.

        Source of the form: utilisation model of power, P/TDP = min(1, base + memory + compute terms), times T.
        """
        seconds = step_fx * (1e-9 / ONE_NS_FX)
        piece, _ = self.context_piece(decoding, context)
        context_j = piece.offset_j + piece.slope_j * context
        sizes_j = self.tokens_energy_j(n) + self.sampled_energy_j(n_out) + (self.prompt_j if n > decoding else 0.0)
        used = self.base_w * seconds + sizes_j + self.attention_j * (0.5 * s_twice) + context_j
        limit = self.tdp_w * seconds
        return used if used < limit else limit


def fx(time_ns: float) -> int:
    """Return a time in fixed point, to the nearest.

    Examples
    --------
    >>> fx(1.5) == 3 << 19
    True
    """
    return int(time_ns * ONE_NS_FX + 0.5)


def closed_form(
    *,
    linear_ns: float = 0.0,
    weights_ns: float = 0.0,
    overlap: float = 0.0,
    attention_ns: float = 0.0,
    token_ns: float = 0.0,
    fixed_ns: float = 0.0,
    sequence_ns: float = 0.0,
    context_ns: float = 0.0,
    tdp_w: float = 0.0,
    base_w: float = 0.0,
    weights_j: float = 0.0,
    token_j: float = 0.0,
    sequence_j: float = 0.0,
    attention_j: float = 0.0,
    context_j: float = 0.0,
    validity: str = "assumed",
) -> StepModel:
    """Return the step model of a roofline with constants of one's own: with x = linear n and w = weights::

        T = max(x, w) + overlap min(x, w) + attention S + token n + fixed + sequence n_out + context C

    Parameters
    ----------
    linear_ns : compute per token. weights_ns : one read of the weights. overlap : 0 for perfect overlap of the two, 1 for none.
    attention_ns : per unit of S. token_ns : per token. fixed_ns : per step. sequence_ns : per sampled sequence.
    context_ns : per token of decode context.
    tdp_w, base_w, validity : as in `StepModel`. weights_j, token_j, sequence_j, attention_j, context_j : energy per step, n, n_out,
        S and C.

    Examples
    --------
    >>> model = closed_form(linear_ns=10.0, weights_ns=25.0, overlap=0.5)
    >>> [model.step_fx(n, 0, 0, 0) / ONE_NS_FX for n in (1, 2, 3, 1_000)]
    [30.0, 35.0, 42.5, 10012.5]
    """
    # The last entry is at the corner or just beyond it, on the line with which the table goes on.
    last = 0 if linear_ns == 0.0 else ceil(min(weights_ns / linear_ns, LONGEST_TABLE))

    def tokens_ns(n: int) -> float:
        compute = linear_ns * n
        roof = compute + overlap * weights_ns if compute > weights_ns else weights_ns + overlap * compute
        return roof + token_ns * n + fixed_ns

    return StepModel(
        tokens_fx=tuple(fx(tokens_ns(n)) for n in range(last + 1)),
        token_fx=fx(linear_ns + token_ns),
        sequence_fx=fx(sequence_ns),
        attention_fx=fx(attention_ns / 2),
        contexts=((Context(0, fx(context_ns), 0.0, context_j),),),
        tokens_j=tuple(weights_j + token_j * n for n in range(last + 1)),
        token_j=token_j,
        sequence_j=sequence_j,
        attention_j=attention_j,
        tdp_w=tdp_w,
        base_w=base_w,
        validity=validity,
    )
