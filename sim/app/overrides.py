"""Overrides of the command line: `key=value` read, a short key expanded to the one place it can mean, and set in plain data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sim.errors import Problem, Problems, nearest_name
from sim.scenario import Scenario
from sim.scenario.plain import CHOICE, places

# Dictionaries by name: a key below one of them may be new, if it says so with "+".
NAMED = ("services", "deployments", "pools", "taps")


@dataclass(frozen=True, eq=False)
class Edit:
    """One override: a key as typed, its value, and whether it may add a name (`+key=value`)."""

    key: str
    value: Any
    adds: bool = False


@dataclass
class Overrides:
    """All overrides in order; `chosen` are those that were used up by choosing an option of a group."""

    edits: list[Edit] = field(default_factory=list)
    chosen: list[Edit] = field(default_factory=list)

    def take(self, key: str) -> str | None:
        """Remove the overrides of a key and return the last value, or None."""
        taken = [edit for edit in self.edits if edit.key == key]
        self.edits = [edit for edit in self.edits if edit.key != key]
        return str(taken[-1].value) if taken else None


def read_overrides(texts: Sequence[str], problems: Problems) -> Overrides:
    """Read overrides in Hydra's grammar (quotes, lists, dictionaries); what cannot be read becomes a problem."""
    overrides = Overrides()
    for text in texts:
        edit = _read(str(text), problems)
        if edit is not None:
            overrides.edits.append(edit)
    return overrides


def _read(text: str, problems: Problems) -> Edit | None:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import OverrideType
    from hydra.errors import HydraException

    key, equals, written = text.partition("=")
    if text.startswith("~"):
        problems.add(text, "", "nothing can be removed on the command line", "key=value; to leave parts out, write a scenario file")
        return None
    if not equals:
        problems.add(text, "", "is not a setting", "key=value")
        return None
    try:
        [parsed] = OverridesParser.create().parse_overrides([text])
        value = parsed.value()
    except (HydraException, ValueError):
        # A path or a text with a sign that is special to the grammar, for instance a comma or a space: taken as it is.
        if not _is_plain_text(written):
            problems.add(key, written, "cannot be read", "a value; in quotes if it has brackets, braces or quotes in it")
            return None
        return Edit(key.lstrip("+"), written, adds=key.startswith("+"))
    if parsed.is_sweep_override():
        problems.add(
            key, written, "one run takes one value", "one value, in quotes if it has a comma in it; for several: billcast sweep"
        )
        return None
    package = f"@{parsed.package}" if parsed.package else ""
    return Edit(f"{parsed.key_or_group}{package}", value, adds=parsed.type != OverrideType.CHANGE)


@dataclass(frozen=True)
class Variants:
    """One override of a sweep.

    Parameters
    ----------
    key : as typed. texts : the override of each job, one where it is not swept. values : what each sets.
    """

    key: str
    texts: tuple[str, ...]
    values: tuple[Any, ...]


def read_variants(texts: Sequence[str], options: Callable[[str], list[str]], problems: Problems) -> list[Variants]:
    """Take the overrides of a sweep apart: `key=a,b`, `choice(a,b)`, `range(1,5)` and `glob(*)` of options, as Hydra reads them.

    Parameters
    ----------
    options : returns the names of a group, for `glob`; none where there is no such group.
    """
    found = []
    for text in texts:
        key, _, written = text.partition("=")
        variants = _variants(text, options, problems)
        if variants is None:
            found.append(Variants(key, (text,), (written,)))
        elif variants:
            edits = [_read(variant, problems) for variant in variants]
            found.append(Variants(key, tuple(variants), tuple(edit.value for edit in edits if edit is not None)))
    return found


def _variants(text: str, options: Callable[[str], list[str]], problems: Problems) -> list[str] | None:
    """Return one override for each value of a swept one; None for one that is not swept."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Glob
    from hydra.errors import HydraException

    try:
        [parsed] = OverridesParser.create().parse_overrides([text])
    except (HydraException, ValueError):
        return None  # read as one value, or named as a problem, like that of a run
    if not parsed.is_sweep_override():
        return None
    key, _, written = text.partition("=")
    value: Any = parsed.value()
    if isinstance(value, Glob):
        group = key.lstrip("+").partition("@")[0].rpartition(".")[2]
        values = value.filter(options(group))
        problems.check(bool(values), key, written, "matches no option", choices=options(group))
    elif not parsed.is_discrete_sweep():
        problems.add(key, written, "has no end: a sweep goes through single values", "a,b,c, choice(a,b) or range(1,5)")
        values = []
    else:
        values = list(parsed.sweep_string_iterator())
    return [f"{key}={one}" for one in values]


def _is_plain_text(written: str) -> bool:
    return not any(sign in written for sign in "[]{}'\"$")


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
    else:
        tails = {".".join(path.split(".")[-depth:]) for path in known for depth in (1, 2)}
        nearest = nearest_name(edit.key, sorted(tails))
    message = f"is not a setting of {parent}" if parent else "is not a setting of this scenario"
    if parent in NAMED:
        message = f"there is no {parent.removesuffix('s')} {wrong!r}; to add one, write +{edit.key}=..."
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
