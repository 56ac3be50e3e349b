"""The measured step times of `experiments/calibrate_gpu`: their table, their page, and what the comparison makes of them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sim.catalog.loader import load_catalog
from sim.perf.roofline import kernel_times

compare = pytest.importorskip("experiments.calibrate_gpu.compare", reason="not a checkout")
from experiments.calibrate_gpu import predict, shapes, table  # noqa: E402
from experiments.calibrate_gpu.board import POWER_REASONS, Reading, Sample, summarise  # noqa: E402

CATALOG = load_catalog()
TABLES = sorted(compare.MEASURED.glob("*.csv"))
ROWS, REPORTS = compare.load(TABLES)


def a_row(**changes: object) -> table.Row:
    """Return a decode step of eight sequences on an H100, changed."""
    eight = next(
        row for row in compare.usual(ROWS) if (row.model, row.dtype, row.decodes, row.context) == ("llama-3.1-8b", "bf16", 8, 512)
    )
    return replace(eight, **changes)


def test_rows_of_the_measured_tables_say_the_same_step_twice() -> None:
    assert len(ROWS) > 400
    for row in ROWS:
        point = shapes.Point(row.decodes, row.context, row.chunks, row.chunk_tokens, row.prior)
        assert (row.phase, row.n, row.n_out, row.c) == (point.phase, point.tokens, point.outputs, point.context_sum)
        assert row.s == pytest.approx(point.attention_pairs, rel=1e-5)


def test_measured_values_are_physical() -> None:
    catalog = load_catalog()
    for row in ROWS:
        assert 0 < row.step_p10_s <= row.step_s <= row.step_p90_s
        assert row.repetitions >= 7
        accelerator, model = catalog.accelerators[predict.accelerator_of(row)], catalog.models[row.model]
        layers = model.linear_parameters * row.layers / model.layers
        read_bytes = (layers * (1 if row.dtype == "fp8" else 2) + 2 * model.head_parameters) / row.tensor_parallel
        assert read_bytes / row.step_s < 1e9 * accelerator.bandwidth_gb_per_s
        assert 2 * layers * row.n / row.tensor_parallel / row.step_s < 1e12 * accelerator.dense_tflops[row.dtype]
        assert (row.power_w is None) == (row.rest > 0) == (row.energy_j is None)
        if row.power_w is not None and row.energy_j is not None:
            assert accelerator.idle_w < row.power_w < 1.02 * accelerator.tdp_w
            assert row.energy_j == pytest.approx(row.power_w * row.step_s, rel=1e-4)


def test_tables_are_small_and_their_facts_are_complete() -> None:
    assert sum(path.stat().st_size for path in compare.MEASURED.iterdir()) < 1_000_000
    for report in REPORTS.values():
        assert {"gpu", "driver", "cuda", "torch", "date_utc", "power_limit_w", "max_sm_mhz"} <= set(report["machine"])
        assert report["power_from"] == ["energy counter"]
        assert report["left_out"] == []
        for name, differences in report["checks"].items():
            assert max(differences.values()) < (0.15 if "fp8" in name else 0.04)


def test_shapes_are_those_of_the_catalog() -> None:
    models = load_catalog().models
    for name, shape in shapes.SHAPES.items():
        if name != "tiny":
            model = models[name]
            assert (shape.layers, shape.hidden, shape.ffn, shape.vocabulary) == (
                model.layers,
                model.hidden,
                model.ffn,
                model.vocabulary,
            )
            assert (shape.heads, shape.kv_heads, shape.head_dim) == (model.heads, model.kv_heads, model.head_dim)
            assert shape.linear_parameters == model.linear_parameters
    with pytest.raises(ValueError, match="cannot be split over 3"):
        shapes.SHAPES["tiny"].shard(3)


def test_a_written_table_reads_back(tmp_path: Path) -> None:
    rows = [a_row(), a_row(power_w=None, energy_j=None, sm_mhz=None, rest=9)]
    with (tmp_path / "mine.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = table.Writer(stream)
        for row in rows:
            writer.write(row)
    assert table.read(tmp_path / "mine.csv") == rows


@pytest.mark.parametrize(("text", "message"), [("gpu,model\n", "columns"), (None, "line 2")])
def test_a_broken_table_names_file_and_line(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(text or ",".join(table.COLUMNS) + "\n" + ",".join("x" for _ in table.COLUMNS) + "\n", "utf-8")
    with pytest.raises(ValueError, match=f"mine.csv.*{message}"):
        table.read(path)


def test_kernels_alone_are_the_step_model_without_its_engine() -> None:
    row = a_row()
    whole = kernel_times(
        CATALOG.models[row.model],
        CATALOG.accelerators["h100-sxm"],
        CATALOG.fits["h100-sxm/vllm/bf16"],
        weight_dtype="bf16",
        kv_dtype="bf16",
        tensor_parallel=1,
    )
    step = (np.array([float(value)]) for value in (row.n, row.n_out, row.s, row.decodes, row.c / row.decodes))
    assert predict.predicted(row, predict.fit_of(row)).step_s == pytest.approx(float(whole.step_s(*step)[0]), rel=1e-6)


def test_a_part_of_eight_costs_less_than_the_whole_and_draws_the_power_of_one_gpu() -> None:
    whole = a_row(model="llama-3.1-70b", layers=80)
    one, eighth = (predict.predicted(row, predict.fit_of(row)) for row in (whole, replace(whole, tensor_parallel=8)))
    assert one.step_s / 8 < eighth.step_s < one.step_s / 2
    assert 0 < eighth.power_w <= 700


def test_a_refit_finds_the_parameters_that_made_the_times() -> None:
    truth = replace(predict.fit_of(a_row()), eta_compute=0.6, eta_weights=0.8, eta_attention=0.4, eta_kv=0.7, layer_s=30e-6)
    rows = [row for row in compare.usual(ROWS) if (row.gpu, row.dtype) == (a_row().gpu, "bf16")][::2]
    found = predict.refit([replace(row, step_s=predict.predicted(row, truth).step_s) for row in rows])
    for name in predict.FITTED:
        assert getattr(found, name) == pytest.approx(getattr(truth, name), rel=1e-3)


def test_errors_are_signed_towards_too_long() -> None:
    assert (
        compare.errors([a_row(step_s=value) for value in (1.0, 2.0, 4.0)], lambda row: 2 / row.step_s - 1) == "50.0 | 100.0 | +0.0"
    )
    slow = a_row(step_s=math.inf)
    assert compare.time_error(slow) == -1.0


@pytest.mark.slow
def test_the_page_is_what_the_comparison_gives() -> None:
    text = compare.PAGE.read_text("utf-8")
    times = compare.data_times()
    for name, body in compare.blocks(ROWS, REPORTS, times).items():
        assert compare.with_block(text, name, body) == text, name
    assert times is not None or "<!-- composed: begin" in text


def test_power_comes_from_steps_of_the_energy_counter_where_there_are_some() -> None:
    def sample(milliseconds: int, energy_mj: int, reasons: int = 0) -> Sample:
        return Sample(milliseconds * 1_000_000, energy_mj, 650_000, 1900, 2619, 50, reasons)

    # 50 J between 100 and 200 ms, whatever the counter does between its steps and before the first.
    counted = [
        sample(0, 5),
        sample(100, 20_005),
        sample(130, 20_005),
        sample(150, 40_005),
        sample(200, 70_005),
        sample(240, 70_005),
    ]
    assert summarise(counted).power_w == pytest.approx(500)
    still = [sample(0, -1), sample(10, -1, POWER_REASONS)]
    assert (summarise(still).power_w, summarise(still).source, summarise(still).power_limited) == (650, "samples of power", 0.5)
    assert summarise([]) == Reading()


def test_facts_name_no_single_machine() -> None:
    for path in compare.MEASURED.glob("*.json"):
        machine = json.loads(path.read_text("utf-8"))["machine"]
        assert not {"uuid", "serial", "hostname"} & {key.lower() for key in machine}
