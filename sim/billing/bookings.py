"""Rows of the ledger before they are written: of living leases, and of hours that are not settled yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sim.billing.attribution import PartKey, RowWeights
from sim.billing.coverage import MACHINE_UNIT, Use
from sim.billing.energy import EnergyRate
from sim.billing.rates import Rate
from sim.domain.usage import Lease


@dataclass
class Booking:
    """A ledger row and its parts, before they are written: what each pays on the invoice, and amortised."""

    columns: dict[str, object]
    amount_nano: int
    effective_nano: int
    parts: dict[PartKey, tuple[int, int]]

    @property
    def machine_end_ns(self) -> int:
        """End of the machine time that it is for; the start of the run where it is for something else."""
        return int(str(self.columns["end_ns"])) if self.columns["unit"] == MACHINE_UNIT else 0


def booking_of(
    columns: dict[str, object], amount_nano: int, effective_nano: int, split: Callable[[int], dict[PartKey, int]]
) -> Booking:
    """Return a row split twice, once where both amounts are the same; each adds up to its own."""
    parts = split(amount_nano)
    effective = parts if effective_nano == amount_nano else split(effective_nano)
    pairs = {key: (parts.get(key, 0), effective.get(key, 0)) for key in sorted({*parts, *effective})}
    return Booking(columns, amount_nano, effective_nano, pairs)


@dataclass
class OpenLease:
    """A living lease with its open row, and the rows held back while an interruption would still make it free."""

    lease: Lease
    billed_to_ns: int
    latest_start_ns: int
    deployments: set[str] = field(default_factory=set)
    row_start_ns: int = -1
    hour: str = ""
    rate: Rate | None = None
    energy_rate: EnergyRate | None = None
    weights: RowWeights = field(default_factory=RowWeights)
    held: list[Booking] = field(default_factory=list)
    amount_nano: int = 0
    nano_kwh: int = 0
    electricity_nano: int = 0
    carbon_ug: int = 0


@dataclass
class HourRow:
    """Machine time of a lease that waits for the end of its hour, when commitments are known to cover it or not."""

    opened: OpenLease
    category: str
    hour: str
    weights: RowWeights
    deployments: frozenset[str]
    use: Use
