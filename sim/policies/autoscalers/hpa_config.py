"""Settings of the Kubernetes HPA: metrics and scaling behaviour, named as in autoscaling/v2 with units in the names."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from sim.errors import Problems
from sim.policies.base import EXTERNAL_METRICS, POD_METRICS

SOURCES = {"pods": POD_METRICS, "resource": POD_METRICS, "external": EXTERNAL_METRICS}
TARGET_TYPES = {
    "pods": ("AverageValue",),
    "resource": ("Utilization", "AverageValue"),
    "external": ("AverageValue", "Value"),
}
POLICY_TYPES = ("Pods", "Percent")
SELECTIONS = ("Max", "Min", "Disabled")
# Kubernetes refuses more (reference of HorizontalPodAutoscaler autoscaling/v2, kubernetes.io, read 2026-11; published).
LONGEST_PERIOD_S = 1_800.0
LONGEST_STABILIZATION_S = 3_600.0
_LARGEST_INT32 = (1 << 31) - 1


@dataclass
class Metric:
    """One metric and its target.

    Parameters
    ----------
    source : "pods" (mean over replicas), "resource" (the same, with the rules for the CPU of starting pods) or "external" (of the
        whole deployment).
    name : of `POD_METRICS`, or of `EXTERNAL_METRICS` for an external one.
    type : AverageValue, Value (external only) or Utilization (resource only).
    target : in the metric's own unit; whole percent of `request` for Utilization.
    request : what one replica asks for, in the metric's unit; used by Utilization alone.
    """

    source: str = "pods"
    name: str = "outstanding"
    type: str = "AverageValue"
    target: float = 32.0
    request: float = 1.0

    def problems(self, path: str, problems: Problems) -> None:
        """Check source, name, kind of target, and numbers."""
        if problems.check(self.source in SOURCES, f"{path}.source", self.source, "is not a source of metrics", choices=SOURCES):
            names, types = SOURCES[self.source], TARGET_TYPES[self.source]
            problems.check(self.name in names, f"{path}.name", self.name, f"is not a {self.source} metric", choices=names)
            problems.check(
                self.type in types, f"{path}.type", self.type, f"is not a target of a {self.source} metric", choices=types
            )
        if self.type == "Utilization":
            whole = 1 <= self.target <= _LARGEST_INT32 and self.target == math.floor(self.target)
            problems.check(whole, f"{path}.target", self.target, "is not a utilization in whole percent", ">= 1, whole")
        else:
            _check_quantity(f"{path}.target", self.target, problems)
        _check_quantity(f"{path}.request", self.request, problems)


@dataclass
class ScalingPolicy:
    """How fast one direction may go: `value` pods, or percent of the replicas at the start of the period, per `period_s`."""

    type: str = "Percent"
    value: int = 100
    period_s: float = 15.0

    def problems(self, path: str, problems: Problems) -> None:
        """Check type, value and period."""
        problems.check(
            self.type in POLICY_TYPES, f"{path}.type", self.type, "is not a type of scaling policy", choices=POLICY_TYPES
        )
        problems.check(1 <= self.value <= _LARGEST_INT32, f"{path}.value", self.value, "must be positive", ">= 1")
        fits = 0 < self.period_s <= LONGEST_PERIOD_S
        problems.check(fits, f"{path}.period_s", self.period_s, "is out of range", f"above 0 s, at most {LONGEST_PERIOD_S:g} s")

    def __str__(self) -> str:
        return f"{self.value}{' %' if self.type == 'Percent' else ' pods'}/{self.period_s:g} s"


@dataclass
class ScalingRules:
    """The rules of one direction.

    Parameters
    ----------
    stabilization_window_s : how far back recommendations bind; unset is 0 s up, and `downscale_stabilization_s` of the HPA down.
    policies : rate limits; unset is 100 %/15 s and, up only, 4 pods/15 s.
    select_policy : Max (the policy that allows the largest change), Min, or Disabled (never move in this direction).
    tolerance : around a ratio of 1 in this direction; unset is the HPA's.
    """

    stabilization_window_s: float | None = None
    policies: list[ScalingPolicy] | None = None
    select_policy: str = "Max"
    tolerance: float | None = None

    def problems(self, path: str, problems: Problems) -> None:
        """Check window, policies, selection and tolerance."""
        window = self.stabilization_window_s
        fits = window is None or 0 <= window <= LONGEST_STABILIZATION_S
        problems.check(fits, f"{path}.stabilization_window_s", window, "is out of range", f"0 s to {LONGEST_STABILIZATION_S:g} s")
        problems.check(
            self.policies != [], f"{path}.policies", [], "names no policy", "one at least, or unset for the default ones"
        )
        for index, policy in enumerate(self.policies or []):
            policy.problems(f"{path}.policies[{index}]", problems)
        select = self.select_policy
        problems.check(select in SELECTIONS, f"{path}.select_policy", select, "is not a way to select", choices=SELECTIONS)
        if self.tolerance is not None:
            check_tolerance(f"{path}.tolerance", self.tolerance, problems)


@dataclass
class Behavior:
    """The `behavior` of an HPA; present, even empty, it replaces the fixed limit of one step up by policies."""

    scale_up: ScalingRules = field(default_factory=ScalingRules)
    scale_down: ScalingRules = field(default_factory=ScalingRules)

    def problems(self, path: str, problems: Problems) -> None:
        """Check both directions."""
        self.scale_up.problems(f"{path}.scale_up", problems)
        self.scale_down.problems(f"{path}.scale_down", problems)


def check_tolerance(path: str, tolerance: float, problems: Problems) -> None:
    """Add a problem unless a tolerance is a finite number from 0 on."""
    problems.check(0 <= tolerance < math.inf, path, tolerance, "is not a tolerance", ">= 0, for instance 0.1")


def _check_quantity(path: str, value: float, problems: Problems) -> None:
    problems.check(0.001 <= value <= 1e12, path, value, "is out of range", "0.001 to 1e12")
