"""A first scenario of one's own: model, machine, traffic and targets in, a commented file out that is not overloaded."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sim.app.sheet import CapacityReport, capacity_report
from sim.catalog.loader import Catalog, load_catalog
from sim.domain.hardware import Accelerator, InstanceType
from sim.errors import InputError, Problem, Problems
from sim.perf.capacity import CapacitySheet
from sim.registry import registered
from sim.scenario import Deployment, Pool, Scenario, Service, Slo
from sim.scenario.check import check
from sim.scenario.plain import dataclass_from_plain
from sim.units import duration_ns
from sim.workload.synthetic import Synthetic

FOLDER = "scenario"
# Above so much use at the peak of the week queues grow fast (M/M/c); a rule of thumb, assumed.
MOST_USE = 0.7
# Seats and token budget, from vLLM's defaults down to what leaves room for a cache on small accelerators.
SIZES = ((256, 8192), (64, 2048), (16, 512))
STAGES = (1, 2, 4)
SIZING_HORIZON = "7d"
_FILE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,99}")
# What the command line would read as something other than a text.
_WORDS = ("null", "true", "false", "nan", "inf")


@dataclass
class Init:
    """What a user knows at the start.

    Parameters
    ----------
    model, instance, engine : catalog names. weight_dtype : "" for bf16. region : "" for the first that has a price.
    rate_per_s : requests per second, mean of a week. ttft_s, tpot_s, e2e_s, attainment : targets.
    """

    model: str = "llama-3.1-8b"
    instance: str = "p5.4xlarge"
    engine: str = "vllm-2026"
    weight_dtype: str = "bf16"
    region: str = ""
    rate_per_s: float = 20.0
    ttft_s: float = 1.0
    tpot_s: float = 0.05
    e2e_s: float | None = None
    attainment: float = 0.99
    horizon: str = "1d"


@dataclass(frozen=True)
class Sized:
    """A fleet that serves the traffic within the targets.

    Parameters
    ----------
    report : its capacity sheet over a week. usd_per_hour : of all its machines.
    """

    scenario: Scenario
    report: CapacityReport
    usd_per_hour: float


@dataclass(frozen=True)
class _Split:
    """One way in which a model fits machines, with one replica; None without replicas where it misses the targets."""

    scenario: Scenario
    report: CapacityReport
    replicas: int | None
    usd_per_hour: float


def init_file(target: str) -> Path:
    """Return the file to write: a bare name goes into the folder `scenario`, where `--config-dir .` finds it.

    Raises
    ------
    InputError : a name that cannot be a scenario, or a folder in which no scenario is looked for.

    Examples
    --------
    >>> init_file("chat").as_posix(), init_file("mine/scenario/chat.yaml").as_posix()
    ('scenario/chat.yaml', 'mine/scenario/chat.yaml')
    """
    path = Path(target)
    if not target.endswith(".yaml"):
        path = path.with_name(f"{path.name}.yaml") if path.name else path
    if path.parent == Path():
        path = FOLDER / path
    problems = Problems()
    there = path.parent.name == FOLDER
    problems.check(there, "FILE", target, f"a scenario must lie in a folder called {FOLDER}", f"{FOLDER}/{path.name}")
    valid = _FILE_NAME.fullmatch(path.stem) is not None and path.stem.lower() not in _WORDS
    problems.check(valid, "FILE", target, "cannot be the name of a scenario", "a letter, then letters, digits, '_' and '-'")
    problems.raise_if_any()
    return path


def read_init(settings: list[str]) -> Init:
    """Read `key=value` settings, with units as people write them.

    Raises
    ------
    InputError : everything that is wrong with them.
    """
    problems = Problems()
    plain: dict[str, Any] = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if problems.check(bool(equals), text, "", "is not a setting", "key=value"):
            plain[key] = value
    wanted = dataclass_from_plain(Init, plain, problems)
    problems.raise_if_any()
    return wanted


def sized(wanted: Init, name: str) -> Sized:
    """Return the cheapest fleet that serves the peak of a week at no more than 70 % use, within the targets.

    Parameters
    ----------
    name : of the scenario.

    Raises
    ------
    InputError : wrong names, a model that does not fit the machines, targets that no split reaches.

    Examples
    --------
    >>> found = sized(Init(rate_per_s=20.0), "chat")
    >>> found.scenario.deployments["main"].tensor_parallel, found.report.warnings
    (1, [])
    """
    catalog = load_catalog()
    problems = Problems()
    instance: InstanceType | None = catalog.get("instances", wanted.instance, "instance", problems)
    _check_horizon(wanted.horizon, problems)
    problems.raise_if_any()
    assert instance is not None
    best = _best(wanted, name, instance, catalog)
    assert best.replicas is not None
    best.scenario.deployments["main"].autoscaler = registered("autoscaler", "static")(replicas=best.replicas)
    return Sized(best.scenario, capacity_report(best.scenario), best.usd_per_hour)


def _best(wanted: Init, name: str, instance: InstanceType, catalog: Catalog) -> _Split:
    """Return the cheapest split within the targets; smaller engine sizes and gangs are for what fits no other way."""
    seen: list[_Split] = []
    first: InputError | None = None
    for group in _splits(instance, catalog.accelerators[instance.accelerator]):
        for settings in group:
            scenario = _scenario(wanted, name, settings, _pool(wanted, instance))
            try:
                check(scenario, catalog)
            except InputError as error:
                first = first or error
            else:
                seen.append(_split(scenario, wanted))
        within = [split for split in seen if split.replicas is not None]
        if within:
            return min(within, key=lambda split: split.usd_per_hour)
    if not seen and first is not None:
        raise first
    raise InputError([_out_of_reach(seen, wanted)])


def _check_horizon(horizon: str, problems: Problems) -> None:
    try:
        fine = duration_ns(horizon) > 0
    except ValueError:
        fine = False
    problems.check(fine, "horizon", horizon, "is not a duration above 0", "for instance 90s, 12h or 7d")


def _split(scenario: Scenario, wanted: Init) -> _Split:
    report = capacity_report(scenario)
    kind, peak_per_s = report.kinds[0], report.fleets[0].peak_rate_per_s or wanted.rate_per_s
    if kind.sheet is None or not _within_targets(kind.sheet, report, wanted):
        return _Split(scenario, report, None, 0.0)
    replicas = max(math.ceil(peak_per_s / (MOST_USE * kind.sheet.requests_per_s)), 1)
    return _Split(scenario, report, replicas, math.ceil(replicas * kind.nodes) * report.pools[0].usd_per_hour)


def _splits(instance: InstanceType, accelerator: Accelerator) -> Iterator[list[dict[str, int]]]:
    """Yield groups of splits, those to be tried first: all of one machine or less, then gangs of machines; then smaller sizes."""
    degrees = [degree for degree in accelerator.degrees if degree <= instance.accelerators]
    for seats, budget in SIZES:
        for stages in STAGES:
            yield [
                {
                    "tensor_parallel": degree,
                    "pipeline_parallel": stages,
                    "max_num_seqs": seats,
                    "max_num_batched_tokens": budget,
                }
                for degree in (degrees if stages == 1 else degrees[-1:])
            ]


def _pool(wanted: Init, instance: InstanceType) -> Pool:
    region = wanted.region or next(iter(instance.on_demand), "")
    zone = f"{region}a" if instance.cloud == "aws" else f"{region}-a"
    return Pool(instance=instance.name, region=region, zones=[zone])


def _scenario(wanted: Init, name: str, settings: Mapping[str, int], pool: Pool) -> Scenario:
    slo = Slo(wanted.ttft_s, wanted.tpot_s, wanted.e2e_s, wanted.attainment)
    deployment = Deployment(wanted.model, wanted.engine, wanted.weight_dtype or "bf16", pools=["machines"], **settings)  # type: ignore[arg-type]
    return Scenario(
        name=name,
        horizon=SIZING_HORIZON,
        services={"chat": Service(Synthetic(rate_per_s=wanted.rate_per_s), ["main"], slo)},
        deployments={"main": deployment},
        pools={"machines": pool},
    )


def _within_targets(sheet: CapacitySheet, report: CapacityReport, wanted: Init) -> bool:
    whole_s = sheet.prefill_s + sheet.tpot_s * (report.loads["chat"].output_tokens or 0.0)
    return sheet.batch > 0 and sheet.prefill_s <= wanted.ttft_s and (wanted.e2e_s is None or whole_s <= wanted.e2e_s)


def _out_of_reach(seen: list[_Split], wanted: Init) -> Problem:
    sheets = [split.report.kinds[0].sheet for split in seen]
    known = [sheet for sheet in sheets if sheet is not None]
    if not known:
        return Problem("model", wanted.model, f"leaves no room for a mean request on {wanted.instance}", "a larger instance")
    tpot_s, first_s = min(sheet.tpot_s for sheet in known), min(sheet.prefill_s for sheet in known)
    message = f"no split of {wanted.model} over {wanted.instance} holds the targets for requests of the mean size"
    allowed = f"tpot_s from about {tpot_s:.3g} and ttft_s from about {first_s:.3g} up, or another instance or weight_dtype"
    targets = f"ttft_s={wanted.ttft_s:g}, tpot_s={wanted.tpot_s:g}" + ("" if wanted.e2e_s is None else f", e2e_s={wanted.e2e_s:g}")
    return Problem("targets", targets, message, allowed)


def write_new(file: Path, text: str, *, force: bool) -> None:
    """Write a file whole or not at all; one that is there stays, unless forced.

    Raises
    ------
    InputError : the file is there and `force` is not given, or it cannot be written.
    """
    if file.exists() and not force:
        raise InputError([Problem("FILE", str(file), "is there already", "another name, or --force to replace it")])
    partial = file.with_name(f".{file.name}.partial-{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, "utf-8")
        partial.replace(file)
    except OSError as error:
        raise InputError([Problem("FILE", str(file), f"cannot be written: {error.strerror}")]) from error
    finally:
        partial.unlink(missing_ok=True)
