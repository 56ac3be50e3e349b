"""Tables of step times: what is read, what is refused, and the step model that goes through the points."""

from __future__ import annotations

import csv
import random
from dataclasses import replace
from pathlib import Path

import pytest

from sim import load_scenario, simulate
from sim.catalog.loader import load_catalog
from sim.errors import InputError, Problems
from sim.perf.steptime import ONE_NS_FX, StepModel, closed_form
from sim.perf.table import table_step_model
from sim.perf.table_reader import StepRow, read_step_table

ENGINES = load_catalog().engines
PLAIN = "phase,batch,prefill_tokens,ctx,time_ms"
ROWS = [
    "decode,1,0,100,5",
    "decode,1,0,1100,6",
    "decode,9,0,100,9",
    "decode,9,0,1100,18",
    "prefill,1,16,0,5",
    "prefill,1,2048,0,60",
]


def table(folder: Path, *lines: str, header: str = PLAIN) -> str:
    path = folder / "steps.csv"
    path.write_text("\n".join([header, *lines]) + "\n", "utf-8")
    return str(path)


def read(path: str, **where: str) -> tuple[tuple[StepRow, ...], list[str]]:
    problems = Problems()
    rows = read_step_table(path, where, "deployments.chat.step_table", problems)
    return rows, [str(problem) for problem in problems.found]


def built(rows: tuple[StepRow, ...] | list[StepRow], engine: str = "bare", tokens: int = 4096, sequences: int = 16) -> StepModel:
    return table_step_model(
        closed_form(tdp_w=700.0), rows, ENGINES[engine], accelerators=1, idle_w=100.0, tokens=tokens, sequences=sequences
    )


def ms(step: StepModel, n: int, n_out: int, s_twice: int = 0, context: int = 0, decoding: int = 0) -> float:
    return step.step_fx(n, n_out, s_twice, context, decoding) / ONE_NS_FX / 1e6


def test_decode_times_between_and_beyond_the_points_worked_by_hand(tmp_path: Path) -> None:
    step = built(read(table(tmp_path, *ROWS))[0])
    assert ms(step, 1, 1, context=100, decoding=1) == pytest.approx(5.0)
    assert ms(step, 1, 1, context=600, decoding=1) == pytest.approx(5.5)
    assert ms(step, 9, 9, context=9 * 600, decoding=9) == pytest.approx(13.5)
    # Half way between batches of 1 and 9; mean context 600: (5.5 + 13.5) / 2.
    assert ms(step, 5, 5, context=5 * 600, decoding=5) == pytest.approx(9.5)
    # Beyond the last context: 1 us a token for one, 9 us for nine; beyond the largest batch in the line of 1 and 9.
    assert ms(step, 1, 1, context=3100, decoding=1) == pytest.approx(8.0)
    assert ms(step, 9, 9, context=9 * 3100, decoding=9) == pytest.approx(36.0)
    assert ms(step, 13, 13, context=13 * 1100, decoding=13) == pytest.approx(24.0)


def test_prefill_and_mixed_times_worked_by_hand(tmp_path: Path) -> None:
    lines = [*ROWS[:5], "prefill,1,1016,0,30", "prefill,1,1016,1000,31.016"]
    step = built(read(table(tmp_path, *lines))[0])
    # 1,016 tokens with 1,000 cached have S = 1,016,000 more and take 1.016 ms more: 1 ns for each unit of S.
    assert step.attention_fx / ONE_NS_FX * 2 == pytest.approx(1.0, rel=1e-6)
    assert ms(step, 1016, 1, 1016**2) == pytest.approx(30.0)
    assert ms(step, 1016, 1, 1016 * (2000 + 1016)) == pytest.approx(31.016)
    # f(16) = 5 - 0.000128, f(1016) = 30 - 0.516128 ms; half way between them, and S of 516 tokens.
    half = (5 - 0.000128 + 30 - 0.516128) / 2
    assert ms(step, 516, 1, 516**2) == pytest.approx(half + 516**2 / 2 * 1e-6)
    # One sequence of context 1,100 decodes beside a chunk of 515: what it takes above f(1) = f(16) comes on top.
    mixed = half + 515**2 / 2 * 1e-6 + (6 - (5 - 0.000128))
    assert ms(step, 516, 2, 515**2, 1100, 1) == pytest.approx(mixed, rel=1e-6)


def test_the_engine_comes_on_top(tmp_path: Path) -> None:
    rows = read(table(tmp_path, *ROWS))[0]
    engine = replace(ENGINES["bare"], kernel_scale=0.5, step_s=0.002, sequence_s=1e-4)
    step = table_step_model(closed_form(), rows, engine, accelerators=1, idle_w=0.0, tokens=4096, sequences=16)
    assert ms(step, 9, 9, context=9 * 600, decoding=9) == pytest.approx(0.5 * 13.5 + 2.0 + 0.9)


def test_energy_is_power_times_time_where_the_table_has_power(tmp_path: Path) -> None:
    lines = [f"{line},{power_w}" for line, power_w in zip(ROWS, (200, 300, 400, 500, 600, 650), strict=True)]
    rows = read(table(tmp_path, *lines, header=f"{PLAIN},power_w"))[0]
    engine = replace(ENGINES["bare"], step_s=0.001)
    step = table_step_model(closed_form(tdp_w=1e6), rows, engine, accelerators=2, idle_w=100.0, tokens=4096, sequences=16)
    for load, power_w, time_s in (
        ((1, 1, 0, 100, 1), 200, 0.005),
        ((9, 9, 0, 9 * 1100, 9), 500, 0.018),
        ((2048, 0, 0, 0, 0), 650, 0.06),
    ):
        assert step.step_j(step.step_fx(*load), *load) == pytest.approx(2 * (power_w * time_s + 100 * 0.001))


def test_energy_is_that_of_the_base_model_where_the_table_has_none(tmp_path: Path) -> None:
    base = closed_form(
        token_ns=100.0, context_ns=1.0, token_j=0.5, sequence_j=0.25, attention_j=1e-3, context_j=1e-4, base_w=50.0, tdp_w=1e9
    )
    rows = read(table(tmp_path, *ROWS))[0]
    step = table_step_model(base, rows, ENGINES["bare"], accelerators=1, idle_w=100.0, tokens=64, sequences=16)
    for load in ((9, 9, 0, 5000, 9), (40, 3, 900, 200, 2), (100, 0, 10, 0, 0)):
        assert step.step_j(ONE_NS_FX, *load) == pytest.approx(base.step_j(ONE_NS_FX, *load))


def test_a_table_of_a_closed_form_gives_that_form_back() -> None:
    truth = closed_form(token_ns=9_000.0, fixed_ns=4e6, context_ns=40.0, attention_ns=0.7, sequence_ns=20_000.0)
    rows = [
        StepRow("decode", batch, 1, context, ms(truth, batch, batch, 0, batch * context, batch) / 1e3)
        for batch in (1, 4, 64)
        for context in (128, 2048)
    ]
    rows += [
        StepRow("prefill", 1, size, cached, ms(truth, size, 1, size * (2 * cached + size)) / 1e3)
        for size in (16, 512, 4096)
        for cached in (0, 1000)
    ]
    step, draw = built(rows, sequences=64), random.Random(7)
    for _ in range(200):
        batch, context, chunk = draw.randint(1, 64), draw.randint(1, 9000), draw.randint(16, 6000)
        load = (batch, batch, 0, batch * context, batch)
        assert ms(step, *load) == pytest.approx(ms(truth, *load), rel=1e-6)
        assert ms(step, chunk, 1, chunk * chunk) == pytest.approx(ms(truth, chunk, 1, chunk * chunk), rel=1e-6)


def test_batches_measured_at_one_context_grow_like_the_others(tmp_path: Path) -> None:
    lines = ["decode,1,0,100,5", "decode,2,0,100,6", "decode,2,0,600,7", "prefill,1,16,0,5", "prefill,1,2048,0,60"]
    step = built(read(table(tmp_path, *lines))[0])
    assert ms(step, 1, 1, context=600, decoding=1) == pytest.approx(5.5)


def test_layouts_of_servers_and_of_the_calibration(tmp_path: Path) -> None:
    header = "model,hardware,tensor_parallel,prompt_size,batch_size,token_size,prompt_time,token_time,peak_power"
    lines = ["a,x,2,128,1,100,50,30,1.0", "a,x,2,256,2,100,90,35,1.0", "a,x,2,256,1,100,70,31,1.0", "b,x,2,1,1,1,1,1,1.0"]
    rows, found = read(table(tmp_path, *lines, header=header), model="a")
    assert not found
    assert rows[:2] == (StepRow("prefill", 1, 128, 0, 0.05), StepRow("decode", 1, 1, 178, 0.03))
    measured = Path(__file__).parents[2] / "experiments" / "calibrate_gpu" / "measured" / "2026-11-23-h200-sxm.csv"
    where = {
        "model": "llama-3.1-8b",
        "dtype": "bf16",
        "launch": "graph",
        "attention": "flash",
        "elementwise": "compiled",
        "rest": "0",
    }
    rows, found = read(str(measured), **where, layers="32")
    assert not found
    with measured.open(encoding="utf-8") as file:
        lines_of_it = [line for line in csv.DictReader(file) if all(line[name] == value for name, value in where.items())]
    assert len(rows) == sum(line["phase"] != "mixed" for line in lines_of_it)
    assert rows[0] == StepRow("decode", 1, 1, 128, 0.00465018, 461.699)


@pytest.mark.parametrize(
    ("lines", "where", "says"),
    [
        (["decode,1,0,100,-1"], {}, "line 2: time_ms = '-1' is not a number of at least 0"),
        (["decode,1,0,100,0"], {}, "line 2: time_ms = 0: a step takes time"),
        (["decode,1.5,0,100,5"], {}, "line 2: batch = '1.5' is not a whole number of at least 1"),
        (["decode,1,0,100,5", "rest,1,0,100,5"], {}, "line 3: phase = 'rest' is not decode, prefill or mixed"),
        (["prefill,1,0,100,nan"], {}, "line 2: prefill_tokens = '0' is not a whole number of at least 1"),
        (["decode,1"], {}, "line 2: ctx = '' is not a number"),
        (ROWS[:2], {}, "has 1 batch sizes of decode steps; allowed: 2 or more"),
        (ROWS[:4], {}, "has 0 sizes of prefill steps"),
        (["decode,1,0,100,5", "decode,2,0,100,5", *ROWS[4:]], {}, "has 1 contexts of decode steps"),
        (ROWS, {"modell": "x"}, "has no such column"),
        (ROWS, {"batch": "77"}, "no row of the table has this"),
    ],
)
def test_tables_that_make_no_sense(tmp_path: Path, lines: list[str], where: dict[str, str], says: str) -> None:
    rows, found = read(table(tmp_path, *lines), **where)
    assert not rows
    assert any(says in problem for problem in found), found


def test_every_bad_row_is_told_up_to_twenty(tmp_path: Path) -> None:
    _, found = read(table(tmp_path, *["decode,0,0,100,5"] * 23))
    assert found[0].count("batch = '0'") == 20
    assert "and 3 more" in found[0]


def test_a_choice_is_needed_where_a_file_holds_several_things(tmp_path: Path) -> None:
    path = table(tmp_path, *[f"{name},{line}" for name in ("a", "b") for line in ROWS], header=f"model,{PLAIN}")
    _, found = read(path)
    assert found == ["deployments.chat.step_table.where.model = '': the rows are of several things: choose one; allowed: a, b"]
    assert len(read(path, model="b")[0]) == 6
    assert "cannot be read: No such file" in read(str(tmp_path / "none.csv"))[1][0]
    assert "has not the columns" in read(table(tmp_path, "1,2", header="x,y"))[1][0]


@pytest.fixture
def scenario(tmp_path: Path) -> list[str]:
    return [
        "horizon=10m",
        "deployments.llama_8b.perf=table",
        f"deployments.llama_8b.step_table.path={table(tmp_path, *ROWS)}",
        "deployments.llama_8b.engine=bare",
    ]


@pytest.mark.parametrize("engine", ["reference", "compiled"])
def test_a_run_on_a_table_is_the_same_in_both_engines(scenario: list[str], engine: str) -> None:
    run = simulate(load_scenario("bench_chat8", [*scenario, f"engine={engine}", "horizon=1m"]))
    expected = simulate(load_scenario("bench_chat8", [*scenario, "engine=reference", "horizon=1m"]))
    assert run.summary["latency"] == expected.summary["latency"]
    assert run.manifest["step_models"]["llama_8b on h100"]["validity"] == "measured"
    (path,) = (word.partition("path=")[2] for word in scenario if "path=" in word)
    assert path in run.manifest["inputs"]


def test_settings_that_do_not_go_with_a_table(scenario: list[str]) -> None:
    more = ["deployments.llama_8b.optimizations.flash_attention=false", "deployments.llama_8b.pipeline_parallel=2"]
    with pytest.raises(InputError) as caught:
        simulate(load_scenario("bench_chat8", [*scenario, *more]))
    paths = {problem.path for problem in caught.value.problems}
    assert {"deployments.llama_8b.optimizations.flash_attention", "deployments.llama_8b.pipeline_parallel"} <= paths
    with pytest.raises(InputError, match="names no file"):
        simulate(load_scenario("bench_chat8", ["deployments.llama_8b.perf=table"]))
    with pytest.raises(InputError, match="did you mean 'table'"):
        simulate(load_scenario("bench_chat8", ["deployments.llama_8b.perf=tabel"]))
    with pytest.raises(InputError, match="step times come from the roofline"):
        simulate(load_scenario("bench_chat8", ["deployments.llama_8b.step_table.path=x.csv"]))
