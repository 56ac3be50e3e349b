"""What would make a training job fit: single changes of its setup, else the shortest list of them, and accelerators by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sim.catalog.loader import Catalog
from sim.domain.hardware import Accelerator
from sim.domain.models import Model
from sim.errors import Problems
from sim.perf.remedies import cheapest_instance
from sim.perf.training import peak_flops_per_s
from sim.perf.training_memory import RECOMPUTE, ZERO_STAGES, TrainingSetup, check_setup, training_memory

MOST_DOUBLINGS = 12
ADAPTER_RANK = 16
Changes = dict[str, object]


def training_remedies(
    model: Model, accelerator: Accelerator, setup: TrainingSetup, catalog: Catalog | None = None
) -> tuple[str, ...]:
    """List what would make a job fit that does not: single changes first; where none is enough, the fewest of them together.

    Parameters
    ----------
    catalog : names the smallest accelerator on which the same setup fits; None for no name.

    Returns
    -------
    Texts of the form `zero=3` or `zero=3 recompute=full`, as they would be typed; empty where nothing here is enough.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> catalog = load_catalog()
    >>> llama, h100 = catalog.models["llama-3.1-8b"], catalog.accelerators["h100-sxm"]
    >>> training_remedies(llama, h100, TrainingSetup(accelerators=8, zero=0, micro_batch=4))
    ('tensor_parallel=4',)
    >>> training_remedies(catalog.models["llama-3.1-70b"], h100, TrainingSetup(accelerators=8))
    ('zero=3 recompute=full tensor_parallel=8 accelerators=16', 'lora_rank=16 zero=3 recompute=full')
    """
    singles = list(_singles(model, accelerator, setup))
    found: list[Changes] = []
    for changes in singles:
        known = any(set(other) == set(changes) for other in found)  # the smallest change of a setting is enough
        if not known and _fits(model, accelerator, setup, changes):
            found.append(changes)
    if not any("lora_rank" not in changes for changes in found):
        together = _together(model, accelerator, setup)
        found += [together] if together else []
    for kind in RECOMPUTE[RECOMPUTE.index(setup.recompute) :] if not setup.lora_rank else ():
        wanted = {"zero": 3, "recompute": kind}
        adapters: Changes = {"lora_rank": ADAPTER_RANK} | {key: item for key, item in wanted.items() if getattr(setup, key) != item}
        if not any("lora_rank" in changes for changes in found) and _fits(model, accelerator, setup, adapters):
            fewest = _pruned(model, accelerator, setup, adapters)
            found += [fewest] if "lora_rank" in fewest else []
    texts = [_typed(changes) for changes in found]
    bigger = _bigger(model, accelerator, setup, catalog)
    return (*texts, *bigger)


def _singles(model: Model, accelerator: Accelerator, setup: TrainingSetup) -> Iterator[Changes]:
    """Yield changes of one setting, from the one that costs least time or money to the ones that cost most."""
    for stage in ZERO_STAGES:
        if stage > setup.zero and setup.data_parallel > 1:
            yield {"zero": stage}
    if setup.tensor_parallel > 1 and not setup.sequence_parallel:
        yield {"sequence_parallel": True}
    for kind in RECOMPUTE[RECOMPUTE.index(setup.recompute) + 1 :]:
        yield {"recompute": kind}
    size = setup.micro_batch
    while size > 1:
        size //= 2
        yield {"micro_batch": size}
    for degree in accelerator.degrees:
        if degree > setup.tensor_parallel:
            yield {"tensor_parallel": degree}
    if model.experts:
        yield from ({"expert_parallel": setup.expert_parallel * 2**power} for power in range(1, MOST_DOUBLINGS))
    yield from ({"pipeline_parallel": setup.pipeline_parallel * 2**power} for power in range(1, 8))
    if setup.zero:
        yield from ({"accelerators": setup.accelerators * 2**power} for power in range(1, MOST_DOUBLINGS))
    if not setup.lora_rank:
        yield {"lora_rank": ADAPTER_RANK}


def _fits(model: Model, accelerator: Accelerator, setup: TrainingSetup, changes: Changes) -> bool:
    """Return whether a changed setup is one that can be, and fits."""
    changed = replace(setup, **changes)  # type: ignore[arg-type]
    problems = Problems()
    check_setup(model, changed, problems)
    most = accelerator.most_in_one_job
    possible = not len(problems) and (not most or changed.accelerators <= most)
    return possible and training_memory(model, accelerator, changed).fits


def _together(model: Model, accelerator: Accelerator, setup: TrainingSetup) -> Changes:
    """Return changes that fit together: added one by one until they do; then those are left out that can be."""
    steps: list[Changes] = [{"zero": 3}, {"micro_batch": 1}, {"recompute": "full"}]
    within = [degree for degree in accelerator.degrees if degree > setup.tensor_parallel and model.heads % degree == 0]
    steps += [{"tensor_parallel": degree, "sequence_parallel": True} for degree in within]
    if model.experts:
        steps += [{"expert_parallel": setup.expert_parallel * 2**power} for power in range(1, MOST_DOUBLINGS)]
    steps += [{"accelerators": setup.accelerators * 2**power} for power in range(1, MOST_DOUBLINGS)]
    changes: Changes = {}
    for step in steps:
        if all(getattr(setup, key) == value for key, value in step.items()):
            continue
        changes = {**changes, **step}
        if _fits(model, accelerator, setup, changes):
            return _pruned(model, accelerator, setup, changes)
    return {}


def _pruned(model: Model, accelerator: Accelerator, setup: TrainingSetup, changes: Changes) -> Changes:
    """Leave out every change without which the others still fit, and take the lowest stage of ZeRO that is enough."""
    for key in changes:
        fewer = {name: value for name, value in changes.items() if name != key}
        if fewer and _fits(model, accelerator, setup, fewer):
            return _pruned(model, accelerator, setup, fewer)
    if "zero" in changes:
        for stage in ZERO_STAGES:
            lower = {**changes, "zero": stage}
            if stage > setup.zero and _fits(model, accelerator, setup, lower):
                return lower
    return changes


def _typed(changes: Changes) -> str:
    return " ".join(f"{key}={str(value).lower()}" for key, value in changes.items())


def _bigger(model: Model, accelerator: Accelerator, setup: TrainingSetup, catalog: Catalog | None) -> list[str]:
    """Name the smallest accelerator, no slower than the given one, on which the setup fits, and the cheapest machine with it."""
    if catalog is None:
        return []
    least = peak_flops_per_s(accelerator, setup.recipe)
    for each in sorted(catalog.accelerators.values(), key=lambda each: (each.usable_gib, each.name)):
        # A computer of its own is no larger accelerator.
        able = each.link != "none" and peak_flops_per_s(each, setup.recipe) >= least and setup.tensor_parallel in each.degrees
        if able and _fits(model, each, setup, {}):
            instance = cheapest_instance(each.name, setup.tensor_parallel, catalog)
            machine = "" if instance is None else f", for instance {instance.name}"
            return [f"a larger accelerator: {each.name} ({each.usable_gib:g} GiB{machine})"]
    return []
