"""The ledger of a resolved scenario: prices, commitments and electricity of its pools, put together in one place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sim.billing.commitments import settlement_of
from sim.billing.energy import Electricity, MachinePower
from sim.billing.ledger import Ledger, PoolBilling, Sink
from sim.billing.tariffs import pays_electricity, pool_tariffs
from sim.domain.traffic import Stream
from sim.scenario.resolve import Resolved, ResolvedPool


def pool_billing(resolved: Resolved, pool: ResolvedPool) -> PoolBilling:
    """Return how the machines of a pool are charged and what they draw.

    Raises
    ------
    InputError : no price for the region or the instance type, or no rule for the purchase option.
    """
    site = pool.site
    return PoolBilling(
        tariffs=pool_tariffs(pool.name, resolved),
        power=MachinePower(pool.instance.accelerators, pool.accelerator.idle_w, pool.instance.host_w),
        electricity=Electricity(site.pue, site.price, site.carbon, site.grid),
        electricity_billed=pool.config.electricity_billed or pays_electricity(pool.config),
    )


def ledger_of(
    resolved: Resolved,
    pools: Mapping[str, PoolBilling],
    streams: Sequence[Stream],
    deployment_streams: Mapping[str, Iterable[int]],
    sink: Sink,
) -> Ledger:
    """Return the empty ledger of a scenario's account, with its commitments.

    Parameters
    ----------
    pools : by name. streams, deployment_streams, sink : see `sim.billing.ledger.Ledger`; there may be no streams.
    """
    scenario = resolved.scenario
    return Ledger(
        scenario.start_instant,
        scenario.horizon_ns,
        scenario.account,
        pools,
        streams,
        deployment_streams,
        sink,
        settlement_of(resolved),
    )
