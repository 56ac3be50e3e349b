"""Closed-loop clients: the next request of a client arrives its think time after the previous one left."""

from __future__ import annotations

import numpy as np
import pytest
from engine_kit import MS, OFFSET_400_DAYS_NS, requests, spec
from play import Clients, end, go, outcome, start

from sim.dataplane.engine import DataPlane, StreamRules

Engine = type[DataPlane]
CENTRAL = spec(seats=1, max_outstanding=1)


def test_think_time_counts_from_the_leaving(engine: Engine) -> None:
    """Leaves at 3 ms, thinks 10 ms, arrives at 13, leaves at 15, thinks 1 ms, arrives at 16; three rows and no more."""
    clients = Clients([[(0, 10, 3), (10 * MS, 10, 2), (MS, 10, 1)]])
    done = outcome(engine, [], clients=clients)
    assert done.ms("arrival_ns") == [0, 13, 16]
    assert done.left == [3, 15, 17]


def test_the_last_completion_of_each_client_is_known(engine: Engine) -> None:
    """Client 0 completes at 3 and 15 ms; client 1 is turned away, client 2 is not served in time, client 3 has nothing."""
    clients = Clients([[(0, 10, 3), (10 * MS, 10, 2)], [(0, 10**6, 1)], [(20 * MS, 10, 500)], []], stream=1)
    plane = start(engine, [], clients=clients, streams=(StreamRules(), StreamRules()), specs=[spec(seats=2)])
    assert plane.client_done_ns().tolist() == [[-1, -1]] * 4
    go(plane, 15 * MS - 1)
    assert plane.client_done_ns().tolist() == [[-1, 3 * MS], [-1, -1], [-1, -1], [-1, -1]]
    go(plane, 15 * MS)
    assert plane.client_done_ns().tolist() == [[-1, 15 * MS], [-1, -1], [-1, -1], [-1, -1]]
    end(plane, 200 * MS)
    assert plane.client_done_ns().tolist()[1:] == [[-1, -1]] * 3


def test_the_last_completion_of_each_user_is_known(engine: Engine) -> None:
    """Open requests of users 1 and 2 and of nobody, beside a closed-loop client; a request of user 3 is too long.

    The first request has the step to 1 ms for itself, so that all three of time 0 complete at 3 ms. The client returns at 13 ms.
    """
    rows = requests((0, 10, 3), (0, 10, 2), (4 * MS, 10, 1), (5 * MS, 10**6, 1), (20 * MS, 10, 1))
    rows = [block.with_columns(client=np.array([1, 2, 1, 3, 0])[: len(block)]) for block in rows]
    clients = Clients([[(0, 10, 2), (10 * MS, 10, 2)]], stream=1)
    plane = start(engine, rows, clients=clients, streams=(StreamRules(), StreamRules()), specs=[spec(seats=4)], users=3)
    assert plane.client_done_ns().tolist() == [[-1, -1]] * 4
    go(plane, 5 * MS)
    assert plane.client_done_ns().tolist() == [[-1, 3 * MS], [5 * MS, -1], [3 * MS, -1], [-1, -1]]
    end(plane, 200 * MS)
    assert plane.client_done_ns().tolist() == [[21 * MS, 15 * MS], [5 * MS, -1], [3 * MS, -1], [-1, -1]]


def test_concurrency_is_fixed(engine: Engine) -> None:
    """Three clients without think time, six requests each: three in the system at every event until one client runs out."""
    clients = Clients([[(0, 10, 1 + (k + n) % 4) for n in range(6)] for k in range(3)])
    plane = start(engine, [], clients=clients, specs=[spec(seats=2)])
    full = 0
    while (t_ns := plane.peek_ns()) < 1 << 62:
        go(plane, t_ns)
        if plane.view(t_ns).count("completed")[0] < 12:
            assert plane.view(t_ns).in_flight.tolist() == [3]
            full += 1
    assert full > 10
    assert sorted(end(plane).column("client")) == [0] * 6 + [1] * 6 + [2] * 6


def test_the_first_pause_is_from_the_start_of_the_engine(engine: Engine) -> None:
    """Also when that is far from 0."""
    clients = Clients([[(5 * MS, 10, 1), (0, 10, 1)]])
    done = outcome(engine, [], until_ns=OFFSET_400_DAYS_NS + 100 * MS, clients=clients, start_ns=OFFSET_400_DAYS_NS)
    assert [t_ns - OFFSET_400_DAYS_NS for t_ns in done.column("arrival_ns")] == [5 * MS, 6 * MS]


def test_completions_inside_a_step_leave_in_id_order(engine: Engine) -> None:
    """Clients 0 to 2 finish in one step; their next requests get numbers in the order of the old ones, whatever their clients."""
    clients = Clients([[(2, 10, 1), (0, 10, 1)], [(1, 10, 1), (0, 10, 1)], [(3, 10, 1), (0, 10, 1)]])
    rows = requests((0, 10, 1))  # keeps the replica busy until 1 ms, so that the three share the step to 2 ms
    plane = start(engine, rows, clients=clients)
    go(plane, 2 * MS)
    records = plane.take_records()
    assert records["request"].tolist() == [0, 1, 2, 3]
    assert records["client"].tolist() == [0, 1, 0, 2]
    # Without think time the three arrive together, by client.
    assert end_after(plane) == [0, 1, 2]


def end_after(plane: DataPlane) -> list[int]:
    """Clients of the requests after those taken, by number."""
    go(plane, 100 * MS)
    records = plane.take_records()
    return [client for _, client in sorted(zip(records["request"].tolist(), records["client"].tolist(), strict=True))]


def test_a_client_that_returns_at_a_boundary_misses_the_step_that_starts_there(engine: Engine) -> None:
    """Its request left at 1 ms and the next arrives at 1 ms, after the step to 2 ms began with the other client's."""
    clients = Clients([[(0, 10, 1), (0, 10, 1)], [(1, 10, 5)]])
    assert outcome(engine, [], clients=clients).left == [1, 6, 3]


def test_open_arrivals_go_before_closed_ones(engine: Engine) -> None:
    """Layout: at one instant, open arrivals in block order, then clients by number."""
    clients = Clients([[(5, 10, 1)], [(5, 20, 1)]])
    done = outcome(engine, requests((5, 30, 1), (5, 40, 1)), clients=clients)
    assert done.column("prompt_tokens") == [30, 40, 10, 20]
    assert done.column("client") == [0, 0, 0, 1]


@pytest.mark.parametrize(("prompt", "outcomes"), [(10, "queue_full"), (10**6, "too_long")])
def test_a_client_that_was_turned_away_pauses(engine: Engine, prompt: int, outcomes: str) -> None:
    """It tries its next request one second and its think time after the rejection, or it would spin."""
    clients = Clients([[(MS, prompt, 1), (3 * MS, 10, 1)]])
    done = outcome(engine, requests((0, 10, 100)), clients=clients, specs=[CENTRAL], max_queue=(0,), until_ns=2_000 * MS)
    assert done.outcomes == ["completed", outcomes, "completed"]
    assert done.ms("arrival_ns") == [0, 1, 1_004]


def test_a_client_comes_back_after_an_abandoned_and_a_failed_request(engine: Engine) -> None:
    """Whatever the outcome, the client goes on; only a rejection makes it pause."""
    clients = Clients([[(0, 10, 9), (MS, 10, 1)], [(1, 10, 9), (MS, 10, 1)]])
    rules = StreamRules(queue_timeout_ns=2 * MS, max_attempts=1)
    plane = start(engine, [], clients=clients, specs=[spec(seats=1)], streams=[rules])
    go(plane, 3 * MS)
    plane.kill_replica(3 * MS, 0)  # client 0's request fails at 3 ms; client 1's goes to the queue
    plane.add_replica(3 * MS, 0)  # ... where it has expired: it leaves at the pull
    done = end(plane)
    assert done.outcomes == ["failed", "abandoned", "completed", "completed"]
    assert done.left[:2] == [3, 3]
    assert done.ms("arrival_ns")[2:] == [4, 4]


def test_a_retried_request_keeps_its_client_waiting(engine: Engine) -> None:
    """A kill is not a leaving: the next request comes after the retry completes."""
    plane = start(engine, [], clients=Clients([[(0, 10, 3), (0, 10, 1)]]), replicas=(0, 0))
    go(plane, MS)
    plane.kill_replica(MS, 0)
    done = end(plane)
    assert done.left == [4, 5]
    assert done.column("client") == [0, 0]
