"""The resolved scenario, value by value: what it is, in which unit, where it was set, whether it differs from the default."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import Any

from sim.quantities import units_of
from sim.scenario import Scenario
from sim.scenario.plain import CHOICE

DEFAULT = "default"
_INDEX = re.compile(r"\[([0-9]+)\]")


@dataclass(frozen=True)
class Setting:
    """One value of a scenario.

    Parameters
    ----------
    path : as one would set it. value : what it is. unit : from its name, "" where it has none or the value carries its own.
    source : "default", "command line", or the file it is from without its ending. changed : whether it differs from the default.
    """

    path: str
    value: Any
    unit: str
    source: str
    changed: bool


def settings(scenario: Scenario, sources: Mapping[str, str]) -> list[Setting]:
    """Return every value of a scenario in the order of its fields.

    Parameters
    ----------
    sources : path -> where the value was set (`sim.app.conf.Reading`); the default of its dataclass otherwise.

    Examples
    --------
    >>> [row.source for row in settings(Scenario(seed=7), {"seed": "command line"}) if row.path in ("horizon", "seed")]
    ['default', 'command line']
    """
    return list(_walk(scenario, Scenario(), "", sources))


def _walk(value: Any, default: Any, path: str, sources: Mapping[str, str]) -> Iterator[Setting]:
    if is_dataclass(value) and not isinstance(value, type):
        yield from _walk_fields(value, default, path, sources)
    elif isinstance(value, dict) and value:
        for name, item in value.items():
            # What has a name of its own is compared with a fresh one of its kind; a choice (a tap) was made by whoever named it.
            yield from _walk(item, None if hasattr(item, "choice_name") else _fresh(item), _join(path, str(name)), sources)
    elif isinstance(value, list) and value and is_dataclass(value[0]):
        for index, item in enumerate(value):
            yield from _walk(item, _fresh(item), f"{path}[{index}]", sources)
    else:
        unit = units_of(path.rpartition(".")[2])[0]
        yield Setting(path, value, unit, _source(path, sources), value != default)


def _walk_fields(value: Any, default: Any, path: str, sources: Mapping[str, str]) -> Iterator[Setting]:
    if hasattr(value, "choice_name"):
        changed = type(value) is not type(default)
        yield Setting(path, value.choice_name, "", _source(f"{path}.{CHOICE}", sources), changed)
    defaults = default if type(default) is type(value) else _fresh(value)
    for item in fields(value):
        other = _default_of(item) if defaults is None else getattr(defaults, item.name)
        where, mine = _join(path, item.name), getattr(value, item.name)
        # A group of which one value is set takes its others from its own class, not from whoever holds it.
        if is_dataclass(mine) and any(source.startswith(f"{where}.") for source in sources):
            other = other if hasattr(mine, "choice_name") else _fresh(mine)
        yield from _walk(mine, other, where, sources)


def _fresh(value: Any) -> Any:
    """Return a new one of a dataclass with its defaults; None for anything else, or where a field has no default."""
    if not is_dataclass(value) or isinstance(value, type):
        return None
    needed = any(item.default is MISSING and item.default_factory is MISSING for item in fields(value) if item.init)
    return None if needed else type(value)()


def _default_of(item: Field[Any]) -> Any:
    if item.default_factory is not MISSING:
        return item.default_factory()
    return None if item.default is MISSING else item.default


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _source(path: str, sources: Mapping[str, str]) -> str:
    """Return where a value was set: at its own path, or with the list or group it is part of; an element set last counts."""
    dotted = _INDEX.sub(r".\1", path)
    while dotted:
        if dotted in sources:
            return sources[dotted]
        dotted = dotted.rpartition(".")[0]
    return DEFAULT
