"""The targets of a run in words: which was missed, and by how much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sim.report.style import percent, seconds, shown
from sim.results.slo import TARGETS

MEANINGS = {"ttft": "time to first token", "tpot": "time per output token", "e2e": "end to end"}


@dataclass(frozen=True)
class Target:
    """One target of one service with what was attained.

    Parameters
    ----------
    latency : "ttft", "tpot" or "e2e". threshold_s : in seconds. goal, attainment : shares. good, total : requests.
    """

    service: str
    latency: str
    threshold_s: float
    goal: float
    attainment: float
    good: int
    total: int
    met: bool

    @property
    def words(self) -> str:
        """The target and how many requests were within it."""
        within = f"{self.latency.upper()} within {seconds(self.threshold_s)} for {percent(self.attainment)} of requests"
        return f"{within} (goal {percent(self.goal)})"

    @property
    def spent(self) -> float:
        """Bad requests per allowed bad request: above 1 the goal is missed; infinite where none was allowed and one was bad."""
        allowed = (1 - self.goal) * self.total
        bad = self.total - self.good
        return bad / allowed if allowed else float("inf") if bad else 0.0


def targets(summary: Mapping[str, Any]) -> list[Target]:
    """Return the targets of a run on which at least one request was judged, by service and in the order TTFT, TPOT, E2E."""
    return [
        Target(service, latency, slo["threshold"], slo["goal"], slo["attainment"], slo["good"], slo["total"], slo["met"])
        for service, found in summary["slo"].items()
        for latency in TARGETS
        if (slo := found.get(latency)) is not None and slo["attainment"] is not None
    ]


def finding(summary: Mapping[str, Any]) -> str:
    """Return the state of a run's targets as one sentence: all of them where there are few, else how many and the worst.

    Examples
    --------
    >>> slo = {"threshold": 0.05, "goal": 0.99, "attainment": 0.979, "good": 979, "total": 1000, "met": False}
    >>> finding({"slo": {"chat": {"tpot": slo}}})
    'TPOT within 50 ms for 97.9 % of requests (goal 99 %)'
    """
    found = targets(summary)
    if not found:
        return "No latency target was judged in this run"
    several = len({target.service for target in found}) > 1
    worst = max(found, key=lambda target: target.spent)
    words = f"{shown(worst.service)} has {worst.words}" if several else worst.words
    if len(found) == 1:
        return words
    missed = sum(not target.met for target in found)
    count = f"{missed} of {len(found)} targets missed" if missed else f"All {len(found)} targets met"
    return f"{count}; {'worst' if missed else 'closest'}: {words}"
