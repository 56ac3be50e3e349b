"""Bills of fixed fleets worked by hand: one's own machines, capacity blocks, committed and sustained use."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from commitment_kit import bill, lines, rented

from sim.scenario import Pool
from sim.scenario.commitments import CommittedUse
from sim.scenario.owned import Block, Owned
from sim.units import NANO_PER_USD as USD

# 350,000 USD, 12 % for the network, 30 % left after 36 months, 5 % upkeep a year.
SERVER = Owned("350000", network_share=0.12, residual_share=0.3, months=36, maintenance_share_per_year=0.05)
N1 = """instances:
  n1-gpu:
    cloud: gcp
    accelerator: t4
    accelerators: 1
    vcpu: 8
    ram_gib: 30
    host_w: 50
    on_demand:
      us-central1:
        - {usd_per_hour: "1.00", valid_from: 2026-01-01, source: an example, date: 2026-01-01, confidence: assumed}
    source: an example
    date: 2026-01-01
    confidence: assumed
"""


def test_an_hour_of_an_own_server() -> None:
    # 350,000 x 1.12 x 0.7 / (36 x 730) = 274,400 / 26,280 = 10.441400304; 350,000 x 0.05 / 8,760 = 1.997716895; 12.439117199
    assert SERVER.usd_per_hour() == Decimal("12.439117199")
    # With 8 kW x 1.3 x 0.12 USD/kWh = 1.248 of electricity: 13.687, "13.7 USD an hour".
    assert round(float(SERVER.usd_per_hour()) + 8 * 1.3 * 0.12, 1) == 13.7
    # In colocation at 200 USD/kW-month for 10.2 kW: 2,040 / 730 = 2.794520548 more, and no electricity: "15.2 USD an hour".
    placed = Owned("350000", 0.12, 0.3, 36, 0.05, "200", 10.2)
    assert placed.usd_per_hour() == Decimal("15.233637747")


def test_own_machines_cost_the_same_used_or_not() -> None:
    # Two machines at 12.439117199 for two hours, one used for half an hour: 4 x 12.439117199 = 49.756468796 in all.
    # Used: 6.2195585995, half even to 6.219558600 (the row's sum is 6.2195585995). Electricity of the machine that runs: idle
    # 2 x 100 W and host 200 W for half an hour, x 1.25 = 0.25 kWh at 0.10 USD.
    pools = {"own": Pool(purchase="owned", owned=SERVER, quota_nodes=2)}
    sink = bill(pools, {}, [rented(0, "own", 0, 1800, purchase="owned")], hours=2)
    found = lines(sink, "category", "purchase", "tariff")
    assert found["energy", "owned", "metered_energy"] == 25_000_000
    used, unused = found["compute", "owned", "owned"], found["commitment_waste", "owned", "owned"]
    assert used == 6_219_558_600
    assert used + unused == 49_756_468_796


def test_own_machines_in_colocation_have_no_electricity_on_the_bill() -> None:
    placed = Owned("350000", 0.12, 0.3, 36, 0.05, "200", 10.2, "1.00")
    pools = {"own": Pool(purchase="owned", owned=placed, quota_nodes=1)}
    sink = bill(pools, {}, [rented(0, "own", 0, 3600, purchase="owned")], hours=1)
    # 15.233637747 and a dollar for people
    assert lines(sink, "category") == {("compute",): 16_233_637_747}


def test_a_capacity_block_is_paid_as_a_whole_when_it_begins() -> None:
    # Two machines for one day at 39.33 an hour, from 06:00: 2 x 24 x 39.33 = 1,887.84, when it begins; use costs nothing more.
    block = Block("2026-01-05T06:00:00Z", 1, "39.33")
    pools = {"block": Pool(purchase="capacity_block", block=block, quota_nodes=2, instance="p5.48xlarge")}
    leases = [rented(0, "block", 6 * 3600, 20 * 3600 + 0.5, purchase="capacity_block", instance="p5.48xlarge")]
    sink = bill(pools, {}, leases, hours=24)
    assert lines(sink, "lease", "category", "charge_category") == {
        (-1, "compute", "purchase"): 1_887_840_000_000,
        (0, "compute", "usage"): 0,
        (-1, "commitment_waste", "usage"): 0,
    }
    bought = [row for row in sink.tables["ledger"] if row["charge_category"] == "purchase"]
    assert [row["local_hour"] for row in bought] == ["2026-01-05T06:00+00:00"]
    # Amortised: 18 of the 24 hours lie in the run, 2 x 18 x 39.33 = 1,415.88; the machine has 14 h and half a second of them:
    # 14 x 39.33 + 39.33 / 7,200 = 550.6254625. The other 1,415.88 - 550.6254625 stood empty.
    assert lines(sink, "lease", "category", "charge_category", amount="effective_nano_usd") == {
        (-1, "compute", "purchase"): 0,
        (0, "compute", "usage"): 550_625_462_500,
        (-1, "commitment_waste", "usage"): 865_254_537_500,
    }


def test_tpu_chips_under_a_committed_use() -> None:
    # 4.80 an hour on demand, 30 % less committed for a year: 3.36. Two machines for half an hour each and one committed.
    pools = {"tpu": Pool(instance="ct5lp-hightpu-4t", region="us-central1")}
    commitments = {"cud": CommittedUse(instance="ct5lp-hightpu-4t", region="us-central1")}
    leases = [rented(number, "tpu", 0, 2700, instance="ct5lp-hightpu-4t") for number in range(2)]
    # 1.5 h of machines: 1 h at 3.36, half an hour at 4.80
    assert lines(bill(pools, commitments, leases, hours=1), "purchase", "unit_price", "confidence") == {
        ("committed_use", "3.36 per hour", "published"): 3_360_000_000,
        ("on_demand", "4.80 per hour", "published"): 2_400_000_000,
    }


@pytest.fixture
def n1_catalog(tmp_path: Path) -> str:
    """A catalog with a machine of a family that has sustained-use discounts, at 1.00 USD an hour."""
    path = tmp_path / "n1.yaml"
    path.write_text(N1, "utf-8")
    return str(path)


def test_a_month_of_sustained_use_costs_seven_tenths(n1_catalog: str) -> None:
    # January has 744 hours: 186 each at 1.00, 0.80, 0.60 and 0.40: 520.80 = 70 % of 744. From 1 January on.
    pools = {"n1": Pool(instance="n1-gpu", region="us-central1")}
    month = 744 * 3600
    leases = [rented(0, "n1", 0, month, instance="n1-gpu")]
    sink = bill(pools, {}, leases, hours=744, start="2026-01-01T00:00:00Z", catalog=n1_catalog)
    assert lines(sink, "tariff", "unit_price") == {
        ("gce_on_demand", "1.00 per hour"): 186 * USD,
        ("sustained_use", "0.8 per hour"): 148_800_000_000,
        ("sustained_use", "0.6 per hour"): 111_600_000_000,
        ("sustained_use", "0.4 per hour"): 74_400_000_000,
    }


def test_machines_that_do_not_overlap_are_one_inferred_machine(n1_catalog: str) -> None:
    # Half a month one machine, the other half another: 520.80 as before. Both in the first half: each pays half a month by itself,
    # 186 x 1.00 + 186 x 0.80 = 334.80, twice.
    pools = {"n1": Pool(instance="n1-gpu", region="us-central1")}
    half = 372 * 3600
    after = [rented(0, "n1", 0, half, instance="n1-gpu"), rented(1, "n1", half, 2 * half, instance="n1-gpu")]
    sink = bill(pools, {}, after, hours=744, start="2026-01-01T00:00:00Z", catalog=n1_catalog)
    assert sum(sink.amounts()) == 520_800_000_000
    beside = [rented(number, "n1", 0, half, instance="n1-gpu") for number in range(2)]
    sink = bill(pools, {}, beside, hours=744, start="2026-01-01T00:00:00Z", catalog=n1_catalog)
    assert sum(sink.amounts()) == 669_600_000_000


def test_what_is_committed_gets_no_sustained_use_and_months_begin_anew(n1_catalog: str) -> None:
    # One of two machines committed at 0.63; the other one pays its own tiers. The last 12 hours of January and the first 12 of
    # February are both in the first quarter of their month: 24 x 1.00, and 24 x 0.63.
    pools = {"n1": Pool(instance="n1-gpu", region="us-central1")}
    commitments = {"cud": CommittedUse(instance="n1-gpu", region="us-central1")}
    leases = [rented(number, "n1", 0, 24 * 3600, instance="n1-gpu") for number in range(2)]
    sink = bill(pools, commitments, leases, hours=24, start="2026-01-31T12:00:00Z", catalog=n1_catalog)
    assert lines(sink, "month", "purchase", "unit_price") == {
        ("2026-01", "committed_use", "0.63 per hour"): 7_560_000_000,
        ("2026-01", "on_demand", "1.00 per hour"): 12 * USD,
        ("2026-02", "committed_use", "0.63 per hour"): 7_560_000_000,
        ("2026-02", "on_demand", "1.00 per hour"): 12 * USD,
    }


def test_families_without_sustained_use_pay_the_price(n1_catalog: str) -> None:
    pools = {"g2": Pool(instance="g2-standard-4", region="us-central1", price_usd_per_hour="1.00")}
    leases = [rented(0, "g2", 0, 744 * 3600, instance="g2-standard-4")]
    sink = bill(pools, {}, leases, hours=744, start="2026-01-01T00:00:00Z", catalog=n1_catalog)
    assert sum(sink.amounts()) == 744 * USD
