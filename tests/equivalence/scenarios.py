"""Random scenarios for engines: a plane, its arrivals, what control does to it, and a player that records everything seen.

Two fifths of the scenarios lie on one lattice (every boundary, arrival, deadline and action at a whole millisecond), because ties
in time are all but invisible elsewhere. Some have replicas that batch, for some or all of the streams, and backlogs that are
submitted at any time.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt
from engine_kit import MS, OFFSET_400_DAYS_NS
from hypothesis import strategies as st
from play import Clients

from sim.dataplane.engine import (
    UNLIMITED,
    Batcher,
    DataPlane,
    Hit,
    PlaneConfig,
    ReplicaSpec,
    ReplicaTotals,
    StreamRules,
    View,
    Watch,
)
from sim.dataplane.layout import ALL_ADMITTED, NEVER_NS
from sim.domain.traffic import NO_DEADLINE, RequestBlock
from sim.perf.steptime import FRACTION_BITS, Context, StepModel, closed_form
from sim.policies.routers import (
    KV_TOKENS,
    OUTSTANDING,
    RESERVED_TOKENS,
    SEATS,
    WAITING,
    WEIGHT,
    LeastKv,
    LeastOutstanding,
    PowerOfTwo,
    Random,
    RoundRobin,
    Router,
)


@dataclass
class Mixed(Router):
    """A score of the user's own."""

    @staticmethod
    def score(f: Sequence[float], p: Sequence[float]) -> float:
        """Rank by requests, and by how full the cache would be."""
        return 0.3 * f[OUTSTANDING] + 0.7 * f[WAITING] + f[RESERVED_TOKENS] / (1.0 + f[KV_TOKENS]) - 0.01 * f[WEIGHT] * f[SEATS]


ROUTERS = (LeastOutstanding, LeastKv, RoundRobin, Random, PowerOfTwo, Mixed)
ADD, DRAIN, KILL, KILL_TWO, VIEW, WATCH, SUBMIT = "add", "drain", "kill", "kill two", "view", "watch", "submit"
THROTTLE, ROUTE = "throttle", "route"
Tables = dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class Action:
    """One thing control does: `choice` picks a spec (add), a living replica (drain, kill), a stream (throttle, route) or a subject
    (watch), modulo how many.

    `level` is of a watch, or the admitted share; the bits of `picks` say which of the specs that take the stream are in a route.
    `rows` are the blocks of a backlog that is submitted to stream `choice`.
    """

    at_ns: int
    kind: str
    choice: int = 0
    reason: Watch = Watch.QUEUE_ABOVE
    level: int = 0
    rows: tuple[RequestBlock, ...] = ()
    picks: int = 0


@dataclass(frozen=True)
class Scenario:
    """A whole run. Times are relative to `plane.start_ns`.

    Parameters
    ----------
    replicas : specs of the replicas added at the start. block_size : arrivals come in blocks of this size.
    rescue : a replica is added when an arrival finds none (the reaction to a watch).
    settle : at the end add a replica of every spec and run until nothing moves; otherwise close in the middle of things.
    """

    plane: PlaneConfig
    arrivals: RequestBlock
    clients: Clients | None
    replicas: tuple[int, ...]
    actions: tuple[Action, ...]
    end_ns: int
    block_size: int
    rescue: bool
    settle: bool

    def starting(self, start_ns: int) -> Scenario:
        """The same scenario at another absolute time."""
        return replace(self, plane=replace(self.plane, start_ns=start_ns))

    def blocks(self, size: int) -> list[RequestBlock]:
        """Arrivals and deadlines at absolute times, cut into blocks."""
        rows, start_ns = self.arrivals, self.plane.start_ns
        deadline_ns = np.where(rows.deadline_ns == NO_DEADLINE, NO_DEADLINE, rows.deadline_ns + start_ns)
        moved = rows.with_columns(arrival_ns=rows.arrival_ns + start_ns, deadline_ns=deadline_ns)
        return [moved.take(slice(at, at + size)) for at in range(0, len(moved), size)]


def _step(rng: random.Random, lattice: bool) -> StepModel:
    power = {"base_w": 200.0, "weights_j": 0.01, "token_j": 0.002, "context_j": 1e-5, "tdp_w": rng.choice([215.0, 300.0, 1e6])}
    if lattice:
        return closed_form(**rng.choice([{"fixed_ns": float(MS)}, {"token_ns": float(MS)}]), **power)
    if rng.random() < 0.3:
        return _tables(rng)
    return closed_form(
        linear_ns=rng.uniform(0, 40_000),
        weights_ns=rng.uniform(0, 500_000),
        overlap=rng.choice([0.0, 0.3, 1.0]),
        attention_ns=rng.choice([0.0, rng.uniform(0, 300)]),
        token_ns=rng.uniform(0, 5_000),
        fixed_ns=rng.uniform(1_000, 900_000),
        sequence_ns=rng.uniform(0, 20_000),
        context_ns=rng.choice([0.0, rng.uniform(0, 900), 0.04]),
        sequence_j=1e-3,
        attention_j=1e-6,
        **power,
    )


def _tables(rng: random.Random) -> StepModel:
    """Tables without any shape, with knots that runs of steps cross."""
    knots = (0, *sorted(rng.sample(range(1, 80), rng.randint(0, 4))))
    tokens, sampled, most = rng.randint(1, 30), rng.randint(1, 12), rng.randint(1, 8)

    def times_fx(size: int, least_ns: int) -> tuple[int, ...]:
        return tuple(rng.randint(least_ns << FRACTION_BITS, 900_000 << FRACTION_BITS) for _ in range(size))

    def piece() -> Context:
        offset_ns, slope_ns = rng.choice([0, -rng.randint(0, 1_500), rng.randint(0, 90_000)]), rng.choice([0, rng.randint(0, 900)])
        return Context(offset_ns << FRACTION_BITS, (slope_ns << FRACTION_BITS) // 7, rng.uniform(0, 0.01), rng.uniform(0, 1e-5))

    return StepModel(
        tokens_fx=times_fx(tokens, 2_000),
        token_fx=rng.randint(0, 9_000 << FRACTION_BITS),
        sampled_fx=(0, *times_fx(sampled - 1, 0)),
        sequence_fx=rng.randint(0, 9_000 << FRACTION_BITS),
        attention_fx=rng.choice([0, rng.randint(0, 90 << FRACTION_BITS)]),
        knots_tokens=knots,
        contexts=tuple(tuple(piece() for _ in knots) for _ in range(most)),
        tokens_j=tuple(rng.uniform(0, 0.1) for _ in range(tokens)),
        token_j=0.002,
        sampled_j=tuple(rng.uniform(0, 0.01) for _ in range(sampled)),
        sequence_j=1e-3,
        attention_j=1e-6,
        tdp_w=rng.choice([215.0, 300.0, 1e6]),
        base_w=200.0,
    )


def _spec(rng: random.Random, kinds: int, streams: int, mixed: bool) -> ReplicaSpec:
    seats = rng.choice([1, 2, 3, 6, 16])
    return ReplicaSpec(
        kind=rng.randrange(kinds),
        seats=seats,
        token_budget=seats + rng.choice([0, 1, 5, 30, 1_000]),
        kv_tokens=rng.choice([40, 60, 90, 150, 10_000]),
        watermark_tokens=rng.choice([1, 1, 4, 20]),
        max_model_len=rng.choice([UNLIMITED, UNLIMITED, 50]),
        backlog_seats=rng.choice([UNLIMITED, UNLIMITED, 0, 1, 3]),
        max_outstanding=rng.choice([1, 2, seats, 2 * seats, UNLIMITED]),
        streams=frozenset(rng.sample(range(streams), rng.randint(1, streams))) if mixed and rng.random() < 0.4 else frozenset(),
        net_ns=rng.choice([0, 0, 12_345]),
        weight=rng.choice([1.0, 2.0]),
    )


def _batcher_step(rng: random.Random, lattice: bool) -> StepModel:
    """By a table of 20 batch sizes, or by the formula."""
    if rng.random() < 0.5:
        return _step(rng, lattice)
    times_ns = [MS * rng.randint(1, 3) if lattice else rng.randint(1_000, 4_000_000) for _ in range(20)]
    times_fx = tuple(time_ns << FRACTION_BITS for time_ns in times_ns)
    return StepModel(tokens_fx=(0, *times_fx), tokens_j=tuple(0.002 * n for n in range(21)), base_w=200.0, tdp_w=300.0)


def _batcher_spec(rng: random.Random, kind: int, streams: frozenset[int], lattice: bool) -> ReplicaSpec:
    most = rng.choice([1, 2, 4, 9, 20])
    preferred = tuple(rng.sample(range(1, most + 1), rng.randint(0, min(most, 2))))
    return ReplicaSpec(
        kind=kind,
        seats=1,
        token_budget=most,
        kv_tokens=0,
        max_outstanding=rng.choice([1, 2, 8, UNLIMITED, UNLIMITED]),
        streams=streams,
        net_ns=rng.choice([0, 12_345]),
        batcher=Batcher(preferred, rng.choice([0, MS, _moment(rng, 6 * MS, lattice)])),
    )


def _moment(rng: random.Random, most_ns: int, lattice: bool) -> int:
    return rng.randint(0, most_ns // MS) * MS if lattice else rng.randint(0, most_ns)


def _rules(rng: random.Random, queues: int, priorities: int, lattice: bool) -> StreamRules:
    return StreamRules(
        queue=rng.randrange(queues),
        priority=rng.randrange(priorities),
        max_attempts=rng.choice([1, 2, 3]),
        queue_timeout_ns=rng.choice([NEVER_NS, NEVER_NS, MS + _moment(rng, 20 * MS, lattice), _moment(rng, 3 * MS, lattice)]),
        ttft_ns=rng.choice([NEVER_NS, 5 * MS, 20 * MS]),
        tpot_ns=rng.choice([NEVER_NS, MS]),
        e2e_ns=rng.choice([NEVER_NS, 15 * MS]),
        backlog=rng.random() < 0.5,
        batcher_queue=rng.choice([UNLIMITED, UNLIMITED, 0, 2]),
        late_waits=rng.random() < 0.3,
    )


def _arrivals(rng: random.Random, requests: int, span_ns: int, streams: int, lattice: bool) -> RequestBlock:
    times = sorted(_moment(rng, span_ns, lattice) for _ in range(requests))
    longest = rng.choice([4, 12, 30])
    deadlines = [t + 1 + _moment(rng, 10 * MS, lattice) if rng.random() < 0.1 else NO_DEADLINE for t in times]
    return RequestBlock.of(
        arrival_ns=times,
        prompt_tokens=[rng.randint(1, rng.choice([3, 30, 50])) for _ in times],
        output_tokens=[rng.randint(1, longest) for _ in times],
        stream=[rng.randrange(streams) for _ in times],
        client=[rng.randrange(5) for _ in times],
        prefix_tokens=[rng.choice([0, 0, 5, 40]) for _ in times],
        prefix=[rng.choice([0, 0, 1]) for _ in times],
        deadline_ns=deadlines,
        tag=[rng.getrandbits(64) for _ in times],
    )


def _for_batchers(rng: random.Random, arrivals: RequestBlock, batched: frozenset[int]) -> RequestBlock:
    """The same arrivals, in which those of some streams are a few items with one answer."""
    here = np.isin(arrivals.stream, sorted(batched))
    items = [rng.choice([1, 1, 2, 3, 9, 21]) for _ in range(len(arrivals))]
    return arrivals.with_columns(
        prompt_tokens=np.where(here, items, arrivals.prompt_tokens), output_tokens=np.where(here, 1, arrivals.output_tokens)
    )


def _submission(rng: random.Random, plane: PlaneConfig, end_ns: int, lattice: bool) -> Action | None:
    """A backlog in a few blocks, whose rows fit everywhere."""
    streams = [stream for stream in plane.backlogs if plane.longest_in_backlog(stream) > 1]
    if not streams:
        return None
    stream, blocks = rng.choice(streams), []
    most = min(plane.longest_in_backlog(stream), 60)
    for _ in range(rng.randint(0, 3)):
        prompts = [rng.randint(1, rng.choice([min(3, most - 1), most - 1])) for _ in range(rng.choice([0, 1, 5, 30]))]
        blocks.append(
            RequestBlock.of(
                arrival_ns=[0] * len(prompts),
                prompt_tokens=prompts,
                output_tokens=[rng.randint(1, most - prompt) for prompt in prompts],
                client=[rng.randrange(5) for _ in prompts],
                prefix_tokens=[rng.choice([0, 0, 5]) for _ in prompts],
                tag=[rng.getrandbits(64) for _ in prompts],
            )
        )
    return Action(_moment(rng, end_ns, lattice), SUBMIT, stream, rows=tuple(blocks))


def _clients(rng: random.Random, stream: int, lattice: bool, batched: bool) -> Clients:
    def row() -> tuple[int, int, int]:
        pause_ns = rng.choice([0, _moment(rng, 5 * MS, lattice)])
        return (pause_ns, rng.randint(1, 4), 1) if batched else (pause_ns, rng.randint(1, 30), rng.randint(1, 12))

    return Clients([[row() for _ in range(rng.randint(0, 6))] for _ in range(rng.randint(1, 4))], stream, rng.choice([1, 2, 5]))


def _action(rng: random.Random, end_ns: int, lattice: bool) -> Action:
    kind = rng.choice([ADD, ADD, DRAIN, DRAIN, KILL, KILL, KILL_TWO, VIEW, VIEW, WATCH, THROTTLE, ROUTE, ROUTE, ROUTE])
    reason = rng.choice(list(Watch)[1:])
    if kind in (THROTTLE, ROUTE):
        level = rng.choice([0, ALL_ADMITTED, rng.randint(0, ALL_ADMITTED), ALL_ADMITTED * 7 // 8])
        return Action(_moment(rng, end_ns, lattice), kind, rng.randrange(1_000), level=level, picks=rng.getrandbits(5))
    return Action(_moment(rng, end_ns, lattice), kind, rng.randrange(1_000), reason, rng.choice([0, 1, 3, 2 * MS]))


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    """A random scenario; its size is drawn by hypothesis (so that a failure shrinks), its details by a seed."""
    lattice = draw(st.sampled_from([False, False, False, True, True]), label="lattice")
    requests = draw(st.integers(0, 120), label="requests")
    actions = draw(st.integers(0, 12), label="actions")
    streams = draw(st.integers(1, 3), label="streams")
    mixed = draw(st.booleans(), label="mixed")
    batched = frozenset(draw(st.sets(st.integers(0, streams - 1)), label="batched")) if draw(st.booleans()) else frozenset()
    submissions = draw(st.integers(0, 3), label="submissions")
    rng = random.Random(draw(st.integers(0, 2**32), label="seed"))
    kinds, queues, priorities = rng.randint(1, 2) if mixed else 1, rng.choice([1, 1, streams]), rng.choice([1, 1, 2, 3])
    span_ns = rng.choice([0, 5, 40, 150]) * MS
    end_ns = max(span_ns, MS) * rng.choice([1, 2])
    specs = tuple(_spec(rng, kinds, streams, mixed) for _ in range(rng.randint(1, 3) if mixed else 1))
    steps = tuple(_step(rng, lattice) for _ in range(kinds))
    if batched:
        others = frozenset(range(streams)) - batched
        specs = tuple(replace(spec, streams=(spec.streams & others) or others) for spec in specs) if others else ()
        specs += tuple(_batcher_spec(rng, kinds, batched, lattice) for _ in range(rng.randint(1, 2) if mixed else 1))
        steps += (_batcher_step(rng, lattice),)
    plane = PlaneConfig(
        steps=steps,
        specs=specs,
        streams=tuple(_rules(rng, queues, priorities, lattice) for _ in range(streams)),
        max_queue=tuple(rng.choice([0, 1, 3, UNLIMITED, UNLIMITED]) for _ in range(queues)),
        router=rng.choice(ROUTERS)(),
        records=1,
        ring_s=rng.choice([0, 1, 3]),
        start_ns=rng.choice([0, OFFSET_400_DAYS_NS]),
        users=3,  # of the five that requests come from
    )
    client_stream = rng.randrange(streams)
    acts = [_action(rng, end_ns, lattice) for _ in range(actions)]
    acts += [act for _ in range(submissions) if (act := _submission(rng, plane, end_ns, lattice)) is not None]
    return Scenario(
        plane=plane,
        arrivals=_for_batchers(rng, _arrivals(rng, requests, span_ns, streams, lattice), batched),
        clients=_clients(rng, client_stream, lattice, client_stream in batched) if rng.random() < 0.3 else None,
        replicas=tuple(rng.randrange(len(specs)) for _ in range(rng.randint(0, 4))),
        actions=tuple(sorted(acts, key=lambda action: action.at_ns)),
        end_ns=end_ns,
        block_size=rng.choice([1, 2, 7, 65_536]),
        rescue=rng.random() < 0.5,
        settle=rng.random() < 0.5,
    )


@dataclass
class Played:
    """Everything a run showed: views in the order of the actions (the last is that of `close`), hits, records, accounts."""

    start_ns: int
    views: list[View]
    hits: list[Hit]
    records: dict[str, npt.NDArray[np.int64]]
    retired: list[ReplicaTotals]
    histograms: npt.NDArray[np.int64]
    client_done_ns: npt.NDArray[np.int64]

    def tables(self) -> Tables:
        """All of it as arrays by name, times relative to the start."""
        start_ns, tables = self.start_ns, {"histograms": self.histograms}
        tables["client_done_ns"] = np.where(self.client_done_ns >= 0, self.client_done_ns - start_ns, -1)
        for name, column in self.records.items():
            at = name.endswith("_ns") and name != "net_ns"
            tables[f"records.{name}"] = np.where(column >= 0, column - start_ns, -1) if at else column
        for number, view in enumerate(self.views):
            for field in fields(view):
                value = getattr(view, field.name)
                tables[f"view {number}.{field.name}"] = np.asarray(value - start_ns if field.name == "time_ns" else value)
        tables["hits"] = np.array([(hit.time_ns - start_ns, int(hit.reason), hit.subject) for hit in self.hits], np.int64)
        for totals in self.retired:
            for field in fields(totals):
                value = getattr(totals, field.name)
                at = field.name in ("added_ns", "drain_ns", "removed_ns")
                value = -1 if value is None else value - start_ns if at else value
                tables[f"replica {totals.replica}.{field.name}"] = np.asarray(value)
        return tables


class Player:
    """Control for one run of a scenario.

    Parameters
    ----------
    looks : extra times, relative to the start, at which the plane is advanced to and looked at.
    at_event : called with the plane after every instant in which something happened.
    """

    def __init__(
        self,
        engine: type[DataPlane],
        scenario: Scenario,
        looks: Sequence[int] = (),
        at_event: Callable[[DataPlane], None] | None = None,
        block_size: int | None = None,
    ) -> None:
        self.scenario, self.looks, self.at_event = scenario, sorted(looks), at_event
        self.start_ns = scenario.plane.start_ns
        self.plane = engine(scenario.plane, scenario.blocks(block_size or scenario.block_size), scenario.clients)
        self.living: list[int] = []
        self.hits: list[Hit] = []
        self.views: list[View] = []
        self.retired: list[ReplicaTotals] = []

    def play(self) -> Played:
        """Run the scenario to its end."""
        scenario, plane = self.scenario, self.plane
        if scenario.rescue:
            plane.watch(self.start_ns, Watch.ARRIVAL_WITHOUT_CAPACITY, 0)
        for spec in scenario.replicas:
            self._add(spec)
        for action in scenario.actions:
            self._to(self.start_ns + action.at_ns)
            self._act(action)
            self._to(self.start_ns + action.at_ns)
        self._to(self.start_ns + scenario.end_ns)
        if scenario.settle:
            self._settle()
        self.views.append(plane.close(plane.now_ns))
        records = plane.take_records()
        order = np.lexsort((np.arange(len(records["request"])), records["request"]))
        records = {name: column[order] for name, column in records.items()}
        retired = self.retired + plane.take_retired()
        return Played(self.start_ns, self.views, self.hits, records, retired, plane.histograms(), plane.client_done_ns())

    def _settle(self) -> None:
        for spec in range(len(self.scenario.plane.specs)):
            self._add(spec)
        self._to(self.plane.now_ns)
        while (t_ns := self.plane.peek_ns()) < NEVER_NS:
            self._to(t_ns)

    def _add(self, spec: int) -> None:
        self.living.append(self.plane.add_replica(self.plane.now_ns, spec))

    def _act(self, action: Action) -> None:
        plane, t_ns, living, scenario = self.plane, self.plane.now_ns, self.living, self.scenario
        if action.kind == ADD:
            self._add(action.choice % len(scenario.plane.specs))
        elif action.kind == SUBMIT:
            plane.submit(t_ns, action.choice, action.rows)
        elif action.kind == THROTTLE:
            plane.throttle(t_ns, action.choice % len(scenario.plane.streams), action.level)
        elif action.kind == ROUTE:
            stream = action.choice % len(scenario.plane.streams)
            takers = sorted(scenario.plane.takers(stream))
            if takers:
                plane.route(t_ns, stream, [spec for place, spec in enumerate(takers) if action.picks >> place & 1] or takers[:1])
        elif action.kind == VIEW:
            self.views.append(plane.view(t_ns))
            self.retired += plane.take_retired()
        elif action.kind == WATCH and action.reason is not Watch.IDLE_SINCE:
            of_queue = action.reason is not Watch.BACKLOG_EMPTY
            subjects = len(scenario.plane.max_queue if of_queue else scenario.plane.streams)
            plane.watch(t_ns, action.reason, action.choice % subjects, action.level)
        elif living and action.kind == WATCH:
            plane.watch(t_ns, Watch.IDLE_SINCE, living[action.choice % len(living)], action.level)
        elif living and action.kind == DRAIN:
            plane.drain_replica(t_ns, living[action.choice % len(living)])
        elif living and action.kind in (KILL, KILL_TWO):
            first = action.choice % len(living)
            dead = living[first : first + (2 if action.kind == KILL_TWO else 1)]
            plane.kill_replica(t_ns, *dead)
            self.living = [replica for replica in living if replica not in dead]

    def _to(self, t_ns: int) -> None:
        while self.looks and self.start_ns + self.looks[0] <= t_ns:
            look_ns = self.start_ns + self.looks.pop(0)
            if look_ns >= self.plane.now_ns:
                self._advance(look_ns)
                self.plane.view(look_ns)
        self._advance(t_ns)

    def _advance(self, t_ns: int) -> None:
        while True:
            stop_ns = t_ns if self.at_event is None else min(t_ns, self.plane.peek_ns())
            hit = self.plane.advance(stop_ns)
            if hit is not None:
                self._react(hit)
            if self.at_event is not None:
                self.at_event(self.plane)
            if hit is None and stop_ns == t_ns:
                return

    def _react(self, hit: Hit) -> None:
        """Data first, then control: everything at the time of the hit happens before a replica is added."""
        rescue = False
        while hit is not None:
            self.hits.append(hit)
            if hit.reason is Watch.DRAINED:
                self.living.remove(hit.subject)
            rescue |= hit.reason is Watch.ARRIVAL_WITHOUT_CAPACITY
            hit = self.plane.advance(hit.time_ns)  # type: ignore[assignment]
        if rescue:
            self._add(0)


def differences(one: Tables, other: Tables, relative: float = 1e-9) -> list[str]:
    """Names of tables that are not equal: integers exactly, floats to a relative error (and 1e-6 ns or J near zero)."""
    different = sorted(set(one) ^ set(other))
    for name in sorted(set(one) & set(other)):
        a, b = one[name], other[name]
        exact = a.dtype.kind != "f"
        if a.shape != b.shape or a.dtype != b.dtype or not (np.array_equal(a, b) if exact else np.allclose(a, b, relative, 1e-6)):
            different.append(name)
    return different
