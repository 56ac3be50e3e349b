"""Names in measured tables, and the catalog rows that they stand for."""

from __future__ import annotations

import re

from sim.catalog.loader import Catalog
from sim.perf.roofline import WEIGHT_TYPES

# Other names of one and the same architecture, squeezed: fine-tuned, renumbered or written differently.
SAME_ARCHITECTURE = (
    (r"^metallama", "llama"),
    (r"^llama33(?=70b)", "llama31"),
    (r"^llama3(?=8b|70b)", "llama31"),
    (r"^llama(?=7b|13b|70b)", "llama2"),
    (r"^deepseek(r1|v31)$", "deepseekv3"),
    (r"^minimaxm2\d*$", "minimaxm2"),
)
# Words of a name that say how a model was trained, quantized or measured, not what it is made of.
OTHER_WORDS = {"instruct", "chat", "it", "hf", "thinking", "2507", "0528", "0324", "99", "99.9", "v0.1", "v0.2", "v0.3"}
OTHER_WORDS |= {"fp8", "nvfp4", "fp4", "mxfp4", "bf16", "int4", "int8", "awq", "gptq", "w8a8", "w4a16"}
SIZES = r"(\d+b)?(\d+e|a\d+b)?"
# Words of a chip's name that do not tell it from another one of the catalog.
CHIP_WORDS = {"sxm", "dgx", "nvidia", "gpu", "80gb", "80", "141gb", "180gb", "48gb", "192gb", "nvl"}
CHIP_WORDS |= {"sxm4", "sxm5", "hbm3", "hbm3e"}  # as nvidia-smi prints them
PRECISIONS = {
    "bfloat16": "bf16",
    "bf16": "bf16",
    "fp16": "bf16",
    "float16": "bf16",
    "fp8": "fp8",
    "fp8_block": "fp8",
    "sq": "w8a8",
    "w8a8": "w8a8",
    "int8_wo": "int8_wo",
    "int4_wo": "int4_wo",
    "nvfp4": "nvfp4",
    "fp4": "nvfp4",
    "mxfp4": "mxfp4",
}
NATIVE_EXPERTS = ("gptoss",)
ENGINES = {"vllm": "vllm-2026", "trtllm": "trtllm-1", "sglang": "sglang-0.5"}
# Generations of an engine that are rows of their own: up to, and not with, this version; rows without one go by their date.
OLDER = {"vllm": ((0, 17), "2026-03", "vllm-2025")}
HOPPER, BLACKWELL = ("h100", "h200"), ("b200", "b300", "gb200", "gb300")


def squeezed(name: str) -> str:
    """Return a name in lower case without separators.

    Examples
    --------
    >>> squeezed("Llama-3.1_8B")
    'llama318b'
    """
    return re.sub(r"[^a-z0-9]", "", name.lower())


def model_of(name: str, catalog: Catalog) -> str | None:
    """Return the catalog's name of a model, None where there is none.

    Parameters
    ----------
    name : as in a table: a Hugging Face path, a name of aiconfigurator, of Vidur or of MLPerf.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> catalog = load_catalog()
    >>> [model_of(name, catalog) for name in ("meta-llama/Llama-3.1-8B-Instruct", "llama2-70b-99", "Qwen/Qwen3-32B-FP8")]
    ['llama-3.1-8b', 'llama-2-70b', 'qwen3-32b']
    >>> model_of("someone/unheard-of-3b", catalog) is None
    True
    """
    words = re.split(r"[-_]", name.rsplit("/", 1)[-1].lower())
    wanted = squeezed("".join(word for word in words if word not in OTHER_WORDS))
    known = {squeezed(row): row for row in catalog.models}
    spellings = [wanted, *(re.sub(pattern, same, wanted) for pattern, same in SAME_ARCHITECTURE)]
    for spelling in spellings:
        if spelling in known:
            return known[spelling]
    # "bloom-176b" and "bloom", "llama-4-scout-17b-16e" and "llama-4-scout": the size is in one of the names only.
    for spelling in spellings:
        near = [
            row
            for key, row in known.items()
            if re.fullmatch(re.escape(key) + SIZES, spelling) or re.fullmatch(re.escape(spelling) + SIZES, key)
        ]
        if len(near) == 1:
            return near[0]
    return None


def chip_of(name: str, catalog: Catalog) -> str | None:
    """Return the catalog's name of an accelerator, None where there is none.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> [chip_of(name, load_catalog()) for name in ("H100", "a100-80gb", "a100_dgx", "b200_sxm", "h100_pcie", "xpu")]
    ['h100-sxm', 'a100-sxm-80', 'a100-sxm-80', 'b200-sxm', 'h100-pcie', None]
    """
    words = re.split(r"[-_ ]", name.lower())
    if name in catalog.accelerators:
        return name
    plain = [word for word in words if word not in CHIP_WORDS]
    found = [row for row in catalog.accelerators if [word for word in row.split("-") if word not in CHIP_WORDS] == plain]
    # Of the boards of one chip, the one with the faster link and the larger memory: tables that mean another say so.
    found.sort(key=lambda row: (-catalog.accelerators[row].link_gb_per_s, -catalog.accelerators[row].memory_gib))
    return found[0] if found else None


def weight_type_of(precision: str, model: str, chip: str, catalog: Catalog) -> str | None:
    """Return the weight type of a row: its precision, or what its model's name says, or bf16 where neither does.

    Four-bit weights of chips without such arithmetic are read in four bits and computed in 16. Models that come with experts in
    mxfp4 have them, whatever a table says of the rest; of the rest, only 16 bits are modelled.

    Parameters
    ----------
    precision : as in the table, may be empty. model : as in the table. chip : catalog name.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> rows = (("", "Qwen3-8B-FP8", "h100-sxm"), ("", "Qwen3-8B", "h100-sxm"), ("?", "a", "l4"))
    >>> [weight_type_of(*row, load_catalog()) for row in rows]
    ['fp8', 'bf16', None]
    """
    said = precision.lower() or next((kind for kind in ("nvfp4", "mxfp4", "fp8") if kind in model.lower()), "bf16")
    kind = PRECISIONS.get(said)
    if squeezed(model.rsplit("/", 1)[-1]).startswith(NATIVE_EXPERTS):
        return "mxfp4" if kind in ("bf16", "mxfp4") else None
    if kind in WEIGHT_TYPES and WEIGHT_TYPES[kind][1] == "fp4" and "fp4" not in catalog.accelerators[chip].dense_tflops:
        return "int4_wo"
    return kind


def engine_of(backend: str, chip: str, catalog: Catalog, version: str = "", date: str = "") -> str | None:
    """Return the catalog's engine row of a backend on a chip, None where there is none.

    Parameters
    ----------
    backend, version : as in the table; a version that is no number is a recent one. chip : catalog name. date : ISO date, of a row
        without a version.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> catalog = load_catalog()
    >>> engine_of("vllm", "h100-sxm", catalog), engine_of("vllm", "b200-sxm", catalog), engine_of("x", "l4", catalog)
    ('vllm-2026', 'vllm-2026-b200', None)
    >>> engine_of("vllm", "h100-sxm", catalog, version="0.12.0"), engine_of("vllm", "h100-sxm", catalog, date="2025-10-29")
    ('vllm-2025', 'vllm-2025')
    """
    backend = squeezed(backend)
    base = ENGINES.get(backend)
    if base is None:
        return None
    if backend in OLDER:
        newer, since, older = OLDER[backend]
        numbers = re.match(r"(\d+)\.(\d+)", version)
        old = (int(numbers[1]), int(numbers[2])) < newer if numbers else not version and "" < date < since
        base = older if old else base
    own = f"{base}-b200"
    return own if chip.split("-")[0] in BLACKWELL and own in catalog.engines else base
