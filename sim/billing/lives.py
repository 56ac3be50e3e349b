"""Lives of machines that somebody kept, and their bill: the ledger and the tariffs of a run, without a run.

Lives become leases of pools, one pool for every way in which machines are bought; their billing period is made of whole clock hours
of the account, because commitments are settled by the hour.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from sim.billing.books import ledger_of, pool_billing
from sim.billing.energy import Electricity, MachinePower
from sim.billing.ledger import OPEN_AT_END, Ledger, PoolBilling, Sink
from sim.billing.machine_rules import SPOT_RULES, MachineRule, offer_of, on_demand_rule
from sim.billing.managed import managed_rates, managed_rule
from sim.billing.rates import Rate, dated_rates
from sim.billing.tariffs import INTERRUPTED, MachineTariff, Tariff, pool_tariffs
from sim.domain.managed import ManagedOffer
from sim.domain.pricing import LINUX
from sim.domain.usage import Lease
from sim.scenario import Account, Energy, Pool, Scenario
from sim.scenario.commitments import Commitment
from sim.scenario.resolve import Resolved, ResolvedPool, resolve
from sim.units import NS_PER_HOUR, NS_PER_US, instant, nano_usd

ON_DEMAND, SPOT = "on_demand", "spot"
BY_USER, CRASHED, RUNNING = "user", "crashed", "running"
# How a life ended; what still ran when it was written down is billed to that moment exactly.
ENDS = (BY_USER, INTERRUPTED, CRASHED, RUNNING)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NO_ELECTRICITY = Electricity.steady(1.0, "0", 0.0, "not asked for", "assumed")


def epoch_ns(moment: datetime) -> int:
    """Return an instant in nanoseconds since 1970-01-01 UTC.

    Examples
    --------
    >>> epoch_ns(datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC))
    1000000000
    """
    return (moment - _EPOCH) // timedelta(microseconds=1) * NS_PER_US


def moment_of(at_ns: int) -> datetime:
    """Return the instant of nanoseconds since 1970-01-01 UTC, to the microsecond."""
    return _EPOCH + timedelta(microseconds=at_ns // NS_PER_US)


@dataclass(frozen=True)
class Life:
    """One machine from RUNNING to its end (a TPU node: from READY).

    Parameters
    ----------
    name : of the machine. instance : type, of the catalog. region, zone : where; zone "" where it does not matter.
    begin_ns, end_ns : in nanoseconds since 1970-01-01 UTC.
    purchase : "on_demand", "spot", or a managed offer of the catalog ("sagemaker", "vertex", ...).
    ended : "user", "interrupted" (by its provider), "crashed" or "running" (at `end_ns` it still was there).
    usd_per_hour : one's own price as a decimal in text; None takes the catalog's.
    path : one's own prices, (from, in nanoseconds since 1970, USD per hour), oldest first; before the first one that one holds.
    operating_system : "linux", or "rhel", "suse" or "windows" of EC2, whose prices are one's own.

    Examples
    --------
    >>> Life.between("2026-01-05T10:00Z", "2026-01-05T10:00:59.2Z", instance="p5.4xlarge", region="us-east-1").life_ns
    59200000000
    """

    name: str
    instance: str
    region: str
    begin_ns: int
    end_ns: int
    purchase: str = ON_DEMAND
    zone: str = ""
    ended: str = BY_USER
    usd_per_hour: str | None = None
    path: tuple[tuple[int, str], ...] = ()
    operating_system: str = LINUX

    @classmethod
    def between(cls, begin: str, end: str, *, name: str = "machine", instance: str, region: str, **columns: str | None) -> Life:
        """Return the life between two instants in ISO 8601; one without an offset is UTC.

        Parameters
        ----------
        columns : zone, purchase, ended, usd_per_hour and operating_system.

        Raises
        ------
        ValueError : not an instant.
        """
        times = (epoch_ns(instant(begin)), epoch_ns(instant(end)))
        return cls(name, instance, region, *times, **columns)  # type: ignore[arg-type]

    @property
    def life_ns(self) -> int:
        """How long it lived."""
        return self.end_ns - self.begin_ns


@dataclass(frozen=True)
class Terms:
    """What the lives of an account are priced with.

    Parameters
    ----------
    account : name and time zone of hours and months. catalog : path of an overlay, or "". commitments : by name.
    begins, ends : of the billing period, for commitments that are paid without any machine; None is the hour of the first begin and
        the end of the hour of the last end. seed : of spot prices that nobody gave.
    """

    account: Account
    catalog: str = ""
    commitments: Mapping[str, Commitment] | None = None
    begins: datetime | None = None
    ends: datetime | None = None
    seed: int = 1


@dataclass(frozen=True)
class Fleet:
    """Lives as leases of the pools of a scenario without services.

    Parameters
    ----------
    resolved : its pools are the ways in which machines are bought. pools : how they are charged.
    leases : in the order of the lives.
    """

    resolved: Resolved
    pools: Mapping[str, PoolBilling]
    leases: tuple[Lease, ...]


def fleet_of(lives: Sequence[Life], terms: Terms) -> Fleet:
    """Return lives as leases, with the pools, prices and the period that they need.

    Parameters
    ----------
    lives : at least one, checked (`sim.billing.life_checks`).

    Raises
    ------
    InputError : a machine has no price there, or no rule for how it was bought.
    """
    zone = ZoneInfo(terms.account.timezone)
    first, last = min(life.begin_ns for life in lives), max(life.end_ns for life in lives)
    begins = hour_of(moment_of(first), zone) if terms.begins is None else terms.begins
    ends = _hour_after(moment_of(max(last - 1, first)), zone) if terms.ends is None else terms.ends
    groups: dict[tuple[object, ...], list[Life]] = {}
    for life in lives:
        way = (life.instance, life.region, life.purchase, life.operating_system, life.usd_per_hour, life.path)
        groups.setdefault(way, []).append(life)
    named = _named(groups)
    scenario = Scenario(
        name="lives",
        start=begins.isoformat(),
        horizon=f"{epoch_ns(ends) - epoch_ns(begins)}ns",
        seed=terms.seed,
        catalog=terms.catalog,
        account=terms.account,
        commitments=dict(terms.commitments or {}),
        pools={name: _pool(members) for name, members in named.items()},
        # A list of lives does not say what machines drew: the bill is that of their time alone.
        energy=Energy(pue=1.0, usd_per_kwh=0.0, gco2_per_kwh=0.0),
    )
    resolved = resolve(scenario)
    pool_of = {life: name for name, members in named.items() for life in members}
    start_ns = epoch_ns(begins)
    leases = tuple(
        Lease(
            lease=number,
            node=number,
            pool=pool_of[life],
            instance=life.instance,
            accelerators=resolved.pools[pool_of[life]].instance.accelerators,
            purchase=life.purchase,
            zone=life.zone,
            start_ns=life.begin_ns - start_ns,
            end_ns=life.end_ns - start_ns,
            end_cause=OPEN_AT_END if life.ended == RUNNING else life.ended,
        )
        for number, life in enumerate(lives)
    )
    pools = {name: _billing(name, members[0], resolved, start_ns) for name, members in named.items()}
    return Fleet(resolved, pools, leases)


def fleet_of_run(resolved: Resolved, leases: Sequence[Lease]) -> Fleet:
    """Return the leases of a run as a fleet; what its machines drew is left out, for a lease does not say it.

    Parameters
    ----------
    resolved : the run's scenario, or one with other prices or commitments and the same pools.
    """
    pools = {name: replace(pool_billing(resolved, row), electricity_billed=False) for name, row in resolved.pools.items()}
    return Fleet(resolved, pools, tuple(leases))


def price_fleet(fleet: Fleet, sink: Sink) -> None:
    """Book every lease of a fleet; rows of the ledger go to the sink."""
    book_leases(ledger_of(fleet.resolved, fleet.pools, (), {}, sink), fleet.leases, fleet.resolved.scenario.horizon_ns)


def book_leases(ledger: Ledger, leases: Iterable[Lease], horizon_ns: int) -> None:
    """Book leases from cut to cut, as the meter of a run does, and settle every hour of the account."""
    coming = sorted(leases, key=lambda lease: (lease.start_ns, lease.lease), reverse=True)
    alive: dict[int, Lease] = {}
    begin_ns = 0
    for end_ns in (*ledger.cuts(), horizon_ns):
        while coming and (coming[-1].start_ns < end_ns or coming[-1].end_ns == end_ns):
            lease = coming.pop()
            alive[lease.lease] = lease
        for lease in list(alive.values()):
            assert lease.end_ns is not None  # a life that is over, or the end of the period
            first_ns, last_ns = max(begin_ns, lease.start_ns), min(end_ns, lease.end_ns)
            if first_ns < last_ns:
                ledger.record(lease, first_ns, last_ns, ())
            if lease.end_ns <= end_ns:
                ledger.close_lease(lease)
                del alive[lease.lease]
        ledger.close_hours(end_ns)
        begin_ns = end_ns


def hour_of(moment: datetime, zone: ZoneInfo) -> datetime:
    """Return the begin of the clock hour of a zone that an instant lies in.

    Examples
    --------
    >>> hour_of(datetime(2026, 1, 5, 10, 15, tzinfo=UTC), ZoneInfo("Asia/Kolkata")).isoformat()
    '2026-01-05T09:30:00+00:00'
    """
    offset = moment.astimezone(zone).utcoffset() or timedelta()
    return moment - (moment - _EPOCH + offset) % timedelta(hours=1)


def _hour_after(moment: datetime, zone: ZoneInfo) -> datetime:
    return hour_of(moment, zone) + timedelta(microseconds=NS_PER_HOUR // NS_PER_US)


def _named(groups: Mapping[tuple[object, ...], list[Life]]) -> dict[str, list[Life]]:
    """Name every way of buying a machine as a person would; what differs by its price alone gets a number."""
    named: dict[str, list[Life]] = {}
    for members in groups.values():
        life = members[0]
        name = f"{life.instance}/{life.region}/{life.purchase}"
        name += "" if life.operating_system == LINUX else f"/{life.operating_system}"
        name += f"/{Decimal(life.usd_per_hour).normalize():f}" if life.usd_per_hour is not None else ""
        number = 1 + sum(other == name or other.startswith(f"{name}#") for other in named)
        named[name if number == 1 else f"{name}#{number}"] = members
    return named


def _pool(members: Sequence[Life]) -> Pool:
    life = members[0]
    zones = list(dict.fromkeys(member.zone for member in members))
    return Pool(
        instance=life.instance,
        purchase=life.purchase,
        region=life.region,
        zones=zones,
        price_usd_per_hour=life.usd_per_hour,
        operating_system=life.operating_system,
    )


def _billing(name: str, life: Life, resolved: Resolved, start_ns: int) -> PoolBilling:
    row = resolved.pools[name]
    offer, own = resolved.catalog.managed_offers.get(life.purchase), _own_rates(life, start_ns)
    if own or offer is not None:
        tariff = MachineTariff(own or _managed(offer, row, resolved), _rule(life.purchase, row, offer))
        tariffs: Mapping[str, Tariff] = dict.fromkeys(row.config.zones, tariff)
    else:
        tariffs = pool_tariffs(name, resolved)
    return PoolBilling(tariffs, MachinePower(row.instance.accelerators, 0.0, 0.0), _NO_ELECTRICITY)


def _own_rates(life: Life, start_ns: int) -> tuple[Rate, ...]:
    """Return one's own prices of a machine; none where they are not given."""
    if life.usd_per_hour is not None:
        return (Rate(0, nano_usd(life.usd_per_hour), life.usd_per_hour, "own price", "assumed"),)
    return tuple(Rate(at_ns - start_ns, nano_usd(usd), usd, "own price path", "assumed") for at_ns, usd in life.path)


def _managed(offer: ManagedOffer | None, row: ResolvedPool, resolved: Resolved) -> tuple[Rate, ...]:
    listed = dated_rates(row.instance.on_demand.get(row.config.region, ()), resolved.scenario.start_instant)
    return () if offer is None else managed_rates(offer, row.instance, listed)


def _rule(purchase: str, row: ResolvedPool, offer: ManagedOffer | None) -> MachineRule:
    if offer is not None:
        return managed_rule(offer)
    billed_as = offer_of(row.instance, row.config.operating_system)
    return SPOT_RULES[billed_as] if purchase == SPOT else on_demand_rule(billed_as)
