"""Cells and tables of the terminal: plain text from data; shares and durations as people read them."""

from __future__ import annotations

import math

from rich import box
from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

from sim.units import seconds_text

# Columns of words; all others are of numbers.
_WORDS = ("verdict", "beside", "category", "seen")
_FOLDED = ("beside",)
# Titles and captions are folded to the width of their table.
_LEAST_WIDTH = 60


def new_table(title: str, first: str, *others: str) -> Table:
    """Return an empty table of the house: title above, a line below the head, the first column of words, numbers to the right."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), title=title, title_justify="left", title_style="bold",
        min_width=_LEAST_WIDTH)  # fmt: skip
    table.caption_justify = "left"
    table.add_column(first, overflow="fold")
    for name in others:
        justify: JustifyMethod = "left" if name in _WORDS else "right"
        table.add_column(name, justify=justify, no_wrap=name not in _FOLDED, overflow="fold")
    return table


def labelled(name: str, value: str, style: str = "") -> Text:
    """Return a line of a label and a value from data."""
    return Text.assemble((f"{name:<11}", "dim"), (plain(value), style))


def plain(text: str) -> str:
    """Return a text from data in which every control character is a question mark.

    Examples
    --------
    >>> plain("chat\\x1b[2J")
    'chat?[2J'
    """
    return "".join(letter if letter.isprintable() else "?" for letter in str(text))


def cell(text: str) -> Text:
    """Return a text from data as a cell without markup."""
    return Text(plain(text))


def share_cell(amount: int, total: int) -> str:
    """Return a part of a sum in percent, rounded to a tenth.

    Examples
    --------
    >>> share_cell(1, 3), share_cell(1, 0)
    ('33.3%', '-')
    """
    return f"{amount / total:.1%}" if total else "-"


def percent_cell(share: float | None) -> str:
    """Return a share in percent, cut and not rounded: 100 % is shown only where nothing is missing.

    Examples
    --------
    >>> percent_cell(0.99999), percent_cell(None)
    ('99.99%', '-')
    """
    return "-" if share is None else f"{math.floor(round(share * 10_000, 6)) / 100:.2f}%"


def seconds_cell(seconds: float | None) -> str:
    """Return a duration, "-" where there is none."""
    return "-" if seconds is None else seconds_text(seconds)


def significant(value: float | None) -> str:
    """Return a number with four digits that matter.

    Examples
    --------
    >>> significant(0.0123), significant(123456.7)
    ('0.0123', '123,457')
    """
    return "-" if value is None else f"{value:,.4g}" if value < 10_000 else f"{value:,.0f}"
