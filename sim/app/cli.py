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
from sim.app.bill import bill, declare_bill, show_why
from sim.app.commit import commit, declare_commit
from sim.errors import BillcastError, InputError, Problem, nearest_name
from sim.interrupts import stoppable

if TYPE_CHECKING:
    from pathlib import Path

    from sim.app.conf import Reading
    from sim.scenario import Scenario

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


def _declare_scenario(parser: argparse.ArgumentParser) -> None:
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


def _checked(arguments: Arguments) -> Reading:
    """Read the scenario and check it, with the problems of both together."""
    from sim.app.conf import checked, scenario_reader
    from sim.studies.plugins import load_plugins

    load_plugins(arguments.plugin)
    with scenario_reader(arguments.config_dir) as read:
        return checked(read, arguments.settings)


def _declare_run(parser: argparse.ArgumentParser) -> None:
    _declare_scenario(parser)
    parser.add_argument("-m", "--multirun", action="store_true", help="several values of a key are several runs, as in `sweep`")


def _run(arguments: Arguments) -> int:
    if arguments.multirun:
        return _sweep(arguments)
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


def _declare_sweep(parser: argparse.ArgumentParser) -> None:
    _declare_scenario(parser)
    parser.epilog = (
        "key=a,b,c runs once for each value, several keys for every combination. out=DIR names the folder. "
        "hydra/launcher=joblib hydra.launcher.n_jobs=2 runs two at a time."
    )


def _sweep(arguments: Arguments) -> int:
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


def _declare_init(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words",
        nargs="*",
        metavar="FILE | key=value",
        help="the file, scenario/NAME.yaml or just NAME (default: my_service), and what is known: model, instance, rate_per_s, "
        "ttft_s, tpot_s, e2e_s, attainment, region, weight_dtype, engine, horizon",
    )
    parser.add_argument("--force", action="store_true", help="replace a file that is there")


def _init(arguments: Arguments) -> int:
    from sim.app.init import init_file, read_init, sized, write_new
    from sim.app.init_text import scenario_text

    names = [word for word in arguments.words if "=" not in word]
    if len(names) > 1:
        raise InputError([Problem("FILE", " ".join(names), "names several files", "one file, and key=value settings")])
    file = init_file(names[0] if names else "my_service")
    wanted = read_init([word for word in arguments.words if "=" in word])
    found = sized(wanted, file.stem)
    write_new(file, scenario_text(found, wanted), force=arguments.force)
    deployment, [fleet] = found.scenario.deployments["main"], found.report.fleets
    print(f"wrote {file}: {fleet.most_replicas} x {deployment.model} on {wanted.instance}, {found.usd_per_hour:,.2f} USD/h")
    print(f"  billcast run --config-dir {file.parent.parent} scenario={file.stem}")
    return OK


def _declare_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="a folder written by `run` or `sweep`")


def _collect(arguments: Arguments) -> int:
    from pathlib import Path

    from rich.console import Console

    from sim.app.sweep import all_ok
    from sim.app.sweep_view import show_sweep
    from sim.studies.collect import collect

    collected = collect(Path(arguments.folder))
    show_sweep(collected, Console())
    return OK if all_ok(collected) else FAILED


def _declare_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folders", nargs="+", metavar="DIR", help="result folders, of single runs or of replications; the first is A"
    )
    parser.add_argument("--why", action="store_true", help="print why the bills differ, too: terms that add up to the difference")


def _compare(arguments: Arguments) -> int:
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


def _report(arguments: Arguments) -> int:
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


def _declare_trace(parser: argparse.ArgumentParser) -> None:
    _declare_folder(parser)
    parser.add_argument("--request", type=int, metavar="N", help="a request by its number, from 0 in order of arrival")
    parser.add_argument("--service", metavar="NAME", help="whose request, where services do not share replicas")
    parser.add_argument("--replica", type=int, metavar="R", help="a replica by its number")
    parser.add_argument("--from", dest="from_time", metavar="T", help="of a replica: a duration since the start, or an instant")
    parser.add_argument("--until", dest="until_time", metavar="T", help="likewise; by default its whole life")
    parser.add_argument("--chrome", metavar="FILE", help="write Chrome-trace JSON too, for ui.perfetto.dev")
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="FILE.py", help="the plug-ins of the run; they are code, and they are run"
    )


def _trace(arguments: Arguments) -> int:
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


def _declare_slo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="a folder written by `run`")
    parser.add_argument("--by", choices=("month", "week"), default="month", help="of the time zone of each service")
    parser.add_argument("--json", action="store_true", help="the same as JSON, for other programs")


def _slo(arguments: Arguments) -> int:
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


def _validate(arguments: Arguments) -> int:
    from rich.console import Console

    scenario = _checked(arguments).scenario
    from sim.app.sheet import capacity_report
    from sim.app.sheet_view import show_report

    show_report(capacity_report(scenario), Console())
    return OK


def _declare_explain(parser: argparse.ArgumentParser) -> None:
    _declare_scenario(parser)
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


def _explain(arguments: Arguments) -> int:
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


def _declare_training(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="key=value",
        help="model, tokens (15T, 300B), instance, accelerators; tensor_parallel, pipeline_parallel, expert_parallel, zero; "
        "recipe (bf16, bf16_fp32_gradients, fp8, fp32), recompute (none, selective, full), sequence_parallel, micro_batch, "
        "sequence_tokens, lora_rank, global_batch_tokens; instead of the catalog's: mfu, goodput, chip_mtbf_h, restart_s, "
        "checkpoint_gb_per_s, checkpoint_interval_s, region, price_usd_per_hour, pue, gco2_per_kwh, catalog",
    )
    parser.add_argument("--elsewhere", action="store_true", help="the same job on the other accelerators of the catalog, too")
    parser.add_argument("--json", action="store_true", help="the same as JSON, for other programs")


def _training(arguments: Arguments) -> int:
    from sim.app.training import elsewhere, plan, read_job
    from sim.errors import Problems

    problems = Problems()
    found = plan(read_job(arguments.settings, problems), problems)
    others = elsewhere(found) if arguments.elsewhere else []
    if arguments.json:
        import json

        print(json.dumps(found.to_dict() | {"elsewhere": [each.to_dict() for each in others]}, indent=2, allow_nan=False))
        return OK
    from rich.console import Console

    from sim.app.training_view import WIDTH, show_plan

    console = Console()
    show_plan(found, others, console if console.is_terminal else Console(width=WIDTH))
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
    parser.add_argument(
        "what", nargs="?", help="accelerators, instances, models, engines, policies, ...; without it: what there is"
    )
    parser.add_argument("name", nargs="?", help="one row in full, with its sources; or part of a name: the rows that have it")
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="FILE.py", help="list what a plug-in registers, too; it is run"
    )
    parser.add_argument("--overlay", metavar="FILE.yaml", help="your own catalog file, merged over the package's and marked")
    parser.add_argument("--json", action="store_true", help="the same as JSON, for other programs")


def _catalog(arguments: Arguments) -> int:
    from rich.console import Console

    from sim.app.catalog_view import catalog_json, show_catalog
    from sim.studies.plugins import load_plugins

    load_plugins(arguments.plugin)
    if arguments.json:
        import json

        print(json.dumps(catalog_json(arguments.what, arguments.name, arguments.overlay), indent=2, allow_nan=False))
        return OK
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
    "run": Command("simulate a scenario: invoice, SLOs, result folder", _declare_run, _run),
    "sweep": Command("simulate every combination of key=a,b,c and collect one table", _declare_sweep, _sweep),
    "collect": Command("write and print the table of a sweep again", _declare_folder, _collect),
    "compare": Command("show how runs or replications differ, with intervals where there are any", _declare_compare, _compare),
    "report": Command("print a run's report again, and write its figures and page", _declare_folder, _report),
    "bill": Command("show the invoice of a run, its bill by any keys, unit costs, why a month is dearer", declare_bill, bill),
    "commit": Command("choose reserved machines and Savings Plans for a run, and what they would save", declare_commit, commit),
    "slo": Command("show a run by month or week: SLOs, error budgets, cost, alerts, causes", _declare_slo, _slo),
    "trace": Command("replay one request or one replica of a run and show its timeline", _declare_trace, _trace),
    "validate": Command("check a scenario and print its capacity sheet, without simulating", _declare_scenario, _validate),
    "explain": Command("show what each optimization would change: bytes, tokens/s, USD, accuracy", _declare_explain, _explain),
    "init": Command("write a first scenario from model, machine, traffic and targets", _declare_init, _init),
    "training": Command("size a training job: memory, time, bill, energy, with their bounds", _declare_training, _training),
    "show": Command("show the resolved scenario: value, unit, source, and the catalog numbers behind it", _declare_show, _show),
    "catalog": Command("show what is known of accelerators, instances, models, engines, prices", _declare_catalog, _catalog),
    "doctor": Command("check this installation", _declare_doctor, _doctor),
}


if __name__ == "__main__":
    sys.exit(main())
