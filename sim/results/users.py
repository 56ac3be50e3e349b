"""Active users: clients of a closed loop, or users of open traffic, that completed a request, and what each of them cost by month.

Engines keep when each client last completed a request, so the counts are exact in every run, whatever `records` says, in memory
that does not grow with the horizon. A workload whose requests do not say who sends them has no clients, and no number here.
"""

from __future__ import annotations

from typing import Any

from sim.results.records import RunResult
from sim.units import NANO_PER_USD


def users_by_service(result: RunResult) -> dict[str, dict[str, Any]]:
    """Return what `summary.json` says about users, by service; services without clients are left out.

    Returns
    -------
    clients : how many there are. active, usd_per_active_user : of the whole run. by_month : YYYY-MM -> active, usd and
        usd_per_active_user of that month, where usd is all that the service paid, overheads included. None for no active user.
    """
    paid_nano = _paid_nano(result)
    columns = result.sql("SELECT service, month, users, clients FROM active_users WHERE stream < 0 ORDER BY service, month")
    found: dict[str, dict[str, Any]] = {}
    for service, month, users, clients in zip(*(column.tolist() for column in columns.values()), strict=True):
        if not month:  # the row of the whole run is the first of its service
            whole_nano = sum(amount for (who, _), amount in paid_nano.items() if who == service)
            found[service] = {"clients": clients, "active": users, "usd_per_active_user": _per(whole_nano, users), "by_month": {}}
            continue
        amount_nano = paid_nano.get((service, month), 0)
        found[service]["by_month"][month] = {
            "active": users,
            "usd": amount_nano / NANO_PER_USD,
            "usd_per_active_user": _per(amount_nano, users),
        }
    return found


def _paid_nano(result: RunResult) -> dict[tuple[str, str], int]:
    """(service, month) -> what its streams paid."""
    columns = result.sql("""
        SELECT service, month, sum(attribution.amount_nano_usd) AS amount FROM attribution JOIN ledger USING (row)
        WHERE stream >= 0 GROUP BY service, month ORDER BY service, month
    """)
    return {
        (service, month): int(amount) for service, month, amount in zip(*(one.tolist() for one in columns.values()), strict=True)
    }


def _per(amount_nano: int, users: int) -> float | None:
    return amount_nano / users / NANO_PER_USD if users else None
