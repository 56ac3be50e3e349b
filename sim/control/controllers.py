"""Controllers: they let an autoscaler look and act on what it decides."""

from __future__ import annotations

import copy

import simpy

from sim.billing.ledger import Sink
from sim.control.fleet import Fleet
from sim.control.metrics_feed import MetricsFeed
from sim.control.provisioner import Provisioner
from sim.control.world import World
from sim.policies.base import NEVER_NS, Autoscaler, DeploymentView
from sim.registry import choice_name
from sim.rng import StreamKey
from sim.units import NS_PER_S


class Controller:
    """One autoscaler at work on one deployment: scrapes and looks, each at its own times; at equal times it scrapes first.

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
        self.fleet = Fleet(provisioner, deployment)
        scenario = world.resolved.scenario
        phase = StreamKey(scenario.seed, scenario.replication, "controller phase", deployment).generator().random()
        self._clock_ns = self.policy.clock_ns()
        self._last_look_ns = self._look_ns = self.policy.first_look_ns(phase)
        names, timing = self.policy.metric_names(), self.policy.metric_timing()
        first_scrape_ns = int(phase * round(timing.scrape_s * NS_PER_S)) if names else NEVER_NS
        self.feed = MetricsFeed(world.planes[world.plane_of[deployment]], deployment, names, timing, first_scrape_ns)
        self._armed_ns = NEVER_NS

    def start(self) -> None:
        """Begin to scrape, if the policy wants metrics, and to look."""
        if self._clock_ns:
            self.provisioner.machines.on_change.append(self._on_change)
        self._arm()

    def view(self) -> DeploymentView:
        """Look at the deployment now."""
        now_ns, roster = int(self.env.now), self.fleet.roster()
        return DeploymentView(
            time_ns=now_ns,
            wanted=self.provisioner.wanted[self.deployment],
            pods=roster.pods(now_ns),
            draining=roster.draining,
            metrics=self.feed.samples(now_ns, roster),
            next_sample_ns=self.feed.next_sample_ns(now_ns),
        )

    def _arm(self) -> None:
        """Sleep until the next scrape or look."""
        at_ns, now_ns = min(self.feed.next_scrape_ns, self._look_ns), int(self.env.now)
        # An alarm cannot be taken back; one that finds nothing to do does nothing.
        if at_ns < NEVER_NS and not now_ns < self._armed_ns <= at_ns:
            self._armed_ns = at_ns
            alarm = self.env.timeout(at_ns - now_ns)
            assert alarm.callbacks is not None
            alarm.callbacks.append(self._wake)

    def _wake(self, _: simpy.Event) -> None:
        now_ns = int(self.env.now)
        if self.feed.next_scrape_ns == now_ns:
            self.feed.scrape(now_ns)
        if self._look_ns == now_ns:
            self._look()
        self._arm()

    def _look(self) -> None:
        """Look, decide, act, and find out when to look again; each decision that changes something becomes a row."""
        view, changes = self.view(), self.provisioner.machines.changes
        decision = self.policy.decide(view)
        self._last_look_ns, self._look_ns = view.time_ns, NEVER_NS
        if decision.replicas != view.wanted:
            before = self.provisioner.target(self.deployment)
            self.provisioner.wanted[self.deployment] = decision.replicas
            self.sink.append("decisions", {
                "time_ns": view.time_ns, "deployment": self.deployment, "policy": choice_name(self.policy),
                "before": before, "after": self.provisioner.target(self.deployment), "reason": decision.reason,
            })  # fmt: skip
            self.provisioner.set_wanted(self.deployment, decision.replicas)
        self._look_ns = self.policy.next_look_ns(view)
        if self._clock_ns and changes != self.provisioner.machines.changes:
            self._look_ns = min(self._look_ns, view.time_ns + self._clock_ns)

    def _on_change(self) -> None:
        """Something happened to a replica or a machine: the policy sees it at the next tick of its clock."""
        if self._look_ns > self.env.now > self._last_look_ns:
            ticks = -(-(int(self.env.now) - self._last_look_ns) // self._clock_ns)
            self._look_ns = min(self._look_ns, self._last_look_ns + ticks * self._clock_ns)
            self._arm()
