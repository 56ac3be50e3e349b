"""The configuration of the HPA, and one service scaled end to end."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hpa_kit import NAN, average, cpu, external, hpa, rules

from sim.app.conf import load_scenario
from sim.control.loop import run
from sim.control.world import build_world
from sim.errors import InputError, Problems
from sim.policies.autoscalers.hpa import Hpa
from sim.policies.autoscalers.hpa_config import Behavior, Metric, ScalingPolicy, ScalingRules
from sim.policies.base import EXTERNAL_METRICS, POD_METRICS
from sim.results.records import RunWriter
from sim.scenario import ColdStart, Deployment, Pool, Scenario, Service, StageTime
from sim.scenario.plain import scenario_from_plain
from sim.scenario.resolve import resolve
from sim.schema import TABLES
from sim.units import NS_PER_S
from sim.workload.specs import Event, TokenLengths
from sim.workload.synthetic import Synthetic

# Configuration


def found_problems(policy: Hpa) -> dict[str, tuple[str, str]]:
    """The problems of a policy: path -> what is allowed, nearest name."""
    problems = Problems()
    policy.problems("scaler", problems)
    return {problem.path: (problem.allowed, problem.nearest) for problem in problems.found}


def test_the_defaults_have_no_problem() -> None:
    assert found_problems(Hpa()) == {}
    assert found_problems(hpa(average(1), cpu(60), external(3, "Value"), least=0, behavior=Behavior(rules(), rules()))) == {}


def test_every_problem_is_found_at_once_with_what_is_allowed() -> None:
    wrong = Hpa(
        replicas=-1,
        min_replicas=5,
        max_replicas=4,
        metrics=[
            Metric("external", "qeue", "Utilization", 1.5, 0.0),
            Metric("pod", "outstanding", "AverageValue", NAN),
            Metric("pods", "queue", "Value", -1.0),
        ],
        behavior=Behavior(
            ScalingRules(-1.0, [], "max", -0.5),
            ScalingRules(4_000.0, [ScalingPolicy("Pod", 0, 2_000.0)], "Disable", math.inf),
        ),
        sync_period_s=0.0,
        tolerance=NAN,
        downscale_stabilization_s=-1.0,
        scrape_s=0.0,
        metric_delay_s=NAN,
    )
    percent = ">= 1, whole"
    quantity = "0.001 to 1e12"
    assert found_problems(wrong) == {
        "scaler.max_replicas": (">= 5", ""),
        "scaler.replicas": (">= 0, or unset", ""),
        "scaler.metrics[0].name": (", ".join(EXTERNAL_METRICS), "queue"),
        "scaler.metrics[0].type": ("AverageValue, Value", ""),
        "scaler.metrics[0].target": (percent, ""),
        "scaler.metrics[0].request": (quantity, ""),
        "scaler.metrics[1].source": ("pods, resource, external", "pods"),
        "scaler.metrics[1].target": (quantity, ""),
        "scaler.metrics[2].name": (", ".join(POD_METRICS), ""),
        "scaler.metrics[2].type": ("AverageValue", ""),
        "scaler.metrics[2].target": (quantity, ""),
        "scaler.behavior.scale_up.stabilization_window_s": ("0 s to 3600 s", ""),
        "scaler.behavior.scale_up.policies": ("one at least, or unset for the default ones", ""),
        "scaler.behavior.scale_up.select_policy": ("Max, Min, Disabled", "Max"),
        "scaler.behavior.scale_up.tolerance": (">= 0, for instance 0.1", ""),
        "scaler.behavior.scale_down.stabilization_window_s": ("0 s to 3600 s", ""),
        "scaler.behavior.scale_down.policies[0].type": ("Pods, Percent", "Pods"),
        "scaler.behavior.scale_down.policies[0].value": (">= 1", ""),
        "scaler.behavior.scale_down.policies[0].period_s": ("above 0 s, at most 1800 s", ""),
        "scaler.behavior.scale_down.select_policy": ("Max, Min, Disabled", "Disabled"),
        "scaler.behavior.scale_down.tolerance": (">= 0, for instance 0.1", ""),
        "scaler.tolerance": (">= 0, for instance 0.1", ""),
        "scaler.sync_period_s": ("1 ms to 1 day", ""),
        "scaler.scrape_s": ("1 ms to 1 day", ""),
        "scaler.downscale_stabilization_s": ("0 s to 1 day", ""),
        "scaler.metric_delay_s": ("0 s to 1 day", ""),
    }


def test_zero_replicas_need_an_external_metric_and_some_metric_is_needed() -> None:
    assert found_problems(hpa(average(1), least=0)) == {"scaler.min_replicas": (">= 1, or an external metric", "")}
    assert found_problems(hpa()) == {"scaler.metrics": ("one at least", "")}


def test_it_reads_from_plain_data_and_back() -> None:
    plain = {
        "choice": "hpa",
        "min_replicas": 2,
        "max_replicas": 9,
        "metrics": [{"source": "resource", "name": "busy", "type": "Utilization", "target": 60}],
        "behavior": {"scale_down": {"stabilization_window_s": "10m", "policies": [{"type": "Pods", "value": 1, "period_s": "1m"}]}},
        "metric_delay_s": "30s",
    }
    problems = Problems()
    scenario = scenario_from_plain({"deployments": {"llama": {"autoscaler": plain}}}, problems)
    assert problems.found == []
    down = ScalingRules(600.0, [ScalingPolicy("Pods", 1, 60.0)])
    expected = hpa(cpu(60.0), least=2, most=9, behavior=Behavior(scale_down=down), metric_delay_s=30.0)
    assert scenario.deployments["llama"].autoscaler == expected
    assert scenario_from_plain(scenario.to_dict(), problems) == scenario


def test_an_empty_behavior_is_not_the_same_as_none() -> None:
    for given_behavior, expected in (({}, Behavior()), (None, None)):
        plain = {"deployments": {"llama": {"autoscaler": {"choice": "hpa", "behavior": given_behavior}}}}
        scaler = scenario_from_plain(plain, Problems()).deployments["llama"].autoscaler
        assert isinstance(scaler, Hpa)
        assert scaler.behavior == expected


def test_the_examples_load_and_settings_change_them() -> None:
    scaler = load_scenario("quickstart", ["autoscaler=hpa"]).deployments["llama_8b"].autoscaler
    assert scaler == Hpa()
    changes = ["autoscaler=hpa_slow_down", "min_replicas=1", "scale_down.stabilization_window_s=5m", "sync_period_s=30"]
    slow = load_scenario("quickstart", changes).deployments["llama_8b"].autoscaler
    assert isinstance(slow, Hpa)
    assert isinstance(slow.behavior, Behavior)
    assert (slow.min_replicas, slow.sync_period_s, slow.behavior.scale_down.stabilization_window_s) == (1, 30.0, 300.0)
    with pytest.raises(InputError) as caught:
        load_scenario("quickstart", ["autoscaler=hpa_outstanding", "metrics=[{source: pods, nme: queue}]"])
    [problem] = caught.value.problems
    assert (problem.path, problem.nearest) == ("deployments.llama_8b.autoscaler.metrics[0].nme", "name")


# End to end

FIXED = ColdStart(*(StageTime(seconds, seconds) for seconds in (5.0, 5.0, 10.0, 20.0, 20.0)))


def surge(autoscaler: Hpa) -> Scenario:
    """A chat service on single-GPU machines; from minute 10 to 30 the load is tenfold, and a cold start takes 60 s."""
    lengths = TokenLengths(family="fixed", mean=200)
    workload = Synthetic(
        rate_per_s=2.0, renewal_family="exponential", noise_sd=0.0, week_profile="flat", prompt=lengths, output=lengths,
        events={"surge": Event(at="10m", lasts="20m", factor=10.0)},
    )  # fmt: skip
    return Scenario(
        horizon="50m",
        services={"chat": Service(workload=workload, deployments=["llama"])},
        deployments={"llama": Deployment(pools=["gpu"], autoscaler=autoscaler)},
        pools={"gpu": Pool(cold_start=FIXED)},
    )


def tables_of(made: Scenario, folder: Path) -> dict[str, dict[str, list[Any]]]:
    """Run a scenario and return its tables."""
    with RunWriter(folder) as writer:
        run(build_world(resolve(made)), writer.spool)
        merged = writer.merge()
        return {name: {column: values.tolist() for column, values in merged.table(name).items()} for name in TABLES}


def test_a_service_whose_load_rises_is_scaled_up_and_down_again(tmp_path: Path) -> None:
    # At 7 a pod the surge wants 5 pods with room on both sides, so that its noise changes nothing.
    scaler = hpa(average(7.0), least=1, most=6, metric_window_s=60.0)
    tables = tables_of(surge(scaler), tmp_path / "run")
    decisions = tables["decisions"]
    assert set(decisions["policy"]) == {"hpa"}
    minutes = [time_ns / (60 * NS_PER_S) for time_ns in decisions["time_ns"]]
    ups = [minute for minute, before, after in zip(minutes, decisions["before"], decisions["after"], strict=True) if after > before]
    # The rise is seen at most a scrape, a sync and part of a window after it came.
    assert 10 < min(ups) < 11
    # What was wanted in the last minute of the surge binds for five minutes more; then the window of a minute empties.
    assert not [minute for minute in minutes if 30 <= minute < 34]
    assert 34 <= minutes[-1] < 37
    assert max(decisions["after"]) > 4
    assert decisions["after"][-1] == 1
    assert all(reason.startswith("pods outstanding ") and "/7" in reason for reason in decisions["reason"])
    assert len({(time_ns - decisions["time_ns"][0]) % (15 * NS_PER_S) for time_ns in decisions["time_ns"]}) == 1
    assert sum(tables["windows"]["completed"]) > 0.99 * sum(tables["windows"]["arrived"])


def test_late_metrics_act_later(tmp_path: Path) -> None:
    first = []
    for delay_s in (0.0, 90.0):
        made = surge(hpa(average(8.0), most=6, metric_window_s=60.0, metric_delay_s=delay_s))
        made.horizon = "15m"
        first.append(tables_of(made, tmp_path / f"{delay_s}")["decisions"]["time_ns"][0])
    # The same scrapes, seen 90 s later: exactly six syncs.
    assert first[1] - first[0] == 90 * NS_PER_S
