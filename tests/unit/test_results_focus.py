"""A run's ledger as a FOCUS file: the columns of the specification, and the sums of the ledger."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
from billing_kit import START, busy_slice, charge, lease, make_ledger, own_price, pool_billing

from sim.billing.ledger import OPEN_AT_END, Ledger
from sim.results.focus import write_focus
from sim.results.focus_columns import columns_of
from sim.results.records import RunResult, RunWriter
from sim.units import NANO_PER_USD, NS_PER_HOUR

# Written from the specification, dataset "Cost and Usage", feature level "Mandatory": type, may it be null, allowed values.
# https://focus.finops.org/focus-specification/v1-4 and v1-2, read 2026-11-23.
CHARGES = ("Usage", "Purchase", "Tax", "Credit", "Adjustment")
SERVICE_CATEGORIES = (
    "AI and Machine Learning", "Analytics", "Business Applications", "Compute", "Databases", "Developer Tools", "Multicloud",
    "Identity", "Integration", "Internet of Things", "Management and Governance", "Media", "Migration", "Mobile", "Networking",
    "Security", "Storage", "Web", "Other",
)  # fmt: skip
MANDATORY: dict[str, tuple[str, bool, tuple[str, ...]]] = {
    "BilledCost": ("Decimal", False, ()),
    "BillingAccountId": ("String", False, ()),
    "BillingAccountName": ("String", True, ()),
    "BillingCurrency": ("Currency", False, ()),
    "BillingPeriodEnd": ("Date/Time", False, ()),
    "BillingPeriodStart": ("Date/Time", False, ()),
    "ChargeCategory": ("String", False, CHARGES),
    "ChargeClass": ("String", True, ("Correction",)),
    "ChargeDescription": ("String", True, ()),
    "ChargePeriodEnd": ("Date/Time", False, ()),
    "ChargePeriodStart": ("Date/Time", False, ()),
    "ContractedCost": ("Decimal", False, ()),
    "EffectiveCost": ("Decimal", False, ()),
    "InvoiceIssuerName": ("String", False, ()),
    "ListCost": ("Decimal", False, ()),
    "PricingQuantity": ("Decimal", True, ()),
    "PricingUnit": ("String", True, ()),
    "ServiceCategory": ("String", False, SERVICE_CATEGORIES),
    "ServiceName": ("String", False, ()),
}
OF_1_4: dict[str, tuple[str, bool, tuple[str, ...]]] = {
    "AllocatedMethodDetails": ("JSON object", True, ()),
    "AllocatedMethodId": ("String", True, ("billcast-replica-time",)),
    "AllocatedResourceId": ("String", True, ()),
    "AllocatedResourceName": ("String", True, ()),
    "AllocatedTags": ("JSON", True, ()),
    "ContractApplied": ("JSON object", True, ()),
    "HostProviderName": ("String", False, ()),
    "ServiceProviderName": ("String", False, ()),
}
OF_1_2 = {"ProviderName": ("String", False, ()), "PublisherName": ("String", False, ())}
# Those of the other levels that this file has.
CONDITIONAL: dict[str, tuple[str, bool, tuple[str, ...]]] = {
    "AvailabilityZone": ("String", True, ()),
    "CapacityReservationStatus": ("String", True, ("Used", "Unused")),
    "ChargeFrequency": ("String", False, ("One-Time", "Recurring", "Usage-Based")),
    "CommitmentDiscountCategory": ("String", True, ("Spend", "Usage")),
    "CommitmentDiscountQuantity": ("Decimal", True, ()),
    "CommitmentDiscountStatus": ("String", True, ("Used", "Unused")),
    "ConsumedQuantity": ("Decimal", True, ()),
    "ContractedUnitPrice": ("Decimal", True, ()),
    "ListUnitPrice": ("Decimal", True, ()),
    "PricingCategory": ("String", True, ("Standard", "Dynamic", "Committed", "Other")),
    "ServiceSubcategory": ("String", False, ()),
    "SkuPriceDetails": ("JSON", True, ()),
    "SubAccountId": ("String", True, ()),
    "SubAccountName": ("String", True, ()),
    "Tags": ("JSON", True, ()),
}
SUBCATEGORIES = {
    "Virtual Machines": "Compute", "Serverless Compute": "Compute", "Machine Learning": "AI and Machine Learning",
    "Containers": "Compute", "Generative AI": "AI and Machine Learning",
    "Other (Storage)": "Storage", "Block Storage": "Storage", "Object Storage": "Storage", "Other (Networking)": "Networking",
    "Observability": "Management and Governance", "Other (Other)": "Other",
}  # fmt: skip
# Elements of the two JSON objects: dollars or machine time of a commitment, and the share of a charge.
_APPLIED = {"ContractId", "ContractCommitmentId"}
OBJECTS = {
    "AllocatedMethodDetails": [[{"AllocatedRatio"}]],
    "ContractApplied": [
        [_APPLIED | {"ContractCommitmentAppliedCost"}],
        [_APPLIED | {"ContractCommitmentAppliedQuantity", "ContractCommitmentAppliedUnit"}],
    ],
}
PATTERNS = {
    "Decimal": re.compile(r"-?[0-9]+(\.[0-9]+)?"),
    "Date/Time": re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z"),
    "Currency": re.compile(r"[A-Z]{3}"),
    "String": re.compile(r"\S(.*\S)?"),
}
UNITS = re.compile(r"(Hours|Seconds|kWh|GB|GB-Months|USD|Reservations)")

Write = Callable[[Ledger], None]


def a_run(
    folder: Path,
    write: Write,
    *,
    hours: int = 4,
    timezone: str = "UTC",
    instance: str = "p5.4xlarge",
    purchase: str = "on_demand",
    **options: Any,
) -> RunResult:
    """A finished run with a ledger that a test fills."""
    pool = pool_billing(own_price("7.20"), **options)
    with RunWriter(folder) as writer:
        write(make_ledger(writer.spool, pool, horizon_ns=hours * NS_PER_HOUR, timezone=timezone))
        writer.merge()
        scenario = {
            "account": {"name": "account", "timezone": timezone},
            "catalog": "",
            "start": START.isoformat(),
            "horizon": f"{hours}h",
            "pools": {"gpu": {"instance": instance, "purchase": purchase, "region": "us-east-1"}},
            "commitments": {
                "base": {"choice": "reserved_instances", "instance": "p5.4xlarge", "region": "us-east-1", "count": 1, "term": "1y"},
                "plan": {"choice": "compute_savings_plan", "usd_per_hour": "0.25", "term": "3y"},
                "year": {
                    "choice": "reserved_instances",
                    "instance": "p5.4xlarge",
                    "region": "us-east-1",
                    "count": 2,
                    "term": "1y",
                    "payment": "partial_upfront",
                },
            },
        }
        return writer.commit({}, {"scenario": scenario})


def machines(ledger: Ledger) -> None:
    """One machine from 22:00 to 01:00 across the end of January, and one that lived 10 seconds."""
    llama = [busy_slice(0, 0, "llama", n * 1800, (n + 1) * 1800, busy_s=600, shares_ns={0: 400e9, 1: 200e9}) for n in range(6)]
    charge(ledger, lease(0, 0, 3 * NS_PER_HOUR, OPEN_AT_END), llama)
    charge(ledger, lease(1, 3 * NS_PER_HOUR, 3 * NS_PER_HOUR + 10_000_000_000))


def account_rows(ledger: Ledger) -> None:
    """A charge that belongs to no lease, used and unused time of reserved machines, and reserved capacity that stood empty."""
    machines(ledger)
    about: dict[str, Any] = {"source": "price list, 2026-11-23", "confidence": "published"}
    ledger.charge_account(
        "network", 0, NS_PER_HOUR, quantity=Decimal("1.7"), unit="GB", unit_price="0.09 per GB", amount_nano=153_000_000,
        tariff="internet_egress", weights={("llama", 0): 1.0, ("llama", 1): 1.0, ("coder", 2): 1.0}, **about,
    )  # fmt: skip
    reserved: dict[str, Any] = {
        "unit": "instance-second", "unit_price": "4.00 per hour", "tariff": "reserved_instances", "purchase": "reserved",
        "pool": "gpu",
    }  # fmt: skip
    # A reserved hour at 4.00 whose list price is 7.20, three quarters of it used.
    for category, seconds in (("compute", 2700), ("commitment_waste", 900)):
        ledger.charge_account(
            category, 0, NS_PER_HOUR, quantity=Decimal(seconds), amount_nano=seconds * 4 * NANO_PER_USD // 3600,
            list_nano=seconds * 2_000_000, commitment="base", **reserved, **about,
        )  # fmt: skip
    ledger.charge_account(
        "commitment_waste", 0, NS_PER_HOUR, quantity=Decimal("0.25"), unit="USD committed", unit_price="1 per USD committed",
        amount_nano=250_000_000, tariff="compute_savings_plan", purchase="savings_plan", commitment="plan", **about,
    )  # fmt: skip


def prepaid(ledger: Ledger) -> None:
    """Two machines reserved for a year at 35,040 USD, half of it up front; and a block of one machine for a day at 4.80."""
    about: dict[str, Any] = {"source": "contract", "confidence": "published"}
    bought: dict[str, Any] = {"purchase": "reserved", "tariff": "reserved_instances", "commitment": "year", "pool": "year"}
    ledger.charge_account(
        "compute", 0, 0, quantity=Decimal(2), unit="reservation", unit_price="8760 per reservation", effective_nano=0,
        amount_nano=17_520 * NANO_PER_USD, charge="purchase", **bought, **about,
    )  # fmt: skip
    # An hour of one is 1.00 by the hour and 1.00 of what was paid: of both 4.00, three quarters used; 6.88 each in the list.
    for category, seconds in (("compute", 5400), ("commitment_waste", 1800)):
        ledger.charge_account(
            category, 0, NS_PER_HOUR, quantity=Decimal(seconds), unit="instance-second", unit_price="1 per hour",
            amount_nano=seconds * NANO_PER_USD // 3600, effective_nano=2 * seconds * NANO_PER_USD // 3600,
            list_nano=seconds * 6_880_000_000 // 3600, deployments=["llama"] if category == "compute" else [], **bought, **about,
        )  # fmt: skip
    block: dict[str, Any] = {"purchase": "capacity_block", "tariff": "capacity_block", "pool": "gpu", "unit": "instance-second"}
    ledger.charge_account(
        "compute", 0, NS_PER_HOUR, quantity=Decimal(86_400), unit_price="4.80 per hour", amount_nano=115_200_000_000,
        effective_nano=0, charge="purchase", deployments=["llama"], **block, **about,
    )  # fmt: skip
    for category, seconds in (("compute", 1200), ("commitment_waste", 2400)):
        ledger.charge_account(
            category, 0, NS_PER_HOUR, quantity=Decimal(seconds), unit_price="0 per hour", amount_nano=0, list_nano=0,
            effective_nano=seconds * 4_800_000_000 // 3600, deployments=["coder"], **block, **about,
        )  # fmt: skip


def written(result: RunResult, folder: Path, version: str = "1.4") -> list[dict[str, str]]:
    """The rows of the CSV file, as text."""
    file = folder / f"focus-{version}.csv"
    rows = write_focus(result, file, version).rows
    with file.open(encoding="utf-8", newline="") as lines:
        found = list(csv.DictReader(lines))
    assert len(found) == rows
    return found


def ledger_nano(result: RunResult) -> int:
    return int(result.sql("SELECT coalesce(sum(amount_nano_usd), 0) AS total FROM ledger")["total"][0])


def total(rows: list[dict[str, str]], column: str) -> Decimal:
    return sum((Decimal(row[column]) for row in rows), Decimal(0))


RUNS = pytest.mark.parametrize(
    ("write", "options"),
    [
        (machines, {}),
        (machines, {"electricity_billed": True, "timezone": "Asia/Kolkata"}),
        (account_rows, {"timezone": "America/New_York"}),
        (prepaid, {}),
    ],
)


@RUNS
@pytest.mark.parametrize("version", ["1.4", "1.2"])
def test_every_value_is_of_its_type_and_allowed(write: Write, options: dict[str, Any], version: str, tmp_path: Path) -> None:
    rows = written(a_run(tmp_path / "run", write, **options), tmp_path, version)
    wanted = MANDATORY | CONDITIONAL | (OF_1_4 if version == "1.4" else OF_1_2)
    assert set(wanted) <= rows[0].keys()
    assert not (OF_1_2 if version == "1.4" else OF_1_4).keys() & rows[0].keys()
    for row in rows:
        for name, (kind, nulls, allowed) in wanted.items():
            value = row[name]
            assert value or nulls, name
            if value and kind == "JSON":
                assert all(isinstance(one, (str, int)) for one in json.loads(value).values())
            elif value and kind == "JSON object":
                assert [set(one) for one in json.loads(value)["Elements"]] in OBJECTS[name]
            elif value:
                assert PATTERNS[kind].fullmatch(value), (name, value)
                assert not allowed or value in allowed, (name, value)
        assert SUBCATEGORIES[row["ServiceSubcategory"]] == row["ServiceCategory"]
        assert UNITS.fullmatch(row["PricingUnit"]), row["PricingUnit"]


@RUNS
def test_rules_between_columns(write: Write, options: dict[str, Any], tmp_path: Path) -> None:
    for row in written(a_run(tmp_path / "run", write, **options), tmp_path):
        check_rules(row)
        assert [name for name in row if name.startswith("x_")] == list(row)[-4:]


def check_rules(row: dict[str, str]) -> None:
    """Rules of the specification between the columns of a row."""
    used, unused = row["CommitmentDiscountStatus"] == "Used", row["CommitmentDiscountStatus"] == "Unused"
    purchase = row["ChargeCategory"] == "Purchase"
    billed, effective = Decimal(row["BilledCost"]), Decimal(row["EffectiveCost"])
    # Nothing that is priced lacks its SKU, price and quantity; unused commitments and purchases consume nothing.
    assert all(row[name] for name in ("SkuId", "SkuPriceId", "SkuMeter", "PricingQuantity", "PricingCategory", "ListUnitPrice"))
    assert bool(row["ConsumedQuantity"]) == bool(row["ConsumedUnit"]) == (not purchase and not unused)
    # A commitment's columns come together, and usage has a status.
    names = ("Id", "Name", "Category", "Type", "Unit", "Quantity")
    assert len({bool(row[f"CommitmentDiscount{name}"]) for name in names}) == 1
    assert bool(row["CommitmentDiscountStatus"]) == (bool(row["CommitmentDiscountId"]) and not purchase)
    assert (row["PricingCategory"] == "Committed") == (used or unused) == bool(row.get("ContractApplied", used or unused))
    assert bool(row["CapacityReservationStatus"]) == (bool(row["CapacityReservationId"]) and not purchase)
    # What is covered is paid by its purchase; everything else is effective as it is billed.
    assert (row["ChargeFrequency"] != "Usage-Based") == purchase
    if purchase:
        assert effective == 0
    elif used or unused or row["SkuPriceId"].endswith("/capacity_block"):
        assert billed == 0
    else:
        assert billed == effective
    assert row["ContractedCost"] == row["ListCost"]
    assert row["ContractedUnitPrice"] == row["ListUnitPrice"]
    # To the tolerance of the specification's own validator, 1e-9 of the cost.
    listed = Decimal(row["ListCost"])
    assert abs(Decimal(row["ListUnitPrice"]) * Decimal(row["PricingQuantity"]) - listed) <= Decimal("1e-9") * max(
        Decimal(1), listed
    )
    assert row["BillingPeriodStart"] <= row["ChargePeriodStart"] < row["ChargePeriodEnd"] <= row["BillingPeriodEnd"]


@RUNS
@pytest.mark.parametrize("version", ["1.4", "1.2"])
def test_costs_add_up_to_the_ledger(write: Write, options: dict[str, Any], version: str, tmp_path: Path) -> None:
    result = a_run(tmp_path / "run", write, **options)
    rows = written(result, tmp_path, version)
    months = result.sql(
        "SELECT month, sum(amount_nano_usd) AS billed, sum(effective_nano_usd) AS effective FROM ledger GROUP BY month"
    )
    for month, billed, effective in zip(*months.values(), strict=True):
        invoice = [row for row in rows if row["InvoiceId"] == f"account-{month}"]
        assert total(invoice, "BilledCost") * NANO_PER_USD == int(billed)
        assert total(invoice, "EffectiveCost") * NANO_PER_USD == int(effective)
    assert {row["InvoiceId"] for row in rows} == {f"account-{month}" for month in months["month"]}


@RUNS
@pytest.mark.parametrize(("version", "column"), [("1.4", "AllocatedTags"), ("1.2", "Tags")])
def test_tags_are_those_of_the_attribution(
    write: Write, options: dict[str, Any], version: str, column: str, tmp_path: Path
) -> None:
    result = a_run(tmp_path / "run", write, **options)
    found: dict[tuple[str, ...], Decimal] = {}
    for row in written(result, tmp_path, version):
        if row["x_LedgerRow"] and Decimal(row["EffectiveCost"]):
            tags = json.loads(row[column] or "{}")
            key = (row["x_LedgerRow"], *(tags.get(name, "") for name in ("deployment", "service", "segment")))
            found[key] = found.get(key, Decimal(0)) + Decimal(row["EffectiveCost"])
    parts = result.sql(
        "SELECT row, deployment, service, segment, sum(effective_nano_usd) AS nano FROM attribution "
        "GROUP BY ALL HAVING sum(effective_nano_usd) > 0"
    )
    assert {key: int(value * NANO_PER_USD) for key, value in found.items()} == {
        (str(row), *names): int(nano) for row, *names, nano in zip(*parts.values(), strict=True)
    }


@RUNS
def test_allocated_charges_are_shares_of_their_origin(write: Write, options: dict[str, Any], tmp_path: Path) -> None:
    """The ratios of an origin charge add up to 1, whatever may be summed is the origin's, and everything else is the same."""
    result = a_run(tmp_path / "run", write, **options)
    origins: dict[str, list[dict[str, str]]] = {}
    for row in written(result, tmp_path):
        if row["AllocatedMethodId"]:
            origins.setdefault(row["x_LedgerRow"], []).append(row)
        else:
            assert not any(row[f"Allocated{name}"] for name in ("MethodDetails", "ResourceId", "ResourceName", "Tags"))
    assert origins
    metrics = ("BilledCost", "EffectiveCost", "ListCost", "ContractedCost", "PricingQuantity", "ConsumedQuantity")
    quantities = result.sql("SELECT row, quantity::VARCHAR AS quantity, list_nano_usd FROM ledger")
    for number, quantity, list_nano in zip(*quantities.values(), strict=True):
        parts = origins.get(str(number), [])
        if not parts:
            continue
        details = [json.loads(row["AllocatedMethodDetails"], parse_float=Decimal, parse_int=Decimal) for row in parts]
        assert sum(one["AllocatedRatio"] for each in details for one in each["Elements"]) == 1
        assert total(parts, "ListCost") * NANO_PER_USD == int(list_nano)
        if parts[0]["ConsumedQuantity"]:
            assert total(parts, "ConsumedQuantity") == Decimal(str(quantity))
        own = {
            *metrics,
            "AllocatedMethodDetails",
            "AllocatedResourceId",
            "AllocatedResourceName",
            "AllocatedTags",
            "CommitmentDiscountQuantity",
            "ContractApplied",
        }
        assert len({tuple(value for name, value in row.items() if name not in own) for row in parts}) == 1
        assert len({row["AllocatedResourceId"] for row in parts}) == len(parts)


def test_quantities_of_parts_add_up_to_the_row(tmp_path: Path) -> None:
    result = a_run(tmp_path / "run", account_rows)
    rows = written(result, tmp_path)
    ledger = result.sql("SELECT row, quantity::VARCHAR AS quantity, category FROM ledger")
    for number, quantity, category in zip(*ledger.values(), strict=True):
        parts = [row for row in rows if row["x_LedgerRow"] == str(number)]
        if category == "commitment_waste":
            assert {row["ConsumedQuantity"] for row in parts} == {""}
        else:
            assert total(parts, "ConsumedQuantity") == Decimal(str(quantity))


def test_a_machine_by_hand(tmp_path: Path) -> None:
    """Two accelerators at 7.20 USD an hour: the replica holds one and steps 1,200 s, 800 s of it for free users."""
    rows = written(a_run(tmp_path / "run", machines), tmp_path)
    first = [row for row in rows if row["x_LedgerRow"] == "0"]
    tags = [json.loads(row["AllocatedTags"]) for row in first]
    paid = {(tag["segment"], tag["use"]): row["BilledCost"] for tag, row in zip(tags, first, strict=True)}
    # 3,600 + 2,400 idle accelerator-seconds are paid 2 to 1 as the busy time was; an accelerator-second costs 0.001 USD.
    assert {key: Decimal(value) for key, value in paid.items() if key[1] == "busy"} == {
        ("free", "busy"): Decimal("0.8"),
        ("paid", "busy"): Decimal("0.4"),
    }
    assert (total(first, "BilledCost"), total(first, "ConsumedQuantity")) == (Decimal("7.2"), Decimal(3600))
    [row] = [row for row, tag in zip(first, tags, strict=True) if (tag["segment"], tag["use"]) == ("free", "busy")]
    expected = {
        "AllocatedMethodDetails": '{"Elements":[{"AllocatedRatio":0.111111111111}]}', "AllocatedMethodId": "billcast-replica-time",
        "AllocatedResourceId": "account/chat/free/llama/busy", "AllocatedResourceName": "chat/free/llama/busy",
        "AllocatedTags": '{"deployment":"llama","segment":"free","service":"chat","use":"busy"}', "Tags": '{"pool":"gpu"}',
        "AvailabilityZone": "us-east-1a", "BillingAccountId": "account", "BillingPeriodStart": "2026-01-01T00:00:00Z",
        "BillingPeriodEnd": "2026-02-01T00:00:00Z", "ChargePeriodStart": "2026-01-31T22:00:00Z",
        "ChargePeriodEnd": "2026-01-31T23:00:00Z", "ConsumedQuantity": "400.000000000000", "ConsumedUnit": "Seconds",
        "InvoiceId": "account-2026-01", "ListUnitPrice": "7.200000000000",
        "PricingQuantity": "0.111111111111", "PricingUnit": "Hours", "PricingCategory": "Standard",
        "RegionId": "us-east-1", "ResourceId": "account/lease-0", "ServiceCategory": "Compute",
        "ServiceName": "Amazon Elastic Compute Cloud", "ServiceProviderName": "AWS", "SkuId": "p5.4xlarge",
        "SkuPriceDetails": '{"InstanceType": "p5.4xlarge", "GpuCount": 1}',
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected


CHECKED = ("BilledCost", "EffectiveCost", "ListCost", "CommitmentDiscountQuantity")


def of_commitment(rows: list[dict[str, str]], name: str) -> dict[tuple[str, str, str], tuple[Decimal, ...]]:
    """Sums of what is in the columns of a commitment, by kind of charge."""
    found: dict[tuple[str, str, str], tuple[Decimal, ...]] = {}
    for row in rows:
        if row["CommitmentDiscountName"] == name:
            assert row["CommitmentDiscountId"] == f"account/{name}"
            key = (row["ChargeCategory"], row["ChargeFrequency"], row["CommitmentDiscountStatus"])
            values = tuple(Decimal(row[column]) for column in CHECKED)
            found[key] = tuple(map(sum, zip(found[key], values, strict=True))) if key in found else values
    return found


def usd(*amounts: str) -> tuple[Decimal, ...]:
    return tuple(map(Decimal, amounts))


def test_commitments_by_hand(tmp_path: Path) -> None:
    """A reserved hour at 4 USD, three quarters used: the purchase bills 4.00, use is worth 3.00 (5.40 in the list), waste 1.00."""
    rows = written(a_run(tmp_path / "run", account_rows), tmp_path)
    assert of_commitment(rows, "base") == {
        ("Purchase", "Recurring", ""): usd("4", "0", "4", "1"),
        ("Usage", "Usage-Based", "Used"): usd("0", "3", "5.4", "0.75"),
        ("Usage", "Usage-Based", "Unused"): usd("0", "1", "1.8", "0.25"),
    }
    assert {row["ListUnitPrice"] for row in rows if row["CommitmentDiscountStatus"] and row["x_Category"] == "compute"} == {
        "7.200000000000"
    }
    # A quarter of a dollar promised and nothing used of it.
    assert of_commitment(rows, "plan") == {
        ("Purchase", "Recurring", ""): usd("0.25", "0", "0.25", "0.25"),
        ("Usage", "Usage-Based", "Unused"): usd("0", "0.25", "0.25", "0.25"),
    }
    [applied] = {row["ContractApplied"] for row in rows if row["CommitmentDiscountName"] == "plan" and row["ContractApplied"]}
    assert json.loads(applied) == {
        "Elements": [{"ContractId": "account/plan", "ContractCommitmentId": "account/plan", "ContractCommitmentAppliedCost": 0.25}]
    }


def test_what_is_paid_up_front_by_hand(tmp_path: Path) -> None:
    """17,520 USD on the first day for 2 x 8,760 hours; then 2.00 an hour in cash, and 4.00 amortised, of which 3.00 are used."""
    rows = written(a_run(tmp_path / "run", prepaid), tmp_path)
    assert of_commitment(rows, "year") == {
        ("Purchase", "One-Time", ""): usd("17520", "0", "17520", "17520"),
        ("Purchase", "Recurring", ""): usd("2", "0", "2", "2"),
        ("Usage", "Usage-Based", "Used"): usd("0", "3", "10.32", "1.5"),
        ("Usage", "Usage-Based", "Unused"): usd("0", "1", "3.44", "0.5"),
    }
    block = [row for row in rows if row["CapacityReservationId"] == "account/gpu"]
    found = {
        status: (total(some, "BilledCost"), total(some, "EffectiveCost"))
        for status in ("", "Used", "Unused")
        for some in [[row for row in block if row["CapacityReservationStatus"] == status]]
    }
    assert found == {"": usd("115.2", "0"), "Used": usd("0", "1.6"), "Unused": usd("0", "3.2")}


def test_months_are_those_of_the_account(tmp_path: Path) -> None:
    """22:00 UTC on 31 January is February in Kolkata, whose months begin at 18:30 UTC, and hours at the half."""
    first = written(a_run(tmp_path / "run", machines, timezone="Asia/Kolkata"), tmp_path)[0]
    assert (first["BillingPeriodStart"], first["BillingPeriodEnd"]) == ("2026-01-31T18:30:00Z", "2026-02-28T18:30:00Z")
    assert (first["ChargePeriodStart"], first["ChargePeriodEnd"]) == ("2026-01-31T21:30:00Z", "2026-01-31T22:30:00Z")


def test_parquet_holds_the_same(tmp_path: Path) -> None:
    """Costs are decimals and times are instants, so that no reader makes floats or local times of them."""
    result = a_run(tmp_path / "run", account_rows, timezone="America/New_York")
    rows = written(result, tmp_path)
    write_focus(result, tmp_path / "focus.parquet")
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("SET TimeZone = 'Asia/Tokyo'")
        found = connection.read_parquet(str(tmp_path / "focus.parquet"))
        assert found.columns == list(rows[0]) == [column.name for column in columns_of("1.4")]
        types = dict(zip(found.columns, map(str, found.types), strict=True))
        assert {column.name: types[column.name] for column in columns_of("1.4")} == {
            column.name: {"Date/Time": "TIMESTAMP WITH TIME ZONE", "Decimal": "DECIMAL(38,12)"}.get(column.kind, "VARCHAR")
            if not column.name.endswith("Cost")
            else "DECIMAL(38,9)"
            for column in columns_of("1.4")
        }
        # DuckDB hands instants to Python only where there is a certain package of time zones; so as text.
        times = [name for name, kind in types.items() if kind == "TIMESTAMP WITH TIME ZONE"]
        texts = ", ".join(f"strftime({name} AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%SZ') AS {name}" for name in times)
        for values, row in zip(found.project(f"* REPLACE ({texts})").fetchall(), rows, strict=True):
            for value, text in zip(values, row.values(), strict=True):
                assert (Decimal(text) == value) if isinstance(value, Decimal) else (text or None) == value


PAGE = Path(__file__).parents[2] / "docs" / "reference" / "focus.md"


def queries() -> dict[str, str]:
    """The queries of the page on FOCUS by their headings."""
    page = PAGE.read_text("utf-8")
    return dict(re.findall(r"^### (.+?)\n.*?```sql\n(.*?)```", page, re.DOTALL | re.MULTILINE))


def answers(file: Path, query: str) -> list[dict[str, Any]]:
    """The answer to a query of the page, whose file is here."""
    # Of a CSV file as the page says it.
    [read] = re.findall(r"^(read_csv\(.*?\}\))$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    source = "'costs.parquet'" if file.suffix == ".parquet" else read
    with duckdb.connect(config={"threads": 1}) as connection:
        asked = connection.execute(query.replace("'costs.parquet'", source).replace(f"costs{file.suffix}", str(file)))
        return [dict(zip([one[0] for one in asked.description or []], row, strict=True)) for row in asked.fetchall()]


@pytest.mark.parametrize("ending", ["parquet", "csv"])
@RUNS
def test_queries_of_the_page_have_the_sums_of_the_ledger(
    write: Write, options: dict[str, Any], ending: str, tmp_path: Path
) -> None:
    result = a_run(tmp_path / "run", write, **options)
    file = tmp_path / f"focus.{ending}"
    write_focus(result, file)
    found = {heading: answers(file, query) for heading, query in queries().items()}
    assert list(found) == [
        "The invoice by service", "What services and segments use", "Use and waste of commitments", "What discounts save",
        "The cost of a day by pricing category",
    ]  # fmt: skip
    billed = Decimal(ledger_nano(result)) / NANO_PER_USD
    [effective_nano] = result.sql("SELECT coalesce(sum(effective_nano_usd), 0)::BIGINT AS nano FROM ledger")["nano"].tolist()
    effective = Decimal(effective_nano) / NANO_PER_USD

    def summed(heading: str, column: str) -> Decimal:
        assert all(isinstance(row[column], Decimal) for row in found[heading])
        return sum((row[column] for row in found[heading]), Decimal(0))

    assert summed("The invoice by service", "usd") == billed
    assert summed("What services and segments use", "usd") == effective
    assert summed("The cost of a day by pricing category", "usd") == effective
    assert summed("What discounts save", "effective_usd") == effective
    [promised_nano] = result.sql(
        "SELECT coalesce(sum(effective_nano_usd), 0)::BIGINT AS nano FROM ledger WHERE purchase IN ('reserved', 'savings_plan')"
    )["nano"].tolist()
    assert summed("Use and waste of commitments", "usd") == Decimal(promised_nano) / NANO_PER_USD


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    result = a_run(tmp_path / "run", account_rows)
    for name in ("a", "b"):
        write_focus(result, tmp_path / f"{name}.csv")
        write_focus(result, tmp_path / f"{name}.parquet")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_a_run_without_charges_has_its_columns(tmp_path: Path) -> None:
    assert written(a_run(tmp_path / "run", lambda _: None), tmp_path) == []
    assert (tmp_path / "focus-1.4.csv").read_text("utf-8").startswith("AllocatedMethodDetails,AllocatedMethodId,")


assert datetime(2026, 1, 31, 22, tzinfo=UTC) == START  # what the hours above are worked out from
