"""The action that sends the requests of a service to another, cheaper deployment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sim.errors import Problems
from sim.policies.budgets.base import FORECAST, MOST_REPLICAS, BudgetAction, FleetView, Traffic
from sim.registry import register


@register("budget_action", "route_to")
class RouteTo(BudgetAction):
    """New requests of a service, or of one of its segments, go to one of its deployments only, once that is large enough.

    It first asks for replicas of that deployment. As long as so many of them admit requests it sends the traffic there, and may
    bound the replicas of the others. If some are lost it sends the traffic back until they are there again. What waits or runs on a
    replica stays there; a request that is too long for the deployment goes to the others, as before.

    Parameters
    ----------
    service : its name. segment : of its users; "" for all of them.
    deployment : where the requests go; one of those of the service.
    replicas : so many of it are asked for at least, and must admit requests before the traffic moves.
    others_most_replicas : bound of each of the service's other deployments while the traffic is moved; None leaves them to their
        autoscalers.
    by, at, until : when it begins and ends, see `BudgetAction`.

    Examples
    --------
    >>> action = RouteTo(service="chat", deployment="small", replicas=2, others_most_replicas=1)
    >>> boots, is_ready = (FleetView({"small": ready, "large": 3}, {"chat": ["large", "small"]}) for ready in (1, 2))
    >>> action.limits(boots), action.routes(boots)
    ({'small': (2, None)}, {})
    >>> action.limits(is_ready), action.routes(is_ready)
    ({'small': (2, None), 'large': (0, 1)}, {('chat', ''): ['small']})
    """

    service: str = ""
    segment: str = ""
    deployment: str = ""
    replicas: int = 1
    others_most_replicas: int | None = None
    by: str = FORECAST
    at: float = 1.0
    until: float | None = None

    def _is_moved(self, fleet: FleetView) -> bool:
        return fleet.ready[self.deployment] >= self.replicas

    def limits(self, fleet: FleetView) -> Mapping[str, tuple[int, int | None]]:
        """Return the least of the deployment and, once traffic has moved, the most of the others."""
        limits: dict[str, tuple[int, int | None]] = {self.deployment: (self.replicas, None)}
        if self.others_most_replicas is not None and self._is_moved(fleet):
            others = [name for name in fleet.deployments[self.service] if name != self.deployment]
            limits |= dict.fromkeys(others, (0, self.others_most_replicas))
        return limits

    def routes(self, fleet: FleetView) -> Mapping[Traffic, Sequence[str]]:
        """Return the deployment, once it is large enough."""
        return {(self.service, self.segment): [self.deployment]} if self._is_moved(fleet) else {}

    def deployments(self) -> list[tuple[str, str]]:
        """Return the deployment."""
        return [("deployment", self.deployment)]

    def traffic(self) -> Traffic:
        """Return the service and segment."""
        return self.service, self.segment

    def problems(self, path: str, problems: Problems) -> None:
        """Check the numbers of replicas."""
        fine = 1 <= self.replicas <= MOST_REPLICAS
        problems.check(fine, f"{path}.replicas", self.replicas, "is out of range", f"1 to {MOST_REPLICAS:,}")
        most = self.others_most_replicas
        fine = most is None or 0 <= most <= MOST_REPLICAS
        problems.check(fine, f"{path}.others_most_replicas", most, "is out of range", f"0 to {MOST_REPLICAS:,}, or unset")
