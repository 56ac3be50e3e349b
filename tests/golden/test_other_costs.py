"""Lines of the bill beside machines, worked by hand from the prices given in each case."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from sim import load_scenario, simulate
from sim.billing.other_lines import OtherLines, month_at, split_by_tier
from sim.catalog.loader import load_catalog
from sim.domain.cost_lines import CostLine, CostPrice, CostTier
from sim.domain.hardware import Provenance
from sim.errors import InputError
from sim.results.records import RunResult
from sim.scenario.check import check
from sim.units import NS_PER_HOUR

MADE_UP = Provenance("a case", "2026-01-01", "published")
EGRESS = ((0, "0"), (100, "0.09"), (10_240, "0.085"))


def line(name: str, unit: str, *prices: tuple[str, tuple[tuple[float, str], ...]]) -> CostLine:
    """A row with prices given in the case."""
    dated = tuple(CostPrice(date, tuple(CostTier(above, usd) for above, usd in tiers), MADE_UP) for date, tiers in prices)
    return CostLine(name, name, "aws", unit, dated, MADE_UP)


class Charges(list[tuple[str, Decimal, str, int]]):
    """What was charged: category, quantity, price and nano-dollars."""

    def charge_account(self, category: str, start_ns: int, end_ns: int, **columns: Any) -> int:
        """Keep a charge."""
        self.append((category, columns["quantity"], columns["unit_price"], columns["amount_nano"]))
        return len(self)

    def usd(self) -> Decimal:
        """What all charges add up to."""
        return Decimal(sum(charge[3] for charge in self)) / 10**9


def lines_of(row: CostLine, start: datetime, zone: str = "UTC") -> tuple[OtherLines, Charges]:
    charges = Charges()
    return OtherLines(charges, start, ZoneInfo(zone), {row.line: row}), charges


def test_egress_steps_over_its_tiers_and_begins_anew_with_the_month() -> None:
    """60 GB an hour from 22:00 on 31 January: 100 GB are free, 20 at 0.09 cost 1.80; in February 60 GB are free again."""
    lines, charges = lines_of(line("internet_egress", "GB", ("2026-01-01", EGRESS)), datetime(2026, 1, 31, 22, tzinfo=UTC))
    for hour in range(3):
        lines.book("internet_egress", hour * NS_PER_HOUR, (hour + 1) * NS_PER_HOUR, Fraction(60), {})
    assert charges == [
        ("network", Decimal(60), "0 per GB", 0),
        ("network", Decimal(40), "0 per GB", 0),
        ("network", Decimal(20), "0.09 per GB", 1_800_000_000),
        ("network", Decimal(60), "0 per GB", 0),
    ]


def test_months_of_the_account_are_not_those_of_utc() -> None:
    """22:00 UTC on 31 January is 03:30 on 1 February in Kolkata: the free 100 GB are February's, and never begin anew."""
    lines, charges = lines_of(
        line("internet_egress", "GB", ("2026-01-01", EGRESS)), datetime(2026, 1, 31, 22, 30, tzinfo=UTC), "Asia/Kolkata"
    )
    for hour in range(3):
        lines.book("internet_egress", hour * NS_PER_HOUR, (hour + 1) * NS_PER_HOUR, Fraction(60), {})
    assert charges.usd() == Decimal("7.20")  # 80 GB at 0.09


def test_one_hour_may_cross_two_tiers() -> None:
    """10,340 GB at once: 100 free, 10,140 at 0.09 are 912.60, 100 at 0.085 are 8.50."""
    lines, charges = lines_of(line("internet_egress", "GB", ("2026-01-01", EGRESS)), datetime(2026, 3, 1, tzinfo=UTC))
    lines.book("internet_egress", 0, NS_PER_HOUR, Fraction(10_340), {})
    assert [charge[3] for charge in charges] == [0, 912_600_000_000, 8_500_000_000]


@pytest.mark.parametrize("gigabytes", [0, 1, 99, 100, 101, 10_239, 10_240, 10_241, 50_000])
def test_tiers_take_every_unit_once(gigabytes: int) -> None:
    tiers = tuple(CostTier(above, usd) for above, usd in EGRESS)
    at_once = split_by_tier(tiers, Fraction(0), Fraction(gigabytes))
    assert sum(part for _, part in at_once) == gigabytes
    cost = sum(Fraction(tier.usd_per_unit) * part for tier, part in at_once)
    halves = [split_by_tier(tiers, Fraction(gigabytes * half, 2), Fraction(gigabytes, 2)) for half in (0, 1)]
    assert sum(Fraction(tier.usd_per_unit) * part for half in halves for tier, part in half) == cost


def test_a_gateway_costs_its_hours_and_its_gigabytes() -> None:
    """Given 0.045 an hour and 0.045 a GB: two hours and 28.06 GB cost 0.09 + 1.2627 USD."""
    hours, paid = lines_of(line("nat", "gateway-hour", ("2026-01-01", ((0, "0.045"),))), datetime(2026, 3, 1, tzinfo=UTC))
    for hour in range(2):
        hours.book("nat", hour * NS_PER_HOUR, (hour + 1) * NS_PER_HOUR, Fraction(1), {})
    data, pulled = lines_of(line("nat_data", "GB", ("2026-01-01", ((0, "0.045"),))), datetime(2026, 3, 1, tzinfo=UTC))
    data.book("nat_data", 0, NS_PER_HOUR, Fraction("28.06"), {})
    assert (paid.usd(), pulled.usd()) == (Decimal("0.09"), Decimal("1.2627"))


def test_a_price_changes_inside_a_run() -> None:
    """0.10 an hour until midnight of 5 March, then 0.60: 22:00 to 02:00 costs 2 x 0.10 + 2 x 0.60."""
    row = line("cluster", "cluster-hour", ("2026-01-01", ((0, "0.10"),)), ("2026-03-05", ((0, "0.60"),)))
    lines, charges = lines_of(row, datetime(2026, 3, 4, 22, tzinfo=UTC))
    for hour in range(4):
        lines.book("cluster", hour * NS_PER_HOUR, (hour + 1) * NS_PER_HOUR, Fraction(1), {})
    assert [charge[2] for charge in charges] == ["0.10 per cluster-hour"] * 2 + ["0.60 per cluster-hour"] * 2
    assert charges.usd() == Decimal("1.40")


def test_before_its_first_date_the_oldest_price_holds() -> None:
    lines, charges = lines_of(line("cluster", "cluster-hour", ("2026-03-05", ((0, "0.10"),))), datetime(2025, 1, 1, tzinfo=UTC))
    lines.book("cluster", 0, NS_PER_HOUR, Fraction(1), {})
    assert charges.usd() == Decimal("0.10")


@pytest.mark.parametrize(
    ("moment", "zone", "hours"),
    [
        ("2026-02-10T00:00:00+00:00", "UTC", 672),
        ("2024-02-10T00:00:00+00:00", "UTC", 696),
        ("2026-03-10T00:00:00+00:00", "Europe/Berlin", 743),
        ("2026-10-10T00:00:00+00:00", "Europe/Berlin", 745),
    ],
)
def test_a_month_has_its_own_length(moment: str, zone: str, hours: int) -> None:
    assert month_at(datetime.fromisoformat(moment), ZoneInfo(zone), 0).length_ns == hours * NS_PER_HOUR


# A whole run of two machines that come from nothing; everything is worked out from the run's other tables.
SHORT = [
    "horizon=150m",
    "rate_per_s=0.5",
    "engine=reference",
    "autoscaler=static",
    "replicas=2",
    "window=30m",
    "start=2026-09-30T22:30:00Z",
]
ALL_ON = [
    *SHORT,
    "other_costs.preset=aws_typical",
    "other_costs.prices={cross_zone: aws-cross-zone}",
    "other_costs.people_hours_per_month=40",
    "other_costs.people_usd_per_hour='90'",
    "deployments.llama_8b.start=cold",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return simulate(load_scenario("quickstart", ALL_ON), out=tmp_path_factory.mktemp("costs") / "run")


def charged(run: RunResult, tariff: str) -> list[tuple[Fraction, int]]:
    """Quantity and nano-dollars of every row of a price, in order of time."""
    found = run.sql(f"SELECT quantity::VARCHAR AS q, amount_nano_usd AS n FROM ledger WHERE tariff = '{tariff}' ORDER BY row")
    return [(Fraction(str(quantity)), int(nano)) for quantity, nano in zip(found["q"], found["n"], strict=True)]


def one(run: RunResult, query: str) -> Fraction:
    [[value]] = run.sql(query).values()
    return Fraction(int(value))


HOURS = (Fraction(1, 2), Fraction(1), Fraction(1))  # 22:30 to 23:00 first
MONTHS = (Fraction(1, 1440), Fraction(1, 720), Fraction(1, 744))  # September has 720 hours, October 744


def close(found: Fraction, exact: Fraction, rows: int = 3) -> bool:
    """Whether a sum of rows is its exact value, with half a step for each row."""
    return abs(found - exact) <= Fraction(rows, 2 * 10**9)


@pytest.mark.parametrize(
    ("tariff", "usd"), [("aws-eks", "0.10"), ("aws-alb", "0.0225"), ("aws-nat", "0.045")]
)  # fmt: skip
def test_hours_are_charged_by_the_hour(run: RunResult, tariff: str, usd: str) -> None:
    assert charged(run, tariff) == [(hours, int(hours * Fraction(usd) * 10**9)) for hours in HOURS]


def test_people_and_stored_bytes_are_charged_by_their_part_of_the_month(run: RunResult) -> None:
    assert [nano for _, nano in charged(run, "people")] == [round(40 * part * 90 * 10**9) for part in MONTHS]
    # Llama 3.1 8B: 8,030,261,248 parameters of two bytes; the image has 12 GB.
    weights = Fraction(8_030_261_248 * 2, 10**9)
    assert [nano for _, nano in charged(run, "aws-s3")] == [round(weights * part * 23_000_000) for part in MONTHS]
    assert [nano for _, nano in charged(run, "aws-ecr")] == [round(12 * part * 100_000_000) for part in MONTHS]


def test_pulls_are_those_of_the_machines_and_replicas(run: RunResult) -> None:
    images = one(run, "SELECT count(*) FROM nodes WHERE pulled_ns >= 0")
    loads = one(run, "SELECT count(*) FROM replicas WHERE loaded_ns >= 0")
    assert images >= 2
    assert loads >= 2
    gigabytes = 12 * images + Fraction(8_030_261_248 * 2, 10**9) * loads
    assert sum(quantity for quantity, _ in charged(run, "aws-nat-data")) == gigabytes


def test_traffic_is_the_bytes_of_completed_requests(run: RunResult) -> None:
    completed, prompts, outputs = (
        one(run, f"SELECT sum({name}) FROM windows") for name in ("completed", "prompt_tokens", "output_tokens")
    )
    out_gb = (1_000 * completed + 4 * outputs) / 10**9
    in_gb = (1_000 * completed + 4 * prompts) / 10**9
    assert completed > 2_000
    assert close(sum((quantity for quantity, _ in charged(run, "aws-internet-egress")), Fraction(0)), out_gb)
    # Half of it crosses, and a byte that crosses is charged twice.
    assert close(sum((quantity for quantity, _ in charged(run, "aws-cross-zone")), Fraction(0)), in_gb + out_gb)


def test_logs_are_of_requests_that_left_and_metrics_of_replicas_with_a_machine(run: RunResult) -> None:
    left = one(run, "SELECT sum(total) FROM windows")
    assert sum(quantity for quantity, _ in charged(run, "aws-cloudwatch-logs")) == 1_000 * left / 10**9
    months = Fraction(0)
    for begin, end, hours in ((0, 90, 720), (90, 150, 744)):
        held = one(run, f"SELECT sum(end_ns - start_ns) FROM usage WHERE start_ns >= {begin} * 60e9 AND end_ns <= {end} * 60e9")
        months += 20 * held / (hours * NS_PER_HOUR)
    assert close(sum((quantity for quantity, _ in charged(run, "aws-cloudwatch-metrics")), Fraction(0)), months)


def test_units_of_the_load_balancer_are_its_largest_dimension(run: RunResult) -> None:
    """A request every other second is 1/50 of an LCU of new connections; bytes and active connections are below that."""
    units = []
    for begin in (0, 30, 90):
        found = run.sql(
            "SELECT sum(arrived) AS arrived, sum(in_flight_mean * (end_ns - start_ns)) / 3600e9 AS active, "
            "sum(2000 * completed + 4 * (prompt_tokens + output_tokens)) AS bytes FROM windows "
            f"WHERE start_ns >= {begin} * 60e9 AND start_ns < {30 if begin == 0 else begin + 60} * 60e9"
        )
        dimensions = (int(found["arrived"][0]) / 90_000, float(found["active"][0]) / 3_000, float(found["bytes"][0]) / 1e9)
        units.append(max(dimensions))
    assert [float(quantity) for quantity, _ in charged(run, "aws-alb-lcu")] == pytest.approx(units, rel=1e-6)


def test_every_part_is_attributed_and_everything_adds_up(run: RunResult) -> None:
    total = one(run, "SELECT sum(amount_nano_usd) FROM ledger")
    assert one(run, "SELECT sum(amount_nano_usd) FROM attribution") == total
    assert round(run.summary["bill"]["total_usd"] * 1e9) == total
    assert one(run, "SELECT count(*) FROM attribution WHERE use = 'shared' AND stream < 0") == 0
    wrong = run.sql(
        "SELECT row FROM ledger LEFT JOIN (SELECT row, sum(amount_nano_usd) AS parts FROM attribution GROUP BY row) AS a "
        "USING (row) WHERE coalesce(parts, 0) <> amount_nano_usd"
    )
    assert len(wrong["row"]) == 0
    # A log line has 1,000 bytes at 0.50 a GB: 500 nano-dollars for each request of a segment.
    left = run.sql("SELECT segment, sum(total)::BIGINT AS requests FROM windows GROUP BY segment")
    paid = run.sql(
        "SELECT attribution.segment AS segment, sum(attribution.amount_nano_usd) AS nano FROM attribution JOIN ledger USING (row) "
        "WHERE tariff = 'aws-cloudwatch-logs' GROUP BY attribution.segment"
    )
    owed = {segment: 500 * int(requests) for segment, requests in zip(left["segment"], left["requests"], strict=True)}
    assert {segment: int(nano) for segment, nano in zip(paid["segment"], paid["nano"], strict=True)} == owed


def test_lines_change_nothing_else(run: RunResult, tmp_path: Path) -> None:
    """Without the block the ledger of machines is the same to the byte, and with every line off nothing is booked."""
    cold = [*SHORT, "deployments.llama_8b.start=cold"]
    plain = simulate(load_scenario("quickstart", cold), out=tmp_path / "plain")
    off = [*cold, "other_costs.preset=aws_typical", "other_costs.prices={" + ", ".join(f"{name}: ''" for name in ALL_LINES) + "}"]
    without = simulate(load_scenario("quickstart", off), out=tmp_path / "off")
    for table in ("ledger", "attribution", "windows", "nodes"):
        assert (tmp_path / "plain" / f"{table}.parquet").read_bytes() == (tmp_path / "off" / f"{table}.parquet").read_bytes()
    columns = "lease, start_ns, end_ns, category, quantity::VARCHAR AS quantity, unit_price, amount_nano_usd"
    machines = f"SELECT {columns} FROM ledger WHERE lease >= 0 ORDER BY ALL"
    for mine, theirs in zip(run.sql(machines).values(), plain.sql(machines).values(), strict=True):
        assert mine.tolist() == theirs.tolist()
    assert without.summary["bill"] == plain.summary["bill"]


ALL_LINES = (
    "cluster", "load_balancer", "load_balancer_units", "metrics", "logs", "weights_storage", "image_storage", "nat", "nat_data",
    "internet_egress",
)  # fmt: skip


@pytest.mark.slow
def test_traffic_costs_are_linear_below_the_first_step(run: RunResult, tmp_path: Path) -> None:
    """Bytes twice as large cost twice as much, and nothing else changes."""
    sizes = ["request_bytes=2000", "bytes_per_prompt_token=8", "bytes_per_output_token=8"]
    twice = simulate(load_scenario("quickstart", [*ALL_ON, *(f"other_costs.{size}" for size in sizes)]), out=tmp_path / "run")
    for tariff in ("aws-internet-egress", "aws-cross-zone"):
        small, large = (sum((quantity for quantity, _ in charged(one_run, tariff)), Fraction(0)) for one_run in (run, twice))
        assert close(large, 2 * small, 9)
    assert charged(run, "aws-cloudwatch-logs") == charged(twice, "aws-cloudwatch-logs")


def test_problems_are_told_all_at_once() -> None:
    wrong = [
        "other_costs.preset=aws", "other_costs.clusters=-1", "other_costs.cross_zone_share=2",
        "other_costs.people_hours_per_month=10",
        "other_costs.prices={nat: aws-eks, cluster: aws-ekz, gateway: aws-nat}",
    ]  # fmt: skip
    with pytest.raises(InputError) as refused:
        check(load_scenario("quickstart", wrong))
    assert sorted(problem.path.removeprefix("other_costs.") for problem in refused.value.problems) == [
        "clusters", "cross_zone_share", "people_usd_per_hour", "preset", "prices.cluster", "prices.gateway", "prices.nat",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ('{above: 0, usd_per_unit: "-0.10"}', "tiers.0.usd_per_unit"),
        ('{above: 0, usd_per_unit: "0.10 EUR"}', "tiers.0.usd_per_unit"),
        ("{above: 0}", "tiers.0.usd_per_unit"),
        ('{above: 5, usd_per_unit: "0.10"}', "tiers"),
    ],
)
def test_a_price_that_is_no_price_is_refused_with_its_row(change: str, path: str, tmp_path: Path) -> None:
    overlay = tmp_path / "mine.yaml"
    known = {"source": "contract", "date": "2026-11-23", "confidence": "assumed"}
    price = f"{{valid_from: 2026-01-01, tiers: [{change}], {', '.join(f'{key}: {text}' for key, text in known.items())}}}"
    row = {"line": "cluster", "cloud": "aws", "unit": "cluster-hour", "prices": f"[{price}]", **known}
    overlay.write_text("cost_lines:\n  mine:\n" + "".join(f"    {key}: {text}\n" for key, text in row.items()))
    with pytest.raises(InputError) as refused:
        load_catalog(overlay)
    assert [problem.path for problem in refused.value.problems] == [f"cost_lines.mine.prices.0.{path}"]
