"""What a policy sees and says: the view of a deployment, and a decision with its reason."""

from __future__ import annotations

from dataclasses import dataclass

from sim.errors import Problems

NEVER_NS = (1 << 63) - 1


@dataclass(frozen=True)
class DeploymentView:
    """One deployment as a controller sees it at a look; cumulative numbers, consumers take differences.

    Parameters
    ----------
    time_ns : now, since the scenario start.
    wanted : replicas wanted by the last decision. ready, booting, draining : replicas by state.
    waiting, running : requests waiting for and running on its replicas, service queue included in `waiting`.
    arrived : arrivals so far of the services that use it.
    """

    time_ns: int
    wanted: int
    ready: int
    booting: int
    draining: int
    waiting: int
    running: int
    arrived: int


@dataclass(frozen=True)
class Decision:
    """How many replicas a policy wants, and the rule that bound."""

    replicas: int
    reason: str


class Autoscaler:
    """Base of all autoscalers: `decide` at each look, `next_look_ns` says when its inputs can next change its output."""

    def initial_replicas(self) -> int:
        """Replicas at the start of the scenario."""
        raise NotImplementedError

    def most_replicas(self) -> int:
        """The largest number it can ever want, for the capacity sheet."""
        raise NotImplementedError

    def decide(self, view: DeploymentView) -> Decision:
        """Return the wanted number of replicas."""
        raise NotImplementedError

    def next_look_ns(self, view: DeploymentView) -> int:
        """Return the time of the next look, after `view.time_ns`; `NEVER_NS` for none."""
        raise NotImplementedError

    def problems(self, path: str, problems: Problems) -> None:
        """Add what is wrong with the configuration."""
        raise NotImplementedError
