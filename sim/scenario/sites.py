"""Where machines draw their power: PUE, and price and carbon of electricity, constant or by the hour."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from datetime import timedelta
from zoneinfo import ZoneInfo, available_timezones

from sim.catalog.grid_reader import CARBON, MOST_GCO2_PER_KWH, MOST_USD_PER_KWH, PRICE, REPEATS, HourlyFile, read_grid_series
from sim.catalog.loader import Catalog
from sim.catalog.reading import CONFIDENCES
from sim.domain.grid_series import GridSeries
from sim.domain.hardware import Grid
from sim.errors import Problems
from sim.scenario.model import Energy, Pool, RegionEnergy, Scenario
from sim.units import nano_usd

INTENSITIES = ("average", "marginal")
SCENARIO, ASSUMED = "scenario", "assumed"
MOST_PUE = 10.0
LONGEST_SHIFT_H, LONGEST_GAP_H = 48.0, 8_784
_NANO = 1_000_000_000


@dataclass(frozen=True)
class Site:
    """Electricity where a pool stands.

    Parameters
    ----------
    grid : name of the grid, for tables. pue : energy at the meter over energy at the machines; pue_confidence : of it.
    price : in nano-dollars per kWh. carbon : in nanograms of CO2 per kWh. intensity : "average" or "marginal".
    """

    grid: str
    pue: float
    pue_confidence: str
    price: GridSeries
    carbon: GridSeries
    intensity: str

    @property
    def files(self) -> tuple[str, ...]:
        """Paths of the files it was read from."""
        return tuple(dict.fromkeys(series.path for series in (self.price, self.carbon) if series.path))


def site_of(pool: Pool, scenario: Scenario, catalog: Catalog) -> Site:
    """Return the electricity of a pool of a checked scenario.

    Each of PUE, price and carbon is that of the pool's region in `energy.regions`, else that of `energy`, else the catalog's. A
    file and a number are on the same footing.

    Raises
    ------
    InputError : a file cannot be read any more.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> site = site_of(Pool(), Scenario(energy=Energy(usd_per_kwh=0.1)), load_catalog())
    >>> site.price.values, site.carbon.values, site.carbon.confidence
    ((100000000,), (322000000000,), 'assumed')
    """
    problems = Problems()
    name = pool.grid or pool.region
    levels = [(path, level) for path, level in _levels(scenario.energy) if path in ("energy", _region_path(name))]
    row = catalog.grids.get(name)
    pue = next((level.pue for _, level in levels if level.pue is not None), None)
    price = next((found for path, level in levels if (found := _price(path, level, scenario, problems))), None)
    carbon, intensity = next(
        ((found, level.intensity) for path, level in levels if (found := _carbon(path, level, scenario, problems))),
        (None, "average"),
    )
    problems.raise_if_any()
    return Site(
        name,
        _row(row).pue if pue is None else pue,
        _row(row).site_provenance.confidence if pue is None else ASSUMED,
        price or _catalog_price(_row(row)),
        carbon or GridSeries.constant(_nano(_row(row).gco2_per_kwh), _row(row).provenance.source, _row(row).provenance.confidence),
        intensity,
    )


def _row(row: Grid | None) -> Grid:
    assert row is not None  # a region of one's own that lacks a number is refused by the check
    return row


def _catalog_price(row: Grid) -> GridSeries:
    return GridSeries.constant(nano_usd(str(row.usd_per_kwh)), row.site_provenance.source, row.site_provenance.confidence)


def _region_path(name: str) -> str:
    return f"energy.regions.{name}"


def _levels(energy: Energy) -> Iterator[tuple[str, RegionEnergy]]:
    """Yield the settings by dotted path, a region's before those of all pools."""
    for name, region in energy.regions.items():
        yield _region_path(name), region
    yield "energy", energy


def _price(path: str, level: RegionEnergy, scenario: Scenario, problems: Problems) -> GridSeries | None:
    if level.usd_per_kwh is not None:
        return GridSeries.constant(nano_usd(str(level.usd_per_kwh)), SCENARIO, ASSUMED)
    return _series(f"{path}.price", level.price, PRICE, scenario, problems)


def _carbon(path: str, level: RegionEnergy, scenario: Scenario, problems: Problems) -> GridSeries | None:
    if level.gco2_per_kwh is not None:
        return GridSeries.constant(_nano(level.gco2_per_kwh), SCENARIO, ASSUMED)
    return _series(f"{path}.carbon", level.carbon, CARBON, scenario, problems)


def _series(path: str, file: HourlyFile, kind: str, scenario: Scenario, problems: Problems) -> GridSeries | None:
    if not file.path:
        return None
    return read_grid_series(file, kind, path, problems, scenario.start_instant, scenario.horizon_ns)


def _nano(number: float) -> int:
    return round(number * _NANO)


def check_energy(scenario: Scenario, catalog: Catalog, problems: Problems) -> None:
    """Check all settings of electricity: numbers, files, and that every pool has a PUE, a price and an intensity.

    Parameters
    ----------
    problems : what is wrong is added here.
    """
    times_known = _times_known(scenario)
    for path, level in _levels(scenario.energy):
        _check_between(f"{path}.pue", level.pue, 1.0, MOST_PUE, problems)
        _check_price(f"{path}.usd_per_kwh", level.usd_per_kwh, problems)
        _check_between(f"{path}.gco2_per_kwh", level.gco2_per_kwh, 0.0, MOST_GCO2_PER_KWH, problems)
        problems.check(
            level.intensity in INTENSITIES, f"{path}.intensity", level.intensity, "is no kind of intensity", choices=INTENSITIES
        )
        for kind, number in ((PRICE, "usd_per_kwh"), (CARBON, "gco2_per_kwh")):
            file: HourlyFile = getattr(level, kind)
            both = bool(file.path) and getattr(level, number) is not None
            problems.check(not both, f"{path}.{kind}.path", file.path, f"and {number} cannot both be set", "one of the two")
            _check_file(f"{path}.{kind}", file, kind, scenario, problems, times_known=times_known)
    for name, pool in scenario.pools.items():
        _check_pool(name, pool, scenario, catalog, problems)
    named = {pool.grid or pool.region for pool in scenario.pools.values()}
    for name in scenario.energy.regions:
        there = not named or name in named
        problems.check(there, _region_path(name), name, "no pool stands there", choices=sorted(named))


def _times_known(scenario: Scenario) -> bool:
    """Whether start and horizon can be read, so that files can be laid over the run."""
    try:
        scenario.start_instant + timedelta(microseconds=scenario.horizon_ns // 1_000)
    except (ValueError, OverflowError):
        return False
    return True


def _check_file(path: str, file: HourlyFile, kind: str, scenario: Scenario, problems: Problems, *, times_known: bool) -> None:
    before = len(problems)
    if not file.path:
        unset = astuple(file) == astuple(HourlyFile())
        problems.check(
            unset, f"{path}.path", file.path, "names no file, and other settings of it are there", "a CSV file by the hour"
        )
        return
    if file.timezone:
        try:
            ZoneInfo(file.timezone)
        except (ValueError, OSError, LookupError):
            example = "a name of the IANA database, for instance Europe/Berlin"
            problems.add(f"{path}.timezone", file.timezone, "is not a time zone", example, choices=available_timezones())
    _check_between(f"{path}.shift_h", file.shift_h, -LONGEST_SHIFT_H, LONGEST_SHIFT_H, problems)
    _check_between(f"{path}.max_gap_h", file.max_gap_h, 0, LONGEST_GAP_H, problems)
    problems.check(file.repeat in REPEATS, f"{path}.repeat", file.repeat, "is no way to repeat a file", choices=REPEATS)
    sure = file.confidence in CONFIDENCES
    problems.check(sure, f"{path}.confidence", file.confidence, "is not a confidence", choices=CONFIDENCES)
    if len(problems) == before and times_known:
        _series(path, file, kind, scenario, problems)


def _check_pool(name: str, pool: Pool, scenario: Scenario, catalog: Catalog, problems: Problems) -> None:
    """Check that a pool's grid is known: a row of the catalog, or complete in the scenario."""
    grid = pool.grid or pool.region
    if grid in catalog.grids:
        return
    path = f"pools.{name}.{'grid' if pool.grid else 'region'}"
    known = [*scenario.energy.regions, *catalog.grids]
    if not problems.check(grid in known, path, grid, "no electricity grid is known there", choices=known):
        return
    levels = [level for where, level in _levels(scenario.energy) if where in ("energy", _region_path(grid))]
    for what, there in (
        ("pue", any(level.pue is not None for level in levels)),
        ("usd_per_kwh", any(level.usd_per_kwh is not None or level.price.path for level in levels)),
        ("gco2_per_kwh", any(level.gco2_per_kwh is not None or level.carbon.path for level in levels)),
    ):
        message = f"must be given: pools.{name} stands there, and the catalog does not know it"
        problems.check(there, f"{_region_path(grid)}.{what}", None, message, "a number, or a file by the hour")


def _check_price(path: str, value: float | None, problems: Problems) -> None:
    _check_between(path, value, 0.0, MOST_USD_PER_KWH, problems)
    if value is not None and math.isfinite(value):
        try:
            nano_usd(str(value))
        except ValueError:
            problems.add(path, value, "is finer than a nano-dollar", "at most 9 decimals")


def _check_between(path: str, value: float | None, low: float, high: float, problems: Problems) -> None:
    if value is not None:
        problems.check(low <= value <= high, path, value, "is out of range", f"{low:g} to {high:g}")
