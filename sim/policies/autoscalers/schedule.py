"""Dated changes of the number of replicas."""

from __future__ import annotations

from dataclasses import dataclass, field

from sim.errors import Problems
from sim.policies.base import NEVER_NS, Autoscaler, Decision, DeploymentView
from sim.registry import register
from sim.units import duration_ns


@dataclass
class ScheduleStep:
    """From `at` (a duration since the scenario start, for instance "6h") on there are `replicas`."""

    at: str = "0s"
    replicas: int = 1


@register("autoscaler", "schedule")
class Schedule(Autoscaler):
    """A number of replicas that changes at given times.

    Parameters
    ----------
    replicas : how many at the start.
    steps : changes, in order of time.

    Examples
    --------
    >>> night = Schedule(replicas=4, steps=[ScheduleStep("6h", 8), ScheduleStep("22h", 2)])
    >>> night.initial_replicas(), night.most_replicas()
    (4, 8)
    """

    replicas: int = 1
    steps: list[ScheduleStep] = field(default_factory=list)

    def initial_replicas(self) -> int:
        """Return the number at the start, a step at time 0 included."""
        return self._at(0)[0]

    def most_replicas(self) -> int:
        """Return the largest number of the schedule."""
        return max([self.replicas, *(step.replicas for step in self.steps)])

    def _at(self, time_ns: int) -> tuple[int, str]:
        replicas, reason = self.replicas, "schedule: start"
        for step in self.steps:
            if duration_ns(step.at) <= time_ns:
                replicas, reason = step.replicas, f"schedule: from {step.at}"
        return replicas, reason

    def decide(self, view: DeploymentView) -> Decision:
        """Want the number of the latest step."""
        return Decision(*self._at(view.time_ns))

    def next_look_ns(self, view: DeploymentView) -> int:
        """Return the time of the next step."""
        return min((at for step in self.steps if (at := duration_ns(step.at)) > view.time_ns), default=NEVER_NS)

    def problems(self, path: str, problems: Problems) -> None:
        """Check numbers, times and their order."""
        problems.check(self.replicas >= 0, f"{path}.replicas", self.replicas, "must not be negative", ">= 0")
        before = -1
        for index, step in enumerate(self.steps):
            where = f"{path}.steps[{index}]"
            problems.check(step.replicas >= 0, f"{where}.replicas", step.replicas, "must not be negative", ">= 0")
            try:
                at = duration_ns(step.at)
            except ValueError as error:
                problems.add(f"{where}.at", step.at, str(error), "a duration since the start, for instance 6h")
                continue
            problems.check(at > before, f"{where}.at", step.at, "steps must be in order of time", "later than the step before")
            before = max(before, at)
