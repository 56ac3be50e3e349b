"""Every experiment runs, at a small size: its sweep, its table, its figures (those that fit parameters have tests of their own)."""

from __future__ import annotations

import csv
import runpy
from pathlib import Path

import pytest

from sim.app.cli import main

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def test_every_experiment_is_named_here() -> None:
    named = {"01_cold_start_and_spot", "calibrate_gpu", "fit_batch_models", "fit_hardware"}
    assert {folder.name for folder in EXPERIMENTS.iterdir() if folder.is_dir()} == named


def test_cold_start_and_spot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = EXPERIMENTS / "01_cold_start_and_spot"
    code = main([
        "sweep", "--config-dir", str(folder), "scenario=slow_boots,fast_boots", f"out={tmp_path / 'sweep'}", "horizon=10m",
        "placement.on_demand_percentage=100,0", "deployments.llama_8b.autoscaler.metrics.0.target=12,24",
        "rate_per_s=1.0",
    ])  # fmt: skip
    assert code == 0
    runpy.run_path(str(folder / "figures.py"))["main"](tmp_path / "sweep", tmp_path)
    with (tmp_path / "results.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = [(row["spot_percent"], row["cold_start"], row["hpa_target"]) for row in rows]
    assert found == [(spot, boot, target) for spot in ("0", "100") for boot in ("fast", "slow") for target in ("12", "24")]
    # The same arrivals in every run.
    assert len({row["arrived"] for row in rows}) == 1
    assert all((tmp_path / name).stat().st_size > 10_000 for name in ("cost_and_slo.svg", "booting_and_latency.svg"))
    assert "8 of 8 jobs done" in capsys.readouterr().out
