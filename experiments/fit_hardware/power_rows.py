"""Measured power of accelerators while they serve or step: rows of three tables in one form."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from experiments.calibrate_gpu.table import read as read_measured

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("BILLCAST_DATA", ROOT / ".." / "shared" / "data")) / "perf"
MEASURED = ROOT / "experiments" / "calibrate_gpu" / "measured"

ACCELERATORS = {
    "H100": "h100-sxm",
    "B200": "b200-sxm",
    "NVIDIA H100 80GB HBM3": "h100-sxm",
    "NVIDIA H200": "h200-sxm",
    "a100-80gb": "a100-sxm-80",
    "h100-80gb": "h100-sxm",
}
MODELS = {
    "Qwen3-8B": "qwen3-8b",
    "Qwen3-14B": "qwen3-14b",
    "Qwen3-32B": "qwen3-32b",
    "gemma-3-12b-it": "gemma-3-12b",
    "gemma-3-27b-it": "gemma-3-27b",
    "Llama-3.1-8B": "llama-3.1-8b",
    "Llama-3.1-70B": "llama-3.1-70b",
    "Llama-3.3-70B": "llama-3.3-70b",
    "Llama-3.1-405B": "llama-3.1-405b",
    "Llama-4-Maverick": "llama-4-maverick",
    "Llama-4-Scout": "llama-4-scout",
    "Qwen3-235B-A22B": "qwen3-235b-a22b",
    "Qwen3-30B-A3B": "qwen3-30b-a3b",
    "gpt-oss-20b": "gpt-oss-20b",
    "gpt-oss-120b": "gpt-oss-120b",
    "llama2-70b": "llama-2-70b",
}
DTYPES = {"bfloat16": "bf16", "fp8": "fp8", "mxfp4": "mxfp4"}
# Prompt tokens that the data folder assumes of a task, for the mean context; the leaderboard does not report them.
PROMPT_TOKENS = {"lm-arena-chat": 100.0, "gpqa": 250.0}
# Longer prompts of Splitwise have averages that contradict their neighbours (0.18 of the TDP at 8,192 tokens).
LONGEST_SPLITWISE_PROMPT = 4096


@dataclass(frozen=True)
class Step:
    """One step, or the mean of many: tokens, sequences sampled, S, decoding sequences, mean context of one, seconds."""

    n: float
    n_out: float
    s: float
    decodes: float
    context: float
    step_s: float
    layers: int = 0
    count: float = 1.0


@dataclass(frozen=True)
class PowerRow:
    """Mean power of one accelerator over some steps.

    Parameters
    ----------
    source : "mlenergy", "splitwise" or "calibrate_gpu". task : what was done.
    tensor_parallel : accelerators that share the model; nothing is sent between them in `calibrate_gpu`.
    output_tokens_per_s : of a serving row, 0 elsewhere. weight : in the fit.
    """

    source: str
    accelerator: str
    model: str
    task: str
    dtype: str
    tensor_parallel: int
    steps: tuple[Step, ...]
    power_w: float
    output_tokens_per_s: float = 0.0
    weight: float = 1.0

    @property
    def total_s(self) -> float:
        """Time of all steps."""
        return sum(step.count * step.step_s for step in self.steps)


def model_of(text: str) -> str:
    """Return the catalog's name of a model whose published name contains one of `MODELS`."""
    return next(name for part, name in sorted(MODELS.items(), key=lambda item: -len(item[0])) if part in text)


def mlenergy(path: Path = DATA / "mlenergy_serving_power.csv") -> Iterator[PowerRow]:
    """Yield the serving rows: the mean step has the batch, and the share of a prompt that each sequence brings along.

    Models with experts are split over all accelerators (`tp` 1 there is the degree of the experts' own split).
    """
    with path.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            batch, prompt = float(row["batch"]), PROMPT_TOKENS[row["task"]]
            chunk = batch * prompt / float(row["out_len"])
            step_s = float(row["iter_ms"]) / 1000
            step = Step(batch + chunk, batch, chunk * prompt / 2, batch, float(row["ctx"]), step_s)
            yield PowerRow(
                source="mlenergy",
                accelerator=ACCELERATORS[row["gpu"]],
                model=model_of(row["model"]),
                task=row["task"],
                dtype=DTYPES[row["prec"]],
                tensor_parallel=int(row["n_gpu"]),
                steps=(step,),
                power_w=float(row["power_w_per_gpu"]),
                output_tokens_per_s=float(row["out_tok_s"]),
            )


def splitwise(tdp_w: dict[str, float], path: Path = DATA / "splitwise_step_times.csv") -> Iterator[PowerRow]:
    """Yield the runs with a recorded mean power: one step for the prompts, then one for each further token."""
    with path.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            prompt, batch, tokens = float(row["prompt_size"]), float(row["batch_size"]), float(row["token_size"])
            if float(row["average_power"]) == 0.0 or prompt > LONGEST_SPLITWISE_PROMPT or row["model"] not in MODELS:
                continue
            accelerator = ACCELERATORS[row["hardware"]]
            first = Step(batch * prompt, batch, batch * prompt**2 / 2, 0.0, 0.0, float(row["prompt_time"]) / 1000)
            rest = Step(batch, batch, 0.0, batch, prompt + tokens / 2, float(row["token_time"]) / 1000, count=tokens - 1)
            yield PowerRow(
                source="splitwise",
                accelerator=accelerator,
                model=MODELS[row["model"]],
                task="run",
                dtype="bf16",
                tensor_parallel=int(row["tensor_parallel"]),
                steps=(first, rest),
                power_w=float(row["average_power"]) * tdp_w[accelerator],
                weight=0.3,
            )


def calibrated(folder: Path = MEASURED) -> Iterator[PowerRow]:
    """Yield the steps of the committed tables that ran one after the other with power read."""
    for path in sorted(folder.glob("*.csv")):
        for row in read_measured(path):
            if row.power_w is None or row.rest:
                continue
            step = Step(row.n, row.n_out, row.s, row.decodes, row.context, row.step_s, row.layers)
            yield PowerRow(
                source="calibrate_gpu",
                accelerator=ACCELERATORS[row.gpu],
                model=row.model,
                task=row.phase,
                dtype=row.dtype,
                tensor_parallel=row.tensor_parallel,
                steps=(step,),
                power_w=row.power_w,
                weight=0.3 if row.phase == "decode" else 0.0,
            )
