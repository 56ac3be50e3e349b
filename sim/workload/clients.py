"""Closed-loop clients: each sends its next request a think time after the previous one has left."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import numpy as np

from sim.domain.traffic import RequestBlock, Source
from sim.errors import Problems
from sim.registry import register
from sim.rng import StreamKey
from sim.units import NS_PER_DAY, NS_PER_S
from sim.workload.base import ExpectedLoad, IntArray, OpenedSource, Workload, random_words
from sim.workload.lengths import RequestLengths, SegmentShares
from sim.workload.presets import check_preset, preset
from sim.workload.specs import TokenLengths, check_segments, segment_names, segment_shares

THINK_FAMILIES = ("fixed", "exponential")
CLIENT_BLOCK_REQUESTS = 256
MAX_CLIENTS = 100_000


@dataclass
class ThinkingClients:
    """Clients keyed by (client, block): what a client sends next depends on nobody else (`sim.domain.traffic.ClosedClients`).

    Parameters
    ----------
    clients : how many. think_ns : mean think time. exponential : drawn, else fixed. lengths, segments, key : as in a workload.
        A client keeps its segment for good.
    """

    clients: int
    think_ns: int
    exponential: bool
    lengths: RequestLengths
    segments: SegmentShares
    key: StreamKey

    def rows(self, client: int, block: int) -> RequestBlock:
        """Return the client's requests number 256 block, ... with the pause before each; the first row's is since the start.

        The first pause is what is left of a think time at a random moment, so clients do not start in step.

        Parameters
        ----------
        client : 0 <= client < clients. block : 0, 1, 2, ...
        """
        own = StreamKey(self.key.seed, self.key.replication, "workload/requests", f"{self.key.entity}/client {client}")
        words = random_words(own, block, CLIENT_BLOCK_REQUESTS)
        prompt, output = self.lengths.draw(words)
        segment = int(self.segments.draw(random_words(own.about("workload/segment"), 0, 1))[0])
        return RequestBlock.of(
            arrival_ns=self._pauses_ns(own.about("workload/think"), block),
            prompt_tokens=prompt,
            output_tokens=output,
            stream=np.full(len(words), segment, np.int32),
            client=np.full(len(words), client, np.int32),
            turn=np.arange(block * CLIENT_BLOCK_REQUESTS, (block + 1) * CLIENT_BLOCK_REQUESTS, dtype=np.int32),
            tag=words,
        )

    def _pauses_ns(self, key: StreamKey, block: int) -> IntArray:
        draws = key.generator(block)
        if self.exponential:
            pauses_s = draws.standard_exponential(CLIENT_BLOCK_REQUESTS) * (self.think_ns / NS_PER_S)
            return np.rint(pauses_s * NS_PER_S).astype(np.int64)
        pauses_ns = np.full(CLIENT_BLOCK_REQUESTS, self.think_ns, np.int64)
        if block == 0:
            pauses_ns[0] = int(self.think_ns * draws.random())
        return pauses_ns


@register("workload", "closed_loop")
@dataclass
class ClosedLoop(Workload):
    """A fixed number of clients, each with at most one request in the system.

    Parameters
    ----------
    clients : how many. think_s : mean pause between a reply and the next request. think_family : "fixed" or "exponential".
    lengths_preset, prompt, output, spearman : lengths; spearman None is the preset's. segments : name -> share of the clients.
    """

    clients: int = 1
    think_s: float = 0.0
    think_family: str = "exponential"
    lengths_preset: str = "chat-azure-2023"
    prompt: TokenLengths = field(default_factory=TokenLengths)
    output: TokenLengths = field(default_factory=TokenLengths)
    spearman: float | None = None
    segments: dict[str, float] = field(default_factory=dict)

    def problems(self, path: str, problems: Problems) -> None:
        """Add everything that is wrong with the configuration."""
        within = 1 <= self.clients <= MAX_CLIENTS
        problems.check(within, f"{path}.clients", self.clients, "must be a number of clients", f"1 to {MAX_CLIENTS}")
        longest_s = NS_PER_DAY // NS_PER_S
        problems.check(0 <= self.think_s <= longest_s, f"{path}.think_s", self.think_s, "must be seconds", f"0 to {longest_s}")
        known = self.think_family in THINK_FAMILIES
        problems.check(known, f"{path}.think_family", self.think_family, "is not a family of think times", choices=THINK_FAMILIES)
        within = self.spearman is None or -0.99 <= self.spearman <= 0.99
        problems.check(within, f"{path}.spearman", self.spearman, "is out of range", "-0.99 to 0.99")
        check_preset(self.lengths_preset, f"{path}.lengths_preset", problems)
        self.prompt.problems(f"{path}.prompt", problems)
        self.output.problems(f"{path}.output", problems)
        check_segments(self.segments, f"{path}.segments", problems)

    def segment_names(self) -> tuple[str, ...]:
        """Return the names of the segments."""
        return segment_names(self.segments)

    def expected_load(self, start: datetime, horizon_ns: int) -> ExpectedLoad:
        """Return the mean lengths and the number of clients; the rate depends on the service."""
        lengths = self._lengths()
        return ExpectedLoad(mean_prompt_tokens=lengths.prompt.mean, mean_output_tokens=lengths.output.mean, clients=self.clients)

    def open(self, key: StreamKey, start: datetime, horizon_ns: int) -> Source:
        """Open the clients; see `Workload.open`."""
        closed = ThinkingClients(
            clients=self.clients,
            think_ns=round(self.think_s * NS_PER_S),
            exponential=self.think_family == "exponential",
            lengths=self._lengths(),
            segments=SegmentShares(segment_shares(self.segments)),
            key=key,
        )
        return OpenedSource(lambda: iter(()), segments=self.segment_names(), closed=closed)

    def _lengths(self) -> RequestLengths:
        base = preset(self.lengths_preset)
        spearman = base.spearman if self.spearman is None else self.spearman
        return RequestLengths(self.prompt.distribution(base.prompt), self.output.distribution(base.output), spearman)
