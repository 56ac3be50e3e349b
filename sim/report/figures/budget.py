"""SLO burn-down: how much of each error budget is left as the run goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator

from sim.report.figures.frame import Frame, Ints
from sim.report.figures.targets import Target, targets
from sim.report.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    HEAVY_POINTS,
    ORANGE,
    VERMILLION,
    budget_left,
    house_style,
    new_figure,
    percent_axis,
    say_nothing_here,
    seconds,
    shown,
)
from sim.results.records import RunResult
from sim.results.windows import windows_by_service

TARGET_LOOKS: dict[str, tuple[str, Any]] = {"ttft": (BLUE, "solid"), "tpot": (ORANGE, (0, (5, 2))), "e2e": (GREEN, (0, (1, 1.2)))}
_WORST = 3
_WORTH_MARKING, _WORTH_SAYING = 0.05, 0.2
_NEAR_THE_EDGE = 0.2  # of the height of a panel
_TICKS = (1.0, 0.5, 0.0, -0.5, -1.0, -3.0, -10.0, -30.0, -100.0, -300.0, -1000.0)


@dataclass(frozen=True)
class BurnDown:
    """The error budget of one target over the measured windows of a run.

    Parameters
    ----------
    target : whose budget. budget : bad requests allowed in the whole run, (1 - goal) x total.
    edges_ns : shape (windows + 1,). bad : bad requests of each window, shape (windows,).
    remaining : share of the budget left at each edge, shape (windows + 1,); 1 at first, 1 - bad/budget at the end.
    allowed : what an even burn would have left at each edge, shape (windows + 1,): 1 at first, 0 at the end.
    """

    target: Target
    budget: float
    edges_ns: Ints
    bad: Ints
    remaining: npt.NDArray[np.float64]
    allowed: npt.NDArray[np.float64]

    def worst(self) -> list[int]:
        """Return the windows that burnt most, the worst first: at most three, and none below 5 % of the budget."""
        order = np.argsort(-self.bad, kind="stable")[:_WORST]
        return [int(number) for number in order if self.bad[number] >= _WORTH_MARKING * self.budget]


def burn_downs(result: RunResult) -> list[BurnDown]:
    """Return the burn-down of every judged target that has a budget; a goal of 100 % allows nothing and has none.

    A request is bad for a target when it left and was not within it: failed, rejected and abandoned ones are bad for every target.
    Budget and burn are those of the Google SRE workbook ("Alerting on SLOs"), over the whole run.
    """
    windows = windows_by_service(result, ["total", "good_ttft", "good_tpot", "good_e2e"])
    found = []
    for target in targets(result.summary):
        mine = windows[target.service]
        measured = mine.measured
        total = mine.columns["total"][measured]
        bad = total - mine.columns[f"good_{target.latency}"][measured]
        budget = (1 - target.goal) * int(total.sum())
        if budget <= 0:
            continue
        edges = np.append(mine.start_ns[measured], mine.end_ns[measured][-1:])
        remaining = 1 - np.append(0, np.cumsum(bad)) / budget
        found.append(BurnDown(target, budget, edges, bad, remaining, 1 - np.append(0, np.cumsum(total)) / total.sum()))
    return found


@house_style()
def slo_burn_down(result: RunResult) -> Figure:
    """Draw what is left of each target's error budget, one panel per service, with the windows that burnt most marked."""
    frame, found = Frame(result), burn_downs(result)
    services = list(dict.fromkeys(burn.target.service for burn in found)) or [""]
    figure = new_figure(_title(result, found), frame.source, 1.5 + 1.8 * len(services) + 0.7 * (len(services) == 1), _legend(frame))
    panels = figure.subplots(len(services), 1, squeeze=False)[:, 0]
    heavy = sum(len(burn.remaining) for burn in found) > HEAVY_POINTS
    for axes, service in zip(panels, services, strict=True):
        mine = [burn for burn in found if burn.target.service == service]
        if not mine:
            say_nothing_here(axes, "no target with an error budget")
            continue
        _draw(axes, frame, mine, heavy)
        axes.set_title(f"error budget left, {shown(service)}")
        frame.time_axis(axes, label=axes is panels[-1])
    return figure


def _draw(axes: Axes, frame: Frame, burns: list[BurnDown], heavy: bool) -> None:
    budget_axis(axes, min(float(burn.remaining.min()) for burn in burns))
    frame.mark_losses(axes)
    frame.mark_warmup(axes)
    axes.plot(frame.days(burns[0].edges_ns), burns[0].allowed, color=GREY, linewidth=1.0, linestyle=(0, (1, 2.5)), rasterized=heavy)
    handles, names = [], []
    for burn in burns:
        color, dashes = TARGET_LOOKS[burn.target.latency]
        times = frame.days(burn.edges_ns)
        handles += axes.plot(times, burn.remaining, color=color, linestyle=dashes, linewidth=1.8, rasterized=heavy)
        names.append(
            f"{burn.target.latency.upper()} within {seconds(burn.target.threshold_s)}\n{budget_left(float(burn.remaining[-1]))}"
        )
        for number in burn.worst():
            axes.plot(times[number : number + 2], burn.remaining[number : number + 2], color=color, linewidth=4.5, alpha=0.45)
            axes.plot(times[number + 1], burn.remaining[number + 1], marker="o", color=color, markersize=5, markeredgecolor="white")
    _name_the_worst(axes, frame, burns)
    axes.legend(handles, names, loc="center left", bbox_to_anchor=(1.0, 0.5), labelspacing=0.9)


def budget_axis(axes: Axes, lowest: float) -> None:
    """Make the y axis one of error budgets: from all of it down to the lowest that is drawn, with what is overspent shaded."""
    bottom = min(-0.12, lowest * 1.3)
    if bottom < -2:
        # A budget overspent ten times would flatten everything else: below -100 % the scale is logarithmic.
        axes.set_yscale("symlog", linthresh=1.0, linscale=0.7)
        axes.yaxis.set_major_locator(FixedLocator([tick for tick in _TICKS if tick >= bottom]))
        axes.yaxis.set_minor_locator(FixedLocator([]))
    axes.set_ylim(bottom, 1.06)
    percent_axis(axes)
    axes.axhspan(bottom, 0, color=VERMILLION, alpha=0.08, linewidth=0)
    axes.axhline(0, color=BLACK, linewidth=0.8)


def _name_the_worst(axes: Axes, frame: Frame, burns: list[BurnDown]) -> None:
    """Say how much the window that burnt most of any budget burnt, if that was a good part."""
    shares = [float(burn.bad.max()) / burn.budget for burn in burns]
    burn = burns[int(np.argmax(shares))]
    if max(shares) < _WORTH_SAYING:
        return
    number = burn.worst()[0]
    at = (float(frame.days(burn.edges_ns[number + 1])), float(burn.remaining[number + 1]))
    height = (axes.transScale + axes.transLimits).transform(at)[1]
    # The line falls from the upper left, so the words have room above right of its end, and below left of it but at the edge.
    left = number + 1 > len(burn.bad) / 2
    axes.annotate(
        f"{100 * max(shares):,.0f} % of the budget in one window",
        at,
        xytext=(-9, 0) if left else (7, 5),
        textcoords="offset points",
        ha="right" if left else "left",
        va="bottom" if not left or height < _NEAR_THE_EDGE else "top",
        fontsize=7.5,
    )


def _title(result: RunResult, found: list[BurnDown]) -> str:
    if not found:
        judged = targets(result.summary)
        return "A goal of 100 % leaves no error budget to burn" if judged else "No target was judged, so no error budget was burnt"
    worst = min(found, key=lambda burn: float(burn.remaining[-1]))
    name = f"{worst.target.latency.upper()} budget"
    if len({burn.target.service for burn in found}) > 1:
        name += f" of {shown(worst.target.service)}"
    if worst.remaining[-1] >= 0:
        whose = f"Every target keeps part of its error budget: the {name} has" if len(found) > 1 else f"The {name} has"
        return f"{whose} {budget_left(float(worst.remaining[-1]))} at the end"
    spent = int(np.argmax(worst.remaining < 0))
    when = Frame(result).clock(int(worst.edges_ns[spent]))
    return f"The {name} was spent by {when}, {budget_left(float(worst.remaining[-1]))} at the end: the goal is missed"


def _legend(frame: Frame) -> list[Artist]:
    handles: list[Artist] = [
        Patch(facecolor=VERMILLION, alpha=0.08, label="overspent: the goal is missed"),
        Line2D([], [], color=GREY, linestyle=(0, (1, 2.5)), label="an even burn"),
        Line2D([], [], color=BLACK, marker="o", linewidth=4.5, alpha=0.45, label="windows that burnt most"),
    ]
    if frame.losses():
        handles.append(Line2D([], [], color=VERMILLION, linewidth=0.8, linestyle=(0, (1, 1.5)), label="replicas lost"))
    return handles
