"""Commands that ask the catalog, before there is a scenario: `catalog`, `init`, `training`, `doctor`."""

from __future__ import annotations

import argparse

from sim.app.command import FAILED, OK, Arguments
from sim.errors import InputError, Problem


def declare_catalog(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument(
        "what", nargs="?", help="accelerators, instances, models, engines, policies, ...; without it: what there is"
    )
    parser.add_argument("name", nargs="?", help="one row in full, with its sources; or part of a name: the rows that have it")
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="FILE.py", help="list what a plug-in registers, too; it is run"
    )
    parser.add_argument("--overlay", metavar="FILE.yaml", help="your own catalog file, merged over the package's and marked")
    parser.add_argument("--json", action="store_true", help="the same as JSON, for other programs")


def catalog(arguments: Arguments) -> int:
    """Print rows of the catalog."""
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


def declare_init(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument(
        "words",
        nargs="*",
        metavar="FILE | key=value",
        help="the file, scenario/NAME.yaml or just NAME (default: my_service), and what is known: model, instance, rate_per_s, "
        "ttft_s, tpot_s, e2e_s, attainment, region, weight_dtype, engine, horizon",
    )
    parser.add_argument("--force", action="store_true", help="replace a file that is there")


def init(arguments: Arguments) -> int:
    """Write a first scenario."""
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


def declare_training(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
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


def training(arguments: Arguments) -> int:
    """Print the plan of a training job."""
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


def declare_doctor(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.epilog = "Exits with 1 when something would keep billcast from working, and says what to do about it."


def doctor(arguments: Arguments) -> int:
    """Print what was found of this installation; 1 where something is missing."""
    from rich.console import Console

    from sim.app.doctor import examine, show_findings

    findings = examine()
    show_findings(findings, Console())
    return OK if all(finding.fine for finding in findings) else FAILED
