"""The scenario of commitments from the command line's side, and the pages about buying capacity."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from sim import load_scenario, simulate
from sim.catalog.loader import load_catalog
from sim.errors import Problems
from sim.results.invariants import check_run
from sim.results.invoice import invoice
from sim.scenario.check_purchases import check_purchases
from sim.scenario.plain import scenario_from_plain

DOCS = Path(__file__).parents[2] / "docs"


def test_four_ways_to_buy_are_on_one_invoice(tmp_path: Path) -> None:
    scenario = load_scenario("commitments", ["horizon=10h", f"out={tmp_path / 'out'}"])
    result = simulate(scenario)
    check_run(result)
    found = invoice(result)
    assert {line.purchase for line in found} == {"on_demand", "spot", "reserved", "savings_plan"}
    assert sum(line.amount_nano for line in found) == sum(result.table("ledger")["amount_nano_usd"].tolist())
    # Two reserved at 6.88 less 37 %, and 3.50 of the plan, every hour.
    promised = sum(line.amount_nano for line in found if line.purchase in ("reserved", "savings_plan"))
    assert promised == 10 * (2 * 4_334_400_000 + 3_500_000_000)


@pytest.mark.parametrize("number", range(4))
def test_settings_of_the_page_are_valid(number: int) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (DOCS / "how-to" / "buy-capacity.md").read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 4
    problems = Problems()
    scenario = scenario_from_plain({"start": "2026-09-01T00:00:00Z", **yaml.safe_load(blocks[number])}, problems)
    check_purchases(scenario, load_catalog(), problems)
    assert problems.found == []


def test_the_overlay_of_the_page_sets_a_price(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", (DOCS / "reference" / "tariffs.md").read_text("utf-8"), re.DOTALL)
    assert len(text.splitlines()) == 3
    path = tmp_path / "prices.yaml"
    path.write_text(text, "utf-8")
    (price,) = load_catalog(path).instances["p5.48xlarge"].on_demand["us-east-1"]
    assert (price.usd_per_hour, price.provenance.source) == ("41.00", "our contract")
