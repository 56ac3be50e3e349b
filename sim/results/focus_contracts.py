"""The dataset "Contract Commitment" of FOCUS 1.4: one row for each commitment that the cost and usage file has charges of.

Terms are those of the row of `commitments:`; what they save and cost is measured in the ledger of the run.

Source: FOCUS 1.4, dataset "Contract Commitment", https://focus.finops.org/focus-specification; read 2026-11-23.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction
from typing import Any

import duckdb

from sim.catalog.loader import Catalog
from sim.domain.pricing import ALL_UPFRONT, NO_UPFRONT, PARTIAL_UPFRONT, TERM_HOURS
from sim.errors import Problems
from sim.registry import choice_name
from sim.results.focus_columns import COMMITMENT_CATEGORIES, DECIMAL, JSON, LATEST, TEXT, TIME, FocusColumn
from sim.results.focus_services import (
    COMMITMENTS,
    PROVIDERS,
    SPEND,
    VIRTUAL_MACHINES,
    cloud_of_promise,
    term_quantity,
)
from sim.scenario import Scenario
from sim.scenario.commitments import (
    AzureReservation,
    ForATerm,
    InstanceSavingsPlan,
    Reserved,
    ReservedInstances,
    SavingsPlan,
)
from sim.scenario.plain import scenario_from_plain
from sim.units import NANO_PER_USD, NS_PER_HOUR

PAYMENT_MODELS = {NO_UPFRONT: "No Upfront", PARTIAL_UPFRONT: "Partial Upfront", ALL_UPFRONT: "All Upfront"}
DURATIONS = {"1y": "1 Year", "3y": "3 Years"}
ONCE, MONTHLY = "One-Time", "Monthly"
ACTIVE, EXPIRED = "Active", "Expired"
_V = (LATEST,)

COLUMNS: tuple[FocusColumn, ...] = (
    FocusColumn("BillingCurrency", TEXT, False, ("USD",), _V),
    FocusColumn("ContractCommitmentApplicability", JSON, False, (), _V),
    FocusColumn("ContractCommitmentBenefitCategory", TEXT, False, ("Discount",), _V),
    FocusColumn("ContractCommitmentCategory", TEXT, False, COMMITMENT_CATEGORIES, _V),
    FocusColumn("ContractCommitmentCost", DECIMAL, True, (), _V),
    FocusColumn("ContractCommitmentCreated", TIME, False, (), _V),
    FocusColumn("ContractCommitmentDescription", TEXT, True, (), _V),
    FocusColumn("ContractCommitmentDiscountPercentage", DECIMAL, False, (), _V),
    FocusColumn("ContractCommitmentDurationType", TEXT, False, tuple(DURATIONS.values()), _V),
    FocusColumn("ContractCommitmentFulfillmentInterval", TEXT, False, ("Hourly",), _V),
    FocusColumn("ContractCommitmentId", TEXT, False, (), _V),
    FocusColumn("ContractCommitmentLastUpdated", TIME, False, (), _V),
    FocusColumn("ContractCommitmentLifecycleStatus", TEXT, False, (ACTIVE, EXPIRED), _V),
    FocusColumn("ContractCommitmentModel", TEXT, False, ("Continuous",), _V),
    FocusColumn("ContractCommitmentOfferCategory", TEXT, False, ("Negotiated", "Public"), _V),
    FocusColumn("ContractCommitmentPaymentInterval", TEXT, False, (ONCE, MONTHLY), _V),
    FocusColumn("ContractCommitmentPaymentModel", TEXT, False, tuple(PAYMENT_MODELS.values()), _V),
    FocusColumn("ContractCommitmentPaymentUpfrontPercentage", DECIMAL, False, (), _V),
    FocusColumn("ContractCommitmentPeriodEnd", TIME, False, (), _V),
    FocusColumn("ContractCommitmentPeriodStart", TIME, False, (), _V),
    FocusColumn("ContractCommitmentQuantity", DECIMAL, True, (), _V),
    FocusColumn("ContractCommitmentType", TEXT, False, (), _V),
    FocusColumn("ContractCommitmentUnit", TEXT, True, ("Hours",), _V),
    FocusColumn("ContractId", TEXT, False, (), _V),
    FocusColumn("ContractPeriodEnd", TIME, False, (), _V),
    FocusColumn("ContractPeriodStart", TIME, False, (), _V),
    FocusColumn("InvoiceIssuerName", TEXT, False, (), _V),
    FocusColumn("ServiceProviderName", TEXT, False, (), _V),
)
# What is left of the on-demand price is known of what a plan covered, and of reserved machines in every hour.
_MEASURED = """
    SELECT coalesce(nullif(commitment, ''), pool) AS name, purchase, sum(effective_nano_usd)::HUGEINT AS effective,
        coalesce(sum(effective_nano_usd) FILTER (compared), 0)::HUGEINT AS paid,
        coalesce(sum(list_nano_usd) FILTER (compared), 0)::HUGEINT AS listed
    FROM (
        SELECT *, category <> 'commitment_waste' OR commitment_category = 'Usage' AS compared
        FROM ledger JOIN kinds USING (purchase)
    )
    WHERE charge_category = 'usage' GROUP BY ALL ORDER BY ALL
"""


@dataclass(frozen=True)
class _Measured:
    """What a commitment was in the ledger: its purchase option, its amortised nano-dollars, and those that compare with a list."""

    purchase: str
    effective: int
    paid: int
    listed: int


def contract_rows(connection: duckdb.DuckDBPyConnection, scenario: Mapping[str, Any], catalog: Catalog) -> list[tuple[Any, ...]]:
    """Return the rows of the dataset in the order of `COLUMNS`, by name.

    Parameters
    ----------
    connection : with the views `ledger` and `kinds`. scenario : of the run, as its manifest has it. catalog : of the run.
    """
    plain = scenario.get("commitments", {})
    problems = Problems()
    run = scenario_from_plain({name: scenario[name] for name in ("start", "horizon", "commitments") if name in scenario}, problems)
    problems.raise_if_any()
    rows = []
    for name, *measured in connection.execute(_MEASURED).fetchall():
        promised = run.commitments.get(name)
        if isinstance(promised, ForATerm):
            provider = PROVIDERS[cloud_of_promise(plain[name], catalog)]
            identity = f"{scenario['account']['name']}/{name}"
            found = _row(promised, plain[name], _Measured(*measured), run, catalog) | {
                "ContractCommitmentApplicability": json.dumps(applicability(promised, provider, catalog)),
                "ContractCommitmentId": identity,
                "ContractId": identity,
                "InvoiceIssuerName": provider,
                "ServiceProviderName": provider,
            }
            rows.append(tuple(found[column.name] for column in COLUMNS))
    return rows


def _row(promised: ForATerm, plain: Mapping[str, Any], measured: _Measured, run: Scenario, catalog: Catalog) -> dict[str, Any]:
    """Return the columns that the terms and the ledger decide."""
    category, kind = COMMITMENTS[measured.purchase]
    begins, ends = period(promised, run)
    after = run.start_instant + timedelta(microseconds=run.horizon_ns // 1_000)
    quantity, _ = term_quantity(plain)
    start, end = _text(begins), _text(ends)
    return {
        "BillingCurrency": "USD",
        "ContractCommitmentBenefitCategory": "Discount",
        "ContractCommitmentCategory": category,
        "ContractCommitmentCost": quantity if category == SPEND else _cost(promised, measured, run),
        "ContractCommitmentCreated": start,
        "ContractCommitmentDescription": _description(promised),
        "ContractCommitmentDiscountPercentage": _discount(measured),
        "ContractCommitmentDurationType": DURATIONS[promised.term],
        "ContractCommitmentFulfillmentInterval": "Hourly",
        "ContractCommitmentLastUpdated": _text(max(begins, after)),
        "ContractCommitmentLifecycleStatus": ACTIVE if after < ends else EXPIRED,
        "ContractCommitmentModel": "Continuous",
        "ContractCommitmentOfferCategory": "Negotiated" if _own_terms(promised) else "Public",
        "ContractCommitmentPaymentInterval": ONCE if promised.payment == ALL_UPFRONT else MONTHLY,
        "ContractCommitmentPaymentModel": PAYMENT_MODELS[promised.payment],
        "ContractCommitmentPaymentUpfrontPercentage": f"{upfront_share(promised):.12f}",
        "ContractCommitmentPeriodEnd": end,
        "ContractCommitmentPeriodStart": start,
        "ContractCommitmentQuantity": None if category == SPEND else quantity,
        "ContractCommitmentType": kind,
        "ContractCommitmentUnit": None if category == SPEND else "Hours",
        "ContractPeriodEnd": end,
        "ContractPeriodStart": start,
    }


def period(promised: ForATerm, run: Scenario) -> tuple[datetime, datetime]:
    """Return the first instant of a commitment and its end.

    One without a begin was there before the run: it counts from the run's own, or from a term before its end where that is earlier.
    It lasts for its term, and to the end of the run where that is later.
    """
    term = timedelta(hours=TERM_HOURS[promised.term])
    after = run.start_instant + timedelta(microseconds=run.horizon_ns // 1_000)
    begins, ends = promised.span()
    if begins is None:
        begins = run.start_instant if ends is None else min(run.start_instant, ends - term)
    return begins, max(begins + term, after) if ends is None else ends


def upfront_share(promised: ForATerm) -> Decimal:
    """Return the share of the whole cost that is paid on the first day: 0 to 1.

    Notes
    -----
    A partial payment of reserved machines that follows from a discount is half (`sim.billing.committed_rates`).

    Examples
    --------
    >>> from sim.scenario.commitments import ReservedInstances
    >>> str(upfront_share(ReservedInstances(payment="partial_upfront", usd_per_hour="1", upfront_usd="8760")))
    '0.5'
    """
    if promised.payment != PARTIAL_UPFRONT:
        return Decimal(int(promised.payment == ALL_UPFRONT))
    if isinstance(promised, SavingsPlan):
        return Decimal(str(promised.upfront_share))
    if isinstance(promised, Reserved) and promised.upfront_usd is not None and promised.usd_per_hour is not None:
        upfront = Decimal(promised.upfront_usd)
        return upfront / (upfront + Decimal(promised.usd_per_hour) * TERM_HOURS[promised.term])
    return Decimal("0.5")


def applicability(promised: ForATerm, provider: str, catalog: Catalog) -> dict[str, Any]:
    """Return what a commitment covers, by columns of the cost and usage file; spot machines never.

    Parameters
    ----------
    provider : whose it is, as in ServiceProviderName. catalog : knows which sizes cover each other.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> plan = InstanceSavingsPlan(family="p5", region="us-east-1", usd_per_hour="3")
    >>> [rule["Dimension"] for rule in applicability(plan, "AWS", load_catalog())["Inclusions"]]
    ['ServiceProviderName', 'ServiceSubcategory', 'RegionId', 'SkuId']
    """
    rules = [("ServiceProviderName", "In", [provider]), ("ServiceSubcategory", "In", [VIRTUAL_MACHINES])]
    if isinstance(promised, InstanceSavingsPlan):
        rules += [("RegionId", "In", [promised.region]), ("SkuId", "StartsWith", [f"{promised.family}."])]
    if isinstance(promised, Reserved):
        sizes = promised.sizes(catalog) if isinstance(promised, (ReservedInstances, AzureReservation)) else {}
        rules += [("RegionId", "In", [promised.region]), ("SkuId", "In", sorted({promised.instance, *sizes}))]
    if isinstance(promised, ReservedInstances) and promised.zone:
        rules += [("AvailabilityZone", "In", [promised.zone])]
    return {
        "InclusionOperator": "And",
        "Inclusions": [dict(zip(("Dimension", "Operator", "Values"), rule, strict=True)) for rule in rules],
        "ExclusionOperator": "Or",
        "Exclusions": [{"Dimension": "PricingCategory", "Operator": "In", "Values": ["Dynamic"]}],
    }


def _cost(promised: ForATerm, measured: _Measured, run: Scenario) -> str | None:
    """Return what machines promised cost over the term, to the cent: their amortised cost by the hour of the run, times hours."""
    begins, ends = period(promised, run)
    after = run.start_instant + timedelta(microseconds=run.horizon_ns // 1_000)
    active = min(ends, after) - max(begins, run.start_instant)
    if active <= timedelta():
        return None
    active_ns = active // timedelta(microseconds=1) * 1_000
    usd = Fraction(measured.effective * TERM_HOURS[promised.term] * NS_PER_HOUR, active_ns * NANO_PER_USD)
    return str((Decimal(usd.numerator) / Decimal(usd.denominator)).quantize(Decimal("0.01"), ROUND_HALF_EVEN))


def _discount(measured: _Measured) -> str:
    """Return what was saved of the list price in the run, to six decimals: 0 to 1, and 0 where nothing was covered."""
    if measured.listed <= measured.paid:
        return "0"
    return f"{1 - Decimal(measured.paid) / Decimal(measured.listed):.6f}"


def _own_terms(promised: ForATerm) -> bool:
    """Whether a price or discount is of one's own contract."""
    prices: tuple[object, ...] = ()
    if isinstance(promised, Reserved):
        prices = (promised.usd_per_hour, promised.upfront_usd)
    if isinstance(promised, SavingsPlan):
        prices = (promised.rates_usd_per_hour or None,)
    return any(value is not None for value in (promised.discount, *prices))


def _description(promised: ForATerm) -> str:
    what = f"{promised.count} x {promised.instance}" if isinstance(promised, Reserved) else ""
    what = f"{promised.usd_per_hour} USD an hour" if isinstance(promised, SavingsPlan) else what
    return f"{choice_name(promised)}: {what}, {DURATIONS[promised.term].lower()}, {PAYMENT_MODELS[promised.payment].lower()}"


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
