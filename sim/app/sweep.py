"""Sweeps: what is swept becomes jobs, all of them are checked, and Hydra's launchers run them.

Hydra sees one swept key, the number of the job: which scenario that is was decided, read and checked before, so that a short key
means the same in a sweep as in a run and nothing is launched that cannot be simulated.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any

from sim.app.conf import checked, options_of, scenario_reader
from sim.app.overrides import Variants, read_variants
from sim.studies.plugins import load_plugins
from sim.control.world import ENGINES
from sim.errors import InputError, Problem, Problems
from sim.scenario import Scenario
from sim.studies.collect import Collected, collect
from sim.studies.jobs import OK, Plan, read_plan, run_job, write_plan
from sim.units import seconds_text

MOST_JOBS = 10_000
ROOT = "billcast_sweep"
LAUNCHER_KEYS = ("hydra.", "hydra/")


@dataclass(frozen=True)
class Sweep:
    """A sweep that can run: every job of it is checked.

    Parameters
    ----------
    scenarios : one a job. settings : what was swept and its value, one a job. launcher : settings of Hydra.
    out : the folder, where one was named.
    """

    scenarios: Sequence[Scenario]
    settings: Sequence[Mapping[str, Any]]
    launcher: Sequence[str]
    out: Path | None = None

    @property
    def default_folder(self) -> Path:
        """`outputs/sweeps/<time>-<hash>`, the time to the microsecond, so that folders cannot collide."""
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        digest = sha256("".join(scenario.digest() for scenario in self.scenarios).encode()).hexdigest()[:12]
        return Path("outputs") / "sweeps" / f"{now}-{digest}"


def read_sweep(overrides: Sequence[str], config_dir: str | Path | None = None) -> Sweep:
    """Read a sweep: every combination of `key=a,b,c` is a job; the last key changes fastest.

    Parameters
    ----------
    overrides : settings as of a run, of which some have several values, and settings of Hydra's launcher (`hydra/launcher=joblib`).

    Raises
    ------
    InputError : every problem of every job, and of the launcher, at once.
    """
    launcher = [text for text in overrides if text.startswith(LAUNCHER_KEYS)]
    problems = Problems()
    with scenario_reader(config_dir) as read:
        variants = read_variants([text for text in overrides if text not in launcher], options_of, problems)
        jobs = _combinations(variants, problems)
        by_job: dict[str, tuple[Problem, list[int]]] = {}
        scenarios = []
        for number, (texts, _) in enumerate(jobs):
            try:
                scenarios.append(checked(read, texts).scenario)
            except InputError as error:
                for problem in error.problems:
                    by_job.setdefault(str(problem), (problem, []))[1].append(number)
    _check_launcher(launcher, problems)
    problems.found += [_of_jobs(problem, numbers, jobs) for problem, numbers in by_job.values()]
    folders = {scenario.out for scenario in scenarios}
    problems.check(len(folders) <= 1, "out", ", ".join(sorted(folders)), "names several folders", "one, for the whole sweep")
    problems.raise_if_any()
    out = next(iter(folders), "")
    unnamed = [replace(scenario, out="") for scenario in scenarios]
    return Sweep(unnamed, [settings for _, settings in jobs], launcher, Path(out) if out else None)


def _combinations(variants: Sequence[Variants], problems: Problems) -> list[tuple[list[str], dict[str, Any]]]:
    """Return the settings of each job: all as texts, and those that are swept with their values."""
    count = 1
    for variant in variants:
        count *= len(variant.texts)
    swept = [variant for variant in variants if len(variant.texts) > 1]
    if not problems.check(count <= MOST_JOBS, "sweep", count, "has too many jobs", f"at most {MOST_JOBS:,}"):
        return []
    keys = [variant.key for variant in swept]
    for key in {key for key in keys if keys.count(key) > 1}:
        problems.add(key, "", "is swept twice", "each key once")
    return [
        (list(texts), {variant.key: value for variant, value in zip(variants, values, strict=True) if variant in swept})
        for texts, values in zip(
            product(*(variant.texts for variant in variants)), product(*(variant.values for variant in variants)), strict=True
        )
    ]


def _of_jobs(problem: Problem, numbers: list[int], jobs: Sequence[tuple[list[str], dict[str, Any]]]) -> Problem:
    """Say in which jobs a problem is, unless it is in all of them."""
    if len(numbers) == len(jobs):
        return problem
    first = ", ".join(f"{key}={value}" for key, value in jobs[numbers[0]][1].items())
    where = f"job {numbers[0]}" if len(numbers) == 1 else f"{len(numbers)} of {len(jobs)} jobs, the first"
    return replace(problem, message=f"{problem.message} (in {where}: {first})")


def run_sweep(sweep: Sweep, folder: Path, plugins: Sequence[str] = ()) -> Collected:
    """Run every job of a sweep and collect the table; what fails is a row like the others.

    Parameters
    ----------
    folder : new or empty. plugins : files that register choices, which every process loads.

    Raises
    ------
    InputError : the folder has something in it.
    KeyboardInterrupt : after the table was collected from the jobs that had finished.
    """
    plan = write_plan(folder, sweep.scenarios, sweep.settings, [str(Path(file).resolve()) for file in plugins])
    # Loading an engine compiles its kernel where that is needed: once and here, not in every process at the same time.
    for engine in {scenario.engine for scenario in sweep.scenarios}:
        ENGINES[engine]()
    try:
        _launch(plan, folder, sweep.launcher)
    finally:
        # Only a process that was killed leaves one of these.
        for partial in folder.glob(".*.partial-*"):
            shutil.rmtree(partial, ignore_errors=True)
        (folder / "multirun.yaml").unlink(missing_ok=True)
        collected = collect(folder)
    return collected


def task(config: Any) -> None:
    """Run the job that Hydra hands over, in whatever process; never raises but for an interrupt."""
    folder = Path(config.folder)
    plan = read_plan(folder)
    load_plugins(plan.plugins)
    job = next(job for job in plan.jobs if job.folder == config.job)
    status = run_job(folder, job)
    if sys.stderr.isatty():
        settings = ", ".join(f"{key}={value}" for key, value in job.settings.items())
        print(f"job {job.number}: {status['status']} after {seconds_text(status['wall_s'])}  {settings}", file=sys.stderr)


def _launch(plan: Plan, folder: Path, launcher: Sequence[str]) -> None:
    from hydra import main

    _store_root(str(folder.resolve()))
    jobs = ",".join(f"'{job.folder}'" for job in plan.jobs)
    with _arguments(["billcast", "--multirun", f"job={jobs}", *launcher]):
        main(config_path=None, config_name=ROOT, version_base="1.3")(task)()


def _store_root(folder: str) -> None:
    """Tell Hydra what to run: one folder for each job, nothing of its own beside."""
    from hydra.core.config_store import ConfigStore

    quiet = [{f"override hydra/{kind}_logging": "disabled"} for kind in ("job", "hydra")]
    node = {
        "defaults": [*quiet, "_self_"],
        "job": "",
        "folder": folder.replace("${", "\\${"),
        "hydra": {"output_subdir": None, "sweep": {"dir": "${folder}", "subdir": "${job}"}, "job": {"chdir": False}},
    }
    ConfigStore.instance().store(name=ROOT, node=node, provider="billcast")


def _check_launcher(overrides: Sequence[str], problems: Problems) -> None:
    """Compose Hydra's own settings, so that a wrong one is found before any job runs."""
    from hydra import compose, initialize
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    _store_root("")
    with initialize(config_path=None, version_base="1.3"):
        for text in overrides:
            key, _, value = text.partition("=")
            # A launcher's own settings are known only together with it.
            chosen = [other for other in overrides if other.startswith("hydra/") and other != text]
            try:
                compose(ROOT, overrides=[*chosen, text], return_hydra_config=True)
            except (HydraException, OmegaConfBaseException) as error:
                lines = [line.strip() for line in str(error).splitlines() if line.strip()]
                problems.add(key, value, " ".join(lines[:2]), "a setting of Hydra, for instance hydra/launcher=joblib")


@contextmanager
def _arguments(words: list[str]) -> Iterator[None]:
    """Let Hydra read these words as its command line, and raise instead of printing what went wrong."""
    before, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv, os.environ["HYDRA_FULL_ERROR"] = words, "1"
    try:
        yield
    finally:
        sys.argv = before
        if full is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full


def all_ok(collected: Collected) -> bool:
    """Whether every job of a sweep finished."""
    return all(row["status"] == OK for row in collected.rows)
