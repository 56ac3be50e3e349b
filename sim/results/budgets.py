"""What became of the budgets of a run: spend by month, when alerts came, and how long before the money was gone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate
from math import isnan
from typing import Any

from sim.results.periods import Calendar, Period, periods
from sim.results.records import RunResult
from sim.results.spool import quoted
from sim.units import NANO_PER_USD, NS_PER_DAY, NS_PER_HOUR, NS_PER_US, nano_usd

ALERTS = ("actual", "forecast")
NEVER = -1


@dataclass(frozen=True)
class Alert:
    """The first time in a month that a share of a budget was reached.

    Parameters
    ----------
    kind : "actual" or "forecast". share : of the budget. time_ns : when it was said. spent_nano, forecast_nano : as they were known
        then; a forecast of None was not made yet. days_before_overrun : None where there is no overrun; below 0 for an alert that
        came after it.
    """

    kind: str
    share: float
    time_ns: int
    spent_nano: int
    forecast_nano: int | None
    days_before_overrun: float | None


@dataclass(frozen=True)
class Acted:
    """A stretch of a month in which an action of a budget was in force.

    Parameters
    ----------
    action : its name. choice : what kind of action it is. begun_ns, ended_ns : when; None for one that the run ended in.
    turned_away : new requests that were throttled in the windows which share time with it, of the streams it throttled; where
        another action throttled them, too, they are among those of both.
    moved_ns : when it first sent requests elsewhere; None if it never did.
    """

    action: str
    choice: str
    begun_ns: int
    ended_ns: int | None
    turned_away: int
    moved_ns: int | None


@dataclass(frozen=True)
class BudgetMonth:
    """A budget in one month.

    Parameters
    ----------
    budget : its name. scope, subject : of what. month : "2026-10". partial : whether a part of the month lies outside the run.
    spent_nano : of the whole month in the run, and what was spent before it. budget_nano : the budget.
    overrun_ns : end of the first hour after which more than the budget was spent; None where that did not happen.
    alerts : in order of time. acted : what was done, in order of time.
    """

    budget: str
    scope: str
    subject: str
    month: str
    partial: bool
    spent_nano: int
    budget_nano: int
    overrun_ns: int | None
    alerts: tuple[Alert, ...]
    acted: tuple[Acted, ...]


def budget_months(result: RunResult) -> list[BudgetMonth]:
    """Return every budget in every month of a run, by budget and month; empty where there are none.

    The spend is that of the ledger, to the nano-dollar, whatever a budget knew of it at a time.
    """
    scenario = result.manifest["scenario"]
    calendar = Calendar.of(scenario)
    months = periods(calendar.start, calendar.horizon_ns, calendar.account_zone, "month")
    found: list[BudgetMonth] = []
    for name, config in scenario.get("budgets", {}).items():
        before_nano = nano_usd(config["spent_before_usd"])
        for number, month in enumerate(months):
            found.append(_month(result, calendar, name, config, month, before_nano if number == 0 else 0))
    return found


def budget_rows(months: Iterable[BudgetMonth]) -> Iterator[dict[str, object]]:
    """Yield the rows of the table `budget_months`."""
    for one in months:
        first = one.alerts[0] if one.alerts else None
        yield {
            "budget": one.budget,
            "scope": one.scope,
            "subject": one.subject,
            "month": one.month,
            "partial": one.partial,
            "budget_nano_usd": one.budget_nano,
            "spent_nano_usd": one.spent_nano,
            "overrun_ns": NEVER if one.overrun_ns is None else one.overrun_ns,
            "first_alert_ns": NEVER if first is None else first.time_ns,
            "first_alert_kind": "" if first is None else first.kind,
            "first_alert_share": 0.0 if first is None else first.share,
            "days_before_overrun": None if first is None else first.days_before_overrun,
            "alerts": len(one.alerts),
            "actions": len(one.acted),
        }


def budgets_in_summary(result: RunResult, start: datetime) -> list[dict[str, Any]]:
    """Return what `summary.json` says of budgets: the table `budget_months` in dollars and dates.

    Parameters
    ----------
    start : calendar instant of time 0.

    Returns
    -------
    one a budget and month, in this order. share : of the budget that was spent. overrun, first_alert.time : ISO 8601 in UTC.
        overrun, first_alert and days_before_overrun are None where there was none.
    """

    def when(time_ns: int) -> str | None:
        return None if time_ns == NEVER else (start + timedelta(microseconds=time_ns // NS_PER_US)).isoformat()

    table = result.table("budget_months")
    found = []
    for row in (
        dict(zip(table, values, strict=True)) for values in zip(*(column.tolist() for column in table.values()), strict=True)
    ):
        spent_nano, budget_nano, days = row["spent_nano_usd"], row["budget_nano_usd"], row["days_before_overrun"]
        alert = {"kind": row["first_alert_kind"], "share": row["first_alert_share"], "time": when(row["first_alert_ns"])}
        found.append({
            **{name: row[name] for name in ("budget", "scope", "subject", "month", "partial")},
            "budget_usd": budget_nano / NANO_PER_USD,
            "spent_usd": spent_nano / NANO_PER_USD,
            "share": spent_nano / budget_nano if budget_nano else None,
            "overrun": when(row["overrun_ns"]),
            "first_alert": alert if row["alerts"] else None,
            "days_before_overrun": None if isnan(days) else days,
            "alerts": row["alerts"],
            "actions": row["actions"],
        })  # fmt: skip
    return found


def _month(
    result: RunResult, calendar: Calendar, name: str, config: dict[str, Any], month: Period, before_nano: int
) -> BudgetMonth:
    hours = _spend_by_hour(result, calendar, config, month.label)
    spent_nano = list(accumulate(hours["amount"], initial=before_nano))
    budget_nano = nano_usd(config["usd_per_month"])
    overs = (end_ns for end_ns, spent in zip(hours["end_ns"], spent_nano[1:], strict=True) if spent > budget_nano)
    overrun_ns = next(overs, None)
    told = result.sql(f"SELECT * FROM alerts WHERE budget = {quoted(name)} AND month = {quoted(month.label)} ORDER BY number")
    rows = [dict(zip(told, row, strict=True)) for row in zip(*(column.tolist() for column in told.values()), strict=True)]
    alerts = tuple(
        Alert(
            row["kind"],
            row["share"],
            row["time_ns"],
            row["spent_nano_usd"],
            row["forecast_nano_usd"] if row["forecast_nano_usd"] >= 0 else None,
            None if overrun_ns is None else (overrun_ns - row["time_ns"]) / NS_PER_DAY,
        )
        for row in rows
        if row["kind"] in ALERTS
    )
    acted = tuple(_acted(result, config, row, rows) for row in rows if row["kind"] == "action_begins")
    return BudgetMonth(
        name, config["scope"], config["of"], month.label, month.partial, spent_nano[-1], budget_nano, overrun_ns, alerts, acted
    )


def _acted(result: RunResult, config: dict[str, Any], begins: dict[str, Any], rows: list[dict[str, Any]]) -> Acted:
    """Return what became of an action from its alert on."""
    name, begun_ns = begins["action"], begins["time_ns"]
    ends = (row["time_ns"] for row in rows if (row["kind"], row["action"]) == ("action_ends", name))
    ended_ns = next((time_ns for time_ns in ends if time_ns >= begun_ns), None)
    owner = quoted(f"budgets.{begins['budget']}.{name}")
    mine = f"policy = {owner} AND time_ns >= {begun_ns}"
    until, overlap = "", f"windows.end_ns > {begun_ns}"
    if ended_ns is not None:
        until, overlap = f" AND time_ns < {ended_ns}", f"{overlap} AND windows.start_ns < {ended_ns}"
    [turned_away] = result.sql(f"""
        SELECT coalesce(sum(throttled), 0)::BIGINT AS n FROM windows WHERE {overlap}
            AND stream IN (SELECT stream FROM traffic WHERE {mine}{until} AND admitted < admitted_before)
    """)["n"].tolist()
    moved = result.sql(f"SELECT time_ns FROM traffic WHERE {mine}{until} AND deployments <> deployments_before ORDER BY number")
    choice = config["actions"][name]["choice"]
    return Acted(name, choice, begun_ns, ended_ns, turned_away, next(iter(moved["time_ns"].tolist()), None))


def _spend_by_hour(result: RunResult, calendar: Calendar, config: dict[str, Any], month: str) -> dict[str, list[int]]:
    """Return the hours of a month with a charge in order, each with its amount and the time at which it ended in the run."""
    scope, subject = config["scope"], quoted(config["of"])
    mine = {
        "account": "",
        "service": f"AND part.service = {subject}",
        "segment": f"AND part.service || '/' || part.segment = {subject}",
        "deployment": f"AND part.deployment = {subject}",
    }[scope]
    source, amount = "ledger AS row", "row.amount_nano_usd"
    if mine:
        source, amount = "ledger AS row JOIN attribution AS part ON part.row = row.row", "part.amount_nano_usd"
    found = result.sql(f"""
        SELECT row.local_hour AS hour, sum({amount}) AS amount FROM {source}
        WHERE row.month = {quoted(month)} {mine} GROUP BY row.local_hour
    """)
    by_end = sorted((_end_ns(hour, calendar), amount) for hour, amount in zip(found["hour"], found["amount"].tolist(), strict=True))
    return {"end_ns": [end_ns for end_ns, _ in by_end], "amount": [amount for _, amount in by_end]}


def _end_ns(local_hour: str, calendar: Calendar) -> int:
    """Return when a calendar hour ended in the run; a minimum charge may be for time after the hour it belongs to."""
    hours = (datetime.fromisoformat(local_hour) - calendar.start) // timedelta(microseconds=1) * NS_PER_US
    return min(hours + NS_PER_HOUR, calendar.horizon_ns)
