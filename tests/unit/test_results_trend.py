"""Cost and latency by month: sums that are those of the rows, quantiles that are those of the pooled requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from billing_kit import write_small_run
from report_kit import row, scenario_of, write

from sim.bins import MANTISSA_BITS, bins_of, edges_ns
from sim.results.invoice import invoice, invoice_by_month
from sim.results.periods import Calendar
from sim.results.records import RunResult
from sim.results.trend import trend
from sim.scenario import Slo
from sim.units import NS_PER_HOUR

BIN = 2.0**-MANTISSA_BITS
# Two pieces of three hours, the end of January and the beginning of February, with very different latencies and amounts.
DRAW = np.random.default_rng(11)
TTFT_NS = {0: DRAW.lognormal(np.log(2e8), 0.5, 900).astype(np.int64), 1: DRAW.lognormal(np.log(2e9), 0.3, 100).astype(np.int64)}
MORE_NS = {0: DRAW.lognormal(np.log(4e8), 0.5, 300).astype(np.int64), 1: DRAW.lognormal(np.log(3e9), 0.3, 700).astype(np.int64)}


def two_months(folder: Path) -> RunResult:
    """Six hours across the end of January, two streams of one service."""
    made = scenario_of("6h", {"o'chat": Slo()}, start="2026-01-31T21:00:00Z")

    def rows(spool: Any) -> None:
        edges = edges_ns()
        for stream, samples in enumerate((TTFT_NS, MORE_NS)):
            for piece in (0, 1):
                counts = np.bincount(bins_of(samples[piece]))
                for number in np.flatnonzero(counts).tolist():
                    row(spool, "histograms", start_ns=3 * piece * NS_PER_HOUR, end_ns=3 * (piece + 1) * NS_PER_HOUR, stream=stream,
                        service="o'chat", segment=f"s{stream}", latency="ttft", bin=number, low_ns=float(edges[number]),
                        high_ns=float(edges[number + 1]), count=int(counts[number]))  # fmt: skip
            for hour in range(6):
                row(spool, "windows", start_ns=hour * NS_PER_HOUR, end_ns=(hour + 1) * NS_PER_HOUR, stream=stream,
                    service="o'chat", segment=f"s{stream}", measured=True, arrived=10, completed=0, prompt_tokens=100,
                    output_tokens=50 * (hour + 1), energy_j=0.5)  # fmt: skip
            for hour in (0, 2, 3):
                row(spool, "attribution", row=hour, start_ns=hour * NS_PER_HOUR, use="busy", stream=stream, service="o'chat",
                    amount_nano_usd=10**9 * (hour + 1))  # fmt: skip

    return write(folder, made, rows)


def test_a_month_has_the_sums_of_its_windows_and_the_quantiles_of_its_requests(tmp_path: Path) -> None:
    result = two_months(tmp_path / "run")
    [january, february] = trend(result, Calendar.of(result.manifest["scenario"]), "month")["o'chat"]
    assert (january.label, january.partial, january.start_ns, january.end_ns) == ("2026-01", True, 0, 3 * NS_PER_HOUR)
    assert (january.arrived, january.tokens, january.cost_nano) == (60, 2 * (300 + 50 * 6), 8 * 10**9)
    assert (february.tokens, february.cost_nano, february.energy_j) == (2 * (300 + 50 * 15), 8 * 10**9, 3.0)
    assert january.usd_per_1m_tokens == pytest.approx(8.0 / 1_200 * 1e6, rel=1e-12)
    for piece, point in enumerate((january, february)):
        pooled = np.concatenate([TTFT_NS[piece], MORE_NS[piece]])
        for name, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
            exact = float(np.quantile(pooled, q, method="inverted_cdf")) / 1e9
            assert point.latency_s["ttft"][name] == pytest.approx(exact, rel=BIN)
    assert january.latency_s["e2e"] == {"p50": None, "p95": None, "p99": None}


def test_weeks_pool_the_same_pieces(tmp_path: Path) -> None:
    result = two_months(tmp_path / "run")
    # 31 January 2026 is a Saturday: both pieces are of one week.
    [week] = trend(result, Calendar.of(result.manifest["scenario"]), "week")["o'chat"]
    pooled = np.concatenate([*TTFT_NS.values(), *MORE_NS.values()])
    exact = float(np.quantile(pooled, 0.95, method="inverted_cdf")) / 1e9
    assert week.latency_s["ttft"]["p95"] == pytest.approx(exact, rel=BIN)
    assert week.cost_nano == 16 * 10**9


def test_a_period_without_work_has_no_price_of_it(tmp_path: Path) -> None:
    made = scenario_of("2h", {"chat": Slo()})
    result = write(tmp_path / "run", made, lambda spool: row(spool, "windows", end_ns=2 * NS_PER_HOUR, service="chat"))
    [point] = trend(result, Calendar.of(made.to_dict()), "month")["chat"]
    assert point.usd_per_1m_tokens is None


def test_the_bill_by_month_service_and_category_adds_up_to_the_invoice(tmp_path: Path) -> None:
    made = scenario_of("3h", {"chat": Slo(), "code": Slo()}, start="2026-01-31T22:00:00Z")
    result = write(tmp_path / "run", made, lambda spool: write_small_run(spool, electricity_billed=True))
    found = {(charge.month, charge.service, charge.category): charge.amount_nano for charge in invoice_by_month(result)}
    assert sum(found.values()) == sum(line.amount_nano for line in invoice(result))
    for line in invoice(result):
        mine = sum(amount for (month, _, category), amount in found.items() if (month, category) == (line.month, line.category))
        assert mine == line.amount_nano
    assert sum(amount for (_, service, category), amount in found.items() if (service, category) == ("code", "compute")) == 7.2e9
    assert list(found) == sorted(found)
