"""Measured points of batch models: MLPerf Inference v4.1 rows, as throughput or time of a batch on one accelerator."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("BILLCAST_DATA", ROOT / ".." / "shared" / "data")) / "perf" / "mlperf_v4_1.csv"

# Accelerators of a system, and how many. A node of two processors is one accelerator: its weights are in both memories, its cores
# work on one stream of batches.
SYSTEMS = {
    "R760_H100_PCIe_80GBx2_TRT": ("h100-pcie", 2),
    "R760xa_H100_PCIe_80GBx4_TRT": ("h100-pcie", 4),
    "DGX-H100_H100-SXM-80GBx8_TRT": ("h100-sxm", 8),
    "XR8620_L4x1_TRT": ("l4", 1),
    "Orin_TRT": ("agx-orin-64", 1),
    "1-node-2S-EMR-PyTorch": ("xeon-emr-2s", 1),
}
# Model, type on GPUs and on processors (8 bits in every submission; which of the two on a GPU: from memory), and the batch of an
# offline run (from memory; at such batches what a batch costs beside its items hardly counts).
BENCHMARKS = {
    "resnet50": ("resnet50", "int8", 2048),
    "retinanet": ("retinanet", "int8", 32),
    "bert-99": ("bert-large-squad", "int8", 1024),
    "stable-diffusion-xl": ("stable-diffusion-xl", "int8", 8),
}
# Server rows keep 99 % of the requests below these, in seconds (mlcommons/inference docs/index.md and its rules).
SERVER_LIMIT_S = {"resnet50": 0.015, "retinanet": 0.1, "bert-large-squad": 0.13, "stable-diffusion-xl": 20.0}


@dataclass(frozen=True)
class Point:
    """One measured row, per accelerator.

    Parameters
    ----------
    scenario : "Offline" and "Server" have `items_per_s`; "SingleStream" and "MultiStream" have `batch_s` of `batch` items.
    batch : items of a batch: assumed for offline runs.
    """

    submitter: str
    system: str
    accelerator: str
    accelerators: int
    model: str
    dtype: str
    scenario: str
    batch: int
    items_per_s: float
    batch_s: float
    p99_s: float


def read(path: Path = DATA) -> list[Point]:
    """Return the points of the models and systems that the catalog has."""
    with path.open(encoding="utf-8") as file:
        return list(_points(csv.DictReader(file)))


def _points(rows: Iterator[dict[str, str]] | csv.DictReader[str]) -> Iterator[Point]:
    for row in rows:
        if row["system"] not in SYSTEMS or row["benchmark"] not in BENCHMARKS or row["valid"] != "True":
            continue
        accelerator, count = SYSTEMS[row["system"]]
        model, dtype, batch = BENCHMARKS[row["benchmark"]]
        alone = {"SingleStream": 1, "MultiStream": 8}.get(row["scenario"])
        yield Point(
            submitter=row["submitter"],
            system=row["system"],
            accelerator=accelerator,
            accelerators=count,
            model=model,
            dtype=dtype,
            scenario=row["scenario"],
            batch=alone or batch,
            items_per_s=float(row["samples_per_s"] or 0) / count,
            batch_s=float(row["mean_latency_ns"]) / 1e9 if alone else 0.0,
            p99_s=float(row["p99_latency_ns"]) / 1e9,
        )
