"""Budgets as a SimPy process: at hours of the account, after the meter has booked them, each looks at its spend, tells and acts.

A budget sees what the ledger has written, and no more: rows are written up to two hours late, so nothing is booked sooner for its
sake, and a budget without actions changes no other table.

What an action wants may depend on the replicas that are ready, so while one is in force it is asked again whenever something
happens to a machine or a replica, once whoever did that is done. Traffic moves before bounds do: what a bound drains is sent where
the traffic goes by then.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field

import simpy

from sim.control.provisioner import Provisioner
from sim.control.sink import TableSink
from sim.control.spend import AccountClock, Hour, Spend, SpendBook
from sim.control.traffic import TrafficRules
from sim.control.world import World
from sim.errors import Problems
from sim.policies.budgets.base import ACTUAL, FORECAST, BudgetAction, FleetView
from sim.registry import choice_name
from sim.results.periods import CalendarMonth
from sim.scenario.budgets import Budget
from sim.units import duration_ns, usd

NO_FORECAST = -1
BEGINS, ENDS = "action_begins", "action_ends"


@dataclass
class _Budget:
    """A budget at work.

    Parameters
    ----------
    coming : the hours that have ended and are not known yet.
    told : (actual or forecast, share) of which the month has had its alert.
    acting : action -> the month in which it began, and why.
    """

    name: str
    config: Budget
    spend: Spend
    coming: list[Hour] = field(default_factory=list)
    told: set[tuple[str, float]] = field(default_factory=set)
    acting: dict[str, tuple[CalendarMonth, str]] = field(default_factory=dict)
    forecast_nano: int = NO_FORECAST


class Budgets:
    """The budgets of a run.

    Parameters
    ----------
    book : sees what the ledger writes. provisioner : does what actions ask for.
    """

    def __init__(self, env: simpy.Environment, world: World, provisioner: Provisioner, sink: TableSink, book: SpendBook) -> None:
        self.env, self.world, self.provisioner, self.sink = env, world, provisioner, sink
        self._clock = account_clock(world)
        self._budgets = [_Budget(name, config, book.spends[name]) for name, config in world.resolved.scenario.budgets.items()]
        self._rows = 0
        self._services = {name: service.deployments for name, service in world.resolved.scenario.services.items()}
        owners = [_owner(budget, name) for budget in self._budgets for name in budget.config.actions]
        self.traffic = TrafficRules(env, world, owners, sink, provisioner.machines.event)
        self._check_traffic()
        self._is_to_ask = False
        provisioner.machines.on_change.append(self._on_change)

    def _check_traffic(self) -> None:
        problems = Problems()
        for budget in self._budgets:
            for name, action in budget.config.actions.items():
                traffic = action.traffic()
                if traffic is not None:
                    path, (service, segment) = f"budgets.{budget.name}.actions.{name}.segment", traffic
                    there = self.traffic.is_there(traffic)
                    problems.check(there, path, segment, f"there is no such segment of {service}", "a segment of its workload")
        problems.raise_if_any()

    def run(self) -> Generator[simpy.Event, None, None]:
        """Check at the hours of the account."""
        # The hour that ends is known a while after that; the hour that begins says whether it is time for a check.
        ended: Hour | None = None
        for begun in self._clock.hours():
            if ended is not None:
                yield self.env.timeout(ended.end_ns - int(self.env.now))
                # What is due at this very time was put on the calendar before; the meter, too, comes first.
                yield self.env.timeout(0)
                for budget in self._budgets:
                    budget.coming.append(ended)
                    self._hour(budget, begun)
            ended = begun

    def _hour(self, budget: _Budget, begun: Hour) -> None:
        """An hour of the account has begun."""
        self._end_with_the_month(budget, begun)
        known_ns = begun.start_ns - duration_ns(budget.config.data_delay)
        while budget.coming and budget.coming[0].end_ns <= known_ns:
            hour = budget.coming.pop(0)
            if hour.month != budget.spend.month:
                budget.told = set()
            budget.spend.know(hour)
            # A month that is over is judged before the next one is.
            if hour.end_ns == hour.month.end_ns:
                self._check(budget)
        if begun.of_day % budget.config.check_hours == 0 and budget.spend.month is not None:
            self._check(budget)

    def _check(self, budget: _Budget) -> None:
        config, spend = budget.config, budget.spend
        view = spend.view()
        judged = view.seen_ns > 0 and view.seen_ns >= duration_ns(config.forecast_after)
        budget.forecast_nano = config.forecast.forecast_nano(view) if judged else NO_FORECAST
        for kind, shares, amount_nano in self._amounts(budget):
            for share in sorted(shares):
                if (kind, share) not in budget.told and config.reached(share, amount_nano):
                    budget.told.add((kind, share))
                    self._tell(budget, kind, share, "", f"{_NAMES[kind]} is {_of(amount_nano, config)}")
        for name, action in config.actions.items():
            self._act(budget, name, action)

    def _amounts(self, budget: _Budget) -> list[tuple[str, list[float], int]]:
        """Return what can be judged: (kind, shares that are told of, amount)."""
        amounts = [(ACTUAL, budget.config.actual_at, budget.spend.spent_nano)]
        if budget.forecast_nano != NO_FORECAST:
            amounts.append((FORECAST, budget.config.forecast_at, budget.forecast_nano))
        return amounts

    # Actions

    def _act(self, budget: _Budget, name: str, action: BudgetAction) -> None:
        month, config = budget.spend.month, budget.config
        amount_nano = next((amount for kind, _, amount in self._amounts(budget) if kind == action.by), None)
        # What is known of last month is no reason to act in this one.
        if amount_nano is None or month is None or self._now_ns >= month.end_ns:
            self._enforce(budget, name, action)
            return
        share = action.ends_below if name in budget.acting else action.at
        over = config.reached(share, amount_nano)
        reason = f"{_NAMES[action.by]} is {_of(amount_nano, config)}"
        if over and name not in budget.acting:
            budget.acting[name] = month, reason
            self._tell(budget, BEGINS, action.at, name, f"{choice_name(action)}: {reason}")
        elif not over and name in budget.acting and action.by == FORECAST:
            self._end(budget, name, share, f"{reason}, below {share:.0%}")
        self._enforce(budget, name, action)

    def _enforce(self, budget: _Budget, name: str, action: BudgetAction) -> None:
        """Let what an action wants hold, which may depend on what is ready by now."""
        if name in budget.acting:
            fleet, (_, reason), owner = self._fleet(), budget.acting[name], _owner(budget, name)
            limits = dict(action.limits(fleet))
            bounds = {deployment: limits[deployment] for deployment in limits if deployment in self.world.plane_of}
            self.traffic.want(owner, dict(action.admitted()), dict(action.routes(fleet)), reason)
            self.provisioner.bound(owner, bounds, reason)

    def _on_change(self) -> None:
        """Something happened to a machine or a replica: ask the actions in force again, once whoever did it is done."""
        if not self._is_to_ask and any(budget.acting for budget in self._budgets):
            self._is_to_ask = True
            later = self.env.timeout(0)
            assert later.callbacks is not None
            later.callbacks.append(self._ask_again)

    def _ask_again(self, _: simpy.Event) -> None:
        self._is_to_ask = False
        for budget in self._budgets:
            for name in list(budget.acting):
                self._enforce(budget, name, budget.config.actions[name])

    def _end_with_the_month(self, budget: _Budget, begun: Hour) -> None:
        for name, (month, _) in list(budget.acting.items()):
            if begun.start_ns >= month.end_ns:
                self._end(budget, name, budget.config.actions[name].at, f"the month {month.label} is over")

    def _end(self, budget: _Budget, name: str, share: float, reason: str) -> None:
        del budget.acting[name]
        self._tell(budget, ENDS, share, name, reason)
        self.traffic.want(_owner(budget, name), {}, {}, reason)
        self.provisioner.bound(_owner(budget, name), {}, reason)

    def _fleet(self) -> FleetView:
        ready = {name: sum(replica.is_ready for replica in self.provisioner.of(name)) for name in self.world.plane_of}
        return FleetView(ready, self._services)

    @property
    def _now_ns(self) -> int:
        return int(self.env.now)

    def _tell(self, budget: _Budget, kind: str, share: float, action: str, reason: str) -> None:
        config, spend = budget.config, budget.spend
        assert spend.month is not None
        self.sink.append("alerts", {
            "number": self._rows, "time_ns": self._now_ns, "known_to_ns": spend.known_to_ns, "budget": budget.name,
            "scope": config.scope, "subject": config.of, "month": spend.month.label, "kind": kind, "share": share, "action": action,
            "spent_nano_usd": spend.spent_nano, "forecast_nano_usd": budget.forecast_nano, "budget_nano_usd": config.budget_nano,
            "reason": reason,
        })  # fmt: skip
        self._rows += 1


_NAMES = {ACTUAL: "the spend", FORECAST: "the forecast"}


def _owner(budget: _Budget, action: str) -> str:
    return f"budgets.{budget.name}.{action}"


def _of(amount_nano: int, config: Budget) -> str:
    return f"{usd(amount_nano)} of {usd(config.budget_nano)} USD ({amount_nano / config.budget_nano:.1%})"


def account_clock(world: World) -> AccountClock:
    """Return the clock of the account of a run."""
    scenario = world.resolved.scenario
    return AccountClock(scenario.start_instant, scenario.horizon_ns, scenario.account.timezone)


def spend_book(world: World, sink: TableSink) -> SpendBook:
    """Return the book of a run's budgets, to be put between the ledger and the sink."""
    return SpendBook(sink, account_clock(world), world.resolved.scenario.budgets)
