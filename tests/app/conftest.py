"""The kernel is compiled before anything in this folder is run, so that no message about it comes in between."""

from __future__ import annotations

import importlib

import pytest


@pytest.fixture(scope="session", autouse=True)
def kernel_is_compiled() -> None:
    """Load the compiled engine, and compile it where this is the first time."""
    importlib.import_module("sim.dataplane.compiled")
