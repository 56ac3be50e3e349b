"""The bill of machine lives, without a simulation: from a file, from Python, or from the folder of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from sim.billing.ledger import OPEN_AT_END
from sim.billing.life_reader import check_lives, read_lives
from sim.billing.lives import (
    BY_USER,
    CRASHED,
    RUNNING,
    Fleet,
    Life,
    Terms,
    epoch_ns,
    fleet_of,
    fleet_of_run,
    moment_of,
    price_fleet,
)
from sim.billing.tariffs import INTERRUPTED
from sim.catalog.loader import Catalog, load_catalog
from sim.catalog.reading import read_sections
from sim.domain.usage import Lease
from sim.errors import InputError, Problems
from sim.results.metrics import summarize
from sim.results.records import RunResult, RunWriter, open_run
from sim.scenario import Account, Scenario
from sim.scenario.check import check_timezone
from sim.scenario.check_purchases import check_purchases
from sim.scenario.plain import scenario_from_plain
from sim.scenario.resolve import resolve
from sim.studies.provenance import provenance
from sim.units import instant, usd

# Of a manifest: what wrote the folder, where no engine did.
OF_LIVES = "price"
ASSUMED = "assumed"


@dataclass(frozen=True)
class RuleLine:
    """What one rule charged for one machine, or for the account, at one price.

    Parameters
    ----------
    name : of the machine, or of the commitment. quantity : in `unit`. unit_price : as written. tariff : the rule.
    """

    name: str
    instance: str
    region: str
    purchase: str
    category: str
    tariff: str
    quantity: Decimal
    unit: str
    unit_price: str
    amount_nano: int
    source: str
    confidence: str


@dataclass(frozen=True)
class PricedLives:
    """The bill of machine lives.

    Parameters
    ----------
    lives, terms : what was priced, and with what. fleet : the lives as leases of pools.
    ledger, leases : rows as in these tables of a run, in the order of booking and by number.
    bad_rows : of the file, skipped. folder : where the tables lie, if anywhere.
    """

    lives: tuple[Life, ...] = field(repr=False)
    terms: Terms = field(repr=False)
    fleet: Fleet = field(repr=False)
    ledger: tuple[Mapping[str, Any], ...] = field(repr=False)
    leases: tuple[Mapping[str, Any], ...] = field(repr=False)
    bad_rows: int = 0
    folder: Path | None = None

    @property
    def begins(self) -> datetime:
        """Begin of the billing period."""
        return self.fleet.resolved.scenario.start_instant

    @property
    def ends(self) -> datetime:
        """End of the billing period."""
        return moment_of(epoch_ns(self.begins) + self.fleet.resolved.scenario.horizon_ns)

    @property
    def amount_nano(self) -> int:
        """The bill in nano-dollars, exactly."""
        return sum(row["amount_nano_usd"] for row in self.ledger)

    @property
    def usd(self) -> str:
        """The bill in dollars and cents."""
        return usd(self.amount_nano)

    @property
    def assumed_share(self) -> float | None:
        """Share of the bill that rests on assumed prices; None where nothing is charged."""
        total_nano = self.amount_nano
        assumed_nano = sum(row["amount_nano_usd"] for row in self.ledger if row["confidence"] == ASSUMED)
        return assumed_nano / total_nano if total_nano else None

    def by(self, *columns: str) -> dict[tuple[Any, ...], int]:
        """Return sums in nano-dollars by columns of the ledger, in the order in which they come.

        Parameters
        ----------
        columns : of the table `ledger`, for instance "month", "purchase", "tariff", "category".
        """
        sums: dict[tuple[Any, ...], int] = {}
        for row in self.ledger:
            key = tuple(row[column] for column in columns)
            sums[key] = sums.get(key, 0) + row["amount_nano_usd"]
        return sums

    def bought_as(self, purchase: str) -> PricedLives:
        """Return the bill of the same lives, all bought in one way, beside the same commitments.

        One's own prices stay with machines that were bought so already; the others get those of the catalog.

        Raises
        ------
        InputError : machines that cannot be bought so.
        """
        free = {"usd_per_hour": None, "path": ()}
        lives = [life if life.purchase == purchase else replace(life, purchase=purchase, **free) for life in self.lives]  # type: ignore[arg-type]
        checked = check_lives(lives, load_catalog(self.terms.catalog or None))
        return _priced(checked, self.terms, fleet_of(checked, self.terms), self.bad_rows, None)

    def rules(self) -> list[RuleLine]:
        """Return what each rule charged for each machine at each price; the lines add up to the bill."""
        lines: dict[tuple[Any, ...], list[Any]] = {}
        kept = ("lease", "pool", "purchase", "category", "tariff", "unit", "unit_price", "source", "confidence")
        for row in sorted(self.ledger, key=lambda row: (row["lease"] < 0, row["lease"])):
            entry = lines.setdefault(tuple(row[name] for name in kept), [Decimal(0), 0])
            entry[0] += row["quantity"]
            entry[1] += row["amount_nano_usd"]
        return [self._line(dict(zip(kept, key, strict=True)), *entry) for key, entry in lines.items()]

    def _line(self, row: Mapping[str, Any], quantity: Decimal, amount_nano: int) -> RuleLine:
        pool = self.fleet.resolved.pools.get(row["pool"])
        return RuleLine(
            name=self.lives[row["lease"]].name if row["lease"] >= 0 else row["pool"],
            instance=pool.instance.name if pool else "",
            region=pool.config.region if pool else "",
            quantity=quantity,
            amount_nano=amount_nano,
            **{name: row[name] for name in ("purchase", "category", "tariff", "unit", "unit_price", "source", "confidence")},
        )


class _Rows:
    """A sink that keeps the rows of two tables, and hands all rows on where there is a folder."""

    def __init__(self, writer: RunWriter | None) -> None:
        self.tables: dict[str, list[Mapping[str, Any]]] = {"ledger": [], "leases": []}
        self._writer = writer

    def append(self, table: str, row: Mapping[str, object]) -> None:
        """Keep a row."""
        if table in self.tables:
            self.tables[table].append(dict(row))
        if self._writer is not None:
            self._writer.spool.append(table, row)


def price_lives(
    lives: str | Path | Iterable[Life],
    *,
    catalog: str | Path | None = None,
    commitments: str | Path | Mapping[str, Any] | None = None,
    timezone: str | None = None,
    begins: str | None = None,
    ends: str | None = None,
    seed: int = 1,
    max_bad_rows: int = 0,
    out: str | Path | None = None,
) -> PricedLives:
    """Return what machines cost that lived as given, by the rules, prices and ledger of a run.

    Parameters
    ----------
    lives : a .csv or .parquet file, the folder of a run (its leases, at its own prices and commitments), or lives.
    catalog : an overlay with one's own prices. commitments : rows as in a scenario's `commitments:`, or a YAML file of them.
    timezone : of the account's hours and months; UTC, or the run's. begins, ends : of the billing period, ISO 8601; by default
        from the clock hour of the first begin to the end of the clock hour of the last end.
    seed : of spot prices that nobody gave. max_bad_rows : so many broken rows of a file are skipped.
    out : a new or empty folder for the tables, which `billcast bill` reads.

    Raises
    ------
    InputError : every problem of the file, the commitments and the options.

    Examples
    --------
    59.2 s on EC2 are 60 s: 60 x 6.88 / 3600 = 0.1147 USD.

    >>> life = Life.between("2026-11-02T10:00Z", "2026-11-02T10:00:59.2Z", instance="p5.4xlarge", region="us-east-1")
    >>> priced = price_lives([life])
    >>> priced.usd, priced.assumed_share
    ('0.11', 0.0)
    >>> [(line.tariff, line.category, str(line.quantity)) for line in priced.rules()]
    [('ec2_on_demand', 'compute', '59.2'), ('ec2_on_demand', 'minimum', '0.8')]
    """
    if isinstance(lives, (str, Path)) and Path(lives).is_dir():
        return _price_run(open_run(lives), catalog, commitments, timezone, out)
    problems = Problems()
    overlay = str(catalog or "")
    found = _catalog(overlay, problems)
    terms = _terms(overlay, found, commitments, timezone or "UTC", (begins, ends), seed, problems)
    bad_rows = 0
    checked: tuple[Life, ...] = ()
    try:
        if isinstance(lives, (str, Path)):
            rows = read_lives(lives, found, max_bad_rows)
            checked, bad_rows = rows.lives, rows.bad_rows
        else:
            checked = check_lives(lives, found)
    except InputError as error:
        problems.found.extend(error.problems)
    _check_period(terms, checked, problems)
    problems.raise_if_any()
    return _priced(checked, terms, fleet_of(checked, terms), bad_rows, out)


def _catalog(overlay: str, problems: Problems) -> Catalog:
    try:
        return load_catalog(overlay or None)
    except InputError as error:
        problems.found.extend(error.problems)
    return load_catalog()


def _terms(
    overlay: str,
    catalog: Catalog,
    commitments: str | Path | Mapping[str, Any] | None,
    timezone: str,
    period: tuple[str | None, str | None],
    seed: int,
    problems: Problems,
) -> Terms:
    before = len(problems)
    check_timezone("timezone", timezone, problems)
    zone = timezone if len(problems) == before else "UTC"
    promised = scenario_from_plain({"commitments": _rows_of(commitments, problems)}, problems).commitments
    check_purchases(Scenario(commitments=promised), catalog, problems)
    begins, ends = (_moment(name, text, problems) for name, text in zip(("begins", "ends"), period, strict=True))
    return Terms(Account("account", zone), overlay, promised, begins, ends, seed)


def _moment(name: str, text: str | None, problems: Problems) -> datetime | None:
    try:
        return None if text is None else instant(text)
    except (ValueError, OverflowError):
        problems.add(name, text, "is not a calendar instant", "ISO 8601, for instance 2026-09-15T06:00:00Z")
        return None


def _rows_of(commitments: str | Path | Mapping[str, Any] | None, problems: Problems) -> Mapping[str, Any]:
    """Return commitments as plain rows; a file has them by name, or under `commitments:` as a scenario does."""
    if commitments is None:
        return {}
    if isinstance(commitments, Mapping):
        made: Mapping[str, Any] = Scenario(commitments=dict(commitments)).to_dict()["commitments"]
        return made
    try:
        text = Path(commitments).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problems.add("commitments", str(commitments), f"cannot be read: {getattr(error, 'strerror', None) or error}")
        return {}
    sections = read_sections(text, str(commitments), problems)
    for name in sections:
        problems.check(name == "commitments", str(commitments), name, "is not read here", "commitments:, as in a scenario")
    return sections.get("commitments", {})


def _check_period(terms: Terms, lives: Sequence[Life], problems: Problems) -> None:
    if lives and terms.begins is not None:
        latest = min(life.begin_ns for life in lives)
        problems.check(epoch_ns(terms.begins) <= latest, "begins", terms.begins.isoformat(), "is after the first begin of a life")
    if lives and terms.ends is not None:
        earliest = max(life.end_ns for life in lives)
        problems.check(epoch_ns(terms.ends) >= earliest, "ends", terms.ends.isoformat(), "is before the last end of a life")


def _price_run(
    result: RunResult,
    catalog: str | Path | None,
    commitments: str | Path | Mapping[str, Any] | None,
    timezone: str | None,
    out: str | Path | None,
) -> PricedLives:
    """Price the leases of a run: with its own scenario, or with what is given in its place."""
    problems = Problems()
    if result.manifest.get("made_by") == OF_LIVES:
        problems.add("LIVES", str(result.folder), "has the bill of a list of lives already", "that list, or the folder of a run")
        problems.raise_if_any()
    scenario = scenario_from_plain(result.manifest["scenario"], problems)
    overlay = scenario.catalog if catalog is None else str(catalog)
    found = _catalog(overlay, problems)
    if commitments is not None:
        scenario.commitments = scenario_from_plain({"commitments": _rows_of(commitments, problems)}, problems).commitments
    if timezone is not None:
        check_timezone("timezone", timezone, problems)
        scenario.account = Account(scenario.account.name, timezone)
    scenario.catalog = overlay
    check_purchases(scenario, found, problems)
    problems.raise_if_any()
    leases = _leases(result)
    begins = scenario.start_instant
    ends = moment_of(epoch_ns(begins) + scenario.horizon_ns)
    terms = Terms(scenario.account, overlay, scenario.commitments, begins, ends, scenario.seed)
    return _priced(_as_lives(scenario, leases), terms, fleet_of_run(resolve(scenario), leases), 0, out)


def _leases(result: RunResult) -> list[Lease]:
    columns = result.table("leases")
    kept = ("lease", "node", "pool", "instance", "accelerators", "purchase", "zone", "start_ns", "end_ns", "cause")
    return [Lease(*row) for row in zip(*(columns[name].tolist() for name in kept), strict=True)]


def _as_lives(scenario: Scenario, leases: Sequence[Lease]) -> tuple[Life, ...]:
    start_ns = epoch_ns(scenario.start_instant)
    return tuple(
        Life(
            name=f"lease {lease.lease}",
            instance=lease.instance,
            region=scenario.pools[lease.pool].region,
            begin_ns=start_ns + lease.start_ns,
            end_ns=start_ns + (lease.end_ns or 0),
            purchase=lease.purchase,
            zone=lease.zone,
            ended=_ENDS.get(lease.end_cause, BY_USER),
            usd_per_hour=scenario.pools[lease.pool].price_usd_per_hour,
            operating_system=scenario.pools[lease.pool].operating_system,
        )
        for lease in leases
    )


# What a run says of the end of a lease, in the words of a list of lives; everything else is the user's doing.
_ENDS = {INTERRUPTED: INTERRUPTED, CRASHED: CRASHED, OPEN_AT_END: RUNNING}


def _priced(lives: tuple[Life, ...], terms: Terms, fleet: Fleet, bad_rows: int, out: str | Path | None) -> PricedLives:
    rows, folder = _Rows(None), None
    if out is None:
        price_fleet(fleet, rows)
    else:
        with RunWriter(out) as writer:
            rows = _Rows(writer)
            price_fleet(fleet, rows)
            folder = _commit(writer, fleet.resolved.scenario, bad_rows).folder
    leases = sorted(rows.tables["leases"], key=lambda row: row["lease"])
    return PricedLives(lives, terms, fleet, tuple(rows.tables["ledger"]), tuple(leases), bad_rows, folder)


def _commit(writer: RunWriter, scenario: Scenario, bad_rows: int) -> RunResult:
    """Write the folder of a run in which nothing was served."""
    nothing = dict.fromkeys(("wall_s", "generate_s", "advance_s", "control_s", "requests_per_s", "peak_rss_mb"), 0.0)
    summary = summarize(writer.merge(), scenario, {"name": OF_LIVES, **nothing, "steps": 0}, {"lives": bad_rows})
    manifest = {
        **provenance(),
        "made_by": OF_LIVES,
        "scenario": scenario.to_dict(),
        "scenario_hash": scenario.digest(),
        "seed": scenario.seed,
        "replication": scenario.replication,
        "bad_rows": {"lives": bad_rows},
        **{name: {} for name in ("inputs", "fleets", "step_models", "spot_markets", "sites")},
    }
    return writer.commit(summary, manifest)
