"""What the policies of a budget see and say: the spend of a month so far, a forecast of all of it, what is done about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sim.errors import Problems

HOURS_OF_WEEK = 7 * 24
# Hours of one kind that are kept: as many weeks, and what a forecast may look back at most.
MOST_WEEKS = 4
# Until its forecast is a tenth lower than where it began, an action stays.
KEPT_SHARE = 0.9
ACTUAL, FORECAST = "actual", "forecast"
MOST_REPLICAS = 1_000_000
# Service and segment; "" for all the segments of the service.
Traffic = tuple[str, str]


class SpendView(NamedTuple):
    """What is known of the spend of one month when a budget is checked.

    Parameters
    ----------
    month_start_ns, month_end_ns : the calendar month of the account, since the scenario start; one that began before the run has a
        start below 0.
    known_to_ns : the spend up to here is known. spent_nano : all of it in the month, nano-dollars.
    before_nano : the part of it that was spent before the run began.
    hours_left : by hour of the week (Monday 0:00 in the account zone is 0), how many hours of the month are still to come.
    history : by hour of the week, the spend of the latest such hours in nano-dollars, oldest first, at most `MOST_WEEKS`.
    """

    month_start_ns: int
    month_end_ns: int
    known_to_ns: int
    spent_nano: int
    before_nano: int
    hours_left: tuple[int, ...]
    history: tuple[tuple[int, ...], ...]

    @property
    def seen_ns(self) -> int:
        """How much of the month has been seen: from its beginning, or that of the run."""
        return self.known_to_ns - max(self.month_start_ns, 0)


class Forecast:
    """Base of the rules by which the spend of a whole month is forecast."""

    def forecast_nano(self, view: SpendView) -> int:
        """Return the spend of the whole month in nano-dollars; `view.seen_ns` is above 0."""
        raise NotImplementedError

    def problems(self, path: str, problems: Problems) -> None:
        """Add what is wrong with the configuration."""


class FleetView(NamedTuple):
    """What an action may go by.

    Parameters
    ----------
    ready : deployment -> its replicas that admit requests now.
    deployments : service -> the deployments it uses, in the order of the scenario.
    """

    ready: Mapping[str, int]
    deployments: Mapping[str, Sequence[str]]


class BudgetAction:
    """Base of what a budget does, from the check at which it begins to the one that ends it: bounds, throttles, routes.

    A class has the fields `by` ("actual" or "forecast"), `at` and `until`; a share is of the budget. It begins when the spend, or
    its forecast, is at least `at`. It ends with the month; one by the forecast also when the forecast is below `until` (None: nine
    tenths of `at`, for one that ended at `at` would be undone as soon as it helps).

    An action says what it wants in one of three ways, or in several; what it does not say stays as it is. It is asked at every
    check, and whenever something happens to a machine or a replica.
    """

    by: str
    at: float
    until: float | None

    @property
    def ends_below(self) -> float:
        """The share of the budget below which the forecast ends it."""
        return round(KEPT_SHARE * self.at, 12) if self.until is None else self.until

    def limits(self, fleet: FleetView) -> Mapping[str, tuple[int, int | None]]:
        """Return deployment -> (least, most) replicas while the action is in force; None for no upper bound.

        Of several actions the lowest upper bound holds and the highest lower one; an upper bound goes before a lower one.
        """
        return {}

    def admitted(self) -> Mapping[Traffic, float]:
        """Return traffic -> the share of its new requests that is let in, 0 to 1. Of several actions the lowest share holds."""
        return {}

    def routes(self, fleet: FleetView) -> Mapping[Traffic, Sequence[str]]:
        """Return traffic -> the only deployments it goes to.

        Of several actions that send the same traffic the first in the order of the scenario holds, until it ends.
        """
        return {}

    def deployments(self) -> list[tuple[str, str]]:
        """Return (field, name) of the deployments it acts on, for the check of the scenario; of its service, if it has one."""
        return []

    def traffic(self) -> Traffic | None:
        """Return the traffic it acts on, from its fields `service` and `segment`; None if it acts on no traffic."""
        return None

    def problems(self, path: str, problems: Problems) -> None:
        """Add what is wrong with the configuration."""
