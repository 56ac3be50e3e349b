"""Charges of the account: one hour, no lease, attributed as the caller says."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from billing_kit import Lists, busy_slice, charge, lease, make_ledger, own_price, pool_billing

from sim.billing.ledger import Ledger
from sim.units import NS_PER_HOUR, NS_PER_MINUTE

ABOUT: dict[str, Any] = {
    "quantity": Decimal(1),
    "unit": "hour",
    "unit_price": "0.10 per hour",
    "tariff": "control_plane",
    "source": "price list",
    "confidence": "published",
}


def ledger_of(sink: Lists) -> Ledger:
    """A ledger with nothing in it."""
    return make_ledger(sink, pool_billing(own_price("7.20")))


def test_a_charge_without_a_lease_belongs_to_the_account_and_to_nobody() -> None:
    sink = Lists()
    assert ledger_of(sink).charge_account("network", 0, NS_PER_HOUR, amount_nano=100_000_001, **ABOUT) == 0
    row = sink.tables["ledger"][0]
    assert (row["lease"], row["pool"], row["month"], row["local_hour"]) == (-1, "", "2026-01", "2026-01-31T22:00+00:00")
    assert sink.parts(0) == {("shared", "", -1): 100_000_001}


def test_weights_split_it_exactly() -> None:
    sink = Lists()
    weights = {("llama", 0): 1.0, ("llama", 1): 1.0, ("coder", 2): 1.0}
    ledger_of(sink).charge_account("licence", 0, 1, amount_nano=100, weights=weights, **ABOUT)
    # 100 / 3 = 33 each and one left over, to the first in order of names
    assert sink.parts(0) == {("shared", "coder", 2): 34, ("shared", "llama", 0): 33, ("shared", "llama", 1): 33}


def test_deployments_pay_by_their_busy_time_so_far_else_equally() -> None:
    sink = Lists()
    ledger = ledger_of(sink)
    ledger.charge_account("storage", 0, 0, amount_nano=300, deployments=["llama", "coder"], **ABOUT)
    assert sink.parts(0) == {("shared", "coder", 2): 100, ("shared", "llama", 0): 100, ("shared", "llama", 1): 100}
    used = busy_slice(0, 0, "llama", 0, 3600, busy_s=1200, shares_ns={0: 900e9, 1: 300e9})
    charge(ledger, lease(0, 0, NS_PER_HOUR), [used])
    row = ledger.charge_account("storage", 0, 0, amount_nano=300, deployments=["llama", "coder"], **ABOUT)
    assert sink.parts(row) == {("shared", "llama", 0): 225, ("shared", "llama", 1): 75}


@pytest.mark.parametrize(
    ("category", "start_ns", "end_ns"),
    [
        ("lunch", 0, 1),
        ("people", 59 * NS_PER_MINUTE, 61 * NS_PER_MINUTE),
        ("people", 2, 1),
        ("people", -1, 1),
        ("people", 0, 49 * NS_PER_HOUR),
    ],
)
def test_what_is_no_charge_is_refused(category: str, start_ns: int, end_ns: int) -> None:
    with pytest.raises(ValueError, match=r"category|calendar hour"):
        ledger_of(Lists()).charge_account(category, start_ns, end_ns, amount_nano=1, **ABOUT)


def test_a_negative_charge_is_refused() -> None:
    sink = Lists()
    with pytest.raises(ValueError, match="not negative"):
        ledger_of(sink).charge_account("tokens", 0, 1, amount_nano=-1, **ABOUT)
    assert sink.tables["ledger"] == []
