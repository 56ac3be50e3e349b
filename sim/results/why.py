"""Why one bill is dearer than another: terms that add up to the difference to the nano-dollar, whatever the order of the causes.

The machine cost of a service is a product. With N completed requests, L tokens (or items) per request, w machine time of work per
token, m_k the share of that time on machines k (instance type and purchase option), p_k their price and r_u what was paid for
overhead u (idle, booting, draining, lost) over what was paid for work,

    cost = N L w (sum over k of m_k p_k) (1 + sum over u of r_u).

The term of a cause is its Shapley value: what changing it from before to after adds to the cost, averaged over all orders in which
the causes could change. With n causes and v(S) the cost in which those of S are as after and the others as before,

    term_i = sum over S without i of |S|! (n - |S| - 1)! / n! (v(S with i) - v(S)).

So the terms add up to the difference without a residual and do not depend on an order, and swapping before and after changes their
sign alone. Everything is a ratio of integers, so it is exact until the terms are rounded by largest remainders. Charges that are
not for time of a machine (energy, storage, commitments that stand empty, ...) are compared line by line.

Sources: Shapley, A value for n-person games (1953); Sun, Energy Economics 20 (1998), as Shapley/Sun in Ang, Huang, Mu, Energy
Policy 37 (2009). The logarithmic mean Divisia index, the other perfect decomposition, takes logarithms, and so has no zeros
(Wood, Lenzen, Energy Policy 34 (2006)); here machines come and go, and fleets scale to nothing.

Where a thing does not exist on one side: machines that only one side has are a change of the mix, at the price of that side. Where
a side has no requests, no tokens or no work, the product says nothing, and uses are compared as they are: work is traffic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from itertools import combinations
from math import factorial
from typing import Any

from sim.errors import InputError, Problem, nearest_name
from sim.results.account_months import account_months, months_sql
from sim.results.pivot import KEYS
from sim.results.records import RunResult
from sim.results.rounding import apportion, as_cents, cents, exact_usd, table_in_cents
from sim.results.spool import quoted
from sim.units import NANO_PER_USD

BUSY = "busy"
# The causes of a product, in the order in which they are shown, with what they are.
FACTORS = {
    "traffic": "requests completed",
    "length": "tokens per request",
    "speed": "machine time per token",
    "mix": "machines and purchase options",
    "price": "price of a machine hour",
}
OVERHEADS = ("idle", "booting", "draining", "lost")
_OTHER = "other: "
Machine = tuple[str, str]


@dataclass
class CostFacts:
    """What a service paid in some time, and for what.

    Parameters
    ----------
    requests : completed. tokens : prompt and output tokens of those, or items.
    busy : (instance type, purchase option) to nanoseconds of machine time and nano-dollars.
    overheads_nano : use to nano-dollars. others_nano : category of other charges to nano-dollars.
    """

    requests: int = 0
    tokens: int = 0
    busy: dict[Machine, tuple[int, int]] = field(default_factory=dict)
    overheads_nano: dict[str, int] = field(default_factory=dict)
    others_nano: dict[str, int] = field(default_factory=dict)

    @property
    def busy_nano(self) -> int:
        """What was paid for work."""
        return sum(amount for _, amount in self.busy.values())

    @property
    def total_nano(self) -> int:
        """The whole amount."""
        return self.busy_nano + sum(self.overheads_nano.values()) + sum(self.others_nano.values())

    @property
    def is_product(self) -> bool:
        """Whether every factor of the product is above zero, so that all their ratios exist and the product is the cost."""
        times = [time_ns for time_ns, _ in self.busy.values()]
        return min(self.requests, self.tokens, self.busy_nano, *times, len(times)) > 0


@dataclass(frozen=True)
class Change:
    """Why a service (or all of them) was dearer: terms in nano-dollars that add up to after - before."""

    before_nano: int
    after_nano: int
    terms_nano: dict[str, int]

    @property
    def difference_nano(self) -> int:
        """How much dearer; below 0 if cheaper."""
        return self.after_nano - self.before_nano


@dataclass(frozen=True)
class ChangeCents:
    """A change in cents, as it is shown: the terms add up to after - before."""

    before: int
    after: int
    terms: dict[str, int]


@dataclass(frozen=True)
class Why:
    """The difference of two bills.

    Parameters
    ----------
    before, after : what they are of, for a reader. services : by name, "(unassigned)" for what no service pays.
    """

    before: str
    after: str
    services: dict[str, Change]

    @property
    def total(self) -> Change:
        """All services together."""
        changes = list(self.services.values())
        terms = {term: sum(change.terms_nano.get(term, 0) for change in changes) for term in self.terms}
        return Change(sum(change.before_nano for change in changes), sum(change.after_nano for change in changes), terms)

    @property
    def terms(self) -> list[str]:
        """Every term of any service: causes of the product, overheads, other charges."""
        found = {term for change in self.services.values() for term in change.terms_nano}
        first = [*FACTORS, *OVERHEADS]
        return [*first, *sorted(found - set(first))]

    def to_dict(self) -> dict[str, Any]:
        """Return everything ready for JSON."""
        services = {name: _plain(change) for name, change in self.services.items()}
        return {"before": self.before, "after": self.after, "services": services, "total": _plain(self.total)}

    def records(self) -> list[dict[str, str]]:
        """Return a row for each term of each service, ready for CSV, in dollars with all nine places."""
        return [
            {"service": name, "before": self.before, "after": self.after, "term": term, "usd": exact_usd(amount)}
            for name, change in self.services.items()
            for term, amount in change.terms_nano.items()
        ]

    @cached_property
    def shown(self) -> dict[str, ChangeCents]:
        """Each service, and "" for all together, in cents: terms add up to differences, and services to all."""
        names, total = list(self.services), self.total
        before_cents, after_cents = cents(total.before_nano), cents(total.after_nano)
        befores = as_cents(before_cents, [change.before_nano for change in self.services.values()])
        afters = as_cents(after_cents, [change.after_nano for change in self.services.values()])
        terms = as_cents(after_cents - before_cents, [total.terms_nano[term] for term in self.terms])
        differences = [after - before for before, after in zip(befores, afters, strict=True)]
        cells = [[change.terms_nano.get(term, 0) for change in self.services.values()] for term in self.terms]
        rounded = table_in_cents(terms, differences, cells)
        found = {"": ChangeCents(before_cents, after_cents, dict(zip(self.terms, terms, strict=True)))}
        for number, name in enumerate(names):
            mine = {term: row[number] for term, row in zip(self.terms, rounded, strict=True)}
            found[name] = ChangeCents(befores[number], afters[number], mine)
        return found


def _plain(change: Change) -> dict[str, Any]:
    return {
        "before_nano_usd": change.before_nano,
        "after_nano_usd": change.after_nano,
        "difference_nano_usd": change.difference_nano,
        "difference_usd": change.difference_nano / NANO_PER_USD,
        "terms_nano_usd": change.terms_nano,
    }


def why_month(result: RunResult, month: str, against: str | None = None) -> Why:
    """Return why a month of the account was dearer than the one before it, or than another one.

    Parameters
    ----------
    month : YYYY-MM. against : the month to compare with; None is the month before.

    Raises
    ------
    InputError : a month that is not in the run, or the first one without another to compare with.

    Examples
    --------
    >>> import tempfile
    >>> from sim import load_scenario, simulate
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     changes = ["start=2026-09-30T23:50:00Z", "horizon=20m", f"out={folder}/run"]
    ...     found = why_month(simulate(load_scenario("bench_chat8", changes)), "2026-10")
    >>> found.before, sum(found.total.terms_nano.values()) == found.total.difference_nano
    ('2026-09', True)
    """
    labels = [period.label for period in account_months(result)]
    problems = [
        Problem(option, name, "is not a month of the run", ", ".join(labels), nearest_name(name, labels))
        for option, name in (("--why", month), ("--against", against))
        if name is not None and name not in labels
    ]
    if not problems and against is None and month == labels[0]:
        others = ", ".join(labels[1:]) or "a run of several months"
        problems = [Problem("--why", month, "is the first month of the run, and has none before", f"--against MONTH, or {others}")]
    if problems:
        raise InputError(problems)
    before = labels[labels.index(month) - 1] if against is None else against
    return why(before, month, cost_facts(result, before), cost_facts(result, month))


def why_run(before: RunResult, after: RunResult, names: tuple[str, str] | None = None) -> Why:
    """Return why a whole run was dearer than another one.

    Parameters
    ----------
    names : of the two, for a reader; None takes their folders.
    """
    first, second = names or (str(before.folder), str(after.folder))
    return why(first, second, cost_facts(before), cost_facts(after))


def why(before: str, after: str, facts_before: Mapping[str, CostFacts], facts_after: Mapping[str, CostFacts]) -> Why:
    """Return the difference of two bills as terms.

    Parameters
    ----------
    before, after : names of the two. facts_before, facts_after : by service; one that a side lacks cost nothing there.
    """
    names = list(dict.fromkeys([*facts_before, *facts_after]))
    pairs = {name: (facts_before.get(name, CostFacts()), facts_after.get(name, CostFacts())) for name in names}
    return Why(before, after, {name: decompose(*pair) for name, pair in pairs.items()})


def cost_facts(result: RunResult, month: str | None = None) -> dict[str, CostFacts]:
    """Return what each service paid, and for what.

    Parameters
    ----------
    month : of the account; None is the whole run.
    """
    of_month = "true" if month is None else f"month = {quoted(month)}"
    return facts_of(result, of_month, of_month)


def facts_of(result: RunResult, of_windows: str, of_charges: str) -> dict[str, CostFacts]:
    """Return what each service paid in some of its windows and charges, and for what.

    Parameters
    ----------
    of_windows : SQL condition on `windows`, and `month`. of_charges : on `ledger` and `attribution`.
    """
    found: dict[str, CostFacts] = {}
    work = result.sql(f"""
        SELECT service, min(stream) AS first, sum(completed) AS completed, sum(prompt_tokens + output_tokens + items) AS tokens
        FROM windows JOIN {months_sql(result)} ON windows.start_ns >= months.from_ns AND windows.start_ns < months.to_ns
        WHERE {of_windows} GROUP BY service ORDER BY first
    """)
    for service, _, completed, tokens in zip(*(column.tolist() for column in work.values()), strict=True):
        found[service] = CostFacts(int(completed), int(tokens))
    # The time of a part is its share of the row's, unknown where that was free; nanoseconds times nano-dollars need 128 bits.
    parts = result.sql(f"""
        SELECT {KEYS["service"]} AS payer, lease >= 0 AND unit = 'instance-second' AS machine,
            coalesce(leases.instance, '') AS instance, ledger.purchase AS purchase, use, category,
            sum(attribution.amount_nano_usd) AS amount,
            sum(attribution.amount_nano_usd::HUGEINT * (ledger.end_ns - ledger.start_ns) // nullif(ledger.amount_nano_usd, 0))
                AS time_ns
        FROM attribution JOIN ledger USING (row) LEFT JOIN leases USING (lease)
        WHERE {of_charges} GROUP BY ALL ORDER BY ALL
    """)
    rows = zip(*(column.tolist() for column in parts.values()), strict=True)
    for payer, machine, instance, purchase, use, category, amount, time_ns in rows:
        facts = found.setdefault(payer, CostFacts())
        if not machine:
            facts.others_nano[category] = facts.others_nano.get(category, 0) + amount
        elif use == BUSY and time_ns is not None:  # None: all of it was free, and has no price
            before = facts.busy.get((instance, purchase), (0, 0))
            facts.busy[instance, purchase] = (before[0] + time_ns, before[1] + amount)
        else:
            facts.overheads_nano[use] = facts.overheads_nano.get(use, 0) + amount
    return found


def decompose(before: CostFacts, after: CostFacts) -> Change:
    """Return the terms of the difference of two bills of one service, rounded so that they add up to it exactly.

    Examples
    --------
    >>> cheap = CostFacts(10, 100, {("p5", "on_demand"): (100, 1_000)}, {"idle": 500})
    >>> decompose(cheap, CostFacts(20, 200, {("p5", "on_demand"): (200, 2_000)}, {"idle": 1_000})).terms_nano["traffic"]
    1500
    """
    uses = [*OVERHEADS, *sorted({*before.overheads_nano, *after.overheads_nano} - set(OVERHEADS))]
    if before.is_product and after.is_product:
        terms = _shapley_terms(before, after, uses)
    else:
        terms = dict.fromkeys(FACTORS, Fraction(0)) | {"traffic": Fraction(after.busy_nano - before.busy_nano)}
        for use in uses:
            terms[use] = Fraction(after.overheads_nano.get(use, 0) - before.overheads_nano.get(use, 0))
    for category in sorted({*before.others_nano, *after.others_nano}):
        terms[f"{_OTHER}{category}"] = Fraction(after.others_nano.get(category, 0) - before.others_nano.get(category, 0))
    rounded = apportion(after.total_nano - before.total_nano, list(terms.values()))
    return Change(before.total_nano, after.total_nano, dict(zip(terms, rounded, strict=True)))


def _shapley_terms(before: CostFacts, after: CostFacts, uses: Sequence[str]) -> dict[str, Fraction]:
    sides = (_factors(before, after, uses), _factors(after, before, uses))
    # What an overhead neither side has cannot have a term other than 0, and each cause doubles the work.
    moving = [name for name in (*FACTORS, *uses) if sides[0][name] != sides[1][name]]

    def cost(changed: frozenset[str]) -> Fraction:
        now = {name: sides[name in changed][name] for name in (*FACTORS, *uses)}
        shares, prices = now["mix"], now["price"]
        mean_price = sum((shares[machine] * prices[machine] for machine in shares), Fraction(0))
        overheads = sum((now[use] for use in uses), Fraction(1))
        return Fraction(now["traffic"] * now["length"] * now["speed"] * mean_price * overheads)

    terms = dict.fromkeys((*FACTORS, *uses), Fraction(0))
    return terms | shapley(moving, cost)


def _factors(mine: CostFacts, other: CostFacts, uses: Iterable[str]) -> dict[str, Any]:
    """The factors of one side, over the machines of both."""
    machines = sorted({*mine.busy, *other.busy})
    total_ns = sum(time_ns for time_ns, _ in mine.busy.values())
    times = {machine: mine.busy.get(machine, (0, 0))[0] for machine in machines}
    priced = {machine: mine.busy.get(machine) or other.busy[machine] for machine in machines}
    return {
        "traffic": Fraction(mine.requests),
        "length": Fraction(mine.tokens, mine.requests),
        "speed": Fraction(total_ns, mine.tokens),
        "mix": {machine: Fraction(times[machine], total_ns) for machine in machines},
        "price": {machine: Fraction(amount, time_ns) for machine, (time_ns, amount) in priced.items()},
        **{use: Fraction(mine.overheads_nano.get(use, 0), mine.busy_nano) for use in uses},
    }


def shapley(causes: Sequence[str], value: Callable[[frozenset[str]], Fraction]) -> dict[str, Fraction]:
    """Return the Shapley value of each cause: its part of value(all) - value(none), exactly.

    Parameters
    ----------
    value : of a set of causes; it is asked once for each of the 2^n sets.

    Examples
    --------
    >>> parts = shapley(["a", "b"], lambda changed: Fraction((3 if "a" in changed else 2) * (10 if "b" in changed else 4)))
    >>> parts["a"], parts["b"]
    (Fraction(7, 1), Fraction(15, 1))
    """
    values = {
        frozenset(chosen): value(frozenset(chosen)) for size in range(len(causes) + 1) for chosen in combinations(causes, size)
    }
    count = len(causes)
    weights = [Fraction(factorial(size) * factorial(count - size - 1), factorial(count)) for size in range(count)]
    found = dict.fromkeys(causes, Fraction(0))
    for chosen, amount in values.items():
        for cause in found.keys() - chosen:
            found[cause] += weights[len(chosen)] * (values[chosen | {cause}] - amount)
    return found
