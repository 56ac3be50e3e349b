"""The bill by any keys as tables: pivots, what a unit of work costs, why one bill is dearer than another."""

from __future__ import annotations

from itertools import groupby

from rich.table import Table

from sim.report.cells import cell, new_table, plain
from sim.results.pivot import Pivot


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
