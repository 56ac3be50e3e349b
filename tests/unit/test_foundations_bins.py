"""Histogram bins: exact integer layout, errors within 0.8 %."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.bins import BINS, OCTAVES, bin_of, bins_of, edges_ns, quantile_ns

LATENCIES = st.integers(1, 2**OCTAVES - 1)


@given(LATENCIES)
def test_a_value_lies_in_its_bin(value):
    edges = edges_ns()
    index = bin_of(value)
    assert edges[index] <= value < edges[index + 1]


@given(LATENCIES)
def test_the_middle_of_a_bin_is_within_eight_per_mille(value):
    edges = edges_ns()
    index = bin_of(value)
    middle = (edges[index] + edges[index + 1]) / 2
    assert abs(middle / value - 1) <= 0.008


@given(LATENCIES, LATENCIES)
def test_bins_are_in_order(one, other):
    low, high = sorted((one, other))
    assert bin_of(low) <= bin_of(high)


@given(st.lists(st.integers(-5, 2**62), min_size=1, max_size=50))
def test_arrays_and_scalars_agree(values):
    assert bins_of(np.array(values, dtype=np.int64)).tolist() == [bin_of(value) for value in values]


def test_the_ends():
    assert bin_of(-1) == bin_of(0) == bin_of(1) == 0
    assert bin_of(2**OCTAVES) == bin_of(2**60) == BINS - 1
    assert len(edges_ns()) == BINS + 1
    assert edges_ns()[0] == 1.0
    assert edges_ns()[-1] == 2.0**OCTAVES


@given(st.lists(st.integers(1_000, 10**12), min_size=1, max_size=300), st.floats(0.01, 1.0))
def test_a_quantile_is_within_a_bin_of_the_exact_one(values, q):
    counts = np.bincount(bins_of(np.array(values)), minlength=BINS)
    exact = np.sort(values)[max(int(np.ceil(q * len(values))) - 1, 0)]
    # The estimate lies in the bin of the exact value, 1/64 of its lower edge wide.
    assert quantile_ns(counts, q) == pytest.approx(exact, rel=1 / 64)


def test_a_quantile_is_linear_inside_its_bin():
    counts = np.zeros(BINS, dtype=np.int64)
    counts[640] = 4
    low, high = edges_ns()[640], edges_ns()[641]
    assert [quantile_ns(counts, q) for q in (0.25, 0.5, 1.0)] == [low + (high - low) * share for share in (0.25, 0.5, 1.0)]


def test_an_empty_histogram_has_no_quantile():
    assert np.isnan(quantile_ns(np.zeros(BINS, dtype=np.int64), 0.5))
