"""Comparisons of measured and predicted values, and their errors by stratum."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Band:
    """How far the truth lies from a prediction in nine of ten cases, as printed with it.

    Parameters
    ----------
    below, above : the truth is between prediction (1 - below) and prediction (1 + above).
    """

    below: float
    above: float

    @classmethod
    def of_error(cls, error: float) -> Band:
        """The band of a largest absolute error |prediction / truth - 1|.

        Examples
        --------
        >>> Band.of_error(1.0)
        Band(below=0.5, above=inf)
        """
        return cls(1 - 1 / (1 + error), 1 / (1 - error) - 1 if error < 1 else math.inf)

    def with_(self, other: Band) -> Band:
        """The band of a product of two values whose errors have nothing to do with each other.

        Examples
        --------
        >>> Band(0.3, 0.4).with_(Band(0.4, 0.3))
        Band(below=0.5, above=0.5)
        """
        return Band(math.hypot(self.below, other.below), math.hypot(self.above, other.above))

    @property
    def of_rate(self) -> Band:
        """The band of a rate, given that of a time."""
        return Band(1 - 1 / (1 + self.above), 1 / (1 - self.below) - 1 if self.below < 1 else math.inf)


@dataclass(frozen=True)
class Compared:
    """One measured value beside what the models say.

    Ends of a band that is not printed are those of no width, and coverage is of rows with a band alone.

    Parameters
    ----------
    table : file without its ending. quantity : for instance "step time" or "TPOT". unit : of both values.
    gpu, engine, dtype, phase : stratum. model : catalog name. line : row of the file, the first after the head is 1.
    truth, predicted : measured and predicted value. band : as printed for this row, None where none is.
    validity : "fitted", "transferred" or "assumed".
    """

    table: str
    quantity: str
    unit: str
    gpu: str
    engine: str
    dtype: str
    phase: str
    model: str
    line: int
    truth: float
    predicted: float
    band: Band | None
    validity: str

    @property
    def error(self) -> float:
        """Relative error, positive where the prediction is too high."""
        return self.predicted / self.truth - 1

    @property
    def low(self) -> float:
        """Lower end of the printed band."""
        return self.predicted * (1 - self.band.below) if self.band else self.predicted

    @property
    def high(self) -> float:
        """Upper end of the printed band."""
        return self.predicted * (1 + self.band.above) if self.band else self.predicted

    @property
    def covered(self) -> bool:
        """Whether the truth lies in the printed band."""
        return self.low <= self.truth <= self.high


@dataclass
class Comparison:
    """What comparing a table gave.

    Parameters
    ----------
    rows : compared values. left_out : table -> reason -> rows that were not compared.
    """

    rows: list[Compared] = field(default_factory=list)
    left_out: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def leave_out(self, table: str, reason: str, rows: int = 1) -> None:
        """Count rows that are not compared."""
        self.left_out[table][reason] += rows

    def add(self, other: Comparison) -> None:
        """Take over the rows and the counts of another one."""
        self.rows += other.rows
        for table, reasons in other.left_out.items():
            self.left_out[table].update(reasons)


@dataclass(frozen=True)
class Score:
    """Errors of a stratum, in percent.

    Parameters
    ----------
    rows : compared. mean, median, p95 : of the absolute error. bias : median of the signed error, positive where predictions are
        too high; mean_bias : its mean. coverage : share of truths inside the band printed for their row, NaN where none has one.
    """

    rows: int
    mean: float
    median: float
    p95: float
    bias: float
    mean_bias: float
    coverage: float


def score(rows: Iterable[Compared]) -> Score:
    """Return the errors of some rows.

    Raises
    ------
    ValueError : there are none.

    Examples
    --------
    >>> base = {"table": "t", "quantity": "q", "unit": "ms", "gpu": "g", "engine": "e", "dtype": "d", "phase": "", "model": "m"}
    >>> base |= {"line": 1, "band": Band(0.2, 0.1), "validity": "fitted"}
    >>> rows = [Compared(**base, truth=10.0, predicted=said) for said in (9.0, 10.0, 13.0)]
    >>> found = score(rows)
    >>> round(found.mean, 2), round(found.median, 2), round(found.bias, 2), round(found.mean_bias, 2), round(found.coverage, 1)
    (13.33, 10.0, 0.0, 6.67, 33.3)
    """
    rows = list(rows)
    if not rows:
        raise ValueError("no rows to score")
    errors = 100 * np.array([row.error for row in rows])
    size = np.abs(errors)
    return Score(
        rows=len(rows),
        mean=float(size.mean()),
        median=float(np.median(size)),
        p95=float(np.percentile(size, 95)),
        bias=float(np.median(errors)),
        mean_bias=float(errors.mean()),
        coverage=100 * float(np.mean([row.covered for row in rows if row.band])) if any(row.band for row in rows) else math.nan,
    )


def by_stratum(rows: Iterable[Compared], keys: tuple[str, ...]) -> dict[tuple[str, ...], Score]:
    """Return the scores of the strata, by the values of `keys`, in order."""
    groups: Mapping[tuple[str, ...], list[Compared]] = defaultdict(list)
    for row in rows:
        groups[tuple(getattr(row, key) for key in keys)].append(row)
    return {key: score(groups[key]) for key in sorted(groups)}
