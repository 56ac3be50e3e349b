"""Units: durations, instants, money, and how they are shown."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.units import NANO_PER_USD, NS_PER_S, divide_half_even, duration_ns, instant, nano_usd, seconds_text, usd


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("1h30m", 5_400), ("1 h 30 min", 5_400), ("2d", 172_800), ("1w", 604_800), (".5h", 1_800), (0, 0)],
)
def test_durations_people_write(text, seconds):
    assert duration_ns(text) == seconds * NS_PER_S


def test_small_durations_are_exact():
    assert duration_ns("300 ms") == 300_000_000
    assert duration_ns("5us") == 5_000
    assert duration_ns("0.1") == 100_000_000  # no float on the way: 0.1 s is exactly 1e8 ns


@pytest.mark.parametrize("text", ["", "h", "-1h", "1 fortnight", "1h 30", "1,5h", "1e3s", "12:00", "nan", "inf"])
def test_what_is_not_a_duration(text):
    with pytest.raises(ValueError, match="duration"):
        duration_ns(text)


@given(st.integers(min_value=0, max_value=10**12))
def test_whole_nanoseconds_read_back(value):
    assert duration_ns(f"{value}ns") == value


def test_instants():
    assert instant("2026-09-15T06:00:00Z") == datetime(2026, 9, 15, 6, tzinfo=UTC)
    assert instant("2026-09-15T06:00:00+02:00") == datetime(2026, 9, 15, 4, tzinfo=UTC)
    assert instant("2026-09-15") == datetime(2026, 9, 15, tzinfo=UTC)
    with pytest.raises(ValueError, match="Invalid isoformat"):
        instant("yesterday")


@pytest.mark.parametrize(
    ("text", "nano"), [("6.88", 6_880_000_000), ("21.957642", 21_957_642_000), ("0.000000001", 1), (3, 3 * NANO_PER_USD)]
)
def test_money_is_exact(text, nano):
    assert nano_usd(text) == nano


@pytest.mark.parametrize("text", ["six", "1.0000000001", "inf", "nan", ""])
def test_what_is_not_money(text):
    with pytest.raises(ValueError, match=r"USD|amount of money"):
        nano_usd(text)


@pytest.mark.parametrize(
    ("nano", "shown"), [(5_000_000, "0.00"), (15_000_000, "0.02"), (25_000_000, "0.02"), (-1_005_000_000, "-1.00")]
)
def test_cents_round_half_to_even(nano, shown):
    assert usd(nano) == shown


@given(st.integers(-(10**30), 10**30), st.integers(1, 10**15))
def test_integer_division_rounds_as_decimal_does(numerator, denominator):
    from decimal import ROUND_HALF_EVEN, localcontext

    with localcontext() as context:
        context.prec = 80
        # 10^15 at most in the denominator: 80 digits tell a tie from what is next to one.
        expected = (Decimal(numerator) / Decimal(denominator)).to_integral_value(ROUND_HALF_EVEN)
    assert divide_half_even(numerator, denominator) == int(expected)


@pytest.mark.parametrize(
    ("seconds", "shown"), [(2e-6, "2 us"), (0.3, "300 ms"), (99.5, "99.50 s"), (120, "120 s"), (259_200, "3.0 d")]
)
def test_times_are_shown_with_a_unit_that_fits(seconds, shown):
    assert seconds_text(seconds) == shown
