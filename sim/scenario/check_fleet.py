"""The check of deployments: names, engine settings, whether the model fits its accelerators, and quotas."""

from __future__ import annotations

from collections.abc import Mapping

from sim.catalog.loader import Catalog
from sim.domain.hardware import Engine, InstanceType
from sim.domain.models import Model
from sim.errors import Problems
from sim.perf.roofline import KV_BYTES, check_parallel
from sim.perf.serving import serving_memory
from sim.perf.table_reader import read_step_table
from sim.scenario.batcher import check_fits, check_model, check_no_llm_settings
from sim.scenario.model import STEP_TIMES, TABLE, Deployment, Pool, Scenario
from sim.scenario.optimizations import Optimizations
from sim.scenario.resolve import host_of, serving_of

MOST_SEATS = 65_536
MOST_STEP_TOKENS = 4_194_304
MOST_KV_TOKENS = 10**10
MOST_REPLICAS = 100_000
MOST_STAGES = 256
MOST_GRACE_S = 7 * 86_400.0
STARTS = ("ready", "cold")


def check_deployment(path: str, deployment: Deployment, pools: Mapping[str, Pool], catalog: Catalog, problems: Problems) -> None:
    """Add what is wrong with a deployment, also on each pool it may use.

    Parameters
    ----------
    path : dotted path of the deployment. pools : those of the scenario.
    """
    model, engine, sound = None, None, False
    if deployment.batcher is None:
        model = catalog.get("models", deployment.model, f"{path}.model", problems)
        engine = catalog.get("engines", deployment.engine, f"{path}.engine", problems)
        sound = _check_settings(path, deployment, model, problems)
        _check_step_times(path, deployment, problems)
    else:
        _check_batcher(path, deployment, pools, catalog, problems)
    _check_life(path, deployment, problems)
    deployment.autoscaler.problems(f"{path}.autoscaler", problems)
    known = pools or ["none is defined"]
    problems.check(bool(deployment.pools), f"{path}.pools", deployment.pools, "names no pool", choices=known)
    purchases = [pools[name].purchase for name in deployment.pools if name in pools]
    deployment.placement.problems(f"{path}.placement", purchases, problems)
    instances: set[str] = set()
    for index, name in enumerate(deployment.pools):
        where = f"{path}.pools[{index}]"
        if not problems.check(name in pools, where, name, "there is no such pool", choices=known):
            continue
        problems.check(name not in deployment.pools[:index], where, name, "is listed twice", "each once")
        instance = catalog.instances.get(pools[name].instance)
        if instance is None or instance.name in instances or model is None or engine is None:
            continue
        instances.add(instance.name)
        _check_on_instance(path, deployment, model, engine, instance, sound, catalog, problems)


def _check_settings(path: str, deployment: Deployment, model: Model | None, problems: Problems) -> bool:
    """Check the numbers of the engine; returns whether seats and token budget make sense."""
    seats, budget = deployment.max_num_seqs, deployment.max_num_batched_tokens
    sound = problems.check(1 <= seats <= MOST_SEATS, f"{path}.max_num_seqs", seats, "is out of range", f"1 to {MOST_SEATS}")
    in_range = 1 <= budget <= MOST_STEP_TOKENS
    sound &= problems.check(in_range, f"{path}.max_num_batched_tokens", budget, "is out of range", f"1 to {MOST_STEP_TOKENS}")
    if sound:
        message = "is below max_num_seqs: not every seat could get a token"
        problems.check(budget >= seats, f"{path}.max_num_batched_tokens", budget, message, f">= {seats}")
    watermark = deployment.watermark_tokens
    problems.check(
        1 <= watermark <= MOST_KV_TOKENS, f"{path}.watermark_tokens", watermark, "is out of range", f"1 to {MOST_KV_TOKENS}"
    )
    kv = deployment.kv_tokens
    if kv is not None and problems.check(
        1 <= kv <= MOST_KV_TOKENS, f"{path}.kv_tokens", kv, "is out of range", f"1 to {MOST_KV_TOKENS}"
    ):
        problems.check(watermark < kv, f"{path}.watermark_tokens", watermark, "is all of the KV cache", f"below {kv}")
    reference = deployment.kv_reference_tokens
    in_range = 1 <= reference <= MOST_KV_TOKENS
    problems.check(in_range, f"{path}.kv_reference_tokens", reference, "is out of range", f"1 to {MOST_KV_TOKENS}")
    longest = deployment.max_model_len
    if longest is not None:
        most = MOST_KV_TOKENS if model is None else model.max_model_len
        message = "is out of range" if model is None else f"is out of range for {model.name}"
        problems.check(2 <= longest <= most, f"{path}.max_model_len", longest, message, f"2 to {most}")
    for_batch = deployment.backlog_seats
    within = for_batch is None or 0 <= for_batch <= MOST_SEATS
    problems.check(within, f"{path}.backlog_seats", for_batch, "is out of range", f"0 to {MOST_SEATS}")
    stages = deployment.pipeline_parallel
    most_stages = MOST_STAGES if model is None else model.layers
    problems.check(1 <= stages <= most_stages, f"{path}.pipeline_parallel", stages, "is out of range", f"1 to {most_stages}")
    return sound


def _check_step_times(path: str, deployment: Deployment, problems: Problems) -> None:
    """Check where step times come from, and read the table."""
    table = deployment.step_table
    if not problems.check(deployment.perf in STEP_TIMES, f"{path}.perf", deployment.perf, "is no such thing", choices=STEP_TIMES):
        return
    if deployment.perf != TABLE:
        message = "is set, but step times come from the roofline"
        problems.check(not (table.path or table.where), f"{path}.step_table", table.path or table.where, message, "perf: table")
        return
    stages = deployment.pipeline_parallel
    message = "with a table of step times: what stages hand over to each other is not in it"
    problems.check(stages == 1, f"{path}.pipeline_parallel", stages, message, "1")
    asked, plain = deployment.optimizations, Optimizations()
    for name in ("sparsity_2_4", "speculative", "flash_attention"):
        value, message = getattr(asked, name), "changes the time of steps, which the table says: measure with it"
        problems.check(value == getattr(plain, name), f"{path}.optimizations.{name}", value, message, "unset")
    if problems.check(bool(table.path), f"{path}.step_table.path", table.path, "names no file", "a CSV file of step times"):
        read_step_table(table.path, table.where, f"{path}.step_table", problems)


def _check_life(path: str, deployment: Deployment, problems: Problems) -> None:
    """Check what every replica has, whatever it serves."""
    outstanding = deployment.max_outstanding
    within = outstanding is None or 0 <= outstanding <= 10**9
    problems.check(within, f"{path}.max_outstanding", outstanding, "must not be negative", ">= 0, 0 for no bound")
    grace_s = deployment.drain_grace_s
    within = grace_s is None or 0 <= grace_s <= MOST_GRACE_S
    problems.check(within, f"{path}.drain_grace_s", grace_s, "is out of range", f"0 to {MOST_GRACE_S:g}")
    problems.check(deployment.start in STARTS, f"{path}.start", deployment.start, "is not a start", choices=STARTS)


def _check_batcher(path: str, deployment: Deployment, pools: Mapping[str, Pool], catalog: Catalog, problems: Problems) -> None:
    """Check a batcher, that nothing of an LLM is set beside it, and that the model fits the accelerators."""
    batcher = deployment.batcher
    assert batcher is not None
    batcher.problems(f"{path}.batcher", problems)
    check_no_llm_settings(path, deployment, Deployment(), problems)
    wanted = [name for name in deployment.autoscaler.metric_names() if name == "kv_utilization"]
    problems.check(not wanted, f"{path}.autoscaler", "kv_utilization", "is of an LLM; a batcher has no KV cache", "another metric")
    instances = [
        catalog.instances[pools[name].instance]
        for name in deployment.pools
        if name in pools and pools[name].instance in catalog.instances
    ]
    accelerators = {each.accelerator: catalog.accelerators[each.accelerator] for each in instances}
    if batcher.model:
        check_model(f"{path}.batcher", batcher, accelerators, catalog, problems)
    else:
        check_fits(f"{path}.batcher", batcher, accelerators, problems)


def _check_on_instance(
    path: str,
    deployment: Deployment,
    model: Model,
    engine: Engine,
    instance: InstanceType,
    sound: bool,
    catalog: Catalog,
    problems: Problems,
) -> None:
    """Check types, tensor parallelism and memory of a replica on one instance type."""
    accelerator = catalog.accelerators[instance.accelerator]
    before = len(problems)
    check_parallel(
        model,
        accelerator,
        weight_dtype=deployment.weight_dtype,
        kv_dtype=deployment.kv_dtype,
        tensor_parallel=deployment.tensor_parallel,
        path=path,
        problems=problems,
    )
    if len(problems) == before:
        catalog.fit(accelerator.name, engine, deployment.weight_dtype, f"{path}.weight_dtype", problems)
    degree = deployment.tensor_parallel
    together = max(instance.accelerators, accelerator.pod_accelerators)
    message = f"more than the accelerators of {'a pod' if accelerator.pod_accelerators else instance.name}"
    problems.check(degree <= together, f"{path}.tensor_parallel", degree, message, f"at most {together}")
    most = accelerator.most_in_one_job
    if most:
        message = f"{deployment.accelerators} accelerators in one replica: more than one job may have of a {accelerator.name} pod"
        stages = deployment.pipeline_parallel
        problems.check(deployment.accelerators <= most, f"{path}.pipeline_parallel", stages, message, f"{most} in all")
    sound = sound and len(problems) == before and deployment.pipeline_parallel >= 1
    sound = sound and deployment.kv_reference_tokens >= 1
    if sound and deployment.kv_tokens is None and deployment.kv_dtype in KV_BYTES:
        _check_memory(path, deployment, model, engine, instance, catalog, problems)


def _check_memory(
    path: str,
    deployment: Deployment,
    model: Model,
    engine: Engine,
    instance: InstanceType,
    catalog: Catalog,
    problems: Problems,
) -> None:
    unsound = Problems()
    deployment.optimizations.problems(f"{path}.optimizations", catalog, unsound)
    if len(unsound):
        return
    accelerator = catalog.accelerators[instance.accelerator]
    together = max(instance.accelerators, accelerator.pod_accelerators)
    host = host_of(deployment, accelerator, engine, catalog, most_tensor_parallel=together)
    capacity = serving_memory(serving_of(deployment, model, catalog), host)
    needed = (capacity.weight_bytes + capacity.activation_bytes + capacity.reserve_bytes) / 1e9
    message = (
        f"does not fit {deployment.accelerators} x {instance.accelerator}: weights, activations and engine take "
        f"{needed:.1f} GB of the {capacity.budget_bytes / 1e9:.1f} GB of each"
    )
    if problems.check(capacity.fits, f"{path}.model", model.name, message, " or ".join(capacity.remedies)):
        watermark = deployment.watermark_tokens
        all_of_it = "is all of the KV cache"
        problems.check(watermark < capacity.tokens, f"{path}.watermark_tokens", watermark, all_of_it, f"below {capacity.tokens}")


def check_quotas(scenario: Scenario, catalog: Catalog, problems: Problems) -> None:
    """Add deployments that can want more replicas than the quotas of their pools allow.

    Replicas of several deployments on one pool are counted together where it is the only pool of each.
    """
    wanted_by_pool: dict[str, int] = {}
    for name, deployment in scenario.deployments.items():
        path = f"deployments.{name}"
        if _has_problems(f"{path}.autoscaler", problems):
            continue
        most = deployment.autoscaler.most_replicas()
        if not problems.check(
            most <= MOST_REPLICAS, f"{path}.autoscaler", most, "wants too many replicas", f"at most {MOST_REPLICAS}"
        ):
            continue
        room = _room(deployment, scenario, catalog)
        if room is not None:
            message = "can want more replicas than the quotas of its pools allow"
            problems.check(most <= room, f"{path}.autoscaler", most, message, f"at most {room}, or a larger quota_nodes")
        if len(deployment.pools) == 1:
            accelerators = most * max(deployment.accelerators, 0)
            wanted_by_pool[deployment.pools[0]] = wanted_by_pool.get(deployment.pools[0], 0) + accelerators
    _check_shared_quotas(wanted_by_pool, scenario, catalog, problems)


def _has_problems(path: str, problems: Problems) -> bool:
    return any(problem.path.startswith(path) for problem in problems.found)


def _room(deployment: Deployment, scenario: Scenario, catalog: Catalog) -> int | None:
    """Return how many replicas the quotas of the deployment's pools allow; None for no bound or where it cannot be known."""
    room = 0
    for name in dict.fromkeys(deployment.pools):
        pool = scenario.pools.get(name)
        instance = None if pool is None else catalog.instances.get(pool.instance)
        if pool is None or instance is None or pool.quota_nodes is None or deployment.accelerators < 1:
            return None
        if deployment.accelerators <= instance.accelerators:
            room += pool.quota_nodes * (instance.accelerators // deployment.accelerators)
        else:
            room += pool.quota_nodes // -(-deployment.accelerators // instance.accelerators)
    return room if deployment.pools else None


def _check_shared_quotas(wanted_by_pool: Mapping[str, int], scenario: Scenario, catalog: Catalog, problems: Problems) -> None:
    for name, accelerators in wanted_by_pool.items():
        users = [key for key, deployment in scenario.deployments.items() if deployment.pools == [name]]
        pool = scenario.pools.get(name)
        instance = None if pool is None else catalog.instances.get(pool.instance)
        if len(users) < 2 or pool is None or instance is None or pool.quota_nodes is None:
            continue
        nodes = -(-accelerators // instance.accelerators)
        message = f"is too small for {', '.join(users)} together"
        problems.check(nodes <= pool.quota_nodes, f"pools.{name}.quota_nodes", pool.quota_nodes, message, f"at least {nodes}")
