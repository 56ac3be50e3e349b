"""Power of accelerators and nodes, stepping and idle."""

from __future__ import annotations

from sim.domain.hardware import Accelerator, InstanceType, PowerFit


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
