"""The bill by any keys, unit costs and the causes of a difference: a small run worked out by hand, and laws for all others."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from billing_kit import RUN_HOURS, write_small_run
from hypothesis import given, settings
from hypothesis import strategies as st
from report_kit import row

from sim import load_scenario, simulate
from sim.errors import InputError
from sim.results.invariants import check_run
from sim.results.metrics import UNASSIGNED, summarize
from sim.results.pivot import KEYS, OTHER_CLIENTS, Pivot, pivot
from sim.results.records import RunResult, RunWriter
from sim.results.rounding import apportion, cents, parts_of, table_in_cents
from sim.results.spool import Spool
from sim.results.unit_costs import GROUPS, unit_costs
from sim.results.why import CostFacts, cost_facts, decompose, shapley, why, why_month, why_run
from sim.scenario import Deployment, Scenario, Service
from sim.units import NANO_PER_USD, NS_PER_HOUR

USD = NANO_PER_USD
# Three hours of one machine at 7.20 USD from 22:00 on 31 January, so two hours of January and one of February.
IN_JANUARY, IN_FEBRUARY = 2 * 7_200_000_000, 7_200_000_000


def clients(others: int = 0, tap: str = "users", counts: str = "completions") -> Callable[[Spool], None]:
    """Three clients of chat with 3,000, 2,000 and 1,490 tokens, which is all that chat completed, and none of code."""

    def write(spool: Spool) -> None:
        for client, (requests, prompt, output) in enumerate(((30, 2_700, 300), (20, 1_800, 200), (9, 1_400, 90)), 1):
            row(spool, "client_counters", tap=tap, service="chat", client=client, counts=counts, requests=requests,
                prompt_tokens=prompt, output_tokens=output, others_at_most=others)  # fmt: skip

    return write


def replicas(spool: Spool) -> None:
    """What the replicas of the small run computed: llama 4,500 s busy with 1,000 prompt and 500 output tokens, coder 1,400 s."""
    row(spool, "nodes", node=0, lease=0, pool="gpu")
    for number, (name, busy_s, prompt, output) in enumerate((("llama", 4_500.0, 1_000, 500), ("coder", 1_400.0, 700, 100))):
        row(spool, "replicas", replica=number, deployment=name, node=0, busy_s=busy_s, prefill_tokens=prompt, output_tokens=output)


def written(folder: Path, *parts: Callable[[Spool], None], records: str = "none", **options: Any) -> RunResult:
    """The small run in the month in which its ledger has it, with more rows."""
    scenario = Scenario(
        start="2026-01-31T22:00:00Z", horizon=f"{RUN_HOURS}h", window="1h", records=records,
        services={"chat": Service(deployments=["llama"]), "code": Service(deployments=["coder"])},
        deployments={"llama": Deployment(), "coder": Deployment()},
    )  # fmt: skip
    with RunWriter(folder) as writer:
        write_small_run(writer.spool, **options)
        for part in parts:
            part(writer.spool)
        summary = summarize(writer.merge(), scenario, {"name": "reference", "wall_s": 1.0})
        models = {"llama on gpu": {"prompt_token_s": 1.5}, "coder on gpu": {"prompt_token_s": 1.0}}
        manifest = {"scenario": scenario.to_dict(), "step_models": models, "spot_markets": {}}
        return writer.commit(summary, manifest)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """The small run with its replicas and clients."""
    return written(tmp_path_factory.mktemp("pivot") / "run", replicas, clients())


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A run of the engine across the end of a month: boots, idle machines, scale-downs, two taps, records."""
    changes = [
        "start=2026-09-30T22:00:00Z", "horizon=4h", "records=all", "+taps.users=clients", "+taps.tiers=tiers",
        "+taps.tiers.counts=completions", f"out={tmp_path_factory.mktemp('served') / 'run'}",
    ]  # fmt: skip
    result = simulate(load_scenario("quickstart", changes))
    check_run(result)
    return result


def amounts(found: Pivot) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Amounts of a pivot in millions of nano-dollars by key: those of the small run are whole ones."""
    return {found.keys: tuple(amount // 1_000_000 for amount in found.amounts_nano) for found in found.rows}


def test_the_small_run_by_hand(run: RunResult) -> None:
    # An accelerator-second costs 0.001 USD. llama: hour 0 600 s boot, 300 s lost, 1,200 s busy (free 900, paid 300), 1,500 s idle;
    # hour 1 the same without the boot (600 and 600), hour 2 all free's. coder: two hours, then its accelerator belongs to nobody.
    found = pivot(run, ["month", "service", "segment"], "use")
    assert found.columns == ("busy", "idle", "booting", "draining", "lost")
    assert amounts(found) == {
        # free pays 3/4 of the overheads of hour 0 and half of those of hour 1
        ("2026-01", "chat", "free"): (1_500, 2_175, 450, 0, 375),
        ("2026-01", "chat", "paid"): (900, 1_425, 150, 0, 225),
        ("2026-01", "code", "all"): (1_400, 5_300, 0, 500, 0),
        # the whole machine is free's: 1,200 s busy, 300 s lost, 2,100 s and the other accelerator's 3,600 s idle
        ("2026-02", "chat", "free"): (1_200, 5_700, 0, 0, 300),
    }
    assert amounts(pivot(run, ["month"])) == {("2026-01",): (14_400,), ("2026-02",): (7_200,)}
    assert [found.keys for found in pivot(run, ["hour"]).rows] == [
        ("2026-01-31T22:00+00:00",), ("2026-01-31T23:00+00:00",), ("2026-02-01T00:00+00:00",)
    ]  # fmt: skip
    by_deployment = amounts(pivot(run, ["deployment"]))
    assert by_deployment == {("",): (3_600,), ("coder",): (7_200,), ("llama",): (10_800,)}


def test_clients_pay_for_their_tokens(run: RunResult, tmp_path: Path) -> None:
    # chat pays 6 + 1.2 + 5.7 + 0.3 ... = 14.4 USD for 3,000 + 2,000 + 1,490 tokens; nobody counted the clients of code
    chat = 4_500 + 2_700 + 7_200
    paid = {found.keys[0]: found.total_nano for found in pivot(run, ["client"]).rows}
    assert sum(paid.values()) == IN_JANUARY + IN_FEBRUARY
    assert paid[f"code/{OTHER_CLIENTS}"] == 7_200_000_000
    for client, tokens in ((1, 3_000), (2, 2_000), (3, 1_490)):
        assert paid[f"chat/{client}"] == pytest.approx(chat * 1e6 * tokens / 6_490, abs=2)
    # A tap that could not keep all of them: 6,490 tokens completed, 490 of them by others.
    few = written(tmp_path / "few", clients(others=4))
    paid = {found.keys[0]: found.total_nano for found in pivot(few, ["client"]).rows}
    assert f"chat/{OTHER_CLIENTS}" not in paid  # the three kept have all the tokens
    arrived = written(tmp_path / "both", clients(tap="a", counts="arrivals"), clients(tap="b"))
    assert len(pivot(arrived, ["client"]).rows) == 4  # one tap counts, not both


def test_wrong_keys_are_all_said_with_the_nearest_name(run: RunResult, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        pivot(written(tmp_path / "untapped", replicas), ["mnth", "service", "service", "client"], "usee")
    found = {(problem.path, str(problem.value)): problem for problem in refused.value.problems}
    assert found["--by", "mnth"].nearest == "month"
    assert "twice" in found["--by", "service"].message
    assert found["--by", "client"].allowed == "+taps.NAME=clients"
    assert found["--across", "usee"].nearest == "use"
    with pytest.raises(InputError, match="names no key"):
        pivot(run, [])
    with pytest.raises(InputError, match="no requests of its own"):
        unit_costs(run, ["pool"])


@pytest.mark.parametrize("across", ["", "use"])
def test_every_pivot_adds_up_to_the_ledger(served: RunResult, across: str) -> None:
    booked = int(served.sql("SELECT sum(amount_nano_usd) AS amount FROM ledger")["amount"][0])
    names = [name for name in KEYS if name != across]
    for by in [*itertools.combinations(names, 1), *itertools.combinations(names, 2), ("month", "service", "segment", "pool")]:
        found = pivot(served, by, across)
        assert found.total_nano == booked, by
        assert [sum(cells) for cells in found.shown.cells] == found.shown.rows, by
        assert [sum(column) for column in zip(*found.shown.cells, strict=True)] == found.shown.columns, by
        assert sum(found.shown.rows) == sum(found.shown.columns) == cents(booked), by
        single = pivot(served, by[:1])
        sums: dict[str, int] = {}
        for line, shown in zip(found.rows, found.shown.rows, strict=True):
            sums[line.keys[0]] = sums.get(line.keys[0], 0) + shown
        assert list(sums.values()) == single.shown.rows, by


def test_what_two_keys_say_is_the_sum_of_the_rows_in_plain_sql(served: RunResult) -> None:
    found = {line.keys: line.total_nano for line in pivot(served, ["month", "purchase"]).rows}
    table = served.sql("SELECT month, purchase, sum(amount_nano_usd) AS amount FROM ledger GROUP BY ALL ORDER BY ALL")
    assert found == {(month, purchase): amount for month, purchase, amount in zip(*table.values(), strict=True) if amount}


def test_unit_costs_of_the_small_run_by_hand(run: RunResult) -> None:
    chat, code = unit_costs(run)
    assert (chat.keys, chat.requests, chat.total_nano) == (("chat",), 59, 14_400_000_000)
    # 59 requests for 14.40 USD; 3.60 USD of them busy
    assert chat.per_1k_requests() == pytest.approx(14.4 / 59 * 1000, rel=1e-12)
    assert chat.per_1k_requests("busy") == pytest.approx(3.6 / 59 * 1000, rel=1e-12)
    # llama: 1,000 prompt tokens of 1.5 s are 1,500 of 4,500 s; the other 3,000 s are 500 output tokens of 6 s.
    # 5,900 prompt and 590 output tokens weigh 8,850 and 3,540 s: 5/7 and 2/7.
    assert chat.prompt_nano == pytest.approx(14_400_000_000 * 5 / 7, abs=2)
    assert chat.prompt_nano + chat.output_nano == chat.total_nano
    assert chat.per_1m_prompt_tokens == pytest.approx(14.4 * 5 / 7 / 5_900 * 1e6, rel=1e-9)
    assert chat.per_1m_output_tokens == pytest.approx(14.4 * 2 / 7 / 590 * 1e6, rel=1e-9)
    assert (chat.users, chat.more_users, chat.per_user) == (3, False, pytest.approx(4.8))
    # coder: 700 s for 700 prompt tokens, 700 s for 100 output tokens of 7 s each; 400 and 40 tokens: 400 and 280 s
    assert code.prompt_nano == pytest.approx(7_200_000_000 * 400 / 680, abs=2)
    assert code.users is None
    months = {unit.keys: unit for unit in unit_costs(run, ["month", "service"])}
    assert {keys: (unit.requests, unit.users) for keys, unit in months.items()} == {
        ("2026-01", "chat"): (31, None), ("2026-01", "code"): (4, None), ("2026-02", "chat"): (28, None),
        ("2026-02", "code"): (0, None),
    }  # fmt: skip
    assert months["2026-02", "chat"].total_nano == 7_200_000_000
    assert months["2026-02", "code"].per_1k_requests() is None


@pytest.mark.parametrize("by", [by for count in (1, 2) for by in itertools.combinations(GROUPS, count)], ids=",".join)
def test_unit_costs_add_up_to_the_ledger_in_all_their_parts(served: RunResult, by: tuple[str, ...]) -> None:
    booked = int(served.sql("SELECT sum(amount_nano_usd) AS amount FROM ledger")["amount"][0])
    found = unit_costs(served, by)
    assert sum(unit.total_nano for unit in found) == booked
    assert sum((unit.prompt_nano or 0) + (unit.output_nano or 0) for unit in found) == booked
    assert sum(unit.requests for unit in found) == served.summary["requests"]["completed"]
    for use in ("busy", "idle", "booting", "draining", "lost"):
        parts = int(served.sql(f"SELECT coalesce(sum(amount_nano_usd), 0) AS n FROM attribution WHERE use = '{use}'")["n"][0])
        assert sum(unit.amounts_nano.get(use, 0) for unit in found) == parts


def test_users_come_from_records_by_any_key(tmp_path: Path) -> None:
    def records(spool: Spool) -> None:
        for number, (client, hour, segment) in enumerate([(7, 1, "free"), (7, 3, "free"), (8, 3, "paid"), (8, 1, "free")]):
            row(spool, "requests", request=number, client=client, leave_ns=hour * NS_PER_HOUR - 1, service="chat", segment=segment,
                outcome="completed")  # fmt: skip
        row(spool, "requests", request=9, client=9, leave_ns=1, service="chat", segment="free", outcome="failed")

    found = written(tmp_path / "run", replicas, records, records="all")
    users = {unit.keys: unit.users for unit in unit_costs(found, ["month", "segment"])}
    assert users == {("2026-01", "free"): 2, ("2026-01", "paid"): None, ("2026-01", "all"): None,
                     ("2026-02", "free"): 1, ("2026-02", "paid"): 1, ("2026-02", "all"): None}  # fmt: skip
    assert {unit.keys: unit.users for unit in unit_costs(found)} == {("chat",): 2, ("code",): None}


def test_why_of_one_cause_alone_is_that_cause() -> None:
    machine, spot = ("p5", "on_demand"), ("p5", "spot")
    base = CostFacts(10, 1_000, {machine: (500, 2_000)}, {"idle": 1_000}, {"energy": 70})
    cases = {
        "traffic": (CostFacts(20, 2_000, {machine: (1_000, 4_000)}, {"idle": 2_000}, {"energy": 70}), 3_000),
        "length": (CostFacts(10, 2_000, {machine: (1_000, 4_000)}, {"idle": 2_000}, {"energy": 70}), 3_000),
        "speed": (CostFacts(10, 1_000, {machine: (250, 1_000)}, {"idle": 500}, {"energy": 70}), -1_500),
        "price": (CostFacts(10, 1_000, {machine: (500, 3_000)}, {"idle": 1_500}, {"energy": 70}), 1_500),
        # half of the time on spot machines at 1 instead of 4: 250 x 4 + 250 x 1 = 1,250, and idle half of it
        "mix": (CostFacts(10, 1_000, {machine: (250, 1_000), spot: (250, 250)}, {"idle": 625}, {"energy": 70}), -1_125),
        "idle": (CostFacts(10, 1_000, {machine: (500, 2_000)}, {"idle": 1_700}, {"energy": 70}), 700),
        "lost": (CostFacts(10, 1_000, {machine: (500, 2_000)}, {"idle": 1_000, "lost": 90}, {"energy": 70}), 90),
        "other: energy": (CostFacts(10, 1_000, {machine: (500, 2_000)}, {"idle": 1_000}, {"energy": 100}), 30),
    }
    for cause, (after, amount) in cases.items():
        change = decompose(base, after)
        assert {term: found for term, found in change.terms_nano.items() if found} == {cause: amount}
        assert decompose(after, base).terms_nano[cause] == -amount


def test_why_of_two_causes_by_hand() -> None:
    # 10 requests at 100 each and 15 at 120: v = N c. Shapley: 5 x (100 + 120) / 2 = 550 and 20 x (10 + 15) / 2 = 250.
    before, after = (CostFacts(n, n, {("m", "spot"): (n, n * price)}) for n, price in ((10, 100), (15, 120)))
    terms = {term: amount for term, amount in decompose(before, after).terms_nano.items() if amount}
    assert terms == {"traffic": 550, "price": 250}


def test_why_without_work_compares_uses_as_they_are() -> None:
    nothing, idle = CostFacts(), CostFacts(0, 0, {}, {"idle": 40, "booting": 2})
    works = CostFacts(3, 30, {("m", "spot"): (5, 100)}, {"idle": 10})
    assert decompose(nothing, works).terms_nano["traffic"] == 100
    change = decompose(idle, works)
    assert {term: amount for term, amount in change.terms_nano.items() if amount} == {"traffic": 100, "idle": -30, "booting": -2}
    # A part of a row too small for a nanosecond has an amount and no time.
    odd = CostFacts(3, 30, {("m", "spot"): (5, 100), ("n", "spot"): (0, 1)}, {"idle": 10})
    assert decompose(works, odd).terms_nano["traffic"] == 1
    found = why("a", "b", {"chat": works}, {"code": works})
    assert found.services["chat"].difference_nano == -110
    assert found.total.difference_nano == 0


_MACHINES = st.dictionaries(
    st.tuples(st.sampled_from(["p5", "g6"]), st.sampled_from(["spot", "on_demand"])),
    st.tuples(st.integers(0, 10**15), st.integers(0, 10**13)), max_size=3,
)  # fmt: skip
_FACTS = st.builds(
    CostFacts, st.integers(0, 10**8), st.integers(0, 10**12), _MACHINES,
    st.dictionaries(st.sampled_from(["idle", "booting", "lost", "waste"]), st.integers(0, 10**13)),
    st.dictionaries(st.sampled_from(["energy", "credit"]), st.integers(-(10**12), 10**12)),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), st.tuples(_FACTS, _FACTS), min_size=1))
def test_every_decomposition_adds_up_to_the_difference(pairs: dict[str, tuple[CostFacts, CostFacts]]) -> None:
    before, after = ({name: pair[side] for name, pair in pairs.items()} for side in (0, 1))
    forth, back = why("x", "y", before, after), why("y", "x", after, before)
    for name, change in forth.services.items():
        assert sum(change.terms_nano.values()) == after[name].total_nano - before[name].total_nano
        for term, amount in change.terms_nano.items():
            assert abs(amount + back.services[name].terms_nano[term]) <= 1  # equal but for the rounding
    assert sum(forth.total.terms_nano.values()) == forth.total.difference_nano
    shown = forth.shown
    for change_cents in shown.values():
        assert sum(change_cents.terms.values()) == change_cents.after - change_cents.before
    for term in forth.terms:
        assert sum(shown[name].terms[term] for name in pairs) == shown[""].terms[term]


def test_shapley_does_not_depend_on_the_order_of_the_causes() -> None:
    factors = {"a": (Fraction(2), Fraction(3)), "b": (Fraction(5), Fraction(4)), "c": (Fraction(1, 7), Fraction(2))}

    def value(changed: frozenset[str]) -> Fraction:
        product = Fraction(1)
        for name, pair in factors.items():
            product *= pair[name in changed]
        return product

    first = shapley(list(factors), value)
    assert all(shapley(order, value) == first for order in itertools.permutations(factors))
    # by all orders, one after the other
    by_orders = dict.fromkeys(factors, Fraction(0))
    for order in itertools.permutations(factors):
        for number, name in enumerate(order):
            by_orders[name] += (value(frozenset(order[: number + 1])) - value(frozenset(order[:number]))) / 6
    assert first == by_orders


def test_why_of_the_small_run_is_read_from_its_tables(run: RunResult, tmp_path: Path) -> None:
    facts = cost_facts(run, "2026-01")
    # chat was busy for 2,400 of the 4 x 3,600 accelerator-seconds, on half of a machine: 1,200 machine-seconds
    assert facts["chat"].busy == {("p5.4xlarge", "on_demand"): (1_200 * 10**9, 2_400_000_000)}
    assert (facts["chat"].requests, facts["chat"].tokens) == (31, 31 * 110)
    found = why_month(run, "2026-02")
    assert (found.before, found.total.before_nano, found.total.after_nano) == ("2026-01", IN_JANUARY, IN_FEBRUARY)
    assert sum(found.total.terms_nano.values()) == IN_FEBRUARY - IN_JANUARY
    assert found.services["code"].terms_nano["traffic"] == -1_400_000_000  # no request left in February
    assert why_month(run, "2026-01", "2026-02").total.difference_nano == IN_JANUARY - IN_FEBRUARY
    billed = written(tmp_path / "energy", electricity_billed=True)
    extra = why_run(run, billed).total
    assert {term for term, amount in extra.terms_nano.items() if amount} == {"other: energy"}
    with pytest.raises(InputError, match="first month"):
        why_month(run, "2026-01")
    with pytest.raises(InputError) as refused:
        why_month(run, "2026-2", "jan")
    assert [problem.path for problem in refused.value.problems] == ["--why", "--against"]
    assert refused.value.problems[0].nearest == "2026-02"


def test_why_of_the_served_run_adds_up(served: RunResult) -> None:
    found = why_month(served, "2026-10")
    months = {line.keys[0]: line.total_nano for line in pivot(served, ["month"]).rows}
    assert (found.total.before_nano, found.total.after_nano) == (months["2026-09"], months["2026-10"])
    assert sum(found.total.terms_nano.values()) == found.total.difference_nano
    assert set(found.services) <= {"chat", UNASSIGNED}


@given(st.lists(st.integers(-(10**12), 10**12), min_size=1, max_size=9), st.integers(2, 10**9))
def test_apportioned_terms_add_up(numbers: list[int], divisor: int) -> None:
    terms = [Fraction(number, divisor) for number in numbers]
    total = round(sum(terms))
    found = apportion(total, terms)
    assert sum(found) == total
    assert all(abs(part - term) <= 1 for part, term in zip(found, terms, strict=True))
    assert sum(parts_of(total, [abs(number) for number in numbers])) == total


@given(st.integers(1, 5), st.integers(1, 5), st.data())
def test_tables_in_cents_add_up_both_ways(rows: int, columns: int, data: Any) -> None:
    amount = st.integers(-(10**10), 10**10)
    cells = data.draw(st.lists(st.lists(amount, min_size=columns, max_size=columns), min_size=rows, max_size=rows))
    total = cents(sum(map(sum, cells)))
    by_row = apportion(total, [Fraction(sum(line), 10**7) for line in cells])
    by_column = apportion(total, [Fraction(sum(column), 10**7) for column in zip(*cells, strict=True)])
    found = table_in_cents(by_row, by_column, cells)
    assert [sum(line) for line in found] == by_row
    assert [sum(column) for column in zip(*found, strict=True)] == by_column
    assert all(abs(found[at][to] - cells[at][to] / 10**7) <= 3 for at in range(rows) for to in range(columns))
    with pytest.raises(ValueError, match="columns"):
        table_in_cents([1], [2], [[10**7]])
