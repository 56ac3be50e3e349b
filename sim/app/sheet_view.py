"""The capacity sheet on a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sim.app.sheet import CapacityReport, DeploymentReport, FleetReport, KindReport
from sim.app.sheet_jobs import JobReport
from sim.app.sheet_load import Load
from sim.app.sheet_pools import PoolReport
from sim.perf.batchtime import BatchSheet
from sim.scenario.resolve import REPLICA_STAGES, STAGES
from sim.units import BYTES_PER_GIB, seconds_text

_BOUNDS = {"seats": "max_num_seqs", "kv": "the KV cache", "tpot": "the TPOT target", "budget": "max_num_batched_tokens"}


def show_report(report: CapacityReport, console: Console) -> None:
    """Print the sheet: load, pools, one replica of each kind, cold starts, placement, the fleet against its load, warnings."""
    console.print(f"capacity sheet of {escape(report.name)}: closed forms for mean requests, no queueing", highlight=False)
    console.print(_loads(report.loads))
    console.print(_pools(report.pools))
    for pool in report.pools:
        if pool.losses:
            console.print(f"  {escape(pool.name)}: {escape(pool.losses)}", highlight=False)
    for table in _kinds(report.kinds):
        console.print(table)
    console.print(_cold_starts(report))
    console.print(_deployments(report.deployments))
    console.print(_fleets(report.fleets))
    if report.jobs:
        console.print(_jobs(report.jobs))
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
        mean, peak, prompt, output, clients = map(_number, numbers)
        sizes = (f"{prompt} items", "-") if load.in_items else (prompt, output)
        table.add_row(escape(name), mean, peak, *sizes, clients)
    return table


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 or isinstance(value, int) else f"{value:.4g}"


def _pools(pools: list[PoolReport]) -> Table:
    table = Table(title="pools", title_justify="left", box=box.SIMPLE)
    table.add_column("pool", overflow="fold")
    table.add_column("machine", overflow="fold")
    for header in ("zones", "quota", "warm", "USD/h"):
        table.add_column(header, justify="right")
    table.add_column("price")
    for pool in pools:
        quota = "-" if pool.quota_nodes is None else str(pool.quota_nodes)
        machine = f"{pool.instance}, {pool.accelerators} x {pool.accelerator}"
        numbers = (str(pool.zones), quota, str(pool.warm_nodes), f"{pool.usd_per_hour:,.4g}")
        table.add_row(escape(pool.name), escape(machine), *numbers, escape(pool.basis))
    return table


def _kinds(kinds: list[KindReport]) -> Iterator[Table]:
    """Yield a table for each deployment and kind of machine; pools whose machines do the same share it and differ in price."""
    alike: dict[tuple[object, ...], list[KindReport]] = {}
    for kind in kinds:
        alike.setdefault((kind.deployment, kind.kv_tokens, kind.sheet, kind.full, kind.quick, kind.nodes), []).append(kind)
    for group in alike.values():
        yield _kind(group)


def _kind(group: list[KindReport]) -> Table:
    kind = group[0]
    pools = ", ".join(each.pool for each in group)
    title = f"one replica of {escape(kind.deployment)} on {escape(pools)}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE, show_header=False)
    table.add_row("accelerators", f"{kind.accelerators}: {_nodes(kind.nodes)}")
    if kind.full is not None and kind.quick is not None:
        table.add_row("times", escape(_times_from(kind)))
        if kind.served is not None:
            memory = kind.served.memory
            taken = (
                f"{memory.taken_bytes / BYTES_PER_GIB:.2f} of {memory.memory_bytes / BYTES_PER_GIB:.1f} GiB with its largest batch"
            )
            table.add_row("memory", taken)
        for label, text in _batches(kind.full, kind.quick):
            table.add_row(label, text)
    else:
        table.add_row("KV cache", f"{kind.kv_tokens:,} tokens")
    sheet = kind.sheet
    if sheet is not None:
        table.add_row("largest batch", f"{sheet.largest_batch} requests of the mean size")
        table.add_row("batch at full use", f"{sheet.batch}, bound by {_BOUNDS[sheet.bound]}")
        table.add_row("sustained", f"{sheet.requests_per_s:.2f} requests/s, {sheet.output_tokens_per_s:,.0f} output tokens/s")
        table.add_row("TPOT then", seconds_text(sheet.tpot_s))
        table.add_row("prefill, idle", f"{seconds_text(sheet.prefill_s)} for a mean prompt")
        table.add_row("power then", f"{sheet.power_w:,.0f} W")
    for each in group:
        full = "" if each.usd_per_1m_tokens is None else f", {each.usd_per_1m_tokens:,.4f} USD per 1M tokens at full use"
        if each.usd_per_1k_requests is not None:
            full = f", {each.usd_per_1k_requests:.4g} USD per 1,000 requests in full batches"
        table.add_row(escape(f"price on {each.pool}"), f"{each.usd_per_hour:,.4f} USD/h{full}")
    return table


def _times_from(kind: KindReport) -> str:
    """Say where the times of a batcher come from, and how far they can be trusted."""
    served = kind.served
    if served is None:
        return f"of the scenario, {kind.validity}"
    band = f"90 % within {served.fit.band:.0%}"
    return f"roofline of {served.model.name} in {served.dtype}, {kind.validity} ({served.fit.name}), {band}"


def _batches(full: BatchSheet, quick: BatchSheet) -> Iterator[tuple[str, str]]:
    """Say what full batches bring, and what is left where requests must be answered in time."""
    yield "batch of one", f"{seconds_text(full.single_s)} for a mean request"
    for label, sheet in (("full batches", full), ("within E2E target", quick)):
        if label == "full batches" or sheet.bound == "e2e":
            rates = f"{sheet.items_per_s:,.0f} items/s, {sheet.requests_per_s:,.0f} requests/s"
            yield label, f"{sheet.batch} items in {seconds_text(sheet.batch_s)}: {rates}, {sheet.power_w:,.0f} W"


def _nodes(nodes: float) -> str:
    if nodes > 1:
        return f"a gang of {nodes:g} machines"
    return "one machine" if nodes == 1 else f"{round(1 / nodes)} replicas share a machine"


def _cold_starts(report: CapacityReport) -> Table:
    table = Table(title="cold start, seconds (p50 / p95)", title_justify="left", box=box.SIMPLE)
    table.add_column("replica", overflow="fold")
    for stage in STAGES:
        table.add_column(stage, justify="right")
    table.add_column("in all", justify="right")
    warm = {pool.name for pool in report.pools if pool.warm_nodes}
    for kind in report.kinds:
        where = f"{kind.deployment} on {kind.pool}"
        table.add_row(escape(where), *(_times(kind.stages_s[stage]) for stage in STAGES), _times(kind.cold_start_s))
        if kind.pool in warm:
            times = (_times(kind.stages_s[stage]) if stage in REPLICA_STAGES else "-" for stage in STAGES)
            table.add_row("  on a warm machine", *times, _times(kind.warm_start_s))
    return table


def _times(median_and_p95: tuple[float, float]) -> str:
    return f"{median_and_p95[0]:.0f}/{median_and_p95[1]:.0f}"


def _deployments(deployments: list[DeploymentReport]) -> Table:
    table = Table(title="replicas, and where placement puts them", title_justify="left", box=box.SIMPLE)
    for header in ("deployment", "policies", "when", "replicas"):
        table.add_column(header, overflow="fold")
    table.add_column("USD/h", justify="right")
    for report in deployments:
        rows = [("first", report.first, report.first_usd_per_hour)]
        if report.most != report.first:
            rows.append(("at most", report.most, report.most_usd_per_hour))
        labels = [(escape(report.name), escape(f"{report.autoscaler}, {report.placement}")), ("", "")]
        for (name, policies), (when, split, usd_per_hour) in zip(labels, rows, strict=False):
            placed = " + ".join(f"{count} {pool}" for pool, count in split.items() if count) or "none"
            table.add_row(name, policies, when, escape(placed), f"{usd_per_hour:,.2f}")
    return table


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


def _jobs(jobs: list[JobReport]) -> Table:
    table = Table(title="batch jobs, with all their seats to themselves", title_justify="left", box=box.SIMPLE)
    table.add_column("service", overflow="fold")
    for header in ("jobs", "requests each", "on one replica", "at best", "due after"):
        table.add_column(header, justify="right")
    for report in jobs:
        times = (report.replica_s, report.at_best_s, report.due_s)
        shown = ("-" if time_s is None else seconds_text(time_s) for time_s in times)
        table.add_row(escape(report.service), str(report.jobs), f"{report.requests:,}", *shown)
    return table


def _share(rate: float | None, capacity: float | None) -> str:
    return "-" if rate is None or not capacity else f"{100 * rate / capacity:.0f} %"
