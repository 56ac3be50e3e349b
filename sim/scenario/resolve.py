"""What a checked scenario resolves to: hardware, step models, capacities and prices behind its names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from sim.catalog.fit_rules import fit_key
from sim.catalog.loader import Catalog, load_catalog
from sim.domain.hardware import Accelerator, Engine, InstanceType, StepFit
from sim.domain.models import Model
from sim.errors import Problems
from sim.perf.memory import KvCapacity
from sim.perf.power_cap import capped_step_model
from sim.perf.serving import Host, Serving, serving_bytes, serving_memory, serving_step
from sim.perf.steptime import LONGEST_TABLE, StepModel
from sim.perf.table import table_step_model
from sim.perf.table_reader import read_step_table
from sim.policies.placement import SPOT
from sim.scenario.batcher import ServedModel
from sim.scenario.model import TABLE, ColdStart, Deployment, Pool, Scenario, StageTime
from sim.scenario.sites import Site, site_of

NODE_STAGES = ("pending", "booting", "pulling")
REPLICA_STAGES = ("loading", "warming")
STAGES = NODE_STAGES + REPLICA_STAGES


@dataclass(frozen=True)
class ResolvedPool:
    """A pool with the catalog rows behind its names.

    Parameters
    ----------
    site : electricity where it stands.
    stages_s : node stage -> (median, 95th percentile) of its duration in seconds.
    """

    name: str
    config: Pool
    instance: InstanceType
    accelerator: Accelerator
    site: Site
    stages_s: dict[str, tuple[float, float]]

    @property
    def is_spot(self) -> bool:
        """Whether its machines are spot machines."""
        return self.config.purchase == SPOT


@dataclass(frozen=True)
class ReplicaKind:
    """One deployment on one pool: what a replica there can do and how long it takes to come up.

    Parameters
    ----------
    model, engine, fit : rows of the catalog; None where a batcher serves a model that is not an LLM.
    kv_tokens : KV capacity, 0 of a batcher. memory : how it comes about, None where the scenario states `kv_tokens` itself.
    weight_bytes : what `loading` moves. stages_s : stage -> (median, 95th percentile) of its duration in seconds,
        those of a fresh node included. served : of a batcher with a model of the catalog.
    """

    deployment: str
    pool: str
    config: Deployment
    model: Model | None
    engine: Engine | None
    fit: StepFit | None
    step: StepModel
    kv_tokens: int
    memory: KvCapacity | None
    weight_bytes: float
    stages_s: dict[str, tuple[float, float]]
    served: ServedModel | None = None

    @property
    def step_source(self) -> str:
        """Where its step times come from."""
        if self.config.perf == TABLE:
            return f"table {self.config.step_table.path}"
        fit = self.fit if self.served is None else self.served.fit
        return "scenario" if fit is None else f"fit {fit.name}: {fit.provenance.source}, {fit.provenance.date}"

    @property
    def max_model_len(self) -> int | None:
        """Longest prompt and output together, in tokens; None for a model that is not an LLM."""
        return None if self.model is None else self.config.max_model_len or self.model.max_model_len

    @property
    def front_end_s(self) -> float:
        """Front-end and network time that is added to every latency."""
        if self.config.batcher is not None:
            return self.config.batcher.front_end_s
        assert self.engine is not None
        return self.engine.front_end_s

    @property
    def max_outstanding(self) -> int | None:
        """Most requests waiting and running on a replica; None for no bound."""
        wanted = self.config.max_outstanding
        if self.config.batcher is not None:
            return wanted or None
        return 2 * self.config.max_num_seqs if wanted is None else (wanted or None)


@dataclass(frozen=True)
class Resolved:
    """A scenario and everything its names stand for.

    Parameters
    ----------
    kinds : (deployment, pool) -> what a replica of it is there.
    """

    scenario: Scenario
    catalog: Catalog
    pools: dict[str, ResolvedPool]
    kinds: dict[tuple[str, str], ReplicaKind]


def resolve(scenario: Scenario) -> Resolved:
    """Look up everything a checked scenario names.

    Raises
    ------
    KeyError : a name that is not in the catalog (`sim.scenario.check` reports those before).
    """
    catalog = load_catalog(scenario.catalog or None)
    pools = {name: _pool(name, pool, scenario, catalog) for name, pool in scenario.pools.items()}
    kinds = {
        (name, pool): _kind(name, deployment, pools[pool], catalog)
        for name, deployment in scenario.deployments.items()
        for pool in deployment.pools
    }
    return Resolved(scenario, catalog, pools, kinds)


def _pool(name: str, pool: Pool, scenario: Scenario, catalog: Catalog) -> ResolvedPool:
    instance = catalog.instances[pool.instance]
    image_bytes = pool.cold_start.image_gb * 1e9
    stages_s = {stage: _stage_s(stage, pool.cold_start, catalog, image_bytes) for stage in NODE_STAGES}
    site = site_of(pool, scenario, catalog)
    return ResolvedPool(name, pool, instance, catalog.accelerators[instance.accelerator], site, stages_s)


def _kind(name: str, deployment: Deployment, pool: ResolvedPool, catalog: Catalog) -> ReplicaKind:
    batcher = deployment.batcher
    if batcher is not None:
        served = batcher.served(pool.accelerator, catalog)
        load_bytes = batcher.weights_gb * 1e9 if served is None else served.weight_bytes
        step = _capped(lambda accelerator: batcher.step_model(accelerator, served), pool)
        stages_s = _stages_s(pool, catalog, load_bytes)
        return ReplicaKind(name, pool.name, deployment, None, None, None, step, 0, None, load_bytes, stages_s, served)
    model, engine = catalog.models[deployment.model], catalog.engines[deployment.engine]
    serving, host = serving_of(deployment, model, catalog), host_of(deployment, pool.accelerator, engine, catalog)
    fit = host.fit_of(deployment.weight_dtype)
    memory = serving_memory(serving, host) if deployment.kv_tokens is None else None

    def step_on(accelerator: Accelerator) -> StepModel:
        made = serving_step(serving, replace(host, accelerator=accelerator))
        return _by_table(made, deployment, accelerator, engine) if deployment.perf == TABLE else made

    step = _capped(step_on, pool)
    kv_tokens = deployment.kv_tokens if memory is None else memory.tokens
    assert kv_tokens is not None
    load_bytes = serving_bytes(serving)
    stages_s = _stages_s(pool, catalog, load_bytes)
    return ReplicaKind(name, pool.name, deployment, model, engine, fit, step, kv_tokens, memory, load_bytes, stages_s)


def _capped(step_on: Callable[[Accelerator], StepModel], pool: ResolvedPool) -> StepModel:
    """Return the step model of a replica on a pool's accelerators, under the pool's power limit."""
    cap_w = pool.config.power_cap_w
    return step_on(pool.accelerator) if cap_w is None else capped_step_model(step_on, pool.accelerator, cap_w)


def _by_table(base: StepModel, deployment: Deployment, accelerator: Accelerator, engine: Engine) -> StepModel:
    """Return the step model of a deployment from its table; `base` knows what the table does not."""
    problems, table = Problems(), deployment.step_table
    rows = read_step_table(table.path, table.where, f"{deployment.model}.step_table", problems)
    problems.raise_if_any()
    return table_step_model(
        base,
        rows,
        engine,
        accelerators=deployment.accelerators,
        idle_w=accelerator.idle_w,
        tokens=min(deployment.max_num_batched_tokens, LONGEST_TABLE),
        sequences=deployment.max_num_seqs,
    )


def serving_of(deployment: Deployment, model: Model, catalog: Catalog) -> Serving:
    """Return what a deployment of an LLM serves, with its optimizations."""
    return deployment.optimizations.applied(model, deployment.weight_dtype, deployment.kv_dtype, catalog)


def host_of(
    deployment: Deployment, accelerator: Accelerator, engine: Engine, catalog: Catalog, most_tensor_parallel: int | None = None
) -> Host:
    """Return where replicas of a deployment run, and with which settings.

    Parameters
    ----------
    most_tensor_parallel : accelerators of the machine, for what would make a model fit; None for no limit.
    """
    return Host(
        accelerator,
        engine,
        lambda weight_dtype: catalog.fits[fit_key(accelerator.name, engine.kernels, weight_dtype)],
        tensor_parallel=deployment.tensor_parallel,
        pipeline_parallel=deployment.pipeline_parallel,
        max_num_seqs=deployment.max_num_seqs,
        max_num_batched_tokens=deployment.max_num_batched_tokens,
        max_model_len=deployment.max_model_len,
        kv_reference_tokens=deployment.kv_reference_tokens,
        catalog=catalog,
        most_tensor_parallel=most_tensor_parallel,
    )


def _stages_s(pool: ResolvedPool, catalog: Catalog, load_bytes: float) -> dict[str, tuple[float, float]]:
    """Return the stages of a replica on a fresh node: those of the node, then its own."""
    own = {stage: _stage_s(stage, pool.config.cold_start, catalog, load_bytes) for stage in REPLICA_STAGES}
    return {**pool.stages_s, **own}


def loading_s(pool: ResolvedPool, catalog: Catalog, load_bytes: float) -> float:
    """Return the median time to load so many bytes of weights on a machine of a pool."""
    return _stage_s("loading", pool.config.cold_start, catalog, load_bytes)[0]


def _stage_s(stage: str, cold_start: ColdStart, catalog: Catalog, moved_bytes: float) -> tuple[float, float]:
    """Return (median, 95th percentile) of a stage in seconds: the scenario's numbers, else the catalog's for these bytes.

    A median of one's own without a 95th percentile keeps the catalog's ratio between the two.
    """
    row = catalog.cold_starts[cold_start.storage if stage == "loading" else stage]
    median_s, p95_s = row.times_s(moved_bytes)
    own: StageTime = getattr(cold_start, stage)
    if own.median_s is not None:
        median_s, p95_s = own.median_s, own.median_s * p95_s / median_s
    return median_s, p95_s if own.p95_s is None else own.p95_s
