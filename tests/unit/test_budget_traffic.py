"""Budgets that turn requests away or send them elsewhere: worked by hand, undone in time, and never without a row that says why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from control_kit import FIXED, poisson, scenario

from sim import simulate
from sim.errors import InputError
from sim.policies.autoscalers.hpa import Hpa, Metric
from sim.policies.autoscalers.static import Static
from sim.policies.budgets.base import BudgetAction, FleetView, Traffic
from sim.policies.budgets.route_to import RouteTo
from sim.policies.budgets.throttle_segment import ThrottleSegment
from sim.registry import register
from sim.results.budgets import budget_months
from sim.results.causes import causes
from sim.results.records import RunResult
from sim.scenario import Deployment, Failure, Pool, Scenario, Service, Slo
from sim.scenario.budgets import Budget
from sim.scenario.check import check
from sim.schema import TABLES
from sim.units import NS_PER_HOUR, NS_PER_S
from sim.workload.trace import Trace

USD = 10**9
# From an order to a replica that admits requests, and the part of it that is paid for (`control_kit.FIXED`).
COLD_S, PAID_COLD_S = 150, 140


def _chat(rate_per_s: float, **changes: Any) -> Service:
    workload = replace(poisson(rate_per_s), segments={"free": 3.0, "paid": 1.0})
    return Service(**{"workload": workload, "deployments": ["large", "small"], "slo": Slo(ttft_s=1.0), **changes})


def _two(horizon: str = "2d", *, rate_per_s: float = 0.01, small: int = 0, **changes: Any) -> Scenario:
    """A large machine at 4 dollars an hour, and on demand small ones at 1; January has two days left."""
    parts: dict[str, Any] = {
        "start": "2026-01-30T00:00:00Z",
        "horizon": horizon,
        "window": "1h",
        "records": "all",
        "services": {"chat": _chat(rate_per_s)},
        "deployments": {
            "large": Deployment(pools=["dear"], autoscaler=Static(replicas=1)),
            "small": Deployment(pools=["cheap"], autoscaler=Static(replicas=small)),
        },
        "pools": {
            "dear": Pool(cold_start=FIXED, price_usd_per_hour="4"),
            "cheap": Pool(cold_start=FIXED, price_usd_per_hour="1"),
        },
    }
    return scenario(**{**parts, **changes})


def _budget(*actions: BudgetAction, usd: str = "100", **changes: Any) -> dict[str, Budget]:
    named = {f"act{number}": action for number, action in enumerate(actions)}
    return {"all": Budget(usd_per_month=usd, actual_at=[], forecast_at=[], actions=named, **changes)}


def _rows(result: RunResult, table: str, *names: str) -> list[tuple[Any, ...]]:
    columns = result.table(table)
    return list(zip(*(columns[name].tolist() for name in names), strict=True))


def _hours(time_ns: int) -> float:
    return time_ns / NS_PER_HOUR


# Throttles


def test_a_segment_is_throttled_until_the_month_is_over(tmp_path: Path) -> None:
    throttle = ThrottleSegment(service="chat", segment="free", admitted_share=0.25, by="actual", at=0.4)
    made = _two("3d", rate_per_s=0.05, budgets=_budget(throttle))
    result = simulate(made, out=tmp_path / "run")
    # 4 dollars an hour: 40 are spent after ten hours, and known at twelve. January ends at hour 48.
    changes = _rows(result, "traffic", "time_ns", "service", "segment", "policy", "admitted_before", "admitted", "deployments")
    assert [(_hours(row[0]), *row[1:]) for row in changes] == [
        (12, "chat", "free", "budgets.all.act0", 1.0, 0.25, "large,small"),
        (48, "chat", "free", "budgets.all.act0", 0.25, 1.0, "large,small"),
        # Of February 40 dollars are known 12 hours after it began.
        (60, "chat", "free", "budgets.all.act0", 1.0, 0.25, "large,small"),
    ]
    told = [row for row in _rows(result, "events", "kind", "subject", "detail") if row[0] == "throttled"]
    assert told == [("throttled", "chat/free", f"{share} of new requests let in") for share in ("25.0%", "100.0%", "25.0%")]
    closed = [(12, 48), (60, 72)]
    requests = _rows(result, "requests", "segment", "arrival_ns", "leave_ns", "outcome", "first_token_ns", "replica")
    free = [row for row in requests if row[0] == "free" and any(low < _hours(row[1]) <= high for low, high in closed)]
    turned_away = [row for row in requests if row[3] == "throttled"]
    assert set(turned_away) <= set(free)
    assert all((leave, first, replica) == (arrival, -1, -1) for _, arrival, leave, _, first, replica in turned_away)
    # Three quarters of about 6,480, within five standard deviations.
    assert len(free) > 5_000
    assert abs(len(turned_away) / len(free) - 0.75) < 5 * (0.75 * 0.25 / len(free)) ** 0.5
    _adds_up(result, len(turned_away))


def _adds_up(result: RunResult, turned_away: int) -> None:
    """The windows, the summary, the causes and the report on budgets speak of the same requests."""
    windows, summary = result.table("windows"), result.summary
    assert windows["throttled"].sum() == windows["rejected"].sum() == summary["requests"]["rejected"] == turned_away
    requests = summary["requests"]
    assert requests["arrived"] == sum(requests[name] for name in ("completed", "failed", "abandoned", "rejected", "unfinished"))
    [cause] = [row for row in causes(result)["chat"] if row.cause == "throttled"]
    assert cause.requests == turned_away
    assert summary["slo"]["chat"]["ttft"]["total"] - summary["slo"]["chat"]["ttft"]["good"] >= turned_away
    assert sum(acted.turned_away for month in budget_months(result) for acted in month.acted) == turned_away


def test_of_several_throttles_the_lowest_share_holds(tmp_path: Path) -> None:
    third = ThrottleSegment(service="chat", admitted_share=0.3, by="actual", at=0.1)
    half = ThrottleSegment(service="chat", segment="free", admitted_share=0.5, by="actual", at=0.2)
    tenth = ThrottleSegment(service="chat", segment="paid", admitted_share=0.1, by="actual", at=0.3)
    result = simulate(_two("49h", budgets=_budget(third, half, tenth, usd="80")), out=tmp_path / "run")
    rows = [
        (_hours(time_ns), segment, policy[-4:], before, after)
        for time_ns, segment, policy, before, after in _rows(
            result, "traffic", "time_ns", "segment", "policy", "admitted_before", "admitted"
        )
    ]
    third_exactly = round(0.3 * 2**20) / 2**20
    tenth_exactly = round(0.1 * 2**20) / 2**20
    # 8, 16 and 24 dollars are known after 2, 4 and 6 hours and two more; half of the free ones is more than a third of all.
    assert rows == [
        (4, "free", "act0", 1.0, third_exactly),
        (4, "paid", "act0", 1.0, third_exactly),
        (8, "paid", "act2", third_exactly, tenth_exactly),
        (48, "free", "act0", third_exactly, 0.5),
        (48, "free", "act1", 0.5, 1.0),
        (48, "paid", "act2", tenth_exactly, 1.0),
    ]


def test_autoscalers_see_only_who_was_let_in(tmp_path: Path) -> None:
    # One replica for each request a second: at two a second there are two, and one when a quarter is let in.
    hpa = Hpa(max_replicas=4, metrics=[Metric(source="external", name="requests_per_s", target=1.0)], metric_window_s=600.0)
    throttle = ThrottleSegment(service="chat", admitted_share=0.25, by="actual", at=0.1)
    made = _two("10h", rate_per_s=1.8, records="none", budgets=_budget(throttle))
    made.deployments = {"large": replace(made.deployments["large"], autoscaler=hpa)}
    made.services["chat"].deployments = ["large"]
    result = simulate(made, out=tmp_path / "run")
    [(began_ns, _), *_] = _rows(result, "traffic", "time_ns", "admitted")
    decisions = [(time_ns > began_ns, after) for time_ns, after in _rows(result, "decisions", "time_ns", "after")]
    assert decisions == [(False, 2), (True, 1)]


# Routes


def test_traffic_moves_when_the_cheaper_replicas_are_there(tmp_path: Path) -> None:
    route = RouteTo(service="chat", deployment="small", replicas=2, others_most_replicas=0, by="actual", at=0.4)
    result = simulate(_two("49h", budgets=_budget(route)), out=tmp_path / "run")
    moved_ns, back_ns = 12 * NS_PER_HOUR + COLD_S * NS_PER_S, 48 * NS_PER_HOUR
    rows = _rows(result, "traffic", "time_ns", "segment", "deployments_before", "deployments", "reason")
    assert [row[:4] for row in rows] == [
        (moved_ns, "free", "large,small", "small"),
        (moved_ns, "paid", "large,small", "small"),
        (back_ns, "free", "small", "large,small"),
        (back_ns, "paid", "small", "large,small"),
    ]
    assert rows[0][4] == "the spend is 40.00 of 100.00 USD (40.0%)"
    assert rows[2][4] == "the month 2026-01 is over"
    decisions = _rows(result, "decisions", "time_ns", "deployment", "before", "after", "policy")
    assert [row[:4] for row in decisions] == [
        (12 * NS_PER_HOUR, "small", 0, 2),
        (moved_ns, "large", 1, 0),
        (back_ns, "large", 0, 1),
        (back_ns, "small", 2, 0),
    ]
    assert {row[4] for row in decisions} == {"budgets.all.act0"}
    deployment_of = dict(_rows(result, "replicas", "replica", "deployment"))
    for arrival_ns, replica, outcome in _rows(result, "requests", "arrival_ns", "replica", "outcome"):
        if outcome == "completed":
            assert deployment_of[replica] == ("small" if moved_ns < arrival_ns <= back_ns else "large")
    # Worked by hand: the large machine until the traffic has moved, for it was empty then; two small ones to the end of the month,
    # from ten seconds after their order on. Rows are rounded one by one.
    month, _ = budget_months(result)
    by_hand = 4 * (12 + COLD_S / 3600) + 2 * (36 - (COLD_S - PAID_COLD_S) / 3600)
    assert month.spent_nano == pytest.approx(by_hand * USD, abs=5)
    [acted] = month.acted
    assert (acted.choice, acted.begun_ns, acted.moved_ns, acted.ended_ns) == ("route_to", 12 * NS_PER_HOUR, moved_ns, back_ns)


def test_traffic_goes_back_while_a_cheaper_replica_is_lost(tmp_path: Path) -> None:
    route = RouteTo(service="chat", deployment="small", by="actual", at=0.04)
    crash = Failure(at="5h", pool="cheap")
    result = simulate(_two("8h", failures=[crash], budgets=_budget(route)), out=tmp_path / "run")
    rows = _rows(result, "traffic", "time_ns", "segment", "deployments")
    cold_ns = COLD_S * NS_PER_S
    assert [(time_ns, to) for time_ns, segment, to in rows if segment == "free"] == [
        (3 * NS_PER_HOUR + cold_ns, "small"),
        (5 * NS_PER_HOUR, "large,small"),
        (5 * NS_PER_HOUR + cold_ns, "small"),
    ]


def test_of_several_routes_the_first_in_the_scenario_holds(tmp_path: Path) -> None:
    to_large = RouteTo(service="chat", segment="paid", deployment="large", by="actual", at=0.2)
    to_small = RouteTo(service="chat", deployment="small", by="actual", at=0.1)
    result = simulate(_two("5h", small=1, budgets=_budget(to_large, to_small, usd="50")), out=tmp_path / "run")
    rows = [(_hours(row[0]), *row[1:]) for row in _rows(result, "traffic", "time_ns", "segment", "policy", "deployments")]
    # Five dollars an hour: 5 are known at 3, 10 at 4.
    assert rows == [
        (3, "free", "budgets.all.act1", "small"),
        (3, "paid", "budgets.all.act1", "small"),
        (4, "paid", "budgets.all.act0", "large"),
    ]


def test_the_autoscaler_of_the_dear_deployment_shrinks_it(tmp_path: Path) -> None:
    def hpa(least: int, most: int) -> Hpa:
        return Hpa(min_replicas=least, max_replicas=most, metrics=[Metric(target=2.0)], metric_window_s=120.0)

    route = RouteTo(service="chat", deployment="small", replicas=1, by="actual", at=0.08)
    made = _two("8h", rate_per_s=20.0, records="none", budgets=_budget(route, usd="400"))
    made.deployments["large"] = replace(made.deployments["large"], autoscaler=hpa(1, 8))
    made.deployments["small"] = replace(made.deployments["small"], autoscaler=hpa(1, 8))
    result = simulate(made, out=tmp_path / "run")
    moved_ns = _rows(result, "traffic", "time_ns")[0][0]
    decisions = _rows(result, "decisions", "time_ns", "deployment", "after")
    large = [after for time_ns, name, after in decisions if name == "large" and time_ns > moved_ns]
    small = [after for time_ns, name, after in decisions if name == "small" and time_ns > moved_ns]
    before = [after for time_ns, name, after in decisions if name == "large" and time_ns <= moved_ns]
    # Each goes by the requests on its own replicas.
    assert max(before) > 1
    assert large[-1] == 1
    assert max(small) > 1


# Laws


@register("budget_action", "open_door")
class OpenDoor(BudgetAction):
    """Wants what is there anyway."""

    by: str = "actual"
    at: float = 0.1
    until: float | None = None

    def admitted(self) -> Mapping[Traffic, float]:
        return {("chat", ""): 1.0}

    def routes(self, fleet: FleetView) -> Mapping[Traffic, Sequence[str]]:
        return {("chat", "free"): list(reversed(fleet.deployments["chat"])), ("chat", "paid"): fleet.deployments["chat"]}


def _bytes(folder: Path) -> dict[str, bytes]:
    return {name: (folder / f"{name}.parquet").read_bytes() for name in TABLES}


def test_an_action_that_changes_nothing_changes_no_other_table(tmp_path: Path) -> None:
    budgets = _budget(ThrottleSegment(service="chat", admitted_share=1.0, by="actual", at=0.1), OpenDoor())
    simulate(_two(small=1), out=tmp_path / "without")
    simulate(_two(small=1, budgets=budgets), out=tmp_path / "with")
    assert (tmp_path / "with" / "alerts.parquet").read_bytes() != (tmp_path / "without" / "alerts.parquet").read_bytes()
    without, with_budget = _bytes(tmp_path / "without"), _bytes(tmp_path / "with")
    assert {name for name in TABLES if without[name] != with_budget[name]} == {"alerts", "budget_months"}


def test_both_engines_say_the_same(tmp_path: Path) -> None:
    actions = (
        ThrottleSegment(service="chat", segment="free", admitted_share=0.6, by="actual", at=0.05),
        RouteTo(service="chat", segment="paid", deployment="small", others_most_replicas=1, by="actual", at=0.1),
    )
    found, compared = [], ("alerts", "traffic", "ledger", "decisions", "requests")
    for engine in ("reference", "compiled"):
        made = _two("12h", rate_per_s=0.2, engine=engine, budgets=_budget(*actions))
        result = simulate(made, out=tmp_path / engine)
        found.append({name: result.sql(f"SELECT * FROM {name}") for name in compared})
    for name, columns in found[0].items():
        for column, values in columns.items():
            assert values.tolist() == found[1][name][column].tolist(), (name, column)
    assert {"throttled", "completed"} == set(found[0]["requests"]["outcome"].tolist())


# What is refused


def test_everything_that_is_wrong_is_said_at_once() -> None:
    actions = (
        ThrottleSegment(service="caht", admitted_share=1.5),
        ThrottleSegment(service="chat", segment="fre", admitted_share=-0.1),
        RouteTo(service="chat", deployment="smal", replicas=0, others_most_replicas=-1),
        RouteTo(service="chat", deployment="other"),
        RouteTo(service="alone", deployment="other", segment="all"),
    )
    made = _two(budgets=_budget(*actions))
    made.deployments["other"] = Deployment(pools=["cheap"], autoscaler=Static(replicas=1))
    made.services["alone"] = Service(workload=poisson(0.01), deployments=["other"])
    with pytest.raises(InputError) as raised:
        check(made)
    found = {problem.path.removeprefix("budgets.all.actions."): problem for problem in raised.value.problems}
    assert set(found) == {
        "act0.service", "act0.admitted_share", "act1.segment", "act1.admitted_share", "act2.deployment", "act2.replicas",
        "act2.others_most_replicas", "act3.deployment", "act4.deployment",
    }  # fmt: skip
    nearest = {path: problem.nearest for path, problem in found.items() if problem.nearest}
    assert nearest == {"act0.service": "chat", "act1.segment": "free", "act2.deployment": "small"}
    assert "only deployment" in found["act4.deployment"].message


def test_a_segment_that_a_trace_has_not_is_refused_once_it_is_open(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("time,prompt_tokens,output_tokens,segment\n0,1,10,a\n2,2,20,b\n", "utf-8")
    throttles = [ThrottleSegment(service="chat", segment=segment, by="actual") for segment in ("b", "c")]
    service = Service(workload=Trace(path=str(trace)), deployments=["large"])
    made = _two("1h", services={"chat": service}, budgets=_budget(*throttles))
    del made.deployments["small"], made.pools["cheap"]
    check(made)
    with pytest.raises(InputError) as raised:
        simulate(made, out=tmp_path / "run")
    assert [(problem.path, problem.value) for problem in raised.value.problems] == [("budgets.all.actions.act1.segment", "c")]
    assert not (tmp_path / "run").exists()
