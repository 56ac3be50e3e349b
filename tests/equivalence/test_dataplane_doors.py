"""What control may do to arrivals: let in only a share of a stream, and send it to some replicas only; worked by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from engine_kit import LATTICE, MS, requests, spec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from play import Clients, end, go, start
from scenarios import ROUTE, THROTTLE, Action, Player, Scenario, differences, scenarios

from sim.dataplane.engine import DataPlane, StreamRules, Watch
from sim.dataplane.layout import ALL_ADMITTED, REJECTED_THROTTLED
from sim.dataplane.layout import THROTTLE as PURPOSE
from sim.domain.traffic import RequestBlock
from sim.rng import mix64

Engine = type[DataPlane]
some = settings(
    max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def draw(tag: int) -> int:
    """The draw of a request in 2^-20, as the rule says."""
    return mix64(tag, 0, PURPOSE) >> 44


# Throttles

TAGS = list(range(200))


def throttled(engine: Engine, admitted: int, tags: list[int]) -> list[bool]:
    """Which of the requests with these random words are turned away, one arriving every millisecond."""
    plane = start(engine, requests(*((at * MS, 1, 1) for at in range(len(tags))), tag=tags))
    plane.throttle(0, 0, admitted)
    done = end(plane)
    assert done.total("rejected_throttled") == done.outcomes.count("throttled")
    return [outcome == "throttled" for outcome in done.outcomes]


@pytest.mark.parametrize("admitted", [0, 1, ALL_ADMITTED // 3, ALL_ADMITTED // 2, ALL_ADMITTED - 1, ALL_ADMITTED])
def test_a_request_is_admitted_by_its_own_random_word(engine: Engine, admitted: int) -> None:
    assert throttled(engine, admitted, TAGS) == [draw(tag) >= admitted for tag in TAGS]


def test_the_border_is_exact(engine: Engine) -> None:
    tag = 17
    assert throttled(engine, draw(tag), [tag]) == [True]
    assert throttled(engine, draw(tag) + 1, [tag]) == [False]


def test_half_of_many_is_half(engine: Engine) -> None:
    turned_away = sum(throttled(engine, ALL_ADMITTED // 2, list(range(900))))
    # Four standard deviations of a fair coin thrown 900 times.
    assert abs(turned_away - 450) < 60


def test_one_that_is_turned_away_leaves_at_once_and_was_never_in_a_queue(engine: Engine) -> None:
    plane = start(engine, requests((MS, 10, 3), (2 * MS, 10, 3)))
    plane.throttle(0, 0, 0)
    go(plane, 1_500_000)
    plane.throttle(1_500_000, 0, ALL_ADMITTED)
    done = end(plane)
    assert done.outcomes == ["throttled", "completed"]
    assert done.left[0] == done.ms("arrival_ns")[0] == 1
    assert (done.first[0], done.column("replica")[0], done.column("dispatched_ns")[0]) == (-1, -1, -1)
    # Its cause is its outcome, so no other is counted.
    assert done.total("arrived") == 2
    assert all(done.total(name) == 0 for name in ("missed_retried", "missed_preempted", "missed_kv_full", "missed_queued"))
    assert done.view.queued_us.sum() == 0
    assert done.view.in_flight_us.sum() == 3_000


def test_only_the_stream_is_throttled(engine: Engine) -> None:
    plane = start(engine, requests((0, 1, 1), (0, 1, 1), stream=[0, 1]), streams=[StreamRules(), StreamRules()])
    plane.throttle(0, 1, 0)
    done = end(plane)
    assert done.outcomes == ["completed", "throttled"]
    assert done.view.count("rejected_throttled").tolist() == [0, 1]


def test_what_is_too_long_is_not_throttled(engine: Engine) -> None:
    plane = start(engine, requests((0, 10**6, 1), (0, 1, 1)))
    plane.throttle(0, 0, 0)
    assert end(plane).outcomes == ["too_long", "throttled"]


def test_nobody_is_throttled_twice(engine: Engine) -> None:
    # Two requests run when the throttle closes; one loses its replica and starts again on the other, the third comes too late.
    plane = start(engine, requests((0, 10, 9), (0, 10, 9), (6 * MS, 10, 9)), replicas=[0, 0])
    go(plane, 5 * MS)
    plane.throttle(5 * MS, 0, 0)
    plane.kill_replica(5 * MS, 0)
    done = end(plane)
    assert done.outcomes == ["completed", "completed", "throttled"]
    assert done.column("attempts")[:2] == [2, 1]


def test_waiting_requests_are_past_the_door(engine: Engine) -> None:
    plane = start(engine, requests((0, 10, 2), (0, 10, 2)), specs=[spec(max_outstanding=1)])
    go(plane, MS)
    plane.throttle(MS, 0, 0)
    plane.add_replica(MS, 0)
    assert end(plane).outcomes == ["completed", "completed"]


def test_a_client_that_is_throttled_waits_a_second(engine: Engine) -> None:
    clients = Clients([[(0, 5, 1), (0, 5, 1)]])
    plane = start(engine, [], clients=clients)
    plane.throttle(0, 0, 0)
    done = end(plane, 5_000 * MS)
    assert done.outcomes == ["throttled", "throttled"]
    assert done.ms("arrival_ns") == [0, 1_000]


def test_rows_of_a_backlog_are_not_throttled(engine: Engine) -> None:
    plane = start(engine, [], streams=[StreamRules(backlog=True)])
    plane.throttle(0, 0, 0)
    plane.submit(0, 0, requests((0, 10, 2), (0, 10, 2)))
    assert end(plane).outcomes == ["completed", "completed"]


def test_a_throttled_arrival_needs_no_capacity(engine: Engine) -> None:
    plane = start(engine, requests((MS, 1, 1)), replicas=[])
    plane.watch(0, Watch.ARRIVAL_WITHOUT_CAPACITY, 0)
    plane.throttle(0, 0, 0)
    assert go(plane, 10 * MS) == []


@pytest.mark.parametrize(("stream", "admitted"), [(0, -1), (0, ALL_ADMITTED + 1), (1, 5), (-1, 5)])
def test_a_throttle_out_of_range_is_refused(engine: Engine, stream: int, admitted: int) -> None:
    plane = start(engine, [])
    with pytest.raises(ValueError, match=r"stream|admitted"):
        plane.throttle(0, stream, admitted)


# Routes

SMALL, LARGE = spec(kv_tokens=60), spec()


def replicas_of(engine: Engine, routes: list[tuple[int, int, list[int]]], rows: list[RequestBlock], **changes: object) -> list[int]:
    """Which replica each request ran on; `routes` are (time, stream, specs)."""
    plane = start(engine, rows, **changes)  # type: ignore[arg-type]
    for at_ns, stream, specs in routes:
        go(plane, at_ns)
        plane.route(at_ns, stream, specs)
    done = end(plane)
    assert set(done.outcomes) == {"completed"}
    return done.column("replica")


def test_requests_go_to_the_specs_of_the_route(engine: Engine) -> None:
    rows = requests(*((at * MS, 10, 1) for at in range(1, 7)))
    two = {"specs": [LARGE, LARGE], "replicas": [0, 1]}
    assert replicas_of(engine, [], rows, **two) == [0] * 6
    assert replicas_of(engine, [(0, 0, [1])], rows, **two) == [1] * 6
    # From 2.5 ms on to the second kind, from 4.5 ms on anywhere again.
    assert replicas_of(engine, [(2_500_000, 0, [1]), (4_500_000, 0, [0, 1])], rows, **two) == [0, 0, 1, 1, 0, 0]


def test_only_the_stream_is_routed(engine: Engine) -> None:
    rows = requests((0, 10, 1), (0, 10, 1), stream=[0, 1])
    streams = [StreamRules(), StreamRules()]
    assert replicas_of(engine, [(0, 1, [1])], rows, specs=[LARGE, LARGE], replicas=[0, 1], streams=streams) == [0, 1]


def test_what_the_route_could_not_hold_goes_where_it_could(engine: Engine) -> None:
    # 52 tokens are the most that the small kind could hold: 60 less half a block.
    rows = requests((0, 51, 1), (0, 52, 1))
    assert replicas_of(engine, [(0, 0, [0])], rows, specs=[SMALL, LARGE], replicas=[0, 1]) == [0, 1]


def test_a_killed_request_goes_where_the_route_says(engine: Engine) -> None:
    rows = requests((0, 10, 9))
    plane = start(engine, rows, specs=[LARGE, LARGE], replicas=[0, 0, 1])
    go(plane, 3 * MS)
    plane.route(3 * MS, 0, [1])
    plane.kill_replica(3 * MS, 0)
    done = end(plane)
    assert (done.column("replica"), done.column("attempts")) == ([2], [2])


def test_what_waits_or_runs_on_a_replica_stays(engine: Engine) -> None:
    # One seat: the second request waits on the replica for the first.
    rows = requests((0, 10, 5), (0, 10, 5))
    assert replicas_of(engine, [(2 * MS, 0, [1])], rows, specs=[spec(seats=1), spec(seats=1)], replicas=[0]) == [0, 0]


def test_a_route_is_pulled_from_the_service_queue(engine: Engine) -> None:
    # The small replica is idle, and too dear to wait for: as soon as the route is lifted it takes what waits, at that very instant.
    rows = requests((0, 10, 4), (0, 10, 4), (0, 10, 4))
    busy = spec(max_outstanding=1)
    plane = start(engine, rows, specs=[busy, busy], replicas=[0, 1])
    assert plane.now_ns == 0
    plane.route(0, 0, [0])
    go(plane, 2 * MS)
    assert plane.view(2 * MS).outstanding.tolist() == [1, 0]
    plane.route(2 * MS, 0, [0, 1])
    assert plane.view(2 * MS).outstanding.tolist() == [1, 1]
    done = end(plane)
    assert done.column("replica") == [0, 1, 0]
    assert done.ms("dispatched_ns") == [0, 2, 4]


def test_a_replica_that_is_not_in_the_route_pulls_nothing(engine: Engine) -> None:
    rows = requests((0, 10, 4), (0, 10, 4))
    busy = spec(max_outstanding=1)
    plane = start(engine, rows, specs=[busy, busy], replicas=[0])
    plane.route(0, 0, [0])
    go(plane, MS)
    added = plane.add_replica(MS, 1)
    assert plane.view(MS).outstanding.tolist() == [1, 0]
    done = end(plane)
    assert done.column("replica") == [0, 0]
    assert added not in done.column("replica")


def test_a_running_replica_takes_what_it_pulled_at_its_next_boundary(engine: Engine) -> None:
    # Stream 1 waits for a replica of kind 1; let to kind 0 at 2.5 ms it enters the batch that runs there at 3 ms.
    rows = requests((0, 10, 50), (MS, 10, 2), stream=[0, 1])
    plane = start(engine, rows, specs=[LARGE, LARGE], replicas=[0], streams=[StreamRules(), StreamRules()])
    plane.route(0, 1, [1])
    go(plane, 2_500_000)
    plane.route(2_500_000, 1, [0, 1])
    done = end(plane)
    assert (done.ms("dispatched_ns")[1], done.ms("admitted_ns")[1], done.left[1]) == (2.5, 3, 5)


def test_nobody_to_go_to_is_without_capacity(engine: Engine) -> None:
    plane = start(engine, requests((MS, 10, 1), (2 * MS, 90, 1)), specs=[SMALL, LARGE], replicas=[1])
    plane.route(0, 0, [0])
    plane.watch(0, Watch.ARRIVAL_WITHOUT_CAPACITY, 0)
    hits = go(plane, 10 * MS)
    # The first may only go to the small kind, of which there is none; the second is too long for it and goes to the large one.
    assert [(hit.time_ns, hit.reason) for hit in hits] == [(MS, Watch.ARRIVAL_WITHOUT_CAPACITY)]
    assert end(plane).outcomes == ["unfinished", "completed"]


def test_a_long_request_has_capacity_beside_its_route(engine: Engine) -> None:
    plane = start(engine, requests((MS, 90, 1), (MS, 90, 1)), specs=[SMALL, replace(LARGE, max_outstanding=1)], replicas=[1])
    plane.route(0, 0, [0])
    plane.watch(0, Watch.ARRIVAL_WITHOUT_CAPACITY, 0)
    assert go(plane, 10 * MS) == []


def test_a_backlog_is_not_routed(engine: Engine) -> None:
    plane = start(engine, [], specs=[LARGE, LARGE], replicas=[0, 1], streams=[StreamRules(backlog=True)])
    plane.route(0, 0, [1])
    plane.submit(0, 0, requests((0, 10, 2)))
    assert end(plane).column("replica") == [0]


def test_routes_of_a_fleet_of_one_kind_are_kept_and_undone(engine: Engine) -> None:
    """The kernel has an index of outstanding requests where all replicas are equal: a route may not leave it stale."""
    rows = requests(*((at * MS, 10, 500) for at in range(8)))
    routes = [(500_000, 0, [1]), (4_500_000, 0, [0, 1])]
    where = replicas_of(engine, routes, rows, specs=[LARGE, LARGE], replicas=[0, 0, 1], step=LATTICE)
    # The least outstanding of all, of those of kind 1, of all again.
    assert where == [0, 2, 2, 2, 2, 1, 0, 1]


@pytest.mark.parametrize(("stream", "specs"), [(0, []), (0, [3]), (1, [1]), (1, [0, 1]), (2, [0]), (-1, [0])])
def test_a_route_to_nowhere_is_refused(engine: Engine, stream: int, specs: list[int]) -> None:
    only = spec(streams=frozenset({0}))
    plane = start(engine, [], specs=[LARGE, only, only], streams=[StreamRules(), StreamRules()])
    with pytest.raises(ValueError, match="stream"):
        plane.route(0, stream, specs)


# Laws


def closed(scenario: Scenario, actions: list[Action]) -> Scenario:
    """The scenario with these actions besides its own, but for its own throttles and routes."""
    others = [action for action in scenario.actions if action.kind not in (THROTTLE, ROUTE)]
    return replace(scenario, actions=tuple(sorted([*others, *actions], key=lambda action: action.at_ns)))


@some
@given(scenario=scenarios(), times=st.lists(st.integers(0, 200 * MS), max_size=6))
def test_a_door_that_is_open_changes_nothing(engine: Engine, scenario: Scenario, times: list[int]) -> None:
    """All admitted, and sent to all the specs that accept the stream: the same bytes."""
    doors = [
        Action(at_ns, kind, stream, level=ALL_ADMITTED, picks=31)
        for at_ns in times
        if at_ns <= scenario.end_ns
        for stream in range(len(scenario.plane.streams))
        for kind in (THROTTLE, ROUTE)
    ]
    without, with_doors = (Player(engine, closed(scenario, more)).play().tables() for more in ([], doors))
    assert differences(without, with_doors, relative=0.0) == []


@some
@given(scenario=scenarios(), shares=st.tuples(st.integers(0, ALL_ADMITTED), st.integers(0, ALL_ADMITTED)))
def test_a_larger_share_admits_more_of_the_same(engine: Engine, scenario: Scenario, shares: tuple[int, int]) -> None:
    """Common random numbers: whoever is turned away with the larger share is turned away with the smaller one, too."""
    turned_away = []
    for share in sorted(shares):
        streams = range(len(scenario.plane.streams))
        made = closed(scenario, [Action(0, THROTTLE, stream, level=share) for stream in streams])
        records = Player(engine, replace(made, clients=None)).play().records
        rows = records["outcome"] == REJECTED_THROTTLED
        turned_away.append(set(zip(records["arrival_ns"][rows].tolist(), records["client"][rows].tolist(), strict=True)))
    assert turned_away[1] <= turned_away[0]


def test_the_draws_are_those_of_no_router() -> None:
    """A throttle that drew what a router draws would admit only requests that are sent to some of the replicas."""
    mine = np.array([draw(tag) for tag in TAGS])
    for purpose in range(1, PURPOSE):
        others = np.array([mix64(tag, 1, purpose) >> 44 for tag in TAGS])
        assert abs(np.corrcoef(mine, others)[0, 1]) < 0.25
