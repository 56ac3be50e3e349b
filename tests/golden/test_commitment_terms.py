"""Bills of commitments with flexible sizes, payments up front, and of other clouds, worked by hand in the comments."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import pytest
from commitment_kit import bill, lines, rented

from sim.billing.coverage import Place, Span, Unused, Use
from sim.billing.rates import Rate
from sim.billing.reserved_machines import Machines
from sim.billing.savings_plans import Plan, Plans
from sim.domain.pricing import family_of, normalization_factor
from sim.scenario import Pool
from sim.scenario.commitments import (
    AzureReservation,
    AzureSavingsPlan,
    ComputeSavingsPlan,
    FlexibleCommittedUse,
    InstanceSavingsPlan,
    ReservedInstances,
)
from sim.units import NANO_PER_USD as USD
from sim.units import NS_PER_HOUR, nano_usd

TEN = {"gpu": Pool(price_usd_per_hour="10.00")}


def price(usd: str) -> Rate:
    """A price of a test."""
    return Rate(0, nano_usd(usd), usd, "page", "published")


def running(instance: str, usd: str = "1.00", hours: float = 1.0) -> Use:
    """A machine that runs from the start of the hour on, at an on-demand price."""
    place = Place(instance, "aws", instance, family_of(instance), "us-east-1", "on_demand")
    return Use(place, "us-east-1b", 0, round(hours * NS_PER_HOUR), price(usd), "ec2_on_demand")


def flexible(name: str, instance: str, count: int, usd: str, uses: list[Use]) -> Machines:
    """Regional reserved machines that cover every size of their family."""
    names = {instance, *(use.place.instance for use in uses if use.place.family == family_of(instance))}
    sizes = {each: int(4 * (normalization_factor(each) or 0)) for each in names}
    return Machines(
        name, "", instance, "us-east-1", "", count, price(usd), Span(), "reserved", "reserved_instances", sizes=sizes,
        smallest_first=True,
    )  # fmt: skip


def paid(use: Use) -> list[tuple[str, float, float]]:
    """Commitment, hours and dollars of the pieces of a machine's hour."""
    use.pay_rest()
    return [(piece.commitment, piece.length_ns / NS_PER_HOUR, piece.amount_nano / USD) for piece in use.pieces]


def test_scenario_1_of_the_guide() -> None:
    # EC2 user guide, examples of applying reserved instances, scenario 1: four m4.large reserved are 4 x 4 = 16 units, two
    # m4.xlarge 2 x 8 = 16: covered in full. One c4.large is 4 units, half of a c4.xlarge. Reserved at 0.06 and 0.05.
    uses = [running("m4.xlarge", "0.20"), running("m4.xlarge", "0.20"), running("c4.xlarge", "0.20")]
    for reserved in (flexible("m4", "m4.large", 4, "0.06", uses), flexible("c4", "c4.large", 1, "0.05", uses)):
        assert reserved.cover(0, NS_PER_HOUR, uses) == []
    assert [paid(use) for use in uses] == [
        [("m4", 1.0, 0.12)],
        [("m4", 1.0, 0.12)],
        [("c4", 0.5, 0.05), ("", 0.5, 0.10)],
    ]


def test_scenario_2_of_the_guide_smallest_size_first() -> None:
    # One m3.2xlarge, 16 units, at 0.40 an hour: two m3.large take 8, one of two m3.xlarge the other 8; the second is on demand.
    uses = [running("m3.xlarge", "0.30"), running("m3.xlarge", "0.30"), running("m3.large", "0.15"), running("m3.large", "0.15")]
    assert flexible("m3", "m3.2xlarge", 1, "0.40", uses).cover(0, NS_PER_HOUR, uses) == []
    assert [paid(use) for use in uses] == [[("m3", 1.0, 0.2)], [("", 1.0, 0.3)], [("m3", 1.0, 0.1)], [("m3", 1.0, 0.1)]]


def test_t2_of_the_guide() -> None:
    # A t2.medium covers two t2.small in full, or half of a t2.large.
    uses = [running("t2.small"), running("t2.small")]
    assert flexible("t2", "t2.medium", 1, "0.04", uses).cover(0, NS_PER_HOUR, uses) == []
    assert [paid(use) for use in uses] == [[("t2", 1.0, 0.02)], [("t2", 1.0, 0.02)]]
    large = [running("t2.large")]
    flexible("t2", "t2.medium", 1, "0.04", large).cover(0, NS_PER_HOUR, large)
    assert paid(large[0]) == [("t2", 0.5, 0.04), ("", 0.5, 0.5)]


def test_an_hour_under_two_reservations_has_two_rows() -> None:
    # AWS cost and usage reports, regional reserved instances: an hour of one m4.xlarge under two m4.large is two rows of 0.5 hours.
    uses = [running("m4.xlarge")]
    for name in ("one", "two"):
        flexible(name, "m4.large", 1, "0.06", uses).cover(0, NS_PER_HOUR, uses)
    assert paid(uses[0]) == [("one", 0.5, 0.06), ("two", 0.5, 0.06)]


def test_what_flexible_machines_leave_is_in_hours_of_their_own_size() -> None:
    # A 2xlarge covers an xlarge for 45 minutes: 8 of 16 units for 3/4 h are 3/8 of its hour; 5/8 are left: 0.25 of 0.40.
    uses = [running("m3.xlarge", hours=0.75)]
    (left,) = flexible("m3", "m3.2xlarge", 1, "0.40", uses).cover(0, NS_PER_HOUR, uses)
    assert (int(left.quantity), left.amount_nano, left.commitment) == (2250, USD // 4, "m3")
    assert paid(uses[0]) == [("m3", 0.75, 0.15)]


SIZES = {
    "small": Pool(instance="m7i.2xlarge", price_usd_per_hour="0.40"),
    "large": Pool(instance="m7i.48xlarge", price_usd_per_hour="9.60"),
}
OF_SIZES = [
    rented(0, "large", 0, 3600, instance="m7i.48xlarge"),
    rented(1, "small", 0, 3600, instance="m7i.2xlarge"),
]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # 384 units: the 2xlarge takes 16, the 48xlarge 368 of 384: 23/24 h at 7.20, 1/24 h on demand at 9.60.
        ({}, {("small", "reserved"): 0.3, ("large", "reserved"): 6.9, ("large", "on_demand"): 0.4}),
        # In a zone, and where it says so, it covers its own size alone.
        ({"zone": "us-east-1a"}, {("large", "reserved"): 7.2, ("small", "on_demand"): 0.4}),
        ({"size_flexible": False}, {("large", "reserved"): 7.2, ("small", "on_demand"): 0.4}),
    ],
)
def test_the_catalog_says_which_families_are_flexible(
    changes: Mapping[str, object], expected: dict[tuple[object, ...], float]
) -> None:
    row = ReservedInstances(instance="m7i.48xlarge", region="us-east-1", usd_per_hour="7.20", **changes)  # type: ignore[arg-type]
    found = lines(bill(SIZES, {"ri": row}, OF_SIZES, hours=1), "pool", "purchase")
    assert {key: amount / USD for key, amount in found.items()} == expected


def test_p5_covers_its_own_size_unless_the_row_says_otherwise() -> None:
    # 12 units of p5.4xlarge are one p5.48xlarge; by the catalog they do not cover it.
    pools = {"gpu": Pool(instance="p5.48xlarge", price_usd_per_hour="55.04")}
    leases = [rented(0, "gpu", 0, 3600, instance="p5.48xlarge")]
    row = ReservedInstances(instance="p5.4xlarge", region="us-east-1", count=12, usd_per_hour="4.00")
    assert lines(bill(pools, {"ri": row}, leases, hours=1), "purchase") == {
        ("on_demand",): 5504 * USD // 100,
        ("reserved",): 48 * USD,
    }
    row.size_flexible = True
    assert lines(bill(pools, {"ri": row}, leases, hours=1), "category", "purchase") == {("compute", "reserved"): 48 * USD}


def test_all_upfront_is_one_charge_on_the_first_day_and_nothing_after() -> None:
    # Two machines for a year, 35,040 USD each on 5 January at 01:00: 4.00 an hour amortised. One machine runs for 3 hours of 4.
    row = ReservedInstances(
        instance="p5.4xlarge", region="us-east-1", count=2, payment="all_upfront", upfront_usd="35040", begins="2026-01-05T01:00Z"
    )
    sink = bill(TEN, {"ri": row}, [rented(0, "gpu", 0, 3 * 3600)], hours=4)
    # Cash: an hour on demand, then the purchase.
    assert lines(sink, "category", "purchase", "charge_category") == {
        ("compute", "on_demand", "usage"): 10 * USD,
        ("commitment", "reserved", "purchase"): 70_080 * USD,
        ("compute", "reserved", "usage"): 0,
        ("commitment_waste", "reserved", "usage"): 0,
    }
    bought = next(row for row in sink.tables["ledger"] if row["charge_category"] == "purchase")
    assert (bought["local_hour"], bought["quantity"], bought["unit_price"]) == (
        "2026-01-05T01:00+00:00", 2, "35040 per reservation",
    )  # fmt: skip
    # Amortised: 3 hours of 2 x 4.00; used 2 of the 6 machine-hours.
    assert lines(sink, "category", "purchase", "charge_category", amount="effective_nano_usd") == {
        ("compute", "on_demand", "usage"): 10 * USD,
        ("commitment", "reserved", "purchase"): 0,
        ("compute", "reserved", "usage"): 8 * USD,
        ("commitment_waste", "reserved", "usage"): 16 * USD,
    }


def test_partial_upfront_has_both() -> None:
    # A contract: 8,760 USD up front, 1.50 an hour for a year: 1.00 + 1.50 amortised. An hour and a half of two.
    row = ReservedInstances(
        instance="p5.4xlarge", region="us-east-1", payment="partial_upfront", upfront_usd="8760", usd_per_hour="1.50",
        begins="2026-01-05T00:00Z",
    )  # fmt: skip
    sink = bill(TEN, {"ri": row}, [rented(0, "gpu", 0, 5400)], hours=2)
    assert lines(sink, "category") == {("commitment",): 8760 * USD, ("compute",): 9 * USD // 4, ("commitment_waste",): 3 * USD // 4}
    assert lines(sink, "category", amount="effective_nano_usd") == {
        ("commitment",): 0, ("compute",): 15 * USD // 4, ("commitment_waste",): 5 * USD // 4,
    }  # fmt: skip


def test_what_was_paid_before_the_run_is_amortised_and_not_on_the_invoice() -> None:
    for begins in ("", "2025-12-01T00:00Z"):
        row = ReservedInstances(
            instance="p5.4xlarge", region="us-east-1", payment="all_upfront", upfront_usd="35040", begins=begins
        )
        sink = bill(TEN, {"ri": row}, [rented(0, "gpu", 0, 3600)], hours=2)
        assert lines(sink, "category") == {("compute",): 0, ("commitment_waste",): 0}
        assert lines(sink, "category", amount="effective_nano_usd") == {("compute",): 4 * USD, ("commitment_waste",): 4 * USD}


def test_discounts_by_payment_come_from_the_catalog() -> None:
    # m7i.48xlarge is 9.6768 on demand. All upfront for a year 36 % less: 6.193152 x 8,760 = 54,252.01152. Partial for three years
    # 55 % less: 4.35456, half of it by the hour, 2.17728 x 26,280 = 57,218.9184 up front.
    where = {"instance": "m7i.48xlarge", "region": "us-east-1", "begins": "2026-01-05T00:00Z"}
    rows = {
        "all": ReservedInstances(payment="all_upfront", **where),  # type: ignore[arg-type]
        "partial": ReservedInstances(payment="partial_upfront", term="3y", **where),  # type: ignore[arg-type]
    }
    sink = bill({"large": Pool(instance="m7i.48xlarge")}, rows, [], hours=1)
    assert lines(sink, "commitment", "category") == {
        ("all", "commitment"): 54_252_011_520_000,
        ("partial", "commitment"): 57_218_918_400_000,
        ("all", "commitment_waste"): 0,
        ("partial", "commitment_waste"): 2_177_280_000,
    }
    waste = [row["effective_nano_usd"] for row in sink.tables["ledger"] if row["category"] == "commitment_waste"]
    assert sorted(waste) == [4_354_560_000, 6_193_152_000]


def test_savings_plans_with_payments_up_front() -> None:
    # 9.00 an hour for a year, rate 6.00, half up front: 9 x 8,760 / 2 = 39,420. One machine: 6 of the 9 are used; on the invoice of
    # the hour stand 3.00 for it and 1.50 for what is lost.
    plan = ComputeSavingsPlan(
        usd_per_hour="9.00", rates_usd_per_hour={"p5.4xlarge": "6.00"}, payment="partial_upfront", begins="2026-01-05T00:00Z"
    )
    sink = bill(TEN, {"plan": plan}, [rented(0, "gpu", 0, 3600)], hours=1)
    assert lines(sink, "category", "unit_price") == {
        ("commitment", "1 per USD committed"): 39_420 * USD,
        ("compute", "3 per hour"): 3 * USD,
        ("commitment_waste", "0.5 per USD committed"): 3 * USD // 2,
    }
    assert lines(sink, "category", amount="effective_nano_usd") == {
        ("commitment",): 0, ("compute",): 6 * USD, ("commitment_waste",): 3 * USD,
    }  # fmt: skip
    plan.payment = "all_upfront"
    assert lines(bill(TEN, {"plan": plan}, [rented(0, "gpu", 0, 3600)], hours=1), "category") == {
        ("commitment",): 78_840 * USD, ("compute",): 0, ("commitment_waste",): 0,
    }  # fmt: skip


def test_a_commitment_ends_after_its_term() -> None:
    # A year from 5 January 2025, 01:00 is over on 5 January 2026, 01:00: an hour at 6.00, then on demand.
    row = ReservedInstances(instance="p5.4xlarge", region="us-east-1", usd_per_hour="6.00", begins="2025-01-05T01:00Z")
    sink = bill(TEN, {"ri": row}, [rented(0, "gpu", 0, 7200)], hours=2)
    assert lines(sink, "purchase") == {("reserved",): 6 * USD, ("on_demand",): 10 * USD}


def test_plans_of_one_kind_are_applied_together() -> None:
    # a saves 50 % on x and 20 % on y, b saves 40 % on both; each has 6.00. One x and one y for an hour at 10.00.
    # Together: a on x (50 %), 5.00; then b on y (40 %), 6.00; a has 1.00 left and nothing to spend it on. 5 + 6 + 1 = 12.00.
    # b first, alone, would pay for x, and a for 6/8 of y: 6 + 6 + 2.50 on demand.
    def made(name: str, usd: Mapping[str, str]) -> Plan:
        rates = {key: price(value) for key, value in usd.items()}
        return Plan(name, 6 * USD, lambda place: rates[place.instance], Span(), "compute_savings_plan", "page", "published")

    plans = Plans((made("b", {"x.large": "6.00", "y.large": "6.00"}), made("a", {"x.large": "5.00", "y.large": "8.00"})))
    uses = [running("x.large", "10.00"), running("y.large", "10.00")]
    left: list[Unused] = plans.cover(0, NS_PER_HOUR, uses)
    assert [paid(use) for use in uses] == [[("a", 1.0, 5.0)], [("b", 1.0, 6.0)]]
    assert [(each.name, each.amount_nano) for each in left] == [("a", USD)]


def test_two_plans_of_a_scenario_share_an_hour() -> None:
    # One year saves 20 % (8.00), three years 40 % (6.00); each has 6.00 an hour. One machine: the three-year plan pays all of it,
    # whatever the order of the rows.
    rows = {
        "short": InstanceSavingsPlan(family="p5", region="us-east-1", usd_per_hour="6.00", discount=0.2),
        "long": InstanceSavingsPlan(family="p5", region="us-east-1", usd_per_hour="6.00", discount=0.4, term="3y"),
    }
    sink = bill(TEN, rows, [rented(0, "gpu", 0, 3600)], hours=1)
    assert lines(sink, "commitment", "category") == {("long", "compute"): 6 * USD, ("short", "commitment_waste"): 6 * USD}


AZURE = """instances:
  NC48ads_A100_v4:
    cloud: azure
    accelerator: a100-pcie-80
    accelerators: 2
    vcpu: 48
    ram_gib: 440
    host_w: 100
    on_demand:
      eastus: "7.346"
    source: an example
    date: 2026-01-01
    confidence: assumed
"""


def test_azure_reservations_by_ratio_in_the_order_of_the_leases(tmp_path: Path) -> None:
    # A reservation of one NC48ads (ratio 2) at 5.00 covers, in the order of the leases, an NC48ads for half an hour and an NC24ads
    # (ratio 1) for an hour: 1 + 1 = 2. 2.50 each. A second NC24ads is on demand at 3.673.
    path = tmp_path / "azure.yaml"
    path.write_text(AZURE, "utf-8")
    pools = {
        "two": Pool(instance="NC48ads_A100_v4", region="eastus", zones=["eastus-1"]),
        "one": Pool(instance="NC24ads_A100_v4", region="eastus", zones=["eastus-1"]),
    }
    leases = [
        rented(0, "two", 0, 1800, instance="NC48ads_A100_v4", zone="eastus-1"),
        *(rented(number, "one", 0, 3600, instance="NC24ads_A100_v4", zone="eastus-1") for number in (1, 2)),
    ]
    row = AzureReservation(instance="NC48ads_A100_v4", region="eastus", usd_per_hour="5.00")
    sink = bill(pools, {"rows": row}, leases, hours=1, catalog=str(path))
    assert lines(sink, "lease", "purchase") == {
        (0, "reserved"): 5 * USD // 2, (1, "reserved"): 5 * USD // 2, (2, "on_demand"): 3_673_000_000,
    }  # fmt: skip


def test_azure_and_google_plans_cover_machines_of_their_cloud(tmp_path: Path) -> None:
    pools = {
        "azure": Pool(instance="NC24ads_A100_v4", region="eastus", zones=["eastus-1"]),
        "gcp": Pool(instance="g2-standard-4", region="us-central1", zones=["us-central1-a"], price_usd_per_hour="0.70"),
        "aws": Pool(price_usd_per_hour="10.00"),
    }
    leases = [
        rented(0, "azure", 0, 3600, instance="NC24ads_A100_v4", zone="eastus-1"),
        rented(1, "gcp", 0, 3600, instance="g2-standard-4", zone="us-central1-a"),
        rented(2, "aws", 0, 3600),
    ]
    rows = {
        "azure_plan": AzureSavingsPlan(usd_per_hour="3.00", rates_usd_per_hour={"NC24ads_A100_v4": "2.50"}),
        "google_plan": FlexibleCommittedUse(usd_per_hour="0.35", rates_usd_per_hour={"g2-standard-4": "0.50"}),
    }
    # 0.35 at 0.50 an hour is 0.7 h; 0.3 h at 0.70 are 0.21.
    assert lines(bill(pools, rows, leases, hours=1), "pool", "purchase") == {
        ("azure", "savings_plan"): 5 * USD // 2,
        ("azure_plan", "savings_plan"): USD // 2,
        ("gcp", "flexible_committed_use"): 350_000_000,
        ("gcp", "on_demand"): 210_000_000,
        ("aws", "on_demand"): 10 * USD,
    }


def test_the_amortised_shares_of_a_term_are_the_payment() -> None:
    # 1.00 USD and a nano-dollar over a year: every hour a rounded share, together exactly the payment.
    plan = Plan("plan", 7, lambda _: None, Span(), "tariff", "", "assumed", upfront=Fraction(1, 2))
    assert sum(plan.cash_nano(amount) - plan.cash_nano(amount - 1) for amount in range(1, 8)) == plan.cash_nano(7)
    row = ReservedInstances(
        instance="p5.4xlarge", region="us-east-1", payment="all_upfront", upfront_usd="1.000000001", begins="2026-01-05T00:00Z"
    )
    sink = bill(TEN, {"ri": row}, [], hours=8_760 + 24)
    assert lines(sink, "category") == {("commitment",): USD + 1, ("commitment_waste",): 0}
    assert lines(sink, "category", amount="effective_nano_usd")["commitment_waste",] == USD + 1


def test_suse_on_demand_is_by_whole_hours_and_outside_of_linux_reservations() -> None:
    # 61 minutes are two hours at 7.00 with the licence. The reserved machine is one of Linux and is lost for both hours at 6.00.
    # A plan covers every operating system: at 30 % off, 4.90 an hour.
    pools = {"gpu": Pool(price_usd_per_hour="7.00", operating_system="suse")}
    row = ReservedInstances(instance="p5.4xlarge", region="us-east-1", usd_per_hour="6.00")
    lives = [rented(0, "gpu", 0, 3_660)]
    sink = bill(pools, {"ri": row}, lives, hours=2)
    assert lines(sink, "category", "purchase") == {
        ("compute", "on_demand"): round(61 / 60 * 7 * USD), ("minimum", "on_demand"): round(59 / 60 * 7 * USD),
        ("commitment_waste", "reserved"): 12 * USD,
    }  # fmt: skip
    assert {row["tariff"] for row in sink.tables["ledger"]} == {"ec2_suse", "reserved_instances"}
    plan = ComputeSavingsPlan(usd_per_hour="4.90", discount=0.3)
    assert lines(bill(pools, {"plan": plan}, [rented(0, "gpu", 0, 3_600)], hours=1), "purchase") == {
        ("savings_plan",): 4_900_000_000
    }


def test_a_pool_of_suse_does_not_set_the_price_of_a_linux_reservation() -> None:
    # An unused hour at the catalog's 6.88 less 37 % is 4.3344, whatever the pool with SUSE costs.
    pools = {"gpu": Pool(price_usd_per_hour="7.00", operating_system="suse")}
    row = ReservedInstances(instance="p5.4xlarge", region="us-east-1")
    assert lines(bill(pools, {"ri": row}, [], hours=1), "list_nano_usd") == {(6_880_000_000,): 4_334_400_000}
