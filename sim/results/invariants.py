"""What must hold in every finished run: nothing lost, nothing counted twice, every cent explained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sim.errors import RunError
from sim.results.records import RunResult
from sim.units import NANO_PER_USD

# Each query returns the offenders; an empty answer is a law kept.
_LAWS: tuple[tuple[str, str], ...] = (
    (
        "requests in = completed + failed + abandoned + rejected + those still in the system, at the end of every window",
        """SELECT stream, end_ns, arrived_so_far, left_so_far, in_flight_end FROM (
            SELECT stream, end_ns, in_flight_end, sum(arrived) OVER so_far AS arrived_so_far, sum(total) OVER so_far AS left_so_far
            FROM windows WINDOW so_far AS (PARTITION BY stream ORDER BY start_ns)
        ) WHERE arrived_so_far <> left_so_far + in_flight_end""",
    ),
    (
        "total = completed + failed + abandoned + rejected, and no more are good than completed",
        """SELECT stream, start_ns, total, completed, failed, abandoned, rejected, good_ttft, good_tpot, good_e2e, good_all
        FROM windows WHERE total <> completed + failed + abandoned + rejected
            OR greatest(good_ttft, good_tpot, good_e2e) > completed
            OR good_all > least(good_ttft, good_tpot, good_e2e) OR tpot_count > completed""",
    ),
    (
        "requests are throttled by a decision only, and count as rejected",
        """SELECT stream, start_ns, rejected, throttled FROM windows WHERE throttled > rejected OR throttled > 0 AND NOT EXISTS (
            SELECT 1 FROM traffic WHERE traffic.stream = windows.stream AND time_ns <= windows.end_ns AND admitted < 1
        )""",
    ),
    (
        "a request that was not good has one cause, but for those that were too long",
        """SELECT stream, start_ns, total - good_all AS not_good, causes, rejected FROM (
            SELECT *, missed_retried + missed_preempted + missed_kv_full + missed_queued + missed_slow + throttled AS causes
            FROM windows
        ) WHERE causes > total - good_all OR causes < total - good_all - rejected""",
    ),
    (
        "windows of a stream follow each other without gaps",
        """SELECT stream, start_ns, end_ns, next_ns FROM (
            SELECT stream, start_ns, end_ns, lead(start_ns) OVER (PARTITION BY stream ORDER BY start_ns) AS next_ns FROM windows
        ) WHERE end_ns <= start_ns OR next_ns <> end_ns""",
    ),
    (
        "histogram counts = completions of the measured windows",
        """WITH counts AS (SELECT stream, latency, sum(count) AS binned FROM histograms GROUP BY ALL),
        completions AS (
            SELECT stream, sum(completed) AS completed, sum(tpot_count) AS with_tpot FROM windows WHERE measured GROUP BY stream
        ), expected AS (SELECT * FROM completions CROSS JOIN (VALUES ('ttft'), ('tpot'), ('e2e')) AS latencies(latency))
        SELECT stream, latency, coalesce(binned, 0) AS binned, completed, with_tpot
        FROM expected LEFT JOIN counts USING (stream, latency)
        WHERE coalesce(binned, 0) <> CASE latency WHEN 'tpot' THEN with_tpot ELSE completed END""",
    ),
    (
        "the parts of a ledger row equal it exactly",
        """SELECT row, amount_nano_usd AS amount, coalesce(parts, 0) AS parts, effective_nano_usd, effective FROM ledger FULL JOIN
            (SELECT row, sum(amount_nano_usd) AS parts, sum(effective_nano_usd) AS effective FROM attribution GROUP BY row)
            USING (row)
        WHERE amount_nano_usd IS NULL OR amount_nano_usd <> coalesce(parts, 0)
            OR effective_nano_usd <> coalesce(effective, 0)""",
    ),
    (
        "a lease's amount = the sum of its ledger rows, and its billed time that of its machine rows",
        """SELECT lease, amount_nano_usd AS amount, coalesce(booked, 0) AS booked, billed_ns, coalesce(booked_ns, 0) AS booked_ns
        FROM leases FULL JOIN (
            SELECT lease, sum(amount_nano_usd) AS booked, sum(end_ns - start_ns) FILTER (unit = 'instance-second') AS booked_ns
            FROM ledger WHERE lease >= 0 GROUP BY lease
        ) USING (lease)
        WHERE amount_nano_usd IS NULL OR amount_nano_usd <> coalesce(booked, 0) OR billed_ns <> coalesce(booked_ns, 0)""",
    ),
    (
        "machine rows of a lease follow each other from its start without gaps",
        """SELECT row, lease, start_ns, expected_ns FROM (
            SELECT row, lease, ledger.start_ns, coalesce(lag(ledger.end_ns) OVER (PARTITION BY lease ORDER BY row), leases.start_ns)
                AS expected_ns FROM ledger JOIN leases USING (lease) WHERE unit = 'instance-second'
        ) WHERE start_ns <> expected_ns""",
    ),
    (
        "booting + ready + draining = the length of a slice, and busy time lies in ready and draining time",
        """SELECT * FROM usage WHERE booting_ns + ready_ns + draining_ns <> end_ns - start_ns OR draining_busy_ns > draining_ns
            OR busy_ns - draining_busy_ns > ready_ns OR least(booting_ns, ready_ns, draining_ns, busy_ns, draining_busy_ns) < 0""",
    ),
    (
        "slices lie in the life of their lease",
        """SELECT usage.* FROM usage LEFT JOIN leases USING (lease)
        WHERE leases.lease IS NULL OR usage.start_ns < leases.start_ns OR usage.end_ns > leases.end_ns""",
    ),
    (
        "a replica's busy time = that of its slices, on each of its leases",
        """SELECT replica, lease, busy_s, coalesce(sliced_s, 0) AS sliced_s FROM replicas LEFT JOIN (
            SELECT replica, lease, sum(busy_ns) / 1e9 AS sliced_s FROM usage GROUP BY replica, lease
        ) USING (replica)
        WHERE abs(busy_s - coalesce(sliced_s, 0)) > 1e-9 * greatest(busy_s, 1)""",
    ),
    (
        "replicas never hold more accelerators of a lease than it has",
        """WITH steps AS (
            SELECT lease, start_ns AS t_ns, accelerators AS change FROM usage
            UNION ALL SELECT lease, end_ns, -accelerators FROM usage
        ), held AS (
            SELECT lease, t_ns, sum(change) OVER so_far AS held FROM steps
            WINDOW so_far AS (PARTITION BY lease ORDER BY t_ns, change ROWS UNBOUNDED PRECEDING)
        )
        SELECT lease, t_ns, held, accelerators FROM held JOIN leases USING (lease) WHERE held > accelerators""",
    ),
    (
        "no month has more active users than the run, nor the run more than there are clients",
        """SELECT months.* FROM active_users AS months JOIN active_users AS run USING (service, stream)
        WHERE run.month = '' AND (months.users > run.users OR run.users > run.clients)""",
    ),
    (
        "the windows' cost = the parts of the ledger that streams pay",
        """SELECT stream, cost, parts FROM (SELECT stream, sum(cost_nano_usd) AS cost FROM windows GROUP BY stream) FULL JOIN
            (SELECT stream, sum(amount_nano_usd) AS parts FROM attribution WHERE stream >= 0 GROUP BY stream) USING (stream)
        WHERE coalesce(cost, 0) <> coalesce(parts, 0)""",
    ),
    (
        "the parts of a lease's energy equal it exactly: kWh to 1e-9, price and carbon",
        """SELECT lease, energy_kwh, kwh, electricity_nano_usd, usd, kgco2, carbon_ug FROM leases FULL JOIN (
            SELECT lease, sum(nano_kwh) AS kwh, sum(electricity_nano_usd) AS usd, sum(carbon_ug) AS carbon_ug
            FROM energy GROUP BY lease
        ) USING (lease)
        WHERE energy_kwh IS NULL OR round(energy_kwh * 1e9)::BIGINT <> coalesce(kwh, 0) OR electricity_nano_usd <> coalesce(usd, 0)
            OR round(kgco2 * 1e9)::BIGINT <> coalesce(carbon_ug, 0)""",
    ),
    (
        "where energy is billed, the bill has the same kWh and dollars as the energy, stream by stream",
        """WITH billed AS (
            SELECT lease, stream, sum(attribution.amount_nano_usd) AS usd
            FROM attribution JOIN ledger USING (row) WHERE unit = 'kWh' GROUP BY ALL
        ), drawn AS (
            SELECT lease, stream, sum(electricity_nano_usd) AS usd FROM energy
            WHERE pool IN (SELECT pool FROM ledger WHERE unit = 'kWh') GROUP BY ALL
        ) SELECT lease, stream, billed.usd AS billed, drawn.usd AS drawn FROM billed FULL JOIN drawn USING (lease, stream)
        WHERE coalesce(billed.usd, 0) <> coalesce(drawn.usd, 0)""",
    ),
)
_SHOWN = 5


def check_run(result: RunResult) -> None:
    """Check every conservation law of a finished run: requests, machine time, money.

    Raises
    ------
    RunError : a law is broken; the message holds every broken law with the first offending rows.
    """
    broken = []
    for law, query in _LAWS:
        columns = result.sql(query)
        rows = list(zip(*columns.values(), strict=True))
        if rows:
            shown = [", ".join(f"{name}={value}" for name, value in zip(columns, row, strict=True)) for row in rows[:_SHOWN]]
            broken.append(f"broken: {law} ({len(rows)} rows)\n  " + "\n  ".join(shown))
    broken += _broken_sums(result)
    if broken:
        raise RunError("\n".join(broken))


def _broken_sums(result: RunResult) -> list[str]:
    """Compare the sums of the summary, where there is one, with each other and with the ledger."""
    bill = result.summary.get("bill")
    if bill is None:
        return []
    return _broken_bill(result, bill) + _broken_energy(result.summary["energy"])


def _broken_energy(energy: Mapping[str, Any]) -> list[str]:
    """Compare every `by_*` of the energy with its total, to 1e-9 kWh, nano-dollars and 1e-9 kg."""
    return [
        f"broken: energy.{name} adds up to {parts} x 1e-9 {unit}, the total is {whole}"
        for name, found in energy.items()
        if name.startswith("by_")
        for unit in ("kwh", "usd", "kgco2")
        if (parts := sum(round(part[unit] * 1e9) for part in found.values())) != (whole := round(energy[unit] * 1e9))
    ]


def _broken_bill(result: RunResult, bill: Mapping[str, Any]) -> list[str]:
    """Compare the bill with the ledger to the nano-dollar."""
    booked = int(result.sql("SELECT coalesce(sum(amount_nano_usd), 0) AS booked FROM ledger")["booked"][0])
    shown = {"total_usd": [bill["total_usd"]], **{name: list(bill[name].values()) for name in bill if name.startswith("by_")}}
    sums = {name: sum(round(amount * NANO_PER_USD) for amount in amounts) for name, amounts in shown.items()}
    wrong = {name: total for name, total in sums.items() if total != booked}
    return [f"broken: bill.{name} adds up to {total} nano-USD, the ledger to {booked}" for name, total in wrong.items()]
