"""Small planes for engine tests: step models one can compute by hand, and the laws every run must obey."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sim.dataplane.engine import DataPlane, PlaneConfig, ReplicaSpec, StreamRules, View
from sim.dataplane.layout import COUNTERS
from sim.domain.traffic import RequestBlock
from sim.perf.steptime import StepModel, closed_form

MS = 1_000_000
OFFSET_400_DAYS_NS = 400 * 86_400 * 1_000_000_000

# A step takes 1 ms whatever is in it: boundaries lie on a lattice and times can be read off.
LATTICE = closed_form(fixed_ns=float(MS))
# A step takes 1 us per token in it: with one seat and one output token, service time is drawn through the prompt.
PER_TOKEN = closed_form(token_ns=1_000.0)


def spec(**changes: Any) -> ReplicaSpec:
    """Return a roomy replica spec with some fields changed."""
    return ReplicaSpec(**{"kind": 0, "seats": 8, "token_budget": 1_024, "kv_tokens": 100_000, **changes})


def config(
    step: StepModel = LATTICE, specs: Sequence[ReplicaSpec] = (), streams: Sequence[StreamRules] = (), **changes: Any
) -> PlaneConfig:
    """Return a plane of one step model; every request is recorded."""
    return PlaneConfig(**{
        "steps": (step,), "specs": tuple(specs) or (spec(),), "streams": tuple(streams) or (StreamRules(),), "records": 1, **changes
    })  # fmt: skip


def requests(*rows: tuple[int, int, int], **columns: Any) -> list[RequestBlock]:
    """Return one block from rows of (arrival_ns, prompt_tokens, output_tokens)."""
    arrival, prompt, output = zip(*rows, strict=True) if rows else ((), (), ())
    return [RequestBlock.of(arrival_ns=arrival, prompt_tokens=prompt, output_tokens=output, **columns)]


def finish(plane: DataPlane, until_ns: int) -> tuple[View, dict[str, Any]]:
    """Advance past every hit, close, check the laws, and return the last view and the records in request order."""
    while plane.advance(until_ns) is not None:
        pass
    view = plane.close(until_ns)
    records = plane.take_records()
    check_laws(plane, view, records)
    order = np.argsort(records["request"])
    return view, {name: column[order] for name, column in records.items()}


def check_laws(plane: DataPlane, view: View, records: dict[str, Any]) -> None:
    """Conservation of requests, tokens and time (all requests must have been recorded)."""
    count = {name: view.count(name) for name in COUNTERS}
    rejected = sum(count[name] for name in COUNTERS if name.startswith("rejected_"))
    left = count["completed"] + count["failed"] + count["abandoned"] + rejected
    assert (count["arrived"] == left + view.in_flight).all()
    assert len(records["request"]) == count["arrived"].sum()
    assert (view.queued <= view.in_flight).all()
    assert (plane.histograms()[:, 0, :].sum(axis=1) == count["completed"]).all()
    assert (plane.histograms()[:, 2, :].sum(axis=1) == count["completed"]).all()
    assert (plane.histograms()[:, 1, :].sum(axis=1) == count["tpot_count"]).all()
    assert (count["good_all"] <= np.minimum(np.minimum(count["good_ttft"], count["good_tpot"]), count["good_e2e"])).all()
    missed = sum(count[name] for name in COUNTERS if name.startswith("missed_"))
    bad = count["completed"] - count["good_all"] + count["failed"] + count["abandoned"] + count["rejected_full"]
    assert (missed == bad).all()
    assert (count["output_tokens"] >= count["completed_output_tokens"] + count["lost_output_tokens"]).all()
    assert (count["prefill_tokens"] >= count["useful_prefill_tokens"] + count["lost_prefill_tokens"]).all()
    shares = view.shares_ns.sum(axis=1) + view.lost_ns
    np.testing.assert_allclose(shares, view.busy_ns, rtol=1e-9, atol=1e-3)
    for totals in plane.take_retired():
        np.testing.assert_allclose(sum(totals.shares_ns) + totals.lost_ns, totals.busy_ns, rtol=1e-9, atol=1e-3)
