"""What the rows of batch models and of their efficiencies must say, beyond the types of their fields."""

from __future__ import annotations

from collections.abc import Collection

from sim.domain.batch_models import DTYPES, FAMILIES, BatchFit, BatchModel
from sim.errors import Problems

CLASSES = ("gpu", "cpu")
# Names of server processors begin so, whether of the catalog or of a user's file.
PROCESSORS = ("xeon-", "epyc-", "graviton-", "cpu-")


def accelerator_class(accelerator: str) -> str:
    """Return "cpu" for a server's processors by their name, and "gpu" for everything else.

    Examples
    --------
    >>> accelerator_class("xeon-emr-2s"), accelerator_class("h200-sxm")
    ('cpu', 'gpu')
    """
    return "cpu" if accelerator.startswith(PROCESSORS) else "gpu"


def check_batch_model(row: BatchModel, path: str, problems: Problems) -> None:
    """Record an unknown family or type, and a model without any work.

    Parameters
    ----------
    path : dotted path of the row, the start of the problems' paths.
    """
    problems.check(row.family in FAMILIES, f"{path}.family", row.family, "no such family", choices=FAMILIES)
    _check_dtypes(row.dtypes, path, problems)
    work = row.flops_per_item + row.gather_elements_per_item
    problems.check(work > 0, f"{path}.flops_per_item", row.flops_per_item, "an item takes no work", "operations or gathers above 0")
    problems.check(row.weight_reads >= 1, f"{path}.weight_reads", row.weight_reads, "out of range", "at least 1")
    # The peak beside fp32 is that of matrices in bf16: only a model without operations may ignore it.
    wide = "fp32" in row.dtypes and row.flops_per_item > 0
    problems.check(not wide, f"{path}.dtypes", "fp32", "is for models without matrix operations", "bf16, fp8, int8")


def check_batch_fit(row: BatchFit, name: str, path: str, accelerators: Collection[str], problems: Problems) -> None:
    """Record a key of no accelerator, class or family, and shares out of range.

    Parameters
    ----------
    name : key of the row. accelerators : names in the catalog.
    """
    parts = name.split("/")
    if problems.check(len(parts) == 2, path, name, "not a key", "accelerator/family, gpu/family or cpu/family"):
        choices = (*CLASSES, *accelerators)
        problems.check(parts[0] in choices, path, parts[0], "no such row in accelerators, and no class", choices=choices)
        problems.check(parts[1] in FAMILIES, path, parts[1], "no such family", choices=FAMILIES)
    _check_dtypes(row.dtypes, path, problems)
    problems.check(row.overlap <= 1, f"{path}.overlap", row.overlap, "out of range", "0 to 1")
    problems.check(row.eta_compute <= 1, f"{path}.eta_compute", row.eta_compute, "out of range", "above 0, at most 1")
    problems.check(0 < row.band < 1, f"{path}.band", row.band, "out of range", "above 0, below 1")


def _check_dtypes(dtypes: tuple[str, ...], path: str, problems: Problems) -> None:
    for index, dtype in enumerate(dtypes):
        problems.check(dtype in DTYPES, f"{path}.dtypes[{index}]", dtype, "not a type of a batch model", choices=DTYPES)
