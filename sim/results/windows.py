"""Sums of the `windows` table over the streams of each service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.results.records import RunResult

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Windows:
    """Sums over the streams of one service, window by window.

    Parameters
    ----------
    start_ns, end_ns : shape (windows,). measured : shape (windows,), after the warm-up.
    columns : name of a column of `windows` to its sums, shape (windows,).
    """

    start_ns: Ints
    end_ns: Ints
    measured: npt.NDArray[np.bool_]
    columns: dict[str, npt.NDArray[Any]]

    @property
    def edges_ns(self) -> Ints:
        """The windows' starts and the last end."""
        return np.append(self.start_ns, self.end_ns[-1:])

    def after_warmup(self) -> Windows:
        """Return the measured windows alone."""
        chosen = self.measured
        columns = {name: values[chosen] for name, values in self.columns.items()}
        return Windows(self.start_ns[chosen], self.end_ns[chosen], self.measured[chosen], columns)


def windows_by_service(result: RunResult, columns: Sequence[str]) -> dict[str, Windows]:
    """Return sums of columns of `windows` by service, services in the order of their streams."""
    sums = ", ".join(f"sum({name}) AS {name}" for name in columns)
    table = result.sql(f"""
        SELECT service, min(min(stream)) OVER (PARTITION BY service) AS first, start_ns, end_ns, bool_and(measured) AS measured,
            {sums} FROM windows GROUP BY service, start_ns, end_ns ORDER BY first, start_ns
    """)
    found = {}
    for service in dict.fromkeys(table["service"].tolist()):
        mine = table["service"] == service
        found[str(service)] = Windows(
            table["start_ns"][mine],
            table["end_ns"][mine],
            table["measured"][mine].astype(np.bool_),
            {name: table[name][mine] for name in columns},
        )
    return found
