"""What one request and one replica went through, stage by stage, from the tables of a run and the records of requests."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.errors import InputError, Problem
from sim.results.records import RunResult
from sim.units import NS_PER_MINUTE, NS_PER_S

Columns = Mapping[str, npt.NDArray[Any]]
NEVER = -1
# How long before a request's arrival something still counts as having happened around it.
AROUND_NS = 5 * NS_PER_MINUTE
COMPLETED, UNFINISHED = "completed", "unfinished"


@dataclass(frozen=True)
class Stage:
    """A stretch of a life with a name."""

    name: str
    start_ns: int
    end_ns: int

    @property
    def length_ns(self) -> int:
        """How long it took."""
        return self.end_ns - self.start_ns


@dataclass(frozen=True)
class Happening:
    """Something that happened at a time, and to whom."""

    time_ns: int
    what: str


@dataclass(frozen=True)
class Verdict:
    """A latency beside its target, both None where there is none; `met` is None where nothing can be said."""

    name: str
    value_ns: int | None
    target_ns: int | None
    met: bool | None


@dataclass(frozen=True)
class RequestLife:
    """A request from its arrival to its leaving.

    Parameters
    ----------
    number, service, segment, prompt_tokens, output_tokens, attempts, preemptions, outcome, net_ns : from its record.
    replica : its last one, or None. batched : it went through a dynamic batcher, and brought items, not tokens.
    stages : from arrival to leaving without a gap; `net_ns` comes beside them.
    verdicts : TTFT, TPOT and E2E.
    """

    number: int
    service: str
    segment: str
    prompt_tokens: int
    output_tokens: int
    attempts: int
    preemptions: int
    outcome: str
    net_ns: int
    replica: int | None
    dispatched_ns: int
    batched: bool
    stages: tuple[Stage, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def arrival_ns(self) -> int:
        """When it arrived."""
        return self.stages[0].start_ns

    @property
    def leave_ns(self) -> int:
        """When it left, or how far it was followed."""
        return self.stages[-1].end_ns

    @property
    def total_ns(self) -> int:
        """End to end, the front end included."""
        return self.leave_ns - self.arrival_ns + self.net_ns


@dataclass(frozen=True)
class ReplicaStory:
    """A replica from when it was asked for to its end.

    Parameters
    ----------
    number, deployment, cause, accelerators : from its row. nodes : numbers of its machines.
    where : instance type, purchase option, pool and zone of the first of them. stages : of its life, without a gap.
    """

    number: int
    deployment: str
    cause: str
    accelerators: int
    nodes: tuple[int, ...]
    where: str
    stages: tuple[Stage, ...]

    @property
    def requested_ns(self) -> int:
        """When it was asked for."""
        return self.stages[0].start_ns

    @property
    def gone_ns(self) -> int:
        """When it was gone."""
        return self.stages[-1].end_ns


@dataclass(frozen=True)
class Use:
    """How a replica spent an interval: shares of it in work and of its work in what was thrown away."""

    start_ns: int
    end_ns: int
    busy: float
    lost: float


def request_lives(requests: Columns, scenario: Mapping[str, Any]) -> list[RequestLife]:
    """Return the lives of requests by their records, in the order of the records.

    Parameters
    ----------
    requests : columns of the table `requests`. scenario : as in a manifest; its targets judge them.
    """
    services = scenario["services"]
    batched = {
        name
        for name, service in services.items()
        if any(scenario["deployments"][of].get("batcher") for of in service["deployments"])
    }
    rows = zip(*(values.tolist() for values in requests.values()), strict=True)
    lives = [dict(zip(requests, row, strict=True)) for row in rows]
    return [_request_life(row, services[row["service"]]["slo"], row["service"] in batched) for row in lives]


def _request_life(row: Mapping[str, Any], slo: Mapping[str, Any], batched: bool) -> RequestLife:
    return RequestLife(
        number=row["request"],
        service=row["service"],
        segment=row["segment"],
        prompt_tokens=row["prompt_tokens"],
        output_tokens=row["output_tokens"],
        attempts=row["attempts"],
        preemptions=row["preemptions"],
        outcome=row["outcome"],
        net_ns=row["net_ns"],
        replica=None if row["replica"] == NEVER else row["replica"],
        dispatched_ns=row["dispatched_ns"],
        batched=batched,
        stages=_request_stages(row, "in its batch" if batched else "prefill"),
        verdicts=_verdicts(row, slo),
    )


def _request_stages(row: Mapping[str, Any], work: str) -> tuple[Stage, ...]:
    """The stages between the times of a record; it knows the last dispatch and the last admission. `work` is what follows."""
    arrival_ns, leave_ns = row["arrival_ns"], row["leave_ns"]
    dispatched_ns, admitted_ns, first_ns = row["dispatched_ns"], row["admitted_ns"], row["first_token_ns"]
    before = "in the service queue" if row["attempts"] == 1 else f"{row['attempts'] - 1} lost attempts, and waiting"
    waiting = "waiting at the replica" if not row["preemptions"] else "waiting at the replica, preemptions included"
    if dispatched_ns == NEVER:
        ends = [(before, leave_ns)]
    elif NEVER < first_ns < dispatched_ns:  # preempted after its first token, and moved while it waited
        ends = [("on another replica before", dispatched_ns), (waiting, admitted_ns), ("prefill again and decoding", leave_ns)]
    elif admitted_ns < dispatched_ns:  # its admission, if any, was on a replica before this one
        ends = [(before, dispatched_ns), (waiting, leave_ns)]
    elif first_ns == NEVER:
        ends = [(before, dispatched_ns), (waiting, admitted_ns), (work, leave_ns)]
    elif admitted_ns <= first_ns:
        ends = [(before, dispatched_ns), (waiting, admitted_ns), (work, first_ns), ("decoding", leave_ns)]
    else:
        # Preempted after its first token: it lost its cache, waited again, and computed it anew.
        ends = [
            (before, dispatched_ns),
            ("waiting at the replica and prefill", first_ns),
            ("decoding, preempted, waiting again", admitted_ns),
            ("prefill again and decoding", leave_ns),
        ]
    return _one_after_the_other(arrival_ns, ends)


def _one_after_the_other(start_ns: int, ends: list[tuple[str, int]]) -> tuple[Stage, ...]:
    """Stages by their ends; one that takes no time is left out, unless it is the only one."""
    stages = []
    for name, end_ns in ends:
        if end_ns > start_ns:
            stages.append(Stage(name, start_ns, end_ns))
            start_ns = end_ns
    return tuple(stages) or (Stage(ends[-1][0], start_ns, start_ns),)


def _verdicts(row: Mapping[str, Any], slo: Mapping[str, Any]) -> tuple[Verdict, ...]:
    """As the engines judge: a request that left without completing has missed every target, one token has no TPOT to miss."""
    done = row["outcome"] == COMPLETED
    ttft_ns = None if row["first_token_ns"] == NEVER else row["first_token_ns"] - row["arrival_ns"] + row["net_ns"]
    e2e_ns = row["leave_ns"] - row["arrival_ns"] + row["net_ns"] if done else None
    tpot_ns = None
    if done and row["output_tokens"] > 1:
        tpot_ns = (row["leave_ns"] - row["first_token_ns"]) // (row["output_tokens"] - 1)
    found = []
    for name, value_ns in (("ttft", ttft_ns), ("tpot", tpot_ns), ("e2e", e2e_ns)):
        target_ns = None if slo[f"{name}_s"] is None else round(slo[f"{name}_s"] * NS_PER_S)
        met = None
        if target_ns is not None and row["outcome"] != UNFINISHED:
            met = done and (value_ns is None or value_ns <= target_ns)
        found.append(Verdict(name, value_ns, target_ns, met))
    return tuple(found)


def replica_story(result: RunResult, number: int) -> ReplicaStory:
    """Return the life of a replica.

    Raises
    ------
    InputError : the run had no such replica.
    """
    replicas, nodes = result.table("replicas"), result.table("nodes")
    [found] = np.nonzero(replicas["replica"] == number)
    if not len(found):
        count = len(replicas["replica"])
        raise InputError([Problem("--replica", number, "the run had no such replica", f"0 to {count - 1}" if count else "none")])
    row = {name: values[found[0]] for name, values in replicas.items()}
    gang = [int(node) for node in str(row["gang"]).split(",")]
    machines = np.isin(nodes["node"], gang)
    gone_ns = int(row["gone_ns"])

    def reached(name: str) -> int:
        times = nodes[name][machines]
        return gone_ns if (times == NEVER).any() else int(times.max())

    def own(name: str) -> int:
        return gone_ns if row[name] == NEVER else int(row[name])

    ends = [
        ("waiting for a machine", reached("requested_ns")),
        ("pending", reached("running_ns")),
        ("booting", reached("booted_ns")),
        ("pulling", reached("pulled_ns")),
        ("loading", own("loaded_ns")),
        ("warming", own("ready_ns")),
        ("ready", own("drain_ns")),
        ("draining", gone_ns),
    ]
    first = int(np.flatnonzero(nodes["node"] == gang[0])[0])
    where = " ".join(str(nodes[name][first]) for name in ("instance", "purchase", "pool", "zone"))
    return ReplicaStory(
        number=number,
        deployment=str(row["deployment"]),
        cause=str(row["cause"]),
        accelerators=int(row["accelerators"]),
        nodes=tuple(gang),
        where=where,
        stages=_one_after_the_other(int(row["requested_ns"]), [(name, min(end_ns, gone_ns)) for name, end_ns in ends]),
    )


def replica_use(result: RunResult, number: int, from_ns: int, until_ns: int) -> list[Use]:
    """Return how busy a replica was, from READY on, in each interval between two cuts of time that touches a stretch."""
    rows = result.sql(
        f"SELECT end_ns, max(ready_ns + draining_ns) AS up_ns, max(busy_ns) AS busy_ns, max(lost_ns) AS lost_ns FROM usage "
        f"WHERE replica = {number} AND end_ns > {from_ns} AND end_ns - ready_ns - draining_ns < {until_ns} "
        f"AND ready_ns + draining_ns > 0 GROUP BY end_ns ORDER BY end_ns"
    )
    columns = (rows[name].tolist() for name in ("end_ns", "up_ns", "busy_ns", "lost_ns"))
    return [
        Use(end_ns - up_ns, end_ns, busy_ns / up_ns, lost_ns / busy_ns if busy_ns else 0.0)
        for end_ns, up_ns, busy_ns, lost_ns in zip(*columns, strict=True)
    ]


def happenings(
    result: RunResult, from_ns: int, until_ns: int, deployments: Collection[str], subjects: Collection[str] | None = None
) -> list[Happening]:
    """Return the decisions of controllers and the events of machines and replicas in a stretch, in order.

    Parameters
    ----------
    deployments : whose decisions. subjects : of events, such as "node 3"; None for all.
    """
    between = f"WHERE time_ns BETWEEN {from_ns} AND {until_ns}"
    decisions = result.sql(f"SELECT * FROM decisions {between} ORDER BY time_ns, deployment")
    events = result.sql(f"SELECT * FROM events {between} ORDER BY time_ns, number")
    found = [
        Happening(time_ns, f"{policy} of {deployment}: {before} -> {after} replicas ({reason})")
        for time_ns, deployment, policy, before, after, reason in zip(
            *(decisions[name].tolist() for name in ("time_ns", "deployment", "policy", "before", "after", "reason")), strict=True
        )
        if deployment in deployments
    ]
    found += [
        Happening(time_ns, " ".join(filter(None, (kind.replace("_", " "), subject, detail))))
        for time_ns, kind, subject, detail in zip(
            *(events[name].tolist() for name in ("time_ns", "kind", "subject", "detail")), strict=True
        )
        if subjects is None or subject in subjects
    ]
    return sorted(found, key=lambda happening: happening.time_ns)


def boots_under_way(result: RunResult, from_ns: int, until_ns: int, deployments: Collection[str]) -> list[Happening]:
    """Return the replicas that were asked for before or in a stretch and not ready when it began, with when they were."""
    rows = result.sql(
        f"SELECT deployment, replica, requested_ns, ready_ns FROM replicas WHERE requested_ns <= {until_ns} "
        f"AND gone_ns >= {from_ns} AND (ready_ns = {NEVER} OR ready_ns > {from_ns}) ORDER BY requested_ns, replica"
    )
    return [
        Happening(
            requested_ns,
            f"replica {replica} of {deployment} asked for, "
            + ("never ready" if ready_ns == NEVER else f"ready {(ready_ns - requested_ns) / NS_PER_S:.0f} s later"),
        )
        for deployment, replica, requested_ns, ready_ns in zip(*(values.tolist() for values in rows.values()), strict=True)
        if deployment in deployments
    ]


def ready_replicas(result: RunResult, at_ns: int, deployments: Collection[str]) -> int:
    """Return how many replicas of some deployments admitted requests at a time."""
    rows = result.table("replicas")
    ended = np.where(rows["drain_ns"] == NEVER, rows["gone_ns"], rows["drain_ns"])
    up = (rows["ready_ns"] != NEVER) & (rows["ready_ns"] <= at_ns) & (at_ns < ended)
    return int((up & np.isin(rows["deployment"], list(deployments))).sum())
