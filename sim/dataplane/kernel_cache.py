"""Where the compiled kernel is kept: in the user's cache folder, one folder for each version of its sources."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numba

from sim import bins
from sim.dataplane import layout
from sim.policies import routers

COMPILE_S = 20
PATTERN = "kernel*.py"
# What the kernel takes constants from.
CONSTANTS = (bins, layout, routers)
NAME = "kernel-"

# Kernels of other versions: these many that were used last are kept, older ones once nobody has used them for so long.
KEPT = 4
KEPT_DAYS = 14
SECONDS_PER_DAY = 86_400

log = logging.getLogger(__name__)
config: Any = numba.config


def cache_folder() -> Path:
    """Return the folder of the compiled kernel, named by a hash of everything it is made from.

    Numba looks only at the file of a function, not at the helpers and constants it uses, so it would run old code after an edit
    elsewhere.
    """
    digest = hashlib.blake2b(digest_size=8)
    here = Path(__file__).parent
    for path in (*sorted(here.glob(PATTERN)), *(Path(str(module.__file__)) for module in CONSTANTS)):
        digest.update(path.read_bytes())
    for package in ("numba", "numpy"):
        digest.update(version(package).encode())
    name = NAME + digest.hexdigest()
    for base in (os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", tempfile.gettempdir()):
        folder = Path(base) / "billcast" / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                os.utime(folder)  # used now: see `prune`
                return folder
        except OSError:
            continue
    return Path(tempfile.mkdtemp(prefix="billcast-"))


def prune(home: Path, now_s: float) -> list[str]:
    """Delete the kernels of other versions that nobody has used for a while; returns their names.

    Parameters
    ----------
    home : the folder of all kernels. now_s : seconds since the epoch, as in the times of files.

    Notes
    -----
    A process touches its folder before it reads or writes there. So a folder is moved out of the way first, under a name that no
    process looks for, and deleted only if it is still old then; one that was touched in between is moved back. What cannot be
    moved or deleted (another process was faster, another owner) is left.
    """
    latest_s = now_s - KEPT_DAYS * SECONDS_PER_DAY
    folders = sorted(((_used_s(folder), folder.name) for folder in home.glob(f"{NAME}*")), reverse=True)
    deleted = []
    for used_s, name in folders[KEPT:]:
        folder, aside = home / name, home / f"deleted-{name}-{os.getpid()}"
        if used_s >= latest_s:
            continue
        try:
            folder.rename(aside)
            if _used_s(aside) >= latest_s:
                aside.rename(folder)
                continue
        except OSError:
            continue
        shutil.rmtree(aside, ignore_errors=True)
        deleted.append(name)
    return deleted


def _used_s(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:  # gone in the meantime
        return 0.0


@cache
def kernel_folder() -> str:
    """Return the cache folder of this process; says so if it is empty and the kernel is about to be compiled."""
    folder = cache_folder()
    if not any(folder.rglob("*.nbi")):
        log.warning("compiling kernels, once (about %d s)", COMPILE_S)
        prune(folder.parent, time.time())
    return str(folder)


@contextmanager
def cached_here() -> Iterator[None]:
    """Let functions decorated inside be cached in the kernel's folder; numba chooses the folder when it decorates."""
    before, config.CACHE_DIR = config.CACHE_DIR, kernel_folder()
    try:
        yield
    finally:
        config.CACHE_DIR = before
