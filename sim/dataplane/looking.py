"""How the reference engine is looked at: its state as arrays, computed without touching it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from sim.dataplane.accounting import Accounts
from sim.dataplane.backlogs import Backlog
from sim.dataplane.engine import IntArray, View
from sim.dataplane.state import Replica


def _ints(values: Iterable[int]) -> IntArray:
    return np.fromiter(values, np.int64)


def _in_step_ns(replica: Replica, t_ns: int, since_ns: int = 0) -> int:
    return t_ns - max(since_ns, replica.step_start_ns) if replica.step_end is not None else 0


def look(t_ns: int, accounts: Accounts, service_queue: list[int], backlogs: list[Backlog], replicas: list[Replica]) -> View:
    """Return the view of queues, `replicas` (by index) and `accounts` at `t_ns`; steps in flight count as busy up to now."""
    totals = [replica.totals for replica in replicas]
    ring_arrivals, ring_in_flight_us = accounts.ring.read(t_ns, sum(accounts.in_flight))
    thrown_back = [0] * len(accounts.rules)
    for backlog in backlogs:
        thrown_back[backlog.stream] = len(backlog.thrown_back)
    return View(
        time_ns=t_ns,
        counters=np.array(accounts.counters, np.int64),
        queued=_ints(accounts.queued),
        in_flight=_ints(accounts.in_flight),
        thrown_back=_ints(thrown_back),
        queued_us=accounts.queued_us(t_ns),
        in_flight_us=accounts.in_flight_us(t_ns),
        service_queue=_ints(service_queue),
        replica=_ints(replica.number for replica in replicas),
        spec=_ints(total.spec for total in totals),
        accepting=_ints(replica.accepting for replica in replicas),
        waiting=_ints(replica.outstanding + replica.backlog - replica.running for replica in replicas),
        running=_ints(replica.running for replica in replicas),
        outstanding=_ints(replica.outstanding for replica in replicas),
        from_backlog=_ints(replica.backlog for replica in replicas),
        reserved_tokens=_ints(replica.reserved for replica in replicas),
        kv_used_tokens=_ints(replica.used for replica in replicas),
        busy_ns=_ints(replica.totals.busy_ns + _in_step_ns(replica, t_ns) for replica in replicas),
        draining_busy_ns=_ints(
            replica.totals.draining_busy_ns
            + (0 if replica.totals.drain_ns is None else _in_step_ns(replica, t_ns, replica.totals.drain_ns))
            for replica in replicas
        ),
        steps=_ints(total.steps for total in totals),
        prefill_tokens=_ints(total.prefill_tokens for total in totals),
        output_tokens=_ints(total.output_tokens for total in totals),
        lost_ns=np.array([total.lost_ns for total in totals], np.float64),
        energy_j=np.array([total.energy_j for total in totals], np.float64),
        shares_ns=np.array([total.shares_ns for total in totals], np.float64).reshape(len(totals), len(accounts.rules)),
        ring_arrivals=ring_arrivals,
        ring_in_flight_us=ring_in_flight_us,
    )
