"""The tables of README.md and of the pages on performance and accuracy, made from the kept results of the benchmarks."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measured import shown

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "benchmarks" / "kept"
README, PERFORMANCE = ROOT / "README.md", ROOT / "docs" / "explanation" / "performance.md"
ACCURACY = ROOT / "docs" / "explanation" / "accuracy.md"


def with_block(text: str, name: str, body: str) -> str:
    """Return a page with the block of a name replaced; its markers stay.

    Parameters
    ----------
    text : the page. name : what its markers call the block. body : Markdown.

    Raises
    ------
    ValueError : the page has no such block, or several.

    Examples
    --------
    >>> with_block("a <!-- x: begin -->old<!-- x: end --> b", "x", "new")
    'a <!-- x: begin -->\\n\\nnew\\n\\n<!-- x: end --> b'
    """
    found = re.findall(rf"(<!-- {re.escape(name)}: begin[^>]*-->)(.*?)(<!-- {re.escape(name)}: end -->)", text, flags=re.DOTALL)
    if len(found) != 1:
        raise ValueError(f"a page needs one block {name!r}, and has {len(found)}")
    [(begin, old, end)] = found
    return text.replace(begin + old + end, f"{begin}\n\n{body.strip()}\n\n{end}")


def kept(name: str) -> dict[str, Any]:
    """Return the kept result of a benchmark: "speed", "control", "months", "accuracy", or of the fit "engine_layer"."""
    result: dict[str, Any] = json.loads((KEPT / f"{name}.json").read_text("utf-8"))
    return result


def keep(name: str, result: dict[str, Any]) -> None:
    """Keep the result of a benchmark and rewrite the tables that are made from it."""
    (KEPT / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    for page, block in BLOCKS[name]:
        page.write_text(with_block(page.read_text("utf-8"), block, MADE[block](result)), "utf-8")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _of(result: dict[str, Any], command: str) -> str:
    machine, versions = f"{result['cores']} shared cores ({result['cpu']})", result["versions"]
    return f"`{command}` on {result['date']}: {machine}, Python {versions['python']}, numba {versions['numba']}."


def months_table(result: dict[str, Any]) -> str:
    """Return the table of the long scenarios, with command and date."""
    rows = [
        [
            f"`{run['command']}`",
            f"{run['requests'] / 1e6:,.1f} M",
            f"**{run['process_s']:.0f} s**",
            f"{run['cpu_s']:.0f} s",
            f"{run['generate_s']:.0f} + {run['advance_s']:.0f} + {run['control_s']:.0f} s",
            f"{run['peak_rss_mb']:.0f} MB",
        ]
        for run in result["months"]["runs"].values()
    ]
    memory = result["months"]["memory"]
    return (
        f"{_of(result, 'make months')}\n\n"
        + _table(["run", "requests", "wall time", "processor time", "drawing + engines + control", "peak memory"], rows)
        + f"\n\nFrom {memory['short']} of `{memory['scenario']}` to all of it the peak memory grows by {memory['grown_mb']:.0f} MB."
    )


def speed_sentence(result: dict[str, Any]) -> str:
    """Return the speed of the engine alone, in two sentences."""
    speed, threads = result["engine_speed"], result["threads"]
    each = ", ".join(f"{row['requests_per_s']['median'] / 1e6:.2f} M on `{row['scenario']}`" for row in speed["compiled"])
    return (
        f"{_of(result, 'make bench')} The engine alone, all accounts on, completes {each} requests a second on one core: "
        f"{speed['compiled_over_reference']['median']:.0f} times as many as the reference engine. Two planes in two threads take "
        f"{threads['cpu_over_alone']:.2f} times the processor time that they take one after the other."
    )


def engines_table(result: dict[str, Any]) -> str:
    """Return the table of fleets and engines."""
    speed, threads, start = result["engine_speed"], result["threads"], result["start_up"]
    rows = [
        [
            f"`{row['scenario']}`" + (", reference engine" if row is speed["reference"] else ""),
            "{median:.3g} ({min:.3g}-{max:.3g})".format(**{k: value / 1e6 for k, value in row["requests_per_s"].items()}),
            f"{row['steps_per_s'] / 1e6:.3g}",
            f"{row['ns_per_request']:,.0f}",
            f"{row['advance_over_generate']:.1f}",
            f"{row['look_us']:.0f} us",
            f"{row['advance_with_nothing_to_do_us']:.1f} us",
        ]
        for row in [*speed["compiled"], speed["reference"]]
    ]
    head = [
        "fleet (14 chat requests/s per replica)", "M requests/s, median (range)", "M steps/s", "ns a request",
        "engine time / time to draw the same requests", "a look", "`advance` with nothing to do",
    ]  # fmt: skip
    ratio, faster = _shown(speed["compiled_over_reference"], ".0f"), _shown(threads["faster"], ".2f")
    cpu, compile_s, cached_s = f"{threads['cpu_over_alone']:.2f}", f"{start['compile_s']:.0f}", f"{start['cached_s']:.1f}"
    return f"""{_of(result, "make bench")}
Engines alone, all accounting on, no control plane, no records; medians of {speed["reference"]["repetitions"]} repetitions.
Single figures move by 15 % and more where other work runs on the machine; ratios are taken inside one run.

{_table(head, rows)}

On `bench_chat8` the compiled engine is {ratio} times as fast as the reference. Two planes in two threads were {faster} times
as fast as one after the other, and took {cpu} times the processor time. The first start
compiles for {compile_s} s and says so; later starts take {cached_s} s with all imports."""


def _shown(found: dict[str, float], form: str) -> str:
    return f"{found['median']:{form}} ({found['min']:{form}} to {found['max']:{form}})"


def accounts_table(result: dict[str, Any]) -> str:
    """Return the table of what each account costs."""
    costs = result["account_costs"]
    fleets = list(next(iter(costs.values())))
    rows = [[part, *(f"{by_fleet[fleet]:.2f}" for fleet in fleets)] for part, by_fleet in costs.items()]
    return _table(["left out", *(f"`{fleet}`" for fleet in fleets)], rows)


def control_table(result: dict[str, Any]) -> str:
    """Return the table of looks, and what control costs in a run."""
    costs, in_run = result["control"], result["control"]["run"]
    rows = [
        [
            f"{row['replicas']} replicas",
            f"{row['look_us']:.0f} us",
            f"{row['scrape_us']:.0f} us",
            f"{row['engine_view_us']:.0f} us",
            f"{row['look_us'] / row['engine_view_us']:.1f}",
        ]
        for row in costs["looks"]
    ]
    head = ["an HPA at", "scrape and look", "of which the scrape", "of which the engine's view", "whole / engine's view"]
    return f"""{_of(result, "python -m benchmarks control")}
Processor time of calls again and again, with everything in the caches; medians.

{_table(head, rows)}

In a run of 50 requests a second with a look every 15 s, where the engine has filled the caches in between, control takes
{in_run["control_us_per_look"]:.0f} us a look with everything it does: {in_run["control_over_engine"]:.2f} of the engine's time,
and {in_run["control_s_per_90_days"]:.0f} s in 90 days. An hour of a lease (usage, attribution, ledger, its part of
the windows) costs {costs["lease_hours"]["us_per_lease_hour"]:.0f} us."""


def _accuracy(*tables: str) -> Callable[[dict[str, Any]], str]:
    def made(result: dict[str, Any]) -> str:
        return f"`make accuracy` on {result['date']}.\n\n{shown.markdown(result['accuracy'], tables)}"

    return made


def engine_layer_table(result: dict[str, Any]) -> str:
    """Return the table of the fitted engine layers."""
    command = "python -m experiments.fit_hardware.engine_layer"
    return f"`{command}` on {result['date']}.\n\n{shown.engine_layer(result['engines'])}"


def not_covered_table(result: dict[str, Any]) -> str:
    """Return the table of rows that are not compared."""
    return shown.not_covered(result["accuracy"])


MADE: dict[str, Callable[[dict[str, Any]], str]] = {
    "long runs": months_table,
    "speed": speed_sentence,
    "engines": engines_table,
    "accounts": accounts_table,
    "control": control_table,
    "step times": _accuracy("aic_step_times"),
    "kernels": _accuracy("vidur_layer_gemm", "vidur_allreduce"),
    "served": _accuracy("silicon_serving_ttft_tpot"),
    "energy": _accuracy("mlenergy_serving_power"),
    "eager": _accuracy("splitwise_step_times"),
    "published": _accuracy("trtllm_static_throughput", "trtllm_first_token_b1", "mlperf_v4_1"),
    "not covered": not_covered_table,
    "engine layer": engine_layer_table,
}
BLOCKS: dict[str, list[tuple[Path, str]]] = {
    "speed": [(README, "speed"), (PERFORMANCE, "engines"), (PERFORMANCE, "accounts")],
    "control": [(PERFORMANCE, "control")],
    "months": [(README, "long runs")],
    "accuracy": [(ACCURACY, block) for block in ("step times", "kernels", "served", "energy", "eager", "published", "not covered")],
    "engine_layer": [(ACCURACY, "engine layer")],
}
