"""How far the step times behind a bill can be trusted: which part of it was spent on fitted ones, which on assumed ones."""

from __future__ import annotations

from sim.results.records import RunResult
from sim.units import NANO_PER_USD

# From what was measured to what was guessed; "none" is the part of the bill that no replica took.
VALIDITIES = ("measured", "fitted", "transferred", "assumed")
NO_REPLICA = "none"


def bill_by_step_times(result: RunResult) -> dict[str, float]:
    """Return the bill in USD by the validity of the step times of the replicas that it was spent on.

    A replica's step times are those of its deployment on the pool of the machine (`step_models` of the manifest).

    Returns
    -------
    Amounts by validity, the best first; validities without an amount are left out.

    Examples
    --------
    >>> import tempfile
    >>> from sim import load_scenario, simulate
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     changes = ["horizon=10m", f"out={folder}/run", "deployments.llama_8b.autoscaler.replicas=1"]
    ...     amounts = bill_by_step_times(simulate(load_scenario("bench_chat8", changes)))
    >>> list(amounts)
    ['fitted']
    """
    models = result.manifest["step_models"]
    columns = result.sql(
        "SELECT deployment, pool, sum(attribution.amount_nano_usd) AS amount FROM attribution JOIN ledger USING (row)"
        " GROUP BY ALL ORDER BY ALL"
    )
    amounts_nano = dict.fromkeys((*VALIDITIES, NO_REPLICA), 0)
    for deployment, pool, amount in zip(columns["deployment"], columns["pool"], columns["amount"], strict=True):
        model = models.get(f"{deployment} on {pool}")
        amounts_nano[NO_REPLICA if model is None else model["validity"]] += int(amount)
    return {validity: amount / NANO_PER_USD for validity, amount in amounts_nano.items() if amount}
