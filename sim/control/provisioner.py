"""The provisioner: turns wanted replicas into replicas on machines, through loading and warming up, and back.

Mechanism only: how many replicas are wanted is a policy's business (`policies/autoscalers`), in which pools they belong too
(`policies/placement.py`); what happens to machines is the scenario's (`control/failures.py`) and the market's
(`control/market.py`).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping

import simpy

from sim.billing.ledger import Sink
from sim.control.machines import Machines
from sim.control.nodes import NOT_REACHED, Node, ReplicaLife
from sim.control.world import World
from sim.dataplane.engine import Hit, Watch
from sim.policies.placement import SPOT, PoolView
from sim.units import NS_PER_S

Process = Generator[simpy.Event, None, None]
# Deployment -> least and most replicas; None for no upper bound.
Bounds = Mapping[str, tuple[int, int | None]]


class Provisioner:
    """All replicas of a run, by number.

    Parameters
    ----------
    env : the control plane's clock, in nanoseconds. world : planes and replica kinds. sink : takes `events` rows.
    """

    def __init__(self, env: simpy.Environment, world: World, sink: Sink) -> None:
        self.env, self.world = env, world
        self.scenario = world.resolved.scenario
        self.machines = Machines(env, world, sink, self._retry_short)
        self.replicas: dict[int, ReplicaLife] = {}
        self.ended: list[ReplicaLife] = []
        self.by_plane_number: dict[tuple[int, int], ReplicaLife] = {}
        self.wanted: dict[str, int] = dict.fromkeys(self.scenario.deployments, 0)
        self._bounds: dict[str, Bounds] = {}
        self._made = 0
        self._short: set[str] = set()
        self._retrying = False

    @property
    def now_ns(self) -> int:
        """Simulated time."""
        return int(self.env.now)

    def of(self, deployment: str) -> list[ReplicaLife]:
        """Return the living replicas of a deployment, oldest first."""
        return [replica for replica in self.replicas.values() if replica.deployment == deployment]

    def start(self, deployment: str, replicas: int) -> None:
        """Put up the first replicas: there when the scenario starts (`start: ready`), or asked for then (`start: cold`)."""
        self.wanted[deployment] = replicas
        config = self.scenario.deployments[deployment]
        if config.start == "ready":
            # Spot first, and split anew after each pool: what is ready already needs no stand-in.
            for pool in sorted(config.pools, key=lambda name: self.scenario.pools[name].purchase != SPOT):
                split = config.placement.split(replicas, self._pool_views(deployment))
                self._grow(deployment, pool, split[config.pools.index(pool)], at_once=True)
            for pool in config.pools:
                self.machines.keep_warm(pool, at_once=True)
        self.reconcile(deployment)

    def set_wanted(self, deployment: str, replicas: int) -> None:
        """Change how many replicas a deployment wants, and act on it."""
        self.wanted[deployment] = replicas
        self.machines.changed()
        self.reconcile(deployment)

    def bound(self, owner: str, bounds: Bounds, reason: str = "") -> None:
        """Bound the replicas of deployments, whatever their autoscalers want, until the same owner gives other bounds or none.

        Of several upper bounds the lowest holds, of several lower ones the highest; an upper bound goes before a lower one. What
        changes is a decision of the owner.
        """
        touched = sorted({*bounds, *self._bounds.get(owner, {})})
        before = {name: self.target(name) for name in touched}
        self._bounds[owner] = dict(bounds)
        for name in touched:
            after = self.target(name)
            if after != before[name]:
                self.machines.sink.append("decisions", {
                    "time_ns": self.now_ns, "deployment": name, "policy": owner, "before": before[name], "after": after,
                    "reason": reason,
                })  # fmt: skip
                self.machines.changed()
                self.reconcile(name)

    def target(self, deployment: str) -> int:
        """Return how many replicas there should be: what is wanted, within the bounds."""
        bounds = [bounds[deployment] for bounds in self._bounds.values() if deployment in bounds]
        raised = max([self.wanted[deployment], *(least for least, _ in bounds)])
        return min([raised, *(most for _, most in bounds if most is not None)])

    def reconcile(self, deployment: str) -> None:
        """Ask for missing replicas and drain surplus ones, pool by pool as the placement says.

        Split anew whenever a pool cannot give what the split assumed; at last, what nobody can give is waited for.
        """
        config = self.scenario.deployments[deployment]
        for _ in range(len(config.pools) + 1):
            split = config.placement.split(self.target(deployment), self._pool_views(deployment))
            grown = [self._grow(deployment, pool, target) for pool, target in zip(config.pools, split, strict=True)]
            if all(grown):
                self._short.discard(deployment)
                break
        else:
            if deployment not in self._short:
                self._short.add(deployment)
                self.machines.event("no_capacity", deployment, f"in {', '.join(config.pools)}; waiting")
        for pool, target in zip(config.pools, split, strict=True):
            self._shrink(deployment, pool, target)
        for pool in config.pools:
            self.machines.keep_warm(pool)

    def _alive(self, deployment: str, pool: str) -> list[ReplicaLife]:
        return [replica for replica in self.of(deployment) if replica.pool == pool and not replica.is_draining]

    def _pool_views(self, deployment: str) -> list[PoolView]:
        config = self.scenario.deployments[deployment]
        views = []
        for pool in config.pools:
            alive = self._alive(deployment, pool)
            ready = sum(replica.is_ready for replica in alive)
            views.append(
                PoolView(pool, self.scenario.pools[pool].purchase, ready, len(alive) - ready, self._room(deployment, pool))
            )
        return views

    def _room(self, deployment: str, pool: str) -> int | None:
        """How many more replicas a pool could take now: on free accelerators, and on machines still to be had."""
        nodes = self.machines.room(pool)
        if nodes is None:
            return None
        need, per_node = self.scenario.deployments[deployment].accelerators, self._accelerators_per_node(pool)
        if need > per_node:
            spare = sum(not node.holds and node.free_accelerators > 0 for node in self.machines.of(pool))
            return (nodes + spare) // -(-need // per_node)
        return sum(node.free_accelerators // need for node in self.machines.of(pool)) + nodes * (per_node // need)

    def _accelerators_per_node(self, pool: str) -> int:
        return self.world.resolved.pools[pool].instance.accelerators

    # Up

    def _grow(self, deployment: str, pool: str, target: int, at_once: bool = False) -> bool:
        """Ask for replicas until there are `target`; False if a machine could not be had."""
        for _ in range(target - len(self._alive(deployment, pool))):
            gang = self._place(deployment, pool, at_once)
            if gang is None:
                return False
            replica = ReplicaLife(self._made, deployment, pool, self.world.plane_of[deployment], gang, self.now_ns)
            self._made += 1
            self.replicas[replica.number] = replica
            for node, accelerators in gang:
                node.holds[replica.number] = accelerators
            self.machines.changed()
            if at_once:
                replica.loaded_ns = self.now_ns
                self._ready(replica)
            else:
                self.env.process(self._start(replica))
        return True

    def _place(self, deployment: str, pool: str, at_once: bool) -> list[tuple[Node, int]] | None:
        """Find machines for one replica and how many accelerators it takes of each; None if they cannot be had.

        A replica that fits on one machine goes to the first with room, the ones in use before the warm ones; a larger one gets
        machines of its own.
        """
        need, per_node = self.scenario.deployments[deployment].accelerators, self._accelerators_per_node(pool)
        nodes = sorted(self.machines.of(pool), key=lambda node: (not node.holds, node.pulled_ns == NOT_REACHED, node.number))
        if need <= per_node:
            found = next((node for node in nodes if node.free_accelerators >= need), None)
            node = found or self.machines.request(pool, at_once)
            return None if node is None else [(node, need)]
        empty = [node for node in nodes if not node.holds and node.free_accelerators]
        gang: list[tuple[Node, int]] = []
        while need > 0:
            node = empty.pop(0) if empty else self.machines.request(pool, at_once)
            if node is None:
                for spare, _ in gang:
                    self.machines.give_back(spare)
                return None
            gang.append((node, min(need, per_node)))
            need -= per_node
        return gang

    def _start(self, replica: ReplicaLife) -> Process:
        kind = self.world.resolved.kinds[replica.deployment, replica.pool]
        entity = f"replica {replica.number}"
        for node, _ in replica.gang:
            if not node.up.processed:
                yield node.up
        if replica.gone_ns != NOT_REACHED:
            return
        yield self.machines.stage(replica.pool, "loading", entity, kind.stages_s["loading"], kind.weight_bytes)
        if replica.gone_ns != NOT_REACHED:
            return
        replica.loaded_ns = self.now_ns
        yield self.machines.stage(replica.pool, "warming", entity, kind.stages_s["warming"])
        if replica.gone_ns == NOT_REACHED:
            self._ready(replica)
            # A placement may want something else now that this one is ready (spot replaces its stand-ins).
            self.reconcile(replica.deployment)

    def _ready(self, replica: ReplicaLife) -> None:
        plane = self.world.planes[replica.plane]
        replica.ready_ns = self.now_ns
        replica.plane_number = plane.engine.add_replica(self.now_ns, plane.specs[replica.deployment, replica.pool])
        self.by_plane_number[plane.number, replica.plane_number] = replica
        self.machines.changed()
        where = ", ".join(str(node.number) for node, _ in replica.gang)
        self.machines.event("replica_ready", f"replica {replica.number}", f"{replica.deployment} on node {where}")

    # Down

    def _shrink(self, deployment: str, pool: str, target: int) -> None:
        """Drain down to `target`: booting ones before ready ones, the newest first."""
        alive = sorted(self._alive(deployment, pool), key=lambda replica: (not replica.is_booting, -replica.number))
        for replica in alive[: max(len(alive) - target, 0)]:
            if replica.is_booting:
                self._gone(replica, "scaled_down")
            else:
                self._drain(replica)
                grace_s = self.scenario.deployments[deployment].drain_grace_s
                if grace_s is not None:
                    self.env.process(self._end_grace(replica, round(grace_s * NS_PER_S)))

    def _drain(self, replica: ReplicaLife) -> None:
        replica.drain_ns = self.now_ns
        self.machines.changed()
        self.machines.event("replica_draining", f"replica {replica.number}", replica.deployment)
        self.world.planes[replica.plane].engine.drain_replica(self.now_ns, replica.plane_number)

    def _end_grace(self, replica: ReplicaLife, grace_ns: int) -> Process:
        yield self.env.timeout(grace_ns)
        if replica.gone_ns == NOT_REACHED and self._kill(replica.plane, [replica.plane_number]):
            self._gone(replica, "grace_over")

    def _kill(self, plane: int, numbers: list[int]) -> bool:
        """Kill replicas of a plane, by their numbers there; whether there were any.

        One that drained at this very instant is no longer there, and `on_hit` is about to hear of it.
        """
        engine = self.world.planes[plane].engine
        there = set(engine.view(self.now_ns).replica.tolist()).intersection(numbers)
        engine.kill_replica(self.now_ns, *sorted(there))
        return bool(there)

    def on_hit(self, plane: int, hit: Hit) -> None:
        """Act on a watch of an engine: a drained replica is gone, and its machines if nothing is left on them."""
        replica = self.by_plane_number.get((plane, hit.subject))
        # None, or gone: its machine was lost at the same instant.
        if hit.reason is Watch.DRAINED and replica is not None and replica.gone_ns == NOT_REACHED:
            taken_back = any(node.notice_ns != NOT_REACHED for node, _ in replica.gang)
            self._gone(replica, "interrupted" if taken_back else "scaled_down")

    def notice(self, node: Node) -> None:
        """The provider will take a machine back: stop admitting there, let running requests finish, ask for replacements."""
        node.notice_ns = self.now_ns
        self.machines.event("spot_notice", f"node {node.number}", f"{len(node.holds)} replicas")
        here = [self.replicas[number] for number in node.holds]
        for replica in here:
            if replica.is_booting:
                self._gone(replica, "interrupted")
            elif not replica.is_draining:
                self._drain(replica)
        self._replace(here)

    def lose(self, node: Node, cause: str) -> None:
        """Lose a machine with everything on it, at once; what was lost is asked for again.

        Parameters
        ----------
        cause : "crashed" or "interrupted".
        """
        here = [self.replicas[number] for number in node.holds]
        self.machines.event(f"node_{cause}", f"node {node.number}", f"{len(here)} replicas lost")
        for plane in self.world.planes:
            dying = [replica.plane_number for replica in here if replica.plane == plane.number and replica.ready_ns != NOT_REACHED]
            self._kill(plane.number, dying)
        node.holds = {}
        self.machines.end(node, cause)
        for replica in here:
            self._gone(replica, cause)
        self._replace(here)
        self.machines.keep_warm(node.pool)

    def _replace(self, lost: list[ReplicaLife]) -> None:
        for deployment in sorted({replica.deployment for replica in lost}):
            self.reconcile(deployment)

    def _gone(self, replica: ReplicaLife, cause: str) -> None:
        replica.gone_ns, replica.cause = self.now_ns, cause
        del self.replicas[replica.number]
        self.machines.changed()
        self.ended.append(replica)
        self.machines.event("replica_gone", f"replica {replica.number}", cause)
        for node, _ in replica.gang:
            node.holds.pop(replica.number, None)
            if node.is_alive and not node.holds:
                self.machines.give_back(node)
        if self._short and not self._retrying:
            # Not at once: whoever lets replicas go may be in the middle of letting several go.
            self._retrying = True
            retry = self.env.timeout(0)
            assert retry.callbacks is not None
            retry.callbacks.append(lambda _: self._retry_short())

    def _retry_short(self) -> None:
        self._retrying = False
        for deployment in sorted(self._short):
            self.reconcile(deployment)

    def end_of_run(self, at_ns: int) -> None:
        """The run is over: everything still alive ends here with the cause "end"."""
        for replica in self.replicas.values():
            replica.gone_ns, replica.cause = at_ns, "end"
        self.ended += self.replicas.values()
        self.replicas = {}
        self.machines.end_of_run(at_ns)
