"""Times of batches against MLPerf Inference v4.1; bounds are what was measured on 2026-11-23, plus a small margin."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.fit_batch_models.__main__ import CATALOG, family_of, mean_share, measured_s, share, time_s
from experiments.fit_batch_models.points import DATA, Point, read
from experiments.fit_batch_models.server import compare

pytestmark = [
    pytest.mark.validation,
    pytest.mark.skipif(not DATA.exists(), reason=f"no measured data at {DATA}: set BILLCAST_DATA"),
]


def timed() -> list[Point]:
    """All rows that are a time of a batch: offline, single stream and multi stream."""
    return [point for point in read() if point.scenario != "Server"]


def error(point: Point) -> float:
    """Relative error of the catalog's time of a batch, positive where it is too long."""
    return time_s(point, CATALOG.batch_fit(point.accelerator, family_of(point))) / measured_s(point) - 1


def test_nine_of_ten_rows_lie_within_the_band_of_their_row_of_the_catalog() -> None:
    points = timed()
    assert len(points) == 21
    within = [abs(error(point)) <= CATALOG.batch_fit(point.accelerator, family_of(point)).band for point in points]
    assert sum(within) >= 0.9 * len(points)
    assert statistics.median(abs(error(point)) for point in points) < 0.05


def test_the_rows_of_the_catalog_are_what_the_fit_says() -> None:
    """Own rows are the geometric means of their shares, to the rounding of the file and the launches that the fit takes from it."""
    offline = [point for point in timed() if point.scenario == "Offline"]
    for accelerator, family in {(point.accelerator, family_of(point)) for point in offline}:
        mine = [point for point in offline if (point.accelerator, family_of(point)) == (accelerator, family)]
        assert CATALOG.batch_fits[f"{accelerator}/{family}"].eta_compute == pytest.approx(mean_share(mine), rel=0.01)


def test_a_share_turns_a_measured_time_back_into_itself() -> None:
    point = next(point for point in timed() if point.model == "retinanet" and point.accelerator == "l4")
    fit = CATALOG.batch_fit("l4", "convolution")
    assert time_s(point, replace(fit, eta_compute=share(point, fit))) == pytest.approx(measured_s(point), rel=1e-9)


def test_an_accelerator_left_out_is_predicted_by_the_others() -> None:
    """Processors among GPUs too: half of the rows within 16 %, all within 40 %."""
    offline = [point for point in timed() if point.scenario == "Offline"]
    errors = []
    for point in offline:
        others = [other for other in offline if other.accelerator != point.accelerator and family_of(other) == family_of(point)]
        fit = CATALOG.batch_fit(point.accelerator, family_of(point))
        errors.append(abs(time_s(point, replace(fit, eta_compute=mean_share(others))) / measured_s(point) - 1))
    assert statistics.median(errors) < 0.16
    assert max(errors) < 0.40


def test_the_batcher_serves_within_limits_of_latency_what_servers_did(tmp_path: Path) -> None:
    """Images: all rates within 20 %, half within 8 %. BERT, whose texts differ in length: up to 30 % too much, never too little."""
    errors: dict[bool, list[float]] = {False: [], True: []}
    points = [point for point in read() if point.accelerator != "xeon-emr-2s" or point.submitter == "Intel"]
    for server, offline, simulated in compare(points, tmp_path):
        errors[family_of(server) == "encoder"].append(simulated / (server.items_per_s / offline.items_per_s) - 1)
    assert max(map(abs, errors[False])) < 0.20
    assert statistics.median(map(abs, errors[False])) < 0.08
    assert min(errors[True]) > 0
    assert max(errors[True]) < 0.30
