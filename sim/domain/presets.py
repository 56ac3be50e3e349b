"""Workload presets: request rates and lengths fitted to public traces."""

from __future__ import annotations

from dataclasses import dataclass

from sim.domain.hardware import Provenance

HOURS_OF_WEEK = 168


@dataclass(frozen=True)
class LengthMixture:
    """A mixture of log-normals of a token count, capped.

    Parameters
    ----------
    weights : share of each component, summing to 1. mu, sigma : mean and deviation of log(tokens). cap_tokens : longest length.
    """

    weights: tuple[float, ...]
    mu: tuple[float, ...]
    sigma: tuple[float, ...]
    cap_tokens: int


@dataclass(frozen=True)
class WorkloadPreset:
    """Rates and lengths of one kind of traffic: rate(t) = base x hour-of-week weight x exp(OU - sd^2/2), then gamma renewal.

    Parameters
    ----------
    base_rate_per_s : mean over a week. source_rate_per_s : mean over the trace it was fitted to.
    renewal_cv : coefficient of variation of the rescaled gaps. noise_sd, noise_tau_s : Ornstein-Uhlenbeck noise of the log rate.
    week_profile : name of the hour-of-week weights. spearman : rank correlation of prompt and output length.
    """

    name: str
    base_rate_per_s: float
    source_rate_per_s: float
    renewal_cv: float
    noise_sd: float
    noise_tau_s: float
    week_profile: str
    prompt: LengthMixture
    output: LengthMixture
    spearman: float
    provenance: Provenance
    notes: str = ""


@dataclass(frozen=True)
class WeekProfile:
    """Relative request rate by hour of the week, in UTC, with mean 1.

    Parameters
    ----------
    weights : 168 numbers, Monday 00:00-01:00 first.
    """

    name: str
    weights: tuple[float, ...]
    provenance: Provenance
