"""A plane in a few words: set up, go to a time, read results in milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from engine_kit import MS, config, finish

from sim.dataplane.engine import DataPlane, Hit, PlaneConfig, View
from sim.dataplane.layout import OUTCOMES
from sim.domain.traffic import ClosedClients, RequestBlock


def start(
    engine: type[DataPlane],
    blocks: Sequence[RequestBlock],
    *,
    replicas: Sequence[int] = (0,),
    clients: ClosedClients | None = None,
    plane: PlaneConfig | None = None,
    **changes: Any,
) -> DataPlane:
    """Return an engine with replicas of the given specs, added at its start; `changes` go to `engine_kit.config`."""
    made = plane or config(**changes)
    running = engine(made, blocks, clients)
    for spec in replicas:
        running.add_replica(made.start_ns, spec)
    return running


def go(plane: DataPlane, until_ns: int) -> list[Hit]:
    """Advance to a time through every watch on the way, and return the hits."""
    hits = []
    while (hit := plane.advance(until_ns)) is not None:
        hits.append(hit)
    return hits


@dataclass
class Result:
    """The last view, and the records by request as plain lists."""

    view: View
    records: dict[str, Any]

    def ms(self, column: str) -> list[float]:
        """A time column in milliseconds; a time that never came (-1 ns) stays -1."""
        return [value / MS if value >= 0 else -1 for value in self.records[column].tolist()]

    @property
    def left(self) -> list[float]:
        """When each request left, in milliseconds."""
        return self.ms("leave_ns")

    @property
    def first(self) -> list[float]:
        """First-token times in milliseconds."""
        return self.ms("first_token_ns")

    @property
    def outcomes(self) -> list[str]:
        """How each request left."""
        return [OUTCOMES[code] for code in self.records["outcome"]]

    def column(self, name: str) -> list[int]:
        """One column of the records by request."""
        return list(self.records[name].tolist())

    def total(self, counter: str) -> int:
        """A counter summed over the streams."""
        return int(np.sum(self.view.count(counter)))


def end(plane: DataPlane, until_ns: int = 1_000 * MS) -> Result:
    """Run to the end (one second unless said otherwise), close, check the laws."""
    return Result(*finish(plane, until_ns))


def outcome(engine: type[DataPlane], blocks: Sequence[RequestBlock], until_ns: int = 1_000 * MS, **changes: Any) -> Result:
    """Start and end: a run in which control does nothing."""
    return end(start(engine, blocks, **changes), until_ns)


@dataclass
class Clients:
    """Closed-loop clients: for each a list of (pause_ns, prompt_tokens, output_tokens), sent in blocks of `size` rows."""

    sends: Sequence[Sequence[tuple[int, int, int]]]
    stream: int = 0
    size: int = 2

    @property
    def clients(self) -> int:
        """How many there are."""
        return len(self.sends)

    def rows(self, client: int, block: int) -> RequestBlock:
        """One block of a client's rows; empty when there are no more."""
        rows = self.sends[client][block * self.size : (block + 1) * self.size]
        pause, prompt, output = zip(*rows, strict=True) if rows else ((), (), ())
        tags = [client * 1_000 + block * self.size + row for row in range(len(rows))]
        columns = {"arrival_ns": pause, "prompt_tokens": prompt, "output_tokens": output, "tag": tags}
        return RequestBlock.of(**columns, stream=[self.stream] * len(rows))
