"""Carbon against load: sums by hour worked out from the rows, the clock of the account, and what is said of the cleanest hours."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from report_kit import row, scenario_of, write

from sim.report.carbon_hours import CarbonHours, carbon_hours, carbon_hours_table, cleanest_sentence, spans_text
from sim.report.figures import charts_of
from sim.report.figures.carbon import carbon_and_load
from sim.report.html import page, write_report
from sim.report.style import svg_bytes, title_of
from sim.results.records import RunResult
from sim.results.spool import Spool
from sim.scenario import Scenario, Slo
from sim.units import NS_PER_HOUR

KWH, G = 1_000_000_000, 1_000_000


def drawn(
    scenario: Scenario, hours: int, kwh: Callable[[int], float], grams: Callable[[int], float], service: str = "chat"
) -> Callable[[Spool], None]:
    """Energy rows of every hour since the start: kWh and g/kWh by the hour on the account's clock."""

    def write_rows(spool: Spool) -> None:
        zone = ZoneInfo(scenario.account.timezone)
        for number in range(hours):
            local = (scenario.start_instant + timedelta(hours=number)).astimezone(zone)
            energy, intensity = kwh(local.hour), grams(local.hour)
            row(spool, "energy", row=number, start_ns=number * NS_PER_HOUR, local_hour=local.isoformat(timespec="minutes"),
                month=f"{local:%Y-%m}", use="busy", service=service, stream=("chat", "code").index(service), grid="us-east-1",
                gco2_per_kwh=intensity, nano_kwh=round(energy * KWH), carbon_ug=round(energy * intensity * G))  # fmt: skip

    return write_rows


def tokens(hours: int, per_hour: int, window_h: float = 1.0, offset_h: float = 0.0) -> Callable[[Spool], None]:
    """Windows of one stream with tokens."""

    def write_rows(spool: Spool) -> None:
        for number in range(round(hours / window_h)):
            start_ns = round((number * window_h + offset_h) * NS_PER_HOUR)
            row(spool, "windows", start_ns=start_ns, end_ns=start_ns + round(window_h * NS_PER_HOUR), service="chat", segment="all",
                prompt_tokens=round(per_hour * window_h) - 1, output_tokens=1, queued_mean=0.0, in_flight_mean=0.0,
                replicas_mean=1.0, busy_s=1.0, energy_j=1.0)  # fmt: skip

    return write_rows


def sunny(hour: int) -> float:
    """100 g at noon and in the three hours beside it, 400 g in all others."""
    return 100.0 if 10 <= hour < 14 else 400.0


def three_days(folder: Path, grams: Callable[[int], float] = sunny, zone: str = "America/New_York") -> RunResult:
    """2.5 days from midnight UTC: 2 kWh from 8:00 to 20:00 on the account's clock, else 1 kWh; 500,000 tokens an hour."""
    scenario = scenario_of("60h", {"chat": Slo(), "code": Slo()}, zone=zone)
    return write(folder, scenario, drawn(scenario, 60, lambda hour: 2.0 if 8 <= hour < 20 else 1.0, grams), tokens(60, 500_000))


def by_label(found: CarbonHours) -> Mapping[str, tuple[float, float, float | None, float | None]]:
    return {hour.label: (hour.length_h, hour.kwh, hour.g_per_kwh, hour.g_per_1m_tokens) for hour in found.hours}


def test_hours_of_all_days_are_put_together_on_the_clock_of_the_account(tmp_path: Path) -> None:
    result = three_days(tmp_path / "run")
    found = carbon_hours(result)
    assert found.folded
    assert [hour.label for hour in found.hours] == [f"{hour:02}:00" for hour in range(24)]
    # New York is five hours behind: from 19:00 on 1 March to 7:00 on 4 March, so 19:00 to 7:00 come three times.
    hours = by_label(found)
    assert hours["06:00"] == (3.0, 3.0, 400.0, pytest.approx(800.0))
    assert hours["07:00"] == (2.0, 2.0, 400.0, pytest.approx(800.0))
    assert hours["12:00"] == (2.0, 4.0, 100.0, pytest.approx(400.0))
    assert hours["19:00"] == (3.0, 6.0, 400.0, pytest.approx(1600.0))
    assert hours["20:00"] == (3.0, 3.0, 400.0, pytest.approx(800.0))
    # 11 hours of 2 kWh twice and one three times; 11 of 1 kWh three times and one twice.
    assert found.total.kwh == 11 * 4 + 6 + 11 * 3 + 2
    energy = result.summary["energy"]
    assert found.total.kwh == energy["kwh"]
    assert found.total.carbon_ug / 1e9 == energy["kgco2"]
    assert found.total.g_per_1m_tokens == pytest.approx(energy["gco2_per_1m_tokens"])
    assert found.total.length_h == 60


def test_the_cleanest_hours_are_one_in_four_and_their_equals(tmp_path: Path) -> None:
    found = carbon_hours(three_days(tmp_path / "run", lambda hour: 100.0 + hour))
    assert found.cleanest() == (0, 1, 2, 3, 4, 5)
    assert spans_text(found, found.cleanest()) == "00:00 to 06:00"
    night = carbon_hours(three_days(tmp_path / "night", lambda hour: 100.0 + abs(hour - 12) if hour != 23 else 50.0))
    assert spans_text(night, night.cleanest()) == "10:00 to 15:00, 23:00 to 24:00"
    # The sixth cleanest hour is one of twenty with 400 g: none of them is left out.
    assert len(carbon_hours(three_days(tmp_path / "equal")).cleanest()) == 24
    # 00:00 to 06:00 have 18 of the 85 kWh and 18 of the 60 hours.
    assert cleanest_sentence(found) == (
        "Cleanest: 00:00 to 06:00, 100 to 105 g/kWh; 21.2% of the energy is drawn in these 30.0% of the time."
    )


def test_an_even_load_is_what_the_title_compares_with(tmp_path: Path) -> None:
    result = three_days(tmp_path / "run", lambda hour: 100.0 if hour < 6 else 400.0)
    found = carbon_hours(result)
    # 18 of 60 hours at 100 g: (18 x 100 + 42 x 400) / 60. Drawn: 18 kWh of 85 at 100 g.
    assert found.even_g_per_kwh == pytest.approx(310.0)
    assert found.total.g_per_kwh == pytest.approx((18 * 100 + 67 * 400) / 85)
    title = "A kWh emits 336.5 g CO2, 8.5 % more than with an even load; cleanest: 00:00 to 06:00"
    figure = carbon_and_load(result)
    assert title_of(figure) == title
    load, grid, both = figure.axes
    np.testing.assert_allclose(load.patches[0].get_data().values, [1.0] * 8 + [2.0] * 12 + [1.0] * 4)  # type: ignore[attr-defined]
    np.testing.assert_allclose(grid.patches[0].get_data().values, [100.0] * 6 + [400.0] * 18)  # type: ignore[attr-defined]
    per_tokens = [200.0] * 6 + [800.0] * 2 + [1600.0] * 12 + [800.0] * 4
    np.testing.assert_allclose(both.patches[0].get_data().values, per_tokens)  # type: ignore[attr-defined]
    assert load.get_ylabel() == "kWh"
    assert both.get_xlabel() == "hour of the day, America/New_York"
    assert svg_bytes(figure) == svg_bytes(carbon_and_load(result))


def test_a_flat_grid_has_no_panel_and_no_cleanest_hour(tmp_path: Path) -> None:
    result = three_days(tmp_path / "run", lambda _: 322.0)
    figure = carbon_and_load(result)
    assert len(figure.axes) == 2
    # 85 kWh at 322 g over 30 million tokens.
    assert title_of(figure) == "A kWh emits 322 g CO2 at any hour; 1M tokens emit 912.3 g"
    assert cleanest_sentence(carbon_hours(result)) == "No hour is cleaner than another: 322 g/kWh."


def test_a_short_run_is_shown_by_its_own_hours_and_one_that_comes_twice_is_two(tmp_path: Path) -> None:
    scenario = scenario_of("4h30min", {"chat": Slo()}, start="2026-10-24T23:30:00Z", zone="Europe/Berlin")

    def energy(spool: Spool) -> None:
        for number, hour in enumerate(("01:00+02:00", "02:00+02:00", "02:00+01:00", "03:00+01:00", "04:00+01:00")):
            row(spool, "energy", row=number, local_hour=f"2026-10-25T{hour}", month="2026-10", use="idle", stream=-1,
                gco2_per_kwh=100.0 * (number + 1), nano_kwh=KWH, carbon_ug=100 * (number + 1) * G)  # fmt: skip

    result = write(tmp_path / "run", scenario, energy)
    found = carbon_hours(result)
    assert [(hour.label, hour.length_h) for hour in found.hours] == [
        ("2026-10-25 01:00+02:00", 0.5), ("2026-10-25 02:00+02:00", 1.0), ("2026-10-25 02:00+01:00", 1.0),
        ("2026-10-25 03:00+01:00", 1.0), ("2026-10-25 04:00+01:00", 1.0),
    ]  # fmt: skip
    assert [hour.g_per_kwh for hour in found.hours] == [100, 200, 300, 400, 500]
    assert found.cleanest() == (0,)
    figure = carbon_and_load(result)
    np.testing.assert_allclose(figure.axes[0].patches[0].get_data().values, [2.0, 1, 1, 1, 1])  # type: ignore[attr-defined]
    assert figure.axes[-1].get_xticklabels()[1].get_text() == "02:00"
    svg_bytes(figure)


@pytest.mark.parametrize(("window_h", "offset_h", "known"), [(0.5, 0.0, True), (2.0, 0.0, False), (1.0, 0.5, False)])
def test_tokens_are_known_where_windows_lie_in_one_hour(tmp_path: Path, window_h: float, offset_h: float, known: bool) -> None:
    scenario = scenario_of("2d", {"chat": Slo()})
    rows = drawn(scenario, 48, lambda _: 1.0, lambda _: 300.0)
    result = write(tmp_path / "run", scenario, rows, tokens(24, 1_000_000, window_h, offset_h))
    found = carbon_hours(result)
    assert (found.total.tokens == 24_000_000) is known
    assert (found.total.tokens is None) is not known
    table = carbon_hours_table(found)
    assert table is not None
    assert ("lie in two hours" in str(table.caption)) is not known
    # One day of two has tokens: 600 g of both days for a million.
    assert found.hours[3].g_per_1m_tokens == (600.0 if known else None)
    svg_bytes(carbon_and_load(result))


def test_services_without_tokens_do_not_count_where_carbon_is_divided_by_tokens(tmp_path: Path) -> None:
    scenario = scenario_of("2d", {"chat": Slo(), "code": Slo()})
    chat, code = (
        drawn(scenario, 48, lambda _: 1.0, lambda _: 300.0, service="chat"),
        drawn(scenario, 48, lambda _: 5.0, lambda _: 300.0, service="code"),
    )
    result = write(tmp_path / "run", scenario, chat, code, tokens(48, 1_000_000))
    assert carbon_hours(result).hours[0].g_per_1m_tokens == pytest.approx(1800.0)
    services = {**result.summary["services"], "code": {"items": 7}}
    of_items = dataclasses.replace(result, summary={**result.summary, "services": services})
    found = carbon_hours(of_items)
    assert found.hours[0].g_per_1m_tokens == pytest.approx(300.0)
    assert found.hours[0].kwh == 12.0


def test_the_page_has_figure_table_and_sentence_where_energy_was_drawn(tmp_path: Path) -> None:
    result = three_days(tmp_path / "run", lambda hour: 100.0 if hour < 6 else 400.0)
    assert "carbon_and_load" in {chart.name for chart in charts_of(result)}
    written = write_report(result).read_text("utf-8")
    assert cleanest_sentence(carbon_hours(result)) in written
    assert "<caption>ENERGY AND CARBON BY HOUR</caption>" in written
    assert 'aria-label="Carbon against load: A kWh emits 336.5 g CO2' in written
    none = write(tmp_path / "none", scenario_of("2d", {"chat": Slo()}), tokens(48, 1_000))
    assert "carbon_and_load" not in {chart.name for chart in charts_of(none)}
    assert carbon_hours_table(carbon_hours(none)) is None
    assert "Carbon by hour" not in page(none, [])
