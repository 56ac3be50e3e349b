"""Where a result comes from: versions, source state, machine, inputs."""

from __future__ import annotations

import hashlib
import inspect
import platform
import resource
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import sim
from sim.control.world import World
from sim.domain.grid_series import GridSeries
from sim.scenario.resolve import Resolved, ResolvedPool
from sim.schema import SCHEMA_VERSION

NANO = 1_000_000_000
PACKAGES = ("simpy", "numpy", "scipy", "numba", "duckdb", "hydra-core", "tzdata")
# Each level contains the ones before it; the names are those of the x86-64 psABI.
_LEVELS = (("x86-64-v4", "avx512f"), ("x86-64-v3", "avx2"), ("x86-64-v2", "sse4_2"))


def versions() -> dict[str, str]:
    """Return the versions of Python, billcast and the packages whose arithmetic or order can show in a result."""
    found = {"python": platform.python_version(), "billcast": sim.__version__}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def cpu_level() -> str:
    """Return the CPU feature level: results are byte-identical on one level (numpy's exp and log differ between levels)."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        return platform.machine()
    return next((level for level, flag in _LEVELS if flag in flags), platform.machine())


def git_state() -> str:
    """Return the commit of the source tree billcast runs from, with "+changes" if it is modified; "" for an installed package."""
    folder = Path(sim.__file__).resolve().parent
    if not (folder.parent / ".git").exists():
        return ""

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        commit = git("rev-parse", "HEAD")
        return commit + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.TimeoutExpired):
        return ""


def peak_rss_mb() -> float:
    """Return the peak resident memory of this process in MB (1e6 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6


def sites(resolved: Resolved) -> dict[str, dict[str, object]]:
    """Return pool -> its electricity: grid, PUE, price and carbon with their sources, and how sure each number of its energy is."""
    return {name: _site(pool) for name, pool in resolved.pools.items()}


def _site(pool: ResolvedPool) -> dict[str, object]:
    site, accelerator = pool.site, pool.accelerator
    return {
        "grid": site.grid,
        "pue": site.pue,
        "intensity": site.intensity,
        "host_w": pool.instance.host_w,
        "price": _series(site.price),
        "carbon": _series(site.carbon),
        "confidence": {
            "steps": accelerator.power.provenance.confidence,
            "idle": accelerator.provenance.confidence,
            "host": pool.instance.provenance.confidence,
            "pue": site.pue_confidence,
            "price": site.price.confidence,
            "carbon": site.carbon.confidence,
        },
    }


def _series(series: GridSeries) -> dict[str, object]:
    """A price or an intensity: the least and the most of it per kWh in USD or grams, and where it is from."""
    known = series.known
    return {
        "least": min(known) / NANO,
        "most": max(known) / NANO,
        "source": series.source,
        "path": series.path,
        "repeated": series.repeated,
        "filled_hours": series.filled_hours,
        "negative_hours": series.negative_hours,
    }


def input_hashes(world: World) -> dict[str, str]:
    """Return path -> sha256 of every file a run depends on beside billcast: traces, tables, a catalog overlay, plug-ins."""
    scenario = world.resolved.scenario
    hashes = {path: digest for source in world.sources.values() for path, digest in source.inputs.items()}
    files = {scenario.catalog} if scenario.catalog else set()
    choices: list[object] = [choice for service in scenario.services.values() for choice in (service.workload, service.router)]
    choices += [item for deployment in scenario.deployments.values() for item in (deployment.autoscaler, deployment.placement)]
    choices += scenario.taps.values()
    for choice in choices:
        if not type(choice).__module__.startswith("sim."):
            files.add(inspect.getsourcefile(type(choice)) or "")
    files |= {deployment.step_table.path for deployment in scenario.deployments.values()}
    files |= {path for pool in world.resolved.pools.values() for path in pool.site.files}
    for path in files - {""}:
        hashes[path] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return dict(sorted(hashes.items()))


def provenance() -> dict[str, object]:
    """Return what a manifest says about software and machine."""
    return {
        "schema_version": SCHEMA_VERSION,
        "versions": versions(),
        "git": git_state(),
        "cpu_level": cpu_level(),
        "platform": platform.platform(),
    }
