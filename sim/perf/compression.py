"""Bytes of a model on disk: quantized, pruned and entropy-coded weights. They decide pulls, storage and egress, never a step.

A pruned weight that is stored dense saves nothing; what saves is a code for where the weights are that are left, and one for their
values. Per linear weight with a share d left (the density) and b bits a value::

    raw      d b + 1            a mask of one bit a weight
    coded    d b e + H(d)       an entropy-coded mask, H(d) = -d log2 d - (1 - d) log2 (1 - d); e of the bits of a value
    2:4      b / 2 + 1          two of four values, and two bits for the place of each
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log2

from sim.domain.models import Model
from sim.perf.memory import linear_bytes, weight_bytes
from sim.perf.roofline import WEIGHT_TYPES

# Share of the bits of a value that an entropy coder leaves, bit for bit the same weights. bf16: 10.9 of 16.1 GB for Llama-3.1-8B
# (DFloat11, arXiv 2504.11651, read 2026-11-23, published). fp32: the same 5.1 idle bits of the exponent, of 32 (derived, assumed).
# Other types: Huffman coding saves 20 to 30 % of quantized weights (Deep Compression, arXiv 1510.00149, from memory, assumed here).
CODED_SHARE = {"fp32": 0.84, "bf16": 0.68}
CODED_SHARE_OF_QUANTIZED = 0.75


@dataclass(frozen=True)
class Pruning:
    """Unstructured pruning of the linear layers, as a file stores it.

    Parameters
    ----------
    sparsity : share of the weights that are zero. entropy_coded : mask and values pass an entropy coder; else the mask has one bit
        a weight and values have all of their bits.
    """

    sparsity: float
    entropy_coded: bool = True


def mask_bits(density: float) -> float:
    """Return the bits a weight that an ideal code needs to say which weights are left.

    Parameters
    ----------
    density : share of the weights that are left, from 0 to 1.

    Examples
    --------
    >>> mask_bits(0.5), mask_bits(1.0), round(mask_bits(0.3), 4)
    (1.0, 0.0, 0.8813)
    """
    return sum(-share * log2(share) for share in (density, 1.0 - density) if share > 0.0)


def coded_share(weight_dtype: str) -> float:
    """Return the share of a value's bits that an entropy coder leaves."""
    return CODED_SHARE.get(weight_dtype, CODED_SHARE_OF_QUANTIZED)


def stored_bits(weight_dtype: str, pruning: Pruning | None = None) -> float:
    """Return the bits that a linear weight takes in a file; where mask and values would be more, the dense values are stored.

    Parameters
    ----------
    weight_dtype : key of `WEIGHT_TYPES`. pruning : None for all weights as they are.

    Source: the three stages of Deep Compression (Han and others, 2016), with the entropy of a random mask for its relative indices.

    Examples
    --------
    >>> stored_bits("bf16"), stored_bits("bf16", Pruning(0.5, entropy_coded=False))
    (16.0, 9.0)
    >>> round(stored_bits("bf16") / stored_bits("int8_wo", Pruning(0.7)), 2)
    5.97
    """
    bits = 8 * WEIGHT_TYPES[weight_dtype][0]
    if pruning is None:
        return bits
    density = 1.0 - pruning.sparsity
    if not pruning.entropy_coded:
        return min(bits, density * bits + 1.0)
    return min(bits, density * bits * coded_share(weight_dtype) + mask_bits(density))


def share_2_4(weight_dtype: str) -> float:
    """Return the bytes of 2:4 sparse weights as a share of the dense ones: two of four values, and two bits for the place of each.

    Examples
    --------
    >>> share_2_4("bf16"), share_2_4("fp8")
    (0.5625, 0.625)
    """
    bits = 8 * WEIGHT_TYPES[weight_dtype][0]
    return (bits / 2 + 1) / bits


def artifact_bytes(model: Model, weight_dtype: str, *, pruning: Pruning | None = None, sparse_2_4: bool = False) -> float:
    """Return the size of a model's files: what is stored, sent out, pulled and loaded.

    Only linear layers are pruned; embedding and head are entropy-coded with them.

    Parameters
    ----------
    pruning : of the linear layers, or None. sparse_2_4 : whether they have the 2:4 pattern (not with `pruning`).

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> model = load_catalog().models["llama-3.1-8b"]
    >>> round(artifact_bytes(model, "bf16") / 1e9, 2), round(artifact_bytes(model, "bf16", pruning=Pruning(0.6)) / 1e9, 2)
    (16.06, 6.07)
    """
    linear = linear_bytes(model, weight_dtype)
    others = weight_bytes(model, weight_dtype) - linear
    if sparse_2_4:
        return linear * share_2_4(weight_dtype) + others
    if pruning is None:
        return linear + others
    if pruning.entropy_coded:
        others *= coded_share(weight_dtype if weight_dtype == "fp32" else "bf16")  # no type is narrower here
    return linear * stored_bits(weight_dtype, pruning) / stored_bits(weight_dtype) + others
