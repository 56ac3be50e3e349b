"""What each optimization would change in a deployment: bytes, tokens, speed, money, energy and accuracy, by closed form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from sim.app.sheet import nodes_of_a_replica
from sim.app.sheet_load import Load, mean_lengths, offered_load
from sim.app.sheet_pools import pool_report
from sim.catalog.loader import Catalog
from sim.domain.models import Model
from sim.errors import Problems
from sim.perf.capacity import CapacitySheet, capacity_sheet
from sim.perf.evidence import Accuracy
from sim.perf.optimize import JOINED_BY, OPTIMIZATIONS, Choices, Optimization, optimization
from sim.perf.roofline import WEIGHT_TYPES, check_parallel
from sim.perf.serving import Host, Serving, serving_bytes, serving_memory, serving_step
from sim.perf.steptime import StepModel
from sim.perf.training import efficiency_for, peak_flops_per_s
from sim.scenario import Scenario
from sim.scenario.model import TABLE
from sim.scenario.optimizations import NGRAM
from sim.scenario.resolve import ReplicaKind, Resolved, ResolvedPool, host_of, loading_s, resolve, serving_of

AS_IT_IS = "as it is"
# What is tried where nothing is named, in the order of the table: types, then sparsity, then what changes no weight.
STANDARD = (
    "fp32",
    "bf16",
    "fp8",
    "w8a8",
    "int8_wo",
    "int4_wo",
    "nvfp4",
    "mxfp4",
    "kv_fp8",
    "fp8+kv_fp8",
    "nvfp4+kv_fp8",
    "sparsity_2_4",
    "fp8+sparsity_2_4",
    "pruning",
    "int8_wo+pruning",
    "int4_wo+pruning",
    "distillation",
    "speculative",
    "prefix_cache",
    "flash_attention",
    "no_flash_attention",
)
# A draft is at most a quarter of the model, a student at most six tenths; smaller steps are not worth their trouble (our choice).
MOST_DRAFT_SHARE, MOST_STUDENT_SHARE = 0.25, 0.6
HOUR_S = 3600.0


@dataclass(frozen=True)
class Wishes:
    """What the user leaves open or says of the optimizations.

    Parameters
    ----------
    tried : names, joined by "+" where several are applied; empty for the standard ones. draft, student : catalog names, "" for a
        choice by size; a draft "ngram" is the prompt. proposals, acceptance, sparsity, prefix_cache_hit : as in a scenario.
    """

    tried: tuple[str, ...] = ()
    draft: str = ""
    student: str = ""
    proposals: int = 4
    acceptance: float = 0.7
    sparsity: float = 0.6
    prefix_cache_hit: float = 0.3


@dataclass(frozen=True)
class Outcome:
    """A deployment with an optimization, on one pool, by closed form for mean requests.

    Parameters
    ----------
    file_bytes : to store, send, pull and load. loading_s : median, on a new machine. weight_bytes : on each accelerator.
    kv_tokens, largest_batch : of a replica. batch : at the TPOT target.
    output_tokens_per_s : of a replica at the target; `worst` and `best` with what the optimization assumes at its bounds.
    prefill_s : of a mean prompt. usd_per_1m_output, joules_per_token : at that rate; None where nothing keeps the target.
    one_off_gpu_hours, one_off_usd, one_off_source : work that is done once, at this pool's price. accuracy : None as it is.
    break_even_tokens : output tokens after which it has paid for itself, 0 at once, None never.
    validity, band : of the step times: "fitted", "transferred" or "assumed", and the share by which nine of ten are off at most (0:
        not known).
    """

    name: str
    summary: str
    file_bytes: float
    loading_s: float
    weight_bytes: float
    kv_tokens: int
    largest_batch: int
    batch: int
    output_tokens_per_s: float
    worst_tokens_per_s: float
    best_tokens_per_s: float
    prefill_s: float
    usd_per_1m_output: float | None
    joules_per_token: float | None
    one_off_gpu_hours: float
    one_off_usd: float
    one_off_source: str
    accuracy: Accuracy | None
    break_even_tokens: float | None
    validity: str
    band: float


@dataclass(frozen=True)
class Explanation:
    """The decision table of a deployment on a pool.

    Parameters
    ----------
    prompt_tokens, output_tokens : of the mean request. tpot_target_s : that the rates keep, None for none.
    usd_per_hour : of a replica. own_table : whether the deployment has step times of its own. They say nothing of other types, so
        that all here are of the roofline.
    outcomes : as it is, then every optimization that can be applied. refused : name -> why not.
    """

    deployment: str
    pool: str
    model: str
    accelerator: str
    accelerators: int
    prompt_tokens: float
    output_tokens: float
    tpot_target_s: float | None
    usd_per_hour: float
    own_table: bool
    outcomes: tuple[Outcome, ...]
    refused: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


def explain(scenario: Scenario, wishes: Wishes) -> list[Explanation]:
    """Return the decision table of every deployment of an LLM on each of its pools.

    Parameters
    ----------
    scenario : checked.

    Raises
    ------
    InputError : unknown optimizations or models, numbers out of range, a trace that cannot be read.

    Examples
    --------
    >>> from sim import load_scenario
    >>> table = explain(load_scenario("bench_chat8"), Wishes(tried=("fp8",)))[0]
    >>> before, after = table.outcomes
    >>> after.name, after.output_tokens_per_s > before.output_tokens_per_s
    ('fp8', True)
    """
    resolved = resolve(scenario)
    _check(wishes, resolved.catalog)
    loads = {name: offered_load(name, service.workload, scenario) for name, service in scenario.services.items()}
    kinds = [kind for kind in resolved.kinds.values() if kind.model is not None]
    return [_explained(kind, resolved, loads, wishes) for kind in kinds if _lengths(kind, resolved, loads) is not None]


def _check(wishes: Wishes, catalog: Catalog) -> None:
    problems = Problems()
    for name in wishes.tried:
        optimization(name, Choices(), "--try", problems)
    drafts = [NGRAM, *catalog.models]
    problems.check(not wishes.draft or wishes.draft in drafts, "--draft", wishes.draft, "is no model", choices=drafts)
    students = catalog.models
    problems.check(not wishes.student or wishes.student in students, "--student", wishes.student, "is no model", choices=students)
    problems.check(1 <= wishes.proposals <= 16, "--proposals", wishes.proposals, "is out of range", "1 to 16")
    for name, most in (("acceptance", 1.0), ("sparsity", 0.95), ("prefix_cache_hit", 0.99)):
        share = getattr(wishes, name)
        option = f"--{name.replace('_', '-')}"
        problems.check(0 <= share <= most, option, share, "is out of range", f"0 to {most:g}")
    problems.raise_if_any()


def _lengths(kind: ReplicaKind, resolved: Resolved, loads: dict[str, Load]) -> tuple[float, float] | None:
    services = resolved.scenario.services
    return mean_lengths([loads[name] for name, service in services.items() if kind.deployment in service.deployments])


@dataclass(frozen=True)
class _Bench:
    """Where optimizations are tried: the deployment, its price, and the mean requests and target of its services."""

    kind: ReplicaKind
    pool: ResolvedPool
    catalog: Catalog
    host: Host
    lengths: tuple[float, float]
    tpot_target_s: float | None
    usd_per_hour: float

    def sheet(self, serving: Serving, kv_tokens: int, step: StepModel | None = None) -> CapacitySheet:
        return capacity_sheet(
            step or serving_step(serving, self.host),
            kv_tokens,
            prompt_tokens=self.lengths[0],
            output_tokens=self.lengths[1],
            max_num_seqs=self.host.max_num_seqs,
            max_num_batched_tokens=self.host.max_num_batched_tokens,
            tpot_target_s=self.tpot_target_s,
            cached_share=serving.prefix_cache_hit,
        )

    def kv_tokens(self, before: Serving, serving: Serving) -> int:
        """KV tokens by the memory left; a measured capacity is moved by what the optimization moves the computed one."""
        tokens = serving_memory(serving, self.host).tokens
        measured = self.kind.config.kv_tokens
        if measured is None or tokens == 0:
            return tokens
        computed = serving_memory(before, self.host).tokens
        return round(measured * tokens / computed) if computed else 0


def _explained(kind: ReplicaKind, resolved: Resolved, loads: dict[str, Load], wishes: Wishes) -> Explanation:
    pool, services = resolved.pools[kind.pool], resolved.scenario.services.values()
    lengths = _lengths(kind, resolved, loads)
    assert lengths is not None
    assert kind.model is not None
    assert kind.engine is not None
    targets = [each.slo.tpot_s for each in services if kind.deployment in each.deployments and each.slo.tpot_s is not None]
    machine = pool_report(kind.pool, resolved)
    usd_per_hour = machine.usd_per_hour * nodes_of_a_replica(kind.config.accelerators, machine.accelerators)
    host = host_of(kind.config, pool.accelerator, kind.engine, resolved.catalog)
    bench = _Bench(kind, pool, resolved.catalog, host, lengths, min(targets, default=None), usd_per_hour)
    before = serving_of(kind.config, kind.model, resolved.catalog)
    choices = _choices(wishes, before, host, resolved.catalog)
    outcomes, refused = [_outcome(bench, before, None, None)], {}
    for name in wishes.tried or STANDARD:
        tried = optimization(name, choices, "try", Problems())
        assert tried is not None
        if not wishes.tried and _in_place(name, before, choices):
            continue
        reason = _refused(bench, before, tried)
        if reason:
            refused[name] = reason
        else:
            outcomes.append(_outcome(bench, before, tried, outcomes[0]))
    return Explanation(
        kind.deployment,
        kind.pool,
        kind.model.name,
        pool.accelerator.name,
        kind.config.accelerators,
        *lengths,
        bench.tpot_target_s,
        usd_per_hour,
        kind.config.perf == TABLE,
        tuple(outcomes),
        refused,
    )


def _in_place(name: str, before: Serving, choices: Choices) -> bool:
    """Return whether a part of an optimization is what is served already."""
    parts = set(name.split(JOINED_BY)) & {*WEIGHT_TYPES, "kv_fp8", "flash_attention", "no_flash_attention"}
    return any(OPTIMIZATIONS[part](choices).apply(before) == before for part in parts)


def _choices(wishes: Wishes, served: Serving, host: Host, catalog: Catalog) -> Choices:
    draft = None if wishes.draft == NGRAM else catalog.models.get(wishes.draft)
    if not wishes.draft:
        draft = _kin(served.model, host, catalog, MOST_DRAFT_SHARE, min)
    student = catalog.models[wishes.student] if wishes.student else _kin(served.model, host, catalog, MOST_STUDENT_SHARE, max)
    return Choices(
        draft=draft,
        proposals=wishes.proposals,
        acceptance=wishes.acceptance,
        student=student,
        sparsity=wishes.sparsity,
        prefix_cache_hit=wishes.prefix_cache_hit,
    )


def _kin(model: Model, host: Host, catalog: Catalog, most_share: float, choose: Callable[..., Model]) -> Model | None:
    """Return the smallest or largest dense model of the same vocabulary that is small enough and can be split likewise."""
    kin = [
        each
        for each in catalog.models.values()
        if each.vocabulary == model.vocabulary
        and each.experts == 0
        and each.parameters <= most_share * model.parameters
        and each.heads % host.tensor_parallel == 0
        and each.layers >= host.pipeline_parallel
    ]
    return choose(kin, key=lambda each: (each.parameters, each.name)) if kin else None


def _refused(bench: _Bench, before: Serving, tried: Optimization) -> str:
    """Say why an optimization cannot be applied, or why what is left of the memory holds no request; "" where it can."""
    accelerator = bench.pool.accelerator
    reason = tried.refused(before, accelerator)
    if reason:
        return reason
    after, problems = tried.apply(before), Problems()
    settings = {
        "weight_dtype": after.weight_dtype,
        "kv_dtype": after.kv_dtype,
        "tensor_parallel": bench.host.tensor_parallel,
        "path": "",
        "problems": problems,
    }
    check_parallel(after.model, accelerator, **settings)  # type: ignore[arg-type]
    bench.catalog.fit(accelerator.name, bench.host.engine, after.weight_dtype, "", problems)
    if problems.found:
        return problems.found[0].message
    memory = serving_memory(after, bench.host)
    if not memory.fits:
        taken = (memory.weight_bytes + memory.activation_bytes + memory.reserve_bytes) / 1e9
        return f"takes {taken:,.1f} GB of {memory.budget_bytes / 1e9:,.1f} GB; {_would_fit(bench, after, memory.remedies)}"
    try:
        bench.sheet(after, bench.kv_tokens(before, after))
    except ValueError as error:
        return str(error)
    return ""


def _would_fit(bench: _Bench, after: Serving, remedies: tuple[str, ...]) -> str:
    """Say what would make it fit; where scores are written, the longest context that they leave room for."""
    low, high = 0, bench.host.max_model_len or after.model.max_model_len
    if after.flash_attention:
        return f"fits with {remedies[0]}"
    while low < high:
        middle = (low + high + 1) // 2
        fits = serving_memory(after, replace(bench.host, max_model_len=middle)).fits
        low, high = (middle, high) if fits else (low, middle - 1)
    return f"fits with a max_model_len of {low:,}" if low else f"fits with {remedies[0]}"


def _outcome(bench: _Bench, before: Serving, tried: Optimization | None, first: Outcome | None) -> Outcome:
    """Return what comes of an optimization; None for the deployment as it is."""
    after = before if tried is None else tried.apply(before)
    kv_tokens, step = bench.kv_tokens(before, after), serving_step(after, bench.host)
    sheet = bench.sheet(after, kv_tokens, step)
    rate = sheet.output_tokens_per_s
    worst, best = rate, rate
    if tried is not None:
        extremes = (tried.worst(after), tried.best(after))
        worst, best = (rate if each == after else bench.sheet(each, kv_tokens).output_tokens_per_s for each in extremes)
    usd = None if rate == 0 else bench.usd_per_hour / (rate * HOUR_S) * 1e6
    files = serving_bytes(after)
    made = Outcome(
        AS_IT_IS,
        "",
        files,
        loading_s(bench.pool, bench.catalog, files),
        serving_memory(after, bench.host).weight_bytes,
        kv_tokens,
        sheet.largest_batch,
        sheet.batch,
        rate,
        min(worst, rate),
        max(best, rate),
        sheet.prefill_s,
        usd,
        None if rate == 0 else sheet.power_w / rate,
        0.0,
        0.0,
        "",
        None,
        None,
        step.validity,
        step.band,
    )
    if tried is None or first is None:
        return made
    one_off = tried.one_off(before)
    gpu_hours = one_off.gpu_hours
    if one_off.trained is not None:
        gpu_hours += _training_hours(bench, one_off.trained, one_off.training_flops)
    one_off_usd = gpu_hours * bench.usd_per_hour / bench.kind.config.accelerators
    return replace(
        made,
        name=tried.name,
        summary=tried.summary,
        one_off_gpu_hours=gpu_hours,
        one_off_usd=one_off_usd,
        one_off_source=one_off.provenance.source,
        accuracy=tried.accuracy,
        break_even_tokens=break_even_tokens(one_off_usd, first.usd_per_1m_output, usd),
    )


def _training_hours(bench: _Bench, model: Model, flops: float) -> float:
    """Return the accelerator-hours of training operations at the usual share of the peak in bf16."""
    accelerator, rows = bench.pool.accelerator, bench.catalog.training_efficiencies.values()
    share = efficiency_for(accelerator.name, "bf16", model, rows).in_run.mid
    return flops / (peak_flops_per_s(accelerator, "bf16") * share * HOUR_S)


def break_even_tokens(one_off_usd: float, usd_before: float | None, usd_after: float | None) -> float | None:
    """Return the output tokens whose savings pay for a one-off cost, 0 where there is none to pay, None where nothing is saved.

    Parameters
    ----------
    usd_before, usd_after : per million output tokens; None where the target cannot be kept.

    Examples
    --------
    >>> break_even_tokens(100.0, 0.5, 0.25) / 1e9
    0.4
    >>> break_even_tokens(0.0, 0.5, 0.4), break_even_tokens(100.0, 0.4, 0.5)
    (0.0, None)
    """
    if usd_after is None or (usd_before is not None and usd_after >= usd_before):
        return None
    if one_off_usd == 0:
        return 0.0
    return None if usd_before is None else one_off_usd / (usd_before - usd_after) * 1e6
