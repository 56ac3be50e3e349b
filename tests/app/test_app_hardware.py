"""Scenarios on hardware of other kinds: own boxes at the edge, TPU slices and pods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sim import load_scenario, simulate
from sim.catalog.loader import load_catalog
from sim.errors import InputError
from sim.results.invoice import invoice
from sim.scenario import Scenario
from sim.scenario.check import check

CATALOG = load_catalog()


def test_the_edge_pays_for_boxes_and_power_and_the_cloud_for_hours(tmp_path: Path) -> None:
    hours = 5 / 60
    result = simulate(load_scenario("edge", ["horizon=5min", "window=1min"]), out=tmp_path / "run")
    lines = {(line.pool, line.category): line for line in invoice(result)}
    box, card = CATALOG.accelerators["orin-nx-16"], CATALOG.instances["g6.xlarge"]
    (price,) = CATALOG.instances["edge-orin-nx-16"].on_demand["edge-us"]
    assert set(lines) == {("shops", "compute"), ("shops", "energy"), ("cloud", "compute")}
    assert lines["shops", "compute"].amount_nano / 1e9 == pytest.approx(20 * hours * float(price.usd_per_hour))
    assert lines["cloud", "compute"].amount_nano / 1e9 == pytest.approx(hours * float(card.on_demand["us-east-1"][-1].usd_per_hour))
    # Twenty boxes draw between their idle power and their limit of 25 W, at 0.13 USD a kWh and a PUE of 1.
    least, most = (20 * watts * hours / 1_000 * CATALOG.grids["edge-us"].usd_per_kwh for watts in (box.idle_w, box.tdp_w))
    assert least < lines["shops", "energy"].amount_nano / 1e9 < most
    latency = result.summary["latency"]
    assert latency["in_shop"]["tpot_s"]["p50"] > latency["in_cloud"]["tpot_s"]["p50"]
    assert result.summary["slo"]["in_shop"]["ttft"]["met"]
    result.close()


def test_a_decode_on_the_edge_waits_for_its_memory(tmp_path: Path) -> None:
    # A token in 4 bits reads half a byte a weight and the head in bf16: no faster than the memory's data sheet allows.
    result = simulate(load_scenario("edge", ["horizon=2min", "window=1min"]), out=tmp_path / "run")
    model, box = CATALOG.models["llama-3.2-3b"], CATALOG.accelerators["orin-nx-16"]
    least_s = (0.5 * model.linear_parameters + 2 * model.head_parameters) / (box.bandwidth_gb_per_s * 1e9)
    assert least_s < result.summary["latency"]["in_shop"]["tpot_s"]["p50"] < 3 * least_s
    result.close()


def _tpu(**settings: Any) -> Scenario:
    """The 70B deployment of `tpu_serving` with other settings."""
    scenario: Scenario = load_scenario("tpu_serving")
    for name, value in settings.items():
        if name == "instance":
            scenario.pools["v6e_host"].instance = value
        elif name == "region":
            scenario.pools["v6e_host"].region = value
        else:
            setattr(scenario.deployments["llama_70b"], name, value)
    return scenario


def _refusals(scenario: Scenario) -> dict[str, str]:
    with pytest.raises(InputError) as caught:
        check(scenario)
    return {problem.path: f"{problem.message}; {problem.allowed}" for problem in caught.value.problems}


def test_a_slice_of_a_pod_may_be_larger_than_a_host() -> None:
    # Sixteen v5e chips are two hosts of eight: what does not fit eight chips fits them.
    assert "deployments.llama_70b.model" in _refusals(_tpu(instance="ct5lp-hightpu-8t", region="us-central1"))
    check(_tpu(instance="ct5lp-hightpu-8t", region="us-central1", tensor_parallel=16))


def test_two_hosts_of_a_slice_are_both_rented(tmp_path: Path) -> None:
    scenario = _tpu(instance="ct5lp-hightpu-8t", region="us-central1", tensor_parallel=16)
    scenario.horizon, scenario.window = "2min", "1min"
    result = simulate(scenario, out=tmp_path / "run")
    hours = {line.pool: line.quantity for line in invoice(result)}
    assert hours["v6e_host"] == pytest.approx(2 * 2 / 60)
    result.close()


def test_slices_have_the_sizes_of_their_chips() -> None:
    found = _refusals(_tpu(tensor_parallel=2))
    assert "1, 4, 8, 16" in found["deployments.llama_70b.tensor_parallel"]


def test_a_job_ends_at_what_one_job_may_have() -> None:
    largest = {"model": "llama-3.1-405b", "instance": "ct5p-hightpu-4t", "tensor_parallel": 128}
    check(_tpu(**largest, pipeline_parallel=48))
    found = _refusals(_tpu(**largest, pipeline_parallel=49))
    assert found["deployments.llama_70b.pipeline_parallel"].startswith("6272 accelerators in one replica")
    assert found["deployments.llama_70b.pipeline_parallel"].endswith("; 6144 in all")
    v5e = _tpu(instance="ct5lp-hightpu-8t", region="us-central1", tensor_parallel=64, pipeline_parallel=5)
    assert "320 accelerators in one replica" in _refusals(v5e)["deployments.llama_70b.pipeline_parallel"]
