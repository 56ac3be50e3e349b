"""Requests on their way to the engines: streams and blocks of requests (struct of arrays)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
import numpy.typing as npt

BLOCK_REQUESTS = 65_536
NO_DEADLINE = 0

BLOCK_DTYPES: dict[str, type[np.generic]] = {
    "arrival_ns": np.int64,
    "prompt_tokens": np.int32,
    "output_tokens": np.int32,
    "stream": np.int32,
    "client": np.int32,
    "session": np.int32,
    "turn": np.int32,
    "prefix": np.int32,
    "prefix_tokens": np.int32,
    "deadline_ns": np.int64,
    "tag": np.uint64,
}


@dataclass(frozen=True)
class RequestBlock:
    """A block of requests in order of arrival, one array per column, all of the same length.

    Parameters
    ----------
    arrival_ns : int64, nanoseconds since the scenario start, not decreasing. In a block of closed-loop rows it is the pause
        between the leaving of the client's previous request and this arrival (for the first row: since the start).
    prompt_tokens, output_tokens : int32, at least 1.
    stream : int32, number of the stream (service, segment, ...).
    client, session, turn : int32, who sends; 0 where unknown.
    prefix, prefix_tokens : int32, prefix group and its length. Group 0 with a length is a certain cache hit of that length.
    deadline_ns : int64, latest time at which the request may be admitted first; `NO_DEADLINE` (0) for none.
    tag : uint64, the request's own random word, from which engines derive the draws they need.
    """

    arrival_ns: npt.NDArray[np.int64]
    prompt_tokens: npt.NDArray[np.int32]
    output_tokens: npt.NDArray[np.int32]
    stream: npt.NDArray[np.int32]
    client: npt.NDArray[np.int32]
    session: npt.NDArray[np.int32]
    turn: npt.NDArray[np.int32]
    prefix: npt.NDArray[np.int32]
    prefix_tokens: npt.NDArray[np.int32]
    deadline_ns: npt.NDArray[np.int64]
    tag: npt.NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.arrival_ns)

    @classmethod
    def of(cls, **columns: npt.ArrayLike) -> RequestBlock:
        """Build a block from some columns; the others are zero.

        Examples
        --------
        >>> len(RequestBlock.of(arrival_ns=[0, 5], prompt_tokens=[10, 20], output_tokens=[1, 2]))
        2
        """
        length = len(np.asarray(columns["arrival_ns"]))
        arrays = {
            name: np.ascontiguousarray(columns[name], dtype=dtype) if name in columns else np.zeros(length, dtype)
            for name, dtype in BLOCK_DTYPES.items()
        }
        unknown = sorted(set(columns) - set(BLOCK_DTYPES))
        if unknown or any(len(array) != length for array in arrays.values()):
            raise ValueError(f"columns of unequal length or unknown columns {unknown}")
        return cls(**arrays)

    def take(self, index: npt.NDArray[np.intp] | slice) -> RequestBlock:
        """Return the rows selected by an index array or a slice."""
        return RequestBlock(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def with_columns(self, **columns: npt.ArrayLike) -> RequestBlock:
        """Return a block in which some columns are replaced."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        return RequestBlock.of(**{**arrays, **columns})


@dataclass(frozen=True)
class Stream:
    """One stream of requests: the finest unit by which requests are counted and paid for.

    Parameters
    ----------
    number : position in every per-stream array.
    service, segment : whose requests these are.
    priority : higher is served first.
    """

    number: int
    service: str
    segment: str
    priority: int = 0


class ClosedClients(Protocol):
    """Clients who send their next request only after the previous one has left the system."""

    clients: int

    def rows(self, client: int, block: int) -> RequestBlock:
        """Return a block of consecutive rows of one client; empty when the client has no more to send."""
        ...


@dataclass(frozen=True)
class BatchJob:
    """Requests that are submitted together, to be worked off when there is room.

    Parameters
    ----------
    number : among the jobs of its service. submit_ns : when, since the scenario start. due_ns : when it is to be done; None for any
        time. requests : how many. most_tokens : no request has more, prompt and output together.
    blocks : starts a pass over them; they are drawn as they are needed, and have no times.
    """

    number: int
    submit_ns: int
    due_ns: int | None
    requests: int
    most_tokens: int
    blocks: Callable[[], Iterator[RequestBlock]]


class Source(Protocol):
    """An opened workload of one service: open arrivals in blocks, closed-loop clients, or batch jobs.

    The `stream` column counts the source's own segments from 0; `workload.stream` maps it to scenario streams.
    """

    @property
    def segments(self) -> tuple[str, ...]:
        """Names of the segments, in the order of their numbers."""
        ...

    @property
    def users(self) -> int:
        """How many users send the open arrivals, numbered from 1 in `client`; 0 where it is not known who sends."""
        ...

    @property
    def closed(self) -> ClosedClients | None:
        """Closed-loop clients, or None."""
        ...

    @property
    def jobs(self) -> tuple[BatchJob, ...]:
        """Batch jobs, in order of time."""
        ...

    @property
    def bad_rows(self) -> int:
        """Rows of input that were skipped so far."""
        ...

    @property
    def inputs(self) -> dict[str, str]:
        """Path -> sha256 of every file read."""
        ...

    def blocks(self) -> Iterator[RequestBlock]:
        """Yield open arrivals in order of time, each before the horizon."""
        ...
