"""Optimizations by name: transforms of what is served, with what they cost once, what they do to accuracy, and what they need.

An optimization changes a `Serving` and nothing else, so that any of them can be tried on any deployment, alone or after another.
What it does to step times, memory and files follows from the models of those (`sim.perf.serving`), never from a speed-up that is
typed in here: the measured speed-ups are its tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce

from sim.domain.hardware import Accelerator, Provenance
from sim.domain.models import Model
from sim.errors import Problems
from sim.perf import evidence
from sim.perf.compression import Pruning
from sim.perf.evidence import READ, Accuracy, OneOff
from sim.perf.roofline import EXPERTS_ONLY, WEIGHT_TYPES
from sim.perf.serving import SPARSE_SPEED, UNFUSED_SPEED, Serving
from sim.perf.speculation import ACCEPTANCE, Speculation
from sim.perf.training import active_parameters

JOINED_BY = "+"

Transform = Callable[[Serving], Serving]


@dataclass(frozen=True)
class Choices:
    """What optimizations leave open.

    Parameters
    ----------
    draft : proposes tokens; None looks them up in the prompt. proposals : of a step. acceptance : chance that one is kept.
    student : the smaller model of a distillation. student_tokens : it is taught with. sparsity : share of weights that is pruned.
    prefix_cache_hit : share of each prompt found in the cache.
    """

    draft: Model | None = None
    proposals: int = 4
    acceptance: float = ACCEPTANCE[1]
    student: Model | None = None
    student_tokens: float = evidence.DISTILLATION_TOKENS
    sparsity: float = 0.6
    prefix_cache_hit: float = 0.3


@dataclass(frozen=True)
class Optimization:
    """A named transform of what is served.

    Parameters
    ----------
    summary : what it does, in a few words. apply : the transform. accuracy : what it does to answers.
    one_off : its cost, for what was served before. refused : why it cannot be applied to that on an accelerator, "" where it can.
    worst, best : what is assumed in it at the least and the most favourable, as transforms of what is served afterwards.
    """

    name: str
    summary: str
    apply: Transform
    accuracy: Accuracy
    one_off: Callable[[Serving], OneOff] = lambda _: OneOff()
    refused: Callable[[Serving, Accelerator], str] = lambda _serving, _accelerator: ""
    worst: Transform = lambda serving: serving
    best: Transform = lambda serving: serving


def optimization(name: str, choices: Choices, path: str, problems: Problems) -> Optimization | None:
    """Return an optimization by its name, or several that are applied one after the other, joined by "+"; None after a problem.

    Parameters
    ----------
    choices : what the optimizations leave open. path : of the name, for problems.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> served = Serving(load_catalog().models["llama-3.1-8b"], "bf16", "bf16")
    >>> both = optimization("fp8+kv_fp8", Choices(), "try", Problems())
    >>> both.apply(served).weight_dtype, both.apply(served).kv_dtype, both.accuracy.text
    ('fp8', 'fp8', '-6.5 to -1 %')
    """
    parts = name.split(JOINED_BY)
    known = [problems.check(part in OPTIMIZATIONS, path, part, "is no optimization", choices=OPTIMIZATIONS) for part in parts]
    return reduce(together, (OPTIMIZATIONS[part](choices) for part in parts)) if all(known) else None


def together(first: Optimization, second: Optimization) -> Optimization:
    """Return two optimizations as one: the second is applied to what the first leaves.

    Costs add. So do changes of accuracy, for want of measurements of most pairs.
    """

    def one_off(serving: Serving) -> OneOff:
        one, other = first.one_off(serving), second.one_off(first.apply(serving))
        source = "; ".join(dict.fromkeys((one.provenance.source, other.provenance.source)))
        return OneOff(
            one.gpu_hours + other.gpu_hours,
            one.training_flops + other.training_flops,
            other.trained or one.trained,
            Provenance(source, READ, "assumed"),
        )

    losses = first.accuracy, second.accuracy
    source = "; ".join(loss.provenance.source for loss in losses)
    return Optimization(
        f"{first.name}{JOINED_BY}{second.name}",
        f"{first.summary}; {second.summary}",
        lambda serving: second.apply(first.apply(serving)),
        Accuracy(
            round(sum(loss.low for loss in losses), 1),
            round(sum(loss.high for loss in losses), 1),
            "; ".join(dict.fromkeys(loss.benchmark for loss in losses)),
            Provenance(f"sum of {source}", READ, "assumed"),
        ),
        one_off,
        lambda serving, accelerator: first.refused(serving, accelerator) or second.refused(first.apply(serving), accelerator),
        lambda serving: second.worst(first.worst(serving)),
        lambda serving: second.best(first.best(serving)),
    )


_SUMMARIES = {
    "fp32": "weights and arithmetic in 32 bits",
    "bf16": "weights and arithmetic in 16 bits, sums in 32 (mixed precision)",
    "fp8": "weights and activations in fp8",
    "w8a8": "weights and activations in int8",
    "int8_wo": "weights in int8, arithmetic in bf16",
    "int4_wo": "weights in int4, arithmetic in bf16",
    "nvfp4": "weights and activations in 4-bit floats, a scale for every 16",
    "mxfp4": "weights of experts in 4-bit floats, a scale for every 32, arithmetic in bf16",
}
# Types whose weights are fitted to calibration data, layer by layer; the others are rounded.
_CALIBRATED = ("w8a8", "int4_wo", "nvfp4", "mxfp4")


def _quantized(weight_dtype: str) -> Optimization:
    arithmetic = WEIGHT_TYPES[weight_dtype][1]

    def one_off(serving: Serving) -> OneOff:
        if weight_dtype not in _CALIBRATED:
            return OneOff(provenance=Provenance("rounded while loading, no calibration", READ, "assumed"))
        source = "GPTQ, arXiv 2210.17323, abstract: 4 GPU-hours for 175 billion parameters, in proportion to them"
        confidence = "published" if weight_dtype == "int4_wo" else "assumed"
        hours = evidence.GPTQ_HOURS_PER_PARAMETER * serving.model.parameters
        return OneOff(hours, provenance=Provenance(source, READ, confidence))

    def refused(serving: Serving, accelerator: Accelerator) -> str:
        if serving.weight_dtype == weight_dtype:
            return "the weights have this type"
        if serving.sparse_2_4 and weight_dtype in _NO_SPARSE_KERNELS:
            return f"no kernels for 2:4 sparse {weight_dtype} weights"
        if weight_dtype in EXPERTS_ONLY and not serving.model.experts:
            return f"{serving.model.name} has no experts"
        return "" if arithmetic in accelerator.dense_tflops else f"{accelerator.name} has no {arithmetic} arithmetic"

    return Optimization(
        weight_dtype,
        _SUMMARIES[weight_dtype],
        lambda serving: replace(serving, weight_dtype=weight_dtype),
        evidence.QUANTIZED[weight_dtype],
        one_off,
        refused,
    )


def _kv_fp8(_choices: Choices) -> Optimization:
    def refused(serving: Serving, accelerator: Accelerator) -> str:
        if serving.kv_dtype == "fp8":
            return "the cache has this type"
        return "" if "fp8" in accelerator.dense_tflops else f"{accelerator.name} has no fp8 arithmetic for the attention"

    return Optimization(
        "kv_fp8", "KV cache in fp8", lambda serving: replace(serving, kv_dtype="fp8"), evidence.FP8_CACHE, refused=refused
    )


def _recovery(serving: Serving) -> OneOff:
    """Pruning in one shot, then training: 6 N D for the model, and 2 N D for the logits of the dense one that teaches it."""
    source = (
        "SparseGPT, arXiv 2301.00774, abstract: 4.5 h for 175 billion parameters; then 8 N D, D = 13e9 as Sparse-Llama-3.1-8B-2of4"
    )
    return OneOff(
        evidence.SPARSEGPT_HOURS_PER_PARAMETER * serving.model.parameters,
        8 * active_parameters(serving.model) * evidence.RECOVERY_TOKENS,
        serving.model,
        Provenance(source, READ, "published"),
    )


def _pruning(choices: Choices) -> Optimization:
    def refused(serving: Serving, _accelerator: Accelerator) -> str:
        if serving.pruning is not None:
            return "the weights are pruned"
        return "the weights have the 2:4 pattern" if serving.sparse_2_4 else ""

    return Optimization(
        "pruning",
        f"{choices.sparsity:.0%} of the weights are zero; entropy-coded files, dense kernels",
        lambda serving: replace(serving, pruning=Pruning(choices.sparsity)),
        evidence.PRUNED,
        _recovery,
        refused,
    )


# Types for which neither vLLM nor TensorRT-LLM has 2:4 sparse kernels (from memory, assumed).
_NO_SPARSE_KERNELS = ("fp32", "int8_wo", "nvfp4", "mxfp4")


def _sparsity_2_4(_choices: Choices) -> Optimization:
    def refused(serving: Serving, accelerator: Accelerator) -> str:
        if serving.sparse_2_4:
            return "the weights have this pattern"
        if serving.pruning is not None:
            return "the weights are pruned without a pattern"
        if serving.weight_dtype in _NO_SPARSE_KERNELS:
            return f"no kernels for 2:4 sparse {serving.weight_dtype} weights"
        if serving.model.experts:
            return "no kernels for 2:4 sparse experts"
        return "" if accelerator.sparse_2_4 else f"{accelerator.name} does not multiply 2:4 sparse weights"

    return Optimization(
        "sparsity_2_4",
        "two of four weights are zero, with sparse kernels",
        lambda serving: replace(serving, sparse_2_4=True),
        evidence.SPARSE_2_4,
        _recovery,
        refused,
        lambda serving: replace(serving, sparse_speed=SPARSE_SPEED[0]),
        lambda serving: replace(serving, sparse_speed=SPARSE_SPEED[2]),
    )


def _distillation(choices: Choices) -> Optimization:
    student, tokens = choices.student, choices.student_tokens

    def refused(serving: Serving, _accelerator: Accelerator) -> str:
        return "no smaller model of this vocabulary is known" if student is None else _not_kin(student, serving.model)

    def one_off(serving: Serving) -> OneOff:
        assert student is not None
        flops = (6 * active_parameters(student) + 2 * active_parameters(serving.model)) * tokens
        source = f"6 N D of the student and 2 N D of the teacher, D = {tokens:.3g} as Llama-3.1-Minitron-4B (arXiv 2408.11796)"
        return OneOff(training_flops=flops, trained=student, provenance=Provenance(source, READ, "published"))

    return Optimization(
        "distillation",
        "a smaller model that it teaches" if student is None else f"{student.name}, taught by it",
        lambda serving: serving if student is None else replace(serving, model=student),
        evidence.DISTILLED,
        one_off,
        refused,
    )


def _not_kin(smaller: Model, model: Model) -> str:
    """Say why a model cannot be draft or student of another."""
    if smaller.vocabulary != model.vocabulary:
        return f"{smaller.name} has another vocabulary than {model.name}"
    return "" if smaller.parameters < model.parameters else f"{smaller.name} is not smaller than {model.name}"


def _flash_attention(_choices: Choices) -> Optimization:
    return Optimization(
        "flash_attention",
        "attention is fused: scores are never written",
        lambda serving: replace(serving, flash_attention=True),
        evidence.SAME,
        refused=lambda serving, _accelerator: "attention is fused" if serving.flash_attention else "",
    )


def _no_flash_attention(_choices: Choices) -> Optimization:
    return Optimization(
        "no_flash_attention",
        "attention is not fused: what FlashAttention saves",
        lambda serving: replace(serving, flash_attention=False),
        evidence.SAME,
        refused=lambda serving, _accelerator: "" if serving.flash_attention else "attention is not fused",
        worst=lambda serving: replace(serving, unfused_speed=UNFUSED_SPEED[0]),
        best=lambda serving: replace(serving, unfused_speed=UNFUSED_SPEED[2]),
    )


def _speculative(choices: Choices) -> Optimization:
    draft = choices.draft

    def refused(serving: Serving, _accelerator: Accelerator) -> str:
        if serving.speculation is not None:
            return "tokens are proposed already"
        return "" if draft is None else _not_kin(draft, serving.model)

    def accepted(chance: float) -> Transform:
        return lambda serving: replace(serving, speculation=Speculation(draft, choices.proposals, chance))

    proposer = "n-grams of the prompt" if draft is None else draft.name
    return Optimization(
        "speculative",
        f"{choices.proposals} tokens a step proposed by {proposer}, {choices.acceptance:.0%} kept",
        accepted(choices.acceptance),
        evidence.SAME,
        refused=refused,
        worst=accepted(ACCEPTANCE[0]),
        best=accepted(ACCEPTANCE[2]),
    )


def _prefix_cache(choices: Choices) -> Optimization:
    hit = choices.prefix_cache_hit
    return Optimization(
        "prefix_cache",
        f"{hit:.0%} of each prompt found in the prefix cache",
        lambda serving: replace(serving, prefix_cache_hit=hit),
        evidence.SAME,
        refused=lambda serving, _accelerator: "" if serving.prefix_cache_hit < hit else "as much is found already",
    )


def _typed(weight_dtype: str) -> Callable[[Choices], Optimization]:
    return lambda _choices: _quantized(weight_dtype)


OPTIMIZATIONS: dict[str, Callable[[Choices], Optimization]] = {
    **{weight_dtype: _typed(weight_dtype) for weight_dtype in WEIGHT_TYPES},
    "kv_fp8": _kv_fp8,
    "sparsity_2_4": _sparsity_2_4,
    "pruning": _pruning,
    "distillation": _distillation,
    "speculative": _speculative,
    "prefix_cache": _prefix_cache,
    "flash_attention": _flash_attention,
    "no_flash_attention": _no_flash_attention,
}
