"""`python -m experiments.fit_batch_models.server`: the highest rate that the simulated batcher serves within MLPerf's limits.

MLPerf's server rows are such rates: Poisson arrivals of single items, 99 % of them answered within the limit of latency. Here each
accelerator is a replica with its share of the arrivals, batches are sent as soon as it is free, and times are those of the catalog.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sim import simulate
from sim.catalog.loader import load_catalog
from sim.policies.autoscalers.static import Static
from sim.scenario import Deployment, DynamicBatcher, Pool, Scenario, Service
from sim.workload.items import Items

from .points import SERVER_LIMIT_S, Point, read

CATALOG = load_catalog()
REQUESTS = 40_000
HALVINGS = 6
# A service has at most so many requests a second; more of them share the replica.
MOST_PER_S = 20_000


def p99_s(point: Point, rate_per_s: float, folder: Path) -> float:
    """Return the 99th percentile of latency of one accelerator at a rate.

    Parameters
    ----------
    point : a server row; only its model, type and accelerator count. folder : empty or absent.
    """
    instance = next(row for row in CATALOG.instances.values() if row.accelerator == point.accelerator and row.on_demand)
    batcher = DynamicBatcher(model=point.model, dtype=point.dtype, max_batch=point.batch)
    services = math.ceil(rate_per_s / MOST_PER_S)
    made = Scenario(
        horizon=f"{round(REQUESTS / rate_per_s * 1e9)}ns",
        services={
            f"queries_{number}": Service(workload=Items(rate_per_s=rate_per_s / services), deployments=["model"])
            for number in range(services)
        },
        deployments={"model": Deployment(pools=["pool"], autoscaler=Static(1), batcher=batcher)},
        pools={"pool": Pool(instance=instance.name, region=next(iter(instance.on_demand)))},
    )
    result = simulate(made, out=folder)
    try:
        return max(float(latency["e2e_s"]["p99"]) for latency in result.summary["latency"].values())
    finally:
        result.close()


def served_per_s(point: Point, offline_per_s: float, folder: Path) -> float:
    """Return the highest rate within the limit, by halving between a fifth and all of the offline throughput.

    Parameters
    ----------
    offline_per_s : throughput of full batches by the same times.
    """
    low, high = 0.2 * offline_per_s, offline_per_s
    for number in range(HALVINGS):
        middle = (low + high) / 2
        late = p99_s(point, middle, folder / str(number)) > SERVER_LIMIT_S[point.model]
        low, high = (low, middle) if late else (middle, high)
    return low


def compare(points: Sequence[Point], folder: Path) -> list[tuple[Point, Point, float]]:
    """Return (server row, offline row of the same system, simulated share of the offline throughput) for each server row."""
    from .__main__ import family_of, time_s

    found = []
    for at, point in enumerate(point for point in points if point.scenario == "Server"):
        same = (point.submitter, point.system, point.model, "Offline")
        offline = next(other for other in points if (other.submitter, other.system, other.model, other.scenario) == same)
        full_per_s = point.batch / time_s(point, CATALOG.batch_fit(point.accelerator, family_of(point)))
        found.append((point, offline, served_per_s(point, full_per_s, folder / str(at)) / full_per_s))
    return found


def main() -> None:
    """Print the shares of the offline throughput that are left with a limit of latency."""
    print("| server row | measured server / offline | simulated | error of the rate |")
    print("| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for point, offline, share in compare(read(), Path(folder)):
            measured = point.items_per_s / offline.items_per_s
            name = f"{point.submitter} {point.system} {point.model}"
            print(f"| {name} | {measured:.2f} | {share:.2f} | {100 * (share / measured - 1):+.0f} % |")


if __name__ == "__main__":
    main()
