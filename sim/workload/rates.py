"""The rate of requests over time: base x hour-of-week weight x growth x events x exp(OU - sd^2/2), on a grid of small cells.

The rate is constant inside a cell (60 s or less, at most 1/20 of the noise's correlation time). Weights are interpolated linearly
between hour centres, so nothing jumps on the hour, and the interpolation keeps the mean of every hour of the profile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import accumulate
from math import exp, log, sqrt

import numpy as np
import numpy.typing as npt

from sim.rng import StreamKey
from sim.units import NS_PER_DAY, NS_PER_HOUR, NS_PER_S
from sim.workload.base import FloatArray, IntArray

HOURS_PER_WEEK = 168
CHUNK_CELLS = 256
MONTH_NS = NS_PER_DAY * 365.25 / 12

# Divisors of half an hour: no cell straddles an hour or the centre of one.
_CELL_LENGTHS_S = (60, 30, 20, 15, 12, 10, 6, 5, 4, 3, 2, 1)
_CELLS_PER_TAU = 20


@dataclass(frozen=True)
class RateEvent:
    """A dated factor on the rate: 1 before, in a straight line to `factor`, there for a while, and back to 1 by halves.

    Parameters
    ----------
    start_ns : since the scenario start; may be negative. factor : multiplies the rate at the event's height.
    rise_ns : from 1 to the factor. duration_ns : at the factor.
    half_life_ns : in which what is left of the change halves afterwards; 0 ends it at once.
    """

    start_ns: int
    duration_ns: int
    factor: float
    rise_ns: int = 0
    half_life_ns: int = 0

    def mean_factor(self, edges_ns: IntArray) -> FloatArray:
        """Return the mean factor in each cell, exactly: the integral of the factor over the cell, by its length.

        Parameters
        ----------
        edges_ns : int64, shape (n + 1,), not decreasing. Returns float64, shape (n,).

        Examples
        --------
        >>> RateEvent(0, 10, 3.0, rise_ns=10, half_life_ns=5).mean_factor(np.array([-10, 0, 10, 20])).tolist()
        [1.0, 2.0, 3.0]
        """
        risen_ns = self.start_ns + self.rise_ns
        inside_ns = np.diff(np.clip(edges_ns, risen_ns, risen_ns + self.duration_ns)).astype(np.float64)
        if self.rise_ns:
            rising_ns = np.clip(edges_ns - self.start_ns, 0, self.rise_ns)
            inside_ns += np.diff(rising_ns) * ((rising_ns[:-1] + rising_ns[1:]) / (2 * self.rise_ns))
        if self.half_life_ns:
            # From differences, so that the float of a late time is never a difference of large numbers.
            rate = log(2) / self.half_life_ns
            falling_ns = np.maximum(edges_ns - risen_ns - self.duration_ns, 0)
            inside_ns += np.exp(-rate * falling_ns[:-1]) * -np.expm1(-rate * np.diff(falling_ns)) / rate
        factor: FloatArray = 1.0 + (self.factor - 1.0) * (inside_ns / np.maximum(np.diff(edges_ns), 1))
        return factor


@dataclass(frozen=True)
class RateChunk:
    """The rate in consecutive cells.

    Parameters
    ----------
    edges_ns : int64, shape (n + 1,), times since the scenario start, not decreasing.
    rate_per_s : float64, shape (n,).
    """

    edges_ns: IntArray
    rate_per_s: FloatArray


def hour_nodes(weights: npt.ArrayLike) -> FloatArray:
    """Return the values at hour centres whose linear interpolation has the given mean in every hour of the week.

    Parameters
    ----------
    weights : 7 x 24 (Monday first, UTC) or 168 numbers, not negative; scaled to mean 1.

    Notes
    -----
    The mean of hour h under linear interpolation is (v[h-1] + 6 v[h] + v[h+1]) / 8. The inverse of this cyclic filter is
    v[h] = sqrt(2) sum_k r^|k| w[h+k] with r = 2 sqrt(2) - 3; beyond 24 hours r^|k| is below the last bit. Where a profile is so
    ragged that a node would be negative the weights themselves are the nodes: the week's mean stays exact, hours are smoothed.

    Examples
    --------
    >>> bool(np.allclose(hour_nodes(np.full((7, 24), 3.0)), 1.0))
    True
    """
    flat = np.asarray(weights, dtype=np.float64).ravel()
    if flat.size != HOURS_PER_WEEK or not np.all(np.isfinite(flat)) or flat.min() < 0 or flat.sum() <= 0:
        raise ValueError(f"a week profile needs {HOURS_PER_WEEK} weights that are not negative and not all zero")
    flat = flat / flat.mean()
    ratio = 2 * sqrt(2) - 3
    nodes = sqrt(2) * sum((ratio ** abs(shift) * np.roll(flat, -shift) for shift in range(-24, 25)), np.zeros(HOURS_PER_WEEK))
    return nodes if nodes.min() >= 0 else flat


@dataclass(frozen=True)
class RateModel:
    """A rate that varies over the week, grows, meets events and wanders.

    Parameters
    ----------
    base_per_s : mean rate over a week, at the scenario start (before growth). weights : 7 x 24 hour-of-week weights, UTC.
    noise_sd, noise_tau_s : standard deviation and correlation time of the Ornstein-Uhlenbeck log-rate; sd 0 for none.
    growth_per_month : 0.1 is 10 % a month of 365.25 / 12 days, compounded continuously. events : dated factors.
    """

    base_per_s: float
    weights: npt.ArrayLike = field(default_factory=lambda: np.ones((7, 24)))
    noise_sd: float = 0.0
    noise_tau_s: float = 300.0
    growth_per_month: float = 0.0
    events: tuple[RateEvent, ...] = ()

    @property
    def cell_ns(self) -> int:
        """Length of a cell in nanoseconds."""
        finest = self.noise_tau_s / _CELLS_PER_TAU if self.noise_sd > 0 else _CELL_LENGTHS_S[0]
        return next((length for length in _CELL_LENGTHS_S if length <= finest), _CELL_LENGTHS_S[-1]) * NS_PER_S

    def planned(self, start: datetime, horizon_ns: int) -> Iterator[RateChunk]:
        """Yield the rate without its noise, chunk by chunk, up to the horizon.

        Parameters
        ----------
        start : calendar instant of the scenario start. horizon_ns : end, in nanoseconds since the start.
        """
        moment = start.astimezone(UTC)
        into_hour_ns = (moment.minute * 60 + moment.second) * NS_PER_S + moment.microsecond * 1_000
        first_hour, cell_ns, nodes = moment.weekday() * 24 + moment.hour, self.cell_ns, hour_nodes(self.weights)
        cells = np.arange(CHUNK_CELLS + 1, dtype=np.int64)
        for first in range(0, -((-horizon_ns - into_hour_ns) // cell_ns), CHUNK_CELLS):
            since_hour_ns = (first + cells) * cell_ns
            edges_ns = np.clip(since_hour_ns - into_hour_ns, 0, horizon_ns)
            middle_ns = since_hour_ns[:-1] + cell_ns // 2
            rate_per_s = self.base_per_s * _interpolated(nodes, first_hour, middle_ns)
            if self.growth_per_month:
                # A smooth factor of a calendar quantity: no event time comes out of this float.
                rate_per_s *= (1.0 + self.growth_per_month) ** ((middle_ns - into_hour_ns) / MONTH_NS)
            for event in self.events:
                rate_per_s *= event.mean_factor(edges_ns)
            yield RateChunk(edges_ns, rate_per_s)

    def chunks(self, key: StreamKey, start: datetime, horizon_ns: int) -> Iterator[RateChunk]:
        """Yield the rate with its noise: the exact discretisation of a stationary OU process, one value a cell.

        Source: Gillespie, Phys. Rev. E 54, 2084 (1996): x' = x e^(-dt/tau) + sd sqrt(1 - e^(-2 dt/tau)) N(0, 1).
        """
        if self.noise_sd == 0:
            yield from self.planned(start, horizon_ns)
            return
        decay = exp(-self.cell_ns / NS_PER_S / self.noise_tau_s)
        kick = self.noise_sd * sqrt(1.0 - decay * decay)
        stream = key.about("workload/rate-noise")
        level = self.noise_sd * float(stream.about("workload/rate-noise-start").generator().standard_normal())
        for number, chunk in enumerate(self.planned(start, horizon_ns)):
            kicks = (kick * stream.generator(number).standard_normal(CHUNK_CELLS)).tolist()
            levels = list(accumulate(kicks, lambda x, e: decay * x + e, initial=level))[1:]
            level = levels[-1]
            yield RateChunk(chunk.edges_ns, chunk.rate_per_s * np.exp(np.asarray(levels) - self.noise_sd**2 / 2))

    def mean_and_peak_per_s(self, start: datetime, horizon_ns: int) -> tuple[float, float]:
        """Return the mean and the highest planned rate over the horizon, in requests per second."""
        requests, peak_per_s = 0.0, 0.0
        for chunk in self.planned(start, horizon_ns):
            lengths_ns = np.diff(chunk.edges_ns)
            requests += float(np.sum(chunk.rate_per_s * (lengths_ns / NS_PER_S)))
            peak_per_s = max(peak_per_s, float(chunk.rate_per_s[lengths_ns > 0].max(initial=0.0)))
        return requests / (horizon_ns / NS_PER_S), peak_per_s


def _interpolated(nodes: FloatArray, first_hour: int, middle_ns: IntArray) -> FloatArray:
    half_hours, within_ns = np.divmod(middle_ns, NS_PER_HOUR // 2)
    before = (first_hour + (half_hours - 1) // 2) % HOURS_PER_WEEK
    fraction = ((half_hours % 2 == 0) * (NS_PER_HOUR // 2) + within_ns) / NS_PER_HOUR
    value: FloatArray = nodes[before] * (1.0 - fraction) + nodes[(before + 1) % HOURS_PER_WEEK] * fraction
    return value
