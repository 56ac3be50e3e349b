"""How catalog files become typed rows: strict YAML, one field at a time, every problem collected."""

from __future__ import annotations

import math
from dataclasses import MISSING, fields, is_dataclass
from datetime import date
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml

from sim.domain.hardware import DEGREES_BY_LINK, Provenance
from sim.errors import Problems
from sim.units import nano_usd

T = TypeVar("T")
PROVENANCE_KEYS = ("source", "date", "confidence")
CONFIDENCES = ("fitted", "published", "assumed")
SIGNED = {"mu", "spearman"}
CHOICES = {
    "confidence": CONFIDENCES,
    "validity": ("fitted", "transferred", "assumed"),
    "stage": ("pending", "booting", "pulling", "loading", "warming"),
    "link": tuple(DEGREES_BY_LINK),
}
POSITIVE = {
    "accelerators",
    "bandwidth_gb_per_s",
    "eta_attention",
    "eta_compute",
    "eta_gather",
    "eta_kv",
    "eta_link",
    "eta_memory",
    "eta_weights",
    "head_dim",
    "heads",
    "hidden",
    "kernel_scale",
    "kv_heads",
    "layers",
    "memory_gib",
    "pue",
    "usable_gib",
    "vocabulary",
}


class _StrictLoader(yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader):  # type: ignore[misc]
    """Safe YAML in which a key may not occur twice and a date stays text."""


def _mapping(loader: Any, node: yaml.MappingNode) -> dict[str, Any]:
    own = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
    twice = sorted({key for key in own if own.count(key) > 1})
    if twice:
        raise yaml.constructor.ConstructorError(None, None, f"{twice[0]!r} is given twice", node.start_mark)
    loader.flatten_mapping(node)
    return {str(loader.construct_object(key)): loader.construct_object(value, deep=True) for key, value in node.value}


_StrictLoader.add_constructor("tag:yaml.org,2002:map", _mapping)
_StrictLoader.add_constructor("tag:yaml.org,2002:timestamp", lambda _loader, node: str(node.value))


def read_sections(text: str, path: str, problems: Problems) -> dict[str, dict[str, Any]]:
    """Parse a catalog file into {kind: {row name: fields}}; what is not of that shape is a problem.

    Parameters
    ----------
    text : YAML. path : name of the file, the path of its problems.
    """
    try:
        parsed = yaml.load(text, Loader=_StrictLoader)
    except yaml.YAMLError as error:
        problems.add(path, "", f"not readable as YAML: {' '.join(str(error).split())}")
        return {}
    if parsed is None:
        return {}
    if not isinstance(parsed, dict):
        problems.add(path, parsed, "must be a mapping from kinds to rows")
        return {}
    sections: dict[str, dict[str, Any]] = {}
    for kind, rows in parsed.items():
        sections[kind] = {}
        if not isinstance(rows, dict):
            problems.add(kind, rows, "must be a mapping from names to rows")
            continue
        for name, row in rows.items():
            if problems.check(isinstance(row, dict), f"{kind}.{name}", row, "must be a mapping from fields to values"):
                sections[kind][name] = row
    return sections


def read_row(cls: type[T], name: str, row: dict[str, Any], path: str, problems: Problems) -> T | None:
    """Make a dataclass of a row; None when a problem was found.

    Parameters
    ----------
    cls : dataclass of the row. A field `name` takes `name`; a field `provenance` takes the keys source, date and confidence.
    path : dotted path of the row, for problems.
    """
    before = len(problems)
    hints = get_type_hints(cls)
    known = [field.name for field in fields(cls) if field.name not in ("name", "provenance")]  # type: ignore[arg-type]
    given = set(row) - set(PROVENANCE_KEYS if "provenance" in hints else ())
    for key in sorted(given - set(known)):
        problems.add(path, key, "unknown field", choices=known)
    values: dict[str, Any] = {"name": name} if "name" in hints else {}
    if "provenance" in hints:
        values["provenance"] = _provenance(row, path, problems)
    for field in fields(cls):  # type: ignore[arg-type]
        if field.name in ("name", "provenance"):
            continue
        if field.name in row:
            values[field.name] = _value(hints[field.name], row[field.name], f"{path}.{field.name}", field.name, problems)
        elif field.default is MISSING and field.default_factory is MISSING:
            problems.add(f"{path}.{field.name}", None, "missing")
    return cls(**values) if len(problems) == before else None


def _provenance(row: dict[str, Any], path: str, problems: Problems) -> Provenance:
    """Read the three keys that every row must have."""
    texts = {key: row.get(key) for key in PROVENANCE_KEYS}
    for key, text in texts.items():
        if not (isinstance(text, str) and text.strip()):
            problems.add(f"{path}.{key}", text, "every row needs a source, a date and a confidence")
    if isinstance(texts["date"], str) and texts["date"].strip():
        _date(texts["date"], f"{path}.date", problems)
    if isinstance(texts["confidence"], str) and texts["confidence"].strip():
        problems.check(
            texts["confidence"] in CONFIDENCES, f"{path}.confidence", texts["confidence"], "not a confidence", choices=CONFIDENCES
        )
    return Provenance(*(str(text) for text in texts.values()))


def _date(text: str, path: str, problems: Problems) -> None:
    try:
        date.fromisoformat(text)
    except ValueError:
        problems.add(path, text, "not a date", "YYYY-MM-DD")


def _value(hint: Any, value: Any, path: str, field: str, problems: Problems) -> Any:
    """Read one value of a declared type; what cannot be read is a problem and comes back as it is."""
    origin = get_origin(hint)
    if isinstance(hint, type) and is_dataclass(hint):
        return value if isinstance(value, hint) else _nested(hint, value, path, problems)
    if origin is tuple:
        if not problems.check(isinstance(value, list) and len(value) > 0, path, value, "must be a list with something in it"):
            return value
        return tuple(_value(get_args(hint)[0], item, f"{path}.{index}", field, problems) for index, item in enumerate(value))
    if origin is dict:
        if not problems.check(isinstance(value, dict) and len(value) > 0, path, value, "must be a mapping with something in it"):
            return value
        return {str(key): _value(get_args(hint)[1], item, f"{path}.{key}", field, problems) for key, item in value.items()}
    if hint is float or hint is int:
        return _number(hint, value, path, field, problems)
    if hint is bool:
        problems.check(isinstance(value, bool), path, value, "must be true or false")
        return value
    return _text(value, path, field, problems)


def _nested(cls: type[Any], value: Any, path: str, problems: Problems) -> Any:
    if not isinstance(value, dict):
        problems.add(path, value, "must be a mapping from fields to values")
        return None
    if cls is Provenance:
        return _provenance(value, path, problems)
    return read_row(cls, "", value, path, problems)


def _number(kind: type[float] | type[int], value: Any, path: str, field: str, problems: Problems) -> Any:
    allowed = "any number" if field in SIGNED else "a number above 0" if field in POSITIVE else "a number of at least 0"
    if isinstance(value, bool) or not isinstance(value, int | float):
        problems.add(path, value, "not a number (YAML reads 1e-6 as text: write 1.0e-6)", allowed)
        return value
    if kind is int and not float(value).is_integer():
        problems.add(path, value, "not a whole number", allowed)
        return value
    low_enough = field in SIGNED or value > 0 or (value == 0 and field not in POSITIVE)
    problems.check(math.isfinite(value) and low_enough, path, value, "out of range", allowed)
    return kind(value) if math.isfinite(value) else value


def _text(value: Any, path: str, field: str, problems: Problems) -> Any:
    if field == "usd_per_hour":
        try:
            problems.check(isinstance(value, str) and nano_usd(value) > 0, path, value, "must be a positive decimal in quotes")
        except ValueError as error:
            problems.add(path, value, str(error), 'US dollars an hour as a decimal in quotes, for instance "6.88"')
        return value
    if not isinstance(value, str):
        problems.add(path, value, "must be text")
        return value
    if field == "valid_from":
        _date(value, path, problems)
    if field in CHOICES:
        problems.check(value in CHOICES[field], path, value, f"not a {field}", choices=CHOICES[field])
    return value
