"""The jobs of a sweep on disk: a plan, a folder for each job, and how each one ended.

Every job is run on its own and leaves `status.json`, and `error.txt` with the traceback where it failed; what goes wrong in one job
loses nothing of another.
"""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sim.errors import InputError, Problem, Problems
from sim.interrupts import stoppable
from sim.scenario.model import Scenario
from sim.scenario.plain import scenario_from_plain
from sim.studies.replicate import run_scenario

PLAN, SCENARIOS, STATUS, ERROR = "sweep.json", "scenarios.jsonl", "status.json", "error.txt"
OK, FAILED, NOT_RUN = "ok", "failed", "not run"
PLAN_VERSION = 1


@dataclass(frozen=True)
class Job:
    """One job of a sweep.

    Parameters
    ----------
    number : its place in the sweep. folder : name of its folder, unique by its number. settings : what was swept -> its value here.
    """

    number: int
    folder: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Plan:
    """A sweep before it runs.

    Parameters
    ----------
    jobs : in order. plugins : files that register choices, to be loaded in every process.
    """

    jobs: Sequence[Job]
    plugins: Sequence[str] = ()


def write_plan(folder: Path, scenarios: Sequence[Scenario], settings: Sequence[Mapping[str, Any]], plugins: Sequence[str]) -> Plan:
    """Write the plan of a sweep into its folder, which must be new or empty, and return it.

    Parameters
    ----------
    scenarios : one a job, checked. settings : what was swept, one a job. plugins : absolute paths of plug-in files.

    Raises
    ------
    InputError : the folder has something in it.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError([Problem("out", str(folder), "exists already and is not an empty folder", "a new or an empty folder")])
    folder.mkdir(parents=True, exist_ok=True)
    digits = max(len(str(len(scenarios) - 1)), 3)
    jobs = [
        Job(number, f"{number:0{digits}d}-{scenario.digest()}", dict(values))
        for number, (scenario, values) in enumerate(zip(scenarios, settings, strict=True))
    ]
    (folder / SCENARIOS).write_text("".join(json.dumps(scenario.to_dict()) + "\n" for scenario in scenarios), "utf-8")
    plan = {
        "version": PLAN_VERSION,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "plugins": list(plugins),
        "jobs": [vars(job) for job in jobs],
    }
    _write_json(folder / PLAN, plan)
    return Plan(jobs, tuple(plugins))


def is_sweep(folder: Path) -> bool:
    """Whether a folder holds a sweep."""
    return (folder / PLAN).is_file()


def read_plan(folder: Path) -> Plan:
    """Read the plan of a sweep.

    Raises
    ------
    InputError : the folder is not there or holds no sweep, or one of another version.
    """
    if not is_sweep(folder):
        what = f"is not a sweep: it has no {PLAN}" if folder.is_dir() else "is not a folder"
        raise InputError([Problem("sweep", str(folder), what, "a folder written by `billcast sweep`")])
    plan = json.loads((folder / PLAN).read_text("utf-8"))
    if plan.get("version") != PLAN_VERSION:
        raise InputError([Problem("sweep", str(folder), f"has a plan of version {plan.get('version')}", f"version {PLAN_VERSION}")])
    return Plan([Job(**job) for job in plan["jobs"]], tuple(plan["plugins"]))


def read_scenario_of(folder: Path, number: int) -> Scenario:
    """Return the scenario of a job."""
    with (folder / SCENARIOS).open(encoding="utf-8") as lines:
        line = next(text for place, text in enumerate(lines) if place == number)
    problems = Problems()
    scenario = scenario_from_plain(json.loads(line), problems)
    problems.raise_if_any()
    return scenario


def run_job(folder: Path, job: Job) -> dict[str, Any]:
    """Run one job into its folder and return its status; only an interrupt gets through.

    Parameters
    ----------
    folder : of the sweep.
    """
    target, began = folder / job.folder, time.perf_counter()
    error = ""
    try:
        with stoppable():
            run_scenario(read_scenario_of(folder, job.number), target)
    except Exception as found:
        error = f"{type(found).__name__}: {found}".splitlines()[0]
        target.mkdir(exist_ok=True)
        if not any((target / name).exists() for name in (STATUS, ERROR)):
            (target / ERROR).write_text(traceback.format_exc(), "utf-8")
    status = {
        "number": job.number,
        "status": FAILED if error else OK,
        "error": error,
        "settings": dict(job.settings),
        "wall_s": time.perf_counter() - began,
    }
    # A job that was run before keeps what it said then: nothing is ever overwritten.
    if not (target / STATUS).exists():
        _write_json(target / STATUS, status)
    return status


def read_status(folder: Path, job: Job) -> dict[str, Any]:
    """Return how a job ended; one that did not is "not run"."""
    file = folder / job.folder / STATUS
    if not file.is_file():
        return {"number": job.number, "status": NOT_RUN, "error": "", "settings": dict(job.settings), "wall_s": None}
    status: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return status


def _write_json(file: Path, content: object) -> None:
    """Write a file whole or not at all."""
    partial = file.with_name(f".{file.name}.partial-{os.getpid()}")
    partial.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    partial.replace(file)
