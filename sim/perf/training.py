"""Time, bill and energy of a training job: T = FLOPs / (accelerators x peak x MFU x goodput), each with its bounds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from sim.domain.hardware import Accelerator, Grid, InstanceType
from sim.domain.models import Model
from sim.domain.training import Range, TrainingEfficiency
from sim.errors import Problems
from sim.perf.goodput import HOUR_S, Goodput, Reliability, goodput
from sim.perf.power import stepping_power_w
from sim.perf.serving import UNFUSED_SPEED
from sim.perf.training_memory import RECIPES, TrainingSetup, adapter_parameters

# Operations of a parameter and a token: 2 forward, 2 for the gradient of the inputs, 2 for that of the weights, which frozen
# weights need not; full recompute does the forward pass twice (Kaplan et al. 2020, arXiv 2001.08361; Korthikanti et al. 2022).
FORWARD, INPUT_GRADIENTS, WEIGHT_GRADIENTS = 2, 2, 2
# Tokens of a step of Llama 3 405B for most of its training (The Llama 3 Herd of Models, 2024, section 3.4.1).
GLOBAL_BATCH_TOKENS = 16_000_000
# Power of a server beyond its accelerators while it trains, as a share of the TDP of its accelerators. A node of 8 H100 (5.6 kW)
# was measured at 76 % of its rated 10.2 kW, 7.75 kW, and at 8.4 kW at most (arXiv 2506.14551 and 2412.08602, read 2026-11-23); the
# low bound, and that other servers are alike, are assumed.
HOST_SHARE = Range(0.20, 0.38, 0.50)


@dataclass(frozen=True)
class TrainingJob:
    """What is to be trained, and what is known better than the catalog knows it.

    Parameters
    ----------
    tokens : all tokens of the run.
    global_batch_tokens : of one optimizer step; data-parallel ranks beyond its sequences have nothing to do.
    mfu : model FLOP/s while stepping as a share of the peak; None for the catalog's range.
    goodput : useful time over all time; None for the formula of checkpoints and failures. reliability : its inputs.
    """

    tokens: float
    global_batch_tokens: float = GLOBAL_BATCH_TOKENS
    mfu: float | None = None
    goodput: float | None = None
    reliability: Reliability = field(default_factory=Reliability)


@dataclass(frozen=True)
class TrainingTime:
    """How long a job takes.

    Parameters
    ----------
    flops : of the whole run, recompute included. active_parameters : that each token passes.
    peak_flops_per_s : of one accelerator, dense, in the arithmetic of the recipe. working : accelerators that the batch keeps busy.
    mfu : while stepping. goodput : share of time that counts. hours : from start to end.
    accelerator_hours : hours x all accelerators, of this run alone.
    all_in_accelerator_hours : what a model card would report: trials, restarts and later stages with it.
    efficiency : the row behind `mfu` and the all-in hours.
    validity : "fitted", "transferred" or "assumed"; "set" for one's own MFU.
    """

    flops: float
    active_parameters: float
    peak_flops_per_s: float
    accelerators: int
    working: int
    mfu: Range
    goodput: Range
    checkpoints: Goodput
    hours: Range
    accelerator_hours: Range
    all_in_accelerator_hours: Range
    efficiency: TrainingEfficiency
    validity: str


@dataclass(frozen=True)
class TrainingBill:
    """Money, energy and carbon of so many accelerator-hours.

    Parameters
    ----------
    usd : of whole machines by the hour. kwh : at the meter, PUE included. kgco2 : by the intensity of the grid.
    node_w : power of one accelerator and its share of the server, without PUE.
    """

    usd: Range
    kwh: Range
    kgco2: Range
    node_w: Range


def active_parameters(model: Model) -> float:
    """Return the parameters that a token passes: all of a dense model; of a mixture, those of the active experts only.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> models = load_catalog().models
    >>> active_parameters(models["llama-3.1-8b"]), round(active_parameters(models["mixtral-8x7b"]) / 1e9, 1)
    (8030261248.0, 12.9)
    """
    return float(model.counted_parameters - model.linear_parameters + model.active_linear_parameters)


def training_flops(parameters: float, tokens: float, *, recompute: str = "selective", lora: bool = False) -> float:
    """Return the operations of a run: 6 N D, 8 N D with full recompute; 4 N D and 6 N D where only adapters are trained.

    Parameters
    ----------
    parameters : active ones. tokens : of the run. Scores of attention are left out, as in the MFU that divides them.

    Examples
    --------
    >>> f"{training_flops(405e9, 15.6e12):.3g}"
    '3.79e+25'
    """
    each = FORWARD + INPUT_GRADIENTS + (0 if lora else WEIGHT_GRADIENTS) + (FORWARD if recompute == "full" else 0)
    return each * parameters * tokens


def efficiency_for(accelerator: str, arithmetic: str, model: Model, rows: Iterable[TrainingEfficiency]) -> TrainingEfficiency:
    """Return the first row for an accelerator, arithmetic and model, else one that names no accelerator.

    Parameters
    ----------
    accelerator : catalog name. arithmetic : "bf16", "fp8" or "tf32". rows : the catalog's, in order; one at least names no
        accelerator.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> catalog = load_catalog()
    >>> rows = catalog.training_efficiencies.values()
    >>> efficiency_for("h100-sxm", "bf16", catalog.models["deepseek-v3"], rows).name
    'h100/bf16/experts'
    >>> efficiency_for("l4", "bf16", catalog.models["llama-3.1-8b"], rows).name
    'any'
    """
    parameters = active_parameters(model)
    known = tuple(rows)
    for row in known:
        names = (*row.accelerators, *row.transferred_to)
        alike = (row.arithmetic, row.experts) == (arithmetic, model.experts > 0)
        if accelerator in names and alike and row.least_parameters <= parameters < row.most_parameters:
            return row
    anywhere = [row for row in known if not row.accelerators and not row.transferred_to]
    return next((row for row in anywhere if row.arithmetic == arithmetic), anywhere[0])


def peak_flops_per_s(accelerator: Accelerator, recipe: str) -> float:
    """Return the dense peak of an accelerator in the arithmetic of a recipe, 0 where it has none.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> a100 = load_catalog().accelerators["a100-sxm-80"]
    >>> [peak_flops_per_s(a100, recipe) / 1e12 for recipe in ("bf16", "fp32", "fp8")]
    [312.0, 156.0, 0.0]
    """
    arithmetic = RECIPES[recipe].arithmetic
    return accelerator.dense_tflops.get(arithmetic, 0.0) * 1e12


def check_job(accelerator: Accelerator, setup: TrainingSetup, job: TrainingJob, problems: Problems) -> None:
    """Record what in a job cannot be: numbers out of range, an arithmetic or a size that the accelerator does not have.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> problems = Problems()
    >>> v5p = load_catalog().accelerators["tpu-v5p"]
    >>> check_job(v5p, TrainingSetup(accelerators=8192), TrainingJob(tokens=1e12), problems)
    >>> problems.found[0].allowed
    'at most 6144'
    """
    most = accelerator.most_in_one_job
    count = setup.accelerators
    problems.check(
        not most or count <= most, "accelerators", count, f"more than one job of {accelerator.name} may have", f"at most {most}"
    )
    degree, degrees = setup.tensor_parallel, ", ".join(str(each) for each in accelerator.degrees)
    message = f"no degree of {accelerator.name} over {accelerator.link}"
    problems.check(degree in accelerator.degrees, "tensor_parallel", degree, message, degrees)
    if setup.recipe in RECIPES:
        able = [name for name in RECIPES if peak_flops_per_s(accelerator, name) > 0]
        message = f"{accelerator.name} has no such arithmetic"
        problems.check(setup.recipe in able, "recipe", setup.recipe, message, ", ".join(able) or "none")
    problems.check(0 < job.tokens <= 1e18, "tokens", job.tokens, "is out of range", "above 0, such as 15T or 300B")
    least = setup.micro_batch * setup.sequence_tokens
    fine = least <= job.global_batch_tokens <= 1e12
    message = "is below one micro-batch, or out of range"
    problems.check(
        fine, "global_batch_tokens", job.global_batch_tokens, message, f"{least} (micro_batch x sequence_tokens) to 1e12"
    )
    for name in ("mfu", "goodput"):
        share = getattr(job, name)
        problems.check(share is None or 0 < share <= 1, name, share, "is out of range", "above 0, at most 1")
    facts = job.reliability
    for name in ("chip_mtbf_h", "checkpoint_gb_per_s"):
        value = getattr(facts, name)
        problems.check(0 < value < 1e15, name, value, "is out of range", "above 0")
    problems.check(0 <= facts.restart_s <= 1e7, "restart_s", facts.restart_s, "is out of range", "0 to 1e7")
    interval = facts.checkpoint_interval_s
    fine = interval is None or 0 < interval <= 1e8
    problems.check(fine, "checkpoint_interval_s", interval, "is out of range", "above 0, or none for the best")


def checkpoint_bytes(model: Model, setup: TrainingSetup) -> float:
    """Return the bytes that a checkpoint writes: what is trained and its optimizer, 14 for a parameter in bf16 with Adam."""
    recipe = RECIPES[setup.recipe]
    trained = adapter_parameters(model, setup.lora_rank) if setup.lora_rank else model.counted_parameters
    return float(trained * (recipe.activation + recipe.optimizer))


def training_time(
    model: Model, accelerator: Accelerator, setup: TrainingSetup, job: TrainingJob, rows: Iterable[TrainingEfficiency]
) -> TrainingTime:
    """Return how long a job takes: T = FLOPs / (accelerators x peak x MFU x goodput).

    Attention that is not fused (`recompute` "none") makes every step longer, which lowers the MFU of the catalog's runs.

    The MFU of the run while it steps and the goodput give the time of this run. The all-in hours of model cards hold far more than
    the main run (Llama-3.1-8B: twice as many); they come from the shares that published runs reached over all their hours.

    Parameters
    ----------
    rows : the catalog's `training_efficiencies`. The other arguments must have passed `check_setup` and `check_job`.

    Source: research note on hardware, section 5 (2026-11-23).

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> catalog = load_catalog()
    >>> setup = TrainingSetup(accelerators=16_384, tensor_parallel=8, pipeline_parallel=16, sequence_tokens=8192)
    >>> found = training_time(
    ...     catalog.models["llama-3.1-405b"],
    ...     catalog.accelerators["h100-sxm"],
    ...     setup,
    ...     TrainingJob(tokens=15.6e12),
    ...     catalog.training_efficiencies.values(),
    ... )
    >>> round(found.hours.mid / 24), round(found.goodput.mid, 2)  # the run took most of 54 days in its published snapshot, and more
    (74, 0.92)
    """
    parameters = active_parameters(model)
    flops = training_flops(parameters, job.tokens, recompute=setup.recompute, lora=setup.lora_rank > 0)
    peak = peak_flops_per_s(accelerator, setup.recipe)
    row = efficiency_for(accelerator.name, RECIPES[setup.recipe].arithmetic, model, rows)
    found = goodput(setup.accelerators, checkpoint_bytes(model, setup), job.reliability)
    fused = unfused_speed(model, setup.sequence_tokens) if setup.recompute == "none" else Range(1.0, 1.0, 1.0)
    mfu = _scaled(row.in_run, fused) if job.mfu is None else Range(job.mfu, job.mfu, job.mfu)
    share = found.share if job.goodput is None else Range(job.goodput, job.goodput, job.goodput)
    sequences = int(job.global_batch_tokens // (setup.sequence_tokens * setup.micro_batch))
    part = setup.tensor_parallel * setup.pipeline_parallel
    working = part * min(setup.data_parallel, sequences)
    hours = _over(flops / (working * peak * HOUR_S), mfu, share)
    return TrainingTime(
        flops=flops,
        active_parameters=parameters,
        peak_flops_per_s=peak,
        accelerators=setup.accelerators,
        working=working,
        mfu=mfu,
        goodput=share,
        checkpoints=found,
        hours=hours,
        accelerator_hours=_times(hours, setup.accelerators),
        all_in_accelerator_hours=_over(flops / (peak * HOUR_S), _scaled(row.all_in, fused)),
        efficiency=row,
        validity="set" if job.mfu is not None else row.validity(accelerator.name),
    )


def training_bill(
    accelerator_hours: Range,
    accelerators: int,
    mfu: Range,
    accelerator: Accelerator,
    instance: InstanceType,
    usd_per_hour: float,
    grid: Grid,
) -> TrainingBill:
    """Return money, energy and carbon of accelerator-hours; machines are rented whole.

    Parameters
    ----------
    accelerator_hours : of the job, for so many `accelerators`. mfu : decides the power of the accelerators.
    usd_per_hour : of a machine. grid : carbon intensity and PUE.

    Source: power model of section 6 of the research note on hardware; the server around it as `HOST_SHARE`.
    """
    nodes = -(-accelerators // instance.accelerators)
    usd = _times(accelerator_hours, nodes / accelerators * usd_per_hour)
    # A low MFU means more hours at less power, so the two are paired as they occur.
    paired = (
        (accelerator_hours.low, mfu.high, HOST_SHARE.low),
        (accelerator_hours.mid, mfu.mid, HOST_SHARE.mid),
        (accelerator_hours.high, mfu.low, HOST_SHARE.high),
    )
    watts = Range(*(training_power_w(accelerator, share, host) for _, share, host in paired))
    energies = (hours * training_power_w(accelerator, share, host) / 1000 * grid.pue for hours, share, host in paired)
    kwh = Range(*energies)
    return TrainingBill(usd, kwh, _times(kwh, grid.gco2_per_kwh / 1000), watts)


def training_power_w(accelerator: Accelerator, mfu: float, host_share: float) -> float:
    """Return the power of one accelerator that trains and of its share of the server, without PUE.

    Parameters
    ----------
    mfu : share of the peak that is used. host_share : of the TDP, for the rest of the server.

    Source: utilisation model of power (research note on hardware, section 6), memory traffic left out: at the MFU of training the
    accelerator is at its limit or near it without.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> h100 = load_catalog().accelerators["h100-sxm"]
    >>> round(8 * training_power_w(h100, mfu=0.40, host_share=HOST_SHARE.mid))  # measured: 7,750 W
    7728
    """
    return stepping_power_w(accelerator, memory_use=0.0, compute_use=mfu) + host_share * accelerator.tdp_w


def unfused_speed(model: Model, sequence_tokens: int) -> Range:
    """Return the speed of training with attention that is not fused, as a share of that with FlashAttention.

    Causal attention of a sequence of s tokens is r = L n_h d s / N of the other operations of a token, forward and backward. At
    equal efficiency it takes r / (1 + r) of the time, and 2 to 4 times that where it is not fused (a lower bound: it is rather less
    efficient than the products).

    Parameters
    ----------
    sequence_tokens : s.

    Source: FlashAttention's 2 to 4x (research note on hardware, section 7, read 2026-11-23, assumed).

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> model = load_catalog().models["llama-3.1-8b"]
    >>> [round(share, 2) for share in (unfused_speed(model, 2048).mid, unfused_speed(model, 32_768).mid)]
    [0.94, 0.61]
    """
    more = model.layers * model.heads * model.head_dim * sequence_tokens / active_parameters(model)
    part = more / (1.0 + more)
    low, mid, high = (1.0 / (1.0 + part * (1.0 / speed - 1.0)) for speed in UNFUSED_SPEED)
    return Range(low, mid, high)


def _scaled(one: Range, other: Range) -> Range:
    return Range(one.low * other.low, one.mid * other.mid, one.high * other.high)


def _over(value: float, *shares: Range) -> Range:
    """Return a value divided by shares: the largest shares give the low bound."""
    low, mid, high = value, value, value
    for share in shares:
        low, mid, high = low / share.high, mid / share.mid, high / share.low
    return Range(low, mid, high)


def _times(value: Range, factor: float) -> Range:
    return Range(value.low * factor, value.mid * factor, value.high * factor)
