"""What the bill has beside machines: the block `other_costs:`, all of it off unless a preset or a price turns it on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sim.catalog.loader import Catalog
from sim.domain.cost_lines import (
    BALANCER_UNITS,
    CLUSTER,
    EGRESS,
    IMAGES,
    LINES,
    LOAD_BALANCER,
    LOGS,
    METRICS,
    NAT,
    NAT_DATA,
    WEIGHTS,
    CostLine,
)
from sim.errors import Problems
from sim.scenario.commitments import check_money

# One managed cluster on AWS behind an application load balancer, which pays for no traffic between zones.
PRESETS: Mapping[str, Mapping[str, str]] = {
    "aws_typical": {
        CLUSTER: "aws-eks",
        LOAD_BALANCER: "aws-alb",
        BALANCER_UNITS: "aws-alb-lcu",
        METRICS: "aws-cloudwatch-metrics",
        LOGS: "aws-cloudwatch-logs",
        WEIGHTS: "aws-s3",
        IMAGES: "aws-ecr",
        NAT: "aws-nat",
        NAT_DATA: "aws-nat-data",
        EGRESS: "aws-internet-egress",
    },
}
MOST_COUNT, MOST_BYTES, MOST_HOURS = 10_000, 1_000_000_000, 1_000_000


@dataclass
class OtherCosts:
    """Charges that belong to no machine. The defaults of counts and bytes are assumptions.

    Parameters
    ----------
    preset : "" or "aws_typical", which sets a price for every line but cross-zone traffic. prices : line -> row of the catalog's
        `cost_lines`, over the preset; "" turns the line off.
    clusters, load_balancers, nat_gateways : how many, paid every hour.
    connections_per_request : new connections at the load balancer. metrics_per_replica : kept while the replica has a machine.
    log_bytes_per_request : written when a request leaves. request_bytes : of a request beside its tokens, and of a response.
    bytes_per_prompt_token, bytes_per_output_token : that come in and go out; streamed tokens carry more.
    cross_zone_share : share of requests whose bytes, in and out, cross between zones.
    people_hours_per_month : of the people who keep all this running. people_usd_per_hour : of one of those hours; "" is off.
    """

    preset: str = ""
    prices: dict[str, str] = field(default_factory=dict)
    clusters: int = 1
    load_balancers: int = 1
    nat_gateways: int = 1
    connections_per_request: float = 1.0
    metrics_per_replica: int = 20
    log_bytes_per_request: int = 1_000
    request_bytes: int = 1_000
    bytes_per_prompt_token: float = 4.0
    bytes_per_output_token: float = 4.0
    cross_zone_share: float = 0.5
    people_hours_per_month: float = 0.0
    people_usd_per_hour: str = ""

    def rows(self) -> dict[str, str]:
        """Return the catalog row of every line that is on.

        Examples
        --------
        >>> OtherCosts(prices={"cluster": "aws-eks"}).rows()
        {'cluster': 'aws-eks'}
        >>> "nat" in OtherCosts(preset="aws_typical", prices={"nat": ""}).rows()
        False
        """
        wanted = {**PRESETS.get(self.preset, {}), **self.prices}
        return {line: wanted[line] for line in LINES if wanted.get(line)}

    @property
    def has_people(self) -> bool:
        """Whether people are paid."""
        return bool(self.people_usd_per_hour) and self.people_hours_per_month > 0

    @property
    def is_on(self) -> bool:
        """Whether there is anything to book."""
        return bool(self.rows()) or self.has_people


def check_other_costs(costs: OtherCosts, catalog: Catalog, problems: Problems) -> None:
    """Check names, prices and ranges of the block, all at once."""
    path = "other_costs"
    if costs.preset:
        problems.check(costs.preset in PRESETS, f"{path}.preset", costs.preset, "is not a preset", choices=tuple(PRESETS))
    for line, name in costs.prices.items():
        where = f"{path}.prices.{line}"
        known = problems.check(line in LINES, where, name, "is not a line of the bill", choices=LINES)
        row: CostLine | None = catalog.get("cost_lines", name, where, problems) if known and name else None
        if row is not None and row.line != line:
            same = [other.name for other in catalog.cost_lines.values() if other.line == line]
            problems.check(False, where, name, f"is a price of {row.line}", choices=same)
    for name in ("clusters", "load_balancers", "nat_gateways", "metrics_per_replica"):
        _check_range(name, getattr(costs, name), MOST_COUNT, problems)
    for name in ("log_bytes_per_request", "request_bytes", "bytes_per_prompt_token", "bytes_per_output_token"):
        _check_range(name, getattr(costs, name), MOST_BYTES, problems)
    _check_range("connections_per_request", costs.connections_per_request, MOST_COUNT, problems)
    _check_range("cross_zone_share", costs.cross_zone_share, 1, problems)
    _check_range("people_hours_per_month", costs.people_hours_per_month, MOST_HOURS, problems)
    if costs.people_usd_per_hour:
        check_money(f"{path}.people_usd_per_hour", costs.people_usd_per_hour, problems)
    elif costs.people_hours_per_month > 0:
        problems.add(f"{path}.people_usd_per_hour", "", "people have no price", "USD for an hour, in text")


def _check_range(name: str, value: float, most: float, problems: Problems) -> None:
    problems.check(0 <= value <= most, f"other_costs.{name}", value, "is out of range", f"0 to {most:,}")
