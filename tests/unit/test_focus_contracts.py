"""The file of commitments beside a FOCUS file: the columns of the specification, terms by hand, and both files agree."""

from __future__ import annotations

import csv
import json
import tempfile
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from test_billing_laws import ALL_COMMITMENTS, fleets
from test_focus_laws import exported
from test_results_focus import PATTERNS, a_run, account_rows, machines, prepaid

from sim.catalog.loader import load_catalog
from sim.domain.usage import Lease
from sim.errors import InputError
from sim.results.focus import write_focus
from sim.results.focus_contracts import applicability, period, upfront_share
from sim.scenario import Scenario
from sim.scenario.commitments import AzureReservation, ComputeSavingsPlan, ForATerm, InstanceSavingsPlan, ReservedInstances

# Written from the specification 1.4, dataset "Contract Commitment": type, may it be null, allowed values. Read 2026-11-23.
# Its two columns PricingCurrency... are for providers that price and bill in different currencies.
INTERVALS = (
    "Hourly", "Daily", "Weekly", "Monthly", "Quarterly", "Semi-Annual", "Annual", "Full Period", "Transactional", "Custom",
)  # fmt: skip
SPECIFIED: dict[str, tuple[str, bool, tuple[str, ...]]] = {
    "BillingCurrency": ("Currency", True, ()),
    "ContractCommitmentApplicability": ("JSON object", False, ()),
    "ContractCommitmentBenefitCategory": ("String", False, ("Discount", "Entitlement", "Availability", "Other")),
    "ContractCommitmentCategory": ("String", False, ("Spend", "Usage")),
    "ContractCommitmentCost": ("Decimal", True, ()),
    "ContractCommitmentCreated": ("Date/Time", False, ()),
    "ContractCommitmentDescription": ("String", True, ()),
    "ContractCommitmentDiscountPercentage": ("Decimal", False, ()),
    "ContractCommitmentDurationType": ("String", False, ("1 Year", "3 Years")),
    "ContractCommitmentFulfillmentInterval": ("String", False, INTERVALS),
    "ContractCommitmentId": ("String", False, ()),
    "ContractCommitmentLastUpdated": ("Date/Time", False, ()),
    "ContractCommitmentLifecycleStatus": (
        "String", False, ("Proposed", "Pending", "Active", "Exhausted", "Expired", "Canceled", "Superseded")
    ),
    "ContractCommitmentModel": ("String", False, ("Continuous", "Discontinuous")),
    "ContractCommitmentOfferCategory": ("String", False, ("Negotiated", "Public")),
    "ContractCommitmentPaymentInterval": ("String", False, ("One-Time", "Monthly", "Quarterly", "Semi-Annual", "Annual", "Custom")),
    "ContractCommitmentPaymentModel": ("String", False, ("No Upfront", "Partial Upfront", "All Upfront")),
    "ContractCommitmentPaymentUpfrontPercentage": ("Decimal", False, ()),
    "ContractCommitmentPeriodEnd": ("Date/Time", False, ()),
    "ContractCommitmentPeriodStart": ("Date/Time", False, ()),
    "ContractCommitmentQuantity": ("Decimal", True, ()),
    "ContractCommitmentType": ("String", False, ()),
    "ContractCommitmentUnit": ("String", True, ()),
    "ContractId": ("String", False, ()),
    "ContractPeriodEnd": ("Date/Time", False, ()),
    "ContractPeriodStart": ("Date/Time", False, ()),
    "InvoiceIssuerName": ("String", False, ()),
    "ServiceProviderName": ("String", False, ()),
}  # fmt: skip
OPERATORS = ("In", "NotIn", "StartsWith", "NotStartsWith", "Contains", "NotContains", "EndsWith", "Exists", "DoesNotExist")


def read(file: Path) -> dict[str, dict[str, str]]:
    """The rows of a CSV file of commitments by their identity."""
    with file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    found = {row["ContractCommitmentId"]: row for row in rows}
    assert len(found) == len(rows)
    return found


def check_row(row: dict[str, str]) -> None:
    """Columns, types, nulls, allowed values, and the rules between columns."""
    assert list(row) == list(SPECIFIED)
    for name, (kind, nulls, allowed) in SPECIFIED.items():
        assert row[name] or nulls, name
        if row[name] and kind != "JSON object":
            assert PATTERNS[kind].fullmatch(row[name]), (name, row[name])
        assert not row[name] or not allowed or row[name] in allowed, (name, row[name])
    cost, quantity = row["ContractCommitmentCost"], row["ContractCommitmentQuantity"]
    assert cost if row["ContractCommitmentCategory"] == "Spend" else quantity
    assert bool(quantity) == bool(row["ContractCommitmentUnit"])
    assert 0 <= Decimal(row["ContractCommitmentDiscountPercentage"]) <= 1
    upfront, model = Decimal(row["ContractCommitmentPaymentUpfrontPercentage"]), row["ContractCommitmentPaymentModel"]
    assert (upfront == 0, 0 < upfront < 1, upfront == 1) == tuple(model == f"{word} Upfront" for word in ("No", "Partial", "All"))
    assert (row["ContractCommitmentPaymentInterval"] == "One-Time") == (model == "All Upfront")
    assert row["ContractPeriodStart"] == row["ContractCommitmentPeriodStart"] < row["ContractCommitmentPeriodEnd"]
    assert row["ContractCommitmentCreated"] <= row["ContractCommitmentLastUpdated"]
    check_applicability(json.loads(row["ContractCommitmentApplicability"]))


def check_applicability(found: dict[str, Any]) -> None:
    """The JSON schema of the specification, as far as these objects go."""
    assert found.keys() == {"InclusionOperator", "Inclusions", "ExclusionOperator", "Exclusions"}
    assert {found["InclusionOperator"], found["ExclusionOperator"]} <= {"And", "Or"}
    for rule in [*found["Inclusions"], *found["Exclusions"]]:
        assert rule.keys() == {"Dimension", "Operator", "Values"}
        assert rule["Operator"] in OPERATORS
        assert rule["Values"]
        assert all(isinstance(value, str) and value for value in rule["Values"])


def applied(row: dict[str, str]) -> set[str]:
    """The commitments that a row of the cost and usage file says were applied."""
    return {one["ContractCommitmentId"] for one in json.loads(row["ContractApplied"] or '{"Elements": []}')["Elements"]}


# Of a year, by hand: 2 x 4.3344, 6.88 less 40 %, dollars of plans, a TPU host at 3.36, 48xlarge at 9.6768 less 36 %, 55.04 less
# 40 %, two NC24ads at 3.673 less 30 %; times 8,760 hours.
COSTS = {
    "ri": "75938.69", "zonal": "36161.28", "plan": "65700", "all": "28908", "cud": "29433.60", "flexible": "54252.01",
    "partial": "289290.24", "prepaid": "35916", "azure": "45045.67", "azure_plan": "175200", "google": "7884",
}  # fmt: skip
UPFRONT = {"flexible": "1", "partial": "0.5", "prepaid": "0.7", "azure": "1", "azure_plan": "1"}
SHARES = {"ri": "0.37", "zonal": "0.4", "flexible": "0.36", "partial": "0.4", "azure": "0.3", "cud": "0.3"}


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(fleets())
def test_both_files_have_the_same_commitments(leases: list[Lease]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _, charges = exported(leases, Path(folder))
        promises = read(Path(folder) / "focus.contract_commitments.csv")
    discounts = {row["CommitmentDiscountId"] for row in charges} - {""}
    assert discounts == set().union(*map(applied, charges)) == promises.keys()
    # Kept capacity may be given up at any time, so it promises nothing.
    assert {f"account/{name}" for name in ALL_COMMITMENTS if name != "kept"} == promises.keys()
    for row in promises.values():
        check_row(row)
        name = row["ContractId"].removeprefix("account/")
        assert Decimal(row["ContractCommitmentCost"]) == Decimal(COSTS[name]), name
        assert Decimal(row["ContractCommitmentPaymentUpfrontPercentage"]) == Decimal(UPFRONT.get(name, "0")), name
        if name in SHARES:
            assert Decimal(row["ContractCommitmentDiscountPercentage"]) == Decimal(SHARES[name]), name
    for charge in charges:
        if charge["CommitmentDiscountId"]:
            row = promises[charge["CommitmentDiscountId"]]
            assert row["ContractCommitmentType"] == charge["CommitmentDiscountType"]
            assert row["ContractCommitmentCategory"] == charge["CommitmentDiscountCategory"]
            assert charge["ServiceProviderName"] == row["ServiceProviderName"]
            assert charge["ChargePeriodStart"] < row["ContractCommitmentPeriodEnd"]
            assert row["ContractCommitmentPeriodStart"] < charge["ChargePeriodEnd"]
            check_covered(charge, json.loads(row["ContractCommitmentApplicability"]))


def check_covered(charge: dict[str, str], scope: dict[str, Any]) -> None:
    """What a commitment covers is what it says that it covers."""
    if charge["CommitmentDiscountStatus"] == "Used":
        for rule in scope["Inclusions"]:
            value, wanted = charge[rule["Dimension"]], rule["Values"]
            assert value.startswith(tuple(wanted)) if rule["Operator"] == "StartsWith" else value in wanted, rule
        assert charge["PricingCategory"] not in scope["Exclusions"][0]["Values"]


def test_a_commitment_by_hand(tmp_path: Path) -> None:
    """Two machines for a year, 17,520 USD up front and 2.00 an hour: 4.00 an hour, of which the list says 13.76."""
    written = write_focus(a_run(tmp_path / "run", prepaid, hours=1), tmp_path / "costs.csv")
    assert written.commitments_file == tmp_path / "costs.contract_commitments.csv"
    rows = read(written.commitments_file)
    assert (list(rows), written.commitments) == (["account/year"], 1)
    row = rows["account/year"]
    check_row(row)
    expected = {
        "BillingCurrency": "USD", "ContractCommitmentCategory": "Usage", "ContractCommitmentCost": "35040.000000000",
        "ContractCommitmentDescription": "reserved_instances: 2 x p5.4xlarge, 1 year, partial upfront",
        "ContractCommitmentDiscountPercentage": "0.709302000000", "ContractCommitmentDurationType": "1 Year",
        "ContractCommitmentFulfillmentInterval": "Hourly", "ContractCommitmentLifecycleStatus": "Active",
        "ContractCommitmentOfferCategory": "Public", "ContractCommitmentPaymentInterval": "Monthly",
        "ContractCommitmentPaymentModel": "Partial Upfront", "ContractCommitmentPaymentUpfrontPercentage": "0.500000000000",
        "ContractCommitmentPeriodStart": "2026-01-31T22:00:00Z", "ContractCommitmentPeriodEnd": "2027-01-31T22:00:00Z",
        "ContractCommitmentLastUpdated": "2026-01-31T23:00:00Z", "ContractCommitmentQuantity": "17520.000000000000",
        "ContractCommitmentType": "Reserved Instance", "ContractCommitmentUnit": "Hours", "ContractId": "account/year",
        "InvoiceIssuerName": "AWS", "ServiceProviderName": "AWS",
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected


def test_dollars_by_hand(tmp_path: Path) -> None:
    """0.25 USD an hour for three years are 6,570 USD; it covered nothing, so it saved nothing."""
    written = write_focus(a_run(tmp_path / "run", account_rows), tmp_path / "costs.csv")
    assert written.commitments_file is not None
    row = read(written.commitments_file)["account/plan"]
    check_row(row)
    assert (row["ContractCommitmentCost"], row["ContractCommitmentQuantity"]) == ("6570.000000000", "")
    assert (row["ContractCommitmentDurationType"], row["ContractCommitmentPeriodEnd"]) == ("3 Years", "2029-01-30T22:00:00Z")
    assert Decimal(row["ContractCommitmentDiscountPercentage"]) == 0


def test_parquet_has_types(tmp_path: Path) -> None:
    written = write_focus(a_run(tmp_path / "run", account_rows), tmp_path / "costs.parquet")
    found = duckdb.read_parquet(str(written.commitments_file))
    types = dict(zip(found.columns, map(str, found.types), strict=True))
    assert list(types) == list(SPECIFIED)
    assert types["ContractCommitmentPeriodStart"] == "TIMESTAMP WITH TIME ZONE"
    assert (types["ContractCommitmentCost"], types["ContractCommitmentQuantity"]) == ("DECIMAL(38,9)", "DECIMAL(38,12)")
    assert found.shape[0] == written.commitments == 2


def test_there_is_no_file_without_commitments_or_in_1_2(tmp_path: Path) -> None:
    for write, version in ((machines, "1.4"), (account_rows, "1.2")):
        written = write_focus(a_run(tmp_path / version, write), tmp_path / f"{version}.csv", version)
        assert (written.commitments, written.commitments_file) == (0, None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.2", "1.2.csv", "1.4", "1.4.csv"]


def test_a_file_of_commitments_that_cannot_be_written_leaves_neither(tmp_path: Path) -> None:
    (tmp_path / "costs.contract_commitments.csv").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        write_focus(a_run(tmp_path / "run", account_rows), tmp_path / "costs.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["costs.contract_commitments.csv", "run"]


RUN = Scenario(start="2026-01-05T00:00:00Z", horizon="48h")
BEGIN = datetime(2026, 1, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("begins", "ends", "expected"),
    [
        ("", "", (BEGIN, BEGIN + timedelta(hours=8_760))),
        ("2025-06-01T00:00Z", "", (datetime(2025, 6, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC))),
        ("", "2026-01-06T00:00Z", (datetime(2025, 1, 6, tzinfo=UTC), datetime(2026, 1, 6, tzinfo=UTC))),
        ("", "2028-01-05T00:00Z", (BEGIN, datetime(2028, 1, 5, tzinfo=UTC))),
    ],
)
def test_the_period_of_a_commitment(begins: str, ends: str, expected: tuple[datetime, datetime]) -> None:
    assert period(ForATerm(begins=begins, ends=ends), RUN) == expected


def test_a_commitment_without_an_end_lasts_for_the_whole_run() -> None:
    assert period(ForATerm(), Scenario(start=RUN.start, horizon="500d"))[1] == BEGIN + timedelta(days=500)


@pytest.mark.parametrize(
    ("promised", "share"),
    [
        (ReservedInstances(), "0"),
        (ReservedInstances(payment="all_upfront"), "1"),
        (ReservedInstances(payment="partial_upfront"), "0.5"),
        (ReservedInstances(payment="partial_upfront", usd_per_hour="1", upfront_usd="2920"), "0.25"),
        (ComputeSavingsPlan(payment="partial_upfront", upfront_share=0.7), "0.7"),
    ],
)
def test_what_is_paid_on_the_first_day(promised: ForATerm, share: str) -> None:
    assert upfront_share(promised) == Decimal(share)


def test_what_a_commitment_covers() -> None:
    catalog = load_catalog()

    def rules(promised: ForATerm, provider: str = "AWS") -> dict[str, tuple[str, list[str]]]:
        found = applicability(promised, provider, catalog)
        return {rule["Dimension"]: (rule["Operator"], rule["Values"]) for rule in found["Inclusions"]}

    everywhere = {"ServiceProviderName": ("In", ["AWS"]), "ServiceSubcategory": ("In", ["Virtual Machines"])}
    assert rules(ComputeSavingsPlan(usd_per_hour="1")) == everywhere
    family = rules(InstanceSavingsPlan(usd_per_hour="1", family="p5", region="us-east-1"))
    # p5e and p5en are families of their own.
    assert family == everywhere | {"RegionId": ("In", ["us-east-1"]), "SkuId": ("StartsWith", ["p5."])}
    zonal = rules(ReservedInstances(instance="p5.4xlarge", region="us-east-1", zone="us-east-1b"))
    assert (zonal["SkuId"], zonal["AvailabilityZone"]) == (("In", ["p5.4xlarge"]), ("In", ["us-east-1b"]))
    assert rules(ReservedInstances(instance="m7i.2xlarge", region="us-east-1"))["SkuId"] == ("In", ["m7i.2xlarge", "m7i.48xlarge"])
    reserved = AzureReservation(
        instance="NC24ads_A100_v4", region="eastus", size_ratios={"NC24ads_A100_v4": 1, "NC48ads_A100_v4": 2}
    )
    assert rules(reserved, "Microsoft")["SkuId"] == ("In", ["NC24ads_A100_v4", "NC48ads_A100_v4"])
