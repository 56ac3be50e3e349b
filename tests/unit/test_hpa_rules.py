"""The HPA rule by rule, as tables: metrics, bounds, stabilization and rate limits."""

from __future__ import annotations

import copy
import math

import pytest
from hpa_kit import NAN, OFFSET_S, average, cpu, external, hpa, look, pods, rules, samples
from hypothesis import given
from hypothesis import strategies as st

from sim.policies.autoscalers.hpa_algorithm import (
    Log,
    PodCounts,
    PodTarget,
    Recommendations,
    Tolerances,
    count_pods,
    milli,
    per_pod_proposal,
)
from sim.policies.autoscalers.hpa_config import Behavior, Metric, ScalingRules
from sim.policies.base import DeploymentView, MetricTiming, Pods
from sim.units import NS_PER_S

# Metrics


@pytest.mark.parametrize(
    ("metric", "current", "total", "replicas", "expected", "reason"),
    [
        # AverageValue: ceil(total/target), whatever runs; the tolerance is about total/(target x replicas).
        (external(10), 5, 86.0, None, 9, "external queue 86/10 per replica: 9"),
        (external(10), 3, 32.0, None, 3, "external queue 32/10 per replica, tolerance: 3"),
        (external(10), 3, 34.0, pods(3, pending=(0, 1)), 4, "external queue 34/10 per replica: 4"),
        # Value: ceil(ratio x running and ready pods): 1.5 x 4, 1.5 x 2, 0.5 x 4.
        (external(10, "Value"), 4, 15.0, None, 6, "external queue 15/10: 6"),
        (external(10, "Value"), 4, 40.0, pods(4, pending=(0,), unready=(1,)), 8, "external queue 40/10: 8"),
        (external(10, "Value"), 4, 15.0, pods(4, pending=(0,), unready=(1,)), 3, "external queue 15/10: 3"),
        (external(10, "Value"), 4, 5.0, None, 2, "external queue 5/10: 2"),
        (external(10, "Value"), 4, 10.9, None, 4, "external queue 10.9/10, tolerance: 4"),
    ],
)
def test_external_metrics(metric: Metric, current: int, total: float, replicas: Pods | None, expected: int, reason: str) -> None:
    behavior = Behavior(scale_down=rules(window_s=0.0))
    decision = look(hpa(metric, behavior=behavior), current, {"queue": total}, replicas=replicas)
    assert (decision.replicas, decision.reason) == (expected, reason)


def test_the_largest_proposal_counts_and_is_named() -> None:
    by_queue = look(hpa(average(10), external(10)), 3, {"outstanding": [20.0] * 3, "queue": 86.0})
    assert by_queue.reason == "external queue 86/10 per replica: 9 -> limited to 6 by max(2 x 3, 4)"
    by_pods = look(hpa(average(10), external(10)), 3, {"outstanding": [20.0] * 3, "queue": 5.0})
    assert by_pods.reason == "pods outstanding 20/10: 6"


@pytest.mark.parametrize(
    ("outstanding", "queue", "expected", "reason"),
    [
        # One metric failed: scaling up still happens, scaling down does not.
        ([20.0] * 3, NAN, 6, "pods outstanding 20/10: 6"),
        ([1.0] * 3, NAN, 3, "pods outstanding 1/10: 1 -> kept: no sample of external queue"),
        ([], 60.0, 6, "external queue 60/10 per replica: 6"),
        ([], 1.0, 3, "external queue 1/10 per replica: 1 -> kept: no sample of pods outstanding"),
        ([], NAN, 3, "no sample of pods outstanding, external queue"),
    ],
)
def test_failed_metrics(outstanding: list[float], queue: float, expected: int, reason: str) -> None:
    policy = hpa(average(10), external(10), behavior=Behavior(scale_down=rules(window_s=0.0)))
    decision = look(policy, 3, {"outstanding": outstanding, "queue": queue})
    assert (decision.replicas, decision.reason) == (expected, reason)


def test_a_failed_look_records_no_recommendation() -> None:
    policy = hpa(average(10), external(10), behavior=Behavior(rules(window_s=60.0), rules(window_s=60.0)))
    look(policy, 3, {"outstanding": [30.0] * 3, "queue": NAN})
    look(policy, 3, {"outstanding": [], "queue": NAN}, at_s=15)
    look(policy, 3, {"outstanding": [1.0] * 3, "queue": NAN}, at_s=30)
    # The 9 of the first look is the largest of the window, the initial number the least: nothing came of the other two looks.
    made, start_ns = policy._recommendations, OFFSET_S * NS_PER_S - 1
    assert (made.largest_after(start_ns), made.least_after(start_ns)) == (9, 3)


def test_pods_without_samples_count_nothing_above_the_target() -> None:
    # 40/10 on two of four pods; the others at 0: mean 20, ceil(2 x 4) = 8.
    decision = look(hpa(average(10)), 4, {"outstanding": [40.0, 40.0]})
    assert (decision.replicas, decision.reason) == (8, "pods outstanding 40/10, 2 missing at 0: 8")
    # 12/10 on one of two: with the other at 0 the ratio is 0.6, on the other side of 1.
    decision = look(hpa(average(10)), 2, {"outstanding": [12.0]})
    assert decision.reason == "pods outstanding 12/10, 1 missing at 0: direction would change: 2"


@pytest.mark.parametrize(
    ("current", "counts", "target"),
    [
        # 45 % of 50 %, three missing at 100 %: (450 + 3000) x 100 // 4000 = 86 %, on the other side of 1; ceil(1.72 x 4) = 7.
        (4, PodCounts(450, 1, 3, 0), PodTarget(50, 1_000)),
        # 1.2 times the target, nine missing at 0: 0.12, on the other side of 1; ceil(0.12 x 10) = 2.
        (10, PodCounts(12_000, 1, 9, 0), PodTarget(10_000)),
        # 0.8 of 3 pods there, 2 wanted, one of them missing at the target: 0.867, and ceil(0.867 x 3) = 3 is more than 2.
        (2, PodCounts(16_000, 2, 1, 0), PodTarget(10_000)),
        # Two pods there, 5 wanted: 30 and a missing one at 0 are 1.5 times the target, and ceil(1.5 x 2) = 3 is less than 5.
        (5, PodCounts(30_000, 1, 1, 0), PodTarget(10_000)),
    ],
)
def test_counting_other_pods_never_turns_the_direction(current: int, counts: PodCounts, target: PodTarget) -> None:
    proposal = per_pod_proposal(current, counts, target, Tolerances())
    assert proposal is not None
    assert proposal.replicas == current
    assert proposal.rule.endswith(": direction would change")


def test_replicas_that_found_no_machine_are_pending_pods() -> None:
    # 10 wanted, 3 there at 1.5 times the target. Measured ones alone give ceil(1.5 x 3) = 5; with seven pending at 0 the load turns
    # out to be below what ten can take, and the number stays.
    decision = look(hpa(average(10)), 10, {"outstanding": [15.0] * 3}, replicas=pods(3))
    assert (decision.replicas, decision.reason) == (10, "pods outstanding 15/10, 7 unready at 0: direction would change: 10")


@pytest.mark.parametrize(
    ("replicas", "sample_age_s", "settings", "measured"),
    [
        (pods(1, age_s=60, ready_s=30), 0, {}, True),
        # The sample spans 15 s that end now; ready for 15 s is enough, for 14 s is not.
        (pods(1, age_s=60, ready_s=15), 0, {}, True),
        (pods(1, age_s=60, ready_s=14), 0, {}, False),
        (pods(1, age_s=60, ready_s=30), 15, {}, True),
        (pods(1, age_s=60, ready_s=30), 16, {}, False),
        (pods(1, age_s=60, ready_s=30), 0, {"metric_window_s": 31}, False),
        # After the initialization period a ready pod counts at once, one that never was ready does not.
        (pods(1, age_s=300, ready_s=1), 0, {}, True),
        (pods(1, age_s=299, ready_s=1), 0, {}, False),
        (pods(1, age_s=121, ready_s=1), 0, {"cpu_initialization_s": 120}, True),
        (pods(1, unready=(0,), age_s=60), 0, {}, False),
        (pods(1, unready=(0,), age_s=600), 0, {}, False),
        (pods(1, unready=(0,), age_s=600), 0, {"initial_readiness_delay_s": 0}, True),
    ],
)
def test_samples_of_starting_pods_are_left_out_for_resource_metrics(
    replicas: Pods, sample_age_s: float, settings: dict[str, float], measured: bool
) -> None:
    decision = look(hpa(cpu(50), **settings), 1, {"busy": [1.0]}, replicas=replicas, sample_age_s=sample_age_s)
    assert decision.reason == ("resource busy 100 %/50 %: 2" if measured else "no sample of resource busy")
    # Other metrics count whatever has a sample.
    decision = look(hpa(average(0.5, "busy")), 1, {"busy": [1.0]}, replicas=replicas, sample_age_s=sample_age_s)
    assert decision.reason == "pods busy 1/0.5: 2"


def test_a_resource_metric_with_an_average_value_is_not_a_utilization() -> None:
    raw = Metric("resource", "busy", "AverageValue", 0.3)
    # 0.337 and 0.338: 0.337 in whole thousandths, 1.1233 of the target; in whole percent 33/30 is within the tolerance.
    assert look(hpa(raw), 2, {"busy": [0.337, 0.338]}).replicas == 3
    assert look(hpa(cpu(30)), 2, {"busy": [0.337, 0.338]}).replicas == 2


def test_utilization_is_of_the_request() -> None:
    # 64 + 96 of 2 x 256: 31 %.
    seats = Metric("resource", "running", "Utilization", 25, 256)
    assert look(hpa(seats), 2, {"running": [64, 96]}).reason == "resource running 31 %/25 %: 3"


@pytest.mark.parametrize(("value", "expected"), [(1.1, 10), (1.101, 12), (0.9, 10), (0.899, 9), (1.05, 10)])
def test_tolerance_includes_its_ends(value: float, expected: int) -> None:
    policy = hpa(average(1), downscale_stabilization_s=0.0)
    look(policy, 10, {"outstanding": [1.0] * 10}, at_s=-1)
    decision = look(policy, 10, {"outstanding": [value] * 10})
    assert decision.replicas == expected
    assert ("tolerance" in decision.reason) == (expected == 10)


def test_tolerance_per_direction() -> None:
    behavior = Behavior(rules(tolerance=0.0), rules(tolerance=0.5))
    assert look(hpa(average(1), behavior=behavior), 10, {"outstanding": [1.01] * 10}).replicas == 11
    assert look(hpa(average(1), behavior=behavior), 10, {"outstanding": [0.5] * 10}).replicas == 10
    assert look(hpa(average(1), behavior=behavior), 10, {"outstanding": [0.49] * 10}).replicas == 5
    assert look(hpa(average(1), behavior=Behavior(), tolerance=0.3), 10, {"outstanding": [1.3] * 10}).replicas == 10


def test_quantities_are_whole_thousandths() -> None:
    assert [milli(value) for value in (0.1 + 0.2, 1.001, 37.5, 1e9 + 0.0004)] == [300, 1001, 37_500, 10**12]


# Bounds, disabling, zero


def test_outside_the_bounds_it_jumps_at_once() -> None:
    slow = Behavior(rules(("Pods", 1, 60), window_s=300.0), rules(("Pods", 1, 60), window_s=300.0))
    for behavior in (None, slow):
        policy = hpa(average(1), least=3, most=5, behavior=behavior)
        assert look(policy, 9, {"outstanding": [9.0] * 9}).reason == "9 is above maxReplicas 5"
        assert look(policy, 1, {"outstanding": []}, at_s=15).reason == "1 is below minReplicas 3"
        assert [look(policy, n, {"outstanding": [1.0] * n}, at_s=30).replicas for n in (9, 1)] == [5, 3]


def test_a_jump_to_a_bound_counts_for_rate_limits() -> None:
    policy = hpa(external(1), least=1, most=50, behavior=Behavior(scale_down=rules(("Pods", 10, 60))))
    assert look(policy, 56, {"queue": 1.0}).replicas == 50
    # 50 + 6 - 10 = 46.
    assert look(policy, 50, {"queue": 1.0}, at_s=15).replicas == 46


def test_zero_replicas_switch_it_off() -> None:
    decision = look(hpa(external(1), least=2), 0, {"queue": 100.0})
    assert (decision.replicas, decision.reason) == (0, "0 replicas: autoscaling is off")


def test_from_and_to_zero_where_the_minimum_is_zero() -> None:
    for kind in ("AverageValue", "Value"):
        down = Behavior(scale_down=rules(window_s=0.0))
        policy = hpa(external(10, kind), least=0, behavior=down)
        assert look(policy, 0, {"queue": 0.0}).replicas == 0
        # ceil(0.1) = 1: there is no tolerance at zero.
        assert look(policy, 0, {"queue": 1.0}, at_s=15).replicas == 1
        assert look(policy, 1, {"queue": 0.0}, at_s=30).replicas == 0


def test_bounds_are_named() -> None:
    assert look(hpa(external(1), most=8), 5, {"queue": 9.0}).reason.endswith("9 -> limited to 8 by maxReplicas 8")
    policy = hpa(external(1), least=3, behavior=Behavior(scale_down=rules(window_s=0.0)))
    assert look(policy, 5, {"queue": 1.0}).reason.endswith("1 -> limited to 3 by minReplicas 3")


# Stabilization and rate limits over time


def test_the_first_look_remembers_the_number_it_found() -> None:
    policy = hpa(external(1))
    decision = look(policy, 10, {"queue": 2.0})
    assert (decision.replicas, decision.reason) == (10, "external queue 2/1 per replica: 2 -> stabilized by 10, the most of 300 s")
    # Without behavior a recommendation of exactly 300 s ago still binds, with behavior it does not.
    for behavior, at_300_s in ((None, 10), (Behavior(), 2)):
        policy = hpa(external(1), behavior=behavior)
        found = [look(policy, 10, {"queue": 2.0}, at_s=at_s).replicas for at_s in (0, 299, 300, 301)]
        assert found == [10, 10, at_300_s, 2]


def test_recommendations_are_recorded_before_limits() -> None:
    policy = hpa(external(1), most=6)
    assert look(policy, 4, {"queue": 500.0}).replicas == 6
    assert look(policy, 6, {"queue": 1.0}, at_s=15).reason.endswith(
        "stabilized by 500, the most of 300 s -> limited to 6 by maxReplicas 6"
    )


def test_an_up_window_waits_for_the_least_recommendation() -> None:
    policy = hpa(external(1), behavior=Behavior(rules(window_s=60.0), rules(window_s=0.0)))
    looks = ((0, 4, 9.0), (15, 4, 7.0), (60, 4, 8.0), (74, 7, 9.0), (75, 7, 8.0))
    found = [look(policy, current, {"queue": queue}, at_s=at_s) for at_s, current, queue in looks]
    # The 4 found at the start holds for 60 s, then the 7 of second 15.
    assert [decision.replicas for decision in found] == [4, 4, 7, 7, 8]
    assert found[2].reason == "external queue 8/1 per replica: 8 -> stabilized up by 7, 60 s"


def test_a_down_window_waits_for_the_largest_recommendation() -> None:
    policy = hpa(external(1), behavior=Behavior(scale_down=rules(window_s=60.0)))
    look(policy, 10, {"queue": 10.0})
    decision = look(policy, 10, {"queue": 3.0}, at_s=30)
    assert (decision.replicas, decision.reason) == (10, "external queue 3/1 per replica: 3 -> stabilized down by 10, 60 s")
    assert look(policy, 10, {"queue": 4.0}, at_s=59).replicas == 10
    assert look(policy, 10, {"queue": 2.0}, at_s=60).replicas == 4


def test_default_policies_only_with_behavior() -> None:
    # 100 % or 4 pods in 15 s from 3 replicas: 7, not 6; the events of the last 15 s count.
    policy = hpa(external(1), behavior=Behavior())
    assert look(policy, 3, {"queue": 100.0}).reason.endswith("limited to 7 by 4 pods/15 s up")
    assert look(policy, 7, {"queue": 100.0}, at_s=14).replicas == 7
    assert look(policy, 7, {"queue": 100.0}, at_s=15).replicas == 14
    # Without behavior there is no look-back.
    policy = hpa(external(1))
    assert [look(policy, 3, {"queue": 100.0}).replicas, look(policy, 6, {"queue": 100.0}, at_s=1).replicas] == [6, 12]
    # Down, 100 % in 15 s is no limit, with or without.
    policy = hpa(external(1), behavior=Behavior(scale_down=ScalingRules(stabilization_window_s=0.0)))
    assert look(policy, 100, {"queue": 1.0}).replicas == 1


def test_replicas_removed_in_the_period_may_come_back() -> None:
    behavior = Behavior(rules(("Pods", 2, 60)), rules(("Pods", 30, 60)))
    policy = hpa(external(1), behavior=behavior)
    assert look(policy, 50, {"queue": 20.0}).replicas == 20
    # 60 s ago there were 50: 20 + 30 + 2.
    assert look(policy, 20, {"queue": 100.0}, at_s=15).replicas == 52
    # 52 - 32 + 30 - 30 = 20.
    assert look(policy, 52, {"queue": 1.0}, at_s=30).replicas == 20


def test_an_event_its_own_direction_no_longer_needs_can_be_lost_to_the_other() -> None:
    # Up looks back 15 s, down 600 s. The second scale-up takes the place of the first event, so the start of the down period is
    # taken for 10 instead of 6: 14 - 4 - 1 = 9.
    policy = hpa(external(1), behavior=Behavior(rules(("Pods", 4, 15)), rules(("Pods", 1, 600))))
    assert look(policy, 6, {"queue": 100.0}).replicas == 10
    assert look(policy, 10, {"queue": 100.0}, at_s=30).replicas == 14
    assert look(policy, 14, {"queue": 1.0}, at_s=45).replicas == 9


def test_a_log_reuses_the_last_outdated_place() -> None:
    log = Log([(10, 1), (20, 2), (30, 3)])
    log.store(40, 4, 25)
    assert log.entries == [(10, 1), (40, 4), (30, 3)]
    log.store(50, 5, 5)
    assert log.entries == [(10, 1), (40, 4), (30, 3), (50, 5)]
    assert log.after(30) == [4, 5]


def test_memory_does_not_grow_with_the_horizon() -> None:
    policy = hpa(external(1), behavior=Behavior())
    current = 5
    for sync in range(2_000):
        current = look(policy, current, {"queue": 5.0 + 5.0 * math.sin(sync / 7)}, at_s=15.0 * sync).replicas
    assert len(policy._recommendations) <= 42
    assert max(len(policy._events.added.entries), len(policy._events.removed.entries)) <= 3


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), min_size=1, max_size=60), st.integers(0, 12), st.integers(0, 12))
def test_recommendations_forget_only_what_cannot_bind(made: list[tuple[int, int]], up_ns: int, down_ns: int) -> None:
    recommendations, kept, now_ns = Recommendations(), [], 0
    for gap_ns, replicas in made:
        now_ns += gap_ns
        assert recommendations.largest_after(now_ns - down_ns) == max([n for at, n in kept if at > now_ns - down_ns], default=0)
        least = min([n for at, n in kept if at > now_ns - up_ns], default=(1 << 31) - 1)
        assert recommendations.least_after(now_ns - up_ns) == least
        recommendations.store(now_ns, replicas)
        kept.append((now_ns, replicas))


@given(st.lists(st.one_of(st.just(NAN), st.floats(0, 200)), max_size=12), st.integers(0, 3))
def test_plain_pods_are_counted_as_under_the_full_rules(levels: list[float], unplaced: int) -> None:
    seen, values = pods(len(levels)), samples(levels, len(levels))
    sampled = [level for level in levels if not math.isnan(level)]
    expected = PodCounts(sum(milli(level) for level in sampled), len(sampled), len(levels) - len(sampled), unplaced)
    assert count_pods(seen, values, unplaced, None) == expected


def test_a_copy_has_a_memory_of_its_own() -> None:
    policy = hpa(external(1))
    one = copy.deepcopy(policy)
    look(one, 10, {"queue": 10.0})
    assert policy == hpa(external(1))
    assert look(policy, 2, {"queue": 1.0}, at_s=15).replicas == 2


def test_the_clock_has_a_phase_and_metrics_their_timing() -> None:
    policy = hpa(average(1), external(1), sync_period_s=20.0, metric_delay_s=30.0, metric_window_s=60.0)
    assert policy.first_look_ns(0.25) == 5 * NS_PER_S
    view = DeploymentView(7 * NS_PER_S, 1, pods(1), 0, {})
    assert policy.next_look_ns(view) == 27 * NS_PER_S
    assert policy.clock_ns() == 20 * NS_PER_S
    assert policy.metric_timing() == MetricTiming(15.0, 30.0, 60.0)
    assert policy.metric_names() == ["outstanding", "queue"]
