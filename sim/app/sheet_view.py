"""The capacity sheet on a terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sim.app.sheet import CapacityReport, FleetReport, KindReport, Load
from sim.units import seconds_text

_BOUNDS = {"seats": "max_num_seqs", "kv": "the KV cache", "tpot": "the TPOT target", "budget": "max_num_batched_tokens"}


def show_report(report: CapacityReport, console: Console) -> None:
    """Print the sheet: load by service, one replica of each deployment, cold starts, the fleet against its load, warnings."""
    console.print(f"capacity sheet of {escape(report.name)}: closed forms for mean requests, no queueing", highlight=False)
    console.print(_loads(report.loads))
    for kind in report.kinds:
        console.print(_kind(kind))
    console.print(_cold_starts(report.kinds))
    console.print(_fleets(report.fleets))
    for warning in report.warnings:
        console.print(f"[bold yellow]warning[/bold yellow] {escape(warning)}", highlight=False)
    if not report.warnings:
        console.print("no problem found", highlight=False)


def _loads(loads: dict[str, Load]) -> Table:
    table = Table(title="offered load", title_justify="left", box=box.SIMPLE)
    table.add_column("service")
    for header in ("mean/s", "peak/s", "prompt tokens", "output tokens", "clients"):
        table.add_column(header, justify="right")
    for name, load in loads.items():
        numbers = (load.mean_rate_per_s, load.peak_rate_per_s, load.prompt_tokens, load.output_tokens, load.clients)
        table.add_row(escape(name), *(_number(value) for value in numbers))
    return table


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 or isinstance(value, int) else f"{value:.4g}"


def _kind(kind: KindReport) -> Table:
    title = f"one replica of {escape(kind.deployment)} on {escape(kind.pool)}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE, show_header=False)
    table.add_row("KV cache", f"{kind.kv_tokens:,} tokens")
    sheet = kind.sheet
    if sheet is not None:
        table.add_row("largest batch", f"{sheet.largest_batch} requests of the mean size")
        table.add_row("batch at full use", f"{sheet.batch}, bound by {_BOUNDS[sheet.bound]}")
        table.add_row("sustained", f"{sheet.requests_per_s:.2f} requests/s, {sheet.output_tokens_per_s:,.0f} output tokens/s")
        table.add_row("TPOT then", seconds_text(sheet.tpot_s))
        table.add_row("prefill, idle", f"{seconds_text(sheet.prefill_s)} for a mean prompt")
        table.add_row("power then", f"{sheet.power_w:,.0f} W")
    table.add_row("price", f"{kind.usd_per_hour:,.4f} USD/h, its share of a full node")
    if kind.usd_per_1m_tokens is not None:
        table.add_row("at full use", f"{kind.usd_per_1m_tokens:,.4f} USD per 1M tokens, prompt and output")
    return table


def _cold_starts(kinds: list[KindReport]) -> Table:
    table = Table(title="cold start, seconds (p50 / p95)", title_justify="left", box=box.SIMPLE)
    table.add_column("stage")
    for kind in kinds:
        table.add_column(f"{escape(kind.deployment)} on {escape(kind.pool)}", justify="right")
    for stage in kinds[0].stages_s if kinds else ():
        table.add_row(stage, *(_times(kind.stages_s[stage]) for kind in kinds))
    table.add_row("all together", *(_times(kind.cold_start_s) for kind in kinds))
    return table


def _times(median_and_p95: tuple[float, float]) -> str:
    return f"{median_and_p95[0]:.0f} / {median_and_p95[1]:.0f}"


def _fleets(fleets: list[FleetReport]) -> Table:
    table = Table(title="fleet against its load", title_justify="left", box=box.SIMPLE)
    table.add_column("services")
    for header in ("replicas", "serves/s", "mean use", "peak use"):
        table.add_column(header, justify="right")
    for fleet in fleets:
        first, most = fleet.least_replicas, fleet.most_replicas
        replicas = str(most) if first == most else f"{first} to {most}"
        table.add_row(
            escape(", ".join(fleet.services)),
            replicas,
            _number(fleet.capacity_per_s),
            _share(fleet.mean_rate_per_s, fleet.capacity_per_s),
            _share(fleet.peak_rate_per_s, fleet.capacity_per_s),
        )
    return table


def _share(rate: float | None, capacity: float | None) -> str:
    return "-" if rate is None or not capacity else f"{100 * rate / capacity:.0f} %"
