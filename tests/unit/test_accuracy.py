"""Measured tables beside the models: names, readers, closed loop, arithmetic of errors and coverage."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("benchmarks.measured.report", reason="not a checkout")

from benchmarks.measured import energy, report, serving, shown
from benchmarks.measured.closed_loop import Load, serve
from benchmarks.measured.names import chip_of, engine_of, model_of, weight_type_of
from benchmarks.measured.reading import NotCoveredError, TableError, read_table
from benchmarks.measured.replicas import replica_of
from benchmarks.measured.scores import Band, Compared, by_stratum, score
from sim.catalog.loader import load_catalog
from sim.perf.steptime import closed_form

CATALOG = load_catalog()
ROOT = Path(report.__file__).resolve().parents[2]
SERVING = {
    "backend": "vllm", "backend_version": "0.12.0", "model_path": "Qwen/Qwen3-32B", "system": "h100_sxm", "precision": "",
    "isl": 1024, "osl": 64, "batch_size": 4, "tp_size": 2, "pp_size": 1, "attention_dp_size": "",
    "moe_tp_size": 1, "moe_ep_size": 1,
    "silicon_ttft_ms": 120.0, "silicon_tpot_ms": 18.0,
    "source_note": "source_file=h100_sxm/vllm/0.12.0/x.csv; silicon_concurrency=4",
}  # fmt: skip
STEP = {
    "model": "llama3.1-8b", "gpu": "h100_sxm", "engine": "vllm", "w_dtype": "bfloat16", "tp": 1, "phase": "decode", "batch": 8,
    "prefill_tokens": 0, "ctx": 1024, "time_ms": 6.5,
}  # fmt: skip
BATCH = {
    "model": "meta-llama/Llama-3.1-8B-Instruct", "task": "lm-arena-chat", "prec": "bfloat16", "gpu": "H100", "n_gpu": 1, "tp": 1,
    "batch": 8.0, "out_len": 400.0, "ctx": 500.0, "power_w_per_gpu": 490.0, "j_per_tok": 0.45, "iter_ms": 7.5,
}  # fmt: skip


def write(folder: Path, table: str, rows: list[dict[str, object]]) -> None:
    with (folder / f"{table}.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def compared(truth: float, predicted: float, band: Band, **changes: str) -> Compared:
    stratum = {"gpu": "g", "engine": "e", "dtype": "d", "phase": "", **changes}
    return Compared(
        table="t",
        quantity="q",
        unit="ms",
        model="m",
        line=1,
        truth=truth,
        predicted=predicted,
        band=band,
        validity="fitted",
        **stratum,
    )


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("meta-llama/Llama-3.1-405B-Instruct-FP8", "llama-3.1-405b"),
        ("llama3.1-70b", "llama-3.1-70b"),
        ("LLAMA2-70B-99.9", "llama-2-70b"),
        ("llama-7b", "llama-2-7b"),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "mixtral-8x7b"),
        ("Qwen/Qwen3-235B-A22B-Instruct-2507-FP8", "qwen3-235b-a22b"),
        ("nvidia/DeepSeek-V3.1-NVFP4", "deepseek-v3"),
        ("deepseek-ai/DeepSeek-R1-0528", "deepseek-r1"),
        ("bigscience/bloom", "bloom-176b"),
        ("openai/gpt-oss-20b", "gpt-oss-20b"),
        ("meta-llama/Llama-4-Scout-17B-16E-Instruct", "llama-4-scout"),
        ("google/gemma-3-12b-it", "gemma-3-12b"),
        ("gptj-99", "gpt-j-6b"),
        ("qwen3-8", None),
        ("someone/unheard-of-70b", None),
    ],
)
def test_names_of_models(name: str, row: str | None) -> None:
    assert model_of(name, CATALOG) == row


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("h200_sxm", "h200-sxm"),
        ("L40S", "l40s"),
        ("A100-80GB", "a100-sxm-80"),
        ("h100-pcie", "h100-pcie"),
        ("zx81", None),
        ("NVIDIA H100 80GB HBM3", "h100-sxm"),
        ("A100-SXM4-80GB", "a100-sxm-80"),
    ],
)
def test_names_of_chips(name: str, row: str | None) -> None:
    assert chip_of(name, CATALOG) == row


def test_a_chip_without_four_bit_arithmetic_computes_four_bit_weights_in_16() -> None:
    assert weight_type_of("nvfp4", "m", "h100-sxm", CATALOG) == "int4_wo"
    assert weight_type_of("fp4", "m", "b200-sxm", CATALOG) == "nvfp4"
    assert weight_type_of("", "nvidia/Qwen3-32B-NVFP4", "b200-sxm", CATALOG) == "nvfp4"
    assert weight_type_of("fp12", "m", "b200-sxm", CATALOG) is None


def test_every_backend_has_an_engine_on_both_generations() -> None:
    for backend in ("vllm", "TRTLLM", "sglang"):
        names = [engine_of(backend, chip, CATALOG) for chip in ("h100-sxm", "b200-sxm")]
        assert all(name in CATALOG.engines for name in names)
        assert names[0] != names[1]
    assert engine_of("llama.cpp", "h100-sxm", CATALOG) is None


def test_what_the_catalog_lacks_is_said() -> None:
    for row, said in (
        (("unheard-of", "h100_sxm", "vllm", "bf16", 1), "model"),
        (("Qwen/Qwen3-8B", "zx81", "vllm", "bf16", 1), "chip"),
        (("Qwen/Qwen3-8B", "h100_sxm", "mlc", "bf16", 1), "engine"),
        (("Qwen/Qwen3-8B", "h100_sxm", "vllm", "fp12", 1), "weight type"),
        (("Qwen/Qwen3-8B", "h100_sxm", "vllm", "bf16", 3), "tensor parallel 3"),
    ):
        with pytest.raises(NotCoveredError, match=said):
            replica_of(*row)


def test_errors_by_hand() -> None:
    """Errors +20, -10, 0, +100 %: mean 32.5, median 15, p95 88 (between 20 and 100 at 2.85), signed median 10, mean 27.5."""
    band = Band(below=0.2, above=0.15)  # the truths 10, 10, 10 and 5 lie in 9.6 to 13.8, 7.2 to 10.35, 8 to 11.5, not in 8 to 11.5
    found = score([compared(10, 12, band), compared(10, 9, band), compared(10, 10, band), compared(5, 10, band)])
    assert (found.rows, found.mean, found.median, found.coverage) == (4, pytest.approx(32.5), pytest.approx(15), 75)
    assert (found.p95, found.bias, found.mean_bias) == (pytest.approx(88), pytest.approx(10), pytest.approx(27.5))


def test_a_band_of_an_error_holds_exactly_such_errors() -> None:
    band = Band.of_error(0.25)
    assert compared(10.0, 12.4999, band).covered
    assert not compared(10.0, 12.5001, band).covered
    assert compared(10.0, 7.5001, band).covered
    assert not compared(10.0, 7.4999, band).covered


def test_the_band_of_a_rate_is_that_of_its_time() -> None:
    band = Band(below=0.2, above=0.6)
    for seconds in (0.799, 0.801, 1.599, 1.601):
        as_time, as_rate = compared(seconds, 1.0, band), compared(1 / seconds, 1.0, band.of_rate)
        assert as_time.covered == as_rate.covered


def test_strata_are_apart_and_in_order() -> None:
    rows = [compared(1, 1, Band(0, 0), gpu=gpu, engine=engine) for gpu, engine in (("b", "x"), ("a", "y"), ("a", "x"), ("a", "x"))]
    assert {key: found.rows for key, found in by_stratum(rows, ("gpu", "engine")).items()} == {
        ("a", "x"): 2,
        ("a", "y"): 1,
        ("b", "x"): 1,
    }


@pytest.mark.parametrize("clients", [1, 3, 8])
def test_a_closed_loop_of_steps_that_last_a_millisecond(clients: int) -> None:
    """All prompts fit into one step: a request takes one step to its first token and one for each of the others."""
    served = serve(closed_form(fixed_ns=1e6), Load(clients, 100, 21), seats=8, token_budget=1_000, kv_tokens=100_000)
    assert served.tpot_s == pytest.approx(1e-3, rel=1e-12)
    # A client's next request comes at the end of a step in which its last one left, and may find the next step begun.
    assert 1e-3 <= served.ttft_s <= 2e-3
    assert served.refused == 0


def test_a_closed_loop_in_proportion_to_tokens() -> None:
    """A step lasts 1 us a token: a request costs its prompt and all its output tokens but the last, whoever is there.

    Little's law: clients = requests a second x the time of a request, its TTFT and the gaps between its tokens. The last requests
    do not end at the same moment, by a few thousandths of one request.
    """
    clients, prompt, output = 4, 300, 101
    load = Load(clients, prompt, output, rounds=40)
    served = serve(closed_form(token_ns=1e3), load, seats=8, token_budget=10_000, kv_tokens=100_000)
    requests_per_s = served.output_tokens_per_s / output
    assert requests_per_s == pytest.approx(1e6 / (prompt + output - 1), rel=1e-9)
    assert requests_per_s * (served.ttft_s + (output - 1) * served.tpot_s) == pytest.approx(clients, rel=1e-4)


def test_lengths_are_uniform_down_to_the_shortest() -> None:
    """TTFT of a prompt alone is its length: between 50 and 100 us, 75 us on average over many."""
    load = Load(1, 100, 1, shortest=0.5, rounds=2_000)
    served = serve(closed_form(token_ns=1e3), load, seats=1, token_budget=1_000, kv_tokens=10_000, front_end_s=1e-3)
    assert served.ttft_s == pytest.approx(1.075e-3, rel=0.001)
    assert np.isnan(served.tpot_s)


def test_a_request_that_fits_no_cache_is_counted() -> None:
    served = serve(closed_form(fixed_ns=1e6), Load(2, 100, 20, rounds=3), seats=8, token_budget=1_000, kv_tokens=100)
    assert served.refused == 6
    assert np.isnan(served.ttft_s)


def test_clients_seats_and_cache_bound_the_batch() -> None:
    load = Load(16, 100, 200, rounds=4)
    settings = {"token_budget": 5_000, "kv_tokens": 100_000}
    free = serve(closed_form(fixed_ns=1e6), load, seats=16, **settings)
    seated = serve(closed_form(fixed_ns=1e6), load, seats=4, **settings)
    assert free.running > 15
    assert seated.running <= 4
    assert seated.ttft_s > 100 * free.ttft_s


def test_the_steady_state_of_constant_steps() -> None:
    """Batch 8, outputs of 4: two prompts a step, 8 + 2 x 50 tokens of 1 us. Outputs of 16: half of the steps have one prompt."""
    replica = replica_of("Qwen/Qwen3-8B", "h100_sxm", "vllm", "bf16", 1)
    replica = type(replica)(**{**vars(replica), "step": closed_form(token_ns=1e3, base_w=100.0, tdp_w=700.0)})
    assert energy.steady_state(replica, 8.0, 60.0, 50.0, 4.0) == (pytest.approx(108e-6), pytest.approx(108e-4))
    assert energy.steady_state(replica, 8.0, 60.0, 50.0, 16.0)[0] == pytest.approx((8 + 58) / 2 * 1e-6)


def test_multiplied_degrees_are_those_of_one_replica() -> None:
    row = {name: str(value) for name, value in SERVING.items()}
    eight = serving.serving_row({**row, "tp_size": "64", "moe_tp_size": "8", "moe_ep_size": "8", "attention_dp_size": "1"})
    assert (eight.accelerators, eight.experts_apart) == (8, True)
    for changes, said in (
        ({"tp_size": "36", "moe_tp_size": "36"}, "more than 8"),
        ({"attention_dp_size": "8"}, "data parallel"),
        ({"pp_size": "2"}, "pipeline"),
    ):
        with pytest.raises(NotCoveredError, match=said):
            serving.serving_row({**row, **changes})


@pytest.mark.parametrize(
    ("changes", "kv_dtype"),
    [
        ({}, "bf16"),
        ({"precision": "fp8"}, "bf16"),
        ({"precision": "fp4", "system": "b200_sxm"}, "fp8"),
        ({"backend": "trtllm", "precision": "fp8"}, "bf16"),
        ({"backend": "trtllm", "precision": "fp8", "model_path": "meta-llama/Llama-3.3-70B-Instruct"}, "fp8"),
        ({"backend": "vllm", "precision": "fp8", "model_path": "meta-llama/Llama-3.3-70B-Instruct"}, "bf16"),
    ],
)
def test_which_checkpoints_bring_a_cache_in_eight_bits(changes: dict[str, str], kv_dtype: str) -> None:
    row = {name: str(value) for name, value in {**SERVING, **changes}.items()}
    assert serving.replica_of_row(serving.serving_row(row)).kv_dtype == kv_dtype


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"source_note": "source_file=h100_sxm/vllm/x.csv; gtl_job_id=2"}, "several replicas"),
        ({"silicon_tpot_ms": "4.0"}, "faster than one read"),
        ({"backend": "trtllm", "backend_version": "1.2.0rc6.post3"}, "several tokens"),
        ({"model_path": "Qwen/Qwen3-30B-A3B-FP8", "precision": "fp8"}, "not tuned"),
        ({"model_path": "Qwen/Qwen3-30B-A3B-FP8", "precision": "fp8", "backend_version": "0.18.0"}, None),
    ],
)
def test_rows_that_are_left_out_although_they_could_be_compared(changes: dict[str, str], said: str | None) -> None:
    """Qwen3-32B in bf16 on two H100s: 65.5 GB of weights at 6.7 TB/s are 9.8 ms."""
    row = {name: str(value) for name, value in {**SERVING, **changes}.items()}
    wanted = serving.serving_row(row)
    why = serving.left_out(row, wanted, serving.replica_of_row(wanted))
    assert (why is None) if said is None else (why is not None and said in why)


def test_tables_with_unknown_names_and_missing_files(tmp_path: Path) -> None:
    write(tmp_path, "aic_step_times", [STEP, {**STEP, "model": "unheard-of"}, {**STEP, "gpu": "zx81"}, {**STEP, "phase": "pause"}])
    write(
        tmp_path,
        "silicon_serving_ttft_tpot",
        [SERVING, {**SERVING, "model_path": "x/unheard-of"}, {**SERVING, "silicon_ttft_ms": ""}],
    )
    write(tmp_path, "mlenergy_serving_power", [BATCH, {**BATCH, "n_gpu": 4}, {**BATCH, "power_w_per_gpu": 0}])
    rows_csv = tmp_path / "out" / "rows.csv"
    result = report.accuracy(tmp_path, rows_csv=rows_csv)
    counts = {(row["table"], row["quantity"]): row["rows"] for row in result["strata"]}
    assert counts == {
        ("aic_step_times", "step time"): 1,
        ("silicon_serving_ttft_tpot", "TPOT"): 2,
        ("silicon_serving_ttft_tpot", "TTFT"): 1,
        ("mlenergy_serving_power", "iteration"): 2,
        ("mlenergy_serving_power", "power"): 1,
        ("mlenergy_serving_power", "energy per token"): 2,
    }
    assert sum(result["not_covered"]["aic_step_times"].values()) == 3
    assert result["not_covered"]["silicon_serving_ttft_tpot"] == {"no TTFT": 1, "no model 'x/unheard-of' in the catalog": 1}
    assert "vidur_layer_gemm" in result["missing"]
    assert len(rows_csv.read_text("utf-8").splitlines()) == 1 + sum(counts.values())
    said = shown.text(result)
    assert "zx81" in said
    assert "no such file: splitwise_step_times" in said
    for row in csv.DictReader(rows_csv.read_text("utf-8").splitlines()):
        assert 0.5 < float(row["predicted"]) / float(row["truth"]) < 2, row
        assert float(row["low"]) < float(row["predicted"]) < float(row["high"])
        assert (row["covered"] == "True") == (float(row["low"]) <= float(row["truth"]) <= float(row["high"]))


def test_the_other_tables_are_read(tmp_path: Path) -> None:
    split = {
        "model": "llama2-70b", "hardware": "a100-80gb", "tensor_parallel": 8, "prompt_size": 512, "batch_size": 4,
        "token_size": 128, "prompt_time": 290.0, "token_time": 46.0, "peak_power": 0.9, "average_power": 0,
    }  # fmt: skip
    write(tmp_path, "splitwise_step_times", [split, {**split, "hardware": "v100"}, {**split, "batch_size": 10**6}])
    write(tmp_path, "vidur_layer_gemm", [{"tp": 1, "n": 64, "layer_ms": 0.3, "gemm_ms": 0.2, "gpu": "a100", "m": "llama2-7b"}])
    reduce = {"network": "h100_dgx", "num_gpus": 4, "bytes": 2048 * 1024, "time_ms": 0.05}
    write(tmp_path, "vidur_allreduce", [reduce, {**reduce, "num_gpus": 16}, {**reduce, "bytes": 1000}])
    static = {
        "gpu": "h100_sxm", "w_dtype": "fp8", "model": "llama-7b", "batch": 64, "tp": 1, "isl": 128, "osl": 128,
        "out_tok_s_reported": 9000, "unit": "tok/s/GPU",
    }  # fmt: skip
    write(tmp_path, "trtllm_static_throughput", [static])
    first = {"gpu": "h100_sxm", "w_dtype": "fp8", "model": "llama-7b", "tp": 1, "isl": 2048, "ttft_ms_b1": 30}
    write(tmp_path, "trtllm_first_token_b1", [first])
    mlperf = {
        "submitter": "NVIDIA", "system": "DGX-H100_H100-SXM-80GBx8_TRT", "benchmark": "llama2-70b-99", "scenario": "Offline",
        "samples_per_s": 84.5, "tokens_per_s": 24525,
    }  # fmt: skip
    write(tmp_path, "mlperf_v4_1", [mlperf, {**mlperf, "benchmark": "resnet50"}, {**mlperf, "benchmark": "gptj-99"}])
    result = report.accuracy(tmp_path)
    quantities = {row["quantity"] for row in result["strata"]}
    assert quantities == {
        "prompt time", "token time", "power, prompt", "layer without attention", "all-reduce", "static throughput",
        "first token alone", "offline throughput",
    }  # fmt: skip
    assert sum(sum(reasons.values()) for reasons in result["not_covered"].values()) == 7


def test_a_table_without_a_column_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "aic_step_times", [{"model": "llama3.1-8b"}])
    with pytest.raises(TableError, match="no column gpu"):
        read_table(tmp_path, "aic_step_times", ("model", "gpu"))
    write(tmp_path, "mlenergy_serving_power", [BATCH])
    result = report.accuracy(tmp_path)
    assert {row["table"] for row in result["strata"]} == {"mlenergy_serving_power"}
    assert "no column gpu" in shown.text(result)


def test_rows_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    write(
        tmp_path,
        "aic_step_times",
        [{**STEP, "tp": "1.0"}, {**STEP, "tp": "two"}, {**STEP, "batch": ""}, {**STEP, "time_ms": "nan"}],
    )
    write(tmp_path, "silicon_serving_ttft_tpot", [{**SERVING, "batch_size": "?"}, {**SERVING, "tp_size": ""}])
    write(tmp_path, "mlenergy_serving_power", [{**BATCH, "n_gpu": ""}, {**BATCH, "batch": "-"}])
    result = report.accuracy(tmp_path)
    assert sum(row["rows"] for row in result["strata"] if row["table"] == "aic_step_times") == 1
    assert {table: sum(reasons.values()) for table, reasons in result["not_covered"].items()} == {
        "aic_step_times": 3, "silicon_serving_ttft_tpot": 2, "mlenergy_serving_power": 2
    }  # fmt: skip


def test_lines_that_end_early_and_files_that_are_no_text(tmp_path: Path) -> None:
    write(tmp_path, "aic_step_times", [STEP])
    with (tmp_path / "aic_step_times.csv").open("a", encoding="utf-8") as file:
        file.write("llama3.1-8b,h100_sxm,vllm,bfloat16\n")
    (tmp_path / "mlenergy_serving_power.csv").write_bytes(b"\xff\xfe\x00model")
    result = report.accuracy(tmp_path)
    assert [row["rows"] for row in result["strata"]] == [1]
    assert "cannot be read" in shown.text(result)


def test_one_layer_of_a_model_with_windows_or_plain_layers(tmp_path: Path) -> None:
    layer = {"tp": 1, "n": 64, "layer_ms": 0.3, "gpu": "h100", "m": "phi-2"}
    write(tmp_path, "vidur_layer_gemm", [{**layer, "m": name} for name in ("phi-2", "google/gemma-3-12b-it", "deepseek-v2-lite")])
    assert [row["rows"] for row in report.accuracy(tmp_path)["strata"]] == [3]


def test_a_folder_without_tables_ends_with_2(tmp_path: Path) -> None:
    for words in ([str(ROOT / "benchmarks" / "accuracy.py")], ["-m", "benchmarks", "accuracy"]):
        ended = subprocess.run(
            [sys.executable, *words, "--data", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 2
        assert "--data DIR or BILLCAST_DATA" in ended.stderr


def test_the_command_writes_rows_and_json(tmp_path: Path) -> None:
    (tmp_path / "perf").mkdir()
    write(tmp_path / "perf", "aic_step_times", [STEP, {**STEP, "ctx": 2048}])
    script, out = ROOT / "benchmarks" / "accuracy.py", tmp_path / "result.json"
    words = [sys.executable, str(script), "--data", str(tmp_path), "--rows", "1", "--out", str(out)]
    ended = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "aic_step_times: step time" in ended.stdout
    assert [row["rows"] for row in json.loads(out.read_text("utf-8"))["accuracy"]["strata"]] == [1]
    assert len((tmp_path / "outputs" / "accuracy" / "rows.csv").read_text("utf-8").splitlines()) == 2
