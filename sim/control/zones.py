"""Spot capacity of zones: when a zone has some, which machines a loss takes, and how zones move together.

A zone is a Markov chain of four states: in or out of capacity, each in a short or a long phase. Staying in a state is exponential
and the next state is drawn on leaving, so up and down times are the market's hyperexponential ones, whatever else happens.

Zones move together by sharing clocks. All ticks at which a zone would leave a state come from three Poisson streams: one of the
world, one of the region and one of its own. Their rates add up to the rate of the state, so each zone alone keeps its law exactly;
two zones that are in the same state when a shared tick comes leave it together, for the same next state. The share of shared ticks
decides the correlation of the zones. `sharing` solves for it: two zones are a chain of sixteen states whose stationary distribution
is a linear system. Long phases share first, because they hold most of the time and few of the losses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from heapq import merge

import numpy as np
import numpy.typing as npt

from sim.domain.spot import SpotMarket
from sim.rng import StreamKey
from sim.units import NS_PER_DAY, NS_PER_HOUR, NS_PER_S

FloatArray = npt.NDArray[np.float64]

UP_SHORT, UP_LONG, DOWN_SHORT, DOWN_LONG = range(4)
_LONG = (UP_LONG, DOWN_LONG)
_STATES = 4
_BLOCK_TICKS = 512
# Zones start apart this long before the run; the slowest phase of the catalog (16 hours) is then long forgotten.
_BEFORE_NS = 30 * NS_PER_DAY
# Shares are rounded so that a last bit of linear algebra cannot move an event on another machine.
_SHARE_DIGITS = 4


@dataclass(frozen=True)
class Sharing:
    """Share of the ticks of short and of long phases that two zones have in common."""

    short: float
    long: float

    def of(self, state: int) -> float:
        """Return the share for a state."""
        return self.long if state in _LONG else self.short

    @classmethod
    def at(cls, position: float) -> Sharing:
        """Return the sharing at a position from 0 (none) over 1 (long phases all, short none) to 2 (all)."""
        return cls(round(max(position - 1.0, 0.0), _SHARE_DIGITS), round(min(position, 1.0), _SHARE_DIGITS))


def _rates_per_s(market: SpotMarket) -> FloatArray:
    return 1.0 / np.array([market.up.short_s, market.up.long_s, market.down.short_s, market.down.long_s])


def _next_states(market: SpotMarket, state: int) -> tuple[tuple[int, float], tuple[int, float]]:
    """Return the states after a state with their probabilities, the short phase first."""
    if state in (UP_SHORT, UP_LONG):
        return (DOWN_SHORT, market.down.short_share), (DOWN_LONG, 1.0 - market.down.short_share)
    return (UP_SHORT, market.up.short_share), (UP_LONG, 1.0 - market.up.short_share)


def _stationary(market: SpotMarket) -> FloatArray:
    """Return the share of the time in each state."""
    parts = [
        share * mean_s
        for phases in (market.up, market.down)
        for share, mean_s in ((phases.short_share, phases.short_s), (1.0 - phases.short_share, phases.long_s))
    ]
    return np.array(parts) / sum(parts)


def availability_phi(market: SpotMarket, shared: Sharing) -> float:
    """Return the correlation of the capacity of two zones that share ticks, exactly.

    Parameters
    ----------
    market : with up and down times. shared : by the two zones.

    Notes
    -----
    The stationary distribution of the pair's sixteen states, from the balance equations.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> tight = load_catalog().spot_markets["aws-v100-tight"]
    >>> round(availability_phi(tight, Sharing(1.0, 1.0)), 6), round(abs(availability_phi(tight, Sharing(0.0, 0.0))), 6)
    (1.0, 0.0)
    """
    rates = _rates_per_s(market)
    flow = np.zeros((_STATES, _STATES, _STATES, _STATES))
    for one in range(_STATES):
        for other in range(_STATES):
            common = shared.of(one) if one == other else 0.0
            for target, probability in _next_states(market, one):
                flow[one, other, target, other] += (1.0 - common) * rates[one] * probability
                flow[one, other, target, target] += common * rates[one] * probability
            for target, probability in _next_states(market, other):
                flow[one, other, one, target] += (1.0 - common) * rates[other] * probability
    generator = flow.reshape(_STATES**2, _STATES**2)
    generator -= np.diag(generator.sum(axis=1))
    # Balance equations and the sum of the probabilities; with everything shared unequal pairs die out, which least squares bears.
    equations = np.vstack([generator.T / rates.max(), np.ones(_STATES**2)])
    pair = np.linalg.lstsq(equations, np.append(np.zeros(_STATES**2), 1.0), rcond=None)[0].reshape(_STATES, _STATES)
    up = float(pair[:DOWN_SHORT].sum())
    both_up = float(pair[:DOWN_SHORT, :DOWN_SHORT].sum())
    return (both_up - up * up) / (up * (1.0 - up))


@lru_cache(maxsize=64)
def sharing(market: SpotMarket, phi: float) -> Sharing:
    """Return the sharing that gives two zones this correlation of capacity, by bisection of `availability_phi`.

    Parameters
    ----------
    phi : 0 to 1.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> medium = load_catalog().spot_markets["aws-v100-medium"]
    >>> round(availability_phi(medium, sharing(medium, 0.40)), 3)
    0.4
    """
    if phi <= 0:
        return Sharing(0.0, 0.0)
    low, high = 0.0, 2.0
    while high - low > 10.0 ** -(_SHARE_DIGITS + 1):
        middle = (low + high) / 2
        if availability_phi(market, Sharing.at(middle)) < phi:
            low = middle
        else:
            high = middle
    return Sharing.at(high)


# Time, state it makes zones leave, and a uniform number that decides where to.
_Tick = tuple[int, int, float]


def _ticks(key: StreamKey, rates_per_s: FloatArray) -> Iterator[_Tick]:
    """Yield the ticks of one Poisson stream from before the start of the run, without end; nothing where no rate is positive."""
    total = float(rates_per_s.sum())
    if total <= 0:
        return
    edges = np.cumsum(rates_per_s) / total
    now_ns, block = -_BEFORE_NS, 0
    while True:
        generator = key.generator(block)
        gaps_ns = np.rint(generator.standard_exponential(_BLOCK_TICKS) * (NS_PER_S / total)).astype(np.int64)
        times_ns = now_ns + np.cumsum(gaps_ns)
        states = np.minimum(np.searchsorted(edges, generator.random(_BLOCK_TICKS), side="right"), _STATES - 1)
        choices = generator.random(_BLOCK_TICKS)
        yield from zip(times_ns.tolist(), states.tolist(), choices.tolist(), strict=True)
        now_ns, block = int(times_ns[-1]), block + 1


class ZoneMarket:
    """Spot capacity for one instance type in one zone.

    Everything is drawn from streams keyed by market, place and instance type: the same seed gives the same capacity under every
    policy, and two pools of one type in one zone see the same one. Memory is constant in the length of the run.

    Parameters
    ----------
    market : catalog row. region, zone, instance : names. seed, replication : of the scenario.

    Examples
    --------
    >>> from itertools import islice
    >>> from sim.catalog.loader import load_catalog
    >>> zone = ZoneMarket(load_catalog().spot_markets["aws-v100-medium"], "us-east-1", "us-east-1a", "p3.2xlarge", seed=1)
    >>> ups = [up for _, up in islice(zone.changes(), 4)]
    >>> ups == [not zone.starts_up, zone.starts_up] * 2
    True
    """

    def __init__(self, market: SpotMarket, region: str, zone: str, instance: str, seed: int, replication: int = 0) -> None:
        self.market = market
        kind = f"{market.name}/{instance}"
        places = (kind, f"{kind}/{region}", f"{kind}/{region}/{zone}")
        self._keys = [StreamKey(seed, replication, "spot capacity", place) for place in places]
        self._own = self._keys[-1]
        self.starts_up = self._start_state() < DOWN_SHORT if market.has_outages else True

    def changes(self) -> Iterator[tuple[int, bool]]:
        """Yield (time in ns, whether there is capacity from then on) after the start of the run, in order, without end.

        Nothing where capacity is always there.
        """
        if not self.market.has_outages:
            return
        for time_ns, state in self._jumps():
            if time_ns > 0:
                yield time_ns, state < DOWN_SHORT

    def losses(self, time_ns: int, nodes: Sequence[int]) -> list[int]:
        """Return the machines lost when capacity goes: all of the zone, or a batch of at least one and not all.

        Parameters
        ----------
        time_ns : of the change. nodes : numbers of the spot machines in the zone.

        Notes
        -----
        A batch takes the share U^(1/m - 1) of the machines, U uniform, which has mean m = `batch_mean` and for m = 0.41 the
        quartiles 0.14, 0.37 and 0.66; the 16-node traces have 0.13, 0.31 and 0.66. A single machine is always lost, so that its
        life is the market's up time.

        Examples
        --------
        >>> from sim.catalog.loader import load_catalog
        >>> zone = ZoneMarket(load_catalog().spot_markets["aws-v100-good"], "us-east-1", "us-east-1a", "p3.2xlarge", seed=1)
        >>> zone.losses(5, [7])
        [7]
        """
        generator = self._own.about("spot losses").generator(time_ns)
        all_lost, share = generator.random(2)
        if len(nodes) < 2 or all_lost < self.market.all_lost:
            return sorted(nodes)
        wanted = round(share ** (1.0 / self.market.batch_mean - 1.0) * len(nodes))
        batch = min(max(wanted, 1), len(nodes) - 1)
        # Who goes is decided by the machine and the moment, not by which others are there.
        order = {node: float(self._own.about(f"spot loss order {node}").generator(time_ns).random()) for node in nodes}
        return sorted(sorted(nodes, key=lambda node: (order[node], node))[:batch])

    def life_ns(self, node: int) -> int | None:
        """Return how long a machine runs until it is interrupted for itself alone; None where that does not happen.

        Parameters
        ----------
        node : number of the machine. The time counts from RUNNING and is exponential (`SpotMarket.hazard_per_hour`).
        """
        hazard_per_hour = self.market.hazard_per_hour
        if hazard_per_hour <= 0:
            return None
        drawn = float(self._own.about("spot life").generator(node).standard_exponential())
        return round(drawn / hazard_per_hour * NS_PER_HOUR)

    def _start_state(self) -> int:
        state = self._first_state()
        for time_ns, later in self._jumps():
            if time_ns > 0:
                break
            state = later
        return state

    def _first_state(self) -> int:
        edges = np.cumsum(_stationary(self.market))
        drawn = self._own.about("spot first state").generator().random()
        return min(int(np.searchsorted(edges, drawn, side="right")), _STATES - 1)

    def _jumps(self) -> Iterator[tuple[int, int]]:
        """Yield (time, state entered) from before the start of the run."""
        world, region = (sharing(self.market, phi) for phi in (self.market.world_phi, self.market.region_phi))
        rates = _rates_per_s(self.market)
        of_world = np.array([world.of(state) for state in range(_STATES)])
        of_region = np.array([region.of(state) for state in range(_STATES)])
        layers = (of_world, of_region - of_world, 1.0 - of_region)
        streams = [_ticks(key, rates * share) for key, share in zip(self._keys, layers, strict=True)]
        state = self._first_state()
        for time_ns, leaves, choice in merge(*streams, key=lambda tick: tick[0]):
            if leaves == state:
                (short, probability), (long, _) = _next_states(self.market, state)
                state = short if choice < probability else long
                yield time_ns, state
