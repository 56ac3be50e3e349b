"""The world of one run: data planes, streams and replica kinds, built from a resolved scenario."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from sim.control.taps import Taps
from sim.dataplane.engine import UNLIMITED, Batcher, DataPlane, PlaneConfig, ReplicaSpec, StreamRules
from sim.dataplane.reference import ReferencePlane
from sim.domain.traffic import RequestBlock, Source, Stream
from sim.errors import InputError, Problems
from sim.perf.steptime import StepModel
from sim.rng import StreamKey
from sim.scenario.model import Scenario, Service
from sim.scenario.resolve import ReplicaKind, Resolved
from sim.units import NS_PER_S
from sim.workload.prefix import CachedPrompts
from sim.workload.stream import merge, merge_clients


def _reference() -> type[DataPlane]:
    return ReferencePlane


def _compiled() -> type[DataPlane]:
    # Imported only when it is used: it loads numba, and compiles itself the first time ever.
    from sim.dataplane.compiled import CompiledPlane

    return CompiledPlane


ENGINES: dict[str, Callable[[], type[DataPlane]]] = {"reference": _reference, "compiled": _compiled}
NEVER_NS = (1 << 63) - 1


@dataclass
class Plane:
    """A data plane with what its local numbers mean.

    Parameters
    ----------
    services : names, by queue number. streams : scenario streams, by local stream number.
    specs : (deployment, pool) -> spec number.
    """

    number: int
    engine: DataPlane
    engine_config: PlaneConfig
    services: list[str]
    streams: list[Stream]
    specs: dict[tuple[str, str], int]
    streams_of: dict[str, frozenset[int]]


@dataclass
class World:
    """Everything a run moves.

    Parameters
    ----------
    planes : data planes. plane_of : deployment -> plane number. streams : all streams, by number.
    taps : what sees the requests go by. generate_s : wall time spent drawing requests, measured.
    """

    resolved: Resolved
    planes: list[Plane] = field(default_factory=list)
    plane_of: dict[str, int] = field(default_factory=dict)
    streams: list[Stream] = field(default_factory=list)
    sources: dict[str, Source] = field(default_factory=dict)
    taps: Taps = field(default_factory=lambda: Taps({}))
    generate_s: float = 0.0

    def timed(self, blocks: Iterable[RequestBlock]) -> Iterator[RequestBlock]:
        """Pass blocks through, adding the time it took to draw them."""
        iterator = iter(blocks)
        while True:
            began = time.perf_counter()
            block = next(iterator, None)
            self.generate_s += time.perf_counter() - began
            if block is None:
                return
            yield block


def build_world(resolved: Resolved) -> World:
    """Open the workloads and build the data planes of a scenario.

    Raises
    ------
    InputError : an input file that cannot be read as configured.
    """
    world = World(resolved)
    _open_sources(world)
    world.taps = Taps.of(resolved.scenario, world.sources)
    for services in resolved.scenario.planes():
        _build_plane(world, services)
    return world


def _open_sources(world: World) -> None:
    """Open the workload of every service; what is wrong with any of them is raised together, by full path."""
    scenario = world.resolved.scenario
    problems = Problems()
    for name, service in scenario.services.items():
        try:
            source = service.workload.open(_key(scenario, name), scenario.start_instant, scenario.horizon_ns)
            hit = scenario.prefix_cache_hit(name)
            world.sources[name] = CachedPrompts(source, hit) if hit > 0 else source
        except InputError as error:
            # A setting gets its full path; a place in a file (path, line and column) has one already.
            path = f"services.{name}.workload."
            problems.found += [
                replace(problem, path=path + problem.path) if problem.path.isidentifier() else problem for problem in error.problems
            ]
    problems.raise_if_any()


def _key(scenario: Scenario, service: str) -> StreamKey:
    return StreamKey(scenario.seed, scenario.replication, "workload", service)


def _build_plane(world: World, services: list[str]) -> None:
    scenario = world.resolved.scenario
    rules: list[StreamRules] = []
    streams: list[Stream] = []
    sources: list[tuple[int, Source]] = []
    keys: list[StreamKey] = []
    numbers_of: dict[str, frozenset[int]] = {}
    for queue, name in enumerate(services):
        service = scenario.services[name]
        source = world.sources[name]
        sources.append((len(streams), source))
        keys.append(_key(scenario, name))
        numbers_of[name] = frozenset(range(len(streams), len(streams) + len(source.segments)))
        for segment in source.segments:
            stream = Stream(len(world.streams), name, segment, service.priority_of(segment))
            streams.append(stream)
            world.streams.append(stream)
            rules.append(_rules(service, segment, queue))
    accepted: dict[str, frozenset[int]] = {}
    for name in scenario.deployments:
        users = [service for service in services if name in scenario.services[service].deployments]
        if users:
            accepted[name] = frozenset().union(*(numbers_of[service] for service in users))
    steps: list[StepModel] = []
    specs: list[ReplicaSpec] = []
    spec_numbers: dict[tuple[str, str], int] = {}
    for (deployment, pool), kind in world.resolved.kinds.items():
        if deployment in accepted:
            spec_numbers[deployment, pool] = len(specs)
            specs.append(_spec(kind, len(steps), accepted[deployment]))
            steps.append(kind.step)
    config = PlaneConfig(
        steps=tuple(steps),
        specs=tuple(specs),
        streams=tuple(rules),
        max_queue=tuple(_or_unlimited(scenario.services[name].max_queue) for name in services),
        router=scenario.services[services[0]].router,
        records=1 if world.taps.sees_outcomes else scenario.records_every,
        users=max(world.sources[name].users for name in services),
    )
    arrivals = world.taps.passing(world.timed(merge(sources, keys)), streams[0].number)
    engine = ENGINES[scenario.engine]()(config, arrivals, merge_clients(sources, keys))
    plane = Plane(len(world.planes), engine, config, services, streams, spec_numbers, accepted)
    world.planes.append(plane)
    world.plane_of.update(dict.fromkeys(accepted, plane.number))


def _or_unlimited(value: int | None) -> int:
    return UNLIMITED if value is None else value


def _ns(seconds: float | None) -> int:
    return NEVER_NS if seconds is None else round(seconds * NS_PER_S)


def _rules(service: Service, segment: str, queue: int) -> StreamRules:
    return StreamRules(
        queue=queue,
        priority=service.priority_of(segment),
        max_attempts=service.max_attempts,
        queue_timeout_ns=_ns(service.queue_timeout_s),
        ttft_ns=_ns(service.slo.ttft_s),
        tpot_ns=_ns(service.slo.tpot_s),
        e2e_ns=_ns(service.slo.e2e_s),
        batcher_queue=_or_unlimited(service.max_waiting_of(segment)),
        backlog=service.workload.is_backlog(),
        late_waits=service.timeout_action_of(segment) == "wait",
    )


def _spec(kind: ReplicaKind, row: int, streams: frozenset[int]) -> ReplicaSpec:
    config = kind.config
    net_ns, max_outstanding = round(kind.front_end_s * NS_PER_S), _or_unlimited(kind.max_outstanding)
    if config.batcher is not None:
        return ReplicaSpec(
            kind=row,
            seats=1,
            token_budget=config.batcher.max_batch,
            kv_tokens=0,
            max_outstanding=max_outstanding,
            streams=streams,
            net_ns=net_ns,
            batcher=Batcher(tuple(config.batcher.preferred_sizes), round(config.batcher.max_delay_s * NS_PER_S)),
        )
    return ReplicaSpec(
        kind=row,
        seats=config.max_num_seqs,
        token_budget=config.max_num_batched_tokens,
        kv_tokens=kind.kv_tokens,
        watermark_tokens=config.watermark_tokens,
        max_model_len=_or_unlimited(kind.max_model_len),
        max_outstanding=max_outstanding,
        streams=streams,
        net_ns=net_ns,
        backlog_seats=_or_unlimited(config.backlog_seats),
    )
