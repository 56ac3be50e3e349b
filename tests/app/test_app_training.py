"""`billcast training`: what it prints, its JSON, and every problem at once."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

import sim
from sim.app.cli import main
from sim.app.training import Job, elsewhere, plan, read_job
from sim.catalog.loader import load_catalog
from sim.errors import InputError, Problems

EXAMPLE = ["model=llama-3.1-8b", "tokens=15T", "accelerators=1024", "instance=p5.48xlarge"]


def test_a_job_that_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["training", *EXAMPLE]) == 0
    text = capsys.readouterr().out
    assert "llama-3.1-8b, 15T tokens, on 1,024 x h100-sxm: 128 x p5.48xlarge in us-east-1" in text
    for part in ("optimizer", "fits", "MFU while stepping", "all in, as model cards count", "MFU: fitted", "price: 55.04 USD/h"):
        assert part in text, part
    assert "would fit with" not in text


def test_a_job_that_does_not_fit_says_what_would(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["training", "model=llama-3.1-70b", "tokens=15T", "accelerators=64"]) == 0
    text = capsys.readouterr().out
    assert "does not fit" in text
    assert "would fit with: tensor_parallel=8" in text


def test_json_holds_the_numbers_of_the_plan(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["training", *EXAMPLE, "--json", "--elsewhere"]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = plan(Job(tokens=15e12, accelerators=1024))
    assert found["memory"]["total_bytes"] == expected.memory.total_bytes
    assert found["time"]["hours"] == vars(expected.time.hours)
    assert found["run"]["usd"]["mid"] == pytest.approx(expected.time.accelerator_hours.mid / 8 * 55.04)
    assert found["time"]["validity"] == "fitted"
    assert found["job"]["region"] == "us-east-1"
    assert {row["accelerator"] for row in found["elsewhere"]} >= {"h100-sxm", "a100-sxm-80", "tpu-v5p"}


def test_every_problem_is_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    settings = [
        "modle=x",
        "tokens=15X",
        "instance=p5.48xlrge",
        "recipe=bf61",
        "accelerators=12",
        "tensor_parallel=8",
        "pue=0.5",
        "word",
    ]
    assert main(["training", *settings]) == 2
    text = capsys.readouterr().err
    assert "7 problems" in text
    for part in (
        "did you mean 'model'?",
        "such as 15T",
        "did you mean 'p5.48xlarge'?",
        "did you mean 'bf16'?",
        "a multiple of 8",
        "pue = 0.5",
        "key=value",
    ):
        assert part in text, part


def test_settings_are_read_as_people_write_them() -> None:
    problems = Problems()
    job = read_job(
        ["tokens=300B tokens", "global_batch_tokens=4M", "restart_s=5m", "mfu=45%", "price_usd_per_hour=2.10 USD/h"], problems
    )
    assert not problems.found
    assert (job.tokens, job.global_batch_tokens, job.restart_s, job.mfu, job.price_usd_per_hour) == (3e11, 4e6, 300.0, 0.45, 2.1)
    read_job(["zero=1", "zero=2"], problems)
    assert problems.found[0].message == "is given twice"


def test_own_numbers_take_the_place_of_the_catalogs() -> None:
    asked = Job(tokens=1e12, mfu=0.5, goodput=0.9, price_usd_per_hour=10.0, pue=1.0, gco2_per_kwh=0.0)
    found = plan(asked)
    hours = 6 * 8_030_261_248 * 1e12 / (64 * 989e12 * 0.5 * 0.9) / 3600
    assert found.time.hours.mid == pytest.approx(hours)
    assert found.run.usd.mid == pytest.approx(hours * 8 * 10.0)
    assert found.run.kgco2.high == 0.0
    assert (found.time.validity, found.price_source) == ("set", "set")


def test_a_region_without_a_price_is_a_problem() -> None:
    with pytest.raises(InputError) as error:
        plan(Job(region="us-west1"))
    assert [problem.path for problem in error.value.problems] == ["region"]
    assert plan(Job(region="us-east4", price_usd_per_hour=50.0)).grid.name == "us-east4"


def test_a_pod_bounds_a_job_and_a_batch_bounds_who_has_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["training", "instance=ct5p-hightpu-4t", "accelerators=8192"]) == 2
    assert "at most 6144" in capsys.readouterr().err
    assert main(["training", "accelerators=1024", "global_batch_tokens=2M", "sequence_tokens=4096"]) == 0
    assert "536 accelerators have nothing to do" in capsys.readouterr().out  # 2e6 / 4,096 = 488 sequences


def test_a_job_that_could_never_end_is_a_problem() -> None:
    with pytest.raises(InputError) as error:
        plan(Job(accelerators=16_384, chip_mtbf_h=100.0, restart_s=3600.0))
    assert [problem.path for problem in error.value.problems] == ["accelerators"]
    assert plan(Job(accelerators=16_384, chip_mtbf_h=100.0, restart_s=3600.0, goodput=0.5)).time.goodput.mid == 0.5


def test_elsewhere_prices_the_job_on_machines_that_are_joined() -> None:
    """1,024 H100 are rented as machines of eight, not as single ones that no link joins."""
    rows = {each.accelerator: each for each in elsewhere(plan(Job(tokens=1e12, accelerators=1024)))}
    assert load_catalog().instances[rows["h100-sxm"].instance].accelerators == 8
    fitting = [each.memory.fits for each in elsewhere(plan(Job(tokens=1e12, accelerators=1024)))]
    assert fitting == sorted(fitting, reverse=True)
    assert rows["tpu-v5e"].time is None  # a pod has 256


@pytest.mark.parametrize("number", [0, 1])
def test_the_outputs_of_the_how_to_are_those_of_its_commands(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Each block after an `output` mark is how the output of the command before it begins; where it differs, paste it anew."""
    page = (Path(sim.__file__).resolve().parents[1] / "docs" / "how-to" / "size-a-training-job.md").read_text("utf-8")
    found = re.findall(r"```sh\n *billcast ([^\n]*)\n *```\n\n *<!-- output \d -->\n *```text\n(.*?) *```", page, flags=re.DOTALL)
    assert len(found) == 2
    command, block = found[number]
    assert main(shlex.split(command)) == 0
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    expected = [line.removeprefix("   ").rstrip() for line in block.splitlines()]
    assert printed[: len(expected)] == expected
