"""The whole input of a run: typed, built without I/O, the same object from Python and from the command line."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import datetime
from typing import Any

from sim.catalog.grid_reader import HourlyFile
from sim.domain.pricing import LINUX
from sim.perf.memory import REFERENCE_TOKENS
from sim.policies.autoscalers.static import Static
from sim.policies.base import Autoscaler
from sim.policies.placement import InOrder, Placement
from sim.policies.routers import LeastOutstanding, Router
from sim.policies.taps.base import Tap
from sim.scenario.batcher import DynamicBatcher
from sim.scenario.budgets import Budget
from sim.scenario.commitments import Commitment
from sim.scenario.optimizations import Optimizations
from sim.scenario.other_costs import OtherCosts
from sim.scenario.owned import CAPACITY_BLOCK, OWNED, Block, Owned
from sim.units import duration_ns, instant
from sim.workload.base import Workload

ENGINES = ("compiled", "reference")
PURCHASE_OPTIONS = ("on_demand", "spot", OWNED, CAPACITY_BLOCK)
FAILURES = ("crash", "no_capacity")
TIMEOUTS = ("abandon", "wait")
ROOFLINE, TABLE = "roofline", "table"
STEP_TIMES = (ROOFLINE, TABLE)


@dataclass
class Slo:
    """Latency targets of a service; `None` is no target.

    Parameters
    ----------
    ttft_s, tpot_s, e2e_s : thresholds in seconds.
    attainment : share of requests that must be within each of them.
    """

    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None
    attainment: float = 0.99


@dataclass
class SegmentRules:
    """How one segment is treated; None takes what its service says.

    Parameters
    ----------
    priority, max_waiting, timeout_action : as in `Service`.
    """

    priority: int | None = None
    max_waiting: int | None = None
    timeout_action: str | None = None


@dataclass
class Service:
    """An endpoint: its traffic, where it goes, its targets and its queue.

    Parameters
    ----------
    deployments : names of the deployments whose replicas may serve it.
    priority : higher is served first.
    queue_timeout_s : a request not admitted this long after its arrival is abandoned; None for never.
    max_queue : bound of the service queue for new arrivals; None for no bound.
    max_attempts : attempts before a request on killed replicas fails.
    max_waiting : in a batcher, a new request is turned away if as many of its priority wait on the replica; None for no bound.
    timeout_action : what a batcher does with a request past `queue_timeout_s`: "abandon" lets it leave, "wait" puts it behind the
        others of its priority.
    segment_rules : segment -> how it is treated where it differs.
    timezone : of the months and weeks in which its SLOs are judged; None for the account's.
    """

    workload: Workload = field(default_factory=Workload)
    deployments: list[str] = field(default_factory=list)
    slo: Slo = field(default_factory=Slo)
    router: Router = field(default_factory=LeastOutstanding)
    priority: int = 0
    queue_timeout_s: float | None = None
    max_queue: int | None = None
    max_attempts: int = 3
    max_waiting: int | None = None
    timeout_action: str = "abandon"
    segment_rules: dict[str, SegmentRules] = field(default_factory=dict)
    timezone: str | None = None

    def priority_of(self, segment: str) -> int:
        """Return the priority of a segment."""
        own = self.segment_rules.get(segment, SegmentRules()).priority
        return self.priority if own is None else own

    def max_waiting_of(self, segment: str) -> int | None:
        """Return how many of its priority may wait on a batcher before a request of a segment is turned away."""
        own = self.segment_rules.get(segment, SegmentRules()).max_waiting
        return self.max_waiting if own is None else own

    def timeout_action_of(self, segment: str) -> str:
        """Return what a batcher does with a late request of a segment."""
        return self.segment_rules.get(segment, SegmentRules()).timeout_action or self.timeout_action


@dataclass
class StepTable:
    """A table of measured or exported step times.

    Parameters
    ----------
    path : of a CSV file in a layout of `sim.perf.table_reader`. where : column -> value of the rows that are meant, where the file
        holds several models, accelerators or settings.
    """

    path: str = ""
    where: dict[str, str] = field(default_factory=dict)


@dataclass
class Deployment:
    """A model with engine settings that replicas instantiate.

    Parameters
    ----------
    model, engine : catalog names. weight_dtype : "fp32", "bf16", "fp8", "w8a8", "int8_wo", "int4_wo", "nvfp4" or
        "mxfp4". kv_dtype : "bf16" or "fp8".
    tensor_parallel : accelerators of a pipeline stage, all on one node. pipeline_parallel : stages, on one node or several.
    max_num_seqs, max_num_batched_tokens : seats and tokens of a step.
    max_model_len : longest prompt + output; None for the model's.
    watermark_tokens : KV left free at an admission while something runs.
    max_outstanding : most requests waiting and running on a replica; None for 2 x max_num_seqs (no bound with a batcher), 0 for no
        bound.
    kv_tokens : measured KV capacity; None computes it from memory.
    kv_reference_tokens : length of the sequences for which layers with a sliding window are counted when it is computed; of no
        matter for models without. Shorter sequences take more of the cache than is counted, longer ones less.
    optimizations : what is done to the model beside its types.
    backlog_seats : most requests of batch jobs in a step; None for no bound of their own, 0 for none at all.
    perf : where step times come from: "roofline" (the catalog) or "table" (`step_table`).
    autoscaler : how many replicas. pools : pools its nodes may come from, in this order. placement : how many in each of them.
    drain_grace_s : a draining replica is killed after so long; None waits until its last request is done.
    start : "ready" (the first replicas are up at the start) or "cold".
    batcher : set for a model that is not an LLM; it takes the place of all settings from `model` to `kv_tokens`, `max_outstanding`
        aside.
    """

    model: str = "llama-3.1-8b"
    engine: str = "vllm-2026"
    weight_dtype: str = "bf16"
    kv_dtype: str = "bf16"
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    max_model_len: int | None = None
    watermark_tokens: int = 1
    max_outstanding: int | None = None
    kv_tokens: int | None = None
    kv_reference_tokens: int = REFERENCE_TOKENS
    optimizations: Optimizations = field(default_factory=Optimizations)
    backlog_seats: int | None = None
    perf: str = ROOFLINE
    step_table: StepTable = field(default_factory=StepTable)
    autoscaler: Autoscaler = field(default_factory=Static)
    pools: list[str] = field(default_factory=list)
    placement: Placement = field(default_factory=InOrder)
    drain_grace_s: float | None = None
    start: str = "ready"
    batcher: DynamicBatcher | None = None

    @property
    def accelerators(self) -> int:
        """Accelerators of one replica."""
        return self.tensor_parallel * self.pipeline_parallel


@dataclass
class StageTime:
    """A stage of a cold start as a log-normal: its median and 95th percentile in seconds; None takes the catalog's."""

    median_s: float | None = None
    p95_s: float | None = None


@dataclass
class ColdStart:
    """The stages from asking for a node to a ready replica.

    Parameters
    ----------
    pending : request to RUNNING (not billed). booting : system and driver. pulling : image. loading : weights. warming : engine.
    storage : where weights come from, a catalog row ("object_store", "nvme", "page_cache"); decides `loading` by bytes.
    image_gb : size of the image that `pulling` moves, 1e9 bytes.
    registry_gb_per_s, storage_gb_per_s : what all nodes of the pool together can pull and load; None for no common limit.
    """

    pending: StageTime = field(default_factory=StageTime)
    booting: StageTime = field(default_factory=StageTime)
    pulling: StageTime = field(default_factory=StageTime)
    loading: StageTime = field(default_factory=StageTime)
    warming: StageTime = field(default_factory=StageTime)
    storage: str = "object_store"
    image_gb: float = 12.0
    registry_gb_per_s: float | None = None
    storage_gb_per_s: float | None = None


@dataclass
class Spot:
    """Capacity and price of spot machines.

    Parameters
    ----------
    market : catalog row of a capacity process ("advisor-5-10", "aws-v100-medium", ...).
    price : catalog row of a price path, or "" for the one of the instance type.
    notice_s : from the interruption notice to the loss; None for the cloud's.
    max_price_usd_per_hour : machines are lost, and none can be had, while the price is above it; a decimal in text, None for none.
    """

    market: str = "advisor-5-10"
    price: str = ""
    notice_s: float | None = None
    max_price_usd_per_hour: str | None = None


@dataclass
class Pool:
    """Nodes of one instance type and purchase option.

    Parameters
    ----------
    instance : catalog name. purchase : "on_demand", "spot", "owned" (one's own machines, as many as `quota_nodes`) or
        "capacity_block" (as many as `quota_nodes`, paid in advance). region : decides price and carbon.
    grid : where its electricity comes from, a row of the catalog's grids or of `energy.regions`; "" for the region.
    zones : used in turn; spot takes the cheapest with capacity.
    quota_nodes : most nodes at a time; None for no bound.
    warm_nodes : machines kept booted, with the image pulled and nothing on them (and paid for).
    capacity_retry_s : a zone that had no capacity is not asked again for so long.
    operating_system : "linux", "rhel", "suse" or "windows" of EC2; the catalog's prices are of Linux.
    owned : what one's own machines cost. block : the capacity block, where it is one.
    price_usd_per_hour : one's own price as a decimal in text; None takes the catalog's.
    electricity_billed : whether energy is a line of the bill (own machines) or in the price (clouds).
    power_cap_w : limit of each accelerator's power in watts, below its own; steps that would draw more take longer. None for none.
    """

    instance: str = "p5.4xlarge"
    purchase: str = "on_demand"
    region: str = "us-east-1"
    grid: str = ""
    zones: list[str] = field(default_factory=lambda: ["us-east-1a"])
    quota_nodes: int | None = None
    warm_nodes: int = 0
    capacity_retry_s: float = 180.0
    operating_system: str = LINUX
    spot: Spot = field(default_factory=Spot)
    owned: Owned = field(default_factory=Owned)
    block: Block = field(default_factory=Block)
    price_usd_per_hour: str | None = None
    electricity_billed: bool = False
    power_cap_w: float | None = None
    cold_start: ColdStart = field(default_factory=ColdStart)


@dataclass
class Failure:
    """A dated loss in a pool, at `at` (a duration since the start).

    Parameters
    ----------
    kind : "crash" (machines die without notice, the oldest running first) or "no_capacity" (new machines cannot be had).
    zone : only there; "" for all zones of the pool.
    nodes : machines that crash. lasts : how long there is no capacity.
    """

    at: str = "0s"
    pool: str = ""
    kind: str = "crash"
    zone: str = ""
    nodes: int = 1
    lasts: str = "1h"


@dataclass
class Account:
    """Who pays: a name and the time zone of the invoice's hours and months."""

    name: str = "account"
    timezone: str = "UTC"


@dataclass
class RegionEnergy:
    """Electricity of one region; what is not set is that of `Energy`, and then of the catalog.

    Parameters
    ----------
    pue : power usage effectiveness. usd_per_kwh : price. gco2_per_kwh : carbon intensity.
    price, carbon : price and intensity by the hour, in place of one number.
    intensity : what kind of carbon intensity that is, "average" (of all power of the grid) or "marginal" (of what one more kWh
        would take).
    """

    pue: float | None = None
    usd_per_kwh: float | None = None
    gco2_per_kwh: float | None = None
    price: HourlyFile = field(default_factory=HourlyFile)
    carbon: HourlyFile = field(default_factory=HourlyFile)
    intensity: str = "average"


@dataclass
class Energy(RegionEnergy):
    """Price and carbon of electricity of all pools; None takes the catalog's value for the pool's region.

    Parameters
    ----------
    regions : name of a region, or of a grid that pools name, -> its own electricity.
    """

    regions: dict[str, RegionEnergy] = field(default_factory=dict)


@dataclass
class Scenario:
    """Everything a run depends on.

    Parameters
    ----------
    start : calendar instant, ISO 8601. horizon : simulated time. warmup : excluded from summaries and SLOs, not from the bill.
    window : reporting interval. seed, replication : name the random streams.
    replications : how many runs, with random streams of their own, from `replication` on. workers : processes for them; None is
        one a core, and one for a job of a sweep.
    engine : "compiled", or "reference" (the specification in plain Python: the same integers, a hundred times slower).
    records : "none", "all", or "sample:1000" for one request in a thousand.
    catalog : path of a user's catalog overlay, or "".
    taps : what sees the requests go by and counts them, by name.
    commitments : what the account has promised its providers, by name.
    budgets : what a month may cost, when to say so and what to do then, by name.
    other_costs : what the bill has beside machines: cluster, load balancer, storage, traffic, people.
    out : result folder; "" chooses `outputs/<name>/<time>-<hash>`.
    """

    name: str = "scenario"
    start: str = "2026-01-05T00:00:00Z"
    horizon: str = "1d"
    warmup: str = "0s"
    window: str = "1h"
    seed: int = 1
    replication: int = 0
    replications: int = 1
    workers: int | None = None
    engine: str = "compiled"
    records: str = "none"
    catalog: str = ""
    out: str = ""
    services: dict[str, Service] = field(default_factory=dict)
    deployments: dict[str, Deployment] = field(default_factory=dict)
    pools: dict[str, Pool] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    taps: dict[str, Tap] = field(default_factory=dict)
    account: Account = field(default_factory=Account)
    commitments: dict[str, Commitment] = field(default_factory=dict)
    budgets: dict[str, Budget] = field(default_factory=dict)
    energy: Energy = field(default_factory=Energy)
    other_costs: OtherCosts = field(default_factory=OtherCosts)

    @property
    def start_instant(self) -> datetime:
        """The calendar instant of time 0, in UTC."""
        return instant(self.start)

    @property
    def horizon_ns(self) -> int:
        """Simulated time in nanoseconds."""
        return duration_ns(self.horizon)

    @property
    def records_every(self) -> int:
        """0 for no records, 1 for all, k for one request in k."""
        if self.records == "none":
            return 0
        return 1 if self.records == "all" else int(self.records.removeprefix("sample:"))

    def in_items(self, service: str) -> bool:
        """Whether the requests of a service bring items, not tokens: its deployments have batchers."""
        known = (self.deployments.get(name) for name in self.services[service].deployments)
        return any(deployment is not None and deployment.batcher is not None for deployment in known)

    def prefix_cache_hit(self, service: str) -> float:
        """Share of each prompt of a service that is in the prefix cache, the same in all of its deployments."""
        return max(
            (self.deployments[name].optimizations.prefix_cache_hit for name in self.services[service].deployments), default=0.0
        )

    def is_batch(self, service: str) -> bool:
        """Whether the requests of a service come as batch jobs."""
        return self.services[service].workload.is_backlog()

    def planes(self) -> list[list[str]]:
        """Return the services grouped into data planes: services that share a deployment share a plane."""
        groups: list[tuple[set[str], list[str]]] = []
        for name, service in self.services.items():
            mine, members = set(service.deployments), [name]
            for group in [group for group in groups if group[0] & mine]:
                groups.remove(group)
                mine |= group[0]
                members = group[1] + members
            groups.append((mine, members))
        return [members for _, members in groups]

    def to_dict(self) -> dict[str, Any]:
        """Return the scenario as plain data; a choice carries its registered name under "choice"."""
        plain: dict[str, Any] = plain_value(self)
        return plain

    def digest(self) -> str:
        """Return a hash of everything that decides the result (`out` and `workers` do not)."""
        text = json.dumps({**self.to_dict(), "out": "", "workers": None}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def plain_value(value: Any) -> Any:
    """Return a value of a scenario as plain data; a choice carries its registered name under "choice"."""
    if is_dataclass(value) and not isinstance(value, type):
        choice = {"choice": value.choice_name} if hasattr(value, "choice_name") else {}
        return {**choice, **{item.name: plain_value(getattr(value, item.name)) for item in fields(value)}}
    if isinstance(value, dict):
        return {str(key): plain_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain_value(item) for item in value]
    return value
