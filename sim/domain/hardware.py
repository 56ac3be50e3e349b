"""Accelerators, instance types and serving engines: what the catalog's rows become."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Provenance:
    """Where a catalog row comes from.

    Parameters
    ----------
    source : publication, page or table.
    date : ISO date on which it was read.
    confidence : "fitted", "published" or "assumed".
    """

    source: str
    date: str
    confidence: str


@dataclass(frozen=True)
class Accelerator:
    """One accelerator; decimal units for speed (1e12 FLOP/s, 1e9 B/s), GiB for memory.

    Parameters
    ----------
    dense_tflops : peak dense TFLOP/s by arithmetic type ("bf16", "fp8", "int8").
    memory_gib : memory on the label; `usable_gib` : what the driver exposes.
    bandwidth_gb_per_s : memory bandwidth. link_gb_per_s : interconnect per direction.
    tdp_w, idle_w : board limit, and drawn with a model loaded and nothing to do.
    """

    name: str
    dense_tflops: dict[str, float]
    memory_gib: float
    usable_gib: float
    bandwidth_gb_per_s: float
    link_gb_per_s: float
    tdp_w: float
    idle_w: float
    provenance: Provenance


@dataclass(frozen=True)
class Price:
    """A price that holds from a date on.

    Parameters
    ----------
    usd_per_hour : a decimal in text, exact to the nano-dollar.
    valid_from : ISO date from which it holds.
    """

    usd_per_hour: str
    valid_from: str
    provenance: Provenance


@dataclass(frozen=True)
class InstanceType:
    """A machine that can be rented: accelerators on a host.

    Parameters
    ----------
    accelerators : how many of `accelerator` it has. host_w : mean power of everything but the accelerators.
    on_demand : prices by region, oldest first.
    """

    name: str
    cloud: str
    accelerator: str
    accelerators: int
    vcpu: int
    ram_gib: float
    host_w: float
    on_demand: dict[str, tuple[Price, ...]]
    provenance: Provenance


@dataclass(frozen=True)
class StepFit:
    """Fitted efficiencies of one (accelerator, kernel family, arithmetic type); symbols of the step model.

    Parameters
    ----------
    eta_compute, eta_weights, eta_attention, eta_kv, eta_link : fractions of the datasheet peaks reached.
    layer_s : launch and small-kernel time per layer. allreduce_s : latency of one all-reduce.
    overlap : kappa, 0 is perfect overlap of compute and weight read, 1 is none.
    """

    eta_compute: float
    eta_weights: float
    eta_attention: float
    eta_kv: float
    layer_s: float
    allreduce_s: float
    eta_link: float
    overlap: float
    provenance: Provenance


@dataclass(frozen=True)
class Engine:
    """A serving engine's share of a step, and its front end.

    Parameters
    ----------
    kernel_scale : factor on kernel time. step_s : constant per step. sequence_s : per sampled sequence.
    front_end_s : HTTP, tokeniser and scheduling time added to every request's TTFT and E2E.
    block_tokens : KV block size. memory_utilization : share of accelerator memory the engine may use.
    kernels : family of `StepFit` rows it uses.
    """

    name: str
    kernels: str
    kernel_scale: float
    step_s: float
    sequence_s: float
    front_end_s: float
    block_tokens: int
    memory_utilization: float
    provenance: Provenance
    notes: str = field(default="")
