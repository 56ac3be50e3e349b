"""How controllers see: metrics against a naive pipeline, rosters against the replicas, and looks left out against a naive clock."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from control_kit import FIXED, scenario, tables_of
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.control.fleet import Fleet, Roster
from sim.control.metrics_feed import MetricsFeed
from sim.dataplane.layout import ARRIVED, COUNTERS
from sim.policies.autoscalers.hpa import Hpa
from sim.policies.autoscalers.hpa_config import Behavior, Metric, ScalingRules
from sim.policies.autoscalers.static import Static
from sim.policies.base import EXTERNAL_METRICS, POD_METRICS, Decision, DeploymentView, MetricTiming
from sim.scenario import Deployment, Failure, Pool, Scenario, Service, Slo
from sim.units import NS_PER_S
from sim.workload.specs import Event, TokenLengths
from sim.workload.synthetic import Synthetic

NAMES = [*POD_METRICS, *EXTERNAL_METRICS]
KV_TOKENS = (1_000, 3_000)

# Metrics


@dataclass
class _Pod:
    number: int
    spec: int
    accepting: bool
    levels: list[int]
    busy_ns: int


@dataclass
class _Scraped:
    """What a naive pipeline keeps of a scrape: everything, by replica."""

    time_ns: int
    pods: dict[int, _Pod]
    totals: dict[str, int]


def _feed(timing: MetricTiming) -> tuple[MetricsFeed, SimpleNamespace]:
    """A feed of a deployment with spec 1, beside another one with spec 0, of streams 0 and 2 of three."""
    engine = SimpleNamespace(view=lambda now_ns: engine.now)
    config = SimpleNamespace(backlogs=(), specs=[SimpleNamespace(kv_tokens=tokens) for tokens in KV_TOKENS])
    plane: Any = SimpleNamespace(
        engine=engine,
        engine_config=config,
        specs={("other", "pool"): 0, ("mine", "pool"): 1},
        streams_of={"mine": frozenset({0, 2}), "other": frozenset({1})},
    )
    return MetricsFeed(plane, "mine", NAMES, timing, 0), engine


def _view(pods: list[_Pod], streams: list[list[int]]) -> SimpleNamespace:
    counters = np.zeros((3, len(COUNTERS)), np.int64)
    counters[:, ARRIVED] = streams[2]
    columns = np.array([pod.levels for pod in pods], np.int64).reshape(len(pods), 4).T
    return SimpleNamespace(
        replica=np.array([pod.number for pod in pods], np.int64),
        spec=np.array([pod.spec for pod in pods], np.int64),
        accepting=np.array([pod.accepting for pod in pods], np.int64),
        outstanding=columns[0],
        running=columns[1],
        waiting=columns[2],
        kv_used_tokens=columns[3],
        busy_ns=np.array([pod.busy_ns for pod in pods], np.int64),
        queued=np.array(streams[0], np.int64),
        in_flight=np.array(streams[1], np.int64),
        counters=counters,
    )


def _roster(plane_numbers: list[int]) -> Roster:
    numbers = np.array(plane_numbers, np.int64)
    flags = np.zeros(len(numbers), np.bool_)
    return Roster(numbers, numbers, flags, flags, numbers, numbers, some_pending=False, draining=0)


def _expected(kept: list[_Scraped], now_ns: int, numbers: list[int], timing: MetricTiming) -> dict[str, tuple[list[float], float]]:
    """The definition, replica by replica: means over the scrapes of the window, rates between its ends."""
    known = [scrape for scrape in kept if scrape.time_ns <= now_ns - timing.delay_s * NS_PER_S]
    nothing = [math.nan] * len(numbers)
    if not known:
        return dict.fromkeys(NAMES, (nothing, math.nan))
    last = known[-1]
    window = [scrape for scrape in known if scrape.time_ns > last.time_ns - timing.window_s * NS_PER_S] or [last]
    before = known[-len(window) - 1] if len(known) > len(window) else known[0]
    elapsed_ns = last.time_ns - before.time_ns
    answers: dict[str, tuple[list[float], float]] = {}
    for index, name in enumerate(("outstanding", "running", "waiting", "kv_utilization")):
        per = KV_TOKENS[1] if name == "kv_utilization" else 1
        values = [[scrape.pods[number].levels[index] / per for scrape in window if number in scrape.pods] for number in numbers]
        means = [sum(some) / len(some) if number in last.pods else math.nan for number, some in zip(numbers, values, strict=True)]
        answers[name] = means, math.nan
    there = [elapsed_ns > 0 and number in last.pods and number in before.pods for number in numbers]
    answers["busy"] = (
        [
            (last.pods[number].busy_ns - before.pods[number].busy_ns) / elapsed_ns if both else math.nan
            for number, both in zip(numbers, there, strict=True)
        ],
        math.nan,
    )
    for name in ("queue", "in_flight"):
        answers[name] = nothing, sum(scrape.totals[name] for scrape in window) / len(window)
    rate = (last.totals["arrived"] - before.totals["arrived"]) * NS_PER_S / elapsed_ns if elapsed_ns else math.nan
    answers["requests_per_s"] = nothing, rate
    return answers


@settings(deadline=None)
@given(st.data())
def test_metrics_are_those_of_a_pipeline_that_keeps_everything(data: st.DataObject) -> None:
    seconds = st.sampled_from([0.0, 1.0, 2.5, 7.0])
    timing = MetricTiming(scrape_s=1.0, delay_s=data.draw(seconds), window_s=data.draw(seconds))
    feed, engine = _feed(timing)
    kept: list[_Scraped] = []
    pods: list[_Pod] = []
    made = arrived = 0
    for second in range(data.draw(st.integers(1, 30))):
        change = data.draw(st.sampled_from(["", "", "", "add", "add", "drop", "drain", "swap"]))
        if change == "add":
            pods.append(_Pod(made, data.draw(st.integers(0, 1)), True, [0] * 4, 0))
            made += 1
        elif change == "drop" and pods:
            pods.pop(data.draw(st.integers(0, len(pods) - 1)))
        elif change == "drain" and pods:
            data.draw(st.sampled_from(pods)).accepting = False
        elif change == "swap":
            pods.reverse()
        for pod in pods:
            pod.levels = [data.draw(st.integers(0, 500)) for _ in range(4)]
            pod.busy_ns += data.draw(st.integers(0, NS_PER_S))
        streams = [[data.draw(st.integers(0, 50)) for _ in range(3)] for _ in range(2)]
        arrived += data.draw(st.integers(0, 50))
        streams.append([arrived, 7, arrived])
        engine.now = _view(pods, streams)
        now_ns = second * NS_PER_S
        feed.scrape(now_ns)
        mine = {pod.number: _Pod(pod.number, 1, True, pod.levels, pod.busy_ns) for pod in pods if pod.spec == 1 and pod.accepting}
        totals = {"queue": streams[0][0] + streams[0][2], "in_flight": streams[1][0] + streams[1][2], "arrived": 2 * arrived}
        kept.append(_Scraped(now_ns, mine, totals))
        numbers = data.draw(st.permutations([-1, *range(made)]))
        roster = _roster(list(numbers))
        for late_ns in (0, NS_PER_S // 2):
            found = feed.samples(now_ns + late_ns, roster)
            for name, (per_pod, total) in _expected(kept, now_ns + late_ns, list(numbers), timing).items():
                np.testing.assert_allclose(found[name].per_pod, per_pod, rtol=1e-12, err_msg=name)
                np.testing.assert_allclose(found[name].total, total, rtol=1e-12, err_msg=name)


def test_samples_change_when_the_feed_says_so_and_only_then() -> None:
    feed, engine = _feed(MetricTiming(scrape_s=10.0, delay_s=4.0))
    roster = _roster([0])
    assert feed.next_sample_ns(0) == 4 * NS_PER_S
    for second in range(40):
        now_ns = second * NS_PER_S
        if now_ns == feed.next_scrape_ns:
            engine.now = _view([_Pod(0, 1, True, [second] * 4, 0)], [[0] * 3] * 3)
            feed.scrape(now_ns)
        seen = (second - 4) // 10 * 10
        level = feed.samples(now_ns, roster)["outstanding"].per_pod[0]
        assert level == seen if seen >= 0 else math.isnan(level)
        assert feed.next_sample_ns(now_ns) == (seen + 10 + 4) * NS_PER_S


def test_old_scrapes_are_forgotten() -> None:
    feed, engine = _feed(MetricTiming(scrape_s=1.0, window_s=60.0))
    engine.now = _view([_Pod(0, 1, True, [1] * 4, 0)], [[0] * 3] * 3)
    for second in range(1_000):
        feed.scrape(second * NS_PER_S)
    assert len(feed._scrapes) < 200
    assert feed.samples(999 * NS_PER_S, _roster([0]))["outstanding"].per_pod.tolist() == [1.0]


# Rosters


def _restless(hpa: Hpa, horizon: str = "1h") -> Scenario:
    """Bursts for an HPA, machines that boot, crash and run out, replicas that drain."""
    workload = Synthetic(
        rate_per_s=1.0,
        prompt=TokenLengths(family="fixed", mean=100),
        output=TokenLengths(family="fixed", mean=600),
        events={f"at {at}": Event(at=at, lasts="3m", factor=12.0) for at in ("2m", "12m", "25m", "41m")},
    )
    return scenario(
        horizon=horizon,
        services={"chat": Service(workload=workload, deployments=["llama"], slo=Slo(ttft_s=1.0))},
        deployments={"llama": Deployment(pools=["gpu"], autoscaler=hpa)},
        pools={"gpu": Pool(cold_start=FIXED, quota_nodes=5)},
        failures=[Failure("9m", "gpu"), Failure("14m", "gpu"), Failure("41m", "gpu")],
    )


def _hpa(**settings: Any) -> Hpa:
    return Hpa(max_replicas=6, metrics=[Metric(target=10.0), Metric("external", "queue", target=20.0)], **settings)


def test_a_roster_is_what_the_replicas_are_at_every_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, states = Fleet.roster, set()

    def compared(fleet: Fleet) -> Roster:
        roster, fresh = kept(fleet), Roster.of(fleet._provisioner.of(fleet._deployment))
        for name in (column.name for column in fields(Roster)):
            np.testing.assert_array_equal(getattr(roster, name), getattr(fresh, name), err_msg=name)
        states.add((len(fresh.pending), int(fresh.pending.sum()), int(fresh.ready.sum()), fresh.draining))
        return roster

    monkeypatch.setattr(Fleet, "roster", compared)
    tables_of(_restless(_hpa(sync_period_s=1.0, downscale_stabilization_s=60.0)), tmp_path / "run")
    # Pending, loading, ready and draining replicas were all seen.
    assert {pending > 0 for _, pending, _, _ in states} == {False, True}
    assert any(pods > pending + ready for pods, pending, ready, _ in states)
    assert any(draining for _, _, _, draining in states)


# Looks that are left out


@pytest.mark.parametrize(
    ("clocks", "horizon", "at_most"),
    [
        ({"sync_period_s": 0.1}, "20m", 0.1),
        ({"sync_period_s": 2.0, "metric_delay_s": 7.0, "metric_window_s": 45.0}, "1h", 0.5),
        ({"sync_period_s": 2.0, "behavior": Behavior(ScalingRules(60.0), ScalingRules(200.0))}, "1h", 0.5),
        ({"sync_period_s": 15.0, "scrape_s": 60.0, "downscale_stabilization_s": 90.0}, "1h", 0.6),
        ({"sync_period_s": 15.0}, "1h", 1.0),
    ],
)
def test_leaving_out_looks_changes_no_table(
    clocks: dict[str, Any], horizon: str, at_most: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = {"kept": 0, "naive": 0}
    decide = Hpa.decide

    def run(name: str) -> dict[str, dict[str, Any]]:
        def counted(policy: Hpa, view: DeploymentView) -> Decision:
            looks[name] += 1
            return decide(policy, view)

        monkeypatch.setattr(Hpa, "decide", counted)
        return tables_of(_restless(_hpa(**clocks), horizon), tmp_path / name)

    kept = run("kept")
    monkeypatch.setattr(Hpa, "next_look_ns", lambda policy, view: view.time_ns + policy.clock_ns())
    assert run("naive") == kept
    assert len(kept["decisions"]["time_ns"]) >= 5
    assert looks["kept"] <= at_most * looks["naive"]


def test_no_look_is_left_out_where_the_age_of_replicas_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times_ns: list[int] = []
    decide = Hpa.decide
    monkeypatch.setattr(Hpa, "decide", lambda policy, view: times_ns.append(view.time_ns) or decide(policy, view))
    cpu = Hpa(max_replicas=3, metrics=[Metric("resource", "busy", "Utilization", 60.0)], sync_period_s=2.0)
    tables_of(_restless(cpu, "10m"), tmp_path / "run")
    assert {later - earlier for earlier, later in pairwise(times_ns)} == {2 * NS_PER_S}


def test_a_change_wakes_a_policy_at_the_next_tick_of_its_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times_ns: list[int] = []

    def decide(policy: Static, view: DeploymentView) -> Decision:
        times_ns.append(view.time_ns)
        return Decision(3 if view.time_ns else 2, "one more at the first tick after a change")

    monkeypatch.setattr(Static, "decide", decide)
    monkeypatch.setattr(Static, "clock_ns", lambda policy: 10 * NS_PER_S)
    static = {"llama": Deployment(pools=["gpu"], autoscaler=Static(replicas=2))}
    tables_of(scenario(deployments=static, failures=[Failure("123s", "gpu")], horizon="10m"), tmp_path / "run")
    # The crash at 123 s and its replacement are seen at 130 s. There a third is asked for: seen at 140 s. The two machines have
    # their images 60 s after they were asked for (183 s, 190 s), their replicas are ready 90 s later (273 s, 280 s).
    assert [time_ns // NS_PER_S for time_ns in times_ns] == [0, 130, 140, 190, 280]
