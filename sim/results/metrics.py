"""The summary of a run, computed from its tables alone.

Requests, tokens, money and energy are those of the whole run, so that everything adds up; latencies, SLO attainment and
availability are those of the measured time (after the warm-up). An amount of money in the summary is the float nearest to a whole
number of nano-dollars, so `round(usd * 1e9)` returns it exactly (below 2 million USD), and in nano-dollars every `by_*` adds up to
the total.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.bins import BINS, quantile_ns
from sim.results.budgets import budgets_in_summary
from sim.results.energy import energy
from sim.results.jobs import jobs_of, summarize_jobs
from sim.results.numbers import UNASSIGNED
from sim.results.periods import Calendar
from sim.results.records import RunResult
from sim.results.slo import (
    TARGETS,
    PeriodCounts,
    attainments,
    attainments_by_period,
    availability,
    counts_by_period,
    counts_by_service,
)
from sim.results.spikes import spikes_in_summary
from sim.results.users import users_by_service
from sim.scenario import Scenario, Slo
from sim.units import NANO_PER_USD, NS_PER_S

ONE_REPLICATION = "no interval: one replication"
QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
_COUNTED = ("arrived", "completed", "failed", "abandoned", "rejected", "unfinished", "retried")


def summarize(
    result: RunResult,
    scenario: Scenario,
    engine: Mapping[str, Any],
    bad_rows: Mapping[str, int] | None = None,
    sites: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return the content of `summary.json` (DESIGN section 9).

    Parameters
    ----------
    scenario : whose services have the targets. engine : name, times, speed and memory of the run, taken over as they are.
    bad_rows : rows of input files that were skipped, by service. sites : what the manifest says about the electricity of each pool.
    """
    skipped = dict(bad_rows or {})
    requests = requests_by_service(result)
    counts = counts_by_service(result)
    months = counts_by_period(result, Calendar.of(scenario.to_dict()), "month")
    latency = latency_by_service(result)
    tokens = tokens_by_service(result)
    in_items = [name for name in requests if scenario.in_items(name)]
    items = items_by_service(result)
    jobs = jobs_of(result)
    users = users_by_service(result)
    charges = bill(result, tokens, requests, in_items)
    nothing_left = dict.fromkeys(("total", "unserved", *TARGETS, "all"), 0)
    total_tokens = {kind: sum(service[kind] for service in tokens.values()) for kind in ("prompt", "output")}
    return {
        "requests": {name: sum(service[name] for service in requests.values()) for name in _COUNTED},
        "tokens": total_tokens,
        "bad_rows": sum(skipped.values()),
        "services": {
            name: {
                "requests": requests[name],
                "tokens": tokens[name],
                **_unit_costs(charges["by_service"].get(name, 0.0), requests[name]["completed"], items[name], name in in_items),
                **({"jobs": summarize_jobs([job for job in jobs if job.service == name])} if scenario.is_batch(name) else {}),
                "users": users.get(name),
                "bad_rows": skipped.get(name, 0),
                "availability": availability(counts.get(name, nothing_left)),
            }
            for name in requests
        },
        "latency": latency,
        "slo": {name: _slo(counts.get(name, nothing_left), months[name], scenario.services[name].slo) for name in requests},
        "bill": charges,
        "budgets": budgets_in_summary(result, scenario.start_instant),
        "spikes": spikes_in_summary(result),
        "energy": energy(result, in_items, sites or {}),
        "engine": dict(engine),
        "interval": ONE_REPLICATION,
    }


def _slo(counts: Mapping[str, int], months: list[PeriodCounts], slo: Slo) -> dict[str, dict[str, Any]]:
    """The attainment of each target over the run, and in it by month."""
    by_month = attainments_by_period(months, slo)
    return {target: {**found, "by_month": by_month[target]} for target, found in attainments(counts, slo).items()}


def requests_by_service(result: RunResult) -> dict[str, dict[str, int]]:
    """Return how requests fared over the whole run, by service in the order of their streams."""
    columns = result.sql("""
        SELECT service, min(stream) AS first, sum(arrived) AS arrived, sum(completed) AS completed, sum(failed) AS failed,
            sum(abandoned) AS abandoned, sum(rejected) AS rejected, sum(retried) AS retried,
            sum(in_flight_end) FILTER (end_ns = (SELECT max(end_ns) FROM windows)) AS unfinished
        FROM windows GROUP BY service ORDER BY first
    """)
    return {str(name): {kind: int(columns[kind][row]) for kind in _COUNTED} for row, name in enumerate(columns["service"])}


def tokens_by_service(result: RunResult) -> dict[str, dict[str, int]]:
    """Return prompt and output tokens of completed requests over the whole run, by service."""
    columns = result.sql("SELECT service, sum(prompt_tokens) AS prompt, sum(output_tokens) AS output FROM windows GROUP BY service")
    kinds = ("prompt", "output")
    return {str(name): {kind: int(columns[kind][row]) for kind in kinds} for row, name in enumerate(columns["service"])}


def items_by_service(result: RunResult) -> dict[str, int]:
    """Return the items of completed requests over the whole run, by service; 0 for services of tokens."""
    columns = result.sql("SELECT service, sum(items) AS items FROM windows GROUP BY service")
    return {str(name): int(items) for name, items in zip(*columns.values(), strict=True)}


def _unit_costs(cost_usd: float, completed: int, items: int, in_items: bool) -> dict[str, Any]:
    """What a service whose requests bring items has in place of tokens; None of it for a service of tokens."""
    if not in_items:
        return {}
    cost_nano = round(cost_usd * NANO_PER_USD)
    return {
        "items": items,
        "usd_per_1k_requests": _per(cost_nano, completed, 1_000),
        "usd_per_1k_items": _per(cost_nano, items, 1_000),
    }


def latency_by_service(result: RunResult) -> dict[str, dict[str, dict[str, float | None]]]:
    """Return exact means, and quantiles from the histograms of all segments together, in seconds; None where nothing completed."""
    histograms = histograms_by_service(result)
    empty = np.zeros(BINS, np.int64)
    windows = result.table("windows")
    found: dict[str, dict[str, dict[str, float | None]]] = {}
    for service in dict.fromkeys(windows["service"].tolist()):
        found[service] = {}
        for latency in TARGETS:
            counts = histograms.get((service, latency), empty)
            found[service][f"{latency}_s"] = {"mean": _mean_s(windows, service, latency), **quantiles_s(counts)}
    return found


def histograms_by_service(result: RunResult) -> dict[tuple[str, str], npt.NDArray[np.int64]]:
    """Return (service, latency) -> completions per bin, shape (BINS,), over the measured time; those of several runs add up."""
    histograms: dict[tuple[str, str], npt.NDArray[np.int64]] = {}
    table = result.sql("SELECT service, latency, bin, sum(count) AS count FROM histograms GROUP BY ALL ORDER BY ALL")
    for service, latency, number, count in zip(*table.values(), strict=True):
        histograms.setdefault((service, latency), np.zeros(BINS, np.int64))[number] += count
    return histograms


def quantiles_s(counts: npt.NDArray[np.int64]) -> dict[str, float | None]:
    """Return the quantiles of a latency histogram in seconds; None where it is empty."""
    return {name: _number(quantile_ns(counts, q) / NS_PER_S) for name, q in QUANTILES.items()}


def _mean_s(windows: Mapping[str, npt.NDArray[Any]], service: str, latency: str) -> float | None:
    counts = windows["tpot_count" if latency == "tpot" else "completed"]
    chosen = (windows["service"] == service) & windows["measured"] & (counts > 0)
    total = int(counts[chosen].sum())
    return math.fsum((windows[f"{latency}_mean_s"][chosen] * counts[chosen]).tolist()) / total if total else None


def bill(
    result: RunResult, tokens: Mapping[str, Mapping[str, int]], requests: Mapping[str, Mapping[str, int]], in_items: Sequence[str]
) -> dict[str, Any]:
    """Return the bill in total, by month, category, service, segment and use, per unit of work, and the share of assumed prices.

    Parameters
    ----------
    tokens : `prompt` and `output` tokens of the completed requests, by service. requests : how they fared, by service.
    in_items : services that have no tokens: their part of the bill does not count where it is divided by tokens.
    """
    owner = f"CASE WHEN stream < 0 THEN '{UNASSIGNED}' ELSE"
    total_nano = sum(_by(result, "category", "ledger").values())
    assumed_nano = _by(result, "confidence", "ledger").get("assumed", 0)
    by_service = _by(result, f"{owner} service END", "attribution")
    of_tokens_nano = total_nano - sum(by_service.get(name, 0) for name in in_items)
    output = sum(service["output"] for service in tokens.values())
    both = output + sum(service["prompt"] for service in tokens.values())
    completed = sum(service["completed"] for service in requests.values())
    return {
        "total_usd": total_nano / NANO_PER_USD,
        "by_month": _in_usd(_by(result, "month", "ledger")),
        "by_category": _in_usd(_by(result, "category", "ledger")),
        "by_service": _in_usd(by_service),
        "by_segment": _in_usd(_by(result, f"{owner} service || '/' || segment END", "attribution")),
        "by_use": _in_usd(_by(result, "use", "attribution")),
        "usd_per_1m_tokens": _per(of_tokens_nano, both, 1_000_000),
        "usd_per_1m_output_tokens": _per(of_tokens_nano, output, 1_000_000),
        "usd_per_1k_requests": _per(total_nano, completed, 1_000),
        "assumed_share": assumed_nano / total_nano if total_nano else None,
    }


def _by(result: RunResult, key: str, table: str) -> dict[str, int]:
    columns = result.sql(f"SELECT {key} AS key, sum(amount_nano_usd) AS amount FROM {table} GROUP BY ALL ORDER BY ALL")
    return {str(name): int(amount) for name, amount in zip(columns["key"], columns["amount"], strict=True)}


def _in_usd(amounts_nano: Mapping[str, int]) -> dict[str, float]:
    return {name: amount / NANO_PER_USD for name, amount in amounts_nano.items()}


def _per(amount_nano: int, units: int, lot: int) -> float | None:
    return amount_nano * lot / units / NANO_PER_USD if units else None


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
