"""Parts of the page: text, tables of pairs, the terminal report's tables, and figures as inline SVG."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from html import escape
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from sim.report.terminal import render
from sim.results.records import RunResult

Pair = tuple[str, str, str]  # label, value, style of the value

# Classes for the terminal's colours; the words themselves say the same, so a grey print loses nothing.
_CLASSES = {"green": "met", "bold red": "missed", "yellow": "warning"}
_LABEL_STYLE, _TOTAL_STYLE = "dim", "bold"


def text(value: object) -> str:
    """Return a text from data for a page: without control characters, and with nothing that could be read as HTML.

    Examples
    --------
    >>> text('<b onclick="x">\\x1b')
    '&lt;b onclick=&quot;x&quot;&gt;?'
    """
    return escape("".join(letter if letter.isprintable() else "?" for letter in str(value)))


def pairs(rows: Iterable[Pair]) -> str:
    """Return a table of labels and values; a label is not repeated on the next line.

    Examples
    --------
    >>> print(pairs([("cost", "1 USD", "")]))
    <table><tbody>
    <tr><th scope="row">cost</th><td>1 USD</td></tr>
    </tbody></table>
    """
    lines = []
    for label, group in groupby(rows, key=lambda row: row[0]):
        for number, (_, value, style) in enumerate(group):
            name = text(label) if number == 0 else ""
            lines.append(f'<tr><th scope="row">{name}</th><td{_class(style)}>{text(value)}</td></tr>')
    return "\n".join(["<table><tbody>", *lines, "</tbody></table>"])


def leaves(value: Any, path: str = "") -> Iterator[Pair]:
    """Return every value of nested data with its dotted path.

    Examples
    --------
    >>> [pair[:2] for pair in leaves({"a": {"b": 1, "c": []}, "d": [{"e": None}], "f": [1, 2]})]
    [('a.b', '1'), ('a.c', '-'), ('d[0].e', '-'), ('f', '1, 2')]
    """
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from leaves(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        for number, item in enumerate(value):
            yield from leaves(item, f"{path}[{number}]")
    elif isinstance(value, list):
        yield path, ", ".join(map(str, value)) or "-", ""
    else:
        yield path, "-" if value is None or value in ("", {}) else str(value), ""


def shown_on_terminal(result: RunResult) -> list[str]:
    """Return the parts of the terminal report: neighbouring lines as one table of pairs, tables as tables."""
    console = _Collector()
    render(result, console)
    parts: list[str] = []
    for is_table, group in groupby(console.kept, key=lambda kept: isinstance(kept, Table)):
        if is_table:
            parts.extend(table_html(table) for table in group)
        else:
            parts.append(pairs(_labelled(group)))
    return parts


class _Collector(Console):
    """A console that keeps what the terminal report prints instead of printing it, so that both reports say the same."""

    def __init__(self) -> None:
        super().__init__(file=io.StringIO(), width=80)
        self.kept: list[Any] = []

    def print(self, *objects: Any, **_: Any) -> None:
        """Keep the objects."""
        self.kept.extend(objects)


def _labelled(lines: Iterable[Text]) -> Iterator[Pair]:
    """Lines with a label; the title and the place of the results are for the terminal alone."""
    label = ""
    for line in lines:
        spans = line.spans
        if not spans or spans[0].style != _LABEL_STYLE:
            continue
        label = line.plain[: spans[0].end].strip() or label
        if label != "results":
            yield label, line.plain[spans[0].end :], str(spans[1].style) if len(spans) > 1 else ""


def table_html(table: Table) -> str:
    """Return a table of the terminal as one of the page."""
    head = "".join(f'<th scope="col"{_class("", column)}>{_cell(column.header)}</th>' for column in table.columns)
    lines = ["<table>", f"<caption>{_cell(table.title)}</caption>", f"<thead><tr>{head}</tr></thead>", "<tbody>"]
    for row, cells in zip(table.rows, zip(*(column.cells for column in table.columns), strict=True), strict=True):
        shown = "".join(
            f"<td{_class(_style(cell), column)}>{_cell(cell)}</td>" for column, cell in zip(table.columns, cells, strict=True)
        )
        lines.append(f'<tr class="total">{shown}</tr>' if row.style == _TOTAL_STYLE else f"<tr>{shown}</tr>")
    lines.append("</tbody></table>")
    if table.caption:
        lines.append(f'<p class="note">{_cell(table.caption)}</p>')
    return "\n".join(lines)


def _cell(cell: Any) -> str:
    return text(cell.plain if isinstance(cell, Text) else cell)


def _style(cell: Any) -> str:
    return str(cell.style) if isinstance(cell, Text) else ""


def _class(style: str, column: Column | None = None) -> str:
    found = [_CLASSES[style]] if style in _CLASSES else []
    if column is not None and column.justify == "right":
        found.append("right")
    return f' class="{" ".join(found)}"' if found else ""


def inline_svg(document: str, name: str, label: str) -> str:
    """Return an SVG document as a part of a page: said in words for who cannot see it, its ids unlike those of other figures
    but for its letters, which `letters_once` shares.

    Parameters
    ----------
    document : as matplotlib writes it. name : goes before every id. label : what the figure says.
    """
    found = document[document.index("<svg") :]
    found = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", found, flags=re.DOTALL)
    found = re.sub(r'(?:(?<= id=")|(?<=url\(#)|(?<=href="#))(?!DejaVu)', f"{name}-", found)
    found = re.sub(r">\s+<", ">\n<", found)
    return found.replace("<svg", f'<svg role="img" aria-label="{text(label)}"', 1).rstrip()


def letters_once(page: str) -> str:
    """Return a page in which each letter's outline, which every figure brings along, is there once.

    Examples
    --------
    >>> letter = '<path id="DejaVuSans-41" d="M 1 2"/>'
    >>> letters_once(letter + "<g/>" + letter) == letter + "<g/>"
    True
    """
    seen: set[str] = set()

    def first(found: re.Match[str]) -> str:
        if found[1] in seen:
            return ""
        seen.add(found[1])
        return found[0]

    return re.sub(r'<path id="(DejaVu[^"]*)"[^>]*/>', first, page)
