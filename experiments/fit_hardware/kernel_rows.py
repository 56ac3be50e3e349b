"""Rows of kernel-composed step times, as what is in a step."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# What the tables call accelerators, models and weight types, and the catalog's names.
ACCELERATORS = {"a100_sxm": "a100-sxm-80", "h100_sxm": "h100-sxm", "b200_sxm": "b200-sxm", "l40s": "l40s"}
DENSE = {"llama3.1-8b": "llama-3.1-8b", "llama3.1-70b": "llama-3.1-70b", "qwen3-8b": "qwen3-8b", "qwen3-0.6b": "qwen3-0.6b"}
EXPERTS = {"qwen3-30b-a3b": "qwen3-30b-a3b"}
NATIVE_EXPERTS = {"gpt-oss-120b": "gpt-oss-120b"}
WEIGHT_TYPES = {
    "bfloat16": "bf16",
    "fp8": "fp8",
    "sq": "w8a8",
    "int8_wo": "int8_wo",
    "int4_wo": "int4_wo",
    "nvfp4": "nvfp4",
}
PHASES = ("decode", "prefill", "mixed")


@dataclass(frozen=True)
class Steps:
    """Steps of one (accelerator, kernels, model, weight type, tensor-parallel degree); arrays of one length.

    Parameters
    ----------
    tokens, sampled, pairs, decoding, mean_context : n, n_out, S, B and C / B. time_s : of the kernels. phase : index in `PHASES`.
    """

    accelerator: str
    kernels: str
    model: str
    weight_dtype: str
    tensor_parallel: int
    tokens: Floats
    sampled: Floats
    pairs: Floats
    decoding: Floats
    mean_context: Floats
    time_s: Floats
    phase: NDArray[np.int64]


def load(folder: Path, models: dict[str, str], *, native: bool = False) -> list[Steps]:
    """Return the steps of models in `aic_step_times.csv`, in the order of its configurations.

    Parameters
    ----------
    folder : of the step-time tables. models : names in the table and in the catalog.
    native : whether the models come with experts in mxfp4, whatever the table's type says; only its bf16 rows are taken then.
    """
    found: dict[tuple[str, str, str, str, int], list[tuple[float, ...]]] = {}
    with (folder / "aic_step_times.csv").open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            degree = int(row["tp"])
            if row["model"] not in models or row["gpu"] not in ACCELERATORS or (row["gpu"] == "l40s" and degree == 8):
                continue  # eight cards over PCIe are not modelled
            if native and row["w_dtype"] != "bfloat16":
                continue
            dtype = "mxfp4" if native else WEIGHT_TYPES[row["w_dtype"]]
            key = (ACCELERATORS[row["gpu"]], row["engine"], models[row["model"]], dtype, degree)
            found.setdefault(key, []).append(tuple(_step(row)))
    return [Steps(*key, *_columns(rows)) for key, rows in sorted(found.items())]


def _step(row: dict[str, str]) -> Iterator[float]:
    """Give n, n_out, S, B, C / B, time and phase of a row; a mixed step is one chunk beside `batch` decoding sequences."""
    batch, prompt, cached = int(row["batch"]), int(row["prefill_tokens"]), int(row["ctx"])
    time_s, phase = float(row["time_ms"]) / 1e3, PHASES.index(row["phase"])
    if row["phase"] == "decode":
        yield from (batch, batch, 0.0, batch, cached)
    elif row["phase"] == "prefill":
        yield from (batch * prompt, batch, batch * prompt * (cached + prompt / 2), 0.0, 0.0)
    else:
        yield from (batch + prompt, batch + 1, prompt * prompt / 2, batch, cached)
    yield from (time_s, phase)


def _columns(rows: list[tuple[float, ...]]) -> list[NDArray]:  # type: ignore[type-arg]
    columns = [np.array(column, dtype=np.float64) for column in zip(*rows, strict=True)]
    return [*columns[:-1], columns[-1].astype(np.int64)]
