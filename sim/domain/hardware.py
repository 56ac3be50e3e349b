"""Accelerators, instance types, serving engines, cold starts and grids: what the catalog's rows become."""

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
class PowerFit:
    """Power of an accelerator that steps: its idle power, more while kernels run, and energy for each byte and operation.

    Parameters
    ----------
    kernel : share of the TDP drawn above the idle power while kernels run.
    byte_pj, context_byte_pj : picojoules for a byte read from memory, and for one of the cache (read and attended to).
    flop_pj : picojoules for an operation by arithmetic type, with the keys of `Accelerator.dense_tflops`.
    expert_kernel : share of the TDP drawn besides while a model with routed experts steps: their kernels keep an accelerator busy
        for longer than their work would.
    expert_flop_factor : of operations of routed experts, against others: their kernels work on few rows at a time.
    expert_byte_factor : of bytes of routed experts by weight type; 1 for a type that is not there.
    band, expert_band : relative errors that nine of ten predictions stay within, of dense models and of those with experts, with
        models left out of the fit.
    """

    name: str
    kernel: float
    byte_pj: float
    context_byte_pj: float
    flop_pj: dict[str, float]
    expert_kernel: float
    expert_flop_factor: float
    expert_byte_factor: dict[str, float]
    band: float
    expert_band: float
    provenance: Provenance


# Tensor-parallel degrees of a server by its link: powers of two over NVLink, up to four cards over PCIe (eight are not modelled).
DEGREES_BY_LINK: dict[str, tuple[int, ...]] = {
    "nvlink": (1, 2, 4, 8),
    "pcie": (1, 2, 4),
    "ici": (1, 4, 8, 16, 32, 64, 128, 256),
    "neuronlink": (1, 2, 4, 8, 16),
    "none": (1,),
}


@dataclass(frozen=True)
class Accelerator:
    """One accelerator; decimal units for speed (1e12 FLOP/s, 1e9 B/s), GiB for memory.

    Parameters
    ----------
    dense_tflops : peak dense TFLOP/s by arithmetic type ("bf16", "fp8", "int8", "fp4"), never with sparsity.
    memory_gib : memory on the label; `usable_gib` : what the driver exposes.
    bandwidth_gb_per_s : memory bandwidth. link_gb_per_s : interconnect per direction, all links of one accelerator together.
    link : key of `DEGREES_BY_LINK`; "none" for a computer of its own.
    tdp_w, idle_w : board limit, and drawn with a model loaded and nothing to do.
    min_power_w : lowest board limit that can be set; 0 where it is not known.
    power : power while stepping.
    tensor_parallel : degrees it can be split to; empty takes those of its link.
    pod_accelerators : accelerators that its link joins beyond one machine; 0 where the link ends at the machine.
    largest_job : most accelerators of a pod that one replica or one training job may have; 0 for no limit but the pod's.
    sparse_2_4 : whether its matrix units multiply weights of which two of four are zero, faster than dense ones.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> v5p = load_catalog().accelerators["tpu-v5p"]
    >>> v5p.pod_accelerators, v5p.largest_job, v5p.degrees[:4]
    (8960, 6144, (1, 4, 8, 16))
    """

    name: str
    dense_tflops: dict[str, float]
    memory_gib: float
    usable_gib: float
    bandwidth_gb_per_s: float
    link_gb_per_s: float
    link: str
    tdp_w: float
    idle_w: float
    power: PowerFit
    provenance: Provenance
    min_power_w: float = 0.0
    tensor_parallel: tuple[int, ...] = ()
    pod_accelerators: int = 0
    largest_job: int = 0
    sparse_2_4: bool = False
    notes: str = field(default="")

    @property
    def degrees(self) -> tuple[int, ...]:
        """Tensor-parallel degrees that a replica may have."""
        return self.tensor_parallel or DEGREES_BY_LINK[self.link]

    @property
    def most_in_one_job(self) -> int:
        """Most accelerators of one replica or training job; 0 where nothing limits it."""
        return self.largest_job or self.pod_accelerators


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


# Bytes per weight, and the arithmetic in which the linear layers run; nvfp4 is 4 bits and one fp8 scale for 16 weights,
# mxfp4 4 bits and one scale of 8 bits for 32.
WEIGHT_TYPES: dict[str, tuple[float, str]] = {
    "fp32": (4.0, "tf32"),
    "bf16": (2.0, "bf16"),
    "fp8": (1.0, "fp8"),
    "w8a8": (1.0, "int8"),
    "int8_wo": (1.0, "bf16"),
    "int4_wo": (0.5, "bf16"),
    "nvfp4": (0.5625, "fp4"),
    "mxfp4": (0.53125, "bf16"),
}


@dataclass(frozen=True)
class StepFit:
    """Efficiencies of the kernels of one (accelerator, kernel family, weight type); used by `sim.perf.kernel_times`.

    Parameters
    ----------
    eta_compute, eta_weights : fractions of the datasheet peaks that matrix products reach: operations, and reading weights.
    eta_attention, eta_kv : that attention reaches: operations in a prefill, and reading the cache in a decode.
    overlap : share of the shorter of computing and reading that the longer one does not hide; 0 is a perfect roofline.
    wave_columns : columns of output that the last wave of tiles of a product costs, because it is not full.
    activation_bytes : bytes moved between kernels for each number that a split matrix takes or gives (casts, activations).
    layer_s : launches and small kernels of a layer. prefill_layer_s : what a layer of a prefill takes more than one of a decode,
        whose launches are replayed; query_key_norm_s : more, where queries and keys are normalised.
    allreduce_s : latency of an all-reduce of two accelerators; allreduce_growth : its factor for each doubling.
    eta_link : fraction of the link's peak with two accelerators; link_growth : factor by which it falls for each doubling.
    eta_expert_compute, eta_expert_weights : as the first two, of routed experts. expert_layer_s : to route, permute and combine.
    expert_rows : tokens that an expert in use costs more, because its last tile is not full. expert_spread : tokens that choose
        experts independently, as a share of all. routing_bytes : bytes moved for each number of the hidden state, for each
        expert of a token.
    validity : "fitted" (to this accelerator), "transferred" (from another one) or "assumed".
    band : share by which a step time may be off, either way, in 90 of 100 cases; decode_band, prefill_band, mixed_band : for steps
        that are all decode, all prompt, or both; expert_band : for models with experts.
    """

    name: str
    eta_compute: float
    eta_weights: float
    eta_attention: float
    eta_kv: float
    overlap: float
    wave_columns: float
    activation_bytes: float
    layer_s: float
    prefill_layer_s: float
    query_key_norm_s: float
    allreduce_s: float
    allreduce_growth: float
    eta_link: float
    link_growth: float
    eta_expert_compute: float
    eta_expert_weights: float
    expert_layer_s: float
    expert_rows: float
    expert_spread: float
    routing_bytes: float
    band: float
    decode_band: float
    prefill_band: float
    mixed_band: float
    expert_band: float
    validity: str
    provenance: Provenance
    notes: str = field(default="")


@dataclass(frozen=True)
class FitRule:
    """Where the efficiencies of an accelerator without measurements come from; named after the accelerator.

    Parameters
    ----------
    like : accelerator whose rows are taken. validity : "transferred" or "assumed", at best, of the rows that come of it.
    least_band : bands are this or those of the row taken, whichever is wider.
    link_like : accelerator whose all-reduces are taken instead; empty for those of `like`.
    eta_compute, eta_weights, eta_attention, eta_kv, layer_s : of its bf16 rows, in place of those taken; 0 leaves them. Rows of
        other weight types are changed by the same factor.
    """

    name: str
    like: str
    validity: str
    least_band: float
    provenance: Provenance
    link_like: str = ""
    eta_compute: float = 0.0
    eta_weights: float = 0.0
    eta_attention: float = 0.0
    eta_kv: float = 0.0
    layer_s: float = 0.0
    notes: str = field(default="")


@dataclass(frozen=True)
class TypeRule:
    """How rows of a weight type come from the bf16 row of the same accelerator and kernels; named after the type.

    Efficiencies change by the factor, and times by the difference, from bf16 to this type where both were fitted.

    Parameters
    ----------
    between : types whose changes are averaged where no accelerator has this one; bf16 itself changes nothing.
    like : type whose fitted row of the same accelerator and kernels is taken where there is one; "" for none.
    least_band : bands are this or those of the bf16 row, whichever is wider.
    """

    name: str
    least_band: float
    provenance: Provenance
    between: tuple[str, ...] = ()
    like: str = ""
    notes: str = field(default="")


@dataclass(frozen=True)
class Engine:
    """A serving engine's share of a step, and its front end.

    Parameters
    ----------
    kernel_scale : factor on kernel time. step_s : constant per step. sequence_s : per sampled sequence.
    expert_layer_s : per step and layer with experts, beside its kernels. latent_layer_s : per step and layer of latent attention.
    token_s : per token of a step, on top of kernels: element-wise work that a stack has not fused.
    launch_layer_s : time in which the host launches the kernels of a layer. The accelerator works meanwhile, so that linear layers
        take at least layers x launch_layer_s; 0 for stacks that replay a recorded graph.
    front_end_s : HTTP, tokeniser and scheduling time added to every request's TTFT and E2E.
    block_tokens : KV block size. memory_utilization : share of accelerator memory the engine may use.
    kernels : family of `StepFit` rows it uses.
    tpot_band, ttft_band : how far nine of ten measured values lie below and above what is simulated, as two shares of it, each
        model judged by constants fitted without it; empty where nothing was measured.
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
    expert_layer_s: float = 0.0
    latent_layer_s: float = 0.0
    token_s: float = 0.0
    launch_layer_s: float = 0.0
    tpot_band: tuple[float, ...] = ()
    ttft_band: tuple[float, ...] = ()
    notes: str = field(default="")

    @property
    def step_error(self) -> float:
        """Share by which nine of ten served steps may be off, either way, by `tpot_band`; 0 where nothing was measured.

        Examples
        --------
        >>> from dataclasses import replace
        >>> from sim.catalog.loader import load_catalog
        >>> vllm = replace(load_catalog().engines["vllm-2026"], tpot_band=(0.2, 0.25))
        >>> vllm.step_error  # a fifth below is a quarter too high, a quarter above a fifth too low
        0.25
        """
        if not self.tpot_band:
            return 0.0
        below, above = self.tpot_band
        return max(below / (1.0 - below), above / (1.0 + above))


@dataclass(frozen=True)
class ColdStart:
    """One stage on the way from asking for a node to a ready replica, log-normal in its duration.

    A fixed stage has `median_s` and `p95_s`; a stage that moves bytes has bandwidths instead.

    Parameters
    ----------
    stage : "pending", "booting", "pulling", "loading" or "warming".
    median_s, p95_s : duration of a fixed stage.
    median_gb_per_s : bandwidth, 1e9 B/s, that half of the loads reach. slow_gb_per_s : that 95 of 100 loads reach.

    Examples
    --------
    >>> nvme = ColdStart("nvme", "loading", 0.0, 0.0, 4.0, 2.0, Provenance("an example", "2026-01-01", "assumed"))
    >>> nvme.times_s(16e9)
    (4.0, 8.0)
    """

    name: str
    stage: str
    median_s: float
    p95_s: float
    median_gb_per_s: float
    slow_gb_per_s: float
    provenance: Provenance
    notes: str = field(default="")

    def times_s(self, load_bytes: float = 0.0) -> tuple[float, float]:
        """Return the median and the 95th percentile of the stage's duration in seconds, for so many bytes to load."""
        if self.median_gb_per_s == 0.0:
            return self.median_s, self.p95_s
        gigabytes = load_bytes / 1e9
        return gigabytes / self.median_gb_per_s, gigabytes / self.slow_gb_per_s


@dataclass(frozen=True)
class Grid:
    """Electricity at a cloud region.

    Parameters
    ----------
    gco2_per_kwh : carbon intensity of the grid. usd_per_kwh : price of electricity.
    pue : power usage effectiveness of the site: energy drawn at the meter over energy used by the machines.
    provenance : of the carbon intensity. site_provenance : of price and PUE.
    """

    name: str
    gco2_per_kwh: float
    usd_per_kwh: float
    pue: float
    provenance: Provenance
    site_provenance: Provenance
