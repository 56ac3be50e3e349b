"""The table of a sweep on a terminal, and what failed in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sim.report.cells import percent_cell
from sim.studies.collect import HIGH, LOW, Collected
from sim.studies.jobs import ERROR, FAILED, OK

_WIDEST_SETTING = 24
_GAP = 2  # one of padding, one of the line between columns


def show_sweep(collected: Collected, console: Console) -> None:
    """Print a row a job: what was swept, how it ended, and as many of the main numbers as the terminal is wide."""
    folder = collected.file.parent
    columns = {"job": [str(row["number"]) for row in collected.rows]}
    for key, name in zip(collected.swept, _short(collected.swept), strict=True):
        columns[name] = [_cut(row.get(key)) for row in collected.rows]
    columns["status"] = [str(row["status"]) for row in collected.rows]
    room = console.width - sum(_width(name, cells) for name, cells in columns.items())
    for name, cells in _numbers(collected.rows).items():
        if _width(name, cells) > room:
            break
        columns[name] = cells
        room -= _width(name, cells)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name in columns:
        table.add_column(escape(name), justify="left" if name == "status" else "right", overflow="fold")
    for cells_of_row in zip(*columns.values(), strict=True):
        table.add_row(*(escape(cell) for cell in cells_of_row))
    console.print(table)
    _show_failed(folder, collected.rows, console)
    done = sum(row["status"] == OK for row in collected.rows)
    console.print(f"{done} of {len(collected.rows)} jobs done", highlight=False)
    if any((row["replications"] or 1) > 1 for row in collected.rows):
        console.print("means over replications ± half of their 95 % Student interval", highlight=False)
    console.print(f"table   {escape(str(collected.file))}", highlight=False, soft_wrap=True)


def _show_failed(folder: Path, rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    for row in rows:
        if row["status"] == FAILED:
            console.print(f"[red]job {row['number']} failed[/red]: {escape(str(row['error']))}", highlight=False)
            console.print(f"  {escape(str(folder / str(row['folder']) / ERROR))}", highlight=False, soft_wrap=True)


def _short(paths: Sequence[str]) -> list[str]:
    """Return the last part of each path, or as many as keep them apart.

    Examples
    --------
    >>> _short(["a.slo.ttft_s", "b.slo.ttft_s", "seed"])
    ['a.slo.ttft_s', 'b.slo.ttft_s', 'seed']
    >>> _short(["services.chat.slo.ttft_s", "seed"])
    ['ttft_s', 'seed']
    """
    for depth in range(1, max((path.count(".") + 1 for path in paths), default=1)):
        names = [".".join(path.split(".")[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return list(paths)


def _cut(value: object) -> str:
    text = "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _WIDEST_SETTING else f"{text[: _WIDEST_SETTING - 3]}..."


def _numbers(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the main numbers, the most important first; of several services and targets the worst."""
    attained = [_worst(row, "slo.", ".attainment", min) for row in rows]
    slowest = [_worst(row, "latency.", ".ttft_s.p95", max) for row in rows]
    each_token = [_worst(row, "latency.", ".tpot_s.p95", max) for row in rows]
    return {
        "bill USD": [_number(row, "bill.total_usd", ",.2f") for row in rows],
        "SLO": [_share(row, path) for row, path in zip(rows, attained, strict=True)],
        "USD/1M tok": [_number(row, "bill.usd_per_1m_tokens", ".4g") for row in rows],
        "TTFT p95 s": [_number(row, path, ".3g") for row, path in zip(rows, slowest, strict=True)],
        "completed": [_number(row, "requests.completed", ",.0f") for row in rows],
        "TPOT p95 s": [_number(row, path, ".3g") for row, path in zip(rows, each_token, strict=True)],
        "kWh": [_number(row, "energy.kwh", ",.4g") for row in rows],
        "wall s": [_number(row, "wall_s", ".3g") for row in rows],
    }


def _worst(row: Mapping[str, Any], first: str, last: str, choose: Callable[..., str]) -> str:
    """Return the path of the worst of all services that are there, "" where there is none."""
    there = [key for key, value in row.items() if key.startswith(first) and key.endswith(last) and value is not None]
    return choose(there, key=lambda key: (row[key], key), default="")


def _number(row: Mapping[str, Any], path: str, form: str) -> str:
    """A number, with half the width of its interval where it is a mean over replications."""
    value = row.get(path)
    if value is None:
        return "-"
    half = _half_width(row, path)
    return format(value, form) if half is None else f"{value:{form}} ±{half:{form if form.endswith('f') else '.2g'}}"


def _half_width(row: Mapping[str, Any], path: str) -> float | None:
    low, high = (row.get(path + end) for end in (LOW, HIGH))
    return None if low is None or high is None else float(high - low) / 2


def _share(row: Mapping[str, Any], path: str) -> str:
    half = _half_width(row, path)
    return percent_cell(row.get(path)) + ("" if half is None else f" ±{half * 100:.2g}")


def _width(name: str, cells: Sequence[str]) -> int:
    return max(len(text) for text in (name, *cells)) + _GAP
