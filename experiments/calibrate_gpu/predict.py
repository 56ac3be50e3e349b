"""What the catalog's step model says of a measured step, kernels alone, and the parameters that would fit what was measured."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from sim.catalog.loader import Catalog, load_catalog
from sim.domain.hardware import Engine, StepFit
from sim.perf.roofline import kernel_times, step_model
from sim.perf.steptime import ONE_NS_FX, StepModel

from .table import Row

# Names that drivers give, and the catalog's.
ACCELERATORS = {"NVIDIA H100 80GB HBM3": "h100-sxm", "NVIDIA H200": "h200-sxm"}
FITTED = ("eta_compute", "eta_weights", "eta_attention", "eta_kv", "layer_s")
TimesKey = tuple[str, str, str, int, str, int, int, int]
Times = dict[TimesKey | None, float]
# What the kernel-composed tables of the data folder call GPUs, models and types.
COMPOSED = {"h100-sxm": "h100_sxm", "llama-3.1-8b": "llama3.1-8b", "bf16": "bfloat16", "fp8": "fp8"}


@dataclass(frozen=True)
class Predicted:
    """Step time in seconds and mean power of one GPU in watts, as the catalog's fit has them."""

    step_s: float
    power_w: float


@cache
def _catalog() -> Catalog:
    return load_catalog()


def accelerator_of(row: Row) -> str:
    """Return the catalog's name of a row's GPU.

    Raises
    ------
    KeyError : the GPU is not one of `ACCELERATORS`.
    """
    if row.gpu not in ACCELERATORS:
        raise KeyError(
            f"{row.gpu!r} is not known here: add it to ACCELERATORS with its name in the catalog; known: {', '.join(ACCELERATORS)}"
        )
    return ACCELERATORS[row.gpu]


def fit_of(row: Row) -> StepFit:
    """Return the catalog's fit for the kernels of vLLM on a row's GPU in its type."""
    return _catalog().fits[f"{accelerator_of(row)}/vllm/{row.dtype}"]


def kernels_of(row: Row, fit: StepFit) -> StepModel:
    """Return the step model of a row's model for kernels alone: no engine layer, and nothing sent between GPUs."""
    return _kernels(row.model, row.layers, accelerator_of(row), row.dtype, row.tensor_parallel, fit)


@lru_cache(maxsize=64)
def _kernels(model: str, layers: int, accelerator: str, dtype: str, tensor_parallel: int, fit: StepFit) -> StepModel:
    catalog = _catalog()
    vllm = catalog.engines["vllm-2026"]
    engine = Engine("no engine", vllm.kernels, 1.0, 0.0, 0.0, 0.0, vllm.block_tokens, vllm.memory_utilization, vllm.provenance)
    return step_model(
        replace(catalog.models[model], layers=layers),
        catalog.accelerators[accelerator],
        _alone(fit),
        engine,
        weight_dtype=dtype,
        kv_dtype="bf16",
        tensor_parallel=tensor_parallel,
    )


def _alone(fit: StepFit) -> StepFit:
    """Return a fit under which nothing is sent between GPUs."""
    return replace(fit, allreduce_s=0.0, eta_link=math.inf)


def _step_s(row: Row, fit: StepFit) -> float:
    """Return the time of a row's step under a fit, from the functions behind the tables of the step model: fast for one step."""
    catalog = _catalog()
    kernels = kernel_times(
        replace(catalog.models[row.model], layers=row.layers),
        catalog.accelerators[accelerator_of(row)],
        _alone(fit),
        weight_dtype=row.dtype,
        kv_dtype="bf16",
        tensor_parallel=row.tensor_parallel,
    )
    step = (row.n, row.n_out, row.s, row.decodes, row.c / max(row.decodes, 1))
    return float(kernels.step_s(*(np.array([float(value)]) for value in step))[0])


def predicted(row: Row, fit: StepFit) -> Predicted:
    """Return step time and power of a row under a fit; power over the predicted time, of one of the row's GPUs."""
    model = kernels_of(row, fit)
    step_fx = model.step_fx(row.n, row.n_out, round(2 * row.s), row.c, row.decodes)
    step_s = step_fx / ONE_NS_FX * 1e-9
    return Predicted(
        step_s, model.step_j(step_fx, row.n, row.n_out, round(2 * row.s), row.c, row.decodes) / step_s / row.tensor_parallel
    )


def power_at(row: Row) -> float:
    """Return the power of one GPU that the catalog's power model gives for the measured step time."""
    step_fx = round(row.step_s * 1e9 * ONE_NS_FX)
    joules = kernels_of(row, fit_of(row)).step_j(step_fx, row.n, row.n_out, round(2 * row.s), row.c, row.decodes)
    return joules / row.step_s / row.tensor_parallel


def refit(rows: Sequence[Row]) -> StepFit:
    """Return the efficiencies and the time per layer that fit rows best in relative error, one GPU and type, overlap kept.

    The error is soft above 10 % (soft L1 of the logarithm), so that single kernels that are out of line do not bend the rest.
    """
    start = fit_of(rows[0])
    scale = np.array([getattr(start, name) for name in FITTED])

    def fit_at(factors: np.ndarray) -> StepFit:
        values: dict[str, Any] = dict(zip(FITTED, map(float, factors * scale), strict=True))
        return replace(start, **values)

    def residuals(factors: np.ndarray) -> np.ndarray:
        return np.array([math.log(_step_s(row, fit_at(factors)) / row.step_s) for row in rows])

    exact = {"xtol": 1e-12, "ftol": 1e-12, "gtol": 1e-12}  # so that rounded values do not depend on the machine
    best = least_squares(residuals, np.ones(len(FITTED)), bounds=(0.05, 20.0), loss="soft_l1", f_scale=0.1, **exact)
    return fit_at(best.x)


def composed_times(folder: Path) -> Times:
    """Return the kernel-composed step times of the data folder in seconds.

    Returns
    -------
    By (GPU, model, type, tensor-parallel degree, phase, batch, prefill tokens of a sequence, cached tokens of a sequence).
    """
    with (folder / "perf" / "aic_step_times.csv").open(newline="", encoding="utf-8") as stream:
        return {
            (row["gpu"], row["model"], row["w_dtype"], int(row["tp"]), row["phase"], int(row["batch"]), int(row["prefill_tokens"]),
             int(row["ctx"])): float(row["time_ms"]) / 1000
            for row in csv.DictReader(stream)
            if row["engine"] == "vllm"
        }  # fmt: skip


def key_of(row: Row) -> TimesKey | None:
    """Return the key of a row in `composed_times`; None for steps that those tables do not have."""
    gpu, model = COMPOSED.get(accelerator_of(row)), COMPOSED.get(row.model)
    if gpu is None or model is None or row.phase == "mixed":
        return None
    sizes = (row.decodes, 0, row.context) if row.phase == "decode" else (row.chunks, row.chunk_tokens, row.prior)
    return gpu, model, COMPOSED[row.dtype], row.tensor_parallel, row.phase, *sizes
