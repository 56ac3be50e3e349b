"""Models that answer in one piece (classifiers, encoders, rankers) as the numbers that decide the time of a batch."""

from __future__ import annotations

from dataclasses import dataclass, field

from sim.domain.hardware import Provenance

# Kinds of computation that reach much the same share of a peak.
FAMILIES = ("convolution", "encoder", "diffusion", "recommendation", "trees", "dense")
# Bytes of an element, and the arithmetic in which it is computed. "fp32" is for models without matrices: trees have no operations
# that a matrix unit could do, so that the peak beside it never counts.
DTYPES: dict[str, tuple[float, str]] = {"fp32": (4.0, "bf16"), "bf16": (2.0, "bf16"), "fp8": (1.0, "fp8"), "int8": (1.0, "int8")}


@dataclass(frozen=True)
class BatchModel:
    """A model that is served in whole batches, by what one item and one batch cost.

    Parameters
    ----------
    family : one of `FAMILIES`; decides which efficiencies hold. item : what an item is, in words.
    parameters : weights, read `weight_reads` times for a batch (once, but for every step of a diffusion).
    table_elements : of embedding tables, which stay in memory and are read in parts.
    flops_per_item : operations, two for a multiply and add. io_elements_per_item : inputs and outputs that pass through memory.
    gather_elements_per_item : read at scattered addresses: embedding rows, nodes of trees.
    live_elements_per_item : activations alive at once, at the widest point.
    launches : kernels, or layers with a barrier, of one batch, however large.
    dtypes : types in which it can be served, the usual one first.
    """

    name: str
    family: str
    item: str
    parameters: float
    table_elements: float
    flops_per_item: float
    io_elements_per_item: float
    gather_elements_per_item: float
    live_elements_per_item: float
    launches: int
    weight_reads: int
    dtypes: tuple[str, ...]
    provenance: Provenance
    notes: str = field(default="")


@dataclass(frozen=True)
class BatchFit:
    """Efficiencies of one family of batch models on one accelerator, or on a class of accelerators that have none of their own.

    Parameters
    ----------
    eta_compute, eta_memory, eta_gather : fractions reached of the datasheet peaks of operations, of bandwidth by streams, and of
        bandwidth by scattered reads. A working set that stays in caches can take the last two above 1.
    launch_s : of one kernel or layer. batch_s : of one batch: queue to runner, copies, answer.
    overlap : kappa, 0 is perfect overlap of compute and memory, 1 is none.
    dtypes : types of the measurements behind the row; in another type its validity is "transferred" at best.
    band : half-width of the 90 % band of the time of a batch, as a share of it.
    validity : "fitted" (to this accelerator), "transferred" (from another one) or "assumed".
    """

    name: str
    eta_compute: float
    eta_memory: float
    eta_gather: float
    launch_s: float
    batch_s: float
    overlap: float
    dtypes: tuple[str, ...]
    band: float
    validity: str
    provenance: Provenance
    notes: str = field(default="")
