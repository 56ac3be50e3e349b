"""Bills of spot machines worked by hand: every expected number is derived in the comment beside it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from billing_kit import Lists, busy_slice, charge, lease, make_ledger, own_price, pool_billing
from hypothesis import given
from hypothesis import strategies as st

from sim.billing.ledger import OPEN_AT_END
from sim.billing.machine_rules import SPOT_RULES
from sim.billing.rates import Rate
from sim.billing.tariffs import INTERRUPTED, MachineTariff
from sim.domain.usage import Lease
from sim.units import NS_PER_HOUR, NS_PER_MINUTE, NS_PER_S, nano_usd

# 3.60 USD per hour is 1e6 nano-dollars per second.
MILLION = 1_000_000


def spot(*prices: tuple[int, str], cloud: str = "aws") -> MachineTariff:
    """The tariff of a cloud with (from, USD per hour)."""
    return MachineTariff(tuple(Rate(at, nano_usd(usd), usd, "price path", "fitted") for at, usd in prices), SPOT_RULES[cloud])


def spot_lease(start_ns: int, end_ns: int, cause: str) -> Lease:
    """A spot lease of pool "gpu" in us-east-1a."""
    return replace(lease(0, start_ns, end_ns, cause), purchase="spot")


def bill(tariff: MachineTariff, life_ns: int, cause: str, start_ns: int = 0) -> Lists:
    """Charge one lease."""
    sink = Lists()
    charge(make_ledger(sink, pool_billing(tariff)), spot_lease(start_ns, start_ns + life_ns, cause))
    assert sink.tables["leases"][0]["amount_nano_usd"] == sum(sink.amounts())
    assert sum(part["amount_nano_usd"] for part in sink.tables["attribution"]) == sum(sink.amounts())
    return sink


def rows_of(sink: Lists, *names: str) -> list[tuple[object, ...]]:
    """Some columns of the ledger."""
    return [tuple(row[name] for name in names) for row in sink.tables["ledger"]]


def test_a_user_who_stops_after_59_seconds_pays_60() -> None:
    sink = bill(spot((0, "3.6000")), 59 * NS_PER_S, "scaled_down")
    assert rows_of(sink, "category", "tariff", "amount_nano_usd") == [
        ("compute", "ec2_spot", 59 * MILLION),
        ("minimum", "ec2_spot", MILLION),
    ]
    assert sink.tables["leases"][0]["billed_ns"] == 60 * NS_PER_S


def test_interrupted_after_3599_5_seconds_is_free() -> None:
    sink = bill(spot((0, "3.6000")), 3_599_500_000_000, INTERRUPTED, start_ns=30 * NS_PER_MINUTE)
    # 22:30 to 23:00, and 23:00 to 23:29:59.5
    assert rows_of(sink, "start_ns", "end_ns", "unit_price", "amount_nano_usd") == [
        (1_800 * NS_PER_S, 3_600 * NS_PER_S, "0 per hour (interrupted early)", 0),
        (3_600 * NS_PER_S, 5_399_500_000_000, "0 per hour (interrupted early)", 0),
    ]
    assert sink.tables["attribution"] == []
    assert sink.tables["leases"][0]["billed_ns"] == 3_599_500_000_000


def test_interrupted_after_3600_seconds_is_charged() -> None:
    sink = bill(spot((0, "3.6000")), NS_PER_HOUR, INTERRUPTED, start_ns=30 * NS_PER_MINUTE)
    assert sink.amounts() == [1_800 * MILLION, 1_800 * MILLION]


@pytest.mark.parametrize("cause", ["scaled_down", "crashed"])
def test_who_is_not_interrupted_pays_for_the_first_hour(cause: str) -> None:
    # 3,599.5 s and half a second more: the life is rounded up to 3,600 s
    assert bill(spot((0, "3.6000")), 3_599_500_000_000, cause).amounts() == [3_599_500_000, 500_000]


def test_a_lease_that_outlives_the_run_in_its_first_hour_is_charged_to_the_end() -> None:
    assert bill(spot((0, "3.6000")), 10_500_000_000, OPEN_AT_END).amounts() == [10_500_000]


def test_interrupted_later_pays_the_seconds_used() -> None:
    # one hour and 61.5 s: 3,661.5 s and half a second of rounding up
    assert bill(spot((0, "3.6000")), 3_661_500_000_000, INTERRUPTED).amounts() == [3_600 * MILLION, 61_500_000, 500_000]


def test_the_price_in_force_at_every_second() -> None:
    sink = bill(
        spot((0, "1.0000"), (20 * NS_PER_MINUTE, "2.5000"), (65 * NS_PER_MINUTE, "2.4567")), 70 * NS_PER_MINUTE, INTERRUPTED
    )
    # 22:00 to 22:20 at 1.0, 40 min at 2.5, 23:00 to 23:05 at 2.5 and 5 min at 2.4567:
    # 1e9 / 3 = 333,333,333.3; 2.5e9 x 2 / 3 = 1,666,666,666.7; 2.5e9 / 12 = 208,333,333.3; 2.4567e9 / 12 = 204,725,000
    assert rows_of(sink, "local_hour", "unit_price", "amount_nano_usd") == [
        ("2026-01-31T22:00+00:00", "1.0000 per hour", 333_333_333),
        ("2026-01-31T22:00+00:00", "2.5000 per hour", 1_666_666_667),
        ("2026-01-31T23:00+00:00", "2.5000 per hour", 208_333_333),
        ("2026-01-31T23:00+00:00", "2.4567 per hour", 204_725_000),
    ]


@pytest.mark.parametrize(
    ("cloud", "life_s", "nano_usd_charged"),
    # free before a minute on GCP, virtual machines and TPU; never on Azure, which charges the seconds
    [
        ("gcp", 59, 0),
        ("gcp", 60, 60 * MILLION),
        ("tpu", 59, 0),
        ("tpu", 60, 60 * MILLION),
        ("azure", 59, 59 * MILLION),
        ("azure", 61, 61 * MILLION),
    ],
)
def test_other_clouds_have_other_rules(cloud: str, life_s: int, nano_usd_charged: int) -> None:
    assert sum(bill(spot((0, "3.6000"), cloud=cloud), life_s * NS_PER_S, INTERRUPTED).amounts()) == nano_usd_charged


def test_zones_have_their_own_prices() -> None:
    sink = Lists()
    pool = replace(pool_billing(spot((0, "1.0000"))), tariffs={"a": spot((0, "1.0000")), "b": spot((0, "1.0000"), (5, "2.0000"))})
    ledger = make_ledger(sink, pool)
    assert next(ledger.cuts()) == 5
    for number, zone in enumerate(("a", "b")):
        rented = replace(spot_lease(10, 10 + NS_PER_HOUR // 2, "scaled_down"), lease=number, zone=zone)
        ledger.record(rented, rented.start_ns, 10 + NS_PER_HOUR // 2, [])
        ledger.close_lease(rented)
    assert sink.amounts() == [500 * MILLION, 1_000 * MILLION]


def test_rows_wait_until_it_is_known_whether_they_cost_anything() -> None:
    sink = Lists()
    ledger = make_ledger(sink, pool_billing(spot((0, "3.6000"))))
    rented = spot_lease(30 * NS_PER_MINUTE, 3 * NS_PER_HOUR, INTERRUPTED)
    ledger.record(rented, 30 * NS_PER_MINUTE, NS_PER_HOUR, [])
    ledger.record(rented, NS_PER_HOUR, 2 * NS_PER_HOUR, [])
    # the first row ended at 23:00, when the lease was 30 minutes old
    assert sink.tables["ledger"] == []
    ledger.record(rented, 2 * NS_PER_HOUR, 3 * NS_PER_HOUR, [])
    assert sink.amounts() == [1_800 * MILLION, 3_600 * MILLION]


def test_at_one_price_a_charged_spot_lease_is_split_as_one_on_demand() -> None:
    slices = [busy_slice(0, 0, "llama", 0, 3600, booting_s=600, busy_s=1500, lost_s=300, shares_ns={0: 900e9, 1: 300e9})]
    sinks = []
    for tariff in (spot((0, "7.2")), own_price("7.2")):
        sink = Lists()
        charge(make_ledger(sink, pool_billing(tariff)), spot_lease(0, 2 * NS_PER_HOUR, "scaled_down"), slices)
        sinks.append(sink)
    assert sinks[0].tables["attribution"] == sinks[1].tables["attribution"]
    assert sinks[0].tables["leases"] == sinks[1].tables["leases"]


def test_energy_of_a_free_lease_is_still_paid() -> None:
    sink = Lists()
    charge(make_ledger(sink, pool_billing(spot((0, "3.6")), electricity_billed=True)), spot_lease(0, NS_PER_HOUR // 2, INTERRUPTED))
    # two idle accelerators of 100 W and a host of 200 W for half an hour, PUE 1.25: 0.25 kWh at 0.10 USD
    assert rows_of(sink, "category", "amount_nano_usd") == [("compute", 0), ("energy", 25 * MILLION)]


@given(
    life_ns=st.integers(0, 5 * NS_PER_HOUR),
    start_ns=st.integers(0, NS_PER_HOUR),
    cause=st.sampled_from([INTERRUPTED, "scaled_down", "crashed", OPEN_AT_END]),
    prices=st.lists(
        st.tuples(st.integers(1, 6 * NS_PER_HOUR), st.integers(688, 6_880)), max_size=6, unique_by=lambda pair: pair[0]
    ),
    more_cuts_s=st.lists(st.integers(1, 5 * 3600), max_size=4),
)
def test_spot_is_never_dearer_than_on_demand_and_cuts_change_nothing(
    life_ns: int, start_ns: int, cause: str, prices: list[tuple[int, int]], more_cuts_s: list[int]
) -> None:
    tariff = spot((0, "0.6880"), *((at, f"{price / 1000:.4f}") for at, price in sorted(prices)))
    rented = spot_lease(start_ns, start_ns + life_ns, cause)
    plain, finer, listed = Lists(), Lists(), Lists()
    charge(make_ledger(plain, pool_billing(tariff)), rented)
    charge(make_ledger(finer, pool_billing(tariff)), rented, more_cuts=[cut * NS_PER_S for cut in more_cuts_s])
    charge(make_ledger(listed, pool_billing(own_price("6.88"))), rented)
    assert finer.tables["ledger"] == plain.tables["ledger"]
    # each row is rounded to within half a nano-dollar
    assert sum(plain.amounts()) <= sum(listed.amounts()) + (len(plain.amounts()) + len(listed.amounts())) / 2
    if cause == INTERRUPTED:
        assert (sum(plain.amounts()) == 0) == (life_ns < NS_PER_HOUR)
    booked = [(row["start_ns"], row["end_ns"]) for row in plain.tables["ledger"]]
    assert all(before[1] == after[0] for before, after in pairwise(booked))
    assert sum(end - start for start, end in booked) == plain.tables["leases"][0]["billed_ns"]


def suse(life_s: float, cause: str, start_s: int = 0) -> list[tuple[object, ...]]:
    """Category, from, to and dollars of a SUSE machine at 3.60 USD an hour; seconds after the start of the run."""
    sink = bill(spot((0, "3.6000"), cloud="aws_suse"), round(life_s * NS_PER_S), cause, start_ns=start_s * NS_PER_S)
    assert {row["tariff"] for row in sink.tables["ledger"]} == {"ec2_spot_suse"}
    return [
        (row["category"], row["start_ns"] / NS_PER_S, row["end_ns"] / NS_PER_S, row["amount_nano_usd"] / 10**9)
        for row in sink.tables["ledger"]
    ]


def test_suse_is_by_whole_hours_and_the_hour_that_ec2_interrupts_is_free() -> None:
    # EC2 user guide, billing for interrupted spot instances. In the first hour nothing; after 2 h 30 min two hours: 7.20.
    assert suse(3_599, INTERRUPTED) == [("compute", 0, 3_599, 0.0)]
    assert suse(9_000, INTERRUPTED) == [
        ("compute", 0, 3_600, 3.6), ("compute", 3_600, 7_200, 3.6), ("compute", 7_200, 9_000, 0.0),
    ]  # fmt: skip
    # Hours are those of the machine's life, not of the clock: begun at half past, two of them are over at half past.
    assert suse(9_000, INTERRUPTED, start_s=1_800) == [
        ("compute", 1_800, 3_600, 1.8),
        ("compute", 3_600, 5_400, 1.8),
        ("compute", 5_400, 7_200, 1.8),
        ("compute", 7_200, 9_000, 1.8),
        ("compute", 9_000, 10_800, 0.0),
    ]
    # To the second: two whole hours and no more.
    assert sum(row[3] for row in suse(7_200, INTERRUPTED)) == 7.2  # type: ignore[misc]


def test_suse_that_the_user_ends_pays_the_hour_that_was_begun() -> None:
    # Ten minutes are an hour, 2 h 30 min are three; at the end of the run what has run by then.
    assert suse(600, "scaled_down") == [("compute", 0, 600, 0.6), ("minimum", 600, 3_600, 3.0)]
    assert sum(row[3] for row in suse(9_000, "scaled_down")) == pytest.approx(10.8)  # type: ignore[misc]
    assert sum(row[3] for row in suse(9_000, "crashed")) == pytest.approx(10.8)  # type: ignore[misc]
    assert sum(row[3] for row in suse(9_000, OPEN_AT_END)) == pytest.approx(9.0)  # type: ignore[misc]


@given(st.integers(1, 5 * NS_PER_HOUR), st.integers(0, NS_PER_HOUR), st.sampled_from((INTERRUPTED, "scaled_down", "crashed")))
def test_suse_pays_whole_hours_of_its_life(life_ns: int, start_ns: int, cause: str) -> None:
    sink = bill(spot((0, "3.6000"), cloud="aws_suse"), life_ns, cause, start_ns=start_ns)
    hours = life_ns // NS_PER_HOUR if cause == INTERRUPTED else -(-life_ns // NS_PER_HOUR)
    # half a nano-dollar for each row
    assert abs(sum(sink.amounts()) - hours * 3_600_000_000) <= len(sink.amounts())
    by_time = sorted(rows_of(sink, "start_ns", "end_ns"))
    assert by_time == rows_of(sink, "start_ns", "end_ns")
    assert all(earlier[1] == later[0] for earlier, later in pairwise(by_time))
