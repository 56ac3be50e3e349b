"""The arithmetic of the Kubernetes HPA controller, as pure functions: proposals, stabilization, rate limits.

Source: the documentation of autoscaling/v2 and the behaviour of pkg/controller/podautoscaler in Kubernetes (replica_calculator.go,
horizontal.go; read 2026-11, published). Quantities are whole thousandths and utilization is whole percent as there; ratios,
tolerances and percent limits are doubles as there, so that equal inputs round equally.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from sim.policies.autoscalers.hpa_config import ScalingPolicy
from sim.policies.base import Pods, Samples

_LARGEST_INT32 = (1 << 31) - 1
_UP_FACTOR, _UP_LEAST = 2, 4


def milli(value: float) -> int:
    """Return a quantity in whole thousandths, the unit in which the controller compares.

    Examples
    --------
    >>> milli(37.5), milli(0.1 + 0.2)
    (37500, 300)
    """
    return round(value * 1000)


@dataclass(frozen=True)
class Tolerances:
    """How far a ratio may be from 1 without a change, per direction."""

    down: float = 0.1
    up: float = 0.1

    def within(self, ratio: float) -> bool:
        """Say whether a ratio is near enough to 1; the ends belong to it.

        Examples
        --------
        >>> Tolerances(0.1, 0.1).within(1.1), Tolerances(0.1, 0.05).within(1.1)
        (True, False)
        """
        return 1.0 - self.down <= ratio <= 1.0 + self.up


@dataclass(frozen=True)
class CpuRules:
    """When the sample of a running pod is left out: the rules of the cpu resource, in nanoseconds.

    Parameters
    ----------
    initialization_ns : after its start a pod must be ready, and the sample taken wholly after it became so.
    readiness_delay_ns : later, a pod that is not ready and never was for so long after its start is left out.
    window_ns : what one sample spans.
    """

    initialization_ns: int
    readiness_delay_ns: int
    window_ns: int


class PodCounts(NamedTuple):
    """What a per-pod metric knows: the sum over measured pods in thousandths; how many are measured, without a sample, unready."""

    total_milli: int
    measured: int
    missing: int
    unready: int


def count_pods(pods: Pods, samples: Samples, unplaced: int, cpu: CpuRules | None) -> PodCounts:
    """Sort pods into measured, missing and unready ones.

    Parameters
    ----------
    pods, samples : as seen at the look. unplaced : wanted replicas without a machine; in a cluster they are pending pods.
    cpu : the rules of a resource metric; None for other metrics, where running pods count whether ready or not.
    """
    if cpu is None and not pods.some_pending:
        # The plain case, a few microseconds: an unknown sample shows in the sum.
        total = float(np.add.reduce(np.rint(samples.per_pod * 1000)))
        if total == total:
            return PodCounts(int(total), len(samples.per_pod), 0, unplaced)
    sampled = ~np.isnan(samples.per_pod)
    unready = pods.pending
    if cpu is not None:
        starting = pods.age_ns < cpu.initialization_ns
        stale = pods.ready_ns < samples.age_ns + cpu.window_ns
        # A replica becomes ready once: the state of one that is not ready last changed when it started.
        never_ready = ~pods.ready & (cpu.readiness_delay_ns > 0)
        left_out = np.where(starting, ~pods.ready | stale, never_ready)
        unready = unready | (sampled & left_out)
    measured = sampled & ~unready
    return PodCounts(
        total_milli=int(np.rint(samples.per_pod[measured] * 1000).astype(np.int64).sum()),
        measured=int(np.count_nonzero(measured)),
        missing=int(np.count_nonzero(~sampled & ~unready)),
        unready=int(np.count_nonzero(unready)) + unplaced,
    )


@dataclass(frozen=True)
class PodTarget:
    """The target of a per-pod metric.

    Parameters
    ----------
    target : thousandths, or whole percent of the request.
    request_milli : what one pod asks for; None for a target that is not a utilization.
    """

    target: int
    request_milli: int | None = None

    def usage(self, total_milli: int, pods: int) -> int:
        """Return the mean in thousandths, or the ratio of sums in percent, rounded down."""
        if self.request_milli is None:
            return total_milli // pods
        return total_milli * 100 // (self.request_milli * pods)

    def ratio(self, total_milli: int, pods: int) -> float:
        """Return usage over target."""
        return self.usage(total_milli, pods) / self.target

    @property
    def missing_milli(self) -> int:
        """What a pod without a sample counts when the metric is below its target: the target, but at least a whole request."""
        if self.request_milli is None:
            return self.target
        return self.request_milli * max(100, self.target) // 100

    @property
    def missing_name(self) -> str:
        """Say what `missing_milli` is."""
        return "target" if self.request_milli is None else f"{max(100, self.target)} %"


class Proposal(NamedTuple):
    """Replicas one metric asks for, the usage it saw (unit of its target) and the rule that bound, "" for the plain ratio."""

    replicas: int
    usage: int
    rule: str = ""


def per_pod_proposal(current: int, pods: PodCounts, target: PodTarget, tolerances: Tolerances) -> Proposal | None:
    """Return what a pods or resource metric proposes; None when no pod that counts has a sample.

    Parameters
    ----------
    current : replicas wanted now. pods : from `count_pods`.

    Examples
    --------
    >>> per_pod_proposal(2, PodCounts(75_000, 2, 0, 0), PodTarget(30_000), Tolerances())
    Proposal(replicas=3, usage=37500, rule='')
    >>> per_pod_proposal(3, PodCounts(100_000, 2, 0, 1), PodTarget(30_000), Tolerances())
    Proposal(replicas=4, usage=50000, rule='1 unready at 0')
    """
    if pods.measured == 0:
        return None
    usage = target.usage(pods.total_milli, pods.measured)
    ratio = usage / target.target
    recount_unready = pods.unready > 0 and ratio > 1.0
    if not recount_unready and pods.missing == 0:
        if tolerances.within(ratio):
            return Proposal(current, usage, "tolerance")
        return Proposal(_ceil(ratio * pods.measured), usage)
    total, counted, rules = pods.total_milli, pods.measured, []
    if pods.missing and ratio != 1.0:
        total += pods.missing * target.missing_milli if ratio < 1.0 else 0
        counted += pods.missing
        rules.append(f"{pods.missing} missing at {target.missing_name if ratio < 1.0 else 0}")
    if recount_unready:
        counted += pods.unready
        rules.append(f"{pods.unready} unready at 0")
    recount = ", ".join(rules)
    again = target.ratio(total, counted)
    if tolerances.within(again):
        return Proposal(current, usage, f"{recount}: tolerance" if recount else "tolerance")
    replicas = _ceil(again * counted)
    if (
        (ratio < 1.0 < again)
        or (again < 1.0 < ratio)
        or (again < 1.0 and replicas > current)
        or (again > 1.0 and replicas < current)
    ):
        return Proposal(current, usage, f"{recount}: direction would change")
    return Proposal(replicas, usage, recount)


def value_proposal(current: int, ready: int, total_milli: int, target_milli: int, tolerances: Tolerances) -> Proposal:
    """Return what an external metric with a Value proposes: the ratio times the running and ready pods.

    Parameters
    ----------
    current : replicas wanted now. ready : pods running and ready.
    """
    ratio = total_milli / target_milli
    if current == 0:
        return Proposal(_ceil(ratio), total_milli)
    if tolerances.within(ratio):
        return Proposal(current, total_milli, "tolerance")
    return Proposal(_ceil(ratio * ready), total_milli)


def average_value_proposal(existing: int, total_milli: int, target_milli: int, tolerances: Tolerances) -> Proposal:
    """Return what an external metric with an AverageValue proposes: the total over the target, whatever runs.

    Parameters
    ----------
    existing : pods there are, ready or not; only the tolerance depends on it.
    """
    if existing and tolerances.within(total_milli / (target_milli * existing)):
        return Proposal(existing, total_milli, "tolerance")
    return Proposal(_ceil(total_milli / target_milli), total_milli)


def _ceil(value: float) -> int:
    return min(math.ceil(value), _LARGEST_INT32)


@dataclass
class Log:
    """Numbers with their times, in the order in which the controller keeps them.

    A new number takes the place of the last outdated one. That is observable: an event that one direction no longer needs can
    vanish from the look-back of the other.
    """

    entries: list[tuple[int, int]] = field(default_factory=list)

    def store(self, time_ns: int, number: int, outdated_before_ns: int) -> None:
        """Record a number."""
        for index in range(len(self.entries) - 1, -1, -1):
            if self.entries[index][0] < outdated_before_ns:
                self.entries[index] = (time_ns, number)
                return
        self.entries.append((time_ns, number))

    def after(self, time_ns: int) -> list[int]:
        """Return the numbers of later times."""
        return [number for at_ns, number in self.entries if at_ns > time_ns]


class Recommendations:
    """The recommendations of a stabilization window, as far as they can still be its largest or its least one.

    A number is forgotten when a later one binds at least as much, and when it has left the window, so windows must not grow.

    Examples
    --------
    >>> made = Recommendations()
    >>> for time_ns, replicas in ((0, 10), (15, 4), (30, 6)):
    ...     made.store(time_ns, replicas)
    >>> made.largest_after(-1), made.largest_after(0), made.least_after(15)
    (10, 6, 6)
    """

    def __init__(self) -> None:
        self._falling: deque[tuple[int, int]] = deque()
        self._rising: deque[tuple[int, int]] = deque()

    def __len__(self) -> int:
        return len(self._falling) + len(self._rising)

    def store(self, time_ns: int, replicas: int) -> None:
        """Record a recommendation, in order of time."""
        falling, rising = self._falling, self._rising
        while falling and falling[-1][1] <= replicas:
            falling.pop()
        falling.append((time_ns, replicas))
        while rising and rising[-1][1] >= replicas:
            rising.pop()
        rising.append((time_ns, replicas))

    def largest_after(self, time_ns: int) -> int:
        """Return the largest recommendation after a time, which must not go back; 0 for none."""
        return _first_after(self._falling, time_ns, 0)

    def least_after(self, time_ns: int) -> int:
        """Return the least recommendation after a time, which must not go back; the largest number for none."""
        return _first_after(self._rising, time_ns, _LARGEST_INT32)

    def largest_since_ns(self) -> int:
        """Return when the largest one was made that is still kept."""
        return self._falling[0][0]

    def least_since_ns(self) -> int:
        """Return when the least one was made that is still kept."""
        return self._rising[0][0]


def _first_after(entries: deque[tuple[int, int]], time_ns: int, none: int) -> int:
    while entries and entries[0][0] <= time_ns:
        entries.popleft()
    return entries[0][1] if entries else none


def stabilized_by_maximum(made: Recommendations, desired: int, now_ns: int, window_ns: int) -> int:
    """Record a recommendation and return the largest of the window (both ends in it): the rule without `behavior`.

    Examples
    --------
    >>> made = Recommendations()
    >>> made.store(0, 10)
    >>> stabilized_by_maximum(made, 6, 60_000_000_000, 300_000_000_000)
    10
    """
    made.store(now_ns, desired)
    made.least_after(now_ns)
    return made.largest_after(now_ns - window_ns - 1)


def stabilized_in_both_directions(made: Recommendations, current: int, desired: int, now_ns: int, up_ns: int, down_ns: int) -> int:
    """Return the number nearest to `current` between the least recommendation of the up window and the largest of the down window.

    The recommendation is recorded, and counts itself. A window is open at its start.

    Examples
    --------
    >>> made = Recommendations()
    >>> made.store(0, 10)
    >>> stabilized_in_both_directions(made, 4, 6, 60_000_000_000, 0, 300_000_000_000)
    6
    """
    at_least = min(desired, made.least_after(now_ns - up_ns))
    at_most = max(desired, made.largest_after(now_ns - down_ns))
    made.store(now_ns, desired)
    return min(max(current, at_least), at_most)


def up_limit_without_behavior(current: int) -> int:
    """Return the most replicas after one look without `behavior`.

    Examples
    --------
    >>> [up_limit_without_behavior(current) for current in (1, 2, 3)]
    [4, 4, 6]
    """
    return max(_UP_FACTOR * current, _UP_LEAST)


@dataclass
class ScaleEvents:
    """Replicas added and removed, with their times."""

    added: Log = field(default_factory=Log)
    removed: Log = field(default_factory=Log)

    def before_period(self, current: int, now_ns: int, period_ns: int) -> int:
        """Return how many replicas there were at the start of a period, by the events on record."""
        start_ns = now_ns - period_ns
        return current - sum(self.added.after(start_ns)) + sum(self.removed.after(start_ns))


class Limit(NamedTuple):
    """The farthest one direction may go now, and the policy that says so."""

    replicas: int
    rule: str


def up_limit(
    current: int, events: ScaleEvents, policies: Sequence[ScalingPolicy], periods_ns: Sequence[int], select: str, now_ns: int
) -> Limit:
    """Return the most replicas that `behavior` allows; never below `current`.

    Parameters
    ----------
    policies : at least one, with their periods in nanoseconds. select : Max, Min or Disabled.
    """
    if select == "Disabled":
        return Limit(current, "scaleUp Disabled")
    limits = []
    for policy, period_ns in zip(policies, periods_ns, strict=True):
        start = events.before_period(current, now_ns, period_ns)
        most = start + policy.value if policy.type == "Pods" else math.ceil(start * (1 + policy.value / 100))
        limits.append(Limit(most, f"{policy} up"))
    chosen = (min if select == "Min" else max)(limits, key=lambda limit: limit.replicas)
    return Limit(max(chosen.replicas, current), chosen.rule)


def down_limit(
    current: int, events: ScaleEvents, policies: Sequence[ScalingPolicy], periods_ns: Sequence[int], select: str, now_ns: int
) -> Limit:
    """Return the fewest replicas that `behavior` allows; never above `current`. Parameters as `up_limit`."""
    if select == "Disabled":
        return Limit(current, "scaleDown Disabled")
    limits = []
    for policy, period_ns in zip(policies, periods_ns, strict=True):
        start = events.before_period(current, now_ns, period_ns)
        least = start - policy.value if policy.type == "Pods" else int(start * (1 - policy.value / 100))
        limits.append(Limit(least, f"{policy} down"))
    chosen = (max if select == "Min" else min)(limits, key=lambda limit: limit.replicas)
    return Limit(min(chosen.replicas, current), chosen.rule)
