"""What a policy sees and says: the view of a deployment, and a decision with its reason."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sim.errors import Problems

NEVER_NS = (1 << 63) - 1


# Metrics of one replica, averaged over the metric window; the names a policy may ask for.
POD_METRICS = {
    "outstanding": "requests waiting and running on the replica",
    "running": "requests running on the replica",
    "waiting": "requests waiting on the replica",
    "kv_utilization": "KV in use over KV capacity, 0 to 1",
    "busy": "share of time in which the engine steps, 0 to 1",
}
# Metrics of the whole deployment.
EXTERNAL_METRICS = {
    "queue": "requests waiting anywhere, service queue included",
    "in_flight": "requests in the system",
    "requests_per_s": "arrivals per second",
}


@dataclass(frozen=True)
class MetricTiming:
    """How metrics reach a controller: scraped every so often, late, averaged over a window.

    Parameters
    ----------
    scrape_s : between two scrapes of every replica. delay_s : until a scrape can be seen.
    window_s : gauges are averaged, and counters turned into rates, over the scrapes of so long; one scrape at least.
    """

    scrape_s: float = 15.0
    delay_s: float = 0.0
    window_s: float = 0.0


@dataclass(frozen=True)
class Samples:
    """One metric as it has reached the controller: late, and averaged over a window.

    Parameters
    ----------
    age_ns : how old the sample is. per_pod : float64, by pod in the order of `DeploymentView.pods`, NaN where there is no sample.
    total : of a deployment-wide metric; NaN where there is no sample.
    """

    age_ns: int
    per_pod: npt.NDArray[np.float64]
    total: float


@dataclass(frozen=True)
class Pods:
    """The replicas of a deployment as an orchestrator sees them, oldest first; draining ones are being deleted and left out.

    Parameters
    ----------
    number : replica numbers. pending : no machine or image yet. ready : admitting. Neither: loading or warming up.
    age_ns : time since the replica was asked for. ready_ns : time since it became ready, 0 if it is not.
    """

    number: npt.NDArray[np.int64]
    pending: npt.NDArray[np.bool_]
    ready: npt.NDArray[np.bool_]
    age_ns: npt.NDArray[np.int64]
    ready_ns: npt.NDArray[np.int64]


@dataclass(frozen=True)
class DeploymentView:
    """One deployment as a controller sees it at a look.

    Parameters
    ----------
    time_ns : now, since the scenario start. wanted : replicas wanted by the last decision.
    pods : the replicas. draining : how many are on their way out.
    metrics : name -> samples, for the names the policy asked for in `metric_names`.
    """

    time_ns: int
    wanted: int
    pods: Pods
    draining: int
    metrics: dict[str, Samples]

    @property
    def ready(self) -> int:
        """Replicas that admit requests."""
        return int(self.pods.ready.sum())


@dataclass(frozen=True)
class Decision:
    """How many replicas a policy wants, and the rule that bound."""

    replicas: int
    reason: str


class Autoscaler:
    """Base of all autoscalers: `decide` at each look, `next_look_ns` says when its inputs can next change its output.

    Every run works on a copy of its own, so a policy may keep what it remembers between looks in attributes of its own.
    """

    def metric_names(self) -> list[str]:
        """Names of the metrics it wants to see, of `POD_METRICS` and `EXTERNAL_METRICS`."""
        return []

    def metric_timing(self) -> MetricTiming:
        """How its metrics come to it."""
        return MetricTiming()

    def initial_replicas(self) -> int:
        """Replicas at the start of the scenario."""
        raise NotImplementedError

    def most_replicas(self) -> int:
        """The largest number it can ever want, for the capacity sheet."""
        raise NotImplementedError

    def decide(self, view: DeploymentView) -> Decision:
        """Return the wanted number of replicas."""
        raise NotImplementedError

    def first_look_ns(self, phase: float) -> int:
        """Return the time of the first look; a clocked policy starts `phase` (0 to 1, drawn from the seed) of a period late."""
        return 0

    def next_look_ns(self, view: DeploymentView) -> int:
        """Return the time of the next look, after `view.time_ns`; `NEVER_NS` for none."""
        raise NotImplementedError

    def problems(self, path: str, problems: Problems) -> None:
        """Add what is wrong with the configuration."""
        raise NotImplementedError
