"""`python -m experiments.fit_batch_models`: shares of the peaks behind each MLPerf row, and what they say of systems left out.

Every offline row is turned into the share of the peak operations with which T(n) / n is its measured time (`share`). The rows of an
accelerator and a family make a row of the catalog's `batch_fits`: their geometric mean. "Left out" predicts a row from the other
accelerators of its family, processors among GPUs too. The lines below are what the catalog's rows make of all rows.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace

from sim.catalog.loader import load_catalog
from sim.domain.batch_models import BatchFit
from sim.perf.batch_roofline import batch_times_s

from .points import Point, read

CATALOG = load_catalog()


def family_of(point: Point) -> str:
    """Return the family of a point's model."""
    return CATALOG.batch_models[point.model].family


def time_s(point: Point, fit: BatchFit) -> float:
    """Return T(n) of a point's batch in seconds."""
    model, accelerator = CATALOG.batch_models[point.model], CATALOG.accelerators[point.accelerator]
    return float(batch_times_s(model, accelerator, fit, point.dtype, point.batch)[-1])


def measured_s(point: Point) -> float:
    """Return the measured time of a point's batch in seconds: that of its items at the throughput of an offline run."""
    return point.batch_s or point.batch / point.items_per_s


def share(point: Point, fit: BatchFit) -> float:
    """Return the share of the peak operations at which T(n) is what was measured; T falls as it grows."""
    low, high = 1e-4, 1.0
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if time_s(point, replace(fit, eta_compute=middle)) < measured_s(point) else (middle, high)
    return math.sqrt(low * high)


def mean_share(points: Sequence[Point]) -> float:
    """Return the geometric mean of shares, one vote for each system and model."""
    votes: dict[tuple[str, str], list[float]] = {}
    for point in points:
        fit = CATALOG.batch_fit(point.accelerator, family_of(point))
        votes.setdefault((point.system, point.model), []).append(share(point, fit))
    return math.exp(statistics.fmean(math.log(statistics.fmean(shares)) for shares in votes.values()))


def main() -> None:
    """Print the tables."""
    points = read()
    offline = [point for point in points if point.scenario == "Offline"]
    print("| accelerator | family | rows | share of the peak | spread |")
    print("| --- | --- | --- | --- | --- |")
    for accelerator, family in sorted({(point.accelerator, family_of(point)) for point in offline}):
        mine = [point for point in offline if (point.accelerator, family_of(point)) == (accelerator, family)]
        shares = [share(point, CATALOG.batch_fit(accelerator, family)) for point in mine]
        spread = f"{min(shares):.3f} to {max(shares):.3f}"
        print(f"| {accelerator} | {family} | {len(mine)} | {mean_share(mine):.3f} | {spread} |")
    print("\n| row | measured | catalog | error | validity | left out |")
    print("| --- | --- | --- | --- | --- | --- |")
    for point in points:
        if point.scenario == "Server":
            continue
        fit = CATALOG.batch_fit(point.accelerator, family_of(point))
        rest = [other for other in offline if other.accelerator != point.accelerator and family_of(other) == family_of(point)]
        apart = (
            f"{100 * (time_s(point, replace(fit, eta_compute=mean_share(rest))) / measured_s(point) - 1):+.0f} %" if rest else "-"
        )
        name = f"{point.submitter} {point.system} {point.model} {point.scenario}"
        error = time_s(point, fit) / measured_s(point) - 1
        made = f"{measured_s(point) / point.batch * 1e3:.4g} ms | {time_s(point, fit) / point.batch * 1e3:.4g} ms"
        print(f"| {name} | {made} | {100 * error:+.1f} % | {fit.name} {fit.validity} | {apart} |")


if __name__ == "__main__":
    main()
