"""Laws that hold in every scenario, and things that must not matter: looks, cuts, blocks, the absolute time, the process."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from engine_kit import MS, OFFSET_400_DAYS_NS, check_laws
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scenarios import ROUTE, Played, Player, Scenario, differences, scenarios

from sim.bins import BINS, bins_of
from sim.dataplane.engine import DataPlane
from sim.dataplane.layout import COMPLETED, COUNTERS, E2E, TPOT, TTFT
from sim.units import NS_PER_US

Engine = type[DataPlane]
many = settings(
    max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
some = settings(many, max_examples=60)


def by_stream(streams: int, number: np.ndarray, value: np.ndarray) -> list[int]:
    """Integer sums of a column by stream."""
    return [int(value[number == stream].sum()) for stream in range(streams)]


class Observer:
    """Looks at a plane after every event: adds up waiting requests over time, and checks what must hold at every instant."""

    def __init__(self, scenario: Scenario) -> None:
        config = scenario.plane
        self.specs = config.specs
        self.queued_ns = np.zeros(len(config.streams), np.int64)
        self.queued, self.since_ns = np.zeros(len(config.streams), np.int64), config.start_ns
        # Kinds that could take any request at all, as long as no stream is sent elsewhere.
        longest, routed = max(spec.longest for spec in self.specs), any(action.kind == ROUTE for action in scenario.actions)
        self.universal = [not spec.streams and spec.longest == longest and not routed for spec in self.specs]

    def __call__(self, plane: DataPlane) -> None:
        view = plane.view(plane.now_ns)
        self.queued_ns += self.queued * (view.time_ns - self.since_ns)
        self.queued, self.since_ns = view.queued, view.time_ns
        if plane.peek_ns() <= view.time_ns:
            return  # stopped by a watch in the middle of an instant
        here = view.outstanding.sum() + view.from_backlog.sum()
        assert view.in_flight.sum() == view.service_queue.sum() + view.thrown_back.sum() + here
        assert view.queued.sum() == view.service_queue.sum() + view.thrown_back.sum() + view.waiting.sum()
        for index, kind in enumerate(view.spec):
            spec = self.specs[kind]
            assert view.running[index] <= view.outstanding[index] + view.from_backlog[index]
            assert view.from_backlog[index] <= min(spec.backlog_seats, view.running[index])
            if spec.batcher is None:
                assert view.running[index] <= spec.seats
            assert view.outstanding[index] <= spec.max_outstanding
            assert view.kv_used_tokens[index] <= spec.kv_tokens
            if self.universal[kind] and view.accepting[index] and view.service_queue.sum():
                assert view.outstanding[index] == spec.max_outstanding


@many
@given(scenario=scenarios())
def test_laws(engine: Engine, scenario: Scenario) -> None:
    """Conservation of requests, tokens and time, Little's law in integers, and histograms that are those of the records."""
    observer = Observer(scenario)
    player = Player(engine, scenario, at_event=observer)
    played = player.play()
    view, records, streams = played.views[-1], played.records, len(scenario.plane.streams)
    check_laws(player.plane, view, records)
    count = {name: view.count(name) for name in COUNTERS}
    number = records["stream"]
    assert view.in_flight_us.tolist() == [
        total // NS_PER_US for total in by_stream(streams, number, records["leave_ns"] - records["arrival_ns"])
    ]
    observer(player.plane)
    assert view.queued_us.tolist() == (observer.queued_ns // NS_PER_US).tolist()
    assert count["retried"].tolist() == by_stream(streams, number, records["attempts"] - 1)
    assert count["preempted"].tolist() == by_stream(streams, number, records["preemptions"])
    done = records["outcome"] == COMPLETED
    assert count["completed_prompt_tokens"].tolist() == by_stream(streams, number, records["prompt_tokens"] * done)
    assert count["completed_output_tokens"].tolist() == by_stream(streams, number, records["output_tokens"] * done)
    for name in ("prefill_tokens", "output_tokens"):
        removed = sum(getattr(totals, name) for totals in played.retired)
        assert getattr(view, name).sum() + removed == count[name].sum()
    assert (count["prefill_tokens"] >= count["useful_prefill_tokens"] + count["lost_prefill_tokens"]).all()
    check_latencies(played, done)
    check_time(played)
    if scenario.settle:
        check_settled(view, count)


def check_latencies(played: Played, done: np.ndarray) -> None:
    """Every latency in the histograms can be computed from the records, and the other way round."""
    records, counts = played.records, played.histograms
    arrival, net = records["arrival_ns"][done], records["net_ns"][done]
    first, last = records["first_token_ns"][done], records["leave_ns"][done]
    output, stream = records["output_tokens"][done], records["stream"][done]
    assert (arrival < first).all()
    assert ((first < last) == (output > 1)).all()
    several = output > 1
    tpot = (last - first)[several] // (output - 1)[several]
    for latency, values, rows in (
        (TTFT, first - arrival + net, stream),
        (TPOT, tpot, stream[several]),
        (E2E, last - arrival + net, stream),
    ):
        for number in range(len(counts)):
            expected = np.bincount(bins_of(values[rows == number]), minlength=BINS)
            np.testing.assert_array_equal(counts[number, latency], expected)


def check_time(played: Played) -> None:
    """Busy is part of a replica's life, and shares and lost add up to it."""
    for totals in played.retired:
        assert totals.removed_ns is not None
        assert 0 <= totals.draining_busy_ns <= totals.busy_ns <= totals.removed_ns - totals.added_ns
        assert totals.draining_busy_ns == 0 or totals.drain_ns is not None
        np.testing.assert_allclose(sum(totals.shares_ns) + totals.lost_ns, totals.busy_ns, rtol=1e-9, atol=1e-3)
        assert min([*totals.shares_ns, totals.lost_ns]) >= -1e-3
    for before, after in pairwise(played.views):
        assert (after.counters >= before.counters).all()
        assert (after.queued_us >= before.queued_us).all()
        assert (after.in_flight_us >= before.in_flight_us).all()


def check_settled(view: object, count: dict[str, np.ndarray]) -> None:
    """When all have left, every token was useful or lost, exactly."""
    assert view.in_flight.sum() == view.queued.sum() == 0  # type: ignore[attr-defined]
    assert view.thrown_back.sum() == 0  # type: ignore[attr-defined]
    for name in ("outstanding", "from_backlog", "reserved_tokens", "kv_used_tokens"):
        assert not getattr(view, name).any()
    np.testing.assert_array_equal(count["prefill_tokens"], count["useful_prefill_tokens"] + count["lost_prefill_tokens"])
    np.testing.assert_array_equal(count["output_tokens"], count["completed_output_tokens"] + count["lost_output_tokens"])


@some
@given(scenario=scenarios())
def test_the_same_run_twice_gives_the_same_bytes(engine: Engine, scenario: Scenario) -> None:
    """Floats included."""
    one, two = (Player(engine, scenario).play().tables() for _ in range(2))
    assert one.keys() == two.keys()
    assert [name for name in one if one[name].tobytes() != two[name].tobytes()] == []


@many
@given(scenario=scenarios(), looks=st.lists(st.integers(0, 200 * MS), max_size=30))
def test_looking_and_stopping_change_nothing(engine: Engine, scenario: Scenario, looks: list[int]) -> None:
    """Extra advances and views at arbitrary times, and one at every event, show the same run."""
    plain = Player(engine, scenario).play().tables()
    assert differences(plain, Player(engine, scenario, looks=looks).play().tables()) == []
    every = Player(engine, scenario, at_event=lambda plane: plane.view(plane.now_ns) and None).play().tables()
    assert differences(plain, every) == []


@some
@given(scenario=scenarios(), period_ns=st.sampled_from([1_000, 77_777, MS, 15 * MS]))
def test_an_observer_at_any_period_changes_nothing(engine: Engine, scenario: Scenario, period_ns: int) -> None:
    """A process that only looks: DESIGN section 4."""
    span_ns = min(scenario.end_ns, 300 * period_ns)
    looks = range(0, span_ns, period_ns)
    plain, watched = Player(engine, scenario).play().tables(), Player(engine, scenario, looks=looks).play().tables()
    assert differences(plain, watched) == []


@some
@given(scenario=scenarios(), size=st.integers(1, 61))
def test_the_size_of_blocks_changes_nothing(engine: Engine, scenario: Scenario, size: int) -> None:
    """Blocks of 1 to n rows."""
    assert differences(Player(engine, scenario).play().tables(), Player(engine, scenario, block_size=size).play().tables()) == []


@some
@given(scenario=scenarios())
def test_the_absolute_time_changes_nothing(engine: Engine, scenario: Scenario) -> None:
    """At 0 and after 400 days: identical, shifted."""
    now, later = (Player(engine, scenario.starting(start_ns)).play().tables() for start_ns in (0, OFFSET_400_DAYS_NS))
    assert differences(now, later, relative=0.0) == []


@pytest.fixture(scope="module")
def seen() -> dict[str, int]:
    """How often each thing happened in the scenarios of `test_the_generator_reaches_every_rule`."""
    return dict.fromkeys([*COUNTERS, "unfinished", "drained", "hits", "one priority", "priorities", "lattice ties"], 0)


@many
@given(scenario=scenarios())
def _count(engine: Engine, seen: dict[str, int], scenario: Scenario) -> None:
    played = Player(engine, scenario).play()
    for name in COUNTERS:
        seen[name] += int(played.views[-1].count(name).sum())
    seen["unfinished"] += int(played.views[-1].in_flight.sum())
    seen["drained"] += sum(totals.drain_ns is not None for totals in played.retired)
    seen["hits"] += len(played.hits)
    seen["priorities" if len(scenario.plane.levels) > 1 else "one priority"] += 1
    leave, arrival = played.records["leave_ns"], played.records["arrival_ns"]
    seen["lattice ties"] += len(np.intersect1d(leave, arrival))


def test_the_generator_reaches_every_rule(engine: Engine, seen: dict[str, int]) -> None:
    """A generator that never preempts, expires, fails or ties tests nothing: each must happen at least ten times."""
    _count(engine=engine, seen=seen)
    assert {name: times for name, times in seen.items() if times < 10} == {}
