"""The compiled engine, first part: what the kernel asks Python for between two events (arrivals, rows, room, a router's choice)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.dataplane import kernel
from sim.dataplane import kernel_doors as doors
from sim.dataplane import kernel_layout as k
from sim.dataplane.engine import DataPlane, Hit, IntArray, PlaneConfig, ReplicaTotals, checked_rows
from sim.dataplane.memory import Memory
from sim.domain.traffic import BLOCK_DTYPES, ClosedClients, RequestBlock
from sim.policies.routers import comparable

ROW_COLUMNS = (
    "arrival_ns",
    "prompt_tokens",
    "output_tokens",
    "stream",
    "session",
    "turn",
    "prefix",
    "prefix_tokens",
    "deadline_ns",
    "tag",
    "client",
)


def _columns(block: RequestBlock) -> tuple[npt.NDArray[Any], ...]:
    """The columns of a block as the kernel wants them: contiguous, writeable, the random word as a signed integer."""
    columns = []
    for name in BLOCK_DTYPES:
        column = np.require(getattr(block, name), requirements=["C", "W", "A"])
        columns.append(column.view(np.int64) if name == "tag" else column)
    return tuple(columns)


def pieces(block: RequestBlock, size: int) -> Iterator[IntArray]:
    """The rows of a block as the kernel wants them one by one, so many at a time."""
    columns = [getattr(block, name) for name in ROW_COLUMNS]
    rows = np.stack([column.view(np.int64) if column.dtype == np.uint64 else column.astype(np.int64) for column in columns], 1)
    for at in range(0, len(rows), size):
        yield rows[at : at + size]


class Feeding(DataPlane):
    """The kernel and its memory, fed."""

    def __init__(self, config: PlaneConfig, arrivals: Iterable[RequestBlock], clients: ClosedClients | None = None) -> None:
        self.config, self.clients = config, clients
        self.memory = Memory(config, clients.clients if clients else 0)
        self.index_of: dict[int, int] = {}
        self.hits: deque[Hit] = deque()
        self.routes = [config.everywhere(stream) for stream in range(len(config.streams))]
        self.retired: list[ReplicaTotals] = []
        self.replicas_added = self.draining = 0
        self._records: list[IntArray] = []
        self._nothing = np.zeros(0, np.int64)
        self._blocks = checked_rows(config, arrivals)
        # By place in `config.backlogs`: what was submitted, in pieces of rows.
        self._submitted: list[deque[Iterator[IntArray]]] = [deque() for _ in config.backlogs]
        self._block = _columns(RequestBlock.of(arrival_ns=()))
        self._client_rows = [self._rows_of(client) for client in range(self.memory.clients)]
        for client in range(self.memory.clients):
            self._feed_client(client, config.start_ns)

    # Feeding the kernel

    def _rows_of(self, client: int) -> Iterator[IntArray]:
        """Rows of a client, a few at a time."""
        assert self.clients is not None
        number = 0
        while len(block := self.clients.rows(client, number)):
            for checked in checked_rows(self.config, [block]):
                yield from pieces(checked, k.ROWS_AT_HAND)
            number += 1

    def _feed_client(self, client: int, from_ns: int) -> None:
        rows = next(self._client_rows[client], None)
        if rows is None:
            return
        m = self.memory.m
        at = int(m[k.CLIENTS_AT]) + client * k.CLIENT_WIDTH
        m[at + k.C_NEXT], m[at + k.C_COUNT] = 0, len(rows)
        m[at + k.C_ROWS : at + k.C_ROWS + rows.size] = rows.ravel()
        doors.schedule_client(m, client, from_ns, int(m[k.CLIENT_LEAVES]))

    def _feed_clients(self) -> None:
        m = self.memory.m
        pending = self.memory.region(k.PENDING_CLIENTS_AT)[: int(m[k.PENDING_CLIENTS]) * k.PENDING_WIDTH].copy()
        m[k.PENDING_CLIENTS] = 0
        for client, from_ns in pending.reshape(-1, k.PENDING_WIDTH).tolist():
            self._feed_client(client, from_ns)

    def _feed_backlogs(self) -> None:
        """Let every backlog have the rows at hand that one event could take."""
        memory = self.memory
        m = memory.m
        while memory.backlog_need and m[k.SLOT_CAPACITY] - m[k.IN_FLIGHT] <= memory.backlog_need:
            memory.grow(slots=2)
            m = memory.m
        m[k.BACKLOG_LOW] = 0
        backlogs = memory.region(k.BACKLOGS_AT).reshape(-1, memory.backlog_width)
        for backlog, submitted in zip(backlogs, self._submitted, strict=True):
            while backlog[k.B_COUNT] - backlog[k.B_NEXT] < memory.backlog_need and submitted:
                rows = next(submitted[0], None)
                if rows is None:
                    submitted.popleft()
                    continue
                left = backlog[k.B_ROWS + backlog[k.B_NEXT] * k.ROW_WIDTH : k.B_ROWS + backlog[k.B_COUNT] * k.ROW_WIDTH].copy()
                all_rows = np.concatenate([left, rows.ravel()])
                backlog[k.B_ROWS : k.B_ROWS + len(all_rows)] = all_rows
                backlog[k.B_NEXT], backlog[k.B_COUNT] = 0, len(all_rows) // k.ROW_WIDTH
            backlog[k.B_FINISHED] = not submitted

    def _next_block(self) -> None:
        for block in self._blocks:
            if len(block):
                self._block = _columns(block)
                self.memory.m[k.NEXT_ARRIVAL] = 0
                return
        self.memory.m[k.LAST_BLOCK] = 1

    def _call(self, redispatched: IntArray, until_ns: int) -> int:
        """Let the kernel work until it has reached its end or a watch fires, giving it what it asks for."""
        memory = self.memory
        while True:
            reason: int = kernel.advance(memory.m, memory.f, redispatched, until_ns, *self._block)
            if reason == k.REACHED or reason == k.HIT:
                return reason
            if reason == k.NEEDS_ARRIVALS:
                self._next_block()
            elif reason == k.NEEDS_ROWS:
                self._feed_clients()
            elif reason == k.NEEDS_SLOTS:
                memory.grow(slots=2)
            elif reason == k.NEEDS_HEAP:
                memory.grow(heap=2)
            elif reason == k.NEEDS_BACKLOG:
                self._feed_backlogs()
            elif reason == k.NEEDS_RECORDS:
                self._keep_records()
            else:
                self._ask_router()

    def _keep_records(self) -> None:
        m = self.memory.m
        if m[k.RECORDS]:
            self._records.append(self.memory.region(k.RECORDS_AT)[: int(m[k.RECORDS]) * k.RECORD_WIDTH].copy())
            m[k.RECORDS] = 0

    def _ask_router(self) -> None:
        """Score the candidates for the undecided request with a router that could not be compiled."""
        m, router = self.memory.m, self.config.router
        q, params = self._request(m[k.UNDECIDED]), router.params()
        scores = []
        for index in range(int(m[k.REPLICAS_USED])):
            r = self._row(index)
            if doors.is_candidate(m, r, q):
                spec = self.config.specs[m[r + k.R_SPEC]]
                outstanding, running, reserved = (int(m[r + word]) for word in (k.R_OUTSTANDING, k.R_RUNNING, k.R_RESERVED))
                load = outstanding + int(m[r + k.R_BACKLOG])
                features = (load, load - running, running, reserved, spec.kv_tokens, spec.seats, spec.weight)
                scores.append((comparable(router.score(features, params)), index))
        m[k.CHOICE] = min(scores)[1]

    def _row(self, index: int) -> int:
        return int(self.memory.m[k.REPLICAS_AT]) + index * self.memory.replica_width

    def _request(self, slot: int) -> int:
        return int(self.memory.m[k.SLOTS_AT] + slot * k.SLOT_WIDTH)
