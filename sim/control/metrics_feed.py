"""Metrics on their way to a controller: scraped at a fixed period, seen late, averaged over a window.

Gauges (requests, KV) are the mean of the scrapes in the window, counters (busy time, arrivals) the difference between its ends, as
Prometheus would have them. A replica that was not ready at the last scrape has no sample.

A scrape keeps integers only, one array for each metric. As long as the same replicas answer, gauges are also added up from scrape
to scrape, so that the mean over a window is a difference of two scrapes, however many lie in it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
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


class _Places:
    """Where each of some replicas is among those that answered a scrape.

    Parameters
    ----------
    answering : the replicas that answered. pods : the numbers in the data plane of those that are looked for.
    """

    def __init__(self, answering: _Answering, pods: IntArray) -> None:
        self.pods = pods
        self._equal = np.array_equal(answering.pods, pods)
        self._places = answering.places_of(pods)
        self._all_there = bool((self._places < len(answering.pods)).all())
        # Values of those that answered, and one more for those that did not.
        self._integers = np.zeros(len(answering.pods) + 1, np.int64)
        self._floats = np.full(len(answering.pods) + 1, _NAN)
        self.there = (self._places < len(answering.pods)).astype(np.int64)

    def arrange(self, values: FloatArray) -> FloatArray:
        """Return values in the order of `pods`, NaN for a replica that did not answer."""
        if self._equal:
            return values
        if self._all_there:
            return values.take(self._places)
        self._floats[:-1] = values
        return self._floats.take(self._places)

    def arrange_integers(self, values: IntArray) -> IntArray:
        """Return values in the order of `pods`, 0 for a replica that did not answer."""
        self._integers[:-1] = values
        return self._integers.take(self._places)


class _Scrape(NamedTuple):
    """What one scrape saw, by metric.

    Parameters
    ----------
    answering : who answered. since : the number of the first scrape that the same replicas answered, without a break.
    levels : of pod metrics, by replica. sums : the same; gauges are added up since these replicas answer together.
    totals : of external metrics; gauges are added up since the start.
    """

    time_ns: int
    answering: _Answering
    since: int
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
        self._engine, self._names = plane.engine, list(names)
        self._pod_columns = [(name, _COLUMNS[name]) for name in names if name in POD_METRICS]
        self._external_names = [name for name in names if name not in POD_METRICS]
        self._specs = np.zeros(len(plane.engine_config.specs), np.bool_)
        self._specs[[number for (name, _), number in plane.specs.items() if name == deployment]] = True
        self._capacity = np.array([max(spec.kv_tokens, 1) for spec in plane.engine_config.specs], np.float64)
        # Batch requests wait for room and not for replicas: they are no demand that more replicas would have to meet.
        backlogs = plane.engine_config.backlogs
        self._streams = [stream for stream in sorted(plane.streams_of[deployment]) if stream not in backlogs]
        self._delay_ns, self._window_ns = round(timing.delay_s * NS_PER_S), round(timing.window_s * NS_PER_S)
        self._period_ns = round(timing.scrape_s * NS_PER_S)
        self._reach_ns = self._delay_ns + self._window_ns + 2 * self._period_ns
        self.next_scrape_ns = first_ns
        # Scrapes that can be reached, with their times; those before them were forgotten.
        self._times: list[int] = []
        self._scrapes: list[_Scrape] = []
        self._forgotten = 0
        self._who = b""
        self._answering = _Answering(_NONE, _NONE, np.zeros(0))
        self._order: tuple[_Answering, Roster, _Places, FloatArray] | None = None
        # Where the replicas that answered the last scrape seen are among those of scrapes before.
        self._placed: _Answering | None = None
        self._placed_in: dict[_Answering, _Places] = {}
        # What the last look saw: it holds until another scrape can be seen or something happens to a replica.
        self._seen: tuple[_Scrape, _Scrape, Roster] | None = None
        self._answers: list[tuple[str, FloatArray, float]] = []

    # Scraping

    def scrape(self, now_ns: int) -> None:
        """Look at every replica now, and forget what no window can reach any more."""
        view = self._engine.view(now_ns)
        last = self._scrapes[-1] if self._scrapes else None
        answering = self._who_answers(view)
        levels: dict[str, IntArray] = {name: getattr(view, column).take(answering.rows) for name, column in self._pod_columns}
        if last is not None and last.answering is answering:
            since = last.since
            sums = {name: last.sums[name] + level if name in _GAUGES else level for name, level in levels.items()}
        else:
            since, sums = self._forgotten + len(self._scrapes), levels
        totals = {name: self._total(name, view, last) for name in self._external_names} if self._external_names else {}
        self._times.append(now_ns)
        self._scrapes.append(_Scrape(now_ns, answering, since, levels, sums, totals))
        self.next_scrape_ns = now_ns + self._period_ns
        if len(self._times) > _FORGET and self._times[_FORGET] <= now_ns - self._reach_ns:
            del self._times[:_FORGET], self._scrapes[:_FORGET]
            self._forgotten += _FORGET

    def _who_answers(self, view: View) -> _Answering:
        """Return the admitting replicas of the deployment; the same object as long as they are the same."""
        who = view.replica.tobytes() + view.accepting.tobytes()
        if who != self._who:
            self._who = who
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
        before = self._scrapes[oldest - 1 if oldest else 0]
        seen = self._seen
        if seen is None or seen[0] is not last or seen[1] is not before or seen[2] is not roster:
            places, nothing = self._order_of(last.answering, roster)
            self._answers = [(name, places.arrange(self._per_pod(name, oldest, newest)), _NAN) for name, _ in self._pod_columns]
            for name in self._external_names:
                self._answers.append((name, nothing, self._of_all(name, oldest, newest)))
            self._seen = last, before, roster
        age_ns = now_ns - last.time_ns
        return {name: Samples(age_ns, per_pod, total) for name, per_pod, total in self._answers}

    def _order_of(self, answering: _Answering, roster: Roster) -> tuple[_Places, FloatArray]:
        """Return where the replicas of a roster are among those that answered, and no value for each."""
        order = self._order
        if order is None or order[0] is not answering or order[1] is not roster:
            nothing = np.full(len(roster.number), _NAN)
            order = self._order = answering, roster, _Places(answering, roster.plane_number), nothing
        return order[2], order[3]

    def _per_pod(self, name: str, oldest: int, newest: int) -> FloatArray:
        """Return a pod metric of every replica that answered last, NaN for none.

        Parameters
        ----------
        oldest, newest : the first and the last scrape in the window.
        """
        last = self._scrapes[newest]
        if name not in _GAUGES:
            before = self._scrapes[oldest - 1 if oldest else 0]
            return self._growth(name, last, before) / ((last.time_ns - before.time_ns) or _NAN)
        if last.since - self._forgotten <= oldest:
            mean = self._sum(name, oldest, newest) / (newest - oldest + 1)
        else:
            mean = self._mean_of_some(name, oldest, newest)
        return mean / last.answering.capacity if name == "kv_utilization" else mean

    def _sum(self, name: str, first: int, last: int) -> IntArray:
        """Return a gauge added up over scrapes that the same replicas answered."""
        scrape = self._scrapes[last]
        if scrape.since - self._forgotten < first:
            return scrape.sums[name] - self._scrapes[first - 1].sums[name]
        return scrape.sums[name]

    def _together(self, oldest: int, newest: int) -> Iterator[tuple[int, int]]:
        """Yield the first and the last of the scrapes of a window that the same replicas answered, latest first."""
        while newest >= oldest:
            first = max(self._scrapes[newest].since - self._forgotten, oldest)
            yield first, newest
            newest = first - 1

    def _mean_of_some(self, name: str, oldest: int, newest: int) -> FloatArray:
        """Return the mean of a gauge over the scrapes that each of the last replicas answered."""
        answering = self._scrapes[newest].answering
        sums: IntArray | int = 0
        counts: IntArray | int = 0
        for first, last in self._together(oldest, newest):
            level, scrapes = self._sum(name, first, last), last - first + 1
            who = self._scrapes[last].answering
            if who is answering:
                sums, counts = sums + level, counts + scrapes
            else:
                places = self._places_in(who, answering)
                sums, counts = sums + places.arrange_integers(level), counts + scrapes * places.there
        return np.asarray(sums / counts)

    def _growth(self, name: str, last: _Scrape, before: _Scrape) -> IntArray | FloatArray:
        """Return how much a counter of each of the last replicas grew; NaN where it did not answer before."""
        if before.answering is last.answering:
            return last.levels[name] - before.levels[name]
        places = self._places_in(before.answering, last.answering)
        growth = last.levels[name] - places.arrange_integers(before.levels[name])
        return np.where(places.there != 0, growth, _NAN)

    def _places_in(self, answering: _Answering, pods_of: _Answering) -> _Places:
        """Return where the replicas that answered one scrape are among those that answered another."""
        if self._placed is not pods_of:
            self._placed, self._placed_in = pods_of, {}
        places = self._placed_in.get(answering)
        if places is None:
            places = self._placed_in[answering] = _Places(answering, pods_of.pods)
        return places

    def _of_all(self, name: str, oldest: int, newest: int) -> float:
        """Return a metric of the whole deployment; parameters as `_per_pod`."""
        last, before = self._scrapes[newest], self._scrapes[oldest - 1 if oldest else 0]
        if name == "requests_per_s":
            elapsed_ns = last.time_ns - before.time_ns
            return (last.totals[name] - before.totals[name]) * NS_PER_S / elapsed_ns if elapsed_ns else _NAN
        return (last.totals[name] - (before.totals[name] if oldest else 0)) / (newest - oldest + 1)
