"""A stretch of a saved run again, with a record of every request: for looking closely at one request or one replica.

The manifest holds the resolved scenario, and a run is a function of it; so the compiled engine runs it again, as far as needed.
Nothing is written. What was saved is compared with what is replayed, window by window, so a replay either shows the run or says
that it cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.control.loop import Loop, Progress, begin
from sim.control.world import build_world
from sim.errors import InputError, Problem, Problems, RunError
from sim.results.records import RunResult
from sim.scenario.model import Scenario
from sim.scenario.plain import scenario_from_plain
from sim.scenario.resolve import resolve
from sim.schema import TABLES
from sim.studies.provenance import input_hashes, versions

Columns = dict[str, npt.NDArray[Any]]
MOST_REQUESTS = 200_000
_CHECKED = ("windows", "events", "decisions")
# Filled when the tables are merged, from the ledger.
_LATER = {"windows": {"cost_nano_usd"}}
UNFINISHED = "unfinished"


@dataclass(frozen=True)
class Replay:
    """What a replay kept.

    Parameters
    ----------
    requests : rows of the table `requests`, by column, in order of leaving. end_ns : how far the run was replayed; one that is
        "unfinished" was still in the system then.
    """

    requests: Columns
    end_ns: int


def replay_request(
    result: RunResult, request: int, service: str | None = None, progress: Callable[[Progress], None] | None = None
) -> Replay:
    """Replay a run until a request has left, and return its record.

    Parameters
    ----------
    request : arrival number in its data plane, from 0. service : one of the plane's services; None where there is only one plane.

    Raises
    ------
    InputError : no such request, or an input of the run that is not there any more.
    RunError : the replay does not reproduce the saved run.
    """
    scenario = scenario_of(result)
    plane = _plane(scenario, service)
    services = scenario.planes()[plane]
    arrived = _arrived(result, services)
    if not 0 <= request < arrived:
        allowed = f"0 to {arrived - 1}" if arrived else "none: nothing arrived"
        raise InputError([Problem("--request", request, f"there is no such request of {', '.join(services)}", allowed)])

    def wanted(rows: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.bool_]:
        mask: npt.NDArray[np.bool_] = (rows["plane"] == plane) & (rows["request"] == request)
        return mask

    return _replay(result, scenario, wanted, lambda kept, _: kept.count > 0, progress)


def replay_replica(
    result: RunResult, replica: int, from_ns: int, until_ns: int, progress: Callable[[Progress], None] | None = None
) -> Replay:
    """Replay a run to the end of a stretch, and return the records of the requests that were on a replica during it.

    A request is known by its last replica, from when it came there.

    Parameters
    ----------
    replica : its number in the table `replicas`. from_ns, until_ns : the stretch, since the scenario start.

    Raises
    ------
    InputError : an input of the run that is not there any more, or more than `MOST_REQUESTS` requests.
    RunError : the replay does not reproduce the saved run.
    """

    def wanted(rows: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.bool_]:
        overlaps = (rows["leave_ns"] >= from_ns) & (rows["dispatched_ns"] <= until_ns)
        mask: npt.NDArray[np.bool_] = (rows["replica"] == replica) & overlaps
        return mask

    return _replay(result, scenario_of(result), wanted, lambda _, now_ns: now_ns >= until_ns, progress)


def scenario_of(result: RunResult) -> Scenario:
    """Return the scenario of a saved run as a replay runs it: compiled, with all records and without taps.

    Raises
    ------
    InputError : something in it is not known here, such as a policy of a plug-in that is not loaded.
    """
    plain = {**result.manifest["scenario"], "taps": {}, "engine": "compiled", "records": "all"}
    problems = Problems()
    scenario = scenario_from_plain(plain, problems)
    problems.raise_if_any()
    return scenario


def _plane(scenario: Scenario, service: str | None) -> int:
    planes = scenario.planes()
    if service is None and len(planes) == 1:
        return 0
    found = [number for number, members in enumerate(planes) if service in members]
    if not found:
        message = "is not a service of the run" if service else "must be given: request numbers are counted by service"
        problems = Problems()
        problems.add("--service", service or "", message, choices=scenario.services)
        problems.raise_if_any()
    return found[0]


def _arrived(result: RunResult, services: list[str]) -> int:
    windows = result.table("windows")
    return int(windows["arrived"][np.isin(windows["service"], services)].sum())


@dataclass
class _Kept:
    """A sink that keeps the wanted requests and the rows to be compared, and lets everything else go."""

    wanted: Callable[[Mapping[str, npt.NDArray[Any]]], npt.NDArray[np.bool_]]
    rows: dict[str, list[Mapping[str, Any]]] = field(default_factory=lambda: {name: [] for name in _CHECKED})
    requests: list[Columns] = field(default_factory=list)
    count: int = 0

    def append(self, table: str, row: Mapping[str, object]) -> None:
        if table in self.rows:
            self.rows[table].append(row)

    def extend(self, table: str, columns: Mapping[str, npt.ArrayLike]) -> None:
        if table != "requests":
            return
        rows = {name: np.asarray(values) for name, values in columns.items()}
        mask = self.wanted(rows)
        if mask.any():
            self.requests.append({name: values[mask] for name, values in rows.items()})
            self.count += int(mask.sum())
        if self.count > MOST_REQUESTS:
            message = f"holds more than {MOST_REQUESTS:,} requests"
            raise InputError([Problem("--replica", "", message, "a shorter stretch, with --from and --until")])

    def table(self) -> Columns:
        names = [column.name for column in TABLES["requests"].columns]
        if not self.requests:
            return {name: np.zeros(0, np.int64) for name in names}
        return {name: np.concatenate([part[name] for part in self.requests]) for name in names}


def _replay(
    result: RunResult,
    scenario: Scenario,
    wanted: Callable[[Mapping[str, npt.NDArray[Any]]], npt.NDArray[np.bool_]],
    enough: Callable[[_Kept, int], bool],
    progress: Callable[[Progress], None] | None,
) -> Replay:
    """Run from the start to the end of the first window at which there is enough."""
    world = build_world(resolve(scenario))
    _check_inputs(result, input_hashes(world))
    kept = _Kept(wanted)
    loop = begin(world, kept)
    for end_ns in np.unique(result.table("windows")["end_ns"]).tolist():
        loop.advance_to(end_ns, progress)
        if enough(kept, end_ns):
            break
    _give_up(loop)
    _check_rows(result, kept, loop.now_ns)
    return Replay(kept.table(), loop.now_ns)


def _give_up(loop: Loop) -> None:
    """End here. At the horizon the run closes its last window, which is to be compared, too."""
    if loop.now_ns == loop.end_ns:
        loop.finish()
    else:
        loop.give_up()


def _check_inputs(result: RunResult, hashes: Mapping[str, str]) -> None:
    """Files may have moved; what is in them must be what the run read."""
    known = set(result.manifest["inputs"].values())
    changed = [path for path, digest in hashes.items() if digest not in known]
    if changed:
        message = "has changed since the run, which cannot be replayed without it"
        raise InputError([Problem("inputs", path, message, "the file as it was") for path in changed])


def _check_rows(result: RunResult, kept: _Kept, end_ns: int) -> None:
    """Compare everything that is whole or a name in the windows, events and decisions up to a time.

    Raises
    ------
    RunError : they differ; says where first.
    """
    for name in _CHECKED:
        table = TABLES[name]
        columns = [column.name for column in table.columns if column.type != "DOUBLE" and column.name not in _LATER.get(name, ())]
        time = "end_ns" if name == "windows" else "time_ns"
        saved = result.sql(f"SELECT {', '.join(columns)} FROM {name} WHERE {time} <= {end_ns} ORDER BY {', '.join(table.key)}")
        expected = list(zip(*(saved[column].tolist() for column in columns), strict=True))
        ordered = sorted(kept.rows[name], key=lambda row: tuple(row[key] for key in table.key))
        found = [tuple(row[column] for column in columns) for row in ordered]
        if found != expected:
            raise RunError(_difference(result, name, columns, expected, found))


def _difference(
    result: RunResult, table: str, columns: list[str], expected: list[tuple[Any, ...]], found: list[tuple[Any, ...]]
) -> str:
    pairs = zip(expected, found, strict=False)
    row = next((number for number, (one, other) in enumerate(pairs) if one != other), min(len(expected), len(found)))
    if row < min(len(expected), len(found)):
        differs = [
            f"{name} {one!r}, replayed {other!r}"
            for name, one, other in zip(columns, expected[row], found[row], strict=True)
            if one != other
        ]
        what = f"row {row} of {table} has {differs[0]}"
    else:
        what = f"{table} has {len(expected)} rows up to there, replayed {len(found)}"
    now, then = versions(), result.manifest["versions"]
    other_versions = [f"{name} {then.get(name)} (here {now[name]})" for name in now if now[name] != then.get(name)]
    made_with = f"; the run was made with {', '.join(other_versions)}" if other_versions else ""
    return f"the replay does not reproduce the saved run: {what}{made_with}"
