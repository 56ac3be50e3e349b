"""Requests for models that are not LLMs: each brings items (images, rows, sentences) and gets one answer for all of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from sim.domain.traffic import Source
from sim.errors import Problems
from sim.registry import register
from sim.rng import StreamKey
from sim.workload.arrivals import gap_table
from sim.workload.base import ExpectedLoad, OpenedSource, Workload
from sim.workload.lengths import RequestLengths, SegmentShares, TokenDistribution, fixed
from sim.workload.rates import RateModel
from sim.workload.specs import (
    TokenLengths,
    check_segments,
    check_week_weights,
    segment_names,
    segment_shares,
    whole_week,
)
from sim.workload.synthetic import OpenArrivals, check_peak, check_rate

_FLAT = (1.0,) * 24


@register("workload", "items")
@dataclass
class Items(Workload):
    """Poisson arrivals of requests that bring items, for a deployment with a batcher.

    Parameters
    ----------
    rate_per_s : requests per second, the mean over a week. items : how many a request brings; in tables they stand as
        `prompt_tokens`, and `output_tokens` is 1: the answer comes in one piece.
    week_weights : relative rate of the 24 hours of every day or of the 168 of a week from Monday 00:00 UTC; none for one rate at
        all hours. segments : name -> share.
    """

    rate_per_s: float = 1.0
    items: TokenLengths = field(default_factory=lambda: TokenLengths(family="fixed", mean=1))
    week_weights: list[float] = field(default_factory=list)
    segments: dict[str, float] = field(default_factory=dict)

    def problems(self, path: str, problems: Problems) -> None:
        """Add everything that is wrong with the configuration."""
        check_rate(self.rate_per_s, f"{path}.rate_per_s", problems)
        if self.items.family == "preset":
            known = "fixed, geometric, lognormal_mixture, empirical"
            problems.add(f"{path}.items.family", self.items.family, "presets are of tokens, not of items", known)
        else:
            self.items.problems(f"{path}.items", problems)
        if self.week_weights:
            check_week_weights(self.week_weights, f"{path}.week_weights", problems)
        check_segments(self.segments, f"{path}.segments", problems)

    def segment_names(self) -> tuple[str, ...]:
        """Return the names of the segments."""
        return segment_names(self.segments)

    def largest_items(self) -> int:
        """Return how many items the largest request brings."""
        return self._distribution().largest

    def expected_load(self, start: datetime, horizon_ns: int) -> ExpectedLoad:
        """Return planned mean and peak rate over the horizon, and the mean of the items."""
        mean_per_s, peak_per_s = self._rate().mean_and_peak_per_s(start, horizon_ns)
        return ExpectedLoad(mean_per_s, peak_per_s, self._distribution().mean, 1.0)

    def open(self, key: StreamKey, start: datetime, horizon_ns: int) -> Source:
        """Open the generator; see `Workload.open`.

        Raises
        ------
        InputError : the weights take the rate higher than can be generated.
        """
        check_peak(self._rate(), start, horizon_ns)
        lengths = RequestLengths(self._distribution(), fixed(1), spearman=0.0)
        segments = SegmentShares(segment_shares(self.segments))
        arrivals = OpenArrivals(self._rate(), gap_table("exponential", 1.0), lengths, segments)
        return OpenedSource(lambda: arrivals.blocks(key, start, horizon_ns), segments=self.segment_names())

    def _distribution(self) -> TokenDistribution:
        return self.items.distribution(None)

    def _rate(self) -> RateModel:
        return RateModel(self.rate_per_s, weights=whole_week(self.week_weights or _FLAT))
