"""The resolved scenario on a terminal: settings as a tree, then the numbers its names stand for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from rich import box
from rich.console import Console, JustifyMethod
from rich.markup import escape
from rich.table import Table

from sim.app.show import DEFAULT, Setting
from sim.app.show_catalog import Number

_COLUMNS: dict[str, JustifyMethod] = {"value": "right", "unit": "left", "confidence": "left", "source": "right"}


def show_scenario(name: str, rows: Sequence[Setting], found: Sequence[Number], console: Console) -> None:
    """Print the settings and, where given, the numbers behind them.

    Parameters
    ----------
    name : of the scenario. rows : its settings, all or those that were changed. found : numbers behind its names, or none.
    """
    console.print(f"scenario {escape(name)}, resolved", highlight=False)
    console.print(_settings(rows) if rows else "every setting stands at its default")
    notes: list[str] = []
    for about, group in groupby(found, key=lambda number: number.about):
        console.print(_numbers(about, list(group), notes))
    for place, note in enumerate(notes, start=1):
        console.print(f"({place}) {escape(note)}", highlight=False)


def _settings(rows: Sequence[Setting]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("setting", no_wrap=True)
    table.add_column("value", overflow="fold", min_width=16)
    table.add_column("unit", no_wrap=True)
    table.add_column("set by", overflow="fold")
    above: list[str] = []
    for row in rows:
        parts = row.path.split(".")
        common = next((depth for depth, (mine, other) in enumerate(zip(parts, above, strict=False)) if mine != other), len(above))
        for depth in range(min(common, len(parts) - 1), len(parts) - 1):
            table.add_row(f"{'  ' * depth}[bold]{escape(parts[depth])}[/bold]", "", "", "")
        label = f"{'  ' * (len(parts) - 1)}{escape(parts[-1])}"
        style = "dim" if row.source == DEFAULT else ""
        table.add_row(label, escape(shown(row.value)), row.unit, escape(row.source.removeprefix("scenario/")), style=style)
        above = parts
    return table


def shown(value: Any) -> str:
    """Return a value as it would be written in a file; `-` for one that is not set.

    Examples
    --------
    >>> shown(None), shown(True), shown(0.05), shown(["a", "b"]), shown("")
    ('-', 'true', '0.05', '[a, b]', '""')
    """
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.12g}"
    if isinstance(value, list):
        return f"[{', '.join(shown(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {shown(item)}' for key, item in value.items())}}}"
    return json.dumps(value) if value == "" else str(value)


def _numbers(about: str, group: Sequence[Number], notes: list[str]) -> Table:
    table = Table(title=escape(about), title_justify="left", box=box.SIMPLE)
    table.add_column("number", overflow="fold")
    for header, justify in _COLUMNS.items():
        table.add_column(header, justify=justify, no_wrap=True)
    for number in group:
        if number.source not in notes:
            notes.append(number.source)
        value = number.value if isinstance(number.value, str) else f"{number.value:.6g}"
        table.add_row(escape(number.name), value, number.unit, number.confidence, f"({notes.index(number.source) + 1})")
    return table
