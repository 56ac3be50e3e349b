"""Runs for the report, written row by row: no engine, every number known."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from sim.bins import BINS, bins_of, edges_ns, quantile_ns
from sim.results.metrics import QUANTILES, summarize
from sim.results.records import RunResult, RunWriter
from sim.results.spool import Spool
from sim.scenario import Account, Scenario, Service, Slo
from sim.schema import TABLES
from sim.units import NS_PER_HOUR, NS_PER_S, duration_ns

ENGINE = {"name": "reference", "wall_s": 1.5, "requests_per_s": 12_345.6, "steps": 1_000_000, "peak_rss_mb": 130.0}
VERSIONS = {"billcast": "0.1.0", "python": "3.11"}
_EMPTY = {"VARCHAR": "", "DOUBLE": None, "BOOLEAN": True}
MEDIANS_NS = {"ttft": 0.2e9, "tpot": 0.02e9, "e2e": 4e9}


def row(spool: Spool, table: str, **columns: Any) -> None:
    """Write a row; columns that are not given are empty."""
    empty = {column.name: _EMPTY.get(column.type, 0) for column in TABLES[table].columns}
    spool.append(table, {**empty, **columns})


def write(
    folder: Path, scenario: Scenario, *parts: Callable[[Spool], None], step_models: dict[str, dict[str, Any]] | None = None
) -> RunResult:
    """Write a run from functions that write rows."""
    with RunWriter(folder) as writer:
        for part in parts:
            part(writer.spool)
        summary = summarize(writer.merge(), scenario, ENGINE)
        manifest = {
            "versions": VERSIONS,
            "finished": "2026-11-23T12:00:00+00:00",
            "scenario": scenario.to_dict(),
            "scenario_hash": scenario.digest(),
            "seed": 1,
            "spot_markets": {},
            "sites": {},
            "fleets": {},
            "step_models": step_models or {},
        }
        return writer.commit(summary, manifest)


def scenario_of(
    horizon: str, services: dict[str, Slo], *, zone: str = "UTC", start: str = "2026-03-02T00:00:00Z", **rest: Any
) -> Scenario:
    """A scenario with a start, an account zone and services with targets."""
    own = {name: Service(slo=slo) for name, slo in services.items()}
    return Scenario(
        **{"name": "written", "start": start, "horizon": horizon, "services": own, "account": Account("a", zone), **rest}
    )


def replica(number: int, requested_s: float, ready_s: float, drain_s: float, gone_s: float, **rest: Any) -> Callable[[Spool], None]:
    """A replica's life in seconds; negative is never."""
    times = {"requested": requested_s, "ready": ready_s, "drain": drain_s, "gone": gone_s}
    in_ns = {f"{name}_ns": -1 if value < 0 else round(value * NS_PER_S) for name, value in times.items()}
    return lambda spool: row(spool, "replicas", **{"replica": number, "deployment": "llama", "cause": "end", **in_ns, **rest})


def charges(scenario: Scenario, parts: dict[tuple[str, str], int], hours: int) -> Callable[[Spool], None]:
    """A ledger of one row an hour whose parts, (use, service) to nano-dollars, are the same every hour."""

    def write_rows(spool: Spool) -> None:
        zone = ZoneInfo(scenario.account.timezone)
        for hour in range(hours):
            local = (scenario.start_instant + timedelta(hours=hour)).astimezone(zone).isoformat(timespec="minutes")
            times = {"start_ns": hour * NS_PER_HOUR, "end_ns": (hour + 1) * NS_PER_HOUR, "local_hour": local, "month": local[:7]}
            row(spool, "ledger", row=hour, amount_nano_usd=sum(parts.values()), category="compute", unit="instance-second",
                unit_price="1 per hour", quantity=3600, confidence="published", **times)  # fmt: skip
            for stream, ((use, service), part) in enumerate(parts.items()):
                row(spool, "attribution", row=hour, start_ns=times["start_ns"], use=use, service=service, stream=stream,
                    amount_nano_usd=part)  # fmt: skip

    return write_rows


def traffic(scenario: Scenario, window_s: int, per_window: int, *, seed: int = 5, unserved: int = 0) -> Callable[[Spool], None]:
    """Windows and histograms of log-normal latencies drawn one by one, so that who was within a target is known exactly.

    One stream per service; later services are slower, and so is the middle of the run. `unserved` requests of every window are
    rejected; a fifth of the completions have a single token, and so no TPOT.
    """
    draw = np.random.default_rng(seed)
    windows = max(scenario.horizon_ns // (window_s * NS_PER_S), 1)
    single = np.arange(per_window) % 5 == 0

    def write_rows(spool: Spool) -> None:
        for stream, (service, config) in enumerate(scenario.services.items()):
            sums = {latency: np.zeros(BINS, np.int64) for latency in MEDIANS_NS}
            for window in range(windows):
                start_ns, end_ns = (scenario.horizon_ns * edge // windows for edge in (window, window + 1))
                slow = (1 + 0.25 * stream) * (1 + np.sin(np.pi * (window + 0.5) / windows) ** 8)
                drawn = {
                    name: draw.lognormal(np.log(ns * slow), 0.5, per_window).astype(np.int64) for name, ns in MEDIANS_NS.items()
                }
                measured = start_ns >= duration_ns(scenario.warmup)
                for latency, values in drawn.items():
                    sums[latency] += measured * _counts(values[~single] if latency == "tpot" else values)
                row(spool, "windows", start_ns=start_ns, end_ns=end_ns, measured=measured, stream=stream, service=service,
                    segment="all", arrived=per_window + unserved, completed=per_window, rejected=unserved,
                    total=per_window + unserved, tpot_count=int((~single).sum()), queued_mean=2.0 * slow, in_flight_mean=3.0,
                    replicas_mean=1.0, busy_s=1.0, energy_j=1.0, **_latencies(drawn, single, config.slo))  # fmt: skip
            _write_histograms(spool, stream, service, sums)

    return write_rows


def _latencies(drawn: dict[str, Any], single: Any, slo: Slo) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    every = np.ones(len(single), np.bool_)
    for latency, values in drawn.items():
        counted = values[~single] if latency == "tpot" else values
        limit_s = getattr(slo, f"{latency}_s")
        good = np.ones(len(values), np.bool_) if limit_s is None else values <= limit_s * 1e9
        good |= single & (latency == "tpot")
        every &= good
        columns |= {f"{latency}_{name}_s": quantile_ns(_counts(counted), q) / 1e9 for name, q in QUANTILES.items()}
        columns |= {f"{latency}_mean_s": float(counted.mean()) / 1e9, f"good_{latency}": int(good.sum())}
    return {**columns, "good_all": int(every.sum())}


def _counts(values: Any) -> Any:
    return np.bincount(bins_of(values), minlength=BINS)


def _write_histograms(spool: Spool, stream: int, service: str, sums: dict[str, Any]) -> None:
    edges = edges_ns()
    for latency, counts in sums.items():
        for number in np.flatnonzero(counts).tolist():
            row(spool, "histograms", stream=stream, service=service, segment="all", latency=latency, bin=number,
                low_ns=float(edges[number]), high_ns=float(edges[number + 1]), count=int(counts[number]))  # fmt: skip
