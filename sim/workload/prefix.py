"""Prompts part of which is in the prefix cache: a source whose every request has a certain hit of a share of its prompt.

The engines leave the cached tokens out of the prefill and keep them in the context and in the cache's use.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from sim.domain.traffic import BatchJob, ClosedClients, RequestBlock, Source


def with_hits(block: RequestBlock, share: float) -> RequestBlock:
    """Return a block in which at least a share of every prompt, rounded down to tokens, is a certain hit.

    Parameters
    ----------
    share : from 0 to 1. Rows of a prefix group are left as they are, and hits that are longer already.

    Examples
    --------
    >>> block = RequestBlock.of(arrival_ns=[0, 5], prompt_tokens=[10, 25], output_tokens=[1, 1], prefix_tokens=[8, 0])
    >>> with_hits(block, 0.5).prefix_tokens.tolist()
    [8, 12]
    """
    hits = np.floor(block.prompt_tokens * share).astype(np.int32)
    found = np.where(block.prefix == 0, np.maximum(block.prefix_tokens, hits), block.prefix_tokens)
    return block.with_columns(prefix_tokens=found)


@dataclass
class _CachedClients:
    """Closed-loop clients whose prompts are partly in the cache."""

    inner: ClosedClients
    share: float
    clients: int

    def rows(self, client: int, block: int) -> RequestBlock:
        """Return a block of rows of one client."""
        return with_hits(self.inner.rows(client, block), self.share)


@dataclass
class CachedPrompts:
    """A source with a share of every prompt in the prefix cache; everything else is as in the source.

    Parameters
    ----------
    inner : the source. share : of each prompt, rounded down to tokens.
    """

    inner: Source
    share: float

    @property
    def segments(self) -> tuple[str, ...]:
        """Names of the segments."""
        return self.inner.segments

    @property
    def users(self) -> int:
        """How many users send the open arrivals."""
        return self.inner.users

    @property
    def closed(self) -> ClosedClients | None:
        """Closed-loop clients, or None."""
        return None if self.inner.closed is None else _CachedClients(self.inner.closed, self.share, self.inner.closed.clients)

    @property
    def jobs(self) -> tuple[BatchJob, ...]:
        """Batch jobs, in order of time."""
        return tuple(self._job(job) for job in self.inner.jobs)

    @property
    def bad_rows(self) -> int:
        """Rows of input that were skipped."""
        return self.inner.bad_rows

    @property
    def inputs(self) -> dict[str, str]:
        """Path -> sha256 of every file read."""
        return self.inner.inputs

    def blocks(self) -> Iterator[RequestBlock]:
        """Yield the open arrivals in order of time."""
        return self._hits(self.inner.blocks())

    def _job(self, job: BatchJob) -> BatchJob:
        return replace(job, blocks=lambda: self._hits(job.blocks()))

    def _hits(self, blocks: Iterator[RequestBlock]) -> Iterator[RequestBlock]:
        return (with_hits(block, self.share) for block in blocks)
