"""A view is what was seen at its time, whichever of its columns is read and however late."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from engine_kit import MS, requests
from play import go, start

from sim.dataplane.engine import DataPlane, StreamRules, View

Engine = type[DataPlane]
COLUMNS = [field.name for field in fields(View)]
ROWS = [(number * MS // 4, 10 + number % 7, 5 + number % 11) for number in range(60)]


def _plane(engine: Engine) -> DataPlane:
    return start(engine, requests(*ROWS), replicas=(0, 0, 0), streams=[StreamRules(e2e_ns=6 * MS)])


def _all(view: View) -> dict[str, list[object]]:
    return {name: np.asarray(getattr(view, name)).tolist() for name in COLUMNS}


def test_columns_read_late_are_those_of_the_look(engine: Engine) -> None:
    early, late = _plane(engine), _plane(engine)
    for plane in (early, late):
        go(plane, 7 * MS)
    seen, kept = _all(early.view(7 * MS)), late.view(7 * MS)
    assert sum(seen["running"]) > 0
    late.kill_replica(7 * MS, seen["replica"][1])
    late.add_replica(7 * MS, 0)
    late.add_replica(7 * MS, 0)
    go(late, 20 * MS)
    assert _all(late.view(20 * MS)) != seen
    assert _all(kept) == seen


def test_shapes_without_and_with_replicas(engine: Engine) -> None:
    plane = start(engine, requests(*ROWS), replicas=())
    for replicas in (0, 1, 4):
        while len(plane.view(0).replica) < replicas:
            plane.add_replica(0, 0)
        view = plane.view(0)
        assert view.replica.shape == view.lost_ns.shape == view.output_tokens.shape == (replicas,)
        assert view.shares_ns.shape == (replicas, len(view.queued))
        assert view.counters.shape[0] == len(view.queued) == 1


def test_a_view_has_no_other_columns(engine: Engine) -> None:
    view = _plane(engine).view(0)
    with pytest.raises(AttributeError, match="queue_length"):
        _ = view.queue_length
