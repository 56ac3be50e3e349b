"""Attribution of whole runs with every kind of row: any pivot is the ledger, and the terms of a difference are the difference."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import pytest
from control_kit import poisson, schedule

from sim import simulate
from sim.app.cli import main
from sim.policies.autoscalers.static import Static
from sim.policies.budgets.cap_replicas import CapReplicas
from sim.policies.taps.counters import Clients
from sim.report.bill import why_sentence
from sim.results.account_months import account_months
from sim.results.pivot import KEYS, pivot
from sim.results.records import RunResult
from sim.results.unit_costs import GROUPS, unit_costs
from sim.results.why import why_month, why_run
from sim.scenario import Account, Deployment, Energy, Failure, Pool, Scenario, Service, Spot
from sim.scenario.budgets import Budget
from sim.scenario.commitments import ComputeSavingsPlan, ReservedInstances
from sim.scenario.other_costs import OtherCosts
from sim.workload.clients import ClosedLoop

SEEDS = range(3)
PAIRS = [("month", "service", "segment"), ("tier", "category"), ("client", "use")]


def any_run(seed: int) -> Scenario:
    """Six hours across the end of a month of New York with two pools, commitments, budgets, energy and other lines."""
    draw = random.Random(seed)
    busy = poisson(draw.choice([0.5, 3.0]))
    busy.segments = {"free": 0.8, "paid": 0.2}
    steps = [(f"{hour}h", draw.randint(1, 4)) for hour in sorted(draw.sample(range(1, 6), 3))]
    services = {
        "chat": Service(workload=busy, deployments=["llama"]),
        "desk": Service(workload=ClosedLoop(clients=draw.randint(1, 40), think_s=120.0), deployments=["llama", "other"]),
    }
    deployments = {**schedule(2, *steps), "other": Deployment(pools=["spot"], autoscaler=Static(replicas=1))}
    deployments["llama"].pools = ["gpu", "spot"]
    commitments: dict[str, Any] = {
        "reserved": ReservedInstances(
            instance="p5.4xlarge", region="us-east-1", count=draw.randint(3, 5), payment=draw.choice(["no_upfront", "all_upfront"]),
            begins="2026-10-01T05:00:00Z",
        ),
        "plan": ComputeSavingsPlan(usd_per_hour="2.5", discount=0.2),
    }  # fmt: skip
    return Scenario(
        start="2026-10-01T01:00:00Z",
        horizon="6h",
        seed=seed + 1,
        services=services,
        deployments=deployments,
        pools={
            "gpu": Pool(electricity_billed=seed % 2 == 0),
            "spot": Pool(purchase="spot", spot=Spot(market="advisor-20")),
        },
        account=Account(timezone="America/New_York"),
        commitments=commitments if seed else {},
        other_costs=OtherCosts(
            preset="aws_typical", prices={"cross_zone": "aws-cross-zone"}, people_hours_per_month=20, people_usd_per_hour="90"
        ),
        energy=Energy(usd_per_kwh=0.11),
        budgets={
            "all": Budget(
                usd_per_month="40", check_every="1h", forecast_after="1h",
                actions={"cap": CapReplicas(deployment="llama", most_replicas=1, by="actual", at=0.7)},
            )
        },
        failures=[Failure("70m", "gpu"), Failure("200m", "spot")],
        taps={"users": Clients(counts="completions")},
    )  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, RunResult]:
    """The runs by their seeds."""
    return {seed: simulate(any_run(seed), out=tmp_path_factory.mktemp("any") / "run") for seed in SEEDS}


@pytest.fixture(params=SEEDS)
def run(request: pytest.FixtureRequest, runs: dict[int, RunResult]) -> RunResult:
    """One of them."""
    return runs[request.param]


def booked(result: RunResult, where: str = "true") -> int:
    return int(result.sql(f"SELECT coalesce(sum(amount_nano_usd), 0) AS n FROM ledger WHERE {where}")["n"][0])


def test_the_runs_have_rows_of_every_kind(runs: dict[int, RunResult]) -> None:
    """What one lacks another has."""
    seen: dict[str, set[str]] = {"category": set(), "purchase": set(), "use": set()}
    for result in runs.values():
        for column, values in seen.items():
            values.update(result.table("attribution" if column == "use" else "ledger")[column].tolist())
    # Free rows: machines that reservations paid for, or that were taken in their first hour.
    assert any((result.table("ledger")["amount_nano_usd"] == 0).any() for result in runs.values())
    assert seen["category"] >= {"compute", "energy", "commitment_waste", "network", "storage", "monitoring", "cluster", "people"}
    assert seen["purchase"] >= {"on_demand", "spot", "reserved", "savings_plan"}
    assert seen["use"] >= {"busy", "idle", "booting", "lost", "shared"}


@pytest.mark.parametrize("by", [*((key,) for key in KEYS), *PAIRS], ids=",".join)
def test_any_pivot_is_the_ledger(run: RunResult, by: tuple[str, ...]) -> None:
    total = booked(run)
    found = pivot(run, by)
    assert found.total_nano == total
    for across in ("use", "month", "category"):
        if across not in by:
            table = pivot(run, by, across)
            assert table.total_nano == total
            assert sum(table.column_nano(number) for number in range(len(table.columns))) == total
            # A part is split among clients by itself, so that their rows may differ by what is rounded in each column.
            most = 2 * len(table.columns) if "client" in by else 0
            rows = {row.keys: row.total_nano for row in table.rows}
            assert all(abs(rows.pop(row.keys, 0) - row.total_nano) <= most for row in found.rows)
            assert not any(rows.values())
    shown = found.shown
    assert sum(shown.rows) == shown.total
    if by == ("month",):
        assert {row.keys[0]: row.total_nano for row in found.rows} == {
            month.label: booked(run, f"month = '{month.label}'") for month in account_months(run)
        }


def test_a_tier_is_a_segment_of_a_service_without_any_tap(run: RunResult) -> None:
    tiers = {row.keys[0]: row.total_nano for row in pivot(run, ["tier"]).rows}
    parts = {"/".join(row.keys): row.total_nano for row in pivot(run, ["service", "segment"]).rows}
    assert {"chat/free", "chat/paid", "desk/all"} <= tiers.keys()
    assert {name: amount for name, amount in tiers.items() if "/" in name} == {
        name: amount for name, amount in parts.items() if not name.startswith("(unassigned)")
    }
    by_tier = {unit.keys[0]: unit for unit in unit_costs(run, ["tier"])}
    windows = run.sql("SELECT sum(completed) AS n FROM windows WHERE service = 'chat' AND segment = 'paid'")["n"][0]
    assert by_tier["chat/paid"].requests == windows
    assert by_tier["desk/all"].users == run.summary["services"]["desk"]["users"]["active"]


@pytest.mark.parametrize("by", list(itertools.combinations(GROUPS, 2)), ids=",".join)
def test_unit_costs_are_the_ledger(run: RunResult, by: tuple[str, ...]) -> None:
    found = unit_costs(run, by)
    assert sum(unit.total_nano for unit in found) == booked(run)
    for unit in found:
        assert unit.prompt_nano is None or unit.prompt_nano + (unit.output_nano or 0) <= unit.total_nano


def test_terms_of_a_difference_are_the_difference(run: RunResult, tmp_path: Path) -> None:
    before, after = (month.label for month in account_months(run))
    other = simulate(any_run(99), out=tmp_path / "other")
    cases = [
        (why_month(run, after), booked(run, f"month = '{before}'"), booked(run, f"month = '{after}'")),
        (why_month(run, before, after), booked(run, f"month = '{after}'"), booked(run, f"month = '{before}'")),
        (why_run(run, other), booked(run), booked(other)),
    ]
    for found, first, second in cases:
        assert (found.total.before_nano, found.total.after_nano) == (first, second)
        assert sum(found.total.terms_nano.values()) == second - first
        for change in found.services.values():
            assert sum(change.terms_nano.values()) == change.difference_nano
        for cents in found.shown.values():
            assert sum(cents.terms.values()) == cents.after - cents.before
    forth, back = cases[0][0].total, cases[1][0].total
    assert all(abs(amount + back.terms_nano[term]) <= len(forth.terms_nano) for term, amount in forth.terms_nano.items())


def test_the_difference_is_said_in_a_sentence_whose_amounts_add_up(run: RunResult, capsys: pytest.CaptureFixture[str]) -> None:
    found = why_month(run, "2026-10")
    sentence = why_sentence(found)
    head, parts = sentence.rstrip(".").split(", of which ")
    assert head.startswith("October 2026 cost ")
    assert " than September 2026" in head
    sign = 1 if " more than " in head else -1
    amounts = [round(100 * float(part.rsplit(" ", 1)[1].replace(",", ""))) for part in parts.replace(" and ", ", ").split(", ")]
    assert sum(amounts) == sign * round(100 * float(head.split(" cost ")[1].split(" USD")[0].replace(",", "")))
    assert main(["bill", str(run.folder), "--why", "2026-10"]) == 0
    assert " ".join(capsys.readouterr().out.split()).startswith(sentence)
