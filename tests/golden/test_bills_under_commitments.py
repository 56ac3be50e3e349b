"""Machine lives under the commitments of an account, worked by hand; the arithmetic stands beside each case.

A is 4.00 USD an hour on demand, B is 6.00, and where nothing else is said both are of us-east-1a. Lives are of one day, written
"A 10:15-10:30", with "b" for zone us-east-1b and "spot" for spot at 1.20.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from sim.billing.lives import Life, epoch_ns
from sim.studies.price import PricedLives, price_lives
from sim.units import instant

TYPES = {"A": ("g5.xlarge", "4.00"), "B": ("p5.4xlarge", "6.00")}


def lives_of(text: str, day: str = "2026-11-02") -> list[Life]:
    """Lives in words."""
    lives = []
    for number, words in enumerate(each.split() for each in text.split(",")):
        kind, span, marks = words[0], words[1], words[2:]
        begin, end = (epoch_ns(instant(f"{day}T{time}Z")) for time in span.split("-"))
        instance, usd = TYPES[kind]
        zone = "us-east-1b" if "b" in marks else "us-east-1a"
        bought = ("spot", "1.20") if "spot" in marks else ("on_demand", usd)
        lives.append(Life(str(number), instance, "us-east-1", begin, end, bought[0], zone, "user", bought[1]))
    return lives


def ri(count: int = 1, usd: str = "2.50", kind: str = "A", **columns: object) -> dict[str, object]:
    """Reserved machines."""
    about = {"instance": TYPES[kind][0], "region": "us-east-1", "count": count, "usd_per_hour": usd}
    return {"choice": "reserved_instances", **about, **columns}


def plan(usd: str, family: str = "", **rates: str) -> dict[str, object]:
    """A Savings Plan: for all machines, or for the family of a type."""
    own = {TYPES[kind][0]: rate for kind, rate in rates.items()}
    row: dict[str, object] = {"usd_per_hour": usd, "rates_usd_per_hour": own}
    if family:
        return {"choice": "instance_savings_plan", "family": TYPES[family][0].split(".")[0], "region": "us-east-1", **row}
    return {"choice": "compute_savings_plan", **row}


def kept(count: int = 1) -> dict[str, object]:
    """Capacity of A kept in us-east-1a."""
    return {
        "choice": "capacity_reservation", "instance": "g5.xlarge", "region": "us-east-1", "zone": "us-east-1a", "count": count,
    }  # fmt: skip


BOTH = {"A": "2.00", "B": "4.20"}  # 50 % and 30 % less
# (lives, commitments, options, dollars)
BILLS: dict[str, tuple[str, list[dict[str, object]], dict[str, str], str]] = {
    # Reserved: 3,600 machine-seconds of each clock hour for 2.50, used or not.
    "one life of an hour": ("A 10:00-11:00", [ri()], {}, "2.50"),
    "four quarters at once are an hour": ("A 10:00-10:15, A 10:00-10:15, A 10:00-10:15, A 10:00-10:15", [ri()], {}, "2.50"),
    "four quarters one after another": ("A 10:00-10:15, A 10:15-10:30, A 10:30-10:45, A 10:45-11:00", [ri()], {}, "2.50"),
    # 2.50 + 0.25 x 4.00
    "five quarters: one on demand": (
        "A 10:00-10:15, A 10:00-10:15, A 10:00-10:15, A 10:00-10:15, A 10:30-10:45", [ri()], {}, "3.50",
    ),
    "across a clock hour: both are paid": ("A 10:30-11:30", [ri()], {}, "5.00"),
    "two at once, one covered": ("A 10:00-11:00, A 10:00-11:00", [ri()], {}, "6.50"),
    "two half hours in two clock hours use half of each": ("A 10:30-11:00, A 11:00-11:30", [ri()], {}, "5.00"),
    # Hours of Kolkata begin at half past: the eight quarters lie in two of them, and all are covered: 2 x 2.50. In UTC they lie in
    # one: 2.50 + 4 x 0.25 x 4.00.
    "eight quarters, hours of UTC": (", ".join(["A 10:15-10:30"] * 4 + ["A 10:30-10:45"] * 4), [ri()], {}, "6.50"),
    "eight quarters, hours of Kolkata": (
        ", ".join(["A 10:15-10:30"] * 4 + ["A 10:30-10:45"] * 4), [ri()], {"timezone": "Asia/Kolkata"}, "5.00",
    ),
    # 59.2 s are 60 s, all of it inside the reserved hour.
    "the minimum is covered, too": ("A 10:00-10:00:59.2", [ri()], {}, "2.50"),
    "another type is not covered": ("B 10:00-11:00", [ri()], {}, "8.50"),
    "another zone, zonal": ("A 10:00-11:00 b", [ri(zone="us-east-1a")], {}, "6.50"),
    "another zone, regional": ("A 10:00-11:00 b", [ri()], {}, "2.50"),
    # The zonal one (2.40) covers one of a, the regional one (2.60) the other of a; b is on demand: 2.40 + 2.60 + 4.00.
    "zonal before regional": (
        "A 10:00-11:00, A 10:00-11:00, A 10:00-11:00 b", [ri(1, "2.60"), ri(1, "2.40", zone="us-east-1a")], {}, "9.00",
    ),
    # Were the regional one first, it would cover a and leave the zonal one nothing: 2.40 + 2.60, and b covered by the regional one.
    "zonal leaves the regional one for the other zone": (
        "A 10:00-11:00, A 10:00-11:00 b", [ri(1, "2.60"), ri(1, "2.40", zone="us-east-1a")], {}, "5.00",
    ),
    "spot is not covered": ("A 10:00-11:00 spot", [ri()], {}, "3.70"),
    # From midnight to midnight, 24 h of two, 23 of them without a machine: 2 x 24 x 2.50.
    "unused for a day": (
        "A 10:00-11:00", [ri(2)], {"begins": "2026-11-02T00:00Z", "ends": "2026-11-03T00:00Z"}, "120.00",
    ),
    # November has 720 hours, December 744: 2.50 x 720 + 4.00 x 0 for one machine idle.
    "a month of thirty days": ("A 10:00-11:00", [ri()], {"begins": "2026-11-01T00:00Z", "ends": "2026-12-01T00:00Z"}, "1800.00"),
    # Savings Plans: dollars of each clock hour, the highest saving first.
    "more than is used: the rest is lost": ("A 10:00-11:00", [plan("10", **BOTH)], {}, "10.00"),
    "half an hour of 2.00": ("A 10:00-10:30", [plan("1", **BOTH)], {}, "1.00"),
    # 2 x 2.00 for A, 4.20 for a B, 1.80 for 3/7 of the other B: 4/7 x 6.00 = 3.428571429 on demand.
    "the last use is covered in part": (
        "B 10:00-11:00, B 10:00-11:00, A 10:00-11:00, A 10:00-11:00", [plan("10", **BOTH)], {}, "13.428571429",
    ),
    # 2.00 for A, 1.00 for 1/4.20 of B; 6.00 x 3.20 / 4.20 = 4.571428571.
    "the highest saving first, whichever began first": ("B 10:00-11:00, A 10:00-11:00", [plan("3", **BOTH)], {}, "7.571428571"),
    # Nothing rolls: 2.00 lost at 10, then one covered and one on demand at 11.
    "nothing rolls into the next hour": (
        "A 11:00-12:00, A 11:00-12:00", [plan("2", **BOTH)], {"begins": "2026-11-02T10:00Z"}, "8.00",
    ),
    # 2.50 for the reserved one, 2.00 for the other.
    "reserved before plans": ("A 10:00-11:00, A 10:00-11:00", [plan("2", **BOTH), ri()], {}, "4.50"),
    # The family's plan: 1.80 of 2.00 for A, 0.20 lost. The plan for all: 2.00 are 2.00 / 4.20 of B, the rest 6.00 x 2.20 / 4.20 =
    # 3.142857143. Were the plan for all first, it would pay 2.00 for A and leave B wholly on demand: 10.00.
    "the family's plan before the plan for all": (
        "A 10:00-11:00, B 10:00-11:00", [plan("2", **BOTH), plan("2", "A", A="1.80")], {}, "7.142857143",
    ),
    "spot is not covered by plans": ("A 10:00-11:00 spot", [plan("2", **BOTH)], {}, "3.20"),
    "a plan dearer than the day is not used": ("A 10:00-11:00", [plan("2", A="4.50")], {}, "6.00"),
    # Kept capacity: the on-demand rate, used or not, and what is empty can be covered.
    "kept and used": ("A 10:00-11:00", [kept()], {}, "4.00"),
    "kept and empty for half an hour": ("A 10:00-10:30", [kept()], {}, "4.00"),
    "kept and empty at both ends": ("A 10:30-11:30", [kept()], {}, "8.00"),
    "two machines, one place": ("A 10:00-11:00, A 10:00-11:00", [kept()], {}, "8.00"),
    "a machine of the other zone takes no place": ("A 10:00-11:00 b", [kept()], {}, "8.00"),
    # Half an hour used, half an hour empty, both covered.
    "kept, half empty, and reserved": ("A 10:00-10:30", [kept(), ri()], {}, "2.50"),
    "kept, half empty, under a plan": ("A 10:00-10:30", [kept(), plan("2", **BOTH)], {}, "2.00"),
    # Half an hour used and one and a half empty, of which an hour is covered: 2.50 + 4.00.
    "kept, two, and one reserved": ("A 10:00-10:30", [kept(2), ri()], {}, "6.50"),
}  # fmt: skip


def close(priced: PricedLives, usd: str) -> None:
    """The bill is the amount in dollars to the nano-dollar, up to the rounding of its rows."""
    assert abs(Decimal(priced.amount_nano) / 10**9 - Decimal(usd)) <= Decimal(len(priced.ledger)) / 2 / 10**9, priced.amount_nano


def bill(text: str, rows: list[dict[str, object]], **options: Any) -> PricedLives:
    return price_lives(lives_of(text), commitments={f"row{number}": row for number, row in enumerate(rows)}, **options)


@pytest.mark.parametrize("name", BILLS)
def test_the_bill_under_commitments(name: str) -> None:
    text, rows, options, usd = BILLS[name]
    close(bill(text, rows, **options), usd)


@pytest.mark.parametrize(
    ("zone", "begin", "end", "hours"),
    [
        ("Europe/Berlin", "2026-10-25T00:00+02:00", "2026-10-26T00:00+01:00", 25),
        ("Europe/Berlin", "2026-03-29T00:00+01:00", "2026-03-30T00:00+02:00", 23),
        ("Europe/Berlin", "2026-03-01T00:00+01:00", "2026-04-01T00:00+02:00", 743),
        ("UTC", "2026-02-01", "2026-03-01", 672),
        ("UTC", "2024-02-01", "2024-03-01", 696),
    ],
)
def test_days_and_months_are_as_long_as_their_clocks_say(zone: str, begin: str, end: str, hours: int) -> None:
    """A reserved machine and a plan that nothing uses: 2.50 and 1.00 for every hour of the account's days."""
    spot = Life("s", "g5.xlarge", "us-east-1", epoch_ns(instant(begin)), epoch_ns(instant(end)), "spot", "", "user", "0.00")
    promises = {"ri": ri(), "plan": plan("1.00", **BOTH)}
    priced = price_lives([spot], commitments=promises, timezone=zone)
    close(priced, str(Decimal("3.50") * hours))


def test_machine_time_is_covered_exactly_once() -> None:
    """Every second of the lives is in the ledger once, whoever pays for it."""
    text = "A 10:00-11:00, A 10:10-11:40 b, B 10:20-12:00, A 10:30-10:45"
    lived = sum(life.life_ns for life in lives_of(text))
    priced = bill(text, [kept(), ri(zone="us-east-1a"), ri(1, "2.60"), plan("1", "B", B="4.00"), plan("1.5", **BOTH)])
    assert sum(row["quantity"] for row in priced.ledger if row["category"] == "compute") * 10**9 == lived


def test_sizes_of_a_family() -> None:
    """m7i.2xlarge has 16 units, m7i.48xlarge 384: 12 of the small one pay for half of the large one.

    The small machine comes first, whoever began first: 12 x 16 = 192 units are 16 of the small machine and 176 of the large one's
    384, so 208 / 384 of it are on demand: 12 x 0.27 + 9.60 x 208 / 384 = 3.24 + 5.20 = 8.44.
    """
    large = Life.between("2026-11-02T10:00Z", "2026-11-02T11:00Z", name="l", instance="m7i.48xlarge", region="us-east-1",
                         usd_per_hour="9.60")  # fmt: skip
    small = Life.between("2026-11-02T10:00Z", "2026-11-02T11:00Z", name="s", instance="m7i.2xlarge", region="us-east-1",
                         usd_per_hour="0.40")  # fmt: skip
    promise = ri(12, "0.27") | {"instance": "m7i.2xlarge", "size_flexible": True}
    close(price_lives([large, small], commitments={"ri": promise}), "8.44")
    # In a zone it covers its own size alone: 3.24 + 9.60.
    zonal = ri(12, "0.27", zone="us-east-1a") | {"instance": "m7i.2xlarge"}
    lives = [Life(**{**vars(life), "zone": "us-east-1a"}) for life in (large, small)]
    close(price_lives(lives, commitments={"ri": zonal}), "12.84")


def test_committed_use_of_google() -> None:
    """Two machines of 45 minutes at 0.708 and one committed at 0.45: 0.45 + 0.5 x 0.708 = 0.804; one idle hour more is 0.45."""
    lives = [
        Life.between(
            "2026-11-02T10:00Z", "2026-11-02T10:45Z", name=name, instance="g2-standard-4", region="us-east1", usd_per_hour="0.708"
        )
        for name in "ab"
    ]
    promise = {
        "choice": "committed_use", "instance": "g2-standard-4", "region": "us-east1", "count": 1, "usd_per_hour": "0.45",
    }  # fmt: skip
    close(price_lives(lives, commitments={"cud": promise}), "0.804")
    close(price_lives(lives, commitments={"cud": promise}, ends="2026-11-02T12:00Z"), "1.254")
