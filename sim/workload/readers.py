"""Trace files (CSV, gzipped CSV, Parquet) checked and sorted once through DuckDB, then read in pages of arrays.

A CSV file is read line by line and split here, so that line numbers are those of an editor. One thread and a memory limit: the rows
come in the same order everywhere, and a trace larger than memory is sorted on disk.
"""

from __future__ import annotations

import gzip
import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from sim.errors import InputError, Problem
from sim.workload.base import ONE_SEGMENT, IntArray
from sim.workload.specs import MAX_SEGMENTS

FORMATS = ("auto", "azure", "plain")
SHOWN_BAD_ROWS = 20

# Accepted names of (time, prompt tokens, output tokens, segment), in lower case.
COLUMN_NAMES: dict[str, tuple[tuple[str, ...], ...]] = {
    "azure": (("timestamp",), ("contexttokens",), ("generatedtokens",), ()),
    "plain": (("time", "time_s"), ("prompt_tokens", "input_tokens"), ("output_tokens", "completion_tokens"), ("segment",)),
}

_MEMORY_LIMIT = "512MB"
_MAX_TIME_NS = 1 << 62
_MAX_TOKENS = (1 << 31) - 1
_COUNT_EXPECTED = f"a whole number from 1 to {_MAX_TOKENS:,}"
_SECONDS = "TRY_CAST(TRY_CAST({0} AS DECIMAL(28, 9)) * 1000000000 AS BIGINT)"
# DuckDB's TIMESTAMP_NS keeps nine digits and ignores offsets, its TIMESTAMPTZ heeds offsets and keeps six digits: whole seconds
# from the one, the fraction from the other.
_ISO = (
    "CASE WHEN isfinite(TRY_CAST({0} AS TIMESTAMPTZ)) THEN epoch_us(TRY_CAST({0} AS TIMESTAMPTZ)) // 1000000 * 1000000000"
    " + epoch_ns(TRY_CAST({0} AS TIMESTAMP_NS)) % 1000000000 END"
)


@dataclass(frozen=True)
class TraceRows:
    """The good rows of a trace in order of time (equal times in file order).

    Parameters
    ----------
    rows : how many. span_ns : from the first to the last. segments : names. bad_rows : how many were skipped. sha256 : of the file.
    """

    connection: duckdb.DuckDBPyConnection
    rows: int
    span_ns: int
    segments: tuple[str, ...]
    bad_rows: int
    sha256: str

    def page(self, first: int, count: int) -> dict[str, IntArray]:
        """Return rows [first, first + count) as int64 arrays: `time_ns` since the first row, `prompt`, `output`, `segment`."""
        query = "SELECT time_ns, prompt, output, segment FROM trace WHERE rowid >= ? AND rowid < ? ORDER BY rowid"
        columns = self.connection.execute(query, [first, first + count]).fetchnumpy()
        return {name: np.asarray(column, dtype=np.int64) for name, column in columns.items()}

    def most_tokens(self) -> int:
        """Return the most tokens of a row, prompt and output together."""
        return int(self.connection.execute("SELECT max(prompt + output) FROM trace").fetchall()[0][0])


def read_trace(path: str, file_format: str, max_bad_rows: int) -> TraceRows:
    """Read, check and sort a trace.

    Parameters
    ----------
    path : a .csv, .csv.gz or .parquet file. file_format : one of `FORMATS`. max_bad_rows : so many broken rows are skipped.

    Raises
    ------
    InputError : no such columns, not a single row, or more broken rows than allowed (the first 20 are named).
    """
    connection = _connection()
    try:
        table = _parquet_table(connection, path) if path.endswith(".parquet") else _csv_table(path)
        columns = _columns(path, table.names, file_format)
        _parse(connection, table, columns)
    except (duckdb.Error, OSError, EOFError) as error:
        raise InputError([Problem(path, Path(path).name, f"cannot be read: {str(error).splitlines()[0]}")]) from error
    bad_rows = _refuse_bad_rows(connection, path, table, columns, max_bad_rows)
    segments = _sort(connection, path, has_segments=columns[3] is not None)
    rows, span_ns = connection.execute("SELECT count(*), max(time_ns) FROM trace").fetchall()[0]
    if not rows:
        raise InputError([Problem(path, rows, "has no row to replay", "at least 1 row")])
    with Path(path).open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return TraceRows(connection, rows, span_ns, segments, bad_rows, sha256)


@dataclass(frozen=True)
class _Table:
    """A file as DuckDB sees it: a query with `line` and `fields_ok`, column names, and an expression and type for each."""

    query: str
    names: list[str]
    expressions: list[str]
    types: list[str]
    unit: str  # what `line` counts


def _connection() -> duckdb.DuckDBPyConnection:
    config: dict[str, Any] = {
        "threads": 1,
        "memory_limit": _MEMORY_LIMIT,
        "temp_directory": str(Path(tempfile.gettempdir()) / "billcast-duckdb"),
        "autoinstall_known_extensions": False,
    }
    connection = duckdb.connect(":memory:", config=config)
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def _csv_table(path: str) -> _Table:
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8-sig", errors="replace") as file:
        header = next(((number, line) for number, line in enumerate(file, start=1) if line.strip()), (1, ""))
    names = [name.strip(' "\t\r\n') for name in header[1].split(",")]
    query = (
        f"SELECT line, parts, len(parts) = {len(names)} AS fields_ok FROM ("
        "SELECT row_number() OVER () AS line, string_split(text, ',') AS parts, text FROM read_csv("
        f"{_quoted(path)}, columns = {{'text': 'VARCHAR'}}, header = false, auto_detect = false,"
        " delim = '\\0', quote = '', escape = ''))"
        f" WHERE line > {header[0]} AND trim(text, ' \t\r') <> ''"
    )
    expressions = [f"nullif(trim(parts[{number}], ' \"\t\r'), '')" for number in range(1, len(names) + 1)]
    return _Table(query, names, expressions, ["VARCHAR"] * len(names), "line")


def _parquet_table(connection: duckdb.DuckDBPyConnection, path: str) -> _Table:
    described = connection.execute(f"DESCRIBE SELECT * FROM read_parquet({_quoted(path)})").fetchall()
    names, types = [row[0] for row in described], [row[1] for row in described]
    query = f"SELECT *, file_row_number + 1 AS line, true AS fields_ok FROM read_parquet({_quoted(path)}, file_row_number = true)"
    expressions = ['"' + name.replace('"', '""') + '"' for name in names]
    return _Table(query, names, expressions, types, "row")


def _quoted(path: str) -> str:
    return "'" + path.replace("'", "''") + "'"


def _columns(path: str, names: Sequence[str], file_format: str) -> tuple[int | None, ...]:
    """Find the positions of time, prompt, output and segment among the column names."""
    lower = [name.lower() for name in names]
    if file_format == "auto":
        file_format = "azure" if COLUMN_NAMES["azure"][1][0] in lower else "plain"
    found = tuple(next((lower.index(name) for name in accepted if name in lower), None) for accepted in COLUMN_NAMES[file_format])
    missing = [accepted for accepted, position in zip(COLUMN_NAMES[file_format][:3], found, strict=False) if position is None]
    if missing:
        header = ",".join(names)
        raise InputError(
            [Problem(path, header, "has no column for it in its header", " or ".join(accepted)) for accepted in missing]
        )
    return found


def _parse(connection: duckdb.DuckDBPyConnection, table: _Table, columns: tuple[int | None, ...]) -> None:
    """Make the table `parsed`: every row, with the position of its first broken column (-1: wrong number of columns) or NULL."""
    time, prompt, output, segment = (None if position is None else table.expressions[position] for position in columns)
    time_type = table.types[columns[0] or 0]
    segment_text = f"CAST({segment} AS VARCHAR)" if segment else _quoted(ONE_SEGMENT)
    connection.execute(
        f"CREATE TEMP TABLE texts AS SELECT line, fields_ok, {time} AS time, {prompt} AS prompt, {output} AS output,"
        f" {segment_text} AS segment FROM ({table.query})"
    )
    time_ns = _time_expression(connection, time_type).format("time")
    counts = ", ".join(f"TRY_CAST({name} AS DECIMAL(28, 9)) AS {name}_count" for name in ("prompt", "output"))
    broken = " ".join(
        f"WHEN {name}_count IS NULL OR {name}_count < 1 OR {name}_count > {_MAX_TOKENS}"
        f" OR {name}_count <> floor({name}_count) THEN {number}"
        for number, name in ((1, "prompt"), (2, "output"))
    )
    connection.execute(
        "CREATE TEMP TABLE parsed AS SELECT *, CASE WHEN NOT fields_ok THEN -1"
        f" WHEN time_ns IS NULL OR time_ns < 0 OR time_ns > {_MAX_TIME_NS} THEN 0 {broken}"
        " WHEN segment IS NULL THEN 3 END AS broken"
        f" FROM (SELECT *, {time_ns} AS time_ns, {counts} FROM texts)"
    )
    connection.execute("DROP TABLE texts")


def _time_expression(connection: duckdb.DuckDBPyConnection, time_type: str) -> str:
    """Return the SQL that reads a time in nanoseconds; a text column is seconds or ISO by its first readable row."""
    if time_type == "VARCHAR":
        seconds, iso = _SECONDS.format("time"), _ISO.format("time")
        query = f"SELECT {seconds} IS NOT NULL FROM texts WHERE coalesce({seconds}, {iso}) IS NOT NULL ORDER BY line LIMIT 1"
        first = connection.execute(query).fetchall()
        return _ISO if first and not first[0][0] else _SECONDS
    if time_type == "TIMESTAMP_NS":
        return "epoch_ns({0})"
    if time_type.startswith(("TIMESTAMP", "DATE")):
        return "epoch_us({0}) * 1000"
    return _SECONDS


def _refuse_bad_rows(
    connection: duckdb.DuckDBPyConnection, path: str, table: _Table, columns: tuple[int | None, ...], max_bad_rows: int
) -> int:
    bad_rows = int(connection.execute("SELECT count(*) FROM parsed WHERE broken IS NOT NULL").fetchall()[0][0])
    if bad_rows <= max_bad_rows:
        return bad_rows
    rows = connection.execute(
        "SELECT line, broken, CASE broken WHEN 0 THEN CAST(time AS VARCHAR) WHEN 1 THEN CAST(prompt AS VARCHAR)"
        " WHEN 2 THEN CAST(output AS VARCHAR) ELSE segment END FROM parsed WHERE broken IS NOT NULL"
        f" ORDER BY line LIMIT {SHOWN_BAD_ROWS}"
    ).fetchall()
    shown = f", the first {len(rows)} follow" if bad_rows > len(rows) else ""
    problems = [Problem("max_bad_rows", max_bad_rows, f"{path} has {bad_rows} broken rows{shown}", "as many as may be skipped")]
    expected = ("seconds, or an ISO date and time", _COUNT_EXPECTED, _COUNT_EXPECTED, "a name")
    for line, broken, value in rows:
        place = f"{path}, {table.unit} {line}"
        if broken < 0:
            problems.append(
                Problem(place, "", "has a wrong number of columns", f"{len(table.names)} columns, none with a comma in it")
            )
            continue
        name = table.names[columns[broken] or 0]
        message = "is missing" if value is None else "cannot be read as such"
        problems.append(Problem(f"{place}, column {name}", value, message, expected[broken]))
    raise InputError(problems)


def _sort(connection: duckdb.DuckDBPyConnection, path: str, has_segments: bool) -> tuple[str, ...]:
    """Make the table `trace` of the good rows in order of time; return the names of the segments, sorted."""
    good = "FROM parsed WHERE broken IS NULL"
    names = connection.execute(f"SELECT DISTINCT segment {good} ORDER BY segment LIMIT {MAX_SEGMENTS + 1}").fetchall()
    if len(names) > MAX_SEGMENTS:
        raise InputError([Problem(path, "segment", "has too many different segments", f"at most {MAX_SEGMENTS}")])
    connection.execute("CREATE TEMP TABLE numbers (segment VARCHAR, number INTEGER)")
    connection.executemany(
        "INSERT INTO numbers VALUES (?, ?)", [[name, number] for number, (name,) in enumerate(names)] or [["", 0]]
    )
    connection.execute(
        f"CREATE TEMP TABLE trace AS SELECT time_ns - (SELECT min(time_ns) {good}) AS time_ns,"
        " CAST(prompt_count AS INTEGER) AS prompt, CAST(output_count AS INTEGER) AS output, numbers.number AS segment"
        " FROM parsed JOIN numbers ON parsed.segment = numbers.segment WHERE broken IS NULL ORDER BY parsed.time_ns, line"
    )
    connection.execute("DROP TABLE parsed")
    return tuple(name for (name,) in names) if has_segments else (ONE_SEGMENT,)
