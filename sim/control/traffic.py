"""What is let in of every stream, and where it goes: wishes of budgets' actions made true in the engines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import simpy

from sim.control.sink import TableSink
from sim.control.world import Plane, World
from sim.dataplane.layout import ALL_ADMITTED
from sim.domain.traffic import Stream
from sim.policies.budgets.base import Traffic

Shares = Mapping[Traffic, float]
Routes = Mapping[Traffic, Sequence[str]]


@dataclass
class _Door:
    """One stream of a plane that has arrivals.

    Parameters
    ----------
    local : its number in the plane. everywhere : the deployments that serve it, in the order of the scenario.
    admitted : in 2^-20 of the new requests. route : where they go.
    """

    plane: Plane
    local: int
    stream: Stream
    everywhere: tuple[str, ...]
    admitted: int
    route: tuple[str, ...]


@dataclass
class _Wish:
    """What one owner wants."""

    shares: Shares = field(default_factory=dict)
    routes: Routes = field(default_factory=dict)


class TrafficRules:
    """The doors of all streams. Of several owners the lowest share holds, and the first route in the order of `owners`.

    Rows of backlogs have no door: replicas take them when they have room.

    Parameters
    ----------
    owners : who may want something. sink : takes rows of `traffic`. event : writes a row of `events`.
    """

    def __init__(
        self, env: simpy.Environment, world: World, owners: Iterable[str], sink: TableSink, event: Callable[[str, str, str], None]
    ) -> None:
        self.env, self.sink, self.event = env, sink, event
        self._wishes = {owner: _Wish() for owner in owners}
        self._rows = 0
        services = world.resolved.scenario.services
        self._doors = [
            _Door(plane, local, stream, (everywhere := tuple(services[stream.service].deployments)), ALL_ADMITTED, everywhere)
            for plane in world.planes
            for local, stream in enumerate(plane.streams)
            if not plane.engine_config.streams[local].backlog
        ]

    def is_there(self, traffic: Traffic) -> bool:
        """Whether there is such a segment; of a workload read from a file this is known once it is open."""
        return any(_is_of(door.stream, traffic) for door in self._doors)

    def want(self, owner: str, shares: Shares, routes: Routes, reason: str) -> None:
        """Set what an owner wants, in place of what it wanted before; nothing ends it. What changes is a row with its reason."""
        self._wishes[owner] = _Wish(shares, routes)
        for door in self._doors:
            self._open(door, owner, reason)

    def _open(self, door: _Door, owner: str, reason: str) -> None:
        shares = [share for wish in self._wishes.values() for traffic, share in wish.shares.items() if _is_of(door.stream, traffic)]
        routes = (route for wish in self._wishes.values() for traffic, route in wish.routes.items() if _is_of(door.stream, traffic))
        wanted = next(routes, door.everywhere)
        admitted, route = round(min([1.0, *shares]) * ALL_ADMITTED), tuple(name for name in door.everywhere if name in wanted)
        if (admitted, route) == (door.admitted, door.route):
            return
        now_ns, name = int(self.env.now), f"{door.stream.service}/{door.stream.segment}"
        self.sink.append("traffic", {
            "number": self._rows, "time_ns": now_ns, "stream": door.stream.number, "service": door.stream.service,
            "segment": door.stream.segment, "policy": owner, "admitted_before": door.admitted / ALL_ADMITTED,
            "admitted": admitted / ALL_ADMITTED, "deployments_before": ",".join(door.route), "deployments": ",".join(route),
            "reason": reason,
        })  # fmt: skip
        self._rows += 1
        if admitted != door.admitted:
            door.plane.engine.throttle(now_ns, door.local, admitted)
            self.event("throttled", name, f"{admitted / ALL_ADMITTED:.1%} of new requests let in")
        if route != door.route:
            accepting = door.plane.engine_config.takers(door.local)
            specs = {spec for (deployment, _), spec in door.plane.specs.items() if deployment in route}
            door.plane.engine.route(now_ns, door.local, specs & accepting)
            self.event("routed", name, f"to {', '.join(route)}")
        door.admitted, door.route = admitted, route


def _is_of(stream: Stream, traffic: Traffic) -> bool:
    service, segment = traffic
    return stream.service == service and segment in ("", stream.segment)
