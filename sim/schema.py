"""Every table a run writes: its columns with type, unit and meaning, and the order of its rows."""

from __future__ import annotations

from dataclasses import dataclass

SCHEMA_VERSION = 3


@dataclass(frozen=True)
class Column:
    """One column of a table; `type` is a DuckDB type, `unit` is "" for names and counts."""

    name: str
    type: str
    unit: str
    meaning: str


@dataclass(frozen=True)
class Table:
    """One table: what a row is, its columns, and the columns that order its rows."""

    name: str
    row: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]


def _columns(*rows: tuple[str, str, str, str]) -> tuple[Column, ...]:
    return tuple(Column(*row) for row in rows)


_QUANTILES = _columns(
    *(
        (f"{latency}_{name}_s", "DOUBLE", "s", f"{meaning}, {name} of the window's completions")
        for latency, meaning in (
            ("ttft", "time to first token"),
            ("tpot", "time per output token after the first"),
            ("e2e", "end to end"),
        )
        for name in ("mean", "p50", "p90", "p95", "p99")
    )
)

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        Table(
            "windows",
            "one stream in one reporting interval; a request belongs to the window in which it leaves",
            ("start_ns", "stream"),
            _columns(
                ("start_ns", "BIGINT", "ns", "start of the window, exclusive (its events are of the window before)"),
                ("end_ns", "BIGINT", "ns", "end of the window, inclusive"),
                ("measured", "BOOLEAN", "", "after the warm-up, so counted in summaries"),
                ("stream", "INTEGER", "", "stream number"),
                ("service", "VARCHAR", "", "service"),
                ("segment", "VARCHAR", "", "segment of the service's users"),
                ("arrived", "BIGINT", "requests", "arrivals"),
                ("completed", "BIGINT", "requests", "completions"),
                ("failed", "BIGINT", "requests", "out of attempts after kills"),
                ("abandoned", "BIGINT", "requests", "queue timeout before the first admission"),
                ("rejected", "BIGINT", "requests", "turned away: queue full or too long"),
                ("retried", "BIGINT", "requests", "attempts started again after a kill"),
                ("preempted", "BIGINT", "requests", "recompute preemptions for lack of KV"),
                ("prompt_tokens", "BIGINT", "tokens", "prompt tokens of completed requests"),
                ("output_tokens", "BIGINT", "tokens", "output tokens of completed requests"),
                ("items", "BIGINT", "items", "items of completed requests, of a service behind a batcher; it has no tokens"),
                ("total", "BIGINT", "requests", "left in any way: completed, failed, abandoned or rejected"),
                ("tpot_count", "BIGINT", "requests", "completions of two output tokens or more, which have a TPOT"),
                ("good_ttft", "BIGINT", "requests", "completed within the TTFT target"),
                ("good_tpot", "BIGINT", "requests", "completed within the TPOT target (single tokens included)"),
                ("good_e2e", "BIGINT", "requests", "completed within the E2E target"),
                ("good_all", "BIGINT", "requests", "completed within all targets"),
                ("missed_retried", "BIGINT", "requests", "not good (too long ones aside): an attempt of theirs was killed"),
                ("missed_preempted", "BIGINT", "requests", "not good, none of the above: preempted for lack of KV"),
                ("missed_kv_full", "BIGINT", "requests", "not good, none of the above: waited because their KV did not fit"),
                ("missed_queued", "BIGINT", "requests", "not good, none of the above: waited because no replica had room"),
                ("missed_slow", "BIGINT", "requests", "not good, none of the above: the load on their replica"),
                ("queued_mean", "DOUBLE", "requests", "time mean of waiting requests"),
                ("in_flight_mean", "DOUBLE", "requests", "time mean of requests in the system"),
                ("in_flight_end", "BIGINT", "requests", "requests in the system at the end of the window"),
                ("replicas_mean", "DOUBLE", "replicas", "time mean of admitting replicas that accept the stream"),
                ("busy_s", "DOUBLE", "s", "replica time charged to the stream"),
                ("energy_j", "DOUBLE", "J", "accelerator energy of stepping, by share of replica time"),
                ("cost_nano_usd", "BIGINT", "1e-9 USD", "its part of the ledger, overheads included"),
            )
            + _QUANTILES,
        ),
        Table(
            "histograms",
            "one bin of one latency of one stream in one piece of the measured time; empty bins are left out",
            ("start_ns", "stream", "latency", "bin"),
            _columns(
                ("start_ns", "BIGINT", "ns", "start of the piece; pieces are cut at the months and weeks of the service's zone"),
                ("end_ns", "BIGINT", "ns", "end of the piece"),
                ("stream", "INTEGER", "", "stream number"),
                ("service", "VARCHAR", "", "service"),
                ("segment", "VARCHAR", "", "segment"),
                ("latency", "VARCHAR", "", "ttft, tpot or e2e"),
                ("bin", "INTEGER", "", "bin number of sim.bins"),
                ("low_ns", "DOUBLE", "ns", "lower edge, inclusive"),
                ("high_ns", "DOUBLE", "ns", "upper edge, exclusive"),
                ("count", "BIGINT", "requests", "completions in the bin"),
            ),
        ),
        Table(
            "nodes",
            "one rented machine with every stage of its life; -1 where a stage was not reached",
            ("node",),
            _columns(
                ("node", "INTEGER", "", "node number"),
                ("lease", "INTEGER", "", "lease number, -1 if it never ran"),
                ("pool", "VARCHAR", "", "pool"),
                ("instance", "VARCHAR", "", "instance type"),
                ("purchase", "VARCHAR", "", "purchase option"),
                ("zone", "VARCHAR", "", "zone"),
                ("requested_ns", "BIGINT", "ns", "asked for"),
                ("running_ns", "BIGINT", "ns", "RUNNING: billing starts"),
                ("booted_ns", "BIGINT", "ns", "system and driver up"),
                ("pulled_ns", "BIGINT", "ns", "image on the node"),
                ("gone_ns", "BIGINT", "ns", "given back or lost"),
                ("cause", "VARCHAR", "", "scaled_down, crashed, interrupted (taken back by the provider) or end (of the run)"),
            ),
        ),
        Table(
            "replicas",
            "one engine instance with every stage of its life and its totals",
            ("replica",),
            _columns(
                ("replica", "INTEGER", "", "replica number"),
                ("deployment", "VARCHAR", "", "deployment"),
                ("node", "INTEGER", "", "node it lives on, the first of its gang"),
                ("gang", "VARCHAR", "", "all nodes it lives on, with commas"),
                ("accelerators", "INTEGER", "", "accelerators it holds"),
                ("requested_ns", "BIGINT", "ns", "asked for"),
                ("loaded_ns", "BIGINT", "ns", "weights loaded, -1 if not reached"),
                ("ready_ns", "BIGINT", "ns", "READY, -1 if not reached"),
                ("drain_ns", "BIGINT", "ns", "told to drain, -1 if never"),
                ("gone_ns", "BIGINT", "ns", "gone"),
                ("cause", "VARCHAR", "", "scaled_down, grace_over, crashed, interrupted or end"),
                ("busy_s", "DOUBLE", "s", "time stepping"),
                ("lost_s", "DOUBLE", "s", "busy time whose work was thrown away"),
                ("steps", "BIGINT", "", "engine steps"),
                ("prefill_tokens", "BIGINT", "tokens", "prompt tokens computed"),
                ("output_tokens", "BIGINT", "tokens", "tokens emitted"),
                ("energy_j", "DOUBLE", "J", "accelerator energy while stepping"),
            ),
        ),
        Table(
            "usage",
            "what one replica did on one lease between two cuts of time (hours, windows)",
            ("start_ns", "lease", "replica"),
            _columns(
                ("lease", "INTEGER", "", "lease"),
                ("replica", "INTEGER", "", "replica"),
                ("deployment", "VARCHAR", "", "deployment"),
                ("accelerators", "INTEGER", "", "accelerators of the lease the replica holds"),
                ("start_ns", "BIGINT", "ns", "start, inclusive"),
                ("end_ns", "BIGINT", "ns", "end, exclusive"),
                ("booting_ns", "BIGINT", "ns", "before READY"),
                ("ready_ns", "BIGINT", "ns", "admitting"),
                ("draining_ns", "BIGINT", "ns", "after the drain order"),
                ("busy_ns", "BIGINT", "ns", "stepping"),
                ("draining_busy_ns", "BIGINT", "ns", "stepping after the drain order"),
                ("lost_ns", "DOUBLE", "ns", "busy time whose work was thrown away"),
                ("energy_j", "DOUBLE", "J", "accelerator energy while stepping"),
            ),
        ),
        Table(
            "leases",
            "one node from RUNNING to its end",
            ("lease",),
            _columns(
                ("lease", "INTEGER", "", "lease number"),
                ("node", "INTEGER", "", "node"),
                ("pool", "VARCHAR", "", "pool"),
                ("instance", "VARCHAR", "", "instance type"),
                ("accelerators", "INTEGER", "", "accelerators of the machine"),
                ("purchase", "VARCHAR", "", "purchase option"),
                ("zone", "VARCHAR", "", "zone"),
                ("start_ns", "BIGINT", "ns", "RUNNING"),
                ("end_ns", "BIGINT", "ns", "end"),
                ("billed_ns", "BIGINT", "ns", "billed time, minimum and rounding included; the life of a lease that is free"),
                ("cause", "VARCHAR", "", "why it ended"),
                ("amount_nano_usd", "BIGINT", "1e-9 USD", "sum of its ledger rows"),
                ("energy_kwh", "DOUBLE", "kWh", "energy of the machine at the meter, PUE included"),
                ("electricity_nano_usd", "BIGINT", "1e-9 USD", "price of that energy; on the bill only where energy is billed"),
                ("kgco2", "DOUBLE", "kg", "carbon of that energy"),
            ),
        ),
        Table(
            "ledger",
            "one charge: one lease or account in one calendar hour of the account zone at one price",
            ("row",),
            _columns(
                ("row", "INTEGER", "", "row number, in order of booking"),
                ("account", "VARCHAR", "", "account"),
                ("lease", "INTEGER", "", "lease, -1 for charges without one"),
                ("pool", "VARCHAR", "", "pool; of a charge without a lease it may be the name of a commitment"),
                ("purchase", "VARCHAR", "", "purchase option, or the kind of commitment that paid"),
                (
                    "category",
                    "VARCHAR",
                    "",
                    "compute, minimum, commitment, commitment_waste, energy, storage, network, tokens, licence, people, ...",
                ),
                ("start_ns", "BIGINT", "ns", "start of the charged time"),
                ("end_ns", "BIGINT", "ns", "end of the charged time"),
                ("local_hour", "VARCHAR", "", "calendar hour in the account zone, ISO 8601 with offset"),
                ("month", "VARCHAR", "", "calendar month in the account zone, YYYY-MM"),
                ("quantity", "DECIMAL(38,9)", "", "how much"),
                ("unit", "VARCHAR", "", "of what: instance-second, kWh, ..."),
                ("unit_price", "VARCHAR", "USD", "price as written in the catalog, with its own unit: per hour, per kWh, ..."),
                ("amount_nano_usd", "BIGINT", "1e-9 USD", "the charge on the invoice, half to even"),
                (
                    "effective_nano_usd",
                    "BIGINT",
                    "1e-9 USD",
                    "amortised: with its share of what was paid up front, and 0 for that payment; else the charge",
                ),
                (
                    "list_nano_usd",
                    "BIGINT",
                    "1e-9 USD",
                    "on-demand price of the quantity; the charge where there is none",
                ),
                ("commitment", "VARCHAR", "", "name of the commitment that covers it, or that was bought or not used; else ''"),
                ("charge_category", "VARCHAR", "", "usage, or purchase: paid in advance for a block of capacity or a commitment"),
                ("tariff", "VARCHAR", "", "rule that made it"),
                ("source", "VARCHAR", "", "where the price comes from"),
                ("confidence", "VARCHAR", "", "fitted, published or assumed"),
            ),
        ),
        Table(
            "attribution",
            "a part of a ledger row; the parts of a row equal it exactly",
            ("row", "start_ns", "use", "deployment", "stream"),
            _columns(
                ("row", "INTEGER", "", "ledger row"),
                ("start_ns", "BIGINT", "ns", "start of the slice of time the part belongs to"),
                ("use", "VARCHAR", "", "busy, booting, idle, draining or lost; shared for a charge without a lease"),
                ("deployment", "VARCHAR", "", "deployment, '' for accelerators no replica holds"),
                ("stream", "INTEGER", "", "stream that pays, -1 where there is none"),
                ("service", "VARCHAR", "", "service of the stream"),
                ("segment", "VARCHAR", "", "segment of the stream"),
                ("amount_nano_usd", "BIGINT", "1e-9 USD", "the part of the charge"),
                ("effective_nano_usd", "BIGINT", "1e-9 USD", "the part of the amortised charge"),
            ),
        ),
        Table(
            "energy",
            "a part of the energy of one lease in one hour at one price; the parts equal what the lease drew exactly",
            ("row", "start_ns", "use", "deployment", "stream"),
            _columns(
                ("row", "INTEGER", "", "number of the lease's hour, in order of booking"),
                ("lease", "INTEGER", "", "lease"),
                ("pool", "VARCHAR", "", "pool"),
                ("grid", "VARCHAR", "", "where its electricity comes from: a region, or a grid of one's own"),
                ("start_ns", "BIGINT", "ns", "start of the slice of time the part belongs to"),
                ("local_hour", "VARCHAR", "", "calendar hour in the account zone, ISO 8601 with offset"),
                ("month", "VARCHAR", "", "calendar month in the account zone, YYYY-MM"),
                ("use", "VARCHAR", "", "busy, booting, idle, draining or lost"),
                ("deployment", "VARCHAR", "", "deployment, '' for accelerators no replica holds"),
                ("stream", "INTEGER", "", "stream that it is for, -1 where there is none"),
                ("service", "VARCHAR", "", "service of the stream"),
                ("segment", "VARCHAR", "", "segment of the stream"),
                ("usd_per_kwh", "VARCHAR", "USD/kWh", "price of electricity in force"),
                ("gco2_per_kwh", "DOUBLE", "g/kWh", "carbon intensity in force"),
                ("nano_kwh", "BIGINT", "1e-9 kWh", "energy at the meter: steps, idle power, host and PUE"),
                ("electricity_nano_usd", "BIGINT", "1e-9 USD", "its price; on the bill only where energy is billed"),
                ("carbon_ug", "BIGINT", "1e-6 g", "its carbon"),
            ),
        ),
        Table(
            "decisions",
            "a decision of a controller that changed something",
            ("time_ns", "deployment"),
            _columns(
                ("time_ns", "BIGINT", "ns", "when"),
                ("deployment", "VARCHAR", "", "whose replicas"),
                ("policy", "VARCHAR", "", "who decided"),
                ("before", "INTEGER", "replicas", "wanted before, within the bounds of budgets"),
                ("after", "INTEGER", "replicas", "wanted from now on, within those bounds"),
                ("reason", "VARCHAR", "", "the binding rule"),
            ),
        ),
        Table(
            "alerts",
            "what a budget said, or did, at a check",
            ("time_ns", "number"),
            _columns(
                ("number", "INTEGER", "", "running number"),
                ("time_ns", "BIGINT", "ns", "when"),
                ("known_to_ns", "BIGINT", "ns", "end of the time whose spend was known"),
                ("budget", "VARCHAR", "", "name of the budget"),
                ("scope", "VARCHAR", "", "account, service, segment or deployment"),
                ("subject", "VARCHAR", "", "which one; '' for the account, service/segment for a segment"),
                ("month", "VARCHAR", "", "calendar month in the account zone, YYYY-MM"),
                ("kind", "VARCHAR", "", "actual or forecast (an alert), action_begins or action_ends"),
                ("share", "DOUBLE", "", "share of the budget that was reached, or that an action ended below"),
                ("action", "VARCHAR", "", "name of the action, '' for an alert"),
                ("spent_nano_usd", "BIGINT", "1e-9 USD", "known spend of the month"),
                ("forecast_nano_usd", "BIGINT", "1e-9 USD", "forecast of the whole month, -1 where none was made yet"),
                ("budget_nano_usd", "BIGINT", "1e-9 USD", "the budget"),
                ("reason", "VARCHAR", "", "in words"),
            ),
        ),
        Table(
            "events",
            "something that happened to a machine or a replica",
            ("time_ns", "number"),
            _columns(
                ("number", "INTEGER", "", "running number"),
                ("time_ns", "BIGINT", "ns", "when"),
                ("kind", "VARCHAR", "", "what: node_running, replica_ready, replica_drained, node_crashed, ..."),
                ("subject", "VARCHAR", "", "to whom, for instance node 3"),
                ("detail", "VARCHAR", "", "more"),
            ),
        ),
        Table(
            "jobs",
            "one batch job that was submitted",
            ("submitted_ns", "stream", "job"),
            _columns(
                ("job", "INTEGER", "", "job number, within its service"),
                ("stream", "INTEGER", "", "stream number"),
                ("service", "VARCHAR", "", "service"),
                ("requests", "BIGINT", "requests", "requests of the job"),
                ("submitted_ns", "BIGINT", "ns", "submitted"),
                ("begun_ns", "BIGINT", "ns", "handed to the replicas: once the earlier job of its service was done; -1 if not yet"),
                (
                    "first_taken_ns",
                    "BIGINT",
                    "ns",
                    "the first one was seen to be taken: looked up after 1, 3, 7, ... ms, each minute at last; -1 if none",
                ),
                ("finished_ns", "BIGINT", "ns", "the last one left; -1 if it is not done at the end of the run"),
                ("due_ns", "BIGINT", "ns", "to be done by then; -1 for any time"),
                ("verdict", "VARCHAR", "", "in time, late, open (not done, and not late yet) or done (where nothing is due)"),
                ("rejected", "BIGINT", "requests", "left out: too long for one of the replicas they might go to"),
                ("taken", "BIGINT", "requests", "taken by replicas"),
                ("completed", "BIGINT", "requests", "completed"),
                ("failed", "BIGINT", "requests", "out of attempts after kills"),
                ("preempted", "BIGINT", "requests", "times that one made way for other requests"),
                ("retried", "BIGINT", "requests", "attempts started again after a kill"),
                ("prompt_tokens", "BIGINT", "tokens", "prompt tokens of the completed ones"),
                ("output_tokens", "BIGINT", "tokens", "output tokens of the completed ones"),
                ("cost_nano_usd", "BIGINT", "1e-9 USD", "what its stream paid while it was worked on, overheads included"),
            ),
        ),
        Table(
            "requests",
            "one request that left, or was still there at the end (records=all, or a sample)",
            ("leave_ns", "plane", "request"),
            _columns(
                ("plane", "INTEGER", "", "data plane; request numbers are its own"),
                ("request", "BIGINT", "", "arrival number"),
                ("stream", "INTEGER", "", "stream number"),
                ("service", "VARCHAR", "", "service"),
                ("segment", "VARCHAR", "", "segment"),
                ("client", "INTEGER", "", "client"),
                ("session", "INTEGER", "", "session"),
                ("turn", "INTEGER", "", "turn"),
                ("arrival_ns", "BIGINT", "ns", "arrival"),
                ("first_token_ns", "BIGINT", "ns", "first token of the last attempt, -1 if none"),
                ("leave_ns", "BIGINT", "ns", "left (or end of the run)"),
                ("net_ns", "BIGINT", "ns", "front-end time that TTFT and E2E contain beside"),
                ("prompt_tokens", "INTEGER", "tokens", "prompt; behind a batcher, items"),
                ("output_tokens", "INTEGER", "tokens", "output asked for; behind a batcher, 1"),
                ("attempts", "INTEGER", "", "attempts, 1 without a kill"),
                ("preemptions", "INTEGER", "", "recompute preemptions"),
                ("replica", "INTEGER", "", "last replica, -1 if none"),
                ("outcome", "VARCHAR", "", "completed, failed, abandoned, queue_full, too_long or unfinished"),
                ("dispatched_ns", "BIGINT", "ns", "came to its last replica, -1 if it never did"),
                ("admitted_ns", "BIGINT", "ns", "last admission to a batch, -1 if none"),
            ),
        ),
        Table(
            "active_users",
            "how many clients of a closed loop completed a request in a month of the account, or in the whole run",
            ("start_ns", "month", "service", "stream"),
            _columns(
                ("month", "VARCHAR", "", "calendar month in the account zone, YYYY-MM; '' for the whole run"),
                ("start_ns", "BIGINT", "ns", "start of the month in the run, exclusive"),
                ("end_ns", "BIGINT", "ns", "its end in the run, inclusive"),
                ("service", "VARCHAR", "", "service"),
                ("stream", "INTEGER", "", "stream number; -1 for all streams of the service together, each client once"),
                ("segment", "VARCHAR", "", "segment of the stream, '' for all"),
                ("users", "INTEGER", "clients", "distinct clients with a request that completed in that time"),
                ("clients", "INTEGER", "clients", "clients of the service, active or not"),
            ),
        ),
        Table(
            "client_counters",
            "one client of one service, as counted by a tap `clients`; the most frequent ones where there are more than it keeps",
            ("tap", "service", "client"),
            _columns(
                ("tap", "VARCHAR", "", "name of the tap"),
                ("service", "VARCHAR", "", "service"),
                ("client", "BIGINT", "", "client, 0 where it is not known"),
                ("counts", "VARCHAR", "", "what is counted: arrivals or completions"),
                ("requests", "BIGINT", "requests", "requests; exact where requests_error is 0, else too high by at most that"),
                ("requests_error", "BIGINT", "requests", "most by which requests is too high (Space-Saving)"),
                ("prompt_tokens", "BIGINT", "tokens", "prompt tokens; where requests_error is above 0 only since it is kept"),
                ("output_tokens", "BIGINT", "tokens", "output tokens asked for; likewise"),
                ("others_at_most", "BIGINT", "requests", "most requests of any client that has no row; 0 where all have one"),
            ),
        ),
        Table(
            "tier_counters",
            "one stream in one reporting interval, as counted by a tap `tiers`",
            ("tap", "start_ns", "stream"),
            _columns(
                ("tap", "VARCHAR", "", "name of the tap"),
                ("start_ns", "BIGINT", "ns", "start of the window, exclusive"),
                ("end_ns", "BIGINT", "ns", "end of the window, inclusive"),
                ("stream", "INTEGER", "", "stream number"),
                ("service", "VARCHAR", "", "service"),
                ("segment", "VARCHAR", "", "segment of the service's users"),
                ("counts", "VARCHAR", "", "what is counted: arrivals (by their own time) or completions (by the time of leaving)"),
                ("requests", "BIGINT", "requests", "requests"),
                ("prompt_tokens", "BIGINT", "tokens", "their prompt tokens"),
                ("output_tokens", "BIGINT", "tokens", "output tokens they asked for"),
            ),
        ),
        Table(
            "tap_values",
            "one number that a tap without a table of its own has at the end of the run",
            ("tap", "name"),
            _columns(
                ("tap", "VARCHAR", "", "name of the tap"),
                ("name", "VARCHAR", "", "name of the number"),
                ("value", "DOUBLE", "", "the number"),
            ),
        ),
    )
}
