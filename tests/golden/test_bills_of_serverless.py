"""Bills of serverless inference worked by hand: 0.00002 USD a GB-second, 0.016 a GB of data, 0.000005 a GB-second kept warm."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim.billing.serverless import serverless_charges
from sim.catalog.loader import load_catalog
from sim.domain.serverless import ServerlessPrice
from sim.errors import InputError
from sim.units import NS_PER_MS, NS_PER_S

USD = 10**9


@pytest.fixture
def price() -> ServerlessPrice:
    return load_catalog().serverless_prices["sagemaker_serverless"]


BILLS = [
    # (GB, seconds of each request, requests, bytes, (kept warm, seconds), dollars)
    (4, 1.0, 1_000, 0, (0, 0), 0.08),  # 4 GB: 0.00008 USD a second
    (1, 0.0001, 1_000, 0, (0, 0), 0.00002),  # 0.1 ms is 1 ms: a second in all
    (2, 0.1, 1_000_000, 10 * 10**9, (0, 0), 4.16),  # 200,000 GB-s are 4.00, 10 GB are 0.16
    (6, 0.0, 0, 0, (1, 86_400), 2.592),  # 518,400 GB-s kept warm, unused
    (6, 0.5, 7_200, 0, (2, 3_600), 0.648),  # 21,600 GB-s at 0.00002 are 0.432, 43,200 at 0.000005 are 0.216
    (3, 0.0, 10, 125_000_000, (0, 0), 0.002),  # data alone: 1/8 GB
]


@pytest.mark.parametrize(("memory_gb", "seconds", "requests", "data_bytes", "warm", "usd"), BILLS)
def test_a_bill(
    price: ServerlessPrice, memory_gb: int, seconds: float, requests: int, data_bytes: int, warm: tuple[int, int], usd: float
) -> None:
    durations = [round(seconds * NS_PER_S)] * requests
    charges = serverless_charges(price, memory_gb, durations, data_bytes, provisioned=warm[0], provisioned_s=warm[1])
    assert sum(charge.amount_nano for charge in charges) == round(usd * USD)


def test_every_request_is_rounded_up_for_itself(price: ServerlessPrice) -> None:
    """1.2, 2.0 and 2.000001 ms are 2, 2 and 3 ms: 7 ms of 1 GB are 140 nano-dollars."""
    [charge] = serverless_charges(price, 1, [1_200_000, 2 * NS_PER_MS, 2_000_001])
    assert (charge.what, str(charge.quantity), charge.amount_nano) == ("processing", "0.007000000", 140)


def test_what_cannot_be_had(price: ServerlessPrice) -> None:
    with pytest.raises(ValueError, match="has no 7 GB; it has: 1, 2, 3, 4, 5, 6"):
        serverless_charges(price, 7, [1])
    with pytest.raises(ValueError, match="not negative"):
        serverless_charges(price, 1, [-1])
    with pytest.raises(ValueError, match="not negative"):
        serverless_charges(price, 1, [1], provisioned=-1)
    assert serverless_charges(price, 1, []) == []


def test_prices_that_are_no_prices_are_refused_with_their_row(tmp_path: Path) -> None:
    overlay = tmp_path / "mine.yaml"
    about = "source: contract, date: 2026-11-23, confidence: assumed"
    changed = "memory_gb: [0], granularity_ms: 0, usd_per_gb_s: '-1', usd_per_gb: '1 EUR'"
    overlay.write_text(f"serverless_prices:\n  sagemaker_serverless: {{{changed}, {about}}}\n")
    with pytest.raises(InputError) as refused:
        load_catalog(overlay)
    assert [problem.path.rsplit(".", 1)[-1] for problem in refused.value.problems] == [
        "memory_gb", "granularity_ms", "usd_per_gb_s", "usd_per_gb",
    ]  # fmt: skip
