"""Step models from tables of measured or exported step times, interpolated linearly.

Costs are piecewise affine in tokens and in context, so that straight lines between measured points are the natural choice
(research note on hardware, section 2.4: on a grid twice coarser, linear 4.2 % mean error, bilinear in logarithms 6.7 %).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from sim.domain.hardware import Engine
from sim.perf.steptime import ONE_NS_FX, Context, StepModel, fx
from sim.perf.table_reader import DECODE, PREFILL, StepRow

Floats = NDArray[np.float64]
Cost = Callable[[StepRow], float]
MEASURED = "measured"
SECONDS_PER_FX = 1e-9 / ONE_NS_FX
# At most this share of a prefill is taken for attention: what is left is the linear layers.
MOST_ATTENTION = 0.9


@dataclass(frozen=True)
class _Surface:
    """A cost of steps (seconds or joules) in the shape of a step model.

    Parameters
    ----------
    attention : per unit of S. tokens : of n tokens beside attention, at index n.
    offset, slope : what decoding adds to that for b sequences from each knot on, at [b - 1, knot]: offset + slope C.
    """

    attention: float
    tokens: Floats
    offset: Floats
    slope: Floats


def table_step_model(
    base: StepModel, rows: Sequence[StepRow], engine: Engine, *, accelerators: int, idle_w: float, tokens: int, sequences: int
) -> StepModel:
    """Return the step model that goes through the points of a table.

    - A step of B decoding sequences costs what the table says: linear in the mean context between its contexts, linear in B between
      its batches, and on in the same lines beyond them.
    - A prefill of n tokens costs f(n) + a S: a is the slope of cost over S between rows that differ in cached tokens alone (that of
      the base model where there are none), f is linear between the n of the table and never falls.
    - A mixed step costs f(n) + a S and what the decode table has above f(B): both share one read of the weights, as f has it.

    The engine's layer comes on top, as with the roofline. Energy is power times time where the table has power, else the base
    model's joules for tokens, sequences, S and contexts.

    Parameters
    ----------
    base : roofline of the same deployment. rows : of the table (`sim.perf.table_reader`). accelerators : of a replica; their powers
        add up. idle_w : power of one accelerator while the engine works and no kernel runs.
    tokens, sequences : tokens and decoding sequences of the largest step.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> rows = [StepRow("decode", b, 1, c, 0.004 + 1e-5 * b + 1e-8 * b * c) for b in (1, 64) for c in (0, 4096)]
    >>> rows += [StepRow("prefill", 1, n, 0, 0.004 + 1e-5 * n) for n in (16, 2048)]
    >>> bare = load_catalog().engines["bare"]
    >>> step = table_step_model(StepModel(), rows, bare, accelerators=1, idle_w=100.0, tokens=2048, sequences=64)
    >>> round(step.step_fx(32, 32, 0, 32 * 1000, 32) * SECONDS_PER_FX, 6)  # 4 + 0.32 + 0.32 ms
    0.00464
    """
    knots = tuple(sorted({0, *base.knots_tokens, *(row.context for row in rows if row.phase == DECODE)}))
    scale = engine.kernel_scale
    times = _surface(rows, lambda row: scale * row.time_s, knots, tokens, sequences, base)
    if rows[0].power_w is None:
        pieces = [[base.context_piece(b, b * knot)[0] for knot in knots] for b in range(1, sequences + 1)]
        joules = _Surface(
            base.attention_j,
            np.array([base.tokens_energy_j(n) for n in range(tokens + 1)]),
            np.array([[piece.offset_j for piece in row] for row in pieces]),
            np.array([[piece.slope_j for piece in row] for row in pieces]),
        )
        base_w, engine_j, sequence_j = base.base_w, 0.0, base.sampled_energy_j(sequences) / sequences
        prompt_j = base.prompt_j
    else:
        joules = _surface(rows, lambda row: scale * accelerators * (row.power_w or 0.0) * row.time_s, knots, tokens, sequences)
        base_w, engine_j = 0.0, accelerators * idle_w * engine.step_s
        sequence_j, prompt_j = accelerators * idle_w * engine.sequence_s, 0.0
    return StepModel(
        tokens_fx=tuple(fx(1e9 * (cost_s + engine.step_s)) for cost_s in times.tokens.tolist()),
        token_fx=fx(1e9 * float(times.tokens[-1] - times.tokens[-2])),
        sequence_fx=fx(1e9 * engine.sequence_s),
        attention_fx=fx(1e9 * times.attention / 2),
        knots_tokens=knots,
        contexts=tuple(
            tuple(
                Context(round(1e9 * ONE_NS_FX * offset_s), fx(1e9 * slope_s), offset_j, slope_j)
                for offset_s, slope_s, offset_j, slope_j in zip(*costs, strict=True)
            )
            for costs in zip(*(table.tolist() for table in (times.offset, times.slope, joules.offset, joules.slope)), strict=True)
        ),
        tokens_j=tuple((joules.tokens + engine_j).tolist()),
        token_j=float(joules.tokens[-1] - joules.tokens[-2]),
        sequence_j=sequence_j,
        attention_j=joules.attention,
        prompt_j=prompt_j,
        tdp_w=base.tdp_w,
        base_w=base_w,
        validity=MEASURED,
    )


def _surface(
    rows: Sequence[StepRow], cost: Cost, knots: tuple[int, ...], tokens: int, sequences: int, base: StepModel | None = None
) -> _Surface:
    """Return a cost of the rows as a surface; `base` knows the attention where the rows do not tell it."""
    prefills = [row for row in rows if row.phase == PREFILL]
    attention = _attention(prefills, cost, 0.0 if base is None else 2 * base.attention_fx * SECONDS_PER_FX)
    linear = _linear(prefills, cost, attention, tokens)
    decode, beyond = _decode([row for row in rows if row.phase == DECODE], cost, knots, sequences)
    # Costs of the mean context; the sum of contexts grows by b for each token of it.
    steps = np.diff(np.array(knots, dtype=np.float64))
    per_token = np.column_stack([np.diff(decode, axis=1) / steps, beyond])
    batches = np.arange(1, sequences + 1)
    offset = decode - per_token * np.array(knots) - linear[np.minimum(batches, tokens)][:, None]
    return _Surface(attention, linear, offset, per_token / batches[:, None])


def _attention(prefills: Sequence[StepRow], cost: Cost, otherwise: float) -> float:
    """Return the cost of a unit of S, from rows that differ in their cached tokens alone."""
    alike = defaultdict(list)
    for row in prefills:
        alike[row.sequences, row.tokens].append(row)
    # Least squares through the origin of relative errors: every pair of rows counts the same.
    products = squares = 0.0
    for rows in alike.values():
        for one, other in combinations(rows, 2):
            more, weight = _s(other) - _s(one), 1.0 / (cost(one) * cost(other))
            products += weight * more * (cost(other) - cost(one))
            squares += weight * more**2
    found = max(products / squares, 0.0) if squares else otherwise
    return min([found, *(MOST_ATTENTION * cost(row) / _s(row) for row in prefills)])


def _s(row: StepRow) -> float:
    """S of a prefill: sum over its sequences of p (c + p / 2)."""
    return row.sequences * row.tokens * (row.context + row.tokens / 2)


def _linear(prefills: Sequence[StepRow], cost: Cost, attention: float, tokens: int) -> Floats:
    """Return the cost of 0 to `tokens` tokens without attention: means of the rows, and straight lines between them."""
    found = defaultdict(list)
    for row in prefills:
        found[row.sequences * row.tokens].append(cost(row) - attention * _s(row))
    sizes = np.array(sorted(found), dtype=np.float64)
    costs = np.maximum.accumulate([float(np.mean(found[int(size)])) for size in sizes])
    line: Floats = np.interp(np.arange(tokens + 1), sizes, costs)
    if tokens > sizes[-1]:
        last = int(sizes[-1])
        line[last + 1 :] = costs[-1] + (costs[-1] - costs[-2]) / (sizes[-1] - sizes[-2]) * np.arange(1, tokens - last + 1)
    return line


def _decode(rows: Sequence[StepRow], cost: Cost, knots: tuple[int, ...], sequences: int) -> tuple[Floats, Floats]:
    """Return the cost of decoding at [b - 1, knot], and its slope beyond the last knot at b - 1."""
    points: dict[int, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        points[row.sequences][row.context].append(cost(row))
    batches = sorted(points)
    measured = {}
    for batch in batches:
        contexts = np.array(sorted(points[batch]), dtype=np.float64)
        costs = np.maximum.accumulate([float(np.mean(points[batch][int(context)])) for context in contexts])
        measured[batch] = contexts, costs, np.diff(costs) / np.diff(contexts)
    # A batch that was measured at one context grows with the sum of contexts as the others do on average.
    per_token = float(np.mean([slopes.mean() / batch for batch, (_, _, slopes) in measured.items() if len(slopes)]))
    values, beyond = [], []
    for batch, (contexts, costs, own_slopes) in measured.items():
        slopes = own_slopes if len(own_slopes) else np.array([per_token * batch])
        line = np.interp(knots, contexts, costs)
        outside = np.array(knots, dtype=np.float64)
        line = np.where(outside < contexts[0], costs[0] + slopes[0] * (outside - contexts[0]), line)
        line = np.where(outside > contexts[-1], costs[-1] + slopes[-1] * (outside - contexts[-1]), line)
        values.append(np.maximum(line, 0.0))
        beyond.append(slopes[-1])
    wanted = np.arange(1, sequences + 1)
    table = np.column_stack([_across(wanted, batches, [value[knot] for value in values]) for knot in range(len(knots))])
    return np.maximum.accumulate(table, axis=1), np.maximum(_across(wanted, batches, beyond), 0.0)


def _across(wanted: NDArray[np.int64], batches: Sequence[int], values: Sequence[float]) -> Floats:
    """Return values between batches on straight lines, and on in the last line beyond the largest, never falling there."""
    line: Floats = np.interp(wanted, batches, values)
    slope = max((values[-1] - values[-2]) / (batches[-1] - batches[-2]), 0.0)
    return np.where(wanted > batches[-1], values[-1] + slope * (wanted - batches[-1]), line)
