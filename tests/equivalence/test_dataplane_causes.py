"""Why a request was not good, and when it came to its replica and into its batch: one case by hand for each cause."""

from __future__ import annotations

from engine_kit import MS, requests, spec
from play import end, go, outcome, start

from sim.dataplane.engine import DataPlane, StreamRules
from sim.dataplane.layout import COUNTERS

Engine = type[DataPlane]
# Nobody can be inside this target.
STRICT = StreamRules(e2e_ns=1)
CAUSES = [name for name in COUNTERS if name.startswith("missed_")]


def causes(result: object) -> dict[str, int]:
    """The causes that were counted."""
    return {name: result.total(name) for name in CAUSES if result.total(name)}  # type: ignore[attr-defined]


def test_what_is_inside_its_targets_has_no_cause(engine: Engine) -> None:
    """Three milliseconds of three allowed."""
    done = outcome(engine, requests((0, 10, 3)), streams=[StreamRules(e2e_ns=3 * MS)])
    assert causes(done) == {}
    assert done.total("good_all") == 1


def test_slow_is_what_nothing_else_explains(engine: Engine) -> None:
    """Alone on a replica; and one that waited in its replica's list for a seat, which is load on the replica too."""
    assert causes(outcome(engine, requests((0, 10, 3)), streams=[STRICT])) == {"missed_slow": 1}
    done = outcome(engine, requests((0, 10, 3), (0, 10, 3)), specs=[spec(seats=1)], streams=[STRICT])
    assert causes(done) == {"missed_slow": 2}
    assert (done.ms("dispatched_ns"), done.ms("admitted_ns")) == ([0, 0], [0, 3])


def test_queued_waited_in_a_service_queue_or_was_turned_away_by_one(engine: Engine) -> None:
    """One seat, one place in the queue: the second waits there until 3 ms, the third is turned away."""
    rows = requests((0, 10, 3), (0, 10, 3), (0, 10, 3))
    done = outcome(engine, rows, specs=[spec(seats=1, max_outstanding=1)], streams=[STRICT], max_queue=(1,))
    assert done.outcomes == ["completed", "completed", "queue_full"]
    assert causes(done) == {"missed_slow": 1, "missed_queued": 2}
    assert (done.ms("dispatched_ns"), done.ms("admitted_ns")) == ([0, 3, -1], [0, 3, -1])


def test_queued_by_a_redispatch(engine: Engine) -> None:
    """What a drain sends back to the service queue has waited there."""
    plane = start(engine, requests((0, 10, 3), (0, 10, 3)), specs=[spec(seats=1)], streams=[STRICT])
    go(plane, MS)
    plane.drain_replica(MS, 0)
    go(plane, 5 * MS)
    plane.add_replica(5 * MS, 0)
    done = end(plane)
    assert causes(done) == {"missed_slow": 1, "missed_queued": 1}
    assert done.ms("dispatched_ns") == [0, 5]


def test_kv_full_was_next_in_line_and_did_not_fit(engine: Engine) -> None:
    """Capacity 50: the first holds 10 + 8 and grows, the second needs 20 + 8 and 5 stay free; a seat was free all the time."""
    specs = [spec(kv_tokens=50, watermark_tokens=5)]
    done = outcome(engine, requests((0, 10, 4), (0, 20, 1)), specs=specs, streams=[STRICT])
    assert done.column("preemptions") == [0, 0]
    assert causes(done) == {"missed_slow": 1, "missed_kv_full": 1}


def test_preempted_comes_before_kv_full(engine: Engine) -> None:
    """The victim waits for KV too, but the preemption is its cause."""
    done = outcome(engine, requests((0, 8, 20), (0, 8, 20)), specs=[spec(seats=4, kv_tokens=40)], streams=[STRICT])
    assert done.column("preemptions") == [0, 1]
    assert causes(done) == {"missed_slow": 1, "missed_preempted": 1}
    assert done.ms("admitted_ns") == [0, 20]


def test_retried_comes_first(engine: Engine) -> None:
    """Killed once and completed after a wait in the queue, and failed at the first kill."""
    plane = start(engine, requests((0, 10, 5), (0, 10, 5), stream=[0, 1]), streams=[STRICT, StreamRules(max_attempts=1)])
    go(plane, 2 * MS)
    plane.kill_replica(2 * MS, 0)
    go(plane, 4 * MS)
    plane.add_replica(4 * MS, 0)
    done = end(plane)
    assert done.outcomes == ["completed", "failed"]
    assert causes(done) == {"missed_retried": 2}


def test_too_long_is_nobodys_delay(engine: Engine) -> None:
    """It has a counter of its own; and what is unfinished has missed nothing yet."""
    done = outcome(engine, requests((0, 200, 1), (0, 10, 90)), until_ns=5 * MS, specs=[spec(kv_tokens=150)], streams=[STRICT])
    assert done.outcomes == ["too_long", "unfinished"]
    assert causes(done) == {}
