"""The measured transformer itself, on the processor with a tiny shape; needs PyTorch, which the project does not."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed; it is needed only to measure")
pytest.importorskip("experiments.calibrate_gpu", reason="not a checkout")
from experiments.calibrate_gpu import stack, table  # noqa: E402
from experiments.calibrate_gpu.__main__ import main, run_of  # noqa: E402
from experiments.calibrate_gpu.shapes import SHAPES, Point  # noqa: E402

TINY, CPU = SHAPES["tiny"], torch.device("cpu")


def by_hand(made: stack.Stack, tokens: torch.Tensor) -> torch.Tensor:
    """Return the logits of the last token of a prompt, in double precision and one head at a time."""
    shape, group = made.shape, made.shape.heads // made.shape.kv_heads

    def norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + stack.EPSILON) * weight.double()

    def rotated(x: torch.Tensor) -> torch.Tensor:
        half = shape.head_dim // 2
        turned = torch.empty_like(x)
        for position in range(len(x)):
            for pair in range(half):
                angle = position * stack.ROPE_BASE ** (-pair / half)
                a, b = x[position, pair], x[position, half + pair]
                turned[position, pair] = a * math.cos(angle) - b * math.sin(angle)
                turned[position, half + pair] = b * math.cos(angle) + a * math.sin(angle)
        return turned

    def matrix(weight: torch.Tensor) -> torch.Tensor:
        scale = stack.WEIGHT_SCALE * math.sqrt(weight.shape[1]) if made.dtype == "fp8" else 1.0
        return weight.double().T / scale

    x = made.embedding[tokens].double()
    future = torch.ones(len(tokens), len(tokens)).triu(1).bool()
    for layer in made.layers:
        qkv = norm(x, layer.attention_norm) @ matrix(layer.qkv)
        heads = list(qkv.split(shape.head_dim, dim=1))
        keys = [rotated(k) for k in heads[shape.heads : shape.heads + shape.kv_heads]]
        values = heads[shape.heads + shape.kv_heads :]
        outs = []
        for head in range(shape.heads):
            scores = rotated(heads[head]) @ keys[head // group].T / math.sqrt(shape.head_dim)
            outs.append(scores.masked_fill(future, -math.inf).softmax(-1) @ values[head // group])
        x = x + torch.cat(outs, dim=1) @ matrix(layer.out)
        gate, up = (norm(x, layer.ffn_norm) @ matrix(layer.gate_up)).chunk(2, dim=1)
        x = x + (gate * torch.sigmoid(gate) * up) @ matrix(layer.down)
    return norm(x[-1], made.final_norm) @ made.embedding.double().T


@pytest.mark.parametrize(("dtype", "limit"), [("bf16", 0.02), ("fp8", 0.1)])
def test_a_prefill_is_the_transformer_written_out(dtype: str, limit: float) -> None:
    made = stack.Stack(TINY, dtype, CPU, pool_tokens=64)
    batch = made.batch(Point(chunks=1, chunk_tokens=23))
    with torch.inference_mode():
        try:
            logits = made.step(batch, stack.EAGER).double()[0]
        except RuntimeError as error:
            if dtype == "fp8":
                pytest.skip(f"this PyTorch has no fp8 product on the processor: {error}")
            raise
        truth = by_hand(made, batch.tokens)
    assert float((logits - truth).norm() / truth.norm()) < limit


def test_chunks_and_decode_steps_give_the_logits_of_one_prefill() -> None:
    with torch.inference_mode():
        differences = stack.self_check(stack.Stack(TINY, "bf16", CPU, pool_tokens=64), stack.EAGER, prompt=37)
    assert max(differences.values()) < 0.03


def test_a_mask_at_the_wrong_corner_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "causal_lower_right", torch.nn.attention.bias.causal_upper_left)
    with torch.inference_mode():
        differences = stack.self_check(stack.Stack(TINY, "bf16", CPU, pool_tokens=64), stack.EAGER, prompt=37)
    assert differences["two chunks"] > 0.1


def test_sequences_of_a_batch_do_not_see_each_other() -> None:
    made = stack.Stack(TINY, "bf16", CPU, pool_tokens=256)
    batch = made.batch(Point(decodes=3, context=20, chunks=2, chunk_tokens=8, prior=4))
    with torch.inference_mode():
        before = made.step(batch, stack.EAGER)
        batch.tokens[1] = (batch.tokens[1] + 1) % TINY.vocabulary
        after = made.step(batch, stack.EAGER)
    changed = [not torch.equal(old, new) for old, new in zip(before, after, strict=True)]
    assert changed == [False, True, False, False, False]


def test_the_command_writes_a_table_and_facts_on_the_processor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        main(["--cpu", "--seconds", "0.01", "--idle-seconds", "0", "--out", str(tmp_path / "mine"), "tiny/2:bf16:smoke"])
    finally:
        torch.set_num_threads(threads)
    rows = table.read(tmp_path / "mine.csv")
    assert {row.phase for row in rows} == {"decode", "prefill", "mixed"}
    assert all(row.step_s > 0 and row.tensor_parallel == 2 and row.launch == "stream" for row in rows)
    assert [row.layers for row in rows].count(1) == 1
    report = json.loads((tmp_path / "mine.json").read_text("utf-8"))
    assert report["left_out"] == []
    assert "left out: 0" in capsys.readouterr().out


def test_time_that_is_up_leaves_the_rest_out_and_says_so(tmp_path: Path) -> None:
    main(["--cpu", "--budget", "0", "--idle-seconds", "0", "--out", str(tmp_path / "mine")])
    assert table.read(tmp_path / "mine.csv") == []
    [left] = json.loads((tmp_path / "mine.json").read_text("utf-8"))["left_out"]
    assert "no time left" in left


@pytest.mark.parametrize(
    "text", ["llama-3.1-8b:bf16", "llama-9:bf16:core", "tiny/3:bf16:smoke", "tiny:int3:smoke", "tiny:bf16:all"]
)
def test_a_run_that_does_not_exist_is_refused(text: str) -> None:
    import argparse

    with pytest.raises(argparse.ArgumentTypeError, match="bf16"):
        run_of(text)
