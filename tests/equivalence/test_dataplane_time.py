"""Rules 1 to 6 of the data plane: event order, ties, fixed-point time, indices."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from engine_kit import LATTICE, MS, OFFSET_400_DAYS_NS, PER_TOKEN, config, requests, spec
from play import end, go, outcome, start

from sim.dataplane.engine import DataPlane, StreamRules, Watch
from sim.domain.traffic import RequestBlock
from sim.perf.steptime import closed_form
from sim.policies.routers import RoundRobin

Engine = type[DataPlane]
QUARTER = closed_form(fixed_ns=1_000.25)
CENTRAL = spec(seats=1, max_outstanding=1)


@pytest.mark.parametrize("tokens", [1, 2, 3, 4, 5, 8, 101])
def test_boundaries_carry_the_fraction(engine: Engine, tokens: int) -> None:
    """Rule 1: the end of step k is floor(k x 1000.25 ns), never a sum of rounded steps."""
    done = outcome(engine, requests((0, 10, tokens)), step=QUARTER)
    assert done.column("leave_ns") == [tokens * 100_025 // 100]
    assert done.column("first_token_ns") == [1_000]


def test_the_fraction_is_zero_when_a_replica_starts_from_idle(engine: Engine) -> None:
    """Rule 1: three steps leave 0.75 ns over; two steps from idle at 5,000 end at 7,000.5, not at 7,001.25."""
    done = outcome(engine, requests((0, 10, 3), (5_000, 10, 2)), step=QUARTER)
    assert done.column("leave_ns") == [3_000, 7_000]


def test_the_fraction_survives_a_change_of_batch(engine: Engine) -> None:
    """Rule 1: a request that joins on the way does not reset the fraction: four steps end at 4,001 ns."""
    done = outcome(engine, requests((0, 10, 4), (1_500, 10, 1)), step=QUARTER)
    assert done.column("leave_ns") == [4_001, 3_000]


def test_step_time_grows_with_the_context(engine: Engine) -> None:
    """Rule 1: prefill 1000, then 1000 + 0.5 C with C = 11, 12, 13: boundaries 1000, 2005.5, 3011.5, 4018."""
    step = closed_form(fixed_ns=1_000.0, context_ns=0.5)
    leave = [outcome(engine, requests((0, 10, n)), step=step).column("leave_ns")[0] for n in (1, 2, 3, 4)]
    assert leave == [1_000, 2_005, 3_011, 4_018]


def test_an_arrival_at_a_boundary_misses_the_step_that_starts_there(engine: Engine) -> None:
    """Rule 2: at 1 ms the second step starts without the request that arrives at 1 ms; one nanosecond earlier is in time."""
    at = outcome(engine, requests((0, 10, 5), (MS, 10, 1)))
    before = outcome(engine, requests((0, 10, 5), (MS - 1, 10, 1)))
    assert (at.left[1], before.left[1]) == (3, 2)


def test_step_ends_come_before_arrivals(engine: Engine) -> None:
    """Rule 2: the seat freed at 1 ms is there for the arrival at 1 ms, although nobody may wait."""
    done = outcome(engine, requests((0, 10, 1), (MS, 10, 1)), specs=[CENTRAL], max_queue=(0,))
    assert done.outcomes == ["completed", "completed"]
    assert done.left == [1, 2]


def test_step_ends_at_one_instant_go_by_replica_index(engine: Engine) -> None:
    """Rule 2: both replicas end a step at 3 us; index 0 pulls the older request though its step started later."""
    rows = requests((0, 1, 1), (0, 3, 1), (1_000, 2, 1), (2_000, 10, 1), (2_000, 20, 1))
    done = outcome(engine, rows, replicas=(0, 0), specs=[CENTRAL], step=PER_TOKEN)
    assert done.column("replica") == [0, 1, 0, 0, 1]
    assert done.column("leave_ns") == [1_000, 3_000, 3_000, 13_000, 23_000]


def test_arrivals_at_one_instant_keep_the_order_of_the_block(engine: Engine) -> None:
    """Rule 2: the first row gets the seat, the second waits, the third is turned away."""
    done = outcome(engine, requests((5, 10, 1), (5, 10, 1), (5, 10, 1)), specs=[CENTRAL], max_queue=(1,))
    assert done.outcomes == ["completed", "completed", "queue_full"]


def test_advance_is_inclusive_and_control_comes_last(engine: Engine) -> None:
    """Rules 2 and 5: an arrival and a step end at exactly `until` have happened before control acts there."""
    plane = start(engine, requests((0, 10, 1), (MS, 10, 1)))
    go(plane, MS)
    assert plane.view(MS).count("completed").tolist() == [1]
    assert plane.view(MS).count("arrived").tolist() == [2]
    plane.kill_replica(MS, 0)
    done = end(plane, 2 * MS)
    assert done.outcomes == ["completed", "unfinished"]


def test_two_arrivals_at_one_instant_at_an_idle_replica(engine: Engine) -> None:
    """Rule 3: a step starts at once, so the first request gets a step alone."""
    done = outcome(engine, requests((0, 10, 1), (0, 10, 1), (0, 10, 1)))
    assert done.left == [1, 2, 2]


def test_a_stale_step_end_does_nothing(engine: Engine) -> None:
    """Rule 4: killed at 0.5 ms; the new replica at the same index runs its first step to 1.5 ms, not to 1 ms."""
    plane = start(engine, requests((0, 10, 1)))
    go(plane, MS // 2)
    plane.kill_replica(MS // 2, 0)
    assert plane.add_replica(MS // 2, 0) == 1
    assert end(plane).left == [1.5]


def test_control_acts_only_at_the_time_reached(engine: Engine) -> None:
    """Rule 5: a control action at t needs an engine advanced to t."""
    plane = start(engine, requests((0, 10, 1)))
    go(plane, MS)
    for act in (
        lambda t: plane.add_replica(t, 0),
        lambda t: plane.drain_replica(t, 0),
        lambda t: plane.kill_replica(t, 0),
        lambda t: plane.watch(t, Watch.BACKLOG_EMPTY, 0),
        plane.view,
        plane.close,
    ):
        for t_ns in (MS - 1, MS + 1):
            with pytest.raises(ValueError, match="advanced to 1000000 ns"):
                act(t_ns)
    assert plane.now_ns == MS


def test_peek_is_the_next_event(engine: Engine) -> None:
    """The next event is the arrival, then the step's end, then nothing."""
    plane = start(engine, requests((5, 10, 1)))
    seen = []
    while plane.peek_ns() < 1 << 62:
        seen.append(plane.peek_ns())
        assert plane.advance(seen[-1]) is None
    assert seen == [5, 5 + MS]


def test_a_new_replica_takes_the_lowest_free_index(engine: Engine) -> None:
    """Rule 6: after the death of index 0 the next replica (number 2) has index 0 and wins ties."""
    plane = start(engine, requests((2 * MS, 10, 1)), replicas=(0, 0))
    plane.kill_replica(0, 0)
    assert plane.add_replica(0, 0) == 2
    assert plane.view(0).replica.tolist() == [2, 1]
    assert plane.add_replica(0, 0) == 3
    assert plane.view(0).replica.tolist() == [2, 1, 3]
    assert end(plane).column("replica") == [2]


def test_a_draining_replica_keeps_its_index(engine: Engine) -> None:
    """Rule 6: an index is free only when its replica has left."""
    plane = start(engine, requests((0, 10, 5)), replicas=(0, 0))
    go(plane, MS)
    plane.drain_replica(MS, 0)
    plane.add_replica(MS, 0)
    assert plane.view(MS).replica.tolist() == [0, 1, 2]
    go(plane, 6 * MS)
    plane.add_replica(6 * MS, 0)
    assert plane.view(6 * MS).replica.tolist() == [3, 1, 2]


def test_the_round_robin_pointer_survives_removals(engine: Engine) -> None:
    """Rule 6: picks 0, 1; index 1 dies; the next is 2, then 0; a new replica at index 1 comes next."""
    rows = [(2 * k * MS, 10, 1) for k in range(5)]
    plane = start(engine, requests(*rows), replicas=(0, 0, 0), router=RoundRobin())
    go(plane, 3 * MS)
    plane.kill_replica(3 * MS, 1)
    go(plane, 7 * MS)
    assert plane.add_replica(7 * MS, 0) == 3
    assert end(plane).column("replica") == [0, 1, 2, 0, 3]


def busy_day(start_ns: int) -> tuple[list[RequestBlock], dict[str, object]]:
    """Forty requests with preemption, timeouts and fractions, shifted."""
    rows = [(start_ns + 700 * k, 5 + k % 7, 1 + k % 11) for k in range(40)]
    changes = {
        "step": closed_form(fixed_ns=900.3, token_ns=10.7, context_ns=0.31, base_w=100.0, tdp_w=300.0),
        "specs": [spec(seats=4, token_budget=16, kv_tokens=70, max_outstanding=5)],
        "streams": [StreamRules(queue_timeout_ns=5_000)],
        "ring_s": 3,
        "start_ns": start_ns,
    }
    return requests(*rows), changes


def test_nothing_depends_on_when_the_run_starts(engine: Engine) -> None:
    """Absolute times never become floats: 400 days later everything is the same, shifted to the nanosecond."""
    day, far = (
        outcome(engine, blocks, until_ns=offset + MS, replicas=(0, 0), **changes)
        for offset in (0, OFFSET_400_DAYS_NS)
        for blocks, changes in [busy_day(offset)]
    )
    assert day.total("preempted") > 0
    assert day.total("abandoned") > 0
    for name, column in day.records.items():
        shift = np.where(column >= 0, OFFSET_400_DAYS_NS, 0) if name.endswith("_ns") and name != "net_ns" else 0
        np.testing.assert_array_equal(far.records[name], column + shift, err_msg=name)
    for name in ("counters", "queued_us", "in_flight_us", "busy_ns", "lost_ns", "energy_j", "shares_ns", "steps"):
        np.testing.assert_array_equal(getattr(far.view, name), getattr(day.view, name), err_msg=name)


@pytest.mark.parametrize("cut", [1, 2, 3, 7, 39])
def test_block_boundaries_change_nothing(engine: Engine, cut: int) -> None:
    """Arrivals in blocks of any size, empty ones included, give the same run."""
    [block], changes = busy_day(0)
    edges = [*range(0, len(block), cut), len(block)]
    pieces = [piece for a, b in pairwise(edges) for piece in (block.take(slice(a, b)), block.take(slice(0, 0)))]
    whole, parts = outcome(engine, [block], MS, **changes), outcome(engine, pieces, MS, **changes)
    for name, column in whole.records.items():
        np.testing.assert_array_equal(parts.records[name], column, err_msg=name)
    np.testing.assert_array_equal(parts.view.queued_us, whole.view.queued_us)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"specs": [spec(seats=0)]}, "seats"),
        ({"specs": [spec(seats=9, token_budget=8)]}, "token_budget = 8"),
        ({"specs": [spec(watermark_tokens=0)]}, "watermark_tokens = 0"),
        ({"specs": [spec(max_outstanding=0)]}, "max_outstanding = 0"),
        ({"specs": [spec(kind=1)]}, "kind = 1"),
        ({"specs": [spec(role="prefill")]}, "role = 'prefill'"),
        ({"step": closed_form(fixed_ns=0.99)}, "less than 1 ns"),
        ({"streams": [StreamRules(queue=1)]}, "max_queue"),
    ],
)
def test_what_cannot_run_is_refused(changes: dict[str, object], message: str) -> None:
    """Rule 13: seats, budget, watermark and a step of at least 1 ns are checked before anything starts."""
    with pytest.raises(ValueError, match=message):
        config(**changes)


def test_a_step_of_one_nanosecond_is_allowed(engine: Engine) -> None:
    """Rule 13: the bound itself works."""
    assert outcome(engine, requests((0, 1, 3)), until_ns=10, step=closed_form(fixed_ns=1.0)).column("leave_ns") == [3]
    assert LATTICE.step_fx(1, 1, 0, 0) == MS << 20
