"""Efficiencies of accelerators and weight types that nobody measured: rows that come of other rows, by rules of the catalog.

A row that is in no file comes of the first that applies:

1. the accelerator has a rule (`fit_rules`): the row of the accelerator it is like;
2. it has a bf16 row for these kernels: that row, changed as weight types change elsewhere (`type_rules`);
3. it has rows for other kernels: those.

Such a row is "transferred" at best, and no band is narrower than those of the rows it comes of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from math import exp, fsum, log
from statistics import fmean, median

from sim.domain.hardware import WEIGHT_TYPES, Accelerator, FitRule, Provenance, StepFit, TypeRule

VALIDITIES = ("fitted", "transferred", "assumed")
BANDS = ("band", "decode_band", "prefill_band", "mixed_band", "expert_band")
# What a change of type multiplies: everything but names, text, bands, and the times that it adds to.
KEPT = ("name", "validity", "provenance", "notes", "overlap", "layer_s", "activation_bytes", *BANDS)
FACTORS = tuple(field.name for field in fields(StepFit) if field.name not in KEPT)
LINK = ("allreduce_s", "allreduce_growth", "eta_link", "link_growth")
RULED = ("eta_compute", "eta_weights", "eta_attention", "eta_kv", "layer_s")


def fit_key(accelerator: str, kernels: str, weight_dtype: str) -> str:
    """Return the name of a row of `fits`.

    Examples
    --------
    >>> fit_key("h100-sxm", "vllm", "bf16")
    'h100-sxm/vllm/bf16'
    """
    return f"{accelerator}/{kernels}/{weight_dtype}"


def completed_fits(
    accelerators: Mapping[str, Accelerator],
    fits: dict[str, StepFit],
    fit_rules: Mapping[str, FitRule],
    type_rules: Mapping[str, TypeRule],
) -> dict[str, StepFit]:
    """Return the rows of all accelerators, kernel families and weight types whose arithmetic the accelerator has.

    Rows given stay as they are. An accelerator with neither rows nor a rule gets none.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> row = load_catalog().fits["h200-sxm/vllm/fp8"]
    >>> row.validity, row.notes
    ('transferred', 'as h100-sxm/vllm/fp8')
    """
    rules = _Rules(accelerators, fits, fit_rules, type_rules)
    found: dict[str, StepFit] = {}
    for accelerator in accelerators.values():
        for kernels in rules.kernels:
            for dtype, (_, arithmetic) in WEIGHT_TYPES.items():
                row = rules.row(accelerator.name, kernels, dtype) if arithmetic in accelerator.dense_tflops else None
                if row is not None:
                    found[row.name] = row
    return found | fits


@dataclass(frozen=True)
class _Change:
    """How rows change from bf16 to another weight type: efficiencies by factors, times by what is added.

    Efficiencies are the hardware's, so that all kernels are asked, in the median, since some are not tuned. What is launched and
    moved between kernels is the software's: only its own kernels are asked, and a time stays a time on another accelerator.
    """

    factors: dict[str, float]
    layer_s: float
    activation_s: float
    donors: tuple[str, ...]


@dataclass(frozen=True)
class _Rules:
    accelerators: Mapping[str, Accelerator]
    given: dict[str, StepFit]
    fit_rules: Mapping[str, FitRule]
    type_rules: Mapping[str, TypeRule]

    @property
    def kernels(self) -> list[str]:
        return sorted({name.split("/")[1] for name in self.given})

    def row(self, accelerator: str, kernels: str, dtype: str, seen: tuple[str, ...] = ()) -> StepFit | None:
        """Return the row of a name; None where nothing leads to one."""
        name = fit_key(accelerator, kernels, dtype)
        if name in self.given:
            return self.given[name]
        if accelerator in seen:
            return None
        if accelerator in self.fit_rules:
            return self._like(self.fit_rules[accelerator], name, (*seen, accelerator))
        plain = self.given.get(fit_key(accelerator, kernels, "bf16"))
        if plain is not None:
            return self._typed(plain, name)
        others = [other for other in self.kernels if fit_key(accelerator, other, "bf16") in self.given]
        if not others:
            return None
        found = self.row(accelerator, others[0], dtype)
        return None if found is None else _derived(found, name, "transferred", 0.0, f"as {found.name}: no rows of {kernels}", {})

    def _like(self, rule: FitRule, name: str, seen: tuple[str, ...]) -> StepFit | None:
        _, kernels, dtype = name.split("/")
        found, plain = self.row(rule.like, kernels, dtype, seen), self.row(rule.like, kernels, "bf16", seen)
        if found is None or plain is None:
            return None
        own = {field: getattr(rule, field) for field in RULED if getattr(rule, field)}
        changed = {field: getattr(found, field) * value / getattr(plain, field) for field, value in own.items()}
        why = f"as {found.name}" + (f" but for {', '.join(own)}" if own else "")
        linked = self.row(rule.link_like, kernels, dtype, seen) if rule.link_like else None
        if linked is not None:
            changed |= {field: getattr(linked, field) for field in LINK}
            why += f"; all-reduces as {linked.name}"
        row = _derived(found, name, rule.validity, rule.least_band, why, changed)
        return replace(row, provenance=replace(rule.provenance, confidence="assumed"))

    def _typed(self, plain: StepFit, name: str) -> StepFit | None:
        accelerator, kernels, dtype = name.split("/")
        rule = self.type_rules.get(dtype)
        if rule is None:
            return None
        alike = self.given.get(fit_key(accelerator, kernels, rule.like)) if rule.like else None
        if alike is not None:
            row = _derived(alike, name, "transferred", rule.least_band, f"as {alike.name}: a type of as many bits", {})
            return replace(row, provenance=replace(rule.provenance, confidence="assumed"))
        change = self._change(kernels, dtype)
        bandwidth = self.accelerators[accelerator].bandwidth_gb_per_s
        changed = {field: getattr(plain, field) * factor for field, factor in change.factors.items()}
        changed["layer_s"] = plain.layer_s + change.layer_s
        changed["activation_bytes"] = plain.activation_bytes + change.activation_s * bandwidth * 1e9
        why = f"{plain.name}, changed as {', '.join(change.donors)}" if change.donors else f"as {plain.name}"
        row = _derived(plain, name, "transferred", rule.least_band, why, changed)
        return replace(row, provenance=replace(rule.provenance, confidence="assumed"))

    def _change(self, kernels: str, dtype: str) -> _Change:
        """Return how rows change from bf16 to a type."""
        pairs = self._pairs(dtype)
        if not pairs:
            changes = [self._change(kernels, other) for other in self.type_rules[dtype].between if other != "bf16"]
            share = 1.0 / max(len(self.type_rules[dtype].between), 1)
            return _Change(
                {field: exp(share * fsum(log(change.factors[field]) for change in changes)) for field in FACTORS},
                share * fsum(change.layer_s for change in changes),
                share * fsum(change.activation_s for change in changes),
                tuple(sorted({donor for change in changes for donor in change.donors})),
            )
        own = [pair for pair in pairs if pair[0].name.split("/")[1] == kernels] or pairs
        return _Change(
            {field: median(getattr(row, field) / getattr(plain, field) for row, plain in pairs) for field in FACTORS},
            fmean(row.layer_s - plain.layer_s for row, plain in own),
            fmean(self._activation_s(row) - self._activation_s(plain) for row, plain in own),
            tuple(row.name for row, _ in pairs),
        )

    def _activation_s(self, row: StepFit) -> float:
        """Return the time that a row has for each number between kernels."""
        return row.activation_bytes / (self.accelerators[row.name.split("/")[0]].bandwidth_gb_per_s * 1e9)

    def _pairs(self, dtype: str) -> list[tuple[StepFit, StepFit]]:
        """Return the given rows of a type and the bf16 rows beside them."""
        found = []
        for name, row in sorted(self.given.items()):
            accelerator, kernels, own = name.split("/")
            plain = self.given.get(fit_key(accelerator, kernels, "bf16"))
            if own == dtype and plain is not None:
                found.append((row, plain))
        return found


def _derived(row: StepFit, name: str, validity: str, least_band: float, why: str, changed: Mapping[str, float]) -> StepFit:
    """Return a row under another name, with changed values (no efficiency above 1), the weaker validity and the wider bands."""
    values = {field: min(value, 1.0) if field.startswith("eta_") else value for field, value in changed.items()}
    weaker = max(row.validity, validity, key=VALIDITIES.index)
    bands = {band: max(getattr(row, band), least_band) for band in BANDS}
    provenance = Provenance(row.provenance.source, row.provenance.date, "assumed")
    return replace(row, name=name, validity=weaker, notes=why, provenance=provenance, **values, **bands)
