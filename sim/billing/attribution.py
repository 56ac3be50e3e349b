"""Who caused a charge: every ledger row is split into busy (by stream), booting, idle, draining and lost.

The weights of a row are gathered slice by slice while its time passes. Rules for one replica's slice, all in accelerator time:

- booting, draining (draining time not stepping), idle (ready time not stepping) and lost are overheads of its deployment;
- lost is at most the slice's busy time: what was thrown away of earlier slices stays where it was booked;
- the rest of the busy time goes to streams by their shares in the slice. Shares accrue at step ends, so a slice inside one long
  step has none: it goes by the replica's shares of its latest slice that had some, and is idle if there was none;
- accelerators of the machine that no replica holds are idle with deployment "".

Overheads are paid by the streams of their deployment: by busy time in the same row, else by busy time in the run so far, else
equally among the streams that may use the deployment. For deployment "" these are the deployments seen on the lease so far.
Stream -1 pays only where there is no such stream.

Charges without a lease have the use "shared" and no slice: whoever books them says by which weights, or for which deployments.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sim.billing.energy import MachinePower
from sim.domain.usage import UsageSlice

NO_STREAM = -1
UNHELD = ""
BUSY, BOOTING, IDLE, DRAINING, LOST = "busy", "booting", "idle", "draining", "lost"
SHARED = "shared"
_WEIGHT_BITS = 52

# (start of the slice in ns, use, deployment, stream)
PartKey = tuple[int, str, str, int]


def largest_remainder(amount_nano: int, weights: Sequence[float]) -> list[int]:
    """Split an amount in proportion to weights into integers that add up to it exactly.

    Every part is first rounded down; what is left goes, one nano-dollar each, to the largest remainders, ties to the lowest index
    (Hamilton's method). Weights are taken to 52 bits of the largest, and everything after that is integer arithmetic, so the
    result is the same on every platform. If all weights are zero the split is equal.

    Parameters
    ----------
    amount_nano : below 0 for money that comes back, which is split like money that goes. weights : finite, not negative, at least
        one.

    Raises
    ------
    ValueError : no weights, or a weight that is negative or not finite.

    Examples
    --------
    >>> largest_remainder(100, [1, 1, 1]), largest_remainder(3, [0, 0]), largest_remainder(-3, [1, 1])
    ([34, 33, 33], [2, 1], [-2, -1])
    """
    if amount_nano < 0:
        return [-part for part in largest_remainder(-amount_nano, weights)]
    largest = max(weights, default=-1.0)
    if largest < 0 or not all(0 <= weight < math.inf for weight in weights):
        raise ValueError(f"weights = {list(weights)}: at least one is needed, all finite and not negative")
    scaled = [int(weight / largest * (1 << _WEIGHT_BITS)) for weight in weights] if largest > 0 else [1] * len(weights)
    total = sum(scaled)
    parts, remainders = [], []
    for weight in scaled:
        part, remainder = divmod(amount_nano * weight, total)
        parts.append(part)
        remainders.append(remainder)
    left = amount_nano - sum(parts)
    for index in sorted(range(len(parts)), key=lambda index: -remainders[index])[:left]:
        parts[index] += 1
    return parts


@dataclass
class Weights:
    """What a part of a row is proportional to: accelerator time (money for the machine) or joules (money for energy)."""

    accelerator_ns: float = 0.0
    joules: float = 0.0


@dataclass
class RowWeights:
    """Weights of the parts of one row, gathered while its time passes."""

    busy: dict[PartKey, Weights] = field(default_factory=dict)
    overhead: dict[tuple[int, str, str], Weights] = field(default_factory=dict)

    @property
    def joules(self) -> float:
        """Energy of the machine in the row's time."""
        return math.fsum(weights.joules for parts in (self.busy, self.overhead) for weights in parts.values())

    def add_busy(self, key: PartKey, accelerator_ns: float, joules: float) -> None:
        """Add to the part of a stream."""
        weights = self.busy.setdefault(key, Weights())
        weights.accelerator_ns += accelerator_ns
        weights.joules += joules

    def add_overhead(self, key: tuple[int, str, str], accelerator_ns: float, joules: float) -> None:
        """Add to an overhead of a deployment; nothing is kept of nothing."""
        if accelerator_ns > 0 or joules > 0:
            weights = self.overhead.setdefault(key, Weights())
            weights.accelerator_ns += accelerator_ns
            weights.joules += joules


class Attribution:
    """Gathers the weights of rows and decides who pays; its memory is bounded by streams and living replicas.

    Parameters
    ----------
    deployment_streams : numbers of the streams that may use each deployment.
    """

    def __init__(self, deployment_streams: Mapping[str, Iterable[int]]) -> None:
        self._may_use = {name: sorted(set(streams)) for name, streams in deployment_streams.items()}
        self._busy_so_far: dict[str, dict[int, float]] = {name: {} for name in self._may_use}
        self._latest_shares: dict[tuple[int, int], dict[int, float]] = {}

    def add(self, row: RowWeights, power: MachinePower, start_ns: int, end_ns: int, slices: Sequence[UsageSlice]) -> None:
        """Add the use of one lease during [start_ns, end_ns) to the weights of its open row.

        Raises
        ------
        ValueError : the slices hold more accelerator time than the machine has.
        """
        unheld_ns = power.accelerators * (end_ns - start_ns)
        for piece in slices:
            unheld_ns -= piece.accelerators * (piece.end_ns - piece.start_ns)
            self._add_slice(row, power, start_ns, piece)
        if unheld_ns < 0:
            raise ValueError(f"slices in [{start_ns}, {end_ns}) ns hold {-unheld_ns} accelerator-ns more than the machine has")
        if unheld_ns:
            row.add_overhead((start_ns, IDLE, UNHELD), unheld_ns, power.idle_j(unheld_ns) + power.host_j(unheld_ns))

    def forget_lease(self, lease: int) -> None:
        """Drop what was kept for the replicas of a lease that has ended."""
        for key in [key for key in self._latest_shares if key[0] == lease]:
            del self._latest_shares[key]

    def _add_slice(self, row: RowWeights, power: MachinePower, start_ns: int, piece: UsageSlice) -> None:
        _check_slice(piece)
        held = piece.accelerators
        lost_ns = min(max(piece.lost_ns, 0.0), float(piece.busy_ns))
        useful_ns = piece.busy_ns - lost_ns
        stepping_j = piece.energy_j / piece.busy_ns if piece.busy_ns else 0.0
        shares = self._shares(piece)
        useful_j = useful_ns * stepping_j if piece.busy_ns else piece.energy_j
        for use, time_ns in (
            (BOOTING, piece.booting_ns),
            (DRAINING, piece.draining_ns - piece.draining_busy_ns),
            (IDLE, piece.ready_ns - (piece.busy_ns - piece.draining_busy_ns)),
        ):
            if time_ns:
                accelerator_ns = float(held * time_ns)
                joules = power.idle_j(accelerator_ns) + power.host_j(accelerator_ns)
                row.add_overhead((start_ns, use, piece.deployment), accelerator_ns, joules)
        if lost_ns:
            joules = power.host_j(held * lost_ns) + lost_ns * stepping_j
            row.add_overhead((start_ns, LOST, piece.deployment), held * lost_ns, joules)
        if not shares:
            row.add_overhead((start_ns, IDLE, piece.deployment), held * useful_ns, power.host_j(held * useful_ns) + useful_j)
            return
        total = math.fsum(shares.values())
        so_far = self._busy_so_far.setdefault(piece.deployment, {})
        for stream, share in shares.items():
            accelerator_ns = held * useful_ns * (share / total)
            joules = power.host_j(accelerator_ns) + useful_j * (share / total)
            row.add_busy((start_ns, BUSY, piece.deployment, stream), accelerator_ns, joules)
            so_far[stream] = so_far.get(stream, 0.0) + accelerator_ns

    def _shares(self, piece: UsageSlice) -> dict[int, float]:
        replica = (piece.lease, piece.replica)
        # Work thrown away leaves its stream's share at that moment, so the share of a short slice may be negative.
        shares = {stream: share for stream, share in sorted(piece.shares_ns.items()) if share > 0}
        if shares:
            self._latest_shares[replica] = shares
        return shares or self._latest_shares.get(replica, {})

    def split(
        self, row: RowWeights, amount_nano: int, deployments: Iterable[str], *, by_energy: bool = False
    ) -> dict[PartKey, int]:
        """Split an amount by the weights of a row into parts that add up to it exactly; parts of zero are left out.

        Parameters
        ----------
        deployments : seen on the lease so far; their streams pay for accelerators that nobody held.
        by_energy : split by joules instead of accelerator time.
        """
        weights = self.shares(row, deployments, by_energy=by_energy)
        keys = sorted(weights)
        parts = largest_remainder(amount_nano, [weights[key] for key in keys])
        return {key: part for key, part in zip(keys, parts, strict=True) if part}

    def shares(self, row: RowWeights, deployments: Iterable[str], *, by_energy: bool = False) -> dict[PartKey, float]:
        """Return what the parts of a row are in proportion to; parameters as `split`."""
        seen = sorted(deployments)
        payers = {name: self._payers(row, seen if name == UNHELD else [name]) for name in {key[2] for key in row.overhead}}
        weights = {key: part.joules if by_energy else part.accelerator_ns for key, part in row.busy.items()}
        for (start_ns, use, deployment), part in row.overhead.items():
            weight = part.joules if by_energy else part.accelerator_ns
            for stream, fraction in payers[deployment]:
                weights[start_ns, use, deployment, stream] = weight * fraction
        return weights

    def split_shared(
        self, start_ns: int, amount_nano: int, weights: Mapping[tuple[str, int], float] | None, deployments: Iterable[str]
    ) -> dict[PartKey, int]:
        """Split an amount that belongs to no lease into parts that add up to it exactly; parts of zero are left out.

        Parameters
        ----------
        weights : (deployment, stream) -> weight; None or none above zero leaves it to `deployments`: their streams pay by busy time
            so far, else equally. Without either, nobody does (stream -1).
        """
        given = {key: weight for key, weight in (weights or {}).items() if weight}
        names = sorted(set(deployments))
        if not given:
            given = {
                (name, stream): busy_ns
                for name in names
                for stream, busy_ns in self._busy_so_far.get(name, {}).items()
                if busy_ns > 0
            } or {(name, stream): 1.0 for name in names for stream in self._may_use.get(name, [])}
        keys = sorted(given) or [(UNHELD, NO_STREAM)]
        parts = largest_remainder(amount_nano, [given.get(key, 1.0) for key in keys])
        return {(start_ns, SHARED, *key): part for key, part in zip(keys, parts, strict=True) if part}

    def _payers(self, row: RowWeights, names: Sequence[str]) -> list[tuple[int, float]]:
        for candidates_of in (self._in_row, self._so_far, self._equally):
            candidates = candidates_of(row, names)
            total = math.fsum(candidates.values())
            if total > 0:
                return [(stream, weight / total) for stream, weight in sorted(candidates.items())]
        return [(NO_STREAM, 1.0)]

    def _in_row(self, row: RowWeights, names: Sequence[str]) -> dict[int, float]:
        busy: dict[int, float] = {}
        for (_, _, name, stream), part in row.busy.items():
            if name in names:
                busy[stream] = busy.get(stream, 0.0) + part.accelerator_ns
        return busy

    def _so_far(self, _: RowWeights, names: Sequence[str]) -> dict[int, float]:
        busy: dict[int, float] = {}
        for name in names:
            for stream, busy_ns in self._busy_so_far.get(name, {}).items():
                busy[stream] = busy.get(stream, 0.0) + busy_ns
        return busy

    def _equally(self, _: RowWeights, names: Sequence[str]) -> dict[int, float]:
        return {stream: 1.0 for name in names for stream in self._may_use.get(name, [])}


def _check_slice(piece: UsageSlice) -> None:
    length_ns = piece.end_ns - piece.start_ns
    if (
        piece.booting_ns + piece.ready_ns + piece.draining_ns != length_ns
        or min(piece.booting_ns, piece.ready_ns, piece.draining_ns) < 0
        or not 0 <= piece.draining_busy_ns <= piece.draining_ns
        or not 0 <= piece.busy_ns - piece.draining_busy_ns <= piece.ready_ns
    ):
        raise ValueError(f"times of a slice do not fit its length of {length_ns} ns: {piece}")
