"""The numbers that enter a run without being settings: what the names of a scenario stand for, with source and confidence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sim.app.sheet_pools import pool_report
from sim.domain.grid_series import GridSeries
from sim.domain.hardware import Provenance
from sim.perf.steptime import ONE_NS_FX
from sim.policies.placement import SPOT
from sim.scenario.resolve import REPLICA_STAGES, STAGES, ReplicaKind, Resolved, ResolvedPool

SCENARIO = "scenario"
_NANO = 1_000_000_000
# Tokens of context and of a prompt of the steps that are shown.
SHOWN_CONTEXT_TOKENS = 1_024


@dataclass(frozen=True)
class Number:
    """One number behind a name.

    Parameters
    ----------
    about : what it belongs to, for instance "pool h100". confidence : "fitted", "published", "assumed", or as the step model says.
    """

    about: str
    name: str
    value: float | str
    unit: str
    source: str
    confidence: str


def numbers(resolved: Resolved) -> list[Number]:
    """Return every catalog number that enters a run: prices, spot, power, electricity, step times, memory, cold starts."""
    found = [number for pool in resolved.pools.values() for number in _pool_numbers(pool, resolved)]
    return found + [number for kind in resolved.kinds.values() for number in _kind_numbers(kind, resolved)]


def _row(about: str, name: str, value: float | str, unit: str, provenance: Provenance) -> Number:
    return Number(about, name, value, unit, f"{provenance.source}, {provenance.date}", provenance.confidence)


def _pool_numbers(pool: ResolvedPool, resolved: Resolved) -> Iterator[Number]:
    about, config = f"pool {pool.name}", pool.config
    if config.price_usd_per_hour is not None:
        yield Number(about, "price", config.price_usd_per_hour, "USD/h", SCENARIO, "assumed")
    else:
        for price in pool.instance.on_demand.get(config.region, ()):
            yield _row(about, f"on demand from {price.valid_from}", price.usd_per_hour, "USD/h", price.provenance)
    if config.purchase == SPOT:
        yield from _spot_numbers(about, pool, resolved)
    accelerator = pool.accelerator
    yield _row(about, "host power", pool.instance.host_w, "W", pool.instance.provenance)
    yield _row(about, f"{accelerator.name} limit", accelerator.tdp_w, "W", accelerator.provenance)
    if config.power_cap_w is not None:
        yield Number(about, f"{accelerator.name} power cap", config.power_cap_w, "W", SCENARIO, "assumed")
    yield _row(about, f"{accelerator.name} idle", accelerator.idle_w, "W", accelerator.provenance)
    power = accelerator.power
    for name, value, unit in (
        ("above idle while kernels run", power.kernel * accelerator.tdp_w, "W"),
        ("byte of memory", power.byte_pj, "pJ"),
        ("byte of the cache", power.context_byte_pj, "pJ"),
        *((f"operation in {dtype}", power.flop_pj[dtype], "pJ") for dtype in accelerator.dense_tflops),
        ("power of a step, off by at most", 100 * power.band, "%"),
        ("  with experts", 100 * power.expert_band, "%"),
    ):
        yield _row(about, f"{accelerator.name} {name}", value, unit, power.provenance)
    yield from _site_numbers(about, pool, resolved)


def _site_numbers(about: str, pool: ResolvedPool, resolved: Resolved) -> Iterator[Number]:
    """Carbon and price of electricity, and the losses of the site."""
    site, row = pool.site, resolved.catalog.grids.get(pool.site.grid)
    for name, series, unit, provenance in (
        ("carbon", site.carbon, "g/kWh", None if row is None else row.provenance),
        ("electricity", site.price, "USD/kWh", None if row is None else row.site_provenance),
    ):
        if provenance is not None and series.source == provenance.source:
            yield _row(about, name, series.known[0] / _NANO, unit, provenance)
        else:
            yield Number(about, name, _span(series), unit, series.source, series.confidence)
    if row is not None and site.pue == row.pue:
        yield _row(about, "PUE", site.pue, "", row.site_provenance)
    else:
        yield Number(about, "PUE", site.pue, "", SCENARIO, site.pue_confidence)


def _span(series: GridSeries) -> float | str:
    """The one value of a series, or the least and the most of many."""
    known = [value / _NANO for value in series.known]
    return known[0] if series.is_constant else f"{min(known):.4g} to {max(known):.4g} by the hour"


def _spot_numbers(about: str, pool: ResolvedPool, resolved: Resolved) -> Iterator[Number]:
    catalog, spot = resolved.catalog, pool.config.spot
    if pool.config.price_usd_per_hour is None:
        row = catalog.spot_prices[spot.price or pool.instance.name]
        median = pool_report(pool.name, resolved).usd_per_hour
        yield _row(about, f"spot {row.name}, median", f"{median:.4g}", "USD/h", row.provenance)
        yield _row(about, "  of on demand, 5 to 95 %", f"{row.ratio_low:g} to {row.ratio_high:g}", "", row.provenance)
    market = catalog.spot_markets[spot.market]
    name = f"market {market.name} ({market.gpu}, {market.years})"
    if market.has_outages:
        yield _row(about, f"{name}, availability", market.availability, "", market.provenance)
    else:
        yield _row(about, f"{name}, lost a month", market.monthly_interruption, "", market.provenance)
    notice = catalog.spot_notices[pool.instance.cloud]
    if spot.notice_s is None:
        yield _row(about, "notice", notice.notice_s, "s", notice.provenance)
    else:
        yield Number(about, "notice", spot.notice_s, "s", SCENARIO, "assumed")


def _kind_numbers(kind: ReplicaKind, resolved: Resolved) -> Iterator[Number]:
    about = f"{kind.deployment} on {kind.pool}"
    yield from _llm_numbers(about, kind) if kind.config.batcher is None else _batcher_numbers(about, kind, resolved)
    cold_start = resolved.pools[kind.pool].config.cold_start
    for stage in STAGES:
        row = resolved.catalog.cold_starts[cold_start.storage if stage == "loading" else stage]
        median_s, p95_s = kind.stages_s[stage]
        value = f"{median_s:.4g} / {p95_s:.4g}"
        own = getattr(cold_start, stage).median_s is not None
        name = f"{stage}, p50 / p95" + (f" from {cold_start.storage}" if stage == REPLICA_STAGES[0] else "")
        yield Number(about, name, value, "s", SCENARIO, "assumed") if own else _row(about, name, value, "s", row.provenance)


def _llm_numbers(about: str, kind: ReplicaKind) -> Iterator[Number]:
    assert kind.model is not None
    assert kind.engine is not None
    for name, value, unit in _step_numbers(kind):
        yield Number(about, name, value, unit, kind.step_source, kind.step.validity)
    yield Number(about, "90 % band of step times", 100 * kind.step.band, "%", kind.step_source, kind.step.validity)
    yield _row(about, "front end", kind.engine.front_end_s, "s", kind.engine.provenance)
    memory = "computed from the memory of the accelerators" if kind.memory is not None else SCENARIO
    yield Number(about, "KV cache", float(kind.kv_tokens), "tokens", memory, "assumed")
    yield _row(about, "weights", kind.weight_bytes / 1e9, "GB", kind.model.provenance)


def _step_numbers(kind: ReplicaKind) -> Iterator[tuple[str, float, str]]:
    """Typical steps: what the tables of a step model add up to."""
    step, config = kind.step, kind.config
    for batch in sorted({1, min(64, config.max_num_seqs), config.max_num_seqs}):
        load = (batch, batch, 0, batch * SHOWN_CONTEXT_TOKENS, batch)
        step_fx = step.step_fx(*load)
        about = f"step of {batch} decoding at {SHOWN_CONTEXT_TOKENS:,} tokens"
        yield about, step_fx / ONE_NS_FX / 1e6, "ms"
        yield f"{about}, power", step.step_j(step_fx, *load) / (step_fx / ONE_NS_FX / 1e9), "W"
    prompt = min(SHOWN_CONTEXT_TOKENS, config.max_num_batched_tokens)
    prefill = (prompt, 1, prompt**2, 0)
    step_fx = step.step_fx(*prefill)
    yield f"step of a prompt of {prompt:,} tokens", step_fx / ONE_NS_FX / 1e6, "ms"
    yield f"step of a prompt of {prompt:,} tokens, power", step.step_j(step_fx, *prefill) / (step_fx / ONE_NS_FX / 1e9), "W"
    yield "power limit", step.tdp_w, "W"


def _batcher_numbers(about: str, kind: ReplicaKind, resolved: Resolved) -> Iterator[Number]:
    """What a batcher's user has measured or the roofline of a model says, and the power of the accelerator then."""
    step, most, served, source = kind.step, len(kind.step.tokens_fx) - 1, kind.served, kind.step_source
    for items in sorted({1, *(2**power for power in range(most.bit_length())), most}):
        yield Number(about, f"batch of {items}", step.tokens_fx[items] / ONE_NS_FX, "ns", source, step.validity)
    power = resolved.pools[kind.pool].accelerator.power.provenance
    yield _row(about, "step base_w", step.base_w, "W", power)
    yield _row(about, "energy of a batch of one above", step.tokens_j[1], "J", power)
    yield Number(about, "front end", kind.front_end_s, "s", SCENARIO, "assumed")
    if served is None:
        yield Number(about, "weights", kind.weight_bytes / 1e9, "GB", SCENARIO, "assumed")
        return
    model = served.model
    yield Number(about, "90 % band of batch times", 100 * step.band, "%", source, step.validity)
    for name, value, unit in (
        ("roofline of a model", f"{model.name} in {served.dtype}", ""),
        ("operations of an item", model.flops_per_item / 1e9, "GFLOP"),
        ("weights", kind.weight_bytes / 1e9, "GB"),
        ("memory with the largest batch", served.memory.taken_bytes / 1e9, "GB"),
    ):
        yield _row(about, name, value, unit, model.provenance)
