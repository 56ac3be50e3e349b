"""Electricity by the hour in whole runs: from the settings to manifest, tables, summary, invoice and report."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

import sim
from sim import load_scenario, simulate
from sim.results.invoice import invoice
from sim.results.records import RunResult
from sim.schema import TABLES

ROOT = Path(sim.__file__).resolve().parents[1]
DAY = ROOT / "docs" / "how-to" / "invented-day.csv"


def run(folder: Path, *overrides: str) -> RunResult:
    """Eight replicas on one machine type for two hours, from 11:30 UTC on."""
    settings = ["horizon=2h", "start=2026-09-18T11:30:00Z", "services.chat.workload.rate_per_s=0.5", *overrides]
    return simulate(load_scenario("bench_chat8", settings), out=folder)


@pytest.fixture(scope="module")
def hourly(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A run with price and carbon of the page's day, electricity billed."""
    files = [f"energy.{kind}.{name}" for kind in ("price", "carbon") for name in (f"path={DAY}", "repeat=month_hour")]
    return run(tmp_path_factory.mktemp("grid") / "run", *files, "pools.h100.electricity_billed=true")


def test_hours_of_the_file_are_in_the_tables(hourly: RunResult) -> None:
    found = hourly.sql("SELECT DISTINCT local_hour, usd_per_kwh, gco2_per_kwh FROM energy ORDER BY ALL")
    assert list(zip(*found.values(), strict=True)) == [
        ("2026-09-18T11:00+00:00", "0.034", 166.0), ("2026-09-18T12:00+00:00", "0.018", 148.0),
        ("2026-09-18T13:00+00:00", "0.006", 140.0),
    ]  # fmt: skip
    cents = hourly.sql("""
        SELECT unit_price, abs(amount_nano_usd / 1e9 - quantity::DOUBLE * split_part(unit_price, ' ', 1)::DOUBLE) AS off
        FROM ledger WHERE category = 'energy'
    """)
    assert len(cents["off"]) == 3 * hourly.sql("SELECT count(*) AS n FROM leases")["n"][0]
    assert max(cents["off"]) < 1e-9


def test_manifest_and_summary_know_the_file(hourly: RunResult) -> None:
    assert hourly.manifest["inputs"][str(DAY)] == hashlib.sha256(DAY.read_bytes()).hexdigest()
    [site] = hourly.manifest["sites"].values()
    assert (site["price"]["repeated"], site["price"]["negative_hours"], site["intensity"]) == ("month_hour", 2, "average")
    energy = hourly.summary["energy"]
    tokens = sum(hourly.summary["tokens"].values())
    assert energy["wh_per_1m_tokens"] == pytest.approx(energy["kwh"] * 1e9 / tokens, rel=1e-12)
    assert energy["gco2_per_1m_tokens"] == pytest.approx(energy["kgco2"] * 1e9 / tokens, rel=1e-12)
    assert energy["usd"] == hourly.summary["bill"]["by_category"]["energy"]
    assert energy["assumed_share"]["usd"] == energy["assumed_share"]["kgco2"] == 1.0


def test_the_invoice_has_one_line_of_energy_a_month(hourly: RunResult) -> None:
    [line] = [line for line in invoice(hourly) if line.category == "energy"]
    mean = hourly.summary["energy"]["usd"] / hourly.summary["energy"]["kwh"]
    assert line.unit_price == f"{mean:.4f} mean"
    assert line.quantity == pytest.approx(hourly.summary["energy"]["kwh"], abs=1e-9)


def test_a_file_that_never_changes_is_the_setting_to_the_byte(tmp_path: Path) -> None:
    flat = tmp_path / "flat.csv"
    lines = [f"2026-09-18T{hour}:00Z,0.100,250.0" for hour in (11, 12, 13)]
    flat.write_text("\n".join(["time,usd_per_kwh,gco2_per_kwh", *lines]) + "\n", "utf-8")
    billed = "pools.h100.electricity_billed=true"
    files = [f"energy.{kind}.{name}" for kind in ("price", "carbon") for name in (f"path={flat}", "source=scenario")]
    by_file = run(tmp_path / "file", *files, billed)
    by_number = run(tmp_path / "number", "energy.usd_per_kwh=0.1", "energy.gco2_per_kwh=250", billed)
    for table in TABLES:
        assert (by_file.folder / f"{table}.parquet").read_bytes() == (by_number.folder / f"{table}.parquet").read_bytes(), table
    assert by_file.summary["energy"] == by_number.summary["energy"]


def test_a_pool_takes_its_power_where_it_says(tmp_path: Path) -> None:
    result = run(tmp_path / "run", "pools.h100.grid=home", "+energy.regions={home: {pue: 1.0, usd_per_kwh: 0.2, gco2_per_kwh: 20}}")
    energy = result.summary["energy"]
    assert list(energy["by_grid"]) == ["home"]
    assert (energy["usd"] / energy["kwh"], energy["kgco2"] / energy["kwh"]) == pytest.approx((0.2, 0.02), rel=1e-6)
    assert result.manifest["sites"]["h100"]["pue"] == 1.0
