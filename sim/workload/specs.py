"""The parts of a workload's configuration that several workloads share: lengths, events, segments, and their checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np

from sim.domain.presets import HOURS_OF_WEEK, LengthMixture
from sim.errors import Problems
from sim.units import duration_ns, instant
from sim.workload.base import ONE_SEGMENT, is_positive
from sim.workload.lengths import MAX_TOKENS, TokenDistribution, empirical, fixed, geometric, lognormal_mixture
from sim.workload.rates import RateEvent

LENGTH_FAMILIES = ("preset", "fixed", "geometric", "lognormal_mixture", "empirical")
MAX_SEGMENTS = 64
MICROSECOND = timedelta(microseconds=1)


@dataclass
class TokenLengths:
    """How many tokens prompts or outputs have.

    Parameters
    ----------
    family : "preset" (the mixture of the named preset), "fixed", "geometric", "lognormal_mixture" (one weight for a plain
        log-normal) or "empirical".
    mean : tokens, of "fixed" (a whole number) and "geometric".
    weights, log_mean, log_sd : one entry for each log-normal component.
    cap : longest length of "lognormal_mixture" and "geometric".
    probabilities, tokens : quantiles of "empirical", from probability 0 to 1.

    Examples
    --------
    >>> TokenLengths(family="fixed", mean=512).distribution(None).mean
    512.0
    """

    family: str = "preset"
    mean: float | None = None
    weights: list[float] = field(default_factory=lambda: [1.0])
    log_mean: list[float] = field(default_factory=list)
    log_sd: list[float] = field(default_factory=list)
    cap: int = 131_072
    probabilities: list[float] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)

    def problems(self, path: str, problems: Problems) -> None:
        """Add what is wrong with the parameters of the chosen family."""
        if not problems.check(
            self.family in LENGTH_FAMILIES, f"{path}.family", self.family, "is not a family of lengths", choices=LENGTH_FAMILIES
        ):
            return
        if self.family in ("fixed", "geometric"):
            within = (
                self.mean is not None and 1 <= self.mean <= MAX_TOKENS and (self.family != "fixed" or self.mean == int(self.mean))
            )
            kind = "a whole number of tokens" if self.family == "fixed" else "a number of tokens"
            problems.check(within, f"{path}.mean", self.mean, f"must be {kind}", f"1 to {MAX_TOKENS}")
        if self.family in ("lognormal_mixture", "geometric"):
            problems.check(1 <= self.cap <= MAX_TOKENS, f"{path}.cap", self.cap, "must be a number of tokens", f"1 to {MAX_TOKENS}")
        if self.family == "lognormal_mixture":
            self._mixture_problems(path, problems)
        if self.family == "empirical":
            self._empirical_problems(path, problems)

    def _mixture_problems(self, path: str, problems: Problems) -> None:
        count = len(self.weights)
        problems.check(
            count > 0 and all(map(is_positive, self.weights)), f"{path}.weights", self.weights, "must be positive", "> 0"
        )
        for name, values in (("log_mean", self.log_mean), ("log_sd", self.log_sd)):
            problems.check(
                len(values) == count, f"{path}.{name}", values, "must have as many entries as weights", f"{count} numbers"
            )
        problems.check(all(map(is_positive, self.log_sd)), f"{path}.log_sd", self.log_sd, "must be positive", "> 0")
        problems.check(bool(np.all(np.isfinite(self.log_mean))), f"{path}.log_mean", self.log_mean, "must be finite")

    def _empirical_problems(self, path: str, problems: Problems) -> None:
        chances, tokens = self.probabilities, self.tokens
        rising = len(chances) >= 2 and chances[0] == 0 and chances[-1] == 1 and bool(np.all(np.diff(chances) > 0))
        problems.check(
            rising, f"{path}.probabilities", chances, "must increase from 0 to 1", "at least two numbers, the first 0, the last 1"
        )
        sorted_tokens = len(tokens) == len(chances) and bool(np.all(np.diff(tokens) >= 0))
        within = sorted_tokens and bool(tokens) and tokens[0] >= 1 and tokens[-1] <= MAX_TOKENS
        problems.check(within, f"{path}.tokens", tokens, "must be one quantile a probability, not decreasing", f"1 to {MAX_TOKENS}")

    def distribution(self, preset: LengthMixture | None) -> TokenDistribution:
        """Return the distribution; `preset` is what family "preset" stands for."""
        if self.family == "fixed" and self.mean is not None:
            return fixed(int(self.mean))
        if self.family == "geometric" and self.mean is not None:
            return geometric(self.mean, self.cap)
        if self.family == "empirical":
            return empirical(self.probabilities, self.tokens)
        if self.family == "preset" and preset is not None:
            return lognormal_mixture(preset)
        return lognormal_mixture(LengthMixture(tuple(self.weights), tuple(self.log_mean), tuple(self.log_sd), self.cap))


@dataclass
class Event:
    """A dated factor on the rate: a launch, a holiday, an outage of a client.

    Parameters
    ----------
    at : when it begins, as a date ("2026-10-06", "2026-10-06T16:00:00Z"; UTC where no zone is given) or since the scenario start
        ("36h"). factor : multiplies the rate at its height; 0 stops it.
    rise : in a straight line from the usual rate to that height. lasts : how long it stays there.
    decay : afterwards the change halves in every such time; "0s" ends it at once.

    Examples
    --------
    >>> launch = Event(at="2026-10-06", factor=3.0, rise="6h", lasts="12h", decay="4d")
    >>> launch.resolved(instant("2026-10-05")).start_ns
    86400000000000
    """

    at: str = "0s"
    factor: float = 1.0
    rise: str = "0s"
    lasts: str = "1h"
    decay: str = "0s"

    def problems(self, path: str, problems: Problems) -> None:
        """Add what is wrong with the event."""
        if not is_instant(self.at):
            check_duration(self.at, f"{path}.at", problems, "a date such as 2026-10-06T16:00:00Z, or since the start such as 36h")
        for name in ("rise", "lasts", "decay"):
            check_duration(getattr(self, name), f"{path}.{name}", problems)
        problems.check(np.isfinite(self.factor) and self.factor >= 0, f"{path}.factor", self.factor, "must not be negative", ">= 0")

    def resolved(self, start: datetime) -> RateEvent:
        """Return the event in nanoseconds.

        Parameters
        ----------
        start : calendar instant of the scenario start, with its zone.
        """
        start_ns = (instant(self.at) - start) // MICROSECOND * 1_000 if is_instant(self.at) else duration_ns(self.at)
        return RateEvent(start_ns, duration_ns(self.lasts), self.factor, duration_ns(self.rise), duration_ns(self.decay))


def is_instant(text: str) -> bool:
    """Return whether a text is a calendar instant."""
    try:
        instant(text)
    except ValueError:
        return False
    return True


def check_duration(text: str, path: str, problems: Problems, allowed: str = "such as 90s, 12h or 7d") -> None:
    """Add a problem unless the text is a duration."""
    try:
        duration_ns(text)
    except ValueError as error:
        problems.add(path, text, str(error), allowed)


def check_week_weights(weights: Sequence[float], path: str, problems: Problems) -> None:
    """Add a problem unless these are the weights of the hours of a day or of a week."""
    good = len(weights) in (24, HOURS_OF_WEEK) and bool(np.all(np.isfinite(weights))) and min(weights) >= 0 and sum(weights) > 0
    allowed = "24 numbers for the hours of every day or 168 from Monday 00:00 UTC, not negative and not all 0"
    problems.check(good, path, list(weights), "are not the weights of the hours of a day or of a week", allowed)


def whole_week(weights: Sequence[float]) -> list[float]:
    """Return the weights of the 168 hours of a week; those of a day are repeated.

    Examples
    --------
    >>> len(whole_week([1.0] * 24)), len(whole_week([1.0] * 168))
    (168, 168)
    """
    return list(weights) * (HOURS_OF_WEEK // len(weights))


def check_segments(segments: Mapping[str, float], path: str, problems: Problems) -> None:
    """Add what is wrong with shares of segments (an empty mapping is one segment)."""
    problems.check(len(segments) <= MAX_SEGMENTS, path, len(segments), "too many segments", f"at most {MAX_SEGMENTS}")
    for name, share in segments.items():
        problems.check(is_positive(share), f"{path}.{name}", share, "a share must be positive", "> 0")


def segment_names(segments: Mapping[str, float]) -> tuple[str, ...]:
    """Return the names of segments in their order; no segments are one."""
    return tuple(segments) or (ONE_SEGMENT,)


def segment_shares(segments: Mapping[str, float]) -> list[float]:
    """Return the weights of segments in their order; no segments are one."""
    return list(segments.values()) or [1.0]
