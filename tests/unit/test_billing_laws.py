"""Laws of bills, for any fleet: additive, linear, exact in every table, never below what was committed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from billing_kit import MAY_USE, STREAMS, Lists, pool_billing
from commitment_kit import bill, bill_of, lines, play, rented, resolved_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sim.billing.commitment_choice import HourlyUse, Kind, Offer, Promise, Segment, cover
from sim.billing.commitments import settlement_of
from sim.billing.coverage import cost_nano
from sim.billing.ledger import Ledger
from sim.billing.machine_rules import SPOT_RULES, on_demand_rule
from sim.billing.rates import Rate
from sim.billing.tariffs import MachineTariff, pool_tariffs
from sim.domain.usage import Lease
from sim.scenario import Account, Pool
from sim.scenario.commitments import (
    AzureReservation,
    AzureSavingsPlan,
    CapacityReservation,
    CommittedUse,
    ComputeSavingsPlan,
    FlexibleCommittedUse,
    InstanceSavingsPlan,
    ReservedInstances,
)
from sim.scenario.owned import Block, Owned
from sim.units import NANO_PER_USD, NS_PER_HOUR, NS_PER_S, nano_usd

HOURS = 5
RI = ReservedInstances(instance="p5.4xlarge", region="us-east-1", count=2)
ZONAL = ReservedInstances(instance="p5.4xlarge", region="us-east-1", zone="us-east-1b", discount=0.4)
PLAN = InstanceSavingsPlan(family="p5", region="us-east-1", usd_per_hour="7.5")
FOR_ALL = ComputeSavingsPlan(usd_per_hour="3.3", discount=0.15)
KEPT = CapacityReservation(instance="p5.4xlarge", region="us-east-1", zone="us-east-1a", count=2)
CUD = CommittedUse(instance="ct5lp-hightpu-4t", region="us-central1")
FLEXIBLE = ReservedInstances(instance="m7i.48xlarge", region="us-east-1", payment="all_upfront", begins="2026-01-05T02:00Z")
PARTIAL = ReservedInstances(
    instance="p5.48xlarge", region="us-east-1", payment="partial_upfront", discount=0.4, begins="2026-01-05T01:30Z"
)
PREPAID_PLAN = ComputeSavingsPlan(usd_per_hour="4.1", discount=0.12, payment="partial_upfront", upfront_share=0.7)
AZURE = AzureReservation(instance="NC24ads_A100_v4", region="eastus", count=2, payment="all_upfront")
AZURE_PLAN = AzureSavingsPlan(usd_per_hour="20", discount=0.3, payment="all_upfront", begins="2026-01-05T00:00Z")
GOOGLE_PLAN = FlexibleCommittedUse(usd_per_hour="0.9", discount=0.28)
BLOCK = Block("2026-01-05T00:00:00Z", 1, "39.33")
# One pool for every tariff there is.
POOLS: Mapping[str, Pool] = {
    "ec2": Pool(zones=["us-east-1a", "us-east-1b"]),
    "big": Pool(instance="p5.48xlarge"),
    "spot": Pool(purchase="spot"),
    "own": Pool(purchase="owned", quota_nodes=20, owned=Owned("350000", 0.12, 0.3, 36, 0.05)),
    "placed": Pool(purchase="owned", quota_nodes=20, owned=Owned("350000", 0.12, 0.3, 36, 0.05, "200", 10.2)),
    "block": Pool(purchase="capacity_block", quota_nodes=20, instance="p5.48xlarge", block=BLOCK),
    "gce": Pool(instance="g2-standard-4", region="us-central1", price_usd_per_hour="0.708"),
    "tpu": Pool(instance="ct5lp-hightpu-4t", region="us-central1"),
    "azure": Pool(instance="ND96isr_H100_v5", region="eastus", price_usd_per_hour="98.32"),
    "azure_small": Pool(instance="NC24ads_A100_v4", region="eastus"),
    "m7i": Pool(instance="m7i.2xlarge"),
    "m7i_large": Pool(instance="m7i.48xlarge"),
    "lambda": Pool(instance="gpu_1x_h100_sxm5", region="all"),
}
COMMITMENTS: Mapping[str, Any] = {"ri": RI, "zonal": ZONAL, "plan": PLAN, "all": FOR_ALL, "kept": KEPT, "cud": CUD}
# With every way to pay and every kind of commitment there is.
ALL_COMMITMENTS: Mapping[str, Any] = {
    **COMMITMENTS, "flexible": FLEXIBLE, "partial": PARTIAL, "prepaid": PREPAID_PLAN, "azure": AZURE, "azure_plan": AZURE_PLAN,
    "google": GOOGLE_PLAN,
}  # fmt: skip
SEARCH = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def fleets(draw: st.DrawFn, pools: tuple[str, ...] = tuple(POOLS)) -> list[Lease]:
    """Up to a dozen machines of any pools, alive at any times; some outlive the run, some spot ones are taken back."""
    made = []
    for number in range(draw(st.integers(0, 12))):
        name = draw(st.sampled_from(pools))
        pool = POOLS[name]
        start_ns = draw(st.integers(0, HOURS * NS_PER_HOUR - 1))
        end_ns = start_ns + draw(st.one_of(st.integers(1, 90 * NS_PER_S), st.integers(1, HOURS * NS_PER_HOUR)))
        cause = draw(st.sampled_from(("scaled_down", "crashed", "interrupted")))
        zone = draw(st.sampled_from(pool.zones))
        lease = rented(number, name, 0, 1, cause, instance=pool.instance, purchase=pool.purchase, zone=zone)
        made.append(replace(lease, start_ns=start_ns, end_ns=end_ns))
    return sorted(made, key=lambda lease: lease.lease)


def total(sink: Lists) -> int:
    """The whole bill in nano-dollars."""
    return sum(sink.amounts())


@SEARCH
@given(fleets())
def test_a_whole_fleet_under_every_tariff_adds_up_in_every_table(leases: list[Lease]) -> None:
    sink = bill(POOLS, ALL_COMMITMENTS, leases, HOURS)
    ledger, attribution = sink.tables["ledger"], sink.tables["attribution"]
    account = sum(row["amount_nano_usd"] for row in ledger if row["lease"] < 0)
    assert total(sink) == sum(lease["amount_nano_usd"] for lease in sink.tables["leases"]) + account
    assert total(sink) == sum(part["amount_nano_usd"] for part in attribution)
    # The invoice: rows gathered into lines.
    assert total(sink) == sum(lines(sink, "month", "pool", "purchase", "category", "unit_price").values())
    assert len(sink.tables["leases"]) == len(leases)
    # Every row is its quantity at its price, to half a nano-dollar and what is carried between the rows of an hour.
    for row in ledger:
        if row["unit"] == "instance-second" and row["amount_nano_usd"] and row["charge_category"] == "usage":
            exact = nano_usd(row["unit_price"].split()[0]) * int(row["quantity"] * NS_PER_S) / NS_PER_HOUR
            assert abs(row["amount_nano_usd"] - exact) <= max(1.0, 1e-12 * exact)
    # Machine time is billed once: that of a lease, whoever pays for it.
    for lease in sink.tables["leases"]:
        rows = [row for row in ledger if row["lease"] == lease["lease"] and row["unit"] == "instance-second"]
        assert sum(row["end_ns"] - row["start_ns"] for row in rows) == lease["billed_ns"]


@SEARCH
@given(fleets(), st.integers(0, 2 * NANO_PER_USD * 10))
def test_no_hour_costs_less_than_its_commitments(leases: list[Lease], committed_nano: int) -> None:
    plan = replace(FOR_ALL, usd_per_hour=f"{max(committed_nano, 1) / NANO_PER_USD:.9f}")
    sink = bill(POOLS, {**COMMITMENTS, "all": plan}, leases, HOURS)
    # 2 x 4.3344 reserved, 6.88 x 0.6 in a zone, the plans, 3.36 for the TPU host.
    floor_nano = 2 * 4_334_400_000 + 4_128_000_000 + 7_500_000_000 + nano_usd(plan.usd_per_hour) + 3_360_000_000
    by_hour = lines(sink, "local_hour", "purchase")
    hours = {hour for hour, _ in by_hour}
    assert len(hours) >= HOURS
    for hour in sorted(hours, key=str)[:HOURS]:
        promised = sum(by_hour.get((hour, kind), 0) for kind in ("reserved", "savings_plan", "committed_use"))
        assert promised == floor_nano


@SEARCH
@given(fleets())
def test_every_hour_costs_its_commitments_amortised_and_their_payments_are_on_their_days(leases: list[Lease]) -> None:
    sink = bill(POOLS, ALL_COMMITMENTS, leases, HOURS)
    ledger = sink.tables["ledger"]
    # By name: what is due by the hour, with its share of what was paid up front; 48xlarge at 9.6768 less 36 %, 55.04 less 40 %, two
    # NC24ads at 3.673 less 30 %, and the dollars of the plans.
    hourly = {
        "ri": 2 * 4_334_400_000, "zonal": 4_128_000_000, "plan": 7_500_000_000, "all": 3_300_000_000, "cud": 3_360_000_000,
        "flexible": 6_193_152_000, "partial": 33_024_000_000, "prepaid": 4_100_000_000, "azure": 2 * 2_571_100_000,
        "azure_plan": 20_000_000_000, "google": 900_000_000,
    }  # fmt: skip
    hours = {"flexible": HOURS - 2.0, "partial": HOURS - 1.5}
    effective = lines(sink, "commitment", amount="effective_nano_usd")
    for name, nano in hourly.items():
        # Minimum charges may reach into an hour after the run's last.
        assert abs(effective[name,] - nano * hours.get(name, HOURS)) <= 1
    bought = {row["commitment"]: row["amount_nano_usd"] for row in ledger if row["category"] == "commitment"}
    # What began before the run was paid before it.
    assert bought == {
        "flexible": 6_193_152_000 * 8_760, "partial": 16_512_000_000 * 8_760, "azure_plan": 20_000_000_000 * 8_760,
    }  # fmt: skip
    # Cash and amortised are the same where nothing is paid up front.
    paid_ahead = {"flexible", "partial", "prepaid", "azure", "azure_plan"}
    for row in ledger:
        if row["commitment"] not in paid_ahead and row["purchase"] != "capacity_block":
            assert row["amount_nano_usd"] == row["effective_nano_usd"]
    # No commitment makes use dearer than on demand, amortised.
    assert all(row["effective_nano_usd"] <= row["list_nano_usd"] + 1 for row in ledger if row["commitment"] and row["lease"] >= 0)


@SEARCH
@given(fleets())
def test_commitments_cover_machine_time_without_making_or_losing_any(leases: list[Lease]) -> None:
    def time_of(sink: Lists) -> dict[tuple[object, ...], int]:
        return {(lease["lease"],): lease["billed_ns"] for lease in sink.tables["leases"]}

    plain, committed = bill(POOLS, {}, leases, HOURS), bill(POOLS, ALL_COMMITMENTS, leases, HOURS)
    assert time_of(plain) == time_of(committed)
    # Without its charges for what was not used, no bill with commitments is above the one without.
    used = sum(row["amount_nano_usd"] for row in committed.tables["ledger"] if row["category"] in ("compute", "minimum", "energy"))
    assert used <= sum(
        row["amount_nano_usd"] for row in plain.tables["ledger"] if row["category"] in ("compute", "minimum", "energy")
    )


@SEARCH
@given(fleets(("ec2", "big", "m7i")), st.integers(1, 60), st.integers(1, 60), st.sampled_from(("no_upfront", "all_upfront")))
def test_two_plans_of_the_same_rates_are_one_plan_of_their_dollars(leases: list[Lease], one: int, other: int, payment: str) -> None:
    def costs(*dollars: int) -> tuple[int, int]:
        rows = {f"plan {number}": replace(FOR_ALL, usd_per_hour=str(usd)) for number, usd in enumerate(dollars)}
        rows["plan 0"].payment = payment
        sink = bill(POOLS, rows, leases, HOURS)
        found = lines(sink, "purchase", amount="effective_nano_usd")
        return found.get(("on_demand",), 0), found["savings_plan",]

    # Where a plan has a fraction of a nano-dollar left it ends before the nanosecond: a few nano-dollars an hour and lease.
    for together, apart in zip(costs(one + other), costs(one, other), strict=True):
        assert abs(together - apart) <= 10 * HOURS * (len(leases) + 1)


@SEARCH
@given(fleets(("m7i", "m7i_large")), st.integers(1, 60))
def test_machines_of_flexible_size_cost_what_the_choice_of_a_commitment_foretells(leases: list[Lease], count: int) -> None:
    pools = {name: POOLS[name] for name in ("m7i", "m7i_large")}
    plain = bill(pools, {}, leases, HOURS)
    row = ReservedInstances(instance="m7i.2xlarge", region="us-east-1", count=count, usd_per_hour="0.25")
    committed = bill(pools, {"ri": row}, leases, HOURS)
    kinds = {name: Kind("aws", "us-east-1", pool.instance) for name, pool in pools.items()}
    found: dict[Kind, dict[int, tuple[Segment, ...]]] = {}
    for each in plain.tables["ledger"]:
        hours = found.setdefault(kinds[each["pool"]], {})
        number = int(each["local_hour"][11:13])
        segment = Segment(each["end_ns"] - each["start_ns"], nano_usd(each["unit_price"].split()[0]))
        hours[number] = (*hours.get(number, ()), segment)
    rates = {kinds["m7i"]: 250_000_000, kinds["m7i_large"]: 24 * 250_000_000}
    promise = Promise(Offer("reserved_instances", rates, "assumed", "an example"), count)
    outcome, _ = cover(HourlyUse((NS_PER_HOUR,) * HOURS, found), promise)
    # Rows are rounded one by one.
    assert abs(total(committed) - (total(plain) - outcome.saved_nano)) <= 3 * HOURS * (len(leases) + 1)


@SEARCH
@given(fleets(("ec2",)), st.integers(1, 9))
def test_bills_are_linear_in_prices(leases: list[Lease], factor: int) -> None:
    def at(scale: int) -> tuple[int, int]:
        pools = {"ec2": replace(POOLS["ec2"], price_usd_per_hour=str(5 * scale))}
        ri = replace(RI, usd_per_hour=str(3 * scale))
        plan = ComputeSavingsPlan(usd_per_hour=str(2 * scale), rates_usd_per_hour={"p5.4xlarge": str(4 * scale)})
        paid = replace(
            RI,
            count=1,
            payment="partial_upfront",
            usd_per_hour=str(scale),
            upfront_usd=str(8760 * scale),
            begins="2026-01-05T00:00Z",
        )
        sink = bill(pools, {"ri": ri, "paid": paid, "plan": replace(plan, payment="partial_upfront")}, leases, HOURS)
        return total(sink), sum(row["effective_nano_usd"] for row in sink.tables["ledger"])

    # Half a nano-dollar of rounding for each row, at most five rows for each lease and hour; in cash and amortised.
    for many, one in zip(at(factor), at(1), strict=True):
        assert abs(many - factor * one) <= (factor + 1) * 5 * HOURS * (len(leases) + 1)


@SEARCH
@given(st.integers(60, 5 * 3600), st.integers(60, 5 * 3600), st.sampled_from(("aws", "gcp", "tpu", "azure", "runpod", "elsewhere")))
def test_bills_are_additive_at_tick_boundaries_after_the_minimum(first_s: int, second_s: int, offer: str) -> None:
    rule = on_demand_rule(offer)
    assert rule.billed_ns(first_s * NS_PER_S) + rule.billed_ns(second_s * NS_PER_S) == rule.billed_ns(
        (first_s + second_s) * NS_PER_S
    )


@SEARCH
@given(fleets(("ec2",)), st.lists(st.integers(1, HOURS * NS_PER_HOUR - 1), max_size=6))
def test_cutting_time_finer_changes_no_bill(leases: list[Lease], more_cuts: list[int]) -> None:
    resolved = resolved_of({"ec2": POOLS["ec2"]}, ALL_COMMITMENTS)
    tariffs = pool_tariffs("ec2", resolved)
    pools = {"ec2": replace(pool_billing(tariffs["us-east-1a"]), tariffs=tariffs)}
    rows = []
    for cuts in ([], more_cuts):
        sink = Lists()
        ledger = Ledger(
            resolved.scenario.start_instant, HOURS * NS_PER_HOUR, Account(), pools, STREAMS, MAY_USE, sink, settlement_of(resolved)
        )
        play(ledger, leases, HOURS * NS_PER_HOUR, cuts)
        rows.append(sink.tables["ledger"])
    assert rows[0] == rows[1]


@SEARCH
@given(
    st.integers(1, 5 * NS_PER_HOUR), st.integers(1, 10**11), st.integers(0, 10**11), st.sampled_from(("aws", "gcp", "azure", "tpu"))
)
def test_spot_is_never_dearer_than_on_demand_at_its_price_or_less(life_ns: int, spot_nano: int, more_nano: int, offer: str) -> None:
    def price(nano: int) -> tuple[Rate, ...]:
        return (Rate(0, nano, f"{nano / NANO_PER_USD:.9f}", "a price", "assumed"),)

    spot = MachineTariff(price(spot_nano), SPOT_RULES[offer])
    listed = MachineTariff(price(spot_nano + more_nano), on_demand_rule(offer))
    assert cost_nano(spot.rate(0), spot.billed_ns(life_ns)) <= cost_nano(listed.rate(0), listed.billed_ns(life_ns))


@SEARCH
@given(fleets(("own", "placed")), fleets(("own", "placed")))
def test_fixed_fleets_cost_the_same_whatever_runs(one: list[Lease], other: list[Lease]) -> None:
    pools = {name: POOLS[name] for name in ("own", "placed")}

    def fixed(leases: list[Lease]) -> dict[tuple[object, ...], int]:
        sink = bill(pools, {}, leases, HOURS)
        rows = [row for row in sink.tables["ledger"] if row["category"] != "energy"]
        return {
            (pool, hour): sum(row["amount_nano_usd"] for row in rows if (row["pool"], row["local_hour"]) == (pool, hour))
            for pool in pools
            for hour in sorted({row["local_hour"] for row in rows})
        }

    assert fixed(one) == fixed(other)


def test_an_idle_fleet_costs_what_its_machines_cost() -> None:
    resolved = resolved_of({"ec2": POOLS["ec2"]}, {})
    sink = bill_of(resolved, settlement_of(resolved), [rented(0, "ec2", 0, HOURS * 3600)], HOURS * NS_PER_HOUR)
    assert total(sink) == HOURS * 6_880_000_000
