"""The offered load of the capacity sheet: what a workload says of itself, or what is counted from its requests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sim.domain.traffic import RequestBlock
from sim.rng import StreamKey
from sim.scenario import Scenario
from sim.units import NS_PER_MINUTE, NS_PER_S
from sim.workload.base import ExpectedLoad, Workload

# The peak of a recorded trace is that of its busiest five minutes: shorter ones are bursts that a queue evens out.
PEAK_BIN_NS = 5 * NS_PER_MINUTE
MOST_TRACE_REQUESTS = 5_000_000


@dataclass(frozen=True)
class Load:
    """The traffic offered to a service, None where it is not known before the run.

    Parameters
    ----------
    mean_rate_per_s, peak_rate_per_s : requests per second. prompt_tokens, output_tokens : means per request.
    clients : most requests in the system at once (closed loop). in_items : requests bring items; `prompt_tokens` is their mean.
    """

    mean_rate_per_s: float | None
    peak_rate_per_s: float | None
    prompt_tokens: float | None
    output_tokens: float | None
    clients: int | None = None
    in_items: bool = False


def offered_load(name: str, workload: Workload, scenario: Scenario) -> Load:
    """Return what a workload will offer: as it says itself, else counted from its requests (a trace).

    Parameters
    ----------
    name : the service, which names its random streams.
    """
    expected = workload.expected_load(scenario.start_instant, scenario.horizon_ns)
    if expected == ExpectedLoad():
        return _counted_load(name, workload, scenario)
    return Load(
        expected.mean_rate_per_s,
        expected.peak_rate_per_s,
        expected.mean_prompt_tokens,
        expected.mean_output_tokens,
        expected.clients,
        workload.largest_items() is not None,
    )


def _counted_load(name: str, workload: Workload, scenario: Scenario) -> Load:
    key = StreamKey(scenario.seed, scenario.replication, "workload", name)
    source = workload.open(key, scenario.start_instant, scenario.horizon_ns)
    blocks: list[RequestBlock] = []
    requests = 0
    for block in source.blocks():
        blocks.append(block)
        requests += len(block)
        if requests >= MOST_TRACE_REQUESTS:
            break
    if requests == 0:
        return Load(0.0, 0.0, None, None)
    arrivals = np.concatenate([block.arrival_ns for block in blocks])
    whole = requests < MOST_TRACE_REQUESTS
    span_ns = scenario.horizon_ns if whole else int(arrivals[-1]) + 1
    bin_ns = min(PEAK_BIN_NS, span_ns)
    peak = int(np.bincount(arrivals // bin_ns).max())
    prompt, output = (sum(int(getattr(block, column).sum()) for block in blocks) for column in ("prompt_tokens", "output_tokens"))
    return Load(
        mean_rate_per_s=requests * NS_PER_S / span_ns,
        peak_rate_per_s=peak * NS_PER_S / bin_ns,
        prompt_tokens=prompt / requests,
        output_tokens=output / requests,
    )


def mean_lengths(loads: list[Load]) -> tuple[float, float] | None:
    """Return mean prompt and output tokens of several services, weighted by their rates; None where a length is unknown.

    Examples
    --------
    >>> mean_lengths([Load(3.0, 3.0, 100.0, 10.0), Load(1.0, 1.0, 500.0, 50.0)])
    (200.0, 20.0)
    """
    known = [
        (load.mean_rate_per_s, load.prompt_tokens, load.output_tokens)
        for load in loads
        if load.prompt_tokens is not None and load.output_tokens is not None
    ]
    if not known:
        return None
    # A closed loop has no rate of its own; where one is among them, all count alike.
    weights = [1.0 if any(rate is None for rate, _, _ in known) else float(rate or 0.0) for rate, _, _ in known]
    total = sum(weights)
    if total <= 0:
        return None
    return (
        sum(weight * prompt for weight, (_, prompt, _) in zip(weights, known, strict=True)) / total,
        sum(weight * output for weight, (_, _, output) in zip(weights, known, strict=True)) / total,
    )
