"""Fits the engine layer of the eager stacks of 2023 to prompt and token times of Splitwise, and judges it on degrees left out.

    python -m experiments.fit_hardware.eager_layer [--data DIR]

Such stacks launch every kernel of every step from the host. The accelerator works meanwhile, so a step takes its kernels or its
launches, whichever is longer, and a time per token for element-wise work that is not fused. Kernels are those of the catalog.
Nothing is written: the constants go into `sim/catalog/engines.yaml` by hand.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from benchmarks.measured.kernels import step_ms
from benchmarks.measured.published import EAGER, prompt_load, splitwise_rows, token_load
from benchmarks.measured.replicas import replica_of
from benchmarks.measured.report import tables_folder
from experiments.fit_hardware.engine_layer import band, errors, wider

Floats = npt.NDArray[np.float64]
NAMES = ("step_s", "sequence_s", "token_s", "launch_layer_s")
START, UPPER = np.array([8e-3, 300e-6, 50e-6, 300e-6]), np.array([60e-3, 2e-3, 1e-3, 1e-3])
SMALL = 0.1


def said(rows: Floats, constants: Floats) -> Floats:
    """Return prompt and token times in seconds, shape (2, rows).

    Parameters
    ----------
    rows : layers, batch, tokens, and kernels of the prompt and of a token in seconds.
    """
    layers, batch, tokens, prompt, token = rows.T[:5]
    step, sequence, each, launch = constants
    least = layers * launch
    first = np.maximum(prompt, least) + step + sequence * batch + each * tokens
    return np.stack([first, np.maximum(token, least) + step + (sequence + each) * batch])


def solve(rows: Floats, truth: Floats) -> Floats:
    """Return the constants by soft least squares of the logarithm of both times."""

    def residuals(constants: Floats) -> Floats:
        return np.log(said(rows, constants) / truth).ravel()

    solved = least_squares(residuals, START, bounds=(np.zeros(4), UPPER), x_scale=START, loss="soft_l1", f_scale=SMALL)
    return np.asarray(solved.x)


def fit(folder: Path, hardware: str) -> dict[str, Any]:
    """Return constants, errors and bands of the stack on one accelerator; each tensor-parallel degree is left out in turn."""
    rows, truth = [], []
    for _, row, times in splitwise_rows(folder, hardware):
        replica = replica_of(row.model, hardware, "vllm", "bf16", row.tensor_parallel, bare=True)
        prompt, token = (step_ms(replica.step, *load) / 1e3 for load in (prompt_load(row), token_load(row)))
        rows.append((replica.model.layers, row.batch, row.batch * row.prompt, prompt, token, row.tensor_parallel))
        truth.append((times[0] / 1e3, times[1] / 1e3))
    table, measured = np.array(rows), np.array(truth).T
    constants = solve(table, measured)
    own = measured / said(table, constants) - 1
    left = np.full_like(own, np.nan)
    for degree in sorted(set(table[:, 5])):
        out = table[:, 5] == degree
        left[:, out] = measured[:, out] / said(table[out], solve(table[~out], measured[:, ~out])) - 1
    degrees = table[:, 5].astype(str)
    return {
        "rows": len(table),
        **dict(zip(NAMES, map(float, constants.round(7)), strict=True)),
        **{
            name: {"in sample": errors(own[at]), "degree left out": errors(left[at])} for at, name in enumerate(("prompt", "token"))
        },
        "ttft_band": wider(band(own[0], degrees), band(left[0], degrees)),
        "tpot_band": wider(band(own[1], degrees), band(left[1], degrees)),
    }


def main() -> None:
    """Fit the stacks of both accelerators."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = Path(os.environ.get("BILLCAST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=data, help="folder with perf/*.csv (default BILLCAST_DATA or ../shared/data)")
    folder = tables_folder(parser.parse_args().data)
    for hardware, engine in EAGER.items():
        print(engine, json.dumps(fit(folder, hardware), indent=2))


if __name__ == "__main__":
    main()
