"""A user's overlay: merged row by row, refused with every problem at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim.catalog.loader import KINDS, load_catalog
from sim.errors import InputError, Problem

SOURCED = "source: a quote from our seller\n    date: 2026-11-01\n    confidence: published\n"


def overlay(folder: Path, text: str) -> Path:
    file = folder / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def problems_of(folder: Path, text: str) -> dict[str, Problem]:
    with pytest.raises(InputError) as caught:
        load_catalog(overlay(folder, text))
    return {problem.path: problem for problem in caught.value.problems}


def test_an_existing_row_keeps_the_fields_that_are_not_given(tmp_path: Path) -> None:
    catalog = load_catalog(overlay(tmp_path, f"accelerators:\n  h100-sxm:\n    idle_w: 90\n    {SOURCED}"))
    mine, theirs = catalog.accelerators["h100-sxm"], load_catalog().accelerators["h100-sxm"]
    assert (mine.idle_w, mine.tdp_w, mine.power) == (90.0, theirs.tdp_w, theirs.power)
    assert mine.provenance.source == "a quote from our seller"
    assert theirs.idle_w != 90.0
    assert catalog.models == load_catalog().models


def test_a_price_of_another_region_is_added_and_of_the_same_region_replaced(tmp_path: Path) -> None:
    price = '- {usd_per_hour: "%s", valid_from: 2026-11-01, source: a quote of ours, date: 2026-11-01, confidence: published}'
    here, there = f"      us-east-1: [{price[2:] % '5.00'}]\n", f"      eu-west-9: [{price[2:] % '7.25'}]\n"

    def prices(regions: str) -> dict[str, str]:
        catalog = load_catalog(overlay(tmp_path, f"instances:\n  p5.4xlarge:\n    on_demand:\n{regions}    {SOURCED}"))
        return {region: prices[-1].usd_per_hour for region, prices in catalog.instances["p5.4xlarge"].on_demand.items()}

    listed = {region: prices[-1].usd_per_hour for region, prices in load_catalog().instances["p5.4xlarge"].on_demand.items()}
    assert listed["us-east-1"] == "6.88"
    assert prices(there) == {**listed, "eu-west-9": "7.25"}
    assert prices(here + there) == {**listed, "us-east-1": "5.00", "eu-west-9": "7.25"}


def test_a_row_with_a_new_name_can_stand_on_new_rows(tmp_path: Path) -> None:
    text = f"""
week_profiles:
  flat:
    weights: [{", ".join(["1.0"] * 168)}]
    {SOURCED}
workloads:
  mine:
    base_rate_per_s: 2
    source_rate_per_s: 2
    renewal_cv: 1
    noise_sd: 0
    noise_tau_s: 300
    week_profile: flat
    prompt: {{weights: [1.0], mu: [-0.5], sigma: [1.0], cap_tokens: 100}}
    output: {{weights: [1.0], mu: [5.0], sigma: [1.0], cap_tokens: 100}}
    spearman: -0.5
    {SOURCED}
"""
    catalog = load_catalog(overlay(tmp_path, text))
    assert catalog.workloads["mine"].week_profile == "flat"
    assert catalog.workloads["mine"].prompt.mu == (-0.5,)


@pytest.mark.parametrize("key", ["source", "date", "confidence"])
def test_a_row_without_provenance_is_refused_even_where_it_changes_another(tmp_path: Path, key: str) -> None:
    lines = [line for line in SOURCED.splitlines() if not line.strip().startswith(key)]
    text = "accelerators:\n  h100-sxm:\n    idle_w: 90\n" + "".join(f"    {line.strip()}\n" for line in lines)
    found = problems_of(tmp_path, text)
    assert list(found) == [f"accelerators.h100-sxm.{key}"]
    assert found[f"accelerators.h100-sxm.{key}"].message == "every row needs a source, a date and a confidence"


@pytest.mark.parametrize("kind", KINDS)
def test_no_row_of_any_kind_is_taken_without_a_source(tmp_path: Path, kind: str) -> None:
    name = next(iter(load_catalog().table(kind)))
    found = problems_of(tmp_path, f"{kind}:\n  {name}:\n    date: 2026-11-01\n    confidence: published\n")
    assert list(found) == [f"{kind}.{name}.source"]


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    text = """
gpus: {}
accelerators:
  h100-sxm:
    tdp_w: -700
    idel_w: 90
    usable_gib: 1e2
    source: a data sheet
    date: yesterday
    confidence: certain
models:
  new:
    layers: 2.5
    source: a model card
    date: 2026-01-01
    confidence: published
instances:
  p5.4xlarge:
    accelerator: h100-smx
    on_demand: {us-east-1: [{usd_per_hour: 6.88, valid_from: 2026-13-01}]}
    source: a price list
    date: 2026-01-01
    confidence: published
grids:
  us-east-1: 3
"""
    found = problems_of(tmp_path, text)
    assert found["gpus"].allowed.startswith("powers, accelerators")
    assert found["accelerators.h100-sxm.tdp_w"].allowed == "a number of at least 0"
    assert (found["accelerators.h100-sxm"].value, found["accelerators.h100-sxm"].nearest) == ("idel_w", "idle_w")
    assert "write 1.0e-6" in found["accelerators.h100-sxm.usable_gib"].message
    assert found["accelerators.h100-sxm.date"].allowed == "YYYY-MM-DD"
    assert found["accelerators.h100-sxm.confidence"].allowed == "fitted, published, assumed"
    assert found["models.new.layers"].message == "not a whole number"
    assert found["models.new.hidden"].message == "missing"
    price = "instances.p5.4xlarge.on_demand.us-east-1.0"
    assert found[f"{price}.usd_per_hour"].message == "must be a positive decimal in quotes"
    assert found[f"{price}.valid_from"].message == "not a date"
    assert found[f"{price}.source"].message == "every row needs a source, a date and a confidence"
    assert found["grids.us-east-1"].message == "must be a mapping from fields to values"


@pytest.mark.parametrize(
    ("kind", "name", "change", "path", "message"),
    [
        ("instances", "p5.4xlarge", "accelerator: h100-smx", ".accelerator", "no such row in accelerators"),
        ("accelerators", "h100-sxm", "power: sharde", ".power", "no such row in powers"),
        ("accelerators", "h100-sxm", "usable_gib: 81", ".usable_gib", "more than memory_gib"),
        ("accelerators", "h100-sxm", "bandwidth_gb_per_s: 0", ".bandwidth_gb_per_s", "out of range"),
        ("engines", "vllm-2026", "kernels: vlm", ".kernels", "no fits of these kernels"),
        ("engines", "vllm-2026", "memory_utilization: 1.2", ".memory_utilization", "out of range"),
        ("engines", "vllm-2026", "tpot_band: [0.1]", ".tpot_band", "not a band"),
        ("engines", "vllm-2026", "ttft_band: [1.2, 0.3]", ".ttft_band", "not a band"),
        ("models", "llama-3.1-8b", "kv_heads: 7", ".kv_heads", "must divide heads"),
        ("models", "llama-3.1-8b", "gated: 1", ".gated", "must be true or false"),
        ("grids", "us-east-1", "pue: 0.9", ".pue", "out of range"),
        ("cold_starts", "pulling", "p95_s: 10", "", "neither a duration nor a bandwidth"),
        ("fits", "h100-sxm/vllm/bf16", "validity: measured", ".validity", "not a validity"),
        ("workloads", "chat-azure-2023", "week_profile: flat", ".week_profile", "no such row in week_profiles"),
        (
            "workloads",
            "chat-azure-2023",
            "prompt: {weights: [0.5], mu: [1.0], sigma: [1.0], cap_tokens: 9}",
            ".prompt.weights",
            "must sum to 1",
        ),
        ("week_profiles", "azure-2024-conv", "weights: [1.0]", ".weights", "wrong number of weights"),
    ],
)
def test_rows_are_checked_against_themselves_and_each_other(
    tmp_path: Path, kind: str, name: str, change: str, path: str, message: str
) -> None:
    found = problems_of(tmp_path, f"{kind}:\n  {name}:\n    {change}\n    {SOURCED}")
    assert found[f"{kind}.{name}{path}"].message == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: [1", "not readable as YAML"),
        ("models: {}\nmodels: {}\n", "is given twice"),
        ("- 1\n", "must be a mapping from kinds to rows"),
        ("!!python/object/apply:os.getcwd []\n", "not readable as YAML"),
    ],
)
def test_a_file_that_is_no_catalog_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (problem,) = problems_of(tmp_path, text).values()
    assert message in problem.message


def test_a_missing_file_is_one_problem(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        load_catalog(tmp_path / "absent.yaml")


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert load_catalog(overlay(tmp_path, "")) == load_catalog()
