"""What a look at the compiled engine filled, as a `View`: a column is cut out of its array when it is first read.

A look of a controller reads a handful of the columns, and cutting them all out took as long as filling them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sim.dataplane.engine import FloatArray, IntArray, View
from sim.dataplane.kernel_looking import COUNTER_COUNT, FLOAT_COLUMNS, REPLICA_COLUMNS, STREAM_COLUMNS

# In the order of the kernel.
_BY_STREAM = ("queued", "in_flight", "thrown_back", "queued_us", "in_flight_us")
_BY_REPLICA = (
    "replica",
    "spec",
    "accepting",
    "waiting",
    "running",
    "outstanding",
    "from_backlog",
    "reserved_tokens",
    "kv_used_tokens",
    "busy_ns",
    "draining_busy_ns",
    "steps",
    "prefill_tokens",
    "output_tokens",
)
_FLOATS_BY_REPLICA = ("lost_ns", "energy_j")
# Where a view keeps the arrays and where their columns lie.
_INTS, _FLOATS, _CUTS = "_ints", "_floats", "_cuts"


class ViewPlaces:
    """Where the columns of a view lie in the two arrays that the kernel fills, for so many replicas, streams and queues."""

    def __init__(self, replicas: int, streams: int, queues: int) -> None:
        self.replicas = replicas
        by_stream = REPLICA_COLUMNS * replicas
        counters = by_stream + STREAM_COLUMNS * streams
        lengths = counters + COUNTER_COUNT * streams
        shares = FLOAT_COLUMNS * replicas
        self.ints, self.floats = lengths + queues, shares + streams * replicas
        # Column: in which array, which part of it, and its second dimension, 0 for none.
        self.cuts: dict[str, tuple[str, slice, int]] = {
            "counters": (_INTS, slice(counters, lengths), COUNTER_COUNT),
            "service_queue": (_INTS, slice(lengths, self.ints), 0),
            "shares_ns": (_FLOATS, slice(shares, self.floats), streams),
        }
        for names, array, start, size in (
            (_BY_STREAM, _INTS, by_stream, streams),
            (_BY_REPLICA, _INTS, 0, replicas),
            (_FLOATS_BY_REPLICA, _FLOATS, 0, replicas),
        ):
            for place, name in enumerate(names):
                self.cuts[name] = array, slice(start + place * size, start + (place + 1) * size), 0

    def arrays(self) -> tuple[IntArray, FloatArray]:
        """Return two arrays for the kernel to fill."""
        return np.empty(self.ints, np.int64), np.empty(self.floats, np.float64)


class CompiledView(View):
    """A view whose columns are cut out of what the kernel filled when they are first read, and then kept."""

    @classmethod
    def of(cls, t_ns: int, places: ViewPlaces, ints: IntArray, floats: FloatArray, ring: tuple[IntArray, IntArray]) -> CompiledView:
        """Return the view of two arrays that the kernel has filled.

        Parameters
        ----------
        ring : arrivals and in-flight time by second.
        """
        view = object.__new__(cls)
        # A frozen dataclass would set every field on its own.
        kept = vars(view)
        kept["time_ns"], kept[_CUTS], kept[_INTS], kept[_FLOATS] = t_ns, places.cuts, ints, floats
        kept["ring_arrivals"], kept["ring_in_flight_us"] = ring
        return view

    def __getattr__(self, name: str) -> npt.NDArray[Any]:
        kept = vars(self)
        try:
            array, part, width = kept[_CUTS][name]
        except KeyError:
            raise AttributeError(f"a view has no {name!r}") from None
        column: npt.NDArray[Any] = kept[array][part]
        if width:
            column = column.reshape(-1, width)
        kept[name] = column
        return column
