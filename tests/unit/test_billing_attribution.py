"""Splitting charges: parts are exact, and the rules of who pays."""

from __future__ import annotations

from fractions import Fraction

import pytest
from billing_kit import Lists, busy_slice, charge, lease, make_ledger, own_price, pool_billing
from hypothesis import given
from hypothesis import strategies as st

from sim.billing.attribution import largest_remainder
from sim.domain.usage import UsageSlice
from sim.units import NS_PER_HOUR, NS_PER_S

WEIGHTS = st.lists(st.floats(min_value=0, max_value=1e18), min_size=1, max_size=12)


@given(amount=st.integers(0, 10**19), weights=WEIGHTS)
def test_parts_add_up_exactly(amount: int, weights: list[float]) -> None:
    parts = largest_remainder(amount, weights)
    assert sum(parts) == amount
    assert min(parts) >= 0


@given(amount=st.integers(0, 10**12), weights=st.lists(st.integers(0, 10**6), min_size=1, max_size=12).filter(any))
def test_each_part_is_its_share_rounded_down_or_up(amount: int, weights: list[int]) -> None:
    for part, weight in zip(largest_remainder(amount, weights), weights, strict=True):
        exact = Fraction(amount * weight, sum(weights))
        assert abs(part - exact) < 1 + Fraction(amount, 1 << 50)
        assert part == 0 or weight > 0


def test_what_is_left_goes_to_the_largest_remainder_then_the_lowest_index() -> None:
    # 10 x (1, 2, 3) / 6 = 1.67, 3.33, 5.0; the one left goes to .67
    assert largest_remainder(10, [1, 2, 3]) == [2, 3, 5]
    assert largest_remainder(2, [1, 1, 1, 1]) == [1, 1, 0, 0]


def test_all_zero_weights_split_equally() -> None:
    assert largest_remainder(5, [0.0, 0.0]) == [3, 2]


def test_money_that_comes_back_is_split_like_money_that_goes() -> None:
    assert largest_remainder(-10, [1, 2, 3]) == [-2, -3, -5]


@pytest.mark.parametrize(("amount", "weights"), [(1, []), (1, [-1.0, 2.0]), (1, [float("nan")]), (1, [float("inf")])])
def test_what_cannot_be_split_is_refused(amount: int, weights: list[float]) -> None:
    with pytest.raises(ValueError, match=r"amount_nano|weights"):
        largest_remainder(amount, weights)


@st.composite
def slices(draw: st.DrawFn) -> list[UsageSlice]:
    """Slices of two replicas over two hours, with everything a meter may hand over: no shares, negative shares, lost > busy."""
    found = []
    for replica, deployment in ((0, "llama"), (1, "coder")):
        for hour in (0, 1):
            booting, draining = draw(st.integers(0, 1800)), draw(st.integers(0, 1800))
            draining_busy = draw(st.integers(0, draining))
            busy = draining_busy + draw(st.integers(0, 3600 - booting - draining))
            shares = draw(st.dictionaries(st.integers(0, 2), st.floats(-1e12, 1e12)))
            found.append(
                busy_slice(
                    0,
                    replica,
                    deployment,
                    3600 * hour,
                    3600 * (hour + 1),
                    booting_s=booting,
                    draining_s=draining,
                    draining_busy_s=draining_busy,
                    busy_s=busy,
                    lost_s=draw(st.floats(0, 5000)),
                    shares_ns=shares,
                    energy_j=draw(st.floats(0, 1e7)),
                )
            )
    return found


@given(pieces=slices(), price=st.integers(1, 200_000), billed=st.booleans())
def test_parts_of_every_row_equal_it_whatever_happened(pieces: list[UsageSlice], price: int, billed: bool) -> None:
    sink = Lists()
    ledger = make_ledger(sink, pool_billing(own_price(f"{price / 1000:.3f}"), electricity_billed=billed))
    charge(ledger, lease(0, 0, 2 * NS_PER_HOUR + 30 * NS_PER_S // 7), pieces)
    assert len(sink.tables["ledger"]) == 1 + 3 * (2 if billed else 1)
    for row in sink.tables["ledger"]:
        assert sum(sink.parts(row["row"]).values()) == row["amount_nano_usd"]
    assert sink.tables["leases"][0]["amount_nano_usd"] == sum(sink.amounts())


@given(pieces=slices())
def test_the_bill_does_not_depend_on_the_use(pieces: list[UsageSlice]) -> None:
    used, idle = Lists(), Lists()
    charge(make_ledger(used, pool_billing(own_price("6.88"))), lease(0, 0, 2 * NS_PER_HOUR), pieces)
    charge(make_ledger(idle, pool_billing(own_price("6.88"))), lease(0, 0, 2 * NS_PER_HOUR))
    assert used.amounts() == idle.amounts()


def attributed(*pieces: UsageSlice) -> list[dict[tuple[str, str, int], int]]:
    """Parts of each hour of a one-accelerator machine at 3.60 USD per hour (1e6 nano-dollars per second)."""
    sink = Lists()
    end_ns = max(piece.end_ns for piece in pieces)
    charge(make_ledger(sink, pool_billing(own_price("3.60"), accelerators=1)), lease(0, 0, end_ns, accelerators=1), pieces)
    return [sink.parts(row) for row in range(-(-end_ns // NS_PER_HOUR))]


def test_an_idle_hour_is_paid_by_busy_time_of_the_run_so_far() -> None:
    first = busy_slice(0, 0, "llama", 0, 3600, busy_s=400, shares_ns={0: 100e9, 1: 300e9})
    hours = attributed(first, busy_slice(0, 0, "llama", 3600, 7200))
    assert hours[1] == {("idle", "llama", 0): 900_000_000, ("idle", "llama", 1): 2_700_000_000}


def test_before_any_busy_time_overheads_are_paid_equally_by_those_who_may_come() -> None:
    hours = attributed(busy_slice(0, 0, "llama", 0, 3600, booting_s=3600))
    assert hours[0] == {("booting", "llama", 0): 1_800_000_000, ("booting", "llama", 1): 1_800_000_000}


def test_a_deployment_that_nobody_may_use_is_paid_by_nobody() -> None:
    assert attributed(busy_slice(0, 0, "unused", 0, 3600)) == [{("idle", "unused", -1): 3_600_000_000}]


def test_a_slice_inside_one_long_step_goes_by_the_latest_shares() -> None:
    first = busy_slice(0, 0, "llama", 0, 3600, busy_s=3600, shares_ns={0: 1800e9, 1: 1800e9})
    inside = busy_slice(0, 0, "llama", 3600, 7200, busy_s=3600)
    assert attributed(first, inside)[1] == {("busy", "llama", 0): 1_800_000_000, ("busy", "llama", 1): 1_800_000_000}


def test_a_first_step_longer_than_its_slice_is_idle() -> None:
    hours = attributed(busy_slice(0, 0, "coder", 0, 3600, busy_s=3600))
    assert hours == [{("idle", "coder", 2): 3_600_000_000}]


def test_lost_is_at_most_the_busy_time_of_the_slice() -> None:
    piece = busy_slice(0, 0, "coder", 0, 3600, busy_s=100, lost_s=700, shares_ns={2: -600e9})
    assert attributed(piece) == [{("lost", "coder", 2): 100_000_000, ("idle", "coder", 2): 3_500_000_000}]


def test_slices_that_do_not_fit_are_refused() -> None:
    too_busy = busy_slice(0, 0, "llama", 0, 3600, busy_s=3700)
    with pytest.raises(ValueError, match="do not fit its length"):
        attributed(too_busy)
    with pytest.raises(ValueError, match="more than the machine has"):
        attributed(busy_slice(0, 0, "llama", 0, 3600), busy_slice(0, 1, "llama", 0, 3600))
