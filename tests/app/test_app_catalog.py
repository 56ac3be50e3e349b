"""`billcast catalog`: parts of names, units, an overlay's marks, and the same as JSON."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from sim.app.catalog_rows import unit_of
from sim.app.catalog_view import catalog_json, show_catalog
from sim.app.cli import main
from sim.catalog.loader import KINDS, load_catalog
from sim.errors import InputError

OVERLAY = """
accelerators:
  h100-sxm:
    tdp_w: 500
    source: a power cap of ours
    date: 2026-11-01
    confidence: assumed
models:
  mine-1b:
    layers: 16
    hidden: 2048
    heads: 32
    kv_heads: 8
    head_dim: 64
    ffn: 8192
    gated: true
    vocabulary: 128256
    tied_embeddings: true
    max_model_len: 8192
    parameters: 1235814400
    source: our own model card
    date: 2026-11-01
    confidence: published
"""


def shown(kind: str | None, name: str | None = None, overlay: str | None = None, width: int = 160) -> str:
    console = Console(file=io.StringIO(), width=width)
    show_catalog(kind, name, overlay, console)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def words(text: str, start: str) -> list[list[str]]:
    """The words of the lines that start like this."""
    return [line.split() for line in text.splitlines() if line.split()[:1] == [start]]


@pytest.fixture
def overlay(tmp_path: Path) -> str:
    file = tmp_path / "mine.yaml"
    file.write_text(OVERLAY, encoding="utf-8")
    return str(file)


def test_every_kind_is_listed_with_the_number_of_its_rows() -> None:
    text, catalog = shown(None), load_catalog()
    for kind in KINDS:
        assert words(text, kind)[0][1] == str(len(catalog.table(kind)))


def test_part_of_a_name_lists_the_rows_that_have_it() -> None:
    text = shown("models", "MIXTRAL")
    assert words(text, "mixtral-8x7b")
    assert words(text, "mixtral-8x22b")
    assert not words(text, "llama-2-7b")
    assert "field" not in text


def test_a_whole_name_is_one_row_even_where_it_is_part_of_others() -> None:
    assert "llama-3.1-8b" in load_catalog().models
    text = shown("accelerators", "a10")
    assert words(text, "name") == [["name", "a10"]]
    assert "600" in text


def test_one_row_has_units_and_every_source() -> None:
    accelerator = shown("accelerators", "h100-sxm")
    assert words(accelerator, "bandwidth_gb_per_s") == [["bandwidth_gb_per_s", "3350", "GB/s"]]
    assert words(accelerator, "memory_gib")[0][-1] == "GiB"
    assert words(accelerator, "tdp_w")[0][-1] == "W"
    assert any("vllm, fitted" in line and "bf16" in line for line in accelerator.splitlines())
    assert "p5.4xlarge" in accelerator
    instance = shown("instances", "p5.4xlarge")
    assert words(instance, "price")[0][1:] == ["us-east-1", "6.88", "since", "2026-07-20", "USD/h"]
    assert "karpenter" in instance


def test_what_follows_from_a_model_is_beside_it() -> None:
    text = shown("models", "mixtral-8x7b")
    assert words(text, "active_linear_parameters")[0][1] == str(load_catalog().models["mixtral-8x7b"].active_linear_parameters)
    assert words(text, "bf16_kv_bytes_per_token") == [["bf16_kv_bytes_per_token", "131072", "B"]]


def test_an_overlay_is_shown_merged_with_what_it_changed(overlay: str) -> None:
    kinds = shown(None, overlay=overlay)
    assert "Overlay: 1 new." in kinds
    assert "Overlay: 1 changed." in kinds
    table = shown("accelerators", "h100", overlay)
    assert "changed" in words(table, "h100-sxm")[0]
    assert "changed" not in words(table, "h100-pcie")[0]
    row = shown("accelerators", "h100-sxm", overlay)
    assert words(row, "tdp_w") == [["tdp_w", "500", "(package:", "700)", "W"]]
    assert words(row, "idle_w")[0][-1] == "W"
    assert "package" not in " ".join(words(row, "idle_w")[0])
    assert words(shown("models", "mine-1b", overlay), "overlay") == [["overlay", "new"]]
    assert "overlay" not in shown("accelerators", "h100-sxm")


def test_json_has_the_same_rows_with_sources(overlay: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["catalog", "accelerators", "h100-sxm", "--overlay", overlay, "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["tdp_w"], row["overlay"], row["before"]["tdp_w"]) == (500, "changed", 700)
    assert row["source"] == "a power cap of ours"
    assert row["power"]["confidence"] in ("fitted", "published", "assumed")
    assert main(["catalog", "instances", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == len(load_catalog().instances)
    first = rows[0]["on_demand"]["us-east-1"][0]
    assert {"usd_per_hour", "valid_from", "source", "date", "confidence"} <= set(first)
    assert set(catalog_json(None, None, None)) == set(KINDS)


def test_json_of_every_kind_can_be_written() -> None:
    for kind in KINDS:
        assert json.loads(json.dumps(catalog_json(kind, None, None), allow_nan=False))


@pytest.mark.parametrize(
    ("kind", "name", "near"), [("acelerators", None, "accelerators"), ("models", "lamma-3.1-8b", "llama-3.1-8b")]
)
def test_a_miss_names_the_nearest(kind: str, name: str | None, near: str) -> None:
    for look in (lambda: catalog_json(kind, name, None), lambda: shown(kind, name)):
        with pytest.raises(InputError, match=f"did you mean '{near}'"):
            look()


def test_units_come_from_names() -> None:
    assert [unit_of(name) for name in ("dense_tflops", "max_model_len", "change_gap_h", "usd_per_kwh", "heads")] == [
        "TFLOP/s",
        "tokens",
        "h",
        "USD/kWh",
        "",
    ]
