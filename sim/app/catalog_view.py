"""The catalog on a terminal: what there is, a table of one kind, one row in full."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, Field, fields
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sim.app.catalog_rows import CHANGED, NEW, Row, catalog_rows, rows_like, summary_of, unit_of
from sim.catalog.loader import KINDS, Catalog, load_catalog
from sim.domain.hardware import Accelerator, InstanceType
from sim.errors import Problems
from sim.registry import groups, names, registered
from sim.scenario.plain import import_choices

# Long texts are for the view of one row.
_ONLY_IN_FULL = ("source", "notes", "date", "site_provenance")
# What one looks for first.
_FIRST = {"models": ("parameters", "active_linear_parameters"), "fits": ("validity", "band")}
_WIDEST_CELL = 46
POLICIES = "policies"
_BETWEEN, _EDGES = 3, 1


def show_catalog(what: str | None, name: str | None, overlay: str | None, console: Console) -> None:
    """Print the kinds of the catalog, the rows of a kind, the rows whose names contain a text, or one row.

    Parameters
    ----------
    what : a kind, for instance "instances"; None for the list of kinds. name : a row of it, or a part of names; None for all.
    overlay : path of a user's catalog file, or None.

    Raises
    ------
    InputError : no such kind or row (the nearest is named), or an overlay with problems.
    """
    catalog, package = load_catalog(overlay), load_catalog()
    if what is None:
        _show_kinds(catalog, package, console)
        return
    check_kind(what)
    if what == POLICIES:
        show_policies(name, console)
        return
    rows = catalog_rows(what, catalog, package)
    found = rows if name is None else rows_like(what, name, rows)
    if name is not None and len(found) == 1:
        _show_row(found[0], catalog, console)
    else:
        _show_rows(what, found, catalog, console)


def catalog_json(what: str | None, name: str | None, overlay: str | None) -> Any:
    """Return what `show_catalog` shows as plain values: numbers of rows by kind, a list of rows, or one row.

    Examples
    --------
    >>> catalog_json(None, None, None)["grids"]["what"]
    'Electricity at a cloud region.'
    >>> catalog_json("accelerators", "tpu-v5p", None)["largest_job"]
    6144
    """
    catalog, package = load_catalog(overlay), load_catalog()
    if what is None:
        return {kind: {"rows": len(catalog.table(kind)), "what": summary_of(kind)} for kind in KINDS}
    problems = Problems()
    problems.check(what in KINDS, "catalog", what, "the catalog has no such kind", choices=tuple(KINDS))
    problems.raise_if_any()
    rows = catalog_rows(what, catalog, package)
    found = rows if name is None else rows_like(what, name, rows)
    exact = name is not None and len(found) == 1
    return found[0].to_dict() if exact else [row.to_dict() for row in found]


def check_kind(what: str) -> None:
    """Refuse what is neither a kind of rows nor the policies; the nearest is named."""
    problems = Problems()
    problems.check(what in (*KINDS, POLICIES), "catalog", what, "the catalog has no such kind", choices=(*KINDS, POLICIES))
    problems.raise_if_any()


def _show_kinds(catalog: Catalog, package: Catalog, console: Console) -> None:
    table = Table("kind", "rows", "what they are", box=box.SIMPLE)
    for kind in KINDS:
        rows = catalog_rows(kind, catalog, package)
        states = [f"{count} {state}" for state in (NEW, CHANGED) if (count := sum(row.state == state for row in rows))]
        table.add_row(kind, str(len(rows)), escape(summary_of(kind) + (f" Overlay: {', '.join(states)}." if states else "")))
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


def _cells(row: Row, flat: dict[str, Any], catalog: Catalog) -> dict[str, Any]:
    """Return the cells of a row in a table, what one looks for first; a price is the latest of the first region."""
    first: dict[str, Any] = {"name": row.name}
    if row.state:
        first["overlay"] = row.state
    known = {**flat, **row.derived}
    if isinstance(row.row, InstanceType):
        instance = row.row
        region = next(iter(instance.on_demand), None)
        first["usd_per_hour"] = "none" if region is None else f"{instance.on_demand[region][-1].usd_per_hour} {region}"
        first["accelerator"] = f"{instance.accelerators} x {instance.accelerator}"
        known = {key: value for key, value in known.items() if key not in ("accelerators", "on_demand")}
    if isinstance(row.row, Accelerator):
        first["bf16_tflops"] = row.row.dense_tflops.get("bf16", "-")
    first |= {key: known[key] for key in _FIRST.get(row.kind, ())}
    return first | {key: value for key, value in known.items() if key not in first and not isinstance(value, list)}


def _show_rows(kind: str, rows: Sequence[Row], catalog: Catalog, console: Console) -> None:
    """Print a table with as many columns as the terminal is wide; the confidence of a row is always one of them."""
    flat = {str(each["name"]): each for each in catalog.rows(kind)}
    cells = [_cells(row, flat[row.name], catalog) for row in rows]
    columns = list(dict.fromkeys(key for each in cells for key in each if key not in (*_ONLY_IN_FULL, "confidence")))
    texts = {key: [_cell(each.get(key, "")) for each in cells] for key in (*columns, "confidence")}
    room = console.width - _EDGES - _width("confidence", texts["confidence"])
    shown = []
    for key in columns:
        width = _width(key, texts[key])
        if width <= room and width <= _WIDEST_CELL:
            shown.append(key)
            room -= width
    table = Table(*shown, "confidence", box=box.SIMPLE)
    for index in range(len(rows)):
        table.add_row(*(escape(texts[key][index]) for key in (*shown, "confidence")))
    console.print(table)
    left_out = [key for key in columns if key not in shown]
    if left_out:
        console.print(f"not shown for want of room: {', '.join(left_out)}; billcast catalog {kind} NAME shows a row in full")


def _width(key: str, cells: Sequence[str]) -> int:
    return max(len(text) for text in (key, *cells)) + _BETWEEN


def _cell(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _exact(value: Any) -> str:
    """Return a value as it is written in a file; "-" for none."""
    if isinstance(value, float):
        return f"{value:.12g}"
    if isinstance(value, list):
        return ", ".join(_exact(item) for item in value) or "-"
    return str(value) if value != "" else "-"


def _show_row(row: Row, catalog: Catalog, console: Console) -> None:
    """Print every field with its unit, what follows from the row, and where each part of it comes from."""
    [flat] = [each for each in catalog.rows(row.kind) if each["name"] == row.name]
    table = Table("field", "value", "unit", box=box.SIMPLE)
    for key, value in flat.items():
        if key == "on_demand" and isinstance(row.row, InstanceType):
            for region, prices in row.row.on_demand.items():
                for price in prices:
                    where = price.provenance
                    table.add_row(f"price {region}", escape(f"{price.usd_per_hour} since {price.valid_from}"), "USD/h")
                    table.add_row("", escape(f"{where.source} ({where.date}, {where.confidence})"), "")
            continue
        was = f" (package: {_exact(row.before[key])})" if key in row.before else ""
        table.add_row(key, escape(_exact(value) + was), unit_of(key))
    if row.state:
        table.add_row("overlay", row.state, "")
    for key, value in row.derived.items():
        if key == "step_times":
            for about, types in _step_times(value).items():
                table.add_row("step times", escape(f"{about}: {', '.join(types)}"), "")
        else:
            table.add_row(key, escape(_exact(value)), unit_of(key))
    console.print(table)


def _step_times(found: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """Return the weight types that have step times, by kernels, validity and band."""
    types: dict[str, list[str]] = {}
    for fit in found:
        types.setdefault(f"{fit['kernels']}, {fit['validity']}, +-{fit['band']:.0%}", []).append(fit["weight_type"])
    return types or {"none": []}
