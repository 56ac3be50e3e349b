"""The use of a fleet by duration, with the commitment that was chosen for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from sim.billing.commitment_choice import COMPUTE_SAVINGS_PLAN, HourlyUse, Kind, cover
from sim.billing.commitment_portfolios import Portfolio
from sim.report.style import BLACK, BLUE, GREY, PALE, VERMILLION, house_style, new_figure, share_text, shown, thousands
from sim.units import NANO_PER_USD, usd

_MOST_PANELS = 4
_UNUSED, _DASHES = "////", (0, (4, 2))


@house_style()
def use_and_commitment(use: HourlyUse, portfolio: Portfolio, source: str) -> Figure:
    """Draw for each kind of machines how many were used for which share of the hours, and how many of them are committed to.

    Parameters
    ----------
    use : of the run. portfolio : commitments, of which the dearest four are drawn; each on the use that those before it have left,
        reserved machines in machines, plans in dollars at their rates. source : the line below.

    Notes
    -----
    Hours are sorted by use, so that a level crosses the curve at the share of hours in which its last unit is used.
    """
    panels = _panels(use, portfolio)
    legend: list[Artist] = [
        Patch(facecolor=BLUE, alpha=0.35, label="committed and used"),
        Patch(facecolor="none", edgecolor=VERMILLION, hatch=_UNUSED, linewidth=0.0, label="committed, not used"),
        Patch(facecolor=PALE, label="on demand"),
        Line2D([], [], color=BLUE, linewidth=1.4, label="commitment"),
    ]
    if any(panel.pays_above is not None for panel in panels):
        legend.append(Line2D([], [], color=BLACK, linewidth=1.0, linestyle=_DASHES, label="hours that pay for a machine"))
    figure = new_figure(_title(use, portfolio), source, 1.4 + 2.3 * -(-len(panels) // 2), legend)
    columns = min(len(panels), 2)
    axes = figure.subplots(-(-len(panels) // columns), columns, squeeze=False).ravel()
    for one, panel in zip(axes, panels, strict=False):
        _draw(one, panel, use.lengths_ns)
    for one in axes[len(panels) :]:
        one.set_visible(False)
    return figure


@dataclass(frozen=True)
class _Panel:
    """One commitment: its name, the unit of its level, the use of each hour in it, the level.

    `pays_above` is the share of hours in which its last unit must be used to pay for itself, where that is one number.
    """

    name: str
    unit: str
    values: tuple[float, ...]
    level: float
    pays_above: float | None = None


def _panels(use: HourlyUse, portfolio: Portfolio) -> list[_Panel]:
    """A panel for each commitment, the dearest first; without any, one for each kind, the dearest first."""
    found: list[tuple[int, _Panel]] = []
    # Beside a plan a machine replaces use that the plan would pay for in part.
    planned = not all(outcome.promise.offer.of_machines for outcome in portfolio.outcomes)
    for outcome in portfolio.outcomes:
        offer = outcome.promise.offer
        first = next(iter(offer.rates_nano))
        if offer.of_machines:
            pays_above = None if planned else offer.unit_nano / use.first_price_nano(first)
            panel = _Panel(_name(first), "machines", use.machines(first), float(outcome.promise.level), pays_above)
        else:
            dollars = np.zeros(len(use.lengths_ns))
            for kind, rate_nano in offer.rates_nano.items():
                dollars += np.array(use.machines(kind)) * (rate_nano / NANO_PER_USD)
            of_all = offer.name == COMPUTE_SAVINGS_PLAN
            name = "Compute Savings Plan" if of_all else f"Savings Plan {first.family} {first.region}"
            level = outcome.promise.nano_per_hour / NANO_PER_USD
            panel = _Panel(name, "USD/h at the plan's rates", tuple(dollars), level)
        found.append((outcome.committed_nano, panel))
        _, use = cover(use, outcome.promise)
    if found:
        return [panel for _, panel in sorted(found, key=lambda pair: -pair[0])[:_MOST_PANELS]]
    kinds = sorted(use.kinds, key=lambda kind: -use.on_demand_nano([kind]))[:_MOST_PANELS]
    return [_Panel(_name(kind), "machines", use.machines(kind), 0.0) for kind in kinds]


def _name(kind: Kind) -> str:
    return f"{kind.instance} {kind.region}"


def _draw(axes: Axes, panel: _Panel, lengths_ns: Sequence[int]) -> None:
    """Draw the curve of duration, what of it is committed, and what of the commitment stays unused."""
    values, level = np.array(panel.values), panel.level
    order = np.argsort(-values, kind="stable")
    curve = values[order]
    shares = np.concatenate([[0.0], np.cumsum(np.array(lengths_ns, float)[order])]) / sum(lengths_ns)
    committed = np.minimum(curve, level)
    axes.stairs(curve, shares, baseline=committed, fill=True, facecolor=PALE)
    if level:
        axes.stairs(committed, shares, fill=True, facecolor=BLUE, alpha=0.35)
        axes.axhline(level, color=BLUE, linewidth=1.4)
    if level > committed.min(initial=level):
        axes.stairs(np.full(len(curve), level), shares, baseline=committed, fill=True, facecolor="none", edgecolor=VERMILLION,
                    hatch=_UNUSED, linewidth=0.0)  # fmt: skip
    axes.stairs(curve, shares, color=GREY, linewidth=1.2)
    if panel.pays_above is not None:
        axes.axvline(panel.pays_above, color=BLACK, linewidth=1.0, linestyle=_DASHES)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, max(float(curve.max(initial=0.0)), level, 1e-9) * 1.08)
    thousands(axes)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    above = "" if panel.pays_above is None else f": pays when used in {share_text(panel.pays_above, 1)} of the hours"
    axes.set_title(f"{shown(panel.name, 44)}{above}")
    axes.set_ylabel(panel.unit)
    axes.set_xlabel("share of the hours, the busiest first")


def _title(use: HourlyUse, portfolio: Portfolio) -> str:
    eligible = use.on_demand_nano()
    if not portfolio.outcomes:
        return f"No commitment pays: the {usd(eligible)} USD on demand are the cheapest"
    saved = portfolio.saved_nano
    share = share_text(saved, eligible)
    return f"Commitments ({portfolio.name}) would save {share} of the {usd(eligible)} USD on demand: {usd(saved)} USD"
