"""The progress line of a run: simulated date, share done, speed and time left, on a terminal only."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from types import TracebackType
from typing import Protocol, Self, TextIO

from sim.units import NS_PER_S, seconds_text

SHORTEST_PAUSE_S = 0.2


class HowFar(Protocol):
    """What a run reports of itself (`sim.control.loop.Progress`)."""

    @property
    def simulated_ns(self) -> int:
        """Simulated time since the scenario start."""

    @property
    def horizon_ns(self) -> int:
        """Length of the run."""

    @property
    def wall_s(self) -> float:
        """Seconds since the run began."""


def progress_text(start: datetime, progress: HowFar) -> str:
    """Return the line for one moment of a run.

    Parameters
    ----------
    start : calendar instant of time 0. progress : how far the run has come.

    Examples
    --------
    >>> from datetime import UTC
    >>> from types import SimpleNamespace
    >>> half = SimpleNamespace(simulated_ns=1_800 * NS_PER_S, horizon_ns=3_600 * NS_PER_S, wall_s=2.0)
    >>> progress_text(datetime(2026, 1, 5, tzinfo=UTC), half)
    '2026-01-05 00:30   50 %   900 simulated s/s   2.00 s left'
    """
    done = progress.simulated_ns / progress.horizon_ns
    now = start + timedelta(microseconds=progress.simulated_ns // 1_000)
    speed = progress.simulated_ns / NS_PER_S / progress.wall_s if progress.wall_s > 0 else 0.0
    left = f"{seconds_text(progress.wall_s * (1 - done) / done)} left" if done > 0 else ""
    return f"{now:%Y-%m-%d %H:%M}  {done:>4.0%}   {speed:,.0f} simulated s/s   {left}".replace("%", " %").rstrip()


class Line:
    """A line that is written over itself; silent where the stream is no terminal.

    Parameters
    ----------
    stream : where the line goes.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown = stream.isatty()

    def _write(self, text: str) -> None:
        if self._shown:
            self._stream.write(f"\r\x1b[2K{text}")
            self._stream.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._write("")


class ProgressLine(Line):
    """The line of one run.

    Parameters
    ----------
    start : calendar instant of time 0. stream : where the line goes.
    """

    def __init__(self, start: datetime, stream: TextIO) -> None:
        super().__init__(stream)
        self._start = start
        self._next_s = 0.0

    def update(self, progress: HowFar) -> None:
        """Show how far the run has come, a few times a second at most."""
        now_s = time.monotonic()
        if now_s >= self._next_s:
            self._next_s = now_s + SHORTEST_PAUSE_S
            self._write(progress_text(self._start, progress))


class CountLine(Line):
    """The line of several runs: how many are done."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._began_s = time.monotonic()

    def update(self, done: int, total: int) -> None:
        """Show how many are done, and how long the others may take."""
        passed_s = time.monotonic() - self._began_s
        left = f"   {seconds_text(passed_s / done * (total - done))} left" if 0 < done < total else ""
        self._write(f"{done} of {total} replications{left}")
