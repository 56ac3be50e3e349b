"""Replay of a trace, worked by hand: loop, scale, shift, copies, jitter, accounting of every row."""

from datetime import UTC, datetime
from math import sqrt

import numpy as np
import pytest

from sim.domain.traffic import BLOCK_REQUESTS
from sim.errors import InputError, Problems
from sim.rng import StreamKey
from sim.units import NS_PER_DAY, NS_PER_S
from sim.workload.trace import Trace

START = datetime(2026, 1, 5, tzinfo=UTC)
KEY = StreamKey(5, 0, "", "chat")


@pytest.fixture
def three(tmp_path):
    """Rows at 0, 2 and 6 s: a mean gap of 3 s, so a period of 9 s."""
    path = tmp_path / "three.csv"
    path.write_text("time,prompt_tokens,output_tokens,segment\n100,1,10,a\n102,2,20,b\n106,3,30,a\n")
    return str(path)


@pytest.fixture
def long(tmp_path):
    """70,000 rows, one every 10 ms, more than one page."""
    path = tmp_path / "long.csv"
    path.write_text("time,prompt_tokens,output_tokens\n" + "".join(f"{row / 100},{row + 1},1\n" for row in range(70_000)))
    return str(path)


def replayed(path, horizon_s, key=KEY, **config):
    source = Trace(path=path, **config).open(key, START, int(horizon_s * NS_PER_S))
    blocks = list(source.blocks())
    joined = {name: np.concatenate([getattr(block, name) for block in blocks]) for name in vars(blocks[0])}
    assert np.all(np.diff(joined["arrival_ns"]) >= 0)
    return joined


def seconds(path, horizon_s, **config):
    return (replayed(path, horizon_s, **config)["arrival_ns"] / NS_PER_S).tolist()


def test_a_trace_starts_at_the_start_and_ends_with_its_last_row(three):
    rows = replayed(three, 100)
    assert rows["arrival_ns"].tolist() == [0, 2 * NS_PER_S, 6 * NS_PER_S]
    assert rows["prompt_tokens"].tolist() == [1, 2, 3]
    assert rows["output_tokens"].tolist() == [10, 20, 30]
    assert rows["stream"].tolist() == [0, 1, 0]
    assert len(set(rows["tag"].tolist())) == 3


def test_rows_at_the_horizon_do_not_arrive(three):
    assert seconds(three, 6) == [0, 2]
    assert seconds(three, 6.000000001) == [0, 2, 6]


def test_a_loop_starts_again_a_mean_gap_after_the_end(three):
    assert seconds(three, 20, loop=True) == [0, 2, 6, 9, 11, 15, 18]


def test_time_scale_stretches_the_gaps(three):
    assert seconds(three, 13.5, loop=True, time_scale=0.5) == [0, 1, 3, 4.5, 5.5, 7.5, 9, 10, 12]
    assert seconds(three, 100, time_scale=2) == [0, 4, 12]
    assert replayed(three, 100, time_scale=1 / 3)["arrival_ns"].tolist() == [0, 666_666_666, 2_000_000_000]


def test_shift_delays_everything(three):
    assert seconds(three, 100, shift="1m30s") == [90, 92, 96]
    assert seconds(three, 105, shift="90s", loop=True, time_scale=2) == [90, 94, 102]


def test_400_days_on_the_gaps_are_still_exact(tmp_path):
    path = tmp_path / "fine.csv"
    path.write_text("time,prompt_tokens,output_tokens\n0.000000001,1,1\n0.000000002,1,1\n0.000000005,1,1\n")
    horizon_s = 401 * 86_400
    times_ns = replayed(str(path), horizon_s, shift="400d")["arrival_ns"]
    assert (times_ns - 400 * NS_PER_DAY).tolist() == [0, 1, 4]


def test_a_whole_rate_scale_repeats_every_row(long):
    rows = replayed(long, 10_000, rate_scale=3)
    counts = np.bincount(rows["prompt_tokens"], minlength=70_001)[1:]
    assert set(counts.tolist()) == {3}
    original_ns = (rows["prompt_tokens"].astype(np.int64) - 1) * (NS_PER_S // 100)
    delays_ns = rows["arrival_ns"] - original_ns
    assert np.sum(delays_ns == 0) >= 70_000
    assert delays_ns.min() == 0
    assert 0.99 * 20_000_000 < delays_ns.max() < 20_000_000
    assert len(set(rows["tag"].tolist())) == 210_000


@pytest.mark.parametrize("scale", [0.25, 1.4])
def test_a_broken_rate_scale_draws_for_every_row(long, scale):
    counts = np.bincount(replayed(long, 10_000, rate_scale=scale)["prompt_tokens"], minlength=70_001)[1:]
    part = scale % 1
    assert set(counts.tolist()) == {int(scale), int(scale) + 1}
    assert abs(counts.mean() - scale) < 4 * sqrt(part * (1 - part) / 70_000)


def test_draws_are_keyed(long):
    once, again = (replayed(long, 100, rate_scale=0.5)["prompt_tokens"] for _ in range(2))
    np.testing.assert_array_equal(once, again)
    other = replayed(long, 100, key=StreamKey(6, 0, "", "chat"), rate_scale=0.5)["prompt_tokens"]
    assert once.tolist() != other.tolist()


def test_jitter_spreads_whole_seconds_and_loses_nobody(tmp_path):
    path = tmp_path / "whole.csv"
    path.write_text("time,prompt_tokens,output_tokens\n" + "".join(f"{row // 100},{row + 1},1\n" for row in range(100_000)))
    rows = replayed(str(path), 2_000, jitter_s=1.0)
    assert sorted(rows["prompt_tokens"].tolist()) == list(range(1, 100_001))
    fraction = (rows["arrival_ns"] % NS_PER_S) / NS_PER_S
    assert np.all(rows["arrival_ns"] // NS_PER_S == (rows["prompt_tokens"] - 1) // 100)
    assert abs(fraction.mean() - 0.5) < 4 * sqrt(1 / 12 / 100_000)


def test_a_looped_trace_of_many_pages_keeps_every_row_in_every_pass(long):
    rows = replayed(long, 2_100, loop=True, jitter_s=0.5)
    assert sorted(rows["prompt_tokens"].tolist())[: 3 * 69_000] == sorted(list(range(1, 69_001)) * 3)
    assert 3 * 70_000 - 100 < len(rows["arrival_ns"]) <= 3 * 70_000


def test_blocks_stay_small_whatever_the_scale(long):
    source = Trace(path=long, rate_scale=20).open(KEY, START, 1_000 * NS_PER_S)
    assert max(map(len, source.blocks())) <= BLOCK_REQUESTS + 1_000


def test_the_source_says_what_it_read(three):
    source = Trace(path=three).open(KEY, START, NS_PER_S)
    assert source.segments == ("a", "b")
    assert source.bad_rows == 0
    assert list(source.inputs) == [three]
    assert len(source.inputs[three]) == 64
    assert Trace(path=three).segment_names() is None


def test_a_trace_of_one_instant_cannot_be_looped(tmp_path):
    path = tmp_path / "one.csv"
    path.write_text("time,prompt_tokens,output_tokens\n5,1,1\n5,1,1\n")
    assert seconds(str(path), 10) == [0, 0]
    with pytest.raises(InputError, match="cannot be looped"):
        Trace(path=str(path), loop=True).open(KEY, START, NS_PER_S)


def problems_of(**config):
    problems = Problems()
    Trace(**config).problems("workload", problems)
    return {problem.path: problem for problem in problems.found}


def test_every_problem_is_found_at_once(three):
    found = problems_of(
        path=three.replace("three", "tree"),
        format="azur",
        time_scale=0.0,
        rate_scale=-1.0,
        shift="later",
        max_bad_rows=-1,
        jitter_s=90.0,
    )
    expected = ("path", "format", "time_scale", "rate_scale", "shift", "max_bad_rows", "jitter_s")
    assert set(found) == {f"workload.{name}" for name in expected}
    assert found["workload.path"].nearest == three
    assert found["workload.format"].nearest == "azure"


def test_a_path_that_is_missing_or_of_another_kind_is_named(three, tmp_path):
    assert not problems_of(path=three)
    assert "no trace" in problems_of(path="")["workload.path"].message
    (tmp_path / "trace.xlsx").write_text("")
    assert ".parquet" in problems_of(path=str(tmp_path / "trace.xlsx"))["workload.path"].allowed
    assert "no such file" in problems_of(path=str(tmp_path / "nowhere" / "trace.csv"))["workload.path"].message
