"""Facts that a run records about machines, from which the bill is made: leases and slices of use."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Lease:
    """One node from RUNNING to its end: the unit of billing.

    Parameters
    ----------
    lease, node : numbers. pool, deployment, instance, purchase, zone : names.
    start_ns : entering RUNNING. end_ns : its end, or None while it runs.
    """

    lease: int
    node: int
    pool: str
    instance: str
    accelerators: int
    purchase: str
    zone: str
    start_ns: int
    end_ns: int | None = None
    end_cause: str = ""


@dataclass
class UsageSlice:
    """What one replica did on one lease during [start_ns, end_ns).

    booting_ns + ready_ns + draining_ns is the slice's length; ready and draining time contain `busy_ns`.

    Parameters
    ----------
    accelerators : how many of the lease's accelerators the replica holds.
    booting_ns : from the lease's RUNNING to the replica's READY. ready_ns : admitting. draining_ns : after a drain was ordered.
    busy_ns : engine stepping (in ready or draining time). draining_busy_ns : its part in draining time.
    lost_ns : share of busy time whose work was thrown away. shares_ns : share of busy time by stream.
    energy_j : energy of the accelerators while stepping.
    """

    lease: int
    replica: int
    deployment: str
    accelerators: int
    start_ns: int
    end_ns: int
    booting_ns: int = 0
    ready_ns: int = 0
    draining_ns: int = 0
    busy_ns: int = 0
    draining_busy_ns: int = 0
    lost_ns: float = 0.0
    shares_ns: dict[int, float] = field(default_factory=dict)
    energy_j: float = 0.0
