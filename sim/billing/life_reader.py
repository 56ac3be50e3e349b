"""Files of machine lives (CSV or Parquet), read and checked row by row; every broken row is told with file, line and column."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sim.billing.lives import BY_USER, ENDS, ON_DEMAND, SPOT, Life, epoch_ns, moment_of
from sim.billing.machine_rules import SPOT_RULES, offer_of
from sim.catalog.loader import Catalog
from sim.domain.hardware import InstanceType
from sim.domain.pricing import LINUX, OPERATING_SYSTEMS
from sim.errors import InputError, Problem, Problems
from sim.scenario.commitments import check_money
from sim.units import NS_PER_HOUR, instant

MUST = ("instance", "region", "begin", "end")
MAY = ("id", "cloud", "zone", "purchase", "ended", "price_usd_per_hour", "price_path", "currency", "operating_system")
COLUMNS = MUST + MAY
PATH_COLUMNS = ("time", "price_usd_per_hour")
SHOWN_BAD_ROWS = 20
_INSTANT = "ISO 8601, for instance 2026-09-15T06:00:00Z"


@dataclass(frozen=True)
class LifeRows:
    """The good rows of a file of lives, in its order.

    Parameters
    ----------
    lives : one a row. bad_rows : how many were skipped.
    """

    lives: tuple[Life, ...]
    bad_rows: int = 0


def read_lives(file: str | Path, catalog: Catalog, max_bad_rows: int = 0) -> LifeRows:
    """Read lives from a .csv or .parquet file.

    Parameters
    ----------
    catalog : knows machines and prices. max_bad_rows : so many broken rows are skipped; one more is an error.

    Raises
    ------
    InputError : the file cannot be read, has other columns, no row, or more broken rows than allowed (the first 20 are told).
    """
    path = Path(file)
    reader = _Reader(path, catalog)
    rows = list(_rows(path, COLUMNS, MUST))
    found = [(place, reader.life(place, row)) for place, row in rows]
    reader.refuse_overlaps([(place, life) for place, life in found if life is not None])
    bad_rows = len(reader.bad)
    if bad_rows > max_bad_rows:
        shown = f", the first {SHOWN_BAD_ROWS} follow" if bad_rows > SHOWN_BAD_ROWS else ""
        told = Problem("max_bad_rows", max_bad_rows, f"{path} has {bad_rows} broken rows{shown}", "as many as may be skipped")
        first = [place for place, _ in found if place in reader.bad][:SHOWN_BAD_ROWS]
        raise InputError([told, *(problem for place in first for problem in reader.bad[place])])
    good = tuple(life for place, life in found if life is not None and place not in reader.bad)
    if not good:
        raise InputError([Problem(str(path), 0, "has no life to price", "at least 1 row")])
    return LifeRows(good, bad_rows)


def check_lives(lives: Iterable[Life], catalog: Catalog) -> tuple[Life, ...]:
    """Check lives that were made in Python.

    Raises
    ------
    InputError : every problem of every life.
    """
    reader = _Reader(Path(), catalog)
    made = [(f"lives[{number}]", life) for number, life in enumerate(lives)]
    for place, life in made:
        reader.check(place, life)
    reader.refuse_overlaps(made)
    if reader.bad:
        raise InputError([problem for problems in reader.bad.values() for problem in problems])
    if not made:
        raise InputError([Problem("lives", 0, "has no life to price", "at least 1")])
    return tuple(life for _, life in made)


def ways_to_buy(catalog: Catalog) -> tuple[str, ...]:
    """Return the names of all ways in which a machine can be bought: on demand, spot, and the managed offers of the catalog."""
    return (ON_DEMAND, SPOT, *catalog.managed_offers)


def offered(life: Life, row: InstanceType, catalog: Catalog) -> Problem | None:
    """Return why a machine cannot be had like this, or None; the path of the problem is a column."""
    if life.purchase not in ways_to_buy(catalog):
        return _not_a_way(life.purchase, ways_to_buy(catalog))
    offer = catalog.managed_offers.get(life.purchase)
    if offer is not None and offer.longest_h and life.life_ns > offer.longest_h * NS_PER_HOUR:
        return _problem("end", moment_of(life.end_ns).isoformat(), f"{offer.name} ends after {offer.longest_h:g} h", ())
    if life.purchase == SPOT and offer_of(row) not in SPOT_RULES:
        return _problem("purchase", SPOT, f"{row.cloud} has no spot machines", (ON_DEMAND,))
    if life.operating_system not in OPERATING_SYSTEMS:
        return _problem("operating_system", life.operating_system, "is not an operating system", OPERATING_SYSTEMS)
    if life.operating_system != LINUX and (row.cloud != "aws" or offer is not None):
        message = "is known of machines of EC2 on demand and spot alone; it is in the price of others"
        return _problem("operating_system", life.operating_system, message, (LINUX,))
    if life.usd_per_hour is not None or life.path:
        return None
    if life.operating_system != LINUX:
        message = f"the catalog has no prices of {life.operating_system}; give price_usd_per_hour or price_path with its licence"
        return _problem("operating_system", life.operating_system, message, (LINUX,))
    if offer is not None and not offer.rents(row):
        message = f"{offer.name} has no price of {row.name}; give price_usd_per_hour"
        return _problem("purchase", life.purchase, message, (ON_DEMAND,))
    if life.region not in row.on_demand and not (offer is not None and offer.usd_per_accelerator_hour):
        return _problem(
            "region", life.region, f"{row.name} has no price there; give price_usd_per_hour or another region", row.on_demand
        )
    if life.purchase == SPOT and row.name not in catalog.spot_prices:
        return _problem(
            "purchase", SPOT, f"the catalog has no spot price of {row.name}; give price_usd_per_hour or price_path", (ON_DEMAND,)
        )
    return None


def _not_a_way(purchase: str, ways: Iterable[str]) -> Problem:
    return _problem("purchase", purchase, "is not a way to buy a machine", ways)


def _problem(column: str, value: object, message: str, choices: Iterable[str]) -> Problem:
    problems = Problems()
    problems.add(column, value, message, choices=choices)
    return problems.found[0]


@dataclass
class _Reader:
    """Reads rows of one file; `bad` has the problems of every broken row by its place."""

    file: Path
    catalog: Catalog
    bad: dict[str, list[Problem]] = field(default_factory=dict)
    _paths: dict[str, tuple[tuple[int, str], ...]] = field(default_factory=dict)

    def life(self, place: str, row: Mapping[str, str]) -> Life | None:
        """Return a row as a life; None where a time cannot be read or there is no such machine."""
        if row.get("") is not None:
            self._add(place, "", row[""], "has a wrong number of columns", "as many as the header")
            return None
        begin_ns, end_ns = (self._instant(place, name, row.get(name, "")) for name in ("begin", "end"))
        price = row.get("price_usd_per_hour") or None
        path_file = row.get("price_path", "")
        life = Life(
            name=row.get("id") or place.rsplit(" ", 1)[-1],
            instance=row["instance"],
            region=row["region"],
            begin_ns=begin_ns or 0,
            end_ns=end_ns or 0,
            purchase=row.get("purchase") or ON_DEMAND,
            zone=row.get("zone", ""),
            ended=row.get("ended") or BY_USER,
            usd_per_hour=price,
            path=self._path(place, path_file) if path_file else (),
            operating_system=row.get("operating_system") or LINUX,
        )
        currency = row.get("currency") or "USD"
        if currency != "USD":
            self._add(place, "currency", currency, "is not the currency of the bill", "USD")
        known = self.catalog.instances.get(life.instance)
        cloud = row.get("cloud", "")
        if cloud and known is not None and cloud != known.cloud:
            self._add(place, "cloud", cloud, f"does not rent {known.name}", known.cloud)
        if price and path_file:
            self._add(place, "price_path", path_file, "is given beside price_usd_per_hour", "one of the two")
        self.check(place, life, times=begin_ns is not None and end_ns is not None)
        return None if place in self.bad else life

    def check(self, place: str, life: Life, *, times: bool = True) -> None:
        """Add what is wrong with a life."""
        row = self.catalog.instances.get(life.instance)
        if times and life.end_ns < life.begin_ns:
            end = moment_of(life.end_ns).isoformat()
            self._add(place, "end", end, "is before begin", f"{moment_of(life.begin_ns).isoformat()} or later")
        if life.ended not in ENDS:
            self._add(place, "ended", life.ended, "is not how a life ends", choices=ENDS)
        if life.usd_per_hour is not None:
            problems = Problems()
            check_money(f"{place}, column price_usd_per_hour", life.usd_per_hour, problems, zero=True)
            self._keep(place, problems.found)
        if row is None:
            self._add(place, "instance", life.instance, "the catalog has no such machine", choices=self.catalog.instances)
            ways = ways_to_buy(self.catalog)
            if life.purchase not in ways:
                self._keep(place, [replace(_not_a_way(life.purchase, ways), path=f"{place}, column purchase")])
            return
        problem = offered(life, row, self.catalog)
        if problem is not None:
            self._keep(place, [replace(problem, path=f"{place}, column {problem.path}")])

    def refuse_overlaps(self, found: Sequence[tuple[str, Life]]) -> None:
        """Add every life that begins while another one of the same name still runs."""
        by_name: dict[str, list[tuple[str, Life]]] = {}
        for place, life in found:
            by_name.setdefault(life.name, []).append((place, life))
        for name, members in by_name.items():
            latest_ns, at = None, ""
            for place, life in sorted(members, key=lambda pair: (pair[1].begin_ns, pair[1].end_ns)):
                if latest_ns is not None and life.begin_ns < latest_ns:
                    self._add(place, "id", name, f"runs already: {at}", "one life of a machine at a time")
                if latest_ns is None or life.end_ns > latest_ns:
                    latest_ns, at = life.end_ns, place

    def _instant(self, place: str, column: str, text: str) -> int | None:
        try:
            return epoch_ns(instant(text))
        except (ValueError, OverflowError):
            self._add(place, column, text, "is missing" if not text else "is not a calendar instant", _INSTANT)
            return None

    def _path(self, place: str, text: str) -> tuple[tuple[int, str], ...]:
        """Return the prices of a file beside the lives; its problems belong to the row that names it first."""
        if text not in self._paths:
            try:
                self._paths[text] = read_price_path(self.file.parent / text)
            except InputError as error:
                self._paths[text] = ()
                self._keep(place, error.problems)
        if not self._paths[text] and place not in self.bad:
            self._add(place, "price_path", text, "is broken; see above", "a file of prices")
        return self._paths[text]

    def _add(self, place: str, column: str, value: object, message: str, allowed: str = "", choices: Iterable[str] = ()) -> None:
        problems = Problems()
        problems.add(f"{place}, column {column}" if column else place, value, message, allowed, choices)
        self._keep(place, problems.found)

    def _keep(self, place: str, found: Iterable[Problem]) -> None:
        kept = list(found)
        if kept:
            self.bad.setdefault(place, []).extend(kept)


def read_price_path(file: str | Path) -> tuple[tuple[int, str], ...]:
    """Read one's own prices of a machine: a .csv or .parquet file with the columns `time` and `price_usd_per_hour`.

    Returns
    -------
    (from, in nanoseconds since 1970-01-01 UTC, USD per hour), oldest first.

    Raises
    ------
    InputError : the file cannot be read, or has a row that is no price.
    """
    problems = Problems()
    found: dict[int, str] = {}
    for place, row in _rows(Path(file), (*PATH_COLUMNS, "currency"), PATH_COLUMNS):
        price = row["price_usd_per_hour"]
        fine = check_money(f"{place}, column price_usd_per_hour", price, problems, zero=True)
        currency = row.get("currency") or "USD"
        problems.check(currency == "USD", f"{place}, column currency", currency, "is not the currency of the bill", "USD")
        try:
            at_ns = epoch_ns(instant(row["time"]))
        except (ValueError, OverflowError):
            problems.add(f"{place}, column time", row["time"], "is not a calendar instant", _INSTANT)
            continue
        if (
            problems.check(at_ns not in found, f"{place}, column time", row["time"], "has a price already", "one price a time")
            and fine
        ):
            found[at_ns] = price
    problems.check(bool(found) or len(problems) > 0, str(file), 0, "has no price", "at least 1 row")
    problems.raise_if_any()
    return tuple(sorted(found.items()))


def _rows(file: Path, columns: Sequence[str], must: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (place, row by column) of a file; a row of another length has its length under the key ""."""
    try:
        if file.suffix == ".parquet":
            names, rows, unit = _parquet(file)
        else:
            names, rows, unit = _csv(file)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InputError([Problem(str(file), file.name, f"cannot be read: {why}", "a .csv or .parquet file")]) from error
    problems = Problems()
    for name in names:
        what = "is not a column; prices are in USD" if "price" in name or "cost" in name else "is not a column"
        problems.check(name in columns, f"{file}, header", name, what, choices=columns)
        problems.check(names.count(name) == 1, f"{file}, header", name, "is there twice", "each column once")
    for name in must:
        problems.check(name in names, f"{file}, header", ",".join(names), f"has no column {name}", ", ".join(columns))
    problems.raise_if_any()
    for number, values in rows:
        place = f"{file}, {unit} {number}"
        yield place, dict(zip(names, values, strict=True)) if len(values) == len(names) else {"": str(len(values))}


_Rows = list[tuple[int, list[str]]]


def _csv(file: Path) -> tuple[list[str], _Rows, str]:
    with file.open(encoding="utf-8-sig", newline="") as text:
        reader = csv.reader(text)
        rows = [(reader.line_num, [value.strip() for value in row]) for row in reader if any(value.strip() for value in row)]
    names = rows[0][1] if rows else []
    return names, rows[1:], "line"


def _parquet(file: Path) -> tuple[list[str], _Rows, str]:
    import duckdb

    try:
        with duckdb.connect(":memory:", config={"threads": 1}) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            answer = connection.execute("SELECT COLUMNS(*)::VARCHAR FROM read_parquet(?)", [str(file)])
            names = [column[0] for column in answer.description or ()]
            rows = answer.fetchall()
    except duckdb.Error as error:
        raise OSError(0, str(error).splitlines()[0]) from error
    return names, [(number, [value or "" for value in row]) for number, row in enumerate(rows, start=1)], "row"
