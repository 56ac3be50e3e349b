"""The action that lets in only a share of the requests of a segment."""

from __future__ import annotations

from collections.abc import Mapping

from sim.errors import Problems
from sim.policies.budgets.base import FORECAST, BudgetAction, Traffic
from sim.registry import register


@register("budget_action", "throttle_segment")
class ThrottleSegment(BudgetAction):
    """Only a share of the new requests of a segment is let in, the others are turned away when they arrive.

    Which ones is drawn from the random word of each request, so a larger share lets in those of a smaller one and some more. What
    is in the system already stays.

    Parameters
    ----------
    service : its name. segment : of its users; "" for all of them. admitted_share : of the requests, 0 to 1.
    by, at, until : when it begins and ends, see `BudgetAction`.

    Examples
    --------
    >>> ThrottleSegment(service="chat", segment="free", admitted_share=0.25).admitted()
    {('chat', 'free'): 0.25}
    """

    service: str = ""
    segment: str = ""
    admitted_share: float = 0.5
    by: str = FORECAST
    at: float = 1.0
    until: float | None = None

    def admitted(self) -> Mapping[Traffic, float]:
        """Return the share."""
        return {(self.service, self.segment): self.admitted_share}

    def traffic(self) -> Traffic:
        """Return the segment."""
        return self.service, self.segment

    def problems(self, path: str, problems: Problems) -> None:
        """Check the share."""
        fine = 0 <= self.admitted_share <= 1
        problems.check(fine, f"{path}.admitted_share", self.admitted_share, "is out of range", "0 to 1, a share of the requests")
