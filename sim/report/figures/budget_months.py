"""Error budgets month by month, and the alerts that would have fired."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from sim.report.figures.budget import TARGET_LOOKS, budget_axis
from sim.report.figures.frame import Frame, Ints
from sim.report.figures.targets import targets
from sim.report.style import (
    GREY,
    HEAVY_POINTS,
    VERMILLION,
    budget_left,
    house_style,
    new_figure,
    say_nothing_here,
    shown,
)
from sim.results.burn import ALERT_RULES, Burn, burns
from sim.results.periods import Calendar, period_of
from sim.results.records import RunResult
from sim.results.windows import windows_by_service
from sim.units import NS_PER_DAY, NS_PER_HOUR

_LANE = 0.8  # of the height of a lane is bars


@dataclass(frozen=True)
class MonthBurn:
    """The error budget of one target of one service in one month of the service's zone.

    Parameters
    ----------
    month : YYYY-MM. edges_ns : of the measured windows in it, shape (windows + 1,).
    remaining : share of the month's budget left at each edge, shape (windows + 1,); 1 at first.
    """

    service: str
    target: str
    month: str
    edges_ns: Ints
    remaining: npt.NDArray[np.float64]


def month_burns(result: RunResult) -> list[MonthBurn]:
    """Return the burn of every judged target that has a budget, month by month.

    The budget of a month is (1 - goal) x the requests that left in that month, as in the table by month: it is known at its end.
    """
    calendar = Calendar.of(result.manifest["scenario"])
    windows = windows_by_service(result, ["total", "good_ttft", "good_tpot", "good_e2e"])
    found = []
    for target in targets(result.summary):
        mine = windows[target.service].after_warmup()
        months = calendar.periods(target.service, "month")
        number = period_of(months, mine.start_ns)
        bad = mine.columns["total"] - mine.columns[f"good_{target.latency}"]
        for row in np.unique(number).tolist():
            here = number == row
            budget = (1 - target.goal) * int(mine.columns["total"][here].sum())
            if budget > 0:
                edges = np.append(mine.start_ns[here], mine.end_ns[here][-1:])
                remaining = 1 - np.append(0, np.cumsum(bad[here])) / budget
                found.append(MonthBurn(target.service, target.latency, months[row].label, edges, remaining))
    return found


@house_style()
def budget_by_month(result: RunResult) -> Figure:
    """Draw what is left of each month's error budget, and below it when which alert would have fired, service by service."""
    frame, found, alerts = Frame(result), month_burns(result), burns(result)
    services = list(dict.fromkeys(burn.service for burn in found)) or [""]
    figure = new_figure(_title(found), frame.source, 1.2 + 2.9 * len(services), _legend(found))
    panels = figure.subplots(2 * len(services), 1, squeeze=False, height_ratios=[2.4, 1.0] * len(services))[:, 0]
    heavy = sum(len(burn.remaining) for burn in found) > HEAVY_POINTS
    for number, service in enumerate(services):
        above, below = panels[2 * number], panels[2 * number + 1]
        mine = [burn for burn in found if burn.service == service]
        if not mine:
            say_nothing_here(above, "no target with an error budget")
            say_nothing_here(below, "no alert")
            continue
        above.set_title(f"error budget of the month left, {shown(service)}")
        budget_axis(above, min(float(burn.remaining.min()) for burn in mine))
        for burn in mine:
            color, dashes = TARGET_LOOKS[burn.target]
            above.plot(frame.days(burn.edges_ns), burn.remaining, color=color, linestyle=dashes, linewidth=1.8, rasterized=heavy)
        for edge_ns in sorted({int(burn.edges_ns[0]) for burn in mine})[1:]:
            above.axvline(float(frame.days(edge_ns)), color=GREY, linewidth=0.8, linestyle=(0, (1, 1.5)))
        frame.mark_warmup(above)
        frame.time_axis(above, label=False)
        _draw_alerts(below, frame, [burn for burn in alerts if burn.service == service])
        frame.time_axis(below, label=number == len(services) - 1)
    return figure


def _draw_alerts(axes: Axes, frame: Frame, alerts: list[Burn]) -> None:
    """One lane an alert, in it one bar a target."""
    judged = list(dict.fromkeys(burn.target for burn in alerts))
    height = _LANE / max(len(judged), 1)
    for burn in alerts:
        lane, place = ALERT_RULES.index(burn.rule), judged.index(burn.target)
        begins, ends = (frame.days(burn.firing_ns[:, column]) for column in (0, 1))
        spans = list(zip(begins.tolist(), (ends - begins).tolist(), strict=True))
        top = lane - _LANE / 2 + place * height
        axes.broken_barh(spans, (top, height), facecolor=TARGET_LOOKS[burn.target][0], linewidth=0)
    axes.set_title("alerts that would have fired" if any(len(burn.firing_ns) for burn in alerts) else "no alert would have fired")
    axes.set_yticks(range(len(ALERT_RULES)), [f"{rule.severity} {rule.factor:g}x, {_length(rule.long_ns)}" for rule in ALERT_RULES])
    axes.set_ylim(len(ALERT_RULES) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")


def _length(length_ns: int) -> str:
    return f"{length_ns // NS_PER_HOUR} h" if length_ns < NS_PER_DAY else f"{length_ns // NS_PER_DAY} d"


def _title(found: list[MonthBurn]) -> str:
    if not found:
        return "No target was judged that has an error budget"
    worst = min(found, key=lambda burn: float(burn.remaining[-1]))
    whose = f"{worst.target.upper()}{'' if len({burn.service for burn in found}) == 1 else f' of {shown(worst.service)}'}"
    months = list(dict.fromkeys((burn.service, burn.target, burn.month) for burn in found))
    missed = sum(float(burn.remaining[-1]) < 0 for burn in found)
    if not missed:
        return f"Every month kept a part of every error budget; the least: {whose} in {worst.month}, {_left(worst)}"
    return f"{missed} of {len(months)} monthly error budgets were overspent; worst: {whose} in {worst.month}, {_left(worst)}"


def _left(burn: MonthBurn) -> str:
    return budget_left(float(burn.remaining[-1]))


def _legend(found: list[MonthBurn]) -> list[Artist]:
    handles: list[Artist] = [
        Line2D([], [], color=color, linestyle=dashes, label=target.upper())
        for target, (color, dashes) in TARGET_LOOKS.items()
        if any(burn.target == target for burn in found)
    ]
    handles.append(Patch(facecolor=VERMILLION, alpha=0.08, label="overspent: the month's goal is missed"))
    handles.append(Line2D([], [], color=GREY, linewidth=0.8, linestyle=(0, (1, 1.5)), label="a month begins with a new budget"))
    return handles
