"""Overrides of the command line: `key=value` read in Hydra's grammar, one value or several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sim.errors import Problems
from sim.scenario.edits import Edit


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
