"""Tables of older stacks and published benchmarks: Splitwise, static batches of TensorRT-LLM, MLPerf Inference."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measured.closed_loop import Load, serve
from benchmarks.measured.kernels import step_ms
from benchmarks.measured.reading import NotCoveredError, Row, number, read_table, sample, whole
from benchmarks.measured.replicas import Replica, replica_of
from benchmarks.measured.scores import Comparison
from sim.perf.capacity import prefill_s

EAGER = {"a100-80gb": "eager-2023-a100", "h100-80gb": "eager-2023-h100"}
TOKEN_BUDGET = 8192
SPLITWISE_COLUMNS = (
    "model", "hardware", "tensor_parallel", "prompt_size", "batch_size", "token_size", "prompt_time", "token_time", "peak_power",
    "average_power",
)  # fmt: skip
# MLPerf Inference v4.1: mean prompt of the data set, and weights and accelerators of a replica as NVIDIA ran them, by benchmark and
# chip (from memory, 2026-11-23, assumed). Mean outputs follow from the table: tokens/s over samples/s.
MLPERF_PROMPT_TOKENS = {"llama2-70b": 294, "mixtral-8x7b": 400}
MLPERF_REPLICAS = {
    ("llama2-70b", "hopper"): ("fp8", 2),
    ("llama2-70b", "blackwell"): ("fp4", 1),
    ("mixtral-8x7b", "hopper"): ("fp8", 1),
}
MLPERF_SYSTEM = re.compile(r"(GH200|[ABH]\d+|L40S|L4|T4|Orin)(?![0-9A-Z])[-_]?(SXM|PCIe|NVL)?.*?x(\d+)")
MLPERF_SEATS = 1024


@dataclass(frozen=True)
class StaticBatch:
    """A row of `splitwise_step_times`: a batch of equal prompts, then `tokens` tokens of each.

    Parameters
    ----------
    model : as in the table. prompt, tokens : of each sequence.
    """

    model: str
    tensor_parallel: int
    batch: int
    prompt: int
    tokens: int


def prompt_load(row: StaticBatch) -> tuple[int, int, int, int, int]:
    """Return the arguments of `StepModel.step_fx` for the step of the prompts."""
    return row.batch * row.prompt, row.batch, row.batch * row.prompt**2, 0, 0


def token_load(row: StaticBatch) -> tuple[int, int, int, int, int]:
    """Return the arguments of `StepModel.step_fx` for the step in the middle of the answers."""
    return row.batch, row.batch, 0, round(row.batch * (row.prompt + row.tokens / 2)), row.batch


def splitwise_rows(folder: Path, hardware: str) -> list[tuple[int, StaticBatch, tuple[float, float]]]:
    """Return the rows of one accelerator that are compared: line, batch, and prompt and token times in ms."""
    found = []
    for line, row in read_table(folder, "splitwise_step_times", SPLITWISE_COLUMNS):
        batch, prompt, token = _static_batch(row), number(row["prompt_time"]), number(row["token_time"])
        if row["hardware"] != hardware or prompt is None or token is None:
            continue
        try:
            _fitting(batch, row["hardware"])
        except NotCoveredError:
            continue
        found.append((line, batch, (prompt, token)))
    return found


def _static_batch(row: Row) -> StaticBatch:
    sizes = (whole(row[name]) for name in ("tensor_parallel", "batch_size", "prompt_size", "token_size"))
    return StaticBatch(row["model"], *sizes)


def _fitting(row: StaticBatch, hardware: str) -> Replica:
    engine = EAGER.get(hardware.lower())
    if engine is None:
        raise NotCoveredError(f"no eager engine for {hardware}")
    replica = replica_of(row.model, hardware, "vllm", "bf16", row.tensor_parallel, engine=engine)
    if row.batch * (row.prompt + row.tokens) > replica.kv_tokens(TOKEN_BUDGET, 256):
        raise NotCoveredError("the batch does not fit the cache")
    return replica


def splitwise(folder: Path, most: int | None = None) -> Comparison:
    """Compare `splitwise_step_times`: prompt and token times of eager stacks of 2023, and power as a share of the board limit."""
    table, found = "splitwise_step_times", Comparison()
    for line, row in sample(read_table(folder, table, SPLITWISE_COLUMNS), most):
        try:
            batch = _static_batch(row)
            replica = _fitting(batch, row["hardware"])
        except NotCoveredError as reason:
            found.leave_out(table, str(reason))
            continue
        first, later = prompt_load(batch), token_load(batch)
        first_ms, later_ms = step_ms(replica.step, *first), step_ms(replica.step, *later)
        first_j, later_j = _energy_j(replica, first), _energy_j(replica, later)
        limit_w = replica.accelerator.tdp_w * replica.tensor_parallel
        steps = batch.tokens - 1
        average = (first_j + steps * later_j) / (first_ms + steps * later_ms) * 1e3 / limit_w
        values = (
            ("prompt time", "ms", row["prompt_time"], first_ms, replica.ttft_band),
            ("token time", "ms", row["token_time"], later_ms, replica.tpot_band),
            ("power, prompt", "share of limit", row["peak_power"], first_j / first_ms * 1e3 / limit_w, replica.power_band),
            ("power, average", "share of limit", row["average_power"], average, replica.power_band),
        )
        for quantity, unit, text, predicted, band in values:
            truth = number(text)
            if truth is None:
                found.leave_out(table, f"no {quantity}")
                continue
            found.rows.append(replica.compared(table, line, quantity, unit, truth, predicted, band, engine="eager 2023"))
    return found


def _energy_j(replica: Replica, load: tuple[int, int, int, int, int]) -> float:
    return replica.step.step_j(replica.step.step_fx(*load), *load)


def static_batches(folder: Path, most: int | None = None) -> Comparison:
    """Compare `trtllm_static_throughput`: output tokens per second and accelerator of a batch that starts and ends together.

    The engine row is of versions two years younger: no band.
    """
    table, found = "trtllm_static_throughput", Comparison()
    columns = ("gpu", "w_dtype", "model", "batch", "tp", "isl", "osl", "out_tok_s_reported", "unit")
    for line, row in sample(read_table(folder, table, columns), most):
        try:
            replica = replica_of(row["model"], row["gpu"], "trtllm", row["w_dtype"], whole(row["tp"]))
            truth = number(row["out_tok_s_reported"])
            if truth is None:
                raise NotCoveredError("no throughput")
            batch, prompt, output = whole(row["batch"]), whole(row["isl"]), whole(row["osl"])
            seconds = batch * prefill_s(replica.step, prompt, TOKEN_BUDGET)
            decode = [
                step_ms(replica.step, batch, batch, 0, batch * (prompt + done), batch) for done in (1, (output + 1) // 2, output)
            ]
            seconds += (output - 1) * (decode[0] + 2 * decode[1] + decode[2]) / 4 / 1e3
            per = replica.tensor_parallel if "GPU" in row["unit"] else 1
            phase = "more in than out" if prompt > output else "more out than in" if prompt < output else "as many in as out"
            names, said = {"engine": "trtllm 0.6", "phase": phase}, batch * output / seconds / per
            found.rows.append(replica.compared(table, line, "static throughput", "tokens/s", truth, said, None, **names))
        except NotCoveredError as reason:
            found.leave_out(table, str(reason))
    return found


def first_tokens(folder: Path, most: int | None = None) -> Comparison:
    """Compare `trtllm_first_token_b1`: one prompt alone, without a server; no band, as for static batches."""
    table, found = "trtllm_first_token_b1", Comparison()
    for line, row in sample(read_table(folder, table, ("gpu", "w_dtype", "model", "tp", "isl", "ttft_ms_b1")), most):
        try:
            replica = replica_of(row["model"], row["gpu"], "trtllm", row["w_dtype"], whole(row["tp"]))
            truth = number(row["ttft_ms_b1"])
            if truth is None:
                raise NotCoveredError("no time")
            prompt = whole(row["isl"])
            first_ms = step_ms(replica.step, prompt, 1, prompt**2, 0, 0)
            found.rows.append(replica.compared(table, line, "first token alone", "ms", truth, first_ms, None, engine="trtllm 0.6"))
        except NotCoveredError as reason:
            found.leave_out(table, str(reason))
    return found


def mlperf(folder: Path, most: int | None = None) -> Comparison:
    """Compare `mlperf_v4_1`: tokens per second of language models, offline, on whole systems.

    Offline, all requests are there at the start: each replica serves as many at a time as its cache and `MLPERF_SEATS` allow.
    The server scenario lies 3 to 12 % below (research note on hardware, section 3) and is compared with the same number.
    """
    table, found = "mlperf_v4_1", Comparison()
    for line, row in sample(read_table(folder, table, ("system", "benchmark", "scenario", "samples_per_s", "tokens_per_s")), most):
        try:
            truth, samples = number(row["tokens_per_s"]), number(row["samples_per_s"])
            name = re.sub(r"-99(\.9)?$", "", row["benchmark"])
            if name.startswith("gptj"):
                raise NotCoveredError("gptj: beam search over four sequences is not modelled")
            if name not in MLPERF_PROMPT_TOKENS:
                raise NotCoveredError(f"{name}: not a language model of the step model")
            if "maxq" in row["system"].lower():
                raise NotCoveredError("held below the board limit by an unstated cap")
            system = MLPERF_SYSTEM.search(row["system"])
            if system is None:
                raise NotCoveredError(f"no accelerator in {row['system']!r}")
            if truth is None or samples is None:
                raise NotCoveredError("no throughput")
            chip = "-".join(part.lower() for part in system.groups()[:2] if part)
            family = "blackwell" if chip.startswith("b") else "hopper"
            if (name, family) not in MLPERF_REPLICAS:
                raise NotCoveredError(f"{name} on {chip}: how it was split is not known")
            dtype, tensor = MLPERF_REPLICAS[name, family]
            replica = replica_of(name, chip, "trtllm", dtype, tensor, kv_dtype="fp8")
            predicted = _offline_tokens_per_s(replica, MLPERF_PROMPT_TOKENS[name], round(truth / samples)) * int(system[3]) / tensor
            quantity, band = f"{row['scenario'].lower()} throughput", replica.tpot_band and replica.tpot_band.of_rate
            found.rows.append(replica.compared(table, line, quantity, "tokens/s", truth, predicted, band, engine="trtllm"))
        except NotCoveredError as reason:
            found.leave_out(table, str(reason))
    return found


def _offline_tokens_per_s(replica: Replica, prompt: int, output: int) -> float:
    kv_tokens = replica.kv_tokens(TOKEN_BUDGET, MLPERF_SEATS)
    clients = max(min(MLPERF_SEATS, kv_tokens // (prompt + output)), 1)
    load = Load(clients, 2 * prompt, 2 * output, shortest=0.0, rounds=6)
    return serve(replica.step, load, seats=MLPERF_SEATS, token_budget=TOKEN_BUDGET, kv_tokens=kv_tokens).output_tokens_per_s
