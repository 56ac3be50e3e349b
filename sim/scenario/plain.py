"""Plain data (YAML, a manifest, the command line) read into the scenario's dataclasses, with every problem found at once.

The dataclasses are the schema: their field names, types and defaults. A field typed by the base of a registered group
(`Workload`, `Router`, `Autoscaler`) takes the class named by the key `choice`, so that `Scenario.to_dict` reads back.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from fractions import Fraction
from functools import cache
from typing import Any, TypeVar

import sim.policies
import sim.workload
from sim.errors import Problem, Problems, nearest_name
from sim.quantities import decimal_text, quantity, units_of
from sim.registry import groups, names, registered
from sim.scenario.model import Scenario
from sim.units import NS_PER_S, NUMBER, duration_ns

# An index at the end of a path: elements of a list are in the unit of the list.
_FIELD = re.compile(r"(?:\[[0-9]+\])+$")
_A_NUMBER = re.compile(r"\s*\$?\s*[+-]?\.?[0-9]")
_BARE_NUMBER = re.compile(rf"[+-]?{NUMBER}")
_EXAMPLES = {
    "s": "seconds, or a duration such as 300ms",
    "USD/h": "dollars per hour, or such as 2.10 USD/h",
    "/s": "a number a second, or such as 14/s",
    "GB": "1e9 bytes, or such as 80 GiB",
    "GB/s": "1e9 bytes a second, or such as 10 Gbit/s",
    "": "a number, or a share such as 50%",
}
T = TypeVar("T")
CHOICE = "choice"
LARGEST = 1 << 63
_NOT_READ = object()


@dataclass(frozen=True)
class Place:
    """A value of a scenario by its dotted path; `group` is the group of a polymorphic one, else ""."""

    path: str
    group: str


@cache
def import_choices() -> None:
    """Import every module that registers choices, so that all names are known."""
    for package in (sim.policies, sim.workload):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)


def scenario_from_plain(plain: Mapping[str, Any], problems: Problems) -> Scenario:
    """Read a scenario; what cannot be read is added to `problems` and stays at its default.

    Parameters
    ----------
    plain : nested dictionaries, lists and scalars, keyed by field names.
    problems : the collector.

    Examples
    --------
    >>> problems = Problems()
    >>> scenario_from_plain({"seed": "one", "hroizon": "1h"}, problems).seed
    1
    >>> [problem.nearest for problem in problems.found]
    ['', 'horizon']
    """
    import_choices()
    scenario: Scenario = _read_dataclass(Scenario, plain, "", problems)
    return scenario


def dataclass_from_plain(cls: type[T], plain: Mapping[str, Any], problems: Problems) -> T:
    """Read any dataclass as a scenario is read: types, quantities, unknown names; what cannot be read stays at its default."""
    made: T = _read_dataclass(cls, plain, "", problems)
    return made


def places(scenario: Scenario) -> list[Place]:
    """Return every value of a scenario by its path; elements of lists are left out, the lists are in."""
    import_choices()
    return list(_walk(scenario, ""))


def group_of(hint: Any) -> str:
    """Return the registered group whose base class a type is, or "" for an ordinary type."""
    if not isinstance(hint, type) or hint is object:
        return ""
    for group in groups():
        classes = [registered(group, name) for name in names(group)]
        if hint not in classes and any(issubclass(cls, hint) for cls in classes):
            return group
    return ""


def _walk(value: Any, path: str) -> Iterator[Place]:
    if is_dataclass(value) and not isinstance(value, type):
        hints = _hints(type(value))
        children = [(field.name, getattr(value, field.name), group_of(hints[field.name])) for field in fields(value)]
    elif isinstance(value, dict):
        children = [(str(name), item, getattr(item, "choice_group", "")) for name, item in value.items()]
    else:
        return
    for name, item, group in children:
        where = _join(path, name)
        yield Place(where, group)
        yield from _walk(item, where)


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _join(path: str, name: object) -> str:
    return f"{path}.{name}" if path else str(name)


def _read(hint: Any, value: Any, path: str, problems: Problems, default: Any = None) -> Any:
    """Return a value of the hinted type, or `_NOT_READ` after adding a problem."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        return _read(next(item for item in arguments if item is not type(None)), value, path, problems, default)
    if group := group_of(hint):
        return _read_choice(group, value, path, problems, default)
    if is_dataclass(hint):
        return _read_dataclass(hint, value, path, problems) if _is_mapping(value, path, problems) else _NOT_READ
    if origin is dict:
        if not _is_mapping(value, path, problems):
            return _NOT_READ
        return _kept({str(key): _read(arguments[1], item, _join(path, key), problems) for key, item in value.items()})
    if origin is list:
        if not problems.check(isinstance(value, list | tuple), path, value, "must be a list", "[...]"):
            return _NOT_READ
        items = [_read(arguments[0], item, f"{path}[{index}]", problems) for index, item in enumerate(value)]
        return [item for item in items if item is not _NOT_READ]
    return _read_leaf(hint, value, path, problems)


def _kept(items: dict[str, Any]) -> dict[str, Any]:
    return {key: item for key, item in items.items() if item is not _NOT_READ}


def _is_mapping(value: Any, path: str, problems: Problems) -> bool:
    return problems.check(isinstance(value, Mapping), path, value, "must be a group of settings", "name: value, ...")


def _read_choice(group: str, value: Any, path: str, problems: Problems, default: Any) -> Any:
    if not _is_mapping(value, path, problems):
        return _NOT_READ
    chosen = value.get(CHOICE, getattr(default, "choice_name", None))
    if chosen not in names(group):
        problems.add(_join(path, CHOICE), chosen, f"is not the name of a {group}", choices=names(group))
        return _NOT_READ
    return _read_dataclass(registered(group, chosen), value, path, problems)


def _read_dataclass(cls: Any, value: Mapping[str, Any], path: str, problems: Problems) -> Any:
    hints, known = _hints(cls), {field.name: field for field in fields(cls)}
    polymorphic = hasattr(cls, "choice_name")
    made: dict[str, Any] = {}
    for key, item in value.items():
        if key in known:
            made[key] = _read(hints[key], item, _join(path, key), problems, _default(known[key]))
        elif not (polymorphic and key == CHOICE):
            _unknown(cls, key, item, path, list(known), problems)
    return cls(**_kept(made))


def _unknown(cls: Any, key: Any, value: Any, path: str, known: list[str], problems: Problems) -> None:
    owner = f"{cls.choice_group} {cls.choice_name}" if hasattr(cls, "choice_name") else cls.__name__.lower()
    allowed = ", ".join(known) or "none: it has no settings"
    message = f"is not a setting of the {owner}"
    problems.found.append(Problem(_join(path, key), value, message, allowed, nearest_name(str(key), known)))


def _default(field: Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return None if field.default is MISSING else field.default


def _read_leaf(hint: Any, value: Any, path: str, problems: Problems) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and isinstance(value, int) and abs(value) >= LARGEST:
        problems.add(path, f"a number of {value.bit_length()} bits", "is too large", "64 bits")
        return _NOT_READ
    name = _FIELD.sub("", path).rpartition(".")[2]
    if hint is str and isinstance(value, str) and units_of(name) != ("",):
        return _read_amount(value, name, path, problems)
    if hint is str and (isinstance(value, str) or number):
        return str(value)
    if hint is float and number:
        return float(value)
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint in (int, float) and isinstance(value, str) and (_A_NUMBER.match(value) or units_of(name) == ("s",)):
        return _read_quantity(hint, value, name, path, problems)
    if hint is bool and isinstance(value, bool):
        return value
    described = {str: "a text", float: "a number", int: "a whole number", bool: "true or false"}
    if hint not in described:
        return value
    unit = "" if hint not in (int, float) else units_of(name)[0]
    problems.add(path, value, f"must be {described[hint]}{_with_unit(unit)}")
    return _NOT_READ


def _with_unit(unit: str) -> str:
    return f", in {unit} or with a unit" if unit not in ("", "tokens", "replicas", "nodes") else ""


def _read_quantity(hint: type, value: str, name: str, path: str, problems: Problems) -> Any:
    """Read a number with a unit, `300 ms` or `80 GiB`, in the unit the field's name asks for."""
    units = units_of(name)
    try:
        amount = Fraction(duration_ns(value), NS_PER_S) if units == ("s",) else quantity(value, units)
    except ValueError as error:
        what = "is not a time" if units == ("s",) else str(error)
        problems.add(path, value, what, _EXAMPLES.get(units[0], f"a number, or one with {units[0]}" if units[0] else "a number"))
        return _NOT_READ
    if hint is int and amount.denominator != 1:
        problems.add(path, value, "must be a whole number")
        return _NOT_READ
    return int(amount) if hint is int else float(amount)


def _read_amount(value: str, name: str, path: str, problems: Problems) -> Any:
    """Read an exact amount that is kept as a decimal text, such as a price."""
    if _BARE_NUMBER.fullmatch(value) or not _A_NUMBER.match(value):
        return value  # the check of its own field says what is wrong
    try:
        return decimal_text(quantity(value, units_of(name)))
    except ValueError as error:
        problems.add(path, value, str(error), _EXAMPLES.get(units_of(name)[0], ""))
        return _NOT_READ
