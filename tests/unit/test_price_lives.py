"""Files of machine lives: what is read, and what is refused with file, line, column, value, allowed and nearest name."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.billing.life_reader import check_lives, read_lives, read_price_path
from sim.billing.lives import ENDS, Life, epoch_ns
from sim.catalog.loader import load_catalog
from sim.errors import InputError
from sim.studies.price import PricedLives, price_lives
from sim.units import NS_PER_HOUR, NS_PER_S, instant

HEADER = "id,instance,region,zone,purchase,begin,end,ended,price_usd_per_hour\n"
FINE = "a,p5.4xlarge,us-east-1,us-east-1a,on_demand,2026-11-02T10:00:00Z,2026-11-02T11:00:00Z,user,\n"


def written(folder: Path, *rows: str, header: str = HEADER, name: str = "lives.csv") -> Path:
    file = folder / name
    file.write_text(header + "".join(rows), "utf-8")
    return file


def refused(file: Path, **options: object) -> list[tuple[str, object, str]]:
    """What is wrong with a file: (where, value, nearest name)."""
    with pytest.raises(InputError) as caught:
        price_lives(file, **options)  # type: ignore[arg-type]
    return [(problem.path.removeprefix(str(file)), problem.value, problem.nearest) for problem in caught.value.problems]


def test_a_file_is_read_in_its_order_with_its_defaults(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "p5.4xlarge,us-east-1,2026-11-02T11:00:00+01:00,2026-11-02 11:30\n",
        "g5.xlarge,us-east-1,2026-11-02,2026-11-03\n",
        header="instance,region,begin,end\n",
    )
    first, second = read_lives(file, load_catalog()).lives
    at_ten = epoch_ns(instant("2026-11-02T10:00Z"))
    assert first == Life("2", "p5.4xlarge", "us-east-1", at_ten, at_ten + 90 * 60 * NS_PER_S, "on_demand", "", "user", None)
    assert second.life_ns == 24 * NS_PER_HOUR


@pytest.mark.parametrize("kind", ["TIMESTAMP", "TIMESTAMPTZ", "VARCHAR", "TIMESTAMP_NS"])
def test_parquet_is_read_as_csv(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "lives.parquet"
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(
            "COPY (SELECT 'p5.4xlarge' AS instance, 'us-east-1' AS region, 2.5::DECIMAL(8, 3) AS price_usd_per_hour, "
            f"'2026-11-02 10:00:00'::{kind} AS begin, '2026-11-02 10:00:59.2'::{kind} AS end, NULL AS zone) TO '{file}'"
        )
    [life] = read_lives(file, load_catalog()).lives
    assert (life.life_ns, life.usd_per_hour, life.zone, life.name) == (59_200_000_000, "2.500", "", "1")


def test_every_wrong_row_is_told_at_once(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        FINE,
        "b,p5.4xlrge,us-east-1,,on_demand,2026-11-02T10:00Z,2026-11-02T11:00Z,user,\n",
        "c,p5.4xlarge,us-esat-1,,on_demand,2026-11-02T10:00Z,2026-11-02T11:00Z,user,\n",
        "d,p5.4xlarge,us-east-1,,on_demand,2026-11-02T11:00Z,2026-11-02T10:00Z,user,\n",
        "e,p5.4xlarge,us-east-1,,on_demand,yesterday,,user,\n",
        "f,p5.4xlarge,us-east-1,,on_demand,2026-11-02T10:00Z,2026-11-02T11:00Z,interupted,-1\n",
        "a,p5.4xlarge,us-east-1,,on_demand,2026-11-02T10:59Z,2026-11-02T12:00Z,user,\n",
        "g,gpu_1x_a10,us-east-1,,spot,2026-11-02T10:00Z,2026-11-02T11:00Z,user,1 EUR\n",
        "h,p5.4xlarge,us-east-1,,spott,2026-11-02T10:00Z,2026-11-02T11:00Z,user,0.0000000001\n",
        "i,p5.4xlarge,us-east-1\n",
    )
    told = refused(file)
    assert told[0] == ("max_bad_rows", 0, "")
    assert told[1:] == [
        (", line 3, column instance", "p5.4xlrge", "p5.4xlarge"),
        (", line 4, column region", "us-esat-1", "us-east-1"),
        (", line 5, column end", "2026-11-02T10:00:00+00:00", ""),
        (", line 6, column begin", "yesterday", ""),
        (", line 6, column end", "", ""),
        (", line 7, column ended", "interupted", "interrupted"),
        (", line 7, column price_usd_per_hour", "-1", ""),
        (", line 8, column id", "a", ""),
        (", line 9, column price_usd_per_hour", "1 EUR", ""),
        (", line 9, column purchase", "spot", ""),
        (", line 10, column price_usd_per_hour", "0.0000000001", ""),
        (", line 10, column purchase", "spott", "spot"),
        (", line 11", "3", ""),
    ]


def test_a_way_to_buy_is_checked_beside_a_machine_that_nobody_knows(tmp_path: Path) -> None:
    wrong = FINE.replace("p5.4xlarge", "p5.4xlrge").replace("on_demand", "on_demnd")
    told = refused(written(tmp_path, wrong))
    assert (", line 2, column instance", "p5.4xlrge", "p5.4xlarge") in told
    assert (", line 2, column purchase", "on_demnd", "on_demand") in told


def test_so_many_broken_rows_are_skipped_and_counted(tmp_path: Path) -> None:
    file = written(tmp_path, FINE, *(FINE.replace("us-east-1,", "mars,").replace("a,", f"x{n},", 1) for n in range(30)))
    assert len([path for path, _, _ in refused(file, max_bad_rows=29) if "line" in path]) == 20
    priced = price_lives(file, max_bad_rows=30)
    assert (priced.usd, priced.bad_rows, len(priced.lives)) == ("6.88", 30, 1)
    assert refused(written(tmp_path, "b,no,us-east-1,,,2026,2027,,\n"), max_bad_rows=1) == [("", 0, "")]


@pytest.mark.parametrize(
    ("header", "path", "near"),
    [
        ("instance,region,begin,end,price_eur_per_hour\n", ", header", "price_usd_per_hour"),
        ("instance,region,begin,end,purchse\n", ", header", "purchase"),
        ("instance,region,begin,end,end\n", ", header", ""),
        ("instance,region,begin\n", ", header", ""),
    ],
)
def test_other_columns_are_refused(header: str, path: str, near: str, tmp_path: Path) -> None:
    assert (path, near) in [(where, nearest) for where, _, nearest in refused(written(tmp_path, header=header))]


def test_other_currencies_and_clouds_are_refused(tmp_path: Path) -> None:
    header = "instance,region,begin,end,price_usd_per_hour,currency,cloud\n"
    row = "p5.4xlarge,us-east-1,2026-11-02T10:00Z,2026-11-02T11:00Z,2.00,{},{}\n"
    file = written(tmp_path, row.format("EUR", "aws"), row.format("USD", "gcp"), row.format("", "aws"), header=header)
    assert refused(file)[1:] == [(", line 2, column currency", "EUR", ""), (", line 3, column cloud", "gcp", "")]
    assert price_lives(file, max_bad_rows=2).usd == "2.00"


def test_operating_systems_are_those_of_pools(tmp_path: Path) -> None:
    header = "instance,region,purchase,begin,end,price_usd_per_hour,operating_system\n"
    row = "{},2026-11-02T10:00Z,2026-11-02T10:30Z,{}\n"
    here = "p5.4xlarge,us-east-1,on_demand"
    file = written(
        tmp_path,
        row.format(here, "2.00,suse"), row.format(here, "2.00,"), row.format(here, "2.00,windows"), row.format(here, "2.00,sues"),
        row.format(here, ",rhel"), row.format("g2-standard-4,us-east1,on_demand", "2.00,suse"),
        row.format("p5.4xlarge,us-east-1,sagemaker", "2.00,suse"), header=header,
    )  # fmt: skip
    column = "column operating_system"
    assert refused(file)[1:] == [
        (f", line 5, {column}", "sues", "suse"), (f", line 6, {column}", "rhel", ""), (f", line 7, {column}", "suse", ""),
        (f", line 8, {column}", "suse", ""),
    ]  # fmt: skip
    # SUSE pays the whole hour, the others half of it; pools are named by it.
    priced = price_lives(file, max_bad_rows=4)
    assert [row["amount_nano_usd"] for row in priced.leases] == [2 * 10**9, 10**9, 10**9]
    assert [pool.config.operating_system for pool in priced.fleet.resolved.pools.values()] == ["suse", "linux", "windows"]
    assert next(iter(priced.fleet.resolved.pools)) == "p5.4xlarge/us-east-1/on_demand/suse/2"


def test_a_path_of_prices_of_ones_own(tmp_path: Path) -> None:
    # 30 minutes at 1.00, 20 at 1.50: 0.50 + 0.50; before its first time the first price holds.
    (tmp_path / "path.csv").write_text("time,price_usd_per_hour\n2026-11-02T10:30Z,1.50\n2026-11-02T10:10Z,1.00\n")
    header = "instance,region,purchase,begin,end,price_path\n"
    row = "{},us-east-1,spot,2026-11-02T10:00Z,2026-11-02T10:50Z,{}\n"
    assert price_lives(written(tmp_path, row.format("g5.xlarge", "path.csv"), header=header)).usd == "1.00"
    # one that is broken is told with its rows, and once
    (tmp_path / "path.csv").write_text("time,price_usd_per_hour,currency\n2026-11-02T10:30Z,-1,\nnoon,1,EUR\n")
    file = written(tmp_path, row.format("g5.xlarge", "path.csv"), row.format("p5.4xlarge", "nowhere.csv"), header=header)
    told = [path.rsplit("/", 1)[-1] for path, _, _ in refused(file)[1:]]
    assert told == [
        "path.csv, line 2, column price_usd_per_hour", "path.csv, line 3, column currency", "path.csv, line 3, column time",
        "nowhere.csv",
    ]  # fmt: skip
    with pytest.raises(InputError, match="has a price already"):
        read_price_path(written(tmp_path, "2026-11-02,1\n2026-11-02T00:00Z,2\n", header="time,price_usd_per_hour\n"))


def test_options_are_checked_with_the_file(tmp_path: Path) -> None:
    promise = tmp_path / "promise.yaml"
    promise.write_text("commitments:\n  a: {choice: reserved_instance, instance: p5.4xlarge, region: us-east-1}\nmore: {}\n")
    told = refused(
        written(tmp_path, FINE.replace("user", "used")), commitments=promise, timezone="Europe/Berln", begins="2026-11-02T10:30Z",
        ends="soon", catalog="nowhere.yaml",
    )  # fmt: skip
    assert [(path, near) for path, _, near in told] == [
        ("catalog", ""),
        ("timezone", "Europe/Berlin"),
        (str(promise), ""),
        ("commitments.a.choice", "reserved_instances"),
        ("ends", ""),
        ("max_bad_rows", ""),
        (", line 2, column ended", "user"),
    ]
    assert refused(written(tmp_path, FINE), begins="2026-11-02T10:30Z", ends="2026-11-02T10:45Z")[0][0] == "begins"


def test_lives_made_in_python_are_checked_too() -> None:
    life = Life.between("2026-11-02T10:00Z", "2026-11-02T11:00Z", instance="p5.4xlarge", region="nowhere")
    with pytest.raises(InputError, match=r"lives\[1\], column instance"):
        check_lives([life, Life("b", "p6", "us-east-1", 0, 1)], load_catalog())
    with pytest.raises(InputError, match="no life to price"):
        price_lives([])


def test_lives_of_one_machine_may_follow_each_other_at_once_and_may_be_of_no_length() -> None:
    """Two half hours and a start that failed at once, at the very end, too: 2 x 3.44 and a minimum of 60 s x 6.88 / 3600."""
    spans = [("10:00", "10:30"), ("10:30", "11:00"), ("11:00", "11:00")]
    lives = [Life.between(f"2026-11-02T{a}Z", f"2026-11-02T{b}Z", instance="p5.4xlarge", region="us-east-1") for a, b in spans]
    assert price_lives(lives[:2]).amount_nano == 6_880_000_000
    for ends in (None, "2026-11-02T12:00Z"):
        assert price_lives(lives, ends=ends).amount_nano == 6_880_000_000 + 114_666_667
    assert price_lives(lives[2:]).amount_nano == 114_666_667


def test_machines_of_one_type_may_have_paths_of_their_own() -> None:
    at_ten = epoch_ns(instant("2026-11-02T10:00Z"))
    lives = [
        Life(usd, "g5.xlarge", "us-east-1", at_ten, at_ten + NS_PER_HOUR, "spot", path=((at_ten, usd),)) for usd in ("1.00", "2.50")
    ]
    assert [row["amount_nano_usd"] for row in price_lives(lives).leases] == [1_000_000_000, 2_500_000_000]


def test_a_folder_of_such_a_bill_is_not_priced_again(tmp_path: Path) -> None:
    price_lives(written(tmp_path, FINE), out=tmp_path / "out")
    with pytest.raises(InputError, match="has the bill of a list of lives already"):
        price_lives(tmp_path / "out")


LIVES = st.lists(
    st.tuples(
        st.sampled_from(["p5.4xlarge", "g5.xlarge"]),
        st.sampled_from(["us-east-1a", "us-east-1b"]),
        st.integers(0, 6 * 3_600_000),
        st.integers(0, 4 * 3_600_000),
        st.sampled_from(ENDS),
    ),
    min_size=1,
    max_size=6,
)


@given(drawn=LIVES)
def test_laws_of_the_bill_of_any_lives(drawn: list[tuple[str, str, int, int, str]]) -> None:
    """Spot is not above on demand; reserved machines cost at least their floor; order and names change nothing."""
    start_ns = epoch_ns(instant("2026-10-25T00:00Z"))
    lives = [
        Life(str(n), instance, "us-east-1", start_ns + begin * 10**6, start_ns + (begin + length) * 10**6, "spot", zone, ended)
        for n, (instance, zone, begin, length, ended) in enumerate(drawn)
    ]
    priced = price_lives(lives, timezone="Europe/Berlin")
    listed = priced.bought_as("on_demand")
    assert priced.amount_nano <= listed.amount_nano + len(priced.ledger) + len(listed.ledger)
    assert sorted(row["amount_nano_usd"] for row in price_lives(lives[::-1], timezone="Europe/Berlin").ledger) == sorted(
        row["amount_nano_usd"] for row in priced.ledger
    )
    for found in (priced, listed):
        assert sum(line.amount_nano for line in found.rules()) == found.amount_nano
        assert sum(row["amount_nano_usd"] for row in found.leases) == found.amount_nano
    floor = {
        "ri": {"choice": "reserved_instances", "instance": "g5.xlarge", "region": "us-east-1", "count": 2, "usd_per_hour": "0.5"}
    }
    hours = (listed.ends - listed.begins).total_seconds() / 3600
    assert _under(listed, floor).amount_nano >= hours * 10**9


def _under(priced: PricedLives, commitments: dict[str, dict[str, object]]) -> PricedLives:
    return price_lives(priced.lives, timezone=priced.terms.account.timezone, commitments=commitments)
