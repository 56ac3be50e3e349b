"""Settings by path: a key expanded to the one place it can mean, and set in plain data.

The command line and sweeps from Python set values in the same way, with the same words for what is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any

from sim.errors import Problem, Problems, nearest_name
from sim.scenario.model import Scenario, plain_value
from sim.scenario.plain import CHOICE, places, scenario_from_plain

# Dictionaries by name: a key below one of them may be new, if it says so with "+".
NAMED = ("services", "deployments", "pools", "taps", "commitments")


@dataclass(frozen=True, eq=False)
class Edit:
    """One override: a key as typed, its value, and whether it may add a name (`+key=value`)."""

    key: str
    value: Any
    adds: bool = False


def with_settings(scenario: Scenario, settings: Mapping[str, Any], problems: Problems) -> Scenario:
    """Return a copy of a scenario with other values; what cannot be set is added to `problems`.

    Parameters
    ----------
    settings : path, or the end of one that fits one place -> value. Where a policy or a workload stands, the value is an object of
        its class, or a registered name, which stands for its defaults. A key with "+" before it may add a name.

    Examples
    --------
    >>> from sim.scenario import Service
    >>> scenario = Scenario(services={"chat": Service()})
    >>> with_settings(scenario, {"router": "random", "ttft_s": "300 ms"}, Problems()).services["chat"].slo.ttft_s
    0.3
    """
    plain = scenario.to_dict()
    groups = {place.path: place.group for place in places(scenario)}
    for key, value in settings.items():
        edit = Edit(key.removeprefix("+"), plain_value(value), adds=key.startswith("+"))
        path = _expanded(edit, list(groups), problems)
        named = bool(groups.get(path)) and isinstance(value, str)
        if path and (named or is_dataclass(value)):
            _set(plain, path.split("."), None)  # a choice takes the place of the one before, and keeps none of its settings
            edit = Edit(path, {CHOICE: value} if named else edit.value, edit.adds)
        if path:
            apply_edits(plain, [edit], scenario, problems)
    return scenario_from_plain(plain, problems)


def apply_edits(plain: dict[str, Any], edits: Sequence[Edit], draft: Scenario, problems: Problems) -> list[str]:
    """Set the value overrides in plain data, and return the paths of what was set.

    Parameters
    ----------
    plain : the composed data, changed in place. draft : what it reads to, which says where a short key can mean.
    """
    known = [place.path for place in places(draft)]
    done = []
    for edit in edits:
        path = _expanded(edit, known, problems)
        if path:
            value = {CHOICE: edit.value} if _is_new_choice(edit, known) else edit.value
            _set(plain, path.split("."), value)
            done += _leaves(path, value)
    return done


def _leaves(path: str, value: Any) -> list[str]:
    """Return the paths of the values a dictionary sets; anything else is one value."""
    if isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in _leaves(f"{path}.{key}", item)]
    return [path]


def _expanded(edit: Edit, known: Sequence[str], problems: Problems) -> str:
    """Return the full path an override means, or "" after adding a problem."""
    if edit.key in known or _is_new_name(edit, known) or _is_list_element(edit.key, known):
        return edit.key
    found = [path for path in known if path.endswith(f".{edit.key}")]
    if len(found) == 1:
        return found[0]
    if found:
        problems.add(edit.key, edit.value, "can mean several places; write one of them in full", ", ".join(found))
    else:
        problems.found.append(_unknown(edit, known))
    return ""


def _is_new_name(edit: Edit, known: Sequence[str]) -> bool:
    head, _, rest = edit.key.partition(".")
    return edit.adds and ((head in NAMED and bool(rest)) or edit.key.rpartition(".")[0] in known)


def _is_new_choice(edit: Edit, known: Sequence[str]) -> bool:
    """Whether an override adds a tap by the name of its kind, `+taps.users=clients`."""
    head, _, name = edit.key.partition(".")
    return head == "taps" and "." not in name and edit.key not in known and isinstance(edit.value, str)


def _is_list_element(key: str, known: Sequence[str]) -> bool:
    parts = key.split(".")
    return any(part.isdigit() and ".".join(parts[:index]) in known for index, part in enumerate(parts))


def _unknown(edit: Edit, known: Sequence[str]) -> Problem:
    """Describe an unknown key: what its deepest known parent has, and the nearest name among all."""
    parent = edit.key
    while parent and parent not in known:
        parent = parent.rpartition(".")[0]
    wrong = edit.key[len(parent) :].lstrip(".").split(".")[0]
    prefix = f"{parent}." if parent else ""
    children = [path[len(prefix) :] for path in known if path.startswith(prefix) and "." not in path[len(prefix) :]]
    near = nearest_name(wrong, children) if parent else ""
    if near:
        nearest = f"{prefix}{near}{edit.key[len(prefix) + len(wrong) :]}"
    elif parent and not children:
        nearest = ""
    else:
        tails = {".".join(path.split(".")[-depth:]) for path in known for depth in (1, 2)}
        nearest = nearest_name(edit.key, sorted(tails))
    message = f"is not a setting of {parent}" if parent else "is not a setting of this scenario"
    if parent in NAMED:
        message = f"there is no {parent.removesuffix('s')} {wrong!r}; to add one, write +{edit.key}=..."
    elif parent and not children:
        # An optional group that is not set looks like a value here: which of the two it is, the scenario's types say.
        message += f", which has no settings now; to set one where it can have them, write +{edit.key}=..."
    return Problem(edit.key, edit.value, message, ", ".join(children) or "none", nearest)


def _set(plain: Any, parts: list[str], value: Any) -> None:
    """Set a value in nested dictionaries and lists; a dictionary is merged into what is there."""
    here = plain
    for part in parts[:-1]:
        if isinstance(here, list):
            here = here[int(part)] if part.isdigit() and int(part) < len(here) else {}
        else:
            if not isinstance(here.get(part), dict | list):
                here[part] = {}
            here = here[part]
    last = parts[-1]
    if isinstance(here, list):
        if last.isdigit() and int(last) < len(here):
            here[int(last)] = value
    elif isinstance(value, dict) and isinstance(here.get(last), dict):
        for key, item in value.items():
            _set(here[last], [str(key)], item)
    else:
        here[last] = value
