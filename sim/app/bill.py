"""`billcast bill`: the invoice of a run, the bill by any keys, unit costs, and why one month or run is dearer than another."""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from sim.errors import InputError, Problem, Problems
from sim.units import NANO_PER_USD, usd

if TYPE_CHECKING:
    from rich.console import Console

    from sim.results.records import RunResult
    from sim.results.replications import Replications

STANDARD_OUTPUT = "-"


def declare_bill(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument("folder", metavar="DIR", help="a folder written by `run`")
    parser.add_argument("--by", metavar="KEY,...", help="the bill by these keys, for instance month,service,segment")
    parser.add_argument("--across", metavar="KEY", help="one more key, whose values are columns, for instance use")
    parser.add_argument(
        "--per", metavar="UNIT,...", help="what a unit of work costs: requests, tokens, users; by service, or by the keys of --by"
    )
    parser.add_argument("--query", metavar="NAME", help="the answer to one of five queries, for instance dearest_hours")
    parser.add_argument("--why", metavar="MONTH", help="why this month (YYYY-MM) was dearer than the one before it")
    parser.add_argument("--against", metavar="MONTH", help="or than this one")
    parser.add_argument("--amortised", action="store_true", help="with payments up front spread over the hours they are for")
    parser.add_argument("--top", type=int, metavar="N", help="the N dearest rows alone, the others as one")
    parser.add_argument("--json", action="store_true", help="exact amounts as JSON, for other programs")
    parser.add_argument("--csv", metavar="FILE", help="write exact amounts as CSV; - is the standard output")
    parser.add_argument("--focus", metavar="FILE", help="write the ledger as a FOCUS file for tools of FinOps: .csv or .parquet")
    parser.add_argument("--focus-version", metavar="V", help="version of FOCUS: 1.4 (default) or 1.2")


def bill(arguments: argparse.Namespace) -> int:
    """Print what was asked for of the bill of a run; the invoice where nothing was."""
    from sim.results.records import open_run

    _check(arguments)
    if arguments.focus is not None:
        return _focus(arguments.folder, arguments.focus, arguments.focus_version)
    result = open_run(arguments.folder)
    shown = _asked_for(result.amortised() if arguments.amortised else result, arguments)
    if arguments.json:
        print(json.dumps(shown.document, indent=2, allow_nan=False))
    if arguments.csv == STANDARD_OUTPUT:
        _write_csv(shown.records, sys.stdout)
    elif arguments.csv:
        _write_file(shown.records, arguments.csv)
    if not (arguments.json or arguments.csv):
        from rich.console import Console

        console = Console()
        for number, part in enumerate(shown.parts):
            if number:
                console.print()
            console.print(part)
    return 0


def _focus(folder: str, file: str, version: str | None) -> int:
    from sim.results.focus import focus_problems, write_focus
    from sim.results.focus_columns import LATEST
    from sim.results.records import open_run

    version = LATEST if version is None else version
    problems = focus_problems(file, version)
    try:
        result = open_run(folder)
    except InputError as error:
        raise InputError([*error.problems, *problems]) from error
    if problems:
        raise InputError(problems)
    written = write_focus(result, file, version)
    print(f"FOCUS {version}  {file}  {written.rows:,} rows{'' if written.rows else ': the run was charged nothing'}")
    if written.commitments_file:
        print(f"FOCUS {version}  {written.commitments_file}  {written.commitments:,} commitments")
    return 0


@dataclass(frozen=True)
class Shown:
    """One answer in its three forms: parts for a terminal, a document for JSON, records for CSV."""

    parts: Sequence[Any]
    document: Any
    records: Sequence[dict[str, Any]]


def _check(arguments: argparse.Namespace) -> None:
    """Refuse options that contradict each other, all at once."""
    problems = Problems()
    if arguments.top is not None:
        problems.check(arguments.top >= 1, "--top", arguments.top, "is no number of rows", "1 or more")
        problems.check(arguments.by is not None, "--top", arguments.top, "is of the rows of a pivot", "with --by")
    views = ("by", "across", "per", "query", "why", "against", "top", "csv")
    more = [f"--{name}" for name in views if getattr(arguments, name) is not None] + ["--json"] * arguments.json
    alone = arguments.focus is None or not more
    problems.check(alone, "--focus", arguments.focus or "", "comes alone", f"without {', '.join(more)}")
    version = arguments.focus_version
    problems.check(
        arguments.focus is not None or version is None, "--focus-version", version or "", "is of a file", "with --focus FILE"
    )
    asked = any(value is not None for value in (arguments.by, arguments.per, arguments.why, arguments.query))
    message = "is no view of the invoice, which is in cash; FOCUS files have both"
    problems.check(asked or not arguments.amortised, "--amortised", True, message, "with --by, --per, --why or --query")
    problems.check(not (arguments.json and arguments.csv), "--csv", arguments.csv or "", "comes alone", "--json or --csv")
    problems.check(arguments.by is not None or not arguments.across, "--across", arguments.across or "", "needs rows", "with --by")
    beside = [option for option in ("per", "by", "across", "top") if getattr(arguments, option) is not None]
    for option, others in (("why", [*(["query"] if arguments.query else []), *beside]), ("query", beside)):
        asked = getattr(arguments, option)
        without = ", ".join(f"--{other}" for other in others)
        problems.check(asked is None or not others, f"--{option}", asked or "", "is a question of its own", f"without {without}")
    problems.check(arguments.why is not None or not arguments.against, "--against", arguments.against or "", "needs --why")
    columns = arguments.across or arguments.top
    problems.check(
        arguments.per is None or not columns, "--per", arguments.per or "", "has its own columns and rows", "with --by alone"
    )
    problems.raise_if_any()


def _asked_for(result: RunResult, arguments: argparse.Namespace) -> Shown:
    if arguments.why is not None:
        return _why(result, arguments.why, arguments.against)
    if arguments.query is not None:
        return _query(result, arguments.query)
    if arguments.per is not None:
        return _unit_costs(result, _words(arguments.per), _words(arguments.by or "service"))
    if arguments.by is not None:
        return _pivot(result, _words(arguments.by), arguments.across or "", arguments.top)
    return _invoice(result)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _invoice(result: RunResult) -> Shown:
    from sim.report.terminal import confidence_line, invoice_table, money_table
    from sim.results.invoice import invoice
    from sim.results.rounding import exact_usd

    lines = invoice(result)
    total = sum(line.amount_nano for line in lines)
    rows = [asdict(line) for line in lines]
    amortised = int(result.sql("SELECT coalesce(sum(effective_nano_usd), 0) AS amount FROM ledger")["amount"][0])
    spread = [] if amortised == total else [f"amortised  {usd(amortised)} USD: payments up front by the hours they are for"]
    return Shown(
        [
            invoice_table(lines, _zone(result)),
            money_table(result),
            *spread,
            confidence_line(result),
        ],
        {
            "rows": rows,
            "nano_usd": total,
            "usd": total / NANO_PER_USD,
            "amortised_nano_usd": amortised,
            "assumed_share": result.summary["bill"]["assumed_share"],
        },
        [{**{key: row[key] for key in row if key != "amount_nano"}, "usd": exact_usd(row["amount_nano"])} for row in rows],
    )


def _pivot(result: RunResult, by: list[str], across: str, top: int | None) -> Shown:
    from sim.report.bill import pivot_table
    from sim.results.pivot import pivot

    found = pivot(result, by, across)
    return Shown([pivot_table(found, _zone(result), top)], found.to_dict(), found.records())


def _unit_costs(result: RunResult, units: list[str], by: list[str]) -> Shown:
    from sim.report.bill import UNITS, unit_cost_tables
    from sim.results.unit_costs import unit_costs

    problems = Problems()
    problems.check(bool(units), "--per", "", "names no unit", choices=UNITS)
    for unit in units:
        problems.check(unit in UNITS, "--per", unit, "is not a unit of work", choices=UNITS)
    try:
        found = unit_costs(result, by)
    except InputError as error:
        raise InputError([*problems.found, *error.problems]) from error
    problems.raise_if_any()
    rows = [unit.to_dict(by) for unit in found]
    flat = [{key: value for key, value in row.items() if not isinstance(value, dict)} for row in rows]
    return Shown(unit_cost_tables(found, by, units), {"by": by, "rows": rows}, flat)


def _why(result: RunResult, month: str, against: str | None) -> Shown:
    from rich.text import Text

    from sim.report.bill import why_sentence, why_table
    from sim.results.why import why_month

    found = why_month(result, month, against)
    sentence = why_sentence(found)
    return Shown([Text(sentence), why_table(found)], {"sentence": sentence, **found.to_dict()}, found.records())


def show_why(sides: Sequence[Replications], console: Console) -> None:
    """Print why each other run was dearer than the first; of replications, the first one that both have.

    Parameters
    ----------
    sides : at least two, A, B, ...; single runs are replications of which there is one.
    """
    from sim.app.replications_view import LETTERS
    from sim.report.bill import why_sentence, why_table
    from sim.results.why import why_run

    first = sides[0]
    for letter, other in zip(LETTERS[1:], sides[1:], strict=False):
        common = sorted(set(first.numbers) & set(other.numbers))
        numbers = (common[0], common[0]) if common else (first.numbers[0], other.numbers[0])
        console.print()
        found = why_run(first.run(numbers[0]), other.run(numbers[1]), ("A", letter))
        console.print(why_sentence(found), markup=False, highlight=False)
        console.print()
        console.print(why_table(found))


def _query(result: RunResult, name: str) -> Shown:
    from sim.report.bill import query_table
    from sim.results.queries import answer

    rows = answer(result, name)
    return Shown([query_table(name, rows)], {"query": name, "rows": rows}, rows)


def _zone(result: RunResult) -> str:
    return str(result.manifest["scenario"]["account"]["timezone"])


def _write_csv(records: Sequence[dict[str, Any]], sink: TextIO) -> None:
    writer = csv.DictWriter(sink, list(records[0]) if records else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)


def _write_file(records: Sequence[dict[str, Any]], name: str) -> None:
    """Write a CSV file whole or not at all."""
    file = Path(name)
    partial = file.with_name(f".{file.name}.partial-{os.getpid()}")
    try:
        with partial.open("w", encoding="utf-8", newline="") as sink:
            _write_csv(records, sink)
        partial.replace(file)
    except (OSError, ValueError) as error:
        raise InputError([Problem("--csv", name, f"cannot be written: {error}", "a file in a folder that is there")]) from error
    finally:
        partial.unlink(missing_ok=True)
