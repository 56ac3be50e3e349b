"""The registry of everything a user can choose by name: workloads, autoscalers, routers.

Registering makes a class a dataclass; its fields are its configuration, in Python and in YAML alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from typing import Any, TypeVar

from sim.errors import nearest_name

T = TypeVar("T")
_groups: dict[str, dict[str, type]] = {}


def register(group: str, name: str) -> Callable[[type[T]], type[T]]:
    """Register a class under a name of a group and make it a dataclass.

    Parameters
    ----------
    group : "workload", "autoscaler", "router", ...
    name : what a user types, for instance `autoscaler=schedule`.

    Raises
    ------
    ValueError : another class already has this name.

    Examples
    --------
    >>> @register("autoscaler", "doctest_always_two")
    ... class AlwaysTwo:
    ...     replicas: int = 2
    >>> registered("autoscaler", "doctest_always_two")().replicas
    2
    """

    def decorate(cls: type[T]) -> type[T]:
        made: type[T] = cls if "__dataclass_fields__" in cls.__dict__ else dataclass(cls)
        known = _groups.setdefault(group, {})
        earlier = known.get(name)
        if earlier is not None and (earlier.__module__, earlier.__qualname__) != (made.__module__, made.__qualname__):
            raise ValueError(f"{group} {name!r} is registered already, by {earlier.__module__}.{earlier.__qualname__}")
        made.choice_group = group  # type: ignore[attr-defined]
        made.choice_name = name  # type: ignore[attr-defined]
        known[name] = made
        return made

    return decorate


def names(group: str) -> list[str]:
    """Return the registered names of a group, sorted."""
    return sorted(_groups.get(group, {}))


def groups() -> list[str]:
    """Return the names of all groups, sorted."""
    return sorted(_groups)


def registered(group: str, name: str) -> type[Any]:
    """Return the class registered under a name.

    Raises
    ------
    KeyError : no such name; the message lists the valid ones and the nearest.
    """
    known = _groups.get(group, {})
    if name not in known:
        near = nearest_name(name, known)
        hint = f"; did you mean {near!r}?" if near else ""
        raise KeyError(f"no {group} named {name!r}; there are: {', '.join(sorted(known)) or 'none'}{hint}")
    return known[name]


def choice_name(thing: object) -> str:
    """Return the registered name of an instance of a registered class."""
    if not is_dataclass(thing) or not hasattr(thing, "choice_name"):
        raise TypeError(f"{thing!r} is not an instance of a registered class")
    return str(thing.choice_name)
