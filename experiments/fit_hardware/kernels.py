"""The rows of `sim/catalog/fits.yaml`: efficiencies of kernels, and bands from models left out of the fit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from math import ceil
from pathlib import Path

import numpy as np

from sim.catalog.fit_rules import fit_key
from sim.catalog.loader import Catalog
from sim.domain.hardware import StepFit

from . import kernel_rows as rows
from .kernel_form import DENSE, EXPERTS, START, fit, predicted_s
from .kernel_rows import PHASES, Floats, Steps

SOURCE = "our fit to kernel-composed step times of aiconfigurator 0.12.0, development part (experiments/fit_hardware)"
# Kernels of experts in fp8 that nobody had tuned when the table was made, two to three times slower than bf16: not fitted
# through, and those of another family are taken (research note on hardware, trap 7).
UNTUNED = {("h100-sxm", "vllm", "fp8"): "h100-sxm/trtllm/fp8"}
# Only one model with experts has all types, so that none can be left out: bands are those in sample, wider by a factor (assumed).
EXPERT_WIDENING = 1.5
TOY = "qwen3-0.6b"


@dataclass(frozen=True)
class Errors:
    """Relative errors of step times of one row of `fits`, and the phase of each step (index in `PHASES`)."""

    error: Floats
    phase: np.ndarray  # type: ignore[type-arg]

    def of(self, phase: str) -> Floats:
        """Return the errors of one phase."""
        return self.error[self.phase == PHASES.index(phase)]


def errors(catalog: Catalog, tables: Iterable[Steps], fits: dict[str, StepFit]) -> dict[str, Errors]:
    """Return the errors of steps by weight type."""
    found: dict[str, list[tuple[Floats, np.ndarray]]] = {}  # type: ignore[type-arg]
    for steps in tables:
        error = predicted_s(catalog, steps, fits[steps.weight_dtype]) / steps.time_s - 1.0
        found.setdefault(steps.weight_dtype, []).append((error, steps.phase))
    return {
        dtype: Errors(np.concatenate([error for error, _ in parts]), np.concatenate([phase for _, phase in parts]))
        for dtype, parts in sorted(found.items())
    }


def left_out(catalog: Catalog, tables: Sequence[Steps]) -> dict[str, dict[str, Errors]]:
    """Return the errors of the steps of each model under a fit to the other models, by weight type and model."""
    found: dict[str, dict[str, Errors]] = {}
    for model in sorted({steps.model for steps in tables}):
        others = fit(catalog, [steps for steps in tables if steps.model != model], DENSE, lambda _: START)
        for dtype, part in errors(catalog, [steps for steps in tables if steps.model == model], others).items():
            found.setdefault(dtype, {})[model] = part
    return found


def pooled(parts: Iterable[Errors]) -> Errors:
    """Return the errors of several models as one."""
    kept = list(parts)
    return Errors(np.concatenate([part.error for part in kept]), np.concatenate([part.phase for part in kept]))


def quantile_90(error: Floats) -> float:
    """Return the size that 90 of 100 errors do not exceed."""
    return float(np.quantile(np.abs(error), 0.9))


def band(models: dict[str, Errors], phase: str = "") -> float:
    """Return the share that holds 90 of 100 errors of all models left out and of each that is no toy, rounded up, and a hundredth.

    The margin is for models between and beyond those of the table. The smallest one is launches alone, and counts in the pool only.

    Examples
    --------
    >>> near, far = (Errors(np.array([0.01] * 9 + [tail]), np.zeros(10, dtype=int)) for tail in (0.01, 0.4))
    >>> band({"llama-3.1-8b": near}), band({"llama-3.1-8b": near, "llama-3.1-70b": far})
    (0.02, 0.06)
    """
    parts = {name: part.of(phase) if phase else part.error for name, part in models.items()}
    each = [quantile_90(error) for name, error in parts.items() if name != TOY]
    return ceil(round(100 * max(quantile_90(np.concatenate(list(parts.values()))), *each), 6) + 1) / 100


def fitted_rows(catalog: Catalog, folder: Path) -> tuple[dict[str, StepFit], dict[str, dict[str, Errors]]]:
    """Return the rows of all accelerators, kernels and types that have tables, and the errors of models left out.

    Parameters
    ----------
    folder : of the step-time tables.
    """
    tables, kinds = rows.load(folder, rows.DENSE), {}
    for steps in tables:
        kinds.setdefault((steps.accelerator, steps.kernels), []).append(steps)
    found: dict[str, StepFit] = {}
    out: dict[str, dict[str, Errors]] = {}
    for (accelerator, kernels), own in sorted(kinds.items()):
        tested = left_out(catalog, own)
        for dtype, row in fit(catalog, own, DENSE, lambda _: START).items():
            name, models = fit_key(accelerator, kernels, dtype), tested[dtype]
            error = pooled(models.values())
            bands = {f"{phase}_band": band(models, phase) for phase in PHASES}
            notes = f"models left out: {summary(error.error)} on {len(error.error)} steps"
            found[name] = replace(row, name=name, band=band(models), notes=notes, **bands)
            out.setdefault(f"{accelerator}/{kernels}", {})[dtype] = error
    return _with_experts(catalog, folder, found), out


def _with_experts(catalog: Catalog, folder: Path, dense: dict[str, StepFit]) -> dict[str, StepFit]:
    """Return rows with the parameters of experts, fitted where there is a table and taken from elsewhere where there is none."""
    found = dict(dense)
    fitted: dict[str, StepFit] = {}
    native = rows.load(folder, rows.NATIVE_EXPERTS, native=True)
    for steps in (*rows.load(folder, rows.EXPERTS), *native):
        name = fit_key(steps.accelerator, steps.kernels, steps.weight_dtype)
        if name in fitted or (steps.accelerator, steps.kernels, steps.weight_dtype) in UNTUNED:
            continue
        plain = dense[fit_key(steps.accelerator, steps.kernels, "bf16" if steps.weight_dtype == "mxfp4" else steps.weight_dtype)]
        own = [
            other
            for other in (native if steps.weight_dtype == "mxfp4" else rows.load(folder, rows.EXPERTS))
            if (other.accelerator, other.kernels, other.weight_dtype) == (steps.accelerator, steps.kernels, steps.weight_dtype)
        ]
        row = fit(catalog, own, EXPERTS, lambda _, plain=plain: plain)[steps.weight_dtype]  # type: ignore[misc]
        error = errors(catalog, own, {steps.weight_dtype: row})[steps.weight_dtype].error
        notes = f"{plain.notes}; experts in sample: {summary(error)} on {len(error)} steps"
        fitted[name] = replace(row, name=name, expert_band=ceil(100 * EXPERT_WIDENING * quantile_90(error)) / 100, notes=notes)
    for name, row in dense.items():
        accelerator, kernels, dtype = name.split("/")
        if name in fitted:
            found[name] = fitted[name]
            continue
        donor = UNTUNED.get((accelerator, kernels, dtype), f"{accelerator}/vllm/bf16")
        given = {parameter.name: getattr(fitted[donor], parameter.name) for parameter in EXPERTS}
        wider = max(0.3, fitted[donor].expert_band)
        found[name] = replace(row, expert_band=wider, notes=f"{row.notes}; experts as {donor}", **given)
    return found | {name: row for name, row in fitted.items() if name not in found}


def summary(error: Floats) -> str:
    """Return mean, median, 95th percentile and median bias of errors in percent, as text."""
    size = 100 * np.abs(error)
    return f"{size.mean():.1f}/{np.median(size):.1f}/{np.quantile(size, 0.95):.1f} %, bias {100 * np.median(error):+.1f} %"


def as_yaml(found: dict[str, StepFit]) -> str:
    """Return rows as the catalog's file has them."""
    lines = [
        "# Efficiencies of the kernels of an engine step, keyed accelerator/kernels/weight type; meanings in `StepFit`",
        "# (sim/domain/hardware.py). Written by `python -m experiments.fit_hardware`; do not edit. Kernel-composed tables know no",
        "# engine: its share is in `engines`. Rows that are not here come of these by the rules in fit_rules.yaml.",
        "# `notes`: absolute error mean/median/p95 and median bias.",
        "fits:",
    ]
    for name, row in sorted(found.items()):
        lines.append(f"  {name}:")
        for field in fields(row):
            value = getattr(row, field.name)
            if field.name in ("name", "provenance", "notes"):
                continue
            lines.append(f"    {field.name}: {value if isinstance(value, str) else _number(value)}")
        lines += [f'    source: "{SOURCE}"', "    date: 2026-11-23", "    confidence: fitted", f'    notes: "{row.notes}"', ""]
    return "\n".join(lines)


def _number(value: float) -> str:
    """Return a number with four digits, in YAML's way to write floats."""
    text = f"{value:.4g}"
    return text if "e" not in text or "." in text else text.replace("e", ".0e")
