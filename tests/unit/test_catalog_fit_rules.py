"""Rows of step times that rules make of other rows: which row comes of which, and what a rule may never do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.catalog.fit_rules import BANDS, VALIDITIES, completed_fits
from sim.catalog.loader import load_catalog
from sim.domain.hardware import WEIGHT_TYPES, FitRule, StepFit, TypeRule
from sim.errors import InputError, Problems

CATALOG = load_catalog()
GIVEN = {name: row for name, row in CATALOG.fits.items() if row.validity == "fitted"}
PLAIN = GIVEN["h100-sxm/vllm/bf16"]


def completed(
    given: dict[str, StepFit], rules: dict[str, FitRule] | None = None, types: dict[str, TypeRule] | None = None
) -> dict[str, StepFit]:
    return completed_fits(CATALOG.accelerators, given, rules or {}, CATALOG.type_rules if types is None else types)


def rule(name: str, like: str, **changes: object) -> FitRule:
    return replace(CATALOG.fit_rules["h200-sxm"], name=name, like=like, **changes)  # type: ignore[arg-type]


def test_every_accelerator_runs_every_type_whose_arithmetic_it_has_with_every_family_of_kernels() -> None:
    for name, accelerator in CATALOG.accelerators.items():
        for family in ("vllm", "trtllm"):
            for dtype, (_, arithmetic) in WEIGHT_TYPES.items():
                assert (f"{name}/{family}/{dtype}" in CATALOG.fits) == (arithmetic in accelerator.dense_tflops)


def test_rules_never_say_more_than_the_rows_they_take() -> None:
    for name, row in CATALOG.fits.items():
        assert row.name == name
        assert (row.validity == "fitted") == (name in GIVEN)
        assert all(0 < getattr(row, band) <= 0.5 for band in BANDS)
        assert all(0 < value <= 1 for field, value in vars(row).items() if field.startswith("eta_"))
        least = CATALOG.fit_rules[name.split("/")[0]].least_band if name.split("/")[0] in CATALOG.fit_rules else 0.0
        assert row.band >= least
        if row.validity != "fitted":
            assert row.provenance.confidence == "assumed"
            assert row.notes.startswith(("as ", name.split("/")[0]))


def test_a_row_of_a_file_stays_as_it_is() -> None:
    assert all(CATALOG.fits[name] is row for name, row in GIVEN.items())
    rules = {"h100-sxm": rule("h100-sxm", "a100-sxm-80")}
    assert completed({PLAIN.name: PLAIN}, rules)[PLAIN.name] is PLAIN


def test_an_accelerator_is_like_another_but_for_what_its_rule_says() -> None:
    rules = {"h100-pcie": rule("h100-pcie", "h100-sxm", link_like="l40s", eta_compute=0.5, least_band=0.3, validity="assumed")}
    made = completed(GIVEN, rules)
    plain, fp8 = made["h100-pcie/vllm/bf16"], made["h100-pcie/vllm/fp8"]
    own, own_fp8, l40s = PLAIN, GIVEN["h100-sxm/vllm/fp8"], GIVEN["l40s/vllm/bf16"]
    assert (plain.eta_compute, plain.eta_weights, plain.layer_s) == (0.5, own.eta_weights, own.layer_s)
    assert fp8.eta_compute == pytest.approx(own_fp8.eta_compute * 0.5 / own.eta_compute)
    assert (plain.eta_link, plain.allreduce_s, plain.link_growth) == (l40s.eta_link, l40s.allreduce_s, l40s.link_growth)
    assert (plain.validity, plain.band, plain.decode_band) == ("assumed", 0.3, 0.3)
    assert plain.notes == "as h100-sxm/vllm/bf16 but for eta_compute; all-reduces as l40s/vllm/bf16"


def test_a_type_changes_efficiencies_by_the_median_factor_and_times_by_the_mean_difference() -> None:
    # The H100 goes from bf16 to fp8 in two families: factors 0.8 and 0.6, 10 us and 30 us a layer more.
    def fp8(kernels: str, factor: float, layer_s: float) -> StepFit:
        plain = GIVEN[f"h100-sxm/{kernels}/bf16"]
        return replace(
            plain,
            name=f"h100-sxm/{kernels}/fp8",
            eta_compute=plain.eta_compute * factor,
            layer_s=plain.layer_s + layer_s,
            activation_bytes=plain.activation_bytes + 3.35,
        )

    rows = {name: GIVEN[name] for name in ("h100-sxm/vllm/bf16", "h100-sxm/trtllm/bf16", "l40s/vllm/bf16")}
    rows |= {row.name: row for row in (fp8("vllm", 0.8, 10e-6), fp8("trtllm", 0.6, 30e-6))}
    made, l40s = completed(rows), GIVEN["l40s/vllm/bf16"]
    found = made["l40s/vllm/fp8"]
    assert found.eta_compute == pytest.approx(l40s.eta_compute * 0.7)
    assert found.eta_attention == pytest.approx(l40s.eta_attention)
    assert found.layer_s == pytest.approx(l40s.layer_s + 10e-6)  # launches are the software's: those of vLLM
    # 3.35 bytes at 3.35e12 B/s are a picosecond; at 864e9 B/s so are 0.864 bytes.
    assert found.activation_bytes == pytest.approx(l40s.activation_bytes + 0.864)
    assert found.validity == "transferred"
    assert found.band == max(l40s.band, CATALOG.type_rules["fp8"].least_band)


def test_eight_bits_lie_between_four_and_sixteen() -> None:
    int8, int4, bf16 = (CATALOG.fits[f"a100-sxm-80/trtllm/{dtype}"] for dtype in ("int8_wo", "int4_wo", "bf16"))
    assert int8.eta_weights == pytest.approx((int4.eta_weights * bf16.eta_weights) ** 0.5)
    assert int8.layer_s == pytest.approx((int4.layer_s + bf16.layer_s) / 2)
    assert (int4.validity, int8.validity) == ("fitted", "transferred")


def test_kernels_without_rows_are_those_of_the_other_family() -> None:
    row = completed(GIVEN)["l40s/trtllm/bf16"]
    assert (row.eta_compute, row.validity) == (GIVEN["l40s/vllm/bf16"].eta_compute, "transferred")
    assert row.notes == "as l40s/vllm/bf16: no rows of trtllm"


def test_rules_in_a_circle_make_no_rows() -> None:
    rules = {"l4": rule("l4", "t4"), "t4": rule("t4", "l4")}
    assert not [name for name in completed(GIVEN, rules) if name.startswith(("l4/", "t4/"))]


@given(st.sampled_from(sorted(CATALOG.fits)))
def test_more_trust_is_never_made(name: str) -> None:
    row = CATALOG.fits[name]
    accelerator = name.split("/")[0]
    if accelerator in CATALOG.fit_rules:
        fit_rule = CATALOG.fit_rules[accelerator]
        taken = CATALOG.fits.get(name.replace(accelerator, fit_rule.like, 1))
        trusts = [VALIDITIES.index(fit_rule.validity)] + ([VALIDITIES.index(taken.validity)] if taken else [])
        assert VALIDITIES.index(row.validity) >= max(trusts)
        assert taken is None or all(getattr(row, band) >= getattr(taken, band) for band in BANDS)


SOURCE = "source: measured here\n      date: 2026-11-23\n      confidence: fitted\n"


def test_an_overlay_changes_a_row_that_a_rule_made(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(f"fits:\n    h200-sxm/vllm/bf16:\n      eta_weights: 0.8\n      {SOURCE}", encoding="utf-8")
    row = load_catalog(own).fits["h200-sxm/vllm/bf16"]
    assert (row.eta_weights, row.eta_compute, row.provenance.source) == (0.8, PLAIN.eta_compute, "measured here")


def test_an_accelerator_of_ones_own_needs_a_rule_or_rows(tmp_path: Path) -> None:
    card = "".join(
        f"      {line}\n"
        for line in (
            "dense_tflops: {bf16: 100, int8: 200}",
            "memory_gib: 32\n      usable_gib: 31",
            "bandwidth_gb_per_s: 1000\n      link_gb_per_s: 32\n      link: pcie",
            "tdp_w: 300\n      idle_w: 30\n      power: shared",
        )
    )
    own = tmp_path / "own.yaml"
    own.write_text(f"accelerators:\n    mine:\n{card}      {SOURCE}", encoding="utf-8")
    alone, problems = load_catalog(own), Problems()
    assert alone.fit("mine", alone.engines["vllm-2026"], "bf16", "deployments.chat.weight_dtype", problems) is None
    assert "no step times of vllm kernels on mine" in problems.found[0].allowed
    fit_rule = f"fit_rules:\n    mine:\n      like: l40s\n      validity: assumed\n      least_band: 0.3\n      {SOURCE}"
    own.write_text(f"{own.read_text(encoding='utf-8')}{fit_rule}", encoding="utf-8")
    ruled = load_catalog(own).fits["mine/vllm/w8a8"]
    assert (ruled.validity, ruled.notes) == ("assumed", "as l40s/vllm/w8a8")


def test_a_rule_must_name_what_there_is(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(
        f"fit_rules:\n    l4:\n      like: l40\n      validity: fitted\n      {SOURCE}"
        f"type_rules:\n    int8_wo:\n      between: [int4_wo, bf61]\n      {SOURCE}",
        encoding="utf-8",
    )
    with pytest.raises(InputError) as raised:
        load_catalog(own)
    found = {(problem.path, problem.nearest) for problem in raised.value.problems}
    assert {("fit_rules.l4.like", "l40s"), ("type_rules.int8_wo.between", "bf16")} <= found
    assert any(problem.path == "fit_rules.l4.validity" for problem in raised.value.problems)


def test_eight_bits_are_alike_where_one_kind_is_fitted() -> None:
    """int8 on an H100 has the peak and the bytes of fp8; on an A100, which has no fp8, it has a row of its own."""
    fits = load_catalog().fits
    fp8, int8 = fits["h100-sxm/vllm/fp8"], fits["h100-sxm/vllm/w8a8"]
    assert (int8.eta_compute, int8.layer_s, int8.validity) == (fp8.eta_compute, fp8.layer_s, "transferred")
    assert int8.band >= 0.2
    assert fits["a100-sxm-80/trtllm/w8a8"].validity == "fitted"
    assert fits["h200-sxm/vllm/w8a8"].eta_compute == fp8.eta_compute
