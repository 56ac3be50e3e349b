"""Controllers: the SimPy processes that let an autoscaler look and act on what it decides."""

from __future__ import annotations

import copy
from collections.abc import Generator

import numpy as np
import simpy

from sim.billing.ledger import Sink
from sim.control.metrics_feed import MetricsFeed
from sim.control.provisioner import Provisioner
from sim.control.world import World
from sim.policies.base import NEVER_NS, Autoscaler, DeploymentView, Pods
from sim.registry import choice_name
from sim.rng import StreamKey
from sim.units import NS_PER_S

Process = Generator[simpy.Event, None, None]


class Controller:
    """One autoscaler at work on one deployment.

    Parameters
    ----------
    autoscaler : its configuration; the controller works on a copy.
    """

    def __init__(
        self,
        env: simpy.Environment,
        world: World,
        provisioner: Provisioner,
        sink: Sink,
        deployment: str,
        autoscaler: Autoscaler,
    ) -> None:
        self.env, self.provisioner, self.sink, self.deployment = env, provisioner, sink, deployment
        self.policy = copy.deepcopy(autoscaler)
        self.metric_names = self.policy.metric_names()
        plane = world.planes[world.plane_of[deployment]]
        self.feed = MetricsFeed(plane, deployment, self.policy.metric_timing())
        scenario = world.resolved.scenario
        self.phase = StreamKey(scenario.seed, scenario.replication, "controller phase", deployment).generator().random()

    def start(self) -> None:
        """Begin to scrape, if the policy wants metrics, and to look."""
        if self.metric_names:
            self.env.process(self._scrape())
        self.env.process(self._control())

    def _scrape(self) -> Process:
        period_ns = round(self.feed.timing.scrape_s * NS_PER_S)
        yield self.env.timeout(int(self.phase * period_ns))
        while True:
            self.feed.scrape(int(self.env.now))
            yield self.env.timeout(period_ns)

    def view(self) -> DeploymentView:
        """Look at the deployment now."""
        now_ns = int(self.env.now)
        replicas = self.provisioner.of(self.deployment)
        pods = [replica for replica in replicas if not replica.is_draining]
        return DeploymentView(
            time_ns=now_ns,
            wanted=self.provisioner.wanted[self.deployment],
            pods=Pods(
                number=np.array([replica.number for replica in pods], np.int64),
                pending=np.array([replica.is_pending for replica in pods], np.bool_),
                ready=np.array([replica.is_ready for replica in pods], np.bool_),
                age_ns=np.array([now_ns - replica.requested_ns for replica in pods], np.int64),
                ready_ns=np.array([now_ns - replica.ready_ns if replica.is_ready else 0 for replica in pods], np.int64),
            ),
            draining=len(replicas) - len(pods),
            metrics=self.feed.samples(now_ns, self.metric_names, pods) if self.metric_names else {},
        )

    def _control(self) -> Process:
        """Look, decide, act, sleep until the policy's next look; each decision that changes something becomes a row."""
        yield self.env.timeout(self.policy.first_look_ns(self.phase))
        while True:
            view = self.view()
            decision = self.policy.decide(view)
            if decision.replicas != view.wanted:
                self.sink.append("decisions", {
                    "time_ns": view.time_ns, "deployment": self.deployment, "policy": choice_name(self.policy),
                    "before": view.wanted, "after": decision.replicas, "reason": decision.reason,
                })  # fmt: skip
                self.provisioner.set_wanted(self.deployment, decision.replicas)
            next_ns = self.policy.next_look_ns(view)
            if next_ns >= NEVER_NS:
                return
            yield self.env.timeout(next_ns - int(self.env.now))
