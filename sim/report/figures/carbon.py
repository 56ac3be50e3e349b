"""When the fleet draws its energy, when the grid is clean, and what a million tokens emit, by hour."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MultipleLocator

from sim.report.carbon_hours import CarbonHours, carbon_hours, spans_text
from sim.report.cells import significant
from sim.report.figures.frame import Frame
from sim.report.style import (
    BLACK,
    BLUE,
    GREEN,
    VERMILLION,
    house_style,
    new_figure,
    say_nothing_here,
    share_text,
    step_line,
    thousands,
)
from sim.results.records import RunResult

_CLEAN_ALPHA = 0.16
_TICKS_H = 3
_MOST_TICKS = 12
_MOST_SPANS = 2
_EVEN = 0.005  # a load this near to an even one is called even


@house_style()
def carbon_and_load(result: RunResult) -> Figure:
    """Draw energy, intensity of the grid and carbon of a million tokens by hour of the day (of the run where it is under two days).

    Without energy the figure says so; where the intensity never changes, its panel is left out and its number is in the title.
    """
    frame, found = Frame(result), carbon_hours(result)
    if not found.total.nano_kwh:
        figure = new_figure("No energy was drawn in this run", frame.source, 3.0)
        say_nothing_here(figure.subplots(), "no energy was drawn")
        return figure
    clean = found.cleanest()
    legend = [Patch(facecolor=GREEN, alpha=_CLEAN_ALPHA, label="the cleanest hours, one in four")] if clean else []
    figure = new_figure(_title(found), frame.source, 5.8 if clean else 4.4, legend)
    panels = figure.subplots(3 if clean else 2, 1, sharex=True)
    edges = np.arange(len(found.hours) + 1, dtype=np.float64)
    kwh = np.array([hour.kwh / hour.length_h if hour.length_h else 0.0 for hour in found.hours])
    panels[0].stairs(kwh, edges, fill=True, facecolor=BLUE, alpha=0.35)
    panels[0].stairs(kwh, edges, color=BLUE, linewidth=1.4)
    panels[0].set_title(
        "Load: kWh in an hour at the meter, mean of the days" if found.folded else "Load: kWh in an hour at the meter"
    )
    _scale(panels[0], kwh, "kWh")
    if clean:
        _line(panels[1], [hour.g_per_kwh for hour in found.hours], edges, VERMILLION, "g/kWh", "nothing was drawn")
        panels[1].set_title("Grid: g CO2 per kWh, mean of what was drawn")
    panels[-1].set_title("Both: g CO2 per 1M tokens, prompt and output")
    no_tokens = "reporting windows lie in two hours" if found.total.tokens is None else "no tokens"
    _line(panels[-1], [hour.g_per_1m_tokens for hour in found.hours], edges, BLACK, "g", no_tokens)
    for axes in panels:
        for first, last in found.spans(clean):
            axes.axvspan(first, last, color=GREEN, alpha=_CLEAN_ALPHA, linewidth=0, zorder=0)
    _hours_axis(panels[-1], found)
    return figure


def _line(axes: Axes, values: Sequence[float | None], edges: np.ndarray, color: str, unit: str, empty: str) -> None:
    drawn = np.array([np.nan if value is None else value for value in values])
    if np.isnan(drawn).all():
        axes.text(0.5, 0.5, empty, transform=axes.transAxes, ha="center", va="center")
        axes.set_yticks([])
        return
    step_line(axes, drawn, edges, color=color, linewidth=1.8)
    _scale(axes, drawn, unit)


def _scale(axes: Axes, values: np.ndarray, unit: str) -> None:
    low, high = min(float(np.nanmin(values)), 0.0), max(float(np.nanmax(values)), 0.0)
    axes.set_ylim(low * 1.1, high * 1.1 or 1.0)
    axes.set_ylabel(unit)
    thousands(axes)


def _hours_axis(axes: Axes, found: CarbonHours) -> None:
    axes.set_xlim(0, len(found.hours))
    if found.folded:
        axes.xaxis.set_major_locator(MultipleLocator(_TICKS_H))
        axes.xaxis.set_major_formatter(lambda value, _: f"{int(value):02}:00")
        axes.set_xlabel(f"hour of the day, {found.zone}")
        return
    every = max(-(-len(found.hours) // _MOST_TICKS), 1)
    places = range(0, len(found.hours), every)
    # A label is "2026-09-18 12:00+00:00". The day is said once and the offset never; the hour that comes twice is two steps.
    days, clocks = zip(*(found.hours[place].label[: len("YYYY-MM-DD HH:MM")].split(" ") for place in places), strict=True)
    named = [f"{clock}\n{day}" if day not in days[:at] else clock for at, (day, clock) in enumerate(zip(days, clocks, strict=True))]
    axes.set_xticks(list(places), named)
    axes.set_xlabel(f"hour of the run, {found.zone}")


def _title(found: CarbonHours) -> str:
    total, clean, even = found.total, found.cleanest(), found.even_g_per_kwh
    grams = f"{significant(total.g_per_kwh)} g CO2"
    if not clean or not even or total.g_per_kwh is None:
        per_tokens = f"; 1M tokens emit {significant(total.g_per_1m_tokens)} g" if total.tokens else ""
        return f"A kWh emits {grams} at any hour{per_tokens}"
    more = total.g_per_kwh / even - 1.0
    moved = "as much as" if abs(more) < _EVEN else f"{share_text(abs(more), 1)} {'more' if more > 0 else 'less'} than"
    short = found.folded and len(found.spans(clean)) <= _MOST_SPANS
    return f"A kWh emits {grams}, {moved} with an even load{f'; cleanest: {spans_text(found, clean)}' if short else ''}"
