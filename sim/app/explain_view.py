"""The decision table of optimizations on a terminal."""

from __future__ import annotations

import textwrap

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sim.app.explain import Explanation, Outcome
from sim.units import seconds_text

# Columns that the tables need; a pipe has them, a narrow terminal folds names.
WIDTH = 100
_TEXT_WIDTH = 96
# Optimizations that leave something open: what was chosen is said below the tables.
_WITH_CHOICES = ("pruning", "distillation", "speculative", "prefix_cache")


def show_explanations(explanations: list[Explanation], sources: bool, console: Console) -> None:
    """Print for every deployment and pool what changes, what it costs, and what cannot be had.

    Parameters
    ----------
    sources : whether the sources of accuracy and one-off costs are printed, too.
    """
    for table in explanations:
        _show(table, sources, console)
    if not explanations:
        console.print("nothing to explain: no deployment of an LLM has requests of known lengths", highlight=False)


def _show(table: Explanation, sources: bool, console: Console) -> None:
    target = "no TPOT target" if table.tpot_target_s is None else f"TPOT within {seconds_text(table.tpot_target_s)}"
    where = f"{table.model} on {table.accelerators} x {table.accelerator}, {table.usd_per_hour:,.2f} USD/h a replica"
    request = f"mean request {table.prompt_tokens:,.0f} tokens in, {table.output_tokens:,.0f} out"
    _print(f"{table.deployment} on {table.pool}: {where}", console)
    _print(f"{request}; {target}; closed forms, no queueing", console)
    if table.own_table:
        _print("step times of the roofline: the deployment's own table says nothing of other types", console)
    console.print(_changes(table))
    console.print(_costs(table))
    for each in table.outcomes:
        if each.name in _WITH_CHOICES:
            _print(f"  {each.name}: {each.summary}", console)
    for name, reason in table.refused.items():
        _print(f"  {name}: {reason}", console)
    for each in table.outcomes[1:] if sources else ():
        _print(_source(each), console)
    console.print()


def _print(text: str, console: Console) -> None:
    indent = "    " if text.startswith(" ") else ""
    for line in textwrap.wrap(text, _TEXT_WIDTH, subsequent_indent=indent, break_on_hyphens=False):
        console.print(escape(line), highlight=False, soft_wrap=True)


def _changes(table: Explanation) -> Table:
    shown = Table(title="what it changes", title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    shown.add_column("optimization", overflow="fold")
    headers = (
        "files\nGB",
        "GPU\nGB",
        "load\ns",
        "KV\ntokens",
        "largest\nbatch",
        "tokens/s\nin SLO",
        "",
        "prefill\nms",
        "USD/1M\nout",
        "J per\ntoken",
    )
    for header in headers:
        shown.add_column(header, justify="right")
    before = table.outcomes[0]
    for each in table.outcomes:
        shown.add_row(
            escape(each.name),
            f"{each.file_bytes / 1e9:,.1f}",
            f"{each.weight_bytes / 1e9:,.1f}",
            f"{each.loading_s:,.1f}",
            f"{each.kv_tokens:,}",
            f"{each.largest_batch:,}",
            f"{each.output_tokens_per_s:,.0f}",
            _times(each, before),
            f"{1e3 * each.prefill_s:,.1f}",
            "-" if each.usd_per_1m_output is None else f"{each.usd_per_1m_output:,.3g}",
            "-" if each.joules_per_token is None else f"{each.joules_per_token:,.3g}",
        )
    return shown


def _times(each: Outcome, before: Outcome) -> str:
    if each is before or before.output_tokens_per_s == 0:
        return ""
    return f"x{each.output_tokens_per_s / before.output_tokens_per_s:.2f}"


def _costs(table: Explanation) -> Table:
    shown = Table(title="what it costs, and how sure that is", title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    shown.add_column("optimization", overflow="fold")
    for header in ("GPU h\nonce", "USD\nonce", "pays after\ntokens", "accuracy\nchanges by", "tokens/s\nbetween"):
        shown.add_column(header, justify="right")
    shown.add_column("step times\nare")
    shown.add_column("to\n± %", justify="right")
    for each in table.outcomes:
        spread = each.worst_tokens_per_s < each.best_tokens_per_s
        shown.add_row(
            escape(each.name),
            _amount(each.one_off_gpu_hours),
            _amount(each.one_off_usd),
            "" if each.accuracy is None else _break_even(each.break_even_tokens),
            "" if each.accuracy is None else each.accuracy.text,
            f"{each.worst_tokens_per_s:,.0f}-{each.best_tokens_per_s:,.0f}" if spread else "",
            each.validity,
            f"{100 * each.band:.0f}" if each.band else "",
        )
    return shown


def _amount(value: float) -> str:
    if value == 0:
        return ""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _break_even(tokens: float | None) -> str:
    if tokens is None:
        return "never"
    if tokens == 0:
        return "at once"
    for size, unit in ((1e12, "T"), (1e9, "G")):
        if tokens >= size:
            return f"{tokens / size:,.3g} {unit}"
    return f"{tokens / 1e6:,.3g} M"


def _source(each: Outcome) -> str:
    assert each.accuracy is not None
    provenance = each.accuracy.provenance
    where = f"{provenance.source} ({provenance.confidence}, {provenance.date})"
    return f"  {each.name}: {each.summary}. accuracy of {each.accuracy.benchmark}: {where}. once: {each.one_off_source}"
