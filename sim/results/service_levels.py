"""The service levels of a run as plain data for other programs: periods, burn rates, causes and the bill by month."""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import Any

from sim.results.burn import Burn, burns
from sim.results.causes import causes, causes_by_period
from sim.results.invoice import invoice_by_month
from sim.results.periods import Calendar
from sim.results.records import RunResult
from sim.results.slo import counts_by_period, period_attainments
from sim.results.trend import trend
from sim.units import NANO_PER_USD, NS_PER_S, NS_PER_US


def service_levels(result: RunResult, unit: str) -> dict[str, Any]:
    """Return everything the tables by month or week say, ready for JSON.

    Parameters
    ----------
    unit : "month" or "week", of the time zone of each service; the bill is by month of the account's.

    Returns
    -------
    `run`, `by`, `services` (by name: `timezone`, `periods`, `burn_rates`, `causes`) and `bill`. Instants are ISO 8601 in UTC.
    """
    calendar = Calendar.of(result.manifest["scenario"])
    counts, points = counts_by_period(result, calendar, unit), trend(result, calendar, unit)
    by_period, totals, alerts = causes_by_period(result, calendar, unit), causes(result), burns(result)
    services: dict[str, Any] = {}
    for service, mine in points.items():
        slo = period_attainments(result.summary, service, counts[service])
        services[service] = {
            "timezone": calendar.zones[service],
            "periods": [
                {
                    "label": point.label,
                    "from": _moment(calendar, point.start_ns),
                    "to": _moment(calendar, point.end_ns),
                    "partial": found.partial,
                    "requests": {"arrived": point.arrived, "completed": point.completed, **_left(found.counts)},
                    "tokens": point.tokens,
                    "usd": point.cost_nano / NANO_PER_USD,
                    "usd_per_1m_tokens": point.usd_per_1m_tokens,
                    "energy_j": point.energy_j,
                    "latency_s": point.latency_s,
                    "slo": {target: periods[point.label] for target, periods in slo.items()},
                    "causes": by_period[service][point.label],
                }
                for point, found in zip(mine, counts[service], strict=True)
            ],
            "burn_rates": [_alert(calendar, burn) for burn in alerts if burn.service == service],
            "causes": {
                row.cause: {
                    "requests": row.requests,
                    "share": row.share,
                    "windows": row.windows,
                    "worst_window": None if row.worst_ns is None else _moment(calendar, row.worst_ns),
                    "worst_requests": row.worst_requests,
                }
                for row in totals[service]
            },
        }
    return {
        "run": str(result.folder),
        "by": unit,
        "services": services,
        "bill": [
            {"month": row.month, "service": row.service, "category": row.category, "usd": row.amount_nano / NANO_PER_USD}
            for row in invoice_by_month(result)
        ],
    }


def _alert(calendar: Calendar, burn: Burn) -> dict[str, Any]:
    return {
        "target": burn.target,
        "goal": burn.goal,
        "severity": burn.rule.severity,
        "factor": burn.rule.factor,
        "long_s": burn.rule.long_ns / NS_PER_S,
        "short_s": burn.rule.short_ns / NS_PER_S,
        "state": burn.state,
        "can_fire": burn.can_fire,
        "worst": burn.worst,
        "worst_end": None if burn.worst_end_ns is None else _moment(calendar, burn.worst_end_ns),
        "fired": [{"from": _moment(calendar, begin), "to": _moment(calendar, end)} for begin, end in burn.firing_ns.tolist()],
    }


def _left(counts: dict[str, int]) -> dict[str, int]:
    """Of the measured time: what left, and what left unserved."""
    return {"measured": counts["total"], "measured_unserved": counts["unserved"]}


def _moment(calendar: Calendar, time_ns: int) -> str:
    moment = calendar.start + timedelta(microseconds=time_ns // NS_PER_US)
    return moment.astimezone(UTC).isoformat()
