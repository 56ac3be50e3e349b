"""Machines of managed offers, worked by hand from the prices and factors of each case."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from sim.billing.lives import Life, epoch_ns
from sim.catalog.loader import load_catalog
from sim.errors import InputError
from sim.studies.price import PricedLives, price_lives
from sim.units import instant

NOON = epoch_ns(instant("2026-11-02T12:00Z"))


def life(purchase: str, instance: str, length_s: str, region: str = "us-east-1", usd: str | None = None) -> Life:
    """One life from noon on, of so many seconds."""
    return Life("m", instance, region, NOON, NOON + int(Decimal(length_s) * 10**9), purchase, usd_per_hour=usd)


def close(priced: PricedLives, usd: str) -> None:
    """The bill is the amount in dollars to the nano-dollar, up to the rounding of its rows."""
    assert abs(Decimal(priced.amount_nano) / 10**9 - Decimal(usd)) <= Decimal(len(priced.ledger)) / 2 / 10**9, priced.amount_nano


BILLS = [
    # SageMaker, an hour of an instance: EC2 x 1.40 for .xlarge, x 1.25 for larger ones, x 1.15 for p, x 1.20 for general purpose.
    (life("sagemaker", "g4dn.xlarge", "3600"), "0.7364"),  # 0.526 x 1.40
    (life("sagemaker", "g5.xlarge", "3600"), "1.4084"),  # 1.006 x 1.40
    (life("sagemaker", "g5.2xlarge", "3600"), "1.515"),  # 1.212 x 1.25
    (life("sagemaker", "g5.12xlarge", "3600"), "7.09"),  # 5.672 x 1.25
    (life("sagemaker", "g5.48xlarge", "3600"), "20.36"),  # 16.288 x 1.25
    (life("sagemaker", "g6e.xlarge", "3600"), "2.6054"),  # 1.861 x 1.40
    (life("sagemaker", "inf2.xlarge", "3600"), "0.993242"),  # 0.7582 x 1.31
    (life("sagemaker", "p4d.24xlarge", "3600"), "25.2512883"),  # 21.957642 x 1.15
    (life("sagemaker", "p5.48xlarge", "3600"), "63.296"),  # 55.04 x 1.15
    (life("sagemaker", "m7i.2xlarge", "3600"), "0.48384"),  # 0.4032 x 1.20
    # By the second, from creation to deletion, without a minimum: 59.2 s are 60, 10 s are 10; with one's own price, no factor.
    (life("sagemaker", "g5.xlarge", "59.2", usd="3.60"), "0.060"),
    (life("sagemaker", "g5.xlarge", "10", usd="3.60"), "0.010"),
    # 1,234 billable seconds at 0.002, and 900.2 s of a transform, which are 901 at 0.001.
    (life("sagemaker_training", "g5.xlarge", "1234", usd="7.20"), "2.468"),
    (life("sagemaker_batch", "g5.xlarge", "900.2", usd="3.60"), "0.901"),
    # Vertex in steps of 30 s: 61 s are 90, 30 s are 30; the machine and 15 %: 0.708 x 1.15 = 0.8142.
    (life("vertex", "g2-standard-4", "61", "us-east1", "3.60"), "0.090"),
    (life("vertex", "g2-standard-4", "30", "us-east1", "3.60"), "0.030"),
    (life("vertex", "g2-standard-4", "3600", "us-east1"), "0.8142"),
    # Flex-start by the second, at least 60; 5.07 x 0.47 = 2.3829.
    (life("flex_start", "a2-ultragpu-1g", "59", "us-east1", "3.60"), "0.060"),
    (life("flex_start", "a2-ultragpu-1g", "3600", "us-east1"), "2.3829"),
    # Workers by the second of an accelerator: an H100 at 0.001097 a second on Modal, 5.49 / 3600 on Replicate.
    (life("modal", "p5.4xlarge", "1000"), "1.097"),
    (life("modal", "p5.48xlarge", "1000"), "8.776"),  # eight of them
    (life("modal", "g6.xlarge", "9.5", "anywhere"), "0.002222222"),  # 10 s x 0.80 / 3600; no region is asked
    (life("replicate", "p5.4xlarge", "3600"), "5.49"),
    (life("runpod_serverless", "p5.4xlarge", "100"), "0.116"),  # 0.00116 a second
]


@pytest.mark.parametrize(("lived", "usd"), BILLS)
def test_the_bill_of_a_managed_machine(lived: Life, usd: str) -> None:
    priced = price_lives([lived])
    close(priced, usd)
    assert {(row["tariff"], row["purchase"]) for row in priced.ledger} == {(lived.purchase, lived.purchase)}


def test_commitments_of_machines_do_not_cover_them() -> None:
    """A reserved g5.xlarge at 0.60 idles beside an endpoint of the same type: 1.4084 + 0.60."""
    promise = {"choice": "reserved_instances", "instance": "g5.xlarge", "region": "us-east-1", "count": 1, "usd_per_hour": "0.60"}
    close(price_lives([life("sagemaker", "g5.xlarge", "3600")], commitments={"ri": promise}), "2.0084")


@pytest.mark.parametrize(
    ("lived", "column", "message"),
    [
        (life("sagemaker", "g2-standard-4", "60", "us-east1"), "purchase", "has no price of g2-standard-4"),
        (life("vertex", "g5.xlarge", "60"), "purchase", "has no price of g5.xlarge"),
        (life("modal", "g5.xlarge", "60"), "purchase", "has no price of g5.xlarge"),
        (life("sagemaker", "g5.xlarge", "60", "mars"), "region", "has no price there"),
        (life("flex_start", "a2-ultragpu-1g", "604801", "us-east1"), "end", "ends after 168 h"),
        (life("sagemakr", "g5.xlarge", "60"), "purchase", "is not a way to buy a machine"),
    ],
)
def test_what_cannot_be_had_is_refused(lived: Life, column: str, message: str) -> None:
    with pytest.raises(InputError) as refused:
        price_lives([lived])
    [problem] = refused.value.problems
    assert problem.path == f"lives[0], column {column}"
    assert message in problem.message


def test_seven_days_of_flex_start_are_allowed() -> None:
    close(price_lives([life("flex_start", "a2-ultragpu-1g", "604800", "us-east1", "1.00")]), "168.00")


def test_an_overlay_has_offers_and_factors_of_its_own(tmp_path: Path) -> None:
    overlay = tmp_path / "mine.yaml"
    about = "source: contract, date: 2026-11-01, confidence: published"
    overlay.write_text(
        "managed_offers:\n"
        f"  sagemaker: {{factors: [{{factor: 1.10}}], {about}}}\n"
        f"  house: {{cloud: any, granularity_s: 60, usd_per_accelerator_hour: {{a10g: '0.90'}}, {about}}}\n"
    )
    close(price_lives([life("sagemaker", "g5.xlarge", "3600")], catalog=overlay), "1.1066")  # 1.006 x 1.10
    close(price_lives([life("house", "g5.12xlarge", "61")], catalog=overlay), "0.12")  # 4 x 0.90 x 120 / 3600
    overlay.write_text(
        "managed_offers:\n"
        f"  a: {{cloud: any, granularity_s: 0, usd_per_accelerator_hour: {{a10g: '-1', a11g: '2 EUR'}}, {about}}}\n"
        f"  b: {{cloud: aws, granularity_s: 1, factors: [{{factor: 0}}], usd_per_accelerator_hour: {{t4: '1'}}, {about}}}\n"
        f"  c: {{cloud: aws, granularity_s: 1, {about}}}\n"
    )
    with pytest.raises(InputError) as refused:
        load_catalog(overlay)
    assert [problem.path.removeprefix("managed_offers.") for problem in refused.value.problems] == [
        "a.granularity_s", "a.usd_per_accelerator_hour.a10g", "a.usd_per_accelerator_hour.a11g", "a.usd_per_accelerator_hour.a11g",
        "b", "b.factors.0.factor", "c",
    ]  # fmt: skip
