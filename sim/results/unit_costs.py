"""What a request, a token and a user cost: parts of the bill, exact, over what they paid for.

What a token costs depends on which kind it is. A group's amount is split between its prompt tokens and its output tokens by the
replica time that they take, stream by stream:

- a prompt token that is not in the prefix cache takes what it adds to a full step (`prompt_token_s` of the manifest's step models);
- an output token takes what is left of the busy time of its deployment beyond that of all prompt tokens computed, over the output
  tokens it made; never less than nothing.

So output tokens bear what all steps share, such as reading the weights, and overheads (idle, booting, draining, lost) follow work.
A stream of several deployments has the mean of theirs, by what it paid for their work.

It is a rule: the engines know the prefill time of every step, the tables only its sum with the decode time of a stream. The rule
prices an input token the same under any load, and is within 1 % of the busy time of what the engines charge to prefills.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy.typing as npt

from sim.errors import Problems
from sim.results.account_months import account_months, months_sql
from sim.results.pivot import KEYS, TIER, check_keys, pivot
from sim.results.records import RunResult
from sim.results.rounding import parts_of
from sim.units import NANO_PER_USD

# Keys of the bill that have requests of their own.
GROUPS = ("service", "segment", "stream", TIER, "month")
_COLUMNS = {name: name for name in ("service", "segment", "month")} | {
    "stream": "stream::VARCHAR",
    TIER: "service || '/' || segment",
}
_COUNTED = ("requests", "prompt_tokens", "output_tokens", "items")


@dataclass
class UnitCost:
    """A part of the bill and what it paid for.

    Parameters
    ----------
    keys : what it is of. amounts_nano : use to nano-dollars. requests : completed; of a tier, as a tap counted them, if any.
    prompt_tokens, output_tokens, items : of those requests.
    prompt_nano, output_nano : the two parts of the amount that tokens bear; None where the run does not say how, or has no tokens.
    users : clients with a completed request; None where the workload has none. more_users : whether there may have been more.
    """

    keys: tuple[str, ...]
    amounts_nano: dict[str, int]
    requests: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    items: int = 0
    prompt_nano: int | None = None
    output_nano: int | None = None
    users: int | None = None
    more_users: bool = False

    @property
    def total_nano(self) -> int:
        """The whole amount."""
        return sum(self.amounts_nano.values())

    def per_1k_requests(self, use: str | None = None) -> float | None:
        """Return USD per 1,000 requests, of one use or of all; None without requests."""
        return _usd_per(self.total_nano if use is None else self.amounts_nano[use], self.requests, 1_000)

    @property
    def per_1m_prompt_tokens(self) -> float | None:
        """USD per million prompt tokens, for what they bear of the bill."""
        return None if self.prompt_nano is None else _usd_per(self.prompt_nano, self.prompt_tokens, 1_000_000)

    @property
    def per_1m_output_tokens(self) -> float | None:
        """USD per million output tokens, for what they bear of the bill."""
        return None if self.output_nano is None else _usd_per(self.output_nano, self.output_tokens, 1_000_000)

    @property
    def per_user(self) -> float | None:
        """USD per user; None where they are not known."""
        return _usd_per(self.total_nano, self.users, 1) if self.users else None

    def to_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """Return everything ready for JSON.

        Parameters
        ----------
        names : of the keys.
        """
        return {
            **dict(zip(names, self.keys, strict=True)),
            "nano_usd_by": dict(self.amounts_nano),
            "nano_usd": self.total_nano,
            **{name: getattr(self, name) for name in _COUNTED},
            "prompt_nano_usd": self.prompt_nano,
            "output_nano_usd": self.output_nano,
            "users": self.users,
            "more_users": self.more_users,
            "usd_per_1k_requests": self.per_1k_requests(),
            "usd_per_1k_requests_by": {use: self.per_1k_requests(use) for use in self.amounts_nano},
            "usd_per_1m_prompt_tokens": self.per_1m_prompt_tokens,
            "usd_per_1m_output_tokens": self.per_1m_output_tokens,
            "usd_per_user": self.per_user,
        }


def unit_costs(result: RunResult, by: Sequence[str] = ("service",)) -> list[UnitCost]:
    """Return what a request, a token and a user of each group cost; the amounts add up to the ledger exactly.

    Parameters
    ----------
    by : keys of `GROUPS`, the outermost first.

    Raises
    ------
    InputError : a key that is not one of them, or one that nothing was recorded for.

    Examples
    --------
    >>> import tempfile
    >>> from sim import load_scenario, simulate
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [chat] = unit_costs(simulate(load_scenario("bench_chat8", ["horizon=10m", f"out={folder}/run"])))
    >>> chat.keys, chat.prompt_nano + chat.output_nano == chat.total_nano, chat.users
    (('chat',), True, None)
    """
    problems = Problems()
    for name in by:
        problems.check(name in GROUPS or name not in KEYS, "--by", name, "has no requests of its own", choices=GROUPS)
    problems.raise_if_any()
    check_keys(result, by)
    found: dict[tuple[str, ...], UnitCost] = {}
    streams = pivot(result, [*by, "stream"] if "stream" not in by else by, across="use")
    weights = _token_weights(result)
    place = streams.by.index("stream")
    work = _work(result, streams.by)
    for row in streams.rows:
        amounts = dict(zip(streams.columns, row.amounts_nano, strict=True))
        group = found.setdefault(row.keys[: len(by)], UnitCost(row.keys[: len(by)], dict.fromkeys(streams.columns, 0)))
        for use, amount in amounts.items():
            group.amounts_nano[use] += amount
        tokens = work.get(row.keys, dict.fromkeys(_COUNTED, 0))
        _add_tokens(group, row.total_nano, tokens, weights.get(row.keys[place]))
    tier = TIER in by and len(result.table("tier_counters")["tap"]) > 0
    for keys, counted in _work(result, by, tier=tier).items():
        group = found.setdefault(keys, UnitCost(keys, dict.fromkeys(streams.columns, 0)))
        for name, number in counted.items():
            setattr(group, name, number)
    for keys, (users, more) in _users(result, by).items():
        if keys in found:
            found[keys].users, found[keys].more_users = users, more
    return list(found.values())


def _add_tokens(group: UnitCost, amount_nano: int, tokens: dict[str, int], weights: tuple[Fraction, Fraction] | None) -> None:
    """Add a stream's amount to what the prompt tokens and the output tokens of its group bear."""
    if weights is None:
        return
    prompt, output = (weight * tokens[name] for weight, name in zip(weights, ("prompt_tokens", "output_tokens"), strict=True))
    parts = parts_of(amount_nano, [prompt, output])
    group.prompt_nano = (group.prompt_nano or 0) + parts[0]
    group.output_nano = (group.output_nano or 0) + parts[1]


def _token_weights(result: RunResult) -> dict[str, tuple[Fraction, Fraction]]:
    """Replica seconds of a prompt token and of an output token, by stream; none of a stream that works where it is not known."""
    table = result.sql("""
        WITH made AS (
            SELECT deployment, pool, sum(busy_s) AS busy_s, sum(prefill_tokens) AS prompt, sum(output_tokens) AS output
            FROM replicas JOIN nodes USING (node) GROUP BY ALL
        ), paid AS (
            SELECT stream::VARCHAR AS stream, service, deployment, pool, sum(attribution.amount_nano_usd) AS amount
            FROM attribution JOIN ledger USING (row) WHERE use = 'busy' AND stream >= 0 GROUP BY ALL
        )
        SELECT stream, service, deployment, pool, amount, busy_s, prompt, output
        FROM paid JOIN made USING (deployment, pool) ORDER BY ALL
    """)
    models, deployments = result.manifest["step_models"], result.manifest["scenario"]["deployments"]
    sums: dict[str, list[Fraction] | None] = {}
    for stream, _, deployment, pool, amount, busy_s, prompt, output in zip(*(one.tolist() for one in table.values()), strict=True):
        prompt_s = models.get(f"{deployment} on {pool}", {}).get("prompt_token_s")
        mine = sums.setdefault(stream, [Fraction(0)] * 2)
        if prompt_s is None or mine is None:
            sums[stream] = None
            continue
        output_s = max(Fraction(busy_s) - Fraction(prompt_s) * prompt, Fraction(0)) / output if output else Fraction(0)
        hit = Fraction(deployments[deployment]["optimizations"]["prefix_cache_hit"])
        mine[0] += amount * Fraction(prompt_s) * (1 - hit)
        mine[1] += amount * output_s
    return {stream: (mine[0], mine[1]) for stream, mine in sums.items() if mine is not None}


def _work(result: RunResult, by: Sequence[str], *, tier: bool = False) -> dict[tuple[str, ...], dict[str, int]]:
    """Completed requests, tokens and items by some keys; with `tier` what a tap `tiers` counted, the first by name."""
    source, requests, items = "windows", "completed", "items"
    if tier:
        source = "(SELECT * FROM tier_counters WHERE tap = (SELECT min(tap) FROM tier_counters))"
        requests, items = "requests", "0"
    keys = ", ".join(f"{_COLUMNS[name]} AS key_{number}" for number, name in enumerate(by))
    table = result.sql(f"""
        SELECT {keys}, sum({requests}) AS requests, sum(prompt_tokens) AS prompt_tokens, sum(output_tokens) AS output_tokens,
            sum({items}) AS items FROM {source} AS source
        JOIN {months_sql(result)} ON source.start_ns >= months.from_ns AND source.start_ns < months.to_ns GROUP BY ALL ORDER BY ALL
    """)
    rows = zip(*(table[f"key_{number}"].tolist() for number in range(len(by))), strict=True)
    numbers = zip(*(table[name].tolist() for name in _COUNTED), strict=True)
    return {keys: dict(zip(_COUNTED, map(int, found), strict=True)) for keys, found in zip(rows, numbers, strict=True)}


def _users(result: RunResult, by: Sequence[str]) -> dict[tuple[str, ...], tuple[int, bool]]:
    """Users by some keys, and whether there may be more: those the engines count, else what records or a tap `clients` say."""
    return {**_known_senders(result, by), **_counted_users(result, by)}


def _counted_users(result: RunResult, by: Sequence[str]) -> dict[tuple[str, ...], tuple[int, bool]]:
    """Active clients that the engines count, exact by any keys; there are more where a group has services that are not counted."""
    keys = ", ".join(f"{_COLUMNS[name]} AS key_{number}" for number, name in enumerate(by))
    months = "<>" if "month" in by else "="
    streams = ">=" if {"segment", "stream", TIER} & set(by) else "<"
    other = "service NOT IN (SELECT service FROM active_users)"
    alike = "true" if "segment" not in by else "windows.segment = active_users.segment"
    more = "false" if {"service", "stream", TIER} & set(by) else f"EXISTS (SELECT 1 FROM windows WHERE {other} AND {alike})"
    return _by_keys(
        result.sql(f"""
            SELECT {keys}, sum(users) AS users, bool_or({more}) AS more FROM active_users
            WHERE month {months} '' AND stream {streams} 0 GROUP BY ALL ORDER BY ALL
        """)
    )


def _known_senders(result: RunResult, by: Sequence[str]) -> dict[tuple[str, ...], tuple[int, bool]]:
    """Users of workloads that say who sends: from records of all requests, else from a tap `clients`, by service."""
    if result.manifest["scenario"]["records"] == "all":
        keys = ", ".join(f"{_COLUMNS[name]} AS key_{number}" for number, name in enumerate(by))
        table = result.sql(f"""
            SELECT {keys}, count(DISTINCT (service, client)) AS users, false AS more FROM requests
            JOIN {months_sql(result)} ON leave_ns > months.from_ns AND leave_ns <= months.to_ns
            WHERE outcome = 'completed' GROUP BY ALL HAVING max(client) > 0 ORDER BY ALL
        """)
    else:
        places = {"service": "service", "month": "''"}
        if set(by) - set(places) or ("month" in by and len(account_months(result)) > 1):
            return {}
        label = account_months(result)[0].label
        keys = ", ".join(f"{'service' if name == 'service' else repr(label)} AS key_{number}" for number, name in enumerate(by))
        table = result.sql(f"""
            SELECT {keys}, count(*) AS users, max(others_at_most) > 0 AS more FROM client_counters
            WHERE tap = (SELECT tap FROM client_counters ORDER BY counts <> 'completions', tap LIMIT 1)
            GROUP BY ALL HAVING max(client) > 0 ORDER BY ALL
        """)
    return _by_keys(table)


def _by_keys(table: Mapping[str, npt.NDArray[Any]]) -> dict[tuple[str, ...], tuple[int, bool]]:
    """Turn a table of keys, `users` and `more` into what each key has."""
    *keys, users, more = (column.tolist() for column in table.values())
    return {tuple(key): (int(number), bool(others)) for *key, number, others in zip(*keys, users, more, strict=True)}


def _usd_per(amount_nano: int, units: int, lot: int) -> float | None:
    return amount_nano * lot / units / NANO_PER_USD if units else None
