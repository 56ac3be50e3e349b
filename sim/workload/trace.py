"""Replay of recorded requests: looped, stretched, thinned or multiplied, shifted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from functools import partial
from itertools import count
from math import ceil, floor
from pathlib import Path

import numpy as np

from sim.domain.traffic import BLOCK_REQUESTS, RequestBlock, Source
from sim.errors import InputError, Problem, Problems
from sim.registry import register
from sim.rng import StreamKey
from sim.units import NS_PER_S, duration_ns
from sim.workload.base import IntArray, OpenedSource, Workload, random_words
from sim.workload.readers import FORMATS, TraceRows, read_trace
from sim.workload.specs import check_duration

SUFFIXES = (".csv", ".csv.gz", ".parquet")
MAX_JITTER_S = 60.0
_MAX_DENOMINATOR = 1_000_000


@register("workload", "trace")
@dataclass
class Trace(Workload):
    """Recorded requests, replayed from the scenario start: the first row arrives at `shift`.

    Parameters
    ----------
    path : an Azure LLM inference trace or a plain CSV or Parquet file (docs/reference/traces.md).
    format : "auto", "azure" or "plain".
    loop : start again at the end; the pause between two passes is the trace's mean gap.
    time_scale : factor on the gaps. 0.5 replays twice as fast: twice the rate, and every burst twice as dense.
    rate_scale : factor on the number of requests at the same clock. Every row is repeated rate_scale times on average, by a draw of
        its own: below 1 rows are left out, above 1 there are copies, which arrive up to two mean gaps after their row.
    shift : delay of the whole trace, as a duration.
    max_bad_rows : so many broken rows are skipped and counted; one more is an error.
    jitter_s : every arrival is moved back by a uniform draw from [0, jitter_s), for stamps in whole seconds.
    """

    path: str = ""
    format: str = "auto"
    loop: bool = False
    time_scale: float = 1.0
    rate_scale: float = 1.0
    shift: str = "0s"
    max_bad_rows: int = 0
    jitter_s: float = 0.0

    def problems(self, path: str, problems: Problems) -> None:
        """Add everything that is wrong with the configuration, a missing file among it."""
        check_trace_file(self.path, f"{path}.path", problems)
        problems.check(self.format in FORMATS, f"{path}.format", self.format, "is not a format of traces", choices=FORMATS)
        for name, value in (("time_scale", self.time_scale), ("rate_scale", self.rate_scale)):
            problems.check(1e-3 <= value <= 1e3, f"{path}.{name}", value, "is out of range", "0.001 to 1000")
        check_duration(self.shift, f"{path}.shift", problems)
        problems.check(self.max_bad_rows >= 0, f"{path}.max_bad_rows", self.max_bad_rows, "must not be negative", ">= 0")
        within = 0 <= self.jitter_s <= MAX_JITTER_S
        problems.check(within, f"{path}.jitter_s", self.jitter_s, "must be seconds", f"0 to {MAX_JITTER_S:g}")

    def segment_names(self) -> None:
        """Return None: only the opened file knows its segments."""
        return

    def open(self, key: StreamKey, start: datetime, horizon_ns: int) -> Source:
        """Read, check and sort the file; see `Workload.open`."""
        rows = read_trace(self.path, self.format, self.max_bad_rows)
        if self.loop and rows.span_ns == 0:
            raise InputError([Problem(self.path, rows.rows, "cannot be looped: all its rows have the same time", "loop=false")])
        replay = Replay(
            rows,
            loop=self.loop,
            time_scale=Fraction(str(self.time_scale)).limit_denominator(_MAX_DENOMINATOR),
            rate_scale=self.rate_scale,
            shift_ns=duration_ns(self.shift),
            jitter_ns=round(self.jitter_s * NS_PER_S),
        )
        return OpenedSource(
            partial(replay.blocks, key, horizon_ns), rows.segments, bad_rows=rows.bad_rows, inputs={self.path: rows.sha256}
        )


def check_trace_file(name: str, path: str, problems: Problems) -> None:
    """Add what keeps a file from being read as a trace: it is not there, or of another kind.

    Parameters
    ----------
    name : of the file. path : dotted path of the setting.
    """
    file = Path(name)
    if not name:
        problems.add(path, name, "no trace is given", f"a file ({', '.join(SUFFIXES)})")
        return
    try:
        there = file.is_file()
        beside = [] if there or not file.parent.is_dir() else sorted(str(each) for each in file.parent.iterdir() if each.is_file())
    except (OSError, ValueError) as error:  # a name too long, a folder without permission, a null byte
        why = error.strerror if isinstance(error, OSError) else str(error)
        problems.add(path, name, f"cannot be looked at: {why}", "an existing file")
        return
    if not there:
        problems.add(path, name, "there is no such file", "an existing file", choices=beside)
    else:
        problems.check(name.endswith(SUFFIXES), path, name, "is not a kind of file that can be read", ", ".join(SUFFIXES))


@dataclass(frozen=True)
class Replay:
    """Turns the rows of a trace into arrivals; see `Trace` for the parameters, times in nanoseconds."""

    rows: TraceRows
    loop: bool
    time_scale: Fraction
    rate_scale: float
    shift_ns: int
    jitter_ns: int

    def blocks(self, key: StreamKey, horizon_ns: int) -> Iterator[RequestBlock]:
        """Yield the arrivals before the horizon, in order of time.

        Draws move a request back by a bounded time only, so what is not later than the last row read can go.

        Parameters
        ----------
        key : random streams of the service. horizon_ns : end, in nanoseconds since the scenario start.
        """
        held = RequestBlock.of(arrival_ns=[])
        for number, rows in enumerate(self._pages(horizon_ns)):
            both = _joined(held, self._drawn(rows, key, number))
            ready = int(np.searchsorted(both.arrival_ns, rows.arrival_ns[-1], side="right"))
            held = both.take(slice(ready, None))
            yield from _before(both.take(slice(0, ready)), horizon_ns)
        yield from _before(held, horizon_ns)

    def _pages(self, horizon_ns: int) -> Iterator[RequestBlock]:
        """Yield the rows with their unmoved times, pass after pass."""
        size = max(BLOCK_REQUESTS // ceil(self.rate_scale), 1)
        period_ns = self._scaled_ns(self.rows.span_ns + -(-self.rows.span_ns // max(self.rows.rows - 1, 1)))
        # Times beyond the horizon need not be told apart, and clipped they cannot overflow when they are stretched.
        last_ns = int(horizon_ns / self.time_scale) + 1
        for number in count() if self.loop else range(1):
            pass_ns = self.shift_ns + number * period_ns
            for first in range(0, self.rows.rows, size):
                if pass_ns >= horizon_ns:
                    return
                page = self.rows.page(first, size)
                times_ns = pass_ns + self._scaled_array_ns(np.minimum(page["time_ns"], last_ns))
                if times_ns[0] >= horizon_ns:
                    break
                yield RequestBlock.of(
                    arrival_ns=times_ns, prompt_tokens=page["prompt"], output_tokens=page["output"], stream=page["segment"]
                )

    def _drawn(self, rows: RequestBlock, key: StreamKey, number: int) -> RequestBlock:
        """Repeat or leave out rows, move them, and give each request its random word."""
        whole = floor(self.rate_scale)
        more = key.about("workload/copies").generator(number).random(len(rows)) < self.rate_scale - whole
        copies = whole + more.astype(np.int64)
        drawn = rows.take(np.repeat(np.arange(len(rows)), copies))
        is_copy = np.ones(len(drawn), np.bool_)
        is_copy[(np.cumsum(copies) - copies)[copies > 0]] = False
        moved_ns = drawn.arrival_ns.copy()
        for purpose, reach_ns, which in (
            ("workload/copy-delay", 2 * self._mean_gap_ns(), is_copy),
            ("workload/jitter", self.jitter_ns, np.ones(len(drawn), np.bool_)),
        ):
            if reach_ns > 0 and which.any():
                moved_ns[which] += (key.about(purpose).generator(number).random(len(drawn))[which] * reach_ns).astype(np.int64)
        return drawn.with_columns(arrival_ns=moved_ns, tag=random_words(key.about("workload/tags"), number, len(drawn)))

    def _mean_gap_ns(self) -> int:
        return self._scaled_ns(self.rows.span_ns // max(self.rows.rows - 1, 1))

    def _scaled_ns(self, time_ns: int) -> int:
        return time_ns * self.time_scale.numerator // self.time_scale.denominator

    def _scaled_array_ns(self, times_ns: IntArray) -> IntArray:
        whole, rest = np.divmod(times_ns, self.time_scale.denominator)
        scaled: IntArray = whole * self.time_scale.numerator + rest * self.time_scale.numerator // self.time_scale.denominator
        return scaled


def _joined(first: RequestBlock, second: RequestBlock) -> RequestBlock:
    together = RequestBlock.of(**{name: np.concatenate([getattr(first, name), column]) for name, column in vars(second).items()})
    return together.take(np.argsort(together.arrival_ns, kind="stable"))


def _before(block: RequestBlock, horizon_ns: int) -> Iterator[RequestBlock]:
    end = int(np.searchsorted(block.arrival_ns, horizon_ns))
    if end:
        yield block.take(slice(0, end))
