"""Batch jobs on the terminal."""

from __future__ import annotations

from datetime import timedelta

from rich.table import Table
from rich.text import Text

from sim.report.cells import cell, new_table, seconds_cell
from sim.results.jobs import VERDICTS, Job, jobs_of, summarize_jobs
from sim.results.records import RunResult
from sim.units import instant, usd

# Of a service with more jobs only those that were not done in time are listed, the latest of them.
MOST_LISTED = 8
_STYLES = {"in time": "green", "late": "bold red"}


def jobs_table(result: RunResult) -> Table | None:
    """Return the jobs of a run and, for each service with several, their sum; None where there are none."""
    jobs = jobs_of(result)
    if not jobs:
        return None
    start = instant(result.manifest["scenario"]["start"])
    table = new_table("BATCH JOBS by UTC of submission", "job", "requests", "waited", "took", "preempted", "USD", "verdict")
    for service in dict.fromkeys(job.service for job in jobs):
        table.add_row(cell(service))
        mine = [job for job in jobs if job.service == service]
        listed = mine if len(mine) <= MOST_LISTED else [job for job in mine if job.verdict in ("late", "open")][-MOST_LISTED:]
        for job in listed:
            submitted = start + timedelta(microseconds=job.submitted_ns // 1_000)
            table.add_row(f"  {job.number}: {submitted:%m-%d %H:%M}", *_cells(job))
        if len(mine) > 1:
            table.add_row(*_sum(mine), style="bold")
    return table


def _cells(job: Job) -> tuple[str | Text, ...]:
    rejected = job.counts["rejected"]
    waited_s = None if job.first_taken_ns < 0 else (job.first_taken_ns - job.submitted_ns) / 1e9
    return (
        f"{job.counts['requests']:,}",
        "0 s" if waited_s == 0 else seconds_cell(waited_s),
        seconds_cell(job.took_s),
        f"{job.counts['preempted']:,}",
        usd(job.cost_nano),
        Text(job.verdict + (f", {rejected:,} too long" if rejected else ""), _STYLES.get(job.verdict, "")),
    )


def _sum(jobs: list[Job]) -> tuple[str | Text, ...]:
    found = summarize_jobs(jobs)
    verdicts = ", ".join(f"{count} {verdict}" for verdict in VERDICTS if (count := found[verdict.replace(" ", "_")]))
    longest = "-" if found["longest_s"] is None else f"max {seconds_cell(found['longest_s'])}"
    cost = usd(sum(job.cost_nano for job in jobs))
    return (
        f"  {len(jobs)} jobs",
        f"{found['requests']:,}",
        "",
        longest,
        f"{found['preempted']:,}",
        cost,
        verdicts,
    )
