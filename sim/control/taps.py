"""The taps of a run: they see the blocks of requests on their way into the engines, and the records that come out."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.control.sink import TableSink
from sim.dataplane.layout import OUTCOMES
from sim.domain.traffic import RequestBlock, Source, Stream
from sim.errors import Problems
from sim.policies.taps.base import IntArray, OutcomeBlock, Tap, TapContext
from sim.registry import choice_name
from sim.scenario.model import Scenario


@dataclass
class Taps:
    """The taps of one run, each a copy of its configuration.

    Parameters
    ----------
    taps : by name, in the order of the scenario.
    """

    taps: dict[str, Tap]
    _started: bool = False
    _early: list[RequestBlock] = field(default_factory=list)

    @classmethod
    def of(cls, scenario: Scenario, sources: Mapping[str, Source]) -> Taps:
        """Copy the taps of a scenario.

        Raises
        ------
        InputError : a tap that wants only arrivals beside closed-loop clients, whose requests it would never see.
        """
        problems = Problems()
        closed = [name for name, source in sources.items() if source.closed is not None]
        for name, tap in scenario.taps.items():
            blind = tap.sees_arrivals and not tap.sees_outcomes and bool(closed)
            message = f"never sees services.{', '.join(closed)}: requests of closed-loop clients are known only by their outcomes"
            problems.check(not blind, f"taps.{name}", choice_name(tap), message, "a tap of outcomes, such as counts: completions")
        problems.raise_if_any()
        return cls({name: copy.deepcopy(tap) for name, tap in scenario.taps.items()})

    def start(self, streams: Sequence[Stream], window_ends_ns: IntArray) -> None:
        """Tell the taps what there is, once all streams are known; blocks that were drawn before are handed over now."""
        context = TapContext(tuple(streams), window_ends_ns, OUTCOMES)
        for tap in self.taps.values():
            tap.start(context)
        self._started = True
        for block in self._early:
            self._see(block)
        self._early = []

    @property
    def sees_outcomes(self) -> bool:
        """Whether any tap wants outcomes, so that the engines must keep a record of every request."""
        return any(tap.sees_outcomes for tap in self.taps.values())

    def passing(self, blocks: Iterable[RequestBlock], first_stream: int) -> Iterator[RequestBlock]:
        """Pass the open arrivals of a data plane through, showing each block to the taps under the scenario's stream numbers."""
        if not any(tap.sees_arrivals for tap in self.taps.values()):
            yield from blocks
            return
        for block in blocks:
            shown = block.with_columns(stream=block.stream + np.int32(first_stream))
            if self._started:
                self._see(shown)
            else:
                self._early.append(shown)
            yield block

    def _see(self, block: RequestBlock) -> None:
        for tap in self.taps.values():
            if tap.sees_arrivals:
                tap.arrivals(block)

    def outcomes(self, records: Mapping[str, npt.NDArray[Any]]) -> None:
        """Show the taps the records of requests that have left, under the scenario's stream and replica numbers."""
        block = OutcomeBlock(**records)
        for tap in self.taps.values():
            if tap.sees_outcomes:
                tap.outcomes(block)

    def write(self, sink: TableSink, until_ns: int, last: bool) -> None:
        """Write the rows that are complete at the end of a window."""
        for name, tap in self.taps.items():
            rows = {column: np.asarray(values) for column, values in tap.rows(until_ns, last).items()}
            count = len(next(iter(rows.values())))
            if count:
                sink.extend(tap.table, {"tap": np.array([name] * count, object), **rows})
