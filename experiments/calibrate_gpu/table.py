"""The table of measured steps: a plain CSV with a header, one row a step; columns, writing and reading."""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TextIO


@dataclass(frozen=True)
class Row:
    """One measured step. Sizes are those of one GPU's part where `tensor_parallel` is above 1; nothing is sent between GPUs.

    Parameters
    ----------
    gpu : name that the driver gives. model : name of the shape. dtype : of the linear layers, "bf16" or "fp8"; the rest is bf16.
    tensor_parallel : the measured part is one of so many. layers : layers that ran; the head always did.
    launch, attention, elementwise, rest : how it was run (see `shapes.Point`).
    phase : "decode", "prefill" or "mixed".
    decodes, context, chunks, chunk_tokens, prior : the step in whole sequences, all of the same length.
    n, n_out, s, c : the step in the terms of the step model: tokens, sequences sampled, sum of p (c + p/2), sum of decode contexts.
    step_s, step_p10_s, step_p90_s : median and percentiles of the step time, seconds. repetitions : steps in the window.
    power_w : mean board power over the window, watts; empty where it was not read or the GPU rested.
    energy_j : power_w times step_s, joules.
    sm_mhz, memory_mhz : mean clocks over the window. temperature_c : highest in it.
    power_limited : share of the samples in which the board's power limit, and not the application, held the clock down.
    """

    gpu: str
    model: str
    dtype: str
    tensor_parallel: int
    layers: int
    launch: str
    attention: str
    elementwise: str
    rest: int
    phase: str
    decodes: int
    context: int
    chunks: int
    chunk_tokens: int
    prior: int
    n: int
    n_out: int
    s: float
    c: int
    step_s: float
    step_p10_s: float
    step_p90_s: float
    repetitions: int
    power_w: float | None
    energy_j: float | None
    sm_mhz: float | None
    memory_mhz: float | None
    temperature_c: float | None
    power_limited: float | None


COLUMNS = tuple(field.name for field in fields(Row))
_READ = {"int": int, "float": float, "str": str}


class Writer:
    """Writes rows as they are measured, so that a measurement that is cut off keeps what it has."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._csv = csv.writer(stream, lineterminator="\n")
        self._csv.writerow(COLUMNS)

    def write(self, row: Row) -> None:
        """Append a row and flush it."""
        self._csv.writerow(_text(value) for value in asdict(row).values())
        self._stream.flush()


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def read(path: Path) -> list[Row]:
    """Return the rows of a table.

    Raises
    ------
    ValueError : the header is not that of this table, or a value cannot be read; says file and line.
    """
    with path.open(newline="", encoding="utf-8") as stream:
        lines = csv.reader(stream)
        header = tuple(next(lines, ()))
        if header != COLUMNS:
            raise ValueError(f"{path}: the columns are not those of a table of measured steps: {', '.join(header)}")
        rows = []
        for number, line in enumerate(lines, start=2):
            try:
                values: list[Any] = [_value(str(field.type), text) for field, text in zip(fields(Row), line, strict=True)]
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from error
            rows.append(Row(*values))
    return rows


def _value(kind: str, text: str) -> object:
    if kind.endswith("| None"):
        return float(text) if text else None
    return _READ[kind](text)
