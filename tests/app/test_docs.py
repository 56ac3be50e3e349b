"""The documents are executed: links lead somewhere, commands are valid, Python blocks run."""

from __future__ import annotations

import importlib
import re
import runpy
import shlex
from datetime import date
from pathlib import Path

import pytest

import sim
from sim import open_run
from sim.app.cli import COMMANDS, main
from sim.app.conf import read_scenario
from sim.app.sweep import read_sweep
from sim.studies.plugins import load_plugin

ROOT = Path(sim.__file__).resolve().parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted((ROOT / "docs").rglob("*.md"))
BY_NAME = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def _blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a language, without the indentation of a list they may stand in."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    return ["\n".join(line.removeprefix(indent) for line in body.splitlines()) + "\n" for indent, body in found]


def _commands() -> list[tuple[str, list[str]]]:
    """Return every command line of the documents that starts billcast or make run."""
    commands = []
    for page in PAGES:
        for line in "".join(_blocks(page, "sh")).splitlines():
            words = shlex.split(line, comments=True)
            if words and words[0].endswith("billcast"):
                commands.append((page.name, words[1:]))
            elif words[:2] == ["make", "run"] and len(words) > 2:
                commands.append((page.name, ["run", *words[2].removeprefix("ARGS=").split()]))
    return commands


@BY_NAME
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_there_are_commands_to_check():
    assert len(_commands()) > 10


@pytest.mark.parametrize(("page", "words"), _commands())
def test_commands_of_the_documents_are_valid(page, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert words[0] in COMMANDS, page
    if words[0] not in ("run", "validate", "show", "sweep", "init", "training"):
        return
    (tmp_path / "TRACE.csv.gz").touch()
    (tmp_path / "mine" / "scenario").mkdir(parents=True)
    template = ROOT / "configs" / "scenario" / "azure_chat_trace.yaml"
    (tmp_path / "mine" / "scenario" / "my_trace.yaml").write_text(template.read_text("utf-8"), "utf-8")
    settings = [word for word in words[1:] if "=" in word]
    if "--plugin" in words:
        _example(0, "docs_night_owl.py", tmp_path)
        _example(0, "docs_long_prompts.py", tmp_path, "add-a-tap.md")
    if words[0] in ("init", "training"):
        assert main(words) == 0
        return
    if "scenario=chat" in words:  # what the page's own `init` has written
        assert main(["init", "chat"]) == 0
    folder = words[words.index("--config-dir") + 1] if "--config-dir" in words else None
    if words[0] == "sweep":
        assert len(read_sweep(settings, folder).scenarios) > 1
    else:
        assert read_scenario(overrides=settings, config_dir=folder).problems.found == []


def _example(number: int, name: str, folder: Path, page: str = "add-a-policy.md") -> None:
    """Write one of the policies or taps of a how-to and load it, so that its name can be chosen."""
    block = _blocks(ROOT / "docs/how-to" / page, "python")[number]
    (folder / name).write_text(block, "utf-8")
    load_plugin(folder / name)


@pytest.mark.parametrize("page", ["README.md", "docs/reference/cli.md", "docs/how-to/replicate.md"])
def test_python_blocks_run(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for number, block in enumerate(_blocks(ROOT / page, "python")):
        (tmp_path / f"block_{number}.py").write_text(block, "utf-8")
        runpy.run_path(str(tmp_path / f"block_{number}.py"))
    assert capsys.readouterr().out.strip()


def test_the_policies_of_the_how_to_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    _example(0, "docs_night_owl.py", tmp_path)
    _example(1, "docs_weighed.py", tmp_path)
    settings = ["scenario=peer_w3", "horizon=20s", "autoscaler=night_owl", "night=2", "router=weighed"]
    code = main(["run", *settings, "out=result"])
    captured = capsys.readouterr()
    assert (code, captured.err) == (0, "")
    refused = main(["validate", *settings, "night=-1"])
    assert refused == 2
    assert "deployments.llama_70b.autoscaler.night = -1" in capsys.readouterr().err


def test_the_policy_in_ten_lines_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    _example(2, "docs_short_owl.py", tmp_path)
    assert len((tmp_path / "docs_short_owl.py").read_text("utf-8").strip().splitlines()) <= 13
    settings = ["scenario=peer_w3", "horizon=7h", "rate_per_s=0.001", "autoscaler=short_owl", "replicas=2", "night=1"]
    assert main(["run", *settings, "out=result"]) == 0
    capsys.readouterr()
    decisions = open_run(tmp_path / "result").table("decisions")
    assert "day" in decisions["reason"].tolist()


def test_the_table_of_the_sweep_page_is_there(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs/how-to/sweep.md"
    words = next(words for name, words in _commands() if name == page.name and "out=outputs/routers" in words)
    short = [word.replace("horizon=2h", "horizon=10s").replace("rate_per_s=10,20,40", "rate_per_s=1,2") for word in words]
    assert main(short) == 0
    (tmp_path / "block.py").write_text(_blocks(page, "python")[0], "utf-8")
    capsys.readouterr()
    runpy.run_path(str(tmp_path / "block.py"))
    assert capsys.readouterr().out.count("power_of_two") == 2


def test_the_output_in_the_readme_is_replaced_whole():
    with_output = importlib.import_module("benchmarks.readme").with_output
    text = (ROOT / "README.md").read_text("utf-8")
    once = with_output(text, "TOTAL   1.00  \n", date(2026, 11, 23))
    assert "```text\nTOTAL   1.00\n```" in once
    assert with_output(once, "TOTAL   1.00\n", date(2026, 11, 23)) == once
    assert once.startswith("# billcast")
    assert once.rstrip().endswith("Apache-2.0.")
