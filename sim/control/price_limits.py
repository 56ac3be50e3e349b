"""Maximum prices of spot machines: while the price of a zone is above it none are to be had, and those that run are taken back.

A machine is lost at the moment of the crossing, after its notice; so no second is charged above the maximum. Source: Amazon EC2
user guide, spot instance interruptions: a price above the maximum is a reason for one. Read 2026-11-23.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import simpy

from sim.billing.tariffs import Tariff
from sim.control.nodes import NOT_REACHED, Node
from sim.control.provisioner import Provisioner

Process = Generator[simpy.Event, None, None]


@dataclass(frozen=True)
class Closing:
    """A time without machines in a zone.

    Parameters
    ----------
    notice_ns : machines get notice, and no new ones can be had. lost_ns : the price is above the maximum. over_ns : it is not any
        more; None stays so to the end of the run.
    """

    notice_ns: int
    lost_ns: int
    over_ns: int | None


def closings(tariff: Tariff, most_nano: int, notice_ns: int) -> list[Closing]:
    """Return when a zone has no machines at a maximum price, in order; times that overlap because of the notice are one.

    Parameters
    ----------
    most_nano : maximum price in nano-dollars an hour; the price itself may be as high. notice_ns : before the crossing.

    Examples
    --------
    >>> from sim.billing.rates import Rate
    >>> from sim.billing.tariffs import MachineTariff
    >>> path = tuple(Rate(at, nano, "", "a path", "fitted") for at, nano in ((0, 1), (50, 3), (70, 2), (75, 4)))
    >>> closings(MachineTariff(path), 2, 10)
    [Closing(notice_ns=40, lost_ns=50, over_ns=None)]
    >>> closings(MachineTariff(path[:3]), 2, 10)
    [Closing(notice_ns=40, lost_ns=50, over_ns=70)]
    """
    found: list[Closing] = []
    above_since: int | None = None
    for at_ns in (0, *tariff.changes_ns()):
        is_above = tariff.rate(at_ns).nano_usd_per_hour > most_nano
        if is_above and above_since is None:
            above_since = at_ns
        elif not is_above and above_since is not None:
            found.append(Closing(max(above_since - notice_ns, 0), above_since, at_ns))
            above_since = None
    if above_since is not None:
        found.append(Closing(max(above_since - notice_ns, 0), above_since, None))
    merged: list[Closing] = []
    for each in found:
        before = merged[-1] if merged else None
        if before is not None and before.over_ns is not None and each.notice_ns <= before.over_ns:
            merged[-1] = Closing(before.notice_ns, before.lost_ns, each.over_ns)
        else:
            merged.append(each)
    return merged


class PriceLimit:
    """The maximum price of a spot pool in one of its zones.

    Parameters
    ----------
    tariff : whose price is compared. most_nano : the maximum. notice_ns : before a machine is lost.
    """

    def __init__(
        self,
        env: simpy.Environment,
        provisioner: Provisioner,
        where: tuple[str, str],
        tariff: Tariff,
        most_nano: int,
        notice_ns: int,
    ) -> None:
        self.env, self.provisioner = env, provisioner
        self.machines = provisioner.machines
        self.pool, self.zone = where
        self._closings = closings(tariff, most_nano, notice_ns)
        self._lost_ns: int | None = None

    def start(self) -> None:
        """Let the price rule: a zone that begins above the maximum is closed from the start."""
        if self._closings:
            self.machines.on_running.append(self._on_running)
            if self._closings[0].notice_ns == 0:
                self._close(self._closings[0])
            self.env.process(self._watch())

    def _watch(self) -> Process:
        for closing in self._closings:
            if closing.notice_ns > 0:
                yield self.env.timeout(closing.notice_ns - int(self.env.now))
                self._close(closing)
                for node in list(self.machines.of(self.pool)):
                    self._take(node)
            if closing.over_ns is None:
                return
            yield self.env.timeout(closing.over_ns - int(self.env.now))
            self._lost_ns = None
            if self.machines.reopen(self.pool, self.zone, self):
                self.machines.event("price_below_maximum", f"pool {self.pool}", self.zone)

    def _close(self, closing: Closing) -> None:
        self._lost_ns = closing.lost_ns
        self.machines.close(self.pool, self.zone, self)
        self.machines.event("price_above_maximum", f"pool {self.pool}", self.zone)

    def _on_running(self, node: Node) -> None:
        """Machines that were asked for before the notice and run only after it are lost with the others."""
        self._take(node)

    def _take(self, node: Node) -> None:
        ours = (node.pool, node.zone) == (self.pool, self.zone)
        if ours and self._lost_ns is not None and node.running_ns != NOT_REACHED and node.notice_ns == NOT_REACHED:
            self.env.process(self._take_back(node, self._lost_ns))

    def _take_back(self, node: Node, lost_ns: int) -> Process:
        self.provisioner.notice(node)
        yield self.env.timeout(max(lost_ns - int(self.env.now), 0))
        if node.is_alive:
            self.provisioner.lose(node, "interrupted")
