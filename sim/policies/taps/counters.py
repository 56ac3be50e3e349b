"""The built-in taps: requests and tokens by client, and by stream and window."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sim.domain.traffic import RequestBlock
from sim.errors import Problems
from sim.policies.taps.base import IntArray, OutcomeBlock, Rows, Tap, TapContext
from sim.policies.taps.heavy_hitters import HeavyHitters
from sim.registry import register

ARRIVALS, COMPLETIONS = COUNTS = ("arrivals", "completions")
MOST_CLIENTS = 1_000_000
_CLIENT_BITS = 32
Integers = npt.NDArray[np.signedinteger]


class _Counter(Tap):
    """What both counters share: a choice of what counts, and one way to count it."""

    counts: str

    def problems(self, path: str, problems: Problems) -> None:
        problems.check(self.counts in COUNTS, f"{path}.counts", self.counts, "cannot be counted", choices=COUNTS)

    def start(self, context: TapContext) -> None:
        self.context = context
        self._completed = context.outcomes.index("completed")

    @property
    def sees_arrivals(self) -> bool:
        return self.counts == ARRIVALS

    @property
    def sees_outcomes(self) -> bool:
        return self.counts == COMPLETIONS

    def arrivals(self, block: RequestBlock) -> None:
        self.count(block.arrival_ns, block.stream, block.client, block.prompt_tokens, block.output_tokens)

    def outcomes(self, block: OutcomeBlock) -> None:
        done = block.outcome == self._completed
        columns = (block.leave_ns, block.stream, block.client, block.prompt_tokens, block.output_tokens)
        self.count(*(column[done] for column in columns))

    def count(self, time_ns: IntArray, stream: Integers, client: Integers, prompt: Integers, output: Integers) -> None:
        """Count requests, given by column: time, stream, client, prompt tokens, output tokens."""
        raise NotImplementedError


@register("tap", "clients")
class Clients(_Counter):
    """Requests and tokens of each client of each service: exact up to `capacity` clients, then those with most requests.

    Parameters
    ----------
    counts : "arrivals" (open arrivals, output tokens as asked for) or "completions".
    capacity : most clients kept at a time.
    """

    counts: str = ARRIVALS
    capacity: int = 10_000

    table = "client_counters"

    def problems(self, path: str, problems: Problems) -> None:
        """Add what is wrong with the configuration."""
        super().problems(path, problems)
        within = 1 <= self.capacity <= MOST_CLIENTS
        problems.check(within, f"{path}.capacity", self.capacity, "is out of range", f"1 to {MOST_CLIENTS:,}")

    def start(self, context: TapContext) -> None:
        """Begin a run."""
        super().start(context)
        names = [stream.service for stream in context.streams]
        self._services = sorted(set(names))
        self._service_of = np.array([self._services.index(name) for name in names], np.int64)
        self._hitters = HeavyHitters(self.capacity, sums=2)

    def count(self, time_ns: IntArray, stream: Integers, client: Integers, prompt: Integers, output: Integers) -> None:
        """Count requests, given by column."""
        keys = (self._service_of[stream] << _CLIENT_BITS) + client
        self._hitters.add(keys, [prompt, output])

    def rows(self, until_ns: int, last: bool) -> Rows:
        """Return one row for each client kept, at the end of the run."""
        hitters = self._hitters
        kept = slice(None) if last else slice(0)
        keys = hitters.keys[kept]
        return {
            "service": [self._services[number] for number in (keys >> _CLIENT_BITS).tolist()],
            "client": keys & ((1 << _CLIENT_BITS) - 1),
            "counts": [self.counts] * len(keys),
            "requests": hitters.counts[kept],
            "requests_error": hitters.errors[kept],
            "prompt_tokens": hitters.sums[0][kept],
            "output_tokens": hitters.sums[1][kept],
            "others_at_most": np.full(len(keys), hitters.floor),
        }


@register("tap", "tiers")
class Tiers(_Counter):
    """Requests and tokens of each segment of each service by reporting window: what was asked for, beside what was served.

    Parameters
    ----------
    counts : "arrivals" (by the window of the arrival) or "completions" (by the window of leaving).
    """

    counts: str = ARRIVALS

    table = "tier_counters"

    def start(self, context: TapContext) -> None:
        """Begin a run."""
        super().start(context)
        self._open: dict[int, IntArray] = {}  # window -> (streams, requests and tokens); blocks are drawn ahead, so a few at a time
        self._written = 0

    def count(self, time_ns: IntArray, stream: Integers, client: Integers, prompt: Integers, output: Integers) -> None:
        """Count requests, given by column."""
        streams = len(self.context.streams)
        window = self.context.window_of(time_ns)
        if not len(window):
            return
        first = int(window.min())
        place = (window - first) * streams + stream
        size = (int(window.max()) - first + 1) * streams
        # Sums over one block are whole numbers below 2^53, which floats hold exactly.
        sums = [np.bincount(place, weights, size) for weights in (None, prompt, output)]
        table = np.stack(sums, axis=1).astype(np.int64).reshape(-1, streams, 3)
        for number, counted in enumerate(table, first):
            if counted.any():
                self._open[number] = self._open.get(number, 0) + counted

    def rows(self, until_ns: int, last: bool) -> Rows:
        """Return one row for each stream of each window that has ended, and is not returned yet."""
        ends_ns = self.context.window_ends_ns
        done = range(self._written, int(np.searchsorted(ends_ns, until_ns, side="right")))
        self._written = done.stop
        streams = self.context.streams
        nothing = np.zeros((len(streams), 3), np.int64)
        counted = np.array([self._open.pop(window, nothing) for window in done], np.int64).reshape(-1, 3)
        ends = np.repeat(ends_ns[done.start : done.stop], len(streams))
        starts = np.repeat(np.concatenate([[0], ends_ns])[done.start : done.stop], len(streams))
        return {
            "start_ns": starts,
            "end_ns": ends,
            "stream": [stream.number for stream in streams] * len(done),
            "service": [stream.service for stream in streams] * len(done),
            "segment": [stream.segment for stream in streams] * len(done),
            "counts": [self.counts] * (len(streams) * len(done)),
            "requests": counted[:, 0],
            "prompt_tokens": counted[:, 1],
            "output_tokens": counted[:, 2],
        }
