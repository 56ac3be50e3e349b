"""Sustained use: a machine type gets cheaper with the part of a month that it is used.

Machines of a type in a region count as if they were used one after another wherever they do not overlap: at every moment the first
running machine adds to the first of these *inferred* machines, the second to the second, and so on. Each of them pays the share of
its tier of the month for what is left to pay after commitments.
Source: Google Compute Engine, sustained use discounts; known text of the page, 2026-11-23. Google counts months in Pacific time;
here they are those of the account.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise

from sim.billing.coverage import Use, cost_nano
from sim.billing.rates import Rate
from sim.domain.pricing import SustainedUse
from sim.units import NANO_PER_USD, divide_half_even

SUSTAINED = "sustained_use"


class SustainedUseDiscounts:
    """Keeps how long the inferred machines of every type ran in the month; its memory is bounded by the machines at one time.

    Parameters
    ----------
    rows : of the catalog, by family.
    """

    def __init__(self, rows: Mapping[str, SustainedUse]) -> None:
        self.rows = rows
        self._month = ""
        self._used_ns: dict[tuple[str, str], list[int]] = {}

    def cover(self, month: str, month_ns: int, uses: Sequence[Use]) -> None:
        """Pay for everything that is left of the use of these families.

        Parameters
        ----------
        month : of the hour. month_ns : its length. uses : of one hour.
        """
        if month != self._month:
            self._month, self._used_ns = month, {}
        groups: dict[tuple[str, str], list[Use]] = {}
        for use in uses:
            if use.left_ns and use.place.purchase == "on_demand" and use.place.family in self.rows:
                groups.setdefault((use.place.instance, use.place.region), []).append(use)
        for key, found in groups.items():
            tiers = self.rows[found[0].place.family].tiers
            self._pay(self._used_ns.setdefault(key, []), month_ns, tiers, found)

    def _pay(self, used_ns: list[int], month_ns: int, tiers: Sequence[float], uses: Sequence[Use]) -> None:
        """Share the time of each moment out to the inferred machines, and pay by the tiers it falls into."""
        left = [(use.end_ns - use.left_ns, use.end_ns) for use in uses]
        by_tier = [[0] * len(tiers) for _ in uses]
        for begin_ns, finish_ns in pairwise(sorted({edge for span in left for edge in span})):
            running = [index for index, (start_ns, end_ns) in enumerate(left) if start_ns <= begin_ns and finish_ns <= end_ns]
            used_ns += [0] * (len(running) - len(used_ns))
            for rank, index in enumerate(running):
                for tier, length_ns in _split(used_ns[rank], finish_ns - begin_ns, month_ns, len(tiers)):
                    by_tier[index][tier] += length_ns
                used_ns[rank] += finish_ns - begin_ns
        for use, lengths_ns in zip(uses, by_tier, strict=True):
            for share, length_ns in zip(tiers, lengths_ns, strict=True):
                if length_ns:
                    rate = _discounted(use.rate, share)
                    use.pay(length_ns, cost_nano(rate, length_ns), rate, "on_demand", use.tariff if share == 1 else SUSTAINED)


def _split(used_ns: int, length_ns: int, month_ns: int, tiers: int) -> list[tuple[int, int]]:
    """Return (tier, time) of time that follows `used_ns` of a month; the last tier has no end.

    Examples
    --------
    >>> _split(20, 10, 100, 4), _split(90, 30, 100, 4)
    ([(0, 5), (1, 5)], [(3, 30)])
    """
    found = []
    while length_ns:
        tier = min(used_ns * tiers // month_ns, tiers - 1)
        end_ns = -(-(tier + 1) * month_ns // tiers)
        part_ns = length_ns if tier == tiers - 1 else min(length_ns, end_ns - used_ns)
        found.append((tier, part_ns))
        used_ns, length_ns = used_ns + part_ns, length_ns - part_ns
    return found


def _discounted(rate: Rate, share: float) -> Rate:
    """Return a price times a share, to the nano-dollar."""
    if share == 1:
        return rate
    exact = Decimal(str(share)).as_integer_ratio()
    nano = divide_half_even(rate.nano_usd_per_hour * exact[0], exact[1])
    text = f"{Decimal(nano) / NANO_PER_USD:f}"
    return replace(rate, nano_usd_per_hour=nano, usd_per_hour=text, source=f"{rate.source}; sustained use {share:g}")
