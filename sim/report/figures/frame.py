"""What all figures of a run share: its clock, its services, its windows, its losses and the line that names the source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import matplotlib.dates
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from sim.report.style import GREY, VERMILLION, shown
from sim.results.records import RunResult
from sim.units import NS_PER_DAY, NS_PER_US, duration_ns, instant

# A replica that ended in any other way was taken from the run: by a crash, by its provider.
_ORDERLY = ("scaled_down", "grace_over", "end")
_MANY_LOSSES = 40
# Year, month, day, hour, minute, second; and each where the next finer one is at its start.
_FORMATS = ["%Y", "%b", "%d %b", "%H:%M", "%H:%M", "%H:%M:%S"]
_ZERO_FORMATS = ["", "%Y", "%d %b", "%d %b", "%H:%M", "%H:%M"]
_WEEK_NS = 7 * NS_PER_DAY

# Its functions have no types.
_dates: Any = matplotlib.dates

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Loss:
    """Replicas lost at one instant for one cause."""

    time_ns: int
    deployment: str
    cause: str
    replicas: int


class Frame:
    """The clock and the names of a run.

    Parameters
    ----------
    result : a finished run; its manifest holds the scenario.
    """

    def __init__(self, result: RunResult) -> None:
        self.result = result
        self.scenario: dict[str, Any] = result.manifest["scenario"]
        self.start = instant(self.scenario["start"])
        self.horizon_ns = duration_ns(self.scenario["horizon"])
        self.zone_name = str(self.scenario["account"]["timezone"])
        self.zone = ZoneInfo(self.zone_name)

    def days(self, times_ns: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return times since the start (ns) as matplotlib dates."""
        start = np.datetime64(self.start.replace(tzinfo=None), "us")
        since = (np.asarray(times_ns, np.int64) // NS_PER_US).astype("timedelta64[us]")
        return np.asarray(_dates.date2num(start + since), np.float64)

    def numbers(self, moments: Sequence[datetime]) -> npt.NDArray[np.float64]:
        """Return instants as matplotlib dates."""
        return np.asarray(_dates.date2num(moments), np.float64)

    def local(self, time_ns: int) -> datetime:
        """Return a time since the start as an instant in the account's zone."""
        return (self.start + timedelta(microseconds=time_ns // NS_PER_US)).astimezone(self.zone)

    def clock(self, time_ns: int) -> str:
        """Return a time as words: a weekday in a short run, a date in a long one."""
        return f"{self.local(time_ns):%a %H:%M}" if self.horizon_ns <= _WEEK_NS else f"{self.local(time_ns):%d %b %H:%M}"

    @property
    def source(self) -> str:
        """The source line: scenario, hash, seed, simulated period."""
        manifest, form = self.result.manifest, "%Y-%m-%d %H:%M"
        parts = [f"billcast {manifest['versions']['billcast']}"] if "versions" in manifest else ["billcast"]
        parts.append(f"scenario {shown(self.scenario['name'], 60)}")
        if "scenario_hash" in manifest:
            parts.append(f"hash {manifest['scenario_hash']}")
        parts.append(f"seed {self.scenario['seed']}, replication {self.scenario['replication']}")
        parts.append(f"simulated {self.local(0):{form}} to {self.local(self.horizon_ns):{form}} {self.zone_name}")
        return "  |  ".join(parts)

    def time_axis(self, axes: Axes, *, label: bool = True, name: bool = True, ticks: int = 9) -> None:
        """Make the x axis the run's calendar time in the account's zone.

        Parameters
        ----------
        label, name : whether it has numbers, and with them a name. ticks : at most this many.
        """
        axes.xaxis_date(tz=self.zone)
        locator = _dates.AutoDateLocator(tz=self.zone, minticks=3, maxticks=ticks)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(
            _dates.ConciseDateFormatter(locator, tz=self.zone, formats=_FORMATS, zero_formats=_ZERO_FORMATS, show_offset=False)
        )
        axes.set_xlim(*self.days([0, max(self.horizon_ns, 1_000_000)]))
        axes.tick_params(axis="x", labelbottom=label)
        if label and name:
            axes.set_xlabel(self._period())

    def _period(self) -> str:
        """The days of the run and the zone of its clock."""
        first, last = f"{self.local(0):%d %b %Y}", f"{self.local(max(self.horizon_ns - NS_PER_US, 0)):%d %b %Y}"
        return f"{first}, {self.zone_name}" if first == last else f"{first} to {last}, {self.zone_name}"

    def losses(self) -> list[Loss]:
        """Return what was lost before the end of the run, in order of time."""
        listed = ", ".join(f"'{cause}'" for cause in _ORDERLY)
        table = self.result.sql(f"""
            SELECT gone_ns, deployment, cause, count(*) AS replicas FROM replicas WHERE cause NOT IN ({listed})
            GROUP BY ALL ORDER BY ALL
        """)
        return [Loss(*row) for row in zip(*(column.tolist() for column in table.values()), strict=True)]

    def mark_losses(self, axes: Axes) -> None:
        """Draw a fine line where replicas were lost, so that what follows has its cause beside it; short where they are many."""
        times = sorted({loss.time_ns for loss in self.losses()})
        few = len(times) <= _MANY_LOSSES
        # One line with gaps, for a year of spot machines has thousands of them.
        across = np.repeat(self.days(times), 3)
        up = np.tile([0.0 if few else 0.95, 1.0, np.nan], len(times))
        line = axes.plot(
            across, up, color=VERMILLION, linewidth=0.8 if few else 0.3, zorder=1, transform=axes.get_xaxis_transform()
        )[0]
        line.set_linestyle((0, (1, 1.5)) if few else "solid")

    def mark_warmup(self, axes: Axes) -> None:
        """Shade the warm-up, which counts in no SLO."""
        warmup_ns = duration_ns(self.scenario["warmup"])
        if warmup_ns:
            axes.axvspan(*self.days([0, min(warmup_ns, self.horizon_ns)]), color=GREY, alpha=0.12, linewidth=0)
