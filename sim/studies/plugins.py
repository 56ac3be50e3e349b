"""Files of one's own that register choices: `--plugin my_policy.py`. They are code, and run as such."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from sim.errors import InputError, Problem

_PREFIX = "billcast_plugin_"


def load_plugins(files: Sequence[str | Path]) -> None:
    """Import plug-in files, and let the processes of a parallel sweep find them too.

    Their folders go on `sys.path`, for what a plug-in imports from beside it, and on `PYTHONPATH`, which child processes inherit.
    """
    for file in files:
        folder = str(Path(file).resolve().parent)
        if folder not in sys.path:
            sys.path.append(folder)
        known = os.environ.get("PYTHONPATH", "")
        if folder not in known.split(os.pathsep):
            os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (known, folder)))
        load_plugin(file)


def load_plugin(file: str | Path) -> None:
    """Import a Python file by its path, once, so that what it registers can be chosen by name.

    Parameters
    ----------
    file : path of the file. A file of the same name and content is the same plug-in, wherever it lies.

    Raises
    ------
    InputError : no such file, or it raises when it is imported.
    """
    path = Path(file).resolve()
    if not path.is_file() or path.suffix != ".py":
        raise InputError([Problem("--plugin", str(file), "there is no such Python file", "a file that ends in .py")])
    name = f"{_PREFIX}{path.stem}_{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up while they are made.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise InputError([Problem("--plugin", str(file), f"cannot be imported: {type(error).__name__}: {error}")]) from error


def plugin_file(cls: type) -> str:
    """Return the path of the plug-in a class is from, or "" for a class of any other module."""
    return str(sys.modules[cls.__module__].__file__) if cls.__module__.startswith(_PREFIX) else ""
