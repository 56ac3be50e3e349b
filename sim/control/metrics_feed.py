"""Metrics on their way to a controller: scraped at a fixed period, seen late, averaged over a window.

Gauges (requests, KV) are the mean of the scrapes in the window, counters (busy time, arrivals) the difference between its ends, as
Prometheus would have them. A replica that was not ready at the last scrape has no sample.

A scrape keeps integers only, one array for each metric. As long as the same replicas answer, gauges are also added up from scrape
to scrape, so that the mean over a window is a difference of two scrapes, however many lie in it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sim.control.fleet import IntArray, Roster
from sim.control.world import Plane
from sim.dataplane.engine import View
from sim.dataplane.layout import ARRIVED, N_REJECTED_THROTTLED
from sim.policies.base import POD_METRICS, MetricTiming, Samples
from sim.units import NS_PER_S

FloatArray = npt.NDArray[np.float64]

# Column of a view behind each metric of a replica. Busy time is a counter, the others are gauges.
_GAUGES = {
    "outstanding": "outstanding",
    "running": "running",
    "waiting": "waiting",
    "kv_utilization": "kv_used_tokens",
}
_COLUMNS = {**_GAUGES, "busy": "busy_ns"}
_NAN = float("nan")
_NONE = np.zeros(0, np.int64)
# Scrapes that no window can reach any more are forgotten this many at a time.
_FORGET = 64


class _Answering:
    """The replicas that answer scrapes, as long as they are the same.

    Parameters
    ----------
    rows : of a view. pods : their numbers in the data plane. capacity : KV tokens of each, at least 1.
    """

    def __init__(self, rows: IntArray, pods: IntArray, capacity: FloatArray) -> None:
        self.rows, self.pods, self.capacity = rows, pods, capacity

    def places_of(self, pods: IntArray) -> IntArray:
        """Return where each of `pods` is in `self.pods`; the length of `self.pods` for those that are not there."""
        count = len(self.pods)
        if not count:
            return np.zeros(len(pods), np.int64)
        order = np.argsort(self.pods)
        places = order[np.minimum(np.searchsorted(self.pods[order], pods), count - 1)]
        return np.where(self.pods[places] == pods, places, count)


class _Order:
    """The order of a roster's replicas, for values of those that answer.

    Parameters
    ----------
    nothing : float64, NaN for every replica of the roster.
    """

    def __init__(self, answering: _Answering, roster: Roster) -> None:
        self.answering, self.roster = answering, roster
        self.nothing = np.full(len(roster.number), _NAN)
        self._equal = np.array_equal(answering.pods, roster.plane_number)
        self._places = answering.places_of(roster.plane_number)

    def arrange(self, values: FloatArray) -> FloatArray:
        """Return values in the order of the roster, NaN where a replica does not answer."""
        return values if self._equal else np.append(values, _NAN)[self._places]


class _Scrape(NamedTuple):
    """What one scrape saw, by metric.

    Parameters
    ----------
    levels : of pod metrics, by replica. sums : the same; gauges are added up since these replicas answer together.
    totals : of external metrics; gauges are added up since the start.
    """

    time_ns: int
    answering: _Answering
    levels: dict[str, IntArray]
    sums: dict[str, IntArray]
    totals: dict[str, int]


class MetricsFeed:
    """The metrics pipeline of one deployment.

    Parameters
    ----------
    plane : the data plane it is served by. deployment : its name. names : the metrics to keep.
    timing : how they reach the controller. first_ns : time of the first scrape.
    """

    def __init__(self, plane: Plane, deployment: str, names: Sequence[str], timing: MetricTiming, first_ns: int) -> None:
        self._plane, self._names = plane, list(names)
        self._pod_names = [name for name in names if name in POD_METRICS]
        self._external_names = [name for name in names if name not in POD_METRICS]
        self._specs = np.zeros(len(plane.engine_config.specs), np.bool_)
        self._specs[[number for (name, _), number in plane.specs.items() if name == deployment]] = True
        self._capacity = np.array([max(spec.kv_tokens, 1) for spec in plane.engine_config.specs], np.float64)
        # Batch requests wait for room and not for replicas: they are no demand that more replicas would have to meet.
        backlogs = plane.engine_config.backlogs
        self._streams = [stream for stream in sorted(plane.streams_of[deployment]) if stream not in backlogs]
        self._delay_ns, self._window_ns = round(timing.delay_s * NS_PER_S), round(timing.window_s * NS_PER_S)
        self._period_ns = round(timing.scrape_s * NS_PER_S)
        self.next_scrape_ns = first_ns
        self._times: list[int] = []
        self._scrapes: list[_Scrape] = []
        self._rows_key = b""
        self._answering = _Answering(_NONE, _NONE, np.zeros(0))
        self._order: _Order | None = None
        # What the last look saw: it holds until another scrape can be seen or something happens to a replica.
        self._seen: tuple[_Scrape, _Scrape, Roster] | None = None
        self._answers: list[tuple[str, FloatArray, float]] = []

    # Scraping

    def scrape(self, now_ns: int) -> None:
        """Look at every replica now, and forget what no window can reach any more."""
        view = self._plane.engine.view(now_ns)
        answering, last = self._who_answers(view), self._scrapes[-1] if self._scrapes else None
        levels = {name: getattr(view, _COLUMNS[name]).take(answering.rows) for name in self._pod_names}
        sums = levels
        if last is not None and last.answering is answering:
            sums = {name: last.sums[name] + level if name in _GAUGES else level for name, level in levels.items()}
        totals = {name: self._total(name, view, last) for name in self._external_names}
        self._times.append(now_ns)
        self._scrapes.append(_Scrape(now_ns, answering, levels, sums, totals))
        self.next_scrape_ns = now_ns + self._period_ns
        reach_ns = now_ns - self._delay_ns - self._window_ns - 2 * self._period_ns
        if len(self._times) > _FORGET and self._times[_FORGET] <= reach_ns:
            del self._times[:_FORGET], self._scrapes[:_FORGET]

    def _who_answers(self, view: View) -> _Answering:
        """Return the admitting replicas of the deployment; the same object as long as they are the same."""
        key = view.replica.tobytes() + view.accepting.tobytes()
        if key != self._rows_key:
            self._rows_key = key
            rows = np.flatnonzero(self._specs[view.spec] & (view.accepting != 0))
            self._answering = _Answering(rows, view.replica[rows], self._capacity[view.spec[rows]])
        return self._answering

    def _total(self, name: str, view: View, last: _Scrape | None) -> int:
        if name == "requests_per_s":
            # A request that a budget turns away is no demand: more replicas would not serve it.
            counters = view.counters[self._streams]
            return int(counters[:, ARRIVED].sum() - counters[:, N_REJECTED_THROTTLED].sum())
        level: list[int] = (view.queued if name == "queue" else view.in_flight).tolist()
        so_far: int = 0 if last is None else last.totals[name]
        return sum([level[stream] for stream in self._streams], so_far)

    # Seeing

    def next_sample_ns(self, now_ns: int) -> int:
        """Return when a scrape can be seen that cannot be seen now."""
        after = bisect_right(self._times, now_ns - self._delay_ns)
        return (self._times[after] if after < len(self._times) else self.next_scrape_ns) + self._delay_ns

    def samples(self, now_ns: int, roster: Roster) -> dict[str, Samples]:
        """Return the samples a controller sees now, by name, for the replicas of a roster in its order."""
        newest = bisect_right(self._times, now_ns - self._delay_ns) - 1
        if newest < 0:
            nobody = Samples(0, np.full(len(roster.number), _NAN), _NAN)
            return dict.fromkeys(self._names, nobody)
        last = self._scrapes[newest]
        oldest = min(bisect_right(self._times, last.time_ns - self._window_ns), newest)
        before = self._scrapes[max(oldest - 1, 0)]
        if self._seen is None or self._seen[0] is not last or self._seen[1] is not before or self._seen[2] is not roster:
            window = self._scrapes[oldest : newest + 1]
            order = self._order_of(last.answering, roster)
            self._answers = [(name, order.arrange(_per_pod(name, window, before)), _NAN) for name in self._pod_names]
            self._answers += [(name, order.nothing, _of_all(name, window, before)) for name in self._external_names]
            self._seen = last, before, roster
        age_ns = now_ns - last.time_ns
        return {name: Samples(age_ns, per_pod, total) for name, per_pod, total in self._answers}

    def _order_of(self, answering: _Answering, roster: Roster) -> _Order:
        if self._order is None or self._order.answering is not answering or self._order.roster is not roster:
            self._order = _Order(answering, roster)
        return self._order


def _per_pod(name: str, window: Sequence[_Scrape], before: _Scrape) -> FloatArray:
    """Return a pod metric of every replica that answered last, NaN for none.

    Parameters
    ----------
    window : the scrapes in it, oldest first. before : the scrape before it, or its first one where there is none.
    """
    last = window[-1]
    if name not in _GAUGES:
        elapsed_ns = last.time_ns - before.time_ns
        return _growth(name, last, before) / (elapsed_ns or _NAN)
    same = window[0].answering is last.answering
    mean = _sum(name, window, before) / len(window) if same else _mean_of_some(name, window, before)
    return mean / last.answering.capacity if name == "kv_utilization" else mean


def _sum(name: str, window: Sequence[_Scrape], before: _Scrape) -> IntArray:
    """Return a gauge added up over scrapes that the same replicas answered."""
    if before is window[0] or before.answering is not window[0].answering:
        return window[-1].sums[name]
    return window[-1].sums[name] - before.sums[name]


def _mean_of_some(name: str, window: Sequence[_Scrape], before: _Scrape) -> FloatArray:
    """Return the mean of a gauge over the scrapes that each of the last replicas answered."""
    pods = window[-1].answering.pods
    sums, counts = np.zeros(len(pods), np.int64), np.zeros(len(pods), np.int64)
    for answering, scrapes in groupby(window, lambda scrape: scrape.answering):
        together = list(scrapes)
        places = answering.places_of(pods)
        sums += np.append(_sum(name, together, before), 0)[places]
        counts += np.append(np.full(len(answering.pods), len(together)), 0)[places]
    return sums / counts


def _growth(name: str, last: _Scrape, before: _Scrape) -> IntArray | FloatArray:
    """Return how much a counter of each of the last replicas grew; NaN where it did not answer before."""
    if before.answering is last.answering:
        return last.levels[name] - before.levels[name]
    places = before.answering.places_of(last.answering.pods)
    growth = last.levels[name] - np.append(before.levels[name], 0)[places]
    return np.where(places < len(before.answering.pods), growth, _NAN)


def _of_all(name: str, window: Sequence[_Scrape], before: _Scrape) -> float:
    """Return a metric of the whole deployment; parameters as `_per_pod`."""
    last = window[-1].totals[name]
    if name == "requests_per_s":
        elapsed_ns = window[-1].time_ns - before.time_ns
        return (last - before.totals[name]) * NS_PER_S / elapsed_ns if elapsed_ns else _NAN
    return (last - (0 if before is window[0] else before.totals[name])) / len(window)
