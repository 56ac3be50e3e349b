"""Power of accelerators and nodes, stepping and idle: what a step of an engine costs in joules.

An accelerator draws its idle power all the time, some more while kernels run, and energy for every byte and operation::

    E = idle T + kernel TDP T_kernels + byte bytes + context byte (bytes of the cache) + flop FLOPs, at most TDP T

T_kernels is the time of a step without the engine's share (scheduler, sampling, launches that the processor is late with): in those
gaps an accelerator draws little more than when idle. Routed experts cost a multiple, and a share of the TDP for the whole step:
their kernels work on few rows at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.domain.hardware import Accelerator, InstanceType
from sim.perf.work import StepWork

Floats = NDArray[np.float64]
PICO = 1e-12


def main_arithmetic(accelerator: Accelerator) -> str:
    """Return the arithmetic type that uses without one are of: bf16, or the first that the accelerator has.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> main_arithmetic(load_catalog().accelerators["h100-sxm"])
    'bf16'
    """
    return "bf16" if "bf16" in accelerator.dense_tflops else next(iter(accelerator.dense_tflops))


def stepping_power_w(accelerator: Accelerator, memory_use: float, compute_use: float, arithmetic: str = "") -> float:
    """Return the power of one accelerator whose kernels never pause: idle + kernel TDP + what bytes and operations cost, up to TDP.

    Parameters
    ----------
    memory_use, compute_use : bandwidth and FLOP/s used as shares of the datasheet peaks.
    arithmetic : of the operations, "" for `main_arithmetic`.

    Source: the form of this module with the accelerator's row of `powers`.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> h100 = load_catalog().accelerators["h100-sxm"]
    >>> 400 < stepping_power_w(h100, memory_use=0.7, compute_use=0.0) < 500
    True
    >>> stepping_power_w(h100, memory_use=1.0, compute_use=0.5)
    700.0
    """
    power = accelerator.power
    bytes_w = power.byte_pj * PICO * memory_use * accelerator.bandwidth_gb_per_s * 1e9
    kind = arithmetic or main_arithmetic(accelerator)
    flops_w = power.flop_pj[kind] * PICO * compute_use * accelerator.dense_tflops[kind] * 1e12
    return min(accelerator.tdp_w, accelerator.idle_w + power.kernel * accelerator.tdp_w + bytes_w + flops_w)


def replica_idle_w(accelerator: Accelerator, tensor_parallel: int) -> float:
    """Return the power of a replica's accelerators with a model loaded and nothing to do."""
    return accelerator.idle_w * tensor_parallel


def node_idle_w(instance: InstanceType, accelerator: Accelerator) -> float:
    """Return the power of a node with nothing to do: all of its accelerators idle, and the host.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> catalog = load_catalog()
    >>> node_idle_w(catalog.instances["p5.48xlarge"], catalog.accelerators["h100-sxm"])
    1424.0
    """
    return accelerator.idle_w * instance.accelerators + instance.host_w


@dataclass(frozen=True)
class KernelSeconds:
    """Time of a step's kernels alone, without the engine's share, by what it grows with, in seconds.

    Parameters
    ----------
    tokens_s, sampled_s : by number of tokens and of sampled sequences, as the tables of `StepWork`.
    attention_s : per unit of S. context_s, window_s : per unit of C, of layers that attend to everything, and of those with a
        window.
    """

    tokens_s: Floats
    sampled_s: Floats
    attention_s: float
    context_s: float
    window_s: float = 0.0


@dataclass(frozen=True)
class StepEnergies:
    """Energy of a replica's step in joules: base_w T + tokens_j[n] + sampled_j[n_out] + attention_j S + context_j C <= tdp_w T.

    Parameters
    ----------
    tokens_j, sampled_j : by number of tokens and of sampled sequences. attention_j : per unit of S.
    context_j : per unit of C, of the layers that attend to everything. window_j : of those with a window, as far as it reaches.
    base_w, tdp_w : power of a replica that steps before any work is counted, and at its limit.
    """

    base_w: float
    tdp_w: float
    tokens_j: Floats
    sampled_j: Floats
    attention_j: float
    context_j: float
    window_j: float = 0.0


def step_energies(
    accelerator: Accelerator, work: StepWork, *, accelerators: int, kernels: KernelSeconds | None = None
) -> StepEnergies:
    """Return the energies of the steps of a replica on so many equal accelerators that share its work.

    Parameters
    ----------
    work : of one of them. kernels : time of its kernels; None where they never pause, so that the whole step is theirs.

    Source: the form of this module; parameters in `powers` of the catalog, fitted in `experiments/fit_hardware/power.py`.

    Examples
    --------
    Reading a gigabyte on an H100 takes about a tenth of a joule above the power of the time it takes.

    >>> from sim.catalog.loader import load_catalog
    >>> none = np.zeros(2)
    >>> gigabyte = StepWork("bf16", none, np.array([0.0, 1e9]), none, none, 0.0, 0.0, 0.0)
    >>> energies = step_energies(load_catalog().accelerators["h100-sxm"], gigabyte, accelerators=1)
    >>> bool(0.09 < energies.tokens_j[1] < 0.12)
    True
    """
    power, a = accelerator.power, float(accelerators)
    kernel_w = power.kernel * accelerator.tdp_w
    flop_j = power.flop_pj[work.arithmetic] * PICO
    attention_flop_j, byte_j, context_byte_j = (
        pico * PICO for pico in (power.flop_pj["bf16"], power.byte_pj, power.context_byte_pj)
    )
    expert_flop_j = flop_j * power.expert_flop_factor
    expert_byte_j = byte_j * power.expert_byte_factor.get(work.weight_dtype, 1.0)
    tokens_j = flop_j * work.tokens_flops + byte_j * work.tokens_bytes
    tokens_j = tokens_j + expert_flop_j * work.expert_flops + expert_byte_j * work.expert_bytes
    sampled_j = flop_j * work.sampled_flops + byte_j * work.sampled_bytes
    attention_j = attention_flop_j * work.attention_flops
    context_j = attention_flop_j * work.context_flops + context_byte_j * work.context_bytes
    window_j = attention_flop_j * work.window_flops + context_byte_j * work.window_bytes
    base_w = accelerator.idle_w
    if work.expert_flops.any():
        base_w += power.expert_kernel * accelerator.tdp_w
    if kernels is None:
        base_w += kernel_w
    else:
        tokens_j = tokens_j + kernel_w * kernels.tokens_s
        sampled_j = sampled_j + kernel_w * kernels.sampled_s
        attention_j += kernel_w * kernels.attention_s
        context_j += kernel_w * kernels.context_s
        window_j += kernel_w * kernels.window_s
    return StepEnergies(
        base_w=a * base_w,
        tdp_w=a * accelerator.tdp_w,
        tokens_j=a * tokens_j,
        sampled_j=a * sampled_j,
        attention_j=a * attention_j,
        context_j=a * context_j,
        window_j=a * window_j,
    )
