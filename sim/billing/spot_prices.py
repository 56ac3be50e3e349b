"""Spot prices: the path of a zone over a whole run, as dated prices.

The ratio of spot to on-demand moves in logarithms, day by day: the return of a day is a drift that persists (AR(1)) plus white
noise, reflected between a floor and a ceiling. A day's move is made in one to a few equal steps at random moments, so that the
price of a day's end is that of the daily model. Zones share a part of every innovation with their region and with the world.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import ROUND_FLOOR, ROUND_HALF_EVEN, Decimal

import numpy as np
import numpy.typing as npt

from sim.billing.rates import Rate, rate_at
from sim.domain.spot import SpotPrice
from sim.rng import StreamKey
from sim.units import NS_PER_DAY, nano_usd

FloatArray = npt.NDArray[np.float64]

# AWS lists spot prices with four decimals (describe-spot-price-history, 2021-05 to 2024-05; published).
_TICK_USD = Decimal("0.0001")
# The 95th percentile of a standard normal.
_Z95 = 1.6448536269514722
_HOURS_PER_DAY = 24.0


@dataclass(frozen=True)
class SpotPlace:
    """What a price path belongs to, and the streams it is drawn from.

    Parameters
    ----------
    instance, region, zone : names. seed, replication : of the scenario.
    """

    instance: str
    region: str
    zone: str
    seed: int
    replication: int = 0

    def keys(self, row: SpotPrice) -> list[StreamKey]:
        """Return the keys of the world, of the region and of the zone."""
        kind = f"{row.name}/{self.instance}"
        places = (kind, f"{kind}/{self.region}", f"{kind}/{self.region}/{self.zone}")
        return [StreamKey(self.seed, self.replication, "spot price", place) for place in places]


def price_path(row: SpotPrice, place: SpotPlace, horizon_ns: int, on_demand: Sequence[Rate]) -> tuple[Rate, ...]:
    """Return the spot prices of a zone from the start of a run to its end, oldest first.

    Parameters
    ----------
    row : how the price moves. on_demand : dated on-demand prices of the type in the region, oldest first, at least one; a change of
        them changes the spot price too, so that it is never above.

    Notes
    -----
    Prices have four decimals. A shorter run has the same prices for its time.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> listed = [Rate(0, 55_040_000_000, "55.04", "price list", "published")]
    >>> place = SpotPlace("p5.48xlarge", "us-east-1", "us-east-1a", seed=1)
    >>> path = price_path(load_catalog().spot_prices["p5.48xlarge"], place, 7 * NS_PER_DAY, listed)
    >>> path[0].from_ns, 5.504 <= float(path[0].usd_per_hour) <= 55.04, len(path) > 14
    (0, True, True)
    """
    source = f"spot price path {row.name}: {row.provenance.source}, {row.provenance.date}"
    ratios = list(_ratio_changes(row, place, horizon_ns))
    times_ns = [time_ns for time_ns, _ in ratios]
    listed_ns = [rate.from_ns for rate in on_demand if 0 < rate.from_ns < horizon_ns]
    path: list[Rate] = []
    for time_ns in sorted({*times_ns, *listed_ns}):
        ratio = ratios[bisect_right(times_ns, time_ns) - 1][1]
        usd = _price_usd(ratio, row.ratio_floor, rate_at(on_demand, time_ns))
        if not path or path[-1].usd_per_hour != usd:
            path.append(Rate(time_ns, nano_usd(usd), usd, source, row.provenance.confidence))
    return tuple(path)


def daily_log_ratios(row: SpotPrice, place: SpotPlace, days: int) -> FloatArray:
    """Return log(spot / on-demand) at the start of a run and at the end of each day.

    Returns
    -------
    array of days + 1 values.

    Notes
    -----
    Return of a day: m + w with m = phi m' + sqrt(1 - phi^2) sqrt(a) s z1 and w = sqrt(1 - a) s z2, where s is the daily standard
    deviation, a the share of drift, phi its persistence; fitted to AWS prices of 2022-12 to 2024-05 (see the catalog).
    """
    innovations = _innovations(row, place, days)
    own = place.keys(row)[-1]
    start, drift = own.about("spot price start").generator().standard_normal(2)
    drift_sd, noise_sd = row.daily_sd * math.sqrt(row.drift_share), row.daily_sd * math.sqrt(1.0 - row.drift_share)
    persists, renews = row.drift_ar1, math.sqrt(1.0 - row.drift_ar1**2)
    low, high = math.log(row.ratio_floor), math.log(row.ratio_ceiling)
    level, drift = _reflect(_start_level(row, float(start)), low, high), drift_sd * drift
    levels = [level]
    for new_drift, noise in innovations.tolist():
        drift = persists * drift + renews * drift_sd * new_drift
        level = _reflect(level + drift + noise_sd * noise, low, high)
        levels.append(level)
    return np.array(levels)


def _innovations(row: SpotPrice, place: SpotPlace, days: int) -> FloatArray:
    """Return standard normal innovations of drift and noise for every day, correlated between zones."""
    weights = (row.world_correlation, row.region_correlation - row.world_correlation, 1.0 - row.region_correlation)
    parts = [
        math.sqrt(weight) * key.generator().standard_normal((days, 2)) for weight, key in zip(weights, place.keys(row), strict=True)
    ]
    return np.asarray(sum(parts), np.float64)


def _start_level(row: SpotPrice, z: float) -> float:
    """Return the level of a zone at the start: log-normal in two halves through the row's percentiles."""
    far = row.ratio_high if z > 0 else row.ratio_low
    return math.log(row.ratio_median) + abs(z) / _Z95 * math.log(far / row.ratio_median)


def _reflect(level: float, low: float, high: float) -> float:
    """Fold a level back between two bounds."""
    width = high - low
    folded = (level - low) % (2.0 * width)
    return low + min(folded, 2.0 * width - folded)


def _ratio_changes(row: SpotPrice, place: SpotPlace, horizon_ns: int) -> Iterator[tuple[int, float]]:
    """Yield (time, ratio) at the start and at every change, in order."""
    days = -(-horizon_ns // NS_PER_DAY)
    levels = daily_log_ratios(row, place, days).tolist()
    yield 0, math.exp(levels[0])
    per_day = _HOURS_PER_DAY / row.change_gap_h
    most = math.floor(per_day) + 1
    draws = place.keys(row)[-1].about("spot price times").generator().random((days, 1 + most))
    for day, (before, after, drawn) in enumerate(zip(levels, levels[1:], draws.tolist(), strict=False)):
        count = most if drawn[0] < per_day - math.floor(per_day) else most - 1
        for step in range(count):
            time_ns = day * NS_PER_DAY + math.ceil((step + drawn[1 + step]) / count * NS_PER_DAY)
            if 0 < time_ns < horizon_ns:
                yield time_ns, math.exp(before + (after - before) * (step + 1) / count)


def _price_usd(ratio: float, floor: float, on_demand: Rate) -> str:
    """Return a price with four decimals, inside the bounds that its on-demand price sets."""
    listed = Decimal(on_demand.usd_per_hour)
    price = (listed * Decimal(ratio)).quantize(_TICK_USD, ROUND_HALF_EVEN)
    lowest = (listed * Decimal(str(floor))).quantize(_TICK_USD, ROUND_HALF_EVEN)
    return str(min(max(price, lowest, _TICK_USD), max(listed.quantize(_TICK_USD, ROUND_FLOOR), _TICK_USD)))
