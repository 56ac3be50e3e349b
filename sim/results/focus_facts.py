"""Small tables that a FOCUS file joins to the ledger: times of hours, prices, what a charge buys from whom, commitments."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import numpy as np

from sim.catalog.loader import Catalog, load_catalog
from sim.domain.managed import ANY_CLOUD
from sim.results.focus_services import (
    COMMITMENTS,
    NOT_APPLICABLE,
    OF_MACHINES,
    OWNED,
    PROVIDERS,
    SELLERS,
    cloud_of_promise,
    price_of,
    service_of,
    term_quantity,
    unit_text,
)
from sim.units import NANO_PER_USD

HOURS = ("local_hour", "month", "hour_start", "hour_end", "period_start", "period_end")
PRICES = ("unit", "unit_price", "whole", "list_nano_usd", "list_price", "pricing_unit", "pico", "consumed_unit")
PLACES = (
    "pool", "commitment", "category", "pool_name", "provider", "host", "region", "sku", "sku_details",
    "service_category", "service_subcategory", "service_name", "meter",
)  # fmt: skip
KINDS = ("purchase", "commitment_category", "commitment_type")
TERMS = ("commitment", "term_quantity", "monthly")
_SECONDS = "instance-second"
_SECONDS_PER_HOUR = 3_600
_PICO_PER_NANO = 1_000
_MOST_DECIMALS = 12


def kinds() -> dict[str, Any]:
    """Return purchase options that are commitment discounts, with their category and type."""
    return columns_by_name(KINDS, [(name, *kind) for name, kind in COMMITMENTS.items()])


def catalog_of(scenario: Mapping[str, Any]) -> Catalog:
    """Return the catalog of a run; the package's own alone where the overlay of the run is not there any more."""
    overlay = scenario["catalog"]
    return load_catalog(overlay if overlay and Path(overlay).is_file() else None)


def facts(connection: duckdb.DuckDBPyConnection, scenario: Mapping[str, Any], catalog: Catalog) -> dict[str, dict[str, Any]]:
    """Return the tables by name, as one array per column; they have a row for everything that the view `keys` holds.

    Parameters
    ----------
    scenario : of the run, as its manifest has it. catalog : of the run.
    """

    def distinct(*names: str) -> list[tuple[Any, ...]]:
        return connection.execute(f"SELECT DISTINCT {', '.join(names)} FROM keys ORDER BY ALL").fetchall()

    zone = ZoneInfo(scenario["account"]["timezone"])
    commitments = scenario.get("commitments", {})
    return {
        "hours": columns_by_name(HOURS, [_hour(hour, month, zone) for hour, month in distinct("local_hour", "month")]),
        "prices": columns_by_name(PRICES, [_price(*row) for row in distinct("unit", "unit_price", "whole", "list_nano_usd")]),
        "places": columns_by_name(
            PLACES, [(*key, *_place(key, scenario, catalog)) for key in distinct("pool", "commitment", "category")]
        ),
        "terms": columns_by_name(TERMS, [(name, *term_quantity(row)) for name, row in commitments.items()]),
    }


def columns_by_name(names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> dict[str, Any]:
    """Return rows as one array per column, which DuckDB can read."""
    found = {}
    for number, name in enumerate(names):
        values = np.empty(len(rows), dtype=object)
        values[:] = [row[number] for row in rows]
        found[name] = values
    return found


def _hour(local_hour: str, month: str, zone: ZoneInfo) -> tuple[str, ...]:
    begin = datetime.fromisoformat(local_hour)
    first = datetime.fromisoformat(f"{month}-01")
    after = (first + timedelta(days=31)).replace(day=1)
    moments = (begin, begin + timedelta(hours=1), first.replace(tzinfo=zone), after.replace(tzinfo=zone))
    return (local_hour, month, *(moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S") for moment in moments))


def _price(unit: str, unit_price: str, whole: int, list_nano: int) -> tuple[Any, ...]:
    """Return the list price of a row, and its quantity in the unit of the price."""
    consumed = "Seconds" if unit == _SECONDS else unit_text(unit)
    price = price_of(unit_price)
    if price is None:
        return unit, unit_price, whole, list_nano, None, consumed, str(whole * _PICO_PER_NANO), consumed
    by_hour = unit == _SECONDS and price.unit == "hour"
    quantity = Fraction(whole, NANO_PER_USD * (_SECONDS_PER_HOUR if by_hour else 1))
    # Seconds are exact in the ledger; other quantities have nine decimals there, and their cost was worked out before.
    listed = list_price(price.usd, quantity, list_nano, rounded=unit != _SECONDS)
    if listed and not _makes(listed, quantity, list_nano):
        quantity = Fraction(list_nano, NANO_PER_USD) / Fraction(listed)
    pico = round(quantity * _PICO_PER_NANO * NANO_PER_USD)
    return unit, unit_price, whole, list_nano, f"{listed:f}", unit_text(price.unit), str(pico), consumed


def list_price(charged_usd: Decimal, quantity: Fraction, list_nano: int, *, rounded: bool = False) -> Decimal:
    """Return the price that makes a list cost of a quantity, to half a nano-dollar, with as few decimals as can be.

    Parameters
    ----------
    charged_usd : price that was charged, which it is where it makes that cost. quantity : in the unit of the price.
    rounded : whether the quantity is one of nine decimals, so that the cost may be off by what they leave out.

    Examples
    --------
    >>> str(list_price(Decimal("4.3344"), Fraction(1), 6_880_000_000))
    '6.88'
    >>> str(list_price(Decimal("4.90"), Fraction(1, 3600), 1_911_111))
    '6.88'
    """
    slack = Fraction(charged_usd) / 2 if rounded else Fraction(0)
    if quantity == 0 or _makes(charged_usd, quantity, list_nano, slack):
        return charged_usd
    exact = Fraction(list_nano, NANO_PER_USD) / quantity
    quotient = Decimal(exact.numerator) / Decimal(exact.denominator)
    tried = (quotient.quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_EVEN) for decimals in range(_MOST_DECIMALS))
    return next((usd for usd in tried if _makes(usd, quantity, list_nano)), round(quotient, _MOST_DECIMALS))


def _makes(usd: Decimal, quantity: Fraction, list_nano: int, slack: Fraction = Fraction(0)) -> bool:
    return abs(Fraction(usd) * quantity * NANO_PER_USD - list_nano) <= Fraction(1, 2) + slack


def _place(key: tuple[str, str, str], scenario: Mapping[str, Any], catalog: Catalog) -> tuple[str | None, ...]:
    """Return who sells a charge, what it is, and where; one without a pool is of its commitment, or of the one cloud of all."""
    pool, commitment, category = key
    clouds = {name: _cloud(row, catalog) for name, row in scenario["pools"].items()}
    of_all = set(clouds.values())
    found = scenario["pools"].get(pool)
    promised = None if found else scenario.get("commitments", {}).get(commitment)
    cloud = clouds.get(pool) or (of_all.pop() if len(of_all) == 1 else "")
    if promised:
        cloud = cloud_of_promise(promised, catalog)
    account = scenario["account"]["name"]
    purchase = str((found or {}).get("purchase", ""))
    offer = catalog.managed_offers.get(purchase)
    provider = account if category == "people" else SELLERS.get(purchase, PROVIDERS.get(cloud, purchase if offer else account))
    host = NOT_APPLICABLE if category == "people" else provider
    bought = found or promised or {}
    sku = bought.get("instance") or None if category in OF_MACHINES else None
    instance = catalog.instances.get(sku) if sku else None
    details = json.dumps({"InstanceType": sku, "GpuCount": instance.accelerators}) if instance else None
    region = bought.get("region") or None
    return pool if found else None, provider, host, region, sku, details, *astuple(service_of(category, cloud, purchase))


def _cloud(pool: Mapping[str, Any], catalog: Catalog) -> str:
    """Return whose machines a pool has; "" for one's own and those of an offer of no cloud, whatever their type."""
    row, offer = catalog.instances.get(pool["instance"]), catalog.managed_offers.get(pool["purchase"])
    own = pool["purchase"] == OWNED or (offer is not None and offer.cloud == ANY_CLOUD)
    return row.cloud if row and not own else ""
