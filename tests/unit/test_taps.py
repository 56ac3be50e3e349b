"""Taps: exact counts, the error of heavy hitters, and the law that a tap changes no other table."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from control_kit import poisson, scenario, schedule, tables_of
from hypothesis import given
from hypothesis import strategies as st

from sim.control.loop import run
from sim.control.world import build_world
from sim.domain.traffic import RequestBlock, Stream
from sim.errors import InputError
from sim.policies.taps.base import Tap, TapContext
from sim.policies.taps.counters import Clients, Tiers
from sim.policies.taps.heavy_hitters import HeavyHitters
from sim.registry import register
from sim.results.records import RunWriter
from sim.scenario import Deployment, Failure, Scenario, Service
from sim.scenario.check import check
from sim.scenario.resolve import resolve
from sim.schema import TABLES
from sim.units import NS_PER_HOUR
from sim.workload.clients import ClosedLoop

TAP_TABLES = ("client_counters", "tier_counters", "tap_values")
blocks_of_keys = st.lists(st.lists(st.integers(0, 30), max_size=40), max_size=12)


def filled(capacity: int, blocks: list[list[int]]) -> HeavyHitters:
    hitters = HeavyHitters(capacity, sums=1)
    for block in blocks:
        keys = np.array(block, np.int64)
        hitters.add(keys, [10 * keys])
    return hitters


@given(blocks_of_keys)
def test_with_room_for_every_key_counts_are_exact(blocks: list[list[int]]) -> None:
    hitters = filled(31, blocks)
    true = Counter(key for block in blocks for key in block)
    assert dict(zip(hitters.keys.tolist(), hitters.counts.tolist(), strict=True)) == true
    assert hitters.sums[0].tolist() == [10 * key * true[key] for key in hitters.keys.tolist()]
    assert not hitters.errors.any()
    assert hitters.floor == 0


@given(blocks_of_keys, st.integers(1, 10))
def test_beyond_its_capacity_every_count_keeps_the_stated_error(blocks: list[list[int]], capacity: int) -> None:
    hitters = filled(capacity, blocks)
    true = Counter(key for block in blocks for key in block)
    assert len(hitters.keys) == min(capacity, len(true))
    for key, count, error in zip(hitters.keys.tolist(), hitters.counts.tolist(), hitters.errors.tolist(), strict=True):
        assert count - error <= true[key] <= count
        assert error <= hitters.floor
    kept = set(hitters.keys.tolist())
    assert all(count <= hitters.floor for key, count in true.items() if key not in kept)
    assert hitters.floor * capacity <= sum(true.values())


def test_heavy_hitters_by_hand() -> None:
    # Room for two. Block 1: a 3, b 2, c 1; c is dropped, so an absent key has had 1 at most. Block 2: c 2 enters with 2 + 1 = 3
    # (it has 3) and pushes b (2) out; a has 4. Block 3: d 1 enters with 1 + 2 = 3 and loses the tie with c, whose key is lower.
    a, b, c, d = 1, 2, 3, 4
    hitters = filled(2, [[a, a, a, b, b, c], [c, c, a], [d]])
    assert hitters.keys.tolist() == [a, c]
    assert hitters.counts.tolist() == [4, 3]
    assert hitters.errors.tolist() == [0, 1]
    assert hitters.floor == 3
    assert hitters.sums[0].tolist() == [40, 60]  # of c only what came since it is kept


def tapped(**taps: Tap) -> Scenario:
    """Two services of two segments on two deployments, with a crash, a scale-down, and taps."""
    segments = {"paid": 0.25, "free": 0.75}

    def service(rate_per_s: float, deployment: str) -> Service:
        workload = poisson(rate_per_s)
        workload.segments = dict(segments)
        return Service(workload=workload, deployments=[deployment])

    return scenario(
        horizon="55m",
        window="10m",
        warmup="3m",
        services={"chat": service(5.0, "llama"), "code": service(2.0, "other")},
        deployments={**schedule(3, ("20m", 1)), "other": Deployment(pools=["gpu"])},
        failures=[Failure("25m", "gpu")],
        taps=dict(taps),
    )


def column(tables: dict[str, Any], table: str, tap: str, name: str) -> list[Any]:
    return [value for value, of in zip(tables[table][name], tables[table]["tap"], strict=True) if of == tap]


def test_tiers_count_what_the_windows_count(tmp_path: Path) -> None:
    tables = tables_of(tapped(asked=Tiers(), served=Tiers(counts="completions")), tmp_path / "run")
    windows = tables["windows"]
    for tap, counted in (("asked", "arrived"), ("served", "completed")):
        for mine, theirs in (("start_ns", "start_ns"), ("end_ns", "end_ns"), ("stream", "stream"), ("requests", counted)):
            assert column(tables, "tier_counters", tap, mine) == windows[theirs]
        assert set(column(tables, "tier_counters", tap, "counts")) == {"arrivals" if tap == "asked" else "completions"}
    for tokens in ("prompt_tokens", "output_tokens"):
        assert column(tables, "tier_counters", "served", tokens) == windows[tokens]
    # Every request asks for 100 and 20 tokens.
    assert column(tables, "tier_counters", "asked", "prompt_tokens") == [100 * arrived for arrived in windows["arrived"]]
    assert sum(windows["arrived"]) > 20_000


@pytest.mark.parametrize("engine", ["compiled", "reference"])
@pytest.mark.parametrize("records", ["none", "all"])
def test_a_tap_changes_no_byte_of_another_table(tmp_path: Path, records: str, engine: str) -> None:
    def files(name: str, taps: dict[str, Tap]) -> dict[str, bytes]:
        made = tapped(**taps)
        made.records, made.engine = records, engine
        with RunWriter(tmp_path / name) as writer:
            run(build_world(resolve(made)), writer.spool)
            folder = writer.merge().folder
            return {table: (folder / f"{table}.parquet").read_bytes() for table in TABLES if table not in TAP_TABLES}

    taps = {"asked": Tiers(), "served": Tiers(counts="completions"), "who": Clients(), "done": Clients(counts="completions")}
    assert files("with", taps) == files("without", {})


def test_clients_are_counted_by_service_and_bounded(tmp_path: Path) -> None:
    context = TapContext(
        (Stream(0, "chat", "paid"), Stream(1, "chat", "free"), Stream(2, "code", "all")), np.array([NS_PER_HOUR]), ("completed",)
    )
    tap = Clients(capacity=3)
    tap.start(context)
    tap.arrivals(RequestBlock.of(
        arrival_ns=range(7), prompt_tokens=[1, 2, 3, 4, 5, 6, 7], output_tokens=[10] * 7, client=[9, 9, 9, 5, 5, 9, 9],
        stream=[0, 1, 2, 0, 0, 2, 0],
    ))  # fmt: skip
    rows = {name: np.asarray(values).tolist() for name, values in tap.rows(NS_PER_HOUR, last=True).items()}
    assert rows["service"] == ["chat", "chat", "code"]
    assert rows["client"] == [5, 9, 9]
    assert rows["requests"] == [2, 3, 2]
    assert rows["prompt_tokens"] == [9, 10, 9]
    assert rows["output_tokens"] == [20, 30, 20]
    assert rows["requests_error"] == [0, 0, 0] == rows["others_at_most"]
    tap.arrivals(RequestBlock.of(arrival_ns=[8, 9], prompt_tokens=[1, 1], output_tokens=[1, 1], client=[1, 2], stream=[0, 0]))
    rows = {name: np.asarray(values).tolist() for name, values in tap.rows(NS_PER_HOUR, last=True).items()}
    assert rows["client"] == [5, 9, 9]
    assert rows["others_at_most"] == [1, 1, 1]
    assert not len(tap.rows(5, last=False)["client"])


def closed_loop() -> Service:
    return Service(workload=ClosedLoop(clients=7, think_s=2.0), deployments=["llama"])


def test_closed_loop_clients_are_counted_by_their_outcomes(tmp_path: Path) -> None:
    made = scenario(horizon="20m", services={"chat": closed_loop()}, taps={"who": Clients(counts="completions")})
    tables = tables_of(made, tmp_path / "run")
    assert tables["client_counters"]["client"] == list(range(7))
    assert sum(tables["client_counters"]["requests"]) == sum(tables["windows"]["completed"])
    assert sum(tables["client_counters"]["output_tokens"]) == sum(tables["windows"]["output_tokens"])
    assert min(tables["client_counters"]["requests"]) > 1
    assert tables["requests"]["request"] == []


def test_a_tap_that_would_miss_closed_loop_clients_is_refused() -> None:
    made = scenario(services={"chat": closed_loop()}, taps={"who": Clients()})
    with pytest.raises(InputError, match=r"taps\.who = 'clients': never sees services\.chat"):
        build_world(resolve(made))


@register("tap", "test_unfinished")
class Unfinished(Tap):
    """Counts what is left at the end."""

    def start(self, context: TapContext) -> None:
        self.code, self.left, self.seen = context.outcomes.index("unfinished"), 0, 0

    def outcomes(self, block: Any) -> None:
        self.left += int((block.outcome == self.code).sum())
        self.seen += len(block)

    def values(self) -> dict[str, float]:
        return {"unfinished": self.left, "seen": self.seen}


def test_every_request_has_an_outcome_and_values_are_a_table(tmp_path: Path) -> None:
    tables = tables_of(tapped(left=Unfinished(), more=Unfinished()), tmp_path / "run")
    windows = tables["windows"]
    ends = [count for count, end in zip(windows["in_flight_end"], windows["end_ns"], strict=True) if end == 55 * 60 * 10**9]
    assert tables["tap_values"] == {
        "tap": ["left", "left", "more", "more"],
        "name": ["seen", "unfinished"] * 2,
        "value": [float(sum(windows["arrived"])), float(sum(ends))] * 2,
    }


@register("tap", "test_lost_table")
class LostTable(Tap):
    """Writes to a table that is none of a tap's."""

    table = "windows"


def test_every_problem_of_taps_is_reported_at_once() -> None:
    made = tapped(who=Clients(counts="client", capacity=0), what=Tiers(counts="completions"), where=LostTable())
    made.taps["no name"] = Tiers()
    made.records = "sample:10"
    with pytest.raises(InputError) as error:
        check(made)
    assert [problem.path for problem in error.value.problems] == [
        "taps.who.counts", "taps.who.capacity", "taps.where", "taps.no name", "records"
    ]  # fmt: skip
    made = tapped(what=Tiers())
    made.records = "sample:10"
    assert check(made).records == "sample:10"
