"""Budgets: what a month may cost, when to say so, and what to do then; rows of `budgets:` and their check."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any, Protocol

from sim.errors import Problems
from sim.policies.budgets.base import ACTUAL, FORECAST, BudgetAction, Forecast, Traffic
from sim.policies.budgets.linear import Linear
from sim.scenario.commitments import check_money
from sim.units import NS_PER_HOUR, duration_ns, nano_usd

ACCOUNT, SERVICE, SEGMENT, DEPLOYMENT = SCOPES = ("account", "service", "segment", "deployment")
MOST_USD_PER_MONTH = 1_000_000_000
# Shares of a budget: ten times the budget is no longer one.
MOST_SHARE = 10.0
# A row of the ledger is written one account hour after its own, and two where an interruption would still make it free.
LEAST_DELAY_NS = 2 * NS_PER_HOUR
MOST_DELAY_NS = 7 * 24 * NS_PER_HOUR
MOST_SEEN_NS = 4 * MOST_DELAY_NS
CHECKS_H = (1, 2, 3, 4, 6, 8, 12, 24)


@dataclass
class Budget:
    """What a calendar month of the account may cost.

    Parameters
    ----------
    scope : "account", "service", "segment" or "deployment". of : its name; of a segment "service/segment"; "" for the account.
    usd_per_month : the budget as a decimal in text.
    spent_before_usd : what was spent in the first month before the run began.
    actual_at, forecast_at : shares of the budget at which an alert says that the spend, or its forecast, has come so far.
    forecast : how the spend of the month is forecast.
    forecast_after : no forecast of a month is judged before so much of it was seen.
    check_every : 1h, 2h, 3h, 4h, 6h, 8h, 12h or 24h; at such hours of the day in the account zone.
    data_delay : the spend of an hour is known so long after its end, at least 2h.
    actions : what is done, by name.
    """

    scope: str = ACCOUNT
    of: str = ""
    usd_per_month: str = ""
    spent_before_usd: str = "0"
    actual_at: list[float] = field(default_factory=lambda: [0.5, 0.8, 1.0])
    forecast_at: list[float] = field(default_factory=lambda: [1.0])
    forecast: Forecast = field(default_factory=Linear)
    forecast_after: str = "1d"
    check_every: str = "1h"
    data_delay: str = "2h"
    actions: dict[str, BudgetAction] = field(default_factory=dict)

    @property
    def budget_nano(self) -> int:
        """The budget in nano-dollars."""
        return nano_usd(self.usd_per_month)

    @property
    def check_hours(self) -> int:
        """Hours of the day between two checks."""
        return duration_ns(self.check_every) // NS_PER_HOUR

    def reached(self, share: float, amount_nano: int) -> bool:
        """Whether an amount is at least a share of the budget, exactly.

        Examples
        --------
        >>> Budget(usd_per_month="10").reached(0.8, 8 * 10**9), Budget(usd_per_month="10").reached(0.8, 8 * 10**9 - 1)
        (True, False)
        """
        return amount_nano >= Fraction(Decimal(repr(share))) * self.budget_nano


class Purposes(Protocol):
    """The part of a scenario that budgets are about."""

    budgets: dict[str, Budget]

    @property
    def services(self) -> Mapping[str, Any]:
        """By name."""

    @property
    def deployments(self) -> Mapping[str, Any]:
        """By name."""


def check_budgets(scenario: Purposes, check_name: Callable[[str, str, Problems], None], problems: Problems) -> None:
    """Add what is wrong with the budgets of a scenario.

    Parameters
    ----------
    check_name : adds a problem where (group, name) cannot be a name.
    """
    for name, budget in scenario.budgets.items():
        path = f"budgets.{name}"
        check_name("budgets", name, problems)
        _check_scope(path, budget, scenario, problems)
        check_money(f"{path}.usd_per_month", budget.usd_per_month, problems, most=MOST_USD_PER_MONTH)
        check_money(f"{path}.spent_before_usd", budget.spent_before_usd, problems, zero=True, most=MOST_USD_PER_MONTH)
        for field_name in ("actual_at", "forecast_at"):
            _check_shares(f"{path}.{field_name}", getattr(budget, field_name), problems)
        budget.forecast.problems(f"{path}.forecast", problems)
        checks = [hours * NS_PER_HOUR for hours in CHECKS_H]
        delays = range(LEAST_DELAY_NS, MOST_DELAY_NS + 1, NS_PER_HOUR)
        _check_time(f"{path}.check_every", budget.check_every, checks, ", ".join(f"{hours}h" for hours in CHECKS_H), problems)
        _check_time(f"{path}.data_delay", budget.data_delay, delays, "2h to 7d, in whole hours", problems)
        _check_time(f"{path}.forecast_after", budget.forecast_after, range(MOST_SEEN_NS + 1), "0s to 28d", problems)
        for action_name, action in budget.actions.items():
            check_name(f"{path}.actions", action_name, problems)
            _check_action(f"{path}.actions.{action_name}", action, scenario, problems)


def _check_scope(path: str, budget: Budget, scenario: Purposes, problems: Problems) -> None:
    if not problems.check(budget.scope in SCOPES, f"{path}.scope", budget.scope, "is not a scope of a budget", choices=SCOPES):
        return
    if budget.scope == ACCOUNT:
        problems.check(not budget.of, f"{path}.of", budget.of, "is of no use: the budget is of the whole account", "unset")
        return
    if budget.scope == SEGMENT:
        names = _segments(budget.of, scenario)
    else:
        names = list(scenario.services if budget.scope == SERVICE else scenario.deployments)
    problems.check(
        budget.of in names, f"{path}.of", budget.of, f"there is no such {budget.scope}", choices=names or ["none is defined"]
    )


def _segments(wanted: str, scenario: Purposes) -> list[str]:
    """Return every service/segment; what is wanted is among them where only its opened workload knows the segments."""
    names = []
    for service, config in scenario.services.items():
        known = config.workload.segment_names()
        of_service, _, segment = wanted.partition("/")
        if known is None and of_service == service and segment:
            known = (segment,)
        names += [f"{service}/{each}" for each in known or ()]
    return names


def _check_shares(path: str, shares: list[float], problems: Problems) -> None:
    for index, share in enumerate(shares):
        _check_share(f"{path}[{index}]", share, problems)
        problems.check(share not in shares[:index], f"{path}[{index}]", share, "is listed twice", "each once")


def _check_share(path: str, share: float, problems: Problems) -> bool:
    return problems.check(
        0 < share <= MOST_SHARE, path, share, "is out of range", f"above 0 to {MOST_SHARE:g}, a share of the budget"
    )


def _check_time(path: str, text: str, fine: Container[int], allowed: str, problems: Problems) -> None:
    try:
        time_ns = duration_ns(text)
    except ValueError:
        problems.add(path, text, "is not a duration", allowed)
        return
    problems.check(time_ns in fine, path, text, "is out of range", allowed)


def _check_action(path: str, action: BudgetAction, scenario: Purposes, problems: Problems) -> None:
    triggers = (ACTUAL, FORECAST)
    problems.check(action.by in triggers, f"{path}.by", action.by, "is not what an action can go by", choices=triggers)
    _check_share(f"{path}.at", action.at, problems)
    if action.until is not None:
        if action.by == ACTUAL:
            problems.add(
                f"{path}.until", action.until, "is of no use: the spend of a month does not fall", "unset, or by: forecast"
            )
        elif _check_share(f"{path}.until", action.until, problems):
            problems.check(action.until <= action.at, f"{path}.until", action.until, "is above at", f"at most {action.at:g}")
    traffic = action.traffic()
    service = None if traffic is None else _check_traffic(path, traffic, scenario, problems)
    for field_name, deployment in action.deployments():
        # Only what serves the traffic can be sent some of it.
        known = list(scenario.deployments) if service is None else scenario.services[service].deployments
        text = "there is no such deployment" if service is None else f"is no deployment of {service}"
        field_path = f"{path}.{field_name}"
        there = problems.check(deployment in known, field_path, deployment, text, choices=known or ["none is defined"])
        if there and service is not None:
            only = f"is the only deployment of {service}: there is nothing to move"
            problems.check(len(known) > 1, field_path, deployment, only, "one of two or more")
    action.problems(path, problems)


def _check_traffic(path: str, traffic: Traffic, scenario: Purposes, problems: Problems) -> str | None:
    """Add what is wrong with the traffic of an action, and return its service if there is one."""
    service, segment = traffic
    known = list(scenario.services) or ["none is defined"]
    if not problems.check(service in scenario.services, f"{path}.service", service, "there is no such service", choices=known):
        return None
    config = scenario.services[service]
    problems.check(
        not config.workload.is_backlog(),
        f"{path}.service",
        service,
        "is a batch job: replicas take its requests when they have room, nobody lets them in or sends them",
        "a service with arrivals",
    )
    segments = config.workload.segment_names()
    if segment and segments is not None:
        problems.check(segment in segments, f"{path}.segment", segment, f"there is no such segment of {service}", choices=segments)
    return service
