"""The bill by any keys as tables: pivots, what a unit of work costs, why one bill is dearer than another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

from rich.table import Table
from rich.text import Text

from sim.report.cells import cell, new_table, plain, share_cell, significant
from sim.results.pivot import Pivot
from sim.results.unit_costs import UnitCost
from sim.results.why import FACTORS, Why
from sim.units import NANO_PER_USD


def cents_text(amount_cents: int) -> str:
    """Show cents as dollars and cents.

    Examples
    --------
    >>> cents_text(123456), cents_text(-5), cents_text(0)
    ('1,234.56', '-0.05', '0.00')
    """
    dollars, rest = divmod(abs(amount_cents), 100)
    return f"{'-' if amount_cents < 0 else ''}{dollars:,}.{rest:02}"


def pivot_table(found: Pivot, zone: str, top: int | None = None) -> Table:
    """Return a pivot as a table that adds up to the cent, with sums of the first key where there are several keys.

    Parameters
    ----------
    zone : time zone of the account. top : the dearest rows alone, the others as one; None for all.
    """
    heads = [*found.by, *(found.columns if found.across else ()), "USD"]
    across = f", across {found.across}" if found.across else ""
    table = new_table(f"BILL in USD by {', '.join(found.by)}{across}; times of {plain(zone)}", *map(plain, heads))
    for column in table.columns[: len(found.by)]:
        column.justify, column.no_wrap = "left", False
    shown = found.shown
    rows = list(zip(found.rows, shown.rows, shown.cells, strict=True))
    rest = []
    if top is not None and top < len(rows):
        ranked = sorted(range(len(rows)), key=lambda number: -rows[number][0].total_nano)
        rest = [rows[number] for number in sorted(ranked[top:])]
        rows = [rows[number] for number in ranked[:top]]
    blanks = [""] * (len(found.by) - 1)

    def add(names: list[str], total_cents: int, cells: list[int], style: str = "", end_section: bool = False) -> None:
        amounts = [*(cells if found.across else []), total_cents]
        table.add_row(*map(cell, names), *map(cents_text, amounts), style=style, end_section=end_section)

    def add_sum(name: str, members: list[tuple[object, int, list[int]]]) -> None:
        sums = [sum(member[2][number] for member in members) for number in range(len(found.columns))]
        add([name, *blanks], sum(member[1] for member in members), sums, "bold", end_section=True)

    grouped = top is None and len(found.by) > 1
    for first, group in groupby(rows, key=lambda row: row[0].keys[0] if grouped else ""):
        members = list(group)
        for row, total_cents, cells in members:
            add([name or "-" for name in row.keys], total_cents, cells)
        if grouped and len(members) < len(rows) and len(members) > 1:
            add_sum(f"{first or '-'} total", [*members])
    if rest:
        sums = [sum(cells[number] for _, _, cells in rest) for number in range(len(found.columns))]
        add([f"{len(rest):,} others", *blanks], sum(total_cents for _, total_cents, _ in rest), sums)
    add(["TOTAL", *blanks], shown.total, shown.columns, "bold")
    table.caption = "exact sums, shown in cents that add up to the invoice by largest remainders"
    return table


# Causes that a sentence names; the others are all else.
_NAMED = 4
REQUESTS, TOKENS, USERS = UNITS = ("requests", "tokens", "users")
_USERS = "users: clients with a completed request, each once in its row"
_NO_USERS = "; -: no clients in this workload, its requests do not say who sends them (set `users`)"


def unit_cost_tables(found: Sequence[UnitCost], by: Sequence[str], units: Sequence[str] = UNITS) -> list[Table]:
    """Return what a request, a token and a user cost as one table each.

    Parameters
    ----------
    by : names of the keys. units : of `UNITS`, in the order wanted.
    """
    makers = {REQUESTS: _per_request, TOKENS: _per_token, USERS: _per_user}
    tables = [makers[unit](found, by) for unit in units]
    for table in tables:
        for column in table.columns[: len(by)]:
            column.justify, column.no_wrap = "left", False
    return tables


def _per_request(found: Sequence[UnitCost], by: Sequence[str]) -> Table:
    uses = list(dict.fromkeys(use for unit in found for use in unit.amounts_nano))
    table = new_table("USD PER 1,000 REQUESTS", *map(plain, [*by, "requests", *uses, "all"]))
    for unit in found:
        parts = [significant(unit.per_1k_requests(use)) for use in uses]
        table.add_row(*map(cell, unit.keys), f"{unit.requests:,}", *parts, significant(unit.per_1k_requests()))
    table.caption = "completed requests; each use is its exact part of the bill over them"
    return table


def _per_token(found: Sequence[UnitCost], by: Sequence[str]) -> Table:
    table = new_table("USD PER 1M TOKENS", *map(plain, [*by, "1M in", "1M out", "per 1M in", "per 1M out", "both"]))
    for unit in found:
        tokens = unit.prompt_tokens + unit.output_tokens
        both = unit.total_nano * 1_000_000 / tokens / NANO_PER_USD if tokens else None
        prices = (unit.per_1m_prompt_tokens, unit.per_1m_output_tokens, both)
        millions = (f"{number / 1e6:,.1f}" for number in (unit.prompt_tokens, unit.output_tokens))
        table.add_row(*map(cell, unit.keys), *millions, *map(significant, prices))
    table.caption = (
        "in, out: prompt and output tokens; split by replica time: what prompts add to full steps, and for output all the rest; "
        "overheads follow work"
    )
    return table


def _per_user(found: Sequence[UnitCost], by: Sequence[str]) -> Table:
    table = new_table("USD PER ACTIVE USER", *map(plain, [*by, "users", "USD", "per user"]))
    for unit in found:
        users = "-" if unit.users is None else f"{unit.users:,}{'+' if unit.more_users else ''}"
        table.add_row(*map(cell, unit.keys), users, f"{unit.total_nano / NANO_PER_USD:,.2f}", significant(unit.per_user))
    table.caption = _USERS
    if any(unit.users is None for unit in found):
        table.caption += _NO_USERS
    if any(unit.more_users for unit in found):
        table.caption += "; + at least: others are not counted, or more than a tap keeps"
    return table


def why_sentence(found: Why) -> str:
    """Say in one sentence how much dearer a bill is, and the largest parts of the difference; its amounts add up to the cent.

    Examples
    --------
    >>> from sim.results.why import Change
    >>> why_sentence(Why("2026-09", "2026-10", {"chat": Change(10**11, 11 * 10**10, {"traffic": 12 * 10**9, "price": -2 * 10**9})}))
    'October 2026 cost 10.00 USD more than September 2026 (10.0%), of which traffic 12.00 and price -2.00.'
    """
    shown = found.shown[""]
    difference, after, before = shown.after - shown.before, _said(found.after), _said(found.before)
    if not any(shown.terms.values()):
        return f"{after} cost as much as {before}: {cents_text(shown.after)} USD."
    ranked = sorted((term for term, amount in shown.terms.items() if amount), key=lambda term: -abs(shown.terms[term]))
    parts = [(term, shown.terms[term]) for term in ranked[:_NAMED]]
    rest = difference - sum(amount for _, amount in parts)
    if len(ranked) > _NAMED:
        parts.append(("all else", rest))
    *most, last = [f"{term} {cents_text(amount)}" for term, amount in parts]
    of_which = f"{', '.join(most)} and {last}" if most else last
    if not difference:
        return f"{after} cost as much as {before}, {cents_text(shown.after)} USD: {of_which}."
    dearer = "more" if difference > 0 else "less"
    share = f" ({share_cell(abs(difference), shown.before)})" if shown.before > 0 else ""
    return f"{after} cost {cents_text(abs(difference))} USD {dearer} than {before}{share}, of which {of_which}."


def _said(name: str) -> str:
    """A month in words; other names as they are."""
    try:
        return f"{datetime.strptime(name, '%Y-%m'):%B %Y}"  # noqa: DTZ007 - a name, no instant
    except ValueError:
        return plain(name)


def why_table(found: Why) -> Table:
    """Return why a bill is dearer: all services together, then each of them, in cents that add up both ways."""
    difference = found.total.difference_nano
    dearer = "MORE THAN" if difference > 0 else "LESS THAN" if difference < 0 else "AS MUCH AS"
    title = f"WHY {plain(found.after)} COST {dearer} {plain(found.before)}, in USD"
    table = new_table(title, "", "amount", "of before")
    blocks = [("", found.total), *(found.services.items() if len(found.services) > 1 else ())]
    for name, change in blocks:
        shown = found.shown[name]
        if len(blocks) > 1:
            table.add_row(cell(name) if name else "all services", "", "", style="bold")
        table.add_row(cell(f"  before: {found.before}"), cents_text(shown.before), "")
        for term, amount in shown.terms.items():
            if change.terms_nano.get(term, 0) or amount:
                label = f"{term} ({FACTORS[term]})" if term in FACTORS else term
                table.add_row(cell(f"    {label}"), _signed(amount), share_cell(amount, shown.before))
        share = share_cell(shown.after - shown.before, shown.before)
        table.add_row(cell(f"  after: {found.after}"), cents_text(shown.after), share, style="bold", end_section=True)
    table.caption = "Shapley values of the causes: they add up to the difference, whatever their order"
    return table


def query_table(name: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return the answer to a query, a column each; texts to the left."""
    table = new_table(plain(name).replace("_", " ").upper(), "answer")
    if not rows:
        table.add_row("nothing in this run")
        return table
    table.columns.clear()
    for column, value in rows[0].items():
        table.add_column(column, justify="left" if isinstance(value, str) else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(_value_cell, row.values()))
    return table


def _value_cell(value: Any) -> Text:
    if value is None:
        return Text("-")
    if isinstance(value, float):
        return Text(f"{value:,.2f}" if round(value, 2) == value else f"{value:,}")
    return cell(f"{value:,}" if isinstance(value, int) else value)


def _signed(amount_cents: int) -> str:
    return f"{'+' if amount_cents > 0 else ''}{cents_text(amount_cents)}"
