"""A shared link: transfers from one store, each with a rate of its own, that together cannot go faster than the store."""

from __future__ import annotations

from dataclasses import dataclass

import simpy

from sim.units import NS_PER_S


@dataclass
class _Transfer:
    """A transfer under way; sizes and rates in bytes and bytes per second."""

    left_bytes: float
    own_rate: float
    done: simpy.Event
    rate: float = 0.0


class SharedLink:
    """Transfers that share a capacity: every one gets its own rate if all fit, else the capacity is shared fairly.

    Fair means max-min: nobody gets more than its own rate, and what one leaves is divided among the others. Rates change when a
    transfer starts or ends.

    Parameters
    ----------
    capacity_bytes_per_s : of all transfers together; None for no common limit.
    """

    def __init__(self, env: simpy.Environment, capacity_bytes_per_s: float | None) -> None:
        self.env, self.capacity = env, capacity_bytes_per_s
        self._transfers: list[_Transfer] = []
        self._since_ns = 0
        self._change = 0

    def transfer(self, size_bytes: float, alone_ns: int) -> simpy.Event:
        """Start a transfer that would take `alone_ns` by itself; the event returned comes at its end."""
        if self.capacity is None or alone_ns <= 0 or size_bytes <= 0:
            return self.env.timeout(max(alone_ns, 0))
        self._move()
        done = self.env.event()
        self._transfers.append(_Transfer(size_bytes, size_bytes * NS_PER_S / alone_ns, done))
        self._share()
        return done

    def _move(self) -> None:
        """Let every transfer progress to now."""
        elapsed_s = (int(self.env.now) - self._since_ns) / NS_PER_S
        for transfer in self._transfers:
            transfer.left_bytes -= transfer.rate * elapsed_s
        self._since_ns = int(self.env.now)

    def _share(self) -> None:
        """Divide the capacity anew and wake up at the next end."""
        assert self.capacity is not None
        left, waiting = self.capacity, len(self._transfers)
        for transfer in sorted(self._transfers, key=lambda transfer: transfer.own_rate):
            transfer.rate = min(transfer.own_rate, left / waiting)
            left -= transfer.rate
            waiting -= 1
        self._change += 1
        if self._transfers:
            next_s = min(transfer.left_bytes / transfer.rate for transfer in self._transfers)
            wake = self.env.timeout(max(round(next_s * NS_PER_S), 1), value=self._change)
            assert wake.callbacks is not None
            wake.callbacks.append(self._on_wake)

    def _on_wake(self, event: simpy.Event) -> None:
        if event.value != self._change:
            return  # the shares have changed since this was set
        self._move()
        # What is left after rounding the wake-up to a nanosecond is less than a nanosecond's worth.
        done = [transfer for transfer in self._transfers if transfer.left_bytes <= transfer.rate / NS_PER_S]
        self._transfers = [transfer for transfer in self._transfers if transfer not in done]
        self._share()
        for transfer in done:
            transfer.done.succeed()
