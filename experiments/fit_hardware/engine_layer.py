"""Fits the engine layer (constants per step, sequence and layer; front end) to served latencies, through our own engine.

    python -m experiments.fit_hardware.engine_layer [--data DIR] [--keep]

prints, for every engine row of the catalog, fitted constants, errors in sample and with each architecture left out, and the bands
that hold nine of ten rows of architectures left out. The constants go into `sim/catalog/engines.yaml` by hand.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from benchmarks.measured import energy, serving
from benchmarks.measured.reading import NotCoveredError, number, read_table
from benchmarks.measured.replicas import Replica, built
from benchmarks.measured.report import tables_folder
from benchmarks.measured.serving import ServingRow
from benchmarks.pages import keep

Floats = npt.NDArray[np.float64]
ROUNDS = 2
MOST_OF_A_MODEL = 48  # rows of a model and weight type, evenly spread over the table
SMALL = 0.08  # relative error from which on a row counts by its size, no more by its square
# Order of the constants: s, o_0, o_s, and per layer with experts and of latent attention; seconds but the first.
NAMES = ("kernel_scale", "step_s", "sequence_s", "expert_layer_s", "latent_layer_s")
LOWER, UPPER = np.array([0.7, 0.0, 0.0, 0.0, 0.0]), np.array([1.3, 0.02, 300e-6, 200e-6, 200e-6])
SCALE = np.array([1.0, 1e-3, 50e-6, 10e-6, 10e-6])
# What is expected, and within what: where a model is alone, what its layers cost and what its steps cost cannot be told apart.
EXPECTED, EXPECTED_WITHIN = np.array([1.0, 1e-3, 30e-6, 0.0, 0.0]), np.array([0.05, 1e-3, 1.0, 500e-6, 500e-6])
LIKE_WITHIN = np.array([0.05, 1e-3, 20e-6, 20e-6, 20e-6])
LIKE = {"sglang-0.5-b200": "sglang-0.5", "trtllm-1-b200": "trtllm-1", "vllm-2025-b200": "vllm-2025", "vllm-2026-b200": "vllm-2026"}
# Rows with one architecture cannot be judged without it; their band is at least that of a row with several.
SEVERAL = {"vllm-2026": "vllm-2025", "vllm-2026-b200": "vllm-2025-b200", "trtllm-1-b200": "trtllm-1"}
QUIET_CLIENTS = 16  # up to so many, waiting for a prompt in front is a small part of TTFT
BAND = (0.05, 0.95)


@dataclass(frozen=True)
class Measured:
    """One measured row: `load` is a closed loop, or a running batch in steady state.

    Parameters
    ----------
    tpot_s, ttft_s : measured; TTFT None where it is not.
    """

    replica: Replica
    load: ServingRow | energy.RunningBatch
    tpot_s: float
    ttft_s: float | None

    @property
    def group(self) -> str:
        """Model and weight type, what is left out as a whole."""
        return f"{self.replica.model.name} {self.replica.weight_dtype}"

    @property
    def architecture(self) -> str:
        """What is left out as a whole: DeepSeek-V3 and R1 are one, whatever their weights."""
        model = self.replica.model
        return f"{model.layers} x {model.hidden}, {model.experts} experts"

    @property
    def counts(self) -> Floats:
        """How often a step pays o_0, and what is per layer with experts and of latent attention."""
        model = self.replica.model
        return np.array([1.0, model.moe_layers, model.layers if model.kv_latent else 0])

    def simulated(self, constants: Floats) -> tuple[float, float, float]:
        """Return TPOT and TTFT without a front end, in seconds, and the mean running sequences."""
        replica = under(self.replica, tuple(map(float, constants)))
        if isinstance(self.load, ServingRow):
            found = serving.serve_on(replica, self.load)
            return found.tpot_s, found.ttft_s, found.running
        load = self.load
        time_s, _ = energy.steady_state(replica, load.batch, load.context, load.prompt, load.output)
        return time_s, float("nan"), load.batch


@lru_cache(maxsize=4096)
def under(old: Replica, constants: tuple[float, ...]) -> Replica:
    """Return a replica under other constants of its engine, without a front end."""
    layer = dict(zip(NAMES, constants, strict=True))
    engine = replace(old.engine, front_end_s=0.0, **layer)
    return built(old.model, old.accelerator, old.fit, engine, old.weight_dtype, old.kv_dtype, old.tensor_parallel)


def ambiguous(text: dict[str, str]) -> bool:
    """Whether a row is left out of the fit, although it is compared.

    DeepSeek-R1 under SGLang 0.5.9: the table holds most configurations twice, 15 to 50 % apart, with nothing that tells them apart
    (one looks like multi-token prediction). GLM-5: the cost of choosing what its sparse attention looks at is not modelled.
    """
    twice = text["model_path"].endswith("DeepSeek-R1") and text["backend"] == "sglang" and text["backend_version"] == "0.5.9"
    return (twice and text["precision"] == "fp8") or "GLM-5" in text["model_path"]


def measured_rows(folder: Path) -> dict[str, list[Measured]]:
    """Return the rows by engine row of the catalog, each configuration once, without those that are left out."""
    found: dict[str, dict[Any, Measured]] = defaultdict(dict)
    for _, text in read_table(folder, "silicon_serving_ttft_tpot", ()):
        try:
            row = serving.serving_row(text)
            replica = serving.replica_of_row(row)
            if serving.left_out(text, row, replica) is None and not ambiguous(text):
                tpot, ttft = number(text["silicon_tpot_ms"]), number(text["silicon_ttft_ms"])
                if tpot is not None:
                    key = (row, tpot, ttft)
                    found[replica.engine.name][key] = Measured(
                        replica, row, tpot / 1e3, None if ttft is None or serving.one_by_one(row) else ttft / 1e3
                    )
        except NotCoveredError:
            continue
    for _, text in read_table(folder, "mlenergy_serving_power", ()):
        try:
            batch = energy.running_batch(text)
        except NotCoveredError:
            continue
        iteration = number(text["iter_ms"])
        if iteration is not None and energy.left_out(text, batch) is None:
            found[batch.replica.engine.name][text["model"], *text.values()] = Measured(batch.replica, batch, iteration / 1e3, None)
    return {engine: _spread(list(rows.values())) for engine, rows in sorted(found.items())}


def _spread(rows: Sequence[Measured]) -> list[Measured]:
    """Return at most `MOST_OF_A_MODEL` rows of each model and weight type, evenly spread."""
    groups: dict[str, list[Measured]] = defaultdict(list)
    for row in rows:
        groups[row.group].append(row)
    kept = []
    for group in groups.values():
        at = np.unique(np.linspace(0, len(group) - 1, MOST_OF_A_MODEL).round().astype(int))
        kept += [group[index] for index in at]
    return kept


def parts(rows: Sequence[Measured], constants: Floats) -> tuple[Floats, Floats]:
    """Return what each row's TPOT has of each constant, and its TTFT without a front end.

    Returns
    -------
    shapes (rows, 5) and (rows,): time per token is taken as the product of the first and the constants, kernels for s.
    """
    found = np.array([row.simulated(constants) for row in rows])
    often = np.insert(np.stack([row.counts for row in rows]), 1, found[:, 2], axis=1)
    kernels = (found[:, 0] - often @ constants[1:]) / constants[0]
    return np.column_stack([kernels, often]), found[:, 1]


def solve(factors: Floats, truth: Floats, weight: Floats, expected: Floats, within: Floats) -> Floats:
    """Return the constants that make factors @ constants meet the truth, by soft least squares of the logarithm."""

    def residuals(constants: Floats) -> Floats:
        said = np.log(np.maximum(factors @ constants, 1e-6) / truth)
        return np.concatenate([weight * said, SMALL * (constants - expected) / within])

    start = np.clip(expected, LOWER + 1e-9, UPPER - 1e-9)
    solved = least_squares(residuals, start, bounds=(LOWER, UPPER), x_scale=SCALE, loss="soft_l1", f_scale=SMALL)
    return np.asarray(solved.x)


def fit(rows: Sequence[Measured], like: Floats | None = None) -> dict[str, Any]:
    """Return constants, errors and bands of one engine row.

    Parameters
    ----------
    like : constants of the same engine on another generation of accelerators, which it should be like.
    """
    truth = np.array([row.tpot_s for row in rows])
    groups = np.array([row.group for row in rows])
    counts = {group: int((groups == group).sum()) for group in sorted(set(groups))}
    # Each model counts by the root of its rows, so that the one with most rows does not decide alone.
    weight = np.array([counts[group] ** -0.25 for group in groups])
    prior = (EXPECTED, EXPECTED_WITHIN) if like is None else (like, LIKE_WITHIN)
    constants = prior[0]
    for _ in range(ROUNDS):
        factors, _ = parts(rows, constants)
        constants = solve(factors, truth, weight, *prior)
    constants = np.array([round(constants[0], 3), round(constants[1], 5), *(round(value, 7) for value in constants[2:])])
    factors, first = parts(rows, constants)
    ttft = np.array([row.ttft_s or np.nan for row in rows])
    quiet = np.array([isinstance(row.load, ServingRow) and row.load.clients <= QUIET_CLIENTS for row in rows]) & np.isfinite(ttft)
    front_end_s = _front_end_s(ttft, first, quiet, 0.04)
    models = np.array([row.architecture for row in rows])
    left_tpot, left_ttft = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
    for model in sorted(set(models)):
        out = models == model
        if not out.all():
            other = solve(factors[~out], truth[~out], weight[~out], *prior)
            left_tpot[out] = truth[out] / (factors[out] @ other) - 1
            left_ttft[out] = ttft[out] / (first[out] + _front_end_s(ttft, first, quiet & ~out, front_end_s)) - 1
    own_tpot, own_ttft = truth / (factors @ constants) - 1, ttft / (first + front_end_s) - 1
    return {
        "rows": len(rows),
        "models": len(set(models)),
        **dict(zip(NAMES, map(float, constants), strict=True)),
        "front_end_s": front_end_s,
        "tpot": errors(own_tpot),
        "tpot_left_out": errors(left_tpot),
        "ttft": errors(own_ttft),
        "ttft_left_out": errors(left_ttft),
        "tpot_band": wider(band(own_tpot, models), band(left_tpot, models)),
        "ttft_band": wider(band(own_ttft, models), band(left_ttft, models)),
        "by_model": {
            group: {"in sample": errors(own_tpot[groups == group]), "left out": errors(left_tpot[groups == group])}
            for group in counts
        },
    }


def wider(one: list[float], other: list[float]) -> list[float]:
    """Return the band that holds both."""
    return [max(pair) for pair in zip(one, other, strict=True)] if one and other else one or other


def _front_end_s(ttft: Floats, first: Floats, quiet: npt.NDArray[np.bool_], otherwise: float) -> float:
    """Return the front end that meets half of the quiet rows from above."""
    return round(max(float(np.median((ttft - first)[quiet])), 0.0), 4) if quiet.any() else otherwise


def errors(ratio: Floats) -> dict[str, float]:
    """Return rows, median and p90 of the absolute error and the median signed error, in percent, of measured over simulated - 1."""
    error = 100 * (1 / (1 + ratio[np.isfinite(ratio)]) - 1)
    if not len(error):
        return {"rows": 0}
    return {
        "rows": len(error),
        "median": round(float(np.median(np.abs(error))), 1),
        "p90": round(float(np.quantile(np.abs(error), 0.9)), 1),
        "bias": round(float(np.median(error)), 1),
    }


def band(ratio: Floats, groups: npt.NDArray[np.str_]) -> list[float]:
    """Return how far below and above nine of ten measured values lie, as shares of the simulated one.

    Nine of ten rows, and nine of ten where every group counts the same: the wider of the two.

    Parameters
    ----------
    ratio : measured over simulated - 1, NaN where there is none. groups : of each row, for instance its architecture.

    Examples
    --------
    >>> rows = np.array([0.0] * 97 + [0.5] * 3)
    >>> band(rows, np.array(["one"] * 100)), band(rows, np.array(["one"] * 97 + ["other"] * 3))
    ([0.01, 0.01], [0.01, 0.5])
    """
    there = np.isfinite(ratio)
    if not there.any():
        return []
    order = np.argsort(ratio[there])
    values, names = ratio[there][order], groups[there][order]
    ends = []
    for weight in (np.ones(len(values)), np.array([1.0 / (names == name).sum() for name in names])):
        reached = (np.cumsum(weight) - weight / 2) / weight.sum()
        ends.append(np.interp(BAND, reached, values))
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    return [round(float(max(-low, 0.01)), 2), round(float(max(high, 0.01)), 2)]


def main() -> None:
    """Fit every engine row that has measured rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = Path(os.environ.get("BILLCAST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=data, help="folder with perf/*.csv (default BILLCAST_DATA or ../shared/data)")
    parser.add_argument("--engine", help="only this row")
    parser.add_argument("--keep", action="store_true", help="keep the result in benchmarks/kept and in the table of the page")
    arguments = parser.parse_args()
    found = {}
    for engine, rows in measured_rows(tables_folder(arguments.data)).items():
        if arguments.engine in (None, engine):
            like = found.get(LIKE.get(engine, ""))
            found[engine] = fit(rows, None if like is None else np.array([like[name] for name in NAMES]))
            if found[engine]["models"] == 1 and (several := found.get(SEVERAL.get(engine, ""))):
                for name in ("tpot_band", "ttft_band"):
                    found[engine][name] = wider(found[engine][name], several[name])
            print(engine, json.dumps(found[engine], indent=2))
    if arguments.keep:
        keep("engine_layer", {"date": datetime.now(UTC).date().isoformat(), "engines": found})


if __name__ == "__main__":
    main()
