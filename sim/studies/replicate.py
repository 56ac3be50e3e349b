"""A scenario run several times, each time with random streams of its own."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from sim.errors import InputError, Problems
from sim.interrupts import stoppable
from sim.results.records import MANIFEST, SUMMARY, RunResult, out_problem
from sim.results.replications import Replications, folder_of, open_replications, summarize, write_table
from sim.scenario.check import check
from sim.scenario.model import Scenario
from sim.scenario.plain import scenario_from_plain
from sim.schema import SCHEMA_VERSION
from sim.studies.executors import carried_by, cores, prepare_engines, run_all
from sim.studies.provenance import provenance
from sim.studies.runner import default_folder, simulate


def replicate(
    scenario: Scenario,
    n: int | None = None,
    *,
    workers: int | None = None,
    out: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Replications:
    """Run replications of a scenario and write their folder, whole or not at all.

    Replications of one number and seed have the same arrivals in every scenario with the same workload, whatever its policies do.
    The result is the same to the byte with any number of workers.

    Parameters
    ----------
    n : how many; default `scenario.replications`. They are numbered from `scenario.replication` on.
    workers : processes; default `scenario.workers`, else one a core. One worker is this process.
    out : folder, new or empty; default `scenario.out`, else `outputs/<name>/<time>-<hash>`.
    progress : called with how many are done, and of how many.

    Raises
    ------
    InputError : the scenario cannot be simulated; holds every problem found.

    Examples
    --------
    >>> import tempfile
    >>> from sim import load_scenario
    >>> scenario = load_scenario("bench_chat8", ["horizon=10s"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = replicate(scenario, 2, workers=1, out=f"{folder}/runs")
    ...     found.run(1).manifest["replication"]
    1
    """
    count = scenario.replications if n is None else n
    chosen = check(replace(scenario, replications=count, workers=scenario.workers if workers is None else workers))
    numbers = list(range(chosen.replication, chosen.replication + chosen.replications))
    began, target = time.perf_counter(), Path(out or chosen.out or default_folder(chosen))
    with whole_folder(target) as folder:
        _run_all(chosen, numbers, folder, progress)
        manifest = {
            **provenance(),
            "scenario": chosen.to_dict(),
            "scenario_hash": chosen.digest(),
            "seed": chosen.seed,
            "replication": chosen.replication,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "wall_s": time.perf_counter() - began,
            "schema_version": SCHEMA_VERSION,
        }
        summary = summarize(folder, numbers, write_table(folder, numbers), manifest)
        for name, content in ((SUMMARY, summary), (MANIFEST, manifest)):
            (folder / name).write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", "utf-8")
    return open_replications(target)


def run_scenario(scenario: Scenario, out: Path) -> RunResult | Replications:
    """Run a job of a sweep: one run, or its replications one after another unless the scenario says how many workers."""
    if scenario.replications == 1:
        return simulate(scenario, out=out)
    return replicate(scenario, workers=scenario.workers or 1, out=out)


def _run_all(scenario: Scenario, numbers: list[int], folder: Path, progress: Callable[[int, int], None] | None) -> None:
    prepare_engines([scenario])
    workers = min(scenario.workers or cores(), len(numbers))
    task = partial(_run_one, scenario.to_dict(), folder)
    if progress is not None:
        progress(0, len(numbers))
    for done, _ in enumerate(run_all(task, numbers, workers, carried_by([scenario])), start=1):
        if progress is not None:
            progress(done, len(numbers))


def _run_one(plain: Mapping[str, Any], folder: Path, number: int) -> int:
    """Run one replication, in whatever process, and return its number."""
    problems = Problems()
    scenario = scenario_from_plain(plain, problems)
    problems.raise_if_any()
    one = replace(scenario, replication=number, replications=1, workers=None, out="")
    with stoppable():
        simulate(one, out=folder / folder_of(number)).close()
    return number


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Yield a folder beside `target` that is renamed to it at the end, or removed after an error.

    Raises
    ------
    InputError : the target is a file, holds something already, or cannot be replaced.
    """
    problem = out_problem(target)
    if problem is not None:
        raise InputError([problem])
    home = target.absolute().parent
    made = [folder for folder in (home, *home.parents) if not folder.exists()]
    partly = home / f".{target.name}.partial-{os.getpid()}"
    try:
        shutil.rmtree(partly, ignore_errors=True)  # left by a killed process that had this number
        partly.mkdir(parents=True)
        yield partly
        if target.exists():
            target.rmdir()
        partly.rename(target)
    except BaseException:
        shutil.rmtree(partly, ignore_errors=True)
        for folder in made:
            if not folder.is_dir() or any(folder.iterdir()):
                break
            folder.rmdir()
        raise
