"""Deployments of models that are not LLMs: their dynamic batcher, and the check of what belongs to one and what does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from sim.catalog.loader import Catalog
from sim.domain.batch_models import BatchFit, BatchModel
from sim.domain.hardware import Accelerator
from sim.errors import Problems
from sim.perf.batch_roofline import BatchMemory, batch_arithmetic, batch_memory, fit_validity, resident_bytes
from sim.perf.batchtime import batch_step_model, line_fx, roofline_step_model, table_fx
from sim.perf.steptime import StepModel
from sim.units import BYTES_PER_GIB, duration_ns

MOST_ITEMS = 65_536
LONGEST_BATCH_S = 3_600.0
LONGEST_DELAY_S = 60.0
MOST_WEIGHTS_GB = 10_000.0
# Settings of a deployment that say something about an LLM or its engine.
LLM_SETTINGS = (
    "model",
    "engine",
    "weight_dtype",
    "kv_dtype",
    "tensor_parallel",
    "pipeline_parallel",
    "max_num_seqs",
    "max_num_batched_tokens",
    "max_model_len",
    "watermark_tokens",
    "kv_tokens",
    "kv_reference_tokens",
    "backlog_seats",
    "perf",
    "step_table",
)


@dataclass(frozen=True)
class ServedModel:
    """A batch model of the catalog as it runs on one accelerator.

    Parameters
    ----------
    dtype : type in which it is served. weight_bytes : weights and tables, which a cold start loads. memory : of the accelerator.
    validity : "fitted", "transferred" or "assumed", of its times.
    """

    model: BatchModel
    fit: BatchFit
    dtype: str
    weight_bytes: float
    memory: BatchMemory
    validity: str


@dataclass
class DynamicBatcher:
    """A model that is not an LLM, on one accelerator a replica, behind the dynamic batcher of the Triton inference server.

    Its time comes from the roofline of a model of the catalog (`model`), or is measured: `batch_times`, or `fixed_s` and
    `per_item_s`. With `model`, power, size and memory come from it as well.

    Parameters
    ----------
    model : catalog name of a batch model, or "". dtype : type in which it is served; "" takes the model's first that the
        accelerator computes.
    max_batch : items in the largest batch. preferred_sizes : sizes to send at once; none is `max_batch`.
    max_delay_s : how long the oldest request may wait for others.
    batch_times : items -> duration of a batch of so many, from 1 to `max_batch`, linear between two.
    fixed_s, per_item_s : the time of a batch as a line instead.
    compute_use, memory_use : share of the accelerator's peak operations (of a full batch) and bandwidth that are used; 0 counts the
        base power of an accelerator at work alone, which is a lower bound.
    weights_gb : size of the model, 1e9 bytes, which `loading` moves and which must fit into the accelerator.
    front_end_s : front-end and network time added to every latency.
    """

    model: str = ""
    dtype: str = ""
    max_batch: int = 8
    preferred_sizes: list[int] = field(default_factory=list)
    max_delay_s: float = 0.0
    batch_times: dict[str, str] = field(default_factory=dict)
    fixed_s: float | None = None
    per_item_s: float | None = None
    compute_use: float = 0.0
    memory_use: float = 0.0
    weights_gb: float = 0.1
    front_end_s: float = 0.0

    def times_fx(self) -> tuple[int, ...]:
        """Return the fixed-point time of a batch of n items at n - 1."""
        if self.batch_times:
            return table_fx({int(items): duration_ns(time) for items, time in self.batch_times.items()})
        return line_fx(self.fixed_s or 0.0, self.per_item_s or 0.0, self.max_batch)

    def step_model(self, accelerator: Accelerator, served: ServedModel | None) -> StepModel:
        """Return the step model of a replica on an accelerator; `served` is `self.served` there."""
        if served is not None:
            return roofline_step_model(served.model, accelerator, served.fit, served.dtype, self.max_batch)
        return batch_step_model(self.times_fx(), accelerator, compute_use=self.compute_use, memory_use=self.memory_use)

    def served(self, accelerator: Accelerator, catalog: Catalog) -> ServedModel | None:
        """Return the model of the catalog as it runs on an accelerator, None where times are the scenario's.

        Raises
        ------
        KeyError : no such model, or no type that both have (`check_model` reports those before).
        """
        if not self.model:
            return None
        model = catalog.batch_models[self.model]
        dtype = batch_arithmetic(model, accelerator, self.dtype)
        if dtype is None:
            raise KeyError(f"{self.model} in {self.dtype or model.dtypes} on {accelerator.name}")
        fit = catalog.batch_fit(accelerator.name, model.family)
        memory = batch_memory(model, accelerator, dtype, self.max_batch)
        return ServedModel(model, fit, dtype, resident_bytes(model, dtype), memory, fit_validity(fit, accelerator, dtype))

    def problems(self, path: str, problems: Problems) -> None:
        """Add everything that is wrong with the settings."""
        most = self.max_batch
        sound = problems.check(1 <= most <= MOST_ITEMS, f"{path}.max_batch", most, "is out of range", f"1 to {MOST_ITEMS}")
        for index, size in enumerate(self.preferred_sizes if sound else []):
            where = f"{path}.preferred_sizes[{index}]"
            problems.check(1 <= size <= most, where, size, "is not the size of a batch", f"1 to {most}")
        bounds = (
            ("max_delay_s", self.max_delay_s, LONGEST_DELAY_S),
            ("compute_use", self.compute_use, 1.0),
            ("memory_use", self.memory_use, 1.0),
            ("weights_gb", self.weights_gb, MOST_WEIGHTS_GB),
            ("front_end_s", self.front_end_s, LONGEST_DELAY_S),
        )
        for name, value, high in bounds:
            problems.check(0 <= value <= high, f"{path}.{name}", value, "is out of range", f"0 to {high:g}")
        self._check_times(path, sound, problems)

    def _check_times(self, path: str, sound: bool, problems: Problems) -> None:
        if self.model:
            self._check_only_model(path, problems)
            return
        problems.check(not self.dtype, f"{path}.dtype", self.dtype, "is of a model of the catalog", "model, or unset")
        line = {"fixed_s": self.fixed_s, "per_item_s": self.per_item_s}
        given = {name: value for name, value in line.items() if value is not None}
        message = "the time of a batch is given in two ways" if given else "no time of a batch is given"
        one_way = bool(self.batch_times) != bool(given)
        allowed = "model, batch_times, or fixed_s and per_item_s"
        if not problems.check(one_way, f"{path}.batch_times", self.batch_times, message, allowed):
            return
        for name, value in given.items():
            within = 0 <= value <= LONGEST_BATCH_S
            problems.check(within, f"{path}.{name}", value, "is out of range", f"0 to {LONGEST_BATCH_S:g}")
        if given:
            alone_s = sum(given.values())
            problems.check(not alone_s < 1e-9, f"{path}.per_item_s", alone_s, "a batch of one item takes no time", "1 ns or more")
        elif sound:
            self._check_table(f"{path}.batch_times", problems)

    def _check_only_model(self, path: str, problems: Problems) -> None:
        """Record what a model of the catalog brings along and is set all the same."""
        unset = DynamicBatcher()
        for name in ("batch_times", "fixed_s", "per_item_s", "compute_use", "memory_use", "weights_gb"):
            value = getattr(self, name)
            same = value == getattr(unset, name)
            problems.check(same, f"{path}.{name}", value, f"comes from the catalog with model: {self.model}", "unset, or no model")

    def _check_table(self, path: str, problems: Problems) -> None:
        times_ns: dict[int, int] = {}
        for items, time in self.batch_times.items():
            where = f"{path}.{items}"
            number = int(items) if items.isascii() and items.isdigit() and len(items) < 9 else 0
            known = problems.check(
                1 <= number <= self.max_batch, where, items, "is not the size of a batch", f"1 to {self.max_batch}"
            )
            try:
                time_ns = duration_ns(time)
            except ValueError as error:
                problems.add(where, time, str(error), "for instance 4 ms")
                continue
            longest = f"1ns to {LONGEST_BATCH_S:g}s"
            if problems.check(1 <= time_ns <= LONGEST_BATCH_S * 1e9, where, time, "is out of range", longest) and known:
                times_ns[number] = time_ns
        if len(times_ns) < len(self.batch_times):
            return
        for size in (1, self.max_batch):
            problems.check(size in times_ns, f"{path}.{size}", "", "there is no time of a batch of so many", "a duration")
        sizes = sorted(times_ns)
        for low, high in pairwise(sizes):
            message = f"is less than the time of {low} items"
            shorter = times_ns[high] < times_ns[low]
            problems.check(not shorter, f"{path}.{high}", self.batch_times.get(str(high), ""), message, "as long or longer")


def check_no_llm_settings(path: str, deployment: Any, defaults: Any, problems: Problems) -> None:
    """Add every setting that means something only for an LLM and was changed beside a batcher.

    Parameters
    ----------
    deployment : with a batcher. defaults : one as it is without any setting.
    """
    for name in LLM_SETTINGS:
        value = getattr(deployment, name)
        problems.check(
            value == getattr(defaults, name), f"{path}.{name}", value, "is of an LLM; this deployment has a batcher", "unset"
        )


def check_fits(path: str, batcher: DynamicBatcher, accelerators: Mapping[str, Accelerator], problems: Problems) -> None:
    """Add a problem for each accelerator on which the weights of a model of one's own do not fit."""
    for name, accelerator in accelerators.items():
        most_gb = accelerator.usable_gib * BYTES_PER_GIB / 1e9
        fits = batcher.weights_gb <= most_gb
        problems.check(fits, f"{path}.weights_gb", batcher.weights_gb, f"does not fit on a {name}", f"at most {most_gb:.1f}")


def check_model(
    path: str, batcher: DynamicBatcher, accelerators: Mapping[str, Accelerator], catalog: Catalog, problems: Problems
) -> None:
    """Add a problem for an unknown model or type, and for each accelerator that cannot compute or hold it, with what would.

    Parameters
    ----------
    path : dotted path of the batcher. accelerators : of its pools, by name.
    """
    model: BatchModel | None = catalog.get("batch_models", batcher.model, f"{path}.model", problems)
    if model is None:
        return
    where = f"{path}.dtype"
    if batcher.dtype and not problems.check(
        batcher.dtype in model.dtypes, where, batcher.dtype, f"is no type of {model.name}", choices=model.dtypes
    ):
        return
    for name, accelerator in accelerators.items():
        dtype = batch_arithmetic(model, accelerator, batcher.dtype)
        if dtype is None:
            wanted = batcher.dtype or ", ".join(model.dtypes)
            problems.add(where, wanted, f"{name} does not compute it", ", ".join(sorted(accelerator.dense_tflops)))
        elif 1 <= batcher.max_batch <= MOST_ITEMS:
            memory = batch_memory(model, accelerator, dtype, batcher.max_batch)
            message = f"{memory.taken_bytes / BYTES_PER_GIB:.1f} GiB with its largest batch do not fit on a {name}"
            problems.check(memory.fits, f"{path}.model", model.name, message, " or ".join(memory.remedies))
