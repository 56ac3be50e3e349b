"""Energy of machines: what they draw, what it costs, and the carbon in it."""

from __future__ import annotations

from dataclasses import dataclass

from sim.units import JOULES_PER_KWH, NS_PER_S, divide_half_even, nano_usd

NANO_KWH_PER_KWH = 1_000_000_000


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
class Electricity:
    """Electricity of a place: losses, price and carbon.

    Parameters
    ----------
    pue : energy at the meter per energy at the machines, at least 1.
    usd_per_kwh : a decimal in text, exact to the nano-dollar. gco2_per_kwh : grams of CO2 per kWh.
    source, confidence : of the price.
    """

    pue: float
    usd_per_kwh: str
    gco2_per_kwh: float
    source: str
    confidence: str

    def __post_init__(self) -> None:
        if not self.pue >= 1 or not self.gco2_per_kwh >= 0 or nano_usd(self.usd_per_kwh) < 0:
            raise ValueError(f"PUE must be at least 1, price and carbon not negative: {self}")

    def nano_kwh(self, joules: float) -> int:
        """Return the metered energy of machines that drew `joules`, PUE included, in 1e-9 kWh.

        Examples
        --------
        >>> Electricity(1.25, "0.10", 400.0, "scenario", "assumed").nano_kwh(3_600_000.0)
        1250000000
        """
        return round(joules * self.pue / JOULES_PER_KWH * NANO_KWH_PER_KWH)

    def cost_nano_usd(self, nano_kwh: int) -> int:
        """Return the price of metered energy in nano-dollars, half to even."""
        return divide_half_even(nano_kwh * nano_usd(self.usd_per_kwh), NANO_KWH_PER_KWH)

    def kgco2(self, nano_kwh: int) -> float:
        """Return the carbon of metered energy in kg of CO2."""
        return nano_kwh / NANO_KWH_PER_KWH * self.gco2_per_kwh / 1_000
