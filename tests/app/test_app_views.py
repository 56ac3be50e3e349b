"""What `validate`, `catalog` and `doctor` show, and the progress line."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

import sim.app.doctor as doctor
from sim import load_scenario
from sim.app.catalog_view import show_catalog
from sim.app.progress import ProgressLine
from sim.app.sheet import CapacityReport, capacity_report, total_time_s
from sim.app.sheet_load import mean_lengths
from sim.app.sheet_view import show_report
from sim.catalog.loader import KINDS
from sim.errors import InputError
from sim.perf.capacity import requests_per_s
from sim.scenario import Scenario
from sim.scenario.resolve import resolve
from sim.units import NS_PER_S


def _shown(report: CapacityReport) -> str:
    console = Console(file=io.StringIO(), width=80)
    show_report(report, console)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(len(line) <= 80 for line in text.splitlines())
    return text


def test_the_sheet_of_a_static_fleet_by_hand():
    """Eight replicas, one a machine: capacity is 8 times one replica's, cost is price over tokens."""
    scenario = load_scenario("bench_chat8")
    report = capacity_report(scenario)
    [kind], [fleet], load = report.kinds, report.fleets, report.loads["chat"]
    sheet = kind.sheet
    assert sheet is not None
    assert (load.mean_rate_per_s, load.peak_rate_per_s) == (112.0, 112.0)
    assert fleet.capacity_per_s == pytest.approx(8 * sheet.requests_per_s)
    tokens_per_hour = sheet.requests_per_s * 3_600 * (load.prompt_tokens + load.output_tokens)
    assert kind.usd_per_1m_tokens == pytest.approx(6.88 / tokens_per_hour * 1e6)
    step = resolve(scenario).kinds["llama_8b", "h100"].step
    assert sheet.requests_per_s == requests_per_s(step, sheet.batch, load.prompt_tokens, load.output_tokens, 8_192)
    assert sheet.tpot_s <= 0.05
    assert report.warnings == []


def test_a_replica_pays_for_its_share_of_the_node():
    """p4de.24xlarge has 8 accelerators: four replicas of two share its 27.44705 USD/h."""
    [kind] = capacity_report(load_scenario("peer_w3")).kinds
    assert kind.usd_per_hour == pytest.approx(27.44705 / 4)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["replicas=5"], "overload: chat offers 112.0 requests/s on average"),
        (["workload=synthetic", "rate_per_s=112", "replicas=1"], "overload: chat"),
        (["replicas=8", "slo.tpot_s=0.001"], "misses the TPOT target even with one request"),
        (["kv_tokens=500"], "larger than its cache"),
    ],
)
def test_warnings(overrides, says, tmp_path):
    scenario = _chat(tmp_path, overrides)
    assert any(says in warning for warning in capacity_report(scenario).warnings)


def _chat(folder: Path, overrides: list[str]) -> Scenario:
    """Return bench_chat8 with its workload chosen in an option of its own, so that it can be swapped."""
    if any(override.startswith("workload=") for override in overrides):
        scenario = load_scenario("quickstart", ["autoscaler=static", *overrides], folder)
        return replace(scenario, failures=[])
    return load_scenario("bench_chat8", overrides)


def test_a_peak_above_the_fleet_is_told_from_a_mean_above_it():
    scenario = load_scenario("quickstart", ["autoscaler=static", "replicas=1", "rate_per_s=17"])
    report = capacity_report(scenario)
    [fleet] = report.fleets
    assert fleet.mean_rate_per_s < fleet.capacity_per_s < fleet.peak_rate_per_s
    assert report.warnings[0].startswith("overload at the peak")


def test_a_trace_is_counted(tmp_path):
    """60 requests in the first minute and 60 in the next ten: the peak is that of the first five minutes."""
    seconds = [*range(60), *(60 + 10 * index for index in range(60))]
    rows = "".join(f"2026-01-05 00:{second // 60:02d}:{second % 60:02d}.0000000,100,50\n" for second in seconds)
    (tmp_path / "trace.csv").write_text(f"TIMESTAMP,ContextTokens,GeneratedTokens\n{rows}")
    load = capacity_report(load_scenario("azure_chat_trace", [f"workload.path={tmp_path / 'trace.csv'}"])).loads["chat"]
    assert (load.prompt_tokens, load.output_tokens) == (100.0, 50.0)
    assert load.mean_rate_per_s == pytest.approx(120 / 3_600)
    assert load.peak_rate_per_s == pytest.approx((60 + 24) / 300)


def test_lengths_are_weighted_by_rates():
    loads = capacity_report(load_scenario("bench_chat8")).loads
    chat = loads["chat"]
    assert mean_lengths([chat, chat]) == pytest.approx((chat.prompt_tokens, chat.output_tokens))
    assert mean_lengths([replace(chat, prompt_tokens=None)]) is None
    assert mean_lengths([replace(chat, mean_rate_per_s=0.0)]) is None
    assert mean_lengths([replace(chat, mean_rate_per_s=None), replace(chat, prompt_tokens=chat.prompt_tokens + 100)]) == (
        pytest.approx(chat.prompt_tokens + 50),
        pytest.approx(chat.output_tokens),
    )


def test_the_total_of_one_stage_is_the_stage():
    median, p95 = total_time_s({"booting": (100.0, 200.0)})
    # 20,000 draws: sd of the log is ln 2 / 1.645 = 0.421; standard errors of log-quantiles 0.0037 and 0.0063, times four.
    assert math.log(median / 100) == pytest.approx(0, abs=0.015)
    assert math.log(p95 / 200) == pytest.approx(0, abs=0.025)


def test_medians_of_skewed_stages_do_not_add():
    stages = dict.fromkeys("abc", (100.0, 300.0))
    median, p95 = total_time_s(stages)
    assert median > 300
    assert p95 < 900


@pytest.mark.parametrize("name", ["quickstart", "peer_w3", "bench_chat8"])
def test_the_sheet_fits_80_columns(name):
    text = _shown(capacity_report(load_scenario(name)))
    assert "USD per 1M tokens" in text
    assert "cold start" in text
    assert "no problem found" in text


def test_a_closed_loop_has_clients_and_no_rate():
    report = capacity_report(load_scenario("quickstart", ["workload=closed_loop", "clients=50"]))
    assert report.loads["chat"].clients == 50
    assert report.fleets[0].mean_rate_per_s is None
    assert "50" in _shown(report)


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_the_catalog_fits_80_columns(kind):
    console = Console(file=io.StringIO(), width=80)
    show_catalog(kind, None, None, console)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert all(len(line) <= 80 for line in lines)
    assert kind is None or any("confidence" in line for line in lines)


def test_one_row_shows_its_source():
    console = Console(file=io.StringIO(), width=200)
    show_catalog("instances", "p5.4xlarge", None, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "6.88" in text
    assert "published" in text
    assert "source" in text


@pytest.mark.parametrize(("kind", "name", "near"), [("instnaces", None, "instances"), ("instances", "p5.4xlrge", "p5.4xlarge")])
def test_the_catalog_names_the_nearest(kind, name, near):
    with pytest.raises(InputError, match=f"did you mean '{near}'"):
        show_catalog(kind, name, None, Console(file=io.StringIO()))


def test_the_doctor_finds_everything_here(capsys):
    findings = {finding.what: finding for finding in doctor.examine()}
    assert all(finding.fine for finding in findings.values())
    assert {"python", "numpy", "hydra-core", "configs", "results", "compiled engine", "measured data"} <= set(findings)
    assert "quickstart" in findings["configs"].found


@pytest.mark.parametrize(
    ("installed", "bounds", "met"),
    [
        ("2.4.6", ">=2.0,<2.6", True),
        ("2.6.0", ">=2.0,<2.6", False),
        ("1.9", ">=2.0,<2.6", False),
        ("4.1.2", ">=4.1.2,<5", True),
        ("2026.6", "", True),
        ("1.10.0", ">=1.9", True),
    ],
)
def test_versions_are_compared_by_number(installed, bounds, met):
    assert doctor._meets(installed, bounds) is met


def test_the_doctor_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "config_dir", lambda: tmp_path)
    monkeypatch.setattr(doctor, "PYTHON_BELOW", (3, 0))
    monkeypatch.setattr(doctor, "version", lambda name: "0.1")
    monkeypatch.setattr(doctor, "LEAST_FREE_BYTES", 10**18)
    wrong = {finding.what: finding.advice for finding in doctor.examine() if not finding.fine}
    assert "make PYTHON=" in wrong["python"]
    assert "pip install" in wrong["numpy"]
    assert "install billcast again" in wrong["configs"]
    assert "out=DIR" in wrong["results"]


def test_the_doctor_knows_whether_the_engine_is_compiled(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fresh = doctor._kernel_cache()
    assert fresh.found.startswith(str(tmp_path))
    assert fresh.advice == "the first run compiles it, once"
    Path(fresh.found, "advance.nbi").touch()
    assert doctor._kernel_cache().advice == ""
    nowhere = tmp_path / "file"
    nowhere.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(nowhere))
    monkeypatch.setattr("tempfile.tempdir", str(nowhere.parent))
    monkeypatch.setattr(Path, "mkdir", _refuse)
    assert "set XDG_CACHE_HOME" in doctor._kernel_cache().advice


def _refuse(*_: object, **__: object) -> None:
    raise PermissionError


def test_missing_data_is_said_but_nothing_wrong(monkeypatch, tmp_path):
    monkeypatch.setenv(doctor.DATA_VARIABLE, str(tmp_path / "none"))
    finding = doctor._data()
    assert finding.fine
    assert doctor.DATA_VARIABLE in finding.advice


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _halfway() -> SimpleNamespace:
    return SimpleNamespace(simulated_ns=1_800 * NS_PER_S, horizon_ns=3_600 * NS_PER_S, wall_s=2.0)


def test_the_progress_line_shows_on_a_terminal_and_is_wiped():
    stream = _Terminal()
    with ProgressLine(datetime(2026, 9, 15, 6, tzinfo=UTC), stream) as line:
        line.update(_halfway())
        line.update(_halfway())
    text = stream.getvalue()
    assert text.count("2026-09-15 06:30   50 %") == 1  # the second comes too soon
    assert text.endswith("\r\x1b[2K")


def test_the_progress_line_is_quiet_in_a_pipe():
    stream = io.StringIO()
    with ProgressLine(datetime(2026, 9, 15, 6, tzinfo=UTC), stream) as line:
        line.update(_halfway())
    assert stream.getvalue() == ""


def test_a_cold_start_of_nothing_takes_no_time():
    assert total_time_s({"booting": (0.0, 0.0)}) == (0.0, 0.0)
    assert np.isfinite(total_time_s({"booting": (1.0, 1.0)})).all()
