"""Sweeps: every combination is a job, bad ones are refused before any runs, one that fails loses nothing, one table at the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest
from interrupt_kit import billcast, interrupt

from sim import open_run
from sim.app.cli import main
from sim.app.sweep import read_sweep
from sim.errors import InputError
from sim.registry import names
from sim.studies.collect import TABLE, collect
from sim.studies.jobs import ERROR, STATUS, read_plan, run_job
from sim.studies.plugins import load_plugins
from sim.studies.sweep import MOST_JOBS

SHORT = ["scenario=peer_w3", "horizon=5s", "output.mean=4"]
TWO_AT_A_TIME = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]

AUTOSCALER = '''
from sim.policies.autoscalers.static import Static
from sim.registry import register

@register("autoscaler", "{name}")
class Picky(Static):
    """Breaks with `bad` replicas."""
    bad: int = 2
    def decide(self, view):
        if self.replicas == self.bad:
            raise ZeroDivisionError("no such luck")
        return super().decide(view)
'''

ROUTER = '''
from sim.policies.routers import OUTSTANDING, RESERVED_TOKENS, Router
from sim.registry import register

@register("router", "{name}")
class Weighed(Router):
    """Requests plus reserved tokens times a weight."""
    per_token: float = 0.001
    @staticmethod
    def score(f, p):
        return f[OUTSTANDING] + p[0] * f[RESERVED_TOKENS]
'''


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))  # plug-ins add to it; put back after the test


def _problems(*overrides: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        read_sweep([*SHORT, *overrides])
    return [str(problem) for problem in caught.value.problems]


def _table(folder: str | Path) -> list[dict[str, Any]]:
    """Return the rows of a sweep's table without what depends on the machine."""
    connection = duckdb.connect()
    found = connection.execute(f"SELECT * FROM read_parquet('{folder}/{TABLE}')")
    columns = [column[0] for column in found.description]
    rows = [dict(zip(columns, row, strict=True)) for row in found.fetchall()]
    connection.close()
    timed = ("wall_s", "engine.")
    return [{key: value for key, value in row.items() if not key.startswith(timed)} for row in rows]


@pytest.mark.parametrize(
    ("override", "key", "values"),
    [
        ("seed=1,2,3", "seed", [1, 2, 3]),
        ("seed=range(1,4)", "seed", [1, 2, 3]),
        ("rate_per_s=choice(0.5,2/s)", "rate_per_s", [0.5, "2/s"]),
        ("router=glob(l*)", "router", ["least_kv", "least_outstanding"]),
        ("deployments.llama_70b.pools=[a100],['a100']", "deployments.llama_70b.pools", [["a100"], ["a100"]]),
        ("account.name='a, b','c'", "account.name", ["a, b", "c"]),
        ("horizon=5s,0.1min", "horizon", ["5s", "0.1min"]),
        ("slo.ttft_s=300ms,1 s", "slo.ttft_s", ["300ms", "1 s"]),
        ("max_model_len=null,4096", "max_model_len", [None, 4096]),
    ],
)
def test_values_are_taken_apart_as_hydra_writes_them(override, key, values):
    sweep = read_sweep([*SHORT, override])
    assert [job[key] for job in sweep.settings] == values


def test_every_combination_is_a_job_and_the_last_key_changes_fastest():
    sweep = read_sweep([*SHORT, "seed=1,2", "router=random,least_kv,round_robin", "replicas=2"])
    assert [(job["seed"], job["router"]) for job in sweep.settings] == [
        (seed, router) for seed in (1, 2) for router in ("random", "least_kv", "round_robin")
    ]
    assert all("replicas" not in job for job in sweep.settings)  # it is not swept
    assert {scenario.deployments["llama_70b"].autoscaler.initial_replicas() for scenario in sweep.scenarios} == {2}
    assert [scenario.services["chat"].router.choice_name for scenario in sweep.scenarios[:2]] == ["random", "least_kv"]


def test_quotes_keep_a_comma_out_of_the_sweep():
    sweep = read_sweep([*SHORT, "account.name='a, b'"])
    assert [scenario.account.name for scenario in sweep.scenarios] == ["a, b"]


def test_scenarios_can_be_swept():
    sweep = read_sweep(["scenario=peer_w3,bench_chat8", "horizon=5s"])
    assert [scenario.name for scenario in sweep.scenarios] == ["peer_w3", "bench_chat8"]


def test_a_bad_sweep_is_refused_with_all_problems_at_once_and_says_in_which_jobs(capsys, tmp_path):
    code = main(["sweep", *SHORT, "replicas=1,-2,x", "seed=1,2", "hroizon=3", "hydra.launcher.n_jobz=2", *TWO_AT_A_TIME])
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, "")
    text = " ".join(captured.err.split())
    assert "4 problems" in text
    assert "replicas = -2 must not be negative (in 2 of 6 jobs, the first: replicas=-2, seed=1)" in text
    assert "'x' must be a whole number (in 2 of 6 jobs, the first: replicas=x, seed=1)" in text
    assert "did you mean 'horizon'?" in text
    assert "hydra.launcher.n_jobz" in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["seed=interval(1,2)"], "has no end"),
        (["router=glob(q*)"], "matches no option"),
        (["seed=1,2", "seed=3,4"], "is swept twice"),
        (["out=a,b"], "names several folders"),
        ([f"seed=range(0,{MOST_JOBS + 1})"], "has too many jobs"),
        (["seed=1,2", "hydra/launcher=jobli"], "hydra/launcher"),
        (["seed=1,2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=many"], "hydra.launcher.n_jobs"),
    ],
)
def test_what_cannot_be_swept(overrides, says):
    assert any(says in problem for problem in _problems(*overrides))


def test_a_run_that_is_given_several_values_names_the_sweep(capsys):
    assert main(["run", *SHORT, "seed=1,2"]) == 2
    assert "billcast sweep" in capsys.readouterr().err


def test_a_sweep_leaves_a_folder_a_job_and_one_table(capsys, tmp_path):
    assert main(["sweep", *SHORT, "seed=1,2", "router=random,least_kv", "out=all"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "4 of 4 jobs done" in captured.out
    assert all(len(line) <= 80 for line in captured.out.splitlines())
    assert [path.name for path in tmp_path.iterdir()] == ["all"]
    jobs = read_plan(tmp_path / "all").jobs
    found = {path.name for path in (tmp_path / "all").iterdir()}
    assert found == {"sweep.json", "scenarios.jsonl", TABLE, *(job.folder for job in jobs)}
    rows = _table("all")
    assert [(row["number"], row["seed"], row["router"], row["status"]) for row in rows] == [
        (0, 1, "random", "ok"), (1, 1, "least_kv", "ok"), (2, 2, "random", "ok"), (3, 2, "least_kv", "ok")
    ]  # fmt: skip
    for row in rows:
        run = open_run(tmp_path / "all" / row["folder"])
        assert row["folder"].endswith(run.manifest["scenario_hash"])
        assert row["requests.completed"] == run.summary["requests"]["completed"]
        assert row["bill.total_usd"] == run.summary["bill"]["total_usd"]
        assert run.summary["requests"]["completed"] > 0
        assert row["latency.chat.ttft_s.p95"] == run.summary["latency"]["chat"]["ttft_s"]["p95"]
        assert row["slo.chat.ttft.attainment"] == run.summary["slo"]["chat"]["ttft"]["attainment"]
        assert row["energy.kwh"] == run.summary["energy"]["kwh"]


def test_a_job_is_the_same_run_as_alone():
    assert main(["sweep", *SHORT, "seed=1,2", "out=all"]) == 0
    assert main(["run", *SHORT, "seed=2", "out=alone"]) == 0
    second = Path("all") / read_plan(Path("all")).jobs[1].folder
    assert (second / "windows.parquet").read_bytes() == Path("alone/windows.parquet").read_bytes()


def test_one_failing_job_loses_nothing_in_other_processes_too(capsys, tmp_path):
    """The plug-in fails with two replicas, in a worker that has to load it first; basic and joblib leave the same table."""
    (tmp_path / "picky.py").write_text(AUTOSCALER.format(name="picky_of_a_sweep"))
    settings = [*SHORT, "autoscaler=picky_of_a_sweep", "replicas=1,2,3", "--plugin", "picky.py"]
    assert main(["sweep", *settings, "out=one"]) == 1
    capsys.readouterr()
    assert main(["run", "-m", *settings, "out=two", *TWO_AT_A_TIME]) == 1
    out = capsys.readouterr().out
    assert "2 of 3 jobs done" in out
    assert "job 1 failed: ZeroDivisionError: no such luck" in out
    failed = tmp_path / "two" / read_plan(tmp_path / "two").jobs[1].folder
    assert sorted(path.name for path in failed.iterdir()) == [ERROR, STATUS]
    assert "Traceback" in (failed / ERROR).read_text()
    assert json.loads((failed / STATUS).read_text())["settings"] == {"replicas": 2}
    one, two = _table("one"), _table("two")
    assert one == two
    assert [row["status"] for row in one] == ["ok", "failed", "ok"]
    assert one[1]["bill.total_usd"] is None


def test_a_router_from_outside_is_swept_too(tmp_path, capsys):
    (tmp_path / "weighed.py").write_text(ROUTER.format(name="weighed_of_a_sweep"))
    plugin = ["--plugin", "weighed.py"]
    assert main(["sweep", *SHORT, "router=weighed_of_a_sweep,random", "replicas=2", "out=all", *plugin, *TWO_AT_A_TIME]) == 0
    assert [row["router"] for row in _table("all")] == ["weighed_of_a_sweep", "random"]
    capsys.readouterr()
    assert main(["catalog", "policies", "router", *plugin]) == 0
    assert "weighed_of_a_sweep" in capsys.readouterr().out
    for command in ("validate", "show"):
        assert main([command, *SHORT, "router=weighed_of_a_sweep", *plugin]) == 0
    assert "per_token" in capsys.readouterr().out
    assert main(["validate", *SHORT, "router=weighed_of_a_swep", *plugin]) == 2
    assert "did you mean 'weighed_of_a_sweep'?" in capsys.readouterr().err


def test_a_sweep_in_which_nothing_completes_has_the_same_columns():
    main(["sweep", *SHORT, "seed=1,2", "out=some"])
    main(["sweep", *SHORT, "seed=1,2", "output.mean=10000", "out=none"])
    some, none = _table("some"), _table("none")
    # Of the uses of money and of energy only those that occur are there.
    columns = [[name for name in rows[0] if not name.startswith(("bill.by_use", "energy.by_use"))] for rows in (some, none)]
    assert columns[0] == columns[1]
    assert none[0]["latency.chat.ttft_s.p95"] is None


def test_a_job_without_a_request_is_a_row_without_numbers(capsys):
    assert main(["sweep", *SHORT, "seed=1,2", "rate_per_s=0.0001", "out=empty"]) == 0
    assert "2 of 2 jobs done" in capsys.readouterr().out
    assert [row["requests.arrived"] for row in _table("empty")] == [0, 0]
    assert [row["slo.chat.ttft.attainment"] for row in _table("empty")] == [None, None]


def test_plugins_of_one_name_in_two_folders_are_two(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(ROUTER.format(name=f"weighed_in_{folder}"))
    files = [str(tmp_path / folder / "mine.py") for folder in ("a", "b")]
    load_plugins([*files, files[0]])
    assert {"weighed_in_a", "weighed_in_b"} <= set(names("router"))


def test_collect_makes_the_table_again_and_says_what_did_not_run(capsys, tmp_path):
    main(["sweep", *SHORT, "seed=1,2", "out=all"])
    before = (tmp_path / "all" / TABLE).read_bytes()
    (tmp_path / "all" / TABLE).unlink()
    capsys.readouterr()
    assert main(["collect", "all"]) == 0
    assert (tmp_path / "all" / TABLE).read_bytes() == before
    (tmp_path / "all" / read_plan(tmp_path / "all").jobs[0].folder / STATUS).unlink()
    assert main(["collect", "all"]) == 1
    assert [row["status"] for row in collect(tmp_path / "all").rows] == ["not run", "ok"]
    assert "1 of 2 jobs done" in capsys.readouterr().out


@pytest.mark.parametrize("folder", ["none", "."])
def test_what_is_no_sweep_is_said_to_be_none(folder, capsys):
    assert main(["collect", folder]) == 2
    assert "a folder written by `billcast sweep`" in capsys.readouterr().err


def test_a_folder_with_something_in_it_is_refused_and_a_job_is_never_overwritten(capsys, tmp_path):
    main(["sweep", *SHORT, "seed=1,2", "out=all"])
    kept = {path: path.read_bytes() for path in (tmp_path / "all").rglob("*") if path.is_file()}
    assert main(["sweep", *SHORT, "seed=3,4", "out=all"]) == 2
    assert "is not an empty folder" in capsys.readouterr().err
    run_job(tmp_path / "all", read_plan(tmp_path / "all").jobs[0])
    assert {path: path.read_bytes() for path in (tmp_path / "all").rglob("*") if path.is_file()} == kept


def test_equal_jobs_have_folders_of_their_own(tmp_path):
    assert main(["sweep", *SHORT, "seed=1,1"]) == 0
    [folder] = (tmp_path / "outputs" / "sweeps").iterdir()
    first, second = read_plan(folder).jobs
    assert first.folder != second.folder
    assert first.folder.split("-")[1] == second.folder.split("-")[1]


def test_ctrl_c_keeps_what_had_finished(tmp_path):
    with billcast("sweep", "scenario=bench_chat8", "horizon=10s,3650d", "records=all", "out=all") as process:
        code, out, err = interrupt(process, lambda: any(tmp_path.glob("all/.001*/**/requests.*.part.parquet")))
    assert code == 130
    assert "the jobs that had finished are kept" in err
    assert "1 of 2 jobs done" in out
    assert [row["status"] for row in _table(tmp_path / "all")] == ["ok", "not run"]
    assert list((tmp_path / "all").glob(".*")) == []


def test_the_report_of_a_run_and_of_a_sweep(capsys, tmp_path):
    main(["sweep", *SHORT, "seed=1,2", "out=all"])
    job = tmp_path / "all" / read_plan(tmp_path / "all").jobs[0].folder
    capsys.readouterr()
    assert main(["report", str(job)]) == 0
    out = capsys.readouterr().out
    assert "INVOICE" in out
    assert str(job / "report" / "index.html") in out
    (tmp_path / "all" / read_plan(tmp_path / "all").jobs[1].folder / STATUS).unlink()
    assert main(["report", "all"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("report/index.html")
    assert lines[1] == "job 1  not run"
    assert main(["report", "none"]) == 2
    assert "a folder written by `billcast run`" in capsys.readouterr().err


def test_reports_and_tables_need_no_hydra():
    script = (
        "import sys; from sim.app.cli import main\n"
        "for command in ('report', 'collect'): main([command, 'none'])\n"
        "sys.exit('hydra' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=False).returncode == 0
