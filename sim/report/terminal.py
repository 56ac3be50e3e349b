"""The report on the terminal: invoice, where the money went, SLOs. It fits 80 columns and is plain text in a pipe.

Every name comes from data and is shown as plain text: no markup, and a control character becomes a question mark.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sim.report.budgets import budgets_table
from sim.report.cells import cell, labelled, new_table, percent_cell, plain, seconds_cell, share_cell, significant
from sim.report.energy import energy_lines, energy_table
from sim.report.jobs import jobs_table
from sim.report.periods import main_causes, month_block
from sim.report.spikes import spikes_table
from sim.results.invoice import InvoiceLine, invoice
from sim.results.numbers import SHARED, UNASSIGNED
from sim.results.records import RunResult
from sim.results.rounding import NANO_PER_CENT, as_cents, cents
from sim.results.slo import ALL_TARGETS, TARGETS
from sim.results.validity import bill_by_step_times
from sim.units import duration_ns, instant, seconds_text, usd

_OVERHEADS = ("booting", "idle", "draining", "lost")
_UNSERVED = ("failed", "abandoned", "rejected", "unfinished", "retried")


def render(result: RunResult, console: Console) -> None:
    """Print the report of a run.

    Parameters
    ----------
    console : where to; 80 columns are enough.
    """
    summary = result.summary
    for line in _header(result):
        console.print(line)
    for table in (
        invoice_table(invoice(result), result.manifest["scenario"]["account"]["timezone"]),
        money_table(result),
        _slo_table(summary),
        _requests_table(summary),
        energy_table(summary),
        jobs_table(result),
        budgets_table(result),
        spikes_table(result),
        month_block(result),
    ):
        if table is not None:
            console.print()
            console.print(table)
    console.print()
    for line in (*main_causes(result), *_closing(result), *_step_times(result), *_spot(result.manifest)):
        console.print(line)
    console.print(labelled("results", str(result.folder)), soft_wrap=True)


def _header(result: RunResult) -> Iterable[Text]:
    scenario, engine, requests = result.manifest["scenario"], result.summary["engine"], result.summary["requests"]
    start, length_ns = instant(scenario["start"]), duration_ns(scenario["horizon"])
    end = start + timedelta(microseconds=length_ns // 1_000)
    yield Text.assemble(("billcast ", "bold"), (plain(scenario["name"]), "bold cyan"))
    yield labelled("period", f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC ({seconds_text(length_ns / 1e9)})")
    yield labelled("requests", f"{requests['arrived']:,} arrived, {requests['completed']:,} completed")
    speed = f"{engine['requests_per_s']:,.0f} requests/s, {engine['steps']:,} steps"
    yield labelled("engine", f"{engine['name']}, {speed}, {seconds_text(engine['wall_s'])}, {engine['peak_rss_mb']:.0f} MB")
    if result.summary["bad_rows"]:
        yield labelled("skipped", f"{result.summary['bad_rows']:,} broken input rows", "yellow")


def invoice_table(lines: list[InvoiceLine], timezone: str) -> Table:
    """A line is its exact sum shown to the cent, and so is a total; where shown cents do not add up a rounding line says so."""
    table = new_table(f"INVOICE in USD, by calendar month of {plain(timezone)}", "item", "quantity", "unit price", "amount")
    shown_cents = total_nano = 0
    months = [(month, list(group)) for month, group in groupby(lines, key=lambda line: line.month)]
    for month, group in months:
        month_nano = sum(line.amount_nano for line in group)
        for line in group:
            quantity = f"{line.quantity:,.3f} {'h' if line.unit == 'instance-hours' else plain(line.unit)}"
            table.add_row(cell(line.name), quantity, cell(line.unit_price), usd(line.amount_nano))
        shown_cents += _add_rounding(table, month_nano, sum(cents(line.amount_nano) for line in group))
        total_nano += month_nano
        if len(months) > 1:
            table.add_row(cell(f"{month} total"), "", "", usd(month_nano), style="bold", end_section=True)
    _add_rounding(table, total_nano, shown_cents)
    table.add_row("TOTAL", "", "", usd(total_nano), style="bold")
    return table


def _add_rounding(table: Table, exact_nano: int, shown_cents: int) -> int:
    """Add what is missing between the shown cents and the cents of the exact sum, if anything; returns the latter."""
    missing = cents(exact_nano) - shown_cents
    if missing:
        table.add_row("rounding of the lines above", "", "", usd(missing * NANO_PER_CENT))
    return shown_cents + missing


def money_table(result: RunResult) -> Table:
    """Return what the bill was paid for: work by segment, and each overhead."""
    columns = result.sql("""
        SELECT use, CASE WHEN use = 'busy' THEN service || '/' || segment ELSE '' END AS who, stream < 0 AS nobody,
            sum(amount_nano_usd) AS amount FROM attribution GROUP BY ALL ORDER BY amount DESC, use, who
    """)
    rows = list(zip(*(column.tolist() for column in columns.values()), strict=True))
    total = sum(row[3] for row in rows)
    table = new_table("WHERE THE MONEY WENT", "use", "amount", "share")
    uses = [(f"busy: {UNASSIGNED if nobody else who}", amount) for use, who, nobody, amount in rows if use == "busy"]
    uses += [(use, sum(row[3] for row in rows if row[0] == use)) for use in _OVERHEADS]
    shared = sum(row[3] for row in rows if row[0] == SHARED)
    if shared:
        uses.append((SHARED, shared))
    for (use, amount), shown in zip(uses, as_cents(cents(total), [amount for _, amount in uses]), strict=True):
        table.add_row(cell(use), usd(shown * NANO_PER_CENT), share_cell(amount, total))
    return table


def _slo_table(summary: Mapping[str, Any]) -> Table:
    table = new_table("SLO", "service", "within", "p50", "p95", "p99", "attained", "goal", "verdict")
    for service, latency in summary["latency"].items():
        if "jobs" in summary["services"].get(service, {}):
            continue  # its requests are not waited for one by one; the jobs have a table of their own
        slo = summary["slo"][service]
        table.add_row(cell(service))
        # An answer that comes in one piece has no time of its first token, and none between tokens.
        in_pieces = "items" not in summary["services"].get(service, {})
        for target in TARGETS if in_pieces else ("e2e",):
            found = latency[f"{target}_s"]
            quantiles = [seconds_cell(found[name]) for name in ("p50", "p95", "p99")]
            table.add_row(f"  {target.upper()}", *_judged(slo.get(target), quantiles))
        if ALL_TARGETS in slo:
            table.add_row("  all targets", *_judged(slo[ALL_TARGETS], ["", "", ""]))
    table.caption = plain(summary["interval"])
    return table


def _judged(slo: Mapping[str, Any] | None, quantiles: list[str]) -> list[str | Text]:
    if slo is None:
        return ["-", *quantiles, "-", "", "-"]
    goal = "" if slo["goal"] is None else f"{slo['goal'] * 100:g}%"
    verdicts = {True: Text("met", "green"), False: Text("MISSED", "bold red"), None: Text("-")}
    threshold = "" if slo["threshold"] is None else seconds_cell(slo["threshold"])
    return [threshold, *quantiles, percent_cell(slo["attainment"]), goal, verdicts[slo["met"]]]


def _requests_table(summary: Mapping[str, Any]) -> Table:
    table = new_table("REQUESTS", "service", "arrived", "completed", "served", "beside")
    for service, found in summary["services"].items():
        requests = found["requests"]
        beside = ", ".join(f"{requests[name]:,} {name}" for name in _UNSERVED if requests[name]) or "-"
        served = percent_cell(found["availability"])
        table.add_row(cell(service), f"{requests['arrived']:,}", f"{requests['completed']:,}", served, beside)
    return table


def _closing(result: RunResult) -> Iterable[Text]:
    summary = result.summary
    bill = summary["bill"]
    costs = {
        "1M output tokens": "usd_per_1m_output_tokens",
        "1M tokens": "usd_per_1m_tokens",
        "1,000 requests": "usd_per_1k_requests",
    }
    in_items = {name: found for name, found in summary["services"].items() if "items" in found}
    lines = [f"{significant(bill[key])} USD per {unit}" for unit, key in costs.items() if bill[key] is not None or not in_items]
    for name, found in in_items.items():
        units = ("requests", "items")
        lines += [f"{significant(found[f'usd_per_1k_{unit}'])} USD per 1,000 {unit} of {plain(name)}" for unit in units]
    for number, line in enumerate(lines):
        yield labelled("" if number else "unit cost", line)
    yield from energy_lines(result)
    yield confidence_line(result)


def confidence_line(result: RunResult) -> Text:
    """Return the share of the bill that rests on assumed prices."""
    assumed = result.summary["bill"]["assumed_share"]
    share = "-" if assumed is None else f"{assumed:.1%}"
    return labelled("confidence", f"{share} of the bill rests on assumed prices")


def _step_times(result: RunResult) -> Iterable[Text]:
    """Say what part of the bill rests on how good step times, and how far those of each deployment hold."""
    total_usd = result.summary["bill"]["total_usd"]
    if total_usd:
        shares = [f"{amount_usd / total_usd:.1%} {validity}" for validity, amount_usd in bill_by_step_times(result).items()]
        yield labelled("", f"by step times: {', '.join(shares)}")
    for number, (place, model) in enumerate(result.manifest["step_models"].items()):
        band = f"9 of 10 within {model['band']:.0%}" if model["band"] else "no band known"
        yield labelled("" if number else "step times", f"{place}: {model['validity']}, {band} ({model['source']})")


def _spot(manifest: Mapping[str, Any]) -> Iterable[Text]:
    """Say what the capacity and the price of every spot pool follow."""
    for pool, market in manifest["spot_markets"].items():
        capacity = f"capacity {market['market']} ({market['gpu']}, {market['years']}; {market['source']})"
        price = f"price {market['price'] or 'of the scenario'} ({market['price_confidence']}; {market['price_source']})"
        yield labelled("spot", f"{plain(pool)}: {capacity}; {price}")
