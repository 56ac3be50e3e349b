"""The terminal report: what it says, that it fits, and that data cannot write on the terminal."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from billing_kit import write_small_run
from rich.console import Console

from sim.report.tables import tables_page
from sim.report.terminal import render
from sim.results.invoice import InvoiceLine
from sim.results.metrics import summarize
from sim.results.records import RunResult, RunWriter
from sim.results.validity import bill_by_step_times
from sim.scenario import Account, Scenario, Service, Slo

ENGINE = {"name": "reference", "wall_s": 1.5, "requests_per_s": 12_345.6, "steps": 1_000_000, "peak_rss_mb": 130.0}
REFERENCE = Path(__file__).parents[2] / "docs" / "reference"

SPOT_MARKETS = {
    "cheap": {
        "market": "aws-v100-good", "gpu": "V100 and K80", "years": "2022-2023", "source": "traces", "confidence": "fitted",
        "price": "p3.2xlarge", "price_source": "price history", "price_confidence": "fitted",
    }
}  # fmt: skip
STEP_MODELS = {
    "llama on gpu": {"validity": "fitted", "band": 0.12, "source": "fit x: tables, 2026", "kv_tokens": 1},
    "coder on gpu": {"validity": "assumed", "band": 0.0, "source": "scenario", "kv_tokens": 1},
}
_CONSTANT = {
    "least": 400.0,
    "most": 400.0,
    "source": "scenario",
    "path": "",
    "repeated": "",
    "filled_hours": 0,
    "negative_hours": 0,
}
_HOURS = {
    "least": -0.01,
    "most": 0.3,
    "source": "prices 2023",
    "path": "p.csv",
    "repeated": "hour_of_year",
    "filled_hours": 0,
    "negative_hours": 1_291,
}
SITES = {
    "gpu": {
        "grid": "home", "pue": 1.25, "intensity": "average", "host_w": 200.0, "price": _HOURS, "carbon": _CONSTANT,
        "confidence": {"steps": "fitted", "idle": "published", "host": "assumed", "pue": "assumed", "price": "assumed",
                       "carbon": "published"},
    }
}  # fmt: skip


def small_run(folder: Path, *, name: str = "small", **options: Any) -> RunResult:
    """The small run with summary and manifest."""
    slo = Slo(ttft_s=0.3, tpot_s=0.02, e2e_s=2.5, attainment=0.95)
    scenario = Scenario(
        name=name,
        start="2026-01-31T22:00:00Z",
        horizon="3h",
        services={"chat": Service(slo=slo), "code": Service()},
        account=Account("account", "UTC"),
    )
    with RunWriter(folder) as writer:
        write_small_run(writer.spool, **options)
        summary = summarize(writer.merge(), scenario, ENGINE, {"chat": 2}, SITES)
        manifest = {"scenario": scenario.to_dict(), "spot_markets": SPOT_MARKETS, "sites": SITES, "fleets": {}}
        manifest |= {"step_models": STEP_MODELS}
        return writer.commit(summary, manifest)


def report(result: RunResult, *, width: int = 80, terminal: bool = False) -> str:
    """The report as text."""
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system="truecolor" if terminal else None)
    render(result, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def lines_with(text: str, *words: str) -> list[str]:
    """Lines that contain all words, with single spaces."""
    return [" ".join(line.split()) for line in text.splitlines() if all(word in line for word in words)]


def test_the_invoice_and_the_rest_say_what_the_tables_say(tmp_path: Path) -> None:
    text = report(small_run(tmp_path / "run", electricity_billed=True))
    assert lines_with(text, "2026-01", "compute") == ["2026-01 gpu p5.4xlarge on_demand compute 2.000 h 7.20 per hour 14.40"]
    # energy of February: steps 0.6 MJ, host 0.72, idle 0.57: 1.89 MJ x 1.25 at 0.10 USD per kWh is 0.065625
    assert lines_with(text, "2026-02 total") == ["2026-02 total 7.27"]
    assert lines_with(text, "TOTAL") == ["TOTAL 21.80"]
    # 1,400 s at 0.001 USD, and 0.30 + 0.14 MJ of steps and host: 1.41528 USD; others have larger remainders of 21.80
    assert lines_with(text, "busy: code/all") == ["busy: code/all 1.41 6.5%"]
    rows = [line.split() for line in text[text.index("WHERE THE MONEY WENT") :].split("\n\n")[0].splitlines()]
    assert sum(round(100 * float(row[-2])) for row in rows if row and row[-1].endswith("%")) == 2180
    assert lines_with(text, "TTFT") == ["TTFT 300 ms 251 ms 252 ms 252 ms 96.07% 95% met", "TTFT - - - - - -"]
    assert lines_with(text, "TPOT") == ["TPOT 20 ms 20.1 ms 20.2 ms 20.2 ms 90.19% 95% MISSED", "TPOT - - - - - -"]
    assert lines_with(text, "66", "59") == ["chat 66 59 96.07% 3 rejected, 4 unfinished"]
    assert lines_with(text, "a line of the bill")
    assert lines_with(text, "skipped") == ["skipped 2 broken input rows"]
    assert lines_with(text, "assumed", "confidence") == ["confidence 100.0% of the bill rests on assumed prices"]
    assert lines_with(text, "no interval: one replication")
    assert lines_with(text, "results") == [f"results {tmp_path / 'run'}"]


def test_energy_and_carbon_are_told_by_segment_with_what_they_rest_on(tmp_path: Path) -> None:
    result = small_run(tmp_path / "run")
    text = report(result)
    # 5.83 MJ at the machines (see test_results_metrics), 2.0243 kWh at the meter; of the 4 completions of code/all 440 tokens
    assert lines_with(text, "energy", "in the price of the machines") == [
        "energy 2.02 kWh for 0.20 USD (in the price of the machines), 0.81 kg CO2"
    ]
    assert [line.split()[0] for line in lines_with(text, "chat/") + lines_with(text, "code/all") if "busy" not in line] == [
        "chat/free", "chat/paid", "code/all",
    ]  # fmt: skip
    # host 2.16 MJ and the 1.4575 MJ of a PUE of 1.25, of 7.2875 MJ
    whole = " ".join(text.split())
    assert "assumed: 49.6% of the kWh (power, PUE), 100.0% of the price, 0.0% of the carbon" in whole
    assert "average intensity of the grid (marginal is another number); without that of making machines" in whole
    assert "home price: -0.01 to 0.3 USD/kWh by the hour, prices 2023" in whole
    assert "(other years repeated by the hour of the year; 1,291 hours below 0)" in whole
    assert "home carbon" not in whole


def test_it_says_what_part_of_the_bill_rests_on_which_step_times(tmp_path: Path) -> None:
    """Three hours of llama and two of coder at 3.60 USD, one hour of a machine that nobody used."""
    result = small_run(tmp_path / "run")
    assert bill_by_step_times(result) == pytest.approx({"fitted": 10.8, "assumed": 7.2, "none": 3.6})
    text = " ".join(report(result).split())
    assert "by step times: 50.0% fitted, 33.3% assumed, 16.7% none" in text
    assert "llama on gpu: fitted, 9 of 10 within 12% (fit x: tables, 2026)" in text
    assert "coder on gpu: assumed, no band known (scenario)" in text


def test_it_fits_80_columns_and_is_plain_in_a_pipe(tmp_path: Path) -> None:
    text = report(small_run(tmp_path / "run"))
    assert max(len(line.rstrip()) for line in text.splitlines() if not line.startswith("results")) <= 80
    assert "\x1b" not in text
    assert "\x1b" in report(small_run(tmp_path / "again"), terminal=True)


def test_names_cannot_write_on_the_terminal(tmp_path: Path) -> None:
    result = small_run(tmp_path / "run", name="[bold]x[/bold]\x1b[2J :smile:\n")
    result.summary["latency"]["[red]evil\x07[/"] = result.summary["latency"]["chat"]
    result.summary["slo"]["[red]evil\x07[/"] = {}
    text = report(result)
    assert "billcast [bold]x[/bold]?[2J :smile:?" in text
    assert "[red]evil?[/" in text


@pytest.mark.parametrize(
    ("amounts_nano", "shown"),
    [
        # three times 0.334 USD: 0.33 each, but 1.002 together
        ([334_000_000] * 3, ["0.33", "0.33", "0.33", "0.01", "1.00"]),
        # three times 0.336: 0.34 each, but 1.008 together
        ([336_000_000] * 3, ["0.34", "0.34", "0.34", "-0.01", "1.01"]),
        ([250_000_000] * 2, ["0.25", "0.25", "0.50"]),
    ],
)
def test_printed_lines_add_up_to_the_printed_total(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, amounts_nano: list[int], shown: list[str]
) -> None:
    lines = [
        InvoiceLine("2026-01", f"pool{n}", "p5", "on_demand", "compute", "", 1.0, "instance-hours", "1 per hour", amount)
        for n, amount in enumerate(amounts_nano)
    ]
    monkeypatch.setattr("sim.report.terminal.invoice", lambda _: lines)
    text = report(small_run(tmp_path / "run"))
    found = [line.split()[-1] for line in text.splitlines() if line.startswith(("2026-01 pool", "rounding", "TOTAL"))]
    assert found == shown
    assert sum(round(float(amount) * 100) for amount in found[:-1]) == round(float(found[-1]) * 100)


def test_the_reference_page_of_the_tables_is_up_to_date() -> None:
    assert (REFERENCE / "tables.md").read_text("utf-8") == tables_page(), (
        "run: python -m sim.report.tables > docs/reference/tables.md"
    )


def test_the_report_names_what_spot_follows(tmp_path: Path) -> None:
    text = " ".join(report(small_run(tmp_path / "run")).split())
    assert "cheap: capacity aws-v100-good (V100 and K80, 2022-2023; traces)" in text
    assert "price p3.2xlarge (fitted; price history)" in text
