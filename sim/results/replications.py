"""Replications of one scenario: the same run with other random numbers, their table, and what they say together.

A folder of replications holds a result folder for each (`rep-0000`, `rep-0001`, ...), `replications.parquet` with one row for each
metric and replication, `summary.json` with the intervals, and `manifest.json`. It needs no engine to be read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.errors import InputError, Problem, nearest_name
from sim.results.metrics import ONE_REPLICATION, histograms_by_service, quantiles_s
from sim.results.numbers import SHARES, is_given, summary_numbers
from sim.results.records import MANIFEST, SUMMARY, RunResult, open_run
from sim.results.spool import connect, quoted
from sim.results.stats import (
    CONFIDENCE,
    Estimate,
    Interval,
    PairedDifference,
    bootstrap_interval,
    estimate,
    fewest_for_bootstrap,
    paired_difference,
    student_interval,
)
from sim.rng import StreamKey
from sim.schema import SCHEMA_VERSION

TABLE = "replications.parquet"
# metric -> replication -> value; a replication in which there was nothing to measure is not there.
Values = dict[str, dict[int, float]]
_INTERVALS: dict[str, Callable[[Sequence[float], StreamKey, float], Interval | None]] = {
    "student": lambda values, _, confidence: student_interval(values, confidence),
    "bootstrap": bootstrap_interval,
}


def folder_of(replication: int) -> str:
    """Return the name of a replication's result folder.

    Examples
    --------
    >>> folder_of(3)
    'rep-0003'
    """
    return f"rep-{replication:04d}"


@dataclass
class Replications:
    """Replications that have run: their values, intervals and result folders.

    Parameters
    ----------
    folder : where they lie. summary, manifest : the two JSON files.

    Examples
    --------
    >>> import tempfile
    >>> from sim import load_scenario, replicate
    >>> scenario = load_scenario("bench_chat8", ["horizon=10s"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = replicate(scenario, 3, workers=1, out=f"{folder}/runs")
    ...     interval = found.interval("requests.arrived")
    >>> interval.low < found.mean("requests.arrived") < interval.high
    True
    """

    folder: Path
    summary: dict[str, Any] = field(repr=False)
    manifest: dict[str, Any] = field(repr=False)
    _values: Values | None = field(default=None, repr=False, compare=False)

    @property
    def numbers(self) -> list[int]:
        """The numbers of the replications."""
        return list(self.summary["replications"])

    @property
    def table(self) -> dict[str, npt.NDArray[Any]]:
        """The columns of `replications.parquet`: metric, replication, value; in order of metric and replication."""
        return _table([(metric, number, value) for metric, known in self.values.items() for number, value in known.items()])

    @property
    def values(self) -> Values:
        """Metric -> replication -> value."""
        if self._values is None:
            self._values = _read_values(self.folder / TABLE)
        return self._values

    def of(self, metric: str) -> dict[int, float]:
        """Return the values of a metric by replication.

        Raises
        ------
        InputError : there is no such metric.
        """
        if metric not in self.values:
            near = nearest_name(metric, self.values)
            raise InputError([Problem("metric", metric, "is not a metric of these replications", "a path in summary.json", near)])
        return self.values[metric]

    def mean(self, metric: str) -> float:
        """Return the mean of a metric over the replications."""
        return self.estimate(metric).mean

    def estimate(self, metric: str, confidence: float = CONFIDENCE) -> Estimate:
        """Return mean, standard deviation and intervals of a metric.

        Parameters
        ----------
        metric : a path in `summary.json` of a run, for instance `bill.total_usd` or `latency.chat.ttft_s.p95`.
        """
        return estimate(list(self.of(metric).values()), _key(self.manifest, metric), confidence)

    def interval(self, metric: str, method: str = "student", confidence: float = CONFIDENCE) -> Interval | None:
        """Return the interval of a metric's mean; None where there are too few replications for one.

        Parameters
        ----------
        method : "student" or "bootstrap".

        Raises
        ------
        InputError : there is no such metric or method.
        """
        if method not in _INTERVALS:
            raise InputError([Problem("method", method, "is not a kind of interval", ", ".join(_INTERVALS))])
        return _INTERVALS[method](list(self.of(metric).values()), _key(self.manifest, metric), confidence)

    def paired_difference(self, other: Replications, metric: str, confidence: float = CONFIDENCE) -> PairedDifference | None:
        """Return the difference of a metric (these minus the other's) over the replications both have; None without any.

        Parameters
        ----------
        other : replications of another scenario, of the same seed if they are to share their random numbers.
        """
        key = _key(self.manifest, metric).about("bootstrap of differences")
        return paired_difference(self.of(metric), other.of(metric), key, confidence)

    def run(self, replication: int) -> RunResult:
        """Return one replication with all its tables.

        Raises
        ------
        InputError : there is no replication of this number.
        """
        if replication not in self.numbers:
            known = ", ".join(map(str, self.numbers))
            raise InputError([Problem("replication", replication, "was not run", known)])
        return open_run(self.folder / folder_of(replication) if is_replications(self.folder) else self.folder)


def is_replications(folder: str | Path) -> bool:
    """Whether a folder holds replications."""
    return (Path(folder) / TABLE).is_file()


def open_replications(folder: str | Path) -> Replications:
    """Open a folder of replications.

    Raises
    ------
    InputError : the folder is not there, holds no replications, or is of another version.
    """
    path = Path(folder)
    if not is_replications(path):
        what = f"holds no replications: it has no {TABLE}" if path.is_dir() else "is not a folder"
        raise InputError([Problem("run", str(folder), what, "a folder written with replications=N")])
    summary, manifest = (json.loads((path / name).read_text("utf-8")) for name in (SUMMARY, MANIFEST))
    version = manifest.get("schema_version")
    if version != SCHEMA_VERSION:
        raise InputError([Problem("run", str(folder), f"has tables of version {version}", f"version {SCHEMA_VERSION}")])
    return Replications(path, summary, manifest)


def open_either(folder: str | Path) -> Replications:
    """Open a folder of replications, or of one run as a single replication.

    Raises
    ------
    InputError : the folder holds neither.
    """
    return open_replications(folder) if is_replications(folder) else single(open_run(folder))


def single(result: RunResult) -> Replications:
    """Return one run as replications of which there is one."""
    number = int(result.manifest["replication"])
    values = {metric: {number: float(value)} for metric, value in _found_out(result.summary).items() if value is not None}
    return Replications(result.folder, {"replications": [number], "interval": ONE_REPLICATION}, result.manifest, values)


def write_table(folder: Path, numbers: Sequence[int]) -> Values:
    """Write `replications.parquet` from the replications in a folder, and return their values; the order they ran in is lost.

    Parameters
    ----------
    numbers : of the replications.
    """
    found = {number: _found_out(open_run(folder / folder_of(number)).summary) for number in sorted(numbers)}
    values: Values = {}
    for metric in sorted({metric for row in found.values() for metric in row}):
        nothing = 0.0 if metric.startswith(SHARES) else None
        known = {number: row.get(metric, nothing) for number, row in found.items()}
        values[metric] = {number: float(value) for number, value in known.items() if value is not None}
    values = {metric: known for metric, known in values.items() if known}
    connection = connect()
    try:
        rows = [(metric, number, value) for metric, known in values.items() for number, value in known.items()]
        connection.register("held", _table(rows))
        columns = "metric::VARCHAR AS metric, replication::BIGINT AS replication, value::DOUBLE AS value"
        connection.execute(f"COPY (SELECT {columns} FROM held) TO {quoted(str(folder / TABLE))} (FORMAT parquet, COMPRESSION zstd)")
    finally:
        connection.close()
    return values


def summarize(folder: Path, numbers: Sequence[int], values: Values, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what replications say together: intervals of every metric, and quantiles of all their requests.

    Parameters
    ----------
    values : from `write_table`. manifest : with `seed` and `replications`, which name the random stream of the bootstrap.

    Returns
    -------
    `replications`, `interval` (what kinds there are), `confidence`, `metrics` and `pooled`: the latencies of all replications'
    requests as one sample, from their histograms added up; of a tail such a quantile knows more than a mean of quantiles.
    """
    metrics = {metric: _plain(estimate(list(known.values()), _key(manifest, metric))) for metric, known in values.items()}
    return {
        "replications": sorted(numbers),
        "interval": describe(len(numbers)),
        "confidence": CONFIDENCE,
        "metrics": metrics,
        "pooled": _pooled(folder, numbers),
    }


def describe(count: int) -> str:
    """Say which intervals so many replications have.

    Examples
    --------
    >>> describe(1), describe(4)
    ('no interval: one replication', "95 % Student intervals over 4 replications; the bootstrap's needs 6")
    """
    if count < 2:
        return ONE_REPLICATION
    fewest, share = fewest_for_bootstrap(), f"{CONFIDENCE * 100:g} %"
    if count < fewest:
        return f"{share} Student intervals over {count} replications; the bootstrap's needs {fewest}"
    return f"{share} Student and bootstrap intervals over {count} replications"


def _key(manifest: Mapping[str, Any], metric: str) -> StreamKey:
    replication: int = manifest.get("replication", 0)
    return StreamKey(manifest["seed"], replication, "bootstrap", metric)


def _found_out(summary: Mapping[str, Any]) -> dict[str, float | None]:
    return {path: value for path, value in summary_numbers(summary).items() if not is_given(path)}


def _plain(found: Estimate) -> dict[str, Any]:
    plain = asdict(found)
    for method in _INTERVALS:
        interval = plain.pop(method)
        plain[method] = None if interval is None else [interval["low"], interval["high"]]
    return plain


def _pooled(folder: Path, numbers: Sequence[int]) -> dict[str, dict[str, dict[str, float | None]]]:
    histograms: dict[tuple[str, str], npt.NDArray[np.int64]] = {}
    for number in numbers:
        run = open_run(folder / folder_of(number))
        for key, counts in histograms_by_service(run).items():
            histograms[key] = histograms[key] + counts if key in histograms else counts
        run.close()
    found: dict[str, dict[str, dict[str, float | None]]] = {}
    for (service, latency), counts in sorted(histograms.items()):
        found.setdefault(service, {})[f"{latency}_s"] = {"requests": int(counts.sum()), **quantiles_s(counts)}
    return found


def _table(rows: Sequence[tuple[str, int, float]]) -> dict[str, npt.NDArray[Any]]:
    metrics = np.empty(len(rows), object)
    metrics[:] = [row[0] for row in rows]
    return {
        "metric": metrics,
        "replication": np.array([row[1] for row in rows], np.int64),
        "value": np.array([row[2] for row in rows], np.float64),
    }


def _read_values(file: Path) -> Values:
    connection = connect()
    try:
        rows = connection.execute(f"SELECT metric, replication, value FROM read_parquet({quoted(str(file))})").fetchall()
    finally:
        connection.close()
    values: Values = {}
    for metric, number, value in rows:
        values.setdefault(metric, {})[number] = value
    return values
