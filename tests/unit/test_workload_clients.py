"""Closed-loop clients: keyed rows, think times, numbering."""

from datetime import UTC, datetime
from math import sqrt

import numpy as np
import pytest
from scipy import stats

from sim.domain.traffic import BLOCK_DTYPES
from sim.errors import Problems
from sim.rng import StreamKey
from sim.units import NS_PER_HOUR, NS_PER_S
from sim.workload.clients import CLIENT_BLOCK_REQUESTS, ClosedLoop
from sim.workload.specs import TokenLengths

START = datetime(2026, 1, 5, tzinfo=UTC)
KEY = StreamKey(2, 0, "", "chat")


def clients_of(key=KEY, **config):
    source = ClosedLoop(**config).open(key, START, NS_PER_HOUR)
    assert list(source.blocks()) == []
    return source.closed


def test_rows_of_a_client_depend_on_client_and_block_only():
    few, many = clients_of(clients=3), clients_of(clients=50)
    many.rows(7, 0)
    for name in BLOCK_DTYPES:
        assert getattr(few.rows(2, 4), name).tobytes() == getattr(many.rows(2, 4), name).tobytes()
    assert few.rows(0, 0).tag.tolist() != few.rows(1, 0).tag.tolist()
    assert few.rows(0, 0).tag.tolist() != few.rows(0, 1).tag.tolist()
    other = clients_of(StreamKey(2, 0, "", "code"), clients=3)
    assert few.rows(0, 0).tag.tolist() != other.rows(0, 0).tag.tolist()


def test_clients_and_turns_are_numbered():
    rows = clients_of(clients=3).rows(2, 1)
    assert set(rows.client.tolist()) == {2}
    assert rows.turn.tolist() == list(range(CLIENT_BLOCK_REQUESTS, 2 * CLIENT_BLOCK_REQUESTS))


def test_exponential_think_times_have_their_mean_and_law():
    clients = clients_of(clients=400, think_s=20.0, think_family="exponential")
    pauses_s = np.concatenate([clients.rows(client, 0).arrival_ns for client in range(400)]) / NS_PER_S
    assert abs(pauses_s.mean() - 20) < 4 * 20 / sqrt(len(pauses_s))
    assert stats.kstest(pauses_s, stats.expon(scale=20).cdf).statistic < 1.949 / sqrt(len(pauses_s))


def test_fixed_think_times_start_out_of_step():
    clients = clients_of(clients=300, think_s=8.0, think_family="fixed")
    blocks = [clients.rows(client, 0).arrival_ns for client in range(300)]
    assert {pause for block in blocks for pause in block[1:].tolist()} == {8 * NS_PER_S}
    assert set(clients.rows(0, 1).arrival_ns.tolist()) == {8 * NS_PER_S}
    starts_s = np.array([block[0] for block in blocks]) / NS_PER_S
    assert stats.kstest(starts_s, stats.uniform(0, 8).cdf).statistic < 1.949 / sqrt(300)


def test_no_think_time_is_fixed_concurrency():
    for family in ("fixed", "exponential"):
        assert set(clients_of(clients=1, think_family=family).rows(0, 0).arrival_ns.tolist()) == {0}


def test_a_client_keeps_its_segment():
    clients = clients_of(clients=500, segments={"free": 0.8, "paid": 0.2})
    segments = []
    for client in range(500):
        (segment,) = {int(stream) for block in (0, 1) for stream in clients.rows(client, block).stream}
        segments.append(segment)
    assert abs(np.mean(segments) - 0.2) < 4 * sqrt(0.16 / 500)


def test_lengths_are_those_of_the_configuration():
    lengths = TokenLengths(family="fixed", mean=77)
    rows = clients_of(clients=1, prompt=lengths, output=lengths).rows(0, 3)
    assert set(rows.prompt_tokens.tolist()) == set(rows.output_tokens.tolist()) == {77}
    load = ClosedLoop(clients=9, prompt=lengths).expected_load(START, NS_PER_HOUR)
    assert (load.clients, load.mean_prompt_tokens, load.mean_rate_per_s) == (9, 77.0, None)


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ({"clients": 0}, ".clients"),
        ({"think_s": -1.0}, ".think_s"),
        ({"think_family": "expo"}, ".think_family"),
        ({"lengths_preset": "chat"}, ".lengths_preset"),
        ({"spearman": 2.0}, ".spearman"),
        ({"output": TokenLengths(family="fixed", mean=0)}, ".output.mean"),
    ],
)
def test_problems_are_named(config, path):
    problems = Problems()
    ClosedLoop(**config).problems("workload", problems)
    assert [problem.path for problem in problems.found] == [f"workload{path}"]
