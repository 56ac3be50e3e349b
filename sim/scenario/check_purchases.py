"""The check of how machines are bought: the price of a pool, one's own machines, capacity blocks, and the account's commitments."""

from __future__ import annotations

from decimal import Decimal

from sim.catalog.loader import Catalog
from sim.domain.hardware import InstanceType
from sim.domain.pricing import LINUX, OPERATING_SYSTEMS
from sim.errors import Problems
from sim.scenario.commitments import check_money
from sim.scenario.model import PURCHASE_OPTIONS, Pool, Scenario
from sim.scenario.owned import CAPACITY_BLOCK, OWNED, Block, Owned

# Clouds whose spot machines can have a maximum price.
MAXIMUM_PRICES = ("aws", "azure")


def check_purchases(scenario: Scenario, catalog: Catalog, problems: Problems) -> None:
    """Add what is wrong with how the machines of all pools are bought, and with the commitments."""
    for name, pool in scenario.pools.items():
        _check_pool(f"pools.{name}", pool, scenario.start, catalog.instances.get(pool.instance), problems)
    for name, row in scenario.commitments.items():
        row.problems(f"commitments.{name}", catalog, problems)


def _check_pool(path: str, pool: Pool, start: str, instance: InstanceType | None, problems: Problems) -> None:
    bought = pool.purchase
    problems.check(bought in PURCHASE_OPTIONS, f"{path}.purchase", bought, "is not a purchase option", choices=PURCHASE_OPTIONS)
    own = pool.price_usd_per_hour
    _check_operating_system(path, pool, instance, problems)
    most = pool.spot.max_price_usd_per_hour
    if most is not None and check_money(f"{path}.spot.max_price_usd_per_hour", most, problems):
        priced = instance is None or instance.cloud in MAXIMUM_PRICES
        message = "spot machines of this cloud have no maximum price"
        problems.check(priced, f"{path}.spot.max_price_usd_per_hour", most, message, "none")
        if own is not None and check_money(f"{path}.price_usd_per_hour", own, Problems(), zero=True):
            message = "is below the price of the pool, so that no machine could be had"
            enough = Decimal(most) >= Decimal(own)
            problems.check(enough, f"{path}.spot.max_price_usd_per_hour", most, message, f"{own} or more")
    for group, option, plain in (("owned", OWNED, Owned()), ("block", CAPACITY_BLOCK, Block())):
        unset = bought == option or getattr(pool, group) == plain
        problems.check(unset, f"{path}.{group}", bought, "has settings, but machines are not bought so", f"purchase: {option}")
    if bought in (OWNED, CAPACITY_BLOCK):
        where = "owned" if bought == OWNED else "block.usd_per_hour"
        problems.check(own is None, f"{path}.price_usd_per_hour", own, f"is given beside {where}", f"only {where}")
    elif own is not None:
        check_money(f"{path}.price_usd_per_hour", own, problems, zero=True)
    elif instance is not None:
        message = f"{pool.instance} has no price there; give price_usd_per_hour or another region"
        problems.check(pool.region in instance.on_demand, f"{path}.region", pool.region, message, choices=instance.on_demand)
    if bought == OWNED:
        _check_owned(path, pool, problems)
    elif bought == CAPACITY_BLOCK:
        pool.block.problems(f"{path}.block", start, pool.quota_nodes, problems)
        if instance is not None:
            message = f"{pool.instance} is not sold in capacity blocks"
            problems.check(instance.cloud == "aws", f"{path}.instance", pool.instance, message, "a type of EC2")


def _check_operating_system(path: str, pool: Pool, instance: InstanceType | None, problems: Problems) -> None:
    name = pool.operating_system
    known = problems.check(
        name in OPERATING_SYSTEMS, f"{path}.operating_system", name, "is not an operating system", choices=OPERATING_SYSTEMS
    )
    if name == LINUX or not known:
        return
    ours = pool.purchase not in (OWNED, CAPACITY_BLOCK) and (instance is None or instance.cloud == "aws")
    message = "is known of machines of EC2 on demand and spot alone; it is in the price of others"
    problems.check(ours, f"{path}.operating_system", name, message, LINUX)
    price, message = pool.price_usd_per_hour, f"is missing: the catalog has no prices of {name}"
    problems.check(price is not None or not ours, f"{path}.price_usd_per_hour", price, message, "USD an hour with its licence")


def _check_owned(path: str, pool: Pool, problems: Problems) -> None:
    before = len(problems)
    message = "says how many machines are owned"
    problems.check(pool.quota_nodes is not None, f"{path}.quota_nodes", pool.quota_nodes, message, "a number")
    pool.owned.problems(f"{path}.owned", problems)
    if len(problems) == before and pool.owned.in_colocation:
        message = "but colocation is paid with electricity: one of the two"
        problems.check(not pool.electricity_billed, f"{path}.electricity_billed", True, message, "false")
