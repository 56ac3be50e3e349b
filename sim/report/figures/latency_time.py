"""Latency percentiles over time, window by window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sim.report.figures.frame import Frame
from sim.report.figures.targets import MEANINGS
from sim.report.style import (
    BLUE,
    HEAVY_POINTS,
    ORANGE,
    PURPLE,
    VERMILLION,
    house_style,
    log_seconds,
    new_figure,
    say_nothing_here,
    seconds,
    shown,
    step_line,
)
from sim.results.records import RunResult
from sim.results.slo import TARGETS

_LOOKS: dict[str, tuple[str, Any]] = {"p50": (BLUE, "solid"), "p95": (ORANGE, (0, (5, 2))), "p99": (PURPLE, (0, (1, 1.2)))}
MOST_STREAMS = 8
_CROWDED = 400  # windows, from which on dashes and steps can no longer be told apart

_Table = dict[str, npt.NDArray[Any]]


def streams_shown(table: Mapping[str, npt.NDArray[Any]]) -> list[int]:
    """Return the streams a figure has rows for, in order of number: all, or the eight with most completions."""
    numbers = np.unique(table["stream"])
    if len(numbers) <= MOST_STREAMS:
        return [int(number) for number in numbers]
    completed = np.array([table["completed"][table["stream"] == number].sum() for number in numbers])
    return sorted(int(number) for number in numbers[np.argsort(-completed, kind="stable")[:MOST_STREAMS]])


@house_style()
def latency_over_time(result: RunResult) -> Figure:
    """Draw p50, p95 and p99 of TTFT, TPOT and E2E per window with the target, one row per stream (service and segment).

    Percentiles of several streams cannot be put together from those of each, so a stream has its own row.
    """
    frame, table = Frame(result), result.table("windows")
    numbers = streams_shown(table)
    rows = [{name: values[table["stream"] == number] for name, values in table.items()} for number in numbers]
    figure = new_figure(_title(frame, table), frame.source, 1.5 + 1.7 * max(len(rows), 1) + 0.5 * (len(rows) <= 1), _legend(frame))
    grid = figure.subplots(max(len(rows), 1), len(TARGETS), squeeze=False)
    spans = {latency: _span(result, table, latency) for latency in TARGETS}
    heavy = sum(len(mine["stream"]) for mine in rows) * len(_LOOKS) * len(TARGETS) > HEAVY_POINTS
    for number, panels in enumerate(grid):
        mine = rows[number] if rows else {}
        for latency, axes in zip(TARGETS, panels, strict=True):
            if number == 0:
                axes.set_title(f"{latency.upper()}, {MEANINGS[latency]}")
            if not rows or np.isnan(mine[f"{latency}_p50_s"]).all():
                say_nothing_here(axes, "nothing completed")
                continue
            _draw(axes, frame, mine, latency, spans[latency], heavy)
            frame.time_axis(axes, label=number == len(grid) - 1, name=latency == "tpot", ticks=6)
        if rows:
            panels[0].set_ylabel(f"{shown(mine['service'][0], 16)}/{shown(mine['segment'][0], 16)}")
    return figure


def _span(result: RunResult, table: _Table, latency: str) -> tuple[float, float]:
    values = np.concatenate([table[f"{latency}_{name}_s"] for name in _LOOKS])
    values = values[np.isfinite(values) & (values > 0)]
    targets = [slo[latency]["threshold"] for slo in result.summary["slo"].values() if latency in slo]
    found = [*values.tolist(), *targets]
    return (min(found), max(found)) if found else (0.01, 1.0)


def _draw(axes: Axes, frame: Frame, mine: _Table, latency: str, span: tuple[float, float], heavy: bool) -> None:
    edges = frame.days(np.append(mine["start_ns"], mine["end_ns"][-1:]))
    crowded = len(edges) > _CROWDED
    for name, (color, dashes) in reversed(_LOOKS.items()):  # the lowest last, so that in a crowd it is not covered
        look = {"linestyle": "solid", "linewidth": 0.5} if crowded else {"linestyle": dashes, "linewidth": 1.5}
        step_line(axes, mine[f"{latency}_{name}_s"], edges, color=color, rasterized=heavy, **look)
    log_seconds(axes, *span, axis="y")
    slo = frame.result.summary["slo"].get(str(mine["service"][0]), {}).get(latency)
    if slo is not None:
        axes.axhline(slo["threshold"], color=VERMILLION, linewidth=1.1, linestyle=(0, (6, 1.5, 1, 1.5)))
    frame.mark_losses(axes)
    frame.mark_warmup(axes)


def _title(frame: Frame, table: _Table) -> str:
    """The window whose p99 was furthest above (or nearest to) its target, else the longest TTFT."""
    best: tuple[float, str] | None = None
    slos = frame.result.summary["slo"]
    judged = any(latency in slo for slo in slos.values() for latency in TARGETS)
    several = len(set(zip(table["service"].tolist(), table["segment"].tolist(), strict=True))) > 1
    for latency in TARGETS:
        values = table[f"{latency}_p99_s"]
        limits = np.array(
            [slos.get(service, {}).get(latency, {}).get("threshold", np.nan) for service in table["service"].tolist()]
        )
        weights = values / limits if judged else values * (latency == "ttft")
        if not np.isfinite(weights).any():
            continue
        row = int(np.nanargmax(weights))
        who = f" of {shown(table['service'][row])}/{shown(table['segment'][row])}" if several else ""
        limit = f" (target {seconds(float(limits[row]))})" if judged else ""
        when = frame.clock(int(table["start_ns"][row]))
        if best is None or weights[row] > best[0]:
            p99 = seconds(float(values[row]))
            best = (float(weights[row]), f"Worst window: {latency.upper()} p99{who} is {p99}{limit} in the window from {when}")
    return best[1] if best else "No request completed in this run"


def _legend(frame: Frame) -> list[Line2D]:
    handles = [
        Line2D([], [], color=color, linestyle=dashes, label=f"{name} of the window") for name, (color, dashes) in _LOOKS.items()
    ]
    handles.append(Line2D([], [], color=VERMILLION, linewidth=1.1, linestyle=(0, (6, 1.5, 1, 1.5)), label="target"))
    if frame.losses():
        handles.append(Line2D([], [], color=VERMILLION, linewidth=0.8, linestyle=(0, (1, 1.5)), label="replicas lost"))
    return handles
