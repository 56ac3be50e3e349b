"""The tables of the pages are what the kept results of the benchmarks give; the benchmarks run at a small size."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

pages = pytest.importorskip("benchmarks.pages", reason="not a checkout")

BLOCKS = [(name, page, block) for name, blocks in pages.BLOCKS.items() for page, block in blocks]


@pytest.mark.parametrize(("name", "page", "block"), BLOCKS, ids=[f"{page.name}: {block}" for _, page, block in BLOCKS])
def test_a_table_of_a_page_is_made_from_the_kept_result(name: str, page: Path, block: str) -> None:
    text = page.read_text("utf-8")
    assert pages.with_block(text, block, pages.MADE[block](pages.kept(name))) == text


def test_every_block_is_made_and_every_maker_has_a_page() -> None:
    assert {block for _, _, block in BLOCKS} == set(pages.MADE)


def test_a_page_without_its_block_is_refused() -> None:
    with pytest.raises(ValueError, match="has 0"):
        pages.with_block("no block", "speed", "body")


def test_a_function_left_out_is_a_function_of_the_kernel() -> None:
    from benchmarks.accounts import PARTS, ROOT, without

    for replaced in PARTS.values():
        for (module, function), body in replaced.items():
            source = (ROOT / "sim" / "dataplane" / f"{module}.py").read_text("utf-8")
            changed = ast.parse(without(source, function, body))
            [found] = [node for node in changed.body if isinstance(node, ast.FunctionDef) and node.name == function]
            assert found.decorator_list
            assert ast.unparse(found).endswith(body.splitlines()[-1])
    with pytest.raises(ValueError, match="no function"):
        without("x = 1", "energy_j", "return 0.0")


def test_fleets_are_measured_with_both_engines_and_in_threads() -> None:
    from benchmarks.engine_speed import measure
    from benchmarks.threads import PLANES, thread_speed

    fast, slow = (measure("bench_chat8", 2.0, engine) for engine in ("compiled", "reference"))
    assert (fast.steps, fast.completed) == (slow.steps, slow.completed)
    assert fast.completed > 0
    assert min(fast.generate_s, fast.advance_s, fast.look_s, fast.idle_advance_s) > 0
    threads = thread_speed(2.0, 1)
    assert threads["planes"] == PLANES
    assert threads["requests"] > 100
