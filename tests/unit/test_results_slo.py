"""SLOs by month and week, worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from report_kit import row, scenario_of, write

from sim.results.periods import Calendar
from sim.results.records import RunResult
from sim.results.slo import attainments_by_period, counts_by_period
from sim.scenario import Slo
from sim.units import NS_PER_HOUR

SLO = Slo(ttft_s=1.0, attainment=0.9)
# Hour by hour: total, good. The run starts on Saturday, 28 March 2026, 20:00 in Berlin; the clock goes forward at 02:00 of Sunday.
HOURS = [(10, 10), (10, 8), (20, 20), (0, 0), *[(10, 9)] * 72]


def run_over_a_clock_change(folder: Path, *, warmup: str = "0s") -> RunResult:
    """Three days and four hours of known counts, two streams of a service of Berlin in an account of UTC."""
    made = scenario_of("76h", {"chat": SLO}, start="2026-03-28T19:00:00Z", warmup=warmup)
    made.services["chat"].timezone = "Europe/Berlin"
    warm = {"0s": 0, "4h": 4}[warmup]

    def windows(spool: Any) -> None:
        for hour, (total, good) in enumerate(HOURS):
            for stream in (0, 1):
                row(spool, "windows", start_ns=hour * NS_PER_HOUR, end_ns=(hour + 1) * NS_PER_HOUR, stream=stream, service="chat",
                    segment=f"s{stream}", measured=hour >= warm, arrived=total, total=total, completed=total - (hour == 1),
                    rejected=int(hour == 1), good_ttft=good, good_tpot=total, good_e2e=total, good_all=good,
                    ttft_mean_s=0.5, tpot_mean_s=0.01, e2e_mean_s=2.0)  # fmt: skip

    return write(folder, made, windows)


def test_a_week_ends_at_midnight_of_its_own_clock(tmp_path: Path) -> None:
    result = run_over_a_clock_change(tmp_path / "run")
    calendar = Calendar.of(result.manifest["scenario"])
    [first, second] = counts_by_period(result, calendar, "week")["chat"]
    # Sunday has 23 hours: Monday begins 4 + 23 hours after the start, at 22:00 UTC.
    assert (first.label, first.partial, second.label, second.partial) == ("2026-W13", True, "2026-W14", True)
    assert (first.counts["total"], first.counts["ttft"]) == (2 * (40 + 23 * 10), 2 * (38 + 23 * 9))
    assert first.counts["unserved"] == 2
    assert (second.counts["total"], second.counts["ttft"]) == (2 * 490, 2 * 441)
    found = attainments_by_period([first, second], SLO)
    assert found["ttft"]["2026-W13"]["attainment"] == 490 / 540
    assert found["ttft"]["2026-W13"]["budget_left"] == pytest.approx(1 - 50 / 54, abs=1e-9)
    assert found["ttft"]["2026-W14"] == {
        "attainment": 0.9, "good": 882, "total": 980, "met": True, "budget_left": 0.0, "partial": True
    }  # fmt: skip
    assert found["all"]["2026-W14"]["met"] is None


def test_the_summary_has_the_months_and_they_add_up(tmp_path: Path) -> None:
    found = run_over_a_clock_change(tmp_path / "run").summary["slo"]["chat"]["ttft"]
    # April begins at 22:00 UTC of 31 March: 75 hours after the start.
    assert {label: (month["good"], month["total"]) for label, month in found["by_month"].items()} == {
        "2026-03": (2 * (38 + 71 * 9), 2 * (40 + 71 * 10)), "2026-04": (18, 20)
    }  # fmt: skip
    assert sum(month["good"] for month in found["by_month"].values()) == found["good"]
    assert sum(month["total"] for month in found["by_month"].values()) == found["total"]


def test_the_warm_up_counts_in_no_period_and_makes_its_own_partial(tmp_path: Path) -> None:
    result = run_over_a_clock_change(tmp_path / "run", warmup="4h")
    [first, _] = counts_by_period(result, Calendar.of(result.manifest["scenario"]), "week")["chat"]
    assert (first.counts["total"], first.counts["ttft"], first.partial) == (2 * 230, 2 * 207, True)


def test_a_goal_of_all_requests_and_an_empty_period_have_no_budget(tmp_path: Path) -> None:
    result = run_over_a_clock_change(tmp_path / "run")
    [first, _] = counts_by_period(result, Calendar.of(result.manifest["scenario"]), "week")["chat"]
    assert attainments_by_period([first], Slo(ttft_s=1.0, attainment=1.0))["ttft"]["2026-W13"]["budget_left"] is None
    nothing = dict.fromkeys(first.counts, 0)
    empty = attainments_by_period([type(first)("2026-W13", False, nothing)], SLO)["ttft"]["2026-W13"]
    assert (empty["attainment"], empty["met"], empty["budget_left"], empty["partial"]) == (None, None, None, False)
