"""The report as one page: what the terminal shows, the figures, the settings and where it all comes from.

The page stands alone: figures are inline SVG, there is no script, nothing is fetched. Every text that comes from data is escaped.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from rich.table import Table

from sim.errors import InputError, Problem
from sim.report.bill import USERS, unit_cost_tables, why_sentence, why_table
from sim.report.carbon_hours import carbon_hours, carbon_hours_table, cleanest_sentence
from sim.report.figures import CHARTS, Chart, charts_of
from sim.report.figures.waterfall import months_compared
from sim.report.html_parts import Pair, inline_svg, leaves, letters_once, pairs, shown_on_terminal, table_html, text
from sim.report.periods import period_tables, reliability_tables
from sim.report.style import png_bytes, svg_bytes, title_of
from sim.results.periods import UNITS, Calendar
from sim.results.records import RunResult
from sim.results.unit_costs import unit_costs
from sim.results.why import why_month

PAGE = "index.html"
_FILES = frozenset({PAGE, *(f"{chart.name}.{kind}" for chart in CHARTS for kind in ("svg", "png"))})

_CSS = """
:root { color-scheme: light; }
body { font: 15px/1.45 "DejaVu Sans", Verdana, Arial, sans-serif; color: #1a1a1a; background: #fff; max-width: 62rem;
  margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.6rem; margin: 0 0 .4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .5rem; border-bottom: 1px solid #bbb; padding-bottom: .15rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
table { border-collapse: collapse; font-size: .87rem; margin: .3rem 0 .8rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: bold; padding: .8rem 0 .3rem; }
th, td { padding: .2rem .9rem .2rem 0; vertical-align: top; text-align: left; overflow-wrap: anywhere; white-space: pre-wrap; }
thead th { border-bottom: 1px solid #555; }
tbody th { font-weight: normal; color: #555; }
.right { text-align: right; }
tr.total td { font-weight: bold; border-top: 1px solid #999; }
.met { color: #00694c; }
.missed { color: #a33c00; font-weight: bold; }
.warning { color: #7a5200; font-weight: bold; }
.note { font-size: .8rem; color: #555; margin: 0 0 .8rem; }
figure { margin: 1.6rem 0; break-inside: avoid; }
figure svg { width: 100%; height: auto; }
figcaption { font-size: .84rem; color: #444; max-width: 52rem; }
.columns { columns: 2; column-gap: 2rem; }
.columns table { font-size: .74rem; }
nav ul { padding-left: 1.1rem; }
@media print {
  body { margin: 0; max-width: none; font-size: 10pt; }
  h2, h3 { break-after: avoid; }
  tr { break-inside: avoid; }
  a { color: inherit; text-decoration: none; }
}
@page { margin: 15mm; }
"""


def write_report(result: RunResult, folder: Path | None = None) -> Path:
    """Write the figures of a run as SVG and PNG and the page that holds them, whole or not at all, and return the page.

    Parameters
    ----------
    folder : where to; default `report` in the run's folder. An earlier report there is replaced.

    Raises
    ------
    InputError : the folder holds something other than a report.
    """
    target = result.folder / "report" if folder is None else Path(folder)
    _refuse_other_content(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.absolute().with_name(f".{target.absolute().name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)  # left by a killed process that had this number
    partial.mkdir()
    try:
        (partial / PAGE).write_text(page(result, _write_figures(result, partial)), "utf-8")
        _replace(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target / PAGE


def _refuse_other_content(target: Path) -> None:
    """A report replaces only a report: a folder named by mistake keeps what it has."""
    if target.is_dir():
        others = sorted(path.name for path in target.iterdir() if path.name not in _FILES)
        if not others:
            return
        what = f"holds {others[0]}, which is not of a report"
    elif target.exists():
        what = "is a file"
    else:
        return
    raise InputError([Problem("report", str(target), what, "a new folder, an empty one, or one with an earlier report")])


def _replace(partial: Path, target: Path) -> None:
    if not target.exists():
        partial.rename(target)
        return
    # A folder cannot be renamed onto one with content, so the earlier report steps aside first.
    aside = partial.with_name(f"{partial.name}-old")
    target.rename(aside)
    partial.rename(target)
    shutil.rmtree(aside)


def _write_figures(result: RunResult, folder: Path) -> list[tuple[Chart, str, str]]:
    """Write each figure as SVG and PNG and return its chart, its finding and its SVG."""
    drawn = []
    for chart in charts_of(result):
        figure = chart.draw(result)
        svg = svg_bytes(figure)
        (folder / f"{chart.name}.svg").write_bytes(svg)
        (folder / f"{chart.name}.png").write_bytes(png_bytes(figure))
        drawn.append((chart, title_of(figure), svg.decode("utf-8")))
    return drawn


def page(result: RunResult, figures: Iterable[tuple[Chart, str, str]]) -> str:
    """Return the page as text.

    Parameters
    ----------
    figures : chart, its finding in words, and its SVG document.
    """
    drawn = list(figures)
    name = text(result.manifest["scenario"]["name"])
    links = "\n".join(f'<li><a href="#{chart.name}">{text(chart.heading)}</a>: {text(finding)}</li>' for chart, finding, _ in drawn)
    head, *rest = shown_on_terminal(result)
    return "\n".join([
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>billcast {name}</title>\n<style>{_CSS}</style>\n</head>\n<body>",
        f"<h1>billcast {name}</h1>",
        head,
        f"<h2>Findings</h2>\n<nav><ul>\n{links}\n</ul></nav>",
        "<h2>Bill and service levels</h2>",
        *rest,
        "<h2>Unit costs</h2>",
        *map(table_html, unit_cost_tables(unit_costs(result), ("service",))),
        *map(table_html, _users_by_month(result)),
        *_periods(result),
        "<h2>Burn rates and causes</h2>",
        *map(table_html, reliability_tables(result)),
        *_why(result),
        *_carbon(result),
        "<h2>Figures</h2>",
        letters_once("\n".join(_figure(*parts) for parts in drawn)),
        '<h2>Settings</h2>\n<p class="note">The resolved scenario, defaults included; - is not set.</p>',
        '<div class="columns">',
        pairs(leaves(result.manifest["scenario"])),
        "</div>",
        "<h2>Where it comes from</h2>",
        pairs(_provenance(result)),
        "</body>\n</html>\n",
    ])  # fmt: skip


def _users_by_month(result: RunResult) -> list[Table]:
    """What an active user costs by month, where a service has clients and the run more than one month."""
    if not len(result.table("active_users")["users"]):
        return []
    by = ("month", "service")
    found = [unit for unit in unit_costs(result, by) if unit.users is not None]
    return unit_cost_tables(found, by, (USERS,)) if len({unit.keys[0] for unit in found}) > 1 else []


def _why(result: RunResult) -> Iterator[str]:
    """Why the last month that can be compared was dearer than the one before it."""
    months = months_compared(result)
    if months is not None:
        found = why_month(result, months[1], months[0])
        yield from ("<h2>Why a month is dearer</h2>", f"<p>{text(why_sentence(found))}</p>", table_html(why_table(found)))


def _carbon(result: RunResult) -> Iterator[str]:
    """Energy and carbon by hour, of a run that drew any."""
    found = carbon_hours(result)
    table = carbon_hours_table(found)
    if table is not None:
        yield from ("<h2>Carbon by hour</h2>", f"<p>{text(cleanest_sentence(found))}</p>", table_html(table))


def _periods(result: RunResult) -> Iterator[str]:
    """A long run by month and by week."""
    if Calendar.of(result.manifest["scenario"]).is_long:
        for unit in UNITS:
            yield f"<h2>By {unit}</h2>"
            yield from map(table_html, period_tables(result, unit))


def _figure(chart: Chart, finding: str, svg: str) -> str:
    return "\n".join([
        f'<figure id="{chart.name}">',
        f"<h3>{text(chart.heading)}</h3>",
        inline_svg(svg, chart.name, f"{chart.heading}: {finding}"),
        f"<figcaption>{text(chart.caption)} Files: {chart.name}.svg, {chart.name}.png.</figcaption>",
        "</figure>",
    ])  # fmt: skip


def _provenance(result: RunResult) -> Iterator[Pair]:
    yield from leaves({key: value for key, value in result.manifest.items() if key != "scenario"})
