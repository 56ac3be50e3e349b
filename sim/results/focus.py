"""The ledger of a run as a FOCUS file: the open cost and usage specification that tools of FinOps read.

A row is a part of a ledger row: what one deployment, service, segment and use pay of it, so that tags are exact and every sum by
tag is the attribution's. Costs of the parts are the attribution's own; quantities are shared out in their proportion and add up to
the row's. What a commitment covers has a BilledCost of 0 and its own EffectiveCost; a row of ChargeCategory "Purchase" an hour and
commitment has the BilledCost. BilledCost adds up to the invoice, EffectiveCost to the amortised bill.

Beside it, in 1.4, the commitments of the run in the dataset "Contract Commitment" (`sim.results.focus_contracts`).

Source: FOCUS 1.4 and 1.2, see `sim.results.focus_columns`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import duckdb

from sim.errors import InputError, Problem, Problems
from sim.results.focus_columns import DUCKDB, LATEST, TIME, VERSIONS, FocusColumn, columns_of
from sim.results.focus_contracts import COLUMNS as CONTRACT_COLUMNS
from sim.results.focus_contracts import contract_rows
from sim.results.focus_facts import catalog_of, columns_by_name, facts, kinds
from sim.results.focus_sql import CHARGES, KEYS, PARTS, expressions
from sim.results.records import RunResult
from sim.results.spool import connect, quoted

FORMATS = {".csv": "FORMAT csv, HEADER, TIMESTAMPFORMAT '%Y-%m-%dT%H:%M:%SZ'", ".parquet": "FORMAT parquet, COMPRESSION zstd"}
# More than a run has for its tables: joins and windows keep blocks of their own. What does not fit goes to a temporary folder.
MEMORY_LIMIT = "256MB"
_TABLES = ("ledger", "attribution", "leases")


def focus_problems(file: str | Path, version: str = LATEST) -> list[Problem]:
    """Return why no file of this name or version can be written, as far as one can see before anything is read.

    Examples
    --------
    >>> [problem.path for problem in focus_problems("costs.xlsx", "9")], focus_problems("costs.csv")
    (['--focus', '--focus-version'], [])
    """
    problems, path = Problems(), Path(file)
    problems.check(
        path.suffix in FORMATS, "--focus", str(file), "is neither CSV nor Parquet", "a name that ends in .csv or .parquet"
    )
    problems.check(not path.is_dir(), "--focus", str(file), "is a folder", "a file")
    problems.check(version in VERSIONS, "--focus-version", version, "is not a version that is written", choices=VERSIONS)
    return problems.found


@dataclass(frozen=True)
class FocusFiles:
    """What was written.

    Parameters
    ----------
    rows : of the cost and usage file. commitments : rows of the file of commitments.
    commitments_file : that file; None where the run has no commitments, or the version no such dataset.
    """

    rows: int
    commitments: int = 0
    commitments_file: Path | None = None


def commitments_file_of(file: str | Path) -> Path:
    """Return the name of the file of commitments beside a cost and usage file.

    Examples
    --------
    >>> commitments_file_of("costs.parquet").name
    'costs.contract_commitments.parquet'
    """
    path = Path(file)
    return path.with_name(f"{path.stem}.contract_commitments{path.suffix}")


def write_focus(result: RunResult, file: str | Path, version: str = LATEST) -> FocusFiles:
    """Write the ledger of a run in the columns of FOCUS, whole or not at all, and its commitments beside it.

    Parameters
    ----------
    file : ends in .csv or .parquet; one that is there is replaced. version : of the specification, "1.4" or "1.2".

    Returns
    -------
    rows written, and where the commitments are.

    Raises
    ------
    InputError : another ending, no such version, a table of the run itself, or a file that cannot be written.
    """
    problems = focus_problems(file, version)
    paths = Path(file), commitments_file_of(file)
    for path in paths:
        if path.suffix in FORMATS and path.exists() and path.resolve().is_relative_to(result.folder.resolve()):
            problems.append(Problem("--focus", str(path), "is part of the run", "a file outside its folder, or a new one"))
    if problems:
        raise InputError(problems)
    costs, promises = (path.with_name(f".{path.name}.partial-{os.getpid()}") for path in paths)
    options = FORMATS[paths[0].suffix]
    try:
        with tempfile.TemporaryDirectory() as folder, connect(Path(folder)) as connection:
            rows = _copy(connection, result, version, costs, options)
            commitments = _copy_commitments(connection, result, promises, options) if version == LATEST else 0
        if commitments:
            promises.replace(paths[1])
        costs.replace(paths[0])
    except (OSError, duckdb.IOException) as error:
        raise InputError(
            [Problem("--focus", str(file), f"cannot be written: {error}", "a file in a folder that is there")]
        ) from error
    finally:
        costs.unlink(missing_ok=True)
        promises.unlink(missing_ok=True)
    return FocusFiles(rows, commitments, paths[1] if commitments else None)


def _copy(connection: duckdb.DuckDBPyConnection, result: RunResult, version: str, target: Path, options: str) -> int:
    connection.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
    connection.execute("SET TimeZone = 'UTC'")
    for name in _TABLES:
        path = quoted(str(result.folder / f"{name}.parquet"))
        connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet({path})")
    connection.register("kinds", kinds())
    connection.execute(f"CREATE VIEW parts AS {PARTS}")
    connection.execute(f"CREATE VIEW charges AS {CHARGES}")
    connection.execute(f"CREATE VIEW keys AS {KEYS}")
    scenario = result.manifest["scenario"]
    for name, found in facts(connection, scenario, catalog_of(scenario)).items():
        connection.register(name, found)
    made = expressions(version_of_allocation=version == LATEST)
    types = _types(columns_of(version), options)
    listed = ", ".join(f'({made[name]})::{kind} AS "{name}"' for name, kind in types.items())
    counted = connection.execute(f"""
        COPY (
            SELECT {listed} FROM charges AS c
            JOIN hours USING (local_hour, month) JOIN prices USING (unit, unit_price, whole, list_nano_usd)
            JOIN places USING (pool, commitment, category)
            LEFT JOIN (SELECT lease, node, zone FROM leases) USING (lease) LEFT JOIN kinds USING (purchase)
            LEFT JOIN terms ON terms.commitment = c.commitment
            ORDER BY hour_start, c.charge, c.number, c.commitment, c.unit_price, c."use", c.deployment, c.service, c.segment
        ) TO {quoted(str(target))} ({options})
    """).fetchone()
    assert counted is not None  # COPY answers with the number of rows
    return int(counted[0])


def _copy_commitments(connection: duckdb.DuckDBPyConnection, result: RunResult, target: Path, options: str) -> int:
    """Write the commitments of the run, of which there is a handful; nothing where there is none."""
    scenario = result.manifest["scenario"]
    rows = contract_rows(connection, scenario, catalog_of(scenario))
    if rows:
        connection.register("promises", columns_by_name([column.name for column in CONTRACT_COLUMNS], rows))
        listed = ", ".join(f'"{name}"::{kind} AS "{name}"' for name, kind in _types(CONTRACT_COLUMNS, options).items())
        order = "ORDER BY ContractCommitmentId"
        connection.execute(f"COPY (SELECT {listed} FROM promises {order}) TO {quoted(str(target))} ({options})")
    return len(rows)


def _types(columns: Iterable[FocusColumn], options: str) -> dict[str, str]:
    """Return the DuckDB type of every column; instants of a CSV file have none of a zone, for the format writes the letter Z."""
    types = {column.name: column.duckdb_type for column in columns}
    if options == FORMATS[".csv"]:
        types = {name: "TIMESTAMP" if kind == DUCKDB[TIME] else kind for name, kind in types.items()}
    return types
