"""The scenario of commitments from the command line's side, and the pages about buying capacity."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from sim import load_scenario, simulate
from sim.app.cli import main
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
    # Unused hours of them belong to no machine, and are part of the report all the same.
    assert main(["report", str(result.folder)]) == 0
    assert (result.folder / "report" / "cost_stack.png").exists()


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


def test_a_payment_up_front_is_on_the_invoice_and_spread_in_the_amortised_bill(tmp_path: Path, capsys: Any) -> None:
    # Two reserved for a year, 35,040 USD each on the first day: 2 x 4.00 an hour amortised.
    upfront = "{choice: reserved_instances, instance: p5.4xlarge, region: us-east-1, count: 2, payment: all_upfront, "
    row = f"{upfront}upfront_usd: '35040', begins: '2026-09-01T00:00:00Z'}}"
    scenario = load_scenario("commitments", ["horizon=10h", "start=2026-09-01T00:00:00Z", f"commitments={{ri: {row}}}"])
    scenario.out = str(tmp_path / "out")
    result = simulate(scenario)
    check_run(result)
    of_ri = "FROM ledger WHERE commitment = 'ri' GROUP BY ALL ORDER BY ALL"
    cash = result.sql(f"SELECT charge_category AS charge, sum(amount_nano_usd) AS amount {of_ri}")
    assert dict(zip(cash["charge"], cash["amount"], strict=True)) == {"purchase": 70_080 * 10**9, "usage": 0}
    assert sum(line.amount_nano for line in invoice(result)) == round(result.summary["bill"]["total_usd"] * 1e9)
    amortised = result.amortised()
    costs = amortised.sql(f"SELECT charge_category AS charge, sum(amount_nano_usd) AS amount {of_ri}")
    assert dict(zip(costs["charge"], costs["amount"], strict=True)) == {"purchase": 0, "usage": 80 * 10**9}
    parts = amortised.sql("SELECT sum(amount_nano_usd) AS amount FROM attribution")["amount"][0]
    total = amortised.sql("SELECT sum(amount_nano_usd) AS amount FROM ledger")["amount"][0]
    assert parts == total == result.sql("SELECT sum(amount_nano_usd) AS amount FROM ledger")["amount"][0] - 70_000 * 10**9
    # The command shows either, by any keys; the invoice is in cash.
    shown = {}
    for words in ((), ("--amortised",)):
        assert main(["bill", str(tmp_path / "out"), "--by", "category", "--json", *words]) == 0
        shown[words] = json.loads(capsys.readouterr().out)["nano_usd"]
    assert shown["--amortised",] == total
    assert shown[()] == total + 70_000 * 10**9
    assert main(["bill", str(tmp_path / "out")]) == 0
    assert f"amortised  {total / 1e9:,.2f} USD: payments up front" in capsys.readouterr().out
    assert main(["bill", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["amortised_nano_usd"] == total
    assert main(["bill", str(tmp_path / "out"), "--amortised"]) == 2
    assert "is no view of the invoice" in capsys.readouterr().err
