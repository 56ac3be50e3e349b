"""Distributions of TTFT, TPOT and E2E by service, with targets and attainment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sim.report.figures.frame import Frame
from sim.report.figures.targets import MEANINGS, finding
from sim.report.style import (
    BLUE,
    VERMILLION,
    house_style,
    log_seconds,
    new_figure,
    percent,
    percent_axis,
    say_nothing_here,
    seconds,
    shown,
)
from sim.results.records import RunResult
from sim.results.slo import TARGETS, counts_by_service
from sim.units import NS_PER_S

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Cdf:
    """Share of all requests that left whose latency was at most so long.

    Requests that were not served never had a latency, so the curve ends below 1 where there were any; answers of one token have no
    TPOT and cannot miss its target, so that curve starts above 0. Read at a target it is the SLO attainment, up to one bin.

    Parameters
    ----------
    edges_s : shape (n,), upper edges of the bins in seconds, after the lower edge of the first. shares : shape (n,).
    """

    edges_s: _Floats
    shares: _Floats

    def at(self, value_s: float) -> float:
        """Return the share at a value, linear inside a bin."""
        return float(np.interp(value_s, self.edges_s, self.shares))


def cdfs(result: RunResult) -> dict[tuple[str, str], Cdf]:
    """Return the distribution of every (service, latency) with at least one completion, over the measured time."""
    counts = counts_by_service(result)
    singles = result.sql("""
        SELECT service, sum(completed) - sum(tpot_count) AS singles FROM windows WHERE measured GROUP BY service
    """)
    single = {str(name): int(number) for name, number in zip(singles["service"], singles["singles"], strict=True)}
    table = result.sql("""
        SELECT service, latency, low_ns, high_ns, sum(count) AS count FROM histograms GROUP BY ALL ORDER BY ALL
    """)
    found = {}
    for service, latency in dict.fromkeys(zip(table["service"].tolist(), table["latency"].tolist(), strict=True)):
        mine = (table["service"] == service) & (table["latency"] == latency)
        before = single[service] if latency == "tpot" else 0
        edges, below = _steps(table["low_ns"][mine], table["high_ns"][mine], table["count"][mine])
        found[service, latency] = Cdf(edges / NS_PER_S, (before + below) / counts[service]["total"])
    return found


def _steps(low: _Floats, high: _Floats, count: npt.NDArray[np.int64]) -> tuple[_Floats, _Floats]:
    """Corners of the cumulative count: both edges of each bin, so that it is flat between bins that do not touch."""
    above = np.cumsum(count).astype(np.float64)
    edges = np.column_stack([low, high]).ravel()
    below = np.column_stack([above - count, above]).ravel()
    keep = np.append(True, (np.diff(edges) > 0) | (np.diff(below) > 0))
    return edges[keep], below[keep]


@house_style()
def latency_cdfs(result: RunResult) -> Figure:
    """Draw the distributions of TTFT, TPOT and E2E, one row per service, with target, attainment, p50 and p99."""
    frame = Frame(result)
    services = list(result.summary["latency"]) or [""]
    figure = new_figure(finding(result.summary), frame.source, 1.5 + 1.75 * len(services) + 0.6 * (len(services) == 1), _legend())
    grid = figure.subplots(len(services), len(TARGETS), squeeze=False)
    curves = cdfs(result)
    spans = {latency: _span(result, curves, latency) for latency in TARGETS}
    for row, service in enumerate(services):
        for column, latency in enumerate(TARGETS):
            axes = grid[row, column]
            slo = result.summary["slo"].get(service, {}).get(latency)
            _draw(axes, curves.get((service, latency)), slo, spans[latency])
            axes.set_title(_words(latency, slo, head=row == 0), fontsize=8)
            if column == 0:
                axes.set_ylabel(f"{shown(service, 20)}\nshare of requests" if service else "share of requests")
            axes.tick_params(labelbottom=row == len(services) - 1, labelleft=column == 0)
    return figure


def _span(result: RunResult, curves: dict[tuple[str, str], Cdf], latency: str) -> tuple[float, float]:
    """The range all panels of a latency share: from a thousandth of the requests to all, and the targets."""
    found = [curve for (_, name), curve in curves.items() if name == latency]
    lows = [float(curve.edges_s[np.searchsorted(curve.shares, curve.shares[0] + 1e-3)]) for curve in found]
    ends = [float(curve.edges_s[-1]) for curve in found]
    targets = [slo[latency]["threshold"] for slo in result.summary["slo"].values() if latency in slo]
    return (min(lows + targets), max(ends + targets)) if lows or targets else (0.01, 1.0)


def _draw(axes: Axes, curve: Cdf | None, slo: dict[str, Any] | None, span: tuple[float, float]) -> None:
    if curve is None:
        say_nothing_here(axes, "nothing completed")
        return
    log_seconds(axes, *span)
    axes.set_ylim(0, 1.04)
    percent_axis(axes)
    axes.plot(curve.edges_s, curve.shares, color=BLUE)
    for share, marker in ((0.5, "o"), (0.99, "s")):
        if curve.shares[0] < share <= curve.shares[-1]:
            value = float(np.interp(share, curve.shares, curve.edges_s))
            axes.plot([value], [share], marker=marker, color=BLUE, markersize=5, markeredgecolor="white", zorder=4)
    if slo is not None and slo["attainment"] is not None:
        axes.axvline(slo["threshold"], color=VERMILLION, linestyle=(0, (4, 2)), linewidth=1.2)
        axes.plot([slo["threshold"]], [slo["attainment"]], marker="D", color=VERMILLION, markeredgecolor="white", zorder=5)


def _words(latency: str, slo: dict[str, Any] | None, *, head: bool) -> str:
    lines = [f"{latency.upper()}, {MEANINGS[latency]}"] if head else []
    if slo is not None and slo["attainment"] is not None:
        verdict = "met" if slo["met"] else "MISSED"
        lines.append(f"{percent(slo['attainment'])} within {seconds(slo['threshold'])} (goal {percent(slo['goal'])}: {verdict})")
    return "\n".join(lines)


def _legend() -> list[Line2D]:
    return [
        Line2D([], [], color=BLUE, marker="o", linestyle="none", label="half of the requests"),
        Line2D([], [], color=BLUE, marker="s", linestyle="none", label="99 % of the requests"),
        Line2D([], [], color=VERMILLION, marker="D", linestyle=(0, (4, 2)), label="target and attainment"),
    ]
