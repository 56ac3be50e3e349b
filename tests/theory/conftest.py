"""Every engine must be every queue."""

from __future__ import annotations

import pytest

from sim.dataplane.compiled import CompiledPlane
from sim.dataplane.engine import DataPlane
from sim.dataplane.reference import ReferencePlane


@pytest.fixture(scope="session", params=[ReferencePlane, CompiledPlane], ids=lambda plane: plane.__name__)
def engine(request: pytest.FixtureRequest) -> type[DataPlane]:
    """The class of the engine under test."""
    plane: type[DataPlane] = request.param
    return plane
