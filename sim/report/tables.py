"""The reference page of the tables of a run, generated from their definition."""

from __future__ import annotations

from sim.schema import SCHEMA_VERSION, TABLES

_HEAD = f"""# Tables of a run

Generated from `sim/schema.py` by `python -m sim.report.tables`; do not edit. Version of the tables: {SCHEMA_VERSION}.

A result folder holds one Parquet file per table, also empty ones, with rows in the order of the key, beside `summary.json` and
`manifest.json`. Times are integer nanoseconds since the scenario start, amounts integer nano-dollars (1e-9 USD); a missing number
is NULL in the file and NaN in `RunResult.table`.
"""


def tables_page() -> str:
    """Return the page as Markdown.

    Examples
    --------
    >>> tables_page().splitlines()[0]
    '# Tables of a run'
    """
    parts = [_HEAD]
    for table in TABLES.values():
        parts.append(f"\n## {table.name}\n\nA row is {table.row}. Key: {', '.join(f'`{key}`' for key in table.key)}.\n")
        parts.append("\n| column | type | unit | meaning |\n|---|---|---|---|\n")
        parts.extend(f"| `{column.name}` | {column.type} | {column.unit} | {column.meaning} |\n" for column in table.columns)
    return "".join(parts)


if __name__ == "__main__":
    print(tables_page(), end="")
