"""Measured tables from a folder of CSV files."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

Row = dict[str, str]


class NotCoveredError(Exception):
    """A row is not compared; the message says why."""


class TableError(ValueError):
    """A file that is not the table it is named after."""


def read_table(folder: Path, table: str, columns: Sequence[str]) -> list[tuple[int, Row]]:
    """Return the rows of a table with their numbers; none where the folder has no such file.

    Parameters
    ----------
    folder : with one CSV file for each table. columns : those that are needed.

    Raises
    ------
    TableError : the file lacks a column, or is no CSV file in UTF-8.
    """
    path = folder / f"{table}.csv"
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, restval="")
            missing = [column for column in columns if column not in (reader.fieldnames or ())]
            if missing:
                raise TableError(f"{path}: no column {', '.join(missing)}; it has {', '.join(reader.fieldnames or ())}")
            return list(enumerate(reader, start=1))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TableError(f"{path} cannot be read: {error}") from error


def sample(rows: list[tuple[int, Row]], most: int | None) -> list[tuple[int, Row]]:
    """Return at most so many rows, evenly spread over the table; all for None.

    Examples
    --------
    >>> [line for line, _ in sample([(line, {}) for line in range(10)], 4)]
    [0, 3, 6, 9]
    """
    if most is None or len(rows) <= most:
        return rows
    return [rows[at] for at in np.unique(np.linspace(0, len(rows) - 1, most).round().astype(int))]


def number(text: str) -> float | None:
    """Return a positive number, None for an empty field, a zero or anything else.

    Examples
    --------
    >>> number("2.5"), number(""), number("0"), number("x")
    (2.5, None, None, None)
    """
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value < float("inf") else None


def whole(text: str) -> int:
    """Return a whole number that is at least 0.

    Raises
    ------
    NotCoveredError : the field has none.

    Examples
    --------
    >>> whole("8"), whole("8.0")
    (8, 8)
    """
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not (0 <= value < 1e15 and value.is_integer()):
        raise NotCoveredError(f"not a whole number: {text!r}")
    return int(value)
