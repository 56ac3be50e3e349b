"""What a tap is: it sees the blocks of arrivals and of outcomes of a run as arrays, and touches no engine.

Every run works on a copy of its own, so a tap may keep what it has counted in attributes of its own. What it keeps must not grow
with the horizon.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from sim.domain.traffic import RequestBlock, Stream
from sim.errors import Problems
from sim.schema import TABLES

IntArray = npt.NDArray[np.int64]
Rows = Mapping[str, npt.ArrayLike]


@dataclass(frozen=True)
class TapContext:
    """What a tap is told before the run.

    Parameters
    ----------
    streams : every stream of the scenario, by the numbers in the blocks.
    window_ends_ns : int64, (windows,): the ends of the reporting windows, increasing, the last one the end of the run.
    outcomes : what the codes in `OutcomeBlock.outcome` stand for, by code.
    """

    streams: tuple[Stream, ...]
    window_ends_ns: IntArray
    outcomes: tuple[str, ...]

    def window_of(self, time_ns: IntArray) -> npt.NDArray[np.intp]:
        """Return the number of the window each time lies in; a window is (start, end], and the first one has its start, too.

        Examples
        --------
        >>> TapContext((), np.array([10, 20]), ()).window_of(np.array([0, 1, 10, 11, 20])).tolist()
        [0, 0, 0, 1, 1]
        """
        windows: npt.NDArray[np.intp] = np.searchsorted(self.window_ends_ns, time_ns, side="left")
        return windows


@dataclass(frozen=True)
class OutcomeBlock:
    """Requests that have left, in order of leaving within a data plane; one int64 array per column, all of the same length.

    Those still in the system at the end of the run come last, as "unfinished".

    Parameters
    ----------
    request : arrival number in its data plane. stream : number of the stream. client, session, turn : who sent it.
    arrival_ns, dispatched_ns, admitted_ns, first_token_ns, leave_ns : its times; -1 for what never happened. `dispatched_ns` and
        `admitted_ns` are the last ones, `first_token_ns` is that of the last attempt.
    net_ns : front-end time that TTFT and E2E contain beside. prompt_tokens, output_tokens : as asked for.
    attempts : 1 without a kill. preemptions : recompute preemptions. replica : the last one, -1 for none.
    outcome : code, named by `TapContext.outcomes`.
    """

    request: IntArray
    stream: IntArray
    client: IntArray
    session: IntArray
    turn: IntArray
    arrival_ns: IntArray
    first_token_ns: IntArray
    leave_ns: IntArray
    net_ns: IntArray
    prompt_tokens: IntArray
    output_tokens: IntArray
    attempts: IntArray
    preemptions: IntArray
    replica: IntArray
    outcome: IntArray
    dispatched_ns: IntArray
    admitted_ns: IntArray

    def __len__(self) -> int:
        return len(self.request)


class Tap:
    """Base of all taps: override `arrivals`, `outcomes` or both, and `values` (or `rows`, for a table of its own).

    `table` names the table of `sim.schema` that its rows go to.
    """

    table: ClassVar[str] = "tap_values"

    def problems(self, path: str, problems: Problems) -> None:
        """Add what is wrong with the configuration."""

    def start(self, context: TapContext) -> None:
        """Begin a run."""

    def arrivals(self, block: RequestBlock) -> None:
        """See a block of open arrivals, in order of time within a data plane.

        Blocks are drawn ahead: at time t everything that arrives up to t has been seen, and some of what comes later. Closed-loop
        clients decide when they send only as the run goes; their requests are seen when they leave, by `outcomes`.
        """

    def outcomes(self, block: OutcomeBlock) -> None:
        """See a block of requests that have left."""

    def values(self) -> Mapping[str, float]:
        """Return name -> value at the end of the run, for the table `tap_values`."""
        return {}

    def rows(self, until_ns: int, last: bool) -> Rows:
        """Return the rows that are complete, as one array per column of its table except `tap`; asked at the end of each window.

        Parameters
        ----------
        until_ns : the end of the window. last : this is the end of the run.
        """
        values = dict(sorted(self.values().items())) if last else {}
        return {"name": list(values), "value": np.array(list(values.values()), np.float64)}

    @property
    def sees_arrivals(self) -> bool:
        """Whether it wants the blocks of arrivals."""
        return type(self).arrivals is not Tap.arrivals

    @property
    def sees_outcomes(self) -> bool:
        """Whether it wants the blocks of outcomes; they make the engines keep a record of every request."""
        return type(self).outcomes is not Tap.outcomes


def check_table(tap: Tap, path: str, problems: Problems) -> None:
    """Add a problem unless the table of a tap is one that taps write to."""
    tables = [name for name, table in TABLES.items() if table.columns[0].name == "tap"]
    problems.check(tap.table in tables, path, tap.table, "is not a table that a tap can write to", choices=tables)
