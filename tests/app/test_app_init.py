"""`billcast init`: what it writes is valid, not overloaded and composes; what it cannot do it says and writes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim import load_scenario
from sim.app.cli import main
from sim.app.init import MOST_USE, Init, init_file, read_init, sized
from sim.app.init_text import scenario_text
from sim.app.sheet import capacity_report
from sim.catalog.loader import load_catalog
from sim.errors import InputError
from sim.scenario.check import check

MODELS, INSTANCES = sorted(load_catalog().models), sorted(load_catalog().instances)
# Every machine is tried with a model that fits all of them and with every 13th of the others; each model meets several machines.
FITS_ALL, EVERY = "qwen3-0.6b", 13


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _written(wanted: Init, folder: Path, name: str = "mine"):
    (folder / "scenario").mkdir(exist_ok=True)
    (folder / "scenario" / f"{name}.yaml").write_text(scenario_text(sized(wanted, name), wanted), "utf-8")
    return check(load_scenario(name, config_dir=folder))


@pytest.mark.parametrize("instance", INSTANCES)
def test_whatever_fits_is_valid_and_not_overloaded(instance, tmp_path):
    """Targets are loose, so that only memory decides."""
    fitted = 0
    first = INSTANCES.index(instance) % EVERY
    for model in (FITS_ALL, *MODELS[first::EVERY]):
        wanted = Init(model=model, instance=instance, rate_per_s=30.0, ttft_s=600.0, tpot_s=10.0)
        refusal = ""
        try:
            scenario = _written(wanted, tmp_path)
        except InputError as error:
            refusal = str(error)
        if refusal:
            assert "does not fit" in refusal or "no step times" in refusal
            continue
        fitted += 1
        scenario.horizon = "7d"
        report = capacity_report(scenario)
        assert report.warnings == []
        [fleet] = report.fleets
        assert fleet.peak_rate_per_s <= MOST_USE * fleet.capacity_per_s
    assert fitted > 0


def test_targets_decide_the_split():
    """llama-3.1-70b in bf16 is 141 GB: two H100 hold it, and a fast token needs more of them."""
    wanted = {"model": "llama-3.1-70b", "instance": "p5.48xlarge", "rate_per_s": 2.0}
    loose = sized(Init(**wanted, tpot_s=0.2), "a").scenario.deployments["main"].tensor_parallel
    tight = sized(Init(**wanted, tpot_s=0.015), "a").scenario.deployments["main"].tensor_parallel
    assert loose < tight


def test_more_traffic_needs_more_replicas_in_proportion():
    one, ten = (sized(Init(rate_per_s=rate), "a").report.fleets[0].most_replicas for rate in (30.0, 300.0))
    assert ten == pytest.approx(10 * one, abs=10)
    assert ten > one


def test_the_command_writes_prints_and_runs(capsys, tmp_path):
    settings = ["model=llama-3.2-1b", "instance=g6.xlarge", "rate_per_s=120/min", "ttft_s=800 ms", "horizon=30s"]
    assert main(["init", "chat", *settings]) == 0
    out = capsys.readouterr().out
    assert "billcast run --config-dir . scenario=chat" in out
    scenario = load_scenario("chat", config_dir=tmp_path)
    chat = scenario.services["chat"]
    assert (chat.workload.rate_per_s, chat.slo.ttft_s, scenario.horizon) == (2.0, 0.8, "30s")
    assert main(["validate", "--config-dir", ".", "scenario=chat"]) == 0
    assert "no problem found" in capsys.readouterr().out
    assert main(["run", "--config-dir", ".", "scenario=chat", "out=result"]) == 0
    assert (tmp_path / "result" / "summary.json").is_file()


def test_it_never_overwrites_unless_forced(capsys, tmp_path):
    assert main(["init"]) == 0
    file = tmp_path / "scenario" / "my_service.yaml"
    file.write_text("mine")
    assert main(["init", "rate_per_s=5"]) == 2
    assert file.read_text() == "mine"
    assert "--force" in capsys.readouterr().err
    assert main(["init", "rate_per_s=5", "--force"]) == 0
    assert "rate_per_s: 5 " in file.read_text()
    assert [path.name for path in file.parent.iterdir()] == ["my_service.yaml"]


@pytest.mark.parametrize("name", ["on", "yes", "a-b_c"])
def test_names_that_yaml_reads_otherwise(name, tmp_path):
    assert _written(Init(), tmp_path, name).name == name


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["modl=x"], "did you mean 'model'?"),
        (["model=llama-3.1-8"], "did you mean 'llama-3.1-8b'?"),
        (["instance=p5.4xlage"], "did you mean 'p5.4xlarge'?"),
        (["rate_per_s=5 s"], "is not in a unit of /s"),
        (["rate_per_s=-5"], "rate_per_s"),
        (["horizon=5x"], "is not a duration above 0"),
        (["region=mars"], "region"),
        (["weight_dtype=fp3"], "fp3"),
        (["model=llama-3.1-70b", "instance=g4dn.xlarge"], "does not fit"),
        (["tpot_s=0.0001"], "tpot_s from about"),
        (["e2e_s=1ms"], "holds the targets"),
        (["a", "b"], "names several files"),
        (["elsewhere/chat.yaml"], "must lie in a folder called scenario"),
        (["null"], "cannot be the name of a scenario"),
        (["1.10"], "cannot be the name of a scenario"),
        (["scenario/a b.yaml"], "cannot be the name of a scenario"),
    ],
)
def test_what_cannot_be_is_said_and_nothing_is_written(words, says, capsys, tmp_path):
    assert main(["init", *words]) == 2
    assert says in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []


def test_all_problems_of_the_settings_come_out_together():
    with pytest.raises(InputError) as caught:
        read_init(["modl=x", "rate_per_s=5 s", "alone"])
    assert [problem.path for problem in caught.value.problems] == ["alone", "modl", "rate_per_s"]


def test_names_become_files():
    assert init_file("chat") == init_file("chat.yaml") == Path("scenario/chat.yaml")
