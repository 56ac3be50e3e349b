"""The time, work and memory of a batch from the roofline: what an item and a batch cost, against what an accelerator reaches.

For a batch of n items, with operations f and bytes b of an item, bytes g that an item gathers at scattered addresses, and W bytes
of weights that are read r times for a batch::

    compute = n f / (eta_compute F)
    memory  = (r W + n b) / (eta_memory BW) + n g / (eta_gather BW)
    T(n)    = batch + launches launch + max(compute, memory) + overlap min(compute, memory)

Source of the form: the step model of language models (research note on hardware, section 2), with no term of attention or cache.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.domain.batch_models import DTYPES, BatchFit, BatchModel
from sim.domain.hardware import Accelerator
from sim.perf.memory import RUNTIME_BYTES
from sim.units import BYTES_PER_GIB

Floats = NDArray[np.float64]


def batch_arithmetic(model: BatchModel, accelerator: Accelerator, wanted: str = "") -> str | None:
    """Return the type in which a model is served on an accelerator: the wanted one, else its first that the accelerator computes.

    Returns
    -------
    A key of `sim.domain.batch_models.DTYPES`, or None where the two have none in common.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> catalog = load_catalog()
    >>> bert = catalog.batch_models["bert-large-squad"]
    >>> batch_arithmetic(bert, catalog.accelerators["l4"]), batch_arithmetic(bert, catalog.accelerators["t4"])
    ('fp8', 'int8')
    """
    able = [dtype for dtype in model.dtypes if DTYPES[dtype][1] in accelerator.dense_tflops]
    if wanted:
        return wanted if wanted in able else None
    return able[0] if able else None


def batch_work(model: BatchModel, dtype: str, most: int) -> tuple[Floats, Floats]:
    """Return the operations and the bytes through memory of batches of 0 to `most` items; of 0 items, what every batch costs.

    Parameters
    ----------
    dtype : key of `sim.domain.batch_models.DTYPES`.

    Returns
    -------
    FLOPs and bytes, each (most + 1,).

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> flops, moved = batch_work(load_catalog().batch_models["resnet50"], "int8", most=2)
    >>> flops.tolist(), round(float(moved[0]) / 1e6, 1)
    ([0.0, 8180000000.0, 16360000000.0], 25.6)
    """
    items = np.arange(most + 1, dtype=np.float64)
    streamed, gathered = _moved_bytes(model, dtype, items)
    return model.flops_per_item * items, streamed + gathered


def _moved_bytes(model: BatchModel, dtype: str, items: Floats) -> tuple[Floats, Floats]:
    """Return the bytes that batches of so many items stream through memory, and those that they gather at scattered addresses."""
    size = DTYPES[dtype][0]
    streamed = size * (model.parameters * model.weight_reads + model.io_elements_per_item * items)
    return streamed, size * model.gather_elements_per_item * items


def batch_times_s(model: BatchModel, accelerator: Accelerator, fit: BatchFit, dtype: str, most: int) -> Floats:
    """Return T(n) in seconds for batches of 1 to `most` items, at index n - 1.

    Parameters
    ----------
    dtype : key of `sim.domain.batch_models.DTYPES`, an arithmetic type of the accelerator.

    Examples
    --------
    One image on an H100 is all overhead, a thousand are all compute; between them the time of an image falls.

    >>> from sim.catalog.loader import load_catalog
    >>> catalog = load_catalog()
    >>> fit = catalog.batch_fit("h100-pcie", "convolution")
    >>> times_s = batch_times_s(catalog.batch_models["resnet50"], catalog.accelerators["h100-pcie"], fit, "int8", 1000)
    >>> bool(times_s[999] / 1000 < 0.2 * times_s[0])
    True
    """
    items = np.arange(1, most + 1, dtype=np.float64)
    arithmetic = DTYPES[dtype][1]
    bandwidth = accelerator.bandwidth_gb_per_s * 1e9
    compute_s = items * model.flops_per_item / (fit.eta_compute * accelerator.dense_tflops[arithmetic] * 1e12)
    streamed, gathered = _moved_bytes(model, dtype, items)
    memory_s = streamed / (fit.eta_memory * bandwidth) + gathered / (fit.eta_gather * bandwidth)
    roof_s = np.maximum(compute_s, memory_s) + fit.overlap * np.minimum(compute_s, memory_s)
    total: Floats = fit.batch_s + model.launches * fit.launch_s + roof_s
    return total


def fit_validity(fit: BatchFit, accelerator: Accelerator, dtype: str) -> str:
    """Return the validity of a time: that of the row, but no more than "transferred" away from its accelerator or its types.

    From GPUs and processors to chips of another kind (over "ici" or "neuronlink") nothing is transferred: it is assumed.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> catalog = load_catalog()
    >>> fit, h100 = catalog.batch_fit("h100-pcie", "convolution"), catalog.accelerators["h100-pcie"]
    >>> fit_validity(fit, h100, "int8"), fit_validity(fit, h100, "bf16")
    ('fitted', 'transferred')
    """
    if fit.name.split("/")[0] == accelerator.name:
        return fit.validity if dtype in fit.dtypes or fit.validity != "fitted" else "transferred"
    return "assumed" if accelerator.link in ("ici", "neuronlink") else fit.validity


@dataclass(frozen=True)
class BatchMemory:
    """How one accelerator spends its memory on a batch model.

    Parameters
    ----------
    memory_bytes : what the driver exposes. weight_bytes : weights and embedding tables. live_bytes : activations of the largest
        batch. reserve_bytes : of the runtime. remedies : what would make it fit, empty when it does.
    """

    memory_bytes: float
    weight_bytes: float
    live_bytes: float
    reserve_bytes: float
    remedies: tuple[str, ...] = ()

    @property
    def taken_bytes(self) -> float:
        """Everything together."""
        return self.weight_bytes + self.live_bytes + self.reserve_bytes

    @property
    def fits(self) -> bool:
        """Whether it is no more than there is."""
        return self.taken_bytes <= self.memory_bytes


def resident_bytes(model: BatchModel, dtype: str) -> float:
    """Return the bytes of weights and embedding tables: what a cold start loads.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> resident_bytes(load_catalog().batch_models["dlrm-dcnv2"], "int8") / 1e9 > 26
    True
    """
    return DTYPES[dtype][0] * (model.parameters + model.table_elements)


def batch_memory(model: BatchModel, accelerator: Accelerator, dtype: str, most: int) -> BatchMemory:
    """Return what a model takes of an accelerator's memory with batches of up to `most` items, and what would make it fit.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> catalog = load_catalog()
    >>> memory = batch_memory(catalog.batch_models["dlrm-dcnv2"], catalog.accelerators["a100-sxm-40"], "bf16", 1024)
    >>> memory.fits, memory.remedies[0]
    (False, 'dtype=int8')
    """
    made = _memory(model, accelerator, dtype, most)
    if made.fits:
        return made
    remedies = [
        f"dtype={name}"
        for name in model.dtypes
        if DTYPES[name][0] < DTYPES[dtype][0]
        and DTYPES[name][1] in accelerator.dense_tflops
        and _memory(model, accelerator, name, most).fits
    ]
    per_item = DTYPES[dtype][0] * model.live_elements_per_item
    room = made.memory_bytes - made.weight_bytes - made.reserve_bytes
    if 0 < per_item <= room:
        remedies.append(f"max_batch={int(room // per_item)}")
    least_gib = made.taken_bytes / BYTES_PER_GIB
    remedies.append(f"an accelerator that exposes at least {least_gib:.1f} GiB ({accelerator.name}: {accelerator.usable_gib:g})")
    return BatchMemory(made.memory_bytes, made.weight_bytes, made.live_bytes, made.reserve_bytes, tuple(remedies))


def _memory(model: BatchModel, accelerator: Accelerator, dtype: str, most: int) -> BatchMemory:
    live = DTYPES[dtype][0] * model.live_elements_per_item * most
    return BatchMemory(accelerator.usable_gib * BYTES_PER_GIB, resident_bytes(model, dtype), live, RUNTIME_BYTES)
