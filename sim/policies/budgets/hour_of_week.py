"""The forecast that every hour to come is like the same hours of the last weeks."""

from __future__ import annotations

from math import lcm

from sim.errors import Problems
from sim.policies.budgets.base import MOST_WEEKS, Forecast, SpendView
from sim.policies.budgets.linear import Linear
from sim.registry import register
from sim.units import divide_half_even


@register("forecast", "hour_of_week")
class HourOfWeek(Forecast):
    """What was spent, and for every hour of the month to come the mean of the same hours of the week before.

    Weekends and nights are seen as such; a straight line would take a month that begins with a weekend for a cheap one. Until each
    hour of the week that is still to come was seen once, which takes a week, it is the forecast `linear`.

    Parameters
    ----------
    weeks : how many of the latest hours of a kind are averaged, 1 to 4.

    Examples
    --------
    >>> left, seen = (2, 3, *[0] * 166), ((10, 30), (4,), *[()] * 166)
    >>> view = SpendView(0, 10, 5, 100, 0, left, seen)
    >>> HourOfWeek(weeks=4).forecast_nano(view), HourOfWeek(weeks=1).forecast_nano(view)
    (152, 172)
    """

    weeks: int = MOST_WEEKS

    def forecast_nano(self, view: SpendView) -> int:
        """Return spent + sum over the hours of the week of (hours left) x (mean of the latest such hours), half to even."""
        coming = [(left, past[-self.weeks :]) for left, past in zip(view.hours_left, view.history, strict=True) if left]
        if not all(past for _, past in coming):
            return Linear().forecast_nano(view)
        # With one denominator the sum is exact, and rounded once.
        common = lcm(*range(1, MOST_WEEKS + 1))
        total = sum(left * sum(past) * (common // len(past)) for left, past in coming)
        return view.spent_nano + divide_half_even(total, common)

    def problems(self, path: str, problems: Problems) -> None:
        """Check the number of weeks."""
        problems.check(1 <= self.weeks <= MOST_WEEKS, f"{path}.weeks", self.weeks, "is out of range", f"1 to {MOST_WEEKS}")
