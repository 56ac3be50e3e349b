"""Machines that are paid for every hour, whatever runs: reserved, committed, prepaid, or one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from sim.billing.coverage import MACHINE_UNIT, PURCHASE, Prepaid, Span, Unused, Use, cost_nano
from sim.billing.rates import Rate, rate_at
from sim.domain.pricing import LINUX
from sim.units import NANO_PER_USD, NS_PER_HOUR, NS_PER_S, divide_half_even


@dataclass(frozen=True)
class Machines:
    """Machines that are paid for every hour: reserved, committed or one's own.

    The charge of an hour is `count` machines at `rate`, whatever runs; covered use and what is unused add up to it exactly. So they
    do to the hour's share of what was paid up front.

    Parameters
    ----------
    name : of the commitment. pool : covers only this pool; "" covers every pool in `region` of the types that it covers.
    zone : covers only this zone; "" covers all. count : machines. rate : of one, per hour, beside what was paid up front.
    purchase, tariff : how covered use is shown. deployments : that pay for what is unused; none leaves it to the account.
    listed : on-demand prices of one, oldest first; none where they are not known. prepaid : of all together.
    sizes : units of the types that it covers, with `instance`; none covers that type alone. smallest_first : use is covered from
        the smallest size on; else in the order of the leases.

    Notes
    -----
    Reserved machines are of Linux and cover no other operating system, whose prices are its own.
    Source of flexible sizes: Amazon EC2 user guide, how reserved instances are applied: normalized units, from the smallest size to
    the largest; Azure, instance size flexibility: ratios within a group.
    """

    name: str
    pool: str
    instance: str
    region: str
    zone: str
    count: int
    rate: Rate
    span: Span
    purchase: str
    tariff: str
    deployments: tuple[str, ...] = ()
    listed: tuple[Rate, ...] = ()
    prepaid: Prepaid | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    smallest_first: bool = False

    @property
    def commitment(self) -> str:
        """Name of the commitment, "" where it is the machines of a pool."""
        return "" if self.pool else self.name

    def units(self, instance: str) -> int:
        """Return the units of a machine of a type; 0 where it is not covered."""
        return self.sizes.get(instance, 0) if self.sizes else int(instance == self.instance)

    def covers(self, use: Use) -> bool:
        """Whether it may pay for this use."""
        place = use.place
        if self.pool:
            return place.pool == self.pool
        same = place.purchase == "on_demand" and place.region == self.region and self.units(place.instance) > 0
        return same and self.zone in ("", use.zone) and place.operating_system == LINUX

    def cover(self, start_ns: int, end_ns: int, uses: Sequence[Use]) -> list[Unused]:
        """Pay for what it covers of the use in the hour [start_ns, end_ns), and return what it has left, if it has any."""
        own = self.units(self.instance)
        paid_unit_ns = own * self.count * self.span.within_ns(start_ns, end_ns)
        share_nano = self._share_nano(start_ns, end_ns)
        done_unit_ns = booked_nano = spread_nano = 0
        for use in self._in_order(uses):
            units = self.units(use.place.instance)
            length_ns = min(use.left_ns, (paid_unit_ns - done_unit_ns) // units)
            if length_ns > 0:
                done_unit_ns += length_ns * units
                # Differences of rounded sums, so that the rows of an hour never add up to more than its charge.
                amount_nano = self._cost_nano(done_unit_ns) - booked_nano
                part_nano = divide_half_even(share_nano * done_unit_ns, paid_unit_ns) - spread_nano
                booked_nano, spread_nano = booked_nano + amount_nano, spread_nano + part_nano
                rate = self._rate_of(units)
                use.pay(length_ns, amount_nano, rate, self.purchase, self.tariff, self.commitment, amount_nano + part_nano)
        amount_nano, part_nano = self._cost_nano(paid_unit_ns) - booked_nano, share_nano - spread_nano
        if not (amount_nano or part_nano):
            return []
        left_ns = (paid_unit_ns - done_unit_ns) // own
        # What is left of an hour is at no time of it, so it has the list price of the hour's start.
        list_nano = cost_nano(rate_at(self.listed, start_ns), left_ns) if self.listed else amount_nano + part_nano
        return [
            Unused(
                self.name, self.pool, self.purchase, self.tariff, Decimal(left_ns) / NS_PER_S, MACHINE_UNIT,
                f"{self.rate.usd_per_hour} per hour", amount_nano, amount_nano + part_nano, list_nano, self.rate.source,
                self.rate.confidence, self.deployments,
            )
        ]  # fmt: skip

    def purchase_of(self, prepaid: Prepaid) -> Unused:
        """Return the charge of what is paid up front, on its day; nothing of it is the cost of that day."""
        usd = Decimal(prepaid.amount_nano) / self.count / NANO_PER_USD
        price = f"{usd.normalize():f} per reservation"
        return Unused(
            self.name, self.pool, self.purchase, self.tariff, Decimal(self.count), "reservation", price, prepaid.amount_nano, 0,
            prepaid.amount_nano, self.rate.source, self.rate.confidence, (), "commitment", PURCHASE,
        )  # fmt: skip

    def _in_order(self, uses: Sequence[Use]) -> list[Use]:
        found = [use for use in uses if self.covers(use)]
        return sorted(found, key=lambda use: self.units(use.place.instance)) if self.smallest_first else found

    def _share_nano(self, start_ns: int, end_ns: int) -> int:
        """Return the share of an hour in what was paid up front; none before and after the commitment's time."""
        if self.prepaid is None or not self.span.within_ns(start_ns, end_ns):
            return 0
        first_ns = start_ns if self.span.begins_ns is None else max(start_ns, self.span.begins_ns)
        last_ns = end_ns if self.span.ends_ns is None else min(end_ns, self.span.ends_ns)
        return self.prepaid.share_nano(first_ns, last_ns)

    def _cost_nano(self, unit_ns: int) -> int:
        return divide_half_even(self.rate.nano_usd_per_hour * unit_ns, NS_PER_HOUR * self.units(self.instance))

    def _rate_of(self, units: int) -> Rate:
        """Return the rate of a machine of another size: in proportion to its units."""
        own = self.units(self.instance)
        if units == own:
            return self.rate
        nano = divide_half_even(self.rate.nano_usd_per_hour * units, own)
        text = f"{(Decimal(nano) / NANO_PER_USD).normalize():f}"
        source = f"{self.rate.source}; {units / own:g} of a reserved {self.instance}"
        return Rate(0, nano, text, source, self.rate.confidence)
