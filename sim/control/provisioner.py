"""The provisioner: turns wanted replicas into nodes and replicas, through every stage of a cold start and back.

Mechanism only: how many replicas are wanted is a policy's business (`policies/autoscalers`), when machines crash is the scenario's
(`control/failures.py`).
"""

from __future__ import annotations

from collections.abc import Generator

import simpy

from sim.billing.ledger import Sink
from sim.control.nodes import NOT_REACHED, Node, ReplicaLife, stage_ns
from sim.control.world import World
from sim.dataplane.engine import Hit, Watch
from sim.domain.usage import Lease
from sim.rng import StreamKey

Process = Generator[simpy.Event, None, None]


class Provisioner:
    """All nodes and replicas of a run.

    Parameters
    ----------
    env : the control plane's clock, in nanoseconds. world : planes and replica kinds. sink : takes `events` rows.
    """

    def __init__(self, env: simpy.Environment, world: World, sink: Sink) -> None:
        self.env, self.world, self.sink = env, world, sink
        self.scenario = world.resolved.scenario
        self.nodes: dict[int, Node] = {}
        self.replicas: dict[int, ReplicaLife] = {}
        self.wanted: dict[str, int] = dict.fromkeys(self.scenario.deployments, 0)
        self.ended_nodes: list[Node] = []
        self.ended_replicas: list[ReplicaLife] = []
        self.by_plane_number: dict[tuple[int, int], ReplicaLife] = {}
        self._nodes_made = self._replicas_made = self._leases_made = self._events = 0
        self._short: set[str] = set()

    @property
    def now_ns(self) -> int:
        """Simulated time."""
        return int(self.env.now)

    def of(self, deployment: str) -> list[ReplicaLife]:
        """Return the living replicas of a deployment, oldest first."""
        return [replica for replica in self.replicas.values() if replica.deployment == deployment]

    def set_wanted(self, deployment: str, replicas: int) -> None:
        """Change how many replicas a deployment wants, and act on it."""
        self.wanted[deployment] = replicas
        self.reconcile(deployment)

    def start_ready(self, deployment: str, replicas: int) -> None:
        """Put up the first replicas of a deployment that are there when the scenario starts: rented, loaded and ready at once."""
        self.wanted[deployment] = replicas
        while len(self.of(deployment)) < replicas:
            replica = self._request_replica(deployment, at_once=True)
            if replica is None:
                break
            replica.loaded_ns = self.now_ns
            self._ready(replica)

    def reconcile(self, deployment: str) -> None:
        """Ask for missing replicas; drain surplus ones: booting before ready, the newest first."""
        alive = [replica for replica in self.of(deployment) if not replica.is_draining]
        while len(alive) < self.wanted[deployment]:
            replica = self._request_replica(deployment)
            if replica is None:
                return
            alive.append(replica)
        surplus = sorted(alive, key=lambda replica: (not replica.is_booting, -replica.number))
        for replica in surplus[: len(alive) - self.wanted[deployment]]:
            self._scale_down(replica)

    # Up

    def _request_replica(self, deployment: str, at_once: bool = False) -> ReplicaLife | None:
        config = self.scenario.deployments[deployment]
        node = self._place(deployment, config.tensor_parallel, at_once)
        if node is None:
            if deployment not in self._short:
                self._short.add(deployment)
                self.event("no_capacity", deployment, f"quota reached in {', '.join(config.pools)}")
            return None
        self._short.discard(deployment)
        replica = ReplicaLife(
            number=self._replicas_made,
            deployment=deployment,
            pool=node.pool,
            plane=self.world.plane_of[deployment],
            accelerators=config.tensor_parallel,
            node=node,
            requested_ns=self.now_ns,
        )
        self._replicas_made += 1
        self.replicas[replica.number] = replica
        node.replicas.append(replica)
        if not at_once:
            self.env.process(self._start_replica(replica))
        return replica

    def _place(self, deployment: str, accelerators: int, at_once: bool) -> Node | None:
        """Return the first node with room in the order of the pools, else a new node of the first pool whose quota allows one."""
        pools = self.scenario.deployments[deployment].pools
        for pool in pools:
            for node in self.nodes.values():
                if node.pool == pool and node.free_accelerators >= accelerators:
                    return node
        for pool in pools:
            quota = self.scenario.pools[pool].quota_nodes
            if quota is None or sum(node.pool == pool for node in self.nodes.values()) < quota:
                return self._request_node(deployment, pool, at_once)
        return None

    def _request_node(self, deployment: str, pool: str, at_once: bool) -> Node:
        resolved = self.world.resolved.pools[pool]
        zones = resolved.config.zones
        node = Node(
            number=self._nodes_made,
            pool=pool,
            zone=zones[self._nodes_made % len(zones)],
            accelerators=resolved.instance.accelerators,
            requested_ns=self.now_ns,
            up=self.env.event(),
        )
        self._nodes_made += 1
        self.nodes[node.number] = node
        if at_once:
            self._node_running(node)
            node.booted_ns = node.pulled_ns = self.now_ns
            node.up.succeed()
        else:
            self.env.process(self._start_node(node, self.world.resolved.kinds[deployment, pool].stages_s))
        return node

    def _stage(self, stage: str, entity: str, times_s: tuple[float, float]) -> simpy.Event:
        key = StreamKey(self.scenario.seed, self.scenario.replication, f"cold start {stage}", entity)
        return self.env.timeout(stage_ns(key, *times_s))

    def _start_node(self, node: Node, stages_s: dict[str, tuple[float, float]]) -> Process:
        entity = f"node {node.number}"
        yield self._stage("pending", entity, stages_s["pending"])
        if node.gone_ns != NOT_REACHED:
            return
        self._node_running(node)
        yield self._stage("booting", entity, stages_s["booting"])
        if node.gone_ns != NOT_REACHED:
            return
        node.booted_ns = self.now_ns
        yield self._stage("pulling", entity, stages_s["pulling"])
        if node.gone_ns != NOT_REACHED:
            return
        node.pulled_ns = self.now_ns
        node.up.succeed()

    def _node_running(self, node: Node) -> None:
        pool = self.world.resolved.pools[node.pool]
        node.running_ns = self.now_ns
        node.lease = Lease(
            lease=self._leases_made,
            node=node.number,
            pool=node.pool,
            instance=pool.instance.name,
            accelerators=node.accelerators,
            purchase=pool.config.purchase,
            zone=node.zone,
            start_ns=self.now_ns,
        )
        self._leases_made += 1
        self.event("node_running", f"node {node.number}", f"{pool.instance.name} in {node.zone}")

    def _start_replica(self, replica: ReplicaLife) -> Process:
        stages_s = self.world.resolved.kinds[replica.deployment, replica.pool].stages_s
        entity = f"replica {replica.number}"
        if not replica.node.up.processed:
            yield replica.node.up
        if replica.gone_ns != NOT_REACHED:
            return
        yield self._stage("loading", entity, stages_s["loading"])
        if replica.gone_ns != NOT_REACHED:
            return
        replica.loaded_ns = self.now_ns
        yield self._stage("warming", entity, stages_s["warming"])
        if replica.gone_ns == NOT_REACHED:
            self._ready(replica)

    def _ready(self, replica: ReplicaLife) -> None:
        plane = self.world.planes[replica.plane]
        replica.ready_ns = self.now_ns
        replica.plane_number = plane.engine.add_replica(self.now_ns, plane.specs[replica.deployment, replica.pool])
        self.by_plane_number[plane.number, replica.plane_number] = replica
        self.event("replica_ready", f"replica {replica.number}", f"{replica.deployment} on node {replica.node.number}")

    # Down

    def _scale_down(self, replica: ReplicaLife) -> None:
        if replica.is_booting:
            self._gone(replica, "scaled_down")
            return
        replica.drain_ns = self.now_ns
        self.event("replica_draining", f"replica {replica.number}", replica.deployment)
        self.world.planes[replica.plane].engine.drain_replica(self.now_ns, replica.plane_number)

    def on_hit(self, plane: int, hit: Hit) -> None:
        """Act on a watch of an engine: a drained replica is gone, and its node if nothing is left on it."""
        if hit.reason is Watch.DRAINED:
            self._gone(self.by_plane_number[plane, hit.subject], "scaled_down")

    def crash(self, node: Node) -> None:
        """Lose a node with everything on it; what was lost is asked for again."""
        self.event("node_crashed", f"node {node.number}", f"{len(node.replicas)} replicas lost")
        deployments = sorted({replica.deployment for replica in node.replicas})
        for plane in self.world.planes:
            dying = [life.plane_number for life in node.replicas if life.plane == plane.number and life.ready_ns != NOT_REACHED]
            plane.engine.kill_replica(self.now_ns, *dying)
        for replica in list(node.replicas):
            self._gone(replica, "crashed", node_cause="crashed")
        for deployment in deployments:
            self.reconcile(deployment)

    def _gone(self, replica: ReplicaLife, cause: str, node_cause: str = "scaled_down") -> None:
        replica.gone_ns, replica.cause = self.now_ns, cause
        replica.node.replicas.remove(replica)
        del self.replicas[replica.number]
        self.ended_replicas.append(replica)
        self.event("replica_gone", f"replica {replica.number}", cause)
        if not replica.node.replicas:
            self._release(replica.node, node_cause)

    def _release(self, node: Node, cause: str) -> None:
        node.gone_ns, node.cause = self.now_ns, cause
        if node.lease is not None:
            node.lease.end_ns, node.lease.end_cause = self.now_ns, cause
        del self.nodes[node.number]
        self.ended_nodes.append(node)
        self.event("node_gone", f"node {node.number}", cause)
        for deployment in sorted(self._short):
            self.reconcile(deployment)

    def end(self, at_ns: int) -> None:
        """The run is over: everything still alive ends here with the cause "end"."""
        for replica in self.replicas.values():
            replica.gone_ns, replica.cause = at_ns, "end"
        for node in self.nodes.values():
            node.gone_ns, node.cause = at_ns, "end"
            if node.lease is not None:
                node.lease.end_ns, node.lease.end_cause = at_ns, "end"
        self.ended_replicas += self.replicas.values()
        self.ended_nodes += self.nodes.values()
        self.replicas, self.nodes = {}, {}

    def event(self, kind: str, subject: str, detail: str) -> None:
        """Write a row of the `events` table."""
        self.sink.append("events", {
            "number": self._events, "time_ns": self.now_ns, "kind": kind, "subject": subject, "detail": detail
        })  # fmt: skip
        self._events += 1
