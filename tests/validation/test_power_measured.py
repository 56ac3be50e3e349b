"""Power and energy per token against served models and measured steps; the bounds are what was measured, plus a small margin."""

from __future__ import annotations

from collections import defaultdict
from functools import cache

import numpy as np
import pytest

from experiments.fit_hardware.power import (
    CATALOG,
    FITTED,
    MODELLED,
    all_rows,
    catalog_powers,
    errors,
    fit,
    kind_of,
    modelled_errors,
)
from experiments.fit_hardware.power_rows import DATA, PowerRow

pytestmark = pytest.mark.validation

Kind = tuple[str, str, str]
Errors = list[tuple[PowerRow, float]]


@cache
def measured() -> tuple[PowerRow, ...]:
    """All rows with a measured power."""
    for file in ("mlenergy_serving_power.csv", "splitwise_step_times.csv"):
        if not (DATA / file).is_file():
            pytest.skip(f"{file} is not in the folder named by BILLCAST_DATA")
    return tuple(all_rows())


def by_kind(found: Errors) -> dict[Kind, np.ndarray]:
    """Errors by source, accelerator and kind of model."""
    groups: dict[Kind, list[float]] = defaultdict(list)
    for row, error in found:
        groups[kind_of(row)].append(error)
    return {kind: np.array(group) for kind, group in groups.items()}


@cache
def at_measured_times() -> dict[Kind, np.ndarray]:
    """Errors of the catalog's power in steps that took as long as they were measured."""
    powers = catalog_powers()
    return by_kind(errors(measured(), lambda _: powers))


MEDIANS = {
    ("calibrate_gpu", "h100-sxm", "dense"): 0.025,
    ("calibrate_gpu", "h200-sxm", "dense"): 0.025,
    ("mlenergy", "h100-sxm", "dense"): 0.04,
    ("mlenergy", "h100-sxm", "experts"): 0.095,
    ("mlenergy", "b200-sxm", "dense"): 0.065,
    ("mlenergy", "b200-sxm", "experts"): 0.065,
    ("mlenergy, modelled", "h100-sxm", "dense"): 0.08,
    ("mlenergy, modelled", "h100-sxm", "experts"): 0.11,
    ("mlenergy, modelled", "b200-sxm", "dense"): 0.095,
    ("mlenergy, modelled", "b200-sxm", "experts"): 0.065,
    ("splitwise", "a100-sxm-80", "dense"): 0.055,
}


@pytest.mark.parametrize("kind", MEDIANS, ids=" ".join)
def test_power_of_a_step(kind: Kind) -> None:
    found = at_measured_times()[kind]
    assert np.median(np.abs(found)) <= MEDIANS[kind]
    assert abs(np.median(found)) <= (0.08 if MODELLED in kind else 0.04)


def test_power_of_all_served_rows_at_the_measured_time() -> None:
    served = np.concatenate([found for kind, found in at_measured_times().items() if kind[0] == "mlenergy"])
    assert len(served) == 297
    assert np.median(np.abs(served)) <= 0.065
    assert abs(np.median(served)) <= 0.02


@pytest.mark.parametrize("kind", MEDIANS, ids=" ".join)
def test_printed_bands_hold_nine_of_ten(kind: Kind) -> None:
    power = CATALOG.accelerators[kind[1]].power
    band = power.expert_band if kind[2] == "experts" else power.band
    assert np.mean(np.abs(at_measured_times()[kind]) <= band) >= 0.9


def test_the_catalog_is_what_the_fit_gives() -> None:
    powers, catalog = fit(measured()), catalog_powers()
    for name in FITTED:
        made, kept = powers[name], catalog[name]
        for field in ("kernel", "byte_pj", "context_byte_pj", "expert_kernel", "expert_flop_factor"):
            assert getattr(made, field) == pytest.approx(getattr(kept, field), rel=0.05), (name, field)
        for dtype in CATALOG.accelerators[name].dense_tflops:
            assert made.flop_pj[dtype] == pytest.approx(kept.flop_pj[dtype], rel=0.06), (name, dtype)
        for dtype, factor in made.expert_byte_factor.items():
            assert factor == pytest.approx(kept.expert_byte_factor[dtype], rel=0.05), (name, dtype)


LEFT_OUT = {
    "qwen3-8b": {"h100-sxm": 0.06, "b200-sxm": 0.12},
    "llama-3.1-8b": {"h100-sxm": 0.095, "b200-sxm": 0.07},
    "llama-3.1-405b": {"h100-sxm": 0.06, "b200-sxm": 0.08},
    "llama-4-scout": {"h100-sxm": 0.08},
}


@pytest.mark.parametrize("model", LEFT_OUT)
def test_power_of_a_model_that_was_left_out(model: str) -> None:
    rows = [row for row in measured() if row.source == "mlenergy" and row.model == model]
    powers = fit([row for row in measured() if row.model != model])
    for (_, accelerator, _), found in by_kind(errors(rows, lambda _: powers)).items():
        assert np.median(np.abs(found)) <= LEFT_OUT[model][accelerator], accelerator


def test_energy_per_token_at_modelled_times() -> None:
    """Here the error of the step time is part of it: a step that is too short has too little idle power in it."""
    found = by_kind(modelled_errors(measured())[1])
    dense = {kind[1]: np.median(np.abs(group)) for kind, group in found.items() if kind[2] == "dense"}
    assert dense["h100-sxm"] <= 0.075
    assert dense["b200-sxm"] <= 0.10


def test_power_at_modelled_times() -> None:
    found = by_kind(modelled_errors(measured())[0])
    dense = {kind[1]: np.median(np.abs(group)) for kind, group in found.items() if kind[2] == "dense"}
    assert dense["h100-sxm"] <= 0.11
    assert dense["b200-sxm"] <= 0.11
