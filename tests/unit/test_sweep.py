"""Sweeps from Python: the same jobs, checks and table as from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from control_kit import scenario

from sim import sweep
from sim.errors import InputError, Problems
from sim.policies.autoscalers.schedule import Schedule, ScheduleStep
from sim.policies.autoscalers.static import Static
from sim.policies.routers import LeastKv, Random
from sim.scenario import Scenario
from sim.scenario.edits import with_settings
from sim.studies.collect import TABLE, collect


def small(**changes: Any) -> Scenario:
    """Four minutes of one request a second, of which the machine is there for 90 s."""
    return scenario(**{"horizon": "4min", **changes})


def _untimed(rows: Any) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if not key.startswith(("wall_s", "engine."))} for row in rows]


def test_settings_are_set_where_their_path_or_its_end_says() -> None:
    problems = Problems()
    made = with_settings(
        small(), {"horizon": "2h", "ttft_s": "300 ms", "services.chat.max_attempts": 7, "pools.gpu.zones": ["a", "b"]}, problems
    )
    chat = made.services["chat"]
    assert (made.horizon, chat.slo.ttft_s, chat.max_attempts, made.pools["gpu"].zones) == ("2h", 0.3, 7, ["a", "b"])
    assert problems.found == []


def test_a_choice_is_an_object_or_a_name_and_keeps_nothing_of_the_one_before() -> None:
    problems = Problems()
    steps = Schedule(replicas=2, steps=[ScheduleStep("1h", 3)])
    base = with_settings(small(), {"autoscaler": steps, "router": LeastKv()}, problems)
    assert base.deployments["llama"].autoscaler == steps
    assert base.services["chat"].router == LeastKv()
    again = with_settings(base, {"deployments.llama.autoscaler": "static", "router": "random"}, problems)
    assert again.deployments["llama"].autoscaler == Static()
    assert again.services["chat"].router == Random()
    assert problems.found == []
    assert base.deployments["llama"].autoscaler == steps  # the scenario that was given stays as it was


def test_every_combination_is_a_job_in_any_processes(tmp_path: Path) -> None:
    values: dict[str, Any] = {"autoscaler": [Static(1), Static(2)], "seed": [1, 2]}
    here = sweep(small(), values, out=tmp_path / "here")
    there = sweep(small(), values, workers=2, out=tmp_path / "there")
    assert [(row["autoscaler"], row["seed"], row["status"]) for row in here.rows] == [
        ('{"choice": "static", "replicas": 1}', 1, "ok"),
        ('{"choice": "static", "replicas": 1}', 2, "ok"),
        ('{"choice": "static", "replicas": 2}', 1, "ok"),
        ('{"choice": "static", "replicas": 2}', 2, "ok"),
    ]
    assert _untimed(here.rows) == _untimed(there.rows)
    assert here.rows[0]["bill.total_usd"] < here.rows[2]["bill.total_usd"]
    assert here.job(3).run(0).manifest["seed"] == 2
    before = (here.folder / TABLE).read_bytes()
    assert collect(here.folder).rows == here.rows
    assert (here.folder / TABLE).read_bytes() == before


def test_jobs_with_replications_are_compared_pair_by_pair(tmp_path: Path) -> None:
    found = sweep(small(), {"autoscaler": [Static(1), Static(2)]}, replications=2, out=tmp_path / "all")
    assert [row["replications"] for row in found.rows] == [2, 2]
    one, two = found.job(0), found.job(1)
    assert one.of("requests.arrived") == two.of("requests.arrived")
    assert found.rows[1]["bill.total_usd"] == two.mean("bill.total_usd")
    paired = two.paired_difference(one, "bill.total_usd")
    assert paired is not None
    assert paired.estimate.mean == pytest.approx(found.rows[1]["bill.total_usd"] - found.rows[0]["bill.total_usd"])


def test_every_problem_of_every_job_is_said_before_anything_runs(tmp_path: Path) -> None:
    values = {"seed": [1, -1], "router": ["random", "randon"], "hroizon": ["1h"], "window": []}
    with pytest.raises(InputError) as caught:
        sweep(small(), values, workers=0, out=tmp_path / "none")
    assert {problem.path for problem in caught.value.problems} == {"window", "workers"}
    del values["window"]
    with pytest.raises(InputError) as caught:
        sweep(small(), values, out=tmp_path / "none")
    said = {problem.path: str(problem) for problem in caught.value.problems}
    assert "did you mean 'horizon'" in said["hroizon"]
    assert "(in" not in said["hroizon"]
    assert "(in 2 of 4 jobs, the first: seed=1, router=randon, hroizon=1h)" in said["services.chat.router.choice"]
    assert "must not be negative (in 2 of 4 jobs" in said["seed"]
    assert list(tmp_path.iterdir()) == []


def test_values_are_checked_with_the_rest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"seed = -1: must not be negative \(in job 1: seed=-1\)"):
        sweep(small(), {"seed": [1, -1]}, out=tmp_path / "none")
    with pytest.raises(InputError, match="has too many jobs"):
        sweep(small(), {"seed": range(10_001)}, out=tmp_path / "none")
    with pytest.raises(InputError, match="did not finish or is not there"):
        sweep(small(), {"seed": [1]}, out=tmp_path / "one").job(4)
