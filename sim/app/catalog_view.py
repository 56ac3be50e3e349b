"""The catalog on a terminal: what there is, a table of one kind, one row in full."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, Field, fields
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sim.catalog.loader import KINDS, Catalog, load_catalog
from sim.errors import InputError, Problems
from sim.registry import groups, names, registered
from sim.scenario.plain import import_choices

# Long texts are for the view of one row.
_ONLY_IN_FULL = ("source", "notes", "date", "site_provenance")
_WIDEST_CELL = 46
POLICIES = "policies"
_BETWEEN, _EDGES = 3, 1


def show_catalog(what: str | None, name: str | None, overlay: str | None, console: Console) -> None:
    """Print the kinds of the catalog, the rows of a kind, or one row.

    Parameters
    ----------
    what : a kind, for instance "instances"; None for the list of kinds. name : a row of it; None for all.
    overlay : path of a user's catalog file, or None.

    Raises
    ------
    InputError : no such kind or row (the nearest is named), or an overlay with problems.
    """
    catalog = load_catalog(overlay)
    if what is None:
        _show_kinds(catalog, console)
        return
    problems = Problems()
    problems.check(what in (*KINDS, POLICIES), "catalog", what, "the catalog has no such kind", choices=(*KINDS, POLICIES))
    problems.raise_if_any()
    if what == POLICIES:
        show_policies(name, console)
        return
    rows = catalog.rows(what)
    if name is None:
        _show_rows(what, _with_prices(rows, catalog) if what == "instances" else rows, console)
        return
    found = [row for row in rows if row["name"] == name]
    if not found:
        problems.add(f"catalog {what}", name, "no such row", choices=[str(row["name"]) for row in rows])
        raise InputError(problems.found)
    _show_row(found[0], console)


def _show_kinds(catalog: Catalog, console: Console) -> None:
    table = Table("kind", "rows", "for instance", box=box.SIMPLE)
    for kind in KINDS:
        rows = [str(row["name"]) for row in catalog.rows(kind)]
        table.add_row(kind, str(len(rows)), escape(", ".join(rows[:3])))
    import_choices()
    table.add_row(POLICIES, str(sum(len(names(group)) for group in groups())), ", ".join(groups()))
    console.print(table)
    console.print("billcast catalog KIND for a table, billcast catalog KIND NAME for one row with its source")


def show_policies(group: str | None, console: Console) -> None:
    """Print what can be chosen by name, what a plug-in registered too: settings with defaults, and what it does.

    Parameters
    ----------
    group : "autoscaler", "router", ...; None for all.

    Raises
    ------
    InputError : no such group.
    """
    import_choices()
    problems = Problems()
    problems.check(group is None or group in groups(), f"catalog {POLICIES}", group, "no such group", choices=groups())
    problems.raise_if_any()
    table = Table("group", "name", "what it does, and its settings", box=box.SIMPLE)
    for each in groups() if group is None else [group]:
        for name in names(each):
            cls = registered(each, name)
            says = (cls.__doc__ or "").strip().splitlines()
            settings = ", ".join(_setting(item) for item in fields(cls))
            # A dataclass without a docstring gets its own signature for one.
            summary = says[0] if says and not says[0].startswith(f"{cls.__name__}(") else ""
            origin = "" if cls.__module__.startswith("sim.") else " (plug-in)"
            table.add_row(each, escape(name), escape("\n".join(filter(None, (summary + origin, settings)))))
    console.print(table)


def _setting(item: Field[Any]) -> str:
    return item.name if item.default is MISSING else f"{item.name}={item.default}"


def _with_prices(rows: Sequence[dict[str, Any]], catalog: Catalog) -> list[dict[str, Any]]:
    """Put first what one looks for: the latest price of the first region, and the accelerators with their number."""
    priced = []
    for row in rows:
        instance = catalog.instances[str(row["name"])]
        region = next(iter(instance.on_demand), None)
        price = "none" if region is None else f"{instance.on_demand[region][-1].usd_per_hour} {region}"
        first = {"name": row["name"], "usd_per_hour": price, "accelerator": f"{instance.accelerators} x {instance.accelerator}"}
        priced.append(first | {key: value for key, value in row.items() if key not in (*first, "accelerators", "on_demand")})
    return priced


def _show_rows(kind: str, rows: Sequence[dict[str, Any]], console: Console) -> None:
    """Print a table with as many columns as the terminal is wide; the confidence of a row is always one of them."""
    columns = [key for key in rows[0] if key not in (*_ONLY_IN_FULL, "confidence")] if rows else []
    cells = {key: [_cell(row[key]) for row in rows] for key in (*columns, "confidence")} if rows else {}
    room = console.width - _EDGES - _width("confidence", cells.get("confidence", []))
    shown = []
    for key in columns:
        width = _width(key, cells[key])
        if width <= room and width <= _WIDEST_CELL:
            shown.append(key)
            room -= width
    table = Table(*shown, "confidence", box=box.SIMPLE)
    for index in range(len(rows)):
        table.add_row(*(escape(cells[key][index]) for key in (*shown, "confidence")))
    console.print(table)
    left_out = [key for key in columns if key not in shown]
    if left_out:
        console.print(f"not shown for want of room: {', '.join(left_out)}; billcast catalog {kind} NAME shows a row in full")


def _width(key: str, cells: Sequence[str]) -> int:
    return max(len(text) for text in (key, *cells)) + _BETWEEN


def _cell(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _show_row(row: dict[str, Any], console: Console) -> None:
    table = Table(show_header=False, box=box.SIMPLE)
    for key, value in row.items():
        table.add_row(key, escape(_cell(value)))
    console.print(table)
