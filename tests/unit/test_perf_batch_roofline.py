"""The roofline of a batch: both ends by hand, laws of any model on any accelerator, memory, power, and scenarios that use it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from control_kit import FIXED
from hypothesis import given
from hypothesis import strategies as st

from sim import simulate
from sim.app.sheet import capacity_report
from sim.app.show_catalog import numbers
from sim.catalog.batch_checks import check_batch_fit, check_batch_model
from sim.catalog.loader import load_catalog
from sim.domain.batch_models import DTYPES, BatchFit, BatchModel
from sim.domain.hardware import Provenance
from sim.errors import InputError, Problems
from sim.perf.batch_roofline import batch_arithmetic, batch_memory, batch_times_s, batch_work, fit_validity, resident_bytes
from sim.perf.batchtime import roofline_step_model
from sim.perf.memory import RUNTIME_BYTES
from sim.perf.power import stepping_power_w
from sim.perf.queueing import m_g_1
from sim.perf.steptime import ONE_NS_FX
from sim.policies.autoscalers.static import Static
from sim.scenario import Deployment, DynamicBatcher, Pool, Scenario, Service, Slo
from sim.scenario.check import check
from sim.scenario.resolve import resolve
from sim.workload.items import Items
from sim.workload.specs import TokenLengths

CATALOG = load_catalog()
SOMEWHERE = Provenance("an example", "2026-11-23", "assumed")
H100, L4 = CATALOG.accelerators["h100-pcie"], CATALOG.accelerators["l4"]
# One item: 1e12 operations, 1e6 elements through memory, 1e5 gathered; 1e9 weights; 100 kernels.
MODEL = BatchModel("m", "dense", "an item", 1e9, 2e9, 1e12, 1e6, 1e5, 1e7, 100, 1, ("int8", "bf16"), SOMEWHERE)
FIT = BatchFit("l4/dense", 0.5, 0.8, 0.25, 2e-6, 50e-6, 0.5, ("int8",), 0.2, "fitted", SOMEWHERE)
CASES = [
    (name, accelerator)
    for name in CATALOG.batch_models
    for accelerator in CATALOG.accelerators
    if batch_arithmetic(CATALOG.batch_models[name], CATALOG.accelerators[accelerator])
]


def usual(name: str, accelerator: str, most: int = 64, **changes: Any) -> np.ndarray:
    """The times of a model of the catalog on an accelerator, as they stand or with something of the accelerator changed."""
    model, board = CATALOG.batch_models[name], CATALOG.accelerators[accelerator]
    dtype = batch_arithmetic(model, board)
    assert dtype is not None
    return batch_times_s(model, replace(board, **changes), CATALOG.batch_fit(accelerator, model.family), dtype, most)


def test_one_item_by_hand() -> None:
    """L4, int8: 1e12 / (0.5 x 242e12) = 8.264 ms to compute, 1.001e9 B / (0.8 x 300e9) + 1e5 B / (0.25 x 300e9) = 4.172 ms to read.

    In all 0.05 ms + 100 x 2 us + 8.264 ms + half of 4.172 ms.
    """
    compute_ms, memory_ms = 1e12 / (0.5 * 242e12) * 1e3, (1.001e9 / (0.8 * 300e9) + 1e5 / (0.25 * 300e9)) * 1e3
    assert (round(compute_ms, 3), round(memory_ms, 3)) == (8.264, 4.172)
    assert batch_times_s(MODEL, L4, FIT, "int8", 1)[0] * 1e3 == pytest.approx(0.25 + 8.264463 + 4.172167 / 2, rel=1e-6)


def test_a_model_without_operations_is_bound_by_its_reads() -> None:
    """Weights of 2e9 B and 1,000 items of 2.2e6 B in bf16: memory alone, and every doubling of a large batch doubles it."""
    reader = replace(MODEL, flops_per_item=0.0, gather_elements_per_item=0.0)
    times_s = batch_times_s(reader, L4, FIT, "bf16", 1_000)
    assert times_s[999] == pytest.approx(250e-6 + (2e9 + 1_000 * 2e6) / (0.8 * 300e9), rel=1e-12)


def test_a_large_batch_is_bound_by_compute() -> None:
    """Without anything but operations an item costs f / (eta F), and overheads vanish."""
    worker = replace(MODEL, io_elements_per_item=0.0, gather_elements_per_item=0.0, parameters=0.0)
    times_s = batch_times_s(worker, L4, FIT, "int8", 10_000)
    assert times_s[-1] / 10_000 == pytest.approx(1e12 / (0.5 * 242e12), rel=1e-5)


def test_weights_are_read_once_for_every_step_of_a_diffusion() -> None:
    once, twenty = (
        batch_times_s(replace(MODEL, flops_per_item=0.0, weight_reads=reads), L4, FIT, "int8", 1)[0] for reads in (1, 20)
    )
    assert twenty - once == pytest.approx(19 * 1e9 / (0.8 * 300e9), rel=1e-9)


@pytest.mark.parametrize(("name", "accelerator"), CASES)
def test_laws_of_every_model_on_every_accelerator(name: str, accelerator: str) -> None:
    """A larger batch takes longer and brings no fewer items a second; twice the peaks are faster, and never more than twice."""
    times_s = usual(name, accelerator)
    rates = np.arange(1, 65) / times_s
    assert all(later >= earlier for earlier, later in pairwise(times_s))
    assert all(later >= earlier * (1 - 1e-12) for earlier, later in pairwise(rates))
    board = CATALOG.accelerators[accelerator]
    twice = {key: 2 * peak for key, peak in board.dense_tflops.items()}
    bandwidth = 2 * board.bandwidth_gb_per_s
    alone = [usual(name, accelerator, dense_tflops=twice), usual(name, accelerator, bandwidth_gb_per_s=bandwidth)]
    both = usual(name, accelerator, dense_tflops=twice, bandwidth_gb_per_s=bandwidth)
    for faster in (*alone, both):
        assert (faster <= times_s).all()
        assert (faster >= times_s / 2).all()
    assert (both < times_s).all()
    assert all((both <= each).all() for each in alone)


@given(
    flops=st.floats(1e3, 1e15),
    io=st.floats(1.0, 1e9),
    gathered=st.floats(1.0, 1e9),
    weights=st.floats(1.0, 1e11),
    factor=st.floats(1.0, 10.0),
)
def test_more_work_never_takes_less_time(flops: float, io: float, gathered: float, weights: float, factor: float) -> None:
    base = replace(MODEL, flops_per_item=flops, io_elements_per_item=io, gather_elements_per_item=gathered, parameters=weights)
    first_s = batch_times_s(base, H100, FIT, "int8", 8)
    for field in ("flops_per_item", "io_elements_per_item", "gather_elements_per_item", "parameters"):
        more = replace(base, **{field: getattr(base, field) * factor})
        assert (batch_times_s(more, H100, FIT, "int8", 8) >= first_s).all()


@pytest.mark.parametrize(
    ("name", "layers", "hidden", "ffn", "tokens"),
    [
        ("bert-large-squad", 24, 1024, 4096, 177),
        ("bge-large-en-128", 24, 1024, 4096, 128),
        ("bge-large-en-512", 24, 1024, 4096, 512),
        ("bge-large-en-tokens", 24, 1024, 4096, 256),
        ("e5-base-128", 12, 768, 3072, 128),
        ("e5-base-512", 12, 768, 3072, 512),
    ],
)
def test_operations_of_encoders_follow_from_their_architecture(name: str, layers: int, hidden: int, ffn: int, tokens: int) -> None:
    """Two for each weight and token, and 4 h s^2 of attention in a layer; of one token, where a token is the item."""
    weights = layers * (4 * hidden**2 + 2 * hidden * ffn)
    text = 2 * weights * tokens + 4 * layers * hidden * tokens**2
    expected = text / tokens if name.endswith("-tokens") else text
    assert CATALOG.batch_models[name].flops_per_item == pytest.approx(expected, rel=1e-3)


def test_the_ranker_is_the_sum_of_its_layers_and_tables() -> None:
    """13-512-256-128, three cross layers of 27 x 128 over a rank of 512, 1024-1024-512-256-1; 214 rows of 128."""
    width = 27 * 128
    weights = 13 * 512 + 512 * 256 + 256 * 128 + 3 * 2 * width * 512
    weights += width * 1024 + 1024 * 1024 + 1024 * 512 + 512 * 256 + 256
    ranker = CATALOG.batch_models["dlrm-dcnv2"]
    assert (ranker.parameters, ranker.gather_elements_per_item) == (weights, 214 * 128)
    assert ranker.flops_per_item == pytest.approx(2 * weights, rel=1e-3)
    assert 4 * (ranker.table_elements + ranker.parameters) / 2**30 == pytest.approx(97.31, rel=2e-3)  # fp32, as published


@pytest.mark.parametrize("name", CATALOG.batch_models)
def test_every_model_runs_on_a_gpu_and_on_processors(name: str) -> None:
    model = CATALOG.batch_models[name]
    for accelerator in ("h100-sxm", "xeon-spr-2s"):
        dtype = batch_arithmetic(model, CATALOG.accelerators[accelerator])
        assert dtype is not None
        assert batch_memory(model, CATALOG.accelerators[accelerator], dtype, 1).fits


def test_validity_is_that_of_the_row_and_no_more_elsewhere() -> None:
    own, of_class = CATALOG.batch_fit("l4", "convolution"), CATALOG.batch_fit("a10g", "convolution")
    a10g, tpu = CATALOG.accelerators["a10g"], CATALOG.accelerators["tpu-v5e"]
    assert (fit_validity(own, L4, "int8"), fit_validity(own, L4, "bf16")) == ("fitted", "transferred")
    assert (fit_validity(of_class, a10g, "int8"), fit_validity(of_class, tpu, "int8")) == ("transferred", "assumed")


def test_memory_by_hand_and_what_would_make_it_fit() -> None:
    """3e9 weights and entries, 1e7 live of each of 2,000 items, and the runtime: 23 GB in int8 fit into 22.03 GiB, 46 do not."""
    fits, not_so = (batch_memory(MODEL, L4, dtype, 2_000) for dtype in ("int8", "bf16"))
    assert (fits.taken_bytes, fits.fits, fits.remedies) == (23e9 + RUNTIME_BYTES, True, ())
    assert (not_so.taken_bytes, not_so.fits) == (46e9 + RUNTIME_BYTES, False)
    room = int((22.03 * 2**30 - 6e9 - RUNTIME_BYTES) // 2e7)
    bigger = f"an accelerator that exposes at least {(46e9 + RUNTIME_BYTES) / 2**30:.1f} GiB (l4: 22.03)"
    assert not_so.remedies == ("dtype=int8", f"max_batch={room}", bigger)
    assert batch_memory(MODEL, L4, "bf16", room).fits
    assert not batch_memory(MODEL, L4, "bf16", room + 1).fits


def test_power_counts_the_operations_and_bytes_of_the_time() -> None:
    """32 images in int8 on an L4: u_c and u_m are their operations and bytes over what the peaks do in T."""
    model, fit = CATALOG.batch_models["resnet50"], CATALOG.batch_fit("l4", "convolution")
    slow = replace(fit, eta_compute=0.05, batch_s=0.0)  # slow: at the power limit every use is the same
    step = roofline_step_model(model, L4, slow, "int8", 32)
    flops, moved = batch_work(model, "int8", 32)
    time_s = step.tokens_fx[32] / ONE_NS_FX / 1e9
    compute_use, memory_use = flops[32] / (242e12 * time_s), moved[32] / (300e9 * time_s)
    power_w = step.step_j(step.tokens_fx[32], 32, 32, 0, 0) / time_s
    assert power_w < L4.tdp_w
    assert power_w == pytest.approx(stepping_power_w(L4, memory_use, compute_use, "int8"), rel=1e-6)


def test_between_batches_the_accelerator_is_idle() -> None:
    """10 ms more for the host of a batch cost the idle power and no more."""
    model, fit = CATALOG.batch_models["resnet50"], replace(CATALOG.batch_fit("l4", "convolution"), eta_compute=0.05)
    energies_j = []
    for batch_s in (0.0, 0.01):
        step = roofline_step_model(model, L4, replace(fit, batch_s=batch_s), "int8", 32)
        energies_j.append(step.step_j(step.tokens_fx[32], 32, 32, 0, 0))
    assert energies_j[1] - energies_j[0] == pytest.approx(0.01 * L4.idle_w, rel=1e-6)


def scenario(batcher: dict[str, Any], rate_per_s: float = 10.0, items: int = 1, **changes: Any) -> Scenario:
    """One model on one L4."""
    return Scenario(
        horizon=changes.pop("horizon", "1min"),
        services={
            "photos": Service(
                workload=Items(rate_per_s=rate_per_s, items=TokenLengths(family="fixed", mean=items)),
                deployments=["model"],
                slo=Slo(e2e_s=0.1),
            )
        },
        deployments={"model": Deployment(pools=["gpu"], autoscaler=Static(1), batcher=DynamicBatcher(**batcher), **changes)},
        pools={"gpu": Pool(instance="g6.xlarge", cold_start=FIXED)},
    )


def test_a_scenario_names_a_model(tmp_path: Path) -> None:
    """Its time, size and validity come from the catalog, in the sheet, in what is shown and in the manifest."""
    made = scenario({"model": "retinanet", "dtype": "int8", "max_batch": 16}, rate_per_s=20.0)
    kind = resolve(made).kinds["model", "gpu"]
    alone_s = usual("retinanet", "l4")[0]
    assert kind.weight_bytes == resident_bytes(CATALOG.batch_models["retinanet"], "int8") == 37_074_199
    assert kind.step.step_fx(1, 1, 0, 0) / ONE_NS_FX / 1e9 == pytest.approx(alone_s, rel=1e-9)
    [sheet] = capacity_report(made).kinds
    assert sheet.full is not None
    assert (sheet.validity, sheet.full.batch) == ("fitted", 16)
    shown = {number.name: number for number in numbers(resolve(made)) if number.about == "model on gpu"}
    assert (shown["batch of 1"].confidence, shown["90 % band of batch times"].value) == ("fitted", 20.0)
    assert shown["operations of an item"].value == 396.0
    assert shown["roofline of a model"].value == "retinanet in int8"
    result = simulate(made, out=tmp_path / "run")
    assert result.manifest["step_models"]["model on gpu"]["validity"] == "fitted"
    result.close()


def test_a_user_brings_a_model_and_what_it_reaches(tmp_path: Path) -> None:
    """A row of each kind in a catalog file; twice the share of the peak halves the compute of a large batch."""
    fields = "eta_memory: 0.8, eta_gather: 0.5, launch_s: 0, batch_s: 0, overlap: 0, dtypes: [int8], band: 0.1, validity: fitted"
    provenance = "source: mine, date: 2026-11-23, confidence: fitted"
    (tmp_path / "mine.yaml").write_text(
        f"""
batch_models:
  my-net: {{family: dense, item: a row, parameters: 1000, table_elements: 0, flops_per_item: 1.0e+9, io_elements_per_item: 1,
    gather_elements_per_item: 0, live_elements_per_item: 1, launches: 1, weight_reads: 1, dtypes: [int8], {provenance}}}
batch_fits:
  l4/dense: {{eta_compute: 0.5, {fields}, {provenance}}}
""",
        encoding="utf-8",
    )
    made = scenario({"model": "my-net", "max_batch": 1000})
    made.catalog = str(tmp_path / "mine.yaml")
    step = resolve(check(made)).kinds["model", "gpu"].step
    assert (step.validity, step.band) == ("fitted", 0.1)
    assert step.tokens_fx[1000] / ONE_NS_FX / 1e9 == pytest.approx(1e12 / (0.5 * 242e12), rel=1e-6)


def test_batches_of_one_are_an_m_d_1_queue(tmp_path: Path) -> None:
    """Load 0.7 of batches of one image: response T + rho T / (2 (1 - rho)), within four standard errors of a mean of 240,000."""
    time_s = float(usual("resnet50", "l4", most=1)[0])
    rate_per_s = 0.7 / time_s
    made = scenario({"model": "resnet50", "dtype": "int8", "max_batch": 1}, rate_per_s=rate_per_s, horizon="100s")
    result = simulate(made, out=tmp_path / "run")
    expected_s = m_g_1(rate_per_s, time_s, scv=0.0).response_s
    assert result.summary["latency"]["photos"]["e2e_s"]["mean"] == pytest.approx(expected_s, rel=0.02)
    result.close()


def test_an_overloaded_replica_serves_full_batches(tmp_path: Path) -> None:
    """Twice as many images as can be served: as many leave as full batches bring."""
    full_per_s = 32 / float(usual("retinanet", "l4", most=32)[-1])
    made = scenario({"model": "retinanet", "dtype": "int8", "max_batch": 32}, rate_per_s=2 * full_per_s, horizon="2min")
    result = simulate(made, out=tmp_path / "run")
    assert result.summary["requests"]["completed"] == pytest.approx(120 * full_per_s, rel=0.01)
    result.close()


def test_everything_wrong_comes_at_once() -> None:
    made = scenario({"model": "resnet50", "dtype": "fp32", "batch_times": {"1": "1 ms"}, "weights_gb": 3.0, "max_delay_s": -1.0})
    with pytest.raises(InputError) as caught:
        check(made)
    assert sorted(problem.path.removeprefix("deployments.model.batcher.") for problem in caught.value.problems) == [
        "batch_times",
        "dtype",
        "max_delay_s",
        "weights_gb",
    ]


@pytest.mark.parametrize(
    ("batcher", "path", "says"),
    [
        ({"model": "resnet5"}, "model", "did you mean 'resnet50'"),
        ({"model": "resnet50", "dtype": "int4"}, "dtype", "is no type of resnet50"),
        ({"model": "dlrm-dcnv2", "dtype": "bf16"}, "model", "do not fit on a l4"),
        ({"dtype": "int8", "fixed_s": 0.01}, "dtype", "is of a model of the catalog"),
        ({"model": "resnet50", "fixed_s": 0.01}, "fixed_s", "comes from the catalog with model: resnet50"),
    ],
)
def test_each_rule_of_a_model(batcher: dict[str, Any], path: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        check(scenario(batcher))
    found = {problem.path: str(problem) for problem in caught.value.problems}
    assert says in found[f"deployments.model.batcher.{path}"]


def test_an_accelerator_without_the_type_says_what_it_has() -> None:
    made = scenario({"model": "resnet50", "dtype": "fp8"})
    made.pools["gpu"].instance = "g4dn.xlarge"
    with pytest.raises(InputError) as caught:
        check(made)
    assert "t4 does not compute it" in str(caught.value.problems[0])


def test_rows_that_contradict_themselves() -> None:
    problems = Problems()
    check_batch_model(replace(MODEL, family="convolutions", flops_per_item=0.0, gather_elements_per_item=0.0), "a", problems)
    check_batch_model(replace(MODEL, dtypes=("fp32", "int4"), weight_reads=0), "b", problems)
    check_batch_fit(replace(FIT, eta_compute=1.5, overlap=2.0, band=0.0), "l5/dens", "c", CATALOG.accelerators, problems)
    assert [problem.path for problem in problems.found] == [
        "a.family",
        "a.flops_per_item",
        "b.dtypes[1]",
        "b.weight_reads",
        "b.dtypes",
        "c",
        "c",
        "c.overlap",
        "c.eta_compute",
        "c.band",
    ]


def test_every_type_has_bytes_and_an_arithmetic() -> None:
    assert {arithmetic for _, arithmetic in DTYPES.values()} <= {
        key for each in CATALOG.accelerators.values() for key in each.dense_tflops
    }
