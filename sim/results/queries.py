"""Questions to the tables of a run in SQL: five to begin with, for `RunResult.sql`, or for any DuckDB over the result folder."""

from __future__ import annotations

from typing import Any

from sim.errors import InputError, Problem, nearest_name
from sim.results.records import RunResult

QUERIES: dict[str, str] = {
    # What an hour of the day costs, on the days on which something was charged in it.
    "hour_of_day": """
SELECT substr(local_hour, 12, 2) AS hour_of_day, count(DISTINCT left(local_hour, 10)) AS days,
    round(sum(amount_nano_usd) / 1e9, 2) AS usd,
    round(sum(amount_nano_usd) / 1e9 / count(DISTINCT left(local_hour, 10)), 4) AS usd_a_day
FROM ledger GROUP BY hour_of_day ORDER BY hour_of_day
""",
    # The ten dearest hours, how many machines ran in them, and what of their cost was not for work.
    "dearest_hours": """
WITH hours AS (
    SELECT local_hour, count(DISTINCT lease) FILTER (lease >= 0) AS machines, sum(amount_nano_usd) AS amount
    FROM ledger GROUP BY local_hour
), overheads AS (
    SELECT local_hour, sum(attribution.amount_nano_usd) AS amount
    FROM attribution JOIN ledger USING (row) WHERE use <> 'busy' GROUP BY local_hour
)
SELECT local_hour, machines, round(hours.amount / 1e9, 4) AS usd, round(coalesce(overheads.amount, 0) / 1e9, 4) AS not_busy_usd
FROM hours LEFT JOIN overheads USING (local_hour) ORDER BY hours.amount DESC, local_hour LIMIT 10
""",
    # What stood idle, by the deployment that held it.
    "idle_by_deployment": """
SELECT CASE deployment WHEN '' THEN '(no replica)' ELSE deployment END AS holder,
    round(coalesce(sum(amount_nano_usd) FILTER (use = 'idle'), 0) / 1e9, 4) AS idle_usd,
    round(sum(amount_nano_usd) / 1e9, 2) AS usd,
    round(100 * coalesce(sum(amount_nano_usd) FILTER (use = 'idle'), 0) / sum(amount_nano_usd), 3) AS idle_percent
FROM attribution GROUP BY holder ORDER BY idle_usd DESC, holder
""",
    # What a million output tokens cost, overheads and prompts included. A window is of the day of the latest charge before its end.
    "output_tokens": """
WITH days AS (
    SELECT left(local_hour, 10) AS day, min(start_ns) AS from_ns FROM ledger GROUP BY day
), made AS (
    SELECT day, service, segment, sum(output_tokens) AS output_tokens
    FROM windows ASOF JOIN days ON windows.end_ns > days.from_ns GROUP BY ALL
), paid AS (
    SELECT left(local_hour, 10) AS day, service, segment, sum(attribution.amount_nano_usd) AS amount
    FROM attribution JOIN ledger USING (row) WHERE stream >= 0 GROUP BY ALL
)
SELECT day, service, segment, output_tokens, round(coalesce(amount, 0) / 1e9, 2) AS usd,
    round(coalesce(amount, 0) / 1e3 / nullif(output_tokens, 0), 4) AS usd_per_1m_output_tokens
FROM made LEFT JOIN paid USING (day, service, segment) ORDER BY day, service, segment
""",
    # What spot machines cost, and what their hours would have cost at the mean on-demand price that the run paid for the same type.
    "spot_savings": """
WITH paid AS (
    SELECT month, instance, ledger.purchase AS purchase, sum(ledger.end_ns - ledger.start_ns) / 3.6e12 AS hours,
        sum(ledger.amount_nano_usd) AS amount
    FROM ledger JOIN leases USING (lease) WHERE unit = 'instance-second' GROUP BY ALL
), on_demand AS (
    SELECT instance, sum(amount) / sum(hours) AS per_hour FROM paid WHERE purchase = 'on_demand' GROUP BY instance
)
SELECT month, instance, round(hours, 2) AS spot_h, round(amount / 1e9, 2) AS spot_usd,
    round(hours * per_hour / 1e9, 2) AS on_demand_usd, round((hours * per_hour - amount) / 1e9, 2) AS saved_usd,
    round(100 * (1 - amount / (hours * per_hour)), 1) AS percent
FROM paid LEFT JOIN on_demand USING (instance) WHERE purchase = 'spot' ORDER BY month, instance
""",
}


def answer(result: RunResult, name: str) -> list[dict[str, Any]]:
    """Return the answer to one of `QUERIES` as a row each; None is a missing number.

    Raises
    ------
    InputError : there is no such query.
    """
    if name not in QUERIES:
        raise InputError([Problem("--query", name, "is not a query", ", ".join(QUERIES), nearest_name(name, QUERIES))])
    columns = {column: values.tolist() for column, values in result.sql(QUERIES[name]).items()}
    rows = (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
    # A missing number is NaN in an array of numbers, and the only value that is not itself.
    return [{column: value if value == value else None for column, value in row.items()} for row in rows]
