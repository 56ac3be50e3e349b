"""Makes the helpers of this folder importable from every folder of tests, and checks the laws of every simulated run."""

from __future__ import annotations

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


@pytest.fixture(autouse=True)
def every_run_keeps_the_laws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the checked writer wherever a scenario is simulated in a test."""
    monkeypatch.setattr(runner, "RunWriter", CheckedWriter)
