"""Machine lives and their bills, worked by hand from the written rules of each cloud; the arithmetic stands beside each.

3.60 USD an hour is a tenth of a cent a second. Amounts are compared to the nano-dollar, with half a step for each row.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from sim.billing.lives import Life, epoch_ns
from sim.studies.price import PricedLives, price_lives
from sim.units import instant

EC2, GCE, TPU, AZURE = "g5.xlarge", "g2-standard-4", "ct5lp-hightpu-8t", "NC24ads_A100_v4"
LAMBDA, RUNPOD, COREWEAVE = "gpu_1x_a10", "1x_A40_SECURE", "gb200-4x"
REGION = {EC2: "us-east-1", "p5.48xlarge": "us-east-1", GCE: "us-east1", TPU: "us-central1", AZURE: "eastus"}
NOON = "2026-11-02T12:00:00Z"


def life(instance: str, length_s: str, ended: str = "user", usd: str | None = "3.60", **columns: str) -> Life:
    """One life from noon on, of so many seconds."""
    at_noon = epoch_ns(instant(NOON))
    purchase, system = columns.get("purchase", "on_demand"), columns.get("operating_system", "linux")
    at_end = at_noon + int(Decimal(length_s) * 10**9)
    return Life("m", instance, REGION.get(instance, "all"), at_noon, at_end, purchase, "", ended, usd, (), system)


def spot(length_s: str, ended: str, *path: tuple[str, str], instance: str = EC2) -> Life:
    """A spot life from noon on at 3.60, or by a path of (time of the day, USD an hour)."""
    found = life(instance, length_s, ended, None if path else "3.60", purchase="spot")
    moments = tuple((epoch_ns(instant(f"2026-11-02T{time}Z")), usd) for time, usd in path)
    return Life(**{**vars(found), "path": moments})


def close(priced: PricedLives, usd: str) -> None:
    """The bill is the amount in dollars to the nano-dollar, up to the rounding of its rows."""
    assert abs(Decimal(priced.amount_nano) / 10**9 - Decimal(usd)) <= Decimal(len(priced.ledger)) / 2 / 10**9, priced.amount_nano


BILLS: dict[str, tuple[Life, str]] = {
    # EC2 on demand: whole seconds, at least 60, from RUNNING.
    "EC2, 1 ms: 60 s": (life(EC2, "0.001"), "0.060"),
    "EC2, 59.2 s: 60 s": (life(EC2, "59.2"), "0.060"),
    "EC2, 60 s": (life(EC2, "60"), "0.060"),
    "EC2, 60.000001 s: 61 s": (life(EC2, "60.000001"), "0.061"),
    "EC2, 61.4 s: 62 s": (life(EC2, "61.4"), "0.062"),
    "EC2, 2 h 30 min": (life(EC2, "9000"), "9.000"),
    "EC2, 61.4 s to the moment, it still runs": (life(EC2, "61.4", "running"), "0.0614"),
    "EC2, crashed after 61.4 s: who crashes pays": (life(EC2, "61.4", "crashed"), "0.062"),
    # 62 s x 1.006 / 3600 = 0.01732555...
    "EC2, 61.4 s of a g5.xlarge at its price": (life(EC2, "61.4", usd=None), "0.017325556"),
    "EC2, 30 days of a p5.48xlarge: 720 x 55.04": (life("p5.48xlarge", "2592000", usd=None), "39628.80"),
    # SUSE on EC2: whole hours of the life, rounded up at its end; of spot the hour that EC2 interrupts is free. Others as Linux.
    "SUSE, 59.2 s: an hour": (life(EC2, "59.2", operating_system="suse"), "3.600"),
    "SUSE, 61 min: two hours": (life(EC2, "3660", operating_system="suse"), "7.200"),
    "SUSE, to the second": (life(EC2, "7200", operating_system="suse"), "7.200"),
    "SUSE spot, interrupted after 59 min": (life(EC2, "3540", "interrupted", purchase="spot", operating_system="suse"), "0"),
    "SUSE spot, interrupted after 2 h 30 min": (
        life(EC2, "9000", "interrupted", purchase="spot", operating_system="suse"), "7.200"
    ),
    "SUSE spot, the user ends it after 2 h 30 min": (life(EC2, "9000", purchase="spot", operating_system="suse"), "10.800"),
    "RHEL, 61.4 s: 62 s": (life(EC2, "61.4", operating_system="rhel"), "0.062"),
    "Windows, 59.2 s: 60 s": (life(EC2, "59.2", operating_system="windows"), "0.060"),
    # EC2 spot: the price in force at every second; interrupted by EC2 before 3,600 s: nothing.
    "spot, interrupted at 3,599 s": (spot("3599", "interrupted"), "0"),
    "spot, interrupted at 3,599.999 s": (spot("3599.999", "interrupted"), "0"),
    "spot, interrupted at 3,600 s": (spot("3600", "interrupted"), "3.600"),
    "spot, interrupted at 3,601 s": (spot("3601", "interrupted"), "3.601"),
    "spot, the user ends it after 30 s: 60 s": (spot("30", "user"), "0.060"),
    "spot, the user ends it after half an hour": (spot("1800", "user"), "1.800"),
    "spot, crashed after half an hour": (spot("1800", "crashed"), "1.800"),
    "spot, still there after 10.5 s": (spot("10.5", "running"), "0.0105"),
    # 20 min x 1.00 + 80 min x 1.50 = 0.33333... + 2.00
    "spot, the price moves": (spot("6000", "user", ("12:00", "1.00"), ("12:20", "1.50")), "2.333333333"),
    # 15 min x 2.00 + 30 min x 0.50 + 15 min x 3.00 = 0.50 + 0.25 + 0.75
    "spot, the price moves twice": (
        spot("3600", "interrupted", ("11:00", "2.00"), ("12:15", "0.50"), ("12:45", "3.00")), "1.50",
    ),
    "spot, interrupted early, whatever the price": (spot("3000", "interrupted", ("12:00", "1"), ("12:20", "9")), "0"),
    # 10 s at 3.60 and 50 s of the minimum: 20 s more at 3.60, then 30 s at 7.20. 30 x 0.001 + 30 x 0.002.
    "spot, the price rises inside the minimum": (spot("10", "user", ("11:00", "3.60"), ("12:00:30", "7.20")), "0.090"),
    # 90.5 s are 91: 90 at 0.001, the last one wholly at 0.002, for the price rises at the end of the 90th.
    "spot, the price rises inside the last second": (spot("90.5", "user", ("11:00", "3.60"), ("12:01:30", "7.20")), "0.092"),
    # Compute Engine: whole seconds, at least 60; preempted in the first minute: nothing.
    "GCE, 59 s: 60 s": (life(GCE, "59"), "0.060"),
    "GCE, 60 s": (life(GCE, "60"), "0.060"),
    "GCE, 3,600.5 s: 3,601 s": (life(GCE, "3600.5"), "3.601"),
    "GCE spot, preempted at 59 s": (spot("59", "interrupted", instance=GCE), "0"),
    "GCE spot, preempted at 59.9 s": (spot("59.9", "interrupted", instance=GCE), "0"),
    "GCE spot, preempted at 60 s": (spot("60", "interrupted", instance=GCE), "0.060"),
    "GCE spot, preempted at 3,599 s: no free hour": (spot("3599", "interrupted", instance=GCE), "3.599"),
    "GCE spot, the user ends it after 59 s: 60 s": (spot("59", "user", instance=GCE), "0.060"),
    # Cloud TPU: 8 chips at 1.20, 9.60 an hour, while READY. 1,000 s: 9.60 x 1,000 / 3,600 = 2.6666...; no minimum.
    "TPU, 1,000 s of eight chips": (life(TPU, "1000", usd=None), "2.666666667"),
    "TPU, 10 s: no minimum": (life(TPU, "10"), "0.010"),
    "TPU, half a chip-hour of each: 8 x 0.60": (life(TPU, "1800", usd=None), "4.80"),
    # Azure by the second; Lambda whole minutes; RunPod by the second; CoreWeave whole minutes.
    "Azure, 61.4 s: 62 s": (life(AZURE, "61.4"), "0.062"),
    "Azure spot, evicted at 600 s: paid": (spot("600", "interrupted", instance=AZURE), "0.600"),
    "Lambda, 61.4 s: two minutes": (life(LAMBDA, "61.4"), "0.120"),
    "Lambda, 120 s: two minutes": (life(LAMBDA, "120"), "0.120"),
    # 1.29 / 60 x 31 min = 0.6665
    "Lambda, 30 min 1 s of an A10": (life(LAMBDA, "1801", usd=None), "0.6665"),
    "RunPod, 61.4 s: 62 s": (life(RUNPOD, "61.4"), "0.062"),
    "CoreWeave, 61.4 s: two minutes": (life(COREWEAVE, "61.4"), "0.120"),
}  # fmt: skip


@pytest.mark.parametrize("name", BILLS)
def test_the_bill_of_a_life(name: str) -> None:
    lived, usd = BILLS[name]
    close(price_lives([lived]), usd)


# Days on which clocks change, priced by the hour of the account: the machine lives a whole local day at 3.60.
DAYS = [
    ("Europe/Berlin", "2026-10-25T00:00+02:00", "2026-10-26T00:00+01:00", 25),
    ("Europe/Berlin", "2026-03-29T00:00+01:00", "2026-03-30T00:00+02:00", 23),
    ("America/New_York", "2026-11-01T00:00-04:00", "2026-11-02T00:00-05:00", 25),
    ("Australia/Lord_Howe", "2026-10-04T00:00+10:30", "2026-10-05T00:00+11:00", 23.5),
    ("Asia/Kolkata", "2026-11-01T00:00+05:30", "2026-11-02T00:00+05:30", 24),
]


@pytest.mark.parametrize(("zone", "begin", "end", "hours"), DAYS)
def test_a_day_has_its_hours(zone: str, begin: str, end: str, hours: float) -> None:
    """Each hour is a row of its own, named by its local time and offset; the day costs 3.60 for each of its hours."""
    whole = Life.between(begin, end, instance=EC2, region="us-east-1", usd_per_hour="3.60")
    priced = price_lives([whole], timezone=zone)
    close(priced, str(Decimal("3.60") * Decimal(hours)))
    assert len(priced.ledger) == -(-hours // 1)
    assert len({row["local_hour"] for row in priced.ledger}) == len(priced.ledger)
    assert {row["month"] for row in priced.ledger} == {begin[:7]}


def test_months_are_those_of_the_account() -> None:
    """23:00 to 01:00 UTC around the end of October is half in each month in UTC, and all October in New York."""
    lived = Life.between("2026-10-31T23:00Z", "2026-11-01T01:00Z", instance=EC2, region="us-east-1", usd_per_hour="3.60")
    assert price_lives([lived]).by("month") == {("2026-10",): 3_600_000_000, ("2026-11",): 3_600_000_000}
    assert price_lives([lived], timezone="America/New_York").by("month") == {("2026-10",): 7_200_000_000}


def test_a_price_list_changes_inside_a_life(tmp_path: Path) -> None:
    """98.32 until midnight of 5 June, then 55.04: 22:30 to 01:15 is 1.5 x 98.32 + 1.25 x 55.04 = 147.48 + 68.80."""
    overlay = tmp_path / "prices.yaml"
    row = "{{usd_per_hour: '{}', valid_from: {}, source: a list, date: 2026-06-05, confidence: published}}"
    listed = ", ".join(row.format(usd, day) for usd, day in (("98.32", "2025-01-01"), ("55.04", "2026-06-05")))
    about = "source: a list, date: 2026-06-05, confidence: published"
    overlay.write_text(f"instances:\n  p5.48xlarge: {{on_demand: {{us-east-1: [{listed}]}}, {about}}}\n")
    lived = Life.between("2026-06-04T22:30Z", "2026-06-05T01:15Z", instance="p5.48xlarge", region="us-east-1")
    close(price_lives([lived], catalog=overlay), "216.28")
    # 23:59:30 to 23:59:50 is at least 60 s: 30 s before midnight and 30 s after it. 30 x (98.32 + 55.04) / 3600 = 1.278
    short = Life.between("2026-06-04T23:59:30Z", "2026-06-04T23:59:50Z", instance="p5.48xlarge", region="us-east-1")
    priced = price_lives([short], catalog=overlay)
    close(priced, "1.278")
    assert [(str(row["quantity"]), row["category"], row["local_hour"][:13]) for row in priced.ledger] == [
        ("20", "compute", "2026-06-04T23"),
        ("10", "minimum", "2026-06-04T23"),
        ("30", "minimum", "2026-06-04T23"),
    ]
    # The first price also holds before its date.
    early = Life.between("2024-01-01T00:00Z", "2024-01-01T01:00Z", instance="p5.48xlarge", region="us-east-1")
    close(price_lives([early], catalog=overlay), "98.32")


def test_a_maximum_price_crosses_the_path() -> None:
    """A maximum of 1.20 meets 1.50 at 12:20: what began at noon is free, what began at 11:00 pays 80 minutes at 1.00."""
    path = tuple((epoch_ns(instant(f"2026-11-02T{time}Z")), usd) for time, usd in (("10:00", "1.00"), ("12:20", "1.50")))
    lives = [
        Life(begin, EC2, "us-east-1", epoch_ns(instant(f"2026-11-02T{begin}Z")), epoch_ns(instant("2026-11-02T12:20Z")), "spot",
             "us-east-1a", "interrupted", None, path)
        for begin in ("12:00", "11:00")
    ]  # fmt: skip
    priced = price_lives(lives)
    assert [row["amount_nano_usd"] for row in priced.leases] == [0, 1_333_333_333]


# Sustained use of a family at 1.00 an hour. N1: quarters of the month at 100, 80, 60, 40 %; N2: 100, 86.78, 73.3, 60 %.
SUSTAINED = [
    # family, month, hours of the month, (from, to) of the lives in hours, dollars
    ("n1", "2026-01", 744, [(0, 186)], "186.00"),  # a quarter at 100 %
    ("n1", "2026-01", 744, [(0, 372)], "334.80"),  # half: 186 + 148.80, 10 % less
    ("n1", "2026-01", 744, [(0, 558)], "446.40"),  # three quarters: + 111.60, 20 % less
    ("n1", "2026-01", 744, [(0, 744)], "520.80"),  # all: + 74.40, 30 % less
    ("n1", "2026-04", 720, [(0, 720)], "504.00"),  # 180 x 2.8
    ("n1", "2026-02", 672, [(0, 672)], "470.40"),  # 168 x 2.8
    ("n1", "2026-01", 744, [(0, 186), (186, 372), (372, 558), (558, 744)], "520.80"),  # one inferred machine
    ("n1", "2026-01", 744, [(0, 372), (0, 372)], "669.60"),  # two inferred machines of half a month
    # 300 to 372 twice: one inferred machine of 672 h, 186 + 148.80 + 111.60 + 114 x 0.40 = 492.00, and one of 72 h
    ("n1", "2026-01", 744, [(0, 372), (300, 672)], "564.00"),
    ("n2", "2026-01", 744, [(0, 744)], "595.3488"),  # 186 x 3.2008, 20 % less
    ("n2", "2026-01", 744, [(0, 372)], "347.4108"),  # 186 x 1.8678
    ("a2", "2026-01", 744, [(0, 744)], "744.00"),  # none for machines of accelerators
]


@pytest.mark.parametrize(("family", "month", "hours", "spans", "usd"), SUSTAINED)
def test_sustained_use(family: str, month: str, hours: int, spans: list[tuple[int, int]], usd: str, tmp_path: Path) -> None:
    overlay = tmp_path / "family.yaml"
    about = "source: a case, date: 2026-01-01, confidence: assumed"
    overlay.write_text(
        f"instances:\n  {family}-case: {{cloud: gcp, accelerator: t4, accelerators: 1, vcpu: 8, ram_gib: 30, host_w: 50, "
        f"on_demand: {{us-central1: '1.00'}}, {about}}}\n"
    )
    start_ns = epoch_ns(instant(f"{month}-01"))
    hour_ns = 3_600 * 10**9
    assert max(end for _, end in spans) <= hours
    lives = [
        Life(str(number), f"{family}-case", "us-central1", start_ns + begin * hour_ns, start_ns + end * hour_ns)
        for number, (begin, end) in enumerate(spans)
    ]
    close(price_lives(lives, catalog=overlay), usd)
