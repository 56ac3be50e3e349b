"""Every error a user can meet, with enough in it to fix the input at the first try."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Problem:
    """One thing wrong with the input.

    Parameters
    ----------
    path : dotted path of the value, as it would be typed on the command line.
    value : what was given.
    message : what is wrong with it, as a sentence without the value.
    allowed : what would have been right (a range, a list of names), or "".
    nearest : the nearest valid name, or "".
    """

    path: str
    value: object
    message: str
    allowed: str = ""
    nearest: str = ""

    def __str__(self) -> str:
        text = f"{self.path} = {self.value!r}: {self.message}"
        if self.allowed:
            text += f"; allowed: {self.allowed}"
        if self.nearest:
            text += f"; did you mean {self.nearest!r}?"
        return text


class BillcastError(Exception):
    """Base of all errors that are shown without a traceback."""


class RunError(BillcastError):
    """A run that started and could not be finished (exit code 1)."""


class InputError(BillcastError):
    """Input that cannot be simulated (exit code 2); holds every problem found.

    Parameters
    ----------
    problems : the problems, in the order in which they were found.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type[InputError], tuple[tuple[Problem, ...]]]:
        """Travel between processes with the problems, not with the text made of them."""
        return InputError, (self.problems,)


@dataclass
class Problems:
    """A collector: add what is wrong as it is found, raise everything at the end.

    Examples
    --------
    >>> problems = Problems()
    >>> problems.check(-1 >= 0, "services.chat.rate_per_s", -1, "must not be negative", ">= 0")
    False
    >>> len(problems)
    1
    """

    found: list[Problem] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.found)

    def add(self, path: str, value: object, message: str, allowed: str = "", choices: Iterable[str] = ()) -> None:
        """Record a problem; `choices` fills `allowed` and finds the nearest valid name."""
        names = list(choices)
        if names and not allowed:
            allowed = ", ".join(names)
        self.found.append(Problem(path, value, message, allowed, nearest_name(str(value), names)))

    def check(
        self,
        ok: bool,
        path: str,
        value: object,
        message: str,
        allowed: str = "",
        choices: Iterable[str] = (),
    ) -> bool:
        """Record a problem unless `ok`; returns `ok`."""
        if not ok:
            self.add(path, value, message, allowed, choices)
        return ok

    def raise_if_any(self) -> None:
        """Raise `InputError` with all problems, if there are any."""
        if self.found:
            raise InputError(self.found)


def nearest_name(name: str, names: Iterable[str]) -> str:
    """Return the valid name closest to `name`, or "" when none is close.

    Examples
    --------
    >>> nearest_name("least_outstnding", ["random", "least_outstanding"])
    'least_outstanding'
    """
    matches = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return matches[0] if matches else ""
