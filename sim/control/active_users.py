"""Who was active: the clients that completed a request, counted once a month and once a run, in memory that no horizon changes.

Clients are those of closed loops and the users of generated traffic: each is a number of a pool whose size is known. The engines
keep when each of them last completed a request of each stream; a client was active in a month if that was after the month began,
seen at the end of the month. Requests of other workloads do not say who sends them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from sim.control.sink import TableSink
from sim.control.world import Plane, World
from sim.results.periods import Calendar, periods

NEVER = -1
ALL_STREAMS = -1


class ActiveUsers:
    """Counts the active clients of every service and stream at the ends of the account's months, and at the end of the run.

    Parameters
    ----------
    world : whose planes are asked. sink : takes the rows of `active_users`.
    """

    def __init__(self, world: World, sink: TableSink) -> None:
        self.world, self.sink = world, sink
        calendar = Calendar.of(world.resolved.scenario.to_dict())
        self.horizon_ns = calendar.horizon_ns
        months = periods(calendar.start, calendar.horizon_ns, calendar.account_zone, "month")
        self.months = {month.end_ns: month for month in months}

    def look(self, at_ns: int) -> None:
        """Count, if a month or the run ends here; everything up to this instant has happened."""
        month = self.months.get(at_ns)
        if month is None:
            return
        for plane in self.world.planes:
            done_ns = plane.engine.client_done_ns()
            if len(done_ns):
                self._write(plane, done_ns > month.start_ns, month.label, month.start_ns, at_ns)
                if at_ns == self.horizon_ns:
                    self._write(plane, done_ns > NEVER, "", 0, at_ns)

    def _write(self, plane: Plane, active: npt.NDArray[np.bool_], month: str, from_ns: int, to_ns: int) -> None:
        for service, clients, streams in _clients_of(plane, self.world):
            mine = active[:, streams]
            counts = [(ALL_STREAMS, "", int(mine.any(axis=1).sum()))]
            counts += [
                (plane.streams[local].number, plane.streams[local].segment, int(column.sum()))
                for local, column in zip(streams, mine.T, strict=True)
            ]
            for stream, segment, users in counts:
                self.sink.append("active_users", {
                    "month": month, "start_ns": from_ns, "end_ns": to_ns, "service": service, "stream": stream, "segment": segment,
                    "users": users, "clients": clients,
                })  # fmt: skip


def _clients_of(plane: Plane, world: World) -> Iterator[tuple[str, int, list[int]]]:
    """The services of a plane that say who sends: name, how many clients or users, local numbers of their streams."""
    for service in plane.services:
        source = world.sources[service]
        clients = source.users if source.closed is None else source.closed.clients
        if clients:
            yield service, clients, [local for local, stream in enumerate(plane.streams) if stream.service == service]
