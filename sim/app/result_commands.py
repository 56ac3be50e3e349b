"""Commands that read the folder of a run or a sweep: `collect`, `compare`, `report`, `slo`, `trace`."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from sim.app.bill import show_why
from sim.app.command import FAILED, OK, Arguments
from sim.errors import InputError, Problem

if TYPE_CHECKING:
    from pathlib import Path


def declare_folder(parser: argparse.ArgumentParser) -> None:
    """Declare the argument of a command that reads a folder."""
    parser.add_argument("folder", metavar="DIR", help="a folder written by `run` or `sweep`")


def collect(arguments: Arguments) -> int:
    """Write and print the table of a sweep again."""
    from pathlib import Path

    from rich.console import Console

    from sim.app.sweep import all_ok
    from sim.app.sweep_view import show_sweep
    from sim.studies.collect import collect

    collected = collect(Path(arguments.folder))
    show_sweep(collected, Console())
    return OK if all_ok(collected) else FAILED


def declare_compare(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument(
        "folders", nargs="+", metavar="DIR", help="result folders, of single runs or of replications; the first is A"
    )
    parser.add_argument("--why", action="store_true", help="print why the bills differ, too: terms that add up to the difference")


def compare(arguments: Arguments) -> int:
    """Print how runs or replications differ."""
    from rich.console import Console

    from sim.app.replications_view import MOST_SIDES, show_comparison
    from sim.results.replications import open_either

    count = len(arguments.folders)
    if not 2 <= count <= MOST_SIDES:
        raise InputError([Problem("DIR", " ".join(arguments.folders), f"{count} cannot be compared", f"2 to {MOST_SIDES} folders")])
    sides, console = [open_either(folder) for folder in arguments.folders], Console()
    show_comparison(sides, console)
    if arguments.why:
        show_why(sides, console)
    return OK


def report(arguments: Arguments) -> int:
    """Print a report again and write its page."""
    from pathlib import Path

    from rich.console import Console

    from sim.app.replications_view import show_replications
    from sim.report.terminal import render
    from sim.results.records import open_run
    from sim.results.replications import is_replications, open_replications
    from sim.studies.jobs import OK as DONE
    from sim.studies.jobs import is_sweep, read_plan, read_status

    folder, console = Path(arguments.folder), Console()
    if not is_sweep(folder):
        if is_replications(folder):
            show_replications(open_replications(folder), console)
        else:
            render(open_run(folder), console)
        for page in _write_pages(folder):
            console.print(f"report  {page}", highlight=False, markup=False, soft_wrap=True)
        return OK
    for job in read_plan(folder).jobs:
        status = read_status(folder, job)
        pages = _write_pages(folder / job.folder) if status["status"] == DONE else [status["status"]]
        for page in pages:
            console.print(f"job {job.number}  {page}", highlight=False, markup=False, soft_wrap=True)
    return OK


def _write_pages(folder: Path) -> list[Path]:
    """Write the page of a run, or of each of its replications."""
    from sim.report.html import write_report
    from sim.results.replications import open_either

    found = open_either(folder)
    return [write_report(found.run(number)) for number in found.numbers]


def declare_slo(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument("folder", metavar="DIR", help="a folder written by `run`")
    parser.add_argument("--by", choices=("month", "week"), default="month", help="of the time zone of each service")
    parser.add_argument("--json", action="store_true", help="the same as JSON, for other programs")


def slo(arguments: Arguments) -> int:
    """Print service levels by month or week."""
    from sim.results.records import open_run

    result = open_run(arguments.folder)
    if arguments.json:
        import json

        from sim.results.service_levels import service_levels

        print(json.dumps(service_levels(result, arguments.by), indent=2, allow_nan=False))
        return OK
    from rich.console import Console

    from sim.report.periods import period_tables, reliability_tables

    console = Console()
    for number, table in enumerate((*period_tables(result, arguments.by), *reliability_tables(result))):
        if number:
            console.print()
        console.print(table)
    return OK


def declare_trace(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    declare_folder(parser)
    parser.add_argument("--request", type=int, metavar="N", help="a request by its number, from 0 in order of arrival")
    parser.add_argument("--service", metavar="NAME", help="whose request, where services do not share replicas")
    parser.add_argument("--replica", type=int, metavar="R", help="a replica by its number")
    parser.add_argument("--from", dest="from_time", metavar="T", help="of a replica: a duration since the start, or an instant")
    parser.add_argument("--until", dest="until_time", metavar="T", help="likewise; by default its whole life")
    parser.add_argument("--chrome", metavar="FILE", help="write Chrome-trace JSON too, for ui.perfetto.dev")
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="FILE.py", help="the plug-ins of the run; they are code, and they are run"
    )


def trace(arguments: Arguments) -> int:
    """Print the timeline of a request or a replica."""
    from pathlib import Path

    from rich.console import Console

    from sim.app.progress import ProgressLine
    from sim.app.trace import Wish, check_wish, trace, write_chrome
    from sim.results.records import open_run
    from sim.studies.plugins import load_plugins
    from sim.units import instant

    wish = Wish(**{name: getattr(arguments, name) for name in Wish.__dataclass_fields__})
    check_wish(wish)
    load_plugins(arguments.plugin)
    result = open_run(arguments.folder)
    with ProgressLine(instant(result.manifest["scenario"]["start"]), sys.stderr) as line:
        traced = trace(result, wish, line.update)
    console = Console()
    traced.show(console)
    if wish.chrome is not None:
        write_chrome(traced.chrome, Path(wish.chrome))
        console.print(f"chrome trace  {wish.chrome}", highlight=False, markup=False, soft_wrap=True)
    return OK
