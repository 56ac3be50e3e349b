"""Laws of the HPA for random inputs: bounds, direction, disabled directions, the start of the clock."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hpa_kit import NAN, OFFSET_S, average, cpu, external, hpa, look, pods, rules
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.policies.autoscalers.hpa_config import Behavior, Metric, ScalingPolicy, ScalingRules

LEVELS = st.lists(st.one_of(st.just(NAN), st.floats(0, 200)), min_size=1, max_size=12)
POLICIES = st.lists(
    st.builds(ScalingPolicy, st.sampled_from(["Pods", "Percent"]), st.integers(1, 120), st.sampled_from([15.0, 60.0, 300.0])),
    min_size=1,
    max_size=3,
)


def directions(selections: list[str]) -> st.SearchStrategy[ScalingRules]:
    """Rules of one direction."""
    windows = st.sampled_from([None, 0.0, 60.0])
    return st.builds(ScalingRules, windows, st.none() | POLICIES, st.sampled_from(selections))


BEHAVIORS = st.none() | st.builds(Behavior, directions(["Max", "Min", "Disabled"]), directions(["Max", "Min", "Disabled"]))
METRICS = st.sampled_from([average(20.0), cpu(60.0, 30.0), external(20.0), external(50.0, "Value")])


def drawn_metrics(metric: Metric, data: st.DataObject, current: int) -> dict[str, Any]:
    """Random samples for a metric, one for each pod."""
    if metric.source == "external":
        return {metric.name: data.draw(st.floats(0, 2_000))}
    return {metric.name: data.draw(st.lists(st.one_of(st.just(NAN), st.floats(0, 200)), min_size=current, max_size=current))}


@settings(max_examples=60, deadline=None)
@given(METRICS, BEHAVIORS, st.data())
def test_the_result_is_always_within_the_bounds(metric: Metric, behavior: Behavior | None, data: st.DataObject) -> None:
    least = data.draw(st.integers(1, 5))
    policy = hpa(metric, least=least, most=data.draw(st.integers(least, 12)), behavior=behavior)
    current = data.draw(st.integers(1, 15))
    for at_s in range(0, 150, 15):
        waiting = data.draw(st.sets(st.integers(0, current - 1)))
        current = look(policy, current, drawn_metrics(metric, data, current), at_s=at_s, replicas=pods(current, waiting)).replicas
        assert policy.min_replicas <= current <= policy.max_replicas


@settings(max_examples=100, deadline=None)
@given(LEVELS, st.data())
def test_it_never_moves_against_the_ratio(levels: list[float], data: st.DataObject) -> None:
    current = len(levels)
    waiting = data.draw(st.sets(st.integers(0, current - 1)))
    counted = [level for pod, level in enumerate(levels) if pod not in waiting and not math.isnan(level)]
    policy = hpa(average(20.0), behavior=Behavior(scale_down=rules(window_s=0.0)))
    replicas = look(policy, current, {"outstanding": levels}, replicas=pods(current, waiting)).replicas
    mean = float(np.mean(counted)) if counted else 20.0
    if mean >= 20.001:
        assert replicas >= current
    elif mean <= 19.999:
        assert replicas <= current


@settings(max_examples=50, deadline=None)
@given(METRICS, st.data())
def test_disabled_never_moves(metric: Metric, data: st.DataObject) -> None:
    off = Behavior(ScalingRules(select_policy="Disabled"), ScalingRules(select_policy="Disabled"))
    policy = hpa(metric, behavior=off)
    current = data.draw(st.integers(1, 10))
    for at_s in (0, 400, 800):
        assert look(policy, current, drawn_metrics(metric, data, current), at_s=at_s).replicas == current


@settings(max_examples=50, deadline=None)
@given(BEHAVIORS, st.lists(st.floats(0, 40), min_size=2, max_size=12))
def test_decisions_do_not_depend_on_when_the_scenario_started(behavior: Behavior | None, queues: list[float]) -> None:
    found = []
    for shift_s in (0, -OFFSET_S):
        policy = hpa(external(1.0), behavior=behavior)
        current, decisions = 5, []
        for sync, queue in enumerate(queues):
            decision = look(policy, current, {"queue": queue}, at_s=shift_s + 15.0 * sync)
            current = decision.replicas
            decisions.append(decision)
        found.append(decisions)
    assert found[0] == found[1]
