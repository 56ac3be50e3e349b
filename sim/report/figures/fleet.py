"""Demand against replicas: what arrived, what was up to serve it, and what was decided and lost meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from sim.report.figures.frame import Frame, Ints
from sim.report.style import (
    BLACK,
    BLUE,
    DASHES,
    HEAVY_POINTS,
    ORANGE,
    PALE,
    SERIES,
    VERMILLION,
    house_style,
    new_figure,
    say_nothing_here,
    shown,
    step_line,
    thousands,
)
from sim.results.records import RunResult
from sim.results.windows import Windows, windows_by_service
from sim.units import NS_PER_S

STATES = ("ready", "booting", "draining")
_LOOKS = {"ready": (BLUE, ""), "booting": (ORANGE, "////"), "draining": (PALE, "\\\\\\\\")}
_MOST_PANELS = 6
_MANY_MARKS = 200
# Above so many changes of the fleet, outlines and hatches would hide what they outline.
_MANY_CHANGES = 400
_MOST_SERVICES = len(SERIES)


@dataclass(frozen=True)
class Replicas:
    """Replicas by state as step functions of time.

    Parameters
    ----------
    times_ns : shape (n,), where a count changes, from 0 on; counts[state] : shape (n,), from that time to the next.
    """

    times_ns: Ints
    counts: dict[str, Ints]

    def at(self, time_ns: int) -> dict[str, int]:
        """Return the counts at a time."""
        index = int(np.searchsorted(self.times_ns, time_ns, side="right")) - 1
        return {state: int(counts[index]) for state, counts in self.counts.items()}

    @property
    def alive(self) -> Ints:
        """All replicas, shape (n,)."""
        total: Ints = np.sum(list(self.counts.values()), axis=0)
        return total


def replicas_over_time(table: Mapping[str, npt.NDArray[np.int64]], horizon_ns: int) -> Replicas:
    """Return booting, ready and draining replicas over time, exact to the nanosecond.

    Parameters
    ----------
    table : columns requested_ns, ready_ns, drain_ns, gone_ns of `replicas` (-1 where not reached), shape (replicas,).
    horizon_ns : end of the run.

    Examples
    --------
    >>> life = {"requested_ns": [0, 5], "ready_ns": [10, -1], "drain_ns": [30, -1], "gone_ns": [40, 20]}
    >>> found = replicas_over_time({name: np.array(value) for name, value in life.items()}, 50)
    >>> [found.at(time) for time in (7, 30)]
    [{'ready': 0, 'booting': 2, 'draining': 0}, {'ready': 0, 'booting': 0, 'draining': 1}]
    """
    gone = np.minimum(table["gone_ns"], horizon_ns)
    ready = np.where(table["ready_ns"] < 0, gone, table["ready_ns"])
    drain = np.where(table["drain_ns"] < 0, gone, table["drain_ns"])
    spans = {"ready": (ready, drain), "booting": (table["requested_ns"], ready), "draining": (drain, gone)}
    times = np.unique(np.concatenate([np.array([0, horizon_ns], np.int64), *(edge for span in spans.values() for edge in span)]))
    counts: dict[str, Ints] = {}
    for state, (begins, ends) in spans.items():
        changes = np.zeros(len(times), np.int64)
        np.add.at(changes, np.searchsorted(times, begins), 1)
        np.add.at(changes, np.searchsorted(times, ends), -1)
        counts[state] = np.cumsum(changes)
    return Replicas(times, counts)


@house_style()
def demand_and_replicas(result: RunResult) -> Figure:
    """Draw arrivals per second by service above ready, booting and draining replicas, with decisions and losses marked.

    The replicas are exact step functions of the `replicas` table; arrivals are means of the reporting windows.
    """
    frame = Frame(result)
    table = result.table("replicas")
    names = list(dict.fromkeys(table["deployment"].tolist())) or [""]
    names = names if len(names) <= _MOST_PANELS else [""]
    windows = windows_by_service(frame.result, ["arrived"])
    rates = {service: _rate(found) for service, found in windows.items()}
    figure = new_figure(_title(frame, rates), frame.source, 3.1 + 1.75 * len(names), _legend(frame), columns=4)
    axes = figure.subplots(1 + len(names), 1, squeeze=False, height_ratios=[1.15, *[1.0] * len(names)])[:, 0]
    _draw_demand(axes[0], frame, windows, rates)
    for panel, name in zip(axes[1:], names, strict=True):
        chosen = np.ones(len(table["replica"]), np.bool_) if name == "" else table["deployment"] == name
        _draw_replicas(panel, frame, replicas_over_time({key: values[chosen] for key, values in table.items()}, frame.horizon_ns))
        _draw_decisions(panel, frame, name)
        _draw_losses(panel, frame, name)
        panel.set_title(f"replicas of {shown(name)}" if name else "replicas of all deployments")
    for panel in axes:
        frame.time_axis(panel, label=panel is axes[-1])
    return figure


def _rate(windows: Windows) -> npt.NDArray[np.float64]:
    return np.asarray(windows.columns["arrived"] / ((windows.end_ns - windows.start_ns) / NS_PER_S), np.float64)


def _title(frame: Frame, rates: Mapping[str, npt.NDArray[np.float64]]) -> str:
    if not rates or not any(values.sum() for values in rates.values()):
        return "No request arrived in this run"
    total = np.sum(list(rates.values()), axis=0)
    found = replicas_over_time(frame.result.table("replicas"), frame.horizon_ns)
    # The last entry is the end of the run itself, when everything ends.
    ready = found.counts["ready"][:-1]
    low, high = (int(ready.min()), int(ready.max())) if len(ready) else (0, 0)
    fleet = f"{high} ready replica{'s' if high != 1 else ''}" if low == high else f"{low} to {high} ready replicas"
    lost = sum(loss.replicas for loss in frame.losses())
    slowest, fastest = f"{total.min():.3g}", f"{total.max():.3g}"
    demand = f"{fastest} requests/s" if slowest == fastest else f"{slowest} to {fastest} requests/s"
    return f"{demand} met {fleet}; {f'{lost:,}' if lost else 'no'} replica{'s' if lost != 1 else ''} lost"


def _draw_demand(axes: Axes, frame: Frame, windows: Mapping[str, Windows], rates: Mapping[str, npt.NDArray[np.float64]]) -> None:
    axes.set_title("arrivals, mean of each window")
    axes.set_ylabel("requests/s")
    if not windows:
        say_nothing_here(axes, "no reporting window")
        return
    edges = frame.days(next(iter(windows.values())).edges_ns)
    ranked = sorted(rates, key=lambda service: -float(rates[service].sum()))
    lines: list[tuple[str, npt.NDArray[np.float64]]] = [(service, rates[service]) for service in ranked[:_MOST_SERVICES]]
    if len(ranked) > _MOST_SERVICES:
        rest = np.sum([rates[service] for service in ranked[_MOST_SERVICES - 1 :]], axis=0)
        lines = [*lines[: _MOST_SERVICES - 1], (f"{len(ranked) - _MOST_SERVICES + 1} other services", rest)]
    heavy = len(edges) * len(lines) > HEAVY_POINTS
    handles = [
        step_line(axes, values, edges, color=color, linestyle=dashes, linewidth=1.5, rasterized=heavy)
        for (_, values), color, dashes in zip(lines, SERIES, DASHES, strict=False)
    ]
    axes.set_ylim(0, max(float(max(values.max() for _, values in lines)) * 1.1, 1e-9))
    axes.legend(handles, [shown(name, 24) for name, _ in lines], loc="center left", bbox_to_anchor=(1.0, 0.5))
    frame.mark_losses(axes)


def _draw_replicas(axes: Axes, frame: Frame, found: Replicas) -> None:
    times = frame.days(found.times_ns)
    heavy, crowded = len(times) * len(STATES) > HEAVY_POINTS, len(times) > _MANY_CHANGES
    below = np.zeros(len(times), np.int64)
    for state in STATES:
        color, hatch = _LOOKS[state]
        above = below + found.counts[state]
        style: dict[str, Any] = {
            "facecolor": color,
            "hatch": None if crowded else hatch,
            "edgecolor": "white" if state == "ready" else "#333333",
        }
        axes.fill_between(times, below, above, step="post", linewidth=0, rasterized=heavy, **style)
        below = above
    axes.step(times[:-1], below[:-1], where="post", color="#333333", linewidth=0.1 if crowded else 0.8, rasterized=heavy)
    axes.set_ylim(0, max(int(below.max()) * 1.3, 1))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    thousands(axes)
    axes.set_ylabel("replicas")


def _draw_decisions(axes: Axes, frame: Frame, name: str) -> None:
    """Mark each decision by a triangle at the number it asks for: up for more, down for fewer."""
    table = frame.result.table("decisions")
    mine = np.ones(len(table["time_ns"]), np.bool_) if name == "" else table["deployment"] == name
    for more, marker in ((True, "^"), (False, "v")):
        chosen = mine & ((table["after"] > table["before"]) == more)
        size, edge = (26, 0.5) if chosen.sum() <= _MANY_MARKS else (3, 0.0)
        axes.scatter(
            frame.days(table["time_ns"][chosen]), table["after"][chosen], marker=marker, s=size, color=BLACK, zorder=4,
            edgecolors="white", linewidths=edge, rasterized=bool(chosen.sum() > _MANY_MARKS),
        )  # fmt: skip


def _draw_losses(axes: Axes, frame: Frame, name: str) -> None:
    frame.mark_losses(axes)
    top = axes.get_ylim()[1]
    times = frame.days([loss.time_ns for loss in frame.losses() if name in ("", loss.deployment)])
    heights = np.full(len(times), top * 0.94)
    axes.scatter(times, heights, marker="X", s=45 if len(times) <= _MANY_MARKS else 16, color=VERMILLION, edgecolors="white",
                 linewidths=0.6, zorder=4, rasterized=len(times) > _MANY_MARKS)  # fmt: skip


def _legend(frame: Frame) -> list[Patch | Line2D]:
    handles: list[Patch | Line2D] = [
        Patch(facecolor=color, hatch=hatch, edgecolor="white" if state == "ready" else "#333333", label=state)
        for state, (color, hatch) in _LOOKS.items()
    ]
    if len(frame.result.table("decisions")["time_ns"]):
        handles.append(Line2D([], [], color=BLACK, linestyle="none", marker="^", label="told to grow to"))
        handles.append(Line2D([], [], color=BLACK, linestyle="none", marker="v", label="told to shrink to"))
    handles += [
        Line2D([], [], color=VERMILLION, marker="X", linewidth=0.8, linestyle=":", label=f"lost: {shown(cause, 20)}")
        for cause in sorted({loss.cause for loss in frame.losses()})
    ]
    return handles
