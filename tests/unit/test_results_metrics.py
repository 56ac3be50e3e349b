"""The summary of the small run, worked out by hand, and the laws that finished runs keep."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from billing_kit import write_small_run

from sim.errors import RunError
from sim.results.invariants import check_run
from sim.results.invoice import invoice
from sim.results.metrics import summarize
from sim.results.records import RunResult, RunWriter
from sim.results.slo import attainments, availability
from sim.results.spool import Spool
from sim.scenario import Scenario, Service, Slo

ENGINE = {"name": "reference", "wall_s": 1.0}


def scenario() -> Scenario:
    """Services of the small run; its completions have TTFT 0.25 s."""
    return Scenario(services={"chat": Service(slo=Slo(ttft_s=0.3, tpot_s=0.02, attainment=0.95)), "code": Service()})


def summarized(folder: Path, **options: Any) -> RunResult:
    """The small run with its summary."""
    with RunWriter(folder) as writer:
        write_small_run(writer.spool, **options)
        summary = summarize(writer.merge(), scenario(), ENGINE, {"chat": 2})
        return writer.commit(summary, {})


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Summary of the small run."""
    return summarized(tmp_path_factory.mktemp("metrics") / "run").summary


def test_requests_of_the_whole_run_add_up(summary: dict[str, Any]) -> None:
    assert summary["requests"] == {
        "arrived": 71, "completed": 63, "failed": 0, "abandoned": 0, "rejected": 4, "unfinished": 4, "retried": 0
    }  # fmt: skip
    assert summary["services"]["code"]["requests"] == {
        "arrived": 5, "completed": 4, "failed": 0, "abandoned": 0, "rejected": 1, "unfinished": 0, "retried": 0
    }  # fmt: skip
    assert summary["tokens"] == {"prompt": 6300, "output": 630}
    assert (summary["bad_rows"], summary["services"]["chat"]["bad_rows"]) == (2, 2)


def test_slo_counts_the_measured_time_and_what_was_turned_away(summary: dict[str, Any]) -> None:
    # chat in hours 1 and 2: completed 20 + 25 + 1 + 3 = 49, rejected 2; one TPOT miss in each window with more than one completion
    # the scenario of this test starts on 5 January
    months = {"2026-01": {"good": 49, "total": 51, "attainment": 49 / 51, "met": True, "partial": True}}
    budget_left = summary["slo"]["chat"]["ttft"]["by_month"]["2026-01"].pop("budget_left")
    assert budget_left == pytest.approx(1 - 2 / (0.05 * 51), rel=1e-9)
    assert summary["slo"]["chat"]["ttft"] == {
        "threshold": 0.3, "attainment": 49 / 51, "good": 49, "total": 51, "goal": 0.95, "met": True, "by_month": months
    }  # fmt: skip
    tpot = {name: value for name, value in summary["slo"]["chat"]["tpot"].items() if name != "by_month"}
    assert tpot == {"threshold": 0.02, "attainment": 46 / 51, "good": 46, "total": 51, "goal": 0.95, "met": False}
    assert summary["slo"]["chat"]["all"]["good"] == 46
    assert "e2e" not in summary["slo"]["chat"]
    assert summary["slo"]["code"] == {}
    assert summary["services"]["chat"]["availability"] == pytest.approx(49 / 51, rel=1e-12)
    assert summary["services"]["code"]["availability"] == 0.0


def test_nothing_left_is_no_attainment() -> None:
    counts = dict.fromkeys(("total", "unserved", "ttft", "tpot", "e2e", "all"), 0)
    assert attainments(counts, Slo(e2e_s=1.0))["e2e"] == {
        "threshold": 1.0, "attainment": None, "good": 0, "total": 0, "goal": 0.99, "met": None
    }  # fmt: skip
    assert availability(counts) is None


def test_a_goal_reached_exactly_is_met() -> None:
    counts = {"total": 100, "unserved": 0, "ttft": 7, "tpot": 6, "e2e": 100, "all": 6}
    found = attainments(counts, Slo(ttft_s=1.0, tpot_s=1.0, attainment=0.07))
    assert (found["ttft"]["met"], found["tpot"]["met"]) == (True, False)


def test_mean_tpot_weighs_windows_by_requests_that_have_one(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run") as writer:
        change = {"tpot_count": 10, "tpot_mean_s": 0.03}
        write_small_run(Tampering(writer.spool, "windows", {"stream": 0, "start_ns": HOUR}, change))  # type: ignore[arg-type]
        found = summarize(writer.merge(), scenario(), ENGINE)["latency"]["chat"]
    # 10 at 30 ms; 25 + 1 + 3 at 20 ms
    assert found["tpot_s"]["mean"] == pytest.approx((10 * 0.03 + 29 * 0.02) / 39, rel=1e-12)


def test_latencies_are_exact_means_and_quantiles_within_a_bin(summary: dict[str, Any]) -> None:
    chat = summary["latency"]["chat"]
    for latency, value_s in (("ttft", 0.25), ("tpot", 0.02), ("e2e", 2.0)):
        assert chat[f"{latency}_s"]["mean"] == pytest.approx(value_s, rel=1e-12)
        for name in ("p50", "p90", "p95", "p99"):
            assert chat[f"{latency}_s"][name] == pytest.approx(value_s, rel=1 / 64)
    assert summary["latency"]["code"]["ttft_s"] == dict.fromkeys(("mean", "p50", "p90", "p95", "p99"))


def in_nano(amounts: Mapping[str, float]) -> dict[str, int]:
    """Amounts in nano-dollars."""
    return {name: round(amount * 1e9) for name, amount in amounts.items()}


def test_the_bill_by_everything_adds_up_exactly(summary: dict[str, Any]) -> None:
    bill = summary["bill"]
    assert bill["total_usd"] == 21.6
    assert bill["by_month"] == {"2026-01": 14.4, "2026-02": 7.2}
    assert bill["by_category"] == {"compute": 21.6}
    # see test_windows_carry_the_cost_of_their_streams
    assert bill["by_service"] == {"chat": 14.4, "code": 7.2}
    assert bill["by_segment"] == {"chat/free": 11.7, "chat/paid": 2.7, "code/all": 7.2}
    # seconds x 0.001 USD: busy 3 x 1,200 + 2 x 700, lost 3 x 300, booting 600, draining 500,
    # idle 1,500 + 2,100 + 2,100 (llama), 2,900 + 2,400 (coder), 3,600 (nobody)
    assert bill["by_use"] == {"booting": 0.6, "busy": 5.0, "draining": 0.5, "idle": 14.6, "lost": 0.9}
    for name in ("by_month", "by_category", "by_service", "by_segment", "by_use"):
        assert sum(in_nano(bill[name]).values()) == 21_600_000_000
    assert bill["usd_per_1m_output_tokens"] == pytest.approx(21.6 / 630 * 1e6, rel=1e-12)
    assert bill["usd_per_1m_tokens"] == pytest.approx(21.6 / 6930 * 1e6, rel=1e-12)
    assert bill["usd_per_1k_requests"] == pytest.approx(21.6 / 63 * 1e3, rel=1e-12)
    assert bill["assumed_share"] == 1.0


def test_energy_is_that_of_the_machines(summary: dict[str, Any]) -> None:
    # steps 3 x 0.6 + 0.3 MJ; host 200 W x 3 h = 2.16 MJ; idle 100 W x (21,600 - 3 x 1,500 - 2 x 700 = 15,700 s) = 1.57 MJ: 5.83 MJ
    kwh = 5.83 / 3.6 * 1.25
    assert summary["energy"]["kwh"] == pytest.approx(kwh, abs=2e-9)
    assert summary["energy"]["usd"] == pytest.approx(kwh * 0.10, abs=2e-9)
    assert summary["energy"]["kgco2"] == pytest.approx(kwh * 0.4, abs=2e-9)
    assert summary["energy"]["wh_per_1m_tokens"] == pytest.approx(kwh * 1e3 / 6930 * 1e6, rel=1e-8)


def test_engine_and_interval_are_said(summary: dict[str, Any]) -> None:
    assert summary["engine"] == ENGINE
    assert summary["interval"] == "no interval: one replication"


def test_an_empty_run_has_a_summary(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run") as writer:
        found = writer.commit(summarize(writer.merge(), scenario(), ENGINE), {}).summary
    assert found["bill"]["total_usd"] == 0.0
    assert found["bill"]["usd_per_1k_requests"] is None
    assert found["requests"]["arrived"] == 0


def test_invoice_lines_are_exact_sums_by_month(tmp_path: Path) -> None:
    result = summarized(tmp_path / "run", electricity_billed=True)
    lines = invoice(result)
    assert [(line.month, line.category, line.unit, line.unit_price) for line in lines] == [
        ("2026-01", "compute", "instance-hours", "7.20 per hour"),
        ("2026-01", "energy", "kWh", "0.1 per kWh"),
        ("2026-02", "compute", "instance-hours", "7.20 per hour"),
        ("2026-02", "energy", "kWh", "0.1 per kWh"),
    ]
    assert [line.quantity for line in lines if line.unit == "instance-hours"] == [2.0, 1.0]
    assert sum(line.amount_nano for line in lines) == round(result.summary["bill"]["total_usd"] * 1e9)
    assert {line.instance for line in lines} == {"p5.4xlarge"}


@pytest.mark.parametrize("electricity_billed", [False, True])
def test_the_small_run_keeps_every_law(tmp_path: Path, electricity_billed: bool) -> None:
    check_run(summarized(tmp_path / "run", electricity_billed=electricity_billed))


class Tampering:
    """A sink that changes the first row of a table that has some value in some column."""

    def __init__(self, spool: Spool, table: str, where: Mapping[str, object], change: Mapping[str, object]) -> None:
        self.spool, self.table, self.where, self.change = spool, table, where, change

    def append(self, table: str, row: Mapping[str, object]) -> None:
        """Pass a row on."""
        if table == self.table and all(row[name] == value for name, value in self.where.items()):
            row, self.table = {**row, **self.change}, ""
        self.spool.append(table, row)


HOUR = 3_600_000_000_000


@pytest.mark.parametrize(
    ("table", "where", "change", "law"),
    [
        ("windows", {"stream": 0}, {"arrived": 11}, "requests in = "),
        ("windows", {"stream": 0, "start_ns": HOUR}, {"in_flight_end": 7}, "requests in = "),
        ("windows", {"stream": 1}, {"completed": 2}, "total = completed"),
        ("windows", {"stream": 1}, {"good_e2e": 9}, "total = completed"),
        ("windows", {"stream": 1}, {"missed_slow": 9}, "has one cause"),
        ("windows", {"stream": 0, "start_ns": HOUR}, {"missed_slow": 0}, "has one cause"),
        ("windows", {"stream": 2, "start_ns": HOUR}, {"start_ns": HOUR + 1}, "without gaps"),
        ("histograms", {"stream": 0, "latency": "tpot"}, {"count": 44}, "histogram counts"),
        ("attribution", {"row": 1}, {"amount_nano_usd": 1}, "parts of a ledger row"),
        ("attribution", {"row": 1}, {"stream": 7}, "windows' cost"),
        ("ledger", {"row": 1}, {"amount_nano_usd": 7_200_000_001}, "a lease's amount"),
        ("leases", {}, {"billed_ns": 3 * HOUR - 1}, "a lease's amount"),
        ("ledger", {"row": 1}, {"start_ns": HOUR + 1, "end_ns": 2 * HOUR + 1}, "machine rows of a lease follow"),
        ("usage", {"replica": 0}, {"booting_ns": 5}, "the length of a slice"),
        ("usage", {"replica": 1}, {"busy_ns": HOUR + 1}, "the length of a slice"),
        ("usage", {"replica": 0}, {"lease": 8}, "in the life of their lease"),
        ("usage", {"replica": 0}, {"accelerators": 2}, "more accelerators"),
    ],
)
def test_a_broken_law_is_named_with_its_numbers(
    tmp_path: Path, table: str, where: dict[str, Any], change: dict[str, Any], law: str
) -> None:
    with RunWriter(tmp_path / "run") as writer:
        write_small_run(Tampering(writer.spool, table, where, change))  # type: ignore[arg-type]
        with pytest.raises(RunError, match=law) as caught:
            check_run(writer.merge())
    name, value = next(iter(change.items()))
    assert str(value) in str(caught.value) or f"{name}=" in str(caught.value)


def test_a_summary_that_does_not_add_up_is_found(tmp_path: Path) -> None:
    result = summarized(tmp_path / "run")
    result.summary["bill"]["by_use"]["idle"] += 1e-9
    with pytest.raises(RunError, match=r"bill.by_use adds up to 21600000001 nano-USD, the ledger to 21600000000"):
        check_run(result)
