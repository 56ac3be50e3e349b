"""Power of accelerators and nodes, stepping and idle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.domain.hardware import Accelerator, InstanceType, PowerFit

Floats = NDArray[np.float64]


def stepping_power_w(accelerator: Accelerator, memory_use: float, compute_use: float) -> float:
    """Return the power of one accelerator while an engine steps: TDP min(1, base + memory u_m + compute u_c).

    Parameters
    ----------
    memory_use, compute_use : u_m and u_c, bandwidth and FLOP/s used as shares of the datasheet peaks.

    Source: research note on hardware, section 6, fitted to the ML.ENERGY leaderboard (2026-02-16); 9.7 % mean error out of sample.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> h100 = load_catalog().accelerators["h100-sxm"]
    >>> round(stepping_power_w(h100, memory_use=0.5, compute_use=0.1))
    578
    >>> stepping_power_w(h100, memory_use=1.0, compute_use=0.5)
    700.0
    """
    power: PowerFit = accelerator.power
    return accelerator.tdp_w * min(1.0, power.base + power.memory * memory_use + power.compute * compute_use)


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
    1340.0
    """
    return accelerator.idle_w * instance.accelerators + instance.host_w


@dataclass(frozen=True)
class StepWork:
    """What one accelerator of a replica does in a step, by what it grows with; operations in FLOPs, data in bytes.

    Parameters
    ----------
    arithmetic : type in which the linear layers run, key of `Accelerator.dense_tflops`.
    tokens_flops, tokens_bytes : of the linear layers and all else that depends on the tokens of the step alone (weights read,
        element-wise traffic), by number of tokens: index n.
    sampled_flops, sampled_bytes : of the output head, by number of sampled sequences: index n_out.
    attention_flops : per unit of S (prefill). context_flops, context_bytes : per unit of C (decode).
    """

    arithmetic: str
    tokens_flops: Floats
    tokens_bytes: Floats
    sampled_flops: Floats
    sampled_bytes: Floats
    attention_flops: float
    context_flops: float
    context_bytes: float


@dataclass(frozen=True)
class StepEnergies:
    """Energy of a replica's step in joules: base_w T + tokens_j[n] + sampled_j[n_out] + attention_j S + context_j C <= tdp_w T.

    Parameters
    ----------
    tokens_j, sampled_j : by number of tokens and of sampled sequences. attention_j, context_j : per unit of S and of C.
    base_w, tdp_w : power of a replica that steps before any work is counted, and at its limit.
    """

    base_w: float
    tdp_w: float
    tokens_j: Floats
    sampled_j: Floats
    attention_j: float
    context_j: float


def step_energies(accelerator: Accelerator, work: StepWork, *, accelerators: int) -> StepEnergies:
    """Return the energies of the steps of a replica on so many equal accelerators that share its work.

    Parameters
    ----------
    work : of one of them.

    Source: the form and parameters of `stepping_power_w`, times T.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> none = np.zeros(2)
    >>> gigabyte = StepWork("bf16", none, np.array([1e9, 1e9]), none, none, 0.0, 0.0, 0.0)
    >>> energies = step_energies(load_catalog().accelerators["h100-sxm"], gigabyte, accelerators=1)
    >>> round(float(energies.tokens_j[1]), 3)  # joules above the base power to read one gigabyte
    0.086
    """
    power = accelerator.power
    # One second of full compute, or of full bandwidth, costs these joules above the base power of all accelerators.
    compute_j = accelerators * accelerator.tdp_w * power.compute
    flop_j = compute_j / (accelerator.dense_tflops[work.arithmetic] * 1e12)
    attention_flop_j = compute_j / (accelerator.dense_tflops["bf16"] * 1e12)
    byte_j = accelerators * accelerator.tdp_w * power.memory / (accelerator.bandwidth_gb_per_s * 1e9)
    return StepEnergies(
        base_w=accelerators * accelerator.tdp_w * power.base,
        tdp_w=accelerators * accelerator.tdp_w,
        tokens_j=flop_j * work.tokens_flops + byte_j * work.tokens_bytes,
        sampled_j=flop_j * work.sampled_flops + byte_j * work.sampled_bytes,
        attention_j=attention_flop_j * work.attention_flops,
        context_j=attention_flop_j * work.context_flops + byte_j * work.context_bytes,
    )
