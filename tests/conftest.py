"""Makes the helpers of this folder importable from every folder of tests, and checks the laws of every simulated run."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import pytest

from sim.results.invariants import check_run
from sim.results.records import RunResult, RunWriter
from sim.studies import runner


class CheckedWriter(RunWriter):
    """A writer that lets no run through that breaks a conservation law."""

    def commit(self, summary: Mapping[str, Any], manifest: Mapping[str, Any]) -> RunResult:
        """Write the run and check it."""
        result = super().commit(summary, manifest)
        check_run(result)
        return result


@pytest.fixture(scope="session", autouse=True)
def kernel_is_compiled() -> None:
    """Load the compiled engine, and compile it where this is the first time, so that no message about it comes in between."""
    importlib.import_module("sim.dataplane.compiled")


@pytest.fixture(autouse=True)
def every_run_keeps_the_laws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the checked writer wherever a scenario is simulated in a test."""
    monkeypatch.setattr(runner, "RunWriter", CheckedWriter)
