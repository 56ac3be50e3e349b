"""Degenerate engines that are textbook queues, and confidence limits for what they do.

A replica with one seat, requests of one output token and a step of 1 us per token is a server whose service time is the prompt.
Estimates are batch means corrected by control variates: in each batch the mean inter-arrival time, the mean service and its square
are known to differ from their expectations by so much, and a regression removes what of the noise they explain (Lavenberg and
Welch 1981). The regression's intercept has a Student t interval. Every comparison states how wide its interval may be, so that a
test cannot pass by being blind: a bias twice as large as the width given is always seen, one as large about every other time.
Half-widths allowed are 2 to 5 % for the number in the system, 0.2 to 2 % for utilisation, 5 to 10 % for the mean wait alone, which
is noisier; its equality with Lindley's recursion, request by request, is in `test_laws.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student

from sim.dataplane.engine import DataPlane, PlaneConfig, ReplicaSpec, View
from sim.dataplane.layout import COMPLETED
from sim.domain.traffic import ClosedClients, RequestBlock
from sim.rng import StreamKey
from sim.units import NS_PER_S, NS_PER_US
from tests.engine_kit import PER_TOKEN, config, finish, spec

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Draw = Callable[[np.random.Generator, int], FloatArray]

# Mean service 0.1 s is 100,000 tokens, so that rounding to whole tokens is 1e-5 of it.
SERVICE_S = 0.1
TOKEN_NS = 1_000
CONFIDENCE = 0.999
BATCHES = 40
WARM_UP = 0.03  # share of a run before the first batch; at least 20 relaxation times in every run here
AFTER_ALL_NS = 10**16


def exponential(generator: np.random.Generator, count: int) -> FloatArray:
    """Draw services of mean 1."""
    return generator.exponential(1.0, count)


def deterministic(generator: np.random.Generator, count: int) -> FloatArray:
    """Draw services that are all 1."""
    return np.ones(count)


def erlang_4(generator: np.random.Generator, count: int) -> FloatArray:
    """Draw services of mean 1 and squared coefficient of variation 1/4."""
    return generator.gamma(4.0, 0.25, count)


def lognormal(generator: np.random.Generator, count: int) -> FloatArray:
    """Draw services of mean 1 and squared coefficient of variation 1."""
    return generator.lognormal(-np.log(2.0) / 2, np.sqrt(np.log(2.0)), count)


def hyperexponential(generator: np.random.Generator, count: int) -> FloatArray:
    """Draw services of mean 1 and squared coefficient of variation 2, balanced means."""
    often = 0.5 + np.sqrt(1 / 12)
    return generator.exponential(np.where(generator.random(count) < often, 0.5 / often, 0.5 / (1 - often)))


def generator_of(name: str) -> np.random.Generator:
    """Return the fixed random stream of a test."""
    return StreamKey(seed=7, replication=0, purpose="theory", entity=name).generator()


def server(**changes: Any) -> ReplicaSpec:
    """Return a replica that serves one request at a time."""
    return spec(seats=1, token_budget=1 << 40, kv_tokens=1 << 40, **changes)


def servers_config(central: bool = False, **changes: Any) -> PlaneConfig:
    """Return a plane of such servers; `central` makes them share the service queue."""
    return config(PER_TOKEN, [server(max_outstanding=1) if central else server()], **changes)


def poisson_block(name: str, arrival_per_s: float, count: int, service: Draw = exponential) -> RequestBlock:
    """Return Poisson arrivals whose prompts are services of mean `SERVICE_S`."""
    generator = generator_of(name)
    arrival_ns = np.cumsum(generator.exponential(NS_PER_S / arrival_per_s, count)).astype(np.int64)
    return RequestBlock.of(
        arrival_ns=arrival_ns,
        prompt_tokens=tokens_of(service(generator, count)),
        output_tokens=np.ones(count),
        tag=generator.integers(0, 1 << 63, count),
    )


def tokens_of(service: FloatArray) -> IntArray:
    """Turn services of mean 1 into prompts of mean `SERVICE_S`."""
    return np.maximum(1, np.rint(service * (SERVICE_S * NS_PER_S / TOKEN_NS))).astype(np.int64)


@dataclass(frozen=True)
class Run:
    """What an engine did: totals between looks at equal distances, and one record for every request in order of arrival.

    Parameters
    ----------
    looks_s : (BATCHES + 1,). utilisation, in_system, queued : (BATCHES,) means between two looks, of the plane.
    arrival_s, wait_s, response_s, service_s : (requests,). records : all columns of the engine's records.
    """

    looks_s: FloatArray
    utilisation: FloatArray
    in_system: FloatArray
    queued: FloatArray
    arrival_s: FloatArray
    wait_s: FloatArray
    response_s: FloatArray
    service_s: FloatArray
    records: dict[str, IntArray]

    def steady(self, column: FloatArray) -> FloatArray:
        """Return a column of the requests that arrived between the first look and the last."""
        first, last = np.searchsorted(self.arrival_s, self.looks_s[[0, -1]])
        return column[first:last]

    @property
    def found(self) -> FloatArray:
        """Number present that each request finds, itself not counted."""
        leave_ns, arrival_ns = self.records["leave_ns"], self.records["arrival_ns"]
        left_before = np.searchsorted(np.sort(leave_ns), arrival_ns, side="right") - (leave_ns == arrival_ns)
        return np.arange(len(left_before)) - left_before

    def batches(self, column: FloatArray) -> FloatArray:
        """Return means of a per-request column over batches of equally many arrivals."""
        return batch_means(self.steady(column))

    def request_controls(self, arrival_per_s: float, scv: float = 1.0) -> list[FloatArray]:
        """Return inter-arrival time, service and its square by batch of requests, minus their expectations."""
        gap_s = np.diff(self.arrival_s, prepend=0.0)
        controls = [self.batches(gap_s) - 1 / arrival_per_s]
        if scv:
            controls += [self.batches(self.service_s) - SERVICE_S, self.batches(self.service_s**2) - (1 + scv) * SERVICE_S**2]
        return controls

    def time_controls(self, arrival_per_s: float, scv: float = 1.0) -> list[FloatArray]:
        """Return arrivals and work that arrived between looks, minus their expectations."""
        span_s = np.diff(self.looks_s)
        count, _ = np.histogram(self.arrival_s, self.looks_s)
        work_s, _ = np.histogram(self.arrival_s, self.looks_s, weights=self.service_s)
        controls = [count - arrival_per_s * span_s]
        return [*controls, work_s - arrival_per_s * SERVICE_S * span_s] if scv else controls


def batch_means(column: FloatArray) -> FloatArray:
    """Return the means of `BATCHES` equal parts; the remainder at the end is left out."""
    length = len(column) // BATCHES
    means: FloatArray = column[: length * BATCHES].reshape(BATCHES, length).mean(axis=1)
    return means


def watch_plane(plane: DataPlane, looks_ns: IntArray) -> list[View]:
    """Advance from look to look and return what was seen."""
    views = []
    for look_ns in looks_ns.tolist():
        assert plane.advance(look_ns) is None
        views.append(plane.view(look_ns))
    return views


def run(
    engine: type[DataPlane],
    plane_config: PlaneConfig,
    arrivals: RequestBlock | ClosedClients,
    replicas: int = 1,
    end_s: float | None = None,
    step_by_step: bool = False,
) -> Run:
    """Send open arrivals or clients through some replicas, look at equal distances, let everything leave, and check the laws.

    Looks end with the last open arrival, or at `end_s`. `step_by_step` tells that requests share the steps, so that the time from
    admission to the end is not their own service.
    """
    is_open = isinstance(arrivals, RequestBlock)
    plane = engine(plane_config, [arrivals], None) if is_open else engine(plane_config, [], arrivals)
    for _ in range(replicas):
        plane.add_replica(0, 0)
    end_ns = int(end_s * NS_PER_S) if end_s is not None else int(arrivals.arrival_ns[-1])
    looks_ns = np.linspace(WARM_UP * end_ns, end_ns, BATCHES + 1).astype(np.int64)
    views = watch_plane(plane, looks_ns)
    last, records = finish(plane, AFTER_ALL_NS)
    assert not last.in_flight.any()
    served_ns = np.where(records["outcome"] == COMPLETED, records["prompt_tokens"] * TOKEN_NS, 0)
    check_little(last, records, None if step_by_step else served_ns)
    response_ns = records["leave_ns"] - records["arrival_ns"]
    span_ns = np.diff(looks_ns)
    return Run(
        looks_s=looks_ns / NS_PER_S,
        utilisation=np.diff([view.busy_ns.sum() for view in views]) / span_ns / replicas,
        in_system=np.diff([view.in_flight_us.sum() for view in views]) * NS_PER_US / span_ns,
        queued=np.diff([view.queued_us.sum() for view in views]) * NS_PER_US / span_ns,
        arrival_s=records["arrival_ns"] / NS_PER_S,
        wait_s=(response_ns - served_ns) / NS_PER_S,
        response_s=response_ns / NS_PER_S,
        service_s=records["prompt_tokens"] * TOKEN_NS / NS_PER_S,
        records=records,
    )


def check_little(view: View, records: dict[str, IntArray], served_ns: IntArray | None) -> None:
    """Little's law, exact on every run: the integral of the number present is the sum of the times spent (Little 1961).

    So it is for the waiting room alone, where the time in service is known.
    """
    spent_ns = records["leave_ns"] - records["arrival_ns"]
    for stream in range(len(view.in_flight_us)):
        mine = records["stream"] == stream
        assert view.in_flight_us[stream] == int(spent_ns[mine].sum()) // NS_PER_US
        if served_ns is not None:
            assert view.queued_us[stream] == int((spent_ns - served_ns)[mine].sum()) // NS_PER_US


def interval(batches: FloatArray, controls: Sequence[FloatArray], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the mean corrected by controls of expectation 0, and the half-width of its Student interval."""
    columns = np.column_stack([np.ones(len(batches)), *[control / np.abs(control).max() for control in controls]])
    solution, _, rank, _ = np.linalg.lstsq(columns, batches, rcond=None)
    assert rank == columns.shape[1]
    freedom = len(batches) - rank
    variance = ((batches - columns @ solution) ** 2).sum() / freedom
    error = np.sqrt(variance * np.linalg.inv(columns.T @ columns)[0, 0])
    return float(solution[0]), float(student.ppf(0.5 + confidence / 2, freedom) * error)


def agrees(
    batches: FloatArray,
    expected: float,
    controls: Sequence[FloatArray] = (),
    within: float = 0.05,
    confidence: float = CONFIDENCE,
    scale: float | None = None,
) -> None:
    """Assert that an expectation lies in the interval of the batches, and that the interval is no wider than +-`within` of it.

    `scale` replaces the expectation as the measure of the width where that is near 0.
    """
    mean, half_width = interval(batches, controls, confidence)
    allowed = within * abs(expected if scale is None else scale)
    assert half_width <= allowed, f"blind: {mean:g} +- {half_width:g}, expected {expected:g}, allowed width {allowed:g}"
    assert abs(mean - expected) <= half_width, f"{mean:g} +- {half_width:g}, expected {expected:g}"
