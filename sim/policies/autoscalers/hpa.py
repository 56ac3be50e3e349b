"""The Kubernetes Horizontal Pod Autoscaler, autoscaling/v2; the arithmetic is in `hpa_algorithm`, the settings in `hpa_config`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from sim.errors import Problems
from sim.policies.autoscalers.hpa_algorithm import (
    CpuRules,
    Limit,
    PodTarget,
    Proposal,
    Recommendations,
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
from sim.policies.base import NEVER_NS, Autoscaler, Decision, DeploymentView, MetricTiming
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


@dataclass(frozen=True)
class _Target:
    """A metric with its target in the units of the arithmetic.

    Parameters
    ----------
    milli : the target in thousandths. of_pod : of a pods or resource metric. cpu : its rules, for a resource metric.
    """

    metric: Metric
    milli: int
    of_pod: PodTarget
    cpu: CpuRules | None


@dataclass(frozen=True)
class _Rules:
    """The configuration as the arithmetic wants it, worked out once.

    Parameters
    ----------
    up, down : with `behavior` only. window_ns : of stabilization without it. by_age : what counts depends on the age of replicas.
    """

    behavior: Behavior | None
    period_ns: int
    targets: tuple[_Target, ...]
    tolerances: Tolerances
    up: _Direction | None
    down: _Direction | None
    window_ns: int
    lasting_ns: int

    @classmethod
    def of(cls, hpa: Hpa) -> _Rules:
        tolerances, up, down = Tolerances(hpa.tolerance, hpa.tolerance), None, None
        if hpa.behavior is not None:
            of_down, of_up = hpa.behavior.scale_down, hpa.behavior.scale_up
            tolerances = Tolerances(
                hpa.tolerance if of_down.tolerance is None else of_down.tolerance,
                hpa.tolerance if of_up.tolerance is None else of_up.tolerance,
            )
            up = _Direction.of(of_up, 0.0, _DEFAULT_UP)
            down = _Direction.of(of_down, hpa.downscale_stabilization_s, _DEFAULT_DOWN)
        targets = tuple(cls._target(hpa, metric) for metric in hpa.metrics)
        lasting_ns = 0 if any(target.cpu is not None for target in targets) else NEVER_NS
        return cls(hpa.behavior, hpa.clock_ns(), targets, tolerances, up, down, _ns(hpa.downscale_stabilization_s), lasting_ns)

    @staticmethod
    def _target(hpa: Hpa, metric: Metric) -> _Target:
        utilization = metric.type == "Utilization"
        of_pod = PodTarget(int(metric.target), milli(metric.request)) if utilization else PodTarget(milli(metric.target))
        # A rate spans at least the time between two scrapes; a gauge is an instant unless it is averaged.
        spans_s = max(hpa.metric_window_s, hpa.scrape_s if metric.name == "busy" else 0.0)
        cpu = CpuRules(_ns(hpa.cpu_initialization_s), _ns(hpa.initial_readiness_delay_s), _ns(spans_s))
        return _Target(metric, milli(metric.target), of_pod, cpu if metric.source == "resource" else None)

    def stabilized(self, desired: int, stable: int) -> str:
        """Write down what stabilization did, "" if nothing."""
        if stable == desired:
            return ""
        if self.up is None or self.down is None:
            return f" -> stabilized by {stable}, the most of {self.window_ns / NS_PER_S:g} s"
        way, window_ns = ("up", self.up.window_ns) if stable < desired else ("down", self.down.window_ns)
        return f" -> stabilized {way} by {stable}, {window_ns / NS_PER_S:g} s"


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
        self._recommendations = Recommendations()
        self._events = ScaleEvents()
        self._rules: _Rules | None = None
        self._first = True
        # Of the last look: when it was, what it recommended, if anything, until when another one with the same metrics and replicas
        # would recommend that again and keep the number, and whether looks are left out after it.
        self._looked_ns = self._same_until_ns = 0
        self._recommended: int | None = None
        self._leaves_out = False

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

    def clock_ns(self) -> int:
        """Return the sync period."""
        return _ns(self.sync_period_s)

    def next_look_ns(self, view: DeploymentView) -> int:
        """Return the next sync that could change the number: one period later, or where time alone changes nothing more."""
        period_ns = self._worked_out().period_ns
        syncs = -(-(min(view.next_sample_ns, self._same_until_ns) - view.time_ns) // period_ns)
        if syncs <= 1:
            return view.time_ns + period_ns
        self._leaves_out = True
        return view.time_ns + syncs * period_ns

    def decide(self, view: DeploymentView) -> Decision:
        """Go through one sync of the controller; the reason names what bound."""
        current = view.wanted
        if self._first:
            self._recommendations.store(view.time_ns, current)
            self._first = False
        self._catch_up(view.time_ns)
        if current == 0 and self.min_replicas != 0:
            self._same_until_ns = NEVER_NS
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

    def _catch_up(self, now_ns: int) -> None:
        """Record what the syncs left out since the last look would have recommended: the last of them stands for all."""
        if self._leaves_out and self._recommended is not None:
            self._recommendations.store(max(now_ns - self.clock_ns(), self._looked_ns), self._recommended)
        self._looked_ns, self._recommended, self._same_until_ns, self._leaves_out = now_ns, None, 0, False

    def _worked_out(self) -> _Rules:
        if self._rules is None or self._rules.behavior is not self.behavior:
            self._rules = _Rules.of(self)
        return self._rules

    # Metrics

    def _by_metrics(self, view: DeploymentView) -> Decision:
        rules = self._worked_out()
        best: tuple[Proposal, _Target] | None = None
        failed: list[_Target] = []
        for target in rules.targets:
            proposal = self._proposal(target, view, rules.tolerances)
            if proposal is None:
                failed.append(target)
            elif best is None or proposal.replicas > best[0].replicas:
                best = proposal, target
        if best is None:
            self._same_until_ns = rules.lasting_ns
            return Decision(view.wanted, lambda: _no_sample(failed))
        proposal, target = best
        if failed and proposal.replicas < view.wanted:
            self._same_until_ns = rules.lasting_ns
            return Decision(view.wanted, lambda: f"{_shown(target.metric, proposal)} -> kept: {_no_sample(failed)}")
        self._recommended = proposal.replicas
        return self._limited(rules, view.time_ns, view.wanted, proposal, target)

    @staticmethod
    def _proposal(target: _Target, view: DeploymentView, tolerances: Tolerances) -> Proposal | None:
        metric = target.metric
        samples = view.metrics[metric.name]
        # A wanted replica for which there is no machine is a pending pod in a cluster.
        replicas = len(view.pods.number)
        pods = max(view.wanted, replicas)
        if metric.source == "external":
            if math.isnan(samples.total):
                return None
            total = milli(samples.total)
            if metric.type == "Value":
                return value_proposal(view.wanted, view.ready, total, target.milli, tolerances)
            return average_value_proposal(pods, total, target.milli, tolerances)
        counts = count_pods(view.pods, samples, pods - replicas, target.cpu)
        return per_pod_proposal(view.wanted, counts, target.of_pod, tolerances)

    # Stabilization and limits

    def _limited(self, rules: _Rules, now_ns: int, current: int, proposal: Proposal, target: _Target) -> Decision:
        made, desired = self._recommendations, proposal.replicas
        if rules.up is None or rules.down is None:
            stable = stabilized_by_maximum(made, desired, now_ns, rules.window_ns)
        else:
            stable = stabilized_in_both_directions(made, current, desired, now_ns, rules.up.window_ns, rules.down.window_ns)
        bound = None if stable == current else self._bound(rules, now_ns, current, stable)
        replicas = stable if bound is None else bound.replicas
        if replicas == current:
            self._same_until_ns = min(self._same_replicas_until_ns(rules, now_ns, current, desired, stable), rules.lasting_ns)

        def reason() -> str:
            limited = "" if bound is None else f" -> limited to {bound.replicas} by {bound.rule}"
            return _shown(target.metric, proposal) + rules.stabilized(desired, stable) + limited

        return Decision(replicas, reason)

    def _same_replicas_until_ns(self, rules: _Rules, now_ns: int, current: int, desired: int, stable: int) -> int:
        """Return when time alone could change the number, given that it stays as it is now.

        Never, where this look itself recommends it or what lies beyond a bound; otherwise when the recommendation that keeps it
        leaves its window, or at once where a rate limit keeps it.
        """
        if desired == current or desired > current == self.max_replicas or desired < current == self.min_replicas:
            return NEVER_NS
        if rules.up is None or rules.down is None:
            return self._recommendations.largest_since_ns() + rules.window_ns + 1
        if stable != current:
            return now_ns
        if desired > current:
            return self._recommendations.least_since_ns() + rules.up.window_ns
        return self._recommendations.largest_since_ns() + rules.down.window_ns

    def _bound(self, rules: _Rules, now_ns: int, current: int, stable: int) -> Limit | None:
        """Return the limit that a change would break; of a rate limit and a bound the tighter one."""
        if stable > current:
            if rules.up is None:
                limit = Limit(up_limit_without_behavior(current), f"max(2 x {current}, 4)")
            else:
                up = rules.up
                limit = up_limit(current, self._events, up.policies, up.periods_ns, up.select, now_ns)
            if limit.replicas >= self.max_replicas:
                limit = Limit(self.max_replicas, f"maxReplicas {self.max_replicas}")
            return limit if stable > limit.replicas else None
        limit = Limit(self.min_replicas, f"minReplicas {self.min_replicas}")
        if rules.down is not None:
            down = rules.down
            by_rate = down_limit(current, self._events, down.policies, down.periods_ns, down.select, now_ns)
            if by_rate.replicas > limit.replicas:
                limit = by_rate
        return limit if stable < limit.replicas else None

    def _record_change(self, now_ns: int, before: int, after: int) -> None:
        rules = self._worked_out()
        if rules.up is None or rules.down is None:
            return
        if after > before:
            self._events.added.store(now_ns, after - before, now_ns - max(rules.up.periods_ns))
        else:
            self._events.removed.store(now_ns, before - after, now_ns - max(rules.down.periods_ns))

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


def _no_sample(failed: Iterable[_Target]) -> str:
    return f"no sample of {', '.join(f'{target.metric.source} {target.metric.name}' for target in failed)}"


def _shown(metric: Metric, proposal: Proposal) -> str:
    """Write down what a metric saw and proposes, for instance `pods outstanding 37.5/30: 5`."""
    if metric.type == "Utilization":
        seen = f"{proposal.usage} %/{metric.target:g} %"
    else:
        per_replica = " per replica" if metric.source == "external" and metric.type == "AverageValue" else ""
        seen = f"{proposal.usage / 1000:g}/{metric.target:g}{per_replica}"
    rule = f", {proposal.rule}" if proposal.rule else ""
    return f"{metric.source} {metric.name} {seen}{rule}: {proposal.replicas}"
