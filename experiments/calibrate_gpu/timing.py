"""Times of a step over a window: CUDA graphs or plain launches, events around every step, board power beside it."""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch

from .board import Board, Reading

LEAST_STEPS, MOST_STEPS = 7, 4000
# What a CUDA kernel's name says of its part in a layer; the first that fits. Library kernels have many names.
KINDS = (
    ("attention", ("flash", "fmha", "sdpa", "attention")),
    ("linear", ("gemm", "nvjet", "cutlass", "xmma", "gemv", "splitk", "cublas", "wgmma")),
)


@dataclass(frozen=True)
class Timed:
    """Step times in seconds over one window, and the board in it."""

    median_s: float
    p10_s: float
    p90_s: float
    repetitions: int
    board: Reading


def captured(step: Callable[[], object]) -> Callable[[], object]:
    """Return the replay of a step as a CUDA graph."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def warm_up(step: Callable[[], object], device: torch.device, times: int = 3) -> None:
    """Run a step on another stream, as capture asks for, so that libraries choose kernels and compilers are done."""
    if device.type == "cpu":
        step()
        return
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(times):
            step()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()


def timed(step: Callable[[], object], device: torch.device, board: Board | None, seconds: float, rest: int = 0) -> Timed:
    """Run a step for so many seconds, after a fifth of that unmeasured, and return its times.

    Without rest a step's time is that between two events on the stream, one after each step: it includes the
    wait for the next. With rest the GPU has `rest` step times of pause after each step, and the time is that from
    its start to its end.
    """
    first = _steps(step, device, 2)
    warm = _steps(step, device, _count(0.2 * seconds, first, 1))
    count = _count(seconds, warm, LEAST_STEPS)
    start_ns = time.monotonic_ns()
    fewer = max(LEAST_STEPS, count // (1 + rest))
    times = sorted(_rested(step, device, fewer, rest * min(first)) if rest else _steps(step, device, count))
    reading = board.between(start_ns, time.monotonic_ns()) if board else Reading()
    return Timed(_quantile(times, 0.5), _quantile(times, 0.1), _quantile(times, 0.9), len(times), reading)


def _count(seconds: float, times: list[float], least: int) -> int:
    middle = max(sorted(times)[len(times) // 2], 1e-6)
    return max(least, min(MOST_STEPS, math.ceil(seconds / middle)))


def _quantile(ordered: list[float], share: float) -> float:
    at = share * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])


def _steps(step: Callable[[], object], device: torch.device, count: int) -> list[float]:
    if device.type == "cpu":
        marks = [time.perf_counter()]
        for _ in range(count):
            step()
            marks.append(time.perf_counter())
        return [after - before for before, after in itertools.pairwise(marks)]
    events = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
    events[0].record()
    for event in events[1:]:
        step()
        event.record()
    torch.cuda.synchronize()
    return [before.elapsed_time(after) / 1000 for before, after in itertools.pairwise(events)]


def _rested(step: Callable[[], object], device: torch.device, count: int, pause_s: float) -> list[float]:
    times = []
    for _ in range(count):
        time.sleep(pause_s)
        if device.type == "cpu":
            times += _steps(step, device, 1)
            continue
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        step()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1000)
    return times


def breakdown(step: Callable[[], object], steps: int = 3) -> dict[str, object]:
    """Return where the GPU's time in a step goes, by the profiler: milliseconds by kind of kernel, and the longest kernels.

    The profiler's own cost is in the launches, not in these times.
    """
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA, torch.profiler.ProfilerActivity.CPU]) as profile:
        for _ in range(steps):
            step()
        torch.cuda.synchronize()
    kinds: Counter[str] = Counter()
    kernels: Counter[str] = Counter()
    count = 0
    for event in profile.events():
        if event.device_type != torch.autograd.DeviceType.CUDA:
            continue
        milliseconds = event.self_device_time_total / 1000 / steps
        name = event.name.lower()
        kind = next((kind for kind, words in KINDS if any(word in name for word in words)), "other")
        kinds[kind] += milliseconds
        kernels[event.name[:100]] += milliseconds
        count += 1
    return {
        "kernels_per_step": round(count / steps),
        "ms_by_kind": {kind: round(milliseconds, 4) for kind, milliseconds in kinds.most_common()},
        "longest_ms": {name: round(milliseconds, 4) for name, milliseconds in kernels.most_common(8)},
    }


def roofs(device: torch.device, seconds: float = 0.5) -> dict[str, float]:
    """Return what the board does at best here: TFLOP/s of large products and attention, GB/s of copies and reads.

    Products are of 8,192 cubed in random values; copies count bytes read and written.
    """
    size, found = 8192, {}
    a = torch.randn(size, size, dtype=torch.bfloat16, device=device)
    b = torch.randn(size, size, dtype=torch.bfloat16, device=device)

    def rate(step: Callable[[], object], work: float) -> float:
        warm_up(step, device)
        return work / timed(step, device, None, seconds).median_s

    found["bf16_tflops"] = rate(lambda: a @ b.t(), 2 * size**3) / 1e12
    a8, b8 = a.to(torch.float8_e4m3fn), b.to(torch.float8_e4m3fn)
    one = torch.ones((), device=device)
    ones_a, ones_b = torch.ones(size, 1, device=device), torch.ones(1, size, device=device)
    for name, scales in (("fp8_tflops", (one, one)), ("fp8_row_scales_tflops", (ones_a, ones_b))):
        options = {"scale_a": scales[0], "scale_b": scales[1], "out_dtype": torch.bfloat16, "use_fast_accum": True}
        try:
            found[name] = rate(functools.partial(torch._scaled_mm, a8, b8.t(), **options), 2 * size**3) / 1e12
        except RuntimeError as error:
            print(f"# no {name}: {str(error).splitlines()[0]}")
    source = torch.randn(1 << 30, dtype=torch.bfloat16, device=device)
    target = torch.empty_like(source)
    found["copy_gb_per_s"] = rate(lambda: target.copy_(source), 2 * source.nbytes) / 1e9
    found["read_gb_per_s"] = rate(lambda: source.view(torch.int32).max(), source.nbytes) / 1e9
    return {name: round(value, 1) for name, value in found.items()}
