"""Months and weeks: labels, clock changes, partial ends, and that time is cut where they begin."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from control_kit import poisson, scenario, tables_of
from hypothesis import given
from hypothesis import strategies as st

from sim.results.periods import UNITS, Calendar, period_of, periods
from sim.scenario import Account, Service, Slo
from sim.units import NS_PER_DAY, NS_PER_HOUR, NS_PER_US, instant


def test_a_year_in_berlin_has_two_months_of_a_clock_change() -> None:
    start = instant("2026-01-01T00:00:00+01:00")
    found = periods(start, 365 * NS_PER_DAY, "Europe/Berlin", "month")
    hours = [(period.end_ns - period.start_ns) // NS_PER_HOUR for period in found]
    # 29 March has 23 hours, 25 October 25
    assert hours == [24 * days for days in (31, 28)] + [31 * 24 - 1] + [24 * d for d in (30, 31, 30, 31, 31, 30)] + [
        31 * 24 + 1, 30 * 24, 31 * 24
    ]  # fmt: skip
    assert not any(period.partial for period in found)
    assert [period.label for period in found][:2] == ["2026-01", "2026-02"]


def test_weeks_are_those_of_iso_8601_and_begin_on_monday() -> None:
    # 1 January 2027 is a Friday: it belongs to week 53 of 2026.
    found = periods(instant("2027-01-01"), 10 * NS_PER_DAY, "UTC", "week")
    assert [(period.label, period.start_ns // NS_PER_DAY, period.partial) for period in found] == [
        ("2026-W53", 0, True), ("2027-W01", 3, False)
    ]  # fmt: skip


def test_a_week_of_a_clock_change_is_an_hour_shorter() -> None:
    found = periods(instant("2026-03-23T00:00:00+01:00"), 20 * NS_PER_DAY, "Europe/Berlin", "week")
    assert [(period.end_ns - period.start_ns) // NS_PER_HOUR for period in found[:2]] == [167, 168]


def test_a_month_whose_first_midnight_is_skipped_begins_at_the_change() -> None:
    # In Asuncion the clock went from 00:00 to 01:00 on Sunday, 1 October 2023: at 04:00 UTC.
    found = periods(instant("2023-09-30T00:00:00-04:00"), 3 * NS_PER_DAY, "America/Asuncion", "month")
    assert [(period.label, period.start_ns // NS_PER_HOUR) for period in found] == [("2023-09", 0), ("2023-10", 24)]


def test_the_first_and_the_last_period_are_partial_where_the_run_cuts_them() -> None:
    found = periods(instant("2026-01-15"), 47 * NS_PER_DAY, "UTC", "month")
    assert [(period.label, period.partial) for period in found] == [("2026-01", True), ("2026-02", False), ("2026-03", True)]
    # In New York the run begins on the 14th at 19:00 and ends on the 2nd at 19:00.
    assert (
        periods(instant("2026-01-15"), 47 * NS_PER_DAY, "America/New_York", "month")[0].end_ns == found[0].end_ns + 5 * NS_PER_HOUR
    )


@given(
    st.datetimes(min_value=instant("2024-01-01").replace(tzinfo=None), max_value=instant("2030-01-01").replace(tzinfo=None)),
    st.integers(1, 400 * 24),
    st.sampled_from(("UTC", "Europe/Berlin", "Asia/Kolkata", "America/Santiago", "Africa/Cairo", "Pacific/Apia")),
    st.sampled_from(UNITS),
)
def test_periods_tile_the_run_and_begin_at_the_first_instant_of_a_local_day(
    moment: object, hours: int, zone: str, unit: str
) -> None:
    start = instant(str(moment))
    horizon_ns = hours * NS_PER_HOUR
    found = periods(start, horizon_ns, zone, unit)
    assert (found[0].start_ns, found[-1].end_ns) == (0, horizon_ns)
    assert all(before.end_ns == after.start_ns for before, after in pairwise(found))
    for period in found[1:]:
        local = (start + timedelta(microseconds=period.start_ns // NS_PER_US)).astimezone(ZoneInfo(zone))
        before = (start + timedelta(microseconds=period.start_ns // NS_PER_US - 1)).astimezone(ZoneInfo(zone))
        assert local.date() > before.date()
        assert local.day == 1 if unit == "month" else local.weekday() == 0


def test_windows_belong_to_the_period_in_which_they_lie() -> None:
    found = periods(instant("2026-01-31T22:00:00Z"), 6 * NS_PER_HOUR, "UTC", "month")
    assert period_of(found, np.arange(6) * NS_PER_HOUR).tolist() == [0, 0, 1, 1, 1, 1]


def test_a_service_has_its_own_zone_or_that_of_the_account() -> None:
    services = {"a": Service(timezone="Asia/Kolkata"), "b": Service()}
    made = scenario(services=services, account=Account("account", "Europe/Berlin"), start="2026-01-31T12:00:00Z", horizon="2d")
    calendar = Calendar.of(made.to_dict())
    assert dict(calendar.zones) == {"a": "Asia/Kolkata", "b": "Europe/Berlin"}
    # 1 February 2026 is a Sunday: the month begins on it, the week on the day after.
    assert calendar.cuts("a") == [round(6.5 * NS_PER_HOUR), round(30.5 * NS_PER_HOUR)]
    assert calendar.cuts("b") == [11 * NS_PER_HOUR, 35 * NS_PER_HOUR]
    assert f"{calendar.local('a', round(6.5 * NS_PER_HOUR)):%Y-%m-%d %H:%M}" == "2026-02-01 00:00"
    assert not calendar.is_long


@pytest.mark.parametrize("warmup", ["0s", "30m", "8h"])
def test_windows_and_histograms_are_cut_where_months_and_weeks_begin(tmp_path: Path, warmup: str) -> None:
    slo = Slo(ttft_s=1.0)
    services = {
        "a": Service(workload=poisson(0.05), deployments=["llama"], slo=slo, timezone="Asia/Kolkata"),
        "b": Service(workload=poisson(0.05), deployments=["llama"], slo=slo),
    }
    made = scenario(services=services, start="2026-01-31T12:00:00Z", horizon="40h", window="4h", warmup=warmup, engine="reference")
    tables = tables_of(made, tmp_path / "run")
    windows, histograms = tables["windows"], tables["histograms"]
    ends = set(windows["end_ns"])
    # Midnight in Kolkata is 18:30 UTC; 31 January noon + 6.5 h and + 30.5 h; midnight UTC is + 12 h and + 36 h.
    assert {round(6.5 * NS_PER_HOUR), round(30.5 * NS_PER_HOUR), 12 * NS_PER_HOUR, 36 * NS_PER_HOUR, 40 * NS_PER_HOUR} <= ends
    for stream, service in enumerate(services):
        cuts = Calendar.of(made.to_dict()).cuts(service)
        rows = [row for row in range(len(histograms["stream"])) if histograms["stream"][row] == stream]
        warm_ns = {"0s": 0, "30m": NS_PER_HOUR // 2, "8h": 8 * NS_PER_HOUR}[warmup]
        edges = [warm_ns, *(cut for cut in cuts if cut > warm_ns), 40 * NS_PER_HOUR]
        assert {(histograms["start_ns"][row], histograms["end_ns"][row]) for row in rows} == set(pairwise(edges))
        for start_ns, end_ns in pairwise(edges):
            binned = sum(
                histograms["count"][row] for row in rows
                if histograms["start_ns"][row] == start_ns and histograms["latency"][row] == "e2e"
            )  # fmt: skip
            completed = sum(
                windows["completed"][row] for row in range(len(windows["stream"]))
                if windows["stream"][row] == stream and start_ns <= windows["start_ns"][row] < end_ns
            )  # fmt: skip
            assert binned == completed > 0
