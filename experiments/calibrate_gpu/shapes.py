"""What is measured: shapes of models, and the engine steps whose time is taken. No PyTorch here."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Shape:
    """Shape of a dense decoder-only transformer, or of the part of it that one of `tensor_parallel` GPUs holds.

    Parameters
    ----------
    layers, hidden, heads, kv_heads, head_dim, ffn, vocabulary : as in the model's configuration; gated FFN, no biases.
    tensor_parallel : 1, or by how much heads, KV heads, FFN and vocabulary have been divided.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocabulary: int
    tensor_parallel: int = 1

    def shard(self, degree: int) -> Shape:
        """Return what one of `degree` GPUs computes; below one KV head per GPU the heads are copied, not split.

        Examples
        --------
        >>> part = SHAPES["llama-3.1-70b"].shard(8)
        >>> (part.heads, part.kv_heads, part.ffn, part.vocabulary)
        (8, 1, 3584, 16032)
        """
        parts = (self.heads, self.ffn, self.vocabulary)
        if degree < 1 or any(part % degree for part in parts):
            raise ValueError(f"{self.name} cannot be split over {degree}: heads, FFN and vocabulary are {parts}")
        heads, ffn, vocabulary = (part // degree for part in parts)
        kv_heads = max(self.kv_heads // degree, 1)
        return replace(self, heads=heads, kv_heads=kv_heads, ffn=ffn, vocabulary=vocabulary, tensor_parallel=degree)

    @property
    def linear_parameters(self) -> int:
        """Parameters of the linear layers of all layers."""
        attention = self.hidden * (2 * self.heads + 2 * self.kv_heads) * self.head_dim
        return self.layers * (attention + 3 * self.hidden * self.ffn)

    @property
    def kv_elements_per_token(self) -> int:
        """Elements of the KV cache that a token takes in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim


# Published configurations, as in the project's model catalog (a test compares them).
SHAPES = {
    shape.name: shape
    for shape in (
        Shape("llama-3.2-1b", 16, 2048, 32, 8, 64, 8192, 128256),
        Shape("llama-3.1-8b", 32, 4096, 32, 8, 128, 14336, 128256),
        Shape("llama-3.1-70b", 80, 8192, 64, 8, 128, 28672, 128256),
        Shape("tiny", 2, 64, 4, 2, 16, 128, 256),
    )
}


@dataclass(frozen=True)
class Point:
    """One engine step to measure, and how it is run.

    Parameters
    ----------
    decodes : sequences that decode one token. context : tokens that each of them has in the KV cache before the step.
    chunks : prompts of which `chunk_tokens` tokens each are processed. prior : tokens of each in the cache before the step.
    launch : "graph" replays a CUDA graph; "stream" launches every kernel from Python, as an engine without graphs does.
    attention : "flash", "cudnn" (PyTorch's backends) or "default". elementwise : "compiled" (fused by torch.compile) or "eager".
    layers : how many of the model's layers run; 0 for all.
    rest : the GPU rests for so many step times after each step; 0 for step after step. Rested, it stays below its power limit.
    """

    decodes: int = 0
    context: int = 0
    chunks: int = 0
    chunk_tokens: int = 0
    prior: int = 0
    launch: str = "graph"
    attention: str = "flash"
    elementwise: str = "compiled"
    layers: int = 0
    rest: int = 0

    @property
    def phase(self) -> str:
        """Return "decode", "prefill" or "mixed"."""
        if self.decodes and self.chunks:
            return "mixed"
        return "decode" if self.decodes else "prefill"

    @property
    def tokens(self) -> int:
        """Tokens processed in the step: n."""
        return self.decodes + self.chunks * self.chunk_tokens

    @property
    def outputs(self) -> int:
        """Sequences whose logits are computed: n_out."""
        return self.decodes + self.chunks

    @property
    def attention_pairs(self) -> float:
        """Prefill attention: S = sum over chunks of p (c + p/2).

        Examples
        --------
        >>> Point(chunks=2, chunk_tokens=10, prior=100).attention_pairs
        2100.0
        """
        return self.chunks * self.chunk_tokens * (self.prior + self.chunk_tokens / 2)

    @property
    def context_sum(self) -> int:
        """Cached tokens of all decoding sequences: C."""
        return self.decodes * self.context

    @property
    def kv_tokens(self) -> int:
        """Tokens in the KV cache at the end of the step."""
        return self.decodes * (self.context + 1) + self.chunks * (self.prior + self.chunk_tokens)


def core_plan() -> list[Point]:
    """Return the steps that matter for a fit: decode, prefill with and without prior context, and mixed steps."""
    batches = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    decode = [Point(decodes=b, context=c) for c in (128, 512, 2048, 8192, 32768) for b in batches]
    lengths = (128, 256, 512, 1024, 2048, 4096, 8192)
    prefill = [Point(chunks=1, chunk_tokens=p, prior=c) for c in (0, 2048, 8192) for p in lengths]
    prefill += [Point(chunks=1, chunk_tokens=p, prior=24576) for p in (512, 2048, 8192)]
    prefill += [Point(chunks=r, chunk_tokens=p) for r, p in ((4, 128), (16, 128), (4, 512), (16, 512), (4, 2048))]
    sizes = [(b, c, p) for b in (8, 32, 128) for c in (512, 2048) for p in (512, 2048)]
    mixed = [Point(decodes=b, context=c, chunks=1, chunk_tokens=p) for b, c, p in sizes]
    mixed += [Point(decodes=32, context=2048, chunks=1, chunk_tokens=p, prior=4096) for p in (512, 2048)]
    return decode + prefill + mixed


def rested_plan() -> list[Point]:
    """Return steps with long pauses between them, to tell what the power limit does to step after step."""
    points = [Point(decodes=b, context=512) for b in (1, 128, 256)]
    points += [Point(chunks=1, chunk_tokens=p) for p in (512, 2048, 8192)]
    points += [Point(chunks=16, chunk_tokens=512), Point(decodes=32, context=2048, chunks=1, chunk_tokens=2048)]
    return [replace(point, rest=9) for point in points]


def extra_plan() -> list[Point]:
    """Return steps that explain others: no graphs, another attention kernel, unfused element-wise kernels, fewer layers."""
    decode = [Point(decodes=b, context=512) for b in (1, 8, 64, 256)]
    prefill = [Point(chunks=1, chunk_tokens=p) for p in (128, 512, 2048, 8192)]
    few = [Point(decodes=1, context=2048), Point(decodes=64, context=2048), *prefill[1::2]]
    points = [replace(point, launch="stream") for point in (*decode, *prefill)]
    points += [replace(point, attention="cudnn") for point in (*prefill, Point(decodes=64, context=2048))]
    points += [replace(point, elementwise="eager") for point in few]
    points += [replace(point, elementwise="eager", launch="stream") for point in few[:2]]
    return points + [replace(point, layers=layers) for layers in (8, 16) for point in few]


def short_plan() -> list[Point]:
    """Return a thin grid for further shapes and types."""
    decode = [Point(decodes=b, context=c) for c in (512, 2048, 8192) for b in (1, 8, 32, 64, 128, 256)]
    prefill = [Point(chunks=1, chunk_tokens=p, prior=c) for c in (0, 8192) for p in (128, 512, 2048, 8192)]
    mixed = [Point(decodes=b, context=2048, chunks=1, chunk_tokens=p) for b in (32, 128) for p in (512, 2048)]
    return decode + prefill + mixed + [Point(decodes=1, context=512, launch="stream")]


def smoke_plan() -> list[Point]:
    """Return a handful of steps that try every path."""
    points = [Point(decodes=4, context=24), Point(chunks=1, chunk_tokens=16), Point(chunks=2, chunk_tokens=16, prior=24)]
    points += [Point(decodes=4, context=24, chunks=1, chunk_tokens=16), Point(decodes=1, context=24, layers=1)]
    points += [replace(points[0], launch="stream"), replace(points[1], attention="cudnn", elementwise="eager")]
    return [*points, replace(points[0], rest=3)]


PLANS = {"core": core_plan, "extra": extra_plan, "rested": rested_plan, "short": short_plan, "smoke": smoke_plan}
