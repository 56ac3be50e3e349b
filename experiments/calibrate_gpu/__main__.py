"""`python -m experiments.calibrate_gpu`: measure the GPU at hand and write a table of step times and the facts of the machine."""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import torch

from .board import Board, Reading, facts
from .shapes import PLANS, SHAPES, Point, Shape
from .stack import EAGER, Stack, attention_backend, self_check
from .table import Row, Writer
from .timing import breakdown, captured, roofs, timed, warm_up

# Memory that a step may need beside weights and KV cache.
ROOM_BYTES = 6 << 30
PROFILED = (
    Point(decodes=1, context=512),
    Point(decodes=64, context=2048),
    Point(chunks=1, chunk_tokens=512),
    Point(chunks=1, chunk_tokens=8192),
)


class Session:
    """One run of the command: where the results go, and how long it may take.

    Parameters
    ----------
    seconds : window of each step. until_s : monotonic time after which no further step is measured.
    """

    def __init__(self, device: torch.device, board: Board, writer: Writer, seconds: float, until_s: float) -> None:
        self.device, self.board, self.writer, self.seconds, self.until_s = device, board, writer, seconds, until_s
        self.gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
        self.left_out: list[str] = []
        self.power_sources: set[str] = set()

    @property
    def late(self) -> bool:
        """Say whether the time is used up."""
        return time.monotonic() > self.until_s

    def measure(self, stack: Stack, points: Iterable[Point]) -> None:
        """Measure steps one after the other, and write a row for each; what cannot run here is left out and named."""
        for point in points:
            if self.late:
                self.left_out.append(f"{stack.shape.name} {stack.dtype}: no time left from {point}")
                return
            if point.kv_tokens > stack.pool_tokens or point.layers >= stack.shape.layers:
                continue
            try:
                row = self._row(stack, self._on_cpu(point) if self.device.type == "cpu" else point)
            except RuntimeError as error:
                self.left_out.append(f"{stack.shape.name} {stack.dtype}: {point}: {str(error).splitlines()[0]}")
                continue
            finally:
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()  # the memory of the last graph
            self.writer.write(row)
            power = "" if row.power_w is None else f" {row.power_w:5.0f} W {row.sm_mhz:5.0f} MHz"
            size = f"{row.phase:7} n={row.n:<5} n_out={row.n_out:<4} S={row.s:<12.0f} C={row.c:<7}"
            how = f"{row.launch} {row.attention} {row.elementwise} L={row.layers} rest={row.rest}"
            print(f"{row.model} {row.dtype} {size} {how} {row.step_s * 1e3:9.3f} ms{power}", flush=True)

    @staticmethod
    def _on_cpu(point: Point) -> Point:
        return replace(point, launch="stream", attention="default", elementwise="eager")

    def _row(self, stack: Stack, point: Point) -> Row:
        kernels = EAGER if point.elementwise == "eager" else stack.compiled
        batch = stack.batch(point)
        with torch.inference_mode(), attention_backend(point.attention):

            def step() -> object:
                return stack.step(batch, kernels, point.layers)

            warm_up(step, self.device)
            run = captured(step) if point.launch == "graph" else step
            result = timed(run, self.device, self.board, self.seconds, point.rest)
        reading = result.board
        power_w = None if point.rest else reading.power_w
        self.power_sources.add(reading.source)
        shape = stack.shape
        return Row(
            gpu=self.gpu, model=shape.name, dtype=stack.dtype, tensor_parallel=shape.tensor_parallel,
            layers=point.layers or shape.layers, launch=point.launch, attention=point.attention,
            elementwise=point.elementwise, rest=point.rest, phase=point.phase, decodes=point.decodes, context=point.context,
            chunks=point.chunks, chunk_tokens=point.chunk_tokens, prior=point.prior,
            n=point.tokens, n_out=point.outputs, s=point.attention_pairs, c=point.context_sum, step_s=result.median_s,
            step_p10_s=result.p10_s, step_p90_s=result.p90_s, repetitions=result.repetitions, power_w=power_w,
            energy_j=None if power_w is None else power_w * result.median_s, sm_mhz=reading.sm_mhz, memory_mhz=reading.memory_mhz,
            temperature_c=reading.temperature_c, power_limited=reading.power_limited,
        )  # fmt: skip


Run = tuple[Shape, str, list[Point]]


def run_of(text: str) -> Run:
    """Return shape, type and steps of a run named MODEL[/TP]:DTYPE:PLAN[+PLAN].

    Examples
    --------
    >>> shape, dtype, points = run_of("llama-3.1-70b/8:fp8:short")
    >>> shape.heads, dtype, len(points) == len(PLANS["short"]())
    (8, 'fp8', True)
    """
    try:
        model, dtype, plans = text.split(":")
        name, _, degree = model.partition("/")
        shape = SHAPES[name].shard(int(degree or 1))
        points = [point for plan in plans.split("+") for point in PLANS[plan]()]
    except (ValueError, KeyError) as error:
        raise argparse.ArgumentTypeError(
            f"{text!r}: {error}; a run is MODEL[/TP]:DTYPE:PLAN[+PLAN], models {', '.join(SHAPES)}, types bf16 and fp8, "
            f"plans {', '.join(PLANS)}"
        ) from error
    if dtype not in ("bf16", "fp8"):
        raise argparse.ArgumentTypeError(f"{text!r}: {dtype} is not a type of the linear layers: bf16, fp8")
    return shape, dtype, points


def make_stack(shape: Shape, dtype: str, points: list[Point], device: torch.device) -> Stack:
    """Return random weights with as much KV cache as the steps ask for and the memory holds."""
    wanted = max(point.kv_tokens for point in points)
    if device.type == "cuda":
        weights = shape.linear_parameters * (1 if dtype == "fp8" else 2) + 2 * shape.vocabulary * shape.hidden
        free = torch.cuda.mem_get_info(device)[0] - weights - ROOM_BYTES
        wanted = min(wanted, free // (2 * shape.kv_elements_per_token))
    if wanted < 1:
        raise SystemExit(f"{shape.name} in {dtype} does not fit on this GPU; try another model or a part of it (MODEL/8)")
    return Stack(shape, dtype, device, wanted)


def machine(device: torch.device) -> dict[str, Any]:
    """Return the facts of machine and software that step times depend on."""
    found: dict[str, Any] = {
        "date_utc": datetime.now(UTC).isoformat(timespec="seconds"), "torch": torch.__version__, "cuda": torch.version.cuda,
        "python": platform.python_version(), "cores": os.cpu_count(), "cpu": _cpu(), **facts(device.index or 0),
    }  # fmt: skip
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "gpu": properties.name, "memory_gib": round(properties.total_memory / 2**30, 2),
            "l2_mb": round(properties.L2_cache_size / 1e6, 1), "multiprocessors": properties.multi_processor_count,
            "compute_capability": f"{properties.major}.{properties.minor}", "cudnn": torch.backends.cudnn.version(),
        }  # fmt: skip
    return found


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _idle(reading: Reading) -> dict[str, float | None]:
    return {"power_w": reading.power_w, "sm_mhz": reading.sm_mhz, "temperature_c": reading.temperature_c}


def main(arguments: list[str] | None = None) -> None:
    """Measure, and write `<out>.csv` and `<out>.json`."""
    parser = argparse.ArgumentParser(prog="python -m experiments.calibrate_gpu", description=__doc__)
    parser.add_argument("runs", nargs="*", type=run_of, metavar="MODEL[/TP]:DTYPE:PLAN[+PLAN]",
                        help=f"models {', '.join(SHAPES)}; types bf16, fp8; plans {', '.join(PLANS)}")  # fmt: skip
    parser.add_argument(
        "--out", type=Path, default=Path("measured"), help="path of the table without its ending (default ./measured)"
    )
    parser.add_argument("--seconds", type=float, default=1.2, help="window of each step (default 1.2 s)")
    parser.add_argument("--budget", type=float, default=3600.0, help="start no further step after so many seconds (default 3600)")
    parser.add_argument("--idle-seconds", type=float, default=4.0, help="window for each idle power (default 4 s; 0 for none)")
    parser.add_argument("--cpu", action="store_true", help="use the processor: tries the script, measures nothing of interest")
    settings = parser.parse_args(arguments)
    if not settings.cpu and not torch.cuda.is_available():
        parser.error("PyTorch finds no GPU here; --cpu tries the script on the processor")
    usual = ["tiny:bf16:smoke"] if settings.cpu else ["llama-3.1-8b:bf16:core+extra+rested", "llama-3.1-8b:fp8:core+rested"]
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    table, notes = settings.out.with_suffix(".csv"), settings.out.with_suffix(".json")
    with Board() as board, table.open("w", encoding="utf-8", newline="") as stream:
        report = _measure_all(settings, settings.runs or [run_of(text) for text in usual], board, stream)
    notes.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    print(f"# written: {table}, {notes}; left out: {len(report['left_out'])}")


def _measure_all(settings: argparse.Namespace, runs: list[Run], board: Board, stream: TextIO) -> dict[str, Any]:
    until_s, idle = time.monotonic() + settings.budget, settings.idle_seconds
    device = torch.device("cpu") if settings.cpu else torch.device("cuda", 0)
    report: dict[str, Any] = {"idle": {}, "checks": {}, "breakdown": {}}
    if idle:
        report["idle"]["no program"] = _idle(board.watch(idle))
    report["machine"] = machine(device)
    session = Session(device, board, Writer(stream), settings.seconds, until_s)
    if device.type == "cuda":
        torch.zeros(1, device=device)
        if idle:
            report["idle"]["CUDA context"] = _idle(board.watch(idle))
        report["roofs"] = roofs(device)
        torch.cuda.empty_cache()
    for shape, dtype, points in runs:
        name = f"{shape.name}/{shape.tensor_parallel}:{dtype}"
        stack = make_stack(shape, dtype, points, device)
        if idle and device.type == "cuda":
            torch.cuda.synchronize()
            time.sleep(1.0)
            report["idle"][f"{name} loaded"] = _idle(board.watch(idle))
        with torch.inference_mode():
            report["checks"][name] = self_check(stack, EAGER)
            if device.type == "cuda":
                with attention_backend("flash"):
                    report["checks"][name + " compiled, flash"] = self_check(stack, stack.compiled)
                    fitting = [point for point in PROFILED if point.kv_tokens <= stack.pool_tokens]
                    report["breakdown"][name] = {
                        f"{point.phase} n={point.tokens} C={point.context_sum}": breakdown(_profiled(stack, point))
                        for point in fitting
                    }
        print(f"# {name}: {report['checks'][name]}", flush=True)
        session.measure(stack, points)
        del stack
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    if idle:
        time.sleep(idle)
        report["idle"]["after the last run"] = _idle(board.watch(idle))
    report["machine"]["temperature_at_end_c"] = facts().get("temperature_c")
    return report | {"left_out": session.left_out, "power_from": sorted(session.power_sources - {""}), "window_s": settings.seconds}


def _profiled(stack: Stack, point: Point) -> Callable[[], object]:
    batch = stack.batch(point)

    def step() -> object:
        return stack.step(batch, stack.compiled)

    warm_up(step, stack.device)
    return step


if __name__ == "__main__":
    main()
