"""Laws of the FOCUS file of any fleet under every tariff and commitment: what adds up, to the nano-dollar."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path

from billing_kit import Lists
from commitment_kit import bill_of, resolved_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_billing_laws import ALL_COMMITMENTS, HOURS, POOLS, fleets
from test_results_focus import check_rules, total

from sim.billing.commitments import settlement_of
from sim.domain.usage import Lease
from sim.results.focus import write_focus
from sim.results.records import RunWriter
from sim.units import NANO_PER_USD, NS_PER_HOUR

SEARCH = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
# Purchase options of which a purchase pays for what they cover.
DISCOUNTS = ("reserved", "committed_use", "flexible_committed_use", "savings_plan")


def exported(leases: list[Lease], folder: Path, version: str = "1.4") -> tuple[Lists, list[dict[str, str]]]:
    """Charge leases under all commitments; the ledger, and the rows of its FOCUS file."""
    resolved = resolved_of(POOLS, ALL_COMMITMENTS)
    sink = bill_of(resolved, settlement_of(resolved), leases, HOURS * NS_PER_HOUR)
    with RunWriter(folder / "run") as writer:
        for name, rows in sink.tables.items():
            for row in rows:
                writer.spool.append(name, row)
        writer.merge()
        result = writer.commit({}, {"scenario": resolved.scenario.to_dict() | {"horizon": f"{HOURS}h"}})
    write_focus(result, folder / "focus.csv", version)
    result.close()
    with (folder / "focus.csv").open(encoding="utf-8", newline="") as lines:
        return sink, list(csv.DictReader(lines))


def ledger_usd(rows: Iterable[dict[str, object]], column: str) -> Decimal:
    """The sum of a column of the ledger."""
    return Decimal(sum(int(str(row[column])) for row in rows)) / NANO_PER_USD


@SEARCH
@given(fleets(), st.sampled_from(("1.4", "1.2")))
def test_everything_of_any_fleet_adds_up(leases: list[Lease], version: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        sink, rows = exported(leases, Path(folder), version)
    ledger = sink.tables["ledger"]
    # The invoice and the amortised bill, over the run and by month.
    for month in {str(row["month"]) for row in ledger}:
        of_month = [row for row in ledger if row["month"] == month]
        invoice = [row for row in rows if row["InvoiceId"] == f"account-{month}"]
        assert total(invoice, "BilledCost") == ledger_usd(of_month, "amount_nano_usd")
        assert total(invoice, "EffectiveCost") == ledger_usd(of_month, "effective_nano_usd")
    # List cost, without the purchases that the ledger has no rows of.
    assert total([row for row in rows if row["x_LedgerRow"]], "ListCost") == ledger_usd(ledger, "list_nano_usd")
    for row in rows:
        check_rules(row)


@SEARCH
@given(fleets())
def test_every_commitment_is_bought_once_and_used_or_not(leases: list[Lease]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        sink, rows = exported(leases, Path(folder))
    for name in ALL_COMMITMENTS:
        of_ledger = [row for row in sink.tables["ledger"] if row["commitment"] == name and row["purchase"] in DISCOUNTS]
        mine = [row for row in rows if row["CommitmentDiscountId"] == f"account/{name}"]
        bought = [row for row in mine if row["ChargeCategory"] == "Purchase"]
        used = [row for row in mine if row["CommitmentDiscountStatus"] == "Used"]
        unused = [row for row in mine if row["CommitmentDiscountStatus"] == "Unused"]
        assert len(bought) + len(used) + len(unused) == len(mine)
        # Everything that it costs is billed by its purchases, and effective where it was used or was not.
        assert total(bought, "BilledCost") == ledger_usd(of_ledger, "amount_nano_usd")
        assert total([*used, *unused], "EffectiveCost") == ledger_usd(of_ledger, "effective_nano_usd")
        assert total(bought, "EffectiveCost") == total([*used, *unused], "BilledCost") == 0
        wasted = [row for row in of_ledger if row["category"] == "commitment_waste"]
        assert total(unused, "EffectiveCost") == ledger_usd(wasted, "effective_nano_usd")
        assert all(not row["ConsumedQuantity"] for row in unused)
        assert all(Decimal(row["BilledCost"]) > 0 for row in bought)
        if mine and mine[0]["CommitmentDiscountCategory"] == "Spend":
            hourly = [row for row in bought if row["PricingUnit"] == "USD"]
            assert total(hourly, "PricingQuantity") == total(hourly, "BilledCost")
        for hour in {row["ChargePeriodStart"] for row in [*used, *unused]}:
            # What an hour of a plan uses and leaves is what it promises.
            if mine[0]["CommitmentDiscountCategory"] == "Spend":
                quantity = total(
                    [row for row in [*used, *unused] if row["ChargePeriodStart"] == hour], "CommitmentDiscountQuantity"
                )
                cost = total([row for row in [*used, *unused] if row["ChargePeriodStart"] == hour], "EffectiveCost")
                assert quantity == cost
