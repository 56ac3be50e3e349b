"""How figures look and are saved: colours for colour-blind readers, line styles for greyscale, and equal bytes for equal tables."""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib import font_manager, ft2font
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import StepPatch
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, NullLocator, PercentFormatter

from sim.units import seconds_text

# M. Okabe and K. Ito, "Color Universal Design" (2008): told apart with every common colour vision deficiency.
BLUE, ORANGE, GREEN, VERMILLION = "#0072b2", "#e69f00", "#009e73", "#d55e00"
PURPLE, SKY, YELLOW, BLACK = "#cc79a7", "#56b4e9", "#f0e442", "#000000"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION, YELLOW, BLACK)
GREY, PALE = "#767676", "#d9d9d9"

# Solid, dashed, dotted, dash-dot, ...: a line is known by its dashes where colours are lost.
DASHES: tuple[Any, ...] = (
    "solid", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 2, 1, 2)), (0, (8, 3)), (0, (3, 1, 1, 1, 1, 1)), (0, (2, 2)), (0, (10, 2, 2, 2)),
)  # fmt: skip

WIDTH_IN = 9.0
_TITLE_LETTERS = 92
_SOURCE_LETTERS = 150
PNG_DPI, SVG_IMAGE_DPI = 150, 96
# Above this many points the lines of a figure go into its SVG as images, so that the page of a long run stays small.
HEAVY_POINTS = 8_000
_PATH_DATA = re.compile(rb'(?<= d=")[^"]*')
_FINE_DIGITS = re.compile(rb"(\.\d\d)\d+")

_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#444444",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "lines.linewidth": 1.5,
    "hatch.linewidth": 0.6,
    "figure.titlesize": 11.5,
    "figure.titleweight": "bold",
    "path.simplify_threshold": 0.2,  # a fifth of a point cannot be seen
    "svg.fonttype": "path",
    "svg.hashsalt": "billcast",
    "text.parse_math": False,
}


@contextmanager
def house_style() -> Iterator[None]:
    """Draw with the settings of this file, whatever a matplotlibrc says; also a decorator.

    Examples
    --------
    >>> with house_style():
    ...     matplotlib.rcParams["svg.hashsalt"]
    'billcast'
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def new_figure(title: str, source: str, height_in: float, legend: Sequence[Artist] = (), columns: int = 6) -> Figure:
    """Return an empty figure with its finding as the title above, and below it a legend of all panels and the source.

    Parameters
    ----------
    title : the finding in words. source : where the numbers come from. height_in : in inches, everything included.
    legend : labelled handles. columns : of the legend.
    """
    written = textwrap.fill(source, _SOURCE_LETTERS)
    source_in = 0.09 + 0.13 * (written.count("\n") + 1)
    legend_in = 0.08 + 0.2 * math.ceil(len(legend) / columns) if legend else 0.0
    foot = (source_in + legend_in) / height_in
    figure = Figure(figsize=(WIDTH_IN, height_in))
    figure.set_layout_engine("constrained", rect=(0, foot, 1, 1 - foot))
    figure.suptitle(textwrap.fill(title, _TITLE_LETTERS), x=0.008, ha="left")
    figure.text(0.008, 0.06 / height_in, written, fontsize=7, color=GREY, va="bottom")
    if legend:
        below = figure.legend(
            handles=list(legend), loc="lower center", ncols=columns, bbox_to_anchor=(0.5, source_in / height_in), borderpad=0.2
        )
        below.set_in_layout(False)
    return figure


def title_of(figure: Figure) -> str:
    """Return the finding a figure states, on one line."""
    return " ".join(figure.get_suptitle().split())


def svg_bytes(figure: Figure) -> bytes:
    """Return a figure as SVG: the same bytes for the same tables and versions, without dates."""
    figure.set_dpi(SVG_IMAGE_DPI)
    document = _saved(figure, FigureCanvasSVG(figure).print_svg, metadata={"Date": None, "Creator": "billcast"})
    # A hundredth of a point is finer than any printer; the other four digits are a third of the file.
    return _PATH_DATA.sub(lambda found: _FINE_DIGITS.sub(rb"\1", found[0]), document)


def png_bytes(figure: Figure) -> bytes:
    """Return a figure as PNG at 150 dots per inch."""
    figure.set_dpi(PNG_DPI)
    return _saved(figure, FigureCanvasAgg(figure).print_png, metadata={"Software": "billcast"})


@house_style()
def _saved(figure: Figure, printer: Callable[..., Any], **options: Any) -> bytes:
    _fix_layout(figure)
    sink = io.BytesIO()
    printer(sink, **options)
    return sink.getvalue()


def _fix_layout(figure: Figure) -> None:
    """Lay the panels out and round where they lie: the solver's last bit changes from call to call, and ids in an SVG with it."""
    if not isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine):
        return
    figure.draw_without_rendering()
    places = [np.round(axes.get_position().bounds, 6) for axes in figure.axes]
    figure.set_layout_engine("none")
    for axes, (left, bottom, width, height) in zip(figure.axes, places, strict=True):
        axes.set_position((float(left), float(bottom), float(width), float(height)))


def shown(text: object, letters: int = 40) -> str:
    """Return a text from data as it is drawn: control characters and letters the font lacks become "?", long texts end in "...".

    Examples
    --------
    >>> shown("chat\\x1b$x$"), shown("a" * 50, 10)
    ('chat?$x$', 'aaaaaaa...')
    """
    known = _letters_of_font()
    plain = "".join(letter if letter.isprintable() and ord(letter) in known else "?" for letter in str(text))
    return plain if len(plain) <= letters else plain[: letters - 3] + "..."


@cache
def _letters_of_font() -> frozenset[int]:
    return frozenset(ft2font.FT2Font(font_manager.findfont("DejaVu Sans")).get_charmap())


def step_line(axes: Axes, values: npt.ArrayLike, edges: npt.ArrayLike, *, color: str, **look: Any) -> StepPatch:
    """Draw a line of steps, as `Axes.stairs` does, on axes whose limits are set by the caller.

    `stairs` widens the limits by a loop over every segment, a second for 20,000 of them; here nothing is looked at.

    Parameters
    ----------
    values : height of each step, shape (steps,), NaN for a gap. edges : where they begin and end, shape (steps + 1,).
    """
    settings: Any = {"baseline": None, "fill": False, "edgecolor": color, **look}
    line = StepPatch(values, edges, **settings)
    axes.add_artist(line)
    return line


def percent(share: float) -> str:
    """Return a share in percent, cut and not rounded: 100 % is said only where nothing is missing.

    Examples
    --------
    >>> percent(0.99999), percent(1.0), percent(0.979), percent(-2.5)
    ('99.99 %', '100 %', '97.9 %', '-250 %')
    """
    return f"{math.floor(round(share * 10_000, 6)) / 100:.12g} %"


def budget_left(share: float) -> str:
    """Return a share of an error budget in words.

    Examples
    --------
    >>> budget_left(0.754), budget_left(-1.0964)
    ('75 % left', '110 % overspent')
    """
    return f"{math.floor(share * 100)} % left" if share >= 0 else f"{math.ceil(-share * 100):,} % overspent"


def share_text(part: float, total: float) -> str:
    """Return a part of a sum of money in percent, rounded to a tenth.

    Examples
    --------
    >>> share_text(1.0, 3.0)
    '33.3 %'
    """
    return f"{100 * part / total:.1f} %"


def seconds(value_s: float) -> str:
    """Return a duration without zeros that say nothing.

    Examples
    --------
    >>> seconds(1.0), seconds(0.05), seconds(1.25), seconds(250.0)
    ('1 s', '50 ms', '1.25 s', '250 s')
    """
    number, unit = seconds_text(value_s).split(" ")
    return f"{number.rstrip('0').rstrip('.') if '.' in number else number} {unit}"


def log_seconds(axes: Axes, low_s: float, high_s: float, axis: str = "x") -> None:
    """Make an axis logarithmic in seconds with ticks people read, such as 100 ms, 300 ms, 1 s.

    Parameters
    ----------
    low_s, high_s : range of the data in seconds, above 0. axis : "x" or "y".
    """
    low, high = low_s / 1.08, high_s * 1.08
    if high / low < 3:
        middle = math.sqrt(low * high)
        low, high = middle / math.sqrt(3), middle * math.sqrt(3)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 30 else (1, 3) if high / low < 500 else (1,)
    ticks = [value for decade in decades for step in steps if low <= (value := step * 10.0**decade) <= high]
    scale = axes.xaxis if axis == "x" else axes.yaxis
    (axes.set_xscale if axis == "x" else axes.set_yscale)("log")
    (axes.set_xlim if axis == "x" else axes.set_ylim)(low, high)
    scale.set_major_locator(FixedLocator(ticks))
    scale.set_major_formatter(FixedFormatter([f"{tick:,.12g} s" if tick >= 1 else seconds(tick) for tick in ticks]))
    scale.set_minor_locator(NullLocator())


def percent_axis(axes: Axes) -> None:
    """Show the values of the y axis, shares, in percent."""
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))


def thousands(axes: Axes) -> None:
    """Show the values of the y axis with a comma between thousands."""
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.12g}"))


def say_nothing_here(axes: Axes, why: str) -> None:
    """Write into an empty panel why it is empty."""
    axes.text(0.5, 0.5, why, transform=axes.transAxes, ha="center", va="center", color=GREY)
    axes.grid(visible=False)
    axes.set_xticks([])
    axes.set_yticks([])
