"""Commands that read a scenario: `run`, `sweep`, `validate`, `show`, `explain`.

Nothing heavy is imported before a command needs it, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from sim.app.command import FAILED, INTERRUPTED, OK, Arguments

if TYPE_CHECKING:
    from sim.app.conf import Reading
    from sim.scenario import Scenario


def declare_scenario(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of a command that reads a scenario."""
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="key=value",
        help="scenario=NAME (default: quickstart) and settings; a short key means the one place it fits, for instance replicas=3",
    )
    parser.add_argument("--config-dir", metavar="DIR", help="a folder with configs of your own, searched first")
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="FILE.py", help="a file that registers choices; it is code, and it is run"
    )


def declare_run(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    declare_scenario(parser)
    parser.add_argument("-m", "--multirun", action="store_true", help="several values of a key are several runs, as in `sweep`")


def run(arguments: Arguments) -> int:
    """Simulate a scenario and print the report; replications and sweeps likewise."""
    if arguments.multirun:
        return sweep(arguments)
    from rich.console import Console

    scenario = _checked(arguments).scenario
    if scenario.replications > 1:
        return _replicate(scenario)
    from sim.app.progress import ProgressLine
    from sim.report.terminal import render
    from sim.studies.runner import simulate

    with ProgressLine(scenario.start_instant, sys.stderr) as line:
        result = simulate(scenario, progress=line.update)
    render(result, Console())
    return OK


def _replicate(scenario: Scenario) -> int:
    from rich.console import Console

    from sim.app.progress import CountLine
    from sim.app.replications_view import show_replications
    from sim.studies.replicate import replicate

    with CountLine(sys.stderr) as line:
        found = replicate(scenario, progress=line.update)
    show_replications(found, Console())
    return OK


def declare_sweep(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    declare_scenario(parser)
    parser.epilog = (
        "key=a,b,c runs once for each value, several keys for every combination. out=DIR names the folder. "
        "hydra/launcher=joblib hydra.launcher.n_jobs=2 runs two at a time."
    )


def sweep(arguments: Arguments) -> int:
    """Run every combination and print the table."""
    from rich.console import Console

    from sim.app.sweep import all_ok, read_sweep, run_sweep
    from sim.app.sweep_view import show_sweep
    from sim.studies.collect import collect
    from sim.studies.jobs import is_sweep
    from sim.studies.plugins import load_plugins

    load_plugins(arguments.plugin)
    sweep = read_sweep(arguments.settings, arguments.config_dir)
    try:
        collected = run_sweep(sweep, arguments.plugin)
    except KeyboardInterrupt:
        if not is_sweep(sweep.out):
            raise
        show_sweep(collect(sweep.out), Console())
        print("\nbillcast: stopped; the jobs that had finished are kept", file=sys.stderr)
        return INTERRUPTED
    show_sweep(collected, Console())
    return OK if all_ok(collected) else FAILED


def validate(arguments: Arguments) -> int:
    """Check a scenario and print its capacity sheet."""
    from rich.console import Console

    scenario = _checked(arguments).scenario
    from sim.app.sheet import capacity_report
    from sim.app.sheet_view import show_report

    show_report(capacity_report(scenario), Console())
    return OK


def declare_show(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    declare_scenario(parser)
    parser.add_argument("--changed", action="store_true", help="only what differs from the defaults, without catalog numbers")


def show(arguments: Arguments) -> int:
    """Print the resolved scenario with its sources."""
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


def declare_explain(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    declare_scenario(parser)
    parser.add_argument(
        "--try",
        dest="tried",
        action="append",
        default=[],
        metavar="NAME",
        help="an optimization in place of the standard ones, several of them joined by +, for instance fp8+kv_fp8; can be repeated",
    )
    parser.add_argument("--draft", default="", metavar="MODEL", help="that proposes tokens; ngram looks them up in the prompt")
    parser.add_argument("--proposals", type=int, default=4, metavar="K", help="tokens proposed in a step (default: 4)")
    parser.add_argument("--acceptance", type=float, default=0.7, metavar="A", help="chance that a proposal is kept (default: 0.7)")
    parser.add_argument("--student", default="", metavar="MODEL", help="the smaller model of a distillation")
    parser.add_argument("--sparsity", type=float, default=0.6, metavar="S", help="share of weights pruned (default: 0.6)")
    parser.add_argument(
        "--prefix-cache-hit", type=float, default=0.3, metavar="H", help="share of each prompt found in the cache (default: 0.3)"
    )
    parser.add_argument("--sources", action="store_true", help="print where accuracy and one-off costs come from, too")
    parser.add_argument("--json", action="store_true", help="the same as JSON, with all sources, for other programs")


def explain(arguments: Arguments) -> int:
    """Print what optimizations would change."""
    from dataclasses import fields

    from sim.app.explain import Wishes, explain

    scenario = _checked(arguments).scenario
    wishes = {item.name: getattr(arguments, item.name) for item in fields(Wishes)}
    found = explain(scenario, Wishes(**{**wishes, "tried": tuple(arguments.tried)}))
    if arguments.json:
        import json

        print(json.dumps([table.to_dict() for table in found], indent=2, allow_nan=False))
        return OK
    from rich.console import Console

    from sim.app.explain_view import WIDTH, show_explanations

    console = Console()
    show_explanations(found, arguments.sources, console if console.is_terminal else Console(width=WIDTH))
    return OK


def _checked(arguments: Arguments) -> Reading:
    """Read the scenario and check it, with the problems of both together."""
    from sim.app.conf import checked, scenario_reader
    from sim.studies.plugins import load_plugins

    load_plugins(arguments.plugin)
    with scenario_reader(arguments.config_dir) as read:
        return checked(read, arguments.settings)
