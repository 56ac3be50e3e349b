"""The months of the account, in which the bill is kept, as a table that the other tables can be joined with."""

from __future__ import annotations

from sim.results.periods import Calendar, Period, periods
from sim.results.records import RunResult
from sim.results.spool import quoted


def account_months(result: RunResult) -> tuple[Period, ...]:
    """Return the calendar months of a run in the account's zone, in order."""
    calendar = Calendar.of(result.manifest["scenario"])
    return periods(calendar.start, calendar.horizon_ns, calendar.account_zone, "month")


def months_sql(result: RunResult) -> str:
    """Return a SQL table with the columns `month`, `from_ns` and `to_ns` of the account's months.

    A reporting window is of the month in which it begins. Windows are cut at the months of each service, so where service and
    account share a zone none lies in two; elsewhere windows of an hour do not, either, but for zones half an hour apart.
    """
    rows = ", ".join(f"({quoted(month.label)}, {month.start_ns}, {month.end_ns})" for month in account_months(result))
    return f"(VALUES {rows}) AS months(month, from_ns, to_ns)"
