"""What taps cost: runs with and without them in alternation, and the counting of clients alone. `python -m benchmarks.taps`."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from sim import load_scenario
from sim.control.loop import run
from sim.control.world import build_world
from sim.domain.traffic import BLOCK_REQUESTS, RequestBlock, Stream
from sim.policies.taps.base import TapContext
from sim.policies.taps.counters import Clients
from sim.results.records import RunWriter
from sim.scenario import Scenario
from sim.scenario.resolve import resolve
from sim.units import NS_PER_DAY

CHOICES = {
    "none": [],
    "tiers of arrivals": ["+taps.tap=tiers"],
    "clients of arrivals": ["+taps.tap=clients"],
    "tiers of completions": ["+taps.tap=tiers", "+taps.tap.counts=completions"],
    "clients of completions": ["+taps.tap=clients", "+taps.tap.counts=completions"],
}


def _cpu_s(scenario: Scenario) -> float:
    """CPU time of one run, without its merge."""
    with tempfile.TemporaryDirectory() as folder, RunWriter(Path(folder) / "run") as writer:
        world = build_world(resolve(scenario))
        began = time.process_time()
        run(world, writer.spool)
        return time.process_time() - began


def tap_cost(horizon: str = "1h", repetitions: int = 9) -> dict[str, float]:
    """Return the CPU time of bench_chat8 with each tap relative to none: medians of the ratios within one repetition."""
    scenarios = {name: load_scenario("bench_chat8", [f"horizon={horizon}", *settings]) for name, settings in CHOICES.items()}
    for scenario in scenarios.values():
        _cpu_s(scenario)
    runs = [{name: _cpu_s(scenario) for name, scenario in scenarios.items()} for _ in range(repetitions)]
    return {name: round(statistics.median(one[name] / one["none"] for one in runs), 2) for name in CHOICES}


def counting_cost(blocks: int = 40) -> dict[str, float]:
    """Return nanoseconds a request to count clients: few of them, and many more than are kept (Zipf 1.1 over a million)."""
    draws = np.random.default_rng(1)
    chances = np.arange(1, 1_000_001) ** -1.1
    table = np.cumsum(chances / chances.sum())
    found = {}
    for name, clients in (
        ("1,000 clients", draws.integers(0, 1_000, BLOCK_REQUESTS * blocks)),
        ("1,000,000 clients, 10,000 kept", np.searchsorted(table, draws.random(BLOCK_REQUESTS * blocks))),
    ):
        tap = Clients()
        tap.start(TapContext((Stream(0, "chat", "all"),), np.array([NS_PER_DAY]), ("completed",)))
        ones = np.ones(BLOCK_REQUESTS, np.int64)
        times_s = []
        for part in clients.reshape(blocks, BLOCK_REQUESTS):
            block = RequestBlock.of(arrival_ns=ones, prompt_tokens=ones, output_tokens=ones, client=part)
            began = time.process_time()
            tap.arrivals(block)
            times_s.append(time.process_time() - began)
        found[name] = round(statistics.median(times_s) / BLOCK_REQUESTS * 1e9)
    return found


if __name__ == "__main__":
    print(json.dumps({"cpu_time_over_none": tap_cost(), "counting_ns_per_request": counting_cost()}, indent=2))
