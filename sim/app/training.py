"""A training job from the command line: its memory, time, bill and energy, each with bounds and sources."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from sim.catalog.loader import Catalog, load_catalog
from sim.domain.hardware import Accelerator, Grid, InstanceType
from sim.domain.models import Model
from sim.domain.training import Range
from sim.errors import Problems
from sim.perf.goodput import Reliability, goodput
from sim.perf.remedies import OWN
from sim.perf.training import (
    GLOBAL_BATCH_TOKENS,
    TrainingBill,
    TrainingJob,
    TrainingTime,
    check_job,
    checkpoint_bytes,
    peak_flops_per_s,
    training_bill,
    training_time,
)
from sim.perf.training_memory import TrainingMemory, TrainingSetup, check_setup, training_memory
from sim.perf.training_remedies import training_remedies
from sim.scenario.plain import dataclass_from_plain

# "8k" tokens are 8,000 to some and 8,192 to others; from a million on nobody counts in powers of two.
_MULTIPLES = {"": 1.0, "M": 1e6, "B": 1e9, "T": 1e12}
_COUNT = re.compile(r"\s*([0-9]+\.?[0-9]*(?:e\+?[0-9]+)?)\s*([MBT]?)\s*(?:tokens)?\s*")
# Where the low bound of useful time is below this, nobody would start a job.
LEAST_GOODPUT = 0.001
_COUNTS = ("tokens", "global_batch_tokens")
_WORDS: dict[str, bool | None] = {"true": True, "false": False, "none": None, "null": None}


@dataclass
class Job:
    """What a user says about a training job.

    Parameters
    ----------
    model, instance : catalog names. tokens : of the run, such as 15T. region : "" for the first that has a price.
    price_usd_per_hour : of a machine; None for the catalog's. pue, gco2_per_kwh : of the site; None for the region's.
    catalog : a file merged over the catalog, or "".
    Other fields : see `TrainingSetup`, `TrainingJob` and `Reliability`.
    """

    model: str = "llama-3.1-8b"
    tokens: float = 1e12
    instance: str = "p5.48xlarge"
    accelerators: int = 64
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    expert_parallel: int = 1
    zero: int = 1
    recipe: str = "bf16"
    recompute: str = "selective"
    sequence_parallel: bool = False
    micro_batch: int = 1
    sequence_tokens: int = 4096
    lora_rank: int = 0
    global_batch_tokens: float = GLOBAL_BATCH_TOKENS
    mfu: float | None = None
    goodput: float | None = None
    chip_mtbf_h: float = Reliability.chip_mtbf_h
    restart_s: float = Reliability.restart_s
    checkpoint_gb_per_s: float = Reliability.checkpoint_gb_per_s
    checkpoint_interval_s: float | None = None
    region: str = ""
    price_usd_per_hour: float | None = None
    pue: float | None = None
    gco2_per_kwh: float | None = None
    catalog: str = ""


@dataclass(frozen=True)
class Plan:
    """Everything that is known of a job.

    Parameters
    ----------
    memory : of one accelerator. remedies : what would make it fit. run, all_in : bills of the run alone, and of all the hours that
        model cards of such runs report.
    """

    job: Job
    model: Model
    accelerator: Accelerator
    instance: InstanceType
    grid: Grid
    usd_per_hour: float
    price_source: str
    setup: TrainingSetup
    memory: TrainingMemory
    remedies: tuple[str, ...]
    time: TrainingTime
    run: TrainingBill
    all_in: TrainingBill

    @property
    def nodes(self) -> int:
        """Machines to rent."""
        return -(-self.setup.accelerators // self.instance.accelerators)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain data, for other programs."""
        time, memory = self.time, self.memory
        efficiency = time.efficiency.provenance
        return {
            "job": asdict(self.job) | {"region": self.grid.name},
            "accelerator": self.accelerator.name,
            "machines": self.nodes,
            "memory": asdict(memory) | {"total_bytes": memory.total_bytes, "fits": memory.fits, "remedies": list(self.remedies)},
            "time": {
                "flops": time.flops,
                "active_parameters": time.active_parameters,
                "peak_flops_per_s": time.peak_flops_per_s,
                "working_accelerators": time.working,
                "mfu": asdict(time.mfu),
                "all_in_mfu": asdict(time.efficiency.all_in),
                "goodput": asdict(time.goodput),
                "checkpoint_interval_s": time.checkpoints.interval_s,
                "checkpoint_write_s": time.checkpoints.write_s,
                "job_mtbf_s": time.checkpoints.mtbf_s,
                "hours": asdict(time.hours),
                "accelerator_hours": asdict(time.accelerator_hours),
                "all_in_accelerator_hours": asdict(time.all_in_accelerator_hours),
                "efficiency": time.efficiency.name,
                "validity": time.validity,
                "source": f"{efficiency.source}, {efficiency.date}, {efficiency.confidence}",
            },
            "price": {"usd_per_hour": self.usd_per_hour, "source": self.price_source},
            "run": asdict(self.run),
            "all_in": asdict(self.all_in),
        }


@dataclass(frozen=True)
class Elsewhere:
    """The same job on another accelerator.

    Parameters
    ----------
    memory : on one accelerator. time : of the run; None where such a job cannot be.
    usd : of the run on the cheapest machine to rent; None where none has a price.
    """

    accelerator: str
    memory: TrainingMemory
    time: TrainingTime | None
    instance: str
    usd: Range | None

    def to_dict(self) -> dict[str, Any]:
        """Return the row as plain data, for other programs."""
        return {
            "accelerator": self.accelerator,
            "fits": self.memory.fits,
            "memory_bytes": self.memory.total_bytes,
            "budget_bytes": self.memory.budget_bytes,
            "hours": None if self.time is None else asdict(self.time.hours),
            "validity": None if self.time is None else self.time.validity,
            "instance": self.instance,
            "usd": None if self.usd is None else asdict(self.usd),
        }


def read_job(settings: Sequence[str], problems: Problems) -> Job:
    """Read `key=value` settings as people write them; what cannot be read is a problem and stays at its default.

    Examples
    --------
    >>> job = read_job(["tokens=15T", "restart_s=10m", "sequence_parallel=true", "checkpoint_interval_s=none"], Problems())
    >>> job.tokens, job.restart_s, job.sequence_parallel, job.checkpoint_interval_s
    (15000000000000.0, 600.0, True, None)
    """
    plain: dict[str, Any] = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not problems.check(bool(equals), text, "", "is not a setting", "key=value"):
            continue
        problems.check(key not in plain, key, value, "is given twice", "each once")
        count = _COUNT.fullmatch(value)
        if key in _COUNTS and count is not None:
            plain[key] = float(count.group(1)) * _MULTIPLES[count.group(2)]
        elif key in _COUNTS:
            problems.add(key, value, "is not a number of tokens", "such as 15T, 300B, 16M or 2e12")
        else:
            plain[key] = _WORDS.get(value.lower(), value)
    return dataclass_from_plain(Job, plain, problems)


def plan(asked: Job, problems: Problems | None = None) -> Plan:
    """Return memory, time, bill and energy of a job.

    Parameters
    ----------
    problems : those of reading it, to be told with the others.

    Raises
    ------
    InputError : every name that is not in the catalog and every number that cannot be.

    Examples
    --------
    >>> found = plan(Job(tokens=1e11, accelerators=8))
    >>> found.memory.fits, found.nodes, round(found.time.hours.mid)
    (True, 1, 566)
    """
    catalog = load_catalog(asked.catalog or None)
    problems = Problems() if problems is None else problems
    model: Model | None = catalog.get("models", asked.model, "model", problems)
    instance: InstanceType | None = catalog.get("instances", asked.instance, "instance", problems)
    setup, job = _setup(asked), _job(asked)
    if model is not None:
        check_setup(model, setup, problems)
    accelerator = None if instance is None else catalog.accelerators[instance.accelerator]
    if accelerator is not None:
        check_job(accelerator, setup, job, problems)
    _check_site(asked, problems)
    grid, usd_per_hour, source = _price(asked, instance, catalog, problems)
    problems.raise_if_any()
    assert model is not None
    if asked.goodput is None:
        share = goodput(setup.accelerators, checkpoint_bytes(model, setup), job.reliability).share.low
        allowed = "fewer accelerators, a larger chip_mtbf_h, a smaller restart_s or a faster checkpoint_gb_per_s"
        problems.check(
            share > LEAST_GOODPUT, "accelerators", setup.accelerators, "fail so often that the job may never end", allowed
        )
        problems.raise_if_any()
    assert instance is not None
    assert accelerator is not None
    assert grid is not None
    memory = training_memory(model, accelerator, setup)
    remedies = () if memory.fits else training_remedies(model, accelerator, setup, catalog)
    time = training_time(model, accelerator, setup, job, catalog.training_efficiencies.values())
    run, all_in = (
        training_bill(hours, setup.accelerators, time.mfu, accelerator, instance, usd_per_hour, grid)
        for hours in (time.accelerator_hours, time.all_in_accelerator_hours)
    )
    return Plan(asked, model, accelerator, instance, grid, usd_per_hour, source, setup, memory, remedies, time, run, all_in)


def elsewhere(found: Plan) -> list[Elsewhere]:
    """Return the same job on every accelerator of the catalog that has its arithmetic, those that hold it first, by price."""
    catalog = load_catalog(found.job.catalog or None)
    rows, job = catalog.training_efficiencies.values(), _job(found.job)
    others = []
    for accelerator in catalog.accelerators.values():
        if accelerator.link == "none" or not peak_flops_per_s(accelerator, found.setup.recipe):
            continue
        memory, problems = training_memory(found.model, accelerator, found.setup), Problems()
        check_job(accelerator, found.setup, job, problems)
        time = None if problems.found else training_time(found.model, accelerator, found.setup, job, rows)
        machine, usd = _machine(accelerator.name, found.setup.accelerators, catalog), None
        if machine is not None and time is not None:
            price = _lowest_usd_per_hour(machine)
            usd = training_bill(
                time.accelerator_hours, found.setup.accelerators, time.mfu, accelerator, machine, price, found.grid
            ).usd
        others.append(Elsewhere(accelerator.name, memory, time, "" if machine is None else machine.name, usd))
    return sorted(
        others, key=lambda each: (not each.memory.fits, each.usd is None, each.usd.mid if each.usd else 0.0, each.accelerator)
    )


def _machine(accelerator: str, count: int, catalog: Catalog) -> InstanceType | None:
    """Return the machine to rent for so many of an accelerator: the cheapest for each of those that hold as many as any, or all."""
    offered = [
        each for each in catalog.instances.values() if each.accelerator == accelerator and each.cloud != OWN and each.on_demand
    ]
    together = min(count, max((each.accelerators for each in offered), default=1))
    joined = [each for each in offered if each.accelerators >= together]
    return min(joined, key=lambda each: (_lowest_usd_per_hour(each) / each.accelerators, each.name), default=None)


def _lowest_usd_per_hour(instance: InstanceType) -> float:
    return min(float(prices[-1].usd_per_hour) for prices in instance.on_demand.values())


def _setup(asked: Job) -> TrainingSetup:
    return TrainingSetup(**{item.name: getattr(asked, item.name) for item in fields(TrainingSetup)})


def _job(asked: Job) -> TrainingJob:
    facts = Reliability(**{item.name: getattr(asked, item.name) for item in fields(Reliability)})
    return TrainingJob(asked.tokens, asked.global_batch_tokens, asked.mfu, asked.goodput, facts)


def _check_site(asked: Job, problems: Problems) -> None:
    for name, least, allowed in (("price_usd_per_hour", 0.0, ">= 0"), ("pue", 1.0, ">= 1"), ("gco2_per_kwh", 0.0, ">= 0")):
        value = getattr(asked, name)
        problems.check(value is None or least <= value < 1e9, name, value, "is out of range", allowed)


def _price(asked: Job, instance: InstanceType | None, catalog: Catalog, problems: Problems) -> tuple[Grid | None, float, str]:
    """Return the site, the price of a machine by the hour and where it comes from."""
    if instance is None:
        return None, 0.0, ""
    region = asked.region or next(iter(instance.on_demand), "")
    own = asked.price_usd_per_hour
    known = list(catalog.grids) if own is not None else [name for name in instance.on_demand if name in catalog.grids]
    message = "is no region of the catalog" if own is not None else f"has no price of {instance.name}; price_usd_per_hour sets one"
    if not problems.check(region in known, "region", region, message, choices=known):
        return None, 0.0, ""
    grid = catalog.grids[region]
    grid = replace(
        grid,
        pue=grid.pue if asked.pue is None else asked.pue,
        gco2_per_kwh=grid.gco2_per_kwh if asked.gco2_per_kwh is None else asked.gco2_per_kwh,
    )
    if own is not None:
        return grid, own, "set"
    price = instance.on_demand[region][-1]
    said = price.provenance
    return grid, float(price.usd_per_hour), f"{said.source}, {said.date}, {said.confidence}"
