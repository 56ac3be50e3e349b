"""Names of the catalog turned into what generates requests; the only place of this room that reads the catalog."""

from __future__ import annotations

from collections.abc import Sequence

from sim.catalog.loader import load_catalog
from sim.domain.presets import WorkloadPreset
from sim.errors import Problems

FLAT_WEEK = "flat"


def preset(name: str) -> WorkloadPreset:
    """Return a workload preset of the catalog.

    Examples
    --------
    >>> preset("chat-azure-2023").renewal_cv
    1.05
    """
    return load_catalog().workloads[name]


def week_weights(name: str) -> Sequence[float]:
    """Return the 168 hour-of-week weights of a profile, Monday 00:00 UTC first; "flat" is the same at all hours.

    Examples
    --------
    >>> len(week_weights("azure-2024-conv")), set(week_weights("flat"))
    (168, {1.0})
    """
    return (1.0,) * 168 if name == FLAT_WEEK else load_catalog().week_profiles[name].weights


def check_preset(name: str, path: str, problems: Problems) -> bool:
    """Add a problem unless the catalog has a workload preset of this name; returns whether it has."""
    return problems.check(
        name in load_catalog().workloads, path, name, "is not a workload preset", choices=sorted(load_catalog().workloads)
    )


def check_week_profile(name: str, path: str, problems: Problems) -> bool:
    """Add a problem unless this is a week profile; returns whether it is."""
    known = [FLAT_WEEK, *sorted(load_catalog().week_profiles)]
    return problems.check(name in known, path, name, "is not a week profile", choices=known)
