"""Batch jobs: many requests at once, at one time or every day, to be worked off when nothing else wants the room."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from functools import partial
from zoneinfo import ZoneInfo

import numpy as np

from sim.domain.traffic import BLOCK_REQUESTS, BatchJob, RequestBlock, Source
from sim.errors import Problems
from sim.registry import register
from sim.rng import StreamKey
from sim.units import duration_ns, instant
from sim.workload.base import ExpectedLoad, OpenedSource, Workload, random_words
from sim.workload.lengths import RequestLengths
from sim.workload.presets import check_preset, preset
from sim.workload.readers import FORMATS, TraceRows, read_trace
from sim.workload.specs import MICROSECOND, TokenLengths, check_duration, is_instant
from sim.workload.trace import check_trace_file

MOST_REQUESTS = 10**10
_CLOCK = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")
_WHEN = "a time of every day such as '22:00' (in quotes), a date such as 2026-10-06T22:00:00Z, or since the start such as 36h"


@register("workload", "backlog")
@dataclass
class Backlog(Workload):
    """Batch jobs of so many requests, or of the rows of a file, submitted once or every day.

    Parameters
    ----------
    requests : of each job; None for all rows of the file. path : a trace whose rows are the requests, in order of time; their times
        do not matter. format, max_bad_rows : as of a trace.
    preset : whose mixtures the family "preset" means. prompt, output : lengths. spearman : their rank correlation; None for the
        preset's.
    submit_at : "22:00" for every day at that time, else once: a date, or a duration since the scenario start.
    timezone : of a time of day.
    due : how long after its submission a job is to be done; "" for any time.
    """

    requests: int | None = None
    path: str = ""
    format: str = "auto"
    max_bad_rows: int = 0
    preset: str = "chat-azure-2023"
    prompt: TokenLengths = field(default_factory=TokenLengths)
    output: TokenLengths = field(default_factory=TokenLengths)
    spearman: float | None = None
    submit_at: str = "0s"
    timezone: str = "UTC"
    due: str = ""

    def problems(self, path: str, problems: Problems) -> None:
        """Add everything that is wrong with the configuration, a missing file among it."""
        if self.path:
            check_trace_file(self.path, f"{path}.path", problems)
            problems.check(self.format in FORMATS, f"{path}.format", self.format, "is not a format of traces", choices=FORMATS)
            problems.check(self.max_bad_rows >= 0, f"{path}.max_bad_rows", self.max_bad_rows, "must not be negative", ">= 0")
        else:
            check_preset(self.preset, f"{path}.preset", problems)
            self.prompt.problems(f"{path}.prompt", problems)
            self.output.problems(f"{path}.output", problems)
            within = self.spearman is None or -0.99 <= self.spearman <= 0.99
            problems.check(within, f"{path}.spearman", self.spearman, "is out of range", "-0.99 to 0.99")
            given = self.requests is not None
            problems.check(given, f"{path}.requests", None, "must be given where there is no path", f"1 to {MOST_REQUESTS:,}")
        if self.requests is not None:
            within = 1 <= self.requests <= MOST_REQUESTS
            problems.check(within, f"{path}.requests", self.requests, "is out of range", f"1 to {MOST_REQUESTS:,}")
        if not _CLOCK.fullmatch(self.submit_at) and not is_instant(self.submit_at):
            check_duration(self.submit_at, f"{path}.submit_at", problems, _WHEN)
        try:
            ZoneInfo(self.timezone)
        except (ValueError, OSError, LookupError):
            problems.add(f"{path}.timezone", self.timezone, "is not a time zone", "for instance Europe/Berlin")
        if self.due:
            check_duration(self.due, f"{path}.due", problems, "such as 8h, or nothing for any time")

    def is_backlog(self) -> bool:
        """Its requests come as batch jobs."""
        return True

    def expected_load(self, start: datetime, horizon_ns: int) -> ExpectedLoad:
        """Return the requests of all jobs spread over the horizon, which is as good as any time for them; of a file nothing."""
        if self.path or self.requests is None:
            return ExpectedLoad()
        rate_per_s = self.requests * len(self._submitted_ns(start, horizon_ns)) * 1e9 / horizon_ns
        lengths = self._lengths()
        return ExpectedLoad(rate_per_s, rate_per_s, lengths.prompt.mean, lengths.output.mean)

    def open(self, key: StreamKey, start: datetime, horizon_ns: int) -> Source:
        """Read the file, if there is one, and name the jobs; see `Workload.open`."""
        due_ns = duration_ns(self.due) if self.due else None
        if self.path:
            rows = read_trace(self.path, self.format, self.max_bad_rows)
            requests = rows.rows if self.requests is None else min(self.requests, rows.rows)
            draw = partial(_of_file, rows, requests, key)
            bad_rows, inputs, most_tokens = rows.bad_rows, {self.path: rows.sha256}, rows.most_tokens()
        else:
            assert self.requests is not None
            lengths = self._lengths()
            requests, draw = self.requests, partial(_drawn, lengths, self.requests, key)
            bad_rows, inputs, most_tokens = 0, {}, lengths.prompt.largest + lengths.output.largest
        jobs = tuple(
            BatchJob(number, at_ns, None if due_ns is None else at_ns + due_ns, requests, most_tokens, partial(draw, number))
            for number, at_ns in enumerate(self._submitted_ns(start, horizon_ns))
        )
        return OpenedSource(lambda: iter(()), jobs=jobs, bad_rows=bad_rows, inputs=inputs)

    def _submitted_ns(self, start: datetime, horizon_ns: int) -> list[int]:
        """Return the times of submission in the run."""
        clock = _CLOCK.fullmatch(self.submit_at)
        if clock is None:
            once_ns = _since(start, instant(self.submit_at)) if is_instant(self.submit_at) else duration_ns(self.submit_at)
            return [once_ns] if 0 <= once_ns < horizon_ns else []
        zone, at = ZoneInfo(self.timezone), time(int(clock[1]), int(clock[2]))
        first = start.astimezone(zone).date()
        days = range(-(-horizon_ns // (86_400 * 10**9)) + 2)
        times_ns = [_since(start, datetime.combine(first + timedelta(days=day), at, zone)) for day in days]
        return [at_ns for at_ns in times_ns if 0 <= at_ns < horizon_ns]

    def _lengths(self) -> RequestLengths:
        base = preset(self.preset)
        spearman = base.spearman if self.spearman is None else self.spearman
        return RequestLengths(self.prompt.distribution(base.prompt), self.output.distribution(base.output), spearman)


def _since(start: datetime, moment: datetime) -> int:
    # Between instants: the difference of two local times of one zone would leave out a change of its clocks.
    return (instant(moment.isoformat()) - start) // MICROSECOND * 1_000


def _drawn(lengths: RequestLengths, requests: int, key: StreamKey, number: int) -> Iterator[RequestBlock]:
    """Draw the requests of a job, block by block."""
    words_of = key.about(f"workload/job {number}")
    for block, first in enumerate(range(0, requests, BLOCK_REQUESTS)):
        words = random_words(words_of, block, min(BLOCK_REQUESTS, requests - first))
        prompt, output = lengths.draw(words)
        yield RequestBlock.of(arrival_ns=np.zeros(len(words), np.int64), prompt_tokens=prompt, output_tokens=output, tag=words)


def _of_file(rows: TraceRows, requests: int, key: StreamKey, number: int) -> Iterator[RequestBlock]:
    """Read the requests of a job, page by page."""
    words_of = key.about(f"workload/job {number}")
    for block, first in enumerate(range(0, requests, BLOCK_REQUESTS)):
        page = rows.page(first, min(BLOCK_REQUESTS, requests - first))
        words = random_words(words_of, block, len(page["prompt"]))
        yield RequestBlock.of(
            arrival_ns=np.zeros(len(words), np.int64), prompt_tokens=page["prompt"], output_tokens=page["output"], tag=words
        )
