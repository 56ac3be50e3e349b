"""The check of optimizations: their numbers, what they need of the accelerators, and what services have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sim.catalog.loader import Catalog
from sim.domain.hardware import Accelerator
from sim.errors import Problems
from sim.perf.optimize import OPTIMIZATIONS, Choices
from sim.perf.roofline import KV_BYTES, WEIGHT_TYPES
from sim.perf.serving import Serving
from sim.scenario.model import Deployment, Pool, Scenario
from sim.scenario.optimizations import Optimizations


def check_optimizations(path: str, deployment: Deployment, pools: Mapping[str, Pool], catalog: Catalog, problems: Problems) -> None:
    """Add every optimization of a deployment that is out of range, or cannot be had on the accelerators of its pools.

    Parameters
    ----------
    path : dotted path of the deployment. pools : those of the scenario.
    """
    where, asked = f"{path}.optimizations", deployment.optimizations
    if deployment.batcher is not None:
        message = "is of an LLM; this deployment has a batcher"
        problems.check(asked == Optimizations(), where, "set", message, "unset")
        return
    before = len(problems)
    asked.problems(where, catalog, problems)
    known = deployment.model in catalog.models and deployment.weight_dtype in WEIGHT_TYPES and deployment.kv_dtype in KV_BYTES
    if len(problems) > before or not known:
        return
    served = asked.applied(catalog.models[deployment.model], deployment.weight_dtype, deployment.kv_dtype, catalog)
    instances = [catalog.instances.get(pools[name].instance) for name in deployment.pools if name in pools]
    for name in dict.fromkeys(instance.accelerator for instance in instances if instance is not None):
        _check_applicable(where, served, catalog.accelerators[name], deployment, problems)


def _check_applicable(path: str, served: Serving, accelerator: Accelerator, deployment: Deployment, problems: Problems) -> None:
    """Add what cannot be applied to a model on an accelerator."""
    if served.sparse_2_4:
        reason = OPTIMIZATIONS["sparsity_2_4"](Choices()).refused(replace(served, sparse_2_4=False), accelerator)
        problems.check(not reason, f"{path}.sparsity_2_4", True, reason, "false")
    draft = None if served.speculation is None else served.speculation.draft
    if draft is None:
        return
    where = f"{path}.speculative.draft"
    reason = OPTIMIZATIONS["speculative"](Choices(draft=draft)).refused(replace(served, speculation=None), accelerator)
    problems.check(not reason, where, draft.name, reason, "a smaller model of the same vocabulary, or ngram")
    degree, stages = deployment.tensor_parallel, deployment.pipeline_parallel
    splits, message = degree < 1 or draft.heads % degree == 0, f"its {draft.heads} heads cannot be split over {degree} accelerators"
    problems.check(splits, where, draft.name, message, "another draft")
    message = f"its {draft.layers} layers are fewer than the {stages} stages"
    problems.check(stages <= draft.layers, where, draft.name, message, "another draft")


def check_prefix_hits(scenario: Scenario, problems: Problems) -> None:
    """Add every deployment that finds another share of a service's prompts than its others: no request knows where it goes."""
    for name, service in scenario.services.items():
        users = {key: scenario.deployments[key] for key in service.deployments if key in scenario.deployments}
        shares = {key: deployment.optimizations.prefix_cache_hit for key, deployment in users.items()}
        first = next(iter(shares.values()), 0.0)
        for key, share in shares.items():
            where = f"deployments.{key}.optimizations.prefix_cache_hit"
            problems.check(share == first, where, share, f"is not that of the other deployments of {name}", f"{first:g}")
