"""Prices and discounts of the catalog: where each comes from, and that none contradicts another."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from itertools import pairwise, product
from pathlib import Path

import pytest

from sim.catalog.loader import load_catalog
from sim.domain.hardware import Price, Provenance
from sim.domain.pricing import CommitmentDiscount, family_of
from sim.errors import InputError

CATALOG = load_catalog()
CHECKED = date(2026, 11, 23)
DISCOUNTS = CATALOG.commitment_discounts
# "1.89 of 2.70": the rate of a promise and the on-demand price beside it.
PAIR = re.compile(r"(\d+\.\d+|\d+) of (\d+\.\d+)")


def listed() -> Iterator[tuple[str, Price]]:
    """Every on-demand price by type, region and place."""
    for name, row in CATALOG.instances.items():
        for region, prices in row.on_demand.items():
            for number, price in enumerate(prices):
                yield f"{name} {region} {number}", price


def sources() -> Iterator[tuple[str, Provenance]]:
    """Where every price, discount and spot level comes from."""
    for name, price in listed():
        yield name, price.provenance
    for name, line in CATALOG.cost_lines.items():
        yield name, line.provenance
        for number, dated in enumerate(line.prices):
            yield f"{name} {number}", dated.provenance
    for table in (DISCOUNTS, CATALOG.sustained_uses, CATALOG.spot_prices):
        for name, row in table.items():
            yield name, row.provenance


def test_every_price_has_a_source_a_day_and_a_confidence() -> None:
    found = list(sources())
    assert len(found) > 150
    for name, provenance in found:
        assert len(provenance.source) > 10, name
        assert date(2023, 1, 1) <= date.fromisoformat(provenance.date) <= CHECKED, name
        assert provenance.confidence in ("fitted", "published", "assumed"), name


def test_what_is_remembered_or_guessed_is_assumed() -> None:
    for name, provenance in sources():
        if "from memory" in provenance.source or "assumed" in provenance.source:
            assert provenance.confidence == "assumed", name


@pytest.mark.parametrize("missing", ["source", "date", "confidence"])
def test_a_price_that_says_less_is_refused_with_its_row(missing: str, tmp_path: Path) -> None:
    about = {"source": "a quote", "date": "2026-11-01", "confidence": "published"}
    price = {"usd_per_hour": '"5.00"', "valid_from": "2026-11-01", **about}
    del price[missing]
    text = ", ".join(f"{key}: {value}" for key, value in price.items())
    row = ", ".join(f"{key}: {value}" for key, value in about.items())
    path = tmp_path / "prices.yaml"
    path.write_text(f"instances:\n  p5.4xlarge: {{on_demand: {{us-east-1: [{{{text}}}]}}, {row}}}\n", "utf-8")
    with pytest.raises(InputError) as caught:
        load_catalog(path)
    assert [problem.path for problem in caught.value.problems] == [f"instances.p5.4xlarge.on_demand.us-east-1.0.{missing}"]


def test_a_price_was_known_when_it_began_to_hold() -> None:
    for name, price in listed():
        # Lists without a day of their own are taken to hold from the start of their year.
        assert date.fromisoformat(price.valid_from) <= CHECKED, name
        assert price.valid_from <= price.provenance.date, name


def test_a_machine_costs_much_the_same_everywhere() -> None:
    for name, row in CATALOG.instances.items():
        now = [Decimal(prices[-1].usd_per_hour) for prices in row.on_demand.values()]
        # The dearest region of the lists is 1.6 times the cheapest; a slip of a digit is more.
        assert max(now) <= Decimal("1.7") * min(now), name
        for prices in row.on_demand.values():
            steps = [Decimal(after.usd_per_hour) / Decimal(before.usd_per_hour) for before, after in pairwise(prices)]
            assert all(Decimal("0.5") <= step <= 2 and step != 1 for step in steps), name


def test_promises_and_spot_are_below_the_on_demand_price() -> None:
    for name, row in DISCOUNTS.items():
        assert 0 < row.share < 0.75, name
    for name, used in CATALOG.sustained_uses.items():
        assert used.tiers[0] == 1.0, name
        assert list(used.tiers) == sorted(used.tiers, reverse=True), name
    for name, spot in CATALOG.spot_prices.items():
        assert 0 < spot.ratio_floor <= spot.ratio_low <= spot.ratio_median <= spot.ratio_high <= spot.ratio_ceiling <= 1, name
        assert spot.ratio_median < 1, name


def test_a_longer_promise_saves_more() -> None:
    by_offer: dict[tuple[str, ...], dict[str, CommitmentDiscount]] = defaultdict(dict)
    for row in DISCOUNTS.values():
        for place in product(row.offers, row.families, row.payments):
            assert row.term not in by_offer[row.cloud, *place], (row.name, place)
            by_offer[row.cloud, *place][row.term] = row
    for whose, rows in by_offer.items():
        if len(rows) == 2:
            assert rows["1y"].share < rows["3y"].share, whose


def test_shares_are_those_of_the_rates_beside_them() -> None:
    checked = 0
    for name, row in DISCOUNTS.items():
        pairs = PAIR.findall(row.provenance.source)
        # A published share is worked out from rates, or it is what the page itself says, in per cent or as an average.
        stated = "%" in row.provenance.source or "average" in row.provenance.source
        assert bool(pairs) == (row.provenance.confidence == "published" and not stated), name
        for rate, price in pairs:
            assert 1 - float(rate) / float(price) == pytest.approx(row.share, abs=0.002), (name, rate)
            checked += 1
    assert checked > 30


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("aws-p5-1y", {"p5.48xlarge": "34.6752", "p5en.48xlarge": "39.87648"}),
        ("aws-p5-3y", {"p5.48xlarge": "23.77728", "p5en.48xlarge": "27.34387"}),
        ("aws-p6-3y", {"p6-b200.48xlarge": "49.21897", "p6-b300.48xlarge": "61.52371"}),
        ("aws-p4-1y", {"p4de.24xlarge": "17.40137", "p4d.24xlarge": "13.921"}),
        ("aws-g5-g6e-1y", {"g5.xlarge": "0.634", "g5.12xlarge": "3.573", "g6e.xlarge": "1.172"}),
    ],
)
def test_committed_rates_of_the_lists_come_out(name: str, rates: dict[str, str]) -> None:
    for instance, rate in rates.items():
        assert family_of(instance) in DISCOUNTS[name].families
        on_demand = Decimal(CATALOG.instances[instance].on_demand["us-east-1"][-1].usd_per_hour)
        assert float(on_demand) * (1 - DISCOUNTS[name].share) == pytest.approx(float(rate), rel=0.001)


def test_the_price_cut_of_2025_is_in_the_catalog() -> None:
    for instance, cut in (("p5.48xlarge", 0.44), ("p4d.24xlarge", 0.33), ("p4de.24xlarge", 0.33)):
        before, after = CATALOG.instances[instance].on_demand["us-east-1"]
        assert after.valid_from == "2025-06-01"
        assert 1 - float(after.usd_per_hour) / float(before.usd_per_hour) == pytest.approx(cut, abs=0.005)
