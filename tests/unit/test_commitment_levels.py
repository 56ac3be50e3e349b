"""Laws of what to commit to: no other level is better, more discount never saves less, the ledger charges what was foretold."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import pytest
from commitment_kit import bill, rented
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.billing.commitment_choice import (
    PLAN_LEAST_STEPS,
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
from sim.billing.commitment_mix import best_mix
from sim.billing.commitment_portfolios import Offers, best_portfolios
from sim.scenario import Pool
from sim.scenario.commitments import ComputeSavingsPlan, InstanceSavingsPlan, ReservedInstances
from sim.units import NANO_PER_USD, NS_PER_HOUR, NS_PER_MINUTE

P5, G5 = Kind("aws", "us-east-1", "p5.4xlarge"), Kind("aws", "us-east-1", "g5.xlarge")
MOST_MACHINES = 4
PRICES = st.integers(1, 8).map(lambda dollars: dollars * NANO_PER_USD)
MINUTES = st.integers(0, 60 * MOST_MACHINES)
LENGTHS = st.sampled_from([NS_PER_HOUR, NS_PER_HOUR, 20 * NS_PER_MINUTE])


@st.composite
def uses(draw, kinds=(P5, G5)):
    """Some hours of some kinds of machines, each hour at up to two prices; the first and the last may be parts of an hour."""
    lengths_ns = tuple(draw(st.lists(LENGTHS, min_size=1, max_size=6)))
    found = {}
    for kind in kinds:
        found[kind] = {
            number: tuple(Segment(draw(MINUTES) * length_ns // 60 // 2, draw(PRICES)) for _ in range(draw(st.integers(1, 2))))
            for number, length_ns in enumerate(lengths_ns)
        }
    return HourlyUse(lengths_ns, found)


def priced(use: HourlyUse, name: str, shares: dict[Kind, Fraction]) -> Offer:
    """An offer at shares of the first prices."""
    rates = {kind: max(round(use.first_price_nano(kind) * share), 1) for kind, share in shares.items()}
    return Offer(name, rates, "assumed", "an example")


SHARES = st.sampled_from([Fraction(number, 20) for number in range(6, 21)])


@given(uses(), SHARES)
@settings(max_examples=60, deadline=None)
def test_no_other_number_of_machines_is_better(use, share):
    offer = priced(use, "reserved_instances", {P5: share})
    saved = [cover(use, Promise(offer, level))[0].saved_nano for level in range(2 * MOST_MACHINES + 2)]
    best = best_promise(use, offer).level
    assert saved[best] == max(saved)
    assert saved[best] >= 0


@given(uses(), SHARES, SHARES, st.integers(0, 4_000_000))
@settings(max_examples=60, deadline=None)
def test_no_other_plan_is_better(use, one, other, level):
    offer = priced(use, "compute_savings_plan", {P5: one, G5: other})
    best = best_promise(use, offer)
    assert best.level == 0 or best.level >= PLAN_LEAST_STEPS
    saved_nano = cover(use, best)[0].saved_nano
    # Parts of a nanosecond are not covered, at most one for each segment.
    rounding_nano = 100
    assert saved_nano >= -rounding_nano
    for elsewhere in (level, best.level + 1, max(best.level - 1, 0)):
        assert cover(use, Promise(offer, elsewhere))[0].saved_nano <= saved_nano + rounding_nano


@given(uses(), SHARES, SHARES, st.sampled_from(["reserved_instances", "compute_savings_plan"]))
@settings(max_examples=60, deadline=None)
def test_a_higher_discount_never_saves_less(use, one, other, name):
    low, high = sorted((one, other))
    cheap, dear = (best_promise(use, priced(use, name, {P5: share})) for share in (low, high))
    assert cover(use, cheap)[0].saved_nano >= cover(use, dear)[0].saved_nano - 100


@given(uses((P5,)), st.sampled_from(["reserved_instances", "compute_savings_plan"]))
@settings(max_examples=40, deadline=None)
def test_without_a_discount_nothing_is_bought(use, name):
    highest = max(segment.price_nano for hour in use.uses[P5].values() for segment in hour)
    assert best_promise(use, Offer(name, {P5: highest}, "assumed", "an example")).level == 0


@given(uses(), SHARES, st.integers(2, 9))
@settings(max_examples=40, deadline=None)
def test_prices_times_a_number_are_savings_times_that_number(use, share, factor):
    dearer = HourlyUse(
        use.lengths_ns,
        {
            kind: {
                number: tuple(Segment(each.length_ns, each.price_nano * factor) for each in hour) for number, hour in hours.items()
            }
            for kind, hours in use.uses.items()
        },
    )
    offer = priced(use, "reserved_instances", {P5: share})
    scaled = Offer(offer.name, {P5: offer.rates_nano[P5] * factor}, "assumed", "an example")
    best, same = best_promise(use, offer), best_promise(dearer, scaled)
    assert best.level == same.level
    assert cover(dearer, same)[0].saved_nano == pytest.approx(cover(use, best)[0].saved_nano * factor, abs=2 * factor)


@given(uses(), st.tuples(SHARES, SHARES, SHARES, SHARES))
@settings(max_examples=25, deadline=None)
def test_machines_and_a_plan_are_between_what_was_tried_and_the_bound(use, shares):
    # One price an hour: with several, which of them a reserved machine covers depends on the order of the leases.
    use = HourlyUse(
        use.lengths_ns, {kind: {number: hour[:1] for number, hour in hours.items()} for kind, hours in use.uses.items()}
    )
    machines = [priced(use, "reserved_instances", {kind: share}) for kind, share in zip((P5, G5), shares[:2], strict=True)]
    plan = priced(use, "compute_savings_plan", dict(zip((P5, G5), shares[2:], strict=True)))
    mix = best_mix(use, machines, plan)
    tried = []
    for counts in product(range(MOST_MACHINES // 2 + 1), repeat=2):
        promises = [Promise(offer, count) for offer, count in zip(machines, counts, strict=True)]
        left = use
        for promise in promises:
            _, left = cover(left, promise)
        tried.append(sum(outcome.saved_nano for outcome in cover_all(use, [*promises, best_promise(left, plan)])))
    solver_nano = NANO_PER_USD // 1_000_000
    assert max(tried) <= mix.bound_nano + solver_nano
    assert mix.saved_nano <= mix.bound_nano
    alone = [best_promise(use, offer) for offer in machines]
    assert mix.saved_nano >= sum(outcome.saved_nano for outcome in cover_all(use, alone))
    assert mix.saved_nano >= cover(use, best_promise(use, plan))[0].saved_nano


def test_a_mix_finds_the_best_of_all_numbers_of_machines():
    # Machines of two types that are busy at opposite hours: a plan is used in all hours, a reserved machine in some.
    up = [0, 1, 2, 3, 2, 1]
    prices = {P5: 7 * NANO_PER_USD, G5: 6 * NANO_PER_USD}
    use = HourlyUse(
        (NS_PER_HOUR,) * 6,
        {
            P5: {number: (Segment((1 + count) * NS_PER_HOUR, prices[P5]),) for number, count in enumerate(up)},
            G5: {number: (Segment((4 - count) * NS_PER_HOUR, prices[G5]),) for number, count in enumerate(up)},
        },
    )
    machines = [priced(use, "reserved_instances", {kind: Fraction(3, 5)}) for kind in (P5, G5)]
    plan = priced(use, "compute_savings_plan", {P5: Fraction(7, 10), G5: Fraction(7, 10)})
    mix = best_mix(use, machines, plan)
    best = 0
    for counts in product(range(5), repeat=2):
        promises = [Promise(offer, count) for offer, count in zip(machines, counts, strict=True)]
        left = use
        for promise in promises:
            _, left = cover(left, promise)
        best = max(best, sum(outcome.saved_nano for outcome in cover_all(use, [*promises, best_promise(left, plan)])))
    assert mix.saved_nano == best
    names = {portfolio.name: portfolio.saved_nano for portfolio in best_portfolios(use, Offers(tuple(machines), (), plan))}
    assert names["machines and compute plan"] > max(names["machines"], names["compute plan"])


# Leases of two pools in six hours: (pool, start in seconds, length in seconds).
LEASES = st.lists(
    st.tuples(st.sampled_from(["p5", "g5"]), st.integers(0, 5 * 3600), st.integers(60, 4 * 3600)), min_size=1, max_size=5
)
POOLS = {
    "p5": Pool(instance="p5.4xlarge", price_usd_per_hour="7.30"),
    "g5": Pool(instance="g5.xlarge", price_usd_per_hour="1.013"),
}
TYPES = {"p5": P5, "g5": G5}


def use_of(rows: list[dict], of_lease: dict[int, Kind], hours: int) -> HourlyUse:
    """The use that the rows of a ledger are about."""
    found: dict[Kind, dict[int, list[Segment]]] = {}
    for row in rows:
        number = int(row["local_hour"][11:13])
        price_nano = round(float(row["unit_price"].removesuffix(" per hour")) * NANO_PER_USD)
        segment = Segment(row["end_ns"] - row["start_ns"], price_nano)
        found.setdefault(of_lease[row["lease"]], {}).setdefault(number, []).append(segment)
    return HourlyUse(
        (NS_PER_HOUR,) * hours, {kind: {n: tuple(each) for n, each in numbers.items()} for kind, numbers in found.items()}
    )


@given(LEASES, SHARES, SHARES, SHARES)
@settings(max_examples=25, deadline=None)
def test_the_ledger_charges_what_was_foretold(drawn, reserved, instance_plan, compute_plan):
    leases = [
        rented(number, pool, start_s, min(start_s + length_s, 6 * 3600), instance=TYPES[pool].instance)
        for number, (pool, start_s, length_s) in enumerate(drawn)
    ]
    plain = bill(POOLS, {}, leases, hours=6)
    use = use_of(plain.tables["ledger"], {number: TYPES[pool] for number, (pool, _, _) in enumerate(drawn)}, 6)
    assert use.on_demand_nano() == pytest.approx(sum(plain.amounts()), abs=100)
    offers = Offers(
        tuple(priced(use, "reserved_instances", {kind: reserved}) for kind in use.kinds),
        tuple(priced(use, "instance_savings_plan", {kind: instance_plan}) for kind in use.kinds),
        priced(use, "compute_savings_plan", dict.fromkeys(use.kinds, compute_plan)),
    )
    for portfolio in best_portfolios(use, offers):
        charged = bill(POOLS, {str(n): row_of(outcome.promise) for n, outcome in enumerate(portfolio.outcomes)}, leases, hours=6)
        foretold_nano = use.on_demand_nano() - portfolio.saved_nano
        # Rows are rounded one by one: far less than a cent, which is 10 million.
        assert sum(charged.amounts()) == pytest.approx(foretold_nano, abs=1_000)


def row_of(promise: Promise) -> object:
    """The row of a scenario's commitments that is a promise."""
    offer, texts = promise.offer, {kind.instance: f"{rate / NANO_PER_USD:.9f}" for kind, rate in promise.offer.rates_nano.items()}
    first = next(iter(offer.rates_nano))
    if offer.of_machines:
        return ReservedInstances(
            instance=first.instance, region=first.region, count=promise.level, usd_per_hour=texts[first.instance]
        )
    usd = f"{promise.level * PLAN_STEP_NANO / NANO_PER_USD:.9f}"
    if offer.name == "instance_savings_plan":
        return InstanceSavingsPlan(usd_per_hour=usd, rates_usd_per_hour=texts, family=first.family, region=first.region)
    return ComputeSavingsPlan(usd_per_hour=usd, rates_usd_per_hour=texts)


SMALL, LARGE = Kind("aws", "us-east-1", "m7i.2xlarge"), Kind("aws", "us-east-1", "m7i.48xlarge")


@given(uses((SMALL, LARGE)), st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_no_other_number_of_machines_of_flexible_size_is_better(use, dollars):
    # 16 and 384 units. The saving need not fall from one machine to the next: the smallest size is first, whatever it costs.
    rate = dollars * NANO_PER_USD // 24
    flexible = Offer("reserved_instances", {SMALL: rate, LARGE: 24 * rate}, "assumed", "an example")
    saved = [cover(use, Promise(flexible, level))[0].saved_nano for level in range(24 * 2 * MOST_MACHINES + 26)]
    best = best_promise(use, flexible).level
    # The choice is exact; rows of a bill are rounded to the nano-dollar, each by itself, so equally good levels may differ.
    assert max(saved) - saved[best] <= 2 * len(use.lengths_ns)


@given(uses((SMALL, LARGE, P5)), st.integers(1, 8), SHARES)
@settings(max_examples=20, deadline=None)
def test_the_bound_holds_for_flexible_sizes_beside_a_plan(use, dollars, share):
    rate = dollars * NANO_PER_USD // 24
    flexible = Offer("reserved_instances", {SMALL: rate, LARGE: 24 * rate}, "assumed", "an example")
    plan = priced(use, "compute_savings_plan", dict.fromkeys((SMALL, LARGE, P5), share))
    mix = best_mix(use, [flexible], plan)
    for level in range(0, 120, 7):
        outcome, left = cover(use, Promise(flexible, level))
        rest = cover(left, best_promise(left, plan))[0]
        assert outcome.saved_nano + rest.saved_nano <= mix.bound_nano + 1_000
    assert mix.saved_nano >= max(cover(use, best_promise(use, each))[0].saved_nano for each in (flexible, plan))
