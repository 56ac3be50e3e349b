"""`billcast price` on the command line: what it prints, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pytest

import sim
from sim import open_run
from sim.app.cli import main

ROOT = Path(sim.__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "how-to" / "price-machine-lives.md"
LIVES = """id,instance,region,zone,purchase,begin,end,ended,price_usd_per_hour
a,p5.4xlarge,us-east-1,us-east-1a,on_demand,2026-11-02T10:00:00Z,2026-11-02T10:00:59.2Z,user,4.00
b,p5.4xlarge,us-east-1,us-east-1a,on_demand,2026-11-02T10:30:00Z,2026-11-02T12:00:00Z,running,4.00
c,p5.4xlarge,us-east-1,us-east-1a,spot,2026-11-02T10:00:00Z,2026-11-02T10:59:59Z,interrupted,1.00
"""
PROMISE = 'commitments:\n  ri: {choice: reserved_instances, instance: p5.4xlarge, region: us-east-1, usd_per_hour: "2.50"}\n'


@pytest.fixture
def lives(tmp_path: Path) -> Path:
    file = tmp_path / "lives.csv"
    file.write_text(LIVES)
    (tmp_path / "promise.yaml").write_text(PROMISE)
    return file


def test_the_bill_by_rule(lives: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """60 s and 1.5 h at 4.00 are 0.07 and 6.00; an interruption after 3,599 s is free."""
    assert main(["price", str(lives)]) == 0
    shown = capsys.readouterr().out
    assert "BILL of 3 machines in USD, 2026-11-02 10:00 to 2026-11-02 12:00 UTC" in shown
    assert "6.07" in shown
    assert "0 per hour (interrupted early)" in shown
    assert "100.0% of the bill rests on assumed prices" in shown


def test_each_machine_and_other_ways_as_json(lives: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["price", str(lives), "--json", "--each", "--as", "spot,on_demand", "--commitments", str(lives.parent / "promise.yaml")]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    # Two hours at 2.50. The half hour and the minute fit into the first one, the whole hour into the second.
    assert (found["usd"], found["assumed_share"], found["machines"]) == ("5.000000000", 1.0, 3)
    assert sum(float(line["usd"]) for line in found["rules"]) == pytest.approx(5.0)
    # c on demand at 6.88 of the catalog: 3,599 s beside 0.5 h and 60 s in an hour with one reserved machine:
    # 3,599 + 60 + 1,800 - 3,600 = 1,859 s are on demand. Covered first is a, then b, then c: 6.88 x 1,859 / 3,600 = 3.5528.
    assert found["as"]["on_demand"]["usd"] == "8.552755556"
    assert found["as"]["spot"]["nano_usd"] > 0


def test_a_folder_that_bill_and_focus_read(lives: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, focus = lives.parent / "out", lives.parent / "focus.csv"
    assert main(["price", str(lives), "--out", str(folder), "--focus", str(focus)]) == 0
    run = open_run(folder)
    assert run.summary["bill"]["total_usd"] == 6.066666667
    with duckdb.connect() as connection:
        [(billed,)] = connection.execute(f"SELECT sum(BilledCost) FROM read_csv('{focus}')").fetchall()
    assert round(billed * 10**9) == 6_066_666_667
    capsys.readouterr()
    for words in (
        ["bill", str(folder)],
        ["bill", str(folder), "--by", "month,purchase"],
        ["report", str(folder)],
        ["slo", str(folder)],
    ):
        assert main(words) == 0
        assert "6.07" in capsys.readouterr().out


def test_options_and_rows_are_refused_with_exit_code_2(lives: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["price", str(lives), "--as", "spt", "--seed", "-1", "--max-bad-rows", "-1", "--focus", "f.csv"]) == 2
    told = capsys.readouterr().err
    assert "4 problems" in told
    assert "did you mean 'spot'?" in told
    lives.write_text(LIVES.replace("p5.4xlarge,us-east-1,us-east-1a,spot", "p5.5xlarge,us-east-1,us-east-1a,spot"))
    assert main(["price", str(lives), "--out", str(lives.parent / "out")]) == 2
    told = capsys.readouterr().err
    assert "line 4, column instance = 'p5.5xlarge'" in told
    assert "did you mean 'p5.4xlarge'?" in told
    assert not (lives.parent / "out").exists()


def test_what_cannot_be_bought_so_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.csv").write_text("instance,region,begin,end\ngpu_1x_a10,all,2026-11-02T10:00Z,2026-11-02T10:00:01Z\n")
    assert main(["price", str(tmp_path / "a.csv"), "--as", "spot"]) == 0
    shown = capsys.readouterr().out
    # Lambda bills whole minutes: 1.29 / 60
    assert "lambda_per_minute" in shown
    assert "lambda has no spot machines" in shown


def test_the_page_shows_what_the_command_prints(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    text = PAGE.read_text("utf-8")
    for name in ("machine-lives.csv", "machine-promise.yaml"):
        assert (PAGE.parent / name).read_text("utf-8") in text
    [words] = [line.split()[1:] for line in text.splitlines() if line.startswith("billcast price") and "--each" in line]
    assert main(words) == 0
    shown = "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines())
    assert f"```text\n{shown}\n```" in text
