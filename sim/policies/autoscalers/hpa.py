"""The Kubernetes Horizontal Pod Autoscaler, autoscaling/v2; the arithmetic is in `hpa_algorithm`, the settings in `hpa_config`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from sim.errors import Problems
from sim.policies.autoscalers.hpa_algorithm import (
    CpuRules,
    Limit,
    Log,
    PodTarget,
    Proposal,
    ScaleEvents,
    Tolerances,
    average_value_proposal,
    count_pods,
    down_limit,
    milli,
    per_pod_proposal,
    stabilized_by_maximum,
    stabilized_in_both_directions,
    up_limit,
    up_limit_without_behavior,
    value_proposal,
)
from sim.policies.autoscalers.hpa_config import Behavior, Metric, ScalingPolicy, ScalingRules, check_tolerance
from sim.policies.base import Autoscaler, Decision, DeploymentView, MetricTiming
from sim.registry import register
from sim.units import NS_PER_S

_DEFAULT_UP = (ScalingPolicy("Percent", 100, 15.0), ScalingPolicy("Pods", 4, 15.0))
_DEFAULT_DOWN = (ScalingPolicy("Percent", 100, 15.0),)


def _ns(seconds: float) -> int:
    return round(seconds * NS_PER_S)


@dataclass(frozen=True)
class _Direction:
    """The rules of one direction of `behavior` with all defaults filled in."""

    window_ns: int
    policies: tuple[ScalingPolicy, ...]
    periods_ns: tuple[int, ...]
    select: str

    @classmethod
    def of(cls, rules: ScalingRules, window_s: float, default: tuple[ScalingPolicy, ...]) -> _Direction:
        policies = default if rules.policies is None else tuple(rules.policies)
        window = window_s if rules.stabilization_window_s is None else rules.stabilization_window_s
        return cls(_ns(window), policies, tuple(_ns(policy.period_s) for policy in policies), rules.select_policy)


@register("autoscaler", "hpa")
class Hpa(Autoscaler):
    """The Kubernetes HPA with `pods`, `resource` and `external` metrics.

    Defaults are those of Kubernetes (controller flags and autoscaling/v2, read 2026-11; published), but for `max_replicas` and the
    metric, 32 outstanding requests per replica: those are a place to start from (assumed).

    Parameters
    ----------
    replicas : at the start of the scenario; `min_replicas` where unset. 0 switches the autoscaler off unless `min_replicas` is 0.
    min_replicas, max_replicas : bounds; outside them the number jumps to the bound at once.
    metrics : the largest proposal counts.
    behavior : stabilization, rate limits and tolerances per direction; unset is not the same as empty.
    sync_period_s : between two looks. tolerance : around a ratio of 1.
    downscale_stabilization_s : how far back recommendations bind.
    cpu_initialization_s, initial_readiness_delay_s : of starting pods, for `resource` metrics.
    scrape_s, metric_delay_s, metric_window_s : how metrics arrive, see `MetricTiming`.

    Examples
    --------
    >>> hpa = Hpa(min_replicas=2, max_replicas=8, metrics=[Metric(target=30.0)])
    >>> hpa.initial_replicas(), hpa.most_replicas(), hpa.metric_names()
    (2, 8, ['outstanding'])
    """

    replicas: int | None = None
    min_replicas: int = 1
    max_replicas: int = 4
    metrics: list[Metric] = field(default_factory=lambda: [Metric()])
    behavior: Behavior | None = None
    sync_period_s: float = 15.0
    tolerance: float = 0.1
    downscale_stabilization_s: float = 300.0
    cpu_initialization_s: float = 300.0
    initial_readiness_delay_s: float = 30.0
    scrape_s: float = 15.0
    metric_delay_s: float = 0.0
    metric_window_s: float = 0.0

    def __post_init__(self) -> None:
        """Start with an empty memory; it is no field, so no part of the configuration."""
        self._recommendations = Log()
        self._events = ScaleEvents()

    # What the control plane asks for

    def metric_names(self) -> list[str]:
        """Return the names of all metrics, each once."""
        return list(dict.fromkeys(metric.name for metric in self.metrics))

    def metric_timing(self) -> MetricTiming:
        """Return how metrics arrive."""
        return MetricTiming(self.scrape_s, self.metric_delay_s, self.metric_window_s)

    def initial_replicas(self) -> int:
        """Return `replicas`, or `min_replicas`."""
        return self.min_replicas if self.replicas is None else self.replicas

    def most_replicas(self) -> int:
        """Return `max_replicas`, or more if it starts with more."""
        return max(self.max_replicas, self.initial_replicas())

    def first_look_ns(self, phase: float) -> int:
        """Return the first look, `phase` of a sync period after the start."""
        return int(phase * _ns(self.sync_period_s))

    def next_look_ns(self, view: DeploymentView) -> int:
        """Return one sync period later."""
        return view.time_ns + _ns(self.sync_period_s)

    def decide(self, view: DeploymentView) -> Decision:
        """Go through one sync of the controller; the reason names what bound."""
        current = view.wanted
        if not self._recommendations.entries:
            self._recommendations.store(view.time_ns, current, view.time_ns)
        if current == 0 and self.min_replicas != 0:
            return Decision(0, "0 replicas: autoscaling is off")
        if current > self.max_replicas:
            decision = Decision(self.max_replicas, f"{current} is above maxReplicas {self.max_replicas}")
        elif current < self.min_replicas:
            decision = Decision(self.min_replicas, f"{current} is below minReplicas {self.min_replicas}")
        else:
            decision = self._by_metrics(view)
        if decision.replicas != current:
            self._record_change(view.time_ns, current, decision.replicas)
        return decision

    # Metrics

    def _by_metrics(self, view: DeploymentView) -> Decision:
        proposals: list[tuple[Proposal, str]] = []
        failed: list[str] = []
        for metric in self.metrics:
            proposal = self._proposal(metric, view)
            if proposal is None:
                failed.append(f"{metric.source} {metric.name}")
            else:
                proposals.append((proposal, _shown(metric, proposal)))
        no_sample = f"no sample of {', '.join(failed)}"
        if not proposals:
            return Decision(view.wanted, no_sample)
        best, reason = max(proposals, key=lambda pair: pair[0].replicas)
        if failed and best.replicas < view.wanted:
            return Decision(view.wanted, f"{reason} -> kept: {no_sample}")
        if self.behavior is None:
            return self._limited(view.time_ns, view.wanted, best.replicas, reason)
        return self._limited_by_behavior(self.behavior, view.time_ns, view.wanted, best.replicas, reason)

    def _proposal(self, metric: Metric, view: DeploymentView) -> Proposal | None:
        samples, tolerances = view.metrics[metric.name], self._tolerances()
        if metric.source == "external":
            if math.isnan(samples.total):
                return None
            total, target = milli(samples.total), milli(metric.target)
            if metric.type == "Value":
                return value_proposal(view.wanted, view.ready, total, target, tolerances)
            return average_value_proposal(self._pods(view), total, target, tolerances)
        utilization = metric.type == "Utilization"
        target_of_pod = PodTarget(int(metric.target), milli(metric.request)) if utilization else PodTarget(milli(metric.target))
        cpu = self._cpu_rules(metric) if metric.source == "resource" else None
        unplaced = self._pods(view) - len(view.pods.number)
        return per_pod_proposal(view.wanted, count_pods(view.pods, samples, unplaced, cpu), target_of_pod, tolerances)

    @staticmethod
    def _pods(view: DeploymentView) -> int:
        """Return the pods a cluster would have: a wanted replica for which there is no machine is a pending pod there."""
        return max(view.wanted, len(view.pods.number))

    def _tolerances(self) -> Tolerances:
        if self.behavior is None:
            return Tolerances(self.tolerance, self.tolerance)
        down, up = self.behavior.scale_down.tolerance, self.behavior.scale_up.tolerance
        return Tolerances(self.tolerance if down is None else down, self.tolerance if up is None else up)

    def _cpu_rules(self, metric: Metric) -> CpuRules:
        # A rate spans at least the time between two scrapes; a gauge is an instant unless it is averaged.
        spans_s = max(self.metric_window_s, self.scrape_s if metric.name == "busy" else 0.0)
        return CpuRules(_ns(self.cpu_initialization_s), _ns(self.initial_readiness_delay_s), _ns(spans_s))

    # Stabilization and limits

    def _limited(self, now_ns: int, current: int, desired: int, reason: str) -> Decision:
        window_s = self.downscale_stabilization_s
        stable = stabilized_by_maximum(self._recommendations, desired, now_ns, _ns(window_s))
        if stable != desired:
            reason += f" -> stabilized by {stable}, the most of {window_s:g} s"
        limit = up_limit_without_behavior(current)
        return self._bounded(stable, Limit(limit, f"max(2 x {current}, 4)"), Limit(0, ""), reason)

    def _limited_by_behavior(self, behavior: Behavior, now_ns: int, current: int, desired: int, reason: str) -> Decision:
        up, down = self._directions(behavior)
        windows_ns = up.window_ns, down.window_ns
        stable = stabilized_in_both_directions(self._recommendations, current, desired, now_ns, *windows_ns)
        if stable != desired:
            way, window_ns = ("up", up.window_ns) if stable < desired else ("down", down.window_ns)
            reason += f" -> stabilized {way} by {stable}, {window_ns / NS_PER_S:g} s"
        highest, lowest = Limit(self.max_replicas, ""), Limit(self.min_replicas, "")
        if stable > current:
            highest = up_limit(current, self._events, up.policies, up.periods_ns, up.select, now_ns)
        elif stable < current:
            lowest = down_limit(current, self._events, down.policies, down.periods_ns, down.select, now_ns)
        return self._bounded(stable, highest, lowest, reason)

    def _bounded(self, stable: int, highest: Limit, lowest: Limit, reason: str) -> Decision:
        """Apply rate limits and bounds; of the two the tighter one is named."""
        top = highest if highest.replicas < self.max_replicas else Limit(self.max_replicas, f"maxReplicas {self.max_replicas}")
        bottom = lowest if lowest.replicas > self.min_replicas else Limit(self.min_replicas, f"minReplicas {self.min_replicas}")
        if stable > top.replicas:
            return Decision(top.replicas, f"{reason} -> limited to {top.replicas} by {top.rule}")
        if stable < bottom.replicas:
            return Decision(bottom.replicas, f"{reason} -> limited to {bottom.replicas} by {bottom.rule}")
        return Decision(stable, reason)

    def _directions(self, behavior: Behavior) -> tuple[_Direction, _Direction]:
        down_window_s = self.downscale_stabilization_s
        return _Direction.of(behavior.scale_up, 0.0, _DEFAULT_UP), _Direction.of(behavior.scale_down, down_window_s, _DEFAULT_DOWN)

    def _record_change(self, now_ns: int, before: int, after: int) -> None:
        if self.behavior is None:
            return
        up, down = self._directions(self.behavior)
        if after > before:
            self._events.added.store(now_ns, after - before, now_ns - max(up.periods_ns))
        else:
            self._events.removed.store(now_ns, before - after, now_ns - max(down.periods_ns))

    # Configuration

    def problems(self, path: str, problems: Problems) -> None:
        """Check bounds, clocks, metrics and behaviour."""
        least, most = self.min_replicas, self.max_replicas
        problems.check(least >= 0, f"{path}.min_replicas", least, "must not be negative", ">= 0")
        problems.check(most >= max(least, 1), f"{path}.max_replicas", most, "is below min_replicas or 1", f">= {max(least, 1)}")
        if self.replicas is not None:
            problems.check(self.replicas >= 0, f"{path}.replicas", self.replicas, "must not be negative", ">= 0, or unset")
        problems.check(bool(self.metrics), f"{path}.metrics", self.metrics, "names no metric", "one at least")
        for index, metric in enumerate(self.metrics):
            metric.problems(f"{path}.metrics[{index}]", problems)
        if least == 0 and self.metrics:
            external = any(metric.source == "external" for metric in self.metrics)
            message = "no pod is left to measure at 0 replicas"
            problems.check(external, f"{path}.min_replicas", least, message, ">= 1, or an external metric")
        if self.behavior is not None:
            self.behavior.problems(f"{path}.behavior", problems)
        check_tolerance(f"{path}.tolerance", self.tolerance, problems)
        self._check_clocks(path, problems)

    def _check_clocks(self, path: str, problems: Problems) -> None:
        for name in ("sync_period_s", "scrape_s"):
            value = getattr(self, name)
            problems.check(0.001 <= value <= 86_400, f"{path}.{name}", value, "is out of range", "1 ms to 1 day")
        for name in (
            "downscale_stabilization_s", "cpu_initialization_s", "initial_readiness_delay_s", "metric_delay_s", "metric_window_s"
        ):  # fmt: skip
            value = getattr(self, name)
            problems.check(0 <= value <= 86_400, f"{path}.{name}", value, "is out of range", "0 s to 1 day")


def _shown(metric: Metric, proposal: Proposal) -> str:
    """Write down what a metric saw and proposes, for instance `pods outstanding 37.5/30: 5`."""
    if metric.type == "Utilization":
        seen = f"{proposal.usage} %/{metric.target:g} %"
    else:
        per_replica = " per replica" if metric.source == "external" and metric.type == "AverageValue" else ""
        seen = f"{proposal.usage / 1000:g}/{metric.target:g}{per_replica}"
    rule = f", {proposal.rule}" if proposal.rule else ""
    return f"{metric.source} {metric.name} {seen}{rule}: {proposal.replicas}"
