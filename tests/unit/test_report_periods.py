"""The tables by month and week: what they say of a run worked out by hand, that they fit, and the same as plain data."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from report_kit import replica, row, scenario_of, write
from rich.console import Console

from sim.app.cli import main
from sim.bins import bin_of, edges_ns
from sim.report.html import page
from sim.report.periods import main_causes, month_block, period_tables, reliability_tables
from sim.report.terminal import render
from sim.results.records import RunResult
from sim.results.service_levels import service_levels
from sim.scenario import Slo
from sim.units import NS_PER_DAY, NS_PER_HOUR

DAYS = 31
BAD_DAY = 20  # 5 March: half of its requests are late for want of a replica
NO_CAUSE = ("missed_retried", "missed_preempted", "missed_kv_full", "missed_slow")


def long_run(folder: Path, *, days: int = DAYS, name: str = "chat", window_ns: int = NS_PER_HOUR) -> RunResult:
    """From 13 February 2026 on, 1,000 requests an hour, a dollar an hour; one day of March with half of them late."""
    made = scenario_of(f"{days}d", {name: Slo(ttft_s=0.3, attainment=0.99)}, start="2026-02-13T00:00:00Z",
                       window=f"{window_ns // NS_PER_HOUR}h")  # fmt: skip
    made.services[name].deployments = ["llama"]
    number = bin_of(200_000_000)

    def rows(spool: Any) -> None:
        for window in range(days * NS_PER_DAY // window_ns):
            start_ns, total = window * window_ns, 1_000 * window_ns // NS_PER_HOUR
            bad = total // 2 if start_ns // NS_PER_DAY == BAD_DAY else 0
            row(spool, "windows", start_ns=start_ns, end_ns=start_ns + window_ns, service=name, segment="all", measured=True,
                arrived=total, total=total, completed=total, good_ttft=total - bad, good_tpot=total, good_e2e=total,
                good_all=total - bad, missed_queued=bad, energy_j=1.0,
                prompt_tokens=total * 100, output_tokens=total * 10, ttft_mean_s=0.2,
                tpot_mean_s=0.01, e2e_mean_s=2.0, **dict.fromkeys(NO_CAUSE, 0))  # fmt: skip
            row(spool, "ledger", row=window, start_ns=start_ns, end_ns=start_ns + window_ns, category="compute",
                month="2026-02" if start_ns < 16 * NS_PER_DAY else "2026-03", local_hour="2026-02-13T00:00+00:00", quantity=1,
                unit="instance-second", amount_nano_usd=10**9, confidence="published")  # fmt: skip
            row(spool, "attribution", row=window, start_ns=start_ns, use="busy", service=name, segment="all",
                amount_nano_usd=10**9)  # fmt: skip
        for start_ns, end_ns in ((0, 16 * NS_PER_DAY), (16 * NS_PER_DAY, days * NS_PER_DAY)):
            if start_ns < end_ns:
                row(spool, "histograms", start_ns=start_ns, end_ns=end_ns, service=name, segment="all", latency="ttft", bin=number,
                    low_ns=float(edges_ns()[number]), high_ns=float(edges_ns()[number + 1]), count=5)  # fmt: skip

    result = write(folder, made, rows, replica(0, 0, 0, -1, days * 86_400))
    result.manifest["fleets"] = {"llama": {"initial": 1, "most": 1}}
    return result


def text_of(*parts: Any) -> str:
    """Renderables as text of 80 columns."""
    console = Console(file=io.StringIO(), width=80)
    for part in parts:
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def lines_with(text: str, *words: str) -> list[str]:
    """Lines that contain all words, with single spaces."""
    return [" ".join(line.split()) for line in text.splitlines() if all(word in line for word in words)]


def test_the_months_on_the_terminal_are_those_of_the_tables(tmp_path: Path) -> None:
    result = long_run(tmp_path / "run")
    text = text_of(month_block(result))
    # February: 16 days of 24,000 requests; 384 USD for 42.24 M tokens. March: 15 days, one of them half bad: 12,000 of 360,000.
    assert lines_with(text, "2026-02") == ["2026-02* 384,000 384.00 9.091 201 ms - TTFT 100.00% 100%"]
    # The budget of 1 % is 3,600: spent 3.33 times.
    assert lines_with(text, "2026-03") == ["2026-03* 360,000 360.00 9.091 201 ms - TTFT 96.66% -234%"]
    assert [line.plain.split(maxsplit=2) for line in main_causes(result)] == [
        ["not", "good", "12,000 requests of chat"], ["100.0%", "waited:", "fleet at its maximum"]
    ]  # fmt: skip


def test_a_short_run_has_no_months_but_alerts_and_causes(tmp_path: Path) -> None:
    result = long_run(tmp_path / "run", days=22)
    assert month_block(result) is None
    assert main_causes(result) == []
    assert "By month" not in page(result, [])
    assert "BURN RATES AND ALERTS" in page(result, [])


def test_the_full_tables_say_which_alert_fired_when_and_why(tmp_path: Path) -> None:
    result = long_run(tmp_path / "run")
    text = text_of(*period_tables(result, "month"), *reliability_tables(result))
    assert lines_with(text, "MISSED") == ["2026-03* 360,000 12,000 96.66% 99% MISSED -234%"]
    assert lines_with(text, "compute") == ["2026-02 chat compute 384.00", "2026-03 chat compute 360.00"]
    # Half bad is a rate of 50. The hour fires at 01:00 and is over at 01:00 of the next day; six hours from 01:00 (8.3) to 06:00.
    assert lines_with(text, "14.4x") == ["page 14.4x 1h/5m 50.0x 05 Mar 01:00 1+ 24.00 h 05 Mar 01:00"]
    # Six hours with one bad hour are 8.3, so it goes on until 05:00 with one left, and is over at 06:00: 29 h.
    assert lines_with(text, "page 6x") == ["page 6x 6h/30m 50.0x 05 Mar 06:00 1+ 29.00 h 05 Mar 01:00"]
    # Three days: two bad hours of 72 are 1.4, while the last six hours burn, until 05:00: fires at 02:00, over at 06:00.
    assert lines_with(text, "ticket") == ["ticket 1x 3d/6h 16.7x 06 Mar 00:00 1 28.00 h 05 Mar 02:00"]
    assert lines_with(text, "fleet at its maximum") == ["waited: fleet at its maximum 12,000 100.0% 24 05 Mar 00:00"]


def test_weeks_begin_on_monday_and_have_no_bill(tmp_path: Path) -> None:
    text = text_of(*period_tables(long_run(tmp_path / "run"), "week"))
    # The run begins on a Friday: three days of 24,000, then a week.
    assert lines_with(text, "2026-W07", "met") == ["2026-W07* 72,000 0 100.00% 99% met 100%"]
    assert lines_with(text, "2026-W08", "met") == ["2026-W08 168,000 0 100.00% 99% met 100%"]
    assert "BILL" not in text


@pytest.mark.parametrize("unit", ["month", "week"])
def test_everything_fits_80_columns(tmp_path: Path, unit: str) -> None:
    result = long_run(tmp_path / "run", name="a_service_with_a_name_of_some_length")
    text = text_of(month_block(result), *period_tables(result, unit), *reliability_tables(result))
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80


def test_windows_that_are_too_long_are_said_to_be(tmp_path: Path) -> None:
    text = text_of(*reliability_tables(long_run(tmp_path / "run", window_ns=8 * NS_PER_HOUR)))
    assert lines_with(text, "page") == ["page 14.4x 1h/5m - - too coarse - -", "page 6x 6h/30m - - too coarse - -"]
    assert "windows of 8.00 h are longer than the long one" in " ".join(text.split())


def test_the_page_and_the_terminal_of_a_long_run_hold_the_months(tmp_path: Path) -> None:
    result = long_run(tmp_path / "run")
    shown = page(result, [])
    assert shown.index("<h2>By month</h2>") < shown.index("<h2>By week</h2>") < shown.index("<h2>Burn rates and causes</h2>")
    console = Console(file=io.StringIO(), width=80)
    render(result, console)
    assert isinstance(console.file, io.StringIO)
    assert "MONTHS of UTC" in console.file.getvalue()


def test_names_of_services_cannot_write_on_terminal_or_page(tmp_path: Path) -> None:
    # Names come from a summary that anyone may have edited.
    result = long_run(tmp_path / "run", name="<i>[red]x")
    text = text_of(*period_tables(result, "month"), *reliability_tables(result))
    assert "<i>[red]x" in text
    assert "<i>" not in page(result, [])


def test_plain_data_say_the_same(tmp_path: Path) -> None:
    found = service_levels(long_run(tmp_path / "run"), "month")
    json.dumps(found, allow_nan=False)
    chat = found["services"]["chat"]
    [february, march] = chat["periods"]
    assert (february["from"], february["to"]) == ("2026-02-13T00:00:00+00:00", "2026-03-01T00:00:00+00:00")
    assert march["slo"]["ttft"]["budget_left"] == pytest.approx(1 - 12_000 / 3_600, abs=1e-9)
    assert march["causes"]["at_maximum"] == 12_000 == chat["causes"]["at_maximum"]["requests"]
    assert march["usd_per_1m_tokens"] == pytest.approx(360 / 39.6, rel=1e-12)
    [page_fast, page_slow, ticket] = chat["burn_rates"]
    assert page_fast["fired"] == [{"from": "2026-03-05T01:00:00+00:00", "to": "2026-03-06T01:00:00+00:00"}]
    assert (page_fast["state"], page_slow["factor"], ticket["long_s"]) == ("long window alone", 6.0, 259_200.0)
    assert sum(charge["usd"] for charge in found["bill"]) == pytest.approx(744.0, rel=1e-12)


def test_the_command_prints_tables_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(long_run(tmp_path / "run").folder)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text("utf-8"))
    manifest["fleets"] = {"llama": {"initial": 1, "most": 1}}
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    assert main(["slo", folder, "--by", "week"]) == 0
    assert "2026-W10" in capsys.readouterr().out
    assert main(["slo", folder, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["by"] == "month"
    assert main(["slo", str(tmp_path)]) == 2
    assert "is not the result of a run" in capsys.readouterr().err
