"""Energy of machines: what they draw, what it costs, and the carbon in it."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sim.domain.grid_series import GridSeries
from sim.units import JOULES_PER_KWH, NANO_PER_USD, NS_PER_S, divide_half_even, nano_usd

NANO_KWH_PER_KWH = NANO_GRAMS_PER_GRAM = 1_000_000_000
UG_PER_GRAM = 1_000_000
METERED, METERED_HOURLY = "metered_energy", "metered_energy_hourly"


@dataclass(frozen=True)
class MachinePower:
    """What a machine draws beside the energy of its engines' steps.

    Parameters
    ----------
    accelerators : how many it has, at least 1.
    idle_w : of one accelerator whenever it does not step (booting, idle, draining, held by nobody).
    host_w : of everything but the accelerators, all the time.

    Notes
    -----
    An accelerator that boots draws its idle power: measured idle power is that of a loaded model, so boot energy is slightly high.
    """

    accelerators: int
    idle_w: float
    host_w: float

    def __post_init__(self) -> None:
        if self.accelerators < 1 or self.idle_w < 0 or self.host_w < 0:
            raise ValueError(f"a machine needs an accelerator and no negative power: {self}")

    def idle_j(self, accelerator_ns: float) -> float:
        """Return the energy of accelerators for this much accelerator time without a step."""
        return self.idle_w * accelerator_ns / NS_PER_S

    def host_j(self, accelerator_ns: float) -> float:
        """Return the host's energy that falls on this much accelerator time, an equal part for each accelerator.

        Examples
        --------
        >>> MachinePower(accelerators=8, idle_w=120.0, host_w=4_000.0).host_j(8 * NS_PER_S)
        4000.0
        """
        return self.host_w * accelerator_ns / NS_PER_S / self.accelerators


@dataclass(frozen=True)
class EnergyRate:
    """Price and carbon of a kWh at the meter at some time.

    Parameters
    ----------
    nano_usd_per_kwh : price, below 0 in an hour with too much power. nano_gco2_per_kwh : carbon intensity in 1e-9 grams.
    """

    nano_usd_per_kwh: int
    nano_gco2_per_kwh: int

    @property
    def usd_per_kwh(self) -> str:
        """The price as a decimal in text, exact.

        Examples
        --------
        >>> EnergyRate(80_000_000, 0).usd_per_kwh, EnergyRate(-3_362_237, 0).usd_per_kwh
        ('0.08', '-0.003362237')
        """
        return f"{(Decimal(self.nano_usd_per_kwh) / NANO_PER_USD).normalize():f}"

    @property
    def gco2_per_kwh(self) -> float:
        """The carbon intensity in grams per kWh."""
        return self.nano_gco2_per_kwh / NANO_GRAMS_PER_GRAM

    def cost_nano_usd(self, nano_kwh: int) -> int:
        """Return the price of metered energy in nano-dollars, half to even."""
        return divide_half_even(nano_kwh * self.nano_usd_per_kwh, NANO_KWH_PER_KWH)

    def carbon_ug(self, nano_kwh: int) -> int:
        """Return the carbon of metered energy in 1e-6 grams of CO2, half to even.

        Examples
        --------
        >>> EnergyRate(0, 400 * 10**9).carbon_ug(1_500_000_000)
        600000000
        """
        return divide_half_even(nano_kwh * self.nano_gco2_per_kwh, NANO_KWH_PER_KWH * NANO_GRAMS_PER_GRAM // UG_PER_GRAM)


@dataclass(frozen=True)
class Electricity:
    """Electricity of a place: losses, price and carbon.

    Parameters
    ----------
    pue : energy at the meter per energy at the machines, at least 1.
    price : in nano-dollars per kWh. carbon : in nanograms of CO2 per kWh. grid : name of the grid, for tables.
    """

    pue: float
    price: GridSeries
    carbon: GridSeries
    grid: str = ""

    def __post_init__(self) -> None:
        if not self.pue >= 1 or min(self.carbon.known) < 0:
            raise ValueError(f"PUE must be at least 1, carbon not negative: {self.grid} {self.pue} {min(self.carbon.known)}")

    @classmethod
    def steady(cls, pue: float, usd_per_kwh: str, gco2_per_kwh: float, source: str, confidence: str) -> Electricity:
        """Return electricity whose price and carbon never change.

        Parameters
        ----------
        usd_per_kwh : a decimal in text, exact to the nano-dollar. source, confidence : of price and carbon.
        """
        price = GridSeries.constant(nano_usd(usd_per_kwh), source, confidence)
        return cls(pue, price, GridSeries.constant(round(gco2_per_kwh * NANO_GRAMS_PER_GRAM), source, confidence))

    @property
    def tariff(self) -> str:
        """Name of the rule of its price, written on ledger rows: one price, or one for every hour."""
        return METERED if self.price.is_constant else METERED_HOURLY

    def nano_kwh(self, joules: float) -> int:
        """Return the metered energy of machines that drew `joules`, PUE included, in 1e-9 kWh.

        Examples
        --------
        >>> Electricity.steady(1.25, "0.10", 400.0, "scenario", "assumed").nano_kwh(3_600_000.0)
        1250000000
        """
        return round(joules * self.pue / JOULES_PER_KWH * NANO_KWH_PER_KWH)

    def rate(self, moment: datetime) -> EnergyRate:
        """Return price and carbon in force at a calendar instant."""
        return EnergyRate(self.price.at(moment), self.carbon.at(moment))

    def changes_ns(self, start: datetime, horizon_ns: int) -> Iterator[int]:
        """Yield the times inside a run at which price or carbon changes, in order, in nanoseconds since its start."""
        latest = 0
        for t_ns in heapq.merge(self.price.changes(start, horizon_ns), self.carbon.changes(start, horizon_ns)):
            if t_ns > latest:
                latest = t_ns
                yield t_ns
