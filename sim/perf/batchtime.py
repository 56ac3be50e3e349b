"""Models that are served in whole batches: the time of a batch by its items, its power, and what a replica can serve.

A time comes from the roofline of a model in the catalog, with the validity of its efficiencies, or it is what a user measured, as a
table or as a line, and counts as assumed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from sim.domain.batch_models import DTYPES, BatchFit, BatchModel
from sim.domain.hardware import Accelerator
from sim.perf.batch_roofline import Floats, batch_times_s, batch_work, fit_validity
from sim.perf.power import KernelSeconds, main_arithmetic, step_energies
from sim.perf.steptime import ONE_NS_FX, StepModel
from sim.perf.work import StepWork


def table_fx(times_ns: Mapping[int, int]) -> tuple[int, ...]:
    """Return the fixed-point time of every batch up to the largest that was measured, linear between two measured ones.

    Parameters
    ----------
    times_ns : items -> time of a batch in nanoseconds; 1 item is among them.

    Raises
    ------
    ValueError : no time for a batch of one item.

    Examples
    --------
    >>> [time // ONE_NS_FX for time in table_fx({1: 4_000, 3: 5_000, 4: 9_000})]
    [4000, 4500, 5000, 9000]
    """
    if 1 not in times_ns:
        raise ValueError(f"times of {sorted(times_ns)} items: one of 1 item is needed")
    sizes = sorted(times_ns)
    table = [times_ns[1] * ONE_NS_FX]
    for low, high in pairwise(sizes):
        for size in range(low + 1, high + 1):
            weighted_ns = times_ns[low] * (high - size) + times_ns[high] * (size - low)
            table.append(weighted_ns * ONE_NS_FX // (high - low))
    return tuple(table)


def line_fx(fixed_s: float, per_item_s: float, max_batch: int) -> tuple[int, ...]:
    """Return the fixed-point time of every batch: a fixed part and a part for each item.

    Examples
    --------
    >>> [time // ONE_NS_FX for time in line_fx(fixed_s=2e-6, per_item_s=5e-7, max_batch=3)]
    [2500, 3000, 3500]
    """
    return tuple(int((fixed_s * 1e9 + per_item_s * 1e9 * size) * ONE_NS_FX + 0.5) for size in range(1, max_batch + 1))


def batch_step_model(times_fx: Sequence[int], accelerator: Accelerator, *, compute_use: float, memory_use: float) -> StepModel:
    """Return the step model of a replica that takes `times_fx[n - 1]` for a batch of n items on one accelerator.

    Power is that of the accelerator (`stepping_power_w`). A full batch of m items uses `compute_use` of the peak operations; an
    item costs the same operations in every batch, so u_c = compute_use (n / T(n)) / (m / T(m)).

    Parameters
    ----------
    times_fx : fixed-point time by items - 1. compute_use : u_c of a full batch. memory_use : u_m while it runs.

    Source: form and parameters of `sim.perf.power`; the two uses are the user's, assumed.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> from sim.perf.power import stepping_power_w
    >>> l4 = load_catalog().accelerators["l4"]
    >>> step = batch_step_model(line_fx(0.0, 0.001, 4), l4, compute_use=0.2, memory_use=0.0)
    >>> used_w = step.step_j(step.step_fx(4, 4, 0, 0), 4, 4, 0, 0) / 0.004
    >>> round(used_w, 3) == round(stepping_power_w(l4, memory_use=0.0, compute_use=0.2), 3)
    True
    """
    most = len(times_fx)
    times_s = np.array((0, *times_fx), dtype=np.float64) / ONE_NS_FX / 1e9
    arithmetic = main_arithmetic(accelerator)
    flops = (
        compute_use
        * accelerator.dense_tflops[arithmetic]
        * 1e12
        * float(times_s[-1])
        / most
        * np.arange(most + 1, dtype=np.float64)
    )
    moved_bytes = memory_use * accelerator.bandwidth_gb_per_s * 1e9 * times_s
    return _step_model(times_fx, accelerator, arithmetic, flops, moved_bytes)


def roofline_step_model(model: BatchModel, accelerator: Accelerator, fit: BatchFit, dtype: str, most: int) -> StepModel:
    """Return the step model of a replica that serves a model of the catalog in batches of up to `most` items on one accelerator.

    Parameters
    ----------
    fit : efficiencies of the model's family there. dtype : key of `sim.domain.batch_models.DTYPES`.

    Source: times from `sim.perf.batch_roofline`, power from `sim.perf.power` with the same operations and bytes.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> catalog = load_catalog()
    >>> fit = catalog.batch_fit("l4", "convolution")
    >>> step = roofline_step_model(catalog.batch_models["resnet50"], catalog.accelerators["l4"], fit, "int8", most=64)
    >>> full, single = batch_sheet(step, items=1), batch_sheet(step, items=1, e2e_target_s=0.001)
    >>> full.items_per_s > single.items_per_s, step.validity
    (True, 'fitted')
    """
    times_s = batch_times_s(model, accelerator, fit, dtype, most)
    times_fx = tuple(int(time_s * 1e9 * ONE_NS_FX + 0.5) for time_s in times_s.tolist())
    flops, moved_bytes = batch_work(model, dtype, most)
    validity = fit_validity(fit, accelerator, dtype)
    # Between batches the accelerator waits for the host.
    kernels = KernelSeconds(np.concatenate(([0.0], times_s - fit.batch_s)), np.zeros(2), 0.0, 0.0)
    made = _step_model(times_fx, accelerator, DTYPES[dtype][1], flops, moved_bytes, kernels)
    return replace(made, validity=validity, band=fit.band)


def _step_model(
    times_fx: Sequence[int],
    accelerator: Accelerator,
    arithmetic: str,
    flops: Floats,
    moved_bytes: Floats,
    kernels: KernelSeconds | None = None,
) -> StepModel:
    """Return the assumed step model of batches: times at items - 1, and operations, bytes and time of kernels at items."""
    none = np.zeros(2)
    work = StepWork(arithmetic, flops, moved_bytes, none, none, 0.0, 0.0, 0.0)
    energies = step_energies(accelerator, work, accelerators=1, kernels=kernels)
    return StepModel(
        tokens_fx=(0, *times_fx),
        tokens_j=tuple(energies.tokens_j.tolist()),
        tdp_w=energies.tdp_w,
        base_w=energies.base_w,
    )


@dataclass(frozen=True)
class BatchSheet:
    """What one replica can serve in whole batches, by closed form: batches of one size, one after the other, none waited for.

    Parameters
    ----------
    batch : items in a batch. batch_s : its time. items_per_s, requests_per_s : sustained. power_w : of the accelerator then.
    bound : "max_batch", or "e2e" where a larger batch would take longer than the target by itself.
    single_s : time of a batch of one mean request.
    """

    batch: int
    batch_s: float
    items_per_s: float
    requests_per_s: float
    power_w: float
    bound: str
    single_s: float


def batch_sheet(step: StepModel, items: float, e2e_target_s: float | None = None, front_end_s: float = 0.0) -> BatchSheet:
    """Return the throughput of full batches, or of the largest that a request has time to wait for and to run in.

    A request that comes just after a batch has started waits for it and runs in the next, so both must fit into the target.

    Parameters
    ----------
    items : mean of a request. e2e_target_s : latency target; None for none. front_end_s : what is added to every latency.

    Examples
    --------
    >>> step = StepModel(tokens_fx=(0, *line_fx(0.002, 0.001, 32)), tokens_j=(0.0,) * 33, base_w=50.0, tdp_w=70.0)
    >>> full, quick = batch_sheet(step, items=1), batch_sheet(step, items=1, e2e_target_s=0.04)
    >>> full.batch, round(full.items_per_s), quick.batch, quick.bound
    (32, 941, 18, 'e2e')
    """
    most = len(step.tokens_fx) - 1
    times_s = [time / ONE_NS_FX / 1e9 for time in step.tokens_fx[1:]]
    batch, bound = most, "max_batch"
    if e2e_target_s is not None:
        in_time = [size for size in range(1, most + 1) if 2 * times_s[size - 1] + front_end_s <= e2e_target_s]
        if not in_time or in_time[-1] < most:
            batch, bound = max(in_time, default=0), "e2e"
    single_s = times_s[min(max(round(items), 1), most) - 1]
    if batch < items:
        return BatchSheet(0, times_s[0], 0.0, 0.0, 0.0, bound, single_s)
    batch_s = times_s[batch - 1]
    rate = batch / batch_s
    power_w = step.step_j(step.tokens_fx[batch], batch, batch, 0, 0) / batch_s
    return BatchSheet(batch, batch_s, rate, rate / items, power_w, bound, single_s)
