"""Tables of kernels: whole steps composed of measured kernels, one layer without attention, one all-reduce."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

from benchmarks.measured.names import HOPPER
from benchmarks.measured.reading import NotCoveredError, Row, number, read_table, sample, whole
from benchmarks.measured.replicas import Replica, built, replica_of
from benchmarks.measured.scores import Comparison
from sim.perf.steptime import ONE_NS_FX, StepModel

MS_FX = ONE_NS_FX * 1e6
# The hidden size of the stand-in for an all-reduce: n tokens of it in bf16 are n times so many bytes.
ALLREDUCE_HIDDEN = 1024
ALLREDUCE_BYTES_PER_TOKEN = 2 * ALLREDUCE_HIDDEN


def step_ms(step: StepModel, n: int, n_out: int, s_twice: int, context: int, decoding: int) -> float:
    """Return the time of a step in milliseconds; arguments as in `StepModel.step_fx`."""
    return step.step_fx(n, n_out, s_twice, context, decoding) / MS_FX


def step_times(folder: Path, most: int | None = None) -> Comparison:
    """Compare `aic_step_times`: prefill, decode and mixed steps of bare kernels, bf16 cache; models with experts apart.

    Parameters
    ----------
    folder : with the tables. most : rows to sample, all for None.
    """
    table, found = "aic_step_times", Comparison()
    columns = ("model", "gpu", "engine", "w_dtype", "tp", "phase", "batch", "prefill_tokens", "ctx", "time_ms")
    for line, row in sample(read_table(folder, table, columns), most):
        try:
            replica = replica_of(row["model"], row["gpu"], row["engine"], row["w_dtype"], whole(row["tp"]), bare=True)
            hopper, untuned = replica.accelerator.name.startswith(HOPPER), replica.engine.kernels == "vllm"
            if hopper and untuned and replica.model.experts and replica.weight_dtype == "fp8":
                raise NotCoveredError("fp8 experts of vLLM on Hopper: kernels not tuned, 2 to 3 times slower than bf16")
            truth = number(row["time_ms"])
            if truth is None:
                raise NotCoveredError("no time")
            predicted, band = step_ms(replica.step, *_load(row)), replica.step_band(row["phase"])
            phase = row["phase"] + (", experts" if replica.model.experts else "")
            names = {"engine": replica.engine.kernels, "phase": phase}
            found.rows.append(replica.compared(table, line, "step time", "ms", truth, predicted, band, **names))
        except NotCoveredError as reason:
            found.leave_out(table, str(reason))
    return found


def _load(row: Row) -> tuple[int, int, int, int, int]:
    """Return (n, n_out, 2 S, C, B) of a row; a mixed step is one chunk beside `batch` decoding sequences.

    Raises
    ------
    NotCoveredError : a phase that is none of the three.
    """
    batch, prompt, cached = whole(row["batch"]), whole(row["prefill_tokens"]), whole(row["ctx"])
    if row["phase"] == "decode":
        return batch, batch, 0, batch * cached, batch
    if row["phase"] == "prefill":
        return batch * prompt, batch, batch * prompt * (2 * cached + prompt), 0, 0
    if row["phase"] == "mixed":
        return batch + prompt, batch + 1, prompt**2, batch * cached, batch
    raise NotCoveredError(f"no phase {row['phase']!r}")


def layers(folder: Path, most: int | None = None) -> Comparison:
    """Compare `vidur_layer_gemm`: one layer without attention and without all-reduce, in bf16, by the kernels of vLLM.

    Parts of a step are never printed, so they have no band.
    """
    table, found = "vidur_layer_gemm", Comparison()
    for line, row in sample(read_table(folder, table, ("tp", "n", "layer_ms", "gpu", "m")), most):
        try:
            replica = _one_layer(row["m"], row["gpu"], whole(row["tp"]))
            truth = number(row["layer_ms"])
            if truth is None:
                raise NotCoveredError("no time")
            tokens = whole(row["n"])
            predicted = step_ms(replica.step, tokens, 0, 0, 0, 0)
            names = {"engine": "vllm", "phase": "1 to 256 tokens" if tokens <= 256 else "above 256"}
            found.rows.append(replica.compared(table, line, "layer without attention", "ms", truth, predicted, None, **names))
        except NotCoveredError as reason:
            found.leave_out(table, str(reason))
    return found


@cache
def _one_layer(model: str, gpu: str, tensor_parallel: int) -> Replica:
    whole = replica_of(model, gpu, "vllm", "bf16", tensor_parallel, bare=True)
    return built(
        replace(whole.model, layers=1, dense_layers=0, window_layers=0, vocabulary=1),
        replace(whole.accelerator, link_gb_per_s=1e12),
        replace(whole.fit, allreduce_s=0.0),
        whole.engine, "bf16", "bf16", tensor_parallel,
    )  # fmt: skip


def all_reduces(folder: Path, most: int | None = None) -> Comparison:
    """Compare `vidur_allreduce`: the time that two all-reduces of a layer add to a step, halved; no band, as for a layer."""
    table, found = "vidur_allreduce", Comparison()
    for line, row in sample(read_table(folder, table, ("network", "num_gpus", "bytes", "time_ms")), most):
        try:
            truth, moved, chips = number(row["time_ms"]), whole(row["bytes"]), whole(row["num_gpus"])
            if truth is None:
                raise NotCoveredError("no time")
            if moved % ALLREDUCE_BYTES_PER_TOKEN:
                raise NotCoveredError(f"not a multiple of {ALLREDUCE_BYTES_PER_TOKEN} bytes")
            if chips > 8:
                raise NotCoveredError("all-reduces over more than one machine: not modelled")
            linked, free = _linked_and_free(row["network"], chips)
            tokens = moved // ALLREDUCE_BYTES_PER_TOKEN
            predicted = (step_ms(linked.step, tokens, 0, 0, 0, 0) - step_ms(free.step, tokens, 0, 0, 0, 0)) / (
                2 * linked.model.layers
            )
            names = {"engine": "vllm", "phase": f"{chips} accelerators"}
            found.rows.append(linked.compared(table, line, "all-reduce", "ms", truth, predicted, None, **names))
        except NotCoveredError as reason:
            found.leave_out(table, str(reason))
    return found


@cache
def _linked_and_free(network: str, chips: int) -> tuple[Replica, Replica]:
    """Return a replica whose all-reduces move `ALLREDUCE_BYTES_PER_TOKEN` a token, and one whose all-reduces take no time."""
    whole = replica_of("llama-2-70b", network, "vllm", "bf16", chips, bare=True)
    model = replace(whole.model, hidden=ALLREDUCE_HIDDEN)
    linked = built(model, whole.accelerator, whole.fit, whole.engine, "bf16", "bf16", chips)
    links = replace(whole.accelerator, link_gb_per_s=1e12)
    return linked, built(model, links, replace(whole.fit, allreduce_s=0.0), whole.engine, "bf16", "bf16", chips)
