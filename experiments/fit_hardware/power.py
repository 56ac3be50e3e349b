"""`python -m experiments.fit_hardware.power`: the rows of `powers` in the catalog, and what they say of models left out.

Kinds of rows: served models at the measured step time and, with half the weight, at the catalog's own; our own steps; runs of 2023.

Power is linear in what it costs: idle power, a share of the TDP while kernels run, joules for bytes and operations. Energies are
fitted with soft L1 errors of the logarithm and a prior, which decides what a table cannot tell: the H200 was measured on one board,
the A100 by two models in 2023.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from sim.catalog.loader import load_catalog
from sim.domain.hardware import PowerFit
from sim.perf.power import KernelSeconds, step_energies
from sim.perf.roofline import WEIGHT_TYPES, step_model
from sim.perf.steptime import ONE_NS_FX, StepModel
from sim.perf.work import StepWork, step_work

from .power_rows import PowerRow, Step, calibrated, mlenergy, splitwise

Floats = NDArray[np.float64]
CATALOG = load_catalog()
FITTED = ("h100-sxm", "h200-sxm", "b200-sxm", "a100-sxm-80")
# Priors, with the standard deviations of their logarithms: bytes and operations as an H100 alone has them, by process node.
BYTE_PJ = {"h100-sxm": 103.0, "h200-sxm": 91.0, "b200-sxm": 105.0, "a100-sxm-80": 115.0}
CONTEXT_BYTE_PJ = {"h100-sxm": 150.0, "h200-sxm": 150.0, "b200-sxm": 110.0, "a100-sxm-80": 150.0}
FLOP_PJ = {"h100-sxm": 1.4, "h200-sxm": 1.3, "b200-sxm": 1.2, "a100-sxm-80": 1.6}
KERNEL = {"h100-sxm": 0.09, "h200-sxm": 0.08, "b200-sxm": 0.12, "a100-sxm-80": 0.09}
SHARED = {
    "fp8": 0.55,
    "experts_bf16": 1.0,
    "experts_fp8": 2.0,
    "experts_dequantized": 1.4,
    "experts_4bit": 0.7,
    "expert_flops": 3.0,
    "expert_kernel": 0.08,
}
SIGMAS = [0.3] * 4 + [0.4] * 4 + [0.3, 0.3, 0.3, 0.3, 0.2, 0.3, 0.3, 0.3, 0.3, 0.3, 0.5, 0.5, 0.5, 0.5, 0.5]
ERROR = 0.07  # errors of this size weigh as much as one standard deviation of a prior
# A simulation has modelled times, so that their errors are part of what power is judged by. They count half, for they change with
# the fits of step times.
MODELLED, MODELLED_WEIGHT = "mlenergy, modelled", 0.5
HELD_AT = 0.985  # of the TDP: where boards at their limit were measured


Powers = dict[str, PowerFit]


def plain_bytes(dtype: str) -> float | None:
    """Return the bytes of a weight outside the experts, None for those of the experts."""
    return 2.0 if dtype == "mxfp4" else None


@cache
def kernels_of(model: str, accelerator: str, dtype: str, tensor_parallel: int, layers: int, alone: bool) -> StepModel:
    """Return the step model of kernels alone; `alone` sends nothing between accelerators."""
    fit = CATALOG.fits[f"{accelerator}/vllm/{dtype}"]
    engine = replace(CATALOG.engines["vllm-2026"], kernel_scale=1.0, step_s=0.0, sequence_s=0.0)
    built = CATALOG.models[model]
    return step_model(
        replace(built, layers=layers) if layers else built,
        CATALOG.accelerators[accelerator],
        replace(fit, allreduce_s=0.0, eta_link=math.inf) if alone else fit,
        engine,
        weight_dtype=dtype,
        kv_dtype="bf16",
        tensor_parallel=tensor_parallel,
    )


def kernel_s(row: PowerRow, step: Step) -> float:
    """Return the time of a step's kernels, never more than the step took."""
    alone = row.source == "calibrate_gpu"
    kernels = kernels_of(row.model, row.accelerator, row.dtype, row.tensor_parallel, step.layers, alone)
    decodes = round(step.decodes)
    load = (round(step.n), round(step.n_out), round(2 * step.s), round(decodes * step.context), decodes)
    return min(kernels.step_fx(*load) / ONE_NS_FX / 1e9, step.step_s)


def work_of(row: PowerRow, step: Step) -> StepWork:
    """Return the work of one step on one accelerator."""
    weight_bytes, arithmetic = WEIGHT_TYPES[row.dtype]
    built = CATALOG.models[row.model]
    return step_work(
        replace(built, layers=step.layers) if step.layers else built,
        weight_bytes=weight_bytes,
        arithmetic=arithmetic,
        kv_bytes=2.0,
        tensor_parallel=row.tensor_parallel,
        tokens=np.array([step.n]),
        sampled=np.array([step.n_out]),
        weight_dtype=row.dtype,
        plain_weight_bytes=plain_bytes(row.dtype),
    )


def step_power_w(row: PowerRow, step: Step, power: PowerFit, held_at: float = 1.0) -> float:
    """Return the power of one accelerator in a step that took as long as it was measured, by the catalog's own functions."""
    accelerator = replace(CATALOG.accelerators[row.accelerator], power=power)
    work, seconds = _work(row, step), _kernel_s(row, step)
    window = CATALOG.models[row.model].window_tokens
    kernels = KernelSeconds(np.array([seconds]), np.zeros(1), 0.0, 0.0)
    energies = step_energies(accelerator, work, accelerators=1, kernels=kernels)
    joules = energies.tokens_j[0] + energies.sampled_j[0] + energies.attention_j * step.s
    joules += step.decodes * (energies.context_j * step.context + energies.window_j * min(step.context, window))
    used = energies.base_w + float(joules) / step.step_s
    limit = held_at * energies.tdp_w
    # A little more beyond the limit keeps the way back downhill.
    return used if used < limit else limit + (0.02 * (used - limit) if held_at < 1.0 else 0.0)


@cache
def _work(row: PowerRow, step: Step) -> StepWork:
    return work_of(row, step)


@cache
def _kernel_s(row: PowerRow, step: Step) -> float:
    return kernel_s(row, step)


def predicted_w(row: PowerRow, powers: Powers, held_at: float = 1.0) -> float:
    """Return the mean power of a row's steps at their measured times."""
    power = powers[row.accelerator]
    joules = sum(step.count * step.step_s * step_power_w(row, step, power, held_at) for step in row.steps)
    return joules / row.total_s


def powers_at(factors: Floats) -> Powers:
    """Return the parameters that are so many times their priors."""
    values = iter(factors.tolist())
    byte, context, flop, kernel = (
        {name: table[name] * next(values) for name in FITTED} for table in (BYTE_PJ, CONTEXT_BYTE_PJ, FLOP_PJ, KERNEL)
    )
    shared = {name: value * next(values) for name, value in SHARED.items()}
    rows = {}
    for name in FITTED:
        native = "fp4" in CATALOG.accelerators[name].dense_tflops
        four_bits = shared["experts_4bit"] if native else shared["experts_dequantized"]
        rows[name] = PowerFit(
            name=name,
            kernel=kernel[name],
            byte_pj=byte[name],
            context_byte_pj=context[name],
            flop_pj=flops_pj(flop[name], shared["fp8"]),
            expert_kernel=shared["expert_kernel"],
            expert_flop_factor=shared["expert_flops"],
            expert_byte_factor={"bf16": shared["experts_bf16"], "fp8": shared["experts_fp8"], "mxfp4": four_bits},
            band=0.0,
            expert_band=0.0,
            provenance=CATALOG.accelerators[name].provenance,
        )
    return rows


def flops_pj(bf16: float, fp8_share: float) -> dict[str, float]:
    """Return the energies of operations by type: half the bits cost a share, as fitted for fp8; tf32 twice bf16 (assumed)."""
    return {"tf32": 2 * bf16, "bf16": bf16, "fp8": bf16 * fp8_share, "int8": bf16 * fp8_share, "fp4": bf16 * fp8_share**2}


def fit(rows: Sequence[PowerRow]) -> Powers:
    """Return the parameters that rows and priors agree on."""
    used = [row for row in rows if row.weight > 0]
    roots = np.array([math.sqrt(row.weight) for row in used])

    def residuals(factors: Floats) -> Floats:
        powers = powers_at(factors)
        errors = [math.log(predicted_w(row, powers, HELD_AT) / row.power_w) for row in used]
        return np.concatenate([roots * np.array(errors) / ERROR, np.log(factors) / np.array(SIGMAS)])

    best = least_squares(residuals, np.ones(len(SIGMAS)), bounds=(0.05, 20.0), loss="soft_l1", xtol=1e-6, ftol=1e-6)
    return powers_at(best.x)


def errors(rows: Iterable[PowerRow], powers: Callable[[PowerRow], Powers]) -> list[tuple[PowerRow, float]]:
    """Return the relative errors of rows, positive where the prediction is too high."""
    return [(row, predicted_w(row, powers(row)) / row.power_w - 1) for row in rows]


def left_out(rows: Sequence[PowerRow]) -> list[tuple[PowerRow, float]]:
    """Return the errors of rows by parameters that were fitted without the row's model."""
    fits = {model: fit([row for row in rows if row.model != model]) for model in sorted({row.model for row in rows})}
    return errors(rows, lambda row: fits[row.model])


def all_rows() -> list[PowerRow]:
    """Return the rows of all three tables, and the serving rows at modelled times."""
    tdp_w = {name: accelerator.tdp_w for name, accelerator in CATALOG.accelerators.items()}
    measured = [*mlenergy(), *splitwise(tdp_w), *calibrated()]
    return [*measured, *at_modelled_times(measured)]


def catalog_powers() -> Powers:
    """Return the rows of the catalog by accelerator."""
    return {name: CATALOG.accelerators[name].power for name in FITTED}


def served_step(row: PowerRow) -> tuple[float, float]:
    """Return the time in seconds and the energy in joules of a serving row's mean step, as the catalog has them."""
    engine = CATALOG.engines["vllm-2025-b200" if row.accelerator == "b200-sxm" else "vllm-2025"]
    fit = CATALOG.fits[f"{row.accelerator}/{engine.kernels}/{row.dtype}"]
    kinds = {"weight_dtype": row.dtype, "kv_dtype": "bf16", "tensor_parallel": row.tensor_parallel}
    served = step_model(CATALOG.models[row.model], CATALOG.accelerators[row.accelerator], fit, engine, **kinds)  # type: ignore[arg-type]
    (step,) = row.steps
    decodes = round(step.decodes)
    load = (round(step.n), decodes, round(2 * step.s), round(decodes * step.context), decodes)
    step_fx = served.step_fx(*load)
    return step_fx / ONE_NS_FX / 1e9, served.step_j(step_fx, *load)


def software_limited(row: PowerRow) -> bool:
    """Whether a serving row takes 30 ms at any batch, whatever the model: its time is not modelled."""
    return (row.accelerator, row.task) == ("b200-sxm", "gpqa")


def at_modelled_times(rows: Iterable[PowerRow]) -> list[PowerRow]:
    """Return the serving rows with the catalog's step times in place of the measured ones: what a simulation has."""
    served = [row for row in rows if row.source == "mlenergy" and not software_limited(row)]
    return [
        replace(row, source=MODELLED, weight=MODELLED_WEIGHT, steps=(replace(row.steps[0], step_s=served_step(row)[0]),))
        for row in served
    ]


def modelled_errors(rows: Iterable[PowerRow]) -> tuple[list[tuple[PowerRow, float]], list[tuple[PowerRow, float]]]:
    """Return the relative errors of power and of energy per output token by the catalog, times included, of serving rows."""
    power, energy = [], []
    for row in rows:
        if row.source == "mlenergy" and not software_limited(row):
            step_s, joules = served_step(row)
            power.append((row, joules / step_s / row.tensor_parallel / row.power_w - 1))
            energy.append((row, joules / row.tensor_parallel / (row.power_w * row.total_s) - 1))
    return power, energy


def kind_of(row: PowerRow) -> tuple[str, str, str]:
    """Return the group in which a row is judged."""
    return row.source, row.accelerator, "experts" if CATALOG.models[row.model].experts else "dense"


def summary(found: Iterable[tuple[PowerRow, float]]) -> list[str]:
    """Return lines of a table: rows, median, 90th percentile and signed median of the errors in percent, by group."""
    lines = []
    for kind, group in groupby(sorted(found, key=lambda item: kind_of(item[0])), key=lambda item: kind_of(item[0])):
        values = 100 * np.array([error for _, error in group])
        median, high = np.median(np.abs(values)), np.quantile(np.abs(values), 0.9)
        lines.append(f"{' '.join(kind):46s} {len(values):4d} {median:6.1f} {high:6.1f} {np.median(values):+6.1f}")
    return lines


def main() -> None:
    """Print the catalog's rows and the errors, in sample and with each row's model left out."""
    rows = all_rows()
    powers = fit(rows)
    for name, power in powers.items():
        flops = {dtype: float(f"{pico:.3g}") for dtype, pico in power.flop_pj.items()}
        experts = {dtype: float(f"{factor:.3g}") for dtype, factor in power.expert_byte_factor.items()}
        print(f"{name}: kernel {power.kernel:.3f}, byte {power.byte_pj:.1f} pJ,", end=" ")
        print(f"context byte {power.context_byte_pj:.1f} pJ, flop {flops} pJ,", end=" ")
        print(f"experts: {power.expert_kernel:.3f} of the TDP, flop x {power.expert_flop_factor:.2f}, byte x {experts}")
    print(f"\n{'power at the measured time':46s} rows median    90%   bias, in sample")
    print("\n".join(summary(errors(rows, lambda _: powers))))
    print(f"\n{'':46s} rows median    90%   bias, model left out")
    print("\n".join(summary(left_out(rows))))
    print(f"\n{'by the catalog, times included':46s} rows median    90%   bias, energy of an output token")
    print("\n".join(summary(modelled_errors(rows)[1])))


if __name__ == "__main__":
    main()
