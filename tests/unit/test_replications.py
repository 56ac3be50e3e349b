"""Replications: own random numbers, the same bytes in any process and order, intervals of what their tables say."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from control_kit import poisson, scenario, schedule

from sim import open_replications, replicate, simulate
from sim.bins import quantile_ns
from sim.errors import InputError
from sim.policies.autoscalers.static import Static
from sim.policies.routers import Random
from sim.registry import register
from sim.results.metrics import histograms_by_service
from sim.results.replications import TABLE, Replications, single, summarize, write_table
from sim.results.stats import student_interval
from sim.rng import StreamKey
from sim.scenario import Deployment, Pool, Scenario, Service, Slo
from sim.schema import TABLES
from sim.studies.replicate import _run_one
from sim.workload.clients import ClosedLoop

COUNT = 6


@register("autoscaler", "of_the_replication_tests")
class Doubled(Static):
    """A choice that only this module registers."""

    factor: int = 2

    def initial_replicas(self) -> int:
        return self.factor * self.replicas


def small(**changes: Any) -> Scenario:
    """Six minutes of a chat service, of which its machine is there for 210 s."""
    return scenario(**{"horizon": "6min", "services": {"chat": service()}, **changes})


def service(**changes: Any) -> Service:
    """A chat service of 5 requests a second."""
    return Service(**{"workload": poisson(5.0), "deployments": ["llama"], "slo": Slo(ttft_s=0.1), **changes})


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Replications:
    """Six replications, in this process."""
    return replicate(small(), COUNT, workers=1, out=tmp_path_factory.mktemp("replications") / "one")


def _same_bytes(one: Path, other: Path, number: int) -> None:
    for name in TABLES:
        file = f"rep-{number:04d}/{name}.parquet"
        assert (one / file).read_bytes() == (other / file).read_bytes(), file


def test_replication_0_is_the_run_alone(ran: Replications, tmp_path: Path) -> None:
    simulate(small(), out=tmp_path / "alone")
    for name in TABLES:
        assert (ran.folder / f"rep-0000/{name}.parquet").read_bytes() == (tmp_path / f"alone/{name}.parquet").read_bytes()


def test_every_random_stream_of_a_run_is_of_its_replication(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Open and closed traffic, cold starts, controllers, spot capacity and prices: whoever draws names the replication."""
    drawn: set[StreamKey] = set()
    generator = StreamKey.generator

    def noted(key: StreamKey, block: int = 0) -> np.random.Generator:
        drawn.add(key)
        return generator(key, block)

    monkeypatch.setattr(StreamKey, "generator", noted)
    spot = {"gpu": Pool(purchase="spot")}
    clients = service(workload=ClosedLoop(clients=3))
    services = {"chat": service(), "agents": clients}
    made = scenario(horizon="1h", pools=spot, services=services, deployments=schedule(1, ("5min", 2)), replication=5, seed=9)
    simulate(made, out=tmp_path / "run")
    assert {(key.seed, key.replication) for key in drawn} == {(9, 5)}
    purposes = {key.purpose.split("/")[0].split(" ")[0] for key in drawn}
    assert purposes >= {"workload", "cold", "controller", "spot"}, purposes
    assert {"chat", "agents/client 0", "llama"} <= {key.entity for key in drawn}


def test_every_replication_has_arrivals_of_its_own(ran: Replications) -> None:
    arrived = list(ran.of("requests.arrived").values())
    assert len(arrived) == COUNT
    assert len(set(arrived)) > 1
    # 1,800 Poisson arrivals each: a standard deviation of sqrt(1,800), 4.5 of which are never exceeded.
    assert all(abs(count - 1_800) < 4.5 * np.sqrt(1_800) for count in arrived)


def test_other_processes_and_another_order_give_the_same_bytes(ran: Replications, tmp_path: Path) -> None:
    there = replicate(small(), COUNT, workers=2, out=tmp_path / "two")
    backwards = tmp_path / "backwards"
    backwards.mkdir()
    for number in reversed(range(COUNT)):
        _run_one(small().to_dict(), backwards, number)
    summary = summarize(backwards, range(COUNT), write_table(backwards, [3, 1, 5, 0, 2, 4]), ran.manifest)
    assert (backwards / TABLE).read_bytes() == (there.folder / TABLE).read_bytes() == (ran.folder / TABLE).read_bytes()
    assert (there.folder / "summary.json").read_bytes() == (ran.folder / "summary.json").read_bytes()
    assert summary == ran.summary
    for number in range(COUNT):
        _same_bytes(ran.folder, there.folder, number)
        _same_bytes(ran.folder, backwards, number)


def test_a_changed_policy_does_not_shift_arrivals(ran: Replications, tmp_path: Path) -> None:
    """Replication 2 of another fleet and router: same arrivals to the nanosecond, one by one."""
    arrivals = []
    for name, deployments, router in (
        ("one", {"llama": Deployment(pools=["gpu"], autoscaler=Static(replicas=1))}, None),
        ("three", {"llama": Deployment(pools=["gpu"], autoscaler=Static(replicas=3))}, Random()),
    ):
        changed = service() if router is None else service(router=router)
        made = small(records="all", deployments=deployments, services={"chat": changed})
        found = replicate(replace(made, replication=2), 1, workers=1, out=tmp_path / name)
        requests = found.run(2).sql("SELECT arrival_ns, prompt_tokens, output_tokens FROM requests ORDER BY request")
        arrivals.append([column.tolist() for column in requests.values()])
        assert found.of("requests.arrived")[2] == ran.of("requests.arrived")[2]
    assert arrivals[0] == arrivals[1]


def test_the_table_has_the_numbers_of_every_summary(ran: Replications) -> None:
    connection = duckdb.connect()
    rows = connection.execute(f"SELECT * FROM read_parquet('{ran.folder / TABLE}')").fetchall()
    connection.close()
    assert rows == sorted(rows)
    assert rows == list(zip(*(column.tolist() for column in ran.table.values()), strict=True))
    found = {(metric, number): value for metric, number, value in rows}
    for number in range(COUNT):
        summary = ran.run(number).summary
        assert found["bill.total_usd", number] == summary["bill"]["total_usd"]
        assert found["latency.chat.ttft_s.p95", number] == summary["latency"]["chat"]["ttft_s"]["p95"]
        assert found["slo.chat.ttft.attainment", number] == summary["slo"]["chat"]["ttft"]["attainment"]
        assert found["energy.kwh", number] == summary["energy"]["kwh"]
    metrics = {metric for metric, _ in found}
    assert not any(metric.startswith("engine") or metric.endswith((".goal", ".threshold")) for metric in metrics)


def test_the_summary_holds_the_intervals(ran: Replications) -> None:
    values = [ran.run(number).summary["latency"]["chat"]["e2e_s"]["mean"] for number in range(COUNT)]
    said = ran.summary["metrics"]["latency.chat.e2e_s.mean"]
    expected = student_interval(values)
    assert expected is not None
    assert said["n"] == COUNT
    assert said["mean"] == pytest.approx(np.mean(values), rel=1e-12)
    assert said["standard_deviation"] == pytest.approx(np.std(values, ddof=1), rel=1e-9)
    assert said["student"] == pytest.approx([expected.low, expected.high], rel=1e-9)
    interval = ran.interval("latency.chat.e2e_s.mean", "bootstrap")
    assert interval is not None
    assert said["bootstrap"] == [interval.low, interval.high]
    assert ran.summary["interval"] == "95 % Student and bootstrap intervals over 6 replications"
    wider = ran.interval("latency.chat.e2e_s.mean", confidence=0.99)
    assert wider is not None
    assert wider.half_width > expected.half_width


def test_pooled_percentiles_are_those_of_all_requests(ran: Replications) -> None:
    counts = sum(histograms_by_service(ran.run(number))["chat", "ttft"] for number in range(COUNT))
    pooled = ran.summary["pooled"]["chat"]["ttft_s"]
    assert pooled["requests"] == counts.sum() == sum(ran.of("requests.completed").values())
    assert pooled["p99"] == quantile_ns(counts, 0.99) / 1e9


def test_one_replication_has_no_interval(tmp_path: Path) -> None:
    found = replicate(small(), 1, out=tmp_path / "one")
    assert found.summary["interval"] == "no interval: one replication"
    assert found.summary["metrics"]["bill.total_usd"]["student"] is None
    assert found.interval("bill.total_usd") is None
    assert found.interval("bill.total_usd", "bootstrap") is None
    alone = single(found.run(0))
    assert alone.interval("bill.total_usd") is None
    assert alone.of("bill.total_usd") == found.of("bill.total_usd")


def test_common_random_numbers_narrow_a_difference(ran: Replications, tmp_path: Path) -> None:
    """Two machines decode faster than one; the same traffic on both sides tells by how much better than other traffic would."""
    two = {"llama": Deployment(pools=["gpu"], autoscaler=Static(replicas=2))}
    found = replicate(small(deployments=two), COUNT, workers=1, out=tmp_path / "two").paired_difference(
        ran, "latency.chat.tpot_s.mean"
    )
    assert found is not None
    assert found.replications == tuple(range(COUNT))
    assert found.estimate.student is not None
    assert found.estimate.student.high < 0.0
    assert found.variance_ratio is not None
    assert found.variance_ratio > 2.0


def test_another_target_changes_no_latency(ran: Replications, tmp_path: Path) -> None:
    other = replicate(small(services={"chat": service(slo=Slo(ttft_s=0.05))}), 2, workers=1, out=tmp_path / "other")
    same = ran.paired_difference(other, "latency.chat.e2e_s.mean")
    assert same is not None
    assert (same.estimate.mean, same.estimate.standard_deviation, same.variance_ratio) == (0.0, 0.0, None)
    assert same.correlation == pytest.approx(1.0)


def test_a_second_study_goes_on_where_the_first_ended(ran: Replications, tmp_path: Path) -> None:
    later = replicate(small(replication=4), 2, workers=1, out=tmp_path / "later")
    assert later.numbers == [4, 5]
    _same_bytes(ran.folder, later.folder, 4)
    difference = ran.paired_difference(later, "requests.arrived")
    assert difference is not None
    assert difference.replications == (4, 5)


def test_a_choice_of_ones_own_goes_along_into_other_processes(tmp_path: Path) -> None:
    made = small(deployments={"llama": Deployment(pools=["gpu"], autoscaler=Doubled(replicas=1))})
    found = replicate(made, 2, workers=2, out=tmp_path / "own")
    assert found.run(1).sql("SELECT count(*) AS n FROM replicas")["n"][0] == 2


SCRIPT = """
from dataclasses import replace
from sim import Scenario, load_scenario, register, replicate
from sim.policies.autoscalers.static import Static
@register("autoscaler", "of_a_script")
class Own(Static):
    more: int = 1
    def initial_replicas(self):
        return self.replicas + self.more
scenario = load_scenario("peer_w3", ["horizon=5s"])
scenario.deployments["llama_70b"].autoscaler = Own(replicas=1)
found = replicate(scenario, 2, workers=2, out="own")
print(found.run(1).sql("SELECT count(*) AS n FROM replicas")["n"][0])
"""


def test_a_script_needs_no_module_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT, "utf-8")
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout.split(), done.stderr) == (["2"], "")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_replication_that_fails_leaves_nothing(tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made = small(deployments={"llama": Deployment(pools=["gpu"], autoscaler=Broken())})
    with pytest.raises(ZeroDivisionError, match="no such luck"):
        replicate(made, 3, workers=workers, out=tmp_path / "deep" / "failed")
    assert list(tmp_path.iterdir()) == []


@register("autoscaler", "that_breaks_in_the_replication_tests")
class Broken(Static):
    """Breaks when it is asked."""

    def decide(self, view: Any) -> Any:
        raise ZeroDivisionError("no such luck")


def test_what_cannot_be_replicated_is_said_before_it_runs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"replications = 0: is out of range") as caught:
        replicate(small(horizon="soon"), 0, workers=-1, out=tmp_path / "none")
    assert {problem.path for problem in caught.value.problems} == {"replications", "workers", "horizon"}
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(InputError, match="is not an empty folder"):
        replicate(small(), 2, out=tmp_path / "taken")
    with pytest.raises(InputError, match="more than one run"):
        simulate(small(replications=2), out=tmp_path / "none")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_opening_again_and_what_is_not_there(ran: Replications, tmp_path: Path) -> None:
    again = open_replications(ran.folder)
    assert again.values == ran.values
    assert again.estimate("bill.total_usd") == ran.estimate("bill.total_usd")
    with pytest.raises(InputError, match=r"did you mean 'bill\.total_usd'"):
        ran.of("bill.total")
    with pytest.raises(InputError, match="student, bootstrap"):
        ran.interval("bill.total_usd", "normal")
    with pytest.raises(InputError, match="was not run"):
        ran.run(17)
    with pytest.raises(InputError, match="holds no replications"):
        open_replications(tmp_path)
    with pytest.raises(InputError, match="is not a folder"):
        open_replications(tmp_path / "none")
    manifest = json.loads((ran.folder / "manifest.json").read_text("utf-8"))
    assert manifest["scenario"]["replications"] == COUNT
