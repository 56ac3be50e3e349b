"""The append-only ledger: one row per lease, calendar hour of the account zone and price, in nano-dollars.

Everything is incremental: what is kept is one open row per living lease.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Protocol
from zoneinfo import ZoneInfo

from sim.billing.attribution import IDLE, Attribution, RowWeights
from sim.billing.bookings import Booking, HourRow, OpenLease, booking_of
from sim.billing.commitments import Settlement
from sim.billing.coverage import MACHINE_UNIT, USAGE, Place, Unused, Use, cost_nano
from sim.billing.energy import NANO_KWH_PER_KWH, UG_PER_GRAM, Electricity, EnergyRate, MachinePower
from sim.billing.energy_book import EnergyBook
from sim.billing.rates import Rate
from sim.billing.tariffs import INTERRUPTED, Tariff
from sim.domain.traffic import Stream
from sim.domain.usage import Lease, UsageSlice
from sim.scenario import Account
from sim.units import NS_PER_S

OPEN_AT_END = "end"
# What a charge is for.
CATEGORIES = (
    "compute", "minimum", "commitment", "commitment_waste", "storage", "network", "tokens", "licence", "energy", "people",
    "cluster", "monitoring",
)  # fmt: skip
NO_LEASE = -1
_FREE_PRICE = "0 per hour (interrupted early)"
_ANY_PLACE = Place("", "", "", "", "", "")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Sink(Protocol):
    """Where rows go."""

    def append(self, table: str, row: Mapping[str, object]) -> None:
        """Add a row, given by column name, to a table of `sim.schema`."""


@dataclass(frozen=True)
class PoolBilling:
    """How the machines of a pool are charged and what they draw.

    Parameters
    ----------
    tariffs : price of a machine by zone. power : of one machine. electricity : of the place.
    electricity_billed : energy is a line of the bill; otherwise the price of the machine contains it.
    """

    tariffs: Mapping[str, Tariff]
    power: MachinePower
    electricity: Electricity
    electricity_billed: bool = False

    def tariff_of(self, lease: Lease) -> Tariff:
        """Return the tariff of a lease: that of its zone."""
        return self.tariffs[lease.zone]


def _calendar(start: datetime, t_ns: int) -> datetime:
    return start.astimezone(UTC) + timedelta(microseconds=t_ns // 1_000)


def hour_cuts(start: datetime, horizon_ns: int, timezone: str) -> Iterator[int]:
    """Yield the hour boundaries of a time zone inside a run, in nanoseconds since its start.

    A day on which the clocks change has 23 or 25 hours; zones off by half an hour have their own boundaries, and a change by
    half an hour (Lord Howe Island) makes an hour of 30 minutes.

    Parameters
    ----------
    start : calendar instant of time 0, with an offset. horizon_ns : end of the run; not yielded, nor is 0.
    timezone : IANA name.

    Examples
    --------
    >>> from sim.units import NS_PER_HOUR
    >>> start = datetime(2026, 1, 5, 0, 15, tzinfo=UTC)
    >>> [t_ns // NS_PER_S for t_ns in hour_cuts(start, 2 * NS_PER_HOUR, "Asia/Kolkata")]
    [900, 4500]
    """
    zone = ZoneInfo(timezone)
    hour, tick = timedelta(hours=1), timedelta(microseconds=1)
    moment = start.astimezone(UTC)
    while True:
        offset = zone.utcoffset(moment.astimezone(zone)) or timedelta()
        moment += hour - (moment - _EPOCH + offset) % hour
        t_ns = (moment - start) // tick * 1_000
        if t_ns >= horizon_ns:
            return
        yield t_ns


class Ledger:
    """Books what leases cost, who caused it and what they drew, as time goes by.

    Call `record` for every living lease and every interval between two cuts (of `cuts`, and of the caller's own), in order of
    time, and `close_lease` when a lease ends, or at the end of the run for those still open.

    Parameters
    ----------
    start : scenario start. horizon_ns : end of the run.
    pools : by name. streams : by number. deployment_streams : numbers of the streams that may use each deployment.
    sink : receives rows of the tables `ledger`, `attribution`, `energy` and `leases`.
    settlement : how the use of an hour is settled with the account's commitments; None where there are none. With one,
        `close_hours` must be called at the end of every hour and of the run.
    """

    def __init__(
        self,
        start: datetime,
        horizon_ns: int,
        account: Account,
        pools: Mapping[str, PoolBilling],
        streams: Sequence[Stream],
        deployment_streams: Mapping[str, Iterable[int]],
        sink: Sink,
        settlement: Settlement | None = None,
    ) -> None:
        self._start, self._horizon_ns, self._account = start, horizon_ns, account
        self._zone = ZoneInfo(account.timezone)
        self._pools, self._sink = pools, sink
        self._owner = {stream.number: (stream.service, stream.segment) for stream in streams}
        self._attribution = Attribution(deployment_streams)
        self._energy = EnergyBook(self._attribution, self._owner, sink)
        self._open: dict[int, OpenLease] = {}
        self._rows = 0
        self._settlement = settlement
        self._hour_ends = hour_cuts(start, horizon_ns, account.timezone)
        self._settled_to_ns, self._hour_end_ns = 0, next(self._hour_ends, horizon_ns)
        self._hour_rows: list[HourRow] = []
        self._closed: list[tuple[OpenLease, int]] = []
        self._coming_cuts = self.cuts()
        self._cut_ns, self._next_cut_ns = 0, next(self._coming_cuts, horizon_ns)
        # What is the same for everything between two cuts: the hour, and the price of a pool in a zone.
        self._hour_now = ""
        self._rates_now: dict[tuple[str, str], Rate] = {}
        self._energy_rates_now: dict[str, EnergyRate] = {}

    def cuts(self) -> Iterator[int]:
        """Yield the times at which intervals must be cut: hours, changes of prices and of electricity, in order, each once."""
        changes = sorted(
            {
                t_ns
                for pool in self._pools.values()
                for tariff in pool.tariffs.values()
                for t_ns in tariff.changes_ns()
                if 0 < t_ns < self._horizon_ns
            }
        )
        places = dict.fromkeys(pool.electricity for pool in self._pools.values())
        electricity = (place.changes_ns(self._start, self._horizon_ns) for place in places)
        latest = 0
        for t_ns in heapq.merge(hour_cuts(self._start, self._horizon_ns, self._account.timezone), changes, *electricity):
            if t_ns > latest:
                latest = t_ns
                yield t_ns

    def record(self, lease: Lease, start_ns: int, end_ns: int, slices: Sequence[UsageSlice]) -> None:
        """Book the use of one lease during [start_ns, end_ns).

        Raises
        ------
        ValueError : the interval leaves a gap after the lease's last one, contains a cut, or its slices do not fit it.
        """
        opened = self._open.get(lease.lease)
        if opened is None:
            opened = self._open[lease.lease] = OpenLease(lease, lease.start_ns, lease.start_ns)
        self._move_to(start_ns)
        if start_ns != opened.billed_to_ns or not start_ns < end_ns <= self._next_cut_ns:
            raise ValueError(
                f"lease {lease.lease}: [{start_ns}, {end_ns}) ns must start at {opened.billed_to_ns} ns "
                f"and end by the cut at {self._next_cut_ns} ns"
            )
        for piece in slices:
            if piece.lease != lease.lease or piece.start_ns < start_ns or piece.end_ns > end_ns:
                raise ValueError(f"lease {lease.lease}: a slice is not of this lease and [{start_ns}, {end_ns}) ns: {piece}")
            opened.deployments.add(piece.deployment)
        pool = self._pools[lease.pool]
        hour, rate = self._price_now(lease, start_ns)
        energy_rate = self._energy_price_now(lease, start_ns)
        same = rate is opened.rate or rate == opened.rate
        if hour != opened.hour or not same or energy_rate != opened.energy_rate:
            self._book_time(opened)
            opened.row_start_ns, opened.hour, opened.rate, opened.energy_rate = start_ns, hour, rate, energy_rate
        opened.billed_to_ns, opened.latest_start_ns = end_ns, start_ns
        self._attribution.add(opened.weights, pool.power, start_ns, end_ns, slices)

    def close_lease(self, lease: Lease) -> None:
        """End a lease: book its open row, then minimum charge and rounding up as a row of category "minimum", and its lease row.

        A lease still open at the end of the run (`end_cause` "end") is billed to the end exactly. One that its provider interrupted
        while that makes it free keeps its rows, at a price of 0, and has no minimum.

        Raises
        ------
        ValueError : the lease has no end, or not all of its time was recorded.
        """
        opened = self._open.pop(lease.lease, None) or OpenLease(lease, lease.start_ns, lease.start_ns)
        if lease.end_ns is None or opened.billed_to_ns != lease.end_ns:
            raise ValueError(f"lease {lease.lease}: recorded to {opened.billed_to_ns} ns, ends at {lease.end_ns} ns")
        self._book_time(opened)
        pool = self._pools[lease.pool]
        tariff, life_ns = pool.tariff_of(lease), lease.end_ns - lease.start_ns
        taken_back = lease.end_cause == INTERRUPTED
        certain_ns = tariff.certain_ns(life_ns) if taken_back else life_ns
        free = taken_back and (certain_ns < life_ns or life_ns == 0)
        billed_ns = life_ns if free or lease.end_cause == OPEN_AT_END else tariff.billed_ns(life_ns)
        if billed_ns > life_ns:
            self._book_minimum(opened, lease.end_ns, billed_ns - life_ns)
        if free:
            self._release(opened, lease.start_ns + certain_ns)
        self._release(opened, free=free)
        self._attribution.forget_lease(lease.lease)
        if self._settled_place(lease) is None:
            self._write_lease(opened, billed_ns)
        else:
            self._closed.append((opened, billed_ns))

    def close_hours(self, t_ns: int) -> None:
        """Settle the hour that ends at this time with the account's commitments; at another time do nothing.

        Everything up to `t_ns` must have been recorded, and leases that ended closed.
        """
        if self._settlement is None or t_ns != self._hour_end_ns or t_ns == self._settled_to_ns:
            return
        for opened in self._open.values():
            self._book_time(opened)
        # In the order of the leases, not of their ends: who is covered first must not depend on how time was cut.
        rows, self._hour_rows = sorted(self._hour_rows, key=lambda row: (row.opened.lease.lease, row.use.start_ns)), []
        closed, self._closed = sorted(self._closed, key=lambda pair: pair[0].lease.lease), []
        start_ns, self._settled_to_ns = self._settled_to_ns, t_ns
        self._hour_end_ns = next(self._hour_ends, self._horizon_ns)
        month, month_ns = self._month(start_ns)
        charges = self._settlement.settle(start_ns, t_ns, month, month_ns, [row.use for row in rows])
        for row in rows:
            self._book_pieces(row)
            self._release(row.opened)
        for charge in charges:
            self._charge(charge, start_ns, t_ns)
        for opened, billed_ns in closed:
            self._write_lease(opened, billed_ns)

    def _month(self, t_ns: int) -> tuple[str, int]:
        """Return the calendar month of a time in the account zone, and its length in nanoseconds."""
        local = _calendar(self._start, t_ns).astimezone(self._zone)
        first = local.replace(day=1, hour=0, minute=0, second=0, microsecond=0, fold=0)
        coming = (first + timedelta(days=32)).replace(day=1)
        return f"{first:%Y-%m}", (coming.astimezone(UTC) - first.astimezone(UTC)) // timedelta(microseconds=1) * 1_000

    def _charge(self, charge: Unused, start_ns: int, end_ns: int) -> None:
        self.charge_account(
            charge.category,
            start_ns,
            end_ns,
            quantity=charge.quantity,
            unit=charge.unit,
            unit_price=charge.unit_price,
            amount_nano=charge.amount_nano,
            tariff=charge.tariff,
            source=charge.source,
            confidence=charge.confidence,
            pool=charge.pool or charge.name,
            purchase=charge.purchase,
            deployments=charge.deployments,
            commitment=charge.commitment,
            list_nano=charge.list_nano,
            effective_nano=charge.effective_nano,
            charge=charge.charge,
        )

    def _settled_place(self, lease: Lease) -> Place | None:
        return None if self._settlement is None else self._settlement.places.get(lease.pool)

    def _write_lease(self, opened: OpenLease, billed_ns: int) -> None:
        lease = opened.lease
        self._sink.append(
            "leases",
            {
                "lease": lease.lease,
                "node": lease.node,
                "pool": lease.pool,
                "instance": lease.instance,
                "accelerators": lease.accelerators,
                "purchase": lease.purchase,
                "zone": lease.zone,
                "start_ns": lease.start_ns,
                "end_ns": lease.end_ns,
                "billed_ns": billed_ns,
                "cause": lease.end_cause,
                "amount_nano_usd": opened.amount_nano,
                "energy_kwh": opened.nano_kwh / NANO_KWH_PER_KWH,
                "electricity_nano_usd": opened.electricity_nano,
                "kgco2": opened.carbon_ug / (UG_PER_GRAM * 1_000),
            },
        )

    def charge_account(
        self,
        category: str,
        start_ns: int,
        end_ns: int,
        *,
        quantity: Decimal,
        unit: str,
        unit_price: str,
        amount_nano: int,
        tariff: str,
        source: str,
        confidence: str,
        pool: str = "",
        purchase: str = "",
        weights: Mapping[tuple[str, int], float] | None = None,
        deployments: Iterable[str] = (),
        commitment: str = "",
        list_nano: int | None = None,
        effective_nano: int | None = None,
        charge: str = USAGE,
    ) -> int:
        """Book a charge that belongs to no lease, for one calendar hour of the account zone or a part of it.

        It is attributed with the use "shared": by `weights`; else among the streams of `deployments`, by their busy time so far, or
        equally where there is none; else to nobody, which is the account (stream -1).

        Parameters
        ----------
        category : one of `CATEGORIES`. start_ns, end_ns : what time it is for, [start, end); the same for a charge of an instant.
        quantity : how much, in `unit`. unit_price : as written, with its own unit. amount_nano : nano-dollars, not negative,
            rounded half to even by the caller.
        tariff, source, confidence : the rule, and where its price comes from.
        pool, purchase : where the charge is for machines of a pool, or of a commitment.
        weights : (deployment, stream) -> weight, not negative; a deployment "" is none. deployments : names.
        commitment : name of the commitment that it is for. list_nano : on-demand price. effective_nano : amortised cost. Both are
            the amount where they are None. charge : "usage" or "purchase".

        Returns
        -------
        number of the ledger row.

        Raises
        ------
        ValueError : no such category, a negative amount, or a time that is not inside one calendar hour of the run.

        Examples
        --------
        >>> from sim.units import NS_PER_HOUR
        >>> class Rows(list):
        ...     def append(self, table, row):
        ...         super().append((table, row["row"], row["amount_nano_usd"]))
        >>> rows = Rows()
        >>> ledger = Ledger(datetime(2026, 1, 5, tzinfo=UTC), NS_PER_HOUR, Account(), {}, [], {}, rows)
        >>> price = {"unit": "hour", "unit_price": "0.10 per hour", "tariff": "cluster"}
        >>> about = {**price, "source": "price list", "confidence": "published"}
        >>> ledger.charge_account("network", 0, NS_PER_HOUR, quantity=Decimal(1), amount_nano=100_000_000, **about)
        0
        >>> rows
        [('ledger', 0, 100000000), ('attribution', 0, 100000000)]
        """
        if category not in CATEGORIES:
            raise ValueError(f"no category {category!r}; there are: {', '.join(CATEGORIES)}")
        hour = self._hour(start_ns)
        inside = 0 <= start_ns <= end_ns <= self._horizon_ns
        if not inside or (end_ns > start_ns and self._hour(end_ns - 1) != hour):
            raise ValueError(f"[{start_ns}, {end_ns}) ns is not inside one calendar hour of the account and the run")
        columns: dict[str, object] = {
            "lease": NO_LEASE,
            "pool": pool,
            "purchase": purchase,
            "category": category,
            "local_hour": hour,
            "start_ns": start_ns,
            "end_ns": end_ns,
            "quantity": quantity,
            "unit": unit,
            "unit_price": unit_price,
            "tariff": tariff,
            "source": source,
            "confidence": confidence,
            "charge_category": charge,
            "commitment": commitment,
            "list_nano_usd": amount_nano if list_nano is None else list_nano,
        }
        if amount_nano < 0:
            raise ValueError(f"amount_nano = {amount_nano}: a charge is not negative")
        effective_nano = amount_nano if effective_nano is None else effective_nano
        owners = list(deployments)
        self._write(
            booking_of(
                columns,
                amount_nano,
                effective_nano,
                lambda nano: self._attribution.split_shared(start_ns, nano, weights, owners),
            )
        )
        return self._rows - 1

    def _move_to(self, t_ns: int) -> None:
        while t_ns >= self._next_cut_ns and self._next_cut_ns < self._horizon_ns:
            self._cut_ns, self._next_cut_ns = self._next_cut_ns, next(self._coming_cuts, self._horizon_ns)
            self._hour_now, self._rates_now, self._energy_rates_now = "", {}, {}
        if t_ns < self._cut_ns:
            raise ValueError(f"intervals must come in order of time: {t_ns} ns is before the cut at {self._cut_ns} ns")

    def _price_now(self, lease: Lease, start_ns: int) -> tuple[str, Rate]:
        """Return the hour and the price of an interval between two cuts."""
        if not self._hour_now:
            self._hour_now = self._hour(start_ns)
        place = lease.pool, lease.zone
        rate = self._rates_now.get(place)
        if rate is None:
            rate = self._rates_now[place] = self._pools[lease.pool].tariff_of(lease).rate(start_ns)
        return self._hour_now, rate

    def _energy_price_now(self, lease: Lease, start_ns: int) -> EnergyRate:
        """Return price and carbon of electricity in an interval between two cuts."""
        rate = self._energy_rates_now.get(lease.pool)
        if rate is None:
            rate = self._pools[lease.pool].electricity.rate(_calendar(self._start, start_ns))
            self._energy_rates_now[lease.pool] = rate
        return rate

    def _hour(self, t_ns: int) -> str:
        local = _calendar(self._start, t_ns).astimezone(self._zone)
        return local.replace(minute=0, second=0, microsecond=0).isoformat(timespec="minutes")

    def _book_time(self, opened: OpenLease) -> None:
        """Book the open row of a lease: the machine's time, and its energy where energy is billed."""
        if opened.rate is None or opened.row_start_ns == opened.billed_to_ns:
            return
        pool, weights = self._pools[opened.lease.pool], opened.weights
        begins_ns = opened.lease.start_ns
        certain_to_ns = begins_ns + pool.tariff_of(opened.lease).certain_ns(opened.billed_to_ns - begins_ns)
        # What is charged whatever comes, and what an interruption would make free, are rows of their own.
        edges = {opened.row_start_ns, max(opened.row_start_ns, certain_to_ns), opened.billed_to_ns}
        for start_ns, end_ns in pairwise(sorted(edges)):
            self._book_machine(opened, "compute", opened.hour, start_ns, end_ns - start_ns, opened.rate, weights)
        electricity, rate = pool.electricity, opened.energy_rate
        assert rate is not None  # set with the price of the machine
        metered = self._energy.book(opened.lease, electricity, rate, opened.hour, weights, opened.deployments)
        opened.nano_kwh += metered.nano_kwh
        opened.electricity_nano += metered.electricity_nano_usd
        opened.carbon_ug += metered.carbon_ug
        if pool.electricity_billed:
            columns: dict[str, object] = {
                "category": "energy",
                "local_hour": opened.hour,
                "start_ns": opened.row_start_ns,
                "end_ns": opened.billed_to_ns,
                "quantity": Decimal(metered.nano_kwh) / NANO_KWH_PER_KWH,
                "unit": "kWh",
                "unit_price": f"{rate.usd_per_kwh} per kWh",
                "tariff": electricity.tariff,
                "source": electricity.price.source,
                "confidence": electricity.price.confidence,
                "charge_category": USAGE,
                "commitment": "",
                "list_nano_usd": metered.electricity_nano_usd,
            }
            opened.held.append(
                booking_of(
                    columns,
                    metered.electricity_nano_usd,
                    metered.electricity_nano_usd,
                    lambda nano: self._attribution.split(weights, nano, opened.deployments, by_energy=True),
                )
            )
        opened.weights = RowWeights()
        opened.row_start_ns = opened.billed_to_ns
        self._release(opened, certain_to_ns)

    def _book_minimum(self, opened: OpenLease, end_ns: int, extra_ns: int) -> None:
        """Book the time charged beyond a lease's end, at the prices in force then; it is idle time of the lease's last hour."""
        tariff = self._pools[opened.lease.pool].tariff_of(opened.lease)
        weights = RowWeights()
        for name in sorted(opened.deployments) or [""]:
            weights.add_overhead((opened.latest_start_ns, IDLE, name), 1.0, 0.0)
        hour = opened.hour or self._hour(end_ns)
        changes = [t_ns for t_ns in tariff.changes_ns() if end_ns < t_ns < end_ns + extra_ns]
        for begin_ns, finish_ns in pairwise((end_ns, *changes, end_ns + extra_ns)):
            self._book_machine(opened, "minimum", hour, begin_ns, finish_ns - begin_ns, tariff.rate(begin_ns), weights)

    def _book_machine(
        self, opened: OpenLease, category: str, hour: str, start_ns: int, length_ns: int, rate: Rate, weights: RowWeights
    ) -> None:
        tariff = self._pools[opened.lease.pool].tariff_of(opened.lease).name
        place = self._settled_place(opened.lease)
        if place is not None:
            running = category == "compute"
            use = Use(place, opened.lease.zone, start_ns, start_ns + length_ns, rate, tariff, running)
            self._hour_rows.append(HourRow(opened, category, hour, weights, frozenset(opened.deployments), use))
            return
        use = Use(_ANY_PLACE, opened.lease.zone, start_ns, start_ns + length_ns, rate, tariff)
        use.pay(length_ns, cost_nano(rate, length_ns), rate, opened.lease.purchase, tariff)
        self._book_pieces(HourRow(opened, category, hour, weights, frozenset(opened.deployments), use))

    def _book_pieces(self, row: HourRow) -> None:
        """Book machine time, a row for each price that was paid for a part of it, one after the other."""
        start_ns = row.use.start_ns
        for piece in row.use.pieces:
            columns: dict[str, object] = {
                "purchase": piece.purchase,
                "category": row.category,
                "local_hour": row.hour,
                "start_ns": start_ns,
                "end_ns": start_ns + piece.length_ns,
                "quantity": Decimal(piece.length_ns) / NS_PER_S,
                "unit": MACHINE_UNIT,
                "unit_price": f"{piece.rate.usd_per_hour} per hour",
                "tariff": piece.tariff,
                "source": piece.rate.source,
                "confidence": piece.rate.confidence,
                "charge_category": USAGE,
                "commitment": piece.commitment,
                "list_nano_usd": piece.list_nano,
            }
            row.opened.held.append(
                booking_of(
                    columns,
                    piece.amount_nano,
                    piece.effective_nano,
                    lambda nano: self._attribution.split(row.weights, nano, row.deployments),
                )
            )
            start_ns += piece.length_ns

    def _release(self, opened: OpenLease, certain_to_ns: int | None = None, *, free: bool = False) -> None:
        """Write what was booked on a lease, in order, up to machine time after `certain_to_ns`; what is free at a price of 0."""
        held, opened.held = opened.held, []
        for number, booking in enumerate(held):
            if certain_to_ns is not None and booking.machine_end_ns > certain_to_ns:
                opened.held = held[number:]
                return
            if free and booking.columns["unit"] == MACHINE_UNIT:
                booking = Booking({**booking.columns, "unit_price": _FREE_PRICE, "list_nano_usd": 0}, 0, 0, {})
            opened.amount_nano += booking.amount_nano
            lease = opened.lease
            owner = {"lease": lease.lease, "pool": lease.pool, "purchase": lease.purchase}
            self._write(replace(booking, columns={**owner, **booking.columns}))

    def _write(self, booking: Booking) -> None:
        self._sink.append(
            "ledger",
            {
                "row": self._rows,
                "account": self._account.name,
                "month": str(booking.columns["local_hour"])[: len("YYYY-MM")],
                "amount_nano_usd": booking.amount_nano,
                "effective_nano_usd": booking.effective_nano,
                **booking.columns,
            },
        )
        for (start_ns, use, deployment, stream), (part_nano, effective_nano) in booking.parts.items():
            service, segment = self._owner.get(stream, ("", ""))
            self._sink.append(
                "attribution",
                {
                    "row": self._rows,
                    "start_ns": start_ns,
                    "use": use,
                    "deployment": deployment,
                    "stream": stream,
                    "service": service,
                    "segment": segment,
                    "amount_nano_usd": part_nano,
                    "effective_nano_usd": effective_nano,
                },
            )
        self._rows += 1
