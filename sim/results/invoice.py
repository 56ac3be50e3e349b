"""The invoice: ledger rows gathered into lines by calendar month, exact to the nano-dollar."""

from __future__ import annotations

from dataclasses import dataclass

from sim.results.numbers import UNASSIGNED
from sim.results.records import RunResult
from sim.units import NANO_PER_USD

SECONDS_PER_HOUR = 3_600
_ENERGY_BY_THE_HOUR = "metered_energy_hourly"


@dataclass(frozen=True)
class InvoiceLine:
    """All ledger rows of one month, pool, instance type, purchase option, category, item and price; prices that move count as one.

    Parameters
    ----------
    month : YYYY-MM in the account zone. instance : type of the machines.
    item : name of a line that belongs to no machine and no commitment, its row of the catalog ("aws-internet-egress"); else "".
    quantity : in `unit`: instance-hours for machines, kWh for energy, the ledger's own unit for the rest.
    unit_price : as written in the catalog; for spot and electricity by the hour, whose prices move, the mean of what was paid.
    amount_nano : exact sum of the rows in nano-dollars.
    """

    month: str
    pool: str
    instance: str
    purchase: str
    category: str
    item: str
    quantity: float
    unit: str
    unit_price: str
    amount_nano: int

    @property
    def name(self) -> str:
        """What the line is of, in words."""
        return " ".join(filter(None, (self.month, self.pool, self.instance, self.purchase, self.category, self.item)))


def invoice(result: RunResult) -> list[InvoiceLine]:
    """Return the lines of a run's invoice, in order of month, pool and category."""
    columns = result.sql(f"""
        SELECT month, ledger.pool AS pool, coalesce(leases.instance, '') AS instance, ledger.purchase AS purchase, category,
            CASE WHEN lease < 0 AND ledger.pool = '' THEN tariff ELSE '' END AS item,
            CASE unit WHEN 'instance-second' THEN sum(quantity)::DOUBLE / {SECONDS_PER_HOUR} ELSE sum(quantity)::DOUBLE END
                AS quantity,
            CASE unit WHEN 'instance-second' THEN 'instance-hours' ELSE unit END AS shown_unit,
            CASE WHEN ledger.purchase = 'spot' AND ledger.amount_nano_usd > 0 THEN '' WHEN tariff = '{_ENERGY_BY_THE_HOUR}' THEN ''
                ELSE unit_price END AS price,
            sum(ledger.amount_nano_usd) AS amount
        FROM ledger LEFT JOIN leases USING (lease)
        GROUP BY month, ledger.pool, leases.instance, ledger.purchase, category, item, unit, price ORDER BY ALL
    """)
    return [_line(*row) for row in zip(*(column.tolist() for column in columns.values()), strict=True)]


def _line(
    month: str,
    pool: str,
    instance: str,
    purchase: str,
    category: str,
    item: str,
    quantity: float,
    unit: str,
    price: str,
    amount_nano: int,
) -> InvoiceLine:
    mean_usd = amount_nano / NANO_PER_USD / quantity if quantity else 0.0
    return InvoiceLine(
        month, pool, instance, purchase, category, item, quantity, unit, price or f"{mean_usd:.4f} mean", amount_nano
    )


@dataclass(frozen=True)
class MonthlyCharge:
    """What one service paid in one category in one month of the account's zone.

    Parameters
    ----------
    service : "(unassigned)" for what no service pays. amount_nano : exact sum in nano-dollars.
    """

    month: str
    service: str
    category: str
    amount_nano: int


def invoice_by_month(result: RunResult) -> list[MonthlyCharge]:
    """Return the bill by month, service and category, in this order; it adds up to the invoice to the nano-dollar."""
    columns = result.sql(f"""
        SELECT month, CASE WHEN stream < 0 THEN '{UNASSIGNED}' ELSE service END AS service, category,
            sum(attribution.amount_nano_usd) AS amount
        FROM attribution JOIN ledger ON attribution.row = ledger.row GROUP BY ALL ORDER BY ALL
    """)
    return [MonthlyCharge(*row) for row in zip(*(column.tolist() for column in columns.values()), strict=True)]
