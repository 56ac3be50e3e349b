"""Burn rates and alerts against cases worked out by hand, and against a sum over every stretch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_kit import row, scenario_of, write

from sim.results.burn import JUDGED, LONG_WINDOW_ALONE, RUN_TOO_SHORT, WINDOWS_TOO_LONG, Burn, burn_rates, burns
from sim.scenario import Slo
from sim.units import NS_PER_HOUR, NS_PER_MINUTE

MINUTES_5 = 5 * NS_PER_MINUTE


def found(folder: Path, bad: Sequence[int], *, window_ns: int = MINUTES_5, goal: float = 0.99, total: int = 100) -> list[Burn]:
    """The alerts of a run with `total` requests a window, of which so many were bad for the TTFT target."""
    made = scenario_of(f"{len(bad) * window_ns // NS_PER_MINUTE}m", {"chat": Slo(ttft_s=1.0, attainment=goal)})

    def windows(spool: Any) -> None:
        for number, missed in enumerate(bad):
            row(spool, "windows", start_ns=number * window_ns, end_ns=(number + 1) * window_ns, service="chat", segment="all",
                measured=True, arrived=total, total=total, completed=total, good_ttft=total - missed, good_tpot=total,
                good_e2e=total, good_all=total - missed, ttft_mean_s=0.5, tpot_mean_s=0.01, e2e_mean_s=2.0)  # fmt: skip

    return burns(write(folder, made, windows))


def test_an_outage_pages_while_both_windows_burn_and_stops_with_the_short_one(tmp_path: Path) -> None:
    # A day of windows of 5 minutes, of which 24 to 26 are wholly bad: 15 minutes from 02:00. Goal 99 %: all bad is a rate of 100.
    bad = [0] * 288
    bad[24:27] = [100] * 3
    page, slow, ticket = found(tmp_path / "run", bad)
    assert (page.state, page.can_fire, slow.state, ticket.state) == (JUDGED, True, JUDGED, RUN_TOO_SHORT)
    # Over an hour: one bad window of 12 is 8.3, two are 16.7 (above 14.4), three are 25.
    assert page.worst == pytest.approx(25.0, rel=1e-12)
    assert page.worst_end_ns == 27 * MINUTES_5
    # It fires at the end of window 25 and is over at the end of window 27, whose five minutes are good.
    assert page.firing_ns.tolist() == [[26 * MINUTES_5, 28 * MINUTES_5]]
    # Six hours: 3 of 72 windows are 4.2, below 6; and the six hours must have passed: the first full ones end at 06:00.
    assert slow.worst == pytest.approx(100 * 3 / 72, rel=1e-12)
    assert slow.worst_end_ns == 72 * MINUTES_5
    assert not len(slow.firing_ns)
    assert (ticket.worst, ticket.worst_end_ns) == (None, None)


def test_windows_of_an_hour_say_that_only_the_long_windows_were_looked_at(tmp_path: Path) -> None:
    hours = 24 * 8
    bad = [0] * hours
    bad[100:104] = [20] * 4  # a rate of 20 for four hours
    page, slow, ticket = found(tmp_path / "run", bad, window_ns=NS_PER_HOUR)
    assert (page.state, slow.state, ticket.state) == (LONG_WINDOW_ALONE, LONG_WINDOW_ALONE, JUDGED)
    assert page.firing_ns.tolist() == [[101 * NS_PER_HOUR, 105 * NS_PER_HOUR]]
    # Six hours: 1, 2, 3, 4, 4, 4, 3, 2, 1 bad hours of six are 3.3, 6.7, 10, 13.3, ..., 6.7, 3.3: above 6 from the second on.
    assert slow.firing_ns.tolist() == [[102 * NS_PER_HOUR, 109 * NS_PER_HOUR]]
    # Three days: 4 hours of 72 at 20 are 1.1, while the six hours before are above 1, until one bad hour is left and then none.
    assert ticket.worst == pytest.approx(20 * 4 / 72, rel=1e-12)
    assert ticket.firing_ns.tolist() == [[104 * NS_PER_HOUR, 110 * NS_PER_HOUR]]


def test_windows_longer_than_the_long_window_cannot_say(tmp_path: Path) -> None:
    states = [burn.state for burn in found(tmp_path / "run", [5] * 20, window_ns=12 * NS_PER_HOUR)]
    assert states == [WINDOWS_TOO_LONG, WINDOWS_TOO_LONG, LONG_WINDOW_ALONE]


def test_an_alert_that_still_fires_lasts_to_the_end(tmp_path: Path) -> None:
    page = found(tmp_path / "run", [0] * 24 + [50] * 12)[0]
    # 50 % bad is 50: the hour passes 14.4 with the fourth bad window.
    assert page.firing_ns.tolist() == [[28 * MINUTES_5, 36 * MINUTES_5]]


def test_a_goal_that_allows_a_tenth_can_never_burn_fourteen_times(tmp_path: Path) -> None:
    page, slow, _ = found(tmp_path / "run", [100] * 100, goal=0.9)
    assert (page.can_fire, slow.can_fire) == (False, True)
    assert page.worst == pytest.approx(10.0, rel=1e-12)
    assert not len(page.firing_ns)
    assert len(slow.firing_ns) == 1


def test_a_goal_of_all_requests_has_no_burn_rate(tmp_path: Path) -> None:
    assert found(tmp_path / "run", [1] * 30, goal=1.0) == []


def test_hours_without_requests_burn_nothing(tmp_path: Path) -> None:
    page = found(tmp_path / "run", [0] * 24, total=0)[0]
    assert page.worst == 0.0


@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30),
    st.integers(1, 20),
)
def test_a_rate_is_the_sum_over_the_windows_inside(windows: list[tuple[int, int, int]], length: int) -> None:
    edges = np.cumsum([0, *(window[0] for window in windows)])
    bad = np.array([min(window[1], window[2]) for window in windows], np.int64)
    total = np.array([window[2] for window in windows], np.int64)
    ends, rates = burn_rates(edges, bad, total, 0.5, length)
    expected = []
    for last in range(1, len(edges)):
        inside = [number for number in range(last) if edges[number] >= edges[last] - length]
        if edges[last] >= length and inside:
            left = int(total[inside].sum())
            expected.append((int(edges[last]), int(bad[inside].sum()) / left / 0.5 if left else 0.0))
    assert ends.tolist() == [end for end, _ in expected]
    assert rates.tolist() == pytest.approx([rate for _, rate in expected], rel=1e-12)
