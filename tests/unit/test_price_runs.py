"""The leases of a run, priced by its own scenario, are its own rows for machines to the nano-dollar."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from control_kit import FIXED, scenario

from sim import simulate
from sim.policies.autoscalers.schedule import Schedule, ScheduleStep
from sim.policies.autoscalers.static import Static
from sim.results.records import RunResult
from sim.scenario import Account, Deployment, Failure, Pool, Scenario, Spot
from sim.scenario.commitments import (
    CapacityReservation,
    ComputeSavingsPlan,
    InstanceSavingsPlan,
    ReservedInstances,
)
from sim.scenario.owned import Block, Owned
from sim.schema import TABLES
from sim.studies.price import PricedLives, price_lives

MACHINES = ("compute", "minimum", "commitment_waste")
# Quantities are decimals here and floats there; start, end and price decide them.
COLUMNS = tuple(column.name for column in TABLES["ledger"].columns if column.name not in ("row", "quantity"))
MOVING = Schedule(replicas=1, steps=[ScheduleStep("20m", 4), ScheduleStep("65m", 2), ScheduleStep("2h", 3)])


def fleet(**pool: Any) -> dict[str, Any]:
    """A fleet of one pool whose number of machines moves."""
    return {
        "horizon": "3h",
        "pools": {"gpu": Pool(cold_start=FIXED, **pool)},
        "deployments": {"llama": Deployment(pools=["gpu"], autoscaler=MOVING, start="cold")},
    }


def reserved(**columns: Any) -> ReservedInstances:
    return ReservedInstances(instance="p5.4xlarge", region="us-east-1", count=1, **columns)


SCENARIOS: dict[str, dict[str, Any]] = {
    "on demand, a zone of half hours": fleet() | {"account": Account("a", "Asia/Kolkata")},
    "crashes": fleet() | {"failures": [Failure("30m", "gpu", nodes=2)]},
    "spot that is taken often": fleet(
        purchase="spot", instance="g5.xlarge", zones=["us-east-1a", "us-east-1b"], spot=Spot(market="aws-v100-tight")
    )
    | {"horizon": "12h"},
    "commitments of every kind": fleet()
    | {
        "commitments": {
            "kept": CapacityReservation(instance="p5.4xlarge", region="us-east-1", zone="us-east-1a", count=2),
            "zonal": reserved(zone="us-east-1a", usd_per_hour="4.10"),
            "regional": reserved(usd_per_hour="4.50"),
            "family": InstanceSavingsPlan(family="p5", region="us-east-1", usd_per_hour="3.33", discount=0.3),
            "all": ComputeSavingsPlan(usd_per_hour="1.11", discount=0.2),
        }
    },
    "own machines": fleet(
        purchase="owned", quota_nodes=4, owned=Owned("87600", residual_share=1.0, maintenance_share_per_year=1.0)
    ),
    "a block": fleet(purchase="capacity_block", quota_nodes=2, block=Block("2026-01-05T01:00:00Z", 1, "39.33"))
    | {"deployments": {"llama": Deployment(pools=["gpu"], autoscaler=Static(replicas=1), start="cold")}},
    "chips of a pod": fleet(instance="ct5lp-hightpu-4t", region="us-central1", zones=["us-central1-a"])
    | {"deployments": {"llama": Deployment(pools=["gpu"], autoscaler=MOVING, start="cold", tensor_parallel=4)}},
}


def run_of(name: str, folder: Path) -> RunResult:
    made: Scenario = scenario(**SCENARIOS[name])
    made.services["chat"].queue_timeout_s = 30.0
    return simulate(made, out=folder)


def rows_of(priced: PricedLives) -> list[tuple[Any, ...]]:
    return sorted(tuple(row[name] for name in COLUMNS) for row in priced.ledger)


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_leases_of_a_run_cost_what_the_run_says(name: str, tmp_path: Path) -> None:
    run = run_of(name, tmp_path / "run")
    wanted = ", ".join(f"'{category}'" for category in MACHINES)
    columns = run.sql(f"SELECT {', '.join(COLUMNS)} FROM ledger WHERE category IN ({wanted})")
    booked = sorted(zip(*(column.tolist() for column in columns.values()), strict=True))
    assert len(booked) > 1
    priced = price_lives(tmp_path / "run")
    assert rows_of(priced) == booked
    leases = run.table("leases")
    assert [row["billed_ns"] for row in priced.leases] == leases["billed_ns"].tolist()


def test_as_it_was_bought_is_as_it_was(tmp_path: Path) -> None:
    """The same leases as lives with the purchase that they had: another way to the same rows."""
    name = "spot that is taken often"
    run = run_of(name, tmp_path / "run")
    causes = set(run.table("leases")["cause"].tolist())
    assert "interrupted" in causes
    own = price_lives(tmp_path / "run")
    again = own.bought_as("spot")
    assert again.amount_nano == own.amount_nano > 0
    assert own.bought_as("on_demand").amount_nano > own.amount_nano


def test_a_run_at_other_prices_and_other_commitments(tmp_path: Path) -> None:
    run_of("on demand, a zone of half hours", tmp_path / "run")
    overlay = tmp_path / "mine.yaml"
    overlay.write_text(
        'instances:\n  p5.4xlarge: {on_demand: {us-east-1: "13.76"}, source: contract, date: 2026-11-01, confidence: published}\n'
    )
    plain, twice = price_lives(tmp_path / "run"), price_lives(tmp_path / "run", catalog=overlay)
    # twice 6.88; each row is rounded for itself
    assert abs(twice.amount_nano - 2 * plain.amount_nano) <= len(plain.ledger)
    free = price_lives(tmp_path / "run", commitments={"all": ReservedInstances(
        instance="p5.4xlarge", region="us-east-1", count=4, usd_per_hour="1.00",
    )})  # fmt: skip
    # four machines for three hours at 1.00, whatever ran; no more than four did
    assert free.usd == "12.00"
