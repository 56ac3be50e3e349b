"""The scenario with a budget, from its file to the report."""

from __future__ import annotations

from pathlib import Path

import pytest

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
    assert rows["actions", "begun:"][2] == "1"
    assert ("overrun", "10-03") in rows
