"""The edge between Hydra and the scenario: the only file that knows Hydra.

Hydra composes YAML files into plain data; every value of it, and of the overrides, is then read into the dataclasses by
`sim.scenario.plain`, so that all problems of files and of the command line come out together and a notebook and the command line
build the same object.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sim
from sim.app.overrides import Overrides, read_overrides
from sim.errors import InputError, Problem, Problems
from sim.registry import groups, names
from sim.results.records import out_problem
from sim.scenario import Scenario
from sim.scenario.check import check
from sim.scenario.edits import Edit, apply_edits
from sim.scenario.plain import CHOICE, import_choices, places, scenario_from_plain

ROOT = "config"
SCENARIO = "scenario"
DEFAULT_SCENARIO = "quickstart"
COMMAND_LINE = "command line"


@dataclass(frozen=True)
class Reading:
    """A scenario as read: as much of it as could be, and what was wrong.

    Parameters
    ----------
    sources : path of a value -> the file or the setting it comes from; a path that is not there stands at its default.
    """

    scenario: Scenario
    problems: Problems
    sources: dict[str, str]


Reader = Callable[[str, Sequence[str]], Reading]


@dataclass(frozen=True)
class _Composed:
    """What Hydra made of files: the data as written and with references followed, options of groups, files of values."""

    written: dict[str, Any]
    plain: dict[str, Any]
    choices: dict[str, str]
    sources: dict[str, str]


def config_dir() -> Path:
    """Return the folder of the configs: inside the package in a wheel, beside it in a checkout.

    Examples
    --------
    >>> (config_dir() / "scenario" / "quickstart.yaml").is_file()
    True
    """
    package = Path(sim.__file__).resolve().parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def load_scenario(name: str = DEFAULT_SCENARIO, overrides: Sequence[str] = (), config_dir: str | Path | None = None) -> Scenario:
    """Compose a scenario from its file and overrides, the same as `billcast run scenario=NAME KEY=VALUE ...`.

    Parameters
    ----------
    name : a file of `configs/scenario/`, without its ending.
    overrides : settings as on the command line; a short key is expanded to the one place it can mean.
    config_dir : a folder with configs of one's own, searched before the package's.

    Raises
    ------
    InputError : every unknown key, wrong type or unknown choice, in files and overrides, at once. Values are checked against each
        other and the catalog by `sim.scenario.check.check`, which a run does by itself.

    Examples
    --------
    >>> load_scenario("quickstart", ["horizon=1h", "router=random"]).horizon
    '1h'
    """
    reading = read_scenario(name, overrides, config_dir)
    reading.problems.raise_if_any()
    return reading.scenario


def read_scenario(name: str = DEFAULT_SCENARIO, overrides: Sequence[str] = (), config_dir: str | Path | None = None) -> Reading:
    """Compose a scenario and collect what is wrong instead of raising; parameters as `load_scenario`.

    Raises
    ------
    InputError : nothing can be composed: no such scenario, or a file that is not YAML.
    """
    with scenario_reader(config_dir) as read:
        return read(name, overrides)


@contextmanager
def scenario_reader(config_dir: str | Path | None = None) -> Iterator[Reader]:
    """Yield `read_scenario` for many scenarios of one folder: what is alike in them is composed once (for sweeps)."""
    import_choices()
    composed: dict[tuple[str, ...], _Composed] = {}
    folder = None if config_dir is None else Path(config_dir).expanduser().resolve()
    with _hydra(config_dir):

        def read(name: str, overrides: Sequence[str]) -> Reading:
            def compose(scenario: str, selections: Sequence[str]) -> _Composed:
                key = (f"{SCENARIO}={scenario}", *selections)
                if key not in composed:
                    composed[key] = _compose(list(key), scenario, folder)
                return composed[key]

            return _read(name, overrides, compose)

        yield read


def _read(name: str, overrides: Sequence[str], compose: Callable[[str, Sequence[str]], _Composed]) -> Reading:
    problems = Problems()
    given = read_overrides(overrides, problems)
    chosen = given.take(SCENARIO) or name
    if not _check_option(SCENARIO, SCENARIO, chosen, problems):
        raise InputError(problems.found)
    made = compose(chosen, [])
    selections = _selections(given, scenario_from_plain(made.plain, Problems()), made.choices, problems)
    if selections:
        made = compose(chosen, selections)
    plain = deepcopy(made.plain)
    draft = scenario_from_plain(plain, Problems())
    edited = apply_edits(plain, _value_edits(given), draft, problems)
    plain = _followed(made.written, plain, edited)
    sources = dict(made.sources)
    for selection in selections:
        sources[f"{selection.partition('@')[2].partition('=')[0]}.{CHOICE}"] = COMMAND_LINE
    for path in edited:
        for inner in [known for known in sources if known.startswith(f"{path}.")]:
            del sources[inner]
        sources[path] = COMMAND_LINE
    return Reading(scenario_from_plain(plain, problems), problems, sources)


def _followed(written: dict[str, Any], plain: dict[str, Any], edited: Sequence[str]) -> dict[str, Any]:
    """Let values that refer to others (`${...}` in a file) follow what the command line has set.

    Parameters
    ----------
    written : the data as the files have it. plain : with references followed and edits made. edited : paths of the edits.
    """
    if "${" not in json.dumps(written):
        return plain
    from omegaconf import OmegaConf

    merged = deepcopy(written)
    for path in edited:
        here: Any = merged
        there: Any = plain
        *parents, last = path.split(".")
        for part in parents:
            here, there, key = _inside(here, there, part)
            # Where a part of a referring value is set, the rest of it stands as it was.
            if not isinstance(here[key], dict | list):
                here[key] = deepcopy(there[key])
            here, there = here[key], there[key]
        here, there, key = _inside(here, there, last)
        here[key] = there[key]
    followed: dict[str, Any] = OmegaConf.to_container(OmegaConf.create(merged), resolve=True)  # type: ignore[assignment]
    return followed


def _inside(here: Any, there: Any, part: str) -> tuple[Any, Any, Any]:
    """Return both containers with the key of a part in them, which is there afterwards."""
    if isinstance(here, list):
        return here, there, int(part)
    here.setdefault(part, deepcopy(there[part]))
    return here, there, part


def checked(read: Reader, overrides: Sequence[str]) -> Reading:
    """Read a scenario and check it, with the problems of both together.

    Parameters
    ----------
    read : from `scenario_reader`.

    Raises
    ------
    InputError : everything that is wrong.
    """
    reading = read(DEFAULT_SCENARIO, overrides)
    found = list(reading.problems.found)
    try:
        scenario = check(reading.scenario)
    except InputError as error:
        # What could not be read stands at its default, about which nothing need be said.
        found += [problem for problem in error.problems if not any(_overlap(problem.path, known.path) for known in found)]
    taken = out_problem(reading.scenario.out) if reading.scenario.out else None
    if taken is not None:
        found.append(taken)
    if found:
        raise InputError(found)
    return replace(reading, scenario=scenario)


def _overlap(one: str, other: str) -> bool:
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def scenario_names(config_dir: str | Path | None = None) -> list[str]:
    """Return the names of all scenarios."""
    with _hydra(config_dir):
        return options_of(SCENARIO)


@contextmanager
def _hydra(user_dir: str | Path | None) -> Iterator[None]:
    """Initialise Hydra for one composition, so that it works any number of times in one process."""
    from hydra import initialize_config_dir  # 0.2 s: not for `--help`
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    # The root is no file, so that a folder of one's own needs none and can come before the package's.
    store.store(name=ROOT, node={"defaults": [{SCENARIO: DEFAULT_SCENARIO}, "_self_"]}, provider="billcast")
    for group in groups():
        for name in names(group):
            store.store(group=group, name=name, node={CHOICE: name}, provider="billcast")
    folder = config_dir() if user_dir is None else Path(user_dir).expanduser().resolve()
    if not folder.is_dir():
        raise InputError([Problem("config_dir", str(user_dir), "is not a folder")])
    with initialize_config_dir(config_dir=str(folder), version_base="1.3"):
        yield


def _compose(overrides: list[str], scenario: str, user_dir: Path | None) -> _Composed:
    """Compose files; a value's file is the last one that sets it, as in the composition itself."""
    import yaml
    from hydra import compose
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    overrides = [f"hydra.searchpath=['file://{config_dir()}']", *overrides]
    try:
        composed = compose(ROOT, overrides=overrides, return_hydra_config=True)
        choices = {str(key): str(value) for key, value in composed.hydra.runtime.choices.items()}
        content: Any = OmegaConf.to_container(composed, resolve=False)
        content.pop("hydra")
        plain: Any = OmegaConf.to_container(OmegaConf.create(content), resolve=True)
        sources = _sources(overrides, user_dir)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise InputError([Problem(SCENARIO, scenario, f"its files cannot be composed: {_first_lines(error)}")]) from error
    return _Composed(content, plain, choices, sources)


def _sources(overrides: list[str], user_dir: Path | None) -> dict[str, str]:
    """Return the file of each value, or the registered name that stands for a choice, in the order in which Hydra merges them."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    loader = GlobalHydra.instance().config_loader()
    found: dict[str, str] = {}
    for default in loader.compute_defaults_list(ROOT, overrides, RunMode.RUN).defaults:
        name = f"{default.config_path}.yaml"
        file = next((folder / name for folder in (user_dir, config_dir()) if folder and (folder / name).is_file()), None)
        if file is not None:
            content: Any = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
            content.pop("defaults", None)
            found |= dict.fromkeys(_paths(content, default.package or ""), str(default.config_path))
        elif default.package and not str(default.config_path).startswith("hydra"):
            found[f"{default.package}.{CHOICE}"] = str(default.config_path)
    return found


def _paths(content: Any, path: str) -> Iterator[str]:
    """Yield the paths of values; a list is one value."""
    if isinstance(content, dict) and content:
        for key, item in content.items():
            yield from _paths(item, f"{path}.{key}" if path else str(key))
    elif path:
        yield path


def _first_lines(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3]) or type(error).__name__


def options_of(group: str) -> list[str]:
    """Return the names one can choose in a group: registered classes and files; only inside `scenario_reader`."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.object_type import ObjectType

    loader = GlobalHydra.instance().config_loader()
    found = set(loader.get_group_options(group, ObjectType.CONFIG))
    inner = config_dir() / group
    return sorted(found | {file.stem for file in inner.glob("*.yaml")})


def _check_option(key: str, group: str, option: object, problems: Problems) -> bool:
    options = options_of(group)
    return problems.check(option in options, key, option, f"is no {group}", choices=options)


def _selections(given: Overrides, draft: Scenario, choices: dict[str, str], problems: Problems) -> list[str]:
    """Return the overrides that choose an option of a group, each spelled with its full place for Hydra."""
    where = {place.path: place.group for place in places(draft) if place.group}
    selections = []
    for edit in given.edits:
        group, at = _chooses(edit, where, problems)
        if not group:
            continue
        given.chosen.append(edit)
        if at and _check_option(edit.key, group, edit.value, problems):
            key = f"{group}@{at}"
            selections.append(f"{'' if key in choices else '+'}{key}={edit.value}")
    return selections


def _chooses(edit: Edit, where: dict[str, str], problems: Problems) -> tuple[str, str]:
    """Return the group and the place an override chooses for; ("", "") for one that sets a value, no place after a problem."""
    group, _, package = edit.key.partition("@")
    if package:
        if where.get(package) == group:
            return group, package
        problems.add(edit.key, edit.value, "is not a place of this scenario", choices=[f"{of}@{at}" for at, of in where.items()])
        return group, ""
    if isinstance(edit.value, str):
        if edit.key in where:
            return where[edit.key], edit.key
        found = [at for at in where if at.endswith(f".{edit.key}")]
        if len(found) == 1:
            return where[found[0]], found[0]
        if found:
            problems.add(edit.key, edit.value, "can mean several places; write one of them in full", ", ".join(found))
            return where[found[0]], ""
    return "", ""


def _value_edits(given: Overrides) -> list[Edit]:
    return [edit for edit in given.edits if edit not in given.chosen]
