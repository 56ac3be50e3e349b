"""The rules of Chrome traces, for the kinds of events that timelines are made of."""

from __future__ import annotations

from typing import Any


def check_chrome_schema(trace: dict[str, Any]) -> None:
    """Check complete events, instants and metadata by the Trace Event Format."""
    assert trace["displayTimeUnit"] in ("ms", "ns")
    spans: dict[tuple[int, int], list[tuple[int, int]]] = {}  # in nanoseconds, as viewers read them
    for event in trace["traceEvents"]:
        assert isinstance(event["name"], str)
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        assert event["ph"] in ("X", "i", "M")
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name")
            assert isinstance(event["args"]["name"], str)
            continue
        assert event["ts"] >= 0
        assert isinstance(event["cat"], str)
        if event["ph"] == "i":
            assert event["s"] in ("g", "p", "t")
            continue
        assert event["dur"] >= 0
        spans.setdefault((event["pid"], event["tid"]), []).append((round(event["ts"] * 1e3), round(event["dur"] * 1e3)))
    for thread in spans.values():
        # Spans of a thread are nested or apart, or a viewer draws nonsense.
        open_ends: list[int] = []
        for begin, length in sorted(thread, key=lambda span: (span[0], -span[1])):
            end = begin + length
            while open_ends and open_ends[-1] <= begin:
                open_ends.pop()
            assert not open_ends or end <= open_ends[-1]
            open_ends.append(end)
