"""Why requests were not good: the split of waits by the state of the fleet, by hand and against a real run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from control_kit import FIXED, poisson, schedule
from control_kit import scenario as small
from report_kit import replica, row, scenario_of, write

from sim.results.causes import CAUSES, causes, causes_by_period, causes_by_window
from sim.results.periods import Calendar
from sim.results.records import RunResult
from sim.scenario import Deployment, Pool, Service, Slo
from sim.studies.runner import simulate
from sim.units import NS_PER_HOUR, NS_PER_S

HOURS = 10
NO_CAUSE = dict.fromkeys(("missed_retried", "missed_preempted", "missed_kv_full", "missed_queued", "missed_slow"), 0)


def run(
    folder: Path, missed: dict[int, dict[str, int]], *, most: int = 3, rejected: int = 0, start: str = "2026-03-02"
) -> RunResult:
    """Ten hours of 100 requests each for replicas of "llama" that live as written below; `missed` has causes by hour."""
    made = scenario_of(f"{HOURS}h", {"chat": Slo(ttft_s=1.0, attainment=0.95)}, start=start)
    made.services["chat"].deployments = ["llama"]

    def windows(spool: Any) -> None:
        for hour in range(HOURS):
            columns = {**NO_CAUSE, **missed.get(hour, {})}
            bad = sum(columns.values()) + rejected
            row(spool, "windows", start_ns=hour * NS_PER_HOUR, end_ns=(hour + 1) * NS_PER_HOUR, service="chat", segment="all",
                measured=True, arrived=100, total=100, completed=100 - rejected, rejected=rejected, good_ttft=100 - bad,
                good_tpot=100 - rejected, good_e2e=100 - rejected, good_all=100 - bad, ttft_mean_s=0.5, tpot_mean_s=0.01,
                e2e_mean_s=2.0, **columns)  # fmt: skip

    def decisions(spool: Any) -> None:
        for hour, before, after in ((2, 1, 2), (4, 2, 3), (8, 3, 1)):
            row(spool, "decisions", time_ns=hour * NS_PER_HOUR, deployment="llama", policy="hpa", before=before, after=after)
        row(spool, "decisions", time_ns=0, deployment="other", policy="hpa", before=1, after=9)

    result = write(
        folder, made, windows, decisions,
        # One from the start; one asked for at 02:00, ready at 02:10; the third is wanted at 04:00 and can be had at 06:00 only.
        replica(0, 0, 0, -1, HOURS * 3600), replica(1, 7_200, 7_800, 28_800, 28_900), replica(2, 21_600, 21_660, 28_800, 28_800),
        replica(3, 0, -1, -1, 36_000, deployment="other"),
    )  # fmt: skip
    result.manifest["fleets"] = {"llama": {"initial": 1, "most": most}}
    return result


QUEUED = {hour: {"missed_queued": 7} for hour in range(HOURS)}


def test_waits_are_split_by_what_the_fleet_was_doing_hour_by_hour(tmp_path: Path) -> None:
    mine = causes_by_window(run(tmp_path / "run", QUEUED))["chat"]
    assert mine.main_cause() == [
        "scaled_late", "scaled_late",  # one replica, one wanted, three possible
        "cold_start", "scaled_late",  # booting from 02:00 to 02:10
        "no_capacity", "no_capacity",  # two of three
        "cold_start", "at_maximum",  # booting for a minute, then three of three
        "scaled_late", "scaled_late",
    ]  # fmt: skip
    assert sum(int(counts.sum()) for counts in mine.counts.values()) == 70
    assert mine.missed.all()


def test_a_fleet_that_wants_all_it_can_is_at_its_maximum(tmp_path: Path) -> None:
    found = causes_by_window(run(tmp_path / "run", QUEUED, most=1))["chat"].main_cause()
    assert found[:3] == ["at_maximum", "at_maximum", "cold_start"]


def test_causes_of_the_engine_are_taken_as_they_are(tmp_path: Path) -> None:
    missed = {1: {"missed_retried": 3}, 4: {"missed_preempted": 2, "missed_kv_full": 9, "missed_queued": 4}, 5: {"missed_slow": 6}}
    result = run(tmp_path / "run", missed, rejected=1)
    found = {row.cause: row for row in causes(result)["chat"]}
    assert list(found) == list(CAUSES)
    assert {cause: row.requests for cause, row in found.items() if row.requests} == {
        "retried": 3, "preempted": 2, "kv_full": 9, "no_capacity": 4, "slow": 6, "too_long": 10
    }  # fmt: skip
    assert sum(row.share or 0.0 for row in found.values()) == pytest.approx(1.0, rel=1e-12)
    # Goal 95 %: the windows with 6 or more not good missed it, those of 04:00 (16) and 05:00 (7).
    assert {cause: row.windows for cause, row in found.items() if row.windows} == {"kv_full": 1, "slow": 1}
    assert (found["kv_full"].worst_ns, found["kv_full"].worst_requests) == (4 * NS_PER_HOUR, 9)
    assert (found["cold_start"].worst_ns, found["cold_start"].share) == (None, 0.0)


def test_where_all_was_good_there_is_no_share(tmp_path: Path) -> None:
    assert {row.share for row in causes(run(tmp_path / "run", {}))["chat"]} == {None}


def test_causes_by_month_add_up_to_those_of_the_run(tmp_path: Path) -> None:
    result = run(tmp_path / "run", QUEUED, start="2026-02-28T21:00:00Z")
    months = causes_by_period(result, Calendar.of(result.manifest["scenario"]), "month")["chat"]
    assert months["2026-02"] == {**dict.fromkeys(CAUSES, 0), "scaled_late": 14, "cold_start": 7}
    for found in causes(result)["chat"]:
        assert sum(month[found.cause] for month in months.values()) == found.requests


def test_a_real_run_says_at_maximum_and_then_cold_start(tmp_path: Path) -> None:
    # Two seats a replica are too few for 20 requests a second.
    service = Service(workload=poisson(20.0), deployments=["llama"], slo=Slo(ttft_s=0.5), queue_timeout_s=10)
    fleet = schedule(1, ("20m", 2))["llama"]
    deployment = Deployment(pools=["gpu"], autoscaler=fleet.autoscaler, max_num_seqs=2, max_outstanding=2)
    pools = {"gpu": Pool(cold_start=FIXED)}
    made = small(
        services={"chat": service}, deployments={"llama": deployment}, pools=pools, horizon="30m", window="5m", engine="reference"
    )  # fmt: skip
    result = simulate(made, out=tmp_path / "run")
    mine = causes_by_window(result)["chat"]
    assert mine.start_ns.tolist() == [300 * NS_PER_S * number for number in range(6)]
    assert mine.main_cause() == ["scaled_late"] * 4 + ["cold_start", "at_maximum"]
    total = result.summary["slo"]["chat"]["all"]["total"] - result.summary["slo"]["chat"]["all"]["good"]
    assert sum(row.requests for row in causes(result)["chat"]) == total > 0
