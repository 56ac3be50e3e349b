"""The columns of a FOCUS file: names, types, nulls and allowed values, by version of the specification.

Source: FOCUS, the FinOps Open Cost and Usage Specification, https://focus.finops.org/focus-specification: 1.4, ratified
2026-06-04, and 1.2, ratified 2025-05-29, dataset "Cost and Usage"; read 2026-11-23.
"""

from __future__ import annotations

from dataclasses import dataclass

LATEST, OLDER = "1.4", "1.2"
VERSIONS = (LATEST, OLDER)

CHARGE_CATEGORIES = ("Usage", "Purchase", "Tax", "Credit", "Adjustment")
CHARGE_FREQUENCIES = ("One-Time", "Recurring", "Usage-Based")
PRICING_CATEGORIES = ("Standard", "Dynamic", "Committed", "Other")
COMMITMENT_CATEGORIES = ("Spend", "Usage")
STATUSES = ("Used", "Unused")

DECIMAL, TEXT, TIME, JSON = "Decimal", "String", "Date/Time", "JSON"
# Types of the file. Money has nine decimals, the nano-dollar; quantities have twelve, so that hours of a second are exact enough.
DUCKDB = {DECIMAL: "DECIMAL(38,12)", TEXT: "VARCHAR", TIME: "TIMESTAMPTZ", JSON: "VARCHAR"}
MONEY = "DECIMAL(38,9)"


@dataclass(frozen=True)
class FocusColumn:
    """One column of the file.

    Parameters
    ----------
    kind : data type of the specification. nulls : whether it may be empty. allowed : its only values; none allows all.
    versions : of the specification that have it.
    """

    name: str
    kind: str
    nulls: bool
    allowed: tuple[str, ...] = ()
    versions: tuple[str, ...] = VERSIONS

    @property
    def duckdb_type(self) -> str:
        """Type in DuckDB."""
        return MONEY if self.name.endswith("Cost") else DUCKDB[self.kind]


COLUMNS: tuple[FocusColumn, ...] = (
    FocusColumn("AllocatedMethodDetails", JSON, True, versions=(LATEST,)),
    FocusColumn("AllocatedMethodId", TEXT, True, versions=(LATEST,)),
    FocusColumn("AllocatedResourceId", TEXT, True, versions=(LATEST,)),
    FocusColumn("AllocatedResourceName", TEXT, True, versions=(LATEST,)),
    FocusColumn("AllocatedTags", JSON, True, versions=(LATEST,)),
    FocusColumn("AvailabilityZone", TEXT, True),
    FocusColumn("BilledCost", DECIMAL, False),
    FocusColumn("BillingAccountId", TEXT, False),
    FocusColumn("BillingAccountName", TEXT, True),
    FocusColumn("BillingCurrency", TEXT, False, ("USD",)),
    FocusColumn("BillingPeriodEnd", TIME, False),
    FocusColumn("BillingPeriodStart", TIME, False),
    FocusColumn("CapacityReservationId", TEXT, True),
    FocusColumn("CapacityReservationStatus", TEXT, True, STATUSES),
    FocusColumn("ChargeCategory", TEXT, False, CHARGE_CATEGORIES),
    FocusColumn("ChargeClass", TEXT, True, ("Correction",)),
    FocusColumn("ChargeDescription", TEXT, True),
    FocusColumn("ChargeFrequency", TEXT, False, CHARGE_FREQUENCIES),
    FocusColumn("ChargePeriodEnd", TIME, False),
    FocusColumn("ChargePeriodStart", TIME, False),
    FocusColumn("CommitmentDiscountCategory", TEXT, True, COMMITMENT_CATEGORIES),
    FocusColumn("CommitmentDiscountId", TEXT, True),
    FocusColumn("CommitmentDiscountName", TEXT, True),
    FocusColumn("CommitmentDiscountQuantity", DECIMAL, True),
    FocusColumn("CommitmentDiscountStatus", TEXT, True, STATUSES),
    FocusColumn("CommitmentDiscountType", TEXT, True),
    FocusColumn("CommitmentDiscountUnit", TEXT, True),
    FocusColumn("ConsumedQuantity", DECIMAL, True),
    FocusColumn("ConsumedUnit", TEXT, True),
    FocusColumn("ContractApplied", JSON, True, versions=(LATEST,)),
    FocusColumn("ContractedCost", DECIMAL, False),
    FocusColumn("ContractedUnitPrice", DECIMAL, True),
    FocusColumn("EffectiveCost", DECIMAL, False),
    FocusColumn("HostProviderName", TEXT, False, versions=(LATEST,)),
    FocusColumn("InvoiceId", TEXT, True),
    FocusColumn("InvoiceIssuerName", TEXT, False),
    FocusColumn("ListCost", DECIMAL, False),
    FocusColumn("ListUnitPrice", DECIMAL, True),
    FocusColumn("PricingCategory", TEXT, True, PRICING_CATEGORIES),
    FocusColumn("PricingQuantity", DECIMAL, True),
    FocusColumn("PricingUnit", TEXT, True),
    FocusColumn("ProviderName", TEXT, False, versions=(OLDER,)),
    FocusColumn("PublisherName", TEXT, False, versions=(OLDER,)),
    FocusColumn("RegionId", TEXT, True),
    FocusColumn("RegionName", TEXT, True),
    FocusColumn("ResourceId", TEXT, True),
    FocusColumn("ResourceName", TEXT, True),
    FocusColumn("ResourceType", TEXT, True),
    FocusColumn("ServiceCategory", TEXT, False),
    FocusColumn("ServiceName", TEXT, False),
    FocusColumn("ServiceProviderName", TEXT, False, versions=(LATEST,)),
    FocusColumn("ServiceSubcategory", TEXT, False),
    FocusColumn("SkuId", TEXT, True),
    FocusColumn("SkuMeter", TEXT, True),
    FocusColumn("SkuPriceDetails", JSON, True),
    FocusColumn("SkuPriceId", TEXT, True),
    FocusColumn("SubAccountId", TEXT, True),
    FocusColumn("SubAccountName", TEXT, True),
    FocusColumn("Tags", JSON, True),
    # Columns of one's own begin with x_ and come last.
    FocusColumn("x_Category", TEXT, False),
    FocusColumn("x_Confidence", TEXT, False),
    FocusColumn("x_LedgerRow", TEXT, True),
    FocusColumn("x_PriceSource", TEXT, False),
)


def columns_of(version: str) -> tuple[FocusColumn, ...]:
    """Return the columns of a version, in the order of the file.

    Examples
    --------
    >>> [column.name for column in columns_of("1.2") if "Provider" in column.name]
    ['ProviderName']
    """
    return tuple(column for column in COLUMNS if version in column.versions)
