"""Rules 21 to 23 of the data plane: drain, redispatch, kill."""

from __future__ import annotations

import pytest
from engine_kit import MS, PER_TOKEN, requests, spec
from play import end, go, start

from sim.dataplane.engine import DataPlane, Hit, StreamRules, Watch
from sim.perf.steptime import closed_form

Engine = type[DataPlane]
ONE_SEAT = spec(seats=1)
CENTRAL = spec(seats=1, max_outstanding=1)
US = 1_000


def drained(t_ms: float, replica: int) -> Hit:
    """The hit of a replica that has drained."""
    return Hit(int(t_ms * MS), Watch.DRAINED, replica)


def test_drain_lets_the_running_finish_and_sends_the_waiting_on(engine: Engine) -> None:
    """Rule 21: at 2.5 ms request 0 runs on and leaves at 5 ms, request 2 moves to replica 1; gone at 5 ms, its own time."""
    plane = start(engine, requests((0, 10, 5), (0, 10, 4), (0, 10, 1)), specs=[ONE_SEAT], replicas=(0, 0))
    go(plane, 5 * MS // 2)
    plane.drain_replica(5 * MS // 2, 0)
    view = plane.view(5 * MS // 2)
    assert view.accepting.tolist() == [0, 1]
    assert view.outstanding.tolist() == [1, 2]
    assert go(plane, 100 * MS) == [drained(5, 0)]
    [totals] = plane.take_retired()
    assert (totals.replica, totals.drain_ns, totals.removed_ns) == (0, 5 * MS // 2, 5 * MS)
    assert (totals.busy_ns, totals.draining_busy_ns, totals.lost_ns) == (5 * MS, 5 * MS // 2, 0)
    assert plane.take_retired() == []
    done = end(plane)
    assert done.left == [5, 4, 5]
    assert done.column("replica") == [0, 1, 1]
    assert (done.total("redispatched"), done.total("retried")) == (1, 0)


def test_an_idle_replica_is_drained_at_once(engine: Engine) -> None:
    """Rule 21: the hit carries the time of the order."""
    plane = start(engine, requests((0, 10, 1)), replicas=(0, 0))
    go(plane, 7 * MS)
    plane.drain_replica(7 * MS, 1)
    assert plane.advance(9 * MS) == drained(7, 1)
    assert plane.now_ns == 7 * MS
    assert plane.advance(9 * MS) is None
    assert plane.take_retired()[0].removed_ns == 7 * MS


def test_advance_stops_at_the_time_of_a_drained(engine: Engine) -> None:
    """The engine returns early with its clock at the hit, so that control can act there."""
    plane = start(engine, requests((0, 10, 3), (0, 10, 9)), specs=[ONE_SEAT], replicas=(0, 0))
    go(plane, MS)
    assert not plane.may_stop
    plane.drain_replica(MS, 0)
    assert plane.may_stop
    assert plane.advance(100 * MS) == drained(3, 0)
    assert plane.now_ns == 3 * MS
    assert not plane.may_stop
    plane.kill_replica(3 * MS, 1)
    plane.add_replica(3 * MS, 0)
    assert end(plane).left == [3, 12]


def test_the_partial_prefill_finishes_on_a_draining_replica(engine: Engine) -> None:
    """Rule 21: 250 tokens in chunks of 100, drained in the first chunk: it stays, prefills and decodes there."""
    plane = start(engine, requests((0, 250, 3)), specs=[spec(token_budget=100)])
    go(plane, MS // 2)
    plane.drain_replica(MS // 2, 0)
    assert go(plane, 100 * MS) == [drained(5, 0)]
    assert end(plane).left == [5]


def test_a_draining_replica_gets_and_pulls_nothing(engine: Engine) -> None:
    """Rule 21: new arrivals wait in the service queue though a seat is free there."""
    plane = start(engine, requests((0, 10, 3), (2 * MS, 10, 1)), specs=[spec(seats=2)])
    go(plane, MS)
    plane.drain_replica(MS, 0)
    assert go(plane, 10 * MS) == [drained(3, 0)]
    assert plane.view(10 * MS).service_queue.tolist() == [1]
    plane.add_replica(10 * MS, 0)
    assert end(plane).left == [3, 11]


def test_draining_twice_changes_nothing(engine: Engine) -> None:
    """Rule 21: the first order counts, and there is one hit."""
    plane = start(engine, requests((0, 10, 5)))
    for t_ms in (1, 2):
        go(plane, t_ms * MS)
        plane.drain_replica(t_ms * MS, 0)
    assert go(plane, 100 * MS) == [drained(5, 0)]
    [totals] = plane.take_retired()
    assert (totals.drain_ns, totals.draining_busy_ns) == (MS, 4 * MS)


def test_a_draining_replica_can_be_killed(engine: Engine) -> None:
    """Rule 21: no DRAINED comes; its request is retried elsewhere."""
    plane = start(engine, requests((0, 10, 5)))
    go(plane, MS)
    plane.drain_replica(MS, 0)
    go(plane, 2 * MS)
    plane.kill_replica(2 * MS, 0)
    assert not plane.may_stop
    plane.add_replica(2 * MS, 0)
    assert go(plane, 100 * MS) == []
    done = end(plane)
    assert done.left == [7]
    assert done.total("retried") == 1


TIGHT = spec(seats=4, kv_tokens=40)
PAIR = ((0, 8, 20), (0, 8, 20))


def test_a_waiting_victim_is_redispatched_with_its_tokens(engine: Engine) -> None:
    """Rule 21: thrown out at 4 ms with 3 tokens, sent on at 5 ms: 11 tokens recomputed there, 4th token at 6 ms, 20th at 22 ms."""
    plane = start(engine, requests(*PAIR), specs=[TIGHT])
    go(plane, 5 * MS)
    plane.add_replica(5 * MS, 0)
    plane.drain_replica(5 * MS, 0)
    assert go(plane, 100 * MS) == [drained(20, 0)]
    done = end(plane)
    assert done.left == [20, 22]
    assert done.first == [1, 2]
    assert done.column("attempts") == [1, 1]
    assert done.total("prefill_tokens") == 8 + 8 + 11
    assert done.total("output_tokens") == 40


def test_a_victim_of_a_draining_replica_stays_there(engine: Engine) -> None:
    """Rule 21: told to drain at 2.5 ms, it throws out the second at 4 ms and takes it back at 20 ms; gone at 37 ms."""
    plane = start(engine, requests(*PAIR), specs=[TIGHT], replicas=(0,))
    go(plane, 5 * MS // 2)
    plane.add_replica(5 * MS // 2, 0)
    plane.drain_replica(5 * MS // 2, 0)
    assert go(plane, 100 * MS) == [drained(37, 0)]
    done = end(plane)
    assert done.left == [20, 37]
    assert done.column("replica") == [0, 0]


def test_redispatch_goes_through_the_router_in_id_order(engine: Engine) -> None:
    """Rule 22: requests 3 and 6 of the drained replica 0 find 1 and 2 with one each: lowest index first, then the other."""
    rows = requests(*[(0, 10, 9)] * 3, *[(1, 10, 1)] * 1, (2, 10, 9), (3, 10, 9), (4, 10, 1))
    plane = start(engine, rows, specs=[ONE_SEAT], replicas=(0, 0, 0))
    go(plane, MS)
    assert plane.view(MS).outstanding.tolist() == [3, 2, 2]
    plane.drain_replica(MS, 0)
    assert plane.view(MS).outstanding.tolist() == [1, 3, 3]
    done = end(plane)
    assert done.column("replica") == [0, 1, 2, 1, 1, 2, 2]


def test_those_without_room_go_to_the_front_of_the_queue_in_order(engine: Engine) -> None:
    """Rule 22: requests 2 and 4 lose their replica and go ahead of 5, which has been in the queue; 2 finds the only place."""
    cap = spec(seats=1, max_outstanding=3)
    rows = requests((0, 10, 9), (0, 10, 9), (1, 10, 1), (1, 10, 1), (2, 10, 1), (2, 10, 1), (3, 10, 1))
    plane = start(engine, rows, specs=[cap], replicas=(0, 0))
    go(plane, MS)
    assert plane.view(MS).service_queue.tolist() == [1]  # 0, 2, 4 and 1, 3, 5 are placed, 6 waits
    go(plane, 9 * MS)  # 0 and 1 leave; replica 0 pulls 6
    assert plane.view(9 * MS).outstanding.tolist() == [3, 2]
    plane.drain_replica(9 * MS, 0)  # 2 runs; 4 takes the last place on replica 1; 6 finds none
    assert plane.view(9 * MS).service_queue.tolist() == [1]
    done = end(plane)
    assert done.left == [9, 9, 10, 10, 12, 11, 13]
    assert done.column("replica") == [0, 1, 0, 1, 1, 1, 1]


def test_the_front_of_the_queue_keeps_id_order(engine: Engine) -> None:
    """Rule 22: three lose their only replica while a fourth waits in the service queue: 0, 1, 2 come back before 3."""
    rows = requests(*[(k, 10, 2) for k in range(4)])
    plane = start(engine, rows, specs=[spec(seats=1, max_outstanding=3)])
    go(plane, MS)
    plane.kill_replica(MS, 0)
    assert plane.view(MS).service_queue.tolist() == [4]
    plane.add_replica(MS, 0)
    assert end(plane).left == [3, 5, 7, 9]


def test_a_redispatch_may_start_steps_one_by_one(engine: Engine) -> None:
    """Rules 3 and 22: the first one sent to an idle replica gets a step alone."""
    plane = start(engine, requests(*[(k, 10, 1) for k in range(4)]), replicas=(0,), specs=[spec()])
    go(plane, MS // 2)
    plane.add_replica(MS // 2, 0)
    plane.kill_replica(MS // 2, 0)
    assert end(plane).left == [1.5, 2.5, 2.5, 2.5]


def test_kill_by_hand(engine: Engine) -> None:
    """Rule 23: killed at 3.5 ms after 3 steps: 10 prompt and 3 output tokens lost, all 3.5 ms lost, the first token forgotten."""
    plane = start(engine, requests((0, 10, 5)), replicas=(0, 0))
    go(plane, 7 * MS // 2)
    plane.kill_replica(7 * MS // 2, 0)
    [totals] = plane.take_retired()
    assert (totals.busy_ns, totals.lost_ns, totals.shares_ns) == (7 * MS // 2, 7 * MS // 2, [0.0])
    assert (totals.steps, totals.prefill_tokens, totals.output_tokens) == (3, 10, 3)
    done = end(plane)
    assert done.left == [8.5]
    assert done.first == [4.5]
    assert done.column("attempts") == [2]
    assert (done.total("lost_prefill_tokens"), done.total("lost_output_tokens")) == (10, 3)
    assert (done.total("retried"), done.total("completed_output_tokens"), done.total("output_tokens")) == (1, 5, 8)
    assert done.total("ttft_us") == 4_500  # from the original arrival
    assert done.view.shares_ns.tolist() == [[5.0 * MS]]


def test_the_step_in_flight_makes_no_tokens(engine: Engine) -> None:
    """Rule 23: killed in its second chunk of three, a prompt has 100 tokens computed and lost."""
    plane = start(engine, requests((0, 250, 1)), step=PER_TOKEN, specs=[spec(token_budget=100)])
    go(plane, 150 * US)
    plane.kill_replica(150 * US, 0)
    [totals] = plane.take_retired()
    assert (totals.busy_ns, totals.lost_ns, totals.prefill_tokens, totals.steps) == (150 * US, 150 * US, 100, 1)
    view = plane.view(150 * US)
    assert view.count("prefill_tokens").tolist() == view.count("lost_prefill_tokens").tolist() == [100]


def test_a_boundary_at_the_kill_counts(engine: Engine) -> None:
    """Rule 23: the token of the step that ends at the kill is made, and a request that it completes has left."""
    plane = start(engine, requests((0, 10, 3), (0, 10, 9)))
    go(plane, 3 * MS)
    plane.kill_replica(3 * MS, 0)
    [totals] = plane.take_retired()
    assert totals.busy_ns == 3 * MS
    # 1st step: request 0 alone. 2nd: half a decode, half ... the prefill costs nothing more, so all of it is request 0's.
    # 3rd: half each. Request 1, killed, loses its half.
    assert totals.shares_ns == [2.5 * MS]
    assert totals.lost_ns == 0.5 * MS
    done = end(plane)
    assert done.outcomes == ["completed", "unfinished"]


def test_work_that_was_finished_is_not_lost(engine: Engine) -> None:
    """Rule 23: a completed request keeps its share when its replica dies later."""
    plane = start(engine, requests((0, 10, 3)))
    go(plane, 5 * MS)
    plane.kill_replica(5 * MS, 0)
    [totals] = plane.take_retired()
    assert (totals.shares_ns, totals.lost_ns, totals.busy_ns) == ([3.0 * MS], 0.0, 3 * MS)


def test_the_energy_of_a_kill_is_pro_rata(engine: Engine) -> None:
    """Rule 23: 100 W for 2.5 ms is 0.25 J."""
    plane = start(engine, requests((0, 10, 9)), step=closed_form(fixed_ns=float(MS), base_w=100.0, tdp_w=400.0))
    go(plane, 5 * MS // 2)
    plane.kill_replica(5 * MS // 2, 0)
    assert plane.take_retired()[0].energy_j == pytest.approx(0.25, rel=1e-12)


@pytest.mark.parametrize(("attempts", "outcome"), [(1, "failed"), (2, "failed"), (3, "completed")])
def test_retries_up_to_max_attempts(engine: Engine, attempts: int, outcome: str) -> None:
    """Rule 23: killed at 1 ms and 2 ms; the third attempt completes if there is one."""
    plane = start(engine, requests((0, 10, 3)), streams=[StreamRules(max_attempts=attempts)])
    for t_ms in (1, 2):
        go(plane, t_ms * MS)
        plane.kill_replica(t_ms * MS, t_ms - 1)
        plane.add_replica(t_ms * MS, 0)
    done = end(plane)
    assert done.outcomes == [outcome]
    assert done.left == [attempts if outcome == "failed" else 5]
    assert done.first == [-1 if outcome == "failed" else 3]
    assert done.column("attempts") == [attempts]
    assert done.total("retried") == attempts - 1
    assert done.total("failed") == (outcome == "failed")


def test_waiting_requests_are_not_retries(engine: Engine) -> None:
    """Rule 23: with one attempt the running one fails, those that never ran are just sent on."""
    plane = start(engine, requests(*[(0, 10, 3)] * 3), specs=[ONE_SEAT], streams=[StreamRules(max_attempts=1)])
    go(plane, MS)
    plane.kill_replica(MS, 0)
    plane.add_replica(MS, 0)
    done = end(plane)
    assert done.outcomes == ["failed", "completed", "completed"]
    assert done.left == [1, 4, 7]
    assert done.column("attempts") == [1, 1, 1]


def test_a_waiting_victim_loses_what_it_kept(engine: Engine) -> None:
    """Rule 23: thrown out at 4 ms with 3 tokens, its replica dies at 5 ms: it has started, so it is a retry from nothing."""
    plane = start(engine, requests(*PAIR), specs=[TIGHT], streams=[StreamRules(max_attempts=2)])
    go(plane, 5 * MS)
    plane.kill_replica(5 * MS, 0)
    view = plane.view(5 * MS)
    assert view.count("lost_output_tokens").tolist() == [5 + 3]
    assert view.count("lost_prefill_tokens").tolist() == [16]
    assert view.count("retried").tolist() == [2]
    [totals] = plane.take_retired()
    assert totals.lost_ns == pytest.approx(5 * MS, rel=1e-12)
    assert totals.shares_ns == pytest.approx([0.0], abs=1e-6)
    plane.add_replica(5 * MS, 0)
    plane.add_replica(5 * MS, 0)
    done = end(plane)
    assert done.column("attempts") == [2, 2]
    assert done.total("output_tokens") == 40 + 8


def test_a_preemption_loses_its_prefill_but_not_its_tokens(engine: Engine) -> None:
    """DESIGN 6.5: PER_TOKEN steps; the victim's 8 us of prefill are lost, its decode share and the recompute are its stream's."""
    plane = start(engine, requests(*PAIR), specs=[TIGHT], step=PER_TOKEN)
    done = end(plane)
    assert done.column("preemptions") == [0, 1]
    assert done.view.lost_ns.tolist() == [8.0 * US]
    assert done.view.busy_ns.tolist() == [int(done.view.shares_ns.sum()) + 8 * US]


def test_replicas_of_one_node_die_together(engine: Engine) -> None:
    """Killed in one call, none gets the other's requests: all go to the survivor in id order."""
    plane = start(engine, requests(*[(0, 10, 4)] * 3, (1, 10, 4)), specs=[ONE_SEAT], replicas=(0, 0, 0))
    go(plane, MS)
    plane.kill_replica(MS, 0, 1)
    assert [totals.replica for totals in plane.take_retired()] == [0, 1]
    view = plane.view(MS)
    assert (view.replica.tolist(), view.outstanding.tolist()) == ([2], [4])
    done = end(plane)
    assert done.left == [8, 12, 4, 16]
    assert done.column("attempts") == [2, 2, 1, 1]


def test_a_redispatch_leaves_nobody_waiting_for_an_idle_replica(engine: Engine) -> None:
    """2.2 against rule 22: request 1 finds its replica full; request 2, of another stream, should not wait beside an idle one."""
    only_0 = spec(seats=1, max_outstanding=1, streams=frozenset({0}))
    only_1 = spec(seats=1, max_outstanding=1, streams=frozenset({1}))
    rows = requests((0, 10, 50), (0, 10, 5), (0, 10, 5), stream=[0, 0, 1])
    plane = start(engine, rows, specs=[only_0, spec(), only_1], streams=[StreamRules()] * 2, replicas=(0, 1))
    go(plane, MS)
    plane.add_replica(MS, 2)
    plane.kill_replica(MS, 1)
    assert plane.view(MS).outstanding.tolist() == [1, 1]
    assert end(plane).left == [50, 55, 6]
