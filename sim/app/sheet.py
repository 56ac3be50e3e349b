"""The capacity sheet: what a fleet can hold and serve, by closed form, before anything is simulated."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from sim.billing.tariffs import pool_tariffs
from sim.domain.traffic import RequestBlock
from sim.perf.capacity import CapacitySheet, capacity_sheet
from sim.policies.base import Autoscaler
from sim.rng import StreamKey
from sim.scenario import Scenario
from sim.scenario.resolve import ReplicaKind, Resolved, resolve
from sim.units import NANO_PER_USD, NS_PER_MINUTE, NS_PER_S
from sim.workload.base import ExpectedLoad, Workload

# The peak of a recorded trace is that of its busiest five minutes: shorter ones are bursts that a queue evens out.
PEAK_BIN_NS = 5 * NS_PER_MINUTE
MOST_TRACE_REQUESTS = 5_000_000
COLD_START_DRAWS = 20_000
_Z95 = 1.6448536269514722


@dataclass(frozen=True)
class Load:
    """The traffic offered to a service, None where it is not known before the run.

    Parameters
    ----------
    mean_rate_per_s, peak_rate_per_s : requests per second. prompt_tokens, output_tokens : means per request.
    clients : most requests in the system at once (closed loop).
    """

    mean_rate_per_s: float | None
    peak_rate_per_s: float | None
    prompt_tokens: float | None
    output_tokens: float | None
    clients: int | None = None


@dataclass(frozen=True)
class KindReport:
    """What one replica of a deployment can do on a pool, and what it costs.

    Parameters
    ----------
    sheet : None where the lengths of its requests are unknown or it holds not even one. usd_per_hour : of one replica.
    usd_per_1m_tokens : prompt and output tokens together, at full use. stages_s : stage -> (median, 95th percentile).
    cold_start_s : median and 95th percentile of all stages together.
    """

    deployment: str
    pool: str
    kv_tokens: int
    sheet: CapacitySheet | None
    usd_per_hour: float
    usd_per_1m_tokens: float | None
    stages_s: dict[str, tuple[float, float]]
    cold_start_s: tuple[float, float]


@dataclass(frozen=True)
class FleetReport:
    """The load of services that share replicas against what their fleet can serve.

    Parameters
    ----------
    least_replicas, most_replicas : at the start, and the most its autoscalers can want.
    capacity_per_s : requests per second of `most_replicas`, None where unknown.
    """

    services: tuple[str, ...]
    mean_rate_per_s: float | None
    peak_rate_per_s: float | None
    least_replicas: int
    most_replicas: int
    capacity_per_s: float | None


@dataclass(frozen=True)
class CapacityReport:
    """The whole sheet of a scenario, with its warnings in words."""

    name: str
    loads: dict[str, Load]
    kinds: list[KindReport]
    fleets: list[FleetReport]
    warnings: list[str] = field(default_factory=list)


def capacity_report(scenario: Scenario) -> CapacityReport:
    """Compute the capacity sheet of a checked scenario.

    Raises
    ------
    InputError : a trace that cannot be read.

    Examples
    --------
    >>> from sim.app.conf import load_scenario
    >>> report = capacity_report(load_scenario("bench_chat8"))
    >>> report.fleets[0].most_replicas, round(report.fleets[0].mean_rate_per_s)
    (8, 112)
    """
    resolved = resolve(scenario)
    loads = {name: offered_load(name, service.workload, scenario) for name, service in scenario.services.items()}
    kinds = [_kind_report(kind, resolved, loads) for kind in resolved.kinds.values()]
    fleets = [_fleet_report(members, scenario, loads, kinds) for members in scenario.planes()]
    return CapacityReport(scenario.name, loads, kinds, fleets, _warnings(scenario, fleets, kinds))


def offered_load(name: str, workload: Workload, scenario: Scenario) -> Load:
    """Return what a workload will offer: as it says itself, else counted from its requests (a trace).

    Parameters
    ----------
    name : the service, which names its random streams.
    """
    expected = workload.expected_load(scenario.start_instant, scenario.horizon_ns)
    if expected == ExpectedLoad():
        return _counted_load(name, workload, scenario)
    return Load(
        expected.mean_rate_per_s,
        expected.peak_rate_per_s,
        expected.mean_prompt_tokens,
        expected.mean_output_tokens,
        expected.clients,
    )


def _counted_load(name: str, workload: Workload, scenario: Scenario) -> Load:
    key = StreamKey(scenario.seed, scenario.replication, "workload", name)
    source = workload.open(key, scenario.start_instant, scenario.horizon_ns)
    blocks: list[RequestBlock] = []
    requests = 0
    for block in source.blocks():
        blocks.append(block)
        requests += len(block)
        if requests >= MOST_TRACE_REQUESTS:
            break
    if requests == 0:
        return Load(0.0, 0.0, None, None)
    arrivals = np.concatenate([block.arrival_ns for block in blocks])
    whole = requests < MOST_TRACE_REQUESTS
    span_ns = scenario.horizon_ns if whole else int(arrivals[-1]) + 1
    bin_ns = min(PEAK_BIN_NS, span_ns)
    peak = int(np.bincount(arrivals // bin_ns).max())
    prompt, output = (sum(int(getattr(block, column).sum()) for block in blocks) for column in ("prompt_tokens", "output_tokens"))
    return Load(
        mean_rate_per_s=requests * NS_PER_S / span_ns,
        peak_rate_per_s=peak * NS_PER_S / bin_ns,
        prompt_tokens=prompt / requests,
        output_tokens=output / requests,
    )


def _kind_report(kind: ReplicaKind, resolved: Resolved, loads: dict[str, Load]) -> KindReport:
    scenario, deployment = resolved.scenario, kind.config
    users = {name: service for name, service in scenario.services.items() if kind.deployment in service.deployments}
    targets = [service.slo.tpot_s for service in users.values() if service.slo.tpot_s is not None]
    lengths = mean_lengths([loads[name] for name in users])
    sheet = None
    if lengths is not None:
        try:
            sheet = capacity_sheet(
                kind.step,
                kind.kv_tokens,
                prompt_tokens=lengths[0],
                output_tokens=lengths[1],
                max_num_seqs=deployment.max_num_seqs,
                max_num_batched_tokens=deployment.max_num_batched_tokens,
                tpot_target_s=min(targets, default=None),
            )
        except ValueError:
            sheet = None  # its cache holds not even one mean request: `_warnings` says so
    pool = resolved.pools[kind.pool]
    tariff = pool_tariffs(kind.pool, resolved)[pool.config.zones[0]]
    per_node = max(pool.instance.accelerators // deployment.tensor_parallel, 1)
    usd_per_hour = tariff.rate(0).nano_usd_per_hour / NANO_PER_USD / per_node
    usd_per_1m = None
    if sheet is not None and lengths is not None and sheet.requests_per_s > 0:
        usd_per_1m = usd_per_hour / (sheet.requests_per_s * sum(lengths) * 3600) * 1e6
    cold_start_s = total_time_s(kind.stages_s)
    return KindReport(
        kind.deployment, kind.pool, kind.kv_tokens, sheet, usd_per_hour, usd_per_1m, dict(kind.stages_s), cold_start_s
    )


def mean_lengths(loads: list[Load]) -> tuple[float, float] | None:
    """Return mean prompt and output tokens of several services, weighted by their rates; None where a length is unknown.

    Examples
    --------
    >>> mean_lengths([Load(3.0, 3.0, 100.0, 10.0), Load(1.0, 1.0, 500.0, 50.0)])
    (200.0, 20.0)
    """
    known = [
        (load.mean_rate_per_s, load.prompt_tokens, load.output_tokens)
        for load in loads
        if load.prompt_tokens is not None and load.output_tokens is not None
    ]
    if not known:
        return None
    # A closed loop has no rate of its own; where one is among them, all count alike.
    weights = [1.0 if any(rate is None for rate, _, _ in known) else float(rate or 0.0) for rate, _, _ in known]
    total = sum(weights)
    if total <= 0:
        return None
    return (
        sum(weight * prompt for weight, (_, prompt, _) in zip(weights, known, strict=True)) / total,
        sum(weight * output for weight, (_, _, output) in zip(weights, known, strict=True)) / total,
    )


def total_time_s(stages_s: dict[str, tuple[float, float]]) -> tuple[float, float]:
    """Return median and 95th percentile of the sum of independent log-normal stages, by drawing it many times.

    Parameters
    ----------
    stages_s : stage -> (median, 95th percentile) in seconds.

    Examples
    --------
    >>> total_time_s({"booting": (40.0, 40.0), "warming": (20.0, 20.0)})
    (60.0, 60.0)
    """
    draws = StreamKey(0, 0, "capacity sheet", "cold start").generator()
    total = np.zeros(COLD_START_DRAWS)
    for median_s, p95_s in stages_s.values():
        if median_s > 0:
            sigma = math.log(max(p95_s, median_s) / median_s) / _Z95
            total += median_s * np.exp(sigma * draws.standard_normal(COLD_START_DRAWS))
    median, p95 = np.quantile(total, (0.5, 0.95))
    return float(median), float(p95)


def _fleet_report(members: list[str], scenario: Scenario, loads: dict[str, Load], kinds: list[KindReport]) -> FleetReport:
    names = list(dict.fromkeys(name for member in members for name in scenario.services[member].deployments))
    scalers: dict[str, Autoscaler] = {name: scenario.deployments[name].autoscaler for name in names}
    capacity: float | None = 0.0
    for name, scaler in scalers.items():
        # On several pools, the weakest counts: the sheet promises nothing that depends on luck.
        rates = [kind.sheet.requests_per_s if kind.sheet else None for kind in kinds if kind.deployment == name]
        known = [rate for rate in rates if rate is not None]
        capacity = None if capacity is None or len(known) < len(rates) else capacity + scaler.most_replicas() * min(known)
    return FleetReport(
        tuple(members),
        _sum([loads[member].mean_rate_per_s for member in members]),
        _sum([loads[member].peak_rate_per_s for member in members]),
        sum(scaler.initial_replicas() for scaler in scalers.values()),
        sum(scaler.most_replicas() for scaler in scalers.values()),
        capacity,
    )


def _sum(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _warnings(scenario: Scenario, fleets: list[FleetReport], kinds: list[KindReport]) -> list[str]:
    warnings = []
    for fleet in fleets:
        who = ", ".join(fleet.services)
        if fleet.capacity_per_s is None or fleet.peak_rate_per_s is None or fleet.mean_rate_per_s is None:
            continue
        if fleet.mean_rate_per_s > fleet.capacity_per_s:
            warnings.append(
                f"overload: {who} offers {fleet.mean_rate_per_s:.1f} requests/s on average, more than the "
                f"{fleet.capacity_per_s:.1f} that {fleet.most_replicas} replicas can serve; the queue will grow all the time"
            )
        elif fleet.peak_rate_per_s > fleet.capacity_per_s:
            warnings.append(
                f"overload at the peak: {who} offers {fleet.peak_rate_per_s:.1f} requests/s, more than the "
                f"{fleet.capacity_per_s:.1f} that {fleet.most_replicas} replicas can serve"
            )
    for kind in kinds:
        if kind.sheet is None and any(kind.deployment in service.deployments for service in scenario.services.values()):
            warnings.append(f"{kind.deployment} on {kind.pool}: a mean request is unknown or larger than its cache")
        elif kind.sheet is not None and kind.sheet.batch == 0:
            warnings.append(f"{kind.deployment} on {kind.pool}: misses the TPOT target even with one request at a time")
    return warnings
