"""The one table of a sweep: a row a job with what was swept, how it ended, and the main numbers of its summary."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sim.errors import InputError, Problem
from sim.results.numbers import PARTS, SHARES, summary_numbers
from sim.results.records import SUMMARY
from sim.results.replications import Replications, is_replications, open_either
from sim.results.spool import connect, quoted
from sim.studies.jobs import OK, read_plan, read_status

TABLE = "results.parquet"
# Columns of every sweep, before what was swept; `wall_s` and all of `engine.` depend on the machine.
FIXED = ("number", "folder", "status", "error", "wall_s", "replications")
# Ends of the 95 % Student interval of a mean over replications, in columns named after that of the mean.
LOW, HIGH = ".interval_low", ".interval_high"
# Numbers that do not go into the table; they are in the job's own summary.json.
_LEFT_OUT = ("bill.by_month.", "bill.by_segment.", "bill.by_category.", "services.")


@dataclass(frozen=True)
class Collected:
    """The table of a sweep.

    Parameters
    ----------
    file : where it lies. swept : the columns of what was swept. rows : one a job, in order.
    """

    file: Path
    swept: Sequence[str]
    rows: Sequence[Mapping[str, Any]]

    @property
    def folder(self) -> Path:
        """The folder of the sweep."""
        return self.file.parent

    def job(self, number: int) -> Replications:
        """Return what a job left; a single run is replications of which there is one.

        Raises
        ------
        InputError : there is no such job, or it did not finish.
        """
        folders = {row["number"]: row["folder"] for row in self.rows if row["status"] == OK}
        if number not in folders:
            known = ", ".join(map(str, folders)) or "none"
            raise InputError([Problem("job", number, "did not finish or is not there", known)])
        return open_either(self.folder / folders[number])


def collect(folder: Path) -> Collected:
    """Write `results.parquet` of a sweep from what its jobs left, and return it; an earlier table is replaced.

    Parameters
    ----------
    folder : of the sweep; jobs may have failed or not have run.

    Raises
    ------
    InputError : the folder holds no sweep.
    """
    plan = read_plan(folder)
    swept = {key: f"setting.{key}" if key in FIXED else key for job in plan.jobs for key in job.settings}
    rows = []
    for job in plan.jobs:
        status = read_status(folder, job)
        row = {name: job.folder if name == "folder" else status.get(name) for name in FIXED}
        row |= {swept[key]: _cell(value) for key, value in job.settings.items()}
        if status["status"] == OK:
            row |= _found_out(folder / job.folder)
        rows.append(row)
    _fill_shares(rows)
    file = folder / TABLE
    _write(file, rows, swept.values())
    return Collected(file, list(swept.values()), rows)


def _found_out(folder: Path) -> dict[str, Any]:
    """Return the main numbers of a run, or of replications their means with the ends of the intervals."""
    summary = json.loads((folder / SUMMARY).read_text("utf-8"))
    if not is_replications(folder):
        found: dict[str, Any] = summary_numbers(summary, (*PARTS, "engine"))
        return {"replications": 1, **_kept(found)}
    row: dict[str, Any] = {"replications": len(summary["replications"])}
    for path, metric in _kept(summary["metrics"]).items():
        row[path] = metric["mean"]
        row[path + LOW], row[path + HIGH] = metric["student"] or (None, None)
    return row


def _kept(numbers: Mapping[str, Any]) -> dict[str, Any]:
    return {path: value for path, value in numbers.items() if not path.startswith(_LEFT_OUT)}


def _fill_shares(rows: Sequence[dict[str, Any]]) -> None:
    """A part of a bill that another job has and this one does not is no money, not unknown."""
    parts = {name for row in rows for name in row if name.startswith(SHARES) and not name.endswith((LOW, HIGH))}
    for row in rows:
        if row["status"] == OK:
            row |= dict.fromkeys(sorted(parts - row.keys()), 0.0)


def _cell(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool) else json.dumps(value)


def _write(file: Path, rows: Sequence[Mapping[str, Any]], swept: Iterable[str]) -> None:
    """Write rows as Parquet, whole or not at all; a column is of the narrowest type that holds all its values."""
    columns = list(dict.fromkeys([*FIXED, *swept, *(name for row in rows for name in row)]))
    types = {name: _type_of([row.get(name) for row in rows]) for name in columns}
    partial = file.with_name(f".{file.name}.partial-{os.getpid()}")
    connection = connect()
    try:
        declared = ", ".join(f"{_identifier(name)} {kind}" for name, kind in types.items())
        connection.execute(f"CREATE TABLE results ({declared})")
        values = [[_as(types[name], row.get(name)) for name in columns] for row in rows]
        connection.executemany(f"INSERT INTO results VALUES ({', '.join('?' * len(columns))})", values)
        connection.execute(f"COPY (SELECT * FROM results ORDER BY number) TO {quoted(str(partial))} (FORMAT parquet)")
    finally:
        connection.close()
    partial.replace(file)


def _type_of(values: Sequence[Any]) -> str:
    kinds = {type(value) for value in values if value is not None}
    for kind, name in ((bool, "BOOLEAN"), (int, "BIGINT")):
        if kinds == {kind}:
            return name
    return "DOUBLE" if kinds <= {int, float} else "VARCHAR"


def _as(kind: str, value: Any) -> Any:
    return str(value) if kind == "VARCHAR" and value is not None else value


def _identifier(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'
