"""Replays of saved runs: equal to the records the run would have written, or a clear error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from control_kit import FIXED, poisson, scenario, schedule

from sim import open_run, simulate
from sim.errors import InputError, RunError
from sim.policies.taps.counters import Clients
from sim.report.lifelines import replica_story, request_lives
from sim.results.records import RunResult
from sim.results.spool import quoted
from sim.scenario import Deployment, Failure, Pool, Scenario, Service, Slo
from sim.studies.replay import replay_replica, replay_request
from sim.units import NS_PER_S

SLO = Slo(ttft_s=0.2, tpot_s=0.02, e2e_s=0.5)


def eventful(**changes: Any) -> Scenario:
    """Two planes; in the first a scale-down, a crash and a queue with a timeout."""
    busy = Service(workload=poisson(30.0), deployments=["llama"], slo=SLO, queue_timeout_s=20.0)
    parts: dict[str, Any] = {
        "horizon": "20m",
        "window": "4m",
        "services": {"chat": busy, "code": Service(workload=poisson(1.0), deployments=["other"])},
        "deployments": {**schedule(2, ("5m", 1), ("15m", 2)), "other": Deployment(pools=["gpu"])},
        "pools": {"gpu": Pool(cold_start=FIXED)},
        "failures": [Failure("10m", "gpu", nodes=2)],
    }
    parts["deployments"]["llama"].max_num_seqs = 24
    parts["deployments"]["llama"].kv_tokens = 2_400
    parts["deployments"]["llama"].max_num_batched_tokens = 512
    return scenario(**{**parts, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def recorded(folder: Path) -> RunResult:
    """The run with all records written."""
    return simulate(eventful(records="all"), out=folder / "recorded")


@pytest.fixture(scope="module")
def saved(folder: Path) -> RunResult:
    """The same run without records, by the specification, with a tap."""
    return simulate(eventful(engine="reference", taps={"who": Clients()}), out=folder / "saved")


def rows(columns: dict[str, Any]) -> list[tuple[Any, ...]]:
    return sorted(zip(*(columns[name].tolist() for name in sorted(columns)), strict=True))


def test_the_run_has_seen_everything_a_timeline_can_show(recorded: RunResult) -> None:
    requests = recorded.table("requests")
    assert {"completed", "abandoned", "unfinished"} <= set(requests["outcome"])
    assert requests["attempts"].max() == 2
    assert requests["preemptions"].max() > 0
    assert (requests["dispatched_ns"] > requests["arrival_ns"]).sum() > 100
    assert (requests["admitted_ns"] > requests["first_token_ns"])[requests["first_token_ns"] >= 0].sum() > 10


def test_a_replayed_request_is_the_recorded_one(recorded: RunResult, saved: RunResult) -> None:
    requests = recorded.table("requests")
    first = requests["plane"] == 0
    interesting = [
        np.flatnonzero(first & mask)[0]
        for mask in (
            requests["outcome"] == "abandoned",
            requests["attempts"] == 2,
            requests["preemptions"] > 0,
            requests["outcome"] == "unfinished",
        )
    ]
    for row in interesting:
        replay = replay_request(saved, int(requests["request"][row]), "chat")
        assert {name: values.tolist() for name, values in replay.requests.items()} == {
            name: [values[row].item() if hasattr(values[row], "item") else values[row]] for name, values in requests.items()
        }
        assert replay.end_ns - 240 * NS_PER_S < requests["leave_ns"][row] <= replay.end_ns
    assert replay_request(saved, 5, "code").requests["plane"].tolist() == [1]


@pytest.mark.parametrize(
    ("replica", "from_s", "until_s"), [(0, 0, 360), (0, 450, 480), (0, 560, 599), (1, 290, 310), (2, 0, 1_200)]
)
def test_the_requests_of_a_replica_are_the_recorded_ones(
    recorded: RunResult, saved: RunResult, replica: int, from_s: int, until_s: int
) -> None:
    replay = replay_replica(saved, replica, from_s * NS_PER_S, until_s * NS_PER_S)
    expected = recorded.sql(
        f"SELECT * FROM requests WHERE replica = {replica} AND leave_ns >= {from_s * NS_PER_S} "
        f"AND dispatched_ns <= {until_s * NS_PER_S} AND leave_ns <= {replay.end_ns}"
    )
    mine = {name: values[replay.requests["leave_ns"] < replay.end_ns] for name, values in replay.requests.items()}
    theirs = {name: values[expected["leave_ns"] < replay.end_ns] for name, values in expected.items()}
    assert rows(mine) == rows(theirs)
    assert len(mine["request"]) > 50
    # What was still there where the replay ended left later in the run, here or, after a kill, elsewhere; or it never did.
    still = set(replay.requests["request"][replay.requests["outcome"] == "unfinished"].tolist())
    left = recorded.sql(f"SELECT * FROM requests WHERE plane = 0 AND dispatched_ns <= {until_s * NS_PER_S}")
    later = left["request"][(left["replica"] == replica) & (left["leave_ns"] >= replay.end_ns)]
    assert set(later.tolist()) <= still
    assert still.isdisjoint(left["request"][left["leave_ns"] < replay.end_ns].tolist())
    assert still or until_s != 480  # there it stops with requests under way


def test_what_came_to_a_replica_after_the_stretch_is_not_in_it(recorded: RunResult, saved: RunResult) -> None:
    replicas, requests = recorded.table("replicas"), recorded.table("requests")
    [replaced] = np.flatnonzero(replicas["requested_ns"] == 600 * NS_PER_S)[:1]
    ready_ns, number = int(replicas["ready_ns"][replaced]), int(replicas["replica"][replaced])
    here = requests["replica"] == number
    assert (requests["arrival_ns"][here] < ready_ns).sum() > 100  # they waited for it
    assert not len(replay_replica(saved, number, 0, ready_ns - 1).requests["request"])


def test_verdicts_add_up_to_the_counters(recorded: RunResult) -> None:
    lives = request_lives(recorded.table("requests"), recorded.manifest["scenario"])
    windows = recorded.sql("SELECT * FROM windows WHERE service = 'chat'")
    for index, target in enumerate(("ttft", "tpot", "e2e")):
        met = [life.verdicts[index].met for life in lives if life.service == "chat"]
        assert met.count(True) == windows[f"good_{target}"].sum()
        assert met.count(True) + met.count(False) == windows["total"].sum()
    good = sum(all(verdict.met for verdict in life.verdicts) for life in lives if life.service == "chat")
    assert good == windows["good_all"].sum()


def test_stages_have_no_gaps_and_end_to_end_is_their_sum(recorded: RunResult) -> None:
    for life in request_lives(recorded.table("requests"), recorded.manifest["scenario"]):
        for one, other in zip(life.stages, life.stages[1:], strict=False):
            assert one.end_ns == other.start_ns
        assert sum(stage.length_ns for stage in life.stages) + life.net_ns == life.total_ns
        value_ns = life.verdicts[2].value_ns
        assert value_ns is None or value_ns == life.total_ns
    replicas = recorded.table("replicas")
    for number in replicas["replica"].tolist():
        story = replica_story(recorded, number)
        assert (story.requested_ns, story.gone_ns) == (replicas["requested_ns"][number], replicas["gone_ns"][number])
        for one, other in zip(story.stages, story.stages[1:], strict=False):
            assert one.end_ns == other.start_ns


def test_a_replica_that_is_asked_for_goes_through_every_stage(recorded: RunResult) -> None:
    replicas = recorded.table("replicas")
    number = next(n for n, at in enumerate(replicas["requested_ns"].tolist()) if at == 900 * NS_PER_S)
    story = replica_story(recorded, number)
    assert [(stage.name, stage.length_ns // NS_PER_S) for stage in story.stages] == [
        ("pending", 10), ("booting", 20), ("pulling", 30), ("loading", 40), ("warming", 50), ("ready", 150)
    ]  # fmt: skip
    assert story.where == "p5.4xlarge on_demand gpu us-east-1a"


def test_what_is_not_there_is_a_problem(recorded: RunResult) -> None:
    with pytest.raises(InputError, match=r"--service = '': must be given.*chat, code"):
        replay_request(recorded, 1)
    with pytest.raises(InputError, match=r"--service = 'chta': is not a service.*did you mean 'chat'"):
        replay_request(recorded, 1, "chta")
    arrived = int(recorded.sql("SELECT sum(arrived) AS n FROM windows WHERE service = 'code'")["n"][0])
    with pytest.raises(InputError, match=rf"--request = {arrived}: there is no such request of code; allowed: 0 to {arrived - 1}"):
        replay_request(recorded, arrived, "code")
    with pytest.raises(InputError, match="--replica = 99: the run had no such replica"):
        replica_story(recorded, 99)


def altered(folder: Path, run: RunResult, name: str, change: Any) -> RunResult:
    """A copy of a result folder with one file changed."""
    copy = folder / name
    copy.mkdir()
    for file in run.folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    change(copy)
    return open_run(copy)


def test_a_run_that_is_not_reproduced_is_an_error(folder: Path, recorded: RunResult) -> None:
    def count_one_more(copy: Path) -> None:
        file = quoted(str(copy / "windows.parquet"))
        recorded.sql("SELECT 1 AS one")
        connection = recorded._connection
        assert connection is not None
        rows = f"SELECT * REPLACE (completed + (row_number() OVER () = 3)::BIGINT AS completed) FROM {file}"
        connection.execute(f"CREATE TEMP TABLE changed AS {rows}")
        connection.execute(f"COPY changed TO {file} (FORMAT parquet)")

    with pytest.raises(RunError, match=r"does not reproduce the saved run: row 2 of windows has completed \d+, replayed \d+"):
        replay_request(altered(folder, recorded, "counted", count_one_more), 20_000, "chat")

    def other_seed(copy: Path) -> None:
        manifest = json.loads((copy / "manifest.json").read_text("utf-8"))
        manifest["scenario"]["seed"] += 1
        manifest["versions"]["numpy"] = "1.0"
        (copy / "manifest.json").write_text(json.dumps(manifest), "utf-8")

    with pytest.raises(RunError, match=r"row 0 of windows has arrived .*; the run was made with numpy 1\.0 \(here "):
        replay_replica(altered(folder, recorded, "seeded", other_seed), 0, 0, NS_PER_S)


def test_an_input_that_has_changed_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "overlay.yaml").write_text("accelerators: {}\n", "utf-8")
    made = scenario(horizon="1m", catalog=str(tmp_path / "overlay.yaml"))
    run = simulate(made, out=tmp_path / "run")
    assert len(replay_request(run, 0).requests["request"]) == 1
    (tmp_path / "overlay.yaml").write_text("# changed\naccelerators: {}\n", "utf-8")
    with pytest.raises(InputError, match=r"overlay\.yaml': has changed since the run"):
        replay_request(run, 0)
