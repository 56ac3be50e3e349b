"""The package's catalog: complete, sourced, and consistent with what it is made of."""

from __future__ import annotations

import pickle
import re
from dataclasses import is_dataclass
from datetime import date

import pytest

from sim.catalog.loader import KINDS, load_catalog
from sim.catalog.reading import CONFIDENCES
from sim.domain.hardware import ColdStart, Provenance
from sim.errors import Problems
from sim.units import nano_usd

CATALOG = load_catalog()
# No row can have been read after the day on which the rows were last looked through: move it when rows are added.
CHECKED = date(2026, 11, 23)


def provenances(thing: object) -> list[Provenance]:
    """Every provenance inside a row, however deep."""
    if isinstance(thing, Provenance):
        return [thing]
    if isinstance(thing, dict):
        return [found for item in thing.values() for found in provenances(item)]
    if isinstance(thing, tuple):
        return [found for item in thing for found in provenances(item)]
    return [found for item in vars(thing).values() for found in provenances(item)] if is_dataclass(thing) else []


@pytest.mark.parametrize("kind", KINDS)
def test_every_row_says_where_it_comes_from(kind: str) -> None:
    assert CATALOG.table(kind)
    for name, row in CATALOG.table(kind).items():
        assert provenances(row), name
        for provenance in provenances(row):
            assert len(provenance.source) > 10, name
            assert date(2023, 1, 1) <= date.fromisoformat(provenance.date) <= CHECKED, name
            assert provenance.confidence in CONFIDENCES, name


def test_the_catalog_names_no_path_of_a_machine() -> None:
    for kind in KINDS:
        for row in CATALOG.rows(kind):
            assert not re.search(r"/home/|/tmp/|shared/", " ".join(str(value) for value in row.values())), row["name"]


def test_prices_of_the_first_scenarios() -> None:
    def price(instance: str) -> str:
        last = CATALOG.instances[instance].on_demand["us-east-1"][-1]
        # p5.4xlarge came after the cut of 2025-06-01
        assert last.valid_from == ("2026-07-20" if instance == "p5.4xlarge" else "2025-06-01")
        assert last.provenance.confidence == "published"
        return last.usd_per_hour

    prices = {"p5.4xlarge": "6.88", "p5.48xlarge": "55.04", "p4de.24xlarge": "27.44705", "p4d.24xlarge": "21.957642"}
    assert {name: price(name) for name in prices} == prices
    assert nano_usd(price("p5.48xlarge")) == 8 * nano_usd(price("p5.4xlarge"))


def test_every_region_with_a_price_has_a_grid_and_every_host_its_share() -> None:
    for name, instance in CATALOG.instances.items():
        assert set(instance.on_demand) <= set(CATALOG.grids), name
        whole_computer = CATALOG.accelerators[instance.accelerator].link == "none"
        assert instance.host_w == (0 if whole_computer else 400 * instance.accelerators / 8), name


def test_the_source_hour_of_the_chat_preset_has_the_rate_of_its_trace() -> None:
    preset = CATALOG.workloads["chat-azure-2023"]
    week = CATALOG.week_profiles[preset.week_profile].weights
    thursday_18h = week[3 * 24 + 18]
    assert thursday_18h == 1.231
    assert preset.base_rate_per_s * thursday_18h == pytest.approx(preset.source_rate_per_s, rel=1e-3)
    assert (preset.renewal_cv, preset.noise_sd, preset.noise_tau_s, preset.spearman) == (1.05, 0.23, 300.0, 0.07275)
    assert preset.prompt.mu == (6.273, 6.977, 8.315)
    assert (preset.prompt.cap_tokens, preset.output.cap_tokens) == (14050, 1000)


def test_week_profile_knows_weekdays_from_weekends() -> None:
    week = CATALOG.week_profiles["azure-2024-conv"].weights
    days = [sum(week[24 * day : 24 * day + 24]) / 24 for day in range(7)]
    assert [round(day, 2) for day in days] == [1.18, 1.22, 1.13, 1.14, 1.03, 0.66, 0.64]


def test_fits_of_the_transfer_rows_are_marked() -> None:
    assert CATALOG.fits["h100-sxm/vllm/fp8"].validity == "fitted"
    h200, h100 = CATALOG.fits["h200-sxm/vllm/bf16"], CATALOG.fits["h100-sxm/vllm/bf16"]
    assert (h200.validity, h200.provenance.confidence, h200.eta_weights) == ("transferred", "assumed", h100.eta_weights)
    assert CATALOG.fits["l4/vllm/bf16"].validity == "assumed"
    assert all((fit.validity == "fitted") == (fit.provenance.confidence == "fitted") for fit in CATALOG.fits.values())


def test_every_accelerator_has_step_times_in_bf16() -> None:
    kernels = {engine.kernels for engine in CATALOG.engines.values()}
    for name in CATALOG.accelerators:
        for family in kernels:
            assert f"{name}/{family}/bf16" in CATALOG.fits


def test_cold_start_stages_have_a_default_each_and_bandwidths_load_by_bytes() -> None:
    rows = CATALOG.cold_starts
    assert all(rows[stage].stage == stage for stage in ("pending", "booting", "pulling", "warming"))
    assert {name for name, row in rows.items() if row.stage == "loading"} == {"hub", "object_store", "nvme", "page_cache"}
    nvme: ColdStart = rows["nvme"]
    assert nvme.times_s(16e9) == (pytest.approx(5.0), pytest.approx(8.0))
    assert rows["pulling"].times_s(12e9) == pytest.approx((104.0, 300.0))
    assert rows["pulling"].times_s(24e9) == pytest.approx((208.0, 600.0))


def test_lookup_reports_the_nearest_name_and_fits_what_there_is() -> None:
    problems = Problems()
    assert CATALOG.get("instances", "p5.4xlarge", "pools.main.instance", problems) is CATALOG.instances["p5.4xlarge"]
    assert len(problems) == 0
    assert CATALOG.get("instances", "p5.4xlage", "pools.main.instance", problems) is None
    assert (problems.found[0].path, problems.found[0].nearest) == ("pools.main.instance", "p5.4xlarge")
    vllm = CATALOG.engines["vllm-2026"]
    assert CATALOG.fit("h100-sxm", vllm, "fp8", "d", problems) is CATALOG.fits["h100-sxm/vllm/fp8"]
    assert CATALOG.fit("h100-sxm", vllm, "nvfp4", "d", problems) is None
    assert problems.found[-1].allowed == "fp32, bf16, fp8, w8a8, int8_wo, int4_wo, mxfp4"
    assert CATALOG.fit("an-own-chip", CATALOG.engines["trtllm-1"], "bf16", "d", problems) is None
    assert "no step times of trtllm kernels on an-own-chip" in problems.found[-1].allowed
    with pytest.raises(KeyError, match="it has: powers, accelerators"):
        CATALOG.table("gpus")


def test_rows_are_flat_and_keep_every_name() -> None:
    for kind in KINDS:
        rows = CATALOG.rows(kind)
        assert [row["name"] for row in rows] == list(CATALOG.table(kind))
        assert all(isinstance(value, str | int | float | bool) for row in rows for value in row.values())
        assert all(list(row)[-3:] == ["source", "date", "confidence"] for row in rows)
    shown = {row["name"]: row["on_demand"] for row in CATALOG.rows("instances")}
    assert shown["p5.4xlarge"].startswith(
        "us-east-1: 6.88 USD/h since 2026-07-20 (published), us-east-2: 6.88 USD/h since 2026-01-01"
    )


def test_the_catalog_is_loaded_once_and_travels_to_other_processes() -> None:
    assert load_catalog() is CATALOG
    assert load_catalog("") is CATALOG
    assert pickle.loads(pickle.dumps(CATALOG)) == CATALOG
