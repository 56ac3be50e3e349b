"""Cost of work and latency week by week."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from sim.report.figures.frame import Frame
from sim.report.figures.targets import MEANINGS
from sim.report.style import (
    GREY,
    PALE,
    SERIES,
    VERMILLION,
    house_style,
    log_seconds,
    new_figure,
    say_nothing_here,
    seconds,
    shown,
    step_line,
)
from sim.results.periods import Calendar
from sim.results.records import RunResult
from sim.results.slo import TARGETS
from sim.results.trend import TrendPoint, trend

_MOST_SERVICES = 6
_TARGET_DASHES = (0, (6, 1.5, 1, 1.5))
_LOOKS: dict[str, tuple[Any, float]] = {"p50": ("solid", 1.3), "p95": ((0, (5, 2)), 2.0)}


@house_style()
def cost_and_latency_trend(result: RunResult) -> Figure:
    """Draw what a million tokens cost in each week, and p50 and p95 of every latency, by service; the largest services alone."""
    frame = Frame(result)
    found = trend(result, Calendar.of(frame.scenario), "week")
    services = sorted(found, key=lambda service: -sum(point.tokens for point in found[service]))[:_MOST_SERVICES]
    mine = {service: found[service] for service in services}
    colors = dict(zip(services, SERIES, strict=False))
    figure = new_figure(_title(mine), frame.source, 7.4, _legend(colors))
    panels = figure.subplots(1 + len(TARGETS), 1, squeeze=False, height_ratios=[1.3, *[1.0] * len(TARGETS)])[:, 0]
    panels[0].set_title("USD per million tokens, overheads included")
    panels[0].set_ylabel("USD")
    for service, points in mine.items():
        step_line(panels[0], _prices(points), _edges(frame, points), color=colors[service], linewidth=1.8)
    top = max((float(np.nanmax(_prices(points), initial=0.0)) for points in mine.values()), default=0.0)
    panels[0].set_ylim(0, top * 1.1 or 1.0)
    for latency, axes in zip(TARGETS, panels[1:], strict=True):
        axes.set_title(f"{latency.upper()}, {MEANINGS[latency]}")
        _draw_latency(axes, frame, mine, latency, colors)
    for axes in panels:
        frame.time_axis(axes, label=axes is panels[-1])
        for period in {(p.start_ns, p.end_ns) for points in mine.values() for p in points if p.partial}:
            axes.axvspan(*frame.days(list(period)), color=PALE, alpha=0.35, linewidth=0, zorder=0)
    return figure


def _draw_latency(axes: Axes, frame: Frame, mine: dict[str, list[TrendPoint]], latency: str, colors: dict[str, str]) -> None:
    drawn = [value for points in mine.values() for name in _LOOKS for value in _latencies(points, latency, name) if value > 0]
    if not drawn:
        say_nothing_here(axes, "nothing completed")
        return
    for service, points in mine.items():
        for name, (dashes, width) in _LOOKS.items():
            values, edges = _latencies(points, latency, name), _edges(frame, points)
            step_line(axes, values, edges, color=colors[service], linestyle=dashes, linewidth=width)
    slo = frame.result.summary["slo"].get(next(iter(mine)), {}).get(latency)
    if len(mine) == 1 and slo is not None:
        axes.axhline(slo["threshold"], color=VERMILLION, linewidth=1.1, linestyle=_TARGET_DASHES)
        drawn.append(slo["threshold"])
    log_seconds(axes, min(drawn) / 1.1, max(drawn) * 1.1, axis="y")


def _edges(frame: Frame, points: list[TrendPoint]) -> npt.NDArray[np.float64]:
    return frame.days([*(point.start_ns for point in points), points[-1].end_ns])


def _prices(points: list[TrendPoint]) -> npt.NDArray[np.float64]:
    return np.array([np.nan if point.usd_per_1m_tokens is None else point.usd_per_1m_tokens for point in points])


def _latencies(points: list[TrendPoint], latency: str, name: str) -> npt.NDArray[np.float64]:
    values = [point.latency_s[latency][name] for point in points]
    return np.array([np.nan if value is None else value for value in values])


def _title(mine: dict[str, list[TrendPoint]]) -> str:
    """How the cost of a million tokens and the p95 of TTFT moved, of the largest service, over its whole weeks."""
    for service, points in mine.items():
        whole = [point for point in points if not point.partial and point.usd_per_1m_tokens is not None]
        if len(whole) > 1:
            first, last = whole[0], whole[-1]
            cost = f"from {first.usd_per_1m_tokens:.3g} to {last.usd_per_1m_tokens:.3g} USD per million tokens"
            ttft = [point.latency_s["ttft"]["p95"] for point in (first, last)]
            moved = (
                f", TTFT p95 from {seconds(ttft[0])} to {seconds(ttft[1])}" if ttft[0] is not None and ttft[1] is not None else ""
            )
            whose = f"{shown(service)} went " if len(mine) > 1 else "Whole weeks went "
            return f"{whose}{cost}{moved}"
    return "No two whole weeks to compare"


def _legend(colors: dict[str, str]) -> list[Artist]:
    handles: list[Artist] = []
    if len(colors) > 1:
        handles += [Patch(facecolor=color, label=shown(service, 24)) for service, color in colors.items()]
    color = GREY if len(colors) > 1 else SERIES[0]
    handles += [
        Line2D([], [], color=color, linestyle=dashes, linewidth=width, label=f"{name} of the week")
        for name, (dashes, width) in _LOOKS.items()
    ]
    if len(colors) == 1:
        handles.append(Line2D([], [], color=VERMILLION, linewidth=1.1, linestyle=_TARGET_DASHES, label="target"))
    handles.append(Patch(facecolor=PALE, alpha=0.35, label="week only partly in the run"))
    return handles
