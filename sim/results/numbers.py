"""The numbers of a summary by their dotted paths, the names under which tables of many runs know them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# What a run found out; `engine` depends on the machine, and how sure it is (`interval`) is no number.
PARTS = ("requests", "tokens", "services", "latency", "slo", "bill", "energy")
# Parts of a bill and of the energy: one that is not there is nothing.
SHARES = ("bill.by_", "energy.by_")
# Who pays where no stream does.
UNASSIGNED = "(unassigned)"
# The use of charges without a machine: unused commitments, storage, ...
SHARED = "shared"
_GIVEN = (".threshold", ".goal")


def summary_numbers(summary: Mapping[str, Any], parts: Sequence[str] = PARTS) -> dict[str, float | None]:
    """Return the numbers of a `summary.json` by path, for instance `latency.chat.ttft_s.p95`; None where there was nothing.

    Parameters
    ----------
    summary : of a run. parts : its keys at the top level to look into; one that is not there has no numbers.

    Examples
    --------
    >>> summary_numbers({"requests": {"arrived": 3, "note": "text"}, "engine": {"steps": 9}})
    {'requests.arrived': 3}
    """
    return {path: value for part in parts if part in summary for path, value in _numbers(summary[part], part)}


def is_given(path: str) -> bool:
    """Whether a number was put in (a target or a goal) and not found out."""
    return path.endswith(_GIVEN)


def _numbers(value: Any, path: str) -> Iterator[tuple[str, float | None]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _numbers(item, f"{path}.{key}")
    elif (value is None or isinstance(value, int | float)) and not isinstance(value, bool):
        yield path, value
