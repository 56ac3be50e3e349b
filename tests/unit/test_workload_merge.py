"""Several services as one stream of blocks: order, numbers, tags, memory."""

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.domain.traffic import BLOCK_DTYPES, RequestBlock
from sim.rng import StreamKey
from sim.units import NS_PER_DAY, NS_PER_HOUR
from sim.workload.base import OpenedSource
from sim.workload.clients import ClosedLoop
from sim.workload.stream import merge, merge_clients
from sim.workload.synthetic import Poisson, Synthetic

START = datetime(2026, 1, 5, tzinfo=UTC)


def keys_of(*names):
    return [StreamKey(1, 0, "", name) for name in names]


def source_of(pieces, offset_ns=0):
    """A source of given blocks of times; a request's prompt length is its number, its tag is left out."""
    blocks, number = [], 1
    for times in pieces:
        numbers = np.arange(number, number + len(times))
        arrival_ns = np.asarray(times, dtype=np.int64) + offset_ns
        blocks.append(RequestBlock.of(arrival_ns=arrival_ns, prompt_tokens=numbers, output_tokens=numbers))
        number += len(times)
    return OpenedSource(lambda: iter(blocks))


@st.composite
def pieces(draw):
    times = sorted(draw(st.lists(st.integers(0, 12), max_size=25)))
    cuts = sorted(draw(st.lists(st.integers(0, len(times)), max_size=6)))
    return [times[first:last] for first, last in zip([0, *cuts], [*cuts, len(times)], strict=True)]


@settings(deadline=None, max_examples=300)
@given(st.lists(pieces(), min_size=1, max_size=4), st.sampled_from([0, 400 * NS_PER_DAY + 1]))
def test_merged_requests_are_those_of_the_sources_in_order(all_pieces, offset_ns):
    sources = [(3 * number, source_of(each, offset_ns)) for number, each in enumerate(all_pieces)]
    blocks = list(merge(sources, keys_of(*"abcd"[: len(sources)])))
    rows = [
        row
        for block in blocks
        for row in zip(block.arrival_ns.tolist(), block.stream.tolist(), block.prompt_tokens.tolist(), strict=True)
    ]
    expected = sorted(
        (time + offset_ns, 3 * number, row)
        for number, each in enumerate(all_pieces)
        for row, time in enumerate((time for piece in each for time in piece), start=1)
    )
    assert rows == expected
    assert all(len(block) for block in blocks)


def test_tags_are_filled_where_missing_and_differ_by_service():
    sources = [(0, source_of([[1, 2], [3]])), (1, source_of([[1, 2], [3]]))]
    merged = list(merge(sources, keys_of("chat", "code")))
    tags = np.concatenate([block.tag for block in merged])
    assert len(set(tags.tolist())) == 6
    assert 0 not in tags
    alone = np.concatenate([block.tag for block in merge(sources[1:], keys_of("code"))])
    streams = np.concatenate([block.stream for block in merged])
    np.testing.assert_array_equal(tags[streams == 1], alone)


def test_given_tags_are_kept():
    block = RequestBlock.of(arrival_ns=[1, 2], prompt_tokens=[1, 1], output_tokens=[1, 1], tag=np.array([7, 0], np.uint64))
    (merged,) = merge([(0, OpenedSource(lambda: iter([block])))], keys_of("chat"))
    assert merged.tag[0] == 7
    assert merged.tag[1] != 0


def test_changing_one_service_does_not_shift_another():
    chat_key, code_key = keys_of("chat", "code")
    chat = Synthetic(rate_per_s=20.0, segments={"free": 1.0, "paid": 1.0}).open(chat_key, START, NS_PER_HOUR)
    alone = list(merge([(0, chat)], [chat_key]))
    for rate in (1.0, 35.0):
        code = Poisson(rate_per_s=rate).open(code_key, START, NS_PER_HOUR)
        merged = list(merge([(0, chat), (2, code)], [chat_key, code_key]))
        assert {int(stream) for block in merged for stream in block.stream} == {0, 1, 2}
        for name in BLOCK_DTYPES:
            kept = np.concatenate([getattr(block, name)[block.stream < 2] for block in merged])
            assert kept.tobytes() == np.concatenate([getattr(block, name) for block in alone]).tobytes()


def test_only_one_block_of_each_source_is_held():
    handed_out = {"chat": 0, "code": 0}

    def endless(name, gap):
        def blocks():
            for number in range(1_000):
                handed_out[name] += 1
                times = np.arange(10 * number, 10 * number + 10) * gap
                yield RequestBlock.of(arrival_ns=times, prompt_tokens=np.ones(10), output_tokens=np.ones(10))

        return OpenedSource(blocks)

    merged = merge([(0, endless("chat", 1)), (1, endless("code", 5))], keys_of("chat", "code"))
    taken = 0
    while taken < 600:
        taken += len(next(merged))
    # 500 of the first 600 requests are chat's.
    assert handed_out["chat"] <= 52
    assert handed_out["code"] <= 12


def test_each_source_needs_its_key():
    with pytest.raises(ValueError, match="zip"):
        next(merge([(0, source_of([[1]]))], keys_of("chat", "code")))


def test_clients_of_several_services_are_numbered_through():
    keys = keys_of("chat", "open", "code")
    chat = ClosedLoop(clients=3, segments={"free": 1.0, "paid": 1.0}).open(keys[0], START, NS_PER_HOUR)
    between = Poisson().open(keys[1], START, NS_PER_HOUR)
    code = ClosedLoop(clients=2).open(keys[2], START, NS_PER_HOUR)
    merged = merge_clients([(0, chat), (2, between), (3, code)], keys)
    assert merged.clients == 5
    rows, own = merged.rows(4, 2), code.closed.rows(1, 2)
    assert set(rows.client.tolist()) == {4}
    assert set(rows.stream.tolist()) == {3}
    for name in set(BLOCK_DTYPES) - {"client", "stream"}:
        np.testing.assert_array_equal(getattr(rows, name), getattr(own, name))
    assert set(merged.rows(2, 0).stream.tolist()) <= {0, 1}
    assert merge_clients([(0, between)], keys[1:2]) is None
