"""Books the energy of machines: kWh, price and carbon of every lease by hour, split exactly among those who caused it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from sim.billing.attribution import Attribution, RowWeights, largest_remainder
from sim.billing.energy import Electricity, EnergyRate
from sim.domain.usage import Lease

PARTED = ("nano_kwh", "electricity_nano_usd", "carbon_ug")


class Sink(Protocol):
    """Where rows go."""

    def append(self, table: str, row: Mapping[str, object]) -> None:
        """Add a row, given by column name, to a table of `sim.schema`."""


@dataclass(frozen=True)
class Metered:
    """Energy at the meter of one lease in one stretch of time.

    Parameters
    ----------
    nano_kwh : energy. electricity_nano_usd : its price. carbon_ug : its carbon in 1e-6 grams of CO2.
    """

    nano_kwh: int
    electricity_nano_usd: int
    carbon_ug: int


class EnergyBook:
    """Writes the table `energy`: the parts of each lease's metered energy by the rules of `sim.billing.attribution`.

    Parts are in proportion to joules: the energy of steps goes to the streams that were stepped for; idle power, the host and the
    losses of the site follow the time they belong to. kWh, dollars and grams are split each for themselves, and each adds up.

    Parameters
    ----------
    attribution : knows who pays for overheads. owner : number of a stream -> (service, segment). sink : receives the rows.
    """

    def __init__(self, attribution: Attribution, owner: Mapping[int, tuple[str, str]], sink: Sink) -> None:
        self._attribution, self._owner, self._sink = attribution, owner, sink
        self._rows = 0

    def book(
        self,
        lease: Lease,
        electricity: Electricity,
        rate: EnergyRate,
        hour: str,
        weights: RowWeights,
        deployments: Iterable[str],
    ) -> Metered:
        """Write the parts of one row of time, and return their sums.

        Parameters
        ----------
        rate : in force during the row. hour : calendar hour in the account zone. weights : of the row.
        deployments : seen on the lease so far.
        """
        nano_kwh = electricity.nano_kwh(weights.joules)
        metered = Metered(nano_kwh, rate.cost_nano_usd(nano_kwh), rate.carbon_ug(nano_kwh))
        if not nano_kwh:
            return metered
        shares = self._attribution.shares(weights, deployments, by_energy=True)
        keys = sorted(shares)
        in_order = [shares[key] for key in keys]
        parts = zip(*(largest_remainder(getattr(metered, name), in_order) for name in PARTED), strict=True)
        for (start_ns, use, deployment, stream), part in zip(keys, parts, strict=True):
            if any(part):
                service, segment = self._owner.get(stream, ("", ""))
                self._sink.append(
                    "energy",
                    {
                        "row": self._rows,
                        "lease": lease.lease,
                        "pool": lease.pool,
                        "grid": electricity.grid,
                        "start_ns": start_ns,
                        "local_hour": hour,
                        "month": hour[: len("YYYY-MM")],
                        "use": use,
                        "deployment": deployment,
                        "stream": stream,
                        "service": service,
                        "segment": segment,
                        "usd_per_kwh": rate.usd_per_kwh,
                        "gco2_per_kwh": rate.gco2_per_kwh,
                        **dict(zip(PARTED, part, strict=True)),
                    },
                )
        self._rows += 1
        return metered
