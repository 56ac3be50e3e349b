"""One run from a scenario to a result folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from sim.control.loop import Progress, Timing, run
from sim.control.world import World, build_world
from sim.errors import InputError, Problem
from sim.perf.capacity import prompt_token_s
from sim.results.budgets import budget_months, budget_rows
from sim.results.metrics import summarize
from sim.results.records import RunResult, RunWriter
from sim.results.spikes import spike_rows, spikes
from sim.scenario.check import check
from sim.scenario.model import Scenario
from sim.scenario.resolve import ReplicaKind, Resolved, ResolvedPool, resolve
from sim.studies.provenance import input_hashes, peak_rss_mb, provenance, sites


def default_folder(scenario: Scenario) -> Path:
    """Return `outputs/<name>/<time>-<hash>`, the time to the microsecond, so that folders cannot collide."""
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    return Path("outputs") / scenario.name / f"{now}-{scenario.digest()}"


def simulate(scenario: Scenario, *, out: str | Path | None = None, progress: Callable[[Progress], None] | None = None) -> RunResult:
    """Simulate a scenario and write its result folder, whole or not at all.

    Parameters
    ----------
    out : result folder, new or empty; default `scenario.out`, else `outputs/<name>/<time>-<hash>`.
    progress : called now and then with how far the run has come.

    Raises
    ------
    InputError : the scenario cannot be simulated; holds every problem found.

    Examples
    --------
    >>> import tempfile
    >>> from sim import load_scenario
    >>> scenario = load_scenario("bench_chat8", ["horizon=10s"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     result = simulate(scenario, out=f"{folder}/run")
    ...     result.summary["requests"]["arrived"] > 1_000
    True
    """
    scenario = check(scenario)
    if scenario.replications > 1:
        problem = Problem(
            "replications", scenario.replications, "is more than one run", "1, or sim.replicate in place of sim.simulate"
        )
        raise InputError([problem])
    began = time.perf_counter()
    resolved = resolve(scenario)
    with RunWriter(out or scenario.out or default_folder(scenario)) as writer:
        world = build_world(resolved)
        timing = run(world, writer.spool, progress)
        tables = writer.merge()
        tables.manifest["scenario"] = scenario.to_dict()  # what calendars and budgets are known by; the rest comes at the end
        writer.derive({"budget_months": budget_rows(budget_months(tables)), "spikes": spike_rows(spikes(tables))})
        completed = int(tables.sql("SELECT sum(completed) AS n FROM windows")["n"][0])
        bad_rows = {name: source.bad_rows for name, source in world.sources.items()}
        summary = summarize(tables, scenario, _engine(scenario, timing, completed), bad_rows, sites(resolved))
        return writer.commit(summary, _manifest(world, time.perf_counter() - began))


def _engine(scenario: Scenario, timing: Timing, completed: int) -> dict[str, object]:
    working_s = timing.generate_s + timing.advance_s + timing.control_s
    return {
        "name": scenario.engine,
        "wall_s": timing.wall_s,
        "generate_s": timing.generate_s,
        "advance_s": timing.advance_s,
        "control_s": timing.control_s,
        "requests_per_s": completed / working_s,
        "steps": timing.steps,
        "peak_rss_mb": peak_rss_mb(),
    }


def _manifest(world: World, wall_s: float) -> dict[str, object]:
    scenario = world.resolved.scenario
    return {
        **provenance(),
        "scenario": scenario.to_dict(),
        "scenario_hash": scenario.digest(),
        "seed": scenario.seed,
        "replication": scenario.replication,
        "inputs": input_hashes(world),
        "bad_rows": {name: source.bad_rows for name, source in world.sources.items()},
        "fleets": {name: _fleet(world, name) for name in world.plane_of},
        "step_models": {f"{deployment} on {pool}": _step_model(kind) for (deployment, pool), kind in world.resolved.kinds.items()},
        "spot_markets": {name: _spot_market(world.resolved, pool) for name, pool in world.resolved.pools.items() if pool.is_spot},
        "sites": sites(world.resolved),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "wall_s": wall_s,
        "peak_rss_mb": peak_rss_mb(),
    }


def _fleet(world: World, deployment: str) -> dict[str, object]:
    """How many replicas a deployment wants at the start, and the most it can ever want: a reader may not have its policy."""
    autoscaler = world.resolved.scenario.deployments[deployment].autoscaler
    return {"initial": autoscaler.initial_replicas(), "most": autoscaler.most_replicas()}


def _step_model(kind: ReplicaKind) -> dict[str, object]:
    step = kind.step
    return {
        "validity": step.validity,
        "band": step.band,
        "source": kind.step_source,
        "kv_tokens": kind.kv_tokens,
        "prompt_token_s": None if kind.config.batcher is not None else prompt_token_s(step, kind.config.max_num_batched_tokens),
    }


def _spot_market(resolved: Resolved, pool: ResolvedPool) -> dict[str, object]:
    """What the capacity and the price of a spot pool follow, for the report."""
    spot, catalog = pool.config.spot, resolved.catalog
    market = catalog.spot_markets[spot.market]
    followed = {
        "market": market.name,
        "gpu": market.gpu,
        "years": market.years,
        "source": market.provenance.source,
        "confidence": market.provenance.confidence,
    }
    if pool.config.price_usd_per_hour is not None:
        return {**followed, "price": "", "price_source": "scenario", "price_confidence": "assumed"}
    price = catalog.spot_prices[spot.price or pool.instance.name]
    source, confidence = price.provenance.source, price.provenance.confidence
    return {**followed, "price": price.name, "price_source": source, "price_confidence": confidence}
