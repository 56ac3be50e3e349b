"""A limit on the power of accelerators: the clock falls until a step stays below it, and what follows the clock takes longer.

With the share f of the clock that an accelerator has at its own limit, voltage falls with the clock down to a floor, so that what
an operation costs falls as v(f) = max(f, FLOOR)^2. A part of a step that takes t, of which c follows the clock, with energies
e_clock and e_rest above the base power, draws at f::

    P(f) = base + (e_rest + e_clock v(f)) / (t - c + c / f)

Times of the catalog are times at the accelerator's own limit, so that a cap at the limit changes nothing. Every part of a step is
capped by itself (tokens, head, attention, cache): a board that may average over them would be a little faster.

Source: dynamic power is frequency times voltage squared (general knowledge); see `FLOOR` and `CLOCKED_BYTES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sim.domain.hardware import Accelerator
from sim.perf.steptime import ONE_NS_FX, Context, StepModel

Floats = NDArray[np.float64]
FX_PER_S = 1e9 * ONE_NS_FX
# Share of the own clock below which voltage no longer falls. Assumed, 2026-11-23: prefill speeds of six RTX 3090 at limits of 300
# and 250 W (llmgarage.ai/power-limit-tokens-per-second-benchmark, February 2026) come out within 3 %, at 200 of 350 W a fifth high.
FLOOR = 0.7
# Share of a byte's energy that is spent in the clocked part of the chip; the rest is in the memory and its links (assumed,
# 2026-11-23).
CLOCKED_BYTES = 0.5
# Half the peak of every arithmetic type: what a step takes longer then is what follows the clock.
SLOWED = 0.5
# A capped step bends where an uncapped one is a straight line; from here on it is one too.
TABLE_TOKENS = 8193
HALVINGS = 40


@dataclass(frozen=True)
class _Part:
    """A part of a step by size: seconds, those that follow the clock, and joules above the base power.

    `all_j` is what the step model has, which may be more than the own limit allows; `clocked_j` and `rest_j` are what it
    allows.
    """

    total_s: Floats
    clocked_s: Floats
    all_j: Floats
    clocked_j: Floats
    rest_j: Floats


def capped_step_model(build: Callable[[Accelerator], StepModel], accelerator: Accelerator, cap_w: float) -> StepModel:
    """Return the step model of a replica whose accelerators are limited to so many watts each.

    Parameters
    ----------
    build : makes the step model of the replica on an accelerator like this one. Where its times do not depend on the accelerator
        (measured tables), all of them follow the clock.
    cap_w : limit of one accelerator, above its idle power and at most its TDP.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> from sim.perf.steptime import closed_form
    >>> h100 = load_catalog().accelerators["h100-sxm"]
    >>> def computing(chip):  # half a joule in a millisecond at the full clock
    ...     slower = h100.dense_tflops["bf16"] / chip.dense_tflops["bf16"]
    ...     joules = 0.5 * chip.power.flop_pj["bf16"] / h100.power.flop_pj["bf16"]
    ...     return closed_form(token_ns=1e6 * slower, token_j=joules, base_w=128.0, tdp_w=700.0)
    >>> full, capped = computing(h100), capped_step_model(computing, h100, 400.0)
    >>> round(capped.step_fx(8, 0, 0, 0) / full.step_fx(8, 0, 0, 0), 2)
    1.22
    """
    full = build(accelerator)
    if cap_w >= accelerator.tdp_w:
        return full
    power = accelerator.power
    slowed = {name: SLOWED * peak for name, peak in accelerator.dense_tflops.items()}
    slow = build(replace(accelerator, dense_tflops=slowed, power=replace(power, expert_kernel=0.0)))
    free = replace(power, kernel=0.0, flop_pj=dict.fromkeys(power.flop_pj, 0.0))
    lean = build(replace(accelerator, power=free))
    limit_w = full.tdp_w * cap_w / accelerator.tdp_w
    cap = _Cap(full, slow, lean, limit_w)
    tokens_s, tokens_j = cap.capped(cap.tokens())
    sampled_s, sampled_j = cap.capped(cap.sampled())
    attention_s, attention_j = cap.capped(cap.attention())
    prompt_s, prompt_j = cap.capped(cap.prompt())
    return replace(
        full,
        tokens_fx=_fixed(tokens_s),
        token_fx=_fixed(tokens_s[-1:] - tokens_s[-2:-1])[0],
        tokens_j=tuple(tokens_j.tolist()),
        token_j=float(tokens_j[-1] - tokens_j[-2]),
        sampled_fx=_fixed(sampled_s),
        sequence_fx=_fixed(sampled_s[-1:] - sampled_s[-2:-1])[0],
        sampled_j=tuple(sampled_j.tolist()),
        sequence_j=float(sampled_j[-1] - sampled_j[-2]),
        attention_fx=_fixed(attention_s / 2)[0],
        attention_j=float(attention_j[0]),
        prompt_fx=_fixed(prompt_s)[0],
        prompt_j=float(prompt_j[0]),
        contexts=tuple(cap.contexts(row, decoding) for decoding, row in enumerate(full.contexts, start=1)),
        tdp_w=limit_w,
        base_w=cap.base_w,
    )


def clock_share(room_w: float, part: _Part) -> Floats:
    """Return the highest share of the clock, `FLOOR` at least, at which parts draw no more than so much above the base power."""
    low, high = np.full_like(part.total_s, FLOOR), np.ones_like(part.total_s)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        total_s = part.total_s + part.clocked_s * (1.0 / middle - 1.0)
        below = part.rest_j + part.clocked_j * middle**2 <= room_w * total_s
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.where(part.rest_j + part.clocked_j <= room_w * part.total_s, 1.0, low)


class _Cap:
    """Parts of a step model, and the same under a limit of the replica's power. `slow` draws nothing besides for experts."""

    def __init__(self, full: StepModel, slow: StepModel, lean: StepModel, limit_w: float) -> None:
        self.full, self.slow, self.lean, self.limit_w = full, slow, lean, limit_w
        # What experts draw besides is no base that a limit could not touch: it keeps its share of what the limit leaves above idle.
        share = (limit_w - slow.base_w) / (full.tdp_w - slow.base_w)
        self.base_w = slow.base_w + (full.base_w - slow.base_w) * share
        self.given = _times(slow) == _times(full)

    def part(self, total_s: Floats, slow_s: Floats, joules: Floats, bytes_j: Floats) -> _Part:
        """Return a part from its times at full and at half peak, and its energies with and without operations."""
        longer = total_s if self.given else (slow_s - total_s) * SLOWED / (1.0 - SLOWED)
        clocked_s = np.clip(longer, 0.0, np.maximum(total_s, 0.0))
        # At its own limit an accelerator already draws no more than that.
        most_j = np.minimum(joules, np.maximum((self.full.tdp_w - self.full.base_w) * total_s, 0.0))
        rest_j = np.minimum((1.0 - CLOCKED_BYTES) * bytes_j, most_j)
        return _Part(total_s, clocked_s, joules, most_j - rest_j, rest_j)

    def tokens(self) -> _Part:
        """Return the part that depends on the tokens of a step."""
        sizes = np.arange(max(TABLE_TOKENS, len(self.full.tokens_fx) + 1, len(self.slow.tokens_fx) + 1))
        times = [_along(step.tokens_fx, step.token_fx, sizes) / FX_PER_S for step in (self.full, self.slow)]
        joules = [_along(step.tokens_j, step.token_j, sizes) for step in (self.full, self.lean)]
        return self.part(*times, *joules)

    def sampled(self) -> _Part:
        """Return the part that depends on the sampled sequences."""
        sizes = np.arange(max(2, len(self.full.sampled_fx) + 1, len(self.slow.sampled_fx) + 1))
        times = [_along(step.sampled_fx, step.sequence_fx, sizes) / FX_PER_S for step in (self.full, self.slow)]
        joules = [_along(step.sampled_j, step.sequence_j, sizes) for step in (self.full, self.lean)]
        return self.part(*times, *joules)

    def attention(self) -> _Part:
        """Return the part of one unit of S."""
        times = [np.array([2 * step.attention_fx / FX_PER_S]) for step in (self.full, self.slow)]
        joules = [np.array([step.attention_j]) for step in (self.full, self.lean)]
        return self.part(*times, *joules)

    def prompt(self) -> _Part:
        """Return the part of a prompt, once a step."""
        times = [np.array([step.prompt_fx / FX_PER_S]) for step in (self.full, self.slow)]
        joules = [np.array([step.prompt_j]) for step in (self.full, self.lean)]
        return self.part(*times, *joules)

    def capped(self, part: _Part) -> tuple[Floats, Floats]:
        """Return the seconds and joules of parts under the limit."""
        room_w = self.limit_w - self.base_w
        share = clock_share(room_w, part)
        total_s = part.total_s + part.clocked_s * (1.0 / share - 1.0)
        # On the floor of the voltage a part costs the same joules at any clock: it takes as long as the limit needs for them.
        least_j = part.rest_j + part.clocked_j * FLOOR**2
        total_s = np.where(share < 1.0, np.maximum(total_s, least_j / room_w), total_s)
        # What is above the own limit shrinks with the rest: with a part that draws little, it fills a step up to the cap.
        drawn_j = part.rest_j + part.clocked_j
        left = np.divide(room_w * total_s, drawn_j, out=np.ones_like(drawn_j), where=drawn_j > 0.0)
        return total_s, part.all_j * np.clip(left, 0.0, 1.0)

    def contexts(self, row: tuple[Context, ...], decoding: int) -> tuple[Context, ...]:
        """Return the pieces of so many decoding sequences under the limit; where they met before, they meet again."""
        at = decoding - 1
        slow, lean = (step.contexts[min(at, len(step.contexts) - 1)] for step in (self.slow, self.lean))
        made: list[Context] = []
        for index, piece in enumerate(row):
            times = [np.array([one.slope_fx / FX_PER_S]) for one in (piece, slow[min(index, len(slow) - 1)])]
            joules = [np.array([one.slope_j]) for one in (piece, lean[min(index, len(lean) - 1)])]
            seconds, used_j = self.capped(self.part(*times, *joules))
            slope_fx, slope_j = _fixed(seconds)[0], float(used_j[0])
            offset_fx, offset_j = piece.offset_fx, piece.offset_j
            if made:
                last, before, tokens = made[-1], row[index - 1], self.full.knots_tokens[index] * decoding
                jump_fx = piece.offset_fx - before.offset_fx - (before.slope_fx - piece.slope_fx) * tokens
                jump_j = piece.offset_j - before.offset_j - (before.slope_j - piece.slope_j) * tokens
                offset_fx = last.offset_fx + (last.slope_fx - slope_fx) * tokens + jump_fx
                offset_j = last.offset_j + (last.slope_j - slope_j) * tokens + jump_j
            made.append(Context(offset_fx, slope_fx, offset_j, slope_j))
        return tuple(made)


def _times(step: StepModel) -> tuple[object, ...]:
    """Return what the times of steps without decoding sequences come from."""
    return step.tokens_fx, step.token_fx, step.sampled_fx, step.sequence_fx, step.attention_fx, step.prompt_fx


def _along(table: tuple[int, ...] | tuple[float, ...], slope: float, sizes: NDArray[np.int64]) -> Floats:
    """Return a table's values at sizes, on its line beyond its end."""
    values, last = np.array(table, dtype=np.float64), len(table) - 1
    along: Floats = values[np.minimum(sizes, last)] + slope * np.maximum(sizes - last, 0)
    return along


def _fixed(seconds: Floats) -> tuple[int, ...]:
    """Return times in fixed point, to the nearest."""
    return tuple(int(value) for value in np.floor(seconds * FX_PER_S + 0.5).tolist())
