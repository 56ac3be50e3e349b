"""Taps from files, from the command line and from plug-ins, and the page about them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import sim
from sim import load_scenario, open_run
from sim.app.cli import main
from sim.errors import InputError
from sim.policies.taps.counters import Clients, Tiers

PAGE = Path(sim.__file__).resolve().parents[1] / "docs" / "how-to" / "add-a-tap.md"


def test_a_tap_is_added_by_its_kind_and_given_settings() -> None:
    made = load_scenario("bench_chat8", ["+taps.users=clients", "+taps.users.capacity=5", "+taps.served={choice: tiers}"])
    assert made.taps == {"users": Clients(capacity=5), "served": Tiers()}
    assert load_scenario("bench_chat8", ["+taps.users.choice=clients"]).taps == {"users": Clients()}
    with pytest.raises(InputError, match=r"taps\.users\.choice = 'client': is not the name of a tap.*did you mean 'clients'"):
        load_scenario("bench_chat8", ["+taps.users=client"])
    with pytest.raises(InputError, match=r"to add one, write \+taps\.users="):
        load_scenario("bench_chat8", ["taps.users=clients"])


def test_taps_of_a_file_are_read_and_can_be_changed(tmp_path: Path) -> None:
    yaml = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)[0]
    (tmp_path / "scenario").mkdir()
    text = f"# @package _global_\ndefaults:\n  - bench_chat8\n  - _self_\n\n{yaml}"
    (tmp_path / "scenario" / "tapped.yaml").write_text(text, "utf-8")
    made = load_scenario("tapped", [], config_dir=tmp_path)
    assert made.taps == {"users": Clients(capacity=1000), "served": Tiers(counts="completions")}
    made = load_scenario("tapped", ["taps.users.capacity=7", "taps.served.counts=arrivals"], config_dir=tmp_path)
    assert made.taps == {"users": Clients(capacity=7), "served": Tiers()}


def test_a_tap_is_shown_as_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "scenario=bench_chat8", "+taps.users=clients", "+taps.users.capacity=5", "--changed"]) == 0
    lines = capsys.readouterr().out.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("taps"))
    assert [line.split()[:2] for line in lines[at + 1 : at + 3]] == [["users", "clients"], ["capacity", "5"]]
    assert all("command line" in line for line in lines[at + 1 : at + 3])


def test_the_tap_of_the_page_runs_as_a_plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    block = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)[0]
    assert len([line for line in block.splitlines() if line]) <= 11
    Path("docs_long_prompts.py").write_text(block, "utf-8")
    words = ["scenario=bench_chat8", "horizon=20s", "records=all", "+taps.long=long_prompts", "+taps.long.above_tokens=2000"]
    assert main(["run", *words, "--plugin", "docs_long_prompts.py", "out=result"]) == 0
    result = open_run("result")
    [expected] = result.sql("SELECT count(*) AS n FROM requests WHERE prompt_tokens > 2000")["n"]
    values = result.table("tap_values")
    assert (values["tap"].tolist(), values["name"].tolist(), values["value"].tolist()) == (["long"], ["long_prompts"], [expected])
    assert expected > 10
    assert [Path(path).name for path in result.manifest["inputs"]] == ["docs_long_prompts.py"]
