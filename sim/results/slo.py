"""SLO arithmetic: which share of the requests that left was within its targets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sim.results.records import RunResult
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


def _attained(good: int, total: int, threshold_s: float | None) -> dict[str, Any]:
    return {"threshold": threshold_s, "attainment": good / total if total else None, "good": good, "total": total}
