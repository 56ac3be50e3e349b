"""Users of generated traffic: who sends is drawn beside everything else, as often as the weights say, and counted exactly."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from control_kit import scenario

from sim import simulate
from sim.app.cli import main
from sim.domain.traffic import BLOCK_DTYPES, Source
from sim.errors import Problems
from sim.policies.taps.counters import Clients
from sim.results.account_months import account_months
from sim.results.records import RunResult
from sim.results.unit_costs import unit_costs
from sim.rng import StreamKey
from sim.scenario import Account, Failure, Scenario, Service
from sim.units import NANO_PER_USD, NS_PER_HOUR
from sim.workload.base import Workload
from sim.workload.specs import TokenLengths
from sim.workload.synthetic import Poisson, Synthetic
from sim.workload.users import MAX_USERS, UserPools

START = datetime(2026, 1, 5, tzinfo=UTC)
KEY = StreamKey(11, 0, "", "chat")
SEGMENTS = {"free": 0.7, "paid": 0.3}
SHORT = TokenLengths(family="fixed", mean=20)
# Two hours before the end of September in Berlin, and one after it; the third service says nothing of its users.
CROWD = {"free": 4_000, "paid": 50}


def opened(workload: Workload) -> Source:
    return workload.open(KEY, START, NS_PER_HOUR)


def column(source: Source, name: str) -> npt.NDArray[Any]:
    return np.concatenate([getattr(block, name) for block in source.blocks()])


@pytest.mark.parametrize("kind", [Synthetic, Poisson])
def test_users_change_nothing_but_who_sends(kind: type[Synthetic] | type[Poisson]) -> None:
    """To the byte, in traffic of more than one block; and who sends does not depend on how many users another segment has."""
    without = opened(kind(rate_per_s=40.0, segments=SEGMENTS))
    users = opened(kind(rate_per_s=40.0, segments=SEGMENTS, users={"paid": 7, "free": 20_000}, user_skew=0.8))
    others = opened(kind(rate_per_s=40.0, segments=SEGMENTS, users={"paid": 9, "free": 20_000}, user_skew=0.8))
    assert (without.users, users.users) == (0, 20_007)
    assert len(column(without, "tag")) > 2 * 65_536
    for name in set(BLOCK_DTYPES) - {"client"}:
        assert column(without, name).tobytes() == column(users, name).tobytes()
    assert not column(without, "client").any()
    client, stream = column(users, "client"), column(users, "stream")
    assert client.tobytes() == column(users, "client").tobytes()
    assert client[stream == 0].min() == 1
    assert client[stream == 0].max() <= 20_000
    assert sorted(set(client[stream == 1].tolist())) == list(range(20_001, 20_008))
    np.testing.assert_array_equal(client[stream == 0], column(others, "client")[stream == 0])
    # A user's number is independent of the word that says what the same request asks for.
    asked = column(users, "tag")[stream == 0].astype(np.float64)
    assert abs(np.corrcoef(client[stream == 0], asked)[0, 1]) < 4 / np.sqrt(len(asked))


@pytest.mark.parametrize("skew", [0.0, 0.8, 1.0, 5.0])
@pytest.mark.parametrize("users", [1, 2, 3, 1_000])
def test_the_kth_user_has_its_weight(users: int, skew: float) -> None:
    """The chances of every user, read off from the places and what they share, not drawn; then a draw of many."""
    pools = UserPools([5, users], skew)
    weights = np.arange(1, users + 1) ** -skew
    places = np.arange(users, dtype=np.uint64)
    # The first word of each place and the last one: between them are those of its user, then those of another.
    low = (((places << np.uint64(40)) + np.uint64(users - 1)) // np.uint64(users)) << np.uint64(24)
    second = np.ones(users, np.int32)
    chances = np.zeros(users + 6)
    own = pools._own[5:] / 2**24
    np.add.at(chances, pools.draw(low, second), own)
    np.add.at(chances, pools.draw(low | np.uint64(2**24 - 1), second), 1 - own)
    assert not chances[:6].any()
    np.testing.assert_allclose(chances[6:] / users, weights / weights.sum(), atol=1e-6 / users)
    words = np.random.default_rng(3).integers(0, 2**64, 400_000, dtype=np.uint64)
    counts = np.bincount(pools.draw(words, np.ones(len(words), np.int32)), minlength=users + 6)[6:]
    expected = len(words) * weights / weights.sum()
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert expected.min() < 5 or chi_square < users - 1 + 5 * np.sqrt(2 * users)


def test_what_is_wrong_is_said_at_once() -> None:
    problems = Problems()
    wrong = Synthetic(segments=SEGMENTS, users={"fre": 10, "paid": 0}, user_skew=-1.0)
    wrong.problems("w", problems)
    Poisson(users={"all": MAX_USERS + 1}, user_skew=float("nan")).problems("p", problems)
    Poisson(user_skew=0.5).problems("q", problems)
    assert [problem.path for problem in problems.found] == [
        "w.users.fre", "w.users.paid", "w.users", "w.user_skew", "p.users", "p.user_skew", "q.user_skew",
    ]  # fmt: skip
    fine = Problems()
    Poisson(users={"all": MAX_USERS}, user_skew=5.0).problems("p", fine)
    Synthetic(segments=SEGMENTS, users={"paid": 1, "free": 1}).problems("w", fine)
    assert not fine.found


def berlin(**changes: Any) -> Scenario:
    """Three hours across the end of a month in Berlin (22:00 UTC): users of two segments, of one, and requests of nobody known."""
    crowd = Poisson(rate_per_s=0.5, segments=SEGMENTS, users=CROWD, user_skew=0.8, prompt=SHORT, output=SHORT)
    services = {
        "chat": Service(crowd, deployments=["llama"], queue_timeout_s=0.5),
        "code": Service(Poisson(rate_per_s=0.2, users={"all": 300}, prompt=SHORT, output=SHORT), deployments=["llama"]),
        "open": Service(Poisson(rate_per_s=0.1, prompt=SHORT, output=SHORT), deployments=["llama"]),
    }
    parts = {
        "start": "2026-09-30T20:00:00Z",
        "horizon": "3h",
        "services": services,
        "account": Account(timezone="Europe/Berlin"),
        "failures": [Failure("100m", "gpu")],
        "records": "all",
    }
    return scenario(**{**parts, **changes})


def from_records(result: RunResult) -> dict[tuple[str, str, str], int]:
    """(service, segment, month) -> distinct users of completed requests; "" for all of them."""
    rows = result.table("requests")
    seen: dict[tuple[str, str, str], set[int]] = {}
    names = ("service", "segment", "client", "leave_ns", "outcome")
    for service, segment, client, leave_ns, outcome in zip(*(rows[name].tolist() for name in names), strict=True):
        if outcome == "completed" and service != "open":
            assert client > 0
            month = next(one.label for one in account_months(result) if one.start_ns < leave_ns <= one.end_ns)
            for keys in ((service, segment, month), (service, "", month), (service, segment, ""), (service, "", "")):
                seen.setdefault(keys, set()).add(client)
    return {keys: len(users) for keys, users in seen.items()}


@pytest.fixture(scope="module", params=["compiled", "reference"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """The run with a record of every request."""
    return simulate(berlin(engine=request.param), out=tmp_path_factory.mktemp("users") / "run")


def test_active_users_are_those_of_the_records(run: RunResult, tmp_path: Path) -> None:
    table = run.table("active_users")
    names = ("service", "segment", "month", "users", "clients")
    rows = list(zip(*(table[name].tolist() for name in names), strict=True))
    expected = from_records(run)
    assert {tuple(row[:3]): row[3] for row in rows} == expected
    assert "abandoned" in run.table("requests")["outcome"]
    assert {(row[0], row[4]) for row in rows} == {("chat", 4_050), ("code", 300)}
    assert expected["chat", "", "2026-09"] + expected["chat", "", "2026-10"] > expected["chat", "", ""]
    assert expected["chat", "", ""] == expected["chat", "free", ""] + expected["chat", "paid", ""]
    again = simulate(berlin(engine=run.manifest["scenario"]["engine"], records="none"), out=tmp_path / "none")
    for name, values in again.table("active_users").items():
        assert values.tolist() == table[name].tolist()


def test_what_an_active_user_costs(run: RunResult, capsys: pytest.CaptureFixture[str]) -> None:
    expected = from_records(run)
    found = {unit.keys: unit for unit in unit_costs(run, ["service", "month"])}
    assert {keys: unit.users for keys, unit in found.items() if unit.users} == {
        (service, month): users for (service, segment, month), users in expected.items() if month and not segment
    }
    october = found["chat", "2026-10"]
    assert october.users is not None
    assert october.per_user == pytest.approx(october.total_nano / october.users / NANO_PER_USD, rel=1e-12)
    users = run.summary["services"]["chat"]["users"]
    assert (users["clients"], users["active"]) == (4_050, expected["chat", "", ""])
    assert users["by_month"]["2026-10"]["usd_per_active_user"] == pytest.approx(october.per_user, rel=1e-12)
    assert run.summary["services"]["open"]["users"] is None
    assert main(["bill", str(run.folder), "--per", "users", "--by", "month,service"]) == 0
    assert f" {october.users} " in capsys.readouterr().out


def test_a_tap_of_clients_counts_users(tmp_path: Path) -> None:
    result = simulate(berlin(taps={"who": Clients()}), out=tmp_path / "run")
    requests, counted = result.table("requests"), result.table("client_counters")
    chat = requests["client"][requests["service"] == "chat"]
    mine = counted["service"] == "chat"
    assert dict(zip(counted["client"][mine].tolist(), counted["requests"][mine].tolist(), strict=True)) == dict(
        zip(*(column.tolist() for column in np.unique(chat, return_counts=True)), strict=True)
    )
