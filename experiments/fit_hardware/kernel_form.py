"""Parameters of the kernel times, what is known of them before any fit, and the fit itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import least_squares

from sim.catalog.loader import Catalog
from sim.domain.hardware import Provenance, StepFit
from sim.perf.roofline import kernel_times

from .kernel_rows import Floats, Steps

# Errors beyond 5 % count linearly, so that single kernels that are out of line do not bend the rest.
SOFT = 0.05
# One standard deviation away from what was expected counts as much as one row that is off by so much.
PRIOR_WEIGHT = 0.3
UNKNOWN = Provenance("", "2026-11-23", "fitted")


@dataclass(frozen=True)
class Parameter:
    """A parameter of `StepFit` that is fitted, in its logarithm.

    Parameters
    ----------
    expected, spread : what is expected, and the standard deviation of its logarithm. most : upper bound (an efficiency: 1).
    shared : whether all weight types of an accelerator and kernel family have one value (attention, all-reduces, launches).
    """

    name: str
    expected: float
    spread: float
    shared: bool
    most: float = np.inf


DENSE = (
    Parameter("eta_compute", 0.8, 0.2, shared=False, most=1.0),
    Parameter("eta_weights", 0.87, 0.1, shared=False, most=1.0),
    Parameter("wave_columns", 5000.0, 1.0, shared=False),
    Parameter("activation_bytes", 2.2, 0.7, shared=False),
    Parameter("layer_s", 4.5e-5, 1.0, shared=False),
    Parameter("eta_attention", 0.57, 0.2, shared=True, most=1.0),
    Parameter("eta_kv", 0.93, 0.1, shared=True, most=1.0),
    Parameter("prefill_layer_s", 9e-6, 1.0, shared=True),
    Parameter("query_key_norm_s", 2e-5, 0.5, shared=True),
    Parameter("allreduce_s", 3e-6, 0.7, shared=True),
    Parameter("allreduce_growth", 1.5, 0.5, shared=True),
    Parameter("eta_link", 0.55, 0.4, shared=True, most=1.0),
    Parameter("link_growth", 1.1, 0.3, shared=True),
)
EXPERTS = (
    Parameter("eta_expert_compute", 0.7, 0.4, shared=False, most=1.0),
    Parameter("eta_expert_weights", 0.85, 0.2, shared=False, most=1.0),
    Parameter("expert_layer_s", 1.5e-5, 1.0, shared=False),
    Parameter("expert_rows", 16.0, 0.7, shared=False),
    Parameter("expert_spread", 0.7, 0.2, shared=False, most=1.0),
    Parameter("routing_bytes", 16.0, 0.5, shared=False),
)
# Computing and reading overlap almost wholly inside one product; 0 to 0.3 fit equally well.
OVERLAP = 0.15
START = StepFit(
    name="",
    overlap=OVERLAP,
    band=0.0,
    decode_band=0.0,
    prefill_band=0.0,
    mixed_band=0.0,
    expert_band=0.0,
    validity="fitted",
    provenance=UNKNOWN,
    **{parameter.name: parameter.expected for parameter in (*DENSE, *EXPERTS)},
)


def predicted_s(catalog: Catalog, steps: Steps, fit: StepFit) -> Floats:
    """Return the times of steps under a fit."""
    kernels = kernel_times(
        catalog.models[steps.model],
        catalog.accelerators[steps.accelerator],
        fit,
        weight_dtype=steps.weight_dtype,
        kv_dtype="bf16",
        tensor_parallel=steps.tensor_parallel,
    )
    return kernels.step_s(steps.tokens, steps.sampled, steps.pairs, steps.decoding, steps.mean_context)


def fit(
    catalog: Catalog,
    tables: Sequence[Steps],
    parameters: Sequence[Parameter],
    start_of: Callable[[str], StepFit],
) -> dict[str, StepFit]:
    """Return the efficiencies that fit the steps of one accelerator and kernel family best in relative error, by weight type.

    Parameters
    ----------
    start_of : weight type -> row whose other fields are kept.
    """
    types = sorted({steps.weight_dtype for steps in tables})
    places: list[tuple[Parameter, str]] = []
    for parameter in parameters:
        places += [(parameter, "")] if parameter.shared else [(parameter, dtype) for dtype in types]
    expected = np.log([parameter.expected for parameter, _ in places])
    spread = np.array([parameter.spread for parameter, _ in places])
    most = np.log([parameter.most for parameter, _ in places])
    measured = np.log(np.concatenate([steps.time_s for steps in tables]))

    def fits_at(point: Floats) -> dict[str, StepFit]:
        values: dict[str, dict[str, float]] = {dtype: {} for dtype in types}
        for (parameter, own), value in zip(places, np.exp(point).tolist(), strict=True):
            for dtype in types if parameter.shared else (own,):
                values[dtype][parameter.name] = value
        return {dtype: replace(start_of(dtype), **values[dtype]) for dtype in types}  # type: ignore[arg-type]

    def residuals(point: Floats) -> Floats:
        fits = fits_at(point)
        times = np.concatenate([predicted_s(catalog, steps, fits[steps.weight_dtype]) for steps in tables])
        return np.concatenate([np.log(times) - measured, PRIOR_WEIGHT * (point - expected) / spread])

    best = least_squares(residuals, expected, bounds=(-np.inf, most + 1e-9), loss="soft_l1", f_scale=SOFT)
    return fits_at(best.x)
