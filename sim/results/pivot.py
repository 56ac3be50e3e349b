"""The bill by any keys: sums of the parts of the ledger, exact to the nano-dollar, from a saved run alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

from sim.errors import Problems
from sim.results.numbers import UNASSIGNED
from sim.results.records import RunResult
from sim.results.rounding import as_cents, cents, exact_usd, parts_of, table_in_cents
from sim.results.spool import quoted
from sim.units import NANO_PER_USD

CLIENT, TIER = "client", "tier"
OTHER_CLIENTS = "(others)"
_OWNED = "CASE WHEN attribution.stream < 0 THEN {nobody} ELSE {name} END"
# What a part of the bill can be gathered by, as SQL over attribution, its ledger row and the lease of that.
KEYS: dict[str, str] = {
    "month": "ledger.month",
    "day": "left(ledger.local_hour, 10)",
    "hour": "ledger.local_hour",
    "service": _OWNED.format(nobody=quoted(UNASSIGNED), name="attribution.service"),
    "segment": _OWNED.format(nobody=quoted(UNASSIGNED), name="attribution.segment"),
    "stream": _OWNED.format(nobody=quoted(UNASSIGNED), name="attribution.stream::VARCHAR"),
    "deployment": "attribution.deployment",
    "pool": "ledger.pool",
    "zone": "coalesce(leases.zone, '')",
    "instance": "coalesce(leases.instance, '')",
    "purchase": "ledger.purchase",
    "category": "ledger.category",
    "use": "attribution.use",
    "tariff": "ledger.tariff",
    "confidence": "ledger.confidence",
    TIER: _OWNED.format(nobody=quoted(UNASSIGNED), name="attribution.service || '/' || attribution.segment"),
    CLIENT: _OWNED.format(nobody=quoted(UNASSIGNED), name="attribution.service"),
}
_OF_TIME = ("month", "day", "hour")
# Keys that a tap must have counted, with the table it writes.
_TAPPED = {CLIENT: ("clients", "client_counters")}
_USES = ("busy", "idle", "booting", "draining", "lost")


@dataclass(frozen=True)
class PivotRow:
    """One row: the value of each key, and an amount for each column of the table, in nano-dollars."""

    keys: tuple[str, ...]
    amounts_nano: tuple[int, ...]

    @property
    def total_nano(self) -> int:
        """The sum over the columns."""
        return sum(self.amounts_nano)


@dataclass(frozen=True)
class Pivot:
    """The bill by some keys.

    Parameters
    ----------
    by : the keys of the rows. across : the key of the columns, "" for a single one.
    columns : its values, the name "USD" where there is none. rows : in order of their keys, times first to last.
    """

    by: tuple[str, ...]
    across: str
    columns: tuple[str, ...]
    rows: tuple[PivotRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the table ready for JSON, in whole nano-dollars and in dollars."""
        rows = [
            {
                **dict(zip(self.by, row.keys, strict=True)),
                **({"nano_usd_by": dict(zip(self.columns, row.amounts_nano, strict=True))} if self.across else {}),
                "nano_usd": row.total_nano,
                "usd": row.total_nano / NANO_PER_USD,
            }
            for row in self.rows
        ]
        total = self.total_nano
        return {"by": list(self.by), "across": self.across, "rows": rows, "nano_usd": total, "usd": total / NANO_PER_USD}

    def records(self) -> list[dict[str, str]]:
        """Return the rows ready for CSV: keys, columns and sum in dollars with all nine places, so that they add up exactly."""
        return [
            {
                **dict(zip(self.by, row.keys, strict=True)),
                **(dict(zip(self.columns, map(exact_usd, row.amounts_nano), strict=True)) if self.across else {}),
                "usd": exact_usd(row.total_nano),
            }
            for row in self.rows
        ]

    @property
    def total_nano(self) -> int:
        """The whole bill."""
        return sum(row.total_nano for row in self.rows)

    def column_nano(self, number: int) -> int:
        """Return the sum of a column."""
        return sum(row.amounts_nano[number] for row in self.rows)

    @cached_property
    def shown(self) -> PivotCents:
        """The table in cents, as it is shown: rows, columns and groups of rows add up to the total of the invoice."""
        total_cents = cents(self.total_nano)
        rows_cents = _nested(total_cents, [(row.keys, row.total_nano) for row in self.rows])
        columns_cents = as_cents(total_cents, [self.column_nano(number) for number in range(len(self.columns))])
        cells = table_in_cents(rows_cents, columns_cents, [row.amounts_nano for row in self.rows]) if self.rows else []
        return PivotCents(total_cents, rows_cents, columns_cents, cells)


@dataclass(frozen=True)
class PivotCents:
    """A pivot in cents: the total, those of rows and columns, and the cells, (rows, columns)."""

    total: int
    rows: list[int]
    columns: list[int]
    cells: list[list[int]]


def _nested(total_cents: int, rows: Sequence[tuple[tuple[str, ...], int]]) -> list[int]:
    """Round rows so that those of equal first keys add up to what is shown where only the first keys are asked for."""
    if not rows or not rows[0][0]:
        return as_cents(total_cents, [amount for _, amount in rows])
    groups: dict[str, list[int]] = {}
    for number, (keys, _) in enumerate(rows):
        groups.setdefault(keys[0], []).append(number)
    sums = as_cents(total_cents, [sum(rows[number][1] for number in members) for members in groups.values()])
    found = [0] * len(rows)
    for group_cents, members in zip(sums, groups.values(), strict=True):
        inner = _nested(group_cents, [(rows[number][0][1:], rows[number][1]) for number in members])
        for number, amount in zip(members, inner, strict=True):
            found[number] = amount
    return found


def check_keys(result: RunResult, by: Sequence[str], across: str = "") -> None:
    """Check that a bill can be gathered by some keys.

    Raises
    ------
    InputError : unknown, repeated or missing keys, or one for which the run has no tap; all of them at once.
    """
    problems = Problems()
    wanted = [("--by", name) for name in by] + ([("--across", across)] if across else [])
    problems.check(bool(by), "--by", "", "names no key", choices=KEYS)
    seen: set[str] = set()
    for option, name in wanted:
        if problems.check(name in KEYS, option, name, "is not a key of the bill", choices=KEYS):
            problems.check(name not in seen, option, name, "is named twice")
            if name in _TAPPED:
                tap, table = _TAPPED[name]
                counted = int(result.sql(f"SELECT count(*) AS n FROM {table}")["n"][0])
                problems.check(counted > 0, option, name, f"needs a tap, and the run has none of {tap!r}", f"+taps.NAME={tap}")
        seen.add(name)
    problems.raise_if_any()


def pivot(result: RunResult, by: Sequence[str], across: str = "") -> Pivot:
    """Return the bill of a run by some keys, exactly: rows and columns add up to the ledger.

    Times are those of the account's zone. What no service pays is "(unassigned)"; an empty name is what a part does not have, for
    instance the deployment of accelerators that no replica held. A `client` pays for its tokens (`_client_weights`).

    Parameters
    ----------
    by : keys of the rows, the outermost first, of `KEYS`. across : key of the columns, "" for none.

    Raises
    ------
    InputError : keys that are unknown, repeated, or that nothing was recorded for.

    Examples
    --------
    >>> import tempfile
    >>> from sim import load_scenario, simulate
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = simulate(load_scenario("bench_chat8", ["horizon=10m", f"out={folder}/run"]))
    ...     table = pivot(run, ["month", "service"], across="use")
    >>> table.columns, [row.keys for row in table.rows], table.total_nano == round(run.summary["bill"]["total_usd"] * 1e9)
    (('busy', 'idle'), [('2026-09', 'chat')], True)
    """
    check_keys(result, by, across)
    names = [*by, *([across] if across else [])]
    chosen = ", ".join(f"{KEYS[name]} AS key_{number}" for number, name in enumerate(names))
    service = KEYS["service"]
    table = result.sql(f"""
        SELECT {chosen}, {service} AS payer, sum(attribution.amount_nano_usd) AS amount, min(ledger.start_ns) AS first_ns
        FROM attribution JOIN ledger USING (row) LEFT JOIN leases USING (lease) GROUP BY ALL ORDER BY ALL
    """)
    found = [table[f"key_{number}"].tolist() for number in range(len(names))]
    parts = list(
        zip(zip(*found, strict=True), table["payer"].tolist(), table["amount"].tolist(), table["first_ns"].tolist(), strict=True)
    )
    weights = _client_weights(result) if CLIENT in names else {}
    amounts: dict[tuple[str, ...], int] = {}
    firsts: list[dict[str, int]] = [{} for _ in names]
    for keys, payer, amount, first_ns in parts:
        shares = [(keys, amount)]
        if CLIENT in names and payer != UNASSIGNED:
            shares = _by_client(keys, names.index(CLIENT), payer, amount, weights.get(payer, {OTHER_CLIENTS: Fraction(1)}))
        for own, part in shares:
            amounts[own] = amounts.get(own, 0) + part
            for first, value in zip(firsts, own, strict=True):
                first[value] = min(first.get(value, first_ns), first_ns)
    ranks = [_ranks(name, first) for name, first in zip(names, firsts, strict=True)]
    columns = sorted(firsts[-1], key=lambda value: ranks[-1][value]) if across else ["USD"]
    of_rows = {keys[: len(by)] for keys in amounts}
    rows = sorted(of_rows, key=lambda keys: [rank[key] for rank, key in zip(ranks, keys, strict=False)])
    return Pivot(
        tuple(by),
        across,
        tuple(columns),
        tuple(PivotRow(keys, tuple(amounts.get((*keys, *([column] if across else [])), 0) for column in columns)) for keys in rows),
    )


def _ranks(name: str, first_ns: dict[str, int]) -> dict[str, tuple[int, int, str]]:
    """The order of a key's values: times as they came, uses as they are listed, numbers by value, names by letter."""

    def rank(value: str) -> tuple[int, int, str]:
        if name in _OF_TIME:
            return 0, first_ns[value], value
        if name == "use":
            return 0, _USES.index(value) if value in _USES else len(_USES), value
        number = value.rpartition("/")[2]
        return (1, int(number), value) if number.isdigit() else (0, 0, value)

    return {value: rank(value) for value in first_ns}


def _by_client(
    keys: tuple[str, ...], place: int, service: str, amount: int, clients: dict[str, Fraction]
) -> list[tuple[tuple[str, ...], int]]:
    names = [f"{service}/{client}" for client in clients]
    parts = parts_of(amount, list(clients.values()))
    return [((*keys[:place], name, *keys[place + 1 :]), part) for name, part in zip(names, parts, strict=True) if part]


def _client_weights(result: RunResult) -> dict[str, dict[str, Fraction]]:
    """What each client of a service pays is proportional to: its prompt and output tokens over the run, or its items.

    The counts of one tap are used: completions before arrivals, then the first by name. Where the tap could not keep every client,
    what the service completed beyond the tokens of the clients kept is "(others)".
    """
    table = result.sql("""
        WITH chosen AS (SELECT tap FROM client_counters ORDER BY counts <> 'completions', tap LIMIT 1),
        done AS (
            SELECT service, sum(prompt_tokens + output_tokens + items) AS done, sum(items) > 0 AS in_items
            FROM windows GROUP BY service
        )
        SELECT service, client, done, others_at_most, prompt_tokens + CASE WHEN in_items THEN 0 ELSE output_tokens END AS work
        FROM client_counters JOIN chosen USING (tap) JOIN done USING (service) ORDER BY service, client
    """)
    found: dict[str, dict[str, Fraction]] = {}
    for service, client, done, others, work in zip(*(column.tolist() for column in table.values()), strict=True):
        mine = found.setdefault(service, {})
        if others and not mine:
            mine[OTHER_CLIENTS] = Fraction(done)
        mine[str(client)] = Fraction(work)
        if OTHER_CLIENTS in mine:
            mine[OTHER_CLIENTS] = max(mine[OTHER_CLIENTS] - work, Fraction(0))
    return found
