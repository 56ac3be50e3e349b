"""Helpers for tests of commitments: whole fleets played through a ledger, hour by hour, as the meter does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from billing_kit import MAY_USE, STREAMS, Lists, pool_billing

from sim.billing.commitments import Settlement, settlement_of
from sim.billing.ledger import OPEN_AT_END, Ledger
from sim.billing.tariffs import pays_electricity, pool_tariffs
from sim.domain.usage import Lease
from sim.scenario import Account, Pool, Scenario
from sim.scenario.resolve import Resolved, resolve
from sim.units import NS_PER_HOUR, NS_PER_S

START = datetime(2026, 1, 5, tzinfo=UTC)


def rented(number: int, pool: str, start_s: float, end_s: float, cause: str = "scaled_down", **columns: Any) -> Lease:
    """A lease of one machine of two accelerators, from and to a second of the run."""
    where = {"instance": "p5.4xlarge", "purchase": "on_demand", "zone": "us-east-1a", **columns}
    start_ns, end_ns = round(start_s * NS_PER_S), round(end_s * NS_PER_S)
    return Lease(number, number, pool, accelerators=2, start_ns=start_ns, end_ns=end_ns, end_cause=cause, **where)


def play(ledger: Ledger, leases: Sequence[Lease], horizon_ns: int, more_cuts: Iterable[int] = ()) -> None:
    """Record all leases between cuts in order of time, and settle every hour; leases alive at the horizon stay open."""
    ends = [lease.end_ns for lease in leases if lease.end_ns is not None]
    edges = sorted({0, horizon_ns, *ledger.cuts(), *more_cuts, *(t_ns for t_ns in ends if t_ns < horizon_ns)})
    cut = [
        lease if (lease.end_ns or 0) <= horizon_ns else replace(lease, end_ns=horizon_ns, end_cause=OPEN_AT_END) for lease in leases
    ]
    for begin_ns, end_ns in pairwise(edges):
        for lease in sorted(cut, key=lambda lease: lease.lease):
            assert lease.end_ns is not None
            first_ns, last_ns = max(begin_ns, lease.start_ns), min(end_ns, lease.end_ns)
            if first_ns < last_ns:
                ledger.record(lease, first_ns, last_ns, [])
            if begin_ns < lease.end_ns <= end_ns:
                ledger.close_lease(lease)
        ledger.close_hours(end_ns)


def resolved_of(pools: Mapping[str, Pool], commitments: Mapping[str, Any], **changes: Any) -> Resolved:
    """A resolved scenario with pools and commitments, and no services."""
    made: dict[str, Any] = {"start": START.isoformat(), "pools": dict(pools), "commitments": dict(commitments), **changes}
    return resolve(Scenario(**made))


def bill(
    pools: Mapping[str, Pool], commitments: Mapping[str, Any], leases: Sequence[Lease], hours: float = 24, **changes: Any
) -> Lists:
    """Charge leases of pools under commitments; 7,200 s are two hours."""
    resolved = resolved_of(pools, commitments, **changes)
    return bill_of(resolved, settlement_of(resolved), leases, round(hours * NS_PER_HOUR))


def bill_of(resolved: Resolved, settlement: Settlement | None, leases: Sequence[Lease], horizon_ns: int) -> Lists:
    """Charge leases of resolved pools."""
    sink = Lists()
    billing = {
        name: replace(
            pool_billing(next(iter(tariffs.values()))),
            tariffs=tariffs,
            electricity_billed=row.config.electricity_billed or pays_electricity(row.config),
        )
        for name, row in resolved.pools.items()
        for tariffs in [pool_tariffs(name, resolved)]
    }
    account = Account("account", resolved.scenario.account.timezone)
    start = resolved.scenario.start_instant
    ledger = Ledger(start, horizon_ns, account, billing, STREAMS, MAY_USE, sink, settlement)
    play(ledger, leases, horizon_ns)
    check_sums(sink)
    return sink


def check_sums(sink: Lists) -> None:
    """Every row is its parts; every lease is its rows; nothing else is in the ledger but charges of the account."""
    rows, parts = sink.tables["ledger"], sink.tables["attribution"]
    for row in rows:
        of_row = [part for part in parts if part["row"] == row["row"]]
        for column in ("amount_nano_usd", "effective_nano_usd"):
            assert row[column] == sum(part[column] for part in of_row)
    booked: dict[int, int] = {}
    for row in rows:
        booked[row["lease"]] = booked.get(row["lease"], 0) + row["amount_nano_usd"]
    assert {lease["lease"]: lease["amount_nano_usd"] for lease in sink.tables["leases"]} == {
        number: amount for number, amount in booked.items() if number >= 0
    }


def lines(sink: Lists, *names: str, amount: str = "amount_nano_usd") -> dict[tuple[object, ...], int]:
    """Sums of the ledger by some columns, in nano-dollars."""
    found: dict[tuple[object, ...], int] = {}
    for row in sink.tables["ledger"]:
        key = tuple(row[name] for name in names)
        found[key] = found.get(key, 0) + row[amount]
    return found
