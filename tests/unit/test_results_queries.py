"""The five queries on a small run worked out by hand, and their page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from report_kit import row, scenario_of, write
from test_results_pivot import replicas, written

import sim
from sim.errors import InputError
from sim.results.queries import QUERIES, answer
from sim.results.records import RunResult
from sim.results.spool import Spool
from sim.scenario import Slo
from sim.units import NS_PER_HOUR

PAGE = Path(sim.__file__).resolve().parents[1] / "docs" / "reference" / "queries.md"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """Two hours of January and one of February of a machine at 7.20 USD an hour; see tests/unit/test_results_pivot.py."""
    return written(tmp_path_factory.mktemp("queries") / "run", replicas)


def test_the_queries_of_the_small_run_by_hand(run: RunResult) -> None:
    assert [(found["hour_of_day"], found["days"], found["usd_a_day"]) for found in answer(run, "hour_of_day")] == [
        ("00", 1, 7.2), ("22", 1, 7.2), ("23", 1, 7.2)
    ]  # fmt: skip
    # busy: 1,200 + 700 s, 1,200 + 700 s, 1,200 s at 0.001 USD
    assert [(found["local_hour"], found["machines"], found["not_busy_usd"]) for found in answer(run, "dearest_hours")] == [
        ("2026-01-31T22:00+00:00", 1, 5.3), ("2026-01-31T23:00+00:00", 1, 5.3), ("2026-02-01T00:00+00:00", 1, 6.0)
    ]  # fmt: skip
    assert [(found["holder"], found["idle_usd"], found["usd"]) for found in answer(run, "idle_by_deployment")] == [
        ("llama", 5.7, 10.8), ("coder", 5.3, 7.2), ("(no replica)", 3.6, 3.6)
    ]  # fmt: skip
    # 10 output tokens a request: free 29 for 4.50 USD in January, 25 for 7.20 in February
    tokens = {(found["day"], found["segment"]): found["usd_per_1m_output_tokens"] for found in answer(run, "output_tokens")}
    assert tokens == {
        ("2026-01-31", "free"): pytest.approx(4.5 / 290 * 1e6, abs=1e-4), ("2026-01-31", "paid"): 135_000.0,
        ("2026-01-31", "all"): 180_000.0, ("2026-02-01", "free"): pytest.approx(7.2 / 250 * 1e6), ("2026-02-01", "paid"): 0.0,
        ("2026-02-01", "all"): None,
    }  # fmt: skip
    assert answer(run, "spot_savings") == []


def test_spot_savings_by_hand(tmp_path: Path) -> None:
    def leases(spool: Spool) -> None:
        # 2 h on demand at 6.88; 3 h of spot at 3.00 instead of 20.64; a type without on-demand hours has nothing to compare with
        for number, (instance, purchase, hours, usd) in enumerate(
            [("p5", "on_demand", 2, 13_760_000_000), ("p5", "spot", 3, 9_000_000_000), ("g6", "spot", 1, 500_000_000)]
        ):
            row(spool, "leases", lease=number, instance=instance)
            row(spool, "ledger", row=number, lease=number, purchase=purchase, month="2026-03", unit="instance-second",
                end_ns=hours * NS_PER_HOUR, amount_nano_usd=usd, quantity=0)  # fmt: skip

    found = answer(write(tmp_path / "run", scenario_of("3h", {"chat": Slo()}), leases), "spot_savings")
    assert [(line["instance"], line["spot_usd"], line["saved_usd"], line["percent"]) for line in found] == [
        ("g6", 0.5, None, None), ("p5", 9.0, 11.64, 56.4)
    ]  # fmt: skip


def test_an_unknown_query_names_the_nearest(run: RunResult) -> None:
    with pytest.raises(InputError, match="did you mean 'dearest_hours'"):
        answer(run, "dearest_hour")


def test_the_page_has_the_queries_as_they_are() -> None:
    blocks = re.findall(r"^```sql\n(.*?)^```$", PAGE.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert [block.strip() for block in blocks] == [query.strip() for query in QUERIES.values()]
