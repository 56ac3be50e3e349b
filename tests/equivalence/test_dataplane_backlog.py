"""Backlogs, rule by rule: taken when nothing else wants the room, first to make way, drawn as they are needed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from engine_kit import MS, requests, spec
from play import end, go, start

from sim.dataplane.engine import DataPlane, StreamRules, Watch
from sim.domain.traffic import RequestBlock

Engine = type[DataPlane]
STREAMS = [StreamRules(), StreamRules(backlog=True)]


def rows(*sizes: tuple[int, int]) -> list[RequestBlock]:
    """A block of (prompt tokens, output tokens)."""
    prompt, output = zip(*sizes, strict=True)
    return [RequestBlock.of(arrival_ns=[0] * len(sizes), prompt_tokens=prompt, output_tokens=output)]


def test_an_idle_replica_takes_it_at_once(engine: Engine) -> None:
    """Two seats, three rows: two at once, the third when the first has left; each arrives when it is taken."""
    plane = start(engine, [], specs=[spec(seats=2)], streams=STREAMS)
    go(plane, 5 * MS)
    plane.submit(5 * MS, 1, rows((10, 3), (10, 5), (10, 1)))
    assert plane.view(5 * MS).from_backlog.tolist() == [2]
    assert plane.view(5 * MS).outstanding.tolist() == [0]
    assert plane.view(5 * MS).count("arrived").tolist() == [0, 2]
    done = end(plane)
    assert done.ms("arrival_ns") == [5, 5, 8]
    assert done.left == [8, 10, 9]
    assert done.column("stream") == [1, 1, 1]


def test_new_work_is_looked_at_by_busy_replicas_at_their_next_step(engine: Engine) -> None:
    """A long decode run with a free seat: submitted at 2.5 ms, taken at 3 ms, not only when the run ends."""
    plane = start(engine, requests((0, 10, 50)), specs=[spec(seats=2)], streams=STREAMS)
    go(plane, int(2.5 * MS))
    plane.submit(int(2.5 * MS), 1, rows((10, 2)))
    done = end(plane)
    assert done.ms("arrival_ns") == [0, 3]
    assert done.left == [50, 5]


def test_what_waits_goes_first(engine: Engine) -> None:
    """One seat; a request waits on the replica and one in the service queue: the backlog comes last."""
    specs = [spec(seats=1, max_outstanding=2)]
    plane = start(engine, requests((0, 10, 2), (0, 10, 2), (0, 10, 2)), specs=specs, streams=STREAMS)
    go(plane, MS)
    plane.submit(MS, 1, rows((10, 1)))
    done = end(plane)
    assert done.left == [2, 4, 6, 7]


def test_backlog_seats_bound_it(engine: Engine) -> None:
    """One of four seats for backlogs, and none on the other kind of replica."""
    specs = [spec(seats=4, backlog_seats=1), spec(seats=4, backlog_seats=0)]
    plane = start(engine, [], specs=specs, streams=STREAMS, replicas=(0, 1))
    plane.submit(0, 1, rows((10, 3), (10, 3)))
    assert plane.view(0).from_backlog.tolist() == [1, 0]
    assert end(plane).left == [3, 6]


def test_a_request_gets_the_seat_of_the_latest_of_the_backlog(engine: Engine) -> None:
    """Two seats, both with the backlog. The request of 2.5 ms runs from 3 to 5 ms in the seat of the second one.

    That one has three tokens by then, and computes 10 + 3 again from 5 ms: the fourth comes at 6 ms, the last at 12 ms.
    """
    plane = start(engine, requests((int(2.5 * MS), 10, 2)), specs=[spec(seats=2)], streams=STREAMS)
    plane.submit(0, 1, rows((10, 10), (10, 10)))
    go(plane, 4 * MS)
    view = plane.view(4 * MS)
    assert view.thrown_back.tolist() == [0, 1]
    assert (view.queued.tolist(), view.in_flight.tolist()) == ([0, 1], [1, 2])
    done = end(plane)
    assert done.column("stream") == [1, 1, 0]
    assert done.left == [10, 12, 5]
    assert done.column("preemptions") == [0, 1, 0]
    assert done.view.count("prefill_tokens").tolist() == [10, 20 + 13]
    assert done.view.count("lost_prefill_tokens").tolist() == [0, 10]


def test_no_more_make_way_than_needed_and_none_in_vain(engine: Engine) -> None:
    """Capacity 100; three rows hold 18 + 18 + 28 and grow by one a step. A prompt of 40 needs 48: the 28 must go. 70 never fits."""
    plane = start(engine, requests((int(1.5 * MS), 40, 1)), specs=[spec(kv_tokens=100)], streams=STREAMS)
    plane.submit(0, 1, rows((10, 10), (10, 10), (20, 10)))
    done = end(plane)
    assert done.column("preemptions") == [0, 0, 1, 0]
    assert done.left[3] == 3
    plane = start(engine, requests((0, 30, 30), (int(1.5 * MS), 70, 1)), specs=[spec(kv_tokens=100)], streams=STREAMS)
    plane.submit(0, 1, rows((10, 5)))
    done = end(plane)
    assert done.column("stream") == [1, 0, 0]
    assert done.column("preemptions") == [0, 0, 0]
    assert done.left == [5, 31, 32]


def test_it_is_the_first_victim_when_the_cache_is_full(engine: Engine) -> None:
    """Capacity 40, two sequences of 8 + 8 growing: the one of the backlog goes, though it is older and of the highest priority."""
    streams = [StreamRules(), StreamRules(backlog=True, priority=9)]
    plane = start(engine, requests((MS, 8, 12)), specs=[spec(kv_tokens=40)], streams=streams)
    plane.submit(0, 1, rows((8, 20)))
    done = end(plane)
    assert done.column("stream") == [1, 0]
    assert done.column("preemptions") == [1, 0]
    assert done.left[1] == 14


def test_what_was_thrown_back_goes_to_an_idle_replica_at_once(engine: Engine) -> None:
    """The request of 0.5 ms may only go to replica 0, and gets the seat at 1 ms; replica 1 goes on with the other one at 1 ms."""
    specs = [spec(seats=1), spec(seats=1, streams=frozenset({1}))]
    plane = start(engine, requests((MS // 2, 10, 2)), specs=specs, streams=STREAMS, replicas=(0, 1))
    plane.submit(0, 1, rows((10, 20)))
    done = end(plane)
    assert done.column("stream") == [1, 0]
    assert done.column("preemptions") == [1, 0]
    assert done.column("replica") == [1, 0]
    assert done.ms("admitted_ns") == [1, 1]
    assert done.left == [20, 3]


def test_routers_see_it(engine: Engine) -> None:
    """Replica 0 is busy with the backlog, so the request goes to the idle one, and nothing makes way."""
    plane = start(engine, requests((MS // 2, 10, 2)), specs=[spec(seats=1)], streams=STREAMS, replicas=(0, 0))
    plane.submit(0, 1, rows((10, 20)))
    done = end(plane)
    assert done.column("replica") == [0, 1]
    assert done.column("preemptions") == [0, 0]


def test_a_decode_run_does_not_look_into_the_backlog(engine: Engine) -> None:
    """Only a departure or a prefill chunk makes a replica look, not a boundary at which a request happens to be admitted.

    Replica 0 is full of the first row (48 of 80), replica 1 of the second; neither has room for the third. At 5 ms the second has
    left, and the third takes replica 1 and all its budget. At 6 ms the fourth would fit both: replica 0, whose turn comes first,
    admits the request of 5.5 ms and does not look; replica 1 has computed a prompt and takes it.
    """
    specs = [spec(seats=4, kv_tokens=80), spec(seats=4, kv_tokens=80, token_budget=40, streams=frozenset({1}))]
    plane = start(engine, requests((int(5.5 * MS), 1, 1)), specs=specs, streams=STREAMS, replicas=(0, 1))
    plane.submit(0, 1, rows((40, 15), (40, 5), (40, 3), (1, 1)))
    done = end(plane)
    assert done.column("stream") == [1, 1, 1, 0, 1]
    assert done.ms("admitted_ns") == [0, 0, 5, 6, 6]
    assert done.column("replica") == [0, 1, 1, 0, 1]


def test_a_kill_sends_it_to_the_front_of_the_backlog(engine: Engine) -> None:
    """Both start again, before the third, in their order; at the last attempt they fail."""
    plane = start(engine, [], specs=[spec(seats=2)], streams=[StreamRules(), StreamRules(backlog=True, max_attempts=2)])
    plane.submit(0, 1, rows((10, 9), (10, 9), (10, 1)))
    go(plane, 3 * MS)
    plane.kill_replica(3 * MS, 0)
    assert plane.view(3 * MS).thrown_back.tolist() == [0, 2]
    go(plane, 5 * MS)
    plane.add_replica(5 * MS, 0)
    go(plane, 6 * MS)
    plane.kill_replica(6 * MS, 1)
    plane.add_replica(6 * MS, 0)
    done = end(plane)
    assert done.outcomes == ["failed", "failed", "completed"]
    assert done.left == [6, 6, 7]
    assert done.total("redispatched") == 0


def test_a_drain_finishes_what_runs_and_takes_no_more(engine: Engine) -> None:
    """One seat; drained at 1 ms, gone at 3 ms; the second row waits for another replica."""
    plane = start(engine, [], specs=[spec(seats=1)], streams=STREAMS)
    plane.submit(0, 1, rows((10, 3), (10, 1)))
    go(plane, MS)
    plane.drain_replica(MS, 0)
    assert [hit.time_ns for hit in go(plane, 8 * MS)] == [3 * MS]
    plane.add_replica(8 * MS, 0)
    assert end(plane).left == [3, 9]


def test_empty_means_nothing_in_the_system_and_nothing_left(engine: Engine) -> None:
    """One seat, two rows: between them nothing of the stream is in the system for a moment, but the watch waits for the last."""
    plane = start(engine, [], specs=[spec(seats=1)], streams=STREAMS)
    plane.submit(0, 1, rows((10, 2), (10, 2)))
    plane.watch(0, Watch.BACKLOG_EMPTY, 1)
    assert [(hit.time_ns, hit.subject) for hit in go(plane, 50 * MS)] == [(4 * MS, 1)]
    plane.watch(50 * MS, Watch.BACKLOG_EMPTY, 1)
    assert [hit.time_ns for hit in go(plane, 50 * MS)] == [50 * MS]


def test_priorities_then_numbers_decide_between_backlogs(engine: Engine) -> None:
    """Three backlogs, one seat."""
    streams = [StreamRules(backlog=True), StreamRules(backlog=True), StreamRules(backlog=True, priority=1)]
    plane = start(engine, requests((0, 10, 1)), specs=[spec(seats=1)], streams=streams)
    for stream in (1, 0, 2):
        plane.submit(0, stream, rows((10, 1), (10, 1)))
    done = end(plane)
    assert done.column("stream") == [1, 0, 2, 2, 0, 0, 1]


def test_a_second_submission_is_behind_the_first(engine: Engine) -> None:
    """In the order of their submission."""
    plane = start(engine, [], specs=[spec(seats=1)], streams=STREAMS)
    plane.submit(0, 1, rows((10, 1), (11, 1)))
    plane.submit(0, 1, [*rows((12, 1)), *rows((13, 1))])
    assert end(plane).column("prompt_tokens") == [10, 11, 12, 13]


def test_blocks_are_drawn_as_they_are_needed(engine: Engine) -> None:
    """Of a thousand blocks of a hundred rows a few are drawn when two seats have taken ten rows each."""
    drawn = []

    def blocks() -> Iterator[RequestBlock]:
        for number in range(1_000):
            drawn.append(number)
            yield rows(*[(10, 1)] * 100)[0]

    plane = start(engine, [], specs=[spec(seats=2)], streams=STREAMS)
    plane.submit(0, 1, blocks())
    go(plane, 10 * MS)
    assert plane.view(10 * MS).count("completed").tolist() == [0, 20]
    assert len(drawn) <= 2
    go(plane, 1_000 * MS)
    assert plane.view(1_000 * MS).count("completed").tolist() == [0, 2_000]
    assert len(drawn) <= 22


def test_a_wave_of_idle_replicas_draws_what_it_needs(engine: Engine) -> None:
    """Fifty replicas with 64 seats each, filled at once: 3,200 rows, more than are ever at hand."""
    plane = start(engine, [], specs=[spec(seats=64)], streams=STREAMS, replicas=[0] * 50)
    plane.submit(0, 1, (rows(*[(1, 1)] * 1_000)[0] for _ in range(5)))
    assert plane.view(0).from_backlog.tolist() == [64] * 50
    assert plane.view(0).count("arrived").tolist() == [0, 3_200]
    done = end(plane)
    assert done.total("completed") == 5_000
    assert max(done.left) == 2


def test_it_takes_no_room_from_others(engine: Engine) -> None:
    """One may be outstanding on a replica; the backlog does not count, so the request of 1.5 ms gets its seat at 2 ms."""
    plane = start(engine, requests((int(1.5 * MS), 10, 1)), specs=[spec(seats=1, max_outstanding=1)], streams=STREAMS)
    plane.submit(0, 1, rows((10, 9)))
    done = end(plane)
    assert done.column("stream") == [1, 0]
    assert done.left == [10, 3]


def test_a_row_that_fits_nowhere_is_a_mistake_of_the_caller(engine: Engine) -> None:
    """It must fit every replica that takes the stream; and the stream must be one that may have a backlog."""
    specs = [spec(kv_tokens=100), spec(kv_tokens=50), spec(kv_tokens=20, backlog_seats=0)]
    plane = start(engine, [], specs=specs, streams=STREAMS, replicas=())
    plane.submit(0, 1, rows((30, 12)))
    plane = start(engine, [], specs=specs, streams=STREAMS, replicas=())
    with pytest.raises(ValueError, match="a request of 43 tokens, where at most 42 fit everywhere"):
        plane.submit(0, 1, rows((30, 13)))
    with pytest.raises(ValueError, match="stream 0 may have no backlog"):
        plane.submit(0, 0, rows((1, 1)))


def test_the_unfinished_at_the_end(engine: Engine) -> None:
    """Running and thrown back are in the system; rows that nobody took have not arrived."""
    plane = start(engine, requests((int(1.5 * MS), 10, 50)), specs=[spec(seats=1)], streams=STREAMS)
    plane.submit(0, 1, rows((10, 90), (10, 90)))
    done = end(plane, 5 * MS)
    assert done.outcomes == ["unfinished", "unfinished"]
    assert done.view.thrown_back.tolist() == [0, 1]
    assert done.view.count("arrived").tolist() == [1, 1]
