"""The capacity sheet of a replica by closed form: what it can hold and serve before anything is simulated.

All formulas are for the steady state of a replica that never runs out of work, with every request of the mean prompt p and
output o. They know no queue and no variance of lengths: throughput measured at a latency target is lower, and the simulator is
there to say by how much.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from sim.perf.memory import KvCapacity
from sim.perf.steptime import ONE_NS_FX, StepModel

FRAGMENTATION_TOKENS = 8  # half a KV block, as the data plane counts a running sequence


@dataclass(frozen=True)
class CapacitySheet:
    """What one replica can do for requests of a mean size.

    Parameters
    ----------
    kv_tokens : capacity of the KV cache. largest_batch : sequences that decode at once, by seats and KV.
    batch : by the token budget and the TPOT target too. tpot_s : time per output token at `batch`, with prefill mixed in.
    prefill_s : of one prompt on an idle replica, to its first token.
    requests_per_s, output_tokens_per_s : sustained at `batch`. power_w : of the replica's accelerators at that load.
    bound : what limits `batch`: "seats", "kv", "tpot", or "budget" where prefill leaves decoding too few tokens of a step.
    """

    kv_tokens: int
    largest_batch: int
    batch: int
    tpot_s: float
    prefill_s: float
    requests_per_s: float
    output_tokens_per_s: float
    power_w: float
    bound: str


def decode_step_s(step: StepModel, batch: int, context_tokens: float) -> float:
    """Return the time of a pure decode step, which is the time per output token of a batch that nothing disturbs.

    Parameters
    ----------
    batch : sequences that decode. context_tokens : mean tokens in the cache of each.

    Examples
    --------
    >>> from sim.perf.steptime import closed_form
    >>> decode_step_s(closed_form(fixed_ns=5e6, token_ns=1e3, context_ns=2.0), batch=10, context_tokens=500)
    0.00502
    """
    return step.step_fx(batch, batch, 0, round(batch * context_tokens), batch) / ONE_NS_FX / 1e9


def prefill_s(step: StepModel, prompt_tokens: int, max_num_batched_tokens: int, cached_tokens: int = 0) -> float:
    """Return the time from the start of a prompt to its first token on a replica with nothing else to do: the sum over its chunks.

    Parameters
    ----------
    prompt_tokens : length of the prompt. max_num_batched_tokens : token budget of a step, the largest chunk.
    cached_tokens : of the prompt, found in the prefix cache; the last token is never one of them.

    Examples
    --------
    >>> from sim.perf.steptime import closed_form
    >>> prefill_s(closed_form(token_ns=1e6, fixed_ns=2e6), prompt_tokens=20, max_num_batched_tokens=8)
    0.026
    """
    total_fx, cached = 0, min(cached_tokens, prompt_tokens - 1)
    while cached < prompt_tokens:
        chunk = min(max_num_batched_tokens, prompt_tokens - cached)
        last = int(cached + chunk == prompt_tokens)
        total_fx += step.step_fx(chunk, last, chunk * (2 * cached + chunk), 0)
        cached += chunk
    return total_fx / ONE_NS_FX / 1e9


def prompt_token_s(step: StepModel, max_num_batched_tokens: int) -> float:
    """Return by how much one more prompt token makes a full step longer, without attention: what decoding streams do not pay.

    Parameters
    ----------
    max_num_batched_tokens : token budget of a step; the mean is over a budget from one token on.

    Examples
    --------
    >>> from sim.perf.steptime import closed_form
    >>> prompt_token_s(closed_form(token_ns=1e6, fixed_ns=2e6), max_num_batched_tokens=8)
    0.001
    """
    most = max(max_num_batched_tokens, 2)
    return (step.step_fx(most, 1, 0, 0) - step.step_fx(1, 1, 0, 0)) / (most - 1) / ONE_NS_FX / 1e9


def largest_batch(kv_tokens: int, prompt_tokens: float, output_tokens: float, max_num_seqs: int) -> int:
    """Return how many requests a replica holds on average: min(seats, KV / (p + o / 2 + half a block)).

    A request in mid-flight has generated half of its output.

    Examples
    --------
    >>> largest_batch(kv_tokens=100_000, prompt_tokens=800, output_tokens=400, max_num_seqs=256)
    99
    """
    held = prompt_tokens + output_tokens / 2 + FRAGMENTATION_TOKENS
    return min(max_num_seqs, int(kv_tokens // held))


def mixed_step_s(
    step: StepModel,
    batch: int,
    prompt_tokens: float,
    output_tokens: float,
    max_num_batched_tokens: int,
    cached_share: float = 0.0,
) -> float:
    """Return the mean time of a step when `batch` sequences decode and arriving prompts keep the batch full.

    Every step finishes batch / o requests and so starts as many. A prompt comes in c = ceil(p / budget) equal chunks, each in one
    step, so q = batch c / o chunks fall on a step: floor(q) on some, one more on the rest, and the mean is taken over the two of

        T(n = batch + j p / c, n_out = batch, S = j p^2 / (2 c), C = batch (p + o / 2)).

    A seat is counted as decoding while its prompt is prefilled, 1 / o of its time. Where h p tokens of a prompt are cached, the
    others are processed after them: p in n and c becomes (1 - h) p, and p^2 in S becomes p^2 - (h p)^2.

    Parameters
    ----------
    batch : sequences that decode. prompt_tokens, output_tokens : mean p and o. max_num_batched_tokens : token budget of a step.
    cached_share : h, of each prompt.

    Examples
    --------
    >>> from sim.perf.steptime import closed_form
    >>> mixed_step_s(closed_form(token_ns=1e6), 10, prompt_tokens=200, output_tokens=100, max_num_batched_tokens=512)
    0.03
    """
    return _mixed_step(step, batch, prompt_tokens, output_tokens, max_num_batched_tokens, cached_share)[0]


def requests_per_s(step: StepModel, batch: int, prompt_tokens: float, output_tokens: float, max_num_batched_tokens: int) -> float:
    """Return the requests per second of a full batch: each step finishes batch / o requests, so batch / (o T).

    Examples
    --------
    >>> from sim.perf.steptime import closed_form
    >>> step = closed_form(token_ns=1e6)
    >>> round(requests_per_s(step, 10, prompt_tokens=200, output_tokens=100, max_num_batched_tokens=512), 3)
    3.333
    """
    return batch / (output_tokens * mixed_step_s(step, batch, prompt_tokens, output_tokens, max_num_batched_tokens))


def capacity_sheet(
    step: StepModel,
    kv: KvCapacity | int,
    *,
    prompt_tokens: float,
    output_tokens: float,
    max_num_seqs: int,
    max_num_batched_tokens: int,
    tpot_target_s: float | None = None,
    cached_share: float = 0.0,
) -> CapacitySheet:
    """Return what one replica can hold and serve, at full batch or at the largest batch that keeps a TPOT target.

    Parameters
    ----------
    kv : KV capacity, or its tokens. prompt_tokens, output_tokens : mean lengths, at least 1.
    tpot_target_s : longest mean time per output token; None for no target.
    cached_share : of each prompt, found in the prefix cache.

    Raises
    ------
    ValueError : a mean length below 1, or a replica that cannot hold one such request.

    Examples
    --------
    >>> from sim.perf.steptime import closed_form
    >>> step = closed_form(token_ns=1e6, tdp_w=700.0, base_w=350.0)
    >>> sizes = {"prompt_tokens": 200, "output_tokens": 100, "max_num_seqs": 64, "max_num_batched_tokens": 512}
    >>> sheet = capacity_sheet(step, 100_000, tpot_target_s=0.03, **sizes)
    >>> sheet.batch, sheet.bound, round(sheet.requests_per_s, 2)
    (10, 'tpot', 3.33)
    """
    if prompt_tokens < 1 or output_tokens < 1:
        raise ValueError(f"mean lengths must be at least 1 token: {prompt_tokens} in, {output_tokens} out")
    kv_tokens = kv if isinstance(kv, int) else kv.tokens
    most = largest_batch(kv_tokens, prompt_tokens, output_tokens, max_num_seqs)
    if most < 1:
        raise ValueError(f"{kv_tokens} KV tokens cannot hold a request of {prompt_tokens:g} + {output_tokens:g} tokens")
    batch, bound = most, "seats" if most == max_num_seqs else "kv"
    processed = prompt_tokens * (1.0 - cached_share)
    within_budget = max(int(max_num_batched_tokens / (1 + processed / output_tokens)), 1)
    if within_budget < batch:
        batch, bound = within_budget, "budget"
    if tpot_target_s is not None:
        load = (prompt_tokens, output_tokens, max_num_batched_tokens, cached_share)
        within_target = _largest_within(step, batch, load, tpot_target_s)
        if within_target < batch:
            batch, bound = within_target, "tpot"
    first_s = prefill_s(step, round(prompt_tokens), max_num_batched_tokens, int(cached_share * prompt_tokens))
    step_s, step_j = _mixed_step(step, max(batch, 1), prompt_tokens, output_tokens, max_num_batched_tokens, cached_share)
    if batch == 0:
        return CapacitySheet(kv_tokens, most, 0, step_s, first_s, 0.0, 0.0, 0.0, bound)
    rate = batch / (output_tokens * step_s)
    return CapacitySheet(kv_tokens, most, batch, step_s, first_s, rate, rate * output_tokens, step_j / step_s, bound)


def _largest_within(step: StepModel, most: int, load: tuple[float, float, int, float], target_s: float) -> int:
    """Return the largest batch up to `most` whose mixed step keeps the target, 0 if none; step time grows with the batch."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if mixed_step_s(step, middle, *load) <= target_s:
            low = middle
        else:
            high = middle - 1
    return low


def _mixed_step(
    step: StepModel, batch: int, prompt_tokens: float, output_tokens: float, max_num_batched_tokens: int, cached_share: float
) -> tuple[float, float]:
    """Return the mean time in seconds and energy in joules of a mixed step."""
    cached = cached_share * prompt_tokens
    chunks = ceil((prompt_tokens - cached) / max_num_batched_tokens)
    fewer, share = divmod(batch * chunks / output_tokens, 1.0)
    context = round(batch * (prompt_tokens + output_tokens / 2))
    mean_s = mean_j = 0.0
    for count, weight in ((fewer, 1.0 - share), (fewer + 1.0, share)):
        n = round(batch + count * (prompt_tokens - cached) / chunks)
        s_twice = round(count * (prompt_tokens**2 - cached**2) / chunks)
        step_fx = step.step_fx(n, batch, s_twice, context, batch)
        mean_s += weight * step_fx / ONE_NS_FX / 1e9
        mean_j += weight * step.step_j(step_fx, n, batch, s_twice, context, batch)
    return mean_s, mean_j
