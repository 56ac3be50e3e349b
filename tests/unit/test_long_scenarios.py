"""The scenarios that span months, at short horizons: what they promise, and memory that does not grow with the horizon."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Generator
from pathlib import Path

import pytest
import simpy

from sim import load_scenario, simulate
from sim.control.loop import run
from sim.control.world import World, build_world
from sim.results.records import RunResult, RunWriter
from sim.scenario.check import check
from sim.scenario.resolve import resolve
from sim.units import NS_PER_DAY, NS_PER_HOUR, duration_ns

LONG = {"quickstart": ("30d", 20.0), "quarter": ("90d", 50.0), "year_small": ("365d", 2.0)}


@pytest.mark.parametrize("name", LONG)
def test_a_long_scenario_is_as_long_and_as_busy_as_it_says(name: str) -> None:
    scenario = load_scenario(name)
    horizon, rate_per_s = LONG[name]
    load = scenario.services["chat"].workload.expected_load(scenario.start_instant, scenario.horizon_ns)
    assert scenario.horizon_ns == duration_ns(horizon)
    assert load.mean_rate_per_s == pytest.approx(rate_per_s, rel=0.02)
    assert scenario.engine == "compiled"


def test_the_quarter_grows_and_has_two_launches() -> None:
    """Tuesday evenings: the first one, each launch, and the last one, which has grown by 3 % a month."""
    scenario = load_scenario("quarter")
    workload, start = scenario.services["chat"].workload, scenario.start_instant
    # No random noise: what arrives in an hour is the difference of two planned means.
    by_hour_ns = [[(day * 24 + hour) * NS_PER_HOUR for hour in (20, 21)] for day in (0, 21, 56, 84)]
    usual, first, second, last = (
        sum(
            sign * workload.expected_load(start, end_ns).mean_rate_per_s * end_ns
            for sign, end_ns in zip((-1, 1), ends, strict=True)
        )
        for ends in by_hour_ns
    )
    assert 1.7 < first / usual < 1.9
    assert 1.6 < second / usual < 1.75
    assert 1.03**2.7 < last / usual < 1.15


def _decisions(result: RunResult) -> list[int]:
    return [int(value) for value in result.table("decisions")["after"]]


@pytest.mark.parametrize(("name", "horizon"), [("quickstart", "4h"), ("quarter", "4h"), ("year_small", "12h")])
def test_the_first_hours_of_a_long_scenario(name: str, horizon: str, tmp_path: Path) -> None:
    """A run keeps the laws (checked for every run of the suite), serves its users, and uses both purchase options."""
    result = simulate(load_scenario(name, [f"horizon={horizon}"]), out=tmp_path / "run")
    requests = result.summary["requests"]
    assert requests["completed"] > 0.99 * requests["arrived"] > 1_000
    assert result.summary["slo"]["chat"]["ttft"]["attainment"] > 0.95
    assert _decisions(result)
    assert set(result.table("leases")["purchase"].tolist()) == {"on_demand", "spot"}


@pytest.mark.slow
def test_what_is_alive_does_not_grow_after_the_second_day(tmp_path: Path) -> None:
    """The quarter at a hundredth of its rate, on machines that come and go; short buffers of rows are full by day 2."""
    settings = [
        "horizon=6d", "rate_per_s=0.4", "min_replicas=1", "max_replicas=5", "sync_period_s=5min", "scrape_s=1min",
        "metrics=[{source: pods, name: outstanding, type: AverageValue, target: 0.5}]", "scale_down.stabilization_window_s=5min",
    ]  # fmt: skip
    scenario = check(load_scenario("quarter", settings))
    alive: list[int] = []

    def weigh(env: simpy.Environment, world: World) -> Generator[simpy.Event, None, None]:
        while True:
            yield env.timeout(NS_PER_DAY)
            gc.collect()
            alive.append(tracemalloc.get_traced_memory()[0])

    with RunWriter(tmp_path / "run", rows=64) as writer:
        world = build_world(resolve(scenario))
        tracemalloc.start()
        try:
            run(world, writer.spool, probes=[weigh])
        finally:
            tracemalloc.stop()
        tables = writer.merge()
        assert int(tables.sql("SELECT count(*) AS n FROM leases")["n"][0]) > 50
    day_2, later = alive[1], alive[2:]
    assert len(later) >= 3
    assert max(later) < 1.05 * day_2, alive
