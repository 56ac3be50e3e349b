"""Quantities as people write them: `2.10 USD/h`, `80 GiB`, `14/s`, `50%`, read in the unit that the name of a field asks for."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction

from sim.units import DURATION_NS, JOULES_PER_KWH, NS_PER_S, NUMBER

Dimension = dict[str, int]

# word -> (what it measures, size). Bare powers of ten are left out: "8k" tokens are 8,000 to some and 8,192 to others.
_UNITS: dict[str, tuple[str, Fraction]] = {
    **{name: ("time", Fraction(size_ns, NS_PER_S)) for name, size_ns in DURATION_NS.items()},
    **dict.fromkeys(("month", "months"), ("month", Fraction(1))),
    **dict.fromkeys(("USD", "usd", "$", "dollar", "dollars"), ("money", Fraction(1))),
    **dict.fromkeys(("cent", "cents"), ("money", Fraction(1, 100))),
    **{
        f"{prefix}{name}": ("bytes", Fraction(base**power * factor))
        for name, factor in (("B", Fraction(1)), ("bit", Fraction(1, 8)))
        for base, prefixes in ((1000, ("", "k", "M", "G", "T")), (1024, ("", "Ki", "Mi", "Gi", "Ti")))
        for power, prefix in enumerate(prefixes)
    },
    **{f"{prefix}Wh": ("energy", Fraction(10**power)) for prefix, power in (("", 0), ("k", 3), ("M", 6))},
    "J": ("energy", Fraction(1000) / Fraction(JOULES_PER_KWH)),
    "W": ("power", Fraction(1)),
    "kW": ("power", Fraction(1000)),
    "g": ("mass", Fraction(1)),
    "kg": ("mass", Fraction(1000)),
    **dict.fromkeys(("token", "tokens"), ("tokens", Fraction(1))),
    **dict.fromkeys(("request", "requests", "req"), ("requests", Fraction(1))),
    **dict.fromkeys(("node", "nodes"), ("nodes", Fraction(1))),
    **dict.fromkeys(("replica", "replicas"), ("replicas", Fraction(1))),
    "%": ("", Fraction(1, 100)),
    "": ("", Fraction(1)),
}
# An exact fraction of a number such as 1e999999999 would fill the memory.
_MOST_DIGITS = 60
_QUANTITY = re.compile(rf"\s*(\$)?\s*([+-]?{NUMBER})\s*([^0-9\s].*?)?\s*")

# Ending of a field's name -> its unit, then other units that mean the same; the first ending that fits counts.
_ENDINGS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("usd_per_hour", ("USD/h",)),
    ("usd_per_kwh", ("USD/kWh",)),
    ("gco2_per_kwh", ("g/kWh",)),
    ("gb_per_s", ("GB/s",)),
    ("requests_per_s", ("requests/s", "/s")),
    ("tokens_per_s", ("tokens/s", "/s")),
    ("per_month", ("/month", "")),
    ("per_s", ("/s", "requests/s")),
    ("_percentage", ("%",)),
    ("_tokens", ("tokens",)),
    ("_nodes", ("nodes",)),
    ("replicas", ("replicas",)),
    ("_gib", ("GiB",)),
    ("_gb", ("GB",)),
    ("_kwh", ("kWh",)),
    ("_w", ("W",)),
    ("_s", ("s",)),
)


@dataclass
class _Product:
    """A unit taken apart: its size, and the power of each thing it measures."""

    size: Fraction = Fraction(1)
    dimension: Dimension = field(default_factory=dict)


def units_of(name: str) -> tuple[str, ...]:
    """Return the unit that the name of a field asks for, then others that mean the same; ("",) where it has none.

    Examples
    --------
    >>> units_of("ttft_s"), units_of("price_usd_per_hour"), units_of("attainment")
    (('s',), ('USD/h',), ('',))
    """
    return next((units for ending, units in _ENDINGS if name.endswith(ending)), ("",))


def quantity(text: str, units: tuple[str, ...]) -> Fraction:
    """Read a quantity and return it, exactly, in the first of the units; a bare number is in that unit already.

    Parameters
    ----------
    text : "2.10 USD/h", "$2.10/h", "80 GiB", "14/s", "50 %". units : the unit that is asked for, and others that mean the same.

    Raises
    ------
    ValueError : no quantity, an unknown unit, or one that measures something else; the message says which unit is expected.

    Examples
    --------
    >>> float(quantity("80 GiB", ("GB",))), float(quantity("50%", ("",))), float(quantity("840/min", ("/s", "requests/s")))
    (85.89934592, 0.5, 14.0)
    >>> quantity("300 ms", ("USD/h",))
    Traceback (most recent call last):
    ...
    ValueError: is not in a unit of USD/h
    """
    expected = _shown(units[0])
    found = _QUANTITY.fullmatch(text)
    if found is None:
        raise ValueError(f"is not {expected}")
    dollar, number, unit = found.group(1) or "", found.group(2), found.group(3) or ""
    written_number = Decimal(number)
    if abs(written_number.adjusted()) > _MOST_DIGITS:
        raise ValueError(f"is not {expected} that can be counted")
    amount = Fraction(written_number)
    try:
        written = _product(dollar + unit)
    except KeyError as error:
        raise ValueError(f"has a unit that is not known ({error.args[0]!r}); expected is {expected}") from error
    if not dollar and not unit:
        return amount
    for unit in units:
        wanted = _product(unit)
        if wanted.dimension == written.dimension:
            return amount * written.size / wanted.size
    raise ValueError(f"is not in a unit of {units[0]}" if units[0] else "has a unit where none is expected, only a number or %")


def _shown(unit: str) -> str:
    if not unit:
        return "a number"
    return f"a number{' of' if unit[0].isalpha() else ''} {unit}" if unit != "%" else "a percentage"


def _product(unit: str) -> _Product:
    """Take a unit such as `GB/s` or `USD per hour` apart.

    Raises
    ------
    KeyError : a word that is no unit.
    """
    product = _Product()
    for place, part in enumerate(re.split(r"\s*/\s*|\s+per\s+|^per\s+", unit)):
        name = part.strip()
        if name not in _UNITS or (place and name in ("", "%")):
            raise KeyError(name)
        measured, size = _UNITS[name]
        product.size = product.size / size if place else product.size * size
        if measured:
            power = product.dimension.get(measured, 0) + (-1 if place else 1)
            product.dimension[measured] = power
    product.dimension = {measured: power for measured, power in product.dimension.items() if power}
    return product


def decimal_text(value: Fraction) -> str:
    """Return an exact quantity as the shortest decimal text.

    Raises
    ------
    ValueError : it has no finite decimal text.

    Examples
    --------
    >>> decimal_text(Fraction(21, 10)), decimal_text(Fraction(7)), decimal_text(Fraction(1, 8))
    ('2.1', '7', '0.125')
    """
    denominator, places = value.denominator, 0
    while denominator % 10 == 0 or denominator % 5 == 0 or denominator % 2 == 0:
        denominator //= 10 if denominator % 10 == 0 else 5 if denominator % 5 == 0 else 2
        places += 1
    if denominator != 1:
        raise ValueError(f"{float(value)!r} has no finite decimal text")
    digits = str(abs(int(value * 10**places))).rjust(places + 1, "0")
    whole, rest = digits[: len(digits) - places], digits[len(digits) - places :].rstrip("0")
    return f"{'-' if value < 0 else ''}{whole}{'.' if rest else ''}{rest}"
