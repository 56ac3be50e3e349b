"""Metrics on their way to a controller: scraped at a fixed period, seen late, averaged over a window.

Gauges (requests, KV) are the mean of the scrapes in the window, counters (busy time, arrivals) the difference between its ends, as
Prometheus would have them. A replica scraped less often than that, or not ready at the scrape, has no sample.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from sim.control.nodes import ReplicaLife
from sim.control.world import Plane
from sim.dataplane.layout import ARRIVED
from sim.policies.base import POD_METRICS, MetricTiming, Samples
from sim.units import NS_PER_S

_GAUGES = ("outstanding", "running", "waiting", "kv_utilization")


@dataclass(frozen=True)
class _Scrape:
    """What one scrape saw; pods by their number in the data plane."""

    time_ns: int
    gauges: dict[str, dict[int, float]]
    busy_ns: dict[int, int]
    queue: int
    in_flight: int
    arrived: int


class MetricsFeed:
    """The metrics pipeline of one deployment.

    Parameters
    ----------
    plane : the data plane it is served by. deployment : its name. timing : how metrics reach its controller.
    """

    def __init__(self, plane: Plane, deployment: str, timing: MetricTiming) -> None:
        self.plane, self.timing = plane, timing
        self.specs = {number for (name, _), number in plane.specs.items() if name == deployment}
        self.streams = sorted(plane.streams_of[deployment])
        self.scrapes: deque[_Scrape] = deque()

    def scrape(self, now_ns: int) -> None:
        """Look at every replica now, and forget what no window can reach any more."""
        view = self.plane.engine.view(now_ns)
        mine = [index for index, spec in enumerate(view.spec.tolist()) if spec in self.specs and view.accepting[index]]
        pods = view.replica[mine].tolist()
        capacity = [self.plane.engine_config.specs[spec].kv_tokens for spec in view.spec[mine].tolist()]
        columns = {
            "outstanding": view.outstanding[mine],
            "running": view.running[mine],
            "waiting": view.waiting[mine],
            "kv_utilization": view.kv_used_tokens[mine] / np.maximum(capacity, 1),
        }
        self.scrapes.append(
            _Scrape(
                now_ns,
                {name: dict(zip(pods, column.tolist(), strict=True)) for name, column in columns.items()},
                dict(zip(pods, view.busy_ns[mine].tolist(), strict=True)),
                int(view.queued[self.streams].sum()),
                int(view.in_flight[self.streams].sum()),
                int(view.counters[self.streams, ARRIVED].sum()),
            )
        )
        keep_ns = now_ns - round((self.timing.delay_s + self.timing.window_s + 2 * self.timing.scrape_s) * NS_PER_S)
        while len(self.scrapes) > 2 and self.scrapes[1].time_ns <= keep_ns:
            self.scrapes.popleft()

    def samples(self, now_ns: int, names: list[str], pods: list[ReplicaLife]) -> dict[str, Samples]:
        """Return the samples a controller sees now, for these replicas in this order."""
        seen_ns = now_ns - round(self.timing.delay_s * NS_PER_S)
        known = [scrape for scrape in self.scrapes if scrape.time_ns <= seen_ns]
        if not known:
            nothing = Samples(0, np.full(len(pods), np.nan), float("nan"))
            return dict.fromkeys(names, nothing)
        last = known[-1]
        first_ns = last.time_ns - round(self.timing.window_s * NS_PER_S)
        window = [scrape for scrape in known if scrape.time_ns > first_ns] or [last]
        before = known[-len(window) - 1] if len(known) > len(window) else known[0]
        return {name: self._sample(name, now_ns, window, before, pods) for name in names}

    @staticmethod
    def _sample(name: str, now_ns: int, window: list[_Scrape], before: _Scrape, pods: list[ReplicaLife]) -> Samples:
        last = window[-1]
        elapsed_ns = last.time_ns - before.time_ns
        per_pod, total = np.full(len(pods), np.nan), float("nan")
        if name in _GAUGES:
            for index, pod in enumerate(pods):
                values = [scrape.gauges[name][pod.plane_number] for scrape in window if pod.plane_number in scrape.gauges[name]]
                if pod.plane_number in last.gauges[name]:
                    per_pod[index] = float(np.mean(values))
        elif name in POD_METRICS:
            for index, pod in enumerate(pods):
                if elapsed_ns and pod.plane_number in last.busy_ns and pod.plane_number in before.busy_ns:
                    per_pod[index] = (last.busy_ns[pod.plane_number] - before.busy_ns[pod.plane_number]) / elapsed_ns
        elif name == "queue":
            total = float(np.mean([scrape.queue for scrape in window]))
        elif name == "in_flight":
            total = float(np.mean([scrape.in_flight for scrape in window]))
        elif elapsed_ns:
            total = (last.arrived - before.arrived) * NS_PER_S / elapsed_ns
        return Samples(now_ns - last.time_ns, per_pod, total)
