"""The metrics one looks at first, and how their values are written: shared by the views of replications and of comparisons."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sim.results.slo import ALL_TARGETS, TARGETS
from sim.units import seconds_text

_LATENCIES = ("mean", "p50", "p95", "p99")


@dataclass(frozen=True)
class Metric:
    """A metric with the name a reader knows it by.

    Parameters
    ----------
    path : as in `summary.json`. label : for a table. text : writes a value. difference : writes a difference of values.
    low, high : bounds of what it can be, inside which its intervals are shown.
    """

    path: str
    label: str
    text: Callable[[float], str]
    difference: Callable[[float], str]
    low: float = 0.0
    high: float = math.inf

    def clipped(self, value: float) -> str:
        """Write the end of an interval: no more of it than the metric can be."""
        return self.text(min(max(value, self.low), self.high))


def main_metrics(paths: Iterable[str]) -> list[Metric]:
    """Return the main metrics of those there are, the most important first.

    Examples
    --------
    >>> [metric.label for metric in main_metrics(["requests.arrived", "bill.total_usd", "slo.chat.ttft.attainment"])]
    ['bill USD', 'chat SLO TTFT', 'arrived']
    """
    there = set(paths)
    services = sorted({path.split(".")[1] for path in there if path.startswith(("slo.", "services."))})
    wanted = [
        _amount("bill.total_usd", "bill USD"),
        _amount("bill.usd_per_1m_tokens", "USD per 1M tokens"),
        _amount("bill.usd_per_1m_output_tokens", "USD per 1M output"),
    ]
    for service in services:
        wanted += [
            _share(f"slo.{service}.{target}.attainment", f"{service} SLO {_target(target)}") for target in (*TARGETS, ALL_TARGETS)
        ]
        wanted.append(_share(f"services.{service}.availability", f"{service} served"))
        wanted.append(_amount(f"services.{service}.jobs.usd", f"{service} jobs USD"))
        wanted.append(_seconds(f"services.{service}.jobs.longest_s", f"{service} longest job"))
        wanted.append(_count(f"services.{service}.jobs.late", f"{service} late jobs"))
        wanted.append(_amount(f"services.{service}.usd_per_1k_requests", f"{service} USD per 1k requests"))
    for service in services:
        wanted += [
            _seconds(f"latency.{service}.{target}_s.{name}", f"{service} {_target(target)} {name}")
            for target in TARGETS
            for name in _LATENCIES
        ]
    wanted += [_count(f"requests.{name}", name) for name in ("arrived", "completed", "failed", "abandoned", "rejected")]
    wanted += [_amount("energy.kwh", "energy kWh"), _amount("energy.kgco2", "carbon kg CO2")]
    return [metric for metric in wanted if metric.path in there]


def _target(name: str) -> str:
    return name.upper() if name in TARGETS else name


def signed(text: Callable[[float], str]) -> Callable[[float], str]:
    """Return a writer of differences from a writer of amounts.

    Examples
    --------
    >>> signed(str)(-2.5), signed(str)(2.5), signed(str)(0.0)
    ('-2.5', '+2.5', '0.0')
    """
    return lambda value: f"{'-' if value < 0 else '+' if value > 0 else ''}{text(abs(value))}"


def _amount(path: str, label: str) -> Metric:
    return Metric(path, label, _significant, signed(_rough))


def _count(path: str, label: str) -> Metric:
    return Metric(path, label, _whole, signed(_whole))


def _seconds(path: str, label: str) -> Metric:
    return Metric(path, label, _time, signed(_time))


def _share(path: str, label: str) -> Metric:
    return Metric(path, label, _percent, signed(_points), high=1.0)


def _significant(value: float) -> str:
    return f"{value:,.2f}" if abs(value) >= 100 else f"{value:.4g}"


def _rough(value: float) -> str:
    return f"{value:,.2f}" if abs(value) >= 100 else f"{value:.3g}"


def _whole(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) or value >= 1_000 else f"{value:,.1f}"


def _time(value: float) -> str:
    return seconds_text(value) if value else "0 s"


def _percent(share: float) -> str:
    """A share cut to two digits, not rounded: 100 % is shown only where nothing is missing."""
    return f"{math.floor(round(share * 10_000, 6)) / 100:.2f}%"


def _points(share: float) -> str:
    return f"{share * 100:.2g} pp"
