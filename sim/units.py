"""Units: the only place with conversion constants, and how people's quantities are read and shown."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from math import isfinite

NS_PER_US = 1_000
NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000
NS_PER_MINUTE = 60 * NS_PER_S
NS_PER_HOUR = 3_600 * NS_PER_S
NS_PER_DAY = 86_400 * NS_PER_S
NANO_PER_USD = 1_000_000_000
BYTES_PER_GIB = 2**30
JOULES_PER_KWH = 3_600_000.0

DURATION_NS = {
    "ns": 1,
    "us": NS_PER_US,
    "ms": NS_PER_MS,
    **dict.fromkeys(("s", "sec", "second", "seconds"), NS_PER_S),
    **dict.fromkeys(("m", "min", "minute", "minutes"), NS_PER_MINUTE),
    **dict.fromkeys(("h", "hour", "hours"), NS_PER_HOUR),
    **dict.fromkeys(("d", "day", "days"), NS_PER_DAY),
    **dict.fromkeys(("w", "week", "weeks"), 7 * NS_PER_DAY),
}
_PLAIN_NUMBER = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)"
NUMBER = _PLAIN_NUMBER + r"(?:[eE][+-]?[0-9]+)?"
# The longest word first, or "min" would be read as "m" and a rest.
_DURATION_PART = re.compile(rf"\s*({_PLAIN_NUMBER})\s*({'|'.join(sorted(DURATION_NS, key=len, reverse=True))})?")


def duration_ns(text: str | float) -> int:
    """Read a duration as people write it and return whole nanoseconds.

    Parameters
    ----------
    text : "7d", "12 h", "1h30m", "300 ms", "2 days"; a bare number is seconds.

    Raises
    ------
    ValueError : not a duration, or negative.

    Examples
    --------
    >>> duration_ns("1h30m") == 5_400 * NS_PER_S
    True
    >>> duration_ns(0.3)
    300000000
    """
    # Floats below 1e-4 are written with an exponent, in which nobody writes a duration.
    written = f"{Decimal(str(text)):f}" if isinstance(text, float) and isfinite(text) else str(text).strip()
    total, position = Decimal(0), 0
    while position < len(written):
        match = _DURATION_PART.match(written, position)
        if match is None or match.end() == match.start():
            raise ValueError(f"{text!r} is not a duration such as '7d', '1h30m' or '300 ms'")
        unit = match.group(2) or "s"
        if match.group(2) is None and (position or match.end() != len(written)):
            raise ValueError(f"{text!r} is not a duration: a number in it has no unit")
        total += Decimal(match.group(1)) * DURATION_NS[unit]
        position = match.end()
    if not written:
        raise ValueError("an empty duration")
    return int(total.to_integral_value(ROUND_HALF_EVEN))


def instant(text: str) -> datetime:
    """Read a calendar instant in ISO 8601; one without an offset is UTC.

    Raises
    ------
    ValueError : not an ISO date or date-time.

    Examples
    --------
    >>> instant("2026-01-05").isoformat()
    '2026-01-05T00:00:00+00:00'
    """
    moment = datetime.fromisoformat(str(text))
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def nano_usd(amount_usd: str | float | Decimal) -> int:
    """Return an amount of US dollars as integer nano-dollars, exactly.

    Raises
    ------
    ValueError : not a number, or finer than a nano-dollar.

    Examples
    --------
    >>> nano_usd("6.88")
    6880000000
    """
    try:
        exact = Decimal(str(amount_usd)) * NANO_PER_USD
    except InvalidOperation as error:
        raise ValueError(f"{amount_usd!r} is not an amount of money") from error
    if not exact.is_finite() or exact != exact.to_integral_value():
        raise ValueError(f"{amount_usd!r} USD is finer than a nano-dollar or not finite")
    return int(exact)


def usd(amount_nano: int) -> str:
    """Show nano-dollars as dollars and cents, rounded half to even.

    Examples
    --------
    >>> usd(1_234_567_890_000)
    '1,234.57'
    """
    cents = (Decimal(amount_nano) / NANO_PER_USD).quantize(Decimal("0.01"), ROUND_HALF_EVEN)
    return f"{cents:,}"


def divide_half_even(numerator: int, denominator: int) -> int:
    """Divide integers, rounding to nearest and ties to the even neighbour (denominator > 0).

    Examples
    --------
    >>> divide_half_even(5, 2), divide_half_even(7, 2), divide_half_even(-5, 2)
    (2, 4, -2)
    """
    quotient, remainder = divmod(numerator, denominator)
    twice = 2 * remainder
    if twice > denominator or (twice == denominator and quotient & 1):
        quotient += 1
    return quotient


def seconds_text(seconds: float) -> str:
    """Show a duration with a unit that fits a person's eye.

    Examples
    --------
    >>> seconds_text(0.0123), seconds_text(4.5), seconds_text(7_200)
    ('12.3 ms', '4.50 s', '2.00 h')
    """
    if seconds < 1e-3:
        return f"{seconds * 1e6:.3g} us"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 600:
        return f"{seconds:.2f} s" if seconds < 100 else f"{seconds:.0f} s"
    return f"{seconds / 3600:.2f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} d"
