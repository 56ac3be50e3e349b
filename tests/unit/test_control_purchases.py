"""Runs on machines of one's own, in capacity blocks and under commitments: laws of a run hold, the bill is as the rules say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from control_kit import FIXED, scenario, tables_of

from sim.policies.autoscalers.static import Static
from sim.scenario import Deployment, Pool
from sim.scenario.commitments import InstanceSavingsPlan, ReservedInstances
from sim.scenario.owned import Block, Owned


def sums(tables: dict[str, dict[str, Any]], *names: str) -> dict[tuple[Any, ...], int]:
    """Amounts of the ledger by some columns."""
    found: dict[tuple[Any, ...], int] = {}
    ledger = tables["ledger"]
    for *key, amount in zip(*(ledger[name] for name in names), ledger["amount_nano_usd"], strict=True):
        found[tuple(key)] = found.get(tuple(key), 0) + amount
    return found


def test_own_machines_are_paid_for_used_or_not_and_their_streams_pay_for_idle_ones(tmp_path: Path) -> None:
    # Two machines at 10 USD an hour (87,600 in 8,760 hours of upkeep); one serves for the three hours.
    owned = Owned("87600", residual_share=1.0, maintenance_share_per_year=1.0)
    pool = Pool(purchase="owned", quota_nodes=2, owned=owned, cold_start=FIXED)
    tables = tables_of(scenario(horizon="3h", pools={"gpu": pool}), tmp_path)
    found = sums(tables, "category")
    assert (found["compute",], found["commitment_waste",]) == (30 * 10**9, 30 * 10**9)
    assert found["energy",] == sum(tables["leases"]["electricity_nano_usd"]) > 0
    # Nobody else is there: the only service pays for all of it.
    assert set(tables["attribution"]["service"]) == {"chat"}


def test_a_block_gives_machines_in_its_time_and_is_paid_once(tmp_path: Path) -> None:
    # A day from 01:00 on, in a run of 26 hours; the machines go 30 minutes before the end.
    block = Block("2026-01-05T01:00:00Z", 1, "10")
    pool = Pool(purchase="capacity_block", quota_nodes=1, block=block, cold_start=FIXED)
    fleet = {"llama": Deployment(pools=["gpu"], autoscaler=Static(replicas=1), start="cold")}
    made = scenario(horizon="26h", pools={"gpu": pool}, deployments=fleet)
    made.services["chat"].queue_timeout_s = 30.0
    tables = tables_of(made, tmp_path)
    hour_ns = 3_600 * 10**9
    assert sums(tables, "lease", "category") == {
        (-1, "compute"): 240 * 10**9,
        (0, "compute"): 0,
        (-1, "commitment_waste"): 0,
    }
    # Amortised, the 24 hours cost the same: what ran and what stood empty.
    assert sum(tables["ledger"]["effective_nano_usd"]) == 240 * 10**9
    leases = tables["leases"]
    # asked for when the block begins, and pending for ten seconds
    assert (leases["start_ns"], leases["end_ns"]) == ([hour_ns + 10 * 10**9], [24 * hour_ns + hour_ns // 2])
    assert "block_over" in tables["events"]["kind"]


def test_commitments_change_the_price_of_a_run_and_nothing_else(tmp_path: Path) -> None:
    # Three machines for two hours: two reserved at 5.00, one on a plan at 6.88 less 37 % = 4.3344; of the plan's 6.00
    # 1.6656 are lost.
    fleet = {"llama": Deployment(pools=["gpu"], autoscaler=Static(replicas=3))}
    commitments = {
        "ri": ReservedInstances(instance="p5.4xlarge", region="us-east-1", count=2, usd_per_hour="5.00"),
        "plan": InstanceSavingsPlan(family="p5", region="us-east-1", usd_per_hour="6.00"),
    }
    plain = tables_of(scenario(horizon="2h", deployments=fleet), tmp_path / "plain")
    tables = tables_of(scenario(horizon="2h", deployments=fleet, commitments=commitments), tmp_path / "committed")
    assert sums(tables, "purchase", "category") == {
        ("reserved", "compute"): 20 * 10**9,
        ("savings_plan", "compute"): 8_668_800_000,
        ("savings_plan", "commitment_waste"): 3_331_200_000,
    }
    for name in ("usage", "replicas", "nodes", "events", "decisions", "histograms"):
        assert tables[name] == plain[name]
