"""Cost and latency by month or week: what a unit of work cost, and how long it took."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sim.bins import BINS, quantile_ns
from sim.results.periods import Calendar, period_of
from sim.results.records import RunResult
from sim.results.slo import TARGETS
from sim.results.windows import windows_by_service
from sim.units import NANO_PER_USD, NS_PER_S

TREND_QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True)
class TrendPoint:
    """One service in one period of its own time zone.

    Parameters
    ----------
    label, start_ns, end_ns, partial : of the period, as far as it lies in the run.
    arrived, completed : requests. tokens : prompt and output tokens of the completed ones.
    cost_nano : what the service paid, its overheads included. energy_j : accelerator energy of stepping.
    latency_s : by target and quantile ("p50", "p95", "p99"), pooled over the service's segments, after the warm-up; None where
        nothing completed.
    """

    label: str
    start_ns: int
    end_ns: int
    partial: bool
    arrived: int
    completed: int
    tokens: int
    cost_nano: int
    energy_j: float
    latency_s: dict[str, dict[str, float | None]]

    @property
    def usd_per_1m_tokens(self) -> float | None:
        """Cost per million tokens, prompt and output together; None without tokens."""
        return self.cost_nano * 1_000_000 / self.tokens / NANO_PER_USD if self.tokens else None


def trend(result: RunResult, calendar: Calendar, unit: str) -> dict[str, list[TrendPoint]]:
    """Return cost, work and latency of each service, period by period.

    Quantiles come from the integer histograms of the period, not from those of its windows.

    Parameters
    ----------
    calendar : of the run. unit : "month" or "week".
    """
    columns = ["arrived", "completed", "prompt_tokens", "output_tokens", "cost_nano_usd", "energy_j"]
    found = {}
    for service, windows in windows_by_service(result, columns).items():
        periods = calendar.periods(service, unit)
        number = period_of(periods, windows.start_ns)
        sums = {name: np.zeros(len(periods), windows.columns[name].dtype) for name in columns}
        for name, values in windows.columns.items():
            np.add.at(sums[name], number, values)
        latencies = _latencies(result, service, calendar, unit)
        found[service] = [
            TrendPoint(
                period.label,
                period.start_ns,
                period.end_ns,
                period.partial,
                int(sums["arrived"][row]),
                int(sums["completed"][row]),
                int(sums["prompt_tokens"][row] + sums["output_tokens"][row]),
                int(sums["cost_nano_usd"][row]),
                float(sums["energy_j"][row]),
                latencies[row],
            )
            for row, period in enumerate(periods)
        ]
    return found


def _latencies(result: RunResult, service: str, calendar: Calendar, unit: str) -> list[dict[str, dict[str, float | None]]]:
    periods = calendar.periods(service, unit)
    name = service.replace("'", "''")
    table = result.sql(f"""
        SELECT start_ns, latency, bin, sum(count) AS count FROM histograms WHERE service = '{name}' GROUP BY ALL ORDER BY ALL
    """)
    counts = np.zeros((len(periods), len(TARGETS), BINS), np.int64)
    latency = np.array([TARGETS.index(target) for target in table["latency"].tolist()], np.int64)
    np.add.at(counts, (period_of(periods, table["start_ns"]), latency, table["bin"]), table["count"])
    return [
        {
            target: {quantile: _seconds(quantile_ns(mine[index], q)) for quantile, q in TREND_QUANTILES.items()}
            for index, target in enumerate(TARGETS)
        }
        for mine in counts
    ]


def _seconds(value_ns: float) -> float | None:
    return None if math.isnan(value_ns) else value_ns / NS_PER_S
