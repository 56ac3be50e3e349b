"""Views of a deployment made by hand, for tests of the HPA."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from sim.policies.autoscalers.hpa import Hpa
from sim.policies.autoscalers.hpa_config import Behavior, Metric, ScalingPolicy, ScalingRules
from sim.policies.base import Decision, DeploymentView, Pods, Samples
from sim.units import NS_PER_S

NAN = float("nan")
# An instant later than 2^53 ns, where a double no longer holds every nanosecond.
OFFSET_S = 400 * 86_400


def pods(
    count: int, pending: Collection[int] = (), unready: Collection[int] = (), age_s: float = 3_600, ready_s: float = 3_600
) -> Pods:
    """Replicas of one age; those listed are pending, or running and not ready."""
    number = np.arange(count, dtype=np.int64)
    is_pending = np.isin(number, list(pending))
    ready = ~is_pending & ~np.isin(number, list(unready))
    requested_ns, ready_since_ns = (np.full(count, -round(ago_s * NS_PER_S), np.int64) for ago_s in (age_s, ready_s))
    return Pods(number, is_pending, ready, requested_ns, ready_since_ns, time_ns=0, some_pending=bool(is_pending.any()))


def samples(values: float | Sequence[float], count: int, age_s: float = 0.0) -> Samples:
    """Samples of one metric: one number is a deployment's, a list is one per pod, short lists end in pods without a sample."""
    age_ns = round(age_s * NS_PER_S)
    if isinstance(values, int | float):
        return Samples(age_ns, np.full(count, np.nan), float(values))
    per_pod = np.full(count, np.nan)
    per_pod[: len(values)] = values
    return Samples(age_ns, per_pod, NAN)


def look(
    hpa: Hpa,
    current: int,
    metrics: dict[str, float | Sequence[float]],
    at_s: float = 0.0,
    replicas: Pods | None = None,
    sample_age_s: float = 0.0,
) -> Decision:
    """Let the policy look once, `at_s` after `OFFSET_S`."""
    seen = pods(current) if replicas is None else replicas
    count = len(seen.number)
    return hpa.decide(
        DeploymentView(
            time_ns=round((OFFSET_S + at_s) * NS_PER_S),
            wanted=current,
            pods=seen,
            draining=0,
            metrics={name: samples(values, count, sample_age_s) for name, values in metrics.items()},
        )
    )


def average(target: float, name: str = "outstanding") -> Metric:
    """A pods metric with an AverageValue."""
    return Metric("pods", name, "AverageValue", target)


def cpu(percent: float, request: float = 1.0) -> Metric:
    """The resource metric with a target in percent."""
    return Metric("resource", "busy", "Utilization", percent, request)


def external(target: float, kind: str = "AverageValue") -> Metric:
    """The external metric `queue`."""
    return Metric("external", "queue", kind, target)


def hpa(*metrics: Metric, least: int = 1, most: int = 1_000, behavior: Behavior | None = None, **settings: float) -> Hpa:
    """A policy with these metrics."""
    return Hpa(min_replicas=least, max_replicas=most, metrics=list(metrics), behavior=behavior, **settings)


def rules(
    *policies: tuple[str, int, float], select: str = "Max", window_s: float | None = 0.0, tolerance: float | None = None
) -> ScalingRules:
    """Rules of one direction; without policies the default ones."""
    made = [ScalingPolicy(*policy) for policy in policies] or None
    return ScalingRules(window_s, made, select, tolerance)
