"""Controllers: the SimPy processes that let an autoscaler look and act on what it decides."""

from __future__ import annotations

from collections.abc import Generator

import simpy

from sim.billing.ledger import Sink
from sim.control.provisioner import Provisioner
from sim.control.world import World
from sim.dataplane.layout import ARRIVED
from sim.policies.base import NEVER_NS, Autoscaler, DeploymentView
from sim.registry import choice_name


def deployment_view(world: World, provisioner: Provisioner, deployment: str) -> DeploymentView:
    """Look at one deployment: its replicas by state, and the requests waiting for and running on them."""
    plane = world.planes[world.plane_of[deployment]]
    view = plane.engine.view(provisioner.now_ns)
    specs = [number for (name, _), number in plane.specs.items() if name == deployment]
    mine = [index for index, spec in enumerate(view.spec.tolist()) if spec in specs]
    streams = sorted(plane.streams_of[deployment])
    queues = {plane.services.index(plane.streams[stream].service) for stream in streams}
    alive = provisioner.of(deployment)
    return DeploymentView(
        time_ns=provisioner.now_ns,
        wanted=provisioner.wanted[deployment],
        ready=sum(replica.is_ready for replica in alive),
        booting=sum(replica.is_booting for replica in alive),
        draining=sum(replica.is_draining for replica in alive),
        waiting=int(view.waiting[mine].sum()) + int(sum(view.service_queue[queue] for queue in queues)),
        running=int(view.running[mine].sum()),
        arrived=int(view.counters[streams, ARRIVED].sum()),
    )


def control(
    env: simpy.Environment, world: World, provisioner: Provisioner, sink: Sink, deployment: str, autoscaler: Autoscaler
) -> Generator[simpy.Event, None, None]:
    """Look, decide, act, sleep until the policy's next look; each decision that changes something becomes a row."""
    while True:
        view = deployment_view(world, provisioner, deployment)
        decision = autoscaler.decide(view)
        if decision.replicas != view.wanted:
            sink.append("decisions", {
                "time_ns": view.time_ns, "deployment": deployment, "policy": choice_name(autoscaler), "before": view.wanted,
                "after": decision.replicas, "reason": decision.reason,
            })  # fmt: skip
            provisioner.set_wanted(deployment, decision.replicas)
        next_ns = autoscaler.next_look_ns(view)
        if next_ns >= NEVER_NS:
            return
        yield env.timeout(next_ns - provisioner.now_ns)
