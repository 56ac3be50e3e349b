"""Bills worked by hand: every expected number is derived in the comment beside it."""

from __future__ import annotations

from datetime import UTC, datetime

from billing_kit import Lists, busy_slice, charge, lease, make_ledger, own_price, pool_billing, price_list, small_run_slices

from sim.billing.ledger import OPEN_AT_END
from sim.units import NS_PER_HOUR, NS_PER_MINUTE, NS_PER_S

P5 = "6.88"


def rows_of(sink: Lists, *names: str) -> list[tuple[object, ...]]:
    """Some columns of the ledger."""
    return [tuple(str(row[name]) if name == "quantity" else row[name] for name in names) for row in sink.tables["ledger"]]


def test_a_lease_of_59_2_seconds_is_charged_60() -> None:
    sink = Lists()
    charge(make_ledger(sink, pool_billing(own_price(P5))), lease(0, 0, 59_200_000_000))
    # 6.88e9 x 59.2 / 3600 = 113,137,777.8 and 6.88e9 x 0.8 / 3600 = 1,528,888.9
    assert rows_of(sink, "category", "quantity", "amount_nano_usd") == [
        ("compute", "59.2", 113_137_778),
        ("minimum", "0.8", 1_528_889),
    ]
    # 6.88e9 x 60 / 3600 = 114,666,666.7
    assert sink.tables["leases"][0]["amount_nano_usd"] == 114_666_667
    assert sink.tables["leases"][0]["billed_ns"] == 60 * NS_PER_S


def test_a_lease_of_61_5_seconds_is_charged_62() -> None:
    sink = Lists()
    charge(make_ledger(sink, pool_billing(own_price(P5))), lease(0, 5 * NS_PER_S, 66_500_000_000))
    # 6.88e9 x 61.5 / 3600 = 117,533,333.3; 6.88e9 x 0.5 / 3600 = 955,555.6; 62 s are 118,488,888.9
    assert sink.amounts() == [117_533_333, 955_556]
    assert sum(sink.amounts()) == 118_488_889
    assert sink.tables["leases"][0]["billed_ns"] == 62 * NS_PER_S


def test_a_lease_that_outlives_the_run_is_charged_to_the_horizon_only() -> None:
    sink = Lists()
    charge(make_ledger(sink, pool_billing(own_price(P5)), horizon_ns=10_500_000_000), lease(0, 0, 10_500_000_000, OPEN_AT_END))
    # 6.88e9 x 10.5 / 3600 = 20,066,666.7, no minimum, no rounding up
    assert rows_of(sink, "category", "amount_nano_usd") == [("compute", 20_066_667)]


def test_a_lease_that_ends_at_once_costs_the_minimum() -> None:
    sink = Lists()
    charge(make_ledger(sink, pool_billing(own_price(P5))), lease(0, 7, 7))
    assert rows_of(sink, "category", "quantity", "amount_nano_usd") == [("minimum", "60", 114_666_667)]
    assert sink.parts(0) == {("idle", "", -1): 114_666_667}


def test_the_hour_that_comes_twice_is_two_rows() -> None:
    # Berlin, 25 October 2026: at 01:00 UTC the clock goes from 03:00 +02:00 back to 02:00 +01:00.
    start = datetime(2026, 10, 24, 23, 30, tzinfo=UTC)
    sink = Lists()
    ledger = make_ledger(sink, pool_billing(own_price(P5)), start=start, timezone="Europe/Berlin")
    charge(ledger, lease(0, 0, 165 * NS_PER_MINUTE))
    # 30, 60, 60 and 15 minutes at 6.88 per hour
    assert rows_of(sink, "local_hour", "month", "amount_nano_usd") == [
        ("2026-10-25T01:00+02:00", "2026-10", 3_440_000_000),
        ("2026-10-25T02:00+02:00", "2026-10", 6_880_000_000),
        ("2026-10-25T02:00+01:00", "2026-10", 6_880_000_000),
        ("2026-10-25T03:00+01:00", "2026-10", 1_720_000_000),
    ]


def test_the_hour_that_never_comes_has_no_row() -> None:
    # Berlin, 29 March 2026: at 01:00 UTC the clock goes from 02:00 +01:00 on to 03:00 +02:00.
    start = datetime(2026, 3, 29, 0, 0, tzinfo=UTC)
    sink = Lists()
    charge(make_ledger(sink, pool_billing(own_price(P5)), start=start, timezone="Europe/Berlin"), lease(0, 0, 2 * NS_PER_HOUR))
    assert [hour for (hour,) in rows_of(sink, "local_hour")] == ["2026-03-29T01:00+01:00", "2026-03-29T03:00+02:00"]


def test_the_month_is_that_of_the_account() -> None:
    # 18:30 UTC on 31 January is midnight of 1 February in Kolkata (+05:30).
    start = datetime(2026, 1, 31, 18, 0, tzinfo=UTC)
    sink = Lists()
    charge(make_ledger(sink, pool_billing(own_price(P5)), start=start, timezone="Asia/Kolkata"), lease(0, 0, NS_PER_HOUR))
    assert rows_of(sink, "month", "amount_nano_usd") == [("2026-01", 3_440_000_000), ("2026-02", 3_440_000_000)]


def test_a_price_change_inside_an_hour_makes_two_rows() -> None:
    # p5.48xlarge 98.32 until 31 May, 55.04 from 1 June, 00:00 UTC: that is 05:30 in Kolkata, in the middle of an hour.
    start = datetime(2026, 5, 31, 23, 30, tzinfo=UTC)
    tariff = price_list(start, ("2024-01-01", "98.32"), ("2026-06-01", "55.04"))
    sink = Lists()
    charge(make_ledger(sink, pool_billing(tariff), start=start, timezone="Asia/Kolkata"), lease(0, 0, NS_PER_HOUR))
    assert rows_of(sink, "local_hour", "unit_price", "amount_nano_usd", "confidence") == [
        ("2026-06-01T05:00+05:30", "98.32 per hour", 49_160_000_000, "published"),
        ("2026-06-01T05:00+05:30", "55.04 per hour", 27_520_000_000, "published"),
    ]


def test_two_replicas_of_two_services_share_a_machine() -> None:
    # 7.20 USD per hour and two accelerators: an accelerator-second is 0.001 USD = 1e6 nano-dollars.
    sink = Lists()
    slices = [
        # busy 1,500 s of which 300 lost, the other 1,200 go 3:1 to streams 0 and 1; 3,000 - 1,500 = 1,500 s idle; 600 s booting
        busy_slice(0, 0, "llama", 0, 3600, booting_s=600, busy_s=1500, lost_s=300, shares_ns={0: 900e9, 1: 300e9}),
        # busy 700 s, 100 of them in 600 s of draining: 500 s draining, 3,000 - 600 = 2,400 s idle
        busy_slice(0, 1, "coder", 0, 3600, draining_s=600, draining_busy_s=100, busy_s=700, shares_ns={2: 650e9}),
    ]
    charge(make_ledger(sink, pool_billing(own_price("7.20"))), lease(0, 0, NS_PER_HOUR), slices)
    million = 1_000_000
    assert sink.parts(0) == {
        ("busy", "llama", 0): 900 * million,
        ("busy", "llama", 1): 300 * million,
        # overheads of llama are paid 3:1 as well
        ("booting", "llama", 0): 450 * million,
        ("booting", "llama", 1): 150 * million,
        ("idle", "llama", 0): 1125 * million,
        ("idle", "llama", 1): 375 * million,
        ("lost", "llama", 0): 225 * million,
        ("lost", "llama", 1): 75 * million,
        ("busy", "coder", 2): 700 * million,
        ("draining", "coder", 2): 500 * million,
        ("idle", "coder", 2): 2400 * million,
    }


def test_accelerators_that_nobody_holds_are_idle_at_the_cost_of_who_was_there() -> None:
    sink = Lists()
    charge(make_ledger(sink, pool_billing(own_price("7.20"))), lease(0, 0, 3 * NS_PER_HOUR, OPEN_AT_END), small_run_slices())
    # In the third hour only llama is left: stream 0 has all its busy time, so it pays for coder's accelerator too, 3.60 USD.
    assert {key: amount for key, amount in sink.parts(2).items() if key[1] == ""} == {("idle", "", 0): 3_600_000_000}


def test_energy_of_an_hour_is_steps_and_idle_and_host_times_pue() -> None:
    sink = Lists()
    slices = [busy_slice(0, 0, "llama", 0, 3600, busy_s=1800, shares_ns={0: 1800e9}, energy_j=720_000.0)]
    charge(make_ledger(sink, pool_billing(own_price("7.20"), electricity_billed=True)), lease(0, 0, NS_PER_HOUR), slices)
    # steps 0.72 MJ + idle 100 W x (1,800 s + 3,600 s unheld) = 0.54 MJ + host 200 W x 3,600 s = 0.72 MJ: 1.98 MJ = 0.55 kWh;
    # x PUE 1.25 = 0.6875 kWh; x 0.10 USD = 0.06875 USD; x 400 g = 0.275 kg
    assert rows_of(sink, "category", "quantity", "unit", "amount_nano_usd")[1:] == [("energy", "0.6875", "kWh", 68_750_000)]
    rented = sink.tables["leases"][0]
    assert (rented["energy_kwh"], rented["electricity_nano_usd"], rented["kgco2"]) == (0.6875, 68_750_000, 0.275)
    assert rented["amount_nano_usd"] == 7_200_000_000 + 68_750_000
    # busy: steps and half of the host on half of the accelerators, 0.72 + 0.18 of 1.98 MJ
    assert sink.parts(1)["busy", "llama", 0] == 31_250_000


def test_energy_stays_beside_the_bill_where_the_price_contains_it() -> None:
    sink = Lists()
    charge(make_ledger(sink, pool_billing(own_price("7.20"))), lease(0, 0, NS_PER_HOUR))
    assert rows_of(sink, "category") == [("compute",)]
    # idle 2 x 100 W and host 200 W for an hour: 0.4 kWh x 1.25 = 0.5 kWh at 0.10 USD
    assert sink.tables["leases"][0]["electricity_nano_usd"] == 50_000_000
