"""The table of running batches: iteration time, power and energy per token in steady state."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.measured.names import BLACKWELL
from benchmarks.measured.reading import NotCoveredError, Row, number, read_table, sample, whole
from benchmarks.measured.replicas import Replica, replica_of
from benchmarks.measured.scores import Comparison
from sim.perf.steptime import ONE_NS_FX
from sim.units import NS_PER_S

# Mean prompts behind the table's own estimate of the context (its README): they are not in the files.
PROMPT_TOKENS = {"gpqa": 250.0}
OTHER_PROMPT_TOKENS = 100.0
VLLM_VERSION = "0.11"  # of the leaderboard's runs of late 2025 (from memory, 2026-11-23, assumed)
COLUMNS = ("model", "task", "prec", "gpu", "n_gpu", "tp", "batch", "out_len", "ctx", "power_w_per_gpu", "j_per_tok", "iter_ms")


def steady_state(replica: Replica, batch: float, context: float, prompt: float, output: float) -> tuple[float, float]:
    """Return the mean time (s) and energy (J) of a step of a batch that stays as large as it is.

    Every step `batch` / `output` requests leave and as many prompts are prefilled: a part of the steps has one more than the rest.

    Parameters
    ----------
    batch : mean running sequences. context : mean tokens in the cache of each. prompt, output : mean lengths.
    """
    fewer, share = divmod(batch / output, 1.0)
    decoding = max(round(batch), 1)
    cached = round(batch * context)
    mean_s = mean_j = 0.0
    for prompts, weight in ((fewer, 1.0 - share), (fewer + 1.0, share)):
        n = round(batch + prompts * prompt)
        load = (n, decoding, round(prompts * prompt**2), cached, decoding)
        step_fx = replica.step.step_fx(*load)
        mean_s += weight * step_fx / ONE_NS_FX / NS_PER_S
        mean_j += weight * replica.step.step_j(step_fx, *load)
    return mean_s, mean_j


@dataclass(frozen=True)
class RunningBatch:
    """What a row of `mlenergy_serving_power` was measured on.

    Parameters
    ----------
    accelerators : of the replica. experts_apart : whether experts are spread over them while attention is data parallel.
    batch, context, prompt, output : mean running sequences, tokens in the cache of each, and lengths.
    """

    replica: Replica
    accelerators: int
    experts_apart: bool
    batch: float
    context: float
    prompt: float
    output: float


def running_batch(row: Row) -> RunningBatch:
    """Return what a row was measured on.

    Raises
    ------
    NotCoveredError : the catalog lacks something, or the row does.
    """
    accelerators = whole(row["n_gpu"])
    replica = replica_of(row["model"], row["gpu"], "vllm", row["prec"], accelerators, version=VLLM_VERSION)
    batch, context, output = (number(row[name]) for name in ("batch", "ctx", "out_len"))
    if batch is None or context is None or output is None:
        raise NotCoveredError("no batch, context or output length")
    prompt = PROMPT_TOKENS.get(row["task"], OTHER_PROMPT_TOKENS)
    return RunningBatch(replica, accelerators, accelerators > whole(row["tp"]), batch, context, prompt, output)


def left_out(row: Row, wanted: RunningBatch) -> str | None:
    """Return why a row is not compared although it could be, None where it is."""
    if wanted.experts_apart:
        return "attention data parallel, experts spread: not modelled"
    if row["task"] == "gpqa" and wanted.replica.accelerator.name.startswith(BLACKWELL):
        return "gpqa on B200: 30 ms at any batch, whatever the model: software"
    return None


def running_batches(folder: Path, most: int | None = None) -> Comparison:
    """Compare `mlenergy_serving_power`: a mean iteration, power of an accelerator and energy of an output token under vLLM.

    Power is that of our step at the batch, energy that of the whole step divided by the batch; both are of accelerators alone.
    """
    table, found = "mlenergy_serving_power", Comparison()
    for line, row in sample(read_table(folder, table, COLUMNS), most):
        try:
            wanted = running_batch(row)
            why = left_out(row, wanted)
            if why is not None:
                raise NotCoveredError(why)
        except NotCoveredError as reason:
            found.leave_out(table, str(reason))
            continue
        replica = wanted.replica
        step_s, step_j = steady_state(replica, wanted.batch, wanted.context, wanted.prompt, wanted.output)
        time_band, power_band = replica.tpot_band, replica.power_band
        values = (
            ("iteration", "ms", row["iter_ms"], step_s * 1e3, time_band),
            ("power", "W", row["power_w_per_gpu"], step_j / step_s / wanted.accelerators, power_band),
            (
                "energy per token",
                "J",
                row["j_per_tok"],
                step_j / wanted.batch,
                time_band.with_(power_band) if time_band and power_band else None,
            ),
        )
        for quantity, unit, text, predicted, band in values:
            truth = number(text)
            if truth is None:
                found.leave_out(table, f"no {quantity}")
                continue
            names = {"engine": "vllm", "phase": row["task"]}
            found.rows.append(replica.compared(table, line, quantity, unit, truth, predicted, band, **names))
    return found
