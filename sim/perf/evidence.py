"""What is published of optimizations: the accuracy they cost and the work they take once, each with its source."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from sim.domain.hardware import Provenance
from sim.domain.models import Model

READ = "2026-11-23"


@dataclass(frozen=True)
class Accuracy:
    """Published change of a benchmark's score, in percent of it; negative is worse.

    Parameters
    ----------
    low, high : the interval, both 0 where the answers are the same. benchmark : what was scored.
    provenance : source, date and confidence.
    """

    low: float
    high: float
    benchmark: str
    provenance: Provenance

    @property
    def text(self) -> str:
        """The interval in words.

        Examples
        --------
        >>> Accuracy(-3.0, -1.0, "tasks", Provenance("an example", "2026-01-01", "assumed")).text
        '-3 to -1 %'
        """
        return "none" if self.low == self.high == 0 else f"{self.low:g} to {self.high:g} %"


@dataclass(frozen=True)
class OneOff:
    """Work that is done once: hours of an accelerator, and operations of training.

    People's time is left out: no source gives it.

    Parameters
    ----------
    gpu_hours : measured by the source on an A100. training_flops : to be divided by what an accelerator reaches in training.
    trained : the model that is trained, None where none is. provenance : source, date and confidence.
    """

    gpu_hours: float = 0.0
    training_flops: float = 0.0
    trained: Model | None = None
    provenance: Provenance = field(default_factory=lambda: Provenance("nothing to be done", READ, "assumed"))


SAME = Accuracy(0.0, 0.0, "the same answers", Provenance("exact by construction", READ, "published"))
# Abstracts of GPTQ (arXiv 2210.17323) and SparseGPT (arXiv 2301.00774): 4 and 4.5 hours of a GPU for 175 billion parameters.
GPTQ_HOURS_PER_PARAMETER = 4 / 175e9
SPARSEGPT_HOURS_PER_PARAMETER = 4.5 / 175e9
# Tokens with which Sparse-Llama-3.1-8B-2of4 was trained after pruning, taught by the dense model (its model card).
RECOVERY_TOKENS = 13e9
# Tokens with which Llama-3.1-Minitron-4B was distilled from Llama-3.1-8B (arXiv 2408.11796).
DISTILLATION_TOKENS = 94e9

_KURTIC = "Kurtic and others, arXiv 2411.02355, Llama-3.1 8B to 405B, abstract"
QUANTIZED = {
    "fp32": SAME,
    "bf16": Accuracy(-0.1, 0.0, "scores of models trained in bf16", Provenance("from memory", READ, "assumed")),
    "fp8": Accuracy(
        -0.5, 0.0, "academic and real-world tasks", Provenance(f"{_KURTIC}: effectively lossless; width assumed", READ, "published")
    ),
    "w8a8": Accuracy(-3.0, -1.0, "academic and real-world tasks", Provenance(f"{_KURTIC}: 1 to 3 %", READ, "published")),
    "int8_wo": Accuracy(
        -0.5, 0.0, "as fp8", Provenance("rounding weights alone to 8 bits loses no more than fp8 does", READ, "assumed")
    ),
    "int4_wo": Accuracy(-3.0, -1.0, "as w8a8", Provenance(f"{_KURTIC}: rivals 8 bits; interval of w8a8", READ, "assumed")),
    "nvfp4": Accuracy(
        -6.2,
        -1.1,
        "MMLU-Pro (best); MMLU, GSM8K, HellaSwag, WinoGrande (worst)",
        Provenance(
            "best: Nemotron 3 Nano, 78.3 to 77.4; worst: Llama-3.1-8B-Instruct rounded, 78.9 to 74.0 (model card of ISTA-DASLab)",
            READ,
            "published",
        ),
    ),
}
# Experts of models that were trained in it lose nothing; others at least what they lose in the finer nvfp4 (from memory, assumed).
QUANTIZED["mxfp4"] = replace(QUANTIZED["nvfp4"], provenance=Provenance("as nvfp4, whose scales are finer", READ, "assumed"))
FP8_CACHE = Accuracy(
    -6.0,
    -1.0,
    "long-context and reasoning tasks",
    Provenance("vLLM blog, The State of FP8 KV-Cache: 94 to 99 % recovery, attention in fp8 too", READ, "published"),
)
PRUNED = Accuracy(
    -1.6,
    0.0,
    "Open LLM Leaderboard 1 (worst), fine-tuned tasks (best); trained after pruning",
    Provenance(
        "best: full recovery at up to 70 % (arXiv 2405.03594, Llama-2-7B); worst: Sparse-Llama-3.1-8B-2of4, 63.19 to 62.16",
        READ,
        "published",
    ),
)
SPARSE_2_4 = Accuracy(
    -9.4,
    -1.6,
    "MMLU (worst), Open LLM Leaderboard 1 (best); trained after pruning",
    Provenance(
        "best: Sparse-Llama-3.1-8B-2of4, 63.19 to 62.16; worst: HPC-AI, MMLU 0.667 to 0.604, and 0.404 without training",
        READ,
        "published",
    ),
)
DISTILLED = Accuracy(
    -15.2,
    -4.9,
    "GSM8K (worst), WinoGrande (best)",
    Provenance(
        "arXiv 2408.11796: Llama-3.1-Minitron-4B-Width from Llama-3.1-8B, GSM8K 48.6 to 41.2, WinoGrande 77.3 to 73.5",
        READ,
        "published",
    ),
)
