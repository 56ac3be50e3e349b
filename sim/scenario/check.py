"""The check of a scenario before anything is simulated: every problem at once, by dotted path."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from zoneinfo import ZoneInfo, available_timezones

from sim.catalog.loader import Catalog, load_catalog
from sim.domain.hardware import Accelerator
from sim.errors import InputError, Problems
from sim.policies.taps.base import check_table
from sim.scenario.budgets import check_budgets
from sim.scenario.check_fleet import check_deployment, check_quotas
from sim.scenario.check_optimizations import check_optimizations, check_prefix_hits
from sim.scenario.check_purchases import check_purchases
from sim.scenario.check_services import check_kinds
from sim.scenario.model import ENGINES, FAILURES, ColdStart, Pool, Scenario, Service, Spot
from sim.scenario.other_costs import check_other_costs
from sim.scenario.plain import scenario_from_plain
from sim.scenario.resolve import STAGES
from sim.scenario.sites import check_energy
from sim.units import NS_PER_DAY, NS_PER_S, duration_ns, instant

# Names become parts of paths, tables and folders.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_RECORDS = re.compile(r"none|all|sample:[1-9][0-9]{0,8}")
FIRST_YEAR, LAST_YEAR = 1990, 2200
LONGEST_HORIZON_NS = 3660 * NS_PER_DAY
MOST_WINDOWS = 1_000_000
MOST_COUNT = 1_000_000
MOST_REPLICATIONS, MOST_WORKERS = 10_000, 1_000
LONGEST_S = 30 * 86_400.0


def check(scenario: Scenario, catalog: Catalog | None = None) -> Scenario:
    """Check everything about a scenario that can be known before it runs, and return it with every quantity read.

    A field may hold a quantity as people write it, `Slo(ttft_s="300 ms")`; the returned scenario has it as a number.

    Parameters
    ----------
    catalog : the catalog its names refer to; None loads the package's, with the scenario's own overlay.

    Raises
    ------
    InputError : all problems found, and nothing else for any values of the fields.

    Examples
    --------
    >>> check(Scenario(horizon="-1h"))
    Traceback (most recent call last):
    ...
    sim.errors.InputError: horizon = '-1h': the end would be before the start; allowed: a duration above 0, for instance 12h
    services = {}: there is no service; allowed: at least one
    """
    problems = Problems()
    # Types first: what is of a wrong type is reported and replaced by its default, so that the rest can be checked too.
    typed = scenario_from_plain(scenario.to_dict(), problems)
    if catalog is None:
        catalog = _catalog(typed.catalog, problems)
    _check_run(typed, problems)
    for name, service in typed.services.items():
        _check_service(name, service, typed, problems)
    _check_sharing(typed, problems)
    for name, deployment in typed.deployments.items():
        _check_name("deployments", name, problems)
        check_deployment(f"deployments.{name}", deployment, typed.pools, catalog, problems)
        check_optimizations(f"deployments.{name}", deployment, typed.pools, catalog, problems)
    for name, pool in typed.pools.items():
        _check_name("pools", name, problems)
        _check_pool(f"pools.{name}", pool, catalog, problems)
    for name in typed.commitments:
        _check_name("commitments", name, problems)
    check_purchases(typed, catalog, problems)
    check_prefix_hits(typed, problems)
    check_quotas(typed, catalog, problems)
    _check_failures(typed, problems)
    _check_taps(typed, problems)
    _check_account(typed, problems)
    check_budgets(typed, _check_name, problems)
    check_energy(typed, catalog, problems)
    check_other_costs(typed.other_costs, catalog, problems)
    problems.raise_if_any()
    return typed


def _catalog(overlay: str, problems: Problems) -> Catalog:
    try:
        return load_catalog(overlay or None)
    except InputError as error:
        problems.found.extend(error.problems)
    except ValueError as error:  # a path with a null byte
        problems.add("catalog", overlay, f"cannot be read: {error}")
    return load_catalog()


def _check_run(scenario: Scenario, problems: Problems) -> None:
    """Check times, seeds and names of the run itself."""
    problems.check(
        re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", scenario.name) is not None,
        "name",
        scenario.name,
        "cannot be the name of a folder",
        "letters, digits, '_', '-', '.'",
    )
    horizon_ns = _check_span("horizon", scenario.horizon, problems)
    _check_start(scenario.start, problems)
    warmup_ns = _duration("warmup", scenario.warmup, problems)
    if warmup_ns is not None and horizon_ns is not None:
        problems.check(warmup_ns < horizon_ns, "warmup", scenario.warmup, "leaves nothing to report", f"below {scenario.horizon}")
    window_ns = _duration("window", scenario.window, problems)
    if window_ns is not None and problems.check(window_ns >= NS_PER_S, "window", scenario.window, "is too short", "at least 1s"):
        few = horizon_ns is None or horizon_ns <= window_ns * MOST_WINDOWS
        problems.check(few, "window", scenario.window, "makes too many windows", f"at most {MOST_WINDOWS:,} in the horizon")
    for name in ("seed", "replication"):
        value = getattr(scenario, name)
        problems.check(value >= 0, name, value, "must not be negative", ">= 0")
    _check_between("replications", scenario.replications, 1, MOST_REPLICATIONS, problems)
    _check_between("workers", scenario.workers, 1, MOST_WORKERS, problems)
    problems.check(scenario.engine in ENGINES, "engine", scenario.engine, "is not an engine", choices=ENGINES)
    known = _RECORDS.fullmatch(scenario.records) is not None
    problems.check(known, "records", scenario.records, "is not a choice of records", "none, all, or sample:N for one request in N")
    problems.check(bool(scenario.services), "services", {}, "there is no service", "at least one")


def _check_start(start: str, problems: Problems) -> None:
    try:
        year = instant(start).year
    except (ValueError, OverflowError):
        problems.add("start", start, "is not a calendar instant", "ISO 8601, for instance 2026-09-15T06:00:00Z")
        return
    problems.check(FIRST_YEAR <= year <= LAST_YEAR, "start", start, "is out of range", f"the years {FIRST_YEAR} to {LAST_YEAR}")


def _check_span(path: str, text: str, problems: Problems) -> int | None:
    """Check a duration from the start to an end, and return it in nanoseconds."""
    example = "a duration above 0, for instance 12h"
    if text.strip().startswith("-"):
        problems.add(path, text, "the end would be before the start", example)
        return None
    span_ns = _duration(path, text, problems)
    if span_ns is None or not problems.check(span_ns > 0, path, text, "the end would be at the start", example):
        return None
    longest = f"at most {LONGEST_HORIZON_NS // NS_PER_DAY} d"
    return span_ns if problems.check(span_ns <= LONGEST_HORIZON_NS, path, text, "is too long", longest) else None


def _duration(path: str, text: str, problems: Problems) -> int | None:
    """Return a duration in nanoseconds, or None after adding a problem."""
    try:
        return duration_ns(text)
    except ValueError:
        negative = text.strip().startswith("-")
        problems.add(path, text, "must not be negative" if negative else "is not a duration", "for instance 90s, 1h30m or 7d")
        return None


def _check_name(group: str, name: str, problems: Problems) -> None:
    valid = _NAME.fullmatch(name) is not None
    problems.check(valid, f"{group}.{name}", name, "cannot be a name", "a letter, then letters, digits, '_' and '-'")


def _check_service(name: str, service: Service, scenario: Scenario, problems: Problems) -> None:
    path = f"services.{name}"
    _check_name("services", name, problems)
    _check_list(f"{path}.deployments", service.deployments, "deployment", scenario.deployments, problems)
    service.workload.problems(f"{path}.workload", problems)
    for target in ("ttft_s", "tpot_s", "e2e_s"):
        _check_between(f"{path}.slo.{target}", getattr(service.slo, target), 0.0, LONGEST_S, problems, above=True)
    _check_between(f"{path}.slo.attainment", service.slo.attainment, 0.0, 1.0, problems, above=True)
    _check_between(f"{path}.queue_timeout_s", service.queue_timeout_s, 0.0, LONGEST_S, problems, above=True)
    _check_between(f"{path}.max_queue", service.max_queue, 0, 10**9, problems)
    _check_between(f"{path}.max_attempts", service.max_attempts, 1, 1000, problems)
    if service.timezone is not None:
        check_timezone(f"{path}.timezone", service.timezone, problems)
    check_kinds(name, service, scenario, problems)


def _check_list(path: str, listed: list[str], kind: str, known: Mapping[str, object], problems: Problems) -> None:
    """Check a list of names of things the scenario defines."""
    problems.check(bool(listed), path, listed, f"names no {kind}", choices=known or ["none is defined"])
    for index, name in enumerate(listed):
        where = f"{path}[{index}]"
        there = problems.check(name in known, where, name, f"there is no such {kind}", choices=known or ["none is defined"])
        problems.check(not there or name not in listed[:index], where, name, "is listed twice", "each once")


def _check_between(path: str, value: float | None, low: float, high: float, problems: Problems, *, above: bool = False) -> None:
    """Check that a number, where given, is within bounds; `above` leaves the lower one out."""
    if value is None:
        return
    within = low < value <= high if above else low <= value <= high
    problems.check(within, path, value, "is out of range", f"{'above ' if above else ''}{low:g} to {high:g}")


def _check_sharing(scenario: Scenario, problems: Problems) -> None:
    """Services that share replicas are dispatched together, so they must agree on the router."""
    for members in scenario.planes():
        first = members[0]
        for name in members[1:]:
            mine, others = scenario.services[name].router, scenario.services[first].router
            message = f"differs from that of services.{first}, with which it shares replicas"
            problems.check(mine == others, f"services.{name}.router", _named(mine), message, _named(others))


def _named(choice: object) -> str:
    return str(getattr(choice, "choice_name", type(choice).__name__))


def _check_pool(path: str, pool: Pool, catalog: Catalog, problems: Problems) -> None:
    instance = catalog.get("instances", pool.instance, f"{path}.instance", problems)
    problems.check(bool(pool.zones), f"{path}.zones", pool.zones, "names no zone", "at least one")
    for index, zone in enumerate(pool.zones):
        fine = bool(zone.strip()) and zone not in pool.zones[:index]
        problems.check(fine, f"{path}.zones[{index}]", zone, "is empty or listed twice", "a name, once")
    _check_between(f"{path}.quota_nodes", pool.quota_nodes, 1, MOST_COUNT, problems)
    most_warm = MOST_COUNT if pool.quota_nodes is None else pool.quota_nodes
    _check_between(f"{path}.warm_nodes", pool.warm_nodes, 0, max(most_warm, 0), problems)
    _check_between(f"{path}.capacity_retry_s", pool.capacity_retry_s, 0.0, LONGEST_S, problems, above=True)
    _check_spot(f"{path}.spot", pool.spot, catalog, problems)
    if instance is not None and pool.power_cap_w is not None:
        _check_power_cap(f"{path}.power_cap_w", pool.power_cap_w, catalog.accelerators[instance.accelerator], problems)
    _check_cold_start(f"{path}.cold_start", pool.cold_start, catalog, problems)


def _check_power_cap(path: str, cap_w: float, accelerator: Accelerator, problems: Problems) -> None:
    """Check a limit of power: what can be set on the board, and above what it draws when idle."""
    least_w, most_w = max(accelerator.min_power_w, accelerator.idle_w), accelerator.tdp_w
    fine = accelerator.min_power_w <= cap_w <= most_w and cap_w > accelerator.idle_w
    message = f"is no power limit of {accelerator.name}, which draws {accelerator.idle_w:g} W idle"
    problems.check(fine, path, cap_w, message, f"{least_w:g} to {most_w:g}")


def _check_spot(path: str, spot: Spot, catalog: Catalog, problems: Problems) -> None:
    markets, prices = catalog.spot_markets, catalog.spot_prices
    problems.check(spot.market in markets, f"{path}.market", spot.market, "is not a spot market", choices=markets)
    known = spot.price in ("", *prices)
    problems.check(known, f"{path}.price", spot.price, "is not a row of spot prices", choices=prices)
    _check_between(f"{path}.notice_s", spot.notice_s, 0.0, LONGEST_S, problems)


def _check_cold_start(path: str, cold_start: ColdStart, catalog: Catalog, problems: Problems) -> None:
    storages = [name for name, row in catalog.cold_starts.items() if row.stage == "loading"]
    known = cold_start.storage in storages
    problems.check(known, f"{path}.storage", cold_start.storage, "is not a storage of weights", choices=storages)
    _check_between(f"{path}.image_gb", cold_start.image_gb, 0.0, 10_000.0, problems, above=True)
    for limit in ("registry_gb_per_s", "storage_gb_per_s"):
        _check_between(f"{path}.{limit}", getattr(cold_start, limit), 0.0, 100_000.0, problems, above=True)
    for stage in STAGES:
        times = getattr(cold_start, stage)
        where = f"{path}.{stage}"
        _check_between(f"{where}.median_s", times.median_s, 0.0, LONGEST_S, problems)
        if times.p95_s is None:
            continue
        if problems.check(times.median_s is not None, f"{where}.median_s", None, "must be given beside p95_s", ">= 0"):
            least = times.median_s if math.isfinite(times.median_s) else 0.0
            _check_between(f"{where}.p95_s", times.p95_s, least, LONGEST_S, problems)
        if times.median_s == 0:
            problems.check(times.p95_s == 0, f"{where}.p95_s", times.p95_s, "a stage with median 0 takes no time", "0")


def _check_failures(scenario: Scenario, problems: Problems) -> None:
    for index, failure in enumerate(scenario.failures):
        path = f"failures[{index}]"
        # One after the end does not happen: a shorter horizon needs no other change.
        _duration(f"{path}.at", failure.at, problems)
        known = scenario.pools or ["none is defined"]
        there = problems.check(failure.pool in scenario.pools, f"{path}.pool", failure.pool, "there is no such pool", choices=known)
        problems.check(failure.kind in FAILURES, f"{path}.kind", failure.kind, "is not a kind of failure", choices=FAILURES)
        zones = scenario.pools[failure.pool].zones if there else []
        known_zone = not there or failure.zone in ("", *zones)
        problems.check(known_zone, f"{path}.zone", failure.zone, "is not a zone of the pool", choices=zones)
        _duration(f"{path}.lasts", failure.lasts, problems)
        _check_between(f"{path}.nodes", failure.nodes, 1, MOST_COUNT, problems)


def check_timezone(path: str, zone: str, problems: Problems) -> None:
    """Check that a time zone is one of the IANA database."""
    try:
        ZoneInfo(zone)
    except (ValueError, OSError, LookupError):
        example = "a name of the IANA database, for instance Europe/Berlin"
        problems.add(path, zone, "is not a time zone", example, choices=available_timezones())


def _check_taps(scenario: Scenario, problems: Problems) -> None:
    for name, tap in scenario.taps.items():
        _check_name("taps", name, problems)
        check_table(tap, f"taps.{name}", problems)
        tap.problems(f"taps.{name}", problems)
    # Which of the records a sample would hold is known only to the engine, and a tap that saw a sample would count wrong.
    sampled = scenario.records.startswith("sample:") and any(tap.sees_outcomes for tap in scenario.taps.values())
    problems.check(not sampled, "records", scenario.records, "cannot be a sample beside a tap of all outcomes", "none or all")


def _check_account(scenario: Scenario, problems: Problems) -> None:
    check_timezone("account.timezone", scenario.account.timezone, problems)
    problems.check(bool(scenario.account.name.strip()), "account.name", scenario.account.name, "is empty", "a name")
