"""What to commit to, worked by hand: days of three levels, a plan of two discounts, parts of an hour, other traffic."""

from __future__ import annotations

from fractions import Fraction

import pytest

from sim.billing.commitment_choice import (
    PLAN_STEP_NANO,
    HourlyUse,
    Kind,
    Offer,
    Promise,
    Segment,
    best_promise,
    cover,
    cover_all,
)
from sim.billing.commitment_portfolios import COMPUTE_PLAN, INSTANCE_PLANS, MACHINES, Offers, best_portfolios
from sim.units import NANO_PER_USD, NS_PER_HOUR

P5, G5 = Kind("aws", "us-east-1", "p5.4xlarge"), Kind("aws", "us-east-1", "g5.xlarge")


def nano(usd: float) -> int:
    """Dollars in nano-dollars."""
    return round(usd * NANO_PER_USD)


def hours_of(prices: dict[Kind, float], machines: dict[Kind, list[float]]) -> HourlyUse:
    """Use in whole hours: machines of each kind in each hour, at one price."""
    [count] = {len(values) for values in machines.values()}
    uses = {
        kind: {number: (Segment(round(value * NS_PER_HOUR), nano(prices[kind])),) for number, value in enumerate(values) if value}
        for kind, values in machines.items()
    }
    return HourlyUse((NS_PER_HOUR,) * count, uses)


def offer(name: str, rates: dict[Kind, float], confidence: str = "assumed") -> Offer:
    """An offer at rates in dollars per hour."""
    return Offer(name, {kind: nano(rate) for kind, rate in rates.items()}, confidence, "an example")


# A day: 8 hours of one machine, 10 of two, 6 of four. On demand (8 + 20 + 24) machine-hours at 10 USD are 520 USD.
DAY = hours_of({P5: 10}, {P5: [1] * 8 + [2] * 10 + [4] * 6})


@pytest.mark.parametrize(
    ("rate", "machines", "bill", "used", "covered"),
    [
        # The first machine is used in 24 of 24 hours, the second in 16 (67 %), the third and the fourth in 6 (25 %).
        # At 70 % of the price the second does not pay: 24 x 7 + (10 x 1 + 6 x 3) x 10.
        (7, 1, 168 + 280, 1.0, 240 / 520),
        # At 60 % it does: 2 x 24 x 6 + 6 x 2 x 10; used 8 + 16 x 2 of 48 machine-hours.
        (6, 2, 288 + 120, 40 / 48, 400 / 520),
        # At 24 % all four do: 4 x 24 x 2.4; used 52 of 96.
        (2.4, 4, 230.4, 52 / 96, 1.0),
        # At exactly 25 % the third and the fourth cost as much as they save, and are not bought: 2 x 24 x 2.5 + 120.
        (2.5, 2, 120 + 120, 40 / 48, 400 / 520),
        # Without a discount nothing is bought.
        (10, 0, 520, None, 0.0),
    ],
)
def test_a_day_of_three_levels(rate, machines, bill, used, covered):
    reserved = offer("reserved_instances", {P5: rate})
    best = best_promise(DAY, reserved)
    outcome, left = cover(DAY, best)
    assert best.level == machines
    assert DAY.on_demand_nano() - outcome.saved_nano == nano(bill)
    assert outcome.utilisation == (None if used is None else pytest.approx(used))
    assert outcome.replaced_nano / DAY.on_demand_nano() == pytest.approx(covered)
    assert left.on_demand_nano() == DAY.on_demand_nano() - outcome.replaced_nano


def test_a_plan_for_one_type_is_the_same_in_dollars():
    best = best_promise(DAY, offer("compute_savings_plan", {P5: 6}))
    assert best.nano_per_hour == nano(2 * 6)
    assert cover(DAY, best)[0].saved_nano == nano(520 - 408)


def test_a_plan_of_two_discounts_covers_the_higher_first():
    # One p5 and one g5, two g5, one p5; p5 10 USD, 5 in the plan; g5 4 USD, 3 in the plan. On demand 14 + 8 + 10 = 32 USD.
    use = hours_of({P5: 10, G5: 4}, {P5: [1, 0, 1], G5: [1, 2, 0]})
    plan = offer("compute_savings_plan", {P5: 5, G5: 3})
    best = best_promise(use, plan)
    # Up to 5 USD a dollar of plan saves 2 + 4/3 + 2 dollars in three hours and costs 3; above only 4/3 + 4/3.
    assert best.nano_per_hour == nano(5)
    outcome, left = cover(use, best)
    # Replaced: p5 10; g5 5/6 of 8; p5 10.
    assert (outcome.committed_nano, outcome.used_nano) == (nano(15), nano(15))
    assert outcome.replaced_nano == pytest.approx(nano(10 + 20 / 3 + 10), abs=20)
    assert left.machines(G5) == pytest.approx((1, 1 / 3, 0), abs=1e-9)


def test_a_plan_never_pays_for_use_that_is_cheaper_on_demand():
    price_cut = HourlyUse((NS_PER_HOUR,) * 2, {P5: {0: (Segment(NS_PER_HOUR, nano(10)),), 1: (Segment(NS_PER_HOUR, nano(4)),)}})
    outcome, left = cover(price_cut, Promise(offer("compute_savings_plan", {P5: 5}), nano(5) // PLAN_STEP_NANO))
    assert (outcome.committed_nano, outcome.used_nano, outcome.replaced_nano) == (nano(10), nano(5), nano(10))
    assert left.machines(P5) == (0, 1)
    # Reserved machines do: their rate is paid in any case.
    outcome, left = cover(price_cut, Promise(offer("reserved_instances", {P5: 5}), 1))
    assert (outcome.used_nano, outcome.replaced_nano, left.machines(P5)) == (nano(10), nano(14), (0, 0))


def test_a_part_of_an_hour_has_that_part_of_the_commitment():
    # A run of 90 minutes with a machine all the time, 15 USD on demand: one reserved for 6 is 9 USD.
    use = HourlyUse(
        (NS_PER_HOUR, NS_PER_HOUR // 2),
        {P5: {0: (Segment(NS_PER_HOUR, nano(10)),), 1: (Segment(NS_PER_HOUR // 2, nano(10)),)}},
    )
    best = best_promise(use, offer("reserved_instances", {P5: 6}))
    outcome, _ = cover(use, best)
    assert (best.level, outcome.committed_nano, outcome.saved_nano) == (1, nano(9), nano(6))


def test_reserved_machines_before_a_plan():
    # Of the day at 6 USD reserved and 8 in the plan: two machines, and 16 USD of plan for the rest, two machines in 6 hours.
    promises = [
        Promise(offer("reserved_instances", {P5: 6}), 2),
        Promise(offer("compute_savings_plan", {P5: 8}), nano(16) // PLAN_STEP_NANO),
    ]
    machines, plan = cover_all(DAY, promises)
    assert (machines.saved_nano, plan.replaced_nano, plan.used_nano) == (nano(400 - 288), nano(120), nano(96))
    assert plan.saved_nano == nano(120 - 24 * 16)


def test_half_the_traffic():
    # Two machines at 6 USD were right. With half the use (0.5, 1, 2 machines) they replace (4 + 10 + 12) x 10 USD and cost 288;
    # one would replace (4 + 10 + 6) x 10 and cost 144.
    [found] = best_portfolios(DAY, Offers((offer("reserved_instances", {P5: 6}),)), [Fraction(1, 2)])
    [regret] = found.regrets
    assert (found.name, found.saved_nano) == (MACHINES, nano(112))
    assert (regret.saved_nano, regret.best_nano, regret.regret_nano) == (nano(-28), nano(56), nano(84))


def test_how_long_the_use_must_go_on():
    outcome, _ = cover(DAY, Promise(offer("reserved_instances", {P5: 6}), 2))
    # 288 USD a day replace 400: 72 % of the term.
    assert outcome.break_even == pytest.approx(0.72)


def test_the_set_that_saves_most_comes_first():
    offers = Offers(
        (offer("reserved_instances", {P5: 7}),),
        (offer("instance_savings_plan", {P5: 6}, "published"),),
        offer("compute_savings_plan", {P5: 8}),
    )
    found = best_portfolios(DAY, offers)
    # 112 USD by hand above; machines 72; the plan for all pays for one machine at 80 %: 24 x 2; with machines it adds nothing.
    names = [(portfolio.name, portfolio.saved_nano) for portfolio in found]
    assert names == [
        (INSTANCE_PLANS, nano(112)),
        (MACHINES, nano(72)),
        ("machines and compute plan", nano(72)),
        (COMPUTE_PLAN, nano(48)),
    ]
    assert [portfolio.assumed_nano == portfolio.committed_nano for portfolio in found] == [False, True, True, True]


def test_machines_of_flexible_size_are_bought_in_the_smallest() -> None:
    # One 2xlarge (16 units) in all of 24 hours, one 48xlarge (384 units) in 18 of them, at 0.40 and 9.60; reserved at 60 % of that.
    # The first 2xlarge is used all day. Each of the next 24 would be used in 18 of 24 hours, 75 %, and costs 60 %: 25 are bought.
    small, large = Kind("aws", "us-east-1", "m7i.2xlarge"), Kind("aws", "us-east-1", "m7i.48xlarge")
    use = hours_of({small: 0.4, large: 9.6}, {small: [1] * 24, large: [0] * 6 + [1] * 18})
    flexible = offer("reserved_instances", {small: 0.24, large: 5.76})
    promise = best_promise(use, flexible)
    assert promise.level == 25
    outcome, left = cover(use, promise)
    # 25 x 24 x 0.24 = 144.00 replace 24 x 0.40 + 18 x 9.60 = 182.40.
    assert (outcome.committed_nano, outcome.replaced_nano) == (nano(144), nano(182.4))
    assert left.on_demand_nano() == 0
    # At 80 % only the first pays.
    assert best_promise(use, offer("reserved_instances", {small: 0.32, large: 7.68})).level == 1
