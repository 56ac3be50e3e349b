"""Queue length over time, and the requests that were not served."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from sim.report.figures.frame import Frame
from sim.report.style import (
    BLACK,
    DASHES,
    HEAVY_POINTS,
    ORANGE,
    PURPLE,
    SERIES,
    SKY,
    house_style,
    new_figure,
    say_nothing_here,
    shown,
    step_line,
    thousands,
)
from sim.results.records import RunResult
from sim.results.windows import Windows, windows_by_service

UNSERVED = ("rejected", "abandoned", "failed")
_LOOKS = {"rejected": (ORANGE, "////"), "abandoned": (SKY, "\\\\\\\\"), "failed": (PURPLE, "xxxx")}


@house_style()
def queue_over_time(result: RunResult) -> Figure:
    """Draw the mean number of waiting requests per window and service, and below it the requests of each window
    that were not served, if any.
    """
    frame = Frame(result)
    windows = windows_by_service(frame.result, ["queued_mean", *UNSERVED])
    lost = any(found.columns[kind].sum() for found in windows.values() for kind in UNSERVED)
    figure = new_figure(_title(frame, windows), frame.source, 4.8 if lost else 3.2)
    panels = figure.subplots(2 if lost else 1, 1, squeeze=False, height_ratios=[1.4, 1][: 2 if lost else 1])[:, 0]
    panels[0].set_title("waiting requests, time mean of each window")
    panels[0].set_ylabel("requests")
    if not windows:
        say_nothing_here(panels[0], "no reporting window")
        return figure
    _draw_queue(panels[0], frame, windows)
    if lost:
        panels[1].set_title("requests not served, by the window in which they left")
        panels[1].set_ylabel("requests per window")
        _draw_unserved(panels[1], frame, windows)
    for axes in panels:
        frame.time_axis(axes, label=axes is panels[-1])
    return figure


def _draw_queue(axes: Axes, frame: Frame, windows: Mapping[str, Windows]) -> None:
    edges = frame.days(next(iter(windows.values())).edges_ns)
    ranked = sorted(windows, key=lambda service: -float(windows[service].columns["queued_mean"].sum()))
    lines = [(service, windows[service].columns["queued_mean"]) for service in ranked[: len(SERIES)]]
    if len(ranked) > len(SERIES):
        rest = np.sum([windows[service].columns["queued_mean"] for service in ranked[len(SERIES) - 1 :]], axis=0)
        lines = [*lines[:-1], (f"{len(ranked) - len(SERIES) + 1} other services", rest)]
    heavy = len(edges) * len(lines) > HEAVY_POINTS
    handles = [
        step_line(axes, values, edges, color=color, linestyle=dashes, linewidth=1.5, rasterized=heavy)
        for (_, values), color, dashes in zip(lines, SERIES, DASHES, strict=False)
    ]
    axes.set_ylim(0, max(max(float(values.max()) for _, values in lines) * 1.1, 0.01))
    thousands(axes)
    axes.legend(handles, [shown(name, 24) for name, _ in lines], loc="center left", bbox_to_anchor=(1.0, 0.5))
    frame.mark_losses(axes)


def _draw_unserved(axes: Axes, frame: Frame, windows: Mapping[str, Windows]) -> None:
    edges = frame.days(next(iter(windows.values())).edges_ns)
    below: npt.NDArray[np.float64] = np.zeros(len(edges) - 1)
    handles = []
    for kind in UNSERVED:
        counts = np.sum([found.columns[kind] for found in windows.values()], axis=0)
        if not counts.sum():
            continue
        color, hatch = _LOOKS[kind]
        heavy = len(edges) > HEAVY_POINTS
        axes.stairs(
            below + counts, edges, baseline=below, fill=True, facecolor=color, hatch=hatch, edgecolor="#333333", linewidth=0.4,
            rasterized=heavy,
        )  # fmt: skip
        handles.append(Patch(facecolor=color, hatch=hatch, edgecolor="#333333", label=f"{kind}\n{int(counts.sum()):,}"))
        below = below + counts
    step_line(axes, below, edges, color=BLACK, linewidth=0.6)
    axes.set_ylim(0, float(below.max()) * 1.1)
    thousands(axes)
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5), labelspacing=0.9)
    frame.mark_losses(axes)


def _title(frame: Frame, windows: Mapping[str, Windows]) -> str:
    if not windows:
        return "No request waited in this run"
    queued = np.sum([found.columns["queued_mean"] for found in windows.values()], axis=0)
    lost = int(sum(found.columns[kind].sum() for found in windows.values() for kind in UNSERVED))
    served = f"{lost:,} request{'s' if lost != 1 else ''} not served" if lost else "every request that left was served"
    if not queued.max():
        return f"No request waited; {served}"
    peak = int(np.argmax(queued))
    when = frame.clock(int(next(iter(windows.values())).start_ns[peak]))
    return f"The queue was longest in the window from {when}, {queued[peak]:,.3g} requests on average; {served}"
