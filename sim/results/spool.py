"""Rows on their way to disk: held in memory up to a bound, then in part files, merged at the end in the order of each key."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from sim.schema import SCHEMA_VERSION, TABLES, Table

SPOOL_ROWS = 1_024  # a row of a wide table takes a kilobyte while it waits
MEMORY_LIMIT = "64MB"
ROW_GROUP = 8_192  # the writer holds one group of a table in memory
# A connection takes 15 ms to open, and keeps more memory with every part that it writes, and with every long table that it merges.
PARTS_PER_CONNECTION = 32
LONG_PARTS = 4
_ORDER = "_order"

# A slice of a lease is cut at windows, so every part of the ledger lies in the window in which its slice starts. Parts are added up
# before windows are looked for, because a search holds all that is searched in memory.
_WINDOWS_WITH_COST = """
    SELECT w.* REPLACE (coalesce(c.cost, 0) AS cost_nano_usd) FROM windows AS w LEFT JOIN (
        SELECT starts.start_ns, part.stream, sum(part.cost) AS cost
        FROM (SELECT start_ns, stream, sum(amount_nano_usd) AS cost FROM attribution GROUP BY ALL) AS part
        ASOF JOIN (SELECT DISTINCT start_ns FROM windows) AS starts ON part.start_ns >= starts.start_ns GROUP BY ALL
    ) AS c ON w.start_ns = c.start_ns AND w.stream = c.stream
"""
# The ledger's time is cut where a job begins and where it ends, and a stream has one job at a time.
_JOBS_WITH_COST = """
    SELECT j.* REPLACE (coalesce(c.cost, 0) AS cost_nano_usd) FROM jobs AS j LEFT JOIN (
        SELECT work.stream, work.begun_ns, work.finished_ns, sum(part.amount_nano_usd) AS cost FROM attribution AS part
        ASOF JOIN (SELECT stream, begun_ns, finished_ns FROM jobs WHERE begun_ns >= 0 AND begun_ns <> finished_ns) AS work
        ON part.stream = work.stream AND part.start_ns >= work.begun_ns
        WHERE work.finished_ns < 0 OR part.start_ns < work.finished_ns GROUP BY ALL
    ) AS c ON j.stream = c.stream AND j.begun_ns = c.begun_ns AND j.finished_ns = c.finished_ns
"""
_WITH_COST = {"windows": _WINDOWS_WITH_COST, "jobs": _JOBS_WITH_COST}


def connect(temporary: Path | None = None) -> duckdb.DuckDBPyConnection:
    """Return a DuckDB connection in memory with one thread and a memory limit; beyond it DuckDB spills into `temporary`."""
    connection = duckdb.connect(config={"threads": 1, "memory_limit": MEMORY_LIMIT})
    connection.execute(f"SET temp_directory = {quoted(str(temporary) if temporary else '')}")
    return connection


def quoted(text: str) -> str:
    """Return a text as a SQL literal."""
    return "'" + text.replace("'", "''") + "'"


class Spool:
    """Typed tables of a run while it runs: constant memory, part files beside the result.

    Parameters
    ----------
    folder : an existing folder for the part files.
    rows : rows of one table kept in memory before they are written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     spool = Spool(Path(folder))
    ...     spool.append("events", {"number": 0, "time_ns": 5, "kind": "node_running", "subject": "node 0", "detail": ""})
    ...     spool.rows("events")
    1
    """

    def __init__(self, folder: Path, rows: int = SPOOL_ROWS) -> None:
        self._folder, self._limit = folder, rows
        self._names = {name: tuple(column.name for column in table.columns) for name, table in TABLES.items()}
        self._name_sets = {name: frozenset(names) for name, names in self._names.items()}
        self._in_order_of = {name: itemgetter(*names) for name, names in self._names.items()}
        self._rows: dict[str, list[tuple[object, ...]]] = {name: [] for name in TABLES}
        self._arrays: dict[str, list[dict[str, npt.NDArray[Any]]]] = {name: [] for name in TABLES}
        self._held = dict.fromkeys(TABLES, 0)
        self._written = dict.fromkeys(TABLES, 0)
        self._parts: dict[str, list[Path]] = {name: [] for name in TABLES}
        self._latest_key: dict[str, tuple[Any, ...]] = dict.fromkeys(TABLES, ())
        self._in_order = dict.fromkeys(TABLES, True)
        self._open: duckdb.DuckDBPyConnection | None = None
        self._open_parts = 0

    def append(self, table: str, row: Mapping[str, object]) -> None:
        """Add a row given by column name.

        Raises
        ------
        ValueError : columns are missing or unknown.
        """
        names = self._name_sets[table]
        if row.keys() != names:
            lacks, unknown = sorted(names - row.keys()), sorted(row.keys() - names)
            raise ValueError(f"a row of {table} lacks columns {lacks} or has unknown columns {unknown}")
        self._rows[table].append(self._in_order_of[table](row))
        self._count(table, 1)

    def extend(self, table: str, columns: Mapping[str, npt.ArrayLike]) -> None:
        """Add rows given as one array per column, all of the same length.

        Raises
        ------
        ValueError : columns are missing, unknown or of unequal length.
        """
        arrays = {name: np.asarray(values) for name, values in columns.items()}
        lengths = {len(array) for array in arrays.values()}
        if arrays.keys() != set(self._names[table]) or len(lengths) != 1:
            raise ValueError(f"columns of {table} must be {', '.join(self._names[table])}, all of one length: got {sorted(arrays)}")
        self._flush_rows(table)
        self._arrays[table].append(arrays)
        self._count(table, lengths.pop())

    def rows(self, table: str) -> int:
        """Return how many rows a table has so far."""
        return self._written[table] + self._held[table]

    def merge(self, target: Path, tables: Collection[str] = TABLES.keys()) -> None:
        """Write every table, also empty ones, as `target/<table>.parquet` in the order of its key, and remove the part files.

        Rows of equal key stay in the order in which they were added. The cost of windows and jobs is filled from the
        attribution. The same rows give the same bytes.

        Parameters
        ----------
        tables : those to write; all of them unless said otherwise.
        """
        for name in TABLES:
            self._flush(name)
        self._disconnect()
        names = list(tables)
        while names:
            with connect(self._folder) as connection:
                self._merge_some(connection, names, target)
        self.close()

    def _merge_some(self, connection: duckdb.DuckDBPyConnection, names: list[str], target: Path) -> None:
        """Write tables and take them off the list, up to and including the first long one."""
        for name, table in TABLES.items():
            paths = "[" + ", ".join(quoted(str(path)) for path in self._parts[name]) + "]"
            rows = f"SELECT * FROM read_parquet({paths})" if self._parts[name] else _no_rows(table)
            connection.execute(f"CREATE VIEW {name} AS {rows}")
        long = False
        while names and not long:
            name = names.pop(0)
            table, long = TABLES[name], len(self._parts[name]) >= LONG_PARTS
            rows = _WITH_COST.get(name, f"SELECT * FROM {name}")
            # Parts are sorted; where each begins after the one before, reading them in turn needs no memory for a sort.
            order = f"ORDER BY {_order(table)}" if name in _WITH_COST or not self._in_order[name] else ""
            connection.execute(
                f"COPY (SELECT {_columns(table)} FROM ({rows}) {order}) TO {quoted(str(target / f'{name}.parquet'))} "
                f"(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP}, "
                f"KV_METADATA {{schema_version: '{SCHEMA_VERSION}', table_name: '{name}'}})"
            )

    def close(self) -> None:
        """Remove the part files."""
        self._disconnect()
        for path in [path for parts in self._parts.values() for path in parts]:
            path.unlink(missing_ok=True)

    def _count(self, table: str, rows: int) -> None:
        self._held[table] += rows
        if self._held[table] >= self._limit:
            self._flush(table)

    def _flush_rows(self, table: str) -> None:
        """Turn the rows kept as tuples into arrays."""
        rows = self._rows[table]
        if rows:
            columns = zip(self._names[table], zip(*rows, strict=True), strict=True)
            self._arrays[table].append({name: _object_array(values) for name, values in columns})
            self._rows[table] = []

    def _flush(self, table: str) -> None:
        self._flush_rows(table)
        if not self._held[table]:
            return
        held: dict[str, npt.NDArray[Any]] = {}
        for column in TABLES[table].columns:
            chunks = [_typed(arrays[column.name], column.type) for arrays in self._arrays[table]]
            held[column.name] = np.concatenate(chunks)
        held[_ORDER] = np.arange(self._written[table], self.rows(table), dtype=np.int64)
        path = self._folder / f"{table}.{len(self._parts[table]):06d}.part.parquet"
        rows = f"SELECT {_columns(TABLES[table])}, {_ORDER} FROM held ORDER BY {_order(TABLES[table])}"
        connection = self._connect()
        connection.register("held", held)
        connection.execute(f"COPY ({rows}) TO {quoted(str(path))} (FORMAT parquet)")
        connection.unregister("held")
        self._parts[table].append(path)
        self._note_order(table, held)
        self._written[table] = self.rows(table)
        self._held[table], self._arrays[table] = 0, []

    def _connect(self) -> duckdb.DuckDBPyConnection:
        """Return the connection that writes parts, now and then a new one."""
        if self._open is not None and self._open_parts == PARTS_PER_CONNECTION:
            self._disconnect()
        if self._open is None:
            self._open, self._open_parts = connect(self._folder), 0
        self._open_parts += 1
        return self._open

    def _disconnect(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def _note_order(self, table: str, held: Mapping[str, npt.NDArray[Any]]) -> None:
        """Note whether a new part begins after the end of the one before."""
        columns = [held[name] for name in TABLES[table].key]
        self._in_order[table] &= self._latest_key[table] <= _end_key(columns, np.min)
        self._latest_key[table] = _end_key(columns, np.max)


def _end_key(columns: Sequence[npt.NDArray[Any]], end: Callable[[npt.NDArray[Any]], Any]) -> tuple[Any, ...]:
    """Return the least or the largest key of rows.

    Examples
    --------
    >>> _end_key([np.array([2, 1, 1]), np.array(["a", "c", "b"], object)], np.min) == (1, "b")
    True
    """
    key, rows = [], np.arange(len(columns[0]))
    for column in columns:
        values = column[rows]
        key.append(end(values))
        rows = rows[values == key[-1]]
    return tuple(key)


def _columns(table: Table) -> str:
    return ", ".join(f'"{column.name}"::{column.type} AS "{column.name}"' for column in table.columns)


def _order(table: Table) -> str:
    return ", ".join(f'"{key}"' for key in (*table.key, _ORDER))


def _no_rows(table: Table) -> str:
    columns = ", ".join(f'NULL::{column.type} AS "{column.name}"' for column in table.columns)
    return f"SELECT {columns}, NULL::BIGINT AS {_ORDER} WHERE false"


def _object_array(values: tuple[object, ...]) -> npt.NDArray[Any]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


_NUMPY = {"BIGINT": np.int64, "INTEGER": np.int64, "DOUBLE": np.float64, "BOOLEAN": np.bool_}


def _typed(array: npt.NDArray[Any], column_type: str) -> npt.NDArray[Any]:
    """Return a column in the type in which DuckDB takes it over without looking at every value; decimals go as text."""
    if column_type in _NUMPY:
        return array.astype(_NUMPY[column_type])
    if column_type == "VARCHAR" and array.dtype == object:
        return array
    return _object_array(tuple(str(value) for value in array))
