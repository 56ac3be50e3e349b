"""`billcast trace`: one request or one replica of a saved run, replayed and shown as a timeline."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from sim.control.loop import Progress
from sim.errors import InputError, Problem, Problems
from sim.report.chrome_trace import chrome_trace
from sim.report.lifelines import (
    AROUND_NS,
    ReplicaStory,
    boots_under_way,
    happenings,
    ready_replicas,
    replica_story,
    replica_use,
    request_lives,
)
from sim.report.timeline import show_replica, show_request
from sim.results.records import RunResult
from sim.studies.replay import replay_replica, replay_request
from sim.units import NS_PER_US, duration_ns, instant


@dataclass(frozen=True)
class Wish:
    """What is to be traced: a request of a service, or a replica from one time to another; `chrome` is a file, or None.

    Times are durations since the start of the run, or calendar instants.
    """

    request: int | None = None
    service: str | None = None
    replica: int | None = None
    from_time: str | None = None
    until_time: str | None = None
    chrome: str | None = None


def check_wish(wish: Wish) -> None:
    """Check what can be known without the run.

    Raises
    ------
    InputError : everything that is wrong.
    """
    problems = Problems()
    both = wish.request is not None and wish.replica is not None
    problems.check(not both, "--request", wish.request, "comes beside --replica", "one of them")
    if wish.request is None and wish.replica is None:
        problems.add("trace", "", "names nothing to trace", "--request N or --replica R")
    if wish.replica is None:
        for name, given in (("--from", wish.from_time), ("--until", wish.until_time)):
            problems.check(given is None, name, given, "is for a replica: a request is followed from its arrival to its end")
    problems.check(wish.service is None or wish.request is not None, "--service", wish.service, "is for a request")
    if wish.chrome is not None:
        folder = Path(wish.chrome).absolute().parent
        problems.check(folder.is_dir(), "--chrome", wish.chrome, "cannot be written: there is no such folder", "a new file")
        problems.check(not Path(wish.chrome).is_dir(), "--chrome", wish.chrome, "is a folder", "a new file")
    problems.raise_if_any()


@dataclass(frozen=True)
class Traced:
    """What was found: how to print it, and the Chrome trace of it."""

    show: Callable[[Console], None]
    chrome: dict[str, Any]


def trace(result: RunResult, wish: Wish, progress: Callable[[Progress], None] | None = None) -> Traced:
    """Replay what is wished for.

    Raises
    ------
    InputError : no such request or replica, or an empty stretch. RunError : the replay does not reproduce the run.
    """
    return _request(result, wish, progress) if wish.request is not None else _replica(result, wish, progress)


def write_chrome(chrome: dict[str, Any], file: Path) -> None:
    """Write a Chrome trace, whole or not at all."""
    partial = file.with_name(f".{file.name}.partial-{os.getpid()}")
    partial.write_text(json.dumps(chrome, indent=1) + "\n", "utf-8")
    partial.replace(file)


def _request(result: RunResult, wish: Wish, progress: Callable[[Progress], None] | None) -> Traced:
    assert wish.request is not None
    scenario = result.manifest["scenario"]
    replay = replay_request(result, wish.request, wish.service, progress)
    [life] = request_lives(replay.requests, scenario)
    deployments = scenario["services"][life.service]["deployments"]
    from_ns = max(life.arrival_ns - AROUND_NS, 0)
    seen = happenings(result, from_ns, life.leave_ns, deployments)
    booting = boots_under_way(result, life.arrival_ns, life.leave_ns, deployments)
    around = sorted(seen + booting, key=lambda one: one.time_ns)
    story = None if life.replica is None else replica_story(result, life.replica)
    ready = ready_replicas(result, life.arrival_ns, deployments)
    name, stories = (life.service, []) if story is None else (story.deployment, [story])
    return Traced(
        lambda console: show_request(life, story, ready, around, instant(scenario["start"]), console),
        chrome_trace(name, stories, [life], around, from_ns, life.leave_ns, scenario["start"]),
    )


def _replica(result: RunResult, wish: Wish, progress: Callable[[Progress], None] | None) -> Traced:
    assert wish.replica is not None
    scenario = result.manifest["scenario"]
    story = replica_story(result, wish.replica)
    from_ns, until_ns = _stretch(story, wish, scenario["start"])
    replay = replay_replica(result, wish.replica, from_ns, until_ns, progress)
    lives = sorted(request_lives(replay.requests, scenario), key=lambda life: (life.dispatched_ns, life.number))
    subjects = [f"replica {story.number}", *(f"node {node}" for node in story.nodes)]
    around = happenings(result, from_ns, until_ns, [story.deployment], subjects)
    use = replica_use(result, wish.replica, from_ns, until_ns)
    return Traced(
        lambda console: show_replica(story, from_ns, until_ns, use, lives, around, instant(scenario["start"]), console),
        chrome_trace(story.deployment, [story], lives, around, from_ns, until_ns, scenario["start"]),
    )


def _stretch(story: ReplicaStory, wish: Wish, start: str) -> tuple[int, int]:
    """The stretch asked for, inside the life of the replica."""
    problems = Problems()
    from_ns = _time_ns("--from", wish.from_time, start, story.requested_ns, problems)
    until_ns = _time_ns("--until", wish.until_time, start, story.gone_ns, problems)
    problems.raise_if_any()
    from_ns, until_ns = max(from_ns, story.requested_ns), min(until_ns, story.gone_ns)
    if until_ns < from_ns:
        lived = f"{story.requested_ns / 1e9:.0f}s to {story.gone_ns / 1e9:.0f}s since the start"
        given = f"{wish.from_time or ''} to {wish.until_time or ''}"
        raise InputError([Problem("--from", given, f"replica {story.number} was not there then", lived)])
    return from_ns, until_ns


def _time_ns(path: str, text: str | None, start: str, default_ns: int, problems: Problems) -> int:
    """Read a duration since the start or a calendar instant."""
    if text is None:
        return default_ns
    try:
        return duration_ns(text)
    except ValueError:
        pass
    try:
        since = instant(text) - instant(start)
    except (ValueError, OverflowError):
        problems.add(path, text, "is no time", "a duration since the start such as 2h30m, or an instant such as 2026-09-18T14:30")
        return default_ns
    return (since.days * 86_400_000_000 + since.seconds * 1_000_000 + since.microseconds) * NS_PER_US
