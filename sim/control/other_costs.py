"""What the lines of the bill beside machines are counted from: requests, bytes, replicas and pulls, hour by hour of the account.

Who pays, exact to the nano-dollar:

- cluster, metrics and people by replica time, the gateway by it too;
- the load balancer, its units and logs by requests: hours and units by arrivals, logs by requests that leave;
- traffic by bytes; stored and pulled bytes by the deployment whose they are.

What a deployment pays is shared among its streams by their arrivals of the hour, equally where there are none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from sim.billing.ledger import Ledger, hour_cuts
from sim.billing.other_lines import OtherLines, amount_nano, decimal_of
from sim.control.nodes import Node, ReplicaLife
from sim.control.world import World
from sim.dataplane.engine import View
from sim.dataplane.layout import (
    ARRIVED,
    COMPLETED_OUTPUT_TOKENS,
    COMPLETED_PROMPT_TOKENS,
    COUNTERS,
    N_ABANDONED,
    N_COMPLETED,
    N_FAILED,
    N_REJECTED_FULL,
    N_REJECTED_THROTTLED,
    N_REJECTED_TOO_LONG,
)
from sim.domain.cost_lines import (
    BALANCER_UNITS,
    CATEGORY,
    CLUSTER,
    CROSS_ZONE,
    EGRESS,
    IMAGES,
    LOAD_BALANCER,
    LOGS,
    METRICS,
    NAT,
    NAT_DATA,
    PEOPLE,
    WEIGHTS,
)
from sim.domain.usage import UsageSlice
from sim.units import NS_PER_HOUR

BYTES_PER_GB = 10**9
# Application Load Balancer: an LCU is the most of 25 new connections a second, 3,000 active connections and 1 GB an hour; rules are
# not counted. From memory, assumed, 2026-11-23.
LCU_NEW_PER_HOUR, LCU_ACTIVE, LCU_BYTES_PER_HOUR = 25 * 3_600, 3_000, BYTES_PER_GB
_LEFT = (N_COMPLETED, N_FAILED, N_ABANDONED, N_REJECTED_FULL, N_REJECTED_TOO_LONG, N_REJECTED_THROTTLED)
_US_PER_HOUR = NS_PER_HOUR // 1_000

Weights = dict[tuple[str, int], float]


class OtherCosts:
    """Counts what the lines are charged for, and books it at the end of every hour of the account.

    Parameters
    ----------
    ledger : takes the charges.
    """

    def __init__(self, world: World, ledger: Ledger) -> None:
        resolved = world.resolved
        scenario, catalog = resolved.scenario, resolved.catalog
        self._world, self._ledger, self._costs = world, ledger, scenario.other_costs
        prices = {line: catalog.cost_lines[name] for line, name in self._costs.rows().items()}
        self._lines = OtherLines(ledger, scenario.start_instant, ZoneInfo(scenario.account.timezone), prices)
        self._deployments = sorted(world.plane_of)
        self._streams = {
            name: sorted(plane.streams[local].number for local in plane.streams_of[name])
            for plane in world.planes
            for name in plane.streams_of
        }
        self._stored = {name: self._bytes_of(name) for name in self._deployments}
        self._hours: Iterator[int] = hour_cuts(scenario.start_instant, scenario.horizon_ns, scenario.account.timezone)
        self._end_ns, self._horizon_ns = next(self._hours, scenario.horizon_ns), scenario.horizon_ns
        self._begin_ns = 0
        self._counters = np.zeros((len(world.streams), len(COUNTERS)), np.int64)
        self._in_flight_us = 0
        self._replica_ns = dict.fromkeys(self._deployments, 0)
        self._pulled = dict.fromkeys(self._deployments, Fraction(0))

    def _bytes_of(self, deployment: str) -> tuple[int, int]:
        """Return the bytes of a deployment's weights and of its image, the largest of its pools'."""
        kinds = [kind for (name, _), kind in self._world.resolved.kinds.items() if name == deployment]
        pools = self._world.resolved.scenario.pools
        weights = max(round(kind.weight_bytes) for kind in kinds)
        return weights, max(round(pools[kind.pool].cold_start.image_gb * BYTES_PER_GB) for kind in kinds)

    def use(
        self,
        start_ns: int,
        at_ns: int,
        slices: Sequence[tuple[ReplicaLife, UsageSlice]],
        nodes: Iterable[Node],
        views: Sequence[View],
    ) -> None:
        """Take what happened in (start_ns, at_ns], which crosses no hour, and book the hour where it ends.

        Parameters
        ----------
        slices : of use since `start_ns`. nodes : machines that are there, or were until now. views : of all planes, at `at_ns`.
        """
        loaded: set[int] = set()
        for replica, piece in slices:
            if piece.accelerators and replica.gang[0][0].lease is not None and replica.gang[0][0].lease.lease == piece.lease:
                self._replica_ns[replica.deployment] += piece.end_ns - piece.start_ns
            if start_ns < replica.loaded_ns <= at_ns and replica.number not in loaded:
                loaded.add(replica.number)
                self._pulled[replica.deployment] += self._stored[replica.deployment][0]
        for node in nodes:
            if start_ns < node.pulled_ns <= at_ns:
                self._pull_image(node)
        if at_ns in (self._end_ns, self._horizon_ns) and at_ns > self._begin_ns:
            self._book_hour(at_ns, views)
            self._begin_ns, self._end_ns = at_ns, next(self._hours, self._horizon_ns)

    def _pull_image(self, node: Node) -> None:
        """Count the image that a machine has pulled, in equal parts for the deployments that its pool is for."""
        users = sorted({name for name, pool in self._world.resolved.kinds if pool == node.pool and name in self._pulled})
        image = round(self._world.resolved.scenario.pools[node.pool].cold_start.image_gb * BYTES_PER_GB)
        for name in users:
            self._pulled[name] += Fraction(image, len(users))

    def _book_hour(self, at_ns: int, views: Sequence[View]) -> None:
        """Book every line of the hour that ends now, and begin to count anew."""
        counters, in_flight_us = self._counters.copy(), 0
        for plane, view in zip(self._world.planes, views, strict=True):
            counters[[stream.number for stream in plane.streams]] = view.counters
            in_flight_us += int(view.in_flight_us.sum())
        hour = counters - self._counters
        active_us, self._counters, self._in_flight_us = in_flight_us - self._in_flight_us, counters, in_flight_us
        span_ns = at_ns - self._begin_ns
        arrived = hour[:, ARRIVED].tolist()
        by_replicas = self._shared(self._replica_ns, arrived)
        by_arrivals: Weights = {("", stream): float(count) for stream, count in enumerate(arrived)}
        incoming, outgoing = self._bytes(hour)
        moved = [entering + leaving for entering, leaving in zip(incoming, outgoing, strict=True)]
        costs = self._costs
        left = hour[:, list(_LEFT)].sum(axis=1).tolist()
        hours = Fraction(span_ns, NS_PER_HOUR)
        month_ns = self._lines.month(self._begin_ns).length_ns
        months = Fraction(span_ns, month_ns)
        stored = {number: {name: sizes[number] for name, sizes in self._stored.items()} for number in (0, 1)}
        replica_ns = sum(self._replica_ns.values())
        quantities: dict[str, tuple[Fraction, Weights]] = {
            CLUSTER: (costs.clusters * hours, by_replicas),
            LOAD_BALANCER: (costs.load_balancers * hours, by_arrivals),
            BALANCER_UNITS: (self._balancer_units(sum(arrived), active_us, sum(moved)), by_arrivals),
            METRICS: (Fraction(costs.metrics_per_replica * replica_ns, month_ns), by_replicas),
            LOGS: (_gb(costs.log_bytes_per_request * sum(left)), _by_stream(left)),
            WEIGHTS: (_gb(sum(stored[0].values())) * months, self._shared(stored[0], arrived)),
            IMAGES: (_gb(sum(stored[1].values())) * months, self._shared(stored[1], arrived)),
            NAT: (costs.nat_gateways * hours, by_replicas),
            NAT_DATA: (_gb(sum(self._pulled.values(), Fraction(0))), self._shared(self._pulled, arrived)),
            EGRESS: (_gb(sum(outgoing)), _by_stream(outgoing)),
            # A byte that crosses is charged where it leaves and where it arrives.
            CROSS_ZONE: (2 * Fraction(str(costs.cross_zone_share)) * _gb(sum(moved)), _by_stream(moved)),
        }
        for line in self._lines.prices:
            self._lines.book(line, self._begin_ns, at_ns, *quantities[line], self._deployments)
        if costs.has_people:
            self._book_people(at_ns, months, by_replicas)
        self._replica_ns = dict.fromkeys(self._deployments, 0)
        self._pulled = dict.fromkeys(self._deployments, Fraction(0))

    def _bytes(self, hour: npt.NDArray[np.int64]) -> tuple[list[Fraction], list[Fraction]]:
        """Return the bytes that came in and went out with the completed requests of each stream."""
        costs = self._costs
        per_prompt, per_output = Fraction(str(costs.bytes_per_prompt_token)), Fraction(str(costs.bytes_per_output_token))
        completed = [costs.request_bytes * count for count in hour[:, N_COMPLETED].tolist()]
        prompts, outputs = hour[:, COMPLETED_PROMPT_TOKENS].tolist(), hour[:, COMPLETED_OUTPUT_TOKENS].tolist()
        incoming = [size + per_prompt * tokens for size, tokens in zip(completed, prompts, strict=True)]
        return incoming, [size + per_output * tokens for size, tokens in zip(completed, outputs, strict=True)]

    def _balancer_units(self, arrived: int, active_us: int, moved: int | Fraction) -> Fraction:
        """Return the LCU-hours of an hour: its largest dimension, of the mean over the hour."""
        connections = Fraction(str(self._costs.connections_per_request)) * arrived
        return max(
            connections / LCU_NEW_PER_HOUR, Fraction(active_us, _US_PER_HOUR * LCU_ACTIVE), Fraction(moved, LCU_BYTES_PER_HOUR)
        )

    def _shared(self, amounts: Mapping[str, int | Fraction], arrived: Sequence[int]) -> Weights:
        """Share what deployments pay among their streams, by arrivals."""
        weights: Weights = {}
        for name, amount in amounts.items():
            streams = self._streams[name]
            counts = [arrived[stream] for stream in streams]
            shares = counts if sum(counts) else [1] * len(streams)
            for stream, share in zip(streams, shares, strict=True):
                weights[name, stream] = float(Fraction(amount) * share / sum(shares))
        return weights

    def _book_people(self, at_ns: int, months: Fraction, weights: Weights) -> None:
        usd = self._costs.people_usd_per_hour
        quantity = Fraction(str(self._costs.people_hours_per_month)) * months
        self._ledger.charge_account(
            CATEGORY[PEOPLE],
            self._begin_ns,
            at_ns,
            quantity=decimal_of(quantity),
            unit="person-hour",
            unit_price=f"{usd} per person-hour",
            amount_nano=amount_nano(quantity, usd),
            tariff="people",
            source="scenario",
            confidence="assumed",
            weights=weights,
            deployments=self._deployments,
        )


def _gb(size: int | Fraction) -> Fraction:
    return Fraction(size) / BYTES_PER_GB


def _by_stream(amounts: Sequence[int | Fraction]) -> Weights:
    return {("", stream): float(amount) for stream, amount in enumerate(amounts)}
