"""Energy and carbon of a run: in total, and by whom, where and when; per million tokens; how much of it is assumed.

Every `by_*` comes from the table `energy`, whose parts equal what the leases drew to 1e-9 kWh, so each adds up to the total. Energy
is that of the machines at the meter: steps, idle power, host, and the losses of the site (PUE). Embodied carbon is not in it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sim.results.numbers import UNASSIGNED
from sim.results.records import RunResult
from sim.units import JOULES_PER_KWH, NANO_PER_USD, NS_PER_S

NANO_PER_KWH = 1_000_000_000
UG_PER_G, UG_PER_KG = 1_000_000, 1_000_000_000
ASSUMED = "assumed"
_KEYS = {
    "by_service": f"CASE WHEN stream < 0 THEN '{UNASSIGNED}' ELSE service END",
    "by_segment": f"CASE WHEN stream < 0 THEN '{UNASSIGNED}' ELSE service || '/' || segment END",
    "by_deployment": "deployment",
    "by_use": '"use"',
    "by_pool": "pool",
    "by_grid": "grid",
    "by_month": "month",
}
_PER_TOKENS = {"by_service": "service", "by_segment": "service || '/' || segment"}


def energy(result: RunResult, in_items: Collection[str], sites: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return energy, its price (on the bill only where energy is billed) and its carbon.

    Parameters
    ----------
    in_items : services that have no tokens: their energy does not count where it is divided by tokens.
    sites : pool -> what the manifest says about its electricity; empty where it is not known.

    Returns
    -------
    kwh, usd, kgco2, wh_per_1m_tokens, gco2_per_1m_tokens; intensity ("average", "marginal" or "mixed", None without sites);
    assumed_share : of kWh, dollars and carbon what rests on assumed numbers; and the same sums by service, segment, deployment,
        use, pool, grid and month.
    """
    total = _sums(result, "''").get("", (0, 0, 0))
    tokens = _tokens(result, "''").get("", 0)
    by = {name: _sums(result, key) for name, key in _KEYS.items()}
    of_items = [by["by_service"].get(name, (0, 0, 0)) for name in in_items]
    of_tokens = tuple(whole - sum(parts) for whole, *parts in zip(total, *of_items, strict=True))
    kinds = {site["intensity"] for site in sites.values()}
    return {
        **_amounts(total),
        **_per_tokens(of_tokens, tokens),
        "intensity": None if not kinds else kinds.pop() if len(kinds) == 1 else "mixed",
        "assumed_share": assumed_share(result, by["by_pool"], sites),
        **{name: _with_tokens(result, name, found) for name, found in by.items()},
    }


def assumed_share(
    result: RunResult, by_pool: Mapping[str, tuple[int, ...]], sites: Mapping[str, Mapping[str, Any]]
) -> dict[str, float | None]:
    """Return what part of kWh, dollars and carbon rests on assumed numbers; None where there is none of it, or sites are not known.

    The kWh of a pool are those of its steps, its idle accelerators, its hosts and its losses beyond the machines, each with the
    confidence of the number it comes from. Dollars and carbon have that of the price and of the intensity.
    """
    kwh_by_pool = _power_kwh(result)
    assumed = {"kwh": 0.0, "usd": 0.0, "kgco2": 0.0}
    whole = dict.fromkeys(assumed, 0.0)
    for pool, (nano_kwh, nano_usd, carbon_ug) in by_pool.items():
        site = sites.get(pool)
        if site is None:
            return dict.fromkeys(assumed)
        at_machines = nano_kwh / NANO_PER_KWH / site["pue"]
        steps, lease_s = kwh_by_pool.get(pool, (0.0, 0.0))
        host = site["host_w"] * lease_s / JOULES_PER_KWH
        parts = {
            "steps": steps,
            "host": host,
            "idle": max(at_machines - steps - host, 0.0),
            "pue": at_machines * (site["pue"] - 1.0),
        }
        confidence = site["confidence"]
        for name, amounts in (
            ("kwh", parts),
            ("usd", {"price": abs(nano_usd)}),
            ("kgco2", {"carbon": carbon_ug}),
        ):
            whole[name] += sum(amounts.values())
            assumed[name] += sum(amount for part, amount in amounts.items() if confidence[part] == ASSUMED)
    return {name: assumed[name] / whole[name] if whole[name] else None for name in assumed}


def _power_kwh(result: RunResult) -> dict[str, tuple[float, float]]:
    """Pool -> energy of its steps in kWh, at the machines, and seconds of its leases."""
    columns = result.sql(f"""
        SELECT pool, coalesce(sum(joules), 0) / {JOULES_PER_KWH} AS kwh, sum(end_ns - start_ns) / {NS_PER_S} AS lease_s
        FROM leases LEFT JOIN (SELECT lease, sum(energy_j) AS joules FROM usage GROUP BY lease) USING (lease)
        GROUP BY pool ORDER BY pool
    """)
    return {str(pool): (float(kwh), float(lease_s)) for pool, kwh, lease_s in zip(*columns.values(), strict=True)}


def _sums(result: RunResult, key: str) -> dict[str, tuple[int, ...]]:
    columns = result.sql(f"""
        SELECT {key} AS key, sum(nano_kwh) AS nano_kwh, sum(electricity_nano_usd) AS nano_usd, sum(carbon_ug) AS carbon_ug
        FROM energy GROUP BY ALL HAVING count(*) > 0 ORDER BY ALL
    """)
    return {str(name): tuple(int(value) for value in values) for name, *values in zip(*columns.values(), strict=True)}


def _tokens(result: RunResult, key: str) -> dict[str, int]:
    query = f"SELECT {key} AS key, sum(prompt_tokens + output_tokens) AS tokens FROM windows GROUP BY ALL HAVING count(*) > 0"
    columns = result.sql(query)
    return {str(name): int(tokens) for name, tokens in zip(*columns.values(), strict=True)}


def _with_tokens(result: RunResult, name: str, found: Mapping[str, tuple[int, ...]]) -> dict[str, dict[str, float | None]]:
    tokens = _tokens(result, _PER_TOKENS[name]) if name in _PER_TOKENS else None
    return {
        key: {**_amounts(sums), **({} if tokens is None else _per_tokens(sums, tokens.get(key, 0)))} for key, sums in found.items()
    }


def _amounts(sums: tuple[int, ...]) -> dict[str, float | None]:
    nano_kwh, nano_usd, carbon_ug = sums
    return {"kwh": nano_kwh / NANO_PER_KWH, "usd": nano_usd / NANO_PER_USD, "kgco2": carbon_ug / UG_PER_KG}


def _per_tokens(sums: tuple[int, ...], tokens: int) -> dict[str, float | None]:
    """Energy and carbon of a million tokens, prompt and output together; None without tokens."""
    nano_kwh, _, carbon_ug = sums
    if not tokens:
        return {"wh_per_1m_tokens": None, "gco2_per_1m_tokens": None}
    return {
        "wh_per_1m_tokens": nano_kwh * 1_000 * 1_000_000 / tokens / NANO_PER_KWH,
        "gco2_per_1m_tokens": carbon_ug * 1_000_000 / tokens / UG_PER_G,
    }
