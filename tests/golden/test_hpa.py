"""The Kubernetes HPA on documented and published cases; each expected number is worked by hand in the comment beside it."""

from __future__ import annotations

import pytest
from hpa_kit import average, cpu, external, hpa, look, pods, rules

from sim.policies.autoscalers.hpa_config import Behavior


def test_the_documented_scale_down_by_two_policies() -> None:
    # 80 replicas and a load for 10; at most 4 pods or 10 % a minute, whichever is more.
    down = rules(("Pods", 4, 60), ("Percent", 10, 60))
    policy = hpa(external(100), behavior=Behavior(scale_down=down))
    replicas, history, by = 80, [], []
    for sync in range(0, 15 * 60, 15):
        decision = look(policy, replicas, {"queue": 1_000}, at_s=sync)
        if decision.replicas != replicas:
            history.append((sync, decision.replicas))
            by.append(decision.reason.partition("by ")[2])
        replicas = decision.replicas
    # int(80 x 0.9) = 72, int(64.8) = 64, int(57.6) = 57, int(51.3) = 51, int(45.9) = 45, int(40.5) = 40; then 4 at a time is more
    # than 10 %, and the last step is only 2.
    sizes = [72, 64, 57, 51, 45, 40, 36, 32, 28, 24, 20, 16, 12, 10]
    assert history == [(60 * minute, size) for minute, size in enumerate(sizes)]
    # At 40, both policies allow 36.
    assert by == ["10 %/60 s down"] * 6 + ["4 pods/60 s down"] * 7 + [""]


def test_the_documented_limits_without_behavior() -> None:
    # max(2 x current, 4) a look: 4 from 1 and 2, 6 from 3.
    for current, after in ((1, 4), (2, 4), (3, 6), (10, 20)):
        decision = look(hpa(average(1)), current, {"outstanding": [100.0] * current})
        assert decision.replicas == after
        assert decision.reason.endswith(f"-> limited to {after} by max(2 x {current}, 4)")


@pytest.mark.parametrize(
    ("current", "now", "history", "plain", "with_behavior"),
    [
        # Current 4, now 6, 10 a minute ago: plain the maximum, 10, limited to 8; with behavior the down window only holds a fall.
        (4, 6, [(0, 10)], 8, 6),
        (5, 3, [(-120, 4), (-60, 5)], 5, 5),
        (5, 3, [(-600, 10), (-540, 9)], 3, 3),
    ],
)
def test_recommendations_of_the_last_five_minutes(
    current: int, now: int, history: list[tuple[int, int]], plain: int, with_behavior: int
) -> None:
    for behavior, expected in ((None, plain), (Behavior(), with_behavior)):
        policy = hpa(external(1), behavior=behavior, tolerance=0.0)
        for at_s, recommendation in history:
            # The replicas seen then are what was recommended, so that nothing else was on record.
            look(policy, recommendation, {"queue": recommendation}, at_s=at_s)
        assert look(policy, current, {"queue": now}, at_s=60).replicas == expected


@pytest.mark.parametrize(
    ("current", "levels", "target", "unready", "expected", "usage"),
    [
        # (300 + 500 + 700) x 100 // 3000 = 50 %: ceil(50/30 x 3) = 5.
        (3, [0.3, 0.5, 0.7], 30, (), 5, 50),
        # Unready: (500 + 700) x 100 // 2000 = 60 %; with it at 0, 40 %: ceil(40/30 x 3) = 4.
        (3, [0.3, 0.5, 0.7], 30, (0,), 4, 60),
        # 2300 x 100 // 4000 = 57 %; 57/50 is out of the tolerance: ceil(57/50 x 4) = 5.
        (4, [0.3, 0.5, 0.7, 0.8], 50, (), 5, 57),
        # (100 + 300 + 500 + 250 + 250) x 100 // 5000 = 28 %: ceil(28/50 x 5) = 3.
        (5, [0.1, 0.3, 0.5, 0.25, 0.25], 50, (), 3, 28),
        # (400 + 95) x 100 // 2000 = 24 %; two missing at a whole request: 2495 x 100 // 4000 = 62 %: ceil(62/100 x 4) = 3.
        (4, [0.4, 0.095], 100, (), 3, 24),
        # 23500 x 100 // 4000 = 587 %: ceil(5.87 x 4) = 24, limited to 8.
        (4, [4.0, 9.5, 3.0, 7.0], 100, (), 8, 587),
        # 60 %; the missing one at 100 %: 80 %: ceil(0.8 x 2) = 2, no change.
        (2, [0.6], 100, (), 2, 60),
        # 190 %; the missing one at 0: 95 %: within the tolerance.
        (2, [1.9], 100, (), 2, 190),
        # Exactly on target, one missing: no change.
        (2, [1.0], 100, (), 2, 100),
        # The third has no sample, the first is unready: 45 %, missing at 100 %: 72 % of 50 % turns the direction round.
        (3, [0.1, 0.45], 50, (0,), 3, 45),
        # 200 %; missing and unready at 0: 2000 x 100 // 3000 = 66 %: ceil(66/50 x 3) = 4.
        (3, [0.1, 2.0], 50, (0,), 4, 200),
        # 10 %; missing at 100 %, unready left out: 1200 x 100 // 3000 = 40 %: ceil(40/50 x 3) = 3.
        (4, [0.1, 0.1, 0.1], 50, (0,), 3, 10),
    ],
)  # fmt: skip
def test_published_utilization_cases(
    current: int, levels: list[float], target: int, unready: tuple[int, ...], expected: int, usage: int
) -> None:
    policy = hpa(cpu(target), downscale_stabilization_s=0.0)
    replicas = pods(current, unready=unready)
    look(policy, current, {"busy": [target / 100] * current}, at_s=-15)
    decision = look(policy, current, {"busy": levels}, replicas=replicas)
    assert decision.replicas == expected
    assert f" {usage} %/{target} %" in decision.reason


def test_missing_pods_count_a_whole_request_or_a_target_above_it() -> None:
    # Target 200 %, one pod at 100 %, one missing. At 200 % of its request: 150 %, ceil(150/200 x 2) = 2; at 100 % it would be
    # ceil(100/200 x 2) = 1.
    policy = hpa(cpu(200), downscale_stabilization_s=0.0)
    decision = look(policy, 2, {"busy": [1.0]})
    assert (decision.replicas, decision.reason) == (2, "resource busy 100 %/200 %, 1 missing at 200 %: 2")
    # A pods metric counts its target: (0.2 + 1 + 1)/3 = 0.733, ceil(0.733 x 3) = 3, where nothing for the missing ones gives 1.
    decision = look(hpa(average(1)), 3, {"outstanding": [0.2]})
    assert (decision.replicas, decision.reason) == (3, "pods outstanding 0.2/1, 2 missing at target: 3")


@pytest.mark.parametrize(
    ("current", "levels", "target", "expected", "usage"),
    [
        # Mean 20; ceil(20/15 x 3) = 4.
        (3, [20, 10, 30], 15, 4, "20"),
        # 62 / 3 = 20.666 in whole thousandths, 1.0333 of the target: tolerance.
        (3, [20, 21, 21], 20, 3, "20.666"),
        # ceil(12/20 x 5) = 3.
        (5, [12, 12, 12, 12, 12], 20, 3, "12"),
        # A ratio of exactly 1.1 is within the tolerance, as a double 22/20 - 1 is not.
        (10, [22] * 10, 20, 10, "22"),
        (10, [18] * 10, 20, 10, "18"),
        # One thousandth above is not.
        (10, [22.001] * 10, 20, 12, "22.001"),
    ],
)
def test_published_pods_metric_cases(current: int, levels: list[float], target: float, expected: int, usage: str) -> None:
    policy = hpa(average(target), downscale_stabilization_s=0.0)
    look(policy, current, {"outstanding": [target] * current}, at_s=-15)
    decision = look(policy, current, {"outstanding": levels})
    assert decision.replicas == expected
    assert decision.reason.startswith(f"pods outstanding {usage}/{target}")


def test_a_running_pod_that_is_not_ready_counts_for_a_pods_metric_and_a_pending_one_does_not() -> None:
    # 1.5 times the target: ceil(1.5 x 3) = 5. Without the pending one it is the same ratio, and with it at 0 the mean is 30/3 = 10:
    # within the tolerance.
    levels = {"outstanding": [15.0, 15.0, 15.0]}
    assert look(hpa(average(10)), 3, levels, replicas=pods(3, unready=(0,))).replicas == 5
    decision = look(hpa(average(10)), 3, levels, replicas=pods(3, pending=(0,)))
    assert (decision.replicas, decision.reason) == (3, "pods outstanding 15/10, 1 unready at 0: tolerance: 3")


def test_a_rolling_update_with_surge_keeps_the_number() -> None:
    # 2 wanted, 3 there, one without a sample. 240 % of a target of 300 %; the missing one at 300 %: 780 x 100 // 300 = 260 %, and
    # ceil(260/300 x 3) = 3 would go up on a load below the target.
    decision = look(hpa(cpu(300)), 2, {"busy": [2.4, 2.4]}, replicas=pods(3))
    assert (decision.replicas, decision.reason) == (2, "resource busy 240 %/300 %, 1 missing at 300 %: direction would change: 2")


def _after_events(policy_rules: Behavior, current: int, changes: list[int], desired: int) -> tuple[int, str]:
    """Decide with `changes` recorded 100, 60 and 20 s ago, the last of them leading to `current`."""
    free = rules(("Pods", 10_000, 120))
    policy = hpa(external(1), behavior=Behavior(free, free), tolerance=0.0)
    before = current - sum(changes)
    for at_s, change in zip((-100, -60, -20), changes, strict=True):
        assert look(policy, before, {"queue": before + change}, at_s=at_s).replicas == before + change
        before += change
    policy.behavior = policy_rules
    decision = look(policy, current, {"queue": desired})
    return decision.replicas, decision.reason.partition(" -> ")[2]


# 100 replicas after 1 + 5 + 9 were added in the last 120 s.
UP = [
    # 100 - 15 + 5 = 90 would shrink: kept.
    (rules(("Pods", 5, 120)), 500, 100, "limited to 100 by 5 pods/120 s up"),
    (rules(("Pods", 150, 120)), 500, 235, "limited to 235 by 150 pods/120 s up"),
    # ceil(85 x 3) = 255.
    (rules(("Percent", 200, 120)), 500, 255, "limited to 255 by 200 %/120 s up"),
    # Only the 9 of 20 s ago are less than 60 s old: the window is open at its start. 100 - 9 + 30 = 121.
    (rules(("Pods", 30, 60)), 500, 121, "limited to 121 by 30 pods/60 s up"),
    (rules(("Pods", 300, 60)), 350, 350, ""),
    (rules(("Pods", 10_000, 60)), 5_000, 1_000, "limited to 1000 by maxReplicas 1000"),
    (rules(("Pods", 5, 120), select="Disabled"), 500, 100, "limited to 100 by scaleUp Disabled"),
]


@pytest.mark.parametrize(("up", "desired", "expected", "reason"), UP)
def test_scaling_up_with_rules_after_scale_ups(up, desired: int, expected: int, reason: str) -> None:
    assert _after_events(Behavior(scale_up=up), 100, [1, 5, 9], desired) == (expected, reason)


DOWN = [
    # 100 + 30 - 10 % = 117 would grow: kept.
    (rules(("Percent", 10, 120)), [-10, -10, -10], 1, 100, "limited to 100 by 10 %/120 s down"),
    (rules(("Pods", 5, 120)), [-1, -5, -9], 2, 100, "limited to 100 by 5 pods/120 s down"),
    # (100 + 12) x 0.5 = 56.
    (rules(("Percent", 50, 120)), [-2, -4, -6], 1, 56, "limited to 56 by 50 %/120 s down"),
    # 115 - 115 = 0.
    (rules(("Pods", 115, 120)), [-1, -5, -9], 0, 1, "limited to 1 by minReplicas 1"),
    # (100 + 30) - 1000 % is far below 0.
    (rules(("Percent", 1_000, 120)), [-10, -10, -10], 5, 5, ""),
    (rules(("Percent", 1_000, 120), select="Disabled"), [-10, -10, -10], 5, 100, "limited to 100 by scaleDown Disabled"),
]


@pytest.mark.parametrize(("down", "changes", "desired", "expected", "reason"), DOWN)
def test_scaling_down_with_rules_after_scale_downs(down, changes: list[int], desired: int, expected: int, reason: str) -> None:
    assert _after_events(Behavior(scale_down=down), 100, changes, desired) == (expected, reason)


@pytest.mark.parametrize(
    ("up", "down", "current", "desired", "least", "most", "expected"),
    [
        (rules(), rules(), 5, 7, 3, 8, 7),
        (rules(), rules(), 3, 1, 2, 8, 2),
        (rules(), rules(), 10, 50, 1, 1_000, 20),
        (rules(("Percent", 1, 60)), rules(), 3, 1_000, 1, 2_000, 4),
        (rules(("Pods", 100, 60), ("Percent", 100, 60)), rules(), 10, 500, 1, 1_000, 110),
        (rules(("Pods", 2, 60), ("Percent", 100, 60)), rules(), 10, 500, 1, 1_000, 20),
        (rules(("Pods", 30, 60)), rules(), 10, 50, 1, 1_000, 40),
        (rules(("Percent", 200, 60)), rules(), 10, 50, 1, 1_000, 30),
        (rules(("Pods", 100, 60)), rules(), 10, 50, 1, 1_000, 50),
        (rules(), rules(("Pods", 20, 60), ("Percent", 1, 60)), 100, 2, 1, 1_000, 80),
        (rules(), rules(("Pods", 2, 60), ("Percent", 1, 60)), 100, 2, 1, 1_000, 98),
        (rules(), rules(("Pods", 20, 60)), 1_000, 3, 3, 2_000, 980),
        (rules(), rules(("Percent", 100, 60)), 10, 2, 5, 1_000, 5),
        (rules(), rules(("Percent", 50, 60)), 10, 5, 1, 1_000, 5),
        # Min: the smaller change of the two. 1 + 2 and ceil(1.5) = 2; 5 - 2 = 3 and int(2.5) = 2.
        (rules(("Pods", 2, 60), ("Percent", 50, 60), select="Min"), rules(), 1, 9, 1, 10, 2),
        (rules(), rules(("Pods", 2, 60), ("Percent", 50, 60), select="Min"), 5, 1, 1, 10, 3),
        # As doubles 100 x (1 + 10/100) is a little more than 110.
        (rules(("Percent", 10, 60)), rules(), 100, 500, 1, 1_000, 111),
    ],
)
def test_scaling_with_rules_and_no_history(up, down, current: int, desired: int, least: int, most: int, expected: int) -> None:
    policy = hpa(external(1), behavior=Behavior(up, down), least=least, most=most, tolerance=0.0)
    assert look(policy, current, {"queue": desired}).replicas == expected
