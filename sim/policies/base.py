"""What a policy sees and says: the view of a deployment, and a decision with its reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sim.errors import Problems

NEVER_NS = (1 << 63) - 1


# Metrics of one replica, averaged over the metric window; the names a policy may ask for. What the engine itself would report
# (running, KV, busy) has batch jobs in it; what says how much demand there is has not.
POD_METRICS = {
    "outstanding": "requests waiting and running on the replica, those of batch jobs left out",
    "running": "requests running on the replica, those of batch jobs among them",
    "waiting": "requests waiting on the replica, those of batch jobs left out",
    "kv_utilization": "KV in use over KV capacity, 0 to 1, batch jobs among it",
    "busy": "share of time in which the engine steps, 0 to 1, for batch jobs too",
}
# Metrics of the whole deployment.
EXTERNAL_METRICS = {
    "queue": "requests waiting anywhere, service queue included, those of batch jobs left out",
    "in_flight": "requests in the system, those of batch jobs left out",
    "requests_per_s": "arrivals per second, those of batch jobs left out",
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


class Samples(NamedTuple):
    """One metric as it has reached the controller: late, and averaged over a window.

    Parameters
    ----------
    age_ns : how old the sample is. per_pod : float64, by pod in the order of `DeploymentView.pods`, NaN where there is no sample.
    total : of a deployment-wide metric; NaN where there is no sample.
    """

    age_ns: int
    per_pod: npt.NDArray[np.float64]
    total: float


class Pods(NamedTuple):
    """The replicas of a deployment as an orchestrator sees them, oldest first; draining ones are being deleted and left out.

    Parameters
    ----------
    number : replica numbers. pending : no machine or image yet. ready : admitting. Neither: loading or warming up.
    requested_ns : when each was asked for. ready_since_ns : when each became ready; without meaning for the others.
    time_ns : now. some_pending : whether any is pending.

    Examples
    --------
    >>> one = np.array([1])
    >>> pods = Pods(one, one == 0, one == 1, one * 20, one * 50, time_ns=60, some_pending=False)
    >>> pods.age_ns.tolist(), pods.ready_ns.tolist()
    ([40], [10])
    """

    number: npt.NDArray[np.int64]
    pending: npt.NDArray[np.bool_]
    ready: npt.NDArray[np.bool_]
    requested_ns: npt.NDArray[np.int64]
    ready_since_ns: npt.NDArray[np.int64]
    time_ns: int
    some_pending: bool

    @property
    def age_ns(self) -> npt.NDArray[np.int64]:
        """Time since each was asked for."""
        return self.time_ns - self.requested_ns

    @property
    def ready_ns(self) -> npt.NDArray[np.int64]:
        """Time since each became ready, 0 if it is not."""
        return (self.time_ns - self.ready_since_ns) * self.ready


class DeploymentView(NamedTuple):
    """One deployment as a controller sees it at a look.

    Parameters
    ----------
    time_ns : now, since the scenario start. wanted : replicas wanted by the last decision.
    pods : the replicas. draining : how many are on their way out.
    metrics : name -> samples, for the names the policy asked for in `metric_names`.
    next_sample_ns : when newer samples can be seen; 0 where that may be at any time.
    """

    time_ns: int
    wanted: int
    pods: Pods
    draining: int
    metrics: dict[str, Samples]
    next_sample_ns: int = 0

    @property
    def ready(self) -> int:
        """Replicas that admit requests."""
        return int(np.count_nonzero(self.pods.ready))


class Decision:
    """How many replicas a policy wants, and the rule that bound.

    Parameters
    ----------
    reason : the rule in words, or a function that finds them: only the reasons of decisions that change something are read.

    Examples
    --------
    >>> Decision(3, "static"), Decision(3, lambda: "static").reason
    (Decision(3, 'static'), 'static')
    """

    __slots__ = ("_reason", "replicas")

    def __init__(self, replicas: int, reason: str | Callable[[], str]) -> None:
        self.replicas, self._reason = replicas, reason

    @property
    def reason(self) -> str:
        """The rule that bound."""
        return self._reason if isinstance(self._reason, str) else self._reason()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Decision) and (self.replicas, self.reason) == (other.replicas, other.reason)

    def __hash__(self) -> int:
        return hash((self.replicas, self.reason))

    def __repr__(self) -> str:
        return f"Decision({self.replicas}, {self.reason!r})"


class Autoscaler:
    """Base of all autoscalers: `decide` at each look, `next_look_ns` says when its inputs can next change its output.

    A policy with a clock (`clock_ns`) may leave out looks that could decide nothing: it names a later tick in `next_look_ns`, and
    is woken at the first tick after something has happened to the machines or replicas of the run.

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

    def clock_ns(self) -> int:
        """Return the period at which it would look if it left nothing out; 0 for a policy that looks only when it says."""
        return 0

    def next_look_ns(self, view: DeploymentView) -> int:
        """Return the time of the next look, after `view.time_ns`; `NEVER_NS` for none.

        With a clock: the first tick at which the answer could differ if nothing happened to any replica until then.
        """
        raise NotImplementedError

    def problems(self, path: str, problems: Problems) -> None:
        """Add what is wrong with the configuration."""
        raise NotImplementedError
