"""Replications on a terminal: mean and interval of the main metrics, percentiles of all requests, comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sim.app.main_metrics import Metric, main_metrics
from sim.results.metrics import ONE_REPLICATION
from sim.results.replications import Replications, folder_of
from sim.results.stats import CONFIDENCE, Interval, PairedDifference
from sim.units import duration_ns, instant, seconds_text

_QUANTILES = ("p50", "p90", "p95", "p99")
_MOST_SETTINGS = 12
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MOST_SIDES = len(LETTERS)


def show_replications(found: Replications, console: Console) -> None:
    """Print the main metrics with their intervals, and where everything lies."""
    scenario = found.manifest["scenario"]
    start, length_ns = instant(scenario["start"]), duration_ns(scenario["horizon"])
    end = start + timedelta(microseconds=length_ns // 1_000)
    console.print(f"billcast {escape(scenario['name'])}", style="bold", highlight=False)
    period = f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC ({seconds_text(length_ns / 1e9)})"
    console.print(f"period        {period}", highlight=False)
    numbers = found.numbers
    console.print(f"replications  {len(numbers)} of seed {found.manifest['seed']}, number {_range(numbers)}", highlight=False)
    console.print()
    console.print(_means(found))
    console.print(escape(found.summary["interval"]), highlight=False)
    if len(numbers) > 1:
        console.print("shown are Student's; the others are in summary.json", highlight=False)
    console.print()
    console.print(_pooled(found.summary["pooled"]))
    console.print()
    console.print(
        f"one of them   billcast report {escape(str(found.folder / folder_of(numbers[0])))}", highlight=False, soft_wrap=True
    )
    console.print(f"results       {escape(str(found.folder))}", highlight=False, soft_wrap=True)


def _means(found: Replications) -> Table:
    several = len(found.numbers) > 1
    table = _table("metric", "mean", *((f"{CONFIDENCE:.0%} interval", "deviation") if several else ()))
    for metric in _that_occur(found):
        estimate = found.estimate(metric.path)
        cells = [metric.text(estimate.mean)]
        if several:
            deviation = estimate.standard_deviation
            cells += [_interval(metric, estimate.student), "-" if deviation is None else _spread(metric, deviation)]
        table.add_row(escape(metric.label), *cells)
    return table


def _pooled(pooled: dict[str, Any]) -> Table:
    table = _table("all requests together", *_QUANTILES)
    for service, latencies in pooled.items():
        for latency, quantiles in latencies.items():
            cells = ["-" if quantiles[name] is None else seconds_text(quantiles[name]) for name in _QUANTILES]
            table.add_row(escape(f"{service} {latency.removesuffix('_s').upper()}"), *cells)
    return table


def show_comparison(sides: Sequence[Replications], console: Console) -> None:
    """Print how every other side differs from the first, with the interval of the paired difference where there is one.

    Parameters
    ----------
    sides : at least two; single runs are replications of which there is one.
    """
    for letter, side in zip(LETTERS, sides, strict=False):
        numbers = _range(side.numbers)
        what = f"replication {numbers} of seed {side.manifest['seed']}"
        console.print(f"{letter}  {escape(str(side.folder))} ({what})", highlight=False, soft_wrap=True)
    for letter, other in zip(LETTERS[1:], sides[1:], strict=False):
        console.print()
        _show_difference(sides[0], other, letter, console)


def _show_difference(first: Replications, other: Replications, letter: str, console: Console) -> None:
    for line in _settings(first.manifest["scenario"], other.manifest["scenario"], letter):
        console.print(escape(line), highlight=False, soft_wrap=True)
    common = sorted(set(first.numbers) & set(other.numbers))
    several = len(common) > 1
    columns = (f"{CONFIDENCE:.0%} interval", "noise") if several else ()
    table = _table("metric", "A", letter, f"{letter} - A", *columns)
    for metric in _that_occur(first, other):
        paired = other.paired_difference(first, metric.path)
        means = [side.mean(metric.path) for side in (first, other)]
        difference = means[1] - means[0] if paired is None else paired.estimate.mean
        cells = [metric.text(means[0]), metric.text(means[1]), metric.difference(difference)]
        if several:
            cells += _certainty(metric, paired)
        table.add_row(escape(metric.label), *cells)
    console.print(table)
    for line in _notes(first, other, common):
        console.print(line, highlight=False)


def _that_occur(*sides: Replications) -> list[Metric]:
    """Return the main metrics of all sides that are not zero throughout."""
    there = set.intersection(*(set(side.values) for side in sides))
    return main_metrics(path for path in there if any(value for side in sides for value in side.of(path).values()))


def _certainty(metric: Metric, paired: PairedDifference | None) -> list[str]:
    """Return the interval of a difference, and by how much common random numbers made its variance smaller."""
    if paired is None or paired.estimate.student is None:
        return ["-", "-"]
    low, high = (metric.difference(end) for end in (paired.estimate.student.low, paired.estimate.student.high))
    ratio = paired.variance_ratio
    return [f"{low} to {high}", "-" if ratio is None else f"/{ratio:.0f}" if ratio >= 10 else f"/{ratio:.1f}"]


def _notes(first: Replications, other: Replications, common: Sequence[int]) -> list[str]:
    if not common:
        return ["no interval: no replication in common"]
    if len(common) == 1:
        return [ONE_REPLICATION if first.numbers == other.numbers else f"{ONE_REPLICATION} in common"]
    notes = [
        f"over {len(common)} pairs of replications; Student's intervals, each by itself",
        "noise: what common random numbers made of the variance of the difference",
    ]
    if first.manifest["seed"] != other.manifest["seed"]:
        notes.append("the seeds differ: the pairs share no random numbers")
    return notes


def _settings(mine: dict[str, Any], others: dict[str, Any], letter: str) -> list[str]:
    """Say which settings differ."""
    flat = [dict(_flat(scenario, "")) for scenario in (mine, others)]
    left_out = ("name", "out", "workers", "replication", "replications")
    paths = [path for path in dict.fromkeys([*flat[0], *flat[1]]) if path not in left_out]
    differing = [path for path in paths if flat[0].get(path) != flat[1].get(path)]
    if not differing:
        return [f"A and {letter} are the same scenario"]
    lines = [f"{path}: {flat[0].get(path, '-')} -> {flat[1].get(path, '-')}" for path in differing[:_MOST_SETTINGS]]
    rest = len(differing) - len(lines)
    return [*lines, f"and {rest} more settings"] if rest else lines


def _flat(value: Any, path: str) -> list[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        return [leaf for key, item in value.items() for leaf in _flat(item, f"{path}.{key}" if path else str(key))]
    return [(path, value)]


def _interval(metric: Metric, interval: Interval | None) -> str:
    return "-" if interval is None else f"{metric.clipped(interval.low)} to {metric.clipped(interval.high)}"


def _spread(metric: Metric, deviation: float) -> str:
    return metric.difference(deviation).lstrip("+")


def _range(numbers: Sequence[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


def _table(first: str, *others: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right", no_wrap=True, overflow="fold")
    return table
