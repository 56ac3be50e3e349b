"""The bill of machine lives, on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from sim.report.cells import cell, labelled, new_table, plain
from sim.results.rounding import as_cents, cents
from sim.units import NANO_PER_USD, NS_PER_HOUR, usd

if TYPE_CHECKING:
    from sim.app.price import Bought
    from sim.studies.price import PricedLives, RuleLine

WIDTH = 120
_SECONDS = "instance-second"
_NANO_PER_CENT = NANO_PER_USD // 100


def show_bill(priced: PricedLives, console: Console, *, each: bool) -> None:
    """Print the bill, by machine or by type, and what its prices rest on."""
    lines = priced.rules()
    console.print(_rule_table(priced, lines if each else _together(lines), each=each))
    console.print()
    for line in lines_of_sources(lines):
        console.print(line, soft_wrap=True)
    share = priced.assumed_share
    console.print(labelled("confidence", f"{'-' if share is None else f'{share:.1%}'} of the bill rests on assumed prices"))
    if priced.bad_rows:
        console.print(labelled("skipped", f"{priced.bad_rows:,} broken rows", "yellow"))
    if priced.folder is not None:
        console.print(labelled("results", str(priced.folder)), soft_wrap=True)


def show_alternatives(priced: PricedLives, bills: Sequence[Bought], console: Console) -> None:
    """Print the bills of the same lives side by side, beside the same commitments."""
    hours = Decimal(sum(life.end_ns - life.begin_ns for life in priced.lives)) / NS_PER_HOUR
    table = new_table("THE SAME LIVES, all bought in one way, in USD", "bought", "bill", "a machine-hour", "of as given", "assumed")
    rows = [("as given", priced), *((way, found) for way, found, _ in bills)]
    for way, found in rows:
        if found is None:
            table.add_row(cell(way), "-", "-", "-", "-")
            continue
        mean = f"{Decimal(found.amount_nano) / NANO_PER_USD / hours:.4f}" if hours else "-"
        share = f"{found.amount_nano / priced.amount_nano:.1%}" if priced.amount_nano else "-"
        assumed = "-" if found.assumed_share is None else f"{found.assumed_share:.1%}"
        table.add_row(cell(way), usd(found.amount_nano), mean, share, assumed)
    console.print(table)
    for way, _, problems in bills:
        for problem in problems[:1]:
            more = f" ({len(problems) - 1:,} more)" if len(problems) > 1 else ""
            console.print(labelled(way, f"{problem.message}{more}"), soft_wrap=True)


def _rule_table(priced: PricedLives, lines: Sequence[RuleLine], *, each: bool) -> Table:
    """A line for each rule and price; shown cents add up to the total by largest remainders."""
    zone = plain(priced.terms.account.timezone)
    count = f"{len(priced.lives):,} {'machine' if len(priced.lives) == 1 else 'machines'}"
    title = f"BILL of {count} in USD, {priced.begins:%Y-%m-%d %H:%M} to {priced.ends:%Y-%m-%d %H:%M} UTC"
    first = "machine" if each else "machines"
    table = new_table(f"{title}, hours of {zone}", first, "rule", "quantity", "unit price", "amount", "prices are")
    shown = as_cents(cents(priced.amount_nano), [line.amount_nano for line in lines])
    for line, amount in zip(lines, shown, strict=True):
        what = " ".join(filter(None, (line.name, line.instance, line.region, line.purchase, line.category)))
        table.add_row(
            cell(what), cell(line.tariff), _quantity(line), cell(line.unit_price), usd(amount * _NANO_PER_CENT), line.confidence
        )
    table.add_row("TOTAL", "", "", "", usd(priced.amount_nano), "", style="bold")
    return table


def _quantity(line: RuleLine) -> str:
    if line.unit == _SECONDS:
        return f"{line.quantity / 3600:,.3f} h" if line.quantity >= 3600 else f"{line.quantity.normalize():f} s"
    return f"{line.quantity:,.3f} {plain(line.unit)}"


def _together(lines: Sequence[RuleLine]) -> list[RuleLine]:
    """Return lines of machines of one type together; prices that move count as one, with their mean."""
    groups: dict[tuple[str, ...], list[RuleLine]] = {}
    for line in lines:
        key = (
            "" if line.instance else line.name,
            line.instance,
            line.region,
            line.purchase,
            line.category,
            line.tariff,
            line.unit,
            line.confidence,
        )
        groups.setdefault(key, []).append(line)
    found = []
    for (name, *_), members in groups.items():
        quantity, amount_nano = sum((line.quantity for line in members), Decimal(0)), sum(line.amount_nano for line in members)
        prices = {line.unit_price for line in members}
        per_unit = 3600 if members[0].unit == _SECONDS else 1
        mean = f"{amount_nano * per_unit / NANO_PER_USD / float(quantity):.4f} mean" if quantity else "-"
        price = prices.pop() if len(prices) == 1 else mean
        found.append(replace(members[0], name=name, quantity=quantity, amount_nano=amount_nano, unit_price=price))
    return found


def lines_of_sources(lines: Sequence[RuleLine]) -> list[object]:
    """Return where prices come from, each source once with the rules that use it."""
    rules: dict[tuple[str, str], list[str]] = {}
    for line in lines:
        known = rules.setdefault((line.source, line.confidence), [])
        if line.tariff not in known:
            known.append(line.tariff)
    return [
        labelled("" if number else "prices", f"{', '.join(names)}: {source} [{confidence}]")
        for number, ((source, confidence), names) in enumerate(rules.items())
    ]
