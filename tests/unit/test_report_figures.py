"""Figures show what the tables say: drawn numbers against sums worked out from the rows, and equal bytes for equal tables."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from report_kit import charges, replica, row, scenario_of, traffic, write

from sim.bins import MANTISSA_BITS, edges_ns
from sim.report.figures import CHARTS, charts_of
from sim.report.figures.budget import burn_downs, slo_burn_down
from sim.report.figures.budget_months import budget_by_month, month_burns
from sim.report.figures.cost import cost_by_use, cost_stack
from sim.report.figures.fleet import demand_and_replicas, replicas_over_time
from sim.report.figures.frame import Frame
from sim.report.figures.latency_cdf import cdfs, latency_cdfs
from sim.report.figures.latency_time import latency_over_time, streams_shown
from sim.report.figures.queue import queue_over_time
from sim.report.figures.targets import finding
from sim.report.figures.trend import cost_and_latency_trend
from sim.report.figures.waterfall import months_compared, waterfall, why_dearer
from sim.report.style import png_bytes, svg_bytes, title_of
from sim.results.records import RunResult
from sim.results.why import why_month
from sim.scenario import Slo
from sim.units import NS_PER_DAY, NS_PER_HOUR, NS_PER_S

BIN = 2.0**-MANTISSA_BITS  # widest bin relative to its lower edge
TIGHT = Slo(ttft_s=0.3, tpot_s=0.03, e2e_s=6.0, attainment=0.9)


def day_run(folder: Path, *, warmup: str = "2h", slo: Slo = TIGHT, unserved: int = 4) -> RunResult:
    """A day of two services with a decision, a crash and a scale-down."""
    scenario = scenario_of("1d", {"chat": slo, "code": Slo(ttft_s=5.0, attainment=0.5)}, warmup=warmup, zone="Europe/Berlin")
    parts = {("busy", "chat"): 3_000_000_001, ("busy", "code"): 1_000_000_000, ("idle", ""): 500_000_000, ("lost", ""): 7}

    def decide(spool: Any) -> None:
        row(spool, "decisions", time_ns=3600 * NS_PER_S, deployment="llama", policy="hpa", before=2, after=3, reason="busy")

    return write(
        folder, scenario, traffic(scenario, 3600, 150, unserved=unserved), charges(scenario, parts, 24), decide,
        replica(0, 0, 0, -1, 86_400), replica(1, 0, 0, -1, 40_000, cause="crashed"),
        replica(2, 3_600, 4_000, 50_000, 50_100, cause="scaled_down"), replica(3, 40_000, -1, -1, 86_400),
    )  # fmt: skip


def empty_run(folder: Path) -> RunResult:
    """A run without a single row."""
    return write(folder, scenario_of("1h", {"chat": TIGHT}))


def drawn_svg(figure: Figure) -> bytes:
    """A figure as SVG, after a check that it is one."""
    document = svg_bytes(figure)
    assert document.startswith(b"<?xml")
    assert document.rstrip().endswith(b"</svg>")
    return document


def test_replicas_by_state_are_those_of_the_table(tmp_path: Path) -> None:
    result = day_run(tmp_path / "run")
    table = result.table("replicas")
    found = replicas_over_time(table, NS_PER_DAY)
    by_hand = {0: (2, 0, 0), 3_700: (2, 1, 0), 4_000: (3, 0, 0), 40_000: (2, 1, 0), 50_050: (1, 1, 1), 50_100: (1, 1, 0)}
    for time_s, counts in by_hand.items():
        assert tuple(found.at(time_s * NS_PER_S).values()) == counts
    for time_ns in range(0, NS_PER_DAY, 997 * NS_PER_S):
        alive = int(((table["requested_ns"] <= time_ns) & (time_ns < table["gone_ns"])).sum())
        assert sum(found.at(time_ns).values()) == alive


@given(st.lists(st.tuples(*[st.integers(0, 100)] * 4, st.booleans(), st.booleans()), max_size=12), st.integers(0, 500))
def test_every_living_replica_is_in_one_state(lives: list[tuple[int, int, int, int, bool, bool]], time_ns: int) -> None:
    requested = np.array([life[0] for life in lives], np.int64)
    ready = requested + np.array([life[1] for life in lives], np.int64)
    drain = ready + np.array([life[2] for life in lives], np.int64)
    gone = drain + np.array([life[3] for life in lives], np.int64)
    ready[[not life[4] for life in lives]] = -1
    drain[[not (life[4] and life[5]) for life in lives]] = -1
    found = replicas_over_time({"requested_ns": requested, "ready_ns": ready, "drain_ns": drain, "gone_ns": gone}, 500)
    assert min(int(counts.min()) for counts in found.counts.values()) >= 0
    assert sum(found.at(time_ns).values()) == int(((requested <= time_ns) & (time_ns < gone)).sum())


def test_the_fleet_figure_draws_arrivals_decisions_and_losses(tmp_path: Path) -> None:
    result = day_run(tmp_path / "run")
    figure = demand_and_replicas(result)
    assert title_of(figure) == "0.0856 requests/s met 1 to 3 ready replicas; 1 replica lost"
    demand, fleet = figure.axes
    chat = demand.patches[0].get_data()  # type: ignore[attr-defined]
    np.testing.assert_allclose(chat.values, 154 / 3600)
    days = Frame(result).days(chat_edges := [hour * NS_PER_HOUR for hour in range(25)])
    assert len(chat_edges) == 25
    np.testing.assert_array_equal(chat.edges, days)
    marks = [tuple(point) for collection in fleet.collections for point in np.asarray(collection.get_offsets()).tolist()]
    assert (float(Frame(result).days(3600 * NS_PER_S)), 3.0) in marks  # the decision, at what it asked for
    assert float(Frame(result).days(40_000 * NS_PER_S)) in [time for time, _ in marks]  # the crash


def test_distributions_at_a_target_are_the_attainment_within_a_bin(tmp_path: Path) -> None:
    result = day_run(tmp_path / "run")
    curves = cdfs(result)
    for service, slos in result.summary["slo"].items():
        for latency in ("ttft", "tpot", "e2e"):
            if latency in slos:
                curve, target = curves[service, latency], slos[latency]["threshold"]
                assert curve.at(target / (1 + BIN)) <= slos[latency]["attainment"] <= curve.at(target * (1 + BIN))
    # 4 of 154 requests are turned away in every window, and a fifth of the others have one token.
    assert curves["chat", "ttft"].shares[-1] == pytest.approx(150 / 154, rel=1e-12)
    assert curves["chat", "ttft"].shares[0] == 0.0
    assert curves["chat", "tpot"].shares[0] == pytest.approx(30 / 154, rel=1e-12)


def test_a_distribution_is_flat_between_bins_that_do_not_touch(tmp_path: Path) -> None:
    scenario = scenario_of("1h", {"chat": Slo()})

    def two_bins(spool: Any) -> None:
        row(spool, "windows", end_ns=NS_PER_HOUR, service="chat", completed=4, total=4, tpot_count=4, measured=True,
                **dict.fromkeys(("ttft_mean_s", "tpot_mean_s", "e2e_mean_s"), 1.0))  # fmt: skip
        for number, (low, count) in enumerate(((1e9, 1), (4e9, 3))):
            row(spool, "histograms", service="chat", latency="ttft", bin=number, low_ns=low, high_ns=low * 1.5, count=count)

    curve = cdfs(write(tmp_path / "run", scenario, two_bins))["chat", "ttft"]
    assert [curve.at(value_s) for value_s in (0.9, 1.25, 1.5, 3.9, 4.0, 5.0, 6.0)] == [0.0, 0.125, 0.25, 0.25, 0.25, 0.625, 1.0]


def test_the_distributions_figure_marks_target_and_attainment(tmp_path: Path) -> None:
    result = day_run(tmp_path / "run")
    figure = latency_cdfs(result)
    slo = result.summary["slo"]["chat"]["ttft"]
    marks = [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in figure.axes[0].lines if line.get_marker() == "D"]
    assert marks == [(0.3, slo["attainment"])]
    assert title_of(figure) == finding(result.summary)
    assert title_of(figure).startswith("3 of 4 targets missed; worst: chat has ")


def test_cost_adds_up_to_the_invoice(tmp_path: Path) -> None:
    result = day_run(tmp_path / "run")
    stack = cost_by_use(result)
    assert stack.unit == "hour"
    total = int(result.table("ledger")["amount_nano_usd"].sum())
    assert sum(int(amounts.sum()) for amounts in stack.amounts_nano.values()) == total == 24 * 4_500_000_008
    assert list(stack.amounts_nano) == ["busy: chat", "busy: code", "booting", "idle", "draining", "lost", "shared"]
    assert stack.amounts_nano["busy: chat"].tolist() == [3_000_000_001] * 24
    figure = cost_stack(result)
    assert title_of(figure) == "88.9 % of the 108.00 USD paid for work; the largest overhead is idle time with 11.1 %"
    tops = [patch.get_data() for patch in figure.axes[0].patches]  # type: ignore[attr-defined]
    np.testing.assert_allclose(tops[-1].values, 4.500000008, rtol=1e-12)  # the outline of the whole stack


def test_charges_without_a_machine_are_in_the_stack(tmp_path: Path) -> None:
    scenario = scenario_of("2h", {"chat": Slo()})
    result = write(tmp_path / "run", scenario, charges(scenario, {("busy", "chat"): 3 * 10**9, ("shared", "chat"): 10**9}, 2))
    assert cost_by_use(result).amounts_nano["shared"].tolist() == [10**9] * 2
    assert title_of(cost_stack(result)) == "75.0 % of the 8.00 USD paid for work"


def test_days_are_those_of_the_account_zone_also_when_the_clock_changes(tmp_path: Path) -> None:
    scenario = scenario_of("4d", {"chat": Slo()}, start="2026-03-27T23:00:00Z", zone="Europe/Berlin")
    stack = cost_by_use(write(tmp_path / "run", scenario, charges(scenario, {("busy", "chat"): 10}, 96)))
    assert stack.unit == "day"
    assert [edge.isoformat() for edge in stack.edges] == [
        "2026-03-28T00:00:00+01:00", "2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00",
        "2026-03-31T00:00:00+02:00", "2026-04-01T00:00:00+02:00", "2026-04-02T00:00:00+02:00",
    ]  # fmt: skip
    assert stack.amounts_nano["busy: chat"].tolist() == [240, 230, 240, 240, 10]


def test_the_hour_that_comes_twice_is_two_bars(tmp_path: Path) -> None:
    scenario = scenario_of("4h", {"chat": Slo()}, start="2026-10-24T23:00:00Z", zone="Europe/Berlin")
    stack = cost_by_use(write(tmp_path / "run", scenario, charges(scenario, {("busy", "chat"): 10}, 4)))
    assert [f"{edge:%H %z}" for edge in stack.edges] == ["23 +0000", "00 +0000", "01 +0000", "02 +0000", "03 +0000"]
    assert stack.amounts_nano["busy: chat"].tolist() == [10] * 4


def test_many_services_are_the_largest_and_the_others(tmp_path: Path) -> None:
    names = [f"service{number}" for number in range(10)]
    scenario = scenario_of("2h", dict.fromkeys(names, Slo()))
    parts = {("busy", name): 100 + number for number, name in enumerate(names)}
    stack = cost_by_use(write(tmp_path / "run", scenario, charges(scenario, parts, 2)))
    assert len(stack.amounts_nano) == 7 + 5
    assert stack.amounts_nano["busy: 4 other services"].tolist() == [100 + 101 + 102 + 103] * 2
    assert next(iter(stack.amounts_nano)) == "busy: service9"


def test_budgets_burn_down_to_one_minus_bad_by_allowed(tmp_path: Path) -> None:
    result = day_run(tmp_path / "run")
    found = {(burn.target.service, burn.target.latency): burn for burn in burn_downs(result)}
    assert set(found) == {("chat", "ttft"), ("chat", "tpot"), ("chat", "e2e"), ("code", "ttft")}
    for (service, latency), burn in found.items():
        slo = result.summary["slo"][service][latency]
        bad = slo["total"] - slo["good"]
        assert slo["total"] == 22 * 154  # two hours of warm-up count in no SLO
        assert burn.budget == pytest.approx((1 - slo["goal"]) * 22 * 154, rel=1e-12)
        assert burn.remaining[0] == 1.0
        assert burn.remaining[-1] == pytest.approx(1 - bad / burn.budget, rel=1e-12)
        assert (burn.remaining[-1] >= -1e-12) == slo["met"]
        assert (np.diff(burn.remaining) <= 0).all()
        assert burn.edges_ns.tolist() == [hour * NS_PER_HOUR for hour in range(2, 25)]
        np.testing.assert_allclose(burn.allowed, np.linspace(1, 0, 23), atol=1e-12)
    worst = found["chat", "ttft"].worst()
    assert len(worst) == 3
    assert sorted(found["chat", "ttft"].bad, reverse=True)[:3] == [found["chat", "ttft"].bad[number] for number in worst]


def test_a_spent_budget_is_said_with_its_time(tmp_path: Path) -> None:
    result = day_run(tmp_path / "run")
    worst = min(burn_downs(result), key=lambda burn: burn.remaining[-1])
    spent = int(np.argmax(worst.remaining < 0))
    when = f"{Frame(result).local(int(worst.edges_ns[spent])):%a %H:%M}"
    over = int(np.ceil(-100 * worst.remaining[-1]))
    spent_by = f"The {worst.target.latency.upper()} budget of chat was spent by {when}"
    assert title_of(slo_burn_down(result)) == f"{spent_by}, {over:,} % overspent at the end: the goal is missed"


def test_a_goal_of_everything_has_no_budget(tmp_path: Path) -> None:
    scenario = scenario_of("2h", {"chat": Slo(ttft_s=0.3, attainment=1.0)})
    result = write(tmp_path / "run", scenario, traffic(scenario, 3600, 50))
    assert burn_downs(result) == []
    figure = slo_burn_down(result)
    assert title_of(figure) == "A goal of 100 % leaves no error budget to burn"
    drawn_svg(figure)


def test_the_latency_figure_draws_the_windows_percentiles(tmp_path: Path) -> None:
    result = day_run(tmp_path / "run")
    windows = result.table("windows")
    figure = latency_over_time(result)
    drawn = [patch.get_data().values for patch in figure.axes[0].patches if hasattr(patch, "get_data")]
    for values, name in zip(drawn, ("p99", "p95", "p50"), strict=True):
        np.testing.assert_array_equal(values, windows[f"ttft_{name}_s"][windows["service"] == "chat"])
    ratios = {
        name: windows[f"{name}_p99_s"][windows["service"] == "chat"] / limit
        for name, limit in (("ttft", 0.3), ("tpot", 0.03), ("e2e", 6.0))
    }
    worst = max(ratios, key=lambda name: ratios[name].max())
    assert title_of(figure).startswith(f"Worst window: {worst.upper()} p99 of chat/all is ")


def test_the_streams_with_most_completions_are_shown() -> None:
    table = {"stream": np.repeat(np.arange(10), 2), "completed": np.repeat([5, 1, 9, 9, 9, 9, 9, 9, 0, 9], 2)}
    assert streams_shown(table) == [0, 2, 3, 4, 5, 6, 7, 9]


def test_the_queue_figure_counts_who_was_not_served(tmp_path: Path) -> None:
    result = day_run(tmp_path / "run")
    figure = queue_over_time(result)
    assert title_of(figure).endswith(f"; {24 * 2 * 4} requests not served")
    np.testing.assert_array_equal(figure.axes[1].patches[0].get_data().values, np.full(24, 8.0))  # type: ignore[attr-defined]
    served = queue_over_time(day_run(tmp_path / "served", unserved=0))
    assert title_of(served).endswith("; every request that left was served")
    assert len(served.axes) == 1


def five_weeks(folder: Path) -> RunResult:
    """Thirty-five days from 13 February 2026, a Friday, in windows of a day; March is the slower month."""
    scenario = scenario_of("35d", {"chat": Slo(ttft_s=0.8, attainment=0.99), "code": Slo()}, start="2026-02-13T00:00:00Z")

    def pay(spool: Any) -> None:
        for day in range(35):
            row(
                spool,
                "attribution",
                row=day,
                start_ns=day * NS_PER_DAY,
                use="busy",
                service="chat",
                amount_nano_usd=10**9 * (day + 1),
            )

    def speak(spool: Any) -> None:
        # Two pieces: the week of 16 February and that of 9 March, at 100 ms and 400 ms.
        for monday, low in ((3, 1e8), (24, 4e8)):
            number = int(np.searchsorted(edges_ns(), low, side="right")) - 1
            row(spool, "histograms", start_ns=monday * NS_PER_DAY, end_ns=(monday + 7) * NS_PER_DAY, service="chat", latency="ttft",
                bin=number, count=9)  # fmt: skip

    return write(folder, scenario, traffic(scenario, 86_400, 500), pay, speak)


def test_the_trend_draws_the_weeks_of_the_tables(tmp_path: Path) -> None:
    result = five_weeks(tmp_path / "run")
    figure = cost_and_latency_trend(result)
    cost, ttft = figure.axes[:2]
    edges = cost.patches[0].get_data().edges  # type: ignore[attr-defined]
    np.testing.assert_array_equal(edges, Frame(result).days([day * NS_PER_DAY for day in (0, 3, 10, 17, 24, 31, 35)]))
    drawn = [patch.get_data().values for patch in ttft.patches if hasattr(patch, "get_data")]
    median = drawn[0]
    assert np.isnan(median[[2, 3, 5]]).all()
    assert median[1] == pytest.approx(0.1, rel=BIN)
    assert median[4] == pytest.approx(0.4, rel=BIN)
    assert title_of(figure) == "No two whole weeks to compare"  # the written run has no tokens, so no price of them


def test_the_budget_of_a_month_ends_where_the_table_by_month_says(tmp_path: Path) -> None:
    result = five_weeks(tmp_path / "run")
    found = month_burns(result)
    months = result.summary["slo"]["chat"]["ttft"]["by_month"]
    assert [burn.month for burn in found] == ["2026-02", "2026-03"] == list(months)
    for burn in found:
        assert burn.remaining[0] == 1.0
        assert burn.remaining[-1] == pytest.approx(months[burn.month]["budget_left"], abs=1e-9)
    assert found[1].edges_ns.tolist() == [day * NS_PER_DAY for day in range(16, 36)]
    missed = sum(burn.remaining[-1] < 0 for burn in found)
    assert missed > 0
    assert title_of(budget_by_month(result)).startswith(
        f"{missed} of 2 monthly error budgets were overspent; worst: TTFT in 2026-0"
    )


def test_figures_of_months_are_for_runs_of_months(tmp_path: Path) -> None:
    of_days, of_weeks = day_run(tmp_path / "day"), five_weeks(tmp_path / "weeks")
    assert {chart.name for chart in charts_of(of_weeks)} - {chart.name for chart in charts_of(of_days)} == {
        "cost_and_latency_trend", "budget_by_month", "why_dearer"
    }  # fmt: skip


def test_equal_tables_give_equal_bytes(tmp_path: Path) -> None:
    first, second = day_run(tmp_path / "first"), day_run(tmp_path / "second")
    for chart in CHARTS:
        assert svg_bytes(chart.draw(first)) == svg_bytes(chart.draw(second)), chart.name
    assert png_bytes(cost_stack(first)) == png_bytes(cost_stack(second))


def test_svg_holds_no_date(tmp_path: Path) -> None:
    assert b"dc:date" not in drawn_svg(cost_stack(day_run(tmp_path / "run")))


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.name)
def test_an_empty_run_is_said_to_be_empty(tmp_path: Path, chart: Any) -> None:
    figure = chart.draw(empty_run(tmp_path / "run"))
    assert title_of(figure).startswith(("No ", "Nothing "))
    drawn_svg(figure)
    png_bytes(figure)


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.name)
@pytest.mark.parametrize(("services", "horizon", "window_s"), [(1, "10min", 600), (9, "3h", 3600)])
def test_one_window_and_many_services_are_drawn(tmp_path: Path, chart: Any, services: int, horizon: str, window_s: int) -> None:
    names = [f"_service_{number}_with_a_name_that_goes_on_and_on" for number in range(services)]
    scenario = scenario_of(horizon, dict.fromkeys(names, TIGHT))
    parts = {("busy", name): 10**9 for name in names}
    result = write(
        tmp_path / "run", scenario, traffic(scenario, window_s, 40), charges(scenario, parts, 1), replica(0, 0, 0, -1, 600)
    )
    document = drawn_svg(chart.draw(result))
    assert len(document) < 1_000_000


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", "a$b$ $\\frac{$", "\x1b[2J\n", "\u65e5\u672c --> ", "_x", "%s {0} &amp;"]
)
def test_names_from_data_are_drawn_as_text(tmp_path: Path, name: str) -> None:
    scenario = scenario_of("2h", {name: TIGHT}, name=name)
    hostile = replica(0, 0, 0, -1, 3600, deployment=name, cause=name)
    result = write(tmp_path / "run", scenario, traffic(scenario, 3600, 20), charges(scenario, {("busy", name): 10}, 2), hostile)
    for chart in CHARTS:
        assert b"<script" not in drawn_svg(chart.draw(result))


def test_the_waterfall_leads_from_one_bill_to_the_other(tmp_path: Path) -> None:
    scenario = scenario_of("71d", {"chat": TIGHT}, start="2026-01-20T00:00:00Z")
    grown = {("busy", "chat"): 2_000_000_001, ("idle", "chat"): 500_000_000, ("lost", "chat"): 7}
    result = write(tmp_path / "run", scenario, traffic(scenario, 86_400, 50), charges(scenario, grown, 71 * 24))
    assert months_compared(result) == ("2026-02", "2026-03")  # January is not whole
    found = why_month(result, "2026-03", "2026-02")
    bars = waterfall(found)
    assert (bars[0].to_nano, bars[-1].to_nano) == (28 * 24 * sum(grown.values()), found.total.after_nano)
    assert bars[-2].to_nano == bars[-1].to_nano
    assert all(bar.from_nano == before.to_nano for before, bar in itertools.pairwise(bars[:-1]))
    # Three days more; these rows have no tokens, so uses are compared as they are. 504 nano-dollars lost are too little for a bar.
    changes = [(bar.label, bar.change_nano) for bar in bars[1:-1]]
    assert changes == [("traffic", 72 * 2_000_000_001), ("idle", 72 * 500_000_000), ("all else", 72 * 7)]
    figure = why_dearer(result)
    assert title_of(figure).startswith("2026-03 cost 180.00 USD more")
    drawn_svg(figure)
    half = scenario_of("40d", {"chat": TIGHT}, start="2026-01-20T00:00:00Z")
    short = write(tmp_path / "short", half, traffic(half, 86_400, 50), charges(half, grown, 40 * 24))
    assert months_compared(short) == ("2026-01", "2026-02")
    assert "outside the run" in title_of(why_dearer(short))
