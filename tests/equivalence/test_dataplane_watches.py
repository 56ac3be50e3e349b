"""Watches: each fires once, at its own time, and one that holds already fires at once."""

from __future__ import annotations

from engine_kit import MS, requests, spec
from play import Clients, end, go, start

from sim.dataplane.engine import DataPlane, Hit, StreamRules, Watch

Engine = type[DataPlane]
CENTRAL = spec(seats=1, max_outstanding=1)
FAR = 900 * MS


def hit(t_ms: float, reason: Watch, subject: int) -> Hit:
    """A hit by its time in milliseconds."""
    return Hit(int(t_ms * MS), reason, subject)


def test_arrival_without_capacity(engine: Engine) -> None:
    """Fires at the arrival that finds nobody, once; the request waits for a replica."""
    plane = start(engine, requests((2 * MS, 10, 1), (3 * MS, 10, 1)), replicas=())
    plane.watch(0, Watch.ARRIVAL_WITHOUT_CAPACITY, 0)
    assert plane.may_stop
    assert plane.advance(FAR) == hit(2, Watch.ARRIVAL_WITHOUT_CAPACITY, 0)
    assert plane.now_ns == 2 * MS
    assert not plane.may_stop
    plane.add_replica(2 * MS, 0)
    assert go(plane, FAR) == []
    assert end(plane, FAR).left == [3, 4]


def test_arrival_without_capacity_can_be_set_again(engine: Engine) -> None:
    """Armed anew after the first hit it fires at the next arrival, not before."""
    plane = start(engine, requests((2 * MS, 10, 1), (3 * MS, 10, 1), (4 * MS, 10, 1)), replicas=())
    hits = []
    for _ in range(2):
        plane.watch(plane.now_ns, Watch.ARRIVAL_WITHOUT_CAPACITY, 0)
        hits.append(plane.advance(FAR))
    assert hits == [hit(2, Watch.ARRIVAL_WITHOUT_CAPACITY, 0), hit(3, Watch.ARRIVAL_WITHOUT_CAPACITY, 0)]
    assert plane.advance(FAR) is None


def test_arrival_without_capacity_is_not_lack_of_room(engine: Engine) -> None:
    """A full replica is capacity; a draining one, or one that refuses the stream, is none."""
    specs = [spec(seats=1, max_outstanding=1, streams=frozenset({0})), spec()]
    rows = requests((0, 10, 9), (MS, 10, 1), (2 * MS, 10, 1), (4 * MS, 10, 1), stream=[0, 0, 1, 0])
    plane = start(engine, rows, specs=specs, streams=[StreamRules()] * 2)
    plane.watch(0, Watch.ARRIVAL_WITHOUT_CAPACITY, 0)
    assert plane.advance(FAR) == hit(2, Watch.ARRIVAL_WITHOUT_CAPACITY, 0)
    plane.watch(2 * MS, Watch.ARRIVAL_WITHOUT_CAPACITY, 0)
    assert plane.advance(3 * MS) is None
    plane.drain_replica(3 * MS, 0)
    assert plane.advance(FAR) == hit(4, Watch.ARRIVAL_WITHOUT_CAPACITY, 0)


def test_a_too_long_arrival_needs_no_capacity(engine: Engine) -> None:
    """It is turned away before anybody looks for a replica."""
    plane = start(engine, requests((MS, 10**6, 1)), replicas=())
    plane.watch(0, Watch.ARRIVAL_WITHOUT_CAPACITY, 0)
    assert plane.advance(FAR) is None


def test_queue_above(engine: Engine) -> None:
    """Level 2: fires when the third waits, at 3 ms, once, though a fourth comes."""
    plane = start(engine, requests(*[(k * MS, 10, 50) for k in range(5)]), specs=[CENTRAL])
    plane.watch(0, Watch.QUEUE_ABOVE, 0, level=2)
    assert go(plane, 20 * MS) == [hit(3, Watch.QUEUE_ABOVE, 0)]


def test_queue_above_that_holds_already(engine: Engine) -> None:
    """Armed at 10 ms with four waiting and a level of 3: fires at 10 ms; a level of 4 does not."""
    plane = start(engine, requests(*[(k * MS, 10, 50) for k in range(5)]), specs=[CENTRAL])
    go(plane, 10 * MS)
    plane.watch(10 * MS, Watch.QUEUE_ABOVE, 0, level=4)
    assert plane.advance(20 * MS) is None
    plane.watch(20 * MS, Watch.QUEUE_ABOVE, 0, level=3)
    assert plane.advance(FAR) == hit(20, Watch.QUEUE_ABOVE, 0)
    assert plane.now_ns == 20 * MS


def test_queue_above_sees_the_redispatched(engine: Engine) -> None:
    """Three come back into the queue when their replica dies at 1 ms."""
    plane = start(engine, requests(*[(k, 10, 50) for k in range(3)]), specs=[spec(seats=1)])
    plane.watch(0, Watch.QUEUE_ABOVE, 0, level=2)
    assert go(plane, MS) == []
    plane.kill_replica(MS, 0)
    assert plane.advance(FAR) == hit(1, Watch.QUEUE_ABOVE, 0)


def test_backlog_empty(engine: Engine) -> None:
    """Fires when the last request of the stream leaves, at 6 ms, whatever other streams do; not when the first leaves at 3 ms."""
    rows = requests((0, 10, 3), (0, 10, 30), (MS, 10, 4), (20 * MS, 10, 1), stream=[0, 1, 0, 0])
    plane = start(engine, rows, streams=[StreamRules()] * 2)
    go(plane, 1)
    plane.watch(1, Watch.BACKLOG_EMPTY, 0)
    assert go(plane, 100 * MS) == [hit(6, Watch.BACKLOG_EMPTY, 0)]


def test_backlog_empty_that_holds_already(engine: Engine) -> None:
    """A stream with nothing in the system fires at once."""
    plane = start(engine, requests((5 * MS, 10, 1)))
    plane.watch(0, Watch.BACKLOG_EMPTY, 0)
    assert plane.advance(FAR) == hit(0, Watch.BACKLOG_EMPTY, 0)
    assert plane.advance(FAR) is None


def test_backlog_empty_after_a_failure(engine: Engine) -> None:
    """A request that fails in a kill has left, too."""
    plane = start(engine, requests((0, 10, 9)), streams=[StreamRules(max_attempts=1)])
    go(plane, 2 * MS)
    plane.watch(2 * MS, Watch.BACKLOG_EMPTY, 0)
    plane.kill_replica(2 * MS, 0)
    assert plane.advance(FAR) == hit(2, Watch.BACKLOG_EMPTY, 0)


def test_backlog_empty_between_two_requests_of_a_client(engine: Engine) -> None:
    """A closed-loop stream is empty while its client thinks."""
    plane = start(engine, [], clients=Clients([[(0, 10, 2), (9 * MS, 10, 1)]]))
    go(plane, MS)
    plane.watch(MS, Watch.BACKLOG_EMPTY, 0)
    assert go(plane, FAR) == [hit(2, Watch.BACKLOG_EMPTY, 0)]


def test_idle_since(engine: Engine) -> None:
    """Idle from 2 ms, again from 7 ms: a watch of 6 ms fires at 13 ms; the pause of 4 ms before is too short."""
    plane = start(engine, requests((0, 10, 2), (6 * MS, 10, 1), (50 * MS, 10, 1)))
    plane.watch(0, Watch.IDLE_SINCE, 0, level=6 * MS)
    assert go(plane, FAR) == [hit(13, Watch.IDLE_SINCE, 0)]


def test_idle_since_from_the_birth_of_a_replica(engine: Engine) -> None:
    """A replica that never worked is idle since it was added."""
    plane = start(engine, [], replicas=())
    go(plane, 3 * MS)
    plane.add_replica(3 * MS, 0)
    go(plane, 4 * MS)
    plane.watch(4 * MS, Watch.IDLE_SINCE, 0, level=5 * MS)
    assert plane.advance(FAR) == hit(8, Watch.IDLE_SINCE, 0)


def test_idle_since_that_holds_already(engine: Engine) -> None:
    """Idle since 1 ms; armed at 20 ms with 5 ms it fires at 20 ms."""
    plane = start(engine, requests((0, 10, 1)))
    go(plane, 20 * MS)
    plane.watch(20 * MS, Watch.IDLE_SINCE, 0, level=5 * MS)
    assert plane.advance(FAR) == hit(20, Watch.IDLE_SINCE, 0)


def test_work_at_the_very_end_of_the_wait_comes_first(engine: Engine) -> None:
    """Layout: an arrival at 11 ms goes before the timer of 11 ms, so the replica is not idle."""
    plane = start(engine, requests((0, 10, 1), (11 * MS, 10, 2)))
    plane.watch(0, Watch.IDLE_SINCE, 0, level=10 * MS)
    assert go(plane, FAR) == [hit(23, Watch.IDLE_SINCE, 0)]


def test_the_last_level_counts(engine: Engine) -> None:
    """Armed again with a longer wait before the first is over: only the longer one fires."""
    plane = start(engine, requests((0, 10, 1)))
    go(plane, 2 * MS)
    plane.watch(2 * MS, Watch.IDLE_SINCE, 0, level=5 * MS)
    plane.watch(2 * MS, Watch.IDLE_SINCE, 0, level=9 * MS)
    assert go(plane, FAR) == [hit(10, Watch.IDLE_SINCE, 0)]


def test_a_watch_on_a_dead_replica_is_silent(engine: Engine) -> None:
    """Killed at 3 ms: no idle hit, not even for the new replica at its index."""
    plane = start(engine, [])
    plane.watch(0, Watch.IDLE_SINCE, 0, level=5 * MS)
    go(plane, 3 * MS)
    plane.kill_replica(3 * MS, 0)
    plane.add_replica(3 * MS, 0)
    assert not plane.may_stop
    assert go(plane, FAR) == []


def test_several_hits_at_one_instant_come_one_by_one(engine: Engine) -> None:
    """The last request of a stream leaves a draining replica at 3 ms: both watches, each at its own call."""
    plane = start(engine, requests((0, 10, 3)))
    go(plane, MS)
    plane.watch(MS, Watch.BACKLOG_EMPTY, 0)
    plane.drain_replica(MS, 0)
    assert plane.advance(FAR) == hit(3, Watch.BACKLOG_EMPTY, 0)
    assert plane.advance(FAR) == hit(3, Watch.DRAINED, 0)
    assert plane.now_ns == 3 * MS
    assert plane.advance(FAR) is None
