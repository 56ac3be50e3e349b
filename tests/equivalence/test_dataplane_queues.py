"""Rules 16 to 20 of the data plane: queues, timeouts, the cap on outstanding requests, several specs and streams."""

from __future__ import annotations

import pytest
from engine_kit import MS, requests, spec
from play import end, go, outcome, start

from sim.dataplane.engine import UNLIMITED, DataPlane, StreamRules

Engine = type[DataPlane]
ONE_SEAT = spec(seats=1)
CENTRAL = spec(seats=1, max_outstanding=1)


def timeout(t_ns: int) -> StreamRules:
    """Rules with a queue timeout."""
    return StreamRules(queue_timeout_ns=t_ns)


@pytest.mark.parametrize("kind", [ONE_SEAT, CENTRAL])
@pytest.mark.parametrize(("timeout_ns", "outcomes"), [(5 * MS, "completed"), (5 * MS - 1, "abandoned")])
def test_expired_means_strictly_after_the_deadline(engine: Engine, kind: object, timeout_ns: int, outcomes: str) -> None:
    """Rule 16: the seat is free at 5 ms; a deadline of exactly 5 ms still holds. In a replica's list and in the service queue."""
    done = outcome(engine, requests((0, 10, 5), (0, 10, 1)), specs=[kind], streams=[timeout(timeout_ns)])
    assert done.outcomes == ["completed", outcomes]
    assert done.left[1] == (6 if outcomes == "completed" else 5)


def test_the_block_may_set_its_own_deadline(engine: Engine) -> None:
    """Rule 16: a deadline in the block replaces the stream's timeout; 0 is none."""
    rows = requests((0, 10, 5), (0, 10, 1), (0, 10, 1), deadline_ns=[0, 5 * MS, 4 * MS])
    done = outcome(engine, rows, specs=[spec(seats=1)], streams=[timeout(2 * MS)])
    assert done.outcomes == ["completed", "completed", "abandoned"]


def test_the_timeout_does_not_bind_the_preempted(engine: Engine) -> None:
    """Rule 16: admitted at 1 ms, thrown out at 4 ms, past its deadline at 10 ms, back at 20 ms, done at 37 ms."""
    specs = [spec(seats=4, kv_tokens=40)]
    done = outcome(engine, requests((0, 8, 20), (0, 8, 20)), specs=specs, streams=[timeout(10 * MS)])
    assert done.column("preemptions") == [0, 1]
    assert done.left == [20, 37]


def test_the_timeout_does_not_bind_the_killed(engine: Engine) -> None:
    """Rule 16: a request that ran once is retried after its deadline."""
    plane = start(engine, requests((0, 10, 5)), streams=[timeout(2 * MS)])
    go(plane, 3 * MS)
    plane.kill_replica(3 * MS, 0)
    go(plane, 10 * MS)
    plane.add_replica(10 * MS, 0)
    assert end(plane).left == [15]


def test_a_redispatch_does_not_reset_the_deadline(engine: Engine) -> None:
    """Rule 16: arrived at 0, redispatched at 3 ms, timeout 4 ms: abandoned at 5 ms when its turn comes."""
    plane = start(
        engine, requests((0, 10, 9), (0, 10, 5), (0, 10, 1)), specs=[ONE_SEAT], replicas=(0, 0), streams=[timeout(4 * MS)]
    )
    go(plane, 3 * MS)
    assert plane.view(3 * MS).outstanding.tolist() == [2, 1]
    plane.drain_replica(3 * MS, 0)
    done = end(plane)
    assert done.outcomes == ["completed", "completed", "abandoned"]
    assert done.left == [9, 5, 5]


def test_expiry_is_noticed_only_when_a_seat_is_free(engine: Engine) -> None:
    """Rule 17: expired at 2 ms, still waiting in every view until the seat is free at 10 ms; looking cleans up nothing."""
    plane = start(engine, requests((0, 10, 10), (0, 10, 1)), specs=[ONE_SEAT], streams=[timeout(2 * MS)])
    for t_ms in (1, 5, 9):
        go(plane, t_ms * MS)
        assert plane.view(t_ms * MS).queued.tolist() == [1]
        assert plane.view(t_ms * MS).count("abandoned").tolist() == [0]
    done = end(plane)
    assert (done.outcomes[1], done.left[1]) == ("abandoned", 10)
    assert done.column("replica")[1] == 0
    assert done.first[1] == -1


@pytest.mark.parametrize(("timeout_ns", "leaves_ms"), [(4 * MS - 1, 4), (4 * MS, 5)])
def test_a_head_blocked_by_kv_expires_at_the_next_boundary(engine: Engine, timeout_ns: int, leaves_ms: int) -> None:
    """Rules 15 and 17: seats are free, so the blocked head is looked at after every step; the one behind it gets in at once."""
    rows = requests((0, 10, 10), (0, 80, 1), (0, 1, 1), deadline_ns=[0, timeout_ns, 0])
    done = outcome(engine, rows, specs=[spec(kv_tokens=100)])
    assert done.outcomes == ["completed", "abandoned", "completed"]
    assert done.left == [10, leaves_ms, leaves_ms + 1]


def test_expiry_is_noticed_by_an_arrival_without_room(engine: Engine) -> None:
    """Rules 17 and 19: the arrival at 5 ms finds no room, the head that expired at 2 ms leaves, and the queue of 1 has a place."""
    rows = requests((0, 10, 10), (0, 10, 1), (5 * MS, 10, 1))
    plane = start(engine, rows, specs=[CENTRAL], streams=[timeout(2 * MS)], max_queue=(1,))
    go(plane, 5 * MS - 1)
    assert plane.view(5 * MS - 1).service_queue.tolist() == [1]
    done = end(plane)
    assert done.outcomes == ["completed", "abandoned", "abandoned"]
    assert done.left == [10, 5, 10]


def test_only_heads_expire(engine: Engine) -> None:
    """Rule 17: behind a head that may wait, an expired request stays until it is the head."""
    rows = requests((0, 10, 10), (0, 10, 1), (0, 10, 1), (5 * MS, 10, 1), deadline_ns=[0, 0, 2 * MS, 0])
    plane = start(engine, rows, specs=[CENTRAL], max_queue=(2,))
    go(plane, 5 * MS)
    assert plane.view(5 * MS).service_queue.tolist() == [2]
    done = end(plane)
    assert done.outcomes == ["completed", "completed", "abandoned", "queue_full"]
    assert done.left == [10, 11, 11, 5]


def test_an_expiry_pulls_one(engine: Engine) -> None:
    """Rule 18: two may be outstanding. At 10 ms C is pulled, then B expires at the head: its place goes to D at once."""
    rules = [StreamRules(), timeout(2 * MS)]
    rows = requests((0, 10, 10), (0, 10, 1), (0, 10, 3), (0, 10, 3), (0, 10, 3), stream=[0, 1, 0, 0, 0])
    plane = start(engine, rows, specs=[spec(seats=1, max_outstanding=2)], streams=rules)
    go(plane, 10 * MS - 1)
    assert plane.view(10 * MS - 1).service_queue.tolist() == [3]
    go(plane, 10 * MS)
    view = plane.view(10 * MS)
    assert view.count("abandoned").tolist() == [0, 1]
    assert (view.outstanding.tolist(), view.running.tolist(), view.service_queue.tolist()) == ([2], [1], [1])
    assert end(plane).left == [10, 10, 13, 16, 19]


def test_max_queue_counts_the_service_queue_only(engine: Engine) -> None:
    """Rule 19: one runs, two wait at the replica, one in the queue of 1; the fifth is turned away."""
    done = outcome(engine, requests(*[(0, 10, 2)] * 5), specs=[spec(seats=1, max_outstanding=3)], max_queue=(1,))
    assert done.outcomes == ["completed"] * 4 + ["queue_full"]
    assert done.left == [2, 4, 6, 8, 0]
    assert done.column("replica")[4] == -1


def test_the_redispatched_are_never_turned_away(engine: Engine) -> None:
    """Rule 19: a queue of 0 for arrivals holds the three that lost their replica, and still refuses the next."""
    plane = start(engine, requests(*[(0, 10, 2)] * 3, (2 * MS, 10, 1)), specs=[ONE_SEAT], max_queue=(0,))
    go(plane, MS)
    plane.kill_replica(MS, 0)
    assert plane.view(MS).service_queue.tolist() == [3]
    go(plane, 3 * MS)
    plane.add_replica(3 * MS, 0)
    done = end(plane)
    assert done.outcomes == ["completed"] * 3 + ["queue_full"]
    assert done.left[:3] == [5, 7, 9]


@pytest.mark.parametrize(("cap", "first_ms"), [(UNLIMITED, [6, 6, 6]), (3, [6, 6, 6]), (2, [6, 6, 7]), (1, [6, 7, 8])])
def test_a_new_replica_takes_the_queue_and_then_schedules_once(engine: Engine, cap: int, first_ms: list[int]) -> None:
    """Rule 20: added at 5 ms it takes up to `max_outstanding` of the three that wait, and all of them are in its first step."""
    plane = start(engine, requests(*[(0, 10, 1)] * 3), replicas=(), specs=[spec(max_outstanding=cap)])
    go(plane, 5 * MS)
    plane.add_replica(5 * MS, 0)
    assert plane.view(5 * MS).outstanding.tolist() == [min(cap, 3)]
    assert end(plane).first == first_ms


def test_the_first_of_several_new_replicas_takes_everything(engine: Engine) -> None:
    """Rule 20: with an infinite cap nothing is left for the second."""
    plane = start(engine, requests(*[(0, 10, 1)] * 3), replicas=())
    go(plane, 5 * MS)
    plane.add_replica(5 * MS, 0)
    plane.add_replica(5 * MS, 0)
    assert end(plane).column("replica") == [0, 0, 0]


@pytest.mark.parametrize("cap", [1, 2, 3, 8, UNLIMITED])
def test_no_ready_replica_has_room_while_requests_wait(engine: Engine, cap: int) -> None:
    """2.2: from central queue to early binding: at every event, a service queue that is not empty means that all are full."""
    rows = [(MS * (k * k % 17) // 3 + k * MS // 5, 3 + k % 5, 1 + k % 6) for k in range(120)]
    plane = start(
        engine,
        requests(*sorted(rows)),
        replicas=(0, 0, 0),
        specs=[spec(seats=3, max_outstanding=cap, kv_tokens=45)],
        streams=[timeout(9 * MS)],
    )
    waited = 0
    while (t_ns := plane.peek_ns()) < 1 << 62:
        go(plane, t_ns)
        view = plane.view(t_ns)
        assert view.outstanding.max() <= cap
        assert view.in_flight.sum() == view.service_queue.sum() + view.outstanding.sum()
        assert view.queued.sum() == view.service_queue.sum() + view.waiting.sum()
        if view.service_queue.sum():
            waited += 1
            assert (view.outstanding == cap).all()
    assert bool(waited) == (cap <= 8)
    assert end(plane, plane.now_ns + 1).view.in_flight.sum() == 0


def test_a_central_queue_gives_work_to_whoever_is_free(engine: Engine) -> None:
    """Early binding leaves the fourth behind the long one on replica 0; the central queue gives it to replica 1."""
    rows = requests((0, 10, 9), (0, 10, 1), (0, 10, 1), (0, 10, 1))
    early = outcome(engine, rows, replicas=(0, 0), specs=[ONE_SEAT])
    central = outcome(engine, rows, replicas=(0, 0), specs=[CENTRAL])
    assert early.left == [9, 1, 10, 2]
    assert central.left == [9, 1, 2, 3]


SMALL_AND_BIG = (spec(seats=1, kv_tokens=50, max_outstanding=1), spec(seats=1, kv_tokens=500, max_outstanding=1))


def test_a_long_request_goes_only_where_it_fits(engine: Engine) -> None:
    """Several specs: the small replica (index 0, idle) could never hold it."""
    done = outcome(engine, requests((0, 100, 2), (0, 10, 2)), specs=SMALL_AND_BIG, replicas=(0, 1))
    assert done.column("replica") == [1, 0]


def test_a_long_request_waits_for_the_big_one(engine: Engine) -> None:
    """Several specs: request 1 waits for the big replica until 9 ms; request 2, short, passes it to the small one."""
    rows = requests((0, 100, 9), (0, 100, 1), (0, 10, 3), (0, 10, 3))
    done = outcome(engine, rows, specs=SMALL_AND_BIG, replicas=(0, 1))
    assert done.column("replica") == [1, 1, 0, 0]
    assert done.left == [9, 10, 3, 6]


def test_streams_go_only_where_they_are_accepted(engine: Engine) -> None:
    """A replica with streams takes those only; it pulls the oldest of its own, past the head of others."""
    specs = [spec(seats=1, max_outstanding=1, streams=frozenset({0})), spec(seats=1, max_outstanding=1, streams=frozenset({1, 2}))]
    rows = requests(*[(0, 10, 2)] * 6, stream=[1, 0, 1, 0, 2, 1])
    done = outcome(engine, rows, specs=specs, replicas=(0, 1), streams=[StreamRules()] * 3)
    assert done.column("replica") == [1, 0, 1, 0, 1, 1]
    assert done.left == [2, 2, 4, 4, 6, 8]


def test_service_queues_are_apart_and_the_oldest_head_goes_first(engine: Engine) -> None:
    """Two queues: each has its own bound, a free replica takes the older of the two heads."""
    rules = [StreamRules(queue=0), StreamRules(queue=1)]
    rows = requests((0, 10, 2), (1, 10, 1), (2, 10, 1), (3, 10, 1), (4, 10, 1), stream=[0, 1, 0, 1, 0])
    plane = start(engine, rows, specs=[CENTRAL], streams=rules, max_queue=(1, 2))
    go(plane, MS)
    assert plane.view(MS).service_queue.tolist() == [1, 2]
    done = end(plane)
    assert done.outcomes == ["completed"] * 4 + ["queue_full"]
    assert done.left[:4] == [2, 3, 4, 5]


def test_a_pull_takes_the_highest_priority_over_all_queues(engine: Engine) -> None:
    """Two queues and two priorities: the younger but higher request goes first."""
    rules = [StreamRules(queue=0), StreamRules(queue=1, priority=1)]
    rows = requests((0, 10, 2), (1, 10, 1), (2, 10, 1), stream=[0, 0, 1])
    done = outcome(engine, rows, specs=[CENTRAL], streams=rules, max_queue=(9, 9))
    assert done.left == [2, 4, 3]


def test_the_service_queue_is_in_order_of_priority(engine: Engine) -> None:
    """One queue, two priorities; the bound counts both."""
    rules = [StreamRules(), StreamRules(priority=1)]
    rows = requests((0, 10, 2), (1, 10, 1), (2, 10, 1), (3, 10, 1), stream=[0, 0, 1, 1])
    done = outcome(engine, rows, specs=[CENTRAL], streams=rules, max_queue=(2,))
    assert done.outcomes == ["completed", "completed", "completed", "queue_full"]
    assert done.left[:3] == [2, 4, 3]
