"""The ledger of a run as a FOCUS file: the open cost and usage specification that tools of FinOps read.

A row is a part of a ledger row: what one deployment, service, segment and use pay of it, so that tags are exact and every sum by
tag is the attribution's. Costs of the parts are the attribution's own; quantities are shared out in their proportion and add up to
the row's. What a commitment covers has a BilledCost of 0 and its own EffectiveCost; a row of ChargeCategory "Purchase" an hour and
commitment has the BilledCost. BilledCost adds up to the invoice, and so does EffectiveCost.

Source: FOCUS 1.4 and 1.2, see `sim.results.focus_columns`.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import numpy as np

from sim.catalog.loader import Catalog, load_catalog
from sim.errors import InputError, Problem
from sim.results.focus_columns import LATEST, VERSIONS, FocusColumn, columns_of
from sim.results.focus_services import (
    CAPACITY_BLOCK,
    CAPACITY_RESERVATION,
    COMMITMENTS,
    NOT_APPLICABLE,
    OF_MACHINES,
    OWNED,
    PROVIDERS,
    price_of,
    service_of,
    unit_text,
)
from sim.results.records import RunResult
from sim.results.spool import connect, quoted

FORMATS = {".csv": "FORMAT csv, HEADER, TIMESTAMPFORMAT '%Y-%m-%dT%H:%M:%SZ'", ".parquet": "FORMAT parquet, COMPRESSION zstd"}
_SECONDS = "instance-second"
_TABLES = ("ledger", "attribution", "leases")

# Shares of a quantity are differences of rounded sums, so that they add up. `upto` is the sum of the parts up to and with this one.
_PARTS = """
    WITH part AS (
        SELECT row, "use", deployment, service, segment, sum(amount_nano_usd)::BIGINT AS amount
        FROM attribution GROUP BY ALL
    ), piece AS (
        SELECT ledger.* EXCLUDE (quantity), part.* EXCLUDE (row, amount), coalesce(part.amount, 0) AS cost,
            (ledger.quantity::DECIMAL(28, 9) * 1000000000::DECIMAL(10, 0))::HUGEINT AS whole,
            sum(part.amount) OVER (
                PARTITION BY ledger.row ORDER BY part."use", part.deployment, part.service, part.segment
                ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
            )::HUGEINT AS upto
        FROM ledger LEFT JOIN part ON part.row = ledger.row
    )
    SELECT * EXCLUDE (whole, upto), 'Usage' AS charge, row AS number,
        CASE WHEN coalesce(upto, 0) = 0 THEN whole ELSE
            (2 * whole * upto + amount_nano_usd) // (2 * amount_nano_usd)
            - (2 * whole * (upto - cost) + amount_nano_usd) // (2 * amount_nano_usd)
        END AS nano
    FROM piece
"""
# What is paid for a commitment in an hour of the account, used and unused.
_PURCHASES = """
    SELECT account, month, local_hour, pool, purchase, tariff, source, confidence, 'purchase' AS category, unit, unit_price,
        sum(amount_nano_usd)::BIGINT AS cost, (sum(quantity)::DECIMAL(28, 9) * 1000000000::DECIMAL(10, 0))::HUGEINT AS nano,
        'Purchase' AS charge
    FROM ledger WHERE purchase IN ({covered}) GROUP BY ALL
"""


def write_focus(result: RunResult, file: str | Path, version: str = LATEST) -> int:
    """Write the ledger of a run in the columns of FOCUS, whole or not at all.

    Parameters
    ----------
    file : ends in .csv or .parquet; one that is there is replaced. version : of the specification, "1.4" or "1.2".

    Returns
    -------
    rows written.

    Raises
    ------
    InputError : another ending, no such version, or a file that cannot be written.
    """
    path = Path(file)
    problems = []
    if path.suffix not in FORMATS:
        problems.append(Problem("--focus", str(file), "is neither CSV nor Parquet", "a name that ends in .csv or .parquet"))
    if version not in VERSIONS:
        problems.append(Problem("--focus-version", version, "is not a version that is written", ", ".join(VERSIONS)))
    if problems:
        raise InputError(problems)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        with tempfile.TemporaryDirectory() as folder, connect(Path(folder)) as connection:
            rows = _copy(connection, result, columns_of(version), partial, FORMATS[path.suffix])
        partial.replace(path)
    except (OSError, duckdb.IOException) as error:
        raise InputError(
            [Problem("--focus", str(file), f"cannot be written: {error}", "a file in a folder that is there")]
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return rows


def _copy(
    connection: duckdb.DuckDBPyConnection, result: RunResult, columns: Sequence[FocusColumn], target: Path, options: str
) -> int:
    for name in _TABLES:
        path = quoted(str(result.folder / f"{name}.parquet"))
        connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet({path})")
    for name, found in _facts(connection, result).items():
        connection.register(name, found)
    covered = ", ".join(quoted(name) for name in COMMITMENTS)
    connection.execute(f"CREATE VIEW charges AS {_PARTS} UNION ALL BY NAME {_PURCHASES.format(covered=covered)}")
    made = _expressions(covered)
    listed = ", ".join(f'({made[column.name]})::{column.duckdb_type} AS "{column.name}"' for column in columns)
    counted = connection.execute(f"""
        COPY (
            SELECT {listed} FROM charges AS c
            JOIN hours USING (local_hour, month) JOIN prices USING (unit, unit_price) JOIN places USING (pool, category)
            LEFT JOIN (SELECT lease, node, zone FROM leases) USING (lease) LEFT JOIN commitments USING (purchase)
            ORDER BY hour_start, c.charge, c.number, c.tariff, c.unit_price, c."use", c.deployment, c.service, c.segment
        ) TO {quoted(str(target))} ({options})
    """).fetchone()
    assert counted is not None  # COPY answers with the number of rows
    return int(counted[0])


def _expressions(covered: str) -> dict[str, str]:
    """Return the SQL of every column of any version."""
    money = "cost::DECIMAL(20, 0) * 0.000000001::DECIMAL(9, 9)"
    nothing = "0::DECIMAL(20, 0) * 0.000000001::DECIMAL(9, 9)"
    is_covered, is_purchase = f"c.purchase IN ({covered})", "charge = 'Purchase'"
    # 1e-12 of the unit: hours of seconds are rounded to the nearest, everything else is exact.
    pico = f"CASE WHEN unit = '{_SECONDS}' AND pricing_unit = 'Hours' THEN (nano * 10 + 18) // 36 ELSE nano * 1000 END"
    priced = f"({pico})::DECIMAL(26, 0) * 0.000000000001::DECIMAL(12, 12)"
    unused = f"({is_covered} AND c.category = 'commitment_waste')"
    consumed = f"NOT {is_purchase} AND NOT {unused}"
    spend = "commitment_category = 'Spend'"
    reserved = f"c.purchase = '{CAPACITY_RESERVATION}'"
    return {
        "AvailabilityZone": "zone",
        "BilledCost": f"CASE WHEN {is_covered} AND NOT {is_purchase} THEN {nothing} ELSE {money} END",
        "BillingAccountId": "account",
        "BillingAccountName": "account",
        "BillingCurrency": "'USD'",
        "BillingPeriodEnd": "period_end",
        "BillingPeriodStart": "period_start",
        "CapacityReservationId": f"CASE WHEN {reserved} THEN account || '/' || c.tariff END",
        "CapacityReservationStatus": f"CASE WHEN {reserved} THEN if(c.category = 'commitment_waste', 'Unused', 'Used') END",
        "ChargeCategory": f"if(c.purchase = '{CAPACITY_BLOCK}' AND lease = -1, 'Purchase', charge)",
        "ChargeClass": "NULL",
        "ChargeDescription": "service_name || ', ' || replace(c.category, '_', ' ') || ', ' || unit_price",
        "ChargeFrequency": f"CASE WHEN {is_purchase} THEN 'Recurring' "
        f"WHEN c.purchase = '{CAPACITY_BLOCK}' AND lease = -1 THEN 'One-Time' ELSE 'Usage-Based' END",
        "ChargePeriodEnd": "hour_end",
        "ChargePeriodStart": "hour_start",
        "CommitmentDiscountCategory": "commitment_category",
        "CommitmentDiscountId": f"CASE WHEN {is_covered} THEN account || '/' || c.tariff END",
        "CommitmentDiscountName": f"CASE WHEN {is_covered} THEN c.tariff END",
        "CommitmentDiscountQuantity": f"CASE WHEN {is_covered} THEN if({spend}, {money}, {priced}) END",
        "CommitmentDiscountStatus": f"CASE WHEN {is_covered} AND NOT {is_purchase} THEN if({unused}, 'Unused', 'Used') END",
        "CommitmentDiscountType": "commitment_type",
        "CommitmentDiscountUnit": f"CASE WHEN {is_covered} THEN if({spend}, 'USD', 'Hours') END",
        "ConsumedQuantity": f"CASE WHEN {consumed} THEN nano::DECIMAL(26, 0) * 0.000000001::DECIMAL(9, 9) END",
        "ConsumedUnit": f"CASE WHEN {consumed} THEN consumed_unit END",
        "ContractedCost": money,
        "EffectiveCost": f"CASE WHEN {is_purchase} THEN {nothing} ELSE {money} END",
        "HostProviderName": "host",
        "InvoiceId": "account || '-' || month",
        "InvoiceIssuerName": "provider",
        "ListCost": money,
        "ListUnitPrice": "list_price",
        "PricingCategory": f"CASE WHEN {is_covered} AND NOT {is_purchase} THEN 'Committed' "
        "WHEN c.purchase = 'spot' THEN 'Dynamic' ELSE 'Standard' END",
        "PricingQuantity": priced,
        "PricingUnit": "pricing_unit",
        "ProviderName": "provider",
        "PublisherName": "provider",
        "RegionId": "region",
        "RegionName": "region",
        "ResourceId": "CASE WHEN lease >= 0 THEN account || '/lease-' || lease END",
        "ResourceName": "CASE WHEN lease >= 0 THEN 'node-' || node END",
        "ResourceType": "CASE WHEN lease >= 0 THEN 'Machine' END",
        "ServiceCategory": "service_category",
        "ServiceName": "service_name",
        "ServiceProviderName": "provider",
        "ServiceSubcategory": "service_subcategory",
        "SkuId": "coalesce(sku, c.tariff)",
        "SkuMeter": "meter",
        "SkuPriceDetails": "sku_details",
        "SkuPriceId": "coalesce(sku || '/', '') || c.tariff",
        "Tags": "nullif(json_merge_patch('{}', json_object('deployment', nullif(deployment, ''), 'pool', nullif(c.pool, ''), "
        "'segment', nullif(segment, ''), 'service', nullif(service, ''), 'use', \"use\"))::VARCHAR, '{}')",
        "x_Category": "c.category",
        "x_Confidence": "c.confidence",
        "x_LedgerRow": "number::VARCHAR",
        "x_PriceSource": "c.source",
    }


_HOURS = ("local_hour", "month", "hour_start", "hour_end", "period_start", "period_end")
_PRICES = ("unit", "unit_price", "list_price", "pricing_unit", "consumed_unit")
_PLACES = (
    "pool", "category", "provider", "host", "region", "sku", "sku_details",
    "service_category", "service_subcategory", "service_name", "meter",
)  # fmt: skip
_COMMITMENTS = ("purchase", "commitment_category", "commitment_type")


def _facts(connection: duckdb.DuckDBPyConnection, result: RunResult) -> dict[str, dict[str, Any]]:
    """Return small tables to join: times of hours, prices, and what a charge of a pool buys from whom."""
    scenario = result.manifest["scenario"]
    zone = ZoneInfo(scenario["account"]["timezone"])
    catalog = _catalog(scenario["catalog"])
    places = {
        (pool, category): _place(pool, category, scenario, catalog) for pool, category in _distinct(connection, "pool", "category")
    }
    purchased = {(pool, "purchase"): place for (pool, category), place in places.items() if category in OF_MACHINES}
    return {
        "hours": _columns(_HOURS, [_hour(hour, month, zone) for hour, month in _distinct(connection, "local_hour", "month")]),
        "prices": _columns(_PRICES, [_price(unit, price) for unit, price in _distinct(connection, "unit", "unit_price")]),
        "places": _columns(_PLACES, [(*key, *place) for key, place in (places | purchased).items()]),
        "commitments": _columns(_COMMITMENTS, [(name, *kind) for name, kind in COMMITMENTS.items()]),
    }


def _distinct(connection: duckdb.DuckDBPyConnection, *names: str) -> list[tuple[str, ...]]:
    return connection.execute(f"SELECT DISTINCT {', '.join(names)} FROM ledger ORDER BY ALL").fetchall()


def _columns(names: Sequence[str], rows: Sequence[tuple[str | None, ...]]) -> dict[str, Any]:
    """Return rows as one array per column, which DuckDB can read."""
    found = {}
    for number, name in enumerate(names):
        values = np.empty(len(rows), dtype=object)
        values[:] = [row[number] for row in rows]
        found[name] = values
    return found


def _catalog(overlay: str) -> Catalog:
    """Return the catalog of a run; the package's alone where its overlay is not there any more."""
    return load_catalog(overlay if overlay and Path(overlay).is_file() else None)


def _hour(local_hour: str, month: str, zone: ZoneInfo) -> tuple[str, ...]:
    begin = datetime.fromisoformat(local_hour)
    first = datetime.fromisoformat(f"{month}-01")
    after = (first + timedelta(days=31)).replace(day=1)
    moments = (begin, begin + timedelta(hours=1), first.replace(tzinfo=zone), after.replace(tzinfo=zone))
    return (local_hour, month, *(moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S") for moment in moments))


def _price(unit: str, unit_price: str) -> tuple[str | None, ...]:
    price, of_machines = price_of(unit_price), unit == _SECONDS
    consumed = "Seconds" if of_machines else unit_text(unit)
    if price is None:
        return unit, unit_price, None, consumed, consumed
    return unit, unit_price, f"{price.usd:f}", unit_text(price.unit), consumed


def _place(pool: str, category: str, scenario: Mapping[str, Any], catalog: Catalog) -> tuple[str | None, ...]:
    """Return who sells a charge of a pool, what it is, and where; a charge without a pool is of the one cloud of all pools."""
    clouds = {name: _cloud(row, catalog) for name, row in scenario["pools"].items()}
    of_all = set(clouds.values())
    cloud = clouds.get(pool) or (of_all.pop() if len(of_all) == 1 else "")
    account = scenario["account"]["name"]
    provider = account if category == "people" else PROVIDERS.get(cloud, account)
    host = NOT_APPLICABLE if category == "people" else provider
    service = service_of(category, cloud)
    found = scenario["pools"].get(pool)
    sku = found["instance"] if found and category in OF_MACHINES else None
    row = catalog.instances.get(sku) if sku else None
    details = json.dumps({"InstanceType": sku, "GpuCount": row.accelerators}) if row else None
    return provider, host, found["region"] if found else None, sku, details, *astuple(service)


def _cloud(pool: Mapping[str, Any], catalog: Catalog) -> str:
    """Return whose machines a pool has; "" for one's own, whatever their type."""
    row = catalog.instances.get(pool["instance"])
    return row.cloud if row and pool["purchase"] != OWNED else ""
