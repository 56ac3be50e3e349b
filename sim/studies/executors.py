"""Tasks one after another or in processes, with what a process must know before it can read a scenario."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from sim.control.world import ENGINES
from sim.registry import register
from sim.scenario.model import Scenario
from sim.studies.plugins import load_plugins, plugin_file

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Carried:
    """Choices from outside billcast that scenarios use.

    Parameters
    ----------
    plugins : files that register them. classes : registered classes of modules that can be imported, or of a notebook.
    """

    plugins: tuple[str, ...]
    classes: tuple[type[Any], ...]

    def adopt(self) -> None:
        """Make the choices known in this process."""
        load_plugins(self.plugins)
        for cls in self.classes:
            # A class of a notebook comes by value: unregistered, and with a copy of the sentinel for "no default".
            for item in fields(cls):
                item.default, item.default_factory = _sentinel(item.default), _sentinel(item.default_factory)
            register(cls.choice_group, cls.choice_name)(cls)


def _sentinel(value: Any) -> Any:
    return MISSING if isinstance(value, type(MISSING)) else value


def carried_by(scenarios: Iterable[Scenario]) -> Carried:
    """Return the choices from outside billcast in some scenarios."""
    found = {cls for scenario in scenarios for cls in _choices(scenario) if not cls.__module__.startswith("sim.")}
    ordered = sorted(found, key=lambda cls: (cls.choice_group, cls.choice_name))
    files = {cls: plugin_file(cls) for cls in ordered}
    plugins = dict.fromkeys(file for file in files.values() if file)
    return Carried(tuple(plugins), tuple(cls for cls in ordered if not files[cls]))


def _choices(value: Any) -> Iterator[Any]:
    if is_dataclass(value) and not isinstance(value, type):
        if hasattr(value, "choice_name"):
            yield type(value)
        for item in fields(value):
            yield from _choices(getattr(value, item.name))
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _choices(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _choices(inner)


def prepare_engines(scenarios: Iterable[Scenario]) -> None:
    """Load the engines of scenarios; that compiles their kernel where needed: once and here, not in every process at a time."""
    for engine in {scenario.engine for scenario in scenarios}:
        ENGINES[engine]()


def cores() -> int:
    """Return how many processes this machine can run at a time."""
    from joblib import cpu_count

    return int(cpu_count())


def run_all(task: Callable[[T], R], items: Iterable[T], workers: int, carried: Carried) -> Iterator[R]:
    """Yield the result of a task for each item: in order by one worker, in this process; as they come by several processes.

    Parameters
    ----------
    task : a function of a module, or a partial of one. workers : how many run at a time; no more items than that are under way.

    Raises
    ------
    what a task raises; the other processes are stopped then, as by Ctrl-C.
    """
    if workers == 1:
        yield from map(task, items)
        return
    from joblib import Parallel, delayed

    parallel = Parallel(n_jobs=workers, backend="loky", batch_size=1, pre_dispatch="n_jobs", return_as="generator_unordered")
    yield from parallel(delayed(_elsewhere)(Path.cwd(), carried, task, item) for item in items)


def _elsewhere(folder: Path, carried: Carried, task: Callable[[T], R], item: T) -> R:
    os.chdir(folder)  # a process that is used again may have begun somewhere else
    carried.adopt()
    return task(item)
