"""The command line: its commands, and what an error prints.

Nothing heavy is imported before a command needs it, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from sim import __version__
from sim.app.bill import bill, declare_bill
from sim.app.catalog_commands import (
    catalog,
    declare_catalog,
    declare_doctor,
    declare_init,
    declare_training,
    doctor,
    init,
    training,
)
from sim.app.command import BAD_INPUT, FAILED, INTERRUPTED, OK, Arguments, Command
from sim.app.commit import commit, declare_commit
from sim.app.price import declare_price, price
from sim.app.result_commands import (
    collect,
    compare,
    declare_compare,
    declare_folder,
    declare_slo,
    declare_trace,
    report,
    slo,
    trace,
)
from sim.app.scenario_commands import (
    declare_explain,
    declare_run,
    declare_scenario,
    declare_show,
    declare_sweep,
    explain,
    run,
    show,
    sweep,
    validate,
)
from sim.errors import BillcastError, InputError, Problem, nearest_name
from sim.interrupts import stoppable


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
        with stoppable():
            status = command.act(arguments)
            sys.stdout.flush()
    except KeyboardInterrupt:
        print("\nbillcast: stopped; nothing half-written is left", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if arguments.debug and not isinstance(error, BrokenPipeError):
            raise
        return _failure(error)
    return status


def _failure(error: Exception) -> int:
    """Say what went wrong and return the exit code."""
    if isinstance(error, BrokenPipeError):
        # Who read the output is gone; without this Python would complain again when it closes the pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    elif isinstance(error, InputError):
        _show_problems(error.problems)
        return BAD_INPUT
    elif isinstance(error, BillcastError):
        print(f"billcast: the run failed: {error}", file=sys.stderr)
    else:  # the last resort: a bug is a message too
        print(f"billcast: failed: {type(error).__name__}: {error}\n  --debug shows where", file=sys.stderr)
    return FAILED


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


COMMANDS = {
    "run": Command("simulate a scenario: invoice, SLOs, result folder", declare_run, run),
    "sweep": Command("simulate every combination of key=a,b,c and collect one table", declare_sweep, sweep),
    "collect": Command("write and print the table of a sweep again", declare_folder, collect),
    "compare": Command("show how runs or replications differ, with intervals where there are any", declare_compare, compare),
    "report": Command("print a run's report again, and write its figures and page", declare_folder, report),
    "bill": Command("show the invoice of a run, its bill by any keys, unit costs, why a month is dearer", declare_bill, bill),
    "commit": Command("choose reserved machines and Savings Plans for a run, and what they would save", declare_commit, commit),
    "price": Command("price machine lives that are given, without simulating: every rule, source and cent", declare_price, price),
    "slo": Command("show a run by month or week: SLOs, error budgets, cost, alerts, causes", declare_slo, slo),
    "trace": Command("replay one request or one replica of a run and show its timeline", declare_trace, trace),
    "validate": Command("check a scenario and print its capacity sheet, without simulating", declare_scenario, validate),
    "explain": Command("show what each optimization would change: bytes, tokens/s, USD, accuracy", declare_explain, explain),
    "init": Command("write a first scenario from model, machine, traffic and targets", declare_init, init),
    "training": Command("size a training job: memory, time, bill, energy, with their bounds", declare_training, training),
    "show": Command("show the resolved scenario: value, unit, source, and the catalog numbers behind it", declare_show, show),
    "catalog": Command("show what is known of accelerators, instances, models, engines, prices", declare_catalog, catalog),
    "doctor": Command("check this installation", declare_doctor, doctor),
}


if __name__ == "__main__":
    sys.exit(main())
