"""The scenario with a budget, from its file to the report."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim import open_run
from sim.app.cli import main


def test_the_report_says_when_the_alert_came(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = ["scenario=budget", "horizon=4d", "rate_per_s=0.01", "usd_per_month=600", "steps=[{at: 1d, replicas: 3}]"]
    assert main(["run", *short, f"out={tmp_path / 'run'}"]) == 0
    shown = capsys.readouterr().out
    assert "BUDGETS in USD by calendar month, times of America/New_York" in shown
    rows = {tuple(line.split()[:2]): line.split() for line in shown.splitlines() if line.strip()}
    # One machine for a day, known at 2:00 of the second: 165.12 dollars of 24 hours, 5,118.72 of 744.
    assert rows["forecast", "100%"][2:6] == ["10-02", "02:00", "5,118.72", "853.1%"]
    # Three machines from the second day on, of which the cap leaves two at 2:00.
    assert rows["cap_replicas", "two_at_most"][2:] == ["10-02", "02:00", "to", "the", "end"]
    assert ("overrun", "10-03") in rows


def test_the_report_says_what_acted_and_how_many_were_turned_away(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = ["scenario=budget_actions", "horizon=30h", "window=1h", "rate_per_s=0.02", "usd_per_month=4000", "forecast_after=6h"]
    assert main(["run", *short, f"out={tmp_path / 'run'}"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    # One machine at 6.88 dollars: 5,118.72 a month from the eighth hour on, 128 % of the budget, so both actions begin at once.
    turned_away = int(open_run(tmp_path / "run").table("windows")["throttled"].sum())
    assert turned_away > 100
    assert "half_of_free" in shown
    assert f"requests turned away {turned_away:,}" in shown
    assert "requests sent there 10-01 08:" in shown


def test_actions_on_traffic_are_shown_setting_by_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "scenario=budget_actions"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    shown = {row[0]: row[1:] for row in rows if row and row[0] in ("admitted_share", "others_most_replicas", "deployment")}
    assert shown["admitted_share"][0] == "0.5"
