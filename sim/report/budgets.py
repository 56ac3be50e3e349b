"""Budgets on the terminal."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from zoneinfo import ZoneInfo

from rich.table import Table
from rich.text import Text

from sim.report.cells import cell, new_table, plain, share_cell
from sim.results.budgets import Acted, Alert, BudgetMonth, budget_months
from sim.results.records import RunResult
from sim.units import instant, usd


def budgets_table(result: RunResult) -> Table | None:
    """Return the budgets of a run by month with their alerts; None where there are none."""
    found = budget_months(result)
    if not found:
        return None
    scenario = result.manifest["scenario"]
    zone = scenario["account"]["timezone"]
    start = instant(scenario["start"])

    def date(time_ns: int) -> str:
        return f"{(start + timedelta(microseconds=time_ns // 1_000)).astimezone(ZoneInfo(zone)):%m-%d %H:%M}"

    table = new_table(
        f"BUDGETS in USD by calendar month, times of {plain(zone)}", "budget", "when", "spent", "share", "before overrun"
    )
    for month in found:
        subject = f" ({month.scope}{f' {month.subject}' if month.subject else ''}, {usd(month.budget_nano)})"
        table.add_row(cell(f"{month.month} {month.budget}{subject}"), "", usd(month.spent_nano), *_judged(month))
        for alert in month.alerts:
            table.add_row(f"  {alert.kind} {alert.share:.0%}", date(alert.time_ns), *_told(alert, month))
        if month.overrun_ns is not None:
            table.add_row("  overrun", date(month.overrun_ns), "", "", "", style="bold red")
        for acted in month.acted:
            table.add_row(cell(f"  {acted.choice} {acted.action}"), date(acted.begun_ns), "", "", _until(acted, date))
            if acted.moved_ns is not None:
                table.add_row("    requests sent there", date(acted.moved_ns), "", "", "")
            if acted.turned_away:
                table.add_row("    requests turned away", "", f"{acted.turned_away:,}", "", "")
    table.caption = "a share is of the budget; beside a forecast stands the forecast, as it was when it was told"
    return table


def _judged(month: BudgetMonth) -> tuple[str, str | Text]:
    kept = "no overrun so far" if month.partial else "no overrun"
    return share_cell(month.spent_nano, month.budget_nano), "" if month.overrun_ns is not None else Text(kept, "green")


def _until(acted: Acted, date: Callable[[int], str]) -> str:
    return "to the end" if acted.ended_ns is None else f"until {date(acted.ended_ns)}"


def _told(alert: Alert, month: BudgetMonth) -> tuple[str, str, str]:
    amount_nano = alert.spent_nano if alert.kind == "actual" or alert.forecast_nano is None else alert.forecast_nano
    days = alert.days_before_overrun
    before = "" if days is None else f"{days:.1f} d" if days >= 0 else f"{-days:.1f} d after"
    return usd(amount_nano), share_cell(amount_nano, month.budget_nano), before
