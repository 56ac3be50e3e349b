"""The parts of a workload's configuration that several workloads share: lengths, events, segments, and their checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from sim.domain.presets import LengthMixture
from sim.errors import Problems
from sim.units import duration_ns
from sim.workload.base import ONE_SEGMENT, is_positive
from sim.workload.lengths import MAX_TOKENS, TokenDistribution, empirical, fixed, geometric, lognormal_mixture
from sim.workload.rates import RateEvent

LENGTH_FAMILIES = ("preset", "fixed", "geometric", "lognormal_mixture", "empirical")
MAX_SEGMENTS = 64


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
    start : since the scenario start, as a duration ("36h"). duration : its length. factor : multiplies the rate; 0 stops it.
    """

    start: str = "0s"
    duration: str = "1h"
    factor: float = 1.0

    def problems(self, path: str, problems: Problems) -> None:
        """Add what is wrong with the event."""
        check_duration(self.start, f"{path}.start", problems)
        check_duration(self.duration, f"{path}.duration", problems)
        problems.check(np.isfinite(self.factor) and self.factor >= 0, f"{path}.factor", self.factor, "must not be negative", ">= 0")

    def resolved(self) -> RateEvent:
        """Return the event in nanoseconds."""
        return RateEvent(duration_ns(self.start), duration_ns(self.duration), self.factor)


def check_duration(text: str, path: str, problems: Problems) -> None:
    """Add a problem unless the text is a duration."""
    try:
        duration_ns(text)
    except ValueError as error:
        problems.add(path, text, str(error), "such as 90s, 12h or 7d")


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
