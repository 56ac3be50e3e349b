"""Helpers for tests of money and results: a ledger that writes into lists, and a small run worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import numpy as np

from sim.billing.energy import Electricity, MachinePower
from sim.billing.ledger import OPEN_AT_END, Ledger, PoolBilling
from sim.billing.rates import Rate, dated_rates
from sim.billing.tariffs import MachineTariff, Tariff
from sim.bins import bin_of, edges_ns, quantile_ns
from sim.domain.hardware import Price, Provenance
from sim.domain.traffic import Stream
from sim.domain.usage import Lease, UsageSlice
from sim.results.spool import Spool
from sim.scenario import Account
from sim.units import NS_PER_HOUR, NS_PER_S, nano_usd

START = datetime(2026, 1, 31, 22, 0, tzinfo=UTC)
STREAMS = (Stream(0, "chat", "free"), Stream(1, "chat", "paid"), Stream(2, "code", "all"))
MAY_USE = {"llama": [0, 1], "coder": [2]}


class Lists:
    """A sink that keeps rows."""

    def __init__(self) -> None:
        self.tables: dict[str, list[dict[str, Any]]] = {"ledger": [], "attribution": [], "energy": [], "leases": []}

    def append(self, table: str, row: Mapping[str, object]) -> None:
        """Keep a row."""
        self.tables[table].append(dict(row))

    def amounts(self) -> list[int]:
        """Amounts of the ledger rows."""
        return [row["amount_nano_usd"] for row in self.tables["ledger"]]

    def parts(self, row: int) -> dict[tuple[str, str, int], int]:
        """Parts of a ledger row by use, deployment and stream, over all its slices."""
        found: dict[tuple[str, str, int], int] = {}
        for part in self.tables["attribution"]:
            if part["row"] == row:
                key = (part["use"], part["deployment"], part["stream"])
                found[key] = found.get(key, 0) + part["amount_nano_usd"]
        return found


def own_price(usd_per_hour: str) -> MachineTariff:
    """A tariff of one price."""
    return MachineTariff((Rate(0, nano_usd(usd_per_hour), usd_per_hour, "scenario", "assumed"),))


def price_list(start: datetime, *prices: tuple[str, str]) -> MachineTariff:
    """A tariff of (date, USD per hour)."""
    provenance = Provenance("price list", "2026-07-20", "published")
    return MachineTariff(dated_rates([Price(usd, date, provenance) for date, usd in prices], start))


def pool_billing(tariff: Tariff, accelerators: int = 2, *, electricity_billed: bool = False) -> PoolBilling:
    """A pool of machines of 100 W per idle accelerator and 200 W for the host, at 0.10 USD per kWh."""
    electricity = Electricity.steady(1.25, "0.10", 400.0, "scenario", "assumed")
    return PoolBilling({"us-east-1a": tariff}, MachinePower(accelerators, 100.0, 200.0), electricity, electricity_billed)


def make_ledger(
    sink: Any, pool: PoolBilling, *, start: datetime = START, horizon_ns: int = 48 * NS_PER_HOUR, timezone: str = "UTC"
) -> Ledger:
    """A ledger of one pool "gpu", two deployments and three streams."""
    return Ledger(start, horizon_ns, Account("account", timezone), {"gpu": pool}, STREAMS, MAY_USE, sink)


def lease(number: int, start_ns: int, end_ns: int, cause: str = "scaled_down", accelerators: int = 2) -> Lease:
    """A lease of pool "gpu"."""
    return Lease(number, number, "gpu", "p5.4xlarge", accelerators, "on_demand", "us-east-1a", start_ns, end_ns, cause)


def charge(ledger: Ledger, rented: Lease, slices: Sequence[UsageSlice] = (), more_cuts: Sequence[int] = ()) -> None:
    """Record a whole lease, cut where the ledger and the caller want; slices must lie between cuts."""
    assert rented.end_ns is not None
    inside = {t_ns for t_ns in (*ledger.cuts(), *more_cuts) if rented.start_ns < t_ns < rented.end_ns}
    edges = sorted({rented.start_ns, *inside, rented.end_ns})
    for start_ns, end_ns in pairwise(edges):
        ledger.record(rented, start_ns, end_ns, [piece for piece in slices if start_ns <= piece.start_ns < end_ns])
    ledger.close_lease(rented)


def busy_slice(rented: int, replica: int, deployment: str, start_s: int, end_s: int, **columns: Any) -> UsageSlice:
    """A slice of one accelerator that is ready all the time unless said otherwise; `_s` columns are seconds."""
    in_ns = {f"{name[:-2]}_ns": round(value * NS_PER_S) for name, value in columns.items() if name.endswith("_s")}
    rest = {name: value for name, value in columns.items() if not name.endswith("_s")}
    length_ns = (end_s - start_s) * NS_PER_S
    ready_ns = length_ns - in_ns.get("booting_ns", 0) - in_ns.get("draining_ns", 0)
    filled: dict[str, Any] = {"ready_ns": ready_ns, **in_ns, **rest}
    return UsageSlice(rented, replica, deployment, 1, start_s * NS_PER_S, end_s * NS_PER_S, **filled)


# A run of three hours, 22:00 to 01:00 across the end of January, one machine of two accelerators at 7.20 USD per hour (so an
# accelerator-second costs 0.001 USD), replica 0 of llama ready from 10 min on, replica 1 of coder for the first two hours.
RUN_HOURS = 3
ARRIVED = {0: [10, 20, 30], 1: [1, 2, 3], 2: [5, 0, 0]}
COMPLETED = {0: [9, 20, 25], 1: [1, 1, 3], 2: [4, 0, 0]}
REJECTED = {0: [1, 0, 2], 1: [0, 0, 0], 2: [0, 1, 0]}
TTFT_S, TPOT_S, E2E_S = 0.25, 0.02, 2.0


def window_row(stream: Stream, hour: int) -> dict[str, Any]:
    """One window of the small run: every completion has TTFT 0.25 s, TPOT 20 ms, E2E 2 s, 100 prompt and 10 output tokens."""
    number = stream.number
    completed, rejected = COMPLETED[number][hour], REJECTED[number][hour]
    so_far = slice(0, hour + 1)
    latencies: dict[str, Any] = {}
    for latency, value_s in (("ttft", TTFT_S), ("tpot", TPOT_S), ("e2e", E2E_S)):
        counts = np.zeros(len(edges_ns()) - 1, np.int64)
        counts[bin_of(round(value_s * 1e9))] = completed
        latencies[f"{latency}_mean_s"] = value_s if completed else None
        for name, q in (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)):
            latencies[f"{latency}_{name}_s"] = quantile_ns(counts, q) / 1e9 if completed else None
    return {
        "start_ns": hour * NS_PER_HOUR, "end_ns": (hour + 1) * NS_PER_HOUR, "measured": hour > 0, "stream": number,
        "service": stream.service, "segment": stream.segment, "arrived": ARRIVED[number][hour], "completed": completed,
        "failed": 0, "abandoned": 0, "rejected": rejected, "retried": 0, "preempted": 0,
        "prompt_tokens": 100 * completed, "output_tokens": 10 * completed, "items": 0,
        "total": completed + rejected, "tpot_count": completed,
        "good_ttft": completed, "good_tpot": completed - (completed > 1), "good_e2e": completed,
        "good_all": completed - (completed > 1),
        "missed_retried": 0, "missed_preempted": 0, "missed_kv_full": 0, "missed_queued": rejected, "throttled": 0,
        "missed_slow": int(completed > 1),
        "queued_mean": 0.0, "in_flight_mean": 0.1,
        "in_flight_end": sum(ARRIVED[number][so_far]) - sum(COMPLETED[number][so_far]) - sum(REJECTED[number][so_far]),
        "replicas_mean": 1.0, "busy_s": 1.0, "energy_j": 1.0, "cost_nano_usd": 0, **latencies,
    }  # fmt: skip


def small_run_slices() -> list[UsageSlice]:
    """Use of the small run's machine, hour by hour."""
    hour = 3600
    shares = [{0: 900e9, 1: 300e9}, {0: 600e9, 1: 600e9}, {0: 100e9}]
    llama = [
        busy_slice(0, 0, "llama", n * hour, (n + 1) * hour, booting_s=600 if n == 0 else 0, busy_s=1500, lost_s=300,
                   shares_ns=shares[n], energy_j=600_000.0)
        for n in range(RUN_HOURS)
    ]  # fmt: skip
    coder = [
        busy_slice(0, 1, "coder", 0, hour, busy_s=700, shares_ns={2: 700e9}, energy_j=300_000.0),
        busy_slice(0, 1, "coder", hour, 2 * hour, draining_s=600, draining_busy_s=100, busy_s=700, shares_ns={2: 700e9}),
    ]
    return llama + coder


def write_small_run(spool: Spool, *, electricity_billed: bool = False) -> None:
    """Write all rows of the small run."""
    pool = pool_billing(own_price("7.20"), electricity_billed=electricity_billed)
    ledger = make_ledger(spool, pool, horizon_ns=RUN_HOURS * NS_PER_HOUR)
    slices = small_run_slices()
    charge(ledger, lease(0, 0, RUN_HOURS * NS_PER_HOUR, OPEN_AT_END), slices)
    for piece in slices:
        columns = {name: value for name, value in vars(piece).items() if name != "shares_ns"}
        spool.append("usage", columns)
    for hour in range(RUN_HOURS):
        for stream in STREAMS:
            spool.append("windows", window_row(stream, hour))
    edges = edges_ns()
    for stream in STREAMS:
        for latency, value_s in (("ttft", TTFT_S), ("tpot", TPOT_S), ("e2e", E2E_S)):
            number = bin_of(round(value_s * 1e9))
            spool.append("histograms", {
                "start_ns": NS_PER_HOUR, "end_ns": RUN_HOURS * NS_PER_HOUR,
                "stream": stream.number, "service": stream.service, "segment": stream.segment, "latency": latency, "bin": number,
                "low_ns": float(edges[number]), "high_ns": float(edges[number + 1]), "count": sum(COMPLETED[stream.number][1:]),
            })  # fmt: skip
