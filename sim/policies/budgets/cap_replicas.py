"""The action that lets a deployment have no more than some replicas."""

from __future__ import annotations

from collections.abc import Mapping

from sim.errors import Problems
from sim.policies.budgets.base import FORECAST, MOST_REPLICAS, BudgetAction, FleetView
from sim.registry import register


@register("budget_action", "cap_replicas")
class CapReplicas(BudgetAction):
    """At most so many replicas of a deployment: surplus ones drain, and the autoscaler's wish binds again when it ends.

    Parameters
    ----------
    deployment : its name. most_replicas : the bound.
    by, at, until : when it begins and ends, see `BudgetAction`.

    Examples
    --------
    >>> CapReplicas(deployment="llama", most_replicas=2).limits(FleetView({"llama": 5}, {}))
    {'llama': (0, 2)}
    """

    deployment: str = ""
    most_replicas: int = 1
    by: str = FORECAST
    at: float = 1.0
    until: float | None = None

    def limits(self, fleet: FleetView) -> Mapping[str, tuple[int, int | None]]:
        """Return the bound."""
        return {self.deployment: (0, self.most_replicas)}

    def deployments(self) -> list[tuple[str, str]]:
        """Return the deployment."""
        return [("deployment", self.deployment)]

    def problems(self, path: str, problems: Problems) -> None:
        """Check the bound."""
        fine = 0 <= self.most_replicas <= MOST_REPLICAS
        problems.check(fine, f"{path}.most_replicas", self.most_replicas, "is out of range", f"0 to {MOST_REPLICAS:,}")
