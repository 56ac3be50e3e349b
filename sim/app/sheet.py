"""The capacity sheet: what a fleet can hold and serve, by closed form, before anything is simulated."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from sim.app.sheet_jobs import JobReport, job_reports, job_warnings
from sim.app.sheet_load import Load, mean_lengths, offered_load
from sim.app.sheet_pools import PoolReport, pool_report, replicas_by_pool
from sim.perf.batchtime import BatchSheet, batch_sheet
from sim.perf.capacity import CapacitySheet, capacity_sheet
from sim.registry import choice_name
from sim.rng import StreamKey
from sim.scenario import Scenario
from sim.scenario.batcher import ServedModel
from sim.scenario.resolve import REPLICA_STAGES, ReplicaKind, Resolved, resolve

COLD_START_DRAWS = 20_000
_Z95 = 1.6448536269514722


@dataclass(frozen=True)
class KindReport:
    """What one replica of a deployment can do on a pool, and what it costs.

    Parameters
    ----------
    accelerators : of a replica. nodes : machines of a replica, below 1 where several share one.
    sheet : None where the lengths of its requests are unknown or it holds not even one, and of a batcher.
    full, quick : of a batcher, with full batches and with those that keep the E2E target; None where sizes are unknown.
    served : of a batcher with a model of the catalog. validity : "fitted", "transferred" or "assumed", of its times.
    usd_per_hour : of one replica. usd_per_1m_tokens : prompt and output tokens together, at full use; of a batcher per 1,000
        requests in `usd_per_1k_requests`. stages_s : stage -> (median, 95th percentile).
    cold_start_s : median and 95th percentile of all stages together. warm_start_s : on a machine that is up already.
    """

    deployment: str
    pool: str
    accelerators: int
    nodes: float
    kv_tokens: int
    sheet: CapacitySheet | None
    full: BatchSheet | None
    quick: BatchSheet | None
    served: ServedModel | None
    validity: str
    usd_per_hour: float
    usd_per_1m_tokens: float | None
    usd_per_1k_requests: float | None
    stages_s: dict[str, tuple[float, float]]
    cold_start_s: tuple[float, float]
    warm_start_s: tuple[float, float]

    @property
    def requests_per_s(self) -> float | None:
        """What one replica serves within its targets; None where it is unknown."""
        within = self.sheet or self.quick
        return None if within is None else within.requests_per_s

    @property
    def misses_target(self) -> bool:
        """Whether even one request at a time is too slow."""
        within = self.sheet or self.quick
        return within is not None and within.batch == 0


@dataclass(frozen=True)
class DeploymentReport:
    """How many replicas a deployment starts with and can come to have, and where placement puts them when all are up.

    Parameters
    ----------
    placement : name of the policy. first, most : replicas by pool, in the order of the deployment's pools.
    first_usd_per_hour, most_usd_per_hour : what they cost; a machine that is shared counts by its parts.
    """

    name: str
    autoscaler: str
    placement: str
    first: dict[str, int]
    most: dict[str, int]
    first_usd_per_hour: float
    most_usd_per_hour: float


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
    pools: list[PoolReport]
    kinds: list[KindReport]
    deployments: list[DeploymentReport]
    fleets: list[FleetReport]
    jobs: list[JobReport] = field(default_factory=list)
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
    pools = {name: pool_report(name, resolved) for name in scenario.pools}
    kinds = {key: _kind_report(kind, resolved, loads, pools[key[1]]) for key, kind in resolved.kinds.items()}
    deployments = [_deployment_report(name, resolved, kinds) for name in scenario.deployments]
    fleets = [_fleet_report(members, scenario, loads, kinds) for members in scenario.planes()]
    listed, jobs = list(kinds.values()), job_reports(resolved, loads)
    warnings = [*_warnings(scenario, fleets, listed, deployments), *job_warnings(jobs)]
    return CapacityReport(scenario.name, loads, list(pools.values()), listed, deployments, fleets, jobs, warnings)


def _kind_report(kind: ReplicaKind, resolved: Resolved, loads: dict[str, Load], pool: PoolReport) -> KindReport:
    scenario, deployment = resolved.scenario, kind.config
    users = {name: service for name, service in scenario.services.items() if kind.deployment in service.deployments}
    targets = [service.slo.tpot_s for service in users.values() if service.slo.tpot_s is not None]
    lengths = mean_lengths([loads[name] for name in users])
    sheet, full, quick = None, None, None
    if deployment.batcher is not None:
        if lengths is not None:
            e2e_s = min((service.slo.e2e_s for service in users.values() if service.slo.e2e_s is not None), default=None)
            full = batch_sheet(kind.step, lengths[0])
            quick = batch_sheet(kind.step, lengths[0], e2e_s, kind.front_end_s)
    elif lengths is not None:
        try:
            sheet = capacity_sheet(
                kind.step,
                kind.kv_tokens,
                prompt_tokens=lengths[0],
                output_tokens=lengths[1],
                max_num_seqs=deployment.max_num_seqs,
                max_num_batched_tokens=deployment.max_num_batched_tokens,
                tpot_target_s=min(targets, default=None),
                cached_share=deployment.optimizations.prefix_cache_hit,
            )
        except ValueError:
            sheet = None  # its cache holds not even one mean request: `_warnings` says so
    nodes = nodes_of_a_replica(deployment.accelerators, pool.accelerators)
    usd_per_hour = pool.usd_per_hour * nodes
    usd_per_1m = None
    if sheet is not None and lengths is not None and sheet.requests_per_s > 0:
        usd_per_1m = usd_per_hour / (sheet.requests_per_s * sum(lengths) * 3600) * 1e6
    usd_per_1k = None if full is None else usd_per_hour / (full.requests_per_s * 3600) * 1e3
    on_a_node = {stage: times for stage, times in kind.stages_s.items() if stage in REPLICA_STAGES}
    return KindReport(
        kind.deployment,
        kind.pool,
        deployment.accelerators,
        nodes,
        kind.kv_tokens,
        sheet,
        full,
        quick,
        kind.served,
        kind.step.validity,
        usd_per_hour,
        usd_per_1m,
        usd_per_1k,
        dict(kind.stages_s),
        total_time_s(kind.stages_s),
        total_time_s(on_a_node),
    )


def nodes_of_a_replica(accelerators: int, accelerators_of_a_node: int) -> float:
    """Return how many machines one replica takes: a share of one, or a whole gang.

    Examples
    --------
    >>> nodes_of_a_replica(2, 8), nodes_of_a_replica(3, 8), nodes_of_a_replica(16, 8)
    (0.25, 0.5, 2)
    """
    if accelerators > accelerators_of_a_node:
        return -(-accelerators // accelerators_of_a_node)
    return 1 / (accelerators_of_a_node // accelerators)


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


def _deployment_report(name: str, resolved: Resolved, kinds: dict[tuple[str, str], KindReport]) -> DeploymentReport:
    config = resolved.scenario.deployments[name]
    pools = {pool: (resolved.scenario.pools[pool], kinds[name, pool].nodes) for pool in config.pools}
    first, most = (
        replicas_by_pool(config.placement, wanted, pools)
        for wanted in (config.autoscaler.initial_replicas(), config.autoscaler.most_replicas())
    )
    cost = [math.fsum(count * kinds[name, pool].usd_per_hour for pool, count in split.items()) for split in (first, most)]
    return DeploymentReport(name, choice_name(config.autoscaler), choice_name(config.placement), first, most, *cost)


def _fleet_report(
    members: list[str], scenario: Scenario, loads: dict[str, Load], kinds: dict[tuple[str, str], KindReport]
) -> FleetReport:
    names = list(dict.fromkeys(name for member in members for name in scenario.services[member].deployments))
    scalers = {name: scenario.deployments[name].autoscaler for name in names}
    capacity: float | None = 0.0
    for name, scaler in scalers.items():
        # On several pools, the weakest counts: the sheet promises nothing that depends on luck.
        rates = [kind.requests_per_s for (deployment, _), kind in kinds.items() if deployment == name]
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


def _warnings(
    scenario: Scenario, fleets: list[FleetReport], kinds: list[KindReport], deployments: list[DeploymentReport]
) -> list[str]:
    warnings = []
    for report in deployments:
        most, placed = scenario.deployments[report.name].autoscaler.most_replicas(), sum(report.most.values())
        if placed < most:
            warnings.append(
                f"{report.name}: of the {most} replicas its autoscaler can want, "
                f"{report.placement} places {placed} within the quotas"
            )
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
        if kind.requests_per_s is None and any(kind.deployment in service.deployments for service in scenario.services.values()):
            warnings.append(f"{kind.deployment} on {kind.pool}: a mean request is unknown or larger than its cache")
        elif kind.misses_target:
            target = "TPOT" if kind.sheet is not None else "E2E"
            warnings.append(f"{kind.deployment} on {kind.pool}: misses the {target} target even with one request at a time")
    return warnings
