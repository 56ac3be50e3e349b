"""Every behaviour test runs on every engine."""

from __future__ import annotations

import pytest

from sim.dataplane.compiled import CompiledPlane
from sim.dataplane.engine import DataPlane
from sim.dataplane.reference import ReferencePlane


@pytest.fixture(params=[ReferencePlane, CompiledPlane], ids=lambda engine: engine.__name__)
def engine(request: pytest.FixtureRequest) -> type[DataPlane]:
    """One engine class after the other."""
    return request.param
