"""Spot capacity and spot prices: what the catalog's rows about them become."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from sim.domain.hardware import Provenance

# 8,760 hours of a year over 12: the month in which the Spot Advisor counts interruptions.
HOURS_PER_MONTH = 730.0


@dataclass(frozen=True)
class Phases:
    """A hyperexponential time of two phases: with `short_share` a mean of `short_s`, else of `long_s`.

    Examples
    --------
    >>> Phases(short_share=0.75, short_s=1000.0, long_s=9000.0).mean_s
    3000.0
    """

    short_share: float = 0.0
    short_s: float = 0.0
    long_s: float = 0.0

    @property
    def mean_s(self) -> float:
        """Mean time in seconds."""
        return self.short_share * self.short_s + (1.0 - self.short_share) * self.long_s


@dataclass(frozen=True)
class SpotMarket:
    """How a zone has and loses spot capacity; either by its own up and down times, or always there with lone interruptions.

    Parameters
    ----------
    gpu, years : what was measured and when, for the report.
    up, down : times with and without capacity; all zero where capacity is always there.
    region_phi, world_phi : correlation (phi) of the capacity of two zones of one region, and of two regions.
    all_lost : probability that a loss of capacity takes every node of the zone. batch_mean : else the mean share it takes.
    monthly_interruption : share of machines interrupted in a month, each for itself; 0 where capacity has up and down times.

    Examples
    --------
    >>> row = Provenance("an example", "2026-01-01", "assumed")
    >>> band = SpotMarket("advisor-5-10", "any", "2025", row, monthly_interruption=0.075)
    >>> f"{band.hazard_per_hour:.4g}", band.has_outages
    ('0.0001068', False)
    """

    name: str
    gpu: str
    years: str
    provenance: Provenance
    up: Phases = field(default_factory=Phases)
    down: Phases = field(default_factory=Phases)
    region_phi: float = 0.0
    world_phi: float = 0.0
    all_lost: float = 1.0
    batch_mean: float = 0.5
    monthly_interruption: float = 0.0
    notes: str = ""

    @property
    def has_outages(self) -> bool:
        """Whether the zone as a whole comes and goes."""
        return self.up.mean_s > 0

    @property
    def availability(self) -> float:
        """Share of the time with capacity."""
        return self.up.mean_s / (self.up.mean_s + self.down.mean_s) if self.has_outages else 1.0

    @property
    def hazard_per_hour(self) -> float:
        """Interruptions of one machine per hour, each for itself: -ln(1 - monthly share) / 730 h."""
        return -math.log1p(-self.monthly_interruption) / HOURS_PER_MONTH


@dataclass(frozen=True)
class SpotNotice:
    """Time from a cloud's interruption notice to the loss of the machine, in seconds."""

    name: str
    notice_s: float
    provenance: Provenance
    notes: str = ""


@dataclass(frozen=True)
class SpotPrice:
    """How the spot price of an instance type moves, as a ratio to its on-demand price.

    Parameters
    ----------
    ratio_low, ratio_median, ratio_high : 5th, 50th and 95th percentile of the ratio over zones and time.
    ratio_floor, ratio_ceiling : the ratio is reflected between them.
    daily_sd : standard deviation of the daily log-return. drift_share : share of its variance that drifts.
    drift_ar1 : correlation of the drift of a day with that of the day before.
    change_gap_h : mean time between changes.
    region_correlation, world_correlation : of daily returns of two zones of one region, and of two regions.
    """

    name: str
    ratio_low: float
    ratio_median: float
    ratio_high: float
    ratio_floor: float
    ratio_ceiling: float
    daily_sd: float
    drift_share: float
    drift_ar1: float
    change_gap_h: float
    region_correlation: float
    world_correlation: float
    provenance: Provenance
    notes: str = ""
