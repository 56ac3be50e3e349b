"""Files of quantized, pruned and entropy-coded weights: worked by hand, and never larger than what they replace."""

from __future__ import annotations

from math import log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.catalog.loader import load_catalog
from sim.perf.compression import Pruning, artifact_bytes, linear_bytes, mask_bits, share_2_4, stored_bits
from sim.perf.memory import weight_bytes
from sim.perf.roofline import WEIGHT_TYPES

CATALOG = load_catalog()
LLAMA_8B = CATALOG.models["llama-3.1-8b"]
TYPES = st.sampled_from(sorted(WEIGHT_TYPES))


def test_ten_times_smaller_by_hand():
    """fp32 to int8, 60 % pruned, coded: 0.4 x 8 x 0.75 = 2.4 bits of values and H(0.4) = 0.971 of the mask: 32 / 3.371 = 9.5."""
    mask = -0.4 * log2(0.4) - 0.6 * log2(0.6)
    assert mask == pytest.approx(0.970951, abs=1e-6)
    coded = stored_bits("int8_wo", Pruning(0.6))
    assert coded == pytest.approx(2.4 + mask)
    assert stored_bits("fp32") / coded == pytest.approx(9.493, abs=1e-3)
    # With 70 % it is 32 / (1.8 + 0.8813) = 11.9, with 50 % 32 / (3 + 1) = 8.
    assert stored_bits("fp32") / stored_bits("int8_wo", Pruning(0.7)) == pytest.approx(11.935, abs=1e-3)
    assert stored_bits("fp32") / stored_bits("int8_wo", Pruning(0.5)) == 8.0


def test_fp32_to_int8_is_four_times_and_to_bf16_twice():
    fp32, bf16, int8 = (linear_bytes(LLAMA_8B, name) for name in ("fp32", "bf16", "int8_wo"))
    assert (fp32 / int8, fp32 / bf16) == (4.0, 2.0)
    assert fp32 == 4 * LLAMA_8B.linear_parameters


def test_a_mask_of_one_bit_and_half_of_the_values():
    assert stored_bits("bf16", Pruning(0.5, entropy_coded=False)) == 16 * 0.5 + 1
    # A twentieth pruned would cost more with its mask than it saves: the file stays dense.
    assert stored_bits("bf16", Pruning(0.05, entropy_coded=False)) == 16


def test_two_of_four_values_and_two_bits_for_each():
    assert share_2_4("bf16") == 0.5625
    assert share_2_4("fp8") == 0.625
    dense, sparse = (artifact_bytes(LLAMA_8B, "bf16", sparse_2_4=pattern) for pattern in (False, True))
    assert dense - sparse == pytest.approx(LLAMA_8B.linear_parameters * 2 * 0.4375)


def test_the_file_of_a_plain_model_is_its_weights():
    for name in WEIGHT_TYPES:
        assert artifact_bytes(LLAMA_8B, name) == pytest.approx(weight_bytes(LLAMA_8B, name))


def test_entropy_coded_bf16_is_what_was_published_of_it():
    """DFloat11 stores Llama-3.1-8B in 10.9 GB, without pruning."""
    assert artifact_bytes(LLAMA_8B, "bf16", pruning=Pruning(0.0)) / 1e9 == pytest.approx(10.9, rel=0.01)


@given(TYPES, st.floats(0, 0.95), st.booleans())
def test_no_pruning_makes_a_file_larger(weight_dtype, sparsity, coded):
    dense = artifact_bytes(LLAMA_8B, weight_dtype)
    assert artifact_bytes(LLAMA_8B, weight_dtype, pruning=Pruning(sparsity, coded)) <= dense


@given(TYPES, st.floats(0.5, 0.95), st.floats(0.5, 0.95), st.booleans())
def test_from_a_half_on_more_zeros_make_a_smaller_file(weight_dtype, one, other, coded):
    few, many = sorted((one, other))
    assert stored_bits(weight_dtype, Pruning(many, coded)) <= stored_bits(weight_dtype, Pruning(few, coded))


@given(st.floats(0, 1))
def test_a_mask_needs_at_most_a_bit_and_as_much_for_zeros_as_for_ones(density):
    assert 0 <= mask_bits(density) <= 1
    assert mask_bits(density) == pytest.approx(mask_bits(1 - density), abs=1e-12)
