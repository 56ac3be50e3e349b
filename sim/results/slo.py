"""SLO arithmetic: which share of the requests that left was within its targets, over the run and by month or week."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sim.results.periods import Calendar, period_of
from sim.results.records import RunResult
from sim.results.windows import windows_by_service
from sim.scenario import Slo

TARGETS = ("ttft", "tpot", "e2e")
ALL_TARGETS = "all"

_COUNTS = """
    SELECT service, sum(total) AS total, sum(failed + rejected + abandoned) AS unserved, sum(good_ttft) AS ttft,
        sum(good_tpot) AS tpot, sum(good_e2e) AS e2e, sum(good_all) AS "all"
    FROM windows WHERE measured GROUP BY service
"""


def counts_by_service(result: RunResult) -> dict[str, dict[str, int]]:
    """Return `total`, `unserved` and the good requests of each target by service, over the measured time.

    A request counts in the window in which it leaves: completed, failed, rejected and abandoned all count in `total`.
    """
    columns = result.sql(_COUNTS)
    names = [name for name in columns if name != "service"]
    return {str(service): {name: int(columns[name][row]) for name in names} for row, service in enumerate(columns["service"])}


def attainments(counts: Mapping[str, int], slo: Slo) -> dict[str, dict[str, Any]]:
    """Return the attainment of each target of a service, and of all its targets together.

    Parameters
    ----------
    counts : of one service, from `counts_by_service`. slo : its targets; those that are None are left out.

    Returns
    -------
    by target: threshold in seconds, attainment (None when nothing left), good, total, goal and whether it is met. `all` has no
    threshold and no goal: the goal binds each target by itself.

    Examples
    --------
    >>> counts = {"total": 200, "unserved": 0, "ttft": 199, "tpot": 200, "e2e": 200, "all": 199}
    >>> found = attainments(counts, Slo(ttft_s=0.5, attainment=0.99))["ttft"]
    >>> found["attainment"], found["met"]
    (0.995, True)
    """
    total = counts["total"]
    found: dict[str, dict[str, Any]] = {}
    for target in TARGETS:
        threshold_s = getattr(slo, f"{target}_s")
        if threshold_s is not None:
            met = counts[target] / total >= slo.attainment if total else None
            found[target] = {**_attained(counts[target], total, threshold_s), "goal": slo.attainment, "met": met}
    if found:
        found[ALL_TARGETS] = {**_attained(counts[ALL_TARGETS], total, None), "goal": None, "met": None}
    return found


def availability(counts: Mapping[str, int]) -> float | None:
    """Return the share of requests that were served, 1 - (failed + rejected + abandoned) / total; None when nothing left.

    Examples
    --------
    >>> availability({"total": 1000, "unserved": 1})
    0.999
    """
    return 1 - counts["unserved"] / counts["total"] if counts["total"] else None


@dataclass(frozen=True)
class PeriodCounts:
    """What left in the measured time of one period of one service.

    Parameters
    ----------
    label : of the period. partial : whether a part of the period lies outside the run or in its warm-up.
    counts : `total`, `unserved` and the good requests of each target.
    """

    label: str
    partial: bool
    counts: dict[str, int]


_SUMS = {
    "total": ("total",),
    "unserved": ("failed", "rejected", "abandoned"),
    **{target: (f"good_{target}",) for target in (*TARGETS, ALL_TARGETS)},
}


def counts_by_period(result: RunResult, calendar: Calendar, unit: str) -> dict[str, list[PeriodCounts]]:
    """Return `counts_by_service` period by period: also the periods in which nothing left.

    Parameters
    ----------
    calendar : of the run. unit : "month" or "week", of the time zone of each service.
    """
    columns = [column for names in _SUMS.values() for column in names]
    found = {}
    for service, windows in windows_by_service(result, columns).items():
        periods = calendar.periods(service, unit)
        number = period_of(periods, windows.start_ns)
        sums = {}
        for name, parts in _SUMS.items():
            sums[name] = np.zeros(len(periods), np.int64)
            for part in parts:
                np.add.at(sums[name], number, windows.columns[part] * windows.measured)
        unmeasured = np.bincount(number, ~windows.measured, minlength=len(periods)) > 0
        found[service] = [
            PeriodCounts(period.label, period.partial or bool(unmeasured[row]), {name: int(sums[name][row]) for name in sums})
            for row, period in enumerate(periods)
        ]
    return found


def attainments_by_period(found: list[PeriodCounts], slo: Slo) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the attainment of each target of a service by period.

    Parameters
    ----------
    found : of one service, from `counts_by_period`. slo : its targets.

    Returns
    -------
    by target and label: attainment (None when nothing left), good, total, whether the goal is met, the share of the period's error
    budget that is left (negative where it is overspent; None without a goal, where it is 100 %, and where nothing left), and
    whether the period is partial. The budget of a period is (1 - goal) x total of that period: it is known when the period is over.

    Examples
    --------
    >>> counts = {"total": 200, "unserved": 0, "ttft": 199, "tpot": 200, "e2e": 200, "all": 199}
    >>> attainments_by_period([PeriodCounts("2026-03", True, counts)], Slo(ttft_s=0.5, attainment=0.99))["ttft"]
    {'2026-03': {'attainment': 0.995, 'good': 199, 'total': 200, 'met': True, 'budget_left': 0.5, 'partial': True}}
    """
    by_target: dict[str, dict[str, dict[str, Any]]] = {}
    for one in found:
        for target, attained in attainments(one.counts, slo).items():
            by_target.setdefault(target, {})[one.label] = {
                **{name: attained[name] for name in ("attainment", "good", "total", "met")},
                "budget_left": budget_left(attained["good"], attained["total"], attained["goal"]),
                "partial": one.partial,
            }
    return by_target


def period_attainments(summary: Mapping[str, Any], service: str, found: list[PeriodCounts]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return `attainments_by_period` of a saved run, whose summary holds the targets of the service.

    Parameters
    ----------
    summary : of the run. found : of the service, from `counts_by_period`.
    """
    slo = summary["slo"].get(service, {})
    targets = [target for target in TARGETS if target in slo]
    if not targets:
        return {}
    thresholds = {f"{target}_s": slo[target]["threshold"] for target in targets}
    return attainments_by_period(found, Slo(**thresholds, attainment=slo[targets[0]]["goal"]))


def budget_left(good: int, total: int, goal: float | None) -> float | None:
    """Return the share of an error budget of (1 - goal) x total bad requests that is left; None where there is no budget.

    Source: Google SRE workbook, "Implementing SLOs".

    Examples
    --------
    >>> budget_left(999, 1000, 0.998), budget_left(1000, 1000, 1.0)
    (0.5, None)
    """
    if goal is None or goal >= 1 or not total:
        return None
    # Rounded where only the representation of the goal is off, so that half of a budget is a half.
    return round(1 - (total - good) / ((1 - goal) * total), 12)


def _attained(good: int, total: int, threshold_s: float | None) -> dict[str, Any]:
    return {"threshold": threshold_s, "attainment": good / total if total else None, "good": good, "total": total}
