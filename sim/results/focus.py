"""The ledger of a run as a FOCUS file: the open cost and usage specification that tools of FinOps read.

A row is a part of a ledger row: what one deployment, service, segment and use pay of it, so that tags are exact and every sum by
tag is the attribution's. Costs of the parts are the attribution's own; quantities are shared out in their proportion and add up to
the row's. What a commitment covers has a BilledCost of 0 and its own EffectiveCost; a row of ChargeCategory "Purchase" an hour and
commitment has the BilledCost. BilledCost adds up to the invoice, EffectiveCost to the amortised bill.

Source: FOCUS 1.4 and 1.2, see `sim.results.focus_columns`.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import duckdb

from sim.errors import InputError, Problem, Problems
from sim.results.focus_columns import DUCKDB, LATEST, TIME, VERSIONS, columns_of
from sim.results.focus_facts import facts, kinds
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


def write_focus(result: RunResult, file: str | Path, version: str = LATEST) -> int:
    """Write the ledger of a run in the columns of FOCUS, whole or not at all.

    Parameters
    ----------
    file : ends in .csv or .parquet; one that is there is replaced. version : of the specification, "1.4" or "1.2".

    Returns
    -------
    rows written.

    Raises
    ------
    InputError : another ending, no such version, a table of the run itself, or a file that cannot be written.
    """
    path = Path(file)
    problems = focus_problems(file, version)
    if path.suffix in FORMATS and path.exists() and path.resolve().is_relative_to(result.folder.resolve()):
        problems.append(Problem("--focus", str(file), "is part of the run", "a file outside its folder, or a new one"))
    if problems:
        raise InputError(problems)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        with tempfile.TemporaryDirectory() as folder, connect(Path(folder)) as connection:
            rows = _copy(connection, result, version, partial, FORMATS[path.suffix])
        partial.replace(path)
    except (OSError, duckdb.IOException) as error:
        raise InputError(
            [Problem("--focus", str(file), f"cannot be written: {error}", "a file in a folder that is there")]
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return rows


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
    for name, found in facts(connection, result.manifest["scenario"]).items():
        connection.register(name, found)
    made = expressions(version_of_allocation=version == LATEST)
    types = {column.name: column.duckdb_type for column in columns_of(version)}
    if options == FORMATS[".csv"]:  # where the zone is the letter Z of the format
        types = {name: "TIMESTAMP" if kind == DUCKDB[TIME] else kind for name, kind in types.items()}
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
