"""Accelerators and the machines that rent them: figures that are physically possible, and facts known from elsewhere."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from sim.catalog.loader import load_catalog
from sim.domain.hardware import Accelerator
from sim.errors import InputError

CATALOG = load_catalog()
ACCELERATORS = CATALOG.accelerators
EVERY = pytest.mark.parametrize("name", ACCELERATORS)
SOURCED = "source: a data sheet of ours\n    date: 2026-11-01\n    confidence: published\n"
# GeForce cards add up bf16 products at half the speed of a data-centre card, so that int8 is four times it.
HALF_SPEED_BF16 = {"rtx-4090"}


@EVERY
def test_half_the_bits_are_twice_the_arithmetic_never_four_times(name: str) -> None:
    # What a data sheet prints with 2:4 sparsity is twice too much beside a dense figure.
    peaks = ACCELERATORS[name].dense_tflops
    assert 1.0 <= peaks.get("fp8", peaks["bf16"]) / peaks["bf16"] <= 2.1
    if name not in HALF_SPEED_BF16:
        assert peaks.get("int8", peaks["bf16"]) / peaks["bf16"] <= 2.1
    if "fp4" in peaks:
        assert 1.9 <= peaks["fp4"] / peaks["fp8"] <= 3.2
    if "tf32" in peaks:
        assert peaks["bf16"] / peaks["tf32"] == pytest.approx(2.0, rel=0.02)


@EVERY
def test_bandwidth_goes_with_memory_and_arithmetic(name: str) -> None:
    # A memory is read in 17 ms (V100) to 1.5 s (the DIMMs of a server); 70 to 800 bf16 operations go with a byte.
    # A mistake of units (GB for GB/s, TFLOP/s for PFLOP/s, bits for bytes) leaves these by far.
    row = ACCELERATORS[name]
    assert 0.015 <= row.memory_gib * 2**30 / (row.bandwidth_gb_per_s * 1e9) <= 1.6
    assert 70 <= row.dense_tflops["bf16"] * 1e3 / row.bandwidth_gb_per_s <= 800


@EVERY
def test_memory_that_is_shown_is_a_little_less_than_the_label(name: str) -> None:
    row = ACCELERATORS[name]
    assert 0.84 <= row.usable_gib / row.memory_gib <= 1.0


@EVERY
def test_watts_are_in_order(name: str) -> None:
    row = ACCELERATORS[name]
    assert 0.1 <= row.idle_w / row.tdp_w <= 0.37
    assert row.min_power_w == 0 or row.idle_w <= row.min_power_w <= row.tdp_w
    # 0.4 (H200, TPU) to 4.3 W (A10G) for a dense TFLOP/s of bf16.
    assert 0.35 <= row.tdp_w / row.dense_tflops["bf16"] <= 4.5


@EVERY
def test_links_are_one_direction(name: str) -> None:
    row = ACCELERATORS[name]
    both_ways = {"pcie": {32, 64, 128}, "none": {0}, "nvlink": {300, 600, 900, 1800}}
    if row.link in both_ways:
        assert 2 * row.link_gb_per_s in both_ways[row.link]


@pytest.mark.parametrize(
    ("name", "pod_allreduce_tb_per_s", "chips"),
    # All-reduce bandwidth of a pod (docs.cloud.google.com/tpu/docs/v5e, v6e): what its chips send, so links in one direction.
    [("tpu-v5e", 51.2, 256), ("tpu-v6e", 102.4, 256)],
)
def test_tpu_links_are_those_of_the_published_pods(name: str, pod_allreduce_tb_per_s: float, chips: int) -> None:
    row = ACCELERATORS[name]
    assert row.pod_accelerators == chips
    assert row.link_gb_per_s * chips / 1e3 == pytest.approx(pod_allreduce_tb_per_s)


def test_units_against_published_figures_in_other_units() -> None:
    # 820 GiB/s of a Neuron chip is not 820 GB/s; 48 GiB of an L40S are 46,068 MiB to the driver; 3,040 TFLOP/s in a trn1.32xlarge.
    assert ACCELERATORS["inferentia2"].bandwidth_gb_per_s == pytest.approx(820 * 2**30 / 1e9, abs=0.1)
    assert ACCELERATORS["trainium1"].bandwidth_gb_per_s == ACCELERATORS["inferentia2"].bandwidth_gb_per_s
    assert ACCELERATORS["inferentia2"].link_gb_per_s == pytest.approx(192 * 2**30 / 1e9 / 2, abs=0.1)
    assert 16 * ACCELERATORS["trainium2"].bandwidth_gb_per_s / 1e3 == pytest.approx(46.4)
    assert ACCELERATORS["l40s"].usable_gib * 1024 <= 46_068
    trn1 = CATALOG.instances["trn1.32xlarge"]
    assert trn1.accelerators * ACCELERATORS[trn1.accelerator].dense_tflops["bf16"] == 3_040
    # 234.9 PFLOP/s in a v6e pod, 100 PetaOps of int8 in a v5e pod.
    assert 256 * ACCELERATORS["tpu-v6e"].dense_tflops["bf16"] / 1e3 == pytest.approx(234.9, rel=1e-3)
    assert 256 * ACCELERATORS["tpu-v5e"].dense_tflops["int8"] / 1e3 == pytest.approx(100, rel=0.01)
    # Advertised Jetson TOPS count sparsity and the DLA: GPU and DLA, dense, twice.
    for name, advertised, dla_dense in (("orin-nx-16", 100, 20), ("orin-nx-8", 70, 10), ("agx-orin-64", 275, 52.5)):
        assert 2 * (ACCELERATORS[name].dense_tflops["int8"] + dla_dense) == advertised
    # DDR5: channels x 8 bytes x transfers; AMX: 1,024 bf16 operations a core and cycle.
    emr = ACCELERATORS["xeon-emr-2s"]
    assert emr.bandwidth_gb_per_s == pytest.approx(2 * 8 * 8 * 5.6)
    assert emr.dense_tflops["bf16"] == pytest.approx(2 * 64 * 1024 * 1.9e9 / 1e12, rel=1e-3)
    part, whole = ACCELERATORS["xeon-spr-4c"], ACCELERATORS["xeon-spr-2s"]
    assert part.bandwidth_gb_per_s / whole.bandwidth_gb_per_s == pytest.approx(4 / 96)


def test_power_limits_of_the_brief() -> None:
    tdp_w = {name: row.tdp_w for name, row in ACCELERATORS.items()}
    assert {tdp_w["a100-sxm-80"], tdp_w["a100-sxm-40"]} == {400}
    assert tdp_w["a100-pcie-80"] == 300
    assert (tdp_w["h100-sxm"], tdp_w["h100-pcie"], tdp_w["l4"]) == (700, 350, 72)
    orin = ACCELERATORS["orin-nx-16"]
    assert (orin.min_power_w, orin.tdp_w) == (10, 25)


def test_pods_and_jobs() -> None:
    v5p = ACCELERATORS["tpu-v5p"]
    assert (v5p.pod_accelerators, v5p.largest_job, v5p.most_in_one_job) == (8960, 6144, 6144)
    assert ACCELERATORS["tpu-v5e"].most_in_one_job == 256
    assert ACCELERATORS["h100-sxm"].most_in_one_job == 0


def test_degrees_follow_the_link_where_a_row_says_nothing() -> None:
    assert ACCELERATORS["h100-sxm"].degrees == (1, 2, 4, 8)
    assert ACCELERATORS["l40s"].degrees == (1, 2, 4)
    assert ACCELERATORS["orin-nx-16"].degrees == (1,)
    assert ACCELERATORS["inferentia2"].degrees == (1, 2, 3, 4, 6, 8, 12)
    assert 2 not in ACCELERATORS["tpu-v5e"].degrees
    assert ACCELERATORS["h100-nvl"].degrees == (1, 2)


def test_every_accelerator_can_be_rented() -> None:
    assert {instance.accelerator for instance in CATALOG.instances.values()} == set(ACCELERATORS)
    assert all(instance.on_demand for instance in CATALOG.instances.values())


@pytest.mark.parametrize(
    ("name", "capital", "network", "residual", "months"),
    [("onprem-8xh100", 350_000, 0.12, 0.3, 36), ("edge-orin-nx-16", 950, 0, 0, 48), ("edge-agx-orin-64", 1_999, 0, 0, 48)],
)
def test_own_machines_cost_their_capital_over_their_life(
    name: str, capital: float, network: float, residual: float, months: int
) -> None:
    (price,) = next(iter(CATALOG.instances[name].on_demand.values()))
    expected = capital * (1 + network) * (1 - residual) / (months * 730) + capital * 0.05 / 8_760
    assert float(price.usd_per_hour) == pytest.approx(expected, abs=5e-5)
    assert price.provenance.confidence == "assumed"


def test_tpu_machines_cost_their_chips() -> None:
    for name, chip in (("ct5lp-hightpu-4t", "1.20"), ("ct5lp-hightpu-8t", "1.20"), ("ct5p-hightpu-4t", "4.20")):
        (price,) = next(iter(CATALOG.instances[name].on_demand.values()))
        assert Decimal(price.usd_per_hour) == Decimal(chip) * CATALOG.instances[name].accelerators


@pytest.mark.parametrize(
    ("name", "change", "field", "message"),
    [
        (
            "h100-sxm",
            "dense_tflops: {bf16: 989, fp8: 3958}",
            "dense_tflops.fp8",
            "more than 2.1 times bf16: a figure with sparsity?",
        ),
        ("h100-sxm", "dense_tflops: {bf16: 0}", "dense_tflops.bf16", "out of range"),
        ("h100-sxm", "link_gb_per_s: 0", "link_gb_per_s", "does not go with link nvlink"),
        ("orin-nx-16", "link_gb_per_s: 32", "link_gb_per_s", "does not go with link none"),
        ("h100-sxm", "link: nvlnk", "link", "not a link"),
        ("h100-sxm", "idle_w: 701", "idle_w", "more than tdp_w"),
        ("h100-sxm", "min_power_w: 701", "min_power_w", "more than tdp_w"),
        ("h100-sxm", "tensor_parallel: [2, 4]", "tensor_parallel", "must rise from 1"),
        ("tpu-v5p", "largest_job: 8961", "largest_job", "more than pod_accelerators"),
    ],
)
def test_an_accelerator_that_contradicts_itself_is_refused(
    tmp_path: Path, name: str, change: str, field: str, message: str
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"accelerators:\n  {name}:\n    {change}\n    {SOURCED}", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_catalog(file)
    found = {problem.path: problem.message for problem in caught.value.problems}
    assert found[f"accelerators.{name}.{field}"] == message


def test_an_accelerator_of_ones_own_needs_a_source(tmp_path: Path) -> None:
    row: Accelerator = ACCELERATORS["l4"]
    text = f"""accelerators:
  mine:
    dense_tflops: {{bf16: 100}}
    memory_gib: 32
    usable_gib: 31
    bandwidth_gb_per_s: 600
    link_gb_per_s: 32
    link: pcie
    tdp_w: 150
    idle_w: 30
    power: {row.power.name}
    """
    file = tmp_path / "mine.yaml"
    file.write_text(text + SOURCED, encoding="utf-8")
    assert load_catalog(file).accelerators["mine"].degrees == (1, 2, 4)
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_catalog(file)
    assert {problem.path for problem in caught.value.problems} == {
        f"accelerators.mine.{key}" for key in ("source", "date", "confidence")
    }
