"""The bill of serverless inference: memory for the time of each request, data, and what is kept warm."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from sim.domain.serverless import ServerlessPrice
from sim.units import NS_PER_MS, NS_PER_S, divide_half_even, nano_usd

BYTES_PER_GB = 10**9


@dataclass(frozen=True)
class ServerlessCharge:
    """One line of a serverless bill.

    Parameters
    ----------
    what : "processing", "data" or "provisioned". quantity : in `unit`, to nine decimals. usd_per_unit : as it is written.
    """

    what: str
    quantity: Decimal
    unit: str
    usd_per_unit: str
    amount_nano: int


def serverless_charges(
    price: ServerlessPrice,
    memory_gb: int,
    durations_ns: npt.ArrayLike,
    data_bytes: int = 0,
    *,
    provisioned: int = 0,
    provisioned_s: int = 0,
) -> list[ServerlessCharge]:
    """Return what requests to a serverless endpoint cost; each charge is rounded once, half to even to the nano-dollar.

    Parameters
    ----------
    memory_gb : of the endpoint. durations_ns : processing of each request, shape (requests,); each is rounded up for itself.
    data_bytes : in and out. provisioned : containers kept warm, for `provisioned_s` seconds.

    Raises
    ------
    ValueError : a memory size that cannot be had, or something negative.

    Notes
    -----
    usd = sum(ceil(duration)) x GB x price + GB of data x price + kept warm x seconds x GB x its price. Source: see the row.

    Examples
    --------
    Three requests of 100.2 ms with 2 GB are 3 x 0.101 s x 2 GB x 0.00002 USD = 0.00001212 USD.

    >>> from sim.catalog.loader import load_catalog
    >>> row = load_catalog().serverless_prices["sagemaker_serverless"]
    >>> [charge.amount_nano for charge in serverless_charges(row, 2, [100_200_000] * 3)]
    [12120]
    """
    if memory_gb not in price.memory_gb:
        raise ValueError(f"{price.name} has no {memory_gb} GB; it has: {', '.join(map(str, price.memory_gb))}")
    durations = np.atleast_1d(np.asarray(durations_ns, np.int64))
    if (durations.size and durations.min() < 0) or min(data_bytes, provisioned, provisioned_s) < 0:
        raise ValueError("durations, data and what is provisioned are not negative")
    step_ns = round(price.granularity_ms * NS_PER_MS)
    billed_ns = int((-(-durations // step_ns) * step_ns).sum())
    lines = (
        ("processing", Fraction(billed_ns * memory_gb, NS_PER_S), "GB-second", price.usd_per_gb_s),
        ("data", Fraction(data_bytes, BYTES_PER_GB), "GB", price.usd_per_gb),
        ("provisioned", Fraction(provisioned * provisioned_s * memory_gb), "GB-second", price.provisioned_usd_per_gb_s),
    )
    return [
        ServerlessCharge(
            what,
            Decimal(divide_half_even(quantity.numerator * 10**9, quantity.denominator)).scaleb(-9),
            unit,
            usd,
            divide_half_even(nano_usd(usd) * quantity.numerator, quantity.denominator),
        )
        for what, quantity, unit, usd in lines
        if quantity
    ]
