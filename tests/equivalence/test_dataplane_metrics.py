"""Rules 25 to 27 of the data plane and its accounts: latencies, histograms, shares, energy, records, the end of a run."""

from __future__ import annotations

import numpy as np
import pytest
from engine_kit import MS, PER_TOKEN, requests, spec
from play import end, go, outcome, start

from sim.bins import bin_of
from sim.dataplane.engine import DataPlane, StreamRules
from sim.dataplane.layout import E2E, RECORD_COLUMNS, RECORD_SAMPLE, TPOT, TTFT
from sim.perf.steptime import closed_form
from sim.rng import mix64

Engine = type[DataPlane]
US = 1_000


def test_latencies_by_hand(engine: Engine) -> None:
    """Rule 25: boundaries 1000, 2000, 3000, 4001 ns; arrival 0, network 7 ns: TTFT 1007, E2E 4008, TPOT 3001 // 3 = 1000."""
    plane = start(engine, requests((0, 10, 4)), step=closed_form(fixed_ns=1_000.25), specs=[spec(net_ns=7)])
    done = end(plane, 10_000)
    assert done.column("net_ns") == [7]
    assert (done.column("first_token_ns"), done.column("leave_ns")) == ([1_000], [4_001])
    assert (done.total("tpot_ns"), done.total("tpot_count")) == (1_000, 1)
    assert (done.total("ttft_us"), done.total("e2e_us")) == (1, 4)
    [histogram] = plane.histograms()
    assert np.flatnonzero(histogram[TTFT]).tolist() == [bin_of(1_007)]
    assert np.flatnonzero(histogram[TPOT]).tolist() == [bin_of(1_000)]
    assert np.flatnonzero(histogram[E2E]).tolist() == [bin_of(4_008)]


def test_a_single_token_has_no_tpot(engine: Engine) -> None:
    """Rule 25: it is in no TPOT count, and cannot miss the target."""
    plane = start(engine, requests((0, 10, 1)), streams=[StreamRules(tpot_ns=0)])
    done = end(plane)
    assert (done.total("tpot_count"), done.total("good_tpot"), done.total("good_all")) == (0, 1, 1)
    assert plane.histograms()[0].sum(axis=1).tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("targets", "good"),
    [
        ({"ttft_ns": 2 * MS, "tpot_ns": MS, "e2e_ns": 6 * MS}, [1, 1, 1, 1]),
        ({"ttft_ns": 2 * MS - 1, "tpot_ns": MS, "e2e_ns": 6 * MS}, [0, 1, 1, 0]),
        ({"ttft_ns": 2 * MS, "tpot_ns": MS - 1, "e2e_ns": 6 * MS}, [1, 0, 1, 0]),
        ({"ttft_ns": 2 * MS, "tpot_ns": MS, "e2e_ns": 6 * MS - 1}, [1, 1, 0, 0]),
        ({}, [1, 1, 1, 1]),
    ],
)
def test_targets_include_the_bound_and_the_network(engine: Engine, targets: dict[str, int], good: list[int]) -> None:
    """Rule 25: arrival 0, 1 ms of network, first token at 1 ms, last at 5 ms: TTFT 2, TPOT 1, E2E 6 ms."""
    done = outcome(engine, requests((0, 10, 5)), specs=[spec(net_ns=MS)], streams=[StreamRules(**targets)])
    assert [done.total(f"good_{name}") for name in ("ttft", "tpot", "e2e", "all")] == good


def test_latencies_count_at_completion_only(engine: Engine) -> None:
    """Rule 25: at 2 ms the first token is out, and nothing is in the histograms before the last one at 5 ms."""
    plane = start(engine, requests((0, 10, 5)))
    go(plane, 5 * MS - 1)
    assert plane.histograms().sum() == 0
    assert plane.view(5 * MS - 1).count("ttft_us").tolist() == [0]
    go(plane, 5 * MS)
    assert plane.histograms().sum() == 3


def test_counters_by_stream(engine: Engine) -> None:
    """Every outcome is counted in its own stream."""
    rules = [StreamRules(), StreamRules(queue_timeout_ns=MS), StreamRules(max_attempts=1)]
    rows = requests((0, 10, 5), (1, 11, 1), (2, 12, 1), (3, 10, 1), (4, 10**6, 1), stream=[2, 1, 0, 1, 2])
    plane = start(engine, rows, specs=[spec(seats=1, max_outstanding=3)], streams=rules, max_queue=(0,))
    go(plane, 3 * MS)
    plane.kill_replica(3 * MS, 0)
    plane.add_replica(3 * MS, 0)
    view = end(plane).view
    names = ("arrived", "completed", "failed", "abandoned", "rejected_full", "rejected_too_long", "redispatched")
    assert {name: view.count(name).tolist() for name in names} == {
        "arrived": [1, 2, 2],
        "completed": [1, 0, 0],
        "failed": [0, 0, 1],
        "abandoned": [0, 1, 0],
        "rejected_full": [0, 1, 0],
        "rejected_too_long": [0, 0, 1],
        "redispatched": [1, 1, 0],
    }
    assert view.count("completed_prompt_tokens").tolist() == [12, 0, 0]


MIXED = closed_form(fixed_ns=1_000.0, token_ns=10.0)


def test_shares_by_hand(engine: Engine) -> None:
    """Rule 27: a prompt joins a decode.

    Step 1, 1100 ns: prefill of 10, all of it stream 0's. Step 2, 1000 + 10 (1 + 30) = 1310 ns: without the chunk it would take
    1010, so 300 are stream 1's and 1010 the decoder's. Step 3, 1020 ns: two decode, half each.
    """
    rows = requests((0, 10, 3), (500, 30, 2), stream=[0, 1])
    done = outcome(engine, rows, step=MIXED, streams=[StreamRules()] * 2)
    assert done.column("leave_ns") == [3_430, 3_430]
    np.testing.assert_allclose(done.view.shares_ns, [[1_100 + 1_010 + 510, 300 + 510]], rtol=1e-12)
    assert done.view.busy_ns.tolist() == [3_430]


def test_the_marginal_share_is_against_the_same_context(engine: Engine) -> None:
    """Rule 27: with 2 ns per token of context the decoder's part of step 2 is 1000 + 10 + 2 x 11, the chunk's 300."""
    step = closed_form(fixed_ns=1_000.0, token_ns=10.0, context_ns=2.0)
    rows = requests((0, 10, 2), (500, 30, 1), stream=[0, 1])
    done = outcome(engine, rows, step=step, streams=[StreamRules()] * 2)
    assert done.column("leave_ns") == [1_100 + 1_332] * 2
    np.testing.assert_allclose(done.view.shares_ns, [[1_100 + 1_032, 300]], rtol=1e-12)


def test_prefill_is_shared_by_chunk_tokens(engine: Engine) -> None:
    """Rule 27: with nothing decoding, a step of 10 + 30 tokens (1400 ns) is split 1 to 3, its fixed part included."""
    rows = requests((0, 1, 1), (1, 10, 1), (2, 30, 1), stream=[2, 0, 1])
    done = outcome(engine, rows, step=MIXED, streams=[StreamRules()] * 3)
    np.testing.assert_allclose(done.view.shares_ns, [[350, 1_050, 1_010]], rtol=1e-12)


def test_shares_accrue_at_step_ends_and_busy_to_the_instant(engine: Engine) -> None:
    """DESIGN 6.5: at 2.75 ms two steps are shared out and 2.75 ms are busy; tokens, steps and energy are those of two steps."""
    step = closed_form(fixed_ns=float(MS), base_w=100.0, tdp_w=400.0)
    plane = start(engine, requests((0, 10, 9)), step=step)
    go(plane, 11 * MS // 4)
    view = plane.view(11 * MS // 4)
    assert view.busy_ns.tolist() == [11 * MS // 4]
    assert view.shares_ns.tolist() == [[2.0 * MS]]
    assert (view.steps.tolist(), view.prefill_tokens.tolist(), view.output_tokens.tolist()) == ([2], [10], [2])
    assert view.count("output_tokens").tolist() == [2]
    np.testing.assert_allclose(view.energy_j, [0.2], rtol=1e-12)


def test_energy_is_clipped_step_by_step(engine: Engine) -> None:
    """DESIGN 6.5: a step of 1 ms draws 0.1 + 0.05 J and 1 mJ a token, at most 155 W: prefill of 10 0.155, each decode 0.151 J."""
    step = closed_form(fixed_ns=float(MS), base_w=100.0, weights_j=0.05, token_j=0.001, tdp_w=155.0)
    done = outcome(engine, requests((0, 10, 4)), step=step)
    np.testing.assert_allclose(done.view.energy_j, [0.155 + 3 * 0.151], rtol=1e-12)


def test_every_term_of_the_energy(engine: Engine) -> None:
    """Chunks of 6 and 4 (S 18 and 32, one sampled in the second), then a decode with a context of 11."""
    step = closed_form(fixed_ns=float(MS), tdp_w=1e9, token_j=1.0, sequence_j=10.0, attention_j=100.0, context_j=1_000.0)
    done = outcome(engine, requests((0, 10, 2)), step=step, specs=[spec(seats=6, token_budget=6)])
    np.testing.assert_allclose(done.view.energy_j, [6 + 1_800 + 4 + 10 + 3_200 + 1 + 10 + 11_000], rtol=1e-12)


def test_integrals_by_hand(engine: Engine) -> None:
    """In flight: 3 ms + 4 ms - 0.5 us; waiting: from 0.5 us to 3 ms. In request-microseconds, rounded down once."""
    plane = start(engine, requests((0, 10, 3), (500, 10, 1)), specs=[spec(seats=1)])
    go(plane, 10 * MS)
    view = plane.view(10 * MS)
    assert view.in_flight_us.tolist() == [7_000 - 1]
    assert view.queued_us.tolist() == [3_000 - 1]
    assert (view.in_flight.tolist(), view.queued.tolist()) == ([0], [0])


def test_integrals_run_to_the_instant(engine: Engine) -> None:
    """Both queues count: at 2.5 ms the second has waited at the replica and the third in the service queue."""
    plane = start(
        engine, requests(*[(0, 10, 5)] * 3, stream=[0, 1, 1]), specs=[spec(seats=1, max_outstanding=2)], streams=[StreamRules()] * 2
    )
    go(plane, 5 * MS // 2)
    view = plane.view(5 * MS // 2)
    assert view.in_flight_us.tolist() == [2_500, 5_000]
    assert view.queued_us.tolist() == [0, 5_000]
    assert (view.queued.tolist(), view.in_flight.tolist(), view.service_queue.tolist()) == ([0, 2], [1, 2], [1])


def test_a_view_is_cumulative_and_its_own(engine: Engine) -> None:
    """A look resets nothing, and an earlier view does not change afterwards."""
    plane = start(engine, requests((0, 10, 3), (5 * MS, 10, 3)))
    go(plane, 4 * MS)
    early = plane.view(4 * MS)
    assert early.count("completed").tolist() == plane.view(4 * MS).count("completed").tolist() == [1]
    histograms = plane.histograms()
    go(plane, 10 * MS)
    assert early.count("completed").tolist() == [1]
    assert histograms[0, E2E].sum() == 1
    assert plane.view(10 * MS).count("completed").tolist() == [2]
    assert plane.view(10 * MS).in_flight_us.tolist() == [6_000]


def test_the_ring_of_seconds(engine: Engine) -> None:
    """Complete seconds before the look, the newest last: arrivals, and in-flight request-microseconds of each."""
    second = 1_000 * MS
    step = closed_form(fixed_ns=float(second // 2))
    rows = requests((0, 10, 1), (second - 1, 10, 3), (second, 10, 1), (4 * second, 10, 1))
    plane = start(engine, rows, step=step, ring_s=3)
    # 0 leaves at 0.5 s; 1 runs from 0.999999999 in steps of half a second to 2.499999999, 2 joins at 1.499999999 to 1.999999999.
    go(plane, second)
    assert plane.view(second).ring_arrivals.tolist() == [0, 0, 2]
    assert plane.view(second).ring_in_flight_us.tolist() == [0, 0, 500_000]
    go(plane, 4 * second - 1)
    assert plane.view(4 * second - 1).ring_arrivals.tolist() == [2, 1, 0]
    go(plane, 4 * second)
    view = plane.view(4 * second)
    assert view.ring_arrivals.tolist() == [1, 0, 0]
    assert view.ring_in_flight_us.tolist() == [1_999_999, 499_999, 0]
    go(plane, 100 * second)
    assert plane.view(100 * second).ring_arrivals.tolist() == [0, 0, 0]


def test_no_ring_unless_asked_for(engine: Engine) -> None:
    """The default keeps none."""
    plane = start(engine, requests((0, 10, 1)))
    go(plane, MS)
    assert len(plane.view(MS).ring_arrivals) == len(plane.view(MS).ring_in_flight_us) == 0


def test_records_are_taken_once_in_order_of_leaving(engine: Engine) -> None:
    """Each record has every column of the layout; what has been taken does not come again."""
    rows = requests((0, 10, 3), (0, 11, 1), client=[4, 5], session=[6, 7], turn=[8, 9])
    plane = start(engine, rows)
    go(plane, 2 * MS)
    early = plane.take_records()
    assert tuple(early) == RECORD_COLUMNS
    assert {name: column.tolist() for name, column in early.items()} == {
        "request": [1], "stream": [0], "client": [5], "session": [7], "turn": [9], "arrival_ns": [0],
        "first_token_ns": [2 * MS], "leave_ns": [2 * MS], "net_ns": [0], "prompt_tokens": [11], "output_tokens": [1],
        "attempts": [1], "preemptions": [0], "replica": [0], "outcome": [0], "dispatched_ns": [0], "admitted_ns": [MS],
    }  # fmt: skip
    go(plane, 9 * MS)
    assert plane.take_records()["request"].tolist() == [0]
    assert len(plane.take_records()["request"]) == 0


@pytest.mark.parametrize("records", [0, 1, 3])
def test_records_are_sampled_by_the_requests_own_word(engine: Engine, records: int) -> None:
    """0 none, 1 all, k those whose draw is divisible by k: the same requests under any policy."""
    tags = [int(tag) for tag in np.random.default_rng(3).integers(0, 2**63, 300)]
    plane = start(engine, requests(*[(k, 10, 1) for k in range(300)], tag=tags), records=records)
    go(plane, 1_000 * MS)
    plane.close(1_000 * MS)
    chosen = [k for k, tag in enumerate(tags) if records and mix64(tag, 0, RECORD_SAMPLE) % records == 0]
    assert sorted(plane.take_records()["request"].tolist()) == chosen
    assert len(chosen) in {0: [0], 1: [300], 3: range(70, 131)}[records]


def test_close_by_hand(engine: Engine) -> None:
    """At 2.5 ms: one decodes, one is half prefilled, one waits at the replica, one in the service queue; all are unfinished."""
    step = closed_form(fixed_ns=float(MS), base_w=100.0, tdp_w=400.0)
    specs = [spec(seats=2, token_budget=10, max_outstanding=3)]
    plane = start(engine, requests((0, 10, 9), (0, 30, 1), (0, 10, 1), (0, 10, 1)), step=step, specs=specs)
    done = end(plane, 5 * MS // 2)
    assert done.outcomes == ["unfinished"] * 4
    assert done.left == [2.5] * 4
    assert done.first == [1, -1, -1, -1]
    assert done.column("replica") == [0, 0, 0, -1]
    assert done.view.in_flight.tolist() == [4]
    assert done.view.queued.tolist() == [2]
    assert done.total("completed") == 0
    # The step in flight is charged to its streams up to now, its tokens are not made.
    assert done.view.busy_ns.tolist() == [5 * MS // 2]
    np.testing.assert_allclose(done.view.shares_ns, [[2.5 * MS]], rtol=1e-12)
    np.testing.assert_allclose(done.view.energy_j, [0.25], rtol=1e-12)
    assert done.view.steps.tolist() == [2]
    assert (done.total("prefill_tokens"), done.total("output_tokens")) == (10 + 9, 2)


def test_close_splits_the_step_in_flight_like_a_whole_one(engine: Engine) -> None:
    """Rule 27 at the end: half of the mixed step of 1310 ns: 150 to the prompt, 505 to the decoder."""
    rows = requests((0, 10, 3), (500, 30, 2), stream=[0, 1])
    done = outcome(engine, rows, until_ns=1_100 + 655, step=MIXED, streams=[StreamRules()] * 2)
    np.testing.assert_allclose(done.view.shares_ns, [[1_100 + 505, 150]], rtol=1e-12)


def test_close_of_an_idle_plane(engine: Engine) -> None:
    """Nothing is charged and nothing recorded."""
    done = outcome(engine, [])
    assert done.column("request") == []
    assert (done.view.busy_ns.tolist(), done.view.steps.tolist(), done.view.time_ns) == ([0], [0], 1_000 * MS)


def test_drawn_service_times(engine: Engine) -> None:
    """PER_TOKEN with one seat and one token is a queue with service times from the prompts: Lindley's recursion."""
    arrivals = np.cumsum(np.random.default_rng(1).integers(1, 60, 200)) * US
    prompts = np.random.default_rng(2).integers(1, 50, 200)
    rows = requests(*[(int(a), int(p), 1) for a, p in zip(arrivals, prompts, strict=True)])
    done = outcome(engine, rows, step=PER_TOKEN, specs=[spec(seats=1)])
    free, expected = 0, []
    for arrival, prompt in zip(arrivals.tolist(), prompts.tolist(), strict=True):
        free = max(free, arrival) + prompt * US
        expected.append(free)
    assert done.column("leave_ns") == expected
