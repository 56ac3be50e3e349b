"""Machines that a pool owns, and blocks of capacity that it has paid in advance."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal

from sim.errors import Problems
from sim.scenario.commitments import BLOCK_DAYS, MOST_BLOCK_MACHINES, check_money
from sim.units import instant

OWNED, CAPACITY_BLOCK = "owned", "capacity_block"
# A month is 8,760 hours of a year over 12.
HOURS_PER_MONTH, HOURS_PER_YEAR = 730, 8_760
_NANO = Decimal("1e-9")
MOST_MONTHS = 240


@dataclass
class Owned:
    """What one machine of one's own costs each hour, used or not; electricity comes on top unless it stands in colocation.

    Parameters
    ----------
    capex_usd : its price, a decimal in text. network_share : of it, for switches and cables.
    residual_share : what it is still worth after `months`. months : in which it is written off.
    maintenance_share_per_year : of `capex_usd`. colocation_usd_per_kw_month : with electricity; "0" for none.
    max_power_kw : for which colocation is paid. staff_usd_per_hour : people, for one machine.

    Notes
    -----
    usd_per_h = capex (1 + network)(1 - residual)/(months 730) + capex maintenance/8760 + colocation max_power/730 + staff.

    Examples
    --------
    >>> server = Owned("350000", 0.12, 0.3, 36, 0.05)
    >>> server.usd_per_hour()  # 274,400 / 26,280 + 17,500 / 8,760
    Decimal('12.439117199')
    """

    capex_usd: str = ""
    network_share: float = 0.0
    residual_share: float = 0.0
    months: int = 36
    maintenance_share_per_year: float = 0.0
    colocation_usd_per_kw_month: str = "0"
    max_power_kw: float = 0.0
    staff_usd_per_hour: str = "0"

    @property
    def in_colocation(self) -> bool:
        """Whether electricity is in what colocation costs."""
        return Decimal(self.colocation_usd_per_kw_month) > 0

    def usd_per_hour(self) -> Decimal:
        """Return the price of one machine and hour, rounded half to even to the nano-dollar."""
        capex = Decimal(self.capex_usd)
        network, residual = Decimal(str(self.network_share)), Decimal(str(self.residual_share))
        written_off = capex * (1 + network) * (1 - residual) / (self.months * HOURS_PER_MONTH)
        maintained = capex * Decimal(str(self.maintenance_share_per_year)) / HOURS_PER_YEAR
        placed = Decimal(self.colocation_usd_per_kw_month) * Decimal(str(self.max_power_kw)) / HOURS_PER_MONTH
        return (written_off + maintained + placed + Decimal(self.staff_usd_per_hour)).quantize(_NANO, ROUND_HALF_EVEN)

    def problems(self, path: str, problems: Problems) -> None:
        """Add what is wrong with the settings."""
        check_money(f"{path}.capex_usd", self.capex_usd, problems, most=10**9)
        placed = check_money(f"{path}.colocation_usd_per_kw_month", self.colocation_usd_per_kw_month, problems, zero=True)
        check_money(f"{path}.staff_usd_per_hour", self.staff_usd_per_hour, problems, zero=True)
        for name, most in (("network_share", 10.0), ("residual_share", 1.0), ("maintenance_share_per_year", 10.0)):
            value = getattr(self, name)
            problems.check(0 <= value <= most, f"{path}.{name}", value, "is out of range", f"0 to {most:g}")
        problems.check(1 <= self.months <= MOST_MONTHS, f"{path}.months", self.months, "is out of range", f"1 to {MOST_MONTHS}")
        needed = placed and self.in_colocation
        message = "is what colocation is paid for"
        fine = 0 < self.max_power_kw <= 1_000 if needed else 0 <= self.max_power_kw <= 1_000
        problems.check(fine, f"{path}.max_power_kw", self.max_power_kw, message, f"{'above 0' if needed else '0'} to 1000")


@dataclass
class Block:
    """An EC2 Capacity Block: machines for whole days, paid as a whole when it begins.

    Parameters
    ----------
    begins : calendar instant. days : 1 to 14, then whole weeks up to 182. usd_per_hour : of one machine, as it was bought.
    """

    begins: str = ""
    days: int = 1
    usd_per_hour: str = ""

    def problems(self, path: str, start: str, machines: int | None, problems: Problems) -> None:
        """Add what is wrong with the settings.

        Parameters
        ----------
        start : of the scenario. machines : quota of the pool.
        """
        check_money(f"{path}.usd_per_hour", self.usd_per_hour, problems)
        lengths = "1 to 14, or whole weeks up to 182"
        problems.check(self.days in BLOCK_DAYS, f"{path}.days", self.days, "is no length of a block", lengths)
        few = machines is not None and 1 <= machines <= MOST_BLOCK_MACHINES
        where = path.rpartition(".")[0] + ".quota_nodes"
        problems.check(few, where, machines, "is not the size of a block", f"1 to {MOST_BLOCK_MACHINES}")
        try:
            begins = instant(self.begins)
            message = "is before the run: its price would not be on the bill"
            problems.check(begins >= instant(start), f"{path}.begins", self.begins, message, f"{start} or later")
        except (ValueError, OverflowError):
            problems.add(f"{path}.begins", self.begins, "is not a calendar instant", "ISO 8601, for instance 2026-09-15T06:00:00Z")
