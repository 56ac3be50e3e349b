"""Where the money went, day by day or hour by hour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from sim.report.figures.frame import Frame, Ints
from sim.report.style import (
    BLACK,
    PALE,
    SERIES,
    VERMILLION,
    house_style,
    new_figure,
    say_nothing_here,
    share_text,
    shown,
    thousands,
)
from sim.results.numbers import SHARED, UNASSIGNED
from sim.results.records import RunResult
from sim.units import NANO_PER_USD, NS_PER_DAY, usd

OVERHEADS = ("booting", "idle", "draining", "lost")
_LOOKS = {
    "booting": (PALE, "////"),
    "idle": ("#f2f2f2", ""),
    "draining": (PALE, "\\\\\\\\"),
    "lost": (VERMILLION, "xxxx"),
    SHARED: ("#d9d9d9", "...."),
}
_MOST_SERVICES = len(SERIES) - 1
_BUSY = "busy: "
_MOST_APART = 63  # buckets with a line between them
_DAY_LETTERS, _HOUR_LETTERS = len("YYYY-MM-DD"), len("YYYY-MM-DDTHH:MM+HH:MM")


@dataclass(frozen=True)
class CostStack:
    """The bill by calendar day or hour of the account's zone, and by use.

    Parameters
    ----------
    unit : "day" or "hour". edges : the buckets' starts and the last end, shape (buckets + 1,); hours in UTC.
    amounts_nano : label to nano-dollars, shape (buckets,); labels are "busy: <service>", the overheads and
        "shared" (what is charged without a machine), and together they are the invoice.
    """

    unit: str
    edges: list[datetime]
    amounts_nano: dict[str, Ints]


def cost_by_use(result: RunResult) -> CostStack:
    """Return the parts of the bill by bucket: days, or hours where the run is under two days.

    Busy time is split by the service that pays; beyond seven services the smallest are one.
    """
    frame = Frame(result)
    unit, letters = ("hour", _HOUR_LETTERS) if frame.horizon_ns < 2 * NS_PER_DAY else ("day", _DAY_LETTERS)
    table = result.sql(f"""
        SELECT left(local_hour, {letters}) AS bucket, use, CASE WHEN use <> 'busy' THEN '' WHEN stream < 0 THEN '{UNASSIGNED}'
            ELSE service END AS who, sum(attribution.amount_nano_usd) AS amount
        FROM attribution JOIN ledger ON attribution.row = ledger.row GROUP BY ALL ORDER BY ALL
    """)
    # Hours are in order as instants; the texts are not where the clock is put back.
    starts = {text: _start(frame, unit, str(text)) for text in dict.fromkeys(table["bucket"].tolist())}
    edges = _edges(unit, sorted(starts.values()))
    place = {edge: number for number, edge in enumerate(edges[:-1])}
    services = _services(table)
    labels = (*dict.fromkeys(services.values()), *OVERHEADS, SHARED)
    amounts = {label: np.zeros(max(len(edges) - 1, 0), np.int64) for label in labels}
    for bucket, use, who, amount in zip(*(column.tolist() for column in table.values()), strict=True):
        amounts[services[who] if use == "busy" else use][place[starts[bucket]]] += amount
    return CostStack(unit, edges, amounts)


def _services(table: Mapping[str, npt.NDArray[np.int64]]) -> dict[str, str]:
    """The label of each service that pays, the largest first."""
    paid: dict[str, int] = {}
    for use, who, amount in zip(table["use"].tolist(), table["who"].tolist(), table["amount"].tolist(), strict=True):
        if use == "busy":
            paid[who] = paid.get(who, 0) + amount
    ranked = sorted(paid, key=lambda who: (-paid[who], who))
    named = ranked if len(ranked) <= _MOST_SERVICES else ranked[: _MOST_SERVICES - 1]
    other = f"{_BUSY}{len(ranked) - len(named)} other services"
    return {who: f"{_BUSY}{who}" if who in named else other for who in ranked}


def _start(frame: Frame, unit: str, text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    # Instants of one zone are compared by their clock, on which an hour can come twice; those of UTC are not.
    return moment.replace(tzinfo=frame.zone) if unit == "day" else moment.astimezone(UTC)


def _edges(unit: str, starts: list[datetime]) -> list[datetime]:
    """Every bucket from the first with money to the last, also the ones without, and the end of the last."""
    if not starts:
        return []
    edges = [starts[0]]
    while edges[-1] <= starts[-1]:
        # Arithmetic inside a zone is that of its clock, so the day of a clock change has 23 or 25 hours.
        edges.append(edges[-1] + (timedelta(hours=1) if unit == "hour" else timedelta(days=1)))
    return edges


@house_style()
def cost_stack(result: RunResult) -> Figure:
    """Draw the bill per day (per hour where the run is under two days) by busy of each service and by overhead."""
    frame, stack = Frame(result), cost_by_use(result)
    totals = {label: int(amounts.sum()) for label, amounts in stack.amounts_nano.items()}
    figure = new_figure(_title(totals), frame.source, max(3.9, 0.9 + 0.36 * sum(total > 0 for total in totals.values())))
    axes = figure.subplots()
    axes.set_ylabel(f"USD per calendar {stack.unit} of {frame.zone_name}")
    if not stack.edges:
        say_nothing_here(axes, "nothing was billed")
        return figure
    edges = frame.numbers(stack.edges)
    handles, names, below = [], [], np.zeros(len(edges) - 1)
    colors, apart = iter(SERIES), len(edges) <= _MOST_APART
    for label, amounts in stack.amounts_nano.items():
        if not totals[label]:
            continue
        above = below + amounts / NANO_PER_USD
        color, hatch = _LOOKS[label] if label in _LOOKS else (next(colors), "")
        look: dict[str, Any] = {"facecolor": color, "hatch": hatch, "edgecolor": "#333333", "linewidth": 0.5 if apart else 0.0}
        handles.append(axes.stairs(above, edges, baseline=below, fill=True, **look))
        names.append(f"{shown(label, 30)}\n{usd(totals[label])} USD, {share_text(totals[label], sum(totals.values()))}")
        below = above
    if apart:
        axes.vlines(edges[1:-1], 0, np.minimum(below[:-1], below[1:]), color="white", linewidth=0.5)
    axes.stairs(below, edges, color=BLACK, linewidth=0.8)
    axes.set_ylim(0, max(float(below.max()) * 1.05, 1e-9))
    thousands(axes)
    frame.time_axis(axes)
    axes.set_xlim(edges[0], edges[-1])
    axes.legend(handles[::-1], names[::-1], loc="center left", bbox_to_anchor=(1.0, 0.5), labelspacing=0.9)
    return figure


def _title(totals: Mapping[str, int]) -> str:
    total = sum(totals.values())
    if not total:
        return "Nothing was billed in this run"
    busy = sum(amount for label, amount in totals.items() if label.startswith(_BUSY))
    largest = max(OVERHEADS, key=lambda use: totals[use])
    overhead = f"; the largest overhead is {largest} time with {share_text(totals[largest], total)}" if totals[largest] else ""
    return f"{share_text(busy, total)} of the {usd(total)} USD paid for work{overhead}"
