"""The life of a request, and of a replica, on the terminal: plain text in a pipe, and names from data as plain text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from sim.report.cells import plain
from sim.report.lifelines import Happening, ReplicaStory, RequestLife, Use, Verdict
from sim.units import NS_PER_S, NS_PER_US, seconds_text

MOST_REQUESTS, MOST_HAPPENINGS = 20, 40


def clock(start: datetime, time_ns: int) -> str:
    """Return a time of a run as a calendar time to the microsecond.

    Examples
    --------
    >>> from sim.units import instant
    >>> clock(instant("2026-01-05"), 3_600_000_000_500)
    '2026-01-05 01:00:00.000000'
    """
    return f"{start + timedelta(microseconds=time_ns // NS_PER_US):%Y-%m-%d %H:%M:%S.%f}"


def show_request(
    life: RequestLife,
    replica: ReplicaStory | None,
    ready_at_arrival: int,
    around: Sequence[Happening],
    start: datetime,
    console: Console,
) -> None:
    """Print a request: who it was, where it went, what took how long, whether it met its targets, what else happened.

    Parameters
    ----------
    replica : the one it was on last. ready_at_arrival : replicas that admitted requests then. around : in order of time.
    start : calendar instant of time 0.
    """
    console.print(_title(f"request {life.number} of {life.service}", f"segment {life.segment}"))
    brought = f"{life.prompt_tokens} prompt tokens, {life.output_tokens} output tokens"
    if life.batched:
        brought = f"{life.prompt_tokens} item" + "s" * (life.prompt_tokens != 1)
    console.print(f"  arrived {clock(start, life.arrival_ns)} UTC: {brought}")
    if replica is None:
        console.print("  was never on a replica")
    else:
        machines = ", ".join(str(node) for node in replica.nodes)
        console.print(plain(f"  replica {replica.number} of {replica.deployment}, on node {machines}: {replica.where}"))
    console.print(f"  {ready_at_arrival} replicas ready when it arrived; attempts {life.attempts}, preemptions {life.preemptions}")
    console.print(_request_stages(life))
    console.print(_targets(life.verdicts[-1:] if life.batched else life.verdicts))  # with a batcher there is one answer: E2E
    _show_happenings(around, life.arrival_ns, console)


def _request_stages(life: RequestLife) -> Table:
    table = _table("stage", "from", "duration", "share")
    if life.net_ns:
        table.add_row("front end and network", "", *_amount(life.net_ns, life.total_ns))
    for stage in life.stages:
        table.add_row(stage.name, _after(stage.start_ns - life.arrival_ns), *_amount(stage.length_ns, life.total_ns))
    outcome = "still in the system" if life.outcome == "unfinished" else life.outcome.replace("_", " ")
    table.add_row(outcome, _after(life.leave_ns - life.arrival_ns), *_amount(life.total_ns, life.total_ns))
    return table


def _targets(verdicts: Iterable[Verdict]) -> Table:
    table = _table("latency", "value", "target", "verdict")
    for verdict in verdicts:
        met = {True: "met", False: "missed", None: "none" if verdict.target_ns is None else "not known yet"}[verdict.met]
        table.add_row(verdict.name.upper(), _seconds(verdict.value_ns), _seconds(verdict.target_ns), met)
    return table


def show_replica(
    story: ReplicaStory,
    from_ns: int,
    until_ns: int,
    use: Sequence[Use],
    lives: Sequence[RequestLife],
    around: Sequence[Happening],
    start: datetime,
    console: Console,
) -> None:
    """Print a replica: the stages of its life, and in a stretch of it how busy it was and which requests were on it.

    Parameters
    ----------
    from_ns, until_ns : the stretch. use : by interval. lives : of the requests that were on it. around : in order of time.
    start : calendar instant of time 0.
    """
    machines = ", ".join(str(node) for node in story.nodes)
    console.print(_title(f"replica {story.number} of {story.deployment}", f"on node {machines}: {story.where}"))
    life = _table("stage", "from", "duration", "share")
    total_ns = story.gone_ns - story.requested_ns
    for stage in story.stages:
        life.add_row(stage.name, _short(start, stage.start_ns), *_amount(stage.length_ns, total_ns))
    life.add_row(story.cause.replace("_", " "), _short(start, story.gone_ns), *_amount(total_ns, total_ns))
    console.print(life)
    console.print(_title(f"from {clock(start, from_ns)} to {clock(start, until_ns)}", f"{len(lives)} requests"))
    console.print(_use(use, start))
    console.print(_requests(lives, from_ns))
    _show_happenings(around, from_ns, console)


def _use(use: Sequence[Use], start: datetime) -> Table:
    table = _table("interval from", "to", "busy", "of it lost")
    for one in use:
        table.add_row(_short(start, one.start_ns), _short(start, one.end_ns), f"{one.busy:.1%}", f"{one.lost:.1%}")
    return table


def _requests(lives: Sequence[RequestLife], from_ns: int) -> RenderableType:
    table = _table("request", "came here", "before", "here", "tokens in/out", "outcome")
    for life in lives[:MOST_REQUESTS]:
        table.add_row(
            f"{life.service} {life.number}",
            _after(life.dispatched_ns - from_ns),
            _seconds(life.dispatched_ns - life.arrival_ns),
            _seconds(life.leave_ns - life.dispatched_ns),
            f"{life.prompt_tokens}/{life.output_tokens}",
            life.outcome.replace("_", " "),
        )
    if len(lives) <= MOST_REQUESTS:
        return table
    return Group(table, Text(f"  {len(lives) - MOST_REQUESTS} more requests; --chrome FILE writes them all"))


def _show_happenings(around: Sequence[Happening], origin_ns: int, console: Console) -> None:
    if not around:
        return
    table = _table("around", "what happened", left=2)
    for one in around[:MOST_HAPPENINGS]:
        table.add_row(_after(one.time_ns - origin_ns), plain(one.what))
    console.print(table)
    if len(around) > MOST_HAPPENINGS:
        console.print(f"  {len(around) - MOST_HAPPENINGS} more")


def _short(start: datetime, time_ns: int) -> str:
    return clock(start, time_ns)[:19]


def _title(what: str, more: str) -> Text:
    return Text.assemble((plain(what), "bold cyan"), f"  {plain(more)}")


def _table(*columns: str, left: int = 1) -> Table:
    table = Table(box=box.SIMPLE)
    for number, name in enumerate(columns):
        table.add_column(name, justify="left" if number < left else "right", overflow="fold")
    return table


def _amount(part_ns: int, total_ns: int) -> tuple[str, str]:
    return _seconds(part_ns), f"{part_ns / total_ns:.1%}" if total_ns else "-"


def _seconds(length_ns: int | None) -> str:
    return "-" if length_ns is None else seconds_text(length_ns / NS_PER_S)


def _after(length_ns: int) -> str:
    sign = "-" if length_ns < 0 else "+"
    return f"{sign}{abs(length_ns) / NS_PER_S:.6f} s"
