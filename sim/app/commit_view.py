"""What to commit to, on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from sim.app.commit import exact_usd, scenario_rows, upfront_nano
from sim.domain.pricing import TERM_HOURS
from sim.report.cells import cell, new_table, percent_cell, plain, share_cell
from sim.units import usd

if TYPE_CHECKING:
    from sim.app.commit import Advice, Choice
    from sim.billing.commitment_choice import Outcome
    from sim.billing.commitment_portfolios import Portfolio

WIDTH = 120
_MONTHS = {"1y": 12, "3y": 36}


def show_advice(found: Advice, console: Console) -> None:
    """Print the sets of commitments, the rows of the best, other traffic, the term, and what is assumed."""
    best = found.portfolios[0]
    console.print(_portfolio_table(found))
    console.print()
    if not best.outcomes:
        _say(console, "nothing to commit to: no hour's use comes often enough to pay for a commitment")
    else:
        console.print(_promise_table(best, found.term))
        console.print()
    if best.regrets:
        console.print(_traffic_table(found.portfolios))
        console.print()
    if found.choices:
        console.print(_choice_table(found.choices, found.eligible_nano))
        console.print()
    for line in _notes(found, best):
        _say(console, line)
    rows = scenario_rows(best, found.term, found.payment)
    if rows:
        _say(console, "to run it with these commitments, add to the scenario:")
        _say(console, "commitments:")
        for name, row in rows.items():
            _say(console, f"  {name}: {flow(row)}")
    elif best.outcomes:
        _say(console, "no rows for a scenario: a plan has one rate for a type there, and here its price differs between regions")


def _say(console: Console, line: str) -> None:
    console.print(plain(line), highlight=False, markup=False, soft_wrap=True)


def _portfolio_table(found: Advice) -> Table:
    """A row for every set, the one that saves most first."""
    eligible = found.eligible_nano
    hours = float(found.hours)
    table = new_table(
        f"COMMITMENTS for {found.term}, {found.payment}, against {usd(eligible)} USD on demand in {hours:,.6g} h of "
        f"{plain(found.folder)}",
        "set", "USD/h", "bill USD", "saves USD", "saves", "used", "covered", "at most USD",
    )  # fmt: skip
    for portfolio in found.portfolios:
        used = portfolio.used_nano / portfolio.committed_nano if portfolio.committed_nano else None
        table.add_row(
            portfolio.name,
            exact_usd(portfolio.nano_per_hour),
            usd(eligible - portfolio.saved_nano),
            usd(portfolio.saved_nano),
            share_cell(portfolio.saved_nano, eligible),
            percent_cell(used),
            percent_cell(portfolio.replaced_nano / eligible),
            usd(portfolio.bound_nano),
        )
    table.caption = "used: of what is committed; covered: of the use at its on-demand price; at most: no levels of these save more"
    return table


def _promise_table(portfolio: Portfolio, term: str) -> Table:
    table = new_table(
        f"BEST: {portfolio.name}", "commitment", "USD/h", "saves USD", "used", f"pays back in (of {_MONTHS[term]} months)"
    )
    for outcome in portfolio.outcomes:
        months = "-" if outcome.break_even is None else f"{outcome.break_even * _MONTHS[term]:.1f}"
        table.add_row(
            cell(what(outcome)), exact_usd(outcome.promise.nano_per_hour), usd(outcome.saved_nano),
            percent_cell(outcome.utilisation), months,
        )  # fmt: skip
    table.caption = "pays back: the months such use must go on for it to have cost no more than on demand"
    return table


def what(outcome: Outcome) -> str:
    """Return a commitment in words."""
    offer = outcome.promise.offer
    kinds = list(offer.rates_nano)
    if offer.of_machines:
        name = "committed use" if offer.name == "committed_use" else "reserved"
        sizes = "" if len(kinds) == 1 else f" for {', '.join(kind.instance for kind in kinds)}"
        return f"{outcome.promise.level:,} x {kinds[0].instance} {kinds[0].region}, {name}{sizes}"
    if offer.name == "instance_savings_plan":
        return f"Instance Savings Plan {kinds[0].family} {kinds[0].region}"
    return "Compute Savings Plan"


def _traffic_table(portfolios: Sequence[Portfolio]) -> Table:
    """What the levels save under other traffic, and what they lose against levels chosen for it."""
    changes = [f"{float(each.factor - 1):+.0%}" for each in portfolios[0].regrets]
    heads = [head for change in changes for head in (f"{change}: saves", "regret")]
    table = new_table("OTHER TRAFFIC, in USD", "set", *heads)
    for portfolio in portfolios:
        amounts = [usd(amount) for each in portfolio.regrets for amount in (each.saved_nano, each.regret_nano)]
        table.add_row(portfolio.name, *amounts)
    table.caption = "the machine time of every hour times a factor; a fleet does not scale so evenly: run it again to know"
    return table


def _choice_table(choices: Sequence[Choice], eligible_nano: int) -> Table:
    """The best of every term and payment, in the run's hours."""
    factors = next((each.best.regrets for each in choices if each.best is not None), ())
    table = new_table(
        "TERMS AND PAYMENTS, the best set of each", "term", "payment", "set", "USD/h", "up front USD", "saves USD", "saves",
        *(f"{float(each.factor - 1):+.0%}: regret" for each in factors),
    )  # fmt: skip
    for each in choices:
        if each.best is None:
            table.add_row(each.term, each.payment, "no discount known", *["-"] * (4 + len(factors)))
            continue
        table.add_row(
            each.term, each.payment, each.best.name, exact_usd(each.best.nano_per_hour),
            usd(upfront_nano(each.best, each.term, each.payment)), usd(each.best.saved_nano),
            share_cell(each.best.saved_nano, eligible_nano), *(usd(regret.regret_nano) for regret in each.best.regrets),
        )  # fmt: skip
    table.caption = "USD/h: of all payments, spread over the term; saves: in the run's hours, against on demand"
    return table


def _notes(found: Advice, best: Portfolio) -> list[str]:
    rest = max(found.run_nano - found.eligible_nano, 0)  # rows are rounded one by one, their sum is not
    unknown = found.use.on_demand_nano(found.unknown)
    notes = [
        f"not eligible: {usd(rest)} of {usd(found.run_nano)} USD of the run (spot, own machines, other lines)",
    ]
    if found.unknown:
        names = ", ".join(f"{kind.instance} {kind.region}" for kind in found.unknown)
        notes.append(f"no discount known: {names}, {usd(unknown)} USD; give your own, for instance --reserved 30%")
    if best.outcomes:
        saved, committed = (round(amount * found.repeats) for amount in (best.saved_nano, best.committed_nano))
        notes.append(
            f"over {found.term} ({TERM_HOURS[found.term]:,} h): commits to {usd(committed)} USD and saves {usd(saved)} USD, if the"
            f" hours of the run repeat {found.repeats:,.1f} times"
        )
        upfront = upfront_nano(best, found.term, found.payment)
        if upfront:
            notes.append(f"up front on the first day: {usd(upfront)} USD, which is in the USD/h; the rest by the hour")
        notes += [f"discount of {what(outcome)}: {offer.source} [{offer.confidence}]" for outcome in best.outcomes
                  for offer in (outcome.promise.offer,)]  # fmt: skip
        notes.append(f"{share_cell(best.assumed_nano, best.committed_nano)} of the commitments rest on assumed discounts")
    return notes


def flow(value: object) -> str:
    """Return a row as YAML on one line, which the command line reads, too: numbers that are texts stay texts.

    Examples
    --------
    >>> flow({"choice": "reserved_instances", "count": 2, "usd_per_hour": "5.16"})
    '{choice: reserved_instances, count: 2, usd_per_hour: "5.16"}'
    """
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {flow(item)}" for key, item in value.items()) + "}"
    return f'"{value}"' if isinstance(value, str) and value[0].isdigit() else str(value)
