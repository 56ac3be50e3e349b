"""The command line: `billcast run | validate | catalog | doctor`.

Nothing heavy is imported before a command needs it, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sim import __version__
from sim.errors import BillcastError, InputError, Problem, nearest_name

if TYPE_CHECKING:
    from sim.app.conf import Reading

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

Arguments = argparse.Namespace


@dataclass(frozen=True)
class Command:
    """One subcommand: a line for the overview, how its arguments are declared, and what it does."""

    summary: str
    declare: Callable[[argparse.ArgumentParser], None]
    act: Callable[[Arguments], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 1 for a failed run, 2 for bad input, 130 after Ctrl-C.

    Examples
    --------
    >>> main(["--version"])
    billcast 0.1.0
    0
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return OK if words else BAD_INPUT
    if words[0] in ("-V", "--version"):
        print(f"billcast {__version__}")
        return OK
    if words[0] not in COMMANDS:
        return _unknown_command(words[0])
    command = COMMANDS[words[0]]
    parser = argparse.ArgumentParser(prog=f"billcast {words[0]}", description=command.summary, allow_abbrev=False)
    command.declare(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    arguments = parser.parse_intermixed_args(words[1:])
    return _guarded(command, arguments)


def _overview() -> str:
    rows = "\n".join(f"  {name:<10} {command.summary}" for name, command in COMMANDS.items())
    return (
        "usage: billcast COMMAND [ARGUMENTS]\n\n"
        "Simulates every request of ML serving fleets and prints the bill and the SLOs.\n\n"
        f"commands:\n{rows}\n\n"
        "  billcast COMMAND --help      what a command takes\n"
        "  billcast --version           the version\n\n"
        "first steps:\n"
        "  billcast run\n"
        "  billcast run scenario=quickstart horizon=2h autoscaler=static replicas=3\n"
        "  billcast validate scenario=peer_w3"
    )


def _unknown_command(word: str) -> int:
    near = nearest_name(word, COMMANDS)
    hint = f"; did you mean {near!r}?" if near else ""
    print(f"billcast: there is no command {_shown(word)}{hint}\ncommands: {', '.join(COMMANDS)}", file=sys.stderr)
    return BAD_INPUT


def _guarded(command: Command, arguments: Arguments) -> int:
    """Run a command; an error is a message and an exit code, with `--debug` also a traceback."""
    try:
        status = command.act(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("\nbillcast: stopped; no result was written", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Who read the output is gone; without this Python would complain again when it closes the pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except InputError as error:
        _raise_if_debugging(arguments)
        _show_problems(error.problems)
        return BAD_INPUT
    except BillcastError as error:
        _raise_if_debugging(arguments)
        print(f"billcast: the run failed: {error}", file=sys.stderr)
        return FAILED
    except Exception as error:  # the last resort: a bug is a message too
        _raise_if_debugging(arguments)
        print(f"billcast: failed: {type(error).__name__}: {error}\n  --debug shows where", file=sys.stderr)
        return FAILED
    return status


def _raise_if_debugging(arguments: Arguments) -> None:
    if arguments.debug:
        raise  # noqa: PLE0704  (called inside an except clause)


def _shown(text: object) -> str:
    """Return a text in quotes with everything that could move a terminal's cursor escaped."""
    return repr(str(text))


def _show_problems(problems: Sequence[Problem]) -> None:
    import textwrap

    count = len(problems)
    lines = [f"billcast: {count} problem{'s' if count > 1 else ''}"]
    for problem in problems:
        path = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in problem.path)
        details = [problem.message]
        if problem.allowed:
            details.append(f"allowed: {problem.allowed}")
        if problem.nearest:
            details.append(f"did you mean {problem.nearest!r}?")
        lines.append(f"  {path} = {problem.value!r}" if problem.value != "" else f"  {path}")
        for detail in details:
            lines += textwrap.wrap(detail, 96, initial_indent="    ", subsequent_indent="      ", break_on_hyphens=False)
    print("\n".join(lines), file=sys.stderr)


def _declare_scenario(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="key=value",
        help="scenario=NAME (default: quickstart) and settings; a short key means the one place it fits, for instance replicas=3",
    )
    parser.add_argument("--config-dir", metavar="DIR", help="a folder with configs of your own, searched first")
    parser.add_argument("--plugin", action="append", default=[], metavar="FILE.py", help="a file that registers choices; it is run")


def _checked(arguments: Arguments) -> Reading:
    """Read the scenario and check it, with the problems of both together."""
    from sim.app.conf import checked, scenario_reader
    from sim.app.plugins import load_plugins

    load_plugins(arguments.plugin)
    with scenario_reader(arguments.config_dir) as read:
        return checked(read, arguments.settings)


def _run(arguments: Arguments) -> int:
    from rich.console import Console

    scenario = _checked(arguments).scenario
    from sim.app.progress import ProgressLine
    from sim.report.terminal import render
    from sim.studies.runner import simulate

    with ProgressLine(scenario.start_instant, sys.stderr) as line:
        result = simulate(scenario, progress=line.update)
    render(result, Console())
    return OK


def _validate(arguments: Arguments) -> int:
    from rich.console import Console

    scenario = _checked(arguments).scenario
    from sim.app.sheet import capacity_report
    from sim.app.sheet_view import show_report

    show_report(capacity_report(scenario), Console())
    return OK


def _declare_show(parser: argparse.ArgumentParser) -> None:
    _declare_scenario(parser)
    parser.add_argument("--changed", action="store_true", help="only what differs from the defaults, without catalog numbers")


def _show(arguments: Arguments) -> int:
    from rich.console import Console

    reading = _checked(arguments)
    from sim.app.show import settings
    from sim.app.show_catalog import numbers
    from sim.app.show_view import show_scenario
    from sim.scenario.resolve import resolve

    rows = [row for row in settings(reading.scenario, reading.sources) if row.changed or not arguments.changed]
    found = [] if arguments.changed else numbers(resolve(reading.scenario))
    show_scenario(reading.scenario.name, rows, found, Console())
    return OK


def _declare_catalog(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", nargs="?", help="accelerators, instances, models, engines, ...; without it: what there is")
    parser.add_argument("name", nargs="?", help="one row with all its fields, source, date and confidence")
    parser.add_argument("--overlay", metavar="FILE.yaml", help="your own catalog file, merged over the package's")


def _catalog(arguments: Arguments) -> int:
    from rich.console import Console

    from sim.app.catalog_view import show_catalog

    show_catalog(arguments.what, arguments.name, arguments.overlay, Console())
    return OK


def _declare_doctor(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Exits with 1 when something would keep billcast from working, and says what to do about it."


def _doctor(arguments: Arguments) -> int:
    from rich.console import Console

    from sim.app.doctor import examine, show_findings

    findings = examine()
    show_findings(findings, Console())
    return OK if all(finding.fine for finding in findings) else FAILED


COMMANDS = {
    "run": Command("simulate a scenario: invoice, SLOs, result folder", _declare_scenario, _run),
    "validate": Command("check a scenario and print its capacity sheet, without simulating", _declare_scenario, _validate),
    "show": Command("show the resolved scenario: value, unit, source, and the catalog numbers behind it", _declare_show, _show),
    "catalog": Command("show what is known of accelerators, instances, models, engines, prices", _declare_catalog, _catalog),
    "doctor": Command("check this installation", _declare_doctor, _doctor),
}


if __name__ == "__main__":
    sys.exit(main())
