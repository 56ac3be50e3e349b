"""Why requests were not good, and which cause was behind each window that missed its goal.

The engines give every request that was not good one cause: an attempt that was killed, a preemption, a KV cache without room, a
wait for a replica with room, or none of these, which leaves the load on its replica. A wait for room is split here by what the
control plane was doing in the window in which the request left: the tables know when replicas were booting, how many were wanted,
and how many there were.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.results.periods import Calendar, period_of
from sim.results.records import RunResult
from sim.results.slo import TARGETS
from sim.results.windows import Ints, Windows, windows_by_service

# In the order in which they are asked for; the first that holds is the cause.
CAUSES = {
    "retried": "its replica was lost",
    "preempted": "preempted: KV cache full",
    "kv_full": "waited: KV cache full",
    "cold_start": "waited: a replica was booting",
    "no_capacity": "waited: no capacity for more",
    "at_maximum": "waited: fleet at its maximum",
    "scaled_late": "waited: no replica was asked for",
    "slow": "slow: the load on its replica",
    "too_long": "too long for the model",
    "throttled": "turned away by a budget",
}
_ENGINE_CAUSES = ("missed_retried", "missed_preempted", "missed_kv_full", "missed_queued", "missed_slow")
_NEVER = -1

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class WindowCauses:
    """Causes of one service, window by window of the measured time.

    Parameters
    ----------
    start_ns, end_ns : shape (windows,). counts : requests that were not good by cause, shape (windows,) each.
    missed : whether a target with a goal was missed in the window, shape (windows,).
    """

    start_ns: Ints
    end_ns: Ints
    counts: dict[str, Ints]
    missed: Flags

    def main_cause(self) -> list[str]:
        """Return the most frequent cause of each window, the earlier in `CAUSES` where two are equal; "" where all was good."""
        table = np.stack(list(self.counts.values()))
        names = list(self.counts)
        return [names[row] if table[row, column] else "" for column, row in enumerate(table.argmax(axis=0).tolist())]


@dataclass(frozen=True)
class CauseCount:
    """One cause of one service over the run.

    Parameters
    ----------
    requests : that were not good for it. share : of all that were not good, None where there were none.
    windows : that missed a goal and had it as their main cause. worst_ns : start of the window with most of it, None without any.
    worst_requests : how many in that window.
    """

    cause: str
    requests: int
    share: float | None
    windows: int
    worst_ns: int | None
    worst_requests: int


def causes(result: RunResult) -> dict[str, list[CauseCount]]:
    """Return the causes of each service, all of them and in the order of `CAUSES`, over the measured time."""
    found = {}
    for service, mine in causes_by_window(result).items():
        total = sum(int(counts.sum()) for counts in mine.counts.values())
        main = np.array(mine.main_cause(), dtype=object)
        rows = []
        for cause, counts in mine.counts.items():
            requests = int(counts.sum())
            worst = int(np.argmax(counts)) if requests else 0
            rows.append(
                CauseCount(
                    cause,
                    requests,
                    requests / total if total else None,
                    int((mine.missed & (main == cause)).sum()),
                    int(mine.start_ns[worst]) if requests else None,
                    int(counts[worst]) if requests else 0,
                )
            )
        found[service] = rows
    return found


def causes_by_period(result: RunResult, calendar: Calendar, unit: str) -> dict[str, dict[str, dict[str, int]]]:
    """Return requests that were not good by service, period and cause, over the measured time.

    Parameters
    ----------
    calendar : of the run. unit : "month" or "week".
    """
    found: dict[str, dict[str, dict[str, int]]] = {}
    for service, mine in causes_by_window(result).items():
        periods = calendar.periods(service, unit)
        number = period_of(periods, mine.start_ns)
        sums = {cause: np.zeros(len(periods), np.int64) for cause in CAUSES}
        for cause, counts in mine.counts.items():
            np.add.at(sums[cause], number, counts)
        found[service] = {period.label: {cause: int(sums[cause][row]) for cause in CAUSES} for row, period in enumerate(periods)}
    return found


def causes_by_window(result: RunResult) -> dict[str, WindowCauses]:
    """Return the causes of each service in each measured window."""
    columns = ["total", *(f"good_{target}" for target in TARGETS), "good_all", *_ENGINE_CAUSES, "throttled"]
    fleets = _Fleets(result)
    found = {}
    for service, windows in windows_by_service(result, columns).items():
        mine = windows.after_warmup()
        deployments = result.manifest["scenario"]["services"][service]["deployments"]
        counts = {cause: np.zeros(len(mine.start_ns), np.int64) for cause in CAUSES}
        for name in _ENGINE_CAUSES:
            if name != "missed_queued":
                counts[name.removeprefix("missed_")] += mine.columns[name]
        rest = mine.columns["missed_queued"] > 0
        for cause, holds in fleets.states(deployments, mine).items():
            counts[cause][rest & holds] = mine.columns["missed_queued"][rest & holds]
            rest &= ~holds
        counts["scaled_late"][rest] = mine.columns["missed_queued"][rest]
        known = sum(mine.columns[name] for name in _ENGINE_CAUSES)
        counts["throttled"] += mine.columns["throttled"]
        counts["too_long"] += mine.columns["total"] - mine.columns["good_all"] - known - mine.columns["throttled"]
        found[service] = WindowCauses(mine.start_ns, mine.end_ns, counts, _missed(mine, result.summary["slo"].get(service, {})))
    return found


def _missed(windows: Windows, slo: Mapping[str, Any]) -> Flags:
    total = windows.columns["total"]
    missed = np.zeros(len(total), np.bool_)
    for target in TARGETS:
        if target in slo:
            missed |= (total > 0) & (windows.columns[f"good_{target}"] < slo[target]["goal"] * total)
    return missed


class _Fleets:
    """What the control plane was doing, as stretches of time by deployment."""

    def __init__(self, result: RunResult) -> None:
        self._fleets: dict[str, dict[str, int]] = result.manifest["fleets"]
        self._replicas = result.table("replicas")
        self._decisions = result.table("decisions")

    def states(self, deployments: list[str], windows: Windows) -> dict[str, Flags]:
        """Return in which windows something of a service's deployments was so, the causes in the order of `CAUSES`."""
        holds = {cause: np.zeros(len(windows.start_ns), np.bool_) for cause in ("cold_start", "no_capacity", "at_maximum")}
        for deployment in deployments:
            for cause, stretches in zip(holds, (self._booting(deployment), *self._short_and_full(deployment)), strict=True):
                holds[cause] |= _overlap(stretches, windows)
        return holds

    def _booting(self, deployment: str) -> Ints:
        mine = self._mine(self._replicas, deployment)
        ready_ns = np.where(mine["ready_ns"] == _NEVER, mine["gone_ns"], mine["ready_ns"])
        return np.stack([mine["requested_ns"], ready_ns])

    def _short_and_full(self, deployment: str) -> tuple[Ints, Ints]:
        """When fewer replicas could be had than were wanted, and when all of the most it can want were there."""
        mine, decisions = self._mine(self._replicas, deployment), self._mine(self._decisions, deployment)
        fleet = self._fleets[deployment]
        leaves_ns = np.where(mine["drain_ns"] == _NEVER, mine["gone_ns"], mine["drain_ns"])
        times_ns, place = np.unique(
            np.concatenate([[0], mine["requested_ns"], leaves_ns, decisions["time_ns"]]).astype(np.int64), return_inverse=True
        )
        born, left, decided = np.split(place[1:], np.cumsum([len(leaves_ns), len(leaves_ns)]))
        alive, change = np.zeros(len(times_ns), np.int64), np.zeros(len(times_ns), np.int64)
        np.add.at(alive, born, 1)
        np.add.at(alive, left, -1)
        np.add.at(change, decided, (decisions["after"] - decisions["before"]).astype(np.int64))
        wanted = fleet["initial"] + np.cumsum(change)
        short = np.cumsum(alive) < wanted
        stretches = np.stack([times_ns, np.append(times_ns[1:], np.iinfo(np.int64).max)])
        return stretches[:, short], stretches[:, ~short & (wanted >= fleet["most"])]

    @staticmethod
    def _mine(table: Mapping[str, npt.NDArray[Any]], deployment: str) -> dict[str, npt.NDArray[Any]]:
        mine = table["deployment"] == deployment
        return {name: values[mine] for name, values in table.items()}


def _overlap(stretches: Ints, windows: Windows) -> Flags:
    """Whether any stretch of time (rows: starts, ends) shares more than an instant with each window."""
    starts, ends = stretches[:, stretches[0] < stretches[1]]
    begun = np.searchsorted(np.sort(starts), windows.end_ns, side="left")
    over = np.searchsorted(np.sort(ends), windows.start_ns, side="right")
    return np.asarray(begun > over, np.bool_)
