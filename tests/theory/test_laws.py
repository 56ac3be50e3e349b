"""Laws that hold request by request, without any statistics."""

from __future__ import annotations

from heapq import heapreplace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.dataplane.engine import DataPlane, PlaneConfig, StreamRules
from sim.domain.traffic import RequestBlock
from sim.perf.steptime import closed_form
from tests.engine_kit import OFFSET_400_DAYS_NS, config, finish, spec
from tests.theory.queue_kit import AFTER_ALL_NS, TOKEN_NS, hyperexponential, poisson_block, server, servers_config

# (pause since the previous arrival in us, tokens): both short, so that ties and queues are common.
ROWS = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 20)), min_size=1, max_size=40)


def block_of(rows: list[tuple[int, int]], scale: int = 1, offset_ns: int = 0) -> RequestBlock:
    pauses, tokens = np.array(rows).T
    arrival_ns = offset_ns + np.cumsum(pauses) * 1_000 * scale
    return RequestBlock.of(arrival_ns=arrival_ns, prompt_tokens=tokens, output_tokens=np.ones(len(rows)))


def simulate(
    engine: type[DataPlane], plane_config: PlaneConfig, block: RequestBlock, replicas: int = 1
) -> tuple[Any, dict[str, Any]]:
    plane = engine(plane_config, [block])
    for _ in range(replicas):
        plane.add_replica(plane_config.start_ns, 0)
    return finish(plane, plane_config.start_ns + AFTER_ALL_NS)


def start_times_ns(block: RequestBlock, servers: int) -> np.ndarray:
    """Return when each request starts: servers free earliest first (Kiefer and Wolfowitz 1955; Lindley 1952 for one)."""
    free_ns = [0] * servers
    starts_ns = []
    for arrival_ns, tokens in zip(block.arrival_ns.tolist(), block.prompt_tokens.tolist(), strict=True):
        starts_ns.append(max(arrival_ns, free_ns[0]))
        heapreplace(free_ns, starts_ns[-1] + tokens * TOKEN_NS)
    return np.array(starts_ns)


@pytest.mark.parametrize(("servers", "central"), [(1, False), (1, True), (2, True), (7, True)])
def test_every_wait_is_that_of_lindley_and_kiefer_wolfowitz(engine: type[DataPlane], servers: int, central: bool) -> None:
    """No tolerance: the start of each of 20,000 requests to the nanosecond, at 95 % load."""
    block = poisson_block("path", 9.5 * servers, 20_000, hyperexponential)
    _, records = simulate(engine, servers_config(central), block, servers)
    starts_ns = records["leave_ns"] - records["prompt_tokens"] * TOKEN_NS
    np.testing.assert_array_equal(starts_ns, start_times_ns(block, servers))


@given(rows=ROWS, slow=st.floats(1.0, 3_000.0), faster=st.floats(0.0, 1.0))
@settings(deadline=None, max_examples=60)
def test_a_faster_step_delays_nobody(engine: type[DataPlane], rows: list[tuple[int, int]], slow: float, faster: float) -> None:
    """One seat, first come first served, the same requests: every end-to-end time, so every mean, is no longer."""
    left = [
        simulate(engine, config(closed_form(token_ns=token_ns), [server()]), block_of(rows))[1]["leave_ns"]
        for token_ns in (max(1.0, slow * faster), slow)
    ]
    assert (left[0] <= left[1]).all()


@given(rows=ROWS, servers=st.integers(1, 4))
@settings(deadline=None, max_examples=60)
def test_one_more_replica_delays_nobody(engine: type[DataPlane], rows: list[tuple[int, int]], servers: int) -> None:
    """With a shared queue every wait, so every mean, is no longer; and more replicas do the same work."""
    runs = [simulate(engine, servers_config(central=True), block_of(rows), count) for count in (servers, servers + 1)]
    (few, few_records), (many, many_records) = runs
    assert (many_records["leave_ns"] <= few_records["leave_ns"]).all()
    assert many.busy_ns.sum() == few.busy_ns.sum()


def crowded(scale: int, start_ns: int = 0) -> PlaneConfig:
    """Return a plane with chunked prefill, preemption, a bounded queue and deadlines, all times multiples of `scale`."""
    return config(
        closed_form(fixed_ns=3_000.0 * scale, token_ns=500.0 * scale, sequence_ns=250.0 * scale, context_ns=10.0 * scale),
        [spec(seats=3, token_budget=8, kv_tokens=64, max_outstanding=4, net_ns=700 * scale)],
        [StreamRules(queue_timeout_ns=150_000 * scale), StreamRules(priority=1, queue_timeout_ns=90_000 * scale)],
        max_queue=(1,),
        start_ns=start_ns,
    )


CROWD = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 25), st.integers(1, 20), st.integers(0, 1)), min_size=1, max_size=30)
MOMENTS = ("arrival_ns", "dispatched_ns", "admitted_ns", "first_token_ns", "leave_ns")


def crowd_block(rows: list[tuple[int, int, int, int]], scale: int, offset_ns: int = 0) -> RequestBlock:
    pauses, prompt, output, stream = np.array(rows).T
    arrival_ns = offset_ns + np.cumsum(pauses) * 1_000 * scale
    return RequestBlock.of(arrival_ns=arrival_ns, prompt_tokens=prompt, output_tokens=output, stream=stream)


@given(rows=CROWD)
@settings(deadline=None, max_examples=60)
def test_twice_the_times_give_twice_the_times(engine: type[DataPlane], rows: list[tuple[int, int, int, int]]) -> None:
    """Every arrival, step, delay and deadline doubled: every time in the results doubles exactly, nothing else changes."""
    (once, records), (twice, doubled) = (simulate(engine, crowded(scale), crowd_block(rows, scale), 2) for scale in (1, 2))
    for name, column in records.items():
        factor = np.where(column < 0, 1, 2) if name in (*MOMENTS, "net_ns") else 1
        np.testing.assert_array_equal(doubled[name], factor * column, err_msg=name)
    np.testing.assert_array_equal(twice.busy_ns, 2 * once.busy_ns)
    np.testing.assert_allclose(twice.shares_ns, 2 * once.shares_ns, rtol=1e-12)
    np.testing.assert_array_equal(twice.steps, once.steps)


@given(rows=CROWD)
@settings(deadline=None, max_examples=40)
def test_a_late_start_changes_nothing_but_the_date(engine: type[DataPlane], rows: list[tuple[int, int, int, int]]) -> None:
    """The same requests 400 days later, where a float no longer counts nanoseconds."""
    (early, records), (late, shifted) = (
        simulate(engine, crowded(1, start_ns), crowd_block(rows, 1, start_ns), 2) for start_ns in (0, OFFSET_400_DAYS_NS)
    )
    for name, column in records.items():
        offset = np.where(column < 0, 0, OFFSET_400_DAYS_NS) if name in MOMENTS else 0
        np.testing.assert_array_equal(shifted[name], column + offset, err_msg=name)
    np.testing.assert_array_equal(late.busy_ns, early.busy_ns)
    np.testing.assert_array_equal(late.in_flight_us, early.in_flight_us)
