"""What accounting costs: the kernel beside copies of itself in which some accounts are left out, in alternation.

Each copy is a process of its own, which repeats its measurement whenever it is asked: `python -m benchmarks.accounts`.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks.engine_speed import SHARE_OF_HORIZON, Timed, measure

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("sim", "configs", "benchmarks")
FLEETS = ("bench_chat8", "bench_chat512")

# Name of a part -> module and function of the kernel -> what its body becomes.
PARTS: dict[str, dict[tuple[str, str], str]] = {
    "histograms and SLO counters": {("kernel_accounts", "count_completed"): "m[t + T_COUNTERS + N_COMPLETED] += 1\nreturn True"},
    "energy": {("kernel_steps", "energy_j"): "return 0.0"},
    "shares of time by stream": {("kernel_steps", "charge_shares"): "return"},
}
ALL = "all three"


def without(source: str, function: str, body: str) -> str:
    """Return the source of a module in which a function has another body.

    Raises
    ------
    ValueError : the module has no such function.

    Examples
    --------
    >>> print(without("def f(x):\\n    return x + 1", "f", "return 0"))
    def f(x):
        return 0
    """
    tree = ast.parse(source)
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function]
    if len(found) != 1:
        raise ValueError(f"the kernel has no function {function}")
    found[0].body = ast.parse(f"def f():\n{_indented(body)}").body[0].body  # type: ignore[attr-defined]
    return ast.unparse(tree)


def _indented(body: str) -> str:
    return "\n".join(f"    {line}" for line in body.splitlines())


def _copy(folder: Path, parts: list[str]) -> None:
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for part in parts:
        for (module, function), body in PARTS[part].items():
            path = folder / "sim" / "dataplane" / f"{module}.py"
            path.write_text(without(path.read_text("utf-8"), function, body), "utf-8")


class _Copy:
    """A process that measures with its own copy of the package."""

    def __init__(self, home: Path, name: str, parts: list[str]) -> None:
        folder = home / name.replace(" ", "_")
        _copy(folder, parts)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.accounts"],
            cwd=folder,
            env={**os.environ, "XDG_CACHE_HOME": str(folder / "cache")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.measure("bench_chat8", 1.0)  # compiles

    def measure(self, scenario: str, horizon_s: float) -> Timed:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps([scenario, horizon_s]), file=self.process.stdin, flush=True)
        return Timed(**json.loads(self.process.stdout.readline()))

    def end(self) -> None:
        self.process.communicate()


def account_costs(horizon_s: float, repetitions: int) -> dict[str, object]:
    """Return the time of the kernel without some accounts over its time with all of them, by part and fleet.

    Parameters
    ----------
    horizon_s : simulated time of `bench_chat8`; the larger fleet gets a share of it.
    """
    parts = {**{name: [name] for name in PARTS}, ALL: list(PARTS)}
    ratios: dict[str, dict[str, list[float]]] = {name: {fleet: [] for fleet in FLEETS} for name in parts}
    with tempfile.TemporaryDirectory() as home:
        whole = _Copy(Path(home), "whole", [])
        copies = {name: _Copy(Path(home), name, left_out) for name, left_out in parts.items()}
        for _ in range(repetitions):
            for fleet in FLEETS:
                seconds = horizon_s * SHARE_OF_HORIZON[fleet]
                for name, copy in copies.items():
                    full = whole.measure(fleet, seconds)
                    ratios[name][fleet].append(copy.measure(fleet, seconds).advance_s / full.advance_s)
        for copy in (whole, *copies.values()):
            copy.end()
    return {name: {fleet: statistics.median(found) for fleet, found in by_fleet.items()} for name, by_fleet in ratios.items()}


def serve() -> None:
    """Measure whenever a line of standard input asks for it."""
    for line in sys.stdin:
        print(json.dumps(asdict(measure(*json.loads(line), engine="compiled"))), flush=True)


if __name__ == "__main__":
    serve()
