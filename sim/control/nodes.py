"""Nodes and replicas as the control plane knows them: their stages, times and ends."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import simpy

from sim.domain.usage import Lease
from sim.rng import StreamKey
from sim.units import NS_PER_S

NOT_REACHED = -1
# The 95th percentile of a standard normal.
_Z95 = 1.6448536269514722


def stage_ns(key: StreamKey, median_s: float, p95_s: float) -> int:
    """Draw the duration of a cold-start stage: log-normal with this median and 95th percentile.

    Parameters
    ----------
    key : names the draw. median_s, p95_s : seconds; equal ones make the stage fixed.

    Examples
    --------
    >>> stage_ns(StreamKey(1, 0, "booting", "node 0"), 40.0, 40.0)
    40000000000
    """
    if median_s <= 0:
        return 0
    sigma = math.log(max(p95_s, median_s) / median_s) / _Z95
    return round(median_s * math.exp(sigma * float(key.generator().standard_normal())) * NS_PER_S)


@dataclass
class Node:
    """A rented machine and what lives on it; times are `NOT_REACHED` until they come.

    Parameters
    ----------
    up : SimPy event, triggered when replicas can start loading. holds : replica number -> accelerators it has here.
    notice_ns : when the provider announced to take it back.
    """

    number: int
    pool: str
    zone: str
    accelerators: int
    requested_ns: int
    up: simpy.Event
    lease: Lease | None = None
    running_ns: int = NOT_REACHED
    booted_ns: int = NOT_REACHED
    pulled_ns: int = NOT_REACHED
    notice_ns: int = NOT_REACHED
    gone_ns: int = NOT_REACHED
    cause: str = ""
    holds: dict[int, int] = field(default_factory=dict)

    @property
    def free_accelerators(self) -> int:
        """Accelerators a new replica could have: none once the node is about to be lost."""
        return self.accelerators - sum(self.holds.values()) if self.notice_ns == NOT_REACHED else 0

    @property
    def is_alive(self) -> bool:
        """Not given back and not lost."""
        return self.gone_ns == NOT_REACHED


@dataclass
class ReplicaLife:
    """One replica from request to end.

    Parameters
    ----------
    number : of the replica in the scenario.
    gang : the nodes it lives on with the accelerators it has there; it dies with any of them.
    plane_number : its id in its data plane, once it is ready.
    """

    number: int
    deployment: str
    pool: str
    plane: int
    gang: list[tuple[Node, int]]
    requested_ns: int
    plane_number: int = NOT_REACHED
    loaded_ns: int = NOT_REACHED
    ready_ns: int = NOT_REACHED
    drain_ns: int = NOT_REACHED
    gone_ns: int = NOT_REACHED
    cause: str = ""

    @property
    def accelerators(self) -> int:
        """Accelerators it holds on all its nodes."""
        return sum(accelerators for _, accelerators in self.gang)

    @property
    def is_pending(self) -> bool:
        """Without a machine, or the image is not there yet."""
        return any(node.pulled_ns == NOT_REACHED for node, _ in self.gang)

    @property
    def is_booting(self) -> bool:
        """Asked for, not yet ready."""
        return self.ready_ns == NOT_REACHED and self.gone_ns == NOT_REACHED

    @property
    def is_ready(self) -> bool:
        """Admitting requests."""
        return self.ready_ns != NOT_REACHED and self.drain_ns == NOT_REACHED and self.gone_ns == NOT_REACHED

    @property
    def is_draining(self) -> bool:
        """Told to drain and not yet gone."""
        return self.drain_ns != NOT_REACHED and self.gone_ns == NOT_REACHED
