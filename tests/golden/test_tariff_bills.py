"""Bills of every cloud's rule for machines, worked by hand, at a million nano-dollars a second."""

from __future__ import annotations

from pathlib import Path

import pytest
from billing_kit import Lists, charge, lease, make_ledger, pool_billing
from control_kit import FIXED, scenario, tables_of

from sim.billing.machine_rules import on_demand_rule
from sim.billing.rates import Rate
from sim.billing.tariffs import MachineTariff
from sim.policies.autoscalers.static import Static
from sim.scenario import Deployment, Pool
from sim.units import NS_PER_S

MILLION = 1_000_000
ONE_A_SECOND = (Rate(0, 3_600 * MILLION, "3.60", "scenario", "assumed"),)


@pytest.mark.parametrize(
    ("offer", "life_s", "seconds_paid"),
    [
        # EC2 and Compute Engine: whole seconds, at least 60 a start
        ("aws", 1.0, 60),
        ("aws", 59.2, 60),
        ("aws", 60.001, 61),
        ("gcp", 59.2, 60),
        ("gcp", 3600.5, 3601),
        # chips of Cloud TPU, Azure and RunPod: whole seconds, no minimum
        ("tpu", 1.5, 2),
        ("azure", 59.0, 59),
        ("azure", 59.2, 60),
        ("runpod", 10.0, 10),
        # Lambda and CoreWeave: whole minutes
        ("lambda", 1.0, 60),
        ("lambda", 61.0, 120),
        ("coreweave", 120.0, 120),
        ("coreweave", 120.1, 180),
        # a cloud nobody wrote a rule for
        ("elsewhere", 7.3, 8),
    ],
)
def test_seconds_paid_by_the_rule_of_the_cloud(offer: str, life_s: float, seconds_paid: int) -> None:
    sink = Lists()
    tariff = MachineTariff(ONE_A_SECOND, on_demand_rule(offer))
    charge(make_ledger(sink, pool_billing(tariff)), lease(0, 0, round(life_s * NS_PER_S)))
    assert sum(sink.amounts()) == seconds_paid * MILLION
    assert sink.tables["leases"][0]["billed_ns"] == seconds_paid * NS_PER_S
    assert {row["tariff"] for row in sink.tables["ledger"]} == {on_demand_rule(offer).name}


def test_a_tpu_is_paid_from_ready_and_a_virtual_machine_from_running(tmp_path: Path) -> None:
    # 10 s of waiting for the machine, 20 s of booting, then 120 s until the replica is ready. A Cloud TPU node is READY once it has
    # booted: 3,600 - 30 s at 4.80 USD an hour for its four chips. Other machines are paid from RUNNING: 3,600 - 10 s.
    def bill(pool: Pool) -> tuple[int, int]:
        fleet = {"llama": Deployment(pools=["gpu"], autoscaler=Static(replicas=1), tensor_parallel=1, start="cold")}
        tables = tables_of(scenario(pools={"gpu": pool}, deployments=fleet), tmp_path / pool.instance)
        return tables["leases"]["start_ns"][0] // NS_PER_S, sum(tables["ledger"]["amount_nano_usd"])

    tpu = Pool(instance="ct5lp-hightpu-4t", region="us-central1", zones=["us-central1-a"], cold_start=FIXED)
    assert bill(tpu) == (30, 4_760_000_000)
    assert bill(Pool(cold_start=FIXED, price_usd_per_hour="4.80")) == (10, 4_786_666_667)
