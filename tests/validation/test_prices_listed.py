"""Prices of the catalog against the lists they were read from."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from sim.catalog.loader import load_catalog
from sim.domain.hardware import Price

pytestmark = pytest.mark.validation

CATALOG = load_catalog()


def rows(name: str) -> list[dict[str, str]]:
    """The rows of a list of prices."""
    path = Path(os.environ.get("BILLCAST_DATA", Path(__file__).parents[2] / "../shared/data")).joinpath("prices", name)
    if not path.exists():
        pytest.skip(f"no price lists: {path} is absent (set BILLCAST_DATA)")
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def prices(cloud: str) -> Iterator[tuple[str, str, Price]]:
    """Every on-demand price of a cloud: type, region, price."""
    for name, row in CATALOG.instances.items():
        if row.cloud == cloud:
            for region, dated in row.on_demand.items():
                yield from ((name, region, price) for price in dated)


def test_aws_us_east_1_is_that_of_the_price_list() -> None:
    listed = {row["instance_type"]: Decimal(row["on_demand_usd_h"]) for row in rows("aws_us_east_1_on_demand_2026-07-20.csv")}
    checked = 0
    for name, instance in CATALOG.instances.items():
        if instance.cloud == "aws" and "us-east-1" in instance.on_demand:
            assert Decimal(instance.on_demand["us-east-1"][-1].usd_per_hour) == listed[name], name
            checked += 1
    assert checked >= 24


def test_prices_of_2024_are_those_of_the_list_of_that_day() -> None:
    listed = {
        (row["cloud"], row["instance_type"], row["region"]): Decimal(row["on_demand_usd_h"])
        for row in rows("skypilot_catalog_2024_trimmed.csv")
        if row["on_demand_usd_h"]
    }
    checked = 0
    for name, region, price in prices("aws"):
        if price.valid_from == "2024-05-01":
            assert Decimal(price.usd_per_hour) == listed["aws", name, region], (name, region)
            checked += 1
    # Lambda and RunPod have one price for all of their regions.
    for cloud, region in (("lambda", "us-east-1"), ("runpod", "CA")):
        for name, _, price in prices(cloud):
            if price.valid_from < "2026":
                assert Decimal(price.usd_per_hour) == listed[cloud, name, region], name
                checked += 1
    assert checked >= 40


def test_prices_before_the_cut_are_those_of_2024() -> None:
    listed = {
        row["instance_type"]: Decimal(row["on_demand_usd_h"])
        for row in rows("skypilot_catalog_2024_trimmed.csv")
        if row["cloud"] == "aws" and row["region"] == "us-east-1"
    }
    for name in ("p4d.24xlarge", "p4de.24xlarge", "p5.48xlarge"):
        assert Decimal(CATALOG.instances[name].on_demand["us-east-1"][0].usd_per_hour) == listed[name]


def test_other_regions_of_the_p_types_are_those_of_the_list_of_2026() -> None:
    listed = {(row["instance_type"], row["region"]): row["on_demand_usd_h"] for row in rows("aws_p_family_spot_by_az_2026.csv")}
    found = {(name, region): price for name, region, price in prices("aws") if price.valid_from == "2026-01-01"}
    both = set(listed) & set(found)
    assert len(both) >= 8
    for place in both:
        assert Decimal(found[place].usd_per_hour) == Decimal(listed[place]), place


def test_prices_of_2026_of_other_clouds_are_those_of_the_list() -> None:
    listed: dict[tuple[str, str, str], set[Decimal]] = {}
    for row in rows("current_prices_2026.csv"):
        if row["on_demand_usd_h"]:
            listed.setdefault((row["cloud"], row["instance_type"], row["region"]), set()).add(Decimal(row["on_demand_usd_h"]))
    checked = 0
    for cloud in ("gcp", "azure", "lambda", "runpod"):
        for name, region, price in prices(cloud):
            if (cloud, name, region) in listed and price.valid_from >= "2026":
                # of two lists that disagree (a3-highgpu-8g), one
                assert Decimal(price.usd_per_hour) in listed[cloud, name, region], (name, region)
                checked += 1
    assert checked >= 12


@pytest.mark.parametrize(("chip", "prefix"), [("TPU v5e", "ct5lp"), ("TPU v5p", "ct5p"), ("TPU v6e", "ct6e")])
def test_tpu_hosts_cost_their_chips(chip: str, prefix: str) -> None:
    listed = {
        row["region"]: Decimal(row["on_demand_usd_h"]) for row in rows("current_prices_2026.csv") if row["accelerator"] == chip
    }
    hosts = [(name, row) for name, row in CATALOG.instances.items() if name.startswith(prefix)]
    assert hosts
    for name, row in hosts:
        for region, dated in row.on_demand.items():
            assert Decimal(dated[-1].usd_per_hour) == row.accelerators * listed[region], (name, region)
