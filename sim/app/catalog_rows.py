"""The catalog row by row, as data: fields with units, what follows from a row, and what an overlay changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from sim.catalog.loader import KINDS, Catalog
from sim.domain.hardware import Accelerator, Provenance
from sim.domain.models import Model
from sim.errors import InputError, Problems
from sim.quantities import units_of

NEW, CHANGED = "new", "changed"
# Units that a scenario has no field of; the ending of a name counts, as in `sim.quantities`.
_UNITS = (
    ("_tflops", "TFLOP/s"),
    ("_pj", "pJ"),
    ("_len", "tokens"),
    ("_bytes", "B"),
    ("_h", "h"),
    ("flops_per_item", "FLOP"),
    ("kv_bytes_per_token", "B"),
)


@dataclass(frozen=True)
class Row:
    """One row of the catalog with all that is known of it.

    Parameters
    ----------
    row : the dataclass of its kind. derived : what follows from it and other rows, by name.
    state : "new" or "changed" where an overlay says so, else "". before : for a changed row, the package's values of what changed.
    """

    kind: str
    name: str
    row: Any
    derived: dict[str, Any]
    state: str
    before: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return the row as plain values for JSON: fields with their sources, what follows from them, and the overlay's part."""
        found = {"name": self.name, **plain(self.row), **self.derived}
        return {**found, "overlay": self.state, "before": self.before} if self.state else found


def unit_of(field_name: str) -> str:
    """Return the unit of a field of the catalog, from its name; "" where it has none.

    Examples
    --------
    >>> [unit_of(name) for name in ("bandwidth_gb_per_s", "dense_tflops", "memory_gib", "tdp_w", "layers")]
    ['GB/s', 'TFLOP/s', 'GiB', 'W', '']
    """
    return next((unit for ending, unit in _UNITS if field_name.endswith(ending)), units_of(field_name)[0])


def plain(value: Any) -> Any:
    """Return a value as dictionaries, lists, numbers and texts; a provenance keeps its three keys beside the fields it is of.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> price = load_catalog().instances["p5.4xlarge"].on_demand["us-east-1"][-1]
    >>> plain(price)["usd_per_hour"], plain(price)["confidence"]
    ('6.88', 'published')
    """
    if is_dataclass(value) and not isinstance(value, type):
        own = {item.name: plain(getattr(value, item.name)) for item in fields(value) if item.name not in ("name", "provenance")}
        provenance = getattr(value, "provenance", None)
        return {**own, **plain(provenance)} if isinstance(provenance, Provenance) else own
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return value


def catalog_rows(kind: str, catalog: Catalog, package: Catalog) -> list[Row]:
    """Return all rows of a kind, marked by what an overlay did to them.

    Parameters
    ----------
    catalog : what is shown. package : the catalog without an overlay.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> catalog = load_catalog()
    >>> rows = {row.name: row for row in catalog_rows("accelerators", catalog, catalog)}
    >>> [fit["weight_type"] for fit in rows["h100-sxm"].derived["step_times"] if fit["validity"] == "fitted"][:2]
    ['bf16', 'fp8']
    """
    before = package.table(kind)
    return [_row(kind, name, row, before.get(name), catalog) for name, row in catalog.table(kind).items()]


def rows_like(kind: str, name: str, rows: list[Row]) -> list[Row]:
    """Return the row of a name, else the rows whose names contain it.

    Raises
    ------
    InputError : there is none; the nearest name is given.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> catalog = load_catalog()
    >>> rows = catalog_rows("models", catalog, catalog)
    >>> [row.name for row in rows_like("models", "mixtral", rows)]
    ['mixtral-8x7b', 'mixtral-8x22b']
    >>> len(rows_like("models", "qwen3-8b", rows))
    1
    """
    exact = [row for row in rows if row.name == name]
    found = exact or [row for row in rows if name.casefold() in row.name.casefold()]
    if not found:
        problems = Problems()
        problems.add(f"catalog {kind}", name, "no such row", choices=[row.name for row in rows])
        raise InputError(problems.found)
    return found


def summary_of(kind: str) -> str:
    """Return what the rows of a kind are: the first sentence of its class."""
    return (KINDS[kind].__doc__ or "").strip().splitlines()[0]


def _row(kind: str, name: str, row: Any, before: Any, catalog: Catalog) -> Row:
    state = NEW if before is None else CHANGED if before != row else ""
    old = {} if state != CHANGED else {key: value for key, value in plain(before).items() if plain(row)[key] != value}
    return Row(kind, name, row, _derived(row, catalog), state, old)


def _derived(row: Any, catalog: Catalog) -> dict[str, Any]:
    """Return what follows from a row: counts of a model, degrees of an accelerator and the step times that there are for it."""
    if isinstance(row, Model):
        return {
            "linear_parameters": row.linear_parameters,
            "active_linear_parameters": row.active_linear_parameters,
            "bf16_kv_bytes_per_token": 2 * row.kv_elements_per_token,
        }
    if isinstance(row, Accelerator):
        prefix = f"{row.name}/"
        step_times = []
        for key, fit in sorted(catalog.fits.items()):
            if key.startswith(prefix):
                kernels, dtype = key.removeprefix(prefix).split("/")
                step_times.append({"kernels": kernels, "weight_type": dtype, "validity": fit.validity, "band": fit.band})
        return {
            "degrees": list(row.degrees),
            "step_times": step_times,
            "rented_as": [name for name, instance in catalog.instances.items() if instance.accelerator == row.name],
        }
    return {}
