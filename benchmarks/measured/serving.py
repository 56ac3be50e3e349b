"""The table of served latencies: TTFT and TPOT of our own engine under the closed loop that each row states."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmarks.measured.closed_loop import Load, Served, serve
from benchmarks.measured.names import HOPPER
from benchmarks.measured.reading import NotCoveredError, Row, number, read_table, sample, whole
from benchmarks.measured.replicas import Replica, replica_of
from benchmarks.measured.scores import Comparison

TOKEN_BUDGET, SEATS = 8192, 256
# SGLang lets waiting prompts run before decoding goes on. Our engine mixes the two in a step; a larger budget stands for it.
PREFILL_FIRST, PREFILL_FIRST_BUDGET = ("sglang",), 32768
MOST_ACCELERATORS = 8
# The shortest request of a load over the longest. InferenceMAX draws lengths from 0.8 to 1 of the stated ones. Runs of the vendor
# send requests that are all alike; they leave and come back together unless something tells them apart, and 3 % of the length does
# what tokenisers and the network do. Under an engine that lets prompts go first they come back together.
SHORTEST = {"inferencemax": 0.8, "vendor": 0.97, "vendor, prefill first": 1.0}
ROUNDS = 10
ONE_BY_ONE = "TTFT of SGLang in November 2025 on B200: ten times that of later versions, 0.1 s a client"
UNTUNED = re.compile(r"0\.(\d|1[0-6])\.")
# (version, date) of runs of TensorRT-LLM that look like multi-token prediction; without a date, all of the version.
MULTI_TOKEN = {("1.2.0rc6.post3", ""), ("1.1.0rc2.post2", "2026-01-14")}


@dataclass(frozen=True)
class ServingRow:
    """What a row of `silicon_serving_ttft_tpot` was measured on.

    Parameters
    ----------
    accelerators : of the replica. experts_apart : whether experts are spread whole over accelerators. source : key of `SHORTEST`.
    version : of the engine. date : of the measurement, ISO, empty where it is not stated.
    """

    model: str
    system: str
    backend: str
    precision: str
    accelerators: int
    experts_apart: bool
    clients: int
    prompt_tokens: int
    output_tokens: int
    source: str
    version: str
    date: str


def serving_row(row: Row) -> ServingRow:
    """Return what a row was measured on.

    Raises
    ------
    NotCoveredError : a way of spreading the model that is not modelled.
    """

    def degree(column: str) -> int:
        return max(whole(row[column] or "0"), 1)

    tensor, experts_tensor, experts = degree("tp_size"), degree("moe_tp_size"), degree("moe_ep_size")
    if degree("attention_dp_size") > 1:
        raise NotCoveredError("attention data parallel: not modelled")
    if degree("pp_size") > 1:
        raise NotCoveredError("pipeline parallel: not compared")
    # Rows that state tensor parallel 64 beside 8 x 8 for the experts (16 beside 4 x 4) have multiplied the two degrees of one
    # replica of 8 (4): their latencies are those of the rows that state 8 (4).
    if experts_tensor == experts > 1 and tensor == experts_tensor * experts:
        tensor = experts
    if tensor > MOST_ACCELERATORS:
        raise NotCoveredError(f"more than {MOST_ACCELERATORS} accelerators: not modelled")
    vendor = re.match(r"source_file=[a-z]+\d+\w*/", row["source_note"]) is not None
    source = "inferencemax" if not vendor else "vendor, prefill first" if row["backend"] in PREFILL_FIRST else "vendor"
    return ServingRow(
        row["model_path"], row["system"], row["backend"], row["precision"], tensor, experts > 1,
        whole(row["batch_size"]), whole(row["isl"]), whole(row["osl"]), source,
        row["backend_version"], _date(row["source_note"]),
    )  # fmt: skip


def _date(note: str) -> str:
    found = re.search(r"measured=(\d{4}-\d\d-\d\d)", note)
    return found[1] if found else ""


def replica_of_row(row: ServingRow) -> Replica:
    """Return the replica of a row; see `replica_of`.

    Checkpoints in nvfp4 bring a cache in fp8: with one in bf16, MiniMax-M2.5 under vLLM comes out 10 % too slow, the more so the
    longer its contexts. So do the fp8 checkpoints of Llama that TensorRT-LLM is run with (from memory, 2026-11-23, assumed).
    """
    names = (row.model, row.system, row.backend, row.precision, row.accelerators)
    replica = replica_of(*names, version=row.version, date=row.date)
    of_llama = (row.backend, replica.weight_dtype) == ("trtllm", "fp8") and replica.model.name.startswith("llama")
    if replica.weight_dtype == "nvfp4" or of_llama:
        return replica_of(*names, version=row.version, date=row.date, kv_dtype="fp8")
    return replica


@cache
def served(row: ServingRow) -> Served:
    """Return what our engine measures under the row's load.

    Raises
    ------
    NotCoveredError : the catalog lacks something, or a request does not fit the cache.
    """
    replica = replica_of_row(row)
    return serve_on(replica, row)


def serve_on(replica: Replica, row: ServingRow) -> Served:
    """Return what our engine measures on a replica under the row's load."""
    budget = PREFILL_FIRST_BUDGET if row.backend in PREFILL_FIRST else TOKEN_BUDGET
    seats = max(SEATS, row.clients)
    found = serve(
        replica.step,
        Load(row.clients, row.prompt_tokens, row.output_tokens, SHORTEST[row.source], ROUNDS),
        seats=seats,
        token_budget=budget,
        kv_tokens=replica.kv_tokens(TOKEN_BUDGET, seats),
        front_end_s=replica.engine.front_end_s,
    )
    if found.refused:
        raise NotCoveredError("a request does not fit the cache")
    return found


def left_out(text: Row, row: ServingRow, replica: Replica) -> str | None:
    """Return why a row is not compared although it could be, None where it is.

    Parameters
    ----------
    text : of the table. row, replica : what it stands for.
    """
    if "gtl_" in text["source_note"]:
        return "deployments of several replicas behind a router"
    if row.backend == "trtllm" and ((row.version, "") in MULTI_TOKEN or (row.version, row.date) in MULTI_TOKEN):
        return "35 to 60 % faster at one stroke than the same engine a few days before or after: looks like several tokens a step"
    chip = replica.accelerator.name
    untuned = row.backend == "vllm" and UNTUNED.match(row.version) and replica.weight_dtype == "fp8"
    if untuned and replica.model.experts and chip.startswith(HOPPER):
        return "fp8 experts of vLLM before 0.17 on Hopper: kernels not tuned, 1.3 to 2.5 times slower"
    tpot_ms = number(text["silicon_tpot_ms"])
    context = row.prompt_tokens * SHORTEST[row.source] + row.output_tokens / 2
    resident = min(row.clients, replica.kv_tokens(TOKEN_BUDGET, SEATS) / context)
    if tpot_ms is not None and tpot_ms < replica.least_step_s(resident, context) * 1e3:
        return "faster than one read of weights and cache: several replicas, cached prompts or several tokens a step"
    return None


def one_by_one(row: ServingRow) -> bool:
    """Whether prompts of a row were taken one by one, so that its TTFT is not compared."""
    return row.backend == "sglang" and row.date == "2025-11-10"


def latencies(folder: Path, most: int | None = None) -> Comparison:
    """Compare `silicon_serving_ttft_tpot`: TTFT and TPOT of our engine in a closed loop."""
    table, found = "silicon_serving_ttft_tpot", Comparison()
    columns = (
        "backend", "model_path", "system", "precision", "isl", "osl", "batch_size", "tp_size", "pp_size", "attention_dp_size",
        "moe_tp_size", "moe_ep_size", "silicon_ttft_ms", "silicon_tpot_ms", "source_note", "backend_version",
    )  # fmt: skip
    for line, row in sample(read_table(folder, table, columns), most):
        try:
            wanted = serving_row(row)
            replica = replica_of_row(wanted)
            why = left_out(row, wanted, replica)
            if why is not None:
                raise NotCoveredError(why)
            result = served(wanted)
        except NotCoveredError as reason:
            found.leave_out(table, str(reason))
            continue
        values = (
            ("TPOT", row["silicon_tpot_ms"], result.tpot_s, replica.tpot_band),
            ("TTFT", row["silicon_ttft_ms"], result.ttft_s, replica.ttft_band),
        )
        for quantity, text, predicted_s, band in values:
            truth = None if quantity == "TTFT" and one_by_one(wanted) else number(text)
            if truth is None or predicted_s != predicted_s:
                found.leave_out(table, ONE_BY_ONE if quantity == "TTFT" and one_by_one(wanted) else f"no {quantity}")
                continue
            names = {"engine": wanted.backend, "phase": "experts apart" if wanted.experts_apart else ""}
            found.rows.append(replica.compared(table, line, quantity, "ms", truth, predicted_s * 1e3, band, **names))
    return found
