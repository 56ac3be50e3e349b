"""Timelines as Chrome-trace JSON, which Perfetto (ui.perfetto.dev) and chrome://tracing open.

Source of the format: the "Trace Event Format" document of the Chromium project (complete events X, instants i, metadata M). The
process is a deployment; its first threads are the lives of replicas, the others are lanes of requests that do not overlap. Times
are microseconds since the start of the stretch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sim.report.lifelines import Happening, ReplicaStory, RequestLife, Stage
from sim.units import NS_PER_US

Event = dict[str, Any]
FIRST_LANE = 1_000_000
"""Thread numbers below are replicas, from here on lanes of requests."""


def chrome_trace(
    deployment: str,
    replicas: Sequence[ReplicaStory],
    lives: Sequence[RequestLife],
    around: Sequence[Happening],
    from_ns: int,
    until_ns: int,
    start: str,
) -> dict[str, Any]:
    """Return a trace of a stretch of one deployment, ready to be written as JSON.

    Parameters
    ----------
    deployment : name of the process. replicas : whose lives are shown, cut to the stretch. lives : of requests, cut likewise.
    around : instants. from_ns, until_ns : the stretch. start : the calendar instant of time 0.
    """
    events: list[Event] = [_metadata("process_name", deployment)]
    for story in replicas:
        events.append(_metadata("thread_name", f"replica {story.number}", story.number))
        details = {"where": story.where, "nodes": list(story.nodes), "cause": story.cause}
        events += _spans(story.stages, story.number, "replica", details, from_ns, until_ns)
    ordered = sorted(lives, key=lambda life: (life.arrival_ns, life.number))
    lanes = _lanes(ordered)
    for lane in range(max(lanes, default=-1) + 1):
        events.append(_metadata("thread_name", f"requests {lane}", FIRST_LANE + lane))
    for life, lane in zip(ordered, lanes, strict=True):
        events += _request(life, FIRST_LANE + lane, from_ns, until_ns)
    for one in around:
        if from_ns <= one.time_ns <= until_ns:
            instant = {"name": one.what, "cat": "control", "ph": "i", "s": "p", "pid": 1, "tid": 0}
            events.append({**instant, "ts": _us(one.time_ns - from_ns)})
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": {"start": start, "from_ns": from_ns, "until_ns": until_ns}}


def _request(life: RequestLife, lane: int, from_ns: int, until_ns: int) -> Iterable[Event]:
    """The request as a span, with its stages inside it."""
    details = {
        "replica": life.replica,
        "segment": life.segment,
        "prompt_tokens": life.prompt_tokens,
        "output_tokens": life.output_tokens,
        "attempts": life.attempts,
        "preemptions": life.preemptions,
        "outcome": life.outcome,
        **{f"{verdict.name}_us": None if verdict.value_ns is None else _us(verdict.value_ns) for verdict in life.verdicts},
        **{f"{verdict.name}_met": verdict.met for verdict in life.verdicts},
    }
    whole = Stage(f"{life.service} {life.number}", life.arrival_ns, life.leave_ns)
    yield from _spans([whole], lane, "request", details, from_ns, until_ns)
    yield from _spans(life.stages, lane, "stage", {}, from_ns, until_ns)


def _spans(
    stages: Iterable[Stage], thread: int, category: str, details: dict[str, Any], from_ns: int, until_ns: int
) -> Iterable[Event]:
    for stage in stages:
        start_ns, end_ns = max(stage.start_ns, from_ns), min(stage.end_ns, until_ns)
        if start_ns > end_ns or (start_ns == end_ns and stage.length_ns):  # outside, or touching the stretch from outside
            continue
        # What is cut off at the edges of the stretch is still told.
        whole = {"start_ns": stage.start_ns, "end_ns": stage.end_ns, **details}
        yield {
            "name": stage.name, "cat": category, "ph": "X", "pid": 1, "tid": thread,
            "ts": _us(start_ns - from_ns), "dur": _us(end_ns - start_ns), "args": whole,
        }  # fmt: skip


def _lanes(lives: Sequence[RequestLife]) -> list[int]:
    """Give each request the first lane that is free when it arrives, so that nothing in a lane overlaps."""
    free_ns: list[int] = []
    lanes = []
    for life in lives:
        lane = next((number for number, end_ns in enumerate(free_ns) if end_ns <= life.arrival_ns), len(free_ns))
        free_ns[lane : lane + 1] = [life.leave_ns]
        lanes.append(lane)
    return lanes


def _metadata(what: str, name: str, thread: int = 0) -> Event:
    return {"name": what, "ph": "M", "pid": 1, "tid": thread, "args": {"name": name}}


def _us(length_ns: int) -> float:
    return length_ns / NS_PER_US
