"""`billcast price`: the bill of machine lives that are given, without a simulation."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from sim.errors import InputError, Problem, Problems

if TYPE_CHECKING:
    from sim.catalog.loader import Catalog
    from sim.studies.price import PricedLives

    # A way to buy, the bill, or the problems that leave none.
    Bought = tuple[str, PricedLives | None, tuple[Problem, ...]]

MOST_SEED = 2**63 - 1


def declare_price(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument("lives", metavar="LIVES", help="a .csv or .parquet file of machine lives, or a folder written by `run`")
    parser.add_argument("--catalog", metavar="FILE.yaml", help="your own prices, merged over the package's")
    parser.add_argument("--commitments", metavar="FILE.yaml", help="rows of `commitments:` as in a scenario")
    parser.add_argument("--time-zone", metavar="ZONE", help="of the account's hours and months (default: UTC, or the run's)")
    parser.add_argument("--begins", metavar="T", help="of the billing period (default: the clock hour of the first begin)")
    parser.add_argument("--ends", metavar="T", help="of the billing period (default: the end of the hour of the last end)")
    parser.add_argument("--as", dest="as_bought", metavar="WAY,...", help="the same lives if all were bought so, side by side")
    parser.add_argument("--each", action="store_true", help="each machine: rule, quantity, unit price, amount, how sure")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of spot prices that nobody gave (default: 1)")
    parser.add_argument("--max-bad-rows", type=int, default=0, metavar="N", help="so many broken rows are skipped (default: 0)")
    parser.add_argument(
        "--out", metavar="DIR", help="write the tables of a run there: ledger, leases, ...; `billcast bill` reads them"
    )
    parser.add_argument("--focus", metavar="FILE", help="write the ledger as a FOCUS file, too: .csv or .parquet; with --out")
    parser.add_argument("--json", action="store_true", help="exact amounts as JSON, for other programs")


def price(arguments: argparse.Namespace) -> int:
    """Print what machines cost that lived as given."""
    from sim.studies.price import price_lives

    ways = _ways(arguments)
    priced = price_lives(
        arguments.lives,
        catalog=arguments.catalog,
        commitments=arguments.commitments,
        timezone=arguments.time_zone,
        begins=arguments.begins,
        ends=arguments.ends,
        seed=arguments.seed,
        max_bad_rows=arguments.max_bad_rows,
        out=arguments.out,
    )
    if arguments.focus:
        from sim.results.focus import write_focus
        from sim.results.records import open_run

        files = write_focus(open_run(arguments.out), arguments.focus)
    bills = [_bought_as(priced, way) for way in ways]
    if arguments.json:
        import json

        print(json.dumps(_document(priced, bills, each=arguments.each), indent=2, allow_nan=False))
        return 0
    from rich.console import Console

    from sim.app.price_view import WIDTH, show_alternatives, show_bill

    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    show_bill(priced, console, each=arguments.each)
    if bills:
        console.print()
        show_alternatives(priced, bills, console)
    if arguments.focus:
        for file in (arguments.focus, files.commitments_file):
            if file:
                console.print(f"FOCUS  {file}", highlight=False, markup=False, soft_wrap=True)
    return 0


def _ways(arguments: argparse.Namespace) -> list[str]:
    """Check the options that need no file, all at once; return the ways to buy that are asked for."""
    from sim.billing.life_reader import ways_to_buy

    problems = Problems()
    known = ways_to_buy(_catalog(arguments.catalog))
    ways = list(dict.fromkeys(word.strip() for word in (arguments.as_bought or "").split(",") if word.strip()))
    for way in ways:
        problems.check(way in known, "--as", way, "is not a way to buy a machine", choices=known)
    problems.check(arguments.as_bought is None or bool(ways), "--as", arguments.as_bought, "names none", ", ".join(known))
    problems.check(0 <= arguments.seed <= MOST_SEED, "--seed", arguments.seed, "is out of range", f"0 to {MOST_SEED}")
    problems.check(arguments.max_bad_rows >= 0, "--max-bad-rows", arguments.max_bad_rows, "must not be negative", ">= 0")
    problems.check(
        not arguments.focus or arguments.out is not None, "--focus", arguments.focus, "is made of the tables", "with --out"
    )
    problems.raise_if_any()
    return ways


def _catalog(overlay: str | None) -> Catalog:
    """Return the catalog; what is wrong with the overlay is told with the lives."""
    from sim.catalog.loader import load_catalog

    try:
        return load_catalog(overlay)
    except InputError:
        return load_catalog()


def _bought_as(priced: PricedLives, way: str) -> Bought:
    """Return the bill of the same lives bought in one way, or why they cannot be."""
    try:
        return way, priced.bought_as(way), ()
    except InputError as error:
        return way, None, error.problems


def _document(priced: PricedLives, bills: list[Bought], *, each: bool) -> dict[str, Any]:
    from sim.results.rounding import exact_usd

    def row(found: PricedLives) -> dict[str, Any]:
        return {"usd": exact_usd(found.amount_nano), "nano_usd": found.amount_nano, "assumed_share": found.assumed_share}

    lines = [
        {**{name: value for name, value in vars(line).items() if name != "amount_nano"}, "quantity": str(line.quantity)}
        | {"usd": exact_usd(line.amount_nano)}
        for line in priced.rules()
    ]
    return {
        "machines": len(priced.lives),
        "begins": priced.begins.isoformat(),
        "ends": priced.ends.isoformat(),
        "time_zone": priced.terms.account.timezone,
        "skipped_rows": priced.bad_rows,
        **row(priced),
        **({"rules": lines} if each else {}),
        "as": {
            way: row(found) if found is not None else {"problems": [str(problem) for problem in problems]}
            for way, found, problems in bills
        },
    }
