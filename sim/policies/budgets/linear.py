"""The forecast that the rest of the month goes on as it has gone so far."""

from __future__ import annotations

from sim.policies.budgets.base import Forecast, SpendView
from sim.registry import register
from sim.units import divide_half_even


@register("forecast", "linear")
class Linear(Forecast):
    """Month to date in a straight line: what was spent, and as much an hour for the rest of the month as since it began.

    Examples
    --------
    Ten of thirty hours, 2 of them spent at 1 dollar an hour before the run began to be seen, 4 dollars since:

    >>> view = SpendView(-2, 28, 8, 6 * 10**9, 2 * 10**9, (), ())
    >>> Linear().forecast_nano(view)
    16000000000
    """

    def forecast_nano(self, view: SpendView) -> int:
        """Return spent + (spent in the run) x (time left) / (time seen), half to even."""
        seen_nano = view.spent_nano - view.before_nano
        return view.spent_nano + divide_half_even(seen_nano * (view.month_end_ns - view.known_to_ns), view.seen_ns)
