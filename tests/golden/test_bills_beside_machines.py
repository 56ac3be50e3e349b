"""Lines beside machines at rows of the catalog, booked hour by hour over days and months, worked by hand."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from sim.billing.ledger import hour_cuts
from sim.billing.other_lines import OtherLines
from sim.catalog.loader import load_catalog
from sim.domain.cost_lines import CATEGORY
from sim.units import NS_PER_HOUR, instant


class Charges(list[tuple[str, str, int]]):
    """What was charged: category, price, nano-dollars."""

    def charge_account(self, category: str, start_ns: int, end_ns: int, **columns: Any) -> int:
        """Keep a charge."""
        self.append((category, columns["unit_price"], columns["amount_nano"]))
        return len(self)


def booked(name: str, begins: str, ends: str, quantity: Callable[[Fraction, Fraction], Fraction], zone: str = "UTC") -> Charges:
    """Book a row of the catalog for every clock hour of a time.

    Parameters
    ----------
    quantity : of a piece of time, given its hours and its part of the calendar month.
    """
    row, charges, start = load_catalog().cost_lines[name], Charges(), instant(begins)
    lines = OtherLines(charges, start, ZoneInfo(zone), {row.line: row})
    length_ns = int((instant(ends) - start).total_seconds()) * 10**9
    for begin_ns, end_ns in pairwise((0, *hour_cuts(start, length_ns, zone), length_ns)):
        span_ns = end_ns - begin_ns
        part = Fraction(span_ns, lines.month(begin_ns).length_ns)
        lines.book(row.line, begin_ns, end_ns, quantity(Fraction(span_ns, NS_PER_HOUR), part), {})
    assert {category for category, _, _ in charges} <= {CATEGORY[row.line]}
    return charges


def close(charges: Charges, usd: str) -> None:
    """The amount in dollars, up to half a nano-dollar for each row."""
    total = Decimal(sum(amount for _, _, amount in charges)) / 10**9
    assert abs(total - Decimal(usd)) <= Decimal(len(charges)) / 2 / 10**9, total


# gp3 at 0.08 a GB-month: 100 GB for a whole month are 8.00, however long it is; a part of a month is the part of its hours.
STORED = [
    ("2026-02-01", "2026-03-01", "UTC", "8.00"),  # 28 days
    ("2024-02-01", "2024-03-01", "UTC", "8.00"),  # 29 days
    ("2026-04-01", "2026-05-01", "UTC", "8.00"),  # 30 days
    ("2026-01-01", "2026-02-01", "UTC", "8.00"),  # 31 days
    ("2026-03-01T00:00+01:00", "2026-04-01T00:00+02:00", "Europe/Berlin", "8.00"),  # 743 hours
    ("2026-10-01T00:00+02:00", "2026-11-01T00:00+01:00", "Europe/Berlin", "8.00"),  # 745 hours
    ("2026-02-01", "2026-02-15", "UTC", "4.00"),  # 14 of 28 days
    ("2026-04-01", "2026-04-16", "UTC", "4.00"),  # 15 of 30 days
    ("2026-01-01", "2026-01-16T12:00", "UTC", "4.00"),  # 15.5 of 31 days
    ("2026-01-31", "2026-02-02", "UTC", "0.543778802"),  # 8.00 / 31 + 8.00 / 28 = 0.258064516 + 0.285714286
    ("2026-01-31T12:00", "2026-02-01T12:00", "UTC", "0.271889401"),  # half of each
]


@pytest.mark.parametrize(("begins", "ends", "zone", "usd"), STORED)
def test_storage_by_the_month(begins: str, ends: str, zone: str, usd: str) -> None:
    close(booked("aws-gp3", begins, ends, lambda _, part: 100 * part, zone), usd)


# AWS: 100 GB free, 0.09 to 10 TB, 0.085 to 50, 0.07 to 150, 0.05 above; a TB has 1,024 GB, the free ones count towards the steps.
EGRESS = [
    ("aws-internet-egress", 50, "0"),
    ("aws-internet-egress", 100, "0"),
    ("aws-internet-egress", 101, "0.09"),
    ("aws-internet-egress", 1_100, "90.00"),
    ("aws-internet-egress", 10_240, "912.60"),  # 10,140 x 0.09
    ("aws-internet-egress", 10_241, "912.685"),  # one more at 0.085
    ("aws-internet-egress", 51_200, "4394.20"),  # + 40,960 x 0.085 = 3,481.60
    ("aws-internet-egress", 153_600, "11562.20"),  # + 102,400 x 0.07 = 7,168.00
    ("aws-internet-egress", 200_000, "13882.20"),  # + 46,400 x 0.05 = 2,320.00
    ("gcp-internet-egress", 1_024, "122.88"),  # 1,024 x 0.12
    ("gcp-internet-egress", 20_480, "1955.84"),  # + 9,216 x 0.11 = 1,013.76, + 10,240 x 0.08 = 819.20
    ("oci-internet-egress", 20_480, "87.04"),  # 10,240 free, 10,240 x 0.0085
]


@pytest.mark.parametrize(("name", "gigabytes", "usd"), EGRESS)
def test_egress_over_a_month_steps_as_at_once(name: str, gigabytes: int, usd: str) -> None:
    """Spread evenly over the 720 hours of November, or all in one hour: the tiers are those of the month."""
    close(booked(name, "2026-11-01", "2026-12-01", lambda _, part: gigabytes * part), usd)
    close(booked(name, "2026-11-01", "2026-11-01T01:00", lambda hours, _: gigabytes * hours), usd)


def test_each_month_has_its_free_gigabytes() -> None:
    """150 GB in November and 150 in December: 50 x 0.09 of each."""
    close(booked("aws-internet-egress", "2026-11-01", "2027-01-01", lambda _, part: 150 * part), "9.00")


LINES = [
    # A day of a cluster at 0.10, of a load balancer at 0.0225, of a gateway at 0.045.
    ("aws-eks", lambda hours, _: hours, "2.40"),
    ("aws-alb", lambda hours, _: hours, "0.54"),
    ("aws-nat", lambda hours, _: hours, "1.08"),
    # 2.5 LCU all day at 0.008; 100 GB through the gateway at 0.045.
    ("aws-alb-lcu", lambda hours, _: Fraction(5, 2) * hours, "0.48"),
    ("aws-nat-data", lambda hours, _: Fraction(100, 24) * hours, "4.50"),
    # 1,000 GB that cross a zone are charged at both ends: 2 x 1,000 x 0.01.
    ("aws-cross-zone", lambda hours, _: 2 * Fraction(1_000, 24) * hours, "20.00"),
    # 10 GB of logs at 0.50.
    ("aws-cloudwatch-logs", lambda hours, _: Fraction(10, 24) * hours, "5.00"),
]


@pytest.mark.parametrize(("name", "quantity", "usd"), LINES)
def test_a_day_of_a_line(name: str, quantity: Callable[[Fraction, Fraction], Fraction], usd: str) -> None:
    close(booked(name, "2026-11-02", "2026-11-03", quantity), usd)


def test_a_month_of_a_cluster_where_clocks_change() -> None:
    """October of Berlin has 745 hours, March 743: 74.50 and 74.30."""
    close(booked("aws-eks", "2026-10-01T00:00+02:00", "2026-11-01T00:00+01:00", lambda hours, _: hours, "Europe/Berlin"), "74.50")
    close(booked("aws-eks", "2026-03-01T00:00+01:00", "2026-04-01T00:00+02:00", lambda hours, _: hours, "Europe/Berlin"), "74.30")


def test_metrics_by_the_month() -> None:
    """Twenty metrics at 0.30 for half of November: 3.00."""
    start = datetime(2026, 11, 1, tzinfo=UTC).isoformat()
    close(booked("aws-cloudwatch-metrics", start, "2026-11-16", lambda _, part: 20 * part), "3.00")
