"""Step time and step energy of one replica: eight constants and one formula, shared by every engine.

Per engine step: n tokens processed (prefill chunks plus one per decoding sequence), n_out sequences sampled,
S = sum over prefill chunks of p (c + p/2) with c tokens already in the cache, C = sum of decode contexts. With
x = linear n + head n_out and w = weights, both in nanoseconds::

    T = max(x, w) + overlap min(x, w) + attention S + token n + fixed + sequence n_out + context C

Times are integers in fixed point (2^-20 ns), so that sums associate and no two engines can differ:
`T_fx = A + slope_fx C` with `A = int(T_without_C 2^20 + 0.5)`.
"""

from __future__ import annotations

from dataclasses import dataclass

FRACTION_BITS = 20
ONE_NS_FX = 1 << FRACTION_BITS
NO_LIMIT = 1 << 62


@dataclass(frozen=True)
class StepModel:
    """Constants of one (model, accelerator, engine, arithmetic type, tensor-parallel degree).

    Parameters
    ----------
    linear_ns, head_ns : compute per token and per sampled sequence. weights_ns : one read of the weights.
    overlap : kappa, 0 for perfect overlap of the two, 1 for none.
    attention_ns : per unit of S. token_ns : per token (element-wise traffic, all-reduce). context_ns : per unit of C (KV read).
    fixed_ns : per step (launches, all-reduce latency, engine). sequence_ns : per sampled sequence (engine).
    tdp_w : power limit of the whole replica. base_w : power of an engine that steps, before memory and compute terms.
    weights_j, token_j, head_j, attention_j, context_j : energy per step, n, n_out, S and C above `base_w`.
    batch_fx : for a model that is served in whole batches: measured time of a batch of n items at n - 1, in fixed point, in place
        of the formula. Empty for the formula.
    validity : "fitted", "transferred" or "assumed", of the parameters behind the constants.

    Examples
    --------
    >>> model = StepModel(token_ns=1_000.0)
    >>> model.step_fx(n=5, n_out=1, s_twice=0, context=0) >> FRACTION_BITS
    5000
    """

    linear_ns: float = 0.0
    head_ns: float = 0.0
    weights_ns: float = 0.0
    overlap: float = 0.0
    attention_ns: float = 0.0
    token_ns: float = 0.0
    fixed_ns: float = 0.0
    sequence_ns: float = 0.0
    context_ns: float = 0.0
    tdp_w: float = 0.0
    base_w: float = 0.0
    weights_j: float = 0.0
    token_j: float = 0.0
    head_j: float = 0.0
    attention_j: float = 0.0
    context_j: float = 0.0
    batch_fx: tuple[int, ...] = ()
    validity: str = "assumed"

    @property
    def slope_fx(self) -> int:
        """Fixed-point time per unit of decode context."""
        return int(self.context_ns * ONE_NS_FX + 0.5)

    def piece(self, n: int, n_out: int, s_twice: int) -> tuple[int, int, int]:
        """Return (A, slope_fx, k_max): T_fx = A + slope_fx C holds for the next k_max steps of the same batch.

        Parameters
        ----------
        n, n_out : tokens processed and sequences sampled in the step.
        s_twice : 2 S, an integer: sum over chunks of p (2 c + p).
        """
        if self.batch_fx:
            return self.batch_fx[n - 1], self.slope_fx, NO_LIMIT
        compute = self.linear_ns * n + self.head_ns * n_out
        read = self.weights_ns
        roof = compute + self.overlap * read if compute > read else read + self.overlap * compute
        total = roof + self.attention_ns * (0.5 * s_twice) + self.token_ns * n + self.fixed_ns + self.sequence_ns * n_out
        return int(total * ONE_NS_FX + 0.5), self.slope_fx, NO_LIMIT

    def step_fx(self, n: int, n_out: int, s_twice: int, context: int) -> int:
        """Return the fixed-point time of one step."""
        without_context, slope, _ = self.piece(n, n_out, s_twice)
        return without_context + slope * context

    def step_j(self, step_fx: int, n: int, n_out: int, s_twice: int, context: int) -> float:
        """Return the energy of one step in joules, clipped at the power limit.

        Source of the form: utilisation model of power, P/TDP = min(1, base + memory + compute terms), times T.
        """
        seconds = step_fx * (1e-9 / ONE_NS_FX)
        used = (
            self.base_w * seconds
            + self.weights_j
            + self.token_j * n
            + self.head_j * n_out
            + self.attention_j * (0.5 * s_twice)
            + self.context_j * context
        )
        limit = self.tdp_w * seconds
        return used if used < limit else limit
