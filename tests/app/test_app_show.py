"""`billcast show`: every setting with its unit and where it was set; every catalog number with source and confidence."""

from __future__ import annotations

import pytest

from sim.app.cli import main
from sim.app.conf import checked, config_dir, scenario_names, scenario_reader
from sim.app.show import Setting, settings
from sim.app.show_catalog import numbers
from sim.scenario.plain import places
from sim.scenario.resolve import resolve


def _rows(*overrides: str, folder: str | None = None) -> dict[str, Setting]:
    with scenario_reader(folder) as read:
        reading = checked(read, overrides)
    return {row.path: row for row in settings(reading.scenario, reading.sources)}


@pytest.mark.parametrize(
    ("overrides", "path", "value", "unit", "source", "changed"),
    [
        ([], "horizon", "30d", "", "scenario/quickstart", True),
        ([], "window", "1h", "", "default", False),
        ([], "services.chat.workload.rate_per_s", 20.0, "/s", "workload/chat_20_per_s", True),
        (["rate_per_s=840/min"], "services.chat.workload.rate_per_s", 14.0, "/s", "command line", True),
        (["slo.ttft_s=300 ms"], "services.chat.slo.ttft_s", 0.3, "s", "command line", True),
        (["slo={ttft_s: 2}"], "services.chat.slo.tpot_s", 0.05, "s", "scenario/quickstart", True),
        (["router=random"], "services.chat.router", "random", "", "command line", True),
        ([], "services.chat.router", "least_outstanding", "", "default", False),
        ([], "deployments.llama_8b.weight_dtype", "bf16", "", "scenario/quickstart", False),
        (["failures.0.nodes=2"], "failures[0].nodes", 2, "", "command line", True),
        ([], "failures[0].at", "5h", "", "scenario/quickstart", True),
        ([], "pools.h100.price_usd_per_hour", None, "USD/h", "default", False),
        (["autoscaler=static", "replicas=2"], "deployments.llama_8b.autoscaler.replicas", 2, "replicas", "command line", True),
        (
            ["autoscaler=afternoon"],
            "deployments.llama_8b.autoscaler.steps[0].replicas",
            3,
            "replicas",
            "autoscaler/afternoon",
            True,
        ),
        ([], "deployments.llama_8b.autoscaler.max_replicas", 6, "replicas", "autoscaler/hpa_steady", True),
    ],
)
def test_where_values_come_from(overrides, path, value, unit, source, changed):
    row = _rows(*overrides)[path]
    assert (row.value, row.source, row.changed) == (value, source, changed)
    assert row.unit == unit or path.endswith("nodes")


def test_a_file_of_ones_own_is_named_and_the_last_one_counts(tmp_path):
    (tmp_path / "scenario").mkdir()
    (tmp_path / "scenario" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - quickstart\n  - _self_\nname: mine\nhorizon: 3h\n"
    )
    rows = _rows("scenario=mine", folder=str(tmp_path))
    assert (rows["horizon"].value, rows["horizon"].source) == ("3h", "scenario/mine")
    assert rows["start"].source == "scenario/quickstart"


@pytest.mark.parametrize("name", scenario_names())
def test_nothing_is_left_out_and_files_are_files(name, tmp_path):
    trace = tmp_path / "trace.csv"
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n")
    overrides = [f"scenario={name}", *([f"workload.path={trace}"] if name == "azure_chat_trace" else [])]
    with scenario_reader() as read:
        reading = checked(read, overrides)
    rows = settings(reading.scenario, reading.sources)
    paths = {row.path for row in rows}
    leaves = {place.path for place in places(reading.scenario)}
    missing = [leaf for leaf in leaves if not any(path == leaf or path.startswith((f"{leaf}.", f"{leaf}[")) for path in paths)]
    assert missing == []
    for source in {row.source for row in rows} - {"default", "command line"}:
        assert (config_dir() / f"{source}.yaml").is_file() or source.count("/") == 1
    assert all(row.source != "default" for row in rows if row.changed)


def test_catalog_numbers_have_source_and_confidence():
    with scenario_reader() as read:
        found = numbers(resolve(checked(read, []).scenario))
    names = {(number.about, number.name): number for number in found}
    assert names["pool h100", "on demand from 2026-07-20"].value == "6.88"
    assert names["pool h100_spot", "spot p5.4xlarge, median"].confidence == "published"
    assert names["llama_8b on h100", "power limit"].confidence == "fitted"
    assert names["llama_8b on h100", "KV cache"].value == 449_120
    assert names["llama_8b on h100", "booting, p50 / p95"].value == "101 / 201"
    assert all(number.source and number.confidence in ("fitted", "published", "assumed", "transferred") for number in found)


def test_what_the_scenario_sets_itself_is_not_the_catalogs():
    overrides = ["price_usd_per_hour=2", "cold_start.booting.median_s=5", "pue=1.1", "scenario=peer_w3"]
    with scenario_reader() as read:
        found = {number.name: number for number in numbers(resolve(checked(read, overrides).scenario))}
    assert (found["price"].value, found["price"].source) == ("2", "scenario")
    assert found["booting, p50 / p95"].source == "scenario"
    assert (found["PUE"].value, found["PUE"].source) == (1.1, "scenario")


def test_the_command_fits_80_columns_and_changed_is_short(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["show", "rate_per_s=5"]) == 0
    everything = capsys.readouterr().out
    assert main(["show", "rate_per_s=5", "--changed"]) == 0
    changed = capsys.readouterr().out
    assert all(len(line) <= 80 for line in (everything + changed).splitlines())
    assert "capacity_retry_s" in everything
    assert "capacity_retry_s" not in changed
    assert "command line" in changed
    assert "(1) " in everything


def test_what_is_wrong_is_said_as_in_a_run(capsys):
    assert main(["show", "hroizon=1h"]) == 2
    assert "did you mean 'horizon'?" in capsys.readouterr().err
