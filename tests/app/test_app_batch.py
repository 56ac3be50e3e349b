"""The scenarios with batchers and with batch jobs, from their files to the report, equal on both engines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sim import load_scenario, open_run, simulate
from sim.app.cli import main
from sim.results.invariants import check_run
from sim.schema import TABLES

SHORT = {
    "vision_batcher": ["horizon=20s", "window=5s"],
    "fraud_scoring": ["horizon=2s", "window=1s"],
    "ranking": ["horizon=2s", "window=1s"],
    "image_classification": ["horizon=2s", "window=1s"],
    "embeddings": ["horizon=5s", "window=1s"],
    "night_batch": ["start=2026-09-15T21:58:00Z", "horizon=4min", "window=1min", "requests=1500", "seed=3"],
}


@pytest.mark.parametrize("name", SHORT)
def test_both_engines_write_the_same_tables(name: str, tmp_path: Path) -> None:
    runs = {
        engine: simulate(load_scenario(name, [*SHORT[name], "records=all", f"engine={engine}"]), out=tmp_path / engine)
        for engine in ("reference", "compiled")
    }
    for result in runs.values():
        check_run(result)
        assert len(result.table("requests")["request"]) > 1_000
    for table in TABLES:
        one, other = (result.table(table) for result in runs.values())
        assert one.keys() == other.keys()
        for column, values in one.items():
            if values.dtype.kind == "f":
                np.testing.assert_allclose(other[column], values, rtol=1e-9, atol=1e-9, err_msg=f"{table}.{column}")
            else:
                np.testing.assert_array_equal(other[column], values, err_msg=f"{table}.{column}")
    for result in runs.values():
        result.close()


def test_the_night_job_ends_in_time_and_the_chat_keeps_its_targets(tmp_path: Path) -> None:
    result = simulate(load_scenario("night_batch", SHORT["night_batch"]), out=tmp_path / "run")
    jobs, slo = result.summary["services"]["nightly"]["jobs"], result.summary["slo"]
    assert (jobs["submitted"], jobs["in_time"], jobs["completed"]) == (1, 1, 1500)
    assert slo["nightly"] == {}
    assert slo["chat"]["ttft"]["met"]
    assert slo["chat"]["tpot"]["met"]
    assert 0 < jobs["usd"] <= result.summary["bill"]["by_service"]["nightly"]


@pytest.mark.parametrize("name", ["vision_batcher", "ranking", "image_classification", "night_batch"])
def test_commands_show_what_is_special_about_them(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    commands = (["validate"], ["show"], ["run", "out=result"])
    said = []
    for command in commands:
        assert main([*command, f"scenario={name}", *SHORT[name]]) == 0
        said.append(capsys.readouterr().out)
        assert max(len(line) for line in said[-1].splitlines()) <= 80
    assert main(["report", "result"]) == 0
    page = (tmp_path / "result" / "report" / "index.html").read_text("utf-8")
    wanted = {
        "vision_batcher": ("of the scenario, assumed", "batch of 32", "per 1,000 items of vision"),
        "ranking": ("roofline of dlrm-dcnv2 in bf16, assumed", "operations of an item", "per 1,000 items of feed_on_gpu"),
        "image_classification": ("fitted (l4/convolution)", "MLPerf", "resnet_gpu on l4: fitted"),
        "night_batch": ("nightly", "submit_at", "BATCH JOBS"),
    }[name]
    assert [text for text, where in zip(wanted, said, strict=True) if text not in where] == []
    assert wanted[-1] in page


def test_a_run_with_jobs_can_be_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    result = simulate(load_scenario("night_batch", SHORT["night_batch"]), out=folder)
    arrived = result.summary["requests"]["arrived"]
    result.close()
    assert main(["trace", str(folder), "--request", str(arrived - 1)]) == 0
    assert open_run(folder).table("jobs")["job"].tolist() == [0]
    assert capsys.readouterr().out
