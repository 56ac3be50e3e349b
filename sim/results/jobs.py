"""Batch jobs of a run: what became of each, and of those of a service together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sim.results.records import RunResult
from sim.units import NANO_PER_USD, NS_PER_S

VERDICTS = ("in time", "late", "open", "done")
_SUMMED = ("requests", "rejected", "completed", "failed", "preempted", "prompt_tokens", "output_tokens", "cost_nano_usd")


@dataclass(frozen=True)
class Job:
    """One batch job.

    Parameters
    ----------
    number : within its service. submitted_ns, begun_ns, first_taken_ns, finished_ns : times; -1 where there is none.
    verdict : one of `VERDICTS`. counts : sums of the table's columns by name, requests and tokens. cost_nano : what it cost.
    """

    service: str
    number: int
    submitted_ns: int
    begun_ns: int
    first_taken_ns: int
    finished_ns: int
    verdict: str
    counts: dict[str, int]

    @property
    def took_s(self) -> float | None:
        """Time from its submission to its end; None where it is not done."""
        return None if self.finished_ns < 0 else (self.finished_ns - self.submitted_ns) / NS_PER_S

    @property
    def cost_nano(self) -> int:
        """What its stream paid while it was worked on, overheads included."""
        return self.counts["cost_nano_usd"]


def jobs_of(result: RunResult) -> list[Job]:
    """Return the batch jobs of a run in order of submission."""
    rows = {name: values.tolist() for name, values in result.table("jobs").items()}
    return [
        Job(
            service,
            rows["job"][row],
            rows["submitted_ns"][row],
            rows["begun_ns"][row],
            rows["first_taken_ns"][row],
            rows["finished_ns"][row],
            rows["verdict"][row],
            {name: int(rows[name][row]) for name in _SUMMED},
        )
        for row, service in enumerate(rows["service"])
    ]


def summarize_jobs(jobs: list[Job]) -> dict[str, Any]:
    """Return what became of the jobs of one service together.

    Returns
    -------
    submitted : how many; `in_time`, `late`, `open` and `done` add up to it. The sums of their requests and tokens, what they cost,
    and `longest_s`, the time from submission to end of the slowest that is done; None where none is.
    """
    sums = {name: sum(job.counts[name] for job in jobs) for name in _SUMMED}
    cost_nano = sums.pop("cost_nano_usd")
    took_s = [job.took_s for job in jobs if job.took_s is not None]
    return {
        "submitted": len(jobs),
        **{verdict.replace(" ", "_"): sum(job.verdict == verdict for job in jobs) for verdict in VERDICTS},
        **sums,
        "usd": cost_nano / NANO_PER_USD,
        "longest_s": max(took_s, default=None),
    }
