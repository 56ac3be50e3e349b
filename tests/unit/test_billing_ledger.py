"""The ledger: where time is cut, and the laws of a bill."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from billing_kit import START, Lists, busy_slice, charge, lease, make_ledger, own_price, pool_billing, price_list
from hypothesis import given
from hypothesis import strategies as st

from sim.billing.ledger import hour_cuts
from sim.units import NS_PER_DAY, NS_PER_HOUR, NS_PER_MINUTE, NS_PER_S

OFFSET_400_DAYS_NS = 400 * NS_PER_DAY


@pytest.mark.parametrize(
    ("day", "zone", "hours"),
    [
        ("2026-03-29", "Europe/Berlin", 23),
        ("2026-10-25", "Europe/Berlin", 25),
        ("2026-03-08", "America/New_York", 23),
        ("2026-11-01", "America/New_York", 25),
        ("2026-06-01", "Asia/Kolkata", 24),
        # Lord Howe Island moves by half an hour: 24.5 hours, one of them half as long
        ("2026-04-05", "Australia/Lord_Howe", 25),
    ],
)
def test_a_local_day_has_its_own_number_of_hours(day: str, zone: str, hours: int) -> None:
    start = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone))
    end = (start + timedelta(days=1)).astimezone(UTC)  # wall clock arithmetic: the next local midnight
    length_ns = (end - start.astimezone(UTC)) // timedelta(microseconds=1) * 1_000
    cuts = list(hour_cuts(start.astimezone(UTC), length_ns, zone))
    assert len(cuts) == hours - 1
    for cut in cuts:
        local = (start.astimezone(UTC) + timedelta(microseconds=cut // 1_000)).astimezone(ZoneInfo(zone))
        assert (local.minute, local.second) in {(0, 0), (30, 0)}
        assert local.minute == 0 or zone == "Australia/Lord_Howe"


@given(st.integers(0, 3_600_000_000 - 1), st.sampled_from(["UTC", "Asia/Kathmandu", "Europe/Berlin"]))
def test_cuts_lie_on_full_local_hours_wherever_a_run_starts(offset_us: int, zone: str) -> None:
    start = datetime(2026, 1, 5, tzinfo=UTC) + timedelta(microseconds=offset_us)
    cuts = list(hour_cuts(start, 5 * NS_PER_HOUR, zone))
    assert len(cuts) in (4, 5)
    for cut in cuts:
        local = (start + timedelta(microseconds=cut // 1_000)).astimezone(ZoneInfo(zone))
        assert (local.minute, local.second, local.microsecond) == (0, 0, 0)


def test_cuts_of_a_ledger_are_hours_and_price_changes() -> None:
    start = datetime(2026, 5, 31, 23, 0, tzinfo=UTC)
    tariff = price_list(start, ("2024-01-01", "98.32"), ("2026-06-01", "55.04"))
    ledger = make_ledger(Lists(), pool_billing(tariff), start=start, horizon_ns=2 * NS_PER_HOUR, timezone="Asia/Kolkata")
    assert list(ledger.cuts()) == [30 * NS_PER_MINUTE, 60 * NS_PER_MINUTE, 90 * NS_PER_MINUTE]


@given(st.lists(st.integers(1, 5 * 3600 - 1), max_size=6))
def test_more_cuts_change_no_ledger_row(more_cuts_s: list[int]) -> None:
    plain, finer = Lists(), Lists()
    rented = lease(0, 1_234_567, 5 * NS_PER_HOUR)
    charge(make_ledger(plain, pool_billing(own_price("6.88"))), rented)
    charge(make_ledger(finer, pool_billing(own_price("6.88"))), rented, more_cuts=[cut * NS_PER_S for cut in more_cuts_s])
    assert finer.tables["ledger"] == plain.tables["ledger"]
    assert finer.tables["leases"] == plain.tables["leases"]


@given(start_s=st.integers(0, 7200), first_s=st.integers(60, 40_000), second_s=st.integers(60, 40_000))
def test_a_bill_is_additive_at_seconds(start_s: int, first_s: int, second_s: int) -> None:
    # 3.60 USD per hour is 1e6 nano-dollars per second, so no row is rounded.
    whole, parts = Lists(), Lists()
    edges = [start_s * NS_PER_S, (start_s + first_s) * NS_PER_S, (start_s + first_s + second_s) * NS_PER_S]
    charge(make_ledger(whole, pool_billing(own_price("3.60"))), lease(0, edges[0], edges[2]))
    ledger = make_ledger(parts, pool_billing(own_price("3.60")))
    charge(ledger, lease(0, edges[0], edges[1]))
    charge(ledger, lease(1, edges[1], edges[2]))
    assert sum(parts.amounts()) == sum(whole.amounts()) == (first_s + second_s) * 1_000_000


@given(life_ns=st.integers(1, 30 * NS_PER_HOUR), factor=st.integers(2, 9))
def test_a_bill_is_linear_in_the_price(life_ns: int, factor: int) -> None:
    once, more = Lists(), Lists()
    charge(make_ledger(once, pool_billing(own_price("3.60"))), lease(0, 0, life_ns))
    charge(make_ledger(more, pool_billing(own_price(f"{3.6 * factor:.2f}"))), lease(0, 0, life_ns))
    # rows are rounded half to even, each to within half a nano-dollar
    assert len(more.amounts()) == len(once.amounts())
    for amount, scaled in zip(once.amounts(), more.amounts(), strict=True):
        assert abs(factor * amount - scaled) <= (factor + 1) / 2


@given(life_ns=st.integers(0, 3 * NS_PER_HOUR))
def test_a_lease_is_never_charged_less_than_its_life_nor_than_a_minute(life_ns: int) -> None:
    sink = Lists()
    charge(make_ledger(sink, pool_billing(own_price("3.60"))), lease(0, 0, life_ns))
    billed_ns = sink.tables["leases"][0]["billed_ns"]
    assert max(life_ns, 60 * NS_PER_S) <= billed_ns < max(life_ns + NS_PER_S, 60 * NS_PER_S + 1)
    booked = sum(row["end_ns"] - row["start_ns"] for row in sink.tables["ledger"])
    assert booked == billed_ns


def test_a_bill_late_in_a_long_run_is_the_same() -> None:
    early, late = Lists(), Lists()
    charge(make_ledger(early, pool_billing(own_price("6.88")), horizon_ns=2 * OFFSET_400_DAYS_NS), lease(0, 7, 123_456_789_012))
    shifted = lease(0, OFFSET_400_DAYS_NS + 7, OFFSET_400_DAYS_NS + 123_456_789_012)
    charge(make_ledger(late, pool_billing(own_price("6.88")), horizon_ns=2 * OFFSET_400_DAYS_NS), shifted)
    assert early.amounts() == late.amounts()
    assert late.tables["ledger"][0]["local_hour"] == "2027-03-07T22:00+00:00"  # 31 January 2026, 22:00, and 400 days


def test_energy_is_booked_in_proportion_to_joules() -> None:
    sink = Lists()
    piece = busy_slice(0, 0, "llama", 0, 3600, busy_s=3600, shares_ns={0: 3600e9}, energy_j=360_000.0)
    charge(make_ledger(sink, pool_billing(own_price("7.20"), electricity_billed=True)), lease(0, 0, NS_PER_HOUR), [piece])
    # busy 0.36 MJ + half the host 0.36 MJ; unheld 100 W x 3,600 s + half the host: equal
    parts = sink.parts(1)
    assert parts["busy", "llama", 0] == parts["idle", "", 0]


def test_intervals_must_follow_each_other_and_respect_cuts() -> None:
    ledger = make_ledger(Lists(), pool_billing(own_price("3.60")))
    rented = lease(0, 0, 2 * NS_PER_HOUR)
    with pytest.raises(ValueError, match="end by the cut"):
        ledger.record(rented, 0, NS_PER_HOUR + 1, [])
    ledger.record(rented, 0, NS_PER_HOUR, [])
    with pytest.raises(ValueError, match="must start at"):
        ledger.record(rented, NS_PER_HOUR + 5, 2 * NS_PER_HOUR, [])
    with pytest.raises(ValueError, match="not of this lease"):
        ledger.record(rented, NS_PER_HOUR, 2 * NS_PER_HOUR, [busy_slice(1, 0, "llama", 3600, 7200)])
    with pytest.raises(ValueError, match="recorded to"):
        ledger.close_lease(rented)


def test_a_lease_across_hours_names_the_hours() -> None:
    sink = Lists()
    charge(make_ledger(sink, pool_billing(own_price("3.60")), start=START), lease(0, NS_PER_HOUR // 2, 2 * NS_PER_HOUR))
    assert [(row["local_hour"], row["amount_nano_usd"]) for row in sink.tables["ledger"]] == [
        ("2026-01-31T22:00+00:00", 1_800_000_000),
        ("2026-01-31T23:00+00:00", 3_600_000_000),
    ]
