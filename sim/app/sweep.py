"""Sweeps: what is swept becomes jobs, all of them are checked, and Hydra's launchers run them.

Hydra sees one swept key, the number of the job: which scenario that is was decided, read and checked before, so that a short key
means the same in a sweep as in a run and nothing is launched that cannot be simulated.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from sim.app.conf import checked, options_of, scenario_reader
from sim.app.overrides import Variants, read_variants
from sim.errors import Problems
from sim.scenario import Scenario
from sim.studies.collect import Collected
from sim.studies.jobs import OK, Plan, read_plan, run_job
from sim.studies.plugins import load_plugins
from sim.studies.sweep import check_count, default_folder, read_jobs, run_jobs
from sim.units import seconds_text

ROOT = "billcast_sweep"
LAUNCHER_KEYS = ("hydra.", "hydra/")


@dataclass(frozen=True)
class Sweep:
    """A sweep that can run: every job of it is checked.

    Parameters
    ----------
    scenarios : one a job. settings : what was swept and its value, one a job. launcher : settings of Hydra.
    out : the folder.
    """

    scenarios: Sequence[Scenario]
    settings: Sequence[Mapping[str, Any]]
    launcher: Sequence[str]
    out: Path


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
        settings = [swept for _, swept in jobs]
        scenarios = read_jobs(settings, lambda number: checked(read, jobs[number][0]).scenario, problems)
    _check_launcher(launcher, problems)
    folders = {scenario.out for scenario in scenarios}
    problems.check(len(folders) <= 1, "out", ", ".join(sorted(folders)), "names several folders", "one, for the whole sweep")
    problems.raise_if_any()
    out = next(iter(folders), "")
    unnamed = [replace(scenario, out="") for scenario in scenarios]
    return Sweep(unnamed, settings, launcher, Path(out) if out else default_folder(unnamed))


def _combinations(variants: Sequence[Variants], problems: Problems) -> list[tuple[list[str], dict[str, Any]]]:
    """Return the settings of each job: all as texts, and those that are swept with their values."""
    count = 1
    for variant in variants:
        count *= len(variant.texts)
    swept = [variant for variant in variants if len(variant.texts) > 1]
    if not check_count(count, problems):
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


def run_sweep(sweep: Sweep, plugins: Sequence[str] = ()) -> Collected:
    """Run every job of a sweep with its launcher and collect the table; what fails is a row like the others.

    Parameters
    ----------
    plugins : files that register choices, which every process loads.

    Raises
    ------
    InputError : the folder has something in it.
    KeyboardInterrupt : after the table was collected from the jobs that had finished.
    """

    def launch(plan: Plan, folder: Path) -> None:
        try:
            _launch(plan, folder, sweep.launcher)
        finally:
            (folder / "multirun.yaml").unlink(missing_ok=True)

    files = [str(Path(file).resolve()) for file in plugins]
    return run_jobs(sweep.scenarios, sweep.settings, sweep.out, files, launch)


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
