"""Why a month was dearer than the one before it, as a waterfall."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from itertools import pairwise

from matplotlib.figure import Figure

from sim.report.figures.frame import Frame
from sim.report.style import BLACK, BLUE, PALE, VERMILLION, house_style, new_figure, say_nothing_here, shown, thousands
from sim.results.account_months import account_months
from sim.results.records import RunResult
from sim.results.why import FACTORS, Why, why_month
from sim.units import NANO_PER_USD, usd

_LEAST_SHARE = 0.001  # of the larger month: a term below it is not drawn alone
_REST = "all else"
_LABEL_LETTERS = 13


@dataclass(frozen=True)
class Bar:
    """One bar of a waterfall: a month from 0, or a term from where the one before it ended; nano-dollars."""

    label: str
    from_nano: int
    to_nano: int

    @property
    def change_nano(self) -> int:
        """How much it adds."""
        return self.to_nano - self.from_nano


def months_compared(result: RunResult) -> tuple[str, str] | None:
    """Return the last two whole months of a run, else the last two that are partly in it; None in a run of one month."""
    months = account_months(result)
    pairs = list(pairwise(months))
    whole = [pair for pair in pairs if not (pair[0].partial or pair[1].partial)]
    if not pairs:
        return None
    before, after = (whole or pairs)[-1]
    return before.label, after.label


def waterfall(found: Why) -> list[Bar]:
    """Return the bars from one bill to the other: the causes in their order, small ones together at the end.

    Parameters
    ----------
    found : of which all services together are drawn.
    """
    total = found.total
    least = _LEAST_SHARE * max(abs(total.before_nano), abs(total.after_nano))
    named = {term: amount for term, amount in total.terms_nano.items() if abs(amount) >= least and amount}
    rest = total.difference_nano - sum(named.values())
    steps = [*named.items(), *([(_REST, rest)] if rest else [])]
    bars, at = [Bar(found.before, 0, total.before_nano)], total.before_nano
    for term, amount in steps:
        bars.append(Bar(term, at, at + amount))
        at += amount
    return [*bars, Bar(found.after, 0, total.after_nano)]


@house_style()
def why_dearer(result: RunResult) -> Figure:
    """Draw the causes of the difference between the last two whole months of a run, else of its last two."""
    frame, months = Frame(result), months_compared(result)
    if months is None:
        figure = new_figure("No month of this run has one before it", frame.source, 3.0)
        say_nothing_here(figure.subplots(), "two months are needed for a comparison")
        return figure
    found = why_month(result, months[1], months[0])
    bars = waterfall(found)
    figure = new_figure(_title(found, result), frame.source, 4.2)
    axes = figure.subplots()
    for number, bar in enumerate(bars):
        whole = number in (0, len(bars) - 1)
        low, height = min(bar.from_nano, bar.to_nano), abs(bar.change_nano)
        dearer = bar.change_nano > 0
        look = (PALE, "") if whole else (VERMILLION, "") if dearer else (BLUE, "////")
        axes.bar(number, height / NANO_PER_USD, bottom=low / NANO_PER_USD, width=0.62, facecolor=look[0], hatch=look[1],
            edgecolor="#333333", linewidth=0.6)  # fmt: skip
        text = usd(bar.change_nano) if whole or not dearer else f"+{usd(bar.change_nano)}"
        axes.annotate(text, (number, max(bar.from_nano, bar.to_nano) / NANO_PER_USD), xytext=(0, 3),
            textcoords="offset points", ha="center", va="bottom", fontsize=8)  # fmt: skip
        if number:
            level = bars[number - 1].to_nano / NANO_PER_USD
            axes.plot([number - 1 + 0.31, number - 0.31], [level, level], color=BLACK, linewidth=0.7)
    axes.set_xticks(range(len(bars)), [_label(bar.label) for bar in bars])
    axes.grid(visible=False, axis="x")
    axes.set_ylabel("USD")
    axes.margins(y=0.1)
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    thousands(axes)
    return figure


def _label(term: str) -> str:
    words = FACTORS.get(term)
    return textwrap.fill(shown(term, 40), _LABEL_LETTERS) if words is None else f"{term}\n{textwrap.fill(words, _LABEL_LETTERS)}"


def _title(found: Why, result: RunResult) -> str:
    total = found.total
    partial = {month.label: month.partial for month in account_months(result)}
    part = "; a part of a month lies outside the run" if partial[found.before] or partial[found.after] else ""
    if not total.difference_nano:
        return f"{found.after} cost as much as {found.before}{part}"
    dearer = "more" if total.difference_nano > 0 else "less"
    sign = 1 if total.difference_nano > 0 else -1
    largest = max(total.terms_nano, key=lambda term: sign * total.terms_nano[term])
    cause = f"{largest} ({FACTORS[largest]})" if largest in FACTORS else largest
    most = f"; the largest cause is {cause} with {usd(total.terms_nano[largest])}"
    return f"{found.after} cost {usd(abs(total.difference_nano))} USD {dearer} than {found.before}{most}{part}"
