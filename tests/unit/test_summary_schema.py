"""The page on summary.json names every number that a run has, and no other; budgets and spikes in it are those of the tables."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from control_kit import FIXED, poisson, scenario, schedule

from sim import load_scenario, simulate
from sim.results.budgets import budget_months
from sim.results.records import RunResult
from sim.results.spikes import spikes
from sim.scenario import Pool, Service
from sim.scenario.budgets import Budget
from sim.units import NANO_PER_USD, instant
from sim.workload.clients import ClosedLoop

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "summary.md"
NAMES = r"SERVICE|TARGET|MONTH|NAME"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """Twenty days with a second machine for one of them, a budget for the account and one that is never reached."""
    made = scenario(
        start="2026-03-02T00:00:00Z",
        horizon="20d",
        services={
            "chat": Service(workload=poisson(0.0005), deployments=["llama"]),
            "desk": Service(workload=ClosedLoop(clients=3, think_s=36_000.0), deployments=["llama"]),
        },
        deployments=schedule(1, ("9d", 2), ("10d", 1)),
        pools={"gpu": Pool(cold_start=FIXED, price_usd_per_hour="1")},
        budgets={"all": Budget(usd_per_month="300"), "desk": Budget(usd_per_month="9000", scope="service", of="desk")},
    )
    return simulate(made, out=tmp_path_factory.mktemp("summary") / "run")


def paths(value: Any, path: str = "") -> Iterator[str]:
    """Every path of a document; entries of a list as []."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from paths(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for item in value:
            yield from paths(item, f"{path}[]")
    else:
        yield path


def documented() -> list[str]:
    """The paths of the page, choices in braces written out."""
    found = []
    for line in PAGE.read_text("utf-8").splitlines():
        if line.startswith("| `"):
            parts = re.split(r"\{([^}]*)\}", line.split("`")[1])
            choices = [part.split(",") if number % 2 else [part] for number, part in enumerate(parts)]
            found += ["".join(chosen) for chosen in itertools.product(*choices)]
    return found


def pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(NAMES, "[^.]+", re.escape(path)) + r"\Z")


def test_the_page_has_every_path_of_a_summary_and_no_other(run: RunResult, tmp_path: Path) -> None:
    batch = simulate(load_scenario("night_batch", ["horizon=1h", f"out={tmp_path / 'batch'}"])).summary
    triton = simulate(load_scenario("vision_batcher", ["horizon=1min", f"out={tmp_path / 'triton'}"])).summary
    seen = {path for summary in (run.summary, batch, triton) for path in paths(summary)}
    known = {path: pattern(path) for path in documented()}
    assert [path for path in sorted(seen) if not any(one.match(path) for one in known.values())] == []
    assert [path for path, one in known.items() if not any(one.match(path) for path in seen)] == []


def test_budgets_of_the_summary_are_those_of_the_ledger(run: RunResult) -> None:
    start = instant("2026-03-02T00:00:00Z")
    found = {entry["budget"]: entry for entry in run.summary["budgets"]}
    assert len(run.summary["budgets"]) == 2
    months = {month.budget: month for month in budget_months(run)}
    march = found["all"]
    assert (march["scope"], march["subject"], march["month"], march["partial"]) == ("account", "", "2026-03", True)
    assert march["budget_usd"] == 300.0
    # 480 hours of one machine, and a day of another that was asked for ten seconds before.
    assert march["spent_usd"] == pytest.approx(480 + 24 - 10 / 3600, abs=1e-9)
    assert march["share"] == march["spent_usd"] / 300
    # 216 dollars, 48 less ten seconds of the day with both machines, and 37 hours of one are 301 less ten seconds.
    alert = months["all"].alerts[0]
    assert march["overrun"] == (start + timedelta(hours=277)).isoformat()
    assert march["first_alert"] == {
        "kind": alert.kind, "share": alert.share, "time": (start + timedelta(microseconds=alert.time_ns // 1_000)).isoformat()
    }  # fmt: skip
    assert march["days_before_overrun"] == alert.days_before_overrun
    assert (march["alerts"], march["actions"]) == (len(months["all"].alerts), 0)
    kept = found["desk"]
    assert (kept["overrun"], kept["first_alert"], kept["days_before_overrun"], kept["alerts"]) == (None, None, None, 0)
    assert round(kept["spent_usd"] * NANO_PER_USD) == months["desk"].spent_nano


def test_spikes_of_the_summary_are_those_of_the_tables(run: RunResult) -> None:
    expected = sorted(spikes(run), key=lambda spike: (spike.day, spike.service, spike.segment))
    assert {(spike.day, spike.service) for spike in expected} >= {("2026-03-11", "chat")}
    entries = run.summary["spikes"]
    assert [(entry["day"], entry["service"], entry["segment"]) for entry in entries] == [
        (spike.day, spike.service, spike.segment) for spike in expected
    ]
    for entry, spike in zip(entries, expected, strict=True):
        assert round(entry["cost_usd"] * NANO_PER_USD) == spike.cost_nano
        assert (entry["cause"], entry["against"]) == (spike.cause, spike.against)
        assert round(entry["cause_usd"] * NANO_PER_USD) == spike.terms_nano[spike.cause]
        assert entry["score"] is None or entry["score"] == spike.z


def test_a_run_without_budgets_and_spikes_has_none(tmp_path: Path) -> None:
    result = simulate(scenario(), out=tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text("utf-8"))
    assert (summary["budgets"], summary["spikes"]) == ([], [])
    assert len(result.table("budget_months")["budget"]) == len(result.table("spikes")["day"]) == 0
