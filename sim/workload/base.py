"""What every workload is: a registered dataclass that can be checked, described, and opened into blocks of requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import numpy.typing as npt

from sim.domain.traffic import BatchJob, ClosedClients, RequestBlock, Source
from sim.errors import Problems
from sim.registry import names
from sim.rng import StreamKey

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
WordArray = npt.NDArray[np.uint64]

# The name of the only segment of a workload that does not divide its users.
ONE_SEGMENT = "all"


@dataclass(frozen=True)
class ExpectedLoad:
    """What is known of a workload before the run; None where it is not.

    Parameters
    ----------
    mean_rate_per_s : mean requests per second over the horizon.
    peak_rate_per_s : highest planned rate (profile, growth and events, without the random noise).
    mean_prompt_tokens, mean_output_tokens : means per request.
    clients : most requests in the system at once (closed loop), else None.
    """

    mean_rate_per_s: float | None = None
    peak_rate_per_s: float | None = None
    mean_prompt_tokens: float | None = None
    mean_output_tokens: float | None = None
    clients: int | None = None


@dataclass
class OpenedSource:
    """An opened workload of one service (`sim.domain.traffic.Source`).

    Parameters
    ----------
    make_blocks : starts a fresh pass over the open arrivals. segments : names, in the order of their numbers in `stream`.
    users : of the open arrivals, in whose blocks `client` is from 1 to this; 0 where it is not known who sends.
    closed : closed-loop clients, or None. jobs : batch jobs, in order of time.
    bad_rows : rows of input that were skipped. inputs : path -> sha256 of files read.
    """

    make_blocks: Callable[[], Iterator[RequestBlock]]
    segments: tuple[str, ...] = (ONE_SEGMENT,)
    users: int = 0
    closed: ClosedClients | None = None
    jobs: tuple[BatchJob, ...] = ()
    bad_rows: int = 0
    inputs: dict[str, str] = field(default_factory=dict)

    def blocks(self) -> Iterator[RequestBlock]:
        """Yield the open arrivals in order of time; every call starts again and yields the same bytes."""
        return self.make_blocks()


@dataclass
class Workload:
    """Base of all workloads: who sends requests to one service, and when.

    A workload is registered with `@register("workload", name)`; its fields are its configuration.
    """

    def problems(self, path: str, problems: Problems) -> None:
        """Add everything that is wrong with the configuration; cheap, and of files only their existence is checked.

        Parameters
        ----------
        path : dotted path of this workload, for instance "services.chat.workload".
        problems : the collector.
        """
        problems.add(path, type(self).__name__, "no workload is chosen", choices=names("workload"))

    def segment_names(self) -> tuple[str, ...] | None:
        """Return the names of the segments, or None where only the opened source knows them."""
        return (ONE_SEGMENT,)

    def largest_items(self) -> int | None:
        """Return how many items its largest request brings; None for a workload whose requests are of tokens."""
        return None

    def is_backlog(self) -> bool:
        """Whether its requests come as batch jobs, which are worked off when nothing else wants the room."""
        return False

    def expected_load(self, start: datetime, horizon_ns: int) -> ExpectedLoad:
        """Return what is known of the load before the run (for the capacity sheet).

        Parameters
        ----------
        start : calendar instant of the scenario start. horizon_ns : length of the run in nanoseconds.
        """
        return ExpectedLoad()

    def open(self, key: StreamKey, start: datetime, horizon_ns: int) -> Source:
        """Open the workload for one run.

        Parameters
        ----------
        key : random streams of this service; only `seed`, `replication` and `entity` matter.
        start : calendar instant of the scenario start. horizon_ns : requests arrive before it, in nanoseconds.

        Raises
        ------
        InputError : a file that cannot be read as configured.
        """
        raise NotImplementedError


def random_words(key: StreamKey, block: int, count: int) -> WordArray:
    """Return 64-bit random words of one block of a stream.

    Parameters
    ----------
    key : the stream. block : its block number. count : how many words.

    Examples
    --------
    >>> random_words(StreamKey(1, 0, "doctest", "chat"), 0, 3).dtype
    dtype('uint64')
    """
    words: WordArray = np.asarray(key.generator(block).bit_generator.random_raw(count), dtype=np.uint64)
    return words


def is_positive(value: float) -> bool:
    """Whether a number is finite and above zero.

    Examples
    --------
    >>> is_positive(2.5), is_positive(0.0), is_positive(float("nan"))
    (True, False, False)
    """
    return bool(np.isfinite(value)) and value > 0
