"""Bills of accounts with commitments worked by hand: every expected number is derived in the comment beside it."""

from __future__ import annotations

from pathlib import Path

from commitment_kit import bill, lines, rented

from sim.billing.coverage import Place, Span, Use
from sim.billing.rates import Rate
from sim.billing.savings_plans import Plan, Plans
from sim.scenario import Account, Pool
from sim.scenario.commitments import (
    CapacityReservation,
    ComputeSavingsPlan,
    InstanceSavingsPlan,
    ReservedInstances,
)
from sim.units import NANO_PER_USD as USD
from sim.units import NS_PER_HOUR, nano_usd

# One machine on demand is 10 USD an hour here, unless the test says otherwise.
TEN = {"gpu": Pool(price_usd_per_hour="10.00")}


def reserved(count: int, usd: str = "6.00", **changes: object) -> ReservedInstances:
    """Reserved machines in us-east-1."""
    return ReservedInstances(instance="p5.4xlarge", region="us-east-1", count=count, usd_per_hour=usd, **changes)  # type: ignore[arg-type]


def dollars(found: dict[tuple[object, ...], int]) -> dict[tuple[object, ...], float]:
    """Amounts in dollars; those of the tests are whole fractions."""
    return {key: amount / USD for key, amount in found.items()}


def test_reserved_machines_are_paid_every_hour_used_or_not() -> None:
    # Two reserved at 6.00. One machine runs for an hour and a half of three.
    # Hour 1: 1 h used, 1 h lost. Hour 2: 0.5 h used, 1.5 h lost. Hour 3: 2 h lost. Together 3 x 12.00.
    sink = bill(TEN, {"ri": reserved(2)}, [rented(0, "gpu", 0, 5400)], hours=3)
    assert dollars(lines(sink, "local_hour", "category", "purchase")) == {
        ("2026-01-05T00:00+00:00", "compute", "reserved"): 6.0,
        ("2026-01-05T00:00+00:00", "commitment_waste", "reserved"): 6.0,
        ("2026-01-05T01:00+00:00", "compute", "reserved"): 3.0,
        ("2026-01-05T01:00+00:00", "commitment_waste", "reserved"): 9.0,
        ("2026-01-05T02:00+00:00", "commitment_waste", "reserved"): 12.0,
    }


def test_four_quarters_of_an_hour_are_one_reserved_hour() -> None:
    # Machine time is pooled within a clock hour: four machines of 15 minutes at once are covered by one reserved machine.
    sink = bill(TEN, {"ri": reserved(1)}, [rented(number, "gpu", 0, 900) for number in range(4)], hours=1)
    assert dollars(lines(sink, "category", "purchase")) == {("compute", "reserved"): 6.0}


def test_nothing_rolls_into_the_next_hour() -> None:
    # Half an hour in the first, two machines in the second: 0.5 h lost, then 1 h covered and 1 h on demand.
    leases = [rented(0, "gpu", 1800, 7200), rented(1, "gpu", 3600, 7200)]
    sink = bill(TEN, {"ri": reserved(1)}, leases, hours=2)
    assert dollars(lines(sink, "category", "purchase")) == {
        ("compute", "reserved"): 3.0 + 6.0,
        ("commitment_waste", "reserved"): 3.0,
        ("compute", "on_demand"): 10.0,
    }


def test_zonal_before_regional_and_only_in_its_zone() -> None:
    # Machines in zones a and b. The zonal one (5.00) takes zone b; the regional one (6.00) then takes zone a.
    pools = {"gpu": Pool(price_usd_per_hour="10.00", zones=["us-east-1a", "us-east-1b"])}
    leases = [rented(0, "gpu", 0, 3600), rented(1, "gpu", 0, 3600, zone="us-east-1b")]
    commitments = {"region": reserved(1), "zone": reserved(1, "5.00", zone="us-east-1b")}
    assert dollars(lines(bill(pools, commitments, leases, hours=1), "lease", "amount_nano_usd")) == {
        (0, 6 * USD): 6.0,
        (1, 5 * USD): 5.0,
    }
    # With both machines in zone a, the zonal one is lost and one machine is on demand: 5 + 6 + 10.
    leases[1] = rented(1, "gpu", 0, 3600)
    sink = bill(pools, commitments, leases, hours=1)
    assert dollars(lines(sink, "lease", "category", "purchase")) == {
        (0, "compute", "reserved"): 6.0,
        (1, "compute", "on_demand"): 10.0,
        (-1, "commitment_waste", "reserved"): 5.0,
    }


def test_other_types_and_spot_are_not_covered() -> None:
    pools = {
        "gpu": Pool(price_usd_per_hour="10.00", instance="p5.48xlarge"),
        "spot": Pool(price_usd_per_hour="4.00", purchase="spot"),
    }
    leases = [
        rented(0, "gpu", 0, 3600, instance="p5.48xlarge"),
        rented(1, "spot", 0, 3600, purchase="spot"),
    ]
    commitments = {
        "ri": reserved(1),
        "plan": InstanceSavingsPlan(family="g5", region="us-east-1", usd_per_hour="2.00", discount=0.5),
    }
    assert dollars(lines(bill(pools, commitments, leases, hours=1), "category", "purchase")) == {
        ("compute", "on_demand"): 10.0,
        ("compute", "spot"): 4.0,
        ("commitment_waste", "reserved"): 6.0,
        ("commitment_waste", "savings_plan"): 2.0,
    }


def test_reserved_then_plan_of_the_family_then_plan_for_all_then_on_demand() -> None:
    # Four machines for an hour: one reserved at 6.00; the family's plan (rate 7.00) has 10.50 USD: 1.5 h; the plan for all
    # (rate 8.00) has 4.00: 0.5 h; the last hour is on demand. 6 + 10.50 + 4 + 10 = 30.50.
    commitments = {
        "all": ComputeSavingsPlan(usd_per_hour="4.00", discount=0.2),
        "family": InstanceSavingsPlan(family="p5", region="us-east-1", usd_per_hour="10.50", discount=0.3),
        "ri": reserved(1),
    }
    sink = bill(TEN, commitments, [rented(number, "gpu", 0, 3600) for number in range(4)], hours=1)
    assert dollars(lines(sink, "purchase", "tariff", "unit_price")) == {
        ("reserved", "reserved_instances", "6.00 per hour"): 6.0,
        ("savings_plan", "instance_savings_plan", "7 per hour"): 10.5,
        ("savings_plan", "compute_savings_plan", "8 per hour"): 4.0,
        ("on_demand", "ec2_on_demand", "10.00 per hour"): 10.0,
    }
    assert sum(row["quantity"] for row in sink.tables["ledger"]) == 4 * 3600


def test_a_plan_takes_the_highest_saving_first_and_ties_go_to_the_lowest_rate() -> None:
    # Savings: small 40 % (10 to 6), large 40 % (20 to 12), other 20 % (10 to 8). With 20 USD: small 6, large 12, and 2 USD are a
    # quarter of an hour of other, of which three quarters are on demand at 10: 7.50.
    pools = {
        "other": Pool(price_usd_per_hour="10.00", instance="g6e.xlarge"),
        "large": Pool(price_usd_per_hour="20.00", instance="p5.48xlarge"),
        "small": Pool(price_usd_per_hour="10.00"),
    }
    rates = {"g6e.xlarge": "8.00", "p5.48xlarge": "12.00", "p5.4xlarge": "6.00"}
    leases = [
        rented(0, "other", 0, 3600, instance="g6e.xlarge"),
        rented(1, "large", 0, 3600, instance="p5.48xlarge"),
        rented(2, "small", 0, 3600),
    ]
    plan = ComputeSavingsPlan(usd_per_hour="20.00", rates_usd_per_hour=rates)
    assert dollars(lines(bill(pools, {"plan": plan}, leases, hours=1), "pool", "purchase")) == {
        ("small", "savings_plan"): 6.0,
        ("large", "savings_plan"): 12.0,
        ("other", "savings_plan"): 2.0,
        ("other", "on_demand"): 7.5,
    }
    # With 7 USD the tie shows: 6 for small, and 1 USD is a twelfth of an hour of large.
    plan = ComputeSavingsPlan(usd_per_hour="7.00", rates_usd_per_hour=rates)
    found = dollars(lines(bill(pools, {"plan": plan}, leases, hours=1), "pool", "purchase"))
    assert found["small", "savings_plan"] == 6.0
    # a twelfth of an hour is 300 s, so that 3,300 s are on demand: 20 x 3,300 / 3,600 = 18.333333333
    assert (found["large", "savings_plan"], found["large", "on_demand"]) == (1.0, 18.333333333)


def test_capacity_reservations_are_charged_used_or_not_and_can_be_covered() -> None:
    # Two machines kept in zone a. One runs from 0:00 to 0:30, both from 0:30 to 0:45, then none.
    # Empty: 0.5 h of one, 0.25 h of two: 1 h of machine time at 10.00, whether a machine runs or not.
    leases = [rented(0, "gpu", 0, 2700), rented(1, "gpu", 1800, 2700)]
    kept = {"kept": CapacityReservation(instance="p5.4xlarge", region="us-east-1", zone="us-east-1a", count=2)}
    # The catalog's price of p5.4xlarge is 6.88 for what stands empty; the pool has its own price.
    sink = bill({"gpu": Pool()}, kept, leases, hours=1)
    assert dollars(lines(sink, "category", "purchase")) == {
        ("compute", "on_demand"): 6.88,
        ("commitment_waste", "capacity_reservation"): 6.88,
    }
    # A reserved machine covers what runs first and the empty hour not at all: 1 h at 6.00 and 1 h empty at 6.88.
    sink = bill({"gpu": Pool()}, {**kept, "ri": reserved(1)}, leases, hours=1)
    assert dollars(lines(sink, "category", "purchase")) == {
        ("compute", "reserved"): 6.0,
        ("commitment_waste", "capacity_reservation"): 6.88,
    }
    # Two cover both.
    sink = bill({"gpu": Pool()}, {**kept, "ri": reserved(2)}, leases, hours=1)
    assert dollars(lines(sink, "category", "purchase")) == {("compute", "reserved"): 6.0, ("commitment_waste", "reserved"): 6.0}


def test_two_machines_at_once_use_one_kept_place_and_leave_it_empty_later() -> None:
    # Machine time is an hour, but half an hour of it finds no kept place, and the place stands empty for half an hour.
    kept = {"kept": CapacityReservation(instance="p5.4xlarge", region="us-east-1", zone="us-east-1a", count=1)}
    sink = bill({"gpu": Pool()}, kept, [rented(0, "gpu", 0, 1800), rented(1, "gpu", 0, 1800)], hours=1)
    assert dollars(lines(sink, "category")) == {("compute",): 6.88, ("commitment_waste",): 3.44}


def test_commitments_that_begin_and_end_inside_the_run() -> None:
    # From 0:30 to 2:00: the first hour has half a reserved hour, the second a whole one, the third none.
    ri = reserved(1, begins="2026-01-05T00:30:00Z", ends="2026-01-05T02:00:00Z")
    sink = bill(TEN, {"ri": ri}, [rented(0, "gpu", 0, 3 * 3600)], hours=3)
    assert dollars(lines(sink, "local_hour", "purchase")) == {
        ("2026-01-05T00:00+00:00", "reserved"): 3.0,
        ("2026-01-05T00:00+00:00", "on_demand"): 5.0,
        ("2026-01-05T01:00+00:00", "reserved"): 6.0,
        ("2026-01-05T02:00+00:00", "on_demand"): 10.0,
    }


def test_a_part_of_an_hour_has_that_part_of_the_commitment() -> None:
    # The run is an hour and a half; nothing runs: 1.5 x (6 + 4).
    plan = ComputeSavingsPlan(usd_per_hour="4.00", discount=0.2)
    sink = bill(TEN, {"ri": reserved(1), "plan": plan}, [], hours=1.5)
    assert dollars(lines(sink, "purchase", "unit")) == {
        ("reserved", "instance-second"): 9.0,
        ("savings_plan", "USD committed"): 6.0,
    }


def test_the_example_of_the_savings_plans_user_guide() -> None:
    # docs.aws.amazon.com/savingsplans/latest/userguide/sp-applying.html, an older text, read 2026-11-23; on demand and plan rate:
    # one c5.9xlarge 4.00, 2.00 (50 %); one c5.24xlarge 10.00, 8.00 (20 %); 10 vCPU 1.50, 1.00 (33 %); 5 GB 2.00, 1.00 (50 %).
    # The four kinds of use are four instance types here.
    rates = {"m7i.2xlarge": ("4.00", "2.00", 1), "m7i.48xlarge": ("10.00", "8.00", 1), "g5.xlarge": ("1.50", "1.00", 10)}
    rates["g6.xlarge"] = ("2.00", "1.00", 5)
    pools = {name.replace(".", "_"): Pool(instance=name, price_usd_per_hour=listed) for name, (listed, _, _) in rates.items()}
    names = [name for name, (_, _, count) in rates.items() for _ in range(count)]
    leases = [rented(number, name.replace(".", "_"), 0, 3600, instance=name) for number, name in enumerate(names)]

    def pay(usd: str) -> dict[tuple[object, ...], float]:
        plan = ComputeSavingsPlan(usd_per_hour=usd, rates_usd_per_hour={name: rate for name, (_, rate, _) in rates.items()})
        return dollars(lines(bill(pools, {"plan": plan}, leases, hours=1), "pool", "purchase"))

    # Its first scenario: 25 USD an hour cover everything, 2 + 8 + 10 + 5.
    assert pay("25.00") == {
        ("m7i_2xlarge", "savings_plan"): 2.0,
        ("m7i_48xlarge", "savings_plan"): 8.0,
        ("g5_xlarge", "savings_plan"): 10.0,
        ("g6_xlarge", "savings_plan"): 5.0,
    }
    # With 2 USD: of the two at 50 % the one with the lower rate, 2 of its 5 GB; the rest on demand, 3 x 2 + 4 + 10 + 10 x 1.50.
    assert pay("2.00") == {
        ("g6_xlarge", "savings_plan"): 2.0,
        ("g6_xlarge", "on_demand"): 6.0,
        ("m7i_2xlarge", "on_demand"): 4.0,
        ("m7i_48xlarge", "on_demand"): 10.0,
        ("g5_xlarge", "on_demand"): 15.0,
    }


def test_the_figures_of_the_newer_example_that_are_consistent() -> None:
    # repost.aws question QUgw-Sk0sjSJ2JM11c1QofMA, read 2026-11-23, with 1.5 million GB-s of Lambda (1M requests x 3 s x 0.5 GB)
    # and not the 1,600 of the answer: 4 x 0.70 + 400 x 0.03 + 8.20 + 1,500,000 x 0.00001275 = 2.80 + 12 + 8.20 + 19.125, together
    # 42.125 of 50 USD.
    # The price of its 1,600 GB of Fargate memory cannot be read; to reach the 47.125 of the page it would be 5.00.
    use = {"r5": ("1.00", "0.70", 4), "vcpu": ("0.04", "0.03", 400), "m5": ("10.00", "8.20", 1)}
    use["lambda"] = ("0.000015", "0.00001275", 1_500_000)
    rates = {kind: Rate(0, nano_usd(plan), plan, "page", "published") for kind, (_, plan, _) in use.items()}
    uses = [
        Use(
            Place(kind, "aws", kind, kind, "us-east-1", "on_demand"), "a", 0, count * NS_PER_HOUR,
            Rate(0, nano_usd(listed), listed, "page", "published"), "on_demand",
        )
        for kind, (listed, _, count) in use.items()
    ]  # fmt: skip
    plan = Plan("plan", 50 * USD, lambda place: rates[place.instance], Span(), "compute_savings_plan", "page", "published")
    (left,) = Plans((plan,)).cover(0, NS_PER_HOUR, uses)
    assert 50 * USD - left.amount_nano == 42_125_000_000
    assert {use.place.pool: [piece.amount_nano / USD for piece in use.pieces] for use in uses} == {
        "r5": [2.8],
        "vcpu": [12.0],
        "m5": [8.2],
        "lambda": [19.125],
    }


def test_the_committed_rate_is_that_of_its_beginning_and_a_plan_dearer_than_the_day_is_not_used(tmp_path: Path) -> None:
    # The price falls from 98.32 to 55.04 at midnight of 1 June. Reserved at 25 % less than 98.32 for the whole run: 73.74.
    # A plan for all at 40 % off, 58.992, is dearer than 55.04 from June on: its commitment is lost then.
    overlay = """instances:
  p5.48xlarge:
    on_demand:
      us-east-1:
        - {usd_per_hour: "98.32", valid_from: 2024-01-01, source: a, date: 2026-01-01, confidence: published}
        - {usd_per_hour: "55.04", valid_from: 2026-06-01, source: b, date: 2026-06-01, confidence: published}
    source: both prices
    date: 2026-06-01
    confidence: published
"""
    path = tmp_path / "prices.yaml"
    path.write_text(overlay, "utf-8")
    commitments = {
        "ri": ReservedInstances(instance="p5.48xlarge", region="us-east-1", discount=0.25),
        "plan": ComputeSavingsPlan(usd_per_hour="58.992", discount=0.4),
    }
    leases = [rented(number, "gpu", 0, 7200, instance="p5.48xlarge") for number in range(3)]
    pools = {"gpu": Pool(instance="p5.48xlarge")}
    sink = bill(pools, commitments, leases, hours=2, start="2026-05-31T23:00:00Z", catalog=str(path))
    may, june = "2026-05", "2026-06"
    assert dollars(lines(sink, "month", "category", "purchase", "unit_price")) == {
        (may, "compute", "reserved", "73.74 per hour"): 73.74,
        (may, "compute", "savings_plan", "58.992 per hour"): 58.992,
        (may, "compute", "on_demand", "98.32 per hour"): 98.32,
        (june, "compute", "reserved", "73.74 per hour"): 73.74,
        (june, "compute", "on_demand", "55.04 per hour"): 110.08,
        (june, "commitment_waste", "savings_plan", "1 per USD committed"): 58.992,
    }


def test_two_reservations_of_the_same_machines_keep_two_places() -> None:
    # One place kept by each; one machine runs for half an hour: 0.5 h empty of the first, 1 h of the second, 1.5 x 6.88 = 10.32.
    kept = CapacityReservation(instance="p5.4xlarge", region="us-east-1", zone="us-east-1a", count=1)
    sink = bill({"gpu": Pool()}, {"one": kept, "two": kept}, [rented(0, "gpu", 0, 1800)], hours=1)
    assert dollars(lines(sink, "category")) == {("compute",): 3.44, ("commitment_waste",): 10.32}
    # Two machines fill both.
    sink = bill({"gpu": Pool()}, {"one": kept, "two": kept}, [rented(number, "gpu", 0, 3600) for number in range(2)], hours=1)
    assert dollars(lines(sink, "category")) == {("compute",): 13.76}


def test_hours_are_those_of_the_account() -> None:
    # 00:00 UTC is 05:30 in Kolkata: the first hour of the run has half a reserved hour, then a whole one, then half of one.
    # A machine from 00:00 to 00:45 UTC: half an hour is covered, then a quarter; three quarters, and half an hour, are lost.
    account = Account("account", "Asia/Kolkata")
    sink = bill(TEN, {"ri": reserved(1)}, [rented(0, "gpu", 0, 2700)], hours=2, account=account)
    assert dollars(lines(sink, "local_hour", "category")) == {
        ("2026-01-05T05:00+05:30", "compute"): 3.0,
        ("2026-01-05T06:00+05:30", "compute"): 1.5,
        ("2026-01-05T06:00+05:30", "commitment_waste"): 4.5,
        ("2026-01-05T07:00+05:30", "commitment_waste"): 3.0,
    }


def test_every_row_names_its_commitment_and_its_on_demand_price() -> None:
    # Three machines for an hour at 10.00: "ri" covers two at 6.00 each, "all" (rate 8.00) has 4.00 for half of the third, whose
    # other half is on demand. List prices: 10 for each, then 5 and 5.
    plan = ComputeSavingsPlan(usd_per_hour="4.00", discount=0.2)
    leases = [rented(number, "gpu", 0, 3600) for number in range(3)]
    found = dollars(
        lines(bill(TEN, {"ri": reserved(2), "all": plan}, leases, hours=1), "commitment", "charge_category", "list_nano_usd")
    )
    assert found == {("ri", "usage", 10 * USD): 12.0, ("all", "usage", 5 * USD): 4.0, ("", "usage", 5 * USD): 5.0}
    # Nothing runs: two reserved hours at the pool's 10.00 each, and the plan's dollars, which have no list price but themselves.
    found = dollars(lines(bill(TEN, {"ri": reserved(2), "all": plan}, [], hours=1), "commitment", "category", "list_nano_usd"))
    assert found == {("ri", "commitment_waste", 20 * USD): 12.0, ("all", "commitment_waste", 4 * USD): 4.0}
    # A place that is kept and stands empty is of its reservation, or of what covers it.
    kept = CapacityReservation(instance="p5.4xlarge", region="us-east-1", zone="us-east-1a", count=2)
    found = dollars(lines(bill(TEN, {"kept": kept, "ri": reserved(1)}, [], hours=1), "commitment", "purchase", "list_nano_usd"))
    assert found == {
        ("ri", "reserved", 10 * USD): 6.0,
        ("kept", "capacity_reservation", 10 * USD): 10.0,
    }
