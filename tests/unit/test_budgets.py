"""Budgets: months worked by hand, alerts and actions, and the law that a budget which only tells changes no other table."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from control_kit import FIXED, poisson, scenario, schedule
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import simulate
from sim.control.spend import AccountClock, Spend
from sim.errors import InputError
from sim.policies.autoscalers.static import Static
from sim.policies.budgets.cap_replicas import CapReplicas
from sim.policies.budgets.hour_of_week import HourOfWeek
from sim.policies.budgets.linear import Linear
from sim.results.budgets import BudgetMonth, budget_months
from sim.results.records import RunResult
from sim.scenario import Account, Deployment, Pool, Scenario, Service, Spot
from sim.scenario.budgets import Budget
from sim.scenario.check import check
from sim.schema import TABLES
from sim.units import NS_PER_DAY, NS_PER_HOUR, instant

USD = 10**9


def _quiet(**changes: Any) -> Scenario:
    """One machine at 1 dollar an hour from the first moment on, and next to no requests: the bill is the number of hours."""
    parts: dict[str, Any] = {
        "start": "2026-01-01T00:00:00Z",
        "horizon": "35d",
        "window": "1d",
        "services": {"chat": Service(workload=poisson(0.0005), deployments=["llama"])},
        "deployments": {"llama": Deployment(pools=["gpu"], autoscaler=Static(replicas=1))},
        "pools": {"gpu": Pool(cold_start=FIXED, price_usd_per_hour="1")},
    }
    return scenario(**{**parts, **changes})


def _alerts(result: RunResult) -> list[dict[str, Any]]:
    columns = {name: values.tolist() for name, values in result.table("alerts").items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _brief(month: BudgetMonth) -> list[tuple[str, float, float, int, int | None]]:
    """Kind, share, hour of the run, dollars spent and forecast of each alert."""
    return [
        (
            alert.kind,
            alert.share,
            alert.time_ns / NS_PER_HOUR,
            alert.spent_nano // USD,
            alert.forecast_nano and alert.forecast_nano // USD,
        )
        for alert in month.alerts
    ]


# Months by hand


def test_a_month_at_a_dollar_an_hour(tmp_path: Path) -> None:
    result = simulate(_quiet(budgets={"all": Budget(usd_per_month="500")}), out=tmp_path / "run")
    january, february = budget_months(result)
    # The spend of an hour is known two hours after its end. Of 744 hours, 24 have to be seen before a forecast is judged.
    assert _brief(january) == [
        ("forecast", 1.0, 26, 24, 744),
        ("actual", 0.5, 252, 250, 744),
        ("actual", 0.8, 402, 400, 744),
        ("actual", 1.0, 502, 500, 744),
    ]
    # The 501st dollar is the first above the budget.
    assert january.overrun_ns == 501 * NS_PER_HOUR
    assert [alert.days_before_overrun for alert in january.alerts] == [475 / 24, 249 / 24, 99 / 24, -1 / 24]
    assert (january.month, january.partial, january.spent_nano) == ("2026-01", False, 744 * USD)
    # Four days of February cost 96 dollars; all 28 would cost 672.
    assert _brief(february) == [("forecast", 1.0, 744 + 26, 24, 672)]
    assert (february.partial, february.spent_nano, february.overrun_ns) == (True, 96 * USD, None)
    assert [alert.days_before_overrun for alert in february.alerts] == [None]


def test_a_month_that_is_just_kept(tmp_path: Path) -> None:
    result = simulate(_quiet(budgets={"all": Budget(usd_per_month="744")}), out=tmp_path / "run")
    january, february = budget_months(result)
    assert january.overrun_ns is None
    # The last two hours of January are known at two in the morning of the first of February, and still belong to January.
    assert _brief(january)[-1] == ("actual", 1.0, 746, 744, 744)
    assert _brief(february) == []


def test_a_run_that_begins_within_a_month(tmp_path: Path) -> None:
    budget = Budget(usd_per_month="700", spent_before_usd="100", actual_at=[0.2], forecast_at=[0.9, 1.0])
    result = simulate(_quiet(start="2026-01-11T12:30:00Z", horizon="21d", budgets={"all": budget}), out=tmp_path / "run")
    january, _ = budget_months(result)
    # Hours of the account end at half past in the run. A fifth of the budget is 140 dollars: 100 were spent before, and 40.5 hours
    # are the first such end that makes up for the rest. Of the month 491.5 hours are left to the run: the forecast is 591.50, below
    # nine tenths of 700 (630).
    assert _brief(january) == [("actual", 0.2, 42.5, 140, 591)]
    assert january.spent_nano == january.alerts[0].forecast_nano == 591 * USD + USD // 2
    assert january.overrun_ns is None


@pytest.mark.parametrize(
    ("start", "month", "hours"), [("2026-09-30T22:00:00Z", "2026-10", 745), ("2027-02-28T23:00:00Z", "2027-03", 743)]
)
def test_a_month_in_which_the_clocks_change(start: str, month: str, hours: int, tmp_path: Path) -> None:
    budgets = {
        "line": Budget(usd_per_month=str(hours), actual_at=[1.0]),
        "profile": Budget(usd_per_month=str(hours), actual_at=[1.0], forecast=HourOfWeek(), forecast_after="8d"),
        "daily": Budget(usd_per_month="600", actual_at=[1.0], forecast_at=[], check_every="24h"),
    }
    made = _quiet(start=start, horizon="32d", account=Account(timezone="Europe/Berlin"), budgets=budgets)
    result = simulate(made, out=tmp_path / "run")
    found = {one.budget: one for one in budget_months(result) if one.month == month}
    assert found["line"].spent_nano == hours * USD
    assert _brief(found["line"]) == [("forecast", 1.0, 26, 24, hours), ("actual", 1.0, hours + 2, hours, hours)]
    assert _brief(found["profile"])[0] == ("forecast", 1.0, 8 * 24 + 2, 8 * 24, hours)
    # 600 dollars are known at hour 602. The next midnight ends the 26th day; in October the clocks have changed by then (on the
    # 25th), in March they have not (on the 28th).
    midnight = 26 * 24 + (hours == 745)
    assert _brief(found["daily"]) == [("actual", 1.0, midnight, midnight - 2, hours)]


# Forecasts


def _spent(clock: AccountClock, cost: Any, until_ns: int) -> Spend:
    spend = Spend(clock, 0)
    for hour in clock.hours():
        if hour.end_ns > until_ns:
            break
        spend.book(hour.start_ns, cost(hour))
        spend.know(hour)
    return spend


def test_the_week_is_seen_in_the_profile_and_not_in_the_line() -> None:
    # November 2026 begins on a Sunday and has 30 days, 9 of them at weekends: 21 x 24 x 3 + 9 x 24 x 1 = 1,728 dollars.
    clock = AccountClock(instant("2026-11-01T00:00:00Z"), 60 * NS_PER_DAY, "UTC")

    def cost(hour: Any) -> int:
        return (3 if hour.of_week < 120 else 1) * USD

    after_a_week = _spent(clock, cost, 7 * NS_PER_DAY).view()
    assert after_a_week.spent_nano == (5 * 24 * 3 + 2 * 24) * USD
    assert HourOfWeek().forecast_nano(after_a_week) == 1_728 * USD
    # 408 dollars in 7 of 30 days: 1,748.571428571(4).
    assert Linear().forecast_nano(after_a_week) == 1_748_571_428_571
    # Before a week is over the profile does not know every hour, and is the line.
    early = _spent(clock, cost, 6 * NS_PER_DAY).view()
    assert HourOfWeek().forecast_nano(early) == Linear().forecast_nano(early)
    # It is known from the end of the month before.
    december = _spent(clock, cost, 31 * NS_PER_DAY).view()
    assert HourOfWeek().forecast_nano(december) == (23 * 24 * 3 + 8 * 24) * USD


def test_only_the_latest_weeks_count() -> None:
    clock = AccountClock(instant("2026-11-01T00:00:00Z"), 60 * NS_PER_DAY, "UTC")
    # Every week is a dollar an hour dearer than the one before.
    view = _spent(clock, lambda hour: (1 + hour.start_ns // (7 * NS_PER_DAY)) * USD, 28 * NS_PER_DAY).view()
    left_hours = 2 * 24
    assert sum(view.hours_left) == left_hours
    assert HourOfWeek(weeks=1).forecast_nano(view) == view.spent_nano + left_hours * 4 * USD
    assert HourOfWeek(weeks=2).forecast_nano(view) == view.spent_nano + left_hours * 7 * USD // 2
    assert HourOfWeek(weeks=4).forecast_nano(view) == view.spent_nano + left_hours * 5 * USD // 2


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2 * 366 * 24 * 60),
    st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kolkata", "America/New_York", "Australia/Lord_Howe"]),
    st.integers(1, 70),
)
def test_hours_of_the_account_partition_the_run(minute: int, zone: str, days: int) -> None:
    clock = AccountClock(instant("2026-01-01") + timedelta(minutes=minute), days * NS_PER_DAY, zone)
    hours = list(clock.hours())
    assert hours[0].start_ns == 0
    assert hours[-1].end_ns == days * NS_PER_DAY
    assert [hour.end_ns for hour in hours[:-1]] == [hour.start_ns for hour in hours[1:]]
    for hour in (hours[0], hours[len(hours) // 2], hours[-1]):
        local = clock.local(hour.start_ns)
        assert (hour.of_week, f"{local:%Y-%m}") == (local.weekday() * 24 + local.hour, hour.month.label)
        assert hour.month.start_ns <= hour.start_ns < hour.end_ns <= hour.month.end_ns or hour.end_ns == days * NS_PER_DAY
        # What is left of the month is every hour from this one on.
        left = Counter(
            other.of_week for other in AccountClock(clock.start, hour.month.end_ns, zone).hours() if other.start_ns >= hour.start_ns
        )
        assert {of_week: count for of_week, count in enumerate(clock.hours_left(hour)) if count} == left


def test_what_is_kept_does_not_grow_with_the_run() -> None:
    clock = AccountClock(instant("2026-01-01T00:00:00Z"), 400 * NS_PER_DAY, "Europe/Berlin")
    spend = _spent(clock, lambda hour: USD, 400 * NS_PER_DAY)
    view = spend.view()
    assert {len(past) for past in view.history} == {4}
    assert spend._booked == {}


# What a budget knows


def _busy(**changes: Any) -> Scenario:
    """Two services on shared machines, on demand and spot, with an unequal day."""
    parts: dict[str, Any] = {
        "start": "2026-02-26T05:20:00Z",
        "horizon": "5d",
        "services": {
            "chat": Service(workload=poisson(0.01), deployments=["llama", "other"]),
            "search": Service(workload=poisson(0.004), deployments=["llama"]),
        },
        "deployments": {
            "llama": Deployment(pools=["spot", "gpu"], autoscaler=Static(replicas=3)),
            "other": schedule(0, ("5h", 2), ("5h30min", 0), ("3d", 1))["llama"],
        },
        "pools": {
            "gpu": Pool(cold_start=FIXED),
            "spot": Pool(purchase="spot", spot=Spot(market="advisor-20"), cold_start=FIXED, quota_nodes=2),
        },
        "account": Account(timezone="America/New_York"),
    }
    return scenario(**{**parts, **changes})


ALL_SCOPES = {
    "all": Budget(usd_per_month="900", actual_at=[0.01 * step for step in range(1, 100)]),
    "chat": Budget(scope="service", of="chat", usd_per_month="400", actual_at=[0.02 * step for step in range(1, 40)]),
    "search": Budget(scope="service", of="search", usd_per_month="400", actual_at=[0.02 * step for step in range(1, 40)]),
    "segment": Budget(scope="segment", of="chat/all", usd_per_month="400", actual_at=[0.02 * step for step in range(1, 40)]),
    "llama": Budget(scope="deployment", of="llama", usd_per_month="400", check_every="6h", data_delay="9h"),
}


def _end_ns(local_hour: str, start: datetime) -> int:
    return (datetime.fromisoformat(local_hour) + timedelta(hours=1) - start) // timedelta(microseconds=1) * 1_000


def test_a_budget_knows_what_the_ledger_says_of_the_time_it_knows(tmp_path: Path) -> None:
    made = _busy(budgets=ALL_SCOPES)
    result = simulate(made, out=tmp_path / "run")
    rows = result.sql("""SELECT l.local_hour, l.month, p.service, p.segment, p.deployment, p.amount_nano_usd AS amount
        FROM ledger AS l JOIN attribution AS p ON p.row = l.row""")
    parts = [dict(zip(rows, row, strict=True)) for row in zip(*(column.tolist() for column in rows.values()), strict=True)]
    mine = {
        "all": lambda part: True,
        "chat": lambda part: part["service"] == "chat",
        "search": lambda part: part["service"] == "search",
        "segment": lambda part: part["service"] == "chat",
        "llama": lambda part: part["deployment"] == "llama",
    }
    found = _alerts(result)
    assert {row["budget"] for row in found} == set(mine)
    assert len(found) > 60
    assert "spot" in result.table("ledger")["pool"]
    for row in found:
        known = [part["amount"] for part in parts if part["month"] == row["month"] and mine[row["budget"]](part)
            and _end_ns(part["local_hour"], made.start_instant) <= row["known_to_ns"]]  # fmt: skip
        assert row["spent_nano_usd"] == sum(known), row
    months = {(month.budget, month.month): month.spent_nano for month in budget_months(result)}
    for month in ("2026-02", "2026-03"):
        assert months["all", month] == sum(part["amount"] for part in parts if part["month"] == month)
        assert months["all", month] == months["chat", month] + months["search", month]
        assert months["segment", month] == months["chat", month]


def _bytes(folder: Path) -> dict[str, bytes]:
    return {name: (folder / f"{name}.parquet").read_bytes() for name in TABLES}


def test_a_budget_without_actions_changes_no_other_table(tmp_path: Path) -> None:
    simulate(_busy(), out=tmp_path / "without")
    simulate(_busy(budgets=ALL_SCOPES), out=tmp_path / "with")
    without, with_budgets = _bytes(tmp_path / "without"), _bytes(tmp_path / "with")
    assert {name for name in TABLES if without[name] != with_budgets[name]} == {"alerts", "budget_months"}


@pytest.mark.parametrize("acting", [False, True])
def test_both_engines_say_the_same(acting: bool, tmp_path: Path) -> None:
    actions = {"cap": CapReplicas(deployment="llama", most_replicas=1, at=0.9)} if acting else {}
    budgets = {"all": Budget(usd_per_month="4000", spent_before_usd="3000", forecast_after="6h", actions=dict(actions))}
    found = []
    for engine in ("reference", "compiled"):
        result = simulate(_busy(horizon="2d", engine=engine, budgets=budgets), out=tmp_path / engine)
        found.append({name: result.sql(f"SELECT * FROM {name}") for name in ("alerts", "ledger", "decisions", "events")})
    for name, columns in found[0].items():
        for column, values in columns.items():
            assert values.tolist() == found[1][name][column].tolist(), (name, column)
    assert len(found[0]["alerts"]["number"]) > 1


# Actions


def _pair(**changes: Any) -> Scenario:
    """Two machines at a dollar an hour each."""
    return _quiet(deployments={"llama": Deployment(pools=["gpu"], autoscaler=Static(replicas=2))}, **changes)


def test_a_cap_lowers_the_bill_and_is_undone_with_the_month(tmp_path: Path) -> None:
    cap = CapReplicas(deployment="llama", most_replicas=1, by="actual", at=0.5)
    budget = Budget(usd_per_month="1000", actions={"cap": cap})
    result = simulate(_pair(budgets={"all": budget}), out=tmp_path / "run")
    january = budget_months(result)[0]
    # 500 dollars are spent after 250 hours and known at 252. From then on one machine runs for 492 hours, and the other one is
    # given back at once, for it has nothing to do.
    assert january.spent_nano == (252 * 2 + 492) * USD
    assert january.overrun_ns is None
    acted = [(row["kind"], row["time_ns"] // NS_PER_HOUR, row["action"]) for row in _alerts(result) if row["action"]]
    assert acted == [("action_begins", 252, "cap"), ("action_ends", 744, "cap")]
    decisions = result.table("decisions")
    rows = list(zip(*(decisions[name].tolist() for name in ("time_ns", "policy", "before", "after")), strict=True))
    assert rows == [(252 * NS_PER_HOUR, "budgets.all.cap", 2, 1), (744 * NS_PER_HOUR, "budgets.all.cap", 1, 2)]
    # The second machine is asked for at midnight and paid for ten seconds later.
    february_s = sum(result.sql("SELECT quantity::BIGINT AS s FROM ledger WHERE month = '2026-02'")["s"].tolist())
    assert february_s == 2 * 4 * 86_400 - 10


def test_an_action_on_the_forecast_ends_when_it_has_helped(tmp_path: Path) -> None:
    cap = CapReplicas(deployment="llama", most_replicas=1, at=1.0, until=0.95)
    budget = Budget(usd_per_month="1000", actual_at=[], forecast_at=[], forecast_after="5d", actions={"cap": cap})
    result = simulate(_pair(horizon="31d", budgets={"all": budget}), out=tmp_path / "run")
    begins, ends, *_ = _alerts(result)
    # Five days are known at hour 122: 240 dollars of 120 hours, 1,488 of 744.
    assert (begins["kind"], begins["time_ns"], begins["forecast_nano_usd"]) == ("action_begins", 122 * NS_PER_HOUR, 1488 * USD)
    # One machine less from hour 122 on: after h hours h + 122 dollars are spent, and the forecast (h + 122) x 744 / h is below 950
    # from h = 441 on, known at 443.
    assert (ends["kind"], ends["time_ns"]) == ("action_ends", 443 * NS_PER_HOUR)
    assert ends["share"] == 0.95
    assert ends["forecast_nano_usd"] < 950 * USD


def test_the_wish_of_the_autoscaler_is_kept_under_a_cap(tmp_path: Path) -> None:
    cap = CapReplicas(deployment="llama", most_replicas=2, by="actual", at=0.01)
    budget = Budget(usd_per_month="100", actual_at=[], forecast_at=[], actions={"cap": cap})
    made = _quiet(
        start="2026-01-31T00:00:00Z", horizon="2d", deployments=schedule(1, ("6h", 4), ("12h", 3)), budgets={"all": budget}
    )
    result = simulate(made, out=tmp_path / "run")
    decisions = result.table("decisions")
    rows = list(zip(*(decisions[name].tolist() for name in ("time_ns", "before", "after")), strict=True))
    hours = [(time_ns / NS_PER_HOUR, before, after) for time_ns, before, after in rows]
    # The cap begins at hour 3 and changes nothing; at 6 four are wanted and two allowed, at 12 three are wanted.
    # February begins without it, until a dollar of it is known to be spent.
    assert hours == [(6, 1, 2), (12, 2, 2), (24, 2, 3), (27, 3, 2)]


# What is refused


def test_everything_that_is_wrong_is_said_at_once() -> None:
    budgets = {
        "1st": Budget(usd_per_month="100"),
        "money": Budget(usd_per_month="lots", spent_before_usd="-1"),
        "nothing": Budget(usd_per_month="0"),
        "scope": Budget(scope="acount", usd_per_month="1"),
        "whole": Budget(of="chat", usd_per_month="1"),
        "service": Budget(scope="service", of="caht", usd_per_month="1"),
        "segment": Budget(scope="segment", of="chat/al", usd_per_month="1"),
        "no_service": Budget(scope="segment", of="chta/all", usd_per_month="1"),
        "deployment": Budget(scope="deployment", of="lama", usd_per_month="1"),
        "shares": Budget(usd_per_month="1", actual_at=[0.5, 0.5, 0.0], forecast_at=[11.0]),
        "times": Budget(usd_per_month="1", check_every="5h", data_delay="1h", forecast_after="soon"),
        "weeks": Budget(usd_per_month="1", forecast=HourOfWeek(weeks=5)),
        "acts": Budget(
            usd_per_month="1",
            actions={
                "cap": CapReplicas(deployment="lama", most_replicas=-1, by="forcast", at=0.0),
                "never": CapReplicas(deployment="llama", by="actual", until=0.5),
                "turned": CapReplicas(deployment="llama", at=0.5, until=0.6),
            },
        ),
    }
    with pytest.raises(InputError) as raised:
        check(_quiet(budgets=budgets))
    found = {problem.path.removeprefix("budgets."): problem for problem in raised.value.problems}
    assert set(found) == {
        "1st", "money.usd_per_month", "money.spent_before_usd", "nothing.usd_per_month", "scope.scope", "whole.of", "service.of",
        "segment.of", "no_service.of", "deployment.of", "shares.actual_at[1]", "shares.actual_at[2]", "shares.forecast_at[0]",
        "times.check_every", "times.data_delay", "times.forecast_after", "weeks.forecast.weeks", "acts.actions.cap.deployment",
        "acts.actions.cap.most_replicas", "acts.actions.cap.by", "acts.actions.cap.at", "acts.actions.never.until",
        "acts.actions.turned.until",
    }  # fmt: skip
    nearest = {path: problem.nearest for path, problem in found.items() if problem.nearest}
    assert nearest == {
        "scope.scope": "account", "service.of": "chat", "segment.of": "chat/all", "no_service.of": "chat/all",
        "deployment.of": "llama", "acts.actions.cap.deployment": "llama", "acts.actions.cap.by": "forecast",
    }  # fmt: skip
