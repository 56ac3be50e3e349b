"""Quantities as people write them: read exactly, in the unit asked for; anything else names what was expected."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.quantities import decimal_text, quantity, units_of


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("2.10 USD/h", "price_usd_per_hour", "2.1"),
        ("$2.10/h", "price_usd_per_hour", "2.1"),
        ("$ 48 / day", "price_usd_per_hour", "2"),
        ("210 cents per hour", "price_usd_per_hour", "2.1"),
        ("80 GiB", "image_gb", "85.89934592"),
        ("500MB", "image_gb", "0.5"),
        ("14/s", "rate_per_s", "14"),
        ("14 requests/s", "rate_per_s", "14"),
        ("840 per min", "rate_per_s", "14"),
        ("50%", "attainment", "0.5"),
        ("50", "on_demand_percentage", "50"),
        ("50 %", "on_demand_percentage", "50"),
        ("10%", "growth_per_month", "0.1"),
        ("10 %/month", "growth_per_month", "0.1"),
        ("100 Gbit/s", "registry_gb_per_s", "12.5"),
        ("0.3 kW", "power_cap_w", "300"),
        ("3,6e0", "noise_sd", None),
        ("1e-3", "noise_sd", "0.001"),
    ],
)
def test_worked_examples(text, field, value):
    if value is None:
        with pytest.raises(ValueError, match="unit that is not known"):
            quantity(text, units_of(field))
    else:
        assert quantity(text, units_of(field)) == Fraction(value)


@pytest.mark.parametrize(
    ("text", "field", "says"),
    [
        ("300 ms", "price_usd_per_hour", "USD/h"),
        ("5 tokens/s", "rate_per_s", "/s"),
        ("5 requests", "rate_per_s", "/s"),
        ("2 EUR/h", "price_usd_per_hour", "'EUR'.*USD/h"),
        ("8k", "kv_tokens", "tokens"),
        ("3 s", "attainment", "only a number or %"),
        ("", "attainment", "a number"),
        ("nan", "attainment", "a number"),
        ("1e999999999", "attainment", "cannot|can be counted"),
    ],
)
def test_what_is_refused_says_what_is_expected(text, field, says):
    with pytest.raises(ValueError, match=says):
        quantity(text, units_of(field))


# unit -> how many of it are one of the first
_SAME = [("s", "ms", 1000), ("GB", "MB", 1000), ("GiB", "MiB", 1024), ("USD/h", "cents/h", 100), ("/s", "/min", 60), ("", "%", 100)]


@given(st.fractions(min_value=-(10**6), max_value=10**6, max_denominator=10**6), st.sampled_from(_SAME))
def test_the_same_amount_in_two_units_is_the_same(amount, units):
    large, small, ratio = units
    exact = Fraction(round(amount * 10**6), 10**6)
    assert (
        quantity(f"{decimal_text(exact * ratio)} {small}", (large,)) == exact == quantity(f"{decimal_text(exact)}{large}", (large,))
    )


@given(
    st.floats(allow_nan=False, allow_infinity=False, min_value=-1e50, max_value=1e50),
    st.sampled_from(["s", "GB", "USD/h", "%", "tokens"]),
)
def test_what_is_written_in_its_unit_reads_back(value, unit):
    written = 0.0 if abs(value) < 1e-50 else value
    assert float(quantity(f"{written!r} {unit}", (unit,))) == written


@given(st.integers(), st.integers(min_value=0, max_value=12))
def test_decimal_texts_are_exact(digits, places):
    exact = Fraction(digits, 10**places)
    assert Fraction(decimal_text(exact)) == exact


def test_a_third_has_no_decimal_text():
    with pytest.raises(ValueError, match="no finite decimal"):
        decimal_text(Fraction(1, 3))


def test_a_quantity_of_something_else_is_no_power():
    with pytest.raises(ValueError, match="is not in a unit of W"):
        quantity("0g", units_of("power_cap_w"))
