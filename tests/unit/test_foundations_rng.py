"""Random streams: named, independent of each other, the same in every process."""

from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sim.rng import StreamKey, mix64

WORDS = st.integers(0, 2**64 - 1)


def test_a_key_names_one_sequence_for_ever():
    """Stored words: a change of the key's text or of the generator would silently change every result."""
    words = StreamKey(1, 0, "arrivals", "chat").generator(0).bit_generator.random_raw(2)
    again = StreamKey(1, 0, "arrivals", "chat").generator(0).bit_generator.random_raw(2)
    assert words.tolist() == again.tolist() == STORED_WORDS


STORED_WORDS = [10028009928971422000, 4390051550966979939]


def test_every_part_of_the_key_counts():
    keys = product((1, 2), (0, 1), ("arrivals", "lengths"), ("chat", "code"), (0, 1))
    first = {
        int(StreamKey(seed, replication, purpose, entity).generator(block).bit_generator.random_raw())
        for seed, replication, purpose, entity, block in keys
    }
    assert len(first) == 32


def test_a_block_needs_no_predecessor():
    key = StreamKey(7, 0, "arrivals", "chat")
    key.generator(0).random(1_000)
    alone = StreamKey(7, 0, "arrivals", "chat").generator(3).random(5)
    np.testing.assert_array_equal(key.generator(3).random(5), alone)


def test_another_purpose_keeps_the_entity():
    assert StreamKey(1, 2, "a", "chat").about("b") == StreamKey(1, 2, "b", "chat")


def test_blocks_look_independent():
    key = StreamKey(1, 0, "arrivals", "chat")
    rows = np.array([key.generator(block).standard_normal(2_000) for block in range(20)])
    correlation = np.corrcoef(rows) - np.eye(20)
    # 190 correlations with sd 1/sqrt(2000): the largest exceeds 4.5 sd once in 770 seeds, and this seed is fixed.
    assert np.abs(correlation).max() < 4.5 / np.sqrt(2_000)


@given(WORDS, st.integers(0, 100), st.integers(0, 10))
def test_mix64_stays_in_64_bits(tag, attempt, purpose):
    assert 0 <= mix64(tag, attempt, purpose) < 2**64


@given(WORDS, WORDS, st.integers(0, 5), st.integers(0, 5))
def test_mix64_tells_tags_apart(one, other, attempt, purpose):
    """The finaliser is a bijection, so equal words mean equal tags."""
    assert (mix64(one, attempt, purpose) == mix64(other, attempt, purpose)) == (one == other)


def test_mix64_of_attempts_and_purposes_differ():
    words = {mix64(12345, attempt, purpose) for attempt in range(50) for purpose in range(10)}
    assert len(words) == 500


def test_mix64_is_uniform_enough():
    """Chi-square over 16 bins of the top bits, 16,000 consecutive tags: 15 degrees of freedom, 99.99 % point 44.3."""
    counts = np.bincount([mix64(tag, 1, 1) >> 60 for tag in range(16_000)], minlength=16)
    assert ((counts - 1_000) ** 2 / 1_000).sum() < 44.3
