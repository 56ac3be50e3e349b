"""Prices of everything on a bill that is no machine: rows of the catalog, by line, with tiers and dates."""

from __future__ import annotations

from dataclasses import dataclass, field

from sim.domain.hardware import Provenance

CLUSTER, LOAD_BALANCER, BALANCER_UNITS = "cluster", "load_balancer", "load_balancer_units"
METRICS, LOGS = "metrics", "logs"
WEIGHTS, IMAGES = "weights_storage", "image_storage"
NAT, NAT_DATA = "nat", "nat_data"
EGRESS, CROSS_ZONE = "internet_egress", "cross_zone"
PEOPLE = "people"
# What a line is counted in, and the category of the ledger that it belongs to.
UNITS = {
    CLUSTER: "cluster-hour",
    LOAD_BALANCER: "balancer-hour",
    BALANCER_UNITS: "LCU-hour",
    METRICS: "metric-month",
    LOGS: "GB",
    WEIGHTS: "GB-month",
    IMAGES: "GB-month",
    NAT: "gateway-hour",
    NAT_DATA: "GB",
    EGRESS: "GB",
    CROSS_ZONE: "GB",
}
CATEGORY = {
    CLUSTER: "cluster",
    LOAD_BALANCER: "network",
    BALANCER_UNITS: "network",
    METRICS: "monitoring",
    LOGS: "monitoring",
    WEIGHTS: "storage",
    IMAGES: "storage",
    NAT: "network",
    NAT_DATA: "network",
    EGRESS: "network",
    CROSS_ZONE: "network",
    PEOPLE: "people",
}
LINES = tuple(UNITS)


@dataclass(frozen=True)
class CostTier:
    """A price for what a calendar month uses above a quantity.

    Parameters
    ----------
    above : quantity of the month from which it holds, in units of the line. usd_per_unit : a decimal in text.
    """

    above: float
    usd_per_unit: str


@dataclass(frozen=True)
class CostPrice:
    """The tiers that hold from a date on.

    Parameters
    ----------
    valid_from : ISO date, 00:00 UTC. tiers : the first above 0, rising.
    """

    valid_from: str
    tiers: tuple[CostTier, ...]
    provenance: Provenance


@dataclass(frozen=True)
class CostLine:
    """Prices of one line of the bill that is no machine.

    Parameters
    ----------
    line : what is charged: "cluster", "load_balancer", ... cloud : whose. unit : that of the line. prices : oldest first.
    """

    name: str
    line: str
    cloud: str
    unit: str
    prices: tuple[CostPrice, ...]
    provenance: Provenance
    notes: str = field(default="")
