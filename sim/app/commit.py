"""`billcast commit`: the reserved machines and Savings Plans that would have made the bill of a run the smallest."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim.domain.pricing import ALL_UPFRONT, NO_UPFRONT, PARTIAL_UPFRONT, PAYMENTS, TERM_HOURS
from sim.errors import InputError, Problem, Problems
from sim.units import NANO_PER_USD, NS_PER_HOUR

if TYPE_CHECKING:
    from sim.app.commit_use import OwnDiscounts
    from sim.billing.commitment_choice import HourlyUse, Kind, Outcome
    from sim.billing.commitment_portfolios import Portfolio
    from sim.catalog.loader import Catalog


def declare_commit(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    shares = "a share for all families, or FAMILY=SHARE with commas; in place of the catalog's"
    # A word such as -30%,+30% is a value and no option: argparse knows that of plain negative numbers alone.
    parser._negative_number_matcher = re.compile(r"-[0-9.]")
    parser.add_argument("folder", metavar="DIR", help="a folder written by `run`, of a scenario without commitments")
    parser.add_argument("--term", choices=tuple(TERM_HOURS), default="1y", help="for how long one commits (default: 1y)")
    parser.add_argument(
        "--payment", choices=PAYMENTS, default=NO_UPFRONT, help="when it is paid (default: no_upfront, by the hour)"
    )
    parser.add_argument("--compare", action="store_true", help="the best of every term and payment, side by side")
    parser.add_argument("--reserved", metavar="SHARE", help=f"discount of reserved machines and committed use: {shares}")
    parser.add_argument("--instance-plan", metavar="SHARE", help=f"discount of EC2 Instance Savings Plans: {shares}")
    parser.add_argument("--compute-plan", metavar="SHARE", help=f"discount of Compute Savings Plans: {shares}")
    parser.add_argument(
        "--traffic", metavar="CHANGE,...", default="-30%,+30%", help="other traffic, for the regret (default: -30%%,+30%%)"
    )
    parser.add_argument("--overlay", metavar="FILE.yaml", help="your own catalog file over the package's (default: the run's)")
    parser.add_argument("--figure", metavar="FILE", help="draw the use by duration with the level chosen, as .svg or .png")
    parser.add_argument("--json", action="store_true", help="exact amounts as JSON, for other programs")


@dataclass(frozen=True)
class Choice:
    """The best set of commitments of one term and payment; None where no discount is known."""

    term: str
    payment: str
    best: Portfolio | None


@dataclass(frozen=True)
class Advice:
    """What was found.

    Parameters
    ----------
    run_nano : the whole bill of the run in nano-dollars. use : what may be covered. portfolios : the one that saves most first.
    choices : of every term and payment, where they were asked for.
    unknown : kinds for which no discount is known.
    """

    folder: str
    term: str
    payment: str
    run_nano: int
    use: HourlyUse
    portfolios: list[Portfolio]
    unknown: list[Kind]
    choices: list[Choice]

    @property
    def eligible_nano(self) -> int:
        """Price on demand of what may be covered, in nano-dollars."""
        return self.use.on_demand_nano()

    @property
    def hours(self) -> Fraction:
        """Length of the run in hours."""
        return Fraction(sum(self.use.lengths_ns), NS_PER_HOUR)

    @property
    def repeats(self) -> float:
        """How often the run fits into the term: the run's hours are taken to repeat."""
        return float(TERM_HOURS[self.term] / self.hours)

    def to_dict(self) -> dict[str, Any]:
        """Return the advice ready for JSON; amounts in whole nano-dollars."""
        return {
            "run": self.folder,
            "term": self.term,
            "payment": self.payment,
            "hours": float(self.hours),
            "term_is_run_times": self.repeats,
            "bill_nano_usd": self.run_nano,
            "eligible_nano_usd": self.eligible_nano,
            "no_discount_known": [vars(kind) for kind in self.unknown],
            "portfolios": [
                _portfolio_dict(portfolio, self.eligible_nano, self.term, self.payment) for portfolio in self.portfolios
            ],
            "choices": [
                {
                    "term": each.term,
                    "payment": each.payment,
                    "best": each.best and _portfolio_dict(each.best, self.eligible_nano, each.term, each.payment),
                }
                for each in self.choices
            ],
        }


def commit(arguments: argparse.Namespace) -> int:
    """Print what to commit to, and draw it where asked for."""
    found = _advice(arguments)
    if arguments.figure:
        _draw(found, arguments.figure)
    if arguments.json:
        import json

        print(json.dumps(found.to_dict(), indent=2, allow_nan=False))
        return 0
    from rich.console import Console

    from sim.app.commit_view import WIDTH, show_advice

    console = Console()
    show_advice(found, console if console.is_terminal else Console(width=WIDTH))
    return 0


def _advice(arguments: argparse.Namespace) -> Advice:
    from sim.app.commit_use import OwnDiscounts, eligible_use, offers_for, read_discounts, read_factors
    from sim.billing.commitment_portfolios import best_portfolios
    from sim.catalog.loader import load_catalog
    from sim.results.records import open_run

    problems = Problems()
    own = OwnDiscounts(
        read_discounts("--reserved", arguments.reserved, problems),
        read_discounts("--instance-plan", arguments.instance_plan, problems),
        read_discounts("--compute-plan", arguments.compute_plan, problems),
    )
    factors = read_factors("--traffic", arguments.traffic, problems)
    fine = arguments.figure is None or Path(arguments.figure).suffix in (".svg", ".png")
    problems.check(fine, "--figure", arguments.figure or "", "is no kind of picture", ".svg or .png")
    problems.raise_if_any()
    result = open_run(arguments.folder)
    overlay = result.manifest["scenario"]["catalog"] if arguments.overlay is None else arguments.overlay
    catalog = load_catalog(overlay)
    use = eligible_use(result, catalog)
    if not use.kinds:
        what = "has no machine time that a commitment could cover"
        raise InputError([Problem("DIR", arguments.folder, what, "a run that pays for machines on demand")])
    offers, unknown = offers_for(use, catalog, arguments.term, arguments.payment, own)
    if not offers.portfolios:
        names = ", ".join(sorted({kind.instance for kind in unknown}))
        what = f"the catalog knows no discounts for {names} ({arguments.term}, {arguments.payment})"
        raise InputError([Problem("--reserved", "", what, "discounts of your own, for instance --reserved 30%")])
    amounts = result.sql("SELECT sum(amount_nano_usd) AS amount FROM ledger")["amount"]
    portfolios = best_portfolios(use, offers, factors)
    choices = _choices(use, catalog, own, factors) if arguments.compare else []
    return Advice(str(arguments.folder), arguments.term, arguments.payment, int(amounts[0]), use, portfolios, unknown, choices)


def _choices(use: HourlyUse, catalog: Catalog, own: OwnDiscounts, factors: list[Fraction]) -> list[Choice]:
    """Return the best set of every term and payment; each has its own discounts, and so its own levels."""
    from sim.app.commit_use import offers_for
    from sim.billing.commitment_portfolios import best_portfolios

    found = []
    for term in TERM_HOURS:
        for payment in PAYMENTS:
            offers, _ = offers_for(use, catalog, term, payment, own)
            portfolios = best_portfolios(use, offers, factors) if offers.portfolios else []
            found.append(Choice(term, payment, portfolios[0] if portfolios else None))
    return found


def upfront_nano(portfolio: Portfolio, term: str, payment: str) -> int:
    """Return what of a set is paid on its first day, in nano-dollars; half of everything where a part is."""
    found = 0
    for outcome in portfolio.outcomes:
        promise = outcome.promise
        of_machines = promise.offer.of_machines
        # Each machine is paid for itself, a plan as a whole.
        found += promise.level * _upfront_of(promise.offer.unit_nano, term, payment) if of_machines else 0
        found += 0 if of_machines else _upfront_of(promise.nano_per_hour, term, payment)
    return found


def _upfront_of(nano_per_hour: int, term: str, payment: str) -> int:
    hourly_nano = {NO_UPFRONT: nano_per_hour, PARTIAL_UPFRONT: nano_per_hour // 2, ALL_UPFRONT: 0}[payment]
    return (nano_per_hour - hourly_nano) * TERM_HOURS[term]


def scenario_rows(portfolio: Portfolio, term: str = "1y", payment: str = NO_UPFRONT) -> dict[str, dict[str, Any]]:
    """Return a set of commitments as the rows of `commitments:` in a scenario, at the rates that were assumed.

    A plan has one rate for a type there; where regions differ in the price of a type no row can say it, and there are none.
    """
    for outcome in portfolio.outcomes:
        rates = outcome.promise.offer.rates_nano
        if len({kind.instance for kind in rates}) < len({(kind.instance, rate) for kind, rate in rates.items()}):
            return {}
    return {f"commitment_{number}": _row(outcome, term, payment) for number, outcome in enumerate(portfolio.outcomes, 1)}


def _row(outcome: Outcome, term: str, payment: str) -> dict[str, Any]:
    offer, level = outcome.promise.offer, outcome.promise.level
    first = next(iter(offer.rates_nano))
    paid: dict[str, Any] = {} if payment == NO_UPFRONT else {"term": term, "payment": payment}
    if offer.of_machines:
        row = {"choice": offer.name, "instance": first.instance, "region": first.region, "count": level, **paid}
        upfront = _upfront_of(offer.unit_nano, term, payment)
        if payment != ALL_UPFRONT:
            row["usd_per_hour"] = exact_usd(offer.unit_nano - upfront // TERM_HOURS[term])
        return {**row, "upfront_usd": exact_usd(upfront)} if upfront else row
    row = {"choice": offer.name, **paid, "usd_per_hour": exact_usd(outcome.promise.nano_per_hour)}
    if offer.name == "instance_savings_plan":
        row |= {"family": first.family, "region": first.region}
    return {**row, "rates_usd_per_hour": {kind.instance: exact_usd(rate) for kind, rate in offer.rates_nano.items()}}


def exact_usd(amount_nano: int) -> str:
    """Show nano-dollars as dollars without rounding.

    Examples
    --------
    >>> exact_usd(4_128_000_000), exact_usd(5)
    ('4.128', '0.000000005')
    """
    dollars, rest = divmod(amount_nano, NANO_PER_USD)
    return f"{dollars}.{rest:09}".rstrip("0").rstrip(".")


def _portfolio_dict(portfolio: Portfolio, eligible_nano: int, term: str, payment: str) -> dict[str, Any]:
    return {
        "name": portfolio.name,
        "nano_usd_per_hour": portfolio.nano_per_hour,
        "upfront_nano_usd": upfront_nano(portfolio, term, payment),
        "committed_nano_usd": portfolio.committed_nano,
        "eligible_bill_nano_usd": eligible_nano - portfolio.saved_nano,
        "saved_nano_usd": portfolio.saved_nano,
        "saved_at_most_nano_usd": portfolio.bound_nano,
        "utilisation": portfolio.used_nano / portfolio.committed_nano if portfolio.committed_nano else None,
        "coverage": portfolio.replaced_nano / eligible_nano,
        "on_assumed_discounts_nano_usd": portfolio.assumed_nano,
        "commitments": [_outcome_dict(outcome) for outcome in portfolio.outcomes],
        "traffic": [
            {"factor": float(each.factor), "saved_nano_usd": each.saved_nano, "regret_nano_usd": each.regret_nano}
            for each in portfolio.regrets
        ],
        "scenario": {"commitments": scenario_rows(portfolio, term, payment)},
    }


def _outcome_dict(outcome: Outcome) -> dict[str, Any]:
    offer = outcome.promise.offer
    return {
        "offer": offer.name,
        "rates": [{**vars(kind), "nano_usd_per_hour": rate} for kind, rate in offer.rates_nano.items()],
        "machines": outcome.promise.level if offer.of_machines else None,
        "nano_usd_per_hour": outcome.promise.nano_per_hour,
        "committed_nano_usd": outcome.committed_nano,
        "used_nano_usd": outcome.used_nano,
        "replaced_nano_usd": outcome.replaced_nano,
        "saved_nano_usd": outcome.saved_nano,
        "utilisation": outcome.utilisation,
        "pays_back_in_share_of_term": outcome.break_even,
        "discount": offer.source,
        "confidence": offer.confidence,
    }


def _draw(found: Advice, name: str) -> None:
    from sim.report.figures.commitments import use_and_commitment
    from sim.report.style import png_bytes, svg_bytes

    figure = use_and_commitment(found.use, found.portfolios[0], f"billcast, {found.folder}, term {found.term}")
    try:
        Path(name).write_bytes(png_bytes(figure) if name.endswith(".png") else svg_bytes(figure))
    except OSError as error:
        raise InputError([Problem("--figure", name, f"cannot be written: {error}", "a file in a folder that is there")]) from error
