"""Lines of the invoice keep their own names: two lines of one category, unit and price are two lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from control_kit import scenario

from sim import simulate
from sim.app.cli import main
from sim.results.invoice import invoice
from sim.scenario.other_costs import OtherCosts

ROW = """
  {name}:
    {{line: {line}, cloud: aws, unit: GB, {known}, prices: [{{valid_from: 2026-01-01, {known},
      tiers: [{{above: 0, usd_per_unit: "0.05"}}]}}]}}"""
KNOWN = "source: a case, date: 2026-01-01, confidence: published"


def test_two_network_lines_of_one_price_do_not_merge(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overlay = tmp_path / "mine.yaml"
    names = {"internet_egress": "home-out", "cross_zone": "home-across"}
    overlay.write_text(
        "cost_lines:" + "".join(ROW.format(name=name, line=line, known=KNOWN) for line, name in names.items()), "utf-8"
    )
    result = simulate(scenario(catalog=str(overlay), other_costs=OtherCosts(prices=names)), out=tmp_path / "run")
    lines = {line.item: line for line in invoice(result) if line.category == "network"}
    assert list(lines) == ["home-across", "home-out"]
    assert {line.unit_price for line in lines.values()} == {"0.05 per GB"}
    booked = result.sql("SELECT tariff, sum(amount_nano_usd) AS n FROM ledger WHERE category = 'network' GROUP BY ALL ORDER BY ALL")
    assert dict(zip(*(column.tolist() for column in booked.values()), strict=True)) == {
        name: line.amount_nano for name, line in lines.items()
    }
    assert [line.item for line in invoice(result) if line.category != "network"] == [""]  # machine hours
    assert main(["bill", str(tmp_path / "run")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "network home-across" in shown
    assert "network home-out" in shown
    assert main(["bill", str(tmp_path / "run"), "--csv", "-"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    column = head.split(",").index("item")
    assert {"home-across", "home-out"} <= {row.split(",")[column] for row in rows}
