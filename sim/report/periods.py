"""A run by month or week as tables: SLOs and error budgets, cost and latency, burn rates, causes, the bill by service."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from sim.report.cells import cell, labelled, new_table, percent_cell, plain, seconds_cell, share_cell, significant
from sim.results.burn import LONG_WINDOW_ALONE, RUN_TOO_SHORT, WINDOWS_TOO_LONG, Burn, burns
from sim.results.causes import CAUSES, causes, causes_by_period
from sim.results.invoice import invoice_by_month
from sim.results.periods import Calendar
from sim.results.records import RunResult
from sim.results.slo import ALL_TARGETS, TARGETS, counts_by_period, period_attainments
from sim.results.trend import TrendPoint, trend
from sim.units import NANO_PER_USD, NS_PER_DAY, NS_PER_HOUR, NS_PER_MINUTE, duration_ns, seconds_text, usd

PARTIAL = "* only a part of it lies in the measured run"
# What the column "fired" says where an alert was not fully judged.
_NOT_JUDGED = {WINDOWS_TOO_LONG: "too coarse", RUN_TOO_SHORT: "too short"}
_MOST_CAUSES = 3
_YEAR_NS = 365 * NS_PER_DAY
# As words of a column's head, which the terminal breaks at spaces.
_CAUSE_HEADS = {cause: cause.replace("_", " ") for cause in CAUSES}


class _Run:
    """What the tables of a run share: its calendar, its counts and its points by period."""

    def __init__(self, result: RunResult, unit: str) -> None:
        self.result, self.unit = result, unit
        self.calendar = Calendar.of(result.manifest["scenario"])
        self.counts = counts_by_period(result, self.calendar, unit)
        self.trend = trend(result, self.calendar, unit)

    def slo(self, service: str) -> dict[str, dict[str, dict[str, Any]]]:
        """The attainments of a service by target and period."""
        return period_attainments(self.result.summary, service, self.counts[service])

    def title(self, what: str) -> str:
        """A title with the unit and the zones of its periods."""
        return f"{what}, by {self.unit} of {self.zones}"

    @property
    def zones(self) -> str:
        """The time zones of the services."""
        return plain(", ".join(dict.fromkeys(self.calendar.zones.values())))

    def moment(self, service: str, time_ns: int | None) -> str:
        """A time as date and clock of a service, as a date in a run of which a day could come twice."""
        if time_ns is None:
            return "-"
        local: datetime = self.calendar.local(service, time_ns)
        return f"{local:%d %b %H:%M}" if self.calendar.horizon_ns <= _YEAR_NS else f"{local:%d %b %Y}"


def month_block(result: RunResult) -> Table | None:
    """Return what the terminal shows of a run of four weeks or more: one line a month; None for a shorter one."""
    run = _Run(result, "month")
    if not run.calendar.is_long:
        return None
    table = new_table(f"MONTHS of {run.zones}", "month", "requests", "USD", "per 1M", "TTFT p95", "TPOT p95", "attained", "budget")
    for service, points in run.trend.items():
        if len(run.trend) > 1:
            table.add_row(cell(service))
        slo = run.slo(service)
        for point in points:
            target, attained, left = _worst(slo, point.label)
            table.add_row(
                _label(point.label, point.partial),
                f"{point.completed:,}",
                _whole_usd(point.cost_nano),
                _price(point),
                *(seconds_cell(point.latency_s[latency]["p95"]) for latency in ("ttft", "tpot")),
                f"{target} {percent_cell(attained)}".strip(),
                budget_cell(left),
            )
    table.caption = f"{PARTIAL}; USD per 1M tokens; attained: the target with the least error budget left"
    return table


def main_causes(result: RunResult) -> list[Text]:
    """Return lines with the causes of most requests that were not good, at most three a service; none in a run below four weeks."""
    lines: list[Text] = []
    if not Calendar.of(result.manifest["scenario"]).is_long:
        return lines
    for service, rows in causes(result).items():
        total = sum(row.requests for row in rows)
        if total:
            lines.append(labelled("not good", f"{total:,} requests of {service}"))
            ranked = sorted(rows, key=lambda row: -row.requests)[:_MOST_CAUSES]
            lines += [labelled("", f"{share_cell(row.requests, total):>6} {CAUSES[row.cause]}") for row in ranked if row.requests]
    return lines


def _worst(slo: dict[str, dict[str, dict[str, Any]]], label: str) -> tuple[str, float | None, float | None]:
    """The target of a period with the least budget left, else the one with the lowest attainment."""
    found = [
        (months[label]["budget_left"], months[label]["attainment"], target)
        for target, months in slo.items()
        if target in TARGETS and months[label]["attainment"] is not None
    ]
    if not found:
        return "", None, None
    left, attained, target = min(found, key=lambda one: (one[0] if one[0] is not None else 1.0, one[1]))
    return target.upper(), attained, left


def budget_cell(left: float | None) -> Text | str:
    """Return what is left of an error budget in percent, cut and not rounded; below 0 it is overspent.

    Examples
    --------
    >>> str(budget_cell(0.754)), str(budget_cell(-1.0964)), budget_cell(None)
    ('75%', '-110%', '-')
    """
    if left is None:
        return "-"
    shown = f"{math.floor(left * 100):,}%"
    return Text(shown, "bold red") if left < 0 else shown


def period_tables(result: RunResult, unit: str) -> list[Table]:
    """Return the full tables of a run by month or week.

    Parameters
    ----------
    unit : "month" or "week", of the time zone of each service; the bill, by month of the account's, comes with the months.
    """
    run = _Run(result, unit)
    tables = [_slo_table(run), _cost_table(run), _latency_table(run), _causes_by_period(run)]
    return [*tables, _bill_table(run)] if unit == "month" else tables


def reliability_tables(result: RunResult) -> list[Table]:
    """Return the burn rates of a run with the alerts that would have fired, and the causes of what was not good."""
    run = _Run(result, "month")
    return [_burn_table(run), _cause_table(run)]


def _slo_table(run: _Run) -> Table:
    table = new_table(run.title("SLO AND ERROR BUDGET"), run.unit, "requests", "bad", "attained", "goal", "verdict", "budget left")
    for service in run.counts:
        for target, months in run.slo(service).items():
            slo = run.result.summary["slo"][service][target]
            within = "" if slo["threshold"] is None else f"within {seconds_text(slo['threshold'])}"
            table.add_row(cell(f"{service}: {'all' if target == ALL_TARGETS else target.upper()}"), within)
            for label, month in months.items():
                verdicts = {True: Text("met", "green"), False: Text("MISSED", "bold red"), None: Text("-")}
                table.add_row(
                    _label(label, month["partial"], indent=True),
                    f"{month['total']:,}",
                    f"{month['total'] - month['good']:,}",
                    percent_cell(month["attainment"]),
                    "" if slo["goal"] is None else f"{slo['goal'] * 100:g}%",
                    verdicts[month["met"]],
                    budget_cell(month["budget_left"]),
                )
    table.caption = PARTIAL
    return table


def _cost_table(run: _Run) -> Table:
    table = new_table(run.title("COST"), run.unit, "requests", "1M tokens", "USD", "per 1M", "per 1k req.", "Wh per 1M")
    for service, points in run.trend.items():
        table.add_row(cell(service))
        for point in points:
            millions = point.tokens / 1e6
            table.add_row(
                _label(point.label, point.partial, indent=True),
                f"{point.completed:,}",
                f"{millions:,.1f}",
                usd(point.cost_nano),
                _price(point),
                significant(point.cost_nano / 1e6 / point.completed if point.completed else None),
                significant(point.energy_j / 3600 / millions if millions else None),
            )
    table.caption = (
        f"{PARTIAL}; USD and Wh per 1M tokens; what no service pays is in the bill alone; Wh: accelerators while they step"
    )
    return table


def _latency_table(run: _Run) -> Table:
    heads = [f"{target.upper()} {name}" for target in TARGETS for name in ("p50", "p95")]
    table = new_table(run.title("LATENCY"), run.unit, *heads)
    for service, points in run.trend.items():
        table.add_row(cell(service))
        for point in points:
            values = (seconds_cell(point.latency_s[target][name]) for target in TARGETS for name in ("p50", "p95"))
            table.add_row(_label(point.label, point.partial, indent=True), *values)
    table.caption = f"{PARTIAL}; quantiles of all completions of a period together"
    return table


def _causes_by_period(run: _Run) -> Table:
    found = causes_by_period(run.result, run.calendar, run.unit)
    seen = [cause for cause in CAUSES if any(month[cause] for months in found.values() for month in months.values())]
    table = new_table(run.title("REQUESTS NOT GOOD"), run.unit, *(_CAUSE_HEADS[cause] for cause in seen))
    for service, months in found.items():
        table.add_row(cell(service))
        partial = {period.label: period.partial for period in run.counts[service]}
        for label, month in months.items():
            table.add_row(_label(label, partial[label], indent=True), *(f"{month[cause]:,}" for cause in seen))
    for column in table.columns[1:]:
        column.no_wrap = False
    table.caption = PARTIAL if seen else "every request was good"
    return table


def _bill_table(run: _Run) -> Table:
    table = new_table(f"BILL in USD, by month of {plain(run.calendar.account_zone)}", "month", "service", "category", "amount")
    table.columns[1].justify = "left"
    for charge in invoice_by_month(run.result):
        table.add_row(charge.month, cell(charge.service), cell(charge.category), usd(charge.amount_nano))
    table.caption = "each amount is an exact sum shown to the cent"
    return table


def _burn_table(run: _Run) -> Table:
    found = burns(run.result)
    table = new_table("BURN RATES AND ALERTS", "alert", "worst", "in the window to", "fired", "for", "first")
    for burn, first in _with_heads(found):
        if first:
            table.add_row(cell(f"{burn.service}: {burn.target.upper()}"), "", f"goal {burn.goal * 100:g}%")
        begins = burn.firing_ns[:, 0]
        lasted_s = int((burn.firing_ns[:, 1] - begins).sum()) / 1e9
        table.add_row(
            f"  {rule_words(burn)}",
            f"{burn.worst:,.1f}x" if burn.worst is not None else "-",
            run.moment(burn.service, burn.worst_end_ns),
            _fired(burn),
            seconds_text(lasted_s) if len(begins) else "-",
            run.moment(burn.service, int(begins[0])) if len(begins) else "-",
        )
    window_s = duration_ns(run.result.manifest["scenario"]["window"]) / 1e9
    states = {burn.state for burn in found}
    notes = ["a rate of 1x spends the budget evenly; an alert fires while its long and its short window burn faster"]
    if LONG_WINDOW_ALONE in states:
        notes.append(
            f"+ long window alone: the run's windows of {seconds_text(window_s)} are longer than the short one (window=5m)"
        )
    if WINDOWS_TOO_LONG in states:
        notes.append(f"too coarse: the run's windows of {seconds_text(window_s)} are longer than the long one")
    if RUN_TOO_SHORT in states:
        notes.append("too short: the run has no such window")
    if not all(burn.can_fire for burn in found):
        notes.append("cannot: the goal allows so much that even an outage burns slower")
    table.caption = "; ".join(notes)
    if not found:
        table.caption = "no target has an error budget"
    return table


def _fired(burn: Burn) -> Text | str:
    times = len(burn.firing_ns)
    if burn.state in _NOT_JUDGED or not burn.can_fire:
        return _NOT_JUDGED.get(burn.state, "cannot")
    return Text(f"{times:,}{'+' if burn.state == LONG_WINDOW_ALONE else ''}", "bold red" if times else "")


def rule_words(burn: Burn) -> str:
    """Return an alert in words: severity, rate, and its two windows."""
    return f"{burn.rule.severity} {burn.rule.factor:g}x {_short(burn.rule.long_ns)}/{_short(burn.rule.short_ns)}"


def _short(length_ns: int) -> str:
    hours = length_ns / NS_PER_HOUR
    return f"{length_ns // NS_PER_MINUTE}m" if hours < 1 else f"{hours:g}h" if hours < 24 else f"{hours / 24:g}d"


def _with_heads(found: list[Burn]) -> Iterator[tuple[Burn, bool]]:
    before = None
    for burn in found:
        yield burn, (burn.service, burn.target) != before
        before = (burn.service, burn.target)


def _cause_table(run: _Run) -> Table:
    table = new_table("WHY REQUESTS WERE NOT GOOD", "cause", "requests", "share", "windows", "worst window")
    for service, rows in causes(run.result).items():
        total = sum(row.requests for row in rows)
        windows = sum(row.windows for row in rows)
        table.add_row(cell(service), f"{total:,}", "", f"{windows:,}", "")
        for row in rows:
            if row.requests:
                numbers = f"{row.requests:,}", share_cell(row.requests, total), f"{row.windows:,}"
                table.add_row(f"  {CAUSES[row.cause]}", *numbers, run.moment(service, row.worst_ns))
    table.caption = (
        "windows: those that missed a goal, by their most frequent cause; worst window: its start, with most of the cause"
    )
    return table


def _label(label: str, partial: bool, *, indent: bool = False) -> str:
    return f"{'  ' if indent else ''}{label}{'*' if partial else ''}"


def _whole_usd(amount_nano: int) -> str:
    """An amount for a narrow column: whole dollars where they are many."""
    return f"{amount_nano / NANO_PER_USD:,.0f}" if amount_nano >= 1_000 * NANO_PER_USD else usd(amount_nano)


def _price(point: TrendPoint) -> str:
    return significant(point.usd_per_1m_tokens)
