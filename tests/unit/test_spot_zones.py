"""Spot capacity: each zone keeps its law whatever it shares with others, and zones are as correlated as the market says."""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import replace
from itertools import islice, takewhile

import numpy as np
import pytest
from scipy import stats

from sim.catalog.loader import load_catalog
from sim.control.zones import Sharing, ZoneMarket, availability_phi, sharing
from sim.domain.hardware import Provenance
from sim.domain.spot import Phases, SpotMarket
from sim.units import NS_PER_DAY, NS_PER_HOUR, NS_PER_S

MARKETS = load_catalog().spot_markets
OUTAGES = [name for name, market in MARKETS.items() if market.has_outages]
YEAR_NS = 365 * NS_PER_DAY
# Four standard errors: a right program fails once in 16,000 tries, and seeds are fixed.
ERRORS = 4.0


def zone(name: str, place: str = "us-east-1a", region: str = "us-east-1", seed: int = 1) -> ZoneMarket:
    """A zone of a market of the catalog."""
    return ZoneMarket(MARKETS[name], region, place, "p3.2xlarge", seed)


def timeline(market: ZoneMarket, horizon_ns: int) -> tuple[np.ndarray, bool]:
    """Times of changes up to a horizon and the state at the start; checks that states alternate and times rise."""
    changes = list(takewhile(lambda change: change[0] < horizon_ns, market.changes()))
    times = np.array([time_ns for time_ns, _ in changes], np.int64)
    assert [up for _, up in changes] == [(index % 2 == 1) == market.starts_up for index in range(len(changes))]
    assert (np.diff(times) >= 0).all()
    return times, market.starts_up


def states(market: ZoneMarket, at_ns: np.ndarray) -> np.ndarray:
    """Whether there is capacity at each time."""
    times, starts_up = timeline(market, int(at_ns[-1]) + 1)
    return (np.searchsorted(times, at_ns, side="right") % 2 == 0) == starts_up


def sd_s(phases: Phases) -> float:
    """Standard deviation of a hyperexponential time."""
    second = 2 * (phases.short_share * phases.short_s**2 + (1 - phases.short_share) * phases.long_s**2)
    return math.sqrt(second - phases.mean_s**2)


@pytest.mark.parametrize("name", OUTAGES)
def test_up_and_down_times_are_those_of_the_market(name: str) -> None:
    market = MARKETS[name]
    times, starts_up = timeline(zone(name), 60 * YEAR_NS)
    lengths_s = np.diff(times) / NS_PER_S
    ups, downs = (lengths_s[1::2], lengths_s[::2]) if starts_up else (lengths_s[::2], lengths_s[1::2])
    n = len(ups)
    assert n > 50_000
    for found, phases in ((ups, market.up), (downs, market.down)):
        assert abs(found.mean() - phases.mean_s) < ERRORS * sd_s(phases) / math.sqrt(n)
        law = stats.kstest(
            found, lambda t, p=phases: 1 - p.short_share * np.exp(-t / p.short_s) - (1 - p.short_share) * np.exp(-t / p.long_s)
        )
        assert law.pvalue > 1e-4
    # delta method for the ratio of two means over n renewal cycles
    a, cycle_s = market.availability, market.up.mean_s + market.down.mean_s
    error = math.hypot((1 - a) * sd_s(market.up), a * sd_s(market.down)) / cycle_s / math.sqrt(n)
    assert error < 0.01
    assert abs(ups.sum() / (ups.sum() + downs.sum()) - a) < ERRORS * error


@pytest.mark.parametrize("name", OUTAGES)
@pytest.mark.slow
def test_zones_are_as_correlated_as_the_market_says(name: str) -> None:
    market, years = MARKETS[name], 80
    at_ns = np.arange(0, years * YEAR_NS, 2 * NS_PER_HOUR)
    one = states(zone(name), at_ns)
    for other, phi in ((zone(name, "us-east-1b"), market.region_phi), (zone(name, "us-west-2a", "us-west-2"), market.world_phi)):
        up = states(other, at_ns)
        per_year = [np.corrcoef(a, b)[0, 1] for a, b in zip(np.split(one, years), np.split(up, years), strict=True)]
        error = float(np.std(per_year, ddof=1)) / math.sqrt(years)
        assert error < 0.02
        assert abs(float(np.mean(per_year)) - phi) < ERRORS * error


@pytest.mark.parametrize("name", OUTAGES)
def test_sharing_is_solved_for_the_correlation(name: str) -> None:
    market = MARKETS[name]
    for phi in (market.world_phi, market.region_phi, 0.9):
        assert availability_phi(market, sharing(market, phi)) == pytest.approx(phi, abs=1e-3)
    assert sharing(market, 0.0) == Sharing(0.0, 0.0)
    assert availability_phi(market, Sharing(0.0, 0.0)) == pytest.approx(0.0, abs=1e-9)


def test_the_start_is_stationary() -> None:
    market = MARKETS["aws-v100-tight"]
    ups = sum(zone("aws-v100-tight", seed=seed).starts_up for seed in range(400))
    error = math.sqrt(market.availability * (1 - market.availability) / 400)
    assert abs(ups / 400 - market.availability) < ERRORS * error
    # zones are correlated at the start as later
    both = np.array([[zone("aws-v100-tight", place, seed=seed).starts_up for place in ("a", "b")] for seed in range(400)])
    assert abs(np.corrcoef(both.T)[0, 1] - market.region_phi) < ERRORS / math.sqrt(400)


def test_capacity_is_keyed_and_can_be_asked_for_again() -> None:
    first = list(islice(zone("aws-v100-medium").changes(), 200))
    again = zone("aws-v100-medium")
    assert list(islice(again.changes(), 200)) == first
    assert list(islice(again.changes(), 200)) == first
    market = MARKETS["aws-v100-medium"]
    others = [
        zone("aws-v100-medium", "us-east-1b"),
        zone("aws-v100-medium", seed=2),
        ZoneMarket(market, "us-east-1", "us-east-1a", "p3.8xlarge", 1),
        ZoneMarket(market, "us-east-1", "us-east-1a", "p3.2xlarge", 1, replication=1),
        ZoneMarket(replace(market, name="other"), "us-east-1", "us-east-1a", "p3.2xlarge", 1),
    ]
    assert all(list(islice(other.changes(), 200)) != first for other in others)


def test_memory_does_not_grow_with_time() -> None:
    def peak_bytes(changes: int) -> int:
        stream = zone("aws-v100-tight").changes()
        tracemalloc.start()
        for _ in islice(stream, changes):
            pass
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    peak_bytes(100)
    assert peak_bytes(20_000) < peak_bytes(1_000) + 50_000


def test_a_loss_takes_all_nodes_or_a_batch() -> None:
    market, n, tries = MARKETS["aws-v100-tight"], 16, 20_000
    place = zone("aws-v100-tight")
    lost = np.array([len(place.losses(time_ns, range(n))) for time_ns in range(tries)])
    assert lost.min() >= 1
    share_all = (lost == n).mean()
    assert abs(share_all - market.all_lost) < ERRORS * math.sqrt(market.all_lost * (1 - market.all_lost) / tries)
    # batch of b: U^k n rounds to b, k = 1/m - 1; below 1 counts as 1, above n - 1 as n - 1
    k = 1 / market.batch_mean - 1
    edges = np.concatenate([[0.0], (np.arange(1, n - 1) + 0.5) / n, [1.0]]) ** (1 / k)
    expected = np.diff(edges)
    counts = np.bincount(lost[lost < n], minlength=n)[1:n]
    assert stats.chisquare(counts, expected * counts.sum()).pvalue > 1e-4
    assert float(expected @ np.arange(1, n)) / n == pytest.approx(market.batch_mean, abs=0.02)


def test_who_is_lost_depends_on_the_machine_and_not_on_its_neighbours() -> None:
    place = zone("aws-v100-medium")
    taken = np.zeros(8)
    for time_ns in range(3_000):
        lost = place.losses(time_ns, range(8))
        assert lost == place.losses(time_ns, list(range(8))[::-1])
        assert len(set(lost)) == len(lost)
        if len(lost) < 8:
            taken[lost] += 1
    assert stats.chisquare(taken).pvalue > 1e-4
    assert place.losses(1, []) == []
    assert all(place.losses(time_ns, [3]) == [3] for time_ns in range(50))


def test_advisor_bands_take_machines_one_by_one() -> None:
    place = zone("advisor-10-15")
    assert place.starts_up
    assert list(place.changes()) == []
    lives_h = np.array([place.life_ns(node) for node in range(4_000)], float) / NS_PER_HOUR
    # 12.5 % in a month of 730 h
    hazard = -math.log(1 - 0.125) / 730
    assert MARKETS["advisor-10-15"].hazard_per_hour == pytest.approx(hazard)
    assert stats.kstest(lives_h, "expon", args=(0, 1 / hazard)).pvalue > 1e-4
    assert abs((lives_h < 730).mean() - 0.125) < ERRORS * math.sqrt(0.125 * 0.875 / 4_000)
    assert zone("aws-v100-good").life_ns(1) is None


def test_bands_rise_and_stay_far_below_the_traces() -> None:
    bands = [MARKETS[name].hazard_per_hour for name in MARKETS if name.startswith("advisor")]
    assert bands == sorted(bands)
    assert bands[-1] > 0.0003
    assert all(3600 / MARKETS[name].up.mean_s > 100 * bands[-1] for name in OUTAGES)


def test_a_market_of_ones_own_needs_no_correlation() -> None:
    assumed = Provenance("an example of a test", "2026-01-01", "assumed")
    market = SpotMarket("own", "H100", "2026", assumed, up=Phases(0.5, 100.0, 1000.0), down=Phases(0.0, 300.0, 300.0))
    times, _ = timeline(ZoneMarket(market, "r", "z", "i", 1), YEAR_NS)
    assert len(times) == pytest.approx(2 * 365 * 86_400 / (550 + 300), rel=0.02)
