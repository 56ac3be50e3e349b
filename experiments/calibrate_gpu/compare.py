"""`python -m experiments.calibrate_gpu.compare`: the measured tables against the catalog's fitted parameters, as Markdown.

With `--keep` the tables of docs/explanation/calibration.md are rewritten. Kernel-composed times come from the data folder
(BILLCAST_DATA); the table that needs them is left as it is where there is none.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.pages import with_block
from sim.catalog.loader import load_catalog

from .predict import ACCELERATORS, FITTED, Times, accelerator_of, composed_times, fit_of, key_of, power_at, predicted, refit
from .table import Row, read

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MEASURED, PAGE = HERE / "measured", ROOT / "docs" / "explanation" / "calibration.md"
MAIN = ("h100-sxm", "llama-3.1-8b")


def usual(rows: Iterable[Row]) -> list[Row]:
    """Return the rows that a fit is for: whole model, CUDA graph, FlashAttention, fused, step after step."""
    whole = load_catalog().models
    return [
        row
        for row in rows
        if (row.launch, row.attention, row.elementwise, row.rest) == ("graph", "flash", "compiled", 0)
        and row.layers == whole[row.model].layers
    ]


def errors(rows: Sequence[Row], of: Callable[[Row], float]) -> str:
    """Return median, 95th percentile and signed median of relative errors in percent, as three cells."""
    signed = sorted(of(row) for row in rows)
    size = sorted(abs(value) for value in signed)
    p95 = size[min(round(0.95 * (len(size) - 1)), len(size) - 1)]
    return f"{100 * statistics.median(size):.1f} | {100 * p95:.1f} | {100 * statistics.median(signed):+.1f}"


def time_error(row: Row) -> float:
    """Return the relative error of the catalog's step time, positive where it is too long."""
    return predicted(row, fit_of(row)).step_s / row.step_s - 1


def table(head: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in (head, ["---"] * len(head), *lines))


def _groups(rows: Sequence[Row], key: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def _set(row: Row) -> tuple[str, str, str]:
    part = f"/{row.tensor_parallel}" if row.tensor_parallel > 1 else ""
    return accelerator_of(row), row.model + part, row.dtype


def _step(row: Row) -> tuple[object, ...]:
    return (_set(row), row.layers, row.decodes, row.context, row.chunks, row.chunk_tokens, row.prior)


PHASES = ("decode", "prefill", "mixed")


def machines(reports: dict[str, dict[str, Any]]) -> str:
    """Return the facts of the machines, and what their GPUs reach."""
    lines = []
    for name, report in reports.items():
        machine, idle, roofs = report["machine"], report["idle"], report["roofs"]
        loaded = max(state["power_w"] for label, state in idle.items() if label.endswith("loaded"))
        peak = load_catalog().accelerators[ACCELERATORS[machine["gpu"]]]
        shares = [
            f"{roofs[key]:.0f} ({100 * roofs[key] / of:.0f} %)"
            for key, of in (
                ("bf16_tflops", peak.dense_tflops["bf16"]), ("fp8_tflops", peak.dense_tflops["fp8"]),
                ("copy_gb_per_s", peak.bandwidth_gb_per_s), ("read_gb_per_s", peak.bandwidth_gb_per_s),
            )
        ]  # fmt: skip
        software = f"{machine['driver']}, CUDA {machine['cuda']}, torch {machine['torch']}"
        idles = f"{idle['no program']['power_w']:.0f} / {idle['CUDA context']['power_w']:.0f} / {loaded:.0f} ({peak.idle_w:.0f})"
        clocks = f"{machine['max_sm_mhz']} / {machine['max_memory_mhz']}"
        when = machine["date_utc"][:16].replace("T", " ")
        lines.append([f"`{name}`", machine["gpu"], when, software, f"{machine['power_limit_w']:.0f}", clocks, idles, *shares])
    head = ["table", "GPU", "UTC", "driver, CUDA, PyTorch", "limit W", "top clocks, SM / memory MHz"]
    head += ["idle W: no program / context / loaded (catalog)", "bf16 TFLOP/s", "fp8 TFLOP/s", "copy GB/s", "read GB/s"]
    return table(head, lines)


def _range(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{min(known):.0f} to {max(known):.0f}" if known else ""


def overall(rows: Sequence[Row]) -> str:
    """Return the errors of step time by GPU, model, type and phase."""
    lines = [
        [
            *name,
            phase,
            len(part),
            errors(part, time_error),
            _range(row.sm_mhz for row in part),
            _range(row.temperature_c for row in part),
        ]
        for name, group in _groups(usual(rows), _set).items()
        for phase in PHASES
        if (part := [row for row in group if row.phase == phase])
    ]
    return table(["GPU", "model", "type", "phase", "steps", "median %", "p95 %", "bias %", "SM MHz", "degrees C"], lines)


def decode_grid(rows: Sequence[Row]) -> str:
    """Return the signed errors of decode steps of the 8B model on the H100, by batch and context."""
    return _grid(rows, "decode", lambda row: row.decodes, lambda row: row.context, "batch", "context")


def prefill_grid(rows: Sequence[Row]) -> str:
    """Return the signed errors of single prefill chunks of the 8B model on the H100, by length and tokens before."""
    single = [row for row in rows if row.chunks == 1]
    return _grid(single, "prefill", lambda row: row.chunk_tokens, lambda row: row.prior, "chunk", "after")


def _grid(rows: Sequence[Row], phase: str, down: Callable[[Row], int], across: Callable[[Row], int], name: str, over: str) -> str:
    chosen = [row for row in usual(rows) if row.phase == phase and (accelerator_of(row), row.model) == MAIN]
    cells = {(row.dtype, down(row), across(row)): row for row in chosen}
    columns = sorted({across(row) for row in chosen})
    lines = []
    for size in sorted({down(row) for row in chosen}):
        line: list[object] = [size]
        for dtype in ("bf16", "fp8"):
            found = (cells.get((dtype, size, column)) for column in columns)
            line += ["" if row is None else f"{1000 * row.step_s:.1f} ms {100 * time_error(row):+.0f} %" for row in found]
        lines.append(line)
    return table([name, *(f"{dtype}, {over} {column:,}" for dtype in ("bf16", "fp8") for column in columns)], lines)


def power(rows: Sequence[Row]) -> str:
    """Return power: measured, and the errors of the catalog's model over the measured and over its own step time."""
    lines = []
    for name, group in _groups([row for row in usual(rows) if row.power_w], _set).items():
        for phase in PHASES:
            part = [row for row in group if row.phase == phase]
            if part:
                limited = sum(row.power_limited or 0 for row in part) / len(part)
                lines.append([
                    *name, phase, _range(row.power_w for row in part), f"{100 * limited:.0f}",
                    errors(part, lambda row: power_at(row) / (row.power_w or 0) - 1),
                    errors(part, lambda row: predicted(row, fit_of(row)).power_w / (row.power_w or 0) - 1),
                ])  # fmt: skip
    head = ["GPU", "model", "type", "phase", "measured W", "limited %"]
    head += ["measured time: median %", "p95 %", "bias %", "own time: median %", "p95 %", "bias %"]
    return table(head, lines)


def energy(rows: Sequence[Row]) -> str:
    """Return power and energy a token of decode steps of the 8B model on the H100 by batch, measured and the catalog's."""
    chosen = [row for row in usual(rows) if row.phase == "decode" and row.context == 512 and _set(row)[:2] == MAIN]
    cells = {(row.dtype, row.decodes): row for row in chosen if row.power_w and row.energy_j}
    lines = []
    for batch in sorted({batch for _, batch in cells}):
        line: list[object] = [batch]
        for dtype in ("bf16", "fp8"):
            row = cells[dtype, batch]
            catalog = predicted(row, fit_of(row))
            joules = catalog.power_w * catalog.step_s / batch
            line += [f"{row.power_w:.0f}", f"{catalog.power_w:.0f}", f"{(row.energy_j or 0) / batch:.3f}", f"{joules:.3f}"]
        lines.append(line)
    each = ("W", "catalog W", "J a token", "catalog J a token")
    return table(["batch", *(f"{dtype}, {name}" for dtype in ("bf16", "fp8") for name in each)], lines)


def variants(rows: Sequence[Row]) -> str:
    """Return how much longer steps take in another way: without graphs, rested, other attention, unfused."""

    def plain(row: Row) -> Row:
        return replace(row, launch="graph", attention="flash", elementwise="compiled", rest=0)

    base = {_step(row): row for row in rows if plain(row) == row}
    ways: dict[str, Callable[[Row], bool]] = {
        "rested, nine step times of pause after each": lambda row: row.rest > 0,
        "without graphs, launched from Python": lambda row: row.launch == "stream" and row.elementwise == "compiled",
        "cuDNN attention": lambda row: row.attention == "cudnn",
        "unfused element-wise kernels": lambda row: row.elementwise == "eager" and row.launch == "graph",
    }
    lines = []
    for way, is_one in ways.items():
        for row in rows:
            if is_one(row) and (other := base.get(_step(row))) and _set(row)[:2] == MAIN:
                step = f"{row.phase}, n = {row.n:,}, C = {row.c:,}" + (f", {row.chunks} chunks" if row.chunks > 1 else "")
                ratio, clocks = row.step_s / other.step_s, f"{row.sm_mhz or 0:.0f} / {other.sm_mhz or 0:.0f}"
                lines.append(
                    [way, row.dtype, step, f"{1000 * row.step_s:.2f}", f"{1000 * other.step_s:.2f}", f"{ratio:.2f}", clocks]
                )
    return table(["way", "type", "step", "this way, ms", "usual, ms", "ratio", "SM MHz, this way / usual"], lines)


def layers(rows: Sequence[Row]) -> str:
    """Return how well fewer layers and the head predict the whole model: a line through 8 and 16 layers, at 32."""
    few = {(row.decodes, row.context, row.chunk_tokens, row.layers): row.step_s for row in rows
           if (row.launch, row.attention, row.elementwise, row.rest) == ("graph", "flash", "compiled", 0)
           and (accelerator_of(row), row.model, row.dtype) == (*MAIN, "bf16") and row.chunks < 2 and not row.prior}  # fmt: skip
    lines = []
    for (decodes, context, chunk, count), eight in few.items():
        if count == 8:
            sixteen, whole = few[decodes, context, chunk, 16], few[decodes, context, chunk, 32]
            line = eight + 3 * (sixteen - eight)
            step = f"decode {decodes} x {context:,}" if decodes else f"prefill {chunk:,}"
            lines.append(
                [step, *(f"{1000 * value:.2f}" for value in (eight, sixteen, line, whole)), f"{100 * (line / whole - 1):+.1f}"]
            )
    return table(["step", "8 layers, ms", "16 layers, ms", "line at 32, ms", "32 layers, ms", "error %"], lines)


def fits(rows: Sequence[Row]) -> str:
    """Return the parameters that would fit the measured steps, beside the catalog's, and the errors of both."""
    lines = []
    for (gpu, dtype), group in _groups(usual(rows), lambda row: (accelerator_of(row), row.dtype)).items():
        for label, fit in (("catalog", fit_of(group[0])), ("these steps", refit(group))):
            values = [f"{getattr(fit, name):.3f}" for name in FITTED[:-1]]
            lines.append([gpu, dtype, label, *values, f"{1e6 * fit.layer_s:.0f}",
                          errors(group, lambda row, fit=fit: predicted(row, fit).step_s / row.step_s - 1)])  # type: ignore[misc]  # fmt: skip
    head = [
        "GPU",
        "type",
        "fitted to",
        "eta_compute",
        "eta_weights",
        "eta_attention",
        "eta_kv",
        "layer us",
        "median %",
        "p95 %",
        "bias %",
    ]
    return table(head, lines)


def composed(rows: Sequence[Row], times: Times) -> str:
    """Return measured steps, and the catalog's, against the kernel-composed times that the catalog was fitted to."""
    usual_rows = usual(rows)
    ways = {"": usual_rows, ", rested": [row for row in rows if row.rest], ", the same steps not rested": []}
    rested = {_step(row) for row in ways[", rested"]}
    ways[", the same steps not rested"] = [row for row in usual_rows if _step(row) in rested]
    lines = []
    for way, chosen in ways.items():
        for name, group in _groups([row for row in chosen if key_of(row) in times], lambda row: (*_set(row), row.phase)).items():
            against = errors(group, lambda row: times[key_of(row)] / row.step_s - 1)
            fit = errors(group, lambda row: predicted(row, fit_of(row)).step_s / times[key_of(row)] - 1)
            lines.append([*name[:3], name[3] + way, len(group), against, fit])
    head = ["GPU", "model", "type", "phase", "steps"]
    head += ["table against measured: median %", "p95 %", "bias %", "catalog against table: median %", "p95 %", "bias %"]
    return table(head, lines)


def parts(reports: dict[str, dict[str, Any]]) -> str:
    """Return where the time of some steps goes by the profiler, each model and type of a GPU once."""
    found = {
        (report["machine"]["gpu"], run, step): parts
        for report in reversed(reports.values())
        for run, steps in report["breakdown"].items()
        for step, parts in steps.items()
    }
    lines = [
        [*key, cell["kernels_per_step"], *(f"{cell['ms_by_kind'].get(kind, 0.0):.2f}" for kind in ("linear", "attention", "other"))]
        for key, cell in sorted(found.items())
        if MAIN[1] in key[1]
    ]
    return table(["GPU", "model and type", "step", "kernels", "linear ms", "attention ms", "other ms"], lines)


def blocks(rows: Sequence[Row], reports: dict[str, dict[str, Any]], times: Times | None) -> dict[str, str]:
    """Return the tables of the page by name; `composed` only where the kernel-composed times are at hand."""
    made = {
        "machines": machines(reports), "overall": overall(rows), "decode": decode_grid(rows), "prefill": prefill_grid(rows),
        "power": power(rows), "energy": energy(rows), "variants": variants(rows), "layers": layers(rows), "parts": parts(reports),
        "fits": fits(rows),
    }  # fmt: skip
    return made if times is None else made | {"composed": composed(rows, times)}


def load(tables: Sequence[Path]) -> tuple[list[Row], dict[str, dict[str, Any]]]:
    """Return the rows of tables, and the facts beside them by the table's name."""
    rows = [row for path in tables for row in read(path)]
    return rows, {path.stem: json.loads(path.with_suffix(".json").read_text("utf-8")) for path in tables}


def data_times() -> Times | None:
    """Return the kernel-composed times of the data folder; None without one."""
    folder = Path(os.environ.get("BILLCAST_DATA", ROOT / ".." / "shared" / "data"))
    return composed_times(folder) if (folder / "perf" / "aic_step_times.csv").is_file() else None


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the comparison, or keep it in the page."""
    parser = argparse.ArgumentParser(prog="python -m experiments.calibrate_gpu.compare", description=__doc__)
    parser.add_argument(
        "tables", nargs="*", type=Path, help="tables to compare, each with its JSON beside it (default: those in measured/)"
    )
    parser.add_argument("--keep", action="store_true", help="write the tables into docs/explanation/calibration.md")
    settings = parser.parse_args(arguments)
    if settings.keep and settings.tables:
        parser.error("--keep writes the page from measured/; give no tables")
    made = blocks(*load(settings.tables or sorted(MEASURED.glob("*.csv"))), data_times())
    for name, body in made.items():
        print(f"\n## {name}\n\n{body}")
    if settings.keep:
        text = PAGE.read_text("utf-8")
        for name, body in made.items():
            text = with_block(text, name, body)
        PAGE.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
