"""`billcast trace` from the command line: output, Chrome file, exit codes, and the page about it."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from chrome_kit import check_chrome_schema

import sim
from sim.app.cli import main


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Quickstart up to its first scale-up."""
    folder = str(tmp_path_factory.mktemp("traced") / "run")
    assert main(["run", "scenario=quickstart", "horizon=20min", "window=5min", f"out={folder}"]) == 0
    return folder


def test_a_request_is_shown_and_written(run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", run, "--request", "5000", "--chrome", str(tmp_path / "request.json")]) == 0
    shown = capsys.readouterr().out
    assert "request 5000 of chat" in shown
    for part in ("prefill", "decoding", "completed", "TTFT", "1.00 s", "met", "replicas ready when it arrived", "chrome trace"):
        assert part in shown
    trace = json.loads((tmp_path / "request.json").read_text("utf-8"))
    check_chrome_schema(trace)
    assert [event["name"] for event in trace["traceEvents"] if event.get("cat") == "request"] == ["chat 5000"]
    assert list(tmp_path.iterdir()) == [tmp_path / "request.json"]


def test_a_replica_is_shown_from_one_time_to_another(run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    by_duration, by_instant = tmp_path / "duration.json", tmp_path / "instant.json"
    words = ["trace", run, "--replica", "0"]
    assert main([*words, "--from", "10min", "--until", "11m", "--chrome", str(by_duration)]) == 0
    shown = capsys.readouterr().out
    for part in ("replica 0 of llama_8b", "ready", "2026-09-18 12:10:00.000000 to 2026-09-18 12:11:00.000000", "more requests"):
        assert part in shown
    start, end = "2026-09-18T12:10:00+00:00", "2026-09-18T14:11:00+02:00"
    assert main([*words, "--from", start, "--until", end, "--chrome", str(by_instant)]) == 0
    assert by_duration.read_bytes() == by_instant.read_bytes()
    trace = json.loads(by_duration.read_text("utf-8"))
    check_chrome_schema(trace)
    assert len([event for event in trace["traceEvents"] if event.get("cat") == "request"]) > 300


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "names nothing to trace"),
        (["--request", "1", "--replica", "0"], "comes beside --replica"),
        (["--request", "1", "--from", "1h"], "is for a replica"),
        (["--replica", "0", "--service", "chat"], "is for a request"),
        (["--replica", "0", "--from", "soon"], "is no time"),
        (["--replica", "0", "--from", "2h", "--until", "1h"], "was not there then"),
        (["--replica", "99"], "the run had no such replica"),
        (["--request", "99999999"], "there is no such request of chat"),
        (["--request", "1", "--service", "chta"], "did you mean 'chat'"),
        (["--request", "1", "--chrome", "none/trace.json"], "there is no such folder"),
    ],
)
def test_what_is_wrong_is_said(run: str, words: list[str], problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", run, *words]) == 2
    captured = capsys.readouterr()
    assert problem in captured.err
    assert captured.out == ""


def test_a_run_that_is_not_reproduced_is_a_failure(run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in Path(run).glob("*.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    manifest = tmp_path / "manifest.json"
    manifest.write_text(manifest.read_text("utf-8").replace('"seed": 1,', '"seed": 2,'), "utf-8")
    assert main(["trace", str(tmp_path), "--request", "5"]) == 1
    assert "does not reproduce the saved run" in capsys.readouterr().err


def test_the_commands_of_the_page_run_as_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    page = Path(sim.__file__).resolve().parents[1] / "docs" / "how-to" / "trace-a-request.md"
    commands = re.findall(r"^billcast (.*)$", page.read_text("utf-8"), flags=re.MULTILINE)
    assert [main(shlex.split(command)) for command in commands] == [0, 0, 0]
    capsys.readouterr()
    assert (tmp_path / "outputs" / "replica_0.json").is_file()
