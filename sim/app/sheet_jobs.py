"""The batch jobs of the capacity sheet: how long they take at best, with all seats to themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sim.app.sheet_load import Load
from sim.perf.capacity import capacity_sheet
from sim.rng import StreamKey
from sim.scenario.resolve import ReplicaKind, Resolved
from sim.units import NS_PER_S, seconds_text


@dataclass(frozen=True)
class JobReport:
    """The batch jobs of one service, which are all alike.

    Parameters
    ----------
    jobs : how many fall into the run. requests : of each. replica_s : time of one replica that takes nothing else, None where the
        lengths are unknown. at_best_s : on as many replicas as its autoscalers can want. due_s : None for any time.
    """

    service: str
    jobs: int
    requests: int
    replica_s: float | None
    at_best_s: float | None
    due_s: float | None


def job_reports(resolved: Resolved, loads: dict[str, Load]) -> list[JobReport]:
    """Return the jobs of every service that has any.

    Parameters
    ----------
    loads : by service.

    Raises
    ------
    InputError : a file of requests that cannot be read.
    """
    scenario = resolved.scenario
    found = []
    for name in filter(scenario.is_batch, scenario.services):
        key = StreamKey(scenario.seed, scenario.replication, "workload", name)
        jobs = scenario.services[name].workload.open(key, scenario.start_instant, scenario.horizon_ns).jobs
        if jobs:
            rates = {deployment: min(of_pools) for deployment, of_pools in _rates(name, resolved, loads[name]).items()}
            together = sum(scenario.deployments[each].autoscaler.most_replicas() * rate for each, rate in rates.items())
            requests, due_ns = jobs[0].requests, jobs[0].due_ns
            found.append(
                JobReport(
                    name,
                    len(jobs),
                    requests,
                    requests / max(rates.values()) if rates and max(rates.values()) else None,
                    requests / together if together else None,
                    None if due_ns is None else (due_ns - jobs[0].submit_ns) / NS_PER_S,
                )
            )
    return found


def _rates(service: str, resolved: Resolved, load: Load) -> dict[str, list[float]]:
    """Return requests per second of a replica of each deployment on each of its pools."""
    rates: dict[str, list[float]] = {}
    for (deployment, _), kind in resolved.kinds.items():
        if deployment in resolved.scenario.services[service].deployments and kind.config.backlog_seats != 0:
            rates.setdefault(deployment, []).append(_rate(kind, load))
    return rates


def _rate(kind: ReplicaKind, load: Load) -> float:
    config = kind.config
    if load.prompt_tokens is None or load.output_tokens is None:
        return 0.0
    try:
        sheet = capacity_sheet(
            kind.step,
            kind.kv_tokens,
            prompt_tokens=load.prompt_tokens,
            output_tokens=load.output_tokens,
            max_num_seqs=min(config.max_num_seqs, config.backlog_seats or config.max_num_seqs),
            max_num_batched_tokens=config.max_num_batched_tokens,
            cached_share=config.optimizations.prefix_cache_hit,
        )
    except ValueError:
        return 0.0  # its cache holds not even one mean request
    return sheet.requests_per_s


def job_warnings(reports: list[JobReport]) -> Iterator[str]:
    """Say which jobs cannot be done in time whatever else there is to do."""
    for report in reports:
        if report.at_best_s is not None and report.due_s is not None and report.at_best_s > report.due_s:
            yield (
                f"{report.service}: a job takes {seconds_text(report.at_best_s)} with all its seats to itself "
                f"and is due after {seconds_text(report.due_s)}"
            )
