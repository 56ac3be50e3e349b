"""The dynamic batcher, rule by rule; a batch takes 1 ms whatever is in it, so that times can be read off.

Source of the rules and of the case "6 queued, preferred 4 and 8": research note on policies, section 9 and its correction in
section 0 (Triton core, dynamic_batch_scheduler.cc).
"""

from __future__ import annotations

import pytest
from engine_kit import LATTICE, MS, config, requests, spec
from play import end, go, outcome, start

from sim.dataplane.engine import UNLIMITED, Batcher, DataPlane, ReplicaSpec, StreamRules, Watch
from sim.perf.steptime import FRACTION_BITS, StepModel, closed_form

Engine = type[DataPlane]


def batcher(most: int = 8, *preferred: int, delay_ms: float = 0, **changes: object) -> ReplicaSpec:
    """A replica that batches up to `most` items."""
    return spec(seats=1, token_budget=most, kv_tokens=0, batcher=Batcher(preferred, int(delay_ms * MS)), **changes)


def by_size(*times_ns: int) -> StepModel:
    """A step model whose batches of 1, 2, ... items take these times."""
    return StepModel(tokens_fx=(0, *(time_ns << FRACTION_BITS for time_ns in times_ns)), tokens_j=(0.0,) * (len(times_ns) + 1))


def at(*rows: tuple[float, int], **columns: object) -> object:
    """Requests of (time in ms, items)."""
    return requests(*((int(t_ms * MS), items, 1) for t_ms, items in rows), **columns)


def test_without_delay_a_free_replica_sends_what_is_there(engine: Engine) -> None:
    """The first goes alone; five come while it runs and go together."""
    done = outcome(engine, at((0, 1), (0.1, 1), (0.2, 1), (0.3, 1), (0.4, 1), (0.5, 1)), specs=[batcher()])
    assert done.left == [1, 2, 2, 2, 2, 2]
    assert done.view.steps.tolist() == [2]


def test_the_largest_batch_bounds_it(engine: Engine) -> None:
    """Four at most: of six that wait, four go, then two."""
    done = outcome(engine, at((0, 1), *[(0.5, 1)] * 6), specs=[batcher(4)])
    assert done.left == [1, 2, 2, 2, 2, 3, 3]


def test_the_oldest_waits_for_others_no_longer_than_the_delay(engine: Engine) -> None:
    """Alone for 2 ms; one that comes at the very end of the delay joins; the next waits from its own coming."""
    done = outcome(engine, at((0, 1), (1, 1), (2, 1), (5, 1)), specs=[batcher(8, delay_ms=2)])
    assert done.left == [3, 3, 3, 8]
    assert done.ms("admitted_ns") == [2, 2, 2, 7]


def test_a_full_batch_does_not_wait(engine: Engine) -> None:
    """The second item completes the largest batch of 2."""
    done = outcome(engine, at((0, 1), (0.5, 1)), specs=[batcher(2, delay_ms=10)])
    assert done.left == [1.5, 1.5]


def test_a_preferred_size_goes_at_once(engine: Engine) -> None:
    """Preferred 3 of at most 8, delay 10 ms: the third one completes it."""
    done = outcome(engine, at((0, 1), (1, 1), (2, 1), (2, 1)), specs=[batcher(8, 3, delay_ms=10)])
    assert done.left == [3, 3, 3, 13]


@pytest.mark.parametrize(("come_ms", "left"), [(9, [11] * 4 + [15] * 2), (5, [11] * 6)])
def test_a_preferred_size_is_for_those_in_time(engine: Engine, come_ms: float, left: list[float]) -> None:
    """Six wait when the replica is free at 10 ms; preferred 4 and 8, delay 5 ms.

    If they came at 9 ms, four go and the other two wait until 14 ms; if they came at 5 ms, they have waited enough and all six go.
    """
    step = by_size(*[MS] * 7, 10 * MS)
    done = outcome(engine, at((0, 8), *[(come_ms, 1)] * 6), step=step, specs=[batcher(8, 4, 8, delay_ms=5)])
    assert done.left == [10, *left]


def test_sizes_count_and_none_is_split_or_overtaken(engine: Engine) -> None:
    """At most 4 items: 3 cannot go with 2, and the 1 behind does not pass the 2."""
    done = outcome(engine, at((0, 4), (0.1, 3), (0.2, 2), (0.3, 1)), specs=[batcher(4, delay_ms=50)])
    assert done.ms("admitted_ns") == [0, 1, 50.2, 50.2]


def test_what_would_pass_the_largest_preferred_size_sends_what_is_there(engine: Engine) -> None:
    """Preferred 4 of at most 8: three wait for one more, but the next has two."""
    done = outcome(engine, at((0, 3), (1, 2)), specs=[batcher(8, 4, delay_ms=50)])
    assert done.ms("admitted_ns") == [1, 51]


def test_priorities_first_then_the_order_of_coming(engine: Engine) -> None:
    """While a batch of one runs, four come; two go at a time, those of the higher priority first."""
    rows = at((0, 1), (0.1, 1), (0.2, 1), (0.3, 1), (0.4, 1), stream=[0, 0, 1, 0, 1])
    done = outcome(engine, rows, specs=[batcher(2)], streams=[StreamRules(priority=0), StreamRules(priority=5)])
    assert done.left == [1, 3, 2, 3, 2]


def test_a_full_queue_turns_new_ones_away(engine: Engine) -> None:
    """Two may wait of its priority; the other priority has a queue of its own."""
    rules = [StreamRules(batcher_queue=2), StreamRules(priority=1, batcher_queue=1)]
    rows = at((0, 1), *[(0.5, 1)] * 5, stream=[0, 0, 0, 0, 1, 1])
    done = outcome(engine, rows, specs=[batcher(1)], streams=rules)
    assert done.outcomes == ["completed", "completed", "completed", "queue_full", "completed", "queue_full"]
    assert done.total("missed_queued") == 2
    one_priority = [StreamRules(batcher_queue=2)] * 2
    assert outcome(engine, rows, specs=[batcher(1)], streams=one_priority).outcomes == ["completed"] * 3 + ["queue_full"] * 3


def test_the_late_leave(engine: Engine) -> None:
    """Timeout 1 ms: noticed when a batch is formed, strictly after the deadline; its place goes to the one behind."""
    rows = at((0, 1), (0.5, 1), (1, 1), (1, 1))
    done = outcome(engine, rows, specs=[batcher(1)], streams=[StreamRules(queue_timeout_ns=MS)])
    assert done.outcomes == ["completed", "completed", "completed", "abandoned"]
    assert done.left == [1, 2, 3, 3]


def test_the_late_may_wait_behind_the_others_of_their_priority(engine: Engine) -> None:
    """Two are late at 3 ms; those in time go before them, and the lower priority after."""
    slow = closed_form(fixed_ns=3.0 * MS)
    rules = [StreamRules(priority=1, queue_timeout_ns=2 * MS, late_waits=True), StreamRules()]
    rows = at((0, 1), (0.1, 1), (0.2, 1), (2, 1), (2.5, 1), stream=[0, 0, 0, 0, 1])
    done = outcome(engine, rows, step=slow, specs=[batcher(1)], streams=rules)
    assert done.left == [3, 9, 12, 6, 15]
    assert done.total("abandoned") == 0


def test_one_that_left_makes_room_for_one_of_a_priority_that_had_its_turn(engine: Engine) -> None:
    """The only one in the list is late; what its room brings from the queue is of a higher priority, and is seen all the same."""
    rules = [StreamRules(queue_timeout_ns=MS), StreamRules(priority=1)]
    rows = at((0, 1), (0.1, 1), (0.2, 1), stream=[1, 0, 1])
    slow = closed_form(fixed_ns=3.0 * MS)
    done = outcome(engine, rows, step=slow, specs=[batcher(1, max_outstanding=2)], streams=rules)
    assert done.outcomes == ["completed", "abandoned", "completed"]
    assert done.left == [3, 3, 6]


def test_a_table_gives_the_time_of_a_batch_by_its_items(engine: Engine) -> None:
    """1, 2, 3 items in 5, 6, 9 ms."""
    table = by_size(5 * MS, 6 * MS, 9 * MS)
    done = outcome(engine, at((0, 1), (1, 2), (2, 1), (3, 2)), step=table, specs=[batcher(3)])
    assert done.left == [5, 14, 14, 20]


def test_time_and_energy_go_to_streams_by_items(engine: Engine) -> None:
    """A batch of 3 and 1 items in 1 ms at 300 W."""
    step = closed_form(fixed_ns=float(MS), base_w=300.0, tdp_w=400.0)
    rows = at((0, 3), (0, 1), stream=[0, 1])
    done = outcome(engine, rows, step=step, specs=[batcher(4, delay_ms=1)], streams=[StreamRules(), StreamRules()])
    assert done.view.shares_ns.tolist() == [[750_000.0, 250_000.0]]
    assert done.view.energy_j.tolist() == pytest.approx([0.3])
    assert done.view.kv_used_tokens.tolist() == [0]


def test_a_drain_sends_those_who_wait_for_a_delay_elsewhere(engine: Engine) -> None:
    """Replica 0 holds one for a batch; drained at 1 ms it is empty at once, and the other one starts its own delay."""
    plane = start(engine, at((0, 1)), specs=[batcher(8, delay_ms=5)], replicas=(0, 0))
    go(plane, MS)
    assert plane.view(MS).waiting.tolist() == [1, 0]
    plane.drain_replica(MS, 0)
    assert [(hit.reason, hit.subject) for hit in go(plane, MS)] == [(Watch.DRAINED, 0)]
    done = end(plane)
    assert done.left == [7]
    assert done.total("redispatched") == 1


def test_a_kill_retries_the_batch(engine: Engine) -> None:
    """Killed in the middle: half a millisecond is lost, both start again on the other replica."""
    plane = start(engine, at((0, 2), (0, 2)), specs=[batcher(4)], replicas=(0,))
    go(plane, MS // 2)
    plane.kill_replica(MS // 2, 0)
    plane.add_replica(MS // 2, 0)
    done = end(plane)
    assert done.left == [1.5, 1.5]
    assert done.column("attempts") == [2, 1]


def test_who_waits_for_a_delay_is_not_idle(engine: Engine) -> None:
    """An idle watch of 3 ms, a request that comes at 1 ms and runs from 6 to 7 ms: idle since 7 ms, the watch fires at 10 ms."""
    plane = start(engine, at((1, 1)), specs=[batcher(8, delay_ms=5)])
    plane.watch(0, Watch.IDLE_SINCE, 0, 3 * MS)
    assert [hit.time_ns for hit in go(plane, 100 * MS)] == [10 * MS]


def test_too_many_items_are_too_long(engine: Engine) -> None:
    """Nine items where eight is the largest batch."""
    assert outcome(engine, at((0, 9)), specs=[batcher(8)]).outcomes == ["too_long"]


def test_an_answer_comes_in_one_piece(engine: Engine) -> None:
    """A second output token is a mistake of the caller."""
    with pytest.raises(ValueError, match="output_tokens = 1"):
        outcome(engine, requests((0, 1, 2)), specs=[batcher(8)])


@pytest.mark.parametrize(
    ("specs", "step", "says"),
    [
        ([batcher(8, 9)], LATTICE, "preferred sizes are 1 to 8"),
        ([batcher(8, delay_ms=-1)], LATTICE, "a delay is at least 0"),
        ([batcher(8), spec()], LATTICE, "cannot go to LLM replicas and to batchers"),
    ],
)
def test_what_cannot_be(specs: list[ReplicaSpec], step: StepModel, says: str) -> None:
    """A plane that makes no sense is refused."""
    with pytest.raises(ValueError, match=says):
        config(step=step, specs=specs)


def test_batchers_beside_llm_replicas(engine: Engine) -> None:
    """One plane, two kinds, each with its own stream."""
    specs = [spec(streams=frozenset({0})), batcher(8, streams=frozenset({1}), max_outstanding=UNLIMITED)]
    rows = requests((0, 10, 3), (0, 4, 1), stream=[0, 1])
    done = outcome(engine, rows, specs=specs, streams=[StreamRules(), StreamRules()], replicas=(0, 1))
    assert done.left == [3, 1]
    assert done.column("replica") == [0, 1]
