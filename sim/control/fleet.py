"""The replicas of a deployment as arrays, made anew only when something has happened to a replica or a machine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sim.control.nodes import ReplicaLife
from sim.control.provisioner import Provisioner
from sim.policies.base import Pods

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Roster:
    """The living replicas of a deployment between two changes, oldest first; draining ones are only counted.

    Parameters
    ----------
    number, plane_number : int64, in the scenario and in the data plane (-1 before it is ready).
    pending, ready : bool. requested_ns, ready_since_ns : int64, when it was asked for and when it became ready.
    some_pending : whether any is pending. draining : how many are on their way out.
    """

    number: IntArray
    plane_number: IntArray
    pending: BoolArray
    ready: BoolArray
    requested_ns: IntArray
    ready_since_ns: IntArray
    some_pending: bool
    draining: int

    @classmethod
    def of(cls, replicas: Iterable[ReplicaLife]) -> Roster:
        """Write down replicas as they are now."""
        living = list(replicas)
        pods = [replica for replica in living if not replica.is_draining]
        pending = [replica.is_pending for replica in pods]
        return cls(
            number=np.array([replica.number for replica in pods], np.int64),
            plane_number=np.array([replica.plane_number for replica in pods], np.int64),
            pending=np.array(pending, np.bool_),
            ready=np.array([replica.is_ready for replica in pods], np.bool_),
            requested_ns=np.array([replica.requested_ns for replica in pods], np.int64),
            ready_since_ns=np.array([replica.ready_ns for replica in pods], np.int64),
            some_pending=any(pending),
            draining=len(living) - len(pods),
        )

    def pods(self, now_ns: int) -> Pods:
        """Return them as a policy sees them."""
        return Pods(self.number, self.pending, self.ready, self.requested_ns, self.ready_since_ns, now_ns, self.some_pending)


class Fleet:
    """Keeps the roster of one deployment up to date."""

    def __init__(self, provisioner: Provisioner, deployment: str) -> None:
        self._provisioner, self._deployment = provisioner, deployment
        self._made_at = -1
        self._roster = Roster.of(())

    def roster(self) -> Roster:
        """Return the replicas as they are now; the same object as long as nothing has changed."""
        changes = self._provisioner.machines.changes
        if changes != self._made_at:
            self._made_at, self._roster = changes, Roster.of(self._provisioner.of(self._deployment))
        return self._roster
