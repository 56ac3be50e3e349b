"""Tables of measured or exported step times, read from CSV.

Four layouts, told apart by their columns:

- **plain**: `phase` (decode or prefill), `batch` (sequences), `prefill_tokens` (new tokens of each; 0 for decode), `ctx` (tokens of
  each already in the cache), `time_ms` (of the step), and, if measured, `power_w` (of one accelerator, while it steps);
- **exported** step times of a kernel database: the same columns beside `model`, `gpu`, `engine`, `w_dtype`, `tp`;
- **prompt and token times** of a server: `prompt_size`, `batch_size`, `token_size`; `prompt_time`, `token_time` in milliseconds;
- **calibration** tables of `experiments/calibrate_gpu`: `decodes`, `context`, `chunks`, `chunk_tokens`, `prior`, `step_s`.

Every other column tells rows of different things apart (`where`).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from sim.errors import Problems

SHOWN_BAD_ROWS = 20
DECODE, PREFILL, MIXED = "decode", "prefill", "mixed"
# Columns that hold measurements or circumstances, and never tell one thing from another.
_NUMBERS = {
    *("phase", "batch", "prefill_tokens", "ctx", "time_ms", "power_w"),
    *("prompt_size", "batch_size", "token_size", "prompt_time", "token_time", "peak_power", "average_power"),
    *("decodes", "context", "chunks", "chunk_tokens", "prior", "n", "n_out", "s", "c", "step_s", "step_p10_s", "step_p90_s"),
    *("repetitions", "energy_j", "sm_mhz", "memory_mhz", "temperature_c", "power_limited"),
}


@dataclass(frozen=True)
class StepRow:
    """One step of a table: equal sequences that all decode, or that all prefill.

    Parameters
    ----------
    phase : "decode" or "prefill". sequences : how many. tokens : new tokens of each, 1 where it decodes.
    context : tokens of each that are in the cache before the step. time_s : of the step.
    power_w : of one accelerator while it steps; None where it was not measured.
    """

    phase: str
    sequences: int
    tokens: int
    context: int
    time_s: float
    power_w: float | None = None


def read_step_table(path: str, where: Mapping[str, str], at: str, problems: Problems) -> tuple[StepRow, ...]:
    """Return the rows of a table of step times that belong to one thing.

    Parameters
    ----------
    path : of the CSV file. where : column -> value that a row must have; text is compared as it stands.
    at : dotted path of the setting, the start of the problems' paths. problems : what is wrong with the file is added here.

    Returns
    -------
    The rows in file order; none where there is a problem. Mixed steps are left out: a step model makes them from the others.

    Examples
    --------
    >>> import tempfile
    >>> lines = ["phase,batch,prefill_tokens,ctx,time_ms", "prefill,1,512,0,20", "prefill,1,1024,0,40"]
    >>> lines += ["decode,8,0,512,7.5", "decode,8,0,1024,7.8", "decode,16,0,512,8.5"]
    >>> with tempfile.NamedTemporaryFile("w+", suffix=".csv") as file:
    ...     _ = file.write("\\n".join(lines)), file.flush()
    ...     rows = read_step_table(file.name, {}, "deployments.chat.step_table", Problems())
    >>> rows[2]
    StepRow(phase='decode', sequences=8, tokens=1, context=512, time_s=0.0075, power_w=None)
    """
    try:
        stat = Path(path).stat()
        header, lines = _read(path, stat.st_mtime_ns, stat.st_size)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        problems.add(f"{at}.path", path, f"cannot be read: {getattr(error, 'strerror', None) or error}")
        return ()
    layout = next((rows for columns, rows in _LAYOUTS if columns <= set(header)), None)
    if layout is None:
        wanted = "; or ".join(", ".join(sorted(columns)) for columns, _ in _LAYOUTS)
        problems.add(f"{at}.path", path, f"has not the columns of a table of steps: {', '.join(header) or 'none'}", wanted)
        return ()
    before = len(problems)
    for column in where:
        problems.check(column in header, f"{at}.where.{column}", where[column], f"{path} has no such column", choices=header)
    if len(problems) > before:
        return ()
    chosen = [(number, line) for number, line in lines if all(line[column] == value for column, value in where.items())]
    if not problems.check(bool(chosen), f"{at}.where", dict(where), "no row of the table has this", _values(header, lines)):
        return ()
    _check_one_thing(header, [line for _, line in chosen], at, problems)
    rows: list[StepRow] = []
    bad: list[str] = []
    for number, line in chosen:
        try:
            rows.extend(layout(line))
        except ValueError as error:
            bad.append(f"line {number}: {error}")
    if bad:
        shown = "; ".join(bad[:SHOWN_BAD_ROWS]) + (f"; and {len(bad) - SHOWN_BAD_ROWS} more" if len(bad) > SHOWN_BAD_ROWS else "")
        problems.add(f"{at}.path", path, f"has rows that make no sense: {shown}")
    rows = [row for row in rows if row.phase != MIXED]
    _check_spread(rows, path, at, problems)
    measured = sum(row.power_w is not None for row in rows)
    if measured and measured < len(rows):
        # Half a measurement of power would bend the energy between its rows: the catalog's power is used for all.
        rows = [StepRow(row.phase, row.sequences, row.tokens, row.context, row.time_s) for row in rows]
    return tuple(rows) if len(problems) == before else ()


@lru_cache(maxsize=8)
def _read(path: str, changed_ns: int, size: int) -> tuple[tuple[str, ...], tuple[tuple[int, dict[str, str]], ...]]:
    """Return the header and the lines with their numbers; a file that has changed is read again."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file, strict=True)
        header = tuple(name.strip().lower() for name in next(reader, []))
        lines = []
        for cells in reader:
            if cells:
                padded = [*(cell.strip() for cell in cells), *[""] * (len(header) - len(cells))]
                lines.append((reader.line_num, dict(zip(header, padded, strict=False))))
    return header, tuple(lines)


def _values(header: tuple[str, ...], lines: tuple[tuple[int, dict[str, str]], ...]) -> str:
    """What there is to choose from, by column."""
    columns = [column for column in header if column not in _NUMBERS]
    return "; ".join(f"{column}: {', '.join(sorted({line[column] for _, line in lines}))}" for column in columns)


def _check_one_thing(header: tuple[str, ...], lines: list[dict[str, str]], at: str, problems: Problems) -> None:
    for column in header:
        values = sorted({line[column] for line in lines})
        if column not in _NUMBERS and len(values) > 1:
            problems.add(f"{at}.where.{column}", "", "the rows are of several things: choose one", ", ".join(values), values)


def _check_spread(rows: list[StepRow], path: str, at: str, problems: Problems) -> None:
    """Two points make a line: of batches, of contexts for one batch, of prefill tokens."""
    decodes = [row for row in rows if row.phase == DECODE]
    batches = sorted({row.sequences for row in decodes})
    sizes = {row.sequences * row.tokens for row in rows if row.phase == PREFILL}
    problems.check(len(batches) > 1, f"{at}.path", path, f"has {len(batches)} batch sizes of decode steps", "2 or more")
    problems.check(len(sizes) > 1, f"{at}.path", path, f"has {len(sizes)} sizes of prefill steps", "2 or more")
    contexts = max((len({row.context for row in decodes if row.sequences == batch}) for batch in batches), default=0)
    problems.check(contexts > 1, f"{at}.path", path, f"has {contexts} contexts of decode steps of any batch size", "2 or more")


def _number(line: Mapping[str, str], column: str, least: float, *, whole: bool = False) -> float:
    """Return a finite number of a line, at least `least`."""
    text = line[column]
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{column} = {text!r} is not a number") from None
    if not (math.isfinite(value) and value >= least and (value == int(value) or not whole)):
        kind = "a whole number" if whole else "a number"
        raise ValueError(f"{column} = {text!r} is not {kind} of at least {least:g}")
    return value


def _count(line: Mapping[str, str], column: str, least: int) -> int:
    return int(_number(line, column, least, whole=True))


def _seconds(line: Mapping[str, str], column: str, unit_s: float) -> float:
    value = _number(line, column, 0.0)
    if value == 0.0:
        raise ValueError(f"{column} = 0: a step takes time")
    return value * unit_s


def _power(line: Mapping[str, str]) -> float | None:
    return _number(line, "power_w", 0.0) if line.get("power_w") else None


def _plain_rows(line: Mapping[str, str]) -> list[StepRow]:
    phase = line["phase"]
    if phase not in (DECODE, PREFILL, MIXED):
        raise ValueError(f"phase = {phase!r} is not decode, prefill or mixed")
    tokens = _count(line, "prefill_tokens", 1) if phase == PREFILL else 1
    sequences, context = _count(line, "batch", 1), _count(line, "ctx", 0)
    return [StepRow(phase, sequences, tokens, context, _seconds(line, "time_ms", 1e-3), _power(line))]


def _server_rows(line: Mapping[str, str]) -> list[StepRow]:
    """A prompt and the mean token after it: the token's context is the prompt and half of the output."""
    batch, prompt, output = _count(line, "batch_size", 1), _count(line, "prompt_size", 1), _count(line, "token_size", 1)
    first = StepRow(PREFILL, batch, prompt, 0, _seconds(line, "prompt_time", 1e-3))
    return [first, StepRow(DECODE, batch, 1, prompt + output // 2, _seconds(line, "token_time", 1e-3))]


def _calibration_rows(line: Mapping[str, str]) -> list[StepRow]:
    """One part of a tensor-parallel model sends nothing: such a row is no step of a replica."""
    if _count(line, "tensor_parallel", 1) != 1:
        raise ValueError("tensor_parallel above 1: a part of a model was measured, without what the parts send each other")
    decodes, chunks = _count(line, "decodes", 0), _count(line, "chunks", 0)
    time_s, power_w = _seconds(line, "step_s", 1.0), _power(line)
    if decodes and chunks:
        return [StepRow(MIXED, decodes, 1, 0, time_s, power_w)]
    if decodes:
        return [StepRow(DECODE, decodes, 1, _count(line, "context", 0), time_s, power_w)]
    return [StepRow(PREFILL, chunks, _count(line, "chunk_tokens", 1), _count(line, "prior", 0), time_s, power_w)]


_LAYOUTS: tuple[tuple[set[str], Callable[[Mapping[str, str]], list[StepRow]]], ...] = (
    ({"phase", "batch", "prefill_tokens", "ctx", "time_ms"}, _plain_rows),
    ({"prompt_size", "batch_size", "token_size", "prompt_time", "token_time"}, _server_rows),
    ({"decodes", "context", "chunks", "chunk_tokens", "prior", "step_s", "tensor_parallel"}, _calibration_rows),
)
