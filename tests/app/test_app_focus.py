"""`billcast bill --focus`: a real run with spot, on-demand machines and metered electricity, as a FOCUS file."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from sim import load_scenario, simulate
from sim.app.cli import main
from sim.units import NANO_PER_USD

HOUR = ["horizon=90m", "rate_per_s=2", "engine=reference", "pools.h100.electricity_billed=true", "autoscaler=static", "replicas=2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("focus") / "run"
    simulate(load_scenario("quickstart", HOUR), out=folder)
    return folder


def test_the_file_has_the_bill_of_the_run(run, tmp_path, capsys):
    file = tmp_path / "costs.parquet"
    assert main(["bill", str(run), "--focus", str(file)]) == 0
    assert capsys.readouterr().out == f"FOCUS 1.4  {file}  {duckdb.read_parquet(str(file)).shape[0]:,} rows\n"
    sums = duckdb.sql(f"SELECT PricingCategory, PricingUnit, sum(BilledCost) FROM '{file}' GROUP BY ALL").fetchall()
    assert {(category, unit) for category, unit, _ in sums} == {("Standard", "Hours"), ("Dynamic", "Hours"), ("Standard", "kWh")}
    [(nano,)] = duckdb.sql(f"SELECT sum(amount_nano_usd) FROM '{run / 'ledger.parquet'}'").fetchall()
    assert sum(amount for *_, amount in sums) * NANO_PER_USD == nano
    services = duckdb.sql(f"SELECT DISTINCT json_extract_string(AllocatedTags, 'service') FROM '{file}'").fetchall()
    assert ("chat",) in services


def test_problems_are_told_at_once(run, tmp_path, capsys):
    assert main(["bill", str(run), "--focus", str(tmp_path / "costs.txt"), "--focus-version", "9"]) == 2
    assert "--focus " in (shown := capsys.readouterr().err)
    assert "--focus-version" in shown
    assert main(["bill", str(run), "--focus", "costs.csv", "--json"]) == 2
    assert "comes alone" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
