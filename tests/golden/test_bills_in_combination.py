"""Rules that meet in one hour or at the edge of a month, worked by hand; the arithmetic stands beside each case."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

from sim.billing.lives import Life
from sim.studies.price import PricedLives, price_lives

SMALL, LARGE, GPU, AZURE = "m7i.2xlarge", "m7i.48xlarge", "g5.xlarge", "NC24ads_A100_v4"


def life(begin: str, end: str, usd: str | None, instance: str = GPU, region: str = "us-east-1", name: str = "m") -> Life:
    """One machine of us-east-1a, or of another region."""
    zone = "us-east-1a" if region == "us-east-1" else ""
    return Life.between(begin, end, name=name, instance=instance, region=region, usd_per_hour=usd, zone=zone)


def reserved(instance: str, usd: str, **columns: Any) -> dict[str, Any]:
    """Reserved machines of us-east-1."""
    return {"choice": "reserved_instances", "instance": instance, "region": "us-east-1", "usd_per_hour": usd, **columns}


def close(priced: PricedLives, usd: str) -> None:
    """The bill is the amount in dollars to the nano-dollar, up to the rounding of its rows."""
    assert abs(Decimal(priced.amount_nano) / 10**9 - Decimal(usd)) <= Decimal(len(priced.ledger)) / 2 / 10**9, priced.amount_nano


def test_sizes_a_plan_and_kept_capacity_where_clocks_go_back() -> None:
    """The hour from 02:00 comes twice in Berlin, and each is an hour of its own, with the same bill.

    Units: 8 of the small machine and 384 of the kept large one. Two reserved small machines have 32: 8 and 24, so 360 / 384 =
    0.9375 h of the large one are left. 3.00 of a plan at 6.24 are 0.480769231 h, 0.456730769 h at 9.60 are 4.384615385. Each hour
    is 2 x 0.25 + 3.00 + 4.384615385.
    """
    lives = [
        life("2026-10-25T00:30Z", "2026-10-25T01:30Z", "0.40", SMALL, name="small"),
        life("2026-10-25T00:00Z", "2026-10-25T00:15Z", "9.60", LARGE, name="large"),
    ]
    promises = {
        "sizes": reserved(SMALL, "0.25", count=2, size_flexible=True),
        "plan": {
            "choice": "compute_savings_plan", "usd_per_hour": "3.00", "rates_usd_per_hour": {SMALL: "0.28", LARGE: "6.24"},
        },
        "kept": {"choice": "capacity_reservation", "instance": LARGE, "region": "us-east-1", "zone": "us-east-1a", "count": 1},
    }  # fmt: skip
    priced = price_lives(lives, commitments=promises, timezone="Europe/Berlin")
    close(priced, "15.769230769")
    assert priced.by("local_hour") == {
        ("2026-10-25T02:00+02:00",): 7_884_615_385,
        ("2026-10-25T02:00+01:00",): 7_884_615_385,
    }


def test_a_payment_in_the_last_half_hour_of_a_month() -> None:
    """876.00 at 23:30 of 31 October in New York, which is 0.10 for each of 8,760 hours, and 0.50 by the hour.

    October: 15 minutes at 4.00, half an hour at 0.50, and the payment. November: two hours at 0.50. Amortised at 0.60:
    1.30 and 1.20.
    """
    promise = reserved(GPU, "0.50", payment="partial_upfront", upfront_usd="876.00", begins="2026-11-01T03:30:00Z")
    priced = price_lives(
        [life("2026-11-01T03:15Z", "2026-11-01T05:15Z", "4.00")],
        commitments={"ri": promise}, timezone="America/New_York", begins="2026-11-01T03:00Z", ends="2026-11-01T06:00Z",
    )  # fmt: skip
    assert priced.by("month") == {("2026-10",): 877_250_000_000, ("2026-11",): 1_000_000_000}
    effective = {
        month: sum(r["effective_nano_usd"] for r in priced.ledger if r["month"] == month) for month in ("2026-10", "2026-11")
    }
    assert effective == {"2026-10": 1_300_000_000, "2026-11": 1_200_000_000}


def test_sustained_use_over_the_edge_of_a_month_of_743_hours(tmp_path: Path) -> None:
    """Mid-March to mid-April in Berlin: 407 of 743 h are 185.75 x 1.8 + 35.5 x 0.6, 336 of 720 are 180 + 156 x 0.8."""
    overlay = tmp_path / "family.yaml"
    overlay.write_text(
        "instances:\n  n1-case: {cloud: gcp, accelerator: t4, accelerators: 1, vcpu: 8, ram_gib: 30, host_w: 50, "
        "on_demand: {us-central1: '1.00'}, source: a case, date: 2026-01-01, confidence: assumed}\n"
    )
    lived = life("2026-03-15T00:00+01:00", "2026-04-15T00:00+02:00", None, "n1-case", "us-central1")
    priced = price_lives([lived], catalog=overlay, timezone="Europe/Berlin")
    assert priced.by("month") == {("2026-03",): 355_650_000_000, ("2026-04",): 304_800_000_000}


def test_an_azure_reservation_and_a_life_across_the_hour() -> None:
    """From 10:40:00.5 to 11:20:30.2 beside a whole hour: 1,199.5 s at 3.673 are 1.223823194; 1,230.5 s after 11:00 are covered."""
    lives = [
        life("2026-11-02T10:00Z", "2026-11-02T11:00Z", "3.673", AZURE, "eastus", "whole"),
        life("2026-11-02T10:40:00.5Z", "2026-11-02T11:20:30.2Z", "3.673", AZURE, "eastus", "across"),
    ]
    promise = {"choice": "azure_reservation", "instance": AZURE, "region": "eastus", "usd_per_hour": "2.00"}
    close(price_lives(lives, commitments={"azure": promise}), "5.223823194")


def test_an_hour_of_an_hour_and_a_half() -> None:
    """Lord Howe sets its clocks back by half an hour: its day of 5 April 2026 has 24.5 hours, and 24.5 x 2.50 = 61.25."""
    free = life("2026-04-04T15:00Z", "2026-04-04T15:10Z", "0")
    promise = {"ri": reserved(GPU, "2.50", zone="us-east-1b")}
    priced = price_lives(
        [free], commitments=promise, timezone="Australia/Lord_Howe", begins="2026-04-04T13:00Z", ends="2026-04-05T13:30Z"
    )
    close(priced, "61.25")
