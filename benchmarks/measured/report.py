"""All tables of a folder beside the models: errors by stratum."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.measured.energy import running_batches
from benchmarks.measured.kernels import all_reduces, layers, step_times
from benchmarks.measured.published import first_tokens, mlperf, splitwise, static_batches
from benchmarks.measured.reading import TableError
from benchmarks.measured.scores import Compared, Comparison, Score, by_stratum
from benchmarks.measured.serving import latencies

TABLES: dict[str, Callable[[Path, int | None], Comparison]] = {
    "aic_step_times": step_times,
    "silicon_serving_ttft_tpot": latencies,
    "mlenergy_serving_power": running_batches,
    "splitwise_step_times": splitwise,
    "vidur_layer_gemm": layers,
    "vidur_allreduce": all_reduces,
    "mlperf_v4_1": mlperf,
    "trtllm_static_throughput": static_batches,
    "trtllm_first_token_b1": first_tokens,
}
STRATUM = ("table", "quantity", "gpu", "engine", "dtype", "phase")
POOLED = ("table", "quantity", "engine")
CSV_COLUMNS = (
    "table", "line", "quantity", "unit", "gpu", "engine", "dtype", "phase", "model", "truth", "predicted", "error", "low", "high",
    "covered", "validity",
)  # fmt: skip


class NoTablesError(Exception):
    """A folder without measured tables."""


def tables_folder(data: Path) -> Path:
    """Return the folder of the tables: `perf` in the data folder, or the folder itself.

    Raises
    ------
    NoTablesError : neither has one of the tables.
    """
    for folder in (data / "perf", data):
        if any((folder / f"{table}.csv").is_file() for table in TABLES):
            return folder
    raise NoTablesError(f"no measured tables in {data / 'perf'} or {data}: give the data folder by --data DIR or BILLCAST_DATA")


def compare(folder: Path, most: int | None = None) -> tuple[Comparison, list[str]]:
    """Compare every table of a folder; return the comparison and the tables that are not there.

    Parameters
    ----------
    folder : of the tables. most : rows of each to sample, all for None.
    """
    found, missing = Comparison(), []
    for table, compared in TABLES.items():
        if (folder / f"{table}.csv").is_file():
            try:
                found.add(compared(folder, most))
            except TableError as error:
                found.leave_out(table, str(error), 0)
        else:
            missing.append(table)
    return found, missing


def accuracy(folder: Path, most: int | None = None, rows_csv: Path | None = None) -> dict[str, Any]:
    """Return the errors of all tables of a folder.

    Parameters
    ----------
    folder, most : as in `compare`. rows_csv : file for every row with prediction and band.
    """
    found, missing = compare(folder, most)
    if rows_csv is not None:
        write_rows(found.rows, rows_csv)
    return {
        "sampled": most,
        "missing": missing,
        "strata": _scores(found.rows, STRATUM),
        "pooled": _scores(found.rows, POOLED),
        "not_covered": {table: dict(sorted(reasons.items())) for table, reasons in sorted(found.left_out.items())},
    }


def _scores(rows: Iterable[Compared], keys: tuple[str, ...]) -> list[dict[str, Any]]:
    def plain(found: Score) -> dict[str, float | None]:
        return {name: None if value != value else round(value, 1) for name, value in asdict(found).items()}

    return [{**dict(zip(keys, key, strict=True)), **plain(found)} for key, found in by_stratum(rows, keys).items()]


def write_rows(rows: Iterable[Compared], path: Path) -> None:
    """Write every compared row as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(CSV_COLUMNS)
        for row in rows:
            values = (getattr(row, column) for column in CSV_COLUMNS)
            writer.writerow([f"{value:.6g}" if isinstance(value, float) else value for value in values])
