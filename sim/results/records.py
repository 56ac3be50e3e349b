"""A run's result on disk: written whole or not at all, and opened again without an engine."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from sim.errors import InputError, Problem
from sim.results.spool import SPOOL_ROWS, Spool, connect, quoted
from sim.schema import SCHEMA_VERSION, TABLES

SUMMARY, MANIFEST = "summary.json", "manifest.json"
_FREE = "a new or an empty folder"


@dataclass
class RunResult:
    """A finished run: its tables, its summary and its manifest.

    Parameters
    ----------
    folder : where it lies. summary, manifest : the two JSON files. is_amortised : amounts of ledger and attribution are amortised.
    """

    folder: Path
    summary: dict[str, Any] = field(repr=False)
    manifest: dict[str, Any] = field(repr=False)
    is_amortised: bool = False
    _connection: duckdb.DuckDBPyConnection | None = field(default=None, repr=False, compare=False)

    def table(self, name: str) -> dict[str, npt.NDArray[Any]]:
        """Return a table as one array per column, in the order of its key; a missing number is NaN.

        Raises
        ------
        InputError : there is no such table.
        """
        if name not in TABLES:
            problem = Problem("table", name, "is not a table of a run", ", ".join(TABLES))
            raise InputError([problem])
        return self.sql(f"SELECT * FROM {name}")

    def sql(self, query: str) -> dict[str, npt.NDArray[Any]]:
        """Return the answer to a SQL query (DuckDB) in which every table is a view; sums of integers stay integers."""
        if self._connection is None:
            self._connection = connect()
            for name in TABLES:
                path = quoted(str(self.folder / f"{name}.parquet"))
                amortised = self.is_amortised and name in ("ledger", "attribution")
                columns = "* REPLACE (effective_nano_usd AS amount_nano_usd)" if amortised else "*"
                self._connection.execute(f"CREATE VIEW {name} AS SELECT {columns} FROM read_parquet({path})")
        query = query.strip().rstrip(";")
        described = self._connection.execute(f"DESCRIBE {query}").fetchall()
        columns = ", ".join(_column(str(row[0]), str(row[1])) for row in described)
        answer = self._connection.execute(f"SELECT {columns} FROM (\n{query}\n)").fetchnumpy()
        return {name: _plain(values) for name, values in answer.items()}

    def amortised(self) -> RunResult:
        """Return the run with the amortised amounts of its ledger: what was paid up front is spread over the hours it is for.

        Every sum of `ledger` and `attribution` is then one of costs; without payments up front it is the same. The summary stays
        that of the invoice.
        """
        return RunResult(self.folder, self.summary, self.manifest, is_amortised=True)

    def close(self) -> None:
        """Close the tables; they open again when needed."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _column(name: str, column_type: str) -> str:
    identifier = '"' + name.replace('"', '""') + '"'
    # numpy has no 128-bit integers, and DuckDB would hand them over as floats.
    return f"{identifier}::BIGINT AS {identifier}" if column_type == "HUGEINT" else identifier


def _plain(values: Any) -> npt.NDArray[Any]:
    if not np.ma.is_masked(values):
        return np.asarray(values)
    if values.dtype.kind == "f":
        return np.asarray(np.ma.filled(values, np.nan))
    # `filled` takes None for the default of the type, which is a text.
    found = np.asarray(values.data).astype(object)
    found[np.ma.getmaskarray(values)] = None
    return found


def open_run(folder: str | Path) -> RunResult:
    """Open the result folder of a finished run.

    Raises
    ------
    InputError : the folder is not there, is not a finished run, or was written by another version of the tables.
    """
    path = Path(folder)
    missing = [name for name in (SUMMARY, MANIFEST, *(f"{table}.parquet" for table in TABLES)) if not (path / name).is_file()]
    if missing:
        what = f"is not the result of a run: it has no {', '.join(missing)}" if path.is_dir() else "is not a folder"
        raise InputError([Problem("run", str(folder), what, "a folder written by `billcast run`")])
    summary, manifest = (_read_json(path / name) for name in (SUMMARY, MANIFEST))
    version = manifest.get("schema_version")
    if version != SCHEMA_VERSION:
        raise InputError([Problem("run", str(folder), f"has tables of version {version}", f"version {SCHEMA_VERSION}")])
    return RunResult(path, summary, manifest)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise InputError([Problem("run", str(path), f"is damaged: {error}", "as `billcast run` wrote it")]) from error
    if not isinstance(content, dict):
        raise InputError([Problem("run", str(path), "is damaged: it is no JSON object", "as `billcast run` wrote it")])
    return content


def out_problem(target: str | Path) -> Problem | None:
    """Return why a result cannot be put at `target`, None where it can; nothing is written.

    Examples
    --------
    >>> problem = out_problem(".")
    >>> problem is not None and problem.path
    'out'
    """
    path = Path(target)
    try:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            return Problem("out", str(target), "exists already and is not an empty folder", _FREE)
        # The result is renamed into place at the end, and these two would not give way.
        if path.exists() and (path.samefile(Path.cwd()) or path.is_mount()):
            return Problem(
                "out", str(target), "is the current folder or a mount point, and cannot be replaced", "a new folder in it"
            )
    except (OSError, ValueError) as error:
        return _not_writable(target, error)
    return None


def _not_writable(target: str | Path, error: OSError | ValueError) -> Problem:
    why = error.strerror if isinstance(error, OSError) else str(error)
    return Problem("out", str(target), f"cannot be written: {why}", _FREE)


class RunWriter:
    """Writes a result folder: everything goes to a sibling folder that is renamed at the end, or removed after an error.

    Parameters
    ----------
    target : the result folder; it must not exist or be empty.
    rows : rows of one table kept in memory.

    Raises
    ------
    InputError : the target is a file, holds something already, cannot be replaced, or nothing can be written there.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as home, RunWriter(Path(home) / "run") as writer:
    ...     tables = writer.merge()
    ...     result = writer.commit({"requests": {}}, {"scenario": {}})
    ...     len(result.table("ledger")["row"])
    0
    """

    def __init__(self, target: str | Path, rows: int = SPOOL_ROWS) -> None:
        self.target = Path(target)
        problem = out_problem(target)
        if problem is not None:
            raise InputError([problem])
        home = self.target.absolute().parent
        self._made = [folder for folder in (home, *home.parents) if not folder.exists()]
        self._folder = home / f".{self.target.name}.partial-{os.getpid()}"
        self._merged: RunResult | None = None
        # Ctrl-C may come before the `with` block that would clean up.
        try:
            home.mkdir(parents=True, exist_ok=True)
            if self._folder.exists():  # left by a killed process that had this number
                shutil.rmtree(self._folder)
            self._parts = self._folder / "parts"
            self._parts.mkdir(parents=True)
            self.spool = Spool(self._parts, rows)
        except (OSError, ValueError) as error:
            self._remove()
            raise InputError([_not_writable(target, error)]) from error
        except BaseException:
            self._remove()
            raise

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._folder.exists():
            self.discard()

    def merge(self) -> RunResult:
        """Merge the spooled rows into tables and return them, still without summary and manifest."""
        self.spool.merge(self._folder)
        shutil.rmtree(self._parts)
        self._merged = RunResult(self._folder, {}, {})
        return self._merged

    def derive(self, tables: Mapping[str, Iterable[Mapping[str, object]]]) -> None:
        """Write tables that are computed from the merged ones.

        Parameters
        ----------
        tables : name -> rows by column name; they replace what was merged.
        """
        self._parts.mkdir()
        spool = Spool(self._parts)
        for name, rows in tables.items():
            for row in rows:
                spool.append(name, row)
        spool.merge(self._folder, tables.keys())
        self._parts.rmdir()

    def commit(self, summary: Mapping[str, Any], manifest: Mapping[str, Any]) -> RunResult:
        """Write summary and manifest, move everything to the target at once, and open it.

        Raises
        ------
        RuntimeError : the tables are not merged yet.
        """
        if self._merged is None:
            raise RuntimeError("merge the tables before the commit")
        self._merged.close()
        for name, content in ((SUMMARY, summary), (MANIFEST, {**manifest, "schema_version": SCHEMA_VERSION})):
            (self._folder / name).write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", "utf-8")
        if self.target.exists():
            self.target.rmdir()
        self._folder.rename(self.target)
        return open_run(self.target)

    def discard(self) -> None:
        """Remove everything written so far, and the folders made for it."""
        if self._merged is None:
            self.spool.close()
        else:
            self._merged.close()
        self._remove()

    def _remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        for folder in self._made:
            if not folder.is_dir() or any(folder.iterdir()):
                break
            folder.rmdir()
