"""Where a run puts the rows of its tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy.typing as npt


class TableSink(Protocol):
    """Takes rows of the tables of `sim.schema`: a spool that writes them, or a replay that looks at them and lets them go."""

    def append(self, table: str, row: Mapping[str, object]) -> None:
        """Add a row, given by column name."""

    def extend(self, table: str, columns: Mapping[str, npt.ArrayLike]) -> None:
        """Add rows, given as one array per column, all of one length."""
