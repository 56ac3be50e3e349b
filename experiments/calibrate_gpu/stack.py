"""A decoder of random weights: embedding, transformer layers, output head, and a contiguous KV cache. PyTorch only.

The layers are those of the Llama family: RMS norm, rotary embedding, grouped-query attention, gated FFN, no biases. Projections
of q, k and v are one product, those of gate and up another, as serving engines have them. With "fp8" the linear layers of the
blocks run in e4m3 with one constant scale per tensor (`torch._scaled_mm`); attention, head and everything between stay in bf16.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right

from .shapes import Point, Shape

FP8 = torch.float8_e4m3fn
FP8_MAX = 448.0
# Constant scales: standard normal values times these use the range of e4m3 well; attention averages and gated values are smaller.
WEIGHT_SCALE, NORM_SCALE, MIXED_SCALE, GATED_SCALE = 64.0, 32.0, 256.0, 64.0
EPSILON = 1e-5
ROPE_BASE = 500_000.0
BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}


def _cast(x: Tensor, scale: float) -> Tensor:
    return (x.float() * scale).clamp(-FP8_MAX, FP8_MAX).to(FP8)


def _normed(x: Tensor, weight: Tensor) -> Tensor:
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + EPSILON) * weight.float()).to(torch.bfloat16)


def _norm(x: Tensor, weight: Tensor, fp8: bool) -> Tensor:
    return _cast(_normed(x, weight), NORM_SCALE) if fp8 else _normed(x, weight)


def _add_norm(residual: Tensor, x: Tensor, weight: Tensor, fp8: bool) -> tuple[Tensor, Tensor]:
    total = residual + x
    return total, _norm(total, weight, fp8)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(torch.bfloat16)


def _rotary(qkv: Tensor, cos: Tensor, sin: Tensor, heads: int, kv_heads: int, head_dim: int) -> tuple[Tensor, Tensor]:
    """Return rotated queries [n, heads, d], and rotated keys beside values [n, 2 kv_heads, d]."""
    q, k, v = qkv.view(qkv.shape[0], heads + 2 * kv_heads, head_dim).split((heads, kv_heads, kv_heads), dim=1)
    return _rotate(q, cos, sin), torch.cat((_rotate(k, cos, sin), v), dim=1)


def _gated(x: Tensor, fp8: bool) -> Tensor:
    gate, up = x.chunk(2, dim=-1)
    value = (F.silu(gate.float()) * up.float()).to(torch.bfloat16)
    return _cast(value, GATED_SCALE) if fp8 else value


def _mixed(x: Tensor, fp8: bool) -> Tensor:
    return _cast(x, MIXED_SCALE) if fp8 else x


@dataclass(frozen=True)
class Kernels:
    """The element-wise parts of a layer, eager or fused by torch.compile."""

    norm: Callable[..., Tensor]
    add_norm: Callable[..., tuple[Tensor, Tensor]]
    rotary: Callable[..., tuple[Tensor, Tensor]]
    gated: Callable[..., Tensor]
    mixed: Callable[..., Tensor]


EAGER = Kernels(_norm, _add_norm, _rotary, _gated, _mixed)


def compiled_kernels() -> Kernels:
    """Return the element-wise parts as torch.compile fuses them, compiled anew; the number of tokens may change."""
    torch._dynamo.reset()
    return Kernels(*(torch.compile(part) for part in (_norm, _add_norm, _rotary, _gated)), mixed=torch.compile(_mixed))


@dataclass(frozen=True)
class Layer:
    """Weights of a layer, [out, in]; linear ones in bf16 or e4m3."""

    attention_norm: Tensor
    qkv: Tensor
    out: Tensor
    ffn_norm: Tensor
    gate_up: Tensor
    down: Tensor


@dataclass
class Part:
    """Sequences of equal length in a batch: rows `first` to `last` of the tokens, `each` per sequence after `prior` cached ones."""

    first: int
    last: int
    sequences: int
    each: int
    prior: int
    cache: Tensor
    mask: object | None = None


@dataclass
class Batch:
    """Inputs of one step, all on the device."""

    tokens: Tensor
    cos: Tensor
    sin: Tensor
    parts: list[Part]
    sampled: Tensor


class Stack:
    """Random weights of a shape, and one engine step over them.

    Parameters
    ----------
    dtype : "bf16" or "fp8", of the linear layers of the blocks.
    pool_tokens : tokens for which there is KV cache.
    """

    def __init__(self, shape: Shape, dtype: str, device: torch.device, pool_tokens: int, seed: int = 0) -> None:
        self.shape, self.dtype, self.device, self.pool_tokens = shape, dtype, device, pool_tokens
        self._random = torch.Generator(device).manual_seed(seed)
        self._fp8 = dtype == "fp8"
        h, d = shape.hidden, shape.head_dim
        self._scale_a = {scale: torch.tensor(1 / scale, device=device) for scale in (NORM_SCALE, MIXED_SCALE, GATED_SCALE)}
        self._scale_b = {
            size: torch.tensor(1 / (WEIGHT_SCALE * math.sqrt(size)), device=device) for size in (h, shape.heads * d, shape.ffn)
        }
        self.embedding = self._normal(shape.vocabulary, h)  # the head has weights of the same size; one table serves both
        self.final_norm = self._near_one(h)
        self.layers = [
            Layer(
                self._near_one(h),
                self._linear((shape.heads + 2 * shape.kv_heads) * d, h),
                self._linear(h, shape.heads * d),
                self._near_one(h),
                self._linear(2 * shape.ffn, h),
                self._linear(h, shape.ffn),
            )
            for _ in range(shape.layers)
        ]
        elements = pool_tokens * shape.kv_elements_per_token
        self.pool = torch.empty(elements, dtype=torch.bfloat16, device=device).normal_(generator=self._random)
        self.compiled = EAGER if device.type == "cpu" else compiled_kernels()

    def _normal(self, *size: int) -> Tensor:
        return torch.randn(*size, dtype=torch.bfloat16, device=self.device, generator=self._random)

    def _near_one(self, size: int) -> Tensor:
        return 1 + 0.1 * self._normal(size)

    def _linear(self, outputs: int, inputs: int) -> Tensor:
        weight = self._normal(outputs, inputs)
        return _cast(weight, WEIGHT_SCALE) if self._fp8 else weight / math.sqrt(inputs)

    def _product(self, x: Tensor, weight: Tensor, scale: float) -> Tensor:
        if not self._fp8:
            return F.linear(x, weight)
        scales = {"scale_a": self._scale_a[scale], "scale_b": self._scale_b[weight.shape[1]]}
        return torch._scaled_mm(x, weight.t(), **scales, out_dtype=torch.bfloat16, use_fast_accum=True)

    def batch(self, point: Point) -> Batch:
        """Return inputs of a step: random tokens, positions, and places in the KV pool, which holds random keys and values."""
        specs = [(point.decodes, 1, point.context), (point.chunks, point.chunk_tokens, point.prior)]
        parts, positions, sampled, first, used = [], [], [], 0, 0
        for sequences, each, prior in specs:
            if not sequences:
                continue
            last, length = first + sequences * each, prior + each
            size = self.shape.layers * sequences * length * 2 * self.shape.kv_heads * self.shape.head_dim
            view = (self.shape.layers, sequences, length, 2 * self.shape.kv_heads, self.shape.head_dim)
            mask = causal_lower_right(each, length) if each > 1 and prior else None
            parts.append(Part(first, last, sequences, each, prior, self.pool[used : used + size].view(view), mask))
            positions += [torch.arange(prior, length, device=self.device).repeat(sequences)]
            sampled += [torch.arange(first + each - 1, last, each, device=self.device)]
            first, used = last, used + size
        half = self.shape.head_dim // 2
        frequency = ROPE_BASE ** (-torch.arange(half, device=self.device) / half)
        angle = (torch.cat(positions)[:, None] * frequency)[:, None, :]
        tokens = torch.randint(self.shape.vocabulary, (first,), device=self.device, generator=self._random)
        return Batch(tokens, angle.cos(), angle.sin(), parts, torch.cat(sampled))

    def step(self, batch: Batch, kernels: Kernels, layers: int = 0) -> Tensor:
        """Run one engine step without sampling: write the new keys and values, and return the logits [sequences, vocabulary]."""
        shape, fp8 = self.shape, self._fp8
        residual = F.embedding(batch.tokens, self.embedding)
        delta: Tensor | None = None
        for index, layer in enumerate(self.layers[: layers or None]):
            if delta is None:
                x = kernels.norm(residual, layer.attention_norm, fp8)
            else:
                residual, x = kernels.add_norm(residual, delta, layer.attention_norm, fp8)
            qkv = self._product(x, layer.qkv, NORM_SCALE)
            q, kv = kernels.rotary(qkv, batch.cos, batch.sin, shape.heads, shape.kv_heads, shape.head_dim)
            attended = [self._attend(part, index, q, kv) for part in batch.parts]
            x = attended[0] if len(attended) == 1 else torch.cat(attended)
            delta = self._product(kernels.mixed(x, fp8) if fp8 else x, layer.out, MIXED_SCALE)
            residual, x = kernels.add_norm(residual, delta, layer.ffn_norm, fp8)
            x = kernels.gated(self._product(x, layer.gate_up, NORM_SCALE), fp8)
            delta = self._product(x, layer.down, GATED_SCALE)
        rows = batch.sampled
        _, last = kernels.add_norm(residual[rows], delta[rows], self.final_norm, False)
        return F.linear(last, self.embedding)

    def _attend(self, part: Part, layer: int, q: Tensor, kv: Tensor) -> Tensor:
        kv_heads, rows = self.shape.kv_heads, slice(part.first, part.last)
        cache = part.cache[layer]
        cache[:, part.prior :].copy_(kv[rows].view(part.sequences, part.each, 2 * kv_heads, -1))
        query = q[rows].view(part.sequences, part.each, self.shape.heads, -1).transpose(1, 2)
        keys, values = cache[:, :, :kv_heads].transpose(1, 2), cache[:, :, kv_heads:].transpose(1, 2)
        whole = part.each > 1 and not part.prior
        out = F.scaled_dot_product_attention(query, keys, values, attn_mask=part.mask, is_causal=whole, enable_gqa=True)
        return out.transpose(1, 2).reshape(part.last - part.first, -1)


@contextlib.contextmanager
def attention_backend(name: str) -> Iterator[None]:
    """Let attention use one of PyTorch's backends only ("flash" or "cudnn"), or whatever it chooses ("default")."""
    if name == "default":
        yield
    else:
        with sdpa_kernel(BACKENDS[name]):
            yield


def self_check(stack: Stack, kernels: Kernels, prompt: int = 256) -> dict[str, float]:
    """Return by how much the same tokens give other logits when they are computed in other steps: relative norms of differences.

    Parameters
    ----------
    prompt : tokens of the prompt; computed at once, in two chunks, and with its last token decoded after the rest.
    """
    prompt = min(prompt, stack.pool_tokens)
    whole = stack.batch(Point(chunks=1, chunk_tokens=prompt))
    logits = stack.step(whole, kernels).float()
    cut = prompt // 2
    answers = {}
    for name, at in (("two chunks", cut), ("decode", prompt - 1)):
        stack.pool[: whole.parts[0].cache.numel()].normal_(generator=stack._random)  # so that nothing is left of the last way
        last = Tensor()
        for first, end in ((0, at), (at, prompt)):
            part = Part(0, end - first, 1, end - first, first, whole.parts[0].cache[:, :, :end])
            part.mask = causal_lower_right(end - first, end) if first and end - first > 1 else None
            sampled = torch.tensor([end - first - 1], device=stack.device)
            piece = Batch(whole.tokens[first:end], whole.cos[first:end], whole.sin[first:end], [part], sampled)
            last = stack.step(piece, kernels).float()
        answers[name] = float((last - logits).norm() / logits.norm())
    return answers
