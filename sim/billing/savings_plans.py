"""Plans of dollars an hour that are spent on use at lower rates, or lost; plans of one kind are applied together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from typing import Protocol

from sim.billing.coverage import PURCHASE, Place, Span, Unused, Use, cost_nano
from sim.billing.rates import Rate
from sim.units import NANO_PER_USD, NS_PER_HOUR, divide_half_even


class PlanRates(Protocol):
    """What a plan charges for a machine."""

    def __call__(self, place: Place) -> Rate | None:
        """Return the plan's rate for machines of a place, or None where it does not cover them."""


@dataclass(frozen=True)
class Plan:
    """Dollars an hour that are spent on use at the plan's rates, or lost.

    Parameters
    ----------
    nano_usd_per_hour : the commitment. rates : of the plan; None where it does not cover a place. purchase, tariff : how covered
        use is shown. upfront : share of the commitment that was paid up front.
    """

    name: str
    nano_usd_per_hour: int
    rates: PlanRates
    span: Span
    tariff: str
    source: str
    confidence: str
    purchase: str = "savings_plan"
    upfront: Fraction = Fraction(0)

    def promised_nano(self, start_ns: int, end_ns: int) -> int:
        """Return the commitment of [start_ns, end_ns)."""
        return divide_half_even(self.nano_usd_per_hour * self.span.within_ns(start_ns, end_ns), NS_PER_HOUR)

    def cash_nano(self, effective_nano: int) -> int:
        """Return what of an amount is still to be paid by the hour."""
        rest = 1 - self.upfront
        return divide_half_even(effective_nano * rest.numerator, rest.denominator)

    def cash_rate(self, rate: Rate) -> Rate:
        """Return a rate less what of it was paid up front."""
        if not self.upfront:
            return rate
        nano = self.cash_nano(rate.nano_usd_per_hour)
        source = f"{rate.source}; {float(self.upfront):.2%} of it paid up front"
        return replace(rate, nano_usd_per_hour=nano, usd_per_hour=f"{(Decimal(nano) / NANO_PER_USD).normalize():f}", source=source)

    def purchase_of(self, term_hours: int) -> Unused:
        """Return the charge of what is paid up front, on its day; nothing of it is the cost of that day."""
        whole_nano = self.nano_usd_per_hour * term_hours
        amount_nano = whole_nano - self.cash_nano(whole_nano)
        return Unused(
            self.name, "", self.purchase, self.tariff, Decimal(amount_nano) / NANO_PER_USD, "USD committed", "1 per USD committed",
            amount_nano, 0, amount_nano, self.source, self.confidence, (), "commitment", PURCHASE,
        )  # fmt: skip


@dataclass(frozen=True)
class Plans:
    """Plans of one kind: across all of them the use with the highest saving is paid first, by the plan that saves it.

    Notes
    -----
    Source: AWS Savings Plans user guide, how Savings Plans apply to usage: within each type all plans are applied together,
    whatever their term and payment. Read 2026-11-23.
    """

    plans: tuple[Plan, ...]

    def cover(self, start_ns: int, end_ns: int, uses: Sequence[Use]) -> list[Unused]:
        """Pay for what they cover of the use in the hour [start_ns, end_ns), and return what they have left, if they have any."""
        promised = [plan.promised_nano(start_ns, end_ns) for plan in self.plans]
        spent = [0] * len(self.plans)
        for use, number, rate in self._in_order(uses):
            plan, left_nano = self.plans[number], promised[number] - spent[number]
            length_ns, effective_nano = use.left_ns, cost_nano(rate, use.left_ns)
            if effective_nano > left_nano:
                length_ns = left_nano * NS_PER_HOUR // rate.nano_usd_per_hour
                effective_nano = cost_nano(rate, length_ns)
            if length_ns:
                before, spent[number] = spent[number], spent[number] + effective_nano
                amount_nano = plan.cash_nano(spent[number]) - plan.cash_nano(before)
                use.pay(length_ns, amount_nano, plan.cash_rate(rate), plan.purchase, plan.tariff, plan.name, effective_nano)
        return [
            _unused(plan, used_nano, paid_nano)
            for plan, used_nano, paid_nano in zip(self.plans, spent, promised, strict=True)
            if used_nano < paid_nano
        ]

    def _in_order(self, uses: Sequence[Use]) -> list[tuple[Use, int, Rate]]:
        """Return use and the plans that may pay for it: the highest saving in per cent, then the lowest rate, then by lease."""
        found: list[tuple[Fraction, int, int, int, Use, Rate]] = []
        for position, use in enumerate(uses):
            listed_nano = use.rate.nano_usd_per_hour
            for number, plan in enumerate(self.plans):
                rate = plan.rates(use.place) if use.left_ns and use.place.purchase == "on_demand" else None
                # A rate above the price of the day is never chosen: the use is cheaper on demand.
                if rate is not None and 0 < rate.nano_usd_per_hour < listed_nano:
                    share = Fraction(rate.nano_usd_per_hour, listed_nano)
                    found.append((share, rate.nano_usd_per_hour, position, number, use, rate))
        return [(use, number, rate) for _, _, _, number, use, rate in sorted(found, key=lambda item: item[:4])]


def _unused(plan: Plan, used_nano: int, promised_nano: int) -> Unused:
    effective_nano = promised_nano - used_nano
    amount_nano = plan.cash_nano(promised_nano) - plan.cash_nano(used_nano)
    price = f"{float(1 - plan.upfront):g} per USD committed"
    return Unused(
        plan.name, "", plan.purchase, plan.tariff, Decimal(effective_nano) / NANO_PER_USD, "USD committed", price, amount_nano,
        effective_nano, effective_nano, plan.source, plan.confidence,
    )  # fmt: skip
