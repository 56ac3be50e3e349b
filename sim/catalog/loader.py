"""The catalog as typed rows: the package's YAML files, and a user's overlay merged over them row by row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from sim.catalog.batch_checks import accelerator_class, check_batch_fit, check_batch_model
from sim.catalog.checks import check_accelerator, check_model, check_training_efficiency
from sim.catalog.cost_checks import check_cost_line
from sim.catalog.fit_rules import completed_fits
from sim.catalog.managed_checks import check_managed_offer
from sim.catalog.reading import PROVENANCE_KEYS, read_row, read_sections
from sim.catalog.serverless_checks import check_serverless_price
from sim.catalog.token_checks import check_token_price
from sim.domain.batch_models import BatchFit, BatchModel
from sim.domain.cost_lines import CostLine
from sim.domain.hardware import (
    WEIGHT_TYPES,
    Accelerator,
    ColdStart,
    Engine,
    FitRule,
    Grid,
    InstanceType,
    PowerFit,
    Provenance,
    StepFit,
    TypeRule,
)
from sim.domain.managed import ManagedOffer
from sim.domain.models import Model
from sim.domain.presets import HOURS_OF_WEEK, LengthMixture, WeekProfile, WorkloadPreset
from sim.domain.pricing import OFFERS, PAYMENTS, TERMS, CommitmentDiscount, SizeFlexibility, SustainedUse
from sim.domain.serverless import ServerlessPrice
from sim.domain.spot import Phases, SpotMarket, SpotNotice, SpotPrice
from sim.domain.token_prices import TokenPrice
from sim.domain.training import TrainingEfficiency
from sim.errors import Problems

KINDS: dict[str, type[Any]] = {
    "powers": PowerFit,
    "accelerators": Accelerator,
    "instances": InstanceType,
    "models": Model,
    "engines": Engine,
    "fits": StepFit,
    "fit_rules": FitRule,
    "type_rules": TypeRule,
    "batch_models": BatchModel,
    "batch_fits": BatchFit,
    "cold_starts": ColdStart,
    "grids": Grid,
    "week_profiles": WeekProfile,
    "workloads": WorkloadPreset,
    "spot_markets": SpotMarket,
    "spot_notices": SpotNotice,
    "spot_prices": SpotPrice,
    "training_efficiencies": TrainingEfficiency,
    "commitment_discounts": CommitmentDiscount,
    "sustained_uses": SustainedUse,
    "size_flexibilities": SizeFlexibility,
    "cost_lines": CostLine,
    "managed_offers": ManagedOffer,
    "token_prices": TokenPrice,
    "serverless_prices": ServerlessPrice,
}
_EVER = "1970-01-01"
FILES = (
    "accelerators",
    "accelerators_other",
    "instances",
    "instances_other",
    "instances_tpu",
    "models",
    "models_qwen_gemma",
    "models_moe",
    "engines",
    "fits",
    "fit_rules",
    "batch_models",
    "batch_fits",
    "cold_starts",
    "grids",
    "workloads",
    "spot_markets",
    "spot_prices",
    "training",
    "commitments",
    "size_flexibility",
    "cost_lines",
    "managed_offers",
    "token_prices",
    "serverless_prices",
)


@dataclass(frozen=True)
class Catalog:
    """Every number of the outside world, by kind and name; rows know their source, date and confidence.

    The tables are shared between callers: read them, do not change them.

    Parameters
    ----------
    fits : by "accelerator/kernels/weight type", for instance "h100-sxm/vllm/bf16": rows of the files, and those that rules make of
        them (`sim.catalog.fit_rules`). fit_rules, type_rules : by accelerator and by weight type. grids : by cloud region.
    batch_models : served in whole batches. batch_fits : by "accelerator/family", or "gpu/family" and "cpu/family" for the rest.
    cold_starts : by stage or variant of a stage ("pending", "warming_eager") and by storage ("object_store", "nvme").
    spot_notices : by cloud. spot_prices : by instance type.

    Examples
    --------
    >>> catalog = load_catalog()
    >>> catalog.instances["p5.4xlarge"].on_demand["us-east-1"][-1].usd_per_hour
    '6.88'
    >>> catalog.models["llama-2-70b"].layers
    80
    """

    powers: dict[str, PowerFit] = field(default_factory=dict)
    accelerators: dict[str, Accelerator] = field(default_factory=dict)
    instances: dict[str, InstanceType] = field(default_factory=dict)
    models: dict[str, Model] = field(default_factory=dict)
    engines: dict[str, Engine] = field(default_factory=dict)
    fits: dict[str, StepFit] = field(default_factory=dict)
    fit_rules: dict[str, FitRule] = field(default_factory=dict)
    type_rules: dict[str, TypeRule] = field(default_factory=dict)
    batch_models: dict[str, BatchModel] = field(default_factory=dict)
    batch_fits: dict[str, BatchFit] = field(default_factory=dict)
    cold_starts: dict[str, ColdStart] = field(default_factory=dict)
    grids: dict[str, Grid] = field(default_factory=dict)
    week_profiles: dict[str, WeekProfile] = field(default_factory=dict)
    workloads: dict[str, WorkloadPreset] = field(default_factory=dict)
    spot_markets: dict[str, SpotMarket] = field(default_factory=dict)
    spot_notices: dict[str, SpotNotice] = field(default_factory=dict)
    spot_prices: dict[str, SpotPrice] = field(default_factory=dict)
    training_efficiencies: dict[str, TrainingEfficiency] = field(default_factory=dict)
    commitment_discounts: dict[str, CommitmentDiscount] = field(default_factory=dict)
    sustained_uses: dict[str, SustainedUse] = field(default_factory=dict)
    size_flexibilities: dict[str, SizeFlexibility] = field(default_factory=dict)
    cost_lines: dict[str, CostLine] = field(default_factory=dict)
    managed_offers: dict[str, ManagedOffer] = field(default_factory=dict)
    token_prices: dict[str, TokenPrice] = field(default_factory=dict)
    serverless_prices: dict[str, ServerlessPrice] = field(default_factory=dict)

    def get(self, kind: str, name: str, path: str, problems: Problems) -> Any:
        """Return the row of a kind by name, or None with a problem that lists the names and the nearest.

        Parameters
        ----------
        kind : name of a table, for instance "models". path : dotted path of the value that names the row.

        Examples
        --------
        >>> problems = Problems()
        >>> load_catalog().get("models", "lama-3.1-8b", "deployments.chat.model", problems) is None
        True
        >>> problems.found[0].nearest
        'llama-3.1-8b'
        """
        table = self.table(kind)
        if problems.check(name in table, path, name, f"no such row in the catalog's {kind}", choices=table):
            return table[name]
        return None

    def fit(self, accelerator: str, engine: Engine, weight_dtype: str, path: str, problems: Problems) -> StepFit | None:
        """Return the efficiencies of an engine's kernels on an accelerator, or None with a problem that lists what there is.

        Parameters
        ----------
        accelerator : catalog name. weight_dtype : "bf16", "fp8", ... path : dotted path of the weight type.
        """
        prefix = f"{accelerator}/{engine.kernels}/"
        there = [name.removeprefix(prefix) for name in self.fits if name.startswith(prefix)]
        if weight_dtype in there:
            return self.fits[prefix + weight_dtype]
        allowed = "" if there else f"none: no step times of {engine.kernels} kernels on {accelerator}; add a row to `fits`"
        problems.add(path, weight_dtype, f"no step times for this type with {engine.name} on {accelerator}", allowed, there)
        return None

    def batch_fit(self, accelerator: str, family: str) -> BatchFit:
        """Return the efficiencies of a family of batch models on an accelerator: its own row, else that of its class.

        Raises
        ------
        KeyError : no such family.

        Examples
        --------
        >>> catalog = load_catalog()
        >>> catalog.batch_fit("h100-pcie", "encoder").name, catalog.batch_fit("a10g", "encoder").name
        ('h100-pcie/encoder', 'gpu/encoder')
        """
        own = self.batch_fits.get(f"{accelerator}/{family}")
        return own or self.batch_fits[f"{accelerator_class(accelerator)}/{family}"]

    def table(self, kind: str) -> dict[str, Any]:
        """Return the rows of a kind by name.

        Raises
        ------
        KeyError : no such kind.
        """
        if kind not in KINDS:
            raise KeyError(f"the catalog has no {kind!r}; it has: {', '.join(KINDS)}")
        table: dict[str, Any] = getattr(self, kind)
        return table

    def rows(self, kind: str) -> list[dict[str, Any]]:
        """Return the rows of a kind as flat dictionaries for a terminal table: name first, provenance last.

        Examples
        --------
        >>> row = load_catalog().rows("engines")[0]
        >>> row["name"], row["step_s"], row["confidence"]
        ('vllm-2026', 0.001, 'fitted')
        """
        return [{"name": name, **_flat(row)} for name, row in self.table(kind).items()]


def load_catalog(overlay: str | Path | None = None) -> Catalog:
    """Load the package's catalog, and merge a user's file of the same shape over it.

    A row of the overlay that has the name of an existing row replaces the fields it gives and must say its own source, date and
    confidence; a row with a new name must be complete. An on-demand price that is only a text holds since ever, from the row's
    source.

    Parameters
    ----------
    overlay : path of a YAML file {kind: {name: fields}}, or None.

    Raises
    ------
    InputError : the overlay cannot be read or has rows that are incomplete, mistyped, out of range or name rows that do not exist;
        all of its problems at once.

    Examples
    --------
    >>> load_catalog().grids["eastus"].gco2_per_kwh
    322.0
    """
    if overlay is None or str(overlay) == "":
        return _package_catalog()
    problems = Problems()
    try:
        text = Path(overlay).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problems.add("catalog", str(overlay), f"cannot be read: {getattr(error, 'strerror', None) or error}")
        problems.raise_if_any()
    sections = read_sections(text, str(overlay), problems)
    merged = _merged(_package_sections(), sections, problems)
    catalog = _build(merged, problems)
    problems.raise_if_any()
    return catalog


@lru_cache(maxsize=1)
def _package_catalog() -> Catalog:
    problems = Problems()
    catalog = _build(_package_sections(), problems)
    problems.raise_if_any()
    return catalog


@lru_cache(maxsize=1)
def _package_sections() -> dict[str, dict[str, Any]]:
    problems = Problems()
    sections: dict[str, dict[str, Any]] = {}
    for name in FILES:
        file = resources.files("sim.catalog").joinpath(f"{name}.yaml")
        for kind, rows in read_sections(file.read_text(encoding="utf-8"), file.name, problems).items():
            here = sections.setdefault(kind, {})
            for twice in sorted(set(here) & set(rows)):
                problems.add(f"{kind}.{twice}", file.name, "a row of this name is in another file of the catalog")
            here |= rows
    problems.raise_if_any()
    return sections


def _merged(
    base: Mapping[str, Mapping[str, Any]], over: Mapping[str, Mapping[str, Any]], problems: Problems
) -> dict[str, dict[str, Any]]:
    """Lay the overlay's rows over the base's, field by field; regions of `on_demand` one by one."""
    merged = {kind: dict(rows) for kind, rows in base.items()}
    for kind, rows in over.items():
        if not problems.check(kind in KINDS, kind, kind, "the catalog has no such kind", choices=KINDS):
            continue
        for name, row in rows.items():
            old = merged[kind].get(name) or _derived_row(kind, name)
            row = _with_prices(row)
            new = {key: value for key, value in old.items() if key not in PROVENANCE_KEYS} | row
            if isinstance(old.get("on_demand"), dict) and isinstance(row.get("on_demand"), dict):
                new["on_demand"] = old["on_demand"] | row["on_demand"]
            merged[kind][name] = new
    return merged


def _with_prices(row: dict[str, Any]) -> dict[str, Any]:
    """Write out on-demand prices that are given as a text alone: from the row's source, and before any date."""
    prices = row.get("on_demand")
    if not isinstance(prices, dict):
        return row
    about = {key: row[key] for key in PROVENANCE_KEYS if key in row}
    return row | {
        "on_demand": {
            region: [{"usd_per_hour": price, "valid_from": _EVER, **about}] if isinstance(price, str) else price
            for region, price in prices.items()
        }
    }


def _derived_row(kind: str, name: str) -> dict[str, Any]:
    """Return the fields of a row that only a rule of the package makes, so that an overlay may change some of them; or none."""
    row = _package_catalog().fits.get(name) if kind == "fits" else None
    if row is None:
        return {}
    return {entry.name: getattr(row, entry.name) for entry in fields(row) if entry.name not in ("name", "provenance")}


def _build(sections: Mapping[str, Mapping[str, Any]], problems: Problems) -> Catalog:
    """Make typed rows of all sections and check what they say about each other."""
    tables: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
    for kind, cls in KINDS.items():
        for name, row in sections.get(kind, {}).items():
            made = read_row(cls, name, _resolved(kind, name, row, tables, sections, problems), f"{kind}.{name}", problems)
            if made is not None:
                _check(kind, name, made, sections, problems)
                tables[kind][name] = made
    if not len(problems):
        rules = tables["fit_rules"], tables["type_rules"]
        tables["fits"] = completed_fits(tables["accelerators"], tables["fits"], *rules)
    return Catalog(**tables)


def _resolved(
    kind: str,
    name: str,
    row: dict[str, Any],
    tables: Mapping[str, Mapping[str, Any]],
    sections: Mapping[str, Mapping[str, Any]],
    problems: Problems,
) -> dict[str, Any]:
    """Replace the name of a power row by the row; `powers` are read before `accelerators`."""
    if kind != "accelerators" or not isinstance(row.get("power"), str):
        return row
    power = tables["powers"].get(row["power"])
    if power is None:
        known = sections["powers"]
        problems.check(row["power"] in known, f"{kind}.{name}.power", row["power"], "no such row in powers", choices=known)
        # Any power lets the other fields of the row be checked too; the problem recorded, here or of the power's own row, keeps the
        # row from being used.
        power = PowerFit("", 0.0, 0.0, 0.0, {}, 0.0, 1.0, {}, 0.0, 0.0, Provenance("", "", ""))
    return {**row, "power": power}


def _check(kind: str, name: str, row: Any, sections: Mapping[str, Mapping[str, Any]], problems: Problems) -> None:
    """Check a row against the other rows and itself, beyond the types of its fields."""
    path = f"{kind}.{name}"

    def exists(table: str, key: str, where: str) -> None:
        problems.check(key in sections[table], f"{path}{where}", key, f"no such row in {table}", choices=sections[table])

    if isinstance(row, Accelerator):
        check_accelerator(row, path, problems)
    elif isinstance(row, InstanceType):
        exists("accelerators", row.accelerator, ".accelerator")
        for region, prices in row.on_demand.items():
            dates = [price.valid_from for price in prices]
            problems.check(dates == sorted(set(dates)), f"{path}.on_demand.{region}", dates, "must be in order, one price a day")
    elif isinstance(row, StepFit):
        parts = name.split("/")
        if problems.check(len(parts) == 3, path, name, "not a key", "accelerator/kernels/weight type"):
            exists("accelerators", parts[0], "")
        problems.check(row.overlap <= 1, f"{path}.overlap", row.overlap, "out of range", "0 to 1")
    elif isinstance(row, FitRule):
        exists("accelerators", name, "")
        for where, like in ((".like", row.like), (".link_like", row.link_like or row.like)):
            exists("accelerators", like, where)
        problems.check(row.validity != "fitted", f"{path}.validity", row.validity, "a rule fits nothing", "transferred, assumed")
    elif isinstance(row, TypeRule):
        for type_name in (name, *row.between):
            problems.check(type_name in WEIGHT_TYPES, f"{path}.between", type_name, "not a weight type", choices=WEIGHT_TYPES)
    elif isinstance(row, Engine):
        families = {key.split("/")[1] for key in sections["fits"] if key.count("/") == 2}
        problems.check(
            row.kernels in families, f"{path}.kernels", row.kernels, "no fits of these kernels", choices=sorted(families)
        )
        share = row.memory_utilization
        problems.check(0 < share <= 1, f"{path}.memory_utilization", share, "out of range", "above 0, at most 1")
        problems.check(row.block_tokens >= 1, f"{path}.block_tokens", row.block_tokens, "out of range", "at least 1")
        for name in ("tpot_band", "ttft_band"):
            ends = getattr(row, name)
            two = not ends or (len(ends) == 2 and ends[0] < 1)
            problems.check(two, f"{path}.{name}", list(ends), "not a band", "two shares, below and above; the first below 1")
    elif isinstance(row, Model):
        check_model(row, path, problems)
    elif isinstance(row, BatchModel):
        check_batch_model(row, path, problems)
    elif isinstance(row, BatchFit):
        check_batch_fit(row, name, path, sections["accelerators"], problems)
    elif isinstance(row, ColdStart):
        _check_cold_start(row, path, problems)
    elif isinstance(row, Grid):
        problems.check(row.pue >= 1, f"{path}.pue", row.pue, "out of range", "at least 1")
    elif isinstance(row, WorkloadPreset):
        exists("week_profiles", row.week_profile, ".week_profile")
        problems.check(-1 <= row.spearman <= 1, f"{path}.spearman", row.spearman, "out of range", "-1 to 1")
        _check_mixture(row.prompt, f"{path}.prompt", problems)
        _check_mixture(row.output, f"{path}.output", problems)
    elif isinstance(row, WeekProfile):
        count, mean = len(row.weights), sum(row.weights) / len(row.weights)
        problems.check(count == HOURS_OF_WEEK, f"{path}.weights", count, "wrong number of weights", str(HOURS_OF_WEEK))
        problems.check(abs(mean - 1) < 1e-3, f"{path}.weights", mean, "the mean must be 1")
    elif isinstance(row, SpotMarket):
        _check_spot_market(row, path, problems)
    elif isinstance(row, SpotPrice):
        _check_spot_price(row, path, problems)
    elif isinstance(row, CommitmentDiscount):
        problems.check(row.term in TERMS, f"{path}.term", row.term, "is not a term", choices=TERMS)
        problems.check(0 < row.share < 1, f"{path}.share", row.share, "out of range", "above 0, below 1")
        for offer in row.offers:
            problems.check(offer in OFFERS, f"{path}.offers", offer, "is not an offer", choices=OFFERS)
        for payment in row.payments:
            problems.check(payment in PAYMENTS, f"{path}.payments", payment, "is not a payment option", choices=PAYMENTS)
    elif isinstance(row, SizeFlexibility):
        for name, ratio in row.ratios.items():
            problems.check(ratio > 0, f"{path}.ratios.{name}", ratio, "out of range", "above 0")
    elif isinstance(row, SustainedUse):
        falling = all(0 < later <= earlier <= 1 for earlier, later in zip(row.tiers, row.tiers[1:], strict=False))
        problems.check(falling, f"{path}.tiers", list(row.tiers), "do not fall", "shares from 1 down, above 0")
    elif isinstance(row, CostLine):
        check_cost_line(row, path, problems)
    elif isinstance(row, ManagedOffer):
        check_managed_offer(row, sections["accelerators"], path, problems)
    elif isinstance(row, TokenPrice):
        check_token_price(row, path, problems)
    elif isinstance(row, ServerlessPrice):
        check_serverless_price(row, path, problems)
    elif isinstance(row, TrainingEfficiency):
        check_training_efficiency(row, path, sections["accelerators"], problems)


def _check_spot_market(row: SpotMarket, path: str, problems: Problems) -> None:
    for name, phases in (("up", row.up), ("down", row.down)):
        problems.check(phases.short_share <= 1, f"{path}.{name}.short_share", phases.short_share, "out of range", "0 to 1")
        complete = phases == Phases() or min(phases.short_s, phases.long_s) > 0
        problems.check(complete, f"{path}.{name}", row.name, "a time of a phase is missing", "short_s and long_s above 0")
    both = (row.up == Phases()) == (row.down == Phases())
    problems.check(both, f"{path}.down", row.name, "up and down times go together", "both or neither")
    for field_name in ("region_phi", "all_lost"):
        value = getattr(row, field_name)
        problems.check(value <= 1, f"{path}.{field_name}", value, "out of range", "0 to 1")
    problems.check(row.world_phi <= row.region_phi, f"{path}.world_phi", row.world_phi, "more than region_phi")
    problems.check(0 < row.batch_mean < 1, f"{path}.batch_mean", row.batch_mean, "out of range", "above 0, below 1")
    monthly = row.monthly_interruption
    problems.check(monthly < 1, f"{path}.monthly_interruption", monthly, "out of range", "0 to below 1")


def _check_spot_price(row: SpotPrice, path: str, problems: Problems) -> None:
    levels = [row.ratio_floor, row.ratio_low, row.ratio_median, row.ratio_high, row.ratio_ceiling]
    ordered = 0 < levels[0] < levels[-1] <= 1 and levels == sorted(levels)
    allowed = "0 < ratio_floor <= ratio_low <= ratio_median <= ratio_high <= ratio_ceiling <= 1"
    problems.check(ordered, f"{path}.ratio_median", levels, "ratios are not in order", allowed)
    problems.check(row.drift_share <= 1, f"{path}.drift_share", row.drift_share, "out of range", "0 to 1")
    problems.check(row.drift_ar1 < 1, f"{path}.drift_ar1", row.drift_ar1, "out of range", "0 to below 1")
    problems.check(row.change_gap_h > 0, f"{path}.change_gap_h", row.change_gap_h, "out of range", "above 0")
    related = row.world_correlation <= row.region_correlation <= 1
    allowed = "0 <= world_correlation <= region_correlation <= 1"
    problems.check(related, f"{path}.region_correlation", row.region_correlation, "out of range", allowed)


def _check_cold_start(row: ColdStart, path: str, problems: Problems) -> None:
    fixed = 0 < row.median_s <= row.p95_s and row.median_gb_per_s == row.slow_gb_per_s == 0
    moving = 0 < row.slow_gb_per_s <= row.median_gb_per_s and row.median_s == row.p95_s == 0
    allowed = "0 < median_s <= p95_s, or 0 < slow_gb_per_s <= median_gb_per_s, the other two 0"
    problems.check(fixed or moving, path, row.name, "neither a duration nor a bandwidth", allowed)


def _check_mixture(mixture: LengthMixture, path: str, problems: Problems) -> None:
    counts = {len(mixture.weights), len(mixture.mu), len(mixture.sigma)}
    problems.check(len(counts) == 1, path, sorted(counts), "weights, mu and sigma must be of one length")
    total = sum(mixture.weights)
    problems.check(abs(total - 1) < 1e-3, f"{path}.weights", total, "must sum to 1")


def _flat(row: Any) -> dict[str, Any]:
    """Return the fields of a row in plain values, its provenance last."""
    flat: dict[str, Any] = {}
    for item in fields(row):
        if item.name not in ("name", "provenance"):
            flat[item.name] = _plain(getattr(row, item.name))
    provenance: Provenance = row.provenance
    return {**flat, **{key: getattr(provenance, key) for key in PROVENANCE_KEYS}}


def _plain(value: Any) -> Any:
    """Return a value as a number, a flag or a short text."""
    if isinstance(value, tuple) and value and is_dataclass(value[-1]):  # of dated prices the newest, else all
        return _plain(value[-1]) if hasattr(value[-1], "valid_from") else "; ".join(str(_plain(item)) for item in value)
    if hasattr(value, "usd_per_hour"):
        return f"{value.usd_per_hour} USD/h since {value.valid_from} ({value.provenance.confidence})"
    if isinstance(value, Provenance):
        return f"{value.source} ({value.date}, {value.confidence})"
    if is_dataclass(value):
        told = {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
        return getattr(value, "name", "") or ", ".join(f"{name} {text}" for name, text in told.items() if text != "")
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_plain(item)}" for key, item in value.items())
    if isinstance(value, tuple) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    if isinstance(value, tuple):
        return (
            ", ".join(f"{item:g}" for item in value)
            if len(value) <= 6
            else f"{len(value)} values, {min(value):g} to {max(value):g}"
        )
    return value
