"""Active users by month: exact against the records of every request, in both engines, whatever is recorded."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from control_kit import poisson, scenario, tables_of

from sim import simulate
from sim.app.cli import main
from sim.control.loop import begin
from sim.control.world import build_world
from sim.results.account_months import account_months
from sim.results.records import RunResult, RunWriter
from sim.results.unit_costs import GROUPS, unit_costs
from sim.scenario import Account, Deployment, Failure, Scenario, Service
from sim.scenario.resolve import resolve
from sim.units import NANO_PER_USD, NS_PER_HOUR
from sim.workload.clients import ClosedLoop

ENGINES = ("compiled", "reference")


def two_pools(**changes: Any) -> Scenario:
    """Three hours across the end of a month in Berlin (22:00 UTC): two closed loops on one machine, which crashes."""
    services = {
        "chat": Service(ClosedLoop(clients=60, think_s=4_000.0, segments={"free": 0.7, "paid": 0.3}), deployments=["llama"]),
        "code": Service(ClosedLoop(clients=4, think_s=2.0), deployments=["llama"], queue_timeout_s=0.5),
    }
    parts = {
        "start": "2026-09-30T20:30:00Z",
        "horizon": "3h",
        "services": services,
        "account": Account(timezone="Europe/Berlin"),
        "failures": [Failure("100m", "gpu")],
        "records": "all",
    }
    return scenario(**{**parts, **changes})


@pytest.fixture(scope="module", params=ENGINES)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """The run with a record of every request."""
    return simulate(two_pools(engine=request.param), out=tmp_path_factory.mktemp("users") / "run")


def from_records(result: RunResult, by: tuple[str, ...]) -> dict[tuple[str, ...], int]:
    """Distinct (service, client) of completed requests by some keys, the long way round."""
    months = account_months(result)
    rows = result.table("requests")
    seen: dict[tuple[str, ...], set[tuple[str, int]]] = {}
    names = ("service", "segment", "stream", "client", "leave_ns", "outcome")
    for service, segment, stream, client, leave_ns, outcome in zip(*(rows[name].tolist() for name in names), strict=True):
        if outcome == "completed":
            month = next(month.label for month in months if month.start_ns < leave_ns <= month.end_ns)
            known = {"service": service, "segment": segment, "stream": str(stream), "month": month, "tier": f"{service}/{segment}"}
            seen.setdefault(tuple(known[name] for name in by), set()).add((service, client))
    return {keys: len(clients) for keys, clients in seen.items()}


@pytest.mark.parametrize(
    "by", [by for n in (1, 2, 3) for by in itertools.combinations(GROUPS, n) if "tier" not in by], ids=",".join
)
def test_users_by_any_keys_are_those_of_the_records(run: RunResult, by: tuple[str, ...]) -> None:
    found = {unit.keys: unit.users for unit in unit_costs(run, by)}
    expected = from_records(run, by)
    assert {keys: users for keys, users in found.items() if users} == expected
    assert not any(unit.more_users for unit in unit_costs(run, by))
    # The case has what could go wrong: clients of both months, of one only, and of none.
    if by == ("service", "month"):
        september, october = expected["chat", "2026-09"], expected["chat", "2026-10"]
        assert 0 < september < 60
        assert 0 < october < 60
        assert from_records(run, ("service",))["chat",] not in (september, october, september + october)


@pytest.mark.parametrize("engine", ["compiled", pytest.param("reference", marks=pytest.mark.slow)])
def test_the_table_is_the_same_whatever_is_recorded_and_however_the_run_is_cut(tmp_path: Path, engine: str) -> None:
    whole = tables_of(two_pools(engine=engine), tmp_path / "all")["active_users"]
    assert len(whole["users"]) == 3 * (1 + 2 + 1 + 1)  # two months and the run: chat with two segments, code with one
    for records in ("none", "sample:7"):
        found = tables_of(two_pools(engine=engine, records=records), tmp_path / records.replace(":", "_"))
        assert found["active_users"] == whole
    with RunWriter(tmp_path / "resumed") as writer:
        loop = begin(build_world(resolve(two_pools(engine=engine))), writer.spool)
        # to the last nanosecond of the month, to its end, and on
        for until_ns in (NS_PER_HOUR, 3 * NS_PER_HOUR // 2 - 1, 3 * NS_PER_HOUR // 2, 2 * NS_PER_HOUR, 3 * NS_PER_HOUR):
            loop.advance_to(until_ns)
        loop.finish()
        resumed = writer.merge().table("active_users")
    assert {name: column.tolist() for name, column in resumed.items()} == whole


def test_both_engines_count_alike(tmp_path: Path) -> None:
    compiled, reference = (tables_of(two_pools(engine=engine), tmp_path / engine)["active_users"] for engine in ENGINES)
    assert compiled == reference


def test_a_pool_of_one_client_has_a_user(tmp_path: Path) -> None:
    """The first client is number 0, which in other workloads stands for nobody."""
    one = Service(ClosedLoop(clients=1, think_s=60.0), deployments=["llama"])
    result = simulate(scenario(services={"chat": one}), out=tmp_path / "run")
    [chat] = unit_costs(result)
    assert (chat.users, chat.per_user) == (1, chat.total_nano / NANO_PER_USD)
    idle = Service(ClosedLoop(clients=1, think_s=60.0), deployments=["llama"], queue_timeout_s=0.001)
    nobody = scenario(services={"chat": idle}, horizon="1m", deployments={"llama": Deployment(pools=["gpu"])})
    [chat] = unit_costs(simulate(nobody, out=tmp_path / "nobody"))
    assert (chat.users, chat.per_user) == (0, None)


def test_the_summary_has_users_and_what_they_cost(run: RunResult) -> None:
    months = run.summary["bill"]["by_month"]
    services = {name: run.summary["services"][name]["users"] for name in ("chat", "code")}
    assert services["chat"]["clients"] == 60
    for name, users in services.items():
        assert users["active"] == from_records(run, ("service",))[name,]
        assert {month: one["active"] for month, one in users["by_month"].items()} == {
            month: count for (who, month), count in from_records(run, ("service", "month")).items() if who == name
        }
        for one in users["by_month"].values():
            assert one["usd_per_active_user"] == pytest.approx(one["usd"] / one["active"], rel=1e-12)
    for month, usd in months.items():
        paid = sum(round(users["by_month"][month]["usd"] * NANO_PER_USD) for users in services.values())
        assert paid == round(usd * NANO_PER_USD)


def test_a_workload_without_clients_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An open workload beside a closed loop: its cost per user is not known, and a month of both has at least those counted."""
    services = {
        "chat": Service(ClosedLoop(clients=9, think_s=60.0), deployments=["llama"]),
        "open": Service(poisson(), deployments=["llama"]),
    }
    result = simulate(scenario(services=services), out=tmp_path / "run")
    assert {unit.keys[0]: unit.users for unit in unit_costs(result)} == {"chat": 9, "open": None}
    assert result.summary["services"]["open"]["users"] is None
    [month] = unit_costs(result, ["month"])
    assert (month.users, month.more_users) == (9, True)
    assert main(["bill", str(tmp_path / "run"), "--per", "users"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "no clients in this workload" in shown
    assert main(["bill", str(tmp_path / "run"), "--per", "users", "--by", "month"]) == 0
    assert "9+" in capsys.readouterr().out
