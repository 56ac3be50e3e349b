"""What would make a model fit: changes of settings and other accelerators, tried one by one and named as they would be typed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sim.catalog.loader import Catalog
from sim.domain.hardware import Accelerator, Engine, InstanceType
from sim.domain.models import Model
from sim.errors import Problems
from sim.perf.roofline import WEIGHT_TYPES

PIPELINE_STAGES = (2, 4, 8, 16, 32)
# Seats and token budgets below these make no sensible server; more of either is given up only for that.
LEAST_SEATS = 8
# The cloud of machines that are bought: they are no remedy for tomorrow.
OWN = "own"
LEAST_STEP_TOKENS = 512


@dataclass(frozen=True)
class ServingSetup:
    """What decides the memory of a replica, beside model and engine.

    Parameters
    ----------
    weight_dtype, kv_dtype : types of weights and cache. tensor_parallel, pipeline_parallel : splits.
    max_num_batched_tokens, max_num_seqs : token budget and seats of a step. kv_reference_tokens : length of the sequences for which
        the cache is counted.
    """

    accelerator: Accelerator
    weight_dtype: str
    kv_dtype: str
    tensor_parallel: int
    pipeline_parallel: int
    max_num_batched_tokens: int
    max_num_seqs: int
    kv_reference_tokens: int


Fits = Callable[[ServingSetup], bool]
Changes = dict[str, str | int]


def tensor_parallel_degrees(model: Model, accelerator: Accelerator) -> tuple[int, ...]:
    """Return the degrees at which a model can be split over accelerators of this kind.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> catalog = load_catalog()
    >>> tensor_parallel_degrees(catalog.models["llama-3.1-8b"], catalog.accelerators["l4"])
    (1, 2, 4)
    """
    return tuple(degree for degree in accelerator.degrees if model.heads % degree == 0)


def serving_remedies(
    model: Model,
    engine: Engine,
    given: ServingSetup,
    fits: Fits,
    least_gib: float,
    catalog: Catalog | None = None,
    most_tensor_parallel: int | None = None,
) -> tuple[str, ...]:
    """List what would leave room for a cache: single changes, the smallest of each kind; pairs where no single change is enough.

    Parameters
    ----------
    given : the setup that does not fit. fits : whether another one does. least_gib : memory that an accelerator must expose.
    catalog : offers only types that have step times there, and names an accelerator; None for neither.
    most_tensor_parallel : accelerators of the machine; None for no limit.

    Returns
    -------
    Texts of the form `key=value` or `key=value key=value`, then accelerators.
    """
    types = list(_lighter_types(given, engine, catalog))
    larger = [degree for degree in tensor_parallel_degrees(model, given.accelerator) if degree > given.tensor_parallel]
    degrees = [degree for degree in larger if degree <= (most_tensor_parallel or degree)]
    stages = [count for count in PIPELINE_STAGES if given.pipeline_parallel < count <= model.layers]
    found = [f"weight_dtype={name}" for name in types if fits(replace(given, weight_dtype=name))]
    machines = _machines(larger, degrees, given.accelerator, catalog)
    found += _changed([{"tensor_parallel": degree} for degree in machines], machines, given, fits)
    if not found:
        pairs: list[Changes] = [{"weight_dtype": name, "tensor_parallel": degree} for name in types for degree in machines]
        found += _changed(pairs, machines, given, fits)
    found += _smaller_steps(given, fits)
    found += _changed([{"pipeline_parallel": count} for count in stages], machines, given, fits)
    if not found:
        widest = degrees[-1:] or [given.tensor_parallel]
        found += _changed(
            [{"tensor_parallel": degree, "pipeline_parallel": count} for degree in widest for count in stages],
            machines,
            given,
            fits,
        )
    bigger = _bigger_accelerator(model, engine, given, fits, catalog)
    needed = (
        f"an accelerator that exposes at least {least_gib:.1f} GiB ({given.accelerator.name}: {given.accelerator.usable_gib:g})"
    )
    return (*found, bigger or needed)


def _lighter_types(given: ServingSetup, engine: Engine, catalog: Catalog | None) -> Iterator[str]:
    """Yield the weight types with fewer bytes that the accelerator can compute with, as far as is known, the heaviest first."""
    for name, (size, arithmetic) in WEIGHT_TYPES.items():
        lighter = size < WEIGHT_TYPES[given.weight_dtype][0] and arithmetic in given.accelerator.dense_tflops
        if lighter and (catalog is None or _has_step_times(given.accelerator.name, engine, name, catalog)):
            yield name


def _has_step_times(accelerator: str, engine: Engine, weight_dtype: str, catalog: Catalog) -> bool:
    return catalog.fit(accelerator, engine, weight_dtype, "", Problems()) is not None


def _machines(larger: list[int], within: list[int], accelerator: Accelerator, catalog: Catalog | None) -> dict[int, str]:
    """Return the degrees to try, each with the machine that it needs beyond the given one: "" for none."""
    found = dict.fromkeys(within, "")
    if catalog is None:
        return found
    for degree in larger:
        machine = cheapest_instance(accelerator.name, degree, catalog)
        if degree not in found and machine is not None:
            found[degree] = f" on a machine with as many, for instance {machine.name}"
    return found


def _changed(candidates: Sequence[Changes], machines: Mapping[int, str], given: ServingSetup, fits: Fits) -> list[str]:
    """Return the first of several changes that fits, as a list of at most one text."""
    for changes in candidates:
        if fits(replace(given, **changes)):  # type: ignore[arg-type]
            typed = " ".join(f"{key}={value}" for key, value in changes.items())
            return [typed + machines.get(int(changes.get("tensor_parallel", 0)), "")]
    return []


def _smaller_steps(given: ServingSetup, fits: Fits) -> list[str]:
    """Return the largest token budget, else the most seats, else both, that leave room; each halved until they do."""
    budgets = list(_halves(given.max_num_batched_tokens, LEAST_STEP_TOKENS))
    seats = list(_halves(given.max_num_seqs, LEAST_SEATS))
    for budget in budgets:
        if budget >= given.max_num_seqs and fits(replace(given, max_num_batched_tokens=budget)):
            return [f"max_num_batched_tokens={budget}"]
    for count in seats:
        if fits(replace(given, max_num_seqs=count)):
            return [f"max_num_seqs={count}"]
    for count in seats:
        for budget in budgets:
            if budget >= count and fits(replace(given, max_num_seqs=count, max_num_batched_tokens=budget)):
                return [f"max_num_seqs={count} max_num_batched_tokens={budget}"]
    return []


def _halves(value: int, least: int) -> Iterator[int]:
    while value // 2 >= least:
        value //= 2
        yield value


def _bigger_accelerator(model: Model, engine: Engine, given: ServingSetup, fits: Fits, catalog: Catalog | None) -> str:
    """Name the smallest accelerator of the catalog on which the same settings fit, else with the degree that its machines have."""
    if catalog is None:
        return ""
    able = [each for each in catalog.accelerators.values() if _comparable(each, engine, given, catalog)]
    able.sort(key=lambda each: (each.usable_gib, each.name))
    for each in able:
        same = given.tensor_parallel in tensor_parallel_degrees(model, each)
        if same and fits(replace(given, accelerator=each)):
            return _named(each, cheapest_instance(each.name, given.tensor_parallel, catalog))
    for each in able:
        for degree in tensor_parallel_degrees(model, each):
            machine = cheapest_instance(each.name, degree, catalog)
            if machine is not None and fits(replace(given, accelerator=each, tensor_parallel=degree)):
                return f"tensor_parallel={degree} on {_named(each, machine)}"
    return ""


def _comparable(accelerator: Accelerator, engine: Engine, given: ServingSetup, catalog: Catalog) -> bool:
    """Return whether an accelerator can stand in for the given one: its arithmetic, step times, and no computer of its own."""
    of_a_kind = accelerator.link != "none" or given.accelerator.link == "none"
    able = of_a_kind and WEIGHT_TYPES[given.weight_dtype][1] in accelerator.dense_tflops
    return able and _has_step_times(accelerator.name, engine, given.weight_dtype, catalog)


def _named(accelerator: Accelerator, machine: InstanceType | None) -> str:
    rented = "" if machine is None else f", for instance {machine.name}"
    return f"a larger accelerator: {accelerator.name} ({accelerator.usable_gib:g} GiB{rented})"


def cheapest_instance(accelerator: str, at_least: int, catalog: Catalog) -> InstanceType | None:
    """Return the machine to rent with at least so many of an accelerator that has the lowest latest price, or None.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> found = cheapest_instance("a10g", 1, load_catalog())
    >>> found.name
    'g5.xlarge'
    """
    priced = [
        (min(float(prices[-1].usd_per_hour) for prices in instance.on_demand.values()), instance.name)
        for instance in catalog.instances.values()
        if instance.accelerator == accelerator
        and instance.accelerators >= at_least
        and instance.cloud != OWN
        and instance.on_demand
    ]
    return catalog.instances[min(priced)[1]] if priced else None
