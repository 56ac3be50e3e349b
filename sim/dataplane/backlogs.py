"""Backlogs in the reference engine: rows that wait to be taken, and requests that were thrown back; the thrown back go first."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from sim.dataplane.state import Request


class Backlog:
    """The backlog of one stream; rows are drawn one ahead, so that it knows whether it is empty."""

    def __init__(self, stream: int, level: int) -> None:
        self.stream, self.level = stream, level
        self.thrown_back: deque[Request] = deque()
        self._rows: deque[Iterator[tuple[int, ...]]] = deque()
        self._head: tuple[int, ...] | None = None

    def submit(self, rows: Iterator[tuple[int, ...]]) -> None:
        """Add rows behind those that are there."""
        self._rows.append(rows)
        self._draw()

    def _draw(self) -> None:
        while self._head is None and self._rows:
            self._head = next(self._rows[0], None)
            if self._head is None:
                self._rows.popleft()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left to take."""
        return not self.thrown_back and self._head is None

    @property
    def next_tokens(self) -> int:
        """KV tokens that the next one needs at its admission: prompt, and what it had generated before it was thrown back."""
        if self.thrown_back:
            return self.thrown_back[0].prompt_tokens + self.thrown_back[0].generated
        assert self._head is not None
        return self._head[1]

    def take_row(self) -> tuple[int, ...]:
        """Take the next row; only where nothing was thrown back."""
        assert self._head is not None
        row, self._head = self._head, None
        self._draw()
        return row
