"""Timelines from rows worked by hand, and the Chrome trace they are drawn as."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from chrome_kit import check_chrome_schema
from rich.console import Console

from sim.report.chrome_trace import FIRST_LANE, chrome_trace
from sim.report.lifelines import Happening, ReplicaStory, RequestLife, Stage, Use, request_lives
from sim.report.timeline import show_replica, show_request
from sim.units import NS_PER_S, instant

MS = 1_000_000
SLO = {"ttft_s": 0.5, "tpot_s": 0.02, "e2e_s": None}
SCENARIO = {
    "services": {"chat": {"slo": SLO, "deployments": ["llm"]}, "vision": {"slo": SLO, "deployments": ["classifier"]}},
    "deployments": {"llm": {"batcher": None}, "classifier": {"batcher": {"max_batch": 8}}},
}
START = "2026-01-05T00:00:00Z"


def life(**changes: Any) -> RequestLife:
    """Arrives at 100 ms, dispatched at 200, admitted at 250, first token at 400, done at 1,000: 31 tokens."""
    row: dict[str, Any] = {
        "plane": 0, "request": 7, "stream": 0, "service": "chat", "segment": "all", "client": 0, "session": 0, "turn": 0,
        "arrival_ns": 100 * MS, "first_token_ns": 400 * MS, "leave_ns": 1_000 * MS, "net_ns": 40 * MS, "prompt_tokens": 300,
        "output_tokens": 31, "attempts": 1, "preemptions": 0, "replica": 2, "outcome": "completed", "dispatched_ns": 200 * MS,
        "admitted_ns": 250 * MS,
    }  # fmt: skip
    columns = {name: np.array([value]) for name, value in {**row, **changes}.items()}
    return request_lives(columns, SCENARIO)[0]


def stages(found: RequestLife) -> list[tuple[str, int, int]]:
    return [(stage.name, stage.start_ns // MS, stage.end_ns // MS) for stage in found.stages]


def test_an_ordinary_request() -> None:
    found = life()
    assert stages(found) == [
        ("in the service queue", 100, 200), ("waiting at the replica", 200, 250), ("prefill", 250, 400), ("decoding", 400, 1_000)
    ]  # fmt: skip
    # TTFT 300 + 40 ms; TPOT 600 ms over 30 tokens is 20 ms, the target itself; E2E 900 + 40 ms.
    verdicts = [(verdict.name, verdict.value_ns, verdict.target_ns, verdict.met) for verdict in found.verdicts]
    assert verdicts == [
        ("ttft", 340 * MS, 500 * MS, True), ("tpot", 20 * MS, 20 * MS, True), ("e2e", 940 * MS, None, None)
    ]  # fmt: skip
    assert found.total_ns == 940 * MS


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"dispatched_ns": 100 * MS, "admitted_ns": 100 * MS}, [("prefill", 100, 400), ("decoding", 400, 1_000)]),
        ({"dispatched_ns": -1, "admitted_ns": -1, "first_token_ns": -1, "replica": -1, "outcome": "abandoned"},
         [("in the service queue", 100, 1_000)]),
        ({"admitted_ns": -1, "first_token_ns": -1, "outcome": "unfinished"},
         [("in the service queue", 100, 200), ("waiting at the replica", 200, 1_000)]),
        ({"first_token_ns": -1, "outcome": "failed", "attempts": 3},
         [("2 lost attempts, and waiting", 100, 200), ("waiting at the replica", 200, 250), ("prefill", 250, 1_000)]),
        # Killed after an admission at 150, and waiting at its next replica.
        ({"admitted_ns": 150 * MS, "first_token_ns": -1, "attempts": 2, "outcome": "unfinished"},
         [("1 lost attempts, and waiting", 100, 200), ("waiting at the replica", 200, 1_000)]),
        ({"admitted_ns": 700 * MS, "preemptions": 1},
         [("in the service queue", 100, 200), ("waiting at the replica and prefill", 200, 400),
          ("decoding, preempted, waiting again", 400, 700), ("prefill again and decoding", 700, 1_000)]),
        # Preempted after its first token and moved to another replica, which drained.
        ({"first_token_ns": 150 * MS, "preemptions": 1},
         [("on another replica before", 100, 200), ("waiting at the replica, preemptions included", 200, 250),
          ("prefill again and decoding", 250, 1_000)]),
        ({"dispatched_ns": -1, "admitted_ns": -1, "first_token_ns": -1, "leave_ns": 100 * MS, "outcome": "too_long", "replica": -1},
         [("in the service queue", 100, 100)]),
    ],
)  # fmt: skip
def test_stages_say_what_a_record_knows(changes: dict[str, Any], expected: list[tuple[str, int, int]]) -> None:
    assert stages(life(**changes)) == expected


def test_verdicts_judge_as_the_engines_do() -> None:
    assert [verdict.met for verdict in life(output_tokens=1).verdicts] == [True, True, None]  # one token has no TPOT to miss
    assert [verdict.met for verdict in life(leave_ns=1_000 * MS + 30).verdicts] == [True, False, None]  # 1 ns a token too slow
    assert [verdict.met for verdict in life(leave_ns=1_000 * MS + 29).verdicts] == [True, True, None]
    assert [verdict.met for verdict in life(first_token_ns=560 * MS).verdicts] == [True, True, None]
    assert [verdict.met for verdict in life(first_token_ns=560 * MS + 1).verdicts] == [False, True, None]
    assert [verdict.met for verdict in life(outcome="failed").verdicts] == [False, False, None]
    assert [verdict.met for verdict in life(outcome="unfinished").verdicts] == [None, None, None]


def test_a_request_of_a_batcher_is_in_a_batch_and_brings_items() -> None:
    found = life(service="vision", first_token_ns=1_000 * MS, output_tokens=1, prompt_tokens=3)
    assert stages(found)[-2:] == [("waiting at the replica", 200, 250), ("in its batch", 250, 1_000)]
    console = Console(width=80)
    with console.capture() as captured:
        show_request(found, None, 1, [], instant(START), console)
    shown = captured.get()
    assert "UTC: 3 items\n" in shown
    assert "E2E" in shown
    assert "TTFT" not in shown


STORY = ReplicaStory(2, "llama", "crashed", 1, (5,), "p5 spot pool zone-a", (
    Stage("booting", 0, 50 * MS), Stage("ready", 50 * MS, 900 * MS), Stage("draining", 900 * MS, 2_000 * MS)
))  # fmt: skip
AROUND = [Happening(300 * MS, "hpa of llama: 1 -> 2 replicas (queue)")]


def test_the_terminal_shows_what_was_found() -> None:
    console = Console(width=80, record=True, file=None, force_terminal=False, quiet=False)
    with console.capture() as captured:
        show_request(life(), STORY, 3, AROUND, instant(START), console)
        show_request(life(dispatched_ns=-1, outcome="abandoned"), None, 0, [], instant(START), console)
        show_replica(STORY, 0, NS_PER_S, [Use(0, NS_PER_S, 0.5, 0.25)], [life()] * 25, AROUND, instant(START), console)
    text = captured.get()
    for part in (
        "request 7 of chat", "2026-01-05 00:00:00.100000 UTC", "3 replicas ready", "p5 spot pool zone-a", "front end and network",
        "63.8%", "20 ms", "met", "+0.200000 s   hpa of llama: 1 -> 2", "was never on a replica", "abandoned", "missed",
        "replica 2 of llama", "draining", "50.0%", "25.0%", "5 more requests; --chrome FILE",
    ):  # fmt: skip
        assert part in text, part
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80


def test_the_chrome_trace_follows_its_format_and_is_cut_to_the_stretch() -> None:
    later = life(request=8, arrival_ns=600 * MS, dispatched_ns=600 * MS, admitted_ns=600 * MS, first_token_ns=700 * MS)
    third = life(request=9, arrival_ns=1_000 * MS, dispatched_ns=1_000 * MS, admitted_ns=1_000 * MS,
                 first_token_ns=1_100 * MS, leave_ns=1_300 * MS)  # fmt: skip
    trace = json.loads(json.dumps(chrome_trace("llama", [STORY], [third, later, life()], AROUND, 200 * MS, 1_200 * MS, START)))
    check_chrome_schema(trace)
    events = trace["traceEvents"]
    requests = {event["name"]: event for event in events if event.get("cat") == "request"}
    assert {name: (event["tid"] - FIRST_LANE, event["ts"], event["dur"]) for name, event in requests.items()} == {
        "chat 7": (0, 0.0, 800_000.0),  # from 100 ms, cut at 200
        "chat 8": (1, 400_000.0, 400_000.0),  # 7 is still in lane 0
        "chat 9": (0, 800_000.0, 200_000.0),  # cut at 1,200; lane 0 is free again
    }
    assert requests["chat 7"]["args"]["start_ns"] == 100 * MS
    assert requests["chat 7"]["args"]["ttft_us"] == 340_000.0
    stages_of_7 = [event["name"] for event in events if event.get("cat") == "stage" and event["args"]["end_ns"] <= 1_000 * MS]
    assert stages_of_7[:3] == ["waiting at the replica", "prefill", "decoding"]
    replica = [(event["name"], event["ts"], event["dur"]) for event in events if event.get("cat") == "replica"]
    assert replica == [("ready", 0.0, 700_000.0), ("draining", 700_000.0, 300_000.0)]
    assert [event["ts"] for event in events if event["ph"] == "i"] == [100_000.0]
    names = [event["args"]["name"] for event in events if event["ph"] == "M"]
    assert names == ["llama", "replica 2", "requests 0", "requests 1"]
