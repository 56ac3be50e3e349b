"""A training job on a terminal: memory, time, bill and energy with low, middle and high, and where they come from."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sim.app.training import Elsewhere, Plan
from sim.domain.training import Range
from sim.perf.goodput import HOUR_S
from sim.units import seconds_text

WIDTH = 100
_HOURS_PER_DAY = 24


def show_plan(plan: Plan, others: Sequence[Elsewhere], console: Console) -> None:
    """Print a job.

    Parameters
    ----------
    others : the same job on other accelerators; empty to leave them out.
    """
    job, setup = plan.job, plan.setup
    what = f"{plan.model.name}, {_count(job.tokens)} tokens" + (f", adapters of rank {setup.lora_rank}" if setup.lora_rank else "")
    where = f"{setup.accelerators:,} x {plan.accelerator.name}: {plan.nodes:,} x {plan.instance.name} in {plan.grid.name}"
    _print(f"{what}, on {where}", console)
    split = f"data {setup.data_parallel:,} x tensor {setup.tensor_parallel} x pipeline {setup.pipeline_parallel}"
    experts = f", experts over {setup.expert_parallel}" if setup.expert_parallel > 1 else ""
    settings = f"ZeRO {setup.zero}, {setup.recipe}, recompute {setup.recompute}"
    batch = f"{setup.micro_batch} x {setup.sequence_tokens:,} tokens at once"
    _print(f"{split}{experts}; {settings}; {batch}", console)
    console.print(_memory(plan))
    if plan.remedies:
        _print(f"would fit with: {' or '.join(plan.remedies)}", console)
    elif not plan.memory.fits:
        _print("no change of a setting that is known here would make it fit", console)
    console.print(_time(plan))
    for line in _notes(plan):
        _print(line, console)
    if others:
        console.print(_elsewhere(others))


def _print(text: str, console: Console) -> None:
    for line in textwrap.wrap(text, WIDTH - 4, subsequent_indent="  ", break_on_hyphens=False):
        console.print(escape(line), highlight=False, soft_wrap=True)


def _count(value: float) -> str:
    for size, name in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if value >= size:
            return f"{value / size:.4g}{name}"
    return f"{value:,.0f}"


def _memory(plan: Plan) -> Table:
    memory = plan.memory
    table = Table(title="memory of one accelerator", title_justify="left", box=box.SIMPLE)
    table.add_column("item")
    table.add_column("GB", justify="right")
    for name, size in (
        ("weights", memory.weight_bytes),
        ("gradients", memory.gradient_bytes),
        ("optimizer", memory.optimizer_bytes),
        ("layers put together (ZeRO 3)", memory.gathered_bytes),
        ("activations", memory.activation_bytes),
        ("runtime", memory.reserve_bytes),
    ):
        if size:
            table.add_row(name, f"{size / 1e9:,.2f}")
    table.add_row("in all", f"{memory.total_bytes / 1e9:,.2f}")
    table.add_row(f"to be had of {plan.accelerator.name}", f"{memory.budget_bytes / 1e9:,.2f}")
    table.add_row("fits" if memory.fits else "does not fit", "")
    return table


def _time(plan: Plan) -> Table:
    time = plan.time
    table = Table(title="time, bill and energy", title_justify="left", box=box.SIMPLE)
    table.add_column("")
    for name in ("low", "middle", "high"):
        table.add_column(name, justify="right")
    _rows(table, "MFU while stepping", time.mfu, ".1%")
    _rows(table, "goodput", time.goodput, ".1%")
    _rows(table, "days", _scaled(time.hours, 1 / _HOURS_PER_DAY), ",.1f")
    for title, hours, bill in (
        ("this run", time.accelerator_hours, plan.run),
        ("all in, as model cards count", time.all_in_accelerator_hours, plan.all_in),
    ):
        table.add_section()
        table.add_row(title, "", "", "")
        _rows(table, "  accelerator-hours", hours, ",.0f")
        _rows(table, "  USD", bill.usd, ",.0f")
        _rows(table, "  MWh", _scaled(bill.kwh, 1e-3), ",.1f")
        _rows(table, "  t CO2", _scaled(bill.kgco2, 1e-3), ",.1f")
    return table


def _rows(table: Table, name: str, value: Range, form: str) -> None:
    table.add_row(name, *(format(each, form) for each in (value.low, value.mid, value.high)))


def _scaled(value: Range, factor: float) -> Range:
    return Range(value.low * factor, value.mid * factor, value.high * factor)


def _notes(plan: Plan) -> list[str]:
    time, checkpoints = plan.time, plan.time.checkpoints
    peak = f"{time.peak_flops_per_s / 1e12:,.0f} TFLOP/s"
    written = f"checkpoints of {seconds_text(checkpoints.write_s)} every {seconds_text(checkpoints.interval_s)}"
    site = f"PUE {plan.grid.pue:g}, {plan.grid.gco2_per_kwh:g} g CO2 a kWh"
    notes = [
        f"{time.flops:.3g} FLOPs for {_count(time.active_parameters)} active parameters, against a peak of {peak}",
        f"goodput: an interruption every {checkpoints.mtbf_s / HOUR_S:,.1f} h of the job, {written}",
        f"power: {plan.run.node_w.mid:,.0f} W an accelerator with its share of the server, {site}",
    ]
    if time.working < time.accelerators:
        idle = time.accelerators - time.working
        notes.append(
            f"{idle:,} accelerators have nothing to do: a batch of {_count(plan.job.global_batch_tokens)} tokens is too small"
        )
    said = time.efficiency.provenance
    label = "MFU: set; all in" if time.validity == "set" else f"MFU: {time.validity} ({time.efficiency.name})"
    notes.append(f"{label}: {said.source}; {said.date}, {said.confidence}")
    return [*notes, f"price: {plan.usd_per_hour:,.2f} USD/h a machine: {plan.price_source}"]


def _elsewhere(others: Sequence[Elsewhere]) -> Table:
    table = Table(title="the same job on other accelerators", title_justify="left", box=box.SIMPLE)
    for name in ("accelerator", "machine", "fits"):
        table.add_column(name)
    for name in ("GB", "of", "days", "USD", "MFU is"):
        table.add_column(name, justify="right")
    for each in others:
        memory, time = each.memory, each.time
        table.add_row(
            each.accelerator,
            each.instance or "-",
            "yes" if memory.fits else "no",
            f"{memory.total_bytes / 1e9:,.1f}",
            f"{memory.budget_bytes / 1e9:,.1f}",
            "-" if time is None else f"{time.hours.mid / _HOURS_PER_DAY:,.1f}",
            "-" if each.usd is None else f"{each.usd.mid:,.0f}",
            "-" if time is None else time.validity,
        )
    return table
