"""Several services' requests as one: blocks merged in order of time under global stream numbers, clients numbered through."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np

from sim.domain.traffic import ClosedClients, RequestBlock, Source
from sim.rng import StreamKey
from sim.workload.base import random_words


def merge(sources: Sequence[tuple[int, Source]], keys: Sequence[StreamKey]) -> Iterator[RequestBlock]:
    """Yield the open arrivals of several sources in order of time; equal times in the order of the sources.

    At most one block of each source is held.

    Parameters
    ----------
    sources : (number of the source's first stream, source). keys : the key each source was opened with, for the tags of requests
        that have none.

    Examples
    --------
    >>> from sim.workload.base import OpenedSource
    >>> def source(*times):
    ...     block = RequestBlock.of(arrival_ns=list(times), prompt_tokens=[1] * len(times), output_tokens=[1] * len(times))
    ...     return OpenedSource(lambda: iter([block]))
    >>> keys = [StreamKey(1, 0, "", "chat"), StreamKey(1, 0, "", "code")]
    >>> blocks = list(merge([(0, source(1, 5)), (2, source(1, 3))], keys))
    >>> [(int(t), int(s)) for block in blocks for t, s in zip(block.arrival_ns, block.stream)]
    [(1, 0), (1, 2), (3, 2), (5, 0)]
    """
    feeds = [_Feed(source.blocks(), first, key) for (first, source), key in zip(sources, keys, strict=True)]
    while feeds := [feed for feed in feeds if feed.has_rows()]:
        # Whatever is not later than the earliest end of a buffer can no longer be overtaken; equal times go by the source's order.
        end = min(range(len(feeds)), key=lambda number: (feeds[number].last_ns(), number))
        limit_ns = feeds[end].last_ns()
        parts = [feed.take(limit_ns, inclusive=number <= end) for number, feed in enumerate(feeds)]
        yield _in_order([part for part in parts if len(part)])


class _Feed:
    """One source being merged: its block under way, and how much of it has gone."""

    def __init__(self, blocks: Iterator[RequestBlock], first_stream: int, key: StreamKey) -> None:
        self._blocks, self._first_stream, self._tags = blocks, first_stream, key.about("workload/tags")
        self._number, self._taken = 0, 0
        self._block: RequestBlock | None = None

    def has_rows(self) -> bool:
        """Whether rows are left, after reading on if the block under way is used up."""
        while self._block is None or self._taken == len(self._block):
            block = next(self._blocks, None)
            if block is None:
                return False
            self._block = _finished(block, self._first_stream, self._tags, self._number)
            self._number, self._taken = self._number + 1, 0
        return True

    def last_ns(self) -> int:
        assert self._block is not None
        return int(self._block.arrival_ns[-1])

    def take(self, limit_ns: int, inclusive: bool) -> RequestBlock:
        assert self._block is not None
        side = "right" if inclusive else "left"
        end = int(np.searchsorted(self._block.arrival_ns, limit_ns, side=side))  # type: ignore[call-overload]
        rows = self._block.take(slice(self._taken, max(end, self._taken)))
        self._taken = max(end, self._taken)
        return rows


def _in_order(parts: list[RequestBlock]) -> RequestBlock:
    if len(parts) == 1:
        return parts[0]
    together = {field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(RequestBlock)}
    return RequestBlock(**together).take(np.argsort(together["arrival_ns"], kind="stable"))


def _finished(block: RequestBlock, first_stream: int, tags: StreamKey, number: int) -> RequestBlock:
    columns = {}
    if first_stream:
        columns["stream"] = block.stream + np.int32(first_stream)
    missing = block.tag == 0
    if missing.any():
        columns["tag"] = np.where(missing, random_words(tags, number, len(block)), block.tag)
    return block.with_columns(**columns) if columns else block


@dataclass
class _MergedClients:
    """The closed-loop clients of several sources, numbered through in the order of the sources."""

    parts: tuple[tuple[int, int, ClosedClients, StreamKey], ...]  # first client, first stream, clients, tags
    clients: int

    def rows(self, client: int, block: int) -> RequestBlock:
        """Return a block of rows of one client, under its global number."""
        first, first_stream, part, tags = next(part for part in reversed(self.parts) if part[0] <= client)
        rows = part.rows(client - first, block)
        own = StreamKey(tags.seed, tags.replication, tags.purpose, f"{tags.entity}/client {client - first}")
        return _finished(rows, first_stream, own, block).with_columns(client=np.full(len(rows), client, np.int32))


def merge_clients(sources: Sequence[tuple[int, Source]], keys: Sequence[StreamKey]) -> ClosedClients | None:
    """Return the closed-loop clients of several sources as one, or None where no source has any.

    Parameters
    ----------
    sources, keys : as in `merge`.
    """
    parts: list[tuple[int, int, ClosedClients, StreamKey]] = []
    clients = 0
    for (first_stream, source), key in zip(sources, keys, strict=True):
        if source.closed is not None:
            parts.append((clients, first_stream, source.closed, key.about("workload/tags")))
            clients += source.closed.clients
    return _MergedClients(tuple(parts), clients) if parts else None
