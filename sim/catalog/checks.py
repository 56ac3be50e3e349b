"""What a row of the catalog must say about itself, beyond the types of its fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sim.domain.hardware import Accelerator
from sim.domain.models import Model
from sim.domain.training import TrainingEfficiency
from sim.errors import Problems

# Published totals are rounded, count a vision tower or leave biases out; a wrong width is off by far more.
PARAMETERS_TOLERANCE = 0.02
# Half the bits are at most twice the arithmetic, a little more where a data sheet rounds; B300 has three times as much fp4 as fp8,
# and GeForce cards add up bf16 at half speed, so that int8 is four times it. A figure with 2:4 sparsity beside a dense one makes
# more.
MOST_GAIN = (("fp8", "bf16", 2.1), ("int8", "bf16", 4.2), ("fp4", "fp8", 3.2), ("bf16", "tf32", 2.1))


def check_accelerator(row: Accelerator, path: str, problems: Problems) -> None:
    """Record what in an accelerator contradicts itself: memory, link, power, arithmetic, pods.

    Parameters
    ----------
    path : dotted path of the row, the start of the problems' paths.
    """
    problems.check(row.usable_gib <= row.memory_gib, f"{path}.usable_gib", row.usable_gib, "more than memory_gib")
    linked = (row.link == "none") == (row.link_gb_per_s == 0)
    problems.check(linked, f"{path}.link_gb_per_s", row.link_gb_per_s, f"does not go with link {row.link}", "above 0, 0 for none")
    problems.check(row.tdp_w > 0, f"{path}.tdp_w", row.tdp_w, "out of range", "above 0")
    problems.check(row.idle_w <= row.tdp_w, f"{path}.idle_w", row.idle_w, "more than tdp_w")
    problems.check(row.min_power_w <= row.tdp_w, f"{path}.min_power_w", row.min_power_w, "more than tdp_w")
    peaks = row.dense_tflops
    for dtype, peak in peaks.items():
        problems.check(peak > 0, f"{path}.dense_tflops.{dtype}", peak, "out of range", "above 0")
    for dtype, wider, gain in MOST_GAIN:
        if dtype in peaks and wider in peaks:
            most, message = gain * peaks[wider], f"more than {gain:g} times {wider}: a figure with sparsity?"
            problems.check(peaks[dtype] <= most, f"{path}.dense_tflops.{dtype}", peaks[dtype], message, f"at most {most:g}")
    lacking = [dtype for dtype in peaks if dtype not in row.power.flop_pj] if row.power.name else []
    problems.check(not lacking, f"{path}.power", row.power.name, f"its flop_pj has no {', '.join(lacking)}")
    degrees = row.degrees
    in_order = degrees[0] == 1 and list(degrees) == sorted(set(degrees))
    problems.check(in_order, f"{path}.tensor_parallel", list(degrees), "must rise from 1")
    inside = row.largest_job <= row.pod_accelerators
    problems.check(inside, f"{path}.largest_job", row.largest_job, "more than pod_accelerators", f"0 to {row.pod_accelerators}")


def check_model(row: Model, path: str, problems: Problems) -> None:
    """Record what in an architecture contradicts itself: experts, latent attention, windows and the total.

    Parameters
    ----------
    path : dotted path of the row, the start of the problems' paths.
    """
    problems.check(row.heads % row.kv_heads == 0, f"{path}.kv_heads", row.kv_heads, "must divide heads")
    if row.experts:
        routed = 1 <= row.active_experts <= row.experts
        problems.check(routed, f"{path}.active_experts", row.active_experts, "out of range", f"1 to experts ({row.experts})")
        problems.check(row.expert_ffn > 0, f"{path}.expert_ffn", row.expert_ffn, "experts without a width", "above 0")
        some = row.dense_layers < row.layers
        problems.check(some, f"{path}.dense_layers", row.dense_layers, "no layer has experts", f"0 to {row.layers - 1}")
    else:
        for name in ("active_experts", "shared_experts", "expert_ffn", "dense_layers"):
            value = getattr(row, name)
            problems.check(value == 0, f"{path}.{name}", value, "a model without experts", "0, or experts above 0")
    if row.experts == 0 or row.dense_layers:
        problems.check(row.ffn > 0, f"{path}.ffn", row.ffn, "layers without experts need a width", "above 0")
    if row.kv_latent:
        for name in ("rope_head_dim", "value_head_dim"):
            value = getattr(row, name)
            problems.check(value > 0, f"{path}.{name}", value, "latent attention needs it", "above 0")
        problems.check(row.kv_heads == 1, f"{path}.kv_heads", row.kv_heads, "latent attention has one cache for all heads", "1")
    else:
        for name in ("query_latent", "rope_head_dim", "value_head_dim"):
            value = getattr(row, name)
            problems.check(value == 0, f"{path}.{name}", value, "only with latent attention", "0, or kv_latent above 0")
    both = (row.window_layers == 0) == (row.window_tokens == 0)
    problems.check(both, f"{path}.window_tokens", row.window_tokens, "goes with window_layers", "both above 0, or both 0")
    fits = row.window_layers <= row.layers
    problems.check(fits, f"{path}.window_layers", row.window_layers, "more than there are", f"0 to layers ({row.layers})")
    counted = row.counted_parameters
    near = abs(counted - row.parameters) <= PARAMETERS_TOLERANCE * counted
    message = "is not what the architecture makes; look at the widths and the number of layers"
    problems.check(near, f"{path}.parameters", row.parameters, message, f"about {counted:.4g}")


def check_training_efficiency(row: TrainingEfficiency, path: str, accelerators: Mapping[str, Any], problems: Problems) -> None:
    """Record what in a row of training efficiencies cannot be: ranges out of order, sizes, accelerators that are not there.

    Parameters
    ----------
    path : dotted path of the row. accelerators : names of the catalog's accelerators.
    """
    for name in ("in_run", "all_in"):
        share = getattr(row, name)
        ordered = 0 < share.low <= share.mid <= share.high <= 1
        value = [share.low, share.mid, share.high]
        problems.check(ordered, f"{path}.{name}", value, "is not in order", "0 < low <= mid <= high <= 1")
    sizes = row.least_parameters < row.most_parameters
    message = "holds no model"
    problems.check(
        sizes, f"{path}.most_parameters", row.most_parameters, message, f"above least_parameters ({row.least_parameters:g})"
    )
    for key in ("accelerators", "transferred_to"):
        for index, name in enumerate(getattr(row, key)):
            problems.check(name in accelerators, f"{path}.{key}.{index}", name, "no such row in accelerators", choices=accelerators)
