"""Step models and caches of the replicas that tables were measured on, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from benchmarks.measured.names import chip_of, engine_of, model_of, weight_type_of
from benchmarks.measured.reading import NotCoveredError
from benchmarks.measured.scores import Band, Compared
from sim.catalog.loader import Catalog, load_catalog
from sim.domain.hardware import Accelerator, Engine, StepFit
from sim.domain.models import Model
from sim.errors import InputError, Problems
from sim.perf.memory import kv_capacity
from sim.perf.roofline import WEIGHT_TYPES, step_model
from sim.perf.steptime import StepModel
from sim.perf.work import step_work


@dataclass(frozen=True, eq=False)
class Replica:
    """A replica as the catalog describes it.

    Parameters
    ----------
    engine : None for bare kernels.
    """

    model: Model
    accelerator: Accelerator
    fit: StepFit
    engine: Engine
    weight_dtype: str
    kv_dtype: str
    tensor_parallel: int
    step: StepModel

    def kv_tokens(self, token_budget: int, seats: int) -> int:
        """Return the tokens that its cache holds.

        Raises
        ------
        NotCoveredError : the model does not fit.
        """
        capacity = kv_capacity(
            self.model,
            self.accelerator,
            self.engine,
            weight_dtype=self.weight_dtype,
            kv_dtype=self.kv_dtype,
            tensor_parallel=self.tensor_parallel,
            max_num_batched_tokens=token_budget,
            max_num_seqs=seats,
        )
        if not capacity.fits:
            raise NotCoveredError(
                f"{self.model.name} does not fit {self.tensor_parallel} {self.accelerator.name} in {self.weight_dtype}"
            )
        return capacity.tokens

    def compared(
        self,
        table: str,
        line: int,
        quantity: str,
        unit: str,
        truth: float,
        predicted: float,
        band: Band | None,
        *,
        engine: str,
        phase: str = "",
    ) -> Compared:
        """Return a row of a table beside what this replica does; arguments as in `Compared`."""
        gpu, dtype, model, validity = self.accelerator.name, self.weight_dtype, self.model.name, self.fit.validity
        return Compared(table, quantity, unit, gpu, engine, dtype, phase, model, line, truth, predicted, band, validity)

    def least_step_s(self, batch: float, context: float) -> float:
        """Return the time below which no decode step can be: one read of what it needs at the bandwidth of the datasheet.

        Weights of the experts that are chosen, head, and a cache in 8 bits, whatever the row says; no time for anything else.

        Parameters
        ----------
        batch : decoding sequences. context : mean tokens in the cache of each.
        """
        bytes_each, arithmetic = WEIGHT_TYPES[self.weight_dtype]
        work = step_work(
            self.model,
            weight_bytes=bytes_each,
            arithmetic=arithmetic,
            kv_bytes=1.0,
            tensor_parallel=self.tensor_parallel,
            tokens=np.array([batch]),
            sampled=np.array([batch]),
        )
        read = work.tokens_bytes.item() + work.expert_bytes.item() + work.context_bytes * batch * context
        return float(read / (self.accelerator.bandwidth_gb_per_s * 1e9))

    def step_band(self, phase: str) -> Band:
        """Return the band printed with the time of bare kernels in a step: "decode", "prefill" or "mixed"."""
        if self.model.experts:
            return Band.of_error(self.fit.expert_band)
        bands = {"decode": self.fit.decode_band, "prefill": self.fit.prefill_band, "mixed": self.fit.mixed_band}
        return Band.of_error(bands[phase])

    @property
    def tpot_band(self) -> Band | None:
        """The band printed with a served time per token, the engine's or its kernels', whichever is wider; None without one."""
        if not self.engine.tpot_band:
            return None
        fit = self.fit
        engine, kernels = Band(*self.engine.tpot_band), Band.of_error(fit.expert_band if self.model.experts else fit.band)
        return Band(max(engine.below, kernels.below), max(engine.above, kernels.above))

    @property
    def ttft_band(self) -> Band | None:
        """The band printed with a served time to the first token, None where nothing was measured."""
        return Band(*self.engine.ttft_band) if self.engine.ttft_band else None

    @property
    def power_band(self) -> Band:
        """The band printed with the power of an accelerator."""
        power = self.accelerator.power
        return Band.of_error(power.expert_band if self.model.experts else power.band)


@cache
def replica_of(
    model: str,
    gpu: str,
    backend: str,
    precision: str,
    tensor_parallel: int,
    *,
    bare: bool = False,
    kv_dtype: str = "bf16",
    engine: str = "",
    version: str = "",
    date: str = "",
) -> Replica:
    """Return the replica that the names of a row stand for.

    Parameters
    ----------
    model, gpu, backend, precision : as in the table. bare : kernels alone, without the engine's share of a step.
    engine : catalog name of an engine, in place of the backend's. version, date : of the backend, as in `engine_of`.

    Raises
    ------
    NotCoveredError : the catalog has no such model, chip, engine or fit, or the model cannot be split like this.
    """
    catalog = load_catalog()
    chip, name = chip_of(gpu, catalog), model_of(model, catalog)
    if chip is None:
        raise NotCoveredError(f"no chip {gpu!r} in the catalog")
    if name is None:
        raise NotCoveredError(f"no model {model!r} in the catalog")
    weight_dtype = weight_type_of(precision, model, chip, catalog)
    if weight_dtype is None:
        raise NotCoveredError(f"no weight type {precision!r}")
    own = engine or engine_of(backend, chip, catalog, version, date)
    if own is None:
        raise NotCoveredError(f"no engine {backend!r} in the catalog")
    row = catalog.engines[own]
    fit = _fit(catalog, chip, row, weight_dtype)
    if bare:
        row = replace(catalog.engines["bare"], kernels=row.kernels)
    return built(catalog.models[name], catalog.accelerators[chip], fit, row, weight_dtype, kv_dtype, tensor_parallel)


def built(
    model: Model, accelerator: Accelerator, fit: StepFit, engine: Engine, weight_dtype: str, kv_dtype: str, tensor_parallel: int
) -> Replica:
    """Return a replica of catalog rows.

    Raises
    ------
    NotCoveredError : the model cannot be split like this, or not in this arithmetic.
    """
    try:
        step = step_model(
            model, accelerator, fit, engine, weight_dtype=weight_dtype, kv_dtype=kv_dtype, tensor_parallel=tensor_parallel
        )
    except InputError as error:
        raise NotCoveredError(f"{accelerator.name}, tensor parallel {tensor_parallel}, {weight_dtype}: not modelled") from error
    return Replica(model, accelerator, fit, engine, weight_dtype, kv_dtype, tensor_parallel, step)


def _fit(catalog: Catalog, chip: str, engine: Engine, weight_dtype: str) -> StepFit:
    fit = catalog.fit(chip, engine, weight_dtype, "weight_dtype", Problems())
    if fit is None:
        raise NotCoveredError(f"no step times of {engine.kernels} kernels on {chip} in {weight_dtype}")
    return fit
