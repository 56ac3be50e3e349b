"""Cost spikes: days by hand, their causes, and days that are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from control_kit import FIXED, poisson, scenario, schedule
from rich.console import Console

from sim import simulate
from sim.report.spikes import spikes_table
from sim.results.records import RunResult
from sim.results.spikes import modified_z, spikes
from sim.scenario import Account, Pool, Scenario, Service
from sim.workload.specs import Event, TokenLengths
from sim.workload.synthetic import Synthetic

USD = 10**9


def _quiet(*steps: tuple[str, int], **changes: Any) -> Scenario:
    """One machine at a dollar an hour, as many as the steps say, and a request every half an hour."""
    parts: dict[str, Any] = {
        "start": "2026-03-02T05:00:00Z",  # Monday 0:00 in New York
        "horizon": "20d",
        "account": Account(timezone="America/New_York"),
        "services": {"chat": Service(workload=poisson(0.0005), deployments=["llama"])},
        "deployments": schedule(1, *steps),
        "pools": {"gpu": Pool(cold_start=FIXED, price_usd_per_hour="1")},
    }
    return scenario(**{**parts, **changes})


def _brief(result: RunResult) -> list[tuple[str, int, int, str, str]]:
    return [
        (spike.day, spike.cost_nano // USD, round(spike.median_nano) // USD, spike.against, spike.cause) for spike in spikes(result)
    ]


def test_a_score_by_hand() -> None:
    # Median 10, distances 0 0 1 2 3 with the median 1: 0.6745 x 5 / 1.
    assert modified_z(15, [10, 10, 9, 12, 13]) == pytest.approx(3.3725)
    assert modified_z(5, [10, 10, 9, 12, 13]) == pytest.approx(-3.3725)


def test_a_second_machine_that_nobody_needs_is_idle(tmp_path: Path) -> None:
    # Wednesday the 11th, after seven weekdays at 24 dollars. On the 8th the clocks went on by an hour, so the second machine runs
    # from 1:00 to 1:00, and from ten seconds after it was asked for.
    result = simulate(_quiet(("9d", 2), ("10d", 1)), out=tmp_path / "run")
    assert _brief(result) == [("2026-03-11", 46, 24, "2026-03-05", "idle")]
    spike = spikes(result)[0]
    against = result.sql("SELECT sum(amount_nano_usd) AS nano FROM ledger WHERE local_hour[:10] = '2026-03-05'")["nano"][0]
    assert sum(spike.terms_nano.values()) == spike.cost_nano - against
    console = Console(width=80, record=True)
    console.print(spikes_table(result))
    assert "chat/all 2026-03-11" in console.export_text()


def test_a_day_needs_five_others_of_its_kind(tmp_path: Path) -> None:
    # The fifth weekday has four before it; of the second weekend no day has more than three.
    result = simulate(_quiet(("4d", 2), ("5d", 1), ("12d", 2), ("14d", 1), horizon="15d"), out=tmp_path / "run")
    assert spikes(result) == []
    assert spikes_table(result) is None


def test_more_requests_than_usual_are_traffic(tmp_path: Path) -> None:
    """Two services share one machine; on one day the second has five times its requests, and pays for more of the machine."""
    usual = Synthetic(
        rate_per_s=0.01,
        noise_sd=0.0,
        week_weights=[1.0] * 168,
        events={"fair": Event(at="9d", factor=5.0, lasts="23h")},
        prompt=TokenLengths(family="fixed", mean=100),
        output=TokenLengths(family="fixed", mean=20),
    )
    services = {
        "chat": Service(workload=poisson(0.01), deployments=["llama"]),
        "search": Service(workload=usual, deployments=["llama"]),
    }
    result = simulate(_quiet(services=services, horizon="12d"), out=tmp_path / "run")
    (found,) = spikes(result)
    assert (found.service, found.day, found.cause) == ("search", "2026-03-11", "traffic")
