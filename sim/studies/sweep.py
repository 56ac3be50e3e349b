"""Sweeps: every combination of values is a job, all of them are checked before any runs, and one table is left.

The command line reads its jobs in Hydra's grammar and hands them to Hydra's launchers; from here they run one after another or in
processes. Everything else is the same code.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any

from sim.errors import InputError, Problem, Problems
from sim.scenario.check import check
from sim.scenario.edits import with_settings
from sim.scenario.model import Scenario, plain_value
from sim.studies.collect import Collected, collect
from sim.studies.executors import carried_by, prepare_engines, run_all
from sim.studies.jobs import Job, Plan, run_job, write_plan

MOST_JOBS = 10_000
Settings = Mapping[str, Any]


def sweep(
    scenario: Scenario,
    values: Mapping[str, Sequence[Any]],
    *,
    replications: int | None = None,
    workers: int = 1,
    out: str | Path | None = None,
) -> Collected:
    """Run a scenario for every combination of values and collect one table; a job that fails is a row like the others.

    Parameters
    ----------
    values : setting -> its values; the last one changes fastest. A setting is a path in the scenario, or the end of one that fits
        one place; where a policy or a workload stands, values are objects of its classes or registered names.
    replications : of every job; default `scenario.replications`. workers : jobs that run at a time, each in a process of its own.
    out : folder, new or empty; default `scenario.out`, else `outputs/sweeps/<time>-<hash>`.

    Raises
    ------
    InputError : every problem of every job.

    Examples
    --------
    >>> import tempfile
    >>> from sim import load_scenario
    >>> scenario = load_scenario("peer_w3", ["horizon=5s"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = sweep(scenario, {"router": ["random", "least_kv"], "seed": [1, 2]}, out=f"{folder}/all")
    ...     [(row["router"], row["seed"], row["status"]) for row in found.rows]
    [('random', 1, 'ok'), ('random', 2, 'ok'), ('least_kv', 1, 'ok'), ('least_kv', 2, 'ok')]
    """
    problems = Problems()
    base = scenario if replications is None else replace(scenario, replications=replications)
    for key, given in values.items():
        problems.check(len(given) > 0, key, list(given), "has no value", "at least one")
    problems.check(workers >= 1, "workers", workers, "is out of range", ">= 1")
    settings = _combinations(values, problems)
    scenarios = read_jobs(settings, lambda number: _made(base, settings[number]), problems)
    problems.raise_if_any()
    shown = [{key: plain_value(value) for key, value in job.items()} for job in settings]
    carried = carried_by(scenarios)

    def launch(plan: Plan, folder: Path) -> None:
        for _ in run_all(partial(_run, folder), plan.jobs, min(workers, len(plan.jobs)), carried):
            pass

    folder = Path(out or scenario.out or default_folder(scenarios))
    unnamed = [replace(made, out="") for made in scenarios]
    return run_jobs(unnamed, shown, folder.absolute(), carried.plugins, launch)


def _combinations(values: Mapping[str, Sequence[Any]], problems: Problems) -> list[dict[str, Any]]:
    count = 1
    for given in values.values():
        count *= len(given)
    if not check_count(count, problems):
        return []
    return [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]


def check_count(count: int, problems: Problems) -> bool:
    """Check that a sweep has no more jobs than it may have."""
    return problems.check(count <= MOST_JOBS, "sweep", count, "has too many jobs", f"at most {MOST_JOBS:,}")


def _made(base: Scenario, settings: Settings) -> Scenario:
    problems = Problems()
    made = with_settings(base, settings, problems)
    try:
        made = check(made)
    except InputError as error:
        problems.found += error.problems
    problems.raise_if_any()
    return made


def _run(folder: Path, job: Job) -> str:
    return str(run_job(folder, job)["status"])


def default_folder(scenarios: Sequence[Scenario]) -> Path:
    """Return `outputs/sweeps/<time>-<hash>`, the time to the microsecond, so that folders cannot collide."""
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    digest = sha256("".join(scenario.digest() for scenario in scenarios).encode()).hexdigest()[:12]
    return Path("outputs") / "sweeps" / f"{now}-{digest}"


def read_jobs(settings: Sequence[Settings], make: Callable[[int], Scenario], problems: Problems) -> list[Scenario]:
    """Return the scenarios of all jobs; a problem that several have is added once, and says which have it.

    Parameters
    ----------
    settings : what is swept, one a job. make : returns the scenario of a job by its number, or raises InputError.
    """
    by_job: dict[str, tuple[Problem, list[int]]] = {}
    scenarios = []
    for number in range(len(settings)):
        try:
            scenarios.append(make(number))
        except InputError as error:
            for problem in error.problems:
                by_job.setdefault(str(problem), (problem, []))[1].append(number)
    problems.found += [_of_jobs(problem, numbers, settings) for problem, numbers in by_job.values()]
    return scenarios


def _of_jobs(problem: Problem, numbers: list[int], settings: Sequence[Settings]) -> Problem:
    """Say in which jobs a problem is, unless it is in all of them."""
    if len(numbers) == len(settings):
        return problem
    first = ", ".join(f"{key}={value}" for key, value in settings[numbers[0]].items())
    where = f"job {numbers[0]}" if len(numbers) == 1 else f"{len(numbers)} of {len(settings)} jobs, the first"
    return replace(problem, message=f"{problem.message} (in {where}: {first})")


def run_jobs(
    scenarios: Sequence[Scenario],
    settings: Sequence[Settings],
    folder: Path,
    plugins: Sequence[str],
    launch: Callable[[Plan, Path], None],
) -> Collected:
    """Run every job of a sweep and collect the table; what fails is a row like the others.

    Parameters
    ----------
    scenarios : one a job, checked. settings : what was swept, one a job. folder : new or empty.
    plugins : files that register choices. launch : runs the jobs of a plan, in whatever processes.

    Raises
    ------
    InputError : the folder has something in it.
    KeyboardInterrupt : after the table was collected from the jobs that had finished.
    """
    plan = write_plan(folder, scenarios, settings, plugins)
    prepare_engines(scenarios)
    try:
        launch(plan, folder)
    finally:
        # Only a process that was killed leaves one of these.
        for partial_folder in folder.glob(".*.partial-*"):
            shutil.rmtree(partial_folder, ignore_errors=True)
        collected = collect(folder)
    return collected
