"""Machines: asked for, booted, kept warm, given back, lost. Knows nothing of policies; replicas live in `provisioner.py`."""

from __future__ import annotations

from collections.abc import Callable, Generator

import simpy

from sim.billing.ledger import Sink
from sim.billing.tariffs import paid_from_boot
from sim.control.links import SharedLink
from sim.control.nodes import NOT_REACHED, Node, stage_ns
from sim.control.world import World
from sim.domain.usage import Lease
from sim.rng import StreamKey
from sim.units import NS_PER_S

Process = Generator[simpy.Event, None, None]
BYTES_PER_GB = 1e9


class Machines:
    """All nodes of a run, by number, and the events that happen to them.

    Parameters
    ----------
    on_capacity : called when machines may be had that could not be had before.
    """

    def __init__(self, env: simpy.Environment, world: World, sink: Sink, on_capacity: Callable[[], None]) -> None:
        self.env, self.world, self.sink, self.on_capacity = env, world, sink, on_capacity
        self.scenario = world.resolved.scenario
        self.alive: dict[int, Node] = {}
        self.ended: list[Node] = []
        self.on_running: list[Callable[[Node], None]] = []
        self.on_change: list[Callable[[], None]] = []
        self.changes = 0
        self._closed_by: dict[tuple[str, str], set[object]] = {}
        # Decides among the zones of a pool that have capacity; the spot market replaces it for its pools.
        self.price_of: Callable[[str, str], int] = lambda pool, zone: 0
        self._asked_until_ns: dict[tuple[str, str], int] = {}
        self._made = self._leases = self._events = 0
        self._links: dict[tuple[str, str], SharedLink] = {}
        for name, pool in self.scenario.pools.items():
            limits = {"pulling": pool.cold_start.registry_gb_per_s, "loading": pool.cold_start.storage_gb_per_s}
            for stage, limit in limits.items():
                self._links[name, stage] = SharedLink(env, None if limit is None else limit * BYTES_PER_GB)

    @property
    def now_ns(self) -> int:
        """Simulated time."""
        return int(self.env.now)

    def of(self, pool: str) -> list[Node]:
        """Return the living nodes of a pool, oldest first."""
        return [node for node in self.alive.values() if node.pool == pool]

    def changed(self) -> None:
        """Say that something happened to a machine or a replica: what was derived from them before no longer holds."""
        self.changes += 1
        for hook in self.on_change:
            hook()

    def event(self, kind: str, subject: str, detail: str) -> None:
        """Write a row of the `events` table."""
        self.sink.append("events", {
            "number": self._events, "time_ns": self.now_ns, "kind": kind, "subject": subject, "detail": detail
        })  # fmt: skip
        self._events += 1

    # Capacity

    def room(self, pool: str) -> int | None:
        """Return how many more machines of a pool could be asked for now: 0 without an open zone, None without a quota."""
        if not self._open_zones(pool):
            return 0
        quota = self.scenario.pools[pool].quota_nodes
        return None if quota is None else max(quota - len(self.of(pool)), 0)

    def _open_zones(self, pool: str) -> list[str]:
        """Zones worth asking: not among those that had nothing a moment ago."""
        zones = self.scenario.pools[pool].zones
        return [zone for zone in zones if self._asked_until_ns.get((pool, zone), 0) <= self.now_ns]

    def request(self, pool: str, at_once: bool = False) -> Node | None:
        """Ask for a machine in the cheapest zone that has one, zones of equal price in turn; None if there is none now.

        A zone without capacity is not asked again for the pool's `capacity_retry_s`.

        Parameters
        ----------
        at_once : it is there already, booted, with its image (the fleet at the start of a scenario).
        """
        quota = self.scenario.pools[pool].quota_nodes
        if quota is not None and len(self.of(pool)) >= quota:
            return None
        zones = self._open_zones(pool)
        turn = self._made % max(len(zones), 1)
        for zone in sorted(zones[turn:] + zones[:turn], key=lambda zone: self.price_of(pool, zone)):
            if self._closed_by.get((pool, zone)):
                self._remember_closed(pool, zone)
                continue
            return self._make(pool, zone, at_once)
        return None

    def close(self, pool: str, zone: str, by: object) -> None:
        """Let a zone give no new machines to a pool until `reopen` with the same cause."""
        self._closed_by.setdefault((pool, zone), set()).add(by)

    def reopen(self, pool: str, zone: str, by: object) -> bool:
        """End one cause for which a zone was closed; whether it was the last one, so that there is capacity again."""
        causes = self._closed_by.get((pool, zone), set())
        causes.discard(by)
        return not causes

    def _remember_closed(self, pool: str, zone: str) -> None:
        retry_ns = round(self.scenario.pools[pool].capacity_retry_s * NS_PER_S)
        self._asked_until_ns[pool, zone] = self.now_ns + retry_ns
        self.event("insufficient_capacity", f"pool {pool}", f"{zone}; asked again in {retry_ns / NS_PER_S:g} s")
        wake = self.env.timeout(retry_ns)
        assert wake.callbacks is not None
        wake.callbacks.append(lambda _: self.on_capacity())

    def _make(self, pool: str, zone: str, at_once: bool) -> Node:
        accelerators = self.world.resolved.pools[pool].instance.accelerators
        node = Node(self._made, pool, zone, accelerators, self.now_ns, self.env.event())
        self._made += 1
        self.alive[node.number] = node
        if at_once:
            self._running(node)
            node.booted_ns = node.pulled_ns = self.now_ns
            self._rent(node)
            node.up.succeed()
        else:
            self.env.process(self._start(node))
        return node

    # Up

    def stage(self, pool: str, stage: str, entity: str, times_s: tuple[float, float], size_bytes: float = 0.0) -> simpy.Event:
        """Return the end of a cold-start stage of a node or a replica; those that move bytes share their pool's link."""
        key = StreamKey(self.scenario.seed, self.scenario.replication, f"cold start {stage}", entity)
        alone_ns = stage_ns(key, *times_s)
        link = self._links.get((pool, stage))
        return self.env.timeout(alone_ns) if link is None else link.transfer(size_bytes, alone_ns)

    def _start(self, node: Node) -> Process:
        entity, stages_s = f"node {node.number}", self.world.resolved.pools[node.pool].stages_s
        yield self.stage(node.pool, "pending", entity, stages_s["pending"])
        if node.gone_ns != NOT_REACHED:
            return
        self._running(node)
        yield self.stage(node.pool, "booting", entity, stages_s["booting"])
        if node.gone_ns != NOT_REACHED:
            return
        node.booted_ns = self.now_ns
        self._rent(node)
        image_bytes = self.scenario.pools[node.pool].cold_start.image_gb * BYTES_PER_GB
        yield self.stage(node.pool, "pulling", entity, stages_s["pulling"], image_bytes)
        if node.gone_ns != NOT_REACHED:
            return
        node.pulled_ns = self.now_ns
        self.changed()
        node.up.succeed()

    def _running(self, node: Node) -> None:
        pool = self.world.resolved.pools[node.pool]
        node.running_ns = self.now_ns
        if not paid_from_boot(pool):
            self._rent(node)
        self.event("node_running", f"node {node.number}", f"{pool.instance.name} in {node.zone}")
        for hook in self.on_running:
            hook(node)

    def _rent(self, node: Node) -> None:
        """Begin the lease of a machine, unless it has begun: at RUNNING, or once it has booted where that is the cloud's rule."""
        if node.lease is not None:
            return
        pool = self.world.resolved.pools[node.pool]
        node.lease = Lease(
            lease=self._leases,
            node=node.number,
            pool=node.pool,
            instance=pool.instance.name,
            accelerators=node.accelerators,
            purchase=pool.config.purchase,
            zone=node.zone,
            start_ns=self.now_ns,
        )
        self._leases += 1

    def keep_warm(self, pool: str, at_once: bool = False) -> None:
        """Ask for machines until as many stand by as the pool wants."""
        spare = sum(not node.holds and node.notice_ns == NOT_REACHED for node in self.of(pool))
        for _ in range(self.scenario.pools[pool].warm_nodes - spare):
            if self.request(pool, at_once) is None:
                return

    # Down

    def give_back(self, node: Node) -> None:
        """Give an empty node back, unless its pool wants it as a warm one or the provider is about to take it anyway."""
        spare = sum(not other.holds and other.notice_ns == NOT_REACHED for other in self.of(node.pool))
        if node.notice_ns == NOT_REACHED and spare > self.scenario.pools[node.pool].warm_nodes:
            self.end(node, "scaled_down")

    def end(self, node: Node, cause: str) -> None:
        """A node is gone: its lease ends here."""
        node.gone_ns, node.cause = self.now_ns, cause
        if node.lease is not None:
            node.lease.end_ns, node.lease.end_cause = self.now_ns, cause
        del self.alive[node.number]
        self.ended.append(node)
        self.event("node_gone", f"node {node.number}", cause)

    def end_of_run(self, at_ns: int) -> None:
        """The run is over: every living node ends here with the cause "end"."""
        for node in self.alive.values():
            node.gone_ns, node.cause = at_ns, "end"
            if node.lease is not None:
                node.lease.end_ns, node.lease.end_cause = at_ns, "end"
        self.ended += self.alive.values()
        self.alive = {}
