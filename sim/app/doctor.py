"""The check of an installation: what billcast needs, whether it is there, and what to do where it is not."""

from __future__ import annotations

import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sim.app.conf import config_dir, scenario_names

PYTHON_FROM, PYTHON_BELOW = (3, 11), (3, 14)
DATA_VARIABLE = "BILLCAST_DATA"
# Bytes of a result folder of a long run, with room to spare.
LEAST_FREE_BYTES = 500_000_000


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Parameters
    ----------
    fine : False where it keeps billcast from working. advice : what to do then, or what to know.
    """

    what: str
    found: str
    fine: bool = True
    advice: str = ""


def examine() -> list[Finding]:
    """Look at the interpreter, the dependencies, the configs, the places that are written to, and the data folder.

    Examples
    --------
    >>> all(finding.advice for finding in examine() if not finding.fine)
    True
    """
    return [_python(), *_packages(), _cores(), _configs(), _writable(), _kernel_cache(), _data()]


def show_findings(findings: list[Finding], console: Console) -> None:
    """Print what was found, and what to do about what is wrong."""
    table = Table(show_header=False, box=None, pad_edge=False)
    for finding in findings:
        mark = "ok" if finding.fine else "[red]wrong[/red]"
        table.add_row(mark, finding.what, escape(finding.found) + (f" ({escape(finding.advice)})" if finding.advice else ""))
    console.print(table)
    wrong = sum(not finding.fine for finding in findings)
    console.print("everything that is needed is there" if not wrong else f"{wrong} to put right")


def _python() -> Finding:
    fine = PYTHON_FROM <= sys.version_info[:2] < PYTHON_BELOW
    advice = "" if fine else "billcast needs Python 3.11, 3.12 or 3.13: make PYTHON=/path/to/python3.12 clean run"
    return Finding("python", platform.python_version(), fine, advice)


def _packages() -> Iterator[Finding]:
    for requirement in requires("billcast") or []:
        if "extra ==" in requirement:
            continue
        name = re.split(r"[<>=!~;\[ ]", requirement, maxsplit=1)[0]
        try:
            installed, met = version(name), _meets(version(name), requirement.removeprefix(name))
        except PackageNotFoundError:
            installed, met = "not installed", False
        yield Finding(name, installed, met, "" if met else f"needed: {requirement}; pip install '{requirement}'")


def _meets(installed: str, specifier: str) -> bool:
    """Whether a version meets bounds such as ">=2.0,<2.6", compared by the numbers of its release."""
    for bound in filter(None, specifier.split(";")[0].replace(" ", "").split(",")):
        match = re.fullmatch(r"(>=|<)([0-9.]+)", bound)
        if match is None:
            continue
        have, limit = _release(installed), _release(match.group(2))
        if (have < limit) if match.group(1) == ">=" else (have >= limit):
            return False
    return True


def _release(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"[0-9]+", text)[:3])


def _cores() -> Finding:
    return Finding("cpu cores", str(os.cpu_count() or "unknown"))


def _configs() -> Finding:
    folder = config_dir()
    if not (folder / "scenario" / "quickstart.yaml").is_file():
        return Finding("configs", str(folder), fine=False, advice="the folder is not there or not whole: install billcast again")
    return Finding("configs", f"{folder}: {', '.join(scenario_names())}")


def _writable() -> Finding:
    here = Path.cwd()
    try:
        with tempfile.TemporaryDirectory(dir=here):
            stat = os.statvfs(here)
    except OSError as error:
        return Finding(
            "results", str(here), fine=False, advice=f"cannot write here ({error.strerror}); use out=DIR or another folder"
        )
    free = stat.f_bavail * stat.f_frsize
    fine = free >= LEAST_FREE_BYTES
    advice = "" if fine else f"less than {LEAST_FREE_BYTES / 1e6:.0f} MB are free; use out=DIR on another disk"
    return Finding("results", f"{here} can be written to, {free / 1e9:.1f} GB free", fine, advice)


def _kernel_cache() -> Finding:
    """Where the compiled engine is kept, and whether it has been compiled."""
    from sim.dataplane.kernel_cache import NAME, cache_folder

    folder = cache_folder()
    if not folder.name.startswith(NAME):
        advice = (
            "no cache folder can be written to, so it is compiled anew in every process; set XDG_CACHE_HOME to a folder of yours"
        )
        return Finding("compiled engine", "not kept", advice=advice)
    advice = "" if any(folder.rglob("*.nbi")) else "the first run compiles it, once"
    return Finding("compiled engine", str(folder), advice=advice)


def _data() -> Finding:
    folder = Path(os.environ.get(DATA_VARIABLE) or Path(__file__).resolve().parents[2].parent / "shared" / "data")
    if folder.is_dir():
        return Finding("measured data", str(folder))
    advice = f"only `make validate` needs it; set {DATA_VARIABLE} to the folder"
    return Finding("measured data", "not found", advice=advice)
