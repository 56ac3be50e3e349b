"""Where the compiled kernel is kept: in the user's cache folder, one folder for each version of its sources."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numba

from sim import bins
from sim.dataplane import layout

COMPILE_S = 20
PATTERN = "kernel*.py"

log = logging.getLogger(__name__)
config: Any = numba.config


def cache_folder() -> Path:
    """Return the folder of the compiled kernel, named by a hash of everything it is made from.

    Numba looks only at the file of a function, not at the helpers and constants it uses, so it would run old code after an edit
    elsewhere.
    """
    digest = hashlib.blake2b(digest_size=8)
    here = Path(__file__).parent
    assert bins.__file__ is not None
    for path in (*sorted(here.glob(PATTERN)), Path(layout.__file__), Path(bins.__file__)):
        digest.update(path.read_bytes())
    for package in ("numba", "numpy"):
        digest.update(version(package).encode())
    name = f"kernel-{digest.hexdigest()}"
    for base in (os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", tempfile.gettempdir()):
        folder = Path(base) / "billcast" / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    return Path(tempfile.mkdtemp(prefix="billcast-"))


@cache
def kernel_folder() -> str:
    """Return the cache folder of this process; says so if it is empty and the kernel is about to be compiled."""
    folder = cache_folder()
    if not any(folder.rglob("*.nbi")):
        log.warning("compiling kernels, once (about %d s)", COMPILE_S)
    return str(folder)


@contextmanager
def cached_here() -> Iterator[None]:
    """Let functions decorated inside be cached in the kernel's folder; numba chooses the folder when it decorates."""
    before, config.CACHE_DIR = config.CACHE_DIR, kernel_folder()
    try:
        yield
    finally:
        config.CACHE_DIR = before
