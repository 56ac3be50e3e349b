"""A fixed number of replicas."""

from __future__ import annotations

from sim.errors import Problems
from sim.policies.base import NEVER_NS, Autoscaler, Decision, DeploymentView
from sim.registry import register


@register("autoscaler", "static")
class Static(Autoscaler):
    """The same number of replicas for ever; what is lost is replaced.

    Parameters
    ----------
    replicas : how many.

    Examples
    --------
    >>> Static(replicas=3).initial_replicas()
    3
    """

    replicas: int = 1

    def initial_replicas(self) -> int:
        """Return `replicas`."""
        return self.replicas

    def most_replicas(self) -> int:
        """Return `replicas`."""
        return self.replicas

    def decide(self, view: DeploymentView) -> Decision:
        """Want `replicas`."""
        return Decision(self.replicas, "static")

    def next_look_ns(self, view: DeploymentView) -> int:
        """Never look: nothing can change the answer."""
        return NEVER_NS

    def problems(self, path: str, problems: Problems) -> None:
        """Check the number."""
        problems.check(self.replicas >= 0, f"{path}.replicas", self.replicas, "must not be negative", ">= 0")
